//! Putting a record, at once or waiting for room.

use sim_core::log::{AppendError, Log};
use sim_core::sync::Arc;
use sim_core::sync::atomic::Ordering;
use sim_core::time::Instant;
use sim_core::wait::{Attempt, Elapsed, until, until_blocking};

use super::Stream;
use super::shared::{Shard, Shared, Stored, Table, count};
use crate::config::RecordDistribution;
use crate::error::{PutError, Refusal};
use crate::message::{HashKey, PartitionKey, Placed, Record, SequenceNumber};

/// How often a put follows a reshard before it holds the next one up.
const OPTIMISTIC: usize = 4;

/// A record from this size on is a reason to look at the memory.
const LARGE: usize = 4 << 10;

/// Where a record is to go: a [`Record`] without what is stored.
#[derive(Clone, Copy)]
pub(crate) struct Route<'a> {
    key: Option<&'a str>,
    explicit: Option<HashKey>,
    after: Option<SequenceNumber>,
}

impl<'a> Route<'a> {
    pub(super) fn of<T>(record: &'a Record<T>) -> Self {
        Self {
            key: record.key.as_ref().map(PartitionKey::as_str),
            explicit: record.explicit_hash_key,
            after: record.after,
        }
    }
}

impl<T: Send + Sync + 'static> Stream<T> {
    /// Puts a record, or gives it back at once.
    ///
    /// # Errors
    /// [`PutError`] with the record and the [`Refusal`]. Nothing changed.
    #[inline]
    pub fn try_put(&self, record: impl Into<Record<T>>) -> Result<Placed, PutError<T>> {
        self.shared().put(record.into())
    }

    /// Puts a record, waiting while the stream is full or its shard throttled.
    ///
    /// # Errors
    /// [`PutError`] for what waiting does not cure.
    ///
    /// # Cancel safety
    /// The record is put in the poll that completes the future; a future dropped before drops it.
    pub async fn put(&self, record: impl Into<Record<T>>) -> Result<Placed, PutError<T>> {
        self.put_until(record, Instant::NEVER).await
    }

    /// Puts a record, waiting until a deadline while the stream is full or its shard throttled.
    ///
    /// # Errors
    /// [`PutError`]: at the deadline [`Refusal::Elapsed`], else what waiting does not cure.
    ///
    /// # Cancel safety
    /// The record is put in the poll that completes the future; a future dropped before drops it.
    pub async fn put_until(
        &self,
        record: impl Into<Record<T>>,
        deadline: Instant,
    ) -> Result<Placed, PutError<T>> {
        let shared = self.shared();
        let mut record = match shared.put_or_wait(record.into(), deadline) {
            Outcome::Done(outcome) => return outcome,
            Outcome::Full(record) => record,
            Outcome::Throttled(record, until) => {
                shared.clock.sleep_until(until).await;
                record
            }
        };
        loop {
            let mut slot = Some(record);
            let waited = until(&shared.space, &shared.clock, deadline, || {
                shared.attempt_put(&mut slot, deadline)
            })
            .await;
            match shared.waited(waited, slot) {
                Outcome::Done(outcome) => return outcome,
                Outcome::Full(back) => record = back,
                Outcome::Throttled(back, until) => {
                    shared.clock.sleep_until(until).await;
                    record = back;
                }
            }
        }
    }

    /// Puts a record, blocking the thread while the stream is full or its shard throttled.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn put_blocking(&self, record: impl Into<Record<T>>) -> Result<Placed, PutError<T>> {
        self.put_blocking_until(record, Instant::NEVER)
    }

    /// Puts a record, blocking the thread until a deadline while the stream is full or its shard throttled.
    ///
    /// # Errors
    /// As [`put_until`](Self::put_until).
    pub fn put_blocking_until(
        &self,
        record: impl Into<Record<T>>,
        deadline: Instant,
    ) -> Result<Placed, PutError<T>> {
        let shared = self.shared();
        let mut outcome = shared.put_or_wait(record.into(), deadline);
        loop {
            let record = match outcome {
                Outcome::Done(outcome) => return outcome,
                Outcome::Full(record) => record,
                Outcome::Throttled(record, until) => {
                    shared.clock.sleep_until_blocking(until);
                    record
                }
            };
            let mut slot = Some(record);
            let waited = until_blocking(&shared.space, &shared.clock, deadline, || {
                shared.attempt_put(&mut slot, deadline)
            });
            outcome = shared.waited(waited, slot);
        }
    }
}

