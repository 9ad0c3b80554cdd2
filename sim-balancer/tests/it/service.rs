//! Balanced tower services: where requests go, what becomes of their leases, and what tower's layers make of them.

use std::convert::Infallible;
use std::future::{Future, pending};
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http_body::Frame;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use sim_balancer::machine::{Deregistration, Outliers, Rules};
use sim_balancer::service::{
    Again, Balance, BalanceError, BalanceLayer, BoxError, Breaker, BreakerConfig, BreakerError,
    ByDirections, ByStatus, Directed, Hedged, Stack, Tried, WhenSaturated, directed, function,
};
use sim_balancer::{Algorithm, Balancer, BalancerConfig, Outcome, PickError, Target};
use sim_core::clock::Clock;
use sim_core::seam::Gauge;
use sim_core::sync::Arc;
use sim_core::sync::atomic::{AtomicU32, Ordering};
use sim_core::time::Timestamp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceBuilder, ServiceExt};

type Named = BoxCloneSyncService<u32, (&'static str, u32), String>;

fn named(name: &'static str) -> Named {
    BoxCloneSyncService::new(function(move |n: u32| async move { Ok((name, n)) }))
}

fn failing(calls: &Arc<AtomicU32>) -> Named {
    let calls = Arc::clone(calls);
    BoxCloneSyncService::new(function(move |_| {
        calls.fetch_add(1, Ordering::Relaxed);
        async { Err("broken".to_owned()) }
    }))
}

fn stuck() -> Named {
    BoxCloneSyncService::new(function(async |_| pending().await))
}

fn balancer<S: Send + Sync + 'static>(
    targets: impl IntoIterator<Item = (&'static str, S)>,
) -> Balancer<S> {
    let balancer = Balancer::new(BalancerConfig::default()).expect("defaults");
    for (id, service) in targets {
        balancer
            .register(Target::new(id, service))
            .expect("a new target");
    }
    balancer
}

fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[tokio::test]
async fn requests_are_spread_and_every_lease_comes_back() {
    let balancer = balancer([("a", named("a")), ("b", named("b"))]);
    let service = Balance::new(balancer.clone());
    let mut seen = [0_u32; 2];
    for n in 0..100 {
        let (name, got) = service.clone().oneshot(n).await.expect("a response");
        assert_eq!(got, n);
        seen[usize::from(name == "b")] += 1;
    }
    assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
    assert_eq!(balancer.depth().in_flight, 0);
    assert_eq!(balancer.finished(), Some(100));
}

#[tokio::test]
async fn without_a_target_the_error_says_so() {
    let service = Balance::new(balancer::<Named>([]));
    let error = service.oneshot(1).await.expect_err("nothing to pick");
    assert!(
        matches!(error, BalanceError::Pick(PickError::Empty)),
        "{error:?}"
    );
}

#[tokio::test]
async fn an_attempt_after_a_failure_goes_to_another_target() {
    let calls = Arc::new(AtomicU32::new(0));
    let targets = balancer([
        ("bad", failing(&calls)),
        ("worse", failing(&calls)),
        ("good", named("good")),
    ]);
    let service = ServiceBuilder::new()
        .retry(Again::new(3))
        .service(Balance::new(targets.clone()).route(ByDirections));
    for n in 0..20 {
        let request = Directed::new(n);
        let tried = request.directions.tried.clone();
        let (name, _) = service
            .clone()
            .oneshot(request)
            .await
            .expect("one of three is good");
        assert_eq!(name, "good");
        let tried: Vec<_> = tried.targets();
        assert!(tried.len() <= 3, "each was tried once: {tried:?}");
        assert_eq!(tried.last().map(|id| id.as_str()), Some("good"));
    }
    assert!(calls.load(Ordering::Relaxed) > 0);
    assert_eq!(targets.depth().in_flight, 0);
}

#[tokio::test]
async fn attempts_end_with_their_number() {
    let calls = Arc::new(AtomicU32::new(0));
    let targets = balancer([("bad", failing(&calls))]);
    let service = ServiceBuilder::new()
        .retry(Again::new(4))
        .service(Balance::new(targets).route(ByDirections));
    service
        .oneshot(Directed::new(1))
        .await
        .expect_err("every attempt fails");
    assert_eq!(calls.load(Ordering::Relaxed), 4);
}

#[tokio::test]
async fn a_post_is_not_repeated_unless_it_says_that_it_may_be() {
    let calls = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&calls);
    let service = function(move |_: http::Request<()>| {
        counted.fetch_add(1, Ordering::Relaxed);
        async { Ok::<_, Infallible>(http::Response::builder().status(500).body(()).expect("one")) }
    });
    let service = ServiceBuilder::new()
        .map_request(directed)
        .retry(Again::new(2).judge(ByStatus))
        .service(
            Balance::new(balancer([("one", service)]))
                .route(ByDirections)
                .judge(ByStatus),
        );
    let request = |method: &str| http::Request::builder().method(method);
    for (request, attempts) in [
        (request("GET"), 2),
        (request("POST"), 1),
        (request("POST").header("idempotency-key", "7"), 2),
    ] {
        calls.store(0, Ordering::Relaxed);
        let request = request.body(()).expect("a request");
        let response = service.clone().oneshot(request).await.expect("a response");
        assert_eq!(response.status(), 500);
        assert_eq!(calls.load(Ordering::Relaxed), attempts);
    }
}

