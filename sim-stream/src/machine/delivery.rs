//! The rules of a queue on a stream: a cursor over each shard, and a table of the records that are under way.
//!
//! # States
//! A record that the cursor has not reached has no entry: it is *unread*. From its first receive on it has one slot:
//!
//! ```text
//!            receive            acknowledge
//!  unread ───────────► leased ──────────────► gone
//!                      │ ▲  │ release after a delay
//!         lease ended, │ │  ▼
//!     receives < max   │ │ delayed ──┐ its time has come
//!                      ▼ │           │
//!                     returned ◄─────┘◄─────────── restore ────────────┐
//!                                                                      │
//!         lease ended,          receive a dead letter                  │
//!     receives = max ──► dead ───────────────────────────► dead, leased ──► acknowledge ──► gone
//!                         ▲                                 │
//!                         └──────── lease ended ────────────┘
//! ```
//!
//! A lease ends when its time is up, when its holder sets it to zero, or when it is released. A record whose retention is
//! over is *lost*: it is dropped when somebody would have got it, or with the next sweep if it is dead, and counted by
//! what it was ([`Lost`]). While it is leased it is not: its holder has it and may acknowledge it.
//!
//! # Invariants
//! - Slots hold positions, never records. `look` reads a record when it is handed out.
//! - Fresh records are taken only while none is returned, so that slots other than dead letters' are at most
//!   `max_in_flight` and what was restored.
//! - Every leased or delayed slot has one timer; no other has one.
//! - Each lease has a number of its own for ever, so that a late receipt misses.
//!
//! # Cost
//! A receive, verdict or lapse is O(log n) in the records under way (ordered maps of what is returned and dead), and a
//! receive looks at each shard once, and once more for each that came to its end. Deadlines stand in a [`Wheel`].

mod slots;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};
use std::mem;
use std::ops::Bound::{self, Excluded, Included, Unbounded};
use std::time::Duration;

use sim_core::time::Instant;
use sim_core::wheel::Wheel;

use self::slots::{Slot, Slots, State};
use crate::message::ShardId;

/// What the queue is told, and may be told anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rules {
    /// How long a received record stays leased unless the receive says otherwise.
    pub(crate) visibility_timeout: Duration,
    /// After how many receives a record that comes back is dead; `None`: never.
    pub(crate) max_receives: Option<u32>,
    /// The most leased and delayed records.
    pub(crate) max_in_flight: usize,
    /// The most dead letters; the oldest that nobody holds leaves first.
    pub(crate) max_dead_letters: usize,
}

/// Names one lease; see [`Delivery::receipt`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct LeaseKey {
    pub(crate) check: u64,
    pub(crate) slot: u32,
    pub(crate) lease: u64,
}

/// What stands at a position of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look<R> {
    /// This record.
    Record(R),
    /// Nothing yet.
    Pending,
    /// Nothing ever: the shard is closed and ends before it.
    End,
    /// A record once; its retention is over, and the oldest one left stands at `resume_at`.
    Trimmed {
        /// The oldest position left.
        resume_at: u64,
    },
}

/// Why the machine looks at a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// It is the next one of its shard.
    Next,
    /// It has been received before.
    Again,
}

/// A record handed out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Leased<R> {
    pub(crate) record: R,
    pub(crate) key: LeaseKey,
    pub(crate) shard: ShardId,
    pub(crate) position: u64,
    /// How often it has been received as an ordinary record, this time included.
    pub(crate) receives: u32,
    pub(crate) first_received_at: Instant,
    pub(crate) until: Instant,
}

/// The lease has ended, or was never this queue's. Nothing changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ended;

/// As many records are leased or delayed as the rules allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OverLimit;

/// How many records were dropped without an acknowledgement, by what they were then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Lost {
    /// Retention: never received.
    pub(crate) unread: u64,
    /// Retention: received before, and back.
    pub(crate) returned: u64,
    /// Retention: dead letters.
    pub(crate) dead: u64,
    /// Dead letters beyond the most allowed.
    pub(crate) dead_overflow: u64,
}

