//! Prequal's rule: of the targets that were asked lately, the fastest that is not among the most loaded.

use std::time::Duration;

use sim_core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use sim_core::time::Instant;

use super::hash::place;
use super::limits::ensure;
use super::memory::{Memory, Turns};
use super::{Ask, Candidate, Loads};
use crate::error::ConfigError;
use crate::message::Feedback;

/// The most answers in the pool: the paper's.
pub const PREQUAL_POOL: usize = 16;

/// The quantile of requests in flight above which a target is hot, by default: 2^(-1/4), the paper's.
pub const PREQUAL_QUANTILE: f64 = 0.84;

/// Targets to be asked for each pick by default: the paper's experiments ask three.
pub const PREQUAL_PROBES: f64 = 3.0;

/// Answers removed from the pool for each pick by default: the paper's.
pub const PREQUAL_REMOVED: f64 = 1.0;

/// How long an answer counts by default: the paper's.
pub const PREQUAL_AGE: Duration = Duration::from_secs(1);

/// Answers from which the quantile is estimated.
const RECENT: usize = 64;

/// Settings of [`Algorithm::Prequal`](super::Algorithm::Prequal).
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct PrequalConfig {
    /// The quantile of requests in flight above which a target is hot; above 0 and at most 1. Default:
    /// [`PREQUAL_QUANTILE`].
    pub quantile: f64,
    /// Targets asked for each pick; above 0 and at most 16. Default: [`PREQUAL_PROBES`].
    pub probes: f64,
    /// Answers removed for each pick, by turns the oldest one and the worst one; at most 2. Default:
    /// [`PREQUAL_REMOVED`].
    pub removed: f64,
    /// How long an answer counts; one millisecond to a minute. Default: [`PREQUAL_AGE`].
    pub age: Duration,
}

impl Default for PrequalConfig {
    fn default() -> Self {
        Self {
            quantile: PREQUAL_QUANTILE,
            probes: PREQUAL_PROBES,
            removed: PREQUAL_REMOVED,
            age: PREQUAL_AGE,
        }
    }
}

impl PrequalConfig {
    /// Says what is wrong with the settings.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        ensure(
            self.quantile > 0.0 && self.quantile <= 1.0,
            "prequal.quantile",
            self.quantile,
            "above 0 and at most 1",
        )?;
        ensure(
            self.probes > 0.0 && self.probes <= 16.0,
            "prequal.probes",
            self.probes,
            "above 0 and at most 16",
        )?;
        ensure(
            (0.0..=2.0).contains(&self.removed),
            "prequal.removed",
            self.removed,
            "from 0 to 2",
        )?;
        let range = Duration::from_millis(1)..=Duration::from_secs(60);
        ensure(
            range.contains(&self.age),
            "prequal.age",
            format_args!("{:?}", self.age),
            "from 1 ms to 60 s",
        )
    }

    /// How often an answer is used: so often that the pool of 16 neither runs dry nor grows stale among `count` targets
    /// (equation 1 of the paper, with its delta of 1).
    fn uses(&self, count: usize) -> f64 {
        let fresh = (1.0 - PREQUAL_POOL as f64 / count.max(1) as f64) * self.probes - self.removed;
        // A small set of targets is asked often enough that answers are replaced by newer ones of the same target.
        if fresh <= 0.0 {
            return f64::from(MOST_USES);
        }
        (2.0 / fresh).clamp(1.0, f64::from(MOST_USES))
    }
}

