//! Models of waiting: every interleaving of those who wait, those who notify, and those who give up.
//!
//! A lost wake-up shows as a deadlock: loom fails a model in which a parked thread is never unparked. The
//! main thread only spawns and joins, and the thread that stores is spawned first.
//!
//! # Mutations
//! Each was made by hand and the named test seen to fail: a model below, or, where it says `wait.rs`, a test in
//! `tests/wait.rs`. Up to three models are named; others may fail too.
//!
//! | in | mutation | seen by |
//! | --- | --- | --- |
//! | `Event::flags` | no fence before the load of the flag | `a_waiter_never_sleeps_through_a_notification`, `the_keeper_never_sleeps_through_an_earlier_deadline`, `a_stolen_item_leaves_the_waiter_ready_for_the_next` |
//! | `Event::locked` | no fence between the flag and the attempt | the same |
//! | `Waiters::begin` | a wake-up is not over when the waiter begins | `a_stolen_item_leaves_the_waiter_ready_for_the_next`, `a_dropped_waiter_takes_no_wake_up_along`, `one_notification_of_two_items_serves_two_waiters` |
//! | `Waiter::enter` | no attempt after registering | `a_waiter_never_sleeps_through_a_notification`, `the_keeper_never_sleeps_through_an_earlier_deadline`, `a_stolen_item_leaves_the_waiter_ready_for_the_next` |
//! | `Waiter::resume` | no attempt after going back to the front | `a_stolen_item_leaves_the_waiter_ready_for_the_next`, `a_dropped_waiter_takes_no_wake_up_along`, `two_notifications_serve_two_waiters` |
//! | `Waiters::leave` | who leaves notified keeps the baton | `a_dropped_waiter_takes_no_wake_up_along`, `two_notifications_serve_two_waiters`, `two_notifiers_serve_two_waiters` |
//! | `Waiter::leave_outside` | `more` is not passed on | `one_notification_of_two_items_serves_two_waiters`, `two_notifications_serve_two_waiters`, `two_notifiers_serve_two_waiters` |
//! | `Waiters::settle` | a vacant role stays vacant | `a_keeper_that_gives_up_hands_the_time_over`, `whoever_is_left_learns_of_the_deadline` |
//! | `Waiters::settle` | a successor is not told of a `retime` that the keeper did not look at | the same |
//! | `Waiters::retime` | a `retime` in a vacancy is forgotten | wait.rs: `a_deadline_that_comes_while_the_keeper_is_served_is_not_forgotten` |
//! | `Waiters::register` | `retimed` is cleared, and not kept as `armed` | wait.rs: `a_newcomer_that_takes_the_role_unaware_of_a_deadline_hands_it_on` |
//! | `Waiters::begin` | the same for an appointed keeper | wait.rs: `a_keeper_told_of_a_deadline_and_then_served_hands_it_on` |
//! | `Waiter::attempt_listed` | the keeper does not report a deadline | wait.rs: `a_deadline_that_only_the_keepers_second_attempt_saw_is_handed_on` |
//! | `Waiter::leave_outside` | a waiter that owes to settle does not | wait.rs: `whoever_is_left_has_the_time` |
//! | `Timeline::move_to` | `Relaxed` store of the time | `who_reads_a_virtual_time_sees_what_came_before_it` |
//! | `Timeline::now` | `Relaxed` load of the time | the same |
//! | `Timeline::register` | the deadline is not compared under the lock | `a_thread_never_sleeps_through_its_virtual_deadline` |
//!
//! Not seen by any model: the load of the flags and their store made `Relaxed`. loom knows no single order of
//! `SeqCst` accesses, and the fences that stand in for it (first two rows) order the weakened accesses as well.
//! That without the fences the two must be `SeqCst`, and need be no more, is argued in `event.rs` under
//! "Ordering": it is the store-load pair.
#![cfg(loom)]

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize as Explored, Ordering as Counted};
use std::task::{Context, Waker};

use loom::model::Builder;
use sim_core::clock::Clock;
use sim_core::event::Event;
use sim_core::sync::atomic::{AtomicU64, Ordering};
use sim_core::sync::{Arc, thread};
use sim_core::time::{Instant, Timestamp};
use sim_core::wait::{Attempt, until, until_blocking};

/// Runs a model to the end and asserts that it had at least `floor` executions.
fn explore(floor: usize, preemptions: Option<usize>, model: impl Fn() + Send + Sync + 'static) {
    let explored = std::sync::Arc::new(Explored::new(0));
    let count = std::sync::Arc::clone(&explored);
    let mut builder = Builder::new();
    builder.preemption_bound = preemptions;
    builder.check(move || {
        count.fetch_add(1, Counted::Relaxed);
        model();
    });
    let explored = explored.load(Counted::Relaxed);
    println!("{explored} executions");
    assert!(explored >= floor, "{explored} executions only");
}

/// The model of a queue: how many items, when it will change by itself, and who waits.
struct Items {
    items: AtomicU64,
    deadline: AtomicU64,
    event: Event,
}

