//! A front of axum whose unknown paths go to balanced routers.
//!
//! ```sh
//! cargo run -p sim-balancer --features tower --example axum
//! ```

use std::collections::BTreeMap;
use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};

use axum::Router;
use axum::routing::get;
use sim_balancer::service::{Balance, ByStatus};
use sim_balancer::{Balancer, BalancerConfig, Target};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    // Balanced in five lines: any `Service` is a target, and here it is a router.
    let balancer = Balancer::new(BalancerConfig::default())?;
    for name in ["blue", "green", "teal"] {
        balancer.register(Target::new(name, shop(name)))?;
    }
    let balanced = Balance::new(balancer.clone())
        .judge(ByStatus)
        .errors_as_responses();

    let front = Router::new()
        .route("/health", get(async || "well"))
        .fallback_service(balanced);

    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(async move {
        let stopping = async {
            let _ = stopped.await;
        };
        axum::serve(listener, front)
            .with_graceful_shutdown(stopping)
            .await
    });

    println!("GET /health: {}", fetch(address, "/health").await?);
    let mut answers = BTreeMap::<String, u32>::new();
    for _ in 0..30 {
        *answers.entry(fetch(address, "/goods").await?).or_default() += 1;
    }
    println!("GET /goods, 30 times: {answers:?}");

    // One leaves; nobody notices but the statistics.
    balancer.deregister(&"blue".into())?;
    for _ in 0..10 {
        assert_ne!(fetch(address, "/goods").await?, "blue has 3 left");
    }
    for target in balancer.targets() {
        println!("{} has served {} requests", target.id, target.finished);
    }

    // And without targets, the front says so.
    balancer.deregister(&"green".into())?;
    balancer.deregister(&"teal".into())?;
    println!(
        "GET /goods without targets: {:?}",
        fetch(address, "/goods").await?
    );

    let _ = stop.send(());
    server.await??;
    Ok(())
}

/// One of several instances of the same application.
fn shop(name: &'static str) -> Router {
    Router::new().route("/goods", get(async move || format!("{name} has 3 left")))
}

/// The body of an answer, or its status when that is not 200.
async fn fetch(address: SocketAddr, path: &str) -> Result<String, Box<dyn Error>> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
    let status = head.lines().next().unwrap_or_default();
    Ok(if status.contains("200") { body } else { status }.to_owned())
}
