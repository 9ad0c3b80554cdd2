use std::io::Write as _;
use std::process::{Command, Stdio};

use rsa::pkcs8::DecodePublicKey as _;
use rustls::crypto::ring;

use super::*;

const KEY: &str = include_str!("../../../tests/data/signing.key.pem");
const CERTIFICATE: &str = include_str!("../../../tests/data/signing.pem");
const SHORT: &str = include_str!("../../../tests/data/short.key.pem");
const VERSIONS: [SignatureVersion; 2] = [SignatureVersion::V1, SignatureVersion::V2];

fn envelope() -> Envelope {
    Envelope::parse(
        br#"{"Type":"Notification","MessageId":"1","TopicArn":"orders","Message":"order 7",
            "Timestamp":"2026-01-01T12:00:00.000Z"}"#,
    )
    .unwrap()
}

fn signed(version: SignatureVersion) -> Envelope {
    let signer = Signer::from_pkcs8_pem(KEY, version, "https://sns.example/cert.pem").unwrap();
    let mut envelope = envelope();
    signer.sign(&mut envelope).unwrap();
    envelope
}

fn bytes(envelope: &Envelope) -> Vec<u8> {
    base64::decode(&envelope.signature.as_ref().unwrap().value).unwrap()
}

#[test]
fn signatures_are_those_that_openssl_makes() {
    let made = [
        include_str!("../../../tests/data/signature-1.txt"),
        include_str!("../../../tests/data/signature-2.txt"),
    ];
    for (version, made) in VERSIONS.into_iter().zip(made) {
        let signature = signed(version).signature.unwrap();
        assert_eq!(signature.value, made);
        assert_eq!(signature.version, version);
        assert_eq!(signature.cert_url, "https://sns.example/cert.pem");
    }
}

#[test]
fn the_certificate_and_the_public_key_verify_what_the_private_key_signed() {
    let by_certificate = Verifier::from_certificate_pem(CERTIFICATE).unwrap();
    let signer = Signer::from_pkcs8_pem(KEY, SignatureVersion::V1, "").unwrap();
    let pem = signer.verifier().public_key_pem().unwrap();
    let by_key = Verifier::from_public_key_pem(&pem).unwrap();
    assert_eq!(by_certificate, by_key);
    for version in VERSIONS {
        let envelope = signed(version);
        // Over the wire and back.
        let received = Envelope::parse(envelope.to_json().as_bytes()).unwrap();
        assert_eq!(by_certificate.verify(&received), Ok(()));
    }
}

#[test]
fn ring_verifies_what_was_signed() {
    let public = PublicKey::from_public_key_pem(
        &Verifier::from_certificate_pem(CERTIFICATE)
            .unwrap()
            .public_key_pem()
            .unwrap(),
    )
    .unwrap();
    let public = rsa::pkcs1::EncodeRsaPublicKey::to_pkcs1_der(&public).unwrap();
    let envelope = signed(SignatureVersion::V2);
    let accepts = |text: &str| {
        let algorithms = ring::default_provider().signature_verification_algorithms;
        algorithms.all.iter().any(|algorithm| {
            algorithm.public_key_alg_id() == rustls::pki_types::alg_id::RSA_ENCRYPTION
                && algorithm.signature_alg_id() == rustls::pki_types::alg_id::RSA_PKCS1_SHA256
                && algorithm
                    .verify_signature(public.as_bytes(), text.as_bytes(), &bytes(&envelope))
                    .is_ok()
        })
    };
    assert!(accepts(&envelope.string_to_sign()));
    assert!(!accepts(&format!("{} ", envelope.string_to_sign())));
}

