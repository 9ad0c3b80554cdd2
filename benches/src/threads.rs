//! The driver of channels between threads, which block.

use std::sync::Barrier;
use std::thread::{self, ScopedJoinHandle};

use crate::pattern::{BATCH, Failure, Outcome, STRETCH, Shape};
use crate::payload::{Payload, Tally, part};
use crate::timing::Stopwatch;

/// The sending side of a channel, blocking.
pub trait ThreadSender<T>: Send + 'static {
    /// Sends one message, waiting for room.
    fn send(&mut self, message: T);
}

/// The receiving side of a channel, blocking.
pub trait ThreadReceiver<T>: Send + 'static {
    /// Receives one message for good (acknowledged, where the peer does that); nothing when all senders are gone.
    fn receive(&mut self) -> Option<T>;
}

/// The sending side of a channel that takes batches.
pub trait ThreadBatchSender<T>: Send + 'static {
    /// Sends the whole batch, waiting for room, and leaves the vector empty.
    fn send_batch(&mut self, batch: &mut Vec<T>);
}

/// The receiving side of a channel that gives batches.
pub trait ThreadBatchReceiver<T>: Send + 'static {
    /// Receives at least one message, or none when all senders are gone. What stands in `batch` afterwards is
    /// counted by the driver; a peer that lends its messages counts them itself.
    fn receive_batch(&mut self, batch: &mut Vec<T>, tally: &mut Tally) -> usize;
}

fn join<R>(handle: ScopedJoinHandle<'_, R>) -> Result<R, Failure> {
    handle
        .join()
        .map_err(|_| Failure("a thread of the run panicked".to_owned()))
}

/// Starts the threads, lets them go together, and counts.
///
/// # Errors
/// When what was received is not what was sent, or a thread panicked.
pub(crate) fn drive<S: Send, R: Send>(
    (senders, receivers): (Vec<S>, Vec<R>),
    count: u64,
    write: impl Fn(S, std::ops::Range<u64>) + Sync,
    read: impl Fn(R) -> Tally + Sync,
) -> Outcome {
    let width = senders.len();
    let barrier = Barrier::new(width + receivers.len() + 1);
    thread::scope(|scope| {
        let (write, read, barrier) = (&write, &read, &barrier);
        let readers: Vec<_> = receivers
            .into_iter()
            .map(|receiver| {
                scope.spawn(move || {
                    barrier.wait();
                    read(receiver)
                })
            })
            .collect();
        let writers: Vec<_> = senders
            .into_iter()
            .enumerate()
            .map(|(index, sender)| {
                scope.spawn(move || {
                    barrier.wait();
                    write(sender, part(count, width, index));
                })
            })
            .collect();
        let watch = Stopwatch::start();
        barrier.wait();
        let mut total = Tally::default();
        for writer in writers {
            join(writer)?;
        }
        for reader in readers {
            total.merge(join(reader)?);
        }
        let elapsed = watch.elapsed();
        total.verify(count)?;
        Ok(elapsed)
    })
}

/// Takes the one sender and the one receiver of a sequential run.
pub(crate) fn only<S, R>((senders, receivers): (Vec<S>, Vec<R>)) -> Result<(S, R), Failure> {
    match (senders.into_iter().next(), receivers.into_iter().next()) {
        (Some(sender), Some(receiver)) => Ok((sender, receiver)),
        _ => Err(Failure("a side without handles".to_owned())),
    }
}

/// Sends `count` messages through the handles, one at a time.
///
/// # Errors
/// When what was received is not what was sent, or a thread panicked.
pub fn run<T, S, R>(shape: Shape, handles: (Vec<S>, Vec<R>), count: u64) -> Outcome
where
    T: Payload,
    S: ThreadSender<T>,
    R: ThreadReceiver<T>,
{
    if shape == Shape::Seq {
        let (mut sender, mut receiver) = only(handles)?;
        let watch = Stopwatch::start();
        let mut tally = Tally::default();
        let mut next = 0;
        while next < count {
            let end = (next + STRETCH).min(count);
            for number in next..end {
                sender.send(T::make(number));
            }
            for _ in next..end {
                if let Some(message) = receiver.receive() {
                    tally.add(&message);
                }
            }
            next = end;
        }
        let elapsed = watch.elapsed();
        tally.verify(count)?;
        return Ok(elapsed);
    }
    drive(
        handles,
        count,
        |mut sender, numbers| {
            for number in numbers {
                sender.send(T::make(number));
            }
        },
        |mut receiver| {
            let mut tally = Tally::default();
            while let Some(message) = receiver.receive() {
                tally.add(&message);
            }
            tally
        },
    )
}

/// Sends `count` messages through the handles, in batches.
///
/// # Errors
/// When what was received is not what was sent, or a thread panicked.
pub fn run_batched<T, S, R>(shape: Shape, handles: (Vec<S>, Vec<R>), count: u64) -> Outcome
where
    T: Payload,
    S: ThreadBatchSender<T>,
    R: ThreadBatchReceiver<T>,
{
    fn send_range<T: Payload>(
        sender: &mut impl ThreadBatchSender<T>,
        batch: &mut Vec<T>,
        mut numbers: std::ops::Range<u64>,
    ) {
        while !numbers.is_empty() {
            batch.extend(numbers.by_ref().take(BATCH).map(T::make));
            sender.send_batch(batch);
        }
    }
    fn count_batch<T: Payload>(batch: &mut Vec<T>, tally: &mut Tally) {
        for message in batch.drain(..) {
            tally.add(&message);
        }
    }
    if shape == Shape::Seq {
        let (mut sender, mut receiver) = only(handles)?;
        let watch = Stopwatch::start();
        let mut tally = Tally::default();
        let mut batch = Vec::with_capacity(BATCH);
        let mut next = 0;
        while next < count {
            let end = (next + STRETCH).min(count);
            send_range(&mut sender, &mut batch, next..end);
            let mut left = end - next;
            while left > 0 {
                let received = receiver.receive_batch(&mut batch, &mut tally) as u64;
                count_batch(&mut batch, &mut tally);
                if received == 0 || received > left {
                    return Err(Failure(format!("received {received} where {left} stood")));
                }
                left -= received;
            }
            next = end;
        }
        let elapsed = watch.elapsed();
        tally.verify(count)?;
        return Ok(elapsed);
    }
    drive(
        handles,
        count,
        |mut sender, numbers| send_range(&mut sender, &mut Vec::with_capacity(BATCH), numbers),
        |mut receiver| {
            let mut tally = Tally::default();
            let mut batch = Vec::with_capacity(BATCH);
            while receiver.receive_batch(&mut batch, &mut tally) > 0 {
                count_batch(&mut batch, &mut tally);
            }
            tally
        },
    )
}
