//! The latest steps: their greatest value, and their quantiles.

use std::collections::VecDeque;

/// The greatest of the latest steps, in constant time on average.
#[derive(Debug, Clone)]
pub struct Highest {
    steps: u64,
    at: u64,
    /// Values that may still become the greatest, with their steps: each less than the one before it.
    falling: VecDeque<(u64, f32)>,
}

impl Highest {
    /// Makes a window of so many steps, at least one.
    #[must_use]
    pub fn new(steps: usize) -> Self {
        Self {
            steps: steps.max(1) as u64,
            at: 0,
            falling: VecDeque::new(),
        }
    }

    /// Adds a step; returns the greatest of the window.
    pub fn push(&mut self, value: f32) -> f32 {
        self.at += 1;
        while self.falling.back().is_some_and(|&(_, last)| last <= value) {
            self.falling.pop_back();
        }
        self.falling.push_back((self.at, value));
        while self
            .falling
            .front()
            .is_some_and(|&(at, _)| at + self.steps <= self.at)
        {
            self.falling.pop_front();
        }
        self.falling.front().map_or(value, |&(_, first)| first)
    }
}

/// Any quantile of the latest steps: the window is kept sorted.
#[derive(Debug, Clone)]
pub struct Quantiles {
    steps: usize,
    order: VecDeque<f32>,
    sorted: Vec<f32>,
}

impl Quantiles {
    /// Makes a window of so many steps, at least one.
    #[must_use]
    pub fn new(steps: usize) -> Self {
        Self {
            steps: steps.max(1),
            order: VecDeque::new(),
            sorted: Vec::new(),
        }
    }

    /// Adds a step; NaN is left out.
    pub fn push(&mut self, value: f32) {
        if value.is_nan() {
            return;
        }
        self.order.push_back(value);
        let to = self.sorted.partition_point(|&one| one < value);
        if self.order.len() <= self.steps {
            self.sorted.insert(to, value);
            return;
        }
        let Some(oldest) = self.order.pop_front() else {
            return;
        };
        // One move between the two places instead of two to the end.
        let from = self.sorted.partition_point(|&one| one < oldest);
        if from < to {
            self.sorted.copy_within(from + 1..to, from);
            self.sorted[to - 1] = value;
        } else {
            self.sorted.copy_within(to..from, to + 1);
            self.sorted[to] = value;
        }
    }

    /// The value at this share of the window, 0 to 1; 0 while it is empty.
    #[must_use]
    pub fn at(&self, share: f32) -> f32 {
        let last = self.sorted.len().saturating_sub(1);
        let rank = (last as f32 * share.clamp(0.0, 1.0)).round() as usize;
        self.sorted.get(rank).copied().unwrap_or(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn windows_are_what_a_plain_sort_finds(
            values in prop::collection::vec(0u8..20, 1..200), steps in 1usize..40,
        ) {
            let (mut highest, mut quantiles) = (Highest::new(steps), Quantiles::new(steps));
            for (index, &value) in values.iter().enumerate() {
                let found = highest.push(f32::from(value));
                quantiles.push(f32::from(value));
                let from = (index + 1).saturating_sub(steps);
                let mut plain: Vec<f32> = values[from..=index].iter().map(|&v| f32::from(v)).collect();
                plain.sort_by(f32::total_cmp);
                prop_assert_eq!(found, *plain.last().unwrap());
                prop_assert_eq!(&quantiles.sorted, &plain);
                prop_assert_eq!(quantiles.at(1.0), found);
                prop_assert_eq!(quantiles.at(0.0), plain[0]);
            }
        }
    }
}
