//! What the handles, the deliveries and the engines of one queue share.
//!
//! It is the context of the slab that holds the messages in flight, so that a delivery reaches it through
//! the slot that it pins and touches no reference count.
//!
//! # Ordering
//! - `next_due` and `closed` are `SeqCst`, each against what a caller does before or after: who adds a deadline makes
//!   it findable (by the ring's claim, the chunk's note or the control lock) and lowers `next_due` then; who serves
//!   sets `next_due` to never, looks, and lowers it to what it found: in the single order one sees the other.
//!   `closed` is set before the rings are closed and before what is left is counted.
//! - `undelivered_len` and `redrive_at` are `SeqCst` and written under their lock; they may be read a moment late, which
//!   the next call makes good.
//! - What stands in a slot (`first_received`, `receives`, `index`, `fate`) is `Relaxed`: the slot's stamp orders it, since
//!   whoever writes it holds the lease, and the lease passes on by compare-and-swap.

use std::collections::VecDeque;
use std::time::Duration;

use sim_core::clock::Clock;
use sim_core::counter::Counters;
use sim_core::event::Event;
use sim_core::id::Id;
use sim_core::seam::Reason;
use sim_core::slab::{Slab, Vacate};
use sim_core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use sim_core::sync::{Arc, CachePadded, Mutex};
use sim_core::time::Instant;

use crate::config::QueueConfig;
use crate::dead_letter::{DeadLetter, DeadLetterReason, Policy, ReturnAddress};
use crate::message::{Attached, Headers, Message};
use crate::move_task::Moves;
use crate::scheduled::Scheduled;
use crate::standard::Standard;

/// The slab of one queue.
pub(crate) type Slots<T> = Slab<Shared<T>, Stored<T>>;
/// A pinned slot of it.
pub(crate) type Held<T> = sim_core::slab::Held<Shared<T>, Stored<T>>;

/// A message in a slot: in flight, returned or delayed.
pub(crate) struct Stored<T> {
    pub(crate) value: T,
    pub(crate) headers: Attached<T>,
    /// Numbers the message within its queue; the id is made from it. On FIFO and fair queues it is the
    /// sequence number.
    pub(crate) number: u64,
    pub(crate) sent_at: Instant,
    /// When it was first received, in nanoseconds; 0 as long as it was not.
    pub(crate) first_received: AtomicU64,
    /// How often it was received.
    pub(crate) receives: AtomicU32,
    /// Where the machine keeps it, once it was received; on FIFO and fair queues.
    pub(crate) index: AtomicU32,
    /// What becomes of it when the last delivery that holds it goes: a [`Fate`].
    pub(crate) fate: AtomicU8,
}

/// What becomes of a message whose slot is given up while older deliveries still look at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Fate {
    /// It was acknowledged, purged, or too old: its value is dropped.
    Drop = 0,
    /// It goes to the dead letters: received too often.
    MaxReceives = 1,
    /// It goes to the dead letters: rejected by its consumer.
    Rejected = 2,
    /// It goes back to its queue: a move task could not take it by value.
    Return = 3,
}

impl Fate {
    fn of(raw: u8) -> Self {
        match raw {
            1 => Self::MaxReceives,
            2 => Self::Rejected,
            3 => Self::Return,
            _ => Self::Drop,
        }
    }

    /// The reason that a dead letter of this fate gives.
    pub(crate) const fn reason(self) -> DeadLetterReason {
        match self {
            Self::Rejected => DeadLetterReason::Rejected,
            Self::Drop | Self::Return | Self::MaxReceives => DeadLetterReason::MaxReceives,
        }
    }
}

impl<T> Stored<T> {
    #[inline]
    pub(crate) fn new(value: T, headers: Attached<T>, number: u64, sent_at: Instant) -> Self {
        Self {
            value,
            headers,
            number,
            sent_at,
            first_received: AtomicU64::new(0),
            receives: AtomicU32::new(0),
            index: AtomicU32::new(0),
            fate: AtomicU8::new(Fate::Drop as u8),
        }
    }

    /// A message that is received for the first time.
    #[inline(always)]
    pub(crate) fn received(
        value: T,
        headers: Option<Box<Headers<T>>>,
        number: u64,
        sent_at: Instant,
        first_received: u64,
    ) -> Self {
        Self {
            value,
            headers: headers.into(),
            number,
            sent_at,
            first_received: AtomicU64::new(first_received),
            receives: AtomicU32::new(1),
            index: AtomicU32::new(0),
            fate: AtomicU8::new(Fate::Drop as u8),
        }
    }

    /// The payload alone. Headers are dropped out of line, so that a message without any is not moved for it.
    #[inline(always)]
    pub(crate) fn into_value(self) -> T {
        #[inline(never)]
        fn drop_headers<T>(headers: Attached<T>) {
            drop(headers);
        }
        let Self { value, headers, .. } = self;
        match headers {
            Attached::Nothing => {}
            headers => drop_headers(headers),
        }
        value
    }

