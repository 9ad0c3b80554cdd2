//! Apertures and subsets: one of many balancers keeps to a part of the targets, such that all together load them alike.
//!
//! Each balancer holds few connections and knows the loads of its few targets better. Within its part it takes the less
//! loaded of two draws.

use sim_core::random::Random;

use super::hash::{live, place};
use super::limits::ensure;
use super::memory::Memory;
use super::{Candidate, Loads};
use crate::error::ConfigError;

/// The least number of targets of an aperture by default: Finagle's.
pub const APERTURE_LEAST: u32 = 12;

/// The number of targets of a subset by default: the least that "Site reliability engineering" (2016, chapter 20) advises.
pub const SUBSET_SIZE: u32 = 20;

/// The seed from which all balancers of a round shuffle alike.
const ROUND_SEED: u64 = 0x5b5e_7e55;

/// Draws for a second, different target.
const DRAWS: usize = 4;

/// Settings of [`Algorithm::Aperture`](super::Algorithm::Aperture).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct ApertureConfig {
    /// How many balancers there are, this one included; at least one. Default: 1, whose aperture is everything.
    pub peers: u32,
    /// The number of this one among them, from zero. Default: 0.
    pub peer: u32,
    /// The least number of targets in an aperture, at least one. Default: [`APERTURE_LEAST`].
    pub least: u32,
}

impl Default for ApertureConfig {
    fn default() -> Self {
        Self {
            peers: 1,
            peer: 0,
            least: APERTURE_LEAST,
        }
    }
}

impl ApertureConfig {
    /// Says what is wrong with the settings.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        ensure(self.peers > 0, "aperture.peers", self.peers, "at least 1")?;
        ensure(
            self.peer < self.peers,
            "aperture.peer",
            self.peer,
            "below aperture.peers",
        )?;
        ensure(self.least > 0, "aperture.least", self.least, "at least 1")
    }
}

/// Settings of [`Algorithm::Subset`](super::Algorithm::Subset).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct SubsetConfig {
    /// The number of this balancer, from zero. Default: 0.
    pub client: u32,
    /// Targets of a subset, at least one. Default: [`SUBSET_SIZE`].
    pub size: u32,
}

impl Default for SubsetConfig {
    fn default() -> Self {
        Self {
            client: 0,
            size: SUBSET_SIZE,
        }
    }
}

impl SubsetConfig {
    /// Says what is wrong with the settings.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        ensure(self.size > 0, "subset.size", self.size, "at least 1")
    }
}

/// A part of the targets, with the share of each.
///
/// # Algorithm
///
/// An *aperture* is Finagle's deterministic aperture (Twitter, 2019): targets and balancers each divide a circle, targets by
/// their weights; a balancer has the arc that begins at its place, as many places long as cover the least number
/// of targets. Every point of the circle lies in as many apertures as any other, so that all targets get their
/// share exactly; a target that an arc covers in part is drawn in proportion.
///
/// A *subset* is that of "Site reliability engineering" (Beyer et al., 2016), chapter 20: the balancers of a round shuffle
/// the targets alike, and each takes its own piece. What does not fill a piece is left out in that round.
///
/// Either way the less loaded of two drawn targets is chosen, loads divided by weights (Mitzenmacher, 1996). Where
/// none of the part is admitted, any other target is.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    members: Box<[Member]>,
    /// All targets, for when none of the part will do.
    live: Box<[u32]>,
    total: u64,
}

#[derive(Debug, Clone, Copy)]
struct Member {
    index: u32,
    /// The sum of the shares up to this one's end.
    until: u64,
    /// One by the weight.
    rate: f32,
}

