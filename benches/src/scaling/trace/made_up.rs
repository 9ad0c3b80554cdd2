//! Loads that are made up by a fixed seed: shapes that the recorded ones do not have.

use std::f64::consts::TAU;

use sim_core::random::Random;
use sim_core::time::Timestamp;

use super::{Kind, Trace};

const MINUTES: usize = 30 * 1440;

/// All of them.
pub(super) fn all() -> Vec<Trace> {
    let made: [(&'static str, &str, Make); 17] = [
        (
            "flash-crowds",
            "a quiet day's curve, and 25 crowds of 3 to 9 times within six minutes",
            flash_crowds,
        ),
        (
            "steps",
            "levels from 200 to 2,500 that change at any time, about every ten hours",
            steps,
        ),
        (
            "ramps",
            "from 200 to 2,000 within three days, and back at once",
            ramps,
        ),
        ("sine", "a day's curve with noise", sine),
        ("weeks", "a day's curve, 40 % of it at weekends", weeks),
        (
            "batches",
            "20 minutes of each hour 30 times the rest",
            batches,
        ),
        (
            "on-off",
            "on for 10 to 90 minutes, off for half an hour to four",
            on_off,
        ),
        ("walk", "a random walk", walk),
        (
            "bursts",
            "heavy-tailed bursts that fade within minutes, at any time",
            bursts,
        ),
        (
            "sparse",
            "nothing, but for single requests at any time",
            sparse,
        ),
        (
            "exponential",
            "no minute tells of the next: exponential",
            exponential,
        ),
        ("poisson", "a few requests a minute, more by day", poisson),
        (
            "spikes",
            "a day's curve with two spikes at fixed times",
            spikes,
        ),
        ("plateaus", "a new level each five minutes", plateaus),
        ("constant", "always the same", constant),
        (
            "growth",
            "a day's curve that becomes four times as high",
            growth,
        ),
        (
            "office",
            "low, and ten times as high in office hours",
            office,
        ),
    ];
    made.into_iter()
        .map(|(name, about, make)| Trace {
            name,
            about: about.to_owned(),
            start: Timestamp::from_unix_seconds(1_700_006_400),
            loads: make(&mut Chance(Random::new(7).fork(name))),
            kind: Kind::MadeUp,
        })
        .collect()
}

type Make = fn(&mut Chance) -> Vec<f64>;

struct Chance(Random);

impl Chance {
    fn uniform(&mut self, from: f64, to: f64) -> f64 {
        from + (to - from) * self.0.unit()
    }

    /// A normal value, by Box and Muller.
    fn normal(&mut self, mean: f64, deviation: f64) -> f64 {
        let radius = (-2.0 * (1.0 - self.0.unit()).ln()).sqrt();
        mean + deviation * radius * (TAU * self.0.unit()).cos()
    }

    /// A noisy value, never below zero.
    fn noisy(&mut self, value: f64, deviation: f64) -> f64 {
        self.normal(value, deviation).max(0.0)
    }
}

/// From -1 at midnight to 1 at noon.
fn day(minute: usize) -> f64 {
    (TAU * (minute as f64 / 1440.0 - 0.25)).sin()
}

fn each(mut load: impl FnMut(usize) -> f64) -> Vec<f64> {
    (0..MINUTES).map(&mut load).collect()
}

fn flash_crowds(chance: &mut Chance) -> Vec<f64> {
    let mut loads = each(|minute| chance.noisy(1000.0 + 300.0 * day(minute), 30.0));
    for _ in 0..25 {
        let start = chance.0.below(MINUTES as u64) as usize;
        let height = 1000.0 * chance.uniform(3.0, 9.0);
        for (since, load) in loads[start..].iter_mut().take(300).enumerate() {
            let since = since as f64;
            let rise = ((since + 1.0) / 6.0).min(1.0);
            *load += height * rise * (-(since - 30.0).max(0.0) / 40.0).exp();
        }
    }
    loads
}

fn steps(chance: &mut Chance) -> Vec<f64> {
    let mut level = 500.0;
    each(|_| {
        if chance.0.chance(1.0 / 600.0) {
            level = [200.0, 500.0, 900.0, 1500.0, 2500.0][chance.0.below(5) as usize];
        }
        chance.noisy(level, level * 0.03)
    })
}

fn ramps(chance: &mut Chance) -> Vec<f64> {
    each(|minute| chance.noisy(200.0 + 1800.0 * (minute % 4320) as f64 / 4320.0, 20.0))
}

fn sine(chance: &mut Chance) -> Vec<f64> {
    each(|minute| chance.noisy(1000.0 + 800.0 * day(minute), 60.0))
}

fn weeks(chance: &mut Chance) -> Vec<f64> {
    each(|minute| {
        let share = if minute / 1440 % 7 >= 5 { 0.4 } else { 1.0 };
        let load = (1000.0 + 700.0 * day(minute)) * share;
        chance.noisy(load, load * 0.08)
    })
}

fn batches(chance: &mut Chance) -> Vec<f64> {
    each(|minute| {
        let load = if minute % 60 < 20 { 1500.0 } else { 50.0 };
        chance.noisy(load, load * 0.05)
    })
}

fn on_off(chance: &mut Chance) -> Vec<f64> {
    let (mut on, mut left) = (false, 0);
    each(|_| {
        if left == 0 {
            on = !on;
            left = if on {
                10 + chance.0.below(80)
            } else {
                30 + chance.0.below(210)
            };
        }
        left -= 1;
        let load = if on { 1200.0 } else { 40.0 };
        chance.noisy(load, load * 0.05)
    })
}

fn walk(chance: &mut Chance) -> Vec<f64> {
    let mut load: f64 = 1000.0;
    each(|_| {
        load = (load * chance.normal(0.0, 0.02).exp() - (load - 1000.0) * 0.0005).max(100.0);
        load
    })
}

fn bursts(chance: &mut Chance) -> Vec<f64> {
    let mut burst = 0.0;
    each(|_| {
        burst *= 0.8;
        if chance.0.chance(0.02) {
            // Pareto with an exponent of 1.5.
            burst += 200.0 * ((1.0 - chance.0.unit()).powf(-1.0 / 1.5) - 1.0);
        }
        chance.noisy(300.0 + f64::min(burst, 6000.0), 20.0)
    })
}

fn sparse(chance: &mut Chance) -> Vec<f64> {
    each(|_| {
        (0..3)
            .map(|_| f64::from(u8::from(chance.0.chance(0.03))))
            .sum()
    })
}

fn exponential(chance: &mut Chance) -> Vec<f64> {
    each(|_| -1000.0 * (1.0 - chance.0.unit()).ln())
}

fn poisson(chance: &mut Chance) -> Vec<f64> {
    each(|minute| {
        // Knuth: how many uniform factors until the product is below e^-mean.
        let least = (-(8.0 + 6.0 * day(minute))).exp();
        let (mut product, mut count) = (chance.0.unit(), 0.0);
        while product > least {
            product *= chance.0.unit();
            count += 1.0;
        }
        count
    })
}

fn spikes(chance: &mut Chance) -> Vec<f64> {
    each(|minute| {
        let spike = match minute % 1440 {
            540..550 => 2000.0,
            780..800 => 1500.0,
            _ => 0.0,
        };
        let load = 1000.0 + 700.0 * day(minute) + spike;
        chance.noisy(load, load * 0.04)
    })
}

fn plateaus(chance: &mut Chance) -> Vec<f64> {
    let mut level = 0.0;
    each(|minute| {
        if minute % 5 == 0 {
            level = 400.0 * chance.normal(0.0, 0.8).exp() * (1.0 + 0.6 * day(minute));
        }
        level
    })
}

fn constant(_: &mut Chance) -> Vec<f64> {
    vec![1000.0; MINUTES]
}

fn growth(chance: &mut Chance) -> Vec<f64> {
    each(|minute| {
        let level = 1000.0 * (1.0 + 3.0 * minute as f64 / MINUTES as f64);
        let load = level * (1.0 + 0.5 * day(minute));
        chance.noisy(load, load * 0.05)
    })
}

fn office(chance: &mut Chance) -> Vec<f64> {
    each(|minute| {
        let busy = (480..1080).contains(&(minute % 1440));
        chance.noisy(if busy { 2800.0 } else { 300.0 }, 60.0)
    })
}
