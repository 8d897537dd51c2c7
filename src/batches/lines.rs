//! The lines of a batch's input: read one by one, checked, and what becomes of them as a line of a result.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::path::Path;

use api::error::write_json_string;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::limits;
use super::record::Fault;

/// A request of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) custom_id: Box<str>,
    /// The body, byte for byte.
    pub(super) body: Box<[u8]>,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It was answered.
    Answered { status: u16, request_id: String, body: Vec<u8> },
    /// It was not, for this reason.
    Failed { code: &'static str, message: String },
}

impl Outcome {
    pub(super) fn is_success(&self) -> bool {
        matches!(self, Self::Answered { status: 200..=299, .. })
    }

    /// Appends the line that tells it.
    pub(super) fn write(&self, id: &str, custom_id: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"id\":");
        write_json_string(id, out);
        out.extend_from_slice(b",\"custom_id\":");
        write_json_string(custom_id, out);
        match self {
            Self::Answered { status, request_id, body } => {
                out.extend_from_slice(format!(",\"response\":{{\"status_code\":{status}").as_bytes());
                out.extend_from_slice(b",\"request_id\":");
                write_json_string(request_id, out);
                out.extend_from_slice(b",\"body\":");
                write_body(body, out);
                out.extend_from_slice(b"},\"error\":null}\n");
            }
            Self::Failed { code, message } => {
                out.extend_from_slice(b",\"response\":null,\"error\":{\"code\":");
                write_json_string(code, out);
                out.extend_from_slice(b",\"message\":");
                write_json_string(message, out);
                out.extend_from_slice(b"}}\n");
            }
        }
    }
}

/// Appends an answer: JSON as it is, on one line, anything else as a text.
fn write_body(body: &[u8], out: &mut Vec<u8>) {
    if serde_json::from_slice::<&RawValue>(body).is_ok() {
        // Within a string there can be none.
        let is_break = |byte: &u8| matches!(byte, b'\n' | b'\r');
        out.extend(body.trim_ascii().iter().map(|byte| if is_break(byte) { b' ' } else { *byte }));
    } else {
        write_json_string(&String::from_utf8_lossy(body), out);
    }
}

/// A line as it is written.
#[derive(Deserialize)]
struct Written<'a> {
    #[serde(borrow)]
    custom_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow)]
    url: Option<Cow<'a, str>>,
    #[serde(borrow)]
    body: Option<&'a RawValue>,
}

/// The part of a body that is looked at.
#[derive(Deserialize)]
struct Looked {
    stream: Option<bool>,
}

/// The part of a result by which it is known again.
#[derive(Deserialize)]
struct Told<'a> {
    #[serde(borrow)]
    custom_id: Cow<'a, str>,
}

/// Whose result a line tells.
pub(super) fn told(line: &[u8]) -> Option<Box<str>> {
    serde_json::from_slice::<Told<'_>>(line).ok().map(|told| told.custom_id.into())
}

/// Reads a line.
///
/// # Errors
/// What is wrong with it, and which field that is about.
fn parse(line: &[u8], endpoint: &str) -> Result<Line, (&'static str, Option<&'static str>, String)> {
    let written: Written<'_> = serde_json::from_slice(line)
        .map_err(|error| ("invalid_json_line", None, format!("the line is no such JSON object: {error}")))?;
    let missing =
        |name: &'static str| ("missing_required_parameter", Some(name), format!("`{name}` is missing"));
    let custom_id = written.custom_id.ok_or_else(|| missing("custom_id"))?;
    if custom_id.is_empty() || custom_id.len() > limits::CUSTOM_ID_BYTES_MAX {
        let message = format!("`custom_id` must have 1 to {} bytes", limits::CUSTOM_ID_BYTES_MAX);
        return Err(("invalid_custom_id", Some("custom_id"), message));
    }
    match written.method.ok_or_else(|| missing("method"))? {
        method if method == "POST" => {}
        method => {
            return Err(("invalid_method", Some("method"), format!("`method` is {method:?}, not POST")));
        }
    }
    match written.url.ok_or_else(|| missing("url"))? {
        url if url == endpoint => {}
        url => {
            let message = format!("`url` is {url:?}, and the batch's endpoint is {endpoint}");
            return Err(("mismatched_url", Some("url"), message));
        }
    }
    let body = written.body.ok_or_else(|| missing("body"))?.get();
    if !body.starts_with('{') {
        return Err(("invalid_body", Some("body"), "`body` is no object".to_owned()));
    }
    match serde_json::from_str::<Looked>(body) {
        Ok(Looked { stream: Some(true) }) => {
            Err(("invalid_body", Some("body.stream"), "a batch makes no streams".to_owned()))
        }
        Ok(_) => Ok(Line { custom_id: custom_id.into(), body: body.as_bytes().into() }),
        Err(error) => Err(("invalid_body", Some("body"), format!("`body` cannot be used: {error}"))),
    }
}

