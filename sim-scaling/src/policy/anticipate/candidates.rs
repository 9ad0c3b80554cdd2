//! The rules that compete: each a need for the time until an instance that is ordered now would serve.

use std::fmt::Write as _;

use sim_core::sync::Arc;

use crate::forecast::{Highest, Plateaus, Quantiles, Season};

/// Headroom over what was just seen.
const HEADROOM: [f32; 9] = [0.05, 0.12, 0.2, 0.27, 0.33, 0.38, 0.43, 0.5, 0.6];
/// Headroom where the season is looked at too.
const WITH_SEASON: [f32; 4] = [0.12, 0.27, 0.38, 0.45];
/// Deviations above the season's mean.
const DEVIATIONS: [f32; 8] = [0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0];
/// Those of them where what was just seen is looked at too.
const SEASONED: [usize; 3] = [0, 4, 6];
/// Quantiles of the last four hours and of the last day.
const HOURS: [f32; 6] = [0.7, 0.8, 0.88, 0.92, 0.96, 0.99];
const DAY: [f32; 8] = [0.7, 0.8, 0.86, 0.9, 0.92, 0.94, 0.97, 0.99];

const RECENT: [&str; 7] = [
    "the load",
    "the load and its rise",
    "the load and twice its rise",
    "the highest of 5 steps",
    "the highest of 15 steps",
    "the highest of 30 steps",
    "the highest of 60 steps",
];
/// Which of [`RECENT`] are combined with the season.
const COMBINED: [usize; 4] = [1, 3, 4, 5];

/// How many candidates there are.
pub(super) const COUNT: usize = RECENT.len() * HEADROOM.len()
    + 2 * (HOURS.len() + DAY.len())
    + COMBINED.len() * WITH_SEASON.len() * SEASONED.len()
    + 4 * DEVIATIONS.len();

/// Where to start, knowing nothing: the highest of 15 steps and 38 %.
pub(super) const FIRST: usize = 4 * HEADROOM.len() + 5;

/// The first candidate that looks at the season.
pub(super) const FIRST_SEASONAL: usize =
    RECENT.len() * HEADROOM.len() + 2 * (HOURS.len() + DAY.len());

/// What all candidates share: what was seen.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    season: Season,
    hours: Quantiles,
    day: Quantiles,
    highest: [Highest; 4],
    plateaus: Plateaus,
    /// The latest values, the newest first; as many as it takes to order an instance, and one.
    latest: Vec<f32>,
    lead: usize,
}

impl Seen {
    /// `lead` steps from an order until the instance serves, `slots` steps a day.
    pub(super) fn new(lead: usize, slots: usize) -> Self {
        Self {
            season: Season::new(slots),
            hours: Quantiles::new(240),
            day: Quantiles::new(1440),
            highest: [5, 15, 30, 60].map(Highest::new),
            plateaus: Plateaus::new(),
            latest: Vec::with_capacity(lead + 1),
            lead,
        }
    }

    /// Learns a step's load and writes what each candidate needs to have at the end of the lead.
    pub(super) fn step(&mut self, slot: usize, load: f32, needs: &mut [f32; COUNT]) {
        self.latest.truncate(self.lead);
        self.latest.insert(0, load);
        self.hours.push(load);
        self.day.push(load);
        self.plateaus.push(load);
        let [five, fifteen, thirty, sixty] = self.highest.each_mut().map(|one| one.push(load));
        self.season.observe(slot, load);
        if self.plateaus.is_still(self.lead as u32) {
            needs.fill(load);
            return;
        }

        let before = self.latest.last().copied().unwrap_or(load);
        let rise = (load - before).max(0.0);
        let recent = [
            load,
            load + rise,
            load + 2.0 * rise,
            five,
            fifteen,
            thirty,
            sixty,
        ];
        let (head, rest) = needs.split_at_mut(RECENT.len() * HEADROOM.len());
        for (needs, base) in head.chunks_exact_mut(HEADROOM.len()).zip(recent) {
            for (need, head) in needs.iter_mut().zip(HEADROOM) {
                *need = base * (1.0 + head);
            }
        }
        let least = load * 1.05;
        let (quantiles, rest) = rest.split_at_mut(2 * (HOURS.len() + DAY.len()));
        let hours = HOURS.iter().map(|&share| self.hours.at(share));
        let day = DAY.iter().map(|&share| self.day.at(share));
        for (needs, quantile) in quantiles.chunks_exact_mut(2).zip(hours.chain(day)) {
            needs[0] = quantile;
            needs[1] = greater(quantile, least);
        }

        let season = self.ahead(slot, load);
        let ratio = self.season.ratio();
        let (both, alone) = rest.split_at_mut(rest.len() - 4 * DEVIATIONS.len());
        let mut both = both.chunks_exact_mut(SEASONED.len());
        for base in COMBINED {
            for (head, needs) in WITH_SEASON.iter().zip(both.by_ref()) {
                for (need, deviations) in needs.iter_mut().zip(SEASONED) {
                    *need = greater(recent[base] * (1.0 + head), season[deviations] * ratio);
                }
            }
        }
        let variants: [fn(f32, f32, f32) -> f32; 4] = [
            |need, _, _| need,
            |need, _, least| greater(need, least),
            |need, ratio, _| need * ratio,
            |need, ratio, least| greater(need * ratio, least),
        ];
        for (needs, variant) in alone.chunks_exact_mut(DEVIATIONS.len()).zip(variants) {
            for (need, season) in needs.iter_mut().zip(season) {
                *need = variant(season, ratio, least);
            }
        }
    }

