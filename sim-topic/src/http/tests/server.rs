//! A server on 127.0.0.1 that answers as it is told and remembers what it was asked.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

/// A request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// How the server answers.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    Status(u16),
    With(u16, Vec<(&'static str, String)>, Bytes),
    /// Answers, and then closes the connection.
    Last(u16),
    /// So many chunks of 1 KiB, without saying how many there will be; no end if there are none left to count.
    Chunks(u16, usize),
    /// A head, and then nothing.
    HeadOnly(u16),
    Never,
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    /// Every request, in order.
    pub(crate) seen: mpsc::UnboundedReceiver<Seen>,
    connections: Arc<AtomicUsize>,
    replies: Arc<Mutex<Vec<Reply>>>,
}

/// The certificate of `localhost`, and that of another name.
const LOCALHOST: &[u8] = include_bytes!("../../../tests/data/tls-server.pem");
pub(crate) const OTHER: &[u8] = include_bytes!("../../../tests/data/tls-other.pem");

impl Server {
    pub(crate) async fn start(replies: impl IntoIterator<Item = Reply>) -> Self {
        Self::with(replies, None).await
    }

    pub(crate) async fn start_tls(replies: impl IntoIterator<Item = Reply>) -> Self {
        Self::start_tls_as(replies, LOCALHOST).await
    }

    /// As [`start_tls`](Self::start_tls), with a certificate for the tests' key.
    pub(crate) async fn start_tls_as(
        replies: impl IntoIterator<Item = Reply>,
        certificate: &[u8],
    ) -> Self {
        let key = include_bytes!("../../../tests/data/tls-server.key.pem");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(certificate).unwrap()],
                PrivateKeyDer::from_pem_slice(key).unwrap(),
            )
            .unwrap();
        Self::with(replies, Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    /// Answers with each reply in turn, and with the last one from then on.
    async fn with(replies: impl IntoIterator<Item = Reply>, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, seen) = mpsc::unbounded_channel();
        let mut replies: Vec<_> = replies.into_iter().collect();
        replies.reverse();
        let replies = Arc::new(Mutex::new(replies));
        let connections = Arc::new(AtomicUsize::new(0));
        let server = Self {
            address,
            seen,
            connections: Arc::clone(&connections),
            replies: Arc::clone(&replies),
        };
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::Relaxed);
                let (tell, replies, tls) = (tell.clone(), Arc::clone(&replies), tls.clone());
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        answer(request, tell.clone(), Arc::clone(&replies))
                    });
                    let serve = http1::Builder::new();
                    // What ends a connection is the client's affair.
                    match tls {
                        None => drop(serve.serve_connection(TokioIo::new(socket), service).await),
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(socket).await {
                                drop(serve.serve_connection(TokioIo::new(stream), service).await);
                            }
                        }
                    }
                });
            }
        });
        server
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// How many connections it was asked for.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Answers so from now on.
    pub(crate) fn reply(&self, reply: Reply) {
        *self.replies.lock().unwrap() = vec![reply];
    }
}

async fn answer(
    request: Request<Incoming>,
    tell: mpsc::UnboundedSender<Seen>,
    replies: Arc<Mutex<Vec<Reply>>>,
) -> Result<Response<Script>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes());
    let _ = tell.send(Seen {
        method: head.method.to_string(),
        path: head.uri.to_string(),
        headers: head.headers,
        body: body.unwrap_or_default(),
    });
    let reply = {
        let mut replies = replies.lock().unwrap();
        if replies.len() > 1 {
            replies.pop()
        } else {
            replies.last().cloned()
        }
    };
    let response = |status: u16, script| {
        let mut response = Response::new(script);
        *response.status_mut() = status.try_into().unwrap();
        response
    };
    Ok(match reply.unwrap_or(Reply::Status(200)) {
        Reply::Status(status) => response(status, Script::Whole(Bytes::new())),
        Reply::With(status, headers, body) => {
            let mut response = response(status, Script::Whole(body));
            for (name, value) in headers {
                response.headers_mut().append(name, value.parse().unwrap());
            }
            response
        }
        Reply::Last(status) => {
            let mut response = response(status, Script::Whole(Bytes::new()));
            response
                .headers_mut()
                .insert("connection", "close".parse().unwrap());
            response
        }
        Reply::Chunks(status, count) => response(status, Script::Chunks(count)),
        Reply::HeadOnly(status) => response(status, Script::Silent),
        Reply::Never => std::future::pending().await,
    })
}

/// The body of an answer.
enum Script {
    Whole(Bytes),
    Chunks(usize),
    Silent,
}

impl Body for Script {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Chunks(0) => Poll::Ready(None),
            Self::Chunks(left) => {
                *left -= 1;
                Poll::Ready(Some(Ok(Frame::data(Bytes::from(vec![b'x'; 1_024])))))
            }
            Self::Silent => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        match self {
            Self::Whole(bytes) => hyper::body::SizeHint::with_exact(bytes.len() as u64),
            _ => hyper::body::SizeHint::default(),
        }
    }
}

/// A server that is none: it reads the head of a request, says `bytes`, and closes.
pub(crate) async fn babble(bytes: impl Into<Vec<u8>>) -> SocketAddr {
    let bytes = bytes.into();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut read = Vec::new();
            while !read.windows(4).any(|end| end == b"\r\n\r\n") {
                if matches!(socket.read_buf(&mut read).await, Ok(0) | Err(_)) {
                    break;
                }
            }
            // The client may have had enough before the end.
            let _ = socket.write_all(&bytes).await;
            let _ = socket.shutdown().await;
        }
    });
    address
}
