//! Balanced [tower] services (feature `tower`): [`Balance`] and what goes with it.
//!
//! A [`Balance`] is a [`tower_service::Service`] over a [`Balancer`] whose targets are services themselves. It is one
//! pointer, cheap to clone, and needs neither a buffer nor a task: cloned services pick at the same time, as the
//! balancer does. A request with [`Directions`] has a lock of its own, shared by its attempts, for the targets that were tried.
//!
//! ```
//! use sim_balancer::service::Balance;
//! use sim_balancer::{Balancer, BalancerConfig, Target};
//! use tower::{ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let balancer = Balancer::new(BalancerConfig::default())?;
//! balancer.register(Target::new("double", service_fn(async |n: u32| Ok::<_, std::convert::Infallible>(2 * n))))?;
//! let service = Balance::new(balancer);
//! assert_eq!(service.oneshot(21).await?, 42);
//! # Ok(())
//! # }
//! ```
//!
//! # What tower has, and in which order
//!
//! Retries, timeouts, concurrency limits and load shedding are tower's own layers; [`Again`] is the policy of its retries and
//! hedges that sends each attempt to another target. [`Stack`] puts them together, boxed; by hand, from the outside in:
//!
//! ```
//! use std::time::Duration;
//! use sim_balancer::service::{Again, Balance, Breaker, BreakerConfig, ByDirections, Directed};
//! use sim_balancer::{Balancer, BalancerConfig, Target};
//! use sim_core::clock::Clock;
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let balancer = Balancer::new(BalancerConfig::default())?;
//! let echo = service_fn(async |n: u32| Ok::<_, std::io::Error>(n));
//! let echo = Breaker::new(echo, BreakerConfig::default(), Clock::system())?; // each target has its own
//! balancer.register(Target::new("echo", echo))?;
//!
//! let service = ServiceBuilder::new()
//!     .load_shed()                             // says no at once where the limit would make it wait
//!     .concurrency_limit(1_000)                // of the whole
//!     .timeout(Duration::from_secs(30))        // of all attempts together
//!     .retry(Again::new(3))                    // each at another target, within a budget
//!     .service(
//!         Balance::new(balancer)
//!             .route(ByDirections)
//!             .timeout(Duration::from_secs(2)) // of one attempt, and held against the target
//!     );
//! assert_eq!(service.oneshot(Directed::new(7)).await.unwrap(), 7);
//! # Ok(())
//! # }
//! ```
//!
//! [tower]: https://docs.rs/tower

mod again;
mod body;
mod breaker;
mod errors;
mod hedge;
mod judge;
mod layer;
mod route;
mod stack;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use sim_core::clock::Sleep;
use tower::util::Oneshot;
use tower_service::Service;

pub use self::again::{Again, Repeatable, directed};
pub use self::body::{LeasedBody, ThroughBody, ThroughBodyFuture};
pub use self::breaker::{
    Breaker, BreakerConfig, BreakerConfigError, BreakerError, BreakerFuture, BreakerState,
};
pub use self::errors::{ErrorsAsResponses, ErrorsAsResponsesFuture};
pub use self::hedge::{Hedged, HedgedFuture};
pub use self::judge::{ByResult, ByStatus, Judge};
pub use self::layer::{BalanceLayer, OrElse, OrElseFuture};
pub use self::route::{Anywhere, ByDirections, ByKey, Directed, Directions, Route, Tried};
pub use self::stack::{BoxError, Stack, Stacked};
use crate::balancer::Balancer;
use crate::balancer::lease::Lease;
use crate::error::PickError;
use crate::message::{Outcome, Request};
pub use tower::service_fn as function;

/// A service that gives each request to one of many services of the same kind.
///
/// The target's service is cloned for each request, driven until it is ready, and called; the lease is given back with
/// the [`Judge`]'s outcome when the response is there. A future that is dropped gives it back as cancelled.
///
/// It is always ready: a limit of requests in flight is a layer of tower's (`concurrency_limit`), one for each target is
/// the balancer's own. Where every target is at its limit, [`WhenSaturated`] decides.
pub struct Balance<S, R = Anywhere, J = ByResult> {
    balancer: Balancer<S>,
    route: R,
    judge: J,
    when_saturated: WhenSaturated,
    timeout: Option<Duration>,
}

