//! [`Breaker`]: a circuit breaker, which tower has none of.
//!
//! # Algorithm
//!
//! After M. Nygard, "Release It!", 2nd edition, chapter 5: closed, calls pass and are counted in a sliding window of ten
//! slices; when at least `minimum_calls` stand in it and `failure_percentage` of them failed, it opens, and calls fail at
//! once; after `open_for` it is half open and lets a few calls through, which close it when all of them succeed and open it
//! again with the first that does not. When they have not ended after another `open_for`, it gives them up and lets others
//! through.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use sim_core::clock::Clock;
use sim_core::sync::{Arc, Mutex};
use sim_core::time::Instant;
use tower::util::Oneshot;
use tower_service::Service;

use super::{ByResult, Judge};
use crate::message::Outcome;

/// When a [`Breaker`] opens, and how it closes again.
#[derive(Debug, Clone, PartialEq)]
pub struct BreakerConfig {
    /// How far back failures count: 10 s by default, at least 10 ms.
    pub window: Duration,
    /// Calls in the window below which it does not open: 20 by default, at least 1.
    pub minimum_calls: u32,
    /// The share of failures in the window at which it opens, in percent: 50 by default, 1 to 100.
    pub failure_percentage: u32,
    /// How long it stays open before it tries again, and how long it then waits for those that it lets through: 5 s by
    /// default, more than nothing.
    pub open_for: Duration,
    /// Calls that a half-open breaker lets through, all of which must succeed: 3 by default, at least 1.
    pub half_open_calls: u32,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(10),
            minimum_calls: 20,
            failure_percentage: 50,
            open_for: Duration::from_secs(5),
            half_open_calls: 3,
        }
    }
}

impl BreakerConfig {
    fn check(&self) -> Result<(), BreakerConfigError> {
        if self.window < Duration::from_millis(10) {
            return Err(BreakerConfigError::Window {
                window: self.window,
            });
        }
        if self.minimum_calls == 0 {
            return Err(BreakerConfigError::MinimumCalls);
        }
        if !(1..=100).contains(&self.failure_percentage) {
            return Err(BreakerConfigError::FailurePercentage {
                percentage: self.failure_percentage,
            });
        }
        if self.open_for.is_zero() {
            return Err(BreakerConfigError::OpenFor);
        }
        if self.half_open_calls == 0 {
            return Err(BreakerConfigError::HalfOpenCalls);
        }
        Ok(())
    }
}

/// Why a configuration makes no breaker.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BreakerConfigError {
    /// The window is too short to be cut into slices.
    #[error("window: {window:?} is less than 10 ms")]
    Window {
        /// What was asked for.
        window: Duration,
    },
    /// No call would be enough to open it.
    #[error("minimum_calls: must be at least 1")]
    MinimumCalls,
    /// Not a share that can be reached, or one that is always reached.
    #[error("failure_percentage: {percentage} is not from 1 to 100")]
    FailurePercentage {
        /// What was asked for.
        percentage: u32,
    },
    /// It would never be open.
    #[error("open_for: must be more than nothing")]
    OpenFor,
    /// It would never close again.
    #[error("half_open_calls: must be at least 1")]
    HalfOpenCalls,
}

/// What a breaker lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BreakerState {
    /// Everything.
    Closed,
    /// Nothing, until then.
    Open {
        /// When it will be half open.
        until: Instant,
    },
    /// A few calls, whose outcome decides.
    HalfOpen,
}

/// A circuit breaker around a service; its clones share one state.
pub struct Breaker<S, J = ByResult> {
    service: S,
    judge: J,
    circuit: Arc<Mutex<Circuit>>,
    clock: Clock,
}

impl<S> Breaker<S> {
    /// Guards `service`; an `Err` of it is a failure.
    ///
    /// # Errors
    ///
    /// [`BreakerConfigError`] names the field that makes no sense.
    pub fn new(
        service: S,
        config: BreakerConfig,
        clock: Clock,
    ) -> Result<Self, BreakerConfigError> {
        config.check()?;
        let circuit = Circuit::new(config, clock.now());
        Ok(Self {
            service,
            judge: ByResult,
            circuit: Arc::new(Mutex::new(circuit)),
            clock,
        })
    }
}

