//! Hostile requests in HTTP/1.1.

use crate::corpus::Case;
use crate::corpus::Expect;
use crate::corpus::Expect::Closed;
use crate::corpus::Expect::Served;
use crate::corpus::Expect::Status;
use crate::corpus::Then::Listen;
use crate::corpus::Then::Shut;

const BODY: &str = "{\"prompt\":\"hello\"}";

/// A POST whose head has these lines beside `Host`, and this behind it.
fn post(name: &'static str, lines: &str, rest: &str, expect: Expect) -> Case {
    raw(name, format!("POST /generate HTTP/1.1\r\nhost: a\r\n{lines}\r\n{rest}"), expect)
}

/// A GET whose head has these lines and nothing else.
fn get(name: &'static str, lines: &str, expect: Expect) -> Case {
    raw(name, format!("GET /health HTTP/1.1\r\n{lines}\r\n"), expect)
}

fn raw(name: &'static str, bytes: impl Into<Vec<u8>>, expect: Expect) -> Case {
    Case { name, bytes: bytes.into(), then: Listen, expect }
}

/// What is cut off where it is.
fn cut(name: &'static str, bytes: &str) -> Case {
    Case { name, bytes: bytes.into(), then: Shut, expect: Closed }
}

/// Two readings of where a request ends, and so a second request inside the first.
pub(super) fn smuggling() -> Vec<Case> {
    let inner = "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
    let zero = format!("0\r\n\r\n{inner}");
    let both = |first: &str, second: &str| format!("{first}\r\n{second}\r\n");
    let (length, chunked) = ("content-length: 5", "transfer-encoding: chunked");
    vec![
        post("length, then chunks", &both(length, chunked), &zero, Status(400)),
        post("chunks, then length", &both(chunked, length), &zero, Status(400)),
        post("a length of 0 and chunks", &both("content-length: 0", chunked), &zero, Status(400)),
        post("two lengths", "content-length: 5\r\ncontent-length: 6\r\n", &zero, Status(400)),
        post("two equal lengths in one line", "content-length: 5, 5\r\n", "hello", Status(400)),
        post(
            "two lengths, the second empty",
            "content-length: 5\r\ncontent-length:\r\n",
            "hello",
            Status(400),
        ),
        post("an empty length", "content-length: \r\n", "", Status(400)),
        post("a signed length", "content-length: +5\r\n", "hello", Status(400)),
        post("a negative length", "content-length: -1\r\n", "", Status(400)),
        post("a hexadecimal length", "content-length: 0x5\r\n", "hello", Status(400)),
        post("a length with a space inside", "content-length: 1 0\r\n", "hello", Status(400)),
        post("a length with a comma behind", "content-length: 5,\r\n", "hello", Status(400)),
        post("a length with an underscore", "content-length: 1_0\r\n", "hello", Status(400)),
        post("a fractional length", "content-length: 5.0\r\n", "hello", Status(400)),
        post("a length in powers", "content-length: 1e1\r\n", "hello", Status(400)),
        post("a length beyond 64 bits", "content-length: 18446744073709551616\r\n", "", Status(400)),
        post("a length that wraps to 5", "content-length: 18446744073709551621\r\n", "hello", Status(400)),
        post("the largest length", "content-length: 18446744073709551615\r\n", "", Status(413)),
        post("chunks behind a space", "transfer-encoding : chunked\r\n", &zero, Status(400)),
        post("chunks behind a tab", "transfer-encoding\t: chunked\r\n", &zero, Status(400)),
        post("a length behind a space", "content-length : 5\r\n", "hello", Status(400)),
        post("chunks in a folded line", "transfer-encoding:\r\n chunked\r\n", &zero, Status(400)),
        post("a length in a folded line", "content-length:\r\n\t5\r\n", "hello", Status(400)),
        post("a folded first line", " transfer-encoding: chunked\r\n", &zero, Status(400)),
        post("chunked twice", "transfer-encoding: chunked, chunked\r\n", &zero, Status(501)),
        post("chunked in two lines", &both(chunked, chunked), &zero, Status(400)),
        post("chunks of gzip", "transfer-encoding: gzip, chunked\r\n", &zero, Status(501)),
        post("chunked, then identity", "transfer-encoding: chunked, identity\r\n", &zero, Status(501)),
        post("identity", "transfer-encoding: identity\r\ncontent-length: 5\r\n", "hello", Status(501)),
        post("an unknown coding", "transfer-encoding: xchunked\r\n", &zero, Status(501)),
        post("a coding with a parameter", "transfer-encoding: chunked;x=1\r\n", &zero, Status(501)),
        post("a coding in quotes", "transfer-encoding: \"chunked\"\r\n", &zero, Status(501)),
        post("an empty coding", "transfer-encoding:\r\n", &zero, Status(501)),
        post("a coding behind a comma", "transfer-encoding: ,chunked\r\n", &zero, Status(501)),
        post("a coding with a vertical tab", "transfer-encoding: \u{b}chunked\r\n", &zero, Status(400)),
        raw(
            "chunks in HTTP/1.0",
            format!("POST /generate HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{zero}"),
            Status(400),
        ),
        raw("bare line feeds", "GET /health HTTP/1.1\nhost: a\n\n\r\n\r\n", Status(400)),
        get("a bare line feed between headers", "host: a\nx: 1\r\n", Status(400)),
        get("a bare return in a value", "host: a\r\nx: a\rtransfer-encoding: chunked\r\n", Status(400)),
        get("a line feed that hides a header", "host: a\r\nx: a\ncontent-length: 5\r\n", Status(400)),
        get("a header without a colon", "host: a\r\ntransfer-encoding chunked\r\n", Status(400)),
        get("a header without a name", "host: a\r\n: chunked\r\n", Status(400)),
        get("a name with a bracket", "host: a\r\ncontent[length: 5\r\n", Status(400)),
        get("a name outside ASCII", "host: a\r\ncontent-l\u{e9}ngth: 5\r\n", Status(400)),
        get("a nul in a name", "host: a\r\ncontent\0length: 5\r\n", Status(400)),
        get("a nul in a value", "host: a\r\nx: a\0b\r\n", Status(400)),
        get("a delete in a value", "host: a\r\nx: a\u{7f}b\r\n", Status(400)),
    ]
}

