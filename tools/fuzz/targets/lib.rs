//! What must hold of every input: one function a parser, run by libFuzzer and by the smoke test alike.

pub mod request_head;
pub mod response_head;

pub mod chunked;
pub mod sse;

pub mod json_scan;

/// Places to cut an input of `len` bytes at: all in a short one, evenly spread in a long one.
fn cuts(len: usize) -> impl Iterator<Item = usize> {
    const CUTS_MAX: usize = 32;
    (0..=len).step_by(len / CUTS_MAX + 1)
}

/// Checks that a head's end does not depend on how its bytes come in.
fn check_head_end(data: &[u8]) -> Option<usize> {
    let end = wire::head_end(data, 0);
    assert!(end.is_none_or(|end| end <= data.len()), "the end is inside the input");
    for cut in cuts(data.len()) {
        let resumed = wire::head_end(&data[..cut], 0).or_else(|| wire::head_end(data, cut));
        assert_eq!(resumed, end, "cut at {cut}");
    }
    end
}

/// Checks what every accepted header line must be.
fn check_headers(headers: &[wire::Header<'_>]) {
    assert!(headers.len() <= wire::limits::HEADERS_MAX);
    for header in headers {
        assert!(!header.name.is_empty() && header.name.iter().all(u8::is_ascii_graphic), "{header:?}");
        assert!(!header.name.contains(&b':'), "{header:?}");
        assert_eq!(header.value, header.value.trim_ascii(), "{header:?}");
        assert!(!header.value.iter().any(|&b| (b < b' ' && b != b'\t') || b == 0x7f), "{header:?}");
    }
}

/// Writes a head anew from its parts.
fn write_head(start_line: &str, headers: &[wire::Header<'_>]) -> Vec<u8> {
    let mut head = format!("{start_line}\r\n").into_bytes();
    for header in headers {
        head.extend_from_slice(&[header.name, b": ", header.value, b"\r\n"].concat());
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// How a version is written.
fn version_text(version: wire::Version) -> &'static str {
    match version {
        wire::Version::Http10 => "HTTP/1.0",
        wire::Version::Http11 => "HTTP/1.1",
    }
}
