//! The control plane of a balancer: the machine behind its lock, and what an entry into it leads to.

use sim_core::sync::Arc;
use sim_core::sync::atomic::Ordering;
use sim_core::time::Instant;

use super::Shared;
use super::seat::Seat;
use super::table::Table;
use crate::algorithm::load::{After, Counts};
use crate::machine::{Effect, Machine, Slot, Streak, Tally};

/// What stands behind the lock.
pub(crate) struct Control<T> {
    pub(crate) machine: Machine,
    /// By slot index. Bound: the rules' limit of targets.
    pub(crate) seats: Vec<Option<Arc<Seat<T>>>>,
    /// Removed while leases of them were out. Bound: the leases.
    pub(crate) departed: Vec<Arc<Seat<T>>>,
    /// Slots to be barred once the table without them is stored.
    pub(crate) leaving: Vec<Slot>,
    /// Gone from the machine and from `seats`, to be barred once the table without them is stored.
    gone: Vec<Arc<Seat<T>>>,
    /// What removed targets had done.
    pub(crate) retired: Counts,
    /// Which state of the machine the table shows.
    shown: u64,
    /// How often a table was built.
    pub(crate) built: u64,
}

/// What an entry leads to once the lock is free.
struct News<T> {
    is_changed: bool,
    is_sooner: bool,
    has_checks: bool,
    /// What runs at them is to be ended: by wakers, which are foreign.
    ended: Vec<Arc<Seat<T>>>,
    /// Dropped without the lock: what is in them is foreign.
    garbage: Vec<Arc<Seat<T>>>,
}

impl<T> News<T> {
    const fn new() -> Self {
        Self {
            is_changed: false,
            is_sooner: false,
            has_checks: false,
            ended: Vec::new(),
            garbage: Vec::new(),
        }
    }
}

impl<T> Control<T> {
    pub(crate) fn new(machine: Machine) -> Self {
        Self {
            shown: machine.generation(),
            machine,
            seats: Vec::new(),
            departed: Vec::new(),
            leaving: Vec::new(),
            gone: Vec::new(),
            retired: Counts::default(),
            built: 0,
        }
    }

    /// The seat at a slot.
    pub(crate) fn seat(&self, slot: Slot) -> Option<&Arc<Seat<T>>> {
        self.seats
            .get(slot.index())?
            .as_ref()
            .filter(|seat| seat.slot == slot)
    }

    /// Puts a seat at its slot.
    pub(crate) fn place(&mut self, seat: Arc<Seat<T>>) {
        let index = seat.slot.index();
        if self.seats.len() <= index {
            self.seats.resize_with(index + 1, || None);
        }
        self.seats[index] = Some(seat);
    }

    /// Does all that is due.
    pub(crate) fn advance(&mut self, now: Instant) {
        let Self { machine, seats, .. } = self;
        machine.advance(now, |slot| {
            let seat = seats.get(slot.index()).and_then(Option::as_ref);
            seat.map_or_else(Tally::default, |seat| {
                let counts = seat.load.counts();
                Tally {
                    successes: counts.finished.saturating_sub(counts.failed),
                    failures: counts.failed,
                }
            })
        });
    }

    fn retire(&mut self, seat: &Seat<T>) {
        let counts = seat.load.counts();
        self.retired.finished += counts.finished;
        self.retired.failed += counts.failed;
        self.retired.cancelled += counts.cancelled;
    }

    /// Takes the target out of the books if it is leaving and nothing of it is out.
    fn try_drain(&mut self, now: Instant, seat: &Arc<Seat<T>>, garbage: &mut Vec<Arc<Seat<T>>>) {
        if !seat.load.try_drain() {
            return;
        }
        if let Some(at) = self.departed.iter().position(|one| Arc::ptr_eq(one, seat)) {
            self.retire(seat);
            garbage.push(self.departed.swap_remove(at));
        } else {
            self.machine.drained(now, seat.slot);
        }
    }

    fn apply(&mut self, effect: Effect, news: &mut News<T>) {
        match effect {
            Effect::Removed { slot, .. } => {
                if self.seat(slot).is_some() {
                    self.gone.extend(self.seats[slot.index()].take());
                }
            }
            Effect::Returned { slot, .. } => {
                // As in Envoy: one more failure would else make up a row with those of before, and eject it again.
                if let Some(seat) = self.seat(slot) {
                    seat.load.succeeded();
                }
            }
            Effect::Terminate { slot, .. } => news.ended.extend(self.seat(slot).cloned()),
        }
    }

    /// Bars those that are gone. Whoever has one still has it; nobody else gets it.
    fn bar_gone(&mut self, garbage: &mut Vec<Arc<Seat<T>>>) {
        for seat in std::mem::take(&mut self.gone) {
            seat.load.begin_leaving();
            if seat.load.is_drained() || seat.load.try_drain() {
                self.retire(&seat);
                garbage.push(seat);
            } else {
                self.departed.push(seat);
            }
        }
    }
}

impl<T> Shared<T> {
    /// Enters the machine, does what it asks for, and tells those whom it concerns.
    pub(crate) fn enter<R>(&self, verb: impl FnOnce(&mut Control<T>, Instant) -> R) -> R {
        let now = self.clock.now();
        let mut control = self.control.lock();
        let result = verb(&mut control, now);
        let news = self.settle(&mut control, now);
        drop(control);
        self.tell(news);
        result
    }

