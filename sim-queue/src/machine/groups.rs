//! Message groups: found by id, kept in order, scheduled round robin.
//!
//! # Rules
//! - While any message of a group is in flight, no message of the group is received: neither the
//!   later ones, also where a batch's first message was given a longer visibility and the others'
//!   timeouts ended, nor earlier ones that came back. So two receivers never work on one group.
//! - A message that came back keeps its place: it comes again before what was sent after it.
//! - A delayed message lets the earlier ones of its group pass and keeps the later ones back, since
//!   the order within a group is what such a queue promises. Other groups are not concerned.
//! - A message that leaves for another reason (dead letter, retention) frees its group like one that
//!   was acknowledged. A send never does.
//!
//! # Algorithm
//! Groups are not locked but scheduled. A FIFO group stands in the ready ring once, exactly while
//! its first message is visible and none of its messages is in flight; a receive takes the group in
//! front and as many of its messages as it may, and the group comes back to the end of the ring
//! when the last of them left its lease. So each operation is O(1) whatever the number of groups,
//! and no group waits longer than one round.
//!
//! Groups without messages stay in the table for a while, since most come back. When they are more
//! than a configured number and more than those with messages, a hand that goes round the table (as
//! in the clock algorithm of page replacement) forgets the next one: at least every second group
//! that it looks at can go, so that this too is O(1), amortised.

use hashbrown::HashTable;

use super::fair::Work;
use super::recent::hash_bytes;
use super::records::{Chain, Entry, InLane, Link, List, NIL, Record, State, Table};
use crate::group::GroupId;

/// How many messages are in each state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) visible: u32,
    pub(super) delayed: u32,
    pub(super) in_flight: u32,
}

impl Tally {
    pub(super) fn of(&mut self, state: State) -> &mut u32 {
        match state {
            State::Visible => &mut self.visible,
            State::Delayed => &mut self.delayed,
            State::InFlight => &mut self.in_flight,
        }
    }

    pub(super) const fn is_empty(self) -> bool {
        self.visible == 0 && self.delayed == 0 && self.in_flight == 0
    }
}

pub(super) struct Group {
    /// `None` for the messages of a fair queue that have no tenant.
    pub(super) id: Option<GroupId>,
    hash: u64,
    pub(super) lane: List<InLane>,
    ring: Link,
    pub(super) tally: Tally,
    pub(super) ring_of: Ring,
    pub(super) work: Work,
}

/// In which ring a group stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ring {
    /// In none: it has messages, and none of them may be received now.
    Out,
    /// FIFO: it may be received from. Fair: it was quiet when last looked at.
    Ready,
    /// Fair: it was noisy when last looked at.
    Noisy,
    /// It has no messages.
    Idle,
}

impl Entry for Group {
    fn filler(&self) -> Self {
        Self {
            id: None,
            hash: 0,
            lane: List::new(),
            ring: Link::NONE,
            tally: Tally::default(),
            ring_of: Ring::Out,
            work: Work::default(),
        }
    }
}

pub(super) struct InRing;

impl Chain<Group> for InRing {
    fn link(entry: &Group) -> &Link {
        &entry.ring
    }
    fn link_mut(entry: &mut Group) -> &mut Link {
        &mut entry.ring
    }
}

pub(super) struct Groups {
    pub(super) table: Table<Group>,
    index: HashTable<u32>,
    seed: u64,
    pub(super) ready: List<InRing>,
    pub(super) noisy: List<InRing>,
    idle: usize,
    idle_limit: usize,
    /// Where to look for the next group to forget.
    hand: u32,
    /// Groups with a message in flight.
    pub(super) in_flight: u32,
    /// The group of messages without one, or [`NIL`].
    nameless: u32,
}

impl Groups {
    pub(super) const fn new(seed: u64, idle_limit: usize) -> Self {
        Self {
            table: Table::new(),
            index: HashTable::new(),
            seed,
            ready: List::new(),
            noisy: List::new(),
            idle: 0,
            idle_limit,
            hand: 0,
            in_flight: 0,
            nameless: NIL,
        }
    }

    /// Groups with messages.
    pub(super) const fn occupied(&self) -> usize {
        self.table.len() - self.idle
    }

    /// Whether no further group fits; idle ones would make room.
    pub(super) const fn is_full(&self) -> bool {
        self.table.is_full()
    }

    /// The group of this name, idle if it is new: the one hash lookup of a message's life.
    #[inline]
    pub(super) fn find_or_create(&mut self, id: Option<&GroupId>) -> u32 {
        let found = match id {
            None => (self.nameless != NIL).then_some(self.nameless),
            Some(id) => {
                let hash = hash_bytes(self.seed, id.as_str().as_bytes());
                let table = &self.table;
                let same = |&at: &u32| table[at].hash == hash && table[at].id.as_ref() == Some(id);
                self.index.find(hash, same).copied()
            }
        };
        found.unwrap_or_else(|| self.create(id))
    }

    /// Prepares a group for a message that comes in right after.
    #[inline]
    pub(super) fn occupy(&mut self, at: u32) {
        let group = &mut self.table[at];
        if group.ring_of == Ring::Idle {
            group.ring_of = Ring::Out;
            self.idle -= 1;
        }
    }

