//! Answers the gateway makes itself: pages, admin replies and every error, as bytes.

use api::endpoint::Endpoint;
use api::error::ApiError;
use api::error::reason_phrase;
use api::error::write_json_string;

/// What an own answer consists of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer<'a> {
    pub(crate) status: u16,
    pub(crate) content_type: &'a str,
    pub(crate) request_id: &'a str,
    /// `X-SMG-Error-Code`, on errors.
    pub(crate) error_code: Option<&'a str>,
    /// Further headers: `Allow`, `Location`, `Retry-After` or `WWW-Authenticate`.
    pub(crate) extra: &'a [(&'a str, &'a str)],
    /// CORS header lines.
    pub(crate) cors: &'a [u8],
    pub(crate) connection: Connection,
    pub(crate) body: &'a [u8],
    /// Whether the body is only described, as HEAD asks.
    pub(crate) method: Method,
}

/// What the `Connection` header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Connection {
    /// Nothing: HTTP/1.1 keeps the connection.
    Keep,
    /// `keep-alive`, which HTTP/1.0 clients wait for.
    KeepSaid,
    /// `close`.
    Close,
}

/// Whether the answer carries its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    /// Any method but HEAD.
    WithBody,
    /// HEAD.
    Head,
}

/// Appends the answer.
pub(crate) fn write(answer: &Answer<'_>, out: &mut Vec<u8>) {
    write_head(answer, answer.body.len() as u64, out);
    if answer.method == Method::WithBody {
        out.extend_from_slice(answer.body);
    }
}

/// Appends the head of an answer whose body, of so many bytes, is sent by itself.
pub(crate) fn write_head(answer: &Answer<'_>, body_bytes: u64, out: &mut Vec<u8>) {
    status_line(answer.status, out);
    header("content-type", answer.content_type, out);
    content_length(body_bytes, out);
    header("x-request-id", answer.request_id, out);
    if let Some(code) = answer.error_code {
        header("x-smg-error-code", code, out);
    }
    for (name, value) in answer.extra {
        header(name, value, out);
    }
    out.extend_from_slice(answer.cors);
    connection(answer.connection, out);
    out.extend_from_slice(b"\r\n");
}

/// The JSON body of an error.
pub(crate) fn error_body(error: &ApiError) -> Vec<u8> {
    let mut body = Vec::with_capacity(160 + error.message.len());
    error.write_json(&mut body);
    body
}

/// The event that ends a stream which a worker left unfinished, in the words of the endpoint's API: OpenAI's chat
/// clients read any `data` and wait for the end mark; Anthropic's and the Responses API's go by the event's name.
pub(crate) fn write_error_event(endpoint: Endpoint, error: &ApiError, out: &mut Vec<u8>) {
    match endpoint {
        Endpoint::Messages => {
            out.extend_from_slice(
                b"event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"api_error\",\"message\":",
            );
            write_json_string(&error.message, out);
            out.extend_from_slice(b"}}\n\n");
        }
        Endpoint::Responses => {
            out.extend_from_slice(b"event: error\ndata: {\"type\":\"error\",\"code\":");
            write_json_string(error.code.code(), out);
            out.extend_from_slice(b",\"message\":");
            write_json_string(&error.message, out);
            out.extend_from_slice(b",\"param\":null}\n\n");
        }
        _ => {
            out.extend_from_slice(b"data: ");
            error.write_json(out);
            out.extend_from_slice(b"\n\ndata: [DONE]\n\n");
        }
    }
}

pub(crate) fn status_line(status: u16, out: &mut Vec<u8>) {
    if status == 200 {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
        return;
    }
    out.extend_from_slice(b"HTTP/1.1 ");
    decimal(u64::from(status), out);
    out.push(b' ');
    out.extend_from_slice(reason_phrase(status).as_bytes());
    out.extend_from_slice(b"\r\n");
}

pub(crate) fn header(name: &str, value: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"\r\n");
}

pub(crate) fn content_length(length: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(b"content-length: ");
    decimal(length, out);
    out.extend_from_slice(b"\r\n");
}

pub(crate) fn connection(connection: Connection, out: &mut Vec<u8>) {
    match connection {
        Connection::Keep => {}
        Connection::KeepSaid => out.extend_from_slice(b"connection: keep-alive\r\n"),
        Connection::Close => out.extend_from_slice(b"connection: close\r\n"),
    }
}

fn decimal(mut number: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use api::error::ErrorCode;

    use super::*;

    #[test]
    fn an_error_is_one_complete_response() {
        let error = ApiError::new(ErrorCode::NoWorkers, "no worker");
        let body = error_body(&error);
        let mut out = Vec::new();
        let answer = Answer {
            status: 503,
            content_type: "application/json",
            request_id: "req-1",
            error_code: Some(error.code.code()),
            extra: &[("retry-after", "1")],
            cors: b"vary: origin\r\n",
            connection: Connection::Close,
            body: &body,
            method: Method::WithBody,
        };
        write(&answer, &mut out);
        let text = String::from_utf8(out).expect("text");
        let expect = format!(
            "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
             x-request-id: req-1\r\nx-smg-error-code: no_available_workers\r\nretry-after: 1\r\nvary: origin\r\nconnection: close\r\n\r\n",
            body.len()
        );
        assert_eq!(text.strip_suffix(std::str::from_utf8(&body).expect("text")), Some(expect.as_str()));
    }

    #[test]
    fn decimals_are_written_whole() {
        let mut out = Vec::new();
        for number in [0, 7, 10, 4096, u64::MAX] {
            decimal(number, &mut out);
            out.push(b' ');
        }
        assert_eq!(out, b"0 7 10 4096 18446744073709551615 ");
    }
}
