//! Active health checks: [`Checker`] asks targets whether they are well and tells the balancer.
//!
//! When a target is to be asked is the rules' affair ([`HealthCheck`]); here is how: by HTTP, HTTPS, gRPC, TCP,
//! TLS, or by a function of the program's. Certificates are not verified, as in the service: a check asks whether somebody answers, and
//! sends nothing secret.
//!
//! Nothing is spawned: the checks run inside the future of [`Checker::run`] and end with it. Time is the balancer's clock's.
//!
//! ```
//! use std::net::SocketAddr;
//! use sim_balancer::check::Checker;
//! use sim_balancer::machine::{HealthCheck, Rules};
//! use sim_balancer::{Balancer, BalancerConfig, Target};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let balancer = Balancer::<SocketAddr>::new(BalancerConfig {
//!     rules: Rules {
//!         health_check: Some(HealthCheck::default()), // GET / each 30 s
//!         ..Default::default()
//!     },
//!     ..Default::default()
//! })?;
//! balancer.register(Target::new("a", "10.0.0.7:8080".parse()?))?;
//! let checker = Checker::new(&balancer, |address| Some(*address))?;
//! tokio::spawn(async move { checker.run().await });
//! # Ok(())
//! # }
//! ```

mod grpc;
mod http;
mod probe;
mod tls;

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, VecDeque};
use std::convert::Infallible;
use std::fmt;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use futures_util::future::{Either, select};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use sim_core::seam::Handler;
use sim_core::sync::Arc;
use sim_core::time::Instant;

use self::probe::Prober;
use crate::balancer::Balancer;
use crate::balancer::seat::TargetRef;
use crate::machine::{CheckPort, CheckProtocol, HealthCheck, ProbeResult, Slot, TargetId};

/// How many checks run at a time unless said otherwise.
pub const CONCURRENCY: usize = 64;

/// The most checks that may run at a time.
pub const MOST_CONCURRENCY: usize = 65_536;

/// Checks the targets of a balancer: those that are due, some at a time, each within its timeout.
///
/// What it holds is bounded: one entry for each target at most, and [`concurrency`](Self::concurrency) connections. It is a
/// handle of the balancer too: targets do not go with the last handle elsewhere while it lives.
///
/// A function of the program's that panics ends no check but its own: that is [`ProbeResult::Internal`]. What an observer
/// panics with is dropped; the panic hook has told of it.
pub struct Checker<T> {
    balancer: Balancer<T>,
    check: HealthCheck,
    how: How<T>,
    concurrency: usize,
    observer: Option<Observer>,
}

/// Where a target is asked, if it can be.
type Address<T> = Box<dyn Fn(&T) -> Option<SocketAddr> + Send + Sync>;

type Observer = Box<dyn Fn(&Checked) + Send + Sync>;

enum How<T> {
    Probe(Prober, Address<T>),
    Custom(Arc<dyn Handler<TargetRef<T>, ProbeResult>>),
}

/// What a check found, for logs of checks.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Checked {
    /// The target.
    pub id: TargetId,
    /// When the check began.
    pub at: Instant,
    /// How long it took.
    pub took: Duration,
    /// What it found.
    pub result: ProbeResult,
}

/// A checker was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CheckerError {
    /// The balancer's rules have no [`health_check`](crate::machine::Rules::health_check): no target will ever be due.
    #[error("rules.health_check: is not set, so no target is ever checked")]
    NotConfigured,
    /// A checker by addresses for rules that leave checks to the program.
    #[error("rules.health_check.protocol: custom checks need Checker::custom")]
    NeedsHandler,
    /// A checker by a function for rules that name a protocol.
    #[error("rules.health_check.protocol: is {protocol:?}, which needs Checker::new")]
    NeedsAddress {
        /// The protocol in the rules.
        protocol: CheckProtocol,
    },
    /// Too few or too many checks at a time.
    #[error("concurrency: {value} is not within 1 to {limit}")]
    Concurrency {
        /// The value given.
        value: usize,
        /// The most allowed.
        limit: usize,
    },
}

