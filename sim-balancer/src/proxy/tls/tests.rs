use http::HeaderMap;
use rcgen::KeyPair;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, HandshakeKind, SignatureScheme};
use sim_core::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::fixture::{Authority, Issued, clock, config, connect, inline, provider};
use super::resolve::Certificates;
use super::*;

type Client = tokio_rustls::client::TlsStream<DuplexStream>;
type Shaken = (
    Result<TlsStream<DuplexStream>, HandshakeError>,
    io::Result<Client>,
);

async fn shake(acceptor: &TlsAcceptor, client: &Arc<ClientConfig>, name: &str) -> Shaken {
    let (near, far) = duplex(65_536);
    tokio::join!(acceptor.accept(far), connect(client, near, name))
}

/// The certificate that is shown to who asks for `name`, and trusts whatever it gets.
async fn shown(acceptor: &TlsAcceptor, name: &str) -> Vec<u8> {
    let (near, far) = duplex(65_536);
    let (clock, _time) = clock();
    let connector = TlsConnector::new(&TargetTlsConfig::default(), clock).unwrap();
    let (server, client) = tokio::join!(acceptor.accept(far), connector.connect(near, name));
    server.unwrap();
    client.unwrap().peer_certificate().unwrap()
}

fn acceptor(config: &TlsConfig) -> TlsAcceptor {
    TlsAcceptor::new(config, clock().0).unwrap()
}

#[tokio::test]
async fn the_certificate_is_chosen_by_the_name_that_the_client_asks_for() {
    let ca = Authority::new("root");
    let first = ca.server(&["first.example"]);
    let exact = ca.server(&["www.example.com"]);
    let wildcard = ca.server(&["*.example.com"]);
    let acceptor = acceptor(&config(&[&first, &wildcard, &exact]));
    for (name, expected) in [
        ("first.example", &first),
        ("www.example.com", &exact),
        ("WWW.Example.com", &exact),
        ("api.example.com", &wildcard),
        ("a.b.example.com", &first),
        ("example.com", &first),
        ("other.example", &first),
        ("127.0.0.1", &first), // no name is sent for an address
    ] {
        assert_eq!(
            shown(&acceptor, name).await,
            expected.der().as_ref(),
            "{name}"
        );
    }
}

#[tokio::test]
async fn given_names_stand_in_for_those_of_the_certificate() {
    let ca = Authority::new("root");
    let (first, second) = (ca.server(&["a.example"]), ca.server(&["b.example"]));
    let mut config = config(&[&first, &second]);
    config.certificates[1].names = vec!["c.example".to_owned(), "*.D.example".to_owned()];
    let acceptor = acceptor(&config);
    for (name, expected) in [
        ("b.example", &first),
        ("c.example", &second),
        ("x.d.example", &second),
    ] {
        assert_eq!(
            shown(&acceptor, name).await,
            expected.der().as_ref(),
            "{name}"
        );
    }
}

#[test]
fn of_two_certificates_for_a_name_the_client_gets_the_one_that_it_can_check() {
    let ca = Authority::new("root");
    let edwards = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let edwards = ca.server_by(&["a.example"], &edwards);
    let nist = ca.server(&["a.example"]);
    let shown = [edwards.to_show(), nist.to_show()];
    let certificates = Certificates::new(&shown, &provider()).unwrap();
    let found = |schemes: &[SignatureScheme]| {
        let found = certificates.find(Some("a.example"), schemes);
        found.end_entity_cert().unwrap().to_vec()
    };
    assert_eq!(
        found(&[SignatureScheme::ECDSA_NISTP256_SHA256]),
        nist.der().as_ref()
    );
    assert_eq!(
        found(&[
            SignatureScheme::ECDSA_NISTP256_SHA256,
            SignatureScheme::ED25519
        ]),
        edwards.der().as_ref()
    );
}

