//! The rules, one a test, on a manual clock and a log that is only numbers.

mod oracle;

use std::collections::BTreeMap;
use std::time::Duration;

use sim_core::time::Instant;

use super::{Asked, Delivery, Ended, LeaseKey, Leased, Look, Lost, OverLimit, Rules, Standing};
use crate::message::ShardId;

/// A shard of a log: positions from `start` to `end`.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Span {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) closed: bool,
}

/// Answers looks as the log of a stream would; a record is its place.
#[derive(Debug, Clone, Default)]
pub(super) struct Spans(pub(super) BTreeMap<ShardId, Span>);

pub(super) type Place = (ShardId, u64);

impl Spans {
    pub(super) fn look(&self, shard: ShardId, position: u64, _: Asked) -> Look<Place> {
        match self.0.get(&shard) {
            None => Look::End,
            Some(span) if position < span.start => Look::Trimmed {
                resume_at: span.start,
            },
            Some(span) if position < span.end => Look::Record((shard, position)),
            Some(span) if span.closed => Look::End,
            Some(_) => Look::Pending,
        }
    }
}

pub(super) const fn shard(number: u32) -> ShardId {
    ShardId::new(number)
}

pub(super) const RULES: Rules = Rules {
    visibility_timeout: Duration::from_secs(30),
    max_receives: Some(3),
    max_in_flight: 100,
    max_dead_letters: 100,
};

