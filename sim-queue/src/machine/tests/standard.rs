//! Standard queues: leases, delays, retention, dead letters, bounds.

use super::*;

#[test]
fn a_message_comes_back_after_its_timeout() {
    let mut rig = Rig::standard();
    rig.send(7);
    let first = rig.receive(1)[0];
    assert_eq!(
        (first.m, first.receive_count, first.deadline),
        (7, 1, at(30))
    );
    assert!(rig.go(29).is_empty());
    assert!(rig.take(1).is_empty());
    let effects = rig.go(30);
    assert!(matches!(
        effects[..],
        [Effect::BecameVisible {
            m: 7,
            wakes: true,
            ..
        }]
    ));
    let second = rig.receive(1)[0];
    assert_eq!((second.m, second.receive_count), (7, 2));
    assert_eq!((second.first_received, second.sent_at), (at(0), at(0)));
    assert_ne!(first.lease, second.lease);
}

#[test]
fn the_visibility_of_a_receive_holds_for_that_receive_alone() {
    let mut rig = Rig::standard();
    rig.send(1);
    assert_eq!(rig.receive_for(1, Some(5))[0].deadline, at(5));
    rig.go(5);
    assert_eq!(rig.receive(1)[0].deadline, at(35));
}

#[test]
fn a_changed_visibility_counts_from_the_call_and_is_not_remembered() {
    let mut rig = Rig::standard();
    rig.send(1);
    let leased = rig.receive(1)[0];
    rig.go(10);
    assert_eq!(
        rig.change(&leased, 100),
        Ok(Disposition::InFlight { deadline: at(110) })
    );
    assert!(rig.go(109).is_empty());
    assert_eq!(rig.go(110).len(), 1);
    assert_eq!(rig.receive(1)[0].deadline, at(140));
}

#[test]
fn a_lease_ends_at_most_12_hours_after_its_receive() {
    const HOURS: u64 = 3600;
    let mut rig = Rig::standard();
    rig.send(1);
    let leased = rig.receive(1)[0];
    rig.go(20);
    let latest = at(12 * HOURS);
    assert_eq!(
        rig.change(&leased, 12 * HOURS),
        Err(ChangeError::TooLong { latest })
    );
    assert_eq!(
        rig.release(&leased, 12 * HOURS),
        Err(ChangeError::TooLong { latest })
    );
    assert!(rig.change(&leased, 12 * HOURS - 20).is_ok());
    let mut out = Vec::new();
    let got = rig
        .machine
        .receive(rig.now, 1, Some(secs(12 * HOURS + 1)), None, &mut out);
    assert_eq!(got, Err(ReceiveError::TooLong { max: MAX_LEASE }));
}

#[test]
fn an_acknowledge_after_the_timeout_works_while_nobody_received_again() {
    let mut rig = Rig::standard();
    rig.send(1);
    let first = rig.receive(1)[0];
    rig.go(31);
    assert_eq!(rig.acknowledge(&first), Ok(1));
    assert!(rig.machine.is_empty());

    rig.send(2);
    let first = rig.receive(1)[0];
    rig.go(70);
    let second = rig.receive(1)[0];
    assert_eq!(rig.acknowledge(&first), Err(Stale));
    assert_eq!(rig.acknowledge(&second), Ok(2));
    assert_eq!(rig.acknowledge(&second), Err(Stale));
}

#[test]
fn an_old_key_never_hits_another_message_in_its_place() {
    let mut rig = Rig::standard();
    rig.send(1);
    let old = rig.receive(1)[0];
    rig.acknowledge(&old).unwrap();
    let new = rig.send(2);
    assert_eq!(new.key.parts().0, old.key.parts().0);
    let current = rig.receive(1)[0];
    assert_eq!(rig.acknowledge(&old), Err(Stale));
    assert_eq!(rig.change(&old, 0), Err(ChangeError::Stale));
    assert_eq!(rig.acknowledge(&current), Ok(2));
    let forged = MessageKey::from_parts(1 << 30, 7);
    assert_eq!(rig.machine.acknowledge(rig.now, forged, 1), Err(Stale));
}

#[test]
fn the_visibility_of_a_message_that_timed_out_cannot_be_changed() {
    let mut rig = Rig::standard();
    rig.send(1);
    let leased = rig.receive(1)[0];
    rig.go(30);
    assert_eq!(rig.change(&leased, 5), Err(ChangeError::Stale));
    assert_eq!(rig.release(&leased, 0), Err(ChangeError::Stale));
}

