//! Targets, clients and a proxy between them.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use sim_balancer::proxy::config::{
    ActionConfig, Attributes, ForwardConfig, HealthCheckConfig, ListenerConfig, ProtocolVersion,
    ProxyConfig, TargetConfig, TargetGroupConfig,
};
use sim_balancer::proxy::{Proxy, RunError};
use sim_core::clock::Clock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A proxy that runs.
pub(super) struct Running {
    pub(super) proxy: Proxy,
    pub(super) address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), RunError>>,
}

impl Running {
    pub(super) fn start(config: ProxyConfig) -> Self {
        let proxy = Proxy::bind(config, Clock::system()).unwrap();
        let address = proxy.local_addrs()[0].1;
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn({
            let proxy = proxy.clone();
            async move {
                proxy
                    .run(async {
                        let _ = stopped.await;
                    })
                    .await
            }
        });
        Self {
            proxy,
            address,
            stop: Some(stop),
            task,
        }
    }

    /// Asks it to stop and waits until it has.
    pub(super) async fn stop(mut self) {
        let _ = self.stop.take().unwrap().send(());
        self.task.await.unwrap().unwrap();
    }
}

/// A proxy with one listener before one group.
pub(super) fn config(targets: &[SocketAddr]) -> ProxyConfig {
    ProxyConfig {
        attributes: Attributes {
            workers: 1,
            drain_timeout: Duration::from_secs(10),
            ..Default::default()
        },
        listeners: vec![ListenerConfig {
            name: "http".to_owned(),
            address: Some([127, 0, 0, 1].into()),
            port: 0,
            default_actions: vec![ActionConfig::Forward(ForwardConfig::to("web"))],
            ..Default::default()
        }],
        target_groups: vec![TargetGroupConfig {
            name: "web".to_owned(),
            // Checks would be connections that tests do not expect.
            health_check: HealthCheckConfig {
                enabled: false,
                ..Default::default()
            },
            targets: targets
                .iter()
                .map(|target| TargetConfig::at(target.to_string()))
                .collect(),
            ..Default::default()
        }],
        ..Default::default()
    }
}

pub(super) fn config_for(version: ProtocolVersion, target: SocketAddr) -> ProxyConfig {
    let mut config = config(&[target]);
    config.target_groups[0].protocol_version = version;
    config
}

/// A target that does with each connection what `serve` says; the count is that of connections before it.
pub(super) async fn target<F, S>(serve: S) -> SocketAddr
where
    S: Fn(TcpStream, usize) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for count in 0.. {
            let Ok((stream, _)) = listener.accept().await else {
                return;
            };
            tokio::spawn(serve(stream, count));
        }
    });
    address
}

/// A target on hyper, over HTTP/1.1 or HTTP/2, whichever is asked for.
pub(super) async fn web<F, S>(answer: S) -> SocketAddr
where
    S: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    target(move |stream, _| {
        let answer = answer.clone();
        async move {
            let service = hyper::service::service_fn(move |request| {
                let answering = answer(request);
                async move { Ok::<_, std::convert::Infallible>(answering.await) }
            });
            let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            let _ = builder
                .serve_connection(TokioIo::new(stream), service)
                .await;
        }
    })
    .await
}

/// A target that answers each request with a text that tells what it got: the request line and the fields, sorted.
pub(super) async fn telling() -> SocketAddr {
    web(|request| async move {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let mut lines: Vec<String> = parts
            .headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        lines.sort();
        lines.insert(
            0,
            format!("{} {} {:?}", parts.method, parts.uri, parts.version),
        );
        lines.push(format!("body of {} bytes", body.len()));
        Response::new(Full::new(Bytes::from(lines.join("\n"))))
    })
    .await
}

/// Sends bytes and reads what comes until the end.
pub(super) async fn raw(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    // A proxy that refuses may reset the connection after its answer.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// A request for `/` with more fields, on a connection that ends after it.
pub(super) async fn get(address: SocketAddr, fields: &str) -> String {
    let request =
        format!("GET / HTTP/1.1\r\nhost: example.com\r\nconnection: close\r\n{fields}\r\n");
    raw(address, request.as_bytes()).await
}

/// The status of a response.
pub(super) fn status(answer: &str) -> u16 {
    answer
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .unwrap_or_else(|| panic!("no status in {answer:?}"))
}

/// Reads from a stream until `end` has come, and returns all of it.
pub(super) async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains(end) {
        let count = stream.read_buf(&mut seen).await.unwrap();
        assert!(
            count > 0,
            "{:?} ended without {end:?}",
            String::from_utf8_lossy(&seen)
        );
    }
    String::from_utf8_lossy(&seen).into_owned()
}

/// A client over HTTP/2 that knows that the server speaks it.
pub(super) async fn http2(
    address: SocketAddr,
) -> hyper::client::conn::http2::SendRequest<Full<Bytes>> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (send, conn) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(conn);
    send
}
