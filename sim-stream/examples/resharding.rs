//! A stream whose shards are split and merged while it is written to and read: nothing is lost, and each key keeps its order.
//!
//! Run with `cargo run -p sim-stream --example resharding`.

use std::collections::BTreeMap;

use sim_stream::{
    ByteStream, PartitionKey, Read, ReadError, ShardFilter, StartingPosition, StreamConfig,
};

const HOSTS: u32 = 16;
const LINES: u32 = 5_000;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let logs = ByteStream::new(StreamConfig::new("logs").shards(1))?;

    // The reader starts with one shard, and follows what becomes of it.
    let mut reader = logs.reader(StartingPosition::TrimHorizon)?;
    let reading = tokio::spawn(async move {
        let mut next: BTreeMap<String, u32> = BTreeMap::new();
        let mut shards = std::collections::BTreeSet::new();
        loop {
            let records = match reader.read(Read::at_most(500)).await {
                Ok(records) => records,
                Err(ReadError::Closed) => return Ok((next, shards.len())),
                Err(error) => return Err(error),
            };
            shards.insert(records.shard_id());
            for record in &records {
                let expected = next.entry(record.partition_key().to_owned()).or_default();
                assert_eq!(record.data(), expected.to_string().as_bytes());
                *expected += 1;
            }
        }
    });

    // Each host numbers its lines.
    let hosts: Vec<_> = (0..HOSTS)
        .map(|host| PartitionKey::new(format!("host-{host}")))
        .collect::<Result<_, _>>()?;
    for line in 0..LINES {
        for host in &hosts {
            logs.try_put_bytes(host, line.to_string().as_bytes())?;
        }
        match line {
            1_000 => logs.update_shard_count(4)?,
            2_000 => {
                let open = logs.list_shards(Some(ShardFilter::AtLatest), None, 100)?;
                logs.split_evenly(open.shards[0].id)?;
            }
            3_000 => logs.update_shard_count(2)?,
            4_000 => {
                let open = logs.list_shards(Some(ShardFilter::AtLatest), None, 100)?;
                logs.merge(open.shards[0].id, open.shards[1].id)?;
            }
            _ => {}
        }
        if line % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    logs.close();

    let (read, shards) = reading.await??;
    assert_eq!(read.len(), HOSTS as usize);
    assert!(read.values().all(|lines| *lines == LINES));
    println!(
        "{} lines of {HOSTS} hosts, each in order, from {shards} shards; open at the end: {}",
        logs.stats().incoming_records,
        logs.shards().iter().filter(|shard| shard.is_open()).count(),
    );
    Ok(())
}