/// The lines of a file, one at a time.
#[derive(Debug)]
pub(super) struct Lines<R> {
    input: BufReader<R>,
    /// Lines read, empty ones counted.
    number: u32,
    buffer: Vec<u8>,
}

impl<R: Read> Lines<R> {
    pub(super) fn of(input: R) -> Self {
        Self { input: BufReader::new(input), number: 0, buffer: Vec::new() }
    }

    /// The next line that is not empty; none at the end.
    ///
    /// # Errors
    /// When it cannot be read, or is longer than a line may be.
    fn next(&mut self) -> io::Result<Option<Result<&[u8], Fault>>> {
        const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
        loop {
            self.buffer.clear();
            let mut limited = (&mut self.input).take(limits::LINE_BYTES_MAX as u64 + 1);
            if limited.read_until(b'\n', &mut self.buffer)? == 0 {
                return Ok(None);
            }
            self.number += 1;
            if self.buffer.len() > limits::LINE_BYTES_MAX && !self.buffer.ends_with(b"\n") {
                let message = format!("the line is longer than {} bytes", limits::LINE_BYTES_MAX);
                return Ok(Some(Err(Fault {
                    line: Some(self.number),
                    ..Fault::new("line_too_long", message)
                })));
            }
            if self.number == 1 && self.buffer.starts_with(BYTE_ORDER_MARK) {
                self.buffer.drain(..BYTE_ORDER_MARK.len());
            }
            if !self.buffer.trim_ascii().is_empty() {
                return Ok(Some(Ok(self.buffer.trim_ascii())));
            }
        }
    }

    /// The next requests, a bounded number of them, those left out whose result is known; none at the end.
    ///
    /// # Errors
    /// When the file cannot be read, or has changed since it was checked.
    pub(super) fn ahead(&mut self, endpoint: &str, done: &HashSet<Box<str>>) -> io::Result<Vec<Line>> {
        let changed =
            || io::Error::new(io::ErrorKind::InvalidData, "the input has changed since it was checked");
        let mut lines = Vec::new();
        let mut bytes = 0;
        while lines.len() < limits::LINES_AHEAD_MAX && bytes < limits::LINES_AHEAD_BYTES_MAX {
            let Some(next) = self.next()? else { break };
            let line = parse(next.map_err(|_| changed())?, endpoint).map_err(|_| changed())?;
            if !done.contains(&line.custom_id) {
                bytes += line.body.len();
                lines.push(line);
            }
        }
        Ok(lines)
    }
}

/// The requests of a file.
///
/// # Errors
/// When it cannot be opened.
pub(super) fn open(path: &Path) -> io::Result<Lines<File>> {
    File::open(path).map(Lines::of)
}

