//! A client's connection: HTTP/1.1 or HTTP/2 on hyper, with one timer, until it ends or is to stop.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderValue;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use sim_core::clock::{Clock, Sleep};
use sim_core::snapshot::Snapshot;
use sim_core::sync::Arc;
use sim_core::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::desync::Finding;
use super::exchange::exchange;
use super::metric::Count;
use super::site::{Hall, Site, Worker};
use super::wire::{Phase, Pulse, Stream, Watcher, Wire};
use crate::proxy::log::Record;
use crate::proxy::tls::TlsInfo;

/// What an HTTP/2 client sends first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Streams that a client may have open on one HTTP/2 connection (the reference's).
const STREAMS: u32 = 128;

/// The shortest time between two looks at what stands still on an HTTP/2 connection.
const LOOK: Duration = Duration::from_millis(1);

/// What is known of a client's connection, for all its requests.
pub(crate) struct Client {
    pub(crate) hall: Arc<Hall>,
    pub(crate) worker: Arc<Worker>,
    pub(crate) site: Arc<Snapshot<Site>>,
    pub(crate) peer: SocketAddr,
    pub(crate) local: SocketAddr,
    pub(crate) secure: Option<Arc<TlsInfo>>,
    /// For `X-Forwarded-For`.
    pub(crate) address: HeaderValue,
    pub(crate) pulse: Arc<Pulse>,
    pub(crate) idle: Duration,
    /// When the connection has lived long enough.
    pub(crate) retires: Instant,
    pub(crate) id: String,
    pub(crate) version: Version,
}

/// Which HTTP a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    Http1,
    Http2,
}

impl Client {
    pub(crate) fn is_http1(&self) -> bool {
        self.version == Version::Http1
    }

    /// When a stream that moved now has stood still for too long.
    pub(crate) fn idle_deadline(&self) -> Instant {
        self.hall.clock.recent() + self.idle
    }
}

/// Reads the first bytes of a connection: whether it is HTTP/2, and what was read. `None` when nothing came in time, or the
/// connection is to end.
pub(crate) async fn sniff(
    stream: &mut Stream,
    pulse: &Pulse,
    patience: Duration,
) -> Option<(Version, Bytes)> {
    let mut seen = BytesMut::with_capacity(8 * 1024);
    let reading = async {
        loop {
            let count = match stream {
                Stream::Tcp(stream) => stream.read_buf(&mut seen).await?,
                Stream::Other(stream) => stream.read_buf(&mut seen).await?,
            };
            if count == 0 {
                return io::Result::Ok(());
            }
            if seen.len() >= PREFACE.len() || !PREFACE.starts_with(&seen) {
                return Ok(());
            }
        }
    };
    let mut reading = pin!(tokio::time::timeout(patience, reading));
    poll_fn(|cx| {
        let (closing, _) = pulse.watch(cx);
        if closing {
            return Poll::Ready(None);
        }
        reading.as_mut().poll(cx).map(|outcome| outcome.ok()?.ok())
    })
    .await?;
    if seen.is_empty() {
        return None;
    }
    let version = if seen.starts_with(PREFACE) {
        Version::Http2
    } else {
        Version::Http1
    };
    Some((version, seen.freeze()))
}

/// Serves a client until its connection ends.
pub(crate) async fn serve(client: Arc<Client>, stream: Stream, ahead: Bytes) {
    let wire = Wire::new(stream, ahead, Watcher::Client(Arc::clone(&client.pulse)));
    match client.version {
        Version::Http1 => serve_http1(client, wire).await,
        Version::Http2 => serve_http2(client, wire).await,
    }
}

/// How a connection ended.
enum End {
    Closed(Result<(), hyper::Error>),
    /// Between requests, for too long.
    Idle,
    /// A head did not come whole in time.
    HeadLate,
    /// A request or a response stood still for too long.
    Stuck,
}

