//! Workers as tokio tasks.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use sim_core::sync::Arc;
use sim_core::time::Instant;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::table::{Ending, Signal, Table, next_signal};
use super::{LaunchRefused, Provisioner, Report, Wake};
use crate::config::{TemplateVersion, WarmState};
use crate::message::{InstanceId, LaunchOrder};

/// How long a worker may take to finish after the signal: 30 seconds.
const GRACE: Duration = Duration::from_secs(30);

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;
type Start<E> = dyn Fn(WorkerContext) -> (E, Work) + Send + Sync;

/// A [`Provisioner`] of tokio tasks: each instance is a task made by a function from its [`WorkerContext`].
///
/// This is the one place of the crate that spawns, on the runtime that it is given and only when the group launches: two
/// tasks a worker, the work and its supervisor. A worker is asked to stop by its context's signal, has a
/// [grace](Self::grace) on the group's clock, and is aborted then (which takes effect where it next waits). Dropping the
/// provisioner aborts all but what was given away.
///
/// In the warm pool a stopped worker is one that was asked to stop and is made anew; a frozen one goes on and is expected to
/// wait in [`WorkerContext::active`].
///
/// ```
/// use sim_core::seam::Timed;
/// use sim_scaling::provisioner::Tasks;
/// use sim_scaling::{Force, Group, GroupConfig};
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let workers = Tasks::new(tokio::runtime::Handle::current(), |context| async move {
///     // take work until told to stop
///     context.stopped().await;
/// });
/// let group = Group::new(GroupConfig::new("workers", 3, 10), workers)?;
/// let driver = tokio::spawn({
///     let group = group.clone();
///     async move { group.run().await }
/// });
/// # tokio::task::yield_now().await;
/// group.delete(Force::Yes)?; // each finishes what it has
/// driver.await?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Tasks<E = ()> {
    handle: Handle,
    start: Arc<Start<E>>,
    table: Table<E>,
}

impl Tasks<()> {
    /// Workers that fetch their work themselves, on a runtime.
    pub fn new<W, Fut>(handle: Handle, work: W) -> Self
    where
        W: Fn(WorkerContext) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        Self::serving(handle, move |context| ((), work(context)))
    }
}

impl<E: Clone + Send + Sync + 'static> Tasks<E> {
    /// Workers that are given work through an endpoint, such as the sending half of a channel: what joins the group's
    /// roster.
    pub fn serving<W, Fut>(handle: Handle, start: W) -> Self
    where
        W: Fn(WorkerContext) -> (E, Fut) + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let start = move |context| {
            let (endpoint, work) = start(context);
            (endpoint, Box::pin(work) as Work)
        };
        Self {
            handle,
            start: Arc::new(start),
            table: Table::new(GRACE),
        }
    }

    /// How long a worker may take to finish after the signal, before it is aborted. Default: 30 s.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.table.set_grace(grace);
        self
    }

    /// How many workers run now, those that were given away included.
    #[must_use]
    pub fn running(&self) -> usize {
        self.table.running()
    }

    fn spawn(&self, order: &LaunchOrder, signal: watch::Receiver<Signal>, ending: Ending<E>) -> E {
        let context = WorkerContext {
            order: order.clone(),
            signal: signal.clone(),
        };
        let (endpoint, work) = (self.start)(context);
        let work = self.handle.spawn(work);
        self.handle.spawn(supervise(work, signal, ending));
        endpoint
    }
}

/// Waits for the end of a worker, and aborts it when it is told to.
async fn supervise<E>(
    mut work: tokio::task::JoinHandle<()>,
    mut signal: watch::Receiver<Signal>,
    ending: Ending<E>,
) {
    let end = loop {
        tokio::select! {
            end = &mut work => break end,
            told = next_signal(&mut signal) => if told == Signal::Kill {
                work.abort();
                break work.await;
            },
        }
    };
    let reason = match end {
        Ok(()) => "finished".to_owned(),
        Err(error) if error.is_cancelled() => "aborted".to_owned(),
        Err(error) => {
            let panic = error.into_panic();
            let text = panic
                .downcast_ref::<&str>()
                .map(|text| (*text).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned());
            format!("panicked: {}", text.unwrap_or_else(|| "no text".to_owned()))
        }
    };
    ending.report(reason);
}

impl<E: Clone + Send + Sync + 'static> Provisioner for Tasks<E> {
    type Endpoint = E;

    fn launch(&self, order: &LaunchOrder, _: Instant) -> Result<(), LaunchRefused> {
        self.table.launch(order, |order, signal, ending| {
            Ok(self.spawn(order, signal, ending))
        })
    }

    fn terminate(&self, id: InstanceId, now: Instant) {
        self.table.terminate(id, now);
    }

    fn poll(&self, now: Instant) -> Option<Report<E>> {
        self.table.poll(now)
    }

    fn pause(&self, id: InstanceId, how: WarmState, now: Instant) -> Result<(), LaunchRefused> {
        self.table.pause(id, how, now)
    }

    fn resume(&self, id: InstanceId, _: Instant) -> Result<(), LaunchRefused> {
        self.table.resume(id, |order, signal, ending| {
            Ok(self.spawn(order, signal, ending))
        })
    }

    fn release(&self, id: InstanceId) {
        self.table.release(id);
    }

    fn adopt(&self, id: InstanceId) -> Result<E, LaunchRefused> {
        self.table.adopt(id)
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.table.next_deadline()
    }

    fn connect(&self, wake: Wake) {
        self.table.connect(wake);
    }
}

impl<E: Clone + Send + Sync + 'static> fmt::Debug for Tasks<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tasks")
            .field("running", &self.running())
            .finish_non_exhaustive()
    }
}

/// What a worker knows of itself, and its signal to stop. Clones are the same worker's.
#[derive(Debug, Clone)]
pub struct WorkerContext {
    order: LaunchOrder,
    signal: watch::Receiver<Signal>,
}

impl WorkerContext {
    /// The instance's id.
    #[must_use]
    pub fn id(&self) -> InstanceId {
        self.order.id
    }

    /// Its zone.
    #[must_use]
    pub fn zone(&self) -> &str {
        &self.order.zone
    }

    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.order.kind
    }

    /// The template's version that it is made from, with its parameters.
    #[must_use]
    pub fn template(&self) -> &TemplateVersion {
        &self.order.template
    }

    /// Whether it was asked to stop.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        let signal = *self.signal.borrow();
        matches!(signal, Signal::Stop | Signal::Kill)
            || (self.signal.has_changed().is_err() && signal != Signal::Free)
    }

    /// Completes when it is asked to stop.
    ///
    /// # Cancel safety
    /// Nothing is lost: the signal stays.
    pub async fn stopped(&self) {
        let mut signal = self.signal.clone();
        while !self.is_stopping() {
            // Marks what is there as seen, or a change between the look above and here would be missed.
            if matches!(*signal.borrow_and_update(), Signal::Stop | Signal::Kill) {
                return;
            }
            if matches!(next_signal(&mut signal).await, Signal::Stop | Signal::Kill) {
                return;
            }
        }
    }

    /// Completes at once while it may work, and after a freeze when it may again, or is asked to stop.
    ///
    /// # Cancel safety
    /// Nothing is lost: the signal stays.
    pub async fn active(&self) {
        let mut signal = self.signal.clone();
        while *signal.borrow_and_update() == Signal::Freeze {
            next_signal(&mut signal).await;
            if self.is_stopping() {
                return;
            }
        }
    }
}
