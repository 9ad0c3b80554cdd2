//! Who waits for a condition, tasks and threads alike: whom to wake, how many, and who watches the time.
//!
//! An [`Event`] belongs to some shared state, and carries no value. One side changes the state and then calls
//! [`Event::notify_one`]; the other side waits with [`until`](crate::wait::until), which tries, registers,
//! tries again, and only then sleeps. This file keeps the list of those who sleep.
//!
//! # Algorithm
//! A FIFO list of waiters under a mutex, and one byte of flags that mirrors, for the side that changes the
//! state, whether there is anything to do. The sleeper pays for the wake-up; who changes the state reads one
//! flag. After event-listener (Nunley, Glavina; the `notify` that does nothing while a notification is still
//! on its way, and the listener that passes it on when dropped) and the eventcounts before it; the baton and the
//! timekeeper below are this file's own.
//!
//! ## States of a waiter
//! ```text
//!             register                 notify_one, notify_all          begin
//!   outside ────────────▶ listed ─────────────────────────▶ notified ────────▶ outside
//!      ▲                    │  ▲                                │              (attempts; owes)
//!      │   leave, cancel    │  └──────── register at front ─────┼──────────────────┘ it failed
//!      ◀────────────────────┘                                   │
//!      ◀────────────────────────────────────────────────────────┘ cancel: the baton goes on
//! ```
//! - **listed**: stands in the FIFO, will be woken in its turn. It may attempt when it is polled for a reason of
//!   its own: its deadline came, or it keeps the time and the time came.
//! - **notified**: taken off the FIFO and woken, has not run yet.
//! - **outside**: running; the list knows nothing of it, so nobody can wake it in vain.
//!
//! ## The baton
//! At most one wake-up of [`Event::notify_one`] is under way, from the moment in which a waiter becomes
//! *notified* to the moment in which it begins: while it is, further notifications do nothing, since an attempt
//! that has not begun yet will see what they announce. Begun means: before its attempt, the waiter declares the
//! wake-up over (and the flag is up again if others wait), so that what comes during the attempt wakes the next
//! one. If it succeeds and its attempt says that there is more, it notifies the next. If it is cancelled before
//! it begins, or leaves without success, it notifies the next. If it finds nothing, it goes back to the front:
//! all waiters of one event wait for the same condition, so what is not there for one is there for nobody.
//!
//! ## The timekeeper
//! The state may change by itself at some time: a lease expires, a delay ends. It has one next deadline, and one
//! sleeper with a timer is enough. Invariant: among the listed waiters, one is the keeper, or the role is vacant
//! and a waiter that is notified or outside owes to settle it.
//!
//! The role goes to the newest: a newcomer takes it when it is vacant, and when the keeper stands at the front,
//! where the next notification would take it away. When a keeper leaves, the role is handed to the back of the
//! list. So a hand-over that costs a wake-up of its own comes once per *queueful* of waiters, not once per
//! notification; and a former keeper, whose timer may still be set, is the next to be woken anyway.
//! `armed` says that the keeper knows a finite deadline or might have to: if not, a successor need not be woken.
//!
//! # Ordering
//! - *Change, then flag; flag, then attempt* (store-load, the one `SeqCst` pair). The notifier changes the state
//!   by a `SeqCst` read-modify-write and loads `flags` (`SeqCst`). The waiter raises its flag (`SeqCst` store,
//!   in `register` and `begin`) and reads the state (`SeqCst`) in the attempt that follows. In the single order
//!   of these four, the notifier finds the flag up, or the attempt finds the change. Where a bit is up already,
//!   its store is left out: whoever put it up released the lock before this waiter took it, so the load of the
//!   attempt still comes after that store in the single order.
//!   The same holds where the state changes under a lock that the attempt takes too.
//! - *Flags down*: `flags` only changes under the lock. Who reads a stale 0 read it before some `begin` or
//!   `register` of a waiter that attempts later (above); who reads a stale 1 finds out under the lock.
//! - Everything else is under the lock. loom treats `SeqCst` accesses as `AcqRel`, so under `cfg(loom)` a
//!   `SeqCst` fence stands between the two steps on each side.
//!
//! Wakers are foreign code: none is cloned, woken or dropped while the lock is held.

use std::fmt;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU8, Ordering};

