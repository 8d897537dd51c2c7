//! Clients that stop in the middle of a request, in HTTP/1.1: what they get when their time is up.

use crate::corpus::Case;
use crate::corpus::Expect;
use crate::corpus::Then::Listen;

fn stops(name: &'static str, bytes: &str, expect: Expect) -> Case {
    Case { name, bytes: bytes.into(), then: Listen, expect }
}

/// Everything that is waited for, with timeouts of a second.
pub(super) fn cases() -> Vec<Case> {
    let head = "POST /generate HTTP/1.1\r\nhost: a\r\n";
    let late = Expect::Status(408);
    vec![
        stops("silence", "", Expect::Closed),
        stops("an empty line", "\r\n", Expect::Closed),
        stops("half a method", "PO", late),
        stops("half a first line", "POST /generate HT", late),
        stops("a first line", "POST /generate HTTP/1.1\r\n", late),
        stops("half a head", head, late),
        stops("a head but its last byte", &format!("{head}content-length: 5\r\n\r"), late),
        stops("no body", &format!("{head}content-length: 5\r\n\r\n"), late),
        stops("half a body", &format!("{head}content-length: 5\r\n\r\nhe"), late),
        stops("no chunk", &format!("{head}transfer-encoding: chunked\r\n\r\n"), late),
        stops("half a chunk", &format!("{head}transfer-encoding: chunked\r\n\r\n5\r\nhe"), late),
        stops("half a last chunk", &format!("{head}transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0"), late),
    ]
}