/// Answers to be chosen from.
///
/// # Algorithm
///
/// Wydrowski, Kleinberg, Rumble and Archer, "Load is not what you should balance: introducing Prequal", NSDI 2024,
/// section 4: targets drawn at random are asked for their requests in flight and for their latency; their answers wait in
/// a pool. A pick takes the answer of the lowest latency among the cold ones, and of the fewest requests in flight where
/// all are hot; an answer is hot when it has more in flight than a quantile of recent answers, all
/// of it divided by the target's weight, relative to the mean. An answer that was used counts one
/// more in flight, is used a bounded number of times, and ages; for each pick one is removed, by turns the oldest and the
/// worst. With less than two answers the less loaded of two targets drawn at random is taken.
///
/// Who asks is the caller: [`Balancer::probes`](crate::Balancer::probes) says whom. A target's newer answer replaces its
/// older one, and what targets tell with their responses counts as an answer.
///
/// The pool is 16 words, each an answer; a pick reads them and changes one by compare-and-swap. An answer that races
/// with another is lost or used once more, which does no harm.
#[derive(Debug)]
pub(crate) struct Prequal {
    /// By slot: who is there.
    places: Box<[Place]>,
    /// The mean weight by the target's, by index.
    rates: Box<[f32]>,
    /// Whether these are not all one.
    is_uneven: bool,
    /// Where they are not: the number of answers in the upper half, and above how many requests in flight for their weight
    /// targets were hot then, as an `f32`.
    threshold: AtomicU64,
    turns: Turns,
    age: u64,
    uses: f64,
    removed: f64,
}

/// The target in a slot.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// Its index, or [`ABSENT`].
    index: u32,
    /// The lower bits of its birth: an answer of who had the slot before is not its own.
    birth: u32,
}

/// Loads that differ by less are equal: divided by weights they are not exact.
const EQUAL: f32 = 1.0 + 1e-5;

/// Not a target that can be chosen.
const ABSENT: u32 = u32::MAX;

impl Prequal {
    pub(crate) fn build(settings: &PrequalConfig, candidates: &[Candidate], turns: Turns) -> Self {
        let slots = candidates.iter().map(|one| one.slot as usize + 1).max();
        let nobody = Place {
            index: ABSENT,
            birth: 0,
        };
        let mut places = vec![nobody; slots.unwrap_or(0)].into_boxed_slice();
        for (index, candidate) in (0..).zip(candidates) {
            places[candidate.slot as usize] = Place {
                index,
                birth: candidate.birth & BIRTH_MASK,
            };
        }
        let first = candidates.first().map_or(0, |one| one.weight);
        let total: f64 = candidates.iter().map(|one| f64::from(one.weight)).sum();
        let mean = total / candidates.len().max(1) as f64;
        let rate = |one: &Candidate| (mean / f64::from(one.weight)) as f32;
        Self {
            places,
            rates: candidates.iter().map(rate).collect(),
            is_uneven: candidates.iter().any(|one| one.weight != first),
            threshold: AtomicU64::new(0),
            turns,
            age: (settings.age.as_nanos() as u64 >> AGE_TICK).max(1),
            uses: settings.uses(candidates.len()),
            removed: settings.removed,
        }
    }

    #[inline]
    pub(crate) fn choose<L: Loads + ?Sized>(
        &self,
        loads: &L,
        ask: &Ask,
        memory: &Memory,
    ) -> Option<usize> {
        self.among(loads, ask, memory, &|_| true)
    }

    pub(crate) fn next<L: Loads + ?Sized>(
        &self,
        loads: &L,
        ask: &Ask,
        memory: &Memory,
        admit: &dyn Fn(usize) -> bool,
    ) -> Option<usize> {
        self.among(loads, ask, memory, admit).or_else(|| {
            let start = place(memory.draw(), self.rates.len() as u64) as usize;
            let mut order = (start..self.rates.len()).chain(0..start);
            order.find(|&index| admit(index))
        })
    }

