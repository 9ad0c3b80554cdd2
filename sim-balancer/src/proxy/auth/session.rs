//! Sessions in cookies, sealed and cut into shards.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sim_core::time::Timestamp;

use crate::proxy::cookie::{Keys, find, line, unwrap, wrap};

/// The most shards: ALB's.
const SHARDS: usize = 4;

/// Bytes of a shard: browsers keep 4,096 of a cookie with its name and attributes.
const SHARD: usize = 3_800;

/// What a session knows of a client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Session {
    #[serde(rename = "s")]
    pub(super) subject: String,
    #[serde(rename = "c")]
    pub(super) claims: Map<String, Value>,
    #[serde(rename = "a")]
    pub(super) access_token: String,
    #[serde(rename = "r", skip_serializing_if = "Option::is_none")]
    pub(super) refresh_token: Option<String>,
    /// When the access token expires, in milliseconds.
    #[serde(rename = "e")]
    pub(super) access_until: i64,
    /// When the session ends, whatever is refreshed, in milliseconds.
    #[serde(rename = "u")]
    pub(super) until: i64,
}

/// The session's cookies would be larger than browsers keep.
#[derive(Debug)]
pub(super) struct TooLarge;

/// Reads a session.
///
/// The first shard begins with their number, so that one that is left of an older session is not taken for a part.
pub(super) fn read(
    keys: &Keys,
    context: &str,
    name: &str,
    request: &HeaderMap,
    time: Timestamp,
) -> Option<Session> {
    let (count, first) = find(request, &format!("{name}-0"))?.split_once('.')?;
    let count: usize = count
        .parse()
        .ok()
        .filter(|count| (1..=SHARDS).contains(count))?;
    let mut text = first.to_owned();
    for shard in 1..count {
        text.push_str(find(request, &format!("{name}-{shard}"))?);
    }
    serde_json::from_slice(&unwrap(keys, context, &text, time)?).ok()
}

/// The cookies of a session, as values of `Set-Cookie`.
pub(super) fn lines(
    keys: &Keys,
    context: &str,
    name: &str,
    session: &Session,
    time: Timestamp,
    more: &str,
) -> Result<Vec<HeaderValue>, TooLarge> {
    let left = session.until.saturating_sub(time.as_unix_millis()).max(0);
    let left = Duration::from_millis(left.unsigned_abs());
    let plain = serde_json::to_vec(session).map_err(|_| TooLarge)?;
    let text = wrap(keys, context, &plain, time, left).ok_or(TooLarge)?;
    let count = text.len().div_ceil(SHARD);
    if count > SHARDS {
        return Err(TooLarge);
    }
    let shards = (0..count).map(|shard| {
        let part = &text[shard * SHARD..text.len().min((shard + 1) * SHARD)];
        let value = if shard == 0 {
            format!("{count}.{part}")
        } else {
            part.to_owned()
        };
        line(&format!("{name}-{shard}"), &value, time, left, more).ok_or(TooLarge)
    });
    shards.collect()
}

#[cfg(test)]
mod tests {
    use http::header::COOKIE;

    use super::*;
    use crate::proxy::config::SecretsConfig;

    const NOW: Timestamp = Timestamp::from_unix_seconds(1_700_000_000);

    fn session(size: usize) -> Session {
        Session {
            subject: "ada".to_owned(),
            claims: Map::from_iter([("sub".to_owned(), Value::from("ada"))]),
            access_token: "x".repeat(size),
            refresh_token: None,
            access_until: 0,
            until: NOW.as_unix_millis() + 60_000,
        }
    }

    fn request(lines: &[HeaderValue]) -> HeaderMap {
        let mut request = HeaderMap::new();
        for line in lines {
            let pair = line
                .to_str()
                .expect("text")
                .split(';')
                .next()
                .expect("a pair");
            request.append(COOKIE, HeaderValue::from_str(pair).expect("a value"));
        }
        request
    }

    #[test]
    fn a_session_comes_back_whole_from_its_shards() {
        let keys = Keys::new(&SecretsConfig::default()).expect("keys");
        for (size, shards) in [(10, 1), (4_000, 2), (8_000, 3), (10_500, 4)] {
            let whole = session(size);
            let lines = lines(&keys, "a", "S", &whole, NOW, "; HttpOnly").expect("small enough");
            assert_eq!(lines.len(), shards);
            assert!(lines.iter().all(|line| line.len() <= 4_096));
            let mut request = request(&lines);
            request.append(COOKIE, HeaderValue::from_static("S-4=left over"));
            assert_eq!(read(&keys, "a", "S", &request, NOW), Some(whole));
            assert_eq!(read(&keys, "b", "S", &request, NOW), None);
            assert_eq!(
                read(&keys, "a", "S", &request, NOW + Duration::from_secs(60)),
                None
            );
        }
    }

    #[test]
    fn a_session_that_browsers_would_not_keep_is_refused() {
        let keys = Keys::new(&SecretsConfig::default()).expect("keys");
        assert!(lines(&keys, "a", "S", &session(12_000), NOW, "").is_err());
    }

    #[test]
    fn shards_of_two_sessions_do_not_mix() {
        let keys = Keys::new(&SecretsConfig::default()).expect("keys");
        let one = lines(&keys, "a", "S", &session(4_000), NOW, "").expect("small enough");
        let two = lines(&keys, "a", "S", &session(4_000), NOW, "").expect("small enough");
        let mixed = request(&[one[0].clone(), two[1].clone()]);
        assert_eq!(read(&keys, "a", "S", &mixed, NOW), None);
        assert_eq!(read(&keys, "a", "S", &request(&one[..1]), NOW), None);
    }
}
