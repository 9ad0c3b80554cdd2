//! De-duplication: a send that repeats one of the last five minutes stores nothing.
//!
//! # Rules
//! The window counts from the first send and a repetition does not lengthen it. It outlives the
//! message: one that was received, deleted, dead-lettered or purged is still a duplicate. A repeated
//! send is answered with the first one's id and sequence number. Ids and content hashes never match
//! each other.

use crate::group::{DeduplicationId, GroupId, SequenceNumber};

use super::recent::{Recent, hash_bytes};
use super::rules::{DeduplicationScope, FifoConfig};
use super::{First, NotStored};
use sim_core::time::Instant;

/// What makes two sends the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum DedupKey {
    /// An id that the sender gave.
    Id(DeduplicationId),
    /// The SHA-256 (or another 32-byte) hash of the content.
    Content([u8; 32]),
}

impl DedupKey {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Id(id) => id.as_str().as_bytes(),
            Self::Content(hash) => hash,
        }
    }
}

#[derive(PartialEq, Eq)]
struct Key {
    /// Set if the scope is the group.
    group: Option<GroupId>,
    key: DedupKey,
}

pub(super) struct Dedup {
    sends: Recent<Key, First>,
    scope: DeduplicationScope,
    seed: u64,
    /// What was admitted last: here and not with the admission, since most have none and it is large.
    admitted: Option<Unseen>,
}

/// A key that was looked up and not found.
struct Unseen {
    hash: u64,
    key: Key,
    /// The sender's name for the message.
    id: u128,
}

impl Dedup {
    pub(super) fn new(config: &FifoConfig, seed: u64) -> Self {
        Self {
            sends: Recent::new(config.deduplication_window, config.deduplication_limit),
            scope: config.deduplication_scope,
            seed,
            admitted: None,
        }
    }

    /// Looks a send up and makes sure that it can be remembered.
    pub(super) fn admit(
        &mut self,
        now: Instant,
        key: &DedupKey,
        group: &GroupId,
        id: u128,
    ) -> Result<(), NotStored> {
        self.sends.evict(now);
        let mut hash = hash_bytes(self.seed, key.bytes());
        let group = match self.scope {
            DeduplicationScope::Queue => None,
            DeduplicationScope::Group => {
                hash = hash_bytes(hash, group.as_str().as_bytes());
                Some(group.clone())
            }
        };
        let key = Key {
            group,
            key: key.clone(),
        };
        if let Some(first) = self.sends.find(hash, &key) {
            return Err(NotStored::Duplicate(*first));
        }
        if self.sends.is_full() {
            return Err(NotStored::DedupWindowFull);
        }
        self.admitted = Some(Unseen { hash, key, id });
        Ok(())
    }

    /// Remembers what was [admitted](Self::admit) last, under its sequence number.
    pub(super) fn remember(&mut self, now: Instant, sequence: SequenceNumber) {
        if let Some(Unseen { hash, key, id }) = self.admitted.take() {
            self.sends.insert(now, hash, key, First { id, sequence });
        }
    }
}