#[test]
fn a_released_message_is_visible_at_once_and_its_lease_is_over() {
    let mut rig = Rig::standard();
    rig.send(1);
    let leased = rig.receive(1)[0];
    assert_eq!(
        rig.release(&leased, 0),
        Ok(Disposition::Visible { wakes: true })
    );
    assert_eq!(rig.acknowledge(&leased), Err(Stale));
    assert_eq!(rig.receive(1)[0].receive_count, 2);
}

#[test]
fn a_message_released_for_later_stays_in_flight_without_a_holder() {
    let mut rig = Rig::standard();
    rig.send(1);
    let leased = rig.receive(1)[0];
    assert_eq!(
        rig.release(&leased, 5),
        Ok(Disposition::InFlight { deadline: at(5) })
    );
    assert_eq!(rig.acknowledge(&leased), Err(Stale));
    assert_eq!(rig.machine.stats(rig.now).in_flight, 1);
    assert_eq!(rig.go(5).len(), 1);
    assert_eq!(rig.take(1), [1]);
}

#[test]
fn a_visibility_of_zero_leaves_the_handle_valid_on_a_standard_queue() {
    let mut rig = Rig::standard();
    rig.send(1);
    let leased = rig.receive(1)[0];
    assert_eq!(
        rig.change(&leased, 0),
        Ok(Disposition::Visible { wakes: true })
    );
    assert_eq!(rig.acknowledge(&leased), Ok(1));
}

#[test]
fn a_delayed_message_is_invisible_until_its_delay_passed() {
    let mut rig = Rig::new(Kind::Standard, |rules| rules.delay = secs(10));
    let by_queue = rig.send(1);
    assert!(!by_queue.visible_now && !by_queue.wakes);
    rig.send_delayed(2, 3);
    rig.send_delayed(3, 0);
    assert_eq!(rig.take(10), [3]);
    assert_eq!(rig.machine.next_deadline(), Some(at(3)));
    rig.go(3);
    assert_eq!(rig.take(10), [2]);
    rig.go(10);
    assert_eq!(rig.receive(10)[0].first_received, at(10));
}

#[test]
fn a_changed_queue_delay_leaves_delayed_messages_of_a_standard_queue_alone() {
    let mut rig = Rig::new(Kind::Standard, |rules| rules.delay = secs(10));
    rig.send(1);
    rig.machine.set_delay(secs(2));
    rig.send(2);
    rig.go(2);
    assert_eq!(rig.take(10), [2]);
    rig.go(10);
    assert_eq!(rig.take(10), [1]);
}

#[test]
fn a_shortened_visibility_timeout_still_ends_leases_in_time() {
    let mut rig = Rig::standard();
    rig.send(1);
    rig.send(2);
    rig.receive(1);
    rig.machine.set_visibility_timeout(secs(5)).unwrap();
    rig.receive(1);
    assert_eq!(rig.machine.next_deadline(), Some(at(5)));
    rig.go(5);
    assert_eq!(rig.take(2), [2]);
    let too_long = rig.machine.set_visibility_timeout(secs(13 * 3600));
    assert_eq!(
        too_long,
        Err(RulesError::VisibilityTooLong { max: MAX_LEASE })
    );
}

#[test]
fn a_message_past_its_retention_is_deleted_also_in_flight() {
    let mut rig = Rig::new(Kind::Standard, |rules| rules.retention = Some(secs(60)));
    rig.send(1);
    rig.send(2);
    rig.send_delayed(3, 100);
    let leased = rig.receive_for(1, Some(90))[0];
    let effects = rig.go(60);
    let expired: Vec<_> = effects
        .iter()
        .map(|effect| match effect {
            Effect::Expired { m, was, .. } => (*m, *was),
            other => panic!("{other:?}"),
        })
        .collect();
    let states = [
        (1, State::InFlight),
        (2, State::Visible),
        (3, State::Delayed),
    ];
    assert_eq!(expired, states);
    assert_eq!(rig.acknowledge(&leased), Err(Stale));
    assert_eq!(rig.machine.stats(rig.now).expired, 3);
}

