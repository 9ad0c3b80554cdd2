use std::collections::BTreeSet;

use proptest::prelude::*;
use sim_core::sync::Arc;
use sim_core::sync::atomic::{AtomicBool, Ordering};

use super::super::duplex::{Copied, copy};
use super::*;
use crate::proxy::prefix::{Addresses, Mode, Prefix, PrefixConfig, encode};
use crate::proxy::tls::{TargetTlsConfig, Verify};

/// A listener, and the tasks of what connects to it.
async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A server that gives back what it gets, and ends when its client ended.
async fn echo() -> SocketAddr {
    let (listener, address) = listener().await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
                let _ = to.shutdown().await;
            });
        }
    });
    address
}

/// A client's connection through the pass, and what becomes of it.
async fn connect(world: &World) -> (TcpStream, JoinHandle<FlowReport>) {
    let (listener, address) = listener().await;
    let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (stream, peer) = accepted.unwrap();
    let pass = world.pass.clone();
    let flow = tokio::spawn(async move { pass.serve_stream(stream, peer).await });
    (client.unwrap(), flow)
}

async fn ping<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(stream: &mut S) {
    stream.write_all(b"ping").await.unwrap();
    stream.flush().await.unwrap();
    let mut bytes = [0; 4];
    stream.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"ping");
}

async fn rest_of<S: tokio::io::AsyncRead + Unpin>(stream: &mut S) -> io::Result<Vec<u8>> {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.map(|_| rest)
}

fn is_reset<T>(outcome: io::Result<T>) -> bool {
    outcome.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset)
}

#[tokio::test]
async fn bytes_pass_in_both_directions_and_are_counted() {
    let target = echo().await;
    let world = world(PassConfig::default(), &[target]);
    let (client, flow) = connect(&world).await;
    let (mut from, mut to) = client.into_split();
    let sent: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
    let send = async {
        to.write_all(&sent).await.unwrap();
        to.shutdown().await.unwrap();
    };
    let ((), received) = tokio::join!(send, rest_of(&mut from));
    assert!(received.unwrap() == sent);
    let report = flow.await.unwrap();
    assert!(matches!(report.end, FlowEnd::Finished), "{report:?}");
    assert_eq!((report.bytes_in, report.bytes_out), (1_000_000, 1_000_000));
    assert_eq!(report.target, Some(target.to_string().as_str().into()));
    let stats = world.pass.stats();
    assert_eq!((stats.bytes_in, stats.bytes_out), (1_000_000, 1_000_000));
    assert_eq!((stats.active, stats.opened, stats.finished), (0, 1, 1));
    assert_eq!(world.balancer.stats().outstanding, 0);
}

#[tokio::test]
async fn a_target_that_ends_its_direction_still_gets_the_clients_bytes() {
    let (listener, address) = listener().await;
    let world = world(PassConfig::default(), &[address]);
    let (mut client, flow) = connect(&world).await;
    let (mut target, _) = listener.accept().await.unwrap();
    target.write_all(b"last words").await.unwrap();
    target.shutdown().await.unwrap();
    assert_eq!(rest_of(&mut client).await.unwrap(), b"last words");
    client.write_all(b"answer").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(rest_of(&mut target).await.unwrap(), b"answer");
    assert!(matches!(flow.await.unwrap().end, FlowEnd::Finished));
}

#[tokio::test]
async fn targets_that_are_not_reached_are_passed_over() {
    let (gone, target) = (nowhere().await, echo().await);
    let world = world(PassConfig::default(), &[gone, target]);
    for _ in 0..8 {
        let (mut client, flow) = connect(&world).await;
        ping(&mut client).await;
        client.shutdown().await.unwrap();
        let report = flow.await.unwrap();
        assert_eq!(report.target, Some(target.to_string().as_str().into()));
    }
    let stats = world.pass.stats();
    assert!(stats.connect_failures > 0, "the other one was never tried");
    assert_eq!((stats.finished, stats.unserved), (8, 0));
}

