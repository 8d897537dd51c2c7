//! The record of who used the control plane: lines of the log target `audit`, safe to read and of bounded length.

use std::fmt::Write;

use api::endpoint::Endpoint;
use api::error::ApiError;
use fleet::access::Principal;
use fleet::admin::AdminReply;
use tracing::info;
use wire::RequestHead;

use crate::finish::Trace;
use crate::guard::Guard;
use crate::limits;

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// It was done.
    Success,
    /// It was allowed and could not be done.
    Failed,
    /// It was not allowed.
    Denied,
    /// Who asked left before it was known.
    Unknown,
}

impl Outcome {
    fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failed => "failed",
            Self::Denied => "denied",
            Self::Unknown => "unknown",
        }
    }
}

struct Record<'a> {
    principal: Option<&'a Principal>,
    resource: Option<&'a str>,
    outcome: Outcome,
    details: Option<&'a str>,
}

/// Records a call that was not allowed.
pub(crate) fn denied(
    principal: Option<&Principal>,
    head: &RequestHead<'_>,
    trace: &Trace<'_>,
    error: &ApiError,
) {
    let record = Record {
        principal,
        resource: resource(head, trace),
        outcome: Outcome::Denied,
        details: Some(&error.message),
    };
    write(&record, head, trace);
}

/// Records an allowed call that changes something: what control answered, or none if the client left before.
pub(crate) fn answered(
    guard: &Guard,
    principal: Option<&Principal>,
    head: &RequestHead<'_>,
    trace: &Trace<'_>,
    reply: Option<&AdminReply>,
) {
    if !guard.is_audited || head.method == "GET" {
        return;
    }
    let outcome = match reply {
        Some(reply) if reply.status < 400 => Outcome::Success,
        Some(_) => Outcome::Failed,
        None => Outcome::Unknown,
    };
    let made = reply.and_then(|reply| reply.location.as_deref());
    let record = Record {
        principal,
        resource: made.or_else(|| resource(head, trace)),
        outcome,
        details: reply.and_then(|reply| reply.error_code),
    };
    write(&record, head, trace);
}

/// What a call is about, as far as its head tells: the worker that its path or its query names.
fn resource<'a>(head: &RequestHead<'a>, trace: &Trace<'_>) -> Option<&'a str> {
    match trace.endpoint {
        Endpoint::Worker => head.path().strip_prefix("/workers/"),
        Endpoint::AddWorker | Endpoint::RemoveWorker => {
            head.query()?.split('&').find_map(|pair| pair.strip_prefix("url="))
        }
        _ => None,
    }
}

fn write(record: &Record<'_>, head: &RequestHead<'_>, trace: &Trace<'_>) {
    let (name, method, role) = match record.principal {
        Some(principal) => (&*principal.name, &*principal.method, principal.role.name()),
        None => ("unknown", "none", "none"),
    };
    info!(
        target: "audit",
        principal = readable(name).as_str(),
        auth_method = readable(method).as_str(),
        role,
        method = head.method,
        path = trace.endpoint.template(),
        resource = record.resource.map(|resource| readable(without_password(resource))).as_deref(),
        outcome = record.outcome.name(),
        request_id = readable(&trace.request_id).as_str(),
        details = record.details.map(readable).as_deref(),
        "control plane call"
    );
}

/// A resource as the caller named it, unless that may be a URL with a password.
fn without_password(resource: &str) -> &str {
    if resource.contains('@') || resource.contains("%40") { "***" } else { resource }
}

/// A text of bounded length on one line.
fn readable(text: &str) -> String {
    let mut out = String::new();
    for character in text.chars().take(limits::AUDIT_CHARACTERS_MAX) {
        match character {
            // Line and paragraph separators end lines for some readers too.
            '\u{2028}' | '\u{2029}' => drop(write!(out, "\\u{{{:x}}}", character as u32)),
            character if character.is_control() => out.extend(character.escape_default()),
            character => out.push(character),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_stay_on_one_line_and_short() {
        assert_eq!(readable("a\r\nb\u{1b}[0m\u{2028}é"), "a\\r\\nb\\u{1b}[0m\\u{2028}é");
        assert_eq!(readable(&"x".repeat(5000)).len(), limits::AUDIT_CHARACTERS_MAX);
        assert_eq!(readable("ops@example.com"), "ops@example.com");
    }

    #[test]
    fn passwords_in_urls_are_not_shown() {
        for url in ["http://u:p@a:1", "http%3A%2F%2Fu%3Ap%40a", "http%3a%2f%2fu%3ap@a"] {
            assert_eq!(without_password(url), "***", "{url}");
        }
        assert_eq!(without_password("http%3A%2F%2Fa%3A1"), "http%3A%2F%2Fa%3A1");
    }
}
