//! From a configuration to what runs: groups with their balancers, sites, sockets.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;

use http::{HeaderName, HeaderValue};
use sim_core::clock::Clock;
use sim_core::sync::{Arc, Mutex};

use super::config::{
    AlgorithmName, GroupPlan, ListenerConfig, Protocol, ProxyConfig, ResponseHeaders, TargetConfig,
    TargetGroupConfig,
};
use super::http::group::{Address, Dial, Endpoint, Group};
use super::http::retry::Policy;
use super::http::settings::Settings;
use super::http::site::{Passing, Site};
use super::pass::{Pass, PassConfig, PassLayers};
use super::{ProxyError, secure};
use crate::balancer::Balancer;
use crate::message::{Target, TargetId};

/// Whether an algorithm goes by a key of the request.
const fn is_keyed(algorithm: AlgorithmName) -> bool {
    matches!(
        algorithm,
        AlgorithmName::RingHash
            | AlgorithmName::Maglev
            | AlgorithmName::Rendezvous
            | AlgorithmName::BoundedLoad
            | AlgorithmName::Sticky
    )
}

/// The address that a target's text names.
pub(crate) fn address_of(text: &str) -> Option<Address> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some(Address::Socket(address));
    }
    let (host, port) = text.rsplit_once(':')?;
    if host.is_empty() || host.contains(':') {
        return None;
    }
    Some(Address::Name(host.into(), port.parse().ok()?))
}

/// Makes a group, on the balancer of the former one of that name if its way to choose is the same.
pub(crate) fn group(
    config: &TargetGroupConfig,
    plan: GroupPlan,
    whole: &ProxyConfig,
    former: Option<&Arc<Group>>,
    workers: usize,
    next_serial: &mut u64,
    clock: &Clock,
) -> Result<Group, ProxyError> {
    let balancing = plan.balancer.clone();
    let kept = former.filter(|former| *former.balancer.config() == balancing);
    let (serial, balancer, targets, metrics) = match kept {
        Some(former) => (
            former.serial,
            former.balancer.clone(),
            Arc::clone(&former.targets),
            Arc::clone(&former.metrics),
        ),
        None => (
            {
                *next_serial += 1;
                *next_serial
            },
            Balancer::with_clock(balancing, clock.clone()).map_err(|problem| {
                ProxyError::Group {
                    name: config.name.clone(),
                    problem,
                }
            })?,
            Arc::new(Mutex::new(BTreeMap::new())),
            former.map_or_else(Arc::default, |former| Arc::clone(&former.metrics)),
        ),
    };
    let attributes = &whole.attributes;
    let tls = match config.protocol {
        Protocol::Https | Protocol::Tls => Some(secure::connector(config, clock)?),
        _ => None,
    };
    let made_of = (config.protocol, config.tls.clone());
    let same_way = former.filter(|former| {
        former.made_of == made_of
            && former.dial.version == config.protocol_version
            && former.dial.prefix == config.proxy_protocol_v2
    });
    let way = same_way.map_or_else(
        || {
            *next_serial += 1;
            *next_serial
        },
        |former| former.dial.way,
    );
    Ok(Group {
        name: config.name.as_str().into(),
        serial,
        balancer,
        dial: Dial {
            way,
            version: config.protocol_version,
            connect_timeout: attributes.connect_timeout,
            largest_head: attributes.max_header_bytes,
            prefix: config.proxy_protocol_v2,
            idle_timeout: config.pool.idle_timeout,
            most_idle: config.pool.max_idle_per_target,
            workers,
        },
        plan,
        keyed: is_keyed(config.algorithm),
        retry: Policy::new(config.retry.clone()),
        tls,
        made_of,
        metrics,
        targets,
    })
}

/// The name of a target.
fn id_of(config: &TargetConfig) -> TargetId {
    config.id.as_deref().unwrap_or(&config.address).into()
}

