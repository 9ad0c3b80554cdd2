//! The rules of a queue, pure: time, randomness and ids are arguments, and nothing else happens.
//!
//! A [`Machine`] knows where each message is (visible, delayed, in flight), who holds it, when that
//! ends and what comes then. It holds no payloads: `M` is whatever names one, say an index in a
//! slab, and each message that leaves the machine hands its `M` back, through a return value or an
//! [`Effect`].
//!
//! The machine reads no clock. Before an operation at time `now`, its owner serves what is due by
//! then with [`Machine::advance`]; an operation judges the message that it touches by `now` either
//! way, but what else is due stays as it is until then. Times must not go backwards.
//!
//! # Files
//! `rules` what a queue is told · `records` where messages stand · `timers` what time does ·
//! `redrive` how leases end · `groups` order within groups · `fair` tenants · `dedup` repeated sends ·
//! `attempts` repeated receives · `stats`.
//!
//! # Examples
//! ```
//! use sim_core::time::Instant;
//! use sim_queue::group::GroupId;
//! use sim_queue::machine::{Admission, Kind, Machine, Rules};
//!
//! let mut machine = Machine::new(Rules::new(Kind::fifo()))?;
//! let now = Instant::ORIGIN;
//! let group = GroupId::new("N14228")?;
//! for flight in [1u32, 2] {
//!     machine.send(now, flight, &Admission { group: Some(&group), ..Admission::default() })?;
//! }
//! let mut got = Vec::new();
//! machine.receive(now, 1, None, None, &mut got)?;
//! assert_eq!(got[0].m, 1);
//! // The group waits for its first message.
//! assert_eq!(machine.receive(now, 1, None, None, &mut Vec::new())?, 0);
//! machine.acknowledge(now, got[0].key, got[0].lease)?;
//! machine.receive(now, 1, None, None, &mut got)?;
//! assert_eq!(got[1].m, 2);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod attempts;
mod dedup;
mod fair;
mod groups;
mod recent;
mod records;
mod redrive;
mod rules;
mod stats;
mod timers;

#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use sim_core::time::Instant;

use crate::group::{GroupId, ReceiveAttemptId, SequenceNumber};

pub use dedup::DedupKey;
pub use records::State;
pub use rules::{
    Deduplication, DeduplicationScope, FairConfig, FifoConfig, Kind, MAX_LEASE, MessageDelay,
    Rules, RulesError,
};
pub use stats::Stats;

use attempts::Attempts;
use dedup::Dedup;
use fair::Work;
use groups::{Groups, Ring, Tally};
use records::{Hold, InLane, Link, List, NIL, Record, Table};
use stats::Counters;
use timers::{Ages, Place, Timers, Usual};

/// The rules of one queue at work.
///
/// Each operation is O(1), or O(log n) for deadlines and times of sending that are not the queue's
/// usual ones. A queued message takes 48 bytes when `M` has 32 bits, a received or delayed one 48
/// more; an empty machine has allocated nothing.
pub struct Machine<M> {
    rules: Rules,
    order: Order,
    records: Table<Record<M>>,
    holds: Table<Hold>,
    ages: Ages,
    timers: Timers,
    /// The visible messages of a standard queue.
    visible: List<InLane>,
    groups: Groups,
    /// Of all tenants together.
    work: Work,
    /// On FIFO queues.
    dedup: Option<Dedup>,
    attempts: Option<Attempts>,
    tally: Tally,
    counters: Counters,
    last_sequence: u64,
}

/// [`Kind`] without its configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Standard,
    Fair,
    Fifo,
}

/// Names a message in a machine; never reused, so an old key finds nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageKey {
    sequence: u64,
    index: u32,
}

impl MessageKey {
    /// Puts a key together from its [parts](Self::parts).
    #[must_use]
    pub const fn from_parts(index: u32, sequence: u64) -> Self {
        Self { sequence, index }
    }

