//! Who else is told of arrivals: the events of the queues on a stream.
//!
//! A queue has an event of its own, since its waiters wait for the ends of leases too, and since one record is for one of them:
//! the stream's own event wakes everybody each time.
//!
//! # Ordering
//! A put changes a log (`SeqCst`, as the log says) and then loads `any`. A queue stores `any`, crosses a `SeqCst` fence, and
//! only then looks at the logs. So the put sees the queue, or the queue the record.

use sim_core::event::Event;
use sim_core::snapshot::Snapshot;
use sim_core::sync::atomic::{AtomicBool, Ordering, fence};
use sim_core::sync::{Arc, Mutex};

/// The events of the queues on one stream.
pub(crate) struct Followers {
    /// Whether there are any: all that a put of a stream without queues reads.
    any: AtomicBool,
    events: Snapshot<Vec<Arc<Event>>>,
    /// How many there have been.
    joined: Mutex<u64>,
}

impl Followers {
    pub(crate) fn new() -> Self {
        Self {
            any: AtomicBool::new(false),
            events: Snapshot::new(Vec::new()),
            joined: Mutex::new(0),
        }
    }

    /// Tells each queue that a record or a shard has come, or that the stream was closed.
    #[inline]
    pub(crate) fn notify(&self) {
        if self.any.load(Ordering::SeqCst) {
            for event in self.events.load().iter() {
                event.notify_one();
            }
        }
    }

    /// Adds an event, which hears of everything that its owner does not find from now on. Returns how many were
    /// added before, in all.
    pub(crate) fn join(&self, event: &Arc<Event>) -> u64 {
        let mut joined = self.joined.lock();
        self.events
            .update(|events| events.iter().chain([event]).cloned().collect());
        self.any.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let number = *joined;
        *joined += 1;
        number
    }

    /// Removes an event.
    pub(crate) fn leave(&self, event: &Arc<Event>) {
        let _joined = self.joined.lock();
        let left = self.events.update(|events| {
            let others = events.iter().filter(|other| !Arc::ptr_eq(other, event));
            others.cloned().collect()
        });
        self.any.store(!left.is_empty(), Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{QueueConfig, Stream, StreamConfig};

    fn told(followers: &Followers) -> (usize, bool) {
        let any = followers.any.load(Ordering::SeqCst);
        (followers.events.load().len(), any)
    }

    #[test]
    fn a_queue_is_told_from_its_creation_until_it_is_dropped_or_closed() {
        let stream: Stream<u32> = Stream::new(StreamConfig::new("s")).unwrap();
        let followers = &stream.shared().followers;
        assert_eq!(told(followers), (0, false));
        let one = stream.queue(QueueConfig::new("one")).unwrap();
        let other = stream.queue(QueueConfig::new("other")).unwrap();
        assert_eq!(told(followers), (2, true));
        let clone = one.clone();
        drop(one);
        assert_eq!(told(followers), (2, true));
        drop(clone);
        assert_eq!(told(followers), (1, true));
        other.close();
        assert_eq!(told(followers), (0, false));
        drop(other);
        assert_eq!(told(followers), (0, false));
    }

    #[test]
    fn no_two_followers_have_one_number() {
        let followers = Followers::new();
        let event = Arc::new(Event::new());
        assert_eq!(followers.join(&event), 0);
        followers.leave(&event);
        assert_eq!(followers.join(&event), 1);
    }
}
