//! How a target is chosen: the settings of each algorithm, and the tables that they are made into.
//!
//! A table is built from the eligible targets whenever they change, and is immutable; what an algorithm remembers from
//! pick to pick stands in a memory beside it, and what is known of each target's load with the target. So a pick reads
//! a table that nobody writes, and counts survive any change of the table.

pub(crate) mod alias;
pub(crate) mod aperture;
pub(crate) mod bounded;
pub(crate) mod c3;
pub(crate) mod first;
pub mod flow;
pub(crate) mod hash;
pub(crate) mod least;
pub(crate) mod limits;
pub(crate) mod load;
pub(crate) mod maglev;
pub(crate) mod memory;
pub(crate) mod prequal;
#[cfg(all(test, not(loom)))]
pub(crate) mod properties;
pub(crate) mod rendezvous;
pub(crate) mod reported;
pub(crate) mod ring;
pub(crate) mod sticky;
pub(crate) mod turns;

use std::time::Duration;

use sim_core::time::Instant;

use self::alias::RandomTable;
use self::aperture::Part;
use self::bounded::Bounded;
use self::c3::C3;
use self::first::First;
use self::least::{LeastTable, Score};
use self::load::Decay;
use self::memory::{Memory, Turns};
use self::prequal::Prequal;
use self::reported::Reported;
use self::sticky::Sticky;
use self::turns::TurnTable;
use crate::error::ConfigError;

pub use self::aperture::{APERTURE_LEAST, ApertureConfig, SUBSET_SIZE, SubsetConfig};
pub use self::bounded::{BOUND_FACTOR, BoundedConfig};
pub use self::c3::{C3_DECAY, C3_SAMPLES, C3Config};
pub(crate) use self::load::Loads;
pub use self::load::MOST_OUTSTANDING;
pub use self::maglev::{MAGLEV_LARGEST, MAGLEV_TABLE, Maglev, MaglevConfig};
pub use self::prequal::{
    PREQUAL_AGE, PREQUAL_POOL, PREQUAL_PROBES, PREQUAL_QUANTILE, PREQUAL_REMOVED, PrequalConfig,
};
pub use self::rendezvous::Rendezvous;
pub use self::reported::{REPORTED_BLACKOUT, REPORTED_EXPIRATION, REPORTED_UPDATE, ReportedConfig};
pub use self::ring::{RING_LARGEST, RING_POINTS, Ring, RingConfig};
pub use self::sticky::{STICKY_KEYS, STICKY_MOST, STICKY_TIME, StickyConfig};

/// The time constant of the average latency: 10 s, as in Finagle and linkerd.
pub const DECAY: Duration = Duration::from_secs(10);
/// What a failure counts as at least, as a latency: 5 s, as in linkerd.
pub const PENALTY: Duration = Duration::from_secs(5);
/// The longest that a target's `Retry-After` is believed: 300 s, as in linkerd.
pub const RETRY_AFTER_CAP: Duration = Duration::from_secs(300);
/// The most targets that are drawn for one pick.
pub const MOST_SAMPLES: u32 = 64;

