//! The queue as a `futures` [`Stream`] of deliveries and as a [`Sink`] of messages.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use futures_sink::Sink;
use sim_core::time::Instant;
use sim_core::wait::Waiter;

use crate::delivery::Delivery;
use crate::error::{ReceiveError, SendError, TrySendError};
use crate::message::Message;
use crate::queue::Queue;

impl<T: Send + Sync + 'static> Queue<T> {
    /// The messages as a stream, for as long as it is polled. It ends when the queue is closed and nothing
    /// is left in it. While too many messages are in flight it yields that error and goes on.
    #[must_use]
    pub fn stream(&self) -> Deliveries<T> {
        Deliveries {
            queue: self.clone(),
            waiter: Waiter::new(),
            is_over: false,
        }
    }

    /// The queue as a sink of messages: ready when there is room.
    #[must_use]
    pub fn sink(&self) -> Sending<T> {
        Sending {
            queue: self.clone(),
            waiter: Waiter::new(),
            pending: None,
        }
    }
}

/// The stream of [`Queue::stream`].
pub struct Deliveries<T: Send + Sync + 'static> {
    queue: Queue<T>,
    waiter: Waiter,
    is_over: bool,
}

impl<T: Send + Sync + 'static> Stream for Deliveries<T> {
    type Item = Result<Delivery<T>, ReceiveError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Self {
            queue,
            waiter,
            is_over,
        } = &mut *self;
        if *is_over {
            return Poll::Ready(None);
        }
        let shared = queue.shared();
        let polled = waiter.poll_until(
            cx,
            &shared.arrivals,
            &shared.clock,
            Instant::NEVER,
            &mut || queue.attempt_receive(),
        );
        match polled {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(Err(ReceiveError::Closed))) => {
                *is_over = true;
                Poll::Ready(None)
            }
            Poll::Ready(Ok(outcome)) => Poll::Ready(Some(outcome)),
            // There is no deadline that could pass.
            Poll::Ready(Err(_)) => Poll::Ready(Some(Err(ReceiveError::Elapsed))),
        }
    }
}

impl<T: Send + Sync + 'static> Drop for Deliveries<T> {
    fn drop(&mut self) {
        self.waiter.cancel(&self.queue.shared().arrivals);
    }
}

impl<T: Send + Sync + 'static> fmt::Debug for Deliveries<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deliveries")
            .field("queue", &self.queue)
            .finish_non_exhaustive()
    }
}

/// The sink of [`Queue::sink`]. It holds at most one message, while there is no room for it; flush it, or
/// close it, before dropping it.
pub struct Sending<T: Send + Sync + 'static> {
    queue: Queue<T>,
    waiter: Waiter,
    pending: Option<Message<T>>,
}

/// The message is moved, never pinned.
impl<T: Send + Sync + 'static> Unpin for Sending<T> {}

impl<T: Send + Sync + 'static> Sending<T> {
    fn poll_pending(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendError<T>>> {
        let Self {
            queue,
            waiter,
            pending,
        } = self;
        if pending.is_none() {
            return Poll::Ready(Ok(()));
        }
        let shared = queue.shared();
        let polled = waiter.poll_until(
            cx,
            &shared.space,
            &shared.clock,
            Instant::NEVER,
            &mut || queue.attempt_send(pending),
        );
        match polled {
            Poll::Ready(Ok(Ok(_)) | Err(_)) => Poll::Ready(Ok(())),
            Poll::Ready(Ok(Err(error))) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<T: Send + Sync + 'static> Sink<Message<T>> for Sending<T> {
    type Error = SendError<T>;

    fn poll_ready(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), SendError<T>>> {
        self.poll_pending(cx)
    }

    fn start_send(mut self: Pin<&mut Self>, message: Message<T>) -> Result<(), SendError<T>> {
        match self.queue.try_send(message) {
            Ok(_) => Ok(()),
            Err(TrySendError { message, reason }) if reason.is_temporary() => {
                self.pending = Some(*message);
                Ok(())
            }
            Err(error) => Err(SendError::Refused(error)),
        }
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), SendError<T>>> {
        self.poll_pending(cx)
    }

    fn poll_close(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), SendError<T>>> {
        self.poll_pending(cx)
    }
}

impl<T: Send + Sync + 'static> Drop for Sending<T> {
    fn drop(&mut self) {
        self.waiter.cancel(&self.queue.shared().space);
    }
}

impl<T: Send + Sync + 'static> fmt::Debug for Sending<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sending")
            .field("queue", &self.queue)
            .finish_non_exhaustive()
    }
}
