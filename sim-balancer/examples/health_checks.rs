//! Servers are checked over HTTP; one falls ill and recovers. The sockets are real, the hour is not.
//!
//! ```sh
//! cargo run -p sim-balancer --features check --example health_checks
//! ```

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use sim_balancer::check::Checker;
use sim_balancer::machine::{HealthCheck, Rules};
use sim_balancer::{Balancer, BalancerConfig, Target};
use sim_core::clock::Clock;
use sim_core::sync::Arc;
use sim_core::sync::atomic::{AtomicBool, Ordering};
use sim_core::time::Timestamp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let start: Timestamp = "2013-01-01T09:00:00Z".parse()?;
    let (clock, time) = Clock::virtual_at(start);
    let config = BalancerConfig {
        rules: Rules {
            health_check: Some(HealthCheck {
                path: Some("/up".to_owned()),
                matcher: Some("200-299".parse()?),
                healthy_threshold: 3,
                ..HealthCheck::default()
            }),
            ..Rules::default()
        },
        ..BalancerConfig::default()
    };
    let balancer = Balancer::<SocketAddr>::with_clock(config, clock.clone())?;
    let is_ill = Arc::new(AtomicBool::new(false));
    balancer.register(Target::new("steady", serve(Arc::default()).await?))?;
    balancer.register(Target::new("shaky", serve(Arc::clone(&is_ill)).await?))?;

    // In a service: `tokio::spawn(async move { checker.run().await })`.
    let checker = Checker::new(&balancer, |address| Some(*address))?;
    for round in 0..9 {
        is_ill.store((2..5).contains(&round), Ordering::Relaxed);
        checker.step().await;
        print!("{}", clock.timestamp(clock.now()));
        for target in balancer.targets() {
            let health = target.health;
            print!("  {} {}", target.id, health.state);
            if let (Some(reason), Some(probe)) = (health.reason, health.last_probe) {
                print!(" ({reason}: {probe})");
            }
        }
        let pool = &balancer.view().pools[0];
        println!("  -> {} of {} get requests", pool.healthy, pool.registered);
        time.advance(Duration::from_secs(30));
    }
    Ok(())
}

/// A server that answers 200, and 500 while it is ill.
async fn serve(is_ill: Arc<AtomicBool>) -> Result<SocketAddr, Box<dyn Error>> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await;
            let status = match is_ill.load(Ordering::Relaxed) {
                true => "500 Internal Server Error",
                false => "200 OK",
            };
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    Ok(address)
}