/// How a target is chosen among those that are eligible.
///
/// ```
/// use sim_balancer::{Algorithm, Choices, LeastOutstanding};
///
/// let power_of_two = Algorithm::LeastOutstanding(LeastOutstanding {
///     choices: Choices::Sample(2),
/// });
/// assert_ne!(power_of_two, Algorithm::default());
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Algorithm {
    /// Each in its turn, whatever its weight; while it starts slowly or is mitigated, as often as that allows. O(1).
    RoundRobin,
    /// Each in its turn, as often as it weighs, and its turns evenly spread. O(1).
    SmoothWeighted,
    /// Any, each alike; while it starts slowly or is mitigated, as often as that allows. O(1).
    Random,
    /// Any, by weight. O(1). With [`Anomaly`](crate::machine::Anomaly) in the rules, targets that do worse than the others
    /// weigh less for a while: the service's automatic target weights.
    WeightedRandom,
    /// The one that has least in hand for its weight.
    LeastOutstanding(LeastOutstanding),
    /// The one that is expected to answer first: least of peak-sensitive latency times what it has in hand, for its
    /// weight. The default. Reads the clock twice a request.
    PeakEwma(PeakEwma),
    /// The one whose average latency times what it has in hand is least, for its weight. An average to which nothing came for
    /// a time constant wears out from then on, so that a target that failed is tried again. Reads the clock twice a request.
    LeastTime(LeastTime),
    /// That of the request's key, by consistent hashing on a ring in the manner of ketama. O(1). Requests without a key go
    /// anywhere, here as with the other algorithms by key.
    RingHash(RingConfig),
    /// That of the request's key, by a Maglev table: the most even shares, in the least time. O(1).
    Maglev(MaglevConfig),
    /// That of the request's key, by rendezvous hashing: exact shares, the least disruption, no table. O(n), a
    /// nanosecond or two a target.
    Rendezvous,
    /// That of the request's key on a ring, unless it has more than its bound of what is outstanding. O(1) while it is idle,
    /// else O(n).
    BoundedLoad(BoundedConfig),
    /// That to which the request's key was given first, as long as it is there. O(1).
    Sticky(StickyConfig),
    /// The first that has room, in the order of their registration. Slow start and mitigation make no difference, nor do
    /// weights.
    FirstAvailable,
    /// The less loaded of two out of this balancer's subset of the targets. O(1).
    Subset(SubsetConfig),
    /// The less loaded of two out of this balancer's deterministic aperture. O(1).
    Aperture(ApertureConfig),
    /// By what targets tell of their queues, with [`observe`](crate::Lease::observe): C3. Reads the clock.
    C3(C3Config),
    /// By what targets answer when they are asked ([`Balancer::sample`](crate::Balancer::sample)), or tell with their
    /// responses: Prequal's hot-cold rule. Reads the clock.
    Prequal(PrequalConfig),
    /// Each in its turn, as often as its reports of work done and utilization say: gRPC's client-side weighted round
    /// robin (ORCA). Reads the clock.
    Reported(ReportedConfig),
}

impl Default for Algorithm {
    fn default() -> Self {
        Self::PeakEwma(PeakEwma::default())
    }
}

/// Among how many targets the least loaded is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Choices {
    /// All up to 32 targets, 8 drawn at random of more.
    #[default]
    Auto,
    /// All of them: the best choice, at a cost that grows with their number.
    All,
    /// So many, drawn at random; 2 is the power of two choices. From 2 to [`MOST_SAMPLES`].
    Sample(u32),
}

/// Settings of [`Algorithm::LeastOutstanding`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct LeastOutstanding {
    /// Among how many. Default: [`Choices::All`].
    pub choices: Choices,
}

impl Default for LeastOutstanding {
    fn default() -> Self {
        Self {
            choices: Choices::All,
        }
    }
}

/// Settings of [`Algorithm::PeakEwma`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct PeakEwma {
    /// How fast the past is forgotten: a time constant. Default: [`DECAY`], 10 s.
    pub decay: Duration,
    /// What a failure counts as at least, as a latency. Default: [`PENALTY`], 5 s.
    pub penalty: Duration,
    /// The longest that a target's wish to be asked later is believed. Default: [`RETRY_AFTER_CAP`], 300 s.
    pub retry_after_cap: Duration,
    /// Among how many targets. Default: [`Choices::Auto`].
    pub choices: Choices,
}

impl Default for PeakEwma {
    fn default() -> Self {
        Self {
            decay: DECAY,
            penalty: PENALTY,
            retry_after_cap: RETRY_AFTER_CAP,
            choices: Choices::Auto,
        }
    }
}

/// Settings of [`Algorithm::LeastTime`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct LeastTime {
    /// How fast the past is forgotten: a time constant. Default: [`DECAY`], 10 s.
    pub decay: Duration,
    /// What a failure counts as at least, as a latency. Default: [`PENALTY`], 5 s.
    pub penalty: Duration,
    /// The longest that a target's wish to be asked later is believed. Default: [`RETRY_AFTER_CAP`], 300 s.
    pub retry_after_cap: Duration,
    /// Among how many targets. Default: [`Choices::Auto`].
    pub choices: Choices,
}

