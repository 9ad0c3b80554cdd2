//! Headers that arrive in pieces.
//!
//! The crate `ppp` reads complete headers only: given a piece of a line, it may call wrong what is merely short.

use std::net::SocketAddr;

use ppp::{v1, v2};

use super::{Addresses, Prefix};

/// How a line of version 1 begins.
const TEXT: &[u8] = b"PROXY ";

/// The longest line of version 1 with its end, by the protocol's text.
const LONGEST_LINE: usize = 107;

/// The part of a version 2 header that has its length.
const FIXED: usize = 16;

/// The type of the extension that holds the header's checksum.
const CHECKSUM: u8 = 0x03;

/// What some bytes, the first of a connection, are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed {
    /// They begin with a header.
    Complete {
        /// What it says.
        prefix: Prefix,
        /// How many bytes it takes.
        length: usize,
    },
    /// They may be the beginning of a header.
    Partial,
    /// They are not the beginning of one.
    Absent,
}

/// Why bytes that begin like a header are none. More bytes do not help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParsePrefixError {
    /// The header is too long.
    #[error("header of the PROXY protocol of {length} bytes or more, the most is {limit}")]
    TooLong {
        /// Its length, as far as it is known.
        length: usize,
        /// The most that is accepted.
        limit: usize,
    },
    /// A line of version 1 that is not as the protocol has it.
    #[error("malformed header of version 1 of the PROXY protocol")]
    Text,
    /// A header of version 2 that is not as the protocol has it.
    #[error("malformed header of version 2 of the PROXY protocol")]
    Binary,
    /// A header of version 2 whose checksum is another than its bytes have.
    #[error(
        "checksum in the header of the PROXY protocol is {given:#010x}, and should be {computed:#010x}"
    )]
    Checksum {
        /// What the header says.
        given: u32,
        /// What is right.
        computed: u32,
    },
}

/// Reads the header at the beginning of `bytes`, of at most `limit` bytes.
///
/// Whatever is not [`Parsed::Partial`] stays as it is when more bytes follow.
///
/// # Errors
/// [`ParsePrefixError`] as soon as the bytes begin like a header and cannot become one.
pub fn parse(bytes: &[u8], limit: usize) -> Result<Parsed, ParsePrefixError> {
    if begins_with(bytes, v2::PROTOCOL_PREFIX) {
        binary(bytes, limit)
    } else if begins_with(bytes, TEXT) {
        text(bytes, limit)
    } else {
        Ok(Parsed::Absent)
    }
}

/// Whether `bytes` begin with `start`, or may with more of them.
fn begins_with(bytes: &[u8], start: &[u8]) -> bool {
    let common = bytes.len().min(start.len());
    bytes[..common] == start[..common]
}

fn text(bytes: &[u8], limit: usize) -> Result<Parsed, ParsePrefixError> {
    let longest = limit.min(LONGEST_LINE);
    let window = &bytes[..bytes.len().min(longest)];
    let Some(end) = window.iter().position(|&byte| byte == b'\n') else {
        if bytes.len() >= longest {
            return Err(ParsePrefixError::TooLong {
                length: bytes.len(),
                limit: longest,
            });
        }
        return Ok(Parsed::Partial);
    };
    let length = end + 1;
    if is_unknown(&bytes[..length]) {
        let prefix = Prefix::Local;
        return Ok(Parsed::Complete { prefix, length });
    }
    let header = v1::Header::try_from(&bytes[..length]).map_err(|_| ParsePrefixError::Text)?;
    // `str::parse` takes "+80" for a number.
    let signed = || bytes[..length].contains(&b'+');
    let addresses = match header.addresses {
        v1::Addresses::Unknown => None,
        v1::Addresses::Tcp4(_) | v1::Addresses::Tcp6(_) if signed() => {
            return Err(ParsePrefixError::Text);
        }
        v1::Addresses::Tcp4(ip) => Some((
            SocketAddr::from((ip.source_address, ip.source_port)),
            SocketAddr::from((ip.destination_address, ip.destination_port)),
        )),
        v1::Addresses::Tcp6(ip) => Some((
            SocketAddr::from((ip.source_address, ip.source_port)),
            SocketAddr::from((ip.destination_address, ip.destination_port)),
        )),
    };
    let prefix = match addresses {
        None => Prefix::Local,
        Some((source, destination)) => Prefix::Proxied(Addresses::stream(source, destination)),
    };
    Ok(Parsed::Complete { prefix, length })
}