#[tokio::test]
async fn without_a_target_that_is_reached_the_client_is_ended_or_reset_as_the_settings_have_it() {
    for (reset, targets) in [(Reset::Never, 1), (Reset::Send, 2), (Reset::Send, 0)] {
        let mut gone = Vec::new();
        for _ in 0..targets {
            gone.push(nowhere().await);
        }
        let config = PassConfig {
            reset,
            ..Default::default()
        };
        let world = world(config, &gone);
        let (mut client, flow) = connect(&world).await;
        let report = flow.await.unwrap();
        match targets {
            0 => assert!(matches!(report.end, FlowEnd::NoTarget(_)), "{report:?}"),
            _ => assert!(matches!(report.end, FlowEnd::Unreachable), "{report:?}"),
        }
        let ended = rest_of(&mut client).await;
        assert_eq!(is_reset(ended), reset == Reset::Send);
        let stats = world.pass.stats();
        assert_eq!(stats.unserved, 1);
        assert_eq!(stats.connect_failures, targets);
        assert_eq!(stats.own_resets, u64::from(reset == Reset::Send));
    }
}

#[tokio::test]
async fn what_the_target_breaks_is_reset_at_the_client() {
    let (listener, address) = listener().await;
    let world = world(PassConfig::default(), &[address]);
    let (mut client, flow) = connect(&world).await;
    let (mut target, _) = listener.accept().await.unwrap();
    client.write_all(b"x").await.unwrap();
    target.read_u8().await.unwrap();
    target.set_zero_linger().unwrap();
    drop(target);
    assert!(is_reset(rest_of(&mut client).await));
    assert!(matches!(flow.await.unwrap().end, FlowEnd::TargetBroke));
    assert_eq!(world.pass.stats().target_resets, 1);
    assert_eq!(world.balancer.stats().failed, 1, "the balancer is told");
}

#[tokio::test]
async fn what_the_client_breaks_is_reset_at_the_target() {
    let (listener, address) = listener().await;
    let world = world(PassConfig::default(), &[address]);
    let (client, flow) = connect(&world).await;
    let (mut target, _) = listener.accept().await.unwrap();
    client.set_zero_linger().unwrap();
    drop(client);
    assert!(is_reset(rest_of(&mut target).await));
    assert!(matches!(flow.await.unwrap().end, FlowEnd::ClientBroke));
    assert_eq!(world.pass.stats().client_resets, 1);
    assert_eq!(
        world.balancer.stats().failed,
        0,
        "it is not the target's fault"
    );
}

#[tokio::test]
async fn a_connection_ends_when_nothing_passes_for_the_idle_timeout() {
    let world = world(PassConfig::default(), &[echo().await]);
    let (mut client, flow) = connect(&world).await;
    for _ in 0..3 {
        ping(&mut client).await;
        world.time.advance(Duration::from_secs(349));
    }
    ping(&mut client).await;
    assert!(!flow.is_finished());
    world.time.advance(Duration::from_secs(350));
    let report = flow.await.unwrap();
    assert!(matches!(report.end, FlowEnd::Idle), "{report:?}");
    assert_eq!(report.elapsed, Duration::from_secs(3 * 349 + 350));
    assert_eq!(rest_of(&mut client).await.unwrap(), b"");
}

#[tokio::test]
async fn a_connection_to_a_target_that_does_not_answer_is_given_up() {
    // Nobody accepts, and the queue is full: the system answers no further handshake.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    socket.bind(&any.into()).unwrap();
    socket.listen(0).unwrap();
    let silent = socket.local_addr().unwrap().as_socket().unwrap();
    let mut queued = Vec::new();
    for _ in 0..4 {
        let waiting = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let waiting = waiting.unwrap();
        waiting.set_nonblocking(true).unwrap();
        let _ = waiting.connect(&silent.into());
        queued.push(waiting);
    }
    let world = world(PassConfig::default(), &[silent]);
    let (mut client, flow) = connect(&world).await;
    until("the lease", || world.balancer.stats().outstanding == 1).await;
    world.time.advance(Duration::from_secs(10));
    assert!(matches!(flow.await.unwrap().end, FlowEnd::Unreachable));
    assert_eq!(rest_of(&mut client).await.unwrap(), b"");
}

#[tokio::test]
async fn more_connections_than_there_may_be_are_reset() {
    let config = PassConfig {
        max_flows: 1,
        ..Default::default()
    };
    let world = world(config, &[echo().await]);
    let (mut first, flow) = connect(&world).await;
    ping(&mut first).await;
    let (mut second, refused) = connect(&world).await;
    assert!(is_reset(rest_of(&mut second).await));
    assert!(matches!(refused.await.unwrap().end, FlowEnd::Rejected));
    ping(&mut first).await;
    drop(first);
    flow.await.unwrap();
    let (mut third, _flow) = connect(&world).await;
    ping(&mut third).await;
    let stats = world.pass.stats();
    assert_eq!((stats.active, stats.opened, stats.rejected), (1, 2, 1));
}

