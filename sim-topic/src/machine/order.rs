//! Order within a group, for one subscription.
