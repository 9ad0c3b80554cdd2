//! The ring of messages that were not received yet, bounded or not.

use sim_core::ring::{Bounded, Entry, Unbounded};

use crate::message::Headers;

/// A message that waits in the ring.
pub(crate) struct Waiting<T> {
    pub(crate) value: T,
    pub(crate) headers: Option<Box<Headers<T>>>,
}

/// The ring of messages that were not received yet.
pub(crate) enum Fresh<T> {
    Bounded(Bounded<Waiting<T>, u64>),
    Unbounded(Unbounded<Waiting<T>, u64>),
}

impl<T> Fresh<T> {
    #[inline(always)]
    pub(super) fn push(&self, key: u64, waiting: Waiting<T>) -> Result<u64, Waiting<T>> {
        match self {
            Self::Bounded(ring) => ring.push_keyed(key, waiting),
            Self::Unbounded(ring) => ring.push_keyed(key, waiting),
        }
    }

    /// Pushes as many of the values as fit, with one claim; returns how many.
    pub(super) fn push_values(&self, key: u64, values: &mut Vec<T>) -> usize {
        let want = values.len();
        let plain = |value| Waiting {
            value,
            headers: None,
        };
        let (_, pushed) = match self {
            Self::Bounded(ring) => {
                ring.push_batch_from(key, want, move |count| values.drain(..count).map(plain))
            }
            Self::Unbounded(ring) => {
                ring.push_batch_from(key, want, move |count| values.drain(..count).map(plain))
            }
        };
        pushed
    }

    #[inline]
    pub(super) fn pop(&self) -> Option<Entry<Waiting<T>, u64>> {
        match self {
            Self::Bounded(ring) => ring.pop_entry(),
            Self::Unbounded(ring) => ring.pop_entry(),
        }
    }

    pub(super) fn pop_if(&self, wanted: impl FnMut(u64) -> bool) -> Option<Waiting<T>> {
        match self {
            Self::Bounded(ring) => ring.pop_if(wanted),
            Self::Unbounded(ring) => ring.pop_if(wanted),
        }
        .map(|entry| entry.value)
    }

    /// Tells `each` how many of its claim follow, too.
    #[inline(always)]
    pub(super) fn pop_batch(
        &self,
        max: usize,
        each: impl FnMut(usize, Entry<Waiting<T>, u64>),
    ) -> usize {
        match self {
            Self::Bounded(ring) => ring.pop_batch_counted(max, each),
            Self::Unbounded(ring) => ring.pop_batch_counted(max, each),
        }
    }

    pub(super) fn front(&self) -> Option<(u64, u64)> {
        match self {
            Self::Bounded(ring) => ring.front(),
            Self::Unbounded(ring) => ring.front(),
        }
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Bounded(ring) => ring.len(),
            Self::Unbounded(ring) => ring.len(),
        }
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Bounded(ring) => ring.is_empty(),
            Self::Unbounded(ring) => ring.is_empty(),
        }
    }

    #[inline]
    pub(super) fn popped(&self) -> u64 {
        match self {
            Self::Bounded(ring) => ring.popped(),
            Self::Unbounded(ring) => ring.popped(),
        }
    }

    pub(super) fn pushed(&self) -> u64 {
        match self {
            Self::Bounded(ring) => ring.pushed(),
            Self::Unbounded(ring) => ring.pushed(),
        }
    }

    pub(super) fn close(&self) {
        match self {
            Self::Bounded(ring) => ring.close(),
            Self::Unbounded(ring) => ring.close(),
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        match self {
            Self::Bounded(ring) => ring.is_closed(),
            Self::Unbounded(ring) => ring.is_closed(),
        }
    }
}
