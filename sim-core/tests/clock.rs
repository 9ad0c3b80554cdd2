//! Clocks: virtual time deadline by deadline, tokio's paused time, the machine's.
#![cfg(not(loom))]

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc as StdArc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use proptest::prelude::*;
use sim_core::clock::{Clock, Sleep, VirtualClock};
use sim_core::sync::{Arc, Mutex, thread};
use sim_core::time::{Instant, Timestamp};

/// Notes, when woken, its name and what the clock reads.
struct Noting {
    name: usize,
    clock: Clock,
    notes: Notes,
}

impl Wake for Noting {
    fn wake(self: StdArc<Self>) {
        self.notes
            .lock()
            .push((self.name, self.clock.now().as_nanos()));
    }
}

type Notes = Arc<Mutex<Vec<(usize, u64)>>>;

fn virtual_clock() -> (Clock, VirtualClock) {
    Clock::virtual_at(Timestamp::UNIX_EPOCH)
}

fn at(nanos: u64) -> Instant {
    Instant::from_nanos(nanos)
}

fn poll(sleep: &mut Sleep, waker: &Waker) -> Poll<()> {
    Pin::new(sleep).poll(&mut Context::from_waker(waker))
}

/// Puts one sleeper to sleep towards each deadline; wakes go to the notes.
fn asleep(clock: &Clock, deadlines: &[u64]) -> (Vec<(Sleep, Waker)>, Notes) {
    let notes = Arc::new(Mutex::new(Vec::new()));
    let sleepers = deadlines.iter().enumerate().map(|(name, &deadline)| {
        let noting = Noting {
            name,
            clock: clock.clone(),
            notes: Arc::clone(&notes),
        };
        let waker = Waker::from(StdArc::new(noting));
        let mut sleep = clock.sleep_until(at(deadline));
        assert!(poll(&mut sleep, &waker).is_pending());
        (sleep, waker)
    });
    (sleepers.collect(), notes)
}

#[test]
fn virtual_time_moves_deadline_by_deadline() {
    let (clock, time) = virtual_clock();
    let (mut sleepers, notes) = asleep(&clock, &[30, 10, 20, 10, 40]);
    time.advance(Duration::from_nanos(35));
    assert_eq!(*notes.lock(), [(1, 10), (3, 10), (2, 20), (0, 30)]);
    assert_eq!(clock.now(), at(35));
    assert_eq!(time.next_deadline(), Some(at(40)));
    for (name, (sleep, waker)) in sleepers.iter_mut().enumerate() {
        assert_eq!(poll(sleep, waker).is_ready(), name != 4);
    }
    assert_eq!(time.advance_to_next(), Some(at(40)));
    assert_eq!(time.advance_to_next(), None);
    assert_eq!(time.now(), at(40));
    time.advance_to(at(12));
    assert_eq!(time.now(), at(40), "never backwards");
}

#[test]
fn what_falls_asleep_on_the_way_is_not_jumped_over() {
    // Woken at its deadline, it sleeps towards the next, ten apart.
    struct Ticking {
        clock: Clock,
        ticks: Mutex<Vec<u64>>,
        sleep: Mutex<Option<Sleep>>,
    }
    impl Wake for Ticking {
        fn wake(self: StdArc<Self>) {
            let now = self.clock.now();
            self.ticks.lock().push(now.as_nanos());
            let mut sleep = self.clock.sleep_until(now + Duration::from_nanos(10));
            assert!(poll(&mut sleep, &Waker::from(StdArc::clone(&self))).is_pending());
            let former = self.sleep.lock().replace(sleep);
            drop(former);
        }
    }
    let (clock, time) = virtual_clock();
    let ticking = StdArc::new(Ticking {
        clock,
        ticks: Mutex::new(Vec::new()),
        sleep: Mutex::new(None),
    });
    StdArc::clone(&ticking).wake();
    time.advance_to(at(55));
    assert_eq!(*ticking.ticks.lock(), [0, 10, 20, 30, 40, 50]);
    assert_eq!(time.now(), at(55));
    let last = ticking.sleep.lock().take();
    drop(last);
}

