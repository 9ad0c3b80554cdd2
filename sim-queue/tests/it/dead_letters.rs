//! Dead letters: where they go and what they carry; move tasks, the way back.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use sim_core::attributes::Attributes;
use sim_core::clock::{Clock, VirtualClock};
use sim_core::seam::{Refused, Sink};
use sim_core::time::Instant;
use sim_queue::{
    DeadLetter, DeadLetterPolicy, DeadLetterReason, Delivery, Limits, Message, MoveError,
    MoveStatus, MoveTask, PolicyError, Queue, QueueConfig, RedriveAllow, Stale, TryReceiveError,
};

use crate::rig::{
    START, Task, abandon, block_on, dedup, drain, group, of, queue, reconcile, secs, take,
    until_asleep, values,
};

/// A source and its dead-letter queue on one clock.
fn pair(source: QueueConfig, dead: QueueConfig) -> (Queue<u32>, Queue<u32>, VirtualClock) {
    let (clock, hand) = Clock::virtual_at(START);
    let source = Queue::with_clock(source, clock.clone()).unwrap();
    (source, Queue::with_clock(dead, clock).unwrap(), hand)
}

/// The three kinds with their dead-letter queues, after `max_receives` receives.
fn each_kind(max_receives: u32) -> Vec<(Queue<u32>, Queue<u32>, VirtualClock)> {
    [QueueConfig::new, QueueConfig::fair, QueueConfig::fifo]
        .into_iter()
        .map(|config| {
            let (source, dead, hand) = pair(config("source".to_owned()), config("dead".to_owned()));
            source
                .set_dead_letters(DeadLetterPolicy::to_queue(&dead, max_receives))
                .unwrap();
            (source, dead, hand)
        })
        .collect()
}

/// A message that the queue takes whatever its kind.
fn any(queue: &Queue<u32>, value: u32) -> Message<u32> {
    match queue.config().kind {
        sim_queue::Kind::Standard => Message::new(value),
        _ => of("g", value),
    }
}

/// A sink that refuses as long as it has no room, and keeps what it takes.
#[derive(Default)]
struct Shelf {
    room: AtomicU64,
    offers: AtomicU64,
    letters: Mutex<Vec<DeadLetter<u32>>>,
}

impl Shelf {
    fn with_room(room: u64) -> Arc<Self> {
        Arc::new(Self {
            room: AtomicU64::new(room),
            ..Self::default()
        })
    }

    fn taken(&self) -> Vec<u32> {
        self.letters
            .lock()
            .unwrap()
            .iter()
            .map(|letter| letter.message.value)
            .collect()
    }
}

impl Sink<DeadLetter<u32>> for Shelf {
    fn try_deliver(&self, letter: DeadLetter<u32>) -> Result<(), Refused<DeadLetter<u32>>> {
        self.offers.fetch_add(1, Ordering::SeqCst);
        if self.letters.lock().unwrap().len() as u64 >= self.room.load(Ordering::SeqCst) {
            return Err(Refused::full(letter, None));
        }
        self.letters.lock().unwrap().push(letter);
        Ok(())
    }
}

// ---- the policy --------------------------------------------------------------------------------------

#[test]
fn a_message_that_timed_out_too_often_goes_to_the_dead_letter_queue() {
    for (source, dead, hand) in each_kind(3) {
        source.try_send(any(&source, 7)).unwrap();
        for n in 1..=3 {
            let delivery = source.try_receive().unwrap();
            assert_eq!(delivery.receive_count(), n);
            assert_eq!(dead.stats().sent, 0);
            abandon(delivery);
            hand.advance(secs(30));
        }
        assert_eq!(source.try_receive().unwrap_err(), TryReceiveError::Empty);
        assert_eq!(source.stats().redriven, 1);
        assert_eq!(drain(&dead), [7]);
        reconcile(&source);
        reconcile(&dead);
    }
}

#[test]
fn a_message_that_was_released_too_often_goes_to_the_dead_letter_queue() {
    for (source, dead, _) in each_kind(2) {
        source.try_send(any(&source, 7)).unwrap();
        source.try_receive().unwrap().release().unwrap();
        assert_eq!(dead.stats().visible, 0);
        source.try_receive().unwrap().release().unwrap();
        assert_eq!(dead.stats().visible, 1);
        assert_eq!(source.try_receive().unwrap_err(), TryReceiveError::Empty);
        reconcile(&source);
    }
}

#[test]
fn a_dropped_delivery_counts_as_a_return() {
    for (source, dead, _) in each_kind(1) {
        source.try_send(any(&source, 7)).unwrap();
        drop(source.try_receive().unwrap());
        assert_eq!(drain(&dead), [7]);
    }
}

#[test]
fn a_visibility_of_zero_counts_as_a_return() {
    for (source, dead, _) in each_kind(1) {
        source.try_send(any(&source, 7)).unwrap();
        let mut delivery = source.try_receive().unwrap();
        delivery.extend(secs(0)).unwrap();
        drop(delivery);
        source.advance();
        assert_eq!(source.stats().redriven, 1);
        assert_eq!(drain(&dead), [7]);
        reconcile(&source);
    }
}

