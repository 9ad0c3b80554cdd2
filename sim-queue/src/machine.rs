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
//! `rules` what a queue is told · `admission`, `outcome` what goes in and comes out · `records` where messages stand · `timers` what time does ·
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

mod admission;
mod attempts;
mod dedup;
mod fair;
mod groups;
mod outcome;
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

pub use admission::{Accepted, Admission, Admitted, First, NotStored};
pub use dedup::DedupKey;
pub use outcome::{
    Acknowledged, ChangeError, Content, DeadLetter, Disposition, Effect, Leased, MessageKey,
    ReceiveError, ReleaseError, Stale,
};
pub use records::State;
pub use rules::{
    Deduplication, DeduplicationScope, FairConfig, FifoConfig, Kind, MAX_LEASE, MessageDelay,
    Rules, RulesError,
};
pub use stats::Stats;

use attempts::Attempts;
use dedup::Dedup;
use fair::Work;
use groups::{Groups, Tally};
use records::{Hold, InLane, List, NIL, Record, Table};
use stats::Counters;
use timers::{Ages, Timers, Usual};

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
        let admitted = self.admit(now, admission)?;
        Ok(self.store(now, m, admitted))
    }

    /// The first half of a [`send`](Self::send): finds out whether the message may be stored, so that its
    /// payload is given a name only then.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    #[inline(always)]
    pub fn admit(
        &mut self,
        now: Instant,
        admission: &Admission<'_>,
    ) -> Result<Admitted, NotStored> {
        let remember = match self.look_up(now, admission) {
            Ok(remember) => remember,
            Err(why) => {
                self.counters.deduplicated += u64::from(matches!(why, NotStored::Duplicate(_)));
                return Err(why);
            }
        };
        if self.is_full() || self.records.is_full() || self.groups.is_full() {
            return Err(NotStored::Full);
        }
        let group = match self.order {
            Order::Standard => NIL,
            Order::Fair | Order::Fifo => self.groups.find_or_create(admission.group),
        };
        Ok(Admitted {
            remember,
            group,
            delay: admission.delay,
            sent_at: admission.sent_at,
        })
    }

    /// The second half of a [`send`](Self::send): stores the message that was just admitted, nothing else
    /// having happened in between.
    #[inline(always)]
    pub fn store(&mut self, now: Instant, m: M, admitted: Admitted) -> Accepted {
        let Admitted {
            remember,
            group,
            delay: own_delay,
            sent_at,
        } = admitted;
        let sequence = self.last_sequence + 1;
        self.last_sequence = sequence;
        if remember && let Some(dedup) = &mut self.dedup {
            dedup.remember(now, SequenceNumber::new(sequence));
        }
        if group != NIL {
            self.groups.occupy(group);
        }
        let delay = own_delay.unwrap_or(self.rules.delay);
        let state = if delay.is_zero() {
            State::Visible
        } else {
            State::Delayed
        };
        let sent_at = sent_at.map_or(now, |sent_at| sent_at.min(now));
        let (age, in_age_order) = self.ages.back(sent_at);
        let in_lane = state == State::Visible || self.order == Order::Fifo;
        let lane = match self.order {
            Order::Standard => &mut self.visible,
            Order::Fair | Order::Fifo => {
                let group = &mut self.groups.table[group];
                *group.tally.of(state) += 1;
                &mut group.lane
            }
        };
        let first = lane.is_empty();
        let index = self.records.insert(Record {
            sequence,
            sent_at,
            age,
            lane: lane.back(),
            group,
            hold: NIL,
            m,
            state,
            in_age_order,
        });
        if in_lane {
            lane.append(&mut self.records, index);
        }
        self.ages.insert(&mut self.records, index);
        if let Some(retention) = self.rules.retention {
            self.timers.look_at(sent_at + retention);
        }
        self.counters.sent += 1;
        *self.tally.of(state) += 1;
        let wakes = match state {
            State::Visible => match self.order {
                Order::Standard => true,
                Order::Fair => {
                    self.groups.settle_fair(group);
                    true
                }
                // Behind other messages, it changes nothing for its group.
                Order::Fifo => first && self.groups.settle_fifo(group, &self.records),
            },
            _ => {
                self.start_delay(now, index, delay, own_delay.is_some());
                false
            }
        };
        Accepted {
            key: MessageKey { sequence, index },
            sequence: SequenceNumber::new(sequence),
            visible_now: state == State::Visible,
            wakes,
        }
    }

    /// Whether as many messages wait as the capacity allows.
    #[must_use]
    #[inline]
    pub fn is_full(&self) -> bool {
        let waiting = self.tally.visible as usize + self.tally.delayed as usize;
        self.rules
            .capacity
            .is_some_and(|capacity| waiting >= capacity)
    }

    #[inline]
    fn look_up(&mut self, now: Instant, admission: &Admission<'_>) -> Result<bool, NotStored> {
        let Kind::Fifo(fifo) = &self.rules.kind else {
            return match admission.dedup {
                Some(_) => Err(NotStored::DeduplicationNotAllowed),
                None => Ok(false),
            };
        };
        let Some(group) = admission.group else {
            return Err(NotStored::MissingGroup);
        };
        if admission.delay.is_some() && fifo.message_delay == MessageDelay::PerQueue {
            return Err(NotStored::DelayNotAllowed);
        }
        match (admission.dedup, &mut self.dedup) {
            (Some(key), Some(dedup)) => dedup.admit(now, key, group, admission.id).map(|()| true),
            _ if fifo.deduplication != Deduplication::Optional => {
                Err(NotStored::MissingDeduplication)
            }
            _ => Ok(false),
        }
    }

    fn start_delay(&mut self, now: Instant, index: u32, delay: Duration, own: bool) {
        let sequence = self.records[index].sequence;
        let deadline = now + delay;
        let usual = if own { Usual::No } else { Usual::Delay };
        let (place, timer) = self.timers.place(deadline, usual);
        let hold = self.holds.insert(Hold {
            deadline,
            received_at: now,
            first_received: now,
            timer,
            record: index,
            receive_count: 0,
            place,
            lease_held: false,
            changed: own,
        });
        self.records[index].hold = hold;
        self.timers
            .enter(&mut self.holds, hold, deadline, sequence, place);
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

    /// Receives one message, if there is one: what [`receive`](Self::receive) does with a `max` of 1 and
    /// nothing else asked for.
    ///
    /// # Errors
    /// [`ReceiveError::OverLimit`].
    #[inline(always)]
    pub fn receive_one(&mut self, now: Instant) -> Result<Option<Leased<M>>, ReceiveError> {
        let full = self.in_flight_full();
        let index = match self.order {
            Order::Fifo if full => None,
            Order::Fifo => self.groups.next_ready(),
            _ if full => return Err(ReceiveError::OverLimit),
            Order::Fair => self
                .next_tenant(now)
                .map(|at| self.groups.table[at].lane.head),
            Order::Standard => (!self.visible.is_empty()).then_some(self.visible.head),
        };
        let Some(index) = index else { return Ok(None) };
        let leased = self.lease(index, now, None);
        if self.order == Order::Fair {
            self.pass_turn(self.records[index].group);
        }
        Ok(Some(leased))
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
        while taken < room {
            let Some(mut index) = self.groups.next_ready() else {
                break;
            };
            while taken < room && index != NIL {
                let Record { state, lane, .. } = self.records[index];
                if state != State::Visible {
                    break;
                }
                out.push(self.lease(index, now, visibility));
                taken += 1;
                index = lane.next;
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
    // Always inlined: what it returns is mostly not needed, and never in memory.
    #[inline(always)]
    fn lease(&mut self, index: u32, now: Instant, visibility: Option<Duration>) -> Leased<M> {
        let (deadline, usual) = match visibility {
            Some(visibility) => (now + visibility, Usual::No),
            None => (now + self.rules.visibility_timeout, Usual::Lease),
        };
        let (place, timer) = self.timers.place(deadline, usual);
        let record = &mut self.records[index];
        record.state = State::InFlight;
        let Record {
            group,
            sequence,
            lane,
            sent_at,
            m,
            ..
        } = *record;
        let (receive_count, first_received);
        if record.hold == NIL {
            (receive_count, first_received) = (1, now);
            record.hold = self.holds.insert(Hold {
                deadline,
                received_at: now,
                first_received,
                timer,
                record: index,
                receive_count,
                place,
                lease_held: true,
                changed: false,
            });
        } else {
            let hold = &mut self.holds[record.hold];
            receive_count = hold.receive_count.saturating_add(1);
            first_received = hold.first_received;
            *hold = Hold {
                deadline,
                received_at: now,
                first_received,
                timer,
                record: index,
                receive_count,
                place,
                lease_held: true,
                changed: false,
            };
        }
        self.timers
            .enter(&mut self.holds, record.hold, deadline, sequence, place);
        self.counters.received += 1;
        self.tally.visible -= 1;
        self.tally.in_flight += 1;
        if group == NIL {
            self.visible.unlink(&mut self.records, lane);
        } else {
            let entry = &mut self.groups.table[group];
            entry.tally.visible -= 1;
            entry.tally.in_flight += 1;
            self.groups.in_flight += u32::from(entry.tally.in_flight == 1);
            if self.order == Order::Fair {
                entry.lane.unlink(&mut self.records, lane);
                self.groups.settle_fair(group);
            }
        }
        Leased {
            m,
            key: MessageKey { sequence, index },
            lease: u64::from(receive_count),
            receive_count,
            first_received,
            sent_at,
            deadline,
            sequence: SequenceNumber::new(sequence),
        }
    }

    /// What the holder of a message in flight got.
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
        let record = self.records[index];
        let Record {
            group,
            hold,
            m,
            state,
            ..
        } = record;
        let held_back = state == State::InFlight && self.in_flight_full();
        *self.tally.of(state) -= 1;
        if hold != NIL {
            let gone = self.holds[hold];
            self.timers
                .leave(&mut self.holds, hold, &gone, record.sequence);
            self.holds.vacate(hold);
            if self.order == Order::Fair && state == State::InFlight {
                self.count_work(group, gone.received_at, now);
            }
        }
        self.ages.remove(&mut self.records, index, &record);
        let lane = if group == NIL {
            &mut self.visible
        } else {
            let entry = &mut self.groups.table[group];
            let count = entry.tally.of(state);
            *count -= 1;
            if state == State::InFlight && *count == 0 {
                self.groups.in_flight -= 1;
            }
            &mut entry.lane
        };
        if state == State::Visible || self.order == Order::Fifo {
            lane.unlink(&mut self.records, record.lane);
        }
        self.records.vacate(index);
        let wakes = match self.order {
            Order::Standard => false,
            Order::Fair => {
                self.groups.settle_fair(group);
                false
            }
            Order::Fifo => self.groups.settle_fifo(group, &self.records),
        };
        Gone {
            m,
            wakes: wakes || (held_back && self.something_ready()),
        }
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
