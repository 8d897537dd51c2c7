//! Event streams: the same boundaries under every cut, and the same events as a reader of the whole finds.

use wire::{SseEvents, SseScanner};

use super::cuts;

/// Bytes up to the last complete event, events with data, `[DONE]` seen, at a boundary.
type Scanned = (usize, u32, bool, bool);

/// One input: the bytes of a stream.
pub fn fuzz_sse(data: &[u8]) {
    let whole = scan(&[data]);
    for cut in cuts(data.len()) {
        let (before, after) = data.split_at(cut);
        assert_eq!(scan(&[before, after]), whole, "cut at {cut}");
    }
    let (complete, events, done, _) = whole;
    let (complete, open) = data.split_at(complete);
    assert_eq!(SseEvents::new(complete).count(), events as usize);
    assert_eq!(SseEvents::new(complete).any(|event| event.data == b"[DONE]".as_slice()), done);
    assert_eq!(SseEvents::new(open).count(), 0, "no event ends behind the last boundary");
}

fn scan(pieces: &[&[u8]]) -> Scanned {
    let mut scanner = SseScanner::new();
    let (mut at, mut complete, mut events, mut done) = (0, 0, 0, false);
    for piece in pieces {
        let feed = scanner.feed(piece);
        assert!(feed.complete_len <= piece.len());
        if feed.complete_len > 0 {
            complete = at + feed.complete_len;
        }
        events += feed.events;
        done |= feed.done;
        at += piece.len();
    }
    (complete, events, done, scanner.is_at_boundary())
}
