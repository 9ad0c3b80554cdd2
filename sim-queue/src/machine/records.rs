//! Where the messages stand: a chunked table, and lists that run through its entries.
//!
//! # Layout
//! ```text
//!  directory   [chunk 0 | chunk 1 | - | chunk 3]        24 bytes per chunk
//!                  │
//!                  └─> [entry; 64]                       allocated when needed, freed when empty
//! ```
//! An entry is named by its index, so links are four bytes and nothing moves. One empty chunk is
//! kept as a spare, the lowest one, so that a queue that swings around a chunk's edge does not
//! allocate at each swing and the directory can shrink from its end.

use std::marker::PhantomData;
use std::ops::{Index, IndexMut};

use sim_core::time::Instant;

/// No entry.
pub(super) const NIL: u32 = u32::MAX;

const CHUNK: usize = 64;
/// Entries that a table holds at most: indices are 32 bits, and the last chunk is left out so that
/// [`NIL`] names no entry.
const LIMIT: usize = (u32::MAX as usize) - CHUNK;

/// A growing and shrinking table of entries with stable 32-bit indices; each operation is O(1).
pub(super) struct Table<T> {
    chunks: Vec<Chunk<T>>,
    /// Allocated chunks with a vacant slot.
    partial: u32,
    /// Directory places without a chunk.
    vacant: u32,
    /// The one wholly empty chunk that is kept, or [`NIL`].
    spare: u32,
    len: usize,
}

struct Chunk<T> {
    slots: Option<Box<[T; CHUNK]>>,
    /// Bit `i` is set while slot `i` holds an entry.
    used: u64,
    link: Link,
}

impl<T> Table<T> {
    pub(super) const fn new() -> Self {
        Self {
            chunks: Vec::new(),
            partial: NIL,
            vacant: NIL,
            spare: NIL,
            len: 0,
        }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) const fn is_full(&self) -> bool {
        self.len >= LIMIT
    }

    #[inline]
    pub(super) fn get(&self, index: u32) -> Option<&T> {
        let chunk = self.chunks.get(index as usize / CHUNK)?;
        if chunk.used & bit(index) == 0 {
            return None;
        }
        chunk
            .slots
            .as_ref()
            .map(|slots| &slots[index as usize % CHUNK])
    }

    /// The first entry at `from` or behind it, in order of index.
    pub(super) fn next_present(&self, from: u32) -> Option<u32> {
        let first = from as usize / CHUNK;
        let mut mask = u64::MAX << (from as usize % CHUNK);
        for (at, chunk) in self.chunks.iter().enumerate().skip(first) {
            let used = chunk.used & mask;
            if used != 0 {
                return Some((at * CHUNK) as u32 + used.trailing_zeros());
            }
            mask = u64::MAX;
        }
        None
    }

    /// Entries with their indices, in order of index.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.chunks.iter().enumerate().flat_map(|(at, chunk)| {
            let used = chunk.used;
            chunk
                .slots
                .iter()
                .flat_map(|slots| slots.iter().enumerate())
                .filter_map(move |(i, entry)| {
                    let index = (at * CHUNK + i) as u32;
                    (used & bit(index) != 0).then_some((index, entry))
                })
        })
    }

    fn unlink(&mut self, list: ListOf, at: u32) {
        let Link { prev, next } = self.chunks[at as usize].link;
        match prev {
            NIL => *self.head(list) = next,
            prev => self.chunks[prev as usize].link.next = next,
        }
        if next != NIL {
            self.chunks[next as usize].link.prev = prev;
        }
    }

    fn link(&mut self, list: ListOf, at: u32) {
        let next = *self.head(list);
        self.chunks[at as usize].link = Link { prev: NIL, next };
        if next != NIL {
            self.chunks[next as usize].link.prev = at;
        }
        *self.head(list) = at;
    }

    fn head(&mut self, list: ListOf) -> &mut u32 {
        match list {
            ListOf::Partial => &mut self.partial,
            ListOf::Vacant => &mut self.vacant,
        }
    }

    /// Takes entry `index` out of the table.
    ///
    /// The entry must be present: indices come from links, which never outlive their entries.
    #[inline]
    pub(super) fn vacate(&mut self, index: u32) {
        let at = index / CHUNK as u32;
        let chunk = &mut self.chunks[at as usize];
        debug_assert!(chunk.used & bit(index) != 0, "the entry is present");
        let was_full = chunk.used == u64::MAX;
        chunk.used &= !bit(index);
        let empty = chunk.used == 0;
        self.len -= 1;
        if was_full {
            self.link(ListOf::Partial, at);
        }
        if empty {
            match self.spare {
                NIL => self.spare = at,
                spare => {
                    self.spare = spare.min(at);
                    self.give_back(spare.max(at));
                }
            }
        }
    }

    fn give_back(&mut self, at: u32) {
        self.unlink(ListOf::Partial, at);
        self.chunks[at as usize].slots = None;
        self.link(ListOf::Vacant, at);
        while self
            .chunks
            .last()
            .is_some_and(|chunk| chunk.slots.is_none())
        {
            self.unlink(ListOf::Vacant, self.chunks.len() as u32 - 1);
            self.chunks.pop();
        }
        if self.chunks.len() < self.chunks.capacity() / 4 {
            self.chunks.shrink_to(self.chunks.len() * 2);
        }
    }
}