/// Bodies whose chunks are not what they say.
pub(super) fn chunks() -> Vec<Case> {
    let chunked = |name, rest: &str, expect| post(name, "transfer-encoding: chunked\r\n", rest, expect);
    let long = "x".repeat(5000);
    vec![
        chunked("a size that is none", "zz\r\n", Status(400)),
        chunked("no size", "\r\n\r\n", Status(400)),
        chunked("a negative size", "-1\r\n\r\n", Status(400)),
        chunked("a signed size", "+5\r\nhello\r\n0\r\n\r\n", Status(400)),
        chunked("a size with a prefix", "0x5\r\nhello\r\n0\r\n\r\n", Status(400)),
        chunked("a size behind a space", " 5\r\nhello\r\n0\r\n\r\n", Status(400)),
        chunked("a size with an underscore", "1_0\r\nhello\r\n0\r\n\r\n", Status(400)),
        chunked("a size beyond 64 bits", "10000000000000000\r\n", Status(400)),
        chunked("a size of very many zeros", "00000000000000000000000000000005\r\nhello\r\n", Status(400)),
        chunked("the largest size", "ffffffffffffffff\r\n", Status(408)),
        chunked("a bare line feed behind a size", "5\nhello\r\n0\r\n\r\n", Status(400)),
        chunked("a bare return behind a size", "5\rhello\r\n0\r\n\r\n", Status(400)),
        chunked("a chunk longer than it says", "2\r\nhello\r\n0\r\n\r\n", Status(400)),
        chunked("a chunk that ends in a line feed", "5\r\nhello\n0\r\n\r\n", Status(400)),
        chunked("a chunk without its end", "5\r\nhello0\r\n\r\n", Status(400)),
        chunked("an extension with a line feed", "5;a=\nb\r\nhello\r\n0\r\n\r\n", Status(400)),
        chunked("an extension with a nul", "5;a=\0\r\nhello\r\n0\r\n\r\n", Status(400)),
        chunked("a very long extension", &format!("5;{long}\r\nhello\r\n0\r\n\r\n"), Status(400)),
        chunked(
            "very many extensions",
            &format!("{}0\r\n\r\n", "1;abcdefgh\r\nx\r\n".repeat(4000)),
            Status(400),
        ),
        chunked("very many bytes of trailers", &format!("0\r\n{}\r\n", "a: b\r\n".repeat(4000)), Status(400)),
        chunked("a trailer with a line feed", "0\r\na: b\nc: d\r\n\r\n", Status(400)),
        chunked("a trailer with a nul", "0\r\na: \0\r\n\r\n", Status(400)),
        chunked("an extension", "12;name=value\r\n{\"prompt\":\"hello\"}\r\n0\r\n\r\n", Served),
        chunked("a trailer is dropped", "12\r\n{\"prompt\":\"hello\"}\r\n0\r\nhost: b\r\n\r\n", Served),
    ]
}

