//! The machine against a naive implementation of the same rules, on random histories.
//!
//! The naive queue keeps one list of messages and looks through all of it for every question. Where
//! the rules leave the order open (what ends at the same instant, which tenant is next) it follows
//! what the machine did and checks that the rules allow it; everything else must be equal.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::group::DeduplicationId;

const MIN_IN_FLIGHT: u32 = 3;

#[derive(Debug, Clone)]
struct Message {
    m: u32,
    sequence: u64,
    group: Option<u8>,
    entered: u64,
    sent: u64,
    state: State,
    until: u64,
    received: u64,
    first_received: u64,
    count: u32,
    held: bool,
    changed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Expired,
    Visible,
    Dead,
}

struct Attempt {
    made: u64,
    deadline: u64,
    leases: Vec<(u32, u32)>,
}

struct Naive {
    rules: Rules,
    order: Order,
    messages: Vec<Message>,
    /// Standard and fair: visible messages in the order in which they became so.
    visible: Vec<u32>,
    /// FIFO: groups in the order in which they became ready.
    ready: VecDeque<u8>,
    dedup: BTreeMap<u8, (u64, u32, u64)>,
    attempts: BTreeMap<u8, Attempt>,
    sent: u64,
}

impl Naive {
    fn at(&self, m: u32) -> Option<usize> {
        self.messages.iter().position(|message| message.m == m)
    }

    fn count(&self, state: State) -> usize {
        self.messages
            .iter()
            .filter(|message| message.state == state)
            .count()
    }

    fn group(&self, group: u8) -> Vec<&Message> {
        self.messages
            .iter()
            .filter(|message| message.group == Some(group))
            .collect()
    }

    fn is_ready(&self, group: u8) -> bool {
        let members = self.group(group);
        members
            .first()
            .is_some_and(|first| first.state == State::Visible)
            && members.iter().all(|member| member.state != State::InFlight)
    }

    fn settle(&mut self, group: Option<u8>) {
        let (Order::Fifo, Some(group)) = (self.order, group) else {
            return;
        };
        match (self.is_ready(group), self.ready.contains(&group)) {
            (true, false) => self.ready.push_back(group),
            (false, true) => self.ready.retain(|&other| other != group),
            _ => {}
        }
    }

    /// Whether a receive would return something.
    fn gives(&self) -> bool {
        let room = self.count(State::InFlight) < self.rules.max_in_flight;
        let any = match self.order {
            Order::Fifo => !self.ready.is_empty(),
            _ => !self.visible.is_empty(),
        };
        room && any
    }

    fn remove(&mut self, at: usize) -> Message {
        let message = self.messages.remove(at);
        self.visible.retain(|&m| m != message.m);
        self.settle(message.group);
        message
    }

    fn show(&mut self, at: usize) {
        self.messages[at].state = State::Visible;
        let (m, group) = (self.messages[at].m, self.messages[at].group);
        self.visible.push(m);
        self.settle(group);
    }

    /// Ends a lease; whether the message is dead.
    fn end_lease(&mut self, at: usize) -> bool {
        if self
            .rules
            .max_receives
            .is_some_and(|max| self.messages[at].count >= max)
        {
            self.remove(at);
            return true;
        }
        self.show(at);
        false
    }

    /// What ends next for a message, and when.
    fn end(&self, message: &Message) -> Option<(u64, End)> {
        let expiry = self
            .rules
            .retention
            .map(|retention| (message.sent + retention.as_secs(), End::Expired));
        let timer = match message.state {
            State::Visible => None,
            State::Delayed => Some((message.until, End::Visible)),
            State::InFlight => {
                let dead = self
                    .rules
                    .max_receives
                    .is_some_and(|max| message.count >= max);
                Some((message.until, if dead { End::Dead } else { End::Visible }))
            }
        };
        match (expiry, timer) {
            (Some(expiry), Some(timer)) => Some(if expiry.0 <= timer.0 { expiry } else { timer }),
            (expiry, timer) => expiry.or(timer),
        }
    }

    fn next_deadline(&self) -> Option<u64> {
        self.messages
            .iter()
            .filter_map(|message| Some(self.end(message)?.0))
            .min()
    }

