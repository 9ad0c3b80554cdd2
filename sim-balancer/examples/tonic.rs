//! A gRPC client of tonic over balanced channels: whatever is generic over `GrpcService` takes a balance for a channel.
//!
//! ```sh
//! cargo run -p sim-balancer --features tower --example tonic
//! ```

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, Bytes};
use http::uri::PathAndQuery;
use sim_balancer::service::{Balance, ByStatus, function};
use sim_balancer::{Balancer, BalancerConfig, Target};
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::NamedService;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Server};
use tonic::{Request, Response, Status};
use tower::Service;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    // Balanced in five lines.
    let balancer = Balancer::new(BalancerConfig::default())?;
    for name in ["ada", "bob", "cyd"] {
        let address = serve(name)?;
        let channel = Channel::from_shared(format!("http://{address}"))?.connect_lazy();
        balancer.register(Target::new(name, channel))?;
    }
    let mut greeter = Greeter::new(Balance::new(balancer.clone()).judge(ByStatus));

    let mut answers = BTreeMap::<String, u32>::new();
    for _ in 0..30 {
        *answers.entry(greeter.greet("Eve").await?).or_default() += 1;
    }
    println!("30 calls: {answers:?}");

    // A status that tells of the server counts as its failure.
    let error = greeter.greet("").await.expect_err("nobody to greet");
    println!("a bad call: {:?}: {}", error.code(), error.message());
    for target in balancer.targets() {
        println!(
            "{}: {} finished, {} failed",
            target.id, target.finished, target.failed
        );
    }
    Ok(())
}

/// What a code generator would write: a client over any service that speaks gRPC.
struct Greeter<T> {
    inner: tonic::client::Grpc<T>,
}

impl<T> Greeter<T>
where
    T: GrpcService<Body>,
    T::ResponseBody: http_body::Body<Data = Bytes> + Send + 'static,
    <T::ResponseBody as http_body::Body>::Error: Into<Box<dyn Error + Send + Sync>> + Send,
{
    fn new(service: T) -> Self {
        Self {
            inner: tonic::client::Grpc::new(service),
        }
    }

    async fn greet(&mut self, whom: &str) -> Result<String, Status> {
        let ready = self.inner.ready().await.map_err(Into::into);
        ready.map_err(|error| Status::unknown(error.to_string()))?;
        let path = PathAndQuery::from_static("/example.Greeter/Greet");
        let request = Request::new(whom.to_owned());
        let response = self.inner.unary(request, path, Text).await?;
        Ok(response.into_inner())
    }
}

/// Starts a server that greets in its name.
fn serve(name: &'static str) -> Result<SocketAddr, Box<dyn Error>> {
    let incoming = TcpIncoming::bind((Ipv4Addr::LOCALHOST, 0).into())?;
    let address = incoming.local_addr()?;
    let server = Server::builder().add_service(GreeterServer { name });
    tokio::spawn(server.serve_with_incoming(incoming));
    Ok(address)
}

/// What a code generator would write for the server.
#[derive(Clone)]
struct GreeterServer {
    name: &'static str,
}

impl NamedService for GreeterServer {
    const NAME: &'static str = "example.Greeter";
}

impl Service<http::Request<Body>> for GreeterServer {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future =
        std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let name = self.name;
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(Text);
            let method = function(move |request: Request<String>| async move {
                match request.into_inner().as_str() {
                    "" => Err(Status::internal(format!("{name} met nobody"))),
                    whom => Ok(Response::new(format!("{name} greets {whom}"))),
                }
            });
            Ok(grpc.unary(method, request).await)
        })
    }
}

/// Messages that are plain text: no protobuf, no compiler for it.
#[derive(Clone, Copy, Default)]
struct Text;

impl Codec for Text {
    type Encode = String;
    type Decode = String;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Text {
    type Item = String;
    type Error = Status;

    fn encode(&mut self, text: String, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(text.as_bytes());
        Ok(())
    }
}

impl Decoder for Text {
    type Item = String;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<String>, Status> {
        let bytes = from.copy_to_bytes(from.remaining());
        let text = String::from_utf8(bytes.into());
        text.map(Some)
            .map_err(|error| Status::internal(error.to_string()))
    }
}
