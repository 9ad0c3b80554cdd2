//! Waiting: who is woken, how often, and what a dropped future leaves behind.
#![cfg(not(loom))]

use std::collections::VecDeque;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc as StdArc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use sim_core::clock::{Clock, VirtualClock};
use sim_core::event::Event;
use sim_core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use sim_core::sync::{Arc, Mutex, thread};
use sim_core::time::{Instant, Timestamp};
use sim_core::wait::{Attempt, Elapsed, Until, Waiter, until, until_blocking};

/// Counts its wakes.
#[derive(Default)]
struct Counting(AtomicUsize);

impl Wake for Counting {
    fn wake(self: StdArc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Counting {
    fn wakes(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

fn counting() -> (StdArc<Counting>, Waker) {
    let counting = StdArc::new(Counting::default());
    (StdArc::clone(&counting), Waker::from(counting))
}

fn poll<F: Future + Unpin>(future: &mut F, waker: &Waker) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(waker))
}

/// Runs a future on the calling thread, with nothing but park and unpark.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(thread::Thread);
    impl Wake for Unpark {
        fn wake(self: StdArc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(StdArc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}

/// A counter of items, one next deadline, and the event of those who wait for an item.
struct Items {
    items: AtomicU64,
    wake_at: AtomicU64,
    attempts: AtomicUsize,
    event: Event,
}

impl Items {
    fn new() -> Self {
        Self {
            items: AtomicU64::new(0),
            wake_at: AtomicU64::new(u64::MAX),
            attempts: AtomicUsize::new(0),
            event: Event::new(),
        }
    }

    fn put(&self, count: u64) {
        self.items.fetch_add(count, Ordering::SeqCst);
        self.event.notify_one();
    }

    fn set_deadline(&self, nanos: u64) {
        self.wake_at.swap(nanos, Ordering::SeqCst);
        self.event.retime();
    }

    fn attempt(&self) -> Attempt<u64> {
        self.attempts.fetch_add(1, Ordering::SeqCst);
        match self
            .items
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1))
        {
            Ok(had) => Attempt::Done {
                value: had,
                more: had > 1,
            },
            Err(_) => Attempt::Pending {
                wake_at: Instant::from_nanos(self.wake_at.load(Ordering::SeqCst)),
            },
        }
    }

    /// How many attempts there were since it was last asked.
    fn attempts(&self) -> usize {
        self.attempts.swap(0, Ordering::SeqCst)
    }

    fn take<'a>(
        &'a self,
        clock: &'a Clock,
        deadline: Instant,
    ) -> Until<'a, u64, impl FnMut() -> Attempt<u64> + 'a> {
        until(&self.event, clock, deadline, || self.attempt())
    }
}

fn virtual_clock() -> (Clock, VirtualClock) {
    Clock::virtual_at(Timestamp::UNIX_EPOCH)
}

fn at(nanos: u64) -> Instant {
    Instant::from_nanos(nanos)
}

/// A waiting future with its waker, boxed so that many stand side by side.
struct Task<'a> {
    future: Pin<Box<dyn Future<Output = Result<u64, Elapsed>> + Send + 'a>>,
    counting: StdArc<Counting>,
    waker: Waker,
}

impl<'a> Task<'a> {
    fn new(items: &'a Items, clock: &'a Clock, deadline: Instant) -> Self {
        let (counting, waker) = counting();
        Self {
            future: Box::pin(items.take(clock, deadline)),
            counting,
            waker,
        }
    }

    fn asleep(items: &'a Items, clock: &'a Clock) -> Self {
        let mut task = Self::new(items, clock, Instant::NEVER);
        assert!(task.poll().is_pending());
        task
    }

    fn poll(&mut self) -> Poll<Result<u64, Elapsed>> {
        poll(&mut self.future, &self.waker)
    }

    fn wakes(&self) -> usize {
        self.counting.wakes()
    }
}

