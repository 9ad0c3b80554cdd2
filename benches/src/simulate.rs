//! The group `simulate`: balancers in virtual time, seeded, against the known order of algorithms.
//!
//! Nothing here is measured: the same commit prints the same figures on every machine. What is simulated is the real
//! thing, `sim_balancer::Balancer` with its leases, on a virtual clock.
//!
//! # The model of `one` and `hundred`
//!
//! After the testbed of Wydrowski, Kleinberg, Rumble and Archer ("Load is not what you should balance: introducing
//! Prequal", NSDI 2024):
//!
//! - *Servers*: 100, each with an allocation of four cores on a machine that it shares with others. The cores of a machine
//!   do 0.8, 0.9, 1.0, 1.1 or 1.2 of the work of the average one, by turns.
//! - *Antagonists*: what the others on its machine leave a server is drawn anew every 10 s, each server at a time of its own,
//!   evenly spread: with a probability of 15 % its allocation and no more (it is *hobbled*), else 1.5 to 3 times its
//!   allocation, evenly distributed. A change acts at once on what is in flight.
//! - *Work*: a request runs on one core; where there are more requests than cores, all share them evenly (processor
//!   sharing). What it needs is normally distributed with a deviation as large as the mean, drawn again when negative; the mean of what
//!   comes of that is 86.3 ms of an average core.
//! - *Timeout*: after 5 s a request is given up: the server drops it, it counts as an error and as 5 s, and the balancer is
//!   told of a failure.
//! - *Load* is relative to the allocations: at 1.74 requests bring 1.74 times the work that all servers can do with
//!   their allocations alone, which is 84 % of what they have on average with what others leave over. Who gives all
//!   the same overloads the hobbled ones from 1.0 on, and from 1.5 on others as well.
//! - *Requests* come as a Poisson process, to `one` balancer, or each to one of a `hundred` at random, which know nothing
//!   of each other. Those of the first 10 s are not counted; those in flight at the end are played to their end.
//! - *Feedback*, where it is used: with each response the server tells how many requests it has in flight, and what latency one
//!   that comes now will have: the average of the last twenty or so, times the requests in flight now by those that were
//!   when they came. For Prequal three servers more are asked after each pick, and answer at once.
//!
//! # The others
//!
//! `slow` is ten servers that take requests in order, of 5 ms each on average, exponentially distributed; one of them is
//! ten times slower; the load is 0.6 of what all ten can do together. `ten-slow` is the same with ten balancers. `supermarket` is
//! Mitzenmacher's model: 500 servers, exponential work, the less loaded of two, whose mean time is known for infinitely
//! many servers.

mod checks;
mod draw;
mod engine;
mod server;
mod write;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sim_balancer::{Algorithm, C3Config, Choices, LeastOutstanding, PeakEwma, PrequalConfig};

pub use self::checks::checks;
pub use self::draw::{plot, svg};
pub use self::engine::{Antagonists, Contender, Demand, Machine, Outturn, Scene, play};
pub use self::server::Discipline;
pub use self::write::{lines, tables, write};
use crate::groups::Scale;
use crate::pattern::Failure;

/// The group's name.
pub const NAME: &str = "simulate";

/// The seed of all scenes.
pub const SEED: u64 = 2_024;

/// Scenes of one kind, which differ in their load.
#[derive(Clone, Debug)]
pub struct Suite {
    /// The name.
    pub name: &'static str,
    /// What it is, for people.
    pub title: String,
    /// The loads, each with its scene.
    pub scenes: Vec<(f64, Scene)>,
    /// Who takes part.
    pub contenders: Vec<Contender>,
}

/// What one contender made of one scene.
#[derive(Clone, Debug)]
pub struct Played {
    /// The suite's name.
    pub suite: &'static str,
    /// The load.
    pub load: f64,
    /// The contender's name.
    pub contender: &'static str,
    /// What came out.
    pub outturn: Outturn,
}

/// Round robin.
pub const ROUND_ROBIN: &str = "round-robin";
/// A random server.
pub const RANDOM: &str = "random";
/// The less loaded of two.
pub const P2C: &str = "p2c";
/// The least loaded of all.
pub const LEAST: &str = "least-outstanding";
/// Peak EWMA of two.
pub const EWMA_2: &str = "peak-ewma-2";
/// Peak EWMA of eight: the default above 32 targets.
pub const EWMA_8: &str = "peak-ewma-8";
/// Peak EWMA of all: latency x (outstanding + 1), least of all servers.
pub const EWMA_ALL: &str = "peak-ewma-scan";
/// C3 with feedback.
pub const C3: &str = "c3";
/// Prequal's rule with feedback and probes.
pub const PREQUAL: &str = "prequal";

