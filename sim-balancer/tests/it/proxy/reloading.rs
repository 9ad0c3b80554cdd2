//! Configurations that change while requests pass, and the end of a proxy.

use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use sim_balancer::proxy::config::{HealthCheckProtocol, Protocol, TargetConfig};
use sim_balancer::proxy::{Proxy, ProxyError, RunError};
use sim_core::clock::Clock;
use sim_core::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::rig::{Running, config, get, raw, read_until, status, target, telling, web};

async fn named(name: &'static str) -> std::net::SocketAddr {
    web(move |_| async move { Response::new(Full::new(Bytes::from_static(name.as_bytes()))) }).await
}

#[tokio::test]
async fn a_reload_under_load_loses_no_request() {
    let (one, two) = (named("one").await, named("two").await);
    let running = Running::start(config(&[one]));
    let mut clients = tokio::task::JoinSet::new();
    let done = Arc::new(Notify::new());
    for _ in 0..4 {
        let address = running.address;
        clients.spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let mut counts = [0_u32; 2];
            for _ in 0..300 {
                stream
                    .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
                    .await
                    .unwrap();
                let answer = read_until(&mut stream, "\r\n\r\n").await;
                assert_eq!(status(&answer), 200, "{answer}");
                let answer = if answer.ends_with("\r\n\r\n") {
                    read_until(&mut stream, "o").await
                } else {
                    answer
                };
                counts[usize::from(answer.contains("two"))] += 1;
            }
            counts
        });
    }
    for round in 0..20 {
        let targets = match round % 3 {
            0 => vec![one, two],
            1 => vec![two],
            _ => vec![one],
        };
        running.proxy.reload(config(&targets)).unwrap();
        // Each round sees traffic: the load goes on between two reloads.
        let before = running.proxy.stats().http.request_count;
        while running.proxy.stats().http.request_count == before && !clients.is_empty() {
            tokio::select! {
                biased;
                () = tokio::task::yield_now() => {}
                () = done.notified() => {}
            }
            if running.proxy.stats().http.request_count >= 1_200 {
                break;
            }
        }
    }
    let mut all = [0; 2];
    while let Some(counts) = clients.join_next().await {
        let counts = counts.unwrap();
        all = [all[0] + counts[0], all[1] + counts[1]];
    }
    assert_eq!(all[0] + all[1], 1_200);
    assert_eq!(running.proxy.stats().http.http_code_elb_5xx, 0);
    running.stop().await;
}

#[tokio::test]
async fn targets_that_stay_keep_their_counts() {
    let (one, two) = (named("one").await, named("two").await);
    let running = Running::start(config(&[one]));
    for _ in 0..3 {
        get(running.address, "").await;
    }
    running.proxy.reload(config(&[one, two])).unwrap();
    let targets = running.proxy.group("web").unwrap().targets();
    let counts: Vec<_> = targets
        .iter()
        .map(|target| (target.id.to_string(), target.finished))
        .collect();
    assert!(counts.contains(&(one.to_string(), 3)), "{counts:?}");
    assert_eq!(running.proxy.stats().http.target_connection_count, 1);
    running.stop().await;
}

#[tokio::test]
async fn a_reload_that_fails_changes_nothing() {
    let one = named("one").await;
    let running = Running::start(config(&[one]));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut bad = config(&[]);
    let mut second = bad.listeners[0].clone();
    second.name = "second".to_owned();
    second.port = taken.local_addr().unwrap().port();
    bad.listeners.push(second);
    assert!(matches!(
        running.proxy.reload(bad),
        Err(ProxyError::Bind { .. })
    ));
    let mut bad = config(&[]);
    bad.target_groups[0].targets = vec![TargetConfig::at("nowhere")];
    assert!(matches!(
        running.proxy.reload(bad),
        Err(ProxyError::Config(_))
    ));
    assert!(get(running.address, "").await.ends_with("one"));
    running.stop().await;
}