fn woken(tasks: &[Task<'_>]) -> Vec<usize> {
    (0..tasks.len())
        .filter(|&index| tasks[index].wakes() > 0)
        .collect()
}

/// An executor: polls those that were woken, until nobody is, and drops those that are done.
fn run(tasks: &mut VecDeque<Task<'_>>) {
    loop {
        let before = tasks.len();
        let mut idle = true;
        tasks.retain_mut(|task| {
            if task.counting.0.swap(0, Ordering::SeqCst) == 0 {
                return true;
            }
            idle = false;
            task.poll().is_pending()
        });
        if idle && tasks.len() == before {
            return;
        }
    }
}

#[test]
fn what_is_there_is_taken_without_registering() {
    let (clock, _) = virtual_clock();
    let items = Items::new();
    items.put(1);
    assert_eq!(block_on(items.take(&clock, Instant::NEVER)), Ok(1));
    assert_eq!(items.attempts(), 1);
    items.put(1);
    assert_eq!(
        until_blocking(&items.event, &clock, Instant::ORIGIN, || items.attempt()),
        Ok(1),
        "a deadline that has passed still gets one attempt"
    );
    assert_eq!(items.attempts(), 1);
}

#[test]
fn a_deadline_in_the_past_costs_one_attempt() {
    let (clock, _) = virtual_clock();
    let items = Items::new();
    assert_eq!(block_on(items.take(&clock, Instant::ORIGIN)), Err(Elapsed));
    assert_eq!(items.attempts(), 1);
    assert_eq!(
        until_blocking(&items.event, &clock, Instant::ORIGIN, || items.attempt()),
        Err(Elapsed)
    );
    assert_eq!(items.attempts(), 1);
    assert_eq!(items.event.waiting(), 0);
}

#[test]
fn one_notification_makes_one_waiter_attempt_once() {
    let (clock, _) = virtual_clock();
    let items = Items::new();
    let mut tasks: Vec<_> = (0..100).map(|_| Task::asleep(&items, &clock)).collect();
    assert_eq!(items.attempts(), 200, "before and after registering");
    items.put(1);
    assert_eq!(woken(&tasks), [0]);
    let done = tasks
        .iter_mut()
        .filter_map(|task| task.poll().is_ready().then_some(()))
        .count();
    assert_eq!(done, 1);
    assert_eq!(items.attempts(), 1, "though all were polled");
    assert_eq!(items.event.waiting(), 99);
    assert_eq!(woken(&tasks), [0]);
}

#[test]
fn the_baton_goes_on_while_there_is_more() {
    let (clock, _) = virtual_clock();
    let items = Items::new();
    let mut tasks: Vec<_> = (0..10).map(|_| Task::asleep(&items, &clock)).collect();
    items.put(1);
    items.put(1);
    items.put(1);
    assert_eq!(woken(&tasks), [0], "one wake-up is under way at a time");
    for index in 0..3 {
        assert!(tasks[index].poll().is_ready());
        assert_eq!(woken(&tasks), (0..=(index + 1).min(2)).collect::<Vec<_>>());
    }
}

#[test]
fn waiters_are_served_in_the_order_of_their_arrival() {
    let (clock, _) = virtual_clock();
    let items = Items::new();
    let mut tasks: Vec<_> = (0..50).map(|_| Task::asleep(&items, &clock)).collect();
    for index in 0..50 {
        items.put(1);
        assert_eq!(woken(&tasks).len(), index + 1);
        assert!(tasks[index].poll().is_ready());
    }
}

#[test]
fn a_dropped_waiter_passes_its_wake_up_on() {
    let (clock, _) = virtual_clock();
    let items = Items::new();
    let mut tasks: VecDeque<_> = (0..5).map(|_| Task::asleep(&items, &clock)).collect();
    items.put(1);
    for _ in 0..4 {
        assert_eq!(tasks[0].wakes(), 1);
        tasks.pop_front();
    }
    assert_eq!(tasks[0].poll(), Poll::Ready(Ok(1)));
}

#[test]
fn a_waiter_that_times_out_passes_its_wake_up_on() {
    let (clock, time) = virtual_clock();
    let items = Items::new();
    let mut first = Task::new(&items, &clock, at(10));
    assert!(first.poll().is_pending());
    let second = Task::asleep(&items, &clock);
    items.event.notify_one();
    time.advance_to(at(10));
    assert_eq!(first.poll(), Poll::Ready(Err(Elapsed)));
    assert_eq!(second.wakes(), 1);
}

#[test]
fn a_waiter_woken_in_vain_keeps_its_place() {
    let (clock, _) = virtual_clock();
    let items = Items::new();
    let mut first = Task::asleep(&items, &clock);
    let second = Task::asleep(&items, &clock);
    items.attempts();
    items.event.notify_one();
    assert!(first.poll().is_pending());
    assert_eq!(items.attempts(), 2, "before and after it went back");
    assert_eq!(
        second.wakes(),
        0,
        "what is not there for one is there for nobody"
    );
    items.put(1);
    assert_eq!((first.wakes(), second.wakes()), (2, 0));
    assert!(first.poll().is_ready());
}

#[test]
fn a_notification_during_an_attempt_wakes_the_next() {
    let (clock, _) = virtual_clock();
    let items = Items::new();
    let calls = AtomicUsize::new(0);
    // Its third attempt, the one after the notification, succeeds, and something comes in the middle of it.
    let mut first = until(&items.event, &clock, Instant::NEVER, || {
        if calls.fetch_add(1, Ordering::SeqCst) < 2 {
            return Attempt::Pending {
                wake_at: Instant::NEVER,
            };
        }
        items.put(1);
        Attempt::Done {
            value: 0,
            more: false,
        }
    });
    let (_, waker) = counting();
    assert!(poll(&mut first, &waker).is_pending());
    let mut second = Task::asleep(&items, &clock);
    items.event.notify_one();
    assert_eq!(poll(&mut first, &waker), Poll::Ready(Ok(0)));
    assert_eq!(second.wakes(), 1);
    assert!(second.poll().is_ready());
}

#[test]
fn closing_wakes_everybody() {
    let (clock, _) = virtual_clock();
    let items = Items::new();
    let mut tasks: Vec<_> = (0..1000).map(|_| Task::asleep(&items, &clock)).collect();
    items.put(1000);
    items.event.notify_all();
    assert_eq!(woken(&tasks).len(), 1000);
    assert_eq!(items.event.waiting(), 0);
    assert!(tasks.iter_mut().all(|task| task.poll().is_ready()));
    assert!(tasks.iter().all(|task| task.wakes() == 1));
}

#[test]
fn all_are_woken_while_one_wake_up_is_under_way() {
    let (clock, _) = virtual_clock();
    let items = Items::new();
    let mut tasks: Vec<_> = (0..3).map(|_| Task::asleep(&items, &clock)).collect();
    items.put(3);
    items.event.notify_one();
    assert_eq!(woken(&tasks).len(), 1);
    items.event.notify_all();
    assert!(tasks.iter_mut().all(|task| task.poll().is_ready()));
    assert!(tasks.iter().all(|task| task.wakes() == 1));
}

#[test]
fn a_future_dropped_in_any_state_loses_nothing() {
    // Each history ends with one item, one dropped future and one other waiter, which must be woken.
    let (clock, time) = virtual_clock();
    for state in 0..6 {
        let items = Items::new();
        items.wake_at.store(1_000_000, Ordering::SeqCst);
        let mut dropped = Task::new(&items, &clock, Instant::NEVER);
        if state > 0 {
            assert!(dropped.poll().is_pending());
        }
        let mut other = Task::asleep(&items, &clock);
        match state {
            2 => items.event.retime(),
            3 => items.event.notify_one(),
            4 => {
                items.event.notify_one();
                assert!(dropped.poll().is_pending(), "back at the front");
            }
            5 => items.event.notify_all(),
            _ => {}
        }
        items.put(1);
        drop(dropped);
        assert!(other.wakes() >= 1, "state {state}");
        assert_eq!(other.poll(), Poll::Ready(Ok(1)), "state {state}");
        assert_eq!(items.event.waiting(), 0);
        drop(other);
        assert_eq!(time.sleeping(), 0, "no timer is left behind");
    }
}

#[test]
fn a_waker_that_changes_between_polls_is_the_one_that_is_woken() {
    let (clock, time) = virtual_clock();
    let items = Items::new();
    let (old, old_waker) = counting();
    let (new, new_waker) = counting();
    let mut future = items.take(&clock, at(50));
    assert!(poll(&mut future, &old_waker).is_pending());
    assert!(poll(&mut future, &new_waker).is_pending());
    items.put(1);
    assert_eq!((old.wakes(), new.wakes()), (0, 1));
    assert_eq!(poll(&mut future, &old_waker), Poll::Ready(Ok(1)));

    let mut future = items.take(&clock, at(50));
    assert!(poll(&mut future, &old_waker).is_pending());
    assert!(poll(&mut future, &new_waker).is_pending());
    time.advance_to(at(50));
    assert_eq!((old.wakes(), new.wakes()), (0, 2), "the timer's waker too");
    assert_eq!(poll(&mut future, &new_waker), Poll::Ready(Err(Elapsed)));
}

#[test]
fn a_panic_in_an_attempt_passes_the_wake_up_on() {
    let (clock, _) = virtual_clock();
    let items = Items::new();
    items.wake_at.store(7, Ordering::SeqCst);
    let calls = AtomicUsize::new(0);
    let mut first = until(&items.event, &clock, Instant::NEVER, || {
        assert!(
            calls.fetch_add(1, Ordering::SeqCst) < 2,
            "the third attempt panics"
        );
        Attempt::<()>::Pending { wake_at: at(7) }
    });
    let (_, waker) = counting();
    assert!(poll(&mut first, &waker).is_pending());
    let mut second = Task::asleep(&items, &clock);
    items.event.notify_one();
    let polled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _ = poll(&mut first, &waker);
    }));
    assert!(polled.is_err());
    drop(first);
    assert_eq!(second.wakes(), 1);
    assert!(second.poll().is_pending());
    assert_eq!(items.event.waiting(), 1);
}

