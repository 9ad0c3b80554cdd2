//! The known order of algorithms, as checks on what came out.

use super::{
    C3, EWMA_2, EWMA_ALL, HUNDRED, ONE, P2C, PREQUAL, Played, RANDOM, ROUND_ROBIN, SLOW,
    SUPERMARKET, TEN_SLOW,
};
use crate::bars::Bar;

/// Loads from which on hobbled servers are overloaded by an even share.
const OVERLOAD: f64 = 1.0;

/// Loads from which on there is hardly anything to spare.
const FULL: f64 = 1.5;

/// The checks for which there are results.
#[must_use]
pub fn checks(results: &[Played]) -> Vec<Bar> {
    let mut bars = Vec::new();
    for (suite, load) in scenes(results) {
        let here = Here {
            results,
            suite,
            load,
        };
        match suite {
            ONE => one(&here, &mut bars),
            HUNDRED => hundred(&here, &mut bars),
            SLOW | TEN_SLOW => slow(&here, &mut bars),
            SUPERMARKET => bars.extend(supermarket(&here)),
            _ => {}
        }
    }
    bars
}

/// The suites and loads in the order of the results.
pub(super) fn scenes(results: &[Played]) -> Vec<(&'static str, f64)> {
    let mut scenes: Vec<(&'static str, f64)> = results
        .iter()
        .map(|result| (result.suite, result.load))
        .collect();
    scenes.dedup();
    scenes
}

/// The results of one scene.
struct Here<'a> {
    results: &'a [Played],
    suite: &'static str,
    load: f64,
}

