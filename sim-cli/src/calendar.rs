//! Dates in UTC: what the input's timestamps, the log and the chart's axis need of a calendar.

/// Seconds of a day.
pub(crate) const DAY: i64 = 86_400;

/// A day in the proleptic Gregorian calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Date {
    /// The year.
    pub(crate) year: i64,
    /// The month, 1 to 12.
    pub(crate) month: u8,
    /// The day of the month, 1 to 31.
    pub(crate) day: u8,
}

impl Date {
    /// The day that many days after 1970-01-01.
    ///
    /// Howard Hinnant, "chrono-compatible low-level date algorithms", `civil_from_days`: years begin in March,
    /// so that the leap day is the last day of one.
    pub(crate) const fn from_days(days: i64) -> Self {
        let days = days + 719_468;
        let era = days.div_euclid(146_097);
        let of_era = days.rem_euclid(146_097);
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * of_year + 2) / 153;
        let day = of_year - (153 * from_march + 2) / 5 + 1;
        let month = if from_march < 10 {
            from_march + 3
        } else {
            from_march - 9
        };
        let year = year_of_era + era * 400 + if month <= 2 { 1 } else { 0 };
        Self {
            year,
            month: month as u8,
            day: day as u8,
        }
    }

    /// Days since 1970-01-01: `days_from_civil` of the same source.
    pub(crate) const fn days(self) -> i64 {
        let year = self.year - if self.month <= 2 { 1 } else { 0 };
        let era = year.div_euclid(400);
        let year_of_era = year.rem_euclid(400);
        let from_march = (self.month as i64 + 9) % 12;
        let of_year = (153 * from_march + 2) / 5 + self.day as i64 - 1;
        era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year - 719_468
    }

    /// The first day of the month that is `months` after this one's.
    pub(crate) const fn first_of_month_after(self, months: i64) -> Self {
        let count = self.year * 12 + self.month as i64 - 1 + months;
        Self {
            year: count.div_euclid(12),
            month: count.rem_euclid(12) as u8 + 1,
            day: 1,
        }
    }

    /// The month's English name, shortened to three letters.
    pub(crate) const fn month_name(self) -> &'static str {
        const NAMES: [&str; 12] = [
            "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
        ];
        NAMES[(self.month as usize + 11) % 12]
    }
}

/// Years that [`parse`] takes: the replay's axis, nanoseconds in 64 bits, spans them.
const YEARS: std::ops::RangeInclusive<i64> = 1970..=2199;

/// Reads `2013-01-01T10:00:00Z`, in that form and no other, as seconds since 1970.
pub(crate) fn parse(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let shape: &[u8] = b"dddd-dd-ddTdd:dd:ddZ";
    let fits = |(&byte, &form): (&u8, &u8)| match form {
        b'd' => byte.is_ascii_digit(),
        mark => byte == mark,
    };
    if bytes.len() != shape.len() || !bytes.iter().zip(shape).all(fits) {
        return None;
    }
    let number = |from: usize, to: usize| {
        bytes[from..to]
            .iter()
            .fold(0, |n, b| n * 10 + i64::from(b - b'0'))
    };
    let (year, month, day) = (number(0, 4), number(5, 7) as u8, number(8, 10) as u8);
    let (hour, minute, second) = (number(11, 13), number(14, 16), number(17, 19));
    let date = Date { year, month, day };
    // A day that the month does not have comes back as another date.
    let real = (1..=12).contains(&month) && day >= 1 && Date::from_days(date.days()) == date;
    (real && YEARS.contains(&year) && hour < 24 && minute < 60 && second < 60)
        .then(|| date.days() * DAY + hour * 3_600 + minute * 60 + second)
}

/// Writes seconds since 1970 in the form that [`parse`] reads.
pub(crate) fn format(seconds: i64) -> String {
    let Date { year, month, day } = Date::from_days(seconds.div_euclid(DAY));
    let of_day = seconds.rem_euclid(DAY);
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_of_the_range_comes_back() {
        let mut days = Date {
            year: 1970,
            month: 1,
            day: 1,
        }
        .days();
        assert_eq!(days, 0);
        let mut before = Date::from_days(-1);
        while before.year < 2200 {
            let date = Date::from_days(days);
            assert_eq!(date.days(), days);
            assert!(date > before);
            before = date;
            days += 1;
        }
        assert_eq!(
            Date {
                year: 2000,
                month: 3,
                day: 1
            }
            .days(),
            11_017
        );
    }

    #[test]
    fn a_timestamp_comes_back_as_it_was_written() {
        for text in [
            "1970-01-01T00:00:00Z",
            "2012-02-29T23:59:59Z",
            "2013-01-01T10:00:00Z",
        ] {
            assert_eq!(parse(text).map(format).as_deref(), Some(text));
        }
        assert_eq!(parse("2013-01-01T10:00:00Z"), Some(1_357_034_400));
    }

    #[test]
    fn what_is_no_timestamp_is_refused() {
        for text in [
            "",
            "2013-01-01",
            "2013-01-01 10:00:00Z",
            "2013-01-01T10:00:00",
            "2013-1-1T10:00:00Z",
            "2013-02-29T10:00:00Z",
            "2013-00-10T10:00:00Z",
            "2013-13-01T10:00:00Z",
            "2013-04-31T10:00:00Z",
            "2013-01-00T10:00:00Z",
            "2013-01-01T24:00:00Z",
            "2013-01-01T10:60:00Z",
            "2013-01-01T10:00:60Z",
            "1969-12-31T23:00:00Z",
            "2200-01-01T00:00:00Z",
            "+013-01-01T10:00:00Z",
            "２013-01-01T10:00:00Z",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn months_follow_each_other_over_the_year() {
        let november = Date {
            year: 2013,
            month: 11,
            day: 30,
        };
        assert_eq!(
            november.first_of_month_after(3),
            Date {
                year: 2014,
                month: 2,
                day: 1
            }
        );
        assert_eq!(november.first_of_month_after(0).month_name(), "Nov");
    }
}