#[tokio::test]
async fn protocols_are_agreed_on_as_the_policy_has_it() {
    let ca = Authority::new("root");
    let server = ca.server(&["a.example"]);
    let (h1, h2) = (Some(Negotiated::Http1), Some(Negotiated::Http2));
    // What comes out for a client that offers: both, HTTP/1.1 alone, HTTP/2 alone, nothing. `Err`: refused.
    let table = [
        (AlpnPolicy::Http1Only, [Ok(h1), Ok(h1), Err(()), Ok(None)]),
        (AlpnPolicy::Http2Only, [Ok(h2), Err(()), Ok(h2), Ok(None)]),
        (
            AlpnPolicy::Http2Optional,
            [Ok(h1), Ok(h1), Ok(h2), Ok(None)],
        ),
        (
            AlpnPolicy::Http2Preferred,
            [Ok(h2), Ok(h1), Ok(h2), Ok(None)],
        ),
        (AlpnPolicy::None, [Ok(None); 4]),
    ];
    let offers: [&[&str]; 4] = [&["h2", "http/1.1"], &["http/1.1"], &["h2"], &[]];
    for (policy, expected) in table {
        let mut config = config(&[&server]);
        config.alpn = policy;
        let acceptor = acceptor(&config);
        for (offer, expected) in offers.iter().zip(expected) {
            let mut client = ca.trusting_client(None);
            client.alpn_protocols = offer.iter().map(|name| name.as_bytes().to_vec()).collect();
            let (server, _client) = shake(&acceptor, &Arc::new(client), "a.example").await;
            let agreed = server
                .map(|stream| stream.info().protocol)
                .map_err(|error| assert!(matches!(error, HandshakeError::Protocol { .. })));
            assert_eq!(agreed, expected, "{policy:?} with {offer:?}");
        }
    }
}

#[tokio::test]
async fn versions_and_suites_are_those_of_the_policy() {
    let ca = Authority::new("root");
    let server = ca.server(&["a.example"]);
    let client = |version| Arc::new(ca.client_of_version(version));
    for policy in SecurityPolicy::all() {
        let mut config = config(&[&server]);
        config.security_policy = policy;
        let acceptor = acceptor(&config);
        let old = shake(&acceptor, &client(&rustls::version::TLS12), "a.example")
            .await
            .0;
        let new = shake(&acceptor, &client(&rustls::version::TLS13), "a.example")
            .await
            .0;
        assert_eq!(
            old.is_ok(),
            policy != SecurityPolicy::TLS13,
            "{policy} with TLS 1.2"
        );
        assert_eq!(
            new.is_ok(),
            policy.name().contains("TLS13"),
            "{policy} with TLS 1.3"
        );
        if let Ok(stream) = old {
            assert_eq!(stream.info().version, "TLSv1.2");
            assert_eq!(stream.info().cipher, "ECDHE-ECDSA-AES128-GCM-SHA256");
        }
        if let Ok(stream) = new {
            assert_eq!(stream.info().version, "TLSv1.3");
            assert_eq!(stream.info().cipher, "TLS_AES_128_GCM_SHA256");
        }
    }
}

#[test]
fn policies_are_known_by_name() {
    for policy in SecurityPolicy::all() {
        assert_eq!(policy.name().parse(), Ok(policy));
        let json = serde_json::to_string(&policy).unwrap();
        assert_eq!(
            serde_json::from_str::<SecurityPolicy>(&json).unwrap(),
            policy
        );
    }
    for name in [
        "ELBSecurityPolicy-TLS13-1-2-FIPS-2023-04",
        "ELBSecurityPolicy-TLS13-1-2-PQ-2025-09",
    ] {
        assert!(matches!(
            name.parse::<SecurityPolicy>(),
            Err(ParseSecurityPolicyError::Unsupported { .. })
        ));
    }
    assert!(matches!(
        "strong".parse::<SecurityPolicy>(),
        Err(ParseSecurityPolicyError::Unknown { name }) if name == "strong"
    ));
}

/// The outcome of a handshake with a listener that verifies, on the server's side.
async fn verified(
    edit: impl FnOnce(&mut TrustStore),
    ca: &Authority,
    shown: Option<&Issued>,
) -> Result<Arc<TlsInfo>, HandshakeError> {
    let server = ca.server(&["a.example"]);
    let mut store = TrustStore::new(ca.pem());
    edit(&mut store);
    let mut config = config(&[&server]);
    config.mutual = Mutual::Verify(store);
    let client = Arc::new(ca.trusting_client(shown));
    let (server, _client) = shake(&acceptor(&config), &client, "a.example").await;
    server.map(|stream| Arc::clone(stream.info()))
}

fn problem<T>(outcome: Result<T, HandshakeError>) -> CertificateProblem {
    match outcome {
        Err(HandshakeError::Certificate(problem)) => problem,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("accepted"),
    }
}

