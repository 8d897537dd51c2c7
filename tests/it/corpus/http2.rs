//! Hostile HTTP/2: frames as no library would write them.

use testkit::http2::ACK;
use testkit::http2::CONTINUATION;
use testkit::http2::DATA;
use testkit::http2::END_HEADERS;
use testkit::http2::END_STREAM;
use testkit::http2::GOAWAY;
use testkit::http2::HEADERS;
use testkit::http2::PING;
use testkit::http2::PREFACE;
use testkit::http2::RST_STREAM;
use testkit::http2::SETTINGS;
use testkit::http2::WINDOW_UPDATE;
use testkit::http2::block;
use testkit::http2::frame;
use testkit::http2::request;

/// What a case sends behind preface and SETTINGS, and what may become of stream 1.
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) bytes: Vec<u8>,
    pub(super) expect: Expect,
}

/// What may become of stream 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expect {
    /// This status.
    Status(u16),
    /// An error, or the end of the stream or the connection, whichever is first.
    Refused,
    /// The stream is reset, or the connection ended: the protocol is broken.
    Broken,
    /// The connection is ended: the peer is not to be borne with.
    Ended,
}

use Expect::Broken;
use Expect::Ended;
use Expect::Refused;
use Expect::Status;

type Fields<'a> = &'a [(&'a str, &'a str)];

