//! The end of a lease: back to the queue, later, or out of it as a dead letter.
//!
//! # Rules
//! - A lease ends by its timeout, by [`release`](Machine::release), or by a visibility of zero.
//! - A message whose lease ends when it has been received `max_receives` times is a dead letter at
//!   once: the next receive would exceed the number. So a dead letter never waits for a receiver,
//!   and on a FIFO queue it does not keep its group back.
//! - A changed visibility counts from the call and ends no later than the longest lease after the
//!   receive. The next receive knows nothing of it.
//! - A released lease is over for its holder at once, even where the message stays invisible for a
//!   while. A lease that timed out is over on a FIFO queue; on other queues its holder may still
//!   acknowledge while nobody received the message again.

use std::time::Duration;

use sim_core::time::Instant;

use super::records::{NIL, State};
use super::timers::Usual;
use super::{
    Acknowledged, ChangeError, DeadLetter, Disposition, Effect, Machine, MessageKey, Order,
    ReleaseError, Stale,
};

/// A message whose latest lease was shown.
struct Held {
    state: State,
    deadline: Instant,
}

impl Held {
    /// Whether the lease has not timed out.
    #[inline]
    fn runs(&self, now: Instant) -> bool {
        self.state == State::InFlight && now < self.deadline
    }
}

impl<M: Copy> Machine<M> {
    /// Deletes a received message and hands its payload back.
    ///
    /// # Errors
    /// [`Stale`] when the lease is not the latest one of the message, when it was released, when the
    /// message is gone, or, on a FIFO queue, when the lease timed out.
    #[inline]
    pub fn acknowledge(
        &mut self,
        now: Instant,
        key: MessageKey,
        lease: u64,
    ) -> Result<Acknowledged<M>, Stale> {
        let held = self.holder(key, lease)?;
        if self.order == Order::Fifo && !held.runs(now) {
            return Err(Stale);
        }
        self.counters.deleted += 1;
        let gone = self.take_out(key.index, now);
        Ok(Acknowledged {
            m: gone.m,
            wakes: gone.wakes,
        })
    }

    /// Whether the lease is running: neither over nor given up.
    #[must_use]
    pub fn is_running(&self, now: Instant, key: MessageKey, lease: u64) -> bool {
        self.holder(key, lease).is_ok_and(|held| held.runs(now))
    }

    /// Lets the lease end `after` from now; zero ends it at once.
    ///
    /// # Errors
    /// [`ChangeError::Stale`] when the lease is not running; [`ChangeError::TooLong`] when it would
    /// end later than the longest lease after its receive.
    pub fn change_visibility(
        &mut self,
        now: Instant,
        key: MessageKey,
        lease: u64,
        after: Duration,
    ) -> Result<Disposition<M>, ChangeError> {
        if !self.holder(key, lease)?.runs(now) {
            return Err(ChangeError::Stale);
        }
        self.end_after(now, key.index, after)
    }

    /// Gives the message back: to the queue at once, or after a while during which it stays in
    /// flight and its lease is over all the same.
    ///
    /// # Errors
    /// [`ReleaseError::Stale`] when the lease is not running; [`ReleaseError::TooLong`] when the
    /// message would come back later than the longest lease after its receive.
    pub fn release(
        &mut self,
        now: Instant,
        key: MessageKey,
        lease: u64,
        after: Duration,
    ) -> Result<Disposition<M>, ReleaseError> {
        let disposition = self.change_visibility(now, key, lease, after)?;
        if !matches!(disposition, Disposition::DeadLetter(_)) {
            let hold = self.records[key.index].hold;
            self.holds[hold].lease_held = false;
        }
        self.counters.released += 1;
        Ok(disposition)
    }