impl Default for LeastTime {
    fn default() -> Self {
        let PeakEwma {
            decay,
            penalty,
            retry_after_cap,
            choices,
        } = PeakEwma::default();
        Self {
            decay,
            penalty,
            retry_after_cap,
            choices,
        }
    }
}

/// How latencies are taken, where the algorithm needs them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Timing {
    pub(crate) decay: Decay,
    /// In nanoseconds.
    pub(crate) penalty: f32,
    pub(crate) retry_after_cap: Duration,
}

impl Algorithm {
    /// The algorithm's name, as statistics show it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::RoundRobin => "round_robin",
            Self::SmoothWeighted => "smooth_weighted",
            Self::Random => "random",
            Self::WeightedRandom => "weighted_random",
            Self::LeastOutstanding(_) => "least_outstanding",
            Self::PeakEwma(_) => "peak_ewma",
            Self::LeastTime(_) => "least_time",
            Self::RingHash(_) => "ring_hash",
            Self::Maglev(_) => "maglev",
            Self::Rendezvous => "rendezvous",
            Self::BoundedLoad(_) => "bounded_load",
            Self::Sticky(_) => "sticky",
            Self::FirstAvailable => "first_available",
            Self::Subset(_) => "subset",
            Self::Aperture(_) => "aperture",
            Self::C3(_) => "c3",
            Self::Prequal(_) => "prequal",
            Self::Reported(_) => "reported",
        }
    }

    /// Checks the settings.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        match self {
            Self::RoundRobin
            | Self::SmoothWeighted
            | Self::Random
            | Self::WeightedRandom
            | Self::Rendezvous
            | Self::FirstAvailable => Ok(()),
            Self::LeastOutstanding(settings) => check_choices(settings.choices),
            Self::PeakEwma(settings) => {
                check_choices(settings.choices)?;
                check_decay(settings.decay)
            }
            Self::LeastTime(settings) => {
                check_choices(settings.choices)?;
                check_decay(settings.decay)
            }
            Self::RingHash(settings) => settings.check(),
            Self::Maglev(settings) => settings.check(),
            Self::BoundedLoad(settings) => settings.check(),
            Self::Sticky(settings) => settings.check(),
            Self::Subset(settings) => settings.check(),
            Self::Aperture(settings) => settings.check(),
            Self::C3(settings) => settings.check(),
            Self::Prequal(settings) => settings.check(),
            Self::Reported(settings) => settings.check(),
        }
    }

    /// How latencies are taken; `None` where they are not, and no clock is read.
    pub(crate) fn timing(&self) -> Option<Timing> {
        match self {
            Self::PeakEwma(settings) => Some(Timing {
                decay: Decay::peak(settings.decay),
                penalty: settings.penalty.as_nanos() as f32,
                retry_after_cap: settings.retry_after_cap,
            }),
            Self::LeastTime(settings) => Some(Timing {
                decay: Decay::mean(settings.decay),
                penalty: settings.penalty.as_nanos() as f32,
                retry_after_cap: settings.retry_after_cap,
            }),
            Self::C3(settings) => Some(Timing {
                decay: settings.averaged(),
                penalty: PENALTY.as_nanos() as f32,
                retry_after_cap: RETRY_AFTER_CAP,
            }),
            // What these need is the time of the pick.
            Self::Sticky(_) | Self::Prequal(_) | Self::Reported(_) => Some(Timing {
                decay: Decay::mean(DECAY),
                penalty: PENALTY.as_nanos() as f32,
                retry_after_cap: RETRY_AFTER_CAP,
            }),
            Self::RingHash(_)
            | Self::Maglev(_)
            | Self::Rendezvous
            | Self::BoundedLoad(_)
            | Self::FirstAvailable
            | Self::Subset(_)
            | Self::Aperture(_) => None,
            Self::RoundRobin
            | Self::SmoothWeighted
            | Self::Random
            | Self::WeightedRandom
            | Self::LeastOutstanding(_) => None,
        }
    }
}

fn check_choices(choices: Choices) -> Result<(), ConfigError> {
    match choices {
        Choices::Sample(samples) if !(2..=MOST_SAMPLES).contains(&samples) => {
            Err(ConfigError::Samples { samples })
        }
        Choices::Auto | Choices::All | Choices::Sample(_) => Ok(()),
    }
}