/// Makes the targets of a group those of its configuration: what stays keeps its counts and its connections, what is new is
/// registered, what is gone drains.
pub(crate) fn settle_targets(group: &Group, config: &TargetGroupConfig) -> Result<(), ProxyError> {
    let mut targets = group.targets.lock();
    let wanted: BTreeMap<TargetId, &TargetConfig> = config
        .targets
        .iter()
        .map(|target| (id_of(target), target))
        .collect();
    let gone: Vec<TargetId> = targets
        .iter()
        .filter(|(id, endpoint)| {
            let stays = wanted
                .get(*id)
                .is_some_and(|target| same_place(endpoint, target));
            // What a program registered itself is its own to deregister.
            !stays && endpoint.is_configured()
        })
        .map(|(id, _)| id.clone())
        .collect();
    // Who only leaves does so when who is new has come: a request between the two must find a target.
    let (moved, gone): (Vec<_>, Vec<_>) = gone.into_iter().partition(|id| wanted.contains_key(id));
    let leave = |targets: &mut BTreeMap<_, _>, id: TargetId| {
        targets.remove(&id);
        // A target that has left by itself is gone already.
        let _ = group.balancer.deregister(&id);
    };
    for id in moved {
        leave(&mut targets, id);
    }
    for (id, target) in wanted {
        if targets.contains_key(&id) {
            let _ = group.balancer.set_weight(&id, target.weight);
            continue;
        }
        let Some(address) = address_of(&target.address) else {
            continue;
        };
        let endpoint = Arc::new(Endpoint::configured(address, &group.dial));
        let mut entry = Target::new(id.clone(), Arc::clone(&endpoint))
            .weight(target.weight)
            .priority(target.priority);
        if let Some(zone) = &target.zone {
            entry = entry.zone(zone.as_str());
        }
        if let Some(most) = config.max_outstanding {
            entry = entry.max_outstanding(most);
        }
        group
            .balancer
            .register(entry)
            .map_err(|error| ProxyError::Target {
                group: config.name.clone(),
                problem: error.to_string(),
            })?;
        targets.insert(id, endpoint);
    }
    for id in gone {
        leave(&mut targets, id);
    }
    Ok(())
}

fn same_place(endpoint: &Endpoint, target: &TargetConfig) -> bool {
    match (endpoint.address(), address_of(&target.address)) {
        (Address::Socket(one), Some(Address::Socket(other))) => *one == other,
        (Address::Name(host, port), Some(Address::Name(other, other_port))) => {
            *host == other && *port == other_port
        }
        _ => false,
    }
}

/// What the requests of a listener are held to.
pub(crate) fn settings(listener: &ListenerConfig, whole: &ProxyConfig, port: u16) -> Settings {
    let attributes = &whole.attributes;
    let secure = matches!(listener.protocol, Protocol::Https | Protocol::Tls);
    let names = secure::names(&listener.attributes.request_headers);
    Settings {
        protocol: listener.protocol,
        secure,
        trusted: attributes.trusted_proxies.clone(),
        own_names: names != Default::default(),
        names,
        session_fields: attributes.tls_version_and_cipher_headers,
        port,
        port_value: HeaderValue::from(port),
        proto_value: HeaderValue::from_static(if secure { "https" } else { "http" }),
        idle_timeout: attributes.idle_timeout,
        client_keep_alive: attributes.client_keep_alive,
        request_timeout: attributes.request_timeout,
        xff_mode: attributes.xff_mode,
        xff_client_port: attributes.xff_client_port,
        preserve_host: attributes.preserve_host_header,
        drop_invalid_fields: attributes.drop_invalid_header_fields,
        desync: attributes.desync_mitigation,
        trace_id: attributes.trace_id,
        http2: attributes.http2,
        keep_server: listener.attributes.response_headers.server,
        response_fields: response_fields(&listener.attributes.response_headers),
        largest_head: attributes.max_header_bytes,
        most_body: attributes.max_body_bytes.unwrap_or(u64::MAX),
        max_connections: attributes.max_connections,
        drain_timeout: attributes.drain_timeout,
    }
}

