//! Cookies that tie a client to a target, or to a group.

use std::time::{Duration, SystemTime};

use http::header::SET_COOKIE;
use http::{HeaderMap, HeaderValue};
use ring::digest;
use sim_core::sync::Arc;
use sim_core::time::Timestamp;

use super::{Keys, find, given};
use crate::proxy::config::{StickinessKind, TargetGroupConfig};

const LB: &str = "AWSALB";
const LB_CORS: &str = "AWSALBCORS";
const APP: &str = "AWSALBAPP-0";
const GROUP: &str = "AWSALBTG";
const GROUP_CORS: &str = "AWSALBTGCORS";

/// Bytes of the application cookie's digest that are kept: SHA-256, halved.
const DIGEST: usize = 16;

/// Ties clients to targets of one group by cookies.
///
/// [`read`](Self::read) tells the target that a request belongs to, and [`write`](Self::write) marks its response.
#[derive(Debug, Clone)]
pub struct Sticky {
    keys: Arc<Keys>,
    /// Seals apart what belongs to different groups.
    context: String,
    duration: Duration,
    /// The application's cookie, where it is followed.
    app: Option<String>,
}

impl Sticky {
    /// The cookies of a group, if it has any.
    #[must_use]
    pub fn of(group: &TargetGroupConfig, keys: &Arc<Keys>) -> Option<Self> {
        let app = match group.stickiness.kind {
            StickinessKind::LbCookie => None,
            StickinessKind::AppCookie => Some(group.stickiness.cookie_name.clone()?),
            StickinessKind::None | StickinessKind::SourceIp => return None,
        };
        Some(Self {
            keys: Arc::clone(keys),
            context: format!("target {}", group.name),
            duration: group.stickiness.duration,
            app,
        })
    }

    /// The id of the target that a request belongs to.
    ///
    /// `None` for requests without the cookie, and for cookies that are forged, another group's, or too old. The target
    /// may be gone since.
    #[must_use]
    pub fn read(&self, request: &HeaderMap, time: Timestamp) -> Option<String> {
        let Some(app) = &self.app else {
            let open = |name| unwrap(&self.keys, &self.context, find(request, name)?, time);
            return String::from_utf8(open(LB).or_else(|| open(LB_CORS))?).ok();
        };
        let mut held = unwrap(&self.keys, &self.context, find(request, APP)?, time)?;
        let cookie = find(request, app)?;
        if held.len() < DIGEST || held[..DIGEST] != digest_of(cookie.as_bytes()) {
            return None;
        }
        String::from_utf8(held.split_off(DIGEST)).ok()
    }

    /// Marks a response as the target's: adds the load balancer's cookies or, when the application sets its own, the one
    /// that ties it to the target.
    pub fn write(&self, target: &str, response: &mut HeaderMap, time: Timestamp) {
        let Some(app) = &self.app else {
            let held = target.as_bytes();
            if let Some(token) = wrap(&self.keys, &self.context, held, time, self.duration) {
                let lines = pair(LB, LB_CORS, &token, time, self.duration);
                append(response, lines);
            }
            return;
        };
        let lines = response.get_all(SET_COOKIE).iter();
        let Some(value) = lines.rev().find_map(|line| given(line.as_bytes(), app)) else {
            return;
        };
        if value.is_empty() {
            let gone = HeaderValue::from_static("AWSALBAPP-0=_remove_; Max-Age=0; Path=/");
            response.append(SET_COOKIE, gone);
            return;
        }
        let bare = value
            .strip_prefix(b"\"")
            .and_then(|value| value.strip_suffix(b"\""));
        let mut held = digest_of(bare.unwrap_or(value)).to_vec();
        held.extend_from_slice(target.as_bytes());
        if let Some(token) = wrap(&self.keys, &self.context, &held, time, self.duration) {
            append(response, line(APP, &token, time, self.duration, ""));
        }
    }
}

/// Ties clients to groups of one action by the cookie `AWSALBTG`.
#[derive(Debug, Clone)]
pub(crate) struct GroupSticky {
    keys: Arc<Keys>,
    duration: Duration,
}

