//! The machine against a table of all records that is searched from end to end.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use sim_core::time::Instant;

use super::{Place, RULES, Span, Spans, shard};
use crate::machine::delivery::slots;
use crate::machine::delivery::{Delivery, Ended, LeaseKey, Leased, OverLimit, Rules, Standing};
use crate::message::ShardId;

#[derive(Debug, Clone)]
enum Op {
    Append {
        shard: usize,
        records: u64,
    },
    Close {
        shard: usize,
    },
    Merge {
        shard: usize,
    },
    Trim {
        shard: usize,
        records: u64,
    },
    Receive {
        max: usize,
        visibility: Option<u64>,
    },
    ReceiveDead {
        max: usize,
    },
    /// A verdict under any receipt that was ever given.
    Verdict {
        receipt: prop::sample::Index,
        verdict: Verdict,
    },
    Forged {
        check: u64,
        slot: u32,
        lease: u64,
        verdict: Verdict,
    },
    Wait {
        seconds: u64,
    },
    Sweep,
    Limit {
        receives: Option<u32>,
    },
}

#[derive(Debug, Clone, Copy)]
enum Verdict {
    Acknowledge,
    Change(u64),
    PutBack(u64),
    AcknowledgeDead,
    ChangeDead(u64),
    Restore,
}

fn any_verdict() -> impl Strategy<Value = Verdict> {
    prop_oneof![
        4 => Just(Verdict::Acknowledge),
        2 => (0..50_u64).prop_map(Verdict::Change),
        2 => (0..50_u64).prop_map(Verdict::PutBack),
        1 => Just(Verdict::AcknowledgeDead),
        1 => (0..50_u64).prop_map(Verdict::ChangeDead),
        2 => Just(Verdict::Restore),
    ]
}

fn any_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..8_usize, 1..12_u64).prop_map(|(shard, records)| Op::Append { shard, records }),
        1 => (0..8_usize).prop_map(|shard| Op::Close { shard }),
        1 => (0..8_usize).prop_map(|shard| Op::Merge { shard }),
        1 => (0..12_usize, 1..5_u64).prop_map(|(shard, records)| Op::Trim { shard, records }),
        10 => (1..12_usize, prop::option::of(0..60_u64))
            .prop_map(|(max, visibility)| Op::Receive { max, visibility }),
        3 => (1..6_usize).prop_map(|max| Op::ReceiveDead { max }),
        12 => (any::<prop::sample::Index>(), any_verdict())
            .prop_map(|(receipt, verdict)| Op::Verdict { receipt, verdict }),
        1 => (any::<u64>(), 0..10_u32, 0..50_u64, any_verdict())
            .prop_map(|(check, slot, lease, verdict)| Op::Forged { check, slot, lease, verdict }),
        5 => (1..40_u64).prop_map(|seconds| Op::Wait { seconds }),
        1 => Just(Op::Sweep),
        1 => prop::option::of(1..5_u32).prop_map(|receives| Op::Limit { receives }),
    ]
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Unread,
    Leased { lease: u64, until: Instant },
    Delayed { until: Instant },
    Returned,
    Dead,
    DeadLeased { lease: u64, until: Instant },
    Acknowledged,
    Lost,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    state: State,
    receives: u32,
}

/// What is true, told as simply as it can be.
struct Oracle {
    rules: Rules,
    all: BTreeMap<Place, Entry>,
    parents: BTreeMap<ShardId, [Option<ShardId>; 2]>,
    spans: Spans,
    now: Instant,
    dead_letters_made: u64,
}

impl Oracle {
    /// Ends what is over.
    fn serve(&mut self) {
        let now = self.now;
        let max = self.rules.max_receives;
        for entry in self.all.values_mut() {
            match entry.state {
                State::Leased { until, .. } if until <= now => {
                    entry.state = if max.is_some_and(|max| entry.receives >= max) {
                        self.dead_letters_made += 1;
                        State::Dead
                    } else {
                        State::Returned
                    };
                }
                State::Delayed { until } if until <= now => entry.state = State::Returned,
                State::DeadLeased { until, .. } if until <= now => entry.state = State::Dead,
                _ => {}
            }
        }
    }

