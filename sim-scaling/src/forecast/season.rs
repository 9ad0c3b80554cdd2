//! What each slot of a cycle was like.

/// Least weight of the newest cycle: about the last nine count.
const WEIGHT: f32 = 0.2;

/// Steps over which the level is compared with the season's: about half an hour of minutes.
const LEVEL: f32 = 0.03;

/// Mean and deviation of each slot of a cycle, exponentially weighted by cycles, and the present level against them.
///
/// Memory: 12 bytes a slot.
#[derive(Debug, Clone)]
pub struct Season {
    mean: Vec<f32>,
    variance: Vec<f32>,
    seen: Vec<u32>,
    level: f32,
    expected: f32,
}

impl Season {
    /// Makes a season of so many slots, at least one.
    #[must_use]
    pub fn new(slots: usize) -> Self {
        let slots = slots.max(1);
        Self {
            mean: vec![0.0; slots],
            variance: vec![0.0; slots],
            seen: vec![0; slots],
            level: 0.0,
            expected: 0.0,
        }
    }

    /// How many slots the cycle has.
    #[must_use]
    pub const fn slots(&self) -> usize {
        self.mean.len()
    }

    /// Learns the value of a slot; the slot is taken modulo the cycle.
    pub fn observe(&mut self, slot: usize, value: f32) {
        let at = slot % self.slots();
        let before = if self.seen[at] > 0 {
            self.mean[at]
        } else {
            value
        };
        self.level += (value - self.level) * LEVEL;
        self.expected += (before - self.expected) * LEVEL;
        self.seen[at] = self.seen[at].saturating_add(1);
        let weight = (1.0 / self.seen[at] as f32).max(WEIGHT);
        let error = value - self.mean[at];
        self.mean[at] += weight * error;
        self.variance[at] = (1.0 - weight) * (self.variance[at] + weight * error * error);
    }

    /// The slot's mean and deviation, once a cycle has shown it.
    #[must_use]
    pub fn forecast(&self, slot: usize) -> Option<(f32, f32)> {
        let at = slot % self.slots();
        (self.seen[at] > 0).then(|| (self.mean[at], self.variance[at].sqrt()))
    }

    /// How many cycles have shown the slot.
    #[must_use]
    pub fn cycles(&self, slot: usize) -> u32 {
        self.seen[slot % self.slots()]
    }

    /// The present level divided by what the season expected, held to 0.3 to 3; 1 while nothing was expected.
    #[must_use]
    pub fn ratio(&self) -> f32 {
        if self.expected > 0.0 {
            (self.level / self.expected).clamp(0.3, 3.0)
        } else {
            1.0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_season_that_repeats_is_known_exactly() {
        let mut season = Season::new(4);
        assert_eq!(season.forecast(2), None);
        for step in 0..40 {
            season.observe(step, [1.0, 5.0, 2.0, 0.0][step % 4]);
        }
        assert_eq!(season.forecast(41), Some((5.0, 0.0)));
        assert_eq!(season.cycles(1), 10);
        assert!((season.ratio() - 1.0).abs() < 0.01);
    }

    #[test]
    fn a_new_shape_replaces_the_old_one() {
        let mut season = Season::new(2);
        for step in 0..100 {
            season.observe(step, if step < 60 { 1.0 } else { 9.0 });
        }
        let (mean, _) = season.forecast(0).unwrap();
        assert!((mean - 9.0).abs() < 0.1, "{mean}");
    }

    #[test]
    fn the_ratio_follows_the_level() {
        let mut season = Season::new(10);
        (0..1000).for_each(|step| season.observe(step, 10.0));
        for step in 0..10 {
            season.observe(step, 20.0);
        }
        assert!(season.ratio() > 1.2, "{}", season.ratio());
    }
}
