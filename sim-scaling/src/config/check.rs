//! The check of a configuration, once, when the group is built.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{
    GroupConfig, LifecycleHook, MAX_HOOKS, MAX_OVERRIDES, MAX_SIZE, MAX_VERSIONS, MAX_ZONES,
    MaintenancePolicy, MixedInstances, RefreshConfig, SpotStrategy,
};
use crate::error::ConfigError;

/// The longest duration that is taken: a hundred years.
const MAX_DURATION: Duration = Duration::from_secs(100 * 366 * 86_400);
/// The longest name in bytes.
const MAX_NAME: usize = 255;
/// The most tags.
const MAX_TAGS: usize = 50;
/// The longest history and outbox.
const MAX_KEPT: usize = 100_000;
/// The most alarms of a refresh.
const MAX_ALARMS: usize = 10;

impl GroupConfig {
    /// Checks every field against its range.
    ///
    /// # Errors
    /// The first field that is out of range, with its limit.
    pub fn check(&self) -> Result<(), ConfigError> {
        check_name("name", &self.name)?;
        check_most("max", self.max.into(), MAX_SIZE.into())?;
        check_most("min", self.min.into(), self.max.into())?;
        if let Some(desired) = self.desired {
            check_range("desired", desired, self.min, self.max)?;
        }
        self.check_zones()?;
        self.check_template()?;
        if let Some(mixed) = &self.mixed {
            self.check_mixed(mixed)?;
        }
        if let Some(policy) = self.maintenance {
            check_maintenance("maintenance", policy)?;
        }
        check_count("termination", self.termination.len(), 1, 16)?;
        check_most("hooks", self.hooks.len() as u64, MAX_HOOKS as u64)?;
        let mut names = BTreeSet::new();
        for hook in &self.hooks {
            check_hook(hook)?;
            if !names.insert(hook.name.as_str()) {
                return Err(twice("hooks", &hook.name));
            }
        }
        if let Some(pool) = self.warm_pool {
            check_most("warm_pool.min_size", pool.min_size.into(), MAX_SIZE.into())?;
            let prepared = pool.max_prepared.unwrap_or(0);
            check_most("warm_pool.max_prepared", prepared.into(), MAX_SIZE.into())?;
        }
        for (field, value) in [
            ("default_cooldown", self.default_cooldown),
            ("default_warmup", self.default_warmup),
            ("health_grace", self.health_grace),
            ("drain_timeout", self.drain_timeout),
            ("backoff.longest", self.backoff.longest),
            ("backoff.stable", self.backoff.stable),
        ] {
            check_duration(field, value)?;
        }
        for (field, value) in [
            ("max_lifetime", self.max_lifetime.unwrap_or(MAX_DURATION)),
            ("launch_timeout", self.launch_timeout),
            ("end_timeout", self.end_timeout),
            ("backoff.first", self.backoff.first),
            ("metric_period", self.metric_period),
            ("health_period", self.health_period),
            ("drain_period", self.drain_period),
        ] {
            check_period(field, value)?;
        }
        check_count("history", self.history, 1, MAX_KEPT)?;
        check_count("outbox", self.outbox, 1, MAX_KEPT)?;
        check_most("tags", self.tags.len() as u64, MAX_TAGS as u64)
    }

    fn check_zones(&self) -> Result<(), ConfigError> {
        check_count("zones", self.zones.len(), 1, MAX_ZONES)?;
        let mut names = BTreeSet::new();
        for zone in &self.zones {
            check_name("zones", &zone.name)?;
            if !names.insert(zone.name.as_str()) {
                return Err(twice("zones", &zone.name));
            }
        }
        Ok(())
    }

    fn check_template(&self) -> Result<(), ConfigError> {
        let versions = &self.template.versions;
        check_count("template.versions", versions.len(), 1, MAX_VERSIONS)?;
        if let Some(pair) = versions
            .windows(2)
            .find(|pair| pair[0].number >= pair[1].number)
        {
            return Err(ConfigError::Order {
                field: "template.versions",
                before: pair[0].number,
                after: pair[1].number,
            });
        }
        for (field, choice) in [
            ("version", self.version),
            ("template.default_version", super::VersionChoice::Default),
        ] {
            if self.template.resolve(choice).is_none() {
                return Err(ConfigError::NoVersion { field, choice });
            }
        }
        Ok(())
    }

