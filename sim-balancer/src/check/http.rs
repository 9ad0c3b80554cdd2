//! A check by HTTP/1.1: one `GET`, of whose answer only the status counts.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};

use bytes::Bytes;

use http::{Request, header};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

/// What the check calls itself.
pub(super) const USER_AGENT: &str = "sim-balancer-health-check/1";

/// The most bytes of an answer's head.
const HEAD: usize = 64 * 1024;

/// The status of the answer; `None` when there is no proper one.
pub(super) async fn status(
    io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    address: SocketAddr,
    path: &str,
) -> Option<u16> {
    let request = Request::get(path)
        .header(header::HOST, address.to_string())
        .header(header::USER_AGENT, USER_AGENT)
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .ok()?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD)
        .handshake(TokioIo::new(io))
        .await
        .ok()?;
    let response = sender.send_request(request);
    let response = alongside(connection, response).await.ok()?;
    Some(response.status().as_u16())
}

/// Drives a connection for as long as a call on it takes.
pub(super) async fn alongside<C: Future, R>(connection: C, call: impl Future<Output = R>) -> R {
    let mut connection = pin!(Some(connection));
    let mut call = pin!(call);
    poll_fn(|cx| {
        if let Some(driving) = connection.as_mut().as_pin_mut()
            && driving.poll(cx).is_ready()
        {
            // How it ended is told by the call.
            Pin::set(&mut connection, None);
        }
        call.as_mut().poll(cx)
    })
    .await
}
