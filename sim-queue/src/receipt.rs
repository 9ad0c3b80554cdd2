//! The name of one lease of one message, for verdicts that come by another way than the delivery.

use std::fmt;
use std::str::FromStr;

use sim_core::slab::Key;
use sim_core::time::Instant;

use crate::delivery::{Lease, MachineLease};
use crate::machine::MessageKey;

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
    first_received_at: u64,
    receives: u32,
    machine: Option<MachineLease>,
}

impl Receipt {
    pub(crate) fn new(queue: u64, key: Key, lease: &Lease) -> Self {
        Self {
            queue,
            slot: key.index(),
            generation: key.generation(),
            received_at: lease.received_at.as_nanos(),
            first_received_at: lease.first_received_at.as_nanos(),
            receives: lease.receives,
            machine: lease.machine,
        }
    }

    pub(crate) const fn queue(&self) -> u64 {
        self.queue
    }

    pub(crate) fn key(&self) -> Key {
        Key::from_parts(self.slot, self.generation)
    }

    pub(crate) const fn lease(&self) -> Lease {
        Lease {
            received_at: Instant::from_nanos(self.received_at),
            first_received_at: Instant::from_nanos(self.first_received_at),
            receives: self.receives,
            machine: self.machine,
            on_drop: Some(crate::OnDrop::Expire),
        }
    }
}

/// The text is no receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the text is no receipt")]
pub struct ParseReceiptError;

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:x}-{:x}-{:x}-{:x}-{:x}-{:x}",
            self.queue,
            self.slot,
            self.generation,
            self.received_at,
            self.first_received_at,
            self.receives
        )?;
        if let Some(machine) = &self.machine {
            let (index, sequence) = machine.key.parts();
            write!(f, "-{index:x}-{sequence:x}-{:x}", machine.lease)?;
        }
        Ok(())
    }
}

impl FromStr for Receipt {
    type Err = ParseReceiptError;

    fn from_str(text: &str) -> Result<Self, ParseReceiptError> {
        let mut parts = [0_u64; 9];
        let mut len = 0;
        for part in text.split('-') {
            let slot = parts.get_mut(len).ok_or(ParseReceiptError)?;
            if part.is_empty() || part.len() > 16 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(ParseReceiptError);
            }
            *slot = u64::from_str_radix(part, 16).map_err(|_| ParseReceiptError)?;
            len += 1;
        }
        let machine = match len {
            6 => None,
            9 => Some(MachineLease {
                key: MessageKey::from_parts(
                    u32::try_from(parts[6]).map_err(|_| ParseReceiptError)?,
                    parts[7],
                ),
                lease: parts[8],
                sequence: parts[7],
            }),
            _ => return Err(ParseReceiptError),
        };
        Ok(Self {
            queue: parts[0],
            slot: u32::try_from(parts[1]).map_err(|_| ParseReceiptError)?,
            generation: parts[2],
            received_at: parts[3],
            first_received_at: parts[4],
            receives: u32::try_from(parts[5]).map_err(|_| ParseReceiptError)?,
            machine,
        })
    }
}