impl Items {
    fn new(items: u64) -> Arc<Self> {
        Arc::new(Self {
            items: AtomicU64::new(items),
            deadline: AtomicU64::new(u64::MAX),
            event: Event::new(),
        })
    }

    fn put(&self) {
        self.items.fetch_add(1, Ordering::SeqCst);
        self.event.notify_one();
    }

    fn attempt(&self) -> Attempt<()> {
        let mut seen = self.items.load(Ordering::SeqCst);
        while seen > 0 {
            let claim =
                self.items
                    .compare_exchange(seen, seen - 1, Ordering::SeqCst, Ordering::SeqCst);
            match claim {
                Ok(_) => {
                    return Attempt::Done {
                        value: (),
                        more: seen > 1,
                    };
                }
                Err(found) => seen = found,
            }
        }
        Attempt::Pending {
            wake_at: self.wake_at(),
        }
    }

    fn wake_at(&self) -> Instant {
        Instant::from_nanos(self.deadline.load(Ordering::SeqCst))
    }

    /// Takes an item, and else is content to learn of a deadline.
    fn attempt_or_deadline(&self) -> Attempt<()> {
        match self.attempt() {
            Attempt::Pending { wake_at } if !wake_at.is_never() => Attempt::Done {
                value: (),
                more: false,
            },
            other => other,
        }
    }

    fn take(&self, clock: &Clock) {
        let taken = until_blocking(&self.event, clock, Instant::NEVER, || self.attempt());
        assert!(taken.is_ok());
    }
}

fn clock() -> Clock {
    Clock::virtual_at(Timestamp::UNIX_EPOCH).0
}

fn spawn(items: &Arc<Items>, run: impl FnOnce(&Items) + 'static) -> thread::JoinHandle<()> {
    let items = Arc::clone(items);
    thread::spawn(move || run(&items))
}

