//! Wakers that call back, as those of an executor do that polls where it is woken.

use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::Duration;

use sim_core::seam::Gauge;
use sim_stream::{
    ConsumerGroup, GroupConfig, QueueConfig, Receive, Stream, StreamConfig, StreamQueue,
};

use crate::rig::{FIRST, hours, put, stream};

/// Calls something in another thread when it is woken, and counts how often that came back.
struct Calls {
    call: Box<dyn Fn() + Send + Sync>,
    woken: AtomicUsize,
    answered: AtomicUsize,
}

impl Wake for Calls {
    fn wake(self: Arc<Self>) {
        self.woken.fetch_add(1, Ordering::SeqCst);
        let (tell, told) = mpsc::channel();
        let calls = Arc::clone(&self);
        thread::spawn(move || {
            (calls.call)();
            // Nobody listens any more when it was late.
            let _ = tell.send(());
        });
        // It waits for long only where the call waits for who wakes.
        if told.recv_timeout(Duration::from_secs(5)).is_ok() {
            self.answered.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// Whether `call` can be made by whoever is woken by what `act` does, on a stream with a shard whose time is over.
#[track_caller]
fn can_call_back(
    stream: &Stream<u32>,
    age: impl FnOnce(),
    call: impl Fn() + Send + Sync + 'static,
    act: impl FnOnce(),
) {
    put(stream, 0);
    stream.split_evenly(FIRST).unwrap();
    // One that waits on another queue, which is told when the shard leaves.
    let other = stream.queue(QueueConfig::new("other")).unwrap();
    let calls = Arc::new(Calls {
        call: Box::new(call),
        woken: AtomicUsize::new(0),
        answered: AtomicUsize::new(0),
    });
    let waker = Waker::from(Arc::clone(&calls));
    let mut waiting = pin!(other.receive(Receive::default()));
    let polled = waiting.as_mut().poll(&mut Context::from_waker(&waker));
    assert!(polled.is_pending());
    age();
    assert_eq!(calls.woken.load(Ordering::SeqCst), 0);
    act();
    let woken = calls.woken.load(Ordering::SeqCst);
    assert!(woken > 0, "nobody was woken");
    assert_eq!(calls.answered.load(Ordering::SeqCst), woken);
}

#[test]
fn who_is_woken_by_a_call_of_a_queue_may_call_the_queue() {
    for act in [
        |queue: &StreamQueue<u32>| {
            let _ = queue.stats();
        },
        |queue: &StreamQueue<u32>| drop(queue.try_receive(Receive::default())),
        |queue: &StreamQueue<u32>| drop(queue.try_receive_dead_letters(Receive::default())),
        |queue: &StreamQueue<u32>| {
            queue.restore_all_dead_letters();
        },
    ] {
        let (stream, hand) = stream(StreamConfig::new("s"));
        let queue = stream.queue(QueueConfig::new("tasks")).unwrap();
        let again = queue.clone();
        can_call_back(
            &stream,
            || hand.advance(hours(25)),
            move || {
                let _ = again.stats();
            },
            || act(&queue),
        );
    }
}

#[test]
fn who_is_woken_by_the_depth_of_a_group_may_call_the_group() {
    let (stream, hand) = stream(StreamConfig::new("s"));
    let group = ConsumerGroup::new(&stream, GroupConfig::new("group")).unwrap();
    let again = group.clone();
    can_call_back(
        &stream,
        || hand.advance(hours(25)),
        move || drop(again.leases()),
        || {
            let _ = group.depth();
        },
    );
}
