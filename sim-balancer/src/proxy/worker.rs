//! A worker: a thread with a runtime of its own, which accepts and serves connections on sockets of its own.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use sim_core::snapshot::Snapshot;
use sim_core::sync::{Arc, Mutex};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::config::Protocol;
use super::http::field;
use super::http::metric::Count;
use super::http::serve::{Client, Version, serve, sniff};
use super::http::site::{Hall, Site, Worker};
use super::http::wire::{Pulse, Stream};
use super::log::{ConnectionRecord, connection_id};
use super::tls::TlsInfo;

/// How often a worker closes connections to targets that have rested for too long.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// How long a worker waits before it accepts again after it could not, as when the process has no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How far the end of a proxy has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    Running,
    /// What is under way may finish.
    Draining,
    /// All ends now.
    Ended,
}

/// A listener: its sockets, one a worker, and what it does at present.
pub(crate) struct Gate {
    pub(crate) id: u64,
    pub(crate) name: Mutex<Arc<str>>,
    /// As it is bound.
    pub(crate) address: SocketAddr,
    /// As it was asked for, with port 0 where any free one was.
    pub(crate) asked: SocketAddr,
    pub(crate) protocol: Protocol,
    pub(crate) site: Arc<Snapshot<Site>>,
    pub(crate) sockets: Mutex<Vec<Option<std::net::TcpListener>>>,
    /// Of listeners for datagrams.
    pub(crate) datagrams: Mutex<Vec<Option<std::net::UdpSocket>>>,
}

/// Runs a worker until its end.
pub(crate) fn work(
    worker: &Arc<Worker>,
    gates: watch::Receiver<Arc<[Arc<Gate>]>>,
    stage: watch::Receiver<Stage>,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(tend(worker, gates, stage));
    runtime.shutdown_background();
    Ok(())
}

