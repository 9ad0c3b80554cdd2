//! The handle of a subscription.
