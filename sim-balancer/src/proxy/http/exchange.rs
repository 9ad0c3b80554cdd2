//! One request and its response: checked, routed, sent to a target, answered.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Method, Request, Response, StatusCode, Uri, response};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use sim_core::clock::Sleep;
use sim_core::sync::{Arc, Mutex};
use sim_core::time::Instant;
use tower::{Service, ServiceExt};

use super::body::{Body, Outgoing, Reply, Upload};
use super::desync::{self, Finding, Treatment};
use super::field::{self, Scan};
use super::group::{Address, DialError, Endpoint, Ends, Group, Held};
use super::metric::Count;
use super::passage::Passage;
use super::serve::{Client, blank_record};
use super::settings::{LONGEST_FIELD, LONGEST_REQUEST_LINE, MOST_FORWARDED, Settings};
use super::site::{Routes, Site};
use super::upgrade::Tunnel;
use crate::message::{self, Outcome, TargetId};
use crate::proxy::config::ProtocolVersion;

/// The connection is given up without a response: its client has left, or broke its own request.
#[derive(Debug, thiserror::Error)]
#[error("the client broke off its request")]
pub(crate) struct Abort;

/// What a request is refused with: the status and, for the log, the reason.
struct Refusal(u16, &'static str);

/// Answers a client's request.
pub(crate) async fn exchange(
    client: Arc<Client>,
    request: Request<Incoming>,
) -> Result<Response<Reply>, Abort> {
    let site = client.site.load_arc();
    let began = client.hall.clock.fine();
    let (mut parts, incoming) = request.into_parts();
    let scan = field::scan(&parts.headers);
    let (finding, raw) = client.pulse.begin(|raw| {
        let target = parts.uri.path_and_query().map_or("", PathAndQuery::as_str);
        desync::classify(&parts.method, target, &parts.headers, &scan, raw)
    });
    let record = client.hall.access.is_some().then(|| {
        let now = client.hall.clock.timestamp(client.hall.clock.now());
        Box::new(blank_record(&client, now))
    });
    let mut passage = Passage::new(Arc::clone(&client), began, raw, record);
    let settings = &site.settings;
    let host = host_of(&parts);
    if let Some(record) = passage.record() {
        describe(
            record,
            &client,
            settings,
            &parts,
            &scan,
            host.as_ref(),
            finding,
        );
    }
    let mut closing = client.pulse.state().closing || client.hall.clock.recent() >= client.retires;
    if finding.doubt.is_some() {
        client.hall.metrics.count(Count::Desync);
        match desync::treat(settings.desync, finding) {
            Treatment::Pass => {}
            Treatment::PassAndClose => closing = true,
            Treatment::Refuse => {
                return Ok(refuse(
                    &client,
                    passage,
                    &Refusal(400, "DesyncMitigation"),
                    true,
                ));
            }
        }
    }
    if let Some(refusal) = check(&client, settings, &parts, &scan, host.as_ref(), &incoming) {
        // What was not read of a body cannot be told from the next request.
        return Ok(refuse(&client, passage, &refusal, true));
    }
    if scan.grpc {
        client.hall.metrics.count(Count::Grpc);
    }
    let upgrade = (client.is_http1() && field::wants_upgrade(&parts.headers, &scan))
        .then(|| parts.extensions.remove::<OnUpgrade>())
        .flatten();
    let Routes::One(group) = &site.routes;
    let Some(group) = site.groups.get(*group) else {
        return Ok(refuse(
            &client,
            passage,
            &Refusal(503, "NoTargetGroup"),
            closing,
        ));
    };
    if mismatch(&client, group, &parts.method, &scan) {
        return Ok(refuse(
            &client,
            passage,
            &Refusal(464, "ProtocolMismatch"),
            closing,
        ));
    }
    let (body, upload) = Outgoing::client(incoming, settings.most_body);
    passage.upload(upload.clone());
    prepare(
        &client,
        settings,
        group,
        &mut parts,
        &scan,
        host,
        &body,
        upgrade.is_some(),
    );
    let forward = Forward {
        client: &client,
        site: &site,
        group,
        upload,
        closing,
    };
    forward.run(passage, parts, body, upgrade).await
}

/// The host that a request names, as its `Host` or authority says.
fn host_of(parts: &Parts) -> Option<HeaderValue> {
    match parts.uri.authority() {
        Some(authority) => HeaderValue::from_str(authority.as_str()).ok(),
        None => parts.headers.get(header::HOST).cloned(),
    }
}

/// Fills in what a line of the log tells of the request.
fn describe(
    record: &mut crate::proxy::log::Record,
    client: &Client,
    settings: &Settings,
    parts: &Parts,
    scan: &Scan,
    host: Option<&HeaderValue>,
    finding: Finding,
) {
    let secure = client.secure.is_some();
    record.kind = match (client.is_http1(), secure) {
        (false, _) if scan.grpc => "grpcs",
        (false, _) => "h2",
        (true, true) if scan.upgrade => "wss",
        (true, false) if scan.upgrade => "ws",
        (true, true) => "https",
        (true, false) => "http",
    };
    let scheme = if secure { "https" } else { "http" };
    let host = host.and_then(|host| host.to_str().ok()).unwrap_or("-");
    let (name, _) = split_port(host);
    let path = parts.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    record.request = format!(
        "{} {scheme}://{name}:{}{path} {:?}",
        parts.method, settings.port, parts.version
    );
    record.user_agent = parts.headers.get(header::USER_AGENT).cloned();
    record.finding = finding;
    record.matched = true;
    record.actions = "forward".to_owned();
}

/// The name and the port of a `Host`.
fn split_port(host: &str) -> (&str, Option<&str>) {
    match host.rsplit_once(':') {
        Some((name, port))
            if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) =>
        {
            (name, Some(port))
        }
        _ => (host, None),
    }
}

