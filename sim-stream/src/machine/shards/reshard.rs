//! Splits, merges, and target counts as a series of both.

use std::collections::BTreeSet;

use sim_core::time::Instant;

use super::{Shard, Shards, rolling};
use crate::config::StreamMode;
use crate::error::{MergeError, SplitError, UpdateCountError};
use crate::message::{HashKey, HashRange, ShardId};

/// How far a boundary may lie from its ideal place and still count as there: 2^32 of 2^128 points.
///
/// The third of six equal parts and the half of the second of three begin at points that differ by rounding. Without this
/// a doubled count would cut and join slivers of one hash key.
const SNAP: u128 = 1 << 32;

/// One change of the lineage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// A shard closed and two opened in its place.
    Split {
        /// The closed one.
        parent: ShardId,
        /// The opened ones, in the order of their hash keys.
        children: [ShardId; 2],
    },
    /// Two adjacent shards closed and one opened in their place.
    Merge {
        /// The closed ones, in the order in which they were named.
        parents: [ShardId; 2],
        /// The opened one.
        child: ShardId,
    },
}

impl Step {
    /// The shards that it closed.
    pub fn closed(&self) -> impl Iterator<Item = ShardId> + use<> {
        let (first, second) = match *self {
            Self::Split { parent, .. } => (parent, None),
            Self::Merge { parents, .. } => (parents[0], Some(parents[1])),
        };
        std::iter::once(first).chain(second)
    }

    /// The shards that it opened.
    pub fn opened(&self) -> impl Iterator<Item = ShardId> + use<> {
        let (first, second) = match *self {
            Self::Split { children, .. } => (children[0], Some(children[1])),
            Self::Merge { child, .. } => (child, None),
        };
        std::iter::once(first).chain(second)
    }
}

/// Why a shard cannot be closed.
enum NotOpen {
    Unknown,
    Closed,
}

impl Shards {
    /// Splits an open shard in two: `at` is the first hash key of the upper one.
    ///
    /// # Errors
    /// The shard is unknown or closed, the hash key does not lie inside of it, a limit on shards is reached, or the stream
    /// is on-demand. Nothing changed.
    pub fn split(&mut self, now: Instant, id: ShardId, at: HashKey) -> Result<Step, SplitError> {
        self.check_split(id, at)?;
        Ok(self.do_split(now, id, at))
    }

    /// Checks a split, as [`split`](Self::split) does, and changes nothing.
    ///
    /// # Errors
    /// As [`split`](Self::split).
    pub fn check_split(&self, id: ShardId, at: HashKey) -> Result<(), SplitError> {
        if matches!(self.mode, StreamMode::OnDemand) {
            return Err(SplitError::OnDemand);
        }
        let range = match self.open_shard(id) {
            Ok(shard) => shard.range,
            Err(NotOpen::Unknown) => return Err(SplitError::UnknownShard { shard_id: id }),
            Err(NotOpen::Closed) => return Err(SplitError::ShardClosed { shard_id: id }),
        };
        if at == range.start || !range.contains(at) {
            return Err(SplitError::HashKey { key: at, range });
        }
        let shards = self.open_count().saturating_add(1);
        if shards > self.max_open {
            return Err(SplitError::OpenShards {
                shards,
                limit: self.max_open,
            });
        }
        self.check_room(2)
            .map_err(|shards| SplitError::RetainedShards {
                shards,
                limit: self.max_retained,
            })
    }

    /// Merges two open shards whose ranges are adjacent; `id` becomes the parent, the other the adjacent parent.
    ///
    /// # Errors
    /// A shard is unknown or closed, they are not adjacent, the limit on retained shards is reached, or the stream is
    /// on-demand. Nothing changed.
    pub fn merge(
        &mut self,
        now: Instant,
        id: ShardId,
        adjacent: ShardId,
    ) -> Result<Step, MergeError> {
        self.check_merge(id, adjacent)?;
        Ok(self.do_merge(now, id, adjacent))
    }

