//! What a balancer is told once, when it is built. Plain fields; checked by [`BalancerConfig::check`].

use crate::algorithm::{Algorithm, MOST_OUTSTANDING};
use crate::error::ConfigError;
use crate::machine::{Rules, Zone};

/// The configuration of a [`Balancer`](crate::Balancer).
///
/// Write it as a literal that ends in `..Default::default()`; fields may be added.
///
/// ```
/// use sim_balancer::{Algorithm, BalancerConfig};
///
/// let config = BalancerConfig {
///     algorithm: Algorithm::SmoothWeighted,
///     max_outstanding: Some(100),
///     ..Default::default()
/// };
/// assert!(config.check().is_ok());
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct BalancerConfig {
    /// The balancer's name, as statistics and logs show it. Default: `"balancer"`.
    pub name: String,
    /// How a target is chosen. Default: [`Algorithm::PeakEwma`] among all targets, or 8 of more than 32.
    pub algorithm: Algorithm,
    /// Health, weights, zones, draining: which targets get requests, and how much of them.
    pub rules: Rules,
    /// The zone that requests come from that name none. Default: none.
    pub zone: Option<Zone>,
    /// How many requests each target may have in hand, unless it says otherwise; 1 to [`MOST_OUTSTANDING`].
    /// Default: `None`, which is [`MOST_OUTSTANDING`].
    pub max_outstanding: Option<u32>,
    /// What the random choices follow from. Default: 0; balancers that should not choose alike take different ones.
    pub seed: u64,
}

impl Default for BalancerConfig {
    fn default() -> Self {
        Self {
            name: "balancer".into(),
            algorithm: Algorithm::default(),
            rules: Rules::default(),
            zone: None,
            max_outstanding: None,
            seed: 0,
        }
    }
}

impl BalancerConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// The first field that is out of its range.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.algorithm.check()?;
        self.rules.check()?;
        match self.max_outstanding {
            Some(value) if !is_limit(value) => Err(ConfigError::MaxOutstanding {
                value,
                limit: MOST_OUTSTANDING,
            }),
            Some(_) | None => Ok(()),
        }
    }
}

/// Whether a target may have so many requests in hand.
pub(crate) const fn is_limit(value: u32) -> bool {
    value >= 1 && value <= MOST_OUTSTANDING
}
