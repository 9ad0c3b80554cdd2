//! Order within a group, for one subscription.
//!
//! # Rules
//!
//! - Messages of one group are handed out in the order in which they came, one at a time: the next one only when the
//!   one before it was delivered or given up.
//! - A message that failed holds its whole group back until its next attempt. Other groups go on.
//! - A message without a group is a group of its own: its failures hold nobody back.
//! - Groups take turns: one that was served goes behind all that are ready.
//! - At most `limit` messages stand here, those in flight included; more are refused.
//!
//! # Algorithm
//!
//! Groups are scheduled, not searched. Each is a list through the messages; it stands in the ready list once,
//! exactly while its first message may be handed out, or in the timer wheel once, while that one waits. Every
//! operation is O(1) in messages and groups, and a group without messages takes no memory.

use compact_str::CompactString;
use hashbrown::HashTable;
use sim_core::time::Instant;
use sim_core::wheel::Wheel;

use super::hash::hash_bytes;

/// No message, no lane.
const NIL: u32 = u32::MAX;
/// The most messages: their places are numbered with 32 bits, and the wheel holds 2^31 timers.
pub(crate) const MAX_MESSAGES: usize = 1 << 31;

/// The messages that one subscription has not delivered yet, and which of them may be next.
pub(crate) struct Order<T> {
    messages: Slots<Waiting<T>>,
    lanes: Slots<Lane>,
    /// Lanes of named groups by their names.
    index: HashTable<u32>,
    /// The first and last lane of the ready list.
    ready: (u32, u32),
    /// When which lane is ready again.
    timers: Wheel<u32>,
    limit: usize,
    in_flight: usize,
    /// How many messages ever came, and how many were ever taken: numbers that never repeat.
    pushes: u64,
    takes: u64,
    seed: u64,
}

struct Waiting<T> {
    item: T,
    /// The place among all that ever came.
    number: u64,
    /// Attempts that failed.
    failed: u32,
    /// The next message of the lane.
    next: u32,
}

/// The messages of a group, or the one message without a group.
struct Lane {
    /// The group and its hash.
    name: Option<(CompactString, u64)>,
    /// Invariant: neither is `NIL`.
    head: u32,
    tail: u32,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// In the ready list, before `next`.
    Ready { next: u32 },
    /// Its head was handed out by the `take` of this number.
    InFlight { take: u64 },
    /// In the wheel: its head failed.
    Held,
}

/// Names a message that was taken; never names another one, however late it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket {
    lane: u32,
    take: u64,
}

/// A message to deliver now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Taken<'a, T> {
    pub(crate) ticket: Ticket,
    pub(crate) item: &'a T,
    /// How many attempts at it have failed.
    pub(crate) failed: u32,
}

impl<T> Order<T> {
    /// Makes room for `limit` messages, at most [`MAX_MESSAGES`]; allocates nothing yet.
    pub(crate) fn new(limit: usize, seed: u64) -> Self {
        Self {
            messages: Slots::new(),
            lanes: Slots::new(),
            index: HashTable::new(),
            ready: (NIL, NIL),
            timers: Wheel::new(),
            limit: limit.min(MAX_MESSAGES),
            in_flight: 0,
            pushes: 0,
            takes: 0,
            seed,
        }
    }

    /// Puts a message behind those of its group; gives it back when there is no room.
    pub(crate) fn push(&mut self, group: Option<&str>, item: T) -> Result<(), T> {
        if self.messages.len >= self.limit {
            return Err(item);
        }
        self.pushes += 1;
        let message = self.messages.insert(Waiting {
            item,
            number: self.pushes,
            failed: 0,
            next: NIL,
        });
        let name = group.map(|group| (group, hash_bytes(self.seed, group.as_bytes())));
        if let Some((group, hash)) = name
            && let Some(lane) = self.find(group, hash)
        {
            let tail = std::mem::replace(&mut self.lanes[lane].tail, message);
            self.messages[tail].next = message;
            return Ok(());
        }
        let lane = self.lanes.insert(Lane {
            name: name.map(|(group, hash)| (CompactString::new(group), hash)),
            head: message,
            tail: message,
            state: State::Ready { next: NIL },
        });
        if let Some((_, hash)) = name {
            let lanes = &self.lanes;
            self.index.insert_unique(hash, lane, |&at| lanes[at].hash());
        }
        self.make_ready_last(lane);
        Ok(())
    }

