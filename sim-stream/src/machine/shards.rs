//! The lineage of shards: create, route, split, merge, list, expire.
//!
//! ```text
//!   hash ▲   shard 0 ─────┬─ 2 ───────────────────────── open
//!        │                │ split
//!        │                └─ 3 ──────┐ merge
//!        │                           ├─ 4 ────────────── open
//!        │   shard 1 ────────────────┘
//!        └──────────────────────────────────────────▶ time
//! ```
//!
//! **Invariants.** The open shards partition the hash space: every hash key belongs to exactly one. A shard's parents are
//! closed before it opens. Ids grow with time, so a child's is above its parents'. A closed shard leaves when its
//! retention is over; its children stay.

mod listing;
mod reshard;
mod routes;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use sim_core::time::{Instant, Timestamp};

pub use self::listing::{MAX_PAGE, Page, Selection};
pub use self::reshard::Step;
pub use self::routes::Routes;
use crate::config::{Limits, ReshardingLimits, StreamMode};
use crate::error::ModeError;
use crate::message::{ChildShard, HashKey, HashRange, Salt, SequenceNumber, ShardId, ShardInfo};

/// The period in which changes are counted.
const DAY: Duration = Duration::from_secs(86_400);

/// All shards of a stream, open ones and closed ones that are retained.
///
/// Bounded by [`Limits::retained_shards`], about 150 bytes each. The log of a shard stands elsewhere: its owner closes
/// it when the shard closes, and reports with [`set_end`](Self::set_end) where it ended.
///
/// ```
/// use sim_core::time::Instant;
/// use sim_stream::machine::shards::Shards;
/// use sim_stream::{HashKey, Limits, ShardId, StreamMode};
///
/// let (now, mode) = (Instant::ORIGIN, StreamMode::Provisioned { shards: 2 });
/// let mut shards = Shards::new(now, mode, &Limits::default());
/// let first = shards.route(HashKey::MIN);
/// assert_eq!(first, ShardId::new(0));
///
/// let middle = shards.shard(first).and_then(|shard| shard.range.middle());
/// shards.split(now, first, middle.expect("it has more than one point"))?;
/// assert_eq!(shards.route(HashKey::MIN), ShardId::new(2));
/// assert_eq!(shards.children(first).len(), 2);
/// # Ok::<(), sim_stream::SplitError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Shards {
    mode: StreamMode,
    max_open: u32,
    max_retained: u32,
    resharding: Option<ReshardingLimits>,
    retained: BTreeMap<ShardId, Shard>,
    /// The open shards by the start of their range. Invariant: they partition the space.
    open: BTreeMap<HashKey, ShardId>,
    /// The closed shards in the order in which they leave.
    closed: BTreeSet<(Instant, ShardId)>,
    /// The number of the next shard.
    next: u32,
    created: Instant,
    /// What arrived up to this point was trimmed. It only grows, also when the retention does. `None` while the stream is
    /// younger than the clock's origin and its retention together.
    trimmed: Option<Instant>,
    /// When the last target counts were set; at most as many as [`ReshardingLimits::changes`].
    changes: VecDeque<Instant>,
    /// When the mode was last changed; at most as many as [`ReshardingLimits::mode_changes`].
    mode_changes: VecDeque<Instant>,
}

/// A shard, as its lineage knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Shard {
    /// Its id.
    pub id: ShardId,
    /// The hash keys that it takes.
    pub range: HashRange,
    /// The shard that it came from by a split, or the first of the two that were merged.
    pub parent: Option<ShardId>,
    /// The second of the two that were merged.
    pub adjacent_parent: Option<ShardId>,
    /// When it was opened.
    pub opened: Instant,
    /// When it was closed.
    pub closed: Option<Instant>,
    /// The end of its log, one past the last position, once it is closed and that was reported.
    pub end: Option<u64>,
    children: [Option<ShardId>; 2],
}

