//! The gateway as a child process.

use std::ffi::OsStr;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Mutex;
use std::thread;
use std::thread::JoinHandle;

use rustix::process::Pid;
pub use rustix::process::Signal;
use rustix::process::kill_process;
use serde_json::Value;

use crate::client::Client;
use crate::client::Request;
use crate::client::Response;
use crate::metrics::Metrics;
use crate::place;
use crate::wait;

/// Makes standard input the first descriptor of a service manager, and runs the program.
const GIVE: &str = "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" \"$@\"";

/// A gateway about to be started.
#[derive(Clone, Debug)]
pub struct Launch {
    program: PathBuf,
    /// A listening socket that it is given, as a service manager gives it.
    given: Option<Arc<OwnedFd>>,
    args: Vec<String>,
    env: Vec<(String, String)>,
    workers: Vec<String>,
    listen: SocketAddr,
    prometheus: SocketAddr,
    /// Whether it is not told where to serve metrics.
    has_one_port: bool,
}

/// A running gateway. Dropped, it is killed.
#[derive(Debug)]
pub struct Gateway {
    child: Child,
    listen: SocketAddr,
    prometheus: SocketAddr,
    stdout: Output,
    stderr: Output,
}

/// A start that ended by itself.
#[derive(Debug)]
pub struct Ended {
    /// Exit code, none after a signal.
    pub code: Option<i32>,
    /// Lines of standard error.
    pub stderr: Vec<String>,
}

/// Lines of one of the child's outputs, read by a thread so that the child never waits for us.
#[derive(Debug)]
struct Output {
    lines: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

// === impl Launch ===

impl Launch {
    /// `ringway` at `program`, on addresses of its own.
    pub fn new(program: impl AsRef<Path>) -> Launch {
        let ip = place::own_ip();
        Launch {
            program: program.as_ref().to_owned(),
            given: None,
            args: Vec::new(),
            env: Vec::new(),
            workers: Vec::new(),
            listen: place::free_port(ip),
            prometheus: place::free_port(place::own_ip()),
            has_one_port: false,
        }
    }

    /// Adds a flag with its value.
    pub fn flag(mut self, name: &str, value: impl ToString) -> Launch {
        self.args.extend([name.to_owned(), value.to_string()]);
        self
    }

    /// Adds a flag that takes no value.
    pub fn switch(mut self, name: &str) -> Launch {
        self.args.push(name.to_owned());
        self
    }

    /// Sets a variable of its environment.
    pub fn env(mut self, name: &str, value: impl ToString) -> Launch {
        self.env.push((name.to_owned(), value.to_string()));
        self
    }

    /// Gives it a listening socket, as a service manager does (`LISTEN_FDS`).
    pub fn given(mut self, listener: TcpListener) -> Launch {
        self.given = Some(Arc::new(listener.into()));
        self
    }

    /// Adds a worker.
    pub fn worker(mut self, url: impl Into<String>) -> Launch {
        self.workers.push(url.into());
        self
    }

    /// Listens elsewhere.
    pub fn listen(mut self, addr: SocketAddr) -> Launch {
        self.listen = addr;
        self
    }

    /// Serves metrics elsewhere.
    pub fn prometheus(mut self, addr: SocketAddr) -> Launch {
        self.prometheus = addr;
        self
    }

    /// Does not say where to serve metrics: they are where clients are.
    pub fn on_one_port(mut self) -> Launch {
        self.has_one_port = true;
        self.prometheus = self.listen;
        self
    }

    /// Starts the gateway and waits until it listens and every worker named is healthy.
    #[track_caller]
    pub fn start(&self) -> Gateway {
        let gateway = self.start_listening();
        gateway.wait_healthy(self.workers.len());
        gateway
    }

    /// Starts the gateway and waits until it listens.
    #[track_caller]
    pub fn start_listening(&self) -> Gateway {
        let mut gateway = self.spawn();
        let is_up = wait::holds_within(wait::DEADLINE, || {
            Client::try_connect(gateway.listen).is_ok()
                || gateway.child.try_wait().is_ok_and(|code| code.is_some())
        });
        let is_running = gateway.child.try_wait().is_ok_and(|code| code.is_none());
        assert!(is_up && is_running, "the gateway does not listen: {:?}", gateway.stderr.lines());
        gateway
    }

    /// Starts the gateway without waiting for anything.
    #[track_caller]
    pub fn spawn(&self) -> Gateway {
        let mut command = match self.given {
            Some(_) => {
                let mut command = Command::new("/bin/sh");
                command.args(["-c", GIVE]).arg(&self.program);
                command
            }
            None => Command::new(&self.program),
        };
        command.args(["--host", &self.listen.ip().to_string(), "--port", &self.listen.port().to_string()]);
        if !self.has_one_port {
            command
                .args(["--prometheus-host", &self.prometheus.ip().to_string()])
                .args(["--prometheus-port", &self.prometheus.port().to_string()]);
        }
        command.args(&self.args).envs(self.env.iter().map(|(name, value)| (name, value)));
        if !self.workers.is_empty() {
            command.arg("--worker-urls").args(&self.workers);
        }
        let mut command = piped(command);
        if let Some(listener) = &self.given {
            command.stdin(listener.try_clone().expect("descriptors are left"));
        }
        let mut child = command.spawn().expect("the binary starts");
        let stdout = Output::of(child.stdout.take().expect("piped"));
        let stderr = Output::of(child.stderr.take().expect("piped"));
        Gateway { child, listen: self.listen, prometheus: self.prometheus, stdout, stderr }
    }

