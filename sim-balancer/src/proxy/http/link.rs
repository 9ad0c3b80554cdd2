//! [`Link`]: an HTTP/1.1 connection to a target, driven by whoever uses it.
//!
//! No task of its own polls it: the request that holds it polls the connection and what it waits for in one go, so that a
//! request costs its client's task one wake-up and no other task any. A link at rest is not polled at all; that its peer
//! closed it is noted by its [`Relay`] and seen when it is taken again.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, Wake, Waker};

use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use sim_core::sync::{Arc, Mutex};
use sim_core::time::Instant;

use super::body::Outgoing;
use super::wire::{Stream, Watcher, Wire};

/// How often a link is polled in one go.
const ROUNDS: u32 = 4;

/// hyper's side of a link. Its type has no name; one box a connection.
type Connection = Pin<Box<dyn Future<Output = Result<(), hyper::Error>> + Send>>;

/// An HTTP/1.1 connection to a target.
pub(crate) struct Link {
    pub(crate) send: http1::SendRequest<Outgoing>,
    /// `None` once it has ended.
    conn: Option<Connection>,
    relay: Arc<Relay>,
    /// Of `relay`.
    waker: Waker,
    /// Bytes that came from the target.
    received: Arc<Mutex<u64>>,
    /// Of the group's settings that it was made by: with others it is of no use.
    pub(crate) way: u64,
    /// When it was put to rest.
    pub(crate) rested: Instant,
    /// How many requests it has carried.
    pub(crate) carried: u32,
}

impl Link {
    /// Speaks HTTP/1.1 on a connected stream.
    pub(crate) async fn open(
        stream: Stream,
        largest_head: usize,
    ) -> Result<Box<Self>, hyper::Error> {
        let received = Arc::new(Mutex::new(0));
        let wire = Wire::new(
            stream,
            bytes::Bytes::new(),
            Watcher::Target(Arc::clone(&received)),
        );
        let (send, conn) = http1::Builder::new()
            .max_buf_size(largest_head.max(64 * 1024))
            .handshake(TokioIo::new(wire))
            .await?;
        let relay = Arc::new(Relay::default());
        let waker = Waker::from(Arc::clone(&relay));
        Ok(Box::new(Self {
            send,
            conn: Some(Box::pin(conn.with_upgrades())),
            relay,
            waker,
            received,
            way: 0,
            rested: Instant::ORIGIN,
            carried: 0,
        }))
    }

    /// Polls the connection and then `wanted`, again for as long as one of them woke the other.
    pub(crate) fn poll_with<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut wanted: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        self.relay.enter(Some(cx.waker()));
        for _ in 0..ROUNDS {
            let mut inner = Context::from_waker(&self.waker);
            if let Some(conn) = &mut self.conn
                && conn.as_mut().poll(&mut inner).is_ready()
            {
                self.conn = None;
            }
            let outcome = wanted(&mut inner);
            if outcome.is_ready() || !self.relay.again() {
                self.relay.leave();
                return outcome;
            }
        }
        // Others want to run as well: tokio's budget for this task may be spent, and then it wakes at once.
        self.relay.leave();
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Lets the connection finish what a request left, and tells whether it can carry another one.
    pub(crate) fn settle(&mut self) -> bool {
        if self.conn.is_some() && self.send.is_ready() {
            // It is done already. Whoever woke it since it was polled did so in the same poll of the task; the system's news
            // come between polls.
            self.relay.rest();
            return true;
        }
        self.look()
    }

    /// Polls the connection for nobody.
    fn look(&mut self) -> bool {
        self.relay.enter(None);
        for _ in 0..ROUNDS {
            let mut inner = Context::from_waker(&self.waker);
            let Some(conn) = &mut self.conn else {
                break;
            };
            if conn.as_mut().poll(&mut inner).is_ready() {
                self.conn = None;
            }
            if !self.relay.again() {
                break;
            }
        }
        self.relay.leave();
        self.conn.is_some() && self.send.is_ready()
    }

    /// Whether it can carry a request, as far as is known: something that happened while it rested is looked at.
    pub(crate) fn is_fit(&mut self) -> bool {
        if self.relay.is_woken() {
            return self.look();
        }
        self.conn.is_some() && self.send.is_ready()
    }

    /// Bytes that the target has sent on it.
    pub(crate) fn received(&self) -> u64 {
        *self.received.lock()
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("carried", &self.carried)
            .finish_non_exhaustive()
    }
}

/// The waker of a link: wakes the task that holds it, unless that task is polling it.
#[derive(Default)]
struct Relay(Mutex<Relayed>);

#[derive(Default)]
struct Relayed {
    task: Option<Waker>,
    polling: bool,
    woken: bool,
}

impl Relay {
    fn enter(&self, task: Option<&Waker>) {
        let mut state = self.0.lock();
        state.polling = true;
        state.woken = false;
        match (task, &state.task) {
            (Some(task), Some(known)) if known.will_wake(task) => {}
            (task, _) => state.task = task.cloned(),
        }
    }

    /// Whether something woke it since it was asked last.
    fn again(&self) -> bool {
        std::mem::take(&mut self.0.lock().woken)
    }

    fn leave(&self) {
        self.0.lock().polling = false;
    }

    /// Nobody holds the link any more, and nothing is left to be looked at.
    fn rest(&self) {
        let mut state = self.0.lock();
        state.task = None;
        state.woken = false;
    }

    fn is_woken(&self) -> bool {
        self.0.lock().woken
    }
}

impl Wake for Relay {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut state = self.0.lock();
        state.woken = true;
        if !state.polling
            && let Some(task) = &state.task
        {
            task.wake_by_ref();
        }
    }
}
