//! Balanced tower services: where requests go, what becomes of their leases, and what tower's layers make of them.

use std::convert::Infallible;
use std::future::{Future, pending};
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use sim_balancer::machine::{Deregistration, Rules};
use sim_balancer::service::{
    Again, Balance, BalanceError, BalanceLayer, Breaker, BreakerConfig, BreakerError, ByDirections,
    ByStatus, Directed, Tried, WhenSaturated, directed, function,
};
use sim_balancer::{Balancer, BalancerConfig, Outcome, PickError, Target};
use sim_core::clock::Clock;
use sim_core::seam::Gauge;
use sim_core::sync::Arc;
use sim_core::sync::atomic::{AtomicU32, Ordering};
use sim_core::time::Timestamp;
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

    drop(service.oneshot(()).await.expect("a response"));
    assert_eq!(targets.depth().in_flight, 0);
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
