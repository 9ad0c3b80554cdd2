//! [`ThroughBody`]: the lease of a response is held until its body has ended.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Buf;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{Balance, BalanceError, BalanceFuture, Judge, Route};
use crate::balancer::lease::Lease;
use crate::message::Outcome;

/// A [`Balance`] of HTTP services that holds the lease until the body of the response has ended; made by
/// [`Balance::through_body`].
#[derive(Debug)]
pub struct ThroughBody<S, R, J>(Balance<S, R, J>);

impl<S, R, J> ThroughBody<S, R, J> {
    pub(super) const fn new(balance: Balance<S, R, J>) -> Self {
        Self(balance)
    }
}

impl<S, R: Clone, J: Clone> Clone for ThroughBody<S, R, J> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S, R, J, Req, B> Service<Req> for ThroughBody<S, R, J>
where
    S: Service<R::Request, Response = http::Response<B>> + Clone + Send + Sync + 'static,
    R: Route<Req> + Clone,
    J: Judge<S::Response, S::Error> + Clone,
    B: Body,
{
    type Response = http::Response<LeasedBody<B, S>>;
    type Error = BalanceError<S::Error>;
    type Future = ThroughBodyFuture<S, R, J, Req>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        ThroughBodyFuture {
            future: self.0.start(request),
        }
    }
}

pin_project! {
    /// The response of a [`ThroughBody`].
    ///
    /// # Cancel safety
    ///
    /// As that of [`BalanceFuture`].
    pub struct ThroughBodyFuture<S, R, J, Req>
    where
        S: Service<R::Request>,
        R: Route<Req>,
    {
        #[pin]
        future: BalanceFuture<S, R, J, Req>,
    }
}

impl<S, R, J, Req, B> Future for ThroughBodyFuture<S, R, J, Req>
where
    S: Service<R::Request, Response = http::Response<B>> + Clone + Send + Sync + 'static,
    R: Route<Req>,
    J: Judge<S::Response, S::Error>,
    B: Body,
{
    type Output = Result<http::Response<LeasedBody<B, S>>, BalanceError<S::Error>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (response, lease, outcome) = ready!(self.project().future.poll_answer(cx))?;
        let told = response.headers().get(http::header::CONTENT_LENGTH);
        let told = told.and_then(|value| value.to_str().ok()?.parse().ok());
        Poll::Ready(Ok(response.map(|body| {
            let mut lease = Some((lease, outcome));
            if body.is_end_stream()
                && let Some((lease, outcome)) = lease.take()
            {
                // No server asks for what is not there.
                lease.complete(outcome);
            }
            LeasedBody {
                lease,
                is_asked: false,
                left: told.or_else(|| body.size_hint().exact()),
                of_trailers: J::of_trailers,
                body,
            }
        })))
    }
}

impl<S, R, J, Req> fmt::Debug for ThroughBodyFuture<S, R, J, Req>
where
    S: Service<R::Request>,
    R: Route<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThroughBodyFuture").finish_non_exhaustive()
    }
}

pin_project! {
    /// A body that gives its lease back when it ends: as a failure when it breaks off, as cancelled when it is dropped before.
    ///
    /// It has ended too when it is dropped after as many bytes as its `content-length` or its exact size says, and when it is
    /// dropped before anybody asked for any of it: so servers do with the body of a response to a `HEAD`, or of a 204 or
    /// a 304. Then the head says how it went.
    ///
    /// What the target's latency counts is the time to the end of the body.
    pub struct LeasedBody<B, S> {
        #[pin]
        body: B,
        lease: Option<(Lease<S>, Outcome)>,
        is_asked: bool,
        // Bytes that are still to come, where that is known.
        left: Option<u64>,
        of_trailers: fn(&HeaderMap) -> Option<Outcome>,
    }

    impl<B, S> PinnedDrop for LeasedBody<B, S> {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            let has_ended = !*this.is_asked || *this.left == Some(0);
            if has_ended && let Some((lease, judged)) = this.lease.take() {
                lease.complete(judged);
            }
        }
    }
}

impl<B: Body, S: Send + Sync + 'static> Body for LeasedBody<B, S> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let mut this = self.project();
        *this.is_asked = true;
        let frame = ready!(this.body.as_mut().poll_frame(cx));
        if let Some(Ok(last)) = &frame
            && let Some(trailers) = last.trailers_ref()
            && let Some((_, outcome)) = this.lease
            && let Some(told) = (this.of_trailers)(trailers)
        {
            *outcome = told;
        }
        if let Some(Ok(part)) = &frame
            && let Some(data) = part.data_ref()
            && let Some(left) = this.left
        {
            *left = left.saturating_sub(data.remaining() as u64);
        }
        let outcome_of_end = match &frame {
            // A server may not ask again after the last frame.
            Some(Ok(_)) if this.body.is_end_stream() => Some(None),
            Some(Ok(_)) => None,
            Some(Err(_)) => Some(Some(Outcome::Failure)),
            None => Some(None),
        };
        if let Some(broken) = outcome_of_end
            && let Some((lease, judged)) = this.lease.take()
        {
            lease.complete(broken.unwrap_or(judged));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        // While the lease is held, the end is to be asked for: it is what gives the lease back.
        self.lease.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B: fmt::Debug, S> fmt::Debug for LeasedBody<B, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeasedBody")
            .field("body", &self.body)
            .field("is_leased", &self.lease.is_some())
            .finish()
    }
}