impl<S, J> Breaker<S, J> {
    /// Lets `judge` say what counts as failed.
    #[must_use]
    pub fn judge<J2>(self, judge: J2) -> Breaker<S, J2> {
        Breaker {
            service: self.service,
            judge,
            circuit: self.circuit,
            clock: self.clock,
        }
    }

    /// What it lets through at present.
    #[must_use]
    pub fn state(&self) -> BreakerState {
        self.circuit.lock().state(self.clock.now())
    }
}

impl<S: Clone, J: Clone> Clone for Breaker<S, J> {
    fn clone(&self) -> Self {
        Self {
            service: self.service.clone(),
            judge: self.judge.clone(),
            circuit: Arc::clone(&self.circuit),
            clock: self.clock.clone(),
        }
    }
}

impl<S, J> fmt::Debug for Breaker<S, J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Breaker")
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

impl<S, J, Req> Service<Req> for Breaker<S, J>
where
    S: Service<Req> + Clone,
    J: Judge<S::Response, S::Error> + Clone,
{
    type Response = S::Response;
    type Error = BreakerError<S::Error>;
    type Future = BreakerFuture<S, J, Req>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        // An open breaker fails the call rather than holding it up: who waits for it would wait for all targets.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let now = self.clock.now();
        let admitted = self.circuit.lock().admit(now);
        let stage = match admitted {
            Ok(ticket) => Stage::Calling {
                call: Oneshot::new(self.service.clone(), request),
                admission: Admission {
                    circuit: Arc::clone(&self.circuit),
                    clock: self.clock.clone(),
                    ticket: Some(ticket),
                },
            },
            Err(until) => Stage::Refused {
                retry_after: until.saturating_duration_since(now),
            },
        };
        BreakerFuture {
            stage,
            judge: self.judge.clone(),
        }
    }
}

/// Why a guarded service did not respond.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BreakerError<E> {
    /// The breaker is open; the service was not called.
    #[error("the circuit is open for another {retry_after:?}")]
    Open {
        /// How long it will be. Zero when it is half open and its calls are under way.
        retry_after: Duration,
    },
    /// The service's own error.
    #[error("the service failed: {0}")]
    Service(E),
}

pin_project! {
    #[project = StageProjection]
    enum Stage<S, Req>
    where
        S: Service<Req>,
    {
        Refused { retry_after: Duration },
        Calling { #[pin] call: Oneshot<S, Req>, admission: Admission },
    }
}

pin_project! {
    /// The response of a [`Breaker`].
    ///
    /// # Cancel safety
    ///
    /// Dropped, the call counts neither as a success nor as a failure, and a half-open breaker lets another through.
    pub struct BreakerFuture<S, J, Req>
    where
        S: Service<Req>,
    {
        #[pin]
        stage: Stage<S, Req>,
        judge: J,
    }
}

impl<S, J, Req> Future for BreakerFuture<S, J, Req>
where
    S: Service<Req>,
    J: Judge<S::Response, S::Error>,
{
    type Output = Result<S::Response, BreakerError<S::Error>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        match this.stage.project() {
            StageProjection::Refused { retry_after } => Poll::Ready(Err(BreakerError::Open {
                retry_after: *retry_after,
            })),
            StageProjection::Calling { call, admission } => {
                let result = ready!(call.poll(cx));
                admission.end(this.judge.outcome(&result));
                Poll::Ready(result.map_err(BreakerError::Service))
            }
        }
    }
}

impl<S, J, Req> fmt::Debug for BreakerFuture<S, J, Req>
where
    S: Service<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BreakerFuture").finish_non_exhaustive()
    }
}

/// A call that was let through, until its outcome is known or it is dropped.
struct Admission {
    circuit: Arc<Mutex<Circuit>>,
    clock: Clock,
    ticket: Option<Ticket>,
}