    /// Follows what the machine's advance reported, each step of which must be due and in order.
    fn follow(&mut self, now: u64, effects: &[Effect<u32>]) {
        for effect in effects {
            let gave = self.gives();
            let (m, end, wakes) = match effect {
                Effect::BecameVisible { m, wakes, .. } => (*m, End::Visible, *wakes),
                Effect::Expired { m, wakes, .. } => (*m, End::Expired, *wakes),
                Effect::DeadLetter(letter) => (letter.m, End::Dead, letter.wakes),
                Effect::Purged { .. } => panic!("nobody purged"),
            };
            let at = self.at(m).expect("it was there");
            let (due, expected) = self.end(&self.messages[at]).expect("it ends");
            assert_eq!(expected, end, "{:?}", self.messages[at]);
            assert!(due <= now);
            assert_eq!(Some(due), self.next_deadline(), "deadline by deadline");
            match end {
                End::Expired => {
                    self.remove(at);
                }
                End::Dead => assert!(self.end_lease(at)),
                End::Visible if self.messages[at].state == State::InFlight => {
                    assert!(!self.end_lease(at));
                }
                End::Visible => self.show(at),
            }
            assert!(wakes || gave || !self.gives(), "a receiver must be told");
        }
        assert!(
            self.next_deadline().is_none_or(|due| due > now),
            "all that was due was served"
        );
    }

    fn send(&mut self, now: u64, m: u32, send: &Send) -> Result<(u64, bool), NotStored> {
        let fifo = self.order == Order::Fifo;
        if fifo && send.group.is_none() {
            return Err(NotStored::MissingGroup);
        }
        self.dedup.retain(|_, (made, ..)| now < *made + 300);
        if let (true, Some(key)) = (fifo, send.dedup) {
            if let Some(&(_, id, sequence)) = self.dedup.get(&key) {
                return Err(NotStored::Duplicate(First {
                    id: u128::from(id),
                    sequence: SequenceNumber::new(sequence),
                }));
            }
            if self.dedup.len() >= 4 {
                return Err(NotStored::DedupWindowFull);
            }
        }
        let waiting = self.count(State::Visible) + self.count(State::Delayed);
        if self
            .rules
            .capacity
            .is_some_and(|capacity| waiting >= capacity)
        {
            return Err(NotStored::Full);
        }
        self.sent += 1;
        if let (true, Some(key)) = (fifo, send.dedup) {
            self.dedup.insert(key, (now, m, self.sent));
        }
        let delay = send.delay.unwrap_or(self.rules.delay.as_secs());
        self.messages.push(Message {
            m,
            sequence: self.sent,
            group: send.group.filter(|_| self.order != Order::Standard),
            entered: now,
            sent: now.saturating_sub(send.before),
            state: State::Delayed,
            until: now + delay,
            received: 0,
            first_received: 0,
            count: 0,
            held: false,
            changed: send.delay.is_some(),
        });
        let at = self.messages.len() - 1;
        if delay == 0 {
            self.show(at);
        }
        Ok((self.sent, delay == 0))
    }

    fn lease(&mut self, now: u64, m: u32, visibility: Option<u64>, leased: &Leased<u32>) {
        let timeout = visibility.unwrap_or(self.rules.visibility_timeout.as_secs());
        let at = self.at(m).expect("it was there");
        let message = &mut self.messages[at];
        assert_eq!(message.state, State::Visible);
        message.state = State::InFlight;
        message.count += 1;
        message.received = now;
        if message.count == 1 {
            message.first_received = now;
        }
        message.held = true;
        message.changed = false;
        message.until = now + timeout;
        self.visible.retain(|&other| other != m);
        self.check_leased(m, leased);
        let group = self.messages[at].group;
        self.settle(group);
    }

    fn check_leased(&self, m: u32, leased: &Leased<u32>) {
        let message = &self.messages[self.at(m).expect("it was there")];
        assert_eq!(leased.m, m);
        assert_eq!(leased.receive_count, message.count);
        assert_eq!(leased.first_received, at(message.first_received));
        assert_eq!(leased.sent_at, at(message.sent));
        assert_eq!(leased.deadline, at(message.until));
        assert_eq!(leased.sequence.get(), message.sequence);
    }

    fn is_noisy(&self, group: u8) -> bool {
        let own = self
            .group(group)
            .iter()
            .filter(|message| message.state == State::InFlight)
            .count() as u32;
        own >= MIN_IN_FLIGHT && own * 100 > self.count(State::InFlight) as u32 * 10
    }

