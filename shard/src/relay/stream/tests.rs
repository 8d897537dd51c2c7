//! Every way of cutting a worker's answer, and every place where it can break off.

use api::error::ErrorCode;

use super::*;

const EVENTS: &str = "data: {\"a\":1}\n\ndata: {\"b\":2}\r\n\r\n: ping\n\ndata: [DONE]\n\n";

fn chunked(body: &str, sizes: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for piece in body.as_bytes().chunks(sizes) {
        encode_chunk_head(piece.len(), &mut out);
        out.extend_from_slice(piece);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(LAST_CHUNK);
    out
}

/// Decodes what a client would get; the flag says whether it ended properly.
fn received(mut wire: &[u8]) -> (String, bool) {
    let mut decoder = ChunkedDecoder::new();
    let mut body = Vec::new();
    loop {
        match decoder.next(&mut wire).expect("well-formed chunks") {
            Chunk::Data(data) => body.extend_from_slice(data),
            Chunk::NeedMore => return (String::from_utf8(body).expect("text"), false),
            Chunk::End => return (String::from_utf8(body).expect("text"), wire.is_empty()),
        }
    }
}

fn events() -> Relay {
    Relay::new(BodyDecoder::new(ResponseFraming::Chunked), Kind::Events, Delimiter::Chunked)
}

fn error() -> ApiError {
    ApiError::new(ErrorCode::UpstreamBody, "gone")
}

#[test]
fn events_arrive_unchanged_however_they_are_cut() {
    for size in [1, 3, 7, 1000] {
        let wire = chunked(EVENTS, size);
        for cut in 0..=wire.len() {
            let (mut relay, mut out) = (events(), Vec::new());
            let first = relay.push(&wire[..cut], &mut out);
            let last = if cut < wire.len() { relay.push(&wire[cut..], &mut out) } else { first };
            assert_eq!(last, Flow::End { is_exact: true }, "cut at {cut}");
            assert_eq!(received(&out), (EVENTS.to_owned(), true), "cut at {cut}");
            assert_eq!(relay.events(), 3);
        }
    }
}

#[test]
fn a_stream_that_breaks_anywhere_ends_in_whole_events_and_an_error() {
    let wire = chunked(EVENTS, 5);
    let done_at = EVENTS.find("data: [DONE]").expect("has an end mark");
    for cut in 0..wire.len() {
        let (mut relay, mut out) = (events(), Vec::new());
        assert_eq!(relay.push(&wire[..cut], &mut out), Flow::More);
        match relay.end_of_input(&mut out) {
            Flow::Broken => {
                assert!(relay.fail(Endpoint::ChatCompletions, &error(), &mut out));
                let (text, is_ended) = received(&out);
                assert!(is_ended);
                let (before, after) = text.split_once("data: {\"error\"").expect("an error event");
                assert!(
                    EVENTS[..done_at].starts_with(before)
                        && (before.is_empty() || before.ends_with(['\n', '\r']))
                );
                assert!(after.ends_with("}}\n\ndata: [DONE]\n\n"), "{after}");
            }
            Flow::End { .. } => assert_eq!(received(&out), (EVENTS.to_owned(), true)),
            Flow::More => unreachable!("the input has ended"),
        }
    }
}

#[test]
fn an_event_longer_than_what_is_held_flows_and_is_closed_before_the_error() {
    let (mut relay, mut out) = (events(), Vec::new());
    let long = "x".repeat(limits::EVENT_HELD_BYTES_MAX + 1);
    relay.push_decoded(format!("data: {long}").as_bytes(), &mut out);
    relay.push_decoded(b"more", &mut out);
    assert_eq!(relay.end_of_input(&mut out), Flow::Broken);
    relay.fail(Endpoint::ChatCompletions, &error(), &mut out);
    let (text, is_ended) = received(&out);
    assert!(is_ended && text.starts_with(&format!("data: {long}more\n\ndata: {{\"error\"")));
}

/// An event of a completion, with its text.
fn told(id: &str, text: &str) -> String {
    format!("data: {{\"id\":\"{id}\",\"choices\":[{{\"index\":0,\"text\":\"{text}\"}}]}}\n\n")
}

#[test]
fn an_event_that_was_half_sent_is_not_gone_on_with() {
    for sent in [limits::EVENT_HELD_BYTES_MAX, limits::EVENT_HELD_BYTES_MAX + 1] {
        let (mut relay, mut out) = (events(), Vec::new());
        relay.follow(Some(Story::new(crate::resume::Kind::Completion)));
        relay.begin();
        relay.push_decoded(told("1", "a").as_bytes(), &mut out);
        let half = &told("1", &"x".repeat(2 * limits::EVENT_HELD_BYTES_MAX)).into_bytes()[..sent];
        assert_eq!(relay.push_decoded(half, &mut out), Flow::More);
        let is_half_sent = sent > limits::EVENT_HELD_BYTES_MAX;
        assert_eq!((relay.may_move(), relay.has_sequel()), (!is_half_sent, !is_half_sent), "{sent}");
        relay.fail(Endpoint::Completions, &error(), &mut out);
        let (text, is_ended) = received(&out);
        let events: Vec<&str> = text.split_terminator("\n\n").collect();
        assert!(is_ended && events.len() == if is_half_sent { 4 } else { 3 }, "{}", events.len());
        let error: serde_json::Value =
            serde_json::from_str(&events[events.len() - 2]["data: ".len()..]).expect("JSON");
        assert!(error["error"]["code"].is_string(), "{error}");
    }
}

#[test]
fn an_event_too_long_to_be_retold_ends_a_resumed_stream_between_events() {
    let (mut relay, mut out) = (events(), Vec::new());
    relay.follow(Some(Story::new(crate::resume::Kind::Completion)));
    relay.begin();
    relay.push_decoded(told("1", "a").as_bytes(), &mut out);
    assert!(matches!(relay.sequel(b"{\"prompt\":\"x\",\"max_tokens\":9,\"stream\":true}"), Sequel::Ask(_)));
    relay.go_on(BodyDecoder::new(ResponseFraming::Chunked));
    let long = told("2", &"x".repeat(2 * limits::EVENT_HELD_BYTES_MAX));
    let flow = relay.push(&chunked(&(told("2", "b") + &long), 16 * 1024), &mut out);
    assert_eq!((flow, relay.may_move()), (Flow::Broken, false));
    relay.fail(Endpoint::Completions, &error(), &mut out);
    let (text, is_ended) = received(&out);
    let note = ": x-ringway-resumed: 1\n\n";
    let before = format!("{}{note}{}data: {{\"error\"", told("1", "a"), told("1", "b"));
    assert!(is_ended && text.starts_with(&before), "{}", &text[..text.len().min(400)]);
    assert!(text.ends_with("}}\n\ndata: [DONE]\n\n") && text.len() < 1024);
}

#[test]
fn a_plain_body_keeps_its_length_and_cannot_say_that_it_broke() {
    let mut relay =
        Relay::new(BodyDecoder::new(ResponseFraming::Length(5)), Kind::Plain, Delimiter::Length(5));
    let mut out = Vec::new();
    assert_eq!(relay.push(b"abc", &mut out), Flow::More);
    assert_eq!(relay.end_of_input(&mut out), Flow::Broken);
    assert!(!relay.fail(Endpoint::ChatCompletions, &error(), &mut out));
    assert_eq!(relay.push(b"deXX", &mut out), Flow::End { is_exact: false });
    assert_eq!(out, b"abcde");
}

#[test]
fn events_until_the_connection_closes_end_cleanly_at_a_boundary_only() {
    let new = || Relay::new(BodyDecoder::new(ResponseFraming::UntilClose), Kind::Events, Delimiter::Chunked);
    let (mut relay, mut out) = (new(), Vec::new());
    relay.push(b"data: 1\n\n", &mut out);
    assert_eq!(relay.end_of_input(&mut out), Flow::End { is_exact: false });
    assert_eq!(received(&out), ("data: 1\n\n".to_owned(), true));
    let (mut relay, mut out) = (new(), Vec::new());
    relay.push(b"data: 1\n\ndata: ", &mut out);
    assert_eq!(relay.end_of_input(&mut out), Flow::Broken);
}

#[test]
fn bytes_that_are_no_chunks_break_the_stream() {
    let (mut relay, mut out) = (events(), Vec::new());
    assert_eq!(relay.push(b"xyz\r\n", &mut out), Flow::Broken);
}

#[test]
fn each_dialect_names_its_error_event() {
    for (endpoint, begin, end) in [
        (Endpoint::ChatCompletions, "data: {\"error\":{", "data: [DONE]\n\n"),
        (
            Endpoint::Messages,
            "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"api_error\"",
            "}}\n\n",
        ),
        (Endpoint::Responses, "event: error\ndata: {\"type\":\"error\",\"code\":", "\"param\":null}\n\n"),
    ] {
        let (mut relay, mut out) = (events(), Vec::new());
        relay.fail(endpoint, &error(), &mut out);
        let (text, is_ended) = received(&out);
        assert!(is_ended && text.starts_with(begin) && text.ends_with(end), "{text}");
    }
}
