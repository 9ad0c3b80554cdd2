//! The rules of leases, one a test, on a manual clock.

mod model;

use std::time::Duration;

use sim_core::time::Instant;

use super::{CheckpointError, Generation, Leases, Listed, Mark, Rules, WorkerId};
use crate::error::WrongSequenceNumber;
use crate::message::{Checkpoint, Salt, SequenceNumber, ShardId};

const DURATION: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(30);

const RULES: Rules = Rules {
    duration: DURATION,
    max_leases: usize::MAX,
    max_steals: 1,
    hand_off_timeout: TIMEOUT,
    max_workers: 8,
};

fn at(seconds: u64) -> Instant {
    Instant::ORIGIN + Duration::from_secs(seconds)
}

fn shard(number: u32) -> ShardId {
    ShardId::new(number)
}

fn listed(number: u32, parents: &[u32]) -> Listed {
    Listed {
        shard: shard(number),
        parents: parents.iter().copied().map(shard).collect(),
        from: Checkpoint::TrimHorizon,
        start: None,
    }
}

fn record(of: u32, position: u64) -> SequenceNumber {
    SequenceNumber::new(shard(of), Salt::new(0), position)
}

/// A table of `shards` open shards.
fn table(shards: u32, rules: Rules) -> Leases {
    let mut leases = Leases::new(rules);
    leases.follow((0..shards).map(|number| listed(number, &[])), at(0));
    leases
}

fn held(leases: &Leases, worker: WorkerId) -> Vec<u32> {
    leases
        .of(worker)
        .map(|lease| lease.shard_id.number())
        .collect()
}

fn generation(leases: &Leases, of: u32) -> Generation {
    leases.get(shard(of)).unwrap().generation
}

/// Rounds of all workers, each giving what it is asked for at once, until nothing changes.
fn settle(leases: &mut Leases, workers: &[WorkerId], now: Instant) {
    loop {
        let version = leases.version();
        for &worker in workers {
            leases.renew(worker, now);
            give(leases, worker, now);
            leases.balance(worker, now);
        }
        if leases.version() == version {
            return;
        }
    }
}

/// Has a worker give what it was asked for.
fn give(leases: &mut Leases, worker: WorkerId, now: Instant) {
    let asked: Vec<_> = leases
        .of(worker)
        .filter(|lease| lease.hand_off.is_some())
        .map(|lease| (lease.shard_id, lease.generation))
        .collect();
    for (shard, generation) in asked {
        assert!(leases.release(worker, shard, generation, now));
    }
}

#[test]
fn a_lone_worker_takes_every_shard() {
    let mut leases = table(5, RULES);
    let a = leases.join(at(0)).unwrap();
    leases.balance(a, at(0));
    assert_eq!(held(&leases, a), [0, 1, 2, 3, 4]);
    assert_eq!(leases.stats().taken, 5);
}

#[test]
fn a_worker_takes_its_share_of_free_leases() {
    let mut leases = table(5, RULES);
    let a = leases.join(at(0)).unwrap();
    let b = leases.join(at(0)).unwrap();
    leases.balance(a, at(0));
    leases.balance(b, at(0));
    assert_eq!(held(&leases, a), [0, 1, 2]);
    assert_eq!(held(&leases, b), [3, 4]);
}

#[test]
fn a_worker_takes_no_more_than_it_may_hold() {
    let mut leases = table(
        5,
        Rules {
            max_leases: 2,
            ..RULES
        },
    );
    let a = leases.join(at(0)).unwrap();
    leases.balance(a, at(0));
    assert_eq!(held(&leases, a), [0, 1]);
    // Not even what nobody took for long.
    leases.renew(a, at(1000));
    leases.balance(a, at(1000));
    assert_eq!(held(&leases, a), [0, 1]);
}