async fn serve_http1(client: Arc<Client>, wire: Wire) {
    let largest_head = client.site.load().settings.largest_head;
    let service = {
        let client = Arc::clone(&client);
        service_fn(move |request| exchange(Arc::clone(&client), request))
    };
    let mut conn = http1::Builder::new()
        .max_buf_size(largest_head.max(8 * 1024) + 1024)
        .serve_connection(TokioIo::new(wire), service)
        .with_upgrades();
    let pulse = &*client.pulse;
    let mut alarm = Alarm::new(&client.hall.clock);
    let mut told = false;
    let end = poll_fn(|cx| {
        let (closing, _) = pulse.watch(cx);
        if closing && !told {
            told = true;
            Pin::new(&mut conn).graceful_shutdown();
        }
        loop {
            if let Poll::Ready(outcome) = Pin::new(&mut conn).poll(cx) {
                return Poll::Ready(End::Closed(outcome));
            }
            let deadline = {
                let state = pulse.state();
                state.deadline.min(state.limit)
            };
            if alarm.poll_until(cx, deadline).is_pending() {
                return Poll::Pending;
            }
            let mut state = pulse.state();
            match state.phase {
                Phase::Idle => return Poll::Ready(End::Idle),
                Phase::Head => return Poll::Ready(End::HeadLate),
                Phase::Busy if !state.expired => {
                    // The request answers for itself; the connection waits once more for it to do so.
                    state.expired = true;
                    state.limit = Instant::NEVER;
                    state.deadline = client.hall.clock.now() + client.idle;
                }
                Phase::Busy | Phase::Answering => return Poll::Ready(End::Stuck),
            }
        }
    })
    .await;
    match end {
        End::Closed(Ok(())) => {
            if let Some(tunnel) = pulse.take_tunnel() {
                carry(&client, pin!(tunnel.run())).await;
            }
        }
        End::Closed(Err(error)) => {
            if error.is_parse() {
                client.hall.metrics.count(Count::Malformed);
                let status = if error.to_string().contains("URI too long") {
                    414
                } else if error.is_parse_too_large() {
                    431
                } else {
                    400
                };
                note(&client, status, Finding::MALFORMED);
            }
        }
        End::HeadLate => {
            note(&client, 408, Finding::default());
            if let Some(parts) = conn.into_parts() {
                let mut wire = parts.io.into_inner();
                let answer = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                let _ = wire.write_all(answer).await;
                let _ = wire.shutdown().await;
            }
        }
        End::Idle | End::Stuck => {}
    }
}

/// Carries a tunnel until it ends or stands still for too long. When the proxy or its listener is to stop, it may go on for
/// the time to drain, after which its task is ended.
async fn carry(client: &Client, mut tunnel: Pin<&mut impl Future<Output = ()>>) {
    let pulse = &*client.pulse;
    let mut alarm = Alarm::new(&client.hall.clock);
    poll_fn(|cx| {
        let (_, deadline) = pulse.watch(cx);
        if tunnel.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        alarm.poll_until(cx, deadline)
    })
    .await;
}