    fn is_there(&self, place: Place) -> bool {
        self.spans.0[&place.0].start <= place.1
    }

    fn count(&self, which: impl Fn(State) -> bool) -> u64 {
        self.all.values().filter(|entry| which(entry.state)).count() as u64
    }

    /// Whether every record of the shard has been received, and no more can come.
    fn is_read(&self, shard: ShardId) -> bool {
        let next = self.unread(shard).next();
        self.spans.0[&shard].closed && next.is_none()
    }

    fn unread(&self, shard: ShardId) -> impl Iterator<Item = Place> + '_ {
        self.all
            .range((shard, 0)..=(shard, u64::MAX))
            .filter(|(_, entry)| entry.state == State::Unread)
            .map(|(place, _)| *place)
            .filter(|place| self.is_there(*place))
    }

    /// What a receive could bring if it had no limit: everything that came back and everything unread whose parents
    /// are read then.
    fn visible(&self) -> u64 {
        let mut visible = 0;
        let mut read = BTreeMap::new();
        for (&shard, parents) in &self.parents {
            let parents_read = parents.iter().flatten().all(|parent| read[parent]);
            if parents_read {
                visible += self.unread(shard).count() as u64;
            }
            read.insert(shard, parents_read && self.spans.0[&shard].closed);
        }
        let returned = self
            .all
            .iter()
            .filter(|(place, entry)| {
                entry.state == State::Returned
                    && self.is_there(**place)
                    && self
                        .rules
                        .max_receives
                        .is_none_or(|max| entry.receives < max)
            })
            .count() as u64;
        visible + returned
    }

    fn received(&mut self, leased: &Leased<Place>, until: Instant) {
        let place = leased.record;
        assert_eq!(place, (leased.shard, leased.position));
        assert!(self.is_there(place), "{place:?} is trimmed");
        if self.all[&place].state == State::Unread {
            // The next one of its shard, whose parents are read.
            assert_eq!(self.unread(place.0).next(), Some(place));
            for parent in self.parents[&place.0].into_iter().flatten() {
                assert!(self.is_read(parent), "{place:?} before {parent:?}");
            }
        }
        let entry = self.all.get_mut(&place).unwrap();
        assert!(
            matches!(entry.state, State::Unread | State::Returned),
            "{place:?} was {entry:?}"
        );
        entry.receives += 1;
        assert_eq!(leased.receives, entry.receives);
        assert_eq!(leased.until, until);
        let lease = leased.key.lease;
        entry.state = State::Leased { lease, until };
    }

    /// Records that a receive passed over: they will never come.
    fn settle_losses(&mut self, machine: &Delivery) {
        let cursors: BTreeMap<_, _> = machine.shards().collect();
        let max = self.rules.max_receives;
        for (place, entry) in &mut self.all {
            let trimmed = self.spans.0[&place.0].start > place.1;
            let passed = cursors
                .get(&place.0)
                .is_none_or(|position| place.1 < *position);
            match entry.state {
                State::Unread if passed => {
                    assert!(trimmed, "{place:?} was passed over");
                    entry.state = State::Lost;
                }
                _ => {}
            }
            if entry.state == State::Returned {
                match machine.slots.state_at(place.0, place.1) {
                    Some(slots::State::Returned) => {}
                    Some(slots::State::Dead) => {
                        assert!(max.is_some_and(|max| entry.receives >= max));
                        self.dead_letters_made += 1;
                        entry.state = State::Dead;
                    }
                    Some(other) => panic!("{place:?} came back and is {other:?}"),
                    None => {
                        assert!(trimmed, "{place:?} came back and was forgotten");
                        entry.state = State::Lost;
                    }
                }
            }
        }
    }

    fn lease_of(&mut self, lease: u64) -> Option<&mut Entry> {
        self.all.values_mut().find(|entry| {
            matches!(entry.state,
                State::Leased { lease: l, .. } | State::DeadLeased { lease: l, .. } if l == lease)
        })
    }

    fn judge(&mut self, lease: u64, verdict: Verdict) -> Result<(), Ended> {
        let now = self.now;
        let max = self.rules.max_receives;
        let seconds = |s| now + Duration::from_secs(s);
        let mut buried = 0;
        let entry = self.lease_of(lease).ok_or(Ended)?;
        let mut back = |entry: &Entry| {
            if max.is_some_and(|max| entry.receives >= max) {
                buried += 1;
                State::Dead
            } else {
                State::Returned
            }
        };
        entry.state = match (entry.state, verdict) {
            (State::Leased { .. }, Verdict::Acknowledge)
            | (State::DeadLeased { .. }, Verdict::AcknowledgeDead) => State::Acknowledged,
            (State::Leased { .. }, Verdict::Change(0) | Verdict::PutBack(0)) => back(entry),
            (State::Leased { .. }, Verdict::Change(s)) => State::Leased {
                lease,
                until: seconds(s),
            },
            (State::Leased { .. }, Verdict::PutBack(s)) => match back(entry) {
                State::Dead => State::Dead,
                _ => State::Delayed { until: seconds(s) },
            },
            (State::DeadLeased { .. }, Verdict::ChangeDead(0)) => State::Dead,
            (State::DeadLeased { .. }, Verdict::ChangeDead(s)) => State::DeadLeased {
                lease,
                until: seconds(s),
            },
            (State::DeadLeased { .. }, Verdict::Restore) => {
                entry.receives = 0;
                State::Returned
            }
            _ => return Err(Ended),
        };
        self.dead_letters_made += buried;
        Ok(())
    }
}