/// Up when a waiter is listed and no wake-up is under way.
const NOTIFY: u8 = 1;
/// Up when a waiter is listed and the keeper has not been told to look at the time again.
const RETIME: u8 = 2;
/// Up when a waiter is listed.
const LISTED: u8 = 4;

/// No waiter.
const NIL: u32 = u32::MAX;

/// Who waits for a condition; see the [module](self).
///
/// Idle, it is one flag and one empty list: 72 bytes, no allocation. Each waiter takes 32 bytes more; they are
/// given back when all that came to stand behind them in memory have left too.
///
/// ```
/// use sim_core::clock::Clock;
/// use sim_core::event::Event;
/// use sim_core::sync::atomic::{AtomicU64, Ordering};
/// use sim_core::sync::{Arc, thread};
/// use sim_core::time::Instant;
/// use sim_core::wait::{Attempt, until_blocking};
///
/// let shared = Arc::new((AtomicU64::new(0), Event::new()));
/// let other = Arc::clone(&shared);
/// let waiter = thread::spawn(move || {
///     until_blocking(&other.1, &Clock::system(), Instant::NEVER, || {
///         match other.0.load(Ordering::SeqCst) {
///             0 => Attempt::Pending { wake_at: Instant::NEVER },
///             value => Attempt::Done { value, more: false },
///         }
///     })
/// });
/// shared.0.fetch_add(7, Ordering::SeqCst); // the change: a SeqCst read-modify-write
/// shared.1.notify_one(); // then the notification
/// assert_eq!(waiter.join().unwrap(), Ok(7));
/// ```
pub struct Event {
    /// `NOTIFY`, `RETIME` and `LISTED`; written under the lock only.
    flags: AtomicU8,
    waiters: Mutex<Waiters>,
}

impl Event {
    /// Makes an event that nobody waits for.
    #[must_use]
    pub fn new() -> Self {
        Self {
            flags: AtomicU8::new(0),
            waiters: Mutex::new(Waiters::new()),
        }
    }

    /// Wakes the waiter that has waited longest, unless a wake-up is under way already.
    ///
    /// Costs one load when nobody waits or a wake-up is under way. The caller has changed, before, what the
    /// waiters' attempts read: by a `SeqCst` read-modify-write that they read `SeqCst`, or under a lock that
    /// they take too. A plain or `Release` store is not enough: a waiter could miss it and sleep.
    #[inline]
    pub fn notify_one(&self) {
        if self.flags() & NOTIFY != 0 {
            self.notify_one_slow();
        }
    }

    #[cold]
    fn notify_one_slow(&self) {
        self.locked(|waiters, wake| wake.baton = waiters.pass_baton());
    }

    /// Wakes all waiters: for what concerns every one of them, such as closing, or a record that all of
    /// them read.
    ///
    /// Costs one load when nobody waits. The caller's duty is that of [`notify_one`](Self::notify_one).
    #[inline]
    pub fn notify_all(&self) {
        if self.flags() & LISTED != 0 {
            self.notify_all_slow();
        }
    }

    /// Wakes all waiters, however the change is ordered: for what the attempts read by `Relaxed` or `Acquire` loads.
    ///
    /// Takes the lock: who registers before it is woken, and who registers after it sees the change.
    pub fn broadcast(&self) {
        self.notify_all_slow();
    }

    #[cold]
    fn notify_all_slow(&self) {
        let mut woken = Vec::new();
        self.locked(|waiters, _| waiters.take_all(&mut woken));
        WakeEach(woken.into_iter()).wake();
    }

    /// Has the timekeeper look at the time again: called after the next deadline of the state became earlier.
    ///
    /// Costs one load when nobody waits, or the keeper has been told and has not looked yet. The caller's duty is
    /// that of [`notify_one`](Self::notify_one), with the deadline as the change. The others sleep on.
    #[inline]
    pub fn retime(&self) {
        if self.flags() & RETIME != 0 {
            self.retime_slow();
        }
    }

    #[cold]
    fn retime_slow(&self) {
        self.locked(|waiters, wake| wake.keeper = waiters.retime());
    }

