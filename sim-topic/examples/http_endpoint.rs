//! A topic posts its messages to an HTTP endpoint: the endpoint confirms its subscription, checks each signature,
//! and is out of order once, which a retry mends.
//!
//! Run it with `cargo run -p sim-topic --example http_endpoint --features http`.

use std::convert::Infallible;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use sim_core::clock::Clock;
use sim_core::payload::Payload;
use sim_topic::http::{HttpConfig, HttpEndpoint, Signer, Verifier};
use sim_topic::{
    Envelope, EnvelopeKind, Message, RetryPolicy, SignatureVersion, Subscriber, SubscriptionConfig,
    Topic, TopicConfig,
};
use tokio::net::TcpListener;

/// The other side: a program that only knows HTTP and the sender's public key.
struct Shop {
    verifier: Verifier,
    topic: Topic<Payload>,
    requests: AtomicU32,
}

impl Shop {
    async fn answer(&self, request: Request<Incoming>) -> StatusCode {
        let Ok(body) = request.into_body().collect().await else {
            return StatusCode::BAD_REQUEST;
        };
        let Ok(envelope) = Envelope::parse(&body.to_bytes()) else {
            return StatusCode::BAD_REQUEST;
        };
        if let Err(error) = self.verifier.verify(&envelope) {
            println!("refused: {error}");
            return StatusCode::FORBIDDEN;
        }
        match envelope.kind {
            EnvelopeKind::SubscriptionConfirmation(confirmation) => {
                // Elsewhere this would be a GET of the `SubscribeURL`.
                let confirmed = confirmation
                    .token
                    .parse()
                    .map(|token| self.topic.confirm(&token));
                println!("asked to confirm the topic {:?}", envelope.topic_arn);
                match confirmed {
                    Ok(Ok(_)) => StatusCode::OK,
                    _ => StatusCode::BAD_REQUEST,
                }
            }
            _ if self.requests.fetch_add(1, Ordering::Relaxed) == 1 => {
                println!("out of order, come again");
                StatusCode::SERVICE_UNAVAILABLE
            }
            _ => {
                println!("got {:?}", envelope.message);
                StatusCode::NO_CONTENT
            }
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let clock = Clock::system();
    let topic = Topic::bytes(TopicConfig::new("orders"), clock.clone())?;
    // A key of the program's own; a real one comes from a file.
    let signer = Signer::insecure_from_seed(7, SignatureVersion::V2, "http://localhost/cert.pem")?;

    let shop = Arc::new(Shop {
        verifier: signer.verifier(),
        topic: topic.clone(),
        requests: AtomicU32::new(0),
    });
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/orders", listener.local_addr()?);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let shop = Arc::clone(&shop);
            let service = service_fn(move |request| {
                let shop = Arc::clone(&shop);
                async move {
                    let mut response = Response::new(Empty::<Bytes>::new());
                    *response.status_mut() = shop.answer(request).await;
                    Ok::<_, Infallible>(response)
                }
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(socket), service));
        }
    });

    let config = HttpConfig {
        signer: Some(signer),
        ..HttpConfig::new(url)
    };
    let subscription = topic.subscribe(
        Subscriber::endpoint(HttpEndpoint::new(config, clock)?),
        SubscriptionConfig {
            // One try at once after a failure: an example should not take long.
            retry: RetryPolicy {
                immediate: 1,
                ..RetryPolicy::NONE
            },
            ..SubscriptionConfig::default()
        },
    )?;

    let driver = topic.clone();
    let driving = tokio::spawn(async move { driver.run().await });
    while topic.stats().subscriptions_pending > 0 {
        tokio::task::yield_now().await;
    }
    for number in 1..=3 {
        topic.try_publish(Message::new(Payload::from(format!("order {number}"))))?;
    }
    // Once it is closed, driving ends with the last delivery.
    topic.close();
    driving.await?;
    let stats = subscription.stats();
    println!("{} delivered, {} retried", stats.delivered, stats.retried);
    Ok(())
}
