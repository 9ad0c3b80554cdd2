//! What holds on every history.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Action {
    Split { shard: usize, key: u128 },
    SplitMiddle { shard: usize },
    Merge { shard: usize, swapped: bool },
    Count { target: u32 },
    Expire { retention: u64 },
}

fn action() -> impl Strategy<Value = Action> {
    let shard = || any::<prop::sample::Index>().prop_map(|index| index.index(1 << 20));
    prop_oneof![
        3 => (shard(), any::<u128>()).prop_map(|(shard, key)| Action::Split { shard, key }),
        3 => shard().prop_map(|shard| Action::SplitMiddle { shard }),
        4 => (shard(), any::<bool>()).prop_map(|(shard, swapped)| Action::Merge { shard, swapped }),
        2 => (1..12_u32).prop_map(|target| Action::Count { target }),
        1 => (1..200_u64).prop_map(|retention| Action::Expire { retention }),
    ]
}

/// Every shard that ever was, with its ranges and times, in the plainest way.
#[derive(Debug, Default)]
struct Oracle {
    all: Vec<Shard>,
    horizon: u64,
}

impl Oracle {
    /// Learns what changed by looking at the whole machine.
    fn look(&mut self, shards: &Shards) {
        for shard in shards.iter() {
            match self.all.iter_mut().find(|known| known.id == shard.id) {
                Some(known) => *known = shard.clone(),
                None => self.all.push(shard.clone()),
            }
        }
    }

    fn list(&self, wanted: impl Fn(&Shard) -> bool) -> Vec<ShardId> {
        let retained = |s: &Shard| s.closed.is_none_or(|c| c > at(self.horizon));
        self.all
            .iter()
            .filter(|s| retained(s) && wanted(s))
            .map(|s| s.id)
            .collect()
    }
}

/// Collects a listing page by page.
fn listed(shards: &Shards, now: u64, selection: Selection, page: usize) -> Vec<ShardId> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let listed = shards.list(at(now), selection, after, page).unwrap();
        found.extend(listed.shards.iter().map(|s| s.id));
        match listed.next {
            Some(next) => after = Some(next),
            None => return found,
        }
    }
}

fn run(shards: &mut Shards, now: u64, action: &Action) {
    let open: Vec<_> = shards.open().cloned().collect();
    match *action {
        Action::Split { shard, key } => {
            let shard = &open[shard % open.len()];
            let (key, whole) = (HashKey::from_u128(key), shard.range);
            let done = shards.split(at(now), shard.id, key);
            assert_eq!(done.is_ok(), whole.contains(key) && key != whole.start);
        }
        Action::SplitMiddle { shard } => {
            let shard = &open[shard % open.len()];
            if let Some(key) = shard.range.middle() {
                shards.split(at(now), shard.id, key).unwrap();
            }
        }
        Action::Merge { shard, swapped } => {
            let lower = shard % open.len();
            if let Some(upper) = open.get(lower + 1) {
                let pair = [open[lower].id, upper.id];
                let [a, b] = if swapped { [pair[1], pair[0]] } else { pair };
                shards.merge(at(now), a, b).unwrap();
            }
        }
        Action::Count { target } => {
            shards.update_count(at(now), target).unwrap();
            assert_eq!(shards.open_count(), target);
            let even = u128::MAX / u128::from(target);
            for shard in shards.open() {
                let width = shard.range.end.as_u128() - shard.range.start.as_u128();
                assert!(width.abs_diff(even) <= 1 << 34);
            }
        }
        Action::Expire { .. } => {}
    }
}

proptest! {
    #[test]
    fn shards_partition_the_space_and_listings_agree_with_an_oracle(
        first in 1..6_u32,
        actions in prop::collection::vec((0..30_u64, action()), 0..40),
        keys in prop::collection::vec("[a-z]{1,8}", 4),
        page in 1..5_usize,
    ) {
        let mut shards = provisioned(first);
        let mut oracle = Oracle::default();
        oracle.look(&shards);
        let mut now = 1;
        for (wait, action) in &actions {
            now += wait;
            run(&mut shards, now, action);
            oracle.look(&shards);
            if let Action::Expire { retention } = action {
                oracle.horizon = oracle.horizon.max(now.saturating_sub(*retention));
                shards.expire(at(now), secs(*retention));
            }
            shards.check_invariants();

            let routes = shards.routes(|shard| shard.id);
            for key in &keys {
                let key = HashKey::of(key);
                let takers: Vec<_> = oracle
                    .list(|s| s.is_open() && s.range.contains(key));
                prop_assert_eq!(&takers[..], &[shards.route(key)]);
                prop_assert_eq!(*routes.route(key), takers[0]);
            }

            let horizon = at(oracle.horizon);
            let open_at = |s: &Shard, t: Instant| s.opened <= t && s.closed.is_none_or(|c| c >= t);
            let then = at(now / 2).max(horizon);
            let some = id(u32::try_from(now % 7).unwrap());
            let cases = [
                (Selection::All, oracle.list(|_| true)),
                (Selection::After(some), oracle.list(|s| s.id > some)),
                (Selection::AtLatest, oracle.list(Shard::is_open)),
                (Selection::AtTrimHorizon, oracle.list(|s| open_at(s, horizon))),
                (Selection::At(at(now / 2)), oracle.list(|s| open_at(s, then))),
                (Selection::From(at(now / 2)), oracle.list(|s| s.closed.is_none_or(|c| c >= then))),
            ];
            for (selection, expected) in cases {
                prop_assert_eq!(listed(&shards, now, selection, page), expected, "{:?}", selection);
            }
        }
    }

    #[test]
    fn every_key_finds_its_way_from_a_parent_to_one_child(
        first in 1..4_u32,
        actions in prop::collection::vec(action(), 1..30),
        key in any::<u128>(),
    ) {
        let key = HashKey::from_u128(key);
        let mut shards = provisioned(first);
        let start = shards.route(key);
        for (now, action) in actions.iter().enumerate() {
            run(&mut shards, now as u64, action);
        }
        let mut shard = start;
        loop {
            let next: Vec<_> = shards
                .children(shard)
                .into_iter()
                .filter(|child| child.hash_range.contains(key))
                .collect();
            if next.is_empty() {
                break;
            }
            prop_assert_eq!(next.len(), 1);
            prop_assert!(next[0].parents.contains(&shard));
            // Numbers of the child are above those of the parent, whatever the positions.
            let salt = Salt::new(1);
            prop_assert!(
                SequenceNumber::new(next[0].id, salt, 0)
                    > SequenceNumber::new(shard, salt, u64::MAX)
            );
            shard = next[0].id;
        }
        prop_assert_eq!(shard, shards.route(key));
    }

    #[test]
    fn the_same_history_gives_the_same_shards(
        actions in prop::collection::vec(action(), 0..30),
    ) {
        let mut twins = [provisioned(3), provisioned(3)];
        for shards in &mut twins {
            for (now, action) in actions.iter().enumerate() {
                run(shards, now as u64, action);
            }
        }
        prop_assert_eq!(&twins[0].retained, &twins[1].retained);
    }
}