/// What stands in a table: can make an entry that fills a slot nobody uses.
pub(super) trait Entry {
    fn filler(&self) -> Self;
}

impl<T: Entry> Table<T> {
    /// Puts an entry into a vacant slot.
    ///
    /// # Panics
    /// When the table [is full](Self::is_full).
    #[inline(always)]
    pub(super) fn insert(&mut self, entry: T) -> u32 {
        if self.partial == NIL {
            // A copy, so that the entry itself need not stand in memory before it stands in its slot.
            self.grow(entry.filler());
        }
        let at = self.partial;
        let chunk = &mut self.chunks[at as usize];
        let slot = (!chunk.used).trailing_zeros();
        chunk.used |= 1 << slot;
        let full = chunk.used == u64::MAX;
        if let Some(slots) = &mut chunk.slots {
            slots[slot as usize % CHUNK] = entry;
        }
        if full {
            self.unlink(ListOf::Partial, at);
        }
        if self.spare == at {
            self.spare = NIL;
        }
        self.len += 1;
        at * CHUNK as u32 + slot
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self, like: T) {
        assert!(!self.is_full(), "a table holds at most {LIMIT} entries");
        let slots = Some(Box::new(std::array::from_fn(|_| like.filler())));
        let at = match self.vacant {
            NIL => {
                self.chunks.push(Chunk {
                    slots,
                    used: 0,
                    link: Link::NONE,
                });
                self.chunks.len() as u32 - 1
            }
            at => {
                self.unlink(ListOf::Vacant, at);
                self.chunks[at as usize].slots = slots;
                at
            }
        };
        self.link(ListOf::Partial, at);
    }
}

#[derive(Clone, Copy)]
enum ListOf {
    Partial,
    Vacant,
}

const fn bit(index: u32) -> u64 {
    1 << (index as usize % CHUNK)
}

impl<T> Index<u32> for Table<T> {
    type Output = T;

    #[inline]
    fn index(&self, index: u32) -> &T {
        match &self.chunks[index as usize / CHUNK].slots {
            Some(slots) => &slots[index as usize % CHUNK],
            None => unreachable!("an index names a present entry"),
        }
    }
}

impl<T> IndexMut<u32> for Table<T> {
    #[inline]
    fn index_mut(&mut self, index: u32) -> &mut T {
        match &mut self.chunks[index as usize / CHUNK].slots {
            Some(slots) => &mut slots[index as usize % CHUNK],
            None => unreachable!("an index names a present entry"),
        }
    }
}

/// An entry's neighbours in one list.
#[derive(Clone, Copy)]
pub(super) struct Link {
    pub(super) prev: u32,
    pub(super) next: u32,
}

impl Link {
    pub(super) const NONE: Self = Self {
        prev: NIL,
        next: NIL,
    };
}

/// Names the link of an entry through which one kind of list runs.
pub(super) trait Chain<T> {
    fn link(entry: &T) -> &Link;
    fn link_mut(entry: &mut T) -> &mut Link;
}

/// A doubly linked list through the entries of a table; each operation is O(1).
pub(super) struct List<C> {
    pub(super) head: u32,
    pub(super) tail: u32,
    chain: PhantomData<C>,
}

impl<C> Clone for List<C> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<C> Copy for List<C> {}

impl<C> List<C> {
    pub(super) const fn new() -> Self {
        Self {
            head: NIL,
            tail: NIL,
            chain: PhantomData,
        }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.head == NIL
    }

    #[inline]
    pub(super) fn push_back<T>(&mut self, table: &mut Table<T>, index: u32)
    where
        C: Chain<T>,
    {
        *C::link_mut(&mut table[index]) = self.back();
        self.append(table, index);
    }