impl<'a> Here<'a> {
    fn all(&self) -> impl Iterator<Item = &'a Played> {
        let (suite, load) = (self.suite, self.load);
        self.results
            .iter()
            .filter(move |one| one.suite == suite && one.load == load)
    }

    fn find(&self, name: &str) -> Option<&'a Played> {
        self.all().find(|one| one.contender == name)
    }

    /// The one with the least p99, and errors.
    fn best(&self, among: impl Fn(&&'a Played) -> bool) -> Option<&'a Played> {
        self.all().filter(among).min_by(|one, other| {
            let (one, other) = (&one.outturn, &other.outturn);
            let by_time = one.p99().total_cmp(&other.p99());
            by_time.then(one.errors.cmp(&other.errors))
        })
    }

    fn bar(&self, aim: &str, measured: String, met: bool) -> Bar {
        Bar {
            aim: format!("{} at {}: {aim}", self.suite, self.load),
            measured,
            met,
        }
    }
}

/// A p99 and an error share, as text.
fn shown(result: &Played) -> String {
    let errors = result.outturn.error_percent();
    format!(
        "{} {:.0} ms, {errors:.2} % errors",
        result.contender,
        result.outturn.p99()
    )
}

/// Round robin is worse than whoever looks at the load.
fn round_robin_worst(here: &Here<'_>, bars: &mut Vec<Bar>) {
    let Some(robin) = here.find(ROUND_ROBIN) else {
        return;
    };
    let others = here
        .all()
        .filter(|one| ![ROUND_ROBIN, RANDOM].contains(&one.contender));
    let worst = others.max_by(|one, other| {
        let key = |one: &Played| one.outturn.p99() + one.outturn.errors as f64;
        key(one).total_cmp(&key(other))
    });
    if let Some(worst) = worst {
        let met = robin.outturn.p99() >= worst.outturn.p99()
            && robin.outturn.errors >= worst.outturn.errors;
        bars.push(here.bar(
            "round robin is worse than all that look at the load (p99 and errors)",
            format!("{}; next worst {}", shown(robin), shown(worst)),
            met,
        ));
    }
}

fn one(here: &Here<'_>, bars: &mut Vec<Bar>) {
    round_robin_worst(here, bars);
    if here.load < OVERLOAD {
        return;
    }
    if let (Some(ewma), Some(robin)) = (here.find(EWMA_2), here.find(ROUND_ROBIN)) {
        bars.push(here.bar(
            "peak EWMA of two is good: without errors, p99 a fifth of round robin's or less",
            shown(ewma),
            ewma.outturn.errors == 0 && 5.0 * ewma.outturn.p99() <= robin.outturn.p99(),
        ));
    }
    // Below, who asks the servers has as little to wait for, and is level.
    let told = here.load < FULL;
    let others = |one: &&Played| !told || ![C3, PREQUAL].contains(&one.contender);
    if let (Some(scan), Some(best)) = (here.find(EWMA_ALL), here.best(others)) {
        let aim = if told {
            "the scan of EWMA x (outstanding + 1) is without errors and best of those that ask no server"
        } else {
            "the scan of EWMA x (outstanding + 1) is best and without errors"
        };
        bars.push(here.bar(
            aim,
            format!("{}; best {}", shown(scan), shown(best)),
            scan.outturn.errors == 0 && best.contender == EWMA_ALL,
        ));
    }
}

fn hundred(here: &Here<'_>, bars: &mut Vec<Bar>) {
    if here.load < OVERLOAD {
        return;
    }
    round_robin_worst(here, bars);
    if let Some(best) = here.best(|_| true) {
        let met = [C3, PREQUAL].contains(&best.contender) && best.outturn.errors == 0;
        let others = here
            .all()
            .filter(|one| ![C3, PREQUAL].contains(&one.contender))
            .min_by(|one, other| one.outturn.p99().total_cmp(&other.outturn.p99()));
        let next = others.map_or_else(String::new, |next| format!("; without {}", shown(next)));
        bars.push(here.bar(
            "server feedback is best and without errors",
            format!("{}{next}", shown(best)),
            met,
        ));
    }
}

fn slow(here: &Here<'_>, bars: &mut Vec<Bar>) {
    let p99 = |name| here.find(name).map(|one| one.outturn.p99());
    if let (Some(robin), Some(scan)) = (p99(ROUND_ROBIN), p99(EWMA_ALL)) {
        bars.push(here.bar(
            "with round robin the slow server's queue grows without end",
            format!("p99 {robin:.0} ms, with the scan {scan:.1} ms"),
            robin > 100.0 * scan,
        ));
    }
    if let (Some(p2c), Some(ewma), Some(scan)) = (p99(P2C), p99(EWMA_2), p99(EWMA_ALL)) {
        bars.push(here.bar(
            "p99 falls from two choices by number, by peak EWMA, to the scan",
            format!("{p2c:.1}, {ewma:.1}, {scan:.1} ms"),
            p2c > ewma && ewma > scan,
        ));
    }
}

/// The mean time in the supermarket model with two choices: the sum of load^(2^i - 2).
///
/// Mitzenmacher, "The power of two choices in randomized load balancing", IEEE TPDS 12(10), 2001, for infinitely many
/// servers of mean service 1.
pub(super) fn theory(load: f64) -> f64 {
    let mut sum = 0.0;
    let mut power = 1.0;
    // The i-th exponent is 2^i - 2: 0, 2, 6, 14, ...
    while power > 1e-12 {
        sum += power;
        power = (power * load).powi(2);
    }
    sum
}

fn supermarket(here: &Here<'_>) -> Option<Bar> {
    let mean = here.find(P2C)?.outturn.mean;
    let expected = theory(here.load);
    let off = 100.0 * (mean / expected - 1.0);
    Some(here.bar(
        "the mean time of two choices is within 2 % of the formula's",
        format!("{mean:.4}, {expected:.4} by the formula ({off:+.2} %)"),
        off.abs() <= 2.0,
    ))
}

#[cfg(test)]
mod tests {
    use super::super::Outturn;
    use super::*;

    fn result(contender: &'static str, p99: f64, errors: usize) -> Played {
        Played {
            suite: ONE,
            load: 1.74,
            contender,
            outturn: Outturn {
                count: 1_000,
                errors,
                mean: 0.1,
                percentiles: [1.0, 2.0, p99, p99],
            },
        }
    }

    #[test]
    fn another_order_is_not_met() {
        let good = [
            result(ROUND_ROBIN, 5_000.0, 60),
            result(EWMA_2, 400.0, 0),
            result(EWMA_ALL, 270.0, 0),
        ];
        assert_eq!(checks(&good).iter().filter(|bar| bar.met).count(), 3);
        let mut bad = good.clone();
        bad[2].outturn.percentiles[2] = 500.0;
        assert_eq!(checks(&bad).iter().filter(|bar| bar.met).count(), 2);
        let mut bad = good.clone();
        bad[2].outturn.errors = 1;
        assert_eq!(checks(&bad).iter().filter(|bar| bar.met).count(), 2);
        let mut bad = good;
        bad[0].outturn.errors = 0;
        bad[1].outturn.errors = 5;
        assert_eq!(checks(&bad).iter().filter(|bar| bar.met).count(), 1);
    }

    #[test]
    fn the_formula_gives_the_published_figures() {
        for (load, time) in [(0.7, 1.6145), (0.9, 2.6141), (0.95, 3.3830), (0.99, 5.4320)] {
            assert!(
                (theory(load) - time).abs() < 1e-4,
                "{load}: {}",
                theory(load)
            );
        }
    }
}
