//! One process after another on the same sockets: nobody is refused, no stream is cut, and what was known is known.

use std::io::Read;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::thread::JoinHandle;

use rustix::process::Pid;
use rustix::process::kill_process;
use testkit::client::Client;
use testkit::client::Request;
use testkit::gateway::Gateway;
use testkit::gateway::Launch;
use testkit::gateway::Signal;
use testkit::place;
use testkit::wait;
use testkit::worker::Worker;

use crate::setup::CHAT;
use crate::setup::PLAIN;
use crate::setup::Setup;
use crate::setup::begin_stream;
use crate::setup::binary;
use crate::setup::chat;
use crate::setup::on_every_setup;

on_every_setup! {
    an_upgrade_fails_no_request_and_cuts_no_stream
    conversations_and_sessions_stay_with_their_workers
    an_open_breaker_stays_open
}

/// Where processes hand over. The file is gone when the test is.
struct Place(PathBuf);

impl Place {
    fn new() -> Place {
        Place(place::temporary("handover"))
    }

    fn given_to(&self, launch: Launch) -> Launch {
        launch.flag("--handover-socket", self.0.display())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Starts the next process, and waits until it serves and the one before takes nobody new.
#[track_caller]
fn upgrade(launch: &Launch) -> Gateway {
    let next = launch.spawn();
    wait::until("the new process listens", || {
        assert!(next.stderr().is_empty(), "{:?}", next.stderr());
        next.has_logged(&["listens", "after="])
    });
    next
}

#[track_caller]
fn wait_ended(mut before: Gateway) {
    assert_eq!(before.wait_exit().code(), Some(0), "{:?}", before.stdout());
}

/// Clients that ask without a pause, over kept connections and over new ones. Each ends with how many answers it had.
struct Load {
    is_over: Arc<AtomicBool>,
    clients: Vec<JoinHandle<usize>>,
}

impl Load {
    fn start(gateway: &Gateway, clients: usize) -> Load {
        let is_over = Arc::new(AtomicBool::new(false));
        let addr = gateway.addr();
        let client = |is_kept: bool| {
            let is_over = Arc::clone(&is_over);
            thread::spawn(move || {
                let mut client = Client::connect(addr);
                let mut answers = 0;
                while !is_over.load(Ordering::Relaxed) {
                    let response = client.ask(&chat("hello"));
                    assert_eq!(response.status, 200, "{response:?}");
                    answers += 1;
                    if !is_kept || response.headers.get("connection") == Some("close") {
                        client = Client::connect(addr);
                    }
                }
                answers
            })
        };
        let clients = (0..clients).map(|at| client(at % 2 == 0)).collect();
        Load { is_over, clients }
    }

    /// Ends it; fails if any request did.
    #[track_caller]
    fn stop(self) -> usize {
        self.is_over.store(true, Ordering::Relaxed);
        self.clients.into_iter().map(|client| client.join().expect("no request failed")).sum()
    }
}

fn an_upgrade_fails_no_request_and_cuts_no_stream(setup: Setup) {
    let [streaming, answering] = [Worker::manual(), Worker::answering()];
    let place = Place::new();
    let launch = place.given_to(setup.launch()).worker(streaming.url());
    let mut gateway = launch.start();
    let mut client = gateway.client();
    let mut exchange = begin_stream(&mut client, &streaming);
    // What comes by the API goes over too, and what comes to the streaming worker would not be answered.
    let body = format!("{{\"url\":{:?}}}", answering.url());
    assert_eq!(gateway.ask(&Request::json("/workers", body)).status, 202);
    gateway.wait_healthy(2);
    streaming.answer_with(&testkit::worker::json_answer("{}"));
    let before: Vec<_> = gateway.workers().iter().map(|worker| worker["id"].clone()).collect();

    let load = Load::start(&gateway, 4);
    let mut ended = Vec::new();
    for at in 2..4 {
        let next = upgrade(&launch);
        ended.push(std::mem::replace(&mut gateway, next));
        exchange.event(&at.to_string());
        assert_eq!(client.event(), Some(format!("data: {at}")));
    }
    let answers = load.stop();
    assert!(answers > 0);
    let after: Vec<_> = gateway.workers().iter().map(|worker| worker["id"].clone()).collect();
    assert_eq!(after, before, "workers keep their ids");
    let mut first = ended.remove(0);
    assert!(first.is_running(), "the first process waits for its stream");
    ended.into_iter().for_each(wait_ended);
    exchange.close_stream();
    assert_eq!(client.events(), ["[DONE]"]);
    wait_ended(first);
    assert_eq!(gateway.ask(&chat("hello")).status, 200);
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.wait_exit().code(), Some(0));
    assert!(!place.0.exists(), "who ends leaves no socket behind");
}

/// What `GET /workers` says that answers tell.
fn worker_of(gateway: &Gateway, request: &Request) -> String {
    let response = gateway.ask(request);
    assert_eq!(response.status, 200, "{response:?}");
    response.json()["worker"].as_str().expect("the worker's name").to_owned()
}

fn conversations_and_sessions_stay_with_their_workers(setup: Setup) {
    let workers = [Worker::answering(), Worker::answering(), Worker::answering()];
    let place = Place::new();
    let launch = binary()
        .flag("--shards", setup.shards)
        .flag("--io-driver", setup.driver)
        .flag("--policy", "cache_aware");
    let launch = place.given_to(workers.iter().fold(launch, |launch, worker| launch.worker(worker.url())));
    let mut gateway = launch.start();
    let words = |at: usize, turns: usize| format!("{at} says a thing. ").repeat(40 * turns);
    let session = |at: usize| chat("short").header("x-session-id", &format!("session {at}"));
    let turn = |gateway: &Gateway, turns: usize| -> Vec<String> {
        (0..12)
            .map(|at| worker_of(gateway, &chat(&words(at, turns))))
            .chain((0..12).map(|at| worker_of(gateway, &session(at))))
            .collect()
    };
    let first = turn(&gateway, 1);
    assert_eq!(turn(&gateway, 2), first, "conversations and sessions stay while one process runs");
    for turns in 3..5 {
        let next = upgrade(&launch);
        wait_ended(std::mem::replace(&mut gateway, next));
        assert_eq!(turn(&gateway, turns), first, "and when another one goes on");
    }
}

fn an_open_breaker_stays_open(setup: Setup) {
    let [bad, good] = [Worker::answering(), Worker::answering()];
    bad.answer_with(b"HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n");
    let place = Place::new();
    let launch = place
        .given_to(setup.launch())
        .flag("--cb-failure-threshold", 2)
        .switch("--disable-retries")
        .worker(bad.url())
        .worker(good.url());
    let gateway = launch.start();
    let state = |gateway: &Gateway| {
        gateway.metrics().sum("smg_worker_cb_state", &[&format!("worker=\"{}\"", bad.url())])
    };
    wait::until("the breaker opens", || {
        gateway.ask(&chat("hello"));
        state(&gateway) == 1.0
    });
    let asked = bad.received().len();
    let next = upgrade(&launch);
    assert_eq!(state(&next), 1.0);
    for _ in 0..20 {
        assert_eq!(next.ask(&chat("hello")).status, 200);
    }
    assert_eq!(bad.received().len(), asked, "nobody tries the worker before its time");
    wait_ended(gateway);
}

#[test]
fn the_number_of_shards_may_change() {
    let worker = Worker::answering();
    let place = Place::new();
    let launch = |shards: usize| place.given_to(Setup { shards, ..PLAIN }.launch()).worker(worker.url());
    let mut first = launch(1);
    // The same addresses for all.
    let gateway = first.start();
    let at = |launch: Launch| launch.listen(gateway.addr()).prometheus(gateway.prometheus());
    let [second, third] = [at(launch(3)), at(launch(2))];
    first = at(first);
    let mut gateways = vec![gateway];
    for launch in [second, third, first] {
        let next = upgrade(&launch);
        wait_ended(gateways.pop().expect("there is one"));
        // Whatever listener the kernel chooses, somebody accepts there.
        let clients: Vec<Client> = (0..60).map(|_| next.client()).collect();
        for mut client in clients {
            assert_eq!(client.ask(&chat("hello")).status, 200);
        }
        gateways.push(next);
    }
}

/// A frame of the conversation.
fn frame(kind: u32, body: &str) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &(body.len() as u32).to_le_bytes(), body.as_bytes()].concat()
}

