//! Sticky keys: a key stays with the target that it was given first, as long as that is there.
//!
//! Other than hashing, a new target takes no key from the old ones, and a key is given to a target that has little to do.
//! The price is memory for each key.

use std::time::Duration;

use sim_core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use sim_core::time::Instant;

use super::hash::{place, spread};
use super::limits::ensure;
use super::memory::Memory;
use super::{Ask, Candidate, Loads};
use crate::error::ConfigError;

/// Keys remembered by default.
pub const STICKY_KEYS: u32 = 65_536;

/// The most keys that can be remembered: 192 MiB.
pub const STICKY_MOST: u32 = 1 << 24;

/// How long a key is remembered after its last use by default: one day, as the cookies of the service's load balancers.
pub const STICKY_TIME: Duration = Duration::from_secs(86_400);

/// Places among which a key's is looked for.
const WAYS: usize = 8;

/// Settings of [`Algorithm::Sticky`](super::Algorithm::Sticky).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct StickyConfig {
    /// How many keys are remembered, rounded up to a power of two; one to [`STICKY_MOST`]. When there are more, those
    /// not used for longest are forgotten. Twelve bytes each. Default: [`STICKY_KEYS`].
    pub keys: u32,
    /// How long a key is remembered after its last use; a second to 7 days. Default: [`STICKY_TIME`].
    pub time: Duration,
}

impl Default for StickyConfig {
    fn default() -> Self {
        Self {
            keys: STICKY_KEYS,
            time: STICKY_TIME,
        }
    }
}

impl StickyConfig {
    /// Says what is wrong with the settings.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        ensure(
            (1..=STICKY_MOST).contains(&self.keys),
            "sticky.keys",
            self.keys,
            "from 1 to 16,777,216",
        )?;
        ensure(
            (Duration::from_secs(1)..=Duration::from_secs(7 * 86_400)).contains(&self.time),
            "sticky.time",
            format_args!("{:?}", self.time),
            "from 1 s to 7 days",
        )
    }
}

/// The targets by what is remembered of them.
///
/// # Algorithm
///
/// A key that is not remembered, or whose target is gone or not eligible any more, is given to the less loaded of two
/// targets drawn by weight of chance and remembered with it: it fails over and stays there. Where the target is merely full,
/// or to be avoided, one request goes elsewhere and the key stays.
///
/// What is remembered is a table of eight-way sets, each entry a word: 32 bits of the key's hash and 32 of the target's. A key that is taken for
/// another, once in billions, shares its target. Two first requests of a key at the same moment may go
/// to two targets, of which the later one is remembered.
#[derive(Debug, Clone)]
pub(crate) struct Sticky {
    /// The lower halves of the targets' hashes with their indexes, in order.
    names: Box<[(u32, u32)]>,
    /// One by the weight, by index.
    rates: Box<[f32]>,
    /// In seconds.
    time: u32,
}

impl Sticky {
    pub(crate) fn build(settings: &StickyConfig, candidates: &[Candidate]) -> Self {
        let mut names: Vec<(u32, u32)> = (0..)
            .zip(candidates)
            .map(|(index, candidate)| (name(candidate.hash), index))
            .collect();
        names.sort_unstable();
        Self {
            names: names.into_boxed_slice(),
            rates: candidates
                .iter()
                .map(|one| 1.0 / one.weight.max(1) as f32)
                .collect(),
            time: settings.time.as_secs().min(u64::from(u32::MAX)) as u32,
        }
    }

    #[inline]
    pub(crate) fn choose<L: Loads + ?Sized>(
        &self,
        loads: &L,
        ask: &Ask,
        memory: &Memory,
    ) -> Option<usize> {
        if let Some(index) = self.remembered(ask, memory) {
            return Some(index);
        }
        let chosen = self.less_loaded(loads, memory, &|_| true)?;
        self.remember(ask, memory, chosen);
        Some(chosen)
    }

    pub(crate) fn next<L: Loads + ?Sized>(
        &self,
        loads: &L,
        ask: &Ask,
        memory: &Memory,
        admit: &dyn Fn(usize) -> bool,
    ) -> Option<usize> {
        match self.remembered(ask, memory) {
            Some(index) if admit(index) => Some(index),
            Some(_) => self.less_loaded(loads, memory, admit),
            None => {
                let chosen = self.less_loaded(loads, memory, admit)?;
                self.remember(ask, memory, chosen);
                Some(chosen)
            }
        }
    }