    /// Follows a receive, each message of which must be one that comes next by the rules.
    fn receive(&mut self, now: u64, max: usize, visibility: Option<u64>, got: &[Leased<u32>]) {
        let room = self
            .rules
            .max_in_flight
            .saturating_sub(self.count(State::InFlight))
            .min(max);
        if self.order == Order::Fifo {
            let mut expected = Vec::new();
            for &group in &self.ready {
                let members = self.group(group);
                let visible = members
                    .iter()
                    .take_while(|member| member.state == State::Visible);
                expected.extend(visible.map(|member| member.m));
            }
            expected.truncate(room);
            assert_eq!(
                got.iter().map(|leased| leased.m).collect::<Vec<_>>(),
                expected
            );
        }
        assert_eq!(
            got.len(),
            room.min(match self.order {
                Order::Fifo => got.len(),
                _ => self.visible.len(),
            })
        );
        for leased in got {
            let at = self.at(leased.m).expect("it was there");
            let group = self.messages[at].group;
            match self.order {
                Order::Standard => assert_eq!(leased.m, self.visible[0]),
                Order::Fifo => {}
                Order::Fair => {
                    let tenant = |m: u32| self.messages[self.at(m).expect("there")].group;
                    let first = self.visible.iter().find(|&&m| tenant(m) == group);
                    assert_eq!(first, Some(&leased.m), "in order within its tenant");
                    if group.is_some_and(|group| self.is_noisy(group)) {
                        let quiet =
                            |m: &&u32| tenant(**m).is_none_or(|group| !self.is_noisy(group));
                        assert_eq!(self.visible.iter().find(quiet), None, "quiet tenants first");
                    }
                }
            }
            self.lease(now, leased.m, visibility, leased);
        }
    }

    fn holder(&self, m: u32, lease: u64) -> Option<usize> {
        let at = self.at(m)?;
        let message = &self.messages[at];
        (u64::from(message.count) == lease && message.held).then_some(at)
    }
}

#[derive(Debug, Clone)]
struct Send {
    group: Option<u8>,
    delay: Option<u64>,
    dedup: Option<u8>,
    before: u64,
}

#[derive(Debug, Clone)]
enum Step {
    Send(Send),
    Receive {
        max: usize,
        visibility: Option<u64>,
        attempt: Option<u8>,
    },
    Acknowledge(prop::sample::Index),
    /// Of one of the latest leases.
    AcknowledgeLate(usize),
    Change(prop::sample::Index, u64),
    Release(prop::sample::Index, u64),
    Pass(u64),
    PassToNext,
    Purge,
    VisibilityTimeout(u64),
    Delay(u64),
    Retention(Option<u64>),
    MaxReceives(Option<u32>),
    MaxInFlight(usize),
    Capacity(Option<usize>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let send = (
        prop::option::weighted(0.9, 0..4u8),
        prop::option::weighted(0.2, 0..8u64),
        prop::option::weighted(0.2, 0..6u8),
        prop_oneof![5 => Just(0u64), 1 => 0..20u64],
    )
        .prop_map(|(group, delay, dedup, before)| {
            Step::Send(Send {
                group,
                delay,
                dedup,
                before,
            })
        });
    let receive = (
        0..6usize,
        prop::option::weighted(0.3, 0..40u64),
        prop::option::weighted(0.2, 0..3u8),
    )
        .prop_map(|(max, visibility, attempt)| Step::Receive {
            max,
            visibility,
            attempt,
        });
    let index = any::<prop::sample::Index>;
    let step = prop_oneof![
        12 => send,
        10 => receive,
        4 => index().prop_map(Step::Acknowledge),
        8 => (0..6usize).prop_map(Step::AcknowledgeLate),
        2 => (index(), 0..70u64).prop_map(|(lease, after)| Step::Change(lease, after)),
        3 => (index(), prop_oneof![Just(0u64), 0..70u64])
            .prop_map(|(lease, after)| Step::Release(lease, after)),
        5 => (0..15u64).prop_map(Step::Pass),
        3 => Just(Step::PassToNext),
        1 => (100..400u64).prop_map(Step::Pass),
    ];
    let rare = prop_oneof![
        Just(Step::Purge),
        (0..40u64).prop_map(Step::VisibilityTimeout),
        (0..10u64).prop_map(Step::Delay),
        prop::option::of(1..60u64).prop_map(Step::Retention),
        prop::option::of(1..4u32).prop_map(Step::MaxReceives),
        (1..12usize).prop_map(Step::MaxInFlight),
        prop::option::of(1..20usize).prop_map(Step::Capacity),
    ];
    prop::collection::vec(prop_oneof![30 => step, 1 => rare], 1..200)
}

fn rules(order: Order) -> Rules {
    let kind = match order {
        Order::Standard => Kind::Standard,
        Order::Fair => Kind::Fair(FairConfig {
            min_in_flight: MIN_IN_FLIGHT,
            processing_share: 100,
            ..FairConfig::default()
        }),
        Order::Fifo => Kind::Fifo(FifoConfig {
            message_delay: MessageDelay::PerMessage,
            deduplication_limit: 4,
            attempt_limit: 1000,
            ..FifoConfig::default()
        }),
    };
    let mut rules = Rules::new(kind);
    rules.max_lease = secs(100);
    rules.idle_groups = 1;
    rules.max_receives = Some(3);
    rules
}

struct Pair {
    machine: Machine<u32>,
    naive: Naive,
    now: u64,
    leases: Vec<Leased<u32>>,
    next: u32,
}

impl Pair {
    fn new(order: Order) -> Self {
        let rules = rules(order);
        Self {
            machine: Machine::new(rules.clone()).unwrap(),
            naive: Naive {
                rules,
                order,
                messages: Vec::new(),
                visible: Vec::new(),
                ready: VecDeque::new(),
                dedup: BTreeMap::new(),
                attempts: BTreeMap::new(),
                sent: 0,
            },
            now: 0,
            leases: Vec::new(),
            next: 0,
        }
    }

