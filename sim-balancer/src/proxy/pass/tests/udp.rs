use std::collections::BTreeSet;

use super::*;
use crate::proxy::prefix::{Addresses, Parsed, Prefix, parse};

/// A target that gives back what it gets, with its own port before it.
async fn echo() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = vec![0; 65_535];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let mut answer = address.port().to_be_bytes().to_vec();
            answer.extend_from_slice(&buffer[..length]);
            let _ = socket.send_to(&answer, from).await;
        }
    });
    address
}

/// A listener under way.
struct Served {
    world: World,
    address: SocketAddr,
    stop: tokio::sync::oneshot::Sender<()>,
    task: JoinHandle<()>,
}

async fn serve(world: World) -> Served {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let (stop, stopped) = stop();
    let pass = world.pass.clone();
    let task = tokio::spawn(async move { pass.serve_udp(socket, stopped).await });
    Served {
        world,
        address,
        stop,
        task,
    }
}

impl Served {
    async fn client(&self) -> UdpSocket {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(self.address).await.unwrap();
        socket
    }

    fn stats(&self) -> PassStats {
        self.world.pass.stats()
    }
}

/// Sends and gives the port of the target that answered.
async fn ask(client: &UdpSocket, text: &[u8]) -> u16 {
    client.send(text).await.unwrap();
    let mut buffer = vec![0; 65_535];
    // The time is only there so that a failure does not hang.
    let received = tokio::time::timeout(Duration::from_secs(60), client.recv(&mut buffer));
    let length = received.await.expect("an answer").unwrap();
    assert_eq!(&buffer[2..length], text);
    u16::from_be_bytes([buffer[0], buffer[1]])
}

#[tokio::test]
async fn a_clients_datagrams_go_to_one_target_and_the_answers_to_the_client() {
    let targets = [echo().await, echo().await, echo().await];
    let served = serve(world(PassConfig::default(), &targets)).await;
    let mut used = BTreeSet::new();
    let mut clients = Vec::new();
    for number in 0..24_u8 {
        let client = served.client().await;
        let first = ask(&client, &[number]).await;
        used.insert(first);
        clients.push((client, first));
    }
    for round in 0..5_u8 {
        for (client, first) in &clients {
            assert_eq!(ask(client, &[round; 100]).await, *first);
        }
    }
    assert!(used.len() > 1, "all went to one target");
    let stats = served.stats();
    assert_eq!((stats.udp_active, stats.udp_opened), (24, 24));
    assert_eq!((stats.datagrams_in, stats.datagrams_out), (144, 144));
    assert_eq!(stats.bytes_in, 24 + 24 * 500);
    assert_eq!(stats.bytes_out, stats.bytes_in + 2 * 144);
    assert_eq!(stats.datagrams_dropped, 0);
    assert_eq!(served.world.balancer.stats().outstanding, 24);
}

#[tokio::test]
async fn a_clients_flows_go_to_one_target_by_its_address_alone() {
    let targets = [echo().await, echo().await, echo().await];
    let mut used = Vec::new();
    for udp_key in [FlowKey::ThreeTuple, FlowKey::FiveTuple] {
        let config = PassConfig {
            udp_key,
            ..Default::default()
        };
        let served = serve(hashing_world(config, &targets)).await;
        let mut ends = BTreeSet::new();
        for _ in 0..24 {
            ends.insert(ask(&served.client().await, b"a").await);
        }
        used.push(ends.len());
    }
    assert_eq!(used, [1, 3]);
}

#[tokio::test]
async fn a_flow_expires_when_nothing_passes() {
    let served = serve(world(PassConfig::default(), &[echo().await])).await;
    let client = served.client().await;
    for _ in 0..3 {
        ask(&client, b"still here").await;
        served.world.time.advance(Duration::from_secs(119));
    }
    ask(&client, b"last").await;
    assert_eq!(served.stats().udp_expired, 0);
    served.world.time.advance(Duration::from_secs(120));
    until("the end", || served.stats().udp_active == 0).await;
    let stats = served.stats();
    assert_eq!((stats.udp_expired, stats.udp_opened), (1, 1));
    assert_eq!(served.world.balancer.stats().outstanding, 0);
    ask(&client, b"again").await;
    assert_eq!(served.stats().udp_opened, 2);
}

#[tokio::test]
async fn more_flows_than_there_may_be_are_not_opened() {
    let config = PassConfig {
        max_udp_flows: 1,
        ..Default::default()
    };
    let served = serve(world(config, &[echo().await])).await;
    let (first, second) = (served.client().await, served.client().await);
    ask(&first, b"a").await;
    second.send(b"b").await.unwrap();
    until("the refusal", || served.stats().udp_rejected == 1).await;
    ask(&first, b"a").await;
    served.world.time.advance(Duration::from_secs(120));
    until("the end", || served.stats().udp_active == 0).await;
    ask(&second, b"b").await;
}

