use sim_core::attributes::Attributes;
use sim_core::clock::VirtualClock;
use sim_core::sync::Arc;
use sim_core::time::Timestamp;

use self::server::{OTHER, Reply, Seen, Server, babble};
use super::*;
use crate::envelope::tests::{notification, request};
use crate::envelope::{EnvelopeKind, SignatureVersion};
use crate::message::Headers;

mod server;

/// Within the dates of the tests' certificates.
fn start() -> Timestamp {
    "2026-01-01T12:00:00Z".parse().unwrap()
}

/// An endpoint, and the clock that it goes by.
fn endpoint(config: HttpConfig) -> (Arc<HttpEndpoint>, VirtualClock) {
    let (clock, time) = Clock::virtual_at(start());
    (Arc::new(HttpEndpoint::new(config, clock).unwrap()), time)
}

fn message(value: &'static [u8]) -> Delivery<Payload> {
    Delivery::Notification(notification(value, Headers::default(), false))
}

/// What an error says, with the kind before it.
fn told(outcome: Result<(), DeliveryError>) -> String {
    outcome.map_or_else(|error| error.to_string(), |()| "delivered".to_owned())
}

async fn deliver(config: HttpConfig, delivery: Delivery<Payload>) -> Result<(), DeliveryError> {
    let (endpoint, _time) = endpoint(config);
    endpoint.handle(delivery).await
}

/// Delivers to a server that answers so, and gives what arrived.
async fn arrives(change: impl FnOnce(&mut HttpConfig), delivery: Delivery<Payload>) -> Seen {
    let mut server = Server::start([Reply::Status(200)]).await;
    let mut config = HttpConfig::new(server.url("/hook?x=1"));
    change(&mut config);
    deliver(config, delivery).await.unwrap();
    server.seen.recv().await.unwrap()
}

#[tokio::test]
async fn a_message_arrives_as_a_post_with_an_envelope_and_headers() {
    let headers = Headers {
        subject: Some("S".into()),
        ..Headers::default()
    };
    let notification = notification("héllo".as_bytes(), headers, false);
    let id = notification.id().to_string();
    let seen = arrives(|_| {}, Delivery::Notification(notification)).await;
    assert_eq!((&*seen.method, &*seen.path), ("POST", "/hook?x=1"));
    for (name, value) in [
        ("x-amz-sns-message-type", "Notification"),
        ("x-amz-sns-message-id", &*id),
        ("x-amz-sns-topic-arn", "MyTopic"),
        ("x-amz-sns-subscription-arn", "MyTopic:sub-0000000000000003"),
        ("content-type", "text/plain; charset=UTF-8"),
        (
            "user-agent",
            concat!("sim-topic/", env!("CARGO_PKG_VERSION")),
        ),
        ("content-length", &*seen.body.len().to_string()),
    ] {
        assert_eq!(seen.header(name), Some(value), "{name}");
    }
    assert!(seen.header("host").unwrap().starts_with("127.0.0.1:"));
    assert_eq!(seen.header("x-amz-sns-rawdelivery"), None);
    assert_eq!(seen.header("authorization"), None);
    let envelope = Envelope::parse(&seen.body).unwrap();
    assert_eq!(
        (&*envelope.message, envelope.subject()),
        ("héllo", Some("S"))
    );
    assert_eq!(envelope.message_id, id);
    assert_eq!(envelope.signature, None);
}

#[tokio::test]
async fn raw_delivery_is_the_bytes_alone() {
    let mut attributes = Attributes::new();
    attributes.insert("a", "b").unwrap();
    let headers = Headers {
        attributes,
        ..Headers::default()
    };
    let delivery = Delivery::Notification(notification(b"\x00\xff raw", headers, false));
    let seen = arrives(|config| config.body = HttpBody::Raw, delivery).await;
    assert_eq!(seen.body, &b"\x00\xff raw"[..]);
    assert_eq!(seen.header("x-amz-sns-rawdelivery"), Some("true"));
    assert_eq!(seen.header("x-amz-sns-message-type"), Some("Notification"));
}