    fn end_after(
        &mut self,
        now: Instant,
        index: u32,
        after: Duration,
    ) -> Result<Disposition<M>, ChangeError> {
        if after.is_zero() {
            return Ok(self.end_lease(index, now));
        }
        let hold = self.records[index].hold;
        let deadline = now + after;
        let latest = self.holds[hold].received_at + self.rules.max_lease;
        if deadline > latest {
            return Err(ChangeError::TooLong { latest });
        }
        let sequence = self.records[index].sequence;
        self.timers.clear(&mut self.holds, hold, sequence);
        self.timers
            .set(&mut self.holds, hold, deadline, sequence, Usual::No);
        self.holds[hold].changed = true;
        Ok(Disposition::InFlight { deadline })
    }

    /// The message's state if `lease` is its latest and was not released.
    #[inline]
    fn holder(&self, key: MessageKey, lease: u64) -> Result<Held, Stale> {
        let record = self.records.get(key.index).ok_or(Stale)?;
        if record.sequence != key.sequence || record.hold == NIL {
            return Err(Stale);
        }
        let hold = &self.holds[record.hold];
        if u64::from(hold.receive_count) != lease || !hold.lease_held {
            return Err(Stale);
        }
        Ok(Held {
            state: record.state,
            deadline: hold.deadline,
        })
    }

    /// Ends the lease of a message in flight.
    pub(super) fn end_lease(&mut self, index: u32, at: Instant) -> Disposition<M> {
        let hold = self.records[index].hold;
        if self
            .rules
            .max_receives
            .is_some_and(|max| self.holds[hold].receive_count >= max)
        {
            return Disposition::DeadLetter(self.bury(index, at));
        }
        let sequence = self.records[index].sequence;
        self.timers.clear(&mut self.holds, hold, sequence);
        let was_full = self.in_flight_full();
        let group = self.records[index].group;
        if self.order == Order::Fair {
            self.count_work(group, self.holds[hold].received_at, at);
        }
        let wakes = self.become_visible(index) || (was_full && self.something_ready());
        Disposition::Visible { wakes }
    }

    /// Takes a message out of the queue as a dead letter.
    fn bury(&mut self, index: u32, at: Instant) -> DeadLetter<M> {
        self.counters.dead_lettered += 1;
        let key = self.key(index);
        let record = self.records[index];
        let hold = self.holds[record.hold];
        let gone = self.take_out(index, at);
        DeadLetter {
            m: gone.m,
            key,
            receive_count: hold.receive_count,
            sent_at: record.sent_at,
            first_received: hold.first_received,
            wakes: gone.wakes,
        }
    }

    /// Sets how often a message may be received. Visible messages that were received as often
    /// already become dead letters now, oldest first; those in flight when their lease ends.
    ///
    /// # Errors
    /// [`RulesError::Zero`](super::RulesError::Zero) for zero.
    pub fn set_max_receives(
        &mut self,
        now: Instant,
        max: Option<u32>,
        effects: &mut Vec<Effect<M>>,
    ) -> Result<(), super::RulesError> {
        self.change_rules(|rules| rules.max_receives = max)?;
        let Some(max) = max else {
            return Ok(());
        };
        let spent: Vec<u32> = self
            .ages
            .iter(&self.records)
            .filter(|&index| {
                let record = &self.records[index];
                record.state == State::Visible
                    && self
                        .holds
                        .get(record.hold)
                        .is_some_and(|hold| hold.receive_count >= max)
            })
            .collect();
        for index in spent {
            effects.push(Effect::DeadLetter(self.bury(index, now)));
        }
        Ok(())
    }

    #[inline]
    pub(super) fn in_flight_full(&self) -> bool {
        self.tally.in_flight as usize >= self.rules.max_in_flight
    }

    /// Whether a receive would find a message, but for the bound on those in flight.
    #[must_use]
    #[inline]
    pub fn something_ready(&self) -> bool {
        match self.order {
            Order::Standard | Order::Fair => self.tally.visible > 0,
            Order::Fifo => !self.groups.ready.is_empty(),
        }
    }
}