fn contender(name: &'static str) -> Contender {
    let least = |choices| Algorithm::LeastOutstanding(LeastOutstanding { choices });
    let ewma = |choices| {
        Algorithm::PeakEwma(PeakEwma {
            choices,
            ..PeakEwma::default()
        })
    };
    let algorithm = match name {
        ROUND_ROBIN => Algorithm::RoundRobin,
        P2C => least(Choices::Sample(2)),
        LEAST => least(Choices::All),
        EWMA_2 => ewma(Choices::Sample(2)),
        EWMA_8 => ewma(Choices::Sample(8)),
        EWMA_ALL => ewma(Choices::All),
        C3 => Algorithm::C3(C3Config::default()),
        PREQUAL => Algorithm::Prequal(PrequalConfig::default()),
        _ => Algorithm::Random,
    };
    Contender {
        name,
        algorithm,
        feedback: matches!(name, C3 | PREQUAL),
        probes: if name == PREQUAL { 3 } else { 0 },
    }
}

/// All contenders where many balancers share the servers.
fn among(balancers: u32) -> Vec<Contender> {
    const ALL: [&str; 9] = [
        ROUND_ROBIN,
        RANDOM,
        P2C,
        LEAST,
        EWMA_2,
        EWMA_8,
        EWMA_ALL,
        C3,
        PREQUAL,
    ];
    let tuned = |name| {
        let mut contender = contender(name);
        if let Algorithm::C3(settings) = &mut contender.algorithm {
            settings.clients = balancers;
        }
        contender
    };
    ALL.into_iter().map(tuned).collect()
}

/// Cores of a server's allocation.
const ALLOCATION: f64 = 4.0;

/// The mean of a request's work before negative ones are drawn again, in seconds.
const WORK: f64 = 0.067;

/// Servers with antagonists, at a load.
fn crowded(servers: u32, balancers: u32, load: f64, lasts: u64) -> Scene {
    let machines = (0..servers).map(|number| Machine {
        cores: ALLOCATION,
        speed: 0.8 + 0.1 * f64::from(number % 5),
    });
    let servers: Vec<Machine> = machines.collect();
    let allocated: f64 = servers.iter().map(|one| one.cores * one.speed).sum();
    let work = Demand::Normal(WORK);
    Scene {
        seed: SEED,
        discipline: Discipline::Shared,
        antagonists: Some(Antagonists {
            period: Duration::from_secs(10),
            hobbled: 0.15,
            spare: (1.5, 3.0),
        }),
        rate: load * allocated / work.mean(),
        work,
        timeout: Some(Duration::from_secs(5)),
        balancers,
        lasts: Duration::from_secs(lasts),
        settles: Duration::from_secs(10),
        servers,
    }
}

/// Ten servers, one of them ten times slower.
fn slow(balancers: u32, lasts: u64) -> Scene {
    let speed = |number| if number == 0 { 0.1 } else { 1.0 };
    let machine = |number| Machine {
        cores: 1.0,
        speed: speed(number),
    };
    let work = Demand::Exponential(0.005);
    let capacity: f64 = (0..10).map(speed).sum();
    Scene {
        seed: SEED,
        servers: (0..10).map(machine).collect(),
        discipline: Discipline::InOrder,
        antagonists: None,
        rate: 0.6 * capacity / work.mean(),
        work,
        timeout: None,
        balancers,
        lasts: Duration::from_secs(lasts),
        settles: Duration::from_secs(5),
    }
}

/// Mitzenmacher's supermarket.
fn supermarket(servers: usize, load: f64, lasts: u64) -> Scene {
    Scene {
        seed: SEED,
        servers: vec![
            Machine {
                cores: 1.0,
                speed: 1.0,
            };
            servers
        ],
        discipline: Discipline::InOrder,
        antagonists: None,
        rate: load * servers as f64,
        work: Demand::Exponential(1.0),
        timeout: None,
        balancers: 1,
        lasts: Duration::from_secs(lasts),
        settles: Duration::from_secs(lasts / 10),
    }
}

/// The name of the suites.
pub const ONE: &str = "one";
/// Many balancers.
pub const HUNDRED: &str = "hundred";
/// One server is slow.
pub const SLOW: &str = "slow";
/// The same with ten balancers.
pub const TEN_SLOW: &str = "ten-slow";
/// The power of two.
pub const SUPERMARKET: &str = "supermarket";