#[tokio::test]
async fn a_message_that_is_no_text_is_a_clients_error_unless_it_is_raw() {
    let server = Server::start([Reply::Status(200)]).await;
    let outcome = deliver(HttpConfig::new(server.url("/")), message(b"\xff")).await;
    assert!(matches!(outcome, Err(DeliveryError::Client { .. })));
    assert!(told(outcome).ends_with("is not UTF-8 from byte 0 on, and an envelope holds text"));
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn a_confirmation_brings_the_token_and_is_never_raw() {
    let change = |config: &mut HttpConfig| {
        config.body = HttpBody::Raw;
        config.naming.service_url = "https://sns.example".to_owned();
    };
    let seen = arrives(change, Delivery::Confirmation(request())).await;
    assert_eq!(
        seen.header("x-amz-sns-message-type"),
        Some("SubscriptionConfirmation")
    );
    assert_eq!(seen.header("x-amz-sns-subscription-arn"), None);
    assert_eq!(seen.header("x-amz-sns-rawdelivery"), None);
    let envelope = Envelope::parse(&seen.body).unwrap();
    let EnvelopeKind::SubscriptionConfirmation(confirmation) = envelope.kind else {
        panic!("{envelope:?}");
    };
    assert_eq!(confirmation.token, "a".repeat(64));
    assert!(
        confirmation
            .subscribe_url
            .starts_with("https://sns.example/?Action=ConfirmSubscription&")
    );

    let seen = arrives(change, Delivery::Unsubscribed(request())).await;
    assert_eq!(
        seen.header("x-amz-sns-message-type"),
        Some("UnsubscribeConfirmation")
    );
    assert_eq!(
        seen.header("x-amz-sns-subscription-arn"),
        Some("MyTopic:sub-0000000000000003")
    );
}

#[tokio::test]
async fn credentials_headers_and_content_type_are_sent() {
    let change = |config: &mut HttpConfig| {
        config.url = config.url.replace("http://", "http://me:se%20cret@");
        config.headers = vec![
            ("X-One".to_owned(), "1".to_owned()),
            ("x-many".to_owned(), "a".to_owned()),
            ("x-many".to_owned(), "b".to_owned()),
        ];
        config.content_type = ContentType::new("application/json").unwrap();
        config.naming.topic_arn = Some("arn:aws:sns:r:1:t".to_owned());
    };
    let seen = arrives(change, message(b"m")).await;
    // base64 of "me:se cret".
    assert_eq!(seen.header("authorization"), Some("Basic bWU6c2UgY3JldA=="));
    assert_eq!(seen.header("x-one"), Some("1"));
    assert_eq!(seen.headers.get_all("x-many").iter().count(), 2);
    assert_eq!(seen.header("content-type"), Some("application/json"));
    assert_eq!(
        seen.header("x-amz-sns-topic-arn"),
        Some("arn:aws:sns:r:1:t")
    );
}

#[tokio::test]
async fn the_status_decides_who_is_to_blame() {
    let (delivered, client, server_error) = ("delivered", "client error", "server error");
    for (status, verdict) in [
        (200, delivered),
        (201, delivered),
        (202, delivered),
        (204, delivered),
        (299, delivered),
        (301, client),
        (302, client),
        (304, client),
        (307, client),
        (400, client),
        (401, client),
        (403, client),
        (404, client),
        (408, client),
        (410, client),
        (499, client),
        (429, server_error),
        (500, server_error),
        (502, server_error),
        (503, server_error),
        (599, server_error),
        (600, client),
        (999, client),
    ] {
        let server = Server::start([Reply::Status(status)]).await;
        let outcome = deliver(HttpConfig::new(server.url("/")), message(b"m")).await;
        assert_eq!(told(outcome).split(':').next(), Some(verdict), "{status}");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let mut other = Server::start([Reply::Status(200)]).await;
    let headers = vec![("location", other.url("/elsewhere"))];
    let server = Server::start([Reply::With(302, headers, Bytes::new())]).await;
    let outcome = deliver(HttpConfig::new(server.url("/here")), message(b"m")).await;
    assert_eq!(
        told(outcome),
        format!("client error: {}: answered 302 Found", server.url("/here"))
    );
    assert!(other.seen.try_recv().is_err());
}

#[tokio::test]
async fn an_answer_may_ask_for_time() {
    for (status, text, expected) in [
        (503, "7", Some(7)),
        (429, " 60 ", Some(60)),
        (503, "999999", Some(3_600)),
        (503, "Wed, 21 Oct 2026 07:28:00 GMT", None),
        (503, "-1", None),
    ] {
        let reply = Reply::With(status, vec![("retry-after", text.to_owned())], Bytes::new());
        let server = Server::start([reply]).await;
        let outcome = deliver(HttpConfig::new(server.url("/")), message(b"m")).await;
        let Err(DeliveryError::Server { retry_after, .. }) = outcome else {
            panic!("{outcome:?}");
        };
        assert_eq!(retry_after, expected.map(Duration::from_secs), "{text}");
    }
}

#[tokio::test]
async fn an_error_tells_what_the_server_said_on_one_line_and_not_at_length() {
    let body = Bytes::from(format!("no\nroom\u{7} {}", "x".repeat(1_000)));
    let server = Server::start([Reply::With(500, vec![], body)]).await;
    let config = HttpConfig::new(server.url("/").replace("http://", "http://me:secret@"));
    let said = told(deliver(config, message(b"m")).await);
    let expected = format!(
        "server error: {}: answered 500 Internal Server Error: no room  xxx",
        server.url("/")
    );
    assert!(said.starts_with(&expected), "{said}");
    assert!(said.len() < expected.len() + SHOWN_BYTES && !said.contains("secret"));
}

/// Lets every task come to rest.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_slow_server_has_fifteen_seconds_by_the_clock() {
    for (reply, verdict) in [
        (Reply::Never, "server error: URL: no answer within 15s"),
        (Reply::HeadOnly(200), "delivered"),
        (
            Reply::HeadOnly(404),
            "client error: URL: answered 404 Not Found",
        ),
    ] {
        let mut server = Server::start([reply]).await;
        let (endpoint, time) = endpoint(HttpConfig::new(server.url("/")));
        let task = tokio::spawn(async move { endpoint.handle(message(b"m")).await });
        // It waits for nothing but the answer now.
        server.seen.recv().await.unwrap();
        time.advance(Duration::from_millis(14_999));
        settle().await;
        assert!(!task.is_finished());
        time.advance(Duration::from_millis(1));
        let outcome = task.await.unwrap();
        assert_eq!(told(outcome), verdict.replace("URL", &server.url("/")));
    }
}

#[tokio::test]
async fn a_server_that_never_accepts_tls_has_the_same_time() {
    // It takes connections and says nothing.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/", listener.local_addr().unwrap());
    let (endpoint, time) = endpoint(HttpConfig {
        timeout: Duration::from_secs(3),
        ..trusting(&url)
    });
    let task = tokio::spawn(async move { endpoint.handle(message(b"m")).await });
    let _socket = listener.accept().await.unwrap();
    time.advance(Duration::from_secs(3));
    assert_eq!(
        told(task.await.unwrap()),
        format!("server error: {url}: no answer within 3s")
    );
}

#[tokio::test]
async fn nobody_listening_is_a_servers_error() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let said = told(deliver(HttpConfig::new(&url), message(b"m")).await);
    assert!(
        said.starts_with(&format!("server error: {url}: cannot connect: ")),
        "{said}"
    );
}

