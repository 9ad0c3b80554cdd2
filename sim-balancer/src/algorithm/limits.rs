//! The limits of settings, checked when a balancer is made.

use std::fmt::Display;

use crate::error::ConfigError;

/// Fails unless the condition holds that `range` tells.
pub(crate) fn ensure(
    holds: bool,
    field: &'static str,
    value: impl Display,
    range: &'static str,
) -> Result<(), ConfigError> {
    if holds {
        return Ok(());
    }
    Err(ConfigError::Algorithm {
        field,
        value: value.to_string(),
        range,
    })
}
