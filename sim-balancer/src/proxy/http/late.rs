//! [`Late`]: when a request has waited for too long.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use sim_core::clock::Sleep;
use sim_core::sync::{Arc, Mutex};
use sim_core::time::Instant;

use super::body::Upload;
use super::serve::Client;

/// Tells when a request has waited for too long: by the timer of its connection on HTTP/1.1, by its own on HTTP/2.
pub(crate) struct Late<'a> {
    client: &'a Client,
    sleep: Option<Sleep>,
    /// The end of one try, where the policy has one.
    try_ends: Option<Sleep>,
    limit: Instant,
    upload: Option<Arc<Mutex<Upload>>>,
    /// How much of the body had been read when the timer was set.
    read: u64,
}

impl<'a> Late<'a> {
    pub(crate) fn new(
        client: &'a Client,
        timeout: Option<Duration>,
        upload: Option<Arc<Mutex<Upload>>>,
    ) -> Self {
        let clock = &client.hall.clock;
        let limit = timeout.map_or(Instant::NEVER, |timeout| {
            clock.recent() + clock.lag() + timeout
        });
        if client.is_http1() && !limit.is_never() {
            client.pulse.state().limit = limit;
        }
        let sleep =
            (!client.is_http1()).then(|| clock.sleep_until(client.idle_deadline().min(limit)));
        Self {
            client,
            sleep,
            try_ends: None,
            limit,
            upload,
            read: 0,
        }
    }

    /// Another try begins, which may take so long.
    pub(crate) fn start_try(&mut self, timeout: Option<Duration>) {
        let clock = &self.client.hall.clock;
        self.try_ends = timeout.map(|timeout| clock.sleep_until(clock.now() + timeout));
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(end) = &mut self.try_ends
            && Pin::new(end).poll(cx).is_ready()
        {
            return Poll::Ready(());
        }
        let Some(sleep) = &mut self.sleep else {
            return if self.client.pulse.state().expired {
                Poll::Ready(())
            } else {
                Poll::Pending
            };
        };
        loop {
            if Pin::new(&mut *sleep).poll(cx).is_pending() {
                return Poll::Pending;
            }
            let read = self.upload.as_ref().map_or(0, |upload| upload.lock().read);
            if read == self.read || self.client.hall.clock.now() >= self.limit {
                return Poll::Ready(());
            }
            self.read = read;
            sleep.reset((self.client.hall.clock.now() + self.client.idle).min(self.limit));
        }
    }

    /// The timer, for the response's body.
    pub(crate) fn into_sleep(self) -> Option<Sleep> {
        let mut sleep = self.sleep?;
        sleep.reset(self.client.idle_deadline());
        Some(sleep)
    }
}