#[test]
fn a_dropped_call_gives_its_lease_back() {
    let targets = balancer([("stuck", stuck())]);
    let mut service = Balance::new(targets.clone());
    {
        let mut call = pin!(service.call(1));
        assert!(poll(call.as_mut()).is_pending());
        assert_eq!(targets.depth().in_flight, 1);
    }
    assert_eq!(targets.depth().in_flight, 0);
}

#[test]
fn a_saturated_balance_fails_or_waits_as_it_is_told() {
    let config = BalancerConfig {
        max_outstanding: Some(1),
        ..BalancerConfig::default()
    };
    let targets = Balancer::new(config).expect("a configuration");
    let gate = Arc::new(AtomicU32::new(0));
    let opens = Arc::clone(&gate);
    let service = function(move |n: u32| {
        let opens = Arc::clone(&opens);
        std::future::poll_fn(move |_| match opens.load(Ordering::Relaxed) {
            0 => Poll::Pending,
            _ => Poll::Ready(Ok::<_, Infallible>(n)),
        })
    });
    targets
        .register(Target::new("one", service))
        .expect("a new target");

    let mut failing = Balance::new(targets.clone());
    let mut waiting = failing.clone().when_saturated(WhenSaturated::Wait);
    let mut first = pin!(failing.call(1));
    assert!(poll(first.as_mut()).is_pending());
    let mut refused = pin!(failing.call(2));
    assert!(matches!(
        poll(refused.as_mut()),
        Poll::Ready(Err(BalanceError::Pick(PickError::Saturated)))
    ));
    let mut second = pin!(waiting.call(2));
    assert!(poll(second.as_mut()).is_pending());
    gate.store(1, Ordering::Relaxed);
    assert!(matches!(poll(first.as_mut()), Poll::Ready(Ok(1))));
    assert!(matches!(poll(second.as_mut()), Poll::Ready(Ok(2))));
    assert_eq!(targets.depth().in_flight, 0);
}

#[tokio::test]
async fn a_layered_service_has_what_no_target_takes() {
    let targets = Balancer::<Named>::new(BalancerConfig::default()).expect("defaults");
    let inner =
        function(async |n: u32| Ok::<_, Box<dyn std::error::Error + Send + Sync>>(("inner", n)));
    let service = ServiceBuilder::new()
        .layer(BalanceLayer::new(Balance::new(targets.clone())))
        .service(inner);
    assert_eq!(service.clone().oneshot(1).await.expect("inner").0, "inner");
    targets
        .register(Target::new("outer", named("outer")))
        .expect("a new target");
    assert_eq!(service.clone().oneshot(1).await.expect("outer").0, "outer");
}

#[tokio::test]
async fn a_balance_of_balances_is_a_balance() {
    let inner = |name: &'static str| {
        Balance::new(balancer([(name, named(name))])).when_saturated(WhenSaturated::Wait)
    };
    let outer = Balance::new(balancer([("east", inner("e1")), ("west", inner("w1"))]));
    let mut seen = Vec::new();
    for n in 0..20 {
        seen.push(outer.clone().oneshot(n).await.expect("a response").0);
    }
    assert!(seen.contains(&"e1") && seen.contains(&"w1"), "{seen:?}");
}

