//! concurrent-queue: the rings below async-channel.

use std::sync::Arc;

use concurrent_queue::ConcurrentQueue;

use crate::pattern::{Bound, CAPACITY, Peer, Shape, share};
use crate::payload::Payload;
use crate::rings::{RingReceiver, RingSender};

impl<T: Payload> RingSender<T> for Arc<ConcurrentQueue<T>> {
    fn try_push(&mut self, message: T) -> Option<T> {
        self.push(message)
            .err()
            .map(concurrent_queue::PushError::into_inner)
    }
}

impl<T: Payload> RingReceiver<T> for Arc<ConcurrentQueue<T>> {
    fn try_pop(&mut self) -> Option<T> {
        self.pop().ok()
    }
}

pub(super) fn rings<T: Payload>(shape: Shape, bound: Bound) -> Option<Peer> {
    super::ring_peer!("concurrent-queue", shape, {
        let ring = Arc::new(match bound {
            Bound::Bounded => ConcurrentQueue::<T>::bounded(CAPACITY),
            Bound::Unbounded => ConcurrentQueue::unbounded(),
        });
        share(shape, Arc::clone(&ring), ring)
    })
}
