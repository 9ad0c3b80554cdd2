//! C3: targets are ranked by what they tell of their queues.

use std::time::Duration;

use super::limits::ensure;
use super::load::{Decay, tick};
use super::memory::Memory;
use super::{Ask, Candidate, Loads, MOST_SAMPLES};
use crate::error::ConfigError;

/// Candidates that are ranked for a pick where there are more targets than that.
pub const C3_SAMPLES: u32 = 16;

/// The time constant of latencies by default, and of what a target told until it is thought to have worn out: that of peak
/// EWMA. In the simulation (`benches simulate`, suite `hundred`) p99 is 395 ms with it and 965 ms with one second.
pub const C3_DECAY: Duration = super::DECAY;

/// The least time constant.
const MILLISECOND: Duration = Duration::from_millis(1);

/// Settings of [`Algorithm::C3`](super::Algorithm::C3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct C3Config {
    /// How many balancers send to the same targets, this one included: as many requests as this one has outstanding
    /// at a target, each other is thought to have sent since the target told of its queue. One to 2^20. Default: 1.
    pub clients: u32,
    /// Targets drawn and ranked for a pick, one to 64; all where there are no more. Default: [`C3_SAMPLES`].
    pub samples: u32,
    /// The time constant of latencies; up to an hour. Default: [`C3_DECAY`].
    pub decay: Duration,
}

impl Default for C3Config {
    fn default() -> Self {
        Self {
            clients: 1,
            samples: C3_SAMPLES,
            decay: C3_DECAY,
        }
    }
}

impl C3Config {
    /// Says what is wrong with the settings.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        ensure(
            (1..=1 << 20).contains(&self.clients),
            "c3.clients",
            self.clients,
            "from 1 to 1,048,576",
        )?;
        ensure(
            (1..=MOST_SAMPLES).contains(&self.samples),
            "c3.samples",
            self.samples,
            "from 1 to 64",
        )?;
        ensure(
            (MILLISECOND..=3_600_000 * MILLISECOND).contains(&self.decay),
            "c3.decay",
            format_args!("{:?}", self.decay),
            "from 1 ms to 1 h",
        )
    }

    /// How latencies are averaged.
    pub(crate) fn averaged(&self) -> Decay {
        Decay::peak(self.decay)
    }
}

/// Who is ranked.
///
/// # Algorithm
///
/// Suresh, Canini, Schmid and Feldmann, "C3: cutting tail latency in cloud data stores via adaptive replica selection",
/// NSDI 2015, section 3.1: the lowest R - S + Q^3 x S wins, where R is the average latency seen here, S the service time and
/// q the queue that the target told of with an answer, and Q = 1 + outstanding x clients + q. The cube makes a long
/// queue worse than a slow service.
///
/// Other than there, a queue that was told long ago wears out, so that a target that was once avoided is tried again; R
/// is peak-sensitive; the queue is divided by the target's weight, relative to the mean; there is no rate control: what
/// is refused is refused by limits of outstanding requests. A target that told nothing yet is ranked by its latency here, and without
/// that by what is typical.
#[derive(Debug, Clone)]
pub(crate) struct C3 {
    /// The mean weight by the target's, by index.
    rates: Box<[f32]>,
    clients: f32,
    samples: usize,
    decay: Decay,
    /// One over the time constant in nanoseconds.
    wear: f32,
}

impl C3 {
    pub(crate) fn build(settings: &C3Config, candidates: &[Candidate]) -> Self {
        let total: f64 = candidates.iter().map(|one| f64::from(one.weight)).sum();
        let mean = total / candidates.len().max(1) as f64;
        let rate = |one: &Candidate| (mean / f64::from(one.weight)) as f32;
        Self {
            rates: candidates.iter().map(rate).collect(),
            clients: settings.clients as f32,
            samples: settings.samples as usize,
            decay: settings.averaged(),
            wear: 1.0 / settings.decay.as_nanos().max(1) as f32,
        }
    }

    #[inline]
    pub(crate) fn choose<L: Loads + ?Sized>(
        &self,
        loads: &L,
        ask: &Ask,
        memory: &Memory,
    ) -> Option<usize> {
        let count = self.rates.len();
        let start = memory.draw();
        if count <= self.samples.max(2) {
            // From a random place on, so that equals share.
            let start = super::hash::place(start, count as u64) as usize;
            let order = (start..count).chain(0..start);
            return self.best(loads, ask, memory, order);
        }
        let drawn = (0..self.samples).map(|number| {
            let draw = super::hash::mix(start, number as u64);
            super::hash::place(draw, count as u64) as usize
        });
        self.best(loads, ask, memory, drawn)
    }

    pub(crate) fn next<L: Loads + ?Sized>(
        &self,
        loads: &L,
        ask: &Ask,
        memory: &Memory,
        admit: &dyn Fn(usize) -> bool,
    ) -> Option<usize> {
        // From a random place on, here too.
        let count = self.rates.len();
        let start = super::hash::place(memory.draw(), count as u64) as usize;
        let order = (start..count).chain(0..start);
        self.best(loads, ask, memory, order.filter(|&index| admit(index)))
    }

