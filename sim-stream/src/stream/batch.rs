//! Putting many records by one call.

use std::collections::BTreeMap;

use sim_core::sync::Arc;
use sim_core::time::Instant;

use super::Stream;
use super::put::Route;
use super::shared::{Shard, Shared, Stored, count};
use crate::error::{BatchError, BatchRefusal, PutError, Refusal};
use crate::message::{PartitionKey, Placed, Record, ShardId};

/// What became of each record of a batch, in order.
type Results<T> = Vec<Result<Placed, PutError<T>>>;

impl<T: Send + Sync + 'static> Stream<T> {
    /// Puts each record for itself and reports on each, in order: `PutRecords`. One that is refused does not hold
    /// up the others, so the order of a key is kept only among those that are taken.
    ///
    /// # Errors
    /// [`BatchError`] with all records when the batch is empty, too long or too large, or the stream is closed; else
    /// each record's own.
    pub fn try_put_batch<I>(
        &self,
        records: I,
    ) -> Result<Vec<Result<Placed, PutError<T>>>, BatchError<T>>
    where
        I: IntoIterator,
        I::Item: Into<Record<T>>,
    {
        self.shared()
            .put_batch(records.into_iter().map(Into::into).collect())
    }

    /// Puts each record, waiting where [`put`](Self::put) would, and reports on each, in order.
    ///
    /// # Errors
    /// As [`try_put_batch`](Self::try_put_batch), but for what waiting cures.
    ///
    /// # Cancel safety
    /// A future dropped in between has put a prefix of what had to wait, and drops the rest.
    pub async fn put_batch<I>(
        &self,
        records: I,
    ) -> Result<Vec<Result<Placed, PutError<T>>>, BatchError<T>>
    where
        I: IntoIterator,
        I::Item: Into<Record<T>>,
    {
        let shared = self.shared();
        let Batch { records, bytes } =
            shared.begin_batch(records.into_iter().map(Into::into).collect())?;
        let mut results = Vec::with_capacity(records.len());
        for record in records {
            results.push(self.put(record).await);
        }
        shared.end_batch(&results, &bytes);
        Ok(results)
    }

    /// Puts each record, blocking the thread where [`put`](Self::put) would wait, and reports on each, in order.
    ///
    /// # Errors
    /// As [`put_batch`](Self::put_batch).
    pub fn put_batch_blocking<I>(
        &self,
        records: I,
    ) -> Result<Vec<Result<Placed, PutError<T>>>, BatchError<T>>
    where
        I: IntoIterator,
        I::Item: Into<Record<T>>,
    {
        let shared = self.shared();
        let Batch { records, bytes } =
            shared.begin_batch(records.into_iter().map(Into::into).collect())?;
        let results: Vec<_> = records
            .into_iter()
            .map(|record| self.put_blocking(record))
            .collect();
        shared.end_batch(&results, &bytes);
        Ok(results)
    }
}

