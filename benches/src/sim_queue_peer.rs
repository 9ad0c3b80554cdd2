//! The peers made of sim-queue: each message is sent, received and acknowledged, with its lease tracked.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use sim_queue::{
    Close, Delivery, GroupId, Kind, Message, Queue, QueueConfig, ReceiveError, TryReceiveError,
};

use crate::memory::Store;
use crate::pattern::{BATCH, Bound, CAPACITY, Peer, Shape};
use crate::payload::{Payload, Tally};
use crate::rivals::{task_batch_peer, task_peer, thread_batch_peer, thread_peer};
use crate::tasks::{TaskBatchReceiver, TaskBatchSender, TaskReceiver, TaskSender};
use crate::threads::{ThreadBatchReceiver, ThreadBatchSender, ThreadReceiver, ThreadSender};

/// Groups of a FIFO queue's messages.
const GROUPS: usize = 1000;

/// The groups, named once: a program has their names at hand, as a flight has its aircraft's.
fn group_of(number: u64) -> GroupId {
    static GROUP_IDS: OnceLock<Vec<GroupId>> = OnceLock::new();
    let groups = GROUP_IDS.get_or_init(|| {
        let named = |number: usize| GroupId::new(format!("group-{number}"));
        (0..GROUPS)
            .map(named)
            .collect::<Result<_, _>>()
            .expect("the names are within their limits")
    });
    groups[number as usize % GROUPS].clone()
}

/// A sender's handle: the last one to go closes the queue, which drains.
struct Sending<T: Send + Sync + 'static> {
    queue: Queue<T>,
    left: Arc<AtomicUsize>,
}

impl<T: Send + Sync + 'static> Drop for Sending<T> {
    fn drop(&mut self) {
        // What the other senders sent comes before their decrements (release) and so before the close (acquire).
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.queue.close(Close::Drain);
        }
    }
}

/// A sender's handle that spreads its messages over the groups.
struct Grouping<T: Send + Sync + 'static>(Sending<T>);

/// A receiver's handle, with room for the deliveries of a batch.
struct Receiving<T: Send + Sync + 'static> {
    queue: Queue<T>,
    deliveries: Vec<Delivery<T>>,
}

impl<T: Payload> Receiving<T> {
    /// Counts what was delivered and acknowledges it.
    fn settle(&mut self, tally: &mut Tally) -> usize {
        let received = self.deliveries.len();
        self.deliveries
            .iter()
            .for_each(|delivery| tally.add::<T>(delivery));
        for delivery in self.deliveries.drain(..) {
            assert!(
                delivery.acknowledge().is_ok(),
                "a lease of half a minute was lost"
            );
        }
        received
    }
}

/// Acknowledges a delivery and takes the message out of it: nobody else holds it, and its lease is far from over.
fn acknowledge<T: Payload>(delivery: Delivery<T>) -> T {
    match delivery.acknowledge() {
        Ok(Some(message)) => message,
        _ => panic!("a lease of half a minute was lost"),
    }
}

fn or_closed<T: Payload>(received: Result<Delivery<T>, ReceiveError>) -> Option<Delivery<T>> {
    match received {
        Ok(delivery) => Some(delivery),
        Err(ReceiveError::Closed) => None,
        Err(error) => panic!("receiving: {error}"),
    }
}

impl<T: Payload> TaskSender<T> for Sending<T> {
    async fn send(&mut self, message: T) {
        assert!(
            self.queue.send(message).await.is_ok(),
            "closed under a sender"
        );
    }
}

impl<T: Payload> TaskSender<T> for Grouping<T> {
    async fn send(&mut self, message: T) {
        let group = group_of(message.number());
        let message = Message::new(message).group(group);
        assert!(
            self.0.queue.send(message).await.is_ok(),
            "closed under a sender"
        );
    }
}

impl<T: Payload> TaskReceiver<T> for Receiving<T> {
    async fn receive(&mut self) -> Option<T> {
        or_closed(self.queue.receive().await).map(acknowledge)
    }
}

impl<T: Payload> TaskBatchSender<T> for Sending<T> {
    async fn send_batch(&mut self, batch: &mut Vec<T>) {
        assert!(
            self.queue.send_values(batch).await.is_ok(),
            "closed under a sender"
        );
    }
}

impl<T: Payload> TaskBatchReceiver<T> for Receiving<T> {
    async fn receive_batch(&mut self, _: &mut Vec<T>, tally: &mut Tally) -> usize {
        match self.queue.try_receive_batch(BATCH, &mut self.deliveries) {
            Ok(_) => {}
            Err(TryReceiveError::Closed) => return 0,
            Err(_) => match or_closed(self.queue.receive().await) {
                Some(delivery) => self.deliveries.push(delivery),
                None => return 0,
            },
        }
        self.settle(tally)
    }
}

impl<T: Payload> ThreadSender<T> for Sending<T> {
    fn send(&mut self, message: T) {
        assert!(
            self.queue.send_blocking(message).is_ok(),
            "closed under a sender"
        );
    }
}

