//! kanal: a spinning mutex around a deque, with messages passed to a waiter's stack directly.

use kanal::{AsyncReceiver, AsyncSender, Receiver, Sender};

use crate::pattern::{Bound, CAPACITY, Peer, Shape, share};
use crate::payload::{Payload, Tally};
use crate::tasks::{TaskBatchReceiver, TaskBatchSender};
use crate::threads::{ThreadBatchReceiver, ThreadBatchSender};

awaited!(AsyncSender<T>, send; AsyncReceiver<T>, recv);
blocking!(Sender<T>, send; Receiver<T>, recv);

impl<T: Payload> TaskBatchSender<T> for AsyncSender<T> {
    async fn send_batch(&mut self, batch: &mut Vec<T>) {
        for message in batch.drain(..) {
            assert!(
                <Self>::send(self, message).await.is_ok(),
                "closed under a sender"
            );
        }
    }
}

impl<T: Payload> TaskBatchReceiver<T> for AsyncReceiver<T> {
    async fn receive_batch(&mut self, batch: &mut Vec<T>, _: &mut Tally) -> usize {
        let Ok(first) = <Self>::recv(self).await else {
            return 0;
        };
        batch.push(first);
        // An error here is the end of the channel, which the next call reports.
        let _ = self.drain_into(batch);
        batch.len()
    }
}

impl<T: Payload> ThreadBatchSender<T> for Sender<T> {
    fn send_batch(&mut self, batch: &mut Vec<T>) {
        for message in batch.drain(..) {
            assert!(<Self>::send(self, message).is_ok(), "closed under a sender");
        }
    }
}

impl<T: Payload> ThreadBatchReceiver<T> for Receiver<T> {
    fn receive_batch(&mut self, batch: &mut Vec<T>, _: &mut Tally) -> usize {
        let Ok(first) = <Self>::recv(self) else {
            return 0;
        };
        batch.push(first);
        // An error here is the end of the channel, which the next call reports.
        let _ = self.drain_into(batch);
        batch.len()
    }
}

fn open<T>(shape: Shape, bound: Bound) -> (Vec<AsyncSender<T>>, Vec<AsyncReceiver<T>>) {
    let (sender, receiver) = match bound {
        Bound::Bounded => kanal::bounded_async(CAPACITY),
        Bound::Unbounded => kanal::unbounded_async(),
    };
    share(shape, sender, receiver)
}

fn open_blocking<T>(shape: Shape, bound: Bound) -> (Vec<Sender<T>>, Vec<Receiver<T>>) {
    let (sender, receiver) = match bound {
        Bound::Bounded => kanal::bounded(CAPACITY),
        Bound::Unbounded => kanal::unbounded(),
    };
    share(shape, sender, receiver)
}

pub(super) fn tasks<T: Payload>(shape: Shape, bound: Bound) -> Option<Peer> {
    super::task_peer!("kanal", shape, open::<T>(shape, bound))
}

pub(super) fn task_batches<T: Payload>(shape: Shape, bound: Bound) -> Option<Peer> {
    super::task_batch_peer!("kanal", shape, open::<T>(shape, bound))
}

pub(super) fn threads<T: Payload>(shape: Shape, bound: Bound) -> Option<Peer> {
    super::thread_peer!("kanal", shape, open_blocking::<T>(shape, bound))
}

pub(super) fn thread_batches<T: Payload>(shape: Shape, bound: Bound) -> Option<Peer> {
    super::thread_batch_peer!("kanal", shape, open_blocking::<T>(shape, bound))
}