    #[inline]
    fn best<L: Loads + ?Sized>(
        &self,
        loads: &L,
        ask: &Ask,
        memory: &Memory,
        order: impl Iterator<Item = usize>,
    ) -> Option<usize> {
        let mut best: Option<(f32, usize)> = None;
        for index in order {
            let score = self.score(loads, ask, memory, index);
            if best.is_none_or(|(least, _)| score < least) {
                best = Some((score, index));
            }
        }
        best.map(|(_, index)| index)
    }

    #[inline]
    fn score<L: Loads + ?Sized>(&self, loads: &L, ask: &Ask, memory: &Memory, index: usize) -> f32 {
        let load = loads.load(index);
        let seen = load.cost(tick(ask.now), &self.decay);
        let (told, mut service) = match load.server(ask.now) {
            Some(server) => {
                // About e^-x, and never nothing.
                let x = server.age as f32 * self.wear;
                let worn = server.in_flight as f32 / (1.0 + x + 0.5 * x * x);
                (worn, server.latency)
            }
            None => (0.0, 0.0),
        };
        if service <= 0.0 {
            service = if seen > 0.0 { seen } else { memory.typical() };
        }
        let own = load.outstanding() as f32 * self.clients;
        let queue = 1.0 + (own + told) * self.rates[index];
        seen - service + queue * queue * queue * service.max(1.0)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use sim_core::time::Instant;

    use super::*;
    use crate::algorithm::load::{Entry, Load};
    use crate::algorithm::properties::{ask_at, weighted};
    use crate::message::Feedback;

    fn told(in_flight: u32, latency: Duration) -> Feedback {
        Feedback {
            in_flight,
            latency: Some(latency),
            ..Feedback::default()
        }
    }

    fn chosen(table: &C3, loads: &Vec<Load>, at: Duration) -> usize {
        let memory = Memory::new(1);
        let ask = ask_at(Instant::ORIGIN + at);
        table
            .choose(loads, &ask, &memory)
            .expect("there are targets")
    }

    #[test]
    fn a_long_queue_is_worse_than_a_slow_service_until_it_has_worn_out() {
        let table = C3::build(&C3Config::default(), &weighted(&[1, 1]));
        let loads: Vec<Load> = (0..2).map(|_| Load::new(100)).collect();
        let now = Instant::ORIGIN + Duration::from_secs(1);
        loads[0].hear(told(10, MILLISECOND), now);
        loads[1].hear(told(1, 40 * MILLISECOND), now);
        // 11^3 x 1 ms against 2^3 x 40 ms.
        assert_eq!(chosen(&table, &loads, Duration::from_secs(1)), 1);
        assert_eq!(chosen(&table, &loads, Duration::from_secs(101)), 0);
    }

    #[test]
    fn each_own_request_counts_for_all_clients() {
        let settings = C3Config {
            clients: 10,
            ..C3Config::default()
        };
        let loads: Vec<Load> = (0..2).map(|_| Load::new(100)).collect();
        let now = Instant::ORIGIN + Duration::from_secs(1);
        loads[0].hear(told(0, MILLISECOND), now);
        loads[1].hear(told(5, MILLISECOND), now);
        assert_eq!(loads[0].enter(Entry::New), Ok(()));
        let alone = C3::build(&C3Config::default(), &weighted(&[1, 1]));
        let among = C3::build(&settings, &weighted(&[1, 1]));
        assert_eq!(chosen(&alone, &loads, Duration::from_secs(1)), 0);
        assert_eq!(chosen(&among, &loads, Duration::from_secs(1)), 1);
    }

    #[test]
    fn among_equals_that_are_admitted_each_gets_some() {
        let table = C3::build(&C3Config::default(), &weighted(&[1; 4]));
        let loads: Vec<Load> = (0..4).map(|_| Load::new(100)).collect();
        let (ask, memory) = (ask_at(Instant::ORIGIN), Memory::new(1));
        let mut counts = [0; 4];
        for _ in 0..400 {
            let next = table.next(&loads, &ask, &memory, &|index| index != 0);
            counts[next.expect("three are admitted")] += 1;
        }
        assert_eq!(counts[0], 0);
        assert!(counts[1..].iter().all(|&count| count > 90), "{counts:?}");
    }

    #[test]
    fn a_heavier_target_may_have_a_longer_queue() {
        let table = C3::build(&C3Config::default(), &weighted(&[1, 9]));
        let loads: Vec<Load> = (0..2).map(|_| Load::new(100)).collect();
        let now = Instant::ORIGIN + Duration::from_secs(1);
        loads[0].hear(told(2, MILLISECOND), now);
        loads[1].hear(told(9, MILLISECOND), now);
        assert_eq!(chosen(&table, &loads, Duration::from_secs(1)), 1);
        let admitted = table.next(&loads, &ask_at(now), &Memory::new(1), &|index| index == 0);
        assert_eq!(admitted, Some(0));
    }
}
