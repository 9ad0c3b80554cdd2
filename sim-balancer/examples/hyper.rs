//! A small reverse proxy on hyper: a server whose service is a balance of connections to other servers.
//!
//! ```sh
//! cargo run -p sim-balancer --features tower --example hyper
//! ```

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, client, server};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use sim_balancer::service::{Balance, ByStatus, function};
use sim_balancer::{Balancer, BalancerConfig, Target};
use tokio::net::{TcpListener, TcpStream};
use tower::util::BoxCloneSyncService;

type BoxError = Box<dyn Error + Send + Sync>;
type Upstream = BoxCloneSyncService<Request<Incoming>, Response<Incoming>, BoxError>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let balancer = Balancer::new(BalancerConfig::default())?;
    for name in ["one", "two", "three"] {
        let address = backend(name).await?;
        balancer.register(Target::new(name, upstream(address)))?;
    }
    // The lease of a target lasts until the last byte of the answer has passed.
    let balanced = Balance::new(balancer.clone())
        .judge(ByStatus)
        .through_body();

    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let front = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = TowerToHyperService::new(balanced.clone());
            tokio::spawn(
                server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
            );
        }
    });

    let mut answers = BTreeMap::<Bytes, u32>::new();
    for _ in 0..30 {
        let request = Request::get("/")
            .header("host", "example")
            .body(Empty::<Bytes>::new())?;
        let response = send(front, request).await?;
        let body = response.into_body().collect().await?.to_bytes();
        *answers.entry(body).or_default() += 1;
    }
    println!("30 requests through the proxy: {answers:?}");
    for target in balancer.targets() {
        println!(
            "{}: {} finished, {} failed",
            target.id, target.finished, target.failed
        );
    }
    Ok(())
}

/// The service of a target: a connection for each request. A real one would keep connections.
fn upstream(address: SocketAddr) -> Upstream {
    BoxCloneSyncService::new(function(move |request| send(address, request)))
}

async fn send<B>(address: SocketAddr, request: Request<B>) -> Result<Response<Incoming>, BoxError>
where
    B: hyper::body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender.send_request(request).await?)
}

/// A server that answers with its name.
async fn backend(name: &'static str) -> Result<SocketAddr, BoxError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(async move |_: Request<Incoming>| {
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(
                    name.as_bytes(),
                ))))
            });
            tokio::spawn(
                server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    Ok(address)
}
