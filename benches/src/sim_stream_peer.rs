//! sim-stream and the log under it as peers of the logs.
//!
//! *Warm* is how a log with retention lives: its chunks come back from a pool, since what was trimmed before gave them
//! there. The pool outlives the runs. *Fresh* memory costs its first page faults, as a rival's does.

use std::sync::OnceLock;

use sim_core::log::{Cursor, Log, LogConfig, Pool, Read as Step};
use sim_core::sync::Arc;
use sim_stream::{
    Cursor as StreamCursor, PartitionKey, Read, ShardId, StartingPosition, Stream, StreamConfig,
};

use crate::logs::{Reader, Record, Writer, run};
use crate::pattern::{Outcome, Peer};
use crate::payload::Tally;

/// Bytes of chunks that stay in the pool from run to run: more than a run's log.
const KEPT: usize = 320 << 20;

/// Records that a reader takes at once, at the most.
const TAKEN: usize = 1_024;

/// A pool that outlives the runs.
fn warm() -> Arc<Pool> {
    static POOL: OnceLock<Arc<Pool>> = OnceLock::new();
    Arc::clone(POOL.get_or_init(|| Pool::new(LogConfig::default(), KEPT)))
}

/// A pool that begins with nothing.
fn fresh() -> Arc<Pool> {
    Pool::new(LogConfig::default(), 0)
}

impl Writer for Log<()> {
    fn append(&mut self, record: Record) {
        assert!(
            Self::append(self, (), &[&record.0]).is_ok(),
            "the log is open"
        );
    }
}

impl Reader for Cursor<()> {
    fn read(&mut self, tally: &mut Tally) -> u64 {
        match self.batch(TAKEN, usize::MAX) {
            Step::Record(batch) => {
                for (_, (), bytes) in batch.iter() {
                    tally.add_number(Record::number_in(bytes));
                }
                batch.len() as u64
            }
            Step::Pending => 0,
            Step::End | Step::Trimmed { .. } => panic!("nothing is closed or trimmed here"),
        }
    }
}

/// A stream of one shard, and the key of what is put there.
struct Putter {
    stream: Stream<()>,
    key: PartitionKey,
}

impl Writer for Putter {
    fn append(&mut self, record: Record) {
        let put = self.stream.try_put_bytes(&self.key, &record.0);
        assert!(put.is_ok(), "the stream is open and has room");
    }
}

impl Reader for StreamCursor<()> {
    fn read(&mut self, tally: &mut Tally) -> u64 {
        let records = self
            .try_read(Read::at_most(TAKEN))
            .expect("nothing is trimmed here");
        for record in records.iter() {
            tally.add_number(Record::number_in(record.data()));
        }
        records.len() as u64
    }
}

fn log(writers: usize, readers: usize, pool: Arc<Pool>, count: u64) -> Outcome {
    let log = Log::<()>::new(pool);
    let readers = (0..readers).map(|_| log.cursor(0)).collect();
    run((vec![log; writers], readers), count)
}

fn stream(writers: usize, readers: usize, count: u64) -> Outcome {
    let config = StreamConfig {
        max_bytes: Some(4 << 30),
        ..StreamConfig::new("bench").shards(1)
    };
    let stream = Stream::<()>::builder(config)
        .pool(warm())
        .build()
        .expect("the configuration is sound");
    let cursor = || {
        let cursor = stream.cursor(ShardId::new(0), StartingPosition::TrimHorizon);
        cursor.expect("the first shard is there")
    };
    let readers = (0..readers).map(|_| cursor()).collect();
    let putter = || Putter {
        stream: stream.clone(),
        key: PartitionKey::new("key").expect("three letters are a key"),
    };
    run(((0..writers).map(|_| putter()).collect(), readers), count)
}

/// The peers for so many writers and readers.
#[must_use]
pub fn peers(writers: usize, readers: usize) -> Vec<Peer> {
    vec![
        Peer::new("sim-log", move |count| {
            log(writers, readers, fresh(), count)
        }),
        Peer::new("sim-log-warm", move |count| {
            log(writers, readers, warm(), count)
        }),
        Peer::new("sim-stream-warm", move |count| {
            stream(writers, readers, count)
        }),
    ]
}
