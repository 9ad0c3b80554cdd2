//! [`ErrorsAsResponses`]: for routers, whose services do not fail.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::StatusCode;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::BalanceError;

/// Answers for its service when that fails: 503 when no target was picked, 502 when the target failed or the call was cut off, 504
/// when it did not respond in time. The body is empty.
#[derive(Debug, Clone, Copy)]
pub struct ErrorsAsResponses<V>(V);

impl<V> ErrorsAsResponses<V> {
    pub(super) const fn new(service: V) -> Self {
        Self(service)
    }
}

impl<V, Req, B, E> Service<Req> for ErrorsAsResponses<V>
where
    V: Service<Req, Response = http::Response<B>, Error = BalanceError<E>>,
    B: Default,
{
    type Response = http::Response<B>;
    type Error = Infallible;
    type Future = ErrorsAsResponsesFuture<V::Future>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // A balance is always ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        ErrorsAsResponsesFuture {
            future: self.0.call(request),
        }
    }
}

pin_project! {
    /// The response of an [`ErrorsAsResponses`].
    ///
    /// # Cancel safety
    ///
    /// As that of its service.
    pub struct ErrorsAsResponsesFuture<F> {
        #[pin]
        future: F,
    }
}

impl<F, B, E> Future for ErrorsAsResponsesFuture<F>
where
    F: Future<Output = Result<http::Response<B>, BalanceError<E>>>,
    B: Default,
{
    type Output = Result<http::Response<B>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let status = match ready!(self.project().future.poll(cx)) {
            Ok(response) => return Poll::Ready(Ok(response)),
            Err(BalanceError::Pick(_)) => StatusCode::SERVICE_UNAVAILABLE,
            Err(BalanceError::TimedOut) => StatusCode::GATEWAY_TIMEOUT,
            Err(BalanceError::Service(_) | BalanceError::Terminated) => StatusCode::BAD_GATEWAY,
        };
        let mut response = http::Response::new(B::default());
        *response.status_mut() = status;
        Poll::Ready(Ok(response))
    }
}

impl<F> fmt::Debug for ErrorsAsResponsesFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ErrorsAsResponsesFuture")
            .finish_non_exhaustive()
    }
}