/// What becomes of a request for which no target has room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenSaturated {
    /// It fails at once.
    #[default]
    Fail,
    /// It waits until one has. How many may wait is for a concurrency limit around it to say.
    Wait,
}

impl<S> Balance<S> {
    /// Balances the targets of `balancer`: any target will do, and an `Err` is a failure.
    #[must_use]
    pub const fn new(balancer: Balancer<S>) -> Self {
        Self {
            balancer,
            route: Anywhere,
            judge: ByResult,
            when_saturated: WhenSaturated::Fail,
            timeout: None,
        }
    }
}

impl<S, R, J> Balance<S, R, J> {
    /// Lets `route` say where a request may go: by a key, a zone, or what was tried before.
    #[must_use]
    pub fn route<R2>(self, route: R2) -> Balance<S, R2, J> {
        Balance {
            balancer: self.balancer,
            route,
            judge: self.judge,
            when_saturated: self.when_saturated,
            timeout: self.timeout,
        }
    }

    /// Lets `judge` say what a response tells of its target.
    #[must_use]
    pub fn judge<J2>(self, judge: J2) -> Balance<S, R, J2> {
        Balance {
            balancer: self.balancer,
            route: self.route,
            judge,
            when_saturated: self.when_saturated,
            timeout: self.timeout,
        }
    }

    /// Sets what becomes of a request for which no target has room.
    #[must_use]
    pub fn when_saturated(mut self, when: WhenSaturated) -> Self {
        self.when_saturated = when;
        self
    }

    /// Gives a target so long, from when it is called, for its response; by the balancer's clock.
    ///
    /// A target that takes longer counts as [unreachable](Outcome::Unreachable). A timeout around the balance, as tower has
    /// it, only drops the call, from which nothing is concluded: then a target that hangs is as good as any.
    #[must_use]
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Holds the lease of an HTTP response until its body has ended, so that a stream counts as long as it flows.
    #[must_use]
    pub const fn through_body(self) -> ThroughBody<S, R, J> {
        ThroughBody::new(self)
    }

    /// Turns errors of this service into HTTP responses: for routers, whose services do not fail.
    #[must_use]
    pub const fn errors_as_responses(self) -> ErrorsAsResponses<Self> {
        ErrorsAsResponses::new(self)
    }

    /// The balancer, to register targets and to read statistics.
    #[must_use]
    pub const fn balancer(&self) -> &Balancer<S> {
        &self.balancer
    }
}

impl<S: Send + Sync + 'static, R, J> Balance<S, R, J> {
    /// Picks for a request, or says that it is worth waiting.
    fn pick<Req>(&self, request: &Req) -> Result<Lease<S>, PickError>
    where
        R: Route<Req>,
    {
        let lease = self
            .route
            .directed(request, |directions| self.balancer.try_pick_for(directions))?;
        self.route.sent(request, lease.id());
        Ok(lease)
    }

    /// Waits for a target with room.
    fn wait<Req>(&self, request: &Req) -> Waiting<S>
    where
        R: Route<Req>,
    {
        let balancer = self.balancer.clone();
        let (key, zone, sticky, avoid) = self.route.directed(request, |asked: &Request<'_>| {
            let (zone, sticky) = (asked.zone.cloned(), asked.sticky.cloned());
            (asked.key, zone, sticky, asked.avoid.to_vec())
        });
        Box::pin(async move {
            let asked = Request {
                key,
                zone: zone.as_ref(),
                sticky: sticky.as_ref(),
                avoid: &avoid,
            };
            balancer.pick_for(&asked).await
        })
    }

    /// Starts the call, or gives the request back when no target takes it.
    fn try_start<Req>(&self, request: Req) -> Result<BalanceFuture<S, R, J, Req>, (Req, PickError)>
    where
        S: Service<R::Request> + Clone,
        R: Route<Req> + Clone,
        J: Clone,
    {
        let stage = match self.pick(&request) {
            Ok(lease) => {
                let request = self.route.clone().unwrap_request(request);
                Stage::calling(lease, request, self.timeout)
            }
            Err(PickError::Saturated) if self.when_saturated == WhenSaturated::Wait => {
                Stage::Waiting {
                    waiting: self.wait(&request),
                    request: Some(request),
                    route: self.route.clone(),
                }
            }
            Err(error) => return Err((request, error)),
        };
        Ok(BalanceFuture::new(stage, self.judge.clone(), self.timeout))
    }

    /// Starts the call.
    fn start<Req>(&self, request: Req) -> BalanceFuture<S, R, J, Req>
    where
        S: Service<R::Request> + Clone,
        R: Route<Req> + Clone,
        J: Clone,
    {
        self.try_start(request).unwrap_or_else(|(_, error)| {
            let refused = Stage::Refused { error: Some(error) };
            BalanceFuture::new(refused, self.judge.clone(), None)
        })
    }
}

