//! [`Policy`]: when a request is tried at another target, within a budget.
//!
//! What is always done (a used connection died before it carried anything back) is not counted here: it says nothing about
//! the target, and cannot pile up.

use std::time::Duration;

use sim_core::sync::Mutex;

use crate::proxy::config::{RetryConfig, RetryOn};

/// Why a try failed without a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// No connection could be opened.
    Connect,
    /// The connection ended, or the answer did not come in time.
    Reset,
    /// It was the client's own doing.
    Client,
}

/// A group's policy and its budget.
#[derive(Debug)]
pub(crate) struct Policy {
    config: RetryConfig,
    load: Mutex<Load>,
}

#[derive(Debug, Default)]
struct Load {
    /// Requests in progress, while tries are counted at all.
    requests: u64,
    /// Tries in progress that are not first ones.
    repeats: u64,
}

impl Policy {
    pub(crate) fn new(config: RetryConfig) -> Self {
        Self {
            config,
            load: Mutex::default(),
        }
    }

    /// Tries after the first that a request may have.
    pub(crate) fn attempts(&self) -> u32 {
        self.config.attempts
    }

    pub(crate) fn per_try_timeout(&self) -> Option<Duration> {
        self.config.per_try_timeout
    }

    /// Whether a response with that status is to be tried again.
    pub(crate) fn wants_status(&self, status: u16) -> bool {
        self.config.on.iter().any(|on| match on {
            RetryOn::GatewayError => matches!(status, 502..=504),
            RetryOn::ServerError => (500..=599).contains(&status),
            RetryOn::Conflict => status == 409,
            _ => false,
        })
    }

    /// Whether a try that failed for that cause is to be tried again.
    pub(crate) fn wants(&self, cause: Cause) -> bool {
        self.config.on.iter().any(|on| match on {
            RetryOn::ConnectFailure => cause == Cause::Connect,
            RetryOn::Reset | RetryOn::RefusedStream => cause == Cause::Reset,
            RetryOn::GatewayError | RetryOn::ServerError => cause != Cause::Client,
            RetryOn::Conflict => false,
        })
    }

    /// A request begins; counted until the value is dropped.
    pub(crate) fn begin(&self) -> Option<Progress<'_>> {
        if self.config.attempts == 0 {
            return None;
        }
        self.load.lock().requests += 1;
        Some(Progress(self))
    }

    /// Takes a try out of the budget, if there is one left: so many in a hundred requests in progress, or the minimum.
    pub(crate) fn repeat(&self) -> Option<Repeat<'_>> {
        let mut load = self.load.lock();
        let share = load.requests * u64::from(self.config.budget_percent) / 100;
        if load.repeats >= share.max(u64::from(self.config.budget_minimum)) {
            return None;
        }
        load.repeats += 1;
        Some(Repeat(self))
    }
}

/// A request in progress.
pub(crate) struct Progress<'a>(&'a Policy);

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        self.0.load.lock().requests -= 1;
    }
}

/// A try in progress that is not the first one.
pub(crate) struct Repeat<'a>(&'a Policy);

impl Drop for Repeat<'_> {
    fn drop(&mut self) {
        self.0.load.lock().repeats -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_bounds_tries_in_progress() {
        let policy = Policy::new(RetryConfig {
            attempts: 2,
            budget_percent: 50,
            budget_minimum: 1,
            ..Default::default()
        });
        let requests: Vec<_> = (0..6).map(|_| policy.begin()).collect();
        let repeats: Vec<_> = (0..4).map(|_| policy.repeat()).collect();
        assert_eq!(repeats.iter().filter(|repeat| repeat.is_some()).count(), 3);
        drop(requests);
        drop(repeats);
        // The minimum holds when nothing else is in progress.
        let one = policy.repeat();
        assert!(one.is_some() && policy.repeat().is_none());
    }

    #[test]
    fn what_is_tried_again_is_what_was_asked_for() {
        let policy = |on: &[RetryOn]| {
            Policy::new(RetryConfig {
                attempts: 1,
                on: on.to_vec(),
                ..Default::default()
            })
        };
        let gateway = policy(&[RetryOn::GatewayError]);
        assert!(gateway.wants_status(503) && !gateway.wants_status(500));
        assert!(gateway.wants(Cause::Reset) && !gateway.wants(Cause::Client));
        let connect = policy(&[RetryOn::ConnectFailure]);
        assert!(
            connect.wants(Cause::Connect)
                && !connect.wants(Cause::Reset)
                && !connect.wants_status(503)
        );
        assert!(policy(&[RetryOn::ServerError]).wants_status(500));
    }
}
