//! So many, by a person.

use std::time::Duration;

use sim_core::time::Instant;

use super::{Explanation, Opinion, PolicyInput, Reason, Vote};

/// A fixed capacity: `None` leaves the capacity to whoever sets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ManualConfig {
    /// How many there should be, held to the group's bounds. Default: none.
    pub desired: Option<u32>,
}

impl ManualConfig {
    pub(super) fn decide(&self, input: &PolicyInput<'_>) -> Opinion {
        match self.desired {
            Some(desired) => {
                let mut opinion = Opinion::want(input, desired, Explanation::of(Reason::Requested));
                opinion.vote = Vote::Set;
                opinion
            }
            None => Opinion::stay(input, Vote::Abstain, Explanation::of(Reason::Nothing)),
        }
    }
}

/// Whether a request waits for the cooldown of the last activity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum HonorCooldown {
    /// It is refused while the cooldown runs.
    Yes,
    /// It is carried out at once: the default of `SetDesiredCapacity`.
    #[default]
    No,
}

/// Checks a person's request for so many instances, as `SetDesiredCapacity` does; returns the capacity.
///
/// `cooldown` is the group's, and runs since the last activity ended.
///
/// # Errors
///
/// [`SetDesiredError`]: outside of the bounds, or while a cooldown that is honoured runs.
pub fn set_desired(
    input: &PolicyInput<'_>,
    desired: u32,
    honor: HonorCooldown,
    cooldown: Duration,
) -> Result<u32, SetDesiredError> {
    let capacity = input.capacity;
    if desired < capacity.min || desired > capacity.max {
        return Err(SetDesiredError::Bounds {
            desired,
            min: capacity.min,
            max: capacity.max,
        });
    }
    if honor == HonorCooldown::Yes
        && let Some(last) = input.last_activity
        && input.now < last + cooldown
    {
        return Err(SetDesiredError::Cooldown {
            until: last + cooldown,
        });
    }
    Ok(desired)
}

/// A person's request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SetDesiredError {
    /// The number is outside of the group's bounds.
    #[error("desired: {desired} is not between min, {min}, and max, {max}")]
    Bounds {
        /// The number given.
        desired: u32,
        /// The least.
        min: u32,
        /// The greatest.
        max: u32,
    },
    /// The cooldown of the last activity runs.
    #[error("a cooldown runs until {} ns", until.as_nanos())]
    Cooldown {
        /// Until when.
        until: Instant,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::Metrics;
    use crate::policy::{Capacity, Policy, PolicyConfig};
    use sim_core::time::Timestamp;

    #[test]
    fn a_request_is_held_to_the_bounds_and_to_the_cooldown_if_honoured() {
        let metrics = Metrics::default();
        let capacity = Capacity {
            min: 1,
            max: 5,
            desired: 2,
            ..Capacity::default()
        };
        let now = Instant::ORIGIN + Duration::from_secs(100);
        let mut input = PolicyInput::new(now, Timestamp::UNIX_EPOCH, capacity, &metrics);
        input.last_activity = Some(Instant::ORIGIN + Duration::from_secs(10));
        let set = |n, honor, seconds| set_desired(&input, n, honor, Duration::from_secs(seconds));
        assert_eq!(set(5, HonorCooldown::No, 300), Ok(5));
        assert_eq!(
            set(6, HonorCooldown::No, 300).unwrap_err().to_string(),
            "desired: 6 is not between min, 1, and max, 5"
        );
        assert!(matches!(
            set(5, HonorCooldown::Yes, 300),
            Err(SetDesiredError::Cooldown { .. })
        ));
        assert_eq!(set(5, HonorCooldown::Yes, 90), Ok(5));
    }

    #[test]
    fn a_fixed_capacity_is_set_within_the_bounds() {
        let metrics = Metrics::default();
        let capacity = Capacity {
            min: 1,
            max: 5,
            desired: 2,
            ..Capacity::default()
        };
        let input = PolicyInput::new(Instant::ORIGIN, Timestamp::UNIX_EPOCH, capacity, &metrics);
        let config = ManualConfig { desired: Some(9) };
        let policy = Policy::new("fixed", PolicyConfig::Manual(config)).unwrap();
        let decision = policy.decide(&mut policy.start(), &input);
        assert_eq!((decision.vote, decision.desired), (Vote::Set, 5));
    }
}
