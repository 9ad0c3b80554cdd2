//! A reverse proxy in a few lines: one listener, one group, targets from the command line.
//!
//! ```text
//! cargo run --release -p sim-balancer --features proxy --example proxy -- 127.0.0.1:8080 127.0.0.1:9001 127.0.0.1:9002
//! ```
//!
//! Without arguments it proxies a function of its own, asks it once and ends.

use std::error::Error;
use std::net::SocketAddr;

use http::{Request, Response};
use sim_balancer::proxy::Proxy;
use sim_balancer::proxy::config::{
    ActionConfig, Attributes, ForwardConfig, ListenerConfig, ProxyConfig, TargetConfig,
    TargetGroupConfig,
};
use sim_balancer::proxy::http::{Address, Body, BodyError};
use sim_core::clock::Clock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower::util::BoxCloneSyncService;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (listen, targets) = match arguments.split_first() {
        Some((listen, targets)) => (listen.parse::<SocketAddr>()?, targets.to_vec()),
        None => ("127.0.0.1:0".parse()?, Vec::new()),
    };
    let config = ProxyConfig {
        attributes: Attributes {
            workers: 1,
            ..Default::default()
        },
        listeners: vec![ListenerConfig {
            name: "http".to_owned(),
            address: Some(listen.ip()),
            port: listen.port(),
            default_actions: vec![ActionConfig::Forward(ForwardConfig::to("web"))],
            ..Default::default()
        }],
        target_groups: vec![TargetGroupConfig {
            name: "web".to_owned(),
            targets: targets.iter().map(TargetConfig::at).collect(),
            ..Default::default()
        }],
        ..Default::default()
    };
    let proxy = Proxy::bind(config, Clock::system())?;
    let address = proxy.local_addrs()[0].1;
    println!("listening on {address}");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        if !targets.is_empty() {
            return proxy.run(std::future::pending()).await.map_err(Into::into);
        }
        proxy.register("web", "hello", Address::Function(hello()))?;
        let (ask, asked) = tokio::sync::oneshot::channel::<()>();
        let asking = async {
            let mut stream = tokio::net::TcpStream::connect(address).await?;
            stream
                .write_all(b"GET / HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n")
                .await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            println!("{answer}");
            let _ = ask.send(());
            Ok::<_, Box<dyn Error>>(())
        };
        let running = proxy.run(async {
            let _ = asked.await;
        });
        let (asking, running) = tokio::join!(asking, running);
        asking?;
        running?;
        println!("{} request", proxy.stats().http.request_count);
        Ok(())
    })
}

/// A target that is a function of this program.
fn hello() -> BoxCloneSyncService<Request<Body>, Response<Body>, BodyError> {
    BoxCloneSyncService::new(tower::service_fn(|request: Request<Body>| async move {
        Ok::<_, BodyError>(Response::new(Body::full(format!(
            "hello, {}",
            request.uri()
        ))))
    }))
}