fn at(seconds: u64) -> Instant {
    Instant::ORIGIN + secs(seconds)
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// One queue over shards of so many records.
struct Bed {
    machine: Delivery,
    spans: Spans,
    now: Instant,
}

impl Bed {
    fn new(rules: Rules, records: &[u64]) -> Self {
        let mut bed = Self {
            machine: Delivery::new(rules, 7),
            spans: Spans::default(),
            now: at(0),
        };
        for (number, end) in (0..).zip(records) {
            bed.add(number, *end, [None, None]);
        }
        bed
    }

    fn add(&mut self, number: u32, end: u64, parents: [Option<ShardId>; 2]) {
        let span = Span {
            end,
            ..Span::default()
        };
        self.spans.0.insert(shard(number), span);
        self.machine.open(shard(number), 0, parents);
    }

    fn span(&mut self, number: u32) -> &mut Span {
        self.spans.0.get_mut(&shard(number)).unwrap()
    }

    fn receive(&mut self, max: usize) -> Vec<Leased<Place>> {
        self.try_receive(max, None).unwrap()
    }

    fn try_receive(
        &mut self,
        max: usize,
        visibility: Option<Duration>,
    ) -> Result<Vec<Leased<Place>>, OverLimit> {
        let mut out = Vec::new();
        let spans = &self.spans;
        let look = &mut |s, p, a| spans.look(s, p, a);
        let got = self
            .machine
            .receive(self.now, max, visibility, look, &mut out)?;
        assert_eq!(got, out.len());
        Ok(out)
    }

    fn receive_dead(&mut self, max: usize) -> Vec<Leased<Place>> {
        let mut out = Vec::new();
        let spans = &self.spans;
        let look = &mut |s, p, a| spans.look(s, p, a);
        let got = self
            .machine
            .receive_dead(self.now, max, None, look, &mut out);
        assert_eq!(got, out.len());
        out
    }

    /// Receives and lets the leases run out until everything is dead.
    fn kill(&mut self, records: usize) {
        for _ in 0..RULES.max_receives.unwrap() {
            assert_eq!(self.receive(records).len(), records);
            self.now = self.now + secs(30);
        }
        self.machine.serve(self.now);
        assert_eq!(self.machine.standing().dead, records as u64);
    }

    fn sweep(&mut self) {
        let spans = &self.spans;
        self.machine
            .sweep(&mut |s| spans.0.get(&s).map_or(u64::MAX, |span| span.start));
    }
}

fn places(leased: &[Leased<Place>]) -> Vec<(u32, u64)> {
    leased
        .iter()
        .map(|leased| (leased.record.0.number(), leased.record.1))
        .collect()
}

#[test]
fn a_record_is_received_once_while_its_lease_stands() {
    let mut bed = Bed::new(RULES, &[2]);
    assert_eq!(places(&bed.receive(10)), [(0, 0), (0, 1)]);
    bed.now = at(29);
    assert_eq!(bed.receive(10), []);
}

#[test]
fn a_record_comes_back_when_its_lease_ends() {
    let mut bed = Bed::new(RULES, &[1]);
    let first = bed.receive(1);
    assert_eq!(first[0].until, at(30));
    bed.now = at(30);
    let second = bed.receive(1);
    assert_eq!(places(&second), [(0, 0)]);
    assert_eq!((first[0].receives, second[0].receives), (1, 2));
    assert_eq!(second[0].first_received_at, at(0));
}

#[test]
fn what_came_back_goes_before_what_is_fresh() {
    let mut bed = Bed::new(RULES, &[4]);
    let first = bed.receive(2);
    bed.machine.release(bed.now, first[1].key, secs(0)).unwrap();
    bed.machine.release(bed.now, first[0].key, secs(0)).unwrap();
    // In the order in which they came back.
    assert_eq!(places(&bed.receive(3)), [(0, 1), (0, 0), (0, 2)]);
}

#[test]
fn an_acknowledged_record_never_comes_back() {
    let mut bed = Bed::new(RULES, &[1]);
    let got = bed.receive(1);
    bed.now = at(29);
    assert_eq!(bed.machine.acknowledge(bed.now, got[0].key), Ok(()));
    bed.now = at(1_000);
    assert_eq!(bed.receive(1), []);
    assert_eq!(bed.machine.standing(), Standing::default());
    assert_eq!(bed.machine.next_deadline(), None);
}

#[test]
fn a_late_or_double_verdict_is_refused_and_changes_nothing() {
    let mut bed = Bed::new(RULES, &[1]);
    let first = bed.receive(1)[0].key;
    bed.now = at(30);
    // Late before anybody else has entered the queue, too.
    assert_eq!(bed.machine.acknowledge(bed.now, first), Err(Ended));
    let second = bed.receive(1)[0].key;
    let change = bed.machine.change_visibility(bed.now, first, secs(5));
    assert_eq!(change, Err(Ended));
    assert_eq!(bed.machine.release(bed.now, first, secs(0)), Err(Ended));
    assert_eq!(bed.machine.next_deadline(), Some(at(60)));
    assert_eq!(bed.machine.acknowledge(bed.now, second), Ok(()));
    assert_eq!(bed.machine.acknowledge(bed.now, second), Err(Ended));
    assert_eq!(bed.machine.tally().acknowledged, 1);
}

#[test]
fn a_receipt_misses_the_next_tenant_of_its_slot() {
    let mut bed = Bed::new(RULES, &[2]);
    let first = bed.receive(1)[0].key;
    bed.machine.acknowledge(bed.now, first).unwrap();
    let second = bed.receive(1)[0].key;
    assert_eq!(first.slot, second.slot);
    assert_eq!(bed.machine.acknowledge(bed.now, first), Err(Ended));
    assert_eq!(bed.machine.standing().leased, 1);
}

#[test]
fn a_forged_receipt_is_refused() {
    let mut bed = Bed::new(RULES, &[1]);
    let key = bed.receive(1)[0].key;
    for forged in [
        LeaseKey {
            check: key.check ^ 1,
            ..key
        },
        LeaseKey {
            lease: key.lease + 1,
            ..key
        },
        LeaseKey {
            slot: key.slot + 1,
            ..key
        },
        LeaseKey {
            slot: u32::MAX,
            lease: u64::MAX,
            check: u64::MAX,
        },
    ] {
        assert_eq!(bed.machine.acknowledge(bed.now, forged), Err(Ended));
    }
    // Of another queue.
    let mut other = Delivery::new(RULES, 8);
    assert_eq!(other.acknowledge(bed.now, key), Err(Ended));
    let mut other = Bed::new(RULES, &[1]);
    other.machine = Delivery::new(RULES, 8);
    other.machine.open(shard(0), 0, [None, None]);
    assert_eq!(other.receive(1)[0].key.lease, key.lease);
    assert_eq!(other.machine.acknowledge(bed.now, key), Err(Ended));
    assert_eq!(bed.machine.acknowledge(bed.now, key), Ok(()));
}

#[test]
fn a_lease_can_be_made_longer_and_shorter() {
    let mut bed = Bed::new(RULES, &[1]);
    let key = bed.receive(1)[0].key;
    bed.now = at(20);
    bed.machine
        .change_visibility(bed.now, key, secs(30))
        .unwrap();
    assert_eq!(bed.machine.next_deadline(), Some(at(50)));
    bed.now = at(49);
    assert_eq!(bed.receive(1), []);
    bed.machine
        .change_visibility(bed.now, key, secs(1))
        .unwrap();
    bed.now = at(50);
    assert_eq!(bed.receive(1)[0].receives, 2);
}

#[test]
fn a_lease_of_zero_ends_at_once() {
    let mut bed = Bed::new(RULES, &[1]);
    let key = bed.receive(1)[0].key;
    bed.machine
        .change_visibility(bed.now, key, secs(0))
        .unwrap();
    assert_eq!(bed.machine.acknowledge(bed.now, key), Err(Ended));
    assert_eq!(bed.receive(1)[0].receives, 2);
}

#[test]
fn a_released_record_is_hidden_for_its_delay() {
    let mut bed = Bed::new(RULES, &[1]);
    let key = bed.receive(1)[0].key;
    bed.machine.release(bed.now, key, secs(10)).unwrap();
    assert_eq!(bed.machine.acknowledge(bed.now, key), Err(Ended));
    assert_eq!(bed.machine.standing().delayed, 1);
    bed.now = at(9);
    assert_eq!(bed.receive(1), []);
    bed.now = at(10);
    assert_eq!(bed.receive(1)[0].receives, 2);
}

#[test]
fn a_record_is_dead_after_exactly_its_receives() {
    let mut bed = Bed::new(RULES, &[1]);
    for receives in 1..=3 {
        let got = bed.receive(1);
        assert_eq!(got[0].receives, receives);
        bed.now = bed.now + secs(30);
    }
    assert_eq!(bed.receive(1), []);
    assert_eq!(bed.machine.standing().dead, 1);
    let dead = bed.receive_dead(10);
    assert_eq!(places(&dead), [(0, 0)]);
    assert_eq!(dead[0].receives, 3);
}

#[test]
fn the_last_release_makes_a_record_dead_at_once() {
    let mut bed = Bed::new(RULES, &[1]);
    for _ in 0..3 {
        let key = bed.receive(1)[0].key;
        bed.machine.release(bed.now, key, secs(0)).unwrap();
    }
    assert_eq!(bed.machine.standing().dead, 1);
    // With a delay, too.
    let mut bed = Bed::new(RULES, &[1]);
    for _ in 0..3 {
        let key = bed.receive(1)[0].key;
        bed.machine.release(bed.now, key, secs(5)).unwrap();
        bed.now = bed.now + secs(5);
    }
    assert_eq!(
        (bed.machine.standing().dead, bed.machine.standing().delayed),
        (1, 0)
    );
}

#[test]
fn without_dead_letters_a_record_comes_back_for_ever() {
    let rules = Rules {
        max_receives: None,
        ..RULES
    };
    let mut bed = Bed::new(rules, &[1]);
    for receives in 1..=2_000 {
        assert_eq!(bed.receive(1)[0].receives, receives);
        bed.now = bed.now + secs(30);
    }
}

#[test]
fn dead_letters_have_leases_of_their_own() {
    let mut bed = Bed::new(RULES, &[2]);
    bed.kill(2);
    let dead = bed.receive_dead(1);
    assert_eq!(places(&bed.receive_dead(10)), [(0, 1)]);
    assert_eq!(bed.receive_dead(10), []);
    // An ordinary verdict does not take a dead letter, nor the other way round.
    assert_eq!(bed.machine.acknowledge(bed.now, dead[0].key), Err(Ended));
    assert_eq!(
        bed.machine.release(bed.now, dead[0].key, secs(0)),
        Err(Ended)
    );
    bed.machine
        .change_dead_visibility(bed.now, dead[0].key, secs(5))
        .unwrap();
    bed.now = bed.now + secs(5);
    assert_eq!(places(&bed.receive_dead(10)), [(0, 0)]);
    assert_eq!(
        bed.machine.acknowledge_dead(bed.now, dead[0].key),
        Err(Ended)
    );
    bed.now = bed.now + secs(25);
    // However often they are received, they stay.
    let dead = bed.receive_dead(10);
    assert_eq!(places(&dead), [(0, 1)]);
    bed.machine
        .change_dead_visibility(bed.now, dead[0].key, secs(0))
        .unwrap();
    let dead = bed.receive_dead(10);
    assert_eq!(bed.machine.acknowledge_dead(bed.now, dead[0].key), Ok(()));
    assert_eq!(bed.machine.tally().acknowledged_dead, 1);

    let mut bed = Bed::new(RULES, &[1]);
    let key = bed.receive(1)[0].key;
    assert_eq!(bed.machine.acknowledge_dead(bed.now, key), Err(Ended));
    assert_eq!(bed.machine.restore(bed.now, key), Err(Ended));
    assert_eq!(
        bed.machine.change_dead_visibility(bed.now, key, secs(0)),
        Err(Ended)
    );
    assert_eq!(bed.machine.acknowledge(bed.now, key), Ok(()));
}

#[test]
fn a_restored_dead_letter_begins_anew() {
    let mut bed = Bed::new(RULES, &[1]);
    bed.kill(1);
    let dead = bed.receive_dead(1)[0].key;
    bed.machine.restore(bed.now, dead).unwrap();
    assert_eq!(bed.machine.restore(bed.now, dead), Err(Ended));
    let again = bed.receive(1);
    assert_eq!((places(&again), again[0].receives), (vec![(0, 0)], 1));
    bed.now = bed.now + secs(30);
    bed.receive(1);
    bed.now = bed.now + secs(30);
    assert_eq!(bed.receive(1)[0].receives, 3);
    bed.now = bed.now + secs(30);
    bed.machine.serve(bed.now);
    assert_eq!(bed.machine.standing().dead, 1);
    assert_eq!(bed.machine.tally().buried, 2);
}

#[test]
fn no_more_are_in_flight_than_allowed() {
    let rules = Rules {
        max_in_flight: 3,
        ..RULES
    };
    let mut bed = Bed::new(rules, &[10]);
    let got = bed.receive(2);
    assert_eq!(bed.receive(10).len(), 1);
    assert_eq!(bed.try_receive(1, None), Err(OverLimit));
    // A delayed record counts.
    bed.machine.release(bed.now, got[0].key, secs(10)).unwrap();
    assert_eq!(bed.try_receive(1, None), Err(OverLimit));
    bed.machine.acknowledge(bed.now, got[1].key).unwrap();
    assert_eq!(places(&bed.receive(10)), [(0, 3)]);
    assert_eq!(bed.try_receive(1, None), Err(OverLimit));
}

#[test]
fn the_oldest_dead_letter_leaves_when_there_are_too_many() {
    let rules = Rules {
        max_dead_letters: 2,
        ..RULES
    };
    let mut bed = Bed::new(rules, &[3]);
    for _ in 0..3 {
        bed.receive(3);
        bed.now = bed.now + secs(30);
    }
    assert_eq!(places(&bed.receive_dead(10)), [(0, 1), (0, 2)]);
    assert_eq!(bed.machine.tally().lost.dead_overflow, 1);
    // Those that somebody holds stay: then it is the newcomer that is dropped.
    bed.span(0).end = 4;
    for _ in 0..3 {
        assert_eq!(places(&bed.receive(1)), [(0, 3)]);
        let key = bed.machine.slots[0].lease;
        assert!(key > 0);
        bed.now = bed.now + secs(1);
        let got = LeaseKey {
            check: bed.machine.check(0, key),
            slot: 0,
            lease: key,
        };
        bed.machine.release(bed.now, got, secs(0)).unwrap();
    }
    assert_eq!(bed.machine.tally().lost.dead_overflow, 2);
    assert_eq!(bed.machine.standing().dead_leased, 2);
}

#[test]
fn what_retention_takes_before_its_first_receive_is_counted() {
    let mut bed = Bed::new(RULES, &[10]);
    bed.receive(2);
    bed.span(0).start = 6;
    assert_eq!(places(&bed.receive(10)), [(0, 6), (0, 7), (0, 8), (0, 9)]);
    let lost = Lost {
        unread: 4,
        ..Lost::default()
    };
    assert_eq!(bed.machine.tally().lost, lost);
}

#[test]
fn what_retention_takes_in_flight_can_be_acknowledged_and_is_lost_otherwise() {
    let mut bed = Bed::new(RULES, &[2]);
    let got = bed.receive(2);
    bed.span(0).start = 2;
    bed.machine.acknowledge(bed.now, got[0].key).unwrap();
    bed.now = at(30);
    assert_eq!(bed.receive(10), []);
    let tally = bed.machine.tally();
    assert_eq!((tally.acknowledged, tally.lost.returned), (1, 1));
    assert_eq!(bed.machine.standing(), Standing::default());
}

#[test]
fn dead_letters_whose_retention_is_over_are_swept() {
    let mut bed = Bed::new(RULES, &[3, 3]);
    bed.kill(6);
    bed.span(0).start = 2;
    bed.span(1).start = 1;
    bed.sweep();
    assert_eq!(bed.machine.standing().dead, 3);
    assert_eq!(bed.machine.tally().lost.dead, 3);
    assert_eq!(places(&bed.receive_dead(10)), [(0, 2), (1, 1), (1, 2)]);
    // What somebody holds stays until he lets it go.
    bed.span(0).start = 3;
    bed.sweep();
    assert_eq!(bed.machine.standing().dead_leased, 3);
    bed.now = bed.now + secs(30);
    bed.machine.serve(bed.now);
    bed.sweep();
    assert_eq!(bed.machine.standing().dead, 2);
    // The whole shard has gone.
    bed.spans.0.remove(&shard(1));
    assert_eq!(bed.receive_dead(10), []);
    assert_eq!(bed.machine.tally().lost.dead, 6);
}

#[test]
fn shards_take_turns() {
    let mut bed = Bed::new(RULES, &[5, 5, 5]);
    let turns: Vec<u32> = (0..6).map(|_| places(&bed.receive(1))[0].0).collect();
    assert_eq!(turns, [0, 1, 2, 0, 1, 2]);
    // One receive takes from as many as it needs.
    assert_eq!(bed.receive(9).len(), 9);
    assert_eq!(bed.receive(1), []);
}

#[test]
fn children_wait_for_their_parents_to_be_read() {
    let mut bed = Bed::new(RULES, &[2, 1]);
    bed.add(2, 3, [Some(shard(0)), Some(shard(1))]);
    assert_eq!(bed.receive(10).len(), 3);
    assert_eq!(bed.receive(10), []);
    bed.span(0).closed = true;
    assert_eq!(bed.receive(10), []);
    bed.span(1).closed = true;
    // Read, not acknowledged: nobody promised order beyond that.
    assert_eq!(places(&bed.receive(10)), [(2, 0), (2, 1), (2, 2)]);
    assert!(!bed.machine.is_drained());
    let open: Vec<_> = bed.machine.shards().collect();
    assert_eq!(open, [(shard(2), 3)]);
}

#[test]
fn the_largest_shard_id_is_no_trap() {
    let mut bed = Bed::new(RULES, &[]);
    bed.add(ShardId::MAX.number(), 2, [None, None]);
    assert_eq!(bed.receive(1).len(), 1);
    assert_eq!(bed.receive(10).len(), 1);
    assert_eq!(bed.receive(10), []);
}

#[test]
fn a_queue_is_drained_when_its_shards_are_read_and_nothing_is_under_way() {
    let mut bed = Bed::new(RULES, &[1]);
    bed.span(0).closed = true;
    let key = bed.receive(10)[0].key;
    bed.receive(10);
    assert!(!bed.machine.is_drained());
    bed.machine.acknowledge(bed.now, key).unwrap();
    assert!(bed.machine.is_drained());
}

#[test]
fn new_rules_hold_from_the_next_receive_on() {
    let mut bed = Bed::new(RULES, &[2]);
    bed.receive(1);
    bed.machine.set_rules(Rules {
        visibility_timeout: secs(5),
        max_receives: Some(1),
        ..RULES
    });
    // The lease that stands keeps its time.
    assert_eq!(bed.machine.next_deadline(), Some(at(30)));
    bed.receive(1);
    assert_eq!(bed.machine.next_deadline(), Some(at(5)));
    bed.now = at(30);
    assert_eq!(bed.receive(10), []);
    assert_eq!(bed.machine.standing().dead, 2);
}

#[test]
fn a_lower_limit_of_receives_also_counts_for_what_is_back_already() {
    let mut bed = Bed::new(RULES, &[1]);
    for _ in 0..2 {
        let key = bed.receive(1)[0].key;
        bed.machine.release(bed.now, key, secs(0)).unwrap();
    }
    bed.machine.set_rules(Rules {
        max_receives: Some(2),
        ..RULES
    });
    assert_eq!(bed.receive(1), []);
    assert_eq!(bed.machine.standing().dead, 1);
}
