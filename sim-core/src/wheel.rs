//! [`Wheel`]: a hierarchical timer wheel with exact deadlines and exact order.
//!
//! # Algorithm
//!
//! The hierarchical timing wheel of Varghese and Lauck ("Hashed and hierarchical timing wheels", SOSP 1987,
//! scheme 7) with 64 slots a level and a bitmap of the occupied ones, on the digits of the deadline itself: six
//! bits of nanoseconds a level, eleven levels for 64 bits. A slot holds a list of timers in order of insertion.
//! A slot of the lowest level holds timers of one nanosecond.
//!
//! ```text
//!  root ─► level 5, slots of 1.07 s     .  .  ■  ■  .  ■        ■ = a list, not yet looked into
//!                                             │
//!                                             ▼ cascaded: it came first and was long
//!          level 3, slots of 262 us     .  ■  .  ■  ■  .        (level 4 skipped: nothing differs there)
//! ```
//!
//! Two things differ from the wheel in the paper, both so that [`next`](Wheel::next) is exact and cheap:
//!
//! - **The wheel does not turn.** The classical wheel places a timer by its distance from the present, moves
//!   lists down when the present reaches them, and knows the first deadline of a distant slot only by walking it.
//!   Here a timer is placed by its digits alone, as in a radix tree, and a list is cascaded to a lower level when
//!   it comes *first* and has more than `SHORT` timers, whether or not its time has come. So asking for the
//!   next deadline prepares it, a timer is moved at most once a level whatever happens in between, and a
//!   timer earlier than all others needs nothing undone.
//! - **Levels exist where they are needed.** A level below a slot is allocated when that slot is cascaded, at the
//!   highest digit in which its timers differ, and freed when its last timer goes. A wheel with a few
//!   timers is one list.
//!
//! Timers with one deadline follow one path, so they always stand in one list, in order of insertion.
//!
//! # Cost
//!
//! Insert and remove walk the levels that exist on the way (none to three in practice, eleven at most); a timer
//! is cascaded at most once for each level. Timers stand in chunks of 64 and levels in boxes of their own: both are
//! freed as they empty, but for one spare of each.

use std::fmt;

use crate::time::Instant;

/// Bits of the deadline that one level looks at.
const BITS: u32 = 6;
/// Slots in one level.
const SLOTS: usize = 1 << BITS;
/// Levels for 64 bits, and so the longest path.
const LEVELS: usize = u64::BITS.div_ceil(BITS) as usize;
/// The longest list that is searched rather than cascaded.
///
/// Searching so few costs no more than one cascaded timer does; with one, any two timers would make a level.
const SHORT: usize = 4;

/// Timers in one chunk: one word of bitmap.
const CHUNK: usize = 64;
/// No timer, no chunk.
const NIL: u32 = u32::MAX;

/// Timers in order of deadline, with O(1) amortised insertion and removal.
///
/// Pure: it knows no clock. What is due is decided by the `now` that it is given. Timers with the same deadline
/// fire in the order in which they were inserted. Any deadline is good, also one in the past
/// and [`Instant::NEVER`].
///
/// # Examples
///
/// ```
/// use sim_core::time::Instant;
/// use sim_core::wheel::Wheel;
///
/// let mut wheel = Wheel::new();
/// let at = Instant::from_nanos;
/// wheel.insert(at(3_000), "third");
/// let second = wheel.insert(at(2_000), "second");
/// wheel.insert(at(1_000), "first");
///
/// assert_eq!(wheel.next(), Some(at(1_000)));
/// assert_eq!(wheel.remove(second), Some("second"));
/// assert_eq!(wheel.pop_due(at(3_000)), Some((at(1_000), "first")));
/// assert_eq!(wheel.pop_due(at(2_999)), None);
/// assert_eq!(wheel.pop_due(at(3_000)), Some((at(3_000), "third")));
/// ```
pub struct Wheel<V> {
    root: Slot,
    levels: Levels,
    timers: Timers<V>,
    /// The number of the next insertion; makes keys unique for ever.
    serial: u64,
    /// The earliest deadline, where it is known. Invariant: `Some` only when there are timers.
    earliest: Option<u64>,
}