#[test]
fn a_newcomer_asks_the_most_loaded_worker_for_one_lease_a_round() {
    let mut leases = table(6, RULES);
    let a = leases.join(at(0)).unwrap();
    leases.balance(a, at(0));
    let b = leases.join(at(1)).unwrap();
    leases.balance(b, at(1));
    let asked: Vec<_> = leases
        .iter()
        .filter(|lease| lease.hand_off.is_some())
        .collect();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].owner, Some(a));
    let hand_off = asked[0].hand_off.unwrap();
    assert_eq!((hand_off.to, hand_off.deadline), (b, at(1) + TIMEOUT));
    assert!(leases.is_wanted(shard(5)) && !leases.is_wanted(shard(4)));
    assert_eq!(held(&leases, b), [0; 0]);
}

#[test]
fn several_leases_are_asked_for_when_the_rules_say_so() {
    let mut leases = table(
        6,
        Rules {
            max_steals: 2,
            ..RULES
        },
    );
    let a = leases.join(at(0)).unwrap();
    leases.balance(a, at(0));
    let b = leases.join(at(1)).unwrap();
    leases.balance(b, at(1));
    give(&mut leases, a, at(1));
    assert_eq!(held(&leases, b), [4, 5]);
}

#[test]
fn a_lease_that_is_given_goes_to_who_asked_for_it() {
    let mut leases = table(2, RULES);
    let a = leases.join(at(0)).unwrap();
    leases.balance(a, at(0));
    let before = generation(&leases, 1);
    let b = leases.join(at(1)).unwrap();
    leases.balance(b, at(1));
    leases
        .checkpoint(a, shard(1), before, Mark::Record(record(1, 7)), at(2))
        .unwrap();
    give(&mut leases, a, at(2));
    let lease = leases.get(shard(1)).unwrap();
    assert_eq!(lease.owner, Some(b));
    assert!(lease.generation > before);
    assert_eq!(lease.checkpoint, Checkpoint::at(record(1, 7)));
    assert_eq!(lease.hand_off, None);
    assert_eq!(leases.stats().handed_off, 1);
}

#[test]
fn a_lease_that_is_not_given_in_time_is_stolen() {
    let mut leases = table(2, RULES);
    let a = leases.join(at(0)).unwrap();
    leases.balance(a, at(0));
    let b = leases.join(at(0)).unwrap();
    leases.balance(b, at(0));
    for second in 1..30 {
        leases.renew(a, at(second));
        leases.renew(b, at(second));
        leases.balance(b, at(second));
    }
    assert_eq!(held(&leases, b), [0; 0]);
    assert!(leases.next_change(b, at(29)) <= at(30));
    leases.renew(a, at(30));
    leases.renew(b, at(30));
    leases.balance(b, at(30));
    assert_eq!(held(&leases, b), [1]);
    assert_eq!(leases.stats().stolen, 1);
}

#[test]
fn without_time_for_a_hand_off_a_lease_is_stolen_at_once() {
    let mut leases = table(
        2,
        Rules {
            hand_off_timeout: Duration::ZERO,
            ..RULES
        },
    );
    let a = leases.join(at(0)).unwrap();
    leases.balance(a, at(0));
    let b = leases.join(at(0)).unwrap();
    leases.balance(b, at(0));
    assert_eq!((held(&leases, a), held(&leases, b)), (vec![0], vec![1]));
}

#[test]
fn a_request_of_a_worker_that_died_is_forgotten() {
    let mut leases = table(2, RULES);
    let a = leases.join(at(0)).unwrap();
    leases.balance(a, at(0));
    let b = leases.join(at(0)).unwrap();
    leases.balance(b, at(0));
    leases.renew(a, at(9));
    leases.renew(a, at(12));
    leases.balance(a, at(12));
    assert!(!leases.is_wanted(shard(1)));
    // Released to nobody, had it been given at that moment.
    let b = leases.join(at(12)).unwrap();
    leases.balance(b, at(12));
    leases.renew(a, at(20));
    leases.renew(a, at(23));
    give(&mut leases, a, at(23));
    assert_eq!(leases.get(shard(1)).unwrap().owner, None);
}

