//! A listener that ends TLS and passes the bytes to one of two servers, chosen by the client's address and port, and that
//! tells the server who the client is.
//!
//! ```sh
//! cargo run -p sim-balancer --features proxy --example tls_pass
//! ```

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};

use sim_balancer::algorithm::MaglevConfig;
use sim_balancer::proxy::pass::{Pass, PassConfig, PassLayers};
use sim_balancer::proxy::prefix::{Mode, PrefixConfig, PrefixReader, Version};
use sim_balancer::proxy::tls::{
    AlpnPolicy, Certificate, Pem, TargetTlsConfig, TlsAcceptor, TlsConfig, TlsConnector, Verify,
};
use sim_balancer::{Algorithm, Balancer, BalancerConfig, Target};
use sim_core::clock::Clock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let clock = Clock::system();
    // A certificate of the moment; a real one stands in files: `Pem::File("chain.pem".into())`.
    let made = rcgen::generate_simple_self_signed(["shop.example".to_owned()])?;
    let certificate = Pem::Inline(made.cert.pem().into());
    let tls = TlsConfig {
        certificates: vec![Certificate {
            chain: certificate.clone(),
            key: Pem::Inline(made.signing_key.serialize_pem().into()),
            names: Vec::new(),
        }],
        alpn: AlpnPolicy::None,
        ..Default::default()
    };

    let balancer = Balancer::<SocketAddr>::new(BalancerConfig {
        algorithm: Algorithm::Maglev(MaglevConfig::default()),
        ..Default::default()
    })?;
    for name in ["blue", "green"] {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        balancer.register(Target::new(name, listener.local_addr()?))?;
        tokio::spawn(serve(name, listener, clock.clone()));
    }

    let pass = Pass::new(
        PassConfig {
            proxy_protocol: Some(Version::V2),
            ..Default::default()
        },
        PassLayers {
            tls: Some(TlsAcceptor::new(&tls, clock.clone())?),
            ..Default::default()
        },
        balancer,
        |address| Some((*address).into()),
    )?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn({
        let pass = pass.clone();
        async move {
            let stopping = async {
                let _ = stopped.await;
            };
            pass.serve_tcp(listener, stopping).await;
        }
    });

    let trusting = TargetTlsConfig {
        verify: Verify::Roots(certificate),
        ..Default::default()
    };
    let connector = TlsConnector::new(&trusting, clock)?;
    for number in 1..=4 {
        let socket = TcpStream::connect(address).await?;
        let mut stream = connector.connect(socket, "shop.example").await?;
        stream
            .write_all(format!("request {number}").as_bytes())
            .await?;
        stream.shutdown().await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        println!("{answer}");
    }

    let _ = stop.send(());
    server.await?;
    let stats = pass.stats();
    println!(
        "{} connections, {} bytes in, {} bytes out",
        stats.finished, stats.bytes_in, stats.bytes_out
    );
    Ok(())
}

/// A server that says who asked, as the listener before it told.
async fn serve(name: &'static str, listener: TcpListener, clock: Clock) {
    let config = PrefixConfig {
        mode: Mode::Required,
        trusted: vec!["127.0.0.0/8".parse().expect("a block of addresses")],
        ..Default::default()
    };
    let reader = PrefixReader::new(config, clock).expect("settings within their bounds");
    while let Ok((stream, peer)) = listener.accept().await {
        let Ok((Some(prefix), mut stream)) = reader.read(stream, peer.ip()).await else {
            continue;
        };
        let client = prefix.source().map(|client| client.ip());
        let mut asked = String::new();
        if stream.read_to_string(&mut asked).await.is_ok() {
            let answer = format!("{name} answers {asked} of {client:?}");
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    }
}