#[test]
fn a_waker_that_panics_leaves_nobody_asleep() {
    struct Panics;
    impl Wake for Panics {
        fn wake(self: StdArc<Self>) {
            panic!("a waker that panics");
        }
    }
    let (clock, _) = virtual_clock();
    let items = Items::new();
    let broken = Waker::from(StdArc::new(Panics));
    let mut first = items.take(&clock, Instant::NEVER);
    assert!(poll(&mut first, &broken).is_pending());
    let mut second = Task::asleep(&items, &clock);
    let mut third = items.take(&clock, Instant::NEVER);
    assert!(poll(&mut third, &broken).is_pending());
    let mut fourth = Task::asleep(&items, &clock);
    items.items.fetch_add(4, Ordering::SeqCst);
    let notified = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        items.event.notify_all();
    }));
    assert!(notified.is_err());
    assert_eq!((second.wakes(), fourth.wakes()), (1, 1));
    assert!(second.poll().is_ready() && fourth.poll().is_ready());
}

#[test]
fn exactly_one_waiter_keeps_the_time() {
    let (clock, time) = virtual_clock();
    let items = Items::new();
    items.wake_at.store(100, Ordering::SeqCst);
    let mut tasks: Vec<_> = (0..100).map(|_| Task::asleep(&items, &clock)).collect();
    // The second took over from the first, which stood at the front; both have a timer.
    assert_eq!(time.sleeping(), 2);
    // The state changes by itself, as the one who looks finds out.
    items.items.fetch_add(3, Ordering::SeqCst);
    items.wake_at.store(u64::MAX, Ordering::SeqCst);
    time.advance_to(at(100));
    assert_eq!(woken(&tasks), [0, 1]);
    assert!(tasks[0].poll().is_ready());
    assert!(tasks[1].poll().is_ready());
    // The keeper left, and handed its role to the newest unless one is notified who would take it.
    assert_eq!(
        woken(&tasks)[..3],
        [0, 1, 2],
        "the baton went to the oldest of the rest"
    );
    assert!(tasks[2].poll().is_ready());
    for index in woken(&tasks) {
        if index > 2 {
            assert!(tasks[index].poll().is_pending());
        }
    }
    assert_eq!(items.event.waiting(), 97);
    assert_eq!(time.sleeping(), 0);
}