#[tokio::test]
async fn a_body_holds_its_lease_to_its_end() {
    let service = function(async |_: ()| {
        Ok::<_, Infallible>(http::Response::new(Full::new(Bytes::from_static(
            b"all of it",
        ))))
    });
    let targets = balancer([("one", service)]);
    let service = Balance::new(targets.clone()).judge(ByStatus).through_body();
    let response = service.clone().oneshot(()).await.expect("a response");
    assert_eq!(targets.depth().in_flight, 1);
    let body = response.into_body().collect().await.expect("a body");
    assert_eq!(body.to_bytes(), "all of it");
    assert_eq!(targets.depth().in_flight, 0);
    assert_eq!(targets.finished(), Some(1));

    // After its last frame nothing more need be asked for.
    let mut whole = service.oneshot(()).await.expect("a response");
    let frame = poll(pin!(whole.body_mut().frame()));
    assert!(frame.is_ready());
    drop(whole);
    let stats = targets.stats();
    assert_eq!((stats.outstanding, stats.finished), (0, 2));
}

#[tokio::test]
async fn a_body_that_is_cut_off_is_cancelled() {
    let service = function(async |_: ()| {
        let frames = [Bytes::from_static(b"one"), Bytes::from_static(b"two")];
        let frames = frames.map(|data| Ok::<_, Infallible>(Frame::data(data)));
        let body = StreamBody::new(futures_util::stream::iter(frames));
        Ok::<_, Infallible>(http::Response::new(body))
    });
    let targets = balancer([("one", service)]);
    let service = Balance::new(targets.clone()).through_body();
    let mut response = service.oneshot(()).await.expect("a response");
    response.body_mut().frame().await.expect("one").expect("ok");
    drop(response);
    let stats = targets.stats();
    assert_eq!((stats.outstanding, stats.cancelled), (0, 1));
}

#[tokio::test]
async fn a_response_whose_body_is_empty_has_ended() {
    let service = function(async |status: u16| {
        let mut response = http::Response::new(Empty::<Bytes>::new());
        *response.status_mut() = http::StatusCode::from_u16(status).expect("a status");
        Ok::<_, Infallible>(response)
    });
    let targets = balancer([("one", service)]);
    let service = Balance::new(targets.clone()).judge(ByStatus).through_body();
    let good = service.clone().oneshot(204).await.expect("a response");
    assert_eq!(targets.stats().finished, 1);
    assert!(http_body::Body::is_end_stream(good.body()));
    drop(service.oneshot(500).await.expect("a response"));
    let stats = targets.stats();
    assert_eq!((stats.finished, stats.failed, stats.cancelled), (2, 1, 0));
}

#[tokio::test]
async fn a_body_that_nobody_asks_for_is_judged_by_its_head() {
    // As a server does with the body of the response to a HEAD.
    let service = function(async |_: ()| {
        let mut response = http::Response::new(Full::new(Bytes::from_static(b"not sent")));
        *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
        Ok::<_, Infallible>(response)
    });
    let targets = balancer([("one", service)]);
    let service = Balance::new(targets.clone()).judge(ByStatus).through_body();
    drop(service.oneshot(()).await.expect("a response"));
    let stats = targets.stats();
    assert_eq!((stats.finished, stats.failed, stats.cancelled), (1, 1, 0));
}