#[test]
fn a_rejected_message_goes_to_the_dead_letter_queue_at_once() {
    for (source, dead, _) in each_kind(100) {
        source.try_send(any(&source, 7)).unwrap();
        source.try_receive().unwrap().reject().unwrap();
        let letter = dead.try_receive().unwrap();
        let origin = letter.dead_letter().unwrap();
        assert_eq!(origin.reason(), DeadLetterReason::Rejected);
        assert_eq!(origin.receive_count(), 1);
        assert_eq!(source.stats().redriven, 1);
    }
}

#[test]
fn an_acknowledged_message_is_no_dead_letter() {
    for (source, dead, hand) in each_kind(1) {
        source.try_send(any(&source, 7)).unwrap();
        source.try_receive().unwrap().acknowledge().unwrap();
        hand.advance(secs(60));
        source.advance();
        assert_eq!((source.stats().redriven, dead.stats().sent), (0, 0));
    }
}

#[test]
fn a_dead_letter_knows_its_source_reason_and_times() {
    let (source, dead, hand) = pair(QueueConfig::new("source"), QueueConfig::new("dead"));
    source
        .set_dead_letters(DeadLetterPolicy::to_queue(&dead, 2))
        .unwrap();
    let mut attributes = Attributes::new();
    attributes.insert("seats", 149).unwrap();
    let sent = source
        .try_send(Message::new(7).attributes(attributes.clone()))
        .unwrap();
    hand.advance(secs(10));
    abandon(source.try_receive().unwrap());
    hand.advance(secs(40));
    source.try_receive().unwrap().release().unwrap();
    hand.advance(secs(5));
    let letter = dead.try_receive().unwrap();
    let origin = letter.dead_letter().unwrap();
    assert_eq!(
        (origin.source(), origin.reason()),
        ("source", DeadLetterReason::MaxReceives)
    );
    assert_eq!(
        (origin.receive_count(), origin.died_at()),
        (2, START + secs(50))
    );
    assert_eq!((letter.id(), letter.sent_at()), (sent.id, START));
    assert_eq!(*letter.attributes(), attributes);
    // It is received here for the first time.
    assert_eq!(
        (letter.receive_count(), letter.first_received_at()),
        (1, START + secs(55))
    );
}

#[test]
fn a_fifo_dead_letter_keeps_its_id_and_group_and_starts_a_new_retention() {
    let (source, dead, hand) = pair(
        QueueConfig::fifo("source"),
        QueueConfig {
            retention: Some(secs(60)),
            ..QueueConfig::fifo("dead")
        },
    );
    source
        .set_dead_letters(DeadLetterPolicy::to_queue(&dead, 1))
        .unwrap();
    let sent = source.try_send(of("N14228", 7)).unwrap();
    hand.advance(secs(59));
    source.try_receive().unwrap().release().unwrap();
    hand.advance(secs(59));
    let letter = dead.try_receive().unwrap();
    assert_eq!(
        (letter.id(), letter.group()),
        (sent.id, Some(&group("N14228")))
    );
    assert_eq!(letter.sent_at(), START + secs(59));
    letter.release().unwrap();
    hand.advance(secs(1));
    assert_eq!(dead.stats().expired, 1);
}

#[test]
fn a_standard_dead_letter_keeps_the_retention_of_its_first_sending() {
    let (source, dead, hand) = pair(
        QueueConfig::new("source"),
        QueueConfig {
            retention: Some(secs(60)),
            ..QueueConfig::new("dead")
        },
    );
    source
        .set_dead_letters(DeadLetterPolicy::to_queue(&dead, 1))
        .unwrap();
    source.try_send(7).unwrap();
    hand.advance(secs(50));
    source.try_receive().unwrap().release().unwrap();
    assert_eq!(dead.stats().visible, 1);
    hand.advance(secs(10));
    assert_eq!(dead.try_receive().unwrap_err(), TryReceiveError::Empty);
    assert_eq!(dead.stats().expired, 1);
}

#[test]
fn a_dead_letter_frees_its_group() {
    let (source, dead, _) = pair(QueueConfig::fifo("source"), QueueConfig::fifo("dead"));
    source
        .set_dead_letters(DeadLetterPolicy::to_queue(&dead, 1))
        .unwrap();
    source.try_send(of("a", 1)).unwrap();
    source.try_send(of("a", 2)).unwrap();
    let mut waiting = {
        let first = source.try_receive().unwrap();
        let waiting = Task::waiting(source.receive());
        first.release().unwrap();
        waiting
    };
    let second = waiting.run().unwrap().unwrap();
    assert_eq!((*second, drain(&dead)), (2, vec![1]));
}

#[test]
fn a_dead_letter_wakes_a_receiver_that_waits_at_its_queue() {
    for (source, dead, hand) in each_kind(1) {
        let mut waiting = Task::waiting(dead.receive());
        source.try_send(any(&source, 7)).unwrap();
        abandon(source.try_receive().unwrap());
        hand.advance(secs(30));
        source.advance();
        assert_eq!(*waiting.run().unwrap().unwrap(), 7);
    }
}

