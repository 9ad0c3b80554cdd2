//! A request at its targets: tried, tried again where that is safe or asked for, answered.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll};

use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode, Uri, response};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use sim_core::sync::{Arc, Mutex};
use tower::{Service, ServiceExt};

use super::body::{Body, Outgoing, Reply, Upload};
use super::exchange::{Abort, Refusal, close, refuse};
use super::field;
use super::group::{Address, DialError, Endpoint, Ends, Group, Held};
use super::late::Late;
use super::metric::Count;
use super::passage::Passage;
use super::retry::{Cause, Repeat};
use super::serve::Client;
use super::site::Site;
use super::upgrade::Tunnel;
use crate::message::{self, Outcome, TargetId};
use crate::proxy::action::Edits;

/// A request on its way to a group.
pub(crate) struct Forward<'a> {
    pub(crate) client: &'a Arc<Client>,
    pub(crate) site: &'a Site,
    pub(crate) group: &'a Arc<Group>,
    pub(crate) edits: Edits,
    /// What hash-based algorithms go by.
    pub(crate) key: Option<u64>,
    /// The target that the client belongs to.
    pub(crate) sticky: Option<TargetId>,
    pub(crate) upload: Option<Arc<Mutex<Upload>>>,
    pub(crate) closing: bool,
}

/// What came of one try.
enum Try {
    /// A response, of which the rest is still to come.
    Answered(response::Parts, From),
    /// The target could not be had, or did not answer as it should.
    Failed(Refusal, Outcome, Cause),
    /// The connection was a used one, and died before a byte of the response came.
    Stale,
    /// The connection was a used one, and died before the request was sent.
    Unsent(Request<Outgoing>),
    /// The client is gone.
    Gone,
}

/// Where the body of a response comes from.
enum From {
    Link(Incoming, Held),
    Stream(Incoming, Arc<()>),
    Function(Body),
}

/// The head of a request, kept for a second try.
struct Kept {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    version: http::Version,
}

impl Kept {
    fn of(request: &Request<Outgoing>) -> Self {
        Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            headers: request.headers().clone(),
            version: request.version(),
        }
    }

    fn into_request(self) -> Request<Outgoing> {
        let mut request = Request::new(Outgoing::Empty);
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.headers_mut() = self.headers;
        *request.version_mut() = self.version;
        request
    }
}