    /// Does what is due, unless somebody else is at it.
    #[cold]
    pub(crate) fn serve(&self) {
        let now = self.clock.now();
        let Some(mut control) = self.control.try_lock() else {
            return;
        };
        control.advance(now);
        let news = self.settle(&mut control, now);
        drop(control);
        self.tell(news);
    }

    fn settle(&self, control: &mut Control<T>, now: Instant) -> News<T> {
        let mut news = News::new();
        loop {
            let mut is_settled = true;
            while let Some(effect) = control.machine.take_effect() {
                control.apply(effect, &mut news);
            }
            if control.machine.generation() != control.shown {
                is_settled = false;
                news.is_changed = true;
                self.show(control);
            }
            // Only now: who finds the flag finds the table without the target too.
            control.bar_gone(&mut news.garbage);
            for slot in std::mem::take(&mut control.leaving) {
                is_settled = false;
                if let Some(seat) = control.seat(slot).cloned() {
                    seat.load.begin_leaving();
                    control.try_drain(now, &seat, &mut news.garbage);
                }
            }
            if is_settled {
                break;
            }
        }
        let next = control.machine.next_deadline().unwrap_or(Instant::NEVER);
        let former = self.next_due.swap(next.as_nanos(), Ordering::SeqCst);
        news.is_sooner = next.as_nanos() < former;
        news.has_checks = control.machine.has_due_checks();
        news
    }

    /// Stores the table of the machine's present view.
    fn show(&self, control: &mut Control<T>) {
        let Control { machine, seats, .. } = control;
        let counts = machine.counts();
        let is_empty = counts.targets == counts.draining;
        let view = machine.view();
        control.shown = view.generation;
        control.built += 1;
        if let Some(timing) = &self.timing {
            self.typify(seats, timing);
        }
        let former = self.table.load_arc();
        let turns = (&*former, &self.memory);
        let table = Table::build(view, seats, &self.config.algorithm, is_empty, turns);
        // Nobody is dropped with the former table: every seat in it is in `seats`, `gone`, `departed` or the garbage.
        self.table.store(Arc::new(table));
    }

    /// What is typical of the targets now: new ones are taken for such.
    fn typify(&self, seats: &[Option<Arc<Seat<T>>>], timing: &crate::algorithm::Timing) {
        let now = crate::algorithm::load::tick(self.clock.fine());
        let (sum, known) = seats
            .iter()
            .flatten()
            .map(|seat| seat.load.cost(now, &timing.decay))
            .filter(|cost| *cost > 0.0)
            .fold((0.0, 0.0), |(sum, known), cost| (sum + cost, known + 1.0));
        if known > 0.0 {
            self.memory.typify(sum / known);
        }
    }

    fn tell(&self, news: News<T>) {
        if news.is_changed {
            self.openings.broadcast();
        } else if news.is_sooner {
            self.openings.retime();
        }
        if news.has_checks {
            self.checks.notify_all();
        } else if news.is_sooner {
            self.checks.retime();
        }
        for seat in &news.ended {
            seat.ending.end();
        }
        drop(news);
    }

    /// After a lease was given back: room for a waiter, or something for the books.
    #[cold]
    pub(crate) fn after(&self, seat: &Arc<Seat<T>>, after: After) {
        match after {
            After::Nothing => {}
            After::Room => self.notify(),
            After::Settle => {
                let mut garbage = Vec::new();
                self.enter(|control, now| {
                    seat.load.carry();
                    control.try_drain(now, seat, &mut garbage);
                });
                drop(garbage);
                // It may have been the last room that there was, for one who sticks to the target.
                self.notify();
            }
        }
    }

    /// Tells waiters that there is room: one of them when all wait for the same, otherwise all.
    fn notify(&self) {
        if self.table.load().is_one_queue() {
            self.openings.notify_one();
        } else {
            self.openings.notify_all();
        }
    }

    /// After a failure: whether there were too many in a row.
    pub(crate) fn judge(&self, seat: &Arc<Seat<T>>, streak: Streak, count: u32) {
        let threshold = match streak {
            Streak::Gateway => self.streaks.gateway,
            _ => self.streaks.failures,
        };
        // Each multiple, so that a target that was judged and not ejected is judged again.
        if threshold != 0 && count.is_multiple_of(threshold) {
            self.enter(|control, now| control.machine.streak(now, seat.slot, streak, count));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::algorithm::load::{Entry, Exit};
    use crate::{Balancer, BalancerConfig, Target};

    #[test]
    fn a_target_that_is_gone_at_once_is_flagged_after_the_table_without_it() {
        let mut config = BalancerConfig::default();
        config.rules.deregistration.delay = std::time::Duration::ZERO;
        let balancer = Balancer::new(config).unwrap();
        balancer.register(Target::new("a", ())).unwrap();
        let seat = balancer.target(&"a".into()).unwrap().0;
        seat.shared.enter(|control, now| {
            control.machine.deregister(now, &"a".into()).unwrap();
            while let Some(effect) = control.machine.take_effect() {
                control.apply(effect, &mut News::new());
            }
            // The table that has it is still shown: who finds it there is let in.
            assert_eq!(seat.load.enter(Entry::New), Ok(()));
        });
        assert!(seat.load.enter(Entry::Sticking).is_ok());
        let _ = seat.load.exit(Exit::Unfinished);
        assert!(seat.load.enter(Entry::New).is_err());
        assert_eq!(balancer.stats().outstanding, 1);
        let after = seat.load.exit(Exit::Unfinished);
        seat.shared.after(&seat, after);
        assert_eq!(balancer.stats().outstanding, 0);
        assert_eq!(balancer.stats().cancelled, 0);
    }
}