#[tokio::test]
async fn an_answer_that_is_none_is_a_servers_error() {
    let huge_head = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(200_000));
    let many_headers = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(1_000));
    for bytes in [
        "",
        "\r\n",
        "hello?\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1, 2\r\n\r\nx",
        "HTTP/1.1 200 OK\r\ncontent-le",
        "HTTP/9.9 200 OK\r\n\r\n",
        "SSH-2.0-OpenSSH_9.6\r\n",
        &huge_head,
        &many_headers,
    ] {
        let address = babble(bytes).await;
        let outcome = deliver(HttpConfig::new(format!("http://{address}/")), message(b"m")).await;
        assert!(
            matches!(outcome, Err(DeliveryError::Server { .. })),
            "{bytes:.40}: {outcome:?}"
        );
    }
}

#[tokio::test]
async fn once_the_status_is_said_a_broken_body_changes_nothing() {
    for (bytes, verdict) in [
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort",
            "delivered",
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
            "delivered",
        ),
        ("HTTP/1.1 200 OK\r\n\r\nuntil the end", "delivered"),
        ("HTTP/1.0 404 Gone\r\n\r\n", "client error"),
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
            "delivered",
        ),
    ] {
        let address = babble(bytes).await;
        let (endpoint, _time) = endpoint(HttpConfig::new(format!("http://{address}/")));
        let outcome = endpoint.handle(message(b"m")).await;
        assert_eq!(told(outcome).split(':').next(), Some(verdict), "{bytes}");
    }
}