/// What a request is refused for before it is routed.
fn check(
    client: &Client,
    settings: &Settings,
    parts: &Parts,
    scan: &Scan,
    host: Option<&HeaderValue>,
    body: &Incoming,
) -> Option<Refusal> {
    let line = parts
        .uri
        .path_and_query()
        .map_or(0, |target| target.as_str().len());
    if line > LONGEST_REQUEST_LINE {
        return Some(Refusal(414, "UriTooLong"));
    }
    if scan.largest > LONGEST_FIELD || scan.total > settings.largest_head {
        return Some(Refusal(431, "HeaderFieldsTooLarge"));
    }
    if scan.hosts > 1 || (host.is_none() && parts.version == http::Version::HTTP_11) {
        return Some(Refusal(400, "MissingHost"));
    }
    if scan.hosts == 1
        && !client.is_http1()
        && parts.headers.get(header::HOST) != host
        && host.is_some()
    {
        return Some(Refusal(400, "HostMismatch"));
    }
    match parts.method {
        Method::TRACE => return Some(Refusal(405, "MethodNotAllowed")),
        Method::CONNECT => return Some(Refusal(400, "ConnectNotSupported")),
        _ => {}
    }
    if scan.forwarded && field::forwarded_addresses(&parts.headers) > MOST_FORWARDED {
        return Some(Refusal(463, "TooManyForwardedAddresses"));
    }
    let size = hyper::body::Body::size_hint(body);
    if size.lower() > settings.most_body {
        return Some(Refusal(413, "BodyTooLarge"));
    }
    None
}

/// Whether what the client speaks cannot be said to the group's targets.
fn mismatch(client: &Client, group: &Group, method: &Method, scan: &Scan) -> bool {
    match group.dial.version {
        ProtocolVersion::Http2 => client.is_http1(),
        ProtocolVersion::Grpc => client.is_http1() || !scan.grpc || method != Method::POST,
        _ => scan.grpc && !client.is_http1() && method != Method::POST,
    }
}