    /// Puts a message without a group here that is not to be handed out before `at`: its first attempt was made, and
    /// failed, before it came. Gives it back when there is no room.
    pub(crate) fn push_held(&mut self, item: T, at: Instant) -> Result<(), T> {
        if self.messages.len >= self.limit {
            return Err(item);
        }
        self.pushes += 1;
        let message = self.messages.insert(Waiting {
            item,
            number: self.pushes,
            failed: 0,
            next: NIL,
        });
        let lane = self.lanes.insert(Lane {
            name: None,
            head: message,
            tail: message,
            state: State::Held,
        });
        self.timers.insert(at, lane);
        Ok(())
    }

    /// Takes a message out that was not handed out, to make room: the first of the lane whose turn it is, or, where
    /// all wait for a retry, of the lane whose retry comes first; with how many attempts at it have
    /// failed. None when every lane is in flight.
    pub(crate) fn evict(&mut self) -> Option<(T, u32)> {
        if self.ready.0 == NIL
            && let Some((_, lane)) = self.timers.pop_due(Instant::NEVER)
        {
            self.make_ready_last(lane);
        }
        let Taken { ticket, failed, .. } = self.take(Instant::ORIGIN)?;
        Some((self.done(ticket)?, failed))
    }

    /// Takes the first message of the lane whose turn it is; the lane is held until the ticket is resolved, by
    /// [`done`](Self::done), [`retry`](Self::retry) or [`put_back`](Self::put_back).
    pub(crate) fn take(&mut self, now: Instant) -> Option<Taken<'_, T>> {
        self.wake(now);
        let lane = self.ready.0;
        if lane == NIL {
            return None;
        }
        self.takes += 1;
        self.in_flight += 1;
        let take = self.takes;
        let before = std::mem::replace(&mut self.lanes[lane].state, State::InFlight { take });
        if let State::Ready { next } = before {
            self.ready.0 = next;
            if next == NIL {
                self.ready.1 = NIL;
            }
        }
        let message = &self.messages[self.lanes[lane].head];
        Some(Taken {
            ticket: Ticket { lane, take },
            item: &message.item,
            failed: message.failed,
        })
    }

    /// The message of a ticket that is not resolved yet.
    pub(crate) fn get(&self, ticket: Ticket) -> Option<&T> {
        let lane = self.in_flight(ticket)?;
        Some(&self.messages[lane.head].item)
    }

    /// Takes a message out that was delivered or given up; its group goes on with the next one.
    pub(crate) fn done(&mut self, ticket: Ticket) -> Option<T> {
        let message = self.in_flight(ticket)?.head;
        self.in_flight -= 1;
        let Waiting { item, next, .. } = self.messages.remove(message)?;
        if next == NIL {
            if let Some(Lane {
                name: Some((_, hash)),
                ..
            }) = self.lanes.remove(ticket.lane)
                && let Ok(entry) = self.index.find_entry(hash, |&at| at == ticket.lane)
            {
                entry.remove();
            }
        } else {
            self.lanes[ticket.lane].head = next;
            self.make_ready_last(ticket.lane);
        }
        self.give_back_memory();
        Some(item)
    }

    /// Counts a failed attempt and holds the message and its group back until `at`; returns how many have failed.
    pub(crate) fn retry(&mut self, ticket: Ticket, at: Instant) -> Option<u32> {
        let message = self.in_flight(ticket)?.head;
        self.in_flight -= 1;
        self.timers.insert(at, ticket.lane);
        self.lanes[ticket.lane].state = State::Held;
        let failed = &mut self.messages[message].failed;
        *failed = failed.saturating_add(1);
        Some(*failed)
    }

    /// Puts a message back that was not attempted, before all others; false when the ticket is resolved.
    pub(crate) fn put_back(&mut self, ticket: Ticket) -> bool {
        if self.in_flight(ticket).is_none() {
            return false;
        }
        self.in_flight -= 1;
        let next = std::mem::replace(&mut self.ready.0, ticket.lane);
        if next == NIL {
            self.ready.1 = ticket.lane;
        }
        self.lanes[ticket.lane].state = State::Ready { next };
        true
    }

    /// When the next held group is ready again; exact.
    pub(crate) fn next_deadline(&mut self) -> Option<Instant> {
        self.timers.next()
    }

    /// Whether [`take`](Self::take) would give something.
    pub(crate) fn has_ready(&mut self, now: Instant) -> bool {
        self.ready.0 != NIL || self.timers.next().is_some_and(|at| at <= now)
    }

    /// How many may.
    pub(crate) const fn limit(&self) -> usize {
        self.limit
    }

    /// How many messages stand here, those in flight included.
    pub(crate) const fn len(&self) -> usize {
        self.messages.len
    }

    /// How many were taken and not resolved.
    pub(crate) const fn in_flight_len(&self) -> usize {
        self.in_flight
    }

    /// Takes everything out, in the order in which it came, what is in flight included: its tickets resolve to
    /// nothing from now on.
    pub(crate) fn drain(&mut self) -> impl ExactSizeIterator<Item = T> + use<T> {
        let mut all: Vec<_> = std::mem::replace(&mut self.messages, Slots::new())
            .into_values()
            .map(|message| (message.number, message.item))
            .collect();
        all.sort_unstable_by_key(|(number, _)| *number);
        self.lanes = Slots::new();
        self.index = HashTable::new();
        self.timers = Wheel::new();
        self.ready = (NIL, NIL);
        self.in_flight = 0;
        all.into_iter().map(|(_, item)| item)
    }

    fn find(&self, group: &str, hash: u64) -> Option<u32> {
        let same = |&at: &u32| {
            let name = self.lanes[at].name.as_ref();
            name.is_some_and(|(name, its)| *its == hash && name == group)
        };
        self.index.find(hash, same).copied()
    }

    fn in_flight(&self, ticket: Ticket) -> Option<&Lane> {
        let take = ticket.take;
        self.lanes
            .get(ticket.lane)
            .filter(|lane| lane.state == State::InFlight { take })
    }

    fn make_ready_last(&mut self, lane: u32) {
        self.lanes[lane].state = State::Ready { next: NIL };
        let last = std::mem::replace(&mut self.ready.1, lane);
        if last == NIL {
            self.ready.0 = lane;
        } else if let State::Ready { next } = &mut self.lanes[last].state {
            *next = lane;
        }
    }

    /// Moves lanes whose time has come to the ready list, deadline by deadline.
    fn wake(&mut self, now: Instant) {
        while let Some((_, lane)) = self.timers.pop_due(now) {
            debug_assert!(self.lanes[lane].state == State::Held);
            self.make_ready_last(lane);
        }
    }

    /// Once nothing is left, what was allocated for a backlog is freed.
    fn give_back_memory(&mut self) {
        const KEPT: usize = 64;
        if self.messages.len == 0 && self.messages.slots.capacity() > KEPT {
            self.messages = Slots::new();
            self.lanes = Slots::new();
            self.index = HashTable::new();
        }
    }
}