/// Whatever stands behind `UNKNOWN` is to be ignored, up to the end of the line.
fn is_unknown(line: &[u8]) -> bool {
    let rest = line
        .strip_prefix(TEXT)
        .and_then(|rest| rest.strip_prefix(v1::UNKNOWN.as_bytes()))
        .and_then(|rest| rest.strip_suffix(b"\r\n"));
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b' ')))
}

fn binary(bytes: &[u8], limit: usize) -> Result<Parsed, ParsePrefixError> {
    if bytes.len() < FIXED {
        return Ok(Parsed::Partial);
    }
    let length = FIXED + usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
    let header = match v2::Header::try_from(&bytes[..bytes.len().min(length)]) {
        Ok(header) => header,
        Err(v2::ParseError::Partial(..) | v2::ParseError::Incomplete(_)) if length <= limit => {
            return Ok(Parsed::Partial);
        }
        Err(v2::ParseError::Partial(..) | v2::ParseError::Incomplete(_)) => {
            return Err(ParsePrefixError::TooLong { length, limit });
        }
        Err(_) => return Err(ParsePrefixError::Binary),
    };
    if length > limit {
        return Err(ParsePrefixError::TooLong { length, limit });
    }
    checked(&bytes[..length], header.len() - header.tlv_bytes().len())?;
    let prefix = match (header.command, header.addresses) {
        (v2::Command::Local, _)
        | (v2::Command::Proxy, v2::Addresses::Unspecified | v2::Addresses::Unix(_)) => {
            Prefix::Local
        }
        (v2::Command::Proxy, v2::Addresses::IPv4(ip)) => proxied(
            (ip.source_address, ip.source_port).into(),
            (ip.destination_address, ip.destination_port).into(),
            header.protocol,
        ),
        (v2::Command::Proxy, v2::Addresses::IPv6(ip)) => proxied(
            (ip.source_address, ip.source_port).into(),
            (ip.destination_address, ip.destination_port).into(),
            header.protocol,
        ),
    };
    Ok(Parsed::Complete { prefix, length })
}

fn proxied(source: SocketAddr, destination: SocketAddr, protocol: v2::Protocol) -> Prefix {
    match protocol {
        v2::Protocol::Unspecified => Prefix::Local,
        v2::Protocol::Stream => Prefix::Proxied(Addresses::stream(source, destination)),
        v2::Protocol::Datagram => Prefix::Proxied(Addresses::datagram(source, destination)),
    }
}

/// Walks over the extensions, which start at `from`, and checks the checksum if one is there.
fn checked(header: &[u8], from: usize) -> Result<(), ParsePrefixError> {
    let mut at = from;
    while at < header.len() {
        let [kind, high, low, ..] = header[at..] else {
            return Err(ParsePrefixError::Binary);
        };
        let value = at + 3;
        let end = value + usize::from(u16::from_be_bytes([high, low]));
        if end > header.len() {
            return Err(ParsePrefixError::Binary);
        }
        if kind == CHECKSUM {
            let Ok(given) = <[u8; 4]>::try_from(&header[value..end]) else {
                return Err(ParsePrefixError::Binary);
            };
            let given = u32::from_be_bytes(given);
            let zeroed = [&header[..value], &[0; 4], &header[end..]];
            let computed = crc32c(zeroed.into_iter().flatten().copied());
            if given != computed {
                return Err(ParsePrefixError::Checksum { given, computed });
            }
        }
        at = end;
    }
    Ok(())
}

/// The Castagnoli checksum, bit by bit: a header is short.
fn crc32c(bytes: impl Iterator<Item = u8>) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            let carry = (crc & 1).wrapping_neg();
            crc = (crc >> 1) ^ (0x82F6_3B78 & carry);
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::crc32c;

    #[test]
    fn the_checksum_is_castagnolis() {
        assert_eq!(crc32c(b"123456789".iter().copied()), 0xE306_9283);
    }
}
