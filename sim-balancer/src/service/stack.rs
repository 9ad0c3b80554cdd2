//! [`Stack`]: tower's layers around a balance, in the order in which they make sense.

use std::error::Error;
use std::time::Duration;

use tower::ServiceExt;
use tower::limit::ConcurrencyLimit;
use tower::load_shed::LoadShed;
use tower::retry::Retry;
use tower::timeout::Timeout;
use tower::util::BoxCloneSyncService;
use tower_service::Service;

use super::{Again, Balance, BalanceError, ByResult, Hedged, Judge, Repeatable, Route};

/// Any error that a [`Stack`]'s service may give: a [`BalanceError`], tower's
/// [`Elapsed`](tower::timeout::error::Elapsed) or [`Overloaded`](tower::load_shed::error::Overloaded).
pub type BoxError = Box<dyn Error + Send + Sync>;

/// What a [`Stack`] makes: a service in a box, cheap to clone.
pub type Stacked<Req, Res> = BoxCloneSyncService<Req, Res, BoxError>;

/// Puts tower's layers around a balance in the order in which they make sense. From the outside in:
///
/// | layer | asked for by | does |
/// | --- | --- | --- |
/// | load shed | [`shed_load`](Self::shed_load) | says no at once where the limit would make a request wait |
/// | concurrency limit | [`concurrency_limit`](Self::concurrency_limit) | so many requests in flight |
/// | timeout | [`timeout`](Self::timeout) | for a request with all its attempts |
/// | retry | [`attempts`](Self::attempts) | so many attempts, each at another target, within the budget |
/// | hedge | [`hedge_after`](Self::hedge_after) | a second attempt beside one that takes long |
/// | balance | [`attempt_timeout`](Self::attempt_timeout) | picks the target, and gives it so long |
///
/// What is not asked for is not there. A circuit breaker stands inside, around each target ([`Breaker`](super::Breaker)).
/// Each layer costs a box and a dynamic call; who counts nanoseconds stacks tower's layers by hand, as the
/// [module](super) shows.
///
/// ```
/// use std::time::Duration;
/// use sim_balancer::service::{Balance, ByDirections, Directed, Stack, function};
/// use sim_balancer::{Balancer, BalancerConfig, Target};
/// use tower::ServiceExt;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// let balancer = Balancer::new(BalancerConfig::default())?;
/// balancer.register(Target::new("echo", function(async |n: u32| Ok::<_, std::io::Error>(n))))?;
/// let service = Stack::new()
///     .concurrency_limit(1_000)
///     .timeout(Duration::from_secs(30))
///     .attempts(3)
///     .attempt_timeout(Duration::from_secs(2))
///     .around(Balance::new(balancer).route(ByDirections));
/// assert_eq!(service.oneshot(Directed::new(7)).await?, 7);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Stack<J = ByResult> {
    sheds_load: bool,
    concurrency_limit: Option<usize>,
    timeout: Option<Duration>,
    again: Option<Again<J>>,
    hedge_after: Option<Duration>,
    attempt_timeout: Option<Duration>,
    judge: J,
}

impl Default for Stack {
    fn default() -> Self {
        Self::new()
    }
}

impl Stack {
    /// No layer at all.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            sheds_load: false,
            concurrency_limit: None,
            timeout: None,
            again: None,
            hedge_after: None,
            attempt_timeout: None,
            judge: ByResult,
        }
    }

    /// Lets `judge` say which answers are tried again. To be called before [`attempts`](Self::attempts).
    #[must_use]
    pub fn judge<J>(self, judge: J) -> Stack<J> {
        Stack {
            sheds_load: self.sheds_load,
            concurrency_limit: self.concurrency_limit,
            timeout: self.timeout,
            again: None,
            hedge_after: self.hedge_after,
            attempt_timeout: self.attempt_timeout,
            judge,
        }
    }
}

impl<J: Clone> Stack<J> {
    /// Refuses what the concurrency limit would make wait.
    #[must_use]
    pub fn shed_load(self) -> Self {
        Self {
            sheds_load: true,
            ..self
        }
    }