/// Names one timer of one [`Wheel`]; never names another one, however late it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TimerKey {
    index: u32,
    serial: u64,
}

impl<V> Wheel<V> {
    /// Makes an empty wheel; allocates nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            root: Slot::EMPTY,
            levels: Levels::new(),
            timers: Timers::new(),
            serial: 0,
            earliest: None,
        }
    }

    /// Inserts a timer.
    ///
    /// # Panics
    ///
    /// When 2^31 timers stand in the wheel.
    pub fn insert(&mut self, deadline: Instant, value: V) -> TimerKey {
        let deadline = deadline.as_nanos();
        self.earliest = match self.earliest {
            Some(earliest) => Some(earliest.min(deadline)),
            None if self.timers.live == 0 => Some(deadline),
            None => None,
        };
        let serial = self.serial;
        self.serial += 1;
        let index = self.timers.allocate(deadline, serial, value);
        self.place(deadline, index);
        TimerKey { index, serial }
    }

    /// Removes a timer and returns its value; `None` when it fired or was removed before.
    pub fn remove(&mut self, key: TimerKey) -> Option<V> {
        let timer = self.timers.find(key.index)?;
        if timer.serial != key.serial || timer.value.is_none() {
            return None;
        }
        self.take(key.index)
    }

    /// The value of a timer that has not fired yet.
    #[must_use]
    pub fn get(&self, key: TimerKey) -> Option<&V> {
        let timer = self.timers.find(key.index)?;
        timer.value.as_ref().filter(|_| timer.serial == key.serial)
    }

    /// The earliest deadline, exactly.
    ///
    /// Takes `&mut self` because it may cascade what comes first; see the [module](self).
    #[expect(
        clippy::should_implement_trait,
        reason = "the next deadline; a wheel is no iterator"
    )]
    pub fn next(&mut self) -> Option<Instant> {
        if self.earliest.is_none() {
            self.earliest = self.first().map(|index| self.timers[index].deadline);
        }
        self.earliest.map(Instant::from_nanos)
    }

    /// Takes the earliest timer if its deadline is at or before `now`.
    ///
    /// Call it until it returns `None`: then all that is due has come, deadline by deadline.
    pub fn pop_due(&mut self, now: Instant) -> Option<(Instant, V)> {
        if self
            .earliest
            .is_some_and(|earliest| earliest > now.as_nanos())
        {
            return None;
        }
        let index = self.first()?;
        let deadline = self.timers[index].deadline;
        self.earliest = Some(deadline);
        if deadline > now.as_nanos() {
            return None;
        }
        Some((Instant::from_nanos(deadline), self.take(index)?))
    }

    /// Keeps the timers for which `keep` says so and drops the others; visits each once, in no order.
    ///
    /// For owners that cancel lazily: called whenever [`len`](Self::len) is twice what is still wanted, it
    /// costs O(1) a timer.
    pub fn retain(&mut self, mut keep: impl FnMut(Instant, &V) -> bool) {
        for chunk in 0..self.timers.chunks.len() as u32 {
            for index in chunk * CHUNK as u32..(chunk + 1) * CHUNK as u32 {
                // Looked up each time: a chunk may be freed under way.
                let Some(timer) = self.timers.find(index) else {
                    break;
                };
                let Some(value) = &timer.value else { continue };
                if !keep(Instant::from_nanos(timer.deadline), value) {
                    self.take(index);
                }
            }
        }
    }

    /// How many timers stand in the wheel.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.timers.live
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.timers.live == 0
    }

    /// Bytes allocated at present.
    #[must_use]
    pub fn allocated(&self) -> usize {
        self.timers.allocated() + self.levels.allocated()
    }

    /// Links a timer into the list where its deadline leads.
    fn place(&mut self, deadline: u64, index: u32) {
        let mut at = Place::ROOT;
        loop {
            match self.slot(at).kind() {
                Kind::Empty => {
                    self.timers.make_list(index);
                    self.set(at, Slot::list(index));
                    return;
                }
                Kind::List(head) => {
                    self.timers.append(head, index);
                    return;
                }
                Kind::Level(node) => {
                    let level = &self.levels[node];
                    if level.covers(deadline) {
                        at = Place {
                            node,
                            digit: level.digit(deadline),
                        };
                    } else {
                        // A level in between, at the highest digit in which the newcomer differs.
                        let sample = level.sample();
                        let between = self.levels.allocate(highest(sample ^ deadline), deadline);
                        let digit = self.levels[between].digit(sample);
                        self.levels[between].set(digit, Slot::level(node));
                        self.set(at, Slot::level(between));
                        at = Place {
                            node: between,
                            digit: self.levels[between].digit(deadline),
                        };
                    }
                }
            }
        }
    }

    /// Finds the timer that comes first, cascading what stands in its way.
    fn first(&mut self) -> Option<u32> {
        let mut at = Place::ROOT;
        loop {
            match self.slot(at).kind() {
                Kind::Empty => return None,
                Kind::Level(node) => {
                    at = Place {
                        node,
                        digit: self.levels[node].first(),
                    };
                }
                Kind::List(head) => {
                    if at.node != NIL && self.levels[at.node].is_lowest() {
                        return Some(head);
                    }
                    if let Some(first) = self.timers.first_of_short(head) {
                        return Some(first);
                    }
                    self.cascade(at, head);
                }
            }
        }
    }

    /// Puts a level below the slot at `at` and spreads its list over it.
    fn cascade(&mut self, at: Place, head: u32) {
        let sample = self.timers[head].deadline;
        // The digits above are alike for the whole list, so the walk ends at the first that differs in the
        // next one: within a few steps, mostly.
        let most = if at.node == NIL {
            u64::MAX
        } else {
            (1 << self.levels[at.node].shift) - 1
        };
        let mut differ = 0;
        self.timers.walk(head, |timer| {
            differ |= timer.deadline ^ sample;
            highest(differ) < highest(most)
        });
        let node = self.levels.allocate(highest(differ), sample);
        let level = &mut self.levels[node];
        let mut next = head;
        let last = self.timers[head].previous;
        loop {
            let index = next;
            let timer = &self.timers[index];
            next = timer.next;
            let digit = level.digit(timer.deadline);
            match level.slots[digit as usize].kind() {
                Kind::List(list) => self.timers.append(list, index),
                _ => {
                    self.timers.make_list(index);
                    level.set(digit, Slot::list(index));
                }
            }
            if index == last {
                break;
            }
        }
        self.set(at, Slot::level(node));
    }

    /// Unlinks and frees a timer, and the levels that are empty then.
    fn take(&mut self, index: u32) -> Option<V> {
        let timer = &self.timers[index];
        let deadline = timer.deadline;
        // The path down, so that empty levels can be freed on the way up.
        let mut path = [Place::ROOT; LEVELS + 1];
        let mut depth = 0;
        let head = loop {
            match self.slot(path[depth]).kind() {
                Kind::Level(node) => {
                    depth += 1;
                    path[depth] = Place {
                        node,
                        digit: self.levels[node].digit(deadline),
                    };
                }
                Kind::List(head) => break head,
                Kind::Empty => unreachable!("a timer stands where its deadline leads"),
            }
        };
        let rest = self.timers.unlink(head, index);
        if rest != head {
            let slot = if rest == NIL {
                Slot::EMPTY
            } else {
                Slot::list(rest)
            };
            self.set(path[depth], slot);
        }
        if rest == NIL {
            self.prune(&path[..=depth]);
        }
        if self.earliest == Some(deadline) {
            self.earliest = None;
        }
        self.timers.free(index)
    }

    /// Frees the levels at the end of `path` that are empty, and one that only passes on to another.
    fn prune(&mut self, path: &[Place]) {
        for pair in path.windows(2).rev() {
            let (above, node) = (pair[0], pair[1].node);
            let level = &self.levels[node];
            if level.occupied == 0 {
                self.levels.free(node);
                self.set(above, Slot::EMPTY);
            } else {
                if let Some(only) = level.only_level() {
                    self.levels.free(node);
                    self.set(above, only);
                }
                return;
            }
        }
    }

    fn slot(&self, at: Place) -> Slot {
        if at.node == NIL {
            self.root
        } else {
            self.levels[at.node].slots[at.digit as usize]
        }
    }

    fn set(&mut self, at: Place, slot: Slot) {
        if at.node == NIL {
            self.root = slot;
        } else {
            self.levels[at.node].set(at.digit, slot);
        }
    }
}

