//! `tools startup`: how long the binary takes from its start to the first connection it accepts.

use std::net::TcpStream;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use argh::FromArgs;
use testkit::gateway::Launch;
use testkit::place;

/// A start slower than this has failed.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(10);

/// Measure the time from exec to the first connection accepted.
#[derive(FromArgs)]
#[argh(subcommand, name = "startup")]
pub(crate) struct Args {
    /// binary to try [default: the release build]
    #[argh(option)]
    binary: Option<PathBuf>,
    /// starts to measure
    #[argh(option, default = "20")]
    starts: usize,
    /// median above which the run fails, in milliseconds
    #[argh(option, default = "50")]
    limit_ms: u64,
}

/// Runs it; true when the median start is fast enough.
pub(crate) fn run(args: &Args) -> bool {
    let binary = crate::binary(args.binary.as_ref());
    let mut times: Vec<Duration> = (0..args.starts.max(1)).filter_map(|_| start(&binary)).collect();
    times.sort();
    let (Some(&max), Some(&median)) = (times.last(), times.get(times.len() / 2)) else {
        println!("no start came to listen");
        return false;
    };
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    println!("{} starts: median {:.1} ms, slowest {:.1} ms", times.len(), ms(median), ms(max));
    times.len() == args.starts.max(1) && median <= Duration::from_millis(args.limit_ms)
}

/// One start, with a worker that does not exist: listening must not wait for it.
fn start(binary: &PathBuf) -> Option<Duration> {
    let launch = Launch::new(binary).worker(format!("http://{}", place::refusing()));
    let begin = Instant::now();
    let gateway = launch.spawn();
    while TcpStream::connect(gateway.addr()).is_err() {
        if begin.elapsed() > GIVEN_UP_AFTER {
            return None;
        }
        std::thread::yield_now();
    }
    Some(begin.elapsed())
}
