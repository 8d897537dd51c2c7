//! The threads of a cluster's API server: lists and watches over HTTP.

use std::io;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use serde_json::Value;
use serde_json::json;

use crate::http::Body;
use crate::http::Wire;
use crate::kubernetes::Change;
use crate::kubernetes::Pod;
use crate::kubernetes::Shared;
use crate::kubernetes::lock;

/// How often a watch with nothing to say sends a bookmark.
const BOOKMARK_EVERY: Duration = Duration::from_millis(300);
/// What a slow answer takes.
const DELAY: Duration = Duration::from_millis(30);

pub(super) fn accept_all(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming().flatten() {
        let shared = Arc::clone(shared);
        thread::spawn(move || {
            // The other end may have gone; that is its business.
            let _ = serve(stream, &shared);
        });
    }
}

/// What is asked for.
struct Query {
    selector: Vec<(String, String)>,
    namespace: Option<String>,
    limit: usize,
    token: Option<String>,
    is_watch: bool,
    version: Option<u64>,
    timeout: Duration,
}

impl Query {
    fn parse(target: &str) -> Query {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let pairs: Vec<(String, String)> = (query.split('&'))
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.to_owned(), decoded(value)))
            .collect();
        let get = |name: &str| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        let label =
            |label: &str| label.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
        let namespace = path.split_once("/namespaces/").and_then(|(_, rest)| rest.split('/').next());
        Query {
            selector: get("labelSelector").unwrap_or_default().split(',').filter_map(label).collect(),
            namespace: namespace.map(str::to_owned),
            limit: get("limit").and_then(|limit| limit.parse().ok()).unwrap_or(usize::MAX),
            token: get("continue"),
            is_watch: get("watch").is_some_and(|watch| watch == "true" || watch == "1"),
            version: get("resourceVersion").and_then(|version| version.parse().ok()),
            timeout: Duration::from_secs(
                get("timeoutSeconds").and_then(|seconds| seconds.parse().ok()).unwrap_or(300),
            ),
        }
    }

    fn fits(&self, pod: &Pod) -> bool {
        pod.has(&self.selector) && self.namespace.as_ref().is_none_or(|namespace| *namespace == pod.namespace)
    }
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        match (first, tail) {
            (b'%', [high, low, tail @ ..]) => {
                let digits = [*high, *low];
                let digits = std::str::from_utf8(&digits).unwrap_or("20");
                bytes.push(u8::from_str_radix(digits, 16).unwrap_or(b' '));
                rest = tail;
            }
            (b'+', _) => bytes.push(b' '),
            (byte, _) => bytes.push(*byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn serve(stream: TcpStream, shared: &Shared) -> io::Result<()> {
    let mut wire = Wire::new(stream);
    let _ = wire.stream.set_read_timeout(None);
    while let Some(head) = wire.head()? {
        let mut body = head.body(Body::Done)?;
        wire.rest(&mut body)?;
        let target = head.start.split(' ').nth(1).unwrap_or_default().to_owned();
        if head.headers.get("authorization") != Some("Bearer secret") {
            answer(&mut wire, 401, &status(401, "Unauthorized"))?;
            continue;
        }
        if let Some(code) = lock(shared).status {
            answer(
                &mut wire,
                code,
                &status(code, "pods is forbidden: User \"test\" cannot list resource \"pods\""),
            )?;
            continue;
        }
        let query = Query::parse(&target);
        if query.is_watch {
            lock(shared).watches_asked += 1;
            return watch(wire, &query, shared);
        }
        let (code, list) = list(&query, shared);
        answer(&mut wire, code, &list)?;
    }
    Ok(())
}

fn answer(wire: &mut Wire, code: u16, body: &Value) -> io::Result<()> {
    let body = body.to_string();
    let head = format!(
        "HTTP/1.1 {code} Said\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    wire.send(&[head.as_bytes(), body.as_bytes()].concat())
}

fn status(code: u16, message: &str) -> Value {
    let reason = match code {
        401 => "Unauthorized",
        403 => "Forbidden",
        410 => "Expired",
        _ => "InternalError",
    };
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code
    })
}

fn list(query: &Query, shared: &Shared) -> (u16, Value) {
    let mut state = lock(shared);
    state.lists_asked += 1;
    let (version, mut items) = match &query.token {
        None => {
            let fitting = state.pods.values().filter(|pod| query.fits(pod));
            (state.version, fitting.map(|pod| pod.object(state.version)).collect::<Vec<_>>())
        }
        Some(token) => match state.lists.remove(token) {
            Some(rest) => rest,
            None => return (410, status(410, "the continue token is too old")),
        },
    };
    let rest = items.split_off(query.limit.min(items.len()));
    let mut metadata = json!({"resourceVersion": version.to_string()});
    if !rest.is_empty() {
        let token = format!("rest-{version}-{}-{}", rest.len(), state.lists_asked);
        metadata["continue"] = json!(token);
        state.lists.insert(token, (version, rest));
    }
    (200, json!({"kind": "PodList", "apiVersion": "v1", "metadata": metadata, "items": items}))
}

/// What a watch may meet next.
enum Fault {
    Cut,
    End,
    Expiry,
    Delay,
}

impl Shared {
    fn fault(&self) -> Option<Fault> {
        let mut state = lock(self);
        let draw = state.draws.below(1000);
        let faults = state.faults;
        let mut until = 0;
        for (share, fault) in [
            (faults.cuts, Fault::Cut),
            (faults.ends, Fault::End),
            (faults.expiries, Fault::Expiry),
            (faults.delays, Fault::Delay),
        ] {
            until += share;
            if draw < until {
                return Some(fault);
            }
        }
        None
    }
}

fn watch(mut wire: Wire, query: &Query, shared: &Shared) -> io::Result<()> {
    let (mut version, cut) = {
        let state = lock(shared);
        (query.version.unwrap_or(state.version), state.cut)
    };
    if version < lock(shared).compacted {
        return answer(&mut wire, 410, &status(410, "too old resource version"));
    }
    wire.send(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n")?;
    let deadline = Instant::now() + query.timeout;
    let mut bookmarked = Instant::now();
    loop {
        let (changes, is_forgotten) = {
            let state = lock(shared);
            let waited = shared.changed.wait_timeout_while(state, BOOKMARK_EVERY, |state| {
                state.version <= version && state.cut == cut
            });
            let (state, _) = waited.expect("no holder panics");
            if state.cut != cut {
                let _ = wire.send(b"20\r\n{\"type\":\"ADD");
                return Ok(());
            }
            let newer = state.history.iter().filter(|change| change.version > version);
            (newer.cloned().collect::<Vec<Change>>(), version < state.compacted)
        };
        if is_forgotten {
            return expire(&mut wire);
        }
        for change in changes {
            version = change.version;
            let Some(line) = line(&change, query) else { continue };
            match shared.fault() {
                Some(Fault::Cut) => {
                    let half = &line.as_bytes()[..line.len() / 2];
                    wire.send(&[format!("{:x}\r\n", line.len()).as_bytes(), half].concat())?;
                    return Ok(());
                }
                Some(Fault::End) => return wire.send(b"0\r\n\r\n"),
                Some(Fault::Expiry) => return expire(&mut wire),
                Some(Fault::Delay) => thread::sleep(DELAY),
                None => {}
            }
            chunk(&mut wire, &line)?;
        }
        if bookmarked.elapsed() >= BOOKMARK_EVERY {
            bookmarked = Instant::now();
            let object = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"resourceVersion": version.to_string()}});
            chunk(&mut wire, &format!("{}\n", json!({"type": "BOOKMARK", "object": object})))?;
        }
        if Instant::now() >= deadline {
            return wire.send(b"0\r\n\r\n");
        }
    }
}

fn expire(wire: &mut Wire) -> io::Result<()> {
    let error = json!({"type": "ERROR", "object": status(410, "too old resource version")});
    chunk(wire, &format!("{error}\n"))?;
    wire.send(b"0\r\n\r\n")
}

fn chunk(wire: &mut Wire, line: &str) -> io::Result<()> {
    wire.send(format!("{:x}\r\n{line}\r\n", line.len()).as_bytes())
}

/// A change as who watches sees it: a pod that fits no longer is deleted for them.
fn line(change: &Change, query: &Query) -> Option<String> {
    let fitting = |pod: &Option<Pod>| pod.clone().filter(|pod| query.fits(pod));
    let (kind, pod) = match (fitting(&change.before), fitting(&change.after)) {
        (None, Some(pod)) => ("ADDED", pod),
        (Some(_), Some(pod)) => ("MODIFIED", pod),
        (Some(before), None) => ("DELETED", change.after.clone().unwrap_or(before)),
        (None, None) => return None,
    };
    Some(format!("{}\n", json!({"type": kind, "object": pod.object(change.version)})))
}