#[test]
fn the_role_is_handed_over_when_the_keeper_leaves() {
    let (clock, time) = virtual_clock();
    let items = Items::new();
    items.wake_at.store(100, Ordering::SeqCst);
    let mut tasks: VecDeque<_> = (0..4).map(|_| Task::asleep(&items, &clock)).collect();
    // Cancelled: 1 is the keeper, 0 has a stale timer.
    drop(tasks.remove(1));
    assert_eq!(tasks[2].wakes(), 1, "the newest");
    assert!(tasks[2].poll().is_pending());
    assert_eq!(time.sleeping(), 2);
    tasks.pop_front();
    let mut newest = tasks.pop_back().unwrap();
    let mut middle = tasks.pop_back().unwrap();
    items.put(1);
    assert_eq!(middle.poll(), Poll::Ready(Ok(1)));
    assert_eq!(newest.wakes(), 1, "it is the keeper already");
    items.put(1);
    assert_eq!(newest.poll(), Poll::Ready(Ok(1)));
    drop((newest, middle));
    assert_eq!(time.sleeping(), 0);
}

#[test]
fn whoever_is_left_has_the_time() {
    // However waiters come and go, as long as one is there, the state's deadline wakes somebody.
    const CHOICES: usize = 6;
    const STEPS: u32 = 5;
    let (clock, time) = virtual_clock();
    for history in 0..2 * CHOICES.pow(STEPS) {
        let items = Items::new();
        let mut tasks: VecDeque<Task<'_>> = VecDeque::new();
        let (lazy, history) = (history % 2 == 0, history / 2);
        let mut deadline = 1_000;
        let arrive = |tasks: &mut VecDeque<_>| {
            // Or takes what somebody else has been woken for.
            let mut task = Task::new(&items, &clock, Instant::NEVER);
            if task.poll().is_pending() {
                tasks.push_back(task);
            }
        };
        for step in 0..STEPS {
            match history / CHOICES.pow(step) % CHOICES {
                0 => arrive(&mut tasks),
                1 => drop(tasks.pop_front()),
                2 => drop(tasks.pop_back()),
                3 if items.items.load(Ordering::SeqCst) == 0 && !tasks.is_empty() => items.put(1),
                4 => {
                    arrive(&mut tasks);
                    arrive(&mut tasks);
                }
                _ => {
                    deadline -= 100;
                    items.set_deadline(deadline);
                }
            }
            if !lazy {
                run(&mut tasks);
            }
        }
        run(&mut tasks);
        assert_eq!(items.event.waiting(), tasks.len());
        let expected = (!tasks.is_empty() && deadline < 1_000).then_some(at(deadline));
        assert_eq!(
            time.next_deadline(),
            expected,
            "history {history}, lazy {lazy}"
        );
        assert!(items.items.load(Ordering::SeqCst) == 0 || tasks.is_empty());
        drop(tasks);
        assert_eq!((items.event.waiting(), time.sleeping()), (0, 0));
    }
}

