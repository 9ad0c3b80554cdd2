//! The group `filter`: many filter policies on one topic, and events that each satisfy a few of them.
//!
//! Every peer holds the same policies, and finds for each event of a round trip through the events the ids of those
//! that match. What a peer finds is compared with what the others find: the number of matches and their sum.

use std::cell::OnceCell;
use std::fmt::Write as _;
use std::hint::black_box;
use std::rc::Rc;

use quamina::{MatcherBuildMode, Quamina, QuaminaBuilder};
use sim_core::random::Random;
use sim_topic::filter::{FilterIndex, FilterPolicy, Scope, Scratch};

use crate::groups::Scale;
use crate::pattern::{Failure, Outcome, Pattern, Peer};
use crate::timing::Stopwatch;

/// The index's name.
const OWN: &str = "sim-topic";

/// The rival's name: its default mode.
pub const QUAMINA: &str = "quamina";

/// The rival in the mode that makes automata of its wildcards when they are frozen, which its manual advises for speed.
pub const QUAMINA_SPEED: &str = "quamina-speed";

/// The most states' bytes that the rival may use: its default of 10 MB does not hold ten thousand policies.
const BUDGET: usize = 4 << 30;

/// Different events of a run; a run goes through them again and again.
const EVENTS: u64 = 512;

/// The patterns, one for each set of policies.
#[must_use]
pub fn patterns(scale: Scale) -> Vec<Pattern> {
    let policies = match scale {
        Scale::Full => 10_000,
        Scale::Quick => 500,
    };
    SETS.iter()
        .map(|set| pattern(*set, policies, scale))
        .collect()
}

fn pattern(set: Set, policies: u64, scale: Scale) -> Pattern {
    let policies = policies.min(set.most);
    let bench = Rc::new(Bench {
        set,
        policies,
        events: OnceCell::new(),
        expected: OnceCell::new(),
    });
    let mut peers = vec![peer(OWN, &bench, open_index)];
    if set.rivals != Rivals::None {
        peers.push(peer(QUAMINA, &bench, |bench| {
            open_quamina(bench, MatcherBuildMode::BuiltForComfort)
        }));
    }
    if set.rivals == Rivals::Both {
        peers.push(peer(QUAMINA_SPEED, &bench, |bench| {
            open_quamina(bench, MatcherBuildMode::BuiltForSpeed)
        }));
    }
    Pattern {
        name: format!("{policies}-{}", set.name),
        baseline: if set.rivals == Rivals::None {
            OWN
        } else {
            QUAMINA
        },
        count: match scale {
            Scale::Full => set.count,
            Scale::Quick => 1_000,
        },
        peers,
    }
}

/// Which rivals take part in a pattern.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rivals {
    /// None: the rival panics on so many policies of this kind, or takes tens of milliseconds an event.
    None,
    /// Its default mode.
    Default,
    /// Both its modes, since there are wildcards.
    Both,
}

/// A set of policies.
#[derive(Clone, Copy)]
struct Set {
    name: &'static str,
    /// Events a run.
    count: u64,
    /// The most policies.
    most: u64,
    /// Which rivals take part.
    rivals: Rivals,
    policy: fn(u64, &mut Random) -> String,
}

const fn set(name: &'static str, policy: fn(u64, &mut Random) -> String) -> Set {
    Set {
        name,
        count: 100_000,
        most: u64::MAX,
        rivals: Rivals::Default,
        policy,
    }
}

