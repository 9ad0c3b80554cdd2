//! Message groups: found by id, kept in order, scheduled round robin.
//!
//! # Algorithm
//! Groups are not locked but scheduled. A FIFO group stands in the ready ring once, exactly while
//! its first message is visible and none of its messages is in flight; a receive takes the group in
//! front and as many of its messages as it may, and the group comes back to the end of the ring
//! when the last of them left its lease. So each operation is O(1) whatever the number of groups,
//! and no group waits longer than one round.
//!
//! A group without messages goes to the idle ring, from whose front the table forgets groups when
//! more than a configured number are idle.

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
    idle: List<InRing>,
    idle_len: usize,
    idle_limit: usize,
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
            idle: List::new(),
            idle_len: 0,
            idle_limit,
            in_flight: 0,
            nameless: NIL,
        }
    }

    /// Groups with messages.
    pub(super) const fn occupied(&self) -> usize {
        self.table.len() - self.idle_len
    }

    /// Whether no further group fits; idle ones would make room.
    pub(super) const fn is_full(&self) -> bool {
        self.table.is_full()
    }

    /// The group of this name, for a message that comes in right after: the one hash lookup of a
    /// message's life.
    pub(super) fn enter(&mut self, id: Option<&GroupId>) -> u32 {
        let found = match id {
            None => (self.nameless != NIL).then_some(self.nameless),
            Some(id) => {
                let hash = hash_bytes(self.seed, id.as_str().as_bytes());
                let table = &self.table;
                let same = |&at: &u32| table[at].hash == hash && table[at].id.as_ref() == Some(id);
                self.index.find(hash, same).copied()
            }
        };
        let at = found.unwrap_or_else(|| self.create(id));
        self.leave_ring_if(at, Ring::Idle);
        at
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
            ring_of: Ring::Out,
            work: Work::default(),
        });
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

    /// Puts the group at the end of `ring`, out of the one where it stood.
    pub(super) fn place(&mut self, at: u32, ring: Ring) {
        let old = self.table[at].ring_of;
        match old {
            Ring::Out => {}
            Ring::Ready => self.ready.remove(&mut self.table, at),
            Ring::Noisy => self.noisy.remove(&mut self.table, at),
            Ring::Idle => {
                self.idle.remove(&mut self.table, at);
                self.idle_len -= 1;
            }
        }
        self.table[at].ring_of = ring;
        match ring {
            Ring::Out => {}
            Ring::Ready => self.ready.push_back(&mut self.table, at),
            Ring::Noisy => self.noisy.push_back(&mut self.table, at),
            Ring::Idle => {
                self.idle.push_back(&mut self.table, at);
                self.idle_len += 1;
            }
        }
    }

    fn leave_ring_if(&mut self, at: u32, ring: Ring) {
        if self.table[at].ring_of == ring {
            self.place(at, Ring::Out);
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
    pub(super) fn settle_fifo<M>(&mut self, at: u32, records: &Table<Record<M>>) -> bool {
        let group = &self.table[at];
        let head = group.lane.head;
        if head == NIL {
            self.retire(at);
            return false;
        }
        let ready = group.tally.in_flight == 0 && records[head].state == State::Visible;
        match (ready, group.ring_of) {
            (true, Ring::Ready) | (false, Ring::Out) => false,
            (true, _) => {
                self.place(at, Ring::Ready);
                true
            }
            (false, _) => {
                self.place(at, Ring::Out);
                false
            }
        }
    }

    /// Puts a fair queue's tenant into the ring where it belongs after a change.
    pub(super) fn settle_fair(&mut self, at: u32) {
        let Group { tally, ring_of, .. } = self.table[at];
        if tally.is_empty() {
            self.retire(at);
        } else if tally.visible == 0 {
            self.leave_ring_if(at, Ring::Ready);
            self.leave_ring_if(at, Ring::Noisy);
        } else if ring_of == Ring::Out {
            // Whether it is noisy is found out when its turn comes.
            self.place(at, Ring::Ready);
        }
    }

    fn retire(&mut self, at: u32) {
        if self.table[at].ring_of != Ring::Idle {
            self.place(at, Ring::Idle);
        }
        while self.idle_len > self.idle_limit {
            self.forget(self.idle.head);
        }
    }

    fn forget(&mut self, at: u32) {
        self.place(at, Ring::Out);
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

    /// Forgets every idle group.
    pub(super) fn forget_idle(&mut self) {
        while !self.idle.is_empty() {
            self.forget(self.idle.head);
        }
        if self.index.is_empty() {
            self.index = HashTable::new();
        }
    }
}
