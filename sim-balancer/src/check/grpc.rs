//! A check by gRPC: one unary call by HTTP/2 with prior knowledge.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use futures_util::StreamExt;

use futures_util::stream::FuturesUnordered;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::TokioIo;
use sim_core::sync::{Arc, Mutex};
use tokio::net::TcpStream;

use super::http::USER_AGENT;

/// The most bytes of an answer.
const ANSWER: usize = 64 * 1024;

/// gRPC's code for an error of unknown origin.
const UNKNOWN: u16 = 2;

/// A message without fields in its frame: not compressed, no bytes. Also a `HealthCheckRequest` for the whole server.
const EMPTY_MESSAGE: &[u8] = &[0, 0, 0, 0, 0];

/// What counts in an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Judge {
    /// The status code.
    Status,
    /// The status code, and where it is 0, a `HealthCheckResponse` that says `SERVING`.
    Serving,
}

/// What came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Status(u16),
    NotServing,
}

/// Calls; `None` when there is no proper answer.
pub(super) async fn call(
    stream: TcpStream,
    address: SocketAddr,
    path: &str,
    judge: Judge,
) -> Option<Answer> {
    let request = Request::post(format!("http://{address}{path}"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header(header::USER_AGENT, USER_AGENT)
        .body(Full::new(Bytes::from_static(EMPTY_MESSAGE)))
        .ok()?;
    let tasks = Tasks::default();
    let handshake = http2::Builder::new(tasks.clone())
        .handshake(TokioIo::new(stream))
        .await;
    let (mut sender, connection) = handshake.ok()?;
    let answer = async move {
        let response = sender.send_request(request).await.ok()?;
        read(response, judge).await
    };
    let mut answer = pin!(answer);
    let mut connection = pin!(connection);
    let mut is_open = true;
    let mut running = FuturesUnordered::new();
    poll_fn(|cx| {
        if is_open && connection.as_mut().poll(cx).is_ready() {
            // How it ended is told by the answer.
            is_open = false;
        }
        tasks.drive(&mut running, cx);
        answer.as_mut().poll(cx)
    })
    .await
}

async fn read(response: http::Response<Incoming>, judge: Judge) -> Option<Answer> {
    let (head, mut body) = response.into_parts();
    if head.status != StatusCode::OK {
        return Some(Answer::Status(of_http(head.status)));
    }
    let mut code = code_of(&head.headers);
    let mut message = BytesMut::new();
    while code.is_none() {
        let Some(frame) = body.frame().await else {
            break;
        };
        match frame.ok()?.into_data() {
            Ok(data) => {
                if message.len() + data.len() > ANSWER {
                    return None;
                }
                message.extend_from_slice(&data);
            }
            Err(frame) => code = frame.trailers_ref().and_then(code_of),
        }
    }
    let code = code.unwrap_or(UNKNOWN);
    Some(match judge {
        Judge::Serving if code == 0 && !is_serving(message.freeze()) => Answer::NotServing,
        Judge::Serving | Judge::Status => Answer::Status(code),
    })
}

fn code_of(headers: &HeaderMap) -> Option<u16> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// The code for an answer that is not gRPC's. Source: gRPC, "HTTP to gRPC Status Code Mapping".
fn of_http(status: StatusCode) -> u16 {
    match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => UNKNOWN,
    }
}

/// Whether a framed `grpc.health.v1.HealthCheckResponse` says that its `status`, field 1, is `SERVING`, 1.
fn is_serving(mut frame: Bytes) -> bool {
    const SERVING: u64 = 1;
    const STATUS: u64 = 1 << 3;
    // A byte for compression and four for the length.
    if frame.len() < 5 || frame.get_u8() != 0 {
        return false;
    }
    let length = frame.get_u32() as usize;
    if frame.len() < length {
        return false;
    }
    let mut message = frame.split_to(length);
    let mut status = 0;
    while message.has_remaining() {
        // Later versions may have more fields, and the last of one that is repeated counts.
        let field = varint(&mut message);
        let value = match field.map(|tag| tag & 7) {
            Some(0) => varint(&mut message),
            Some(1) => skip(&mut message, 8),
            Some(2) => varint(&mut message).and_then(|length| skip(&mut message, length)),
            Some(5) => skip(&mut message, 4),
            _ => None,
        };
        match (field, value) {
            (Some(STATUS), Some(value)) => status = value,
            (Some(_), Some(_)) => {}
            _ => return false,
        }
    }
    status == SERVING
}

fn skip(message: &mut Bytes, length: u64) -> Option<u64> {
    let length = usize::try_from(length).ok()?;
    (length <= message.len()).then(|| message.advance(length))?;
    Some(0)
}

fn varint(message: &mut Bytes) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        if !message.has_remaining() {
            return None;
        }
        let byte = message.get_u8();
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What hyper's HTTP/2 would spawn: kept here, and driven by the call that it belongs to.
#[derive(Clone, Default)]
struct Tasks(Arc<Mutex<Vec<Task>>>);

impl Tasks {
    fn drive(&self, running: &mut FuturesUnordered<Task>, cx: &mut Context<'_>) {
        loop {
            let fresh = std::mem::take(&mut *self.0.lock());
            let is_idle = fresh.is_empty();
            running.extend(fresh);
            while let Poll::Ready(Some(())) = running.poll_next_unpin(cx) {}
            if is_idle {
                return;
            }
        }
    }
}

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Tasks {
    fn execute(&self, task: F) {
        self.0.lock().push(Box::pin(task));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(message: &[u8]) -> Bytes {
        let mut frame = vec![0];
        frame.extend_from_slice(&(message.len() as u32).to_be_bytes());
        frame.extend_from_slice(message);
        frame.into()
    }

    #[test]
    fn only_serving_is_serving() {
        assert!(is_serving(framed(&[8, 1])));
        assert!(is_serving(framed(&[8, 2, 8, 1])), "the last one counts");
        assert!(
            is_serving(framed(&[18, 2, 7, 7, 8, 1])),
            "unknown fields are skipped"
        );
        assert!(is_serving(framed(&[13, 0, 0, 0, 0, 8, 1])));
        for message in [
            &[][..],
            &[8],
            &[8, 0],
            &[8, 2],
            &[8, 0x80],
            &[18, 9, 1],
            &[15, 1],
        ] {
            assert!(!is_serving(framed(message)), "{message:?}");
        }
        assert!(
            !is_serving(Bytes::from_static(&[0, 0, 0, 0, 9, 8, 1])),
            "cut off"
        );
        assert!(
            !is_serving(Bytes::from_static(&[1, 0, 0, 0, 2, 8, 1])),
            "compressed"
        );
        assert!(!is_serving(Bytes::new()));
    }
}