#[test]
fn a_shortened_retention_deletes_messages_that_are_there() {
    let mut rig = Rig::standard();
    rig.send(1);
    rig.go(50);
    rig.send(2);
    let mut effects = Vec::new();
    rig.machine
        .set_retention(rig.now, Some(secs(10)), &mut effects)
        .unwrap();
    assert!(matches!(effects[..], [Effect::Expired { m: 1, .. }]));
    assert_eq!(rig.machine.next_deadline(), Some(at(60)));
}

#[test]
fn age_and_retention_count_from_the_time_of_sending_that_a_dead_letter_keeps() {
    let mut rig = Rig::new(Kind::Standard, |rules| rules.retention = Some(secs(100)));
    rig.go(50);
    rig.send(1);
    let kept = Admission {
        sent_at: Some(at(20)),
        ..Admission::default()
    };
    rig.try_send(2, &kept).unwrap();
    let ahead = Admission {
        sent_at: Some(at(1000)),
        ..Admission::default()
    };
    rig.try_send(3, &ahead).unwrap();
    assert_eq!(rig.machine.stats(rig.now).oldest_age, Some(secs(30)));
    let order: Vec<u32> = rig.machine.contents().map(|content| content.m).collect();
    assert_eq!(order, [2, 1, 3]);
    assert!(matches!(rig.go(120)[..], [Effect::Expired { m: 2, .. }]));
    assert_eq!(rig.go(150).len(), 2);
}

#[test]
fn a_message_becomes_a_dead_letter_when_its_last_lease_ends() {
    let mut rig = Rig::new(Kind::Standard, |rules| rules.max_receives = Some(2));
    rig.send(1);
    rig.receive(1);
    rig.go(30);
    let last = rig.receive(1)[0];
    let effects = rig.go(60);
    let [Effect::DeadLetter(letter)] = effects[..] else {
        panic!("{effects:?}");
    };
    assert_eq!(
        (letter.m, letter.receive_count, letter.sent_at),
        (1, 2, at(0))
    );
    assert_eq!(letter.first_received, at(0));
    assert!(rig.machine.is_empty());
    assert_eq!(rig.acknowledge(&last), Err(Stale));
}

#[test]
fn a_release_after_the_last_receive_hands_out_the_dead_letter() {
    let mut rig = Rig::new(Kind::Standard, |rules| rules.max_receives = Some(1));
    rig.send(1);
    let leased = rig.receive(1)[0];
    let released = rig.release(&leased, 0);
    assert!(matches!(
        released,
        Ok(Disposition::DeadLetter(DeadLetter { m: 1, .. }))
    ));
    rig.send(2);
    let leased = rig.receive(1)[0];
    assert_eq!(rig.acknowledge(&leased), Ok(2));
}

#[test]
fn lowered_max_receives_bury_what_was_received_as_often() {
    let mut rig = Rig::standard();
    rig.send(1);
    rig.send(2);
    let both = rig.receive(2);
    rig.release(&both[0], 0).unwrap();
    rig.send(3);
    let mut effects = Vec::new();
    rig.machine
        .set_max_receives(rig.now, Some(1), &mut effects)
        .unwrap();
    assert!(matches!(
        effects[..],
        [Effect::DeadLetter(DeadLetter { m: 1, .. })]
    ));
    assert_eq!(rig.acknowledge(&both[1]), Ok(2));
    assert_eq!(rig.take(5), [3]);
    assert_eq!(
        rig.machine.set_max_receives(rig.now, Some(0), &mut effects),
        Err(RulesError::Zero {
            rule: "max_receives"
        })
    );
}

#[test]
fn a_standard_queue_refuses_receives_at_its_bound_in_flight() {
    let mut rig = Rig::new(Kind::Standard, |rules| rules.max_in_flight = 2);
    for m in 0..3 {
        rig.send(m);
    }
    let got = rig.receive(5);
    assert_eq!(got.len(), 2);
    let mut out = Vec::new();
    let refused = rig.machine.receive(rig.now, 1, None, None, &mut out);
    assert_eq!(refused, Err(ReceiveError::OverLimit));
    let acknowledged = rig
        .machine
        .acknowledge(rig.now, got[0].key, got[0].lease)
        .unwrap();
    assert!(acknowledged.wakes, "the bound held a message back");
    assert_eq!(rig.take(5), [2]);
}

