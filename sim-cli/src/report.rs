//! The table at the end: what happened on each way, and whether it adds up to the input.

use std::fmt::{self, Write as _};
use std::time::Duration;

use crate::calendar::DAY;
use crate::events::Digested;
use crate::pipeline::Way;
use crate::world::{Counters, Hired, MAX_RECEIVES, Outcome, Settings, Tally};

/// A sum that must hold: the counts of workers, queues and input are taken apart from each other.
#[derive(Debug)]
struct Check {
    total: (String, u64),
    parts: Vec<(&'static str, u64)>,
}

impl Check {
    fn new(
        (name, count): (&str, u64),
        parts: impl IntoIterator<Item = (&'static str, u64)>,
    ) -> Self {
        Self {
            total: (name.to_owned(), count),
            parts: parts.into_iter().collect(),
        }
    }

    fn holds(&self) -> bool {
        self.total.1 == self.parts.iter().map(|(_, count)| count).sum::<u64>()
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.holds() { "=" } else { "IS NOT" };
        write!(f, "{} {} {sign} ", grouped(self.total.1), self.total.0)?;
        for (index, (name, count)) in self.parts.iter().enumerate() {
            let plus = if index == 0 { "" } else { " + " };
            write!(f, "{plus}{} {name}", grouped(*count))?;
        }
        Ok(())
    }
}

/// The sums that every replay must satisfy.
fn checks(outcome: &Outcome) -> Vec<Check> {
    let mut checks = vec![
        Check::new(
            ("rows", outcome.rows),
            [
                ("put into the stream", outcome.put),
                ("malformed", outcome.malformed),
            ],
        ),
        Check::new(
            ("read by publishers", outcome.read),
            [
                ("published", outcome.published),
                ("recognised as published already", outcome.recognised),
            ],
        ),
        Check::new(
            ("put into the stream", outcome.put),
            [("published", outcome.published)],
        ),
        Check::new(
            ("published out of their carrier's order", outcome.disordered),
            [("allowed", 0)],
        ),
    ];
    for (way, (tally, queue)) in Way::ALL
        .iter()
        .zip(outcome.tallies.iter().zip(&outcome.counters))
    {
        let name = way.name();
        let mut check = |(count, total): (u64, &str), parts: &[(&'static str, u64)]| {
            checks.push(Check {
                total: (format!("{name}, {total}"), count),
                parts: parts.to_vec(),
            });
        };
        check(
            (outcome.published, "published"),
            &[
                ("delivered", queue.delivered),
                ("filtered out", queue.filtered),
            ],
        );
        check(
            (tally.expected, "in the input"),
            &[("delivered", queue.delivered)],
        );
        check(
            (tally.expected, "in the input"),
            &[
                ("acknowledged", tally.acknowledged),
                ("parked", tally.parked),
            ],
        );
        check(
            (tally.expected, "in the input"),
            &[("ended exactly once", tally.ended_once)],
        );
        check(
            (queue.sent, "taken in"),
            &[("delivered", queue.delivered), ("moved back", tally.moved)],
        );
        check(
            (queue.sent, "taken in"),
            &[
                ("acknowledged", queue.deleted),
                ("dead letters", queue.redriven),
            ],
        );
        check(
            (queue.received, "received"),
            &[
                ("acknowledged", tally.acknowledged),
                ("crashed", tally.crashed),
                ("refused late", tally.refused),
            ],
        );
        check(
            (queue.lapsed, "leases expired"),
            &[
                ("crashed", tally.crashed),
                ("refused late", tally.refused),
                ("granted late", tally.granted_late),
            ],
        );
        check(
            (queue.lapsed, "leases expired"),
            &[
                ("redelivered", tally.redelivered),
                ("dead letters", queue.redriven),
                ("granted late", tally.granted_late),
            ],
        );
        check(
            (queue.redriven, "dead letters"),
            &[("moved back once", tally.moved), ("parked", tally.parked)],
        );
        check((queue.left, "left"), &[("allowed", 0)]);
        let hired = &outcome.hired[*way as usize];
        check(
            (hired.called, "workers called"),
            &[("gone", hired.gone), ("there", hired.left)],
        );
        check(
            (queue.received, "received"),
            &[("given to workers and done", hired.works)],
        );
        check(
            (hired.outstanding, "workers not given back"),
            &[("allowed", 0)],
        );
    }
    checks.push(Check::new(
        ("left among the dead letters", outcome.dead_left),
        [("allowed", 0)],
    ));
    checks
}

/// Whether every sum holds.
pub(crate) fn reconciles(outcome: &Outcome) -> bool {
    checks(outcome).iter().all(Check::holds)
}

/// What is printed, in one piece.
#[derive(Debug)]
pub(crate) struct Report<'a> {
    /// Where the rows came from.
    pub(crate) source: &'a str,
    /// What was set.
    pub(crate) settings: &'a Settings,
    /// What came of it.
    pub(crate) outcome: &'a Outcome,
    /// The log's digest.
    pub(crate) digested: &'a Digested,
    /// Real time of reading the input.
    pub(crate) reading: Duration,
    /// Real time of the replay.
    pub(crate) replaying: Duration,
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.input(f)?;
        self.pipeline(f)?;
        self.ways(f)?;
        self.staff(f)?;
        self.latencies(f)?;
        self.reconciliation(f)?;
        self.rates(f)
    }
}

impl Report<'_> {
    fn input(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outcome = self.outcome;
        let Settings { seed, workers } = self.settings;
        writeln!(
            f,
            "input   {}: {} rows, {} malformed, {} put in order",
            self.source,
            grouped(outcome.rows),
            grouped(outcome.malformed),
            grouped(outcome.reordered),
        )?;
        writeln!(
            f,
            "span    {} to {}, {:.1} virtual days",
            outcome.start,
            outcome.end,
            self.virtual_days(),
        )?;
        writeln!(
            f,
            "set     seed {seed}, at most {workers} workers at each queue"
        )
    }

