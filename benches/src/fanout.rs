//! Fan-out: one publisher, and every subscriber receives every message.
//!
//! Nothing holds a publisher up here and nothing may be lost, so that each rival gets room for all messages of a run:
//! tokio's broadcast, which drops what a receiver is late for, a ring as large as the run; the others no bound, or
//! the same.

use std::future::Future;

use async_broadcast as ab;
use tokio::sync::broadcast;

use crate::pattern::{Failure, Outcome, Peer};
use crate::payload::{Payload, Tally};
use crate::tasks::{TaskReceiver, TaskSender, join, runtime};
use crate::timing::Stopwatch;

/// The name of the peer that the patterns compare with.
pub const TOKIO: &str = "tokio-broadcast";

/// What each rival lacks, so that a gap in a table has its reason.
pub const NOTES: &[(&str, &str)] = &[
    (
        TOKIO,
        "a ring as large as the run, since it drops what a receiver is late for",
    ),
    ("async-broadcast", "room for the whole run"),
    (
        "flume-loop",
        "one unbounded channel for each subscriber, and a clone sent into each",
    ),
];

/// A subscriber of a run.
pub trait Subscriber: Send + 'static {
    /// Receives at least one message and counts what it received; false when the publisher is gone and all was
    /// received.
    fn receive_some(&mut self, tally: &mut Tally) -> impl Future<Output = bool> + Send;
}

/// A receiver that is asked for one message at a time.
#[derive(Debug)]
pub struct OneByOne<T, R>(R, std::marker::PhantomData<fn() -> T>);

impl<T: Payload, R: TaskReceiver<T>> Subscriber for OneByOne<T, R> {
    async fn receive_some(&mut self, tally: &mut Tally) -> bool {
        match self.0.receive().await {
            Some(message) => {
                tally.add(&message);
                true
            }
            None => false,
        }
    }
}

/// Asks each of the receivers for one message at a time.
pub fn one_by_one<T, R>(receivers: Vec<R>) -> Vec<OneByOne<T, R>> {
    receivers
        .into_iter()
        .map(|receiver| OneByOne(receiver, std::marker::PhantomData))
        .collect()
}

/// Publishes `count` messages to all subscribers, each a task of its own.
///
/// # Errors
/// When a subscriber did not receive each message once, or a task panicked.
pub fn run<T, S, R>((mut publisher, subscribers): (S, Vec<R>), count: u64) -> Outcome
where
    T: Payload,
    S: TaskSender<T>,
    R: Subscriber,
{
    runtime().block_on(async move {
        let watch = Stopwatch::start();
        let readers: Vec<_> = subscribers
            .into_iter()
            .map(|mut subscriber| {
                tokio::spawn(async move {
                    let mut tally = Tally::default();
                    while subscriber.receive_some(&mut tally).await {}
                    tally
                })
            })
            .collect();
        let writer = tokio::spawn(async move {
            for number in 0..count {
                publisher.send(T::make(number)).await;
            }
        });
        join(writer).await?;
        let mut tallies = Vec::with_capacity(readers.len());
        for reader in readers {
            tallies.push(join(reader).await?);
        }
        let elapsed = watch.elapsed();
        if tallies.is_empty() {
            return Err(Failure("a run without subscribers".to_owned()));
        }
        for tally in tallies {
            tally.verify(count)?;
        }
        Ok(elapsed)
    })
}

impl<T: Payload> TaskSender<T> for broadcast::Sender<T> {
    async fn send(&mut self, message: T) {
        assert!(
            Self::send(self, message).is_ok(),
            "closed under a publisher"
        );
    }
}

impl<T: Payload> TaskReceiver<T> for broadcast::Receiver<T> {
    async fn receive(&mut self) -> Option<T> {
        match self.recv().await {
            Ok(message) => Some(message),
            Err(broadcast::error::RecvError::Closed) => None,
            Err(broadcast::error::RecvError::Lagged(lost)) => {
                panic!("the ring has room for the run, yet {lost} were dropped")
            }
        }
    }
}

impl<T: Payload> TaskSender<T> for ab::Sender<T> {
    async fn send(&mut self, message: T) {
        assert!(
            self.broadcast_direct(message).await.is_ok(),
            "closed under a publisher"
        );
    }
}

impl<T: Payload> TaskReceiver<T> for ab::Receiver<T> {
    async fn receive(&mut self) -> Option<T> {
        self.recv_direct().await.ok()
    }
}

/// The loop that a program without a topic writes.
struct Each<T>(Vec<flume::Sender<T>>);

impl<T: Payload> TaskSender<T> for Each<T> {
    async fn send(&mut self, message: T) {
        for sender in &self.0 {
            assert!(
                sender.send(message.clone()).is_ok(),
                "closed under a publisher"
            );
        }
    }
}

/// The rivals for so many subscribers; tokio's comes first.
#[must_use]
pub fn rivals<T: Payload>(subscribers: usize) -> Vec<Peer> {
    vec![
        Peer::new(TOKIO, move |count| {
            let room = usize::try_from(count).unwrap_or(usize::MAX);
            let (sender, first) = broadcast::channel(room);
            let mut receivers = vec![first];
            receivers.resize_with(subscribers, || sender.subscribe());
            run::<T, _, _>((sender, one_by_one::<T, _>(receivers)), count)
        }),
        Peer::new("async-broadcast", move |count| {
            let room = usize::try_from(count).unwrap_or(usize::MAX);
            let (sender, receiver) = ab::broadcast(room);
            run::<T, _, _>(
                (sender, one_by_one::<T, _>(vec![receiver; subscribers])),
                count,
            )
        }),
        Peer::new("flume-loop", move |count| {
            let (senders, receivers): (Vec<_>, Vec<_>) =
                (0..subscribers).map(|_| flume::unbounded()).unzip();
            run::<T, _, _>((Each(senders), one_by_one::<T, _>(receivers)), count)
        }),
    ]
}
