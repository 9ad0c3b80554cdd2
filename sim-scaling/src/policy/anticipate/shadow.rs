//! Groups that exist only on paper: what each candidate, and each rule to be beaten, would have had in service.

use std::collections::VecDeque;

/// Rules that are to be beaten: target tracking as plain, target tracking as cautious as [`crate::policy::target`], HPA.
pub(super) const RIVALS: usize = 3;

/// Near misses count for a part of a violation: a rule that is always just so is worse than one that is not.
const NEAR: [(f32, f32); 3] = [(0.95, 0.3), (0.9, 0.1), (0.82, 0.03)];

/// Shadow groups in parallel arrays: the rivals first, then the candidates.
#[derive(Debug, Clone)]
pub(super) struct Shadows {
    /// Instances that serve.
    serving: Vec<f32>,
    /// Instances on their way, one array a step of the lead, as a ring.
    coming: Vec<Vec<f32>>,
    /// The slot of the ring that arrives next.
    next: usize,
    scratch: Vec<f32>,
    /// What each wants.
    pub(super) wants: Vec<f32>,
    /// Steps in which the load was above the capacity; older ones fade.
    pub(super) violations: Vec<f32>,
    /// The same with near misses.
    pub(super) strain: Vec<f32>,
    /// Instances in service, summed over steps; older ones fade.
    pub(super) cost: Vec<f32>,
    tracking: Tracking,
    cautious: VecDeque<f32>,
    recommended: VecDeque<f32>,
    started: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Tracking {
    above: u32,
    below: u32,
}

impl Shadows {
    pub(super) fn new(lead: usize, candidates: usize) -> Self {
        let count = RIVALS + candidates;
        let none = || vec![0.0; count];
        Self {
            serving: vec![1.0; count],
            coming: vec![none(); lead],
            next: 0,
            scratch: none(),
            wants: vec![1.0; count],
            violations: none(),
            strain: none(),
            cost: none(),
            tracking: Tracking::default(),
            cautious: VecDeque::new(),
            recommended: VecDeque::new(),
            started: false,
        }
    }

    /// The load of the step that ended, in instances' full capacity: who had enough? All start from the same capacity.
    pub(super) fn judge(&mut self, load: f32, start: f32, fade: f32) {
        if self.started {
            let arriving = &mut self.coming[self.next];
            for (serving, arriving) in self.serving.iter_mut().zip(arriving.iter_mut()) {
                *serving += *arriving;
                *arriving = 0.0;
            }
            self.next = (self.next + 1) % self.coming.len();
        } else {
            self.serving.fill(start.max(1.0));
            self.started = true;
        }
        // Of a load of 1 is 1.000001 instance's capacity: rounding is no violation.
        let load = load / 1.000_001;
        let [one, two, three] = NEAR;
        let scores = self.violations.iter_mut().zip(&mut self.strain);
        for ((&serving, cost), (violations, strain)) in
            self.serving.iter().zip(&mut self.cost).zip(scores)
        {
            let violated = if load > serving { 1.0 } else { 0.0 };
            let near =
                |(share, worth): (f32, f32)| if load > serving * share { worth } else { 0.0 };
            *violations = *violations * fade + violated;
            *strain = *strain * fade + violated + (near(one) + near(two) + near(three));
            *cost = *cost * fade + serving;
        }
    }

    /// What the candidates want, from what they need; at least `min`, at most `max`.
    pub(super) fn want(&mut self, needs: &[f32], min: f32, max: f32) {
        for (want, need) in self.wants[RIVALS..].iter_mut().zip(needs) {
            *want = ceil(*need).clamp(min, max);
        }
    }

    /// What the rivals want.
    pub(super) fn rivals(&mut self, load: f32, target: f32, max: f32) {
        let coming: [f32; RIVALS] =
            std::array::from_fn(|index| self.coming.iter().map(|all| all[index]).sum());
        let wants = [
            self.track(load, target, coming[0]),
            self.track_cautiously(load, target, coming[1]),
            self.recommend(load, target, coming[2]),
        ];
        for (want, wanted) in self.wants.iter_mut().zip(wants) {
            *want = wanted.max(1.0).min(max);
        }
    }

    fn track(&mut self, load: f32, target: f32, coming: f32) -> f32 {
        let serving = self.serving[0];
        let used = load / serving;
        let Tracking { above, below } = self.tracking;
        self.tracking = Tracking {
            above: if used > target { above + 1 } else { 0 },
            below: if used < 0.9 * target { below + 1 } else { 0 },
        };
        let wanted = ceil(load / target);
        if self.tracking.above >= 3 {
            (serving + coming).max(wanted)
        } else if self.tracking.below >= 15 && coming == 0.0 {
            serving.min(wanted)
        } else {
            serving + coming
        }
    }

    fn track_cautiously(&mut self, load: f32, target: f32, coming: f32) -> f32 {
        let serving = self.serving[1];
        let used = &mut self.cautious;
        used.push_back(load / serving);
        if used.len() > 15 {
            used.pop_front();
        }
        let highest = used.iter().fold(0.0, |most: f32, &one| most.max(one));
        let above = used
            .iter()
            .rev()
            .take(3)
            .filter(|&&one| one > target)
            .count();
        let have = serving + coming;
        let wanted = if above == 3 {
            have.max(ceil(load / target))
        } else if used.len() == 15 && highest < 0.9 * target && coming == 0.0 {
            have.min(ceil(serving * highest / target))
        } else {
            have
        };
        if wanted != have {
            used.clear();
        }
        wanted
    }