    /// How many are listed: asleep, and not yet notified. For statistics and tests; takes the lock.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiters.lock().listed as usize
    }

    #[inline]
    fn flags(&self) -> u8 {
        self.fence();
        self.flags.load(Ordering::SeqCst)
    }

    /// loom's stand-in for the single order of `SeqCst` accesses, which it does not model.
    #[inline]
    fn fence(&self) {
        #[cfg(loom)]
        crate::sync::atomic::fence(Ordering::SeqCst);
    }

    /// Changes the list, makes the flags follow, and wakes when the lock is free again.
    fn locked<R>(&self, change: impl FnOnce(&mut Waiters, &mut Wake) -> R) -> R {
        let mut wake = Wake::default();
        let mut waiters = self.waiters.lock();
        let result = change(&mut waiters, &mut wake);
        let flags = waiters.flags();
        if flags != waiters.mirrored {
            waiters.mirrored = flags;
            self.flags.store(flags, Ordering::SeqCst);
        }
        drop(waiters);
        self.fence();
        wake.wake();
        result
    }

    /// Lists a waiter. `timed` says that its last attempt named a finite deadline of the state.
    ///
    /// The caller attempts once more before it sleeps.
    pub(crate) fn register(&self, waker: Waker, place: Place, timed: bool) -> (Key, Role) {
        self.locked(|waiters, _| waiters.register(waker, place, timed))
    }

    /// Called by a listed or notified waiter that is polled, before it attempts.
    pub(crate) fn begin(&self, key: Key, waker: &Waker) -> Begun {
        let begun = self.locked(|waiters, _| waiters.begin(key, waker, None));
        begun.unwrap_or_else(|NeedsWaker| {
            let fresh = waker.clone();
            self.locked(|waiters, wake| {
                let begun = waiters.begin(key, waker, Some((fresh, &mut wake.stale)));
                begun.unwrap_or_else(|NeedsWaker| unreachable!("a fresh waker was handed over"))
            })
        })
    }

    /// Says whether the keeper's last attempt named a finite deadline.
    pub(crate) fn report(&self, key: Key, timed: bool) {
        self.locked(|waiters, _| {
            if waiters.keeper == key.0 {
                waiters.armed = timed;
            }
        });
    }

    /// Takes a listed or notified waiter out for good. If it has been notified, the baton goes on.
    pub(crate) fn leave(&self, key: Key) {
        self.locked(|waiters, wake| waiters.leave(key, wake));
    }

    /// Called by a waiter that is outside for good and found the role vacant when it began.
    pub(crate) fn settle(&self) {
        self.locked(|waiters, wake| wake.keeper = waiters.settle());
    }
}

impl Default for Event {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("waiting", &self.waiting())
            .finish_non_exhaustive()
    }
}

/// Names a waiter's entry, from `register` to `begin` as notified, or `leave`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key(u32);

/// Where a waiter is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// For who goes back after a wake-up that led to nothing.
    Front,
    Back,
}

/// What a listed waiter is, besides waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Waiter,
    /// Sleeps towards the state's next deadline. `armed` is what the event has noted of it: if its next attempt
    /// says otherwise, it reports.
    Keeper {
        armed: bool,
    },
}

/// What a polled waiter finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begun {
    /// Nobody woke it; it is still listed.
    Quiet(Role),
    /// It is still listed, and as the keeper it must look at the time.
    Appointed(Role),
    /// It is outside now and must attempt. `vacant`: it owes to settle the keeper's role when it leaves for good.
    Notified { vacant: bool },
}

struct NeedsWaker;

/// Whom to wake, and which waker to drop, once the lock is free.
#[derive(Default)]
struct Wake {
    baton: Option<Waker>,
    keeper: Option<Waker>,
    stale: Option<Waker>,
}

impl Wake {
    fn wake(self) {
        WakeEach([self.baton, self.keeper].into_iter().flatten()).wake();
    }
}

/// Wakes each, also if the wake-up of one panics: the others have been noted as notified, and nobody else will wake them.
struct WakeEach<I: Iterator<Item = Waker>>(I);

impl<I: Iterator<Item = Waker>> WakeEach<I> {
    fn wake(mut self) {
        self.0.by_ref().for_each(Waker::wake);
    }
}

impl<I: Iterator<Item = Waker>> Drop for WakeEach<I> {
    fn drop(&mut self) {
        for waker in self.0.by_ref() {
            // The first panic is the one that the caller sees.
            let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
        }
    }
}