    pub(crate) fn set_fate(&self, fate: Fate) {
        self.fate.store(fate as u8, Ordering::Relaxed);
    }
}

/// Events that are counted. A message counts once among those that end its life.
pub(crate) mod count {
    pub(crate) const DELETED: usize = 0;
    pub(crate) const EXPIRED: usize = 1;
    pub(crate) const REDRIVEN: usize = 2;
    pub(crate) const PURGED: usize = 3;
    pub(crate) const MOVED: usize = 4;
    /// Sent straight into a slot: delayed, or put back by a move task.
    pub(crate) const SLOT_SENT: usize = 5;
    /// Received out of a slot: again, or after a delay.
    pub(crate) const RECEIVED_AGAIN: usize = 6;
    pub(crate) const EMPTY: usize = 7;
    /// Leases that ran out.
    pub(crate) const LAPSED: usize = 8;
    /// Leases that their holder gave back.
    pub(crate) const RELEASED: usize = 9;
    /// Left the ring without being received: too old, or purged.
    pub(crate) const UNRECEIVED: usize = 10;
    pub(crate) const LEN: usize = 11;
}

/// How far a queue is closed.
pub(crate) mod closed {
    pub(crate) const OPEN: u8 = 0;
    pub(crate) const DRAINING: u8 = 1;
    pub(crate) const DROPPED: u8 = 2;
}

/// What the handles, deliveries and the engine of one queue share.
pub(crate) struct Shared<T: Send + Sync + 'static> {
    pub(crate) config: QueueConfig,
    pub(crate) clock: Clock,
    /// How far the clock's recent time may lie behind.
    pub(crate) lag: Duration,
    pub(crate) namespace: u64,
    /// Goes into the check words of receipts.
    pub(crate) secret: u64,
    /// Receivers wait here for messages; senders wait at `space` for room; `idle` waits for the end.
    pub(crate) arrivals: Event,
    pub(crate) space: Event,
    pub(crate) idle: Event,
    /// Those who drive a move task wait here.
    pub(crate) moving: Event,
    /// A lower bound of the earliest deadline, in nanoseconds.
    pub(crate) next_due: CachePadded<AtomicU64>,
    pub(crate) closed: AtomicU8,
    pub(crate) counters: Counters<{ count::LEN }>,
    pub(crate) engine: Engine<T>,
    pub(crate) policy: Mutex<Option<Policy<T>>>,
    /// Dead letters that their sink refused for now.
    pub(crate) undelivered: Mutex<VecDeque<DeadLetter<T>>>,
    pub(crate) undelivered_len: AtomicU64,
    /// When they are offered again, in nanoseconds; never when there are none.
    pub(crate) redrive_at: AtomicU64,
    pub(crate) moves: Mutex<Moves<T>>,
    pub(crate) return_address: Arc<ReturnAddress<T>>,
    pub(crate) size: Option<fn(&T) -> usize>,
    pub(crate) content_key: Option<fn(&T) -> [u8; 32]>,
}

/// How the queue works inside.
#[expect(
    clippy::large_enum_variant,
    reason = "one of them in each queue: a box would cost each operation a load"
)]
pub(crate) enum Engine<T> {
    /// Lock-free.
    Standard(Standard<T>),
    /// The machine in a mutex: FIFO and fair queues.
    Scheduled(Scheduled),
}

/// How long a dead letter waits until its sink is asked again.
pub(crate) const REDRIVE_RETRY: Duration = Duration::from_secs(1);

