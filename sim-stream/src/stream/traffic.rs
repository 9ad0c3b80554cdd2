//! On-demand mode: what comes in is told to the machine, and the shards follow it.
//!
//! With throughput limits each put asks the machine, which then throttles a stream that grows too fast. Without them
//! nobody is refused, and a put in many tells it what came in since the last one.

use sim_core::sync::Arc;
use sim_core::sync::atomic::Ordering;
use sim_core::time::Instant;

use super::reshard::Control;
use super::shared::{Shard, Shared, count};
use crate::config::{StreamConfig, StreamMode};
use crate::error::Refusal;
use crate::machine::limits::Exceeded;
use crate::machine::on_demand::OnDemand;
use crate::message::ShardId;

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
    /// Lets a record into a stream that is throttled as a whole.
    pub(crate) fn admit(&self, shard: ShardId, now: Instant, bytes: usize) -> Result<(), Refusal> {
        let mut traffic = self.traffic.lock();
        let Some(machine) = &mut *traffic else {
            return Ok(());
        };
        let admitted = machine.admit(now, bytes as u64, 1);
        let next = machine.next_change();
        drop(traffic);
        self.hasten(next);
        admitted.map_err(
            |Exceeded {
                 resource, retry_at, ..
             }| {
                self.counters.add(count::STREAM_THROTTLED, 1);
                Refusal::Throttled {
                    shard_id: shard,
                    resource,
                    retry_at,
                }
            },
        )
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
            self.hasten(machine.next_change());
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

    /// When the traffic may next change the number of shards.
    pub(crate) fn next_change(&self) -> Option<Instant> {
        self.traffic.lock().as_ref()?.next_change()
    }

    /// Has the control looked at by then.
    fn hasten(&self, next: Option<Instant>) {
        if let Some(next) = next {
            self.due.fetch_min(next.as_nanos(), Ordering::Relaxed);
        }
    }
}
