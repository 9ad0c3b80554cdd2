//! Rules, cookies, retries and listeners that are not HTTP, from the socket to the target.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use sim_balancer::proxy::config::{
    ActionConfig, ConditionConfig, FixedResponseConfig, ForwardConfig, HealthCheckConfig,
    MirrorConfig, Protocol, RedirectConfig, RetryConfig, RetryOn, RuleConfig, StickinessConfig,
    StickinessKind, TargetConfig, TargetGroupConfig, ValueMatch,
};
use sim_core::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Notify;

use super::rig::{Running, config, get, raw, status, target, web};

async fn named(name: &'static str) -> SocketAddr {
    web(move |_| async move { Response::new(Full::new(Bytes::from_static(name.as_bytes()))) }).await
}

fn group(name: &str, target: SocketAddr) -> TargetGroupConfig {
    TargetGroupConfig {
        name: name.to_owned(),
        targets: vec![TargetConfig::at(target.to_string())],
        health_check: HealthCheckConfig {
            enabled: false,
            ..Default::default()
        },
        ..Default::default()
    }
}

fn rule(priority: u32, path: &str, action: ActionConfig) -> RuleConfig {
    RuleConfig {
        priority,
        conditions: vec![ConditionConfig::PathPattern(ValueMatch {
            values: vec![path.to_owned()],
            ..Default::default()
        })],
        actions: vec![action],
        ..Default::default()
    }
}

async fn ask(address: SocketAddr, path: &str, fields: &str) -> String {
    raw(
        address,
        format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{fields}\r\n").as_bytes(),
    )
    .await
}

#[tokio::test]
async fn rules_choose_the_group_or_answer() {
    let mut config = config(&[named("one").await]);
    config.target_groups.push(group("api", named("two").await));
    config.listeners[0].rules = vec![
        rule(1, "/api/*", ActionConfig::Forward(ForwardConfig::to("api"))),
        rule(
            2,
            "/gone",
            ActionConfig::FixedResponse(FixedResponseConfig {
                status_code: 410,
                content_type: "text/plain".to_owned(),
                message_body: "it is gone".to_owned(),
                ..Default::default()
            }),
        ),
        rule(
            3,
            "/old",
            ActionConfig::Redirect(RedirectConfig {
                path: "/new".to_owned(),
                status_code: "HTTP_301".to_owned(),
                ..Default::default()
            }),
        ),
    ];
    config.listeners[0]
        .attributes
        .response_headers
        .x_frame_options = Some("DENY".to_owned());
    let running = Running::start(config);
    assert!(ask(running.address, "/", "").await.ends_with("one"));
    assert!(ask(running.address, "/api/x", "").await.ends_with("two"));
    let gone = ask(running.address, "/gone", "").await;
    assert_eq!(status(&gone), 410);
    assert!(
        gone.ends_with("it is gone") && gone.contains("x-frame-options: DENY"),
        "{gone}"
    );
    let moved = ask(running.address, "/old", "").await;
    assert_eq!(status(&moved), 301);
    assert!(moved.contains("/new"), "{moved}");
    let stats = running.proxy.stats();
    assert_eq!(stats.http.fixed_response_count, 2);
    assert_eq!(
        (stats.http.http_code_elb_3xx, stats.http.http_code_elb_4xx),
        (1, 1)
    );
    running.stop().await;
}

#[tokio::test]
async fn a_cookie_keeps_a_client_with_its_target() {
    let mut config = config(&[named("one").await, named("two").await]);
    config.target_groups[0].stickiness = StickinessConfig {
        kind: StickinessKind::LbCookie,
        ..Default::default()
    };
    let running = Running::start(config);
    let first = ask(running.address, "/", "").await;
    let cookie = first
        .lines()
        .find_map(|line| line.strip_prefix("set-cookie: AWSALB="))
        .and_then(|line| line.split(';').next())
        .unwrap_or_else(|| panic!("no cookie in {first}"));
    let body = &first[first.len() - 3..];
    for _ in 0..6 {
        let answer = ask(
            running.address,
            "/",
            &format!("cookie: AWSALB={cookie}\r\n"),
        )
        .await;
        assert!(answer.ends_with(body), "{answer}");
    }
    running.stop().await;
}