#[test]
fn a_dropped_or_reset_sleeper_is_not_woken() {
    let (clock, time) = virtual_clock();
    let (mut sleepers, notes) = asleep(&clock, &[10, 20, 30]);
    drop(sleepers.remove(0));
    let (second, waker) = &mut sleepers[0];
    second.reset(at(40));
    assert_eq!(time.next_deadline(), Some(at(30)));
    assert!(poll(second, waker).is_pending());
    second.reset(Instant::NEVER);
    assert_eq!(time.sleeping(), 1);
    assert!(poll(second, waker).is_pending());
    assert_eq!(time.sleeping(), 1, "never costs no timer");
    second.reset(at(40));
    assert!(poll(second, waker).is_pending());
    time.advance_to(at(100));
    assert_eq!(*notes.lock(), [(2, 30), (1, 40)]);
}

#[test]
fn a_task_moved_to_another_waker_keeps_its_place() {
    let (clock, time) = virtual_clock();
    let (mut sleepers, notes) = asleep(&clock, &[10, 10]);
    let (_, second_waker) = &sleepers[1];
    let moved = second_waker.clone();
    assert!(poll(&mut sleepers[0].0, &moved).is_pending());
    time.advance_to(at(10));
    assert_eq!(*notes.lock(), [(1, 10), (1, 10)]);
}

#[test]
fn wall_time_follows_the_axis_both_ways() {
    let start: Timestamp = "2013-01-01T05:00:00Z".parse().unwrap();
    let (clock, time) = Clock::virtual_at(start);
    time.advance(Duration::from_millis(1_500));
    assert_eq!(
        clock.timestamp(clock.now()).to_string(),
        "2013-01-01T05:00:01.500Z"
    );
    assert_eq!(
        clock.instant_of(start + Duration::from_millis(1_500)),
        clock.now()
    );
    assert_eq!(clock.instant_of(Timestamp::UNIX_EPOCH), Instant::ORIGIN);
    assert_eq!(clock.timestamp(Instant::NEVER), Timestamp::MAX);
}

#[test]
fn the_system_clock_moves_on_one_axis() {
    let clock = Clock::system();
    let mut former = clock.now();
    for _ in 0..1_000 {
        let now = Clock::system().now();
        assert!(now >= former);
        former = now;
    }
    let wall = clock.timestamp(clock.now());
    let year_2020 = Timestamp::from_unix_seconds(1_577_836_800);
    assert!(wall > year_2020);
    assert_eq!(clock.instant_of(clock.timestamp(former)), former);
    let deadline = clock.now() + Duration::from_millis(1);
    clock.sleep_until_blocking(deadline);
    assert!(clock.now() >= deadline);
}

#[tokio::test]
async fn the_system_clock_sleeps_on_tokios_timer() {
    let clock = Clock::system();
    let deadline = clock.now() + Duration::from_millis(2);
    clock.sleep_until(deadline).await;
    assert!(clock.now() >= deadline);
}

#[tokio::test(start_paused = true)]
async fn a_paused_runtime_moves_tokios_clock() {
    let clock = Clock::tokio();
    assert_eq!(clock.now(), Instant::ORIGIN);
    clock
        .sleep_until(Instant::ORIGIN + Duration::from_secs(60))
        .await;
    let now = clock.now();
    assert!(now >= Instant::ORIGIN + Duration::from_secs(60));
    assert!(now < Instant::ORIGIN + Duration::from_secs(61));
    tokio::time::advance(Duration::from_secs(5)).await;
    assert!(clock.now() >= now + Duration::from_secs(5));
    let mut sleep = pin!(clock.sleep_until(clock.now() + Duration::from_secs(1)));
    let waker = Waker::noop();
    assert!(
        sleep
            .as_mut()
            .poll(&mut Context::from_waker(waker))
            .is_pending()
    );
    sleep.reset(clock.now() + Duration::from_secs(100));
    let reset_to = sleep.deadline();
    sleep.await;
    assert!(clock.now() >= reset_to);
}

