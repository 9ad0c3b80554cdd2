//! What a handshake told, and the headers that tell it to targets.

use std::fmt::Write as _;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rustls::pki_types::CertificateDer;
use rustls::{CipherSuite, CommonState, ProtocolVersion};
use x509_parser::certificate::X509Certificate;
use x509_parser::time::ASN1Time;
use x509_parser::x509::X509Name;

use super::Mutual;

/// What may stand in a header as it is: letters, digits and, by AWS's documentation, `+`, `=` and `/`.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'+')
    .remove(b'=')
    .remove(b'/');

/// A protocol that both sides agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Negotiated {
    /// HTTP/1.1 or 1.0.
    Http1,
    /// HTTP/2.
    Http2,
}

impl Negotiated {
    fn of(name: &[u8]) -> Option<Self> {
        match name {
            b"h2" => Some(Self::Http2),
            b"http/1.1" | b"http/1.0" => Some(Self::Http1),
            _ => None,
        }
    }

    /// Its name in ALPN.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Http1 => "http/1.1",
            Self::Http2 => "h2",
        }
    }
}

/// What the handshake of a client's connection told.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TlsInfo {
    /// The version: `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// The cipher suite, by OpenSSL's name.
    pub cipher: &'static str,
    /// The name that the client asked for, in lower case.
    pub server_name: Option<String>,
    /// The protocol that was agreed on, if any was.
    pub protocol: Option<Negotiated>,
    /// The certificate that the client showed.
    pub client: Option<ClientCertificate>,
}

impl TlsInfo {
    pub(super) fn of(connection: &rustls::ServerConnection, mutual: Told) -> Self {
        let client = match mutual {
            Told::Nothing => None,
            Told::Chain | Told::Fields => connection
                .peer_certificates()
                .and_then(|chain| ClientCertificate::of(chain, mutual)),
        };
        Self {
            version: version(connection),
            cipher: cipher(connection),
            server_name: connection.server_name().map(str::to_ascii_lowercase),
            protocol: connection.alpn_protocol().and_then(Negotiated::of),
            client,
        }
    }

    /// Whether HTTP/2 was agreed on.
    #[must_use]
    pub fn is_http2(&self) -> bool {
        self.protocol == Some(Negotiated::Http2)
    }

    /// Sets the headers that tell of the client's certificate, and removes what the client sent under their names.
    ///
    /// With [`Mutual::Passthrough`] that is the whole chain, with [`Mutual::Verify`] the fields of the client's certificate
    /// and itself.
    pub fn write_mutual_headers(&self, names: &MutualHeaders, headers: &mut HeaderMap) {
        names.strip(headers);
        let Some(client) = &self.client else {
            return;
        };
        for (name, value) in [
            (&names.certificate, &client.chain),
            (&names.serial_number, &client.serial_number),
            (&names.issuer, &client.issuer),
            (&names.subject, &client.subject),
            (&names.validity, &client.validity),
            (&names.leaf, &client.leaf),
        ] {
            if let Some(value) = value {
                headers.insert(name.clone(), value.clone());
            }
        }
    }

    /// Sets the headers that tell version and cipher suite, over what the client sent under their names.
    pub fn write_session_headers(&self, names: &SessionHeaders, headers: &mut HeaderMap) {
        headers.insert(
            names.version.clone(),
            HeaderValue::from_static(self.version),
        );
        headers.insert(names.cipher.clone(), HeaderValue::from_static(self.cipher));
    }
}

/// How much of a client's certificate targets are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    Nothing,
    Chain,
    Fields,
}

impl From<&Mutual> for Told {
    fn from(mutual: &Mutual) -> Self {
        match mutual {
            Mutual::Off => Self::Nothing,
            Mutual::Passthrough => Self::Chain,
            Mutual::Verify(_) => Self::Fields,
        }
    }
}

/// The certificate that a client showed, as targets are told of it. Made once a connection.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ClientCertificate {
    /// The chain in PEM, percent-encoded; with [`Mutual::Passthrough`] alone.
    pub chain: Option<HeaderValue>,
    /// The serial number in hexadecimal; this and what follows with [`Mutual::Verify`] alone.
    pub serial_number: Option<HeaderValue>,
    /// The issuer's distinguished name, as RFC 2253 writes it.
    pub issuer: Option<HeaderValue>,
    /// The subject's.
    pub subject: Option<HeaderValue>,
    /// From when to when it is valid: `NotBefore=2026-01-01T00:00:00Z;NotAfter=2027-01-01T00:00:00Z`.
    pub validity: Option<HeaderValue>,
    /// The certificate in PEM, percent-encoded.
    pub leaf: Option<HeaderValue>,
}