impl<T: Payload> ThreadSender<T> for Grouping<T> {
    fn send(&mut self, message: T) {
        let group = group_of(message.number());
        let message = Message::new(message).group(group);
        assert!(
            self.0.queue.send_blocking(message).is_ok(),
            "closed under a sender"
        );
    }
}

impl<T: Payload> ThreadReceiver<T> for Receiving<T> {
    fn receive(&mut self) -> Option<T> {
        or_closed(self.queue.receive_blocking()).map(acknowledge)
    }
}

impl<T: Payload> ThreadBatchSender<T> for Sending<T> {
    fn send_batch(&mut self, batch: &mut Vec<T>) {
        loop {
            // An error is a full queue, which the blocking send waits for, or a closed one, which it reports.
            let _ = self.queue.try_send_values(batch);
            if batch.is_empty() {
                return;
            }
            let first = batch.remove(0);
            assert!(
                self.queue.send_blocking(first).is_ok(),
                "closed under a sender"
            );
        }
    }
}

impl<T: Payload> ThreadBatchReceiver<T> for Receiving<T> {
    fn receive_batch(&mut self, _: &mut Vec<T>, tally: &mut Tally) -> usize {
        match self.queue.try_receive_batch(BATCH, &mut self.deliveries) {
            Ok(_) => {}
            Err(TryReceiveError::Closed) => return 0,
            Err(_) => match or_closed(self.queue.receive_blocking()) {
                Some(delivery) => self.deliveries.push(delivery),
                None => return 0,
            },
        }
        self.settle(tally)
    }
}

fn queue<T: Payload>(kind: Kind, bound: Bound) -> Queue<T> {
    let mut config = QueueConfig::new("bench");
    config.kind = kind;
    config.capacity = match bound {
        Bound::Bounded => Some(CAPACITY),
        Bound::Unbounded => None,
    };
    Queue::new(config).expect("the configuration is within its limits")
}

fn open<T: Payload>(
    kind: Kind,
    shape: Shape,
    bound: Bound,
) -> (Vec<Sending<T>>, Vec<Receiving<T>>) {
    let queue = queue(kind, bound);
    let left = Arc::new(AtomicUsize::new(shape.senders()));
    let sending = || Sending {
        queue: queue.clone(),
        left: Arc::clone(&left),
    };
    let receiving = || Receiving {
        queue: queue.clone(),
        deliveries: Vec::with_capacity(BATCH),
    };
    (
        std::iter::repeat_with(sending)
            .take(shape.senders())
            .collect(),
        std::iter::repeat_with(receiving)
            .take(shape.receivers())
            .collect(),
    )
}

fn open_grouped<T: Payload>(shape: Shape, bound: Bound) -> (Vec<Grouping<T>>, Vec<Receiving<T>>) {
    let (senders, receivers) = open(Kind::fifo(), shape, bound);
    (senders.into_iter().map(Grouping).collect(), receivers)
}

const NAME: &str = "sim-queue";
const FIFO: &str = "sim-queue-fifo-1000";

/// The queue between tasks, one message at a time; among many, a FIFO queue with a thousand groups as well.
#[must_use]
pub fn tasks<T: Payload>(shape: Shape, bound: Bound) -> Vec<Peer> {
    let standard = task_peer!(NAME, shape, open::<T>(Kind::Standard, shape, bound));
    let fifo = task_peer!(FIFO, shape, open_grouped::<T>(shape, bound));
    let fifo = fifo.filter(|_| shape == Shape::Mpmc);
    standard.into_iter().chain(fifo).collect()
}

/// The queue between tasks, a batch at a time.
#[must_use]
pub fn task_batches<T: Payload>(shape: Shape, bound: Bound) -> Option<Peer> {
    task_batch_peer!(NAME, shape, open::<T>(Kind::Standard, shape, bound))
}

/// The queue between threads, one message at a time; among many, a FIFO queue with a thousand groups as well.
#[must_use]
pub fn threads<T: Payload>(shape: Shape, bound: Bound) -> Vec<Peer> {
    let standard = thread_peer!(NAME, shape, open::<T>(Kind::Standard, shape, bound));
    let fifo = thread_peer!(FIFO, shape, open_grouped::<T>(shape, bound));
    let fifo = fifo.filter(|_| shape == Shape::Mpmc);
    standard.into_iter().chain(fifo).collect()
}

/// The queue between threads, a batch at a time.
#[must_use]
pub fn thread_batches<T: Payload>(shape: Shape, bound: Bound) -> Option<Peer> {
    thread_batch_peer!(NAME, shape, open::<T>(Kind::Standard, shape, bound))
}

impl Store for Queue<usize> {
    fn put(&mut self, message: usize) -> bool {
        self.try_send(message).is_ok()
    }

    fn take(&mut self) -> Option<usize> {
        self.try_receive().ok().map(acknowledge)
    }
}

/// An unbounded queue whose memory is measured.
pub(crate) fn store() -> Queue<usize> {
    queue(Kind::Standard, Bound::Unbounded)
}
