//! [`Group`]: a target group with its balancer; [`Endpoint`]: a target, with the connections to it that rest.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use http::{Request, Response};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use sim_core::clock::Clock;
use sim_core::sync::{Arc, Mutex};
use sim_core::time::Instant;
use tokio::net::TcpStream;
use tower::util::BoxCloneSyncService;

use super::body::{Body, BodyError, Outgoing};
use super::link::Link;
use super::metric::Metrics;
use super::retry::Policy;
use super::wire::{Stream, Watcher, Wire};
use crate::balancer::Balancer;
use crate::message::TargetId;
use crate::proxy::config::{GroupPlan, Protocol, ProtocolVersion, TargetTls};
use crate::proxy::pass::Place;
use crate::proxy::prefix;
use crate::proxy::tls::TlsConnector;

/// How many requests share an HTTP/2 connection to a target before another one is opened.
const STREAMS: usize = 100;

/// The most HTTP/2 connections to one target, a worker.
const MOST_SHARED: usize = 16;

/// A target that is a function: any tower service over HTTP.
pub type Function = BoxCloneSyncService<Request<Body>, Response<Body>, BodyError>;

/// Where a target is.
#[derive(Clone)]
#[non_exhaustive]
pub enum Address {
    /// A socket.
    Socket(SocketAddr),
    /// A host by name, with its port; looked up at each connection.
    Name(Arc<str>, u16),
    /// A function in this process.
    Function(Function),
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(address) => fmt::Display::fmt(address, f),
            Self::Name(host, port) => write!(f, "{host}:{port}"),
            Self::Function(_) => f.write_str("function"),
        }
    }
}

/// A target of a group.
pub struct Endpoint {
    address: Address,
    /// One a worker, so that a connection stays with the thread that opened it.
    shelves: Box<[Mutex<Shelf>]>,
    most_idle: usize,
    /// Whether a configuration names it.
    configured: bool,
    /// Where its health is checked.
    checked: Option<SocketAddr>,
}

/// The connections of one worker to one target.
#[derive(Default)]
struct Shelf {
    /// HTTP/1.1 connections at rest; the one used last is at the end.
    #[expect(
        clippy::vec_box,
        reason = "links move between shelf, request and response; a pointer moves cheaply"
    )]
    resting: Vec<Box<Link>>,
    /// HTTP/2 connections, in use or not.
    shared: Vec<Shared>,
}

struct Shared {
    send: http2::SendRequest<Outgoing>,
    /// Cloned by each request that uses it.
    users: Arc<()>,
    /// Of the [`Dial`] that it was made by.
    way: u64,
    used: Instant,
}

/// A stream of an HTTP/2 connection that may be opened.
pub(crate) struct Seat {
    pub(crate) send: http2::SendRequest<Outgoing>,
    pub(crate) user: Arc<()>,
}

impl Endpoint {
    /// A target that a configuration names.
    pub(crate) fn configured(address: Address, dial: &Dial) -> Self {
        Self {
            configured: true,
            ..Self::registered(address, dial)
        }
    }

    /// A target that a program registers itself.
    pub(crate) fn registered(address: Address, dial: &Dial) -> Self {
        Self {
            address,
            shelves: (0..dial.workers.max(1)).map(|_| Mutex::default()).collect(),
            most_idle: dial.most_idle,
            configured: false,
            checked: None,
        }
        .looked_up()
    }

    /// Looks up a name once, for checks; connections look it up each time.
    fn looked_up(mut self) -> Self {
        self.checked = match &self.address {
            Address::Socket(address) => Some(*address),
            Address::Name(host, port) => (&**host, *port)
                .to_socket_addrs()
                .ok()
                .and_then(|mut found| found.next()),
            Address::Function(_) => None,
        };
        self
    }

    /// Where flows to it go; nowhere when it is a function.
    pub(crate) fn place(target: &Arc<Self>) -> Option<Place> {
        match &target.address {
            Address::Socket(address) => Some(Place::Socket(*address)),
            Address::Name(host, port) => Some(Place::Name(host.to_string(), *port)),
            Address::Function(_) => None,
        }
    }

    /// Where its health is checked, if that is a socket.
    pub(crate) fn checked(&self) -> Option<SocketAddr> {
        self.checked
    }