/// Looks through a whole input: how many requests there are, or what is wrong with them.
///
/// # Errors
/// When it cannot be read.
pub(super) fn check(input: impl Read, endpoint: &str) -> io::Result<Result<u64, Vec<Fault>>> {
    let mut lines = Lines::of(input);
    let mut seen: HashSet<Box<str>> = HashSet::new();
    let mut faults = Vec::new();
    let mut total: u64 = 0;
    loop {
        let line = match lines.next()? {
            None => break,
            Some(Ok(line)) => parse(line, endpoint),
            Some(Err(fault)) => {
                faults.push(fault);
                break;
            }
        };
        total += 1;
        if total > limits::LINES_MAX.into() {
            let message = format!("a batch has {} requests at most", limits::LINES_MAX);
            faults.push(Fault::new("too_many_tasks", message));
            break;
        }
        let (code, param, message) = match line {
            Ok(line) if !seen.contains(&line.custom_id) => {
                seen.insert(line.custom_id);
                continue;
            }
            Ok(line) => {
                let message = format!("`custom_id` {:?} stands in a line before", line.custom_id);
                ("duplicate_custom_id", Some("custom_id"), message)
            }
            Err(fault) => fault,
        };
        let param = param.map(str::to_owned);
        faults.push(Fault { param, line: Some(lines.number), ..Fault::new(code, message) });
        if faults.len() == limits::FAULTS_SHOWN_MAX {
            break;
        }
    }
    if total == 0 && faults.is_empty() {
        faults.push(Fault::new("empty_file", "the input has no requests"));
    }
    Ok(if faults.is_empty() { Ok(total) } else { Err(faults) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDPOINT: &str = "/v1/completions";

    fn line(custom_id: &str) -> String {
        format!(r#"{{"custom_id":"{custom_id}","method":"POST","url":"{ENDPOINT}","body":{{ "a":  1 }}}}"#)
    }

    #[track_caller]
    fn finds(input: &str, expected: &[(&str, Option<u32>)]) {
        let found = check(input.as_bytes(), ENDPOINT).expect("it is memory");
        let faults = found.err().unwrap_or_default();
        let found: Vec<_> = faults.iter().map(|fault| (fault.code.as_str(), fault.line)).collect();
        assert_eq!(found, expected, "{faults:?}");
    }

    #[test]
    fn good_lines_are_counted() {
        let input = format!("\u{feff}{}\r\n\n  \n{}", line("a"), line("b"));
        assert_eq!(check(input.as_bytes(), ENDPOINT).expect("memory"), Ok(2));
    }

    #[test]
    fn each_fault_is_told_with_its_line() {
        let good = line("a");
        finds("", &[("empty_file", None)]);
        finds("\n \n", &[("empty_file", None)]);
        finds(
            &format!("{good}\nno json\n[]\n"),
            &[("invalid_json_line", Some(2)), ("invalid_json_line", Some(3))],
        );
        finds(&format!("{good}\n\n{good}"), &[("duplicate_custom_id", Some(3))]);
        finds(&good.replace("POST", "GET"), &[("invalid_method", Some(1))]);
        finds(&good.replace(ENDPOINT, "/v1/chat/completions"), &[("mismatched_url", Some(1))]);
        finds(&good.replace(r#"{ "a":  1 }"#, "[1]"), &[("invalid_body", Some(1))]);
        finds(&good.replace(r#"{ "a":  1 }"#, r#"{"stream":true}"#), &[("invalid_body", Some(1))]);
        finds(&line(""), &[("invalid_custom_id", Some(1))]);
        finds(&line(&"x".repeat(limits::CUSTOM_ID_BYTES_MAX + 1)), &[("invalid_custom_id", Some(1))]);
        for name in ["custom_id", "method", "url", "body"] {
            finds(
                &good.replace(&format!("\"{name}\""), "\"other\""),
                &[("missing_required_parameter", Some(1))],
            );
        }
    }

    #[test]
    fn faults_lines_and_their_length_are_bounded() {
        let many = "x\n".repeat(limits::FAULTS_SHOWN_MAX + 1);
        finds(&many, &(1..=50).map(|at| ("invalid_json_line", Some(at))).collect::<Vec<_>>());
        let long = "x".repeat(limits::LINE_BYTES_MAX + 2);
        finds(&format!("{}\n{long}\n", line("a")), &[("line_too_long", Some(2))]);
        let lines: String = (0..=limits::LINES_MAX).map(|at| line(&at.to_string()) + "\n").collect();
        finds(&lines, &[("too_many_tasks", None)]);
    }

    #[test]
    fn bodies_are_read_byte_for_byte_and_the_known_are_left_out() {
        let input = [line("a"), line("b"), line("c")].join("\n");
        let mut lines = Lines::of(input.as_bytes());
        let ahead = lines.ahead(ENDPOINT, &HashSet::from(["b".into()])).expect("memory");
        let ids: Vec<_> = ahead.iter().map(|line| &*line.custom_id).collect();
        assert_eq!((ids, &*ahead[0].body), (vec!["a", "c"], &br#"{ "a":  1 }"#[..]));
        assert!(lines.ahead(ENDPOINT, &HashSet::new()).expect("memory").is_empty());
    }

    #[test]
    fn a_result_is_one_line_and_known_again() {
        let answered = |status, body: &str| Outcome::Answered {
            status,
            request_id: "r".to_owned(),
            body: body.as_bytes().to_vec(),
        };
        for (outcome, body) in [
            (answered(200, "{\n \"a\": [1,\r\n2]}\n"), serde_json::json!({"a": [1, 2]})),
            (answered(500, "no \"JSON\"\n"), serde_json::json!("no \"JSON\"\n")),
        ] {
            let mut out = Vec::new();
            outcome.write("batch_req_1", "a \"b\"", &mut out);
            assert_eq!(out.iter().position(|&byte| byte == b'\n'), Some(out.len() - 1));
            let value: serde_json::Value = serde_json::from_slice(&out).expect("JSON");
            assert_eq!((&value["response"]["body"], &value["error"]), (&body, &serde_json::Value::Null));
            assert_eq!(told(&out).as_deref(), Some("a \"b\""));
        }
        let mut out = Vec::new();
        Outcome::Failed { code: "batch_expired", message: "late".to_owned() }.write("i", "c", &mut out);
        let value: serde_json::Value = serde_json::from_slice(&out).expect("JSON");
        assert_eq!(
            (value["error"]["code"].as_str(), value["response"].is_null()),
            (Some("batch_expired"), true)
        );
        assert_eq!(told(b"{\"custom_id\":\"a\""), None);
    }
}
