//! One unary gRPC call to a collector over one kept HTTP/2 connection: all of gRPC that exporting spans needs.

use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::Request;
use otlp::Resource;
use tokio::net::TcpStream;

/// The call (opentelemetry-proto, `trace_service.proto`).
const METHOD: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
/// Longest time for a connection to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of an answer that are read at most: it says little.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// What stands before a message.
const GRPC_HEAD_BYTES: usize = 5;
/// `grpc-status` of success.
const OK: &[u8] = b"0";

/// A collector, and the connection to it.
pub(super) struct Collector {
    address: String,
    connection: Option<SendRequest<Bytes>>,
}

impl Collector {
    pub(super) fn new(address: String) -> Self {
        Self { address, connection: None }
    }

    /// Has the collector take spans, each written as one of a `ScopeSpans`, in pieces that are sent as they are. A connection that fails is made anew by the next call.
    ///
    /// # Errors
    /// Why it was not taken.
    pub(super) async fn export(&mut self, resource: &Resource, spans: Vec<Bytes>) -> Result<(), String> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => connect(&self.address).await?,
        };
        let mut ready = connection.ready().await.map_err(|error| error.to_string())?;
        self.call(&mut ready, begin(resource, &spans)?, spans).await?;
        self.connection = Some(ready);
        Ok(())
    }

    async fn call(
        &self,
        connection: &mut SendRequest<Bytes>,
        begin: Bytes,
        spans: Vec<Bytes>,
    ) -> Result<(), String> {
        let request = Request::post(format!("http://{}{METHOD}", self.address))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("user-agent", concat!("ringway/", env!("CARGO_PKG_VERSION")))
            .body(())
            .map_err(|error| error.to_string())?;
        let (response, mut body) =
            connection.send_request(request, false).map_err(|error| error.to_string())?;
        for piece in std::iter::once(begin).chain(spans) {
            body.send_data(piece, false).map_err(|error| error.to_string())?;
        }
        body.send_data(Bytes::new(), true).map_err(|error| error.to_string())?;
        let (head, mut answer) = response.await.map_err(|error| error.to_string())?.into_parts();
        if !head.status.is_success() {
            return Err(format!("HTTP {}", head.status.as_u16()));
        }
        let mut read = 0;
        while let Some(data) = answer.data().await {
            let data = data.map_err(|error| error.to_string())?;
            read += data.len();
            if read > ANSWER_BYTES_MAX {
                return Err("its answer is too long".to_owned());
            }
            // Whatever fails here fails the connection too.
            let _ = answer.flow_control().release_capacity(data.len());
        }
        let trailers = answer.trailers().await.map_err(|error| error.to_string())?;
        let said = trailers.as_ref().and_then(|trailers| trailers.get("grpc-status"));
        // An answer without a message has its status in the head.
        match said.or_else(|| head.headers.get("grpc-status")) {
            Some(status) if status.as_bytes() == OK => Ok(()),
            Some(status) => Err(format!("gRPC status {}", String::from_utf8_lossy(status.as_bytes()))),
            None => Err("it does not speak gRPC".to_owned()),
        }
    }
}

/// What goes before the spans: that the message is not compressed, its length, and its beginning.
fn begin(resource: &Resource, spans: &[Bytes]) -> Result<Bytes, String> {
    let spans_len = spans.iter().map(Bytes::len).sum();
    let mut frame = vec![0; GRPC_HEAD_BYTES];
    resource.begin_request(spans_len, &mut frame);
    let length = frame.len() - GRPC_HEAD_BYTES + spans_len;
    let length = u32::try_from(length).map_err(|error| error.to_string())?;
    frame[1..GRPC_HEAD_BYTES].copy_from_slice(&length.to_be_bytes());
    Ok(frame.into())
}

async fn connect(address: &str) -> Result<SendRequest<Bytes>, String> {
    let connecting = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address));
    let stream =
        connecting.await.map_err(|_| "connecting took too long")?.map_err(|error| error.to_string())?;
    let (sender, connection) = h2::client::handshake(stream).await.map_err(|error| error.to_string())?;
    // It ends with the last of its senders.
    tokio::task::spawn_local(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "the connection to the collector of spans has ended");
        }
    });
    Ok(sender)
}

#[cfg(test)]
mod tests {
    use h2::server::SendResponse;
    use http::HeaderMap;
    use http::Response;
    use tokio::net::TcpListener;
    use tokio::task::LocalSet;

    use super::*;

    /// Nobody looks into them here.
    const SPANS: &[u8] = b"spans";

    /// A collector that answers with this status, in the head or in trailers, and says what it was sent.
    async fn serve(listener: TcpListener, status: &'static str, is_in_head: bool) -> Vec<u8> {
        let (stream, _) = listener.accept().await.expect("a connection");
        let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
        let (request, respond) = connection.accept().await.expect("a call").expect("a whole head");
        assert_eq!(request.uri().path(), METHOD);
        assert_eq!(request.headers()["content-type"], "application/grpc");
        let mut body = request.into_body();
        let answering = async move {
            let mut sent = Vec::new();
            while let Some(data) = body.data().await {
                sent.extend_from_slice(&data.expect("data"));
            }
            answer(respond, status, is_in_head);
            sent
        };
        // The connection has to be driven while the call is read, and until the client is done with it.
        let (sent, _) = tokio::join!(answering, async { while connection.accept().await.is_some() {} });
        sent
    }

    fn answer(mut respond: SendResponse<Bytes>, status: &'static str, is_in_head: bool) {
        let head = Response::builder().header("content-type", "application/grpc");
        if is_in_head {
            let head = head.header("grpc-status", status).body(()).expect("a head");
            respond.send_response(head, true).expect("sent");
            return;
        }
        let mut stream = respond.send_response(head.body(()).expect("a head"), false).expect("sent");
        stream.send_data(Bytes::from_static(&[0; 5]), false).expect("sent");
        let trailers: HeaderMap =
            [("grpc-status".parse().expect("a name"), status.parse().expect("a value"))]
                .into_iter()
                .collect();
        stream.send_trailers(trailers).expect("sent");
    }

    fn export(status: &'static str, is_in_head: bool) -> (Result<(), String>, Vec<u8>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        LocalSet::new().block_on(&runtime, async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let mut collector = Collector::new(listener.local_addr().expect("bound").to_string());
            let serving = tokio::task::spawn_local(serve(listener, status, is_in_head));
            let result = collector.export(&Resource::new("r", "1"), vec![Bytes::from_static(SPANS); 2]).await;
            drop(collector);
            (result, serving.await.expect("it ends"))
        })
    }

    #[test]
    fn a_call_is_one_message_and_its_status_counts() {
        for is_in_head in [false, true] {
            let (result, sent) = export("0", is_in_head);
            let mut message = Vec::new();
            Resource::new("r", "1").begin_request(2 * SPANS.len(), &mut message);
            message.extend_from_slice(&SPANS.repeat(2));
            let length = u32::try_from(message.len()).expect("it is short");
            assert_eq!((result, sent), (Ok(()), [&[0], &length.to_be_bytes()[..], &message].concat()));
            let (result, _) = export("14", is_in_head);
            assert_eq!(result, Err("gRPC status 14".to_owned()));
        }
    }

    #[test]
    fn nobody_there_is_an_error() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let result = LocalSet::new().block_on(&runtime, async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = listener.local_addr().expect("bound").to_string();
            drop(listener);
            Collector::new(address).export(&Resource::new("r", "1"), vec![Bytes::from_static(SPANS); 2]).await
        });
        assert!(result.is_err());
    }
}
