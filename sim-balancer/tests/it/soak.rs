//! Targets come and go, fall ill and recover, while requests run: none is lost, and none reaches a target that is gone.

use sim_balancer::machine::{CheckProtocol, HealthCheck, Rules, SlowStart};
use sim_balancer::service::{Again, Balance, ByDirections, Directed, function};
use sim_balancer::{Balancer, BalancerConfig, ProbeResult, Target, TargetId};
use sim_core::clock::Clock;
use sim_core::random::Random;
use sim_core::seam::Gauge;
use sim_core::sync::Arc;
use sim_core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use sim_core::time::Timestamp;
use std::time::Duration;
use tower::util::BoxCloneSyncService;
use tower::{ServiceBuilder, ServiceExt};

type Worker = BoxCloneSyncService<u64, u64, String>;

const CLIENTS: u64 = 6;
const REQUESTS: u64 = 4_000;
/// Targets at a time.
const TARGETS: u64 = 8;

/// What all targets have in common.
#[derive(Default)]
struct Books {
    handled: AtomicU64,
    /// Requests that reached a target after it was gone. Must stay 0.
    ghosts: AtomicU64,
}

/// A target, and the switch that says that it is gone.
fn worker(books: &Arc<Books>, gone: &Arc<AtomicBool>) -> Worker {
    let (books, gone) = (Arc::clone(books), Arc::clone(gone));
    BoxCloneSyncService::new(function(move |n: u64| {
        let (books, gone) = (Arc::clone(&books), Arc::clone(&gone));
        async move {
            for _ in 0..n % 7 {
                tokio::task::yield_now().await;
            }
            // The lease is held until here, so the target cannot be gone.
            if gone.load(Ordering::SeqCst) {
                books.ghosts.fetch_add(1, Ordering::SeqCst);
            }
            books.handled.fetch_add(1, Ordering::SeqCst);
            Ok(n + 1)
        }
    }))
}

fn rules() -> Rules {
    Rules {
        health_check: Some(HealthCheck::of(CheckProtocol::Custom)),
        slow_start: SlowStart {
            duration: Duration::from_secs(30),
            steps: 5,
        },
        ..Rules::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_request_is_lost_while_targets_come_and_go() {
    let (clock, time) = Clock::virtual_at(Timestamp::UNIX_EPOCH);
    let config = BalancerConfig {
        rules: rules(),
        ..BalancerConfig::default()
    };
    let balancer = Balancer::with_clock(config, clock).expect("a configuration");
    let books = Arc::new(Books::default());
    let is_over = Arc::new(AtomicBool::new(false));

    let mut present: Vec<(TargetId, Arc<AtomicBool>)> = Vec::new();
    let add = |number: u64| {
        let (id, gone) = (TargetId::new(format!("w{number}")), Arc::default());
        balancer
            .register(Target::new(id.clone(), worker(&books, &gone)))
            .expect("a new target");
        balancer
            .report(&id, ProbeResult::Good)
            .expect("it is there");
        (id, gone)
    };
    present.extend((0..TARGETS).map(add));

    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let service = Balance::new(balancer.clone());
            tokio::spawn(async move {
                for n in 0..REQUESTS {
                    let sent = client * REQUESTS + n;
                    let answer = service.clone().oneshot(sent).await;
                    assert_eq!(answer.expect("no request is lost"), sent + 1);
                }
            })
        })
        .collect();
    let clients = tokio::spawn({
        let is_over = Arc::clone(&is_over);
        async move {
            for client in clients {
                client.await.expect("a client");
            }
            is_over.store(true, Ordering::SeqCst);
        }
    });

    let mut random = Random::new(2026);
    let mut leaving: Vec<(TargetId, Arc<AtomicBool>)> = Vec::new();
    let mut number = TARGETS;
    let mut rounds = 0_u64;
    // At least as many rounds as make every kind of change likely, however fast the clients are.
    while !is_over.load(Ordering::SeqCst) || rounds < 200 {
        rounds += 1;
        let at = random.below(present.len() as u64) as usize;
        match random.below(4) {
            0 => {
                let (id, gone) = present.swap_remove(at);
                present.push(add(number));
                number += 1;
                balancer.deregister(&id).expect("it is there");
                leaving.push((id, gone));
            }
            1 => {
                for _ in 0..5 {
                    let _ = balancer.report(&present[at].0, ProbeResult::Failed);
                }
            }
            2 => {
                for _ in 0..5 {
                    let _ = balancer.report(&present[at].0, ProbeResult::Good);
                }
            }
            _ => time.advance(Duration::from_millis(500)),
        }
        // Gone is who was deregistered and has nothing in hand.
        leaving.retain(|(id, gone)| {
            let is_gone = balancer.target(id).is_none();
            gone.store(is_gone, Ordering::SeqCst);
            !is_gone
        });
        tokio::task::yield_now().await;
    }
    clients.await.expect("the clients");

    assert!(number > TARGETS + 20, "{number} targets came");
    assert_eq!(books.ghosts.load(Ordering::SeqCst), 0);
    assert_eq!(books.handled.load(Ordering::SeqCst), CLIENTS * REQUESTS);
    assert_eq!(balancer.finished(), Some(CLIENTS * REQUESTS));
    assert_eq!(balancer.depth().in_flight, 0);
    for (id, _) in leaving {
        assert!(
            balancer.target(&id).is_none(),
            "{id} is idle and still here"
        );
    }
    assert_eq!(balancer.stats().targets.targets as u64, TARGETS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn requests_that_fail_at_some_targets_are_served_by_others() {
    let balancer = Balancer::new(BalancerConfig::default()).expect("a configuration");
    let books = Arc::new(Books::default());
    let failures = Arc::new(AtomicU64::new(0));
    for number in 0..TARGETS {
        let target = worker(&books, &Arc::default());
        let failures = Arc::clone(&failures);
        let flaky = function(move |n: u64| {
            let (target, failures) = (target.clone(), Arc::clone(&failures));
            async move {
                // Each request fails at two of the targets.
                if number == n % TARGETS || number == (n + 3) % TARGETS {
                    failures.fetch_add(1, Ordering::SeqCst);
                    return Err("unlucky".to_owned());
                }
                target.oneshot(n).await
            }
        });
        let flaky = Worker::new(flaky);
        balancer
            .register(Target::new(number.to_string(), flaky))
            .expect("a new target");
    }
    // A budget that is never the limit: here, what counts is where attempts go.
    let plenty = tower::retry::budget::TpsBudget::new(Duration::from_secs(1), 1_000_000, 1_000.0);
    let service = ServiceBuilder::new()
        .retry(Again::new(3).budget(plenty))
        .service(Balance::new(balancer.clone()).route(ByDirections));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let service = service.clone();
            tokio::spawn(async move {
                for n in 0..REQUESTS / 4 {
                    let sent = client * REQUESTS + n;
                    let answer = service.clone().oneshot(Directed::new(sent)).await;
                    assert_eq!(answer.expect("a third target is well"), sent + 1);
                }
            })
        })
        .collect();
    for client in clients {
        client.await.expect("a client");
    }
    let served = CLIENTS * REQUESTS / 4;
    let failed = failures.load(Ordering::SeqCst);
    assert!(failed > 0);
    assert_eq!(books.handled.load(Ordering::SeqCst), served);
    assert_eq!(balancer.finished(), Some(served + failed));
    assert_eq!(balancer.depth().in_flight, 0);
}
