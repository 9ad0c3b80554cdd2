//! Maglev: a table that gives every target nearly the same share of the keys, and is looked up in one step.

use super::hash::{key, live, mix, place, scan, spread};
use super::limits::ensure;
use super::memory::Memory;
use super::{Ask, Candidate};
use crate::error::ConfigError;

/// The entries of a table by default: the smaller of the two sizes that the paper measures.
pub const MAGLEV_TABLE: u32 = 65_537;

/// Settings of [`Algorithm::Maglev`](super::Algorithm::Maglev).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct MaglevConfig {
    /// Entries of the table: a prime, at most [`MAGLEV_LARGEST`]. A hundred for each target keep shares within 1 %.
    /// Default: [`MAGLEV_TABLE`].
    pub table: u32,
}

impl Default for MaglevConfig {
    fn default() -> Self {
        Self {
            table: MAGLEV_TABLE,
        }
    }
}

impl MaglevConfig {
    /// Says what is wrong with the settings.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        ensure(
            self.table <= MAGLEV_LARGEST && is_prime(self.table),
            "maglev.table",
            self.table,
            "a prime up to 5,000,011",
        )
    }
}

/// The most entries of a table: the prime that Envoy allows at most, 10 MB.
pub const MAGLEV_LARGEST: u32 = 5_000_011;

/// Other entries to look at before all targets are looked at one by one.
const ATTEMPTS: u64 = 16;

/// A table of Maglev hashing.
///
/// ```
/// use sim_balancer::algorithm::{Maglev, MaglevConfig};
/// use sim_balancer::key_of;
///
/// let names = ["10.0.0.1", "10.0.0.2", "10.0.0.3"];
/// let targets = names.map(|name| (key_of(name.as_bytes()), 1));
/// let table = Maglev::of(&MaglevConfig::default(), &targets);
/// let place = table.get(key_of(b"user 17"));
/// assert!(place.is_some_and(|place| place < names.len()));
/// ```
///
/// # Algorithm
///
/// Eisenbud et al., "Maglev: a fast and reliable software network load balancer", NSDI 2016, section 3.4: every
/// node has a permutation of the table (an offset and a step, by its hash), and the nodes take turns to claim the next
/// entry of theirs that is free. With weights a node takes its turns more rarely than the heaviest one, in
/// proportion: its turn number j comes in round (j + 1/2) x heaviest / weight, so that shares are those of the weights to
/// about an entry, and its first one early enough that it has an entry at all.
///
/// When a node goes, the keys of the others stay where they are, but for some that the changed turns shift: under
/// 0.62 % with 1,000 nodes in 65,537 entries.
///
/// # Memory
///
/// Two bytes an entry, four where there are more than 65,536 nodes.
#[derive(Debug, Clone)]
pub struct Maglev {
    entries: Entries,
    live: Box<[u32]>,
}

/// Indexes of nodes.
#[derive(Debug, Clone)]
enum Entries {
    Narrow(Box<[u16]>),
    Wide(Box<[u32]>),
}

impl Maglev {
    /// Makes a table of targets, each by the hash of its name ([`key_of`](crate::key_of)) and its weight; those of
    /// weight 0 get no key. For who wants it without a balancer.
    #[must_use]
    pub fn of(settings: &MaglevConfig, targets: &[(u64, u32)]) -> Self {
        Self::build(settings, &super::hash::candidates(targets))
    }

    /// The place of the key's target among those that the table was made of; `None` when there is none.
    #[inline]
    #[must_use]
    pub fn get(&self, key: u64) -> Option<usize> {
        let index = self.find(key, |_| true)?;
        Some(index as usize)
    }

    pub(crate) fn build(settings: &MaglevConfig, candidates: &[Candidate]) -> Self {
        Self::new(candidates, settings.table)
    }

    #[inline]
    pub(crate) fn choose(&self, ask: &Ask, memory: &Memory) -> Option<usize> {
        let index = self.find(key(ask, memory), |_| true)?;
        Some(index as usize)
    }

    pub(crate) fn next(
        &self,
        ask: &Ask,
        memory: &Memory,
        admit: &dyn Fn(usize) -> bool,
    ) -> Option<usize> {
        let index = self.find(key(ask, memory), |index| admit(index as usize))?;
        Some(index as usize)
    }

    /// Fills a table of `size` entries, a prime; of more where there are more nodes than that.
    pub(crate) fn new(nodes: &[Candidate], size: u32) -> Self {
        let live = live(nodes);
        let size = next_prime(size.max(live.len() as u32));
        let narrow = nodes.len() <= usize::from(u16::MAX) + 1;
        let entries = if live.is_empty() {
            Entries::Narrow(Box::default())
        } else if narrow {
            let mut entries = vec![0_u16; size as usize].into_boxed_slice();
            fill(nodes, &live, size, |at, index| entries[at] = index as u16);
            Entries::Narrow(entries)
        } else {
            let mut entries = vec![0_u32; size as usize].into_boxed_slice();
            fill(nodes, &live, size, |at, index| entries[at] = index);
            Entries::Wide(entries)
        };
        Self { entries, live }
    }

