//! UDP: flows by the client's address, each with a socket of its own towards its target.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::io;
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::task::{Context, Poll, ready};

use sim_core::sync::atomic::{AtomicU64, Ordering};
use sim_core::sync::{Arc, OnceLock};
use sim_core::time::Instant;
use socket2::SockRef;
use tokio::io::{Interest, ReadBuf};
use tokio::net::UdpSocket;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::flow::key_of;
use super::{Pass, Place, Shared, ended};
use crate::Lease;
use crate::algorithm::flow as key;
use crate::message::{Outcome, Request};
use crate::proxy::prefix::{Addresses, Prefix, Version, encode};

/// The longest datagram.
const LONGEST: usize = 65_535;

/// How many datagrams are taken before others get their turn.
const TURN: usize = 64;

/// A flow: what a client's address sends, and what comes back.
struct Flow {
    /// Tells it from an earlier one of the same client.
    number: u64,
    client: SocketAddr,
    /// What each datagram to the target begins with.
    header: Vec<u8>,
    /// Towards the target; not there while the target's name is looked up.
    target: OnceLock<UdpSocket>,
    /// When a datagram passed last. Nothing is ordered by it: a reading from a moment ago is corrected by the next.
    last: AtomicU64,
    /// Told when sending finds that nobody listens at the target.
    broken: Notify,
}

impl Flow {
    fn touch(&self, now: Instant) {
        self.last.store(now.as_nanos(), Ordering::Relaxed);
    }

    fn last(&self) -> Instant {
        Instant::from_nanos(self.last.load(Ordering::Relaxed))
    }
}

/// Why a flow ended.
enum End {
    /// It stood idle.
    Expired,
    /// Nobody listens at its target.
    Failed,
    /// Its target goes.
    Terminated,
    /// The listener ends it.
    Stopped,
}

/// A flow's place among those that may be open.
struct Open<T>(Arc<Shared<T>>);

impl<T> Drop for Open<T> {
    fn drop(&mut self) {
        self.0.counts.udp_active.leave();
    }
}

/// A name that is to be looked up, and the datagram that waits for it.
struct Lookup {
    host: String,
    port: u16,
    first: Vec<u8>,
}

/// The flows of a socket.
struct Table<T> {
    shared: Arc<Shared<T>>,
    socket: Arc<UdpSocket>,
    local: SocketAddr,
    /// Looked up only, never walked.
    flows: HashMap<SocketAddr, Arc<Flow>>,
    running: JoinSet<(SocketAddr, u64)>,
    made: u64,
    is_draining: bool,
}

pub(super) async fn serve<T: Send + Sync + 'static>(
    pass: &Pass<T>,
    socket: UdpSocket,
    shutdown: impl Future<Output = ()>,
) {
    let shared = &pass.shared;
    let unknown = (Ipv4Addr::UNSPECIFIED, 0).into();
    let mut table = Table {
        shared: Arc::clone(shared),
        local: socket.local_addr().unwrap_or(unknown),
        socket: Arc::new(socket),
        flows: HashMap::new(),
        running: JoinSet::new(),
        made: 0,
        is_draining: false,
    };
    let mut shutdown = pin!(shutdown);
    let mut ending = shared.ending.subscribe();
    let mut deadline = shared.clock.sleep_until(Instant::NEVER);
    let mut buffer = vec![0; LONGEST].into_boxed_slice();
    let socket = Arc::clone(&table.socket);
    loop {
        tokio::select! {
            biased;
            () = ended(&mut ending) => break,
            () = &mut deadline => break,
            () = &mut shutdown, if !table.is_draining => {
                table.is_draining = true;
                deadline.reset(shared.clock.now() + shared.config.drain_timeout);
            }
            Some(ended) = table.running.join_next(), if !table.running.is_empty() => {
                if let Ok((client, number)) = ended {
                    table.forget(client, number);
                }
            }
            ready = socket.readable() => match ready {
                Ok(()) => table.take(&mut buffer),
                Err(error) => pass.rest_after(&error).await,
            },
        }
        if table.is_draining && table.running.is_empty() {
            break;
        }
    }
    table.running.shutdown().await;
}

