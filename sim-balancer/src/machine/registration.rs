//! What is said of a target when it is registered, and why it is not.

use super::Machine;
use super::name::{TargetId, Zone};

/// Who a target is, when it is registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// Its name.
    pub id: TargetId,
    /// Its weight; 0 gets nothing.
    pub weight: u32,
    /// Its zone, if it has one.
    pub zone: Option<Zone>,
    /// Its priority; 0 is the highest.
    pub priority: u32,
}

impl Registration {
    /// A target of weight 1 and the highest priority, in no zone.
    #[must_use]
    pub fn new(id: impl Into<TargetId>) -> Self {
        Self {
            id: id.into(),
            weight: 1,
            zone: None,
            priority: 0,
        }
    }
}

/// A target was not registered; nothing changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegistrationError {
    /// A target of this name is there and does not drain.
    #[error("id: {id} is registered already")]
    Duplicate {
        /// The name.
        id: TargetId,
    },
    /// As many targets are there as may be, those that drain included.
    #[error("there are {limit} targets, the most allowed")]
    TooManyTargets {
        /// The most targets.
        limit: u32,
    },
    /// The zone is new and as many zones are known as may be.
    #[error("zone: {zone} is new and {limit} zones are known, the most allowed")]
    TooManyZones {
        /// The zone.
        zone: Zone,
        /// The most zones.
        limit: u32,
    },
    /// A number is too large.
    #[error("{field}: {value} is more than {limit}")]
    TooLarge {
        /// The field.
        field: &'static str,
        /// The value given.
        value: u32,
        /// The largest allowed.
        limit: u32,
    },
    /// A name is empty or too long.
    #[error("{field}: has {length} bytes, must have 1 to {limit}")]
    Name {
        /// The field.
        field: &'static str,
        /// Bytes given.
        length: usize,
        /// Bytes allowed.
        limit: usize,
    },
}

/// No target of this name is registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no target is named {id}")]
pub struct UnknownTarget {
    /// The name.
    pub id: TargetId,
}

/// No target was ever registered in this zone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no zone is named {zone}")]
pub struct UnknownZone {
    /// The name.
    pub zone: Zone,
}

/// A weight was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WeightError {
    /// There is no such target.
    #[error(transparent)]
    Unknown(#[from] UnknownTarget),
    /// The weight is too large.
    #[error("weight: {value} is more than {limit}")]
    TooLarge {
        /// The value given.
        value: u32,
        /// The largest allowed.
        limit: u32,
    },
}

impl Machine {
    pub(super) fn check_registration(&self, spec: &Registration) -> Result<(), RegistrationError> {
        let limits = &self.rules.limits;
        let name_bytes = limits.name_bytes as usize;
        let zone = spec.zone.as_ref().map(Zone::as_str);
        for (field, text) in [("id", Some(spec.id.as_str())), ("zone", zone)] {
            let length = text.map_or(1, str::len);
            if length == 0 || length > name_bytes {
                return Err(RegistrationError::Name {
                    field,
                    length,
                    limit: name_bytes,
                });
            }
        }
        for (field, value, limit) in [
            ("weight", spec.weight, limits.weight),
            ("priority", spec.priority, limits.priorities - 1),
        ] {
            if value > limit {
                return Err(RegistrationError::TooLarge {
                    field,
                    value,
                    limit,
                });
            }
        }
        if self.find_live(&spec.id).is_ok() {
            return Err(RegistrationError::Duplicate {
                id: spec.id.clone(),
            });
        }
        let there = self.seats.len() - self.free.len();
        if there >= limits.targets as usize {
            return Err(RegistrationError::TooManyTargets {
                limit: limits.targets,
            });
        }
        Ok(())
    }
}