    fn pipeline(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outcome = self.outcome;
        writeln!(f, "\n{:<36}{:>12}", "flights", "all")?;
        for (name, count) in [
            ("put into the stream, by carrier", outcome.put),
            ("read by publishers", outcome.read),
            ("  publishers crashed", outcome.publishers_crashed),
            ("  read again, recognised", outcome.recognised),
            ("published to the topic", outcome.published),
        ] {
            writeln!(f, "{name:<36}{:>12}", dashed(count))?;
        }
        Ok(())
    }

    fn ways(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outcome = self.outcome;
        let of = |count: fn(&Tally) -> u64| outcome.tallies.each_ref().map(count);
        let queues = |count: fn(&Counters) -> u64| outcome.counters.each_ref().map(count);
        let rows = [
            ("delivered by the filter", queues(|queue| queue.delivered)),
            ("moved back, once", of(|tally| tally.moved)),
            ("received", of(|tally| tally.received)),
            ("  of those redelivered", of(|tally| tally.redelivered)),
            ("acknowledged", of(|tally| tally.acknowledged)),
            ("leases extended", of(|tally| tally.extended)),
            ("crashed holding a lease", of(|tally| tally.crashed)),
            ("too late, refused", of(|tally| tally.refused)),
            ("too late, granted", of(|tally| tally.granted_late)),
            ("dead letters", queues(|queue| queue.redriven)),
            ("parked for inspection", of(|tally| tally.parked)),
        ];
        write!(f, "\n{:<24}", "messages")?;
        for way in Way::ALL {
            write!(f, "{:>12}", way.name())?;
        }
        writeln!(f, "{:>12}", "all")?;
        for (name, counts) in rows {
            write!(f, "{name:<24}")?;
            for count in counts {
                write!(f, "{:>12}", dashed(count))?;
            }
            writeln!(f, "{:>12}", dashed(counts.iter().sum()))?;
        }
        writeln!(
            f,
            "a dead letter was received {MAX_RECEIVES} times in vain; the inspector also found {} malformed rows",
            grouped(outcome.malformed)
        )
    }

