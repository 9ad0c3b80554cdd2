//! crossbeam: its channel for threads, and its two queues.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};
use crossbeam_queue::{ArrayQueue, SegQueue};

use crate::pattern::{Bound, CAPACITY, Peer, Shape, share};
use crate::payload::Payload;
use crate::rings::{RingReceiver, RingSender};

blocking!(Sender<T>, send; Receiver<T>, recv);

impl<T: Payload> RingSender<T> for Arc<ArrayQueue<T>> {
    fn try_push(&mut self, message: T) -> Option<T> {
        self.push(message).err()
    }
}

impl<T: Payload> RingReceiver<T> for Arc<ArrayQueue<T>> {
    fn try_pop(&mut self) -> Option<T> {
        self.pop()
    }
}

impl<T: Payload> RingSender<T> for Arc<SegQueue<T>> {
    fn try_push(&mut self, message: T) -> Option<T> {
        self.push(message);
        None
    }
}

impl<T: Payload> RingReceiver<T> for Arc<SegQueue<T>> {
    fn try_pop(&mut self) -> Option<T> {
        self.pop()
    }
}

pub(super) fn threads<T: Payload>(shape: Shape, bound: Bound) -> Option<Peer> {
    super::thread_peer!("crossbeam-channel", shape, {
        let (sender, receiver) = match bound {
            Bound::Bounded => crossbeam_channel::bounded::<T>(CAPACITY),
            Bound::Unbounded => crossbeam_channel::unbounded(),
        };
        share(shape, sender, receiver)
    })
}

pub(super) fn rings<T: Payload>(shape: Shape, bound: Bound) -> Option<Peer> {
    match bound {
        Bound::Bounded => super::ring_peer!("crossbeam-array-queue", shape, {
            let ring = Arc::new(ArrayQueue::<T>::new(CAPACITY));
            share(shape, Arc::clone(&ring), ring)
        }),
        Bound::Unbounded => super::ring_peer!("crossbeam-seg-queue", shape, {
            let ring = Arc::new(SegQueue::<T>::new());
            share(shape, Arc::clone(&ring), ring)
        }),
    }
}