#[test]
fn a_dead_letter_waits_for_the_last_delivery_that_looks_at_it() {
    for (source, dead, hand) in each_kind(2) {
        source.try_send(any(&source, 7)).unwrap();
        let old = source.try_receive().unwrap();
        hand.advance(secs(30));
        source.try_receive().unwrap().release().unwrap();
        assert_eq!(dead.stats().sent, 0);
        reconcile(&source);
        assert_eq!(*old, 7);
        assert_eq!(old.acknowledge(), Err(Stale));
        assert_eq!(drain(&dead), [7]);
        reconcile(&source);
    }
}

#[test]
fn a_policy_that_came_later_holds_for_leases_that_end_later() {
    let (source, dead, _) = pair(QueueConfig::new("source"), QueueConfig::new("dead"));
    source.try_send(7).unwrap();
    source.try_receive().unwrap().release().unwrap();
    let second = source.try_receive().unwrap();
    source
        .set_dead_letters(DeadLetterPolicy::to_queue(&dead, 1))
        .unwrap();
    second.release().unwrap();
    assert_eq!(drain(&dead), [7]);
}

#[test]
fn without_its_policy_a_queue_delivers_for_ever_again() {
    for (source, dead, _) in each_kind(2) {
        source.try_send(any(&source, 7)).unwrap();
        source.try_receive().unwrap().release().unwrap();
        source.clear_dead_letters();
        for n in 2..10 {
            let delivery = source.try_receive().unwrap();
            assert_eq!(delivery.receive_count(), n);
            delivery.release().unwrap();
        }
        assert_eq!(dead.stats().sent, 0);
    }
}

#[test]
fn a_dead_letter_queue_has_dead_letters_of_its_own() {
    let (source, dead, hand) = pair(QueueConfig::new("source"), QueueConfig::new("dead"));
    let last = Queue::with_clock(QueueConfig::new("last"), dead.clock().clone()).unwrap();
    source
        .set_dead_letters(DeadLetterPolicy::to_queue(&dead, 1))
        .unwrap();
    dead.set_dead_letters(DeadLetterPolicy::to_queue(&last, 1))
        .unwrap();
    let sent = source.try_send(7).unwrap();
    drop(source.try_receive().unwrap());
    hand.advance(secs(1));
    drop(dead.try_receive().unwrap());
    let letter = last.try_receive().unwrap();
    assert_eq!(letter.dead_letter().unwrap().source(), "dead");
    assert_eq!((letter.id(), letter.sent_at()), (sent.id, START));
}

#[test]
fn a_queue_takes_dead_letters_of_those_that_its_allow_policy_names() {
    let named = RedriveAllow::Sources(vec!["other".into(), "source".into()]);
    let stranger = RedriveAllow::Sources(vec!["other".into()]);
    for (allow, taken) in [
        (RedriveAllow::All, true),
        (RedriveAllow::Nobody, false),
        (named, true),
        (stranger, false),
    ] {
        let (source, dead, _) = pair(
            QueueConfig::new("source"),
            QueueConfig {
                redrive_allow: allow,
                ..QueueConfig::new("dead")
            },
        );
        let outcome = source.set_dead_letters(DeadLetterPolicy::to_queue(&dead, 1));
        let refusal = PolicyError::NotAllowed {
            target: "dead".into(),
            source_name: "source".into(),
        };
        assert_eq!(outcome, if taken { Ok(()) } else { Err(refusal) });
        source.try_send(7).unwrap();
        drop(source.try_receive().unwrap());
        assert_eq!(dead.stats().sent, u64::from(taken));
    }
}

#[test]
fn a_fifo_queue_and_its_dead_letter_queue_are_both_fifo() {
    for (source, dead) in [
        (QueueConfig::new("a"), QueueConfig::fifo("b")),
        (QueueConfig::fifo("a"), QueueConfig::new("b")),
        (QueueConfig::fair("a"), QueueConfig::fifo("b")),
    ] {
        let (source, dead, _) = pair(source, dead);
        let outcome = source.set_dead_letters(DeadLetterPolicy::to_queue(&dead, 1));
        assert_eq!(outcome, Err(PolicyError::KindMismatch));
    }
    let (standard, fair, _) = pair(QueueConfig::new("a"), QueueConfig::fair("b"));
    assert!(
        fair.set_dead_letters(DeadLetterPolicy::to_queue(&standard, 1))
            .is_ok()
    );
}

#[test]
fn a_queue_is_not_its_own_dead_letter_queue() {
    let (queue, _) = queue(QueueConfig::new("q"));
    let outcome = queue.set_dead_letters(DeadLetterPolicy::to_queue(&queue, 1));
    assert_eq!(outcome, Err(PolicyError::Itself));
}

#[test]
fn max_receives_lies_between_one_and_a_thousand() {
    let (source, dead, _) = pair(QueueConfig::new("source"), QueueConfig::new("dead"));
    for (value, taken) in [(0, false), (1, true), (1000, true), (1001, false)] {
        let outcome = source.set_dead_letters(DeadLetterPolicy::to_queue(&dead, value));
        let refusal = PolicyError::MaxReceives { value, limit: 1000 };
        assert_eq!(outcome, if taken { Ok(()) } else { Err(refusal) });
    }
}

