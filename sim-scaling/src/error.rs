//! One error type for each operation.

use std::time::Duration;

use sim_core::time::Instant;

use crate::config::VersionChoice;
use crate::machine::IllegalTransition;
use crate::message::InstanceId;

/// Why a configuration was refused; names the field, its value and the limit.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A name is empty or too long.
    #[error("{field}: a name has {length} bytes, must have 1 to {limit}")]
    Name {
        /// The field.
        field: &'static str,
        /// Bytes given.
        length: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// A name stands there twice.
    #[error("{field}: {name:?} stands there twice")]
    Twice {
        /// The field.
        field: &'static str,
        /// The name.
        name: String,
    },
    /// A number is outside of its range.
    #[error("{field}: {value}, must be from {least} to {most}")]
    OutOfRange {
        /// The field.
        field: &'static str,
        /// The value given.
        value: u64,
        /// The smallest allowed.
        least: u64,
        /// The largest allowed.
        most: u64,
    },
    /// A price or depth is negative, infinite or not a number.
    #[error("{field}: {value} is not a finite number from 0 on")]
    NotANumber {
        /// The field.
        field: &'static str,
        /// The value given.
        value: f64,
    },
    /// Numbers that must rise do not.
    #[error("{field}: {after} follows {before}, must rise")]
    Order {
        /// The field.
        field: &'static str,
        /// The number before.
        before: u32,
        /// The number after it.
        after: u32,
    },
    /// The template has no such version.
    #[error("{field}: the template has no version {choice:?}")]
    NoVersion {
        /// The field.
        field: &'static str,
        /// The version asked for.
        choice: VersionChoice,
    },
    /// A duration that must not be zero is.
    #[error("{field}: must not be zero")]
    Zero {
        /// The field.
        field: &'static str,
    },
    /// A duration is too long.
    #[error("{field}: {value:?} is longer than {limit:?}")]
    TooLong {
        /// The field.
        field: &'static str,
        /// The value given.
        value: Duration,
        /// The longest allowed.
        limit: Duration,
    },
    /// A gauge or a policy of that name is there already.
    #[error("{field}: there is a {name:?} already")]
    Taken {
        /// What it is.
        field: &'static str,
        /// The name.
        name: String,
    },
    /// A policy is not valid.
    #[error("policy {name:?}: {reason}")]
    Policy {
        /// Its name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Why the desired capacity was not set. Nothing changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DesiredError {
    /// It is outside of the group's limits.
    #[error("desired: {desired}, must be from {min} to {max}")]
    OutOfRange {
        /// The value given.
        desired: u32,
        /// The group's least.
        min: u32,
        /// The group's most.
        max: u32,
    },
    /// The cooldown was to be honoured and is not over.
    #[error("desired: the cooldown lasts until {until:?}")]
    CoolingDown {
        /// When it is over.
        until: Instant,
    },
}

/// Why a policy was not carried out. Nothing changed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ExecuteError {
    /// There is none of that name.
    #[error("the group has no policy {name:?}")]
    Unknown {
        /// The name given.
        name: String,
    },
    /// The cooldown was to be honoured and is not over.
    #[error("the cooldown lasts until {until:?}")]
    CoolingDown {
        /// When it is over.
        until: Instant,
    },
    /// The policy has no adjustment for the breach: no step covers it, a number is not finite, or it is neither simple nor
    /// step scaling.
    #[error(
        "policy {name:?} has no adjustment for the value {value} against the threshold {threshold}"
    )]
    NoAdjustment {
        /// The policy.
        name: String,
        /// The value given.
        value: f64,
        /// The threshold given.
        threshold: f64,
    },
}

/// Why an operation on an instance was refused. Nothing changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InstanceError {
    /// The group has no such instance.
    #[error("the group has no instance {id}")]
    Unknown {
        /// The id given.
        id: InstanceId,
    },
    /// The group has an instance of that id already.
    #[error("the group has an instance {id} already")]
    Known {
        /// The id given.
        id: InstanceId,
    },
    /// The instance is not in a state for it.
    #[error("instance {id}: {transition}")]
    State {
        /// The instance.
        id: InstanceId,
        /// What it would have had to do.
        transition: IllegalTransition,
    },
    /// The desired capacity would go below the least.
    #[error("the desired capacity would be {desired}, less than the least, {min}")]
    BelowMin {
        /// What it would be.
        desired: i64,
        /// The group's least.
        min: u32,
    },
    /// The desired capacity would go above the most.
    #[error("the desired capacity would be {desired}, more than the most, {max}")]
    AboveMax {
        /// What it would be.
        desired: u64,
        /// The group's most.
        max: u32,
    },
    /// The group has no such zone.
    #[error("the group has no zone {zone:?}")]
    UnknownZone {
        /// The name given.
        zone: String,
    },
    /// The provisioner does not take the instance.
    #[error("the provisioner does not take instance {id}: {reason}")]
    Refused {
        /// The instance.
        id: InstanceId,
        /// What it said.
        reason: String,
    },
}

/// Why an answer to a hook had no effect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HookError {
    /// The group has no such instance.
    #[error("the group has no instance {id}")]
    Unknown {
        /// The id given.
        id: InstanceId,
    },
    /// The instance does not wait for that hook: answered, out of time, or never asked.
    #[error("instance {id} does not wait for hook {hook:?}")]
    NotWaiting {
        /// The instance.
        id: InstanceId,
        /// The hook's name.
        hook: String,
    },
}

/// Why an instance refresh was not begun, cancelled or rolled back.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RefreshError {
    /// One is going on.
    #[error("instance refresh {id} is in progress")]
    InProgress {
        /// Its number.
        id: u64,
    },
    /// None is going on.
    #[error("no instance refresh is in progress")]
    NotActive,
    /// It is being rolled back already.
    #[error("instance refresh {id} is being rolled back already")]
    RollingBack {
        /// Its number.
        id: u64,
    },
    /// Its configuration is not valid.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// Why a group was not deleted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeleteError {
    /// The configuration forbids it.
    #[error("the group is protected from deletion")]
    Protected,
    /// It has instances, and force was not asked for.
    #[error("the group has {instances} instances")]
    InUse {
        /// How many.
        instances: usize,
    },
}

/// There is no policy, scheduled action or zone of that name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the group has no {what} {name:?}")]
pub struct UnknownName {
    /// What was asked for.
    pub what: &'static str,
    /// The name given.
    pub name: String,
}
