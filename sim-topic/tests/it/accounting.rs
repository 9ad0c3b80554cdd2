//! Whatever happens to a message is counted once: random histories on a virtual clock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use sim_core::clock::VirtualClock;
use sim_core::random::Random;
use sim_core::seam::{Refused, Sink};
use sim_topic::{
    ArchiveConfig, DeadLetter, Deduplication, DeliveryError, FifoConfig, Filter, GroupId, Kind,
    Message, Notification, Overflow, ReplayPolicy, RetryPolicy, Subscriber, Subscription,
    SubscriptionConfig, Throttle, Topic, TopicConfig,
};

use crate::rig::{clock, secs};

/// What came to one subscriber, and how it answers: by a seed, until it is told to be good.
struct Moody {
    taken: Mutex<Vec<(String, u64, bool)>>,
    mood: Mutex<(Random, bool)>,
}

enum Answer {
    Take,
    Full,
    Reject,
    Panic,
}

impl Moody {
    fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self {
            taken: Mutex::new(Vec::new()),
            mood: Mutex::new((Random::new(seed), false)),
        })
    }

    fn be_good(&self) {
        self.mood.lock().unwrap().1 = true;
    }

    fn answer(&self) -> Answer {
        let mut mood = self.mood.lock().unwrap();
        if mood.1 {
            return Answer::Take;
        }
        match mood.0.below(20) {
            0..8 => Answer::Full,
            8..10 => Answer::Reject,
            10 => Answer::Panic,
            _ => Answer::Take,
        }
    }

    fn take(&self, notification: &Notification<u64>) {
        let group = notification.group().map(|group| group.as_str().to_owned());
        self.taken.lock().unwrap().push((
            group.unwrap_or_default(),
            *notification.value(),
            notification.is_replayed(),
        ));
    }
}

struct Front(Arc<Moody>);

impl Sink<Notification<u64>> for Front {
    fn try_deliver(&self, item: Notification<u64>) -> Result<(), Refused<Notification<u64>>> {
        match self.0.answer() {
            Answer::Take => {
                self.0.take(&item);
                Ok(())
            }
            Answer::Full => Err(Refused::full(item, None)),
            Answer::Reject => Err(Refused::rejected(item, "no")),
            Answer::Panic => std::panic::resume_unwind(Box::new("quietly")),
        }
    }
}

/// Dead letters, which are refused now and then.
struct Dead(Arc<Moody>);

impl Sink<DeadLetter<u64>> for Dead {
    fn try_deliver(&self, item: DeadLetter<u64>) -> Result<(), Refused<DeadLetter<u64>>> {
        match self.0.answer() {
            Answer::Take => {
                self.0.take(&item.notification);
                Ok(())
            }
            Answer::Full => Err(Refused::full(item, None)),
            Answer::Reject | Answer::Panic => Err(Refused::closed(item)),
        }
    }
}

struct Party {
    sub: Subscription<u64>,
    taken: Arc<Moody>,
    dead: Arc<Moody>,
    has_dead_letters: bool,
    modulus: u64,
    is_over: bool,
    replays: bool,
}

#[derive(Debug, Clone)]
struct Shape {
    handler: bool,
    dead_letters: bool,
    oldest: bool,
    backlog: usize,
    retries: u32,
    throttle: Option<u32>,
    modulus: u64,
}

fn shape() -> impl Strategy<Value = Shape> {
    (
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        1..20_usize,
        0..4_u32,
        proptest::option::weighted(0.3, 1..5_u32),
        1..4_u64,
    )
        .prop_map(
            |(handler, dead_letters, oldest, backlog, retries, throttle, modulus)| Shape {
                handler,
                dead_letters,
                oldest,
                backlog,
                retries,
                throttle,
                modulus,
            },
        )
}

#[derive(Debug, Clone)]
enum Act {
    Publish { group: u8, count: u8 },
    Pass { seconds: u8 },
    Pause(usize),
    Resume(usize),
    Unsubscribe(usize),
    Replay(usize),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => (0..3_u8, 1..6_u8).prop_map(|(group, count)| Act::Publish { group, count }),
        5 => (0..30_u8).prop_map(|seconds| Act::Pass { seconds }),
        1 => (0..9_usize).prop_map(Act::Pause),
        2 => (0..9_usize).prop_map(Act::Resume),
        1 => (0..9_usize).prop_map(Act::Unsubscribe),
        1 => (0..9_usize).prop_map(Act::Replay),
    ]
}

