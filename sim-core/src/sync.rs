//! The one place that names atomics, cells, locks and threads: std's, or loom's under `cfg(loom)`.
