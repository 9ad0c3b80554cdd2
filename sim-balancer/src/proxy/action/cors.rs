//! Requests from other origins, as the Fetch standard has browsers ask.

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderName, HeaderValue, Method, Response, StatusCode};

use super::{Edits, HeaderEdit};
use crate::proxy::config::{At, CorsConfig, Problem, ProxyConfigError};
use crate::proxy::rule::View;
use crate::proxy::rule::pattern::{Case, Wildcard};

#[derive(Debug)]
pub(crate) struct Cors {
    origins: Box<[Wildcard]>,
    is_any: bool,
    methods: HeaderValue,
    headers: Option<HeaderValue>,
    expose: Option<HeaderValue>,
    credentials: bool,
    max_age: HeaderValue,
}

impl Cors {
    pub(super) fn compile(config: &CorsConfig, at: At<'_>) -> Result<Self, ProxyConfigError> {
        if config.allow_origins.is_empty() {
            return at
                .field("allow_origins")
                .fail(Problem::Missing("an origin"));
        }
        at.field("allow_origins")
            .at_most("origins", config.allow_origins.len(), 64)?;
        let is_any = config.allow_origins.iter().any(|origin| origin == "*");
        if is_any && config.allow_credentials {
            return at.field("allow_credentials").fail(Problem::Conflict(
                "cookies are not sent for any origin: name the origins".to_owned(),
            ));
        }
        let origins = config.allow_origins.iter();
        Ok(Self {
            origins: origins
                .map(|origin| Wildcard::new(origin, Case::Insensitive))
                .collect(),
            is_any,
            methods: list(&config.allow_methods, at.field("allow_methods"))?
                .unwrap_or(HeaderValue::from_static("")),
            headers: list(&config.allow_headers, at.field("allow_headers"))?,
            expose: list(&config.expose_headers, at.field("expose_headers"))?,
            credentials: config.allow_credentials,
            max_age: HeaderValue::from(config.max_age.as_secs()),
        })
    }

    /// Marks the response of a request from an allowed origin, or answers its preflight.
    pub(super) fn apply(&self, view: &View<'_>, edits: &mut Edits) -> Option<Response<Bytes>> {
        let origin = view.headers.get(ORIGIN);
        if !self.is_any {
            edits
                .response
                .push(HeaderEdit::Append(VARY, HeaderValue::from_static("Origin")));
        }
        let is_preflight = *view.method == Method::OPTIONS
            && view.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        let origin = origin.filter(|origin| {
            self.origins
                .iter()
                .any(|known| known.matches(origin.as_bytes()))
        });
        if let Some(origin) = origin {
            let mut set = |name: HeaderName, value: &HeaderValue| {
                edits.response.push(HeaderEdit::Set(name, value.clone()));
            };
            let any = HeaderValue::from_static("*");
            set(
                ACCESS_CONTROL_ALLOW_ORIGIN,
                if self.is_any { &any } else { origin },
            );
            if self.credentials {
                set(
                    ACCESS_CONTROL_ALLOW_CREDENTIALS,
                    &HeaderValue::from_static("true"),
                );
            }
            if is_preflight {
                set(ACCESS_CONTROL_ALLOW_METHODS, &self.methods);
                if let Some(headers) = &self.headers {
                    set(ACCESS_CONTROL_ALLOW_HEADERS, headers);
                }
                set(ACCESS_CONTROL_MAX_AGE, &self.max_age);
            } else if let Some(expose) = &self.expose {
                set(ACCESS_CONTROL_EXPOSE_HEADERS, expose);
            }
        }
        if !is_preflight || !view.headers.contains_key(ORIGIN) {
            return None;
        }
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = StatusCode::NO_CONTENT;
        Some(response)
    }
}

fn list(values: &[String], at: At<'_>) -> Result<Option<HeaderValue>, ProxyConfigError> {
    at.at_most("values", values.len(), 64)?;
    for (index, value) in values.iter().enumerate() {
        if !crate::proxy::config::is_token(value) {
            return at.invalid(value, format!("is not a name (number {index})"));
        }
    }
    if values.is_empty() {
        return Ok(None);
    }
    let joined = values.join(", ");
    HeaderValue::from_str(&joined)
        .map(Some)
        .or_else(|_| at.invalid(&joined, "is not a header's value"))
}