// ---- sinks -------------------------------------------------------------------------------------------

#[test]
fn a_sink_gets_the_letter_with_all_that_is_known_of_it() {
    let (source, hand) = queue(QueueConfig::fifo("source"));
    let shelf = Shelf::with_room(10);
    let sink: Arc<dyn Sink<DeadLetter<u32>>> = Arc::<Shelf>::clone(&shelf);
    source
        .set_dead_letters(DeadLetterPolicy::to_sink(sink, 1))
        .unwrap();
    hand.advance(secs(1));
    let sent = source.try_send(of("a", 7)).unwrap();
    hand.advance(secs(2));
    abandon(source.try_receive().unwrap());
    hand.advance(secs(30));
    source.advance();
    let letters = shelf.letters.lock().unwrap();
    let [letter] = &letters[..] else {
        panic!("one letter")
    };
    assert_eq!((letter.message.value, letter.id), (7, sent.id));
    assert_eq!(letter.message.group_id(), Some(&group("a")));
    assert_eq!(
        (letter.reason, letter.receive_count),
        (DeadLetterReason::MaxReceives, 1)
    );
    assert_eq!(
        (letter.source.as_str(), letter.sent_at),
        ("source", START + secs(1))
    );
    assert_eq!(letter.first_received_at, Some(START + secs(3)));
    assert_eq!(letter.died_at, START + secs(33));
}

#[test]
fn a_refused_letter_stays_and_is_offered_again_each_second() {
    for config in [
        QueueConfig::new("q"),
        QueueConfig::fair("q"),
        QueueConfig::fifo("q"),
    ] {
        let (source, hand) = queue(config);
        let shelf = Shelf::with_room(0);
        let sink: Arc<dyn Sink<DeadLetter<u32>>> = Arc::<Shelf>::clone(&shelf);
        source
            .set_dead_letters(DeadLetterPolicy::to_sink(sink, 1))
            .unwrap();
        source.try_send(any(&source, 7)).unwrap();
        drop(source.try_receive().unwrap());
        for offers in 1..=5 {
            assert_eq!(shelf.offers.load(Ordering::SeqCst), offers);
            let stats = source.stats();
            assert_eq!((stats.in_flight, stats.redriven), (1, 0));
            reconcile(&source);
            hand.advance(secs(1));
            source.advance();
        }
        shelf.room.store(1, Ordering::SeqCst);
        hand.advance(secs(1));
        source.advance();
        assert_eq!(shelf.taken(), [7]);
        let stats = source.stats();
        assert_eq!((stats.in_flight, stats.redriven), (0, 1));
        hand.advance(secs(60));
        source.advance();
        assert_eq!(source.next_deadline(), None);
        assert_eq!(shelf.taken(), [7]);
        reconcile(&source);
    }
}

#[test]
fn refused_letters_are_offered_in_the_order_of_their_deaths() {
    let (source, hand) = queue(QueueConfig::new("q"));
    let shelf = Shelf::with_room(0);
    let sink: Arc<dyn Sink<DeadLetter<u32>>> = Arc::<Shelf>::clone(&shelf);
    source
        .set_dead_letters(DeadLetterPolicy::to_sink(sink, 1))
        .unwrap();
    for n in 0..5 {
        source.try_send(n).unwrap();
        drop(source.try_receive().unwrap());
    }
    for room in 1..=5 {
        shelf.room.store(room, Ordering::SeqCst);
        hand.advance(secs(1));
        source.advance();
        assert_eq!(source.stats().in_flight, 5 - room);
    }
    assert_eq!(shelf.taken(), [0, 1, 2, 3, 4]);
}

#[test]
fn a_full_dead_letter_queue_gets_its_letter_later() {
    for kind in [QueueConfig::new, QueueConfig::fair, QueueConfig::fifo] {
        let (source, dead, hand) = pair(
            kind("source".to_owned()),
            QueueConfig {
                capacity: Some(1),
                ..kind("dead".to_owned())
            },
        );
        source
            .set_dead_letters(DeadLetterPolicy::to_queue(&dead, 1))
            .unwrap();
        let mut ids = Vec::new();
        for n in 0..2 {
            ids.push(source.try_send(any(&source, n)).unwrap().id);
            hand.advance(secs(1));
        }
        source.try_receive().unwrap().release().unwrap();
        source.try_receive().unwrap().release().unwrap();
        assert_eq!((dead.stats().visible, source.stats().in_flight), (1, 1));
        let first = dead.try_receive().unwrap();
        assert_eq!((*first, first.id()), (0, ids[0]));
        first.acknowledge().unwrap();
        hand.advance(secs(1));
        source.advance();
        let second = dead.try_receive().unwrap();
        assert_eq!((*second, second.id()), (1, ids[1]));
        let origin = second.dead_letter().unwrap();
        assert_eq!(
            (origin.source(), origin.died_at()),
            ("source", START + secs(2))
        );
        reconcile(&source);
        reconcile(&dead);
    }
}