fn join(threads: impl IntoIterator<Item = thread::JoinHandle<()>>) {
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn a_waiter_never_sleeps_through_a_notification() {
    explore(20, None, || {
        let items = Items::new(0);
        let putter = spawn(&items, Items::put);
        let taker = spawn(&items, |items| items.take(&clock()));
        join([putter, taker]);
        assert_eq!(items.items.load(Ordering::SeqCst), 0);
        assert_eq!(items.event.waiting(), 0);
    });
}

#[test]
fn two_notifications_serve_two_waiters() {
    explore(1_000, Some(2), || {
        let items = Items::new(0);
        let putter = spawn(&items, |items| {
            items.put();
            items.put();
        });
        let takers = [(); 2].map(|()| spawn(&items, |items| items.take(&clock())));
        join([putter]);
        join(takers);
        assert_eq!(items.event.waiting(), 0);
    });
}

#[test]
fn two_notifiers_serve_two_waiters() {
    explore(1_000, Some(2), || {
        let items = Items::new(0);
        let putters = [(); 2].map(|()| spawn(&items, Items::put));
        let takers = [(); 2].map(|()| spawn(&items, |items| items.take(&clock())));
        join(putters);
        join(takers);
        assert_eq!(items.event.waiting(), 0);
    });
}

#[test]
fn one_notification_of_two_items_serves_two_waiters() {
    explore(1_000, Some(2), || {
        let items = Items::new(0);
        let putter = spawn(&items, |items| {
            items.items.fetch_add(2, Ordering::SeqCst);
            items.event.notify_one();
        });
        let takers = [(); 2].map(|()| spawn(&items, |items| items.take(&clock())));
        join([putter]);
        join(takers);
    });
}

#[test]
fn a_dropped_waiter_takes_no_wake_up_along() {
    explore(1_000, Some(2), || {
        let items = Items::new(0);
        let putter = spawn(&items, Items::put);
        let dropped = spawn(&items, |items| {
            let clock = clock();
            let mut future = until(&items.event, &clock, Instant::NEVER, || items.attempt());
            let polled = Pin::new(&mut future).poll(&mut Context::from_waker(Waker::noop()));
            drop(future);
            if polled.is_ready() {
                items.put();
            }
        });
        let taker = spawn(&items, |items| items.take(&clock()));
        join([putter, dropped, taker]);
        assert_eq!(items.items.load(Ordering::SeqCst), 0);
        assert_eq!(items.event.waiting(), 0);
    });
}

#[test]
fn a_stolen_item_leaves_the_waiter_ready_for_the_next() {
    explore(1_000, Some(2), || {
        let items = Items::new(0);
        let putter = spawn(&items, |items| {
            items.put();
            items.put();
        });
        let taker = spawn(&items, |items| items.take(&clock()));
        let thief = spawn(&items, |items| {
            let _ = items.attempt();
        });
        join([putter, taker, thief]);
        assert_eq!(items.event.waiting(), 0);
    });
}

#[test]
fn closing_reaches_every_waiter() {
    explore(1_000, Some(2), || {
        let items = Items::new(0);
        let closer = spawn(&items, |items| {
            items.deadline.swap(1, Ordering::SeqCst);
            items.event.notify_all();
        });
        let waiters = [(); 2].map(|()| {
            spawn(&items, |items| {
                let attempt = || items.attempt_or_deadline();
                until_blocking(&items.event, &clock(), Instant::NEVER, attempt).unwrap();
            })
        });
        join([closer]);
        join(waiters);
        assert_eq!(items.event.waiting(), 0);
    });
}

#[test]
fn the_keeper_never_sleeps_through_an_earlier_deadline() {
    explore(20, None, || {
        let items = Items::new(0);
        let setter = spawn(&items, |items| {
            items.deadline.swap(1, Ordering::SeqCst);
            items.event.retime();
        });
        let waiter = spawn(&items, |items| {
            let attempt = || items.attempt_or_deadline();
            until_blocking(&items.event, &clock(), Instant::NEVER, attempt).unwrap();
        });
        join([setter, waiter]);
        assert_eq!(items.event.waiting(), 0);
    });
}

#[test]
fn whoever_is_left_learns_of_the_deadline() {
    // One of two is served, perhaps the keeper, perhaps while the deadline comes: the other one must learn of it.
    explore(1_000, Some(2), || {
        let items = Items::new(0);
        let putter = spawn(&items, Items::put);
        let setter = spawn(&items, |items| {
            items.deadline.swap(1, Ordering::SeqCst);
            items.event.retime();
        });
        let waiters = [(); 2].map(|()| {
            spawn(&items, |items| {
                let served = std::cell::Cell::new(false);
                let attempt = || {
                    let attempt = items.attempt_or_deadline();
                    served.set(matches!(attempt, Attempt::Done { .. }));
                    attempt
                };
                until_blocking(&items.event, &clock(), Instant::NEVER, attempt).unwrap();
                // Content with the deadline, it sets an example that nobody follows by notification: what keeps
                // the other one from sleeping on is the role alone.
                assert!(served.get());
            })
        });
        join([putter, setter]);
        join(waiters);
        assert_eq!(items.event.waiting(), 0);
    });
}

#[test]
fn a_keeper_that_gives_up_hands_the_time_over() {
    explore(1_000, Some(2), || {
        let items = Items::new(0);
        let setter = spawn(&items, |items| {
            items.deadline.swap(1, Ordering::SeqCst);
            items.event.retime();
        });
        let dropped = spawn(&items, |items| {
            let clock = clock();
            let mut future = until(&items.event, &clock, Instant::NEVER, || items.attempt());
            let waker = Waker::noop();
            let _ = Pin::new(&mut future).poll(&mut Context::from_waker(waker));
        });
        let waiter = spawn(&items, |items| {
            let attempt = || items.attempt_or_deadline();
            until_blocking(&items.event, &clock(), Instant::NEVER, attempt).unwrap();
        });
        join([setter, dropped, waiter]);
        assert_eq!(items.event.waiting(), 0);
    });
}

#[test]
fn a_thread_never_sleeps_through_its_virtual_deadline() {
    explore(20, None, || {
        let (clock, time) = Clock::virtual_at(Timestamp::UNIX_EPOCH);
        let hand = thread::spawn({
            let time = time.clone();
            move || time.advance_to(Instant::from_nanos(10))
        });
        let sleeper = thread::spawn(move || clock.sleep_until_blocking(Instant::from_nanos(10)));
        join([hand, sleeper]);
        assert_eq!(time.sleeping(), 0);
    });
}

#[test]
fn who_reads_a_virtual_time_sees_what_came_before_it() {
    explore(3, None, || {
        let (clock, time) = Clock::virtual_at(Timestamp::UNIX_EPOCH);
        let before = Arc::new(AtomicU64::new(0));
        let hand = thread::spawn({
            let before = Arc::clone(&before);
            move || {
                before.store(1, Ordering::Relaxed);
                time.advance_to(Instant::from_nanos(10));
            }
        });
        let reader = thread::spawn(move || {
            if clock.now() == Instant::from_nanos(10) {
                assert_eq!(before.load(Ordering::Relaxed), 1);
            }
        });
        join([hand, reader]);
    });
}

#[test]
fn a_blocked_waiter_is_woken_by_the_time_or_by_an_item() {
    explore(1_000, Some(2), || {
        let items = Items::new(0);
        let (clock, time) = Clock::virtual_at(Timestamp::UNIX_EPOCH);
        let putter = spawn(&items, Items::put);
        let hand = thread::spawn({
            let time = time.clone();
            move || time.advance_to(Instant::from_nanos(10))
        });
        let taker = spawn(&items, move |items| {
            let deadline = Instant::from_nanos(10);
            let _ = until_blocking(&items.event, &clock, deadline, || items.attempt());
        });
        join([putter, hand, taker]);
        assert_eq!((items.event.waiting(), time.sleeping()), (0, 0));
    });
}
