//! What the lock-free engine does when time has come: leases end, delays pass, messages get too old.
//!
//! # Ordering
//! `next_due` is set to never first, then what there is is looked at, then it is lowered: whoever adds a deadline does
//! it the other way round; see the parent module.

use std::time::Duration;

use sim_core::slab::{Due, NO_NOTE, Noted, Removed};
use sim_core::sync::atomic::Ordering;
use sim_core::time::Instant;

use crate::dead_letter::DeadLetterReason;
use crate::shared::{Fate, Shared, Slots, Stored, count};

use super::{Control, SOON, Standard, Timer, Waiting, nanos};

impl<T: Send + Sync + 'static> Standard<T> {
    #[inline]
    pub(crate) fn serve_if_due(&self, slots: &Slots<T>, now: Instant) {
        if now.as_nanos() >= slots.context().next_due.load(Ordering::Relaxed) {
            self.serve(slots, now);
        }
    }

    /// Serves what is due, deadline by deadline, unless another thread does so already.
    #[cold]
    fn serve(&self, slots: &Slots<T>, now: Instant) {
        let shared = slots.context();
        // Values are dropped and letters are sent after the lock is given back: their code may call in.
        let mut dropped = Vec::new();
        let mut letters = Vec::new();
        {
            let Some(mut control) = self.control.try_lock() else {
                return;
            };
            // First the bound, then the rings: whoever adds a deadline does it the other way round.
            shared.next_due.store(u64::MAX, Ordering::SeqCst);
            loop {
                let next = self.earliest(shared, &mut control);
                if next > now {
                    shared.announce(next);
                    break;
                }
                self.fire(slots, &mut control, next, now, &mut dropped, &mut letters);
            }
        }
        // One is enough: a receiver that finds more than it takes wakes the next.
        if self.has_visible() {
            shared.arrivals.notify_one();
        }
        let expired = dropped.len() as u64;
        drop(dropped);
        if expired > 0 {
            shared.gone(count::EXPIRED, expired);
            shared.space.notify_one();
        }
        for stored in letters {
            shared.bury(stored, DeadLetterReason::MaxReceives, now);
        }
        let retry = Instant::from_nanos(shared.redrive_at.load(Ordering::SeqCst));
        if retry <= now {
            shared.redeliver_letters(now);
        } else if retry != Instant::NEVER {
            shared.announce(retry);
        }
    }

    fn earliest(&self, shared: &Shared<T>, control: &mut Control) -> Instant {
        let lease = self.leases.next().unwrap_or(Instant::NEVER);
        let odd = control.wheel.next().unwrap_or(Instant::NEVER);
        let mut next = lease.min(odd);
        if let Some(retention) = shared.config.retention {
            for front in [self.fresh.front(), self.returned.front()]
                .into_iter()
                .flatten()
            {
                next = next.min(Instant::from_nanos(front.1) + retention);
            }
        }
        next
    }

    /// Serves one deadline, which is at or before `now`.
    fn fire(
        &self,
        slots: &Slots<T>,
        control: &mut Control,
        due: Instant,
        now: Instant,
        dropped: &mut Vec<Waiting<T>>,
        letters: &mut Vec<Stored<T>>,
    ) {
        let shared = slots.context();
        if let Some((at, chunk)) = self.leases.pop_due(due) {
            // Pushed as 32 bits.
            self.end_leases(slots, control, at, chunk as u32, dropped, letters);
            return;
        }
        match control.wheel.pop_due(due) {
            Some((at, Timer::Chunk(chunk))) => {
                self.end_leases(slots, control, at, chunk, dropped, letters);
                return;
            }
            Some((at, Timer::Visible(low))) => {
                match slots.with_low(low, |stored| stored.sent_at) {
                    Some(sent_at) if shared.is_expired(sent_at, at) => {
                        match slots.remove_idle_low(low) {
                            Some(Removed::Value(stored)) => {
                                dropped.push(Waiting {
                                    value: stored.value,
                                    headers: stored.headers.into_headers(),
                                });
                            }
                            Some(Removed::Shared) => shared.gone(count::EXPIRED, 1),
                            None => drop(self.dangling.fetch_sub(1, Ordering::SeqCst)),
                        }
                    }
                    Some(sent_at) => self.push_returned(sent_at, low),
                    None => drop(self.dangling.fetch_sub(1, Ordering::SeqCst)),
                }
                self.delayed.fetch_sub(1, Ordering::SeqCst);
                return;
            }
            None => {}
        }
        let Some(retention) = shared.config.retention else {
            return;
        };
        let is_old = |key: u64| Instant::from_nanos(key) + retention <= now;
        if let Some(waiting) = self.fresh.pop_if(is_old) {
            shared.counters.add(count::UNRECEIVED, 1);
            dropped.push(waiting);
        } else if let Some(entry) = self.returned.pop_if(is_old) {
            match slots.remove_idle_low(entry.value) {
                Some(Removed::Value(stored)) => {
                    dropped.push(Waiting {
                        value: stored.value,
                        headers: stored.headers.into_headers(),
                    });
                }
                Some(Removed::Shared) => shared.gone(count::EXPIRED, 1),
                None => drop(self.dangling.fetch_sub(1, Ordering::SeqCst)),
            }
        }
    }

    /// The timer of a chunk fires: its leases that are over end, and the next timer is set.
    fn end_leases(
        &self,
        slots: &Slots<T>,
        control: &mut Control,
        at: Instant,
        chunk: u32,
        dropped: &mut Vec<Waiting<T>>,
        letters: &mut Vec<Stored<T>>,
    ) {
        let Some(note) = slots.chunk_note(chunk) else {
            return;
        };
        let due = at.as_nanos();
        if note.load(Ordering::SeqCst) != due {
            // An earlier timer has seen to the chunk, and has set the next one.
            return;
        }
        note.swap(NO_NOTE, Ordering::SeqCst);
        let mut next = NO_NOTE;
        slots.leased_in(chunk, |noted| match noted {
            Noted::Leased { note, .. } if note > due => next = next.min(note),
            Noted::Leased { low, .. } => match slots.unlease_due(low, due) {
                Due::Ended(low) => self.lease_over(slots, at, low, dropped, letters),
                Due::Later(note) => next = next.min(note),
                Due::Over => {}
            },
            Noted::Unknown => next = next.min((at + SOON).as_nanos()),
        });
        if next != NO_NOTE && note.fetch_min(next, Ordering::SeqCst) > next {
            control
                .wheel
                .insert(Instant::from_nanos(next), Timer::Chunk(chunk));
        }
    }

    /// A lease has run out: its message returns, or dies.
    fn lease_over(
        &self,
        slots: &Slots<T>,
        at: Instant,
        low: u64,
        dropped: &mut Vec<Waiting<T>>,
        letters: &mut Vec<Stored<T>>,
    ) {
        let shared = slots.context();
        let seen = slots.with_low(low, |stored| {
            (stored.sent_at, stored.receives.load(Ordering::Relaxed))
        });
        let Some((sent_at, receives)) = seen else {
            if slots.is_idle_low(low) {
                // So many old deliveries are held that the slot counts no more: it waits for one to go.
                self.put_back(shared, at, low);
                return;
            }
            // Acknowledged in this very moment; there is no entry in `returned` to lead nowhere.
            self.dangling.fetch_sub(1, Ordering::SeqCst);
            self.lease_ended();
            return;
        };
        let is_dead = shared.max_receives().is_some_and(|max| receives >= max);
        let is_old = shared.is_expired(sent_at, at);
        // A message that grew too old has expired; its lease has not run out.
        shared.counters.add(count::LAPSED, u64::from(!is_old));
        if !is_dead && !is_old {
            self.put_back(shared, sent_at, low);
            return;
        }
        let fate = if is_old {
            Fate::Drop
        } else {
            Fate::MaxReceives
        };
        let removed = slots.pin_low(low).and_then(|held| {
            held.remove_with(true, |_, _, stored| match stored {
                Ok(stored) => Some(stored),
                Err(stored) => {
                    stored.set_fate(fate);
                    None
                }
            })
            .ok()
        });
        self.lease_ended();
        match removed {
            Some(Some(stored)) if is_old => {
                dropped.push(Waiting {
                    value: stored.value,
                    headers: stored.headers.into_headers(),
                });
            }
            Some(Some(stored)) => letters.push(stored),
            Some(None) if is_old => shared.gone(count::EXPIRED, 1),
            Some(None) => {}
            None => drop(self.dangling.fetch_sub(1, Ordering::SeqCst)),
        }
    }

    /// Moves every timer from the ring to the wheel: the ring's order is broken, since the queue's own
    /// timeout changed.
    pub(super) fn spill_leases(&self) {
        let mut control = self.control.lock();
        while let Some((at, chunk)) = self.leases.pop_due(Instant::NEVER) {
            control.wheel.insert(at, Timer::Chunk(chunk as u32));
        }
    }

    pub(crate) fn set_visibility_timeout(&self, timeout: Duration) {
        self.lease_nanos.store(nanos(timeout), Ordering::SeqCst);
        self.spill_leases();
    }

    pub(crate) fn set_delay(&self, delay: Duration) {
        self.delay_nanos.store(nanos(delay), Ordering::SeqCst);
    }
}
