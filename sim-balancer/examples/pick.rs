//! Three targets, one of them slow and one of them leaving, on a virtual clock.
//!
//! ```sh
//! cargo run -p sim-balancer --example pick
//! ```

use std::time::Duration;

use sim_balancer::{Balancer, BalancerConfig, Outcome, Target, TargetId};
use sim_core::clock::{Clock, VirtualClock};
use sim_core::time::Timestamp;

/// A server that is another balancer, or the address of one.
enum Node {
    Server(&'static str),
    Group(Balancer<&'static str>),
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (clock, time) = Clock::virtual_at(Timestamp::UNIX_EPOCH);
    let balancer = Balancer::with_clock(BalancerConfig::default(), clock.clone())?;
    balancer.register(Target::new("fast", 1_u64))?;
    balancer.register(Target::new("slow", 20))?;
    balancer.register(Target::new("heavy", 1).weight(3))?;

    requests(&balancer, &time, 1_000)?;
    show("a thousand requests", &balancer);

    // Its open requests go on; it gets nothing new.
    let lease = balancer.try_pick()?;
    let leaving = lease.id().clone();
    balancer.deregister(&leaving)?;
    println!("{leaving} is {}", state(&balancer, &leaving));
    requests(&balancer, &time, 1_000)?;
    lease.complete(Outcome::Success);
    println!("{leaving} is {}", state(&balancer, &leaving));
    show("a thousand more", &balancer);

    // A target may be a balancer itself.
    let inner = Balancer::with_clock(BalancerConfig::default(), clock.clone())?;
    inner.register(Target::new("b1", "10.0.1.1"))?;
    inner.register(Target::new("b2", "10.0.1.2"))?;
    let outer = Balancer::with_clock(BalancerConfig::default(), clock)?;
    outer.register(Target::new("a", Node::Server("10.0.0.1")))?;
    outer.register(Target::new("b", Node::Group(inner)).weight(2))?;
    for _ in 0..4 {
        let node = outer.try_pick()?;
        match &*node {
            Node::Server(address) => println!("{} at {address}", node.id()),
            Node::Group(group) => {
                let server = group.try_pick()?;
                println!("{} of {} at {}", server.id(), node.id(), *server);
            }
        }
    }
    Ok(())
}

/// Requests one after the other; a target's value is how many milliseconds it takes.
fn requests(
    balancer: &Balancer<u64>,
    time: &VirtualClock,
    count: u32,
) -> Result<(), Box<dyn std::error::Error>> {
    for _ in 0..count {
        let lease = balancer.try_pick()?;
        time.advance(Duration::from_millis(*lease));
        lease.complete(Outcome::Success);
    }
    Ok(())
}

fn state(balancer: &Balancer<u64>, id: &TargetId) -> String {
    balancer
        .health(id)
        .map_or_else(|| "gone".to_owned(), |health| health.state.to_string())
}

fn show(title: &str, balancer: &Balancer<u64>) {
    println!("after {title}:");
    for target in balancer.targets() {
        let latency = target.latency.unwrap_or_default();
        println!(
            "  {:6} weight {} finished {:4} latency {latency:?}",
            target.id.to_string(),
            target.weight,
            target.finished
        );
    }
}