#[test]
fn refused_letters_wait_for_the_next_policy() {
    let (source, dead, hand) = pair(QueueConfig::new("source"), QueueConfig::new("dead"));
    let shelf = Shelf::with_room(0);
    source
        .set_dead_letters(DeadLetterPolicy::to_sink(shelf, 1))
        .unwrap();
    source.try_send(7).unwrap();
    drop(source.try_receive().unwrap());
    source.clear_dead_letters();
    hand.advance(secs(10));
    source.advance();
    assert_eq!(source.stats().in_flight, 1);
    source
        .set_dead_letters(DeadLetterPolicy::to_queue(&dead, 1))
        .unwrap();
    hand.advance(secs(1));
    source.advance();
    assert_eq!(drain(&dead), [7]);
    assert_eq!(source.stats().in_flight, 0);
}

#[test]
fn refused_letters_use_up_the_cap_in_flight() {
    let (source, hand) = queue(QueueConfig {
        max_in_flight: 2,
        ..QueueConfig::new("q")
    });
    let shelf = Shelf::with_room(0);
    let sink: Arc<dyn Sink<DeadLetter<u32>>> = Arc::<Shelf>::clone(&shelf);
    source
        .set_dead_letters(DeadLetterPolicy::to_sink(sink, 1))
        .unwrap();
    for n in 0..4 {
        source.try_send(n).unwrap();
    }
    for _ in 0..2 {
        drop(source.try_receive().unwrap());
    }
    assert_eq!(
        source.try_receive().unwrap_err(),
        TryReceiveError::OverLimit { limit: 2 }
    );
    shelf.room.store(10, Ordering::SeqCst);
    hand.advance(secs(1));
    assert_eq!(*source.try_receive().unwrap(), 2);
}

#[test]
fn a_purge_drops_refused_letters_too() {
    for config in [QueueConfig::new("q"), QueueConfig::fifo("q")] {
        let (source, _) = queue(config);
        source
            .set_dead_letters(DeadLetterPolicy::to_sink(Shelf::with_room(0), 1))
            .unwrap();
        source.try_send(any(&source, 7)).unwrap();
        drop(source.try_receive().unwrap());
        assert_eq!(source.stats().in_flight, 1);
        assert_eq!(source.purge(), 1);
        assert_eq!(source.stats().in_flight, 0);
        reconcile(&source);
    }
}

#[test]
fn a_sink_may_call_back_into_its_queue() {
    /// Sends what died again.
    struct Again(Queue<u32>);
    impl Sink<DeadLetter<u32>> for Again {
        fn try_deliver(&self, letter: DeadLetter<u32>) -> Result<(), Refused<DeadLetter<u32>>> {
            assert_eq!(self.0.stats().visible, 0);
            drop(self.0.try_send(letter.message.map(|value| value + 1)));
            Ok(())
        }
    }
    for config in [
        QueueConfig::new("q"),
        QueueConfig::fair("q"),
        QueueConfig::fifo("q"),
    ] {
        let (source, hand) = queue(config);
        let again = Arc::new(Again(source.clone()));
        source
            .set_dead_letters(DeadLetterPolicy::to_sink(again, 1))
            .unwrap();
        source.try_send(any(&source, 7)).unwrap();
        abandon(source.try_receive().unwrap());
        hand.advance(secs(30));
        source.advance();
        assert_eq!(*source.try_receive().unwrap(), 8);
        // The next one dies by its release.
        drop(source.try_receive());
        assert_eq!(source.stats().visible, 1);
        source.clear_dead_letters();
    }
}

// ---- move tasks --------------------------------------------------------------------------------------

/// A source whose messages `0..n` have died.
fn buried(n: u32) -> (Queue<u32>, Queue<u32>, VirtualClock) {
    let (source, dead, hand) = pair(QueueConfig::new("source"), QueueConfig::new("dead"));
    source
        .set_dead_letters(DeadLetterPolicy::to_queue(&dead, 1))
        .unwrap();
    bury(&source, 0..n);
    (source, dead, hand)
}

fn bury(source: &Queue<u32>, values: impl IntoIterator<Item = u32>) {
    for value in values {
        source.try_send(any(source, value)).unwrap();
        source.try_receive().unwrap().release().unwrap();
    }
}

#[test]
fn a_move_task_brings_dead_letters_back_to_their_source() {
    let (source, dead, hand) = buried(5);
    hand.advance(secs(100));
    let task = dead.start_move(MoveTask::default()).unwrap();
    let progress = task.progress();
    assert_eq!(
        (progress.status, progress.moved, progress.to_move),
        (MoveStatus::Running, 0, 5)
    );
    let end = task.run_blocking();
    assert_eq!(
        (end.status, end.moved, end.failure.clone()),
        (MoveStatus::Completed, 5, None)
    );
    assert_eq!(task.next_step(), None);
    let stats = dead.stats();
    assert_eq!((stats.visible, stats.in_flight, stats.moved), (0, 0, 5));
    // What comes back counts as new.
    let first = source.try_receive().unwrap();
    assert_eq!(
        (*first, first.receive_count(), first.sent_at()),
        (0, 1, START + secs(100))
    );
    assert!(first.dead_letter().is_none());
    first.acknowledge().unwrap();
    assert_eq!(drain(&source), [1, 2, 3, 4]);
    reconcile(&source);
    reconcile(&dead);
}

