//! Headers towards targets.

use std::net::{IpAddr, SocketAddr};

use ppp::v2;

use super::{Addresses, Prefix, Transport, Version, as_v6};

/// Makes the header that goes first on a connection to a target.
///
/// Version 1 has no word for datagrams: they, and [`Prefix::Local`], are `UNKNOWN` there.
#[must_use]
pub fn encode(version: Version, prefix: &Prefix) -> Vec<u8> {
    match version {
        Version::V1 => text(prefix),
        Version::V2 => binary(prefix),
    }
}

fn text(prefix: &Prefix) -> Vec<u8> {
    let Prefix::Proxied(Addresses {
        source,
        destination,
        transport: Transport::Stream,
    }) = *prefix
    else {
        return b"PROXY UNKNOWN\r\n".to_vec();
    };
    let (family, from, to) = family(source, destination);
    let family = match family {
        Family::V4 => "TCP4",
        Family::V6 => "TCP6",
    };
    format!(
        "PROXY {family} {from} {to} {} {}\r\n",
        source.port(),
        destination.port()
    )
    .into_bytes()
}

fn binary(prefix: &Prefix) -> Vec<u8> {
    let mut header = Vec::with_capacity(52);
    header.extend_from_slice(v2::PROTOCOL_PREFIX);
    let version = v2::Version::Two as u8;
    let Prefix::Proxied(Addresses {
        source,
        destination,
        transport,
    }) = *prefix
    else {
        header.extend_from_slice(&[version | v2::Command::Local as u8, 0, 0, 0]);
        return header;
    };
    let transport = match transport {
        Transport::Stream => v2::Protocol::Stream as u8,
        Transport::Datagram => v2::Protocol::Datagram as u8,
    };
    let (family, from, to) = family(source, destination);
    let (family, length) = match family {
        Family::V4 => (v2::AddressFamily::IPv4 as u8, 12),
        Family::V6 => (v2::AddressFamily::IPv6 as u8, 36),
    };
    header.extend_from_slice(&[
        version | v2::Command::Proxy as u8,
        family | transport,
        0,
        length,
    ]);
    for address in [from, to] {
        match address {
            IpAddr::V4(address) => header.extend_from_slice(&address.octets()),
            IpAddr::V6(address) => header.extend_from_slice(&address.octets()),
        }
    }
    for port in [source.port(), destination.port()] {
        header.extend_from_slice(&port.to_be_bytes());
    }
    header
}

enum Family {
    V4,
    V6,
}

/// The fields of [`Addresses`] are open: two ends of different families may have been put in.
fn family(source: SocketAddr, destination: SocketAddr) -> (Family, IpAddr, IpAddr) {
    match (source.ip(), destination.ip()) {
        (from @ IpAddr::V4(_), to @ IpAddr::V4(_)) => (Family::V4, from, to),
        (from, to) => (Family::V6, as_v6(from).into(), as_v6(to).into()),
    }
}
