//! The keys of an issuer, fetched and kept.

use std::time::Duration;

use bytes::Bytes;
use http::header::ACCEPT;
use http::{HeaderValue, Request, StatusCode};
use jsonwebtoken::jwk::{JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use sim_core::clock::Clock;
use sim_core::event::Event;
use sim_core::sync::{Arc, Mutex};
use sim_core::time::Instant;
use sim_core::wait::{self, Attempt};

use super::{Fetch, FetchError};
use crate::proxy::action::Reason;

/// How long keys are used without a look at their endpoint.
const FRESH: Duration = Duration::from_secs(300);

/// How long they are used while the endpoint does not answer.
const STALE: Duration = Duration::from_secs(3_600);

/// A token with an unknown key has them fetched, but not more often than this: anybody can make up such tokens.
const UNKNOWN: Duration = Duration::from_secs(30);

/// The wait after the first failure; it doubles with each, up to the longest.
const BACKOFF: Duration = Duration::from_secs(1);
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);

/// How long a request waits for the fetch of another.
const PATIENCE: Duration = Duration::from_secs(6);

/// The most keys of a set that are looked at.
const KEYS: usize = 100;

/// The keys of an issuer.
pub(super) struct KeySet(Vec<Key>);

struct Key {
    id: Option<String>,
    algorithm: Option<String>,
    key: DecodingKey,
}

impl KeySet {
    fn parse(body: &[u8]) -> Option<Self> {
        let set: JwkSet = serde_json::from_slice(body).ok()?;
        let keys = set.keys.iter().take(KEYS).filter_map(|jwk| {
            let common = &jwk.common;
            if common
                .public_key_use
                .as_ref()
                .is_some_and(|purpose| *purpose != PublicKeyUse::Signature)
            {
                return None;
            }
            Some(Key {
                id: common.key_id.clone(),
                algorithm: common.key_algorithm.map(|algorithm| algorithm.to_string()),
                key: DecodingKey::from_jwk(jwk).ok()?,
            })
        });
        Some(Self(keys.collect()))
    }

    /// Keys that a token may be signed with.
    pub(super) fn fitting(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
    ) -> impl Iterator<Item = &DecodingKey> {
        let name = format!("{algorithm:?}");
        self.0.iter().filter_map(move |key| {
            let fits = id.is_none_or(|id| key.id.as_deref() == Some(id))
                && key.key.family() == algorithm.family()
                && key.algorithm.as_ref().is_none_or(|known| *known == name);
            fits.then_some(&key.key)
        })
    }

    fn knows(&self, id: Option<&str>) -> bool {
        id.is_none_or(|id| self.0.iter().any(|key| key.id.as_deref() == Some(id)))
    }
}

/// An endpoint, and what came of it.
pub(super) struct Source {
    endpoint: String,
    state: Mutex<State>,
    fetched: Event,
}

struct State {
    set: Option<(Arc<KeySet>, Instant)>,
    is_fetching: bool,
    failures: u32,
    retry_at: Instant,
    why: Reason,
}

/// What a request does about keys.
enum Turn {
    Use(Arc<KeySet>),
    Fetch,
    Fail(Reason),
}

impl Source {
    pub(super) fn new(endpoint: &str) -> Self {
        Self {
            endpoint: endpoint.to_owned(),
            state: Mutex::new(State {
                set: None,
                is_fetching: false,
                failures: 0,
                retry_at: Instant::ORIGIN,
                why: Reason::new("JWKSRequestFailed"),
            }),
            fetched: Event::new(),
        }
    }

    /// The keys, fetched if need be.
    ///
    /// # Cancel safety
    ///
    /// Another request that waits takes the fetch over.
    pub(super) async fn keys(
        &self,
        id: Option<&str>,
        clock: &Clock,
        fetch: &Fetch,
    ) -> Result<Arc<KeySet>, Reason> {
        let deadline = clock.now() + PATIENCE;
        let turn = wait::until(&self.fetched, clock, deadline, || {
            let turn = self.state.lock().turn(id, clock.now());
            match turn {
                Some(value) => Attempt::Done { value, more: false },
                None => Attempt::Pending {
                    wake_at: Instant::NEVER,
                },
            }
        });
        match turn.await {
            Ok(Turn::Use(set)) => Ok(set),
            Ok(Turn::Fetch) => self.fetch(clock, fetch).await,
            Ok(Turn::Fail(why)) => Err(why),
            Err(_) => Err(Reason::new("JWKSRequestTimeout")),
        }
    }

    async fn fetch(&self, clock: &Clock, fetch: &Fetch) -> Result<Arc<KeySet>, Reason> {
        let turn = Fetching(self);
        let mut request = Request::new(Bytes::new());
        if let Ok(uri) = self.endpoint.parse() {
            *request.uri_mut() = uri;
        }
        request
            .headers_mut()
            .insert(ACCEPT, HeaderValue::from_static("application/json"));
        let fetched = match fetch.handle(request).await {
            Ok(response) if response.status() == StatusCode::OK => {
                KeySet::parse(response.body()).ok_or(Reason::new("JWKSResponseInvalid"))
            }
            Ok(_) | Err(FetchError::Failed(_)) => Err(Reason::new("JWKSRequestFailed")),
            Err(FetchError::Timeout) => Err(Reason::new("JWKSRequestTimeout")),
            Err(FetchError::TooLarge { .. }) => Err(Reason::new("JWKSResponseSizeExceeded")),
        };
        let now = clock.now();
        let result = self.state.lock().settle(fetched, now);
        drop(turn);
        result
    }
}

impl State {
    /// What a request does now; `None` if it waits for another's fetch.
    fn turn(&mut self, id: Option<&str>, now: Instant) -> Option<Turn> {
        let held = self
            .set
            .as_ref()
            .map(|(set, at)| (set, now.saturating_duration_since(*at)));
        let usable = held.filter(|(_, age)| *age < STALE);
        let is_wanted =
            held.is_none_or(|(set, age)| age >= FRESH || !set.knows(id) && age >= UNKNOWN);
        let keep = |(set, _): (&Arc<KeySet>, Duration)| Turn::Use(Arc::clone(set));
        if !is_wanted {
            return usable.map(keep);
        }
        if self.is_fetching {
            return usable.filter(|(set, _)| set.knows(id)).map(keep);
        }
        if now < self.retry_at {
            return Some(usable.map_or(Turn::Fail(self.why), keep));
        }
        self.is_fetching = true;
        Some(Turn::Fetch)
    }

    fn settle(
        &mut self,
        fetched: Result<KeySet, Reason>,
        now: Instant,
    ) -> Result<Arc<KeySet>, Reason> {
        match fetched {
            Ok(set) => {
                let set = Arc::new(set);
                self.set = Some((Arc::clone(&set), now));
                self.failures = 0;
                self.retry_at = now;
                Ok(set)
            }
            Err(why) => {
                let wait = BACKOFF
                    .saturating_mul(1 << self.failures.min(10))
                    .min(LONGEST_BACKOFF);
                self.failures = self.failures.saturating_add(1);
                self.retry_at = now + wait;
                self.why = why;
                match &self.set {
                    Some((set, at)) if now.saturating_duration_since(*at) < STALE => {
                        Ok(Arc::clone(set))
                    }
                    _ => Err(why),
                }
            }
        }
    }
}

/// A fetch under way; its end, also by cancelling, lets the next one begin.
struct Fetching<'a>(&'a Source);

impl Drop for Fetching<'_> {
    fn drop(&mut self) {
        self.0.state.lock().is_fetching = false;
        self.0.fetched.notify_all();
    }
}
