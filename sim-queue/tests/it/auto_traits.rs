//! What the types promise: `Send`, `Sync`, `Unpin`, payloads that are not `Clone`, futures that move.

use std::cell::Cell;
use std::sync::Arc;

use sim_queue::{
    DeadLetter, DeadLetterPolicy, Deliveries, Delivery, Message, MoveHandle, Queue, QueueConfig,
    Receipt, Receive, Sending, Sent, Stats,
};

use crate::rig::{block_on, queue_of, secs};

/// A payload that can be neither cloned nor printed nor defaulted.
struct Bare(u32);

fn is_send<T: Send>() {}
fn is_sync<T: Sync>() {}
fn is_unpin<T: Unpin>() {}
fn is_static<T: 'static>() {}
fn sends<T: Send>(value: T) -> T {
    value
}

#[test]
fn handles_deliveries_and_streams_go_between_threads() {
    is_send::<Queue<Bare>>();
    is_sync::<Queue<Bare>>();
    is_send::<Delivery<Bare>>();
    is_sync::<Delivery<Bare>>();
    is_send::<Message<Bare>>();
    is_send::<DeadLetter<Bare>>();
    is_send::<DeadLetterPolicy<Bare>>();
    is_send::<MoveHandle<Bare>>();
    is_sync::<MoveHandle<Bare>>();
    is_send::<Deliveries<Bare>>();
    is_send::<Sending<Bare>>();
    is_send::<Receipt>();
    is_sync::<Receipt>();
    is_send::<Stats>();
    is_static::<Delivery<Bare>>();
    // A message may hold what is not Sync; only a queue asks for that.
    is_send::<Message<Cell<u32>>>();
    let (queue, _) = queue_of::<Bare>(QueueConfig::new("q"));
    queue.try_send(Bare(7)).unwrap();
    let delivery = queue.try_receive().unwrap();
    let value = std::thread::scope(|scope| {
        let thread = scope.spawn(move || delivery.acknowledge().unwrap().unwrap());
        thread.join().expect("no panic")
    });
    assert_eq!(value.0, 7);
}

#[test]
fn nothing_that_is_held_needs_pinning() {
    is_unpin::<Queue<Bare>>();
    is_unpin::<Delivery<Bare>>();
    is_unpin::<Deliveries<Bare>>();
    is_unpin::<Sending<Bare>>();
    is_unpin::<Sending<std::marker::PhantomPinned>>();
    is_unpin::<MoveHandle<Bare>>();
    let (queue, _) = queue_of::<Bare>(QueueConfig::new("q"));
    queue.try_send(Bare(7)).unwrap();
    let mut stream = queue.stream();
    let next = block_on(std::future::poll_fn(|cx| {
        futures_util::Stream::poll_next(std::pin::Pin::new(&mut stream), cx)
    }));
    assert!(next.is_some_and(|delivery| delivery.is_ok_and(|delivery| delivery.0 == 7)));
}

#[test]
fn every_future_goes_between_threads() {
    let (queue, hand) = queue_of::<Bare>(QueueConfig::new("q"));
    let soon = hand.now() + secs(1);
    let ask = Receive::default();
    assert!(block_on(sends(queue.send(Bare(1)))).is_ok());
    assert!(block_on(sends(queue.send_until(Bare(2), soon))).is_ok());
    assert!(block_on(sends(queue.receive())).is_ok_and(|delivery| delivery.0 == 1));
    assert!(block_on(sends(queue.receive_until(soon))).is_ok());
    assert!(block_on(sends(queue.receive_with(&ask))).is_ok());
    assert!(block_on(sends(queue.receive_with_until(&ask, soon))).is_ok());
    assert_eq!(block_on(sends(queue.send_batch([Bare(3)]))).len(), 1);
    assert_eq!(
        block_on(sends(queue.send_batch_until([Bare(3)], soon))).len(),
        1
    );
    assert_eq!(
        block_on(sends(queue.send_values(&mut vec![Bare(4)]))),
        Ok(1)
    );
    drop(sends(queue.drained()));
    let task = queue.start_move(sim_queue::MoveTask::default()).unwrap();
    drop(sends(task.run()));
    drop(sends(task.run_until(soon)));
}

#[test]
fn a_payload_needs_no_clone_and_comes_back_as_it_was() {
    let (queue, _) = queue_of::<Box<Bare>>(QueueConfig::new("q"));
    let payload = Box::new(Bare(7));
    let address: *const Bare = &*payload;
    queue.try_send(payload).unwrap();
    let back = queue.try_receive().unwrap().acknowledge().unwrap().unwrap();
    assert!(
        std::ptr::eq(address, &*back),
        "the payload was moved, not copied"
    );
}

#[test]
fn a_queue_of_trait_objects_is_a_queue() {
    type Job = Box<dyn Fn() -> u32 + Send + Sync>;
    let (queue, _) = queue_of::<Job>(QueueConfig::new("q"));
    queue.try_send(Box::new(|| 42_u32) as Job).unwrap();
    assert_eq!(queue.try_receive().unwrap()(), 42);
}