#[tokio::test]
async fn a_listener_that_is_told_to_stop_lets_its_connections_end_until_the_drain_is_over() {
    for ends_by_itself in [true, false] {
        let world = world(PassConfig::default(), &[echo().await]);
        let (listener, address) = listener().await;
        let (stop, stopped) = stop();
        let pass = world.pass.clone();
        let serve = tokio::spawn(async move { pass.serve_tcp(listener, stopped).await });
        let mut client = TcpStream::connect(address).await.unwrap();
        ping(&mut client).await;
        stop.send(()).unwrap();
        // The listener is closed as soon as it knows.
        let refused = async {
            while TcpStream::connect(address).await.is_ok() {
                tokio::task::yield_now().await;
            }
        };
        refused.await;
        ping(&mut client).await;
        assert!(!serve.is_finished());
        if ends_by_itself {
            client.shutdown().await.unwrap();
            assert_eq!(rest_of(&mut client).await.unwrap(), b"");
        } else {
            world.time.advance(Duration::from_secs(30));
            assert_eq!(rest_of(&mut client).await.unwrap(), b"");
        }
        serve.await.unwrap();
        assert_eq!(world.pass.stats().active, 0);
        assert_eq!(world.pass.stats().cut, u64::from(!ends_by_itself));
    }
}

#[tokio::test]
async fn a_deregistered_targets_connections_are_terminated_only_if_the_rules_say_so() {
    for connection_termination in [true, false] {
        let target = echo().await;
        let rules = Rules {
            deregistration: Deregistration {
                delay: Duration::from_secs(60),
                connection_termination,
            },
            ..Default::default()
        };
        let config = PassConfig {
            reset: Reset::Send,
            ..Default::default()
        };
        let world = world_with(config, |_| PassLayers::default(), rules, &[target]);
        let (mut client, flow) = connect(&world).await;
        ping(&mut client).await;
        let id = target.to_string().as_str().into();
        world.balancer.deregister(&id).unwrap();
        ping(&mut client).await;
        world.time.advance(Duration::from_secs(61));
        world.balancer.advance(world.balancer.clock().now());
        if connection_termination {
            assert!(matches!(flow.await.unwrap().end, FlowEnd::Terminated));
            assert!(is_reset(rest_of(&mut client).await));
            assert_eq!(world.pass.stats().terminated, 1);
        } else {
            ping(&mut client).await;
            assert!(!flow.is_finished());
        }
    }
}

/// A world whose clients speak TLS, and such a client's settings.
fn secure_world(
    targets: &[SocketAddr],
    prefix: Option<PrefixConfig>,
) -> (World, Arc<rustls::ClientConfig>) {
    let ca = fixture::Authority::new("root");
    let config = fixture::config(&[&ca.server(&["a.example"])]);
    let layers = |clock: &Clock| PassLayers {
        tls: Some(TlsAcceptor::new(&config, clock.clone()).unwrap()),
        prefix: prefix.map(|prefix| PrefixReader::new(prefix, clock.clone()).unwrap()),
        target_tls: None,
    };
    let pass = PassConfig {
        proxy_protocol: Some(Version::V2),
        ..Default::default()
    };
    let world = world_with(pass, layers, Rules::default(), targets);
    (world, Arc::new(ca.trusting_client(None)))
}

#[tokio::test]
async fn tls_ends_here_and_the_target_is_told_who_the_client_is() {
    let (listener, address) = listener().await;
    let prefix = PrefixConfig {
        mode: Mode::Required,
        trusted: vec!["127.0.0.0/8".parse().unwrap()],
        ..Default::default()
    };
    let (world, tls) = secure_world(&[address], Some(prefix));
    let (mut client, flow) = connect(&world).await;
    let told = Prefix::Proxied(Addresses::stream(
        "192.0.2.7:4711".parse().unwrap(),
        "198.51.100.1:443".parse().unwrap(),
    ));
    client.write_all(&encode(Version::V1, &told)).await.unwrap();
    let serve = async {
        let (mut target, _) = listener.accept().await.unwrap();
        let mut received = vec![0; encode(Version::V2, &told).len()];
        target.read_exact(&mut received).await.unwrap();
        assert_eq!(received, encode(Version::V2, &told));
        let (mut from, mut to) = target.split();
        tokio::io::copy(&mut from, &mut to).await.unwrap();
        to.shutdown().await.unwrap();
    };
    let ask = async {
        let mut client = fixture::connect(&tls, client, "a.example").await.unwrap();
        ping(&mut client).await;
        client.shutdown().await.unwrap();
        assert_eq!(rest_of(&mut client).await.unwrap(), b"");
    };
    tokio::join!(serve, ask);
    assert!(matches!(flow.await.unwrap().end, FlowEnd::Finished));
}

