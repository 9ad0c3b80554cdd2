//! [`Random`]: seeded randomness, the same numbers on every machine.

/// A small, fast, seeded generator; not for secrets.
///
/// # Algorithm
///
/// xoshiro256** 1.0 (Blackman and Vigna, "Scrambled linear pseudorandom number generators", ACM TOMS 47(4),
/// 2021): 256 bits of state, period 2^256 - 1. The state is filled from the seed with SplitMix64 (Steele, Lea
/// and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014), as its authors advise.
/// Bounded numbers follow Lemire ("Fast random integer generation in an interval", ACM TOMACS 29(1), 2019).
/// The sequence of a seed is part of the contract: it does not change between versions.
///
/// # Examples
///
/// ```
/// use sim_core::random::Random;
///
/// let mut random = Random::new(2013);
/// let mut again = Random::new(2013);
/// assert_eq!(random.next_u64(), again.next_u64());
///
/// // Each part takes its own source: drawing more in one does not move the others.
/// let mut gates = random.fork("gates");
/// assert!(gates.below(6) < 6);
/// ```
#[derive(Debug, Clone)]
pub struct Random {
    /// Invariant: not all zero.
    state: [u64; 4],
}

impl Random {
    /// Makes a source from a seed; near seeds give unrelated sequences.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        let mut mix = seed;
        let mut state = [0; 4];
        let mut word = 0;
        while word < 4 {
            state[word] = splitmix(&mut mix);
            word += 1;
        }
        // SplitMix64 is a bijection of a counter, so at most one of the four words is zero.
        Self { state }
    }

    /// Makes a source for one part, named by `label`.
    ///
    /// It depends on the present state and on the label alone, and does not move `self`: forks may be made in
    /// any order, the same label gives the same sequence, different labels give unrelated ones.
    #[must_use]
    pub fn fork(&self, label: &str) -> Self {
        // FNV-1a, 64 bits (Fowler, Noll and Vo), then SplitMix64 to spread it.
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for byte in label.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        let state = self.state;
        for word in state {
            let mut mix = hash ^ word;
            hash = splitmix(&mut mix);
        }
        Self::new(hash)
    }

    /// Draws 64 bits.
    #[inline]
    #[must_use = "drawing moves the source"]
    pub const fn next_u64(&mut self) -> u64 {
        let [a, b, c, d] = self.state;
        let result = b.wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let (c, d) = (c ^ a, d ^ b);
        self.state = [a ^ d, b ^ c, c ^ (b << 17), d.rotate_left(45)];
        result
    }

    /// Draws a number below `n`, each alike.
    ///
    /// # Panics
    ///
    /// When `n` is zero: there is no number below it.
    #[inline]
    #[must_use = "drawing moves the source"]
    pub const fn below(&mut self, n: u64) -> u64 {
        assert!(n > 0, "there is no number below zero");
        let mut product = (self.next_u64() as u128) * (n as u128);
        if (product as u64) < n {
            let uneven = n.wrapping_neg() % n;
            while (product as u64) < uneven {
                product = (self.next_u64() as u128) * (n as u128);
            }
        }
        (product >> 64) as u64
    }

    /// Draws a number in `[0, 1)`, a multiple of 2^-53.
    #[inline]
    #[must_use = "drawing moves the source"]
    pub const fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
    }

    /// True with probability `p`; never for `p <= 0` or NaN, always for `p >= 1`.
    #[inline]
    #[must_use = "drawing moves the source"]
    pub const fn chance(&mut self, p: f64) -> bool {
        self.unit() < p
    }
}

/// One step of SplitMix64.
const fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
