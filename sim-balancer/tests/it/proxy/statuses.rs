//! Which status who gets when something goes wrong.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use sim_balancer::proxy::config::{DesyncMitigation, ProtocolVersion};
use sim_core::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::rig::{Running, config, config_for, get, http2, raw, status, target, telling, web};

/// Long enough for what must happen before it, short enough to wait for.
const SHORT: Duration = Duration::from_millis(300);

#[tokio::test]
async fn without_a_target_it_is_503() {
    let running = Running::start(config(&[]));
    assert_eq!(status(&get(running.address, "").await), 503);
    assert_eq!(running.proxy.stats().http.http_code_elb_503, 1);
    running.stop().await;
}

#[tokio::test]
async fn a_target_that_refuses_closes_or_babbles_is_502() {
    let closed = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let silent = target(|stream, _| async move { drop(stream) }).await;
    let babbling = target(|mut stream, _| async move {
        let _ = stream.write_all(b"\x00\x01 what?\r\n\r\n").await;
        let _ = stream.read_buf(&mut Vec::new()).await;
    })
    .await;
    let broken_off = target(|mut stream, _| async move {
        let mut head = Vec::new();
        let _ = stream.read_buf(&mut head).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-le").await;
    })
    .await;
    for address in [closed, silent, babbling, broken_off] {
        let running = Running::start(config(&[address]));
        assert_eq!(status(&get(running.address, "").await), 502, "{address}");
        assert_eq!(running.proxy.stats().http.http_code_elb_502, 1);
        running.stop().await;
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_ends_the_clients_connection() {
    let address = target(|mut stream, _| async move {
        let mut head = Vec::new();
        let _ = stream.read_buf(&mut head).await;
        let _ = stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this")
            .await;
    })
    .await;
    let running = Running::start(config(&[address]));
    let answer = raw(running.address, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(answer.ends_with("only this"), "{answer}");
    running.stop().await;
}

#[tokio::test]
async fn a_target_that_says_nothing_is_504() {
    let address = target(|mut stream, _| async move {
        let mut sink = Vec::new();
        while stream
            .read_buf(&mut sink)
            .await
            .is_ok_and(|count| count > 0)
        {}
    })
    .await;
    let mut config = config(&[address]);
    config.attributes.idle_timeout = SHORT;
    let running = Running::start(config);
    assert_eq!(status(&get(running.address, "").await), 504);
    let mut client = http2(running.address).await;
    let request = Request::get("http://a/").body(Full::default()).unwrap();
    assert_eq!(client.send_request(request).await.unwrap().status(), 504);
    assert_eq!(running.proxy.stats().http.http_code_elb_504, 2);
    drop(client);
    running.stop().await;
}

#[tokio::test]
async fn a_request_has_its_own_limit_of_time() {
    // It sends something all the time, but never a whole head.
    let address = target(|mut stream, _| async move {
        let _ = stream.read_buf(&mut Vec::new()).await;
        while stream
            .write_all(b"HTTP/1.1 100 Continue\r\n\r\n")
            .await
            .is_ok()
        {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut config = config(&[address]);
    config.attributes.request_timeout = Some(SHORT);
    let running = Running::start(config);
    assert_eq!(status(&get(running.address, "").await), 504);
    running.stop().await;
}

#[tokio::test]
async fn a_client_that_is_too_slow_is_408() {
    let mut config = config(&[telling().await]);
    config.attributes.idle_timeout = SHORT;
    let running = Running::start(config);
    assert_eq!(
        status(&raw(running.address, b"GET / HTTP/1.1\r\nhos").await),
        408
    );
    let body = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nabc";
    assert_eq!(status(&raw(running.address, body).await), 408);
    // A connection without a request is closed without a word.
    assert_eq!(raw(running.address, b"").await, "");
    running.stop().await;
}

#[tokio::test]
async fn what_is_not_http_is_400() {
    let running = Running::start(config(&[telling().await]));
    for request in [
        "nonsense\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nbad header: 1\r\n\r\n",
        "CONNECT a:80 HTTP/1.1\r\nhost: a\r\n\r\n",
    ] {
        assert_eq!(
            status(&raw(running.address, request.as_bytes()).await),
            400,
            "{request:?}"
        );
    }
    assert_eq!(
        status(&raw(running.address, b"TRACE / HTTP/1.1\r\nhost: a\r\n\r\n").await),
        405
    );
    running.stop().await;
}

#[tokio::test]
async fn a_request_with_two_framings_reaches_no_target() {
    let running = Running::start(config(&[telling().await]));
    for request in [
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +3\r\n\r\nabc",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding : chunked\r\n\r\n0\r\n\r\n",
    ] {
        assert_eq!(
            status(&raw(running.address, request.as_bytes()).await),
            400,
            "{request:?}"
        );
    }
    assert_eq!(running.proxy.stats().http.http_code_target_2xx, 0);
    running.stop().await;
    // Under the strictest mitigation, even what is harmless is refused; under the others it passes.
    for (mode, expected) in [
        (DesyncMitigation::Strictest, 400),
        (DesyncMitigation::Defensive, 200),
        (DesyncMitigation::Monitor, 200),
    ] {
        let mut config = config(&[telling().await]);
        config.attributes.desync_mitigation = mode;
        let running = Running::start(config);
        assert_eq!(
            status(&get(running.address, "content-length: 0\r\n").await),
            expected,
            "{mode:?}"
        );
        assert_eq!(running.proxy.stats().http.desync_request_count, 1);
        running.stop().await;
    }
}

#[tokio::test]
async fn heads_that_are_too_large_are_refused() {
    let running = Running::start(config(&[telling().await]));
    let long = "a".repeat(17 * 1024);
    let answer = raw(
        running.address,
        format!("GET /{long} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes(),
    )
    .await;
    assert_eq!(status(&answer), 414);
    assert_eq!(
        status(&get(running.address, &format!("x-long: {long}\r\n")).await),
        431
    );
    let many: String = (0..90)
        .map(|index| format!("x-{index}: {}\r\n", "b".repeat(1_000)))
        .collect();
    assert_eq!(status(&get(running.address, &many).await), 431);
    running.stop().await;
}

#[tokio::test]
async fn more_than_thirty_forwarded_addresses_are_463() {
    let running = Running::start(config(&[telling().await]));
    let addresses =
        |count: usize| format!("x-forwarded-for: {}\r\n", vec!["1.1.1.1"; count].join(", "));
    assert_eq!(status(&get(running.address, &addresses(30)).await), 200);
    assert_eq!(status(&get(running.address, &addresses(31)).await), 463);
    running.stop().await;
}

#[tokio::test]
async fn what_the_targets_do_not_speak_is_464() {
    let told = telling().await;
    for version in [ProtocolVersion::Http2, ProtocolVersion::Grpc] {
        let running = Running::start(config_for(version, told));
        assert_eq!(status(&get(running.address, "").await), 464, "{version:?}");
        running.stop().await;
    }
    let running = Running::start(config_for(ProtocolVersion::Grpc, told));
    let mut client = http2(running.address).await;
    let request = Request::get("http://a/")
        .header("content-type", "application/grpc")
        .body(Full::default())
        .unwrap();
    assert_eq!(client.send_request(request).await.unwrap().status(), 464);
    drop(client);
    running.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_is_460_and_frees_the_target() {
    let (arrived, left) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let address = target({
        let (arrived, left) = (Arc::clone(&arrived), Arc::clone(&left));
        move |mut stream, _| {
            let (arrived, left) = (Arc::clone(&arrived), Arc::clone(&left));
            async move {
                let mut head = Vec::new();
                let _ = stream.read_buf(&mut head).await;
                arrived.notify_one();
                // The end of the connection is all that tells a target that its answer is not wanted.
                while stream
                    .read_buf(&mut head)
                    .await
                    .is_ok_and(|count| count > 0)
                {}
                left.notify_one();
            }
        }
    })
    .await;
    let running = Running::start(config(&[address]));
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    arrived.notified().await;
    drop(stream);
    left.notified().await;
    let proxy = running.proxy.clone();
    running.stop().await;
    let stats = proxy.stats();
    assert_eq!(stats.http.http_code_elb_460, 1);
    assert_eq!(stats.http.active_connection_count, 0);
    let targets = proxy.group("web").unwrap().targets();
    assert_eq!(targets[0].outstanding, 0);
}

#[tokio::test]
async fn connections_over_the_bound_are_closed() {
    let mut config = config(&[telling().await]);
    config.attributes.max_connections = 1;
    let running = Running::start(config);
    let mut first = TcpStream::connect(running.address).await.unwrap();
    first
        .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    super::rig::read_until(&mut first, "body of 0 bytes").await;
    assert_eq!(raw(running.address, b"").await, "");
    assert_eq!(running.proxy.stats().http.rejected_connection_count, 1);
    drop(first);
    running.stop().await;
}

#[tokio::test]
async fn a_body_longer_than_the_attribute_allows_is_413_and_one_as_long_passes() {
    let address = web(|request| async move {
        // A body that breaks off is what this is about.
        let _ = request.into_body().collect().await;
        Response::new(Full::new(Bytes::from_static(b"all of it")))
    })
    .await;
    for (framing, length, expected) in [
        ("content-length", 8, 200),
        ("content-length", 9, 413),
        ("chunked", 8, 200),
        ("chunked", 9, 413),
    ] {
        let mut config = config(&[address]);
        config.attributes.max_body_bytes = Some(8);
        let running = Running::start(config);
        let body = "x".repeat(length);
        let sent = match framing {
            "chunked" => {
                format!("transfer-encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n")
            }
            _ => format!("content-length: {length}\r\n\r\n{body}"),
        };
        let head = "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n";
        let answer = raw(running.address, format!("{head}{sent}").as_bytes()).await;
        assert_eq!(status(&answer), expected, "{framing} {length}: {answer:?}");
        running.stop().await;
    }
}

#[tokio::test]
async fn a_head_that_comes_byte_by_byte_is_408_in_the_same_time() {
    let mut config = config(&[telling().await]);
    config.attributes.idle_timeout = SHORT;
    let running = Running::start(config);
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    let began = tokio::time::Instant::now();
    let mut drips = tokio::time::interval(SHORT / 3);
    let (mut from, mut to) = stream.split();
    let mut answer = Vec::new();
    to.write_all(b"GET / HTTP/1.1\r\nx-slow: ").await.unwrap();
    loop {
        tokio::select! {
            _ = drips.tick() => { let _ = to.write_all(b"a").await; }
            count = from.read_buf(&mut answer) => if count.is_ok_and(|count| count > 0) { break },
        }
        assert!(began.elapsed() < 20 * SHORT, "the head may go on for ever");
    }
    assert_eq!(status(&String::from_utf8_lossy(&answer)), 408);
    running.stop().await;
}

#[tokio::test]
async fn pings_do_not_keep_a_connection_without_requests() {
    const PING: &[u8] = b"\0\0\x08\x06\0\0\0\0\0simsimsi";
    let mut config = config(&[telling().await]);
    config.attributes.idle_timeout = SHORT;
    let running = Running::start(config);
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    let began = tokio::time::Instant::now();
    let mut pings = tokio::time::interval(SHORT / 3);
    let (mut from, mut to) = stream.split();
    to.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .await
        .unwrap();
    loop {
        let mut seen = [0; 1024];
        tokio::select! {
            _ = pings.tick() => { let _ = to.write_all(PING).await; }
            count = from.read(&mut seen) => if matches!(count, Ok(0) | Err(_)) { break },
        }
        assert!(began.elapsed() < 20 * SHORT, "pings keep it open");
    }
    running.stop().await;
}

#[tokio::test]
async fn a_client_that_makes_no_room_for_its_response_gives_its_target_back() {
    let target = web(|_| async { Response::new(Full::new(Bytes::from(vec![7; 4 << 20]))) }).await;
    let mut config = config(&[target]);
    config.attributes.idle_timeout = SHORT;
    let running = Running::start(config);
    let stream = TcpStream::connect(running.address).await.unwrap();
    let (mut send, conn) =
        hyper::client::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new())
            .initial_stream_window_size(0)
            .handshake(hyper_util::rt::TokioIo::new(stream))
            .await
            .unwrap();
    let ended = tokio::spawn(conn);
    let request = Request::get("http://a/")
        .body(Full::<Bytes>::default())
        .unwrap();
    let response = send.send_request(request).await.unwrap();
    assert_eq!(response.status(), 200);
    let held = |running: &Running| running.proxy.group("web").unwrap().targets()[0].outstanding;
    assert_eq!(held(&running), 1);
    // The time is only there so that a failure does not hang.
    let ending = tokio::time::timeout(20 * SHORT, ended).await;
    assert!(ending.is_ok(), "the connection is held for ever");
    let began = tokio::time::Instant::now();
    while held(&running) > 0 {
        assert!(began.elapsed() < 20 * SHORT, "the target is held for ever");
        tokio::task::yield_now().await;
    }
    drop(response);
    running.stop().await;
}

#[tokio::test]
async fn a_slow_reader_of_a_stream_is_waited_for() {
    const LENGTH: usize = 1 << 20;
    let target = web(|_| async { Response::new(Full::new(Bytes::from(vec![7; LENGTH]))) }).await;
    let mut config = config(&[target]);
    config.attributes.idle_timeout = 2 * SHORT;
    let running = Running::start(config);
    let stream = TcpStream::connect(running.address).await.unwrap();
    let (mut send, conn) =
        hyper::client::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new())
            .initial_stream_window_size(1 << 16)
            .handshake(hyper_util::rt::TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(conn);
    let request = Request::get("http://a/")
        .body(Full::<Bytes>::default())
        .unwrap();
    let mut body = send.send_request(request).await.unwrap().into_body();
    let mut pace = tokio::time::interval(SHORT / 2);
    let (mut read, mut paused) = (0, 0);
    while let Some(frame) = body.frame().await {
        let before = read;
        read += frame.unwrap().data_ref().map_or(0, Bytes::len);
        if before >> 17 != read >> 17 {
            pace.tick().await;
            paused += 1;
        }
    }
    assert_eq!(read, LENGTH);
    assert_eq!(paused, 8);
    drop(send);
    running.stop().await;
}
