//! The PROXY protocol, versions 1 and 2: who the client is, said by the proxy before this one, and to the targets.
//!
//! A [`PrefixReader`] reads the header off a connection that a trusted peer opened, and gives the connection back with
//! whatever came after the header. [`encode`] makes the header that goes first on a new connection to a target.
//!
//! ```
//! use sim_balancer::proxy::prefix::{self, Addresses, Parsed, Prefix, Version};
//!
//! let prefix = Prefix::Proxied(Addresses::stream("192.0.2.7:4711".parse()?, "198.51.100.1:443".parse()?));
//! let mut bytes = prefix::encode(Version::V1, &prefix);
//! assert_eq!(bytes, b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n");
//! bytes.extend_from_slice(b"GET / HTTP/1.1\r\n");
//! assert_eq!(prefix::parse(&bytes, 1024)?, Parsed::Complete { prefix, length: 44 });
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Guarantees
//! - Only who is trusted is read from: an address that anybody may claim is worth nothing.
//! - No header is longer than the [`limit`](PrefixConfig::limit), none takes longer than the
//!   [`timeout`](PrefixConfig::timeout), and what is none is refused as soon as a byte shows it.
//! - Whatever the bytes are and however they are cut, the verdict is the same, and no input panics.

mod encode;
mod parse;
mod stream;

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::BytesMut;
use ipnet::IpNet;
use sim_core::clock::Clock;
use sim_core::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::config::{PrefixMode, ProxyProtocolIn};

pub use self::encode::encode;
pub use self::parse::{ParsePrefixError, Parsed, parse};
pub use self::stream::Prefixed;

/// The shortest [`limit`](PrefixConfig::limit): the longest header of version 2 without extensions.
pub const MIN_LIMIT: usize = 232;

/// The longest [`limit`](PrefixConfig::limit): what the length field of version 2 can say.
pub const MAX_LIMIT: usize = 16 + u16::MAX as usize;

/// A version of the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// One line of text. It knows no datagrams.
    V1,
    /// Binary.
    V2,
}

/// What a header said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Prefix {
    /// The connection is the proxy's own (`LOCAL`), or of a kind without addresses (`UNKNOWN`, a Unix socket): the
    /// socket's own addresses are to be used.
    Local,
    /// The connection was opened by another.
    Proxied(Addresses),
}

impl Prefix {
    /// The client's address, if the header told it.
    #[must_use]
    pub fn source(&self) -> Option<SocketAddr> {
        match self {
            Self::Local => None,
            Self::Proxied(addresses) => Some(addresses.source),
        }
    }

    /// The address that the client connected to, if the header told it.
    #[must_use]
    pub fn destination(&self) -> Option<SocketAddr> {
        match self {
            Self::Local => None,
            Self::Proxied(addresses) => Some(addresses.destination),
        }
    }
}

/// Both ends of the client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Addresses {
    /// Who connected.
    pub source: SocketAddr,
    /// To which address.
    pub destination: SocketAddr,
    /// Over which kind of transport.
    pub transport: Transport,
}

impl Addresses {
    /// Makes the addresses of a stream: TCP, or what runs on it.
    #[must_use]
    pub fn stream(source: SocketAddr, destination: SocketAddr) -> Self {
        Self::new(source, destination, Transport::Stream)
    }

    /// Makes the addresses of datagrams: UDP.
    #[must_use]
    pub fn datagram(source: SocketAddr, destination: SocketAddr) -> Self {
        Self::new(source, destination, Transport::Datagram)
    }

    /// A header has one family: IPv4 if both ends are, also when written as IPv6, else IPv6 for both.
    fn new(source: SocketAddr, destination: SocketAddr, transport: Transport) -> Self {
        let (from, to) = (source.ip().to_canonical(), destination.ip().to_canonical());
        let (from, to) = if from.is_ipv4() == to.is_ipv4() {
            (from, to)
        } else {
            (IpAddr::V6(as_v6(from)), IpAddr::V6(as_v6(to)))
        };
        Self {
            source: SocketAddr::new(from, source.port()),
            destination: SocketAddr::new(to, destination.port()),
            transport,
        }
    }
}

fn as_v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

/// A kind of transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// A stream: TCP.
    Stream,
    /// Datagrams: UDP.
    Datagram,
}

/// Whether connections begin with a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Mode {
    /// Nothing is read.
    #[default]
    Off,
    /// A connection of a trusted peer may begin with one.
    ///
    /// What a client sends looks like a header only if it wants to; still, the protocol's authors advise against this.
    Optional,
    /// A connection of a trusted peer must begin with one.
    Required,
}

/// How headers are read. See [`PrefixReader`].
///
/// Write it as a literal that ends in `..Default::default()`; fields may be added.
#[derive(Debug, Clone)]
pub struct PrefixConfig {
    /// Whether headers are expected. Default: [`Mode::Off`].
    pub mode: Mode,
    /// Whose headers are read. The connections of others are refused if headers are required; else they are passed on as
    /// they are, under the address that they have. Default: nobody's.
    pub trusted: Vec<IpNet>,
    /// How long a header may take from the accepted connection on; more than zero. Default: 5 s.
    pub timeout: Duration,
    /// The most bytes of a header; from [`MIN_LIMIT`] to [`MAX_LIMIT`]. Default: 1,024.
    pub limit: usize,
}

impl Default for PrefixConfig {
    fn default() -> Self {
        Self {
            mode: Mode::Off,
            trusted: Vec::new(),
            timeout: Duration::from_secs(5),
            limit: 1_024,
        }
    }
}

