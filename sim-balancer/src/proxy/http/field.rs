//! Header fields on their way through: those of one hop are taken out, those of the proxy put in.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use bytes::BytesMut;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::proxy::config::XffMode;

pub(crate) const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(crate) const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub(crate) const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
pub(crate) const TRACE_ID: HeaderName = HeaderName::from_static("x-amzn-trace-id");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// What one look over the fields of a request or a response found.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Scan {
    pub(crate) connection: bool,
    pub(crate) keep_alive: bool,
    pub(crate) proxy_connection: bool,
    pub(crate) te: bool,
    pub(crate) transfer_encoding: bool,
    pub(crate) content_length: bool,
    pub(crate) upgrade: bool,
    pub(crate) expect: bool,
    pub(crate) grpc: bool,
    /// Fields named `Host`.
    pub(crate) hosts: u32,
    /// Whether there is an `X-Forwarded-For`.
    pub(crate) forwarded: bool,
    pub(crate) trace: bool,
    /// Whether there is another field that only the proxy may set.
    pub(crate) amazon: bool,
    /// Bytes of the largest field.
    pub(crate) largest: usize,
    /// Bytes of all fields.
    pub(crate) total: usize,
    /// Whether a name has other characters than letters, digits and hyphens.
    pub(crate) invalid: bool,
}

/// Looks over the fields once.
pub(crate) fn scan(headers: &HeaderMap) -> Scan {
    let mut scan = Scan::default();
    for (name, value) in headers {
        let size = name.as_str().len() + value.len();
        scan.total += size + 4;
        scan.largest = scan.largest.max(size);
        match *name {
            header::HOST => scan.hosts += 1,
            header::CONNECTION => scan.connection = true,
            header::TE => scan.te = true,
            header::TRANSFER_ENCODING => scan.transfer_encoding = true,
            header::CONTENT_LENGTH => scan.content_length = true,
            header::UPGRADE => scan.upgrade = true,
            header::EXPECT => scan.expect = true,
            header::CONTENT_TYPE => scan.grpc = is_grpc(value),
            header::ACCEPT | header::USER_AGENT | header::ACCEPT_ENCODING | header::COOKIE => {}
            _ => {
                let name = name.as_str();
                match name {
                    "x-forwarded-for" => scan.forwarded = true,
                    "x-amzn-trace-id" => scan.trace = true,
                    "keep-alive" => scan.keep_alive = true,
                    "proxy-connection" => scan.proxy_connection = true,
                    _ => {
                        scan.amazon |= name.starts_with("x-amzn-");
                        scan.invalid |= !is_plain(name);
                    }
                }
            }
        }
    }
    scan
}

fn is_grpc(value: &HeaderValue) -> bool {
    value
        .as_bytes()
        .strip_prefix(b"application/grpc")
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')))
}

