//! The driver of channels between tasks, on a tokio runtime of two workers.

use std::future::Future;
use std::sync::OnceLock;

use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::pattern::{BATCH, Failure, Outcome, STRETCH, Shape};
use crate::payload::{Payload, Tally, part};
use crate::timing::Stopwatch;

/// The sending side of a channel, awaited.
pub trait TaskSender<T>: Send + 'static {
    /// Sends one message, waiting for room.
    fn send(&mut self, message: T) -> impl Future<Output = ()> + Send;
}

/// The receiving side of a channel, awaited.
pub trait TaskReceiver<T>: Send + 'static {
    /// Receives one message for good (acknowledged, where the peer does that); nothing when all senders are gone.
    fn receive(&mut self) -> impl Future<Output = Option<T>> + Send;
}

/// The sending side of a channel that takes batches.
pub trait TaskBatchSender<T>: Send + 'static {
    /// Sends the whole batch, waiting for room, and leaves the vector empty.
    fn send_batch(&mut self, batch: &mut Vec<T>) -> impl Future<Output = ()> + Send;
}

/// The receiving side of a channel that gives batches.
pub trait TaskBatchReceiver<T>: Send + 'static {
    /// Receives at least one message, or none when all senders are gone. What stands in `batch` afterwards is
    /// counted by the driver; a peer that lends its messages counts them itself.
    fn receive_batch(
        &mut self,
        batch: &mut Vec<T>,
        tally: &mut Tally,
    ) -> impl Future<Output = usize> + Send;
}

/// The runtime of all runs.
pub(crate) fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_time()
            .build()
            .expect("a runtime of two workers starts")
    })
}

pub(crate) async fn join<R>(handle: JoinHandle<R>) -> Result<R, Failure> {
    handle
        .await
        .map_err(|error| Failure(format!("a task of the run failed: {error}")))
}

/// Sends `count` messages through the handles, one at a time.
///
/// # Errors
/// When what was received is not what was sent, or a task panicked.
pub fn run<T, S, R>(
    shape: Shape,
    (mut senders, mut receivers): (Vec<S>, Vec<R>),
    count: u64,
) -> Outcome
where
    T: Payload,
    S: TaskSender<T>,
    R: TaskReceiver<T>,
{
    runtime().block_on(async move {
        let watch = Stopwatch::start();
        let mut total = Tally::default();
        if shape == Shape::Seq {
            let (Some(mut sender), Some(mut receiver)) = (senders.pop(), receivers.pop()) else {
                return Err(Failure("a side without handles".to_owned()));
            };
            let task = tokio::spawn(async move {
                let mut tally = Tally::default();
                let mut next = 0;
                while next < count {
                    let end = (next + STRETCH).min(count);
                    for number in next..end {
                        sender.send(T::make(number)).await;
                    }
                    for _ in next..end {
                        if let Some(message) = receiver.receive().await {
                            tally.add(&message);
                        }
                    }
                    next = end;
                }
                tally
            });
            total = join(task).await?;
        } else {
            let readers: Vec<_> = receivers
                .into_iter()
                .map(|mut receiver| {
                    tokio::spawn(async move {
                        let mut tally = Tally::default();
                        while let Some(message) = receiver.receive().await {
                            tally.add(&message);
                        }
                        tally
                    })
                })
                .collect();
            let width = senders.len();
            let writers: Vec<_> = senders
                .into_iter()
                .enumerate()
                .map(|(index, mut sender)| {
                    tokio::spawn(async move {
                        for number in part(count, width, index) {
                            sender.send(T::make(number)).await;
                        }
                    })
                })
                .collect();
            for writer in writers {
                join(writer).await?;
            }
            for reader in readers {
                total.merge(join(reader).await?);
            }
        }
        let elapsed = watch.elapsed();
        total.verify(count)?;
        Ok(elapsed)
    })
}

/// Sends `count` messages through the handles, in batches.
///
/// # Errors
/// When what was received is not what was sent, or a task panicked.
pub fn run_batched<T, S, R>(
    shape: Shape,
    (mut senders, mut receivers): (Vec<S>, Vec<R>),
    count: u64,
) -> Outcome
where
    T: Payload,
    S: TaskBatchSender<T>,
    R: TaskBatchReceiver<T>,
{
    runtime().block_on(async move {
        let watch = Stopwatch::start();
        let mut total = Tally::default();
        if shape == Shape::Seq {
            let (Some(mut sender), Some(mut receiver)) = (senders.pop(), receivers.pop()) else {
                return Err(Failure("a side without handles".to_owned()));
            };
            let task = tokio::spawn(async move {
                let mut tally = Tally::default();
                let mut batch = Vec::with_capacity(BATCH);
                let mut next = 0;
                while next < count {
                    let end = (next + STRETCH).min(count);
                    send_range(&mut sender, &mut batch, next..end).await;
                    let mut left = end - next;
                    while left > 0 {
                        let received = receiver.receive_batch(&mut batch, &mut tally).await as u64;
                        count_batch(&mut batch, &mut tally);
                        if received == 0 || received > left {
                            return tally;
                        }
                        left -= received;
                    }
                    next = end;
                }
                tally
            });
            total = join(task).await?;
        } else {
            let readers: Vec<_> = receivers
                .into_iter()
                .map(|mut receiver| {
                    tokio::spawn(async move {
                        let mut tally = Tally::default();
                        let mut batch = Vec::with_capacity(BATCH);
                        while receiver.receive_batch(&mut batch, &mut tally).await > 0 {
                            count_batch(&mut batch, &mut tally);
                        }
                        tally
                    })
                })
                .collect();
            let width = senders.len();
            let writers: Vec<_> = senders
                .into_iter()
                .enumerate()
                .map(|(index, mut sender)| {
                    tokio::spawn(async move {
                        let mut batch = Vec::with_capacity(BATCH);
                        send_range(&mut sender, &mut batch, part(count, width, index)).await;
                    })
                })
                .collect();
            for writer in writers {
                join(writer).await?;
            }
            for reader in readers {
                total.merge(join(reader).await?);
            }
        }
        let elapsed = watch.elapsed();
        total.verify(count)?;
        Ok(elapsed)
    })
}

async fn send_range<T: Payload, S: TaskBatchSender<T>>(
    sender: &mut S,
    batch: &mut Vec<T>,
    range: std::ops::Range<u64>,
) {
    let mut numbers = range;
    while !numbers.is_empty() {
        batch.extend(numbers.by_ref().take(BATCH).map(T::make));
        sender.send_batch(batch).await;
    }
}

fn count_batch<T: Payload>(batch: &mut Vec<T>, tally: &mut Tally) {
    for message in batch.drain(..) {
        tally.add(&message);
    }
}