    /// The key's parts, say for a receipt: its place in the machine, and its sequence number.
    #[must_use]
    pub const fn parts(self) -> (u32, u64) {
        (self.index, self.sequence)
    }
}

/// What a sender says about a message.
#[derive(Debug, Clone, Copy, Default)]
pub struct Admission<'a> {
    /// A delay of its own instead of the queue's.
    pub delay: Option<Duration>,
    /// The message group of a FIFO queue, which must have one; the tenant on a fair queue. Standard
    /// queues pay it no attention.
    pub group: Option<&'a GroupId>,
    /// What makes it a repetition of another send; only on FIFO queues.
    pub dedup: Option<&'a DedupKey>,
    /// The time of sending that it keeps, if it was sent before (a dead letter): age and retention
    /// count from it. A later time than now counts as now.
    pub sent_at: Option<Instant>,
    /// The sender's name for the message, which a repetition gets back.
    pub id: u128,
}

/// A message that a send stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// Its name.
    pub key: MessageKey,
    /// Its place in the queue's order.
    pub sequence: SequenceNumber,
    /// Whether it is visible at once, and not delayed.
    pub visible_now: bool,
    /// Whether a receiver that found nothing would find something now.
    pub wakes: bool,
}

/// The first of several equal sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct First {
    /// The id of [its admission](Admission::id).
    pub id: u128,
    /// Its sequence number.
    pub sequence: SequenceNumber,
}

/// Why a send stored nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotStored {
    /// It repeats an earlier send: for its sender, a success.
    #[error("the message was sent before")]
    Duplicate(First),
    /// As many messages wait as the capacity allows.
    #[error("the queue is full")]
    Full,
    /// As many sends are remembered as the configuration allows.
    #[error("the table of de-duplication ids is full")]
    DedupWindowFull,
    /// A FIFO message has no group.
    #[error("a message of a FIFO queue has no group")]
    MissingGroup,
    /// The queue requires an id or content hash.
    #[error("the message has neither a de-duplication id nor a content hash")]
    MissingDeduplication,
    /// A message of this FIFO queue has a delay of its own.
    #[error("a message of this FIFO queue has a delay of its own")]
    DelayNotAllowed,
    /// A message has a de-duplication id on a queue that is not FIFO.
    #[error("only FIFO queues know de-duplication ids")]
    DeduplicationNotAllowed,
}

/// A received message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leased<M> {
    /// The payload's name.
    pub m: M,
    /// The message's name.
    pub key: MessageKey,
    /// The lease: with the key, the right to act on the message.
    pub lease: u64,
    /// How often it was received, this time included.
    pub receive_count: u32,
    /// When it was received first.
    pub first_received: Instant,
    /// When it was sent.
    pub sent_at: Instant,
    /// When the lease times out.
    pub deadline: Instant,
    /// Its place in the queue's order.
    pub sequence: SequenceNumber,
}

/// Why a receive was refused. A receive that finds nothing is not refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiveError {
    /// As many messages are in flight as may be. FIFO queues return nothing instead.
    #[error("too many messages are in flight")]
    OverLimit,
    /// The visibility timeout is longer than any lease may be.
    #[error("the visibility timeout is longer than {max:?}")]
    TooLong {
        /// The longest lease.
        max: Duration,
    },
    /// The attempt was made before, and its messages were acted upon since.
    #[error("messages of this receive attempt were deleted, returned or changed since")]
    AttemptSpent,
    /// As many attempts are remembered as the configuration allows.
    #[error("the table of receive attempts is full")]
    AttemptTableFull,
    /// Only FIFO queues know receive attempts.
    #[error("only FIFO queues know receive attempts")]
    AttemptOutOfOrder,
}

/// The lease has no power over the message any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the lease is over")]
pub struct Stale;

/// Why a lease was not changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// The lease is over.
    #[error("the lease is over")]
    Stale,
    /// The lease would last too long in all.
    #[error("the lease would last longer than a lease may")]
    TooLong {
        /// The latest end that it may have.
        latest: Instant,
    },
}

