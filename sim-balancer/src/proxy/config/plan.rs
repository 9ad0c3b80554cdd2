//! A configuration that was checked and compiled.

use std::net::SocketAddr;

use sim_core::sync::Arc;

use super::group::HashKey;
use super::{At, Problem, ProxyConfig, ProxyConfigError};
use crate::config::BalancerConfig;
use crate::message::key_of;
use crate::proxy::cookie::{self, Keys, Sticky};
use crate::proxy::rule::{Routes, View};

/// A configuration that was checked and compiled: what a proxy runs on.
#[derive(Debug)]
#[non_exhaustive]
pub struct Plan {
    /// The listeners, in the configuration's order.
    pub listeners: Vec<ListenerPlan>,
    /// The groups, in the configuration's order.
    pub groups: Vec<GroupPlan>,
}

/// A listener, compiled.
#[derive(Debug)]
#[non_exhaustive]
pub struct ListenerPlan {
    /// Its name: as given, or protocol and port.
    pub name: String,
    /// The address to bind.
    pub bind: SocketAddr,
    /// Its rules; without HTTP, only a default.
    pub routes: Routes,
}

/// A group, compiled.
#[derive(Debug)]
#[non_exhaustive]
pub struct GroupPlan {
    /// The settings of its balancer.
    pub balancer: BalancerConfig,
    /// The cookies that tie clients to its targets, if it has any.
    pub sticky: Option<Sticky>,
    hash_key: HashKey,
}

impl GroupPlan {
    fn new(config: &ProxyConfig, index: usize, keys: &Arc<Keys>) -> Result<Self, ProxyConfigError> {
        let group = &config.target_groups[index];
        let at = At::ROOT.part("target_groups", index);
        Ok(Self {
            balancer: group.balancing(&config.attributes, config.quotas.profile, at)?,
            sticky: Sticky::of(group, keys),
            hash_key: group.hash_key.clone(),
        })
    }

    /// What the hash-based algorithms go by; `None` for requests that have not got it.
    #[must_use]
    pub fn key(&self, view: &View<'_>) -> Option<u64> {
        match &self.hash_key {
            HashKey::SourceIp => Some(match view.source.to_canonical() {
                std::net::IpAddr::V4(address) => key_of(&address.octets()),
                std::net::IpAddr::V6(address) => key_of(&address.octets()),
            }),
            HashKey::Path => Some(key_of(view.path.as_bytes())),
            HashKey::Host => Some(key_of(view.host_name().as_bytes())),
            HashKey::Header(name) => view.headers.get(name).map(|value| key_of(value.as_bytes())),
            HashKey::Cookie(name) => {
                cookie::find(view.headers, name).map(|value| key_of(value.as_bytes()))
            }
            HashKey::Query(name) => view.query?.split('&').find_map(|pair| {
                let value = pair.strip_prefix(name.as_str())?.strip_prefix('=')?;
                Some(key_of(value.as_bytes()))
            }),
        }
    }
}

impl ProxyConfig {
    /// Checks and compiles everything.
    ///
    /// # Errors
    ///
    /// [`ProxyConfigError`] with the path of the first field that cannot be used, and why.
    pub fn plan(&self, keys: &Arc<Keys>) -> Result<Plan, ProxyConfigError> {
        self.check_fields()?;
        let listeners = self.listeners.iter().enumerate().map(|(index, listener)| {
            Ok(ListenerPlan {
                name: listener.label(),
                bind: listener.bind(),
                routes: Routes::compile(self, index, keys)?,
            })
        });
        let groups = (0..self.target_groups.len()).map(|index| GroupPlan::new(self, index, keys));
        Ok(Plan {
            groups: groups.collect::<Result<_, _>>()?,
            listeners: listeners.collect::<Result<_, _>>()?,
        })
    }

    /// Checks everything, and keeps nothing of what is compiled. Reads the files of secrets.
    ///
    /// # Errors
    ///
    /// [`ProxyConfigError`] with the path of the first field that cannot be used, and why.
    pub fn check(&self) -> Result<(), ProxyConfigError> {
        let keys = Keys::new(&self.secrets).or_else(|error| {
            At::ROOT
                .field("secrets")
                .fail(Problem::Conflict(error.to_string()))
        })?;
        self.plan(&Arc::new(keys)).map(drop)
    }
}
