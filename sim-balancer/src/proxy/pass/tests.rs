mod tcp;
mod udp;

use sim_core::clock::VirtualClock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

use super::*;
use crate::algorithm::MaglevConfig;
use crate::machine::Deregistration;
use crate::message::Target;
use crate::proxy::tls::fixture;
use crate::{Algorithm, BalancerConfig, Rules};

/// A way to targets, and the clock that it runs on.
struct World {
    pass: Pass<Place>,
    balancer: Balancer<Place>,
    time: VirtualClock,
}

fn world(config: PassConfig, targets: &[SocketAddr]) -> World {
    world_with(config, |_| PassLayers::default(), Rules::default(), targets)
}

/// One whose balancer goes by the flows' keys.
fn hashing_world(config: PassConfig, targets: &[SocketAddr]) -> World {
    let balancer = BalancerConfig {
        algorithm: Algorithm::Maglev(MaglevConfig::default()),
        ..Default::default()
    };
    world_of(config, |_| PassLayers::default(), balancer, targets)
}

fn world_with(
    config: PassConfig,
    layers: impl FnOnce(&Clock) -> PassLayers,
    rules: Rules,
    targets: &[SocketAddr],
) -> World {
    let balancer = BalancerConfig {
        rules,
        ..Default::default()
    };
    world_of(config, layers, balancer, targets)
}

fn world_of(
    config: PassConfig,
    layers: impl FnOnce(&Clock) -> PassLayers,
    balancer: BalancerConfig,
    targets: &[SocketAddr],
) -> World {
    let (clock, time) = fixture::clock();
    let balancer = Balancer::with_clock(balancer, clock.clone()).unwrap();
    for target in targets {
        register(&balancer, Place::Socket(*target));
    }
    let layers = layers(&clock);
    let pass = Pass::new(config, layers, balancer.clone(), |place: &Place| {
        Some(place.clone())
    });
    World {
        pass: pass.unwrap(),
        balancer,
        time,
    }
}

fn register(balancer: &Balancer<Place>, place: Place) {
    let id = match &place {
        Place::Socket(address) => address.to_string(),
        Place::Name(host, port) => format!("{host}:{port}"),
    };
    balancer.register(Target::new(id, place)).unwrap();
}

/// Lets others run until it is so. The time is only there so that a failure does not hang.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let turns = async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(60), turns).await;
    assert!(waited.is_ok(), "never came: {what}");
}

/// Something to stop a listener with.
fn stop() -> (tokio::sync::oneshot::Sender<()>, impl Future<Output = ()>) {
    let (stop, stopped) = tokio::sync::oneshot::channel();
    (stop, async {
        let _ = stopped.await;
    })
}

/// An address at which nobody listens.
async fn nowhere() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

#[test]
fn a_listeners_settings_are_its_groups_and_its_proxys() {
    let listener = ListenerConfig {
        idle_timeout: Duration::from_secs(60),
        ..Default::default()
    };
    let group = TargetGroupConfig {
        proxy_protocol_v2: true,
        send_tcp_reset: true,
        stickiness: crate::proxy::config::StickinessConfig {
            kind: StickinessKind::SourceIp,
            ..Default::default()
        },
        ..Default::default()
    };
    let mut proxy = ProxyConfig::default();
    proxy.attributes.max_connections = 7;
    let expected = PassConfig {
        idle_timeout: Duration::from_secs(60),
        max_flows: 7,
        proxy_protocol: Some(Version::V2),
        reset: Reset::Send,
        tcp_key: FlowKey::SourceIp,
        udp_key: FlowKey::SourceIp,
        ..PassConfig::default()
    };
    assert_eq!(PassConfig::of_listener(&listener, &group, &proxy), expected);
    let plain = TargetGroupConfig::default();
    let of_plain =
        PassConfig::of_listener(&ListenerConfig::default(), &plain, &ProxyConfig::default());
    assert_eq!(of_plain, PassConfig::default());
}

#[test]
fn settings_of_zero_are_refused() {
    let zero = Duration::ZERO;
    let of = |edit: fn(&mut PassConfig, Duration)| {
        let mut config = PassConfig::default();
        edit(&mut config, zero);
        config.check().unwrap_err().field
    };
    PassConfig::default().check().unwrap();
    assert_eq!(of(|c, zero| c.idle_timeout = zero), "idle_timeout");
    assert_eq!(of(|c, zero| c.udp_idle_timeout = zero), "udp_idle_timeout");
    assert_eq!(of(|c, zero| c.connect_timeout = zero), "connect_timeout");
    assert_eq!(of(|c, _| c.attempts = 0), "attempts");
    assert_eq!(of(|c, _| c.max_flows = 0), "max_flows");
    assert_eq!(of(|c, _| c.max_udp_flows = 0), "max_udp_flows");
}
