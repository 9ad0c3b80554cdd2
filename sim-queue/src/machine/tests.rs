//! The rules, each by a test that says it.

mod attempts;
mod dedup;
mod fair;
mod fifo;
mod memory;
mod model;
mod standard;

use super::groups::Ring;
use super::records::NIL;
use super::*;

/// A machine of numbers with a clock in seconds; after each step its inner state is checked.
pub(super) struct Rig {
    pub(super) machine: Machine<u32>,
    pub(super) now: Instant,
}

pub(super) const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

pub(super) fn at(seconds: u64) -> Instant {
    Instant::ORIGIN + secs(seconds)
}

pub(super) fn group(name: &str) -> GroupId {
    GroupId::new(name).unwrap()
}

impl Rig {
    pub(super) fn new(kind: Kind, change: impl FnOnce(&mut Rules)) -> Self {
        let mut rules = Rules::new(kind);
        change(&mut rules);
        Self {
            machine: Machine::new(rules).unwrap(),
            now: Instant::ORIGIN,
        }
    }

    pub(super) fn standard() -> Self {
        Self::new(Kind::Standard, |_| {})
    }

    pub(super) fn fifo() -> Self {
        Self::new(Kind::fifo(), |_| {})
    }

    /// Moves on to `seconds` and returns what happened till then.
    pub(super) fn go(&mut self, seconds: u64) -> Vec<Effect<u32>> {
        self.now = at(seconds);
        let mut effects = Vec::new();
        self.machine.advance(self.now, &mut effects);
        self.machine.check_invariants();
        effects
    }

    pub(super) fn try_send(
        &mut self,
        m: u32,
        admission: &Admission<'_>,
    ) -> Result<Accepted, NotStored> {
        let sent = self.machine.send(self.now, m, admission);
        self.machine.check_invariants();
        sent
    }

    pub(super) fn send(&mut self, m: u32) -> Accepted {
        self.try_send(m, &Admission::default()).unwrap()
    }

    pub(super) fn send_delayed(&mut self, m: u32, seconds: u64) -> Accepted {
        let admission = Admission {
            delay: Some(secs(seconds)),
            ..Admission::default()
        };
        self.try_send(m, &admission).unwrap()
    }

    pub(super) fn send_to(&mut self, name: &str, m: u32) -> Accepted {
        let group = group(name);
        let admission = Admission {
            group: Some(&group),
            ..Admission::default()
        };
        self.try_send(m, &admission).unwrap()
    }

    pub(super) fn receive(&mut self, max: usize) -> Vec<Leased<u32>> {
        self.receive_for(max, None)
    }

    pub(super) fn receive_for(&mut self, max: usize, seconds: Option<u64>) -> Vec<Leased<u32>> {
        let mut out = Vec::new();
        let visibility = seconds.map(secs);
        let got = self
            .machine
            .receive(self.now, max, visibility, None, &mut out);
        assert_eq!(got, Ok(out.len()));
        self.machine.check_invariants();
        out
    }

    /// Receives up to `max` and returns the payloads alone.
    pub(super) fn take(&mut self, max: usize) -> Vec<u32> {
        self.receive(max).iter().map(|leased| leased.m).collect()
    }

    pub(super) fn acknowledge(&mut self, leased: &Leased<u32>) -> Result<u32, Stale> {
        let acknowledged = self.machine.acknowledge(self.now, leased.key, leased.lease);
        self.machine.check_invariants();
        acknowledged.map(|acknowledged| acknowledged.m)
    }

    pub(super) fn change(
        &mut self,
        leased: &Leased<u32>,
        seconds: u64,
    ) -> Result<Disposition<u32>, ChangeError> {
        let (key, lease) = (leased.key, leased.lease);
        let changed = self
            .machine
            .change_visibility(self.now, key, lease, secs(seconds));
        self.machine.check_invariants();
        changed
    }

    pub(super) fn release(
        &mut self,
        leased: &Leased<u32>,
        seconds: u64,
    ) -> Result<Disposition<u32>, ReleaseError> {
        let (key, lease) = (leased.key, leased.lease);
        let released = self.machine.release(self.now, key, lease, secs(seconds));
        self.machine.check_invariants();
        released
    }
}

impl<M: Copy> Machine<M> {
    /// Asserts that rings, lists and counts agree with the messages.
    pub(super) fn check_invariants(&self) {
        let mut tally = Tally::default();
        for (_, record) in self.records.iter() {
            *tally.of(record.state) += 1;
        }
        assert_eq!(tally, self.tally, "the counts are those of the messages");
        let mut in_groups = Tally::default();
        for (_, group) in self.groups.table.iter() {
            in_groups.visible += group.tally.visible;
            in_groups.delayed += group.tally.delayed;
            in_groups.in_flight += group.tally.in_flight;
            assert_eq!(group.tally.is_empty(), group.ring_of == Ring::Idle);
            if self.order == Order::Fifo {
                let head = group.lane.head;
                let ready = group.tally.in_flight == 0
                    && head != NIL
                    && self.records[head].state == State::Visible;
                assert_eq!(ready, group.ring_of == Ring::Ready);
            } else {
                let ringed = matches!(group.ring_of, Ring::Ready | Ring::Noisy);
                assert_eq!(group.tally.visible > 0, ringed);
            }
        }
        if self.order != Order::Standard {
            assert_eq!(in_groups, self.tally, "each message counts in its group");
        }
        assert_eq!(self.ages.iter(&self.records).count(), self.records.len());
        let timed = self.timers.iter(&self.holds).count();
        assert_eq!(timed, (tally.delayed + tally.in_flight) as usize);
    }
}
