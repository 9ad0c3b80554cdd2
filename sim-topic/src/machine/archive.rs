//! What an archive keeps, and what a replay hands out.
//!
//! # Rules
//!
//! - A message is kept for the retention (1 to 365 days), counted from its publishing. Bounds on messages and
//!   bytes end it earlier, the oldest first; both kinds of end are counted apart.
//! - A replay hands out, in the order of publishing, what was published in `[from, to]`, both ends included,
//!   before the replay began; then what was published since it began, whatever its time, so that nothing is
//!   missing between the replay and what is delivered live; then it is completed.
//! - A replay goes on where it was, also after it was saved and restored. What the archive gave up before the
//!   replay came to it is reported, not passed over.
//!
//! Source of the limits, the policies and the statuses: SNS developer guide, "Amazon SNS message archiving and
//! replay for FIFO topics". What happens to messages that are published during a replay is not said there.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use serde_json::json;
use sim_core::time::Timestamp;

use super::document::{DocumentError, Object};

const DAY: Duration = Duration::from_secs(86_400);
/// The longest retention. Source: SNS's `ArchivePolicy`.
const MAX_DAYS: u32 = 365;

/// What an archive keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct ArchiveConfig {
    /// How long a message is kept. Default: 30 days; 1 to 365 days.
    pub retention: Duration,
    /// The most messages kept. Default: 1,000,000; not zero.
    pub max_messages: usize,
    /// The most bytes of messages kept, as the publisher counts them. Default: 256 MiB; not zero.
    pub max_bytes: usize,
}

impl Default for ArchiveConfig {
    fn default() -> Self {
        Self {
            retention: DAY * 30,
            max_messages: 1_000_000,
            max_bytes: 256 << 20,
        }
    }
}

impl ArchiveConfig {
    /// Checks every field.
    ///
    /// # Errors
    ///
    /// The first that is out of range, with the range.
    pub fn check(&self) -> Result<(), ArchiveError> {
        if !(DAY..=DAY * MAX_DAYS).contains(&self.retention) {
            return Err(ArchiveError::Retention {
                value: self.retention,
                min: DAY,
                max: DAY * MAX_DAYS,
            });
        }
        for (field, value) in [
            ("max_messages", self.max_messages),
            ("max_bytes", self.max_bytes),
        ] {
            if value == 0 {
                return Err(ArchiveError::Zero { field });
            }
        }
        Ok(())
    }

    /// Reads SNS's `ArchivePolicy`, `{"MessageRetentionPeriod":"30"}` in days; the bounds are the defaults.
    ///
    /// # Errors
    ///
    /// When the text is no such document, or the period is out of its range.
    pub fn parse(text: &str) -> Result<Self, ArchiveError> {
        let mut object = Object::parse(text)?;
        let days = object.days("MessageRetentionPeriod")?;
        object.end()?;
        let config = Self {
            retention: DAY.saturating_mul(days),
            ..Self::default()
        };
        config.check()?;
        Ok(config)
    }

    /// Writes SNS's `ArchivePolicy`; a retention of no whole days is rounded up.
    #[must_use]
    pub fn to_json(&self) -> String {
        let days = self.retention.as_secs().div_ceil(DAY.as_secs());
        json!({ "MessageRetentionPeriod": days.to_string() }).to_string()
    }
}

/// Which part of an archive a replay hands out.
///
/// ```
/// use sim_topic::ReplayPolicy;
///
/// let policy = ReplayPolicy::parse(
///     r#"{"PointType":"Timestamp","StartingPoint":"2026-01-01T00:00:00Z"}"#,
/// )?;
/// assert_eq!(policy.from.to_string(), "2026-01-01T00:00:00Z");
/// assert_eq!(policy.to, None);
/// # Ok::<(), sim_topic::ArchiveError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct ReplayPolicy {
    /// The publishing time of the first message.
    pub from: Timestamp,
    /// That of the last; none means all until the replay begins.
    pub to: Option<Timestamp>,
}

impl ReplayPolicy {
    /// Everything from a time on.
    #[must_use]
    pub const fn from(from: Timestamp) -> Self {
        Self { from, to: None }
    }

    /// Checks that the end is not before the beginning.
    ///
    /// # Errors
    ///
    /// [`ArchiveError::Backwards`].
    pub fn check(&self) -> Result<(), ArchiveError> {
        match self.to {
            Some(to) if to < self.from => Err(ArchiveError::Backwards {
                from: self.from,
                to,
            }),
            _ => Ok(()),
        }
    }