    /// The target that a key was given, if it is here.
    #[inline]
    fn remembered(&self, ask: &Ask, memory: &Memory) -> Option<usize> {
        let (key, affinity) = (ask.key?, memory.affinity()?);
        let name = affinity.recall(spread(key), seconds(ask.now), self.time)?;
        let at = self.names.partition_point(|&(one, _)| one < name);
        let &(found, index) = self.names.get(at)?;
        (found == name).then_some(index as usize)
    }

    fn remember(&self, ask: &Ask, memory: &Memory, index: usize) {
        let named = self.names.iter().find(|(_, one)| *one as usize == index);
        if let (Some(key), Some(affinity), Some(&(name, _))) = (ask.key, memory.affinity(), named) {
            affinity.remember(spread(key), name, seconds(ask.now), self.time);
        }
    }

    fn less_loaded<L: Loads + ?Sized>(
        &self,
        loads: &L,
        memory: &Memory,
        admit: &dyn Fn(usize) -> bool,
    ) -> Option<usize> {
        let count = self.rates.len();
        let cost = |index: usize| (loads.load(index).outstanding() + 1) as f32 * self.rates[index];
        let draw = || place(memory.draw(), count as u64) as usize;
        if count == 0 {
            return None;
        }
        let (one, other) = (draw(), draw());
        let (first, second) = if cost(other) < cost(one) {
            (other, one)
        } else {
            (one, other)
        };
        let mut drawn = [first, second].into_iter();
        drawn.find(|&index| admit(index)).or_else(|| {
            let admitted = (first..count).chain(0..first).filter(|&index| admit(index));
            admitted.min_by(|&one, &other| cost(one).total_cmp(&cost(other)))
        })
    }
}

/// What is remembered of a target: never zero.
fn name(hash: u64) -> u32 {
    (hash as u32).max(1)
}

/// Seconds of a clock, from one on.
fn seconds(now: Instant) -> u32 {
    (now.as_nanos() / 1_000_000_000 + 1).min(u64::from(u32::MAX)) as u32
}

/// The keys and their targets. Belongs to the balancer, and outlives its tables.
#[derive(Debug)]
pub(crate) struct Affinity {
    /// The key's tag above, the target's name below; zero is none.
    words: Box<[AtomicU64]>,
    /// When each was last used, in seconds.
    used: Box<[AtomicU32]>,
}

impl Affinity {
    /// Makes room for so many keys.
    pub(crate) fn new(settings: &StickyConfig) -> Self {
        let keys = (settings.keys as usize).next_power_of_two().max(WAYS);
        Self {
            words: (0..keys).map(|_| AtomicU64::new(0)).collect(),
            used: (0..keys).map(|_| AtomicU32::new(0)).collect(),
        }
    }

    /// The places of a key's set.
    fn set(&self, key: u64) -> std::ops::Range<usize> {
        let sets = self.words.len() / WAYS;
        let first = (key as usize & (sets - 1)) * WAYS;
        first..first + WAYS
    }

    /// The name of the key's target; a use of it.
    #[inline]
    fn recall(&self, key: u64, now: u32, time: u32) -> Option<u32> {
        for at in self.set(key) {
            let word = self.words[at].load(Ordering::Relaxed);
            if word >> 32 == key >> 32 && word as u32 != 0 {
                let used = &self.used[at];
                let last = used.load(Ordering::Relaxed);
                if now.saturating_sub(last) > time {
                    return None;
                }
                // Written once a second at most, so that a busy key's line is shared.
                if last != now {
                    used.store(now, Ordering::Relaxed);
                }
                return Some(word as u32);
            }
        }
        None
    }

