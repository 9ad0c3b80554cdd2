//! Whether a load changes only on every n-th step.

/// Cycles that are looked for, in steps.
const CYCLES: [u32; 11] = [2, 3, 4, 5, 6, 10, 12, 15, 20, 30, 60];

/// Changes in a row that must fall on the same step of the cycle. By chance that would take 2^15 tries for the shortest one.
const EVIDENCE: u32 = 16;

/// Finds a load that stands still between the steps of a cycle: a metric that is measured every five minutes and read every
/// minute, a batch at each quarter of an hour. Between them the next value is the last one, which no average knows.
#[derive(Debug, Clone, Default)]
pub struct Plateaus {
    at: u32,
    last: Option<f32>,
    /// For each cycle: the step of it on which the latest changes fell, and how many in a row.
    changes: [(u32, u32); CYCLES.len()],
}

impl Plateaus {
    /// Makes one that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a step.
    pub fn push(&mut self, value: f32) {
        // Each cycle divides an hour of steps: the count may start again there.
        self.at = (self.at + 1) % 60;
        let changed = self.last.is_some_and(|last| last != value);
        self.last = Some(value);
        if !changed {
            return;
        }
        for (cycle, (step, count)) in CYCLES.iter().zip(&mut self.changes) {
            let now = self.at % cycle;
            if *step == now {
                *count = count.saturating_add(1);
            } else {
                (*step, *count) = (now, 1);
            }
        }
    }

    /// Whether nothing will change within the next so many steps, by what was seen.
    #[must_use]
    pub fn is_still(&self, steps: u32) -> bool {
        CYCLES
            .iter()
            .zip(&self.changes)
            .any(|(cycle, (step, count))| {
                // Steps from now to the next change: 1 to the cycle.
                let ahead = (step + cycle - 1 - self.at % cycle) % cycle + 1;
                *count >= EVIDENCE && ahead > steps
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_that_changes_every_fifth_step_stands_still_between() {
        let mut plateaus = Plateaus::new();
        let still: Vec<bool> = (0..200u32)
            .map(|step| {
                plateaus.push((step / 5 * 7 % 31) as f32);
                plateaus.is_still(4)
            })
            .collect();
        assert!(!still[..70].contains(&true), "too little evidence");
        for (step, &still) in still.iter().enumerate().skip(100) {
            assert_eq!(still, step % 5 == 0, "step {step}");
        }
    }

    #[test]
    fn a_change_between_ends_it() {
        let mut plateaus = Plateaus::new();
        for step in 0..200u32 {
            plateaus.push((step / 5 * 7 % 31) as f32);
        }
        plateaus.push(1000.0);
        plateaus.push(2000.0);
        for steps in 0..60 {
            assert!(!plateaus.is_still(1), "{steps}");
            plateaus.push(2000.0);
        }
    }

    #[test]
    fn a_load_that_changes_all_the_time_never_stands_still() {
        let mut plateaus = Plateaus::new();
        for step in 0..1000u32 {
            plateaus.push(step as f32);
            assert!(!plateaus.is_still(1));
        }
    }
}