#[tokio::test]
async fn a_client_is_let_in_by_a_certificate_of_the_trust_store() {
    let ca = Authority::new("root");
    let good = ca.client(0xA5B1, 2026, 2027);
    let info = verified(|_| (), &ca, Some(&good)).await.unwrap();

    let names = MutualHeaders::default();
    let mut headers = HeaderMap::new();
    headers.insert("x-amzn-mtls-clientcert", "forged".parse().unwrap());
    headers.insert("x-amzn-mtls-clientcert-subject", "CN=root".parse().unwrap());
    info.write_mutual_headers(&names, &mut headers);
    let told = |name: &str| {
        headers
            .get(format!("x-amzn-mtls-clientcert{name}"))
            .map(|value| value.to_str().unwrap())
    };
    assert_eq!(told(""), None, "what the client says of itself is removed");
    assert_eq!(told("-serial-number"), Some("A5B1"));
    assert_eq!(told("-subject"), Some("CN=client one,O=Rail\\, Inc.,C=CH"));
    assert_eq!(told("-issuer"), Some("CN=root"));
    assert_eq!(
        told("-validity"),
        Some("NotBefore=2026-01-01T00:00:00Z;NotAfter=2027-01-01T00:00:00Z")
    );
    let leaf = told("-leaf").unwrap();
    assert!(leaf.starts_with("-----BEGIN%20CERTIFICATE-----%0AMII"));
    assert!(leaf.ends_with("%0A-----END%20CERTIFICATE-----%0A"));
    let text = percent_encoding::percent_decode_str(leaf)
        .decode_utf8()
        .unwrap();
    assert_eq!(*text, good.chain.replace("\r\n", "\n"));

    info.write_session_headers(&SessionHeaders::default(), &mut headers);
    assert_eq!(headers["x-amzn-tls-version"], "TLSv1.3");
    assert_eq!(headers["x-amzn-tls-cipher-suite"], "TLS_AES_128_GCM_SHA256");
}

#[tokio::test]
async fn a_client_without_a_certificate_or_with_a_strangers_is_refused() {
    let (ca, stranger) = (Authority::new("root"), Authority::new("root"));
    let refused = verified(|_| (), &ca, None).await.unwrap_err();
    assert!(
        matches!(refused, HandshakeError::NoCertificate),
        "{refused}"
    );
    assert_eq!(refused.code(), "ClientCertRejected");
    let forged = stranger.client(1, 2026, 2027);
    let refused = verified(|_| (), &ca, Some(&forged)).await.unwrap_err();
    assert_eq!(refused.code(), "ClientCertUntrusted");
    let server = ca.server(&["a.example"]);
    // Made for servers and clients alike: rcgen gives it no purpose.
    verified(|_| (), &ca, Some(&server)).await.unwrap();
}

#[tokio::test]
async fn an_expired_certificate_is_refused_unless_expiry_is_ignored() {
    let ca = Authority::new("root");
    let (old, new) = (ca.client(1, 2024, 2025), ca.client(2, 2027, 2028));
    let lenient = |store: &mut TrustStore| store.expired = Expired::Accepted;
    assert_eq!(
        problem(verified(|_| (), &ca, Some(&old)).await),
        CertificateProblem::Expired
    );
    verified(lenient, &ca, Some(&old)).await.unwrap();
    for edit in [|_: &mut TrustStore| (), lenient] {
        assert_eq!(
            problem(verified(edit, &ca, Some(&new)).await),
            CertificateProblem::NotYetValid
        );
    }
    let stranger = Authority::new("other").client(3, 2024, 2025);
    assert!(verified(lenient, &ca, Some(&stranger)).await.is_err());
}

#[tokio::test]
async fn a_revoked_certificate_is_refused_even_if_expiry_is_ignored() {
    let ca = Authority::new("root");
    let list = ca.revoked(&[7, 8]);
    for (serial, from, to) in [(7, 2026, 2027), (8, 2024, 2025)] {
        let client = ca.client(serial, from, to);
        let strict = |store: &mut TrustStore| {
            store.revocations = vec![list.clone()];
            store.expired = Expired::Accepted;
        };
        assert_eq!(
            problem(verified(strict, &ca, Some(&client)).await),
            CertificateProblem::Revoked
        );
    }
    let other = ca.client(9, 2026, 2027);
    let edit = |store: &mut TrustStore| store.revocations = vec![list.clone()];
    verified(edit, &ca, Some(&other)).await.unwrap();
    // As authorities publish it.
    let Pem::Inline(text) = &list else {
        panic!("{list:?}");
    };
    let der = rustls::pki_types::CertificateRevocationListDer::from_pem_slice(text).unwrap();
    let der = Pem::Inline(Bytes::copy_from_slice(der.as_ref()));
    let edit = |store: &mut TrustStore| store.revocations = vec![der];
    let revoked = ca.client(7, 2026, 2027);
    assert_eq!(
        problem(verified(edit, &ca, Some(&revoked)).await),
        CertificateProblem::Revoked
    );
    // A list of another authority says nothing about this one's certificates.
    let foreign = Authority::new("other").revoked(&[9]);
    let edit = |store: &mut TrustStore| store.revocations = vec![foreign];
    verified(edit, &ca, Some(&other)).await.unwrap();
}

