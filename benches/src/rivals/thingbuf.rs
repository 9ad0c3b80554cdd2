//! thingbuf: a ring of recycled slots, and a channel of one receiver on it.

use std::sync::Arc;

use thingbuf::ThingBuf;
use thingbuf::mpsc::{self, blocking};

use crate::pattern::{Bound, CAPACITY, Peer, Shape, fan_in, share};
use crate::payload::Payload;
use crate::rings::{RingReceiver, RingSender};
use crate::tasks::TaskReceiver;
use crate::threads::ThreadReceiver;

awaited!(send mpsc::Sender<T>, send);
blocking!(send blocking::Sender<T>, send);

impl<T: Payload> TaskReceiver<T> for mpsc::Receiver<T> {
    async fn receive(&mut self) -> Option<T> {
        self.recv().await
    }
}

impl<T: Payload> ThreadReceiver<T> for blocking::Receiver<T> {
    fn receive(&mut self) -> Option<T> {
        self.recv()
    }
}

impl<T: Payload> RingSender<T> for Arc<ThingBuf<T>> {
    fn try_push(&mut self, message: T) -> Option<T> {
        self.push(message).err().map(thingbuf::Full::into_inner)
    }
}

impl<T: Payload> RingReceiver<T> for Arc<ThingBuf<T>> {
    fn try_pop(&mut self) -> Option<T> {
        self.pop()
    }
}

const NAME: &str = "thingbuf";

pub(super) fn tasks<T: Payload>(shape: Shape, bound: Bound) -> Option<Peer> {
    if bound == Bound::Unbounded || shape.receivers() > 1 {
        return None;
    }
    super::task_peer!(NAME, shape, {
        let (sender, receiver) = mpsc::channel::<T>(CAPACITY);
        fan_in(shape, sender, receiver)
    })
}

pub(super) fn threads<T: Payload>(shape: Shape, bound: Bound) -> Option<Peer> {
    if bound == Bound::Unbounded || shape.receivers() > 1 {
        return None;
    }
    super::thread_peer!(NAME, shape, {
        let (sender, receiver) = blocking::channel::<T>(CAPACITY);
        fan_in(shape, sender, receiver)
    })
}

pub(super) fn rings<T: Payload>(shape: Shape, bound: Bound) -> Option<Peer> {
    if bound == Bound::Unbounded {
        return None;
    }
    super::ring_peer!(NAME, shape, {
        let ring = Arc::new(ThingBuf::<T>::new(CAPACITY));
        share(shape, Arc::clone(&ring), ring)
    })
}
