//! Redirects.

use bytes::Bytes;
use http::header::LOCATION;
use http::{HeaderValue, Response, StatusCode};

use super::plain;
use crate::proxy::config::{At, Problem, Protocol, ProxyConfigError, RedirectConfig};
use crate::proxy::rule::{Scope, View, split_host};

/// The longest host, path or query: AWS's.
const LONGEST: usize = 128;

/// The longest address that is sent, in bytes: paths and queries may be repeated.
const LONGEST_RESULT: usize = 32_768;

#[derive(Debug)]
pub(crate) struct Redirect {
    status: StatusCode,
    /// `None` keeps the request's.
    protocol: Option<Protocol>,
    host: Text,
    port: Option<u16>,
    path: Text,
    query: Text,
}

/// Text with placeholders.
#[derive(Debug)]
struct Text(Box<[Part]>);

#[derive(Debug)]
enum Part {
    Plain(Box<str>),
    Protocol,
    Host,
    Port,
    Path,
    Query,
}

impl Redirect {
    pub(super) fn compile(
        config: &RedirectConfig,
        scope: Scope<'_>,
        at: At<'_>,
    ) -> Result<Self, ProxyConfigError> {
        let status = match config.status_code.as_str() {
            "HTTP_301" => StatusCode::MOVED_PERMANENTLY,
            "HTTP_302" => StatusCode::FOUND,
            other => {
                return at
                    .field("status_code")
                    .invalid(other, "is neither HTTP_301 nor HTTP_302");
            }
        };
        let own = scope.listener.protocol;
        let protocol = match config.protocol.as_str() {
            "#{protocol}" => None,
            "HTTP" if own == Protocol::Https => {
                return at.field("protocol").fail(Problem::Conflict(
                    "nothing is redirected from HTTPS to HTTP".to_owned(),
                ));
            }
            "HTTP" => Some(Protocol::Http),
            "HTTPS" => Some(Protocol::Https),
            other => {
                return at
                    .field("protocol")
                    .invalid(other, "is neither HTTP, HTTPS nor #{protocol}");
            }
        };
        let port = match config.port.as_str() {
            "#{port}" => None,
            text => match text.parse::<u16>() {
                Ok(port) if port != 0 => Some(port),
                _ => {
                    return at
                        .field("port")
                        .invalid(text, "is neither 1 to 65535 nor #{port}");
                }
            },
        };
        for (field, text) in [
            ("host", &config.host),
            ("path", &config.path),
            ("query", &config.query),
        ] {
            at.field(field)
                .at_most("characters", text.chars().count(), LONGEST)?;
        }
        let host = Text::compile(&config.host, &["host"], at.field("host"), |c| {
            c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_')
        })?;
        if config.host.is_empty() {
            return at
                .field("host")
                .fail(Problem::Missing("a host, or #{host}"));
        }
        if !config.path.starts_with('/') {
            return at
                .field("path")
                .invalid(&config.path, "does not begin with a slash");
        }
        let is_url = |c: char| c.is_ascii_graphic() && !"\"<>\\^`{}|#".contains(c);
        let path = Text::compile(
            &config.path,
            &["host", "path", "port"],
            at.field("path"),
            |c| is_url(c) && c != '?',
        )?;
        if config.query.starts_with('?') {
            return at
                .field("query")
                .invalid(&config.query, "begins with a question mark, which is added");
        }
        let all = ["protocol", "host", "port", "path", "query"];
        let query = Text::compile(&config.query, &all, at.field("query"), is_url)?;
        let keeps_protocol = protocol.is_none_or(|protocol| protocol == own);
        let keeps_port = port.is_none_or(|port| port == scope.listener.port);
        if keeps_protocol && keeps_port && config.host == "#{host}" && config.path == "/#{path}" {
            return at.fail(Problem::Conflict(
                "protocol, host, port and path stay the same: the client would come back for ever"
                    .to_owned(),
            ));
        }
        Ok(Self {
            status,
            protocol,
            host,
            port,
            path,
            query,
        })
    }

    /// The answer; `None` for requests that no address can be made of.
    pub(super) fn respond(&self, view: &View<'_>) -> Option<Response<Bytes>> {
        let protocol = self.protocol.unwrap_or(view.protocol);
        let scheme = if protocol.is_secure() {
            "https"
        } else {
            "http"
        };
        let mut location = format!("{scheme}://");
        let host = location.len();
        self.host.write(view, &mut location);
        if location.len() == host {
            return None;
        }
        location.push(':');
        location.push_str(&self.port.unwrap_or(view.port).to_string());
        self.path.write(view, &mut location);
        let before = location.len();
        location.push('?');
        self.query.write(view, &mut location);
        if location.len() == before + 1 {
            location.pop();
        }
        if location.len() > LONGEST_RESULT {
            return None;
        }
        let location = HeaderValue::from_str(&location).ok()?;
        let mut response = plain(self.status);
        response.headers_mut().insert(LOCATION, location);
        Some(response)
    }
}

impl Text {
    fn compile(
        text: &str,
        known: &[&str],
        at: At<'_>,
        allowed: impl Fn(char) -> bool,
    ) -> Result<Self, ProxyConfigError> {
        let mut parts = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let (plain, after) = match rest.split_once("#{") {
                Some((plain, after)) => (plain, Some(after)),
                None => (rest, None),
            };
            if let Some(odd) = plain.chars().find(|c| !allowed(*c)) {
                return at.invalid(text, format!("has {odd:?}, which does not stand there"));
            }
            if !plain.is_empty() {
                parts.push(Part::Plain(plain.into()));
            }
            let Some(after) = after else {
                break;
            };
            let Some((name, left)) = after.split_once('}') else {
                return at.invalid(text, "has a placeholder that is not closed");
            };
            if !known.contains(&name) {
                let known = known.join("}, #{");
                return at.invalid(
                    text,
                    format!("has #{{{name}}}, but only #{{{known}}} stand there"),
                );
            }
            parts.push(match name {
                "protocol" => Part::Protocol,
                "host" => Part::Host,
                "port" => Part::Port,
                "path" => Part::Path,
                _ => Part::Query,
            });
            rest = left;
        }
        Ok(Self(parts.into()))
    }

    fn write(&self, view: &View<'_>, to: &mut String) {
        for part in &self.0 {
            match part {
                Part::Plain(text) => to.push_str(text),
                Part::Protocol => to.push_str(view.scheme()),
                Part::Host => to.push_str(split_host(view.host).0),
                Part::Port => to.push_str(&view.port.to_string()),
                Part::Path => to.push_str(view.path.strip_prefix('/').unwrap_or(view.path)),
                Part::Query => to.push_str(view.query.unwrap_or_default()),
            }
        }
    }
}