    fn among<L: Loads + ?Sized>(
        &self,
        loads: &L,
        ask: &Ask,
        memory: &Memory,
        admit: &dyn Fn(usize) -> bool,
    ) -> Option<usize> {
        let Some(pool) = memory.pool() else {
            return self.drawn(loads, memory, admit);
        };
        let threshold = self.threshold(pool);
        let now = age_tick(ask.now);
        let mut seen = Survey::default();
        for (number, cell) in pool.cells.iter().enumerate() {
            let word = cell.load(Ordering::Relaxed);
            let Some(answer) = Answer::of(word) else {
                continue;
            };
            let age = now.wrapping_sub(answer.at) & AGE_MASK;
            let index = self.place(&answer);
            // A clock that is a little behind makes an age that is nearly the whole circle.
            if (age > self.age && age < AGE_MASK - 8) || index.is_none() {
                pool.replace(number, word, 0);
                continue;
            }
            if let Some(index) = index {
                let flying = answer.in_flight as f32 * self.rates[index];
                let rank = Rank {
                    number,
                    index,
                    word,
                    answer,
                    age,
                    flying,
                    hot: flying > threshold * EQUAL,
                };
                seen.add(rank, admit(index));
            }
        }
        let chosen = if seen.count < 2 { None } else { seen.best };
        if let Some(best) = &chosen {
            let gone = self.remove(pool, &seen, memory, best);
            let word = if gone {
                0
            } else {
                best.answer.used(self.budget(memory))
            };
            pool.replace(best.number, best.word, word);
        }
        chosen
            .map(|best| best.index)
            .or_else(|| self.drawn(loads, memory, admit))
    }

    /// The index of the target that answered, if it can be chosen.
    fn place(&self, answer: &Answer) -> Option<usize> {
        let place = self.places.get(answer.slot as usize)?;
        (place.index != ABSENT && place.birth == answer.birth).then_some(place.index as usize)
    }

    /// Above how many requests in flight for its weight a target is hot. With weights this depends on the table: it is
    /// estimated anew when answers have come since.
    fn threshold(&self, pool: &Pool) -> f32 {
        if !self.is_uneven {
            return pool.threshold.load(Ordering::Relaxed) as f32;
        }
        let count = pool.count.load(Ordering::Relaxed);
        let known = self.threshold.load(Ordering::Relaxed);
        if (known >> 32) as u32 == count {
            return f32::from_bits(known as u32);
        }
        let mut recent = [0.0; RECENT];
        let mut found = 0;
        for answer in pool
            .recent
            .iter()
            .filter_map(|cell| Answer::of(cell.load(Ordering::Relaxed)))
        {
            if let Some(index) = self.place(&answer) {
                recent[found] = answer.in_flight as f32 * self.rates[index];
                found += 1;
            }
        }
        let threshold = pool.quantile_of(&mut recent[..found], f32::total_cmp);
        let word = u64::from(count) << 32 | u64::from(threshold.to_bits());
        self.threshold.store(word, Ordering::Relaxed);
        threshold
    }

    /// How often an answer may be used, rounded by chance.
    fn budget(&self, memory: &Memory) -> u32 {
        self.uses.trunc() as u32 + u32::from(chance(memory, self.uses.fract()))
    }

    /// Removes the oldest answer or the worst, by turns; tells whether the one that is used is to be removed.
    fn remove(&self, pool: &Pool, seen: &Survey, memory: &Memory, used: &Rank) -> bool {
        if self.removed <= 0.0 {
            return false;
        }
        let count = self.removed.trunc() as u32 + u32::from(chance(memory, self.removed.fract()));
        let mut gone = false;
        for _ in 0..count {
            let victim = if self.turns.take().is_multiple_of(2) {
                &seen.oldest
            } else {
                &seen.worst
            };
            match victim {
                Some(victim) if victim.number == used.number => gone = true,
                Some(victim) => pool.replace(victim.number, victim.word, 0),
                None => {}
            }
        }
        gone
    }

    /// The less loaded of two, where too few answers are there.
    fn drawn<L: Loads + ?Sized>(
        &self,
        loads: &L,
        memory: &Memory,
        admit: &dyn Fn(usize) -> bool,
    ) -> Option<usize> {
        let count = self.rates.len() as u64;
        if count == 0 {
            return None;
        }
        let draw = || place(memory.draw(), count) as usize;
        let (one, other) = (draw(), draw());
        let cost = |index: usize| loads.load(index).outstanding() as f32 * self.rates[index];
        let (first, second) = if cost(other) < cost(one) {
            (other, one)
        } else {
            (one, other)
        };
        [first, second].into_iter().find(|&index| admit(index))
    }
}

