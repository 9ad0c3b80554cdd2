//! fibre: a channel for each number of senders and receivers, all with batches on both sides.

use fibre::{mpmc, mpsc, spsc};

use crate::pattern::{BATCH, Bound, CAPACITY, Peer, Shape, fan_in, pair, share};
use crate::payload::{Payload, Tally};
use crate::tasks::{TaskBatchReceiver, TaskBatchSender};
use crate::threads::{ThreadBatchReceiver, ThreadBatchSender};

macro_rules! sides {
    ($($sender:ty, $receiver:ty);* $(;)?) => {$(
        awaited!($sender, send; $receiver, recv);

        impl<T: Payload> TaskBatchSender<T> for $sender {
            async fn send_batch(&mut self, batch: &mut Vec<T>) {
                assert!(self.send_batch_mut(batch).await.is_ok(), "closed under a sender");
            }
        }

        impl<T: Payload> TaskBatchReceiver<T> for $receiver {
            async fn receive_batch(&mut self, batch: &mut Vec<T>, _: &mut Tally) -> usize {
                self.recv_batch_mut(batch, BATCH).await.unwrap_or(0)
            }
        }
    )*};
}

macro_rules! blocking_sides {
    ($($sender:ty, $receiver:ty);* $(;)?) => {$(
        blocking!($sender, send; $receiver, recv);

        impl<T: Payload> ThreadBatchSender<T> for $sender {
            fn send_batch(&mut self, batch: &mut Vec<T>) {
                assert!(self.send_batch_mut(batch).is_ok(), "closed under a sender");
            }
        }

        impl<T: Payload> ThreadBatchReceiver<T> for $receiver {
            fn receive_batch(&mut self, batch: &mut Vec<T>, _: &mut Tally) -> usize {
                self.recv_batch_mut(batch, BATCH).unwrap_or(0)
            }
        }
    )*};
}

sides! {
    spsc::BoundedAsyncSender<T>, spsc::BoundedAsyncReceiver<T>;
    mpsc::BoundedAsyncSender<T>, mpsc::BoundedAsyncReceiver<T>;
    mpsc::UnboundedAsyncSender<T>, mpsc::UnboundedAsyncReceiver<T>;
    mpmc::AsyncSender<T>, mpmc::AsyncReceiver<T>;
    mpmc::UnboundedAsyncSender<T>, mpmc::UnboundedAsyncReceiver<T>;
}

blocking_sides! {
    spsc::BoundedSyncSender<T>, spsc::BoundedSyncReceiver<T>;
    mpsc::BoundedSyncSender<T>, mpsc::BoundedSyncReceiver<T>;
    mpsc::UnboundedSyncSender<T>, mpsc::UnboundedSyncReceiver<T>;
    mpmc::Sender<T>, mpmc::Receiver<T>;
    mpmc::UnboundedSyncSender<T>, mpmc::UnboundedSyncReceiver<T>;
}

const NAME: &str = "fibre";

/// The peer of the channel that fits the shape and the bound, made by the macro named first.
macro_rules! fitting {
    ($peer:ident, $shape:expr, $bound:expr; $spsc:ident, $bounded:ident, $unbounded:ident) => {
        match ($shape, $bound) {
            (Shape::Seq | Shape::Spsc, Bound::Bounded) => super::$peer!(NAME, $shape, {
                let (sender, receiver) = spsc::$spsc::<T>(CAPACITY);
                pair($shape, sender, receiver)
            }),
            (Shape::Mpsc, Bound::Bounded) => super::$peer!(NAME, $shape, {
                let (sender, receiver) = mpsc::$bounded::<T>(CAPACITY);
                fan_in($shape, sender, receiver)
            }),
            (Shape::Seq | Shape::Spsc | Shape::Mpsc, Bound::Unbounded) => {
                super::$peer!(NAME, $shape, {
                    let (sender, receiver) = mpsc::$unbounded::<T>();
                    fan_in($shape, sender, receiver)
                })
            }
            (Shape::Spmc | Shape::Mpmc, Bound::Bounded) => super::$peer!(NAME, $shape, {
                let (sender, receiver) = mpmc::$bounded::<T>(CAPACITY);
                share($shape, sender, receiver)
            }),
            (Shape::Spmc | Shape::Mpmc, Bound::Unbounded) => super::$peer!(NAME, $shape, {
                let (sender, receiver) = mpmc::$unbounded::<T>();
                share($shape, sender, receiver)
            }),
        }
    };
}

pub(super) fn tasks<T: Payload>(shape: Shape, bound: Bound) -> Option<Peer> {
    fitting!(task_peer, shape, bound; bounded_async, bounded_async, unbounded_async)
}

pub(super) fn task_batches<T: Payload>(shape: Shape, bound: Bound) -> Option<Peer> {
    fitting!(task_batch_peer, shape, bound; bounded_async, bounded_async, unbounded_async)
}

pub(super) fn threads<T: Payload>(shape: Shape, bound: Bound) -> Option<Peer> {
    fitting!(thread_peer, shape, bound; bounded_sync, bounded, unbounded)
}

pub(super) fn thread_batches<T: Payload>(shape: Shape, bound: Bound) -> Option<Peer> {
    fitting!(thread_batch_peer, shape, bound; bounded_sync, bounded, unbounded)
}