const GET: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/health")];
const POST: [(&str, &str); 4] =
    [(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/generate")];

fn case(name: &'static str, bytes: Vec<u8>, expect: Expect) -> Case {
    Case { name, bytes, expect }
}

/// One request without a body, with these fields and no other.
fn exactly(name: &'static str, fields: Fields<'_>, expect: Expect) -> Case {
    case(name, request(1, fields, END_STREAM), expect)
}

/// A GET with these fields more.
fn get(name: &'static str, more: Fields<'_>, expect: Expect) -> Case {
    exactly(name, &[&GET[..], more].concat(), expect)
}

/// A POST with these fields more, and these frames behind.
fn post(name: &'static str, more: Fields<'_>, frames: &[Vec<u8>], expect: Expect) -> Case {
    let head = request(1, &[&POST[..], more].concat(), 0);
    case(name, [head, frames.concat()].concat(), expect)
}

/// A request without a body, whose head takes several frames.
fn in_pieces(fields: Fields<'_>) -> Vec<u8> {
    let block = block(fields);
    let pieces: Vec<&[u8]> = block.chunks(16_000).collect();
    let last = pieces.len() - 1;
    let piece = |(at, bytes): (usize, &&[u8])| {
        let end = if at == last { END_HEADERS } else { 0 };
        if at == 0 { frame(HEADERS, END_STREAM | end, 1, bytes) } else { frame(CONTINUATION, end, 1, bytes) }
    };
    pieces.iter().enumerate().flat_map(piece).collect()
}

fn data(flags: u8, bytes: &[u8]) -> Vec<u8> {
    frame(DATA, flags, 1, bytes)
}

/// Heads that HTTP/2 forbids, or that make no HTTP/1.1.
pub(super) fn heads() -> Vec<Case> {
    let replaced = |name: &'static str, at: usize, field: (&'static str, &'static str), expect| {
        let mut fields = GET;
        fields[at] = field;
        exactly(name, &fields, expect)
    };
    let many: Vec<(String, &str)> = (0..101).map(|at| (format!("x-{at}"), "1")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    let long = "x".repeat(70_000);
    vec![
        get("a good request", &[], Status(200)),
        replaced("no method", 0, ("x", "y"), Broken),
        replaced("no path", 3, ("x", "y"), Broken),
        replaced("an empty path", 3, (":path", ""), Broken),
        replaced("a path without its slash", 3, (":path", "health"), Broken),
        replaced("a path with a space", 3, (":path", "/health HTTP/1.1"), Broken),
        replaced("a path with a line", 3, (":path", "/health HTTP/1.1\r\nx: y"), Broken),
        replaced("a whole URL for a path", 3, (":path", "http://b/health"), Broken),
        replaced("an empty method", 0, (":method", ""), Broken),
        replaced("a method with a space", 0, (":method", "GET /x HTTP/1.1"), Broken),
        replaced("a method with a line", 0, (":method", "GET\r\nx: y"), Broken),
        replaced("a method nobody knows", 0, (":method", "BREW"), Status(405)),
        replaced("no scheme", 1, ("x", "y"), Broken),
        replaced("no authority", 2, ("x", "y"), Broken),
        replaced("an authority with a user", 2, (":authority", "root@a"), Status(400)),
        replaced("an authority with a line", 2, (":authority", "a\r\nx: y"), Broken),
        replaced("an authority with a space", 2, (":authority", "a b"), Broken),
        replaced("an empty authority", 2, (":authority", ""), Broken),
        get("a host that contradicts the authority", &[("host", "b")], Status(400)),
        get("a host that agrees", &[("host", "a")], Status(200)),
        get("two hosts", &[("host", "a"), ("host", "b")], Status(400)),
        get("a second method", &[(":method", "POST")], Broken),
        get("a second path", &[(":path", "/x")], Broken),
        get("a pseudo field behind others", &[("x", "y"), (":authority", "b")], Broken),
        get("a pseudo field of answers", &[(":status", "200")], Broken),
        get("a pseudo field nobody knows", &[(":x", "y")], Broken),
        get("a name in upper case", &[("X-Up", "y")], Broken),
        get("an empty name", &[("", "y")], Broken),
        get("a name with a space", &[("x y", "z")], Broken),
        get("a name with a line", &[("x\r\ny", "z")], Broken),
        get("a name with a colon", &[("x:y", "z")], Broken),
        get("a value with a line", &[("x", "y\r\ntransfer-encoding: chunked")], Broken),
        get("a value with a line feed", &[("x", "y\nz")], Broken),
        get("a value with a nul", &[("x", "y\0z")], Broken),
        get("connection", &[("connection", "keep-alive")], Broken),
        get("keep-alive", &[("keep-alive", "timeout=5")], Broken),
        get("proxy-connection", &[("proxy-connection", "close")], Broken),
        get("upgrade", &[("upgrade", "h2c")], Broken),
        get("transfer-encoding", &[("transfer-encoding", "chunked")], Broken),
        get("te that is not trailers", &[("te", "gzip")], Broken),
        get("te that is trailers", &[("te", "trailers")], Status(200)),
        get("too many fields", &many, Status(431)),
        case("a long value", in_pieces(&[&GET[..], &[("x", &long)]].concat()), Status(431)),
        exactly("CONNECT", &[(":method", "CONNECT"), (":authority", "worker:80")], Status(501)),
        exactly(
            "a web socket over CONNECT",
            &[&[(":method", "CONNECT"), (":protocol", "websocket")], &GET[1..]].concat(),
            Broken,
        ),
    ]
}

/// Bodies that are not what the head says.
pub(super) fn bodies() -> Vec<Case> {
    let length = |text: &'static str| [("content-length", text)];
    vec![
        post("a good body", &length("2"), &[data(END_STREAM, b"{}")], Status(200)),
        post("a body of unknown length", &[], &[data(0, b"{"), data(END_STREAM, b"}")], Status(200)),
        post("a body longer than it says", &length("2"), &[data(END_STREAM, b"{} ")], Broken),
        post("a body shorter than it says", &length("3"), &[data(END_STREAM, b"{}")], Broken),
        exactly("a length without a body", &[&POST[..], &length("3")].concat(), Broken),
        post(
            "two lengths",
            &[("content-length", "2"), ("content-length", "3")],
            &[data(END_STREAM, b"{}")],
            Broken,
        ),
        post("a length that is none", &length("two"), &[data(END_STREAM, b"{}")], Broken),
        post("a signed length", &length("+2"), &[data(END_STREAM, b"{}")], Broken),
        post("a length over the bound", &length("100001"), &[], Status(413)),
        // Whether the bound or the window ends it depends on how soon the gateway reads.
        post("a body over the bound", &[], &vec![data(0, &[b'x'; 16_000]); 7], Refused),
        post(
            "a body that is reset",
            &length("3"),
            &[data(0, b"{"), frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]), request(3, &GET, END_STREAM)],
            Broken,
        ),
        post("trailers", &[], &[data(0, b"{}"), request(1, &[("x", "y")], END_STREAM)], Status(200)),
        post("trailers that go on", &[], &[data(0, b"{}"), request(1, &[("x", "y")], 0)], Broken),
        post(
            "trailers with a pseudo field, which are dropped",
            &[],
            &[data(0, b"{}"), request(1, &[(":path", "/x")], END_STREAM)],
            Status(200),
        ),
        post("more padding than data", &[], &[frame(DATA, 8, 1, &[9, b'x'])], Ended),
    ]
}