#[test]
fn balance_comes_to_rest_with_loads_that_differ_by_at_most_one_lease() {
    for shards in 0..=13_u32 {
        for count in 1..=5_usize {
            let mut leases = table(shards, RULES);
            let first = leases.join(at(0)).unwrap();
            leases.balance(first, at(0));
            let mut workers = vec![first];
            while workers.len() < count {
                workers.push(leases.join(at(0)).unwrap());
            }
            settle(&mut leases, &workers, at(1));
            let loads: Vec<_> = workers
                .iter()
                .map(|worker| held(&leases, *worker).len())
                .collect();
            let share = (shards as usize).div_ceil(count);
            assert_eq!(loads.iter().sum::<usize>(), shards as usize);
            let (most, least) = (loads.iter().max().unwrap(), loads.iter().min().unwrap());
            assert!(
                most - least <= 1 && *most <= share,
                "{shards} on {count}: {loads:?}"
            );
        }
    }
}

#[test]
fn an_expired_lease_is_taken_over_from_its_checkpoint() {
    let mut leases = table(1, RULES);
    let a = leases.join(at(0)).unwrap();
    leases.balance(a, at(0));
    let first = generation(&leases, 0);
    leases
        .checkpoint(a, shard(0), first, Mark::Record(record(0, 41)), at(1))
        .unwrap();
    let b = leases.join(at(2)).unwrap();
    leases.balance(b, at(2));
    assert_eq!(leases.next_change(b, at(2)), at(11));
    leases.renew(b, at(10));
    leases.balance(b, at(10));
    assert_eq!(held(&leases, b), [0; 0]);
    leases.renew(b, at(11));
    leases.balance(b, at(11));
    assert_eq!(held(&leases, b), [0]);
    assert_eq!(
        leases.get(shard(0)).unwrap().checkpoint,
        Checkpoint::at(record(0, 41))
    );
    assert!(generation(&leases, 0) > first);
    assert_eq!(leases.stats().taken_over, 1);
}

#[test]
fn renewing_keeps_a_lease_and_counts() {
    let mut leases = table(1, RULES);
    let a = leases.join(at(0)).unwrap();
    leases.balance(a, at(0));
    let b = leases.join(at(0)).unwrap();
    let counter = leases.get(shard(0)).unwrap().counter;
    for second in 1..60 {
        leases.renew(a, at(second));
        leases.renew(b, at(second));
        leases.balance(b, at(second));
    }
    assert_eq!(held(&leases, a), [0]);
    let lease = leases.get(shard(0)).unwrap();
    assert_eq!((lease.counter, lease.renewed), (counter + 59, at(59)));
}

#[test]
fn an_expired_lease_that_nobody_took_is_still_its_owners() {
    let mut leases = table(1, RULES);
    let a = leases.join(at(0)).unwrap();
    leases.balance(a, at(0));
    let held = generation(&leases, 0);
    leases
        .checkpoint(a, shard(0), held, Mark::Record(record(0, 1)), at(500))
        .unwrap();
    assert_eq!(leases.get(shard(0)).unwrap().renewed, at(500));
    assert!(leases.holds(a, shard(0), held));
}

#[test]
fn a_zombies_checkpoint_is_refused_and_changes_nothing() {
    let mut leases = table(1, RULES);
    let a = leases.join(at(0)).unwrap();
    leases.balance(a, at(0));
    let old = generation(&leases, 0);
    let b = leases.join(at(10)).unwrap();
    leases.balance(b, at(10));
    let before = leases.get(shard(0)).unwrap().clone();
    for mark in [
        Mark::Record(record(0, 5)),
        Mark::Part(record(0, 5), 1),
        Mark::End,
    ] {
        assert_eq!(
            leases.checkpoint(a, shard(0), old, mark, at(11)),
            Err(CheckpointError::LeaseLost { shard_id: shard(0) })
        );
    }
    assert!(!leases.release(a, shard(0), old, at(11)));
    leases.renew(a, at(11));
    assert_eq!(leases.get(shard(0)), Some(&before));
    assert_eq!(leases.stats().refused, 3);
}