    /// Checks a merge, as [`merge`](Self::merge) does, and changes nothing.
    ///
    /// # Errors
    /// As [`merge`](Self::merge).
    pub fn check_merge(&self, id: ShardId, adjacent: ShardId) -> Result<(), MergeError> {
        if matches!(self.mode, StreamMode::OnDemand) {
            return Err(MergeError::OnDemand);
        }
        let range_of = |id| match self.open_shard(id) {
            Ok(shard) => Ok(shard.range),
            Err(NotOpen::Unknown) => Err(MergeError::UnknownShard { shard_id: id }),
            Err(NotOpen::Closed) => Err(MergeError::ShardClosed { shard_id: id }),
        };
        let (range, adjacent_range) = (range_of(id)?, range_of(adjacent)?);
        if !range.is_adjacent_to(&adjacent_range) {
            return Err(MergeError::NotAdjacent {
                shard_id: id,
                range,
                adjacent_id: adjacent,
                adjacent_range,
            });
        }
        self.check_room(1)
            .map_err(|shards| MergeError::RetainedShards {
                shards,
                limit: self.max_retained,
            })
    }

    /// Changes the number of open shards to `target`, with equal parts of the hash space, by splits and merges.
    ///
    /// First every shard is split where a part begins, then the pieces of each part are merged. Shards that only live from
    /// one step to another never take a record; they are retained like others. The same shards and the same target give the
    /// same steps. Without anything to do it is a change all the same.
    ///
    /// # Errors
    /// The target is zero, above the limit or too far from the present number; it was changed too often within 24 hours;
    /// too many shards would be retained; or the stream is on-demand. Nothing changed.
    pub fn update_count(
        &mut self,
        now: Instant,
        target: u32,
    ) -> Result<Vec<Step>, UpdateCountError> {
        if matches!(self.mode, StreamMode::OnDemand) {
            return Err(UpdateCountError::OnDemand);
        }
        self.check_target(target)?;
        if let Some(limits) = self.resharding {
            let (open, factor) = (self.open_count(), limits.factor.max(1));
            let (min, max) = (open.div_ceil(factor), open.saturating_mul(factor));
            if target < min || target > max {
                return Err(UpdateCountError::Factor {
                    target,
                    open,
                    min,
                    max,
                });
            }
            rolling(&mut self.changes, now, limits.changes).map_err(|retry_at| {
                UpdateCountError::TooOften {
                    limit: limits.changes,
                    retry_at,
                }
            })?;
        }
        let steps = self.scale(now, target)?;
        if self.resharding.is_some() {
            self.changes.push_back(now);
        }
        Ok(steps)
    }

    /// Changes the number of open shards as [`update_count`](Self::update_count) does, whatever the mode and however far
    /// and often: what on-demand mode does by itself.
    ///
    /// # Errors
    /// The target is zero or above the limit, or too many shards would be retained. Nothing changed.
    pub fn scale(&mut self, now: Instant, target: u32) -> Result<Vec<Step>, UpdateCountError> {
        self.check_target(target)?;
        let bounds = self.bounds(target);
        let missing = bounds.iter().filter(|b| !self.open.contains_key(b)).count();
        let pieces = self.open.len() + missing;
        // Each split makes two shards, each merge one.
        let (splits, merges) = (missing, pieces - target as usize);
        self.check_room(2 * splits + merges).map_err(|shards| {
            UpdateCountError::RetainedShards {
                shards,
                limit: self.max_retained,
            }
        })?;

        let mut steps = Vec::with_capacity(splits + merges);
        let whole: Vec<_> = self.open().map(|shard| (shard.id, shard.range)).collect();
        for (id, range) in whole {
            let inside: Vec<_> = bounds
                .range(range.start..=range.end)
                .filter(|bound| **bound != range.start)
                .copied()
                .collect();
            self.split_all(now, id, &inside, &mut steps);
        }
        let mut bounds = bounds.into_iter().peekable();
        while let Some(start) = bounds.next() {
            let pieces: Vec<_> = match bounds.peek() {
                Some(end) => self.open.range(start..*end),
                None => self.open.range(start..),
            }
            .map(|(_, id)| *id)
            .collect();
            self.merge_all(now, pieces, &mut steps);
        }
        Ok(steps)
    }

    fn check_target(&self, target: u32) -> Result<(), UpdateCountError> {
        if target == 0 || target > self.max_open {
            return Err(UpdateCountError::Target {
                target,
                limit: self.max_open,
            });
        }
        Ok(())
    }

