//! Where an endpoint posts to: a URL, taken apart once.

use http::header::HeaderValue;
use http::uri::{Authority, PathAndQuery, Uri};
use rustls::pki_types::ServerName;

use super::HttpError;
use crate::envelope::base64;

/// The longest URL, in bytes.
const MAX_BYTES: usize = 2_048;

pub(super) struct Target {
    /// The URL without user and password, for errors.
    pub(super) url: String,
    pub(super) host: String,
    pub(super) port: u16,
    /// Whom the server's certificate must name, over TLS.
    pub(super) tls: Option<ServerName<'static>>,
    /// Path and query, as a request line has them.
    pub(super) path: Uri,
    pub(super) host_header: HeaderValue,
    pub(super) authorization: Option<HeaderValue>,
}

impl Target {
    pub(super) fn parse(url: &str) -> Result<Self, HttpError> {
        take_apart(url).map_err(|reason| HttpError::Url {
            url: without_user(url),
            reason,
        })
    }
}

fn take_apart(url: &str) -> Result<Target, &'static str> {
    if url.len() > MAX_BYTES {
        return Err("it has more than 2048 bytes");
    }
    let (scheme, rest) = url.split_once("://").ok_or("there is no scheme")?;
    let is_https = scheme.eq_ignore_ascii_case("https");
    if !is_https && !scheme.eq_ignore_ascii_case("http") {
        return Err("the scheme is not http or https");
    }
    // A fragment stays with the client.
    let rest = rest.split('#').next().unwrap_or_default();
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let (user, authority) = match authority.rsplit_once('@') {
        None => (None, authority),
        Some((user, authority)) => (Some(user), authority),
    };
    let authority: Authority = authority.parse().map_err(|_| "the host is no host")?;
    let bare = authority.host();
    let host = bare
        .strip_prefix('[')
        .and_then(|inner| inner.strip_suffix(']'))
        .unwrap_or(bare)
        .to_owned();
    if host.is_empty() {
        return Err("there is no host");
    }
    let port = match authority.as_str().strip_prefix(bare) {
        None | Some("") => {
            if is_https {
                443
            } else {
                80
            }
        }
        Some(port) => port
            .strip_prefix(':')
            .and_then(|digits| digits.parse().ok())
            .filter(|port| *port != 0)
            .ok_or("the port is not a number between 1 and 65535")?,
    };
    let path = match path {
        "" => PathAndQuery::from_static("/"),
        path if path.starts_with('?') => format!("/{path}").parse().map_err(|_| BAD_PATH)?,
        path => path.parse().map_err(|_| BAD_PATH)?,
    };
    let tls = if is_https {
        let name = ServerName::try_from(host.clone())
            .map_err(|_| "the host is no name that a certificate can have")?;
        Some(name)
    } else {
        None
    };
    Ok(Target {
        url: format!(
            "{}://{authority}{path}",
            if is_https { "https" } else { "http" }
        ),
        host_header: HeaderValue::from_str(authority.as_str())
            .map_err(|_| "the host is no host")?,
        authorization: user.map(basic).transpose()?,
        host,
        port,
        tls,
        path: path.into(),
    })
}

const BAD_PATH: &str = "path or query have characters that have to be encoded";

/// The header of basic authentication (RFC 7617) for `user:password`, each percent-encoded.
fn basic(user: &str) -> Result<HeaderValue, &'static str> {
    let (user, password) = user.split_once(':').unwrap_or((user, ""));
    let user = decoded(user).ok_or("a % in the user is not followed by two digits")?;
    let password = decoded(password).ok_or("a % in the password is not followed by two digits")?;
    if user.contains(&b':') {
        return Err("the user has a colon, which basic authentication cannot carry");
    }
    let pair = [&*user, b":", &password].concat();
    let mut value = HeaderValue::from_str(&format!("Basic {}", base64::encode(&pair)))
        .map_err(|_| "user or password cannot stand in a header")?;
    value.set_sensitive(true);
    Ok(value)
}

