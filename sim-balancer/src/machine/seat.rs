//! What the machine keeps of a target, and the timers of it.

use sim_core::time::Instant;

use super::health::Health;
use super::name::{TargetId, ZoneId};
use super::outlier::Tally;
use super::view::WEIGHT_ONE;

/// A place in the table.
#[derive(Debug, Default)]
pub(crate) struct Seat {
    /// How many targets have left it.
    pub(crate) birth: u32,
    pub(crate) held: Option<Held>,
}

/// A target.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) id: TargetId,
    pub(crate) weight: u32,
    pub(crate) zone: Option<ZoneId>,
    pub(crate) priority: u32,
    pub(crate) health: Health,
    /// Since when it is healthy or unavailable; `None` in all other states.
    pub(crate) in_service_since: Option<Instant>,
    /// Its slow start, while that goes on.
    pub(crate) ramp: Option<Ramp>,
    /// Until when it is ejected.
    pub(crate) ejected: Option<Instant>,
    /// Ejections in close succession.
    pub(crate) ejections: u32,
    /// Whether it was not ejected since the last sweep for outliers.
    pub(crate) is_clean: bool,
    /// What mitigation leaves it, in percent.
    pub(crate) share: u32,
    pub(crate) is_anomalous: bool,
    /// Its tally at the last sweep for outliers.
    pub(crate) swept: Tally,
    /// Its tally at the last window for anomalies.
    pub(crate) weighed: Tally,
    /// Whether it waits for its check to be taken.
    pub(crate) is_due: bool,
    /// When its timers fire, by [`Timer::place`].
    deadlines: [Option<Instant>; Timer::OF_TARGET],
}

/// How far a slow start has come.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ramp {
    pub(crate) since: Instant,
    /// Steps done.
    pub(crate) step: u32,
}

/// What fires at a deadline. At the same instant in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// A zonal shift ends.
    Shift(u16),
    /// A target's deregistration delay is over.
    Drain(u32),
    /// An unhealthy target has drained long enough.
    UnhealthyDrain(u32),
    /// An ejection is over.
    Return(u32),
    /// The next step of a slow start.
    Ramp(u32),
    /// A target is to be checked.
    Check(u32),
    /// Rates are compared for outliers.
    Sweep,
    /// Rates are compared for anomalies.
    Window,
}

impl Timer {
    /// Kinds of timers that each target has.
    const OF_TARGET: usize = 5;

    pub(crate) fn of_target(index: u32) -> [Self; Self::OF_TARGET] {
        [
            Self::Drain(index),
            Self::UnhealthyDrain(index),
            Self::Return(index),
            Self::Ramp(index),
            Self::Check(index),
        ]
    }

    /// The place among a target's timers.
    fn place(self) -> Option<usize> {
        match self {
            Self::Drain(_) => Some(0),
            Self::UnhealthyDrain(_) => Some(1),
            Self::Return(_) => Some(2),
            Self::Ramp(_) => Some(3),
            Self::Check(_) => Some(4),
            Self::Shift(_) | Self::Sweep | Self::Window => None,
        }
    }
}

impl Held {
    pub(crate) fn new(
        id: TargetId,
        weight: u32,
        zone: Option<ZoneId>,
        priority: u32,
        health: Health,
    ) -> Self {
        Self {
            id,
            weight,
            zone,
            priority,
            health,
            in_service_since: None,
            ramp: None,
            ejected: None,
            ejections: 0,
            is_clean: true,
            share: 100,
            is_anomalous: false,
            swept: Tally::default(),
            weighed: Tally::default(),
            is_due: false,
            deadlines: [None; Timer::OF_TARGET],
        }
    }

    /// Notes when a timer fires, and returns what was noted.
    pub(crate) fn replace(&mut self, timer: Timer, at: Option<Instant>) -> Option<Instant> {
        let place = timer.place()?;
        std::mem::replace(&mut self.deadlines[place], at)
    }

    /// Notes that a timer has fired.
    pub(crate) fn clear(&mut self, timer: Timer) {
        self.replace(timer, None);
    }

    pub(crate) fn draining_until(&self) -> Option<Instant> {
        self.deadlines[0].or(self.deadlines[1])
    }

    /// What slow start and mitigation leave of the weight, in percent, at least 1.
    pub(crate) fn effective_share(&self, steps: u32) -> u32 {
        let share = match self.ramp {
            Some(ramp) => u64::from(self.share) * u64::from(ramp.step + 1) / (u64::from(steps) + 1),
            None => u64::from(self.share),
        };
        share.clamp(1, 100) as u32
    }

    /// The weight after slow start and mitigation, at least 1 for a target that gets anything.
    pub(crate) fn effective_weight(&self, steps: u32) -> u32 {
        let full = u64::from(self.weight) * u64::from(WEIGHT_ONE);
        let mitigated = full * u64::from(self.share) / 100;
        let ramped = match self.ramp {
            // After the last of the steps there is no ramp any more.
            Some(ramp) => mitigated * u64::from(ramp.step + 1) / (u64::from(steps) + 1),
            None => mitigated,
        };
        ramped.clamp(1, u64::from(u32::MAX)) as u32
    }
}
