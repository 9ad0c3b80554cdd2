//! The window in which a message is recognised as a duplicate.