    fn advance(&mut self) {
        let mut effects = Vec::new();
        self.machine.advance(at(self.now), &mut effects);
        self.naive.follow(self.now, &effects);
    }

    fn step(&mut self, step: &Step) {
        let gave = self.naive.gives();
        match step {
            Step::Send(send) => self.send(send),
            Step::Receive {
                max,
                visibility,
                attempt,
            } => {
                let attempt = attempt.filter(|_| self.naive.order == Order::Fifo);
                self.receive(*max, *visibility, attempt);
            }
            Step::Acknowledge(index) => {
                if !self.leases.is_empty() {
                    self.acknowledge(self.leases[index.index(self.leases.len())]);
                }
            }
            Step::AcknowledgeLate(back) => {
                if let Some(at) = self.leases.len().checked_sub(1 + back) {
                    self.acknowledge(self.leases[at]);
                }
            }
            Step::Change(index, after) | Step::Release(index, after) => {
                if !self.leases.is_empty() {
                    let lease = self.leases[index.index(self.leases.len())];
                    let release = matches!(step, Step::Release(..));
                    let wakes = self.end(lease, *after, release);
                    assert!(
                        wakes || gave || !self.naive.gives(),
                        "a receiver must be told"
                    );
                }
            }
            Step::Pass(seconds) => self.now += seconds,
            Step::PassToNext => {
                if let Some(next) = self.naive.next_deadline() {
                    self.now = self.now.max(next);
                }
            }
            Step::Purge => {
                let mut effects = Vec::new();
                self.machine.purge(at(self.now), &mut effects);
                let mut purged: Vec<u32> = effects
                    .iter()
                    .map(|effect| match effect {
                        Effect::Purged { m, .. } => *m,
                        other => panic!("{other:?}"),
                    })
                    .collect();
                purged.sort_unstable();
                assert!(
                    purged
                        .iter()
                        .eq(self.naive.messages.iter().map(|message| &message.m))
                );
                self.naive.messages.clear();
                self.naive.visible.clear();
                self.naive.ready.clear();
            }
            Step::VisibilityTimeout(seconds) => {
                self.machine.set_visibility_timeout(secs(*seconds)).unwrap();
                self.naive.rules.visibility_timeout = secs(*seconds);
            }
            Step::Delay(seconds) => {
                self.machine.set_delay(secs(*seconds));
                self.naive.rules.delay = secs(*seconds);
                if self.naive.order == Order::Fifo {
                    for message in &mut self.naive.messages {
                        if message.state == State::Delayed && !message.changed {
                            message.until = message.entered + seconds;
                        }
                    }
                }
            }
            Step::Retention(seconds) => {
                let retention = seconds.map(secs);
                let mut effects = Vec::new();
                self.naive.rules.retention = retention;
                self.machine
                    .set_retention(at(self.now), retention, &mut effects)
                    .unwrap();
                self.naive.follow(self.now, &effects);
            }
            Step::MaxReceives(max) => {
                let mut effects = Vec::new();
                self.machine
                    .set_max_receives(at(self.now), *max, &mut effects)
                    .unwrap();
                self.naive.rules.max_receives = *max;
                let dead: Vec<u32> = effects
                    .iter()
                    .map(|effect| match effect {
                        Effect::DeadLetter(letter) => letter.m,
                        other => panic!("{other:?}"),
                    })
                    .collect();
                for m in dead {
                    let at = self.naive.at(m).unwrap();
                    let message = self.naive.remove(at);
                    assert!(message.state == State::Visible && Some(message.count) >= *max);
                }
                let left = self.naive.messages.iter().find(|message| {
                    message.state == State::Visible && max.is_some_and(|max| message.count >= max)
                });
                assert!(left.is_none());
            }
            Step::MaxInFlight(max) => {
                self.machine.set_max_in_flight(*max).unwrap();
                self.naive.rules.max_in_flight = *max;
            }
            Step::Capacity(capacity) => {
                self.machine.set_capacity(*capacity).unwrap();
                self.naive.rules.capacity = *capacity;
            }
        }
        self.advance();
        self.compare();
    }

