//! The messages of the wire format, written by hand: four fields need no compiler.

use bytes::Bytes;
use md5::{Digest, Md5};
use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use crate::kpl::DIGEST_BYTES;

/// Fields of `AggregatedRecord`, by number.
pub(super) const PARTITION_KEY_TABLE: u32 = 1;
pub(super) const EXPLICIT_HASH_KEY_TABLE: u32 = 2;
pub(super) const RECORDS: u32 = 3;
/// The field of a `Record`.
pub(super) const TAGS: u32 = 4;

/// For writing; read by [`Fields`], entry for entry.
#[derive(Clone, PartialEq, Message)]
pub(super) struct AggregatedRecord {
    #[prost(string, repeated, tag = "1")]
    pub(super) partition_key_table: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub(super) explicit_hash_key_table: Vec<String>,
    #[prost(message, repeated, tag = "3")]
    pub(super) records: Vec<Record>,
}

/// The required fields are options here, so that reading can tell when one is missing.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Record {
    #[prost(uint64, optional, tag = "1")]
    pub(super) partition_key_index: Option<u64>,
    #[prost(uint64, optional, tag = "2")]
    pub(super) explicit_hash_key_index: Option<u64>,
    #[prost(bytes = "bytes", optional, tag = "3")]
    pub(super) data: Option<Bytes>,
    #[prost(message, repeated, tag = "4")]
    pub(super) tags: Vec<WireTag>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct WireTag {
    #[prost(string, optional, tag = "1")]
    pub(super) key: Option<String>,
    #[prost(string, optional, tag = "2")]
    pub(super) value: Option<String>,
}

/// The bytes of a varint.
pub(super) const fn varint_len(value: u64) -> usize {
    let bits = u64::BITS - (value | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

/// The bytes that an entry of a length-delimited field takes, with a field number below 16.
pub(super) const fn entry_len(content: usize) -> usize {
    1 + varint_len(content as u64) + content
}

pub(super) fn digest(message: &[u8]) -> [u8; DIGEST_BYTES] {
    Md5::digest(message).into()
}

/// Reads the length-delimited fields of a message one by one, as slices of it; skips all others.
pub(super) struct Fields {
    rest: Bytes,
}

impl Fields {
    /// How many fields of a number there are, up to the end or to what is malformed.
    pub(super) fn count(message: Bytes, number: u32) -> usize {
        let mut fields = Self::new(message);
        std::iter::from_fn(|| fields.next().ok().flatten())
            .filter(|(found, _)| *found == number)
            .count()
    }

    pub(super) const fn new(message: Bytes) -> Self {
        Self { rest: message }
    }

    /// The next field's number and content, or what is wrong.
    pub(super) fn next(&mut self) -> Result<Option<(u32, Bytes)>, String> {
        let reason = |error: prost::DecodeError| error.to_string();
        while !self.rest.is_empty() {
            let (number, wire) = decode_key(&mut self.rest).map_err(reason)?;
            if wire != WireType::LengthDelimited {
                skip_field(wire, number, &mut self.rest, DecodeContext::default())
                    .map_err(reason)?;
                continue;
            }
            let length = decode_varint(&mut self.rest).map_err(reason)?;
            return match usize::try_from(length) {
                Ok(length) if length <= self.rest.len() => {
                    Ok(Some((number, self.rest.split_to(length))))
                }
                _ => Err(format!(
                    "field {number} has {length} bytes, {} are left",
                    self.rest.len()
                )),
            };
        }
        Ok(None)
    }
}
