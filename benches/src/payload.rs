//! What the messages carry, and how a run proves that each arrived once.

use bytes::Bytes;

use crate::pattern::Failure;

/// A message of a bench: made from a number, and giving it back.
pub trait Payload: Clone + Default + Send + Sync + Unpin + 'static {
    /// What a pattern's name says about the payload; nothing for `usize`.
    const SUFFIX: &'static str;

    /// The message with this number.
    fn make(number: u64) -> Self;

    /// The number of the message.
    fn number(&self) -> u64;
}

impl Payload for usize {
    const SUFFIX: &'static str = "";

    fn make(number: u64) -> Self {
        number as usize
    }

    fn number(&self) -> u64 {
        *self as u64
    }
}

/// Sixty-four bytes, allocated by the sender and freed by the receiver, as a service would: every peer pays the same.
impl Payload for Bytes {
    const SUFFIX: &'static str = "-bytes64";

    fn make(number: u64) -> Self {
        let mut bytes = [0_u8; 64];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        Self::copy_from_slice(&bytes)
    }

    fn number(&self) -> u64 {
        self.first_chunk()
            .map_or(u64::MAX, |bytes| u64::from_le_bytes(*bytes))
    }
}

/// Count and checksum of messages: a lost, doubled or torn one changes it.
///
/// A sum alone misses a message exchanged for two others, an exclusive or alone misses a doubled pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    count: u64,
    sum: u64,
    xor: u64,
}

impl Tally {
    /// The tally of the messages 0 to `count` - 1.
    #[must_use]
    pub fn of_all(count: u64) -> Self {
        let mut tally = Self::default();
        for number in 0..count {
            tally.add_number(number);
        }
        tally
    }

    /// Counts one message.
    #[inline]
    pub fn add<T: Payload>(&mut self, message: &T) {
        self.add_number(message.number());
    }

    /// Counts one message by its number, where it stands.
    #[inline]
    pub fn add_number(&mut self, number: u64) {
        self.count += 1;
        self.sum = self.sum.wrapping_add(number);
        // Mixed, so that neighbouring numbers do not cancel out in their high bits.
        self.xor ^= number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    /// Counts what another receiver counted.
    pub fn merge(&mut self, other: Self) {
        self.count += other.count;
        self.sum = self.sum.wrapping_add(other.sum);
        self.xor ^= other.xor;
    }

    /// Compares what was received with what was sent.
    ///
    /// # Errors
    /// When they differ.
    pub fn verify(self, count: u64) -> Result<(), Failure> {
        let expected = Self::of_all(count);
        if self == expected {
            Ok(())
        } else {
            Err(Failure(format!("received {self:?}, sent {expected:?}")))
        }
    }
}

/// The numbers of the messages that a sender sends, of so many senders.
#[must_use]
pub fn part(count: u64, senders: usize, sender: usize) -> std::ops::Range<u64> {
    let senders = senders as u64;
    let sender = sender as u64;
    count * sender / senders..count * (sender + 1) / senders
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_doubled_or_changed_message_is_noticed() {
        let all = Tally::of_all(1000);
        assert!(all.verify(1000).is_ok());
        assert!(all.verify(999).is_err());
        let mut doubled = Tally::of_all(999);
        doubled.add(&7_usize);
        assert!(doubled.verify(1000).is_err());
        let mut exchanged = Tally::of_all(998);
        exchanged.add(&997_usize);
        exchanged.add(&1000_usize);
        assert!(exchanged.verify(1000).is_err());
    }

    #[test]
    fn the_parts_are_all_there_is() {
        let all: Vec<u64> = (0..4).flat_map(|sender| part(1003, 4, sender)).collect();
        assert_eq!(all, (0..1003).collect::<Vec<_>>());
    }

    #[test]
    fn bytes_carry_their_number() {
        assert_eq!(<Bytes as Payload>::make(77).number(), 77);
        assert_eq!(<Bytes as Payload>::make(77).len(), 64);
    }
}