fn apply(
    machine: &mut Delivery,
    now: Instant,
    key: LeaseKey,
    verdict: Verdict,
) -> Result<(), Ended> {
    let secs = Duration::from_secs;
    match verdict {
        Verdict::Acknowledge => machine.acknowledge(now, key),
        Verdict::Change(s) => machine.change_visibility(now, key, secs(s)),
        Verdict::PutBack(s) => machine.release(now, key, secs(s)),
        Verdict::AcknowledgeDead => machine.acknowledge_dead(now, key),
        Verdict::ChangeDead(s) => machine.change_dead_visibility(now, key, secs(s)),
        Verdict::Restore => machine.restore(now, key),
    }
}

/// A machine and the truth, side by side.
struct Pair {
    machine: Delivery,
    oracle: Oracle,
    receipts: Vec<LeaseKey>,
}

impl Pair {
    fn new(max_in_flight: usize) -> Self {
        let rules = Rules {
            max_in_flight,
            max_dead_letters: 10_000,
            ..RULES
        };
        let mut pair = Self {
            machine: Delivery::new(rules, 42),
            oracle: Oracle {
                rules,
                all: BTreeMap::new(),
                parents: BTreeMap::new(),
                spans: Spans::default(),
                now: Instant::ORIGIN,
                dead_letters_made: 0,
            },
            receipts: Vec::new(),
        };
        pair.open([None, None]);
        pair.open([None, None]);
        pair
    }

    fn open(&mut self, parents: [Option<ShardId>; 2]) {
        let id = shard(self.oracle.spans.0.len() as u32);
        self.oracle.spans.0.insert(id, Span::default());
        self.oracle.parents.insert(id, parents);
        self.machine.open(id, 0, parents);
    }

    /// The open shards, by age.
    fn open_shard(&self, number: usize) -> ShardId {
        let open: Vec<_> = self
            .oracle
            .spans
            .0
            .iter()
            .filter(|(_, span)| !span.closed)
            .map(|(id, _)| *id)
            .collect();
        open[number % open.len()]
    }

    fn close(&mut self, shard: ShardId) {
        self.oracle.spans.0.get_mut(&shard).unwrap().closed = true;
    }