#[tokio::test]
async fn of_a_large_answer_no_more_than_the_limit_is_read() {
    let announced = Reply::With(200, vec![], Bytes::from(vec![b'x'; 100_000]));
    for (reply, verdict) in [
        (announced, "delivered"),
        (Reply::Chunks(200, usize::MAX), "delivered"),
        (Reply::Chunks(503, usize::MAX), "server error"),
    ] {
        let server = Server::start([reply]).await;
        let (endpoint, _time) = endpoint(HttpConfig::new(server.url("/")));
        let outcome = endpoint.handle(message(b"m")).await;
        assert_eq!(told(outcome).split(':').next(), Some(verdict));
        // What is left of the answer would be taken for the next one.
        assert_eq!(endpoint.idle_connections(), 0);
    }
    let server = Server::start([Reply::Chunks(200, 64)]).await;
    let (endpoint, _time) = endpoint(HttpConfig::new(server.url("/")));
    endpoint.handle(message(b"m")).await.unwrap();
    // Exactly at the limit it is whole.
    assert_eq!(endpoint.idle_connections(), 1);
}

#[tokio::test]
async fn a_connection_is_used_again() {
    let server = Server::start([Reply::Status(200), Reply::Status(500), Reply::Status(204)]).await;
    let (endpoint, _time) = endpoint(HttpConfig::new(server.url("/")));
    endpoint.handle(message(b"1")).await.unwrap();
    endpoint.handle(message(b"2")).await.unwrap_err();
    endpoint.handle(message(b"3")).await.unwrap();
    assert_eq!((server.connections(), endpoint.idle_connections()), (1, 1));
}

#[tokio::test]
async fn a_connection_that_was_idle_for_long_is_not_used_again() {
    let server = Server::start([Reply::Status(200)]).await;
    let (endpoint, time) = endpoint(HttpConfig::new(server.url("/")));
    endpoint.handle(message(b"1")).await.unwrap();
    time.advance(Duration::from_millis(9_999));
    endpoint.handle(message(b"2")).await.unwrap();
    assert_eq!(server.connections(), 1);
    time.advance(Duration::from_secs(10));
    endpoint.handle(message(b"3")).await.unwrap();
    assert_eq!((server.connections(), endpoint.idle_connections()), (2, 1));
}

#[tokio::test]
async fn no_more_connections_are_kept_than_allowed() {
    let mut server = Server::start([Reply::Status(200)]).await;
    for (allowed, kept) in [(0, 0), (2, 2)] {
        let (endpoint, _time) = endpoint(HttpConfig {
            idle_connections: allowed,
            ..HttpConfig::new(server.url("/"))
        });
        let all = (0..4).map(|_| endpoint.handle(message(b"m")));
        for outcome in futures_util::future::join_all(all).await {
            outcome.unwrap();
            server.seen.recv().await.unwrap();
        }
        assert_eq!(endpoint.idle_connections(), kept);
    }
}

#[tokio::test]
async fn a_connection_that_the_server_closed_is_replaced_without_a_failure() {
    let server = Server::start([Reply::Last(200)]).await;
    let (endpoint, _time) = endpoint(HttpConfig::new(server.url("/")));
    for _ in 0..3 {
        endpoint.handle(message(b"m")).await.unwrap();
    }
    assert_eq!((server.connections(), endpoint.idle_connections()), (3, 0));

    // This one says nothing of closing: it answers once, keeps silent, and hangs up on the next request.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let accepted = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = Arc::clone(&accepted);
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        while let Ok((mut socket, _)) = listener.accept().await {
            count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let mut buffer = vec![0; 65_536];
            assert_ne!(socket.read(&mut buffer).await.unwrap(), 0);
            socket
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                .await
                .unwrap();
            let _ = socket.read(&mut buffer).await;
        }
    });
    let (endpoint, _time) = self::endpoint(HttpConfig::new(url));
    for _ in 0..3 {
        endpoint.handle(message(b"m")).await.unwrap();
    }
    assert_eq!(accepted.load(std::sync::atomic::Ordering::Relaxed), 3);
}