impl Forward<'_> {
    /// Sends the request to a target, to others when the group's policy says so, and answers.
    pub(crate) async fn run(
        self,
        mut passage: Passage,
        parts: Parts,
        body: Outgoing,
        upgrade: Option<OnUpgrade>,
    ) -> Result<Response<Reply>, Abort> {
        let client = self.client;
        let clock = &client.hall.clock;
        let policy = &self.group.retry;
        let replayable = matches!(body, Outgoing::Empty) && parts.method.is_idempotent();
        let mut left = if matches!(body, Outgoing::Empty) {
            policy.attempts()
        } else {
            0
        };
        let _progress = policy.begin();
        let mut late = Late::new(
            client,
            self.site.settings.request_timeout,
            self.upload.clone(),
        );
        let mut avoid: Vec<TargetId> = Vec::new();
        let mut request = Request::from_parts(parts, body);
        let mut fresh = upgrade.is_some();
        let mut repeat: Option<Repeat> = None;
        loop {
            let ask = message::Request {
                key: self.key,
                sticky: self.sticky.as_ref(),
                avoid: &avoid,
                ..Default::default()
            };
            let lease = match self.group.balancer.try_pick_for(&ask) {
                Ok(lease) => lease,
                Err(_) => {
                    return Ok(refuse(
                        client,
                        passage,
                        &Refusal(503, "NoTarget"),
                        self.closing,
                    ));
                }
            };
            let target = Arc::clone(&*lease);
            let id = (left > 0 || self.group.plan.sticky.is_some()).then(|| lease.id().clone());
            passage.sent_to(self.group, lease, clock.fine());
            let kept = (replayable || left > 0).then(|| Kept::of(&request));
            late.start_try(policy.per_try_timeout());
            let tried = match target.address() {
                Address::Function(function) => {
                    Box::pin(call(function.clone(), request, &mut late)).await
                }
                _ if self.group.is_http2() => {
                    Box::pin(self.try_stream(&target, request, &mut late, fresh)).await
                }
                _ => self.try_link(&target, request, &mut late, fresh).await,
            };
            drop(repeat.take());
            let (refusal, outcome, cause) = match tried {
                Try::Answered(response, from) => {
                    let again = left > 0 && policy.wants_status(response.status.as_u16());
                    match (again.then(|| policy.repeat()).flatten(), kept) {
                        (Some(turn), Some(kept)) => {
                            passage.answered(response.status, clock.fine());
                            passage.next_try();
                            repeat = Some(turn);
                            request = kept.into_request();
                            left -= 1;
                            avoid.extend(id);
                            client.hall.metrics.count(Count::Retries);
                            continue;
                        }
                        _ => {
                            passage.answered(response.status, clock.fine());
                            return Ok(self.respond(passage, response, from, upgrade, late, id));
                        }
                    }
                }
                Try::Gone => return Err(Abort),
                Try::Stale if replayable && kept.is_some() => {
                    passage.try_failed(Outcome::Cancelled);
                    client.hall.metrics.count(Count::Retries);
                    if let Some(kept) = kept {
                        request = kept.into_request();
                    } else {
                        return Err(Abort);
                    }
                    // A used connection may fail again; a new one tells the truth about the target.
                    fresh = true;
                    continue;
                }
                Try::Stale => (
                    Refusal(502, "TargetClosedConnection"),
                    Outcome::Unreachable,
                    Cause::Reset,
                ),
                Try::Unsent(unsent) => {
                    passage.try_failed(Outcome::Cancelled);
                    client.hall.metrics.count(Count::Retries);
                    request = unsent;
                    fresh = true;
                    continue;
                }
                Try::Failed(refusal, outcome, cause) => (refusal, outcome, cause),
            };
            passage.try_failed(outcome);
            let again = left > 0 && policy.wants(cause);
            if let (Some(turn), Some(kept)) = (again.then(|| policy.repeat()).flatten(), kept) {
                repeat = Some(turn);
                request = kept.into_request();
                left -= 1;
                avoid.extend(id);
                client.hall.metrics.count(Count::Retries);
                continue;
            }
            let unread = self
                .upload
                .as_ref()
                .is_some_and(|upload| !upload.lock().complete);
            return Ok(refuse(client, passage, &refusal, self.closing || unread));
        }
    }

    async fn try_link(
        &self,
        target: &Arc<Endpoint>,
        request: Request<Outgoing>,
        late: &mut Late<'_>,
        fresh: bool,
    ) -> Try {
        let client = self.client;
        let worker = client.worker.index;
        let rested = if fresh || self.group.dial.prefix {
            None
        } else {
            target.take(worker, &self.group.dial)
        };
        let used = rested.is_some();
        let mut link = match rested {
            Some(link) => link,
            // Rare and large: not a part of each request's future.
            None => match Box::pin(self.open(late, self.group.open(target, ends(client)))).await {
                Ok(link) => link,
                Err(failed) => return failed,
            },
        };
        link.carried = link.carried.saturating_add(1);
        let before = link.received();
        let mut response = pin!(link.send.try_send_request(request));
        let outcome = poll_fn(|cx| {
            if let Poll::Ready(outcome) = link.poll_with(cx, |cx| response.as_mut().poll(cx)) {
                return Poll::Ready(Some(outcome));
            }
            late.poll(cx).map(|()| None)
        })
        .await;
        match outcome {
            Some(Ok(response)) => {
                let (parts, incoming) = response.into_parts();
                let held = Held {
                    link,
                    home: Arc::clone(target),
                    worker,
                    clock: client.hall.clock.clone(),
                    reusable: !self.group.dial.prefix,
                };
                Try::Answered(parts, From::Link(incoming, held))
            }
            Some(Err(mut failed)) => {
                if let Some(ended) = self.upload_ended() {
                    return ended;
                }
                if used && let Some(request) = failed.take_message() {
                    return Try::Unsent(request);
                }
                let error = failed.into_error();
                if used && link.received() == before && !error.is_parse() {
                    return Try::Stale;
                }
                Try::Failed(blame(&error), Outcome::Unreachable, Cause::Reset)
            }
            None => self.too_late(),
        }
    }

    async fn try_stream(
        &self,
        target: &Arc<Endpoint>,
        request: Request<Outgoing>,
        late: &mut Late<'_>,
        fresh: bool,
    ) -> Try {
        let client = self.client;
        let worker = client.worker.index;
        let now = client.hall.clock.recent();
        let mut used = true;
        let seat = if fresh || self.group.dial.prefix {
            None
        } else {
            target.seat(worker, &self.group.dial, now)
        };
        let mut seat = match seat {
            Some(seat) => seat,
            None => {
                used = false;
                match self
                    .open(
                        late,
                        self.group.open_shared(target, ends(client), worker, now),
                    )
                    .await
                {
                    Ok(seat) => seat,
                    Err(failed) => return failed,
                }
            }
        };
        let mut response = pin!(seat.send.try_send_request(request));
        let outcome = poll_fn(|cx| {
            if let Poll::Ready(outcome) = response.as_mut().poll(cx) {
                return Poll::Ready(Some(outcome));
            }
            late.poll(cx).map(|()| None)
        })
        .await;
        match outcome {
            Some(Ok(response)) => {
                let (parts, incoming) = response.into_parts();
                Try::Answered(parts, From::Stream(incoming, seat.user))
            }
            Some(Err(mut failed)) => {
                if let Some(ended) = self.upload_ended() {
                    return ended;
                }
                if used && let Some(request) = failed.take_message() {
                    return Try::Unsent(request);
                }
                let error = failed.into_error();
                // What was cancelled was never sent, or refused by a target that is going away.
                if used && (error.is_canceled() || error.is_closed()) {
                    return Try::Stale;
                }
                Try::Failed(blame(&error), Outcome::Unreachable, Cause::Reset)
            }
            None => self.too_late(),
        }
    }

    /// Opens a connection, unless it is too late.
    async fn open<T>(
        &self,
        late: &mut Late<'_>,
        opening: impl Future<Output = Result<T, DialError>>,
    ) -> Result<T, Try> {
        let metrics = &self.client.hall.metrics;
        let mut opening = pin!(opening);
        let outcome = poll_fn(|cx| {
            if let Poll::Ready(outcome) = opening.as_mut().poll(cx) {
                return Poll::Ready(Some(outcome));
            }
            late.poll(cx).map(|()| None)
        })
        .await;
        let error = match outcome {
            Some(Ok(opened)) => {
                metrics.count(Count::TargetConnections);
                return Ok(opened);
            }
            None => return Err(self.too_late()),
            Some(Err(error)) => error,
        };
        metrics.count(match error {
            DialError::Tls(_) => Count::TargetTlsErrors,
            _ => Count::TargetConnectionErrors,
        });
        let refusal = match error {
            DialError::Late => Refusal(504, "TargetConnectTimeout"),
            DialError::Connect(_) => Refusal(502, "TargetConnectionRefused"),
            DialError::Tls(_) => Refusal(502, "TargetTlsError"),
            DialError::Http(_) => Refusal(502, "TargetProtocolError"),
        };
        Err(Try::Failed(refusal, Outcome::Unreachable, Cause::Connect))
    }

    /// What a try that ended with an error means when the client's own body was the cause.
    fn upload_ended(&self) -> Option<Try> {
        let upload = self.upload.as_ref()?.lock();
        if upload.too_large {
            return Some(Try::Failed(
                Refusal(413, "BodyTooLarge"),
                Outcome::Cancelled,
                Cause::Client,
            ));
        }
        upload.broken.then_some(Try::Gone)
    }

    /// Who was waited for in vain: the client, for the rest of its body, or the target.
    fn too_late(&self) -> Try {
        let waits_for_client = self
            .upload
            .as_ref()
            .is_some_and(|upload| !upload.lock().complete);
        if waits_for_client {
            Try::Failed(
                Refusal(408, "RequestTimeout"),
                Outcome::Cancelled,
                Cause::Client,
            )
        } else {
            Try::Failed(
                Refusal(504, "TargetTimeout"),
                Outcome::Unreachable,
                Cause::Reset,
            )
        }
    }

    /// The target's response on its way to the client.
    fn respond(
        &self,
        mut passage: Passage,
        mut parts: response::Parts,
        from: From,
        upgrade: Option<OnUpgrade>,
        late: Late<'_>,
        id: Option<TargetId>,
    ) -> Response<Reply> {
        let client = self.client;
        let settings = &self.site.settings;
        let switching = parts.status == StatusCode::SWITCHING_PROTOCOLS;
        let scan = field::scan(&parts.headers);
        // A target that leaves HTTP for what nobody asked for is not followed.
        let upgrade = upgrade.filter(|_| switching && field::is_websocket(&parts.headers));
        field::strip_hop(&mut parts.headers, &scan);
        if !settings.keep_server {
            parts.headers.remove(header::SERVER);
        }
        self.edits.apply_response(&mut parts.headers);
        if let (Some(sticky), Some(id)) = (&self.group.plan.sticky, &id) {
            let clock = &client.hall.clock;
            sticky.write(
                id.as_str(),
                &mut parts.headers,
                clock.timestamp(clock.recent()),
            );
        }
        for (name, value) in &settings.response_fields {
            parts.headers.insert(name.clone(), value.clone());
        }
        if self.closing {
            close(client, &mut parts.headers);
        }
        parts.version = if client.is_http1() {
            http::Version::HTTP_11
        } else {
            http::Version::HTTP_2
        };
        if switching {
            return self.switch(passage, parts, from, upgrade);
        }
        passage.responding(parts.status);
        passage.watch(late.into_sleep());
        let reply = match from {
            From::Function(body) => Reply::function(body, passage),
            From::Stream(incoming, user) => Reply::stream(incoming, user, passage),
            From::Link(incoming, held) => {
                parts.extensions.clear();
                let mut cx = Context::from_waker(std::task::Waker::noop());
                Reply::link(incoming, held, passage, &mut cx)
            }
        };
        Response::from_parts(parts, reply)
    }

    /// The target leaves HTTP, and the client with it, if it asked for that.
    fn switch(
        &self,
        mut passage: Passage,
        mut parts: response::Parts,
        from: From,
        upgrade: Option<OnUpgrade>,
    ) -> Response<Reply> {
        let client = self.client;
        let target = parts.extensions.remove::<OnUpgrade>();
        let (Some(upgrade), Some(target), From::Link(_, held)) = (upgrade, target, from) else {
            return refuse(client, passage, &Refusal(502, "UnexpectedUpgrade"), true);
        };
        client.hall.metrics.count(Count::Upgrades);
        passage.responding(parts.status);
        parts
            .headers
            .insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        let protocol = HeaderValue::from_static(field::WEBSOCKET);
        parts.headers.insert(header::UPGRADE, protocol);
        client.pulse.leave_tunnel(Box::new(Tunnel {
            client: upgrade,
            target,
            link: held.link,
            passage,
        }));
        Response::from_parts(parts, Reply::nothing())
    }
}