    /// Limits the requests in flight; others wait, or are refused by [`shed_load`](Self::shed_load). 0 lets none pass.
    #[must_use]
    pub fn concurrency_limit(self, limit: usize) -> Self {
        Self {
            concurrency_limit: Some(limit),
            ..self
        }
    }

    /// Limits the time of a request with all its attempts, by tokio's clock.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        Self {
            timeout: Some(timeout),
            ..self
        }
    }

    /// Makes up to so many attempts, with [`Again`]'s usual budget.
    #[must_use]
    pub fn attempts(self, attempts: u32) -> Self {
        let again = Again::new(attempts).judge(self.judge.clone());
        self.again(again)
    }

    /// Makes attempts by a policy with a budget of one's own.
    #[must_use]
    pub fn again(self, again: Again<J>) -> Self {
        Self {
            again: Some(again),
            ..self
        }
    }

    /// Makes a second attempt beside one that has taken so long; it comes out of the same budget as retries.
    #[must_use]
    pub fn hedge_after(self, delay: Duration) -> Self {
        Self {
            hedge_after: Some(delay),
            ..self
        }
    }

    /// Limits the time of one attempt, as [`Balance::timeout`] does.
    #[must_use]
    pub fn attempt_timeout(self, timeout: Duration) -> Self {
        Self {
            attempt_timeout: Some(timeout),
            ..self
        }
    }

    /// Builds the service.
    #[must_use]
    pub fn around<S, R, K, Req>(self, balance: Balance<S, R, K>) -> Stacked<Req, S::Response>
    where
        S: Service<R::Request> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
        S::Response: Send + 'static,
        S::Error: Error + Send + Sync + 'static,
        R: Route<Req> + Clone + Send + Sync + 'static,
        R::Request: Send + 'static,
        K: Judge<S::Response, S::Error> + Clone + Send + Sync + 'static,
        J: Judge<S::Response, BoxError> + Send + Sync + 'static,
        Req: Repeatable + Send + Sync + 'static,
    {
        let clock = balance.balancer().clock().clone();
        let balance = match self.attempt_timeout {
            Some(timeout) => balance.timeout(timeout),
            None => balance,
        };
        let mut service = Stacked::new(
            balance.map_err(|error: BalanceError<S::Error>| -> BoxError { Box::new(error) }),
        );
        if let Some(delay) = self.hedge_after {
            let two = || Again::new(2).judge(self.judge.clone());
            let beneath = self.again.clone().map(Again::beneath_retries);
            let policy = beneath.unwrap_or_else(two);
            service = Stacked::new(Hedged::new(service, policy, delay, clock));
        }
        let repeats = self.again.is_some() || self.hedge_after.is_some();
        if let Some(again) = self.again {
            service = Stacked::new(Retry::new(again, service));
        }
        if repeats {
            // Before the first copy, so that the attempts know of each other.
            service = Stacked::new(service.map_request(Req::begin));
        }
        if let Some(timeout) = self.timeout {
            service = Stacked::new(Timeout::new(service, timeout));
        }
        if let Some(limit) = self.concurrency_limit {
            service = Stacked::new(ConcurrencyLimit::new(service, limit));
        }
        if self.sheds_load {
            service = Stacked::new(LoadShed::new(service));
        }
        service
    }
}

#[cfg(test)]
mod tests {
    use tower::retry::budget::{Budget as _, TpsBudget};

    use super::*;
    use crate::service::{ByDirections, Directed, function};
    use crate::{Balancer, BalancerConfig, Target};

    #[tokio::test]
    async fn a_request_that_may_be_hedged_and_retried_adds_to_the_budget_once() {
        let balancer = Balancer::new(BalancerConfig::default()).unwrap();
        let echo = function(async |n: u32| Ok::<_, std::io::Error>(n));
        balancer.register(Target::new("echo", echo)).unwrap();
        // One attempt more for each five requests.
        let again = Again::new(2).budget(TpsBudget::new(Duration::from_secs(10), 0, 0.2));
        let service = Stack::new()
            .again(again.clone())
            .hedge_after(Duration::from_secs(60))
            .around(Balance::new(balancer).route(ByDirections));
        for n in 0..5 {
            service.clone().oneshot(Directed::new(n)).await.unwrap();
        }
        assert!(again.budget.withdraw());
        assert!(!again.budget.withdraw());
    }
}
