//! The chart: depth of the queues, the workers that followed it, and age, as one SVG file that stands alone.
//!
//! Samples are drawn as the highest value of each bucket, a day for a year's replay: what a glance should find are the
//! peaks. How many workers are busy is drawn as the mean, since at its highest it is nearly always "all".

use std::fmt::Write as _;
use std::time::Duration;

use sim_core::time::Timestamp;

use crate::calendar::{DAY, Date};
use crate::events::Digested;
use crate::pipeline::Way;
use crate::report::grouped;
use crate::world::{Outcome, Sample, Settings};

/// Size of the picture, and the edges of the panels within it, in pixels.
const WIDTH: f64 = 1_200.0;
const HEIGHT: f64 = 1_000.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = 1_150.0;
/// Top and bottom of the three panels.
const DEPTH: (f64, f64) = (134.0, 394.0);
const WORKERS: (f64, f64) = (474.0, 674.0);
const AGE: (f64, f64) = (754.0, 934.0);

/// Points drawn for each series.
const BUCKETS: usize = 366;

/// Colours that stay apart for colour-blind readers: Okabe and Ito, "Color universal design", 2008.
const SKY: &str = "#56b4e9";
const VERMILION: &str = "#d55e00";
const GREEN: &str = "#009e73";
const PURPLE: &str = "#aa4499";
const BLACK: &str = "#222222";
/// The queues', by [`Way`].
const COLOURS: [&str; 3] = [VERMILION, GREEN, PURPLE];

/// One line or area of a panel.
struct Series {
    name: String,
    colour: &'static str,
    look: Look,
    points: Vec<f64>,
}

/// How a series is drawn.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    Area,
    Line,
    Dashed,
}

/// How values become heights.
struct Scale {
    /// The value at the top.
    most: f64,
    /// Values with their labels, from the bottom up.
    ticks: Vec<(f64, String)>,
    /// Whether heights grow with the logarithm of one more than the value.
    logarithmic: bool,
}

impl Scale {
    /// A scale from zero whose ticks are multiples of 1, 2 or 5 times a power of ten.
    fn linear(most: f64) -> Self {
        let mut step = 1.0;
        // At most eight ticks; counts need no fractions.
        for factor in [2.0, 2.5, 2.0].iter().cycle() {
            if most / step <= 8.0 {
                break;
            }
            step *= factor;
        }
        let count = (most / step).ceil().max(1.0) as u32;
        let ticks = (0..=count).map(|tick| f64::from(tick) * step);
        Self {
            most: f64::from(count) * step,
            ticks: ticks.map(|value| (value, grouped(value as u64))).collect(),
            logarithmic: false,
        }
    }

    /// A logarithmic scale of minutes.
    fn minutes(most: f64) -> Self {
        const TICKS: [(f64, &str); 10] = [
            (0.0, "0"),
            (3.0, "3 min"),
            (10.0, "10 min"),
            (30.0, "30 min"),
            (120.0, "2 h"),
            (480.0, "8 h"),
            (1_440.0, "1 day"),
            (7_200.0, "5 days"),
            (43_200.0, "30 days"),
            (259_200.0, "180 days"),
        ];
        let above = TICKS.iter().position(|(value, _)| *value >= most);
        let ticks = &TICKS[..=above.unwrap_or(TICKS.len() - 1).max(2)];
        let top = ticks.last().map_or(most, |(value, _)| most.max(*value));
        let ticks = ticks
            .iter()
            .map(|(value, label)| (*value, (*label).to_owned()))
            .collect();
        Self {
            most: top,
            ticks,
            logarithmic: true,
        }
    }

    /// The height of `value` as a share of the panel's.
    fn share(&self, value: f64) -> f64 {
        if self.logarithmic {
            value.ln_1p() / self.most.ln_1p()
        } else {
            value / self.most
        }
    }
}