impl Shard {
    /// Whether it takes records.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.closed.is_none()
    }

    /// Its parents: none, one after a split, two after a merge.
    pub fn parents(&self) -> impl Iterator<Item = ShardId> + use<> {
        [self.parent, self.adjacent_parent].into_iter().flatten()
    }

    /// Its children: none while it is open, two after a split, one after a merge.
    pub fn children(&self) -> impl Iterator<Item = ShardId> + use<> {
        self.children.into_iter().flatten()
    }

    /// What a listing tells of it, in the stream's numbers and wall-clock time.
    ///
    /// The ending sequence number is that of the shard's last record, or the starting one if it never had any.
    #[must_use]
    pub fn info(&self, salt: Salt, timestamp: impl Fn(Instant) -> Timestamp) -> ShardInfo {
        ShardInfo {
            id: self.id,
            parent: self.parent,
            adjacent_parent: self.adjacent_parent,
            hash_range: self.range,
            starting_sequence_number: SequenceNumber::new(self.id, salt, 0),
            ending_sequence_number: self
                .end
                .map(|end| SequenceNumber::new(self.id, salt, end.saturating_sub(1))),
            opened_at: timestamp(self.opened),
            closed_at: self.closed.map(timestamp),
        }
    }
}

impl Shards {
    /// The shards of a new stream: those of the mode, with equal parts of the hash space.
    ///
    /// The count is that of [`StreamConfig::first_shards`](crate::StreamConfig::first_shards) and was checked there;
    /// zero counts as one.
    #[must_use]
    pub fn new(now: Instant, mode: StreamMode, limits: &Limits) -> Self {
        let count = match mode {
            StreamMode::Provisioned { shards } => shards,
            StreamMode::OnDemand => limits.on_demand.first_shards,
        };
        let mut shards = Self {
            mode,
            max_open: limits.open_shards,
            max_retained: limits.retained_shards,
            resharding: limits.resharding,
            retained: BTreeMap::new(),
            open: BTreeMap::new(),
            closed: BTreeSet::new(),
            next: 0,
            created: now,
            trimmed: None,
            changes: VecDeque::new(),
            mode_changes: VecDeque::new(),
        };
        for range in reshard::uniform(count.max(1)) {
            shards.add(now, range, [None, None]);
        }
        shards
    }

    /// The shard that takes records of this hash key.
    ///
    /// # Panics
    /// Never: the open shards cover the hash space.
    #[must_use]
    pub fn route(&self, key: HashKey) -> ShardId {
        let (_, id) = self
            .open
            .range(..=key)
            .next_back()
            .expect("the open shards cover the hash space");
        *id
    }

    /// A table of the open shards to route by, each with what `of` makes of it.
    pub fn routes<S>(&self, mut of: impl FnMut(&Shard) -> S) -> Routes<S> {
        Routes::new(self.open().map(|shard| (shard.range.start, of(shard))))
    }

    /// A shard that is retained.
    #[must_use]
    pub fn shard(&self, id: ShardId) -> Option<&Shard> {
        self.retained.get(&id)
    }

    /// The open shards, in the order of their hash keys.
    pub fn open(&self) -> impl Iterator<Item = &Shard> {
        self.open.values().map(|id| &self.retained[id])
    }

