//! tokio mpsc, which all ratios refer to. It has one receiver; where a shape has four, they share it behind a mutex.

use std::sync::Arc;

use tokio::sync::mpsc::{self, Receiver, Sender, UnboundedReceiver, UnboundedSender};

use crate::pattern::{BATCH, Bound, CAPACITY, Peer, Shape, fan_in, share};
use crate::payload::{Payload, Tally};
use crate::tasks::{TaskBatchReceiver, TaskBatchSender, TaskReceiver, TaskSender};
use crate::threads::{ThreadBatchReceiver, ThreadBatchSender, ThreadReceiver, ThreadSender};

/// A receiver that tasks share.
type Shared<R> = Arc<tokio::sync::Mutex<R>>;
/// A receiver that threads share.
type Locked<R> = Arc<parking_lot::Mutex<R>>;

const CLOSED: &str = "closed under a sender";

impl<T: Payload> TaskSender<T> for Sender<T> {
    async fn send(&mut self, message: T) {
        assert!(<Self>::send(self, message).await.is_ok(), "{CLOSED}");
    }
}

impl<T: Payload> TaskSender<T> for UnboundedSender<T> {
    async fn send(&mut self, message: T) {
        assert!(<Self>::send(self, message).is_ok(), "{CLOSED}");
    }
}

impl<T: Payload> ThreadSender<T> for Sender<T> {
    fn send(&mut self, message: T) {
        assert!(self.blocking_send(message).is_ok(), "{CLOSED}");
    }
}

impl<T: Payload> ThreadSender<T> for UnboundedSender<T> {
    fn send(&mut self, message: T) {
        assert!(<Self>::send(self, message).is_ok(), "{CLOSED}");
    }
}

impl<T: Payload> TaskBatchSender<T> for Sender<T> {
    async fn send_batch(&mut self, batch: &mut Vec<T>) {
        match self.reserve_many(batch.len()).await {
            Ok(permits) => permits
                .zip(batch.drain(..))
                .for_each(|(permit, message)| permit.send(message)),
            Err(_) => panic!("{CLOSED}"),
        }
    }
}

impl<T: Payload> TaskBatchSender<T> for UnboundedSender<T> {
    async fn send_batch(&mut self, batch: &mut Vec<T>) {
        for message in batch.drain(..) {
            assert!(<Self>::send(self, message).is_ok(), "{CLOSED}");
        }
    }
}

impl<T: Payload> ThreadBatchSender<T> for Sender<T> {
    fn send_batch(&mut self, batch: &mut Vec<T>) {
        // There is no blocking form of `reserve_many`.
        for message in batch.drain(..) {
            assert!(self.blocking_send(message).is_ok(), "{CLOSED}");
        }
    }
}

impl<T: Payload> ThreadBatchSender<T> for UnboundedSender<T> {
    fn send_batch(&mut self, batch: &mut Vec<T>) {
        for message in batch.drain(..) {
            assert!(<Self>::send(self, message).is_ok(), "{CLOSED}");
        }
    }
}

macro_rules! receivers {
    ($($receiver:ident),*) => {$(
        impl<T: Payload> TaskReceiver<T> for $receiver<T> {
            async fn receive(&mut self) -> Option<T> {
                self.recv().await
            }
        }

        impl<T: Payload> TaskReceiver<T> for Shared<$receiver<T>> {
            async fn receive(&mut self) -> Option<T> {
                self.lock().await.recv().await
            }
        }

        impl<T: Payload> TaskBatchReceiver<T> for $receiver<T> {
            async fn receive_batch(&mut self, batch: &mut Vec<T>, _: &mut Tally) -> usize {
                self.recv_many(batch, BATCH).await
            }
        }

        impl<T: Payload> TaskBatchReceiver<T> for Shared<$receiver<T>> {
            async fn receive_batch(&mut self, batch: &mut Vec<T>, _: &mut Tally) -> usize {
                self.lock().await.recv_many(batch, BATCH).await
            }
        }

        impl<T: Payload> ThreadReceiver<T> for $receiver<T> {
            fn receive(&mut self) -> Option<T> {
                self.blocking_recv()
            }
        }

        impl<T: Payload> ThreadReceiver<T> for Locked<$receiver<T>> {
            fn receive(&mut self) -> Option<T> {
                self.lock().blocking_recv()
            }
        }

        impl<T: Payload> ThreadBatchReceiver<T> for $receiver<T> {
            fn receive_batch(&mut self, batch: &mut Vec<T>, _: &mut Tally) -> usize {
                self.blocking_recv_many(batch, BATCH)
            }
        }

        impl<T: Payload> ThreadBatchReceiver<T> for Locked<$receiver<T>> {
            fn receive_batch(&mut self, batch: &mut Vec<T>, _: &mut Tally) -> usize {
                self.lock().blocking_recv_many(batch, BATCH)
            }
        }
    )*};
}

receivers!(Receiver, UnboundedReceiver);

macro_rules! fitting {
    ($peer:ident, $shape:expr, $bound:expr, $share:expr) => {
        match ($shape.receivers(), $bound) {
            (1, Bound::Bounded) => super::$peer!(super::TOKIO, $shape, {
                let (sender, receiver) = mpsc::channel::<T>(CAPACITY);
                fan_in($shape, sender, receiver)
            }),
            (1, Bound::Unbounded) => super::$peer!(super::TOKIO, $shape, {
                let (sender, receiver) = mpsc::unbounded_channel::<T>();
                fan_in($shape, sender, receiver)
            }),
            (_, Bound::Bounded) => super::$peer!(super::TOKIO, $shape, {
                let (sender, receiver) = mpsc::channel::<T>(CAPACITY);
                share($shape, sender, Arc::new($share(receiver)))
            }),
            (_, Bound::Unbounded) => super::$peer!(super::TOKIO, $shape, {
                let (sender, receiver) = mpsc::unbounded_channel::<T>();
                share($shape, sender, Arc::new($share(receiver)))
            }),
        }
    };
}

pub(super) fn tasks<T: Payload>(shape: Shape, bound: Bound) -> Option<Peer> {
    fitting!(task_peer, shape, bound, tokio::sync::Mutex::new)
}

pub(super) fn task_batches<T: Payload>(shape: Shape, bound: Bound) -> Option<Peer> {
    fitting!(task_batch_peer, shape, bound, tokio::sync::Mutex::new)
}

pub(super) fn threads<T: Payload>(shape: Shape, bound: Bound) -> Option<Peer> {
    fitting!(thread_peer, shape, bound, parking_lot::Mutex::new)
}

pub(super) fn thread_batches<T: Payload>(shape: Shape, bound: Bound) -> Option<Peer> {
    fitting!(thread_batch_peer, shape, bound, parking_lot::Mutex::new)
}