/// The frame behind everything that is told.
const END: u32 = 8;

fn hello(protocol: u32) -> Vec<u8> {
    frame(1, &format!("{{\"protocol\":{protocol},\"version\":\"9.9.9\",\"pid\":1}}"))
}

fn connect(path: &Path) -> UnixStream {
    wait::some("the socket", || UnixStream::connect(path).ok())
}

/// Takes everything that the process at `path` tells, and says nothing more.
#[track_caller]
fn told(path: &Path) -> UnixStream {
    let mut heir = connect(path);
    heir.write_all(&hello(1)).expect("it listens");
    let mut kinds = Vec::new();
    while kinds.last() != Some(&END) {
        let mut head = [0; 8];
        heir.read_exact(&mut head).expect("a frame");
        let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        kinds.push(word(0));
        let mut body = vec![0; word(4) as usize];
        heir.read_exact(&mut body).expect("its body");
    }
    heir
}

#[test]
fn the_fleet_is_not_changed_while_another_process_has_been_told_of_it() {
    let [worker, other] = [Worker::answering(), Worker::answering()];
    let place = Place::new();
    let gateway = place.given_to(PLAIN.launch()).worker(worker.url()).start();
    let id = gateway.workers()[0]["id"].as_str().expect("an id").to_owned();
    let add = Request::json("/workers", format!("{{\"url\":{:?}}}", other.url()));
    let heir = told(&place.0);
    for request in [
        add.clone(),
        Request::json(&format!("/workers/{id}"), "{\"priority\":1}").method("PUT"),
        Request::json(&format!("/workers/{id}"), "").method("DELETE"),
        Request::json(&format!("/add_worker?url={}", other.url()), ""),
        Request::json(&format!("/remove_worker?url={}", worker.url()), ""),
    ] {
        let refused = gateway.ask(&request);
        assert_eq!(refused.error_code().as_deref(), Some("admin_unavailable"), "{refused:?}");
        assert_eq!((refused.status, refused.headers.get("retry-after")), (503, Some("1")), "{refused:?}");
    }
    assert_eq!(gateway.workers().len(), 1, "it can be looked at, and is as it was");
    assert_eq!(gateway.ask(&chat("hello")).status, 200);
    drop(heir);
    wait::until("the process goes on as before", || gateway.ask(&add).status == 202);
    gateway.wait_healthy(2);
}