impl GroupSticky {
    pub(crate) fn new(keys: &Arc<Keys>, duration: Duration) -> Self {
        Self {
            keys: Arc::clone(keys),
            duration,
        }
    }

    /// The name of the group that a request belongs to.
    pub(crate) fn read(&self, request: &HeaderMap, time: Timestamp) -> Option<String> {
        let open = |name| unwrap(&self.keys, "group", find(request, name)?, time);
        String::from_utf8(open(GROUP).or_else(|| open(GROUP_CORS))?).ok()
    }

    /// The cookies that tie a client to a group, as values of `Set-Cookie`.
    pub(crate) fn lines(&self, group: &str, time: Timestamp) -> impl Iterator<Item = HeaderValue> {
        let token = wrap(&self.keys, "group", group.as_bytes(), time, self.duration);
        token
            .into_iter()
            .flat_map(move |token| pair(GROUP, GROUP_CORS, &token, time, self.duration))
    }
}

/// Seals what holds until a time.
pub(crate) fn wrap(
    keys: &Keys,
    context: &str,
    held: &[u8],
    time: Timestamp,
    duration: Duration,
) -> Option<String> {
    let mut plain = Vec::with_capacity(8 + held.len());
    plain.extend_from_slice(&later(time, duration).to_be_bytes());
    plain.extend_from_slice(held);
    keys.seal(context, &plain)
}

/// Opens what was sealed, unless its time is over.
pub(crate) fn unwrap(keys: &Keys, context: &str, text: &str, time: Timestamp) -> Option<Vec<u8>> {
    let mut plain = keys.open(context, text)?;
    let until = i64::from_be_bytes(*plain.first_chunk::<8>()?);
    (time.as_unix_millis() < until).then(|| plain.split_off(8))
}

fn later(time: Timestamp, duration: Duration) -> i64 {
    let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    time.as_unix_millis().saturating_add(millis)
}

fn append(response: &mut HeaderMap, lines: impl IntoIterator<Item = HeaderValue>) {
    for line in lines {
        response.append(SET_COOKIE, line);
    }
}

fn pair(
    name: &str,
    cors: &str,
    token: &str,
    time: Timestamp,
    duration: Duration,
) -> impl Iterator<Item = HeaderValue> + use<> {
    let plain = line(name, token, time, duration, "");
    let cors = line(cors, token, time, duration, "; SameSite=None; Secure");
    plain.into_iter().chain(cors)
}

/// A `Set-Cookie`'s value.
pub(crate) fn line(
    name: &str,
    value: &str,
    time: Timestamp,
    duration: Duration,
    more: &str,
) -> Option<HeaderValue> {
    let seconds = u64::try_from(later(time, duration)).ok()? / 1_000;
    // HTTP's dates have four digits for the year.
    let expires = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.min(253_402_300_799));
    let expires = httpdate::fmt_http_date(expires);
    HeaderValue::from_str(&format!("{name}={value}; Expires={expires}; Path=/{more}")).ok()
}

fn digest_of(value: &[u8]) -> [u8; DIGEST] {
    let whole = digest::digest(&digest::SHA256, value);
    let mut half = [0; DIGEST];
    half.copy_from_slice(&whole.as_ref()[..DIGEST]);
    half
}

#[cfg(test)]
mod tests {
    use http::header::COOKIE;

    use super::*;
    use crate::proxy::config::{SecretsConfig, StickinessConfig};

    const NOW: Timestamp = Timestamp::from_unix_seconds(1_700_000_000);

    fn keys() -> Arc<Keys> {
        Arc::new(Keys::new(&SecretsConfig::default()).expect("drawn keys"))
    }

    fn group(name: &str, kind: StickinessKind) -> TargetGroupConfig {
        TargetGroupConfig {
            name: name.to_owned(),
            stickiness: StickinessConfig {
                kind,
                duration: Duration::from_secs(60),
                cookie_name: (kind == StickinessKind::AppCookie).then(|| "sid".to_owned()),
            },
            ..Default::default()
        }
    }

    fn sticky(name: &str, kind: StickinessKind, keys: &Arc<Keys>) -> Sticky {
        Sticky::of(&group(name, kind), keys).expect("cookies")
    }

