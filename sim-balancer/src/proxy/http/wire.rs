//! [`Wire`]: the bytes of one connection, counted; and [`Pulse`]: what a connection's task and its requests know of it.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes};
use sim_core::clock::Clock;
use sim_core::sync::{Arc, Mutex, MutexGuard};
use sim_core::time::Instant;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::upgrade::Tunnel;

/// Most bytes of a head that are kept as they came.
const KEPT_HEAD: usize = 64 * 1024;

/// Any stream that is not a plain socket: behind TLS or the PROXY protocol.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}

/// The byte stream of a connection.
pub(crate) enum Stream {
    Tcp(TcpStream),
    Other(Box<dyn Duplex>),
}

/// Who is told of the bytes that pass.
pub(crate) enum Watcher {
    /// A connection of a client.
    Client(Arc<Pulse>),
    /// A connection to a target.
    Target(Arc<Mutex<u64>>),
}

/// A stream whose bytes are counted.
pub(crate) struct Wire {
    stream: Stream,
    /// Bytes that were read before and come first.
    ahead: Bytes,
    watcher: Watcher,
    /// Where the pieces of a small message are put together.
    joined: Vec<u8>,
}

/// Up to so many bytes, copying pieces together costs less than handing them to the system one by one. Measured.
const JOINED: usize = 4 * 1024;

impl Wire {
    pub(crate) fn new(stream: Stream, ahead: Bytes, watcher: Watcher) -> Self {
        Self {
            stream,
            ahead,
            watcher,
            joined: Vec::new(),
        }
    }

    fn wrote(&self, outcome: &Poll<io::Result<usize>>) {
        if let (Poll::Ready(Ok(count)), Watcher::Client(pulse)) = (outcome, &self.watcher) {
            pulse.sent(*count);
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        if this.ahead.is_empty() {
            let outcome = match &mut this.stream {
                Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
                Stream::Other(stream) => Pin::new(&mut **stream).poll_read(cx, buffer),
            };
            if !matches!(outcome, Poll::Ready(Ok(()))) {
                return outcome;
            }
        } else {
            let count = this.ahead.len().min(buffer.remaining());
            buffer.put_slice(&this.ahead[..count]);
            this.ahead.advance(count);
        }
        let fresh = &buffer.filled()[before..];
        match &this.watcher {
            Watcher::Client(pulse) => pulse.received(fresh),
            Watcher::Target(count) => *count.lock() += fresh.len() as u64,
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Other(stream) => Pin::new(&mut **stream).poll_write(cx, bytes),
        };
        self.wrote(&outcome);
        outcome
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let outcome = match &mut this.stream {
            Stream::Tcp(stream) if bytes.len() == 1 => Pin::new(stream).poll_write(cx, &bytes[0]),
            Stream::Tcp(stream)
                if bytes.iter().map(|piece| piece.len()).sum::<usize>() <= JOINED =>
            {
                this.joined.clear();
                bytes
                    .iter()
                    .for_each(|piece| this.joined.extend_from_slice(piece));
                Pin::new(stream).poll_write(cx, &this.joined)
            }
            Stream::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bytes),
            Stream::Other(stream) => Pin::new(&mut **stream).poll_write_vectored(cx, bytes),
        };
        self.wrote(&outcome);
        outcome
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Tcp(_) => true,
            Stream::Other(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(_) => Poll::Ready(Ok(())),
            Stream::Other(stream) => Pin::new(&mut **stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Other(stream) => Pin::new(&mut **stream).poll_shutdown(cx),
        }
    }
}

/// Where a client's connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Between requests.
    Idle,
    /// Part of a head has come.
    Head,
    /// A request is under way, and its response has not begun.
    Busy,
    /// A response is being sent.
    Answering,
}

/// What the task of a client's connection, its stream and its requests share.
///
/// One lock, taken by one thread: the worker that the connection belongs to, and for a moment whoever stops it.
pub(crate) struct Pulse {
    clock: Clock,
    idle: Duration,
    state: Mutex<State>,
}

/// The state behind the lock of a [`Pulse`].
pub(crate) struct State {
    pub(crate) phase: Phase,
    /// When the connection has been silent for too long; once part of a head has come, when all of it must have.
    pub(crate) deadline: Instant,
    /// When the connection has had no request for too long, whatever else came on it.
    pub(crate) rested: Instant,
    /// Streams of HTTP/2 whose client was offered data, and since when it has not made room for it. At most one a
    /// request under way.
    offers: BTreeMap<u64, Instant>,
    next_offer: u64,
    /// When the request that is under way has taken too long.
    pub(crate) limit: Instant,
    /// Whether the request under way was found late.
    pub(crate) expired: bool,
    /// Whether the connection was asked to end after what is under way.
    pub(crate) closing: bool,
    /// Requests under way; several on HTTP/2.
    pub(crate) active: u32,
    pub(crate) received: u64,
    pub(crate) sent: u64,
    /// The head as it came, while `tapping`.
    head: Vec<u8>,
    tapping: bool,
    task: Option<Waker>,
    tunnel: Option<Box<Tunnel>>,
}

impl State {
    /// How many streams have offered data for `idle` or longer.
    pub(crate) fn stuck(&self, now: Instant, idle: Duration) -> usize {
        let offers = self.offers.values();
        offers.filter(|since| **since + idle <= now).count()
    }

    /// Since when the first of the streams that offer data has.
    pub(crate) fn first_offer(&self) -> Option<Instant> {
        self.offers.values().min().copied()
    }
}

