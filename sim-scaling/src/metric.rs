//! Metrics and their windows.
