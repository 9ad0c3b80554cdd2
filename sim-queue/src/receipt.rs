//! The name of one lease of one message, for verdicts that come by another way than the delivery.

use std::fmt;
use std::hash::{DefaultHasher, Hasher};
use std::str::FromStr;

use sim_core::slab::Key;
use sim_core::time::Instant;

use crate::delivery::Lease;

/// Names one lease of one message of one queue: SQS's `ReceiptHandle`.
///
/// It is slot and generation with a check word that the queue computes over them: a receipt that is late or
/// used twice is told so by its generation, one that is another queue's or made up by its check word,
/// and none hits another message (a made-up one by a chance of one in 2^64). Its text form is opaque and may
/// change between versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Receipt {
    check: u64,
    slot: u32,
    generation: u64,
    received_at: u64,
    receives: u32,
}

impl Receipt {
    pub(crate) fn new(secret: u64, key: Key, lease: &Lease) -> Self {
        let mut receipt = Self {
            check: 0,
            slot: key.index(),
            generation: key.generation(),
            received_at: lease.received_at.as_nanos(),
            receives: lease.receives(),
        };
        receipt.check = receipt.check_under(secret);
        receipt
    }

    /// Whether the queue of this secret made the receipt.
    pub(crate) fn is_of(&self, secret: u64) -> bool {
        self.check == self.check_under(secret)
    }

    /// SipHash-1-3, as std's hasher has it, over the secret and the fields.
    fn check_under(&self, secret: u64) -> u64 {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(secret);
        hasher.write_u32(self.slot);
        hasher.write_u64(self.generation);
        hasher.write_u64(self.received_at);
        hasher.write_u32(self.receives);
        hasher.finish()
    }

    pub(crate) fn key(&self) -> Key {
        Key::from_parts(self.slot, self.generation)
    }

    pub(crate) const fn lease(&self) -> Lease {
        Lease::new(Instant::from_nanos(self.received_at), self.receives).left_running()
    }
}

/// The text is no receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the text is no receipt")]
pub struct ParseReceiptError;

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            check,
            slot,
            generation,
            received_at,
            receives,
        } = self;
        write!(
            f,
            "{check:x}-{slot:x}-{generation:x}-{received_at:x}-{receives:x}"
        )
    }
}

impl FromStr for Receipt {
    type Err = ParseReceiptError;

    fn from_str(text: &str) -> Result<Self, ParseReceiptError> {
        let mut parts = text.split('-').map(parse_hex);
        let mut next = || parts.next().unwrap_or(Err(ParseReceiptError));
        let receipt = Self {
            check: next()?,
            slot: u32::try_from(next()?).map_err(|_| ParseReceiptError)?,
            generation: next()?,
            received_at: next()?,
            receives: u32::try_from(next()?).map_err(|_| ParseReceiptError)?,
        };
        if parts.next().is_some() {
            Err(ParseReceiptError)
        } else {
            Ok(receipt)
        }
    }
}

fn parse_hex(part: &str) -> Result<u64, ParseReceiptError> {
    // `from_str_radix` takes a sign.
    if part.is_empty() || !part.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(ParseReceiptError);
    }
    u64::from_str_radix(part, 16).map_err(|_| ParseReceiptError)
}
