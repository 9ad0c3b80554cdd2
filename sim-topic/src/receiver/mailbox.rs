//! What a receiver with a filter reads: a bounded ring of its own.
//!
//! # Ordering
//! The ring's own accesses and `over` are `SeqCst`, as [`Event`] asks of what it announces. The counts are `Relaxed`: they order
//! nothing.

use sim_core::event::Event;
use sim_core::ring::Bounded;
use sim_core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::message::Notification;

/// Messages on their way to one receiver; the oldest go when it is full.
pub(crate) struct Mailbox<T> {
    ring: Bounded<Notification<T>>,
    pub(crate) arrivals: Event,
    received: AtomicU64,
    /// Messages lost, and how many of them the receiver was told of.
    lost: AtomicU64,
    told: AtomicU64,
    /// Whether its subscription is over.
    over: AtomicBool,
}

impl<T> Mailbox<T> {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            ring: Bounded::with_capacity(capacity),
            arrivals: Event::new(),
            received: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            told: AtomicU64::new(0),
            over: AtomicBool::new(false),
        }
    }

    /// Puts a message in; the oldest make room for it.
    pub(crate) fn put(&self, notification: Notification<T>) {
        let mut newest = notification;
        while let Err(back) = self.ring.push(newest) {
            newest = back;
            if self.ring.pop().is_some() {
                self.lost.fetch_add(1, Ordering::SeqCst);
            }
        }
        self.arrivals.notify_one();
    }

    /// Nothing comes any more.
    pub(crate) fn end(&self) {
        self.over.swap(true, Ordering::SeqCst);
        self.arrivals.notify_all();
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// How many messages were lost since this was last asked.
    pub(crate) fn take_lost(&self) -> u64 {
        let lost = self.lost.load(Ordering::SeqCst);
        lost - self.told.swap(lost, Ordering::Relaxed)
    }

    pub(crate) fn take(&self) -> Option<Notification<T>> {
        let notification = self.ring.pop()?;
        self.received.fetch_add(1, Ordering::Relaxed);
        Some(notification)
    }

    pub(crate) fn len(&self) -> usize {
        self.ring.len()
    }

    pub(crate) fn counts(&self) -> (u64, u64) {
        (
            self.received.load(Ordering::Relaxed),
            self.lost.load(Ordering::Relaxed),
        )
    }
}
