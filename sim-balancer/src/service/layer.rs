//! [`BalanceLayer`]: balanced targets in front of a service of one's own.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower::util::Oneshot;
use tower_layer::Layer;
use tower_service::Service;

use super::{Anywhere, Balance, BalanceError, BalanceFuture, ByResult, Judge, Route};

/// Gives requests to balanced targets, and to the layered service those for which there is no target.
///
/// With a local service inside, a program works from the first moment, before any target has registered, and in the last one.
#[derive(Debug)]
pub struct BalanceLayer<S, R = Anywhere, J = ByResult> {
    balance: Balance<S, R, J>,
}

impl<S, R, J> BalanceLayer<S, R, J> {
    /// A layer that tries the targets of `balance` first.
    #[must_use]
    pub const fn new(balance: Balance<S, R, J>) -> Self {
        Self { balance }
    }
}

impl<S, R: Clone, J: Clone> Clone for BalanceLayer<S, R, J> {
    fn clone(&self) -> Self {
        Self {
            balance: self.balance.clone(),
        }
    }
}

impl<S, R: Clone, J: Clone, I> Layer<I> for BalanceLayer<S, R, J> {
    type Service = OrElse<S, R, J, I>;

    fn layer(&self, inner: I) -> Self::Service {
        OrElse {
            balance: self.balance.clone(),
            inner,
        }
    }
}

/// The service of a [`BalanceLayer`].
#[derive(Debug)]
pub struct OrElse<S, R, J, I> {
    balance: Balance<S, R, J>,
    inner: I,
}

impl<S, R: Clone, J: Clone, I: Clone> Clone for OrElse<S, R, J, I> {
    fn clone(&self) -> Self {
        Self {
            balance: self.balance.clone(),
            inner: self.inner.clone(),
        }
    }
}

impl<S, R, J, I, Req> Service<Req> for OrElse<S, R, J, I>
where
    S: Service<R::Request> + Clone + Send + Sync + 'static,
    R: Route<Req> + Clone,
    J: Judge<S::Response, S::Error> + Clone,
    I: Service<R::Request, Response = S::Response> + Clone,
    I::Error: From<BalanceError<S::Error>>,
{
    type Response = S::Response;
    type Error = I::Error;
    type Future = OrElseFuture<S, R, J, I, Req>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let holder = match self.balance.try_start(request) {
            Ok(future) => Holder::Target { future },
            Err((request, _)) => Holder::Inner {
                future: Oneshot::new(
                    self.inner.clone(),
                    self.balance.route.unwrap_request(request),
                ),
            },
        };
        OrElseFuture { holder }
    }
}

pin_project! {
    #[project = HolderProjection]
    enum Holder<S, R, J, I, Req>
    where
        S: Service<R::Request>,
        R: Route<Req>,
        I: Service<R::Request>,
    {
        Target { #[pin] future: BalanceFuture<S, R, J, Req> },
        Inner { #[pin] future: Oneshot<I, R::Request> },
    }
}

pin_project! {
    /// The response of an [`OrElse`].
    ///
    /// # Cancel safety
    ///
    /// As that of the service which has the request.
    pub struct OrElseFuture<S, R, J, I, Req>
    where
        S: Service<R::Request>,
        R: Route<Req>,
        I: Service<R::Request>,
    {
        #[pin]
        holder: Holder<S, R, J, I, Req>,
    }
}

impl<S, R, J, I, Req> Future for OrElseFuture<S, R, J, I, Req>
where
    S: Service<R::Request> + Clone + Send + Sync + 'static,
    R: Route<Req>,
    J: Judge<S::Response, S::Error>,
    I: Service<R::Request, Response = S::Response>,
    I::Error: From<BalanceError<S::Error>>,
{
    type Output = Result<S::Response, I::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().holder.project() {
            HolderProjection::Target { future } => {
                Poll::Ready(ready!(future.poll(cx)).map_err(Into::into))
            }
            HolderProjection::Inner { future } => future.poll(cx),
        }
    }
}

impl<S, R, J, I, Req> fmt::Debug for OrElseFuture<S, R, J, I, Req>
where
    S: Service<R::Request>,
    R: Route<Req>,
    I: Service<R::Request>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OrElseFuture").finish_non_exhaustive()
    }
}
