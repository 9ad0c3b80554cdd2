//! What targets and clients see of each other.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use sim_balancer::proxy::config::{ProtocolVersion, XffMode};
use sim_balancer::proxy::http::{Address, Body, BodyError};
use sim_core::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tower::util::BoxCloneSyncService;

use super::rig::{
    Running, config, config_for, get, http2, raw, read_until, status, target, telling, web,
};

#[tokio::test]
async fn the_target_is_told_who_the_client_is() {
    let running = Running::start(config(&[telling().await]));
    let port = running.address.port();
    let answer = get(running.address, "x-amzn-trace-id: Root=1-2-3\r\n").await;
    assert_eq!(status(&answer), 200);
    assert!(answer.contains("GET / HTTP/1.1\n"), "{answer}");
    assert!(answer.contains("x-forwarded-for: 127.0.0.1\n"), "{answer}");
    assert!(answer.contains("x-forwarded-proto: http\n"), "{answer}");
    assert!(
        answer.contains(&format!("x-forwarded-port: {port}\n")),
        "{answer}"
    );
    assert!(
        answer.contains(&format!("host: example.com:{port}\n")),
        "{answer}"
    );
    assert!(answer.contains(";Root=1-2-3\n"), "{answer}");
    assert!(!answer.contains("connection: close\n"), "{answer}");
    running.stop().await;
}

#[tokio::test]
async fn forwarded_addresses_are_kept_added_or_removed() {
    let told = telling().await;
    for (mode, expected) in [
        (XffMode::Append, "x-forwarded-for: 9.9.9.9, 127.0.0.1\n"),
        (XffMode::Preserve, "x-forwarded-for: 9.9.9.9\n"),
        (XffMode::Remove, "GET / HTTP/1.1\n"),
    ] {
        let mut config = config(&[told]);
        config.attributes.xff_mode = mode;
        config.attributes.preserve_host_header = true;
        let running = Running::start(config);
        let answer = get(running.address, "x-forwarded-for: 9.9.9.9\r\n").await;
        assert!(answer.contains(expected), "{mode:?}: {answer}");
        assert!(answer.contains("host: example.com\n"), "{answer}");
        assert_eq!(
            answer.contains("x-forwarded-for"),
            mode != XffMode::Remove,
            "{answer}"
        );
        running.stop().await;
    }
}

#[tokio::test]
async fn what_is_for_one_hop_is_not_passed_on() {
    let running = Running::start(config(&[telling().await]));
    let answer = get(
        running.address,
        "connection: x-private\r\nx-private: 1\r\nkeep-alive: 3\r\nte: gzip\r\n",
    )
    .await;
    assert_eq!(status(&answer), 200);
    for gone in ["x-private", "keep-alive", "te: gzip"] {
        assert!(!answer.contains(gone), "{gone}: {answer}");
    }
    running.stop().await;
}

#[tokio::test]
async fn requests_share_the_connections_to_a_target() {
    let opened = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&opened);
    let address = target(move |mut stream, _| {
        *counted.lock() += 1;
        async move {
            loop {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    if stream.read_buf(&mut head).await.unwrap() == 0 {
                        return;
                    }
                }
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                    .await
                    .unwrap();
            }
        }
    })
    .await;
    let running = Running::start(config(&[address]));
    for _ in 0..5 {
        assert!(get(running.address, "").await.ends_with("ok"));
    }
    assert_eq!(*opened.lock(), 1);
    let stats = running.proxy.stats();
    assert_eq!(stats.http.request_count, 5);
    assert_eq!(stats.http.http_code_target_2xx, 5);
    assert_eq!(stats.http.target_connection_count, 1);
    assert_eq!(stats.groups[0].request_count, 5);
    running.stop().await;
}

#[tokio::test]
async fn a_used_connection_that_died_is_replaced_unseen() {
    // Each connection answers once; at the second request it closes without a byte.
    let address = target(|mut stream, _| async move {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if stream.read_buf(&mut head).await.unwrap() == 0 {
                return;
            }
        }
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
            .await
            .unwrap();
        let _ = stream.read_buf(&mut head).await;
    })
    .await;
    let running = Running::start(config(&[address]));
    for _ in 0..4 {
        assert!(get(running.address, "").await.ends_with("ok"));
    }
    let stats = running.proxy.stats();
    assert_eq!(stats.http.retry_count, 3);
    assert_eq!(stats.http.http_code_elb_5xx, 0);
    // A POST may have been done: it is not sent again.
    let post = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\nconnection: close\r\n\r\nx";
    assert_eq!(status(&raw(running.address, post).await), 502);
    running.stop().await;
}