fn subscribe(topic: &Topic<u64>, shape: &Shape, seed: u64) -> Party {
    let (taken, dead) = (Moody::new(seed), Moody::new(seed ^ 0xdead));
    let subscriber = if shape.handler {
        let taken = Arc::clone(&taken);
        Subscriber::handler(move |notification: Notification<u64>| {
            let taken = Arc::clone(&taken);
            async move {
                match taken.answer() {
                    Answer::Take => {
                        taken.take(&notification);
                        Ok(())
                    }
                    Answer::Full => Err(DeliveryError::server("full")),
                    Answer::Reject => Err(DeliveryError::client("no")),
                    Answer::Panic => std::panic::resume_unwind(Box::new("quietly")),
                }
            }
        })
    } else {
        Subscriber::sink(Front(Arc::clone(&taken)))
    };
    let modulus = shape.modulus;
    let letters = Arc::new(Dead(Arc::clone(&dead)));
    let sub = topic
        .subscribe(
            subscriber,
            SubscriptionConfig {
                filter: Filter::closure(move |m: &Message<u64>| m.value.is_multiple_of(modulus)),
                retry: RetryPolicy {
                    immediate: shape.retries / 2,
                    backoff: shape.retries,
                    min_delay: secs(3),
                    max_delay: secs(9),
                    ..RetryPolicy::default()
                },
                throttle: shape.throttle.map(|n| Throttle::per_second(n).unwrap()),
                dead_letters: shape.dead_letters.then_some(letters as Arc<dyn Sink<_>>),
                backlog: shape.backlog,
                overflow: if shape.oldest {
                    Overflow::Oldest
                } else {
                    Overflow::Newest
                },
                max_in_flight: 4,
                ..SubscriptionConfig::default()
            },
        )
        .unwrap();
    Party {
        sub,
        taken,
        dead,
        has_dead_letters: shape.dead_letters,
        modulus,
        is_over: false,
        replays: false,
    }
}

fn balance(party: &Party) -> Result<(), TestCaseError> {
    let stats = party.sub.stats();
    prop_assert_eq!(
        stats.accepted,
        stats.delivered + stats.pending + stats.redriven + stats.dropped.total(),
        "{:?}",
        stats
    );
    prop_assert_eq!(
        stats.delivered,
        party.taken.taken.lock().unwrap().len() as u64
    );
    prop_assert_eq!(
        stats.redriven,
        party.dead.taken.lock().unwrap().len() as u64
    );
    Ok(())
}

