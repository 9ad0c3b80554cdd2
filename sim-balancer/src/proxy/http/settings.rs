//! [`Settings`]: what a listener's requests are held to, ready for use.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use ipnet::IpNet;

use crate::proxy::config::{DesyncMitigation, Protocol, XffMode};
use crate::proxy::tls::{MutualHeaders, SessionHeaders};

/// The status that the reference gives to more addresses than this in `X-Forwarded-For` is 463.
pub(crate) const MOST_FORWARDED: usize = 30;

/// Longest request line, in bytes (the reference's limit).
pub(crate) const LONGEST_REQUEST_LINE: usize = 16 * 1024;

/// Longest single field, in bytes (the reference's limit).
pub(crate) const LONGEST_FIELD: usize = 16 * 1024;

/// What a listener's requests are held to.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) protocol: Protocol,
    pub(crate) secure: bool,
    pub(crate) port: u16,
    pub(crate) port_value: HeaderValue,
    pub(crate) proto_value: HeaderValue,
    pub(crate) idle_timeout: Duration,
    pub(crate) client_keep_alive: Duration,
    pub(crate) request_timeout: Option<Duration>,
    pub(crate) xff_mode: XffMode,
    pub(crate) xff_client_port: bool,
    pub(crate) preserve_host: bool,
    pub(crate) drop_invalid_fields: bool,
    pub(crate) desync: DesyncMitigation,
    pub(crate) trace_id: bool,
    /// Peers whose `X-Forwarded-For` rules believe.
    pub(crate) trusted: Vec<IpNet>,
    /// The fields that tell of certificates and sessions.
    pub(crate) names: (MutualHeaders, SessionHeaders),
    /// Whether those have other names than usual.
    pub(crate) own_names: bool,
    /// Whether targets are told the session's version and cipher.
    pub(crate) session_fields: bool,
    pub(crate) http2: bool,
    pub(crate) keep_server: bool,
    /// Fields that every response gets, over those of the target.
    pub(crate) response_fields: Vec<(HeaderName, HeaderValue)>,
    pub(crate) largest_head: usize,
    pub(crate) most_body: u64,
    pub(crate) max_connections: usize,
    pub(crate) drain_timeout: Duration,
}