impl Part {
    /// The aperture of a balancer.
    pub(crate) fn aperture(settings: &ApertureConfig, candidates: &[Candidate]) -> Self {
        let live = live(candidates);
        let weight = |index: u32| u128::from(candidates[index as usize].weight);
        let total: u128 = live.iter().map(|&index| weight(index)).sum();
        let peers = u128::from(settings.peers.max(1));
        // Places of balancers that hold the least number of targets, if these were all of the same weight.
        let count = live.len().max(1) as u128;
        let places = (u128::from(settings.least) * peers).div_ceil(count);
        let places = places.clamp(1, peers);
        // The circle is peers x total long: a target's arc is peers times its weight, a balancer's place total.
        let from = u128::from(settings.peer) % peers * total;
        let until = from + places * total;
        let circle = peers * total;
        let mut at = 0;
        let mut shares = Vec::new();
        for &index in &live {
            let end = at + peers * weight(index);
            // The arc may go beyond the end of the circle and come round once.
            let covered = overlap((at, end), (from, until))
                + overlap((at + circle, end + circle), (from, until));
            if covered > 0 {
                shares.push((index, covered));
            }
            at = end;
        }
        Self::of(candidates, live, &shares)
    }

    /// The subset of a client.
    pub(crate) fn subset(settings: &SubsetConfig, candidates: &[Candidate]) -> Self {
        let live = live(candidates);
        let size = (settings.size.max(1) as usize).min(live.len().max(1));
        let pieces = (live.len() / size).max(1) as u32;
        let mut order = live.to_vec();
        let mut random = Random::new(ROUND_SEED ^ u64::from(settings.client / pieces));
        for last in (1..order.len()).rev() {
            order.swap(last, random.below(last as u64 + 1) as usize);
        }
        let piece = (settings.client % pieces) as usize;
        let weight = |index: u32| u128::from(candidates[index as usize].weight);
        let own = order.iter().skip(piece * size).take(size);
        let shares: Vec<(u32, u128)> = own.map(|&index| (index, weight(index))).collect();
        Self::of(candidates, live, &shares)
    }

    fn of(candidates: &[Candidate], live: Box<[u32]>, shares: &[(u32, u128)]) -> Self {
        // Sums of 64 bits are exact up to 2^31 balancers and any weights that sum up to 2^33; beyond, digits go.
        let sum: u128 = shares.iter().map(|(_, share)| share).sum();
        let shift = (u128::BITS - sum.leading_zeros()).saturating_sub(62);
        let mut total = 0;
        let members = shares.iter().map(|&(index, share)| {
            total += ((share >> shift) as u64).max(1);
            Member {
                index,
                until: total,
                rate: 1.0 / candidates[index as usize].weight as f32,
            }
        });
        Self {
            members: members.collect(),
            live,
            total,
        }
    }

    #[inline]
    pub(crate) fn choose<L: Loads + ?Sized>(&self, loads: &L, memory: &Memory) -> Option<usize> {
        let first = self.draw(memory)?;
        let mut second = first;
        for _ in 0..DRAWS {
            second = self.draw(memory)?;
            if second.index != first.index {
                break;
            }
        }
        let better = if cost(loads, second) < cost(loads, first) {
            second
        } else {
            first
        };
        Some(better.index as usize)
    }

    pub(crate) fn next<L: Loads + ?Sized>(
        &self,
        loads: &L,
        memory: &Memory,
        admit: &dyn Fn(usize) -> bool,
    ) -> Option<usize> {
        let mut least: Option<(f32, usize)> = None;
        for member in &self.members {
            let (cost, index) = (cost(loads, member), member.index as usize);
            if least.is_none_or(|(least, _)| cost < least) && admit(index) {
                least = Some((cost, index));
            }
        }
        let elsewhere = || {
            let found = super::hash::scan(&self.live, memory.draw(), |index| admit(index as usize));
            found.map(|index| index as usize)
        };
        least.map(|(_, index)| index).or_else(elsewhere)
    }

    #[inline]
    fn draw(&self, memory: &Memory) -> Option<&Member> {
        let at = place(memory.draw(), self.total);
        let number = self.members.partition_point(|member| member.until <= at);
        self.members.get(number)
    }
}

/// The load of a target if it were given one more, by its weight.
#[inline]
fn cost<L: Loads + ?Sized>(loads: &L, member: &Member) -> f32 {
    (loads.load(member.index as usize).outstanding() + 1) as f32 * member.rate
}