impl<T: Send + Sync + 'static> Shared<T> {
    pub(crate) fn id(&self, number: u64) -> Id {
        Id::from_parts(self.namespace, number)
    }

    pub(crate) fn id_of(&self, stored: &Stored<T>) -> Id {
        let own = stored.headers.headers().and_then(|headers| headers.id);
        own.unwrap_or_else(|| self.id(stored.number))
    }

    /// Announces a deadline that was just made findable: lowers the bound, and lets the timekeeper know.
    ///
    /// The caller made the deadline findable by a `SeqCst` read-modify-write or under the control lock.
    #[inline]
    pub(crate) fn announce(&self, deadline: Instant) {
        let deadline = deadline.as_nanos();
        if deadline < self.next_due.load(Ordering::SeqCst)
            && self.next_due.fetch_min(deadline, Ordering::SeqCst) > deadline
        {
            self.retime();
        }
    }

    /// Lets those who keep the time know that the next deadline is earlier than they were told.
    #[cold]
    pub(crate) fn retime(&self) {
        self.arrivals.retime();
        self.space.retime();
        self.idle.retime();
    }

    #[inline]
    pub(crate) fn wake_at(&self) -> Instant {
        Instant::from_nanos(self.next_due.load(Ordering::SeqCst))
    }

    /// Whether a message of this age is past its retention.
    #[inline]
    pub(crate) fn is_expired(&self, sent_at: Instant, now: Instant) -> bool {
        self.config
            .retention
            .is_some_and(|retention| sent_at + retention <= now)
    }

    pub(crate) fn max_receives(&self) -> Option<u32> {
        self.policy
            .lock()
            .as_ref()
            .map(|policy| policy.max_receives)
    }

    /// Whether no more is sent.
    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst) != closed::OPEN
    }

    /// Whether a message may come in: what was in the queue before may come back until it drops all.
    pub(crate) fn admits(&self, is_new: bool) -> bool {
        match self.closed.load(Ordering::SeqCst) {
            closed::OPEN => true,
            closed::DRAINING => !is_new,
            _ => false,
        }
    }

    /// Drops the letters that their sink refused; returns how many.
    pub(crate) fn drop_letters(&self, now: Instant) -> u64 {
        let letters = {
            let mut waiting = self.undelivered.lock();
            let letters = std::mem::take(&mut *waiting);
            self.note_undelivered(0, now);
            letters
        };
        letters.len() as u64
    }

    /// Ends the life of a message: counts it and, where somebody waits for the end, says so.
    #[inline]
    pub(crate) fn gone(&self, why: usize, n: u64) {
        self.counters.add(why, n);
        if self.is_closed() {
            // The counters are relaxed, so that it is the events' locks that order them.
            self.idle.broadcast();
            self.arrivals.broadcast();
        }
    }

    /// Messages whose life has ended.
    pub(crate) fn ended(&self) -> u64 {
        let counts = self.counters.sums();
        [
            count::DELETED,
            count::EXPIRED,
            count::REDRIVEN,
            count::PURGED,
            count::MOVED,
        ]
        .into_iter()
        .map(|why| counts[why])
        .sum()
    }

    /// Hands a message to the dead letters, behind those that their sink has refused.
    pub(crate) fn bury(&self, stored: Stored<T>, reason: DeadLetterReason, now: Instant) {
        let id = self.id_of(&stored);
        let mut letter = DeadLetter::new(self, stored, id, reason, now);
        if self.undelivered_len.load(Ordering::SeqCst) == 0 {
            letter = match self.deliver_letter(letter) {
                Ok(()) => return,
                Err(letter) => letter,
            };
        }
        let retry = {
            let mut waiting = self.undelivered.lock();
            waiting.push_back(letter);
            self.note_undelivered(waiting.len(), now)
        };
        self.announce(retry);
    }

    fn deliver_letter(&self, letter: DeadLetter<T>) -> Result<(), DeadLetter<T>> {
        let sink = self
            .policy
            .lock()
            .as_ref()
            .map(|policy| Arc::clone(&policy.sink));
        let Some(sink) = sink else { return Err(letter) };
        match sink.try_deliver(letter) {
            Ok(()) => {
                crate::macros::trace!("redriven", queue = self.config.name.as_str());
                self.gone(count::REDRIVEN, 1);
                Ok(())
            }
            Err(refused) => {
                let _cause: Reason = refused.reason;
                crate::macros::trace!("dead letter refused", queue = self.config.name.as_str());
                Err(refused.item)
            }
        }
    }

    /// Offers the refused dead letters again, in their order and outside of any lock of the queue, until one is
    /// refused.
    pub(crate) fn redeliver_letters(&self, now: Instant) {
        let mut pending = std::mem::take(&mut *self.undelivered.lock());
        while let Some(letter) = pending.pop_front() {
            if let Err(letter) = self.deliver_letter(letter) {
                pending.push_front(letter);
                break;
            }
        }
        let retry = {
            let mut waiting = self.undelivered.lock();
            pending.append(&mut waiting);
            *waiting = pending;
            self.note_undelivered(waiting.len(), now)
        };
        self.announce(retry);
    }

    /// Notes how many letters wait, under their lock; returns when they are offered again.
    fn note_undelivered(&self, len: usize, now: Instant) -> Instant {
        self.undelivered_len.store(len as u64, Ordering::SeqCst);
        let retry = if len == 0 {
            Instant::NEVER
        } else {
            now + REDRIVE_RETRY
        };
        self.redrive_at.store(retry.as_nanos(), Ordering::SeqCst);
        retry
    }
}

impl<T: Send + Sync + 'static> Vacate<Stored<T>> for Shared<T> {
    fn vacated(&self, stored: Stored<T>) {
        match Fate::of(stored.fate.load(Ordering::Relaxed)) {
            Fate::Drop => drop(stored),
            Fate::Return => {
                let mut message = Message {
                    value: stored.value,
                    headers: stored.headers,
                };
                message.headers_mut().sent_at = Some(stored.sent_at);
                // When the last handle of the queue is gone nobody could receive it any more.
                self.return_address.take_back(message);
            }
            fate => self.bury(stored, fate.reason(), self.clock.now()),
        }
    }
}
