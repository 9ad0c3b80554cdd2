//! nexus-queue: rings with cached indices and turn counters, one module for each shape.

use nexus_queue::{mpsc, spmc, spsc};

use crate::pattern::{Bound, CAPACITY, Peer, Shape, fan_in, pair};
use crate::payload::Payload;
use crate::rings::{RingReceiver, RingSender};

macro_rules! sides {
    ($($module:ident),*) => {$(
        impl<T: Payload> RingSender<T> for $module::Producer<T> {
            fn try_push(&mut self, message: T) -> Option<T> {
                self.push(message).err().map(nexus_queue::Full::into_inner)
            }
        }

        impl<T: Payload> RingReceiver<T> for $module::Consumer<T> {
            fn try_pop(&mut self) -> Option<T> {
                self.pop()
            }
        }
    )*};
}

sides!(spsc, mpsc, spmc);

const NAME: &str = "nexus-queue";

pub(super) fn rings<T: Payload>(shape: Shape, bound: Bound) -> Option<Peer> {
    if bound == Bound::Unbounded {
        return None;
    }
    match shape {
        Shape::Seq | Shape::Spsc => super::ring_peer!(NAME, shape, {
            let (sender, receiver) = spsc::ring_buffer::<T>(CAPACITY);
            pair(shape, sender, receiver)
        }),
        Shape::Mpsc => super::ring_peer!(NAME, shape, {
            let (sender, receiver) = mpsc::ring_buffer::<T>(CAPACITY);
            fan_in(shape, sender, receiver)
        }),
        Shape::Spmc => super::ring_peer!(NAME, shape, {
            let (sender, receiver) = spmc::ring_buffer::<T>(CAPACITY);
            (vec![sender], vec![receiver; shape.receivers()])
        }),
        Shape::Mpmc => None,
    }
}