    /// The greatest of the season's forecasts within the lead, for each number of deviations.
    fn ahead(&self, slot: usize, load: f32) -> [f32; DEVIATIONS.len()] {
        let mut needs = [0.0f32; DEVIATIONS.len()];
        for step in 1..=self.lead {
            // What no day has shown yet is taken to be as now, with the headroom of a target of 70 %.
            let (mean, deviation) = self
                .season
                .forecast(slot + step)
                .unwrap_or((load * 1.43, 0.0));
            for (need, deviations) in needs.iter_mut().zip(DEVIATIONS) {
                *need = need.max(mean + deviations * deviation);
            }
        }
        needs
    }
}

/// One comparison, where `f32::max` has three for the sake of NaN.
fn greater(one: f32, other: f32) -> f32 {
    if one > other { one } else { other }
}

/// The names, in order.
pub(super) fn names() -> Vec<Arc<str>> {
    let mut names: Vec<String> = Vec::with_capacity(COUNT);
    let percent = |share: f32| (share * 100.0).round() as u32;
    for recent in RECENT {
        names.extend(HEADROOM.map(|head| format!("{recent} + {} %", percent(head))));
    }
    for (time, shares) in [("4 hours", &HOURS[..]), ("a day", &DAY[..])] {
        for &share in shares {
            let mut name = String::new();
            let _ = write!(name, "{} % of the loads of {time}", percent(share));
            names.push(name.clone());
            name.push_str(", at least the load + 5 %");
            names.push(name);
        }
    }
    for base in COMBINED {
        for head in WITH_SEASON {
            for deviations in SEASONED {
                names.push(format!(
                    "{} + {} %, or the season at this level + {} deviations",
                    RECENT[base],
                    percent(head),
                    DEVIATIONS[deviations]
                ));
            }
        }
    }
    for level in ["", " at this level"] {
        for least in ["", ", at least the load + 5 %"] {
            names.extend(
                DEVIATIONS.map(|count| format!("the season{level} + {count} deviations{least}")),
            );
        }
    }
    names.into_iter().map(Arc::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_names_as_needs_and_each_is_written() {
        let names = names();
        assert_eq!(names.len(), COUNT);
        assert_eq!(&*names[FIRST], "the highest of 15 steps + 38 %");
        assert!(names[FIRST_SEASONAL].contains("season"));
        assert!(!names[FIRST_SEASONAL - 1].contains("season"));
        let mut needs = [f32::NAN; COUNT];
        Seen::new(4, 1440).step(0, 10.0, &mut needs);
        assert!(needs.iter().all(|need| need.is_finite() && *need >= 10.0));
        let mut unique = names.clone();
        unique.sort();
        unique.dedup();
        assert_eq!(unique.len(), COUNT, "no two have the same name");
    }

    #[test]
    fn what_stands_still_needs_what_it_is() {
        let mut seen = Seen::new(4, 1440);
        let mut needs = [0.0; COUNT];
        for step in 0..201 {
            seen.step(step, (step / 5 * 7 % 31) as f32, &mut needs);
        }
        assert_eq!(needs, [(200 / 5 * 7 % 31) as f32; COUNT]);
    }
}