impl Pulse {
    /// The pulse of a connection that was just accepted. With `tapping` it keeps the bytes of heads as they came.
    pub(crate) fn new(clock: Clock, idle: Duration, tapping: bool) -> Self {
        let deadline = clock.recent() + clock.lag() + idle;
        Self {
            clock,
            idle,
            state: Mutex::new(State {
                phase: Phase::Idle,
                deadline,
                rested: deadline,
                offers: BTreeMap::new(),
                next_offer: 0,
                limit: Instant::NEVER,
                expired: false,
                closing: false,
                active: 0,
                received: 0,
                sent: 0,
                head: Vec::new(),
                tapping,
                task: None,
                tunnel: None,
            }),
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// The bytes of heads are no longer kept.
    pub(crate) fn stop_tapping(&self) {
        let mut state = self.state.lock();
        state.tapping = false;
        state.head = Vec::new();
    }

    fn received(&self, bytes: &[u8]) {
        let deadline = self.clock.recent() + self.idle;
        let mut state = self.state.lock();
        state.received += bytes.len() as u64;
        // A head has one deadline, not one a byte: else a byte now and then holds a connection for ever.
        if state.phase != Phase::Head {
            state.deadline = deadline;
        }
        if state.phase == Phase::Idle && !bytes.is_empty() {
            state.phase = Phase::Head;
        }
        if state.tapping && state.head.len() < KEPT_HEAD {
            let room = KEPT_HEAD - state.head.len();
            state
                .head
                .extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
    }

    fn sent(&self, count: usize) {
        let deadline = self.clock.recent() + self.idle;
        let mut state = self.state.lock();
        state.sent += count as u64;
        state.deadline = deadline;
    }

    /// A request begins: calls `look` with its head as it came, where that is kept, and forgets it.
    pub(crate) fn begin<R>(&self, look: impl FnOnce(&[u8]) -> R) -> (R, u64) {
        let deadline = self.clock.recent() + self.idle;
        let mut state = self.state.lock();
        state.phase = Phase::Busy;
        state.active += 1;
        state.deadline = deadline;
        state.limit = Instant::NEVER;
        state.expired = false;
        let end = end_of_head(&state.head).unwrap_or(state.head.len());
        let seen = look(&state.head[..end]);
        // What follows is a body or the next head of a pipeline; the former is passed over by `end`.
        if end == state.head.len() {
            state.head.clear();
        } else {
            state.head.drain(..end);
        }
        (seen, end as u64)
    }

    /// The response of a request begins.
    pub(crate) fn answering(&self) {
        let mut state = self.state.lock();
        state.phase = Phase::Answering;
        state.limit = Instant::NEVER;
    }

    /// A request and its response are over. `body` bytes of its body were read.
    pub(crate) fn end(&self, body: u64) {
        let deadline = self.clock.recent() + self.idle;
        let mut state = self.state.lock();
        state.active = state.active.saturating_sub(1);
        if state.active > 0 {
            return;
        }
        state.deadline = deadline;
        state.rested = deadline;
        state.limit = Instant::NEVER;
        let body = usize::try_from(body).unwrap_or(usize::MAX);
        if body >= state.head.len() {
            state.head.clear();
        } else {
            state.head.drain(..body);
        }
        state.phase = if state.head.is_empty() {
            Phase::Idle
        } else {
            Phase::Head
        };
    }

    /// A stream of HTTP/2 has data for its client; it has had none since it was taken back. Returns what to call it by.
    pub(crate) fn offer(&self, former: Option<u64>) -> u64 {
        let now = self.clock.recent();
        let mut state = self.state.lock();
        let offer = former.unwrap_or_else(|| {
            state.next_offer += 1;
            state.next_offer
        });
        state.offers.insert(offer, now);
        offer
    }

    /// The client took what a stream offered, or the stream is over.
    pub(crate) fn taken(&self, offer: u64) {
        self.state.lock().offers.remove(&offer);
    }

    /// Asks the connection to end after what is under way.
    pub(crate) fn close(&self) {
        let task = {
            let mut state = self.state.lock();
            state.closing = true;
            state.task.clone()
        };
        if let Some(task) = task {
            task.wake();
        }
    }

    /// Registers the connection's task, and reads what it must look at: whether it is to close, and its deadline.
    pub(crate) fn watch(&self, cx: &Context<'_>) -> (bool, Instant) {
        let mut state = self.state.lock();
        if !state
            .task
            .as_ref()
            .is_some_and(|task| task.will_wake(cx.waker()))
        {
            state.task = Some(cx.waker().clone());
        }
        (state.closing, state.deadline.min(state.limit))
    }

    /// Leaves the two ends of an upgraded connection for its task.
    pub(crate) fn leave_tunnel(&self, tunnel: Box<Tunnel>) {
        self.state.lock().tunnel = Some(tunnel);
    }

    pub(crate) fn take_tunnel(&self) -> Option<Box<Tunnel>> {
        self.state.lock().tunnel.take()
    }
}

/// The length of the head that `bytes` begins with, its empty line included.
fn end_of_head(bytes: &[u8]) -> Option<usize> {
    let mut from = 0;
    while let Some(at) = bytes[from..].iter().position(|byte| *byte == b'\n') {
        let next = from + at + 1;
        match &bytes[next..] {
            [b'\n', ..] => return Some(next + 1),
            [b'\r', b'\n', ..] => return Some(next + 2),
            _ => from = next,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::end_of_head;

    #[test]
    fn a_head_ends_after_its_empty_line() {
        assert_eq!(
            end_of_head(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nrest"),
            Some(27)
        );
        assert_eq!(end_of_head(b"GET / HTTP/1.1\nHost: a\n\nrest"), Some(24));
        assert_eq!(end_of_head(b"GET / HTTP/1.1\r\nHost: a\r\n"), None);
    }
}