#[tokio::test]
async fn a_certificate_expires_while_the_listener_runs() {
    let ca = Authority::new("root");
    let server = ca.server(&["a.example"]);
    let mut config = config(&[&server]);
    config.mutual = Mutual::Verify(TrustStore::new(ca.pem()));
    let (clock, time) = clock();
    let acceptor = TlsAcceptor::new(&config, clock).unwrap();
    let client = ca.client(1, 2026, 2027);
    let client = Arc::new(ca.trusting_client(Some(&client)));
    shake(&acceptor, &client, "a.example").await.0.unwrap();
    time.advance(Duration::from_secs(220 * 86_400));
    assert_eq!(
        problem(shake(&acceptor, &client, "a.example").await.0),
        CertificateProblem::Expired
    );
}

#[tokio::test]
async fn passthrough_tells_of_any_certificate_and_needs_none() {
    let (ca, stranger) = (Authority::new("root"), Authority::new("other"));
    let server = ca.server(&["a.example"]);
    let mut config = config(&[&server]);
    config.mutual = Mutual::Passthrough;
    let acceptor = acceptor(&config);
    let none = Arc::new(ca.trusting_client(None));
    let info = shake(&acceptor, &none, "a.example").await.0.unwrap();
    assert!(info.info().client.is_none());
    let expired = stranger.client(1, 2020, 2021);
    let client = Arc::new(ca.trusting_client(Some(&expired)));
    let stream = shake(&acceptor, &client, "a.example").await.0.unwrap();
    let mut headers = HeaderMap::new();
    let names = MutualHeaders::default();
    stream.info().write_mutual_headers(&names, &mut headers);
    assert_eq!(headers.len(), 1, "the chain alone: {headers:?}");
    assert!(
        headers["x-amzn-mtls-clientcert"]
            .to_str()
            .unwrap()
            .contains("BEGIN%20CERTIFICATE")
    );
}

#[tokio::test]
async fn authorities_are_named_to_clients_only_if_asked_for() {
    let ca = Authority::new("root");
    for (names, expected) in [(CaNames::Hidden, 0), (CaNames::Advertised, 1)] {
        let mut store = TrustStore::new(ca.pem());
        store.names = names;
        let verifier = mutual::verifier(&Mutual::Verify(store), &provider()).unwrap();
        assert_eq!(verifier.root_hint_subjects().len(), expected);
    }
}

/// How a client's second handshake goes.
async fn second_handshake(mutual: Mutual, ca: &Authority) -> HandshakeKind {
    let server = ca.server(&["a.example"]);
    let mut config = config(&[&server]);
    config.mutual = mutual;
    let acceptor = acceptor(&config);
    let client = Arc::new(ca.trusting_client(Some(&ca.client(1, 2026, 2027))));
    let mut kind = None;
    for _ in 0..2 {
        let (server, client) = shake(&acceptor, &client, "a.example").await;
        let (mut server, mut client) = (server.unwrap(), client.unwrap());
        server.write_all(b"x").await.unwrap();
        server.flush().await.unwrap();
        // With the byte come the tickets.
        client.read_u8().await.unwrap();
        kind = client.get_ref().1.handshake_kind();
    }
    kind.unwrap()
}

#[tokio::test]
async fn sessions_are_resumed_unless_client_certificates_are_checked() {
    let ca = Authority::new("root");
    let verify = Mutual::Verify(TrustStore::new(ca.pem()));
    assert_eq!(
        second_handshake(Mutual::Off, &ca).await,
        HandshakeKind::Resumed
    );
    assert_eq!(second_handshake(verify, &ca).await, HandshakeKind::Full);
}