    /// Starts the gateway and waits until it ends by itself.
    #[track_caller]
    pub fn run_to_end(&self) -> Ended {
        let mut gateway = self.spawn();
        let code = gateway.wait_exit().code();
        gateway.stderr.join();
        Ended { code, stderr: gateway.stderr.lines() }
    }
}

/// Sets up a child of ours: outputs piped, no log filter inherited.
fn piped(mut command: Command) -> Command {
    command.env_remove("RUST_LOG").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

// === impl Gateway ===

impl Gateway {
    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.listen
    }

    /// Where it serves metrics.
    pub fn prometheus(&self) -> SocketAddr {
        self.prometheus
    }

    /// A new connection.
    #[track_caller]
    pub fn client(&self) -> Client {
        Client::connect(self.listen)
    }

    /// One request over a connection of its own.
    #[track_caller]
    pub fn ask(&self, request: &Request) -> Response {
        self.client().ask(request)
    }

    /// GET over a connection of its own.
    #[track_caller]
    pub fn get(&self, target: &str) -> Response {
        self.ask(&Request::get(target))
    }

    /// The metrics page.
    #[track_caller]
    pub fn metrics(&self) -> Metrics {
        Metrics::scrape(self.prometheus)
    }

    /// `GET /workers`, its list.
    #[track_caller]
    pub fn workers(&self) -> Vec<Value> {
        self.get("/workers").json()["workers"].as_array().cloned().unwrap_or_default()
    }

    /// Waits until exactly so many workers are healthy.
    #[track_caller]
    pub fn wait_healthy(&self, count: usize) {
        let what = format!("{count} workers are healthy; standard output so far: {:?}", self.stdout.lines());
        wait::until(&what, || {
            let page = self.get("/readiness");
            let is_ready = page.status == 200;
            if count == 0 {
                return !is_ready;
            }
            is_ready && page.json()["healthy_workers"] == count
        });
    }

    /// Waits until nothing is in flight, by every gauge there is.
    #[track_caller]
    pub fn wait_idle(&self) {
        let mut seen = String::new();
        let is_idle = wait::holds_within(wait::DEADLINE, || {
            let metrics = self.metrics();
            let workers = self.workers();
            // The question about the workers is over when the page is read.
            let load: i64 = workers.iter().filter_map(|worker| worker["load"].as_i64()).sum();
            let active = metrics.sum("smg_http_requests_active", &[]);
            let at_workers = metrics.sum("smg_worker_requests_active", &[]);
            seen = format!("load {load}, active {active}, at workers {at_workers}");
            load == 0 && active == 0.0 && at_workers == 0.0
        });
        assert!(is_idle, "requests stay in flight: {seen}");
    }

    /// Requests in flight at `worker`, as `GET /workers` says.
    #[track_caller]
    pub fn load_of(&self, url: &str) -> Option<i64> {
        self.workers().iter().find(|worker| worker["url"] == url)?["load"].as_i64()
    }

    /// Whether a line of standard output has all of `parts`.
    pub fn has_logged(&self, parts: &[&str]) -> bool {
        self.stdout.lines().iter().any(|line| parts.iter().all(|part| line.contains(part)))
    }

    /// Lines of standard output so far.
    pub fn stdout(&self) -> Vec<String> {
        self.stdout.lines()
    }

    /// Standard error so far.
    pub fn stderr(&self) -> Vec<String> {
        self.stderr.lines()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        send_signal(&self.child, signal);
    }

    /// Waits for the end.
    #[track_caller]
    pub fn wait_exit(&mut self) -> ExitStatus {
        wait::some("the gateway to end", || self.child.try_wait().expect("our own child"))
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|code| code.is_none())
    }

    /// Open file descriptors.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).map_or(0, Iterator::count)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(&self) -> u64 {
        resident_bytes(self.child.id())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // Ended already, perhaps.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends `signal` to a child of ours.
pub fn send_signal(child: &Child, signal: Signal) {
    // A child that ended is not an error: the test looks at how it ended.
    let _ = kill_process(Pid::from_child(child), signal);
}

/// Resident memory of a process in bytes; 0 once it has ended.
pub fn resident_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Runs `program` to its end.
#[track_caller]
pub fn run_to_end(program: &Path, args: &[impl AsRef<OsStr>]) -> Ended {
    let mut command = Command::new(program);
    command.args(args);
    let output = piped(command).output().expect("the binary starts");
    let stderr = String::from_utf8_lossy(&output.stderr).lines().map(str::to_owned).collect();
    Ended { code: output.status.code(), stderr }
}

// === impl Output ===

impl Output {
    fn of(pipe: impl Read + Send + 'static) -> Output {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let read = Arc::clone(&lines);
        let reader = thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                read.lock().expect("no holder panics").push(line);
            }
        });
        Output { lines, reader: Some(reader) }
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().expect("no holder panics").clone()
    }

    fn join(&mut self) {
        if let Some(reader) = self.reader.take() {
            // It ends with the pipe.
            let _ = reader.join();
        }
    }
}
