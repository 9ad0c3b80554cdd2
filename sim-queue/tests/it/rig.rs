//! What the tests share: queues on a virtual clock, and tasks that are polled by hand.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use sim_core::clock::{Clock, VirtualClock};
use sim_core::time::Timestamp;
use sim_queue::{
    DeduplicationId, Delivery, GroupId, Message, Queue, QueueConfig, Receive, ReceiveAttemptId,
};

pub(crate) fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// When the virtual clocks of the tests begin.
pub(crate) const START: Timestamp = Timestamp::from_unix_millis(1_700_000_000_000);

pub(crate) fn queue(config: QueueConfig) -> (Queue<u32>, VirtualClock) {
    queue_of(config)
}

pub(crate) fn queue_of<T: Send + Sync + 'static>(config: QueueConfig) -> (Queue<T>, VirtualClock) {
    let (clock, hand) = Clock::virtual_at(START);
    (Queue::with_clock(config, clock).unwrap(), hand)
}

pub(crate) fn group(name: impl AsRef<str>) -> GroupId {
    GroupId::new(name).unwrap()
}

/// A message in a group.
pub(crate) fn of(name: impl AsRef<str>, value: u32) -> Message<u32> {
    Message::new(value).group(group(name))
}

pub(crate) fn dedup(id: &str) -> DeduplicationId {
    DeduplicationId::new(id).unwrap()
}

pub(crate) fn attempt(id: &str) -> ReceiveAttemptId {
    ReceiveAttemptId::new(id).unwrap()
}

pub(crate) fn at_most(max: usize) -> Receive {
    Receive {
        max,
        ..Receive::default()
    }
}

pub(crate) fn hidden_for(visibility: Duration) -> Receive {
    Receive {
        visibility_timeout: Some(visibility),
        ..Receive::default()
    }
}

/// Receives up to `max` messages, none included.
pub(crate) fn take<T: Send + Sync + 'static>(queue: &Queue<T>, max: usize) -> Vec<Delivery<T>> {
    queue.try_receive_with(&at_most(max)).unwrap_or_default()
}

/// The values of deliveries, which go back to the queue or stay with the caller as they were.
pub(crate) fn values<T: Copy + Send + Sync + 'static>(deliveries: &[Delivery<T>]) -> Vec<T> {
    deliveries.iter().map(|delivery| **delivery).collect()
}

/// Does as a consumer that died: the lease runs on, and nobody ends it.
pub(crate) fn abandon<T: Send + Sync + 'static>(delivery: Delivery<T>) {
    let _receipt = delivery.into_receipt();
}

/// Acknowledges each of them; every one must be current.
pub(crate) fn acknowledge_all<T: Send + Sync + 'static>(deliveries: Vec<Delivery<T>>) {
    for delivery in deliveries {
        assert!(delivery.acknowledge().is_ok());
    }
}

/// Receives and acknowledges all that is visible.
pub(crate) fn drain<T: Copy + Send + Sync + 'static>(queue: &Queue<T>) -> Vec<T> {
    let mut out = Vec::new();
    while let Ok(delivery) = queue.try_receive() {
        // An older delivery may hold the payload too, so that it does not come back.
        out.push(*delivery);
        delivery.acknowledge().unwrap();
    }
    out
}

/// What went in is somewhere: the identity that `Stats` documents.
#[track_caller]
pub(crate) fn reconcile<T: Send + Sync + 'static>(queue: &Queue<T>) {
    let s = queue.stats();
    let there = s.visible + s.in_flight + s.delayed;
    let gone = s.deleted + s.expired + s.redriven + s.moved + s.purged;
    assert_eq!(s.sent, there + gone, "{s:?}");
}

/// Whether the task was woken since it was last asked.
struct Flag {
    woken: AtomicBool,
    thread: Option<Thread>,
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Ordering::SeqCst);
        if let Some(thread) = &self.thread {
            thread.unpark();
        }
    }
}

/// A future that is polled by hand, without an executor.
pub(crate) struct Task<'a, R> {
    /// `None` when it has completed.
    future: Option<Pin<Box<dyn Future<Output = R> + 'a>>>,
    flag: Arc<Flag>,
    waker: Waker,
}

impl<'a, R> Task<'a, R> {
    /// A task that was polled once and waits.
    #[track_caller]
    pub(crate) fn waiting(future: impl Future<Output = R> + 'a) -> Self {
        let mut task = Self::new(future);
        assert!(task.poll().is_none(), "the task should wait");
        task
    }

    pub(crate) fn new(future: impl Future<Output = R> + 'a) -> Self {
        let flag = Arc::new(Flag {
            woken: AtomicBool::new(false),
            thread: None,
        });
        Self {
            future: Some(Box::pin(future)),
            waker: Waker::from(Arc::clone(&flag)),
            flag,
        }
    }

    pub(crate) fn poll(&mut self) -> Option<R> {
        match self
            .future
            .as_mut()?
            .as_mut()
            .poll(&mut Context::from_waker(&self.waker))
        {
            Poll::Ready(value) => {
                self.future = None;
                Some(value)
            }
            Poll::Pending => None,
        }
    }

    /// Polls as an executor does: only when the task was woken.
    pub(crate) fn run(&mut self) -> Option<R> {
        let mut polls = 0;
        while self.flag.woken.swap(false, Ordering::SeqCst) {
            polls += 1;
            assert!(polls < 1000, "the task wakes itself without an end");
            if let Some(value) = self.poll() {
                return Some(value);
            }
        }
        None
    }

    pub(crate) fn is_woken(&self) -> bool {
        self.flag.woken.load(Ordering::SeqCst)
    }
}

/// Runs a future on this thread, with no runtime around it.
pub(crate) fn block_on<R>(future: impl Future<Output = R>) -> R {
    let thread = Some(std::thread::current());
    let flag = Arc::new(Flag {
        woken: AtomicBool::new(true),
        thread,
    });
    let waker = Waker::from(Arc::clone(&flag));
    let mut future = std::pin::pin!(future);
    loop {
        if flag.woken.swap(false, Ordering::SeqCst)
            && let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker))
        {
            return value;
        }
        if !flag.woken.load(Ordering::SeqCst) {
            std::thread::park();
        }
    }
}

/// Waits until another thread sleeps on the clock.
pub(crate) fn until_asleep(hand: &VirtualClock, sleepers: usize) {
    while hand.sleeping() < sleepers {
        std::thread::yield_now();
    }
}
