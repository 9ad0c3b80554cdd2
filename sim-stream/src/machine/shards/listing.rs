//! Listing shards, by page and by filter.

use std::ops::Bound;

use sim_core::time::{Instant, Timestamp};

use super::{Shard, Shards};
use crate::error::ListShardsError;
use crate::message::{ShardFilter, ShardId};

/// The most shards of a page, as in Kinesis.
pub const MAX_PAGE: usize = 10_000;

/// Which shards a listing shows: a [`ShardFilter`] in the stream's own time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Selection {
    /// All that are retained (no filter, or `FROM_TRIM_HORIZON`).
    All,
    /// Those with an id above this one (`AFTER_SHARD_ID`).
    After(ShardId),
    /// Those that were open at the trim horizon (`AT_TRIM_HORIZON`).
    AtTrimHorizon,
    /// Those that are open (`AT_LATEST`).
    AtLatest,
    /// Those that were open at a point in time, or were opened or closed just then (`AT_TIMESTAMP`).
    At(Instant),
    /// Those that were open at a point in time or later (`FROM_TIMESTAMP`).
    From(Instant),
}

impl Selection {
    /// Translates a filter; `instant` is the clock's translation of wall-clock time.
    #[must_use]
    pub fn of(filter: Option<ShardFilter>, instant: impl Fn(Timestamp) -> Instant) -> Self {
        match filter {
            None | Some(ShardFilter::FromTrimHorizon) => Self::All,
            Some(ShardFilter::AfterShardId(id)) => Self::After(id),
            Some(ShardFilter::AtTrimHorizon) => Self::AtTrimHorizon,
            Some(ShardFilter::AtLatest) => Self::AtLatest,
            Some(ShardFilter::AtTimestamp(timestamp)) => Self::At(instant(timestamp)),
            Some(ShardFilter::FromTimestamp(timestamp)) => Self::From(instant(timestamp)),
        }
    }
}

/// A part of a listing.
#[derive(Debug, Clone)]
pub struct Page<'a> {
    /// The shards, in the order of their ids.
    pub shards: Vec<&'a Shard>,
    /// What to go on after, if there are more.
    pub next: Option<ShardId>,
}

impl Shards {
    /// Lists the shards of a selection whose ids are above `after`, at most `max_results` of them.
    ///
    /// A point in time before the trim horizon counts as the horizon. Closed shards are listed until
    /// [`expire`](Self::expire) removes them.
    ///
    /// # Errors
    /// `max_results` is zero or above 10,000, or the point in time lies ahead of `now`.
    pub fn list(
        &self,
        now: Instant,
        selection: Selection,
        after: Option<ShardId>,
        max_results: usize,
    ) -> Result<Page<'_>, ListShardsError> {
        if max_results == 0 || max_results > MAX_PAGE {
            return Err(ListShardsError::MaxResults {
                value: max_results,
                limit: MAX_PAGE,
            });
        }
        if let Selection::At(at) | Selection::From(at) = selection
            && at > now
        {
            return Err(ListShardsError::FutureTimestamp { ahead: at - now });
        }
        let after = match selection {
            Selection::After(id) => after.max(Some(id)),
            _ => after,
        };
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut selected = self
            .retained
            .range((from, Bound::Unbounded))
            .map(|(_, shard)| shard)
            .filter(|shard| self.selects(selection, shard));
        let shards: Vec<_> = selected.by_ref().take(max_results).collect();
        let next = selected
            .next()
            .and_then(|_| shards.last())
            .map(|last| last.id);
        Ok(Page { shards, next })
    }

    fn selects(&self, selection: Selection, shard: &Shard) -> bool {
        let open_at = |at: Instant| shard.opened <= at && shard.closed.is_none_or(|c| c >= at);
        match selection {
            Selection::All | Selection::After(_) => true,
            Selection::AtTrimHorizon => open_at(self.horizon()),
            Selection::AtLatest => shard.is_open(),
            Selection::At(at) => open_at(at.max(self.horizon())),
            Selection::From(at) => shard.closed.is_none_or(|closed| closed >= at),
        }
    }
}