    /// All retained shards, in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = &Shard> {
        self.retained.values()
    }

    /// How many shards are open.
    #[must_use]
    pub fn open_count(&self) -> u32 {
        u32::try_from(self.open.len()).unwrap_or(u32::MAX)
    }

    /// How many shards are retained, open ones included.
    #[must_use]
    pub fn retained_count(&self) -> usize {
        self.retained.len()
    }

    /// The shards that go on where this one ended; none while it is open or if it is not in the stream.
    #[must_use]
    pub fn children(&self, id: ShardId) -> Vec<ChildShard> {
        self.shard(id)
            .into_iter()
            .flat_map(Shard::children)
            .filter_map(|child| self.shard(child))
            .map(|child| ChildShard {
                id: child.id,
                parents: child.parents().collect(),
                hash_range: child.range,
            })
            .collect()
    }

    /// Notes where the log of a closed shard ended, once. Without effect on an open shard, or one that has left.
    pub fn set_end(&mut self, id: ShardId, end: u64) {
        if let Some(shard) = self.retained.get_mut(&id)
            && !shard.is_open()
        {
            shard.end.get_or_insert(end);
        }
    }

    /// Removes the closed shards whose retention is over, and returns them in the order in which they closed.
    ///
    /// The trim horizon moves to `retention` before `now` and never back: a longer retention brings nothing back.
    pub fn expire(&mut self, now: Instant, retention: Duration) -> Vec<Shard> {
        let retention = u64::try_from(retention.as_nanos()).unwrap_or(u64::MAX);
        let trimmed = now.as_nanos().checked_sub(retention);
        self.trimmed = self.trimmed.max(trimmed.map(Instant::from_nanos));
        let mut gone = Vec::new();
        while let Some(&(closed, id)) = self.closed.first()
            && Some(closed) <= self.trimmed
        {
            self.closed.pop_first();
            gone.extend(self.retained.remove(&id));
        }
        gone
    }

    /// When the next closed shard leaves, if the retention stays as it is.
    #[must_use]
    pub fn next_expiry(&self, retention: Duration) -> Option<Instant> {
        self.closed.first().map(|(closed, _)| *closed + retention)
    }

    /// The trim horizon: what arrived before it was trimmed. That of a new stream is its creation.
    #[must_use]
    pub fn horizon(&self) -> Instant {
        self.trimmed.unwrap_or_default().max(self.created)
    }

    /// Who decides on the number of shards.
    #[must_use]
    pub const fn mode(&self) -> StreamMode {
        self.mode
    }

    /// Sets who decides on the number of shards. The shards stay as they are, whatever count the mode names.
    ///
    /// # Errors
    /// The mode was changed as often as it may be within 24 hours. To set the mode that stands is no change.
    pub fn set_mode(&mut self, now: Instant, mode: StreamMode) -> Result<(), ModeError> {
        let is_on_demand = |mode| matches!(mode, StreamMode::OnDemand);
        if is_on_demand(mode) == is_on_demand(self.mode) {
            return Ok(());
        }
        if let Some(limits) = self.resharding {
            rolling(&mut self.mode_changes, now, limits.mode_changes).map_err(|retry_at| {
                ModeError::TooOften {
                    limit: limits.mode_changes,
                    retry_at,
                }
            })?;
            self.mode_changes.push_back(now);
        }
        self.mode = mode;
        Ok(())
    }

    /// The number that the next shard gets: all shards that there have been have lower ones.
    #[must_use]
    pub const fn next_number(&self) -> u32 {
        self.next
    }

    /// Adds an open shard with the next id.
    fn add(&mut self, now: Instant, range: HashRange, parents: [Option<ShardId>; 2]) -> ShardId {
        let id = ShardId::new(self.next);
        self.next += 1;
        self.open.insert(range.start, id);
        self.retained.insert(
            id,
            Shard {
                id,
                range,
                parent: parents[0],
                adjacent_parent: parents[1],
                opened: now,
                closed: None,
                end: None,
                children: [None, None],
            },
        );
        id
    }

    /// Closes an open shard.
    fn close(&mut self, now: Instant, id: ShardId) {
        let shard = self
            .retained
            .get_mut(&id)
            .expect("an open shard is retained");
        shard.closed = Some(now);
        self.open.remove(&shard.range.start);
        self.closed.insert((now, id));
    }
}

/// Forgets the changes that are a day old, and says when there is room for another.
fn rolling(changes: &mut VecDeque<Instant>, now: Instant, limit: u32) -> Result<(), Instant> {
    while let Some(first) = changes.front()
        && *first + DAY <= now
    {
        changes.pop_front();
    }
    match changes.front() {
        Some(first) if changes.len() >= limit as usize => Err(*first + DAY),
        _ => Ok(()),
    }
}