/// Where there is an `openssl` command, it is asked too: with a key that it has never seen.
#[test]
fn openssl_verifies_what_was_signed() {
    if Command::new("openssl").arg("version").output().is_err() {
        return;
    }
    for (version, digest) in VERSIONS.into_iter().zip(["-sha1", "-sha256"]) {
        let signer = Signer::insecure_from_seed(5, version, "").unwrap();
        let mut envelope = envelope();
        signer.sign(&mut envelope).unwrap();
        let folder =
            std::env::temp_dir().join(format!("sim-topic-sign-{}-{version}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (key, signature) = (folder.join("key.pem"), folder.join("signature"));
        std::fs::write(&key, signer.verifier().public_key_pem().unwrap()).unwrap();
        std::fs::write(&signature, bytes(&envelope)).unwrap();
        let accepts = |text: &str| {
            let mut openssl = Command::new("openssl")
                .args(["dgst", digest, "-verify"])
                .arg(&key)
                .arg("-signature")
                .arg(&signature)
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            openssl
                .stdin
                .take()
                .unwrap()
                .write_all(text.as_bytes())
                .unwrap();
            openssl.wait().unwrap().success()
        };
        assert!(accepts(&envelope.string_to_sign()));
        assert!(!accepts("something else"));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}

#[test]
fn what_is_changed_unsigned_or_signed_by_another_is_not_believed() {
    let verifier = Verifier::from_certificate_pem(CERTIFICATE).unwrap();
    assert_eq!(verifier.verify(&envelope()), Err(VerifyError::Unsigned));
    for version in VERSIONS {
        let good = signed(version);
        let changes: [fn(&mut Envelope); 5] = [
            |envelope| envelope.message.push('!'),
            |envelope| envelope.topic_arn.push('!'),
            |envelope| envelope.message_id.push('!'),
            |envelope| envelope.timestamp = sim_core::time::Timestamp::UNIX_EPOCH,
            |envelope| {
                let version = &mut envelope.signature.as_mut().unwrap().version;
                *version = match version {
                    SignatureVersion::V1 => SignatureVersion::V2,
                    SignatureVersion::V2 => SignatureVersion::V1,
                };
            },
        ];
        for change in changes {
            let mut changed = good.clone();
            change(&mut changed);
            assert_eq!(verifier.verify(&changed), Err(VerifyError::Mismatch));
        }
        let mut broken = good.clone();
        broken.signature.as_mut().unwrap().value = "?".to_owned();
        assert_eq!(verifier.verify(&broken), Err(VerifyError::NotBase64));
        broken.signature.as_mut().unwrap().value = "AAAA".to_owned();
        assert_eq!(verifier.verify(&broken), Err(VerifyError::Mismatch));
        let other = Signer::insecure_from_seed(6, version, "").unwrap();
        assert_eq!(other.verifier().verify(&good), Err(VerifyError::Mismatch));
    }
}

#[test]
fn the_same_seed_makes_the_same_key() {
    let key = |seed| {
        let signer = Signer::insecure_from_seed(seed, SignatureVersion::V2, "").unwrap();
        signer.verifier()
    };
    assert_eq!(key(1), key(1));
    assert_ne!(key(1), key(2));
}

#[test]
fn a_key_that_is_none_or_is_too_short_is_refused() {
    let short = Signer::from_pkcs8_pem(SHORT, SignatureVersion::V2, "").map(|_| ());
    assert_eq!(
        short,
        Err(KeyError::TooShort {
            bits: 1_024,
            min: 2_048
        })
    );
    for result in [
        Signer::from_pkcs8_pem("", SignatureVersion::V2, "").map(|_| ()),
        Signer::from_pkcs8_pem(CERTIFICATE, SignatureVersion::V2, "").map(|_| ()),
        Signer::from_pkcs8_der(b"x", SignatureVersion::V2, "").map(|_| ()),
        Verifier::from_public_key_pem(CERTIFICATE).map(|_| ()),
        Verifier::from_certificate_pem(KEY).map(|_| ()),
        // An elliptic curve's certificate.
        Verifier::from_certificate_pem(include_str!("../../../tests/data/tls-ca.pem")).map(|_| ()),
    ] {
        assert!(
            matches!(result, Err(KeyError::Unreadable { .. })),
            "{result:?}"
        );
    }
    let signer = Signer::from_pkcs8_pem(KEY, SignatureVersion::V2, "").unwrap();
    assert!(!format!("{signer:?}").contains("key"));
}
