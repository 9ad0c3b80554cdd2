//! Tables and files of the scaling group.

use std::fmt::Write as _;
use std::path::Path;
use std::{fs, io};

use serde_json::{Value, json};

use super::policies::{BASELINES, BEST};
use super::trace::Kind;
use super::{Outcome, Row};
use crate::report::Origin;

/// The table of one trace.
pub(super) fn table(row: &Row) -> String {
    let mut text = format!(
        "{}: {} ({} minutes)\n  {:<32} {:>10} {:>9} {:>12} {:>12}\n",
        row.trace,
        row.about,
        row.minutes,
        "policy",
        "violations",
        "surplus",
        "with booting",
        "ms a month"
    );
    for one in &row.outcomes {
        let _ = writeln!(
            text,
            "  {:<32} {:>10} {:>+8.1}% {:>+11.1}% {:>12.1}",
            one.policy,
            one.violations,
            one.surplus(),
            one.surplus_with_boot(),
            one.month_ms
        );
    }
    text
}

/// The outcomes as lines of JSON.
pub(super) fn lines(row: &Row) -> Vec<String> {
    row.outcomes
        .iter()
        .map(|one| object(row, one).to_string())
        .collect()
}

fn object(row: &Row, one: &Outcome) -> Value {
    let round = |value: f64| (value * 100.0).round() / 100.0;
    json!({
        "group": "scaling",
        "trace": row.trace,
        "policy": one.policy,
        "violations": one.violations,
        "surplus_percent": round(one.surplus()),
        "surplus_with_booting_percent": round(one.surplus_with_boot()),
        "month_ms": round(one.month_ms),
    })
}

const AIM: &str =
    "no more violations than the better baseline and no more surplus than the leaner one";

fn verdicts(rows: &[Row]) -> Vec<(String, String, bool)> {
    let of = |row: &Row, name: &str| {
        row.outcomes
            .iter()
            .find(|one| one.policy == name)
            .map_or_else(String::new, |one| {
                format!("{name} {} and {:+.1} %", one.violations, one.surplus())
            })
    };
    let mut all: Vec<_> = rows
        .iter()
        .map(|row| {
            let parts = [BEST, BASELINES[0], BASELINES[1]].map(|name| of(row, name));
            (
                format!("{}: {AIM}", row.trace),
                parts.join("; "),
                row.is_met(),
            )
        })
        .collect();
    let slowest = rows
        .iter()
        .flat_map(|row| &row.outcomes)
        .filter(|one| one.policy == BEST)
        .map(|one| one.month_ms)
        .fold(0.0, f64::max);
    all.push((
        "a month of one-minute decisions in under 100 ms".to_owned(),
        format!("{BEST}: {slowest:.0} ms on the slowest trace"),
        slowest < 100.0,
    ));
    all
}

/// The table of aims.
pub(super) fn aims(rows: &[Row]) -> String {
    let mut text = String::from("aims:\n");
    for (aim, measured, met) in verdicts(rows) {
        let verdict = if met { "met  " } else { "short" };
        let _ = writeln!(text, "  {verdict}  {aim}: {measured}");
    }
    text
}

/// Writes `scaling.md` and `scaling.json`.
pub(super) fn write(
    folder: &Path,
    origin: &Origin,
    rows: &[Row],
    absent: &[String],
) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join("scaling.md"), markdown(origin, rows, absent))?;
    let aims: Vec<Value> = verdicts(rows)
        .into_iter()
        .map(|(aim, measured, met)| json!({ "aim": aim, "measured": measured, "met": met }))
        .collect();
    let outcomes: Vec<Value> = rows
        .iter()
        .flat_map(|row| row.outcomes.iter().map(|one| object(row, one)))
        .collect();
    let all = json!({
        "group": "scaling",
        "origin": origin.json(),
        "aims": aims,
        "outcomes": outcomes,
        "absent": absent,
    });
    let mut json = serde_json::to_string_pretty(&all)?;
    json.push('\n');
    fs::write(folder.join("scaling.json"), json)
}

fn markdown(origin: &Origin, rows: &[Row], absent: &[String]) -> String {
    let mut text = format!(
        "# Group `scaling`\n\n{}\nOne-minute steps, three minutes to boot, a target of 70 %, instances of which the 99.9th percentile of the load \
         needs 50. **Violations** are minutes with a load above the capacity in service; **surplus** is instance-hours in \
         service over those of an oracle that has each minute just what can serve the load (a perfect rule that keeps to \
         70 % has +43 %), and \"with booting\" counts instances from their launch. The time is that of a month \
         of decisions, each day of it as fast as the quickest one. All policies start without a history.\n\n",
        origin.markdown()
    );
    for line in absent {
        let _ = writeln!(text, "- {line}");
    }
    text.push_str("\n## Aims\n\n| aim | measured | |\n| --- | --- | --- |\n");
    for (aim, measured, met) in verdicts(rows) {
        let verdict = if met { "met" } else { "**short**" };
        let _ = writeln!(text, "| {aim} | {measured} | {verdict} |");
    }
    for (kind, title) in [
        (Kind::Recorded, "Recorded loads"),
        (Kind::MadeUp, "Loads made up, by a fixed seed"),
    ] {
        let of_kind: Vec<&Row> = rows.iter().filter(|row| row.kind == kind).collect();
        if of_kind.is_empty() {
            continue;
        }
        let _ = writeln!(text, "\n## {title}\n");
        for row in of_kind {
            let _ = writeln!(
                text,
                "`{}`: {} ({} minutes)\n\n| policy | violations | surplus | with booting | ms a month |\n| --- | ---: | ---: | ---: | ---: |",
                row.trace, row.about, row.minutes
            );
            for one in &row.outcomes {
                let _ = writeln!(
                    text,
                    "| {} | {} | {:+.1} % | {:+.1} % | {:.1} |",
                    one.policy,
                    one.violations,
                    one.surplus(),
                    one.surplus_with_boot(),
                    one.month_ms
                );
            }
            text.push('\n');
        }
    }
    text
}
