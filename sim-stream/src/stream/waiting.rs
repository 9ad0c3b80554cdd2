//! Waiting for records, also where a limit holds a read up.
//!
//! Those who wait on one event share one timer, which knows the next deadline of what they wait for *together*. A
//! throttled read waits for a time of its own: so it waits until then and no longer, and tries again.

use sim_core::clock::Clock;
use sim_core::event::Event;
use sim_core::time::Instant;
use sim_core::wait::{Attempt, Elapsed, until, until_blocking};

/// What one try came to.
pub(crate) enum Try<R> {
    /// This is returned.
    Done {
        value: R,
        /// Whether another who waits would succeed too.
        more: bool,
    },
    /// There is nothing at present.
    Nothing,
    /// A limit holds it up until then.
    Throttled(Instant),
}

/// What a wait that may be cut short came to.
pub(crate) enum Step<R> {
    Value(R),
    /// Not before then.
    Again(Instant),
}

/// A wait's next limit: its deadline, or when a throttled read may be tried again.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    deadline: Instant,
    pub(crate) until: Instant,
}

impl Limit {
    pub(crate) const fn new(deadline: Instant) -> Self {
        Self {
            deadline,
            until: deadline,
        }
    }

    /// A try within this limit, as an attempt.
    pub(crate) fn attempt<R>(self, tried: Try<R>) -> Attempt<Step<R>> {
        match tried {
            Try::Done { value, more } => Attempt::Done {
                value: Step::Value(value),
                more,
            },
            Try::Throttled(at) if at < self.until => Attempt::Done {
                value: Step::Again(at),
                more: false,
            },
            Try::Nothing | Try::Throttled(_) => Attempt::Pending {
                wake_at: Instant::NEVER,
            },
        }
    }

    /// What comes of a wait; nothing when it goes on, under another limit.
    pub(crate) fn settle<R>(
        &mut self,
        waited: Result<Step<R>, Elapsed>,
    ) -> Option<Result<R, Elapsed>> {
        match waited {
            Ok(Step::Value(value)) => return Some(Ok(value)),
            Ok(Step::Again(at)) => self.until = at.min(self.deadline),
            Err(Elapsed) if self.until < self.deadline => self.until = self.deadline,
            Err(Elapsed) => return Some(Err(Elapsed)),
        }
        None
    }
}

/// Waits until a try is done, or the deadline comes.
pub(crate) async fn until_done<R>(
    event: &Event,
    clock: &Clock,
    deadline: Instant,
    mut attempt: impl FnMut() -> Try<R>,
) -> Result<R, Elapsed> {
    let mut limit = Limit::new(deadline);
    loop {
        let waited = until(event, clock, limit.until, || limit.attempt(attempt())).await;
        if let Some(result) = limit.settle(waited) {
            return result;
        }
    }
}

/// As [`until_done`], blocking the thread.
pub(crate) fn until_done_blocking<R>(
    event: &Event,
    clock: &Clock,
    deadline: Instant,
    mut attempt: impl FnMut() -> Try<R>,
) -> Result<R, Elapsed> {
    let mut limit = Limit::new(deadline);
    loop {
        let waited = until_blocking(event, clock, limit.until, || limit.attempt(attempt()));
        if let Some(result) = limit.settle(waited) {
            return result;
        }
    }
}