    fn run(&mut self, op: &Op) {
        match op {
            Op::Append { shard, records } => {
                let id = self.open_shard(*shard);
                let span = self.oracle.spans.0.get_mut(&id).unwrap();
                for position in span.end..span.end + records {
                    let entry = Entry {
                        state: State::Unread,
                        receives: 0,
                    };
                    self.oracle.all.insert((id, position), entry);
                }
                span.end += records;
            }
            Op::Close { shard } if self.oracle.spans.0.len() < 12 => {
                let id = self.open_shard(*shard);
                self.close(id);
                self.open([Some(id), None]);
                self.open([Some(id), None]);
            }
            Op::Merge { shard } => {
                let (a, b) = (self.open_shard(*shard), self.open_shard(*shard + 1));
                if a != b {
                    self.close(a);
                    self.close(b);
                    self.open([Some(a), Some(b)]);
                }
            }
            Op::Close { .. } => {}
            Op::Trim { shard, records } => {
                let number = *shard % self.oracle.spans.0.len();
                let span = self.oracle.spans.0.values_mut().nth(number).unwrap();
                span.start = span.end.min(span.start + records);
            }
            Op::Receive { max, visibility } => self.receive(*max, *visibility),
            Op::ReceiveDead { max } => self.receive_dead(*max),
            Op::Verdict { receipt, verdict } => {
                if !self.receipts.is_empty() {
                    let key = *receipt.get(&self.receipts);
                    self.oracle.serve();
                    let said = apply(&mut self.machine, self.oracle.now, key, *verdict);
                    assert_eq!(said, self.oracle.judge(key.lease, *verdict));
                }
            }
            Op::Forged {
                check,
                slot,
                lease,
                verdict,
            } => {
                let key = LeaseKey {
                    check: *check,
                    slot: *slot,
                    lease: *lease,
                };
                if !self.receipts.contains(&key) {
                    let said = apply(&mut self.machine, self.oracle.now, key, *verdict);
                    assert_eq!(said, Err(Ended));
                }
            }
            Op::Wait { seconds } => {
                self.oracle.now = self.oracle.now + Duration::from_secs(*seconds)
            }
            Op::Sweep => {
                let spans = &self.oracle.spans;
                self.machine.sweep(&mut |shard| spans.0[&shard].start);
                self.machine.serve(self.oracle.now);
                self.machine.sweep(&mut |shard| spans.0[&shard].start);
                self.oracle.serve();
                self.lose_dead();
            }
            Op::Limit { receives } => {
                // What is over has ended under the old rules.
                self.machine.serve(self.oracle.now);
                self.oracle.serve();
                self.oracle.rules.max_receives = *receives;
                self.machine.set_rules(self.oracle.rules);
            }
        }
        self.compare();
    }

    fn receive(&mut self, max: usize, visibility: Option<u64>) {
        self.oracle.serve();
        let now = self.oracle.now;
        let visibility = visibility.map(Duration::from_secs);
        let until = now + visibility.unwrap_or(self.oracle.rules.visibility_timeout);
        let in_flight = self
            .oracle
            .count(|state| matches!(state, State::Leased { .. } | State::Delayed { .. }));
        let room = self.oracle.rules.max_in_flight as u64 - in_flight;
        let expected = self.oracle.visible().min(room).min(max as u64);
        let mut out = Vec::new();
        let spans = self.oracle.spans.clone();
        let look = &mut |s, p, a| spans.look(s, p, a);
        let outcome = self.machine.receive(now, max, visibility, look, &mut out);
        if room == 0 {
            assert_eq!(outcome, Err(OverLimit));
            return;
        }
        assert_eq!(outcome, Ok(out.len()));
        assert_eq!(out.len() as u64, expected, "as many as there are");
        for leased in &out {
            self.oracle.received(leased, until);
            self.receipts.push(leased.key);
        }
        self.oracle.settle_losses(&self.machine);
    }