/// Frames that break the protocol.
pub(super) fn frames() -> Vec<Case> {
    let good = request(1, &GET, END_STREAM);
    let then = |bytes: Vec<u8>| [bytes, good.clone()].concat();
    let fields = block(&GET);
    let (first, rest) = fields.split_at(5);
    vec![
        case("data on no stream", then(frame(DATA, 0, 0, b"x")), Ended),
        case("data on a stream that is idle", then(frame(DATA, 0, 3, b"x")), Ended),
        case("headers on no stream", then(request(0, &GET, END_STREAM)), Ended),
        case("headers on a stream of ours", then(request(2, &GET, END_STREAM)), Ended),
        case(
            "headers cut by another frame",
            [frame(HEADERS, END_STREAM, 1, first), frame(PING, 0, 0, &[0; 8])].concat(),
            Ended,
        ),
        case(
            "headers continued on another stream",
            [frame(HEADERS, END_STREAM, 1, first), frame(CONTINUATION, END_HEADERS, 3, rest)].concat(),
            Ended,
        ),
        case(
            "headers in two frames",
            [frame(HEADERS, END_STREAM, 1, first), frame(CONTINUATION, END_HEADERS, 1, rest)].concat(),
            Status(200),
        ),
        case("a continuation of nothing", then(frame(CONTINUATION, END_HEADERS, 1, &fields)), Ended),
        case("a header block that is none", frame(HEADERS, END_STREAM | END_HEADERS, 1, &[0xff; 20]), Ended),
        case("an index beyond the table", frame(HEADERS, END_STREAM | END_HEADERS, 1, &[0xfe]), Ended),
        case(
            "a table larger than allowed",
            frame(HEADERS, END_STREAM | END_HEADERS, 1, &[0x3f, 0xff, 0xff, 0x7f]),
            Ended,
        ),
        case(
            "a stream that depends on itself",
            frame(HEADERS, END_STREAM | END_HEADERS | 0x20, 1, &[&[0, 0, 0, 1, 0][..], &fields].concat()),
            Broken,
        ),
        case(
            "a stream below the last",
            [request(5, &GET, END_STREAM), request(1, &GET, END_STREAM)].concat(),
            Ended,
        ),
        case("settings on a stream", then(frame(SETTINGS, 0, 1, &[])), Ended),
        case("settings of no length", then(frame(SETTINGS, 0, 0, &[0; 5])), Ended),
        case("an answer to settings with settings", then(frame(SETTINGS, ACK, 0, &[0; 6])), Ended),
        case(
            "a window larger than allowed",
            then(frame(SETTINGS, 0, 0, &[0, 4, 0xff, 0xff, 0xff, 0xff])),
            Ended,
        ),
        case("a frame size below the least", then(frame(SETTINGS, 0, 0, &[0, 5, 0, 0, 0, 1])), Ended),
        case("push that is neither", then(frame(SETTINGS, 0, 0, &[0, 2, 0, 0, 0, 9])), Ended),
        case("a ping on a stream", then(frame(PING, 0, 1, &[0; 8])), Ended),
        case("a short ping", then(frame(PING, 0, 0, &[0; 4])), Ended),
        case("a reset of nothing", then(frame(RST_STREAM, 0, 3, &[0; 4])), Ended),
        case("a reset of the connection", then(frame(RST_STREAM, 0, 0, &[0; 4])), Ended),
        case("a short reset", then(frame(RST_STREAM, 0, 1, &[0; 3])), Ended),
        case("a promise of a client", then(frame(5, END_HEADERS, 1, &[0, 0, 0, 2])), Ended),
        case("leave for nothing", then(frame(WINDOW_UPDATE, 0, 0, &[0; 4])), Ended),
        case(
            "leave beyond the largest window",
            then(frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff])),
            Ended,
        ),
        case("a frame larger than allowed", then(frame(DATA, 0, 1, &[0; 20_000])), Ended),
        case("a frame nobody knows", then(frame(0x77, 0, 0, b"hello")), Status(200)),
        case("a goodbye on a stream", then(frame(GOAWAY, 0, 1, &[0; 8])), Ended),
    ]
}