#[test]
fn a_move_task_keeps_a_rate() {
    let (source, dead, hand) = buried(5);
    let task = MoveTask {
        max_per_second: Some(2),
        ..MoveTask::default()
    };
    let task = dead.start_move(task).unwrap();
    assert_eq!(task.step().moved, 1);
    assert_eq!(task.step().moved, 1);
    let mut at = Vec::new();
    while let Some(next) = task.next_step() {
        hand.advance_to(next);
        task.step();
        at.push(hand.now() - Instant::ORIGIN);
    }
    let half = secs(1) / 2;
    assert_eq!(at, [half, half * 2, half * 3, half * 4]);
    assert_eq!(task.progress().status, MoveStatus::Completed);
    assert_eq!(source.stats().visible, 5);
}

#[test]
fn a_move_task_runs_as_a_future_at_its_rate() {
    let (source, dead, hand) = buried(3);
    let task = MoveTask {
        max_per_second: Some(1),
        ..MoveTask::default()
    };
    let handle = dead.start_move(task).unwrap();
    let mut run = Task::waiting(handle.run());
    for moved in 2..=3 {
        hand.advance(secs(1));
        let end = run.run();
        assert_eq!(source.stats().visible, moved);
        assert_eq!(
            end.map(|end| end.status),
            (moved == 3).then_some(MoveStatus::Completed)
        );
    }
}

#[test]
fn a_move_task_runs_on_a_blocked_thread_at_its_rate() {
    let (source, dead, hand) = buried(3);
    let task = MoveTask {
        max_per_second: Some(1),
        ..MoveTask::default()
    };
    let handle = dead.start_move(task).unwrap();
    std::thread::scope(|scope| {
        let runner = scope.spawn(|| handle.run_blocking());
        for _ in 0..2 {
            until_asleep(&hand, 1);
            hand.advance_to_next();
        }
        assert_eq!(
            runner.join().expect("no panic").status,
            MoveStatus::Completed
        );
    });
    assert_eq!(source.stats().visible, 3);
}

#[test]
fn a_run_until_a_deadline_tells_how_far_it_came_and_goes_on_later() {
    let (_source, dead, hand) = buried(3);
    let task = MoveTask {
        max_per_second: Some(1),
        ..MoveTask::default()
    };
    let handle = dead.start_move(task).unwrap();
    let mut run = Task::waiting(handle.run_until(Instant::ORIGIN + secs(1) + secs(1) / 2));
    hand.advance(secs(1));
    assert!(run.run().is_none());
    hand.advance(secs(1) / 2);
    let so_far = run.run().unwrap().unwrap_err();
    assert_eq!(so_far.status, MoveStatus::Running);
    drop(run);
    assert_eq!(dead.stats().visible + so_far.moved, 3);
    let mut run = Task::new(handle.run());
    assert!(run.poll().is_none_or(|end| end.moved == 3));
    hand.advance(secs(10));
    assert_eq!(handle.step().moved, 3);
}

#[test]
fn a_move_task_without_a_rate_needs_no_runtime_however_long_it_is() {
    let (source, dead, _) = buried(5000);
    let handle = dead.start_move(MoveTask::default()).unwrap();
    assert_eq!(block_on(handle.run()).moved, 5000);
    assert_eq!(source.stats().visible, 5000);
}

#[test]
fn one_step_moves_a_bounded_number_of_messages() {
    let (_source, dead, _) = buried(2000);
    let handle = dead.start_move(MoveTask::default()).unwrap();
    let progress = handle.step();
    assert_eq!(
        (progress.status, progress.moved),
        (MoveStatus::Running, 1024)
    );
}

#[test]
fn a_cancelled_task_keeps_what_it_moved() {
    let (source, dead, _) = buried(3);
    let task = MoveTask {
        max_per_second: Some(1),
        ..MoveTask::default()
    };
    let handle = dead.start_move(task).unwrap();
    let mut run = Task::waiting(handle.run());
    let progress = handle.cancel();
    assert_eq!(
        (progress.status, progress.moved),
        (MoveStatus::Cancelled, 1)
    );
    assert_eq!(run.run().unwrap().status, MoveStatus::Cancelled);
    assert_eq!(handle.step().moved, 1);
    assert_eq!((source.stats().visible, dead.stats().visible), (1, 2));
    assert!(dead.start_move(MoveTask::default()).is_ok());
}

#[test]
fn a_dropped_handle_cancels_its_task() {
    let (_source, dead, _) = buried(3);
    drop(dead.start_move(MoveTask::default()).unwrap());
    assert_eq!(dead.move_tasks()[0].status, MoveStatus::Cancelled);
    assert!(dead.start_move(MoveTask::default()).is_ok());
}

#[test]
fn a_queue_runs_one_task_at_a_time() {
    let (_source, dead, _) = buried(3);
    let first = dead.start_move(MoveTask::default()).unwrap();
    assert_eq!(
        dead.start_move(MoveTask::default()).unwrap_err(),
        MoveError::Running
    );
    assert_eq!(first.run_blocking().moved, 3);
    // Done, though its handle lives on.
    assert!(dead.start_move(MoveTask::default()).is_ok());
}

