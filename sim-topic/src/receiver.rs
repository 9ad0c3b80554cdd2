//! Receivers: subscribers that pull.