impl<T: Send + Sync + 'static> Table<T> {
    fn forget(&mut self, client: SocketAddr, number: u64) {
        let flow = self.flows.get(&client);
        if flow.is_some_and(|flow| flow.number == number) {
            self.flows.remove(&client);
        }
    }

    /// Takes the datagrams that are there.
    fn take(&mut self, buffer: &mut [u8]) {
        for _ in 0..TURN {
            match self.socket.try_recv_from(buffer) {
                Ok((length, client)) => self.send(client, &buffer[..length]),
                // Some systems report here what an earlier answer ran into.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
                Err(_) => return,
            }
        }
    }

    fn send(&mut self, client: SocketAddr, datagram: &[u8]) {
        let Some(flow) = self.flows.get(&client) else {
            self.open(client, datagram);
            return;
        };
        let counts = &self.shared.counts;
        let Some(target) = flow.target.get() else {
            // The first datagram waits for the address; there is no room for more.
            counts.datagrams_dropped.add(1);
            return;
        };
        flow.touch(self.shared.clock.now());
        if forward(&self.shared, flow, target, datagram).is_err() {
            flow.broken.notify_one();
        }
    }

    /// Opens a flow, if there is room and a target.
    fn open(&mut self, client: SocketAddr, datagram: &[u8]) {
        let shared = &self.shared;
        let (config, counts) = (&shared.config, &shared.counts);
        if self.is_draining || !counts.udp_active.enter(config.max_udp_flows) {
            counts.udp_rejected.add(1);
            return;
        }
        let open = Open(Arc::clone(shared));
        let request = Request {
            key: Some(key_of(config.udp_key, key::UDP, client, self.local)),
            ..Request::default()
        };
        let lease = shared.balancer.try_pick_for(&request).ok();
        let place = lease
            .as_ref()
            .and_then(|lease| (shared.place)(lease.target()));
        let (Some(lease), Some(place)) = (lease, place) else {
            counts.udp_unserved.add(1);
            return;
        };
        let header = match config.proxy_protocol {
            Some(Version::V2) => {
                let addresses = Addresses::datagram(client, self.local);
                encode(Version::V2, &Prefix::Proxied(addresses))
            }
            // Version 1 has no word for datagrams.
            Some(Version::V1) | None => Vec::new(),
        };
        let flow = Arc::new(Flow {
            number: self.made,
            client,
            header,
            target: OnceLock::new(),
            last: AtomicU64::new(shared.clock.now().as_nanos()),
            broken: Notify::new(),
        });
        let lookup = match place {
            Place::Name(host, port) => Some(Lookup {
                host,
                port,
                first: datagram.to_vec(),
            }),
            Place::Socket(address) => match towards(address) {
                Ok(target) => {
                    let target = flow.target.get_or_init(|| target);
                    // Nothing was sent there before that could have been refused.
                    let _ = forward(shared, &flow, target, datagram);
                    None
                }
                Err(_) => {
                    counts.udp_unserved.add(1);
                    lease.complete(Outcome::Unreachable);
                    return;
                }
            },
        };
        counts.udp_opened.add(1);
        self.made += 1;
        self.flows.insert(client, Arc::clone(&flow));
        let socket = Arc::clone(&self.socket);
        self.running.spawn(run(open, flow, lease, socket, lookup));
    }
}

