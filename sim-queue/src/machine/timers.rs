//! Time: which lease, delay or retention ends next, and what happens when it does.
//!
//! # Rules
//! - Retention counts from the time of sending, that which a dead letter kept included, and ends a
//!   message in any state: visible, delayed, or in flight, whose holder then finds the lease stale.
//! - A lease, delay or retention is over at its deadline, not after it.
//! - A delayed message's visibility begins with the end of its delay, and its receive count with its
//!   first receive.
//!
//! # Algorithm
//! Leases that last the queue's visibility timeout end in the order in which they were taken, and
//! delays of the queue's length in the order of sending. Each of the two is a list through the
//! holds: setting and clearing a timer is O(1), and an acknowledged message leaves nothing behind.
//! Other deadlines stand in an ordered set. The same goes for age: messages stand in a list in the
//! order of sending, except those that kept an earlier time of sending (dead letters), which stand
//! in a set.

use std::collections::BTreeSet;

use sim_core::time::Instant;

use super::records::{ByAge, ByDeadline, Hold, Link, List, NIL, Record, State, Table};
use super::{Disposition, Effect, Machine};

/// Where a hold's timer stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Nowhere,
    Leases,
    Delays,
    Odd,
}

/// Where a new deadline probably belongs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Usual {
    /// It is the queue's visibility timeout from now.
    Lease,
    /// It is the queue's delay from now.
    Delay,
    /// It is something else.
    No,
}

pub(super) struct Timers {
    leases: InOrder,
    delays: InOrder,
    /// Deadline, sequence number for ties, hold.
    odd: BTreeSet<(Instant, u64, u32)>,
    /// Nothing ends before this, be it a timer or a retention: until then nobody need look.
    next_look: Instant,
}

/// Timers in the order of their deadlines.
struct InOrder {
    list: List<ByDeadline>,
    /// No deadline in the list is later.
    latest: Instant,
}

impl InOrder {
    const fn new() -> Self {
        Self {
            list: List::new(),
            latest: Instant::ORIGIN,
        }
    }
}

impl Timers {
    pub(super) const fn new() -> Self {
        Self {
            leases: InOrder::new(),
            delays: InOrder::new(),
            odd: BTreeSet::new(),
            next_look: Instant::NEVER,
        }
    }

    /// Where a new deadline goes, and the link that its hold must have.
    #[inline]
    pub(super) fn place(&self, deadline: Instant, usual: Usual) -> (Place, Link) {
        let (in_order, place) = match usual {
            Usual::Lease => (&self.leases, Place::Leases),
            Usual::Delay => (&self.delays, Place::Delays),
            Usual::No => return (Place::Odd, Link::NONE),
        };
        // The queue's timeout may have been shortened since the last one was set.
        if deadline < in_order.latest && !in_order.list.is_empty() {
            return (Place::Odd, Link::NONE);
        }
        (place, in_order.list.back())
    }

    /// Sets the timer of a hold that was given its deadline, [place and link](Self::place).
    #[inline]
    pub(super) fn enter(
        &mut self,
        holds: &mut Table<Hold>,
        hold: u32,
        deadline: Instant,
        sequence: u64,
        place: Place,
    ) {
        self.look_at(deadline);
        let in_order = match place {
            Place::Nowhere => return,
            Place::Leases => &mut self.leases,
            Place::Delays => &mut self.delays,
            Place::Odd => {
                self.odd.insert((deadline, sequence, hold));
                return;
            }
        };
        in_order.latest = deadline;
        in_order.list.append(holds, hold);
    }

    /// Sets the timer of a hold that has none.
    pub(super) fn set(
        &mut self,
        holds: &mut Table<Hold>,
        hold: u32,
        deadline: Instant,
        sequence: u64,
        usual: Usual,
    ) {
        let (place, timer) = self.place(deadline, usual);
        let entry = &mut holds[hold];
        debug_assert!(entry.place == Place::Nowhere, "the timer was cleared");
        entry.deadline = deadline;
        entry.place = place;
        entry.timer = timer;
        self.enter(holds, hold, deadline, sequence, place);
    }