fn history(is_fifo: bool, shapes: &[Shape], acts: &[Act], seed: u64) -> Result<(), TestCaseError> {
    let (clock, time) = clock();
    let kind = if is_fifo {
        Kind::Fifo(FifoConfig {
            deduplication: Deduplication::Off,
            archive: Some(ArchiveConfig::default()),
            ..FifoConfig::default()
        })
    } else {
        Kind::Standard
    };
    let topic = Topic::with_clock(
        TopicConfig {
            kind,
            seed,
            ..TopicConfig::default()
        },
        clock,
    )
    .unwrap();
    let start = "2026-01-01T00:00:00Z".parse().unwrap();
    let mut parties: Vec<_> = shapes
        .iter()
        .enumerate()
        .map(|(at, shape)| subscribe(&topic, shape, seed + at as u64))
        .collect();
    let mut published = 0_u64;
    let pass = |time: &VirtualClock, seconds: u64| {
        time.advance(secs(seconds));
        topic.advance(time.now());
    };
    for act in acts {
        match act {
            Act::Publish { group, count } => {
                for _ in 0..*count {
                    let group = GroupId::new(format!("g{group}")).unwrap();
                    topic
                        .try_publish(Message::new(published).group(group))
                        .unwrap();
                    published += 1;
                }
            }
            Act::Pass { seconds } => pass(&time, u64::from(*seconds)),
            Act::Pause(at) => {
                if let Some(party) = parties.get(*at) {
                    prop_assert_eq!(party.sub.pause().is_err(), party.is_over);
                }
            }
            Act::Resume(at) => {
                if let Some(party) = parties.get(*at) {
                    prop_assert_eq!(party.sub.resume().is_err(), party.is_over);
                }
            }
            Act::Unsubscribe(at) => {
                if let Some(party) = parties.get_mut(*at) {
                    party.sub.unsubscribe();
                    party.is_over = true;
                }
            }
            Act::Replay(at) => {
                if let Some(party) = parties.get_mut(*at)
                    && party.sub.replay(ReplayPolicy::from(start)).is_ok()
                {
                    party.replays = true;
                }
            }
        }
        for party in &parties {
            balance(party)?;
        }
    }
    for party in &parties {
        party.taken.be_good();
        party.dead.be_good();
        let _ = party.sub.resume();
    }
    // The throttle lets one a second through, at the least.
    for _ in 0..100 {
        pass(&time, 60);
    }
    for party in &parties {
        balance(party)?;
        let stats = party.sub.stats();
        prop_assert_eq!(stats.pending, 0, "{:?}", stats);
        if !party.has_dead_letters {
            prop_assert_eq!(stats.redriven, 0);
        }
        let taken = party.taken.taken.lock().unwrap().clone();
        let dead = party.dead.taken.lock().unwrap().clone();
        let live: Vec<_> = taken
            .iter()
            .chain(&dead)
            .filter(|(_, _, replayed)| !replayed)
            .collect();
        let distinct: BTreeSet<_> = live.iter().map(|(_, value, _)| *value).collect();
        prop_assert_eq!(distinct.len(), live.len(), "nothing is doubled");
        prop_assert!(
            distinct
                .iter()
                .all(|value| value.is_multiple_of(party.modulus))
        );
        if !party.is_over && !party.replays {
            // Nothing is lost: all that the filter lets through is accepted.
            let wanted = published.div_ceil(party.modulus);
            prop_assert_eq!(stats.accepted, wanted);
            prop_assert_eq!(stats.filtered.total(), published - wanted);
            prop_assert_eq!(live.len() as u64 + stats.dropped.total(), wanted);
        }
        if is_fifo {
            let mut last: BTreeMap<(&str, bool), u64> = BTreeMap::new();
            // A second replay starts again from the beginning, so order is checked where there was none.
            for (group, value, replayed) in taken.iter().filter(|_| !party.replays) {
                let before = last.insert((group, *replayed), *value);
                prop_assert!(before < Some(*value), "{group}: {before:?} before {value}");
            }
        }
    }
    let sum = topic.stats().subscriptions;
    prop_assert_eq!(
        sum.accepted,
        sum.delivered + sum.pending + sum.redriven + sum.dropped.total()
    );
    drop(parties);
    let after = topic.stats().subscriptions;
    prop_assert_eq!(
        after.accepted,
        sum.accepted,
        "what is over is not forgotten"
    );
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_standard_topic_accounts_for_every_message(
        shapes in proptest::collection::vec(shape(), 1..5),
        acts in proptest::collection::vec(act(), 1..60),
        seed in 0..1000_u64,
    ) {
        history(false, &shapes, &acts, seed)?;
    }

    #[test]
    fn a_fifo_topic_accounts_for_every_message_and_keeps_the_order_of_groups(
        shapes in proptest::collection::vec(shape(), 1..5),
        acts in proptest::collection::vec(act(), 1..60),
        seed in 0..1000_u64,
    ) {
        history(true, &shapes, &acts, seed)?;
    }
}

#[test]
fn the_same_seed_gives_the_same_history() {
    let run = || {
        let (clock, time) = clock();
        let topic = Topic::with_clock(
            TopicConfig {
                seed: 7,
                ..TopicConfig::default()
            },
            clock,
        )
        .unwrap();
        let shape = Shape {
            handler: true,
            dead_letters: true,
            oldest: false,
            backlog: 10,
            retries: 3,
            throttle: Some(3),
            modulus: 1,
        };
        let party = subscribe(&topic, &shape, 5);
        let mut ids = Vec::new();
        for n in 0..200 {
            ids.push(topic.try_publish(n).unwrap().id);
            time.advance(secs(1));
            topic.advance(time.now());
        }
        (
            ids,
            party.taken.taken.lock().unwrap().clone(),
            party.sub.stats(),
        )
    };
    assert_eq!(run(), run());
}
