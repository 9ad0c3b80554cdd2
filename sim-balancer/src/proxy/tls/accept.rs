//! TLS with clients.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring;
use rustls::server::NoServerSessionStorage;
use sim_core::clock::Clock;
use sim_core::snapshot::Snapshot;
use sim_core::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::facts::Told;
use super::resolve::Certificates;
use super::{ClockTime, HandshakeError, Mutual, TlsConfig, TlsError, TlsInfo, mutual};

/// Takes TLS off the connections of clients; cheap to clone.
#[derive(Debug, Clone)]
pub struct TlsAcceptor {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    active: Snapshot<Active>,
    clock: Clock,
}

/// The settings that handshakes begin with.
#[derive(Debug)]
struct Active {
    config: Arc<ServerConfig>,
    timeout: Duration,
    told: Told,
}

impl TlsAcceptor {
    /// Makes an acceptor, and reads the files that the settings name. Validity and timeouts run on `clock`.
    ///
    /// # Errors
    /// [`TlsError`] for settings and files that cannot be used.
    pub fn new(config: &TlsConfig, clock: Clock) -> Result<Self, TlsError> {
        let active = Active::new(config, &clock)?;
        Ok(Self {
            shared: Arc::new(Shared {
                active: Snapshot::new(active),
                clock,
            }),
        })
    }

    /// Replaces the settings for the handshakes that begin from now on, and reads the files anew. Connections that are
    /// open, and handshakes under way, keep the settings that they began with.
    ///
    /// Sessions from before are not resumed: their clients do one whole handshake.
    ///
    /// # Errors
    /// [`TlsError`] for settings and files that cannot be used; then all stays as it was.
    pub fn reload(&self, config: &TlsConfig) -> Result<(), TlsError> {
        let active = Active::new(config, &self.shared.clock)?;
        self.shared.active.store(Arc::new(active));
        Ok(())
    }

    /// Does the handshake with a client.
    ///
    /// # Errors
    /// [`HandshakeError`]; the connection is closed then, after the alert.
    ///
    /// # Cancel safety
    /// The connection is lost, as it was handed in.
    pub async fn accept<S>(&self, stream: S) -> Result<TlsStream<S>, HandshakeError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let active = self.shared.active.load_arc();
        let clock = &self.shared.clock;
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::clone(&active.config));
        let inner = tokio::select! {
            biased;
            inner = acceptor.accept(stream) => inner?,
            () = clock.sleep_until(clock.now() + active.timeout) => {
                return Err(HandshakeError::Timeout { after: active.timeout });
            }
        };
        let info = Arc::new(TlsInfo::of(inner.get_ref().1, active.told));
        Ok(TlsStream { inner, info })
    }
}

impl Active {
    fn new(config: &TlsConfig, clock: &Clock) -> Result<Self, TlsError> {
        if config.handshake_timeout.is_zero() {
            return Err(TlsError::Timeout);
        }
        let policy = config.security_policy;
        let provider = Arc::new(CryptoProvider {
            cipher_suites: policy.suites(),
            ..ring::default_provider()
        });
        let certificates = Certificates::new(&config.certificates, &provider)?;
        let verifier = mutual::verifier(&config.mutual, &provider)?;
        let settings = |error: rustls::Error| TlsError::Settings {
            problem: error.to_string(),
        };
        let time = Arc::new(ClockTime(clock.clone()));
        let mut server = ServerConfig::builder_with_details(provider, time)
            .with_protocol_versions(&policy.versions())
            .map_err(settings)?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(certificates));
        // The suites are the policy's, and so is their order.
        server.ignore_client_order = true;
        let protocols = config.alpn.protocols().iter();
        server.alpn_protocols = protocols.map(|name| name.as_bytes().to_vec()).collect();
        if config.mutual == Mutual::Off {
            server.ticketer = ring::Ticketer::new().map_err(settings)?;
        } else {
            server.session_storage = Arc::new(NoServerSessionStorage {});
            server.send_tls13_tickets = 0;
        }
        Ok(Self {
            config: Arc::new(server),
            timeout: config.handshake_timeout,
            told: Told::from(&config.mutual),
        })
    }
}

/// A client's connection without its TLS.
#[derive(Debug)]
pub struct TlsStream<S> {
    inner: tokio_rustls::server::TlsStream<S>,
    info: Arc<TlsInfo>,
}

impl<S> TlsStream<S> {
    /// What the handshake told.
    #[must_use]
    pub fn info(&self) -> &Arc<TlsInfo> {
        &self.info
    }

    /// The connection below.
    #[must_use]
    pub fn inner(&self) -> &S {
        self.inner.get_ref().0
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