#[tokio::test]
async fn a_reload_changes_the_next_handshake_and_no_open_connection() {
    let ca = Authority::new("root");
    let (old, new) = (ca.server(&["a.example"]), ca.server(&["a.example"]));
    let acceptor = acceptor(&config(&[&old]));
    let client = Arc::new(ca.trusting_client(None));
    let (server, near) = shake(&acceptor, &client, "a.example").await;
    let (mut server, mut near) = (server.unwrap(), near.unwrap());
    acceptor.reload(&config(&[&new])).unwrap();
    assert_eq!(shown(&acceptor, "a.example").await, new.der().as_ref());

    let mut broken = config(&[&old]);
    broken.certificates[0].key = inline("no key");
    acceptor.reload(&broken).unwrap_err();
    assert_eq!(
        shown(&acceptor, "a.example").await,
        new.der().as_ref(),
        "a reload that fails changes nothing"
    );

    near.write_all(b"ping").await.unwrap();
    near.flush().await.unwrap();
    let mut bytes = [0; 4];
    server.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"ping");
}

#[test]
fn settings_that_cannot_be_used_are_told_apart() {
    let ca = Authority::new("root");
    let (one, two) = (ca.server(&["a.example"]), ca.server(&["b.example"]));
    let refused = |edit: &dyn Fn(&mut TlsConfig)| {
        let mut config = config(&[&one]);
        edit(&mut config);
        TlsAcceptor::new(&config, clock().0).unwrap_err()
    };
    let is = |error: TlsError, expected: fn(&TlsError) -> bool| {
        assert!(expected(&error), "{error}");
    };
    is(refused(&|c| c.certificates.clear()), |e| {
        matches!(e, TlsError::NoCertificates)
    });
    is(refused(&|c| c.handshake_timeout = Duration::ZERO), |e| {
        matches!(e, TlsError::Timeout)
    });
    is(refused(&|c| c.certificates[0].chain = inline("")), |e| {
        matches!(
            e,
            TlsError::Empty {
                what: "certificate",
                ..
            }
        )
    });
    is(
        refused(&|c| c.certificates[0].chain = inline(&one.key)),
        |e| {
            matches!(
                e,
                TlsError::Empty {
                    what: "certificate",
                    ..
                }
            )
        },
    );
    is(
        refused(&|c| c.certificates[0].key = inline(&one.chain)),
        |e| matches!(e, TlsError::Empty { .. }),
    );
    is(
        refused(&|c| c.certificates[0].key = inline(&two.key)),
        |e| matches!(e, TlsError::KeyMismatch { .. }),
    );
    is(
        refused(&|c| {
            c.certificates[0].chain =
                inline("-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n");
        }),
        |e| matches!(e, TlsError::Pem { .. }),
    );
    is(
        refused(&|c| {
            c.certificates[0].chain =
                inline("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
        }),
        |e| matches!(e, TlsError::Certificate { .. }),
    );
    is(
        refused(&|c| {
            c.certificates[0].key =
                inline("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
        }),
        |e| matches!(e, TlsError::Key { .. }),
    );
    is(
        refused(&|c| c.certificates[0].key = Pem::File("/nowhere/key.pem".into())),
        |e| matches!(e, TlsError::File { path, .. } if path.ends_with("key.pem")),
    );
    is(
        refused(&|c| c.certificates[0].names = vec!["*.".to_owned()]),
        |e| matches!(e, TlsError::Name { .. }),
    );
    is(
        refused(&|c| c.mutual = Mutual::Verify(TrustStore::new(inline("")))),
        |e| matches!(e, TlsError::Empty { .. }),
    );
    is(
        refused(&|c| {
            let mut store = TrustStore::new(ca.pem());
            store.revocations = vec![inline(
                "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n",
            )];
            c.mutual = Mutual::Verify(store);
        }),
        |e| matches!(e, TlsError::Revocations { .. }),
    );
}

#[test]
fn a_key_is_not_in_the_debug_output() {
    let ca = Authority::new("root");
    let text = format!("{:?}", config(&[&ca.server(&["a.example"])]));
    assert!(!text.contains("PRIVATE KEY"), "{text}");
}

#[tokio::test]
async fn a_handshake_that_trickles_ends_with_the_timeout() {
    let ca = Authority::new("root");
    let (clock, time) = clock();
    let acceptor = TlsAcceptor::new(&config(&[&ca.server(&["a.example"])]), clock).unwrap();
    let (mut near, far) = duplex(64);
    let slow = async {
        // The beginning of a client's first record, of 512 bytes.
        for byte in [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 0] {
            near.write_all(&[byte]).await.unwrap();
            tokio::task::yield_now().await;
            time.advance(Duration::from_secs(1));
        }
    };
    let (accepted, ()) = tokio::join!(acceptor.accept(far), slow);
    assert!(matches!(
        accepted,
        Err(HandshakeError::Timeout { after }) if after == Duration::from_secs(10)
    ));
}

#[tokio::test]
async fn what_is_no_tls_is_refused() {
    let ca = Authority::new("root");
    let acceptor = acceptor(&config(&[&ca.server(&["a.example"])]));
    let (mut near, far) = duplex(4_096);
    near.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    let accepted = acceptor.accept(far).await;
    assert!(matches!(accepted, Err(HandshakeError::Protocol { .. })));
    let (near, far) = duplex(4_096);
    drop(near);
    let accepted = acceptor.accept(far).await;
    assert!(matches!(accepted, Err(HandshakeError::Io(_))));
}

/// The outcome of a handshake of the connector with a server of `names`, by the connector's side.
async fn connected(
    edit: impl FnOnce(&mut TargetTlsConfig),
    ca: &Authority,
    host: &str,
) -> Result<bool, HandshakeError> {
    let acceptor = acceptor(&config(&[&ca.server(&["a.example"])]));
    let mut config = TargetTlsConfig::default();
    edit(&mut config);
    let connector = TlsConnector::new(&config, clock().0).unwrap();
    let (near, far) = duplex(65_536);
    let (_server, client) = tokio::join!(acceptor.accept(far), connector.connect(near, host));
    client.map(|stream| stream.is_http2())
}

#[tokio::test]
async fn targets_are_verified_only_if_asked_for() {
    let (ca, stranger) = (Authority::new("root"), Authority::new("other"));
    let by = |store: Pem| move |config: &mut TargetTlsConfig| config.verify = Verify::Roots(store);
    connected(|_| (), &ca, "10.0.0.1").await.unwrap();
    connected(|_| (), &ca, "[::1]").await.unwrap();
    connected(by(ca.pem()), &ca, "a.example").await.unwrap();
    assert_eq!(
        problem(connected(by(ca.pem()), &ca, "b.example").await),
        CertificateProblem::Name
    );
    assert!(
        connected(by(stranger.pem()), &ca, "a.example")
            .await
            .is_err()
    );
    let named = |config: &mut TargetTlsConfig| {
        config.verify = Verify::Roots(ca.pem());
        config.name = Some("a.example".to_owned());
    };
    connected(named, &ca, "10.0.0.1").await.unwrap();
    assert!(matches!(
        connected(|_| (), &ca, "not a name").await,
        Err(HandshakeError::Name { name }) if name == "not a name"
    ));
}

#[tokio::test]
async fn http2_is_agreed_on_with_targets_that_speak_it() {
    let ca = Authority::new("root");
    let both = |config: &mut TargetTlsConfig| {
        config.protocols = vec![Negotiated::Http2, Negotiated::Http1];
    };
    let one = |config: &mut TargetTlsConfig| config.protocols = vec![Negotiated::Http1];
    assert!(connected(both, &ca, "a.example").await.unwrap());
    assert!(!connected(one, &ca, "a.example").await.unwrap());
}

#[tokio::test]
async fn bytes_pass_over_sockets_in_both_directions_and_end_one_by_one() {
    let ca = Authority::new("root");
    let acceptor = acceptor(&config(&[&ca.server(&["a.example"])]));
    let connector = TlsConnector::new(&TargetTlsConfig::default(), clock().0).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serve = async {
        let (socket, _) = listener.accept().await.unwrap();
        let mut stream = acceptor.accept(socket).await.unwrap();
        let mut received = Vec::new();
        stream.read_to_end(&mut received).await.unwrap();
        stream.write_all(&received).await.unwrap();
        stream.shutdown().await.unwrap();
    };
    let ask = async {
        let socket = tokio::net::TcpStream::connect(address).await.unwrap();
        let mut stream = connector.connect(socket, "a.example").await.unwrap();
        stream.write_all(&[7; 100_000]).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut received = Vec::new();
        stream.read_to_end(&mut received).await.unwrap();
        received
    };
    let ((), received) = tokio::join!(serve, ask);
    assert_eq!(received, vec![7; 100_000]);
}