impl Stream<()> {
    /// Puts bytes that are only borrowed, or refuses at once: nothing is allocated.
    ///
    /// # Errors
    /// The [`Refusal`]. Nothing changed.
    ///
    /// ```
    /// use sim_stream::{ByteStream, PartitionKey, StreamConfig};
    ///
    /// let stream = ByteStream::new(StreamConfig::new("lines"))?;
    /// let key = PartitionKey::new("host-1")?;
    /// stream.try_put_bytes(&key, b"GET / 200")?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn try_put_bytes(&self, key: &PartitionKey, data: &[u8]) -> Result<Placed, Refusal> {
        let route = Route {
            key: Some(key.as_str()),
            explicit: None,
            after: None,
        };
        let shared = self.shared();
        shared.place(route, (), data).map_err(|((), reason)| {
            shared.count_refusal(&reason);
            reason
        })
    }
}

/// What a put that may wait came to.
enum Outcome<T> {
    Done(Result<Placed, PutError<T>>),
    /// It waits for room.
    Full(Record<T>),
    /// It sleeps until then: each shard has a time of its own, so the waiters of the stream do not share it.
    Throttled(Record<T>, Instant),
}

impl<T: Send + Sync + 'static> Shared<T> {
    /// Puts a record at once. What is refused is counted.
    #[inline]
    pub(crate) fn put(&self, record: Record<T>) -> Result<Placed, PutError<T>> {
        self.put_uncounted(record)
            .inspect_err(|error| self.count_refusal(&error.reason))
    }

    #[inline]
    fn put_uncounted(&self, record: Record<T>) -> Result<Placed, PutError<T>> {
        let Record {
            key,
            explicit_hash_key,
            after,
            value,
            data,
        } = record;
        let route = Route {
            key: key.as_ref().map(PartitionKey::as_str),
            explicit: explicit_hash_key,
            after,
        };
        match self.place(route, value, &data) {
            Ok(placed) => Ok(placed),
            Err((value, reason)) => {
                let record = Record {
                    key,
                    explicit_hash_key,
                    after,
                    value,
                    data,
                };
                Err(PutError::new(record, reason))
            }
        }
    }

    #[inline]
    fn place(&self, route: Route<'_>, value: T, data: &[u8]) -> Result<Placed, (T, Refusal)> {
        let key = route.key.unwrap_or_default();
        let bytes = self.bytes_of(key, &value, data);
        if let Err(reason) = self.check(&route, bytes) {
            return Err((value, reason));
        }
        let mut now = self.clock.recent();
        if self.refuses_when_full
            && let Some(reason) = self.find_room(now)
        {
            return Err((value, reason));
        }
        let mut stored = Stored::new(now, key, value);
        for attempt in 0..=OPTIMISTIC {
            // The last attempt lets no reshard in between.
            let held = (attempt == OPTIMISTIC).then(|| self.control.lock());
            let table = self.table.load();
            let Some(shard) = self.route(&table, &route) else {
                return Err((stored.value, Refusal::Closed));
            };
            if let Err(refusal) = self.admit(&table, shard, now, bytes) {
                return Err((stored.value, refusal));
            }
            match shard.log.append(stored, &[key.as_bytes(), data]) {
                Ok(position) => {
                    drop(held);
                    self.appended(shard, position, 1, bytes, now);
                    return Ok(Placed {
                        shard_id: shard.id,
                        sequence_number: shard.sequence_number(position),
                    });
                }
                Err(AppendError::Closed(back)) => {
                    self.take_back(&table, shard, bytes);
                    stored = back;
                }
                Err(error) => {
                    let limit = Log::<Stored<T>>::TAIL_LIMIT;
                    let value = error.into_value().value;
                    return Err((value, Refusal::TooLarge { bytes, limit }));
                }
            }
            drop(table);
            // Whoever reshards holds this until the new table stands.
            drop(held.unwrap_or_else(|| self.control.lock()));
            // That may have taken a while: the record arrives now.
            now = self.clock.recent();
            stored.arrived = now;
        }
        // With the lock held, the shards of the table are open or the stream is closed.
        Err((stored.value, Refusal::Closed))
    }

    #[inline]
    pub(super) fn route<'a>(
        &self,
        table: &'a Table<T>,
        route: &Route<'_>,
    ) -> Option<&'a Arc<Shard<T>>> {
        if self.config.distribution == RecordDistribution::Auto {
            let open = table.open();
            let turn = self.turn.fetch_add(1, Ordering::Relaxed);
            return open.get(usize::try_from(turn).unwrap_or(0).checked_rem(open.len())?);
        }
        table.route(|| {
            route
                .explicit
                .unwrap_or_else(|| self.config.hash.of(route.key.unwrap_or_default()))
        })
    }

    #[inline]
    pub(super) fn bytes_of(&self, key: &str, value: &T, data: &[u8]) -> usize {
        let measured = self.size.map_or(0, |size| size(value));
        key.len()
            .saturating_add(data.len())
            .saturating_add(measured)
    }

    #[inline]
    pub(super) fn check(&self, route: &Route<'_>, bytes: usize) -> Result<(), Refusal> {
        let limit = self.max_record_bytes.load(Ordering::Relaxed);
        if bytes as u64 > limit {
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            return Err(Refusal::TooLarge { bytes, limit });
        }
        if route.key.is_none() && self.config.distribution == RecordDistribution::UserPartitionKey {
            return Err(Refusal::MissingKey);
        }
        if let Some(number) = route.after {
            self.check_given(number)?;
        }
        Ok(())
    }

    /// What follows every append of `records` records that end at `position`.
    #[inline]
    pub(crate) fn appended(
        &self,
        shard: &Arc<Shard<T>>,
        position: u64,
        records: u64,
        bytes: usize,
        now: Instant,
    ) {
        shard.counters.add(count::IN_BYTES, bytes as u64);
        shard.arrivals.notify_all();
        self.tell_all();
        let crossed = position & self.note_mask < records;
        if crossed || bytes >= LARGE || now.as_nanos() >= shard.trim_at.load(Ordering::Relaxed) {
            self.tidy(shard, now);
        }
    }

    pub(super) fn count_refusal(&self, reason: &Refusal) {
        self.counters.add(count::REFUSED, 1);
        if let Refusal::Full { .. } = reason {
            self.counters.add(count::REFUSED_FULL, 1);
        }
    }

    fn put_or_wait(&self, record: Record<T>, deadline: Instant) -> Outcome<T> {
        let PutError { record, reason } = match self.put_uncounted(record) {
            Ok(placed) => return Outcome::Done(Ok(placed)),
            Err(error) => error,
        };
        match reason {
            Refusal::Full { .. } => Outcome::Full(*record),
            Refusal::Throttled { retry_at, .. }
                if !retry_at.is_never() && (deadline.is_never() || self.clock.now() < deadline) =>
            {
                Outcome::Throttled(*record, self.seen_at(retry_at).min(deadline))
            }
            Refusal::Throttled { retry_at, .. } if !retry_at.is_never() => self.elapsed(*record),
            reason => {
                self.count_refusal(&reason);
                Outcome::Done(Err(PutError { record, reason }))
            }
        }
    }

    fn elapsed(&self, record: Record<T>) -> Outcome<T> {
        self.count_refusal(&Refusal::Elapsed);
        Outcome::Done(Err(PutError::new(record, Refusal::Elapsed)))
    }

    fn attempt_put(&self, slot: &mut Option<Record<T>>, deadline: Instant) -> Attempt<Outcome<T>> {
        let Some(record) = slot.take() else {
            unreachable!("attempted after it was done")
        };
        match self.put_or_wait(record, deadline) {
            Outcome::Full(record) => {
                *slot = Some(record);
                let next = self.next_deadline().unwrap_or(Instant::NEVER);
                Attempt::Pending {
                    wake_at: self.seen_at(next),
                }
            }
            value => Attempt::Done { value, more: true },
        }
    }

    fn waited(&self, waited: Result<Outcome<T>, Elapsed>, slot: Option<Record<T>>) -> Outcome<T> {
        match (waited, slot) {
            (Ok(outcome), _) => outcome,
            (Err(Elapsed), Some(record)) => self.elapsed(record),
            (Err(Elapsed), None) => unreachable!("a put that waits keeps its record"),
        }
    }

    /// Whether there is room, after what is due has made some.
    fn find_room(&self, now: Instant) -> Option<Refusal> {
        self.full()?;
        self.serve(now);
        let full = self.full()?;
        let is_closed = self.table.load().is_closed();
        Some(if is_closed { Refusal::Closed } else { full })
    }
}