    fn check_mixed(&self, mixed: &MixedInstances) -> Result<(), ConfigError> {
        check_count("mixed.overrides", mixed.overrides.len(), 1, MAX_OVERRIDES)?;
        for over in &mixed.overrides {
            let units = over.units(self.capacity_unit);
            check_range("mixed.overrides.weight", units, 1, MAX_SIZE)?;
            for (field, value) in [
                ("mixed.overrides.on_demand_price", over.kind.on_demand_price),
                ("mixed.overrides.spot_price", over.kind.spot_price),
                ("mixed.overrides.spot_depth", over.kind.spot_depth),
            ] {
                if !value.is_finite() || value < 0.0 {
                    return Err(ConfigError::NotANumber { field, value });
                }
            }
        }
        check_range(
            "mixed.on_demand_percentage",
            mixed.on_demand_percentage,
            0,
            100,
        )?;
        if let SpotStrategy::LowestPrice { pools } = mixed.spot_strategy {
            check_range("mixed.spot_strategy.pools", pools, 1, MAX_OVERRIDES as u32)?;
        }
        match mixed.spot_max_price {
            Some(value) if !value.is_finite() || value < 0.0 => Err(ConfigError::NotANumber {
                field: "mixed.spot_max_price",
                value,
            }),
            _ => Ok(()),
        }
    }
}

impl RefreshConfig {
    /// Checks every field against its range.
    ///
    /// # Errors
    /// The first field that is out of range, with its limit.
    pub fn check(&self) -> Result<(), ConfigError> {
        if let Some(policy) = self.healthy {
            check_maintenance("refresh.healthy", policy)?;
        }
        check_most("refresh.checkpoints", self.checkpoints.len() as u64, 100)?;
        for &checkpoint in &self.checkpoints {
            check_range("refresh.checkpoints", checkpoint, 1, 100)?;
        }
        if let Some(pair) = self.checkpoints.windows(2).find(|pair| pair[0] >= pair[1]) {
            return Err(ConfigError::Order {
                field: "refresh.checkpoints",
                before: pair[0],
                after: pair[1],
            });
        }
        check_most(
            "refresh.alarms",
            self.alarms.len() as u64,
            MAX_ALARMS as u64,
        )?;
        check_duration("refresh.warmup", self.warmup.unwrap_or_default())?;
        check_duration("refresh.checkpoint_delay", self.checkpoint_delay)?;
        check_duration("refresh.bake_time", self.bake_time)?;
        check_period("refresh.patience", self.patience)
    }
}

/// Checks one hook.
pub(crate) fn check_hook(hook: &LifecycleHook) -> Result<(), ConfigError> {
    check_name("hooks", &hook.name)?;
    check_period("hooks.heartbeat", hook.heartbeat)?;
    check_period("hooks.longest", hook.longest)
}

fn check_maintenance(field: &'static str, policy: MaintenancePolicy) -> Result<(), ConfigError> {
    check_range(field, policy.min_healthy, 0, 100)?;
    check_range(field, policy.max_healthy, 100, 200)
}

fn check_name(field: &'static str, name: &str) -> Result<(), ConfigError> {
    if name.is_empty() || name.len() > MAX_NAME {
        return Err(ConfigError::Name {
            field,
            length: name.len(),
            limit: MAX_NAME,
        });
    }
    Ok(())
}

fn twice(field: &'static str, name: &str) -> ConfigError {
    ConfigError::Twice {
        field,
        name: name.to_owned(),
    }
}

fn check_range(field: &'static str, value: u32, least: u32, most: u32) -> Result<(), ConfigError> {
    if value < least || value > most {
        return Err(ConfigError::OutOfRange {
            field,
            value: value.into(),
            least: least.into(),
            most: most.into(),
        });
    }
    Ok(())
}

fn check_count(
    field: &'static str,
    value: usize,
    least: usize,
    most: usize,
) -> Result<(), ConfigError> {
    if value < least || value > most {
        return Err(ConfigError::OutOfRange {
            field,
            value: value as u64,
            least: least as u64,
            most: most as u64,
        });
    }
    Ok(())
}

fn check_most(field: &'static str, value: u64, most: u64) -> Result<(), ConfigError> {
    if value > most {
        return Err(ConfigError::OutOfRange {
            field,
            value,
            least: 0,
            most,
        });
    }
    Ok(())
}

fn check_duration(field: &'static str, value: Duration) -> Result<(), ConfigError> {
    if value > MAX_DURATION {
        return Err(ConfigError::TooLong {
            field,
            value,
            limit: MAX_DURATION,
        });
    }
    Ok(())
}

fn check_period(field: &'static str, value: Duration) -> Result<(), ConfigError> {
    if value.is_zero() {
        return Err(ConfigError::Zero { field });
    }
    check_duration(field, value)
}
