//! The rules, each by a test that says it.

use super::records::NIL;
use super::*;

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