    fn send(&mut self, send: &Send) {
        let m = self.next;
        self.next += 1;
        let gave = self.naive.gives();
        let expected = self.naive.send(self.now, m, send);
        let group = send.group.map(|group| super::group(&group.to_string()));
        let key = send
            .dedup
            .filter(|_| self.naive.order == Order::Fifo)
            .map(|key| DedupKey::Id(DeduplicationId::new(key.to_string()).unwrap()));
        let admission = Admission {
            delay: send.delay.map(secs),
            group: group.as_ref(),
            dedup: key.as_ref(),
            sent_at: Some(at(self.now.saturating_sub(send.before))),
            id: u128::from(m),
        };
        let got = self.machine.send(at(self.now), m, &admission);
        let wakes = got.is_ok_and(|accepted| accepted.wakes);
        let got = got.map(|accepted| (accepted.sequence.get(), accepted.visible_now));
        assert_eq!(got, expected);
        assert!(
            wakes || gave || !self.naive.gives(),
            "a receiver must be told"
        );
    }

    fn receive(&mut self, max: usize, visibility: Option<u64>, attempt: Option<u8>) {
        let id = attempt.map(|id| ReceiveAttemptId::new(id.to_string()).unwrap());
        let mut out = Vec::new();
        let timeout = visibility.map(secs);
        let now = at(self.now);
        let got = self
            .machine
            .receive(now, max, timeout, id.as_ref(), &mut out);
        self.machine.check_invariants();
        let naive = &mut self.naive;
        naive
            .attempts
            .retain(|_, attempt| self.now < attempt.made + 300);
        if let Some(id) = attempt {
            if let Some(old) = naive.attempts.get_mut(&id)
                && self.now < old.deadline
            {
                let leases = old.leases.clone();
                let touched = leases.iter().any(|&(m, count)| {
                    naive.at(m).is_none_or(|at| {
                        let message = &naive.messages[at];
                        message.state != State::InFlight
                            || message.count != count
                            || !message.held
                            || message.changed
                    })
                });
                if touched {
                    assert_eq!(got, Err(ReceiveError::AttemptSpent));
                    return;
                }
                assert_eq!(got, Ok(leases.len()));
                let timeout = visibility.unwrap_or(naive.rules.visibility_timeout.as_secs());
                let mut deadline = u64::MAX;
                for (&(m, _), leased) in leases.iter().zip(&out) {
                    let at = naive.at(m).unwrap();
                    let message = &mut naive.messages[at];
                    message.until = (self.now + timeout).min(message.received + 100);
                    deadline = deadline.min(message.until);
                    naive.check_leased(m, leased);
                }
                naive.attempts.get_mut(&id).unwrap().deadline = deadline;
                return;
            }
            naive.attempts.remove(&id);
        }
        let full = naive.count(State::InFlight) >= naive.rules.max_in_flight;
        if full && naive.order != Order::Fifo {
            assert_eq!(got, Err(ReceiveError::OverLimit));
            return;
        }
        assert_eq!(got, Ok(out.len()));
        naive.receive(self.now, max, visibility, &out);
        if let (Some(id), Some(first)) = (attempt, out.first()) {
            let attempt = Attempt {
                made: self.now,
                deadline: first.deadline.as_nanos() / 1_000_000_000,
                leases: out
                    .iter()
                    .map(|leased| (leased.m, leased.receive_count))
                    .collect(),
            };
            naive.attempts.insert(id, attempt);
        }
        self.leases.extend(out);
    }

