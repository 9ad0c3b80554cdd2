//! The seams at which crates of the family meet: [`Sink`], [`Source`], [`Handler`], [`Gauge`], [`Roster`],
//! [`Timed`].
//!
//! Each trait has one to three methods, can be a trait object and names no domain. What delivers knows a
//! `dyn Sink` and not whether a queue, a log or a socket stands behind it; what scales reads a `dyn Gauge`.
//! All but [`Handler`], which functions implement, are implemented for `Arc<S>` too, so that a shared part can be
//! handed to two neighbours.
//!
//! # Examples
//!
//! ```
//! use sim_core::seam::{Refused, Sink};
//!
//! struct Discard;
//!
//! impl Sink<u32> for Discard {
//!     fn try_deliver(&self, _: u32) -> Result<(), Refused<u32>> {
//!         Ok(())
//!     }
//! }
//!
//! let sink: Box<dyn Sink<u32>> = Box::new(Discard);
//! assert!(sink.try_deliver(7).is_ok());
//! ```

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use crate::id::Id;
use crate::sync::Arc;
use crate::time::Instant;

/// Takes items, never waiting.
///
/// A caller that was refused keeps the item and decides: try again, take another sink, give up.
pub trait Sink<T>: Send + Sync {
    /// Hands an item over, or gives it back at once.
    ///
    /// # Errors
    ///
    /// [`Refused`] with the item and the reason. `Ok` means that the sink now answers for the item.
    fn try_deliver(&self, item: T) -> Result<(), Refused<T>>;
}

/// Gives items, never waiting.
pub trait Source<T>: Send + Sync {
    /// Takes the next item, or `None` when there is none at present.
    fn try_take(&self) -> Option<T>;
}

/// Does a piece of work for each input.
///
/// Every `Fn(I) -> Future` is a handler:
///
/// ```
/// use sim_core::seam::Handler;
///
/// fn run(_: &dyn Handler<u32, u32>) {}
///
/// run(&|n: u32| async move { n + 1 });
/// ```
pub trait Handler<I, O>: Send + Sync {
    /// Starts the work; the future completes with its outcome.
    ///
    /// # Cancel safety
    ///
    /// The implementor's affair: a caller that drops the future must not count on the work being undone.
    fn handle(&self, input: I) -> Pin<Box<dyn Future<Output = O> + Send + '_>>;
}

/// Tells how much work stands before a part.
pub trait Gauge: Send + Sync {
    /// Reads the present depth; cheap enough to be called each second.
    fn depth(&self) -> Depth;

    /// How many items it has finished since its start, where it counts them. Two readings make a rate.
    fn finished(&self) -> Option<u64> {
        None
    }
}

/// Spreads work over members that come and go.
///
/// What launches members does not know what spreads the work over them, nor the other way round: a member is added, told
/// to leave, and is gone when its [`standing`](Self::standing) is [`Standing::Absent`].
pub trait Roster<T>: Send + Sync {
    /// Adds a member under an id of the caller's, or gives it back at once.
    ///
    /// # Errors
    ///
    /// [`Refused`] with the member: [`Reason::Full`], [`Reason::Closed`], or [`Reason::Rejected`] for an id that is
    /// there already.
    fn try_join(&self, id: Id, member: T) -> Result<(), Refused<T>>;

    /// Asks a member to leave: it gets nothing new and finishes what it has. Once is enough; an unknown id is fine.
    fn leave(&self, id: Id);

    /// Where a member stands.
    fn standing(&self, id: Id) -> Standing;
}

/// Where a member of a [`Roster`] stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Standing {
    /// It is not there: never joined, or left and finished.
    Absent,
    /// It has joined and is not yet known to be fit for work.
    Joining,
    /// It gets its share of the work.
    Serving,
    /// It was found unfit; it may recover.
    Failing,
    /// It was asked to leave and still has work to finish.
    Leaving,
}

/// Has deadlines, and is served by whoever calls in.
///
/// Nothing in the family spawns a task to watch the clock. A driver asks for the next deadline, waits for it,
/// and advances; a simulation does the same for all its parts with one virtual clock.
pub trait Timed: Send + Sync {
    /// The earliest deadline, or `None` when nothing is scheduled.
    ///
    /// May be earlier than what is really due next (a cancelled deadline), never later.
    fn next_deadline(&self) -> Option<Instant>;

