//! Signatures of envelopes: RSA (PKCS #1, version 1.5) over SHA-1 or SHA-256.
//!
//! The signature is over [`Envelope::string_to_sign`]. Source: SNS developer guide, "Verifying the signatures of
//! Amazon SNS messages".

use std::convert::Infallible;
use std::fmt;

use rsa::pkcs1v15::{Signature as RsaSignature, SigningKey, VerifyingKey};
use rsa::pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePublicKey, LineEnding};
use rsa::rand_core::{TryCryptoRng, TryRng};
use rsa::sha2::Sha256;
use rsa::signature::{SignatureEncoding, Signer as _, Verifier as _};
use rsa::traits::PublicKeyParts;
use rsa::{PrivateKey, PublicKey};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::ParsedCertificate;
use sha1::Sha1;
use sim_core::random::Random;
use sim_core::sync::Arc;

use crate::envelope::{Envelope, Signature, SignatureVersion, base64};

/// The shortest key, in bits: what NIST SP 800-131A allows since 2014.
const MIN_BITS: usize = 2_048;

/// Signs envelopes with a private key.
///
/// A signature is computed on the thread that delivers, for each envelope.
#[derive(Clone)]
pub struct Signer {
    key: Arc<Key>,
    cert_url: String,
}

/// A private key, made ready for one algorithm.
enum Key {
    V1(SigningKey<Sha1>),
    V2(SigningKey<Sha256>),
}

impl Signer {
    /// Takes a key in PKCS #8, as PEM (`-----BEGIN PRIVATE KEY-----`). `cert_url` is where readers find its
    /// certificate.
    ///
    /// # Errors
    ///
    /// When the text is no such key, or the key is shorter than 2,048 bits.
    pub fn from_pkcs8_pem(
        pem: &str,
        version: SignatureVersion,
        cert_url: impl Into<String>,
    ) -> Result<Self, KeyError> {
        let key = PrivateKey::from_pkcs8_pem(pem).map_err(KeyError::unreadable)?;
        Self::new(key, version, cert_url.into())
    }

    /// Takes a key in PKCS #8, as DER.
    ///
    /// # Errors
    ///
    /// When the bytes are no such key, or the key is shorter than 2,048 bits.
    pub fn from_pkcs8_der(
        der: &[u8],
        version: SignatureVersion,
        cert_url: impl Into<String>,
    ) -> Result<Self, KeyError> {
        let key = PrivateKey::from_pkcs8_der(der).map_err(KeyError::unreadable)?;
        Self::new(key, version, cert_url.into())
    }

    /// Makes a key of 2,048 bits out of a seed, for tests and development. Whoever knows the seed has the key: it
    /// protects nothing.
    ///
    /// # Errors
    ///
    /// When no key is found, which does not happen.
    pub fn insecure_from_seed(
        seed: u64,
        version: SignatureVersion,
        cert_url: impl Into<String>,
    ) -> Result<Self, KeyError> {
        let mut source = Seeded(Random::new(seed).fork("rsa"));
        let key = PrivateKey::new(&mut source, MIN_BITS).map_err(KeyError::unreadable)?;
        Self::new(key, version, cert_url.into())
    }

    fn new(key: PrivateKey, version: SignatureVersion, cert_url: String) -> Result<Self, KeyError> {
        long_enough(key.size() * 8)?;
        let key = match version {
            SignatureVersion::V1 => Key::V1(SigningKey::new(key)),
            SignatureVersion::V2 => Key::V2(SigningKey::new(key)),
        };
        Ok(Self {
            key: Arc::new(key),
            cert_url,
        })
    }

    /// Signs an envelope, in place of a signature that it may have.
    ///
    /// # Errors
    ///
    /// When the system gives no randomness to blind the computation with.
    pub fn sign(&self, envelope: &mut Envelope) -> Result<(), KeyError> {
        let text = envelope.string_to_sign();
        let signature = match &*self.key {
            Key::V1(key) => key.try_sign(text.as_bytes()),
            Key::V2(key) => key.try_sign(text.as_bytes()),
        }
        .map_err(|error| KeyError::Sign {
            reason: error.to_string(),
        })?;
        envelope.signature = Some(Signature {
            version: self.version(),
            value: base64::encode(&signature.to_bytes()),
            cert_url: self.cert_url.clone(),
        });
        Ok(())
    }

    /// What verifies its signatures.
    #[must_use]
    pub fn verifier(&self) -> Verifier {
        Verifier(match &*self.key {
            Key::V1(key) => key.as_ref().to_public_key(),
            Key::V2(key) => key.as_ref().to_public_key(),
        })
    }

    /// The algorithm.
    #[must_use]
    pub fn version(&self) -> SignatureVersion {
        match &*self.key {
            Key::V1(_) => SignatureVersion::V1,
            Key::V2(_) => SignatureVersion::V2,
        }
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer")
            .field("version", &self.version())
            .field("cert_url", &self.cert_url)
            .finish_non_exhaustive()
    }
}

