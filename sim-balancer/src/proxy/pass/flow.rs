//! One connection from its acceptance to its end.

use std::net::SocketAddr;
use std::time::Duration;

use sim_core::time::Instant;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::accepted::{Accepted, Reached};
use super::count::Counts;
use super::duplex::{self, Copied};
use super::{FlowKey, Place, Reset, Shared, ended};
use crate::Lease;
use crate::algorithm::flow as key;
use crate::error::PickError;
use crate::message::{Outcome, Request, TargetId};
use crate::proxy::prefix::{Addresses, Prefix, ReadPrefixError, encode};
use crate::proxy::tls::HandshakeError;

/// How a connection ended.
#[derive(Debug)]
#[non_exhaustive]
pub enum FlowEnd {
    /// Both sides ended it.
    Finished,
    /// Neither side sent anything for too long.
    Idle,
    /// The client broke it.
    ClientBroke,
    /// The target broke it.
    TargetBroke,
    /// The target was deregistered, or became unhealthy, and its connections are terminated.
    Terminated,
    /// It outlived the drain.
    Cut,
    /// There were too many.
    Rejected,
    /// Its header of the PROXY protocol was refused.
    Prefix(ReadPrefixError),
    /// Its handshake of TLS failed.
    Handshake(HandshakeError),
    /// There was no target.
    NoTarget(PickError),
    /// No target that was tried was reached.
    Unreachable,
}

/// What became of a connection.
#[derive(Debug)]
#[non_exhaustive]
pub struct FlowReport {
    /// How it ended.
    pub end: FlowEnd,
    /// The target that it went to, if it came that far.
    pub target: Option<TargetId>,
    /// Bytes from the client to the target.
    pub bytes_in: u64,
    /// Bytes from the target to the client.
    pub bytes_out: u64,
    /// From its acceptance to its end.
    pub elapsed: Duration,
}

/// Serves a connection as it was accepted.
pub(super) async fn serve_stream<T: Send + Sync + 'static>(
    shared: &Shared<T>,
    stream: TcpStream,
    peer: SocketAddr,
) -> FlowReport {
    let mut flow = Flow::new(shared);
    let Some(_open) = Open::enter(shared) else {
        flow.reset(&stream);
        return flow.ended(FlowEnd::Rejected);
    };
    let end = match flow.unwrap(stream, peer).await {
        Ok((client, source, destination)) => flow.run(client, source, destination).await,
        Err(end) => end,
    };
    flow.ended(end)
}

/// Serves a connection whose PROXY protocol and TLS were taken off.
pub(super) async fn serve_flow<T: Send + Sync + 'static>(
    shared: &Shared<T>,
    client: Accepted,
    source: SocketAddr,
    destination: SocketAddr,
) -> FlowReport {
    let mut flow = Flow::new(shared);
    let Some(_open) = Open::enter(shared) else {
        flow.reset(client.socket());
        return flow.ended(FlowEnd::Rejected);
    };
    let end = flow.run(client, source, destination).await;
    flow.ended(end)
}

/// A connection's place among those that may be open.
struct Open<'a>(&'a Counts);

impl<'a> Open<'a> {
    fn enter<T>(shared: &'a Shared<T>) -> Option<Self> {
        let counts = &shared.counts;
        if !counts.active.enter(shared.config.max_flows) {
            return None;
        }
        counts.opened.add(1);
        Some(Self(counts))
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.active.leave();
    }
}

/// A connection under way.
struct Flow<'a, T> {
    shared: &'a Shared<T>,
    started: Instant,
    target: Option<TargetId>,
    bytes_in: u64,
    bytes_out: u64,
}

