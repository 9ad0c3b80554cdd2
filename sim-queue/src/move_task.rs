//! Move tasks: dead letters on their way back, at a rate, with progress, until done or cancelled.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use sim_core::rate::TokenBucket;
use sim_core::seam::{Reason, Sink};
use sim_core::sync::{Arc, Mutex};
use sim_core::time::Instant;
use sim_core::wait::{Attempt, Elapsed, until, until_blocking};

use crate::error::{MoveError, TryReceiveError};
use crate::group::DeduplicationId;
use crate::machine::Kind;
use crate::message::Message;
use crate::queue::{Queue, take_back};
use crate::shared::Shared;

/// Tasks that a queue remembers: SQS lists the last ten.
const REMEMBERED: usize = 10;
/// How long a task waits when its destination is full and does not say until when.
const RETRY: Duration = Duration::from_secs(1);
/// Messages that one step moves at most before it lets others run.
const STEP: u64 = 1024;

/// What a move task shall do.
pub struct MoveTask<T> {
    /// Where the messages go. `None`, the default: each to the queue it came from.
    pub destination: Option<Arc<dyn Sink<Message<T>>>>,
    /// Messages a second. `None`, the default: as fast as the destination takes them. SQS allows up to 500.
    pub max_per_second: Option<u32>,
}

impl<T> Default for MoveTask<T> {
    fn default() -> Self {
        Self {
            destination: None,
            max_per_second: None,
        }
    }
}

impl<T> fmt::Debug for MoveTask<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MoveTask")
            .field("max_per_second", &self.max_per_second)
            .finish_non_exhaustive()
    }
}

/// How far a move task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum MoveStatus {
    /// It moves messages when it is stepped.
    Running,
    /// All that was visible at its start has moved, or nothing is left.
    Completed,
    /// It was cancelled; what it moved stays moved.
    Cancelled,
    /// A message's destination takes nothing any more, or not this message, or is not known.
    Failed,
}

/// A snapshot of a move task.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct MoveProgress {
    /// How far it is.
    pub status: MoveStatus,
    /// Messages moved so far.
    pub moved: u64,
    /// Messages that were visible at the start: about as many as will move.
    pub to_move: u64,
    /// Why it failed.
    pub failure: Option<String>,
}

struct State {
    progress: MoveProgress,
    bucket: Option<TokenBucket>,
    retry_at: Instant,
}

/// What one attempt to move a message came to.
enum Outcome {
    Moved,
    Nothing,
    Later(Instant),
    Failed(String),
}

/// The tasks of one queue.
pub(crate) struct Moves<T> {
    active: Option<Arc<Task<T>>>,
    /// What they came to; their destinations are let go.
    past: VecDeque<MoveProgress>,
}

impl<T> Default for Moves<T> {
    fn default() -> Self {
        Self {
            active: None,
            past: VecDeque::new(),
        }
    }
}

struct Task<T> {
    destination: Option<Arc<dyn Sink<Message<T>>>>,
    state: Mutex<State>,
}

impl<T> Moves<T> {
    /// The tasks that are remembered, the newest first.
    pub(crate) fn list(&self) -> Vec<MoveProgress> {
        self.active
            .iter()
            .map(|task| task.state.lock().progress.clone())
            .chain(self.past.iter().cloned())
            .collect()
    }

    fn retire(&mut self, task: &Arc<Task<T>>) {
        if self
            .active
            .as_ref()
            .is_some_and(|active| Arc::ptr_eq(active, task))
            && let Some(task) = self.active.take()
        {
            let progress = task.state.lock().progress.clone();
            self.past.push_front(progress);
            self.past.truncate(REMEMBERED - 1);
        }
    }
}

/// A running move task. A message that its destination has no room for goes back behind the others, in a FIFO
/// queue behind those of its group.
///
/// It moves messages while it is driven: by [`step`](Self::step) or one of the
/// `run`s. Dropping the handle cancels the task.
pub struct MoveHandle<T: Send + Sync + 'static> {
    queue: Queue<T>,
    task: Arc<Task<T>>,
}