impl ClientCertificate {
    fn of(chain: &[CertificateDer<'_>], told: Told) -> Option<Self> {
        let leaf = chain.first()?;
        if told == Told::Chain {
            return Some(Self {
                chain: Some(encoded(chain)),
                serial_number: None,
                issuer: None,
                subject: None,
                validity: None,
                leaf: None,
            });
        }
        let (_, fields) = x509_parser::parse_x509_certificate(leaf).ok()?;
        Some(Self {
            chain: None,
            serial_number: value(&serial_number(&fields)),
            issuer: value(&distinguished_name(fields.issuer())),
            subject: value(&distinguished_name(fields.subject())),
            validity: value(&format!(
                "NotBefore={};NotAfter={}",
                time(fields.validity().not_before),
                time(fields.validity().not_after)
            )),
            leaf: Some(encoded(std::slice::from_ref(leaf))),
        })
    }
}

/// Names of the headers that tell of a client's certificate. Default: AWS's, `x-amzn-mtls-clientcert...`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MutualHeaders {
    /// The whole chain.
    pub certificate: HeaderName,
    /// The serial number.
    pub serial_number: HeaderName,
    /// The issuer.
    pub issuer: HeaderName,
    /// The subject.
    pub subject: HeaderName,
    /// The validity.
    pub validity: HeaderName,
    /// The client's own certificate.
    pub leaf: HeaderName,
}

impl MutualHeaders {
    /// Removes the headers: what a client says of itself is worth nothing.
    pub fn strip(&self, headers: &mut HeaderMap) {
        for name in [
            &self.certificate,
            &self.serial_number,
            &self.issuer,
            &self.subject,
            &self.validity,
            &self.leaf,
        ] {
            headers.remove(name);
        }
    }
}

impl Default for MutualHeaders {
    fn default() -> Self {
        Self {
            certificate: HeaderName::from_static("x-amzn-mtls-clientcert"),
            serial_number: HeaderName::from_static("x-amzn-mtls-clientcert-serial-number"),
            issuer: HeaderName::from_static("x-amzn-mtls-clientcert-issuer"),
            subject: HeaderName::from_static("x-amzn-mtls-clientcert-subject"),
            validity: HeaderName::from_static("x-amzn-mtls-clientcert-validity"),
            leaf: HeaderName::from_static("x-amzn-mtls-clientcert-leaf"),
        }
    }
}

/// Names of the headers that tell version and cipher suite. Default: AWS's, `x-amzn-tls-version` and
/// `x-amzn-tls-cipher-suite`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionHeaders {
    /// The version.
    pub version: HeaderName,
    /// The cipher suite.
    pub cipher: HeaderName,
}

impl SessionHeaders {
    /// Removes the headers, for a connection without TLS.
    pub fn strip(&self, headers: &mut HeaderMap) {
        headers.remove(&self.version);
        headers.remove(&self.cipher);
    }
}

impl Default for SessionHeaders {
    fn default() -> Self {
        Self {
            version: HeaderName::from_static("x-amzn-tls-version"),
            cipher: HeaderName::from_static("x-amzn-tls-cipher-suite"),
        }
    }
}

fn version(connection: &CommonState) -> &'static str {
    match connection.protocol_version() {
        Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
        Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
        _ => "-",
    }
}

fn cipher(connection: &CommonState) -> &'static str {
    let suite = connection
        .negotiated_cipher_suite()
        .map(|suite| suite.suite());
    match suite {
        Some(CipherSuite::TLS13_AES_128_GCM_SHA256) => "TLS_AES_128_GCM_SHA256",
        Some(CipherSuite::TLS13_AES_256_GCM_SHA384) => "TLS_AES_256_GCM_SHA384",
        Some(CipherSuite::TLS13_CHACHA20_POLY1305_SHA256) => "TLS_CHACHA20_POLY1305_SHA256",
        Some(CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256) => {
            "ECDHE-ECDSA-AES128-GCM-SHA256"
        }
        Some(CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256) => "ECDHE-RSA-AES128-GCM-SHA256",
        Some(CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384) => {
            "ECDHE-ECDSA-AES256-GCM-SHA384"
        }
        Some(CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384) => "ECDHE-RSA-AES256-GCM-SHA384",
        _ => "-",
    }
}

/// Nothing that comes here has a control character in it; what had would not be told.
fn value(text: &str) -> Option<HeaderValue> {
    HeaderValue::from_str(text).ok()
}

