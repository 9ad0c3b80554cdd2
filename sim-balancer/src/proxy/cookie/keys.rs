//! The proxy's keys.

use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, URL_SAFE_NO_PAD};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};

use crate::proxy::config::SecretsConfig;

/// Bytes of the key of cookies.
const KEY: usize = 32;

/// The longest text that is opened: four shards of a session.
const LONGEST: usize = 16_384;

/// Padding is read where it is, and not missed where it is not.
const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);

/// The key that seals cookies and the one that signs claims.
///
/// Made once for each proxy, and kept over reloads. The signing key is drawn anew each time.
pub struct Keys {
    sealing: LessSafeKey,
    signing: EcdsaKeyPair,
    signer_id: String,
    random: SystemRandom,
}

impl Keys {
    /// Reads the key of cookies, or draws one from the operating system; draws the one that signs.
    ///
    /// # Errors
    ///
    /// [`KeysError`] when the key or its file cannot be read, or the system gives no randomness.
    pub fn new(secrets: &SecretsConfig) -> Result<Self, KeysError> {
        let text = match (&secrets.cookie_key, &secrets.cookie_key_file) {
            (Some(text), _) => Some(text.clone()),
            (None, Some(path)) => {
                Some(
                    std::fs::read_to_string(path).map_err(|error| KeysError::File {
                        path: path.display().to_string(),
                        error,
                    })?,
                )
            }
            (None, None) => None,
        };
        let random = SystemRandom::new();
        let key = match text {
            Some(text) => read_key(&text)?,
            None => {
                let mut key = [0; KEY];
                random.fill(&mut key).map_err(|_| KeysError::Random)?;
                key
            }
        };
        Self::build(&key, secrets.signer_id.clone(), random)
    }

    fn build(
        key: &[u8; KEY],
        signer_id: Option<String>,
        random: SystemRandom,
    ) -> Result<Self, KeysError> {
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pair =
            EcdsaKeyPair::generate_pkcs8(algorithm, &random).map_err(|_| KeysError::Random)?;
        let signing = EcdsaKeyPair::from_pkcs8(algorithm, pair.as_ref(), &random)
            .map_err(|_| KeysError::Random)?;
        let sealing = UnboundKey::new(&AES_256_GCM, key)
            .map_err(|_| KeysError::Length { bytes: key.len() })?;
        Ok(Self {
            sealing: LessSafeKey::new(sealing),
            signing,
            signer_id: signer_id.unwrap_or_else(|| "sim".to_owned()),
            random,
        })
    }

    /// Encrypts; what is sealed in one context does not open in another. `None` if the system gives no randomness.
    pub(crate) fn seal(&self, context: &str, plain: &[u8]) -> Option<String> {
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).ok()?;
        let mut sealed = Vec::with_capacity(NONCE_LEN + plain.len() + AES_256_GCM.tag_len());
        sealed.extend_from_slice(plain);
        let unique = Nonce::assume_unique_for_key(nonce);
        self.sealing
            .seal_in_place_append_tag(unique, Aad::from(context.as_bytes()), &mut sealed)
            .ok()?;
        sealed.extend_from_slice(&nonce);
        Some(URL_SAFE_NO_PAD.encode(sealed))
    }

    /// Decrypts what was sealed in the same context under the same key.
    pub(crate) fn open(&self, context: &str, text: &str) -> Option<Vec<u8>> {
        if text.len() > LONGEST {
            return None;
        }
        let mut sealed = URL_SAFE_NO_PAD.decode(text).ok()?;
        let nonce = *sealed.last_chunk::<NONCE_LEN>()?;
        sealed.truncate(sealed.len() - NONCE_LEN);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let context = Aad::from(context.as_bytes());
        let length = self
            .sealing
            .open_in_place(nonce, context, &mut sealed)
            .ok()?
            .len();
        sealed.truncate(length);
        Some(sealed)
    }

    /// Unguessable text of 128 bits.
    pub(crate) fn draw(&self) -> Option<String> {
        let mut bits = [0; 16];
        self.random.fill(&mut bits).ok()?;
        Some(URL_SAFE_NO_PAD.encode(bits))
    }

    /// Signs by ES256, as JWTs do: 64 bytes.
    pub(crate) fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        let signature = self.signing.sign(&self.random, message).ok()?;
        Some(signature.as_ref().to_vec())
    }

    /// The name of the signing key, as the `kid` of `x-amzn-oidc-data` tells.
    #[must_use]
    pub fn signer_id(&self) -> &str {
        &self.signer_id
    }

    /// The public half of the signing key: a P-256 point, uncompressed (65 bytes). Targets verify claims with it.
    #[must_use]
    pub fn public_key(&self) -> &[u8] {
        self.signing.public_key().as_ref()
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys")
            .field("signer_id", &self.signer_id)
            .finish_non_exhaustive()
    }
}

