//! The Kinesis Producer Library's aggregated records.
