//! Listeners on TLS, and such that pass bytes and datagrams through.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use sim_balancer::proxy::config::{CertificateConfig, Protocol, ProxyConfig};
use sim_balancer::proxy::tls::{Negotiated, TargetTlsConfig, TlsConnector};
use sim_core::clock::Clock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use super::rig::{Running, config, target, web};

/// A folder with a certificate and its key, which goes with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("sim-proxy-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Writes a new certificate, and gives it in DER.
    fn certify(&self, name: &str) -> Vec<u8> {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        std::fs::write(self.0.join("chain.pem"), made.cert.pem()).unwrap();
        std::fs::write(self.0.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        made.cert.der().to_vec()
    }

    fn config(&self) -> CertificateConfig {
        CertificateConfig {
            chain: self.0.join("chain.pem"),
            key: self.0.join("key.pem"),
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn on(protocol: Protocol, mut config: ProxyConfig, folder: Option<&Folder>) -> ProxyConfig {
    config.listeners[0].protocol = protocol;
    config.listeners[0].certificates = folder.into_iter().map(Folder::config).collect();
    config.target_groups[0].protocol = match protocol {
        Protocol::Udp | Protocol::TcpUdp => protocol,
        Protocol::Tls | Protocol::Tcp => Protocol::Tcp,
        _ => Protocol::Http,
    };
    config
}

fn connector(protocols: &[Negotiated]) -> TlsConnector {
    let config = TargetTlsConfig {
        protocols: protocols.to_vec(),
        ..Default::default()
    };
    TlsConnector::new(&config, Clock::system()).unwrap()
}

/// A target that gives back what it gets until its client ends.
async fn echo() -> std::net::SocketAddr {
    target(|mut stream, _| async move {
        let (mut from, mut to) = stream.split();
        let _ = tokio::io::copy(&mut from, &mut to).await;
        let _ = to.shutdown().await;
    })
    .await
}

async fn exchange<S>(mut stream: S) -> Vec<u8>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    stream.write_all(b"as it is").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut received = Vec::new();
    stream.read_to_end(&mut received).await.unwrap();
    received
}

#[tokio::test]
async fn a_tcp_listener_passes_bytes_through() {
    let running = Running::start(on(Protocol::Tcp, config(&[echo().await]), None));
    let stream = TcpStream::connect(running.address).await.unwrap();
    assert_eq!(exchange(stream).await, b"as it is");
    running.stop().await;
}

#[tokio::test]
async fn a_tls_listener_passes_on_what_it_decrypts_and_a_reload_shows_the_new_certificate() {
    let folder = Folder::new("tls");
    let old = folder.certify("a.example");
    let config = on(Protocol::Tls, config(&[echo().await]), Some(&folder));
    let running = Running::start(config.clone());
    let connector = connector(&[]);
    let connect = async || {
        let stream = TcpStream::connect(running.address).await.unwrap();
        connector.connect(stream, "a.example").await.unwrap()
    };
    let open = connect().await;
    assert_eq!(open.peer_certificate(), Some(old));
    let new = folder.certify("a.example");
    running.proxy.reload(config).unwrap();
    assert_eq!(connect().await.peer_certificate(), Some(new));
    assert_eq!(
        exchange(open).await,
        b"as it is",
        "an open connection stays"
    );
    running.stop().await;
}

#[tokio::test]
async fn an_https_listener_agrees_on_http2_and_tells_the_target_of_the_session() {
    let folder = Folder::new("https");
    folder.certify("a.example");
    let target = web(|request: Request<hyper::body::Incoming>| async move {
        let told = |name: &str| {
            let value = request.headers().get(name);
            value
                .map_or("none", |value| value.to_str().unwrap())
                .to_owned()
        };
        let text = format!(
            "{} {}",
            told("x-forwarded-proto"),
            told("x-amzn-tls-version")
        );
        Response::new(Full::new(Bytes::from(text)))
    })
    .await;
    let mut config = on(Protocol::Https, config(&[target]), Some(&folder));
    config.attributes.tls_version_and_cipher_headers = true;
    let running = Running::start(config);
    let stream = TcpStream::connect(running.address).await.unwrap();
    let connector = connector(&[Negotiated::Http2, Negotiated::Http1]);
    let stream = connector.connect(stream, "a.example").await.unwrap();
    assert!(stream.is_http2());
    let (mut send, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    let driver = tokio::spawn(connection);
    let request = Request::get("https://a.example/")
        .header("x-amzn-tls-version", "forged")
        .body(Full::<Bytes>::default())
        .unwrap();
    let response = send.send_request(request).await.unwrap();
    assert_eq!(response.version(), Version::HTTP_2);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(&body[..], b"https TLSv1.3");
    drop(send);
    let _ = driver.await;
    running.stop().await;
}

#[tokio::test]
async fn a_listener_for_both_passes_datagrams_and_connections_on_one_port() {
    let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr().unwrap();
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 100];
        while let Ok((length, from)) = server.recv_from(&mut buffer).await {
            let _ = server.send_to(&buffer[..length], from).await;
        }
    });
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (mut from, mut to) = stream.split();
            let _ = tokio::io::copy(&mut from, &mut to).await;
            let _ = to.shutdown().await;
        }
    });
    let mut config = on(Protocol::TcpUdp, config(&[address]), None);
    config.attributes.workers = 2;
    config.attributes.drain_timeout = Duration::from_millis(1);
    let running = Running::start(config);
    let stream = TcpStream::connect(running.address).await.unwrap();
    assert_eq!(exchange(stream).await, b"as it is");
    for number in 0..8_u8 {
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.send_to(&[number], running.address).await.unwrap();
        let mut buffer = [0; 8];
        // The time is only there so that a failure does not hang.
        let received = tokio::time::timeout(Duration::from_secs(60), client.recv_from(&mut buffer));
        let (length, from) = received.await.expect("an answer").unwrap();
        assert_eq!((&buffer[..length], from), (&[number][..], running.address));
    }
    running.stop().await;
}