#[tokio::test]
async fn a_request_is_tried_at_another_target_when_that_is_asked_for() {
    let closed = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let failing = web(|_| async {
        let mut response = Response::new(Full::new(Bytes::from_static(b"down")));
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        response
    })
    .await;
    for bad in [closed, failing] {
        let mut config = config(&[bad, named("good").await]);
        config.target_groups[0].retry = RetryConfig {
            attempts: 1,
            on: vec![RetryOn::ConnectFailure, RetryOn::GatewayError],
            ..Default::default()
        };
        let running = Running::start(config);
        for _ in 0..4 {
            assert!(
                ask(running.address, "/", "").await.ends_with("good"),
                "{bad}"
            );
        }
        // How often the bad one is asked first is the algorithm's affair.
        assert!(running.proxy.stats().http.retry_count > 0);
        assert_eq!(running.proxy.stats().http.http_code_elb_5xx, 0);
        running.stop().await;
    }
}

#[tokio::test]
async fn a_mirror_gets_a_copy_that_nobody_waits_for() {
    let copied = Arc::new(Notify::new());
    let mirror = target({
        let copied = Arc::clone(&copied);
        move |mut stream, _| {
            let copied = Arc::clone(&copied);
            async move {
                let mut head = Vec::new();
                let _ = stream.read_buf(&mut head).await;
                assert!(head.starts_with(b"GET /copied HTTP/1.1\r\n"));
                copied.notify_one();
                // It never answers.
                let _ = stream.read_buf(&mut head).await;
            }
        }
    })
    .await;
    let mut config = config(&[named("one").await]);
    config.target_groups.push(group("shadow", mirror));
    config.listeners[0].default_actions.insert(
        0,
        ActionConfig::Mirror(MirrorConfig {
            target_group: "shadow".to_owned(),
            percent: 100.0,
            ..Default::default()
        }),
    );
    let running = Running::start(config);
    assert!(ask(running.address, "/copied", "").await.ends_with("one"));
    copied.notified().await;
    assert_eq!(running.proxy.stats().http.mirror_count, 1);
    running.stop().await;
}

#[tokio::test]
async fn streams_and_datagrams_pass_through() {
    let echo = target(|mut stream, _| async move {
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
    })
    .await;
    let mut tcp = config(&[echo]);
    tcp.listeners[0].protocol = Protocol::Tcp;
    tcp.target_groups[0].protocol = Protocol::Tcp;
    let running = Running::start(tcp);
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    stream.write_all(b"not http at all").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut echoed = Vec::new();
    stream.read_to_end(&mut echoed).await.unwrap();
    assert_eq!(echoed, b"not http at all");
    running.stop().await;

    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 100];
        while let Ok((count, peer)) = socket.recv_from(&mut buffer).await {
            let _ = socket.send_to(&buffer[..count], peer).await;
        }
    });
    let mut udp = config(&[address]);
    udp.listeners[0].protocol = Protocol::Udp;
    udp.target_groups[0].protocol = Protocol::Udp;
    // A flow of datagrams has no end to wait for.
    udp.attributes.drain_timeout = Duration::from_millis(100);
    let running = Running::start(udp);
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.connect(running.address).await.unwrap();
    client.send(b"ping").await.unwrap();
    let mut buffer = [0; 100];
    let count = client.recv(&mut buffer).await.unwrap();
    assert_eq!(&buffer[..count], b"ping");
    running.stop().await;
}

#[tokio::test]
async fn a_target_that_fails_its_checks_gets_no_request() {
    let good = named("good").await;
    let bad = web(|_| async {
        let mut response = Response::new(Full::new(Bytes::from_static(b"bad")));
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        response
    })
    .await;
    let mut config = config(&[good, bad]);
    config.target_groups[0].health_check = HealthCheckConfig {
        interval: Duration::from_secs(5),
        timeout: Some(Duration::from_secs(2)),
        ..Default::default()
    };
    let running = Running::start(config);
    let group = running.proxy.group("web").unwrap();
    // The first checks run at once; until the good one is known to be good, all get requests.
    while group.stats().targets.healthy == 0 {
        tokio::task::yield_now().await;
    }
    for _ in 0..4 {
        assert!(get(running.address, "").await.ends_with("good"));
    }
    running.stop().await;
}
