//! TLS with targets.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use sim_core::clock::Clock;
use sim_core::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{ClockTime, DEFAULT_HANDSHAKE_TIMEOUT, HandshakeError, Negotiated, Pem, TlsError};

/// How TLS is spoken with targets.
///
/// Write it as a literal that ends in `..Default::default()`; fields may be added.
#[derive(Debug, Clone)]
pub struct TargetTlsConfig {
    /// Whose certificates are accepted. Default: [`Verify::Nothing`], as the service does it.
    pub verify: Verify,
    /// The name that is asked for and verified, instead of that of the target. Default: none.
    pub name: Option<String>,
    /// The protocols that are offered, the preferred one first. Default: none, nothing is spoken of.
    pub protocols: Vec<Negotiated>,
    /// How long a handshake may take; more than zero. Default: 10 s.
    pub handshake_timeout: Duration,
}

impl Default for TargetTlsConfig {
    fn default() -> Self {
        Self {
            verify: Verify::Nothing,
            name: None,
            protocols: Vec::new(),
            handshake_timeout: DEFAULT_HANDSHAKE_TIMEOUT,
        }
    }
}

/// Whose certificates are accepted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Verify {
    /// Everybody's, also expired ones and such for other names: against listeners on the way, not against who can answer
    /// in the target's place.
    #[default]
    Nothing,
    /// Those that lead to the roots of the operating system.
    NativeRoots,
    /// Those that lead to these roots.
    Roots(Pem),
}

/// Puts TLS on connections to targets; cheap to clone.
#[derive(Debug, Clone)]
pub struct TlsConnector {
    config: Arc<ClientConfig>,
    name: Option<ServerName<'static>>,
    timeout: Duration,
    clock: Clock,
}

impl TlsConnector {
    /// Makes a connector, and reads the roots. Validity and timeouts run on `clock`.
    ///
    /// # Errors
    /// [`TlsError`] for settings and roots that cannot be used.
    pub fn new(config: &TargetTlsConfig, clock: Clock) -> Result<Self, TlsError> {
        if config.handshake_timeout.is_zero() {
            return Err(TlsError::Timeout);
        }
        let name = match &config.name {
            None => None,
            Some(name) => {
                Some(server_name(name).map_err(|_| TlsError::Name { name: name.clone() })?)
            }
        };
        let provider = Arc::new(ring::default_provider());
        let algorithms = provider.signature_verification_algorithms;
        let time = Arc::new(ClockTime(clock.clone()));
        let builder =
            ClientConfig::builder_with_details(Arc::<CryptoProvider>::clone(&provider), time)
                .with_safe_default_protocol_versions()
                .map_err(|error| TlsError::Settings {
                    problem: error.to_string(),
                })?;
        let builder = match &config.verify {
            Verify::Nothing => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Anybody { algorithms })),
            Verify::NativeRoots => builder.with_root_certificates(native_roots()?),
            Verify::Roots(pem) => builder.with_root_certificates(roots(pem)?),
        };
        let mut client = builder.with_no_client_auth();
        let protocols = config.protocols.iter();
        client.alpn_protocols = protocols
            .map(|protocol| protocol.name().as_bytes().to_vec())
            .collect();
        Ok(Self {
            config: Arc::new(client),
            name,
            timeout: config.handshake_timeout,
            clock,
        })
    }

    /// Does the handshake with a target, `host` by name or by address.
    ///
    /// # Errors
    /// [`HandshakeError`]; the connection is closed then.
    ///
    /// # Cancel safety
    /// The connection is lost, as it was handed in.
    pub async fn connect<S>(&self, stream: S, host: &str) -> Result<TargetStream<S>, HandshakeError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = match &self.name {
            Some(name) => name.clone(),
            None => server_name(host)?,
        };
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(&self.config));
        let inner = tokio::select! {
            biased;
            inner = connector.connect(name, stream) => inner?,
            () = self.clock.sleep_until(self.clock.now() + self.timeout) => {
                return Err(HandshakeError::Timeout { after: self.timeout });
            }
        };
        Ok(TargetStream { inner })
    }
}

/// A name, or an address with or without the brackets that it has in a URI.
fn server_name(host: &str) -> Result<ServerName<'static>, HandshakeError> {
    let bare = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(host);
    ServerName::try_from(bare.to_owned()).map_err(|_| HandshakeError::Name {
        name: host.to_owned(),
    })
}

fn roots(pem: &Pem) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for root in pem.certificates()? {
        roots.add(root).map_err(|error| TlsError::Certificate {
            origin: pem.origin(),
            problem: error.to_string(),
        })?;
    }
    Ok(roots)
}

fn native_roots() -> Result<RootCertStore, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Some systems hold roots that cannot be read; the others serve.
    let (added, _ignored) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let problem = found
            .errors
            .first()
            .map_or_else(|| "there is none".to_owned(), ToString::to_string);
        return Err(TlsError::NativeRoots { problem });
    }
    Ok(roots)
}

/// Takes any certificate, of who can prove to have its key.
#[derive(Debug)]
struct Anybody {
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// A target's connection without its TLS.
#[derive(Debug)]
pub struct TargetStream<S> {
    inner: tokio_rustls::client::TlsStream<S>,
}

impl<S> TargetStream<S> {
    /// Whether HTTP/2 was agreed on.
    #[must_use]
    pub fn is_http2(&self) -> bool {
        self.inner.get_ref().1.alpn_protocol() == Some(Negotiated::Http2.name().as_bytes())
    }

    /// The target's certificate, in DER.
    #[must_use]
    pub fn peer_certificate(&self) -> Option<Vec<u8>> {
        let chain = self.inner.get_ref().1.peer_certificates()?;
        chain.first().map(|leaf| leaf.to_vec())
    }

    /// The connection below.
    #[must_use]
    pub fn inner(&self) -> &S {
        self.inner.get_ref().0
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for TargetStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TargetStream<S> {
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