    fn acknowledge(&mut self, lease: Leased<u32>) {
        let got = self
            .machine
            .acknowledge(at(self.now), lease.key, lease.lease);
        let naive = &mut self.naive;
        let gave = naive.gives();
        let holder = naive.holder(lease.m, lease.lease).filter(|&at| {
            let message = &naive.messages[at];
            naive.order != Order::Fifo
                || (message.state == State::InFlight && self.now < message.until)
        });
        match holder {
            None => assert_eq!(got, Err(Stale)),
            Some(at) => {
                naive.remove(at);
                let acknowledged = got.unwrap();
                assert_eq!(acknowledged.m, lease.m);
                let wakes = acknowledged.wakes;
                assert!(wakes || gave || !naive.gives(), "a receiver must be told");
            }
        }
    }

    /// Whether a receiver was told.
    fn end(&mut self, lease: Leased<u32>, after: u64, release: bool) -> bool {
        let (now, d) = (at(self.now), secs(after));
        let got = if release {
            self.machine.release(now, lease.key, lease.lease, d)
        } else {
            self.machine
                .change_visibility(now, lease.key, lease.lease, d)
        };
        let naive = &mut self.naive;
        let holder = naive.holder(lease.m, lease.lease).filter(|&at| {
            let message = &naive.messages[at];
            message.state == State::InFlight && self.now < message.until
        });
        let Some(holder) = holder else {
            assert_eq!(got, Err(ChangeError::Stale));
            return false;
        };
        let message = &mut naive.messages[holder];
        if after > 0 {
            if self.now + after > message.received + 100 {
                let latest = at(message.received + 100);
                assert_eq!(got, Err(ChangeError::TooLong { latest }));
                return false;
            }
            message.until = self.now + after;
            message.changed = true;
            message.held &= !release;
            let deadline = at(self.now + after);
            assert_eq!(got, Ok(Disposition::InFlight { deadline }));
            return false;
        }
        message.held &= !release;
        let dead = naive.end_lease(holder);
        match got.unwrap() {
            Disposition::Visible { wakes } => {
                assert!(!dead);
                wakes
            }
            Disposition::DeadLetter(letter) => {
                assert!(dead && letter.m == lease.m);
                letter.wakes
            }
            Disposition::InFlight { .. } => panic!("the lease ended"),
        }
    }

    fn compare(&self) {
        self.machine.check_invariants();
        let naive = &self.naive;
        let stats = self.machine.stats(at(self.now));
        assert_eq!(stats.visible, naive.count(State::Visible));
        assert_eq!(stats.delayed, naive.count(State::Delayed));
        assert_eq!(stats.in_flight, naive.count(State::InFlight));
        assert_eq!(self.machine.next_deadline(), naive.next_deadline().map(at));
        let mut expected: Vec<&Message> = naive.messages.iter().collect();
        expected.sort_by_key(|message| (message.sent, message.sequence));
        let mut left = expected.iter();
        for content in self.machine.contents() {
            let message = left.next().expect("as many");
            assert_eq!((content.m, content.state), (message.m, message.state));
            assert_eq!(content.receive_count, message.count);
            let until = (message.state != State::Visible).then(|| at(message.until));
            assert_eq!(
                (content.sent_at, content.deadline),
                (at(message.sent), until)
            );
        }
        assert!(left.next().is_none());
        let age = |message: &&&Message| secs(self.now - message.sent);
        assert_eq!(stats.oldest_age, expected.first().as_ref().map(age));
        let visible = expected
            .iter()
            .find(|message| message.state == State::Visible);
        assert_eq!(
            stats.oldest_visible_age,
            visible.as_ref().map(|m| secs(self.now - m.sent))
        );
        if naive.order == Order::Fair {
            let noisy = (0..4).filter(|&group| naive.is_noisy(group)).count();
            assert_eq!(stats.noisy_groups, noisy);
        }
        let stored = stats.deleted + stats.dead_lettered + stats.expired + stats.purged;
        assert_eq!(
            stats.sent,
            stored + naive.messages.len() as u64,
            "nothing lost or doubled"
        );
    }
}

fn play(order: Order, steps: &[Step]) {
    let mut pair = Pair::new(order);
    for step in steps {
        pair.step(step);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_standard_queue_does_what_a_naive_one_does(steps in steps()) {
        play(Order::Standard, &steps);
    }

    #[test]
    fn a_fair_queue_does_what_a_naive_one_does(steps in steps()) {
        play(Order::Fair, &steps);
    }

    #[test]
    fn a_fifo_queue_does_what_a_naive_one_does(steps in steps()) {
        play(Order::Fifo, &steps);
    }
}