fn check_decay(decay: Duration) -> Result<(), ConfigError> {
    if decay.is_zero() {
        return Err(ConfigError::Decay);
    }
    Ok(())
}

/// One of the targets that a table is built of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// The target's number within its balancer.
    pub(crate) slot: u32,
    /// How many targets had that number before.
    pub(crate) birth: u32,
    /// Its place in the order of registration.
    pub(crate) rank: u64,
    /// Its weight, on any scale; more than zero.
    pub(crate) weight: u32,
    /// What slow start and mitigation leave of it, in percent; more than zero.
    pub(crate) share: u32,
    /// The hash of its id: the same in every process.
    pub(crate) hash: u64,
    /// The number of its zone, or `u32::MAX` when it has none.
    pub(crate) zone: u32,
}

/// What is asked of a table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask {
    /// The hash of the request's key.
    pub(crate) key: Option<u64>,
    /// The time by the fine clock where the algorithm is timed; the origin otherwise.
    pub(crate) now: Instant,
}

/// A table of one algorithm over one set of targets.
#[derive(Debug)]
pub(crate) enum Selector {
    Turns(TurnTable),
    Random(RandomTable),
    Least(LeastTable),
    Ring(Ring),
    Maglev(Maglev),
    Rendezvous(Rendezvous),
    Bounded(Bounded),
    Sticky(Sticky),
    First(First),
    Part(Part),
    C3(C3),
    Prequal(Prequal),
    Reported(Reported),
}

impl Selector {
    /// Builds the table, with the turns of its targets.
    pub(crate) fn build(algorithm: &Algorithm, candidates: &[Candidate], turns: &Turns) -> Self {
        let turns = turns.clone();
        let latency = |settings: &Algorithm| {
            settings
                .timing()
                .map_or(Score::Outstanding, |timing| Score::Latency(timing.decay))
        };
        match algorithm {
            Algorithm::RoundRobin => Self::Turns(TurnTable::weighted(&by_share(candidates), turns)),
            Algorithm::SmoothWeighted => Self::Turns(TurnTable::weighted(candidates, turns)),
            Algorithm::Random => Self::Random(RandomTable::weighted(&by_share(candidates))),
            Algorithm::WeightedRandom => Self::Random(RandomTable::weighted(candidates)),
            Algorithm::LeastOutstanding(settings) => Self::Least(LeastTable::build(
                Score::Outstanding,
                settings.choices,
                candidates,
            )),
            Algorithm::PeakEwma(settings) => Self::Least(LeastTable::build(
                latency(algorithm),
                settings.choices,
                candidates,
            )),
            Algorithm::LeastTime(settings) => Self::Least(LeastTable::build(
                latency(algorithm),
                settings.choices,
                candidates,
            )),
            Algorithm::RingHash(settings) => Self::Ring(Ring::build(settings, candidates)),
            Algorithm::Maglev(settings) => Self::Maglev(Maglev::build(settings, candidates)),
            Algorithm::Rendezvous => Self::Rendezvous(Rendezvous::build(candidates)),
            Algorithm::BoundedLoad(settings) => Self::Bounded(Bounded::build(settings, candidates)),
            Algorithm::Sticky(settings) => Self::Sticky(Sticky::build(settings, candidates)),
            Algorithm::FirstAvailable => Self::First(First::build(candidates)),
            Algorithm::Subset(settings) => Self::Part(Part::subset(settings, candidates)),
            Algorithm::Aperture(settings) => Self::Part(Part::aperture(settings, candidates)),
            Algorithm::C3(settings) => Self::C3(C3::build(settings, candidates)),
            Algorithm::Prequal(settings) => {
                Self::Prequal(Prequal::build(settings, candidates, turns))
            }
            Algorithm::Reported(settings) => {
                Self::Reported(Reported::build(settings, candidates, turns))
            }
        }
    }