    /// The link that an entry must have to be [appended](Self::append): an entry under construction
    /// takes it along.
    #[inline]
    pub(super) const fn back(&self) -> Link {
        Link {
            prev: self.tail,
            next: NIL,
        }
    }

    /// Puts an entry at the end that was made with the [link](Self::back) for it.
    #[inline]
    pub(super) fn append<T>(&mut self, table: &mut Table<T>, index: u32)
    where
        C: Chain<T>,
    {
        match self.tail {
            NIL => self.head = index,
            tail => C::link_mut(&mut table[tail]).next = index,
        }
        self.tail = index;
    }

    /// Takes out the entry that has this link.
    #[inline]
    pub(super) fn unlink<T>(&mut self, table: &mut Table<T>, link: Link)
    where
        C: Chain<T>,
    {
        let Link { prev, next } = link;
        match prev {
            NIL => self.head = next,
            prev => C::link_mut(&mut table[prev]).next = next,
        }
        match next {
            NIL => self.tail = prev,
            next => C::link_mut(&mut table[next]).prev = prev,
        }
    }

    pub(super) fn iter<'a, T>(
        &self,
        table: &'a Table<T>,
    ) -> impl Iterator<Item = u32> + use<'a, T, C>
    where
        C: Chain<T>,
    {
        let mut at = self.head;
        std::iter::from_fn(move || {
            let index = at;
            (index != NIL).then(|| {
                at = C::link(&table[index]).next;
                index
            })
        })
    }
}

/// Where a message is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// A receiver may take it (on a FIFO queue: when its group's turn comes).
    Visible,
    /// It was sent with a delay that has not passed.
    Delayed,
    /// A receiver has it, and its lease has not ended.
    InFlight,
}

/// One message: 48 bytes when `M` is an index of 32 bits. What only received and delayed messages
/// need stands apart, in their [`Hold`].
#[derive(Clone, Copy)]
pub(super) struct Record<M> {
    /// Unique in the machine's life: with the index it names the message, so that an old key never
    /// hits another message in the same slot.
    pub(super) sequence: u64,
    pub(super) sent_at: Instant,
    /// Neighbours by age; see [`super::timers::Ages`].
    pub(super) age: Link,
    /// Standard and fair: neighbours among the visible messages of the lane, while visible. FIFO:
    /// neighbours in the group, in every state, so that a returned message keeps its place.
    pub(super) lane: Link,
    /// Index in the table of groups, or [`NIL`].
    pub(super) group: u32,
    /// Index in the table of holds, or [`NIL`] for a message never delayed and never received.
    pub(super) hold: u32,
    pub(super) m: M,
    pub(super) state: State,
    /// Whether it stands in the list by age or in the set of those sent out of order.
    pub(super) in_age_order: bool,
}

/// What a delayed or received message has besides its record.
#[derive(Clone, Copy)]
pub(super) struct Hold {
    /// End of the lease or of the delay.
    pub(super) deadline: Instant,
    /// The latest receive; for a message still delayed, the time it came in.
    pub(super) received_at: Instant,
    pub(super) first_received: Instant,
    pub(super) timer: Link,
    pub(super) record: u32,
    /// Also the number of the lease: each receive makes a new one.
    pub(super) receive_count: u32,
    pub(super) place: super::timers::Place,
    /// Whether the latest lease's holder may still act on the message.
    pub(super) lease_held: bool,
    /// Whether the visibility was changed during the lease, which spends a receive attempt; for a
    /// delayed message, whether the delay is its own and not its queue's.
    pub(super) changed: bool,
}

impl<M: Copy> Entry for Record<M> {
    fn filler(&self) -> Self {
        *self
    }
}

impl Entry for Hold {
    fn filler(&self) -> Self {
        *self
    }
}

pub(super) struct ByAge;

impl<M> Chain<Record<M>> for ByAge {
    fn link(entry: &Record<M>) -> &Link {
        &entry.age
    }
    fn link_mut(entry: &mut Record<M>) -> &mut Link {
        &mut entry.age
    }
}

pub(super) struct InLane;

impl<M> Chain<Record<M>> for InLane {
    fn link(entry: &Record<M>) -> &Link {
        &entry.lane
    }
    fn link_mut(entry: &mut Record<M>) -> &mut Link {
        &mut entry.lane
    }
}

pub(super) struct ByDeadline;

