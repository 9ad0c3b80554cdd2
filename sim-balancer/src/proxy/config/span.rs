//! Durations in files: seconds, or a number with a unit.

use std::fmt;
use std::time::Duration;

use serde::de::{Error, Visitor};
use serde::{Deserializer, Serializer};

/// The units, the longest that divides a duration is written.
const UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// The longest duration that is read: a thousand years, in seconds. Sums of a few do not overflow.
const LONGEST: u64 = 31_536_000_000;

pub(super) fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&written(*value))
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    from.deserialize_any(Span)
}

/// The same for durations that may be absent.
pub(super) mod option {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    struct Inner(Duration);

    impl<'de> Deserialize<'de> for Inner {
        fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            super::deserialize(from).map(Self)
        }
    }

    pub(in crate::proxy::config) fn serialize<S: Serializer>(
        value: &Option<Duration>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => to.serialize_some(&super::written(*value)),
            None => to.serialize_none(),
        }
    }

    pub(in crate::proxy::config) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<Inner>::deserialize(from)?.map(|inner| inner.0))
    }
}

/// A duration as text that is read back as itself, but for what is below a millisecond.
pub(super) fn written(value: Duration) -> String {
    let millis = u64::try_from(value.as_millis()).unwrap_or(u64::MAX);
    if millis == 0 {
        return "0s".to_owned();
    }
    let unit = UNITS.iter().find(|(_, unit)| millis.is_multiple_of(*unit));
    unit.map_or_else(
        || format!("{millis}ms"),
        |(name, unit)| format!("{}{name}", millis / unit),
    )
}

fn read(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let count: u64 = text[..digits].parse().ok()?;
    let unit = match text[digits..].trim() {
        "" => 1_000,
        name => UNITS.iter().find(|(unit, _)| *unit == name)?.1,
    };
    let millis = count.checked_mul(unit)?;
    (millis <= LONGEST * 1_000).then(|| Duration::from_millis(millis))
}

struct Span;

impl Visitor<'_> for Span {
    type Value = Duration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("seconds, or a text such as \"500ms\", \"60s\", \"5m\", \"1h\", \"7d\"")
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Duration, E> {
        if value > LONGEST {
            return Err(E::custom(format_args!(
                "{value} seconds, at most {LONGEST}"
            )));
        }
        Ok(Duration::from_secs(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Duration, E> {
        let seconds = u64::try_from(value)
            .map_err(|_| E::custom(format_args!("{value} seconds, at least 0")))?;
        self.visit_u64(seconds)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Duration, E> {
        let span = Duration::try_from_secs_f64(value).ok();
        span.filter(|span| span.as_secs() <= LONGEST)
            .ok_or_else(|| E::custom(format_args!("{value} seconds, 0 to {LONGEST}")))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Duration, E> {
        read(value).ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(value), &self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for millis in [
            0,
            1,
            999,
            1_000,
            1_500,
            60_000,
            3_600_000,
            604_800_000,
            u64::from(u32::MAX),
        ] {
            let span = Duration::from_millis(millis);
            assert_eq!(read(&written(span)), Some(span), "{}", written(span));
        }
        assert_eq!(written(Duration::from_secs(604_800)), "7d");
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "s",
            "-1s",
            "1.5h",
            "1w",
            "99999999999999999999s",
            "1s2",
            "9999999999999d",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