    #[cold]
    fn create(&mut self, id: Option<&GroupId>) -> u32 {
        let hash = id.map_or(0, |id| hash_bytes(self.seed, id.as_str().as_bytes()));
        let at = self.table.insert(Group {
            id: id.cloned(),
            hash,
            lane: List::new(),
            ring: Link::NONE,
            tally: Tally::default(),
            ring_of: Ring::Idle,
            work: Work::default(),
        });
        self.idle += 1;
        match id {
            None => self.nameless = at,
            Some(_) => {
                let table = &self.table;
                self.index.insert_unique(hash, at, |&at| table[at].hash);
            }
        }
        at
    }

    /// The group behind this one in its ring, or [`NIL`].
    pub(super) fn next_in_ring(&self, at: u32) -> u32 {
        self.table[at].ring.next
    }

    /// Puts the group, which has messages, at the end of `ring`, out of the one where it stood.
    #[inline]
    pub(super) fn place(&mut self, at: u32, ring: Ring) {
        let group = &self.table[at];
        let (old, link) = (group.ring_of, group.ring);
        match old {
            Ring::Out | Ring::Idle => {}
            Ring::Ready => self.ready.unlink(&mut self.table, link),
            Ring::Noisy => self.noisy.unlink(&mut self.table, link),
        }
        self.table[at].ring_of = ring;
        match ring {
            Ring::Out | Ring::Idle => {}
            Ring::Ready => self.ready.push_back(&mut self.table, at),
            Ring::Noisy => self.noisy.push_back(&mut self.table, at),
        }
    }

    /// Counts a message of the group in `state`.
    pub(super) fn count_in(&mut self, at: u32, state: State) {
        let count = self.table[at].tally.of(state);
        *count += 1;
        if *count == 1 && state == State::InFlight {
            self.in_flight += 1;
        }
    }

    /// Takes back [`count_in`](Self::count_in).
    pub(super) fn count_out(&mut self, at: u32, state: State) {
        let count = self.table[at].tally.of(state);
        *count -= 1;
        if *count == 0 && state == State::InFlight {
            self.in_flight -= 1;
        }
    }

    /// Puts a FIFO group into the ring where it belongs after a change; whether it became ready.
    #[inline]
    pub(super) fn settle_fifo<M>(&mut self, at: u32, records: &Table<Record<M>>) -> bool {
        let group = &mut self.table[at];
        let head = group.lane.head;
        if head == NIL {
            self.retire(at);
            return false;
        }
        let ready = group.tally.in_flight == 0 && records[head].state == State::Visible;
        match (ready, group.ring_of) {
            (true, Ring::Ready) | (false, Ring::Out) => false,
            (true, _) => {
                group.ring_of = Ring::Ready;
                group.ring = self.ready.back();
                self.ready.append(&mut self.table, at);
                true
            }
            (false, _) => {
                self.place(at, Ring::Out);
                false
            }
        }
    }

    /// Takes the FIFO group whose turn it is out of the ready ring; its first message.
    #[inline]
    pub(super) fn next_ready(&mut self) -> Option<u32> {
        let at = self.ready.head;
        if at == NIL {
            return None;
        }
        let group = &mut self.table[at];
        group.ring_of = Ring::Out;
        let (link, first) = (group.ring, group.lane.head);
        self.ready.unlink(&mut self.table, link);
        Some(first)
    }

    /// Puts a fair queue's tenant into the ring where it belongs after a change.
    pub(super) fn settle_fair(&mut self, at: u32) {
        let Group { tally, ring_of, .. } = self.table[at];
        if tally.is_empty() {
            self.retire(at);
        } else if tally.visible == 0 {
            if ring_of != Ring::Out {
                self.place(at, Ring::Out);
            }
        } else if ring_of == Ring::Out {
            // Whether it is noisy is found out when its turn comes.
            self.place(at, Ring::Ready);
        }
    }

    /// Marks a group without messages.
    #[inline]
    fn retire(&mut self, at: u32) {
        if self.table[at].ring_of != Ring::Out {
            self.place(at, Ring::Out);
        }
        self.table[at].ring_of = Ring::Idle;
        self.idle += 1;
        if self.idle > self.idle_limit {
            self.forget_surplus();
        }
    }

    #[cold]
    fn forget_surplus(&mut self) {
        while self.idle > self.idle_limit.max(self.occupied()) {
            match self.table.next_present(self.hand) {
                None => self.hand = 0,
                Some(at) => {
                    self.hand = at + 1;
                    if self.table[at].ring_of == Ring::Idle {
                        self.forget(at);
                    }
                }
            }
        }
    }

    fn forget(&mut self, at: u32) {
        self.idle -= 1;
        if at == self.nameless {
            self.nameless = NIL;
        } else if let Ok(found) = self
            .index
            .find_entry(self.table[at].hash, |&other| other == at)
        {
            found.remove();
        }
        self.table[at].id = None;
        self.table.vacate(at);
        if self.index.len() < self.index.capacity() / 8 {
            let table = &self.table;
            self.index
                .shrink_to(self.index.len() * 2, |&at| table[at].hash);
        }
    }

    /// Forgets every group without messages.
    pub(super) fn forget_idle(&mut self) {
        let mut from = 0;
        while let Some(at) = self.table.next_present(from) {
            if self.table[at].ring_of == Ring::Idle {
                self.forget(at);
            }
            from = at + 1;
        }
        if self.index.is_empty() {
            self.index = HashTable::new();
        }
    }
}