/// The list: entries by index, linked both ways; a free list through the same links.
struct Waiters {
    entries: Vec<Entry>,
    /// The longest and the newest listed waiter.
    head: u32,
    tail: u32,
    free: u32,
    listed: u32,
    /// How many are notified and have not begun.
    notified: u32,
    /// Always listed; `NIL` when the role is vacant.
    keeper: u32,
    /// The last keeper knew a finite deadline, or cannot be sure that there is none.
    armed: bool,
    /// The next deadline became earlier, or the keeper is new: the keeper has been told to look, or the one who
    /// will settle the role has to tell its successor.
    retimed: bool,
    /// What `Event::flags` holds.
    mirrored: u8,
}

struct Entry {
    prev: u32,
    next: u32,
    state: State,
    /// `None` once woken: put back by `begin`.
    waker: Option<Waker>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Free,
    Listed,
    Notified,
}

impl Waiters {
    const fn new() -> Self {
        Self {
            entries: Vec::new(),
            head: NIL,
            tail: NIL,
            free: NIL,
            listed: 0,
            notified: 0,
            keeper: NIL,
            armed: false,
            retimed: false,
            mirrored: 0,
        }
    }

    fn flags(&self) -> u8 {
        if self.head == NIL {
            return 0;
        }
        let notify = if self.notified == 0 { NOTIFY } else { 0 };
        let retime = if self.retimed { 0 } else { RETIME };
        notify | retime | LISTED
    }

    fn register(&mut self, waker: Waker, place: Place, timed: bool) -> (Key, Role) {
        let index = self.allocate(waker);
        let takes_role = match place {
            Place::Front => self.keeper == NIL,
            Place::Back => self.keeper == NIL || self.keeper == self.head,
        };
        match place {
            Place::Front => self.link_front(index),
            Place::Back => self.link_back(index),
        }
        if !takes_role {
            return (Key(index), Role::Waiter);
        }
        self.keeper = index;
        // Whoever takes the role attempts next, and so looks at the time itself. Until it reports, it is held to
        // know a deadline if anybody did.
        self.armed |= timed || self.retimed;
        self.retimed = false;
        (Key(index), Role::Keeper { armed: self.armed })
    }

    fn begin(
        &mut self,
        key: Key,
        waker: &Waker,
        fresh: Option<(Waker, &mut Option<Waker>)>,
    ) -> Result<Begun, NeedsWaker> {
        let entry = &mut self.entries[key.0 as usize];
        debug_assert_ne!(
            entry.state,
            State::Free,
            "a waiter polled with another event"
        );
        if entry.state == State::Notified {
            if let Some((fresh, stale)) = fresh {
                *stale = Some(fresh);
            }
            self.notified -= 1;
            self.release(key.0);
            return Ok(Begun::Notified {
                vacant: self.keeper == NIL && self.head != NIL,
            });
        }
        match fresh {
            Some((fresh, stale)) => *stale = entry.waker.replace(fresh),
            None if entry
                .waker
                .as_ref()
                .is_some_and(|held| held.will_wake(waker)) => {}
            None => return Err(NeedsWaker),
        }
        if self.keeper != key.0 {
            return Ok(Begun::Quiet(Role::Waiter));
        }
        if self.retimed {
            self.retimed = false;
            self.armed = true;
            return Ok(Begun::Appointed(Role::Keeper { armed: true }));
        }
        Ok(Begun::Quiet(Role::Keeper { armed: self.armed }))
    }

    fn leave(&mut self, key: Key, wake: &mut Wake) {
        let entry = &mut self.entries[key.0 as usize];
        debug_assert_ne!(entry.state, State::Free, "a waiter left another event");
        wake.stale = entry.waker.take();
        if entry.state == State::Notified {
            self.notified -= 1;
            self.release(key.0);
            wake.baton = self.pass_baton();
        } else {
            self.unlink(key.0);
            self.release(key.0);
        }
        wake.keeper = self.settle();
    }

    /// Notifies the front, unless somebody is notified.
    fn pass_baton(&mut self) -> Option<Waker> {
        if self.notified > 0 || self.head == NIL {
            return None;
        }
        self.notify(self.head)
    }

    fn take_all(&mut self, woken: &mut Vec<Waker>) {
        woken.reserve(self.listed as usize);
        while self.head != NIL {
            woken.extend(self.notify(self.head));
        }
    }

