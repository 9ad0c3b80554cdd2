//! A deque behind a mutex: what every ring has to beat.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::pattern::{BATCH, Bound, CAPACITY, Peer, Shape, share};
use crate::payload::{Payload, Tally};
use crate::rings::{Batch, RingBatchReceiver, RingBatchSender, RingReceiver, RingSender};

struct Deque<T> {
    limit: usize,
    messages: Mutex<VecDeque<T>>,
}

type Handle<T> = Arc<Deque<T>>;

impl<T: Payload> RingSender<T> for Handle<T> {
    fn try_push(&mut self, message: T) -> Option<T> {
        let mut messages = self.messages.lock();
        if messages.len() >= self.limit {
            return Some(message);
        }
        messages.push_back(message);
        None
    }
}

impl<T: Payload> RingReceiver<T> for Handle<T> {
    fn try_pop(&mut self) -> Option<T> {
        self.messages.lock().pop_front()
    }
}

impl<T: Payload> RingBatchSender<T> for Handle<T> {
    fn try_push_batch(&mut self, batch: &mut Batch<T>) {
        let mut messages = self.messages.lock();
        let room = self.limit - messages.len();
        messages.extend(batch.by_ref().take(room));
    }
}

impl<T: Payload> RingBatchReceiver<T> for Handle<T> {
    fn try_pop_batch(&mut self, tally: &mut Tally) -> usize {
        let mut messages = self.messages.lock();
        let ready = messages.len().min(BATCH);
        messages
            .drain(..ready)
            .for_each(|message| tally.add(&message));
        ready
    }
}

fn open<T>(shape: Shape, bound: Bound) -> (Vec<Handle<T>>, Vec<Handle<T>>) {
    let limit = match bound {
        Bound::Bounded => CAPACITY,
        Bound::Unbounded => usize::MAX,
    };
    let ring = Arc::new(Deque {
        limit,
        messages: Mutex::new(VecDeque::new()),
    });
    share(shape, Arc::clone(&ring), ring)
}

pub(super) fn rings<T: Payload>(shape: Shape, bound: Bound) -> Option<Peer> {
    super::ring_peer!("mutex-vecdeque", shape, open::<T>(shape, bound))
}

pub(super) fn ring_batches<T: Payload>(shape: Shape, bound: Bound) -> Option<Peer> {
    super::ring_batch_peer!("mutex-vecdeque", shape, open::<T>(shape, bound))
}
