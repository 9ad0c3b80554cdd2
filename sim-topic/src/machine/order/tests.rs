use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn at(seconds: u64) -> Instant {
    Instant::ORIGIN + Duration::from_secs(seconds)
}

/// A backlog of `group:number` texts.
fn order(limit: usize, messages: &[&'static str]) -> Order<&'static str> {
    let mut order = Order::new(limit, 7);
    for message in messages {
        let (group, _) = message.split_once(':').unwrap();
        order
            .push((!group.is_empty()).then_some(group), *message)
            .unwrap();
    }
    order
}

fn take(order: &mut Order<&'static str>, now: u64) -> Option<(Ticket, &'static str)> {
    order.take(at(now)).map(|taken| (taken.ticket, *taken.item))
}

/// Delivers whatever comes, without a failure.
fn deliver_all(order: &mut Order<&'static str>, now: u64) -> Vec<&'static str> {
    let mut all = Vec::new();
    while let Some((ticket, _)) = take(order, now) {
        all.extend(order.done(ticket));
    }
    all
}

#[test]
fn a_group_comes_in_order_and_groups_take_turns() {
    let mut order = order(9, &["a:1", "a:2", "a:3", "b:1", "b:2"]);
    assert_eq!(
        deliver_all(&mut order, 0),
        ["a:1", "b:1", "a:2", "b:2", "a:3"]
    );
    assert_eq!(order.len(), 0);
}

#[test]
fn one_message_of_a_group_is_in_flight_at_a_time() {
    let mut order = order(9, &["a:1", "a:2", "b:1"]);
    let (first, _) = take(&mut order, 0).unwrap();
    assert_eq!(take(&mut order, 0).unwrap().1, "b:1");
    assert_eq!(take(&mut order, 0), None);
    assert!(!order.has_ready(at(0)));
    assert_eq!(order.in_flight_len(), 2);
    assert_eq!(order.get(first), Some(&"a:1"));
    assert_eq!(order.done(first), Some("a:1"));
    assert_eq!(take(&mut order, 0).unwrap().1, "a:2");
}

#[test]
fn a_failure_holds_its_group_back_and_no_other() {
    let mut order = order(9, &["a:1", "a:2", "b:1", "b:2"]);
    let (ticket, _) = take(&mut order, 0).unwrap();
    assert_eq!(order.retry(ticket, at(10)), Some(1));
    assert_eq!(deliver_all(&mut order, 9), ["b:1", "b:2"]);
    assert_eq!(order.next_deadline(), Some(at(10)));
    assert!(!order.has_ready(at(9)) && order.has_ready(at(10)));
    let taken = order.take(at(10)).unwrap();
    assert_eq!((*taken.item, taken.failed), ("a:1", 1));
    let ticket = taken.ticket;
    assert_eq!(order.retry(ticket, at(12)), Some(2));
    assert_eq!(deliver_all(&mut order, 12), ["a:1", "a:2"]);
    assert_eq!(order.next_deadline(), None);
}

#[test]
fn a_message_that_is_given_up_lets_its_group_go_on() {
    let mut order = order(9, &["a:1", "a:2"]);
    let (ticket, _) = take(&mut order, 0).unwrap();
    order.retry(ticket, at(1));
    let (ticket, _) = take(&mut order, 1).unwrap();
    assert_eq!(order.done(ticket), Some("a:1"));
    // The count of failures was the message's, not the group's.
    let taken = order.take(at(1)).unwrap();
    assert_eq!((*taken.item, taken.failed), ("a:2", 0));
}

#[test]
fn a_message_without_a_group_holds_nobody_back() {
    let mut order = order(9, &[":1", ":2", ":3"]);
    let (first, _) = take(&mut order, 0).unwrap();
    let (second, _) = take(&mut order, 0).unwrap();
    order.retry(first, at(5));
    order.retry(second, at(4));
    assert_eq!(deliver_all(&mut order, 3), [":3"]);
    assert_eq!(deliver_all(&mut order, 5), [":2", ":1"]);
}

#[test]
fn a_message_that_was_not_attempted_comes_first_again_and_counts_no_failure() {
    let mut order = order(9, &["a:1", "b:1"]);
    let (ticket, _) = take(&mut order, 0).unwrap();
    assert!(order.put_back(ticket));
    assert!(!order.put_back(ticket));
    let taken = order.take(at(0)).unwrap();
    assert_eq!((*taken.item, taken.failed), ("a:1", 0));
    let ticket = taken.ticket;
    assert_eq!(take(&mut order, 0).unwrap().1, "b:1");
    assert!(order.put_back(ticket));
    assert_eq!(deliver_all(&mut order, 0), ["a:1"]);
}

#[test]
fn a_ticket_is_good_once_and_never_for_a_later_message() {
    let mut order = order(9, &["a:1", "a:2"]);
    let (old, _) = take(&mut order, 0).unwrap();
    order.retry(old, at(0));
    assert_eq!((order.done(old), order.retry(old, at(0))), (None, None));
    let (new, _) = take(&mut order, 0).unwrap();
    assert_eq!((order.get(old), order.get(new)), (None, Some(&"a:1")));
    assert_eq!(order.done(new), Some("a:1"));
    assert_eq!(order.done(new), None);
    assert_eq!(order.in_flight_len(), 0);
    assert_eq!(deliver_all(&mut order, 0), ["a:2"]);
}

#[test]
fn a_full_backlog_gives_the_message_back() {
    let mut order = order(2, &["a:1", "b:1"]);
    assert_eq!(order.push(Some("a"), "a:2"), Err("a:2"));
    assert_eq!(order.push(None, ":2"), Err(":2"));
    // What is in flight counts until it is resolved.
    let (ticket, _) = take(&mut order, 0).unwrap();
    assert_eq!(order.push(Some("a"), "a:2"), Err("a:2"));
    order.done(ticket);
    assert_eq!(order.push(Some("a"), "a:2"), Ok(()));
}

#[test]
fn draining_gives_everything_in_the_order_in_which_it_came() {
    let mut order = order(9, &["a:1", "b:1", "a:2", ":1"]);
    let (flying, _) = take(&mut order, 0).unwrap();
    let (held, _) = take(&mut order, 0).unwrap();
    order.retry(held, at(5));
    let all: Vec<_> = order.drain().collect();
    assert_eq!(all, ["a:1", "b:1", "a:2", ":1"]);
    assert_eq!((order.len(), order.in_flight_len()), (0, 0));
    assert_eq!(order.next_deadline(), None);
    order.push(Some("a"), "a:3").unwrap();
    assert_eq!(order.done(flying), None);
    assert_eq!(deliver_all(&mut order, 9), ["a:3"]);
}

#[test]
fn groups_without_messages_take_no_memory() {
    let mut order = Order::new(10_000, 7);
    for round in 0..3 {
        for n in 0..10_000 {
            order.push(Some(&format!("{round}-{n}")), n).unwrap();
        }
        assert_eq!(order.lanes.slots.len(), 10_000);
        while let Some(ticket) = order.take(at(0)).map(|taken| taken.ticket) {
            order.done(ticket);
        }
        assert_eq!(order.messages.slots.capacity(), 0);
        assert_eq!((order.lanes.slots.capacity(), order.index.len()), (0, 0));
    }
}

/// The rules again, with a queue a group that is searched from end to end.
#[derive(Default)]
struct Plain {
    groups: BTreeMap<String, VecDeque<(u32, u32)>>,
    /// Groups whose head is in flight, with the ticket; and those that are held, until when.
    flying: BTreeMap<String, usize>,
    held: BTreeMap<String, Instant>,
}

#[derive(Debug, Clone)]
enum Act {
    Push(Option<u8>),
    Take,
    Done(usize),
    Retry(usize, u64),
    PutBack(usize),
    Wait(u64),
}

fn any_act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => prop::option::weighted(0.8, 0u8..5).prop_map(Act::Push),
        4 => Just(Act::Take),
        2 => (0usize..60).prop_map(Act::Done),
        2 => ((0usize..60), 0u64..20).prop_map(|(n, wait)| Act::Retry(n, wait)),
        1 => (0usize..60).prop_map(Act::PutBack),
        1 => (0u64..20).prop_map(Act::Wait),
    ]
}

proptest! {
    #[test]
    fn the_backlog_agrees_with_plain_queues(limit in 1usize..20, acts in prop::collection::vec(any_act(), 1..150)) {
        let mut order = Order::new(limit, 3);
        let mut plain = Plain::default();
        let mut now = 0;
        let mut tickets: Vec<(Ticket, String)> = Vec::new();
        for (number, act) in acts.into_iter().enumerate() {
            let number = number as u32;
            let total: usize = plain.groups.values().map(VecDeque::len).sum();
            match act {
                Act::Push(group) => {
                    let pushed = order.push(group.map(|group| group.to_string()).as_deref(), number);
                    prop_assert_eq!(pushed, if total < limit { Ok(()) } else { Err(number) });
                    if total < limit {
                        let name = group.map_or_else(|| format!("alone {number}"), |group| group.to_string());
                        plain.groups.entry(name).or_default().push_back((number, 0));
                    }
                }
                Act::Take => {
                    plain.held.retain(|_, until| *until > at(now));
                    let ready: Vec<_> = plain.groups.iter()
                        .filter(|(name, _)| !plain.flying.contains_key(*name) && !plain.held.contains_key(*name))
                        .map(|(name, queue)| (name.clone(), queue[0]))
                        .collect();
                    prop_assert_eq!(order.has_ready(at(now)), !ready.is_empty());
                    match order.take(at(now)) {
                        None => prop_assert!(ready.is_empty()),
                        Some(Taken { ticket, item, failed }) => {
                            let found = ready.iter().find(|(_, head)| *head == (*item, failed));
                            prop_assert!(found.is_some(), "{item} may not be handed out");
                            let (name, _) = found.unwrap();
                            plain.flying.insert(name.clone(), tickets.len());
                            tickets.push((ticket, name.clone()));
                        }
                    }
                }
                Act::Done(n) | Act::Retry(n, _) | Act::PutBack(n) if tickets.get(n).is_none() => {}
                Act::Done(n) => {
                    let (ticket, name) = &tickets[n];
                    let live = plain.flying.get(name) == Some(&n);
                    let head = if live { plain.groups.get_mut(name).unwrap().pop_front() } else { None };
                    prop_assert_eq!(order.done(*ticket), head.map(|(number, _)| number));
                    if live {
                        plain.flying.remove(name);
                        plain.groups.retain(|_, queue| !queue.is_empty());
                    }
                }
                Act::Retry(n, wait) => {
                    let (ticket, name) = &tickets[n];
                    let live = plain.flying.get(name) == Some(&n);
                    let mut expected = None;
                    if live {
                        plain.flying.remove(name);
                        plain.held.insert(name.clone(), at(now + wait));
                        let head = &mut plain.groups.get_mut(name).unwrap()[0];
                        head.1 += 1;
                        expected = Some(head.1);
                    }
                    prop_assert_eq!(order.retry(*ticket, at(now + wait)), expected);
                }
                Act::PutBack(n) => {
                    let (ticket, name) = &tickets[n];
                    let live = plain.flying.get(name) == Some(&n);
                    prop_assert_eq!(order.put_back(*ticket), live);
                    if live {
                        plain.flying.remove(name);
                    }
                }
                Act::Wait(wait) => now += wait,
            }
            let total: usize = plain.groups.values().map(VecDeque::len).sum();
            prop_assert_eq!((order.len(), order.in_flight_len()), (total, plain.flying.len()));
            prop_assert_eq!(order.next_deadline(), plain.held.values().min().copied());
        }
        // Nothing is lost: what is left is what the queues hold.
        let mut left: Vec<u32> = plain.groups.values().flatten().map(|(number, _)| *number).collect();
        left.sort_unstable();
        prop_assert_eq!(order.drain().collect::<Vec<_>>(), left);
    }

    /// With one group in the ready list for each: no group waits longer than one round.
    #[test]
    fn no_group_waits_longer_than_a_round(sizes in prop::collection::vec(1usize..6, 1..8)) {
        let mut order = Order::new(1_000, 3);
        for (group, size) in sizes.iter().enumerate() {
            for n in 0..*size {
                order.push(Some(&group.to_string()), (group, n)).unwrap();
            }
        }
        let mut expected = Vec::new();
        for n in 0..6 {
            expected.extend(sizes.iter().enumerate().filter(|(_, size)| n < **size).map(|(group, _)| (group, n)));
        }
        let mut found = Vec::new();
        while let Some(ticket) = order.take(at(0)).map(|taken| taken.ticket) {
            found.extend(order.done(ticket));
        }
        prop_assert_eq!(found, expected);
    }
}
