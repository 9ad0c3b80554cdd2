//! The JSON envelope of delivered messages.