impl<V> Default for Wheel<V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<V> fmt::Debug for Wheel<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wheel")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

/// The number of the level that looks at the highest bit set in `differ`; the lowest level for none.
const fn highest(differ: u64) -> u32 {
    (u64::BITS - 1 - (differ | 1).leading_zeros()) / BITS
}

/// Where a slot stands: in a level, or the root (`node` is `NIL`).
#[derive(Clone, Copy)]
struct Place {
    node: u32,
    digit: u32,
}

impl Place {
    const ROOT: Self = Self {
        node: NIL,
        digit: 0,
    };
}

/// Nothing, a list of timers (by its first) or a level, in one word.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Slot(u32);

enum Kind {
    Empty,
    List(u32),
    Level(u32),
}

impl Slot {
    const EMPTY: Self = Self(NIL);
    const LEVEL: u32 = 1 << 31;

    const fn list(head: u32) -> Self {
        Self(head)
    }

    const fn level(node: u32) -> Self {
        Self(node | Self::LEVEL)
    }

    const fn kind(self) -> Kind {
        if self.0 == NIL {
            Kind::Empty
        } else if self.0 & Self::LEVEL == 0 {
            Kind::List(self.0)
        } else {
            Kind::Level(self.0 & !Self::LEVEL)
        }
    }
}