impl From<Stale> for ChangeError {
    fn from(Stale: Stale) -> Self {
        Self::Stale
    }
}

/// Why a message was not released: for the same reasons.
pub type ReleaseError = ChangeError;

/// A deleted message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acknowledged<M> {
    /// The payload's name, free now.
    pub m: M,
    /// Whether a receiver that found nothing would find something now: the next message of a group,
    /// or one that the bound on messages in flight held back.
    pub wakes: bool,
}

/// Where a message is after its holder said what to do with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition<M> {
    /// Still in flight.
    InFlight {
        /// The end of its lease.
        deadline: Instant,
    },
    /// Back in the queue.
    Visible {
        /// Whether a receiver that found nothing would find something now.
        wakes: bool,
    },
    /// Out of the queue.
    DeadLetter(DeadLetter<M>),
}

/// A message that was received too often and has left the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeadLetter<M> {
    /// The payload's name, free now.
    pub m: M,
    /// The name that the message had.
    pub key: MessageKey,
    /// How often it was received.
    pub receive_count: u32,
    /// When it was sent.
    pub sent_at: Instant,
    /// When it was received first.
    pub first_received: Instant,
    /// Whether a receiver that found nothing would find something now: the next of its group.
    pub wakes: bool,
}

/// What happened to a message without anybody acting on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Effect<M> {
    /// Its delay passed or its lease timed out.
    BecameVisible {
        /// The payload's name, still in use.
        m: M,
        /// The message's name.
        key: MessageKey,
        /// Whether a receiver that found nothing would find something now.
        wakes: bool,
    },
    /// Its retention ended and it is deleted.
    Expired {
        /// The payload's name, free now.
        m: M,
        /// The name that the message had.
        key: MessageKey,
        /// Where it was: its holder, if any, finds its lease stale.
        was: State,
        /// Whether a receiver that found nothing would find something now: the next of its group.
        wakes: bool,
    },
    /// It was received too often.
    DeadLetter(DeadLetter<M>),
    /// It was purged.
    Purged {
        /// The payload's name, free now.
        m: M,
        /// The name that the message had.
        key: MessageKey,
        /// Where it was: its holder, if any, finds its lease stale.
        was: State,
    },
}

/// One message in a machine, as [`Machine::contents`] shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content<M> {
    /// The payload's name.
    pub m: M,
    /// The message's name.
    pub key: MessageKey,
    /// Where it is.
    pub state: State,
    /// How often it was received.
    pub receive_count: u32,
    /// When it was sent.
    pub sent_at: Instant,
    /// The end of its lease or delay.
    pub deadline: Option<Instant>,
}

struct Gone<M> {
    m: M,
    wakes: bool,
}

impl<M: Copy> Machine<M> {
    /// Makes an empty machine.
    ///
    /// # Errors
    /// [`RulesError`] when a rule is out of its range.
    pub fn new(rules: Rules) -> Result<Self, RulesError> {
        rules.check()?;
        let (order, fifo) = match &rules.kind {
            Kind::Standard => (Order::Standard, None),
            Kind::Fair(_) => (Order::Fair, None),
            Kind::Fifo(fifo) => (Order::Fifo, Some(fifo)),
        };
        Ok(Self {
            order,
            records: Table::new(),
            holds: Table::new(),
            ages: Ages::new(),
            timers: Timers::new(),
            visible: List::new(),
            groups: Groups::new(rules.hash_seed, rules.idle_groups),
            work: Work::default(),
            dedup: fifo.map(|fifo| Dedup::new(fifo, rules.hash_seed)),
            attempts: fifo.map(|fifo| Attempts::new(fifo, rules.hash_seed)),
            tally: Tally::default(),
            counters: Counters::default(),
            last_sequence: 0,
            rules,
        })
    }