/// The fields that every response gets.
fn response_fields(headers: &ResponseHeaders) -> Vec<(HeaderName, HeaderValue)> {
    use http::header;
    [
        (
            header::STRICT_TRANSPORT_SECURITY,
            &headers.strict_transport_security,
        ),
        (
            header::ACCESS_CONTROL_ALLOW_ORIGIN,
            &headers.access_control_allow_origin,
        ),
        (
            header::ACCESS_CONTROL_ALLOW_METHODS,
            &headers.access_control_allow_methods,
        ),
        (
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            &headers.access_control_allow_headers,
        ),
        (
            header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
            &headers.access_control_allow_credentials,
        ),
        (
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
            &headers.access_control_expose_headers,
        ),
        (
            header::ACCESS_CONTROL_MAX_AGE,
            &headers.access_control_max_age,
        ),
        (
            header::CONTENT_SECURITY_POLICY,
            &headers.content_security_policy,
        ),
        (
            header::X_CONTENT_TYPE_OPTIONS,
            &headers.x_content_type_options,
        ),
        (header::X_FRAME_OPTIONS, &headers.x_frame_options),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, HeaderValue::from_str(value.as_ref()?).ok()?)))
    .collect()
}

/// Binds one socket a worker to an address, all to the same port.
pub(crate) fn bind(
    address: SocketAddr,
    workers: usize,
) -> io::Result<(SocketAddr, Vec<Option<std::net::TcpListener>>)> {
    let mut address = address;
    let mut sockets = Vec::with_capacity(workers);
    for _ in 0..workers {
        let socket = socket2::Socket::new(
            socket2::Domain::for_address(address),
            socket2::Type::STREAM,
            Some(socket2::Protocol::TCP),
        )?;
        socket.set_reuse_address(true)?;
        // The first of all takes the address for itself, so that another program's sockets are not joined unseen.
        if workers > 1 {
            socket.set_reuse_port(true)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let listener: std::net::TcpListener = socket.into();
        address = listener.local_addr()?;
        sockets.push(Some(listener));
    }
    Ok((address, sockets))
}

/// Connections that wait to be accepted, a socket. Linux bounds it by `net.core.somaxconn` (4,096).
const BACKLOG: i32 = 4_096;

/// Binds one socket for datagrams a worker. The system deals flows out among them.
pub(crate) fn bind_datagrams(
    address: SocketAddr,
    workers: usize,
) -> io::Result<(SocketAddr, Vec<Option<std::net::UdpSocket>>)> {
    let mut address = address;
    let mut sockets = Vec::with_capacity(workers);
    for _ in 0..workers {
        let socket = socket2::Socket::new(
            socket2::Domain::for_address(address),
            socket2::Type::DGRAM,
            Some(socket2::Protocol::UDP),
        )?;
        if workers > 1 {
            socket.set_reuse_port(true)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        let socket: std::net::UdpSocket = socket.into();
        address = socket.local_addr()?;
        sockets.push(Some(socket));
    }
    Ok((address, sockets))
}

/// The way of a listener that is not HTTP: the former one if nothing that it was made for has changed.
///
/// One on TLS is always made anew: its files may hold other certificates.
pub(crate) fn passing(
    listener: &ListenerConfig,
    whole: &ProxyConfig,
    group: &Arc<Group>,
    former: Option<&Site>,
    clock: &Clock,
) -> Result<Passing, ProxyError> {
    let failed = |problem: String| ProxyError::Listener {
        name: listener.label(),
        problem,
    };
    let config = whole
        .target_groups
        .iter()
        .find(|config| *config.name == *group.name)
        .ok_or_else(|| failed("its target group is not there".to_owned()))?;
    let kept = former.and_then(|former| former.pass.as_ref());
    if let Some(kept) = kept.filter(|kept| {
        kept.serial == group.serial
            && kept.listener == *listener
            && kept.group == *config
            && kept.attributes == whole.attributes
            && !listener.protocol.is_secure()
    }) {
        return Ok(kept.clone());
    }
    let layers = PassLayers {
        tls: match listener.protocol.is_secure() {
            true => Some(secure::acceptor(listener, whole, clock)?),
            false => None,
        },
        prefix: secure::prefix(listener, clock)?,
        target_tls: group.tls.clone(),
    };
    let settings = PassConfig::of_listener(listener, config, whole);
    let pass = Pass::new(settings, layers, group.balancer.clone(), Endpoint::place)
        .map_err(|error| failed(error.to_string()))?;
    Ok(Passing {
        pass,
        listener: listener.clone(),
        group: config.clone(),
        attributes: whole.attributes.clone(),
        serial: group.serial,
    })
}
