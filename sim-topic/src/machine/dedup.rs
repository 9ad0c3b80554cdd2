//! The window in which a message is recognised as a duplicate.
//!
//! # Rules
//!
//! - A publish that repeats one of the last `window` stores nothing; it is answered with what the first one was
//!   answered with.
//! - The window counts from the first publish, and a repetition does not lengthen it. At its end, not after it, the
//!   same id is new again.
//! - Ids that publishers gave and hashes of contents never match each other.
//! - By [`DedupScope`], an id means the same publish in the whole topic or within its group only.
//! - When `limit` publishes are remembered, further ones are refused until the oldest is forgotten: to take them
//!   would be to promise what cannot be kept.
//!
//! Source of window and scopes: SNS developer guide, "Message deduplication for FIFO topics".
//!
//! # Algorithm
//!
//! All entries live equally long, so they end in the order in which they came: a queue holds them, and a table of
//! positions finds them. What has ended is dropped by the next call: O(1) a publish, amortised.

use std::collections::VecDeque;
use std::time::Duration;

use compact_str::CompactString;
use hashbrown::HashTable;
use sim_core::time::Instant;

use super::hash::hash_bytes;

/// Where two publishes with the same de-duplication id are the same publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
#[non_exhaustive]
pub enum DedupScope {
    /// In the whole topic. The default, as SNS's `FifoThroughputScope`.
    #[default]
    Topic,
    /// Within the message's group.
    Group,
}

/// What makes two publishes the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DedupKey<'a> {
    /// An id that the publisher gave.
    Id(&'a str),
    /// The hash of the content.
    Content(&'a [u8; 32]),
}

/// What [`Dedup::admit`] says of a publish.
#[derive(Debug)]
pub(crate) enum Admission<'a, V> {
    /// It is the first of its key; [`Dedup::remember`] it once it is published.
    New(Ticket),
    /// It repeats a publish that was remembered with this value.
    Duplicate(&'a V),
    /// It is new and cannot be remembered; until `until` nothing is forgotten.
    Full {
        /// When the oldest is forgotten.
        until: Instant,
    },
}

/// A key that was looked up and not found.
#[derive(Debug)]
pub(crate) struct Ticket {
    hash: u64,
    key: Key,
}

#[derive(Debug, PartialEq, Eq)]
struct Key {
    /// Set if the scope is the group.
    group: Option<CompactString>,
    name: Name,
}

#[derive(Debug, PartialEq, Eq)]
enum Name {
    Id(CompactString),
    Content([u8; 32]),
}

#[derive(Debug)]
struct Entry<V> {
    hash: u64,
    ends: Instant,
    key: Key,
    value: V,
}

/// The publishes of the last `window`, at most `limit` of them.
#[derive(Debug)]
pub(crate) struct Dedup<V> {
    /// In the order in which they end.
    entries: VecDeque<Entry<V>>,
    /// Position of the first entry; positions count from 0 and never repeat.
    base: u64,
    /// Positions by the hashes of their keys.
    index: HashTable<u64>,
    window: Duration,
    limit: usize,
    scope: DedupScope,
    seed: u64,
    /// The latest instant of all calls: one before it is taken for it, so that entries end in order.
    latest: Instant,
}

impl<V> Dedup<V> {
    pub(crate) fn new(window: Duration, limit: usize, scope: DedupScope, seed: u64) -> Self {
        Self {
            entries: VecDeque::new(),
            base: 0,
            index: HashTable::new(),
            window,
            limit,
            scope,
            seed,
            latest: Instant::ORIGIN,
        }
    }

    /// Looks a publish up and makes sure that it can be remembered; changes nothing that could be seen.
    pub(crate) fn admit(
        &mut self,
        now: Instant,
        key: DedupKey<'_>,
        group: &str,
    ) -> Admission<'_, V> {
        self.expire(now);
        let (kind, bytes) = match key {
            DedupKey::Id(id) => (0, id.as_bytes()),
            DedupKey::Content(hash) => (1, hash.as_slice()),
        };
        let mut hash = hash_bytes(self.seed ^ kind, bytes);
        let mut scoped = None;
        if self.scope == DedupScope::Group {
            hash = hash_bytes(hash, group.as_bytes());
            scoped = Some(group);
        }
        let found = self.index.find(hash, |&at| {
            let entry = &self.entries[(at - self.base) as usize];
            entry.hash == hash && entry.key.is(scoped, key)
        });
        if let Some(&at) = found {
            return Admission::Duplicate(&self.entries[(at - self.base) as usize].value);
        }
        if self.entries.len() >= self.limit {
            let until = self
                .entries
                .front()
                .map_or(Instant::NEVER, |first| first.ends);
            return Admission::Full { until };
        }
        Admission::New(Ticket {
            hash,
            key: Key {
                group: scoped.map(CompactString::new),
                name: match key {
                    DedupKey::Id(id) => Name::Id(CompactString::new(id)),
                    DedupKey::Content(hash) => Name::Content(*hash),
                },
            },
        })
    }

    /// Remembers a publish that was admitted, with what a repetition is to be answered with.
    ///
    /// Nothing else may have been remembered since it was admitted: both happen under one lock.
    pub(crate) fn remember(&mut self, now: Instant, ticket: Ticket, value: V) {
        self.latest = self.latest.max(now);
        let Ticket { hash, key } = ticket;
        let at = self.base + self.entries.len() as u64;
        self.entries.push_back(Entry {
            hash,
            ends: self.latest + self.window,
            key,
            value,
        });
        let (entries, base) = (&self.entries, self.base);
        self.index
            .insert_unique(hash, at, |&at| entries[(at - base) as usize].hash);
    }

    /// Forgets what has ended by `now`, and gives back memory.
    pub(crate) fn expire(&mut self, now: Instant) {
        self.latest = self.latest.max(now);
        while let Some(first) = self.entries.front()
            && first.ends <= self.latest
        {
            let base = self.base;
            if let Ok(found) = self.index.find_entry(first.hash, |&at| at == base) {
                found.remove();
            }
            self.entries.pop_front();
            self.base += 1;
        }
        if self.entries.len() < self.entries.capacity() / 8 {
            self.entries.shrink_to(self.entries.len() * 2);
            let (entries, base) = (&self.entries, self.base);
            self.index
                .shrink_to(entries.len() * 2, |&at| entries[(at - base) as usize].hash);
        }
    }

    /// How many publishes are remembered, those included that have ended since the last call.
    #[cfg_attr(not(test), expect(dead_code, reason = "the bound's own measure"))]
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}