#[test]
fn a_process_that_nobody_could_follow_does_not_take_over() {
    const SOCKET_PATH_BYTES_MAX: usize = 107;
    let place = Place::new();
    let launch = PLAIN.launch();
    let gateway = place.given_to(launch.clone()).start_listening();
    // The same socket by another name, beside which none can be bound: its name would be too long.
    let (dir, name) = (place.0.parent().expect("a directory"), place.0.file_name().expect("a name"));
    let (dir, name) = (dir.to_str().expect("text"), name.to_str().expect("text"));
    let padding = "/.".repeat((SOCKET_PATH_BYTES_MAX - dir.len() - name.len() - 1) / 2);
    let ended = launch.flag("--handover-socket", format!("{dir}{padding}/{name}")).run_to_end();
    assert_eq!((ended.code, ended.stderr.len()), (Some(2), 1), "{:?}", ended.stderr);
    assert!(ended.stderr[0].contains("--handover-socket"), "{:?}", ended.stderr);
    assert!(!gateway.has_logged(&["takes over"]), "it was not even asked");
    assert_eq!(gateway.get("/health").status, 200);
}

/// A process that no test has started itself.
struct Successor(Pid);

impl Drop for Successor {
    fn drop(&mut self) {
        // Ended already, perhaps.
        let _ = kill_process(self.0, Signal::KILL);
    }
}

#[test]
fn a_signal_starts_a_successor_that_takes_over() {
    let worker = Worker::answering();
    let place = Place::new();
    let mut gateway = place.given_to(PLAIN.launch()).worker(worker.url()).start();
    let load = Load::start(&gateway, 2);
    gateway.signal(Signal::USR2);
    let line = wait::some("a successor", || {
        gateway.stdout().into_iter().find(|line| line.contains("a successor was started"))
    });
    let digits = line.split("pid=").nth(1).expect("its id").split_whitespace().next().expect("a word");
    let successor = Successor(Pid::from_raw(digits.parse().expect("a number")).expect("an id"));
    // It writes where the one before writes.
    wait::until("it serves", || gateway.has_logged(&["listens", "after="]));
    assert_eq!(gateway.wait_exit().code(), Some(0), "{:?}", gateway.stdout());
    assert!(load.stop() > 0);
    assert_eq!(gateway.workers()[0]["is_healthy"], true, "its successor answers in its place");
    kill_process(successor.0, Signal::TERM).expect("it runs");
    wait::until("it has ended", || Client::try_connect(gateway.addr()).is_err());
}