#[test]
fn an_earlier_deadline_wakes_the_keeper_alone() {
    let (clock, time) = virtual_clock();
    let items = Items::new();
    let mut tasks: Vec<_> = (0..20).map(|_| Task::asleep(&items, &clock)).collect();
    assert_eq!(time.sleeping(), 0, "nothing to sleep towards");
    items.set_deadline(100);
    assert_eq!(woken(&tasks).len(), 1);
    items.set_deadline(90);
    let keeper = woken(&tasks)[0];
    assert_eq!(tasks[keeper].wakes(), 1, "told once until it looks");
    items.attempts();
    assert!(tasks[keeper].poll().is_pending());
    assert_eq!(items.attempts(), 1);
    assert_eq!(time.next_deadline(), Some(at(90)));
    items.set_deadline(50);
    assert_eq!(tasks[keeper].wakes(), 2);
    assert!(tasks[keeper].poll().is_pending());
    assert_eq!(time.next_deadline(), Some(at(50)));
    items.set_deadline(u64::MAX);
    assert!(tasks[keeper].poll().is_pending());
    assert_eq!(time.next_deadline(), None);
}

#[test]
fn a_role_handed_over_before_its_holder_looked_is_not_forgotten() {
    let (clock, time) = virtual_clock();
    let items = Items::new();
    let mut tasks: Vec<_> = (0..3).map(|_| Task::asleep(&items, &clock)).collect();
    items.set_deadline(100);
    let keeper = woken(&tasks)[0];
    assert_eq!(keeper, 1);
    drop(tasks.remove(keeper));
    assert_eq!(woken(&tasks), [1]);
    assert!(tasks[1].poll().is_pending());
    assert_eq!(time.next_deadline(), Some(at(100)));
}

#[test]
fn a_deadline_that_comes_while_the_keeper_is_served_is_not_forgotten() {
    let (clock, time) = virtual_clock();
    let items = Items::new();
    let mut tasks: VecDeque<_> = (0..3).map(|_| Task::asleep(&items, &clock)).collect();
    drop(tasks.pop_front());
    // The keeper is at the front, notified, and has not begun; then the deadline comes.
    items.put(1);
    items.set_deadline(100);
    assert_eq!(tasks[0].poll(), Poll::Ready(Ok(1)));
    assert_eq!(tasks[1].wakes(), 1);
    assert!(tasks[1].poll().is_pending());
    assert_eq!(time.next_deadline(), Some(at(100)));
}

#[test]
fn a_keeper_told_of_a_deadline_and_then_served_hands_it_on() {
    let (clock, time) = virtual_clock();
    let items = Items::new();
    let mut tasks: VecDeque<_> = (0..3).map(|_| Task::asleep(&items, &clock)).collect();
    drop(tasks.pop_front());
    items.set_deadline(100);
    assert_eq!(tasks[0].wakes(), 1, "the keeper");
    items.items.fetch_add(1, Ordering::SeqCst);
    assert_eq!(tasks[0].poll(), Poll::Ready(Ok(1)));
    assert_eq!(tasks[1].wakes(), 1);
    assert!(tasks[1].poll().is_pending());
    assert_eq!(time.next_deadline(), Some(at(100)));
}

#[test]
fn a_newcomer_that_takes_the_role_unaware_of_a_deadline_hands_it_on() {
    let (clock, time) = virtual_clock();
    let items = Items::new();
    let mut keeper = Task::asleep(&items, &clock);
    // The deadline comes after the newcomer's first attempt has looked, and an item before its second.
    let mut calls = 0;
    let mut newcomer = until(&items.event, &clock, Instant::NEVER, || {
        calls += 1;
        if calls == 1 {
            items.set_deadline(100);
            return Attempt::Pending {
                wake_at: Instant::NEVER,
            };
        }
        Attempt::Done {
            value: 0,
            more: false,
        }
    });
    assert_eq!(poll(&mut newcomer, Waker::noop()), Poll::Ready(Ok(0)));
    assert!(keeper.wakes() >= 1);
    assert!(keeper.poll().is_pending());
    assert_eq!(time.next_deadline(), Some(at(100)));
}

#[test]
fn a_deadline_that_only_the_keepers_second_attempt_saw_is_handed_on() {
    let (clock, time) = virtual_clock();
    let items = &Items::new();
    // One is outside, attempting, when another comes: nobody is listed, so nobody is told of the deadline that
    // comes after the newcomer's first attempt has looked.
    let newcomer = std::cell::RefCell::new(None);
    let mut calls = 0;
    let mut first = until(&items.event, &clock, Instant::NEVER, || {
        calls += 1;
        if calls == 3 {
            let mut calls = 0;
            let mut future = Box::pin(until(&items.event, &clock, Instant::NEVER, move || {
                calls += 1;
                if calls == 1 {
                    items.set_deadline(100);
                    return Attempt::Pending {
                        wake_at: Instant::NEVER,
                    };
                }
                items.attempt()
            }));
            assert!(poll(&mut future, Waker::noop()).is_pending());
            newcomer.replace(Some(future));
        }
        items.attempt()
    });
    let (firsts, waker) = counting();
    assert!(poll(&mut first, &waker).is_pending());
    items.event.notify_one();
    assert!(poll(&mut first, &waker).is_pending());
    assert_eq!((firsts.wakes(), time.sleeping()), (1, 1));
    drop(newcomer.take());
    assert_eq!(firsts.wakes(), 2);
    assert!(poll(&mut first, &waker).is_pending());
    assert_eq!(time.next_deadline(), Some(at(100)));
}