    /// The rules as they stand.
    #[must_use]
    pub const fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Messages in the machine, in any state.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether no message is in the machine.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.records.len() == 0
    }

    /// Stores a message.
    ///
    /// # Errors
    /// [`NotStored`] says why nothing was stored; [`NotStored::Duplicate`] is a success for the
    /// sender. A duplicate is recognised also when the queue is full.
    #[inline]
    pub fn send(
        &mut self,
        now: Instant,
        m: M,
        admission: &Admission<'_>,
    ) -> Result<Accepted, NotStored> {
        let unseen = match self.admit(now, admission) {
            Ok(unseen) => unseen,
            Err(why) => {
                self.counters.deduplicated += u64::from(matches!(why, NotStored::Duplicate(_)));
                return Err(why);
            }
        };
        let waiting = self.tally.visible as usize + self.tally.delayed as usize;
        if self
            .rules
            .capacity
            .is_some_and(|capacity| waiting >= capacity)
            || self.records.is_full()
            || self.groups.is_full()
        {
            return Err(NotStored::Full);
        }
        let sequence = self.last_sequence + 1;
        self.last_sequence = sequence;
        if let (Some(dedup), Some(unseen)) = (&mut self.dedup, unseen) {
            dedup.remember(now, unseen, admission, SequenceNumber::new(sequence));
        }
        let group = match self.order {
            Order::Standard => NIL,
            Order::Fair | Order::Fifo => self.groups.enter(admission.group),
        };
        let delay = admission.delay.unwrap_or(self.rules.delay);
        let state = if delay.is_zero() {
            State::Visible
        } else {
            State::Delayed
        };
        let index = self.records.insert(Record {
            sequence,
            sent_at: admission.sent_at.map_or(now, |sent_at| sent_at.min(now)),
            age: Link::NONE,
            lane: Link::NONE,
            group,
            hold: NIL,
            m,
            state: State::Delayed,
            in_age_order: true,
        });
        self.ages.insert(&mut self.records, index);
        self.counters.sent += 1;
        self.tally.delayed += 1;
        if group != NIL {
            self.groups.count_in(group, State::Delayed);
        }
        if self.order == Order::Fifo {
            self.groups.table[group]
                .lane
                .push_back(&mut self.records, index);
        }
        let wakes = match state {
            State::Visible => self.become_visible(index),
            _ => {
                self.start_delay(now, index, delay, admission.delay.is_some());
                false
            }
        };
        Ok(Accepted {
            key: MessageKey { sequence, index },
            sequence: SequenceNumber::new(sequence),
            visible_now: state == State::Visible,
            wakes,
        })
    }

    fn admit(
        &mut self,
        now: Instant,
        admission: &Admission<'_>,
    ) -> Result<Option<dedup::Unseen>, NotStored> {
        let Kind::Fifo(fifo) = &self.rules.kind else {
            return match admission.dedup {
                Some(_) => Err(NotStored::DeduplicationNotAllowed),
                None => Ok(None),
            };
        };
        let Some(group) = admission.group else {
            return Err(NotStored::MissingGroup);
        };
        if admission.delay.is_some() && fifo.message_delay == MessageDelay::PerQueue {
            return Err(NotStored::DelayNotAllowed);
        }
        match (admission.dedup, &mut self.dedup) {
            (Some(key), Some(dedup)) => dedup.admit(now, key, group).map(Some),
            _ if fifo.deduplication != Deduplication::Optional => {
                Err(NotStored::MissingDeduplication)
            }
            _ => Ok(None),
        }
    }

    fn start_delay(&mut self, now: Instant, index: u32, delay: Duration, own: bool) {
        let sequence = self.records[index].sequence;
        let hold = self.holds.insert(Hold {
            deadline: Instant::NEVER,
            received_at: now,
            first_received: now,
            timer: Link::NONE,
            record: index,
            receive_count: 0,
            place: Place::Nowhere,
            lease_held: false,
            changed: own,
        });
        self.records[index].hold = hold;
        let usual = if own { Usual::No } else { Usual::Delay };
        self.timers
            .set(&mut self.holds, hold, now + delay, sequence, usual);
    }

    /// Receives up to `max` messages into `out` and returns how many.
    ///
    /// On a FIFO queue the groups take turns, and each gives as many messages as fit.
    ///
    /// # Errors
    /// [`ReceiveError`]; nothing was received then.
    #[inline]
    pub fn receive(
        &mut self,
        now: Instant,
        max: usize,
        visibility: Option<Duration>,
        attempt: Option<&ReceiveAttemptId>,
        out: &mut Vec<Leased<M>>,
    ) -> Result<usize, ReceiveError> {
        if visibility.is_some_and(|visibility| visibility > self.rules.max_lease) {
            return Err(ReceiveError::TooLong {
                max: self.rules.max_lease,
            });
        }
        if let Some(attempt) = attempt {
            return self.receive_attempt(now, max, visibility, attempt, out);
        }
        if self.order == Order::Fifo {
            return Ok(self.receive_fifo(now, max, visibility, out));
        }
        if self.in_flight_full() {
            return Err(ReceiveError::OverLimit);
        }
        let room = max.min(self.rules.max_in_flight - self.tally.in_flight as usize);
        if self.order == Order::Fair {
            return Ok(self.receive_fair(now, room, visibility, out));
        }
        let mut taken = 0;
        while taken < room && !self.visible.is_empty() {
            let index = self.visible.head;
            out.push(self.lease(index, now, visibility));
            taken += 1;
        }
        Ok(taken)
    }

    fn receive_fifo(
        &mut self,
        now: Instant,
        max: usize,
        visibility: Option<Duration>,
        out: &mut Vec<Leased<M>>,
    ) -> usize {
        let in_flight = self.tally.in_flight as usize;
        let room = max.min(self.rules.max_in_flight.saturating_sub(in_flight));
        let mut taken = 0;
        while taken < room && !self.groups.ready.is_empty() {
            let group = self.groups.ready.head;
            self.groups.place(group, Ring::Out);
            let mut index = self.groups.table[group].lane.head;
            while taken < room && index != NIL && self.records[index].state == State::Visible {
                let next = self.records[index].lane.next;
                out.push(self.lease(index, now, visibility));
                taken += 1;
                index = next;
            }
        }
        taken
    }

    /// Receives this message, if it is visible on a queue that is not FIFO: any visible message is
    /// one that a standard queue may return next. For comparing a queue with its rules.
    pub fn receive_this(
        &mut self,
        now: Instant,
        key: MessageKey,
        visibility: Option<Duration>,
    ) -> Option<Leased<M>> {
        let index = self.find(key)?;
        let may = self.order != Order::Fifo
            && self.records[index].state == State::Visible
            && !self.in_flight_full();
        may.then(|| self.lease(index, now, visibility))
    }

    /// Deletes every message, in flight or not, and reports each, oldest first. Sends and attempts
    /// stay remembered.
    pub fn purge(&mut self, now: Instant, effects: &mut Vec<Effect<M>>) {
        while let Some(index) = self.ages.oldest(&self.records) {
            let (key, was) = (self.key(index), self.records[index].state);
            let gone = self.take_out(index, now);
            self.counters.purged += 1;
            effects.push(Effect::Purged {
                m: gone.m,
                key,
                was,
            });
        }
        self.groups.forget_idle();
    }

    /// Sets the visibility timeout of the receives to come.
    ///
    /// # Errors
    /// [`RulesError::VisibilityTooLong`].
    pub fn set_visibility_timeout(&mut self, timeout: Duration) -> Result<(), RulesError> {
        self.change_rules(|rules| rules.visibility_timeout = timeout)
    }

    /// Sets the bound on waiting messages; those that wait already stay.
    ///
    /// # Errors
    /// [`RulesError::Zero`].
    pub fn set_capacity(&mut self, capacity: Option<usize>) -> Result<(), RulesError> {
        self.change_rules(|rules| rules.capacity = capacity)
    }

    /// Sets the bound on messages in flight; those in flight already stay.
    ///
    /// # Errors
    /// [`RulesError::Zero`].
    pub fn set_max_in_flight(&mut self, max: usize) -> Result<(), RulesError> {
        self.change_rules(|rules| rules.max_in_flight = max)
    }

    /// Sets the delay of the sends to come. On a FIFO queue, as on the field's services, also of the
    /// messages that are delayed now by the queue's delay, counted from their sends; the next
    /// [`advance`](Self::advance) serves those that are due by that.
    pub fn set_delay(&mut self, delay: Duration) {
        self.rules.delay = delay;
        if self.order != Order::Fifo {
            return;
        }
        let mut delayed: Vec<u32> = self
            .timers
            .iter(&self.holds)
            .filter(|&hold| {
                let Hold {
                    record, changed, ..
                } = self.holds[hold];
                !changed && self.records[record].state == State::Delayed
            })
            .collect();
        delayed.sort_unstable_by_key(|&hold| self.records[self.holds[hold].record].sequence);
        for &hold in &delayed {
            let sequence = self.records[self.holds[hold].record].sequence;
            self.timers.clear(&mut self.holds, hold, sequence);
        }
        for hold in delayed {
            let sequence = self.records[self.holds[hold].record].sequence;
            let deadline = self.holds[hold].received_at + delay;
            self.timers
                .set(&mut self.holds, hold, deadline, sequence, Usual::Delay);
        }
    }

    /// Sets how long messages are kept, those in the queue included: what is past it now is deleted.
    ///
    /// # Errors
    /// [`RulesError::Zero`].
    pub fn set_retention(
        &mut self,
        now: Instant,
        retention: Option<Duration>,
        effects: &mut Vec<Effect<M>>,
    ) -> Result<(), RulesError> {
        self.change_rules(|rules| rules.retention = retention)?;
        self.advance(now, effects);
        Ok(())
    }

    fn change_rules(&mut self, change: impl FnOnce(&mut Rules)) -> Result<(), RulesError> {
        let mut rules = self.rules.clone();
        change(&mut rules);
        rules.check()?;
        self.rules = rules;
        Ok(())
    }

    /// All messages, oldest first.
    pub fn contents(&self) -> impl Iterator<Item = Content<M>> + '_ {
        self.ages.iter(&self.records).map(|index| {
            let record = &self.records[index];
            let hold = self.holds.get(record.hold);
            Content {
                m: record.m,
                key: self.key(index),
                state: record.state,
                receive_count: hold.map_or(0, |hold| hold.receive_count),
                sent_at: record.sent_at,
                deadline: hold
                    .filter(|_| record.state != State::Visible)
                    .map(|hold| hold.deadline),
            }
        })
    }

    /// The group or tenant of a message.
    #[must_use]
    pub fn group_of(&self, key: MessageKey) -> Option<&GroupId> {
        let group = self.records[self.find(key)?].group;
        if group == NIL {
            None
        } else {
            self.groups.table[group].id.as_ref()
        }
    }

    fn find(&self, key: MessageKey) -> Option<u32> {
        let record = self.records.get(key.index)?;
        (record.sequence == key.sequence).then_some(key.index)
    }

    fn key(&self, index: u32) -> MessageKey {
        MessageKey {
            sequence: self.records[index].sequence,
            index,
        }
    }

    /// Counts a message over from its state to `state`.
    #[inline]
    fn change_state(&mut self, index: u32, state: State) {
        let record = &mut self.records[index];
        let (old, group) = (record.state, record.group);
        record.state = state;
        *self.tally.of(old) -= 1;
        *self.tally.of(state) += 1;
        if group != NIL {
            self.groups.count_out(group, old);
            self.groups.count_in(group, state);
        }
    }

    /// Makes a message visible that is delayed or in flight, its timer being clear; whether a
    /// receiver that found nothing would find something now.
    #[inline]
    fn become_visible(&mut self, index: u32) -> bool {
        self.change_state(index, State::Visible);
        let group = self.records[index].group;
        match self.order {
            Order::Standard => {
                self.visible.push_back(&mut self.records, index);
                true
            }
            Order::Fair => {
                self.groups.table[group]
                    .lane
                    .push_back(&mut self.records, index);
                self.groups.settle_fair(group);
                true
            }
            Order::Fifo => self.groups.settle_fifo(group, &self.records),
        }
    }

    /// Puts a visible message in flight.
    ///
    /// A FIFO message's group has left the ready ring.
    #[inline]
    fn lease(&mut self, index: u32, now: Instant, visibility: Option<Duration>) -> Leased<M> {
        let Record {
            group,
            sequence,
            hold,
            ..
        } = self.records[index];
        match self.order {
            Order::Standard => self.visible.remove(&mut self.records, index),
            Order::Fair => self.groups.table[group]
                .lane
                .remove(&mut self.records, index),
            Order::Fifo => {}
        }
        self.change_state(index, State::InFlight);
        if self.order == Order::Fair {
            self.groups.settle_fair(group);
        }
        let hold = if hold == NIL {
            let hold = self.holds.insert(Hold {
                deadline: Instant::NEVER,
                received_at: now,
                first_received: now,
                timer: Link::NONE,
                record: index,
                receive_count: 0,
                place: Place::Nowhere,
                lease_held: false,
                changed: false,
            });
            self.records[index].hold = hold;
            hold
        } else {
            hold
        };
        let entry = &mut self.holds[hold];
        entry.receive_count = entry.receive_count.saturating_add(1);
        entry.received_at = now;
        entry.lease_held = true;
        entry.changed = false;
        let (deadline, usual) = match visibility {
            Some(visibility) => (now + visibility, Usual::No),
            None => (now + self.rules.visibility_timeout, Usual::Lease),
        };
        self.timers
            .set(&mut self.holds, hold, deadline, sequence, usual);
        self.counters.received += 1;
        self.leased(index)
    }

    /// What the holder of a message in flight gets.
    #[inline]
    fn leased(&self, index: u32) -> Leased<M> {
        let record = &self.records[index];
        let hold = &self.holds[record.hold];
        Leased {
            m: record.m,
            key: MessageKey {
                sequence: record.sequence,
                index,
            },
            lease: u64::from(hold.receive_count),
            receive_count: hold.receive_count,
            first_received: hold.first_received,
            sent_at: record.sent_at,
            deadline: hold.deadline,
            sequence: SequenceNumber::new(record.sequence),
        }
    }

    /// Takes a message out of the machine, whatever its state.
    #[inline]
    fn take_out(&mut self, index: u32, now: Instant) -> Gone<M> {
        let Record {
            sequence,
            group,
            hold,
            m,
            state,
            ..
        } = self.records[index];
        let was_full = self.in_flight_full();
        match self.order {
            Order::Fifo => self.groups.table[group]
                .lane
                .remove(&mut self.records, index),
            _ if state != State::Visible => {}
            Order::Standard => self.visible.remove(&mut self.records, index),
            Order::Fair => self.groups.table[group]
                .lane
                .remove(&mut self.records, index),
        }
        if hold != NIL {
            self.timers.clear(&mut self.holds, hold, sequence);
            if self.order == Order::Fair && state == State::InFlight {
                self.count_work(group, self.holds[hold].received_at, now);
            }
            self.holds.vacate(hold);
        }
        self.ages.remove(&mut self.records, index);
        self.records.vacate(index);
        *self.tally.of(state) -= 1;
        if group != NIL {
            self.groups.count_out(group, state);
        }
        let mut wakes = match self.order {
            Order::Standard => false,
            Order::Fair => {
                self.groups.settle_fair(group);
                false
            }
            Order::Fifo => self.groups.settle_fifo(group, &self.records),
        };
        wakes |= state == State::InFlight && was_full && self.something_ready();
        Gone { m, wakes }
    }
}

impl<M> fmt::Debug for Machine<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine")
            .field("rules", &self.rules)
            .field("tally", &self.tally)
            .finish_non_exhaustive()
    }
}
