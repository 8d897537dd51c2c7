//! Verdicts on whole requests against monoio-http's decoders, which are not ours.
//!
//! Where the two differ, the request is listed with an [`Intended`] difference that says why ours is right.
//! The test fails when a difference appears that is not listed, and when a listed one goes away.

use bytes::BytesMut;
use monoio_codec::{Decoded, Decoder};
use monoio_http::h1::codec::decoder::{
    DirectWrapper, FixedBodyDecoder, GenericHeadDecoder, PayloadDecoder, RequestHeadDecoder,
};
use wire::{Chunk, ChunkedDecoder, HeadLimits, RequestFraming, head_end, parse_request};

/// What a server makes of the bytes of one request.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Answered with an error and the connection closed.
    Refused,
    /// More bytes are waited for.
    Waiting,
    /// Understood; the bytes behind it are the next request's.
    Accepted { body: Body, left: usize },
}

#[derive(Debug, PartialEq, Eq)]
enum Body {
    None,
    Length(Vec<u8>),
    Chunked(Vec<u8>),
}

/// Why our verdict is not monoio-http's.
#[derive(Clone, Copy, Debug)]
enum Intended {
    BareLf,
    EmptyLines,
    HostMissing,
    HostRepeated,
    HostInvalid,
    LengthRepeated,
    LengthAndCoding,
    CodingRepeated,
    CodingIdentity,
    CodingOnHttp10,
    Target,
    Tunnel,
    Headers,
    ChunkSizeMissing,
    ChunkSizeDigits,
    ChunkExtension,
    Trailers,
}

impl Intended {
    /// The reason, for the reader of this file and of a failure.
    fn reason(self) -> &'static str {
        match self {
            Intended::BareLf => "a neighbour that wants CRLF sees other lines: refused, and at once",
            Intended::EmptyLines => {
                "RFC 9112 §2.2 asks to skip one empty line; more are no client's, and free work"
            }
            Intended::HostMissing => "RFC 9112 §3.2: a server must refuse 1.1 without Host",
            Intended::HostRepeated => "RFC 9112 §3.2: a server must refuse more than one Host",
            Intended::HostInvalid => "RFC 9112 §3.2: a server must refuse an invalid Host",
            Intended::LengthRepeated => "they go by the first and a neighbour may go by the last",
            Intended::LengthAndCoding => "RFC 9112 §6.3: this is how requests are smuggled",
            Intended::CodingRepeated => {
                "RFC 9112 §7: chunked is applied once; they look at the first line only"
            }
            Intended::CodingIdentity => {
                "RFC 9112 §7 knows no identity; a neighbour may refuse it or read to the close"
            }
            Intended::CodingOnHttp10 => {
                "RFC 9112 §6.1: a 1.0 neighbour does not know it, so the framing is faulty"
            }
            Intended::Target => "RFC 9112 §3.2: the form is not one of this method's, or a path is no path",
            Intended::Tunnel => "this is no tunnel, and CONNECT has no origin to route to",
            Intended::Headers => "our limit is 100 headers, theirs 96",
            Intended::ChunkSizeMissing => {
                "RFC 9112 §7.1: a size has a digit; they take none for the last chunk"
            }
            Intended::ChunkSizeDigits => {
                "sixteen digits are any size there is; zeros in front of more serve nobody"
            }
            Intended::ChunkExtension => {
                "RFC 9112 §7.1.1: a recipient must ignore extensions it does not know"
            }
            Intended::Trailers => {
                "RFC 9112 §7.1.2: a body may have trailers; they refuse them or never come to an end"
            }
        }
    }

    /// Whether we accept what they do not; otherwise we refuse what they accept or wait with.
    fn is_ours_accepted(self) -> bool {
        matches!(self, Intended::Headers | Intended::ChunkExtension | Intended::Trailers)
    }
}