impl Chain<Hold> for ByDeadline {
    fn link(entry: &Hold) -> &Link {
        &entry.timer
    }
    fn link_mut(entry: &mut Hold) -> &mut Link {
        &mut entry.timer
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    impl Entry for u32 {
        fn filler(&self) -> Self {
            *self
        }
    }

    #[test]
    fn a_queued_message_takes_48_bytes() {
        assert_eq!(size_of::<Record<u32>>(), 48);
        assert_eq!(size_of::<Record<u64>>(), 56);
        assert_eq!(size_of::<Hold>(), 48);
    }

    #[test]
    fn a_drained_table_keeps_one_chunk() {
        let mut table = Table::new();
        let all: Vec<u32> = (0..10_000u32).map(|n| table.insert(n)).collect();
        assert_eq!(table.len(), 10_000);
        assert!(all.iter().enumerate().all(|(n, &i)| table[i] == n as u32));
        for &i in &all {
            table.vacate(i);
        }
        assert_eq!(table.len(), 0);
        assert_eq!(table.chunks.iter().filter(|c| c.slots.is_some()).count(), 1);
        assert_eq!(table.chunks.len(), 1);
        assert!(table.chunks.capacity() <= 8);
        assert!(all.iter().all(|&i| table.get(i).is_none()));
    }

    #[test]
    fn vacated_slots_are_used_again() {
        let mut table = Table::new();
        let all: Vec<u32> = (0..640u32).map(|n| table.insert(n)).collect();
        for i in all.iter().filter(|i| **i % 3 == 0) {
            table.vacate(*i);
        }
        let again: Vec<u32> = (0..214u32).map(|n| table.insert(n)).collect();
        assert!(again.iter().all(|i| i % 3 == 0));
        assert_eq!(table.chunks.len(), 10);
        assert_eq!(table.iter().count(), 640);
    }

    #[test]
    fn chunks_given_back_in_the_middle_are_taken_again() {
        let mut table = Table::new();
        let all: Vec<u32> = (0..64 * 5u32).map(|n| table.insert(n)).collect();
        for &i in &all[64..64 * 4] {
            table.vacate(i);
        }
        assert_eq!(table.chunks.iter().filter(|c| c.slots.is_some()).count(), 3);
        let again: Vec<u32> = (0..64 * 3u32).map(|n| table.insert(n)).collect();
        assert_eq!(table.chunks.len(), 5);
        let mut sorted = again;
        sorted.sort_unstable();
        assert_eq!(sorted, all[64..64 * 4]);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Insert(usize),
        VacateFirst(usize),
        VacateLast(usize),
        VacateAny(Vec<prop::sample::Index>),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => (1..200usize).prop_map(Step::Insert),
            1 => (1..300usize).prop_map(Step::VacateFirst),
            1 => (1..300usize).prop_map(Step::VacateLast),
            2 => prop::collection::vec(any::<prop::sample::Index>(), 1..200)
                .prop_map(Step::VacateAny),
        ];
        prop::collection::vec(step, 1..60)
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 200,
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn a_table_keeps_each_entry_until_it_is_vacated(steps in steps()) {
            let mut table = Table::new();
            let mut entries: Vec<(u32, u32)> = Vec::new();
            let mut next = 0;
            for step in steps {
                match step {
                    Step::Insert(count) => {
                        for _ in 0..count {
                            entries.push((table.insert(next), next));
                            next += 1;
                        }
                    }
                    Step::VacateFirst(count) => {
                        let count = count.min(entries.len());
                        entries.drain(..count).for_each(|(at, _)| table.vacate(at));
                    }
                    Step::VacateLast(count) => {
                        let count = count.min(entries.len());
                        entries.drain(entries.len() - count..).for_each(|(at, _)| table.vacate(at));
                    }
                    Step::VacateAny(picks) => {
                        for pick in picks {
                            if !entries.is_empty() {
                                let (at, _) = entries.swap_remove(pick.index(entries.len()));
                                table.vacate(at);
                            }
                        }
                    }
                }
                prop_assert_eq!(table.len(), entries.len());
                prop_assert!(entries.iter().all(|&(at, n)| table.get(at) == Some(&n)));
                let mut present: Vec<u32> = entries.iter().map(|&(at, _)| at).collect();
                present.sort_unstable();
                prop_assert!(table.iter().map(|(at, _)| at).eq(present.iter().copied()));
                let mut found = Vec::new();
                while let Some(at) = table.next_present(found.last().map_or(0, |last| last + 1)) {
                    found.push(at);
                }
                prop_assert_eq!(found, present);
                let empty = table.chunks.iter().filter(|c| c.slots.is_some() && c.used == 0);
                prop_assert!(empty.count() <= 1, "one spare chunk at most");
                prop_assert!(table.chunks.last().is_none_or(|chunk| chunk.slots.is_some()));
            }
        }
    }
}