impl Admission {
    fn end(&mut self, outcome: Outcome) {
        if let Some(ticket) = self.ticket.take() {
            let now = self.clock.now();
            self.circuit.lock().end(ticket, &outcome, now);
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.end(Outcome::Cancelled);
    }
}

/// Slices of the window.
const SLICES: usize = 10;

/// Which state let a call through: outcomes from an earlier one count no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ticket(u64);

/// Calls of one slice.
#[derive(Debug, Clone, Copy, Default)]
struct Slice {
    calls: u32,
    failures: u32,
}

/// The rules, without a clock.
#[derive(Debug)]
struct Circuit {
    config: BreakerConfig,
    /// Counts changes of state.
    era: u64,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Closed {
        slices: [Slice; SLICES],
        /// The slice that is being filled, and when it began.
        current: usize,
        since: Instant,
    },
    Open {
        until: Instant,
    },
    HalfOpen {
        /// Calls that may still start.
        left: u32,
        /// Calls that must still succeed.
        needed: u32,
        /// When those that are under way are given up.
        until: Instant,
    },
}

impl Circuit {
    const fn new(config: BreakerConfig, now: Instant) -> Self {
        Self {
            config,
            era: 0,
            phase: Phase::Closed {
                slices: [Slice {
                    calls: 0,
                    failures: 0,
                }; SLICES],
                current: 0,
                since: now,
            },
        }
    }