#[test]
fn a_queue_of_nothing_counts() {
    let (queue, _) = queue_of::<()>(QueueConfig::new("q"));
    for _ in 0..10 {
        queue.try_send(()).unwrap();
    }
    assert_eq!(queue.stats().visible, 10);
    assert_eq!(queue.try_receive().unwrap().acknowledge(), Ok(Some(())));
}

#[test]
fn handles_are_the_same_queue_and_cheap() {
    let (queue, _) = queue_of::<u32>(QueueConfig::new("q"));
    let other = queue.clone();
    other.try_send(7).unwrap();
    assert_eq!(*queue.try_receive().unwrap(), 7);
    assert!(size_of::<Queue<[u8; 4096]>>() <= 32);
    assert!(size_of::<Delivery<[u8; 4096]>>() <= 64);
}

#[test]
fn a_message_without_headers_costs_three_words_more_than_its_payload() {
    // Room for a group, which then costs no allocation.
    assert_eq!(size_of::<Message<u64>>(), 32);
    assert!(size_of::<Sent>() <= 48);
}

#[test]
fn deliveries_and_receipts_outlive_every_handle() {
    let (queue, _) = queue_of::<Arc<u32>>(QueueConfig::new("q"));
    let payload = Arc::new(7);
    queue.try_send(Arc::clone(&payload)).unwrap();
    queue.try_send(Arc::clone(&payload)).unwrap();
    let delivery = queue.try_receive().unwrap();
    drop(queue);
    // A delivery pins the queue's memory, and what waits there goes with it.
    assert_eq!((**delivery, Arc::strong_count(&payload)), (7, 3));
    assert!(delivery.acknowledge().is_ok());
    assert_eq!(Arc::strong_count(&payload), 1);
}

#[test]
fn the_debug_forms_say_what_they_are() {
    let (queue, _) = queue_of::<u32>(QueueConfig::new("orders"));
    queue.try_send(7).unwrap();
    assert!(format!("{queue:?}").contains("orders"));
    let delivery = queue.try_receive().unwrap();
    assert!(format!("{delivery:?}").contains('7'));
    assert!(format!("{:?}", Message::new(7)).contains('7'));
    assert!(format!("{:?}", queue.stream()).starts_with("Deliveries"));
    assert!(format!("{:?}", queue.sink()).starts_with("Sending"));
}

type Call = Arc<dyn Fn() + Send + Sync>;

/// Calls its queue when it is dropped, as a payload may that holds a handle.
struct Nosy {
    call: Arc<std::sync::Mutex<Option<Call>>>,
    drops: Arc<std::sync::atomic::AtomicU64>,
}

impl Drop for Nosy {
    fn drop(&mut self) {
        let call = self.call.lock().unwrap().clone();
        if let Some(call) = call {
            call();
        }
        self.drops.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    }
}

#[test]
fn a_payload_may_call_its_queue_when_it_is_dropped() {
    for config in [
        QueueConfig::new("q"),
        QueueConfig::fair("q"),
        QueueConfig::fifo("q"),
    ] {
        let is_standard = config.kind == sim_queue::Kind::Standard;
        let config = QueueConfig {
            retention: Some(secs(60)),
            capacity: Some(10),
            ..config
        };
        let (queue, hand) = queue_of::<Nosy>(config);
        let drops = Arc::default();
        let home = Arc::new(std::sync::Mutex::new(None::<Call>));
        let called = queue.clone();
        // Both take whatever locks the queue has.
        *home.lock().unwrap() = Some(Arc::new(move || {
            let _ = called.stats();
            called.advance();
        }));
        let send = || {
            let message = Message::new(Nosy {
                call: Arc::clone(&home),
                drops: Arc::clone(&drops),
            });
            let message = if is_standard {
                message
            } else {
                message.group(crate::rig::group("g"))
            };
            queue.try_send(message).is_ok()
        };
        let dropped = || drops.load(std::sync::atomic::Ordering::SeqCst);
        // By an acknowledgement, one that waits and one that is in flight by a purge.
        assert!(send() && send() && send());
        drop(queue.try_receive().unwrap().acknowledge());
        assert_eq!(dropped(), 1);
        let held = queue.try_receive().unwrap();
        assert_eq!(queue.purge(), 2);
        drop(held);
        assert_eq!(dropped(), 3);
        // By the retention: of what waits, and of what is in flight.
        assert!(send() && send());
        crate::rig::abandon(queue.try_receive().unwrap());
        hand.advance(secs(60));
        assert!(queue.try_receive().is_err());
        assert_eq!((dropped(), queue.stats().expired), (5, 2));
        // By a refusal.
        for _ in 0..10 {
            assert!(send());
        }
        assert!(!send());
        assert_eq!(dropped(), 6);
        // By the end of the queue.
        queue.close(sim_queue::Close::Drop);
        assert_eq!(dropped(), 16);
        *home.lock().unwrap() = None;
    }
}
