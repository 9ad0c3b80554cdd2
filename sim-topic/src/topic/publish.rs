//! Publishing: what is checked, numbered and stored once, and handed to everybody.
//!
//! # Ordering
//! Numbers are counted `Relaxed`: each is given once, and orders nothing by itself. `closed` is set `SeqCst` before the
//! log is closed and the FIFO lock is taken, and read `SeqCst`; publishers that race with closing come before it or
//! are refused: see `publishing.rs`.

use sha2::{Digest, Sha256};
use sim_core::log::AppendError;
use sim_core::sync::Arc;
use sim_core::sync::atomic::Ordering;
use sim_core::time::Instant;
use sim_core::wait::Attempt;

use crate::config::{Deduplication, Kind, SubjectRule};
use crate::error::{PublishError, Refusal};
use crate::group::SequenceNumber;
use crate::machine::dedup::{Admission, DedupKey};
use crate::message::{Content, Logged, Message, Notification, Published, Shared};
use crate::topic::driver::Extra;
use crate::topic::hub::{Hub, counts};
use crate::topic::lane::{Failure, Sub, mode};
use crate::topic::table::Table;

impl<T: Send + Sync + 'static> Hub<T> {
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Publishes, or gives the message back at once.
    #[inline]
    pub(crate) fn publish(&self, message: Message<T>) -> Result<Published, PublishError<T>> {
        let outcome = self.publish_once(message);
        if outcome.is_err() {
            self.counters.add(counts::REFUSED, 1);
        }
        outcome
    }

    /// As [`publish`](Self::publish), without counting a refusal.
    #[inline]
    fn publish_once(&self, message: Message<T>) -> Result<Published, PublishError<T>> {
        // Before `closed` is looked at; where nobody is subscribed, the log says what comes before its end.
        let is_heard = self.is_fifo() || self.has_subs.load(Ordering::Acquire);
        let _in_flight = is_heard.then(|| self.enter());
        match self.check(&message) {
            Err(reason) => Err(PublishError::new(message, reason)),
            Ok(bytes) if self.is_fifo() => self.publish_in_order(message, bytes),
            Ok(bytes) => self.publish_now(message, bytes, is_heard),
        }
    }

    const fn knows_size(&self) -> bool {
        self.size.is_some() || self.body.is_some()
    }

    #[inline]
    pub(crate) fn size_of(&self, value: &T) -> usize {
        match (self.size, self.body) {
            (Some(size), _) => size(value),
            (None, Some(body)) => body(value).len(),
            (None, None) => 0,
        }
    }

    /// One attempt of a publish that waits.
    pub(crate) fn attempt_publish(
        &self,
        slot: &mut Option<Message<T>>,
    ) -> Attempt<Result<Published, PublishError<T>>> {
        let Some(message) = slot.take() else {
            unreachable!("polled after it was ready");
        };
        match self.publish_once(message) {
            Err(error) if error.reason.is_temporary() => {
                let wake_at = match error.reason {
                    Refusal::DeduplicationWindowFull { until, .. } => until,
                    _ => Instant::NEVER,
                };
                *slot = Some(*error.message);
                Attempt::Pending { wake_at }
            }
            outcome => {
                if outcome.is_err() {
                    self.counters.add(counts::REFUSED, 1);
                }
                Attempt::Done {
                    value: outcome,
                    more: true,
                }
            }
        }
    }

    /// Checks a message against the limits; returns its size where that is known.
    #[inline]
    pub(crate) fn check(&self, message: &Message<T>) -> Result<usize, Refusal> {
        if self.is_closed() {
            return Err(Refusal::Closed);
        }
        let mut bytes = self.size_of(&message.value);
        if let Some(headers) = &message.headers {
            let limits = &self.config.limits;
            if let Some(subject) = &headers.subject {
                check_subject(subject, limits.subject)?;
                bytes += subject.len();
            }
            let count = headers.attributes.len();
            if count > limits.attributes {
                return Err(Refusal::Attributes {
                    count,
                    limit: limits.attributes,
                });
            }
            if count > 0 {
                bytes += headers.attributes.size();
            }
            if headers.deduplication_id.is_some() && !self.is_fifo() {
                return Err(Refusal::UnexpectedDeduplicationId);
            }
        }
        if let Some(limit) = self.config.limits.message_bytes
            && bytes > limit
        {
            return Err(Refusal::TooLarge { bytes, limit });
        }
        Ok(bytes)
    }

    // ---- standard --------------------------------------------------------------------------------------

    #[inline]
    fn publish_now(
        &self,
        message: Message<T>,
        bytes: usize,
        is_heard: bool,
    ) -> Result<Published, PublishError<T>> {
        let is_read = self.log.is_read();
        if is_read && !self.log.has_room(1) {
            return Err(PublishError::new(message, Refusal::Full));
        }
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let content = Content {
            message,
            number,
            at: self.clock.recent(),
        };
        let published = Published {
            id: content.id(&self.info),
            sequence: None,
            duplicate: false,
        };
        if self.knows_size() {
            self.counters.add(counts::BYTES, bytes as u64);
        }
        if !is_heard {
            if is_read {
                self.append(Logged::Inline(content))?;
            }
            return Ok(published);
        }
        let table = self.table.load();
        let shared = Arc::new(Shared {
            content,
            info: Arc::clone(&self.info),
        });
        if is_read {
            self.append(Logged::Shared(Arc::clone(&shared)))?;
        }
        self.fan_out(&table, &shared);
        Ok(published)
    }

    #[inline]
    fn append(&self, logged: Logged<T>) -> Result<(), PublishError<T>> {
        match self.log.append(logged) {
            Ok(()) => Ok(()),
            Err(error) => Err(refused(error)),
        }
    }

    /// Hands a message to all who want it; first to everybody, and only then again to those who failed.
    fn fan_out(&self, table: &Table<T>, shared: &Arc<Shared<T>>) {
        let mut later = Later {
            serve: Vec::new(),
            overflowed: Vec::new(),
        };
        table.matching(&shared.content.message, self.body, &self.scratches, |sub| {
            if sub.mode() == mode::DIRECT {
                match sub.try_sink(shared, false) {
                    Ok(()) => sub.tally.add(crate::topic::tally::Count::Direct, 1),
                    Err(failure) => later.serve.push((Arc::clone(sub), Some(failure))),
                }
            } else {
                self.queue_up(sub, shared, &mut later);
            }
        });
        self.see_to(later, shared);
    }

    /// Puts a message into a lane, if its subscription listens.
    fn queue_up(&self, sub: &Arc<Sub<T>>, shared: &Arc<Shared<T>>, later: &mut Later<T>) {
        if sub.mode() > mode::QUEUED {
            return;
        }
        let notification = Notification::shared(Arc::clone(shared), sub.id, false);
        if let Some(extra) = self.enqueue(sub, notification) {
            later.overflowed.push((Arc::clone(sub), extra));
        }
        later.serve.push((Arc::clone(sub), None));
    }

    fn see_to(&self, later: Later<T>, shared: &Arc<Shared<T>>) {
        if later.serve.is_empty() {
            return;
        }
        let now = self.clock.now();
        for (sub, extra) in later.overflowed {
            self.overflowed(&sub, extra, now);
        }
        for (sub, failure) in later.serve {
            if let Some(failure) = failure {
                self.failed_at_once(&sub, shared, &failure, now);
            }
            self.attend(&sub, now);
        }
    }

    // ---- FIFO ------------------------------------------------------------------------------------------

    fn publish_in_order(
        &self,
        mut message: Message<T>,
        bytes: usize,
    ) -> Result<Published, PublishError<T>> {
        let (Some(fifo), Kind::Fifo(config)) = (&self.fifo, &self.config.kind) else {
            unreachable!("only a FIFO topic publishes in order");
        };
        let Some(group) = message.group_id().cloned() else {
            return Err(PublishError::new(message, Refusal::MissingGroup));
        };
        let id = message.deduplication().cloned();
        let content = match (config.deduplication, &id) {
            (Deduplication::ByContent, None) => self.content_key(&message.value),
            _ => None,
        };
        if id.is_none() && content.is_none() && config.deduplication != Deduplication::Off {
            return Err(PublishError::new(message, Refusal::MissingDeduplicationId));
        }
        let key = match (&id, &content) {
            (Some(id), _) => Some(DedupKey::Id(id.as_str())),
            (None, Some(content)) => Some(DedupKey::Content(content)),
            (None, None) => None,
        };

        // Looked at before the lock is taken, as the log drops what it no longer holds.
        let is_read = self.log.is_read();
        if is_read && !self.log.has_room(1) {
            return Err(PublishError::new(message, Refusal::Full));
        }
        let mut evicted = Vec::new();
        let mut later = Later {
            serve: Vec::new(),
            overflowed: Vec::new(),
        };
        let mut verdicts = Vec::new();
        let (mut order, _table) = loop {
            // Filters are foreign code: they are asked before the lock is taken.
            let table = self.table.load();
            table.verdicts(&message, self.body, |sub, reason| {
                verdicts.push((Arc::clone(sub), reason));
            });
            let order = fifo.lock();
            // Who came meanwhile may have had a message that comes before this one: it gets this one too. The table
            // asked is kept, so another one is not in its place.
            if std::ptr::eq(&*self.table.load(), &*table) {
                break (order, table);
            }
            drop(order);
            verdicts.clear();
        };
        if self.is_closed() {
            drop(order);
            return Err(PublishError::new(message, Refusal::Closed));
        }
        let now = self.clock.now();
        if let Some(archive) = &order.archive
            && !archive.fits(bytes.max(1))
        {
            let limit = archive.max_bytes();
            drop(order);
            return Err(PublishError::new(
                message,
                Refusal::TooLargeForArchive { bytes, limit },
            ));
        }
        let mut ticket = None;
        if let Some(key) = key {
            match order.dedup.admit(now, key, group.as_str()) {
                Admission::New(new) => ticket = Some(new),
                Admission::Duplicate(first) => {
                    let first = Published {
                        duplicate: true,
                        ..*first
                    };
                    drop(order);
                    self.counters.add(counts::DEDUPLICATED, 1);
                    return Ok(first);
                }
                Admission::Full { until } => {
                    drop(order);
                    let limit = config.deduplication_limit;
                    return Err(PublishError::new(
                        message,
                        Refusal::DeduplicationWindowFull { limit, until },
                    ));
                }
            }
        }
        order.sequence += 1;
        let sequence = SequenceNumber::new(order.sequence);
        message.headers_mut().sequence = Some(sequence);
        let content = Content {
            message,
            number: self.numbers.fetch_add(1, Ordering::Relaxed),
            at: now,
        };
        let published = Published {
            id: content.id(&self.info),
            sequence: Some(sequence),
            duplicate: false,
        };
        let shared = Arc::new(Shared {
            content,
            info: Arc::clone(&self.info),
        });
        let mut position = None;
        if is_read {
            // Receivers are woken when the lock is free again.
            match self
                .log
                .log
                .append(Logged::Shared(Arc::clone(&shared)), &[])
            {
                Ok(at) => position = Some(at),
                Err(error) => {
                    order.sequence -= 1;
                    drop(order);
                    drop(error);
                    return Err(give_back(shared, Refusal::Closed));
                }
            }
        }
        let mut is_archived = false;
        if let Some(archive) = &mut order.archive {
            let at = self.clock.timestamp(now);
            match archive.push(at, bytes.max(1), Arc::clone(&shared), &mut evicted) {
                Ok(_) => is_archived = true,
                // Refused above.
                Err(large) => evicted.push(large),
            }
        }
        for (sub, reason) in &verdicts {
            if sub.mode() > mode::QUEUED {
                continue;
            }
            if is_archived && sub.replaying.load(Ordering::Acquire) {
                // It comes through the archive, where the filter is asked again.
                later.serve.push((Arc::clone(sub), None));
            } else if let Some(reason) = reason {
                sub.tally.filtered(*reason);
            } else {
                self.queue_up(sub, &shared, &mut later);
            }
        }
        if let Some(ticket) = ticket {
            order.dedup.remember(now, ticket, published);
        }
        drop(order);
        if let Some(position) = position {
            self.log.appended(position, position + 1);
        }
        // Values are dropped without the lock.
        drop(evicted);
        if self.knows_size() {
            self.counters.add(counts::BYTES, bytes as u64);
        }
        self.see_to(later, &shared);
        Ok(published)
    }

    fn content_key(&self, value: &T) -> Option<[u8; 32]> {
        match (self.content_key, self.body) {
            (Some(key), _) => Some(key(value)),
            (None, Some(body)) => Some(Sha256::digest(body(value)).into()),
            (None, None) => None,
        }
    }

    // ---- in bulk ---------------------------------------------------------------------------------------

    /// Publishes plain values, as many as there is room for, from the front of `values`; returns how many.
    pub(crate) fn publish_values(&self, values: &mut Vec<T>) -> Result<usize, Refusal> {
        if values.is_empty() {
            return Ok(0);
        }
        if self.is_closed() {
            return Err(Refusal::Closed);
        }
        let is_plain = !self.is_fifo() && self.config.limits.message_bytes.is_none();
        if !is_plain || self.has_subs.load(Ordering::Acquire) {
            return self.publish_each(values);
        }
        let mut count = values.len();
        let is_read = self.log.is_read();
        if is_read {
            count = self.log.room(count);
            if count == 0 {
                self.counters.add(counts::REFUSED, 1);
                return Err(Refusal::Full);
            }
        }
        if self.knows_size() {
            let bytes: usize = values.iter().take(count).map(|v| self.size_of(v)).sum();
            self.counters.add(counts::BYTES, bytes as u64);
        }
        let first = self.numbers.fetch_add(count as u64, Ordering::Relaxed);
        if !is_read {
            values.drain(..count);
            return Ok(count);
        }
        self.append_all(values, count, first)
    }

    fn append_all(&self, values: &mut Vec<T>, count: usize, first: u64) -> Result<usize, Refusal> {
        /// Records of one claim: the log's batches are bounded, and readers come along sooner.
        const RUN: usize = 1024;
        /// What they may take together.
        const BYTES: usize = 4 << 20;
        let most = (BYTES / size_of::<Logged<T>>()).clamp(1, RUN);
        let at = self.clock.recent();
        let mut number = first;
        let mut done = 0;
        while done < count {
            let run = most.min(count - done);
            let records: Vec<(Logged<T>, [&[u8]; 0])> = values
                .drain(..run)
                .map(|value| {
                    let content = Content {
                        message: Message::new(value),
                        number,
                        at,
                    };
                    number += 1;
                    (Logged::Inline(content), [])
                })
                .collect();
            match self.log.log.append_batch(records) {
                Ok(range) => self.log.appended(range.start, range.end),
                Err(error) => {
                    let refused = error.into_value();
                    let back = refused.into_iter().filter_map(|(logged, _)| match logged {
                        Logged::Inline(content) => Some(content.message.value),
                        Logged::Shared(_) => None,
                    });
                    values.splice(0..0, back);
                    return if done == 0 {
                        Err(Refusal::Closed)
                    } else {
                        Ok(done)
                    };
                }
            }
            done += run;
        }
        Ok(done)
    }

    fn publish_each(&self, values: &mut Vec<T>) -> Result<usize, Refusal> {
        let mut rest = std::mem::take(values).into_iter();
        let mut count = 0;
        while let Some(value) = rest.next() {
            match self.publish(Message::new(value)) {
                Ok(_) => count += 1,
                Err(error) => {
                    let reason = error.reason.clone();
                    values.push(error.into_value());
                    values.extend(rest);
                    return if count == 0 { Err(reason) } else { Ok(count) };
                }
            }
        }
        Ok(count)
    }
}

