//! The group `tables`: how long it takes to build a table by key, as happens whenever a target comes, goes or changes.
//!
//! A message of these patterns is one table. Each peer builds from the same names; every table is then asked for keys,
//! and all targets must have some.

use std::hint::black_box;

#[cfg(feature = "maglev")]
use ::maglev::ConsistentHasher as _;
use sim_balancer::algorithm::{MAGLEV_TABLE, Maglev, MaglevConfig, Ring, RingConfig};
use sim_balancer::key_of;

use crate::groups::Scale;
use crate::pattern::{Failure, Outcome, Pattern, Peer};
use crate::timing::Stopwatch;

/// The rival of Maglev tables, if it takes part.
#[cfg(feature = "maglev")]
pub const MAGLEV: &str = "maglev";
#[cfg(not(feature = "maglev"))]
use self::OWN as MAGLEV;

/// The own Maglev table.
pub const OWN: &str = "sim-maglev";

/// The rival of rings.
pub const HASHRING: &str = "hashring";

/// The pattern that has an aim in time.
pub const AIMED: &str = "maglev-65537-build-1000";

/// What the rivals lack.
pub const NOTES: &[(&str, &str)] = &[
    (
        "maglev",
        "no weights; behind the feature `maglev`, since it needs many crates to build",
    ),
    (
        HASHRING,
        "no weights; given 160 points a target, as the own ring has, by as many names",
    ),
];

/// The patterns: a table of Maglev's size for 10, 100 and 1,000 targets, and rings.
#[must_use]
pub fn patterns(scale: Scale) -> Vec<Pattern> {
    let targets: &[usize] = match scale {
        Scale::Full => &[10, 100, 1_000],
        Scale::Quick => &[10, 100],
    };
    let count = |full: u64| match scale {
        Scale::Full => full,
        Scale::Quick => 2,
    };
    let maglev = targets.iter().map(|&targets| Pattern {
        name: format!("maglev-{MAGLEV_TABLE}-build-{targets}"),
        baseline: MAGLEV,
        count: count(20),
        peers: {
            let mut peers = vec![peer(OWN, targets, |names| {
                let table = Maglev::of(&MaglevConfig::default(), &hashed(&names));
                Box::new(move |key| table.get(key))
            })];
            peers.extend(rival(targets));
            peers
        },
    });
    let rings = targets.iter().map(|&targets| Pattern {
        name: format!("ring-160-build-{targets}"),
        baseline: HASHRING,
        count: count(20),
        peers: vec![
            peer(HASHRING, targets, |names| {
                let mut ring = ::hashring::HashRing::new();
                let points = (0..names.len() as u32)
                    .flat_map(|index| (0..160_u32).map(move |point| (index, point)));
                ring.batch_add(points.collect());
                Box::new(move |key: u64| ring.get(&key).map(|(index, _)| *index as usize))
            }),
            peer("sim-ring", targets, |names| {
                let ring = Ring::of(&RingConfig::default(), &hashed(&names));
                Box::new(move |key| ring.get(key))
            }),
        ],
    });
    maglev.chain(rings).collect()
}

/// The rival of Maglev tables.
#[cfg(feature = "maglev")]
fn rival(targets: usize) -> Option<Peer> {
    Some(peer(MAGLEV, targets, |names| {
        let table = ::maglev::Maglev::with_capacity(names, MAGLEV_TABLE as usize);
        Box::new(move |key: u64| {
            // Names end in their number.
            let name = table.get(&key);
            name.and_then(|name| name.rsplit('-').next()?.parse().ok())
        })
    }))
}

/// The rival is behind the feature `maglev`.
#[cfg(not(feature = "maglev"))]
fn rival(_: usize) -> Option<Peer> {
    None
}

/// Finds a key's target in a table.
type Find = Box<dyn Fn(u64) -> Option<usize>>;

fn hashed(names: &[String]) -> Vec<(u64, u32)> {
    names
        .iter()
        .map(|name| (key_of(name.as_bytes()), 1))
        .collect()
}

fn peer(name: &str, targets: usize, build: fn(Vec<String>) -> Find) -> Peer {
    Peer::new(name, move |count| run(targets, count, build))
}

/// Builds so many tables, and looks into the last one.
fn run(targets: usize, count: u64, build: fn(Vec<String>) -> Find) -> Outcome {
    let names: Vec<String> = (0..targets)
        .map(|number| format!("target-{number}"))
        .collect();
    let mut time = std::time::Duration::ZERO;
    let mut last = None;
    for _ in 0..count {
        let names = names.clone();
        let watch = Stopwatch::start();
        let table = black_box(build(names));
        time += watch.elapsed();
        last = Some(table);
    }
    let Some(find) = last else {
        return Err(Failure("no table was built".to_owned()));
    };
    let mut seen = vec![false; targets];
    for key in 0..100 * targets as u64 {
        if let Some(index) = find(key) {
            seen[index] = true;
        }
    }
    match seen.iter().position(|seen| !seen) {
        Some(missing) => Err(Failure(format!("target {missing} has no key"))),
        None => Ok(time),
    }
}