/// A socket that sends to an address, and hears from nobody else.
fn towards(address: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = std::net::UdpSocket::bind(any)?;
    socket.connect(address)?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

/// Nobody listens at the target.
struct Refused;

/// Sends a datagram to the target; one that the socket does not take at once is dropped.
fn forward<T>(
    shared: &Shared<T>,
    flow: &Flow,
    target: &UdpSocket,
    datagram: &[u8],
) -> Result<(), Refused> {
    let counts = &shared.counts;
    // tokio's own `try_send` knows a new socket as writable only after its driver's next turn.
    let target = SockRef::from(target);
    let sent = if flow.header.is_empty() {
        target.send(datagram)
    } else {
        target.send(&[&flow.header, datagram].concat())
    };
    match sent {
        Ok(_) => {
            counts.datagrams_in.add(1);
            counts.bytes_in.add(datagram.len() as u64);
            Ok(())
        }
        Err(error) => {
            counts.datagrams_dropped.add(1);
            match error.kind() {
                io::ErrorKind::ConnectionRefused => Err(Refused),
                _ => Ok(()),
            }
        }
    }
}

/// Runs a flow to its end; returns its key in the table.
async fn run<T: Send + Sync + 'static>(
    open: Open<T>,
    flow: Arc<Flow>,
    lease: Lease<T>,
    socket: Arc<UdpSocket>,
    lookup: Option<Lookup>,
) -> (SocketAddr, u64) {
    let shared = &open.0;
    let counts = &shared.counts;
    let is_found = match lookup {
        None => true,
        Some(lookup) => find(shared, &flow, lookup).await,
    };
    let end = match flow.target.get() {
        Some(target) if is_found => converse(shared, &flow, target, &lease, &socket).await,
        Some(_) | None => End::Failed,
    };
    match end {
        End::Expired => counts.udp_expired.add(1),
        End::Failed | End::Terminated => counts.udp_failed.add(1),
        End::Stopped => {}
    }
    lease.complete(match end {
        End::Expired => Outcome::Success,
        End::Failed => Outcome::Unreachable,
        End::Terminated | End::Stopped => Outcome::Cancelled,
    });
    (flow.client, flow.number)
}

/// Looks the target's name up and sends what waited for it.
async fn find<T>(shared: &Shared<T>, flow: &Flow, lookup: Lookup) -> bool {
    let deadline = shared.clock.now() + shared.config.connect_timeout;
    let found = tokio::select! {
        biased;
        found = tokio::net::lookup_host((lookup.host.as_str(), lookup.port)) => found.ok(),
        () = shared.clock.sleep_until(deadline) => None,
    };
    let address = found.and_then(|mut addresses| addresses.next());
    let Some(target) = address.and_then(|address| towards(address).ok()) else {
        return false;
    };
    let target = flow.target.get_or_init(|| target);
    flow.touch(shared.clock.now());
    forward(shared, flow, target, &lookup.first).is_ok()
}

/// Sends the client what comes back, until the end.
async fn converse<T>(
    shared: &Shared<T>,
    flow: &Flow,
    target: &UdpSocket,
    lease: &Lease<T>,
    socket: &UdpSocket,
) -> End {
    let (clock, idle) = (&shared.clock, shared.config.udp_idle_timeout);
    let mut timer = clock.sleep_until(flow.last() + idle);
    let mut ending = shared.ending.subscribe();
    let mut terminated = pin!(lease.terminated());
    let mut ended = pin!(ended(&mut ending));
    let mut broken = pin!(flow.broken.notified());
    let mut refused = pin!(refused(target));
    loop {
        tokio::select! {
            biased;
            () = &mut ended => return End::Stopped,
            () = &mut terminated => return End::Terminated,
            () = &mut broken => return End::Failed,
            () = &mut refused => return End::Failed,
            _error = poll_fn(|cx| answer(cx, shared, flow, target, socket)) => return End::Failed,
            () = &mut timer => {
                let due = flow.last() + idle;
                if clock.now() >= due {
                    return End::Expired;
                }
                timer.reset(due);
            }
        }
    }
}

/// Completes when the target's system answers that nobody listens, which does not make the socket readable.
async fn refused(target: &UdpSocket) {
    let error = || match target.take_error()? {
        Some(error) => Ok(error),
        None => Err(io::ErrorKind::WouldBlock.into()),
    };
    let _ = target.async_io(Interest::ERROR, error).await;
}

/// Passes on answers; completes when the target's socket fails.
fn answer<T>(
    cx: &mut Context<'_>,
    shared: &Shared<T>,
    flow: &Flow,
    target: &UdpSocket,
    socket: &UdpSocket,
) -> Poll<io::Error> {
    let mut buffer = [MaybeUninit::uninit(); LONGEST];
    loop {
        let mut datagram = ReadBuf::uninit(&mut buffer);
        if let Err(error) = ready!(target.poll_recv(cx, &mut datagram)) {
            return Poll::Ready(error);
        }
        flow.touch(shared.clock.now());
        let datagram = datagram.filled();
        match socket.try_send_to(datagram, flow.client) {
            Ok(_) => {
                shared.counts.datagrams_out.add(1);
                shared.counts.bytes_out.add(datagram.len() as u64);
            }
            Err(_) => shared.counts.datagrams_dropped.add(1),
        }
    }
}
