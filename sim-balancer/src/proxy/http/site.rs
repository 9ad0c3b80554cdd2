//! [`Site`]: what a listener does, as of one load of the configuration; [`Hall`]: what all of a proxy share.

use sim_core::clock::Clock;
use sim_core::random::Random;
use sim_core::sync::{Arc, Mutex};

use super::group::{Endpoint, Group};
use super::metric::Metrics;
use super::settings::Settings;
use crate::proxy::auth::Keeper;
use crate::proxy::config::{Attributes, ListenerConfig, TargetGroupConfig};
use crate::proxy::log::Log;
use crate::proxy::pass::Pass;
use crate::proxy::prefix::PrefixReader;
use crate::proxy::rule::Routes;
use crate::proxy::tls::TlsAcceptor;

/// What a listener does, as of one load of the configuration. A request keeps the one that it began with.
pub(crate) struct Site {
    pub(crate) settings: Settings,
    pub(crate) groups: Arc<[Arc<Group>]>,
    pub(crate) routes: Routes,
    pub(crate) tls: Option<TlsAcceptor>,
    pub(crate) prefix: Option<PrefixReader>,
    /// Where the streams and datagrams go of a listener that is not HTTP.
    pub(crate) pass: Option<Passing>,
}

/// The way of a listener that is not HTTP, and what it was made for.
#[derive(Clone)]
pub(crate) struct Passing {
    pub(crate) pass: Pass<Arc<Endpoint>>,
    pub(crate) listener: ListenerConfig,
    pub(crate) group: TargetGroupConfig,
    pub(crate) attributes: Attributes,
    /// Of the group.
    pub(crate) serial: u64,
}

/// What all listeners and workers of a proxy share.
pub(crate) struct Hall {
    pub(crate) name: Arc<str>,
    pub(crate) clock: Clock,
    pub(crate) metrics: Metrics,
    /// Keys and sessions of identity providers.
    pub(crate) keeper: Keeper,
    pub(crate) access: Option<Log>,
    pub(crate) connections: Option<Log>,
    pub(crate) checks: Option<Log>,
    /// Client connections that are open.
    pub(crate) open: Mutex<usize>,
}

/// What one thread has for itself. Its locks are contended by nobody but whoever stops the proxy.
pub(crate) struct Worker {
    pub(crate) index: usize,
    pub(crate) hall: Arc<Hall>,
    pub(crate) random: Mutex<Random>,
    /// Copies for mirrors that are out.
    pub(crate) copies: Mutex<usize>,
}

impl Worker {
    pub(crate) fn draw(&self) -> u64 {
        self.random.lock().next_u64()
    }
}
