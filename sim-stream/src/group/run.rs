//! A worker that is driven: each batch goes to a handler, and is checkpointed when that is done.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};

use sim_core::seam::Handler;
use sim_core::time::Instant;

use super::batch::{Batch, BatchKind, Busy, Checkpointer};
use super::error::{NextError, RunError};
use super::worker::{Waiting, Worker};
use crate::error::CheckpointError;
use crate::machine::leases::Mark;
use crate::message::SequenceNumber;

impl<T: Send + Sync + 'static> Worker<T> {
    /// Gives every batch to a handler, and checkpoints it when the handler has succeeded.
    ///
    /// The handler runs for one batch of each shard held at a time, for all of them side by side, in this future: nothing is
    /// spawned. The shard goes on when its future is done, whenever the batch was dropped. Leases are renewed meanwhile. A handler whose lease was lost meanwhile runs to its end, and its
    /// checkpoint is dropped: another worker goes on from the last one.
    ///
    /// Returns when the stream is closed and processed to its end, and after all handlers.
    ///
    /// # Errors
    /// [`RunError`]: the handler failed, or records were lost to retention. What other handlers were at work on is given
    /// again too. The worker is as good as before and may run again.
    ///
    /// # Cancel safety
    /// The futures of the handler are dropped with this one; their records are given again, from the last checkpoint
    /// on.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::convert::Infallible;
    /// use sim_stream::{Batch, ConsumerGroup, GroupConfig, PartitionKey, Record, Stream, StreamConfig};
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
    /// let stream = Stream::new(StreamConfig::new("departures"))?;
    /// stream.try_put(Record::new(PartitionKey::new("AA")?, "flight 1"))?;
    /// stream.close();
    ///
    /// let group = ConsumerGroup::new(&stream, GroupConfig::new("board"))?;
    /// let mut worker = group.join()?;
    /// worker
    ///     .run(&|batch: Batch<&'static str>| async move {
    ///         for record in &batch {
    ///             println!("{}: {}", record.partition_key(), record.value());
    ///         }
    ///         Ok::<(), Infallible>(())
    ///     })
    ///     .await?;
    /// assert!(group.leases().iter().all(|lease| lease.is_finished()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn run<H, E>(&mut self, handler: &H) -> Result<(), RunError<E>>
    where
        H: Handler<Batch<T>, Result<(), E>> + ?Sized,
    {
        let mut running = Running {
            flights: Vec::new(),
            is_over: false,
        };
        let mut waiting = Waiting::new(self);
        poll_fn(|cx| running.poll(cx, &mut waiting, handler)).await
    }
}

/// The handlers at work; at most one for each shard held.
struct Running<'h, T: Send + Sync + 'static, E> {
    flights: Vec<Flight<'h, T, E>>,
    is_over: bool,
}

/// A batch that a handler is at work on. Dropped before the handler has succeeded, its records are given again.
struct Flight<'h, T: Send + Sync + 'static, E> {
    checkpointer: Checkpointer<T>,
    last: SequenceNumber,
    is_done: bool,
    /// Held until the checkpoint is made, however long the handler keeps the batch.
    _busy: Option<Busy<T>>,
    work: Pin<Box<dyn Future<Output = Result<(), E>> + Send + 'h>>,
}

impl<'h, T: Send + Sync + 'static, E> Running<'h, T, E> {
    fn poll<H>(
        &mut self,
        cx: &mut Context<'_>,
        waiting: &mut Waiting<'_, T>,
        handler: &'h H,
    ) -> Poll<Result<(), RunError<E>>>
    where
        H: Handler<Batch<T>, Result<(), E>> + ?Sized,
    {
        loop {
            if let Err(error) = self.poll_flights(cx) {
                return Poll::Ready(Err(error));
            }
            if self.is_over {
                return if self.flights.is_empty() {
                    Poll::Ready(Ok(()))
                } else {
                    Poll::Pending
                };
            }
            match waiting.poll(cx, Instant::NEVER) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(batch)) => self.start(batch, handler),
                Poll::Ready(Err(NextError::Trimmed {
                    shard_id,
                    lost,
                    resume_at,
                })) => {
                    return Poll::Ready(Err(RunError::Trimmed {
                        shard_id,
                        lost,
                        resume_at,
                    }));
                }
                Poll::Ready(Err(NextError::Expired {
                    shards,
                    records,
                    unseen,
                })) => {
                    return Poll::Ready(Err(RunError::Expired {
                        shards,
                        records,
                        unseen,
                    }));
                }
                Poll::Ready(Err(NextError::Closed)) => self.is_over = true,
                // There is no deadline, and it waits rather than to find nothing.
                Poll::Ready(Err(NextError::Empty | NextError::Elapsed)) => {}
            }
        }
    }

    fn start<H>(&mut self, mut batch: Batch<T>, handler: &'h H)
    where
        H: Handler<Batch<T>, Result<(), E>> + ?Sized,
    {
        let last = batch.records.last_sequence_number();
        let (BatchKind::Records, Some(last)) = (batch.kind, last) else {
            // Something was given before this run and not checkpointed: it is given again, here or elsewhere.
            return;
        };
        self.flights.push(Flight {
            checkpointer: batch.checkpointer(),
            last,
            is_done: false,
            _busy: batch.busy.take(),
            work: handler.handle(batch),
        });
    }

    /// Polls each handler once, in the order of their beginnings.
    fn poll_flights(&mut self, cx: &mut Context<'_>) -> Result<(), RunError<E>> {
        let mut failed = Ok(());
        self.flights.retain_mut(|flight| {
            if failed.is_err() {
                return true;
            }
            match flight.work.as_mut().poll(cx) {
                Poll::Pending => true,
                Poll::Ready(outcome) => {
                    failed = flight.settle(outcome);
                    false
                }
            }
        });
        failed
    }
}

impl<T: Send + Sync + 'static, E> Flight<'_, T, E> {
    fn settle(&mut self, outcome: Result<(), E>) -> Result<(), RunError<E>> {
        if let Err(error) = outcome {
            return Err(RunError::Handler {
                shard_id: self.checkpointer.shard_id(),
                error,
            });
        }
        self.is_done = true;
        match self.checkpointer.mark(Mark::Record(self.last)) {
            // Lost: another worker goes on from the last checkpoint. Backwards: the handler has checkpointed more.
            Ok(()) | Err(CheckpointError::LeaseLost { .. } | CheckpointError::Backwards { .. }) => {
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }
}

impl<T: Send + Sync + 'static, E> Drop for Flight<'_, T, E> {
    fn drop(&mut self) {
        if !self.is_done {
            self.checkpointer.rewind();
        }
    }
}
