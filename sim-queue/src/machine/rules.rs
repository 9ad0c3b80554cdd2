//! What a queue is told once: its kind, its timeouts and its bounds.

use std::time::Duration;

use sim_core::time::Instant;

use super::records::{Hold, State};
use super::timers::Usual;
use super::{Effect, Machine, Order};

/// The longest lease, counted from the receive: 12 hours, as the field's services have it.
pub const MAX_LEASE: Duration = Duration::from_secs(12 * 60 * 60);

/// The rules of one queue. [`Machine::new`](super::Machine::new) checks them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Standard, fair or FIFO.
    pub kind: Kind,
    /// How long a received message stays invisible unless its receive says otherwise. Default 30 s.
    pub visibility_timeout: Duration,
    /// How long a sent message stays invisible unless its send says otherwise. Default none.
    pub delay: Duration,
    /// How long a message is kept, counted from its send; then it is deleted, also while a receiver
    /// has it. Default: for ever.
    pub retention: Option<Duration>,
    /// How often a message is received before the end of its lease makes it a dead letter.
    /// Default: without limit.
    pub max_receives: Option<u32>,
    /// Messages in flight at most. Default 120,000.
    pub max_in_flight: usize,
    /// Messages waiting (visible or delayed) that a send may bring about. Messages that return from
    /// a receiver are never turned away. Default: about 2^32.
    pub capacity: Option<usize>,
    /// The longest lease, counted from the receive. Default [`MAX_LEASE`].
    pub max_lease: Duration,
    /// Groups that are remembered after their last message went, so that a group which comes and
    /// goes costs no table entry each time, and a tenant's recent share is not forgotten. As many
    /// as there are groups with messages are remembered in any case. Default 1,024.
    pub idle_groups: usize,
    /// Seeds the hash tables' hash function. Nothing that the machine returns depends on it.
    pub hash_seed: u64,
}

impl Rules {
    /// The default rules of a queue of this kind.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            visibility_timeout: Duration::from_secs(30),
            delay: Duration::ZERO,
            retention: None,
            max_receives: None,
            max_in_flight: 120_000,
            capacity: None,
            max_lease: MAX_LEASE,
            idle_groups: 1024,
            hash_seed: 0,
        }
    }

    /// Checks each rule's range and that they agree.
    ///
    /// # Errors
    /// The first rule that is out of its range.
    pub fn check(&self) -> Result<(), RulesError> {
        if self.max_lease.is_zero() {
            return Err(RulesError::Zero { rule: "max_lease" });
        }
        if self.visibility_timeout > self.max_lease {
            return Err(RulesError::VisibilityTooLong {
                max: self.max_lease,
            });
        }
        if self.retention.is_some_and(|retention| retention.is_zero()) {
            return Err(RulesError::Zero { rule: "retention" });
        }
        if self.max_receives == Some(0) {
            return Err(RulesError::Zero {
                rule: "max_receives",
            });
        }
        if self.max_in_flight == 0 {
            return Err(RulesError::Zero {
                rule: "max_in_flight",
            });
        }
        if self.capacity == Some(0) {
            return Err(RulesError::Zero { rule: "capacity" });
        }
        match &self.kind {
            Kind::Standard => Ok(()),
            Kind::Fair(fair) => fair.check(),
            Kind::Fifo(fifo) => fifo.check(),
        }
    }
}

/// Which order a queue keeps.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Kind {
    /// About the order of sending; no promise. Groups have no effect.
    #[default]
    Standard,
    /// A standard queue on which a busy tenant does not make the others wait.
    Fair(FairConfig),
    /// Order within each message group, and one batch of a group in flight at a time.
    Fifo(FifoConfig),
}

impl Kind {
    /// A fair queue with the defaults.
    #[must_use]
    pub fn fair() -> Self {
        Self::Fair(FairConfig::default())
    }

    /// A FIFO queue with the defaults.
    #[must_use]
    pub fn fifo() -> Self {
        Self::Fifo(FifoConfig::default())
    }
}

/// When a tenant counts as a noisy neighbour.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct FairConfig {
    /// A tenant with more than this share of the messages in flight is noisy, in percent, if it
    /// also has [`min_in_flight`](Self::min_in_flight). Default 10.
    pub in_flight_share: u8,
    /// Messages in flight below which a tenant is not noisy by its share of them. Default 30.
    pub min_in_flight: u32,
    /// A tenant with more than this share of the recent processing time is noisy, in percent.
    /// Default 10; 100 turns this criterion off.
    pub processing_share: u8,
    /// What counts as recent. Default 60 s.
    pub window: Duration,
}

impl Default for FairConfig {
    fn default() -> Self {
        Self {
            in_flight_share: 10,
            min_in_flight: 30,
            processing_share: 10,
            window: Duration::from_secs(60),
        }
    }
}

impl FairConfig {
    fn check(&self) -> Result<(), RulesError> {
        for (rule, share) in [
            ("in_flight_share", self.in_flight_share),
            ("processing_share", self.processing_share),
        ] {
            if share == 0 {
                return Err(RulesError::Zero { rule });
            }
            if share > 100 {
                return Err(RulesError::Share { rule, share });
            }
        }
        if self.window.is_zero() {
            return Err(RulesError::Zero { rule: "window" });
        }
        Ok(())
    }
}