/// Keeps one accept loop for each listener, and sweeps.
async fn tend(
    worker: &Arc<Worker>,
    mut gates: watch::Receiver<Arc<[Arc<Gate>]>>,
    mut stage: watch::Receiver<Stage>,
) {
    let mut loops: JoinSet<()> = JoinSet::new();
    let mut open: BTreeMap<u64, (Arc<Gate>, watch::Sender<Stage>)> = BTreeMap::new();
    let mut tick = tokio::time::interval(SWEEP_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut known = true;
    loop {
        let now = *stage.borrow_and_update();
        if now == Stage::Ended {
            return;
        }
        if now == Stage::Draining {
            for (_, stop) in open.values() {
                stop.send_replace(Stage::Draining);
            }
            open.clear();
            if loops.is_empty() {
                return;
            }
        } else if known {
            let present = Arc::clone(&gates.borrow_and_update());
            open.retain(|id, (_, stop)| {
                let stays = present.iter().any(|gate| gate.id == *id);
                if !stays {
                    stop.send_replace(Stage::Draining);
                }
                stays
            });
            for gate in present
                .iter()
                .filter(|gate| !open.contains_key(&gate.id))
                .cloned()
                .collect::<Vec<_>>()
            {
                let (stop, stopping) = watch::channel(Stage::Running);
                let socket = gate
                    .sockets
                    .lock()
                    .get_mut(worker.index)
                    .and_then(Option::take);
                if let Some(socket) = socket.and_then(|socket| TcpListener::from_std(socket).ok()) {
                    loops.spawn(accept(
                        Arc::clone(worker),
                        Arc::clone(&gate),
                        socket,
                        stopping.clone(),
                    ));
                }
                let socket = gate
                    .datagrams
                    .lock()
                    .get_mut(worker.index)
                    .and_then(Option::take);
                if let Some(socket) = socket.and_then(|socket| UdpSocket::from_std(socket).ok())
                    && let Some(passing) = gate.site.load().pass.clone()
                {
                    loops.spawn(async move {
                        passing
                            .pass
                            .serve_udp(socket, reaches(stopping, Stage::Draining))
                            .await;
                    });
                }
                open.insert(gate.id, (gate, stop));
            }
        }
        known = false;
        tokio::select! {
            changed = gates.changed() => known = changed.is_ok(),
            changed = stage.changed() => if changed.is_err() { return; },
            Some(_) = loops.join_next() => {}
            _ = tick.tick() => {
                for (gate, _) in open.values() {
                    sweep(worker, &gate.site.load_arc());
                }
            }
        }
    }
}

fn sweep(worker: &Worker, site: &Site) {
    let now = worker.hall.clock.now();
    for group in site.groups.iter() {
        group.sweep(worker.index, now);
    }
}

/// Accepts connections until told to stop, then lets those that are open finish.
async fn accept(
    worker: Arc<Worker>,
    gate: Arc<Gate>,
    socket: TcpListener,
    mut stage: watch::Receiver<Stage>,
) {
    let hall = &worker.hall;
    let mut tasks: JoinSet<u64> = JoinSet::new();
    let mut pulses: BTreeMap<u64, Arc<Pulse>> = BTreeMap::new();
    let mut next = 0;
    loop {
        tokio::select! {
            accepted = socket.accept() => {
                let Ok((stream, peer)) = accepted else {
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                };
                let Some(place) = Place::take(hall, gate.site.load().settings.max_connections) else {
                    hall.metrics.count(Count::RejectedConnections);
                    continue;
                };
                hall.metrics.count(Count::NewConnections);
                let idle = gate.site.load().settings.idle_timeout;
                let pulse = Arc::new(Pulse::new(hall.clock.clone(), idle, true));
                let id = next;
                next += 1;
                pulses.insert(id, Arc::clone(&pulse));
                let (worker, gate) = (Arc::clone(&worker), Arc::clone(&gate));
                tasks.spawn(async move {
                    greet(worker, &gate, stream, peer, pulse).await;
                    drop(place);
                    id
                });
            }
            Some(ended) = tasks.join_next() => if let Ok(id) = ended { pulses.remove(&id); },
            _ = stage.changed() => break,
        }
    }
    drop(socket);
    let patience = gate.site.load().settings.drain_timeout;
    for pulse in pulses.values() {
        pulse.close();
    }
    let mut late = pin!(tokio::time::sleep(patience));
    while !tasks.is_empty() {
        tokio::select! {
            _ = tasks.join_next() => {}
            () = &mut late => break,
        }
    }
    // What is still open is closed with the set of tasks.
}

/// A connection's place among those that may be open.
struct Place(Arc<Hall>);

impl Place {
    fn take(hall: &Arc<Hall>, most: usize) -> Option<Self> {
        let mut open = hall.open.lock();
        if *open >= most {
            return None;
        }
        *open += 1;
        Some(Self(Arc::clone(hall)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        *self.0.open.lock() -= 1;
        self.0.metrics.count(Count::ClosedConnections);
    }
}

/// Reads what comes before HTTP (the PROXY protocol, TLS), then serves.
async fn greet(
    worker: Arc<Worker>,
    gate: &Gate,
    stream: TcpStream,
    peer: SocketAddr,
    pulse: Arc<Pulse>,
) {
    let hall = Arc::clone(&worker.hall);
    let site = gate.site.load_arc();
    let settings = &site.settings;
    if let Some(passing) = &site.pass {
        let pass = passing.pass.clone();
        drop(site);
        pass.serve_stream(stream, peer).await;
        return;
    }
    let _ = stream.set_nodelay(true);
    let Ok(local) = stream.local_addr() else {
        return;
    };
    let (mut peer, mut local) = (peer, local);
    let id = if hall.access.is_some() || hall.connections.is_some() {
        connection_id([worker.draw(), worker.draw()])
    } else {
        String::new()
    };
    let mut secure: Option<Arc<TlsInfo>> = None;
    let mut stream = match (&site.prefix, &site.tls) {
        (None, None) => Stream::Tcp(stream),
        (prefix, tls) => {
            let prefixed = match prefix {
                Some(reader) => {
                    let Ok((prefix, prefixed)) = reader.read(stream, peer.ip()).await else {
                        hall.metrics.count(Count::Malformed);
                        return;
                    };
                    if let Some(prefix) = prefix {
                        peer = prefix.source().unwrap_or(peer);
                        local = prefix.destination().unwrap_or(local);
                    }
                    prefixed
                }
                None => super::prefix::Prefixed::new(bytes::Bytes::new(), stream),
            };
            match tls {
                None => Stream::Other(Box::new(prefixed)),
                Some(acceptor) => {
                    let began = hall.clock.now();
                    let accepted = acceptor.accept(prefixed).await;
                    let took = hall.clock.now().saturating_duration_since(began);
                    let info = accepted
                        .as_ref()
                        .ok()
                        .map(|stream| Arc::clone(stream.info()));
                    let failure = accepted.as_ref().err().map(ToString::to_string);
                    note(
                        &hall,
                        peer,
                        settings.port,
                        info.as_deref(),
                        Some(took),
                        failure,
                        &id,
                    );
                    let Ok(stream) = accepted else {
                        hall.metrics.count(Count::ClientTlsErrors);
                        return;
                    };
                    secure = info;
                    Stream::Other(Box::new(stream))
                }
            }
        }
    };
    if secure.is_none() {
        note(&hall, peer, settings.port, None, None, None, &id);
    }
    let negotiated = secure.as_ref().is_some_and(|info| info.is_http2());
    let Some((spoken, ahead)) = sniff(&mut stream, &pulse, settings.idle_timeout).await else {
        return;
    };
    // Prior knowledge counts where there is no ALPN; with it, what was agreed on.
    let version = match (secure.is_some(), negotiated, spoken) {
        (true, true, _) | (false, _, Version::Http2) => Version::Http2,
        _ => Version::Http1,
    };
    if version == Version::Http2 {
        if !settings.http2 {
            return;
        }
        pulse.stop_tapping();
    }
    let client = Arc::new(Client {
        address: field::client_value(peer, settings.xff_client_port),
        idle: settings.idle_timeout,
        retires: hall.clock.now() + settings.client_keep_alive,
        hall,
        worker,
        site: Arc::clone(&gate.site),
        peer,
        local,
        secure,
        pulse,
        id,
        version,
    });
    drop(site);
    serve(client, stream, ahead).await;
}

/// Logs a connection.
fn note(
    hall: &Hall,
    peer: SocketAddr,
    port: u16,
    info: Option<&TlsInfo>,
    handshake: Option<Duration>,
    failure: Option<String>,
    id: &str,
) {
    let Some(log) = &hall.connections else {
        return;
    };
    let certificate = info.and_then(|info| info.client.as_ref());
    let text = |value: Option<&::http::HeaderValue>| Some(value?.to_str().ok()?.to_owned());
    let verified = match (&failure, certificate) {
        (Some(failure), _) => Some(format!("Failed:{failure}")),
        (None, Some(_)) => Some("Success".to_owned()),
        (None, None) => None,
    };
    log.write(&ConnectionRecord {
        time: hall.clock.timestamp(hall.clock.now()),
        client: peer,
        port,
        protocol: info.map(|info| info.version),
        cipher: info.map(|info| info.cipher),
        handshake,
        subject: certificate.and_then(|certificate| text(certificate.subject.as_ref())),
        validity: certificate.and_then(|certificate| text(certificate.validity.as_ref())),
        serial: certificate.and_then(|certificate| text(certificate.serial_number.as_ref())),
        verified,
        connection: id.to_owned(),
    });
}

/// Completes when the stage is at least `wanted`, or its sender is gone.
pub(crate) async fn reaches(mut stage: watch::Receiver<Stage>, wanted: Stage) {
    let _ = stage.wait_for(|stage| *stage >= wanted).await;
}