/// Verifies the signatures of envelopes with a public key.
///
/// It answers for the text, not for the sender: whoever fetches a certificate from an envelope's `SigningCertURL`
/// must first check that the URL is one that it trusts.
///
/// ```
/// use sim_topic::http::Signer;
/// use sim_topic::{Envelope, SignatureVersion};
///
/// let signer = Signer::insecure_from_seed(7, SignatureVersion::V2, "http://localhost/cert.pem")?;
/// let mut envelope = Envelope::parse(
///     br#"{"Type":"Notification","MessageId":"1","TopicArn":"orders","Message":"order 7",
///         "Timestamp":"2026-01-01T12:00:00.000Z"}"#,
/// )?;
/// signer.sign(&mut envelope)?;
/// assert!(signer.verifier().verify(&envelope).is_ok());
/// envelope.message.push('!');
/// assert!(signer.verifier().verify(&envelope).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verifier(PublicKey);

impl Verifier {
    /// Takes a public key as PEM (`-----BEGIN PUBLIC KEY-----`).
    ///
    /// # Errors
    ///
    /// When the text is no such key, or the key is shorter than 2,048 bits.
    pub fn from_public_key_pem(pem: &str) -> Result<Self, KeyError> {
        let key = PublicKey::from_public_key_pem(pem).map_err(KeyError::unreadable)?;
        Self::new(key)
    }

    /// Takes the public key out of a certificate as PEM (`-----BEGIN CERTIFICATE-----`). Names, dates and issuer of the
    /// certificate are not looked at.
    ///
    /// # Errors
    ///
    /// When the text is no certificate of an RSA key, or the key is shorter than 2,048 bits.
    pub fn from_certificate_pem(pem: &str) -> Result<Self, KeyError> {
        let certificate =
            CertificateDer::from_pem_slice(pem.as_bytes()).map_err(KeyError::unreadable)?;
        let parsed = ParsedCertificate::try_from(&certificate).map_err(KeyError::unreadable)?;
        let info = parsed.subject_public_key_info();
        let key = PublicKey::from_public_key_der(&info).map_err(KeyError::unreadable)?;
        Self::new(key)
    }

    fn new(key: PublicKey) -> Result<Self, KeyError> {
        long_enough(key.size() * 8)?;
        Ok(Self(key))
    }

    /// The public key as PEM.
    ///
    /// # Errors
    ///
    /// When it cannot be encoded, which does not happen.
    pub fn public_key_pem(&self) -> Result<String, KeyError> {
        self.0
            .to_public_key_pem(LineEnding::LF)
            .map_err(KeyError::unreadable)
    }

    /// Checks an envelope's signature.
    ///
    /// # Errors
    ///
    /// When there is none, or it is not of this text and this key.
    pub fn verify(&self, envelope: &Envelope) -> Result<(), VerifyError> {
        let signature = envelope.signature.as_ref().ok_or(VerifyError::Unsigned)?;
        let bytes = base64::decode(&signature.value).ok_or(VerifyError::NotBase64)?;
        let bytes = RsaSignature::try_from(&*bytes).map_err(|_| VerifyError::Mismatch)?;
        let text = envelope.string_to_sign();
        let key = self.0.clone();
        match signature.version {
            SignatureVersion::V1 => VerifyingKey::<Sha1>::new(key).verify(text.as_bytes(), &bytes),
            SignatureVersion::V2 => {
                VerifyingKey::<Sha256>::new(key).verify(text.as_bytes(), &bytes)
            }
        }
        .map_err(|_| VerifyError::Mismatch)
    }
}

/// Why a key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// It is no key of the kind that was asked for.
    #[error("not an RSA key in this form: {reason}")]
    Unreadable {
        /// What the parser says.
        reason: String,
    },
    /// It is too short to protect anything.
    #[error("the key has {bits} bits, fewer than {min}")]
    TooShort {
        /// How many it has.
        bits: usize,
        /// How many it must have.
        min: usize,
    },
    /// Signing failed.
    #[error("cannot sign: {reason}")]
    Sign {
        /// Why.
        reason: String,
    },
}

impl KeyError {
    fn unreadable(error: impl fmt::Display) -> Self {
        Self::Unreadable {
            reason: error.to_string(),
        }
    }
}

/// Why an envelope is not to be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// It is not signed.
    #[error("the envelope has no signature")]
    Unsigned,
    /// Its signature is not base64.
    #[error("the signature is not base64")]
    NotBase64,
    /// Its signature is that of another text or another key.
    #[error("the signature is not that of this text and this key")]
    Mismatch,
}

fn long_enough(bits: usize) -> Result<(), KeyError> {
    if bits < MIN_BITS {
        return Err(KeyError::TooShort {
            bits,
            min: MIN_BITS,
        });
    }
    Ok(())
}

/// The family's seeded numbers, where a library asks for a source of secrets.
struct Seeded(Random);

impl TryRng for Seeded {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok((self.0.next_u64() >> 32) as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.0.next_u64())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for chunk in bytes.chunks_mut(8) {
            let word = self.0.next_u64().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
        Ok(())
    }
}

/// Not true, and why the one constructor that uses it says `insecure`.
impl TryCryptoRng for Seeded {}

#[cfg(test)]
mod tests;
