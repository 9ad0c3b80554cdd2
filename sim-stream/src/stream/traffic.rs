//! On-demand mode: what comes in is told to the machine, and the shards follow it.
//!
//! With throughput limits each put asks the machine, which then throttles a stream that grows too fast. Without them
//! nobody is refused, and a put in many tells it what came in since the last one.

use sim_core::sync::Arc;
use sim_core::sync::atomic::Ordering;
use sim_core::time::Instant;

use super::reshard::Control;
use super::shared::{Shard, Shared, Table, count};
use crate::config::{StreamConfig, StreamMode};
use crate::error::Refusal;
use crate::machine::limits::Exceeded;
use crate::machine::on_demand::OnDemand;

/// The machine, while the stream is on-demand.
pub(crate) type Traffic = Option<OnDemand>;

/// The machine of a stream that is in this mode from now on, with so many shards.
pub(crate) fn traffic_of(
    config: &StreamConfig,
    mode: StreamMode,
    now: Instant,
    shards: u32,
) -> Traffic {
    match mode {
        StreamMode::OnDemand => Some(OnDemand::new(now, config.limits.on_demand, shards)),
        StreamMode::Provisioned { .. } => None,
    }
}

impl<T: Send + Sync + 'static> Shared<T> {
    /// Lets a record in by the limits of its shard and by those of the stream, or by neither: what one of them refuses
    /// uses nothing up.
    pub(crate) fn admit(
        &self,
        table: &Table<T>,
        shard: &Shard<T>,
        now: Instant,
        bytes: usize,
    ) -> Result<(), Refusal> {
        let Some(limits) = &shard.limits else {
            return Ok(());
        };
        let bytes = bytes as u64;
        let refusal = |exceeded: Exceeded| Refusal::Throttled {
            shard_id: shard.id,
            resource: exceeded.resource,
            retry_at: exceeded.retry_at,
        };
        let mut limits = limits.lock();
        limits.check_write(now, bytes).map_err(|exceeded| {
            shard.counters.add(count::WRITE_THROTTLED, 1);
            refusal(exceeded)
        })?;
        if table.is_on_demand
            && let Some(machine) = &mut *self.traffic.lock()
        {
            machine.admit(now, bytes, 1).map_err(|exceeded| {
                self.counters.add(count::STREAM_THROTTLED, 1);
                refusal(exceeded)
            })?;
            self.hasten(machine);
        }
        limits.charge_write(now, bytes);
        Ok(())
    }

    /// Takes back that the stream has let a record in, whose shard ended before the record was put. The limits of that
    /// shard are of no use any more.
    pub(crate) fn take_back(&self, table: &Table<T>, shard: &Shard<T>, bytes: usize) {
        if shard.limits.is_some()
            && table.is_on_demand
            && let Some(machine) = &mut *self.traffic.lock()
        {
            machine.give_back(bytes as u64, 1);
        }
    }

    /// Tells the machine what came into a shard since it was last told.
    pub(crate) fn observe(&self, shard: &Shard<T>, now: Instant) {
        let mut traffic = self.traffic.lock();
        let Some(machine) = &mut *traffic else {
            return;
        };
        // Both only grow, and are read and noted under the lock: no difference is negative.
        let bytes = shard.counters.sum(count::IN_BYTES);
        let former = shard.observed_bytes.swap(bytes, Ordering::Relaxed);
        let records = shard.log.end();
        let before = shard.observed_records.swap(records, Ordering::Relaxed);
        if records > before {
            machine.observe(now, bytes.saturating_sub(former), records - before);
            self.hasten(machine);
        }
    }

    /// Makes the shards follow the traffic. Called with `control` locked; returns the shards that ended.
    pub(crate) fn follow_traffic(&self, control: &mut Control, now: Instant) -> Vec<Arc<Shard<T>>> {
        let target = match &mut *self.traffic.lock() {
            Some(machine) if !control.is_closed => machine.target(now),
            _ => return Vec::new(),
        };
        if target == control.shards.open_count() {
            return Vec::new();
        }
        // Where too many shards are retained, it is tried again at the next change.
        match control.shards.scale(now, target) {
            Ok(steps) => self.follow(control, &steps),
            Err(_) => Vec::new(),
        }
    }

    /// Notes when the control is to be looked at next: `expiry`, or when the traffic may change the number of shards.
    pub(crate) fn set_due_by(&self, expiry: Option<Instant>) {
        // Held over the store, as by who hastens it: what comes in meanwhile is not overwritten.
        let traffic = self.traffic.lock();
        let change = traffic.as_ref().and_then(OnDemand::next_change);
        let due = expiry.into_iter().chain(change).min();
        let due = due.unwrap_or(Instant::NEVER);
        self.due.store(due.as_nanos(), Ordering::Relaxed);
    }

    /// Has the control looked at by the next change. The machine is locked.
    fn hasten(&self, machine: &OnDemand) {
        if let Some(next) = machine.next_change() {
            self.due.fetch_min(next.as_nanos(), Ordering::Relaxed);
        }
    }
}