#[test]
fn capacity_bounds_what_waits_and_never_turns_returning_messages_away() {
    let mut rig = Rig::new(Kind::Standard, |rules| rules.capacity = Some(2));
    rig.send(1);
    rig.send_delayed(2, 5);
    assert_eq!(rig.try_send(3, &Admission::default()), Err(NotStored::Full));
    let leased = rig.receive(1)[0];
    rig.send(3);
    rig.release(&leased, 0).unwrap();
    assert_eq!(rig.machine.stats(rig.now).visible, 2);
    assert_eq!(rig.try_send(4, &Admission::default()), Err(NotStored::Full));
}

#[test]
fn a_purge_deletes_everything_and_reports_it() {
    let mut rig = Rig::standard();
    rig.send(1);
    rig.send(2);
    rig.send_delayed(3, 5);
    let leased = rig.receive(1)[0];
    let mut effects = Vec::new();
    rig.machine.purge(rig.now, &mut effects);
    rig.machine.check_invariants();
    assert_eq!(effects.len(), 3);
    assert!(matches!(
        effects[0],
        Effect::Purged {
            m: 1,
            was: State::InFlight,
            ..
        }
    ));
    assert!(rig.machine.is_empty());
    assert_eq!(rig.machine.next_deadline(), None);
    assert_eq!(rig.acknowledge(&leased), Err(Stale));
    assert_eq!(rig.machine.stats(rig.now).purged, 3);
}

#[test]
fn deadlines_are_served_in_their_order_whatever_set_them() {
    let mut rig = Rig::new(Kind::Standard, |rules| rules.retention = Some(secs(25)));
    rig.send_delayed(1, 20);
    rig.send(2);
    rig.send(3);
    rig.receive_for(1, Some(10));
    rig.receive_for(1, Some(25));
    rig.go(5);
    rig.send_delayed(4, 7);
    let order: Vec<u32> = rig
        .go(25)
        .iter()
        .map(|effect| match effect {
            Effect::BecameVisible { m, .. } => *m,
            Effect::Expired { m, .. } => 10 + *m,
            other => panic!("{other:?}"),
        })
        .collect();
    // At 25 the lease of 3 ends with its retention: it is deleted, not returned.
    assert_eq!(order, [2, 4, 1, 11, 12, 13]);
}

#[test]
fn any_visible_message_of_a_standard_queue_may_be_the_next() {
    let mut rig = Rig::standard();
    rig.send(1);
    let second = rig.send(2);
    let leased = rig.machine.receive_this(rig.now, second.key, None).unwrap();
    rig.machine.check_invariants();
    assert_eq!(leased.m, 2);
    assert!(
        rig.machine
            .receive_this(rig.now, second.key, None)
            .is_none()
    );
    assert_eq!(rig.take(5), [1]);
}

#[test]
fn only_fifo_queues_take_de_duplication_ids_and_attempts() {
    let mut rig = Rig::standard();
    let key = DedupKey::Content([0; 32]);
    let admission = Admission {
        dedup: Some(&key),
        ..Admission::default()
    };
    assert_eq!(
        rig.try_send(1, &admission),
        Err(NotStored::DeduplicationNotAllowed)
    );
    let attempt = ReceiveAttemptId::new("a").unwrap();
    let got = rig
        .machine
        .receive(rig.now, 1, None, Some(&attempt), &mut Vec::new());
    assert_eq!(got, Err(ReceiveError::AttemptOutOfOrder));
}

#[test]
fn rules_out_of_range_are_refused() {
    let refused = |change: fn(&mut Rules)| {
        let mut rules = Rules::new(Kind::fair());
        change(&mut rules);
        Machine::<u32>::new(rules).map(|_| ()).unwrap_err()
    };
    assert_eq!(
        refused(|r| r.capacity = Some(0)),
        RulesError::Zero { rule: "capacity" }
    );
    assert_eq!(
        refused(|r| r.max_in_flight = 0),
        RulesError::Zero {
            rule: "max_in_flight"
        }
    );
    assert_eq!(
        refused(|r| r.retention = Some(secs(0))),
        RulesError::Zero { rule: "retention" }
    );
    let share = FairConfig {
        in_flight_share: 101,
        ..FairConfig::default()
    };
    assert_eq!(
        Machine::<u32>::new(Rules::new(Kind::Fair(share)))
            .map(|_| ())
            .unwrap_err(),
        RulesError::Share {
            rule: "in_flight_share",
            share: 101
        }
    );
}