    pub(super) fn clear(&mut self, holds: &mut Table<Hold>, hold: u32, sequence: u64) {
        let entry = holds[hold];
        holds[hold].place = Place::Nowhere;
        self.leave(holds, hold, &entry, sequence);
    }

    /// Clears the timer of a hold, given by a copy, that is about to go.
    #[inline]
    pub(super) fn leave(
        &mut self,
        holds: &mut Table<Hold>,
        hold: u32,
        entry: &Hold,
        sequence: u64,
    ) {
        match entry.place {
            Place::Nowhere => {}
            Place::Leases => self.leases.list.unlink(holds, entry.timer),
            Place::Delays => self.delays.list.unlink(holds, entry.timer),
            Place::Odd => {
                self.odd.remove(&(entry.deadline, sequence, hold));
            }
        }
    }

    /// Makes sure that the next look at the deadlines is no later than this one.
    #[inline]
    pub(super) fn look_at(&mut self, deadline: Instant) {
        self.next_look = self.next_look.min(deadline);
    }

    /// The earliest deadline and its hold; of equal ones leases first, then delays.
    #[inline]
    pub(super) fn next(&self, holds: &Table<Hold>) -> Option<(Instant, u32)> {
        let mut next = None;
        for head in [self.leases.list.head, self.delays.list.head] {
            if head != NIL {
                let deadline = holds[head].deadline;
                if next.is_none_or(|(earliest, _)| deadline < earliest) {
                    next = Some((deadline, head));
                }
            }
        }
        if let Some(&(deadline, _, hold)) = self.odd.first()
            && next.is_none_or(|(earliest, _)| deadline < earliest)
        {
            next = Some((deadline, hold));
        }
        next
    }

    /// Every hold with a timer.
    pub(super) fn iter<'a>(&'a self, holds: &'a Table<Hold>) -> impl Iterator<Item = u32> + 'a {
        let odd = self.odd.iter().map(|&(_, _, hold)| hold);
        self.leases
            .list
            .iter(holds)
            .chain(self.delays.list.iter(holds))
            .chain(odd)
    }
}

/// All messages by the time of sending.
pub(super) struct Ages {
    in_order: List<ByAge>,
    /// No time of sending in the list is later.
    latest: Instant,
    odd: BTreeSet<(Instant, u64, u32)>,
}

impl Ages {
    pub(super) const fn new() -> Self {
        Self {
            in_order: List::new(),
            latest: Instant::ORIGIN,
            odd: BTreeSet::new(),
        }
    }

    /// The link of a message that is about to be inserted, and whether it goes into the list.
    #[inline]
    pub(super) fn back(&self, sent_at: Instant) -> (Link, bool) {
        (
            self.in_order.back(),
            sent_at >= self.latest || self.in_order.is_empty(),
        )
    }

    /// Inserts a message that was made with the [link](Self::back) for it.
    #[inline]
    pub(super) fn insert<M: Copy>(&mut self, records: &mut Table<Record<M>>, index: u32) {
        let Record {
            sent_at,
            sequence,
            in_age_order,
            ..
        } = records[index];
        if in_age_order {
            self.latest = sent_at;
            self.in_order.append(records, index);
        } else {
            self.odd.insert((sent_at, sequence, index));
        }
    }

    /// Takes out a message, given by a copy of its record.
    #[inline]
    pub(super) fn remove<M: Copy>(
        &mut self,
        records: &mut Table<Record<M>>,
        index: u32,
        record: &Record<M>,
    ) {
        if record.in_age_order {
            self.in_order.unlink(records, record.age);
        } else {
            self.odd.remove(&(record.sent_at, record.sequence, index));
        }
    }

    pub(super) fn oldest<M: Copy>(&self, records: &Table<Record<M>>) -> Option<u32> {
        if self.odd.is_empty() {
            let head = self.in_order.head;
            return (head != NIL).then_some(head);
        }
        self.iter(records).next()
    }

