//! [`Again`]: the policy of tower's retries and hedges.

use std::fmt;
use std::time::Duration;

use http::Method;
use sim_core::sync::Arc;
use tower::retry::budget::{Budget, TpsBudget};

use super::route::{Directed, Directions};
use super::{ByResult, Judge};
use crate::message::Outcome;

/// A request that may be made a second time.
pub trait Repeatable: Sized {
    /// A copy for another attempt, or `None` when doing it twice could do harm.
    fn repeat(&self) -> Option<Self>;

    /// The request as its first attempt is made: with what its attempts are to share.
    #[must_use]
    fn begin(self) -> Self {
        self
    }
}

/// Whoever directs a request decides that it may be repeated.
impl<T: Clone> Repeatable for Directed<T> {
    fn repeat(&self) -> Option<Self> {
        Some(self.clone())
    }
}

/// Idempotent methods are repeated (RFC 9110, section 9.2.2), and others that carry an `Idempotency-Key`. Attempts avoid
/// each other's targets when the request has [`Directions`] among its extensions.
impl<B: Clone> Repeatable for http::Request<B> {
    fn repeat(&self) -> Option<Self> {
        let is_idempotent = matches!(
            *self.method(),
            Method::GET
                | Method::HEAD
                | Method::PUT
                | Method::DELETE
                | Method::OPTIONS
                | Method::TRACE
        );
        (is_idempotent || self.headers().contains_key("idempotency-key")).then(|| self.clone())
    }

    fn begin(self) -> Self {
        directed(self)
    }
}

/// Directs an HTTP request, unless it is: so that its attempts avoid each other's targets.
#[must_use]
pub fn directed<B>(mut request: http::Request<B>) -> http::Request<B> {
    if request.extensions().get::<Directions>().is_none() {
        request.extensions_mut().insert(Directions::default());
    }
    request
}

/// Tries again, at another target, while attempts and budget last: the policy for tower's `RetryLayer` and `Hedge`.
///
/// The budget is shared by all clones: ten retries a second, and beyond that one for each five requests, over ten seconds.
/// Without one, retries would multiply the load exactly when there is too much (Google, "Site Reliability Engineering",
/// chapter 22).
pub struct Again<J = ByResult> {
    attempts: u32,
    left: u32,
    pub(super) budget: Arc<TpsBudget>,
    /// Whether hedges add to the budget; not beside retries, which do.
    hedges_add: bool,
    judge: J,
}

impl Again {
    /// At most `attempts` in all, the first included; at least one is made.
    #[must_use]
    pub fn new(attempts: u32) -> Self {
        Self {
            attempts,
            left: attempts.saturating_sub(1),
            budget: Arc::new(TpsBudget::new(Duration::from_secs(10), 10, 0.2)),
            hedges_add: true,
            judge: ByResult,
        }
    }
}

impl<J> Again<J> {
    /// Lets `judge` say what counts as failed: what it calls [`Outcome::Failure`], [`Outcome::Unreachable`] or
    /// [`Outcome::Overloaded`].
    #[must_use]
    pub fn judge<J2>(self, judge: J2) -> Again<J2> {
        Again {
            attempts: self.attempts,
            left: self.left,
            budget: self.budget,
            hedges_add: self.hedges_add,
            judge,
        }
    }

    /// For hedges beneath retries by the same policy: those add each request to the budget.
    #[must_use]
    pub(super) fn beneath_retries(self) -> Self {
        Self {
            hedges_add: false,
            ..self
        }
    }

    /// Replaces the budget. See [`TpsBudget::new`] for what it means.
    #[must_use]
    pub fn budget(mut self, budget: TpsBudget) -> Self {
        self.budget = Arc::new(budget);
        self
    }
}

impl<J, Req, Res, E> tower::retry::Policy<Req, Res, E> for Again<J>
where
    J: Judge<Res, E>,
    Req: Repeatable,
{
    type Future = std::future::Ready<()>;

    fn retry(&mut self, _: &mut Req, result: &mut Result<Res, E>) -> Option<Self::Future> {
        match self.judge.outcome(result) {
            Outcome::Failure | Outcome::Unreachable | Outcome::Overloaded { .. } => {
                if self.left == 0 || !self.budget.withdraw() {
                    return None;
                }
                self.left -= 1;
                Some(std::future::ready(()))
            }
            _ => {
                self.budget.deposit();
                None
            }
        }
    }

    fn clone_request(&mut self, request: &Req) -> Option<Req> {
        (self.left > 0).then(|| request.repeat()).flatten()
    }
}

impl<J, Req: Repeatable> tower::hedge::Policy<Req> for Again<J> {
    fn clone_request(&self, request: &Req) -> Option<Req> {
        if self.hedges_add {
            self.budget.deposit();
        }
        (self.attempts > 1).then(|| request.repeat()).flatten()
    }

    fn can_retry(&self, _: &Req) -> bool {
        self.attempts > 1 && self.budget.withdraw()
    }
}

impl<J: Clone> Clone for Again<J> {
    fn clone(&self) -> Self {
        Self {
            attempts: self.attempts,
            left: self.left,
            budget: Arc::clone(&self.budget),
            hedges_add: self.hedges_add,
            judge: self.judge.clone(),
        }
    }
}

impl<J> fmt::Debug for Again<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Again")
            .field("attempts", &self.attempts)
            .finish_non_exhaustive()
    }
}