/// Makes the client's head the one that the target gets.
#[expect(
    clippy::too_many_arguments,
    reason = "one step of the exchange, called once"
)]
fn prepare(
    client: &Client,
    settings: &Settings,
    group: &Group,
    parts: &mut Parts,
    scan: &Scan,
    host: Option<HeaderValue>,
    body: &Outgoing,
    upgrading: bool,
) {
    let headers = &mut parts.headers;
    if settings.drop_invalid_fields && scan.invalid {
        field::drop_invalid(headers);
        client.hall.metrics.count(Count::DroppedFields);
    }
    let upgrade = upgrading
        .then(|| headers.get(header::UPGRADE).cloned())
        .flatten();
    let trailers = scan.te
        && headers
            .get(header::TE)
            .is_some_and(|te| te.as_bytes().eq_ignore_ascii_case(b"trailers"));
    field::strip_hop(headers, scan);
    if scan.expect {
        // The proxy says 100 itself, when it begins to read the body.
        headers.remove(header::EXPECT);
    }
    if let Some(upgrade) = upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, upgrade);
    }
    let host = host.map(|host| {
        if settings.preserve_host {
            host
        } else {
            with_port(host, settings)
        }
    });
    if group.is_http2() {
        if trailers {
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
        headers.remove(header::HOST);
        let mut uri = std::mem::take(&mut parts.uri).into_parts();
        uri.scheme = Some(if group.tls.is_some() {
            http::uri::Scheme::HTTPS
        } else {
            http::uri::Scheme::HTTP
        });
        uri.authority = host.and_then(|host| host.to_str().ok()?.parse().ok());
        if uri.authority.is_none() {
            uri.authority = Some(http::uri::Authority::from_static("localhost"));
        }
        if uri.path_and_query.is_none() {
            uri.path_and_query = Some(PathAndQuery::from_static("/"));
        }
        parts.uri = Uri::from_parts(uri).unwrap_or_default();
        parts.version = http::Version::HTTP_2;
    } else {
        if let Some(host) = host
            && headers.get(header::HOST) != Some(&host)
        {
            headers.insert(header::HOST, host);
        }
        if parts.uri.authority().is_some() {
            let path = parts
                .uri
                .path_and_query()
                .cloned()
                .unwrap_or_else(|| PathAndQuery::from_static("/"));
            parts.uri = Uri::from(path);
        }
        let sized = hyper::body::Body::size_hint(body).exact().is_some();
        if !hyper::body::Body::is_end_stream(body) && !sized {
            headers.insert(
                header::TRANSFER_ENCODING,
                HeaderValue::from_static("chunked"),
            );
        }
        parts.version = http::Version::HTTP_11;
    }
    let headers = &mut parts.headers;
    field::forward_client(headers, scan, settings.xff_mode, &client.address);
    headers.insert(field::FORWARDED_PROTO, settings.proto_value.clone());
    headers.insert(field::FORWARDED_PORT, settings.port_value.clone());
    if settings.trace_id {
        let clock = &client.hall.clock;
        let seconds = clock.timestamp(clock.recent()).as_unix_nanos() / 1_000_000_000;
        let random = [client.worker.draw(), client.worker.draw()];
        let former = scan.trace.then(|| headers.get(field::TRACE_ID)).flatten();
        let id = field::trace_id(former, u32::try_from(seconds).unwrap_or(0), random);
        headers.insert(field::TRACE_ID, id);
    }
    parts.extensions.clear();
}

/// The reference's rule for a `Host` that is not preserved: it tells the listener's port, unless that is the scheme's own.
fn with_port(host: HeaderValue, settings: &Settings) -> HeaderValue {
    let Ok(text) = host.to_str() else {
        return host;
    };
    let usual = if settings.secure { 443 } else { 80 };
    let (name, port) = split_port(text);
    let told = port.and_then(|port| port.parse::<u16>().ok());
    if settings.port == usual {
        return match port {
            None => host,
            Some(_) => HeaderValue::from_str(name).unwrap_or(host),
        };
    }
    if told == Some(settings.port) {
        return host;
    }
    HeaderValue::from_str(&format!("{name}:{}", settings.port)).unwrap_or(host)
}

