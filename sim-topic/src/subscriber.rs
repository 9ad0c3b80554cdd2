//! What may stand behind a subscription.
