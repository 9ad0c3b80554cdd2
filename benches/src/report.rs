//! What a run says: tables for people, lines for programs, and files that name the machine.

use std::fmt::{self, Write as _};
use std::path::Path;
use std::process::Command;
use std::{fs, io};

use serde_json::{Value, json};

use crate::bars::Bar;
use crate::measure::Figure;
use crate::memory::Memory;
use crate::pattern::Pattern;

/// Where and with what the figures were made.
#[derive(Clone, Debug)]
pub struct Origin {
    machine: String,
    compiler: String,
    commit: String,
    load: String,
}

impl Origin {
    /// Asks the system, the compiler and git, before the first run; what does not answer is "unknown".
    #[must_use]
    pub fn find() -> Self {
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = info
            .lines()
            .find_map(|line| line.strip_prefix("model name"))
            .map_or("unknown processor", |rest| {
                rest.trim_start_matches([' ', '\t', ':'])
            });
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let system = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let commit = output("git", &["rev-parse", "--short=12", "HEAD"]);
        let changed = output("git", &["status", "--porcelain", "--untracked-files=no"]);
        Self {
            machine: format!(
                "{model}, {cores} cores, {} {}",
                std::env::consts::OS,
                system.trim()
            ),
            compiler: output("rustc", &["--version"]),
            // Ratios bear a busy machine better than times do, but the reader should know of it.
            load: fs::read_to_string("/proc/loadavg")
                .ok()
                .and_then(|text| text.split(' ').next().map(str::to_owned))
                .unwrap_or_else(|| UNKNOWN.to_owned()),
            commit: if changed.is_empty() || changed == UNKNOWN {
                commit
            } else {
                format!("{commit} with changes")
            },
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "- machine: {}\n- compiler: {}\n- commit: {}\n- load when it began: {}",
            self.machine, self.compiler, self.commit, self.load
        )
    }
}

impl Origin {
    /// A list for a page.
    pub(crate) fn markdown(&self) -> String {
        format!(
            "- machine: {}\n- compiler: {}\n- commit: {}\n- load when it began: {}\n",
            self.machine, self.compiler, self.commit, self.load
        )
    }

    /// An object for programs.
    pub(crate) fn json(&self) -> Value {
        json!({
            "machine": self.machine,
            "compiler": self.compiler,
            "commit": self.commit,
            "load": self.load,
        })
    }

    /// The commit that was built, and whether it was changed since.
    #[must_use]
    pub fn commit(&self) -> &str {
        &self.commit
    }

    /// The compiler and its version.
    #[must_use]
    pub fn compiler(&self) -> &str {
        &self.compiler
    }
}

const UNKNOWN: &str = "unknown";

fn output(program: &str, arguments: &[&str]) -> String {
    Command::new(program)
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .ok()
        .filter(|output| output.status.success())
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .map_or_else(|| UNKNOWN.to_owned(), |text| text.trim().to_owned())
}

/// One figure as one line of JSON.
#[must_use]
pub fn line(group: &str, figure: &Figure) -> String {
    format!(
        "{{\"group\":{},\"pattern\":{},\"peer\":{},\"ns\":{:.2},\"ratio\":{:.3}}}",
        Value::from(group),
        Value::from(figure.pattern.as_str()),
        Value::from(figure.peer.as_str()),
        figure.ns,
        figure.ratio
    )
}

/// One queue's memory as lines of JSON: empty, a queued message beyond its payload, and after draining, with the
/// threads that were there then and not before.
#[must_use]
pub fn memory_lines(group: &str, memory: &Memory) -> Vec<String> {
    let peer = Value::from(memory.peer.as_str());
    let group = Value::from(group);
    vec![
        format!(
            "{{\"group\":{group},\"pattern\":\"memory-empty\",\"peer\":{peer},\"bytes\":{}}}",
            memory.empty
        ),
        format!(
            "{{\"group\":{group},\"pattern\":\"memory-queued\",\"peer\":{peer},\"bytes\":{:.2}}}",
            memory.queued
        ),
        format!(
            "{{\"group\":{group},\"pattern\":\"memory-drained\",\"peer\":{peer},\"bytes\":{},\"threads\":{}}}",
            memory.drained, memory.threads
        ),
    ]
}

/// The table of one pattern, fastest first.
#[must_use]
pub fn table(pattern: &Pattern, rounds: usize, figures: &[Figure]) -> String {
    let mut text = format!(
        "{}: how many times faster than {} ({} messages, median of {rounds} rounds)\n  {:<28} {:>8}  {:>13}  {:>10}\n",
        pattern.name, pattern.baseline, pattern.count, "peer", "ratio", "least..most", "ns/message"
    );
    for figure in sorted(figures) {
        let spread = format!("{:.2}..{:.2}", figure.spread.0, figure.spread.1);
        let _ = writeln!(
            text,
            "  {:<28} {:>8.2}  {spread:>13}  {:>10.1}",
            figure.peer, figure.ratio, figure.ns
        );
    }
    text
}

