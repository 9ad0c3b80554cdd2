//! Keys of flows.

use std::net::{IpAddr, SocketAddr};

use crate::message::key_of;

pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;

pub(super) fn five_tuple(protocol: u8, source: SocketAddr, target: SocketAddr) -> u64 {
    let mut bytes = three_tuple(protocol, source.ip(), target.ip())
        .to_be_bytes()
        .to_vec();
    bytes.extend_from_slice(&source.port().to_be_bytes());
    bytes.extend_from_slice(&target.port().to_be_bytes());
    key_of(&bytes)
}

pub(super) fn three_tuple(protocol: u8, source: IpAddr, target: IpAddr) -> u64 {
    let mut bytes = source_ip(source).to_be_bytes().to_vec();
    bytes.extend_from_slice(&source_ip(target).to_be_bytes());
    bytes.push(protocol);
    key_of(&bytes)
}

pub(super) fn source_ip(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(address) => key_of(&address.octets()),
        IpAddr::V6(address) => key_of(&address.octets()),
    }
}
