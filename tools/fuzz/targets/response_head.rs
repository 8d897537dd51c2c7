//! Response heads: whatever is accepted is sound, and reads the same when it is written anew.

use wire::{HeadLimits, ResponseFraming, parse_response};

use super::{check_head_end, check_headers, version_text, write_head};

/// One input: bytes an engine sent, read as the answer to a `GET` and to a `HEAD`.
pub fn fuzz_response_head(data: &[u8]) {
    let limits = HeadLimits { head_bytes_max: usize::MAX, ..HeadLimits::default() };
    let end = check_head_end(data).unwrap_or(data.len());
    for method in ["GET", "HEAD"] {
        let Ok(head) = parse_response(&data[..end], method, &limits) else { return };
        check_headers(&head.headers);
        assert!((100..=599).contains(&head.status), "{}", head.status);
        assert!(
            !(head.framing == ResponseFraming::UntilClose && head.keep_alive),
            "the body ends with the connection"
        );
        let has_body = head.framing != ResponseFraming::None;
        assert!(!(has_body && (method == "HEAD" || head.status < 200)), "{head:?}");

        let start_line = format!("{} {} {}", version_text(head.version), head.status, head.reason);
        let written = write_head(&start_line, &head.headers);
        let again = parse_response(&written, method, &limits).expect("what was accepted is accepted again");
        assert_eq!((again.status, again.reason, again.framing), (head.status, head.reason, head.framing));
        assert_eq!(again.keep_alive, head.keep_alive);
        assert_eq!(again.headers.as_slice(), head.headers.as_slice());
    }
}
