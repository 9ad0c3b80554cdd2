//! Forecasts of a load, learned as it comes: seasons, windows, and the times at which it can change at all.
//!
//! All parts take one value a step, hold a bounded number of them, and look at nothing that has not happened yet.
//!
//! - [`Season`]: mean and deviation of each slot of a cycle, such as each minute of the day, the newest cycles counting most;
//! - [`Highest`] and [`Quantiles`]: the greatest value and any quantile of the latest steps;
//! - [`Plateaus`]: whether the load only changes on every n-th step, as a metric of a coarser resolution does.

mod plateau;
mod season;
mod window;

pub use plateau::Plateaus;
pub use season::Season;
pub use window::{Highest, Quantiles};
