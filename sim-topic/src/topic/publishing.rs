//! Publishers that are in: the end of a closed topic is seen only when they are out.
//!
//! # Ordering
//! A publisher adds itself (`SeqCst`) before it reads `closed` (`SeqCst`); who looks for the end reads `closed` before
//! it reads the counts, `SeqCst` both. In the single order of these four, the publisher is counted, or finds
//! the topic closed and delivers nothing. It takes itself off (`SeqCst`) on the stripe on which it came, after all that
//! it has delivered, and reads `closed` then: it wakes those who may have found it there.

use std::fmt;

use sim_core::sync::CachePadded;
use sim_core::sync::atomic::{AtomicU64, Ordering};
use sim_core::sync::stripe;

use crate::topic::hub::Hub;

/// Counts publishers, striped so that they do not share a cache line.
pub(crate) struct Publishing {
    /// Invariant: a power of two, at least one.
    stripes: Box<[CachePadded<AtomicU64>]>,
}

impl Publishing {
    pub(crate) fn new() -> Self {
        let stripes = (0..stripe::count()).map(|_| CachePadded::new(AtomicU64::new(0)));
        Self {
            stripes: stripes.collect(),
        }
    }

    /// Whether nobody is in who came before the topic was closed; asked after it was.
    fn is_idle(&self) -> bool {
        let mut stripes = self.stripes.iter();
        stripes.all(|stripe| stripe.load(Ordering::SeqCst) == 0)
    }
}

impl fmt::Debug for Publishing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publishing")
            .field("is_idle", &self.is_idle())
            .finish()
    }
}

/// A publisher that is in.
pub(crate) struct InFlight<'a, T: Send + Sync + 'static> {
    hub: &'a Hub<T>,
    stripe: &'a AtomicU64,
}

impl<T: Send + Sync + 'static> Hub<T> {
    /// Comes in, before it looks whether the topic is closed.
    #[inline]
    pub(crate) fn enter(&self) -> InFlight<'_, T> {
        let stripes = &self.publishing.stripes;
        let stripe = &*stripes[stripe::current() & (stripes.len() - 1)];
        stripe.fetch_add(1, Ordering::SeqCst);
        InFlight { hub: self, stripe }
    }

    /// Whether the topic is closed and nobody publishes to subscriptions any more.
    pub(crate) fn has_ended(&self) -> bool {
        self.is_closed() && self.publishing.is_idle()
    }
}

impl<T: Send + Sync + 'static> Drop for InFlight<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.stripe.fetch_sub(1, Ordering::SeqCst);
        if self.hub.is_closed() {
            self.hub.wake_mailboxes();
            self.hub.driver.work.notify_all();
        }
    }
}