fn read_key(text: &str) -> Result<[u8; KEY], KeysError> {
    let text = text.trim();
    let alphabet = if text.contains(['-', '_']) {
        base64::alphabet::URL_SAFE
    } else {
        base64::alphabet::STANDARD
    };
    let bytes = GeneralPurpose::new(&alphabet, LENIENT)
        .decode(text)
        .map_err(|_| KeysError::Text)?;
    let count = bytes.len();
    bytes
        .try_into()
        .map_err(|_| KeysError::Length { bytes: count })
}

/// The keys of [`SecretsConfig`] cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeysError {
    /// The file cannot be read.
    #[error("the file of the cookie key: {path}: {error}")]
    File {
        /// The file.
        path: String,
        /// Why not.
        #[source]
        error: std::io::Error,
    },
    /// The key is not base64.
    #[error("the cookie key is not base64")]
    Text,
    /// The key has another length.
    #[error("the cookie key has {bytes} bytes, not 32")]
    Length {
        /// How long it is.
        bytes: usize,
    },
    /// The operating system gives no randomness.
    #[error("the operating system gives no randomness")]
    Random,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str) -> Result<Keys, KeysError> {
        Keys::new(&SecretsConfig {
            cookie_key: Some(text.to_owned()),
            ..Default::default()
        })
    }

    #[test]
    fn what_is_sealed_opens_in_its_context_under_its_key_only() {
        let key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        let (one, same) = (keys(key).expect("a key"), keys(key).expect("a key"));
        let other = Keys::new(&SecretsConfig::default()).expect("a drawn key");
        let sealed = one.seal("web", b"target").expect("sealed");
        assert_eq!(same.open("web", &sealed).as_deref(), Some(&b"target"[..]));
        assert_eq!(one.open("api", &sealed), None);
        assert_eq!(other.open("web", &sealed), None);
        assert_ne!(one.seal("web", b"target").expect("sealed"), sealed);
    }

    #[test]
    fn a_changed_text_does_not_open() {
        let keys = Keys::new(&SecretsConfig::default()).expect("a drawn key");
        let sealed = keys.seal("web", b"target").expect("sealed");
        for at in 0..sealed.len() {
            let mut changed = sealed.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).expect("text");
            assert_eq!(keys.open("web", &changed), None, "byte {at}");
        }
        for text in ["", "A", "AAAA", &"A".repeat(20_000)] {
            assert_eq!(keys.open("web", text), None);
        }
    }

    #[test]
    fn keys_that_cannot_be_used_are_named() {
        assert!(matches!(keys("AAEC"), Err(KeysError::Length { bytes: 3 })));
        assert!(matches!(keys("!"), Err(KeysError::Text)));
        let missing = Keys::new(&SecretsConfig {
            cookie_key_file: Some("/nonexistent/key".into()),
            ..Default::default()
        });
        assert!(matches!(missing, Err(KeysError::File { .. })));
    }

    #[test]
    fn signatures_verify_with_the_public_key() {
        let keys = Keys::new(&SecretsConfig::default()).expect("a drawn key");
        let signature = keys.sign(b"claims").expect("signed");
        let public = ring::signature::UnparsedPublicKey::new(
            &ring::signature::ECDSA_P256_SHA256_FIXED,
            keys.public_key(),
        );
        assert!(public.verify(b"claims", &signature).is_ok());
        assert!(public.verify(b"other", &signature).is_err());
    }
}