/// What a publisher sees to after everybody has had the message.
struct Later<T> {
    serve: Vec<(Arc<Sub<T>>, Option<Failure>)>,
    overflowed: Vec<(Arc<Sub<T>>, Extra<T>)>,
}

/// The log took no more.
#[cold]
fn refused<T>(error: AppendError<Logged<T>>) -> PublishError<T> {
    match error.into_value() {
        Logged::Inline(content) => PublishError::new(content.message, Refusal::Closed),
        Logged::Shared(shared) => give_back(shared, Refusal::Closed),
    }
}

/// Takes a message back that nobody has seen.
#[cold]
fn give_back<T>(shared: Arc<Shared<T>>, reason: Refusal) -> PublishError<T> {
    match Arc::try_unwrap(shared) {
        Ok(Shared { content, .. }) => {
            let mut message = content.message;
            if let Some(headers) = &mut message.headers {
                headers.sequence = None;
            }
            PublishError::new(message, reason)
        }
        Err(_) => unreachable!("nobody else has it"),
    }
}

fn check_subject(subject: &str, rule: SubjectRule) -> Result<(), Refusal> {
    let limit = match rule {
        SubjectRule::Text { chars } | SubjectRule::Line { chars } => chars,
    };
    let chars = subject.chars().count();
    if chars > limit {
        return Err(Refusal::SubjectTooLong { chars, limit });
    }
    if let SubjectRule::Line { .. } = rule {
        let refused = |at: usize, c: char| !(c.is_ascii_graphic() || (c == ' ' && at > 0));
        if subject.is_empty() {
            return Err(Refusal::SubjectCharacter { found: None, at: 0 });
        }
        if let Some((at, found)) = subject.char_indices().find(|&(at, c)| refused(at, c)) {
            return Err(Refusal::SubjectCharacter {
                found: Some(found),
                at,
            });
        }
    }
    Ok(())
}