#[tokio::test]
async fn run_to_lets_tasks_act_at_their_deadlines() {
    let (clock, time) = virtual_clock();
    let acts = Arc::new(Mutex::new(Vec::new()));
    let tasks: Vec<_> = (1..=3u64)
        .map(|number| {
            let (clock, acts) = (clock.clone(), Arc::clone(&acts));
            tokio::spawn(async move {
                for round in 1..=3 {
                    clock.sleep_until(at(100 * round + number)).await;
                    acts.lock().push((number, clock.now().as_nanos()));
                }
            })
        })
        .collect();
    time.run_to(at(1_000)).await;
    for task in tasks {
        task.await.unwrap();
    }
    let expected: Vec<_> = (1..=3)
        .flat_map(|round| (1..=3).map(move |n| (n, 100 * round + n)))
        .collect();
    assert_eq!(*acts.lock(), expected);
    assert_eq!(time.now(), at(1_000));
}

#[test]
fn blocked_threads_wake_when_another_moves_virtual_time() {
    let (clock, time) = virtual_clock();
    let threads: Vec<_> = [30, 10, 20]
        .into_iter()
        .map(|deadline| {
            let clock = clock.clone();
            thread::spawn(move || {
                clock.sleep_until_blocking(at(deadline));
                clock.now()
            })
        })
        .collect();
    while time.sleeping() < 3 {
        thread::yield_now();
    }
    time.advance_to(at(30));
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(time.sleeping(), 0);
}

#[test]
fn threads_that_sleep_while_time_moves_are_never_left_behind() {
    let (clock, time) = virtual_clock();
    let threads: Vec<_> = (1..=4u64)
        .map(|step| {
            let clock = clock.clone();
            thread::spawn(move || {
                for round in 1..=500 {
                    clock.sleep_until_blocking(at(round * step));
                    assert!(clock.now() >= at(round * step));
                }
            })
        })
        .collect();
    while !threads.iter().all(thread::JoinHandle::is_finished) {
        if time.advance_to_next().is_none() {
            thread::yield_now();
        }
    }
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn a_clock_shows_its_kind() {
    let (clock, time) = virtual_clock();
    assert!(format!("{clock:?}").contains("Virtual"), "{clock:?}");
    assert!(format!("{time:?}").contains("sleeping"), "{time:?}");
}

proptest! {
    #[test]
    fn wakes_come_in_order_of_deadline_then_registration(
        deadlines in prop::collection::vec(1u64..20, 0..40),
        steps in prop::collection::vec(1u64..8, 0..8),
    ) {
        let (clock, time) = virtual_clock();
        let (sleepers, notes) = asleep(&clock, &deadlines);
        for step in steps {
            time.advance(Duration::from_nanos(step));
            let now = time.now().as_nanos();
            let mut expected: Vec<_> = deadlines
                .iter()
                .enumerate()
                .filter(|(_, deadline)| **deadline <= now)
                .map(|(name, &deadline)| (name, deadline))
                .collect();
            expected.sort_by_key(|&(name, deadline)| (deadline, name));
            prop_assert_eq!(&*notes.lock(), &expected);
        }
        drop(sleepers);
        prop_assert_eq!(time.sleeping(), 0);
    }
}

#[test]
fn the_fine_reading_never_goes_back_and_keeps_pace_with_the_clock() {
    let clock = Clock::system();
    let (start, fine) = (clock.now(), clock.fine());
    let mut last = fine;
    for _ in 0..100_000 {
        let next = clock.fine();
        assert!(next >= last);
        last = next;
    }
    let (by_clock, by_counter) = (
        clock.now().saturating_duration_since(start),
        clock.fine().saturating_duration_since(fine),
    );
    // The second pair was read after the first, so that the counter's span may be the shorter by the time between them.
    assert!(by_counter > Duration::ZERO && by_clock > Duration::ZERO);
    assert!(by_counter < by_clock.saturating_mul(2) + Duration::from_secs(1));
}

#[test]
fn the_fine_reading_of_a_virtual_clock_is_its_time() {
    let (clock, time) = virtual_clock();
    time.advance(Duration::from_secs(3));
    assert_eq!(clock.fine(), clock.now());
}
