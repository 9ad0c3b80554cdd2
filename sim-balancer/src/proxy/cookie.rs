//! Cookies: reading what clients send, and the proxy's own, which are encrypted.
//!
//! A client cannot choose a target: what its cookie holds is sealed with AES-256-GCM under the proxy's key, together
//! with its expiry and the group's name. One that cannot be opened is as good as none.
//!
//! | cookie | holds | set |
//! | --- | --- | --- |
//! | `AWSALB`, `AWSALBCORS` | the target | with every response, so that its time starts anew |
//! | `AWSALBAPP-0` | the target, and a digest of the application's cookie | when the application sets its cookie |
//! | `AWSALBTG`, `AWSALBTGCORS` | the target group | when a group is chosen |
//! | `AWSELBAuthSessionCookie-0` to `-3` | claims and tokens ([`super::auth`]) | at the end of a log-in |
//!
//! The `CORS` ones are the same with `SameSite=None; Secure`, for browsers that send no others across sites. ALB spreads
//! `AWSALBAPP` over four cookies; one is enough for what is in it here.

mod keys;
mod sticky;

use http::HeaderMap;
use http::header::COOKIE;

pub use keys::{Keys, KeysError};
pub use sticky::Sticky;
pub(crate) use sticky::{GroupSticky, line, unwrap, wrap};

/// The longest name or value that is looked at, in bytes: four times what browsers keep.
const LONGEST: usize = 16_384;

/// The value of a request's cookie; the first, if there are several.
///
/// What is no cookie, is not text, or is longer than 16 KiB is passed over.
#[must_use]
pub fn find<'h>(request: &'h HeaderMap, name: &str) -> Option<&'h str> {
    request.get_all(COOKIE).iter().find_map(|line| {
        line.as_bytes()
            .split(|byte| *byte == b';')
            .find_map(|pair| {
                let pair = pair.trim_ascii();
                let value = pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
                let value = value
                    .strip_prefix(b"\"")
                    .and_then(|inner| inner.strip_suffix(b"\""))
                    .unwrap_or(value);
                if value.len() > LONGEST {
                    return None;
                }
                std::str::from_utf8(value).ok()
            })
    })
}

/// The value that a `Set-Cookie` gives to a cookie of the name; `None` if it is another's.
pub(crate) fn given<'h>(line: &'h [u8], name: &str) -> Option<&'h [u8]> {
    let pair = line.split(|byte| *byte == b';').next()?.trim_ascii();
    pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn request(lines: &[&[u8]]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(
                COOKIE,
                HeaderValue::from_bytes(line).expect("a header's value"),
            );
        }
        headers
    }

    #[test]
    fn a_cookie_is_found_among_others() {
        let headers = request(&[b"a=1;  b=2; ab=3", b"c=\"4\"; b=5; d=; e"]);
        assert_eq!(find(&headers, "a"), Some("1"));
        assert_eq!(find(&headers, "b"), Some("2"));
        assert_eq!(find(&headers, "ab"), Some("3"));
        assert_eq!(find(&headers, "c"), Some("4"));
        assert_eq!(find(&headers, "d"), Some(""));
        assert_eq!(find(&headers, "e"), None);
        assert_eq!(find(&headers, "A"), None);
    }

    #[test]
    fn what_is_not_text_is_passed_over() {
        let headers = request(&[b"a=\xff; a=2"]);
        assert_eq!(find(&headers, "a"), Some("2"));
    }

    #[test]
    fn the_name_that_a_response_sets_is_read() {
        assert_eq!(given(b"sid=7; Path=/", "sid"), Some(&b"7"[..]));
        assert_eq!(given(b"sid2=7", "sid"), None);
        assert_eq!(given(b"", "sid"), None);
    }

    proptest! {
        #[test]
        fn no_header_makes_it_panic(line in proptest::collection::vec(0x20_u8..=0x7e, 0..200), name in "[a-z]{1,4}") {
            let headers = request(&[&line]);
            let naive = String::from_utf8(line).expect("ascii");
            let naive = naive.split(';').filter_map(|pair| pair.trim_matches(' ').split_once('=')).find(|(key, _)| *key == name);
            let naive = naive.map(|(_, value)| value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(value));
            prop_assert_eq!(find(&headers, &name), naive);
        }
    }
}
