//! Connections to one server, and the few that wait for their next request.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, RETRY_AFTER};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use sim_core::sync::Mutex;
use sim_core::time::Instant;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::target::Target;
use super::tls::Trust;

/// The most bytes of an answer's head; hyper's own default is 400 KiB.
const MAX_HEAD: usize = 64 * 1024;
/// The most headers of an answer.
const MAX_HEADERS: usize = 128;

/// A socket, or TLS over one.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// What does the reading and writing of one connection.
type Driver = http1::Connection<TokioIo<Box<dyn Stream>>, Full<Bytes>>;

pub(super) struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    /// `None` once it has ended, so that nothing waits for it any more.
    driver: Option<Driver>,
}

/// What a server said.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// The `Retry-After` header, where it gives seconds.
    pub(super) retry_after: Option<Duration>,
    /// The body as far as it was read, cut at the limit.
    pub(super) body: BytesMut,
    /// What is still to be read of it; none when that is not to be read.
    rest: Option<Incoming>,
    /// Whether the body was read to its end, so that the next request may follow.
    is_complete: bool,
}

/// Why there is no answer.
pub(super) struct Failure {
    pub(super) reason: String,
    /// Whether the answer had begun: then the server has seen the request.
    pub(super) answered: bool,
}

/// Connects; what went wrong comes as a text.
pub(super) async fn open(target: &Target, trust: Option<&Trust>) -> Result<Connection, String> {
    let socket = TcpStream::connect((&*target.host, target.port))
        .await
        .map_err(|error| format!("cannot connect: {error}"))?;
    // Requests are written whole; nothing gains from waiting for more. A socket that cannot do it still works.
    let _ = socket.set_nodelay(true);
    let stream: Box<dyn Stream> = match (trust, &target.tls) {
        (Some(trust), Some(name)) => {
            let stream = trust
                .connect(name.clone(), socket)
                .await
                .map_err(|error| format!("no TLS: {error}"))?;
            Box::new(stream)
        }
        _ => Box::new(socket),
    };
    let (sender, driver) = http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| said(&error))?;
    Ok(Connection {
        sender,
        driver: Some(driver),
    })
}

impl Connection {
    /// Sends a request and reads the head of its answer; a body of more than `limit` bytes is not read.
    pub(super) async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
        limit: usize,
    ) -> Result<Answer, Failure> {
        let Self { sender, driver } = self;
        let response = drive(driver, async {
            sender.ready().await?;
            sender.send_request(request).await
        })
        .await
        .map_err(|error| Failure {
            answered: is_answer(&error),
            reason: said(&error),
        })?;
        let (head, body) = response.into_parts();
        // A body that says that it is too long is not begun.
        let is_too_long = announced(&head.headers).is_some_and(|length| length > limit as u64);
        Ok(Answer {
            status: head.status,
            retry_after: retry_after(&head.headers),
            body: BytesMut::new(),
            rest: (!is_too_long).then_some(body),
            is_complete: false,
        })
    }

    /// Reads the body of an answer, at most `limit` bytes of it. Dropping the future leaves what was read.
    pub(super) async fn read(&mut self, answer: &mut Answer, limit: usize) {
        let Some(rest) = &mut answer.rest else {
            return;
        };
        loop {
            match drive(&mut self.driver, rest.frame()).await {
                None => {
                    answer.is_complete = true;
                    return;
                }
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        let room = limit - answer.body.len();
                        let taken = &data[..data.len().min(room)];
                        answer.body.extend_from_slice(taken);
                        if data.len() > room {
                            return;
                        }
                    }
                }
                // The status has been said: what fails after it changes nothing.
                Some(Err(_)) => return,
            }
        }
    }

    /// Whether the next request may be sent: looks whether the server has closed the connection meanwhile.
    fn is_open(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        if let Some(driver) = &mut self.driver
            && Pin::new(driver).poll(&mut cx).is_ready()
        {
            self.driver = None;
        }
        self.driver.is_some() && !self.sender.is_closed()
    }
}

/// Polls a future, and with it the connection that it waits for.
async fn drive<F, D>(driver: &mut Option<D>, future: F) -> F::Output
where
    F: Future,
    D: Future + Unpin,
{
    let mut future = pin!(future);
    poll_fn(|cx| {
        if let Some(running) = driver.as_mut()
            && Pin::new(running).poll(cx).is_ready()
        {
            // Dropping it closes its channels: the future below learns that nothing comes any more.
            *driver = None;
        }
        match future.as_mut().poll(cx) {
            // What the future has just handed over is written now, not at the next wake-up.
            Poll::Pending => {
                if let Some(running) = driver.as_mut()
                    && Pin::new(running).poll(cx).is_ready()
                {
                    *driver = None;
                    return future.as_mut().poll(cx);
                }
                Poll::Pending
            }
            ready => ready,
        }
    })
    .await
}

/// Connections that wait for their next request: the last one used is the first one taken. What was idle for too long
/// is closed by the next `take` or `put`.
pub(super) struct Pool {
    /// Invariant: in the order of the time at which they became idle.
    idle: Mutex<Vec<(Connection, Instant)>>,
    most: usize,
    longest: Duration,
    limit: usize,
}

impl Pool {
    pub(super) const fn new(most: usize, longest: Duration, limit: usize) -> Self {
        Self {
            idle: Mutex::new(Vec::new()),
            most,
            longest,
            limit,
        }
    }

    /// How much of a body is read.
    pub(super) const fn limit(&self) -> usize {
        self.limit
    }

    pub(super) fn len(&self) -> usize {
        self.idle.lock().len()
    }

    /// Takes one that is still open.
    pub(super) fn take(&self, now: Instant) -> Option<Connection> {
        let mut idle = self.idle.lock();
        idle.retain(|(_, since)| now - *since < self.longest);
        while let Some((mut connection, _)) = idle.pop() {
            if connection.is_open() {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps one whose answer was read whole, if there is room.
    pub(super) fn put(&self, mut connection: Connection, answer: &Answer, now: Instant) {
        if !answer.is_complete || !connection.is_open() {
            return;
        }
        let mut idle = self.idle.lock();
        idle.retain(|(_, since)| now - *since < self.longest);
        if idle.len() < self.most {
            idle.push((connection, now));
        }
    }
}

/// The `Retry-After` header in seconds; a date is passed over.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

/// How long the body says that it is.
fn announced(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Whether an answer had begun when this went wrong.
fn is_answer(error: &hyper::Error) -> bool {
    error.is_parse() || error.is_parse_status()
}

/// What went wrong, with its causes.
fn said(error: &hyper::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}
