//! What algorithms remember from pick to pick, whatever table they pick from.
//!
//! # Algorithm
//! Random numbers are SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014):
//! a counter that is stepped and then mixed, so that its state is one word. Each stripe of threads steps a word of its
//! own, by a load and a store: two threads that meet in a stripe may draw the same number, which spoils nothing. The
//! first thread to draw gets the sequence of the seed, whichever thread it is: with one thread a seed gives the same
//! picks each time.
//!
//! # Ordering
//! Relaxed throughout: numbers are drawn, nothing is read on their account.

use sim_core::sync::Arc;
use sim_core::sync::CachePadded;
use sim_core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use sim_core::sync::stripe;
use sim_core::time::Instant;

use super::Algorithm;
use super::load::rounded;
use super::prequal::Pool;
use super::sticky::Affinity;
use crate::message::Feedback;

/// The step of SplitMix64: the golden ratio in 64 bits.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// What one balancer's algorithm remembers.
#[derive(Debug)]
pub(crate) struct Memory {
    seed: u64,
    /// The state of the generator of each stripe of threads; zero until it is first used.
    draws: Box<[CachePadded<AtomicU64>]>,
    /// How many stripes have begun.
    begun: CachePadded<AtomicU64>,
    /// How many sequences of turns have begun.
    sequences: AtomicU64,
    /// How many targets were registered.
    registered: AtomicU64,
    /// A typical latency of a target in nanoseconds, as an `f32`; for targets that nothing is known of. Zero: unknown.
    typical: CachePadded<AtomicU32>,
    /// Answers to probes, where the algorithm goes by them.
    pool: Option<Box<Pool>>,
    /// Keys and their targets, where the algorithm remembers them.
    affinity: Option<Affinity>,
}

impl Memory {
    /// Makes a memory whose numbers follow from a seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed,
            draws: (0..stripe::count())
                .map(|_| CachePadded::new(AtomicU64::new(0)))
                .collect(),
            begun: CachePadded::new(AtomicU64::new(0)),
            sequences: AtomicU64::new(0),
            registered: AtomicU64::new(0),
            typical: CachePadded::new(AtomicU32::new(0)),
            pool: None,
            affinity: None,
        }
    }

    /// With room for what the algorithm remembers.
    pub(crate) fn remembering(self, algorithm: &Algorithm) -> Self {
        match algorithm {
            Algorithm::Prequal(settings) => Self {
                pool: Some(Box::new(Pool::new(settings))),
                ..self
            },
            Algorithm::Sticky(settings) => Self {
                affinity: Some(Affinity::new(settings)),
                ..self
            },
            _ => self,
        }
    }

    /// Answers to probes.
    #[inline]
    pub(crate) fn pool(&self) -> Option<&Pool> {
        self.pool.as_deref()
    }

    /// Keys and their targets.
    #[inline]
    pub(crate) fn affinity(&self) -> Option<&Affinity> {
        self.affinity.as_ref()
    }

    /// Draws 64 bits.
    #[inline]
    pub(crate) fn draw(&self) -> u64 {
        let state = &self.draws[stripe::current() & (self.draws.len() - 1)];
        let mut word = state.load(Ordering::Relaxed);
        if word == 0 {
            word = self.begin();
        }
        word = word.wrapping_add(STEP);
        state.store(word, Ordering::Relaxed);
        mix(word)
    }

    #[cold]
    fn begin(&self) -> u64 {
        let rank = self.begun.fetch_add(1, Ordering::Relaxed);
        mix(self.seed ^ mix(rank.wrapping_mul(STEP)))
    }

    /// Draws a number below `n`, each alike to one in 2^32; zero when `n` is.
    #[inline]
    pub(crate) fn below(&self, n: usize) -> usize {
        scaled((self.draw() >> 32) as u32, n)
    }

    /// Begins a sequence of turns: the first one at zero, each other one elsewhere.
    pub(crate) fn turns(&self) -> Turns {
        let first = self.sequences.fetch_add(1, Ordering::Relaxed);
        Turns(Arc::new(CachePadded::new(AtomicU64::new(first))))
    }

    /// The rank of a target that is registered now.
    pub(crate) fn rank(&self) -> u64 {
        self.registered.fetch_add(1, Ordering::Relaxed)
    }

    /// A typical latency of a target in nanoseconds; zero while none is known.
    #[inline]
    pub(crate) fn typical(&self) -> f32 {
        f32::from_bits(self.typical.load(Ordering::Relaxed))
    }

    /// Sets what is typical: as precise as latencies are kept, so that a target that is typical is like one that is new.
    pub(crate) fn typify(&self, latency: f32) {
        let latency = rounded(latency.max(1.0));
        self.typical.store(latency.to_bits(), Ordering::Relaxed);
    }

    /// A target told of its own load.
    #[inline]
    pub(crate) fn observed(&self, slot: u32, birth: u32, feedback: &Feedback, now: Instant) {
        if let Some(pool) = &self.pool {
            pool.add(slot, birth, feedback, now);
        }
    }
}

/// The turns of one set of targets. They go on when its table is built anew, and are those of no other set: a balancer whose
/// requests go to two sets by turns would give each every other turn, and always the same targets.
#[derive(Debug, Clone)]
pub(crate) struct Turns(Arc<CachePadded<AtomicU64>>);

impl Turns {
    /// Takes a turn: counts on, over all threads.
    #[inline]
    pub(crate) fn take(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

/// The finalizer of SplitMix64: a bijection that spreads every bit.
#[inline]
pub(crate) const fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// Spreads 32 random bits over the numbers below `n`.
#[inline]
pub(crate) const fn scaled(bits: u32, n: usize) -> usize {
    ((bits as u64 * n as u64) >> 32) as usize
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers_on_whatever_thread() {
        let here = Memory::new(7);
        let here: Vec<u64> = (0..8).map(|_| here.draw()).collect();
        let there = sim_core::sync::thread::spawn(|| {
            let memory = Memory::new(7);
            (0..8).map(|_| memory.draw()).collect::<Vec<u64>>()
        });
        assert_eq!(there.join().expect("it draws"), here);
        let other = Memory::new(8);
        assert!((0..8).all(|i| other.draw() != here[i]));
    }

    #[test]
    fn numbers_below_a_bound_are_alike() {
        let memory = Memory::new(1);
        let mut counts = [0_u32; 10];
        for _ in 0..100_000 {
            counts[memory.below(10)] += 1;
        }
        assert!(
            counts.iter().all(|&c| (9_500..10_500).contains(&c)),
            "{counts:?}"
        );
    }
}