fn sorted(figures: &[Figure]) -> Vec<&Figure> {
    let mut sorted: Vec<_> = figures.iter().collect();
    sorted.sort_by(|one, other| other.ratio.total_cmp(&one.ratio));
    sorted
}

/// The table of memory.
#[must_use]
pub fn memory_table(count: usize, table: &[Memory]) -> String {
    let mut text = format!(
        "memory: {count} messages of 8 bytes queued (bytes asked of the allocator)\n  {:<20} {:>12} {:>16} {:>14} {:>8}\n",
        "peer", "empty", "beyond payload", "drained", "threads"
    );
    for memory in table {
        let _ = writeln!(
            text,
            "  {:<20} {:>12} {:>16.1} {:>14} {:>8}",
            memory.peer, memory.empty, memory.queued, memory.drained, memory.threads
        );
    }
    text
}

/// The table of aims.
#[must_use]
pub fn bars_table(bars: &[Bar]) -> String {
    let mut text = String::from("aims:\n");
    for bar in bars {
        let verdict = if bar.met { "met  " } else { "short" };
        let _ = writeln!(text, "  {verdict}  {}: {}", bar.aim, bar.measured);
    }
    text
}

/// Everything that a group's run found.
#[derive(Debug)]
pub struct Results<'a> {
    /// The group's name.
    pub group: &'a str,
    /// Rounds of each pattern.
    pub rounds: usize,
    /// The patterns, in order.
    pub patterns: &'a [Pattern],
    /// The figures of all patterns, in the same order.
    pub figures: &'a [Figure],
    /// How many messages stood in the queues whose memory was measured.
    pub memory_count: usize,
    /// What the queues cost; empty where the group has no such table.
    pub memory: &'a [Memory],
    /// The aims and their outcomes.
    pub bars: &'a [Bar],
}

