//! What launches and ends instances: a small trait that never waits, and three that implement it.
//!
//! | provisioner | an instance is | stop | feature |
//! | --- | --- | --- | --- |
//! | [`Recorder`] | nothing but a script of delays and failures, for tests | as scripted | |
//! | `Tasks` | a tokio task | a signal, then a grace, then an abort | `tokio` |
//! | `Processes` | a child process | `SIGTERM`, then a grace, then `SIGKILL` | `tokio` |
//!
//! A [`Provisioner`] begins what it is asked and returns; what became of it, it reports when the group
//! [polls](Provisioner::poll). A report that appears while nobody is calling is announced by the [`Wake`] that the group
//! has connected, so that [`Group::run`](crate::Group::run) comes to fetch it.

#[cfg(feature = "tokio")]
mod processes;
mod recorder;
#[cfg(feature = "tokio")]
mod table;
#[cfg(feature = "tokio")]
mod tasks;

use std::fmt;

use sim_core::event::Event;
use sim_core::sync::Arc;
use sim_core::time::Instant;

use crate::config::WarmState;
use crate::message::{Health, InstanceId, LaunchOrder};

#[cfg(feature = "tokio")]
pub use self::processes::{Process as ChildProcess, ProcessTemplate, Processes};
pub use self::recorder::{Recorder, Script, Told};
#[cfg(feature = "tokio")]
pub use self::tasks::{Tasks, WorkerContext};

/// Launches and ends instances for one group.
///
/// No call waits. The group calls from one thread at a time and holds none of its locks then.
pub trait Provisioner: Send + Sync + 'static {
    /// What a roster needs to give an instance work: an address, a channel, a service.
    type Endpoint: Clone + Send + Sync + 'static;

    /// Begins a launch. [`Report::Started`] or [`Report::Failed`] follows.
    ///
    /// # Errors
    /// [`LaunchRefused`] where it cannot even begin; nothing follows then.
    fn launch(&self, order: &LaunchOrder, now: Instant) -> Result<(), LaunchRefused>;

    /// Begins to end an instance, whatever it is doing; may be said again. [`Report::Ended`] follows, also for an id that
    /// is not known.
    fn terminate(&self, id: InstanceId, now: Instant);

    /// What has happened since, one at a time, in order; `None` when there is no more.
    fn poll(&self, now: Instant) -> Option<Report<Self::Endpoint>>;

    /// Stops or freezes an instance for the warm pool. [`Report::Paused`] follows.
    ///
    /// # Errors
    /// [`LaunchRefused`] where it cannot, as none can by default; the instance is terminated then.
    fn pause(&self, id: InstanceId, how: WarmState, now: Instant) -> Result<(), LaunchRefused> {
        let _ = (id, now);
        Err(LaunchRefused::new(format!("cannot be put to {how:?}")))
    }

    /// Starts a paused instance again. [`Report::Started`] or [`Report::Failed`] follows.
    ///
    /// # Errors
    /// [`LaunchRefused`] where it cannot, as none can by default.
    fn resume(&self, id: InstanceId, now: Instant) -> Result<(), LaunchRefused> {
        let _ = (id, now);
        Err(LaunchRefused::new("cannot be resumed"))
    }

    /// Gives an instance away: it goes on, and nothing is reported of it any more.
    fn release(&self, id: InstanceId) {
        let _ = id;
    }

    /// Takes over an instance from elsewhere, or one that was released.
    ///
    /// # Errors
    /// [`LaunchRefused`] where it cannot, as none can by default.
    fn adopt(&self, id: InstanceId) -> Result<Self::Endpoint, LaunchRefused> {
        let _ = id;
        Err(LaunchRefused::new("takes no instance from elsewhere"))
    }

    /// When it wants to be polled by the clock, such as for the end of a grace.
    fn next_deadline(&self) -> Option<Instant> {
        None
    }

    /// Told once, when the group is built: `wake` is to be called when a report is there that no call of the group's has
    /// brought about.
    fn connect(&self, wake: Wake) {
        let _ = wake;
    }
}

/// A launch that did not begin, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
#[non_exhaustive]
pub struct LaunchRefused {
    /// Why.
    pub reason: String,
}

impl LaunchRefused {
    /// Refuses for a reason.
    #[must_use]
    pub fn new(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
        }
    }
}

/// What became of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Report<E> {
    /// It runs.
    Started {
        /// The instance.
        id: InstanceId,
        /// What a roster needs to give it work.
        endpoint: E,
    },
    /// It could not be launched, or resumed; nothing is left of it.
    Failed {
        /// The instance.
        id: InstanceId,
        /// Why.
        reason: String,
    },
    /// It waits for the warm pool.
    Paused {
        /// The instance.
        id: InstanceId,
    },
    /// It has ended, asked or by itself; nothing is left of it.
    Ended {
        /// The instance.
        id: InstanceId,
        /// How: an exit status, a panic, "stopped".
        reason: String,
    },
    /// It is fit, or not.
    Health {
        /// The instance.
        id: InstanceId,
        /// Which.
        health: Health,
    },
    /// It will be taken away soon (a spot interruption, a rebalance recommendation).
    AtRisk {
        /// The instance.
        id: InstanceId,
    },
}

/// Brings a group's driver back to look.
#[derive(Clone)]
pub struct Wake(Arc<Event>);

impl Wake {
    pub(crate) fn new(event: Arc<Event>) -> Self {
        Self(event)
    }

    /// Wakes whoever runs the group.
    pub fn wake(&self) {
        self.0.notify_one();
    }
}

impl fmt::Debug for Wake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wake").finish_non_exhaustive()
    }
}

impl<P: Provisioner> Provisioner for Arc<P> {
    type Endpoint = P::Endpoint;

    fn launch(&self, order: &LaunchOrder, now: Instant) -> Result<(), LaunchRefused> {
        (**self).launch(order, now)
    }

    fn terminate(&self, id: InstanceId, now: Instant) {
        (**self).terminate(id, now);
    }

    fn poll(&self, now: Instant) -> Option<Report<Self::Endpoint>> {
        (**self).poll(now)
    }

    fn pause(&self, id: InstanceId, how: WarmState, now: Instant) -> Result<(), LaunchRefused> {
        (**self).pause(id, how, now)
    }

    fn resume(&self, id: InstanceId, now: Instant) -> Result<(), LaunchRefused> {
        (**self).resume(id, now)
    }

    fn release(&self, id: InstanceId) {
        (**self).release(id);
    }

    fn adopt(&self, id: InstanceId) -> Result<Self::Endpoint, LaunchRefused> {
        (**self).adopt(id)
    }

    fn next_deadline(&self) -> Option<Instant> {
        (**self).next_deadline()
    }

    fn connect(&self, wake: Wake) {
        (**self).connect(wake);
    }
}
