//! One client connection: reads requests, races each answer against the client's leaving.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use http::header;
use monoio::io::stream::Stream;
use monoio::io::{AsyncWriteRentExt, OwnedReadHalf, Splitable};
use monoio::net::TcpStream;
use monoio_http::common::body::Body;
use monoio_http::common::request::{Request as LibraryRequest, RequestHead};
use monoio_http::h1::codec::decoder::{FillPayload, RequestDecoder};
use monoio_http::h1::payload::Payload;

use crate::engine::{Engine, LastRequest};
use crate::exchange::{Exchange, Failure, Request};
use crate::fault::RequestFault;
use crate::routes;
use crate::watch::CloseWatch;
use crate::writer::Writer;

/// Largest request body, in bytes: above what an agent's prompt or an audio file needs.
pub(crate) const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;

type Decoder = RequestDecoder<OwnedReadHalf<TcpStream>>;

/// How an exchange left the connection.
#[derive(PartialEq, Eq)]
enum After {
    Open,
    Closed,
}

/// Serves one connection until either side closes it.
pub(crate) async fn serve(engine: Rc<Engine>, stream: TcpStream, watch: Rc<CloseWatch>) {
    let (read_half, write_half) = stream.into_split();
    let mut decoder: Decoder = RequestDecoder::new(read_half);
    let mut writer = Writer::new(write_half);
    loop {
        let Some(Ok(request)) = decoder.next().await else { return };
        let request = match read_request(&mut decoder, &mut writer, request).await {
            Ok(request) => request,
            Err(failure) => {
                let mut exchange = Exchange::new(engine, &mut writer, no_fault(), false);
                let _ = exchange.fail(failure).await;
                return;
            }
        };
        if answer(&engine, &mut writer, &watch, request).await == After::Closed {
            return;
        }
    }
}

async fn answer(engine: &Rc<Engine>, writer: &mut Writer, watch: &CloseWatch, request: Request) -> After {
    let plan = engine.shared.faults.load_full();
    if plan.refuse {
        watch.reset();
        return After::Closed;
    }
    let is_control = request.path.starts_with("/_sim/");
    let is_post = request.method == http::Method::POST;
    let fault = match is_control {
        true => no_fault(),
        false => RequestFault::of(&plan, &request.headers, is_post, || engine.draw()),
    };
    if is_post && !is_control {
        let (path, headers) = (request.path.clone(), request.headers.clone());
        *engine.last.borrow_mut() = Some(LastRequest { path, headers, body: request.body.clone() });
    }
    if fault.closes_before_head {
        return After::Closed;
    }
    if fault.stalls {
        watch.closed().await;
        return After::Closed;
    }
    let keeps_alive = request.keeps_alive;
    let mut exchange = Exchange::new(Rc::clone(engine), writer, fault, keeps_alive);
    let exchanged = async {
        match routes::answer(&mut exchange, &request).await {
            Err(failure) => exchange.fail(failure).await,
            Ok(()) => Ok(()),
        }
    };
    match first(exchanged, watch.closed()).await {
        Some(Ok(())) if keeps_alive => After::Open,
        _ => After::Closed,
    }
}

/// The result of `work`, or none if `end` comes first.
pub(crate) async fn first<T>(work: impl Future<Output = T>, end: impl Future<Output = ()>) -> Option<T> {
    let (mut work, mut end) = (pin!(work), pin!(end));
    poll_fn(|context| {
        if let Poll::Ready(result) = work.as_mut().poll(context) {
            return Poll::Ready(Some(result));
        }
        end.as_mut().poll(context).map(|()| None)
    })
    .await
}

async fn read_request(
    decoder: &mut Decoder,
    writer: &mut Writer,
    request: LibraryRequest,
) -> Result<Request, Failure> {
    let (head, payload) = request.into_parts();
    if body_bytes(&head).is_some_and(|bytes| bytes > BODY_BYTES_MAX) {
        return Err(too_large());
    }
    if head.headers.get(header::EXPECT).is_some_and(|value| value == "100-continue") {
        let (result, _) = writer.write_all(Bytes::from_static(b"HTTP/1.1 100 Continue\r\n\r\n")).await;
        result?;
    }
    let body = read_body(decoder, payload).await?;
    let closes = head.headers.get(header::CONNECTION).is_some_and(|value| value == "close");
    Ok(Request {
        path: head.uri.path().to_owned(),
        keeps_alive: head.version == http::Version::HTTP_11 && !closes,
        method: head.method,
        headers: head.headers,
        body,
    })
}

/// Lets the decoder fill the payload while it is emptied here, so that its size can be limited.
async fn read_body(decoder: &mut Decoder, mut payload: Payload) -> Result<Bytes, Failure> {
    if matches!(payload, Payload::None) {
        return Ok(Bytes::new());
    }
    let collect = async {
        let mut body = BytesMut::new();
        while let Some(data) = payload.next_data().await {
            let data = data?;
            if body.len() + data.len() > BODY_BYTES_MAX {
                return Err(too_large());
            }
            if body.is_empty() {
                // A body of one piece is passed on without a copy.
                body = match data.try_into_mut() {
                    Ok(whole) => whole,
                    Err(shared) => BytesMut::from(&shared[..]),
                };
            } else {
                body.extend_from_slice(&data);
            }
        }
        Ok(body.freeze())
    };
    let (mut fill, mut collect) = (pin!(decoder.fill_payload()), pin!(collect));
    let mut filled = false;
    poll_fn(|context| {
        // A failed fill has fed its error to the payload, where `collect` finds it.
        filled = filled || fill.as_mut().poll(context).is_ready();
        collect.as_mut().poll(context)
    })
    .await
}

fn body_bytes(head: &RequestHead) -> Option<usize> {
    head.headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn too_large() -> Failure {
    let message = format!("the body is larger than {BODY_BYTES_MAX} bytes");
    Failure::Answer { status: 413, kind: "RequestEntityTooLarge", message }
}

fn no_fault() -> RequestFault {
    RequestFault::of(&crate::FaultPlan::default(), &http::HeaderMap::new(), false, || 1.0)
}