    /// The node of a key: the first that fits of those that its hash names in turn.
    #[inline]
    pub(crate) fn find(&self, key: u64, mut fits: impl FnMut(u32) -> bool) -> Option<u32> {
        let key = spread(key);
        let index = self.entry(key)?;
        if fits(index) {
            return Some(index);
        }
        self.otherwise(key, fits)
    }

    /// A key whose node does not fit goes to the node of another entry, so that all others share such keys.
    #[cold]
    fn otherwise(&self, key: u64, mut fits: impl FnMut(u32) -> bool) -> Option<u32> {
        (1..=ATTEMPTS)
            .filter_map(|attempt| self.entry(mix(key, attempt)))
            .find(|&index| fits(index))
            .or_else(|| scan(&self.live, key, fits))
    }

    #[inline]
    fn entry(&self, hash: u64) -> Option<u32> {
        match &self.entries {
            Entries::Narrow(entries) => {
                let entry = entries.get(place(hash, entries.len() as u64) as usize);
                entry.map(|&index| u32::from(index))
            }
            Entries::Wide(entries) => entries
                .get(place(hash, entries.len() as u64) as usize)
                .copied(),
        }
    }

    /// All entries, in order.
    #[cfg(test)]
    fn entries(&self) -> Vec<u32> {
        match &self.entries {
            Entries::Narrow(entries) => entries.iter().map(|&index| u32::from(index)).collect(),
            Entries::Wide(entries) => entries.to_vec(),
        }
    }
}

/// Where a node stands in its permutation.
struct Turn {
    index: u32,
    at: u32,
    step: u32,
}

impl Turn {
    fn of(nodes: &[Candidate], index: u32, size: u32) -> Self {
        let hash = nodes[index as usize].hash;
        Self {
            index,
            at: place(mix(hash, 1), u64::from(size)) as u32,
            // A step of one to size - 1 meets every entry, since the size is a prime.
            step: place(mix(hash, 2), u64::from(size.max(2) - 1)) as u32 + 1,
        }
    }

    /// Claims the next free entry of the permutation.
    #[inline]
    fn claim(&mut self, taken: &mut [u64], size: u32) -> usize {
        loop {
            let at = self.at;
            let next = at + self.step;
            self.at = if next >= size { next - size } else { next };
            let (word, bit) = (&mut taken[at as usize / 64], 1 << (at % 64));
            if *word & bit == 0 {
                *word |= bit;
                return at as usize;
            }
        }
    }
}

/// Has the nodes take turns until every entry is set.
fn fill(nodes: &[Candidate], live: &[u32], size: u32, mut set: impl FnMut(usize, u32)) {
    // Most of the work is finding entries taken: a bit each keeps that in the nearest cache.
    let mut taken = vec![0_u64; size.div_ceil(64) as usize];
    let mut turns: Vec<Turn> = live
        .iter()
        .map(|&index| Turn::of(nodes, index, size))
        .collect();
    let weight = |index: u32| u64::from(nodes[index as usize].weight);
    let heaviest = live.iter().map(|&index| weight(index)).max().unwrap_or(1);
    let mut left = size;
    if live.iter().all(|&index| weight(index) == heaviest) {
        while left > 0 {
            for turn in turns.iter_mut().take(left as usize) {
                let at = turn.claim(&mut taken, size);
                set(at, turn.index);
            }
            left = left.saturating_sub(turns.len() as u32);
        }
        return;
    }

    let total: u128 = live.iter().map(|&index| u128::from(weight(index))).sum();
    let rounds = (u128::from(size) * u128::from(heaviest) / total) as u64 + 1;
    // A calendar: for each round the list of those whose turn it is.
    let mut calendar = vec![NOBODY; rounds as usize + 1];
    let mut after = vec![NOBODY; turns.len()];
    let mut taken_turns = vec![0_u64; turns.len()];
    for place in (0..turns.len()).rev() {
        let first = heaviest / weight(turns[place].index) / 2;
        put(&mut calendar, &mut after, first.min(rounds / 2), place);
    }
    let mut round = 0;
    while left > 0 {
        let Some(first) = calendar.get_mut(round) else {
            break;
        };
        let mut place = std::mem::replace(first, NOBODY);
        while place != NOBODY && left > 0 {
            let own = place as usize;
            place = after[own];
            let turn = &mut turns[own];
            let at = turn.claim(&mut taken, size);
            set(at, turn.index);
            left -= 1;
            taken_turns[own] += 1;
            // Turn j comes in round (j + 1/2) x heaviest / weight, and never twice in a round.
            let twice = u128::from(2 * taken_turns[own] + 1) * u128::from(heaviest);
            let next = (twice / u128::from(2 * weight(turn.index))) as u64;
            put(&mut calendar, &mut after, next.max(round as u64 + 1), own);
        }
        round += 1;
    }
    // Rounding may leave a few entries for one more turn of the first ones.
    for extra in 0..left as usize {
        let place = extra % turns.len();
        let at = turns[place].claim(&mut taken, size);
        set(at, turns[place].index);
    }
}

