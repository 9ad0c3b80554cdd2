//! The way to the web: one request on one connection.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, HOST};
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use sim_core::clock::Clock;
use sim_core::seam::Handler;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::proxy::tls::{Pem, TargetTlsConfig, TlsConnector, TlsError, Verify};

/// How the web is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WebFetchConfig {
    /// How long a request may take in all. Default: 5 s (ALB's for identity providers).
    pub timeout: Duration,
    /// The largest body that is taken, in bytes. Default: 128 KiB.
    pub max_body_bytes: usize,
    /// A PEM file with the authorities that are believed. Default: the system's.
    pub roots: Option<PathBuf>,
}

impl Default for WebFetchConfig {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(5),
            max_body_bytes: 131_072,
            roots: None,
        }
    }
}

/// Asks over HTTP/1.1, on TLS for `https`. Follows no redirect and keeps no connection.
#[derive(Debug)]
pub struct WebFetch {
    config: WebFetchConfig,
    clock: Clock,
    tls: TlsConnector,
}

impl WebFetch {
    /// Makes one, and reads the roots.
    ///
    /// # Errors
    ///
    /// [`TlsError`] for roots that cannot be read.
    pub fn new(config: WebFetchConfig, clock: Clock) -> Result<Self, TlsError> {
        let verify = match &config.roots {
            Some(path) => Verify::Roots(Pem::File(path.clone())),
            None => Verify::NativeRoots,
        };
        let tls = TargetTlsConfig {
            verify,
            ..TargetTlsConfig::default()
        };
        Ok(Self {
            tls: TlsConnector::new(&tls, clock.clone())?,
            config,
            clock,
        })
    }

    async fn fetch(&self, request: Request<Bytes>) -> Result<Response<Bytes>, FetchError> {
        let (host, port, is_secure) = place(request.uri())?;
        let bare = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let stream = TcpStream::connect((bare.as_str(), port))
            .await
            .map_err(FetchError::failed)?;
        if !is_secure {
            return self.exchange(stream, request).await;
        }
        let stream = self
            .tls
            .connect(stream, &bare)
            .await
            .map_err(FetchError::failed)?;
        self.exchange(stream, request).await
    }

    async fn exchange<S>(
        &self,
        stream: S,
        request: Request<Bytes>,
    ) -> Result<Response<Bytes>, FetchError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (mut parts, body) = request.into_parts();
        let host = parts
            .uri
            .authority()
            .map_or("", http::uri::Authority::as_str);
        let host = HeaderValue::from_str(host).map_err(FetchError::failed)?;
        parts.headers.insert(HOST, host);
        parts
            .headers
            .insert(CONNECTION, HeaderValue::from_static("close"));
        let path = parts
            .uri
            .path_and_query()
            .map_or("/", http::uri::PathAndQuery::as_str);
        parts.uri = path.parse().map_err(FetchError::failed)?;
        let request = Request::from_parts(parts, Full::new(body));
        let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
            .max_buf_size(65_536)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(FetchError::failed)?;
        let answer = async {
            let response = sender
                .send_request(request)
                .await
                .map_err(FetchError::failed)?;
            let (parts, mut body) = response.into_parts();
            let mut whole = BytesMut::new();
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(FetchError::failed)?;
                let Ok(data) = frame.into_data() else {
                    continue;
                };
                if whole.len() + data.len() > self.config.max_body_bytes {
                    return Err(FetchError::TooLarge {
                        most: self.config.max_body_bytes,
                    });
                }
                whole.extend_from_slice(&data);
            }
            Ok(Response::from_parts(parts, whole.freeze()))
        };
        let mut connection = std::pin::pin!(connection);
        let mut answer = std::pin::pin!(answer);
        // The connection does the work; its end may come before what it brought has been read.
        tokio::select! {
            biased;
            answer = &mut answer => return answer,
            end = &mut connection => end.map_err(FetchError::failed)?,
        }
        answer.await
    }
}

impl Handler<Request<Bytes>, Result<Response<Bytes>, FetchError>> for WebFetch {
    fn handle(
        &self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, FetchError>> + Send + '_>> {
        Box::pin(async move {
            let deadline = self.clock.now() + self.config.timeout;
            tokio::select! {
                biased;
                answer = self.fetch(request) => answer,
                () = self.clock.sleep_until(deadline) => Err(FetchError::Timeout),
            }
        })
    }
}

fn place(uri: &Uri) -> Result<(&str, u16, bool), FetchError> {
    let is_secure = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => {
            return Err(FetchError::Failed(format!(
                "{uri} is not an address of the web"
            )));
        }
    };
    let Some(host) = uri.host() else {
        return Err(FetchError::Failed(format!("{uri} has no host")));
    };
    let port = uri.port_u16().unwrap_or(if is_secure { 443 } else { 80 });
    Ok((host, port, is_secure))
}

/// The web gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// It took too long.
    #[error("no answer in time")]
    Timeout,
    /// The answer is too large.
    #[error("the answer has more than {most} bytes")]
    TooLarge {
        /// The largest that is taken, in bytes.
        most: usize,
    },
    /// There is no connection, or it broke.
    #[error("{0}")]
    Failed(String),
}

impl FetchError {
    fn failed(error: impl std::fmt::Display) -> Self {
        Self::Failed(error.to_string())
    }
}