    /// Reads SNS's `ReplayPolicy` document.
    ///
    /// # Errors
    ///
    /// When the text is no such document, or it ends before it begins.
    pub fn parse(text: &str) -> Result<Self, ArchiveError> {
        let mut object = Object::parse(text)?;
        match object.text("PointType")? {
            Some(kind) if kind == "Timestamp" => {}
            other => {
                return Err(ArchiveError::Document(DocumentError::Member {
                    path: "PointType".to_owned(),
                    found: other.map_or_else(|| "absent".to_owned(), |kind| format!("{kind:?}")),
                    expected: "\"Timestamp\"",
                }));
            }
        }
        let from = object.time("StartingPoint")?;
        let to = object.time("EndingPoint")?;
        object.end()?;
        let Some(from) = from else {
            return Err(ArchiveError::Document(DocumentError::Member {
                path: "StartingPoint".to_owned(),
                found: "absent".to_owned(),
                expected: "a timestamp of RFC 3339",
            }));
        };
        let policy = Self { from, to };
        policy.check()?;
        Ok(policy)
    }

    /// Writes SNS's `ReplayPolicy` document.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut document = json!({
            "PointType": "Timestamp",
            "StartingPoint": self.from.to_string(),
        });
        if let Some(to) = self.to {
            document["EndingPoint"] = json!(to.to_string());
        }
        document.to_string()
    }
}

/// How far a replay is. Displayed as SNS writes it: `In progress`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum ReplayStatus {
    /// It has not handed anything out yet.
    Pending,
    /// It hands out messages.
    InProgress,
    /// It handed out everything; what is published now is delivered live.
    Completed,
    /// It cannot go on: the archive is gone.
    Failed,
}

impl fmt::Display for ReplayStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pending => "Pending",
            Self::InProgress => "In progress",
            Self::Completed => "Completed",
            Self::Failed => "Failed",
        })
    }
}

/// Why an archive or a replay was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The retention is out of its range.
    #[error("retention is {value:?}, not between {min:?} and {max:?}")]
    Retention {
        /// What it was.
        value: Duration,
        /// The shortest.
        min: Duration,
        /// The longest.
        max: Duration,
    },
    /// A bound that lets nothing in.
    #[error("{field} is zero: nothing could be kept")]
    Zero {
        /// The field.
        field: &'static str,
    },
    /// A replay ends before it begins.
    #[error("the replay ends at {to}, before it begins at {from}")]
    Backwards {
        /// Where it begins.
        from: Timestamp,
        /// Where it ends.
        to: Timestamp,
    },
    /// A document is not what it should be.
    #[error("archive or replay policy: {0}")]
    Document(#[from] DocumentError),
}

/// The messages of the last while, in the order of publishing.
#[derive(Debug)]
pub(crate) struct Archive<T> {
    config: ArchiveConfig,
    /// Invariant: in order of `at`.
    entries: VecDeque<Entry<T>>,
    /// The position of the first entry; positions count from 0 and never repeat.
    base: u64,
    bytes: usize,
    expired: u64,
    crowded_out: u64,
}

#[derive(Debug)]
struct Entry<T> {
    at: Timestamp,
    bytes: usize,
    item: T,
}

/// One subscription's way through an archive; plain data, so that it can be saved and restored.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Replay {
    policy: ReplayPolicy,
    status: ReplayStatus,
    /// Where it goes on, and where that begins which was published since it began. Set when it begins.
    way: Option<Way>,
    lost: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Way {
    next: u64,
    live_from: u64,
}

/// What a replay does next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step<'a, T> {
    /// It hands a message out.
    Message {
        position: u64,
        at: Timestamp,
        item: &'a T,
        /// False for one that was published since the replay began.
        replayed: bool,
    },
    /// So many messages were given up before they could be handed out; it goes on behind them.
    Lost { messages: u64 },
    /// Everything was handed out: what is published from now on is delivered live.
    CaughtUp,
    /// It failed earlier.
    Failed,
}

impl<T> Archive<T> {
    pub(crate) const fn new(config: ArchiveConfig) -> Self {
        Self {
            config,
            entries: VecDeque::new(),
            base: 0,
            bytes: 0,
            expired: 0,
            crowded_out: 0,
        }
    }

    /// Changes what is kept; what no longer is goes with the next push or expiry.
    pub(crate) const fn reconfigure(&mut self, config: ArchiveConfig) {
        self.config = config;
    }

    /// Keeps a message and returns its position; gives back one that is larger than the whole archive.
    ///
    /// A time before the last one is taken for the last one. What goes for it is put into `gone`: messages are not
    /// dropped here.
    pub(crate) fn push(
        &mut self,
        at: Timestamp,
        bytes: usize,
        item: T,
        gone: &mut Vec<T>,
    ) -> Result<u64, T> {
        if bytes > self.config.max_bytes {
            return Err(item);
        }
        let at = self.entries.back().map_or(at, |last| last.at.max(at));
        self.expire(at, gone);
        self.entries.push_back(Entry { at, bytes, item });
        self.bytes = self.bytes.saturating_add(bytes);
        while self.entries.len() > self.config.max_messages || self.bytes > self.config.max_bytes {
            gone.extend(self.take_first());
            self.crowded_out += 1;
        }
        Ok(self.end() - 1)
    }

