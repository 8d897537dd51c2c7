//! One connection to the target: asks, and reads the answer as it comes.

use std::net::SocketAddr;
use std::time::Instant;

use futures_lite::{AsyncReadExt, AsyncWriteExt};
use glommio::net::TcpStream;

use crate::answer::{Answer, AnswerReader, Problem};
use crate::clock;
use crate::record::Failure;
use crate::response::ResponseParser;

/// Bytes read at a time.
const READ_BYTES: usize = 32 * 1024;

/// A connection, opened when it is needed.
pub(crate) struct Client {
    address: SocketAddr,
    /// Request line and header fields, up to the value of `content-length`.
    head: String,
    socket: Option<TcpStream>,
    buffer: Vec<u8>,
    /// Reused connections that were found closed.
    pub(crate) reconnects: u64,
}

/// How one exchange ended.
pub(crate) struct Exchanged {
    pub(crate) result: Result<Answer, Failure>,
    pub(crate) ended_at: Instant,
}

// === impl Client ===

impl Client {
    pub(crate) fn new(address: SocketAddr, head: String) -> Client {
        Client { address, head, socket: None, buffer: vec![0; READ_BYTES], reconnects: 0 }
    }

    /// Asks and reads the whole answer.
    pub(crate) async fn exchange(&mut self, body: &str, streams: bool) -> Exchanged {
        let was_open = self.socket.is_some();
        let mut result = self.try_exchange(body, streams).await;
        if was_open && matches!(result, Err(Broken::Unanswered)) {
            // The target may close a connection that idles; that is no failed request.
            self.reconnects += 1;
            result = self.try_exchange(body, streams).await;
        }
        let result = result.map_err(|broken| match broken {
            Broken::Unanswered => Failure::Truncated,
            Broken::Failed(failure) => failure,
        });
        Exchanged { result, ended_at: clock::now() }
    }

    /// Forgets the connection, whatever was going on in it.
    pub(crate) fn close(&mut self) {
        self.socket = None;
    }

    async fn try_exchange(&mut self, body: &str, streams: bool) -> Result<Answer, Broken> {
        let mut socket = match self.socket.take() {
            Some(socket) => socket,
            None => self.connect().await.map_err(|_| Broken::Failed(Failure::Connect))?,
        };
        let request = format!("{}{}\r\n\r\n{body}", self.head, body.len());
        // A target may answer and close before it has read all; the answer is what counts.
        let sent = socket.write_all(request.as_bytes()).await;
        let mut parser = ResponseParser::new();
        let mut answer = AnswerReader::new(streams);
        let mut has_bytes = false;
        while !parser.is_done() {
            let bytes = socket.read(&mut self.buffer).await.unwrap_or(0);
            if bytes == 0 {
                if !has_bytes {
                    return Err(Broken::Unanswered);
                }
                if !parser.end() {
                    return Err(Broken::Failed(Failure::Truncated));
                }
                break;
            }
            has_bytes = true;
            let now = clock::now();
            parser
                .push(&self.buffer[..bytes], |data| answer.push(data, now))
                .map_err(|_| Broken::Failed(Failure::BadBody))?;
            let status = parser.status();
            if status != 0 && status != 200 && !parser.keeps_alive() {
                return Err(Broken::Failed(Failure::Status(status)));
            }
        }
        if parser.keeps_alive() && sent.is_ok() {
            self.socket = Some(socket);
        }
        if parser.status() != 200 {
            return Err(Broken::Failed(Failure::Status(parser.status())));
        }
        answer.finish().map_err(|problem| match problem {
            Problem::Unfinished => Broken::Failed(Failure::Truncated),
            Problem::Malformed => Broken::Failed(Failure::BadBody),
        })
    }

    async fn connect(&self) -> glommio::Result<TcpStream, ()> {
        let socket = TcpStream::connect(self.address).await?;
        socket.set_nodelay(true)?;
        Ok(socket)
    }
}

/// Why an exchange gave no answer.
enum Broken {
    /// The connection closed before the first byte.
    Unanswered,
    Failed(Failure),
}