impl<T> Checker<T> {
    /// Makes a checker that speaks the protocol of the rules to the address of each target.
    ///
    /// A target for which `address` is `None` cannot be checked: that is [`ProbeResult::Internal`].
    ///
    /// # Errors
    ///
    /// [`CheckerError::NotConfigured`] and [`CheckerError::NeedsHandler`].
    pub fn new(
        balancer: &Balancer<T>,
        address: impl Fn(&T) -> Option<SocketAddr> + Send + Sync + 'static,
    ) -> Result<Self, CheckerError> {
        let check = configured(balancer)?;
        let prober = Prober::new(&check).ok_or(CheckerError::NeedsHandler)?;
        Ok(Self::with(
            balancer,
            check,
            How::Probe(prober, Box::new(address)),
        ))
    }

    /// Makes a checker that asks a function, for rules with [`CheckProtocol::Custom`].
    ///
    /// ```
    /// use sim_balancer::check::Checker;
    /// use sim_balancer::machine::{CheckProtocol, HealthCheck, ProbeResult, Rules};
    /// use sim_balancer::{Balancer, BalancerConfig, Target, TargetRef};
    ///
    /// let balancer = Balancer::<u32>::new(BalancerConfig {
    ///     rules: Rules {
    ///         health_check: Some(HealthCheck::of(CheckProtocol::Custom)),
    ///         ..Default::default()
    ///     },
    ///     ..Default::default()
    /// })?;
    /// balancer.register(Target::new("even", 2))?;
    /// let checker = Checker::custom(&balancer, |target: TargetRef<u32>| async move {
    ///     if *target % 2 == 0 { ProbeResult::Good } else { ProbeResult::Failed }
    /// })?;
    /// # drop(checker);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`CheckerError::NotConfigured`] and [`CheckerError::NeedsAddress`].
    pub fn custom(
        balancer: &Balancer<T>,
        handler: impl Handler<TargetRef<T>, ProbeResult> + 'static,
    ) -> Result<Self, CheckerError> {
        let check = configured(balancer)?;
        if check.protocol != CheckProtocol::Custom {
            return Err(CheckerError::NeedsAddress {
                protocol: check.protocol,
            });
        }
        Ok(Self::with(balancer, check, How::Custom(Arc::new(handler))))
    }

    fn with(balancer: &Balancer<T>, check: HealthCheck, how: How<T>) -> Self {
        Self {
            balancer: balancer.clone(),
            check,
            how,
            concurrency: CONCURRENCY,
            observer: None,
        }
    }

    /// Sets how many checks run at a time. Default: [`CONCURRENCY`].
    ///
    /// # Errors
    ///
    /// [`CheckerError::Concurrency`] outside of 1 to [`MOST_CONCURRENCY`].
    pub fn concurrency(self, concurrency: usize) -> Result<Self, CheckerError> {
        if !(1..=MOST_CONCURRENCY).contains(&concurrency) {
            return Err(CheckerError::Concurrency {
                value: concurrency,
                limit: MOST_CONCURRENCY,
            });
        }
        Ok(Self {
            concurrency,
            ..self
        })
    }

    /// Sets what is told of each check, for a log of checks.
    #[must_use]
    pub fn on_checked(self, observer: impl Fn(&Checked) + Send + Sync + 'static) -> Self {
        Self {
            observer: Some(Box::new(observer)),
            ..self
        }
    }

    /// Checks whoever is due, for as long as the future is polled. It keeps the balancer's time meanwhile.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with its I/O driver enabled (timers too, unless the clock is virtual), when the checks
    /// use sockets.
    ///
    /// # Cancel safety
    ///
    /// Dropping it ends the checks that run; their targets are due again an interval after they were due.
    pub async fn run(&self) -> Infallible {
        let mut running = FuturesUnordered::new();
        let mut waiting = VecDeque::new();
        // Who waits or runs. One that is due again meanwhile is not asked twice.
        let mut busy: BTreeSet<Slot> = BTreeSet::new();
        loop {
            while running.len() < self.concurrency
                && let Some(target) = waiting.pop_front()
            {
                running.push(self.check(target));
            }
            let ended = pin!(ended(&mut running));
            let due = pin!(self.balancer.checks());
            match select(ended, due).await {
                Either::Left((done, _)) => {
                    for one in &done {
                        busy.remove(&one.target.slot());
                    }
                    self.report(done);
                }
                Either::Right((due, _)) => {
                    waiting.extend(due.into_iter().filter(|target| busy.insert(target.slot())));
                }
            }
        }
    }

