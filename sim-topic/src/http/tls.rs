//! Whom an endpoint trusts over TLS.

use std::io;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::client::ClientConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use sim_core::clock::Clock;
use sim_core::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{HttpError, Roots};

pub(super) struct Trust(TlsConnector);

impl Trust {
    pub(super) fn new(roots: &Roots, clock: Clock) -> Result<Self, HttpError> {
        let wrong = |reason: String| HttpError::Roots { reason };
        let mut store = RootCertStore::empty();
        match roots {
            Roots::System => {
                let found = rustls_native_certs::load_native_certs();
                store.add_parsable_certificates(found.certs);
                if store.is_empty() {
                    let why = found.errors.first().map(|error| format!(": {error}"));
                    return Err(wrong(format!(
                        "the system trusts no certificate{}",
                        why.unwrap_or_default()
                    )));
                }
            }
            Roots::Pem(text) => {
                for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
                    let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
                    store
                        .add(certificate)
                        .map_err(|error| wrong(error.to_string()))?;
                }
                if store.is_empty() {
                    return Err(wrong("the text has no certificate".to_owned()));
                }
            }
        }
        let config = ClientConfig::builder_with_details(
            Arc::new(ring::default_provider()),
            Arc::new(ByClock(clock)),
        )
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(error.to_string()))?
        .with_root_certificates(store)
        .with_no_client_auth();
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    /// Shakes hands over a socket.
    pub(super) async fn connect(
        &self,
        name: ServerName<'static>,
        socket: TcpStream,
    ) -> io::Result<TlsStream<TcpStream>> {
        self.0.connect(name, socket).await
    }
}

/// A certificate is valid by the same clock as everything else.
#[derive(Debug)]
struct ByClock(Clock);

impl TimeProvider for ByClock {
    fn current_time(&self) -> Option<UnixTime> {
        let nanos = self.0.timestamp(self.0.now()).as_unix_nanos();
        let since = Duration::from_nanos(u64::try_from(nanos).ok()?);
        Some(UnixTime::since_unix_epoch(since))
    }
}