impl<S, R, J, Req> Service<Req> for Balance<S, R, J>
where
    S: Service<R::Request> + Clone + Send + Sync + 'static,
    R: Route<Req> + Clone,
    J: Judge<S::Response, S::Error> + Clone,
{
    type Response = S::Response;
    type Error = BalanceError<S::Error>;
    type Future = BalanceFuture<S, R, J, Req>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        self.start(request)
    }
}

impl<S, R: Clone, J: Clone> Clone for Balance<S, R, J> {
    fn clone(&self) -> Self {
        Self {
            balancer: self.balancer.clone(),
            route: self.route.clone(),
            judge: self.judge.clone(),
            when_saturated: self.when_saturated,
            timeout: self.timeout,
        }
    }
}

impl<S, R: fmt::Debug, J: fmt::Debug> fmt::Debug for Balance<S, R, J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Balance")
            .field("route", &self.route)
            .field("judge", &self.judge)
            .field("when_saturated", &self.when_saturated)
            .finish_non_exhaustive()
    }
}

/// Why a balanced service did not respond.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BalanceError<E> {
    /// There was no target to give the request to; it was given to none.
    #[error("no target was picked: {0}")]
    Pick(#[source] PickError),
    /// The target's own error.
    #[error("the target failed: {0}")]
    Service(E),
    /// The target did not respond within the balance's [timeout](Balance::timeout).
    #[error("the target did not respond in time")]
    TimedOut,
    /// The call was cut off: the target drained for too long or became unhealthy, under rules that then terminate
    /// connections. The body of a response that has come is not cut off.
    #[error("the call was ended, as the rules say for a target that leaves or is unhealthy")]
    Terminated,
}

/// Completes when what runs at the target is to be ended.
type Ending = Pin<Box<dyn Future<Output = ()> + Send>>;

type Waiting<S> = Pin<Box<dyn Future<Output = Lease<S>> + Send>>;

pin_project! {
    /// What a [`Balance`] is doing for a request.
    #[project = StageProjection]
    enum Stage<S, R, Req>
    where
        S: Service<R::Request>,
        R: Route<Req>,
    {
        Refused { error: Option<PickError> },
        // The one box: only a request that waits for room has it.
        Waiting { waiting: Waiting<S>, request: Option<Req>, route: R },
        Calling {
            lease: Option<Lease<S>>,
            #[pin] call: Oneshot<S, R::Request>,
            deadline: Option<Sleep>,
            ending: Option<Ending>,
        },
    }
}

impl<S, R, Req> Stage<S, R, Req>
where
    S: Service<R::Request> + Clone + Send + Sync + 'static,
    R: Route<Req>,
{
    fn calling(lease: Lease<S>, request: R::Request, timeout: Option<Duration>) -> Self {
        let call = Oneshot::new((*lease).clone(), request);
        Self::Calling {
            deadline: timeout.map(|timeout| lease.sleep(timeout)),
            ending: lease.termination(),
            lease: Some(lease),
            call,
        }
    }
}

