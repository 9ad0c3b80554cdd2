//! Random histories of puts, reshards and time, against a plain list of what was put.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use sim_core::random::Random;
use sim_stream::{Read, ReadError, Reader, ShardFilter, StartingPosition, Stream};

use crate::rig::{hours, of, small, stream};

const KEYS: u32 = 5;
/// Their hashes lie in both halves of the space.
const NAMES: [&str; KEYS as usize] = ["a", "b", "c", "d", "e"];
const RETENTION: Duration = Duration::from_secs(24 * 3_600);

#[derive(Debug, Clone)]
enum Step {
    Put {
        key: u32,
    },
    Batch {
        records: u32,
    },
    Split {
        pick: u64,
    },
    Merge {
        pick: u64,
    },
    Count {
        shards: u32,
    },
    Advance {
        minutes: u64,
    },
    /// The slow reader reads a little.
    Read {
        max: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..KEYS).prop_map(|key| Step::Put { key }),
        3 => (1..60_u32).prop_map(|records| Step::Batch { records }),
        2 => any::<u64>().prop_map(|pick| Step::Split { pick }),
        2 => any::<u64>().prop_map(|pick| Step::Merge { pick }),
        1 => (1..6_u32).prop_map(|shards| Step::Count { shards }),
        3 => (1..600_u64).prop_map(|minutes| Step::Advance { minutes }),
        2 => (1..40_usize).prop_map(|max| Step::Read { max }),
    ]
}

/// What one reader has seen.
#[derive(Default)]
struct Seen {
    /// The last number of each key.
    last: BTreeMap<u32, u32>,
    read: u64,
    lost: u64,
    /// Whether whole shards were lost, of which nobody counts the records.
    is_vague: bool,
}

impl Seen {
    /// Reads up to `runs` runs; the numbers of each key must come in order, and without a gap where none was told.
    fn read(
        &mut self,
        reader: &mut Reader<u32>,
        max: usize,
        runs: usize,
    ) -> Result<(), TestCaseError> {
        for _ in 0..runs {
            match reader.try_read(Read::at_most(max)) {
                Ok(None) => break,
                Ok(Some(records)) => {
                    for record in &records {
                        let (key, number) = (record.value() % KEYS, record.value() / KEYS);
                        let next = self.last.get(&key).map_or(0, |last| last + 1);
                        prop_assert!(number >= next, "key {key}: {number} after {next}");
                        let told = self.lost > 0 || self.is_vague;
                        prop_assert!(number == next || told, "key {key}: a silent gap");
                        self.last.insert(key, number);
                        self.read += 1;
                    }
                }
                Err(ReadError::Trimmed { lost, .. }) => self.lost += lost,
                Err(ReadError::UnknownShard { .. }) => self.is_vague = true,
                Err(error) => prop_assert!(false, "{error}"),
            }
        }
        Ok(())
    }
}

/// Splits, merges or counts anew; what the stream refuses changes nothing.
fn reshard(stream: &Stream<u32>, step: &Step) {
    let filter = Some(ShardFilter::AtLatest);
    let mut open = stream.list_shards(filter, None, 100).unwrap().shards;
    open.sort_by_key(|shard| shard.hash_range.start);
    match step {
        Step::Split { pick } if open.len() < 8 => {
            let shard = &open[(pick % open.len() as u64) as usize];
            stream.split_evenly(shard.id).unwrap();
        }
        Step::Merge { pick } if open.len() > 1 => {
            let index = (pick % (open.len() as u64 - 1)) as usize;
            stream.merge(open[index].id, open[index + 1].id).unwrap();
        }
        Step::Count { shards } => stream.update_shard_count(*shards).unwrap(),
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn no_history_reorders_a_key_repeats_a_record_or_loses_one_in_silence(
        steps in prop::collection::vec(step(), 1..120),
        seed: u64,
    ) {
        let (stream, hand) = stream(small(2));
        let mut quick = stream.reader(StartingPosition::TrimHorizon).unwrap();
        let mut slow = stream.reader(StartingPosition::TrimHorizon).unwrap();
        let (mut quick_seen, mut slow_seen) = (Seen::default(), Seen::default());
        let mut random = Random::new(seed);
        // For each key, when its records were put.
        let mut put: Vec<Vec<sim_core::time::Instant>> = vec![Vec::new(); KEYS as usize];
        // Each reader has read something of each shard: from then on all that it misses is lost to it.
        let first = (0..KEYS).map(|key| Step::Put { key });
        let steps = first.chain([Step::Read { max: 100 }]).chain(steps);
        for step in steps {
            let mut next = |key: u32| {
                let times = &mut put[key as usize];
                times.push(hand.now());
                of(NAMES[key as usize], (times.len() as u32 - 1) * KEYS + key)
            };
            match step {
                Step::Put { key } => drop(stream.try_put(next(key)).unwrap()),
                Step::Batch { records } => {
                    let batch: Vec<_> = (0..records)
                        .map(|_| next(random.below(KEYS.into()) as u32))
                        .collect();
                    let results = stream.try_put_batch(batch).unwrap();
                    prop_assert!(results.iter().all(Result::is_ok));
                }
                Step::Advance { minutes } => hand.advance(Duration::from_secs(60 * minutes)),
                Step::Read { max } => slow_seen.read(&mut slow, max, 2)?,
                reshards => reshard(&stream, &reshards),
            }
            quick_seen.read(&mut quick, 10_000, usize::MAX)?;
        }
        let total: u64 = put.iter().map(|times| times.len() as u64).sum();
        prop_assert_eq!((quick_seen.read, quick_seen.lost, quick_seen.is_vague), (total, 0, false));

        slow_seen.read(&mut slow, 10_000, usize::MAX)?;
        for (key, times) in (0..).zip(&put) {
            if times.last().is_some_and(|last| *last + RETENTION > hand.now()) {
                prop_assert_eq!(slow_seen.last.get(&key), Some(&(times.len() as u32 - 1)));
            }
        }
        prop_assert!(slow_seen.read + slow_seen.lost <= total);
        prop_assert!(slow_seen.read + slow_seen.lost == total || slow_seen.is_vague, "{} {} {total}", slow_seen.read, slow_seen.lost);

        let stats = stream.stats();
        prop_assert_eq!(stats.incoming_records, total);
        prop_assert_eq!(stats.records + stats.expired_records, total);
        let young = put.iter().flatten().filter(|at| **at + RETENTION > hand.now()).count();
        prop_assert_eq!(stats.records, young as u64);
        hand.advance(hours(24));
        prop_assert_eq!(stream.stats().records, 0);
    }
}
