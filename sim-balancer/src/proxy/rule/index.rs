//! Which rules a request could match, by its host and the first segment of its path.
//!
//! A rule whose host condition has no wildcards stands under each of its hosts, and one whose path patterns all fix their
//! first segment (`/api/*`, `/health`) under each of these; the others stand where they are always looked at. A request
//! then looks at four lists of ascending places at most, merged on the fly, instead of at all rules.

use super::condition::Condition;
use super::pattern::Patterns;

/// With fewer rules than these, looking at all of them is as fast.
const WORTHWHILE: usize = 8;

/// Lists of rules, by host and segment.
#[derive(Debug, Clone)]
pub(super) struct Index {
    by_host: Table<Segments>,
    any_host: Segments,
}

/// The lists of one host.
#[derive(Debug, Clone, Default)]
struct Segments {
    by_segment: Table<Vec<u32>>,
    any: Vec<u32>,
}

impl Index {
    /// `None` where there are too few rules for it to be worthwhile.
    pub(super) fn build<'a>(rules: impl ExactSizeIterator<Item = &'a [Condition]>) -> Option<Self> {
        if rules.len() < WORTHWHILE {
            return None;
        }
        let mut index = Self {
            by_host: Table::new(Fold::Lower),
            any_host: Segments::default(),
        };
        for (place, conditions) in (0..).zip(rules) {
            let hosts = conditions.iter().find_map(|condition| match condition {
                Condition::Host(patterns) => literals(patterns),
                _ => None,
            });
            let segments = conditions.iter().find_map(|condition| match condition {
                Condition::Path(patterns) => first_segments(patterns),
                _ => None,
            });
            match hosts {
                Some(hosts) => {
                    for host in hosts {
                        index.by_host.entry(&host).add(place, segments.as_deref());
                    }
                }
                None => index.any_host.add(place, segments.as_deref()),
            }
        }
        Some(index)
    }

    /// The places of the rules that could match, ascending.
    #[inline]
    pub(super) fn candidates(&self, host: &str, path: &str) -> Merge<'_> {
        let segment = segment(path.as_bytes());
        let (with, without) = self.any_host.lists(segment);
        let (host_with, host_without) = match self.by_host.get(host.as_bytes()) {
            Some(segments) => segments.lists(segment),
            None => (&[][..], &[][..]),
        };
        Merge([with, without, host_with, host_without])
    }
}

impl Segments {
    fn add(&mut self, place: u32, segments: Option<&[Vec<u8>]>) {
        let add = |list: &mut Vec<u32>| {
            if list.last() != Some(&place) {
                list.push(place);
            }
        };
        match segments {
            Some(segments) => segments
                .iter()
                .for_each(|segment| add(self.by_segment.entry(segment))),
            None => add(&mut self.any),
        }
    }

    #[inline]
    fn lists(&self, segment: &[u8]) -> (&[u32], &[u32]) {
        let with = self.by_segment.get(segment);
        (with.map_or(&[], Vec::as_slice), &self.any)
    }
}

/// The hosts, if all patterns are free of wildcards.
fn literals(patterns: &Patterns) -> Option<Vec<Vec<u8>>> {
    if !patterns.expressions.is_empty() {
        return None;
    }
    patterns
        .wildcards
        .iter()
        .map(super::pattern::Wildcard::literal)
        .collect()
}

/// The first segments, if all patterns fix theirs.
fn first_segments(patterns: &Patterns) -> Option<Vec<Vec<u8>>> {
    if !patterns.expressions.is_empty() {
        return None;
    }
    let fixed = patterns.wildcards.iter().map(|wildcard| {
        let prefix = wildcard.prefix();
        let segment = segment(&prefix);
        let is_fixed = wildcard.literal().is_some() || segment.len() < prefix.len();
        is_fixed.then(|| segment.to_vec())
    });
    fixed.collect()
}

/// What stands before the second slash.
#[inline]
fn segment(path: &[u8]) -> &[u8] {
    let Some(rest) = path.get(1..) else {
        return path;
    };
    match rest.iter().position(|byte| *byte == b'/') {
        Some(end) => &path[..=end],
        None => path,
    }
}

/// Ascending places of four lists, each once.
#[derive(Debug)]
pub(super) struct Merge<'a>([&'a [u32]; 4]);