/// True with this probability.
fn chance(memory: &Memory, probability: f64) -> bool {
    probability > 0.0 && ((memory.draw() >> 40) as f64) < probability * (1_u64 << 24) as f64
}

/// An answer and how it compares.
#[derive(Debug, Clone, Copy)]
struct Rank {
    number: usize,
    index: usize,
    word: u64,
    answer: Answer,
    age: u64,
    flying: f32,
    hot: bool,
}

impl Rank {
    /// Whether it is to be chosen rather than the other.
    fn beats(&self, other: &Self) -> bool {
        match (self.hot, other.hot) {
            (false, true) => true,
            (true, false) => false,
            (false, false) => self.answer.latency < other.answer.latency,
            (true, true) => self.flying < other.flying,
        }
    }
}

/// What a look through the pool found.
#[derive(Debug, Default)]
struct Survey {
    count: usize,
    best: Option<Rank>,
    worst: Option<Rank>,
    oldest: Option<Rank>,
}

impl Survey {
    fn add(&mut self, rank: Rank, admitted: bool) {
        self.count += 1;
        if admitted && self.best.is_none_or(|best| rank.beats(&best)) {
            self.best = Some(rank);
        }
        if self.worst.is_none_or(|worst| worst.beats(&rank)) {
            self.worst = Some(rank);
        }
        if self.oldest.is_none_or(|oldest| rank.age > oldest.age) {
            self.oldest = Some(rank);
        }
    }
}

/// The answers that wait to be used. Belongs to the balancer, and outlives its tables.
#[derive(Debug)]
pub(crate) struct Pool {
    /// That of the settings.
    quantile: f64,
    /// Answers in words; zero is none.
    cells: [AtomicU64; PREQUAL_POOL],
    /// Recent answers, in a ring.
    recent: [AtomicU64; RECENT],
    /// How many answers came.
    count: AtomicU32,
    /// The number of requests in flight above which an answer is hot.
    threshold: AtomicU32,
}

impl Pool {
    /// Makes an empty pool.
    pub(crate) fn new(settings: &PrequalConfig) -> Self {
        Self {
            quantile: settings.quantile,
            cells: std::array::from_fn(|_| AtomicU64::new(0)),
            recent: std::array::from_fn(|_| AtomicU64::new(0)),
            count: AtomicU32::new(0),
            threshold: AtomicU32::new(0),
        }
    }

    /// Takes an answer of the target of that birth in a slot.
    pub(crate) fn add(&self, slot: u32, birth: u32, feedback: &Feedback, now: Instant) {
        if slot > MOST_SLOT {
            return;
        }
        let latency = feedback
            .latency
            .map_or(0.0, |latency| latency.as_nanos() as f32);
        let answer = Answer {
            slot,
            birth: birth & BIRTH_MASK,
            in_flight: feedback.in_flight.min(MOST_FLYING),
            latency: coded(latency),
            at: age_tick(now),
            turn: 1,
        };
        let number = self.count.fetch_add(1, Ordering::Relaxed) as usize;
        self.recent[number % RECENT].store(answer.word(), Ordering::Relaxed);
        self.estimate();
        let (cell, word) = self.victim(&answer);
        self.replace(cell, word, answer.word());
    }

    /// The cell for a new answer: that of the same target, an empty one, or the oldest.
    fn victim(&self, new: &Answer) -> (usize, u64) {
        let mut victim = (0, 0);
        let mut oldest = None;
        for (number, cell) in self.cells.iter().enumerate() {
            let word = cell.load(Ordering::Relaxed);
            let age = match Answer::of(word) {
                Some(answer) if answer.slot == new.slot && answer.birth == new.birth => {
                    return (number, word);
                }
                Some(answer) => new.at.wrapping_sub(answer.at) & AGE_MASK,
                None => u64::MAX,
            };
            if oldest.is_none_or(|oldest| age > oldest) {
                (oldest, victim) = (Some(age), (number, word));
            }
        }
        victim
    }

