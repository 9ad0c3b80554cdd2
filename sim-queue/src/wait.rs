//! The futures of the hot operations, written by hand: the first poll is the operation itself, and what it
//! returns is not moved from one state machine into the next.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use sim_core::time::Instant;
use sim_core::wait::{Elapsed, Waiter};

use crate::delivery::Delivery;
use crate::error::{ReceiveError, SendError};
use crate::message::{Message, Sent};
use crate::queue::Queue;

/// The future of [`Queue::receive`] and [`Queue::receive_until`].
///
/// # Cancel safety
/// A message is taken in the poll that returns it: a future that is dropped loses none.
#[must_use = "futures do nothing unless polled"]
pub struct ReceiveWait<'a, T: Send + Sync + 'static> {
    queue: &'a Queue<T>,
    deadline: Instant,
    /// Made when the first attempt has found nothing.
    waiter: Option<Waiter>,
}

impl<'a, T: Send + Sync + 'static> ReceiveWait<'a, T> {
    #[inline(always)]
    pub(crate) const fn new(queue: &'a Queue<T>, deadline: Instant) -> Self {
        Self {
            queue,
            deadline,
            waiter: None,
        }
    }

    /// Leaves its outcome in a place of its own: a returned one would share memory with that of the fast way.
    #[inline(never)]
    fn poll_waiting(
        &mut self,
        cx: &mut Context<'_>,
        outcome: &mut Poll<Result<Delivery<T>, ReceiveError>>,
    ) {
        let Self {
            queue,
            deadline,
            waiter,
        } = self;
        let shared = queue.shared();
        let waiter = waiter.get_or_insert_default();
        let mut attempt = || queue.attempt_receive();
        *outcome = waiter
            .poll_until(cx, &shared.arrivals, &shared.clock, *deadline, &mut attempt)
            .map(|outcome| outcome.unwrap_or_else(|Elapsed| Err(ReceiveError::Elapsed)));
    }
}

impl<T: Send + Sync + 'static> Future for ReceiveWait<'_, T> {
    type Output = Result<Delivery<T>, ReceiveError>;

    #[inline(always)]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.waiter.is_none()
            && let Some(delivery) = self.queue.receive_fast()
        {
            return Poll::Ready(Ok(delivery));
        }
        let mut outcome = Poll::Pending;
        self.poll_waiting(cx, &mut outcome);
        outcome
    }
}

impl<T: Send + Sync + 'static> Drop for ReceiveWait<'_, T> {
    #[inline]
    fn drop(&mut self) {
        if let Some(waiter) = &mut self.waiter {
            waiter.cancel(&self.queue.shared().arrivals);
        }
    }
}

impl<T: Send + Sync + 'static> fmt::Debug for ReceiveWait<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceiveWait")
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

/// The future of [`Queue::send`] and [`Queue::send_until`].
///
/// # Cancel safety
/// The message is sent in the poll that completes the future; a future dropped before drops it.
#[must_use = "futures do nothing unless polled"]
pub struct SendWait<'a, T: Send + Sync + 'static> {
    queue: &'a Queue<T>,
    deadline: Instant,
    message: Option<Message<T>>,
    /// Made when the first attempt has found no room.
    waiter: Option<Waiter>,
}

/// The message is moved, never pinned.
impl<T: Send + Sync + 'static> Unpin for SendWait<'_, T> {}

impl<'a, T: Send + Sync + 'static> SendWait<'a, T> {
    #[inline(always)]
    pub(crate) const fn new(queue: &'a Queue<T>, message: Message<T>, deadline: Instant) -> Self {
        Self {
            queue,
            deadline,
            message: Some(message),
            waiter: None,
        }
    }

    /// Leaves its outcome in a place of its own, as that of [`ReceiveWait`] does.
    #[inline(never)]
    fn poll_waiting(
        &mut self,
        cx: &mut Context<'_>,
        polled: &mut Poll<Result<Sent, SendError<T>>>,
    ) {
        let Self {
            queue,
            deadline,
            message,
            waiter,
        } = self;
        let shared = queue.shared();
        let waiter = waiter.get_or_insert_default();
        let mut attempt = || queue.attempt_send(message);
        *polled = waiter
            .poll_until(cx, &shared.space, &shared.clock, *deadline, &mut attempt)
            .map(|outcome| match (outcome, message.take()) {
                (Ok(outcome), _) => outcome,
                (Err(Elapsed), Some(message)) => Err(SendError::Elapsed(Box::new(message))),
                (Err(Elapsed), None) => unreachable!("polled after it was ready"),
            });
    }
}

impl<T: Send + Sync + 'static> Future for SendWait<'_, T> {
    type Output = Result<Sent, SendError<T>>;

    #[inline(always)]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.waiter.is_none()
            && let Some(message) = self.message.take()
        {
            match self.queue.send_first(message) {
                Ok(sent) => return Poll::Ready(Ok(sent)),
                Err(message) => self.message = Some(message),
            }
        }
        let mut polled = Poll::Pending;
        self.poll_waiting(cx, &mut polled);
        polled
    }
}

impl<T: Send + Sync + 'static> Drop for SendWait<'_, T> {
    #[inline]
    fn drop(&mut self) {
        if let Some(waiter) = &mut self.waiter {
            waiter.cancel(&self.queue.shared().space);
        }
    }
}

impl<T: Send + Sync + 'static> fmt::Debug for SendWait<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendWait")
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}
