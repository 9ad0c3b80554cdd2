//! Pass-through listeners: TCP, TLS that ends here, and UDP, without a look at what passes.
//!
//! A [`Pass`] takes connections or datagrams, sends each flow to a target of a [`Balancer`] by the hash of its addresses,
//! and copies both directions. What a flow is:
//!
//! | protocol | flow | ends |
//! | --- | --- | --- |
//! | TCP, TLS | a connection | when both sides ended it, one broke it, or neither sent anything for [`idle_timeout`](PassConfig::idle_timeout) |
//! | UDP | what one client's address and port sends | when neither side sent anything for [`udp_idle_timeout`](PassConfig::udp_idle_timeout) |
//!
//! The balancer chooses by the key only if its algorithm hashes (`Maglev`, `RingHash`, ...); with others, flows go where
//! these send them. A flow stays with its target until it ends, also when the target is deregistered or becomes
//! unhealthy, unless the balancer's rules have connections terminated.
//!
//! # Guarantees
//! - **Half-close**: the end of one direction is passed on, and the other goes on.
//! - **No false end**: where one side breaks the connection, the other sees it reset, not ended.
//! - **Memory**: a flow without traffic holds no buffers; one whose receiver is slow holds at most 16 KiB a direction.
//!   Flows are bounded by [`max_flows`](PassConfig::max_flows) and [`max_udp_flows`](PassConfig::max_udp_flows).
//! - Everything runs in the futures that are called; what they start ends with them.
//!
//! # What it is not
//! A process cannot send from its client's address: targets see the proxy's. [`PassConfig::proxy_protocol`] tells them
//! the client's. For TLS that a client ends without saying so (`close_notify`) the target sees a reset.

mod accepted;
mod count;
mod datagram;
mod duplex;
mod flow;

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use sim_core::clock::Clock;
use sim_core::sync::Arc;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::Balancer;

pub use self::accepted::Accepted;
pub use self::count::PassStats;
pub use self::flow::{FlowEnd, FlowReport};

use self::count::Counts;
use super::config::{ListenerConfig, ProxyConfig, StickinessKind, TargetGroupConfig};
use super::prefix::{PrefixReader, Version};
use super::tls::{TlsAcceptor, TlsConnector};

/// How long a listener rests that cannot accept because a resource of the system ran out.
const REST: Duration = Duration::from_millis(50);

/// How a [`Pass`] treats flows.
///
/// Write it as a literal that ends in `..Default::default()`; fields may be added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassConfig {
    /// How long a connection may stand without a byte in either direction; more than zero. Default: 350 s; AWS: 60 to
    /// 6,000 s.
    pub idle_timeout: Duration,
    /// How long a UDP flow may stand without a datagram in either direction; more than zero. Default: 120 s, AWS's.
    pub udp_idle_timeout: Duration,
    /// How long a connection to a target may take to open, its TLS included; more than zero. Default: 10 s.
    pub connect_timeout: Duration,
    /// How many targets are tried for a connection; at least 1. Default: 3.
    pub attempts: u32,
    /// The most connections at a time; more are reset at once. At least 1. Default: 65,536.
    pub max_flows: usize,
    /// The most UDP flows at a time; datagrams of more are dropped. At least 1. Default: 65,536, and less where the system
    /// grants fewer sockets.
    pub max_udp_flows: usize,
    /// How long flows may go on once the listener is told to stop. Default: 30 s.
    pub drain_timeout: Duration,
    /// By which version of the PROXY protocol targets are told of the client. Version 2 tells of datagrams too, each of
    /// which then begins with the header. Default: they are not told.
    pub proxy_protocol: Option<Version>,
    /// How a flow's end by the proxy looks to the client. Default: [`Reset::Never`].
    pub reset: Reset,
    /// What a connection's target is chosen by. Default: [`FlowKey::FiveTuple`].
    pub tcp_key: FlowKey,
    /// What a UDP flow's target is chosen by. Default: [`FlowKey::FiveTuple`].
    pub udp_key: FlowKey,
    /// Whether targets should see the client's address as the peer's. Data only: a process cannot do it.
    pub preserve_client_ip: bool,
}

