//! Engines that cannot be asked: who else is, and what is told when nobody is left.

use testkit::place;
use testkit::worker::Worker;

use super::chat;
use super::launch_urls;
use super::wait_idle;
use super::worker_of;

#[test]
fn as_many_others_are_asked_as_may_be() {
    let alive = Worker::answering();
    let dead: Vec<String> = (0..2).map(|_| format!("http://{}", place::refusing())).collect();
    for (attempts, expect) in [(0, [500, 500, 200]), (1, [500, 200, 200]), (2, [200, 200, 200])] {
        let urls = [dead.clone(), vec![alive.url()]].concat();
        let gateway = launch_urls(&urls, &["m", "m", "m"], "roundrobin")
            .flag("--max-instance-failover-reroute-attempts", attempts)
            .start_listening();
        // Who goes first takes turns, by URL; a retry takes a turn as well, so only counts are told.
        let mut statuses: Vec<u16> = (0..6).map(|_| gateway.ask(&chat("m")).status).collect();
        statuses.sort_unstable();
        let least_good = if attempts == 0 { 2 } else { 3 };
        let good = statuses.iter().filter(|status| **status == 200).count();
        assert!(good >= least_good, "{attempts}: {statuses:?}");
        if expect == [200, 200, 200] {
            assert_eq!(good, 6, "everybody may be asked");
        }
        assert!(statuses.iter().all(|status| [200, 500].contains(status)), "{statuses:?}");
        let metrics = wait_idle(&gateway);
        let errors = metrics.sum("vllm:request_errors_total", &["error_type=\"ClientConnectorError\""]);
        assert!(errors >= 4.0, "{errors}");
        assert_eq!(metrics.sum("vllm:num_prefill_requests", &[]), 0.0);
        assert_eq!(metrics.sum("vllm:healthy_pods_total", &[]), 3.0, "an engine stays where it was named");
    }
}

#[test]
fn when_nobody_is_left_the_error_is_the_originals() {
    let dead = format!("http://{}", place::refusing());
    let gateway = launch_urls(&[dead], &["m"], "roundrobin")
        .flag("--max-instance-failover-reroute-attempts", 5)
        .start_listening();
    let answer = gateway.ask(&chat("m"));
    assert_eq!((answer.status, answer.text().as_str()), (500, "Internal Server Error"));
    assert!(answer.headers.get("content-type").is_some_and(|kind| kind.starts_with("text/plain")));
    assert!(answer.headers.get("x-request-id").is_some());
    let form = testkit::client::Request::new("POST", "/v1/audio/transcriptions")
        .header("content-type", "multipart/form-data; boundary=b")
        .body(
            "--b\r\ncontent-disposition: form-data; name=\"file\"\r\n\r\nx\r\n--b\r\n\
             content-disposition: form-data; name=\"model\"\r\n\r\nm\r\n--b--\r\n",
        );
    let answer = gateway.ask(&form);
    assert_eq!(answer.status, 503);
    assert!(answer.text().starts_with("{\"error\":\"Failed to connect to backend: "), "{}", answer.text());
}

#[test]
fn an_engine_that_breaks_off_before_its_answer_is_replaced_at_once() {
    let (first, second) = (Worker::manual(), Worker::manual());
    let gateway = super::launch(&[(&first, "m"), (&second, "m")], "roundrobin")
        .flag("--max-instance-failover-reroute-attempts", 1)
        .start_listening();
    let mut client = gateway.client();
    client.send(&chat("m").bytes());
    let (asked, other) = if first.url() < second.url() { (&first, &second) } else { (&second, &first) };
    asked.exchange().reset();
    other.exchange().answer("{\"worker\":\"other\"}");
    assert_eq!(worker_of(&client.response()), "other");
    // No memory: the next turn is the first one's again, and it is asked again.
    client.send(&chat("m").bytes());
    asked.exchange().answer("{\"worker\":\"asked\"}");
    assert_eq!(worker_of(&client.response()), "asked");
    wait_idle(&gateway);
}