    pub(crate) fn is_configured(&self) -> bool {
        self.configured
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Its socket, unless it is a name or a function.
    #[must_use]
    pub fn socket(&self) -> Option<SocketAddr> {
        match &self.address {
            Address::Socket(address) => Some(*address),
            Address::Name(..) | Address::Function(_) => None,
        }
    }

    /// Takes a connection that rests, is fit, and was made the way `dial` asks for.
    pub(crate) fn take(&self, worker: usize, dial: &Dial) -> Option<Box<Link>> {
        let mut shelf = self.shelves[worker].lock();
        while let Some(mut link) = shelf.resting.pop() {
            if link.way == dial.way && link.is_fit() {
                return Some(link);
            }
        }
        None
    }

    /// Puts a connection to rest, unless there are enough.
    fn rest(&self, worker: usize, link: Box<Link>) {
        let mut shelf = self.shelves[worker].lock();
        if shelf.resting.len() < self.most_idle {
            shelf.resting.push(link);
        }
    }

    /// Takes a seat on an HTTP/2 connection that has one and was made the way `dial` asks for.
    pub(crate) fn seat(&self, worker: usize, dial: &Dial, now: Instant) -> Option<Seat> {
        let mut shelf = self.shelves[worker].lock();
        // Streams that are under way on one that goes keep it open until they end.
        shelf
            .shared
            .retain(|shared| shared.way == dial.way && !shared.send.is_closed());
        let full = shelf.shared.len() >= MOST_SHARED;
        let shared = shelf
            .shared
            .iter_mut()
            .min_by_key(|shared| Arc::strong_count(&shared.users))?;
        if !full && Arc::strong_count(&shared.users) > STREAMS {
            return None;
        }
        shared.used = now;
        Some(Seat {
            send: shared.send.clone(),
            user: Arc::clone(&shared.users),
        })
    }

    fn share(
        &self,
        worker: usize,
        way: u64,
        send: http2::SendRequest<Outgoing>,
        now: Instant,
    ) -> Seat {
        let users = Arc::new(());
        let seat = Seat {
            send: send.clone(),
            user: Arc::clone(&users),
        };
        self.shelves[worker].lock().shared.push(Shared {
            send,
            users,
            way,
            used: now,
        });
        seat
    }

    /// Closes connections that have rested since before `before`.
    pub(crate) fn sweep(&self, worker: usize, before: Instant) {
        let mut shelf = self.shelves[worker].lock();
        shelf
            .resting
            .retain_mut(|link| link.rested >= before && link.is_fit());
        shelf.shared.retain(|shared| {
            !shared.send.is_closed()
                && (Arc::strong_count(&shared.users) > 1 || shared.used >= before)
        });
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// A link that a request holds, and where it goes back to.
pub(crate) struct Held {
    pub(crate) link: Box<Link>,
    pub(crate) home: Arc<Endpoint>,
    pub(crate) worker: usize,
    pub(crate) clock: Clock,
    /// Whether it may carry another request.
    pub(crate) reusable: bool,
}

impl Held {
    /// Puts the link to rest if it can carry another request, and closes it otherwise.
    pub(crate) fn release(mut self) {
        if self.reusable && self.link.settle() {
            self.link.rested = self.clock.recent();
            self.home.rest(self.worker, self.link);
        }
    }
}

/// What a group asks of connections to its targets.
#[derive(Debug, Clone)]
pub(crate) struct Dial {
    /// Differs where a reload changed how connections are made: those made before are not used any more then.
    pub(crate) way: u64,
    pub(crate) version: ProtocolVersion,
    pub(crate) connect_timeout: Duration,
    pub(crate) largest_head: usize,
    /// Whether targets are told the client's address by the PROXY protocol; such connections serve one client only.
    pub(crate) prefix: bool,
    pub(crate) idle_timeout: Duration,
    /// The most connections to a target that rest, a worker.
    pub(crate) most_idle: usize,
    pub(crate) workers: usize,
}

/// Why no connection to a target could be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    #[error("the target did not take the connection: {0}")]
    Connect(#[source] io::Error),
    #[error("the target did not take the connection in time")]
    Late,
    #[error("the TLS handshake with the target failed: {0}")]
    Tls(String),
    #[error("the target does not speak HTTP: {0}")]
    Http(#[source] hyper::Error),
}

/// A target group.
pub(crate) struct Group {
    pub(crate) name: Arc<str>,
    /// Of its balancer: another one after a reload that changed how targets are chosen or checked.
    pub(crate) serial: u64,
    pub(crate) balancer: Balancer<Arc<Endpoint>>,
    pub(crate) dial: Dial,
    /// Its cookies, and what its hash-based algorithm goes by.
    pub(crate) plan: GroupPlan,
    /// Whether its algorithm goes by a key.
    pub(crate) keyed: bool,
    pub(crate) retry: Policy,
    pub(crate) tls: Option<TlsConnector>,
    /// What `tls` was made from, to tell whether a reload changes it.
    pub(crate) made_of: (Protocol, TargetTls),
    pub(crate) metrics: Arc<Metrics>,
    /// The targets that are registered, by name.
    pub(crate) targets: Arc<Mutex<BTreeMap<TargetId, Arc<Endpoint>>>>,
}

/// The two ends of the client's connection, told to a target by the PROXY protocol.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ends {
    pub(crate) peer: SocketAddr,
    pub(crate) local: SocketAddr,
}

impl Group {
    /// Whether its targets speak HTTP/2.
    pub(crate) fn is_http2(&self) -> bool {
        matches!(
            self.dial.version,
            ProtocolVersion::Http2 | ProtocolVersion::Grpc
        )
    }

    /// Closes connections of a worker that have rested for too long.
    pub(crate) fn sweep(&self, worker: usize, now: Instant) {
        let idle = u64::try_from(self.dial.idle_timeout.as_nanos()).unwrap_or(u64::MAX);
        let before = Instant::from_nanos(now.as_nanos().saturating_sub(idle));
        let targets: Vec<Arc<Endpoint>> = self.targets.lock().values().cloned().collect();
        for target in targets {
            target.sweep(worker, before);
        }
    }

    /// Opens a connection and speaks HTTP/1.1 on it.
    pub(crate) async fn open(&self, target: &Endpoint, ends: Ends) -> Result<Box<Link>, DialError> {
        let stream = self.connect(target, ends).await?;
        let mut link = Link::open(stream, self.dial.largest_head)
            .await
            .map_err(DialError::Http)?;
        link.way = self.dial.way;
        Ok(link)
    }

    /// Opens a connection, speaks HTTP/2 on it, and takes the first seat.
    pub(crate) async fn open_shared(
        &self,
        target: &Endpoint,
        ends: Ends,
        worker: usize,
        now: Instant,
    ) -> Result<Seat, DialError> {
        let stream = self.connect(target, ends).await?;
        let wire = Wire::new(stream, bytes::Bytes::new(), Watcher::Target(Arc::default()));
        let (send, conn) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(1 << 22)
            .handshake(TokioIo::new(wire))
            .await
            .map_err(DialError::Http)?;
        // It belongs to the worker's runtime, and ends with the last sender or with the worker.
        tokio::spawn(async move {
            let _ = conn.await;
        });
        if self.dial.prefix {
            return Ok(Seat {
                send,
                user: Arc::new(()),
            });
        }
        Ok(target.share(worker, self.dial.way, send, now))
    }

    async fn connect(&self, target: &Endpoint, ends: Ends) -> Result<Stream, DialError> {
        tokio::time::timeout(self.dial.connect_timeout, self.connect_now(target, ends))
            .await
            .map_err(|_| DialError::Late)?
    }

    async fn connect_now(&self, target: &Endpoint, ends: Ends) -> Result<Stream, DialError> {
        let (mut stream, host) = match &target.address {
            Address::Socket(address) => (
                TcpStream::connect(*address)
                    .await
                    .map_err(DialError::Connect)?,
                None,
            ),
            Address::Name(host, port) => (
                TcpStream::connect((&**host, *port))
                    .await
                    .map_err(DialError::Connect)?,
                Some(host),
            ),
            Address::Function(_) => {
                return Err(DialError::Connect(io::ErrorKind::Unsupported.into()));
            }
        };
        stream.set_nodelay(true).map_err(DialError::Connect)?;
        if self.dial.prefix {
            let prefix = prefix::Prefix::Proxied(prefix::Addresses::stream(ends.peer, ends.local));
            let bytes = prefix::encode(prefix::Version::V2, &prefix);
            tokio::io::AsyncWriteExt::write_all(&mut stream, &bytes)
                .await
                .map_err(DialError::Connect)?;
        }
        let Some(connector) = &self.tls else {
            return Ok(Stream::Tcp(stream));
        };
        let host = match (host, target.socket()) {
            (Some(host), _) => host.to_string(),
            (None, Some(address)) => address.ip().to_string(),
            (None, None) => String::new(),
        };
        let stream = connector
            .connect(stream, &host)
            .await
            .map_err(|error| DialError::Tls(error.to_string()))?;
        Ok(Stream::Other(Box::new(stream)))
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