impl<'a, T: Send + Sync + 'static> Flow<'a, T> {
    fn new(shared: &'a Shared<T>) -> Self {
        Self {
            shared,
            started: shared.clock.now(),
            target: None,
            bytes_in: 0,
            bytes_out: 0,
        }
    }

    fn ended(self, end: FlowEnd) -> FlowReport {
        let counts = &self.shared.counts;
        match &end {
            FlowEnd::Finished => counts.finished.add(1),
            FlowEnd::Idle => counts.idle.add(1),
            FlowEnd::ClientBroke => counts.client_resets.add(1),
            FlowEnd::TargetBroke => counts.target_resets.add(1),
            FlowEnd::Terminated => counts.terminated.add(1),
            FlowEnd::Cut => counts.cut.add(1),
            FlowEnd::Prefix(_) => counts.prefix_failures.add(1),
            FlowEnd::Handshake(_) => counts.handshake_failures.add(1),
            FlowEnd::NoTarget(_) | FlowEnd::Unreachable => counts.unserved.add(1),
            FlowEnd::Rejected => counts.rejected.add(1),
        }
        FlowReport {
            end,
            target: self.target,
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            elapsed: self
                .shared
                .clock
                .now()
                .saturating_duration_since(self.started),
        }
    }

    /// Has the socket reset when it is dropped.
    fn reset(&self, socket: &TcpStream) {
        // It fails on a socket that is broken already.
        if socket.set_zero_linger().is_ok() {
            self.shared.counts.own_resets.add(1);
        }
    }

    /// Ends a client's connection of the proxy's own accord.
    fn end_client(&self, client: &Accepted) {
        if self.shared.config.reset == Reset::Send {
            self.reset(client.socket());
        }
    }

    /// Takes off the PROXY protocol and TLS; gives the client's address and the one that it wanted to reach.
    async fn unwrap(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
    ) -> Result<(Accepted, SocketAddr, SocketAddr), FlowEnd> {
        let shared = self.shared;
        // A socket that is gone already shows it at the first read.
        let local = stream.local_addr().unwrap_or(peer);
        let _ = stream.set_nodelay(true);
        let mut ending = shared.ending.subscribe();
        let unwrap = async {
            let (prefix, stream) = match &shared.prefix {
                Some(reader) => {
                    let read = reader.read(stream, peer.ip()).await;
                    read.map_err(FlowEnd::Prefix)?
                }
                None => (None, stream.into()),
            };
            let source = prefix.and_then(|prefix| prefix.source()).unwrap_or(peer);
            let destination = prefix
                .and_then(|prefix| prefix.destination())
                .unwrap_or(local);
            let client = match &shared.tls {
                Some(acceptor) => {
                    let accepted = acceptor.accept(stream).await;
                    Accepted::from(accepted.map_err(FlowEnd::Handshake)?)
                }
                None => Accepted::Plain(stream),
            };
            Ok((client, source, destination))
        };
        tokio::select! {
            biased;
            unwrapped = unwrap => unwrapped,
            () = ended(&mut ending) => Err(FlowEnd::Cut),
        }
    }

    /// Finds a target and copies.
    async fn run(
        &mut self,
        client: Accepted,
        source: SocketAddr,
        destination: SocketAddr,
    ) -> FlowEnd {
        let mut ending = self.shared.ending.subscribe();
        let reached = tokio::select! {
            biased;
            reached = self.reach(source, destination) => reached,
            () = ended(&mut ending) => Err(FlowEnd::Cut),
        };
        let (lease, target) = match reached {
            Ok(reached) => reached,
            Err(end) => {
                self.end_client(&client);
                return end;
            }
        };
        self.target = Some(lease.id().clone());
        self.exchange(client, target, lease).await
    }

    /// Picks targets until one is reached.
    async fn reach(
        &self,
        source: SocketAddr,
        destination: SocketAddr,
    ) -> Result<(Lease<T>, Reached), FlowEnd> {
        let shared = self.shared;
        let key = key_of(shared.config.tcp_key, key::TCP, source, destination);
        let mut avoid: Vec<TargetId> = Vec::new();
        for _ in 0..shared.config.attempts {
            let request = Request {
                key: Some(key),
                avoid: &avoid,
                ..Request::default()
            };
            let lease = match shared.balancer.try_pick_for(&request) {
                Ok(lease) => lease,
                Err(error) if avoid.is_empty() => return Err(FlowEnd::NoTarget(error)),
                Err(_) => break,
            };
            if avoid.contains(lease.id()) {
                // There is no other.
                break;
            }
            let deadline = shared.clock.now() + shared.config.connect_timeout;
            let reached = tokio::select! {
                biased;
                reached = self.connect(lease.target(), source, destination) => reached,
                () = shared.clock.sleep_until(deadline) => None,
            };
            if let Some(target) = reached {
                return Ok((lease, target));
            }
            shared.counts.connect_failures.add(1);
            avoid.push(lease.id().clone());
            lease.complete(Outcome::Unreachable);
        }
        Err(FlowEnd::Unreachable)
    }

    /// Opens a connection to a target and tells it of the client.
    async fn connect(
        &self,
        target: &T,
        source: SocketAddr,
        destination: SocketAddr,
    ) -> Option<Reached> {
        let shared = self.shared;
        let place = (shared.place)(target)?;
        let connected = match &place {
            Place::Socket(address) => TcpStream::connect(address).await,
            Place::Name(host, port) => TcpStream::connect((host.as_str(), *port)).await,
        };
        let mut stream = connected.ok()?;
        let _ = stream.set_nodelay(true);
        if let Some(version) = shared.config.proxy_protocol {
            let prefix = Prefix::Proxied(Addresses::stream(source, destination));
            stream.write_all(&encode(version, &prefix)).await.ok()?;
        }
        Some(match &shared.target_tls {
            None => Reached::Plain(stream),
            Some(connector) => {
                let host = match place {
                    Place::Socket(address) => address.ip().to_string(),
                    Place::Name(host, _) => host,
                };
                Reached::Tls(Box::new(connector.connect(stream, &host).await.ok()?))
            }
        })
    }

    /// Copies until the end.
    async fn exchange(
        &mut self,
        mut client: Accepted,
        mut target: Reached,
        lease: Lease<T>,
    ) -> FlowEnd {
        let shared = self.shared;
        let mut ending = shared.ending.subscribe();
        let meter = |inward, outward| {
            self.bytes_in += inward;
            self.bytes_out += outward;
            shared.counts.bytes_in.add(inward);
            shared.counts.bytes_out.add(outward);
        };
        let idle = shared.config.idle_timeout;
        let end = tokio::select! {
            biased;
            copied = duplex::copy(&mut client, &mut target, &shared.clock, idle, meter) => match copied {
                Copied::Finished => FlowEnd::Finished,
                Copied::Idle => FlowEnd::Idle,
                Copied::ClientBroke => FlowEnd::ClientBroke,
                Copied::TargetBroke => FlowEnd::TargetBroke,
            },
            () = lease.terminated() => FlowEnd::Terminated,
            () = ended(&mut ending) => FlowEnd::Cut,
        };
        match end {
            // What one side broke did not end: the other one must not take it for an end.
            FlowEnd::ClientBroke => {
                let _ = target.socket().set_zero_linger();
            }
            FlowEnd::TargetBroke => {
                let _ = client.socket().set_zero_linger();
            }
            FlowEnd::Finished => {}
            _ => {
                self.end_client(&client);
                if shared.config.reset == Reset::Send {
                    let _ = target.socket().set_zero_linger();
                }
            }
        }
        lease.complete(match end {
            FlowEnd::TargetBroke => Outcome::Failure,
            FlowEnd::Finished | FlowEnd::Idle => Outcome::Success,
            _ => Outcome::Cancelled,
        });
        end
    }
}

/// What a flow's target is chosen by.
pub(super) fn key_of(
    kind: FlowKey,
    protocol: u8,
    source: SocketAddr,
    destination: SocketAddr,
) -> u64 {
    match kind {
        FlowKey::FiveTuple => key::five_tuple(protocol, source, destination),
        FlowKey::ThreeTuple => key::three_tuple(protocol, source.ip(), destination.ip()),
        FlowKey::SourceIp => key::source_ip(source.ip()),
    }
}