/// Sixty-four slots that share all digits above `shift`.
struct Level {
    /// Invariant: bit `d` is set exactly when `slots[d]` is not empty.
    occupied: u64,
    /// Some deadline of this level: the digits above `shift` are those of all others.
    sample: u64,
    /// How far right the level's digit stands.
    shift: u32,
    slots: [Slot; SLOTS],
}

impl Level {
    const fn covers(&self, deadline: u64) -> bool {
        // In two steps: for the highest level the sum is more than the width.
        (deadline ^ self.sample) >> self.shift >> BITS == 0
    }

    const fn digit(&self, deadline: u64) -> u32 {
        (deadline >> self.shift) as u32 & (SLOTS as u32 - 1)
    }

    const fn sample(&self) -> u64 {
        self.sample
    }

    const fn is_lowest(&self) -> bool {
        self.shift == 0
    }

    const fn first(&self) -> u32 {
        self.occupied.trailing_zeros()
    }

    const fn set(&mut self, digit: u32, slot: Slot) {
        self.slots[digit as usize] = slot;
        if slot.0 == NIL {
            self.occupied &= !(1 << digit);
        } else {
            self.occupied |= 1 << digit;
        }
    }

    /// The level below, when there is nothing else here.
    const fn only_level(&self) -> Option<Slot> {
        if self.occupied.is_power_of_two() {
            let slot = self.slots[self.first() as usize];
            if let Kind::Level(_) = slot.kind() {
                return Some(slot);
            }
        }
        None
    }
}

/// The levels that exist.
struct Levels {
    boxes: Vec<Option<Box<Level>>>,
    /// Invariant: exactly the indices of `boxes` that hold `None`.
    vacant: Vec<u32>,
    spare: Option<Box<Level>>,
}

impl Levels {
    const fn new() -> Self {
        Self {
            boxes: Vec::new(),
            vacant: Vec::new(),
            spare: None,
        }
    }

    fn allocate(&mut self, number: u32, sample: u64) -> u32 {
        let mut level = self.spare.take().unwrap_or_else(|| {
            Box::new(Level {
                occupied: 0,
                sample,
                shift: 0,
                slots: [Slot::EMPTY; SLOTS],
            })
        });
        // A spare was freed empty, so its slots are.
        level.sample = sample;
        level.shift = number * BITS;
        if let Some(index) = self.vacant.pop() {
            self.boxes[index as usize] = Some(level);
            index
        } else {
            self.boxes.push(Some(level));
            self.boxes.len() as u32 - 1
        }
    }

    fn free(&mut self, index: u32) {
        if let Some(mut level) = self.boxes[index as usize].take() {
            // One that passed on to another has that slot still set.
            let digit = level.first();
            if digit < SLOTS as u32 {
                level.set(digit, Slot::EMPTY);
            }
            self.spare.get_or_insert(level);
        }
        self.vacant.push(index);
        if self.vacant.len() == self.boxes.len() && self.boxes.len() > SLOTS {
            self.boxes = Vec::new();
            self.vacant = Vec::new();
        }
    }

