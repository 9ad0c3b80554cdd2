//! Rate limits.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{HeaderName, HeaderValue, Response, StatusCode};
use sim_core::rate::TokenBucket;
use sim_core::sync::Mutex;
use sim_core::time::Instant;

use super::edit::header_name;
use super::plain;
use crate::proxy::config::{At, ProxyConfigError, RateKey, RateLimitConfig};
use crate::proxy::rule::View;

/// How often full buckets are looked for, at most: each look walks over all of them.
const SWEEP: Duration = Duration::from_secs(1);

/// The longest value of a header that is counted apart, in bytes; longer ones are cut.
const LONGEST: usize = 128;

/// Buckets that fill with time. They start full, also after a reload.
pub(crate) struct RateLimit {
    rate: u64,
    burst: u64,
    key: Key,
    max_keys: usize,
    state: Mutex<State>,
}

enum Key {
    All,
    Source,
    Header(HeaderName),
}

struct State {
    /// What is not counted apart.
    common: TokenBucket,
    /// At most `max_keys`.
    apart: BTreeMap<Value, TokenBucket>,
    next_sweep: Instant,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Value {
    Source(IpAddr),
    Header(Box<[u8]>),
}

impl RateLimit {
    pub(super) fn compile(config: &RateLimitConfig, at: At<'_>) -> Result<Self, ProxyConfigError> {
        at.field("rate").within(config.rate, (1, 1_000_000_000))?;
        at.field("burst").within(config.burst, (1, 1_000_000_000))?;
        at.field("max_keys")
            .within(config.max_keys as u64, (1, 1 << 24))?;
        let key = match &config.key {
            RateKey::All => Key::All,
            RateKey::SourceIp => Key::Source,
            RateKey::Header(name) => Key::Header(header_name(name, at.field("key"))?),
        };
        Ok(Self {
            rate: config.rate,
            burst: config.burst,
            key,
            max_keys: config.max_keys,
            state: Mutex::new(State {
                common: TokenBucket::new(config.rate, config.burst),
                apart: BTreeMap::new(),
                next_sweep: Instant::ORIGIN,
            }),
        })
    }

    /// The answer to a request that comes too fast.
    pub(super) fn refuse(&self, view: &View<'_>) -> Option<Response<Bytes>> {
        let value = match &self.key {
            Key::All => None,
            Key::Source => Some(Value::Source(view.source.to_canonical())),
            Key::Header(name) => view.headers.get(name).map(|value| {
                let value = value.as_bytes();
                Value::Header(value[..value.len().min(LONGEST)].into())
            }),
        };
        let until = self.take(value, view.now).err()?;
        let wait = until.saturating_duration_since(view.now);
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        let mut response = plain(StatusCode::TOO_MANY_REQUESTS);
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        Some(response)
    }

    fn take(&self, value: Option<Value>, now: Instant) -> Result<(), Instant> {
        let mut state = self.state.lock();
        let Some(value) = value else {
            return state.common.take(now, 1);
        };
        if let Some(bucket) = state.apart.get_mut(&value) {
            return bucket.take(now, 1);
        }
        if state.apart.len() >= self.max_keys && now >= state.next_sweep {
            state.next_sweep = now + SWEEP;
            let burst = self.burst;
            state
                .apart
                .retain(|_, bucket| bucket.available(now) < burst);
        }
        if state.apart.len() >= self.max_keys {
            return state.common.take(now, 1);
        }
        let mut bucket = TokenBucket::new(self.rate, self.burst);
        let taken = bucket.take(now, 1);
        state.apart.insert(value, bucket);
        taken
    }
}

impl std::fmt::Debug for RateLimit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RateLimit")
            .field("rate", &self.rate)
            .field("burst", &self.burst)
            .finish_non_exhaustive()
    }
}
