//! The 64-bit stamp of a slot: generation, touch, holders, life.

/// Where a slot stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    /// Holds no value: free, or owned by the one thread that fills or empties it.
    Free,
    /// Holds a value that nobody leases.
    Idle,
    /// Holds a value that is leased under the stamp's generation.
    Leased,
    /// Its value was removed and waits for the last holder to leave.
    Gone,
    /// Has used up its generations and is never handed out again.
    Dead,
}

/// Width of a generation in bits.
pub(super) const GENERATION_BITS: u32 = 40;

/// A slot freed at this generation or a later one is never handed out again.
///
/// What is left above it, 2^36 generations, is for the leases of the one value that stands in the slot.
pub(super) const LAST_GENERATION: u64 = (1 << GENERATION_BITS) - (1 << 36);

/// Holders that callers may take; the rest, up to 4095, is for the short pins of the slab itself.
pub(super) const HOLDERS_LIMIT: u64 = 0xF00;

/// Holders that the stamp has room for.
pub(super) const HOLDERS_MAX: u64 = 0xFFF;

/// One holder, as added to a stamp.
pub(super) const HOLDER: u64 = 1 << HOLDERS_SHIFT;

/// Set by the sweep after the last owner: whoever leaves last frees the slot, whatever its life.
pub(super) const ORPHAN: u64 = 1 << 3;

const LIFE_MASK: u64 = 0b111;
const HOLDERS_SHIFT: u32 = 4;
const TOUCH_SHIFT: u32 = 16;
const TOUCH_MASK: u64 = 0xFF;
const GENERATION_SHIFT: u32 = 64 - GENERATION_BITS;

/// A stamp's value: `generation 40 | touch 8 | holders 12 | orphan 1 | life 3`, high bits first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Word(pub(super) u64);

impl Word {
    /// Composes a stamp with no touch; a generation beyond 40 bits wraps.
    #[inline]
    pub(super) const fn new(generation: u64, holders: u64, life: Life) -> Self {
        Self((generation << GENERATION_SHIFT) | (holders << HOLDERS_SHIFT) | life as u64)
    }

    #[inline]
    pub(super) const fn life(self) -> Life {
        match self.0 & LIFE_MASK {
            0 => Life::Free,
            1 => Life::Idle,
            2 => Life::Leased,
            3 => Life::Gone,
            _ => Life::Dead,
        }
    }

    #[inline]
    pub(super) const fn generation(self) -> u64 {
        self.0 >> GENERATION_SHIFT
    }

    #[inline]
    pub(super) const fn holders(self) -> u64 {
        (self.0 >> HOLDERS_SHIFT) & HOLDERS_MAX
    }

    #[inline]
    pub(super) const fn is_orphan(self) -> bool {
        self.0 & ORPHAN != 0
    }

    /// Whether the slot is leased under `generation`.
    #[inline]
    pub(super) const fn is_leased(self, generation: u64) -> bool {
        matches!(self.life(), Life::Leased) && self.generation() == generation
    }

    /// Whether only the holders differ between the two.
    #[inline]
    pub(super) const fn same_but_holders(self, other: Self) -> bool {
        (self.0 ^ other.0) & !(HOLDERS_MAX << HOLDERS_SHIFT) == 0
    }

    /// One holder more.
    #[inline]
    pub(super) const fn pinned(self) -> Self {
        Self(self.0 + HOLDER)
    }

    /// One holder less.
    #[inline]
    pub(super) const fn unpinned(self) -> Self {
        Self(self.0 - HOLDER)
    }

    /// The next generation in another life, with the same holders and no touch.
    #[inline]
    pub(super) const fn turned(self, life: Life) -> Self {
        let next = Self::new(self.generation().wrapping_add(1), self.holders(), life);
        Self(next.0 | (self.0 & ORPHAN))
    }

    /// The same generation and holders in another life.
    #[inline]
    pub(super) const fn with_life(self, life: Life) -> Self {
        Self((self.0 & !LIFE_MASK) | life as u64)
    }

    /// One touch more; the 257th is the first again.
    #[inline]
    pub(super) const fn touched(self) -> Self {
        let touch = ((self.0 >> TOUCH_SHIFT) + 1) & TOUCH_MASK;
        Self((self.0 & !(TOUCH_MASK << TOUCH_SHIFT)) | (touch << TOUCH_SHIFT))
    }

    /// Whether the holder of the former stamp, which has just left, must empty the slot.
    #[inline]
    pub(super) const fn leaves_last(self) -> bool {
        self.holders() == 1 && (matches!(self.life(), Life::Gone) || self.is_orphan())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn fields_do_not_touch_each_other() {
        let word = Word::new((1 << GENERATION_BITS) - 1, HOLDERS_MAX, Life::Leased);
        assert_eq!(word.generation(), (1 << GENERATION_BITS) - 1);
        assert_eq!(word.holders(), HOLDERS_MAX);
        assert_eq!(word.life(), Life::Leased);
        let mut touched = word;
        for _ in 0..256 {
            let next = touched.touched();
            assert_ne!(next, touched);
            assert_eq!(next.generation(), word.generation());
            assert_eq!(next.holders(), word.holders());
            assert_eq!(next.life(), word.life());
            touched = next;
        }
        assert_eq!(touched, word);
        assert_eq!(word.turned(Life::Idle).generation(), 0);
        assert!(word.same_but_holders(word.unpinned()));
        assert!(!word.same_but_holders(word.touched()));
        assert!(Word(word.0 | ORPHAN).turned(Life::Idle).is_orphan());
    }
}