fn serial_number(certificate: &X509Certificate<'_>) -> String {
    let bytes = certificate.raw_serial();
    // The sign, where the number itself begins with a one.
    let bytes = match bytes {
        [0, rest @ ..] if !rest.is_empty() => rest,
        all => all,
    };
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _never_fails = write!(text, "{byte:02X}");
        text
    })
}

/// A distinguished name as RFC 2253 writes it: the last part first, special characters escaped.
fn distinguished_name(name: &X509Name<'_>) -> String {
    let mut parts: Vec<String> = name
        .iter_rdn()
        .map(|part| {
            let of_part: Vec<String> = part
                .iter()
                .map(|attribute| {
                    let oid = attribute.attr_type().to_id_string();
                    let written = short_name(&oid).and_then(|kind| {
                        let text = attribute.as_str().ok()?;
                        Some(format!("{kind}={}", escaped(text)))
                    });
                    written.unwrap_or_else(|| {
                        let value = attribute.as_slice().iter();
                        value.fold(format!("{oid}=#"), |mut text, byte| {
                            let _never_fails = write!(text, "{byte:02x}");
                            text
                        })
                    })
                })
                .collect();
            of_part.join("+")
        })
        .collect();
    parts.reverse();
    parts.join(",")
}

/// The keywords of RFC 2253.
fn short_name(oid: &str) -> Option<&'static str> {
    Some(match oid {
        "2.5.4.3" => "CN",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "STREET",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "0.9.2342.19200300.100.1.1" => "UID",
        "0.9.2342.19200300.100.1.25" => "DC",
        "1.2.840.113549.1.9.1" => "emailAddress",
        _ => return None,
    })
}

fn escaped(text: &str) -> String {
    let last = text.chars().count().saturating_sub(1);
    let mut out = String::with_capacity(text.len());
    for (at, c) in text.chars().enumerate() {
        let is_edge = (at == 0 && matches!(c, ' ' | '#')) || (at == last && c == ' ');
        if is_edge || matches!(c, ',' | '+' | '"' | '\\' | '<' | '>' | ';') {
            out.push('\\');
            out.push(c);
        } else if c.is_ascii_graphic() || c == ' ' {
            out.push(c);
        } else {
            for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                let _never_fails = write!(out, "\\{byte:02X}");
            }
        }
    }
    out
}

fn time(time: ASN1Time) -> String {
    let time = time.to_datetime();
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
        time.year(),
        u8::from(time.month()),
        time.day(),
        time.hour(),
        time.minute(),
        time.second()
    )
}

/// Certificates in PEM, percent-encoded.
fn encoded(chain: &[CertificateDer<'_>]) -> HeaderValue {
    let mut text = String::new();
    for certificate in chain {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        base64_lines(certificate, &mut text);
        text.push_str("-----END CERTIFICATE-----\n");
    }
    let text = utf8_percent_encode(&text, ESCAPED).to_string();
    HeaderValue::try_from(text).expect("percent-encoded text is visible ASCII")
}

/// Base64 in lines of 64 characters.
fn base64_lines(bytes: &[u8], text: &mut String) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for line in bytes.chunks(48) {
        for group in line.chunks(3) {
            let at = |index: usize| u32::from(group.get(index).copied().unwrap_or(0));
            let bits = (at(0) << 16) | (at(1) << 8) | at(2);
            for digit in 0..4 {
                if digit <= group.len() {
                    let index = (bits >> (18 - 6 * digit)) & 63;
                    text.push(char::from(ALPHABET[index as usize]));
                } else {
                    text.push('=');
                }
            }
        }
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rustls::pki_types::pem::PemObject;

    use super::*;

    #[test]
    fn special_characters_of_names_are_escaped() {
        assert_eq!(
            escaped(" #a, b+c\"d\\<e>;f "),
            "\\ #a\\, b\\+c\\\"d\\\\\\<e\\>\\;f\\ "
        );
        assert_eq!(escaped("#a"), "\\#a");
        assert_eq!(escaped("Zürich\r\nX: y"), "Z\\C3\\BCrich\\0D\\0AX: y");
        assert_eq!(escaped(""), "");
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_the_certificate(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let value = encoded(&[CertificateDer::from(bytes.clone())]);
            let text = percent_encoding::percent_decode(value.as_bytes()).collect::<Vec<u8>>();
            prop_assert!(String::from_utf8_lossy(&text).lines().all(|line| line.len() <= 64));
            let read = CertificateDer::from_pem_slice(&text).unwrap();
            prop_assert_eq!(read.as_ref(), bytes.as_slice());
        }
    }
}