/// Whether a name is one of `[A-Za-z0-9-]+`.
fn is_plain(name: &str) -> bool {
    name.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// Takes out the fields whose names are not plain.
pub(crate) fn drop_invalid(headers: &mut HeaderMap) {
    let names: Vec<HeaderName> = headers
        .keys()
        .filter(|name| !is_plain(name.as_str()))
        .cloned()
        .collect();
    for name in names {
        headers.remove(name);
    }
}

/// Whether the value of a list field has `token`, in any case.
fn has_token(value: &HeaderValue, token: &str) -> bool {
    value.to_str().is_ok_and(|value| {
        value
            .split(',')
            .any(|part| part.trim().eq_ignore_ascii_case(token))
    })
}

/// The only protocol that a connection may leave HTTP/1.1 for.
pub(crate) const WEBSOCKET: &str = "websocket";

/// Whether `Upgrade` names WebSocket and nothing else.
///
/// Other protocols, `h2c` above all, would carry further requests past all rules.
pub(crate) fn is_websocket(headers: &HeaderMap) -> bool {
    let mut named = headers.get_all(header::UPGRADE).iter();
    let first = named.next();
    first.is_some_and(|value| {
        let value = value.as_bytes().trim_ascii();
        value.eq_ignore_ascii_case(WEBSOCKET.as_bytes())
    }) && named.next().is_none()
}

/// Whether a request asks to leave HTTP/1.1 for WebSocket: `Connection: upgrade` with `Upgrade: websocket`.
pub(crate) fn wants_upgrade(headers: &HeaderMap, scan: &Scan) -> bool {
    scan.upgrade
        && scan.connection
        && is_websocket(headers)
        && headers
            .get_all(header::CONNECTION)
            .iter()
            .any(|value| has_token(value, "upgrade"))
}

/// Takes out what is meant for one hop only: `Connection` and what it names, `Keep-Alive`, `Proxy-Connection`, `TE`,
/// `Transfer-Encoding`, `Upgrade` and `HTTP2-Settings`.
pub(crate) fn strip_hop(headers: &mut HeaderMap, scan: &Scan) {
    if scan.connection {
        let named: Vec<HeaderName> = headers
            .get_all(header::CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|token| token.trim().parse().ok())
            // What makes a message be what it is no `Connection` can take out.
            .filter(|name| {
                !matches!(
                    *name,
                    header::HOST | header::CONTENT_LENGTH | header::AUTHORIZATION | header::COOKIE
                )
            })
            .collect();
        for name in named {
            headers.remove(name);
        }
        headers.remove(header::CONNECTION);
    }
    if scan.keep_alive {
        headers.remove(KEEP_ALIVE);
    }
    if scan.proxy_connection {
        headers.remove(PROXY_CONNECTION);
    }
    if scan.te {
        headers.remove(header::TE);
    }
    if scan.transfer_encoding {
        headers.remove(header::TRANSFER_ENCODING);
    }
    if scan.upgrade {
        headers.remove(header::UPGRADE);
        headers.remove(HTTP2_SETTINGS);
    }
}

/// How many addresses the fields `X-Forwarded-For` hold.
pub(crate) fn forwarded_addresses(headers: &HeaderMap) -> usize {
    headers
        .get_all(FORWARDED_FOR)
        .iter()
        .map(|value| {
            value
                .as_bytes()
                .split(|byte| *byte == b',')
                .filter(|part| !part.trim_ascii().is_empty())
                .count()
        })
        .sum()
}

/// The value of `X-Forwarded-For` for a client without one.
pub(crate) fn client_value(peer: SocketAddr, with_port: bool) -> HeaderValue {
    let text = match (peer.ip(), with_port) {
        (ip, false) => ip.to_string(),
        (IpAddr::V4(ip), true) => format!("{ip}:{}", peer.port()),
        (IpAddr::V6(ip), true) => format!("[{ip}]:{}", peer.port()),
    };
    HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
}

/// Tells the target who the client is, as the mode says.
pub(crate) fn forward_client(
    headers: &mut HeaderMap,
    scan: &Scan,
    mode: XffMode,
    client: &HeaderValue,
) {
    match mode {
        XffMode::Preserve => {}
        XffMode::Remove => {
            if scan.forwarded {
                headers.remove(FORWARDED_FOR);
            }
        }
        _ => {
            if !scan.forwarded {
                headers.insert(FORWARDED_FOR, client.clone());
                return;
            }
            let mut joined = BytesMut::with_capacity(64);
            for value in headers.get_all(FORWARDED_FOR) {
                joined.extend_from_slice(value.as_bytes());
                joined.extend_from_slice(b", ");
            }
            joined.extend_from_slice(client.as_bytes());
            let value = HeaderValue::from_maybe_shared(joined.freeze());
            headers.insert(FORWARDED_FOR, value.unwrap_or_else(|_| client.clone()));
        }
    }
}

/// What targets are told of a client that has logged in begins with this.
const LOGGED_IN: &str = "x-amzn-oidc-";

/// Takes out what only a log-in may say of a client, whichever rule the request goes by.
pub(crate) fn strip_log_in(headers: &mut HeaderMap) {
    let names: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with(LOGGED_IN))
        .cloned()
        .collect();
    for name in names {
        headers.remove(name);
    }
}