#[tokio::test]
async fn connections_without_the_prefix_or_tls_that_is_asked_for_reach_no_target() {
    let prefix = PrefixConfig {
        mode: Mode::Required,
        trusted: vec!["127.0.0.0/8".parse().unwrap()],
        ..Default::default()
    };
    let (world, _tls) = secure_world(&[nowhere().await], Some(prefix));
    let (mut client, flow) = connect(&world).await;
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert!(matches!(flow.await.unwrap().end, FlowEnd::Prefix(_)));
    let (mut client, flow) = connect(&world).await;
    client
        .write_all(b"PROXY UNKNOWN\r\nGET / HTTP/1.1\r\n\r\n")
        .await
        .unwrap();
    assert!(matches!(flow.await.unwrap().end, FlowEnd::Handshake(_)));
    let stats = world.pass.stats();
    assert_eq!((stats.prefix_failures, stats.handshake_failures), (1, 1));
    assert_eq!(stats.connect_failures, 0);
}

#[tokio::test]
async fn a_handshake_that_never_comes_does_not_hold_a_place_for_ever() {
    let (world, _tls) = secure_world(&[nowhere().await], None);
    let (mut client, flow) = connect(&world).await;
    until("the connection", || world.pass.stats().active == 1).await;
    client.write_all(&[0x16, 3]).await.unwrap();
    // The byte is not waited for: the time is the same from the acceptance on.
    world.time.advance(Duration::from_secs(10));
    assert!(matches!(flow.await.unwrap().end, FlowEnd::Handshake(_)));
    assert_eq!(world.pass.stats().active, 0);
}

#[tokio::test]
async fn tls_that_ends_without_saying_so_is_no_end_to_the_target() {
    let (listener, address) = listener().await;
    let (world, tls) = secure_world(&[address], None);
    let (client, flow) = connect(&world).await;
    let serve = async {
        let (mut target, _) = listener.accept().await.unwrap();
        rest_of(&mut target).await
    };
    let ask = async {
        let mut client = fixture::connect(&tls, client, "a.example").await.unwrap();
        client.write_all(b"half a").await.unwrap();
        client.flush().await.unwrap();
        let (mut socket, _) = client.into_inner();
        socket.shutdown().await.unwrap();
        socket
    };
    let (received, _socket) = tokio::join!(serve, ask);
    assert!(is_reset(received));
    assert!(matches!(flow.await.unwrap().end, FlowEnd::ClientBroke));
}

#[tokio::test]
async fn targets_can_be_spoken_to_in_tls() {
    let ca = fixture::Authority::new("root");
    let config = fixture::config(&[&ca.server(&["a.example"])]);
    let (listener, address) = listener().await;
    let layers = |clock: &Clock| PassLayers {
        target_tls: {
            let config = TargetTlsConfig {
                verify: Verify::Roots(ca.pem()),
                name: Some("a.example".to_owned()),
                ..Default::default()
            };
            Some(TlsConnector::new(&config, clock.clone()).unwrap())
        },
        ..Default::default()
    };
    let rules = Rules::default();
    let world = world_with(PassConfig::default(), layers, rules, &[address]);
    let acceptor = TlsAcceptor::new(&config, fixture::clock().0).unwrap();
    let (mut client, flow) = connect(&world).await;
    let serve = async {
        let (target, _) = listener.accept().await.unwrap();
        let mut target = acceptor.accept(target).await.unwrap();
        let received = rest_of(&mut target).await.unwrap();
        target.write_all(&received).await.unwrap();
        target.shutdown().await.unwrap();
    };
    let ask = async {
        client.write_all(b"hello").await.unwrap();
        client.shutdown().await.unwrap();
        rest_of(&mut client).await.unwrap()
    };
    let ((), received) = tokio::join!(serve, ask);
    assert_eq!(received, b"hello");
    assert!(matches!(flow.await.unwrap().end, FlowEnd::Finished));
}

