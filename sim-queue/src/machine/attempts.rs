//! Receive attempts: a receive that is repeated under its id returns the same messages.
//!
//! # Rules
//! For five minutes from the first receive, a receive with the same attempt id
//! - returns the same messages under the same leases, their visibility timeout started again, while
//!   the leases run and none of them was touched (no message deleted, returned or changed);
//! - fails with [`ReceiveError::AttemptSpent`] while the leases would run but one was touched;
//! - is a new receive once the leases have ended by themselves.
//!
//! A receive that returned nothing is not remembered. The receive count does not grow with a
//! repetition, since no new lease begins.

use std::time::Duration;

use sim_core::time::Instant;

use super::recent::{Recent, hash_bytes};
use super::records::State;
use super::rules::FifoConfig;
use super::timers::Usual;
use super::{Leased, Machine, MessageKey, ReceiveError};
use crate::group::ReceiveAttemptId;

pub(super) struct Attempts {
    receives: Recent<ReceiveAttemptId, Attempt>,
    seed: u64,
}

struct Attempt {
    /// When its leases end by themselves.
    deadline: Instant,
    leases: Box<[(MessageKey, u64)]>,
}

impl Attempts {
    pub(super) fn new(config: &FifoConfig, seed: u64) -> Self {
        Self {
            receives: Recent::new(config.attempt_window, config.attempt_limit),
            seed,
        }
    }
}

impl<M: Copy> Machine<M> {
    /// Serves a receive that has an attempt id.
    pub(super) fn receive_attempt(
        &mut self,
        now: Instant,
        max: usize,
        visibility: Option<Duration>,
        id: &ReceiveAttemptId,
        out: &mut Vec<Leased<M>>,
    ) -> Result<usize, ReceiveError> {
        let Some(mut attempts) = self.attempts.take() else {
            return Err(ReceiveError::AttemptOutOfOrder);
        };
        let answer = self.receive_once(now, max, visibility, id, &mut attempts, out);
        self.attempts = Some(attempts);
        answer
    }

    fn receive_once(
        &mut self,
        now: Instant,
        max: usize,
        visibility: Option<Duration>,
        id: &ReceiveAttemptId,
        attempts: &mut Attempts,
        out: &mut Vec<Leased<M>>,
    ) -> Result<usize, ReceiveError> {
        let hash = hash_bytes(attempts.seed, id.as_str().as_bytes());
        attempts.receives.evict(now);
        match attempts.receives.find_mut(hash, id) {
            Some(attempt) if now < attempt.deadline => {
                attempt.deadline = self.replay(now, &attempt.leases, visibility, out)?;
                return Ok(attempt.leases.len());
            }
            Some(_) => attempts.receives.remove(hash, id),
            None => {}
        }
        if attempts.receives.is_full() {
            return Err(ReceiveError::AttemptTableFull);
        }
        let before = out.len();
        let taken = self.receive_fifo(now, max, visibility, out);
        if let Some(first) = out.get(before) {
            let attempt = Attempt {
                deadline: first.deadline,
                leases: out[before..]
                    .iter()
                    .map(|leased| (leased.key, leased.lease))
                    .collect(),
            };
            attempts.receives.insert(now, hash, id.clone(), attempt);
        }
        Ok(taken)
    }

    /// Returns the leases again, or fails without a change.
    fn replay(
        &mut self,
        now: Instant,
        leases: &[(MessageKey, u64)],
        visibility: Option<Duration>,
        out: &mut Vec<Leased<M>>,
    ) -> Result<Instant, ReceiveError> {
        let untouched = |&(key, lease): &(MessageKey, u64)| {
            let index = self.find(key)?;
            let record = &self.records[index];
            let hold = self.holds.get(record.hold)?;
            let same = record.state == State::InFlight
                && u64::from(hold.receive_count) == lease
                && hold.lease_held
                && !hold.changed
                && now < hold.deadline;
            same.then_some(index)
        };
        if !leases.iter().all(|lease| untouched(lease).is_some()) {
            return Err(ReceiveError::AttemptSpent);
        }
        let mut end = Instant::NEVER;
        for &(key, _) in leases {
            let hold = self.records[key.index].hold;
            let latest = self.holds[hold].received_at + self.rules.max_lease;
            let deadline = (now + visibility.unwrap_or(self.rules.visibility_timeout)).min(latest);
            self.timers.clear(&mut self.holds, hold, key.sequence);
            self.timers
                .set(&mut self.holds, hold, deadline, key.sequence, Usual::No);
            out.push(self.leased(key.index));
            end = end.min(deadline);
        }
        Ok(end)
    }
}
