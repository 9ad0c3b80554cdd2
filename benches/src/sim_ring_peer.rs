//! The peers made of sim-core's rings.

use std::sync::Arc;

use sim_core::ring::{Bounded, Unbounded};

use crate::pattern::{BATCH, Bound, CAPACITY, Peer, Shape, share};
use crate::payload::{Payload, Tally};
use crate::rings::{Batch, RingBatchReceiver, RingBatchSender, RingReceiver, RingSender};
use crate::rivals::{ring_batch_peer, ring_peer};

impl<T: Payload> RingSender<T> for Arc<Bounded<T>> {
    fn try_push(&mut self, message: T) -> Option<T> {
        self.push(message).err()
    }
}

impl<T: Payload> RingSender<T> for Arc<Unbounded<T>> {
    fn try_push(&mut self, message: T) -> Option<T> {
        self.push(message).err()
    }
}

macro_rules! same_in_both {
    ($($ring:ident),*) => {$(
        impl<T: Payload> RingReceiver<T> for Arc<$ring<T>> {
            fn try_pop(&mut self) -> Option<T> {
                self.pop()
            }
        }

        impl<T: Payload> RingBatchSender<T> for Arc<$ring<T>> {
            fn try_push_batch(&mut self, batch: &mut Batch<T>) {
                self.push_batch(batch);
            }
        }

        impl<T: Payload> RingBatchReceiver<T> for Arc<$ring<T>> {
            fn try_pop_batch(&mut self, tally: &mut Tally) -> usize {
                self.pop_batch(BATCH, |entry| tally.add(&entry.value))
            }
        }
    )*};
}

same_in_both!(Bounded, Unbounded);

const NAME: &str = "sim-ring";

/// The same ring for every sender and every receiver.
type Handles<R> = (Vec<Arc<R>>, Vec<Arc<R>>);

fn bounded<T>(shape: Shape) -> Handles<Bounded<T>> {
    let ring = Arc::new(Bounded::with_capacity(CAPACITY));
    share(shape, Arc::clone(&ring), ring)
}

fn unbounded<T>(shape: Shape) -> Handles<Unbounded<T>> {
    let ring = Arc::new(Unbounded::new());
    share(shape, Arc::clone(&ring), ring)
}

/// The ring of the bound, one message at a time.
#[must_use]
pub fn rings<T: Payload>(shape: Shape, bound: Bound) -> Option<Peer> {
    match bound {
        Bound::Bounded => ring_peer!(NAME, shape, bounded::<T>(shape)),
        Bound::Unbounded => ring_peer!(NAME, shape, unbounded::<T>(shape)),
    }
}

/// The ring of the bound, a batch at a time.
#[must_use]
pub fn ring_batches<T: Payload>(shape: Shape, bound: Bound) -> Option<Peer> {
    match bound {
        Bound::Bounded => ring_batch_peer!(NAME, shape, bounded::<T>(shape)),
        Bound::Unbounded => ring_batch_peer!(NAME, shape, unbounded::<T>(shape)),
    }
}
