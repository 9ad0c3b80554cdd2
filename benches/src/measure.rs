//! Rounds: every peer of a pattern runs once a round, so that what disturbs the machine disturbs all alike.

use crate::pattern::{Failure, Pattern};
use crate::timing::Watchdog;

/// What a peer achieved in a pattern.
#[derive(Clone, Debug)]
pub struct Figure {
    /// The pattern's name.
    pub pattern: String,
    /// The peer's name.
    pub peer: String,
    /// Nanoseconds a message: the median of the rounds.
    pub ns: f64,
    /// The baseline's time by the peer's time, in the same round: the median of the rounds.
    pub ratio: f64,
    /// The smallest and the largest ratio of a round.
    pub spread: (f64, f64),
    /// Nanoseconds a message, round by round.
    pub rounds: Vec<f64>,
}

/// Runs a pattern so many rounds, after a warm-up of a tenth of the messages.
///
/// The order in which the peers run shifts by one each round, so that no peer always follows the same other.
///
/// # Errors
/// When a peer's run fails: a peer that loses messages has no figure.
pub fn measure(
    pattern: &Pattern,
    rounds: usize,
    warm: Warm,
    watchdog: &Watchdog,
) -> Result<Vec<Figure>, Failure> {
    let run = |index: usize, count: u64| -> Result<f64, Failure> {
        let peer = &pattern.peers[index];
        let elapsed = watchdog
            .watch(format!("{} of {}", peer.name, pattern.name), || {
                peer.run(count)
            })
            .map_err(|failure| Failure(format!("{}: {failure}", pattern.name)))?;
        Ok(elapsed.as_nanos() as f64 / count as f64)
    };
    let width = pattern.peers.len();
    let Some(baseline) = pattern
        .peers
        .iter()
        .position(|peer| peer.name == pattern.baseline)
    else {
        return Err(Failure(format!(
            "{}: no {} to compare with",
            pattern.name, pattern.baseline
        )));
    };
    if warm == Warm::Up {
        for index in 0..width {
            run(index, pattern.count / 10)?;
        }
    }
    let mut times = vec![Vec::with_capacity(rounds); width];
    for round in 0..rounds {
        for place in 0..width {
            let index = (place + round) % width;
            times[index].push(run(index, pattern.count)?);
        }
    }
    let figures = times.iter().zip(&pattern.peers).map(|(own, peer)| {
        let ratios = pairs(&times[baseline], own);
        Figure {
            pattern: pattern.name.clone(),
            peer: peer.name.clone(),
            ns: median(own),
            ratio: median(&ratios),
            spread: (
                ratios.iter().copied().fold(f64::INFINITY, f64::min),
                ratios.iter().copied().fold(0.0, f64::max),
            ),
            rounds: own.clone(),
        }
    });
    Ok(figures.collect())
}

/// Whether a pattern starts cold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Warm {
    /// Every peer runs a tenth of the messages first.
    Up,
    /// The first round is the first run.
    Not,
}

/// How many times faster the second is than the first, round by round.
#[must_use]
pub fn pairs(first: &[f64], second: &[f64]) -> Vec<f64> {
    first
        .iter()
        .zip(second)
        .map(|(first, second)| first / second)
        .collect()
}

/// The middle of the values; not a number when there are none.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        length if length.is_multiple_of(2) => {
            f64::midpoint(sorted[length / 2 - 1], sorted[length / 2])
        }
        length => sorted[length / 2],
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::pattern::Peer;

    #[test]
    fn the_median_is_the_middle() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < f64::EPSILON);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn a_ratio_says_how_many_times_faster_than_the_baseline() {
        let pattern = Pattern {
            name: "p".to_owned(),
            baseline: "slow",
            count: 10,
            peers: vec![
                Peer::new("slow", |count| Ok(Duration::from_nanos(count * 30))),
                Peer::new("fast", |count| Ok(Duration::from_nanos(count * 10))),
            ],
        };
        let watchdog = Watchdog::new(Duration::from_secs(60));
        let figures = measure(&pattern, 3, Warm::Up, &watchdog).expect("both run");
        assert!((figures[0].ratio - 1.0).abs() < 1e-9);
        assert!((figures[1].ratio - 3.0).abs() < 1e-9);
        assert!((figures[1].ns - 10.0).abs() < 1e-9);
    }

    #[test]
    fn a_failing_peer_fails_the_pattern_by_name() {
        let pattern = Pattern {
            name: "p".to_owned(),
            baseline: "loser",
            count: 10,
            peers: vec![Peer::new("loser", |_| Err(Failure("lost one".to_owned())))],
        };
        let watchdog = Watchdog::new(Duration::from_secs(60));
        let failure = measure(&pattern, 1, Warm::Not, &watchdog).expect_err("it loses");
        assert_eq!(failure.to_string(), "p: loser: lost one");
    }
}