impl Lane {
    fn hash(&self) -> u64 {
        self.name.as_ref().map_or(0, |(_, hash)| *hash)
    }
}

/// Values at places that are used again.
struct Slots<V> {
    slots: Vec<Slot<V>>,
    /// The first free place.
    free: u32,
    len: usize,
}

enum Slot<V> {
    Used(V),
    Free { next: u32 },
}

impl<V> Slots<V> {
    const fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: NIL,
            len: 0,
        }
    }

    fn insert(&mut self, value: V) -> u32 {
        self.len += 1;
        if let Some(slot) = self.slots.get_mut(self.free as usize)
            && let Slot::Free { next } = slot
        {
            let at = std::mem::replace(&mut self.free, *next);
            *slot = Slot::Used(value);
            return at;
        }
        self.slots.push(Slot::Used(value));
        (self.slots.len() - 1) as u32
    }

    fn remove(&mut self, at: u32) -> Option<V> {
        let slot = self.slots.get_mut(at as usize)?;
        if matches!(slot, Slot::Free { .. }) {
            return None;
        }
        let free = Slot::Free { next: self.free };
        match std::mem::replace(slot, free) {
            Slot::Used(value) => {
                self.free = at;
                self.len -= 1;
                Some(value)
            }
            Slot::Free { .. } => None,
        }
    }

    fn get(&self, at: u32) -> Option<&V> {
        match self.slots.get(at as usize)? {
            Slot::Used(value) => Some(value),
            Slot::Free { .. } => None,
        }
    }

    fn into_values(self) -> impl Iterator<Item = V> {
        self.slots.into_iter().filter_map(|slot| match slot {
            Slot::Used(value) => Some(value),
            Slot::Free { .. } => None,
        })
    }
}

/// For places that an invariant says are used.
impl<V> std::ops::Index<u32> for Slots<V> {
    type Output = V;

    fn index(&self, at: u32) -> &V {
        self.get(at)
            .expect("a place in use, by the lists' invariants")
    }
}

impl<V> std::ops::IndexMut<u32> for Slots<V> {
    fn index_mut(&mut self, at: u32) -> &mut V {
        match &mut self.slots[at as usize] {
            Slot::Used(value) => value,
            Slot::Free { .. } => unreachable!("a place in use, by the lists' invariants"),
        }
    }
}

#[cfg(test)]
mod tests;