    /// Chooses a target; it may turn out to be saturated.
    #[inline]
    pub(crate) fn choose<L: Loads + ?Sized>(
        &self,
        loads: &L,
        ask: &Ask,
        memory: &Memory,
    ) -> Option<usize> {
        match self {
            Self::Turns(table) => table.choose(),
            Self::Random(table) => table.choose(memory),
            Self::Least(table) => table.choose(loads, ask, memory),
            Self::Ring(table) => table.choose(ask, memory),
            Self::Maglev(table) => table.choose(ask, memory),
            Self::Rendezvous(table) => table.choose(ask, memory),
            Self::Bounded(table) => table.choose(loads, ask, memory),
            Self::Sticky(table) => table.choose(loads, ask, memory),
            Self::First(table) => table.choose(),
            Self::Part(table) => table.choose(loads, memory),
            Self::C3(table) => table.choose(loads, ask, memory),
            Self::Prequal(table) => table.choose(loads, ask, memory),
            Self::Reported(table) => table.choose(loads, ask),
        }
    }

    /// Chooses among the targets admitted, when the first choice was not one of them.
    #[cold]
    pub(crate) fn next<L: Loads + ?Sized>(
        &self,
        loads: &L,
        ask: &Ask,
        memory: &Memory,
        admit: &dyn Fn(usize) -> bool,
    ) -> Option<usize> {
        match self {
            Self::Turns(table) => table.next(loads, memory, admit),
            Self::Random(table) => table.next(loads, memory, admit),
            Self::Least(table) => table.next(loads, ask, memory, admit),
            Self::Ring(table) => table.next(ask, memory, admit),
            Self::Maglev(table) => table.next(ask, memory, admit),
            Self::Rendezvous(table) => table.next(ask, memory, admit),
            Self::Bounded(table) => table.next(loads, ask, memory, admit),
            Self::Sticky(table) => table.next(loads, ask, memory, admit),
            Self::First(table) => table.next(admit),
            Self::Part(table) => table.next(loads, memory, admit),
            Self::C3(table) => table.next(loads, ask, memory, admit),
            Self::Prequal(table) => table.next(loads, ask, memory, admit),
            Self::Reported(table) => table.next(loads, memory, admit),
        }
    }
}

/// The same targets as if each had been registered with the same weight.
fn by_share(candidates: &[Candidate]) -> Vec<Candidate> {
    let alike = |one: &Candidate| Candidate {
        weight: one.share,
        ..*one
    };
    candidates.iter().map(alike).collect()
}

/// The target with least in hand among those admitted, beginning at a random one.
pub(crate) fn least_loaded<L: Loads + ?Sized>(
    loads: &L,
    memory: &Memory,
    admit: &dyn Fn(usize) -> bool,
) -> Option<usize> {
    let targets = loads.len();
    let start = memory.below(targets);
    (start..targets)
        .chain(0..start)
        .filter(|&index| admit(index))
        .min_by_key(|&index| loads.load(index).outstanding())
}

#[cfg(all(test, not(loom)))]
pub(crate) mod tests {
    use super::load::Load;
    use super::*;

    /// Candidates with these weights, numbered from zero.
    pub(crate) fn candidates(weights: &[u32]) -> Vec<Candidate> {
        weights
            .iter()
            .zip(0..)
            .map(|(&weight, slot)| Candidate {
                slot,
                birth: 0,
                rank: u64::from(slot),
                weight,
                share: 100,
                hash: memory::mix(u64::from(slot) + 1),
                zone: u32::MAX,
            })
            .collect()
    }

    /// So many idle targets without a limit.
    pub(crate) fn loads(targets: usize) -> Vec<Load> {
        (0..targets).map(|_| Load::new(MOST_OUTSTANDING)).collect()
    }

    /// A request without a key.
    pub(crate) fn ask(now: Instant) -> Ask {
        Ask { key: None, now }
    }

    #[test]
    fn settings_out_of_range_are_refused() {
        for samples in [0, 1, MOST_SAMPLES + 1] {
            let algorithm = Algorithm::LeastOutstanding(LeastOutstanding {
                choices: Choices::Sample(samples),
            });
            assert!(matches!(
                algorithm.check(),
                Err(ConfigError::Samples { samples: s }) if s == samples
            ));
        }
        let algorithm = Algorithm::PeakEwma(PeakEwma {
            decay: Duration::ZERO,
            ..Default::default()
        });
        assert!(matches!(algorithm.check(), Err(ConfigError::Decay)));
        assert!(Algorithm::default().check().is_ok());
    }
}