/// How long two stretches are both.
fn overlap(one: (u128, u128), other: (u128, u128)) -> u128 {
    one.1.min(other.1).saturating_sub(one.0.max(other.0))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::algorithm::load::{Entry, Load};
    use crate::algorithm::properties::{nodes, weighted};
    use crate::algorithm::tests::loads;

    /// What each target gets if every balancer draws from its part by its shares.
    fn shares(parts: &[Part], count: usize) -> Vec<f64> {
        let mut shares = vec![0.0; count];
        for part in parts {
            let mut from = 0;
            for member in &part.members {
                let share = (member.until - from) as f64 / part.total as f64;
                shares[member.index as usize] += share;
                from = member.until;
            }
        }
        shares
    }

    fn apertures(peers: u32, least: u32, candidates: &[Candidate]) -> Vec<Part> {
        let aperture = |peer| Part::aperture(&ApertureConfig { peers, peer, least }, candidates);
        (0..peers).map(aperture).collect()
    }

    #[test]
    fn apertures_together_load_every_target_by_its_weight() {
        for (peers, least, count) in [
            (1, 12, 5),
            (3, 2, 7),
            (10, 12, 100),
            (17, 5, 23),
            (40, 12, 10),
        ] {
            let weights: Vec<u32> = (0..count).map(|number| 1 + number % 4).collect();
            let candidates = weighted(&weights);
            let total: u32 = weights.iter().sum();
            let parts = apertures(peers, least, &candidates);
            for (share, weight) in shares(&parts, weights.len()).iter().zip(&weights) {
                let fair = f64::from(peers) * f64::from(*weight) / f64::from(total);
                assert!((share - fair).abs() < 1e-9, "{share}, not {fair}");
            }
        }
    }

    #[test]
    fn an_aperture_has_its_least_number_of_targets_and_hardly_more() {
        for part in apertures(100, 12, &nodes(200)) {
            assert!(
                (12..=15).contains(&part.members.len()),
                "{}",
                part.members.len()
            );
        }
        assert_eq!(apertures(1, 12, &nodes(200))[0].members.len(), 200);
        assert_eq!(apertures(7, 12, &nodes(5))[3].members.len(), 5);
    }

    #[test]
    fn the_subsets_of_a_round_share_no_target() {
        let candidates = nodes(100);
        let subset = |client| Part::subset(&SubsetConfig { client, size: 20 }, &candidates);
        for round in 0..3 {
            let mut seen: Vec<u32> = (round * 5..(round + 1) * 5)
                .flat_map(|client| subset(client).members.into_iter().map(|one| one.index))
                .collect();
            assert_eq!(seen.len(), 100);
            seen.sort_unstable();
            seen.dedup();
            assert_eq!(seen.len(), 100);
        }
        let one = |client| {
            subset(client)
                .members
                .iter()
                .map(|one| one.index)
                .collect::<Vec<_>>()
        };
        assert_ne!(one(0), one(5), "another round shuffles otherwise");
    }

    #[test]
    fn the_less_loaded_of_two_is_chosen_and_others_only_where_none_is_admitted() {
        let candidates = nodes(40);
        let loads = loads(candidates.len());
        let memory = Memory::new(1);
        let part = Part::subset(&SubsetConfig { client: 1, size: 2 }, &candidates);
        let [first, second] = [0, 1].map(|number| part.members[number].index as usize);
        assert_eq!(loads[first].enter(Entry::New), Ok(()));
        for _ in 0..100 {
            // Both are drawn but once in sixteen.
            let chosen = part.choose(&loads, &memory).expect("there are two");
            assert!(chosen == first || chosen == second);
        }
        let second_of = (0..1_000).filter(|_| part.choose(&loads, &memory) == Some(second));
        assert!(second_of.count() > 900);
        assert_eq!(
            part.next(&loads, &memory, &|index| index == first),
            Some(first)
        );
        assert_eq!(part.next(&loads, &memory, &|index| index == 39), Some(39));
        assert_eq!(part.next(&loads, &memory, &|_| false), None);
        let none = Part::subset(&SubsetConfig::default(), &[]);
        assert_eq!(none.choose::<Vec<Load>>(&Vec::new(), &memory), None);
    }
}
