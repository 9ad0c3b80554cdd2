//! Throw-away stand-ins for what sim-core and sim-queue will give: single-threaded, and only what the demo uses.
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Deref;
use std::rc::Rc;
use std::time::Duration;

use sim_core::time::Instant;

pub(crate) struct Random(u64);
impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }
    pub(crate) fn fork(&self, label: &str) -> Self {
        Self(label.bytes().fold(self.0, |h, b| {
            (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3)
        }))
    }
    pub(crate) fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(n)) >> 64) as u64
    }
    pub(crate) fn chance(&mut self, p: f64) -> bool {
        (self.next_u64() >> 11) as f64 * (1.0 / (1_u64 << 53) as f64) < p
    }
}

#[derive(Clone)]
pub(crate) enum Clock {
    System,
    Virtual(Rc<RefCell<Instant>>),
}
pub(crate) struct VirtualClock(Rc<RefCell<Instant>>);
pub(crate) struct Timestamp;
impl Timestamp {
    pub(crate) fn from_unix_millis(_: i64) -> Self {
        Self
    }
}
impl Clock {
    pub(crate) fn system() -> Self {
        Self::System
    }
    pub(crate) fn virtual_at(_: Timestamp) -> (Self, VirtualClock) {
        let now = Rc::new(RefCell::new(Instant::ORIGIN));
        (Self::Virtual(Rc::clone(&now)), VirtualClock(now))
    }
    pub(crate) fn now(&self) -> Instant {
        match self {
            Self::System => {
                use std::sync::OnceLock;
                static START: OnceLock<std::time::Instant> = OnceLock::new();
                #[expect(clippy::disallowed_methods, reason = "the fake's system clock")]
                Instant::from_nanos(
                    START
                        .get_or_init(std::time::Instant::now)
                        .elapsed()
                        .as_nanos() as u64,
                )
            }
            Self::Virtual(now) => *now.borrow(),
        }
    }
}
impl VirtualClock {
    pub(crate) fn advance_to(&self, at: Instant) {
        *self.0.borrow_mut() = at;
    }
}

