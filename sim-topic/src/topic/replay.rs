//! Replays: a subscription reads the archive, and then goes live without a gap.
//!
//! While a replay runs, what is published comes to the subscription through the archive too, in its order; so the
//! replay ends, under the lock that makes the topic's order, when nothing is left to read. It is pumped by whoever
//! serves the subscription, a window of messages at a time.
//!
//! When the archive ends, all replays fail under that same lock, and what is published from then on is delivered live;
//! it may overtake what a replay has just read and not put into the lane yet.
//!
//! The FIFO lock is taken before that of a replay. Who pumps has the replay in hand, without a lock; a replay that was
//! stopped meanwhile has another generation, and is not put back.
//!
//! # Ordering
//! `replaying` is written under the replay's lock, and set, or cleared for what goes on to be delivered live, under the
//! FIFO lock too, under which publishers read it; the read before them is a hint, which whoever serves next repeats.

use sim_core::sync::Arc;
use sim_core::sync::atomic::Ordering;
use sim_core::time::Instant;

use crate::error::ReplayError;
use crate::machine::archive::{Replay, ReplayPolicy, ReplayStatus, Step};
use crate::message::{Notification, Shared};
use crate::topic::hub::Hub;
use crate::topic::lane::{Sub, mode};
use crate::topic::table::judge;

/// How many messages of a replay stand in the lane at most; the rest waits in the archive.
const WINDOW: usize = 64;

/// The replay of a subscription: the one under way, or what became of the last one.
#[derive(Debug, Default)]
pub(crate) struct Replaying {
    replay: Option<Replay>,
    last: Option<ReplayProgress>,
    /// How many replays were started or stopped.
    generation: u64,
}

/// How far a replay is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct ReplayProgress {
    /// Its status.
    pub status: ReplayStatus,
    /// Messages that left the archive before the replay came to them.
    pub lost: u64,
}

impl Replaying {
    pub(crate) const fn progress(&self) -> Option<ReplayProgress> {
        self.last
    }

    /// It does not go on.
    fn stop(&mut self) {
        self.replay = None;
        self.generation += 1;
        if let Some(last) = &mut self.last
            && last.status != ReplayStatus::Completed
        {
            last.status = ReplayStatus::Failed;
        }
    }
}

impl<T> Sub<T> {
    /// Stops the replay under way, if there is one: the subscription or the archive is over.
    pub(crate) fn stop_replay(&self) {
        let mut state = self.replay.lock();
        state.stop();
        self.replaying.store(false, Ordering::Release);
    }
}

/// What one look into the archive brought.
struct Found<T> {
    messages: Vec<(Arc<Shared<T>>, bool)>,
    is_over: bool,
}

impl<T: Send + Sync + 'static> Hub<T> {
    /// Starts a replay.
    pub(crate) fn start_replay(
        &self,
        sub: &Arc<Sub<T>>,
        policy: ReplayPolicy,
    ) -> Result<(), ReplayError> {
        if policy.check().is_err() {
            return Err(ReplayError::EndsBeforeStart);
        }
        let Some(fifo) = &self.fifo else {
            return Err(ReplayError::NoArchive);
        };
        let now = self.clock.now();
        let mut expired = Vec::new();
        {
            let mut fifo = fifo.lock();
            let Some(archive) = &mut fifo.archive else {
                return Err(ReplayError::NoArchive);
            };
            if sub.mode() > mode::QUEUED {
                return Err(ReplayError::NotActive);
            }
            let mut state = sub.replay.lock();
            if sub.replaying.swap(true, Ordering::AcqRel) {
                return Err(ReplayError::InProgress);
            }
            archive.expire(self.clock.timestamp(now), &mut expired);
            // Here, under the FIFO lock: what is published from now on is not of the archive.
            state.replay = Some(archive.begin(policy));
            state.generation += 1;
            state.last = Some(ReplayProgress {
                status: ReplayStatus::Pending,
                lost: 0,
            });
        }
        drop(expired);
        self.attend(sub, now);
        Ok(())
    }

    /// Has a subscription served: a sink at once, a handler by the drivers.
    pub(crate) fn attend(&self, sub: &Arc<Sub<T>>, now: Instant) {
        if sub.is_sink() {
            self.serve(sub, now);
        } else {
            self.driver.make_ready(sub);
        }
    }

    /// Brings messages of the archive into the lane, if a replay runs and there is room.
    #[inline]
    pub(crate) fn pump_replay(&self, sub: &Arc<Sub<T>>, now: Instant) {
        if sub.replaying.load(Ordering::Acquire) {
            self.pump(sub, now);
        }
    }

    #[cold]
    fn pump(&self, sub: &Arc<Sub<T>>, now: Instant) {
        loop {
            let room = {
                let lane = sub.lane.lock();
                if lane.over || lane.paused {
                    return;
                }
                WINDOW
                    .min(lane.order.limit())
                    .saturating_sub(lane.order.len())
            };
            if room == 0 {
                return;
            }
            // Who finds it taken leaves the work to the one who has it.
            let (mut replay, generation) = {
                let mut state = sub.replay.lock();
                match state.replay.take() {
                    Some(replay) => (replay, state.generation),
                    None => return,
                }
            };
            let found = self.look_into_archive(sub, &mut replay, generation, room, now);
            for (shared, is_replayed) in found.messages {
                let message = &shared.content.message;
                match judge(message, &sub.filter.load_arc(), self.body) {
                    Some(reason) => sub.tally.filtered(reason),
                    None => {
                        let notification = Notification::shared(shared, sub.id, is_replayed);
                        if let Some(extra) = self.enqueue(sub, notification) {
                            self.overflowed(sub, extra, now);
                        }
                    }
                }
            }
            let mut state = sub.replay.lock();
            if state.generation != generation {
                return;
            }
            state.last = Some(ReplayProgress {
                status: replay.status(),
                lost: replay.lost(),
            });
            if found.is_over {
                return;
            }
            state.replay = Some(replay);
        }
    }

    fn look_into_archive(
        &self,
        sub: &Sub<T>,
        replay: &mut Replay,
        generation: u64,
        room: usize,
        now: Instant,
    ) -> Found<T> {
        let mut found = Found {
            messages: Vec::new(),
            is_over: false,
        };
        let Some(fifo) = &self.fifo else {
            return found;
        };
        let mut expired = Vec::new();
        let mut fifo = fifo.lock();
        let state = sub.replay.lock();
        let archive = match &mut fifo.archive {
            Some(archive) if state.generation == generation => archive,
            _ => {
                // It was stopped meanwhile, as all are when the archive ends.
                found.is_over = true;
                return found;
            }
        };
        archive.expire(self.clock.timestamp(now), &mut expired);
        while found.messages.len() < room {
            let before = replay.clone();
            match archive.step(replay) {
                Step::Message { item, replayed, .. } => {
                    found.messages.push((Arc::clone(item), replayed));
                }
                Step::Lost { .. } => {}
                Step::CaughtUp if !found.messages.is_empty() => {
                    // These have to be in the lane before anything comes live.
                    *replay = before;
                    break;
                }
                Step::CaughtUp | Step::Failed => {
                    sub.replaying.store(false, Ordering::Release);
                    found.is_over = true;
                    break;
                }
            }
        }
        drop(state);
        drop(fifo);
        drop(expired);
        found
    }
}