    fn notify(&mut self, index: u32) -> Option<Waker> {
        self.unlink(index);
        self.notified += 1;
        let entry = &mut self.entries[index as usize];
        entry.state = State::Notified;
        entry.waker.take()
    }

    fn retime(&mut self) -> Option<Waker> {
        if self.head == NIL || self.retimed {
            return None;
        }
        self.retimed = true;
        // Vacant: whoever owes to settle the role will find the mark.
        if self.keeper == NIL {
            return None;
        }
        self.entries[self.keeper as usize].waker.take()
    }

    /// Fills a vacant role, unless a notified waiter will: it takes the role itself, or owes to settle it.
    fn settle(&mut self) -> Option<Waker> {
        if self.keeper != NIL || self.head == NIL || self.notified > 0 {
            return None;
        }
        self.keeper = self.tail;
        if !self.armed && !self.retimed {
            return None;
        }
        self.retimed = true;
        self.entries[self.keeper as usize].waker.take()
    }

    fn allocate(&mut self, waker: Waker) -> u32 {
        let entry = Entry {
            prev: NIL,
            next: NIL,
            state: State::Listed,
            waker: Some(waker),
        };
        if self.free != NIL {
            let index = self.free;
            self.unlink_free(index);
            self.entries[index as usize] = entry;
            return index;
        }
        let index = u32::try_from(self.entries.len()).unwrap_or(NIL);
        assert!(index != NIL, "more than four thousand million waiters");
        self.entries.push(entry);
        index
    }

    /// Frees an entry that is linked nowhere, and gives memory back from the end.
    fn release(&mut self, index: u32) {
        let next = mem::replace(&mut self.free, index);
        let entry = &mut self.entries[index as usize];
        debug_assert!(entry.waker.is_none());
        entry.state = State::Free;
        entry.prev = NIL;
        entry.next = next;
        if next != NIL {
            self.entries[next as usize].prev = index;
        }
        while let Some(Entry {
            state: State::Free, ..
        }) = self.entries.last()
        {
            let last = self.entries.len() - 1;
            self.unlink_free(last as u32);
            self.entries.pop();
        }
        let capacity = self.entries.capacity();
        if capacity > 64 && self.entries.len() < capacity / 4 {
            self.entries.shrink_to((self.entries.len() * 2).max(32));
        }
    }

    fn unlink_free(&mut self, index: u32) {
        let Entry { prev, next, .. } = self.entries[index as usize];
        match prev {
            NIL => self.free = next,
            prev => self.entries[prev as usize].next = next,
        }
        if next != NIL {
            self.entries[next as usize].prev = prev;
        }
    }

    fn link_front(&mut self, index: u32) {
        let next = mem::replace(&mut self.head, index);
        self.entries[index as usize].next = next;
        match next {
            NIL => self.tail = index,
            next => self.entries[next as usize].prev = index,
        }
        self.listed += 1;
    }

    fn link_back(&mut self, index: u32) {
        let prev = mem::replace(&mut self.tail, index);
        self.entries[index as usize].prev = prev;
        match prev {
            NIL => self.head = index,
            prev => self.entries[prev as usize].next = index,
        }
        self.listed += 1;
    }

