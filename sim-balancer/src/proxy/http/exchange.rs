//! One request: checked, routed, made into what its target gets.

use std::net::IpAddr;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Method, Request, Response, StatusCode, Uri};
use hyper::body::{Body as _, Incoming};
use hyper::upgrade::OnUpgrade;
use sim_core::sync::Arc;

use super::body::{Outgoing, Reply};
use super::desync::{self, Finding, Treatment};
use super::field::{self, Scan};
use super::forward::Forward;
use super::group::Group;
use super::metric::Count;
use super::passage::Passage;
use super::serve::{Client, blank_record};
use super::settings::{LONGEST_FIELD, LONGEST_REQUEST_LINE, MOST_FORWARDED, Settings};
use super::site::Site;
use crate::proxy::action::{Decision, Edits};
use crate::proxy::config::ProtocolVersion;
use crate::proxy::log::Record;
use crate::proxy::rule::View;

/// The connection is given up without a response: its client has left, or broke its own request.
#[derive(Debug, thiserror::Error)]
#[error("the client broke off its request")]
pub(crate) struct Abort;

/// What a request is refused with: the status and, for the log, the reason.
pub(crate) struct Refusal(pub(crate) u16, pub(crate) &'static str);

/// Answers a client's request.
pub(crate) async fn exchange(
    client: Arc<Client>,
    request: Request<Incoming>,
) -> Result<Response<Reply>, Abort> {
    let site = client.site.load_arc();
    let settings = &site.settings;
    let clock = &client.hall.clock;
    let began = clock.fine();
    let (mut parts, incoming) = request.into_parts();
    let scan = field::scan(&parts.headers);
    let (finding, raw) = client.pulse.begin(|raw| {
        let target = parts.uri.path_and_query().map_or("", PathAndQuery::as_str);
        desync::classify(&parts.method, target, &parts.headers, &scan, raw)
    });
    let record = client.hall.access.is_some().then(|| {
        let now = clock.timestamp(clock.now());
        Box::new(blank_record(&client, now))
    });
    let mut passage = Passage::new(Arc::clone(&client), began, raw, record);
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
    let mut closing = client.pulse.state().closing || clock.recent() >= client.retires;
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
    let view = View {
        method: &parts.method,
        protocol: settings.protocol,
        host: host
            .as_ref()
            .and_then(|host| host.to_str().ok())
            .unwrap_or(""),
        port: settings.port,
        path: parts.uri.path(),
        query: parts.uri.query(),
        headers: &parts.headers,
        source: source(&client, settings, &parts.headers, &scan),
        now: clock.recent(),
        time: clock.timestamp(clock.recent()),
        draw: client.worker.draw(),
    };
    let decision = match site.routes.decide(&view) {
        Decision::Pending(pending) => {
            Box::pin(site.routes.resolve(pending, &view, &client.hall.keeper)).await
        }
        decision => decision,
    };
    let forward = match decision {
        Decision::Forward(forward) => forward,
        Decision::Respond(respond) => {
            client.hall.metrics.count(Count::Fixed);
            if let Some(record) = passage.record() {
                record.matched = true;
                record.rule = respond.rule.priority();
                record.actions = respond.taken.to_string();
                record.error = respond.reason.map(|reason| reason.as_str());
                record.redirect = respond
                    .response
                    .headers()
                    .get(header::LOCATION)
                    .filter(|_| respond.is_redirect)
                    .cloned();
            }
            if let Some(delay) = respond.delay {
                Box::pin(hold(&client, delay)).await;
            }
            return Ok(answer(
                &client,
                settings,
                passage,
                respond.response,
                closing,
            ));
        }
        // It was resolved above.
        Decision::Pending(_) => {
            return Ok(refuse(
                &client,
                passage,
                &Refusal(500, "Unresolved"),
                closing,
            ));
        }
    };
    if let Some(record) = passage.record() {
        record.matched = true;
        record.rule = forward.rule.priority();
        record.actions = forward.taken.to_string();
        record.transformed_host = forward.edits.host.clone();
        record.transformed_uri = forward
            .edits
            .path_and_query
            .as_ref()
            .map(ToString::to_string);
    }
    let Some(group) = site.groups.get(forward.group) else {
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
    let key = if group.keyed {
        group.plan.key(&view)
    } else {
        None
    };
    let sticky = group
        .plan
        .sticky
        .as_ref()
        .and_then(|sticky| sticky.read(&parts.headers, view.time));
    if let Some(delay) = forward.delay {
        Box::pin(hold(&client, delay)).await;
    }
    let upgrade = (client.is_http1() && field::wants_upgrade(&parts.headers, &scan))
        .then(|| parts.extensions.remove::<OnUpgrade>())
        .flatten();
    let (body, upload) = Outgoing::client(incoming, settings.most_body);
    passage.upload(upload.clone());
    let (edits, mirrors) = (forward.edits, forward.mirrors);
    let prepared = Prepared {
        client: &client,
        site: &site,
        group,
        scan: &scan,
        edits: &edits,
        upgrading: upgrade.is_some(),
    };
    prepared.apply(&mut parts, host, &body);
    if let Some(record) = passage.record() {
        record.trace_id = parts.headers.get(field::TRACE_ID).cloned();
    }
    for mirror in mirrors {
        super::mirror::send(&client, &site, mirror, &parts, &body);
    }
    let forward = Forward {
        client: &client,
        site: &site,
        group,
        edits,
        key,
        sticky: sticky.map(Into::into),
        upload,
        closing,
    };
    forward.run(passage, parts, body, upgrade).await
}

/// Holds a request back on purpose.
async fn hold(client: &Client, delay: std::time::Duration) {
    let clock = &client.hall.clock;
    clock.sleep_until(clock.now() + delay).await;
}

/// The address that rules see: the peer's, or behind trusted proxies the last one that they did not add themselves.
fn source(client: &Client, settings: &Settings, headers: &HeaderMap, scan: &Scan) -> IpAddr {
    // A listener on `[::]` sees IPv4 clients by addresses mapped to IPv6.
    source_of(client.peer.ip(), &settings.trusted, headers, scan)
}

fn source_of(peer: IpAddr, blocks: &[ipnet::IpNet], headers: &HeaderMap, scan: &Scan) -> IpAddr {
    let peer = peer.to_canonical();
    let trusted = |address: IpAddr| blocks.iter().any(|block| block.contains(&address));
    if !scan.forwarded || blocks.is_empty() || !trusted(peer) {
        return peer;
    }
    let mut source = peer;
    for value in headers.get_all(field::FORWARDED_FOR).iter().rev() {
        for part in value.to_str().unwrap_or("").rsplit(',') {
            let part = part.trim();
            let told = part.parse().or_else(|_| {
                part.parse()
                    .map(|address: std::net::SocketAddr| address.ip())
            });
            match told {
                Ok(address) => source = IpAddr::to_canonical(&address),
                Err(_) => return source,
            }
            if !trusted(source) {
                return source;
            }
        }
    }
    source
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
    record: &mut Record,
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
    let size = body.size_hint();
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

/// What the client's head is made into what the target gets with.
struct Prepared<'a> {
    client: &'a Client,
    site: &'a Site,
    group: &'a Group,
    scan: &'a Scan,
    edits: &'a Edits,
    upgrading: bool,
}

impl Prepared<'_> {
    fn apply(&self, parts: &mut Parts, host: Option<HeaderValue>, body: &Outgoing) {
        let (client, settings, scan) = (self.client, &self.site.settings, self.scan);
        let headers = &mut parts.headers;
        if settings.drop_invalid_fields && scan.invalid {
            field::drop_invalid(headers);
            client.hall.metrics.count(Count::DroppedFields);
        }
        let trailers = scan.te
            && headers
                .get(header::TE)
                .is_some_and(|te| te.as_bytes().eq_ignore_ascii_case(b"trailers"));
        field::strip_hop(headers, scan);
        if scan.expect {
            // The proxy says 100 itself, when it begins to read the body.
            headers.remove(header::EXPECT);
        }
        if self.upgrading {
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            let protocol = HeaderValue::from_static(field::WEBSOCKET);
            headers.insert(header::UPGRADE, protocol);
        }
        if let Some(target) = &self.edits.path_and_query {
            let mut uri = std::mem::take(&mut parts.uri).into_parts();
            uri.path_and_query = Some(target.clone());
            parts.uri = Uri::from_parts(uri).unwrap_or_else(|_| Uri::from(target.clone()));
        }
        let host = match (&self.edits.host, host) {
            (Some(host), _) => Some(host.clone()),
            (None, Some(host)) if !settings.preserve_host => Some(with_port(host, settings)),
            (None, host) => host,
        };
        if self.group.is_http2() {
            self.address_http2(parts, host, trailers);
        } else {
            address_http1(parts, host, body);
        }
        self.tell_of_client(&mut parts.headers);
        self.edits.apply_request(&mut parts.headers);
        parts.extensions.clear();
    }

    /// HTTP/2 has the host in the target and no `Host`.
    fn address_http2(&self, parts: &mut Parts, host: Option<HeaderValue>, trailers: bool) {
        if trailers {
            parts
                .headers
                .insert(header::TE, HeaderValue::from_static("trailers"));
        }
        parts.headers.remove(header::HOST);
        let mut uri = std::mem::take(&mut parts.uri).into_parts();
        let secure = self.group.tls.is_some();
        uri.scheme = Some(if secure {
            http::uri::Scheme::HTTPS
        } else {
            http::uri::Scheme::HTTP
        });
        let authority = host.and_then(|host| host.to_str().ok()?.parse().ok());
        uri.authority =
            Some(authority.unwrap_or_else(|| http::uri::Authority::from_static("localhost")));
        if uri.path_and_query.is_none() {
            uri.path_and_query = Some(PathAndQuery::from_static("/"));
        }
        parts.uri = Uri::from_parts(uri).unwrap_or_default();
        parts.version = http::Version::HTTP_2;
    }

    /// Who the client is, by which way it came, and the trace.
    fn tell_of_client(&self, headers: &mut HeaderMap) {
        let (client, settings, scan) = (self.client, &self.site.settings, self.scan);
        field::forward_client(headers, scan, settings.xff_mode, &client.address);
        headers.insert(field::FORWARDED_PROTO, settings.proto_value.clone());
        headers.insert(field::FORWARDED_PORT, settings.port_value.clone());
        if settings.trace_id {
            let clock = &client.hall.clock;
            let seconds = clock.timestamp(clock.recent()).as_unix_seconds();
            let random = [client.worker.draw(), client.worker.draw()];
            let former = scan.trace.then(|| headers.get(field::TRACE_ID)).flatten();
            let id = field::trace_id(former, u32::try_from(seconds).unwrap_or(0), random);
            headers.insert(field::TRACE_ID, id);
        }
        if scan.amazon {
            field::strip_log_in(headers);
        }
        let names = &settings.names;
        match &client.secure {
            Some(info) => {
                info.write_mutual_headers(&names.0, headers);
                names.1.strip(headers);
                if settings.session_fields {
                    info.write_session_headers(&names.1, headers);
                }
            }
            // Nobody but the proxy may say what a certificate says.
            None if scan.amazon || settings.own_names => {
                names.0.strip(headers);
                names.1.strip(headers);
            }
            None => {}
        }
    }
}

/// HTTP/1.1 has a path as its target, and the host in `Host`.
fn address_http1(parts: &mut Parts, host: Option<HeaderValue>, body: &Outgoing) {
    if let Some(host) = host
        && parts.headers.get(header::HOST) != Some(&host)
    {
        parts.headers.insert(header::HOST, host);
    }
    if parts.uri.authority().is_some() {
        let target = parts.uri.path_and_query().cloned();
        parts.uri = Uri::from(target.unwrap_or_else(|| PathAndQuery::from_static("/")));
    }
    if !body.is_end_stream() && body.size_hint().exact().is_none() {
        parts.headers.insert(
            header::TRANSFER_ENCODING,
            HeaderValue::from_static("chunked"),
        );
    }
    parts.version = http::Version::HTTP_11;
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
pub(crate) fn refuse(
    client: &Client,
    mut passage: Passage,
    refusal: &Refusal,
    closing: bool,
) -> Response<Reply> {
    if let Some(record) = passage.record() {
        record.error = Some(refusal.1);
    }
    let status = StatusCode::from_u16(refusal.0).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    passage.responding(status);
    let mut response = Response::new(Reply::full(Bytes::new(), passage));
    *response.status_mut() = status;
    if closing {
        close(client, response.headers_mut());
    }
    response
}

/// Sends a response that is known whole.
fn answer(
    client: &Client,
    settings: &Settings,
    mut passage: Passage,
    response: Response<Bytes>,
    closing: bool,
) -> Response<Reply> {
    passage.responding(response.status());
    let (mut parts, body) = response.into_parts();
    for (name, value) in &settings.response_fields {
        parts.headers.insert(name.clone(), value.clone());
    }
    if closing {
        close(client, &mut parts.headers);
    }
    Response::from_parts(parts, Reply::full(body, passage))
}

/// The connection ends after this response.
pub(crate) fn close(client: &Client, headers: &mut HeaderMap) {
    if client.is_http1() {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    } else {
        client.pulse.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trusted_proxy_is_known_by_its_mapped_address() {
        let blocks = ["10.0.0.0/8".parse().unwrap()];
        let mut headers = HeaderMap::new();
        let told = HeaderValue::from_static("203.0.113.9, ::ffff:10.0.0.7");
        headers.insert(field::FORWARDED_FOR, told);
        let scan = field::scan(&headers);
        let client: IpAddr = "203.0.113.9".parse().unwrap();
        for peer in ["10.0.0.1", "::ffff:10.0.0.1"] {
            let peer = peer.parse().unwrap();
            assert_eq!(source_of(peer, &blocks, &headers, &scan), client, "{peer}");
        }
        let stranger: IpAddr = "192.0.2.1".parse().unwrap();
        let mapped = "::ffff:192.0.2.1".parse().unwrap();
        assert_eq!(source_of(mapped, &blocks, &headers, &scan), stranger);
    }
}