/// What has happened so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Tally {
    pub(crate) received: u64,
    pub(crate) acknowledged: u64,
    pub(crate) lapsed: u64,
    pub(crate) released: u64,
    pub(crate) buried: u64,
    pub(crate) received_dead: u64,
    pub(crate) acknowledged_dead: u64,
    pub(crate) restored: u64,
    pub(crate) lost: Lost,
}

/// How many records are in which state now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Standing {
    pub(crate) leased: u64,
    pub(crate) delayed: u64,
    pub(crate) returned: u64,
    pub(crate) dead: u64,
    pub(crate) dead_leased: u64,
}

/// Where the queue stands in a shard.
#[derive(Debug)]
struct Shard {
    /// The next position to hand out.
    position: u64,
    /// Shards to finish before this one.
    parents: [Option<ShardId>; 2],
}

/// The state of one queue; see the [module](self).
#[derive(Debug)]
pub(crate) struct Delivery {
    rules: Rules,
    /// Keys the check words of receipts.
    secret: u64,
    /// Shards not read to their end.
    shards: BTreeMap<ShardId, Shard>,
    /// The shard that was served last; the next receive begins behind it.
    served: Option<ShardId>,
    slots: Slots,
    /// The slots of the timers.
    timers: Wheel<u32>,
    /// Slots to hand out again, in the order in which they came back.
    returned: BTreeMap<u64, u32>,
    /// Slots of dead letters that nobody holds, in the order of their death or return.
    dead: BTreeMap<u64, u32>,
    /// The same by place, for retention; to their numbers in `dead`.
    dead_at: BTreeMap<(ShardId, u64), u64>,
    /// Numbers what comes back.
    serial: u64,
    /// Numbers leases.
    leases: u64,
    standing: Standing,
    tally: Tally,
}

impl Delivery {
    /// An empty one. `secret` makes receipts that another queue made, or nobody, miss.
    pub(crate) fn new(rules: Rules, secret: u64) -> Self {
        Self {
            rules,
            secret,
            shards: BTreeMap::new(),
            served: None,
            slots: Slots::default(),
            timers: Wheel::new(),
            returned: BTreeMap::new(),
            dead: BTreeMap::new(),
            dead_at: BTreeMap::new(),
            serial: 0,
            leases: 0,
            standing: Standing::default(),
            tally: Tally::default(),
        }
    }

    /// Changes the rules. Leases that stand keep their time; the new limits count from the next receive or end of a lease.
    pub(crate) fn set_rules(&mut self, rules: Rules) {
        self.rules = rules;
    }

    /// Begins to read a shard at `position`, after its parents among those that are still being read.
    pub(crate) fn open(&mut self, shard: ShardId, position: u64, parents: [Option<ShardId>; 2]) {
        self.shards
            .entry(shard)
            .or_insert(Shard { position, parents });
    }