fn ends(client: &Client) -> Ends {
    Ends {
        peer: client.peer,
        local: client.local,
    }
}

/// Calls a target that is a function.
async fn call(
    mut function: super::group::Function,
    request: Request<Outgoing>,
    late: &mut Late<'_>,
) -> Try {
    let request = request.map(Body::request);
    let answering = async move { function.ready().await?.call(request).await };
    let mut answering = pin!(answering);
    let outcome = poll_fn(|cx| {
        if let Poll::Ready(outcome) = answering.as_mut().poll(cx) {
            return Poll::Ready(Some(outcome));
        }
        late.poll(cx).map(|()| None)
    })
    .await;
    match outcome {
        Some(Ok(response)) => {
            let (parts, body) = response.into_parts();
            Try::Answered(parts, From::Function(body))
        }
        Some(Err(_)) => Try::Failed(
            Refusal(502, "FunctionFailed"),
            Outcome::Failure,
            Cause::Reset,
        ),
        None => Try::Failed(
            Refusal(504, "FunctionTimeout"),
            Outcome::Unreachable,
            Cause::Reset,
        ),
    }
}

/// The status for a target that did not answer as it should.
fn blame(error: &hyper::Error) -> Refusal {
    if error.is_parse() {
        Refusal(502, "TargetMalformedResponse")
    } else if error.is_timeout() {
        Refusal(504, "TargetTimeout")
    } else {
        Refusal(502, "TargetConnectionClosed")
    }
}