impl Default for PassConfig {
    fn default() -> Self {
        Self {
            idle_timeout: Duration::from_secs(350),
            udp_idle_timeout: Duration::from_secs(120),
            connect_timeout: Duration::from_secs(10),
            attempts: 3,
            max_flows: 65_536,
            max_udp_flows: 65_536,
            drain_timeout: Duration::from_secs(30),
            proxy_protocol: None,
            reset: Reset::Never,
            tcp_key: FlowKey::FiveTuple,
            udp_key: FlowKey::FiveTuple,
            preserve_client_ip: false,
        }
    }
}

impl PassConfig {
    /// How `listener`, one of `proxy`'s, treats flows to `group`.
    #[must_use]
    pub fn of_listener(
        listener: &ListenerConfig,
        group: &TargetGroupConfig,
        proxy: &ProxyConfig,
    ) -> Self {
        let key = match group.stickiness.kind {
            StickinessKind::SourceIp => FlowKey::SourceIp,
            _ => FlowKey::FiveTuple,
        };
        Self {
            idle_timeout: listener.idle_timeout,
            udp_idle_timeout: listener.udp_idle_timeout,
            connect_timeout: proxy.attributes.connect_timeout,
            max_flows: proxy.attributes.max_connections,
            drain_timeout: proxy.attributes.drain_timeout,
            proxy_protocol: group.proxy_protocol_v2.then_some(Version::V2),
            reset: if group.send_tcp_reset {
                Reset::Send
            } else {
                Reset::Never
            },
            tcp_key: key,
            udp_key: key,
            preserve_client_ip: group.preserve_client_ip,
            ..Self::default()
        }
    }

    /// Checks every field.
    ///
    /// # Errors
    /// The first field that is out of its range.
    pub fn check(&self) -> Result<(), PassConfigError> {
        for (field, value) in [
            ("idle_timeout", self.idle_timeout),
            ("udp_idle_timeout", self.udp_idle_timeout),
            ("connect_timeout", self.connect_timeout),
        ] {
            if value.is_zero() {
                return Err(PassConfigError { field });
            }
        }
        for (field, value) in [
            ("attempts", self.attempts as usize),
            ("max_flows", self.max_flows),
            ("max_udp_flows", self.max_udp_flows),
        ] {
            if value == 0 {
                return Err(PassConfigError { field });
            }
        }
        Ok(())
    }
}

/// A setting of a [`PassConfig`] that is zero, and must not be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} is 0, and must be more")]
#[non_exhaustive]
pub struct PassConfigError {
    /// Which.
    pub field: &'static str,
}

/// How a flow that the proxy ends looks to the client: one that stood idle, whose target is not reached or goes, or that
/// outlives the drain.
///
/// What the target itself breaks is reset in any case.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Reset {
    /// As if the target had ended it.
    #[default]
    Never,
    /// As if the target had broken it: the attribute `send_tcp_reset`.
    Send,
}

/// What the target of a flow is chosen by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum FlowKey {
    /// Protocol, both addresses and both ports: each connection by itself.
    #[default]
    FiveTuple,
    /// Protocol and both addresses: all that a client sends to this address.
    ThreeTuple,
    /// The client's address: stickiness by `source_ip`.
    SourceIp,
}

/// Where a target is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// At an address.
    Socket(SocketAddr),
    /// At a port of a host, which is looked up for each flow.
    Name(String, u16),
}

impl From<SocketAddr> for Place {
    fn from(address: SocketAddr) -> Self {
        Self::Socket(address)
    }
}

/// A listener's way to its targets; cheap to clone, clones are the same.
///
/// `T` is what the balancer holds.
pub struct Pass<T> {
    shared: Arc<Shared<T>>,
}

struct Shared<T> {
    config: PassConfig,
    balancer: Balancer<T>,
    /// `None` for a target that is no place, such as a function.
    place: fn(&T) -> Option<Place>,
    tls: Option<TlsAcceptor>,
    prefix: Option<PrefixReader>,
    target_tls: Option<TlsConnector>,
    clock: Clock,
    counts: Counts,
    /// Turns true when what still runs is to end.
    ending: watch::Sender<bool>,
}

impl<T> Clone for Pass<T> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<T> fmt::Debug for Pass<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pass")
            .field("config", &self.shared.config)
            .finish_non_exhaustive()
    }
}

