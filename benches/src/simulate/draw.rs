//! The plots: bars of text for the terminal, and one SVG file that stands alone.

use std::fmt::Write as _;

use super::checks::scenes;
use super::{
    C3, EWMA_2, EWMA_8, EWMA_ALL, HUNDRED, LEAST, ONE, P2C, PREQUAL, Played, RANDOM, ROUND_ROBIN,
    Suite,
};

/// Characters of the longest bar.
const WIDTH: usize = 48;

/// p99 by contender as bars, on a logarithmic scale from the least of a scene's to the most.
#[must_use]
pub fn plot(suites: &[Suite], results: &[Played]) -> String {
    let mut text = String::new();
    for (suite, load) in scenes(results) {
        let here: Vec<&Played> = results
            .iter()
            .filter(|one| one.suite == suite && one.load == load)
            .collect();
        let [least, most] = extent(here.iter().map(|one| one.outturn.p99()));
        if here.len() < 2 || most <= least {
            continue;
        }
        let title = suites.iter().find(|one| one.name == suite);
        let title = title.map_or("", |suite| suite.title.as_str());
        let _ = writeln!(text, "{suite} at {load}: p99 in ms (logarithmic), {title}");
        for one in here {
            let share = (one.outturn.p99() / least).ln() / (most / least).ln();
            let bar = "#".repeat(1 + (share * (WIDTH - 1) as f64).round() as usize);
            let errors = one.outturn.error_percent();
            let errors = if errors > 0.0 {
                format!(", {errors:.2} % errors")
            } else {
                String::new()
            };
            let p99 = one.outturn.p99();
            let _ = writeln!(text, "  {:<18} {bar} {p99:.1}{errors}", one.contender);
        }
        text.push('\n');
    }
    text
}

/// The least and the most.
fn extent(values: impl Iterator<Item = f64>) -> [f64; 2] {
    values.fold([f64::INFINITY, 0.0], |[least, most], value| {
        [least.min(value), most.max(value)]
    })
}

/// Colours that stay apart for colour-blind readers (Okabe and Ito, "Color universal design", 2008), and whether the
/// line is dashed.
const LOOKS: [(&str, &str, bool); 9] = [
    (ROUND_ROBIN, "#222222", false),
    (RANDOM, "#222222", true),
    (P2C, "#e69f00", true),
    (LEAST, "#e69f00", false),
    (EWMA_2, "#56b4e9", true),
    (EWMA_8, "#0072b2", true),
    (EWMA_ALL, "#0072b2", false),
    (C3, "#009e73", false),
    (PREQUAL, "#d55e00", false),
];

const SIZE: (f64, f64) = (1_200.0, 620.0);
/// Left and right edges of the two panels, and their top and bottom.
const PANELS: [(f64, f64); 2] = [(80.0, 490.0), (620.0, 1_030.0)];
const TOP: f64 = 96.0;
const BOTTOM: f64 = 560.0;
/// The heights of the scale in milliseconds.
const SCALE: (f64, f64) = (150.0, 6_000.0);
const TICKS: [f64; 6] = [200.0, 300.0, 500.0, 1_000.0, 2_000.0, 5_000.0];

/// p99 over the load, with one balancer and with many, as SVG.
#[must_use]
pub fn svg(suites: &[Suite], results: &[Played]) -> String {
    let (width, height) = SIZE;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" role=\"img\">\n<title>p99 over the load, by algorithm</title>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <g font-family=\"Helvetica, Arial, 'DejaVu Sans', sans-serif\" font-size=\"12.5\" fill=\"#222222\">\n"
    );
    text(
        &mut svg,
        (80.0, 34.0),
        "start",
        "p99 in ms (logarithmic) over the load; given up after 5 s",
    );
    for (suite, panel) in [ONE, HUNDRED].into_iter().zip(PANELS) {
        let title = suites.iter().find(|one| one.name == suite);
        text(
            &mut svg,
            (panel.0, TOP - 22.0),
            "start",
            title.map_or("", |suite| suite.title.as_str()),
        );
        axes(&mut svg, panel, results, suite);
        for (name, colour, dashed) in LOOKS {
            curve(&mut svg, panel, results, (suite, name), (colour, dashed));
        }
    }
    for (row, (name, colour, dashed)) in LOOKS.into_iter().enumerate() {
        let y = TOP + 24.0 * row as f64;
        let dashes = dashes(dashed);
        let _ = writeln!(
            svg,
            "<path d=\"M1050 {y}h26\" stroke=\"{colour}\" stroke-width=\"2.2\"{dashes}/>"
        );
        text(&mut svg, (1_082.0, y + 4.0), "start", name);
    }
    svg.push_str("</g>\n</svg>\n");
    svg
}

const fn dashes(dashed: bool) -> &'static str {
    if dashed {
        " stroke-dasharray=\"6 3\""
    } else {
        ""
    }
}

fn loads(results: &[Played], suite: &str) -> Vec<f64> {
    let here = scenes(results).into_iter();
    here.filter(|(name, _)| *name == suite)
        .map(|(_, load)| load)
        .collect()
}

/// Where a load and a time stand in a panel.
fn place((left, right): (f64, f64), loads: &[f64], load: f64, millis: f64) -> (f64, f64) {
    let [least, most] = extent(loads.iter().copied());
    let across = (load - least) / (most - least).max(f64::MIN_POSITIVE);
    let up = (millis / SCALE.0).ln() / (SCALE.1 / SCALE.0).ln();
    (
        left + across * (right - left),
        BOTTOM - up.clamp(0.0, 1.0) * (BOTTOM - TOP),
    )
}

fn axes(svg: &mut String, panel: (f64, f64), results: &[Played], suite: &str) {
    let loads = loads(results, suite);
    for tick in TICKS {
        let (_, y) = place(panel, &loads, 0.0, tick);
        let _ = writeln!(
            svg,
            "<path d=\"M{} {y:.1}H{}\" stroke=\"#dddddd\"/>",
            panel.0, panel.1
        );
        text(svg, (panel.0 - 8.0, y + 4.0), "end", &format!("{tick}"));
    }
    for &load in &loads {
        let (x, _) = place(panel, &loads, load, SCALE.0);
        let _ = writeln!(
            svg,
            "<path d=\"M{x:.1} {TOP}V{BOTTOM}\" stroke=\"#eeeeee\"/>"
        );
        text(svg, (x, BOTTOM + 20.0), "middle", &format!("{load:.2}"));
    }
    let (left, right) = panel;
    let _ = writeln!(
        svg,
        "<path d=\"M{left} {TOP}V{BOTTOM}H{right}\" fill=\"none\" stroke=\"#222222\"/>"
    );
}

fn curve(
    svg: &mut String,
    panel: (f64, f64),
    results: &[Played],
    (suite, name): (&str, &str),
    (colour, dashed): (&str, bool),
) {
    let loads = loads(results, suite);
    let mut path = String::new();
    for one in results {
        if one.suite == suite && one.contender == name {
            let (x, y) = place(panel, &loads, one.load, one.outturn.p99());
            let command = if path.is_empty() { 'M' } else { 'L' };
            let _ = write!(path, "{command}{x:.1} {y:.1}");
            let _ = writeln!(
                svg,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>"
            );
        }
    }
    if !path.is_empty() {
        let dashes = dashes(dashed);
        let _ = writeln!(
            svg,
            "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{dashes}/>"
        );
    }
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"
    );
}
