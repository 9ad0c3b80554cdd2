//! What happened lately: a bounded table whose entries all live equally long.
//!
//! Since every entry lives for the same window, entries end in the order in which they came: a
//! queue holds them, and a hash table of positions finds them. Entries that ended are dropped by
//! the next use; nothing wakes up for them, since they have no effect any more.

use std::collections::VecDeque;
use std::time::Duration;

use hashbrown::HashTable;
use sim_core::time::Instant;

/// Hashes bytes by folded multiplication (each 64x64-bit product xored into one word), as Wang Yi's
/// wyhash does. The seed comes from the caller, so that a sender who picks ids cannot aim at one
/// bucket without knowing it; no order that anybody sees depends on it.
pub(super) fn hash_bytes(seed: u64, bytes: &[u8]) -> u64 {
    const K0: u64 = 0x9e37_79b9_7f4a_7c15;
    const K1: u64 = 0xd1b5_4a32_d192_ed03;
    let mut state = seed ^ (bytes.len() as u64).wrapping_mul(K0);
    let (chunks, rest) = bytes.as_chunks::<8>();
    for chunk in chunks {
        state = fold(state ^ K1, u64::from_le_bytes(*chunk) ^ K0);
    }
    // The rest by one load where there is a whole word to load from (some bytes are hashed twice then), by two
    // overlapping halves or byte by byte else: no length decides over a copy.
    let last = if rest.is_empty() {
        return fold(state ^ K0, K1);
    } else if let Some(word) = bytes.last_chunk::<8>() {
        u64::from_le_bytes(*word)
    } else if let (Some(low), Some(high)) = (rest.first_chunk::<4>(), rest.last_chunk::<4>()) {
        u64::from(u32::from_le_bytes(*low)) | u64::from(u32::from_le_bytes(*high)) << 32
    } else {
        rest.iter()
            .fold(0, |word, byte| word << 8 | u64::from(*byte))
    };
    state = fold(state ^ K1, last ^ K0);
    fold(state ^ K0, K1)
}

const fn fold(a: u64, b: u64) -> u64 {
    let product = (a as u128).wrapping_mul(b as u128);
    product as u64 ^ (product >> 64) as u64
}

pub(super) struct Recent<K, V> {
    /// Entries in the order in which they end; `None` where one was taken out before.
    entries: VecDeque<Option<Entry<K, V>>>,
    /// Position of the first entry; positions count from 0 and never repeat.
    base: u64,
    index: HashTable<u64>,
    window: Duration,
    limit: usize,
}

struct Entry<K, V> {
    hash: u64,
    ends: Instant,
    key: K,
    value: V,
}

impl<K: Eq, V> Recent<K, V> {
    pub(super) fn new(window: Duration, limit: usize) -> Self {
        Self {
            entries: VecDeque::new(),
            base: 0,
            index: HashTable::new(),
            window,
            limit,
        }
    }

    /// Drops what ended by `now`; amortised over the inserts.
    pub(super) fn evict(&mut self, now: Instant) {
        while let Some(front) = self.entries.front() {
            if let Some(entry) = front {
                if now < entry.ends {
                    break;
                }
                let base = self.base;
                if let Ok(found) = self.index.find_entry(entry.hash, |&at| at == base) {
                    found.remove();
                }
            }
            self.entries.pop_front();
            self.base += 1;
        }
        if self.entries.len() < self.entries.capacity() / 8 {
            self.entries.shrink_to(self.entries.len() * 2);
            let entries = &self.entries;
            let base = self.base;
            self.index
                .shrink_to(self.index.len() * 2, |&at| hash_at(entries, base, at));
        }
    }

    /// Whether no entry fits; [`evict`](Self::evict) first. Entries taken out count until they end.
    pub(super) fn is_full(&self) -> bool {
        self.entries.len() >= self.limit
    }

    pub(super) fn find(&self, hash: u64, key: &K) -> Option<&V> {
        let at = self.position(hash, key)?;
        self.entries[(at - self.base) as usize]
            .as_ref()
            .map(|entry| &entry.value)
    }

    pub(super) fn find_mut(&mut self, hash: u64, key: &K) -> Option<&mut V> {
        let at = self.position(hash, key)?;
        self.entries[(at - self.base) as usize]
            .as_mut()
            .map(|entry| &mut entry.value)
    }

    /// Enters what is not there yet.
    pub(super) fn insert(&mut self, now: Instant, hash: u64, key: K, value: V) {
        debug_assert!(self.find(hash, &key).is_none() && !self.is_full());
        let at = self.base + self.entries.len() as u64;
        self.entries.push_back(Some(Entry {
            hash,
            ends: now + self.window,
            key,
            value,
        }));
        let (entries, base) = (&self.entries, self.base);
        self.index
            .insert_unique(hash, at, |&at| hash_at(entries, base, at));
    }

    pub(super) fn remove(&mut self, hash: u64, key: &K) {
        if let Some(at) = self.position(hash, key) {
            self.entries[(at - self.base) as usize] = None;
            if let Ok(found) = self.index.find_entry(hash, |&other| other == at) {
                found.remove();
            }
        }
    }

    fn position(&self, hash: u64, key: &K) -> Option<u64> {
        let same = |&at: &u64| {
            let entry = self.entries[(at - self.base) as usize].as_ref();
            entry.is_some_and(|entry| entry.hash == hash && entry.key == *key)
        };
        self.index.find(hash, same).copied()
    }
}

fn hash_at<K, V>(entries: &VecDeque<Option<Entry<K, V>>>, base: u64, at: u64) -> u64 {
    entries[(at - base) as usize]
        .as_ref()
        .map_or(0, |entry| entry.hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_ends_with_the_window() {
        let mut recent = Recent::new(Duration::from_secs(5), 3);
        let at = |s: u64| Instant::ORIGIN + Duration::from_secs(s);
        recent.insert(at(0), 7, "a", 1);
        recent.insert(at(2), 7, "b", 2);
        recent.evict(at(4));
        assert_eq!(recent.find(7, &"a"), Some(&1));
        recent.evict(at(5));
        assert_eq!(recent.find(7, &"a"), None);
        assert_eq!(recent.find(7, &"b"), Some(&2));
        recent.remove(7, &"b");
        assert_eq!(recent.find(7, &"b"), None);
        recent.evict(at(7));
        assert!(recent.entries.is_empty() && recent.index.is_empty());
    }

    #[test]
    fn memory_is_given_back_as_entries_end() {
        let mut recent = Recent::new(Duration::from_secs(5), 100_000);
        for n in 0..100_000u64 {
            recent.insert(Instant::ORIGIN, hash_bytes(1, &n.to_le_bytes()), n, ());
        }
        assert!(recent.is_full());
        recent.evict(Instant::NEVER);
        assert!(recent.entries.capacity() < 16);
        assert_eq!(recent.index.capacity(), 0);
    }

    #[test]
    fn the_hash_spreads_short_ids() {
        let mut low: Vec<u64> = (0..4096)
            .map(|n| hash_bytes(9, format!("N{n}").as_bytes()) & 0xffff)
            .collect();
        low.sort_unstable();
        low.dedup();
        assert!(low.len() > 3800, "{} distinct of 4096", low.len());
        assert_ne!(hash_bytes(1, b"a"), hash_bytes(2, b"a"));
        assert_ne!(hash_bytes(1, b"a"), hash_bytes(1, b"a\0"));
    }
}