/// Draws the chart.
pub(crate) fn draw(outcome: &Outcome, settings: &Settings, digested: &Digested) -> String {
    let mut svg = String::with_capacity(128 * 1_024);
    let span = Span::of(outcome);
    let title = format!(
        "{} flights through stream, topic and queues, {} to {}",
        grouped(outcome.flights),
        day(span.from),
        day(span.to)
    );
    let subtitle = format!(
        "up to {} workers at each queue; seed {}; digest {}...; highest value of each {}",
        settings.workers,
        settings.seed,
        &digested.digest[..12],
        span.bucket_name(),
    );
    open(&mut svg, &title, &subtitle);
    panel(
        &mut svg,
        DEPTH,
        "Depth: messages",
        &depth(outcome),
        Scale::linear,
        &span,
    );
    panel(
        &mut svg,
        WORKERS,
        "Workers in service, by the group of each queue",
        &workers(outcome),
        Scale::linear,
        &span,
    );
    panel(
        &mut svg,
        AGE,
        "Age of the oldest waiting message, since it was sent (logarithmic)",
        &age(outcome),
        Scale::minutes,
        &span,
    );
    text(
        &mut svg,
        (LEFT + RIGHT) / 2.0,
        HEIGHT - 18.0,
        "middle",
        "virtual time, UTC",
    );
    svg.push_str("</g>\n</svg>\n");
    svg
}

/// The series of the upper panel.
fn depth(outcome: &Outcome) -> Vec<Series> {
    let mut all = vec![series(
        outcome,
        "in the hands of workers (mean)",
        SKY,
        Look::Area,
        |sample| sample.in_flight.iter().sum::<u64>() as f64,
    )];
    for (way, colour) in Way::ALL.into_iter().zip(COLOURS) {
        let name = format!("{}, waiting", way.name());
        all.push(series(outcome, &name, colour, Look::Line, |sample| {
            sample.waiting[way as usize] as f64
        }));
    }
    all.push(series(
        outcome,
        "dead letters",
        BLACK,
        Look::Dashed,
        |sample| sample.dead as f64,
    ));
    all
}

/// The series of the middle panel.
fn workers(outcome: &Outcome) -> Vec<Series> {
    let mut all = vec![series(
        outcome,
        "at work (mean)",
        SKY,
        Look::Area,
        |sample| sample.in_flight.iter().sum::<u64>() as f64,
    )];
    for (way, colour) in Way::ALL.into_iter().zip(COLOURS) {
        all.push(series(outcome, way.name(), colour, Look::Line, |sample| {
            sample.workers[way as usize] as f64
        }));
    }
    all
}

/// The series of the lower panel.
fn age(outcome: &Outcome) -> Vec<Series> {
    let age = |way: Way| move |sample: &Sample| minutes(sample.age[way as usize]);
    let ways = Way::ALL.into_iter().zip(COLOURS);
    ways.map(|(way, colour)| series(outcome, way.name(), colour, Look::Line, age(way)))
        .collect()
}

fn minutes(time: Duration) -> f64 {
    time.as_secs_f64() / 60.0
}

/// The highest value of each bucket, for an area the mean.
fn series(
    outcome: &Outcome,
    name: &str,
    colour: &'static str,
    look: Look,
    value: impl Fn(&Sample) -> f64,
) -> Series {
    let samples = outcome.samples.as_slice();
    let size = samples.len().div_ceil(BUCKETS).max(1);
    let of_bucket = |bucket: &[Sample]| {
        let values = bucket.iter().map(&value);
        match look {
            Look::Area => values.sum::<f64>() / bucket.len() as f64,
            Look::Line | Look::Dashed => values.fold(0.0, f64::max),
        }
    };
    let points = samples.chunks(size).map(of_bucket).collect();
    Series {
        name: name.to_owned(),
        colour,
        look,
        points,
    }
}

/// The horizontal axis.
struct Span {
    /// Seconds since 1970 at the left edge and at the right.
    from: i64,
    to: i64,
    /// Seconds that a bucket covers.
    bucket: i64,
}

impl Span {
    fn of(outcome: &Outcome) -> Self {
        let from = outcome.start.as_unix_seconds();
        let second = |sample: &Sample| sample.at.as_unix_seconds() - from;
        let samples = &outcome.samples;
        let size = samples.len().div_ceil(BUCKETS).max(1);
        let every = samples.get(1).map_or(60, second).max(1);
        let last = samples.last().map_or(0, second).max(every);
        Self {
            from,
            to: from + last,
            bucket: every * size as i64,
        }
    }

    /// Where a time stands.
    fn x(&self, seconds: i64) -> f64 {
        let share = (seconds - self.from) as f64 / (self.to - self.from) as f64;
        LEFT + share.min(1.0) * (RIGHT - LEFT)
    }

    /// How long a bucket is, for the subtitle.
    fn bucket_name(&self) -> String {
        match self.bucket {
            // A year's samples do not quite make up 366 whole days.
            82_800..=90_000 => "day".to_owned(),
            bucket if bucket > DAY => format!("{:.1} days", bucket as f64 / DAY as f64),
            bucket => format!("{} minutes", bucket / 60),
        }
    }

