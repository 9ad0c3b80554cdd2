//! tower's balancer: the less loaded of two ready services drawn at random.

use std::future::{Ready, ready};
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tower::balance::p2c::Balance;
use tower::discover::ServiceList;
use tower::load::{CompleteOnResponse, Load, PeakEwma, PendingRequests};
use tower::{Service, ServiceExt};

use crate::pattern::{Failure, Peer};
use crate::picks::seen;
use crate::timing::Stopwatch;

/// The peer that counts pending requests.
pub(crate) const PENDING: &str = "tower-p2c-pending";
/// The peer that weighs latencies.
pub(crate) const PEAK_EWMA: &str = "tower-p2c-peak-ewma";

/// A service that answers with its number at once.
#[derive(Clone, Debug)]
struct Numbered(u32);

impl Service<()> for Numbered {
    type Response = u32;
    type Error = std::convert::Infallible;
    type Future = Ready<Result<u32, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        ready(Ok(self.0))
    }
}

/// By the number of pending requests.
#[must_use]
pub(crate) fn pending(targets: u32) -> Peer {
    peer(PENDING, targets, |service| {
        PendingRequests::new(service, CompleteOnResponse::default())
    })
}

/// By peak-sensitive latency times pending requests; linkerd's default and decay.
#[must_use]
pub(crate) fn peak_ewma(targets: u32) -> Peer {
    let (default, decay) = (Duration::from_millis(30), 10e9);
    peer(PEAK_EWMA, targets, move |service| {
        PeakEwma::new(service, default, decay, CompleteOnResponse::default())
    })
}

fn peer<S>(name: &str, targets: u32, wrap: impl Fn(Numbered) -> S + 'static) -> Peer
where
    S: Service<(), Response = u32> + Load + 'static,
    S::Error: Into<tower::BoxError>,
    S::Metric: std::fmt::Debug,
{
    Peer::new(name, move |count| {
        let services: Vec<S> = (0..targets).map(|n| wrap(Numbered(n))).collect();
        let mut balance = Balance::new(ServiceList::new(services));
        let mut context = Context::from_waker(Waker::noop());
        // The first readiness takes all services in.
        let mut step = || -> Result<(), Failure> {
            let failed = |error: tower::BoxError| Failure(error.to_string());
            match pin!(balance.ready()).poll(&mut context) {
                Poll::Ready(ready) => drop(ready.map_err(failed)?),
                Poll::Pending => return Err(Failure("nobody is ready".to_owned())),
            }
            match pin!(balance.call(())).poll(&mut context) {
                Poll::Ready(number) => seen(number.map_err(failed)?),
                Poll::Pending => return Err(Failure("no answer".to_owned())),
            }
            Ok(())
        };
        step()?;
        let watch = Stopwatch::start();
        for _ in 0..count {
            step()?;
        }
        Ok(watch.elapsed())
    })
}