    /// Takes a listed entry off the FIFO; the role, if it had it, is vacant.
    fn unlink(&mut self, index: u32) {
        let Entry { prev, next, .. } = self.entries[index as usize];
        match prev {
            NIL => self.head = next,
            prev => self.entries[prev as usize].next = next,
        }
        match next {
            NIL => self.tail = prev,
            next => self.entries[next as usize].prev = prev,
        }
        self.listed -= 1;
        if self.keeper == index {
            self.keeper = NIL;
        }
        if self.head == NIL {
            // Who registers next attempts after it, and so needs no mark.
            self.armed = false;
            self.retimed = false;
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    impl Waiters {
        /// The FIFO, front first, after a check of every link and count.
        fn fifo(&self) -> Vec<u32> {
            let mut fifo = Vec::new();
            let (mut prev, mut index) = (NIL, self.head);
            while index != NIL {
                let entry = &self.entries[index as usize];
                assert_eq!((entry.prev, entry.state), (prev, State::Listed));
                fifo.push(index);
                (prev, index) = (index, entry.next);
            }
            assert_eq!(self.tail, prev);
            assert_eq!(self.listed as usize, fifo.len());
            let with = |state| {
                self.entries
                    .iter()
                    .filter(|entry| entry.state == state)
                    .count()
            };
            assert_eq!(with(State::Listed), fifo.len());
            assert_eq!(with(State::Notified), self.notified as usize);
            let (mut free, mut index) = (0, self.free);
            while index != NIL {
                assert_eq!(self.entries[index as usize].state, State::Free);
                (free, index) = (free + 1, self.entries[index as usize].next);
            }
            assert_eq!(with(State::Free), free);
            assert!(self.keeper == NIL || fifo.contains(&self.keeper));
            assert_eq!(self.mirrored, self.flags());
            fifo
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Register { timed: bool },
        NotifyOne,
        NotifyAll,
        Retime,
        Begin(prop::sample::Index),
        Leave(prop::sample::Index),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => any::<bool>().prop_map(|timed| Step::Register { timed }),
            3 => Just(Step::NotifyOne),
            1 => Just(Step::NotifyAll),
            1 => Just(Step::Retime),
            3 => any::<prop::sample::Index>().prop_map(Step::Begin),
            2 => any::<prop::sample::Index>().prop_map(Step::Leave),
        ]
    }

    proptest! {
        #[test]
        fn the_list_is_a_fifo_with_one_baton_and_one_keeper(
            steps in prop::collection::vec(step(), 0..200),
        ) {
            let event = Event::new();
            let mut listed = VecDeque::new();
            let mut notified = Vec::new();
            for step in steps {
                match step {
                    Step::Register { timed } => {
                        let (key, _) = event.register(Waker::noop().clone(), Place::Back, timed);
                        listed.push_back(key);
                    }
                    Step::NotifyOne => {
                        event.notify_one();
                        if notified.is_empty() {
                            notified.extend(listed.pop_front());
                        }
                    }
                    Step::NotifyAll => {
                        event.notify_all();
                        notified.extend(listed.drain(..));
                    }
                    Step::Retime => event.retime(),
                    Step::Begin(which) => {
                        let count = listed.len() + notified.len();
                        if count == 0 {
                            continue;
                        }
                        let which = which.index(count);
                        if which < listed.len() {
                            let begun = event.begin(listed[which], Waker::noop());
                            let outside = matches!(begun, Begun::Notified { .. });
                            prop_assert!(!outside);
                        } else {
                            let key = notified.swap_remove(which - listed.len());
                            let begun = event.begin(key, Waker::noop());
                            let Begun::Notified { vacant } = begun else {
                                return Err(TestCaseError::fail("told that nobody woke it"));
                            };
                            if vacant {
                                event.settle();
                            }
                        }
                    }
                    Step::Leave(which) => {
                        let count = listed.len() + notified.len();
                        if count == 0 {
                            continue;
                        }
                        let which = which.index(count);
                        if which < listed.len() {
                            let key = listed.remove(which);
                            key.into_iter().for_each(|key| event.leave(key));
                        } else {
                            event.leave(notified.swap_remove(which - listed.len()));
                            if notified.is_empty() {
                                notified.extend(listed.pop_front());
                            }
                        }
                    }
                }
                let waiters = event.waiters.lock();
                let fifo: Vec<_> = waiters.fifo().into_iter().map(Key).collect();
                prop_assert_eq!(&fifo, listed.make_contiguous());
                prop_assert_eq!(waiters.notified as usize, notified.len());
                let settled = waiters.keeper != NIL || waiters.notified > 0 || waiters.head == NIL;
                prop_assert!(settled, "nobody keeps the time, and nobody owes to");
                prop_assert_eq!(event.flags.load(Ordering::SeqCst), waiters.flags());
            }
        }
    }

    #[test]
    fn memory_is_given_back_as_waiters_leave() {
        let event = Event::new();
        let keys: Vec<_> = (0..10_000)
            .map(|_| event.register(Waker::noop().clone(), Place::Back, false).0)
            .collect();
        assert!(event.waiters.lock().entries.capacity() >= 10_000);
        for key in keys.into_iter().skip(10) {
            event.leave(key);
        }
        assert!(event.waiters.lock().entries.capacity() <= 64);
        assert_eq!(event.waiting(), 10);
        assert_eq!(size_of::<Entry>(), 32);
    }
}
