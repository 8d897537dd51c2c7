//! A worker on a real socket that answers by a table of paths. For tests.

use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;

use fleet::secret::Secret;

use crate::control::task::Target;

/// What to answer to which request line: `("GET /health", 200, "")`. Anything else is answered 404.
pub(crate) type Table = &'static [(&'static str, u16, &'static str)];

/// Starts a worker that lives as long as the test process, and returns its URL. With a `key` it answers 401 without it.
pub(crate) fn spawn(table: Table, key: Option<&'static str>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // The other end may have gone; that is its business.
            drop(answer(&stream, table, key));
        }
    });
    format!("http://{address}")
}

/// An address at which nobody listens.
pub(crate) fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    format!("http://{}", listener.local_addr().expect("it is bound"))
}

pub(crate) fn target(url: &str, key: Option<&str>) -> Arc<Target> {
    let url = crate::control::url::WorkerUrl::parse(url).expect("a worker URL");
    Arc::new(Target {
        url: url.text,
        host: url.host,
        port: url.port,
        rank: url.rank,
        authorization: key.map(|key| Secret::from(key).bearer()),
    })
}

/// A worker that takes connections, reads a request and answers these bytes, whatever they are.
pub(crate) fn saying(bytes: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut lines = BufReader::new(&stream).lines();
            while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
            drop(stream.write_all(bytes));
        }
    });
    format!("http://{address}")
}

fn answer(mut stream: &TcpStream, table: Table, key: Option<&str>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    let mut is_known = key.is_none();
    for line in lines {
        let line = line?;
        if line.is_empty() {
            break;
        }
        is_known |= key.is_some_and(|key| line.eq_ignore_ascii_case(&format!("authorization: Bearer {key}")));
    }
    let row = table.iter().find(|(line, ..)| request == format!("{line} HTTP/1.1"));
    let (status, body) = match row {
        _ if !is_known => (401, ""),
        Some(&(_, status, body)) => (status, body),
        None => (404, ""),
    };
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status} x\r\ncontent-length: {length}\r\nlocation: /elsewhere\r\nconnection: close\r\n\r\n{body}"
    )
}