impl<T: Send + Sync + 'static> Shared<T> {
    /// Takes a batch or refuses it as a whole; its bytes come along.
    fn begin_batch(&self, records: Vec<Record<T>>) -> Result<Batch<T>, BatchError<T>> {
        self.counters.add(count::BATCHES, 1);
        let limits = &self.config.limits;
        let bytes: Vec<usize> = records
            .iter()
            .map(|record| {
                let key = record.key.as_ref().map_or("", PartitionKey::as_str);
                self.bytes_of(key, &record.value, &record.data)
            })
            .collect();
        let sum = bytes.iter().fold(0_usize, |sum, n| sum.saturating_add(*n));
        let reason = if records.is_empty() || records.len() > limits.batch_records {
            BatchRefusal::Records {
                records: records.len(),
                limit: limits.batch_records,
            }
        } else if sum > limits.batch_bytes {
            BatchRefusal::Bytes {
                bytes: sum,
                limit: limits.batch_bytes,
            }
        } else if self.table.load().is_closed() {
            BatchRefusal::Closed
        } else {
            return Ok(Batch { records, bytes });
        };
        Err(BatchError { records, reason })
    }

    fn end_batch(&self, results: &[Result<Placed, PutError<T>>], bytes: &[usize]) {
        let (mut taken, mut throttled, mut failed, mut brought) = (0, 0, 0, 0);
        for (result, bytes) in results.iter().zip(bytes) {
            match result {
                Ok(_) => {
                    taken += 1;
                    brought += *bytes as u64;
                }
                Err(error) if error.is_throttled() => throttled += 1,
                Err(_) => failed += 1,
            }
        }
        let counters = &self.counters;
        counters.add(count::BATCH_RECORDS, results.len() as u64);
        counters.add(count::BATCHES_TAKEN, u64::from(taken > 0));
        counters.add(count::BATCH_TAKEN, taken);
        counters.add(count::BATCH_THROTTLED, throttled);
        counters.add(count::BATCH_FAILED, failed);
        counters.add(count::BATCH_BYTES, brought);
    }

    fn put_batch(&self, records: Vec<Record<T>>) -> Result<Results<T>, BatchError<T>> {
        let Batch { records, bytes } = self.begin_batch(records)?;
        // Where each record may be refused for what those before it have used up, they go one by one.
        let results = if self.refuses_when_full || self.config.limits.throughput.is_some() {
            records.into_iter().map(|record| self.put(record)).collect()
        } else {
            self.put_together(records, &bytes)
        };
        self.end_batch(&results, &bytes);
        Ok(results)
    }

    /// Puts the records of each shard by one claim on its log.
    fn put_together(&self, records: Vec<Record<T>>, bytes: &[usize]) -> Results<T> {
        let now = self.clock.recent();
        let table = self.table.load_arc();
        // A stream that was closed meanwhile has no shard for them: they are refused one by one then.
        let places: Vec<Result<Option<ShardId>, Refusal>> = records
            .iter()
            .zip(bytes)
            .map(|(record, bytes)| {
                let route = Route::of(record);
                self.check(&route, *bytes)?;
                Ok(self.route(&table, &route).map(|shard| shard.id))
            })
            .collect();
        let shard = |id: Option<ShardId>| table.shard(id?);
        if let Some(Ok(id)) = places.first()
            && places.iter().all(|place| place.as_ref() == Ok(id))
        {
            return self.put_group(shard(*id), records, bytes.iter().sum(), now);
        }
        let mut results: Vec<Option<_>> = records.iter().map(|_| None).collect();
        let mut groups: BTreeMap<Option<ShardId>, Group<T>> = BTreeMap::new();
        for (index, (record, place)) in records.into_iter().zip(places).enumerate() {
            match place {
                Ok(id) => {
                    let group = groups.entry(id).or_default();
                    group.indices.push(index);
                    group.records.push(record);
                    group.bytes += bytes[index];
                }
                Err(reason) => {
                    self.count_refusal(&reason);
                    results[index] = Some(Err(PutError::new(record, reason)));
                }
            }
        }
        for (id, group) in groups {
            let put = self.put_group(shard(id), group.records, group.bytes, now);
            for (index, result) in group.indices.into_iter().zip(put) {
                results[index] = Some(result);
            }
        }
        results.into_iter().flatten().collect()
    }

    /// Puts records of one shard, in order.
    fn put_group(
        &self,
        shard: Option<&Arc<Shard<T>>>,
        records: Vec<Record<T>>,
        bytes: usize,
        now: Instant,
    ) -> Results<T> {
        let Some(shard) = shard else {
            return records.into_iter().map(|record| self.put(record)).collect();
        };
        let count = records.len();
        let (heads, values): (Vec<Record<()>>, Vec<T>) =
            records.into_iter().map(Record::split).unzip();
        let items = values
            .into_iter()
            .zip(&heads)
            .map(|(value, head)| {
                let key = head.key.as_ref().map_or("", PartitionKey::as_str);
                (Stored::new(now, key, value), [key.as_bytes(), &*head.data])
            })
            .collect();
        let back = match shard.log.append_batch(items) {
            Ok(positions) => {
                let last = positions.end.saturating_sub(1);
                self.appended(shard, last, count as u64, bytes, now);
                return positions
                    .map(|position| {
                        Ok(Placed {
                            shard_id: shard.id,
                            sequence_number: shard.sequence_number(position),
                        })
                    })
                    .collect();
            }
            // The shard was closed in between, or they are too large together: one by one, then.
            Err(error) => error.into_value(),
        };
        let values: Vec<T> = back.into_iter().map(|(stored, _)| stored.value).collect();
        heads
            .into_iter()
            .zip(values)
            .map(|(head, value)| self.put(head.map(|()| value)))
            .collect()
    }
}

/// The records of a batch that go to one shard, and where their results go.
struct Group<T> {
    indices: Vec<usize>,
    records: Vec<Record<T>>,
    bytes: usize,
}

impl<T> Default for Group<T> {
    fn default() -> Self {
        Self {
            indices: Vec::new(),
            records: Vec::new(),
            bytes: 0,
        }
    }
}

/// A batch that is not refused as a whole, and the bytes of each record.
struct Batch<T> {
    records: Vec<Record<T>>,
    bytes: Vec<usize>,
}
