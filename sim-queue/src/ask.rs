//! What callers ask for: how to receive, how to close.

use std::time::Duration;

use crate::group::ReceiveAttemptId;

/// What closing does with the messages that are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Close {
    /// They are still delivered; receivers see the end when nothing is left.
    Drain,
    /// They are dropped; what is in flight can no longer be acknowledged.
    Drop,
}

/// What a receive asks for.
///
/// ```
/// use std::time::Duration;
/// use sim_queue::Receive;
///
/// let ask = Receive { max: 10, visibility_timeout: Some(Duration::from_secs(5)), ..Receive::default() };
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receive {
    /// The most messages to return: at least 1, at most [`Limits::batch`](crate::Limits::batch). Default: 1.
    pub max: usize,
    /// How long they stay hidden, instead of the queue's own timeout.
    pub visibility_timeout: Option<Duration>,
    /// On a FIFO queue: repeats an earlier receive whose answer was lost.
    pub attempt: Option<ReceiveAttemptId>,
}

impl Default for Receive {
    fn default() -> Self {
        Self {
            max: 1,
            visibility_timeout: None,
            attempt: None,
        }
    }
}