#[test]
fn an_old_generation_of_the_same_worker_is_refused_too() {
    let mut leases = table(1, RULES);
    let a = leases.join(at(0)).unwrap();
    leases.balance(a, at(0));
    let old = generation(&leases, 0);
    assert!(leases.release(a, shard(0), old, at(1)));
    leases.balance(a, at(1));
    assert_eq!(held(&leases, a), [0]);
    assert!(matches!(
        leases.checkpoint(a, shard(0), old, Mark::Record(record(0, 5)), at(2)),
        Err(CheckpointError::LeaseLost { .. })
    ));
}

#[test]
fn a_checkpoint_never_moves_backwards() {
    let mut leases = table(1, RULES);
    let a = leases.join(at(0)).unwrap();
    leases.balance(a, at(0));
    let held = generation(&leases, 0);
    let mut mark = |mark| leases.checkpoint(a, shard(0), held, mark, at(1));
    mark(Mark::Part(record(0, 7), 3)).unwrap();
    mark(Mark::Part(record(0, 7), 3)).unwrap();
    for earlier in [
        Mark::Part(record(0, 7), 2),
        Mark::Record(record(0, 6)),
        Mark::Part(record(0, 6), 9),
    ] {
        assert_eq!(
            mark(earlier),
            Err(CheckpointError::Backwards {
                given: earlier.checkpoint(),
                current: Mark::Part(record(0, 7), 3).checkpoint(),
            })
        );
    }
    // The whole of a record is after each of its parts.
    mark(Mark::Record(record(0, 7))).unwrap();
    assert!(mark(Mark::Part(record(0, 7), 9)).is_err());
    mark(Mark::Record(record(0, 8))).unwrap();
}

#[test]
fn a_checkpoint_of_another_shard_is_refused() {
    let mut leases = table(2, RULES);
    let a = leases.join(at(0)).unwrap();
    leases.balance(a, at(0));
    let held = generation(&leases, 0);
    let sequence_number = record(1, 3);
    assert_eq!(
        leases.checkpoint(a, shard(0), held, Mark::Record(sequence_number), at(1)),
        Err(WrongSequenceNumber::OtherShard {
            sequence_number,
            shard: shard(0)
        }
        .into())
    );
    assert_eq!(
        leases.get(shard(0)).unwrap().checkpoint,
        Checkpoint::TrimHorizon
    );
}

#[test]
fn children_can_be_taken_only_when_all_parents_are_finished() {
    let mut leases = Leases::new(RULES);
    leases.follow(
        [
            listed(0, &[]),
            listed(1, &[]),
            listed(2, &[0, 1]),
            listed(3, &[2]),
        ],
        at(0),
    );
    let a = leases.join(at(0)).unwrap();
    leases.balance(a, at(0));
    assert_eq!(held(&leases, a), [0, 1]);
    let end = |leases: &mut Leases, of| {
        let generation = generation(leases, of);
        leases
            .checkpoint(a, shard(of), generation, Mark::End, at(1))
            .unwrap();
        leases.balance(a, at(1));
    };
    end(&mut leases, 0);
    assert_eq!(held(&leases, a), [1]);
    end(&mut leases, 1);
    assert_eq!(held(&leases, a), [2]);
    end(&mut leases, 2);
    assert_eq!(held(&leases, a), [3]);
    assert_eq!(leases.stats().finished, 3);
}

#[test]
fn a_blocked_shard_counts_in_nobodys_share() {
    let mut leases = Leases::new(RULES);
    let shards = [
        listed(0, &[]),
        listed(1, &[]),
        listed(2, &[0]),
        listed(3, &[0]),
    ];
    leases.follow(shards, at(0));
    let a = leases.join(at(0)).unwrap();
    let b = leases.join(at(0)).unwrap();
    leases.balance(a, at(0));
    leases.balance(b, at(0));
    assert_eq!((held(&leases, a), held(&leases, b)), (vec![0], vec![1]));
}