    /// Where the shards start after a change to `target`: at equal distances, or where one starts already very near.
    fn bounds(&self, target: u32) -> BTreeSet<HashKey> {
        uniform(target)
            .map(|part| {
                let ideal = part.start.as_u128();
                let near = HashKey::from_u128(ideal.saturating_sub(SNAP))
                    ..=HashKey::from_u128(ideal.saturating_add(SNAP));
                self.open
                    .range(near)
                    .map(|(start, _)| *start)
                    .min_by_key(|start| start.as_u128().abs_diff(ideal))
                    .unwrap_or(part.start)
            })
            .collect()
    }

    /// Splits a shard at each of the points, at the middle one first so that the tree is flat.
    fn split_all(&mut self, now: Instant, id: ShardId, at: &[HashKey], steps: &mut Vec<Step>) {
        let middle = at.len() / 2;
        let Some(point) = at.get(middle) else {
            return;
        };
        let step = self.do_split(now, id, *point);
        steps.push(step);
        if let Step::Split { children, .. } = step {
            self.split_all(now, children[0], &at[..middle], steps);
            self.split_all(now, children[1], &at[middle + 1..], steps);
        }
    }

    /// Merges adjacent shards into one, neighbour by neighbour so that the tree is flat.
    fn merge_all(&mut self, now: Instant, mut pieces: Vec<ShardId>, steps: &mut Vec<Step>) {
        while pieces.len() > 1 {
            pieces = pieces
                .chunks(2)
                .map(|pair| match *pair {
                    [lower, upper] => {
                        let step = self.do_merge(now, lower, upper);
                        steps.push(step);
                        match step {
                            Step::Merge { child, .. } => child,
                            Step::Split { parent, .. } => parent,
                        }
                    }
                    _ => pair[0],
                })
                .collect();
        }
    }

    fn do_split(&mut self, now: Instant, id: ShardId, at: HashKey) -> Step {
        let HashRange { start, end } = self.retained[&id].range;
        let below = at.previous().expect("it lies above the start of a range");
        self.close(now, id);
        let lower = HashRange { start, end: below };
        let upper = HashRange { start: at, end };
        let children = [lower, upper].map(|range| self.add(now, range, [Some(id), None]));
        self.set_children(id, children.map(Some));
        Step::Split {
            parent: id,
            children,
        }
    }

    fn do_merge(&mut self, now: Instant, id: ShardId, adjacent: ShardId) -> Step {
        let (a, b) = (self.retained[&id].range, self.retained[&adjacent].range);
        self.close(now, id);
        self.close(now, adjacent);
        let range = HashRange {
            start: a.start.min(b.start),
            end: a.end.max(b.end),
        };
        let child = self.add(now, range, [Some(id), Some(adjacent)]);
        self.set_children(id, [Some(child), None]);
        self.set_children(adjacent, [Some(child), None]);
        Step::Merge {
            parents: [id, adjacent],
            child,
        }
    }

    fn set_children(&mut self, id: ShardId, children: [Option<ShardId>; 2]) {
        if let Some(shard) = self.retained.get_mut(&id) {
            shard.children = children;
        }
    }

    fn open_shard(&self, id: ShardId) -> Result<&Shard, NotOpen> {
        match self.shard(id) {
            Some(shard) if shard.is_open() => Ok(shard),
            Some(_) => Err(NotOpen::Closed),
            None => Err(NotOpen::Unknown),
        }
    }

    /// Whether `more` shards may be added; the count that there would be if not.
    fn check_room(&self, more: usize) -> Result<(), u64> {
        let shards = (self.retained.len() + more) as u64;
        let numbers = u64::from(self.next) + more as u64;
        if shards > u64::from(self.max_retained) || numbers > u64::from(ShardId::MAX.number()) {
            return Err(shards);
        }
        Ok(())
    }
}

/// The hash space in `count` equal parts, the remainder with the last, as Kinesis cuts it.
pub(super) fn uniform(count: u32) -> impl Iterator<Item = HashRange> {
    let parts = u128::from(count);
    // 2^128 / count, which does not fit where count is 1; then it is never used as a factor above 0.
    let width = (u128::MAX / parts).wrapping_add(u128::from(u128::MAX % parts == parts - 1));
    (0..parts).map(move |i| HashRange {
        start: HashKey::from_u128(i * width),
        end: if i + 1 == parts {
            HashKey::MAX
        } else {
            HashKey::from_u128((i + 1) * width - 1)
        },
    })
}