/// Serves one connection of HTTP/1 that asks by this head, and returns the answer.
async fn served<S, B>(service: S, head: &'static [u8]) -> String
where
    S: Service<http::Request<hyper::body::Incoming>, Response = http::Response<B>> + Clone,
    S::Error: std::error::Error + Send + Sync + 'static,
    B: http_body::Body + 'static,
    B::Error: std::error::Error + Send + Sync,
{
    let (mut client, server) = tokio::io::duplex(1 << 16);
    let serve = async {
        let service = hyper::service::service_fn(|request| service.clone().oneshot(request));
        hyper::server::conn::http1::Builder::new()
            .serve_connection(hyper_util::rt::TokioIo::new(server), service)
            .await
            .expect("a good connection");
    };
    let ask = async {
        client.write_all(head).await.expect("sent");
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.expect("an answer");
        answer
    };
    tokio::join!(serve, ask).1
}

#[tokio::test]
async fn what_hyper_has_sent_to_its_length_has_ended() {
    let service = function(async |request: http::Request<hyper::body::Incoming>| {
        let frames = [Bytes::from_static(b"one"), Bytes::from_static(b"two")];
        let frames = frames.map(|data| Ok::<_, Infallible>(Frame::data(data)));
        // It never says that it has ended.
        let body = futures_util::stream::iter(frames).chain(futures_util::stream::pending());
        let mut response = http::Response::new(StreamBody::new(body));
        response.headers_mut().insert("content-length", 6.into());
        if request.uri().path() == "/bad" {
            *response.status_mut() = http::StatusCode::BAD_GATEWAY;
        }
        Ok::<_, Infallible>(response)
    });
    let targets = balancer([("one", service)]);
    let service = Balance::new(targets.clone()).judge(ByStatus).through_body();
    let get = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let answer = served(service.clone(), get).await;
    assert!(answer.ends_with("onetwo"), "{answer}");
    let stats = targets.stats();
    assert_eq!((stats.finished, stats.failed, stats.cancelled), (1, 0, 0));
    let head = b"HEAD /bad HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let answer = served(service, head).await;
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
    let stats = targets.stats();
    assert_eq!((stats.finished, stats.failed, stats.cancelled), (2, 1, 0));
}

#[tokio::test]
async fn errors_become_responses_for_routers() {
    let service = function(async |_: ()| Err::<http::Response<String>, _>("broken"));
    let targets = balancer([("one", service)]);
    let service = Balance::new(targets.clone()).errors_as_responses();
    let Ok(response) = service.clone().oneshot(()).await;
    assert_eq!(response.status(), 502);
    targets.deregister(&"one".into()).expect("it is there");
    let Ok(response) = service.oneshot(()).await;
    assert_eq!(response.status(), 503);
}

#[tokio::test]
async fn an_open_breaker_spares_its_target_and_closes_again() {
    let (clock, time) = Clock::virtual_at(Timestamp::UNIX_EPOCH);
    let calls = Arc::new(AtomicU32::new(0));
    let breaker = Breaker::new(failing(&calls), BreakerConfig::default(), clock).expect("defaults");
    for _ in 0..20 {
        let error = breaker.clone().oneshot(1).await.expect_err("it fails");
        assert!(matches!(error, BreakerError::Service(_)), "{error:?}");
    }
    let error = breaker.clone().oneshot(1).await.expect_err("it is open");
    assert!(
        matches!(error, BreakerError::Open { retry_after } if retry_after == Duration::from_secs(5)),
        "{error:?}"
    );
    assert_eq!(calls.load(Ordering::Relaxed), 20);
    time.advance(Duration::from_secs(5));
    breaker
        .clone()
        .oneshot(1)
        .await
        .expect_err("half open, it is called");
    assert_eq!(calls.load(Ordering::Relaxed), 21);
}

#[test]
fn a_breaker_whose_configuration_makes_no_sense_is_refused() {
    for (config, field) in [
        (
            BreakerConfig {
                window: Duration::ZERO,
                ..BreakerConfig::default()
            },
            "window",
        ),
        (
            BreakerConfig {
                minimum_calls: 0,
                ..BreakerConfig::default()
            },
            "minimum_calls",
        ),
        (
            BreakerConfig {
                failure_percentage: 101,
                ..BreakerConfig::default()
            },
            "failure_percentage",
        ),
        (
            BreakerConfig {
                open_for: Duration::ZERO,
                ..BreakerConfig::default()
            },
            "open_for",
        ),
        (
            BreakerConfig {
                half_open_calls: 0,
                ..BreakerConfig::default()
            },
            "half_open_calls",
        ),
    ] {
        let error = Breaker::new(stuck(), config, Clock::system()).expect_err("refused");
        assert!(error.to_string().starts_with(field), "{error}");
    }
}

#[test]
fn what_was_tried_is_bounded() {
    let tried = Tried::default();
    assert!(tried.targets().is_empty());
    assert_eq!(Tried::MOST, 16);
}

#[tokio::test]
async fn an_overloaded_answer_is_judged_as_such() {
    let service = function(async |_: ()| {
        Ok::<_, Infallible>(
            http::Response::builder()
                .status(503)
                .header("retry-after", "30")
                .body(())
                .expect("one"),
        )
    });
    let targets = balancer([("one", service)]);
    let judged = Arc::new(AtomicU32::new(0));
    let seen = Arc::clone(&judged);
    let service = Balance::new(targets).judge(move |result: &Result<http::Response<()>, Infallible>| {
        let outcome = sim_balancer::service::Judge::outcome(&ByStatus, result);
        if matches!(outcome, Outcome::Overloaded { retry_after: Some(after) } if after.as_secs() == 30) {
            seen.fetch_add(1, Ordering::Relaxed);
        }
        outcome
    });
    service.oneshot(()).await.expect("a response");
    assert_eq!(judged.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_call_at_a_target_that_may_not_finish_is_cut_off() {
    let (clock, time) = Clock::virtual_at(Timestamp::UNIX_EPOCH);
    let config = BalancerConfig {
        rules: Rules {
            deregistration: Deregistration {
                delay: Duration::from_secs(60),
                connection_termination: true,
            },
            ..Rules::default()
        },
        ..BalancerConfig::default()
    };
    let targets = Balancer::with_clock(config, clock).expect("a configuration");
    targets
        .register(Target::new("stuck", stuck()))
        .expect("a new target");
    let mut service = Balance::new(targets.clone());
    let mut call = pin!(service.call(1));
    assert!(poll(call.as_mut()).is_pending());
    targets.deregister(&"stuck".into()).expect("it is there");
    time.advance(Duration::from_secs(59));
    targets.advance(targets.clock().now());
    assert!(poll(call.as_mut()).is_pending());
    time.advance(Duration::from_secs(1));
    targets.advance(targets.clock().now());
    assert!(matches!(
        poll(call.as_mut()),
        Poll::Ready(Err(BalanceError::Terminated))
    ));
    assert_eq!(targets.depth().in_flight, 0);
    assert_eq!(targets.finished(), Some(0), "nothing is concluded from it");
}

#[tokio::test]
async fn a_status_in_the_trailers_counts() {
    let answers = |code: &'static str| {
        function(move |(): ()| async move {
            let mut trailers = http::HeaderMap::new();
            trailers.insert("grpc-status", http::HeaderValue::from_static(code));
            let body = Full::new(Bytes::from_static(b"half"));
            let body = body.with_trailers(async move { Some(Ok(trailers)) });
            Ok::<_, Infallible>(http::Response::new(body.boxed_unsync()))
        })
    };
    for (code, failed) in [("0", 0), ("5", 0), ("13", 1)] {
        let targets = balancer([("one", answers(code))]);
        let service = Balance::new(targets.clone()).judge(ByStatus).through_body();
        let response = service.oneshot(()).await.expect("a response");
        response.into_body().collect().await.expect("a body");
        assert_eq!(targets.stats().failed, failed, "code {code}");
        assert_eq!(targets.finished(), Some(1));
    }
}

#[test]
fn the_view_tells_who_may_get_requests() {
    let targets = balancer([("a", stuck()), ("b", stuck())]);
    targets.deregister(&"a".into()).expect("it is there");
    let view = targets.view();
    let [pool] = &view.pools[..] else {
        panic!("one pool without zones: {view:?}");
    };
    assert!(pool.available);
    assert_eq!(pool.registered, 1);
}

/// Names its target, at once or never.
fn answering(name: Option<&'static str>) -> BoxCloneSyncService<u32, &'static str, std::io::Error> {
    BoxCloneSyncService::new(function(move |_| async move {
        match name {
            Some(name) => Ok(name),
            None => pending().await,
        }
    }))
}

#[test]
fn a_hedge_goes_to_another_target_after_its_delay() {
    let (clock, time) = Clock::virtual_at(Timestamp::UNIX_EPOCH);
    let targets = balancer([("slow", answering(None)), ("fast", answering(Some("fast")))]);
    let balance = Balance::new(targets.clone()).route(ByDirections);
    let mut service = Hedged::new(balance, Again::new(2), Duration::from_millis(50), clock);
    let mut hedged = 0;
    for n in 0..20 {
        let request = Directed::new(n);
        let tried = request.directions.tried.clone();
        let mut call = pin!(service.call(request));
        let first = poll(call.as_mut());
        if tried.targets() == ["fast".into()] {
            assert!(matches!(first, Poll::Ready(Ok("fast"))));
            continue;
        }
        assert!(first.is_pending());
        time.advance(Duration::from_millis(49));
        assert!(poll(call.as_mut()).is_pending());
        assert_eq!(tried.targets().len(), 1);
        time.advance(Duration::from_millis(1));
        assert!(matches!(poll(call.as_mut()), Poll::Ready(Ok("fast"))));
        assert_eq!(tried.targets().len(), 2);
        hedged += 1;
    }
    assert!(hedged > 0, "the slow one was asked");
    assert_eq!(
        targets.depth().in_flight,
        0,
        "the slower attempt was dropped"
    );
}

#[test]
fn a_hedge_that_fails_leaves_it_to_the_other_attempt() {
    let (clock, time) = Clock::virtual_at(Timestamp::UNIX_EPOCH);
    let gate = Arc::new(AtomicU32::new(0));
    let opens = Arc::clone(&gate);
    // The first call waits for the gate; all others fail.
    let calls = Arc::new(AtomicU32::new(0));
    let service = function(move |_: Directed<u32>| {
        let (opens, call) = (Arc::clone(&opens), calls.fetch_add(1, Ordering::Relaxed));
        std::future::poll_fn(move |_| match (call, opens.load(Ordering::Relaxed)) {
            (0, 0) => Poll::Pending,
            (0, _) => Poll::Ready(Ok("late")),
            _ => Poll::Ready(Err("failed".to_owned())),
        })
    });
    let mut service = Hedged::new(service, Again::new(2), Duration::from_millis(50), clock);
    let mut call = pin!(service.call(Directed::new(1)));
    assert!(poll(call.as_mut()).is_pending());
    time.advance(Duration::from_millis(50));
    assert!(poll(call.as_mut()).is_pending(), "the second has failed");
    gate.store(1, Ordering::Relaxed);
    assert_eq!(poll(call.as_mut()), Poll::Ready(Ok("late")));
    // Alone, a failure is a failure.
    let mut call = pin!(service.call(Directed::new(1)));
    assert_eq!(poll(call.as_mut()), Poll::Ready(Err("failed".to_owned())));
}

#[tokio::test(start_paused = true)]
async fn towers_own_hedge_goes_to_another_target_too() {
    let targets = balancer([("slow", answering(None)), ("fast", answering(Some("fast")))]);
    let balance = Balance::new(targets.clone()).route(ByDirections);
    let mut service = tower::hedge::Hedge::new_with_mock_latencies::<Directed<u32>>(
        balance,
        Again::new(2),
        1,
        0.9,
        Duration::from_secs(60),
        &[50; 10],
    );
    for n in 0..20 {
        let ready = ServiceExt::<Directed<u32>>::ready(&mut service).await;
        let answer = ready.expect("always ready").call(Directed::new(n)).await;
        assert_eq!(answer.expect("one of both answers"), "fast");
    }
    assert_eq!(targets.depth().in_flight, 0);
}

/// A balancer on the runtime's clock.
fn on_tokio<S: Send + Sync + 'static>(
    targets: impl IntoIterator<Item = (&'static str, S)>,
) -> Balancer<S> {
    let balancer = Balancer::with_clock(BalancerConfig::default(), Clock::tokio());
    let balancer = balancer.expect("defaults");
    for (id, service) in targets {
        let target = Target::new(id, service);
        balancer.register(target).expect("a new target");
    }
    balancer
}

#[test]
fn a_target_that_takes_too_long_is_held_to_account() {
    let (clock, time) = Clock::virtual_at(Timestamp::UNIX_EPOCH);
    let config = BalancerConfig {
        rules: Rules {
            outliers: Some(Outliers {
                consecutive_gateway_failures: Some(3),
                ..Outliers::default()
            }),
            ..Rules::default()
        },
        ..BalancerConfig::default()
    };
    let targets = Balancer::with_clock(config, clock).expect("a configuration");
    let target = Target::new("stuck", answering(None));
    targets.register(target).expect("a new target");
    let mut service = Balance::new(targets.clone()).timeout(Duration::from_secs(2));
    for _ in 0..3 {
        let mut call = pin!(service.call(1));
        time.advance(Duration::from_nanos(1_999_999_999));
        assert!(poll(call.as_mut()).is_pending());
        time.advance(Duration::from_nanos(1));
        assert!(matches!(
            poll(call.as_mut()),
            Poll::Ready(Err(BalanceError::TimedOut))
        ));
    }
    assert_eq!(targets.stats().failed, 3);
    let health = targets.health(&"stuck".into()).expect("it is there");
    assert!(health.ejected_until.is_some(), "three times unreachable");
}

#[tokio::test(start_paused = true)]
async fn a_stack_has_its_layers_in_order() {
    let targets = on_tokio([
        ("stuck", answering(None)),
        ("well", answering(Some("well"))),
    ]);
    let stack = Stack::new()
        .timeout(Duration::from_secs(10))
        .attempts(3)
        .attempt_timeout(Duration::from_secs(1));
    let service = stack.around(Balance::new(targets.clone()).route(ByDirections));
    for n in 0..10 {
        let answer = service.clone().oneshot(Directed::new(n)).await;
        assert_eq!(answer.expect("the second attempt goes elsewhere"), "well");
    }
    targets.deregister(&"well".into()).expect("it is there");
    let start = tokio::time::Instant::now();
    let error = service.oneshot(Directed::new(1)).await.expect_err("stuck");
    let error = error.downcast::<BalanceError<std::io::Error>>();
    assert!(matches!(
        *error.expect("the balance's"),
        BalanceError::TimedOut
    ));
    assert_eq!(
        start.elapsed().as_secs(),
        3,
        "three attempts of a second each"
    );
    assert_eq!(targets.depth().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn a_stack_limits_the_whole() {
    let targets = on_tokio([("stuck", answering(None))]);
    let stack = Stack::new()
        .shed_load()
        .concurrency_limit(2)
        .timeout(Duration::from_secs(5))
        .attempts(9)
        .attempt_timeout(Duration::from_secs(2));
    let service = stack.around(Balance::new(targets).route(ByDirections));
    let start = tokio::time::Instant::now();
    let calls: Vec<_> = (0..3)
        .map(|n| tokio::spawn(service.clone().oneshot(Directed::new(n))))
        .collect();
    let mut errors: Vec<BoxError> = Vec::new();
    for call in calls {
        errors.push(call.await.expect("no panic").expect_err("no answer"));
    }
    let shed = |error: &BoxError| error.is::<tower::load_shed::error::Overloaded>();
    assert_eq!(
        errors.iter().filter(|error| shed(error)).count(),
        1,
        "{errors:?}"
    );
    assert_eq!(start.elapsed().as_secs(), 5, "in the third attempt");
}

#[test]
fn a_stack_hedges() {
    let (clock, time) = Clock::virtual_at(Timestamp::UNIX_EPOCH);
    let targets = Balancer::with_clock(BalancerConfig::default(), clock).expect("defaults");
    for (id, name) in [("slow", None), ("fast", Some("fast"))] {
        let target = Target::new(id, answering(name));
        targets.register(target).expect("a new target");
    }
    let stack = Stack::new().hedge_after(Duration::from_millis(20));
    let mut service = stack.around(Balance::new(targets).route(ByDirections));
    for n in 0..10 {
        let mut call = pin!(service.call(Directed::new(n)));
        let first = poll(call.as_mut());
        time.advance(Duration::from_millis(20));
        let answer = match first {
            Poll::Pending => poll(call.as_mut()),
            ready => ready,
        };
        assert!(matches!(answer, Poll::Ready(Ok("fast"))));
    }
}

#[tokio::test]
async fn the_attempts_of_a_plain_http_request_know_of_each_other() {
    let status = |status: u16| {
        function(move |_: http::Request<()>| async move {
            let response = http::Response::builder().status(status).body(());
            Ok::<_, Infallible>(response.expect("a response"))
        })
    };
    let config = BalancerConfig {
        algorithm: Algorithm::WeightedRandom,
        ..BalancerConfig::default()
    };
    let targets = Balancer::new(config).expect("a configuration");
    let bad = Target::new("bad", status(500)).weight(999);
    targets.register(bad).expect("a new target");
    let good = Target::new("good", status(200));
    targets.register(good).expect("a new target");
    let balance = Balance::new(targets).route(ByDirections).judge(ByStatus);
    let service = Stack::new().judge(ByStatus).attempts(2).around(balance);
    for _ in 0..10 {
        let request = http::Request::new(());
        let response = service.clone().oneshot(request).await.expect("a response");
        assert_eq!(
            response.status(),
            200,
            "the second attempt avoids the first's target"
        );
    }
}