/// What a [`Pass`] is made with besides its settings.
#[derive(Debug, Clone, Default)]
pub struct PassLayers {
    /// Takes TLS off the clients' connections.
    pub tls: Option<TlsAcceptor>,
    /// Reads the PROXY protocol off them, before TLS.
    pub prefix: Option<PrefixReader>,
    /// Puts TLS on the connections to targets, after the PROXY protocol's header.
    pub target_tls: Option<TlsConnector>,
}

impl<T: Send + Sync + 'static> Pass<T> {
    /// Makes a way to the targets of `balancer`, each of which is where `place` says.
    ///
    /// # Errors
    /// A setting that is out of its range.
    pub fn new(
        config: PassConfig,
        layers: PassLayers,
        balancer: Balancer<T>,
        place: fn(&T) -> Option<Place>,
    ) -> Result<Self, PassConfigError> {
        config.check()?;
        let clock = balancer.clock().clone();
        Ok(Self {
            shared: Arc::new(Shared {
                config,
                balancer,
                place,
                tls: layers.tls,
                prefix: layers.prefix,
                target_tls: layers.target_tls,
                clock,
                counts: Counts::default(),
                ending: watch::Sender::new(false),
            }),
        })
    }

    /// Its numbers.
    #[must_use]
    pub fn stats(&self) -> PassStats {
        self.shared.counts.read()
    }

    /// Ends what still runs, now: what the drain's end does.
    pub fn end(&self) {
        self.shared.ending.send_replace(true);
    }

    /// Serves the connections of a listener until `shutdown` completes, and then those that are open until they end or the
    /// drain's time is over.
    ///
    /// # Cancel safety
    /// Dropping it ends all of its connections.
    pub async fn serve_tcp(&self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        let mut flows = JoinSet::new();
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut shutdown => break,
                Some(_ended) = flows.join_next(), if !flows.is_empty() => continue,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let pass = self.clone();
                    flows.spawn(async move {
                        pass.serve_stream(stream, peer).await;
                    });
                }
                Err(error) => self.rest_after(&error).await,
            }
        }
        drop(listener);
        self.drain(&mut flows).await;
    }

    /// Serves the datagrams of a socket until `shutdown` completes, and then those of the flows that there are until they
    /// expire or the drain's time is over.
    ///
    /// # Cancel safety
    /// Dropping it ends all of its flows.
    pub async fn serve_udp(&self, socket: UdpSocket, shutdown: impl Future<Output = ()>) {
        datagram::serve(self, socket, shutdown).await;
    }

    /// Serves one connection of a client, as it was accepted: PROXY protocol, TLS, flow.
    ///
    /// # Cancel safety
    /// Dropping it closes both sides' connections.
    pub async fn serve_stream(&self, stream: TcpStream, peer: SocketAddr) -> FlowReport {
        flow::serve_stream(&self.shared, stream, peer).await
    }

    /// Serves one connection whose PROXY protocol and TLS were taken off: `client` came from `source` and wanted to reach
    /// `destination`.
    ///
    /// # Cancel safety
    /// Dropping it closes both sides' connections.
    pub async fn serve_flow(
        &self,
        client: Accepted,
        source: SocketAddr,
        destination: SocketAddr,
    ) -> FlowReport {
        flow::serve_flow(&self.shared, client, source, destination).await
    }

    /// Where sockets or memory ran out, trying again at once would only burn the processor.
    async fn rest_after(&self, error: &io::Error) {
        let of_the_connection = matches!(
            error.kind(),
            io::ErrorKind::ConnectionAborted
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::Interrupted
        );
        if !of_the_connection {
            let clock = &self.shared.clock;
            clock.sleep_until(clock.now() + REST).await;
        }
    }

    async fn drain<O: 'static>(&self, flows: &mut JoinSet<O>) {
        let clock = &self.shared.clock;
        let deadline = clock.now() + self.shared.config.drain_timeout;
        tokio::select! {
            biased;
            () = all_of(flows) => return,
            () = clock.sleep_until(deadline) => {}
        }
        self.end();
        all_of(flows).await;
    }
}

/// Completes when what still runs is to end.
async fn ended(ending: &mut watch::Receiver<bool>) {
    // Without its sender there is nobody to end it.
    drop(ending.wait_for(|ending| *ending).await);
}

async fn all_of<O: 'static>(flows: &mut JoinSet<O>) {
    while flows.join_next().await.is_some() {}
}

#[cfg(test)]
mod tests;
