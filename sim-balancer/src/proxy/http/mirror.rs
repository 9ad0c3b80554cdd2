//! Copies of requests, sent to another group whose answers nobody waits for.
//!
//! Only requests without a body are copied: a body streams through once. Copies run in tasks of the worker, end with it, and are
//! bounded: when too many are out, the next are left out.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use http::Request;
use http::request::Parts;
use http_body_util::BodyExt;
use sim_core::sync::Arc;
use tower::{Service, ServiceExt};

use super::body::{Body, Outgoing};
use super::group::{Address, Ends, Group, Held};
use super::metric::Count;
use super::serve::Client;
use super::site::{Site, Worker};
use crate::message::Outcome;
use crate::proxy::action::Mirror;

/// The most copies that are out at a time, a worker.
const MOST: usize = 256;

/// How long a copy may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Sends a copy, unless the request has a body or too many copies are out.
pub(crate) fn send(
    client: &Arc<Client>,
    site: &Site,
    mirror: &Mirror,
    parts: &Parts,
    body: &Outgoing,
) {
    let Some(group) = site.groups.get(mirror.group).cloned() else {
        return;
    };
    // What was made ready for one version is no head of the other.
    if !matches!(body, Outgoing::Empty)
        || group.is_http2() != (parts.version == http::Version::HTTP_2)
    {
        return;
    }
    let Some(place) = Place::take(&client.worker) else {
        return;
    };
    let mut request = Request::new(Outgoing::Empty);
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = parts.uri.clone();
    *request.headers_mut() = parts.headers.clone();
    *request.version_mut() = parts.version;
    client.hall.metrics.count(Count::Mirrors);
    let client = Arc::clone(client);
    tokio::spawn(async move {
        let _ = tokio::time::timeout(PATIENCE, copy(&client, &group, request)).await;
        drop(place);
    });
}

/// Sends the copy and reads the answer to its end, so that the connection can be used again.
async fn copy(client: &Client, group: &Arc<Group>, request: Request<Outgoing>) {
    let Ok(lease) = group.balancer.try_pick() else {
        return;
    };
    let target = Arc::clone(&*lease);
    let worker = client.worker.index;
    let ends = Ends {
        peer: client.peer,
        local: client.local,
    };
    let answered = async {
        match target.address() {
            Address::Function(function) => {
                let mut function = function.clone();
                let response = function
                    .ready()
                    .await
                    .ok()?
                    .call(request.map(Body::request))
                    .await
                    .ok()?;
                response.into_body().collect().await.ok().map(drop)
            }
            _ if group.is_http2() => {
                let now = client.hall.clock.recent();
                let mut seat = match target.seat(worker, &group.dial, now) {
                    Some(seat) => seat,
                    None => group.open_shared(&target, ends, worker, now).await.ok()?,
                };
                let response = seat.send.send_request(request).await.ok()?;
                response.into_body().collect().await.ok().map(drop)
            }
            _ => {
                let mut link = match target.take(worker, &group.dial) {
                    Some(link) => link,
                    None => group.open(&target, ends).await.ok()?,
                };
                let mut response = pin!(link.send.send_request(request));
                let response =
                    std::future::poll_fn(|cx| link.poll_with(cx, |cx| response.as_mut().poll(cx)));
                let mut body = response.await.ok()?.into_body();
                loop {
                    let frame = std::future::poll_fn(|cx| {
                        link.poll_with(cx, |cx| {
                            hyper::body::Body::poll_frame(std::pin::Pin::new(&mut body), cx)
                        })
                    });
                    match frame.await {
                        Some(Ok(_)) => {}
                        Some(Err(_)) => return None,
                        None => break,
                    }
                }
                let held = Held {
                    link,
                    home: Arc::clone(&target),
                    worker,
                    clock: client.hall.clock.clone(),
                    reusable: !group.dial.prefix,
                };
                held.release();
                Some(())
            }
        }
    };
    let outcome = if answered.await.is_some() {
        Outcome::Success
    } else {
        Outcome::Unreachable
    };
    lease.complete(outcome);
}

/// A copy's place among those that may be out.
struct Place(Arc<Worker>);

impl Place {
    fn take(worker: &Arc<Worker>) -> Option<Self> {
        let mut copies = worker.copies.lock();
        if *copies >= MOST {
            return None;
        }
        *copies += 1;
        Some(Self(Arc::clone(worker)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        *self.0.copies.lock() -= 1;
    }
}