impl Iterator for Merge<'_> {
    type Item = u32;

    #[inline]
    fn next(&mut self) -> Option<u32> {
        let least = self
            .0
            .iter()
            .filter_map(|list| list.first())
            .min()
            .copied()?;
        for list in &mut self.0 {
            if let Some((first, rest)) = list.split_first()
                && *first == least
            {
                *list = rest;
            }
        }
        Some(least)
    }
}

/// Whether keys are looked up whatever their case.
#[derive(Debug, Clone, Copy, Default)]
enum Fold {
    Lower,
    #[default]
    Exact,
}

/// A hash table that is filled once and read without allocation, also by keys whose case differs.
///
/// Its keys come from the configuration only, so that nobody can fill it with keys that collide; hence the cheap hash.
#[derive(Debug, Clone)]
struct Table<V> {
    fold: Fold,
    /// Places in `entries`, plus one; a power of two, at most half full.
    buckets: Vec<u32>,
    entries: Vec<(Box<[u8]>, V)>,
}

impl<V> Default for Table<V> {
    fn default() -> Self {
        Self::new(Fold::Exact)
    }
}

impl<V> Table<V> {
    const fn new(fold: Fold) -> Self {
        Self {
            fold,
            buckets: Vec::new(),
            entries: Vec::new(),
        }
    }

    #[inline]
    fn get(&self, key: &[u8]) -> Option<&V> {
        self.find(key).map(|place| &self.entries[place].1)
    }

    fn entry(&mut self, key: &[u8]) -> &mut V
    where
        V: Default,
    {
        if let Some(place) = self.find(key) {
            return &mut self.entries[place].1;
        }
        self.entries.push((key.into(), V::default()));
        if self.entries.len() * 2 > self.buckets.len() {
            self.buckets = vec![0; (self.entries.len() * 4).next_power_of_two()];
            for place in 0..self.entries.len() {
                self.settle(place);
            }
        } else {
            self.settle(self.entries.len() - 1);
        }
        let place = self.entries.len() - 1;
        &mut self.entries[place].1
    }

    fn settle(&mut self, place: usize) {
        let mask = self.buckets.len() - 1;
        let mut at = self.hash(&self.entries[place].0) & mask;
        while self.buckets[at] != 0 {
            at = (at + 1) & mask;
        }
        self.buckets[at] = place as u32 + 1;
    }

    #[inline]
    fn find(&self, key: &[u8]) -> Option<usize> {
        if self.buckets.is_empty() {
            return None;
        }
        let mask = self.buckets.len() - 1;
        let mut at = self.hash(key) & mask;
        loop {
            let place = self.buckets[at].checked_sub(1)? as usize;
            let known = &self.entries[place].0;
            let is_same = match self.fold {
                Fold::Lower => known.eq_ignore_ascii_case(key),
                Fold::Exact => **known == *key,
            };
            if is_same {
                return Some(place);
            }
            at = (at + 1) & mask;
        }
    }

    /// FNV-1a, folded once so that the low bits depend on all of it.
    #[inline]
    fn hash(&self, key: &[u8]) -> usize {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for byte in key {
            let byte = match self.fold {
                Fold::Lower => byte.to_ascii_lowercase(),
                Fold::Exact => *byte,
            };
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        (hash ^ (hash >> 32)) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_ends_at_the_second_slash() {
        for (path, want) in [
            ("", ""),
            ("/", "/"),
            ("/a", "/a"),
            ("/a/", "/a"),
            ("/a/b", "/a"),
            ("//b", "/"),
            ("*", "*"),
        ] {
            assert_eq!(segment(path.as_bytes()), want.as_bytes(), "{path}");
        }
    }

    #[test]
    fn lists_are_merged_in_order_and_without_doubles() {
        let merged: Vec<_> = Merge([&[1, 4, 9], &[2, 4], &[], &[0, 9, 10]]).collect();
        assert_eq!(merged, [0, 1, 2, 4, 9, 10]);
    }

    #[test]
    fn a_table_finds_what_it_holds() {
        let mut table: Table<Vec<u32>> = Table::new(Fold::Lower);
        for n in 0..1_000 {
            table.entry(format!("host-{n}.example").as_bytes()).push(n);
        }
        for n in 0..1_000 {
            assert_eq!(
                table.get(format!("HOST-{n}.Example").as_bytes()),
                Some(&vec![n])
            );
        }
        assert_eq!(table.get(b"host-1000.example"), None);
        assert_eq!(Table::<u32>::new(Fold::Exact).get(b""), None);
    }
}
