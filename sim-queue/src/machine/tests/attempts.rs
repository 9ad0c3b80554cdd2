//! Repeated receives.

use super::*;

struct Attempting(Rig);

impl Attempting {
    fn new(limit: usize) -> Self {
        let fifo = FifoConfig {
            attempt_limit: limit,
            ..FifoConfig::default()
        };
        let mut rig = Rig::new(Kind::Fifo(fifo), |_| {});
        for m in 1..=4 {
            rig.send_to("a", m);
        }
        Self(rig)
    }

    fn receive(&mut self, id: &str, max: usize) -> Result<Vec<Leased<u32>>, ReceiveError> {
        let id = ReceiveAttemptId::new(id).unwrap();
        let mut out = Vec::new();
        let got = self
            .0
            .machine
            .receive(self.0.now, max, None, Some(&id), &mut out)?;
        self.0.machine.check_invariants();
        assert_eq!(got, out.len());
        Ok(out)
    }
}

#[test]
fn a_repeated_attempt_returns_the_same_messages_with_their_timeout_started_again() {
    let mut rig = Attempting::new(10);
    let first = rig.receive("x", 2).unwrap();
    rig.0.go(20);
    let second = rig.receive("x", 2).unwrap();
    assert_eq!(first.len(), 2);
    for (one, two) in first.iter().zip(&second) {
        assert_eq!((one.m, one.key, one.lease), (two.m, two.key, two.lease));
        assert_eq!((two.receive_count, two.deadline), (1, at(50)));
    }
    assert!(rig.0.go(49).is_empty());
    rig.0.acknowledge(&first[0]).unwrap();
    rig.0.acknowledge(&second[1]).unwrap();
    assert_eq!(rig.0.take(1), [3]);
}

#[test]
fn an_attempt_is_spent_when_one_of_its_messages_was_touched() {
    for touch in 0..4 {
        let mut rig = Attempting::new(10);
        let got = rig.receive("x", 2).unwrap();
        match touch {
            0 => {
                rig.0.acknowledge(&got[1]).unwrap();
            }
            1 => {
                rig.0.change(&got[1], 40).unwrap();
            }
            2 => {
                rig.0.change(&got[1], 0).unwrap();
            }
            _ => {
                rig.0.release(&got[1], 5).unwrap();
            }
        }
        assert_eq!(rig.receive("x", 2), Err(ReceiveError::AttemptSpent));
    }
}

#[test]
fn an_attempt_whose_leases_timed_out_receives_anew() {
    let mut rig = Attempting::new(10);
    rig.receive("x", 2).unwrap();
    rig.0.go(30);
    let again = rig.receive("x", 1).unwrap();
    assert_eq!((again[0].m, again[0].receive_count), (1, 2));
    rig.0.go(40);
    assert_eq!(rig.receive("x", 1).unwrap()[0].deadline, at(70));
}

#[test]
fn an_attempt_is_forgotten_after_its_window() {
    let mut rig = Attempting::new(10);
    let got = rig.0.receive_for(1, Some(3000))[0];
    rig.0.acknowledge(&got).unwrap();
    let id = ReceiveAttemptId::new("x").unwrap();
    let mut out = Vec::new();
    let long = Some(secs(3000));
    rig.0
        .machine
        .receive(rig.0.now, 1, long, Some(&id), &mut out)
        .unwrap();
    rig.0.go(299);
    rig.0
        .machine
        .receive(rig.0.now, 1, long, Some(&id), &mut out)
        .unwrap();
    assert_eq!((out.len(), out[1].deadline), (2, at(3299)));
    rig.0.go(300);
    // A new receive: the group is blocked by the message in flight.
    assert!(rig.receive("x", 1).unwrap().is_empty());
}

#[test]
fn other_attempts_receive_other_messages() {
    let mut rig = Attempting::new(10);
    rig.0.send_to("b", 10);
    assert_eq!(rig.receive("x", 2).unwrap().len(), 2);
    assert_eq!(rig.receive("y", 2).unwrap()[0].m, 10);
    assert!(rig.receive("z", 2).unwrap().is_empty());
    rig.0.send_to("c", 20);
    // What found nothing is not remembered.
    assert_eq!(rig.receive("z", 2).unwrap()[0].m, 20);
}

#[test]
fn a_full_table_of_attempts_refuses_new_ones() {
    let mut rig = Attempting::new(1);
    rig.0.send_to("b", 10);
    rig.receive("x", 1).unwrap();
    assert_eq!(rig.receive("y", 1), Err(ReceiveError::AttemptTableFull));
    assert_eq!(rig.receive("x", 1).unwrap().len(), 1);
    assert_eq!(rig.0.take(1), [10]);
}

#[test]
fn a_repeated_attempt_does_not_outlast_the_longest_lease() {
    let mut rig = Attempting::new(10);
    let id = ReceiveAttemptId::new("x").unwrap();
    let mut out = Vec::new();
    let longest = Some(MAX_LEASE);
    rig.0
        .machine
        .receive(rig.0.now, 1, longest, Some(&id), &mut out)
        .unwrap();
    rig.0.go(100);
    rig.0
        .machine
        .receive(rig.0.now, 1, longest, Some(&id), &mut out)
        .unwrap();
    assert_eq!(out[1].deadline, Instant::ORIGIN + MAX_LEASE);
}
