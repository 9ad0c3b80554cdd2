//! Fair queues: a tenant that keeps the receivers busy does not make the others wait.
//!
//! # Rules
//! A tenant is a *noisy neighbour* while it has more than a share (10 %) of the messages in flight
//! and at least some number of them (30), or while more than a share (10 %) of the recent
//! processing time went to its messages. Quiet tenants are served first, one message each in turn;
//! noisy ones, also in turn, when no quiet one has a visible message. Messages without a tenant are
//! one quiet tenant, which is never noisy: nobody asked for them to be told apart.
//!
//! A noisy tenant cannot starve for good: while it is passed over, its leases end and its recent
//! share ages, so it becomes quiet and takes its turn. It waits at most for the longest of its
//! leases and two windows, however many quiet tenants there are.
//!
//! # Algorithm
//! Tenants with visible messages stand in one of two rings. Being noisy depends on totals that
//! change with each receive, so rings are put right when looked at, not when the totals change: a
//! quiet-looking tenant that turns out noisy when its turn comes moves over (each move pays for
//! itself with the turn it lost), and the noisy ring is looked through for tenants that became
//! quiet. That ring is short: at most 9 tenants have more than 10 % of what is in flight and 9 more
//! than 10 % of the time, so a look costs at most 18 comparisons (in general, 100 over the one
//! share plus 100 over the other).
//!
//! Recent time is counted in two windows, the current and the previous one, the latter weighted by
//! how much of it the sliding window still covers (the sliding-window counter of rate limiters);
//! integers only, so equal on every machine. The time of a lease counts when it ends.

use std::time::Duration;

use sim_core::time::Instant;

use super::groups::{Group, Ring};
use super::records::NIL;
use super::rules::{FairConfig, Kind};
use super::{Leased, Machine};

/// Time spent on a tenant's messages lately.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Work {
    /// The window that `current` counts, numbered from the clock's origin.
    window: u64,
    current: u64,
    previous: u64,
}

impl Work {
    fn roll(&mut self, window: u64) {
        if window > self.window {
            self.previous = if window == self.window + 1 {
                self.current
            } else {
                0
            };
            self.current = 0;
            self.window = window;
        }
    }

    pub(super) fn add(&mut self, now: Instant, length: Duration, spent: Duration) {
        self.roll(now.as_nanos() / nanos(length));
        self.current = self.current.saturating_add(nanos(spent));
    }

    /// Nanoseconds within the sliding window, times its length.
    fn recent(mut self, now: Instant, length: Duration) -> u128 {
        let length = nanos(length);
        self.roll(now.as_nanos() / length);
        let covered = length - now.as_nanos() % length;
        u128::from(self.current) * u128::from(length)
            + u128::from(self.previous) * u128::from(covered)
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl<M: Copy> Machine<M> {
    pub(super) fn receive_fair(
        &mut self,
        now: Instant,
        room: usize,
        visibility: Option<Duration>,
        out: &mut Vec<Leased<M>>,
    ) -> usize {
        for taken in 0..room {
            let Some(group) = self.next_tenant(now) else {
                return taken;
            };
            let index = self.groups.table[group].lane.head;
            out.push(self.lease(index, now, visibility));
            self.pass_turn(group);
        }
        room
    }

    /// Puts a tenant that was just received from at the end of its ring.
    pub(super) fn pass_turn(&mut self, group: u32) {
        // The lease put the tenant out of its ring if that was its last visible message.
        let ring = self.groups.table[group].ring_of;
        if matches!(ring, Ring::Ready | Ring::Noisy) {
            self.groups.place(group, ring);
        }
    }

    pub(super) fn next_tenant(&mut self, now: Instant) -> Option<u32> {
        let mut at = self.groups.noisy.head;
        while at != NIL {
            let next = self.groups.next_in_ring(at);
            if !self.is_noisy(&self.groups.table[at], now) {
                self.groups.place(at, Ring::Ready);
            }
            at = next;
        }
        while !self.groups.ready.is_empty() {
            let front = self.groups.ready.head;
            if !self.is_noisy(&self.groups.table[front], now) {
                return Some(front);
            }
            self.groups.place(front, Ring::Noisy);
        }
        (!self.groups.noisy.is_empty()).then_some(self.groups.noisy.head)
    }

    pub(super) fn is_noisy(&self, group: &Group, now: Instant) -> bool {
        let Kind::Fair(fair) = &self.rules.kind else {
            return false;
        };
        if group.id.is_none() {
            return false;
        }
        let own = group.tally.in_flight;
        if own >= fair.min_in_flight
            && u64::from(own) * 100
                > u64::from(self.tally.in_flight) * u64::from(fair.in_flight_share)
        {
            return true;
        }
        fair.processing_share < 100 && {
            let own = group.work.recent(now, fair.window);
            let all = self.work.recent(now, fair.window);
            own.saturating_mul(100) > all.saturating_mul(u128::from(fair.processing_share))
        }
    }

    /// Counts the time of a lease that ended.
    pub(super) fn count_work(&mut self, group: u32, received_at: Instant, ended_at: Instant) {
        if let Kind::Fair(FairConfig { window, .. }) = self.rules.kind {
            let spent = ended_at - received_at;
            self.groups.table[group].work.add(ended_at, window, spent);
            self.work.add(ended_at, window, spent);
        }
    }
}