    fn allocated(&self) -> usize {
        let boxes = self.boxes.len() - self.vacant.len() + usize::from(self.spare.is_some());
        boxes * size_of::<Level>()
            + self.boxes.capacity() * size_of::<Option<Box<Level>>>()
            + self.vacant.capacity() * size_of::<u32>()
    }
}

impl std::ops::Index<u32> for Levels {
    type Output = Level;

    fn index(&self, index: u32) -> &Level {
        match &self.boxes[index as usize] {
            Some(level) => level,
            None => unreachable!("a slot names a level that exists"),
        }
    }
}

impl std::ops::IndexMut<u32> for Levels {
    fn index_mut(&mut self, index: u32) -> &mut Level {
        match &mut self.boxes[index as usize] {
            Some(level) => level,
            None => unreachable!("a slot names a level that exists"),
        }
    }
}

/// One timer, in a circular list with its neighbours.
struct Timer<V> {
    deadline: u64,
    serial: u64,
    previous: u32,
    next: u32,
    /// `None` when this place is free.
    value: Option<V>,
}

/// Sixty-four places for timers.
struct Chunk<V> {
    /// One bit for each free place.
    free: u64,
    /// Neighbours among the chunks that have a free place; `NIL` at the ends.
    previous: u32,
    next: u32,
    timers: Box<[Timer<V>; CHUNK]>,
}

/// The places of all timers.
struct Timers<V> {
    chunks: Vec<Option<Chunk<V>>>,
    /// Invariant: exactly the indices of `chunks` that hold `None`.
    vacant: Vec<u32>,
    /// The first chunk with a free place.
    roomy: u32,
    /// Chunks that hold no timer. Invariant: at most one.
    idle: u32,
    live: usize,
}

impl<V> Timers<V> {
    const fn new() -> Self {
        Self {
            chunks: Vec::new(),
            vacant: Vec::new(),
            roomy: NIL,
            idle: NIL,
            live: 0,
        }
    }

    fn find(&self, index: u32) -> Option<&Timer<V>> {
        let chunk = self.chunks.get(index as usize / CHUNK)?.as_ref()?;
        Some(&chunk.timers[index as usize % CHUNK])
    }

    fn allocate(&mut self, deadline: u64, serial: u64, value: V) -> u32 {
        if self.roomy == NIL {
            self.grow();
        }
        let number = self.roomy;
        let chunk = self.chunk(number);
        let place = chunk.free.trailing_zeros();
        chunk.free &= chunk.free - 1;
        let timer = &mut chunk.timers[place as usize % CHUNK];
        timer.deadline = deadline;
        timer.serial = serial;
        timer.value = Some(value);
        if chunk.free == 0 {
            self.unlist(number);
        }
        if self.idle == number {
            self.idle = NIL;
        }
        self.live += 1;
        number * CHUNK as u32 + place
    }

    fn free(&mut self, index: u32) -> Option<V> {
        let number = index / CHUNK as u32;
        let chunk = self.chunk(number);
        let was_full = chunk.free == 0;
        chunk.free |= 1 << (index % CHUNK as u32);
        let is_idle = chunk.free == u64::MAX;
        let value = chunk.timers[index as usize % CHUNK].value.take();
        self.live -= 1;
        if was_full {
            self.list(number);
        }
        if is_idle {
            if self.idle == NIL {
                self.idle = number;
            } else {
                self.unlist(number);
                self.chunks[number as usize] = None;
                self.vacant.push(number);
            }
            if self.live == 0 && self.chunks.len() > CHUNK {
                self.reset();
            }
        }
        value
    }

    /// Gives the tables back when no timer is left, keeping the idle chunk.
    fn reset(&mut self) {
        let spare = self.chunks[self.idle as usize].take();
        self.chunks = vec![spare];
        self.vacant = Vec::new();
        self.idle = 0;
        self.roomy = NIL;
        self.list(0);
    }