impl Key {
    fn is(&self, group: Option<&str>, key: DedupKey<'_>) -> bool {
        let same = match (&self.name, key) {
            (Name::Id(mine), DedupKey::Id(other)) => mine == other,
            (Name::Content(mine), DedupKey::Content(other)) => mine == other,
            _ => false,
        };
        same && self.group.as_deref() == group
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WINDOW: Duration = Duration::from_secs(300);

    fn at(seconds: u64) -> Instant {
        Instant::ORIGIN + Duration::from_secs(seconds)
    }

    fn window(scope: DedupScope, limit: usize) -> Dedup<u32> {
        Dedup::new(WINDOW, limit, scope, 7)
    }

    /// Publishes, and says which publish it repeats.
    fn publish(
        dedup: &mut Dedup<u32>,
        now: Instant,
        key: DedupKey<'_>,
        group: &str,
        value: u32,
    ) -> Result<Option<u32>, Instant> {
        match dedup.admit(now, key, group) {
            Admission::New(ticket) => {
                dedup.remember(now, ticket, value);
                Ok(None)
            }
            Admission::Duplicate(first) => Ok(Some(*first)),
            Admission::Full { until } => Err(until),
        }
    }

    #[test]
    fn a_repetition_is_answered_with_the_first_until_five_minutes_after_it() {
        let mut dedup = window(DedupScope::Topic, 10);
        let key = DedupKey::Id("a");
        assert_eq!(publish(&mut dedup, at(0), key, "g", 1), Ok(None));
        assert_eq!(publish(&mut dedup, at(200), key, "g", 2), Ok(Some(1)));
        // The repetition at 200 s lengthened nothing.
        let last = Instant::from_nanos(at(300).as_nanos() - 1);
        assert_eq!(publish(&mut dedup, last, key, "g", 3), Ok(Some(1)));
        assert_eq!(publish(&mut dedup, at(300), key, "g", 4), Ok(None));
        assert_eq!(publish(&mut dedup, at(301), key, "g", 5), Ok(Some(4)));
    }

    #[test]
    fn in_the_scope_of_the_topic_groups_do_not_count() {
        let mut dedup = window(DedupScope::Topic, 10);
        let key = DedupKey::Id("a");
        assert_eq!(publish(&mut dedup, at(0), key, "g", 1), Ok(None));
        assert_eq!(publish(&mut dedup, at(0), key, "h", 2), Ok(Some(1)));
    }

    #[test]
    fn in_the_scope_of_the_group_another_group_is_another_publish() {
        let mut dedup = window(DedupScope::Group, 10);
        let key = DedupKey::Id("a");
        assert_eq!(publish(&mut dedup, at(0), key, "g", 1), Ok(None));
        assert_eq!(publish(&mut dedup, at(0), key, "h", 2), Ok(None));
        assert_eq!(publish(&mut dedup, at(0), key, "h", 3), Ok(Some(2)));
        assert_eq!(publish(&mut dedup, at(0), key, "g", 4), Ok(Some(1)));
    }

    #[test]
    fn an_id_never_matches_the_hash_of_a_content() {
        let mut dedup = window(DedupScope::Topic, 10);
        let hash = [b'x'; 32];
        let id = "x".repeat(32);
        let content = DedupKey::Content(&hash);
        assert_eq!(publish(&mut dedup, at(0), content, "g", 1), Ok(None));
        assert_eq!(
            publish(&mut dedup, at(0), DedupKey::Id(&id), "g", 2),
            Ok(None)
        );
        assert_eq!(publish(&mut dedup, at(0), content, "g", 3), Ok(Some(1)));
    }

    #[test]
    fn a_full_window_refuses_what_is_new_and_says_until_when() {
        let mut dedup = window(DedupScope::Topic, 2);
        assert_eq!(
            publish(&mut dedup, at(1), DedupKey::Id("a"), "g", 1),
            Ok(None)
        );
        assert_eq!(
            publish(&mut dedup, at(2), DedupKey::Id("b"), "g", 2),
            Ok(None)
        );
        assert_eq!(
            publish(&mut dedup, at(3), DedupKey::Id("c"), "g", 3),
            Err(at(301))
        );
        assert_eq!(
            publish(&mut dedup, at(3), DedupKey::Id("a"), "g", 4),
            Ok(Some(1))
        );
        assert_eq!(
            publish(&mut dedup, at(301), DedupKey::Id("c"), "g", 5),
            Ok(None)
        );
    }

    #[test]
    fn a_publish_that_is_admitted_and_not_remembered_leaves_no_trace() {
        let mut dedup = window(DedupScope::Topic, 10);
        let first = dedup.admit(at(0), DedupKey::Id("a"), "g");
        assert!(matches!(first, Admission::New(_)));
        assert_eq!(dedup.len(), 0);
        let second = dedup.admit(at(0), DedupKey::Id("a"), "g");
        assert!(matches!(second, Admission::New(_)));
    }

    #[test]
    fn a_clock_that_steps_back_forgets_nothing_too_early() {
        let mut dedup = window(DedupScope::Topic, 10);
        assert_eq!(
            publish(&mut dedup, at(100), DedupKey::Id("a"), "g", 1),
            Ok(None)
        );
        assert_eq!(
            publish(&mut dedup, at(90), DedupKey::Id("b"), "g", 2),
            Ok(None)
        );
        assert_eq!(
            publish(&mut dedup, at(395), DedupKey::Id("b"), "g", 3),
            Ok(Some(2))
        );
    }

    #[test]
    fn memory_is_given_back_as_entries_end() {
        let mut dedup = window(DedupScope::Topic, 50_000);
        for n in 0..50_000 {
            let id = n.to_string();
            assert_eq!(
                publish(&mut dedup, at(0), DedupKey::Id(&id), "g", n),
                Ok(None)
            );
        }
        dedup.expire(at(300));
        assert_eq!(dedup.len(), 0);
        assert_eq!(dedup.entries.capacity(), 0);
        assert_eq!(dedup.index.capacity(), 0);
    }

    proptest! {
        /// Against a list of all publishes that is searched from its beginning.
        #[test]
        fn the_window_agrees_with_a_plain_list(
            scope in prop::sample::select(vec![DedupScope::Topic, DedupScope::Group]),
            limit in 1usize..12,
            steps in prop::collection::vec((0u64..120, 0u8..6, any::<bool>(), 0u8..3), 1..200),
        ) {
            let mut dedup = window(scope, limit);
            let mut list: Vec<(Instant, u8, bool, u8, u32)> = Vec::new();
            let mut now = Instant::ORIGIN;
            for (number, (wait, id, by_content, group)) in steps.into_iter().enumerate() {
                now = now + Duration::from_secs(wait);
                let number = number as u32;
                list.retain(|(first, ..)| now - *first < WINDOW);
                let same = |&&(_, i, c, g, _): &&(Instant, u8, bool, u8, u32)| {
                    i == id && c == by_content && (g == group || scope == DedupScope::Topic)
                };
                let expected = match list.iter().find(same) {
                    Some(&(.., first)) => Ok(Some(first)),
                    None if list.len() == limit => Err(list[0].0 + WINDOW),
                    None => {
                        list.push((now, id, by_content, group, number));
                        Ok(None)
                    }
                };
                let (text, hash) = (id.to_string(), [id; 32]);
                let key = if by_content { DedupKey::Content(&hash) } else { DedupKey::Id(&text) };
                prop_assert_eq!(publish(&mut dedup, now, key, &group.to_string(), number), expected);
                prop_assert_eq!(dedup.len(), list.len());
            }
        }
    }
}