impl Results<'_> {
    /// Writes `<group>.md` and `<group>.json` into the folder.
    ///
    /// # Errors
    /// When the folder or a file cannot be written.
    pub fn write(&self, folder: &Path, origin: &Origin) -> io::Result<()> {
        fs::create_dir_all(folder)?;
        fs::write(
            folder.join(format!("{}.md", self.group)),
            self.markdown(origin),
        )?;
        let mut json = serde_json::to_string_pretty(&self.json(origin))?;
        json.push('\n');
        fs::write(folder.join(format!("{}.json", self.group)), json)
    }

    /// The peers in the order in which they first appear.
    fn peers(&self) -> Vec<&str> {
        let mut peers = Vec::new();
        for figure in self.figures {
            if !peers.contains(&figure.peer.as_str()) {
                peers.push(figure.peer.as_str());
            }
        }
        peers
    }

    fn figure(&self, pattern: &str, peer: &str) -> Option<&Figure> {
        self.figures
            .iter()
            .find(|figure| figure.pattern == pattern && figure.peer == peer)
    }

    fn markdown(&self, origin: &Origin) -> String {
        let mut text = format!(
            "# Group `{}`\n\n- machine: {}\n- compiler: {}\n- commit: {}\n- load when it began: {}\n- {} rounds, the peers of a pattern \
             interleaved round by round; every run checked by count and checksum\n\n",
            self.group, origin.machine, origin.compiler, origin.commit, origin.load, self.rounds
        );
        if !self.bars.is_empty() {
            text.push_str("## Aims\n\n| aim | measured | |\n| --- | --- | --- |\n");
            for bar in self.bars {
                let verdict = if bar.met { "met" } else { "**short**" };
                let _ = writeln!(text, "| {} | {} | {verdict} |", bar.aim, bar.measured);
            }
            text.push('\n');
        }
        let (batched, single): (Vec<&Pattern>, Vec<&Pattern>) = self
            .patterns
            .iter()
            .partition(|pattern| pattern.name.ends_with("-batch10"));
        self.ratios(&mut text, "One message at a time", &single);
        self.ratios(
            &mut text,
            "Batches of 10 (`-single`: one at a time in the same rounds)",
            &batched,
        );
        if !self.memory.is_empty() {
            let _ = writeln!(
                text,
                "## Memory\n\n{} messages of 8 bytes in an unbounded queue; bytes asked of the allocator.\n\n\
                 | peer | empty | a message, beyond the payload | after draining | threads |\n\
                 | --- | ---: | ---: | ---: | ---: |",
                self.memory_count
            );
            for memory in self.memory {
                let _ = writeln!(
                    text,
                    "| {} | {} | {:.1} | {} | {} |",
                    memory.peer, memory.empty, memory.queued, memory.drained, memory.threads
                );
            }
            text.push('\n');
        }
        text.push_str("## Nanoseconds a message\n\n");
        for pattern in self.patterns {
            let own: Vec<Figure> = self
                .figures
                .iter()
                .filter(|figure| figure.pattern == pattern.name)
                .cloned()
                .collect();
            let cells: Vec<String> = sorted(&own)
                .iter()
                .map(|figure| format!("{} {:.1}", figure.peer, figure.ns))
                .collect();
            let _ = writeln!(text, "- `{}`: {}", pattern.name, cells.join(", "));
        }
        text.push_str("\n## Who lacks what\n\n");
        let peers = self.peers();
        for (name, note) in crate::groups::notes(self.group) {
            if peers
                .iter()
                .any(|peer| peer.trim_end_matches("-single") == *name)
            {
                let _ = writeln!(text, "- {name}: {note}");
            }
        }
        text
    }

    /// One table of ratios: a line for each pattern, a column for each peer.
    fn ratios(&self, text: &mut String, title: &str, patterns: &[&Pattern]) {
        if patterns.is_empty() {
            return;
        }
        let mut baselines: Vec<&str> = Vec::new();
        for pattern in patterns {
            if !baselines.contains(&pattern.baseline) {
                baselines.push(pattern.baseline);
            }
        }
        let peers: Vec<&str> = self
            .peers()
            .into_iter()
            .filter(|peer| {
                patterns
                    .iter()
                    .any(|pattern| self.figure(&pattern.name, peer).is_some())
            })
            .collect();
        let _ = writeln!(
            text,
            "## {title}\n\nHow many times faster than {} (its time by the peer's, in the same round; median). A dash: \
             the peer has no such pattern.\n",
            baselines.join(" or ")
        );
        let _ = writeln!(text, "| pattern | {} |", peers.join(" | "));
        let _ = writeln!(text, "| --- |{}", " ---: |".repeat(peers.len()));
        for pattern in patterns {
            let best = peers
                .iter()
                .filter_map(|peer| self.figure(&pattern.name, peer))
                .map(|figure| figure.ratio)
                .fold(0.0, f64::max);
            let cells: Vec<String> = peers
                .iter()
                .map(|peer| match self.figure(&pattern.name, peer) {
                    Some(figure) if figure.ratio >= best => format!("**{:.2}**", figure.ratio),
                    Some(figure) => format!("{:.2}", figure.ratio),
                    None => "-".to_owned(),
                })
                .collect();
            let _ = writeln!(text, "| {} | {} |", pattern.name, cells.join(" | "));
        }
        text.push('\n');
    }

    fn json(&self, origin: &Origin) -> Value {
        let rounded = |value: f64, by: f64| (value * by).round() / by;
        json!({
            "group": self.group,
            "machine": origin.machine,
            "compiler": origin.compiler,
            "commit": origin.commit,
            "load": origin.load,
            "rounds": self.rounds,
            "patterns": self.patterns.iter().map(|pattern| json!({
                "pattern": pattern.name,
                "baseline": pattern.baseline,
                "messages": pattern.count,
            })).collect::<Vec<_>>(),
            "figures": self.figures.iter().map(|figure| json!({
                "pattern": figure.pattern,
                "peer": figure.peer,
                "ns": rounded(figure.ns, 100.0),
                "ratio": rounded(figure.ratio, 1000.0),
                "least": rounded(figure.spread.0, 1000.0),
                "most": rounded(figure.spread.1, 1000.0),
            })).collect::<Vec<_>>(),
            "memory": self.memory.iter().map(|memory| json!({
                "peer": memory.peer,
                "messages": self.memory_count,
                "empty_bytes": memory.empty,
                "queued_bytes": rounded(memory.queued, 100.0),
                "drained_bytes": memory.drained,
                "threads": memory.threads,
            })).collect::<Vec<_>>(),
            "aims": self.bars.iter().map(|bar| json!({
                "aim": bar.aim,
                "measured": bar.measured,
                "met": bar.met,
            })).collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_five_keys_in_order() {
        let figure = Figure {
            pattern: "async-mpmc-4x4-bounded".to_owned(),
            peer: "kanal".to_owned(),
            ns: 41.234,
            ratio: 5.0,
            spread: (4.0, 6.0),
            rounds: vec![41.234],
        };
        assert_eq!(
            line("queue", &figure),
            r#"{"group":"queue","pattern":"async-mpmc-4x4-bounded","peer":"kanal","ns":41.23,"ratio":5.000}"#
        );
    }
}
