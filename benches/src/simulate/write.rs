//! What the simulation says: tables, lines for programs, files.

use std::fmt::Write as _;
use std::path::Path;
use std::{fs, io};

use serde_json::{Value, json};

use super::checks::{scenes, theory};
use super::{NAME, Played, ROUND_ROBIN, SEED, SUPERMARKET, Suite, plot, svg};
use crate::bars::Bar;
use crate::report::Origin;

/// The tables, a block for each scene.
#[must_use]
pub fn tables(suites: &[Suite], results: &[Played]) -> String {
    let mut text = String::new();
    for (suite, load) in scenes(results) {
        let title = suites.iter().find(|one| one.name == suite);
        let title = title.map_or("", |suite| suite.title.as_str());
        let _ = writeln!(text, "{suite} at {load}: {title}");
        let _ = writeln!(
            text,
            "  {:<18} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>10}",
            "latency in ms", "p50", "p90", "p99", "p99.9", "mean", "errors %", "requests"
        );
        for one in of(results, suite, load) {
            let [p50, p90, p99, p999] = one.outturn.percentiles;
            let (mean, errors) = (one.outturn.mean * 1e3, one.outturn.error_percent());
            let _ = writeln!(
                text,
                "  {:<18} {p50:>9.1} {p90:>9.1} {p99:>9.1} {p999:>9.1} {mean:>9.1} {errors:>9.3} {:>10}",
                one.contender, one.outturn.count
            );
        }
        text.push('\n');
    }
    text
}

fn of<'a>(results: &'a [Played], suite: &'a str, load: f64) -> impl Iterator<Item = &'a Played> {
    results
        .iter()
        .filter(move |one| one.suite == suite && one.load == load)
}

/// The 99th percentiles as lines of JSON, of the form that all groups have; the ratio is to round robin's, where it takes
/// part.
#[must_use]
pub fn lines(results: &[Played]) -> Vec<String> {
    let line = |one: &Played| {
        let robin = of(results, one.suite, one.load).find(|other| other.contender == ROUND_ROBIN);
        let ratio = robin.map_or(1.0, |robin| robin.outturn.p99() / one.outturn.p99());
        format!(
            "{{\"group\":\"{NAME}\",\"pattern\":\"{}-{}-p99\",\"peer\":{},\"ns\":{:.0},\"ratio\":{ratio:.3}}}",
            one.suite,
            one.load,
            Value::from(one.contender),
            one.outturn.p99() * 1e6,
        )
    };
    results.iter().map(line).collect()
}

/// Writes `simulate.md`, `simulate.json` and `simulate.svg` into the folder.
///
/// # Errors
/// When the folder or a file cannot be written.
pub fn write(
    folder: &Path,
    origin: &Origin,
    suites: &[Suite],
    results: &[Played],
    bars: &[Bar],
) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let file = |ending: &str| folder.join(format!("{NAME}.{ending}"));
    fs::write(file("md"), markdown(origin, suites, results, bars))?;
    fs::write(file("svg"), svg(suites, results))?;
    let mut json = serde_json::to_string_pretty(&json(origin, results, bars))?;
    json.push('\n');
    fs::write(file("json"), json)
}

fn markdown(origin: &Origin, suites: &[Suite], results: &[Played], bars: &[Bar]) -> String {
    let mut text = format!(
        "# Group `{NAME}`\n\nBalancers in virtual time, from seed {SEED}: the same on every machine. The model is described in \
         `benches/src/simulate.rs`; `cargo run --release -p benches -- {NAME}` makes this page. Plot: [{NAME}.svg]({NAME}.svg).\n\n\
         - commit: {}\n- compiler: {}\n\n## Aims\n\n| aim | simulated | |\n| --- | --- | --- |\n",
        origin.commit(),
        origin.compiler(),
    );
    for bar in bars {
        let verdict = if bar.met { "met" } else { "**short**" };
        let _ = writeln!(text, "| {} | {} | {verdict} |", bar.aim, bar.measured);
    }
    for suite in suites {
        let _ = writeln!(text, "\n## `{}`: {}\n", suite.name, suite.title);
        text.push_str("| load | algorithm | p50 ms | p90 ms | p99 ms | p99.9 ms | mean ms | errors % | requests |\n");
        text.push_str("| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n");
        for one in results.iter().filter(|one| one.suite == suite.name) {
            let [p50, p90, p99, p999] = one.outturn.percentiles;
            let _ = writeln!(
                text,
                "| {} | {} | {p50:.1} | {p90:.1} | {p99:.1} | {p999:.1} | {:.1} | {:.3} | {} |",
                one.load,
                one.contender,
                one.outturn.mean * 1e3,
                one.outturn.error_percent(),
                one.outturn.count,
            );
        }
    }
    let _ = writeln!(text, "\n## p99\n\n```text\n{}```", plot(suites, results));
    text
}

fn json(origin: &Origin, results: &[Played], bars: &[Bar]) -> Value {
    let rounded = |value: f64| (value * 1e3).round() / 1e3;
    json!({
        "group": NAME,
        "commit": origin.commit(),
        "compiler": origin.compiler(),
        "seed": SEED,
        "figures": results.iter().map(|one| {
            let [p50, p90, p99, p999] = one.outturn.percentiles.map(rounded);
            json!({
                "suite": one.suite,
                "load": one.load,
                "algorithm": one.contender,
                "requests": one.outturn.count,
                "errors": one.outturn.errors,
                "mean_ms": rounded(one.outturn.mean * 1e3),
                "p50_ms": p50,
                "p90_ms": p90,
                "p99_ms": p99,
                "p99.9_ms": p999,
                "formula_mean_ms": (one.suite == SUPERMARKET).then(|| rounded(theory(one.load) * 1e3)),
            })
        }).collect::<Vec<_>>(),
        "aims": bars.iter().map(|bar| json!({
            "aim": bar.aim,
            "measured": bar.measured,
            "met": bar.met,
        })).collect::<Vec<_>>(),
    })
}
