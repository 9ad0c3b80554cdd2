//! rtrb: a wait-free ring of one producer and one consumer.

use rtrb::{Consumer, Producer, RingBuffer};

use crate::pattern::{BATCH, Bound, CAPACITY, Peer, Shape, pair};
use crate::payload::{Payload, Tally};
use crate::rings::{Batch, RingBatchReceiver, RingBatchSender, RingReceiver, RingSender};

impl<T: Payload> RingSender<T> for Producer<T> {
    fn try_push(&mut self, message: T) -> Option<T> {
        self.push(message)
            .err()
            .map(|rtrb::PushError::Full(message)| message)
    }
}

impl<T: Payload> RingReceiver<T> for Consumer<T> {
    fn try_pop(&mut self) -> Option<T> {
        self.pop().ok()
    }
}

impl<T: Payload> RingBatchSender<T> for Producer<T> {
    fn try_push_batch(&mut self, batch: &mut Batch<T>) {
        // The whole batch or, near the bound, what fits.
        let fitting = match self.write_chunk_uninit(batch.len()) {
            Ok(chunk) => {
                chunk.fill_from_iter(batch);
                return;
            }
            Err(rtrb::chunks::ChunkError::TooFewSlots(fitting)) => fitting,
        };
        if let Ok(chunk) = self.write_chunk_uninit(fitting) {
            chunk.fill_from_iter(batch);
        }
    }
}

impl<T: Payload> RingBatchReceiver<T> for Consumer<T> {
    fn try_pop_batch(&mut self, tally: &mut Tally) -> usize {
        let ready = match self.read_chunk(BATCH) {
            Ok(chunk) => {
                chunk.into_iter().for_each(|message| tally.add(&message));
                return BATCH;
            }
            Err(rtrb::chunks::ChunkError::TooFewSlots(ready)) => ready,
        };
        if let Ok(chunk) = self.read_chunk(ready) {
            chunk.into_iter().for_each(|message| tally.add(&message));
        }
        ready
    }
}

fn open<T>(shape: Shape) -> (Vec<Producer<T>>, Vec<Consumer<T>>) {
    let (sender, receiver) = RingBuffer::new(CAPACITY);
    pair(shape, sender, receiver)
}

fn has(shape: Shape, bound: Bound) -> bool {
    bound == Bound::Bounded && shape.senders() + shape.receivers() == 2
}

pub(super) fn rings<T: Payload>(shape: Shape, bound: Bound) -> Option<Peer> {
    if !has(shape, bound) {
        return None;
    }
    super::ring_peer!("rtrb", shape, open::<T>(shape))
}

pub(super) fn ring_batches<T: Payload>(shape: Shape, bound: Bound) -> Option<Peer> {
    if !has(shape, bound) {
        return None;
    }
    super::ring_batch_peer!("rtrb", shape, open::<T>(shape))
}
