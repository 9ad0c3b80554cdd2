//! Bytes that pass while both sides are still at it.

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use sim_balancer::proxy::config::ProtocolVersion;
use sim_core::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_tungstenite::tungstenite::Message;

use super::rig::{Running, config, config_for, http2, raw, read_until, target, telling, web};

#[tokio::test]
async fn events_arrive_one_by_one() {
    let go = Arc::new(Notify::new());
    let address = target({
        let go = Arc::clone(&go);
        move |mut stream, _| {
            let go = Arc::clone(&go);
            async move {
                let mut head = Vec::new();
                let _ = stream.read_buf(&mut head).await;
                let begin = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
                stream.write_all(begin).await.unwrap();
                for event in ["one", "two", "three"] {
                    go.notified().await;
                    let chunk = format!("{:x}\r\ndata: {event}\n\n\r\n", event.len() + 8);
                    stream.write_all(chunk.as_bytes()).await.unwrap();
                }
                stream.write_all(b"0\r\n\r\n").await.unwrap();
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
    read_until(&mut stream, "text/event-stream").await;
    for event in ["one", "two", "three"] {
        // The next is not sent before this one has been read here.
        go.notify_one();
        read_until(&mut stream, &format!("data: {event}")).await;
    }
    drop(stream);
    running.stop().await;
}

#[tokio::test]
async fn an_upload_reaches_the_target_while_it_goes_on() {
    let (seen, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let address = target({
        let (seen, go) = (Arc::clone(&seen), Arc::clone(&go));
        move |mut stream, _| {
            let (seen, go) = (Arc::clone(&seen), Arc::clone(&go));
            async move {
                read_until(&mut stream, "first").await;
                seen.notify_one();
                go.notified().await;
                read_until(&mut stream, "last!").await;
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                    .await
                    .unwrap();
            }
        }
    })
    .await;
    let running = Running::start(config(&[address]));
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    stream
        .write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nfirst")
        .await
        .unwrap();
    seen.notified().await;
    stream.write_all(b"last!").await.unwrap();
    go.notify_one();
    read_until(&mut stream, "ok").await;
    drop(stream);
    running.stop().await;
}

#[tokio::test]
async fn a_client_that_waits_for_100_gets_it() {
    let running = Running::start(config(&[telling().await]));
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    let head = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n";
    stream.write_all(head).await.unwrap();
    read_until(&mut stream, "HTTP/1.1 100 Continue\r\n\r\n").await;
    stream.write_all(b"body").await.unwrap();
    let answer = read_until(&mut stream, "body of 4 bytes").await;
    assert!(!answer.contains("expect"), "{answer}");
    drop(stream);
    running.stop().await;
}

#[tokio::test]
async fn large_bodies_pass_both_ways() {
    const SIZE: usize = 8 << 20;
    let address = web(|request| async move {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        Response::new(Full::new(body))
    })
    .await;
    let running = Running::start(config(&[address]));
    let body: Vec<u8> = (0..SIZE).map(|index| (index % 251) as u8).collect();
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    let (mut read, mut write) = stream.split();
    let sending = async {
        let head = format!(
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {SIZE}\r\nconnection: close\r\n\r\n"
        );
        write.write_all(head.as_bytes()).await.unwrap();
        write.write_all(&body).await.unwrap();
    };
    let reading = async {
        let mut answer = Vec::new();
        read.read_to_end(&mut answer).await.unwrap();
        answer
    };
    let ((), answer) = tokio::join!(sending, reading);
    assert!(answer.ends_with(&body), "{} bytes", answer.len());
    let mut client = http2(running.address).await;
    let request = Request::post("http://a/")
        .body(Full::new(Bytes::from(body.clone())))
        .unwrap();
    let response = client.send_request(request).await.unwrap();
    assert_eq!(
        response.into_body().collect().await.unwrap().to_bytes(),
        body
    );
    drop(client);
    running.stop().await;
}

#[tokio::test]
async fn a_websocket_carries_messages_both_ways() {
    let address = target(|stream, _| async move {
        let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
        while let Some(Ok(message)) = socket.next().await {
            if message.is_text() {
                let text = format!("echo {}", message.to_text().unwrap());
                socket.send(Message::text(text)).await.unwrap();
            }
        }
    })
    .await;
    let running = Running::start(config(&[address]));
    let stream = TcpStream::connect(running.address).await.unwrap();
    let (mut socket, response) =
        tokio_tungstenite::client_async(format!("ws://{}/chat", running.address), stream)
            .await
            .unwrap();
    assert_eq!(response.status(), 101);
    for round in 0..3 {
        socket
            .send(Message::text(format!("{round}")))
            .await
            .unwrap();
        let message = socket.next().await.unwrap().unwrap();
        assert_eq!(message.to_text().unwrap(), format!("echo {round}"));
    }
    assert_eq!(running.proxy.stats().http.upgrade_count, 1);
    socket.close(None).await.unwrap();
    while socket.next().await.is_some() {}
    drop(socket);
    let proxy = running.proxy.clone();
    running.stop().await;
    assert_eq!(proxy.group("web").unwrap().targets()[0].outstanding, 0);
}

#[tokio::test]
async fn trailers_of_grpc_arrive() {
    let address = target(|stream, _| async move {
        let service =
            hyper::service::service_fn(|request: Request<hyper::body::Incoming>| async move {
                assert_eq!(request.headers()["te"], "trailers");
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", HeaderValue::from_static("0"));
                let frames = [Frame::data(body), Frame::trailers(trailers)];
                let stream =
                    futures_util::stream::iter(frames.map(Ok::<_, std::convert::Infallible>));
                let response = Response::builder()
                    .header("content-type", "application/grpc")
                    .body(StreamBody::new(stream));
                Ok::<_, std::convert::Infallible>(response.unwrap())
            });
        let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let _ = builder
            .serve_connection(TokioIo::new(stream), service)
            .await;
    })
    .await;
    let running = Running::start(config_for(ProtocolVersion::Grpc, address));
    let mut client = http2(running.address).await;
    let request = Request::post("http://a/pkg.Service/Method")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(Bytes::from_static(b"\0\0\0\0\x01x")))
        .unwrap();
    let response = client.send_request(request).await.unwrap();
    assert_eq!(response.status(), 200);
    let body = response.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
    assert_eq!(body.to_bytes(), &b"\0\0\0\0\x01x"[..]);
    assert_eq!(running.proxy.stats().http.grpc_request_count, 1);
    drop(client);
    running.stop().await;
}

#[tokio::test]
async fn an_upgrade_that_was_not_asked_for_is_refused() {
    let address = target(|mut stream, _| async move {
        let mut head = Vec::new();
        let _ = stream.read_buf(&mut head).await;
        let answer =
            b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n";
        let _ = stream.write_all(answer).await;
        let _ = stream.read_buf(&mut head).await;
    })
    .await;
    let running = Running::start(config(&[address]));
    let answer = raw(
        running.address,
        b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
    )
    .await;
    assert_eq!(super::rig::status(&answer), 502);
    running.stop().await;
}

#[tokio::test]
async fn only_an_upgrade_to_websocket_is_passed_on() {
    let running = Running::start(config(&[telling().await]));
    let h2c = "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade, close\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n";
    let answer = raw(running.address, h2c.as_bytes()).await;
    assert_eq!(super::rig::status(&answer), 200, "{answer}");
    assert!(!answer.contains("h2c"), "{answer}");
    assert!(!answer.contains("\nupgrade:"), "{answer}");
    assert!(!answer.contains("http2-settings"), "{answer}");
    let both = h2c.replace("upgrade: h2c", "upgrade: websocket, h2c");
    assert!(!raw(running.address, both.as_bytes()).await.contains("h2c"));
    let socket = h2c.replace("upgrade: h2c", "upgrade: WebSocket");
    let answer = raw(running.address, socket.as_bytes()).await;
    assert!(answer.contains("\nupgrade: websocket"), "{answer}");
    running.stop().await;
}

#[tokio::test]
async fn a_target_that_leaves_for_another_protocol_is_refused() {
    let address = target(|mut stream, _| async move {
        let mut head = Vec::new();
        let _ = stream.read_buf(&mut head).await;
        let answer =
            b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n";
        let _ = stream.write_all(answer).await;
        let _ = stream.read_buf(&mut head).await;
    })
    .await;
    let running = Running::start(config(&[address]));
    let answer = raw(
        running.address,
        b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade, close\r\nupgrade: websocket\r\n\r\n",
    )
    .await;
    assert_eq!(super::rig::status(&answer), 502);
    running.stop().await;
}

#[tokio::test]
async fn a_websocket_may_finish_while_the_proxy_drains() {
    let address = target(|stream, _| async move {
        let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
        while let Some(Ok(message)) = socket.next().await {
            if message.is_text() {
                socket.send(message).await.unwrap();
            }
        }
    })
    .await;
    let running = Running::start(config(&[address]));
    let listener = running.address;
    let stream = TcpStream::connect(listener).await.unwrap();
    let (mut socket, _) = tokio_tungstenite::client_async(format!("ws://{listener}/"), stream)
        .await
        .unwrap();
    let stopping = tokio::spawn(running.stop());
    // It drains once it takes no connections any more.
    while TcpStream::connect(listener).await.is_ok() {
        tokio::task::yield_now().await;
    }
    for round in 0..100 {
        socket
            .send(Message::text(format!("{round}")))
            .await
            .unwrap();
        let message = socket.next().await.unwrap().unwrap();
        assert_eq!(message.to_text().unwrap(), format!("{round}"));
    }
    socket.close(None).await.unwrap();
    while socket.next().await.is_some() {}
    drop(socket);
    stopping.await.unwrap();
}