    fn receive_dead(&mut self, max: usize) {
        self.oracle.serve();
        let now = self.oracle.now;
        let mut out = Vec::new();
        let spans = self.oracle.spans.clone();
        let look = &mut |s, p, a| spans.look(s, p, a);
        let sweep = &mut |shard: ShardId| spans.0[&shard].start;
        self.machine.serve(now);
        self.machine.sweep(sweep);
        self.lose_dead();
        let expected = self
            .oracle
            .count(|state| state == State::Dead)
            .min(max as u64);
        let got = self.machine.receive_dead(now, max, None, look, &mut out);
        assert_eq!((got, got as u64), (out.len(), expected));
        for leased in &out {
            let entry = self.oracle.all.get_mut(&leased.record).unwrap();
            assert_eq!(entry.state, State::Dead);
            assert_eq!(entry.receives, leased.receives);
            let (lease, until) = (leased.key.lease, leased.until);
            entry.state = State::DeadLeased { lease, until };
            self.receipts.push(leased.key);
        }
    }

    fn lose_dead(&mut self) {
        for (place, entry) in &mut self.oracle.all {
            if entry.state == State::Dead && self.oracle.spans.0[&place.0].start > place.1 {
                entry.state = State::Lost;
            }
        }
    }

    fn compare(&mut self) {
        self.machine.serve(self.oracle.now);
        self.oracle.serve();
        let count = |which: fn(State) -> bool| self.oracle.count(which);
        let standing = Standing {
            leased: count(|state| matches!(state, State::Leased { .. })),
            delayed: count(|state| matches!(state, State::Delayed { .. })),
            returned: count(|state| state == State::Returned),
            dead: count(|state| state == State::Dead),
            dead_leased: count(|state| matches!(state, State::DeadLeased { .. })),
        };
        assert_eq!(self.machine.standing(), standing);
        let tally = self.machine.tally();
        assert_eq!(tally.buried, self.oracle.dead_letters_made);
        let acknowledged = count(|state| state == State::Acknowledged);
        assert_eq!(tally.acknowledged + tally.acknowledged_dead, acknowledged);
        let lost = tally.lost.unread + tally.lost.returned + tally.lost.dead;
        assert_eq!(lost, count(|state| state == State::Lost));
        let next = self
            .oracle
            .all
            .values()
            .filter_map(|entry| match entry.state {
                State::Leased { until, .. }
                | State::Delayed { until }
                | State::DeadLeased { until, .. } => Some(until),
                _ => None,
            });
        assert_eq!(self.machine.next_deadline(), next.min());
        assert_eq!(self.machine.slots.live() as u64, {
            let Standing {
                leased,
                delayed,
                returned,
                dead,
                dead_leased,
            } = standing;
            leased + delayed + returned + dead + dead_leased
        });
    }

    /// Acknowledges everything there is, and sees that nothing is missing.
    fn drain(&mut self) {
        for shard in self.oracle.spans.0.keys().copied().collect::<Vec<_>>() {
            self.close(shard);
        }
        let mut rounds = 0;
        while !self.machine.is_drained() {
            self.oracle.now = self.oracle.now + Duration::from_secs(60);
            let from = self.receipts.len();
            self.receive(7, None);
            for key in self.receipts.split_off(from) {
                let now = self.oracle.now;
                assert_eq!(self.machine.acknowledge(now, key), Ok(()));
                self.oracle.judge(key.lease, Verdict::Acknowledge).unwrap();
            }
            self.compare();
            rounds += 1;
            assert!(rounds < 10_000, "it never ends");
        }
        for (place, entry) in &self.oracle.all {
            assert!(
                matches!(
                    entry.state,
                    State::Acknowledged | State::Lost | State::Dead | State::DeadLeased { .. }
                ),
                "{place:?}: {entry:?}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_history_is_what_the_oracle_says(
        ops in prop::collection::vec(any_op(), 1..150),
        max_in_flight in prop_oneof![Just(5_usize), Just(1_000)],
    ) {
        let mut pair = Pair::new(max_in_flight);
        for op in &ops {
            pair.run(op);
        }
        pair.drain();
    }

    #[test]
    fn the_same_history_gives_the_same_answers(
        ops in prop::collection::vec(any_op(), 1..80),
    ) {
        let answers = || {
            let mut pair = Pair::new(20);
            ops.iter().for_each(|op| pair.run(op));
            (pair.receipts, pair.machine.tally())
        };
        prop_assert_eq!(answers(), answers());
    }
}
