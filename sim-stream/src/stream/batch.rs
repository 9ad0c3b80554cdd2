//! Putting many records by one call.

use super::Stream;
use super::put::Route;
use super::shared::{Shared, Stored, count};
use crate::error::{BatchError, BatchRefusal, PutError};
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
        let mut results: Vec<Option<_>> = records.iter().map(|_| None).collect();
        let mut places: Vec<(ShardId, usize)> = Vec::with_capacity(records.len());
        for (index, record) in records.iter().enumerate() {
            let route = Route::of(record);
            match self.check(&route, bytes[index]) {
                Ok(()) => {
                    // A stream that was closed meanwhile refuses them one by one below.
                    let shard = self.route(&table, &route);
                    places.push((shard.map_or(ShardId::MAX, |shard| shard.id), index));
                }
                Err(reason) => {
                    self.count_refusal(&reason);
                    results[index] = Some(reason);
                }
            }
        }
        let mut records: Vec<Option<Record<T>>> = records.into_iter().map(Some).collect();
        let mut results: Vec<Option<Result<Placed, PutError<T>>>> = results
            .into_iter()
            .zip(&mut records)
            .map(|(reason, record)| {
                Some(Err(PutError::new(
                    record.take_if(|_| reason.is_some())?,
                    reason?,
                )))
            })
            .collect();
        // Stable: the records of a shard keep their order.
        places.sort_by_key(|(shard, _)| *shard);
        for group in places.chunk_by(|a, b| a.0 == b.0) {
            let (heads, values): (Vec<Record<()>>, Vec<T>) = group
                .iter()
                .filter_map(|(_, index)| records[*index].take())
                .map(|record| {
                    let mut value = None;
                    let head = record.map(|v| value = Some(v));
                    (head, value)
                })
                .filter_map(|(head, value)| Some((head, value?)))
                .unzip();
            let mut back = values;
            if let Some(shard) = table.shard(group[0].0) {
                let items = back
                    .into_iter()
                    .zip(&heads)
                    .map(|(value, head)| {
                        let key = head.key.as_ref().map_or("", PartitionKey::as_str);
                        let stored = Stored::new(now, key, value);
                        (stored, [key.as_bytes(), &*head.data])
                    })
                    .collect();
                match shard.log.append_batch(items) {
                    Ok(positions) => {
                        let last = positions.end.saturating_sub(1);
                        let sum = group.iter().map(|(_, index)| bytes[*index]).sum();
                        for (position, (_, index)) in positions.zip(group) {
                            results[*index] = Some(Ok(Placed {
                                shard_id: shard.id,
                                sequence_number: shard.sequence_number(position),
                            }));
                        }
                        self.appended(shard, last, group.len() as u64, sum, now);
                        continue;
                    }
                    Err(error) => {
                        let items = error.into_value().into_iter();
                        back = items.map(|(stored, _)| stored.value).collect();
                    }
                }
            }
            // The shard was closed in between, or they are too large together.
            for ((value, head), (_, index)) in back.into_iter().zip(heads).zip(group) {
                results[*index] = Some(self.put(head.map(|()| value)));
            }
        }
        results.into_iter().flatten().collect()
    }
}

/// A batch that is not refused as a whole, and the bytes of each record.
struct Batch<T> {
    records: Vec<Record<T>>,
    bytes: Vec<usize>,
}
