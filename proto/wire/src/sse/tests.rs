//! Event streams: every fixture under every cut, and events as a client reads them.

use super::*;

/// What scanning made of a stream: bytes up to the last complete event, events with data, `[DONE]` seen, at a
/// boundary.
type Scanned = (usize, u32, bool, bool);

/// Scans `bytes` handed over in pieces that end at `cuts`.
fn scan(bytes: &[u8], cuts: &[usize]) -> Scanned {
    let mut scanner = SseScanner::new();
    let (mut at, mut complete, mut events, mut done) = (0, 0, 0, false);
    for &end in cuts.iter().chain([&bytes.len()]) {
        let feed = scanner.feed(&bytes[at..end]);
        assert!(feed.complete_len <= end - at, "no more is complete than was fed");
        if feed.complete_len > 0 {
            complete = at + feed.complete_len;
        }
        assert_eq!(scanner.is_at_boundary(), complete == end, "at a boundary all is complete");
        events += feed.events;
        done |= feed.done;
        at = end;
    }
    (complete, events, done, scanner.is_at_boundary())
}

const STREAMS: &[(&[u8], Scanned)] = &[
    (b"", (0, 0, false, true)),
    (b"\n", (1, 0, false, true)),
    (b"data: x\n", (0, 0, false, false)),
    (b"data: x\n\n", (9, 1, false, true)),
    (b"data: x\r\r", (9, 1, false, true)),
    (b"data: x\r\n\r\n", (11, 1, false, true)),
    (b"data: x\n\r\n", (10, 1, false, true)),
    (b"data: x\r\n\r", (10, 1, false, true)),
    (b"data: x\r\n\n\r", (11, 1, false, true)),
    (b"data: x\n\ndata: y\n\ndata: z", (18, 2, false, false)),
    (b": ping\n\n", (8, 0, false, true)),
    (b": ping\r\n\r\ndata:y\r\n\r\n", (20, 1, false, true)),
    (b"event: a\nid: 1\n\n", (16, 0, false, true)),
    (b"event: a\ndata: 1\nretry: 3\n\n", (27, 1, false, true)),
    (b"data\n\n", (6, 1, false, true)),
    (b"data:\n\n", (7, 1, false, true)),
    (b"database: x\n\n", (13, 0, false, true)),
    (b" data: x\n\n", (10, 0, false, true)),
    (b"Data: x\n\n", (9, 0, false, true)),
    (b"data: [DONE]\n\n", (14, 1, true, true)),
    (b"data:[DONE]\r\n\r\n", (15, 1, true, true)),
    (b"data: [DONE]\n", (0, 0, false, false)),
    (b"data:  [DONE]\n\n", (15, 1, false, true)),
    (b"data: [DONE] \n\n", (15, 1, false, true)),
    (b"data: [DONE]\ndata: x\n\n", (22, 1, false, true)),
    (b"data: x\ndata: [DONE]\n\n", (22, 1, false, true)),
    (b"event: end\ndata: [DONE]\n: bye\n\n", (31, 1, true, true)),
    (b"data: x\n\ndata: [DONE]\n\n", (23, 2, true, true)),
    (b"\xef\xbb\xbfdata: [DONE]\n\n", (17, 1, true, true)),
    (b"\xef\xbb\xbfdata: [DONE]x\n\n", (18, 1, false, true)),
    (b"\n\xef\xbb\xbfdata: [DONE]\n\n", (18, 0, false, true)),
    (b"\xef\xbb\xbf\n", (4, 0, false, true)),
];

#[test]
fn boundaries_are_found_under_every_cut() {
    for &(bytes, expected) in STREAMS {
        for first in 0..=bytes.len() {
            for second in first..=bytes.len() {
                let scanned = scan(bytes, &[first, second]);
                assert_eq!(scanned, expected, "{} cut at {first} and {second}", bytes.escape_ascii());
            }
        }
        let every_byte: Vec<usize> = (0..bytes.len()).collect();
        assert_eq!(scan(bytes, &every_byte), expected, "{} byte by byte", bytes.escape_ascii());
    }
}

#[test]
fn an_lf_behind_its_cr_belongs_to_the_event_before() {
    let mut scanner = SseScanner::new();
    assert_eq!(scanner.feed(b"data: x\r\n\r"), SseFeed { complete_len: 10, events: 1, done: false });
    assert_eq!(scanner.feed(b"\ndata"), SseFeed { complete_len: 1, events: 0, done: false });
}

#[test]
fn the_scanner_and_the_reader_count_alike() {
    for &(bytes, (complete, events, ..)) in STREAMS {
        assert_eq!(SseEvents::new(bytes).count(), events as usize, "{}", bytes.escape_ascii());
        assert_eq!(SseEvents::new(&bytes[..complete]).count(), events as usize, "{}", bytes.escape_ascii());
    }
}

fn events(bytes: &[u8]) -> Vec<(Option<&str>, String)> {
    SseEvents::new(bytes)
        .map(|event| {
            let name = event.event.map(|name| std::str::from_utf8(name).expect("UTF-8"));
            (name, String::from_utf8(event.data.into_owned()).expect("UTF-8"))
        })
        .collect()
}

#[test]
fn events_are_read_as_the_standard_dispatches_them() {
    // The examples of WHATWG HTML §9.2.6, and fields that are ignored.
    for (stream, expected) in [
        ("data: YHOO\ndata: +2\ndata: 10\n\n", vec![(None, "YHOO\n+2\n10")]),
        (
            ": test stream\n\ndata: first\nid: 1\n\ndata:second\nid\n\ndata:  third\n\n",
            vec![(None, "first"), (None, "second"), (None, " third")],
        ),
        ("data\n\ndata\ndata\n\ndata:", vec![(None, ""), (None, "\n")]),
        ("data:test\n\ndata: test\n\n", vec![(None, "test"), (None, "test")]),
        ("event: a\nevent: b\ndata: x\n\ndata: y\n\n", vec![(Some("b"), "x"), (None, "y")]),
        ("event: lost\n\ndata: x\r\rdata: y\r\n\r\n", vec![(None, "x"), (None, "y")]),
        ("event:\ndata: x: y\nretry: 1\nunknown\n\n", vec![(None, "x: y")]),
        ("\u{feff}data: x\n\n", vec![(None, "x")]),
    ] {
        let expected: Vec<_> = expected.into_iter().map(|(name, data)| (name, data.to_owned())).collect();
        assert_eq!(events(stream.as_bytes()), expected, "{stream:?}");
    }
}

#[test]
fn one_data_line_is_borrowed() {
    let event = SseEvents::new(b"data: {}\n\n").next().expect("an event");
    assert!(matches!(event.data, Cow::Borrowed(b"{}")));
}

#[test]
fn what_is_written_is_read_back() {
    for (json, data) in
        [("{}", "{}"), ("", ""), ("{\n  \"a\": 1\n}", "{\n  \"a\": 1\n}"), ("[1,\r\n2]", "[1,\n\n2]")]
    {
        let mut out = Vec::new();
        write_data_event(json.as_bytes(), &mut out);
        assert_eq!(scan(&out, &[]), (out.len(), 1, false, true));
        assert_eq!(events(&out), [(None, data.to_owned())]);
    }
    let mut out = Vec::new();
    write_data_event(br#"{"a":1}"#, &mut out);
    assert_eq!(out, b"data: {\"a\":1}\n\n");
}