pin_project! {
    /// The response of a [`Balance`].
    ///
    /// # Cancel safety
    ///
    /// Dropped, it drops the target's own future, and gives the lease back as cancelled: the target's load and latency are as
    /// if the request had never been.
    pub struct BalanceFuture<S, R, J, Req>
    where
        S: Service<R::Request>,
        R: Route<Req>,
    {
        #[pin]
        stage: Stage<S, R, Req>,
        judge: J,
        timeout: Option<Duration>,
    }
}

/// A response, its lease, and what the one says about the other.
type Answered<S, Res> = (Res, Lease<S>, Outcome);

impl<S, R, J, Req> BalanceFuture<S, R, J, Req>
where
    S: Service<R::Request>,
    R: Route<Req>,
{
    const fn new(stage: Stage<S, R, Req>, judge: J, timeout: Option<Duration>) -> Self {
        Self {
            stage,
            judge,
            timeout,
        }
    }
}

impl<S, R, J, Req> BalanceFuture<S, R, J, Req>
where
    S: Service<R::Request> + Clone + Send + Sync + 'static,
    R: Route<Req>,
    J: Judge<S::Response, S::Error>,
{
    #[expect(
        clippy::type_complexity,
        reason = "a poll of a result, its parts named"
    )]
    fn poll_answer(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Answered<S, S::Response>, BalanceError<S::Error>>> {
        let mut this = self.project();
        loop {
            let next = match this.stage.as_mut().project() {
                StageProjection::Refused { error } => {
                    let error = error.take().expect("polled after it completed");
                    return Poll::Ready(Err(BalanceError::Pick(error)));
                }
                StageProjection::Waiting {
                    waiting,
                    request,
                    route,
                } => {
                    let lease = ready!(waiting.as_mut().poll(cx));
                    let request = request.take().expect("polled after it completed");
                    route.sent(&request, lease.id());
                    Stage::calling(lease, route.unwrap_request(request), *this.timeout)
                }
                StageProjection::Calling {
                    lease,
                    call,
                    deadline,
                    ending,
                } => {
                    let Poll::Ready(result) = call.poll(cx) else {
                        if let Some(deadline) = deadline
                            && Pin::new(deadline).poll(cx).is_ready()
                        {
                            if let Some(lease) = lease.take() {
                                lease.complete(Outcome::Unreachable);
                            }
                            return Poll::Ready(Err(BalanceError::TimedOut));
                        }
                        if let Some(ending) = ending
                            && ending.as_mut().poll(cx).is_ready()
                        {
                            // Dropped: nothing is concluded from what was cut off.
                            drop(lease.take());
                            return Poll::Ready(Err(BalanceError::Terminated));
                        }
                        return Poll::Pending;
                    };
                    let lease = lease.take().expect("polled after it completed");
                    let outcome = this.judge.outcome(&result);
                    return Poll::Ready(match result {
                        Ok(response) => Ok((response, lease, outcome)),
                        Err(error) => {
                            lease.complete(outcome);
                            Err(BalanceError::Service(error))
                        }
                    });
                }
            };
            this.stage.set(next);
        }
    }
}

impl<S, R, J, Req> Future for BalanceFuture<S, R, J, Req>
where
    S: Service<R::Request> + Clone + Send + Sync + 'static,
    R: Route<Req>,
    J: Judge<S::Response, S::Error>,
{
    type Output = Result<S::Response, BalanceError<S::Error>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answered = ready!(self.poll_answer(cx));
        Poll::Ready(answered.map(|(response, lease, outcome)| {
            lease.complete(outcome);
            response
        }))
    }
}

impl<S, R, J, Req> fmt::Debug for BalanceFuture<S, R, J, Req>
where
    S: Service<R::Request>,
    R: Route<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BalanceFuture").finish_non_exhaustive()
    }
}
