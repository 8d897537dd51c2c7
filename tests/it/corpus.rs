//! A corpus of hostile requests: after each the gateway serves on, and no worker has seen what it should not.

mod http1;
mod http2;
mod slow;

use std::net::TcpStream;

use testkit::client::Client;
use testkit::client::Request;
use testkit::gateway::Gateway;
use testkit::http2::Http2;
use testkit::http2::Outcome;
use testkit::wait::DEADLINE;
use testkit::worker::Worker;

use crate::setup::PLAIN;

/// One hostile client.
struct Case {
    name: &'static str,
    bytes: Vec<u8>,
    then: Then,
    expect: Expect,
}

/// What it does behind its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// It waits for what comes.
    Listen,
    /// It closes its sending side.
    Shut,
}

/// What it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    /// An error of this status in the one shape, and the connection's end.
    Status(u16),
    /// The connection's end, and no word.
    Closed,
    /// An answer of 200: what looks hostile is not.
    Served,
    /// An answer of 200, then an error of this status and the connection's end.
    Then(u16),
}

/// A gateway with small bounds and short timeouts, in front of a worker.
fn gateway(worker: &Worker) -> Gateway {
    PLAIN
        .launch()
        .flag("--max-payload-size", 100_000)
        .flag("--head-timeout-secs", 1)
        .flag("--body-timeout-secs", 1)
        .flag("--keep-alive-timeout-secs", 1)
        .worker(worker.url())
        .start()
}

/// Sends what the case sends.
fn begin(gateway: &Gateway, case: &Case) -> Client {
    let mut client = gateway.client();
    // The refusal may come, and the connection go, before all of it is sent.
    let _ = client.try_send_bytes(&case.bytes);
    if case.then == Then::Shut {
        client.end_of_sending();
    }
    client
}

/// Says what is wrong with what the client got; nothing if it is as expected.
fn judge(case: &Case, mut client: Client) -> Option<String> {
    let mut faults = Vec::new();
    let mut refused = |client: &mut Client, status: u16| match client.try_response() {
        Ok(response) if response.status != status => faults.push(format!("{}", response.status)),
        Ok(response) if response.error_code().is_none() => faults.push(format!("{response:?}")),
        Ok(_) if !client.is_closed() => faults.push("the connection lives on".to_owned()),
        Ok(_) => {}
        Err(error) => faults.push(format!("{error}")),
    };
    match case.expect {
        Expect::Status(status) => refused(&mut client, status),
        Expect::Closed => {
            if !client.is_closed() {
                faults.push(format!("{:?}", client.try_response().map(|response| response.status)));
            }
        }
        Expect::Served | Expect::Then(_) => match client.try_response() {
            Ok(response) if response.status == 200 => {
                if let Expect::Then(status) = case.expect {
                    refused(&mut client, status);
                }
            }
            other => faults.push(format!("{other:?}")),
        },
    }
    (!faults.is_empty())
        .then(|| format!("{}: expected {:?}, got {}", case.name, case.expect, faults.join("; ")))
}

/// What a worker may see: the requests of cases that are served.
fn check_worker(worker: &Worker, served: usize, faults: &mut Vec<String>, name: &str) {
    let received = worker.received();
    if received.len() != served {
        faults.push(format!(
            "{name}: the worker has {} requests, not {served}: {:?}",
            received.len(),
            received.last()
        ));
    }
}

#[track_caller]
fn check(cases: &[Case]) {
    let worker = Worker::answering();
    let gateway = gateway(&worker);
    let mut faults = Vec::new();
    let mut served = 0;
    for case in cases {
        faults.extend(judge(case, begin(&gateway, case)));
        if matches!(case.expect, Expect::Served | Expect::Then(_)) && case.bytes.starts_with(b"POST") {
            served += 1;
        }
        check_worker(&worker, served, &mut faults, case.name);
        served = worker.received().len();
        let health = gateway.ask(&Request::get("/health")).status;
        if health != 200 {
            faults.push(format!("{}: the next client gets {health}", case.name));
        }
    }
    gateway.wait_idle();
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn two_readings_of_a_request() {
    check(&http1::smuggling());
}

#[test]
fn chunks_that_are_not_what_they_say() {
    check(&http1::chunks());
}

#[test]
fn requests_that_end_too_early() {
    check(&http1::truncated());
}

#[test]
fn requests_that_are_too_large() {
    check(&http1::oversize());
}

#[test]
fn lines_that_begin_no_request() {
    check(&http1::lines());
}

#[test]
fn bodies_that_make_no_sense() {
    check(&http1::bodies());
}

#[test]
fn what_follows_a_request() {
    check(&http1::pipelined());
}

#[test]
fn clients_that_stop_in_the_middle() {
    let worker = Worker::answering();
    let gateway = gateway(&worker);
    let cases = slow::cases();
    // All of them wait at once.
    let clients: Vec<Client> = cases.iter().map(|case| begin(&gateway, case)).collect();
    let faults: Vec<String> =
        cases.iter().zip(clients).filter_map(|(case, client)| judge(case, client)).collect();
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
    assert!(worker.received().is_empty());
    gateway.wait_idle();
}

#[test]
fn http2_that_no_library_would_write() {
    let worker = Worker::answering();
    let gateway = gateway(&worker);
    let mut faults = Vec::new();
    let usual = [http2::heads(), http2::bodies(), http2::frames(), http2::floods()];
    let usual = usual.into_iter().flatten().map(|case| (case, false));
    let mut served = 0;
    for (case, begins_itself) in usual.chain(http2::beginnings().into_iter().map(|case| (case, true))) {
        let stream = TcpStream::connect(gateway.addr()).expect("the gateway listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("a socket");
        stream.set_write_timeout(Some(DEADLINE)).expect("a socket");
        let mut client = Http2::silent(stream);
        if !begins_itself {
            client.begin().expect("the gateway reads");
        }
        // The end may come before all of it is sent.
        let _ = client.send(&case.bytes);
        let outcome = client.outcome(1);
        let is_expected = match (case.expect, &outcome) {
            (http2::Expect::Status(status), Outcome::Answer(found, _)) => status == *found,
            (http2::Expect::Refused, Outcome::Answer(found, _)) => *found >= 400,
            (http2::Expect::Broken | http2::Expect::Refused, Outcome::Reset(_)) => true,
            (http2::Expect::Status(_), _) => false,
            (_, Outcome::GoAway(_) | Outcome::Closed) => true,
            _ => false,
        };
        if !is_expected {
            faults.push(format!("{}: expected {:?}, got {outcome:?}", case.name, case.expect));
        }
        let is_post = case.bytes.windows(9).any(|bytes| bytes == b"/generate");
        served += usize::from(case.expect == http2::Expect::Status(200) && is_post);
        check_worker(&worker, served, &mut faults, case.name);
        served = worker.received().len();
        let health = gateway.ask(&Request::get("/health")).status;
        if health != 200 {
            faults.push(format!("{}: the next client gets {health}", case.name));
        }
    }
    gateway.wait_idle();
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}
