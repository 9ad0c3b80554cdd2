//! A queue and its oracle, driven by the same history.
//!
//! The oracle serves what is due where the queue promises to: before sends, receives, verdicts by receipt
//! and looks at the queue. A verdict on a delivery is judged by the time alone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sim_core::clock::{Clock, VirtualClock};
use sim_core::id::Id;
use sim_core::sync::Arc;
use sim_core::time::{Instant, Timestamp};
use sim_queue::machine::{
    Admission, ChangeError, DedupKey, Disposition, Effect, Leased, Machine, MessageKey, NotStored,
    ReceiveError, State,
};
use sim_queue::{
    DeadLetterPolicy, DeduplicationId, Delivery, ExtendError, GroupId, InvalidReceive, Kind,
    Limits, Message, OnDrop, Queue, QueueConfig, Receipt, Receive, Refusal, Sent, Stale,
    TryReceiveError, TrySendError,
};

use crate::history::{Pass, Send, Setup, Step};
use crate::token::{Drops, Letter, Letters, Token};

/// The longest lease in the histories, in seconds.
const MAX_LEASE: u64 = 100;

pub(crate) fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub(crate) fn group(n: u8) -> GroupId {
    GroupId::new(format!("group-{n}")).unwrap()
}

/// A delivery, and what the oracle calls it.
struct Hand {
    m: u32,
    key: MessageKey,
    lease: u64,
    received_at: Instant,
    delivery: Delivery<Token>,
}

/// A receipt, and what the oracle calls it.
#[derive(Clone, Copy)]
struct Named {
    m: u32,
    key: MessageKey,
    lease: u64,
    received_at: Instant,
    receipt: Receipt,
}

pub(crate) struct Pair {
    queue: Queue<Token>,
    clock: Clock,
    hand: VirtualClock,
    machine: Machine<u32>,
    setup: Setup,
    drops: Arc<Drops>,
    letters: Arc<Letters>,
    ids: BTreeMap<u32, Id>,
    keys: BTreeMap<u32, MessageKey>,
    hands: Vec<Hand>,
    receipts: Vec<Named>,
    /// Dead, but somebody still looks at them.
    doomed: BTreeMap<u32, Letter>,
    died: Vec<Letter>,
    /// Too old since they were visible, on a standard queue: see `compare`.
    lingering: BTreeSet<u32>,
    empty: u64,
    released: u64,
    rejected: u64,
}

impl Pair {
    pub(crate) fn new(kind: Kind, setup: &Setup) -> Self {
        // What lingers on a standard queue (see `compare`) takes room.
        let lingers = kind == Kind::Standard && setup.retention.is_some();
        let capacity = setup.capacity.filter(|_| !lingers);
        let config = QueueConfig {
            kind,
            visibility_timeout: secs(setup.visibility),
            delay: secs(setup.delay),
            retention: setup.retention.map(secs),
            capacity,
            max_in_flight: setup.max_in_flight,
            on_drop: match setup.on_drop {
                0 => OnDrop::Return,
                1 => OnDrop::Expire,
                _ => OnDrop::Acknowledge,
            },
            limits: Limits {
                visibility: secs(MAX_LEASE),
                ..Limits::default()
            },
            ..QueueConfig::new("model")
        };
        let (clock, hand) = Clock::virtual_at(Timestamp::from_unix_millis(1_700_000_000_000));
        let mut rules = config.rules();
        rules.max_receives = setup.max_receives;
        let machine = Machine::new(rules).unwrap();
        let queue = Queue::with_clock(config, clock.clone()).unwrap();
        let letters = Arc::new(Letters::default());
        if let Some(max) = setup.max_receives {
            let sink: Arc<Letters> = Arc::clone(&letters);
            queue
                .set_dead_letters(DeadLetterPolicy::to_sink(sink, max))
                .unwrap();
        }
        Self {
            queue,
            clock,
            hand,
            machine,
            setup: setup.clone(),
            drops: Arc::default(),
            letters,
            ids: BTreeMap::new(),
            keys: BTreeMap::new(),
            hands: Vec::new(),
            receipts: Vec::new(),
            doomed: BTreeMap::new(),
            died: Vec::new(),
            lingering: BTreeSet::new(),
            empty: 0,
            released: 0,
            rejected: 0,
        }
    }

