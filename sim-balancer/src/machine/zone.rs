//! Zones, and shifts away from them.

use sim_core::time::Instant;

use super::Machine;
use super::name::{Zone, ZoneId};
use super::note::{Change, Note};
use super::registration::{RegistrationError, UnknownZone};
use super::seat::Timer;

/// What is known of a zone.
#[derive(Debug)]
pub(crate) struct ZoneState {
    name: Zone,
    /// Until when traffic is shifted away from it; [`Instant::NEVER`] for until that is ended.
    shifted: Option<Instant>,
}

impl Machine {
    /// Shifts traffic away from a zone until a point in time, [`Instant::NEVER`] for until it is ended. A second call
    /// sets another end. While every zone with targets is shifted away from, none is.
    ///
    /// # Errors
    ///
    /// [`UnknownZone`].
    pub fn shift_zone(
        &mut self,
        now: Instant,
        zone: &Zone,
        until: Instant,
    ) -> Result<(), UnknownZone> {
        let now = self.hear(now);
        let id = self
            .zone_id(zone)
            .ok_or_else(|| UnknownZone { zone: zone.clone() })?;
        self.set_shift(now, id, (until > now).then_some(until));
        Ok(())
    }

    /// Ends a shift before its time. Fine for a zone without one.
    ///
    /// # Errors
    ///
    /// [`UnknownZone`].
    pub fn end_shift(&mut self, now: Instant, zone: &Zone) -> Result<(), UnknownZone> {
        self.shift_zone(now, zone, Instant::ORIGIN)
    }

    /// The number of a zone in which a target was registered at some time.
    #[must_use]
    pub fn zone_id(&self, zone: &Zone) -> Option<ZoneId> {
        let at = self.zones.iter().position(|known| known.name == *zone)?;
        Some(ZoneId(at as u16))
    }

    /// The name of a zone.
    #[must_use]
    pub fn zone_name(&self, zone: ZoneId) -> Option<&Zone> {
        self.zones.get(zone.index()).map(|known| &known.name)
    }

    pub(super) fn intern(&mut self, zone: Zone) -> Result<ZoneId, RegistrationError> {
        if let Some(id) = self.zone_id(&zone) {
            return Ok(id);
        }
        let limit = self.rules.limits.zones;
        if self.zones.len() >= limit as usize {
            return Err(RegistrationError::TooManyZones { zone, limit });
        }
        self.zones.push(ZoneState {
            name: zone,
            shifted: None,
        });
        Ok(ZoneId(self.zones.len() as u16 - 1))
    }

    pub(super) fn set_shift(&mut self, at: Instant, id: ZoneId, until: Option<Instant>) {
        let state = &mut self.zones[id.index()];
        let before = std::mem::replace(&mut state.shifted, until);
        let zone = state.name.clone();
        if before == until {
            return;
        }
        if let Some(before) = before {
            self.timers.remove(&(before, Timer::Shift(id.0)));
        }
        if let Some(until) = until.filter(|until| !until.is_never()) {
            self.timers.insert((until, Timer::Shift(id.0)));
        }
        let change = match until {
            Some(until) => Change::ShiftBegan { zone, until },
            None => Change::ShiftEnded { zone },
        };
        self.push_note(Note {
            at,
            target: None,
            change,
        });
        self.touch();
    }

    pub(super) fn is_shifted(&self, zone: Option<ZoneId>) -> bool {
        zone.is_some_and(|zone| self.zones[zone.index()].shifted.is_some())
    }
}