#[tokio::test]
async fn names_are_looked_up_for_each_connection() {
    let target = echo().await;
    let world = world(PassConfig::default(), &[]);
    register(
        &world.balancer,
        Place::Name("localhost".to_owned(), target.port()),
    );
    let (mut client, _flow) = connect(&world).await;
    ping(&mut client).await;
}

#[tokio::test]
async fn connections_are_spread_over_the_targets() {
    let targets = [echo().await, echo().await, echo().await];
    let world = world(PassConfig::default(), &targets);
    let mut open = Vec::new();
    let mut used = BTreeSet::new();
    for _ in 0..24 {
        let (mut client, flow) = connect(&world).await;
        ping(&mut client).await;
        open.push((client, flow));
    }
    for (client, flow) in open {
        drop(client);
        used.extend(flow.await.unwrap().target);
    }
    assert_eq!(used.len(), 3, "{used:?}");
}

#[tokio::test]
async fn a_clients_address_decides_if_it_is_to_be_sticky() {
    let targets = [echo().await, echo().await, echo().await];
    let mut used = Vec::new();
    for tcp_key in [FlowKey::SourceIp, FlowKey::ThreeTuple, FlowKey::FiveTuple] {
        let config = PassConfig {
            tcp_key,
            ..Default::default()
        };
        let world = hashing_world(config, &targets);
        let (listener, address) = listener().await;
        let mut ends = BTreeSet::new();
        for _ in 0..24 {
            let client = TcpStream::connect(address);
            let (client, accepted) = tokio::join!(client, listener.accept());
            let (stream, peer) = accepted.unwrap();
            client.unwrap().shutdown().await.unwrap();
            ends.extend(world.pass.serve_stream(stream, peer).await.target);
        }
        used.push(ends.len());
    }
    assert_eq!(used, [1, 1, 3]);
}

#[tokio::test]
async fn a_slow_receiver_holds_up_the_sender() {
    let (clock, _time) = fixture::clock();
    let (mut near, mut client) = tokio::io::duplex(1 << 20);
    let (mut target, far) = tokio::io::duplex(1_000);
    near.write_all(&vec![7; 1 << 20]).await.unwrap();
    let is_full = AtomicBool::new(false);
    let idle = Duration::from_secs(350);
    let mut passed = 0;
    {
        let meter = |inward, _| {
            passed += inward;
            is_full.store(passed == 1_000, Ordering::Relaxed);
        };
        let copy = copy(&mut client, &mut target, &clock, idle, meter);
        tokio::select! {
            copied = copy => panic!("{copied:?}"),
            () = until("a full pipe", || is_full.load(Ordering::Relaxed)) => {}
        }
    }
    let mut left = Vec::new();
    drop(near);
    client.read_to_end(&mut left).await.unwrap();
    assert_eq!(
        left.len(),
        (1 << 20) - 16 * 1_024,
        "one chunk was read ahead"
    );
    drop(far);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn nothing_is_lost_doubled_or_moved_whatever_the_pieces(
        inward in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..600), 0..20),
        outward in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..600), 0..20),
        sizes in (1..700_usize, 1..700_usize),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (at_target, at_client) = runtime.block_on(async {
            let (clock, _time) = fixture::clock();
            let (near, mut client) = tokio::io::duplex(sizes.0);
            let (mut target, far) = tokio::io::duplex(sizes.1);
            let copy = copy(&mut client, &mut target, &clock, Duration::from_secs(1), |_, _| ());
            let end = |stream: tokio::io::DuplexStream, pieces: Vec<Vec<u8>>| async move {
                let (mut from, mut to) = tokio::io::split(stream);
                let send = async {
                    for piece in pieces {
                        to.write_all(&piece).await.unwrap();
                    }
                    to.shutdown().await.unwrap();
                };
                tokio::join!(rest_of(&mut from), send).0.unwrap()
            };
            let (copied, at_client, at_target) =
                tokio::join!(copy, end(near, inward.clone()), end(far, outward.clone()));
            assert!(matches!(copied, Copied::Finished));
            (at_target, at_client)
        });
        prop_assert_eq!(at_target, inward.concat());
        prop_assert_eq!(at_client, outward.concat());
    }
}