    /// Checks those that are due now, and says how many. For a driver of one's own, and for tests.
    ///
    /// # Panics
    ///
    /// As [`run`](Self::run) does.
    ///
    /// # Cancel safety
    ///
    /// As [`run`](Self::run).
    pub async fn step(&self) -> usize {
        let mut waiting = self.balancer.due_checks().into_iter();
        let count = waiting.len();
        let mut running = FuturesUnordered::new();
        loop {
            while running.len() < self.concurrency
                && let Some(target) = waiting.next()
            {
                running.push(self.check(target));
            }
            if running.is_empty() {
                return count;
            }
            let done = ended(&mut running).await;
            self.report(done);
        }
    }

    /// Checks one target.
    async fn check(&self, target: TargetRef<T>) -> Done<T> {
        let clock = self.balancer.clock();
        let at = clock.now();
        let timeout = pin!(clock.sleep_until(at + self.check.timeout));
        let result = {
            let answer = AssertUnwindSafe(async { self.ask(&target).await }).catch_unwind();
            match select(pin!(answer), timeout).await {
                Either::Left((result, _)) => result.unwrap_or(ProbeResult::Internal),
                Either::Right(((), _)) => ProbeResult::Timeout,
            }
        };
        let took = clock.now().saturating_duration_since(at);
        Done {
            target,
            at,
            took,
            result,
        }
    }

    /// Tells the balancer, which then builds one table for all, and the observer.
    fn report(&self, done: Vec<Done<T>>) {
        self.balancer
            .report_all(done.iter().map(|one| (&one.target, one.result)));
        let Some(observer) = &self.observer else {
            return;
        };
        for one in done {
            let checked = Checked {
                id: one.target.id().clone(),
                at: one.at,
                took: one.took,
                result: one.result,
            };
            let _ = catch_unwind(AssertUnwindSafe(|| observer(&checked)));
        }
    }

    fn ask(&self, target: &TargetRef<T>) -> Pin<Box<dyn Future<Output = ProbeResult> + Send + '_>> {
        match &self.how {
            How::Custom(handler) => handler.handle(target.clone()),
            How::Probe(prober, address) => match address(target) {
                Some(mut address) => {
                    if let CheckPort::Port(port) = self.check.port {
                        address.set_port(port);
                    }
                    Box::pin(prober.probe(address))
                }
                None => Box::pin(std::future::ready(ProbeResult::Internal)),
            },
        }
    }
}

/// A check that has come to its end.
struct Done<T> {
    target: TargetRef<T>,
    at: Instant,
    took: Duration,
    result: ProbeResult,
}

/// Waits until checks have ended, and takes all that have; for ever when none runs.
async fn ended<F: Future>(running: &mut FuturesUnordered<F>) -> Vec<F::Output> {
    poll_fn(|cx| {
        let mut done = Vec::new();
        while let Poll::Ready(Some(one)) = running.poll_next_unpin(cx) {
            done.push(one);
        }
        if done.is_empty() {
            return Poll::Pending;
        }
        Poll::Ready(done)
    })
    .await
}

fn configured<T>(balancer: &Balancer<T>) -> Result<HealthCheck, CheckerError> {
    let rules = balancer.rules();
    rules
        .health_check
        .clone()
        .ok_or(CheckerError::NotConfigured)
}

impl<T> fmt::Debug for Checker<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checker")
            .field("check", &self.check)
            .field("concurrency", &self.concurrency)
            .finish_non_exhaustive()
    }
}
