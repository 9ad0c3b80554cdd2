//! What a machine holds and has done, in the field's terms.

use std::time::Duration;

use sim_core::time::Instant;

use super::records::{NIL, State};
use super::{Machine, Order};

/// A snapshot of a machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Messages that a receiver may take, on a FIFO queue also those whose group is not due.
    pub visible: usize,
    /// Messages whose delay has not passed.
    pub delayed: usize,
    /// Messages under a lease.
    pub in_flight: usize,
    /// The age of the oldest message in any state.
    pub oldest_age: Option<Duration>,
    /// The age of the oldest visible message.
    pub oldest_visible_age: Option<Duration>,

    /// Messages stored.
    pub sent: u64,
    /// Messages handed to receivers; a message received twice counts twice.
    pub received: u64,
    /// Messages acknowledged.
    pub deleted: u64,
    /// Leases that timed out.
    pub timed_out: u64,
    /// Leases given up by their holders.
    pub released: u64,
    /// Messages that became dead letters.
    pub dead_lettered: u64,
    /// Messages deleted because their retention ended.
    pub expired: u64,
    /// Messages purged.
    pub purged: u64,
    /// Sends that repeated an earlier one and stored nothing.
    pub deduplicated: u64,

    /// Groups or tenants with messages.
    pub groups: usize,
    /// Groups or tenants with a message in flight.
    pub groups_in_flight: usize,
    /// Noisy tenants.
    pub noisy_groups: usize,
    /// Visible messages of tenants that are not noisy.
    pub visible_in_quiet_groups: usize,
    /// Messages in flight of tenants that are not noisy.
    pub in_flight_in_quiet_groups: usize,
    /// Delayed messages of tenants that are not noisy.
    pub delayed_in_quiet_groups: usize,
    /// The greatest age among the messages that are next in turn of the tenants that are not noisy.
    /// A message that came back from a receiver stands behind younger ones, so this is approximate.
    pub oldest_age_in_quiet_groups: Option<Duration>,
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counters {
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) deleted: u64,
    pub(super) timed_out: u64,
    pub(super) released: u64,
    pub(super) dead_lettered: u64,
    pub(super) expired: u64,
    pub(super) purged: u64,
    pub(super) deduplicated: u64,
}

impl<M: Copy> Machine<M> {
    /// Takes a snapshot.
    ///
    /// O(1), except for the oldest visible message, which is looked for past the older ones that
    /// are in flight or delayed, and for the tenants of a fair queue, which are gone through.
    #[must_use]
    pub fn stats(&self, now: Instant) -> Stats {
        let age = |index: u32| now - self.records[index].sent_at;
        let oldest_visible = self
            .ages
            .iter(&self.records)
            .find(|&at| self.records[at].state == State::Visible);
        let counters = self.counters;
        let mut stats = Stats {
            visible: self.tally.visible as usize,
            delayed: self.tally.delayed as usize,
            in_flight: self.tally.in_flight as usize,
            oldest_age: self.ages.oldest(&self.records).map(age),
            oldest_visible_age: oldest_visible.map(age),
            sent: counters.sent,
            received: counters.received,
            deleted: counters.deleted,
            timed_out: counters.timed_out,
            released: counters.released,
            dead_lettered: counters.dead_lettered,
            expired: counters.expired,
            purged: counters.purged,
            deduplicated: counters.deduplicated,
            groups: self.groups.occupied(),
            groups_in_flight: self.groups.in_flight as usize,
            ..Stats::default()
        };
        if self.order == Order::Fair {
            for (_, group) in self.groups.table.iter() {
                if self.is_noisy(group, now) {
                    stats.noisy_groups += 1;
                    continue;
                }
                stats.visible_in_quiet_groups += group.tally.visible as usize;
                stats.in_flight_in_quiet_groups += group.tally.in_flight as usize;
                stats.delayed_in_quiet_groups += group.tally.delayed as usize;
                if group.lane.head != NIL {
                    stats.oldest_age_in_quiet_groups = stats
                        .oldest_age_in_quiet_groups
                        .max(Some(age(group.lane.head)));
                }
            }
        }
        stats
    }
}
