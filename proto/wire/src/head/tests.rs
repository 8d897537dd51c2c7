//! Heads' shared parts: the end under every cut, hop-by-hop names, list members.

use super::*;

/// Buffers with where their first head ends.
const ENDS: &[(&[u8], Option<usize>)] = &[
    (b"", None),
    (b"\r\n", None),
    (b"\r\n\r\n", Some(4)),
    (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", Some(27)),
    (b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\n\r\n", Some(27)),
    (b"\r\nGET / HTTP/1.1\r\n\r\nbody\r\n\r\n", Some(20)),
    (b"GET / HTTP/1.1\r\nHost: a\r\n\r", None),
    (b"a\r\n\rb\r\n\n\r\n", Some(8)),
    (b"a\n\nb", Some(3)),
    (b"a\n\r\nb", Some(4)),
    (b"a\r\r\n\r\r\n\r\n", Some(9)),
];

#[test]
fn the_end_is_found_however_the_head_is_cut() {
    for &(bytes, end) in ENDS {
        assert_eq!(head_end(bytes, 0), end, "{}", bytes.escape_ascii());
        for first in 0..=bytes.len() {
            for second in first..=bytes.len() {
                let found = head_end_in_pieces(bytes, &[first, second]);
                assert_eq!(found, end, "{} cut at {first} and {second}", bytes.escape_ascii());
            }
        }
    }
}

fn head_end_in_pieces(bytes: &[u8], cuts: &[usize]) -> Option<usize> {
    let mut searched = 0;
    for &len in cuts.iter().chain([&bytes.len()]) {
        if let Some(end) = head_end(&bytes[..len], searched) {
            return Some(end);
        }
        searched = len;
    }
    None
}

#[test]
fn a_search_never_starts_behind_the_buffer() {
    assert_eq!(head_end(b"\r\n\r\n", 99), None);
}

#[test]
fn hop_by_hop_names_match_in_any_case() {
    let dropped = [
        "connection",
        "keep-alive",
        "proxy-connection",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    for name in dropped {
        assert!(is_hop_by_hop(name.as_bytes()), "{name}");
        assert!(is_hop_by_hop(name.to_ascii_uppercase().as_bytes()), "{name}");
    }
    for name in [
        "",
        "t",
        "host",
        "trailers",
        "trailex",
        "content-length",
        "authorization",
        "accept-encoding",
        "x-upgrade",
    ] {
        assert!(!is_hop_by_hop(name.as_bytes()), "{name}");
    }
}

#[test]
fn connection_names_join_every_line_and_skip_empty_members() {
    let headers = [
        Header { name: b"Connection", value: b"close , X-One,," },
        Header { name: b"X-One", value: b"1" },
        Header { name: b"connection", value: b"\tx-two" },
    ];
    let names: Vec<&[u8]> = connection_names(&headers).collect();
    assert_eq!(names, [b"close".as_slice(), b"X-One", b"x-two"]);
}

#[test]
fn close_wins_and_the_version_decides_otherwise() {
    let keeps = |value: &[u8], version| {
        let mut persistence = Persistence::default();
        persistence.note(value);
        persistence.keeps(version)
    };
    for (value, on_10, on_11) in [
        ("", false, true),
        ("keep-alive", true, true),
        ("Keep-Alive, X", true, true),
        ("CLOSE", false, false),
        ("keep-alive,close", false, false),
        ("not-close", false, true),
        ("close;q=1", false, true),
    ] {
        assert_eq!(keeps(value.as_bytes(), Version::Http10), on_10, "{value:?} on 1.0");
        assert_eq!(keeps(value.as_bytes(), Version::Http11), on_11, "{value:?} on 1.1");
    }
}
