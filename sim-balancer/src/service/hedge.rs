//! [`Hedged`]: a second attempt for a request whose first takes long.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use sim_core::clock::{Clock, Sleep};
use tower::hedge::Policy;
use tower::util::Oneshot;
use tower_service::Service;

/// Makes a second attempt when the first has not come to an end after a delay, and takes what comes first.
///
/// tower's own `Hedge`, which derives the delay from a percentile, cannot be cloned, and so cannot stand in a router; this
/// one can, its delay is given, and its time is a [`Clock`]'s. Both take [`Again`](super::Again) for a policy: then
/// the second attempt goes to another target, within the budget.
///
/// An attempt that fails while the other runs leaves it to the other; the one that is not needed any more is dropped.
///
/// # Source
///
/// Dean and Barroso, "The Tail at Scale", CACM 56(2), 2013: hedged requests, after the 95th percentile of latency, cut the tail
/// for about 5 % more load.
pub struct Hedged<S, P> {
    service: S,
    policy: P,
    delay: Duration,
    clock: Clock,
}

impl<S, P> Hedged<S, P> {
    /// Hedges `service` after `delay`.
    #[must_use]
    pub const fn new(service: S, policy: P, delay: Duration, clock: Clock) -> Self {
        Self {
            service,
            policy,
            delay,
            clock,
        }
    }
}

impl<S: Clone, P: Clone> Clone for Hedged<S, P> {
    fn clone(&self) -> Self {
        Self {
            service: self.service.clone(),
            policy: self.policy.clone(),
            delay: self.delay,
            clock: self.clock.clone(),
        }
    }
}

impl<S, P: fmt::Debug> fmt::Debug for Hedged<S, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hedged")
            .field("policy", &self.policy)
            .field("delay", &self.delay)
            .finish_non_exhaustive()
    }
}

impl<S, P, Req> Service<Req> for Hedged<S, P>
where
    S: Service<Req> + Clone,
    P: Policy<Req> + Clone,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = HedgedFuture<S, P, Req>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        // Each attempt drives its clone of the service until that is ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let spare = self.policy.clone_request(&request).map(|copy| Spare {
            service: self.service.clone(),
            policy: self.policy.clone(),
            request: copy,
            sleep: self.clock.sleep_until(self.clock.now() + self.delay),
        });
        HedgedFuture {
            first: Some(Oneshot::new(self.service.clone(), request)),
            second: None,
            spare,
        }
    }
}

/// A second attempt that has not begun.
struct Spare<S, P, Req> {
    service: S,
    policy: P,
    request: Req,
    sleep: Sleep,
}

pin_project! {
    /// The response of a [`Hedged`].
    ///
    /// # Cancel safety
    ///
    /// Dropped, it drops the attempts that run.
    pub struct HedgedFuture<S, P, Req>
    where
        S: Service<Req>,
    {
        // None once it has failed while the other runs.
        #[pin]
        first: Option<Oneshot<S, Req>>,
        #[pin]
        second: Option<Oneshot<S, Req>>,
        spare: Option<Spare<S, P, Req>>,
    }
}

impl<S, P, Req> Future for HedgedFuture<S, P, Req>
where
    S: Service<Req>,
    P: Policy<Req>,
{
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Some(spare) = this.spare
            && Pin::new(&mut spare.sleep).poll(cx).is_ready()
            && let Some(spare) = this.spare.take()
            && spare.policy.can_retry(&spare.request)
        {
            let attempt = Oneshot::new(spare.service, spare.request);
            this.second.set(Some(attempt));
        }
        for turn in 0..2 {
            let (mut one, other) = if turn == 0 {
                (this.first.as_mut(), this.second.as_mut())
            } else {
                (this.second.as_mut(), this.first.as_mut())
            };
            let Some(attempt) = one.as_mut().as_pin_mut() else {
                continue;
            };
            match attempt.poll(cx) {
                Poll::Pending => {}
                Poll::Ready(Err(_)) if other.is_some() => one.set(None),
                Poll::Ready(result) => return Poll::Ready(result),
            }
        }
        Poll::Pending
    }
}

impl<S, P, Req> fmt::Debug for HedgedFuture<S, P, Req>
where
    S: Service<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HedgedFuture")
            .field("has_second", &self.second.is_some())
            .finish_non_exhaustive()
    }
}