/// Floods: each is many frames that are cheap to send.
pub(super) fn floods() -> Vec<Case> {
    let streams = |n: u32| (0..n).map(|at| 2 * at + 1);
    let resets: Vec<u8> = streams(5000)
        .flat_map(|at| [request(at, &POST, 0), frame(RST_STREAM, 0, at, &[0, 0, 0, 8])].concat())
        .collect();
    let broken: Vec<u8> = streams(5000)
        .flat_map(|at| [request(at, &POST, 0), frame(WINDOW_UPDATE, 0, at, &[0; 4])].concat())
        .collect();
    let open: Vec<u8> = streams(3000).flat_map(|at| request(at, &POST, 0)).collect();
    let more = frame(CONTINUATION, 0, 1, &block(&[("x", &"y".repeat(1000))]));
    vec![
        case("rapid reset", resets, Ended),
        case("streams broken one after another", broken, Ended),
        case(
            "continuations without end",
            [frame(HEADERS, END_STREAM, 1, &block(&GET)), more.repeat(2000)].concat(),
            Ended,
        ),
        case(
            "empty continuations without end",
            [frame(HEADERS, END_STREAM, 1, &block(&GET)), frame(CONTINUATION, 0, 1, &[]).repeat(20_000)]
                .concat(),
            Ended,
        ),
        case("empty data without end", [request(1, &POST, 0), data(0, &[]).repeat(50_000)].concat(), Ended),
        case(
            "data beyond the window",
            [
                request(1, &[&POST[..], &[("content-length", "99999")]].concat(), 0),
                data(0, &[b'x'; 16_384]).repeat(200),
            ]
            .concat(),
            Refused,
        ),
        case(
            "settings without end",
            [frame(SETTINGS, 0, 0, &[]).repeat(20_000), request(1, &GET, END_STREAM)].concat(),
            Status(200),
        ),
        case(
            "pings without end",
            [frame(PING, 0, 0, &[0; 8]).repeat(20_000), request(1, &GET, END_STREAM)].concat(),
            Status(200),
        ),
        case("more streams than allowed", open, Broken),
    ]
}

/// Connections that do not begin as they should; each is all that its client sends.
pub(super) fn beginnings() -> Vec<Case> {
    let good = request(1, &GET, END_STREAM);
    let preface = PREFACE.to_vec();
    let then = |bytes: &[u8]| [&preface, bytes, &good[..]].concat();
    vec![
        case("half a preface that goes wrong", b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n".to_vec(), Ended),
        case("half a preface and no more", b"PRI * HTTP/2.0\r\n\r\nSM".to_vec(), Ended),
        case("a preface and HTTP/1.1", then(b"GET /health HTTP/1.1\r\nhost: a\r\n\r\n"), Ended),
        case("two prefaces", then(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()), Ended),
        case("a preface and nothing", preface.clone(), Ended),
        case("another frame than settings is borne with", then(&frame(PING, 0, 0, &[0; 8])), Status(200)),
        case("settings larger than allowed", then(&frame(SETTINGS, 0, 0, &[0; 30_000])), Ended),
    ]
}