    fn grow(&mut self) {
        let number = self.vacant.pop().unwrap_or_else(|| {
            assert!(
                self.chunks.len() < (Slot::LEVEL as usize / CHUNK) - 1,
                "2^31 timers in a wheel"
            );
            self.chunks.push(None);
            self.chunks.len() as u32 - 1
        });
        let vacant = || Timer {
            deadline: 0,
            serial: 0,
            previous: NIL,
            next: NIL,
            value: None,
        };
        let timers: Box<[_]> = std::iter::repeat_with(vacant).take(CHUNK).collect();
        let Ok(timers) = timers.try_into() else {
            unreachable!("as many were taken")
        };
        self.chunks[number as usize] = Some(Chunk {
            free: u64::MAX,
            previous: NIL,
            next: NIL,
            timers,
        });
        self.list(number);
    }

    /// Puts a chunk first among those with a free place.
    fn list(&mut self, number: u32) {
        let next = std::mem::replace(&mut self.roomy, number);
        if next != NIL {
            self.chunk(next).previous = number;
        }
        let chunk = self.chunk(number);
        chunk.previous = NIL;
        chunk.next = next;
    }

    /// Takes a chunk out of those with a free place.
    fn unlist(&mut self, number: u32) {
        let chunk = self.chunk(number);
        let (previous, next) = (chunk.previous, chunk.next);
        if previous == NIL {
            self.roomy = next;
        } else {
            self.chunk(previous).next = next;
        }
        if next != NIL {
            self.chunk(next).previous = previous;
        }
    }

    fn chunk(&mut self, number: u32) -> &mut Chunk<V> {
        match &mut self.chunks[number as usize] {
            Some(chunk) => chunk,
            None => unreachable!("a chunk with timers or in a list exists"),
        }
    }

    fn make_list(&mut self, index: u32) {
        let timer = &mut self[index];
        timer.previous = index;
        timer.next = index;
    }

    fn append(&mut self, head: u32, index: u32) {
        let last = std::mem::replace(&mut self[head].previous, index);
        self[last].next = index;
        let timer = &mut self[index];
        timer.previous = last;
        timer.next = head;
    }

    /// Takes a timer out of the list that begins with `head`; returns what begins it then, or `NIL`.
    fn unlink(&mut self, head: u32, index: u32) -> u32 {
        let timer = &self[index];
        let (previous, next) = (timer.previous, timer.next);
        if next == index {
            return NIL;
        }
        self[previous].next = next;
        self[next].previous = previous;
        if index == head { next } else { head }
    }

    /// Visits the timers of a list in order, while `visit` says so.
    fn walk(&self, head: u32, mut visit: impl FnMut(&Timer<V>) -> bool) {
        let mut index = head;
        loop {
            let timer = &self[index];
            index = timer.next;
            if !visit(timer) || index == head {
                return;
            }
        }
    }

    /// The first timer of the earliest deadline in a list, unless the list is longer than `SHORT`.
    fn first_of_short(&self, head: u32) -> Option<u32> {
        let timer = &self[head];
        let (mut first, mut earliest) = (head, timer.deadline);
        let mut index = timer.next;
        for _ in 0..SHORT {
            if index == head {
                return Some(first);
            }
            let timer = &self[index];
            if timer.deadline < earliest {
                (first, earliest) = (index, timer.deadline);
            }
            index = timer.next;
        }
        None
    }

    fn allocated(&self) -> usize {
        (self.chunks.len() - self.vacant.len()) * CHUNK * size_of::<Timer<V>>()
            + self.chunks.capacity() * size_of::<Option<Chunk<V>>>()
            + self.vacant.capacity() * size_of::<u32>()
    }
}

impl<V> std::ops::Index<u32> for Timers<V> {
    type Output = Timer<V>;

    fn index(&self, index: u32) -> &Timer<V> {
        match &self.chunks[index as usize / CHUNK] {
            Some(chunk) => &chunk.timers[index as usize % CHUNK],
            None => unreachable!("a list names timers that exist"),
        }
    }
}

impl<V> std::ops::IndexMut<u32> for Timers<V> {
    fn index_mut(&mut self, index: u32) -> &mut Timer<V> {
        match &mut self.chunks[index as usize / CHUNK] {
            Some(chunk) => &mut chunk.timers[index as usize % CHUNK],
            None => unreachable!("a list names timers that exist"),
        }
    }
}