/// No place in a list.
const NOBODY: u32 = u32::MAX;

/// Enters a place into the list of a round; rounds beyond the calendar never come.
fn put(calendar: &mut [u32], after: &mut [u32], round: u64, place: usize) {
    if let Some(first) = calendar.get_mut(round as usize) {
        after[place] = std::mem::replace(first, place as u32);
    }
}

/// Whether a number is a prime, by trial division.
pub(crate) const fn is_prime(number: u32) -> bool {
    if number < 4 {
        return number >= 2;
    }
    if number.is_multiple_of(2) {
        return false;
    }
    let mut divisor: u64 = 3;
    while divisor * divisor <= number as u64 {
        if (number as u64).is_multiple_of(divisor) {
            return false;
        }
        divisor += 2;
    }
    true
}

/// The number itself or the next prime; the largest prime of 32 bits where there is none above.
const fn next_prime(number: u32) -> u32 {
    const LARGEST: u32 = 4_294_967_291;
    let mut number = number;
    while !is_prime(number) {
        if number >= LARGEST {
            return LARGEST;
        }
        number += 1;
    }
    number
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::algorithm::properties::{nodes, weighted};

    fn counts(table: &Maglev, nodes: usize) -> Vec<u32> {
        let mut counts = vec![0; nodes];
        for index in table.entries() {
            counts[index as usize] += 1;
        }
        counts
    }

    #[test]
    fn a_thousand_targets_share_the_papers_table_evenly() {
        let table = Maglev::new(&nodes(1_000), MAGLEV_TABLE);
        let counts = counts(&table, 1_000);
        let most = counts.iter().copied().max().unwrap_or(0);
        let average = f64::from(MAGLEV_TABLE) / 1_000.0;
        assert!(f64::from(most) / average <= 1.0071, "{most}");
        assert!(counts.iter().all(|&count| count >= 65));
    }

    #[test]
    fn a_failure_moves_hardly_any_key_of_the_others() {
        let all = nodes(1_000);
        let full = Maglev::new(&all, MAGLEV_TABLE).entries();
        let mut moved = 0_u64;
        let failures = 40;
        for failed in 0..failures {
            let mut rest = all.clone();
            rest[failed * 25].weight = 0;
            let table = Maglev::new(&rest, MAGLEV_TABLE).entries();
            let shifted = full
                .iter()
                .zip(&table)
                .filter(|(before, after)| before != after && **before as usize != failed * 25);
            moved += shifted.count() as u64;
        }
        let extra = moved as f64 / failures as f64 / f64::from(MAGLEV_TABLE);
        assert!(extra <= 0.0062, "{extra}");
        assert!(extra > 0.0, "nothing was compared");
    }

    #[test]
    fn shares_are_those_of_the_weights() {
        let nodes = weighted(&[1, 2, 3, 10, 100, 0, 100, 1_000]);
        let table = Maglev::new(&nodes, MAGLEV_TABLE);
        let total: u32 = nodes.iter().map(|node| node.weight).sum();
        for (node, count) in nodes.iter().zip(counts(&table, nodes.len())) {
            let fair = f64::from(MAGLEV_TABLE) * f64::from(node.weight) / f64::from(total);
            assert!(
                (f64::from(count) - fair).abs() <= 2.0,
                "{node:?}: {count}, not {fair}"
            );
        }
    }

    #[test]
    fn the_lightest_target_has_an_entry() {
        let mut weights = vec![u32::MAX; 20];
        weights.push(1);
        let nodes = weighted(&weights);
        assert!(counts(&Maglev::new(&nodes, 101), 21)[20] >= 1);
    }

    #[test]
    fn more_targets_than_entries_make_the_table_grow() {
        let many = nodes(1_000);
        let table = Maglev::new(&many, 11);
        assert_eq!(table.entries().len(), 1_009);
        assert!(counts(&table, 1_000).iter().all(|&count| count >= 1));
        let wide = nodes(70_000);
        let table = Maglev::new(&wide, MAGLEV_TABLE);
        assert!(counts(&table, 70_000).iter().all(|&count| count >= 1));
    }

    #[test]
    fn primes_are_told_from_others() {
        let primes: Vec<u32> = (0..30).filter(|&number| is_prime(number)).collect();
        assert_eq!(primes, [2, 3, 5, 7, 11, 13, 17, 19, 23, 29]);
        assert!(is_prime(MAGLEV_TABLE) && !is_prime(65_535));
        assert_eq!(next_prime(u32::MAX), 4_294_967_291);
    }
}