#[test]
fn a_queue_lists_its_last_ten_tasks_the_newest_first() {
    let (_source, dead, _) = buried(0);
    for _ in 0..11 {
        dead.start_move(MoveTask::default()).unwrap().run_blocking();
    }
    let last = dead.start_move(MoveTask::default()).unwrap();
    let list = dead.move_tasks();
    assert_eq!(list.len(), 10);
    assert_eq!(list[0].status, MoveStatus::Running);
    assert!(
        list[1..]
            .iter()
            .all(|task| task.status == MoveStatus::Completed)
    );
    drop(last);
}

#[test]
fn a_rate_lies_within_its_limits() {
    let config = QueueConfig {
        limits: Limits {
            message_bytes: None,
            ..Limits::aws()
        },
        ..QueueConfig::new("dead")
    };
    let (dead, _) = queue(config);
    for (value, taken) in [(0, false), (1, true), (500, true), (501, false)] {
        let outcome = dead.start_move(MoveTask {
            max_per_second: Some(value),
            ..MoveTask::default()
        });
        match outcome {
            Ok(_) => assert!(taken),
            Err(error) => {
                assert!(!taken);
                assert_eq!(error, MoveError::Rate { value, limit: 500 });
            }
        }
    }
}

#[test]
fn dead_letters_of_several_sources_go_back_each_to_its_own() {
    let (one, dead, _) = pair(QueueConfig::new("one"), QueueConfig::new("dead"));
    let two = Queue::with_clock(QueueConfig::new("two"), dead.clock().clone()).unwrap();
    for source in [&one, &two] {
        source
            .set_dead_letters(DeadLetterPolicy::to_queue(&dead, 1))
            .unwrap();
    }
    bury(&one, [1]);
    bury(&two, [2]);
    bury(&one, [3]);
    let end = dead.start_move(MoveTask::default()).unwrap().run_blocking();
    assert_eq!((end.status, end.moved), (MoveStatus::Completed, 3));
    assert_eq!((drain(&one), drain(&two)), (vec![1, 3], vec![2]));
}

#[test]
fn a_task_with_a_destination_takes_the_messages_there() {
    let (source, dead, _) = buried(3);
    let other: Queue<u32> =
        Queue::with_clock(QueueConfig::new("other"), dead.clock().clone()).unwrap();
    let task = MoveTask {
        destination: Some(Arc::new(other.clone())),
        ..MoveTask::default()
    };
    assert_eq!(dead.start_move(task).unwrap().run_blocking().moved, 3);
    assert_eq!((source.stats().visible, drain(&other)), (0, vec![0, 1, 2]));
}

#[test]
fn a_task_waits_for_a_full_destination() {
    let (source, dead, hand) = buried(3);
    let other: Queue<u32> = Queue::with_clock(
        QueueConfig {
            capacity: Some(1),
            ..QueueConfig::new("other")
        },
        dead.clock().clone(),
    )
    .unwrap();
    let task = MoveTask {
        destination: Some(Arc::new(other.clone())),
        ..MoveTask::default()
    };
    let handle = dead.start_move(task).unwrap();
    let mut run = Task::waiting(handle.run());
    let mut got = Vec::new();
    for _ in 0..3 {
        got.extend(drain(&other));
        hand.advance(secs(1));
        drop(run.run());
        reconcile(&dead);
    }
    got.extend(drain(&other));
    got.sort_unstable();
    assert_eq!(got, [0, 1, 2]);
    assert_eq!(handle.step().status, MoveStatus::Completed);
    assert_eq!(source.stats().visible, 0);
}

/// Takes nothing.
struct Never;

impl Sink<Message<u32>> for Never {
    fn try_deliver(&self, message: Message<u32>) -> Result<(), Refused<Message<u32>>> {
        Err(Refused::rejected(message, "never"))
    }
}

#[test]
fn a_task_fails_when_its_destination_rejects_and_the_message_stays() {
    let (_source, dead, hand) = buried(2);
    let ids: Vec<_> = take(&dead, 2).iter().map(Delivery::id).collect();
    hand.advance(secs(5));
    let task = MoveTask {
        destination: Some(Arc::new(Never)),
        ..MoveTask::default()
    };
    let end = dead.start_move(task).unwrap().run_blocking();
    assert_eq!((end.status, end.moved), (MoveStatus::Failed, 0));
    assert!(end.failure.unwrap().contains("never"));
    assert_eq!(dead.stats().visible, 2);
    reconcile(&dead);
    // As it was: its id, its time and where it came from.
    let letters = take(&dead, 2);
    let mut found: Vec<_> = letters.iter().map(Delivery::id).collect();
    found.sort_unstable();
    assert_eq!(found, ids);
    for letter in &letters {
        assert_eq!(letter.sent_at(), START);
        assert_eq!(letter.dead_letter().unwrap().source(), "source");
    }
    drop(letters);
    let end = dead.start_move(MoveTask::default()).unwrap().run_blocking();
    assert_eq!(end.moved, 2);
}

