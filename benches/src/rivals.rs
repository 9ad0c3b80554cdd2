//! The rivals, a file each: how each is opened for a shape and a bound, and what it lacks.

use crate::pattern::{Bound, Peer, Shape};
use crate::payload::Payload;

/// Implements the awaited sides for a pair of types whose operations give a `Result`.
macro_rules! awaited {
    ($sender:ty, $send:ident; $receiver:ty, $receive:ident) => {
        awaited!(send $sender, $send);
        awaited!(receive $receiver, $receive);
    };
    (send $sender:ty, $send:ident) => {
        impl<T: crate::payload::Payload> crate::tasks::TaskSender<T> for $sender {
            async fn send(&mut self, message: T) {
                assert!(<$sender>::$send(self, message).await.is_ok(), "closed under a sender");
            }
        }
    };
    (receive $receiver:ty, $receive:ident) => {
        impl<T: crate::payload::Payload> crate::tasks::TaskReceiver<T> for $receiver {
            async fn receive(&mut self) -> Option<T> {
                <$receiver>::$receive(self).await.ok()
            }
        }
    };
}

/// Implements the blocking sides for a pair of types whose operations give a `Result`.
macro_rules! blocking {
    ($sender:ty, $send:ident; $receiver:ty, $receive:ident) => {
        blocking!(send $sender, $send);
        blocking!(receive $receiver, $receive);
    };
    (send $sender:ty, $send:ident) => {
        impl<T: crate::payload::Payload> crate::threads::ThreadSender<T> for $sender {
            fn send(&mut self, message: T) {
                assert!(<$sender>::$send(self, message).is_ok(), "closed under a sender");
            }
        }
    };
    (receive $receiver:ty, $receive:ident) => {
        impl<T: crate::payload::Payload> crate::threads::ThreadReceiver<T> for $receiver {
            fn receive(&mut self) -> Option<T> {
                <$receiver>::$receive(self).ok()
            }
        }
    };
}

/// A peer whose handles are awaited one message at a time.
macro_rules! task_peer {
    ($name:expr, $shape:expr, $open:expr) => {
        Some(crate::pattern::Peer::new($name, move |count| {
            crate::tasks::run::<T, _, _>($shape, $open, count)
        }))
    };
}

/// A peer whose handles are awaited a batch at a time.
macro_rules! task_batch_peer {
    ($name:expr, $shape:expr, $open:expr) => {
        Some(crate::pattern::Peer::new($name, move |count| {
            crate::tasks::run_batched::<T, _, _>($shape, $open, count)
        }))
    };
}

/// A peer whose handles block for one message at a time.
macro_rules! thread_peer {
    ($name:expr, $shape:expr, $open:expr) => {
        Some(crate::pattern::Peer::new($name, move |count| {
            crate::threads::run::<T, _, _>($shape, $open, count)
        }))
    };
}

/// A peer whose handles block for a batch at a time.
macro_rules! thread_batch_peer {
    ($name:expr, $shape:expr, $open:expr) => {
        Some(crate::pattern::Peer::new($name, move |count| {
            crate::threads::run_batched::<T, _, _>($shape, $open, count)
        }))
    };
}

/// A peer that is a raw ring.
macro_rules! ring_peer {
    ($name:expr, $shape:expr, $open:expr) => {
        Some(crate::pattern::Peer::new($name, move |count| {
            crate::rings::run::<T, _, _>($shape, $open, count)
        }))
    };
}

/// A peer that is a raw ring with batches.
macro_rules! ring_batch_peer {
    ($name:expr, $shape:expr, $open:expr) => {
        Some(crate::pattern::Peer::new($name, move |count| {
            crate::rings::run_batched::<T, _, _>($shape, $open, count)
        }))
    };
}

pub(crate) use {
    ring_batch_peer, ring_peer, task_batch_peer, task_peer, thread_batch_peer, thread_peer,
};

mod async_channel;
mod concurrent_queue;
mod crossbeam;
mod crossfire;
mod fibre;
mod flume;
mod kanal;
mod loole;
mod mutex;
mod nexus;
#[cfg(feature = "pingora")]
pub(crate) mod pingora;
mod rapidfire;
mod rtrb;
mod thingbuf;
mod tokio_mpsc;
pub(crate) mod tower_balance;

/// The name of the peer that the group `queue` compares with.
pub const TOKIO: &str = "tokio-mpsc";