/// Messages that end too early: nobody may take them for complete.
pub(super) fn truncated() -> Vec<Case> {
    let head = "POST /generate HTTP/1.1\r\nhost: a\r\n";
    vec![
        cut("nothing", ""),
        cut("an empty line", "\r\n"),
        cut("half a method", "PO"),
        cut("a method", "POST "),
        cut("half a target", "POST /gen"),
        cut("half a version", "POST /generate HTT"),
        cut("a return", "POST /generate HTTP/1.1\r"),
        cut("a first line", "POST /generate HTTP/1.1\r\n"),
        cut("half a header name", "POST /generate HTTP/1.1\r\nho"),
        cut("half a header", "POST /generate HTTP/1.1\r\nhost: "),
        cut("a header", head),
        cut("the return of the last line", &format!("{head}content-length: 5\r\n\r")),
        cut("no body", &format!("{head}content-length: 5\r\n\r\n")),
        cut("all but the last byte", &format!("{head}content-length: 5\r\n\r\nhell")),
        cut("no chunk", &format!("{head}transfer-encoding: chunked\r\n\r\n")),
        cut("half a size", &format!("{head}transfer-encoding: chunked\r\n\r\n1")),
        cut("a size", &format!("{head}transfer-encoding: chunked\r\n\r\n12\r\n")),
        cut("half a chunk", &format!("{head}transfer-encoding: chunked\r\n\r\n12\r\n{{\"prompt")),
        cut("a chunk without its end", &format!("{head}transfer-encoding: chunked\r\n\r\n12\r\n{BODY}")),
        cut("chunks without the last", &format!("{head}transfer-encoding: chunked\r\n\r\n12\r\n{BODY}\r\n")),
        cut("half a last chunk", &format!("{head}transfer-encoding: chunked\r\n\r\n12\r\n{BODY}\r\n0\r\n")),
        cut("half a trailer", &format!("{head}transfer-encoding: chunked\r\n\r\n12\r\n{BODY}\r\n0\r\na: b")),
    ]
}