    fn recommend(&mut self, load: f32, target: f32, coming: f32) -> f32 {
        let serving = self.serving[2];
        let have = serving + coming;
        let ratio = load / serving / target;
        let corrected = if ratio > 1.0 {
            load / have / target
        } else {
            ratio
        };
        let within = (ratio - 1.0).abs() <= 0.1 || (ratio > 1.0 && corrected <= 1.1);
        let wanted = if within {
            have
        } else {
            ceil(load / target).max(1.0)
        };
        self.recommended.push_back(wanted);
        if self.recommended.len() > 5 {
            self.recommended.pop_front();
        }
        let most = self
            .recommended
            .iter()
            .fold(0.0, |most: f32, &one| most.max(one));
        have.min(most).max(wanted)
    }

    /// All get what they want: more comes at the end of the lead, less goes at once, what is on its way first.
    pub(super) fn act(&mut self) {
        // Whole passes over one array after the other: the compiler makes vectors of them.
        let have = &mut self.scratch;
        have.copy_from_slice(&self.serving);
        for all in &self.coming {
            for (have, coming) in have.iter_mut().zip(all) {
                *have += coming;
            }
        }
        let lead = self.coming.len();
        let cut = have;
        for (cut, want) in cut.iter_mut().zip(&self.wants) {
            *cut -= want;
        }
        // The slot that was emptied last arrives last.
        for back in 1..=lead {
            let all = &mut self.coming[(self.next + lead - back) % lead];
            for (cut, coming) in cut.iter_mut().zip(all) {
                // Above zero it is cut from what is on its way; below zero the last slot is filled up.
                let least = if back == 1 { -4e6 } else { 0.0 };
                let gone = if *cut > *coming { *coming } else { *cut };
                let gone = if gone > least { gone } else { 0.0 };
                *coming -= gone;
                *cut -= gone;
            }
        }
        for (serving, cut) in self.serving.iter_mut().zip(cut) {
            *serving -= *cut;
        }
    }
}

/// The least whole number at or above, for what rounding left; up to four million.
///
/// Adding and taking away 2^23 rounds to a whole number, in two instructions that work on vectors.
fn ceil(value: f32) -> f32 {
    const SHIFT: f32 = 8_388_608.0;
    let value = (value - 1e-4).clamp(0.0, 4e6);
    let near = (value + SHIFT) - SHIFT;
    if near < value { near + 1.0 } else { near }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(shadows: &mut Shadows, load: f32, need: f32) {
        shadows.judge(load, 1.0, 1.0);
        shadows.want(&[need], 1.0, 1000.0);
        shadows.rivals(load, 0.7, 1000.0);
        shadows.act();
    }

    #[test]
    fn what_is_ordered_serves_after_the_lead_and_goes_at_once() {
        let mut shadows = Shadows::new(4, 1);
        let mut served = Vec::new();
        for step in 0..9 {
            run(&mut shadows, 0.5, if step < 6 { 5.0 } else { 2.0 });
            served.push(shadows.serving[RIVALS]);
        }
        assert_eq!(served, [1.0, 1.0, 1.0, 1.0, 5.0, 5.0, 2.0, 2.0, 2.0]);
    }

    #[test]
    fn what_is_on_its_way_goes_first() {
        let mut shadows = Shadows::new(4, 1);
        run(&mut shadows, 0.5, 9.0);
        run(&mut shadows, 0.5, 3.0);
        let coming: f32 = shadows.coming.iter().map(|all| all[RIVALS]).sum();
        assert_eq!((shadows.serving[RIVALS], coming), (1.0, 2.0));
    }

    #[test]
    fn violations_and_costs_are_counted() {
        let mut shadows = Shadows::new(2, 1);
        for _ in 0..10 {
            run(&mut shadows, 3.0, 4.0);
        }
        assert_eq!(
            shadows.violations[RIVALS], 2.0,
            "while the first instances come"
        );
        assert_eq!(shadows.cost[RIVALS], 2.0 + 8.0 * 4.0);
        assert!(shadows.strain[RIVALS] > 2.0);
    }

    #[test]
    fn whole_numbers_are_found_without_a_call() {
        for (value, expected) in [
            (0.0, 0.0),
            (0.2, 1.0),
            (1.0, 1.0),
            (1.00005, 1.0),
            (1.2, 2.0),
            (7.9, 8.0),
        ] {
            assert_eq!(ceil(value), expected, "{value}");
        }
        assert_eq!((ceil(-3.0), ceil(f32::INFINITY)), (0.0, 4e6));
    }

    #[test]
    fn the_rivals_keep_their_rules() {
        let mut shadows = Shadows::new(4, 1);
        let mut wanted = Vec::new();
        for _ in 0..4 {
            run(&mut shadows, 7.0, 1.0);
            wanted.push((shadows.wants[0], shadows.wants[1], shadows.wants[2]));
        }
        assert_eq!(wanted[0], (1.0, 1.0, 10.0), "HPA at once");
        assert_eq!(wanted[2], (10.0, 10.0, 10.0), "target tracking after three");
        let mut shadows = Shadows::new(4, 1);
        let mut first = [0; RIVALS];
        for step in 1..60 {
            shadows.judge(7.0 * if step < 20 { 1.0 } else { 0.5 }, 10.0, 1.0);
            shadows.want(&[1.0], 1.0, 1000.0);
            shadows.rivals(7.0 * if step < 20 { 1.0 } else { 0.5 }, 0.7, 1000.0);
            for (rival, first) in first.iter_mut().enumerate() {
                if *first == 0 && shadows.wants[rival] < 10.0 {
                    *first = step;
                }
            }
            shadows.act();
        }
        assert_eq!(
            first,
            [34, 34, 24],
            "15 steps below, and 5 steps of stabilisation"
        );
    }
}
