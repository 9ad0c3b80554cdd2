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

#[cfg(test)]
mod tests {
    use sim_core::time::Timestamp;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// Asks a server that answers every connection with these bytes, and tells what it was asked.
    async fn ask(
        answer: &'static str,
        config: WebFetchConfig,
    ) -> (Result<Response<Bytes>, FetchError>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let fetch = WebFetch::new(config, Clock::system()).expect("roots");
        let request = Request::post(format!("http://{address}/a?b=c")).body(Bytes::from("body"));
        let serve = async {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut asked = String::new();
            let mut piece = [0; 1_024];
            while !asked.ends_with("body") {
                let read = stream.read(&mut piece).await.expect("bytes");
                asked.push_str(std::str::from_utf8(&piece[..read]).expect("text"));
            }
            stream.write_all(answer.as_bytes()).await.expect("sent");
            asked
        };
        tokio::join!(fetch.handle(request.expect("a request")), serve)
    }

    #[tokio::test]
    async fn an_answer_comes_whole() {
        let answer = "HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
        let (response, asked) = ask(answer, WebFetchConfig::default()).await;
        let response = response.expect("an answer");
        assert_eq!(response.status(), 201);
        assert_eq!(&response.body()[..], b"abcde");
        assert!(asked.starts_with("POST /a?b=c HTTP/1.1\r\n"), "{asked}");
        assert!(asked.contains("\r\nhost: 127.0.0.1:"), "{asked}");
    }

    #[tokio::test]
    async fn an_answer_that_ends_with_the_connection_comes_whole_too() {
        let (response, _) = ask("HTTP/1.1 200 OK\r\n\r\nabc", WebFetchConfig::default()).await;
        assert_eq!(&response.expect("an answer").body()[..], b"abc");
    }

    #[tokio::test]
    async fn an_answer_that_is_too_large_is_refused() {
        let config = WebFetchConfig {
            max_body_bytes: 4,
            ..WebFetchConfig::default()
        };
        let (response, _) = ask("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcde", config).await;
        assert_eq!(
            response.expect_err("too large"),
            FetchError::TooLarge { most: 4 }
        );
    }

    #[tokio::test]
    async fn what_is_no_answer_is_an_error() {
        for answer in [
            "",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc",
            "nonsense\r\n\r\n",
        ] {
            let (response, _) = ask(answer, WebFetchConfig::default()).await;
            assert!(matches!(response, Err(FetchError::Failed(_))), "{answer:?}");
        }
        let fetch = WebFetch::new(WebFetchConfig::default(), Clock::system()).expect("roots");
        for uri in ["/path", "ftp://example.com/"] {
            let request = Request::get(uri).body(Bytes::new()).expect("a request");
            assert!(matches!(
                fetch.handle(request).await,
                Err(FetchError::Failed(_))
            ));
        }
    }

    #[tokio::test]
    async fn whoever_does_not_answer_is_given_up_in_time() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (clock, time) = Clock::virtual_at(Timestamp::from_unix_seconds(0));
        let fetch = WebFetch::new(WebFetchConfig::default(), clock).expect("roots");
        let request = Request::get(format!("http://{address}/")).body(Bytes::new());
        let wait = async {
            let (stream, _) = listener.accept().await.expect("a connection");
            time.advance(Duration::from_secs(5));
            stream
        };
        let (response, _stream) = tokio::join!(fetch.handle(request.expect("a request")), wait);
        assert_eq!(response.expect_err("no answer"), FetchError::Timeout);
    }
}
