//! Checks against small servers on the loopback, real sockets and virtual time.

use std::net::Ipv4Addr;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use sim_core::clock::{Clock, VirtualClock};
use sim_core::sync::atomic::{AtomicUsize, Ordering};
use sim_core::time::Timestamp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::*;
use crate::machine::{Matcher, Rules, State};
use crate::{BalancerConfig, Target};

fn balancer<T: Send + Sync + 'static>(check: HealthCheck) -> (Balancer<T>, VirtualClock) {
    let (clock, time) = Clock::virtual_at(Timestamp::UNIX_EPOCH);
    let config = BalancerConfig {
        rules: Rules {
            health_check: Some(check),
            ..Rules::default()
        },
        ..BalancerConfig::default()
    };
    (Balancer::with_clock(config, clock).unwrap(), time)
}

fn of(protocol: CheckProtocol) -> HealthCheck {
    HealthCheck::of(protocol)
}

fn matching(protocol: CheckProtocol, matcher: &str) -> HealthCheck {
    HealthCheck {
        matcher: Some(matcher.parse().unwrap()),
        ..of(protocol)
    }
}

/// Checks one address once.
async fn check(check: HealthCheck, address: SocketAddr) -> ProbeResult {
    let (balancer, _time) = balancer(check);
    balancer.register(Target::new("a", address)).unwrap();
    let checker = Checker::new(&balancer, |address| Some(*address)).unwrap();
    assert_eq!(checker.step().await, 1);
    let health = balancer.health(&"a".into()).unwrap();
    health.last_probe.unwrap()
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Reads the head of a request and answers each with the same bytes.
async fn canned(reply: &'static [u8]) -> (SocketAddr, mpsc::UnboundedReceiver<String>) {
    let (listener, address) = listen().await;
    let (heard, hears) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let head = head(&mut stream).await;
            let _ = stream.write_all(reply).await;
            let _ = heard.send(head);
        }
    });
    (address, hears)
}

async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8_lossy(&head).into_owned()
}

#[tokio::test]
async fn a_get_is_judged_by_its_status() {
    let (address, mut heard) =
        canned(b"HTTP/1.1 202 Accepted\r\ncontent-length: 2\r\n\r\nok").await;
    for (matcher, result) in [
        ("200,202", ProbeResult::Good),
        ("200-299", ProbeResult::Good),
        ("200", ProbeResult::CodeMismatch { code: 202 }),
        ("203-499", ProbeResult::CodeMismatch { code: 202 }),
    ] {
        let rule = HealthCheck {
            path: Some("/up?deep=1".into()),
            ..matching(CheckProtocol::Http, matcher)
        };
        assert_eq!(check(rule, address).await, result, "{matcher}");
        let head = heard.recv().await.unwrap();
        assert!(head.starts_with("GET /up?deep=1 HTTP/1.1\r\n"), "{head}");
        let host = format!("host: {address}\r\n");
        assert!(head.contains(&host), "{head}");
    }
    let result = check(of(CheckProtocol::Http), address).await;
    assert_eq!(result, ProbeResult::CodeMismatch { code: 202 });
    assert!(heard.recv().await.unwrap().starts_with("GET / HTTP/1.1"));
}

#[tokio::test]
async fn a_check_may_go_to_another_port() {
    let (address, _heard) = canned(b"HTTP/1.1 200 OK\r\n\r\n").await;
    let rule = HealthCheck {
        port: CheckPort::Port(address.port()),
        ..of(CheckProtocol::Http)
    };
    let elsewhere = SocketAddr::new(address.ip(), 9);
    assert_eq!(check(rule, elsewhere).await, ProbeResult::Good);
}

#[tokio::test]
async fn who_cannot_be_reached_has_failed() {
    let (listener, address) = listen().await;
    drop(listener);
    for protocol in [
        CheckProtocol::Http,
        CheckProtocol::Https,
        CheckProtocol::Grpc,
        CheckProtocol::GrpcHealth,
        CheckProtocol::Tcp,
        CheckProtocol::Tls,
    ] {
        assert_eq!(check(of(protocol), address).await, ProbeResult::Failed);
    }
}

#[tokio::test]
async fn a_connection_is_enough_for_tcp() {
    let (_listener, address) = listen().await;
    assert_eq!(
        check(of(CheckProtocol::Tcp), address).await,
        ProbeResult::Good
    );
}