impl<T: Send + Sync + 'static> MoveHandle<T> {
    pub(crate) fn start(queue: &Queue<T>, task: MoveTask<T>) -> Result<Self, MoveError> {
        let shared = queue.shared();
        let limit = shared.config.limits.moves_per_second;
        if let Some(rate) = task.max_per_second
            && !(1..=limit).contains(&rate)
        {
            return Err(MoveError::Rate { value: rate, limit });
        }
        let to_move = queue.stats().visible;
        let mut moves = shared.moves.lock();
        if moves.active.is_some() {
            return Err(MoveError::Running);
        }
        let task = Arc::new(Task {
            destination: task.destination,
            state: Mutex::new(State {
                progress: MoveProgress {
                    status: MoveStatus::Running,
                    moved: 0,
                    to_move,
                    failure: None,
                },
                bucket: task
                    .max_per_second
                    .map(|rate| TokenBucket::new(u64::from(rate), 1)),
                retry_at: Instant::ORIGIN,
            }),
        });
        moves.active = Some(Arc::clone(&task));
        drop(moves);
        Ok(Self {
            queue: queue.clone(),
            task,
        })
    }

    /// Moves what the rate and the destination allow now, at most 1,024 messages.
    pub fn step(&self) -> MoveProgress {
        let shared = self.queue.shared();
        let now = shared.clock.now();
        for _ in 0..STEP {
            if !self.may_move(now) {
                break;
            }
            // The destination is foreign code: it runs under no lock.
            let outcome = self.move_one(shared, now);
            self.record(outcome);
        }
        let progress = self.progress();
        if progress.status != MoveStatus::Running {
            shared.moves.lock().retire(&self.task);
        }
        progress
    }

    fn may_move(&self, now: Instant) -> bool {
        let mut state = self.task.state.lock();
        if state.progress.status != MoveStatus::Running || state.retry_at > now {
            return false;
        }
        if state.progress.moved >= state.progress.to_move {
            state.progress.status = MoveStatus::Completed;
            return false;
        }
        if let Some(bucket) = &mut state.bucket
            && let Err(when) = bucket.take(now, 1)
        {
            state.retry_at = when;
            return false;
        }
        true
    }

    fn record(&self, outcome: Outcome) {
        let mut state = self.task.state.lock();
        match outcome {
            Outcome::Moved => state.progress.moved += 1,
            Outcome::Later(when) => state.retry_at = when,
            Outcome::Nothing if state.progress.status == MoveStatus::Running => {
                state.progress.status = MoveStatus::Completed;
            }
            Outcome::Failed(failure) if state.progress.status == MoveStatus::Running => {
                state.progress.status = MoveStatus::Failed;
                state.progress.failure = Some(failure);
            }
            Outcome::Nothing | Outcome::Failed(_) => {}
        }
    }

    fn move_one(&self, shared: &Shared<T>, now: Instant) -> Outcome {
        let delivery = match self.queue.try_receive() {
            Ok(delivery) => delivery,
            Err(TryReceiveError::OverLimit { .. }) => return Outcome::Later(now + RETRY),
            // Nothing visible is left: what was there has been received by others.
            Err(_) => return Outcome::Nothing,
        };
        if !delivery.is_alone() {
            // An older delivery still looks at it, so that it cannot be taken out by value.
            let _ = delivery.release_after(RETRY);
            return Outcome::Later(now + RETRY);
        }
        let id = delivery.id();
        let home = delivery
            .dead_letter()
            .map(|origin| Arc::clone(&origin.return_to));
        let Ok(Some(stored)) = delivery.withdraw() else {
            // Somebody came to look at it in this moment: it is put back when they go.
            return Outcome::Later(now + RETRY);
        };
        let kept = (
            stored.sent_at,
            stored.headers.headers().and_then(|headers| headers.id),
        );
        let mut message = Message {
            value: stored.value,
            headers: stored.headers,
        };
        // SQS: a message that is moved back counts as new.
        if let Some(headers) = message.headers.headers_mut() {
            headers.id = None;
            headers.sent_at = None;
            headers.delay = None;
        }
        let origin = message
            .headers
            .headers_mut()
            .and_then(|headers| headers.origin.take());
        let outcome = match (&self.task.destination, home) {
            (Some(sink), _) => {
                // The destination may have seen the first of this message: it must not take it for that.
                if matches!(shared.config.kind, Kind::Fifo(_))
                    && let Ok(own) = DeduplicationId::new(id.to_string())
                {
                    message.headers_mut().deduplication_id = Some(own);
                }
                sink.try_deliver(message)
            }
            (None, Some(home)) => home.deliver(message),
            (None, None) => Err(sim_core::seam::Refused::rejected(
                message,
                "the message is no dead letter",
            )),
        };
        let Err(refused) = outcome else {
            return Outcome::Moved;
        };
        let mut message = refused.item;
        let headers = message.headers_mut();
        headers.origin = origin;
        headers.id = kept.1;
        headers.sent_at = Some(kept.0);
        take_back(&self.queue.slots, message);
        match refused.reason {
            Reason::Full { retry_at } => Outcome::Later(retry_at.unwrap_or(now + RETRY)),
            reason => Outcome::Failed(reason.to_string()),
        }
    }

    fn attempt(&self) -> Attempt<MoveProgress> {
        let progress = self.step();
        if progress.status == MoveStatus::Running {
            let retry_at = self.task.state.lock().retry_at;
            // A full step ends with a retry in the past: go on, but let others run first.
            Attempt::Pending { wake_at: retry_at }
        } else {
            Attempt::Done {
                value: progress,
                more: false,
            }
        }
    }

    /// Drives the task to its end.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the task where it is; no message is lost.
    pub async fn run(&self) -> MoveProgress {
        match self.run_until(Instant::NEVER).await {
            Ok(progress) | Err(progress) => progress,
        }
    }

    /// Drives the task until its end or a deadline.
    ///
    /// # Errors
    /// The progress so far when the deadline passed first.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the task where it is; no message is lost.
    pub async fn run_until(&self, deadline: Instant) -> Result<MoveProgress, MoveProgress> {
        let shared = self.queue.shared();
        until(&shared.moving, &shared.clock, deadline, || self.attempt())
            .await
            .map_err(|Elapsed| self.progress())
    }

    /// Drives the task to its end, blocking the thread.
    pub fn run_blocking(&self) -> MoveProgress {
        let shared = self.queue.shared();
        match until_blocking(&shared.moving, &shared.clock, Instant::NEVER, || {
            self.attempt()
        }) {
            Ok(progress) => progress,
            Err(Elapsed) => self.progress(),
        }
    }

    /// When the next step can move something; `None` when the task has ended.
    #[must_use]
    pub fn next_step(&self) -> Option<Instant> {
        let state = self.task.state.lock();
        (state.progress.status == MoveStatus::Running).then_some(state.retry_at)
    }

    /// How far the task is.
    #[must_use]
    pub fn progress(&self) -> MoveProgress {
        self.task.state.lock().progress.clone()
    }

    /// Ends the task; what it moved stays moved. Does nothing to a task that has ended.
    pub fn cancel(&self) -> MoveProgress {
        let mut state = self.task.state.lock();
        if state.progress.status == MoveStatus::Running {
            state.progress.status = MoveStatus::Cancelled;
        }
        let progress = state.progress.clone();
        drop(state);
        let shared = self.queue.shared();
        shared.moves.lock().retire(&self.task);
        shared.moving.notify_all();
        progress
    }
}

impl<T: Send + Sync + 'static> Drop for MoveHandle<T> {
    fn drop(&mut self) {
        self.cancel();
    }
}

impl<T: Send + Sync + 'static> fmt::Debug for MoveHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MoveHandle")
            .field("progress", &self.progress())
            .finish_non_exhaustive()
    }
}