#[test]
fn a_successor_that_cannot_start_leaves_the_process_as_it_is() {
    let place = Place::new();
    let file = place::temporary("settings");
    std::fs::write(&file, "").expect("the temporary directory can be written");
    let gateway = place.given_to(PLAIN.launch()).flag("--config", file.display()).start_listening();
    // Whoever can connect may still be too early for a signal.
    wait::until("it is ready", || gateway.has_logged(&["listens"]));
    std::fs::write(&file, "no-such-flag = 1").expect("the temporary directory can be written");
    gateway.signal(Signal::USR2);
    wait::until("its end is told", || gateway.has_logged(&["the successor has ended"]));
    assert_eq!(gateway.get("/health").status, 200);
    std::fs::remove_file(file).expect("it is there");
}

#[test]
fn whoever_comes_and_does_not_serve_changes_nothing() {
    let worker = Worker::answering();
    let place = Place::new();
    let launch = place.given_to(PLAIN.launch()).worker(worker.url());
    let gateway = launch.start();
    assert_eq!(std::fs::symlink_metadata(&place.0).expect("it is there").mode() & 0o777, 0o600);
    let load = Load::start(&gateway, 2);

    // Another protocol, nonsense, and one that takes everything and dies.
    let mut other = connect(&place.0);
    other.write_all(&hello(99)).expect("it listens");
    let mut answer = Vec::new();
    other.read_to_end(&mut answer).expect("it says no and closes");
    assert!(String::from_utf8_lossy(&answer).contains("9.9.9"), "{answer:?}");
    for bytes in [b"GET / HTTP/1.1\r\n\r\n".to_vec(), frame(77, ""), hello(1), Vec::new()] {
        let mut stream = connect(&place.0);
        stream.write_all(&bytes).expect("it listens");
        let mut some = [0; 64];
        if bytes == hello(1) {
            stream.read_exact(&mut some).expect("it is welcome");
        }
    }
    wait::until("each is told", || {
        gateway.stdout().iter().filter(|line| line.contains("no handover")).count() >= 5
    });

    // One that has all there is to have, sockets included, and dies before it serves.
    drop(told(&place.0));
    wait::until("that is told too", || {
        gateway.stdout().iter().filter(|line| line.contains("no handover")).count() >= 6
    });
    let answers = load.stop();
    assert!(answers > 0);
}

#[test]
fn a_start_at_another_address_is_refused_and_the_first_goes_on() {
    let place = Place::new();
    let first = place.given_to(PLAIN.launch()).start_listening();
    let ended = place.given_to(PLAIN.launch()).run_to_end();
    assert_eq!((ended.code, ended.stderr.len()), (Some(2), 1), "{:?}", ended.stderr);
    assert!(ended.stderr[0].contains(&first.addr().to_string()), "{:?}", ended.stderr);
    assert_eq!(first.get("/health").status, 200);
}

#[test]
fn a_path_that_is_no_socket_is_refused() {
    let place = Place::new();
    std::fs::write(&place.0, "mine").expect("the temporary directory can be written");
    let ended = place.given_to(PLAIN.launch()).run_to_end();
    assert_eq!((ended.code, ended.stderr.len()), (Some(2), 1), "{:?}", ended.stderr);
    assert_eq!(std::fs::read_to_string(&place.0).expect("it is still there"), "mine");
}

#[test]
fn a_socket_that_was_left_behind_is_no_hindrance() {
    let place = Place::new();
    let worker = Worker::answering();
    let launch = place.given_to(PLAIN.launch()).worker(worker.url());
    let killed = launch.start();
    let addr = killed.addr();
    drop(killed);
    assert!(place.0.exists(), "who is killed leaves it");
    wait::until("its listeners are gone", || Client::try_connect(addr).is_err());
    let gateway = launch.start();
    assert_eq!(gateway.ask(&Request::json(CHAT, "{\"messages\":[]}")).status, 200);
    upgrade(&launch);
}
