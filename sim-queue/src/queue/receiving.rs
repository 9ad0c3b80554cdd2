//! The handle's receiving side: one, many, waiting or not.
//!
//! # Ordering
//! `next_due` is read `SeqCst` before sleeping: see the engines.

use std::time::Duration;

use sim_core::time::Instant;
use sim_core::wait::{Attempt, Elapsed, until, until_blocking};

use super::Queue;
use crate::ask::Receive;
use crate::delivery::{Delivery, acknowledge_all};
use crate::error::{InvalidReceive, ReceiveError, TryReceiveError};
use crate::machine::{self, Kind};
use crate::shared::{Engine, count};
use crate::standard::Nothing;
use crate::wait::ReceiveWait;

impl<T: Send + Sync + 'static> Queue<T> {
    /// Receives one message, if one is visible.
    ///
    /// # Errors
    /// [`TryReceiveError`]: nothing visible, too many in flight, or closed and empty.
    #[inline]
    pub fn try_receive(&self) -> Result<Delivery<T>, TryReceiveError> {
        if let Some(delivery) = self.receive_fast() {
            return Ok(delivery);
        }
        // Through a place of its own: one that the fast way shared would be in memory; see `take_fast`.
        let mut outcome = None;
        self.try_receive_exactly(&mut outcome);
        outcome.unwrap_or(Err(TryReceiveError::Empty))
    }

    /// Receives by the recent time.
    #[inline(always)]
    pub(crate) fn receive_fast(&self) -> Option<Delivery<T>> {
        let shared = self.shared();
        match &shared.engine {
            Engine::Standard(standard) => standard.take_fast(&self.slots, shared.clock.recent()),
            Engine::Scheduled(scheduled) => {
                scheduled.receive_fast(&self.slots, shared.clock.recent())
            }
        }
    }

    /// Receives by the exact time: what is due now may be visible.
    #[inline(never)]
    fn try_receive_exactly(&self, outcome: &mut Option<Result<Delivery<T>, TryReceiveError>>) {
        let shared = self.shared();
        *outcome = Some(match &shared.engine {
            Engine::Standard(standard) => {
                let now = shared.clock.now();
                standard
                    .take(&self.slots, now, None)
                    .map_err(|nothing| self.nothing(nothing))
            }
            Engine::Scheduled(scheduled) => {
                let now = shared.clock.now();
                scheduled
                    .receive_one(&self.slots, now)
                    .map_err(|nothing| self.nothing(nothing))
            }
        });
    }

    /// Receives one message, waiting for it: SQS's long poll without an end.
    ///
    /// # Errors
    /// [`ReceiveError`]: too many in flight, or closed and empty.
    ///
    /// # Cancel safety
    /// A message is taken in the poll that returns it: a future that is dropped loses none.
    #[inline]
    pub fn receive(&self) -> ReceiveWait<'_, T> {
        ReceiveWait::new(self, Instant::NEVER)
    }

    /// Receives one message, waiting for it until a deadline: SQS's long poll.
    ///
    /// # Errors
    /// [`ReceiveError::Elapsed`] at the deadline; too many in flight; closed and empty.
    ///
    /// # Cancel safety
    /// A message is taken in the poll that returns it: a future that is dropped loses none.
    #[inline]
    pub fn receive_until(&self, deadline: Instant) -> ReceiveWait<'_, T> {
        ReceiveWait::new(self, deadline)
    }

    /// Receives one message, blocking the thread until there is one.
    ///
    /// # Errors
    /// [`ReceiveError`]: too many in flight, or closed and empty.
    pub fn receive_blocking(&self) -> Result<Delivery<T>, ReceiveError> {
        self.receive_blocking_until(Instant::NEVER)
    }

    /// Receives one message, blocking the thread until there is one or until a deadline.
    ///
    /// # Errors
    /// [`ReceiveError::Elapsed`] at the deadline; too many in flight; closed and empty.
    pub fn receive_blocking_until(&self, deadline: Instant) -> Result<Delivery<T>, ReceiveError> {
        if let Ok(delivery) = self.try_receive() {
            return Ok(delivery);
        }
        let shared = self.shared();
        until_blocking(&shared.arrivals, &shared.clock, deadline, || {
            self.attempt_receive()
        })
        .unwrap_or_else(|Elapsed| Err(self.elapsed()))
    }

    /// Receives up to `ask.max` messages, if any is visible.
    ///
    /// # Errors
    /// [`TryReceiveError`]: nothing visible, too many in flight, closed and empty, or `ask` is out of the
    /// queue's limits.
    pub fn try_receive_with(&self, ask: &Receive) -> Result<Vec<Delivery<T>>, TryReceiveError> {
        let mut out = Vec::new();
        self.try_receive_into(ask, &mut out)?;
        Ok(out)
    }

    /// Receives up to `max` messages behind those in `out`; returns how many. Allocates nothing where `out`
    /// has room.
    ///
    /// # Errors
    /// As [`try_receive_with`](Self::try_receive_with); `out` is untouched.
    pub fn try_receive_batch(
        &self,
        max: usize,
        out: &mut Vec<Delivery<T>>,
    ) -> Result<usize, TryReceiveError> {
        self.try_receive_into(
            &Receive {
                max,
                ..Receive::default()
            },
            out,
        )
    }

    /// Receives up to `max` messages behind those in `out`, waiting until there is at least one; returns how
    /// many. Allocates nothing where `out` has room.
    ///
    /// # Errors
    /// As [`receive_with`](Self::receive_with); `out` is untouched.
    ///
    /// # Cancel safety
    /// Messages are taken in the poll that completes the future: one that is dropped loses none.
    pub async fn receive_batch(
        &self,
        max: usize,
        out: &mut Vec<Delivery<T>>,
    ) -> Result<usize, ReceiveError> {
        let shared = self.shared();
        until(&shared.arrivals, &shared.clock, Instant::NEVER, || {
            let outcome = self.try_receive_batch(max, out);
            self.attempt(outcome)
        })
        .await
        .unwrap_or_else(|Elapsed| Err(self.elapsed()))
    }

    /// Acknowledges all of `deliveries`, drops their payloads, and returns how many they were. What stands in one
    /// chunk of the queue's memory is given back at once, so this is cheaper than to acknowledge each.
    ///
    /// Those whose [verdict comes too late](crate::Stale) stay in `deliveries`, in their order.
    pub fn acknowledge_all(&self, deliveries: &mut Vec<Delivery<T>>) -> usize {
        acknowledge_all(deliveries)
    }

    fn try_receive_into(
        &self,
        ask: &Receive,
        out: &mut Vec<Delivery<T>>,
    ) -> Result<usize, TryReceiveError> {
        self.check_receive(ask)?;
        let shared = self.shared();
        let visibility = ask.visibility_timeout;
        match &shared.engine {
            Engine::Standard(standard) => {
                let recent = shared.clock.recent();
                standard
                    .take_batch(&self.slots, recent, visibility, ask.max, out)
                    .or_else(|_| {
                        let now = shared.clock.now();
                        standard.take_batch(&self.slots, now, visibility, ask.max, out)
                    })
                    .map_err(|nothing| self.nothing(nothing))
            }
            Engine::Scheduled(scheduled) => {
                let attempt = ask.attempt.as_ref();
                match scheduled.receive_exactly(&self.slots, visibility, ask.max, attempt, out) {
                    Ok(0) => Err(self.nothing(Nothing::Empty)),
                    Ok(taken) => Ok(taken),
                    Err(error) => Err(self.machine_error(error)),
                }
            }
        }
    }

    /// Receives up to `ask.max` messages, waiting until there is at least one.
    ///
    /// # Errors
    /// [`ReceiveError`]: too many in flight, closed and empty, or `ask` is out of the queue's limits.
    ///
    /// # Cancel safety
    /// Messages are taken in the poll that returns them: a future that is dropped loses none.
    pub async fn receive_with(&self, ask: &Receive) -> Result<Vec<Delivery<T>>, ReceiveError> {
        self.receive_with_until(ask, Instant::NEVER).await
    }

    /// Receives up to `ask.max` messages, waiting until there is at least one or until a deadline.
    ///
    /// # Errors
    /// [`ReceiveError`]: the deadline passed, too many in flight, closed and empty, or `ask` is out of the
    /// queue's limits.
    ///
    /// # Cancel safety
    /// Messages are taken in the poll that returns them: a future that is dropped loses none.
    pub async fn receive_with_until(
        &self,
        ask: &Receive,
        deadline: Instant,
    ) -> Result<Vec<Delivery<T>>, ReceiveError> {
        let shared = self.shared();
        until(&shared.arrivals, &shared.clock, deadline, || {
            self.attempt_receive_with(ask)
        })
        .await
        .unwrap_or_else(|Elapsed| Err(self.elapsed()))
    }

    /// Receives up to `ask.max` messages, blocking the thread until there is at least one.
    ///
    /// # Errors
    /// [`ReceiveError`]: too many in flight, closed and empty, or `ask` is out of the queue's limits.
    pub fn receive_with_blocking(&self, ask: &Receive) -> Result<Vec<Delivery<T>>, ReceiveError> {
        self.receive_with_blocking_until(ask, Instant::NEVER)
    }

    /// Receives up to `ask.max` messages, blocking the thread until there is at least one or until a
    /// deadline.
    ///
    /// # Errors
    /// [`ReceiveError`]: the deadline passed, too many in flight, closed and empty, or `ask` is out of the
    /// queue's limits.
    pub fn receive_with_blocking_until(
        &self,
        ask: &Receive,
        deadline: Instant,
    ) -> Result<Vec<Delivery<T>>, ReceiveError> {
        let shared = self.shared();
        until_blocking(&shared.arrivals, &shared.clock, deadline, || {
            self.attempt_receive_with(ask)
        })
        .unwrap_or_else(|Elapsed| Err(self.elapsed()))
    }

    pub(crate) fn attempt_receive(&self) -> Attempt<Result<Delivery<T>, ReceiveError>> {
        let outcome = self.try_receive();
        self.attempt(outcome)
    }

    fn attempt_receive_with(
        &self,
        ask: &Receive,
    ) -> Attempt<Result<Vec<Delivery<T>>, ReceiveError>> {
        let outcome = self.try_receive_with(ask);
        self.attempt(outcome)
    }

    fn attempt<R>(&self, outcome: Result<R, TryReceiveError>) -> Attempt<Result<R, ReceiveError>> {
        let value = match outcome {
            Ok(value) => Ok(value),
            Err(TryReceiveError::Empty) => {
                return Attempt::Pending {
                    wake_at: self.shared().wake_at(),
                };
            }
            Err(TryReceiveError::OverLimit { limit }) => Err(ReceiveError::OverLimit { limit }),
            Err(TryReceiveError::Closed) => Err(ReceiveError::Closed),
            Err(TryReceiveError::Invalid(invalid)) => Err(ReceiveError::Invalid(invalid)),
        };
        Attempt::Done {
            more: self.has_visible(),
            value,
        }
    }

    fn has_visible(&self) -> bool {
        match &self.shared().engine {
            Engine::Standard(standard) => standard.has_visible(),
            Engine::Scheduled(scheduled) => scheduled.has_visible(),
        }
    }

    /// What an empty-handed receive reports.
    #[cold]
    fn nothing(&self, nothing: Nothing) -> TryReceiveError {
        let shared = self.shared();
        match nothing {
            Nothing::OverLimit => TryReceiveError::OverLimit {
                limit: shared.config.max_in_flight,
            },
            Nothing::Empty => {
                if self.is_sealed() && self.remaining() == 0 {
                    return TryReceiveError::Closed;
                }
                shared.counters.add(count::EMPTY, 1);
                TryReceiveError::Empty
            }
        }
    }

    fn machine_error(&self, error: machine::ReceiveError) -> TryReceiveError {
        let shared = self.shared();
        let invalid = match error {
            machine::ReceiveError::OverLimit => return self.nothing(Nothing::OverLimit),
            machine::ReceiveError::TooLong { max } => InvalidReceive::Visibility {
                value: Duration::MAX,
                limit: max,
            },
            machine::ReceiveError::AttemptSpent => InvalidReceive::AttemptChanged,
            machine::ReceiveError::AttemptTableFull => InvalidReceive::AttemptWindowFull {
                limit: match &shared.config.kind {
                    Kind::Fifo(fifo) => fifo.attempt_limit,
                    _ => 0,
                },
            },
            machine::ReceiveError::AttemptOutOfOrder => InvalidReceive::UnexpectedAttempt,
        };
        TryReceiveError::Invalid(invalid)
    }

    fn elapsed(&self) -> ReceiveError {
        ReceiveError::Elapsed
    }

    fn check_receive(&self, ask: &Receive) -> Result<(), InvalidReceive> {
        let shared = self.shared();
        let limits = &shared.config.limits;
        if ask.max == 0 || ask.max > limits.batch {
            return Err(InvalidReceive::Max {
                value: ask.max,
                limit: limits.batch,
            });
        }
        if let Some(value) = ask.visibility_timeout
            && value > limits.visibility
        {
            return Err(InvalidReceive::Visibility {
                value,
                limit: limits.visibility,
            });
        }
        if ask.attempt.is_some() && !self.is_fifo() {
            return Err(InvalidReceive::UnexpectedAttempt);
        }
        Ok(())
    }
}
