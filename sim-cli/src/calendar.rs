//! Dates in UTC: what the chart's axis needs of a calendar.

use sim_core::time::Timestamp;

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
    /// The date of a time.
    pub(crate) const fn of(time: Timestamp) -> Self {
        Self::from_days(time.as_unix_seconds().div_euclid(DAY))
    }

    /// Its first moment.
    pub(crate) const fn midnight(self) -> Timestamp {
        Timestamp::from_unix_seconds(self.days() * DAY)
    }

    /// The day that many days after 1970-01-01.
    ///
    /// Howard Hinnant, "chrono-compatible low-level date algorithms", `civil_from_days`: years begin in March,
    /// so that the leap day is the last day of one.
    const fn from_days(days: i64) -> Self {
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
    const fn days(self) -> i64 {
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