/// A response of the proxy's own.
fn refuse(
    client: &Client,
    mut passage: Passage,
    refusal: &Refusal,
    closing: bool,
) -> Response<Reply> {
    if let Some(record) = passage.record() {
        record.error = Some(refusal.1);
    }
    let status = StatusCode::from_u16(refusal.0).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = status;
    answer(client, passage, response, closing)
}

/// Sends a response that is known whole.
fn answer(
    client: &Client,
    mut passage: Passage,
    response: Response<Bytes>,
    closing: bool,
) -> Response<Reply> {
    passage.responding(response.status());
    let (mut parts, body) = response.into_parts();
    if closing {
        close(client, &mut parts.headers);
    }
    Response::from_parts(parts, Reply::full(body, passage))
}

/// The connection ends after this response.
fn close(client: &Client, headers: &mut HeaderMap) {
    if client.is_http1() {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    } else {
        client.pulse.close();
    }
}

/// A request on its way to a group.
struct Forward<'a> {
    client: &'a Arc<Client>,
    site: &'a Site,
    group: &'a Arc<Group>,
    upload: Option<Arc<Mutex<Upload>>>,
    closing: bool,
}

/// What came of one try.
enum Try {
    /// A response, of which the rest is still to come.
    Answered(response::Parts, From),
    /// The target could not be had, or did not answer as it should.
    Failed(Refusal, Outcome),
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
    Stream(Incoming),
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
    fn of(parts: &Parts) -> Self {
        Self {
            method: parts.method.clone(),
            uri: parts.uri.clone(),
            headers: parts.headers.clone(),
            version: parts.version,
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
    async fn run(
        self,
        mut passage: Passage,
        parts: Parts,
        body: Outgoing,
        upgrade: Option<OnUpgrade>,
    ) -> Result<Response<Reply>, Abort> {
        let client = self.client;
        let clock = &client.hall.clock;
        let replayable = matches!(body, Outgoing::Empty) && parts.method.is_idempotent();
        let mut late = Late::new(
            client,
            self.site.settings.request_timeout,
            self.upload.clone(),
        );
        let avoid: Vec<TargetId> = Vec::new();
        let mut request = Request::from_parts(parts, body);
        let mut fresh = upgrade.is_some();
        loop {
            let ask = message::Request {
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
            passage.sent_to(self.group, lease, clock.fine());
            let kept = replayable.then(|| request_head(&request));
            let tried = match target.address() {
                Address::Function(function) => call(function.clone(), request, &mut late).await,
                _ if self.group.is_http2() => {
                    self.try_stream(&target, request, &mut late, fresh).await
                }
                _ => self.try_link(&target, request, &mut late, fresh).await,
            };
            match tried {
                Try::Answered(response, from) => {
                    passage.answered(response.status, clock.fine());
                    return Ok(self.respond(passage, response, from, upgrade, late));
                }
                Try::Gone => return Err(Abort),
                Try::Stale => {
                    passage.try_failed(Outcome::Cancelled);
                    let Some(kept) = kept else {
                        return Ok(refuse(
                            client,
                            passage,
                            &Refusal(502, "TargetClosedConnection"),
                            self.closing,
                        ));
                    };
                    client.hall.metrics.count(Count::Retries);
                    request = kept.into_request();
                    // A used connection may fail again; a new one tells the truth about the target.
                    fresh = true;
                }
                Try::Unsent(unsent) => {
                    passage.try_failed(Outcome::Cancelled);
                    client.hall.metrics.count(Count::Retries);
                    request = unsent;
                    fresh = true;
                }
                Try::Failed(refusal, outcome) => {
                    passage.try_failed(outcome);
                    let closing = self.closing
                        || self
                            .upload
                            .as_ref()
                            .is_some_and(|upload| !upload.lock().complete);
                    return Ok(refuse(client, passage, &refusal, closing));
                }
            }
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
            target.take(worker)
        };
        let used = rested.is_some();
        let mut link = match rested {
            Some(link) => link,
            None => match self.open(late, self.group.open(target, ends(client))).await {
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
                Try::Failed(blame(&error), Outcome::Unreachable)
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
            target.seat(worker, now)
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
                Try::Answered(parts, From::Stream(incoming))
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
                Try::Failed(blame(&error), Outcome::Unreachable)
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
        Err(Try::Failed(refusal, Outcome::Unreachable))
    }

    /// What a try that ended with an error means when the client's own body was the cause.
    fn upload_ended(&self) -> Option<Try> {
        let upload = self.upload.as_ref()?.lock();
        if upload.too_large {
            return Some(Try::Failed(
                Refusal(413, "BodyTooLarge"),
                Outcome::Cancelled,
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
            Try::Failed(Refusal(408, "RequestTimeout"), Outcome::Cancelled)
        } else {
            Try::Failed(Refusal(504, "TargetTimeout"), Outcome::Unreachable)
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
    ) -> Response<Reply> {
        let client = self.client;
        let settings = &self.site.settings;
        let switching = parts.status == StatusCode::SWITCHING_PROTOCOLS;
        let scan = field::scan(&parts.headers);
        let protocol = switching
            .then(|| parts.headers.get(header::UPGRADE).cloned())
            .flatten();
        field::strip_hop(&mut parts.headers, &scan);
        if !settings.keep_server {
            parts.headers.remove(header::SERVER);
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
            return self.switch(passage, parts, from, upgrade, protocol);
        }
        passage.responding(parts.status);
        passage.watch(late.into_sleep());
        let reply = match from {
            From::Function(body) => Reply::function(body, passage),
            From::Stream(incoming) => Reply::stream(incoming, passage),
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
        protocol: Option<HeaderValue>,
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
        if let Some(protocol) = protocol {
            parts.headers.insert(header::UPGRADE, protocol);
        }
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

fn request_head(request: &Request<Outgoing>) -> Kept {
    Kept {
        method: request.method().clone(),
        uri: request.uri().clone(),
        headers: request.headers().clone(),
        version: request.version(),
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
        Some(Err(_)) => Try::Failed(Refusal(502, "FunctionFailed"), Outcome::Failure),
        None => Try::Failed(Refusal(504, "FunctionTimeout"), Outcome::Unreachable),
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

/// Tells when a request has waited for too long: by the timer of its connection on HTTP/1.1, by its own on HTTP/2.
struct Late<'a> {
    client: &'a Client,
    sleep: Option<Sleep>,
    limit: Instant,
    upload: Option<Arc<Mutex<Upload>>>,
    /// How much of the body had been read when the timer was set.
    read: u64,
}

impl<'a> Late<'a> {
    fn new(
        client: &'a Client,
        timeout: Option<std::time::Duration>,
        upload: Option<Arc<Mutex<Upload>>>,
    ) -> Self {
        let clock = &client.hall.clock;
        let limit = timeout.map_or(Instant::NEVER, |timeout| {
            clock.recent() + clock.lag() + timeout
        });
        if client.is_http1() && !limit.is_never() {
            client.pulse.state().limit = limit;
        }
        let sleep =
            (!client.is_http1()).then(|| clock.sleep_until(client.idle_deadline().min(limit)));
        Self {
            client,
            sleep,
            limit,
            upload,
            read: 0,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(sleep) = &mut self.sleep else {
            return if self.client.pulse.state().expired {
                Poll::Ready(())
            } else {
                Poll::Pending
            };
        };
        loop {
            if Pin::new(&mut *sleep).poll(cx).is_pending() {
                return Poll::Pending;
            }
            let read = self.upload.as_ref().map_or(0, |upload| upload.lock().read);
            if read == self.read || self.client.hall.clock.now() >= self.limit {
                return Poll::Ready(());
            }
            self.read = read;
            sleep.reset((self.client.hall.clock.now() + self.client.idle).min(self.limit));
        }
    }

    /// The timer, for the response's body.
    fn into_sleep(self) -> Option<Sleep> {
        let mut sleep = self.sleep?;
        sleep.reset(self.client.idle_deadline());
        Some(sleep)
    }
}
