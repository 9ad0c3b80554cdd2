//! Who a client is: log-ins by OpenID Connect, and tokens.
//!
//! A [`Keeper`] has what outlives a reload of the rules: the clock, the way to the web ([`Fetch`]) and the issuers' keys.
//! Keys are fetched when the first token asks for them, kept for five minutes, used for up to an hour while their endpoint
//! does not answer, and fetched once for all who wait; failures are tried again after one second, then two, up to a minute.
//!
//! # Log-ins
//!
//! The authorization code flow (OpenID Connect Core 1.0, section 3.1) as ALB has it. A client without a session is sent to
//! the provider with a random state, which its cookie `AWSALBAuthNonce` has too, sealed; it comes back to
//! `/oauth2/idpresponse`, the code is exchanged for tokens, these for claims, and both stand sealed in the session's
//! cookies. The identity token's signature is not verified, since it comes from the token endpoint itself (section
//! 3.1.3.7); its issuer, audience, expiry and nonce are. Targets get
//!
//! | header | holds |
//! | --- | --- |
//! | `x-amzn-oidc-accesstoken` | the access token |
//! | `x-amzn-oidc-identity` | the subject |
//! | `x-amzn-oidc-data` | the claims, as a JWT signed by ES256 under [`Keys`](super::cookie::Keys) |
//!
//! and never what a client sent under these names.

mod fetch;
mod jwks;
mod jwt;
mod login;
mod session;

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{Request, Response};
use sim_core::clock::Clock;
use sim_core::seam::Handler;
use sim_core::sync::{Arc, Mutex};

use self::jwks::Source;
use super::action::{Edits, Reason};

pub use fetch::{FetchError, WebFetch, WebFetchConfig};
pub(crate) use jwt::JwtCheck;
pub(crate) use login::Login;

/// Where log-ins come back to: ALB's path, which no rule sees while a listener authenticates.
pub const CALLBACK: &str = "/oauth2/idpresponse";

/// The most issuers whose keys are kept; when there are more, all are fetched anew.
const SOURCES: usize = 1_024;

/// The way to the web: sends a request and gives the whole response.
///
/// [`WebFetch`] goes there; tests put a function in its place.
pub type Fetch = dyn Handler<Request<Bytes>, Result<Response<Bytes>, FetchError>>;

/// What authentication needs and reloads keep.
pub struct Keeper {
    clock: Clock,
    fetch: Box<Fetch>,
    sources: Mutex<BTreeMap<String, Arc<Source>>>,
}

impl Keeper {
    /// Makes one; nothing is fetched yet.
    #[must_use]
    pub fn new(clock: Clock, fetch: Box<Fetch>) -> Self {
        Self {
            clock,
            fetch,
            sources: Mutex::default(),
        }
    }

    /// The keys at an endpoint.
    fn source(&self, endpoint: &str) -> Arc<Source> {
        let mut sources = self.sources.lock();
        if let Some(source) = sources.get(endpoint) {
            return Arc::clone(source);
        }
        if sources.len() >= SOURCES {
            sources.clear();
        }
        let source = Arc::new(Source::new(endpoint));
        sources.insert(endpoint.to_owned(), Arc::clone(&source));
        source
    }
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper")
            .field("clock", &self.clock)
            .finish_non_exhaustive()
    }
}

/// What came of looking at a client.
#[derive(Debug)]
pub(crate) enum Checked {
    /// It passes, with these changes.
    Pass(Edits),
    /// It is answered.
    Answer(Response<Bytes>, Option<Reason>),
}

#[cfg(test)]
mod tests;