#[test]
fn a_state_that_names_the_past_for_ever_starves_nobody() {
    let (clock, time) = virtual_clock();
    time.advance_to(at(1000));
    let items = Items::new();
    items.wake_at.store(1, Ordering::SeqCst);
    let mut task = Task::asleep(&items, &clock);
    assert!(items.attempts() < 20);
    assert_eq!(task.wakes(), 1, "it yields");
    assert!(task.poll().is_pending());
    assert_eq!(task.wakes(), 2);
    items.items.fetch_add(1, Ordering::SeqCst);
    assert!(task.poll().is_ready());
}

#[test]
fn a_past_deadline_is_attempted_again_at_once() {
    let (clock, time) = virtual_clock();
    time.advance_to(at(1000));
    let event = Event::new();
    let mut calls = 0;
    let mut attempt = || {
        calls += 1;
        match calls {
            4 => Attempt::Done {
                value: 4,
                more: false,
            },
            _ => Attempt::Pending { wake_at: at(999) },
        }
    };
    let (counting, waker) = counting();
    let mut future = until(&event, &clock, Instant::NEVER, &mut attempt);
    assert_eq!(poll(&mut future, &waker), Poll::Ready(Ok(4)));
    assert_eq!(counting.wakes(), 0);
    drop(future);
    calls = 0;
    let mut attempt = || {
        calls += 1;
        match calls {
            100 => Attempt::Done {
                value: 100,
                more: false,
            },
            _ => Attempt::Pending { wake_at: at(999) },
        }
    };
    assert_eq!(
        until_blocking(&event, &clock, Instant::NEVER, &mut attempt),
        Ok(100)
    );
}

#[test]
fn many_waiters_come_and_go_in_any_order() {
    let (clock, _) = virtual_clock();
    let items = Items::new();
    let mut tasks: VecDeque<_> = (0..10_000).map(|_| Task::asleep(&items, &clock)).collect();
    let mut random = 12_345usize;
    while tasks.len() > 5_000 {
        random = (random * 1_103_515_245 + 12_345) % (1 << 31);
        tasks.swap_remove_back(random % tasks.len());
        assert_eq!(items.event.waiting(), tasks.len());
    }
    items.put(5_000);
    run(&mut tasks);
    assert!(tasks.is_empty(), "the baton stopped");
    assert_eq!(items.event.waiting(), 0);
}

#[test]
fn an_idle_event_is_small() {
    assert!(size_of::<Event>() <= 72, "{}", size_of::<Event>());
}

#[test]
fn a_task_without_a_deadline_needs_no_runtime() {
    let items = Arc::new(Items::new());
    let waiter = thread::spawn({
        let items = Arc::clone(&items);
        move || block_on(items.take(&Clock::system(), Instant::NEVER))
    });
    items.put(1);
    assert_eq!(waiter.join().unwrap(), Ok(1));
}

#[test]
fn tasks_and_threads_stand_in_one_line() {
    let (clock, _) = virtual_clock();
    let items = Arc::new(Items::new());
    let mut first = Task::asleep(&items, &clock);
    let second = thread::spawn({
        let (items, clock) = (Arc::clone(&items), clock.clone());
        move || until_blocking(&items.event, &clock, Instant::NEVER, || items.attempt())
    });
    while items.event.waiting() < 2 {
        thread::yield_now();
    }
    let mut third = Task::asleep(&items, &clock);
    items.put(1);
    assert_eq!((first.wakes(), third.wakes()), (1, 0));
    assert!(first.poll().is_ready());
    items.put(1);
    assert_eq!(second.join().unwrap(), Ok(1));
    assert_eq!(third.wakes(), 0);
    items.put(1);
    assert_eq!(third.poll(), Poll::Ready(Ok(1)));
}

#[test]
fn a_blocked_thread_wakes_when_another_moves_virtual_time() {
    let (clock, time) = virtual_clock();
    let items = Arc::new(Items::new());
    let waiter = thread::spawn({
        let (items, clock) = (Arc::clone(&items), clock.clone());
        move || until_blocking(&items.event, &clock, at(1_000), || items.attempt())
    });
    while time.next_deadline() != Some(at(1_000)) {
        thread::yield_now();
    }
    time.advance_to(at(999));
    assert_eq!(items.event.waiting(), 1);
    time.advance(Duration::from_nanos(1));
    assert_eq!(waiter.join().unwrap(), Err(Elapsed));
    assert_eq!((items.event.waiting(), time.sleeping()), (0, 0));
}