/// A new value for `X-Amzn-Trace-Id`, or the client's with this hop's id before it.
pub(crate) fn trace_id(
    former: Option<&HeaderValue>,
    seconds: u32,
    random: [u64; 2],
) -> HeaderValue {
    let mut text = String::with_capacity(96);
    let former = former
        .and_then(|value| value.to_str().ok())
        .filter(|value| value.contains("Root="));
    text.push_str(if former.is_some() {
        "Self=1-"
    } else {
        "Root=1-"
    });
    push_hex(&mut text, u64::from(seconds), 8);
    text.push('-');
    push_hex(&mut text, random[0], 16);
    push_hex(&mut text, random[1], 8);
    if let Some(former) = former {
        // The id that a former hop set for itself goes.
        for part in former.split(';').map(str::trim) {
            if !part.starts_with("Self=") && !part.is_empty() {
                let _ = write!(text, ";{part}");
            }
        }
    }
    HeaderValue::from_maybe_shared(bytes::Bytes::from(text))
        .unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// Appends the lowest `digits` hexadecimal digits.
fn push_hex(text: &mut String, value: u64, digits: u32) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for place in (0..digits).rev() {
        text.push(char::from(DIGITS[(value >> (4 * place)) as usize & 15]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect()
    }

    #[test]
    fn what_connection_names_goes_with_it() {
        let mut headers = map(&[
            ("host", "a"),
            ("connection", "close, X-Secret, Host"),
            ("x-secret", "1"),
            ("te", "trailers"),
            ("keep-alive", "5"),
            ("transfer-encoding", "chunked"),
            ("x-kept", "1"),
        ]);
        let found = scan(&headers);
        strip_hop(&mut headers, &found);
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["host", "x-kept"]);
    }

    #[test]
    fn only_websocket_leaves_http() {
        for (upgrade, expected) in [
            ("websocket", true),
            ("WebSocket", true),
            ("h2c", false),
            ("websocket, h2c", false),
            ("h2c, websocket", false),
            ("tls/1.0", false),
            ("", false),
        ] {
            let headers = map(&[("connection", "keep-alive, Upgrade"), ("upgrade", upgrade)]);
            let found = scan(&headers);
            assert_eq!(wants_upgrade(&headers, &found), expected, "{upgrade:?}");
        }
        let mut twice = map(&[("connection", "upgrade"), ("upgrade", "websocket")]);
        twice.append(header::UPGRADE, HeaderValue::from_static("h2c"));
        let found = scan(&twice);
        assert!(!wants_upgrade(&twice, &found));
    }

    #[test]
    fn what_a_client_says_of_its_own_log_in_goes() {
        let mut headers = map(&[
            ("x-amzn-oidc-identity", "eve"),
            ("x-amzn-oidc-data", "eve"),
            ("x-amzn-oidc-accesstoken", "eve"),
            ("x-amzn-other", "1"),
        ]);
        assert!(scan(&headers).amazon);
        strip_log_in(&mut headers);
        let left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["x-amzn-other"]);
    }

    #[test]
    fn the_client_is_appended_preserved_or_removed() {
        let client = client_value("[::1]:80".parse().unwrap(), true);
        assert_eq!(client, "[::1]:80");
        let client = client_value("10.0.0.9:80".parse().unwrap(), false);
        for (mode, before, after) in [
            (XffMode::Append, Some("1.1.1.1"), Some("1.1.1.1, 10.0.0.9")),
            (XffMode::Append, None, Some("10.0.0.9")),
            (XffMode::Preserve, Some("1.1.1.1"), Some("1.1.1.1")),
            (XffMode::Preserve, None, None),
            (XffMode::Remove, Some("1.1.1.1"), None),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(before) = before {
                headers.insert(FORWARDED_FOR, HeaderValue::from_static(before));
            }
            let found = scan(&headers);
            forward_client(&mut headers, &found, mode, &client);
            let value = headers
                .get(FORWARDED_FOR)
                .map(|value| value.to_str().unwrap());
            assert_eq!(value, after, "{mode:?} {before:?}");
        }
    }

    #[test]
    fn addresses_are_counted_over_all_lines() {
        let mut headers = HeaderMap::new();
        headers.append(FORWARDED_FOR, HeaderValue::from_static("1.1.1.1, 2.2.2.2,"));
        headers.append(FORWARDED_FOR, HeaderValue::from_static("3.3.3.3"));
        assert_eq!(forwarded_addresses(&headers), 3);
    }

    #[test]
    fn a_trace_keeps_its_root() {
        let new = trace_id(None, 0x5f00_0001, [0x0123_4567_89ab_cdef, 0x1234_5678]);
        assert_eq!(new, "Root=1-5f000001-0123456789abcdef12345678");
        let former = HeaderValue::from_static("Self=1-1-1;Root=1-2-3;Lineage=x");
        let next = trace_id(Some(&former), 1, [0, 0]);
        assert_eq!(
            next,
            "Self=1-00000001-000000000000000000000000;Root=1-2-3;Lineage=x"
        );
    }

    #[test]
    fn names_with_other_characters_are_invalid() {
        let mut headers = map(&[("x_a", "1"), ("x-b", "2"), ("x.c", "3")]);
        assert!(scan(&headers).invalid);
        drop_invalid(&mut headers);
        assert_eq!(headers.len(), 1);
        assert!(!scan(&headers).invalid);
    }

    #[test]
    fn grpc_is_told_by_its_content_type() {
        for (value, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc-web", false),
            ("text/plain", false),
        ] {
            assert_eq!(
                is_grpc(&HeaderValue::from_static(value)),
                expected,
                "{value}"
            );
        }
    }
}
