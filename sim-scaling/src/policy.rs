//! Policies: pure functions of a metric window.