    /// Shards that are still being read, each with the next position.
    pub(crate) fn shards(&self) -> impl Iterator<Item = (ShardId, u64)> + '_ {
        self.shards
            .iter()
            .map(|(shard, state)| (*shard, state.position))
    }

    pub(crate) fn standing(&self) -> Standing {
        self.standing
    }

    pub(crate) fn tally(&self) -> Tally {
        self.tally
    }

    /// Whether nothing is left that a receive could ever bring, unless a shard is opened or a dead letter restored.
    pub(crate) fn is_drained(&self) -> bool {
        let Standing {
            leased,
            delayed,
            returned,
            ..
        } = self.standing;
        self.shards.is_empty() && leased + delayed + returned == 0
    }

    /// When the next lease or delay ends.
    pub(crate) fn next_deadline(&mut self) -> Option<Instant> {
        self.timers.next()
    }

    /// Ends the leases and delays that are over at `now`, in order. Whether a record or dead letter became visible.
    pub(crate) fn serve(&mut self, now: Instant) -> bool {
        let mut any = false;
        while let Some((_, index)) = self.timers.pop_due(now) {
            any = true;
            match self.slots[index].state {
                State::Leased { .. } => {
                    self.tally.lapsed += 1;
                    self.standing.leased -= 1;
                    self.come_back(index);
                }
                State::Delayed { .. } => {
                    self.standing.delayed -= 1;
                    self.put_back(index);
                }
                State::DeadLeased { .. } => {
                    self.standing.dead_leased -= 1;
                    self.lay_out(index);
                }
                State::Free | State::Returned | State::Dead => {}
            }
        }
        any
    }

    /// Hands out up to `max` records: those that came back first, then the next of the shards in turn. They are leased for
    /// `visibility`, or the queue's own timeout. Returns how many.
    pub(crate) fn receive<R>(
        &mut self,
        now: Instant,
        max: usize,
        visibility: Option<Duration>,
        look: &mut impl FnMut(ShardId, u64, Asked) -> Look<R>,
        out: &mut Vec<Leased<R>>,
    ) -> Result<usize, OverLimit> {
        self.serve(now);
        let in_flight = self.standing.leased + self.standing.delayed;
        let room = (self.rules.max_in_flight as u64).saturating_sub(in_flight);
        if room == 0 {
            return Err(OverLimit);
        }
        let max = max.min(usize::try_from(room).unwrap_or(usize::MAX));
        let until = now + visibility.unwrap_or(self.rules.visibility_timeout);
        let before = out.len();
        self.receive_returned(max, until, look, out);
        let got = out.len() - before;
        if got < max && self.returned.is_empty() {
            self.receive_fresh(now, max - got, until, look, out);
        }
        let got = out.len() - before;
        self.tally.received += got as u64;
        Ok(got)
    }

    /// Ends the life of a leased record.
    pub(crate) fn acknowledge(&mut self, now: Instant, key: LeaseKey) -> Result<(), Ended> {
        let index = self.find_leased(now, key)?;
        self.tally.acknowledged += 1;
        self.standing.leased -= 1;
        self.stop_timer(index);
        self.slots.free(index);
        Ok(())
    }

    /// Lets a lease end at `now + visibility`; at once when that is zero.
    pub(crate) fn change_visibility(
        &mut self,
        now: Instant,
        key: LeaseKey,
        visibility: Duration,
    ) -> Result<(), Ended> {
        let index = self.find_leased(now, key)?;
        self.stop_timer(index);
        if visibility.is_zero() {
            self.tally.released += 1;
            self.standing.leased -= 1;
            self.come_back(index);
        } else {
            self.lease_until(index, now + visibility, Kind::Ordinary, Numbered::AsBefore);
        }
        Ok(())
    }

    /// Ends a lease; the record comes back after `delay`, or is dead if it was received too often.
    pub(crate) fn release(
        &mut self,
        now: Instant,
        key: LeaseKey,
        delay: Duration,
    ) -> Result<(), Ended> {
        let index = self.find_leased(now, key)?;
        self.stop_timer(index);
        self.tally.released += 1;
        self.standing.leased -= 1;
        if delay.is_zero() || self.is_worn_out(index) {
            self.come_back(index);
        } else {
            let timer = self.timers.insert(now + delay, index);
            self.slots[index].state = State::Delayed { timer };
            self.standing.delayed += 1;
        }
        Ok(())
    }

    /// Hands out up to `max` dead letters, those first that nobody has looked at for longest.
    pub(crate) fn receive_dead<R>(
        &mut self,
        now: Instant,
        max: usize,
        visibility: Option<Duration>,
        look: &mut impl FnMut(ShardId, u64, Asked) -> Look<R>,
        out: &mut Vec<Leased<R>>,
    ) -> usize {
        self.serve(now);
        let until = now + visibility.unwrap_or(self.rules.visibility_timeout);
        let before = out.len();
        while out.len() - before < max
            && let Some((_, index)) = self.dead.pop_first()
        {
            let Slot {
                shard, position, ..
            } = self.slots[index];
            self.dead_at.remove(&(shard, position));
            self.standing.dead -= 1;
            match look(shard, position, Asked::Again) {
                Look::Record(record) => {
                    self.standing.dead_leased += 1;
                    self.lease_until(index, until, Kind::Dead, Numbered::Anew);
                    out.push(self.leased(index, record, until));
                }
                Look::Pending | Look::End | Look::Trimmed { .. } => {
                    self.tally.lost.dead += 1;
                    self.slots.free(index);
                }
            }
        }
        let got = out.len() - before;
        self.tally.received_dead += got as u64;
        got
    }

    /// Ends the life of a leased dead letter.
    pub(crate) fn acknowledge_dead(&mut self, now: Instant, key: LeaseKey) -> Result<(), Ended> {
        let index = self.find_dead_leased(now, key)?;
        self.tally.acknowledged_dead += 1;
        self.standing.dead_leased -= 1;
        self.stop_timer(index);
        self.slots.free(index);
        Ok(())
    }

    /// As [`change_visibility`](Self::change_visibility), of a leased dead letter.
    pub(crate) fn change_dead_visibility(
        &mut self,
        now: Instant,
        key: LeaseKey,
        visibility: Duration,
    ) -> Result<(), Ended> {
        let index = self.find_dead_leased(now, key)?;
        self.stop_timer(index);
        if visibility.is_zero() {
            self.standing.dead_leased -= 1;
            self.lay_out(index);
        } else {
            self.lease_until(index, now + visibility, Kind::Dead, Numbered::AsBefore);
        }
        Ok(())
    }

    /// Makes a leased dead letter an ordinary record again that was never received.
    pub(crate) fn restore(&mut self, now: Instant, key: LeaseKey) -> Result<(), Ended> {
        let index = self.find_dead_leased(now, key)?;
        self.tally.restored += 1;
        self.standing.dead_leased -= 1;
        self.stop_timer(index);
        self.slots[index].receives = 0;
        self.put_back(index);
        Ok(())
    }

    /// Makes all dead letters that nobody holds ordinary records again; returns how many.
    pub(crate) fn restore_all(&mut self) -> u64 {
        self.dead_at.clear();
        let dead = mem::take(&mut self.dead);
        let restored = dead.len() as u64;
        for index in dead.into_values() {
            self.slots[index].receives = 0;
            self.put_back(index);
        }
        self.standing.dead = 0;
        self.tally.restored += restored;
        restored
    }

    /// Forgets all shards and records. Receipts of before miss for ever; what happened stays counted.
    pub(crate) fn clear(&mut self) {
        *self = Self {
            leases: self.leases,
            tally: self.tally,
            ..Self::new(self.rules, self.secret)
        };
    }

    /// Drops the dead letters that nobody holds and whose retention is over: those below `start` of their shard.
    pub(crate) fn sweep(&mut self, start: &mut impl FnMut(ShardId) -> u64) {
        let mut behind = Unbounded;
        while let Some((&(shard, _), _)) = self.dead_at.range((behind, Unbounded)).next() {
            let start = start(shard);
            while let Some((&place, &serial)) =
                self.dead_at.range((shard, 0)..(shard, start)).next()
            {
                self.dead_at.remove(&place);
                self.tally.lost.dead += 1;
                self.standing.dead -= 1;
                if let Some(index) = self.dead.remove(&serial) {
                    self.slots.free(index);
                }
            }
            behind = Excluded((shard, u64::MAX));
        }
    }

    // ---- receiving -----------------------------------------------------------------------------------

    fn receive_returned<R>(
        &mut self,
        max: usize,
        until: Instant,
        look: &mut impl FnMut(ShardId, u64, Asked) -> Look<R>,
        out: &mut Vec<Leased<R>>,
    ) {
        let before = out.len();
        while out.len() - before < max
            && let Some((_, index)) = self.returned.pop_first()
        {
            self.standing.returned -= 1;
            // The limit was lowered since it came back.
            if self.is_worn_out(index) {
                self.bury(index);
                continue;
            }
            let Slot {
                shard, position, ..
            } = self.slots[index];
            match look(shard, position, Asked::Again) {
                Look::Record(record) => out.push(self.lease(index, record, until)),
                Look::Pending | Look::End | Look::Trimmed { .. } => {
                    self.tally.lost.returned += 1;
                    self.slots.free(index);
                }
            }
        }
    }

    /// From the shard behind the last one served onwards, once around; again when a shard came to its end, since its
    /// children may have been passed before.
    fn receive_fresh<R>(
        &mut self,
        now: Instant,
        max: usize,
        until: Instant,
        look: &mut impl FnMut(ShardId, u64, Asked) -> Look<R>,
        out: &mut Vec<Leased<R>>,
    ) {
        let mut left = max;
        loop {
            let shards = self.shards.len();
            let served = self.served;
            let behind = served.map_or(Unbounded, Excluded);
            left = self.receive_among((behind, Unbounded), now, left, until, look, out);
            if let Some(served) = served {
                let rest = (Unbounded, Included(served));
                left = self.receive_among(rest, now, left, until, look, out);
            }
            if left == 0 || self.shards.len() == shards {
                return;
            }
        }
    }

    /// From the shards of a range of ids, in order; returns how many are still wanted.
    fn receive_among<R>(
        &mut self,
        (mut from, to): (Bound<ShardId>, Bound<ShardId>),
        now: Instant,
        max: usize,
        until: Instant,
        look: &mut impl FnMut(ShardId, u64, Asked) -> Look<R>,
        out: &mut Vec<Leased<R>>,
    ) -> usize {
        let mut left = max;
        while left > 0
            && !is_empty(from, to)
            && let Some((&shard, _)) = self.shards.range((from, to)).next()
        {
            let took = self.receive_from(shard, now, left, until, look, out);
            if took > 0 {
                self.served = Some(shard);
            }
            left -= took;
            from = Excluded(shard);
        }
        left
    }

    fn receive_from<R>(
        &mut self,
        shard: ShardId,
        now: Instant,
        max: usize,
        until: Instant,
        look: &mut impl FnMut(ShardId, u64, Asked) -> Look<R>,
        out: &mut Vec<Leased<R>>,
    ) -> usize {
        let mut took = 0;
        while took < max {
            let Some(state) = self.shards.get(&shard) else {
                break;
            };
            if state
                .parents
                .iter()
                .flatten()
                .any(|parent| self.shards.contains_key(parent))
            {
                break;
            }
            let position = state.position;
            match look(shard, position, Asked::Next) {
                Look::Record(record) => {
                    self.move_to(shard, position + 1);
                    let index = self.slots.take(shard, position, now);
                    out.push(self.lease(index, record, until));
                    took += 1;
                }
                Look::Pending => break,
                Look::End => {
                    self.shards.remove(&shard);
                    break;
                }
                Look::Trimmed { resume_at } if resume_at > position => {
                    self.tally.lost.unread += resume_at - position;
                    self.move_to(shard, resume_at);
                }
                // Makes no progress; asked again the next time.
                Look::Trimmed { .. } => break,
            }
        }
        took
    }

    fn move_to(&mut self, shard: ShardId, position: u64) {
        if let Some(state) = self.shards.get_mut(&shard) {
            state.position = position;
        }
    }

    fn lease<R>(&mut self, index: u32, record: R, until: Instant) -> Leased<R> {
        self.standing.leased += 1;
        let slot = &mut self.slots[index];
        slot.receives = slot.receives.saturating_add(1);
        self.lease_until(index, until, Kind::Ordinary, Numbered::Anew);
        self.leased(index, record, until)
    }

    fn leased<R>(&self, index: u32, record: R, until: Instant) -> Leased<R> {
        let slot = &self.slots[index];
        Leased {
            record,
            key: LeaseKey {
                check: self.check(index, slot.lease),
                slot: index,
                lease: slot.lease,
            },
            shard: slot.shard,
            position: slot.position,
            receives: slot.receives,
            first_received_at: slot.first_received_at,
            until,
        }
    }

    // ---- ends of leases ------------------------------------------------------------------------------

    /// A record whose lease has ended: visible again, or dead.
    fn come_back(&mut self, index: u32) {
        if self.is_worn_out(index) {
            self.bury(index);
        } else {
            self.put_back(index);
        }
    }

    fn is_worn_out(&self, index: u32) -> bool {
        let receives = self.slots[index].receives;
        self.rules.max_receives.is_some_and(|max| receives >= max)
    }

    fn put_back(&mut self, index: u32) {
        self.serial += 1;
        self.slots[index].state = State::Returned;
        self.returned.insert(self.serial, index);
        self.standing.returned += 1;
    }

    fn bury(&mut self, index: u32) {
        self.tally.buried += 1;
        let limit = self.rules.max_dead_letters as u64;
        while self.standing.dead + self.standing.dead_leased >= limit {
            self.tally.lost.dead_overflow += 1;
            let Some((_, oldest)) = self.dead.pop_first() else {
                self.slots.free(index);
                return;
            };
            let slot = &self.slots[oldest];
            self.dead_at.remove(&(slot.shard, slot.position));
            self.standing.dead -= 1;
            self.slots.free(oldest);
        }
        self.lay_out(index);
    }

    /// Makes a dead letter one that nobody holds.
    fn lay_out(&mut self, index: u32) {
        self.serial += 1;
        let slot = &mut self.slots[index];
        slot.state = State::Dead;
        self.dead_at
            .insert((slot.shard, slot.position), self.serial);
        self.dead.insert(self.serial, index);
        self.standing.dead += 1;
    }

    // ---- leases --------------------------------------------------------------------------------------

    fn lease_until(&mut self, index: u32, until: Instant, kind: Kind, numbered: Numbered) {
        if numbered == Numbered::Anew {
            self.leases += 1;
            self.slots[index].lease = self.leases;
        }
        let timer = self.timers.insert(until, index);
        self.slots[index].state = match kind {
            Kind::Ordinary => State::Leased { timer },
            Kind::Dead => State::DeadLeased { timer },
        };
    }

    fn stop_timer(&mut self, index: u32) {
        if let Some(timer) = self.slots[index].state.timer() {
            self.timers.remove(timer);
        }
    }

    fn find_leased(&mut self, now: Instant, key: LeaseKey) -> Result<u32, Ended> {
        let index = self.find(now, key)?;
        match self.slots[index].state {
            State::Leased { .. } => Ok(index),
            _ => Err(Ended),
        }
    }

    fn find_dead_leased(&mut self, now: Instant, key: LeaseKey) -> Result<u32, Ended> {
        let index = self.find(now, key)?;
        match self.slots[index].state {
            State::DeadLeased { .. } => Ok(index),
            _ => Err(Ended),
        }
    }

    /// The slot that `key` leases at `now`, after what is over has ended.
    fn find(&mut self, now: Instant, key: LeaseKey) -> Result<u32, Ended> {
        if key.check != self.check(key.slot, key.lease) {
            return Err(Ended);
        }
        self.serve(now);
        match self.slots.get(key.slot) {
            Some(slot) if slot.lease == key.lease => Ok(key.slot),
            _ => Err(Ended),
        }
    }

    /// SipHash-1-3, as std's hasher has it, over the secret and the fields.
    fn check(&self, slot: u32, lease: u64) -> u64 {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.secret);
        hasher.write_u32(slot);
        hasher.write_u64(lease);
        hasher.finish()
    }
}

/// Whether a lease begins, or goes on with another end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Numbered {
    Anew,
    AsBefore,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ordinary,
    Dead,
}

/// A range that a map refuses: everything up to what is excluded already.
fn is_empty(from: Bound<ShardId>, to: Bound<ShardId>) -> bool {
    matches!((from, to), (Excluded(from), Included(to)) if from >= to)
}