    fn state(&self, now: Instant) -> BreakerState {
        match self.phase {
            Phase::Closed { .. } => BreakerState::Closed,
            Phase::Open { until } if now < until => BreakerState::Open { until },
            Phase::Open { .. } | Phase::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// Lets a call through, or says when to come back.
    fn admit(&mut self, now: Instant) -> Result<Ticket, Instant> {
        let patience = now + self.config.open_for;
        match self.phase {
            Phase::Open { until } if now < until => return Err(until),
            Phase::HalfOpen { left: 0, until, .. } if now < until => return Err(now),
            Phase::Open { .. } | Phase::HalfOpen { left: 0, .. } => {
                let calls = self.config.half_open_calls;
                self.turn(Phase::HalfOpen {
                    left: calls,
                    needed: calls,
                    until: patience,
                });
            }
            Phase::Closed { .. } | Phase::HalfOpen { .. } => {}
        }
        if let Phase::HalfOpen { left, until, .. } = &mut self.phase {
            *left -= 1;
            *until = patience;
        }
        Ok(Ticket(self.era))
    }

    /// Hears how a call ended.
    fn end(&mut self, ticket: Ticket, outcome: &Outcome, now: Instant) {
        if ticket != Ticket(self.era) {
            return;
        }
        let failed = match outcome {
            Outcome::Success => Some(false),
            Outcome::Failure | Outcome::Unreachable | Outcome::Overloaded { .. } => Some(true),
            _ => None,
        };
        let slice_length = self.config.window / SLICES as u32;
        match (&mut self.phase, failed) {
            (
                Phase::Closed {
                    slices,
                    current,
                    since,
                },
                Some(failed),
            ) => {
                let passed =
                    now.saturating_duration_since(*since).as_nanos() / slice_length.as_nanos();
                for _ in 0..passed.min(SLICES as u128) {
                    *current = (*current + 1) % SLICES;
                    slices[*current] = Slice::default();
                }
                if passed > 0 {
                    // At most the window back, so that the multiplication stays small.
                    let whole = u32::try_from(passed).unwrap_or(u32::MAX);
                    *since = *since + slice_length.saturating_mul(whole);
                }
                slices[*current].calls = slices[*current].calls.saturating_add(1);
                slices[*current].failures += u32::from(failed);
                let (calls, failures) = slices.iter().fold((0_u64, 0_u64), |sum, slice| {
                    (
                        sum.0 + u64::from(slice.calls),
                        sum.1 + u64::from(slice.failures),
                    )
                });
                if failed
                    && calls >= u64::from(self.config.minimum_calls)
                    && failures * 100 >= calls * u64::from(self.config.failure_percentage)
                {
                    self.open(now);
                }
            }
            (Phase::HalfOpen { .. }, Some(true)) => self.open(now),
            (Phase::HalfOpen { needed, .. }, Some(false)) => {
                *needed -= 1;
                if *needed == 0 {
                    let closed = Self::new(self.config.clone(), now).phase;
                    self.turn(closed);
                }
            }
            // What told nothing is made up for by another.
            (Phase::HalfOpen { left, .. }, None) => *left += 1,
            (Phase::Closed { .. }, None) | (Phase::Open { .. }, _) => {}
        }
    }

    fn open(&mut self, now: Instant) {
        self.turn(Phase::Open {
            until: now + self.config.open_for,
        });
    }

    fn turn(&mut self, phase: Phase) {
        self.era += 1;
        self.phase = phase;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::ORIGIN + Duration::from_millis(millis)
    }

    fn call(circuit: &mut Circuit, millis: u64, outcome: &Outcome) -> bool {
        match circuit.admit(at(millis)) {
            Ok(ticket) => {
                circuit.end(ticket, outcome, at(millis));
                true
            }
            Err(_) => false,
        }
    }

    fn opened() -> Circuit {
        let mut circuit = Circuit::new(BreakerConfig::default(), Instant::ORIGIN);
        for _ in 0..20 {
            assert!(call(&mut circuit, 0, &Outcome::Failure));
        }
        circuit
    }

    #[test]
    fn it_opens_when_enough_of_enough_calls_failed() {
        let mut circuit = Circuit::new(BreakerConfig::default(), Instant::ORIGIN);
        for _ in 0..10 {
            call(&mut circuit, 0, &Outcome::Success);
        }
        for _ in 0..9 {
            call(&mut circuit, 1, &Outcome::Failure);
            assert_eq!(circuit.state(at(1)), BreakerState::Closed);
        }
        call(&mut circuit, 1, &Outcome::Failure);
        let until = at(5_001);
        assert_eq!(circuit.state(at(1)), BreakerState::Open { until });
        assert_eq!(circuit.admit(at(5_000)), Err(until));
    }

    #[test]
    fn failures_older_than_the_window_count_no_more() {
        let mut circuit = Circuit::new(BreakerConfig::default(), Instant::ORIGIN);
        for _ in 0..19 {
            call(&mut circuit, 0, &Outcome::Failure);
        }
        assert!(call(&mut circuit, 10_000, &Outcome::Failure));
        assert_eq!(circuit.state(at(10_000)), BreakerState::Closed);
        // A pause of years neither panics nor opens it.
        assert!(call(&mut circuit, 1 << 43, &Outcome::Failure));
        assert_eq!(circuit.state(at(1 << 43)), BreakerState::Closed);
    }

    #[test]
    fn half_open_it_closes_after_its_calls_and_opens_with_the_first_failure() {
        let mut circuit = opened();
        assert_eq!(circuit.state(at(5_000)), BreakerState::HalfOpen);
        for _ in 0..3 {
            assert!(call(&mut circuit, 5_000, &Outcome::Success));
        }
        assert_eq!(circuit.state(at(5_000)), BreakerState::Closed);

        let mut circuit = opened();
        assert!(call(&mut circuit, 5_000, &Outcome::Success));
        assert!(call(&mut circuit, 5_000, &Outcome::Failure));
        assert_eq!(
            circuit.state(at(5_000)),
            BreakerState::Open { until: at(10_000) }
        );
    }

    #[test]
    fn half_open_it_lets_only_a_few_calls_through_and_makes_up_for_cancelled_ones() {
        let mut circuit = opened();
        let tickets: Vec<_> = (0..3)
            .map(|_| circuit.admit(at(5_000)).expect("a call"))
            .collect();
        assert_eq!(circuit.admit(at(5_000)), Err(at(5_000)));
        circuit.end(tickets[0], &Outcome::Cancelled, at(5_001));
        assert!(circuit.admit(at(5_001)).is_ok());
        assert_eq!(circuit.state(at(5_001)), BreakerState::HalfOpen);
    }

    #[test]
    fn calls_from_before_a_change_of_state_count_no_more() {
        let mut circuit = Circuit::new(BreakerConfig::default(), Instant::ORIGIN);
        let early = circuit.admit(at(0)).expect("closed");
        for _ in 0..20 {
            call(&mut circuit, 0, &Outcome::Failure);
        }
        assert!(call(&mut circuit, 5_000, &Outcome::Success));
        circuit.end(early, &Outcome::Failure, at(5_000));
        assert_eq!(circuit.state(at(5_000)), BreakerState::HalfOpen);
    }

    #[test]
    fn half_open_it_gives_up_on_calls_that_do_not_end() {
        let mut circuit = opened();
        let hung: Vec<_> = (0..3)
            .map(|_| circuit.admit(at(5_000)).expect("a call"))
            .collect();
        assert!(circuit.admit(at(9_999)).is_err());
        for _ in 0..2 {
            assert!(call(&mut circuit, 10_000, &Outcome::Success));
        }
        // They count no more when they end after all.
        circuit.end(hung[0], &Outcome::Failure, at(10_001));
        assert!(call(&mut circuit, 10_001, &Outcome::Success));
        assert_eq!(circuit.state(at(10_001)), BreakerState::Closed);
    }
}