#[tokio::test]
async fn a_flow_whose_target_is_not_there_fails_and_the_balancer_is_told() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let gone = socket.local_addr().unwrap();
    drop(socket);
    let served = serve(world(PassConfig::default(), &[gone])).await;
    let client = served.client().await;
    client.send(b"a").await.unwrap();
    until("the failure", || served.stats().udp_failed == 1).await;
    assert_eq!(served.stats().udp_active, 0);
    assert_eq!(served.world.balancer.stats().failed, 1);
    let empty = serve(world(PassConfig::default(), &[])).await;
    let client = empty.client().await;
    client.send(b"a").await.unwrap();
    until("no target", || empty.stats().udp_unserved == 1).await;
    assert_eq!(empty.stats().udp_active, 0);
}

#[tokio::test]
async fn every_datagram_tells_the_target_of_the_client() {
    let target = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let config = PassConfig {
        proxy_protocol: Some(Version::V2),
        ..Default::default()
    };
    let served = serve(world(config, &[target.local_addr().unwrap()])).await;
    let client = served.client().await;
    for text in [b"one", b"two"] {
        client.send(text).await.unwrap();
        let mut buffer = vec![0; 100];
        let length = target.recv(&mut buffer).await.unwrap();
        let expected = Addresses::datagram(client.local_addr().unwrap(), served.address);
        let Ok(Parsed::Complete {
            prefix,
            length: header,
        }) = parse(&buffer[..length], 1_024)
        else {
            panic!("{}", buffer[..length].escape_ascii());
        };
        assert_eq!(prefix, Prefix::Proxied(expected));
        assert_eq!(&buffer[header..length], text);
    }
}

#[tokio::test]
async fn names_are_looked_up_and_the_first_datagram_waits() {
    let target = echo().await;
    let world = world(PassConfig::default(), &[]);
    register(
        &world.balancer,
        Place::Name("127.0.0.1".to_owned(), target.port()),
    );
    let served = serve(world).await;
    let client = served.client().await;
    assert_eq!(ask(&client, b"first").await, target.port());
    assert_eq!(ask(&client, b"second").await, target.port());
    assert_eq!(served.stats().udp_opened, 1);
}

#[tokio::test]
async fn a_deregistered_targets_flows_are_terminated_if_the_rules_say_so() {
    let target = echo().await;
    let rules = Rules {
        deregistration: Deregistration {
            delay: Duration::from_secs(10),
            connection_termination: true,
        },
        ..Default::default()
    };
    let config = PassConfig::default();
    let served = serve(world_with(
        config,
        |_| PassLayers::default(),
        rules,
        &[target],
    ))
    .await;
    let client = served.client().await;
    ask(&client, b"a").await;
    let balancer = &served.world.balancer;
    let id = target.to_string().as_str().into();
    balancer.deregister(&id).unwrap();
    assert_eq!(
        ask(&client, b"b").await,
        target.port(),
        "it stays until then"
    );
    let other = echo().await;
    register(balancer, Place::Socket(other));
    served.world.time.advance(Duration::from_secs(11));
    balancer.advance(balancer.clock().now());
    until("the end", || served.stats().udp_active == 0).await;
    assert_eq!(ask(&client, b"c").await, other.port());
}

#[tokio::test]
async fn a_listener_that_is_told_to_stop_serves_its_flows_until_the_drain_is_over() {
    let served = serve(world(PassConfig::default(), &[echo().await])).await;
    let (first, second) = (served.client().await, served.client().await);
    ask(&first, b"a").await;
    served.stop.send(()).unwrap();
    // Until the listener knows, it still opens flows.
    let stats = || served.world.pass.stats();
    let refused = async {
        while stats().udp_rejected == 0 {
            let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            client.send_to(b"b", served.address).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    refused.await;
    ask(&first, b"a").await;
    second.send(b"b").await.unwrap();
    assert!(!served.task.is_finished());
    served.world.time.advance(Duration::from_secs(30));
    served.task.await.unwrap();
    assert_eq!(served.world.pass.stats().udp_active, 0);
    assert_eq!(served.world.balancer.stats().outstanding, 0);
}

#[tokio::test]
async fn a_listener_without_flows_stops_at_once() {
    let served = serve(world(PassConfig::default(), &[])).await;
    served.stop.send(()).unwrap();
    served.task.await.unwrap();
}