async fn serve_http2(client: Arc<Client>, wire: Wire) {
    let largest_head = client.site.load().settings.largest_head;
    let service = {
        let client = Arc::clone(&client);
        service_fn(move |request| exchange(Arc::clone(&client), request))
    };
    let mut conn = pin!(
        http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .max_header_list_size(u32::try_from(largest_head).unwrap_or(u32::MAX))
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(1 << 22)
            .serve_connection(TokioIo::new(wire), service)
    );
    let pulse = &*client.pulse;
    let mut alarm = Alarm::new(&client.hall.clock);
    let mut told = false;
    let mut parting = false;
    // When it is to be looked at whether anything stands still.
    let mut look = pulse.state().rested;
    let outcome = poll_fn(|cx| {
        let (closing, _) = pulse.watch(cx);
        if closing && !told {
            told = true;
            conn.as_mut().graceful_shutdown();
        }
        loop {
            if let Poll::Ready(outcome) = conn.as_mut().poll(cx) {
                return Poll::Ready(Some(outcome));
            }
            if alarm.poll_until(cx, look).is_pending() {
                return Poll::Pending;
            }
            let now = client.hall.clock.now();
            let state = pulse.state();
            let (active, rested) = (state.active, state.rested);
            let stuck = state.stuck(now, client.idle);
            let first = state.first_offer();
            drop(state);
            // Bytes alone, a ping now and then, keep no connection: requests do, and clients that take their answers.
            let over = if active == 0 {
                now >= rested
            } else {
                stuck > 0
            };
            if !over {
                let next = if active == 0 {
                    rested
                } else {
                    first.unwrap_or(now) + client.idle
                };
                // Never at once again.
                look = next.max(now + LOOK);
                continue;
            }
            if parting || (active > 0 && stuck == active as usize) {
                return Poll::Ready(None);
            }
            // No more requests; other streams have as much time again to finish.
            parting = true;
            look = now + client.idle;
            conn.as_mut().graceful_shutdown();
        }
    })
    .await;
    if let Some(Err(error)) = outcome
        && error.is_parse()
    {
        client.hall.metrics.count(Count::Malformed);
        note(&client, 400, Finding::MALFORMED);
    }
}

/// Counts and logs a response to what never became a request.
fn note(client: &Client, status: u16, finding: Finding) {
    let hall = &client.hall;
    hall.metrics.own_response(status);
    hall.metrics.count(Count::Requests);
    if let Some(log) = &hall.access {
        let now = hall.clock.timestamp(hall.clock.now());
        let mut record = blank_record(client, now);
        record.status = status;
        record.finding = finding;
        record.request = "- http://-:-- -".to_owned();
        log.write(&record);
    }
}

/// A record of the access log with what the connection knows.
pub(crate) fn blank_record(client: &Client, created: sim_core::time::Timestamp) -> Record {
    Record {
        kind: if client.secure.is_some() {
            "https"
        } else {
            "http"
        },
        time: created,
        balancer: Arc::clone(&client.hall.name),
        client: client.peer,
        request_time: None,
        target_time: None,
        response_time: None,
        status: 0,
        target_status: None,
        received_bytes: 0,
        sent_bytes: 0,
        request: String::new(),
        user_agent: None,
        cipher: client.secure.as_ref().map(|info| info.cipher),
        protocol: client.secure.as_ref().map(|info| info.version),
        target_group: None,
        trace_id: None,
        domain: client
            .secure
            .as_ref()
            .and_then(|info| info.server_name.clone()),
        rule: None,
        matched: false,
        created,
        actions: String::new(),
        redirect: None,
        error: None,
        targets: Vec::new(),
        target_statuses: Vec::new(),
        finding: Finding::default(),
        connection: client.id.clone(),
        transformed_host: None,
        transformed_uri: None,
    }
}

/// One timer that is set late: it stands at an earlier deadline than asked for as long as that has not come.
struct Alarm<'a> {
    clock: &'a Clock,
    sleep: Sleep,
    armed: bool,
}

impl<'a> Alarm<'a> {
    fn new(clock: &'a Clock) -> Self {
        Self {
            clock,
            sleep: clock.sleep_until(Instant::NEVER),
            armed: false,
        }
    }

    fn poll_until(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let set_for = self.sleep.deadline();
        // Nearly always: the timer stands, early enough, and cannot have fired.
        if self.armed && set_for <= deadline && self.clock.recent() + self.clock.lag() < set_for {
            return Poll::Pending;
        }
        if !self.armed || set_for > deadline {
            self.sleep.reset(deadline);
        }
        loop {
            if Pin::new(&mut self.sleep).poll(cx).is_pending() {
                self.armed = true;
                return Poll::Pending;
            }
            self.armed = false;
            if self.clock.now() >= deadline {
                return Poll::Ready(());
            }
            self.sleep.reset(deadline);
        }
    }
}