#[tokio::test]
async fn bodies_arrive_whole_in_both_framings() {
    let running = Running::start(config(&[telling().await]));
    let sized =
        b"POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello";
    let answer = raw(running.address, sized).await;
    assert!(
        answer.contains("body of 5 bytes") && answer.contains("content-length: 5\n"),
        "{answer}"
    );
    let chunked = b"POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n5\r\nhello\r\n3\r\nyou\r\n0\r\n\r\n";
    let answer = raw(running.address, chunked).await;
    assert!(
        answer.contains("body of 8 bytes") && answer.contains("transfer-encoding: chunked\n"),
        "{answer}"
    );
    running.stop().await;
}

#[tokio::test]
async fn several_requests_follow_each_other_on_one_connection() {
    let running = Running::start(config(&[telling().await]));
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    for round in 0..3 {
        let request = format!("POST /{round} HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nab");
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = read_until(&mut stream, "body of 2 bytes").await;
        assert!(
            answer.contains(&format!("POST /{round} HTTP/1.1")),
            "{answer}"
        );
    }
    // And at once, in one write.
    stream
        .write_all(b"GET /x HTTP/1.1\r\nhost: a\r\n\r\nGET /y HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    let answer = read_until(&mut stream, "GET /y HTTP/1.1").await;
    assert!(answer.contains("GET /x HTTP/1.1"), "{answer}");
    running.stop().await;
}

#[tokio::test]
async fn a_head_request_gets_the_length_and_no_body() {
    let address =
        web(|_| async { Response::new(Full::new(Bytes::from_static(b"twelve bytes"))) }).await;
    let running = Running::start(config(&[address]));
    let answer = raw(
        running.address,
        b"HEAD / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
    )
    .await;
    assert_eq!(status(&answer), 200);
    assert!(
        answer.contains("content-length: 12") && answer.ends_with("\r\n\r\n"),
        "{answer:?}"
    );
    running.stop().await;
}

#[tokio::test]
async fn clients_and_targets_may_speak_different_versions() {
    let told = telling().await;
    for version in [ProtocolVersion::Http1, ProtocolVersion::Http2] {
        let running = Running::start(config_for(version, told));
        let mut client = http2(running.address).await;
        for _ in 0..2 {
            let request = Request::post("http://example.com/path?q=1")
                .body(Full::new(Bytes::from_static(b"abc")))
                .unwrap();
            let response = client.send_request(request).await.unwrap();
            assert_eq!(response.status(), 200);
            let text = response.into_body().collect().await.unwrap().to_bytes();
            let text = String::from_utf8_lossy(&text).into_owned();
            assert!(text.contains("body of 3 bytes"), "{text}");
            let expected = if version == ProtocolVersion::Http1 {
                "POST /path?q=1 HTTP/1.1"
            } else {
                "POST http://example.com"
            };
            assert!(text.starts_with(expected), "{text}");
        }
        assert_eq!(running.proxy.stats().http.target_connection_count, 1);
        drop(client);
        running.stop().await;
    }
}

#[tokio::test]
async fn a_function_is_a_target_like_any_other() {
    let running = Running::start(config(&[]));
    let function = tower::service_fn(|request: Request<Body>| async move {
        let path = request.uri().path().to_owned();
        let body = request.into_body().collect().await?.to_bytes();
        Ok::<_, BodyError>(Response::new(Body::full(format!("{path} {}", body.len()))))
    });
    let function = BoxCloneSyncService::new(function);
    running
        .proxy
        .register("web", "f", Address::Function(function))
        .unwrap();
    let request =
        b"POST /f HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\nconnection: close\r\n\r\nabc";
    assert!(raw(running.address, request).await.ends_with("/f 3"));
    running.stop().await;
}

#[tokio::test]
async fn nobody_but_a_log_in_says_who_a_client_is() {
    let running = Running::start(config(&[telling().await]));
    let fields = "x-amzn-oidc-identity: eve\r\nX-Amzn-Oidc-Data: eve\r\nx-amzn-oidc-accesstoken: eve\r\nx-amzn-mtls-clientcert-subject: eve\r\nx-kept: adam\r\n";
    let answer = get(running.address, fields).await;
    assert!(!answer.contains("eve"), "{answer}");
    assert!(answer.contains("x-kept: adam"), "{answer}");
    running.stop().await;
}