/// What is too large.
pub(super) fn oversize() -> Vec<Case> {
    let x = |n: usize| "x".repeat(n);
    let many: String = (0..101).map(|at| format!("x-{at}: 1\r\n")).collect();
    vec![
        raw("a long target", format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", x(70_000)), Status(431)),
        raw("a long method", format!("{} / HTTP/1.1\r\nhost: a\r\n\r\n", x(70_000)), Status(431)),
        get("a long value", &format!("host: a\r\nx: {}\r\n", x(70_000)), Status(431)),
        get("a long name", &format!("host: a\r\n{}: 1\r\n", x(70_000)), Status(431)),
        get("too many headers", &format!("host: a\r\n{many}"), Status(431)),
        raw("a head without end", format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}", x(200_000)), Status(431)),
        raw("headers without end", format!("GET / HTTP/1.1\r\n{}", "a: b\r\n".repeat(30_000)), Status(431)),
        post("a body over the bound", "content-length: 100001\r\n", &x(100_001), Status(413)),
        post("a length far over the bound", "content-length: 99999999999\r\n", "", Status(413)),
        post(
            "chunks over the bound",
            "transfer-encoding: chunked\r\n",
            &format!("186a1\r\n{}", x(100_001)),
            Status(413),
        ),
        post(
            "many small chunks over the bound",
            "transfer-encoding: chunked\r\n",
            &format!("1000\r\n{}\r\n", x(4096)).repeat(30),
            Status(413),
        ),
        post(
            "leave asked for a body over the bound",
            "content-length: 100001\r\nexpect: 100-continue\r\n",
            "",
            Status(413),
        ),
    ]
}

/// First lines and hosts that are none, and what wants another protocol.
pub(super) fn lines() -> Vec<Case> {
    let host = "host: a\r\n\r\n";
    let line = |name, line: &str, expect| raw(name, format!("{line}\r\n{host}"), expect);
    vec![
        raw("a TLS handshake", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), Status(400)),
        raw("nuls", vec![0; 64], Status(400)),
        raw("bytes outside ASCII", vec![0xff; 64], Status(400)),
        raw("a SOCKS greeting", b"\x05\x01\x00".to_vec(), Status(400)),
        raw(
            "a PROXY header",
            "PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n",
            Status(400),
        ),
        raw("JSON", "{\"prompt\":\"hello\"}\r\n\r\n", Status(400)),
        line("no target", "GET HTTP/1.1", Status(400)),
        line("no version", "GET /health", Status(400)),
        line("a fourth word", "GET /health HTTP/1.1 x", Status(400)),
        line("two spaces", "GET  /health HTTP/1.1", Status(400)),
        line("a tab for a space", "GET\t/health\tHTTP/1.1", Status(400)),
        line("a space before the method", " GET /health HTTP/1.1", Status(400)),
        line("an empty method", " /health HTTP/1.1", Status(400)),
        line("a method with a bracket", "GE(T /health HTTP/1.1", Status(400)),
        line("a method in lower case", "get /health HTTP/1.1", Status(405)),
        line("a method nobody knows", "BREW /health HTTP/1.1", Status(405)),
        line("TRACE", "TRACE /health HTTP/1.1", Status(405)),
        line("HTTP/0.9", "GET /health HTTP/0.9", Status(505)),
        line("HTTP/1.2", "GET /health HTTP/1.2", Status(505)),
        line("HTTP/2.0", "GET /health HTTP/2.0", Status(505)),
        line("HTTP/3", "GET /health HTTP/3", Status(400)),
        line("a version in lower case", "GET /health http/1.1", Status(400)),
        line("a version with a space", "GET /health HTTP/ 1.1", Status(400)),
        line("another protocol", "OPTIONS sip:a SIP/2.0", Status(400)),
        line("a control byte in the target", "GET /hea\u{1}lth HTTP/1.1", Status(400)),
        line("a nul in the target", "GET /health\0 HTTP/1.1", Status(400)),
        line("a target outside ASCII", "GET /h\u{e9}alth HTTP/1.1", Status(400)),
        line("dots in the target", "POST /v1/audio/../../flush_cache HTTP/1.1", Status(404)),
        line("encoded dots", "POST /v1/audio/%2e%2e/%2e%2e/flush_cache HTTP/1.1", Status(404)),
        line("an encoded slash", "GET /%2fhealth HTTP/1.1", Status(404)),
        line("two slashes", "GET //health HTTP/1.1", Status(404)),
        line("a backslash", "GET \\health HTTP/1.1", Status(400)),
        line("a target that is a star", "GET * HTTP/1.1", Status(400)),
        line("CONNECT", "CONNECT worker:80 HTTP/1.1", Status(501)),
        line("a whole URL", "GET http://other/health HTTP/1.1", Served),
        line("a URL of a file", "GET file:///etc/passwd HTTP/1.1", Status(400)),
        raw("no host", "GET /health HTTP/1.1\r\n\r\n", Status(400)),
        get("two hosts", "host: a\r\nhost: b\r\n", Status(400)),
        get("two equal hosts", "host: a\r\nhost: a\r\n", Status(400)),
        get("a host with a space", "host: a b\r\n", Status(400)),
        get("a host with a path", "host: a/b\r\n", Status(400)),
        get("a host with a user", "host: root@a\r\n", Status(400)),
        get(
            "an upgrade to HTTP/2",
            "host: a\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n",
            Served,
        ),
        get(
            "an upgrade to a web socket",
            "host: a\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: x\r\n",
            Served,
        ),
        get("an expectation nobody knows", "host: a\r\nexpect: 200-ok\r\n", Served),
        raw(
            "many empty lines before a request",
            "\r\n\r\n\r\nGET /health HTTP/1.1\r\nhost: a\r\n\r\n",
            Status(400),
        ),
        raw("an empty line before a request", "\r\nGET /health HTTP/1.1\r\nhost: a\r\n\r\n", Served),
    ]
}

