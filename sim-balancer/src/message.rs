//! What goes in and out of a balancer: targets, requests, outcomes. Inert data.

use std::time::Duration;

pub use crate::machine::{TargetId, Zone};

/// Something that gets requests, as it is registered.
///
/// What it is, its `value`, is the caller's: an address, a client, a function, another balancer.
///
/// ```
/// use sim_balancer::Target;
///
/// let target = Target::new("10.0.0.7:8080", "http://10.0.0.7:8080")
///     .weight(3)
///     .zone("a")
///     .max_outstanding(100);
/// assert_eq!(target.id.as_str(), "10.0.0.7:8080");
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Target<T> {
    /// Its name within the balancer.
    pub id: TargetId,
    /// What a lease gives access to.
    pub value: T,
    /// Its share of the requests, relative to the others. 0: it gets none. Default: 1.
    pub weight: u32,
    /// What it fails together with. Default: none.
    pub zone: Option<Zone>,
    /// Who gets requests first: 0 before 1. Default: 0.
    pub priority: u32,
    /// How many requests it may have in hand. Default: what the balancer's configuration says.
    pub max_outstanding: Option<u32>,
}

impl<T> Target<T> {
    /// Makes a target of weight 1, without a zone, of the first priority.
    #[must_use]
    pub fn new(id: impl Into<TargetId>, value: T) -> Self {
        Self {
            id: id.into(),
            value,
            weight: 1,
            zone: None,
            priority: 0,
            max_outstanding: None,
        }
    }

    /// Sets its share of the requests.
    #[must_use]
    pub fn weight(self, weight: u32) -> Self {
        Self { weight, ..self }
    }

    /// Sets its zone.
    #[must_use]
    pub fn zone(self, zone: impl Into<Zone>) -> Self {
        Self {
            zone: Some(zone.into()),
            ..self
        }
    }

    /// Sets its priority; 0 is the first.
    #[must_use]
    pub fn priority(self, priority: u32) -> Self {
        Self { priority, ..self }
    }

    /// Sets how many requests it may have in hand.
    #[must_use]
    pub fn max_outstanding(self, limit: u32) -> Self {
        Self {
            max_outstanding: Some(limit),
            ..self
        }
    }
}

/// What is known of a request when a target is picked for it. Borrowed and small: to make one costs nothing.
///
/// ```
/// use sim_balancer::{Request, key_of};
///
/// let request = Request {
///     key: Some(key_of(b"customer 7")),
///     ..Default::default()
/// };
/// # let _ = request;
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct Request<'a> {
    /// The hash of what the request is to be spread by, for algorithms that hash. Make it with [`key_of`].
    pub key: Option<u64>,
    /// Where the request comes from. `None`: the balancer's own zone, if it has one.
    pub zone: Option<&'a Zone>,
    /// The target that the request is to stay with, if that may have it.
    pub sticky: Option<&'a TargetId>,
    /// Targets that it should not go to, as those that it failed at before; if there are no others, it goes there.
    pub avoid: &'a [TargetId],
}

/// Hashes a key, the same in every process and version.
///
/// A folded product of 16 bytes at a time, after wyhash (Wang Yi). Not for keys that an enemy chooses.
#[inline]
#[must_use]
pub fn key_of(key: &[u8]) -> u64 {
    crate::algorithm::hash::hash(key)
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The target did what it was asked.
    Success,
    /// The target answered that it failed, as with an HTTP status of 5xx.
    Failure,
    /// The target was not reached or did not answer: connection refused or cut, timeout. A failure too.
    Unreachable,
    /// The target refused for too much load, as with an HTTP status of 429 or 503. With the algorithms that take latencies
    /// (peak EWMA, least time and C3) it gets less for a while; the others go on as before. It is no failure in a row,
    /// but one in statistics, and so in the rates of failure by which outliers and anomalies are found.
    Overloaded {
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// The request was given up; nothing is concluded about the target. What dropping the lease says.
    Cancelled,
}

/// What a target tells of its own load, as in the headers of its answer or by a probe.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Feedback {
    /// Requests in flight there.
    pub in_flight: u32,
    /// Its own latency at that load.
    pub latency: Option<Duration>,
    /// How much of itself it uses, 1 for all; more where it may be overdrawn.
    pub utilization: Option<f32>,
    /// Requests that it serves a second.
    pub rate: Option<f32>,
    /// Of these, those that fail.
    pub error_rate: Option<f32>,
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_hash_of_a_key_never_changes() {
        assert_eq!(key_of(b""), 10_602_188_539_874_428_322);
        assert_ne!(key_of(b"a"), key_of(b"b"));
    }
}