#[test]
fn a_blocked_keeper_follows_the_state_on_virtual_time() {
    let (clock, time) = virtual_clock();
    let items = Arc::new(Items::new());
    let waiter = thread::spawn({
        let (items, clock) = (Arc::clone(&items), clock.clone());
        move || until_blocking(&items.event, &clock, Instant::NEVER, || items.attempt())
    });
    while items.event.waiting() == 0 {
        thread::yield_now();
    }
    items.set_deadline(500);
    while time.next_deadline() != Some(at(500)) {
        thread::yield_now();
    }
    items.items.fetch_add(1, Ordering::SeqCst);
    time.advance_to(at(500));
    assert_eq!(waiter.join().unwrap(), Ok(1));
}

#[test]
fn a_blocked_thread_times_out_on_the_system_clock_without_a_runtime() {
    let clock = Clock::system();
    let items = Items::new();
    let deadline = clock.now() + Duration::from_millis(2);
    let result = until_blocking(&items.event, &clock, deadline, || items.attempt());
    assert_eq!(result, Err(Elapsed));
    assert!(clock.now() >= deadline);
}

#[test]
fn a_waiter_polls_in_its_owners_name() {
    let (clock, time) = virtual_clock();
    let items = Items::new();
    let event = &items.event;
    let mut attempt = || items.attempt();
    let mut waiter = Waiter::new();
    let (counting, waker) = counting();
    let mut cx = Context::from_waker(&waker);
    for round in 1..=3 {
        let deadline = time.now() + Duration::from_nanos(10);
        assert!(
            waiter
                .poll_until(&mut cx, event, &clock, deadline, &mut attempt)
                .is_pending()
        );
        items.put(1);
        assert_eq!(counting.wakes(), round);
        let polled = waiter.poll_until(&mut cx, event, &clock, deadline, &mut attempt);
        assert_eq!(polled, Poll::Ready(Ok(1)));
        assert_eq!((event.waiting(), time.sleeping()), (0, 0));
    }
    assert!(
        waiter
            .poll_until(&mut cx, event, &clock, at(5), &mut attempt)
            .is_pending()
    );
    waiter.cancel(event);
    assert_eq!((event.waiting(), time.sleeping()), (0, 0));
}

#[test]
fn a_wakers_drop_may_use_the_event() {
    // A waker can own the task that waits: dropping the one drops the other, which leaves the list.
    struct Owner {
        items: Arc<Items>,
        waiter: Mutex<Waiter>,
    }
    impl Wake for Owner {
        fn wake(self: StdArc<Self>) {}
    }
    impl Drop for Owner {
        fn drop(&mut self) {
            self.waiter.lock().cancel(&self.items.event);
            self.items.event.notify_one();
        }
    }
    let (clock, _) = virtual_clock();
    let items = Arc::new(Items::new());
    let owner = StdArc::new(Owner {
        items: Arc::clone(&items),
        waiter: Mutex::new(Waiter::new()),
    });
    let waker = Waker::from(StdArc::clone(&owner));
    let mut future = items.take(&clock, at(5));
    assert!(poll(&mut future, &waker).is_pending());
    drop((owner, waker));
    let (_, other) = counting();
    assert!(poll(&mut future, &other).is_pending());
    drop(future);
    assert_eq!(items.event.waiting(), 0);
}

#[test]
fn waiting_is_send_and_unpin() {
    fn send_unpin<T: Send + Unpin>(_: &T) {}
    fn send_sync<T: Send + Sync>() {}
    let (clock, _) = virtual_clock();
    let event = Event::new();
    let not_unpin = std::marker::PhantomPinned;
    let future = until(&event, &clock, Instant::NEVER, move || {
        let _ = &not_unpin;
        Attempt::Done {
            value: (),
            more: false,
        }
    });
    send_unpin(&future);
    send_unpin(&Waiter::new());
    send_sync::<Event>();
    send_sync::<Clock>();
    send_sync::<VirtualClock>();
}

#[test]
fn threads_that_put_and_take_at_once_lose_no_wake_up() {
    // Each taker waits for one item at a time; a lost wake-up hangs the test.
    const TAKERS: u64 = 4;
    const EACH: u64 = 5_000;
    let items = Arc::new(Items::new());
    let clock = Clock::system();
    let take = |items: &Items, clock: &Clock, number: u64, round: u64| {
        if number.is_multiple_of(2) {
            return until_blocking(&items.event, clock, Instant::NEVER, || items.attempt());
        }
        if round.is_multiple_of(3) {
            // Half-way in, dropped.
            let mut task = Task::new(items, clock, Instant::NEVER);
            if let Poll::Ready(taken) = task.poll() {
                return taken;
            }
            thread::yield_now();
        }
        block_on(items.take(clock, Instant::NEVER))
    };
    let takers: Vec<_> = (0..TAKERS)
        .map(|number| {
            let (items, clock) = (Arc::clone(&items), clock.clone());
            thread::spawn(move || {
                for round in 0..EACH {
                    assert!(take(&items, &clock, number, round).is_ok());
                }
            })
        })
        .collect();
    let putters: Vec<_> = (0..2)
        .map(|_| {
            let items = Arc::clone(&items);
            thread::spawn(move || {
                for round in 0..TAKERS * EACH / 2 {
                    items.put(1);
                    if round.is_multiple_of(64) {
                        thread::yield_now();
                    }
                }
            })
        })
        .collect();
    for thread in putters.into_iter().chain(takers) {
        thread.join().unwrap();
    }
    assert_eq!(items.items.load(Ordering::SeqCst), 0);
    assert_eq!(items.event.waiting(), 0);
}