    /// What a browser would send after a response.
    fn browser(response: &HeaderMap, keep: impl Fn(&str) -> bool) -> HeaderMap {
        let mut request = HeaderMap::new();
        for line in response.get_all(SET_COOKIE) {
            let pair = line.to_str().expect("text").split(';').next();
            let pair = pair.expect("a pair");
            if keep(pair.split('=').next().expect("a name")) {
                request.append(COOKIE, HeaderValue::from_str(pair).expect("a value"));
            }
        }
        request
    }

    #[test]
    fn a_client_comes_back_to_its_target_until_the_time_is_over() {
        let keys = keys();
        let web = sticky("web", StickinessKind::LbCookie, &keys);
        let mut response = HeaderMap::new();
        web.write("10.0.0.1:80", &mut response, NOW);
        let lines: Vec<_> = response.get_all(SET_COOKIE).iter().collect();
        let lines: Vec<_> = lines
            .iter()
            .map(|line| line.to_str().expect("text"))
            .collect();
        assert_eq!(lines.len(), 2);
        assert!(lines[0].ends_with("; Expires=Tue, 14 Nov 2023 22:14:20 GMT; Path=/"));
        assert!(lines[1].ends_with("Path=/; SameSite=None; Secure"));
        for keep in ["AWSALB", "AWSALBCORS"] {
            let request = browser(&response, |name| name == keep);
            assert_eq!(web.read(&request, NOW).as_deref(), Some("10.0.0.1:80"));
            assert_eq!(web.read(&request, NOW + Duration::from_secs(60)), None);
            let api = sticky("api", StickinessKind::LbCookie, &keys);
            assert_eq!(api.read(&request, NOW), None);
        }
    }

    #[test]
    fn a_forged_cookie_is_as_good_as_none() {
        let web = sticky("web", StickinessKind::LbCookie, &keys());
        for forged in ["AWSALB=10.0.0.1:80", "AWSALB=", "AWSALB=AAAA", "AWSALB=%00"] {
            let mut request = HeaderMap::new();
            request.insert(COOKIE, HeaderValue::from_str(forged).expect("a value"));
            assert_eq!(web.read(&request, NOW), None, "{forged}");
        }
    }

    #[test]
    fn the_applications_cookie_binds_as_long_as_it_is_the_same() {
        let web = sticky("web", StickinessKind::AppCookie, &keys());
        let mut response = HeaderMap::new();
        web.write("a", &mut response, NOW);
        assert!(response.is_empty(), "the application set nothing");
        response.append(SET_COOKIE, HeaderValue::from_static("sid=7; HttpOnly"));
        web.write("a", &mut response, NOW);
        let request = browser(&response, |_| true);
        assert_eq!(web.read(&request, NOW).as_deref(), Some("a"));
        let mut without = browser(&response, |name| name != "sid");
        assert_eq!(web.read(&without, NOW), None);
        without.append(COOKIE, HeaderValue::from_static("sid=8"));
        assert_eq!(web.read(&without, NOW), None);
    }

    #[test]
    fn the_binding_goes_with_the_applications_cookie() {
        let web = sticky("web", StickinessKind::AppCookie, &keys());
        let mut response = HeaderMap::new();
        response.append(SET_COOKIE, HeaderValue::from_static("sid=; Max-Age=0"));
        web.write("a", &mut response, NOW);
        let lines: Vec<_> = response.get_all(SET_COOKIE).iter().collect();
        assert_eq!(lines[1], "AWSALBAPP-0=_remove_; Max-Age=0; Path=/");
    }

    #[test]
    fn a_client_comes_back_to_its_group() {
        let sticky = GroupSticky::new(&keys(), Duration::from_secs(10));
        let mut response = HeaderMap::new();
        append(&mut response, sticky.lines("blue", NOW));
        let request = browser(&response, |_| true);
        assert_eq!(sticky.read(&request, NOW).as_deref(), Some("blue"));
        assert_eq!(sticky.read(&request, NOW + Duration::from_secs(10)), None);
    }
}
