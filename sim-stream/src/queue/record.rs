//! What a receive brings: records with receipts.

use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

use sim_core::time::{Instant, Timestamp};

use crate::machine::delivery::{LeaseKey, Leased};
use crate::records::StreamRecord;

/// A received record: `QueueRecord`. It stands in the log and is read there; this is a reference to it with a receipt.
///
/// It pins its chunk of the log, so that it can be read while it is held, whatever becomes of its retention. Dropping it
/// says nothing to the queue: the record comes back when its lease ends, as it does when a consumer dies.
pub struct QueueRecord<T: Send + Sync + 'static> {
    record: StreamRecord<T>,
    receipt: Receipt,
    receive_count: u32,
    first_received: Timestamp,
    leased_until: Instant,
}

impl<T: Send + Sync + 'static> QueueRecord<T> {
    pub(super) fn new(leased: Leased<StreamRecord<T>>, first_received: Timestamp) -> Self {
        Self {
            record: leased.record,
            receipt: Receipt(leased.key),
            receive_count: leased.receives,
            first_received,
            leased_until: leased.until,
        }
    }

    /// The record. Its [sequence number](StreamRecord::sequence_number) is the same at each delivery and in each queue
    /// (`RecordId`).
    #[must_use]
    pub const fn record(&self) -> &StreamRecord<T> {
        &self.record
    }

    /// The record without the receipt.
    #[must_use]
    pub fn into_record(self) -> StreamRecord<T> {
        self.record
    }

    /// The name of this delivery, for the verdict on it (`ReceiptHandle`).
    #[must_use]
    pub const fn receipt(&self) -> Receipt {
        self.receipt
    }

    /// How often it has been received, this time included (`ReceiveCount`). A dead letter's own receives do not count;
    /// a restored one counts anew.
    #[must_use]
    pub const fn receive_count(&self) -> u32 {
        self.receive_count
    }

    /// When this queue gave it out for the first time (`FirstReceiveTimestamp`).
    #[must_use]
    pub const fn first_received(&self) -> Timestamp {
        self.first_received
    }

    /// When its lease ends, unless that is changed.
    #[must_use]
    pub const fn leased_until(&self) -> Instant {
        self.leased_until
    }
}

impl<T: Send + Sync + 'static> Deref for QueueRecord<T> {
    type Target = StreamRecord<T>;

    fn deref(&self) -> &StreamRecord<T> {
        &self.record
    }
}

impl<T: fmt::Debug + Send + Sync + 'static> fmt::Debug for QueueRecord<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueueRecord")
            .field("record", &self.record)
            .field("receipt", &self.receipt)
            .field("receive_count", &self.receive_count)
            .finish_non_exhaustive()
    }
}

/// Names one lease of one record in one queue: `ReceiptHandle`.
///
/// It is a slot and the number of a lease, with a check word that the queue computes over them: a late receipt, or one
/// used twice, misses by its number; one of another queue, or made up, by its check word (or hits by a chance of one in
/// 2^64). It is not made to withstand somebody who can try that often. Its text form is opaque and may change between versions.
///
/// ```
/// use sim_stream::Receipt;
///
/// assert!("no receipt".parse::<Receipt>().is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Receipt(pub(super) LeaseKey);

impl<T: Send + Sync + 'static> From<&QueueRecord<T>> for Receipt {
    fn from(record: &QueueRecord<T>) -> Self {
        record.receipt
    }
}

impl From<&Receipt> for Receipt {
    fn from(receipt: &Receipt) -> Self {
        *receipt
    }
}

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LeaseKey { check, slot, lease } = self.0;
        write!(f, "{check:x}-{slot:x}-{lease:x}")
    }
}

/// The text is no receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the text is no receipt")]
pub struct ParseReceiptError;

impl FromStr for Receipt {
    type Err = ParseReceiptError;

    fn from_str(text: &str) -> Result<Self, ParseReceiptError> {
        let mut parts = text.split('-').map(parse_hex);
        let mut next = || parts.next().unwrap_or(Err(ParseReceiptError));
        let key = LeaseKey {
            check: next()?,
            slot: u32::try_from(next()?).map_err(|_| ParseReceiptError)?,
            lease: next()?,
        };
        if parts.next().is_some() {
            return Err(ParseReceiptError);
        }
        Ok(Self(key))
    }
}

/// As `Display` writes it: lower case, no sign, no leading zero.
fn parse_hex(part: &str) -> Result<u64, ParseReceiptError> {
    let number = u64::from_str_radix(part, 16).map_err(|_| ParseReceiptError)?;
    if format!("{number:x}") == part {
        Ok(number)
    } else {
        Err(ParseReceiptError)
    }
}
