//! What the tests share: a topic on a clock that they move, and subscribers that do as they are told.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sim_core::clock::{Clock, VirtualClock};
use sim_core::seam::{Refused, Sink};
use sim_core::time::Timestamp;
use sim_topic::{DeadLetter, GroupId, Message, Notification, Topic, TopicConfig};

pub(crate) fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub(crate) fn clock() -> (Clock, VirtualClock) {
    Clock::virtual_at("2026-01-01T00:00:00Z".parse::<Timestamp>().unwrap())
}

pub(crate) fn topic(config: TopicConfig) -> (Topic<u64>, VirtualClock) {
    let (clock, time) = clock();
    (Topic::with_clock(config, clock).unwrap(), time)
}

pub(crate) fn grouped(group: &str, value: u64) -> Message<u64> {
    Message::new(value).group(GroupId::new(group).unwrap())
}

/// Moves the clock and serves what is due.
pub(crate) fn pass<T: Send + Sync + 'static>(topic: &Topic<T>, time: &VirtualClock, by: Duration) {
    time.advance(by);
    topic.advance(time.now());
}

/// What a [`Probe`] says to the next item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Say {
    Take,
    Full,
    Closed,
    Reject,
    Panic,
}

/// A sink that keeps what it takes, and refuses as it is told.
pub(crate) struct Probe<I> {
    shared: Arc<Kept<I>>,
}

struct Kept<I> {
    items: Mutex<Vec<I>>,
    script: Mutex<VecDeque<Say>>,
    otherwise: Mutex<Say>,
    tries: AtomicU64,
}

impl<I> Clone for Probe<I> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<I> Probe<I> {
    pub(crate) fn new() -> Self {
        Self {
            shared: Arc::new(Kept {
                items: Mutex::new(Vec::new()),
                script: Mutex::new(VecDeque::new()),
                otherwise: Mutex::new(Say::Take),
                tries: AtomicU64::new(0),
            }),
        }
    }

    /// Says `answers` first, one for each item, and then takes again.
    pub(crate) fn script(&self, answers: &[Say]) {
        self.shared.script.lock().unwrap().extend(answers);
    }

    /// Says this to what no script is left for.
    pub(crate) fn always(&self, say: Say) {
        *self.shared.otherwise.lock().unwrap() = say;
    }

    pub(crate) fn tries(&self) -> u64 {
        self.shared.tries.load(Ordering::SeqCst)
    }

    pub(crate) fn len(&self) -> usize {
        self.shared.items.lock().unwrap().len()
    }

    pub(crate) fn take(&self) -> Vec<I> {
        std::mem::take(&mut *self.shared.items.lock().unwrap())
    }
}

impl Probe<Notification<u64>> {
    pub(crate) fn values(&self) -> Vec<u64> {
        let items = self.shared.items.lock().unwrap();
        items.iter().map(|item| *item.value()).collect()
    }
}

impl Probe<DeadLetter<u64>> {
    pub(crate) fn values(&self) -> Vec<u64> {
        let items = self.shared.items.lock().unwrap();
        items
            .iter()
            .map(|item| *item.notification.value())
            .collect()
    }
}

impl<I: Send> Sink<I> for Probe<I> {
    fn try_deliver(&self, item: I) -> Result<(), Refused<I>> {
        self.shared.tries.fetch_add(1, Ordering::SeqCst);
        let say = self.shared.script.lock().unwrap().pop_front();
        let say = say.unwrap_or_else(|| *self.shared.otherwise.lock().unwrap());
        match say {
            Say::Take => {
                self.shared.items.lock().unwrap().push(item);
                Ok(())
            }
            Say::Full => Err(Refused::full(item, None)),
            Say::Closed => Err(Refused::closed(item)),
            Say::Reject => Err(Refused::rejected(item, "not this one")),
            Say::Panic => panic!("the sink was told to panic"),
        }
    }
}