#[tokio::test]
async fn a_request_whose_answer_had_begun_is_not_sent_again() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let (endpoint, _time) = endpoint(HttpConfig::new(url));
    let server = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut buffer = vec![0; 65_536];
        for answer in [
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            "what?\r\n\r\n",
        ] {
            assert_ne!(socket.read(&mut buffer).await.unwrap(), 0);
            socket.write_all(answer.as_bytes()).await.unwrap();
        }
        listener
    });
    endpoint.handle(message(b"1")).await.unwrap();
    let said = told(endpoint.handle(message(b"2")).await);
    assert!(said.starts_with("server error: "), "{said}");
    // Nobody waits at the door.
    let listener = server.await.unwrap();
    let mut door = pin!(listener.accept());
    settle().await;
    let knocked = std::future::poll_fn(|cx| Poll::Ready(door.as_mut().poll(cx).is_ready())).await;
    assert!(!knocked);
}

#[tokio::test]
async fn dropping_a_delivery_closes_its_connection() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (endpoint, _time) = endpoint(HttpConfig::new(format!(
        "http://{}/",
        listener.local_addr().unwrap()
    )));
    let task = tokio::spawn({
        let endpoint = Arc::clone(&endpoint);
        async move { endpoint.handle(message(b"m")).await }
    });
    let (mut socket, _) = listener.accept().await.unwrap();
    task.abort();
    let mut read = Vec::new();
    use tokio::io::AsyncReadExt;
    // The end of the stream, or a reset where the request was under way.
    let _ = socket.read_to_end(&mut read).await;
    assert!(task.await.unwrap_err().is_cancelled());
    assert_eq!(endpoint.idle_connections(), 0);
}

fn trusting(url: &str) -> HttpConfig {
    HttpConfig {
        roots: Roots::Pem(include_str!("../../tests/data/tls-ca.pem").to_owned()),
        ..HttpConfig::new(url)
    }
}

