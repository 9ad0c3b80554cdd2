//! [`Passage`]: what is kept of a request until the last byte of its response, and what is counted and logged then.

use std::task::{Context, Poll};
use std::time::Duration;

use http::StatusCode;
use sim_core::clock::Sleep;
use sim_core::sync::{Arc, Mutex};
use sim_core::time::Instant;

use super::body::Upload;
use super::group::{Endpoint, Group};
use super::metric::Count;
use super::serve::Client;
use crate::balancer::lease::Lease;
use crate::message::Outcome;
use crate::proxy::log::Record;

/// What is kept of a request until its end, which is when it is dropped.
pub(crate) struct Passage {
    client: Arc<Client>,
    group: Option<Arc<Group>>,
    lease: Option<Lease<Arc<Endpoint>>>,
    outcome: Outcome,
    began: Instant,
    /// When the target was sent the head, and when it answered.
    sent: Option<Instant>,
    answered: Option<Instant>,
    status: Option<StatusCode>,
    target_status: Option<StatusCode>,
    upload: Option<Arc<Mutex<Upload>>>,
    /// Ends a stream of HTTP/2 on which nothing moves; HTTP/1.1 has one timer for its connection.
    late: Option<Sleep>,
    /// What its stream offers its client, on HTTP/2.
    offer: Option<u64>,
    received_before: u64,
    sent_before: u64,
    record: Option<Box<Record>>,
}

impl Passage {
    pub(crate) fn new(
        client: Arc<Client>,
        began: Instant,
        received: u64,
        record: Option<Box<Record>>,
    ) -> Self {
        let (received_before, sent_before) = {
            let state = client.pulse.state();
            (state.received.saturating_sub(received), state.sent)
        };
        Self {
            client,
            group: None,
            lease: None,
            outcome: Outcome::Cancelled,
            began,
            sent: None,
            answered: None,
            status: None,
            target_status: None,
            upload: None,
            late: None,
            offer: None,
            received_before,
            sent_before,
            record,
        }
    }

    pub(crate) fn record(&mut self) -> Option<&mut Record> {
        self.record.as_deref_mut()
    }

    pub(crate) fn upload(&mut self, upload: Option<Arc<Mutex<Upload>>>) {
        self.upload = upload;
    }

    /// The request goes to a target.
    pub(crate) fn sent_to(
        &mut self,
        group: &Arc<Group>,
        lease: Lease<Arc<Endpoint>>,
        now: Instant,
    ) {
        if self.group.is_none() {
            group.metrics.count(Count::Requests);
        }
        if let Some(record) = &mut self.record {
            record.target_group = Some(Arc::clone(&group.name));
            record.targets.push(lease.id().to_string());
        }
        self.group = Some(Arc::clone(group));
        self.lease = Some(lease);
        self.sent = Some(now);
    }

    /// The try with that target failed; what follows may be another one.
    pub(crate) fn try_failed(&mut self, outcome: Outcome) {
        if let Some(lease) = self.lease.take() {
            lease.complete(outcome);
        }
        if let Some(record) = &mut self.record {
            record.target_statuses.push(None);
        }
    }

    /// The target's response is not taken: another try follows.
    pub(crate) fn next_try(&mut self) {
        self.target_done();
        self.target_status = None;
        self.answered = None;
    }

    /// The target answered.
    pub(crate) fn answered(&mut self, status: StatusCode, now: Instant) {
        self.answered = Some(now);
        self.target_status = Some(status);
        self.outcome = match status.as_u16() {
            503 | 429 => Outcome::Overloaded { retry_after: None },
            500..=599 => Outcome::Failure,
            _ => Outcome::Success,
        };
        let took = self
            .sent
            .map_or(Duration::ZERO, |sent| now.saturating_duration_since(sent));
        self.client.hall.metrics.target_response(status, took);
        if let Some(group) = &self.group {
            group.metrics.target_response(status, took);
        }
        if let Some(record) = &mut self.record {
            record.target_statuses.push(Some(status.as_u16()));
        }
    }

    /// The response with that status goes to the client.
    pub(crate) fn responding(&mut self, status: StatusCode) {
        self.status = Some(status);
        if self.target_status.is_none() {
            self.client.hall.metrics.own_response(status.as_u16());
        }
        if self.client.is_http1() {
            self.client.pulse.answering();
        }
    }

    /// On HTTP/2 each stream has a timer of its own.
    pub(crate) fn watch(&mut self, late: Option<Sleep>) {
        self.late = late;
    }

    /// Whether the stream has stood still for too long.
    pub(crate) fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(late) = &mut self.late else {
            return Poll::Pending;
        };
        if std::pin::Pin::new(&mut *late).poll(cx).is_ready() {
            return Poll::Ready(());
        }
        late.reset(self.client.idle_deadline());
        Poll::Pending
    }

    /// On HTTP/2, the client was handed a frame: whether it makes room for it, the connection's task watches.
    pub(crate) fn offered(&mut self) {
        if !self.client.is_http1() {
            self.offer = Some(self.client.pulse.offer(self.offer));
        }
    }

    /// What the client was handed it has taken: now the target is waited for.
    pub(crate) fn taken(&mut self) {
        if let Some(offer) = self.offer.take() {
            self.client.pulse.taken(offer);
        }
    }

    /// The target's part is over: its response came whole.
    pub(crate) fn target_done(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.complete(self.outcome);
        }
    }

    /// The body broke.
    pub(crate) fn failed(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.complete(Outcome::Failure);
        }
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        self.taken();
        let client = &self.client;
        let metrics = &client.hall.metrics;
        metrics.count(Count::Requests);
        if self.status.is_none() {
            // Nobody waits for a response any more.
            metrics.own_response(460);
        }
        if let Some(lease) = self.lease.take() {
            lease.complete(Outcome::Cancelled);
        }
        let body = self.upload.as_ref().map_or(0, |upload| upload.lock().read);
        client.pulse.end(body);
        let (received, sent) = {
            let state = client.pulse.state();
            (
                state.received.saturating_sub(self.received_before),
                state.sent.saturating_sub(self.sent_before),
            )
        };
        if let (Some(mut record), Some(log)) = (self.record.take(), &client.hall.access) {
            let now = client.hall.clock.fine();
            record.status = self.status.map_or(460, |status| status.as_u16());
            record.target_status = self.target_status.map(|status| status.as_u16());
            record.received_bytes = received;
            record.sent_bytes = sent;
            record.request_time = self
                .sent
                .map(|sent| sent.saturating_duration_since(self.began));
            record.target_time = match (self.sent, self.answered) {
                (Some(sent), Some(answered)) => Some(answered.saturating_duration_since(sent)),
                _ => None,
            };
            record.response_time = self
                .answered
                .map(|answered| now.saturating_duration_since(answered));
            record.time = client.hall.clock.timestamp(now);
            log.write(&record);
        }
    }
}