    /// Every message, oldest first.
    pub(super) fn iter<'a, M: Copy>(
        &'a self,
        records: &'a Table<Record<M>>,
    ) -> impl Iterator<Item = u32> + 'a {
        let mut in_order = self.in_order.iter(records).peekable();
        let mut odd = self.odd.iter().peekable();
        std::iter::from_fn(move || match (in_order.peek(), odd.peek()) {
            (Some(&listed), Some(&&(sent_at, sequence, _))) => {
                let record = &records[listed];
                if (record.sent_at, record.sequence) < (sent_at, sequence) {
                    in_order.next()
                } else {
                    odd.next().map(|&(_, _, index)| index)
                }
            }
            (Some(_), None) => in_order.next(),
            (None, _) => odd.next().map(|&(_, _, index)| index),
        })
    }
}

impl<M: Copy> Machine<M> {
    /// The earliest instant at which [`advance`](Self::advance) has something to do.
    ///
    /// The ends of de-duplication and attempt windows are not among them: whoever asks next drops
    /// what ended, so an idle queue wakes up for nothing.
    #[must_use]
    #[inline]
    pub fn next_deadline(&self) -> Option<Instant> {
        let timer = self.timers.next(&self.holds).map(|(deadline, _)| deadline);
        match self.retention_due() {
            Some((end, _)) => Some(timer.map_or(end, |timer| timer.min(end))),
            None => timer,
        }
    }

    /// A bound that is quickly had: [`advance`](Self::advance) has nothing to do before this instant. It may
    /// lie before the earliest deadline, until an `advance` from then on finds nothing.
    #[must_use]
    #[inline]
    pub const fn next_look(&self) -> Instant {
        self.timers.next_look
    }

    /// Serves all that is due by `now`, deadline by deadline: ends leases and delays, deletes what
    /// is past its retention, and turns what was received often enough into dead letters.
    ///
    /// A message whose retention and lease end at the same instant is deleted.
    #[inline]
    pub fn advance(&mut self, now: Instant, effects: &mut Vec<Effect<M>>) {
        if self.timers.next_look <= now {
            self.serve(now, effects);
            self.timers.next_look = self.next_deadline().unwrap_or(Instant::NEVER);
        }
    }

    fn serve(&mut self, now: Instant, effects: &mut Vec<Effect<M>>) {
        loop {
            let timer = self
                .timers
                .next(&self.holds)
                .filter(|(deadline, _)| *deadline <= now);
            let expiry = self.retention_due().filter(|(end, _)| *end <= now);
            match (timer, expiry) {
                (None, None) => break,
                (Some((deadline, hold)), expiry)
                    if expiry.is_none_or(|(end, _)| deadline < end) =>
                {
                    effects.push(self.timer_ended(hold, deadline));
                }
                (_, Some((end, index))) => effects.push(self.expire(index, end)),
                (Some(_), None) => unreachable!("without an expiry the timer is first"),
            }
        }
    }

    #[inline]
    fn retention_due(&self) -> Option<(Instant, u32)> {
        let retention = self.rules.retention?;
        let oldest = self.ages.oldest(&self.records)?;
        let end = self.records[oldest].sent_at + retention;
        (end != Instant::NEVER).then_some((end, oldest))
    }

    fn timer_ended(&mut self, hold: u32, at: Instant) -> Effect<M> {
        let index = self.holds[hold].record;
        match self.records[index].state {
            State::Delayed => {
                let (key, m) = (self.key(index), self.records[index].m);
                // The message was never received: the next receive makes its hold again.
                self.timers.clear(&mut self.holds, hold, key.sequence);
                self.holds.vacate(hold);
                self.records[index].hold = NIL;
                let wakes = self.become_visible(index);
                Effect::BecameVisible { m, key, wakes }
            }
            State::InFlight => {
                self.counters.timed_out += 1;
                let (key, m) = (self.key(index), self.records[index].m);
                match self.end_lease(index, at) {
                    Disposition::DeadLetter(letter) => Effect::DeadLetter(letter),
                    Disposition::Visible { wakes } => Effect::BecameVisible { m, key, wakes },
                    Disposition::InFlight { .. } => unreachable!("the lease has ended"),
                }
            }
            State::Visible => unreachable!("a visible message has no timer"),
        }
    }

    fn expire(&mut self, index: u32, at: Instant) -> Effect<M> {
        self.counters.expired += 1;
        let (key, was) = (self.key(index), self.records[index].state);
        let gone = self.take_out(index, at);
        Effect::Expired {
            m: gone.m,
            key,
            was,
            wakes: gone.wakes,
        }
    }
}
