//! Metrics: bounded windows of samples, read by the period, with what is missing kept visible.
//!
//! A [`Metrics`] holds named [`MetricWindow`]s. A window keeps samples in order of time, at most so many and at most so
//! old, and answers [`aggregate`](MetricWindow::aggregate) for any period within. A period without a sample is `None`
//! and never zero. A [`Query`] is a formula over such aggregates, with what to do when a part of it is missing.
//!
//! A sample at an instant tells of the time before it, so a period holds its end and not its start: `(start, end]`.
//!
//! ```
//! use std::time::Duration;
//! use sim_core::time::Instant;
//! use sim_scaling::metric::{Metrics, Query, Reading, Statistic};
//!
//! let minute = Duration::from_secs(60);
//! let now = Instant::ORIGIN + minute;
//! let mut metrics = Metrics::default();
//! metrics.record("jobs.waiting", now, 30.0)?;
//! metrics.record("jobs.in_flight", now, 10.0)?;
//!
//! let backlog = Query::new("jobs.waiting + jobs.in_flight")?.over(minute, Statistic::Average);
//! assert_eq!(backlog.read(&metrics, now), Reading::Value(40.0));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod formula;
mod gauge;
mod window;

use std::collections::BTreeMap;
use std::time::Duration;

use sim_core::sync::Arc;
use sim_core::time::Instant;

pub use formula::{Formula, FormulaError, FormulaProblem};
pub use gauge::{Backlog, GaugeMeter};
pub use window::{MetricWindow, SampleError, Statistic, WindowConfig, WindowError};

/// Most bytes of a metric's name.
pub const NAME_LIMIT: usize = 255;

/// Named windows, at most so many. Default: 64 windows of the default [`WindowConfig`].
#[derive(Debug, Clone)]
pub struct Metrics {
    windows: BTreeMap<Arc<str>, MetricWindow>,
    limit: usize,
    window: WindowConfig,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            windows: BTreeMap::new(),
            limit: 64,
            window: WindowConfig::default(),
        }
    }
}

impl Metrics {
    /// Makes an empty set of at most `limit` metrics, each with a window like `window`.
    ///
    /// # Errors
    ///
    /// [`WindowError`] when the window's settings are out of range.
    pub fn new(limit: usize, window: WindowConfig) -> Result<Self, WindowError> {
        window.check()?;
        Ok(Self {
            windows: BTreeMap::new(),
            limit,
            window,
        })
    }

    /// Records a sample; the first one of a name makes its window.
    ///
    /// # Errors
    ///
    /// [`MetricError`]: the name or the number of metrics is over its limit, or the sample was refused. Nothing is
    /// changed then.
    pub fn record(&mut self, name: &str, at: Instant, value: f64) -> Result<(), MetricError> {
        if let Some(window) = self.windows.get_mut(name) {
            return Ok(window.record(at, value)?);
        }
        if !formula::is_name(name) || name.len() > NAME_LIMIT {
            return Err(MetricError::Name {
                name: name.chars().take(NAME_LIMIT).collect(),
            });
        }
        if self.windows.len() >= self.limit {
            return Err(MetricError::Full { limit: self.limit });
        }
        let mut window = MetricWindow::with(self.window);
        window.record(at, value)?;
        self.windows.insert(Arc::from(name), window);
        Ok(())
    }

    /// The window of that name, if anything was recorded under it.
    #[must_use]
    pub fn window(&self, name: &str) -> Option<&MetricWindow> {
        self.windows.get(name)
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.windows.keys().map(|name| &**name)
    }

    /// Forgets a metric.
    pub fn remove(&mut self, name: &str) -> Option<MetricWindow> {
        self.windows.remove(name)
    }
}

/// A sample was not recorded.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum MetricError {
    /// The name is no identifier (letters, digits, `_`, `.`, `:`; a letter or `_` first), or too long.
    #[error(
        "metric: {name:?} is not a name of 1 to {NAME_LIMIT} letters, digits, `_`, `.` and `:`"
    )]
    Name {
        /// The name, cut to the limit.
        name: String,
    },
    /// There are as many metrics as there may be.
    #[error("metrics: there are {limit} already, the most allowed")]
    Full {
        /// How many there may be.
        limit: usize,
    },
    /// The window refused the sample.
    #[error(transparent)]
    Sample(#[from] SampleError),
}

/// A formula over metrics, each aggregated over the latest period, and what to do when one is missing.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Query {
    formula: Formula,
    /// The period over which each metric is aggregated, ending now. Default: one minute.
    pub period: Duration,
    /// How the samples of the period become one value. Default: the average.
    pub statistic: Statistic,
}

impl Query {
    /// Parses a formula; the name of a metric alone is one.
    ///
    /// # Errors
    ///
    /// [`FormulaError`] with the place and the problem.
    pub fn new(formula: &str) -> Result<Self, FormulaError> {
        Ok(Self {
            formula: Formula::parse(formula)?,
            period: Duration::from_secs(60),
            statistic: Statistic::Average,
        })
    }

    /// The same with another period and statistic.
    #[must_use]
    pub const fn over(mut self, period: Duration, statistic: Statistic) -> Self {
        self.period = period;
        self.statistic = statistic;
        self
    }

    /// The formula.
    #[must_use]
    pub const fn formula(&self) -> &Formula {
        &self.formula
    }

    /// Evaluates the formula over the period that ends at `end`.
    #[must_use]
    pub fn read(&self, metrics: &Metrics, end: Instant) -> Reading {
        self.formula.evaluate(|name| {
            metrics
                .window(name)?
                .aggregate(end, self.period, self.statistic)
        })
    }
}

/// What a query read.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Reading {
    /// A finite value.
    Value(f64),
    /// A metric that the formula needs has no sample in the period.
    Missing {
        /// The first such metric.
        name: Arc<str>,
    },
    /// The formula has no finite value: a division by zero, an overflow.
    Undefined,
}

impl Reading {
    /// The value, where there is one.
    #[must_use]
    pub const fn value(&self) -> Option<f64> {
        match self {
            Self::Value(value) => Some(*value),
            Self::Missing { .. } | Self::Undefined => None,
        }
    }
}

/// What a policy goes by while its metric is missing.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Fallback {
    /// Nothing changes, and nothing may be taken away meanwhile: HPA's rule when no metric can be read.
    #[default]
    Hold,
    /// So many instances, as KEDA's `fallback.replicas`.
    Capacity(u32),
    /// The last value that was read, while it is not older than this; then as [`Fallback::Hold`].
    LastValue(Duration),
    /// This value: finite, and for a metric of an average instance that of the capacity when the metric went missing.
    Value(f64),
}
