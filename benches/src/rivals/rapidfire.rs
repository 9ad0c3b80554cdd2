//! rapidfire: linked blocks with waiter lists, with a receiver of its own kind where there is only one.

use rapidfire::{Receiver, Sender, mpsc};

use crate::pattern::{BATCH, Bound, CAPACITY, Peer, Shape, fan_in, share};
use crate::payload::{Payload, Tally};
use crate::tasks::{TaskBatchReceiver, TaskBatchSender};

awaited!(Sender<T>, send; Receiver<T>, recv);
awaited!(receive mpsc::Receiver<T>, recv);

impl<T: Payload> TaskBatchSender<T> for Sender<T> {
    async fn send_batch(&mut self, batch: &mut Vec<T>) {
        for message in batch.drain(..) {
            assert!(
                <Self>::send(self, message).await.is_ok(),
                "closed under a sender"
            );
        }
    }
}

impl<T: Payload> TaskBatchReceiver<T> for mpsc::Receiver<T> {
    async fn receive_batch(&mut self, batch: &mut Vec<T>, _: &mut Tally) -> usize {
        self.recv_many(batch, BATCH).await.unwrap_or(0)
    }
}

const NAME: &str = "rapidfire";

fn open_one<T>(shape: Shape, bound: Bound) -> (Vec<Sender<T>>, Vec<mpsc::Receiver<T>>) {
    let (sender, receiver) = match bound {
        Bound::Bounded => mpsc::bounded(CAPACITY),
        Bound::Unbounded => mpsc::unbounded(),
    };
    fan_in(shape, sender, receiver)
}

pub(super) fn tasks<T: Payload>(shape: Shape, bound: Bound) -> Option<Peer> {
    if shape.receivers() == 1 {
        return super::task_peer!(NAME, shape, open_one::<T>(shape, bound));
    }
    super::task_peer!(NAME, shape, {
        let (sender, receiver) = match bound {
            Bound::Bounded => rapidfire::bounded::<T>(CAPACITY),
            Bound::Unbounded => rapidfire::unbounded(),
        };
        share(shape, sender, receiver)
    })
}

pub(super) fn task_batches<T: Payload>(shape: Shape, bound: Bound) -> Option<Peer> {
    if shape.receivers() > 1 {
        return None;
    }
    super::task_batch_peer!(NAME, shape, open_one::<T>(shape, bound))
}