/// Takes percent-encoding off.
fn decoded(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let mut digit = || char::from(bytes.next()?).to_digit(16);
            let value = digit()? * 16 + digit()?;
            out.push(u8::try_from(value).ok()?);
        } else {
            out.push(byte);
        }
    }
    Some(out)
}

/// A URL for an error: cut, and without user and password.
fn without_user(url: &str) -> String {
    const LONGEST: usize = 100;
    let cut = |text: &str| match text.char_indices().nth(LONGEST) {
        None => text.to_owned(),
        Some((at, _)) => format!("{}...", &text[..at]),
    };
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let authority = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    match rest[..authority].rsplit_once('@') {
        None => cut(url),
        Some((_, host)) => cut(&format!("{scheme}://{host}{}", &rest[authority..])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Target {
        Target::parse(url).unwrap()
    }

    #[test]
    fn a_url_is_taken_apart() {
        let target = parse("https://user:pass@sns.example:8443/hook/a?b=c#d");
        assert_eq!((&*target.host, target.port), ("sns.example", 8443));
        assert_eq!(target.path, "/hook/a?b=c");
        assert_eq!(target.host_header, "sns.example:8443");
        assert_eq!(target.url, "https://sns.example:8443/hook/a?b=c");
        assert_eq!(
            target.tls,
            Some(ServerName::try_from("sns.example").unwrap())
        );
        // RFC 7617: base64 of user:pass.
        assert_eq!(target.authorization.unwrap(), "Basic dXNlcjpwYXNz");
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        let target = parse("HTTP://localhost");
        assert_eq!((target.port, target.tls.is_none()), (80, true));
        assert_eq!(target.path, "/");
        assert!(target.authorization.is_none());
        assert_eq!(parse("https://h").port, 443);
        assert_eq!(parse("http://h?x=1").path, "/?x=1");
        let target = parse("https://[::1]:9/");
        assert_eq!((&*target.host, target.port), ("::1", 9));
        assert_eq!(target.host_header, "[::1]:9");
    }

    #[test]
    fn user_and_password_are_decoded_and_never_shown() {
        let target = parse("http://a%40b:p%3A%2f@h/");
        let value = target.authorization.unwrap();
        assert_eq!(
            value,
            format!("Basic {}", base64::encode(b"a@b:p:/")).as_str()
        );
        assert!(value.is_sensitive());
        assert_eq!(target.url, "http://h/");
        let error = Target::parse("http://me:secret@h:x/")
            .map(|_| ())
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "url is \"http://h:x/\": the port is not a number between 1 and 65535"
        );
    }

    #[test]
    fn a_url_that_cannot_be_posted_to_is_refused_with_the_reason() {
        for (url, reason) in [
            ("", "there is no scheme"),
            ("localhost:80/", "there is no scheme"),
            ("ftp://h/", "the scheme is not http or https"),
            ("http://", "the host is no host"),
            ("http:///path", "the host is no host"),
            ("http://a b/", "the host is no host"),
            ("http://:80/", "there is no host"),
            (
                "http://h:0/",
                "the port is not a number between 1 and 65535",
            ),
            ("http://h/a b", BAD_PATH),
            ("http://h/\r\nx: y", BAD_PATH),
            (
                "http://%zz@h/",
                "a % in the user is not followed by two digits",
            ),
            (
                "http://u:%f@h/",
                "a % in the password is not followed by two digits",
            ),
            (
                "http://a%3Ab:c@h/",
                "the user has a colon, which basic authentication cannot carry",
            ),
        ] {
            match Target::parse(url) {
                Err(HttpError::Url { reason: found, .. }) => assert_eq!(found, reason, "{url}"),
                _ => panic!("{url}"),
            }
        }
        let long = format!("http://h/{}", "x".repeat(2_048));
        assert!(matches!(
            Target::parse(&long),
            Err(HttpError::Url {
                reason: "it has more than 2048 bytes",
                ..
            })
        ));
    }
}