    /// Gives up what has been kept for the retention by `now`, into `gone`; returns how many messages that were.
    pub(crate) fn expire(&mut self, now: Timestamp, gone: &mut Vec<T>) -> usize {
        let mut count = 0;
        while let Some(first) = self.entries.front()
            && now.saturating_duration_since(first.at) >= self.config.retention
        {
            gone.extend(self.take_first());
            count += 1;
        }
        self.expired += count as u64;
        if self.entries.len() < self.entries.capacity() / 8 {
            self.entries.shrink_to(self.entries.len() * 2);
        }
        count
    }

    /// The time of the oldest message kept: SNS's `BeginningArchiveTime`.
    pub(crate) fn beginning(&self) -> Option<Timestamp> {
        self.entries.front().map(|first| first.at)
    }

    /// The position of the next message.
    pub(crate) fn end(&self) -> u64 {
        self.base + self.entries.len() as u64
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many messages' retention ended.
    pub(crate) const fn expired(&self) -> u64 {
        self.expired
    }

    /// How many messages went for want of room, before their retention ended.
    pub(crate) const fn crowded_out(&self) -> u64 {
        self.crowded_out
    }

    /// Whether a message of so many bytes can be kept at all.
    pub(crate) const fn fits(&self, bytes: usize) -> bool {
        bytes <= self.config.max_bytes
    }

    pub(crate) const fn max_bytes(&self) -> usize {
        self.config.max_bytes
    }

    /// Begins a replay here: what is pushed from now on counts as published since.
    pub(crate) fn begin(&self, policy: ReplayPolicy) -> Replay {
        let mut replay = Replay::new(policy);
        replay.way = Some(self.way_of(policy));
        replay
    }

    fn way_of(&self, policy: ReplayPolicy) -> Way {
        Way {
            next: self.first_at_or_after(policy.from),
            live_from: self.end(),
        }
    }

    /// Takes a replay one step further; one that has not begun begins here.
    ///
    /// Once it says [`Step::CaughtUp`] it keeps saying so, and the caller delivers live: both under one lock, so
    /// that nothing falls between.
    pub(crate) fn step(&self, replay: &mut Replay) -> Step<'_, T> {
        match replay.status {
            ReplayStatus::Failed => return Step::Failed,
            ReplayStatus::Completed => return Step::CaughtUp,
            ReplayStatus::Pending | ReplayStatus::InProgress => {}
        }
        replay.status = ReplayStatus::InProgress;
        let end = self.end();
        let mut way = replay.way.unwrap_or_else(|| self.way_of(replay.policy));
        // A position that was saved may come from a longer archive than this one.
        way.live_from = way.live_from.min(end);

        let lost = self.base.saturating_sub(way.next);
        if lost > 0 {
            way.next = self.base;
            replay.way = Some(way);
            replay.lost += lost;
            return Step::Lost { messages: lost };
        }
        let ends = |at| replay.policy.to.is_some_and(|to| at > to);
        if way.next < way.live_from && self.entry(way.next).is_some_and(|entry| ends(entry.at)) {
            way.next = way.live_from;
        }
        let position = way.next;
        let Some(entry) = self.entry(position) else {
            replay.way = Some(way);
            replay.status = ReplayStatus::Completed;
            return Step::CaughtUp;
        };
        way.next += 1;
        replay.way = Some(way);
        Step::Message {
            position,
            at: entry.at,
            item: &entry.item,
            replayed: position < way.live_from,
        }
    }

    fn entry(&self, position: u64) -> Option<&Entry<T>> {
        let at = position.checked_sub(self.base)?;
        self.entries.get(usize::try_from(at).ok()?)
    }

    fn first_at_or_after(&self, from: Timestamp) -> u64 {
        self.base + self.entries.partition_point(|entry| entry.at < from) as u64
    }

    fn take_first(&mut self) -> Option<T> {
        let first = self.entries.pop_front()?;
        self.bytes -= first.bytes;
        self.base += 1;
        Some(first.item)
    }
}

impl Replay {
    pub(crate) const fn new(policy: ReplayPolicy) -> Self {
        Self {
            policy,
            status: ReplayStatus::Pending,
            way: None,
            lost: 0,
        }
    }

    pub(crate) const fn status(&self) -> ReplayStatus {
        self.status
    }

    /// How many messages the archive gave up before this replay came to them.
    pub(crate) const fn lost(&self) -> u64 {
        self.lost
    }

    /// Ends it for want of an archive.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "for an engine that saves its replays")
    )]
    pub(crate) const fn fail(&mut self) {
        if !matches!(self.status, ReplayStatus::Completed) {
            self.status = ReplayStatus::Failed;
        }
    }
}

#[cfg(test)]
mod tests;
