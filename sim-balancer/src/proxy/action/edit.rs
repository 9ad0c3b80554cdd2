//! What the target and the client see in place of what was sent.

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::proxy::config::{At, HeaderEditConfig, HeadersConfig, ProxyConfigError};

/// What the target and the client see in place of what was sent.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Edits {
    /// The host in place of the client's.
    pub host: Option<HeaderValue>,
    /// The path and query in place of the client's.
    pub path_and_query: Option<PathAndQuery>,
    /// What happens to the request's headers, in this order.
    pub request: Vec<HeaderEdit>,
    /// What happens to the response's headers, in this order.
    pub response: Vec<HeaderEdit>,
}

/// What happens to headers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeaderEdit {
    /// All of the name go, and this comes.
    Set(HeaderName, HeaderValue),
    /// This comes too.
    Append(HeaderName, HeaderValue),
    /// All of the name go.
    Remove(HeaderName),
}

impl HeaderEdit {
    fn apply(&self, headers: &mut HeaderMap) {
        match self {
            Self::Set(name, value) => _ = headers.insert(name, value.clone()),
            Self::Append(name, value) => _ = headers.append(name, value.clone()),
            Self::Remove(name) => _ = headers.remove(name),
        }
    }
}

impl Edits {
    pub(super) fn compile(config: &HeadersConfig, at: At<'_>) -> Result<Self, ProxyConfigError> {
        Ok(Self {
            request: edits(
                ("request_remove", &config.request_remove),
                ("request_set", &config.request_set),
                at,
            )?,
            response: edits(
                ("response_remove", &config.response_remove),
                ("response_set", &config.response_set),
                at,
            )?,
            ..Self::default()
        })
    }

    /// Whether all stays as it was sent.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.host.is_none()
            && self.path_and_query.is_none()
            && self.request.is_empty()
            && self.response.is_empty()
    }

    /// Changes a request's headers; the host is not among them.
    pub fn apply_request(&self, headers: &mut HeaderMap) {
        self.request.iter().for_each(|edit| edit.apply(headers));
    }

    /// Changes a response's headers.
    pub fn apply_response(&self, headers: &mut HeaderMap) {
        self.response.iter().for_each(|edit| edit.apply(headers));
    }

    pub(crate) fn extend(&mut self, other: &Self) {
        self.request.extend_from_slice(&other.request);
        self.response.extend_from_slice(&other.response);
    }
}

fn edits(
    (remove_field, remove): (&str, &[String]),
    (set_field, set): (&str, &[HeaderEditConfig]),
    at: At<'_>,
) -> Result<Vec<HeaderEdit>, ProxyConfigError> {
    at.field(remove_field)
        .at_most("headers", remove.len(), 64)?;
    at.field(set_field).at_most("headers", set.len(), 64)?;
    let mut edits = Vec::with_capacity(remove.len() + set.len());
    for (index, name) in remove.iter().enumerate() {
        edits.push(HeaderEdit::Remove(header_name(
            name,
            at.part(remove_field, index),
        )?));
    }
    for (index, config) in set.iter().enumerate() {
        let at = at.part(set_field, index);
        let name = header_name(&config.name, at.field("name"))?;
        let value = HeaderValue::from_str(&config.value).or_else(|_| {
            at.field("value")
                .invalid(&config.value, "is not a header's value")
        })?;
        edits.push(match config.append {
            true => HeaderEdit::Append(name, value),
            false => HeaderEdit::Set(name, value),
        });
    }
    Ok(edits)
}

/// Headers that frame messages or belong to one connection: changing them would break what is sent.
const FRAMING: [&str; 7] = [
    "connection",
    "content-length",
    "host",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

pub(super) fn header_name(name: &str, at: At<'_>) -> Result<HeaderName, ProxyConfigError> {
    let Ok(header) = HeaderName::from_bytes(name.as_bytes()) else {
        return at.invalid(name, "is not a header's name");
    };
    if FRAMING.contains(&header.as_str()) {
        return at.invalid(name, "frames messages, and is the proxy's own");
    }
    Ok(header)
}
