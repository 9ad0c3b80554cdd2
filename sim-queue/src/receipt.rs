//! The name of one lease of one message, for verdicts that come by another way than the delivery.

use std::fmt;
use std::str::FromStr;

use sim_core::slab::Key;
use sim_core::time::Instant;

use crate::config::OnDrop;
use crate::delivery::Lease;

/// Names one lease of one message of one queue: SQS's `ReceiptHandle`.
///
/// It is slot and generation: a receipt that is late, used twice, forged, or of another queue is detected
/// and never hits another message. Its text form is opaque and may change between versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Receipt {
    queue: u64,
    slot: u32,
    generation: u64,
    received_at: u64,
    receives: u32,
}

impl Receipt {
    pub(crate) fn new(queue: u64, key: Key, lease: &Lease) -> Self {
        Self {
            queue,
            slot: key.index(),
            generation: key.generation(),
            received_at: lease.received_at.as_nanos(),
            receives: lease.receives,
        }
    }

    pub(crate) const fn queue(&self) -> u64 {
        self.queue
    }

    pub(crate) fn key(&self) -> Key {
        Key::from_parts(self.slot, self.generation)
    }

    pub(crate) const fn lease(&self) -> Lease {
        let mut lease = Lease::new(Instant::from_nanos(self.received_at), self.receives);
        lease.on_drop = Some(OnDrop::Expire);
        lease
    }
}

/// The text is no receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the text is no receipt")]
pub struct ParseReceiptError;

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { queue, slot, generation, received_at, receives } = self;
        write!(f, "{queue:x}-{slot:x}-{generation:x}-{received_at:x}-{receives:x}")
    }
}

impl FromStr for Receipt {
    type Err = ParseReceiptError;

    fn from_str(text: &str) -> Result<Self, ParseReceiptError> {
        let mut parts = text.split('-').map(parse_hex);
        let mut next = || parts.next().unwrap_or(Err(ParseReceiptError));
        let receipt = Self {
            queue: next()?,
            slot: u32::try_from(next()?).map_err(|_| ParseReceiptError)?,
            generation: next()?,
            received_at: next()?,
            receives: u32::try_from(next()?).map_err(|_| ParseReceiptError)?,
        };
        if parts.next().is_some() { Err(ParseReceiptError) } else { Ok(receipt) }
    }
}

fn parse_hex(part: &str) -> Result<u64, ParseReceiptError> {
    // `from_str_radix` takes a sign.
    if part.is_empty() || !part.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(ParseReceiptError);
    }
    u64::from_str_radix(part, 16).map_err(|_| ParseReceiptError)
}