#[tokio::test]
async fn over_tls_a_message_arrives_at_a_server_that_is_trusted() {
    let mut server = Server::start_tls([Reply::Status(200)]).await;
    for host in ["localhost", "127.0.0.1"] {
        let url = format!("https://{host}:{}/tls", server.address.port());
        let (endpoint, _time) = endpoint(trusting(&url));
        for _ in 0..2 {
            endpoint.handle(message(b"m")).await.unwrap();
            let seen = server.seen.recv().await.unwrap();
            assert_eq!(Envelope::parse(&seen.body).unwrap().message, "m");
        }
        assert_eq!(endpoint.idle_connections(), 1);
    }
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn over_tls_a_server_that_is_not_trusted_gets_nothing() {
    let mut server = Server::start_tls([Reply::Status(200)]).await;
    let plain = Server::start([Reply::Status(200)]).await;
    let port = server.address.port();
    let localhost = format!("https://localhost:{port}/");
    let refused = |config: HttpConfig, at: &str| {
        let (clock, _time) = Clock::virtual_at(at.parse().unwrap());
        let endpoint = HttpEndpoint::new(config, clock).unwrap();
        async move { told(endpoint.handle(message(b"m")).await) }
    };
    let other_root = HttpConfig {
        // The server's own certificate is no authority.
        roots: Roots::Pem(include_str!("../../tests/data/signing.pem").to_owned()),
        ..HttpConfig::new(&localhost)
    };
    let said = refused(other_root, "2026-01-01T00:00:00Z").await;
    assert!(
        said.contains("server error") && said.contains("no TLS"),
        "{said}"
    );
    // Dates are read off the endpoint's clock.
    for (at, why) in [
        ("2019-12-31T23:59:59Z", "not valid yet"),
        ("2100-01-01T00:00:01Z", "expired"),
    ] {
        let said = refused(trusting(&localhost), at).await;
        assert!(
            said.contains("server error") && said.contains(why),
            "{said}"
        );
    }
    let other = Server::start_tls_as([Reply::Status(200)], OTHER).await;
    let other_name = format!("https://localhost:{}/", other.address.port());
    let said = refused(trusting(&other_name), "2026-01-01T00:00:00Z").await;
    assert!(
        said.contains("server error") && said.contains("not valid for name"),
        "{said}"
    );
    let no_tls = format!("https://localhost:{}/", plain.address.port());
    let said = refused(trusting(&no_tls), "2026-01-01T00:00:00Z").await;
    assert!(
        said.contains("server error") && said.contains("no TLS"),
        "{said}"
    );
    assert!(server.seen.try_recv().is_err());
}

#[tokio::test]
async fn a_signed_envelope_verifies_at_the_other_end() {
    let certificate = include_str!("../../tests/data/signing.pem");
    let key = include_str!("../../tests/data/signing.key.pem");
    let verifier = Verifier::from_certificate_pem(certificate).unwrap();
    for version in [SignatureVersion::V1, SignatureVersion::V2] {
        let deliveries = [
            message(b"m"),
            Delivery::Confirmation(request()),
            Delivery::Unsubscribed(request()),
        ];
        for delivery in deliveries {
            let signer =
                Signer::from_pkcs8_pem(key, version, "https://sns.example/cert.pem").unwrap();
            let seen = arrives(|config| config.signer = Some(signer), delivery).await;
            let envelope = Envelope::parse(&seen.body).unwrap();
            assert_eq!(verifier.verify(&envelope), Ok(()));
            let signature = envelope.signature.unwrap();
            assert_eq!(signature.version, version);
            assert_eq!(signature.cert_url, "https://sns.example/cert.pem");
        }
    }
}

#[test]
fn a_bad_configuration_is_refused_with_the_field() {
    let with = |change: fn(&mut HttpConfig)| {
        let mut config = HttpConfig::new("http://me:pass@localhost/");
        change(&mut config);
        let (clock, _) = Clock::virtual_at(start());
        HttpEndpoint::new(config, clock)
            .map(|_| ())
            .map_err(|error| error.to_string())
    };
    let header = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
    assert_eq!(with(|_| {}), Ok(()));
    type Change = fn(&mut HttpConfig);
    let cases: [(Change, &str); 7] = [
        (
            |config| config.url = "gopher://h".to_owned(),
            "url is \"gopher://h\": the scheme is not http or https",
        ),
        (
            |config| config.timeout = Duration::ZERO,
            "timeout is 0ns, not between 1ms and 3600s",
        ),
        (
            |config| config.timeout = Duration::from_secs(3_601),
            "timeout is 3601s, not between 1ms and 3600s",
        ),
        (
            |config| config.headers = vec![("x".to_owned(), String::new()); 65],
            "headers are 65 headers, more than 64",
        ),
        (
            |config| config.headers = vec![("x".to_owned(), "y".repeat(16_384))],
            "headers are 16385 bytes, more than 16384",
        ),
        (
            |config| config.headers = vec![("Authorization".to_owned(), "x".to_owned())],
            "header \"authorization\" is set by the user and password of the url",
        ),
        (
            |config| {
                config.url = "https://localhost/".to_owned();
                config.roots = Roots::Pem("no certificate".to_owned());
            },
            "roots: the text has no certificate",
        ),
    ];
    for (change, says) in cases {
        assert_eq!(with(change), Err(says.to_owned()));
    }
    for (name, value, says) in [
        ("", "x", "is no name of a header"),
        ("a b", "x", "is no name of a header"),
        (
            "x",
            "a\r\nb: c",
            "has a value with characters that no header may have",
        ),
        ("Host", "x", "is set by every delivery"),
        ("content-length", "1", "is set by every delivery"),
        ("Transfer-Encoding", "chunked", "is set by every delivery"),
        ("X-Amz-Sns-Anything", "x", "is set by every delivery"),
    ] {
        let error = own_headers(&header(name, value)).unwrap_err();
        assert_eq!(error.to_string(), format!("header {name:?} {says}"));
    }
}

#[tokio::test]
async fn a_name_that_cannot_stand_in_a_header_is_a_clients_error() {
    let server = Server::start([Reply::Status(200)]).await;
    let mut config = HttpConfig::new(server.url("/"));
    config.naming.topic_arn = Some("two\nlines".to_owned());
    let said = told(deliver(config, message(b"m")).await);
    assert!(
        said.starts_with("client error: ") && said.contains("cannot stand in a header"),
        "{said}"
    );
    server.reply(Reply::Status(200));
}

#[test]
fn an_endpoint_shows_no_password_and_can_be_sent_between_threads() {
    fn everywhere<T: Send + Sync + 'static>(_: &T) {}
    let (endpoint, _) = endpoint(HttpConfig::new("http://me:secret@localhost/"));
    everywhere(&endpoint);
    assert!(!format!("{endpoint:?}").contains("secret"));
}
