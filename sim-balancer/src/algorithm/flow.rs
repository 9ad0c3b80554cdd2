//! Keys of flows: what a network load balancer hashes of a packet or a connection.
//!
//! A key goes into [`Request::key`](crate::message::Request) and a keyed algorithm sends all of a flow to one
//! target. Addresses are taken as they are meant: an IPv4 address and the same one mapped to IPv6 give the same key.

use std::net::{IpAddr, SocketAddr};

use super::hash::mix;

/// The protocol of TCP, as IANA numbers it.
pub const TCP: u8 = 6;

/// The protocol of UDP, as IANA numbers it.
pub const UDP: u8 = 17;

/// What the 5-tuple gives: protocol, both addresses and both ports. Each connection is a flow of its own.
///
/// ```
/// use sim_balancer::algorithm::flow;
///
/// let (client, server) = ("192.0.2.7:40000".parse()?, "198.51.100.1:443".parse()?);
/// let key = flow::five_tuple(flow::TCP, client, server);
/// assert_ne!(key, flow::five_tuple(flow::TCP, "192.0.2.7:40001".parse()?, server));
/// assert_eq!(
///     flow::three_tuple(flow::TCP, client.ip(), server.ip()),
///     flow::three_tuple(flow::TCP, client.ip(), server.ip()),
/// );
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[must_use]
pub fn five_tuple(protocol: u8, source: SocketAddr, target: SocketAddr) -> u64 {
    let ports = u64::from(source.port()) << 16 | u64::from(target.port());
    mix(three_tuple(protocol, source.ip(), target.ip()), ports)
}

/// What the 3-tuple gives: protocol and both addresses. All that a host sends to an address is one flow.
#[must_use]
pub fn three_tuple(protocol: u8, source: IpAddr, target: IpAddr) -> u64 {
    mix(two_tuple(source, target), u64::from(protocol))
}

/// What the 2-tuple gives: both addresses, whatever the protocol.
#[must_use]
pub fn two_tuple(source: IpAddr, target: IpAddr) -> u64 {
    mix(source_ip(source), source_ip(target))
}

/// What a client's address gives: stickiness by source address.
#[must_use]
pub fn source_ip(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(address) => mix(u64::from(address.to_bits()), 4),
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            mix(bits as u64, mix((bits >> 64) as u64, 6))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn each_part_of_a_tuple_makes_a_difference() {
        let (source, target) = (socket("192.0.2.7:1000"), socket("198.51.100.1:443"));
        let mut keys = vec![
            five_tuple(TCP, source, target),
            five_tuple(UDP, source, target),
            five_tuple(TCP, target, source),
            five_tuple(TCP, socket("192.0.2.7:1001"), target),
            five_tuple(TCP, socket("192.0.2.8:1000"), target),
            five_tuple(TCP, source, socket("198.51.100.1:444")),
            five_tuple(TCP, source, socket("198.51.100.2:443")),
            three_tuple(TCP, source.ip(), target.ip()),
            three_tuple(UDP, source.ip(), target.ip()),
            three_tuple(TCP, target.ip(), source.ip()),
            two_tuple(source.ip(), target.ip()),
            source_ip(source.ip()),
        ];
        let count = keys.len();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), count);
    }

    #[test]
    fn a_mapped_address_is_the_address() {
        let mapped: IpAddr = "::ffff:192.0.2.7".parse().expect("an address");
        let plain: IpAddr = "192.0.2.7".parse().expect("an address");
        assert_eq!(source_ip(mapped), source_ip(plain));
    }
}