/// Bodies that are framed well and make no sense.
pub(super) fn bodies() -> Vec<Case> {
    let json = |name, body: &[u8], expect| {
        let mut bytes = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        bytes.extend_from_slice(body);
        raw(name, bytes, expect)
    };
    let deep = |open: &str, close: &str| format!("{}{}", open.repeat(15_000), close.repeat(15_000));
    vec![
        json("nothing for JSON", b"", Status(400)),
        json("no JSON", b"hello", Status(400)),
        json("half of JSON", b"{\"messages\":[", Status(400)),
        json("JSON with something behind", b"{\"messages\":[]} x", Status(400)),
        json(
            "JSON outside UTF-8",
            b"{\"messages\":[{\"role\":\"user\",\"content\":\"\xff\xfe\"}]}",
            Status(400),
        ),
        json("a nul in JSON", b"{\"messages\":[{\"role\":\"user\",\"content\":\"a\0b\"}]}", Status(400)),
        json("only nuls", &[0; 1000], Status(400)),
        json("deep lists", deep("[", "]").as_bytes(), Status(400)),
        json("deep objects", deep("{\"\":", "}").as_bytes(), Status(400)),
        json("deep content", format!("{{\"messages\":{}}}", deep("[", "]")).as_bytes(), Status(400)),
        json("a byte order mark", b"\xef\xbb\xbf{\"messages\":[]}", Status(400)),
        json("UTF-16", b"\xff\xfe{\0\"\0", Status(400)),
    ]
}

/// What follows a request on its connection: another good one, or what is none.
pub(super) fn pipelined() -> Vec<Case> {
    let good = format!("POST /generate HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{BODY}", BODY.len());
    let after = |name, rest: &str| raw(name, format!("{good}{rest}"), Expect::Then(400));
    vec![
        after("junk behind a request", "junk\r\n\r\n"),
        after("nuls behind a request", "\0\0\0\0"),
        after("a body longer than it said", "{}\r\n\r\n"),
        after("a chunk behind a request", "0\r\n\r\n"),
        after("a bad request behind a good one", "GET / HTTP/1.1\r\n\r\n"),
        after("TLS behind a request", "\u{16}\u{3}\u{1}"),
    ]
}
