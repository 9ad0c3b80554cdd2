//! Queues on a stream: acknowledgement per record over the log.