/// What each rival lacks, so that a gap in a table has its reason.
pub const NOTES: &[(&str, &str)] = &[
    (
        TOKIO,
        "one receiver only: with four receivers they share it behind a mutex (tokio's own, fair one among tasks, \
         parking_lot's among threads), as a program that had to would do",
    ),
    ("async-channel", "no batches"),
    (
        "flume",
        "batches on the receiving side only (`drain`, which takes all there is)",
    ),
    (
        "kanal",
        "batches on the receiving side only (`drain_into`, which takes all there is)",
    ),
    (
        "crossfire",
        "no batches; each pattern uses its most special flavour (spsc, mpsc, mpmc)",
    ),
    ("crossbeam-channel", "threads only, no batches"),
    (
        "thingbuf",
        "bounded; its channel has one receiver; no batches; needs `Default + Clone` messages",
    ),
    (
        "quamina",
        "stops reading an event when it has found its fields, so what follows may be no JSON; panics on ten thousand \
         policies of some kinds, which run with fewer; no `$or`, `anything-but` with values only",
    ),
    (
        "quamina-speed",
        "the same, told to make deterministic automata of wildcards; takes minutes to open with a thousand of them",
    ),
    (
        "rapidfire",
        "tasks only; batches on the receiving side with one receiver only (`recv_many`)",
    ),
    (
        "fibre",
        "each pattern uses its most special channel (spsc is bounded only)",
    ),
    ("loole", "no batches used (its `drain` takes all there is)"),
    ("rtrb", "a ring of one sender and one receiver, bounded"),
    (
        "nexus-queue",
        "rings, bounded; none for four senders and four receivers; no batches",
    ),
    ("crossbeam-array-queue", "a ring, bounded; no batches"),
    ("crossbeam-seg-queue", "a ring, unbounded; no batches"),
    ("concurrent-queue", "a ring; no batches"),
    (
        "mutex-vecdeque",
        "not a rival but what a ring has to beat: a deque behind parking_lot's mutex, batches under one lock",
    ),
];

/// The channels that tasks use one message at a time; tokio's comes first.
#[must_use]
pub fn tasks<T: Payload>(shape: Shape, bound: Bound) -> Vec<Peer> {
    [
        tokio_mpsc::tasks::<T>(shape, bound),
        async_channel::tasks::<T>(shape, bound),
        flume::tasks::<T>(shape, bound),
        kanal::tasks::<T>(shape, bound),
        crossfire::tasks::<T>(shape, bound),
        thingbuf::tasks::<T>(shape, bound),
        rapidfire::tasks::<T>(shape, bound),
        fibre::tasks::<T>(shape, bound),
        loole::tasks::<T>(shape, bound),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The channels that tasks use a batch at a time, for those that have batches on one side at least.
#[must_use]
pub fn task_batches<T: Payload>(shape: Shape, bound: Bound) -> Vec<Peer> {
    [
        tokio_mpsc::task_batches::<T>(shape, bound),
        flume::task_batches::<T>(shape, bound),
        kanal::task_batches::<T>(shape, bound),
        rapidfire::task_batches::<T>(shape, bound),
        fibre::task_batches::<T>(shape, bound),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The channels that threads use one message at a time; tokio's comes first.
#[must_use]
pub fn threads<T: Payload>(shape: Shape, bound: Bound) -> Vec<Peer> {
    [
        tokio_mpsc::threads::<T>(shape, bound),
        async_channel::threads::<T>(shape, bound),
        flume::threads::<T>(shape, bound),
        kanal::threads::<T>(shape, bound),
        crossfire::threads::<T>(shape, bound),
        crossbeam::threads::<T>(shape, bound),
        thingbuf::threads::<T>(shape, bound),
        fibre::threads::<T>(shape, bound),
        loole::threads::<T>(shape, bound),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The channels that threads use a batch at a time, for those that have batches on one side at least.
#[must_use]
pub fn thread_batches<T: Payload>(shape: Shape, bound: Bound) -> Vec<Peer> {
    [
        tokio_mpsc::thread_batches::<T>(shape, bound),
        flume::thread_batches::<T>(shape, bound),
        kanal::thread_batches::<T>(shape, bound),
        fibre::thread_batches::<T>(shape, bound),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The raw rings; crossbeam's comes first.
#[must_use]
pub fn rings<T: Payload>(shape: Shape, bound: Bound) -> Vec<Peer> {
    [
        crossbeam::rings::<T>(shape, bound),
        concurrent_queue::rings::<T>(shape, bound),
        thingbuf::rings::<T>(shape, bound),
        nexus::rings::<T>(shape, bound),
        rtrb::rings::<T>(shape, bound),
        mutex::rings::<T>(shape, bound),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The raw rings that have batches.
#[must_use]
pub fn ring_batches<T: Payload>(shape: Shape, bound: Bound) -> Vec<Peer> {
    [
        rtrb::ring_batches::<T>(shape, bound),
        mutex::ring_batches::<T>(shape, bound),
    ]
    .into_iter()
    .flatten()
    .collect()
}
