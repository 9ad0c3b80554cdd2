//! What a topic and a subscription count.