#[test]
fn a_finished_lease_is_kept_while_its_shard_is_listed() {
    let mut leases = Leases::new(RULES);
    let shards = [listed(0, &[]), listed(1, &[0]), listed(2, &[0])];
    leases.follow(shards.clone(), at(0));
    let a = leases.join(at(0)).unwrap();
    leases.balance(a, at(0));
    let held = generation(&leases, 0);
    leases
        .checkpoint(a, shard(0), held, Mark::End, at(1))
        .unwrap();
    leases.follow(shards.clone(), at(2));
    assert!(leases.get(shard(0)).unwrap().is_finished());
    leases.follow(shards[1..].to_vec(), at(3));
    assert_eq!(leases.get(shard(0)), None);
    assert_eq!(leases.stats().abandoned, 0);
    assert_eq!(
        leases.checkpoint(a, shard(0), held, Mark::End, at(4)),
        Err(CheckpointError::LeaseLost { shard_id: shard(0) })
    );
}

#[test]
fn a_shard_that_expired_unread_blocks_its_children_no_longer() {
    let mut leases = Leases::new(RULES);
    let shards = [listed(0, &[]), listed(1, &[0])];
    leases.follow(shards.clone(), at(0));
    let a = leases.join(at(0)).unwrap();
    leases.balance(a, at(0));
    // While somebody holds it, it is its owner's to finish.
    leases.follow(shards[1..].to_vec(), at(1));
    leases.balance(a, at(1));
    assert_eq!(held(&leases, a), [0]);
    leases.follow(shards[1..].to_vec(), at(10));
    leases.renew(a, at(10));
    leases.balance(a, at(10));
    assert_eq!(held(&leases, a), [1]);
    assert_eq!(leases.stats().abandoned, 1);
}

#[test]
fn a_worker_that_leaves_gives_its_leases_back() {
    let mut leases = table(2, RULES);
    let a = leases.join(at(0)).unwrap();
    leases.balance(a, at(0));
    let b = leases.join(at(0)).unwrap();
    leases.leave(a);
    assert!(leases.is_wanted(shard(0)) && leases.is_wanted(shard(1)));
    leases.balance(a, at(1));
    for of in [0, 1] {
        let generation = generation(&leases, of);
        assert!(leases.release(a, shard(of), generation, at(1)));
    }
    assert_eq!(leases.live_workers(at(1)).collect::<Vec<_>>(), [b]);
    leases.balance(b, at(1));
    assert_eq!(held(&leases, b), [0, 1]);
}

#[test]
fn dead_workers_make_room_for_new_ones() {
    let mut leases = table(
        0,
        Rules {
            max_workers: 2,
            ..RULES
        },
    );
    leases.join(at(0)).unwrap();
    leases.join(at(5)).unwrap();
    assert_eq!(leases.join(at(9)).unwrap_err().limit, 2);
    let c = leases.join(at(10)).unwrap();
    assert_eq!(c.number(), 2);
}

#[test]
fn a_share_that_its_worker_never_takes_is_taken_in_the_end() {
    let mut leases = table(4, RULES);
    let a = leases.join(at(0)).unwrap();
    let idle = leases.join(at(0)).unwrap();
    leases.balance(a, at(0));
    assert_eq!(held(&leases, a), [0, 1]);
    for second in 1..30 {
        leases.renew(a, at(second));
        leases.renew(idle, at(second));
        leases.balance(a, at(second));
        assert_eq!(held(&leases, a), [0, 1]);
    }
    assert_eq!(leases.next_change(a, at(29)), at(30));
    leases.renew(a, at(30));
    leases.renew(idle, at(30));
    leases.balance(a, at(30));
    assert_eq!(held(&leases, a), [0, 1, 2, 3]);
}

#[test]
fn the_same_history_gives_the_same_table() {
    let play = || {
        let mut leases = table(7, RULES);
        let mut workers = Vec::new();
        for second in 0..40_u64 {
            if second % 9 == 0 {
                workers.push(leases.join(at(second)).unwrap());
            }
            for (index, worker) in workers.iter().enumerate() {
                if !(second + index as u64).is_multiple_of(3) {
                    leases.renew(*worker, at(second));
                    give(&mut leases, *worker, at(second));
                    leases.balance(*worker, at(second));
                }
            }
        }
        leases.iter().cloned().collect::<Vec<_>>()
    };
    assert_eq!(play(), play());
}