    /// Times to mark, with their labels.
    fn ticks(&self) -> Vec<(i64, String)> {
        let days = (self.to - self.from) / DAY;
        let date = |at| Date::of(Timestamp::from_unix_seconds(at));
        let first = date(self.from);
        let month = |months: i64| {
            let date = first.first_of_month_after(months);
            (date.midnight().as_unix_seconds(), date)
        };
        let inside = |(at, _): &(i64, String)| (self.from..=self.to).contains(at);
        if days > 60 {
            // About a label for every 80 pixels.
            let step = [1, 3, 6].into_iter().find(|step| days / (30 * step) <= 14);
            let step = step.unwrap_or_else(|| (days / 365 / 14 + 1) * 12);
            let label = |(at, date): (i64, Date)| {
                let year = date.month == 1 || step > 6;
                let year = if year {
                    format!(" {}", date.year)
                } else {
                    String::new()
                };
                (at, format!("{}{year}", date.month_name()))
            };
            // Steps of a year and more stand at the turn of years.
            let offset = if step > 6 {
                1 - i64::from(first.month)
            } else {
                0
            };
            (0..=days / 28 / step + 1)
                .map(|n| label(month(offset + n * step)))
                .filter(inside)
                .collect()
        } else {
            let step = match days {
                0..=1 => 2 * 3_600,
                2..=6 => 12 * 3_600,
                days => DAY * (days / 14 + 1),
            };
            let label = |at: i64| {
                let date = date(at);
                let clock = match at.rem_euclid(DAY) {
                    0 => String::new(),
                    seconds => format!("{:02}:{:02}", seconds / 3_600, seconds / 60 % 60),
                };
                if clock.is_empty() {
                    (at, format!("{} {}", date.day, date.month_name()))
                } else {
                    (at, clock)
                }
            };
            let count = (self.to - self.from) / step + 1;
            (0..=count)
                .map(|n| label(self.from + n * step))
                .filter(inside)
                .collect()
        }
    }
}

/// The date of a time, as text.
pub(crate) fn date_of(time: Timestamp) -> String {
    let mut text = time.to_string();
    text.truncate("2013-01-01".len());
    text
}

/// The date of a time in seconds since 1970.
fn day(seconds: i64) -> String {
    date_of(Timestamp::from_unix_seconds(seconds))
}

/// Draws one panel: its name and legend, its axes, and its series.
fn panel(
    svg: &mut String,
    (top, bottom): (f64, f64),
    name: &str,
    all: &[Series],
    scale: fn(f64) -> Scale,
    span: &Span,
) {
    let most = all
        .iter()
        .flat_map(|series| &series.points)
        .copied()
        .fold(0.0, f64::max);
    let scale = scale(most);
    let y = |value: f64| bottom - scale.share(value) * (bottom - top);

    let _ = writeln!(
        svg,
        "<text x=\"{LEFT}\" y=\"{}\" font-size=\"15\" font-weight=\"bold\">{name}</text>",
        top - 32.0
    );
    legend(svg, top - 13.0, all);
    for (value, label) in &scale.ticks {
        let y = y(*value);
        line(svg, (LEFT, y), (RIGHT, y), "#dddddd");
        text(svg, LEFT - 8.0, y + 4.0, "end", label);
    }
    for (at, label) in span.ticks() {
        let x = span.x(at);
        line(svg, (x, top), (x, bottom), "#eeeeee");
        line(svg, (x, bottom), (x, bottom + 5.0), BLACK);
        text(svg, x, bottom + 19.0, "middle", &label);
    }
    for series in all {
        curve(svg, series, bottom, &y, span);
    }
    line(svg, (LEFT, top), (LEFT, bottom), BLACK);
    line(svg, (LEFT, bottom), (RIGHT, bottom), BLACK);
}

/// Draws a series.
fn curve(svg: &mut String, series: &Series, bottom: f64, y: &impl Fn(f64) -> f64, span: &Span) {
    let Series {
        colour,
        look,
        points,
        ..
    } = series;
    if points.is_empty() {
        return;
    }
    let mut path = String::with_capacity(points.len() * 13);
    let mut last = LEFT;
    for (index, value) in points.iter().enumerate() {
        // A bucket is drawn over its whole length: a step.
        let from = span.x(span.from + index as i64 * span.bucket);
        last = span.x(span.from + (index as i64 + 1) * span.bucket);
        let command = if index == 0 { 'M' } else { 'L' };
        let y = y(*value);
        let _ = write!(path, "{command}{from:.1} {y:.1}H{last:.1}");
    }
    let _ = match look {
        Look::Area => writeln!(
            svg,
            "<path d=\"{path}V{bottom}H{LEFT}Z\" fill=\"{colour}\" fill-opacity=\"0.35\"/>",
        ),
        Look::Line | Look::Dashed => writeln!(
            svg,
            "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.4\"{}/>",
            dashes(*look)
        ),
    };
    debug_assert!(last <= RIGHT + 0.1, "a curve stays in its panel");
}