impl From<&ProxyProtocolIn> for PrefixConfig {
    fn from(listener: &ProxyProtocolIn) -> Self {
        Self {
            mode: match listener.mode {
                PrefixMode::Off => Mode::Off,
                PrefixMode::Optional => Mode::Optional,
                PrefixMode::Required => Mode::Required,
            },
            trusted: listener.trusted.clone(),
            timeout: listener.timeout,
            ..Self::default()
        }
    }
}

/// A [`PrefixConfig`] that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PrefixConfigError {
    /// The limit lies outside of its bounds.
    #[error("limit of {given} bytes, from {MIN_LIMIT} to {MAX_LIMIT} is possible")]
    Limit {
        /// What was given.
        given: usize,
    },
    /// No time at all.
    #[error("timeout of zero, it must be longer")]
    Timeout,
    /// A header is required of nobody.
    #[error("headers are expected, but trusted is empty: name who may send them")]
    NobodyTrusted,
}

/// Why a connection is not to be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadPrefixError {
    /// The header was not complete in time.
    #[error("header of the PROXY protocol is incomplete after {after:?}")]
    Timeout {
        /// The time that it had.
        after: Duration,
    },
    /// A header is required, and of this peer none is believed.
    #[error("peer {peer} is not trusted, and a header of the PROXY protocol is required")]
    Untrusted {
        /// The peer.
        peer: IpAddr,
    },
    /// The connection does not begin with a header, and must.
    #[error("connection begins without a header of the PROXY protocol, which is required")]
    Missing,
    /// The connection ended inside of the header.
    #[error("connection ended after {received} bytes of a header of the PROXY protocol")]
    Ended {
        /// How much came.
        received: usize,
    },
    /// What came is no header, though it begins like one.
    #[error(transparent)]
    Parse(#[from] ParsePrefixError),
    /// The connection failed.
    #[error("connection failed in its header of the PROXY protocol")]
    Io(#[from] io::Error),
}

/// Reads headers off connections; cheap to clone.
#[derive(Debug, Clone)]
pub struct PrefixReader {
    config: Arc<PrefixConfig>,
    clock: Clock,
}

impl PrefixReader {
    /// Makes a reader whose timeout runs on `clock`.
    ///
    /// # Errors
    /// [`PrefixConfigError`] for a setting out of its bounds.
    pub fn new(config: PrefixConfig, clock: Clock) -> Result<Self, PrefixConfigError> {
        if !(MIN_LIMIT..=MAX_LIMIT).contains(&config.limit) {
            return Err(PrefixConfigError::Limit {
                given: config.limit,
            });
        }
        if config.timeout.is_zero() {
            return Err(PrefixConfigError::Timeout);
        }
        if config.mode != Mode::Off && config.trusted.is_empty() {
            return Err(PrefixConfigError::NobodyTrusted);
        }
        Ok(Self {
            config: Arc::new(config),
            clock,
        })
    }

    /// Whether connections of `peer` are read from.
    #[must_use]
    pub fn reads_from(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.config.mode != Mode::Off && self.config.trusted.iter().any(|net| net.contains(&peer))
    }

    /// Reads the header of a connection of `peer`, and gives the connection back with what followed.
    ///
    /// `None` stands for no header: the peer is not trusted, or none is required and none came. Where none is required, a
    /// peer that says nothing at all until the timeout has none.
    ///
    /// # Errors
    /// [`ReadPrefixError`]; the connection is closed then.
    ///
    /// # Cancel safety
    /// The connection and what was read of it are lost, as it was handed in.
    pub async fn read<S>(
        &self,
        stream: S,
        peer: IpAddr,
    ) -> Result<(Option<Prefix>, Prefixed<S>), ReadPrefixError>
    where
        S: AsyncRead + Unpin,
    {
        if !self.reads_from(peer) {
            return match self.config.mode {
                Mode::Required => Err(ReadPrefixError::Untrusted { peer }),
                Mode::Off | Mode::Optional => Ok((None, Prefixed::from(stream))),
            };
        }
        let mut stream = stream;
        let mut bytes = BytesMut::with_capacity(MIN_LIMIT);
        let read = tokio::select! {
            biased;
            read = self.fill(&mut stream, &mut bytes) => Some(read?),
            () = self.clock.sleep_until(self.clock.now() + self.config.timeout) => None,
        };
        let optional = self.config.mode == Mode::Optional;
        let prefix = match read {
            Some(Parsed::Complete { prefix, length }) => {
                let _header = bytes.split_to(length);
                Some(prefix)
            }
            Some(Parsed::Absent) if optional => None,
            Some(Parsed::Absent) => return Err(ReadPrefixError::Missing),
            Some(Parsed::Partial) if optional && bytes.is_empty() => None,
            Some(Parsed::Partial) => {
                return Err(ReadPrefixError::Ended {
                    received: bytes.len(),
                });
            }
            None if optional && bytes.is_empty() => None,
            None => {
                return Err(ReadPrefixError::Timeout {
                    after: self.config.timeout,
                });
            }
        };
        Ok((prefix, Prefixed::new(bytes.freeze(), stream)))
    }

    /// Reads until it is clear what the connection begins with; [`Parsed::Partial`] if it ends before.
    async fn fill<S>(&self, stream: &mut S, bytes: &mut BytesMut) -> Result<Parsed, ReadPrefixError>
    where
        S: AsyncRead + Unpin,
    {
        loop {
            let read = stream.read_buf(bytes).await?;
            let parsed = parse(bytes, self.config.limit)?;
            if read == 0 || parsed != Parsed::Partial {
                return Ok(parsed);
            }
        }
    }
}

#[cfg(test)]
mod tests;
