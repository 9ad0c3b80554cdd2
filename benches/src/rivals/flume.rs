//! flume: a mutex around a deque, with waiters that take their message from the sender's hand.

use flume::{Receiver, Sender};

use crate::pattern::{Bound, CAPACITY, Peer, Shape, share};
use crate::payload::{Payload, Tally};
use crate::tasks::{TaskBatchReceiver, TaskBatchSender};
use crate::threads::{ThreadBatchReceiver, ThreadBatchSender};

awaited!(Sender<T>, send_async; Receiver<T>, recv_async);
blocking!(Sender<T>, send; Receiver<T>, recv);

impl<T: Payload> TaskBatchSender<T> for Sender<T> {
    async fn send_batch(&mut self, batch: &mut Vec<T>) {
        for message in batch.drain(..) {
            assert!(
                self.send_async(message).await.is_ok(),
                "closed under a sender"
            );
        }
    }
}

impl<T: Payload> TaskBatchReceiver<T> for Receiver<T> {
    async fn receive_batch(&mut self, batch: &mut Vec<T>, _: &mut Tally) -> usize {
        let Ok(first) = self.recv_async().await else {
            return 0;
        };
        batch.push(first);
        batch.extend(self.drain());
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
        batch.extend(self.drain());
        batch.len()
    }
}

fn open<T>(shape: Shape, bound: Bound) -> (Vec<Sender<T>>, Vec<Receiver<T>>) {
    let (sender, receiver) = match bound {
        Bound::Bounded => flume::bounded(CAPACITY),
        Bound::Unbounded => flume::unbounded(),
    };
    share(shape, sender, receiver)
}

pub(super) fn tasks<T: Payload>(shape: Shape, bound: Bound) -> Option<Peer> {
    super::task_peer!("flume", shape, open::<T>(shape, bound))
}

pub(super) fn task_batches<T: Payload>(shape: Shape, bound: Bound) -> Option<Peer> {
    super::task_batch_peer!("flume", shape, open::<T>(shape, bound))
}

pub(super) fn threads<T: Payload>(shape: Shape, bound: Bound) -> Option<Peer> {
    super::thread_peer!("flume", shape, open::<T>(shape, bound))
}

pub(super) fn thread_batches<T: Payload>(shape: Shape, bound: Bound) -> Option<Peer> {
    super::thread_batch_peer!("flume", shape, open::<T>(shape, bound))
}