    fn now(&self) -> Instant {
        self.hand.now()
    }

    fn is_standard(&self) -> bool {
        matches!(self.machine.rules().kind, Kind::Standard)
    }

    fn is_fifo(&self) -> bool {
        matches!(self.machine.rules().kind, Kind::Fifo(_))
    }

    /// Plays a history to its end, then empties the queue and checks that nothing is left of it.
    pub(crate) fn play(mut self, steps: &[Step]) {
        for step in steps {
            self.step(step);
        }
        self.finish();
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Send(send) => self.send(send),
            Step::SendBatch(sends) => self.send_batch(sends),
            Step::SendValues(count) => self.send_values(*count),
            Step::ReceiveOne => self.receive_one(),
            Step::Receive {
                max,
                visibility,
                attempt,
            } => {
                self.receive(*max, visibility.map(secs), *attempt);
            }
            Step::Pass(pass, looks) => {
                self.pass(*pass);
                if !looks {
                    return;
                }
            }
            Step::Purge => self.purge(),
            Step::VisibilityTimeout(seconds) => {
                self.queue.set_visibility_timeout(secs(*seconds)).unwrap();
                self.machine.set_visibility_timeout(secs(*seconds)).unwrap();
            }
            Step::Delay(seconds) => {
                self.queue.set_delay(secs(*seconds)).unwrap();
                self.machine.set_delay(secs(*seconds));
            }
            Step::AcknowledgeReceipt(at) if !self.receipts.is_empty() => {
                let named = self.receipts[at.index(self.receipts.len())];
                self.acknowledge_receipt(named);
            }
            Step::ChangeReceipt(at, after) if !self.receipts.is_empty() => {
                let named = self.receipts[at.index(self.receipts.len())];
                self.change_receipt(named, secs(*after));
            }
            Step::AcknowledgeReceipt(_) | Step::ChangeReceipt(..) => {}
            Step::Acknowledge(at)
            | Step::Release(at)
            | Step::ReleaseAfter(at, _)
            | Step::Extend(at, _)
            | Step::Reject(at)
            | Step::Drop(at)
            | Step::IntoReceipt(at) => {
                if !self.hands.is_empty() {
                    let at = at.index(self.hands.len());
                    self.verdict(at, step);
                }
            }
        }
        self.compare();
    }

    fn verdict(&mut self, at: usize, step: &Step) {
        // A lease ends with its message's retention, on a standard queue also if nobody has looked.
        let delivery = &self.hands[at].delivery;
        let kept = self
            .setup
            .retention
            .map(|kept| delivery.sent_instant() + secs(kept));
        let is_old = kept.is_some_and(|end| end <= self.now());
        let acknowledges = matches!(step, Step::Acknowledge(_))
            || matches!(step, Step::Drop(_)) && self.setup.on_drop == 2;
        if is_old && self.is_standard() && !acknowledges {
            self.serve();
        }
        if let Step::Extend(_, after) = step {
            self.extend(at, secs(*after));
            return;
        }
        let hand = self.hands.swap_remove(at);
        let m = hand.m;
        match step {
            Step::Acknowledge(_) => self.acknowledge(hand),
            Step::Release(_) => self.release(hand),
            Step::ReleaseAfter(_, after) => self.release_after(hand, secs(*after)),
            Step::Reject(_) => self.reject(hand),
            Step::Drop(_) => self.drop(hand),
            _ => drop(hand.delivery.into_receipt()),
        }
        self.left(m);
    }

    fn pass(&mut self, pass: Pass) {
        let next = self
            .machine
            .next_deadline()
            .filter(|next| *next > self.now());
        match pass {
            Pass::Seconds(n) => self.hand.advance(secs(n)),
            Pass::ToNext => self.hand.advance_to(next.unwrap_or(self.now())),
            Pass::JustBefore => {
                if let Some(next) = next {
                    self.hand
                        .advance_to(Instant::from_nanos(next.as_nanos() - 1));
                }
            }
        }
    }

    // ---- sending -------------------------------------------------------------------------------------

    fn message(&mut self, send: &Send) -> (Message<Token>, u32) {
        let token = self.drops.token();
        let m = token.id;
        let mut message = Message::new(token);
        if self.has_group(send) {
            message = message.group(group(send.group));
        }
        if let Some(key) = send.dedup.filter(|_| self.is_fifo()) {
            message = message.deduplication_id(DeduplicationId::new(key.to_string()).unwrap());
        }
        if let Some(delay) = send.delay {
            message = message.delay(secs(delay));
        }
        (message, m)
    }

    /// The last of the tenants of a fair queue stands for messages without one.
    fn has_group(&self, send: &Send) -> bool {
        !self.is_standard() && (self.is_fifo() || send.group != 3)
    }

    /// What the oracle says to the same message.
    fn admit(&mut self, send: Option<&Send>, m: u32) -> Result<u64, NotStored> {
        let given = send
            .filter(|send| self.has_group(send))
            .map(|send| group(send.group));
        let key = send
            .and_then(|send| send.dedup)
            .filter(|_| self.is_fifo())
            .map(|key| DedupKey::Id(DeduplicationId::new(key.to_string()).unwrap()));
        let admission = Admission {
            delay: send.and_then(|send| send.delay).map(secs),
            group: given.as_ref(),
            dedup: key.as_ref(),
            sent_at: None,
            id: u128::from(m),
        };
        let accepted = self.machine.send(self.now(), m, &admission)?;
        self.keys.insert(m, accepted.key);
        Ok(accepted.sequence.get())
    }

    fn judge_send(&mut self, send: &Send, m: u32, got: Result<Sent, TrySendError<Token>>) {
        match (self.admit(Some(send), m), got) {
            (Ok(sequence), Ok(sent)) => {
                assert!(!sent.duplicate);
                let expected = self.is_fifo().then_some(sequence);
                assert_eq!(sent.sequence.map(|sequence| sequence.get()), expected);
                self.ids.insert(m, sent.id);
            }
            (Err(NotStored::Duplicate(first)), Ok(sent)) => {
                assert!(sent.duplicate);
                let first_m = u32::try_from(first.id).unwrap();
                assert_eq!(
                    (sent.id, sent.sequence),
                    (self.ids[&first_m], Some(first.sequence))
                );
            }
            (Err(why), Err(error)) => {
                let reason = match why {
                    NotStored::Full => Refusal::Full,
                    NotStored::DelayNotAllowed => Refusal::DelayOnFifo,
                    NotStored::MissingDeduplication => Refusal::MissingDeduplicationId,
                    other => panic!("unexpected: {other}"),
                };
                assert_eq!(error.reason, reason);
                assert_eq!(error.into_value().id, m, "what was not sent comes back");
            }
            (expected, got) => panic!("message {m}: expected {expected:?}, got {got:?}"),
        }
    }

    fn send(&mut self, send: &Send) {
        self.serve();
        let (message, m) = self.message(send);
        let got = self.queue.try_send(message);
        self.judge_send(send, m, got);
    }

    fn send_batch(&mut self, sends: &[Send]) {
        self.serve();
        let mut messages = Vec::new();
        let mut ms = Vec::new();
        for send in sends {
            let (message, m) = self.message(send);
            messages.push(message);
            ms.push(m);
        }
        let mut blocked = Vec::new();
        let results = self.queue.try_send_batch(messages);
        for ((send, m), got) in sends.iter().zip(ms).zip(results) {
            if self.is_fifo() && blocked.contains(&send.group) {
                assert_eq!(
                    got.unwrap_err().reason,
                    Refusal::Full,
                    "nothing overtakes in a group"
                );
                continue;
            }
            if got.as_ref().is_err_and(|error| error.reason.is_temporary()) {
                blocked.push(send.group);
            }
            self.judge_send(send, m, got);
        }
    }

    fn send_values(&mut self, count: usize) {
        if self.is_fifo() {
            return;
        }
        self.serve();
        let mut values: Vec<Token> = (0..count).map(|_| self.drops.token()).collect();
        let ms: Vec<u32> = values.iter().map(|token| token.id).collect();
        let got = self.queue.try_send_values(&mut values);
        let mut taken = 0;
        for &m in &ms {
            match self.admit(None, m) {
                Ok(_) => taken += 1,
                Err(why) => {
                    assert_eq!(why, NotStored::Full);
                    break;
                }
            }
        }
        match got {
            Ok(sent) => assert_eq!(sent, taken),
            Err(reason) => assert_eq!((reason, taken), (Refusal::Full, 0)),
        }
        let left: Vec<u32> = values.iter().map(|token| token.id).collect();
        assert_eq!(left, ms[taken..], "what was not sent stays, in order");
    }

    // ---- receiving -----------------------------------------------------------------------------------

    fn receive_one(&mut self) {
        self.serve();
        let got = self.queue.try_receive().map(|delivery| vec![delivery]);
        self.judge_receive(1, None, None, got);
    }

    fn receive(&mut self, max: usize, visibility: Option<Duration>, attempt: Option<u8>) {
        self.serve();
        let attempt = attempt.filter(|_| self.is_fifo());
        let attempt =
            attempt.map(|id| sim_queue::ReceiveAttemptId::new(format!("attempt-{id}")).unwrap());
        let ask = Receive {
            max,
            visibility_timeout: visibility,
            attempt,
        };
        let got = self.queue.try_receive_with(&ask);
        self.judge_receive(max, visibility, ask.attempt.as_ref(), got);
    }

    fn judge_receive(
        &mut self,
        max: usize,
        visibility: Option<Duration>,
        attempt: Option<&sim_queue::ReceiveAttemptId>,
        got: Result<Vec<Delivery<Token>>, TryReceiveError>,
    ) {
        let now = self.now();
        let mut leased = Vec::new();
        let expected = if self.is_standard() {
            self.replay_choice(max, visibility, got.as_deref().unwrap_or(&[]), &mut leased)
        } else {
            self.machine
                .receive(now, max, visibility, attempt, &mut leased)
        };
        match (expected, got) {
            (Ok(0), Err(TryReceiveError::Empty)) => self.empty += 1,
            (Ok(count), Ok(deliveries)) => {
                assert!(count > 0);
                let got: Vec<u32> = deliveries.iter().map(|delivery| delivery.id).collect();
                let expected: Vec<u32> = leased.iter().map(|leased| leased.m).collect();
                assert_eq!(got, expected, "the same messages in the same order");
                for (leased, delivery) in leased.into_iter().zip(deliveries) {
                    self.take(&leased, delivery);
                }
            }
            (Err(ReceiveError::OverLimit), Err(TryReceiveError::OverLimit { limit })) => {
                assert_eq!(limit, self.setup.max_in_flight);
            }
            (
                Err(ReceiveError::AttemptSpent),
                Err(TryReceiveError::Invalid(InvalidReceive::AttemptChanged)),
            ) => {}
            (expected, got) => panic!("expected {expected:?}, got {got:?}"),
        }
    }

    /// The machine receives what the queue chose: as many as it may, each of them visible.
    fn replay_choice(
        &mut self,
        max: usize,
        visibility: Option<Duration>,
        got: &[Delivery<Token>],
        leased: &mut Vec<Leased<u32>>,
    ) -> Result<usize, ReceiveError> {
        let now = self.now();
        let stats = self.machine.stats(now);
        if stats.in_flight >= self.setup.max_in_flight {
            return Err(ReceiveError::OverLimit);
        }
        let room = self.setup.max_in_flight - stats.in_flight;
        for delivery in got {
            let key = self.keys[&delivery.id];
            match self.machine.receive_this(now, key, visibility) {
                Some(one) => leased.push(one),
                None => panic!("message {} was received, but is not visible", delivery.id),
            }
        }
        Ok(max.min(room).min(stats.visible))
    }

    fn take(&mut self, leased: &Leased<u32>, delivery: Delivery<Token>) {
        let now = self.now();
        assert_eq!(delivery.receive_count(), leased.receive_count);
        assert_eq!(delivery.sent_instant(), leased.sent_at);
        assert_eq!(delivery.sent_at(), self.clock.timestamp(leased.sent_at));
        assert_eq!(delivery.received_at(), now);
        let first = self
            .clock
            .timestamp(leased.first_received.max(Instant::from_nanos(1)));
        assert_eq!(delivery.first_received_at(), first);
        assert_eq!(delivery.group(), self.machine.group_of(leased.key));
        assert_eq!(
            delivery.sequence(),
            self.is_fifo().then_some(leased.sequence)
        );
        if let Some(id) = self.ids.get(&leased.m) {
            assert_eq!(delivery.id(), *id);
        }
        let receipt: Receipt = delivery.receipt().to_string().parse().unwrap();
        assert_eq!(receipt, delivery.receipt());
        let (m, key, lease) = (leased.m, leased.key, leased.lease);
        self.receipts.push(Named {
            m,
            key,
            lease,
            received_at: now,
            receipt,
        });
        self.hands.push(Hand {
            m,
            key,
            lease,
            received_at: now,
            delivery,
        });
    }

    // ---- verdicts ------------------------------------------------------------------------------------

    fn is_held(&self, m: u32) -> bool {
        self.hands.iter().any(|hand| hand.m == m)
    }

    fn acknowledge(&mut self, hand: Hand) {
        let expected = self.machine.acknowledge(self.now(), hand.key, hand.lease);
        let got = hand.delivery.acknowledge();
        self.judge_acknowledge(hand.m, expected.is_ok(), got);
    }

    fn judge_acknowledge(&self, m: u32, expected: bool, got: Result<Option<Token>, Stale>) {
        if !self.lingering.contains(&m) {
            assert_eq!(got.is_ok(), expected, "acknowledgement of message {m}");
        }
        if let Ok(value) = got {
            let id = value.as_ref().map(|token| token.id);
            assert_eq!(
                id,
                (!self.is_held(m)).then_some(m),
                "the value, if nobody looks at it"
            );
        }
    }

    fn acknowledge_receipt(&mut self, named: Named) {
        self.serve();
        let expected = self.machine.acknowledge(self.now(), named.key, named.lease);
        let got = self.queue.acknowledge(&named.receipt);
        self.judge_acknowledge(named.m, expected.is_ok(), got);
    }

    fn change_receipt(&mut self, named: Named, after: Duration) {
        self.serve();
        let (key, lease) = (named.key, named.lease);
        let expected = self
            .machine
            .change_visibility(self.now(), key, lease, after);
        let got = self.queue.change_visibility(&named.receipt, after);
        self.judge_change(named.m, named.received_at, after, expected, got);
    }

    fn judge_change(
        &mut self,
        m: u32,
        received_at: Instant,
        after: Duration,
        expected: Result<Disposition<u32>, ChangeError>,
        got: Result<(), ExtendError>,
    ) {
        let too_long = self.now() + after - received_at > secs(MAX_LEASE);
        match (expected, got) {
            (Ok(Disposition::DeadLetter(letter)), Ok(())) => {
                self.dies(letter.m, letter.receive_count, false);
            }
            (Ok(_), Ok(())) | (Err(ChangeError::Stale), Err(ExtendError::Stale(_))) => {}
            (Err(ChangeError::TooLong { .. }), Err(ExtendError::TooLong { .. })) => {}
            // Both are true: which one is said is open.
            (Err(ChangeError::Stale), Err(ExtendError::TooLong { .. })) if too_long => {}
            (expected, got) => panic!("message {m}: expected {expected:?}, got {got:?}"),
        }
    }

    fn extend(&mut self, at: usize, after: Duration) {
        let now = self.now();
        let hand = &mut self.hands[at];
        let (m, received_at) = (hand.m, hand.received_at);
        let expected = self
            .machine
            .change_visibility(now, hand.key, hand.lease, after);
        let got = hand.delivery.extend(after);
        self.judge_change(m, received_at, after, expected, got);
    }

    /// Ends a lease at once; whether it ran.
    fn give_back(&mut self, key: MessageKey, lease: u64) -> bool {
        let now = self.now();
        // A released message can still be acknowledged by receipt on a standard queue, as in SQS.
        let ended = if self.is_standard() {
            self.machine
                .change_visibility(now, key, lease, Duration::ZERO)
        } else {
            self.machine.release(now, key, lease, Duration::ZERO)
        };
        self.released += u64::from(ended.is_ok());
        if let Ok(Disposition::DeadLetter(letter)) = ended {
            self.dies(letter.m, letter.receive_count, false);
        }
        ended.is_ok()
    }

    fn release(&mut self, hand: Hand) {
        let expected = self.give_back(hand.key, hand.lease);
        let got = hand.delivery.release();
        assert_eq!(got.is_ok(), expected, "release of message {}", hand.m);
    }

    fn release_after(&mut self, hand: Hand, after: Duration) {
        let Hand {
            m,
            key,
            lease,
            received_at,
            delivery,
        } = hand;
        let now = self.now();
        // As after a release: at once, its receipts still acknowledge on a standard queue.
        let expected = if self.is_standard() && after.is_zero() {
            self.machine.change_visibility(now, key, lease, after)
        } else {
            self.machine.release(now, key, lease, after)
        };
        self.released += u64::from(expected.is_ok());
        let got = delivery.release_after(after);
        self.judge_change(m, received_at, after, expected, got);
    }

    fn reject(&mut self, hand: Hand) {
        let Hand {
            m,
            key,
            lease,
            delivery,
            ..
        } = hand;
        let now = self.now();
        let expected = if self.setup.max_receives.is_none() {
            self.give_back(key, lease)
        } else {
            let runs = self.machine.contents().any(|content| {
                content.key == key
                    && content.state == State::InFlight
                    && u64::from(content.receive_count) == lease
                    && content.deadline.is_some_and(|deadline| deadline > now)
            });
            let runs = runs && self.machine.acknowledge(now, key, lease).is_ok();
            if runs {
                self.rejected += 1;
                self.dies(m, u32::try_from(lease).unwrap(), true);
            }
            runs
        };
        assert_eq!(
            delivery.reject().is_ok(),
            expected,
            "rejection of message {m}"
        );
    }

    fn drop(&mut self, hand: Hand) {
        match self.setup.on_drop {
            0 => drop(self.give_back(hand.key, hand.lease)),
            1 => {}
            _ => drop(self.machine.acknowledge(self.now(), hand.key, hand.lease)),
        }
        drop(hand.delivery);
    }

    fn purge(&mut self) {
        let mut effects = Vec::new();
        self.machine.purge(self.now(), &mut effects);
        let purged = self.queue.purge();
        let expected = effects.len() as u64;
        let lingering = self.lingering.len() as u64;
        assert!(
            (expected..=expected + lingering).contains(&purged),
            "messages purged"
        );
    }

    // ---- comparing -----------------------------------------------------------------------------------

    fn dies(&mut self, m: u32, receive_count: u32, rejected: bool) {
        let letter = Letter {
            m,
            receive_count,
            rejected,
        };
        if self.is_held(m) {
            self.doomed.insert(m, letter);
        } else {
            self.died.push(letter);
        }
    }

    /// A delivery of `m` has gone.
    fn left(&mut self, m: u32) {
        if !self.is_held(m)
            && let Some(letter) = self.doomed.remove(&m)
        {
            self.died.push(letter);
        }
    }

    /// The oracle serves what is due.
    fn serve(&mut self) {
        let mut effects = Vec::new();
        self.machine.advance(self.now(), &mut effects);
        for effect in effects {
            match effect {
                Effect::DeadLetter(letter) => self.dies(letter.m, letter.receive_count, false),
                Effect::Expired {
                    m,
                    was: State::Visible,
                    ..
                } if self.is_standard() => {
                    self.lingering.insert(m);
                }
                _ => {}
            }
        }
    }

    /// Compares all counts.
    ///
    /// On a standard queue a message that came back and grew too old since is never received again, but may
    /// stand behind younger ones and be counted as visible until it comes to the front; until then it can be
    /// acknowledged late or purged.
    fn compare(&mut self) {
        self.serve();
        let now = self.now();
        let stats = self.queue.stats();
        let oracle = self.machine.stats(now);
        let deleted = oracle.deleted - self.rejected;
        let lag = oracle
            .expired
            .checked_sub(stats.expired)
            .expect("nothing expires too early");
        assert!(
            lag <= self.lingering.len() as u64,
            "{lag} messages are kept for too long"
        );
        assert!(stats.deleted >= deleted && stats.purged >= oracle.purged);
        let late = (stats.deleted - deleted) + (stats.purged - oracle.purged);
        assert!(late <= lag, "{late} messages too many ended, {lag} linger");
        let doomed = self.doomed.len() as u64;
        let mut expected = stats;
        expected.visible = oracle.visible as u64 + lag - late;
        expected.in_flight = oracle.in_flight as u64 + doomed;
        expected.delayed = oracle.delayed as u64;
        if !self.is_standard() {
            expected.oldest_age = oracle.oldest_visible_age;
        }
        expected.sent = oracle.sent;
        expected.received = oracle.received;
        expected.empty_receives = self.empty;
        expected.redriven = self.died.len() as u64;
        expected.moved = 0;
        expected.lapsed = oracle.timed_out;
        expected.released = self.released;
        expected.deduplicated = oracle.deduplicated;
        expected.groups_in_flight = oracle.groups_in_flight as u64;
        expected.noisy_groups = oracle.noisy_groups as u64;
        expected.visible_in_quiet_groups = oracle.visible_in_quiet_groups as u64;
        expected.in_flight_in_quiet_groups = oracle.in_flight_in_quiet_groups as u64;
        expected.delayed_in_quiet_groups = oracle.delayed_in_quiet_groups as u64;
        assert_eq!(stats, expected);
        let ended = stats.deleted + stats.expired + stats.redriven + stats.moved + stats.purged;
        let there = stats.visible + stats.in_flight + stats.delayed;
        assert_eq!(stats.sent, there + ended, "each message is somewhere, once");
        let mut died = self.died.clone();
        died.sort_unstable();
        assert_eq!(self.letters.sorted(), died, "dead letters");
        // Whoever sleeps until the queue's deadline must not sleep past the oracle's.
        let next = if self.is_standard() {
            self.machine
                .contents()
                .filter_map(|content| content.deadline)
                .min()
        } else {
            self.machine.next_deadline()
        };
        if let Some(next) = next {
            let announced = self.queue.next_deadline();
            assert!(
                announced.is_some_and(|announced| announced <= next),
                "next deadline: {announced:?} instead of {next:?}"
            );
        }
    }

    /// Empties the queue: each message is received and acknowledged, or ends by its own time.
    fn finish(mut self) {
        self.compare();
        while let Some(hand) = self.hands.pop() {
            let m = hand.m;
            self.drop(hand);
            self.left(m);
            self.compare();
        }
        let mut rounds = 0;
        while !self.machine.is_empty() {
            rounds += 1;
            assert!(rounds < 10_000, "the queue does not empty");
            self.receive(5, Some(secs(1)), None);
            self.compare();
            while let Some(hand) = self.hands.pop() {
                let m = hand.m;
                self.acknowledge(hand);
                self.left(m);
                self.compare();
            }
            self.pass(Pass::ToNext);
            self.compare();
        }
        // A receive comes past what lingers.
        self.receive(5, None, None);
        self.compare();
        let stats = self.queue.stats();
        assert_eq!((stats.visible, stats.in_flight, stats.delayed), (0, 0, 0));
        self.receipts.clear();
        let Self { queue, drops, .. } = self;
        drop(queue);
        drops.check();
    }
}