/// The attribute that makes a line dashed.
const fn dashes(look: Look) -> &'static str {
    if matches!(look, Look::Dashed) {
        " stroke-dasharray=\"6 3\""
    } else {
        ""
    }
}

/// Draws the names of the series in a row, each beside its colour.
fn legend(svg: &mut String, y: f64, all: &[Series]) {
    let mut x = LEFT;
    for Series {
        name, colour, look, ..
    } in all
    {
        let _ = match look {
            Look::Area => writeln!(
                svg,
                "<rect x=\"{x}\" y=\"{}\" width=\"24\" height=\"10\" fill=\"{colour}\" fill-opacity=\"0.35\"/>",
                y - 9.0
            ),
            Look::Line | Look::Dashed => writeln!(
                svg,
                "<path d=\"M{x} {}h24\" stroke=\"{colour}\" stroke-width=\"2.5\"{}/>",
                y - 4.0,
                dashes(*look)
            ),
        };
        text(svg, x + 30.0, y, "start", name);
        // Wide enough for the letters of any sans-serif font.
        x += 30.0 + 7.4 * name.len() as f64 + 22.0;
    }
}

fn open(svg: &mut String, title: &str, subtitle: &str) {
    let _ = write!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" \
         height=\"{HEIGHT}\" role=\"img\">\n\
         <title>{title}</title>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <g font-family=\"Helvetica, Arial, 'DejaVu Sans', sans-serif\" font-size=\"12.5\" fill=\"{BLACK}\">\n\
         <text x=\"{LEFT}\" y=\"40\" font-size=\"21\" font-weight=\"bold\">{title}</text>\n\
         <text x=\"{LEFT}\" y=\"64\" fill=\"#555555\">{subtitle}</text>\n"
    );
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"
    );
}

fn line(svg: &mut String, (x1, y1): (f64, f64), (x2, y2): (f64, f64), colour: &str) {
    let _ = writeln!(
        svg,
        "<path d=\"M{x1:.1} {y1:.1}L{x2:.1} {y2:.1}\" stroke=\"{colour}\" stroke-width=\"1\"/>"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(from: &str, days: i64) -> Vec<String> {
        let from = from.parse::<Timestamp>().expect("a time").as_unix_seconds();
        let span = Span {
            from,
            to: from + days * DAY,
            bucket: DAY,
        };
        span.ticks().into_iter().map(|(_, label)| label).collect()
    }

    #[test]
    fn ticks_fit_the_span() {
        let year = labels("2013-01-01T00:00:00Z", 365);
        assert_eq!(year.len(), 13);
        assert_eq!(
            (year[0].as_str(), year[5].as_str(), year[12].as_str()),
            ("Jan 2013", "Jun", "Jan 2014")
        );
        assert_eq!(labels("2013-02-27T00:00:00Z", 1)[..2], ["27 Feb", "02:00"]);
        assert_eq!(
            labels("2013-02-27T00:00:00Z", 4)[..3],
            ["27 Feb", "12:00", "28 Feb"]
        );
        for days in [0, 1, 2, 6, 7, 30, 60, 61, 400, 900, 2_000, 10_000, 80_000] {
            let count = labels("2013-02-27T00:00:00Z", days).len();
            assert!((1..=18).contains(&count), "{count} labels for {days} days");
        }
    }

    #[test]
    fn scales_reach_over_the_highest_value() {
        for most in [0.0, 1.0, 7.0, 8.0, 9.0, 64.0, 131.0, 999.0, 1e6] {
            let linear = Scale::linear(most);
            assert!(
                linear.most >= most && linear.ticks.len() <= 10,
                "{most}: {}",
                linear.ticks.len()
            );
            let minutes = Scale::minutes(most);
            assert!(minutes.most >= most && minutes.share(most) <= 1.0);
        }
        let ticks: Vec<_> = Scale::linear(131.0)
            .ticks
            .into_iter()
            .map(|tick| tick.1)
            .collect();
        assert_eq!(ticks, ["0", "20", "40", "60", "80", "100", "120", "140"]);
    }
}