    /// Estimates the quantile of requests in flight over recent answers.
    fn estimate(&self) {
        let mut recent = [0_u32; RECENT];
        let mut found = 0;
        for answer in self
            .recent
            .iter()
            .filter_map(|cell| Answer::of(cell.load(Ordering::Relaxed)))
        {
            recent[found] = answer.in_flight;
            found += 1;
        }
        let threshold = self.quantile_of(&mut recent[..found], u32::cmp);
        self.threshold.store(threshold, Ordering::Relaxed);
    }

    /// The quantile of some numbers; of none it is zero.
    fn quantile_of<N: Copy + Default>(
        &self,
        numbers: &mut [N],
        order: impl Fn(&N, &N) -> std::cmp::Ordering,
    ) -> N {
        let count = numbers.len();
        if count == 0 {
            return N::default();
        }
        let rank = ((count as f64 * self.quantile).ceil() as usize).clamp(1, count) - 1;
        *numbers.select_nth_unstable_by(rank, order).1
    }

    fn replace(&self, number: usize, former: u64, word: u64) {
        // Whoever came first is right as well.
        let _ =
            self.cells[number].compare_exchange(former, word, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// A tick of ages, as a power of two of nanoseconds: 16.8 ms. An answer looks fresh again after 69 s in a
/// pool that nobody looks into.
const AGE_TICK: u32 = 24;
const AGE_MASK: u64 = (1 << 12) - 1;
/// The largest slot that an answer can name.
const MOST_SLOT: u32 = (1 << 20) - 1;
const MOST_FLYING: u32 = (1 << 12) - 1;
const MOST_USES: u32 = 15;
/// The bits of a target's birth that an answer has: it can be taken for one of the eighth target after in the same slot, if
/// all eight come within the age of an answer.
const BIRTH_MASK: u32 = (1 << 3) - 1;
/// The largest code of a latency.
const MOST_LATENCY: u32 = (1 << 13) - 1;

fn age_tick(now: Instant) -> u64 {
    (now.as_nanos() >> AGE_TICK) & AGE_MASK
}

/// A latency in nanoseconds as 13 bits that compare alike: six bits of an `f32`'s exponent and seven of its fraction, so to
/// 0.8 %. Zero stands for none.
fn coded(latency: f32) -> u32 {
    if latency <= 0.0 {
        return 0;
    }
    let above_one = latency.max(1.0).to_bits() - 1.0_f32.to_bits();
    ((above_one >> 16) + 1).min(MOST_LATENCY)
}

/// An answer, unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Answer {
    /// 20 bits.
    slot: u32,
    /// 12 bits.
    in_flight: u32,
    /// 3 bits.
    birth: u32,
    /// 13 bits, coded.
    latency: u32,
    /// 12 bits.
    at: u64,
    /// Which use of it the next one is, from one on; 4 bits.
    turn: u32,
}

impl Answer {
    fn of(word: u64) -> Option<Self> {
        let turn = (word & 0xf) as u32;
        (turn > 0).then_some(Self {
            slot: (word >> 44) as u32,
            in_flight: (word >> 32) as u32 & MOST_FLYING,
            birth: (word >> 29) as u32 & BIRTH_MASK,
            latency: (word >> 16) as u32 & MOST_LATENCY,
            at: word >> 4 & AGE_MASK,
            turn,
        })
    }

    fn word(self) -> u64 {
        u64::from(self.slot) << 44
            | u64::from(self.in_flight) << 32
            | u64::from(self.birth) << 29
            | u64::from(self.latency) << 16
            | self.at << 4
            | u64::from(self.turn)
    }

    /// After one of so many uses: a request more in flight, or nothing.
    fn used(self, budget: u32) -> u64 {
        if self.turn >= budget.min(MOST_USES) {
            return 0;
        }
        Self {
            in_flight: (self.in_flight + 1).min(MOST_FLYING),
            turn: self.turn + 1,
            ..self
        }
        .word()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::algorithm::Algorithm;
    use crate::algorithm::load::{Entry, Load};
    use crate::algorithm::properties::{ask_at, nodes, weighted};
    use crate::algorithm::tests::loads;

    fn at(millis: u64) -> Instant {
        Instant::ORIGIN + Duration::from_millis(60_000 + millis)
    }

    fn told(in_flight: u32, millis: u64) -> Feedback {
        Feedback {
            in_flight,
            latency: Some(Duration::from_millis(millis)),
            ..Feedback::default()
        }
    }

    /// Nothing is removed, so that what is chosen follows from the answers alone.
    fn settings() -> PrequalConfig {
        PrequalConfig {
            removed: 0.0,
            ..PrequalConfig::default()
        }
    }

    fn build(settings: &PrequalConfig, candidates: &[Candidate]) -> Prequal {
        Prequal::build(settings, candidates, Memory::new(1).turns())
    }

    fn chosen(table: &Prequal, loads: &Vec<Load>, memory: &Memory, now: Instant) -> usize {
        let chosen = table.choose(loads, &ask_at(now), memory);
        chosen.expect("there are targets")
    }

    fn memory() -> Memory {
        Memory::new(1).remembering(&Algorithm::Prequal(settings()))
    }

    fn pool(memory: &Memory) -> &Pool {
        memory.pool().expect("it was asked for")
    }

    fn add(memory: &Memory, slot: u32, feedback: Feedback, now: Instant) {
        pool(memory).add(slot, 0, &feedback, now);
    }

    #[test]
    fn the_fastest_of_the_cold_is_chosen_and_the_least_loaded_where_all_are_hot() {
        let (table, loads) = (build(&settings(), &nodes(10)), loads(10));
        let memory = memory();
        // The quantile of (1, 2, 3, 9) at 0.84 is 9: none is above it.
        add(&memory, 1, told(1, 50), at(0));
        add(&memory, 2, told(2, 20), at(0));
        add(&memory, 3, told(3, 40), at(0));
        add(&memory, 4, told(9, 10), at(0));
        assert_eq!(chosen(&table, &loads, &memory, at(1)), 4);
        // Used once it counts ten in flight, which is hot.
        assert_eq!(chosen(&table, &loads, &memory, at(2)), 2);
        pool(&memory).threshold.store(0, Ordering::Relaxed);
        assert_eq!(chosen(&table, &loads, &memory, at(3)), 1);
    }

    #[test]
    fn answers_age_and_are_used_up() {
        let (table, loads) = (build(&settings(), &nodes(10)), loads(10));
        let memory = memory();
        add(&memory, 1, told(5, 5), at(0));
        add(&memory, 2, told(6, 6), at(0));
        let answers = |memory: &Memory| {
            let cells = pool(memory).cells.iter();
            let words = cells.map(|cell| cell.load(Ordering::Relaxed));
            words.filter(|&word| Answer::of(word).is_some()).count()
        };
        assert_eq!(answers(&memory), 2);
        chosen(&table, &loads, &memory, at(1_500));
        assert_eq!(answers(&memory), 0, "too old after a second");
        let many = PrequalConfig {
            probes: 16.0,
            ..settings()
        };
        // Among ten thousand targets 16 fresh answers come for each pick: each is used once.
        let table = build(&many, &nodes(10_000));
        for slot in [1, 2, 3] {
            add(&memory, slot, told(1, 1), at(2_000));
        }
        for left in [2, 1] {
            chosen(&table, &loads, &memory, at(2_000));
            assert_eq!(answers(&memory), left, "used once each");
        }
    }

    #[test]
    fn an_answer_is_removed_for_each_pick() {
        let with = PrequalConfig {
            removed: 1.0,
            ..settings()
        };
        let (table, loads) = (build(&with, &nodes(10)), loads(10));
        let memory = memory();
        for slot in 0..10 {
            add(
                &memory,
                slot,
                told(slot, 10 + u64::from(slot)),
                at(u64::from(slot) * 20),
            );
        }
        for _ in 0..8 {
            let seen = chosen(&table, &loads, &memory, at(210));
            assert!(seen < 10);
        }
        let cells = pool(&memory).cells.iter();
        let left = cells
            .filter(|cell| cell.load(Ordering::Relaxed) != 0)
            .count();
        assert!(left <= 3, "{left}");
    }

    #[test]
    fn without_answers_the_less_loaded_of_two_is_taken_and_slots_that_are_gone_are_not() {
        let (table, loads) = (build(&settings(), &nodes(2)), loads(2));
        let memory = memory();
        assert_eq!(loads[0].enter(Entry::New), Ok(()));
        let ones = (0..100).filter(|_| chosen(&table, &loads, &memory, at(0)) == 1);
        assert!(ones.count() >= 60);
        add(&memory, 7, told(0, 1), at(0));
        add(&memory, 8, told(0, 1), at(0));
        assert!(chosen(&table, &loads, &memory, at(1)) < 2);
        assert_eq!(
            table.next(&loads, &ask_at(at(1)), &memory, &|index| index == 0),
            Some(0)
        );
        assert_eq!(
            table.next(&loads, &ask_at(at(1)), &memory, &|_| false),
            None
        );
    }

    #[test]
    fn an_answer_survives_its_word() {
        let answer = Answer {
            slot: MOST_SLOT,
            birth: BIRTH_MASK,
            in_flight: MOST_FLYING,
            latency: coded(123e6),
            at: AGE_MASK,
            turn: MOST_USES,
        };
        assert_eq!(Answer::of(answer.word()), Some(answer));
        assert_eq!(Answer::of(0), None);
        assert!(coded(1e6) < coded(1.01e6) && coded(0.0) < coded(1.0));
    }

    #[test]
    fn an_answer_of_who_had_the_slot_before_is_not_the_newcomers() {
        let mut candidates = nodes(3);
        candidates[1].birth = 9;
        let (table, loads) = (build(&settings(), &candidates), loads(3));
        let memory = memory();
        pool(&memory).add(1, 8, &told(1, 1), at(0));
        pool(&memory).add(0, 0, &told(1, 50), at(0));
        pool(&memory).add(2, 0, &told(1, 90), at(0));
        assert_eq!(chosen(&table, &loads, &memory, at(1)), 0);
        pool(&memory).add(1, 9, &told(1, 1), at(2));
        assert_eq!(chosen(&table, &loads, &memory, at(3)), 1);
    }

    #[test]
    fn a_target_is_hot_by_what_it_has_in_flight_for_its_weight() {
        let of = |answers: [(u32, u64); 2]| {
            let half = PrequalConfig {
                quantile: 0.5,
                ..settings()
            };
            let table = build(&half, &weighted(&[1, 9]));
            let memory = Memory::new(1).remembering(&Algorithm::Prequal(half));
            for (slot, (in_flight, millis)) in (0..).zip(answers) {
                add(&memory, slot, told(in_flight, millis), at(0));
            }
            chosen(&table, &loads(2), &memory, at(1))
        };
        // As much for their weight: both are cold, and the faster one is taken, whichever it is.
        assert_eq!(of([(10, 5), (90, 7)]), 0);
        assert_eq!(of([(10, 7), (90, 5)]), 1);
        // The light one is hot, though it has less; then the heavy one.
        assert_eq!(of([(11, 5), (90, 7)]), 1);
        assert_eq!(of([(10, 7), (99, 5)]), 0);
    }

    #[test]
    fn uses_are_those_of_the_paper() {
        // 2 / ((1 - 16 / 100) x 3 - 1).
        let uses = PrequalConfig::default().uses(100);
        assert!((uses - 2.0 / 1.52).abs() < 1e-9, "{uses}");
        assert!((PrequalConfig::default().uses(10) - 15.0).abs() < 1e-9);
    }
}