/// The suites of a scale.
#[must_use]
pub fn suites(scale: Scale) -> Vec<Suite> {
    let (servers, seconds, loads): (u32, u64, &[f64]) = match scale {
        Scale::Full => (100, 70, &[0.70, 0.75, 1.27, 1.74]),
        Scale::Quick => (50, 25, &[0.75, 1.74]),
    };
    let crowds = |balancers| {
        let scene = |&load: &f64| (load, crowded(servers, balancers, load, seconds));
        loads.iter().map(scene).collect::<Vec<_>>()
    };
    let (slow_seconds, market_servers, market_seconds) = match scale {
        Scale::Full => (300, 500, 4_000),
        Scale::Quick => (60, 500, 400),
    };
    let lambdas: &[f64] = match scale {
        Scale::Full => &[0.7, 0.9, 0.95],
        Scale::Quick => &[0.7],
    };
    let slow_suite = |name, balancers: u32| Suite {
        name,
        title: format!("ten servers, one ten times slower, load 0.6, balancers: {balancers}"),
        scenes: vec![(0.6, slow(balancers, slow_seconds))],
        contenders: among(balancers),
    };
    vec![
        Suite {
            name: ONE,
            title: format!("{servers} servers with antagonists, one balancer"),
            scenes: crowds(1),
            contenders: among(1),
        },
        Suite {
            name: HUNDRED,
            title: format!("{servers} servers with antagonists, {servers} independent balancers"),
            scenes: crowds(servers),
            contenders: among(servers),
        },
        slow_suite(SLOW, 1),
        slow_suite(TEN_SLOW, 10),
        Suite {
            name: SUPERMARKET,
            title: format!("{market_servers} equal servers, the less loaded of two"),
            scenes: lambdas
                .iter()
                .map(|&load| (load, supermarket(market_servers, load, market_seconds)))
                .collect(),
            contenders: vec![contender(P2C)],
        },
    ]
}

/// Plays all scenes of the suites, as many at once as there are processors; results in the order of the suites.
///
/// # Errors
/// When a balancer refuses something: the first failure.
pub fn run(suites: &[Suite]) -> Result<Vec<Played>, Failure> {
    let mut jobs = Vec::new();
    for suite in suites {
        for (load, scene) in &suite.scenes {
            for contender in &suite.contenders {
                jobs.push((suite.name, *load, scene, contender));
            }
        }
    }
    let next = AtomicUsize::new(0);
    let results = Mutex::new(vec![None; jobs.len()]);
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(&(suite, load, scene, contender)) = jobs.get(number) else {
                return;
            };
            let result = play(scene, contender).map(|outturn| Played {
                suite,
                load,
                contender: contender.name,
                outturn,
            });
            if let Ok(mut results) = results.lock() {
                results[number] = Some(result);
            }
        }
    };
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let results = results
        .into_inner()
        .map_err(|_| Failure("a scene panicked".to_owned()))?;
    let missing = || Err(Failure("a scene was not played".to_owned()));
    results
        .into_iter()
        .map(|result| result.unwrap_or_else(missing))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(suites: &[Suite], name: &str, load: f64, contenders: &[&str]) -> Vec<Played> {
        let suite = suites
            .iter()
            .find(|suite| suite.name == name)
            .expect("it is there");
        let chosen = Suite {
            scenes: suite
                .scenes
                .iter()
                .filter(|(one, _)| *one == load)
                .cloned()
                .collect(),
            contenders: suite
                .contenders
                .iter()
                .filter(|one| contenders.contains(&one.name))
                .cloned()
                .collect(),
            ..suite.clone()
        };
        run(&[chosen]).expect("all play")
    }

    fn assert_met(results: &[Played], least: usize) {
        let bars = checks(results);
        assert!(bars.len() >= least, "{bars:?}");
        for bar in bars {
            assert!(bar.met, "{}: {}", bar.aim, bar.measured);
        }
    }

    #[test]
    fn with_one_balancer_the_scan_is_best_and_round_robin_worst() {
        let all = suites(Scale::Quick);
        let names = [ROUND_ROBIN, P2C, LEAST, EWMA_2, EWMA_ALL];
        assert_met(&named(&all, ONE, 1.74, &names), 3);
    }

    #[test]
    fn with_many_balancers_the_servers_own_word_is_best() {
        let all = suites(Scale::Quick);
        let names = [ROUND_ROBIN, LEAST, EWMA_2, EWMA_ALL, C3, PREQUAL];
        assert_met(&named(&all, HUNDRED, 1.74, &names), 2);
    }

    #[test]
    fn a_slow_server_is_avoided_by_its_latency() {
        let all = suites(Scale::Quick);
        let names = [ROUND_ROBIN, P2C, EWMA_2, EWMA_ALL];
        assert_met(&named(&all, SLOW, 0.6, &names), 2);
    }

    #[test]
    fn two_choices_take_the_time_that_theory_says() {
        let all = suites(Scale::Quick);
        assert_met(&named(&all, SUPERMARKET, 0.7, &[P2C]), 1);
    }

    #[test]
    fn the_same_seed_gives_the_same_outcome_and_another_one_another() {
        let suite = &suites(Scale::Quick)[0];
        let mut scene = suite.scenes[0].1.clone();
        scene.lasts = Duration::from_secs(13);
        let contender = &suite.contenders[6];
        let play = |scene: &Scene| play(scene, contender).expect("it plays").mean;
        let first = play(&scene);
        assert_eq!(first.to_bits(), play(&scene).to_bits());
        scene.seed += 1;
        assert_ne!(first.to_bits(), play(&scene).to_bits());
    }
}