    /// Remembers a key in its place, an empty one, or in that of the one used longest ago.
    fn remember(&self, key: u64, name: u32, now: u32, time: u32) {
        let mut victim = (self.set(key).start, 0);
        for at in self.set(key) {
            let word = self.words[at].load(Ordering::Relaxed);
            if word >> 32 == key >> 32 && word as u32 != 0 {
                victim = (at, u32::MAX);
                break;
            }
            let idle = if word == 0 {
                time.max(u32::MAX - 1)
            } else {
                now.saturating_sub(self.used[at].load(Ordering::Relaxed))
            };
            if idle > victim.1 {
                victim = (at, idle);
            }
        }
        let (at, _) = victim;
        self.used[at].store(now, Ordering::Relaxed);
        self.words[at].store(key >> 32 << 32 | u64::from(name), Ordering::Relaxed);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::algorithm::Algorithm;
    use crate::algorithm::load::{Entry, Load};
    use crate::algorithm::properties::nodes;
    use crate::algorithm::tests::loads;

    fn memory(settings: StickyConfig) -> Memory {
        Memory::new(1).remembering(&Algorithm::Sticky(settings))
    }

    fn at(key: u64, seconds: u64) -> Ask {
        Ask {
            key: Some(key),
            now: Instant::ORIGIN + Duration::from_secs(seconds),
        }
    }

    #[test]
    fn a_key_stays_with_its_target_whatever_comes_and_fails_over_when_it_goes() {
        let settings = StickyConfig::default();
        let memory = memory(settings);
        let all = nodes(10);
        let table = Sticky::build(&settings, &all[..9]);
        let ten = loads(10);
        let first: Vec<usize> = (0..500)
            .map(|key| table.choose(&ten, &at(key, 1), &memory).expect("a target"))
            .collect();
        // Another target comes, first in order: nobody moves.
        let mut more = all.clone();
        more.rotate_right(1);
        let grown = Sticky::build(&settings, &more);
        for (key, &index) in (0..).zip(&first) {
            let chosen = grown.choose(&ten, &at(key, 2), &memory).expect("a target");
            assert_eq!(more[chosen].slot, all[index].slot);
        }
        // Target 3 goes: its keys fail over, and stay there when it comes again.
        let mut rest = all.clone();
        rest.remove(3);
        let shrunk = Sticky::build(&settings, &rest);
        for (key, &index) in (0..).zip(&first) {
            let chosen = shrunk.choose(&ten, &at(key, 3), &memory).expect("a target");
            let again = grown.choose(&ten, &at(key, 4), &memory).expect("a target");
            assert_eq!(more[again].slot, rest[chosen].slot);
            assert_eq!(rest[chosen].slot == all[index].slot, index != 3);
        }
    }

    #[test]
    fn a_full_target_keeps_its_keys() {
        let settings = StickyConfig::default();
        let memory = memory(settings);
        let (table, two) = (Sticky::build(&settings, &nodes(2)), loads(2));
        let own = table.choose(&two, &at(7, 1), &memory).expect("a target");
        let other = table.next(&two, &at(7, 1), &memory, &|index| index != own);
        assert_eq!(other, Some(1 - own));
        assert_eq!(table.choose(&two, &at(7, 1), &memory), Some(own));
        assert_eq!(table.next(&two, &at(7, 1), &memory, &|_| false), None);
    }

    #[test]
    fn keys_are_forgotten_after_their_time_and_for_want_of_room() {
        let settings = StickyConfig {
            keys: 16,
            time: Duration::from_secs(60),
        };
        let affinity = Affinity::new(&settings);
        affinity.remember(1 << 40, 5, 1, 60);
        assert_eq!(affinity.recall(1 << 40, 61, 60), Some(5));
        assert_eq!(
            affinity.recall(1 << 40, 121, 60),
            Some(5),
            "used a minute ago"
        );
        assert_eq!(affinity.recall(1 << 40, 182, 60), None);
        // Nine keys in a set of eight: the one used longest ago goes.
        for number in 1..=9_u32 {
            affinity.remember(u64::from(number) << 33, number, 200 + number, 60);
        }
        let kept = (1..=9_u64).filter(|number| affinity.recall(number << 33, 210, 60).is_some());
        assert_eq!(kept.collect::<Vec<_>>(), [2, 3, 4, 5, 6, 7, 8, 9]);
    }

    #[test]
    fn a_new_key_goes_where_there_is_less_to_do() {
        let settings = StickyConfig::default();
        let memory = memory(settings);
        let (table, four) = (Sticky::build(&settings, &nodes(4)), loads(4));
        let busy: &Load = &four[2];
        (0..50).for_each(|_| assert!(busy.enter(Entry::New).is_ok()));
        let chosen = (0..200).filter(|&key| table.choose(&four, &at(key, 1), &memory) == Some(2));
        assert!(chosen.count() < 30, "only where it is drawn twice");
        assert_eq!(
            table
                .choose::<Vec<Load>>(
                    &four,
                    &Ask {
                        key: None,
                        ..at(0, 1)
                    },
                    &memory
                )
                .map(|_| ()),
            Some(())
        );
    }
}