#[tokio::test]
async fn a_listener_that_is_gone_lets_its_requests_finish() {
    let (arrived, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let slow = target({
        let (arrived, go) = (Arc::clone(&arrived), Arc::clone(&go));
        move |mut stream, _| {
            let (arrived, go) = (Arc::clone(&arrived), Arc::clone(&go));
            async move {
                let mut head = Vec::new();
                let _ = stream.read_buf(&mut head).await;
                arrived.notify_one();
                go.notified().await;
                let _ = stream
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nlate")
                    .await;
            }
        }
    })
    .await;
    let running = Running::start(config(&[slow]));
    let asking = tokio::spawn(raw(running.address, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"));
    arrived.notified().await;
    let mut other = config(&[slow]);
    other.listeners[0].name = "other".to_owned();
    running.proxy.reload(other).unwrap();
    let address = running.proxy.local_addrs()[0].1;
    assert_ne!(address, running.address);
    go.notify_one();
    // The connection ends after the response, as its listener has.
    assert!(asking.await.unwrap().ends_with("late"));
    running.stop().await;
}

#[tokio::test]
async fn a_proxy_that_stops_answers_what_is_under_way() {
    let (arrived, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let slow = target({
        let (arrived, go) = (Arc::clone(&arrived), Arc::clone(&go));
        move |mut stream, _| {
            let (arrived, go) = (Arc::clone(&arrived), Arc::clone(&go));
            async move {
                let mut head = Vec::new();
                let _ = stream.read_buf(&mut head).await;
                arrived.notify_one();
                go.notified().await;
                let _ = stream
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nlate")
                    .await;
            }
        }
    })
    .await;
    let running = Running::start(config(&[slow]));
    let idle = TcpStream::connect(running.address).await.unwrap();
    let asking = tokio::spawn(raw(running.address, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"));
    arrived.notified().await;
    let address = running.address;
    let stopping = tokio::spawn(running.stop());
    // Stopped listening: a new connection is refused or ends at once.
    while let Ok(mut stream) = TcpStream::connect(address).await {
        let mut seen = Vec::new();
        if stream.read_to_end(&mut seen).await.is_ok() && seen.is_empty() {
            break;
        }
    }
    go.notify_one();
    assert!(asking.await.unwrap().ends_with("late"));
    stopping.await.unwrap();
    drop(idle);
}

#[tokio::test]
async fn a_proxy_runs_once_and_ends_when_dropped() {
    let proxy = Proxy::bind(config(&[telling().await]), Clock::system()).unwrap();
    let address = proxy.local_addrs()[0].1;
    {
        let mut running = std::pin::pin!(proxy.run(std::future::pending()));
        let mut asking = std::pin::pin!(get(address, ""));
        let answer = tokio::select! {
            answer = &mut asking => answer,
            ended = &mut running => panic!("{ended:?}"),
        };
        assert_eq!(status(&answer), 200);
    }
    assert!(matches!(
        proxy.run(std::future::ready(())).await,
        Err(RunError::Running)
    ));
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_log_has_a_line_a_request_with_all_fields() {
    let path = std::env::temp_dir().join(format!("sim-access-{}.log", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let mut config = config(&[named("one").await]);
    config.logs.access = Some(sim_balancer::proxy::config::LogTarget {
        path: Some(path.clone()),
        ..Default::default()
    });
    config.attributes.drain_timeout = Duration::from_secs(5);
    let running = Running::start(config);
    let port = running.address.port();
    get(running.address, "user-agent: a \"quoted\" one\r\n").await;
    raw(running.address, b"nonsense\r\n\r\n").await;
    let proxy = running.proxy.clone();
    running.stop().await;
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    let fields = split(lines[0]);
    assert_eq!(fields.len(), 33, "{}", lines[0]);
    assert_eq!(fields[0], "http");
    assert_eq!((fields[8], fields[9]), ("200", "200"));
    assert_eq!(
        fields[12],
        format!("GET http://example.com:{port}/ HTTP/1.1")
    );
    assert_eq!(fields[13], "a \\x22quoted\\x22 one");
    assert_eq!(fields[16], "web");
    assert!(fields[17].starts_with("Root=1-"), "{}", fields[17]);
    assert_eq!(fields[27], "Compliant");
    let malformed = split(lines[1]);
    assert_eq!((malformed[8], malformed[27]), ("400", "Severe"));
    assert_eq!(proxy.stats().access_log.unwrap().written, 2);
}

/// The fields of a line: between spaces, or between quotation marks.
fn split(line: &str) -> Vec<&str> {
    let mut fields = Vec::new();
    let mut rest = line;
    while !rest.is_empty() {
        let (field, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap(),
            None => rest
                .split_once(' ')
                .map_or((rest, ""), |(field, _)| (field, &rest[field.len()..])),
        };
        fields.push(field);
        rest = after.strip_prefix(' ').unwrap_or(after);
    }
    fields
}

#[tokio::test]
async fn a_log_of_health_checks_has_a_line_a_check() {
    let path = std::env::temp_dir().join(format!("sim-checks-{}.log", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let mut config = config(&[named("one").await]);
    config.target_groups[0].health_check = Default::default();
    config.logs.health_check = Some(sim_balancer::proxy::config::LogTarget {
        path: Some(path.clone()),
        ..Default::default()
    });
    let target = config.target_groups[0].targets[0].address.clone();
    let running = Running::start(config);
    let written = || running.proxy.stats().health_check_log.unwrap().written;
    // The time is only there so that a failure does not hang.
    tokio::time::timeout(Duration::from_secs(60), async {
        while written() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("a line");
    running.stop().await;
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let fields: Vec<&str> = text.lines().next().unwrap().split(' ').collect();
    assert_eq!(
        fields[1..5],
        ["web", target.as_str(), "PASS", "-"],
        "{text}"
    );
    assert!(fields[5].parse::<f64>().is_ok(), "{text}");
}

#[tokio::test]
async fn connections_that_rest_are_not_used_when_the_way_to_make_them_changes() {
    let mut plain = config(&[telling().await]);
    // With a protocol of its own for checks, the balancer and its targets are the same ones before and after.
    plain.target_groups[0].health_check.protocol = Some(HealthCheckProtocol::Http);
    let mut secure = plain.clone();
    secure.target_groups[0].protocol = Protocol::Https;
    let running = Running::start(plain.clone());
    assert_eq!(status(&get(running.address, "").await), 200);
    running.proxy.reload(secure).unwrap();
    // The target speaks no TLS: any answer would have come in the clear.
    assert_eq!(status(&get(running.address, "").await), 502);
    running.proxy.reload(plain).unwrap();
    assert_eq!(status(&get(running.address, "").await), 200);
    running.stop().await;
}