/// How a FIFO queue treats repeated sends and receives.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct FifoConfig {
    /// Whether the same id in two groups is the same message. Default: in the whole queue.
    pub deduplication_scope: DeduplicationScope,
    /// Whether each send must have an id or a content hash. Default: optional.
    pub deduplication: Deduplication,
    /// How long a send is remembered, also after its message was deleted. Default 5 minutes.
    pub deduplication_window: Duration,
    /// Sends remembered at most; beyond them a send with an id fails until the window of the oldest
    /// ends, since forgetting early would break the promise. Default 1,000,000.
    pub deduplication_limit: usize,
    /// How long a receive attempt is remembered. Default 5 minutes.
    pub attempt_window: Duration,
    /// Receive attempts remembered at most. Default 20,000.
    pub attempt_limit: usize,
    /// Whether a send may set a delay of its own. Default: per queue only.
    pub message_delay: MessageDelay,
}

impl Default for FifoConfig {
    fn default() -> Self {
        Self {
            deduplication_scope: DeduplicationScope::Queue,
            deduplication: Deduplication::Optional,
            deduplication_window: Duration::from_secs(5 * 60),
            deduplication_limit: 1_000_000,
            attempt_window: Duration::from_secs(5 * 60),
            attempt_limit: 20_000,
            message_delay: MessageDelay::PerQueue,
        }
    }
}

impl FifoConfig {
    fn check(&self) -> Result<(), RulesError> {
        for (rule, zero) in [
            ("deduplication_window", self.deduplication_window.is_zero()),
            ("deduplication_limit", self.deduplication_limit == 0),
            ("attempt_window", self.attempt_window.is_zero()),
            ("attempt_limit", self.attempt_limit == 0),
        ] {
            if zero {
                return Err(RulesError::Zero { rule });
            }
        }
        Ok(())
    }
}

/// Where a de-duplication id must be unique.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum DeduplicationScope {
    /// In the whole queue.
    Queue,
    /// In each message group.
    Group,
}

/// Whether a send must say what makes it unique.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Deduplication {
    /// A send without an id is never a duplicate.
    Optional,
    /// A send without an id or content hash is an error.
    Required,
    /// The content stands in for an id that the send does not give.
    ByContent,
}

/// Whether a FIFO send may set a delay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum MessageDelay {
    /// Only the queue's delay counts; a send with its own is an error.
    PerQueue,
    /// A send may set its own delay. Later messages of its group wait behind it.
    PerMessage,
}

/// Why rules are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RulesError {
    /// A rule that must be positive is zero.
    #[error("{rule} is zero")]
    Zero {
        /// The rule's name.
        rule: &'static str,
    },
    /// The visibility timeout is longer than any lease may be.
    #[error("the visibility timeout is longer than the longest lease of {max:?}")]
    VisibilityTooLong {
        /// The longest lease.
        max: Duration,
    },
    /// A share is more than the whole.
    #[error("{rule} is {share} percent")]
    Share {
        /// The rule's name.
        rule: &'static str,
        /// Its value.
        share: u8,
    },
}

impl<M: Copy> Machine<M> {
    /// Sets the visibility timeout of the receives to come.
    ///
    /// # Errors
    /// [`RulesError::VisibilityTooLong`].
    pub fn set_visibility_timeout(&mut self, timeout: Duration) -> Result<(), RulesError> {
        self.change_rules(|rules| rules.visibility_timeout = timeout)
    }

    /// Sets the bound on waiting messages; those that wait already stay.
    ///
    /// # Errors
    /// [`RulesError::Zero`].
    pub fn set_capacity(&mut self, capacity: Option<usize>) -> Result<(), RulesError> {
        self.change_rules(|rules| rules.capacity = capacity)
    }

    /// Sets the bound on messages in flight; those in flight already stay.
    ///
    /// # Errors
    /// [`RulesError::Zero`].
    pub fn set_max_in_flight(&mut self, max: usize) -> Result<(), RulesError> {
        self.change_rules(|rules| rules.max_in_flight = max)
    }

    /// Sets the delay of the sends to come. On a FIFO queue, as on the field's services, also of the
    /// messages that are delayed now by the queue's delay, counted from their sends; the next
    /// [`advance`](Self::advance) serves those that are due by that.
    pub fn set_delay(&mut self, delay: Duration) {
        self.rules.delay = delay;
        if self.order != Order::Fifo {
            return;
        }
        let mut delayed: Vec<u32> = self
            .timers
            .iter(&self.holds)
            .filter(|&hold| {
                let Hold {
                    record, changed, ..
                } = self.holds[hold];
                !changed && self.records[record].state == State::Delayed
            })
            .collect();
        delayed.sort_unstable_by_key(|&hold| self.records[self.holds[hold].record].sequence);
        for &hold in &delayed {
            let sequence = self.records[self.holds[hold].record].sequence;
            self.timers.clear(&mut self.holds, hold, sequence);
        }
        for hold in delayed {
            let sequence = self.records[self.holds[hold].record].sequence;
            let deadline = self.holds[hold].received_at + delay;
            self.timers
                .set(&mut self.holds, hold, deadline, sequence, Usual::Delay);
        }
    }

    /// Sets how long messages are kept, those in the queue included: what is past it now is deleted.
    ///
    /// # Errors
    /// [`RulesError::Zero`].
    pub fn set_retention(
        &mut self,
        now: Instant,
        retention: Option<Duration>,
        effects: &mut Vec<Effect<M>>,
    ) -> Result<(), RulesError> {
        self.change_rules(|rules| rules.retention = retention)?;
        self.timers.look_at(now);
        self.advance(now, effects);
        Ok(())
    }

    pub(super) fn change_rules(
        &mut self,
        change: impl FnOnce(&mut Rules),
    ) -> Result<(), RulesError> {
        let mut rules = self.rules.clone();
        change(&mut rules);
        rules.check()?;
        self.rules = rules;
        Ok(())
    }
}
