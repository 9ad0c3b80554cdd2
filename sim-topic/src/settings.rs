//! What a subscription and a receiver are told when they are made; some of it can be changed later.

use std::fmt;

use sim_core::seam::Sink;
use sim_core::sync::Arc;

use crate::config::{check_count, check_name};
use crate::error::ConfigError;
use crate::filter::FilterPolicy;
use crate::machine::retry::{RetryPolicy, Throttle};
use crate::message::{DeadLetter, Message};

/// The configuration of a [`Subscription`](crate::Subscription).
///
/// ```
/// use sim_topic::{Filter, Message, RetryPolicy, SubscriptionConfig};
///
/// let config = SubscriptionConfig {
///     name: "large orders".into(),
///     filter: Filter::closure(|order: &Message<u32>| order.value > 1000),
///     retry: RetryPolicy::aws_managed(),
///     ..Default::default()
/// };
/// assert!(config.check().is_ok());
/// ```
pub struct SubscriptionConfig<T> {
    /// The subscription's name, for people: 1 to 256 bytes, not unique. Default: `"subscription"`.
    pub name: String,
    /// Which messages it gets. Default: all.
    pub filter: Filter<T>,
    /// How a failed delivery is repeated. Default: [`RetryPolicy::default`], 3 times 20 s apart. A subscriber may ask
    /// for more time than that, by at most an hour for each try.
    pub retry: RetryPolicy,
    /// How many deliveries may be made a second. Default: as many as come.
    pub throttle: Option<Throttle>,
    /// Where messages go that are given up. Default: nowhere, they are dropped and counted. A sink that is full is
    /// asked again after a second, or when it says, but within an hour; until then the message stays in the backlog.
    pub dead_letters: Option<Arc<dyn Sink<DeadLetter<T>>>>,
    /// How many messages may be pending: waiting, between two tries, or in work. Default: 65,536.
    pub backlog: usize,
    /// What happens to a message when the backlog is full. Default: [`Overflow::Newest`].
    pub overflow: Overflow,
    /// How many messages a handler or an endpoint works on at once. Default: 16.
    pub max_in_flight: usize,
}

impl<T> Default for SubscriptionConfig<T> {
    fn default() -> Self {
        Self {
            name: "subscription".to_owned(),
            filter: Filter::All,
            retry: RetryPolicy::default(),
            throttle: None,
            dead_letters: None,
            backlog: 65_536,
            overflow: Overflow::Newest,
            max_in_flight: 16,
        }
    }
}

impl<T> SubscriptionConfig<T> {
    /// The defaults under a name.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            ..Self::default()
        }
    }

    /// Checks every field against its range.
    ///
    /// # Errors
    /// The first field that is out of range, with its limit.
    pub fn check(&self) -> Result<(), ConfigError> {
        check_name(&self.name)?;
        check_count("backlog", self.backlog)?;
        check_count("max_in_flight", self.max_in_flight)?;
        check_retry(&self.retry)
    }
}

pub(crate) fn check_retry(retry: &RetryPolicy) -> Result<(), ConfigError> {
    retry.check().map_err(|error| ConfigError::Retry {
        reason: error.to_string(),
    })
}

impl<T> fmt::Debug for SubscriptionConfig<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubscriptionConfig")
            .field("name", &self.name)
            .field("filter", &self.filter)
            .field("retry", &self.retry)
            .field("throttle", &self.throttle)
            .field("dead_letters", &self.dead_letters.is_some())
            .field("backlog", &self.backlog)
            .field("overflow", &self.overflow)
            .field("max_in_flight", &self.max_in_flight)
            .finish()
    }
}

/// A closure filter: whether a subscription gets a message.
pub type Predicate<T> = Arc<dyn Fn(&Message<T>) -> bool + Send + Sync>;

/// Which messages a subscription gets.
#[non_exhaustive]
pub enum Filter<T> {
    /// All of them.
    All,
    /// Those whose attributes or body match the policy. On a standard topic an index finds them, whatever the number of
    /// policies; on a FIFO topic each policy is asked for each message, and one over bodies reads the body anew.
    Policy(FilterPolicy),
    /// Those for which the closure says so. It is called by the publisher, so it should be quick; one that panics
    /// says no.
    Closure(Predicate<T>),
}

impl<T> Filter<T> {
    /// A closure.
    #[must_use]
    pub fn closure(filter: impl Fn(&Message<T>) -> bool + Send + Sync + 'static) -> Self {
        Self::Closure(Arc::new(filter))
    }
}

impl<T> From<FilterPolicy> for Filter<T> {
    fn from(policy: FilterPolicy) -> Self {
        Self::Policy(policy)
    }
}

impl<T> Clone for Filter<T> {
    fn clone(&self) -> Self {
        match self {
            Self::All => Self::All,
            Self::Policy(policy) => Self::Policy(policy.clone()),
            Self::Closure(closure) => Self::Closure(Arc::clone(closure)),
        }
    }
}

impl<T> fmt::Debug for Filter<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("All"),
            Self::Policy(policy) => f.debug_tuple("Policy").field(policy).finish(),
            Self::Closure(_) => f.write_str("Closure"),
        }
    }
}

/// What happens to a message when the backlog of its subscription is full. It goes to the dead-letter sink, where
/// there is one, and is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Overflow {
    /// The message that has just come is given up.
    #[default]
    Newest,
    /// The message whose turn is next is given up: the oldest of those that wait for their first try, on a FIFO topic
    /// that of the group whose turn it is. Where all wait for another try, it is the one whose try comes first.
    /// Messages in work stay; while there are only such, the message that has just come is given up.
    Oldest,
}

/// The most messages of a receiver's mailbox: 1,048,576. A limit of this crate, since the memory of a mailbox is taken
/// when its receiver is made.
pub const MAX_MAILBOX: usize = 1 << 20;

/// The configuration of a [`Receiver`](crate::Receiver).
pub struct ReceiverConfig<T> {
    /// The receiver's name, for people: 1 to 256 bytes, not unique. Default: `"receiver"`.
    pub name: String,
    /// Which messages it gets. Default: all, read from the log that all such receivers share. With a filter, it has
    /// a mailbox of its own.
    pub filter: Filter<T>,
    /// How many messages the mailbox holds; beyond it the oldest are lost, counted, and told. Unused without a
    /// filter, where [`LogConfig`](crate::LogConfig) says how far a receiver may be behind. Its memory is taken at
    /// once. Default: 65,536; at most [`MAX_MAILBOX`].
    pub mailbox: usize,
}

impl<T> Default for ReceiverConfig<T> {
    fn default() -> Self {
        Self {
            name: "receiver".to_owned(),
            filter: Filter::All,
            mailbox: 65_536,
        }
    }
}

impl<T> ReceiverConfig<T> {
    /// The defaults under a name.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            ..Self::default()
        }
    }

    /// Checks every field against its range.
    ///
    /// # Errors
    /// The first field that is out of range, with its limit.
    pub fn check(&self) -> Result<(), ConfigError> {
        check_name(&self.name)?;
        check_count("mailbox", self.mailbox)?;
        if self.mailbox > MAX_MAILBOX {
            return Err(ConfigError::TooLarge {
                field: "mailbox",
                value: self.mailbox,
                limit: MAX_MAILBOX,
            });
        }
        Ok(())
    }
}

impl<T> fmt::Debug for ReceiverConfig<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceiverConfig")
            .field("name", &self.name)
            .field("filter", &self.filter)
            .field("mailbox", &self.mailbox)
            .finish()
    }
}
