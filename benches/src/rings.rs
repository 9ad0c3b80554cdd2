//! The driver of raw rings, which do not wait: threads try, spin, and yield.

use std::array;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_utils::Backoff;

use crate::pattern::{BATCH, Failure, Outcome, STRETCH, Shape};
use crate::payload::{Payload, Tally};
use crate::threads::{drive, only};
use crate::timing::Stopwatch;

/// A batch on its way into a ring: what does not fit stays in the iterator.
pub type Batch<T> = array::IntoIter<T, BATCH>;

/// The pushing side of a ring.
pub trait RingSender<T>: Send + 'static {
    /// Pushes one message, or gives it back when the ring is full.
    fn try_push(&mut self, message: T) -> Option<T>;
}

/// The popping side of a ring.
pub trait RingReceiver<T>: Send + 'static {
    /// Pops one message, if there is one.
    fn try_pop(&mut self) -> Option<T>;
}

/// The pushing side of a ring that takes batches.
pub trait RingBatchSender<T>: Send + 'static {
    /// Pushes as many as fit and leaves the rest.
    fn try_push_batch(&mut self, batch: &mut Batch<T>);
}

/// The popping side of a ring that gives batches.
pub trait RingBatchReceiver<T>: Send + 'static {
    /// Pops up to [`BATCH`] messages into the tally and says how many.
    fn try_pop_batch(&mut self, tally: &mut Tally) -> usize;
}

/// How many senders still push: with none left, an empty ring stays empty.
///
/// # Ordering
/// A sender's decrement (`Release`) comes after its pushes; the receiver's load (`Acquire`) comes before its last,
/// failing pop.
struct Pushing(AtomicUsize);

impl Pushing {
    fn done(&self) {
        self.0.fetch_sub(1, Ordering::Release);
    }

    fn over(&self) -> bool {
        self.0.load(Ordering::Acquire) == 0
    }
}

fn push<T>(sender: &mut impl RingSender<T>, mut message: T) {
    let backoff = Backoff::new();
    while let Some(back) = sender.try_push(message) {
        message = back;
        backoff.snooze();
    }
}

fn push_batch<T: Payload>(sender: &mut impl RingBatchSender<T>, first: u64) {
    let mut batch: [T; BATCH] = Default::default();
    for (offset, slot) in batch.iter_mut().enumerate() {
        *slot = T::make(first + offset as u64);
    }
    let mut batch = batch.into_iter();
    let backoff = Backoff::new();
    loop {
        sender.try_push_batch(&mut batch);
        if batch.len() == 0 {
            return;
        }
        backoff.snooze();
    }
}

/// Pushes and pops `count` messages, one at a time.
///
/// # Errors
/// When what was popped is not what was pushed, or a thread panicked.
pub fn run<T, S, R>(shape: Shape, handles: (Vec<S>, Vec<R>), count: u64) -> Outcome
where
    T: Payload,
    S: RingSender<T>,
    R: RingReceiver<T>,
{
    if shape == Shape::Seq {
        let (mut sender, mut receiver) = only(handles)?;
        let watch = Stopwatch::start();
        let mut tally = Tally::default();
        let mut next = 0;
        while next < count {
            let end = (next + STRETCH).min(count);
            for number in next..end {
                push(&mut sender, T::make(number));
            }
            while let Some(message) = receiver.try_pop() {
                tally.add(&message);
            }
            next = end;
        }
        let elapsed = watch.elapsed();
        tally.verify(count)?;
        return Ok(elapsed);
    }
    let pushing = Pushing(AtomicUsize::new(handles.0.len()));
    drive(
        handles,
        count,
        |mut sender, numbers| {
            for number in numbers {
                push(&mut sender, T::make(number));
            }
            pushing.done();
        },
        |mut receiver| {
            let mut tally = Tally::default();
            let backoff = Backoff::new();
            loop {
                let over = pushing.over();
                match receiver.try_pop() {
                    Some(message) => {
                        tally.add(&message);
                        backoff.reset();
                    }
                    None if over => return tally,
                    None => backoff.snooze(),
                }
            }
        },
    )
}

/// Pushes and pops `count` messages, in batches.
///
/// # Errors
/// When what was popped is not what was pushed, or a thread panicked, or a sender's part is not whole batches.
pub fn run_batched<T, S, R>(shape: Shape, handles: (Vec<S>, Vec<R>), count: u64) -> Outcome
where
    T: Payload,
    S: RingBatchSender<T>,
    R: RingBatchReceiver<T>,
{
    if !count.is_multiple_of((BATCH * handles.0.len()) as u64) {
        return Err(Failure(format!("{count} messages are not whole batches")));
    }
    if shape == Shape::Seq {
        let (mut sender, mut receiver) = only(handles)?;
        let watch = Stopwatch::start();
        let mut tally = Tally::default();
        let mut next = 0;
        while next < count {
            let end = (next + STRETCH).min(count);
            for first in (next..end).step_by(BATCH) {
                push_batch(&mut sender, first);
            }
            while receiver.try_pop_batch(&mut tally) > 0 {}
            next = end;
        }
        let elapsed = watch.elapsed();
        tally.verify(count)?;
        return Ok(elapsed);
    }
    let pushing = Pushing(AtomicUsize::new(handles.0.len()));
    drive(
        handles,
        count,
        |mut sender, numbers| {
            for first in numbers.step_by(BATCH) {
                push_batch(&mut sender, first);
            }
            pushing.done();
        },
        |mut receiver| {
            let mut tally = Tally::default();
            let backoff = Backoff::new();
            loop {
                let over = pushing.over();
                if receiver.try_pop_batch(&mut tally) > 0 {
                    backoff.reset();
                } else if over {
                    return tally;
                } else {
                    backoff.snooze();
                }
            }
        },
    )
}