/// Requests on which both agree; the expectation is only that.
const AGREED: &[&[u8]] = &[
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /v1/models?x=1 HTTP/1.1\r\nHost: a:80\r\nAccept: */*\r\n\r\nGET",
    b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.0\r\n\r\n",
    b"GET http://b/c HTTP/1.1\r\nHost: a\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a",
    b"GET / HTTP/1.1\r\nHost: a\r\n\r",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloPOST",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhell",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 005\r\n\r\nhello",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nA\r\n0123456789\r\n0\r\n\r\nGET",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: CHUNKED\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
    b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX: \x7f\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
    b"GET / HTTP/1.2\r\nHost: a\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET / FTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /\r\nHost: a\r\n\r\n",
    b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"G@T / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET v1/models HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET http:// HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\nhello",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\nhello",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\nhello",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551616\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n 5\r\nhello\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\n0\n\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloo\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
];

/// Requests on which ours is another verdict, and why.
const DIFFERENT: &[(Intended, &[u8])] = &[
    (Intended::BareLf, b"GET / HTTP/1.1\nHost: a\r\n\r\n"),
    (Intended::BareLf, b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n"),
    (Intended::BareLf, b"GET / HTTP/1.1\nHost: a\n\n"),
    (Intended::EmptyLines, b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    (Intended::HostMissing, b"GET / HTTP/1.1\r\n\r\n"),
    (Intended::HostRepeated, b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
    (Intended::HostInvalid, b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
    (Intended::HostInvalid, b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n"),
    (Intended::LengthRepeated, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello"),
    (Intended::LengthRepeated, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"),
    (
        Intended::LengthAndCoding,
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        Intended::CodingRepeated,
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n\r\n0\r\n\r\n",
    ),
    (Intended::CodingIdentity, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n"),
    (Intended::CodingOnHttp10, b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    (Intended::Target, b"GET * HTTP/1.1\r\nHost: a\r\n\r\n"),
    (Intended::Target, b"GET a:443 HTTP/1.1\r\nHost: a\r\n\r\n"),
    (Intended::Target, b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n"),
    (Intended::Target, b"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n"),
    (Intended::Target, b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    (Intended::Target, b"GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    (Intended::Tunnel, b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n"),
    (
        Intended::ChunkSizeMissing,
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n\r\n\r\n",
    ),
    (
        Intended::ChunkSizeDigits,
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n00000000000000005\r\nhello\r\n0\r\n\r\n",
    ),
    (
        Intended::ChunkExtension,
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\n\r\n",
    ),
    (
        Intended::Trailers,
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\n",
    ),
];

#[test]
fn agreed_verdicts_agree() {
    for &request in AGREED {
        assert_eq!(ours(request), theirs(request), "ours and theirs: {}", request.escape_ascii());
    }
}

#[test]
fn intended_differences_persist() {
    let crowded = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: 1\r\n".repeat(98));
    let different = DIFFERENT.iter().copied().chain([(Intended::Headers, crowded.as_bytes())]);
    for (intended, request) in different {
        let (ours, theirs) = (ours(request), theirs(request));
        let text = request.escape_ascii();
        let is_as_intended = match ours {
            Verdict::Accepted { .. } => intended.is_ours_accepted(),
            Verdict::Refused => !intended.is_ours_accepted(),
            Verdict::Waiting => false,
        };
        assert!(is_as_intended, "{intended:?} does not excuse {ours:?}: {text}");
        assert_ne!(ours, theirs, "{intended:?} ({}) went away: {text}", intended.reason());
    }
}

fn ours(request: &[u8]) -> Verdict {
    let Some(end) = head_end(request, 0) else { return Verdict::Waiting };
    let (head, mut rest) = request.split_at(end);
    let Ok(head) = parse_request(head, &HeadLimits::default()) else { return Verdict::Refused };
    match head.framing {
        RequestFraming::None | RequestFraming::Length(0) => {
            Verdict::Accepted { body: Body::None, left: rest.len() }
        }
        RequestFraming::Length(len) => match rest.split_at_checked(len as usize) {
            Some((body, rest)) => Verdict::Accepted { body: Body::Length(body.to_vec()), left: rest.len() },
            None => Verdict::Waiting,
        },
        RequestFraming::Chunked => {
            let mut body = Vec::new();
            let mut decoder = ChunkedDecoder::new();
            loop {
                match decoder.next(&mut rest) {
                    Ok(Chunk::Data(data)) => body.extend_from_slice(data),
                    Ok(Chunk::NeedMore) => return Verdict::Waiting,
                    Ok(Chunk::End) => {
                        return Verdict::Accepted { body: Body::Chunked(body), left: rest.len() };
                    }
                    Err(_) => return Verdict::Refused,
                }
            }
        }
    }
}

fn theirs(request: &[u8]) -> Verdict {
    let mut rest = BytesMut::from(request);
    let mut heads = GenericHeadDecoder::<(), RequestHeadDecoder, DirectWrapper>::default();
    let payload = match heads.decode(&mut rest) {
        Ok(Decoded::Some((_, payload))) => payload,
        Ok(_) => return Verdict::Waiting,
        Err(_) => return Verdict::Refused,
    };
    match payload {
        PayloadDecoder::None => Verdict::Accepted { body: Body::None, left: rest.len() },
        PayloadDecoder::Fixed(mut decoder) => match FixedBodyDecoder::decode(&mut decoder, &mut rest) {
            Ok(Decoded::Some(body)) => {
                Verdict::Accepted { body: Body::Length(body.to_vec()), left: rest.len() }
            }
            Ok(_) => Verdict::Waiting,
            Err(_) => Verdict::Refused,
        },
        PayloadDecoder::Streamed(mut decoder) => {
            let mut body = Vec::new();
            loop {
                match decoder.decode(&mut rest) {
                    Ok(Decoded::Some(Some(data))) => body.extend_from_slice(&data),
                    Ok(Decoded::Some(None)) => {
                        return Verdict::Accepted { body: Body::Chunked(body), left: rest.len() };
                    }
                    Ok(_) => return Verdict::Waiting,
                    Err(_) => return Verdict::Refused,
                }
            }
        }
    }
}
