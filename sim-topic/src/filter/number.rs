//! Numbers as policies compare them.

/// A number in a total order: every 64-bit integer and every double exactly, longer decimals as the nearest double.
///
/// The nearest double stands in the upper bits, in an encoding that sorts as the doubles do. Below it stands how far
/// an integer is from that double, which is not zero only beyond 2^53. Rounding is monotone, so the whole sorts as
/// the numbers do, and the number that follows a number is the one that follows its encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Number(u128);

impl Number {
    /// Below all numbers.
    pub(crate) const LEAST: Self = Self(0);
    /// Above all numbers.
    pub(crate) const GREATEST: Self = Self(u128::MAX);
    const RESIDUE: u32 = 16;
    const MIDDLE: i128 = 1 << 15;

    /// Reads a decimal; nothing when the text is none or is beyond the doubles.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        if let Some(small) = small_integer(text) {
            return Some(Self::of_integer(small));
        }
        let text = std::str::from_utf8(text).ok()?;
        if let Ok(integer) = text.parse::<i128>()
            && (i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(&integer)
        {
            return Some(Self::of_integer(integer));
        }
        // Words such as "inf" parse as doubles too.
        let starts = text
            .bytes()
            .find(|byte| !matches!(byte, b'+' | b'-' | b'.'));
        starts.filter(u8::is_ascii_digit)?;
        text.parse().ok().and_then(Self::of_double)
    }

    /// Encodes an integer of at most 64 bits.
    fn of_integer(integer: i128) -> Self {
        let double = integer as f64;
        let residue = integer - double as i128;
        Self(Self::encode(double) | (residue + Self::MIDDLE) as u128)
    }

    fn of_double(double: f64) -> Option<Self> {
        double
            .is_finite()
            .then(|| Self(Self::encode(double) | Self::MIDDLE as u128))
    }

    fn encode(double: f64) -> u128 {
        // Adding zero makes of the two zeros one.
        let bits = (double + 0.0).to_bits();
        let ordered = if bits >> 63 == 1 {
            !bits
        } else {
            bits | 1 << 63
        };
        u128::from(ordered) << Self::RESIDUE
    }

    /// The encoding that follows: what is above this number is at or above it.
    pub(crate) const fn above(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The encoding before: what is below this number is at or below it.
    pub(crate) const fn below(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// The encoding as bytes.
    pub(crate) const fn bytes(self) -> [u8; 16] {
        self.0.to_le_bytes()
    }
}

/// An integer of up to 18 digits, which is nearly every number there is.
fn small_integer(text: &[u8]) -> Option<i128> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || digits.len() > 18 {
        return None;
    }
    let mut value = 0_i64;
    for &digit in digits {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + i64::from(digit);
    }
    Some(i128::from(if negative { -value } else { value }))
}

/// How many decimals the text of a JSON number has, without trailing zeros.
pub(crate) fn decimals(text: &str) -> i64 {
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let fraction = mantissa
        .split_once('.')
        .map_or("", |(_, fraction)| fraction);
    let whole = mantissa
        .split_once('.')
        .map_or(mantissa, |(whole, _)| whole);
    let exponent: i64 = exponent.parse().unwrap_or(i64::MIN / 2);
    let fraction = fraction.trim_end_matches('0');
    let own = if fraction.is_empty() {
        let zeros = whole.len() - whole.trim_end_matches('0').len();
        if zeros == whole.trim_start_matches('-').len() {
            return 0; // zero itself
        }
        -(zeros as i64)
    } else {
        fraction.len() as i64
    };
    own.saturating_sub(exponent).max(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Number {
        Number::parse(text.as_bytes()).expect("a number")
    }

    #[test]
    fn numbers_sort_as_they_should() {
        let sorted = [
            "-1e300",
            "-9223372036854775808",
            "-9223372036854775807",
            "-12.5",
            "-1",
            "-1e-300",
            "0",
            "1e-300",
            "0.1",
            "1",
            "1.5",
            "2",
            "9007199254740991",
            "9007199254740992",
            "9007199254740993",
            "9007199254740994",
            "18446744073709551614",
            "18446744073709551615",
            "1e300",
        ];
        for pair in sorted.windows(2) {
            assert!(number(pair[0]) < number(pair[1]), "{pair:?}");
        }
        assert!(Number::LEAST < number(sorted[0]) && number("1e308") < Number::GREATEST);
    }

    #[test]
    fn one_number_has_one_encoding() {
        for (one, other) in [
            ("0", "-0"),
            ("0", "0.0e5"),
            ("100", "1e2"),
            ("100", "100.00"),
            ("+5", "5"),
            (".5", "0.5"),
            ("5.", "5"),
            ("-7", "-7.0"),
        ] {
            assert_eq!(number(one), number(other), "{one} {other}");
        }
        for wrong in [
            "", "-", "inf", "nan", "infinity", "1e999", "0x1", "1 ", "e5",
        ] {
            assert_eq!(Number::parse(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn decimals_are_counted_without_trailing_zeros() {
        for (text, count) in [
            ("1", 0),
            ("0", 0),
            ("1.5", 1),
            ("1.50", 1),
            ("1e-6", 6),
            ("1.5e-1", 2),
            ("1.23456", 5),
            ("1.234567e1", 5),
            ("100e-2", 0),
            ("0.0e-9", 0),
            ("0e99999999999999999999", 0),
        ] {
            assert_eq!(decimals(text), count, "{text}");
        }
        assert!(decimals("1e-99999999999999999999") > 5);
    }
}