const SETS: &[Set] = &[
    // One value is rare, the other is not.
    set("exact-2", |number, random| {
        format!(
            r#"{{"type":["{}"],"customer":{{"id":["C-{number:05}"]}}}}"#,
            pick(TYPES, random)
        )
    }),
    // Each value is common, all three together are rare.
    Set {
        most: 500,
        ..set("exact-3", exact_3)
    },
    Set {
        rivals: Rivals::None,
        ..set("exact-3", exact_3)
    },
    set("prefix", |number, _| {
        format!(
            r#"{{"shipping":{{"path":[{{"prefix":"/eu/{:02}/{:04}"}}]}}}}"#,
            number % 20,
            number / 2 % 10_000
        )
    }),
    set("suffix", |number, _| {
        format!(r#"{{"shipping":{{"path":[{{"suffix":"{number:04}/label.pdf"}}]}}}}"#)
    }),
    set("numeric-range", |number, _| {
        let low = number as f64 / 10.0;
        format!(
            r#"{{"order":{{"total":[{{"numeric":[">=",{low},"<",{}]}}]}}}}"#,
            low + 0.5
        )
    }),
    Set {
        most: 200,
        ..set("numeric-and-exact", numeric_and_exact)
    },
    Set {
        rivals: Rivals::None,
        ..set("numeric-and-exact", numeric_and_exact)
    },
    set("anything-but-and-exact", |number, random| {
        format!(
            r#"{{"customer":{{"id":["C-{number:05}"],"tier":[{{"anything-but":["{}","{}"]}}]}}}}"#,
            pick(TIERS, random),
            pick(TIERS, random)
        )
    }),
    Set {
        most: 100,
        count: 50_000,
        ..set("anything-but", anything_but)
    },
    Set {
        count: 5_000,
        rivals: Rivals::None,
        ..set("anything-but", anything_but)
    },
    set("equals-ignore-case", |number, _| {
        format!(r#"{{"customer":{{"id":[{{"equals-ignore-case":"c-{number:05}"}}]}}}}"#)
    }),
    set("exists-and-exact", |number, random| {
        format!(
            r#"{{"customer":{{"id":["C-{number:05}"]}},"order":{{"coupon":[{{"exists":{}}}]}}}}"#,
            random.chance(0.5)
        )
    }),
    Set {
        most: 200,
        count: 2_000,
        rivals: Rivals::Both,
        ..set("wildcard", |number, _| wildcard(number * 50))
    },
    Set {
        rivals: Rivals::None,
        ..set("wildcard", |number, _| wildcard(number))
    },
    Set {
        count: 5_000,
        rivals: Rivals::Both,
        ..set("mixed", mixed)
    },
];

fn exact_3(number: u64, _: &mut Random) -> String {
    format!(
        r#"{{"region":["{}"],"shipping":{{"carrier":["{}"]}},"store":[{}]}}"#,
        REGIONS[number as usize % REGIONS.len()],
        carrier(number / 10 % 50),
        number / 500,
    )
}

fn numeric_and_exact(number: u64, random: &mut Random) -> String {
    format!(
        r#"{{"shipping":{{"carrier":["{}"]}},"order":{{"total":[{{"numeric":[">",{}]}}]}}}}"#,
        carrier(number % 5_000),
        random.below(1_000)
    )
}

/// Nearly all of them match each event.
fn anything_but(number: u64, _: &mut Random) -> String {
    format!(
        r#"{{"customer":{{"id":[{{"anything-but":["C-{number:05}","C-{:05}"]}}]}}}}"#,
        (number + 1) % 10_000
    )
}

fn wildcard(number: u64) -> String {
    format!(r#"{{"shipping":{{"path":[{{"wildcard":"/eu/*/{number:04}/*.pdf"}}]}}}}"#)
}

/// One rule of any kind, beside one that is exact or not.
fn mixed(number: u64, random: &mut Random) -> String {
    let rule = match number % 8 {
        0 => format!(
            r#""shipping":{{"path":[{{"prefix":"/eu/{:02}/{number:04}"}}]}}"#,
            number % 20
        ),
        1 => format!(r#""shipping":{{"path":[{{"suffix":"{number:04}/label.pdf"}}]}}"#),
        2 => {
            let low = random.below(1_000);
            format!(
                r#""order":{{"total":[{{"numeric":[">=",{low},"<",{}]}}]}}"#,
                low + 5
            )
        }
        3 => format!(
            r#""customer":{{"id":["C-{number:05}","C-{:05}"]}}"#,
            random.below(10_000)
        ),
        4 => format!(
            r#""customer":{{"id":["C-{number:05}"],"tier":[{{"anything-but":["{}"]}}]}}"#,
            pick(TIERS, random)
        ),
        5 => format!(r#""customer":{{"id":[{{"equals-ignore-case":"c-{number:05}"}}]}}"#),
        6 if number % 80 == 6 => {
            format!(r#""shipping":{{"path":[{{"wildcard":"/eu/*/{number:04}/*.pdf"}}]}}"#)
        }
        _ => format!(
            r#""store":[{}],"shipping":{{"carrier":["{}"]}},"order":{{"coupon":[{{"exists":false}}]}}"#,
            random.below(20),
            carrier(random.below(50))
        ),
    };
    if number.is_multiple_of(3) {
        format!(
            r#"{{"type":["{}","{}"],{rule}}}"#,
            pick(TYPES, random),
            pick(TYPES, random)
        )
    } else {
        format!("{{{rule}}}")
    }
}

const TYPES: &[&str] = &[
    "OrderPlaced",
    "OrderPaid",
    "OrderShipped",
    "OrderReturned",
    "OrderCancelled",
];
const REGIONS: &[&str] = &[
    "eu-west-1",
    "eu-west-2",
    "eu-central-1",
    "eu-north-1",
    "us-east-1",
    "us-east-2",
    "us-west-1",
    "us-west-2",
    "ap-south-1",
    "sa-east-1",
];
const TIERS: &[&str] = &["bronze", "silver", "gold", "platinum"];

fn pick(from: &[&'static str], random: &mut Random) -> &'static str {
    from[random.below(from.len() as u64) as usize]
}

fn carrier(number: u64) -> String {
    format!("carrier-{number}")
}

/// An event of 25 leaves and about 900 bytes; what policies look at is spread over it.
fn event(random: &mut Random) -> String {
    let mut items = String::new();
    for item in 0..=random.below(3) {
        let comma = if item == 0 { "" } else { "," };
        let _ = write!(
            items,
            r#"{comma}{{"sku":"SKU-{:06}","quantity":{},"price":{:.2}}}"#,
            random.below(1_000_000),
            1 + random.below(5),
            random.below(10_000) as f64 / 100.0
        );
    }
    let coupon = if random.chance(0.5) {
        format!(r#","coupon":"SAVE-{}""#, random.below(100))
    } else {
        String::new()
    };
    format!(
        r#"{{"id":"{:016x}{:016x}","version":"2.1","source":"orders.web","account":"{:012}","time":"2026-11-{:02}T10:15:{:02}.123Z","region":"{}","type":"{}","customer":{{"id":"C-{:05}","tier":"{}","country":"DE","age":{},"newsletter":{}}},"order":{{"number":{},"total":{:.2},"currency":"EUR","items":[{items}]{coupon}}},"shipping":{{"carrier":"{}","method":"express","path":"/eu/{:02}/{:04}/label.pdf","eta_minutes":{},"address":{{"street":"Invalidenstra\u00dfe {}","city":"Berlin","zip":"10115"}},"ip":"10.{}.{}.{}"}},"note":"please ring twice, the bell is \"quiet\"","tags":["web","returning","priority-{}"],"trace":"1-{:08x}-{:016x}{:08x}","store":{}}}"#,
        random.next_u64(),
        random.next_u64(),
        random.below(1_000_000_000_000),
        1 + random.below(28),
        random.below(60),
        pick(REGIONS, random),
        pick(TYPES, random),
        random.below(10_000),
        pick(TIERS, random),
        18 + random.below(60),
        random.chance(0.5),
        random.below(10_000_000),
        random.below(100_000) as f64 / 100.0,
        carrier(random.below(50)),
        random.below(20),
        random.below(10_000),
        random.below(10_000),
        random.below(200),
        random.below(256),
        random.below(256),
        random.below(256),
        random.below(5),
        random.next_u64() as u32,
        random.next_u64(),
        random.next_u64() as u32,
        random.below(20),
    )
}

/// What the peers of one pattern share.
struct Bench {
    set: Set,
    policies: u64,
    events: OnceCell<Vec<String>>,
    /// Matches and the sum of their ids, for each event: what the first peer found.
    expected: OnceCell<Vec<(u64, u64)>>,
}

impl Bench {
    fn events(&self) -> &[String] {
        self.events.get_or_init(|| {
            let mut random = Random::new(7);
            (0..EVENTS).map(|_| event(&mut random)).collect()
        })
    }

    fn policies(&self) -> impl Iterator<Item = String> {
        let mut random = Random::new(11);
        let policy = self.set.policy;
        (0..self.policies).map(move |number| policy(number, &mut random))
    }
}

/// Finds the ids that an event matches: their number and their sum.
type Find = Box<dyn Fn(&[u8]) -> (u64, u64)>;

/// A peer that is opened when it first runs and stays open: what is measured is matching.
fn peer(name: &str, bench: &Rc<Bench>, open: fn(&Bench) -> Result<Find, Failure>) -> Peer {
    let bench = Rc::clone(bench);
    let opened = OnceCell::new();
    Peer::new(name, move |count| {
        let opened = opened.get_or_init(|| {
            let find = open(&bench)?;
            verify(&bench, &find)?;
            Ok(find)
        });
        run(&bench, opened.as_ref().map_err(Failure::clone)?, count)
    })
}

/// Compares what a peer finds with what the first one found, event by event.
fn verify(bench: &Bench, find: &Find) -> Result<(), Failure> {
    let events = bench.events();
    let found: Vec<_> = events.iter().map(|event| find(event.as_bytes())).collect();
    let expected = bench.expected.get_or_init(|| found.clone());
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        if found != expected {
            return Err(Failure(format!(
                "{} policies with sum {} match, not {} with sum {}: {}",
                found.0, found.1, expected.0, expected.1, events[at]
            )));
        }
    }
    Ok(())
}

fn run(bench: &Bench, find: &Find, count: u64) -> Outcome {
    let events = bench.events();
    let watch = Stopwatch::start();
    let mut total = (0, 0_u64);
    for event in events.iter().cycle().take(count as usize) {
        let found = find(black_box(event.as_bytes()));
        total = (total.0 + found.0, total.1.wrapping_add(found.1));
    }
    let elapsed = watch.elapsed();
    let wanted = bench
        .expected
        .get()
        .map_or(&[][..], Vec::as_slice)
        .iter()
        .cycle()
        .take(count as usize)
        .fold((0, 0_u64), |sum, one| {
            (sum.0 + one.0, sum.1.wrapping_add(one.1))
        });
    if total == wanted {
        Ok(elapsed)
    } else {
        Err(Failure(format!("{total:?} found, not {wanted:?}")))
    }
}

fn open_index(bench: &Bench) -> Result<Find, Failure> {
    let mut index = FilterIndex::new(Scope::MessageBody);
    for (id, policy) in bench.policies().enumerate() {
        let fault = |error| Failure(format!("{policy}: {error}"));
        let compiled = FilterPolicy::parse(&policy, Scope::MessageBody).map_err(fault)?;
        index.insert(id as u32, compiled).map_err(fault)?;
    }
    let scratch = std::cell::RefCell::new(Scratch::new());
    Ok(Box::new(move |event| {
        let mut scratch = scratch.borrow_mut();
        let matches = index.match_body(event, &mut scratch);
        let ids = matches.ids();
        (ids.len() as u64, ids.iter().map(|&id| u64::from(id)).sum())
    }))
}

fn open_quamina(bench: &Bench, mode: MatcherBuildMode) -> Result<Find, Failure> {
    let fault = |error| Failure(format!("quamina: {error}"));
    let mut quamina: Quamina<u32> = QuaminaBuilder::new()
        .with_arena_byte_budget(BUDGET)
        .build()
        .map_err(fault)?;
    quamina.set_matcher_build_mode(mode);
    for (id, policy) in bench.policies().enumerate() {
        quamina.add_pattern(id as u32, &policy).map_err(fault)?;
    }
    Ok(Box::new(move |event| {
        let ids = quamina.matches_for_event(event).unwrap_or_default();
        (ids.len() as u64, ids.iter().map(|&id| u64::from(id)).sum())
    }))
}
