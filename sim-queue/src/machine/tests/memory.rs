//! What a machine costs.

use super::*;

#[test]
fn an_empty_machine_takes_less_than_two_kibibytes_and_allocates_nothing() {
    // The tables, lists and sets allocate with their first entries.
    assert!(size_of::<Machine<u32>>() < 1024);
}

#[test]
fn idle_groups_are_bounded() {
    let mut rig = Rig::new(Kind::fifo(), |rules| rules.idle_groups = 10);
    for n in 0..1000 {
        rig.send_to(&format!("g{n}"), n);
    }
    assert_eq!(rig.machine.stats(rig.now).groups, 1000);
    let got = rig.receive(1000);
    for leased in &got {
        rig.machine
            .acknowledge(rig.now, leased.key, leased.lease)
            .unwrap();
    }
    rig.machine.check_invariants();
    assert_eq!(rig.machine.stats(rig.now).groups, 0);
    assert_eq!(rig.machine.groups.table.len(), 10);
    // One group after the other: never more than the bound.
    for n in 0..1000 {
        rig.send_to(&format!("h{n}"), n);
        let leased = rig.receive(1)[0];
        rig.acknowledge(&leased).unwrap();
        assert!(rig.machine.groups.table.len() <= 12);
    }
}