    /// Does everything whose deadline is at or before `now`, in order of deadline.
    fn advance(&self, now: Instant);
}

/// What stands before a part, read at one moment but not as one atomic snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Depth {
    /// Items that could be taken now.
    pub waiting: u64,
    /// Items taken and not yet finished.
    pub in_flight: u64,
    /// Items that become takeable only later.
    pub delayed: u64,
    /// How long the oldest unfinished item has been there, where that is known.
    pub oldest_age: Option<Duration>,
}

impl Depth {
    /// Everything unfinished: waiting, in flight and delayed.
    ///
    /// Scaling on `waiting` alone removes workers exactly while they are busy.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.waiting
            .saturating_add(self.in_flight)
            .saturating_add(self.delayed)
    }
}

/// An item that a [`Sink`] did not take, and why.
#[derive(thiserror::Error)]
#[error("{reason}")]
pub struct Refused<T> {
    /// The item, untouched.
    pub item: T,
    /// Why it was refused.
    #[source]
    pub reason: Reason,
}

impl<T> Refused<T> {
    /// Refuses for want of room; `retry_at` is when there may be some, where that is known.
    #[must_use]
    pub const fn full(item: T, retry_at: Option<Instant>) -> Self {
        Self {
            item,
            reason: Reason::Full { retry_at },
        }
    }

    /// Refuses because the sink takes nothing any more.
    #[must_use]
    pub const fn closed(item: T) -> Self {
        Self {
            item,
            reason: Reason::Closed,
        }
    }

    /// Refuses this very item.
    #[must_use]
    pub fn rejected(item: T, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            item,
            reason: Reason::Rejected(cause.into()),
        }
    }

    /// Converts the item, keeping the reason.
    #[must_use]
    pub fn map<U>(self, convert: impl FnOnce(T) -> U) -> Refused<U> {
        Refused {
            item: convert(self.item),
            reason: self.reason,
        }
    }
}

impl<T> fmt::Debug for Refused<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refused")
            .field("reason", &self.reason)
            .finish_non_exhaustive()
    }
}

/// Why an item was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// No room now; a later attempt may succeed.
    #[error("the sink is full")]
    Full {
        /// When there may be room again, where that is known.
        retry_at: Option<Instant>,
    },
    /// The sink takes nothing any more.
    #[error("the sink is closed")]
    Closed,
    /// The sink does not take this item, now or later.
    #[error("the sink rejected the item: {0}")]
    Rejected(#[source] Box<dyn Error + Send + Sync>),
}

impl<T, S: Sink<T> + ?Sized> Sink<T> for Arc<S> {
    fn try_deliver(&self, item: T) -> Result<(), Refused<T>> {
        (**self).try_deliver(item)
    }
}

impl<T, S: Source<T> + ?Sized> Source<T> for Arc<S> {
    fn try_take(&self) -> Option<T> {
        (**self).try_take()
    }
}

impl<I, O, F, Fut> Handler<I, O> for F
where
    F: Fn(I) -> Fut + Send + Sync,
    Fut: Future<Output = O> + Send + 'static,
{
    fn handle(&self, input: I) -> Pin<Box<dyn Future<Output = O> + Send + '_>> {
        Box::pin(self(input))
    }
}

impl<S: Gauge + ?Sized> Gauge for Arc<S> {
    fn depth(&self) -> Depth {
        (**self).depth()
    }

    fn finished(&self) -> Option<u64> {
        (**self).finished()
    }
}

impl<T, S: Roster<T> + ?Sized> Roster<T> for Arc<S> {
    fn try_join(&self, id: Id, member: T) -> Result<(), Refused<T>> {
        (**self).try_join(id, member)
    }

    fn leave(&self, id: Id) {
        (**self).leave(id);
    }

    fn standing(&self, id: Id) -> Standing {
        (**self).standing(id)
    }
}

impl<S: Timed + ?Sized> Timed for Arc<S> {
    fn next_deadline(&self) -> Option<Instant> {
        (**self).next_deadline()
    }

    fn advance(&self, now: Instant) {
        (**self).advance(now);
    }
}