#[test]
fn waiters_that_give_up_all_the_time_leave_the_others_theirs() {
    // Two are patient and hang if a wake-up gets lost; two time out again and again, notified or not.
    const PUT: u64 = 20_000;
    let items = Arc::new(Items::new());
    let clock = Clock::system();
    let taken = Arc::new(AtomicU64::new(0));
    let takers: Vec<_> = (0..4)
        .map(|number| {
            let (items, clock, taken) = (Arc::clone(&items), clock.clone(), Arc::clone(&taken));
            thread::spawn(move || {
                while taken.load(Ordering::SeqCst) < PUT {
                    let deadline = match number {
                        0 | 1 => Instant::NEVER,
                        _ => clock.now() + Duration::from_micros(20),
                    };
                    let result =
                        until_blocking(&items.event, &clock, deadline, || match items.attempt() {
                            Attempt::Pending { .. } if taken.load(Ordering::SeqCst) == PUT => {
                                Attempt::Done {
                                    value: 0,
                                    more: true,
                                }
                            }
                            attempt => attempt,
                        });
                    // The last one closes.
                    if result.is_ok_and(|value| value > 0)
                        && taken.fetch_add(1, Ordering::SeqCst) + 1 == PUT
                    {
                        items.event.notify_all();
                    }
                }
            })
        })
        .collect();
    for round in 0..PUT {
        items.put(1);
        if round.is_multiple_of(32) {
            thread::yield_now();
        }
    }
    for thread in takers {
        thread.join().unwrap();
    }
    assert_eq!(items.items.load(Ordering::SeqCst), 0);
    assert_eq!(
        (taken.load(Ordering::SeqCst), items.event.waiting()),
        (PUT, 0)
    );
}

#[test]
fn tasks_on_several_workers_lose_no_wake_up() {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_time().build().unwrap();
    let items = Arc::new(Items::new());
    runtime.block_on(async {
        let takers: Vec<_> = (0..8)
            .map(|_| {
                let items = Arc::clone(&items);
                tokio::spawn(async move {
                    let clock = Clock::system();
                    for _ in 0..2_000 {
                        assert!(items.take(&clock, Instant::NEVER).await.is_ok());
                    }
                })
            })
            .collect();
        let putters: Vec<_> = (0..4)
            .map(|_| {
                let items = Arc::clone(&items);
                tokio::spawn(async move {
                    for round in 0..4_000 {
                        items.put(1);
                        if round % 16 == 0 {
                            tokio::task::yield_now().await;
                        }
                    }
                })
            })
            .collect();
        for task in putters.into_iter().chain(takers) {
            task.await.unwrap();
        }
    });
    assert_eq!(items.event.waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_paused_runtime_serves_a_waiters_deadline() {
    let clock = Clock::tokio();
    let items = Items::new();
    let deadline = clock.now() + Duration::from_secs(3600);
    assert_eq!(items.take(&clock, deadline).await, Err(Elapsed));
    assert!(clock.now() >= deadline);
    assert!(clock.now() < deadline + Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_paused_runtime_serves_the_states_deadline() {
    // Items appear by themselves at a time that only the state knows, as those of expired leases do.
    let clock = Clock::tokio();
    let ready_at = clock.now() + Duration::from_secs(30);
    let items = Arc::new(Items::new());
    let waiters: Vec<_> = (0..3)
        .map(|_| {
            let (items, clock) = (Arc::clone(&items), clock.clone());
            tokio::spawn(async move {
                until(&items.event, &clock, Instant::NEVER, || {
                    let wake_at = items.wake_at.load(Ordering::SeqCst);
                    if clock.now() >= at(wake_at) {
                        items.wake_at.swap(u64::MAX, Ordering::SeqCst);
                        items.items.fetch_add(3, Ordering::SeqCst);
                    }
                    items.attempt()
                })
                .await
                .map(|_| clock.now())
            })
        })
        .collect();
    tokio::task::yield_now().await;
    assert_eq!(items.event.waiting(), 3);
    items.set_deadline(ready_at.as_nanos());
    for waiter in waiters {
        let now = waiter.await.unwrap().unwrap();
        assert!(now >= ready_at && now < ready_at + Duration::from_secs(1));
    }
}