#[tokio::test]
async fn garbage_is_a_failure() {
    for reply in [
        &b"garbage\r\n\r\n"[..],
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: cut o",
        b"",
        &[0xff; 200],
    ] {
        let (address, _heard) = canned(reply).await;
        let result = check(of(CheckProtocol::Http), address).await;
        assert_eq!(result, ProbeResult::Failed, "{reply:?}");
    }
}

#[tokio::test]
async fn garbage_fails_the_other_protocols_too() {
    // Answers at once, whatever is said.
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(&[b'x'; 500]).await;
        }
    });
    for protocol in [
        CheckProtocol::Https,
        CheckProtocol::Tls,
        CheckProtocol::Grpc,
        CheckProtocol::GrpcHealth,
    ] {
        let result = check(of(protocol), address).await;
        assert_eq!(result, ProbeResult::Failed, "{protocol:?}");
    }
}

#[tokio::test]
async fn a_head_without_end_is_a_failure() {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n").await;
            while stream
                .write_all(b"x: yyyyyyyyyyyyyyyyyyyyyyy\r\n")
                .await
                .is_ok()
            {}
        }
    });
    let result = check(of(CheckProtocol::Http), address).await;
    assert_eq!(result, ProbeResult::Failed);
}

/// A TLS server with a certificate that nobody trusts.
async fn secured(reply: &'static [u8]) -> SocketAddr {
    let made = rcgen::generate_simple_self_signed(vec!["elsewhere.example".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut session) = acceptor.accept(stream).await else {
                    return;
                };
                let mut head = [0; 1024];
                if session.read(&mut head).await.is_ok_and(|count| count > 0) {
                    session.write_all(reply).await.unwrap();
                    let _ = session.shutdown().await;
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn certificates_are_not_verified() {
    let address = secured(b"HTTP/1.1 200 OK\r\n\r\n").await;
    assert_eq!(
        check(of(CheckProtocol::Https), address).await,
        ProbeResult::Good
    );
    assert_eq!(
        check(of(CheckProtocol::Tls), address).await,
        ProbeResult::Good
    );
    let address = secured(b"HTTP/1.1 500 No\r\n\r\n").await;
    assert_eq!(
        check(of(CheckProtocol::Https), address).await,
        ProbeResult::CodeMismatch { code: 500 }
    );
}

type Body = UnsyncBoxBody<Bytes, Infallible>;
type Answer = fn() -> ::http::Response<Body>;

/// A server of HTTP/2 whose answer is made anew for each request.
async fn h2(
    answer: fn() -> ::http::Response<Body>,
) -> (SocketAddr, mpsc::UnboundedReceiver<String>) {
    let (listener, address) = listen().await;
    let (heard, hears) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let heard = heard.clone();
            let service = service_fn(move |request: ::http::Request<hyper::body::Incoming>| {
                let heard = heard.clone();
                async move {
                    let (head, body) = request.into_parts();
                    let body = body.collect().await.unwrap().to_bytes();
                    let text = format!("{} {} {:?}", head.method, head.uri.path(), &body[..]);
                    let _ = heard.send(text);
                    Ok::<_, Infallible>(answer())
                }
            });
            tokio::spawn(
                hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    (address, hears)
}

fn grpc_status(code: &'static str) -> ::http::HeaderMap {
    let mut trailers = ::http::HeaderMap::new();
    trailers.insert("grpc-status", ::http::HeaderValue::from_static(code));
    trailers
}

/// A message, and the status in the trailers.
fn with_message(message: &'static [u8], code: &'static str) -> ::http::Response<Body> {
    let body = Full::new(Bytes::from_static(message))
        .with_trailers(async move { Some(Ok(grpc_status(code))) });
    ::http::Response::new(body.boxed_unsync())
}

/// No message, and the status in the head.
fn head_only(status: u16, code: Option<&'static str>) -> ::http::Response<Body> {
    let mut response = ::http::Response::new(Empty::new().boxed_unsync());
    *response.status_mut() = ::http::StatusCode::from_u16(status).unwrap();
    if let Some(code) = code {
        response.headers_mut().extend(grpc_status(code));
    }
    response
}

#[tokio::test]
async fn a_call_is_judged_by_its_status() {
    let answers: [(Answer, u16); 6] = [
        (|| head_only(200, Some("12")), 12),
        (|| with_message(&[0, 0, 0, 0, 0], "0"), 0),
        (|| with_message(&[], "7"), 7),
        (|| head_only(404, None), 12),
        (|| head_only(503, None), 14),
        (|| head_only(200, None), 2),
    ];
    for (answer, code) in answers {
        let (address, mut heard) = h2(answer).await;
        let one = matching(CheckProtocol::Grpc, &code.to_string());
        assert_eq!(check(one, address).await, ProbeResult::Good);
        assert_eq!(
            heard.recv().await.unwrap(),
            "POST /AWS.ALB/healthcheck [0, 0, 0, 0, 0]"
        );
        let other = matching(CheckProtocol::Grpc, "99");
        let mismatch = ProbeResult::CodeMismatch { code };
        assert_eq!(check(other, address).await, mismatch);
    }
}

#[tokio::test]
async fn the_health_service_must_say_serving() {
    let answers: [(Answer, ProbeResult); 4] = [
        (
            || with_message(&[0, 0, 0, 0, 2, 8, 1], "0"),
            ProbeResult::Good,
        ),
        (
            || with_message(&[0, 0, 0, 0, 2, 8, 2], "0"),
            ProbeResult::Failed,
        ),
        (|| with_message(&[], "0"), ProbeResult::Failed),
        (
            || head_only(200, Some("12")),
            ProbeResult::CodeMismatch { code: 12 },
        ),
    ];
    for (answer, result) in answers {
        let (address, mut heard) = h2(answer).await;
        assert_eq!(check(of(CheckProtocol::GrpcHealth), address).await, result);
        assert_eq!(
            heard.recv().await.unwrap(),
            "POST /grpc.health.v1.Health/Check [0, 0, 0, 0, 0]"
        );
    }
}

#[tokio::test]
async fn an_answer_that_does_not_come_in_time_is_a_timeout() {
    for protocol in [
        CheckProtocol::Http,
        CheckProtocol::Https,
        CheckProtocol::Grpc,
        CheckProtocol::Tls,
    ] {
        let (listener, address) = listen().await;
        let (balancer, time) = balancer(of(protocol));
        balancer.register(Target::new("a", address)).unwrap();
        let (seen, mut sees) = mpsc::unbounded_channel();
        let checker = Checker::new(&balancer, |address| Some(*address))
            .unwrap()
            .on_checked(move |checked| seen.send(checked.clone()).unwrap());
        let silent = async {
            // The connection is made and something was said: now only time can end it.
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.read_u8().await.unwrap();
            time.advance(of(protocol).timeout);
            stream
        };
        let (count, _stream) = tokio::join!(checker.step(), silent);
        assert_eq!(count, 1);
        let checked = sees.recv().await.unwrap();
        assert_eq!(checked.result, ProbeResult::Timeout);
        assert_eq!(checked.took, of(protocol).timeout);
        let health = balancer.health(&"a".into()).unwrap();
        assert_eq!(health.last_probe, Some(ProbeResult::Timeout));
    }
}

#[tokio::test(start_paused = true)]
async fn a_runtimes_own_clock_ends_a_check_too() {
    let (listener, address) = listen().await;
    let clock = Clock::tokio();
    let config = BalancerConfig {
        rules: Rules {
            health_check: Some(of(CheckProtocol::Http)),
            ..Rules::default()
        },
        ..BalancerConfig::default()
    };
    let balancer = Balancer::with_clock(config, clock.clone()).unwrap();
    balancer.register(Target::new("a", address)).unwrap();
    let checker = Checker::new(&balancer, |address| Some(*address)).unwrap();
    let start = clock.now();
    checker.step().await;
    let health = balancer.health(&"a".into()).unwrap();
    assert_eq!(health.last_probe, Some(ProbeResult::Timeout));
    assert!(clock.now() - start >= Duration::from_secs(6));
    drop(listener);
}

#[tokio::test]
async fn a_target_without_an_address_is_the_checkers_fault() {
    let (balancer, _time) = balancer(of(CheckProtocol::Http));
    balancer.register(Target::new("a", ())).unwrap();
    let checker = Checker::new(&balancer, |()| None).unwrap();
    checker.step().await;
    let health = balancer.health(&"a".into()).unwrap();
    assert_eq!(health.last_probe, Some(ProbeResult::Internal));
    assert_eq!(health.state, State::Initial);
}

#[tokio::test]
async fn targets_are_asked_each_interval_and_change_their_state() {
    let (balancer, time) = balancer(HealthCheck {
        healthy_threshold: 2,
        unhealthy_threshold: 2,
        ..of(CheckProtocol::Custom)
    });
    for id in ["a", "b"] {
        balancer.register(Target::new(id, id)).unwrap();
    }
    let (seen, mut sees) = mpsc::unbounded_channel();
    let round = Arc::new(AtomicUsize::new(0));
    let turn = Arc::clone(&round);
    let checker = Checker::custom(&balancer, move |target: TargetRef<&'static str>| {
        let round = turn.load(Ordering::SeqCst);
        async move {
            // The second is unwell in rounds 1 and 2.
            if *target == "b" && (1..3).contains(&round) {
                ProbeResult::Failed
            } else {
                ProbeResult::Good
            }
        }
    })
    .unwrap()
    .on_checked(move |checked| seen.send(checked.id.clone()).unwrap());
    let running = tokio::spawn(async move { checker.run().await });
    let mut states = Vec::new();
    for next in 1..6 {
        let mut asked = vec![sees.recv().await.unwrap(), sees.recv().await.unwrap()];
        asked.sort();
        assert_eq!(asked, ["a", "b"].map(TargetId::from));
        assert_eq!(balancer.health(&"a".into()).unwrap().state, State::Healthy);
        states.push(balancer.health(&"b".into()).unwrap().state);
        round.store(next, Ordering::SeqCst);
        time.advance(of(CheckProtocol::Custom).interval);
    }
    assert_eq!(
        states,
        [
            State::Healthy,
            State::Healthy,
            State::Unhealthy,
            State::Unhealthy,
            State::Healthy
        ]
    );
    running.abort();
    assert!(running.await.unwrap_err().is_cancelled());
}

#[tokio::test]
async fn no_more_than_so_many_checks_run_at_a_time() {
    let (balancer, _time) = balancer(of(CheckProtocol::Custom));
    for n in 0..100 {
        balancer.register(Target::new(n.to_string(), ())).unwrap();
    }
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (seen, mut sees) = mpsc::unbounded_channel();
    let counts = (Arc::clone(&now), Arc::clone(&most));
    let checker = Checker::custom(&balancer, move |_: TargetRef<()>| {
        let (now, most) = counts.clone();
        async move {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            now.fetch_sub(1, Ordering::SeqCst);
            ProbeResult::Good
        }
    })
    .unwrap()
    .concurrency(7)
    .unwrap()
    .on_checked(move |_| seen.send(()).unwrap());
    let running = tokio::spawn(async move { checker.run().await });
    for _ in 0..100 {
        sees.recv().await.unwrap();
    }
    assert_eq!(most.load(Ordering::SeqCst), 7);
    assert_eq!(balancer.stats().targets.healthy, 100);
    running.abort();
}

#[tokio::test]
async fn a_check_that_hangs_holds_nobody_up() {
    let (balancer, time) = balancer(of(CheckProtocol::Custom));
    for id in ["hangs", "a", "b"] {
        balancer.register(Target::new(id, id)).unwrap();
    }
    let (seen, mut sees) = mpsc::unbounded_channel();
    let checker = Checker::custom(&balancer, |target: TargetRef<&'static str>| async move {
        if *target == "hangs" {
            std::future::pending::<()>().await;
        }
        ProbeResult::Good
    })
    .unwrap()
    .on_checked(move |checked| seen.send((checked.id.clone(), checked.result)).unwrap());
    let running = tokio::spawn(async move { checker.run().await });
    for _ in 0..2 {
        assert_eq!(sees.recv().await.unwrap().1, ProbeResult::Good);
    }
    assert!(sees.try_recv().is_err());
    time.advance(of(CheckProtocol::Custom).timeout);
    let late = ("hangs".into(), ProbeResult::Timeout);
    assert_eq!(sees.recv().await.unwrap(), late);
    running.abort();
}

#[tokio::test]
async fn who_waits_to_be_asked_is_not_put_in_line_twice() {
    let (balancer, time) = balancer(of(CheckProtocol::Custom));
    for id in ["a", "b", "c"] {
        balancer.register(Target::new(id, ())).unwrap();
    }
    let hangs = Arc::new(AtomicUsize::new(1));
    let switch = Arc::clone(&hangs);
    let (seen, mut sees) = mpsc::unbounded_channel();
    let checker = Checker::custom(&balancer, move |_: TargetRef<()>| {
        let hangs = switch.load(Ordering::SeqCst) == 1;
        async move {
            if hangs {
                std::future::pending::<()>().await;
            }
            ProbeResult::Good
        }
    })
    .unwrap()
    .concurrency(1)
    .unwrap()
    .on_checked(move |checked| seen.send(checked.result).unwrap());
    let running = tokio::spawn(async move { checker.run().await });
    // One at a time, each for 30 s, while all are due each 35 s: they cannot keep up.
    for _ in 0..70 {
        time.advance(Duration::from_secs(5));
        tokio::task::yield_now().await;
    }
    hangs.store(0, Ordering::SeqCst);
    while sees.try_recv().is_ok() {}
    time.advance(Duration::from_secs(30));
    let mut good = 0;
    for _ in 0..100 {
        tokio::task::yield_now().await;
        good += usize::from(sees.try_recv() == Ok(ProbeResult::Good));
    }
    assert!((2..=3).contains(&good), "{good} were in line");
    running.abort();
}

#[tokio::test]
async fn a_result_does_not_hit_a_later_target_of_the_same_name() {
    let (balancer, _time) = balancer(of(CheckProtocol::Custom));
    balancer.register(Target::new("a", 1)).unwrap();
    let inner = balancer.clone();
    let checker = Checker::custom(&balancer, move |target: TargetRef<i32>| {
        let balancer = inner.clone();
        async move {
            if *target == 1 {
                balancer.deregister(&"a".into()).unwrap();
                balancer.register(Target::new("a", 2)).unwrap();
            }
            ProbeResult::Good
        }
    })
    .unwrap();
    checker.step().await;
    let health = balancer.health(&"a".into()).unwrap();
    assert_eq!(health.state, State::Initial);
    checker.step().await;
    let health = balancer.health(&"a".into()).unwrap();
    assert_eq!(health.state, State::Healthy);
}

#[test]
fn a_checker_that_does_not_fit_the_rules_is_refused() {
    let plain = Balancer::<()>::new(BalancerConfig::default()).unwrap();
    let error = Checker::new(&plain, |()| None).unwrap_err();
    assert_eq!(
        error.to_string(),
        "rules.health_check: is not set, so no target is ever checked"
    );
    let (custom, _time) = balancer::<()>(of(CheckProtocol::Custom));
    assert_eq!(
        Checker::new(&custom, |()| None).unwrap_err(),
        CheckerError::NeedsHandler
    );
    let (http, _time) = balancer::<()>(of(CheckProtocol::Http));
    let good = |_: TargetRef<()>| async { ProbeResult::Good };
    assert_eq!(
        Checker::custom(&http, good).unwrap_err(),
        CheckerError::NeedsAddress {
            protocol: CheckProtocol::Http
        }
    );
    for value in [0, MOST_CONCURRENCY + 1] {
        let checker = Checker::custom(&custom, good).unwrap();
        assert_eq!(
            checker.concurrency(value).unwrap_err(),
            CheckerError::Concurrency {
                value,
                limit: MOST_CONCURRENCY
            }
        );
    }
    assert_eq!(
        of(CheckProtocol::Grpc).effective_matcher(),
        Matcher::one(12)
    );
}

#[tokio::test]
async fn a_check_that_panics_is_an_internal_failure_and_others_go_on() {
    let (balancer, _time) = balancer::<u32>(of(CheckProtocol::Custom));
    for n in 0..3 {
        balancer.register(Target::new(format!("t{n}"), n)).unwrap();
    }
    let seen = Arc::new(AtomicUsize::new(0));
    let sees = Arc::clone(&seen);
    let checker = Checker::custom(&balancer, |target: TargetRef<u32>| {
        assert_ne!(*target, 0, "before the check");
        async move {
            assert_ne!(*target, 1, "in the check");
            ProbeResult::Good
        }
    })
    .unwrap()
    .on_checked(move |_| {
        sees.fetch_add(1, Ordering::SeqCst);
        panic!("in the observer");
    });
    assert_eq!(checker.step().await, 3);
    assert_eq!(seen.load(Ordering::SeqCst), 3);
    let found = |id: &str| balancer.health(&id.into()).unwrap().last_probe;
    assert_eq!(found("t0"), Some(ProbeResult::Internal));
    assert_eq!(found("t1"), Some(ProbeResult::Internal));
    assert_eq!(found("t2"), Some(ProbeResult::Good));
}
