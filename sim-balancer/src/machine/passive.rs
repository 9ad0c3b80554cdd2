//! How the machine ejects outliers and weighs anomalies; what makes a target one is in `outlier.rs`.

use std::collections::BTreeSet;

use sim_core::time::Instant;

use super::name::Slot;
use super::note::{Cause, Change, Effect};
use super::outlier::{Tally, anomalous, ejection_time, may_eject, mitigated, sweep};
use super::seat::Timer;
use super::{Machine, next_beat};

impl Machine {
    pub(super) fn eject(&mut self, at: Instant, index: u32, cause: Cause) -> bool {
        let Some(rules) = self.rules.outliers else {
            return false;
        };
        let held = self.held(index);
        if held.ejected.is_some() || !held.health.is_live() {
            return false;
        }
        if !may_eject(&rules, self.ejected, self.live()) {
            self.note(at, index, Change::EjectionRefused { cause });
            return false;
        }
        let count = held.ejections.saturating_add(1);
        let until = at + ejection_time(&rules, count, &mut self.random);
        let held = self.held_mut(index);
        held.ejections = count;
        held.ejected = Some(until);
        held.is_clean = false;
        self.ejected += 1;
        self.set_timer(index, Timer::Return(index), Some(until));
        self.note(at, index, Change::Ejected { cause, until });
        self.touch();
        true
    }

    pub(super) fn uneject(&mut self, at: Instant, index: u32) {
        self.set_timer(index, Timer::Return(index), None);
        if self.held_mut(index).ejected.take().is_some() {
            self.ejected -= 1;
            self.note(at, index, Change::Returned);
            let slot = self.slot_at(index);
            let id = self.held(index).id.clone();
            self.effects.push_back(Effect::Returned { slot, id });
            self.touch();
        }
    }

    /// All targets of which those that are ejected are a part.
    fn live(&self) -> u32 {
        self.occupied()
            .filter(|(_, held)| held.health.is_live())
            .count() as u32
    }

    /// Takes ejected targets back while they are too large a part of those that are left, the earliest to return first.
    pub(super) fn trim_ejections(&mut self, at: Instant) {
        let Some(rules) = self.rules.outliers else {
            return;
        };
        while self.ejected > 0 && !may_eject(&rules, self.ejected - 1, self.live()) {
            let first = self
                .occupied()
                .filter_map(|(index, held)| held.ejected.map(|until| (until, index)))
                .min();
            let Some((_, index)) = first else {
                return;
            };
            self.uneject(at, index);
        }
    }

    pub(super) fn sweep(
        &mut self,
        at: Instant,
        now: Instant,
        tally: &mut impl FnMut(Slot) -> Tally,
    ) {
        let Some(rules) = self.rules.outliers else {
            return;
        };
        let mut windows = Vec::new();
        let mut is_quiet = true;
        for index in 0..self.seats.len() as u32 {
            let slot = self.slot_at(index);
            let Some(held) = &mut self.seats[index as usize].held else {
                continue;
            };
            let seen = tally(slot);
            let window = seen.since(held.swept);
            held.swept = seen;
            // Only a whole interval out of ejection makes up for one.
            if held.is_clean {
                held.ejections = held.ejections.saturating_sub(1);
            }
            held.is_clean = held.ejected.is_none();
            is_quiet &= held.ejections == 0;
            if held.ejected.is_none() && held.health.is_fit() {
                windows.push((index, window));
            }
        }
        for (index, cause) in sweep(&rules, &windows) {
            is_quiet = false;
            self.eject(at, index, cause);
        }
        // What comes next in this very call would find nothing new.
        let horizon = if is_quiet { now } else { at };
        let next = next_beat(at, rules.interval, horizon);
        self.set_beat(Timer::Sweep, next);
    }

    pub(super) fn window(
        &mut self,
        at: Instant,
        now: Instant,
        tally: &mut impl FnMut(Slot) -> Tally,
    ) {
        let Some(rules) = self.rules.anomaly else {
            return;
        };
        let mut windows = Vec::new();
        for index in 0..self.seats.len() as u32 {
            let slot = self.slot_at(index);
            let Some(held) = &mut self.seats[index as usize].held else {
                continue;
            };
            let seen = tally(slot);
            let window = seen.since(held.weighed);
            held.weighed = seen;
            if held.health.is_fit() && held.ejected.is_none() {
                windows.push((index, window));
            }
        }
        let found: BTreeSet<u32> = anomalous(&rules, &windows).into_iter().collect();
        let mut is_quiet = true;
        let mut is_moved = false;
        let mut turned = Vec::new();
        for index in 0..self.seats.len() as u32 {
            let Some(held) = &mut self.seats[index as usize].held else {
                continue;
            };
            let is_anomalous = found.contains(&index);
            let share = mitigated(&rules, held.share, is_anomalous);
            is_moved |= share != held.share;
            held.share = share;
            is_quiet &= share == 100 && !is_anomalous;
            if held.is_anomalous != is_anomalous {
                held.is_anomalous = is_anomalous;
                turned.push((index, is_anomalous));
            }
        }
        for (index, is_anomalous) in turned {
            let change = if is_anomalous {
                Change::Anomalous
            } else {
                Change::Normal
            };
            self.note(at, index, change);
        }
        if is_moved {
            self.touch();
        }
        let horizon = if is_quiet { now } else { at };
        let next = next_beat(at, rules.window, horizon);
        self.set_beat(Timer::Window, next);
    }
}