pub(crate) enum Kind {
    Standard,
    Fifo(()),
}
impl Kind {
    pub(crate) fn fifo() -> Self {
        Self::Fifo(())
    }
}
pub(crate) enum OnDrop {
    Return,
    Expire,
}
pub(crate) struct QueueConfig {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) visibility_timeout: Duration,
    pub(crate) on_drop: OnDrop,
    pub(crate) seed: u64,
}
impl QueueConfig {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            kind: Kind::Standard,
            visibility_timeout: Duration::from_secs(30),
            on_drop: OnDrop::Return,
            seed: 0,
        }
    }
}
pub(crate) struct Message<T> {
    value: T,
    group: Option<String>,
}
impl<T> Message<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { value, group: None }
    }
    pub(crate) fn group(mut self, group: &str) -> Self {
        self.group = Some(group.to_owned());
        self
    }
}
struct Stored<T> {
    value: Rc<T>,
    group: Option<String>,
    sent_at: Instant,
    count: u32,
    generation: u64,
    deadline: Option<Instant>,
    dead: Option<String>,
}
#[derive(Clone, Default, Debug)]
pub(crate) struct Stats {
    pub(crate) visible: u64,
    pub(crate) in_flight: u64,
    pub(crate) oldest_age: Option<Duration>,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) deleted: u64,
    pub(crate) expired: u64,
    pub(crate) redriven: u64,
}
struct Inner<T> {
    clock: Clock,
    config: QueueConfig,
    slots: BTreeMap<u64, Stored<T>>,
    groups: HashMap<String, (VecDeque<u64>, Option<u64>)>,
    ready: BTreeMap<u64, u64>,
    leases: BTreeMap<(Instant, u64), u64>,
    next: u64,
    stats: Stats,
    dlq: Option<(Queue<T>, u32)>,
    waiting: BTreeMap<u64, Instant>,
}
pub(crate) struct Queue<T>(Rc<RefCell<Inner<T>>>);
impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}
#[derive(Debug)]
pub(crate) struct Failed;
pub(crate) struct DeadLetterPolicy<T>(Queue<T>, u32);
impl<T> DeadLetterPolicy<T> {
    pub(crate) fn to_queue(q: &Queue<T>, max: u32) -> Self {
        Self(q.clone(), max)
    }
}
pub(crate) struct MoveTask {
    pub(crate) max_per_second: Option<u32>,
}
pub(crate) struct MoveHandle<T>(Queue<T>, Queue<T>, u32);
impl<T> MoveHandle<T> {
    pub(crate) fn step(&self) -> usize {
        let mut moved = 0;
        while moved < self.2 as usize {
            let mut inner = self.0.0.borrow_mut();
            let Some((order, id)) = inner.ready.pop_first() else {
                break;
            };
            let _ = order;
            let stored = inner.slots.remove(&id).expect("ready");
            inner.waiting.remove(&id);
            inner.stats.redriven += 1;
            if let Some(group) = &stored.group {
                let entry = inner.groups.get_mut(group).expect("group");
                entry.0.pop_front();
                let front = entry.0.front().copied();
                if let Some(front) = front {
                    inner.ready.insert(front, front);
                }
            }
            drop(inner);
            self.1.put(stored.value, stored.group, None);
            moved += 1;
        }
        moved
    }
}
impl<T> Queue<T> {
    pub(crate) fn with_clock(config: QueueConfig, clock: Clock) -> Result<Self, Failed> {
        Ok(Self(Rc::new(RefCell::new(Inner {
            clock,
            config,
            slots: BTreeMap::new(),
            groups: HashMap::new(),
            ready: BTreeMap::new(),
            leases: BTreeMap::new(),
            next: 0,
            stats: Stats::default(),
            dlq: None,
            waiting: BTreeMap::new(),
        }))))
    }
    fn put(&self, value: Rc<T>, group: Option<String>, dead: Option<String>) {
        let mut inner = self.0.borrow_mut();
        let inner = &mut *inner;
        let id = inner.next;
        inner.next += 1;
        let now = inner.clock.now();
        inner.waiting.insert(id, now);
        inner.stats.sent += 1;
        match &group {
            Some(group) => {
                let entry = inner.groups.entry(group.clone()).or_default();
                entry.0.push_back(id);
                if entry.1.is_none() && entry.0.len() == 1 {
                    inner.ready.insert(id, id);
                }
            }
            None => {
                inner.ready.insert(id, id);
            }
        }
        inner.slots.insert(
            id,
            Stored {
                value,
                group,
                sent_at: now,
                count: 0,
                generation: 0,
                deadline: None,
                dead,
            },
        );
    }
    pub(crate) fn try_send(&self, m: impl Into<Message<T>>) -> Result<(), Failed> {
        let m = m.into();
        self.put(Rc::new(m.value), m.group, None);
        Ok(())
    }
    pub(crate) fn set_dead_letters(&self, p: DeadLetterPolicy<T>) {
        self.0.borrow_mut().dlq = Some((p.0, p.1));
    }
    pub(crate) fn start_move(&self, task: MoveTask, to: &Self) -> MoveHandle<T> {
        MoveHandle(self.clone(), to.clone(), task.max_per_second.unwrap_or(1))
    }
    pub(crate) fn try_receive(&self) -> Result<Delivery<T>, Failed> {
        self.advance();
        loop {
            let mut guard = self.0.borrow_mut();
            let inner = &mut *guard;
            let now = inner.clock.now();
            let Some((_, id)) = inner.ready.pop_first() else {
                return Err(Failed);
            };
            inner.waiting.remove(&id);
            let stored = inner.slots.get_mut(&id).expect("ready");
            if let Some((dlq, max)) = &inner.dlq
                && stored.count >= *max
            {
                let stored = inner.slots.remove(&id).expect("ready");
                inner.stats.redriven += 1;
                if let Some(group) = &stored.group {
                    let entry = inner.groups.get_mut(group).expect("group");
                    entry.0.pop_front();
                    if let Some(front) = entry.0.front().copied() {
                        inner.ready.insert(front, front);
                    }
                }
                dlq.put(
                    stored.value,
                    stored.group,
                    Some("received too often".to_owned()),
                );
                continue;
            }
            stored.count += 1;
            stored.generation += 1;
            let deadline = now + inner.config.visibility_timeout;
            stored.deadline = Some(deadline);
            inner.leases.insert((deadline, id), stored.generation);
            inner.stats.received += 1;
            if let Some(group) = &stored.group {
                inner.groups.get_mut(group).expect("group").1 = Some(id);
            }
            return Ok(Delivery {
                queue: self.clone(),
                id,
                generation: stored.generation,
                value: Some(Rc::clone(&stored.value)),
                count: stored.count,
                sent_at: stored.sent_at,
                done: false,
            });
        }
    }
    pub(crate) fn advance(&self) {
        let mut guard = self.0.borrow_mut();
        let inner = &mut *guard;
        let now = inner.clock.now();
        while let Some((&(deadline, id), &generation)) = inner.leases.first_key_value() {
            if deadline > now {
                break;
            }
            inner.leases.pop_first();
            let Some(stored) = inner.slots.get_mut(&id) else {
                continue;
            };
            if stored.generation != generation || stored.deadline != Some(deadline) {
                continue;
            }
            stored.deadline = None;
            stored.generation += 1;
            inner.stats.expired += 1;
            inner.ready.insert(id, id);
            inner.waiting.insert(id, now);
            if let Some(group) = &stored.group {
                inner.groups.get_mut(group).expect("group").1 = None;
            }
        }
    }
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.0.borrow().leases.first_key_value().map(|(k, _)| k.0)
    }
    pub(crate) fn stats(&self) -> Stats {
        let inner = self.0.borrow();
        let now = inner.clock.now();
        let in_flight = inner
            .leases
            .iter()
            .filter(|((d, id), g)| {
                inner
                    .slots
                    .get(id)
                    .is_some_and(|s| s.generation == **g && s.deadline == Some(*d))
            })
            .count() as u64;
        Stats {
            visible: inner.slots.len() as u64 - in_flight,
            in_flight,
            oldest_age: inner
                .waiting
                .first_key_value()
                .map(|(id, _)| now - inner.slots[id].sent_at),
            ..inner.stats.clone()
        }
    }
}
pub(crate) struct Delivery<T> {
    queue: Queue<T>,
    id: u64,
    generation: u64,
    value: Option<Rc<T>>,
    count: u32,
    sent_at: Instant,
    done: bool,
}
impl<T> Deref for Delivery<T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.value.as_deref().expect("held")
    }
}
impl<T> Delivery<T> {
    pub(crate) fn receive_count(&self) -> u32 {
        self.count
    }
    pub(crate) fn sent_at(&self) -> Instant {
        self.sent_at
    }
    pub(crate) fn dead_letter(&self) -> Option<String> {
        self.queue.0.borrow().slots[&self.id].dead.clone()
    }
    fn current(&self, inner: &Inner<T>) -> bool {
        inner
            .slots
            .get(&self.id)
            .is_some_and(|s| s.generation == self.generation)
    }
    pub(crate) fn acknowledge(mut self) -> Result<Option<T>, Failed> {
        self.done = true;
        let queue = self.queue.clone();
        let mut guard = queue.0.borrow_mut();
        let inner = &mut *guard;
        if !self.current(inner) {
            return Err(Failed);
        }
        let stored = inner.slots.remove(&self.id).expect("current");
        inner.stats.deleted += 1;
        if let Some(deadline) = stored.deadline {
            inner.leases.remove(&(deadline, self.id));
        }
        if let Some(group) = &stored.group {
            let entry = inner.groups.get_mut(group).expect("group");
            entry.1 = None;
            entry.0.pop_front();
            if let Some(front) = entry.0.front().copied() {
                inner.ready.insert(front, front);
            }
        }
        self.value = None;
        Ok(Rc::try_unwrap(stored.value).ok())
    }
    pub(crate) fn extend(&self, by: Duration) -> Result<(), Failed> {
        let mut guard = self.queue.0.borrow_mut();
        let inner = &mut *guard;
        if !self.current(inner) {
            return Err(Failed);
        }
        let deadline = inner.clock.now() + by;
        let stored = inner.slots.get_mut(&self.id).expect("current");
        if let Some(old) = stored.deadline.replace(deadline) {
            inner.leases.remove(&(old, self.id));
        }
        inner.leases.insert((deadline, self.id), self.generation);
        Ok(())
    }
}
impl<T> From<T> for Message<T> {
    fn from(value: T) -> Self {
        Self::new(value)
    }
}
