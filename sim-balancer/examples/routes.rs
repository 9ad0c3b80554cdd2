//! What a decision costs: rules alone, without a proxy, with 10, 100 and 1,000 of them.
//!
//! Run it in release: `cargo run --release --example routes --features proxy`. The scan looks at one rule after the other, as
//! the definition of priorities says; the index comes to the same rule, which is checked.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use http::{HeaderMap, Method};
use sim_balancer::proxy::config::{
    ActionConfig, ConditionConfig, ForwardConfig, ListenerConfig, Protocol, ProxyConfig,
    RuleConfig, SecretsConfig, TargetGroupConfig, ValueMatch,
};
use sim_balancer::proxy::cookie::Keys;
use sim_balancer::proxy::rule::{Routes, Rule, View};
use sim_core::clock::Clock;

/// Decisions in each round, and rounds, of which the fastest counts.
const DECISIONS: u32 = 2_000;
const ROUNDS: u32 = 15;

/// What the rules of a table look at.
#[derive(Clone, Copy)]
enum Shape {
    /// `/service-17/*`.
    Paths,
    /// `host-17.example.com`.
    Hosts,
    /// `*-17.example.com`, which no index helps with.
    Wildcards,
}

fn rule(shape: Shape, n: usize) -> RuleConfig {
    let one = |value: String| ValueMatch {
        values: vec![value],
        ..Default::default()
    };
    let condition = match shape {
        Shape::Paths => ConditionConfig::PathPattern(one(format!("/service-{n}/*"))),
        Shape::Hosts => ConditionConfig::HostHeader(one(format!("host-{n}.example.com"))),
        Shape::Wildcards => ConditionConfig::HostHeader(one(format!("*-{n}.example.com"))),
    };
    RuleConfig {
        priority: n as u32 + 1,
        conditions: vec![condition],
        actions: vec![ActionConfig::Forward(ForwardConfig::to("web"))],
        ..Default::default()
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let keys = Arc::new(Keys::new(&SecretsConfig::default())?);
    let clock = Clock::system();
    println!("ns a decision, mean over requests that meet each rule alike\n");
    println!(
        "{:<12}{:>8}{:>10}{:>10}{:>8}",
        "rules", "number", "index", "scan", "ratio"
    );
    for (name, shape) in [
        ("paths", Shape::Paths),
        ("hosts", Shape::Hosts),
        ("wildcards", Shape::Wildcards),
    ] {
        for count in [10, 100, 1_000] {
            let config = ProxyConfig {
                listeners: vec![ListenerConfig {
                    rules: (0..count).map(|n| rule(shape, n)).collect(),
                    default_actions: vec![ActionConfig::Forward(ForwardConfig::to("web"))],
                    ..Default::default()
                }],
                target_groups: vec![TargetGroupConfig {
                    name: "web".to_owned(),
                    ..Default::default()
                }],
                ..Default::default()
            };
            let routes = Routes::compile(&config, 0, &keys)?;
            let asks: Vec<_> = (0..count)
                .map(|n| match shape {
                    Shape::Paths => ("www.example.com".to_owned(), format!("/service-{n}/a/b")),
                    Shape::Hosts | Shape::Wildcards => {
                        (format!("host-{n}.example.com"), "/a/b".to_owned())
                    }
                })
                .collect();
            let headers = HeaderMap::new();
            let views = asks.iter().map(|(host, path)| View {
                method: &Method::GET,
                protocol: Protocol::Http,
                host,
                port: 80,
                path,
                query: None,
                headers: &headers,
                source: IpAddr::V4(Ipv4Addr::LOCALHOST),
                now: clock.now(),
                time: clock.timestamp(clock.now()),
                draw: 0,
            });
            let views: Vec<_> = views.collect();
            for (n, view) in (1..).zip(&views) {
                assert_eq!(routes.find(view).priority(), Some(n));
                assert_eq!(routes.scan(view).priority(), Some(n));
            }
            let index = measure(&clock, &views, |view| routes.find(view));
            let scan = measure(&clock, &views, |view| routes.scan(view));
            println!(
                "{name:<12}{count:>8}{index:>10.1}{scan:>10.1}{:>8.1}",
                scan / index
            );
        }
    }
    Ok(())
}

/// Nanoseconds a decision, in the fastest round.
fn measure<'r>(clock: &Clock, views: &[View<'_>], find: impl Fn(&View<'_>) -> &'r Rule) -> f64 {
    let mut best = f64::MAX;
    for _ in 0..ROUNDS {
        let start = clock.fine();
        for view in views.iter().cycle().take(DECISIONS as usize) {
            std::hint::black_box(find(std::hint::black_box(view)));
        }
        let took = clock.fine().saturating_duration_since(start);
        best = best.min(took.as_nanos() as f64 / f64::from(DECISIONS));
    }
    best
}