    fn staff(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outcome = self.outcome;
        let of = |count: fn(&Hired) -> u64| outcome.hired.each_ref().map(count);
        write!(f, "\n{:<24}", "workers")?;
        for way in Way::ALL {
            write!(f, "{:>12}", way.name())?;
        }
        writeln!(f, "{:>12}", "all")?;
        for (name, counts) in [
            ("called", of(|hired| hired.called)),
            ("crashed, replaced", of(|hired| hired.unfit)),
        ] {
            write!(f, "{name:<24}")?;
            for count in counts {
                write!(f, "{:>12}", dashed(count))?;
            }
            writeln!(f, "{:>12}", dashed(counts.iter().sum()))?;
        }
        write!(f, "{:<24}", "most at a time")?;
        for most in of(|hired| hired.most) {
            write!(f, "{:>12}", dashed(most))?;
        }
        write!(f, "\n{:<24}", "in service, mean")?;
        let samples = outcome.samples.len().max(1) as f64;
        let means = of(|hired| hired.sampled).map(|sampled| sampled as f64 / samples);
        for mean in means {
            write!(f, "{mean:>12.2}")?;
        }
        writeln!(f, "{:>12.2}", means.iter().sum::<f64>())
    }

    fn latencies(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n{:<24}{:>12}{:>12}{:>12}{:>12}",
            "virtual time", "p50", "p90", "p99", "max"
        )?;
        for (way, tally) in Way::ALL.iter().zip(&self.outcome.tallies) {
            for (what, times) in [("waited", &tally.waited), ("held", &tally.held)] {
                let name = format!("{} {what}", way.name());
                write!(f, "{name:<24}")?;
                for permille in [500, 900, 990, 1_000] {
                    write!(
                        f,
                        "{:>12}",
                        times.permille(permille).map_or("-".to_owned(), clock_time)
                    )?;
                }
                writeln!(f)?;
            }
        }
        writeln!(
            f,
            "waited: from the departure to the first receive; held: from the receive to the acknowledgement"
        )
    }

    fn reconciliation(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nreconciliation")?;
        for check in checks(self.outcome) {
            writeln!(f, "  {check}")?;
        }
        writeln!(
            f,
            "reconciles: {}",
            if reconciles(self.outcome) {
                "yes"
            } else {
                "no"
            }
        )
    }

    fn rates(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outcome = self.outcome;
        // Zero seconds would give no rate.
        let seconds = self.replaying.as_secs_f64().max(1e-9);
        let messages: u64 = outcome.counters.iter().map(|c| c.sent + c.redriven).sum();
        let calls = messages
            + outcome.put
            + outcome.read
            + outcome.published
            + outcome.recognised
            + outcome
                .counters
                .iter()
                .map(|c| c.received + c.deleted)
                .sum::<u64>()
            + outcome
                .tallies
                .iter()
                .map(|tally| tally.extended)
                .sum::<u64>();
        writeln!(
            f,
            "\nreal time  read in {:.2} s, replayed in {:.2} s",
            self.reading.as_secs_f64(),
            self.replaying.as_secs_f64()
        )?;
        writeln!(
            f,
            "rates      {} flights/s, {} puts, reads, publishes, sends, receives, extensions and acknowledgements/s, {} virtual days/s",
            grouped((outcome.put as f64 / seconds) as u64),
            grouped((calls as f64 / seconds) as u64),
            grouped((self.virtual_days() / seconds) as u64),
        )?;
        writeln!(
            f,
            "digest     {} (SHA-256 of {} events)",
            self.digested.digest,
            grouped(self.digested.lines)
        )
    }

    fn virtual_days(&self) -> f64 {
        (self.outcome.end - self.outcome.start).as_secs_f64() / DAY as f64
    }
}

/// A count with commas between the thousands.
pub(crate) fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count for the table: a dash for none.
fn dashed(count: u64) -> String {
    if count == 0 {
        "-".to_owned()
    } else {
        grouped(count)
    }
}

/// A duration as hours, minutes and seconds: `1:05:00`.
fn clock_time(time: Duration) -> String {
    let seconds = time.as_secs();
    let mut text = String::new();
    let _ = write!(
        text,
        "{}:{:02}:{:02}",
        grouped(seconds / 3_600),
        seconds / 60 % 60,
        seconds % 60
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_grouped_and_times_are_read_like_a_clock() {
        for (count, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(grouped(count), text);
        }
        assert_eq!(clock_time(Duration::from_secs(3_905)), "1:05:05");
    }

    #[test]
    fn a_sum_that_does_not_hold_says_so() {
        let check = Check::new(("rows", 3), [("acknowledged", 1), ("parked", 1)]);
        assert!(!check.holds());
        assert_eq!(check.to_string(), "3 rows IS NOT 1 acknowledged + 1 parked");
    }
}