#[test]
fn a_task_fails_when_the_source_of_a_letter_is_closed() {
    let (source, dead, _) = buried(2);
    source.close(sim_queue::Close::Drain);
    let end = dead.start_move(MoveTask::default()).unwrap().run_blocking();
    assert_eq!((end.status, end.moved), (MoveStatus::Failed, 0));
    assert_eq!(dead.stats().visible, 2);
}

#[test]
fn a_task_fails_when_the_source_of_a_letter_is_no_more() {
    let (source, dead, _) = buried(2);
    drop(source);
    let end = dead.start_move(MoveTask::default()).unwrap().run_blocking();
    assert_eq!((end.status, end.moved), (MoveStatus::Failed, 0));
    assert_eq!(dead.stats().visible, 2);
    reconcile(&dead);
}

#[test]
fn a_task_without_a_destination_fails_on_what_is_no_dead_letter() {
    let (dead, _) = queue(QueueConfig::new("dead"));
    dead.try_send(7).unwrap();
    let end = dead.start_move(MoveTask::default()).unwrap().run_blocking();
    assert_eq!(end.status, MoveStatus::Failed);
    assert!(end.failure.unwrap().contains("no dead letter"));
    assert_eq!(drain(&dead), [7]);
}

#[test]
fn a_failed_move_out_of_a_draining_queue_loses_nothing() {
    for (source, dead) in [
        (QueueConfig::new("source"), QueueConfig::new("dead")),
        (QueueConfig::fifo("source"), QueueConfig::fifo("dead")),
    ] {
        let (source, dead, _) = pair(source, dead);
        source
            .set_dead_letters(DeadLetterPolicy::to_queue(&dead, 1))
            .unwrap();
        bury(&source, [7]);
        dead.close(sim_queue::Close::Drain);
        let task = MoveTask {
            destination: Some(Arc::new(Never)),
            ..MoveTask::default()
        };
        let end = dead.start_move(task).unwrap().run_blocking();
        assert_eq!(end.status, MoveStatus::Failed);
        assert_eq!(drain(&dead), [7]);
        reconcile(&dead);
    }
}

#[test]
fn a_task_that_finds_less_than_there_was_is_completed() {
    let (source, dead, _) = buried(3);
    let handle = dead.start_move(MoveTask::default()).unwrap();
    let held = take(&dead, 2);
    let end = handle.run_blocking();
    assert_eq!(
        (end.status, end.moved, end.to_move),
        (MoveStatus::Completed, 1, 3)
    );
    assert_eq!((values(&held), drain(&source)), (vec![0, 1], vec![2]));
}

#[test]
fn fifo_dead_letters_go_back_into_their_groups() {
    let (source, dead, _) = pair(QueueConfig::fifo("source"), QueueConfig::fifo("dead"));
    source
        .set_dead_letters(DeadLetterPolicy::to_queue(&dead, 1))
        .unwrap();
    for n in 0..6 {
        let message = of(format!("g{}", n % 2), n).deduplication_id(dedup(&n.to_string()));
        source.try_send(message).unwrap();
    }
    drop(take(&source, 10));
    assert_eq!(source.stats().redriven, 6);
    // Within the window of their ids: what the queue moves itself is no duplicate.
    let end = dead.start_move(MoveTask::default()).unwrap().run_blocking();
    assert_eq!((end.status, end.moved), (MoveStatus::Completed, 6));
    let (mut even, mut odd) = (Vec::new(), Vec::new());
    while let Ok(delivery) = source.try_receive() {
        assert_eq!(
            delivery.group(),
            Some(&group(format!("g{}", *delivery % 2)))
        );
        if *delivery % 2 == 0 {
            even.push(*delivery)
        } else {
            odd.push(*delivery)
        }
        delivery.acknowledge().unwrap();
    }
    assert_eq!((even, odd), (vec![0, 2, 4], vec![1, 3, 5]));
    reconcile(&source);
    reconcile(&dead);
}

#[test]
fn a_dropped_source_does_not_live_on_in_its_dead_letters() {
    /// Tells when it is dropped.
    struct Canary(Arc<AtomicU64>);
    impl Drop for Canary {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let drops = Arc::new(AtomicU64::new(0));
    let canary = || Canary(Arc::clone(&drops));
    let (clock, _) = Clock::virtual_at(START);
    let source: Queue<Canary> =
        Queue::with_clock(QueueConfig::new("source"), clock.clone()).unwrap();
    let dead = Queue::with_clock(QueueConfig::new("dead"), clock).unwrap();
    source
        .set_dead_letters(DeadLetterPolicy::to_queue(&dead, 1))
        .unwrap();
    source.try_send(canary()).unwrap();
    source.try_receive().unwrap().release().unwrap();
    source.try_send(canary()).unwrap();
    drop(source);
    // The one that waited went with its queue; the letter did not.
    assert_eq!(drops.load(Ordering::SeqCst), 1);
    assert_eq!(dead.stats().visible, 1);
    drop(dead);
    assert_eq!(drops.load(Ordering::SeqCst), 2);
}
