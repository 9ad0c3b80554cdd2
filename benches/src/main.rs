//! The bench runner: `benches GROUP...` interleaves the rivals and prints how many times faster than the baseline
//! each is.

#![deny(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use benches::bars;
use benches::groups::{self, Scale};
use benches::measure::{Figure, Warm, measure};
use benches::memory::{self, Meter};
use benches::pattern::{Failure, Pattern};
use benches::pauses;
use benches::proxies;
use benches::report::{self, Origin, Results};
use benches::scaling;
use benches::simulate;
use benches::timing::Watchdog;

mod alloc;
#[cfg(test)]
mod allocations;

#[global_allocator]
static ALLOCATOR: alloc::Counting = alloc::Counting;

const USAGE: &str = "\
Usage: benches [OPTIONS] GROUP...

Groups: core (raw rings), queue (channels, and the memory of queues), topic (fan-out), stream (logs), balancer (picks),
        tables (of keys, built), scaling (policies over loads, in virtual time),
        simulate (balancers in virtual time; fails when the known order does not come out),
        proxy (processor time beside nginx and haproxy)

Options:
  --json           print one object a line on standard output instead of tables
  --quick          a smoke run: few messages, one round, no warm-up, no results written
  --rounds N       rounds of each pattern (9)
  --filter TEXT    only patterns whose name holds TEXT (`memory` is one); no results written
  --out FOLDER     where <group>.md and <group>.json go (benches/results), also for partial runs
  --trace FILE     scaling: replay this one too (CSV of time and load, plain or gzipped; may be repeated)
  --list           print the names of the patterns and their peers
  --help           print this
";

/// Messages queued while memory is measured.
const QUEUED: usize = 10_000_000;

/// The group that measures processes and not messages.
const PROXY: &str = "proxy";

/// A run that takes longer than this hangs.
const HANGS: Duration = Duration::from_secs(120);

struct Options {
    groups: Vec<String>,
    json: bool,
    scale: Scale,
    rounds: Option<usize>,
    filter: Option<String>,
    out: Option<PathBuf>,
    list: bool,
    traces: Vec<PathBuf>,
}

/// What the arguments ask for; a message when they make no sense, and nothing to do for `--help`.
fn parse(arguments: impl Iterator<Item = String>) -> Result<Option<Options>, String> {
    let mut options = Options {
        groups: Vec::new(),
        json: false,
        scale: Scale::Full,
        rounds: None,
        filter: None,
        out: None,
        list: false,
        traces: Vec::new(),
    };
    let mut arguments = arguments;
    while let Some(argument) = arguments.next() {
        let mut value = || {
            arguments
                .next()
                .ok_or_else(|| format!("{argument} needs a value after it"))
        };
        match argument.as_str() {
            "--help" | "-h" => return Ok(None),
            "--json" => options.json = true,
            "--quick" => options.scale = Scale::Quick,
            "--list" => options.list = true,
            "--filter" => options.filter = Some(value()?),
            "--out" => options.out = Some(PathBuf::from(value()?)),
            "--trace" => options.traces.push(PathBuf::from(value()?)),
            "--rounds" => {
                let text = value()?;
                match text.parse() {
                    Ok(rounds) if rounds > 0 => options.rounds = Some(rounds),
                    _ => return Err(format!("--rounds {text}: a number above zero is needed")),
                }
            }
            option if option.starts_with('-') => return Err(format!("unknown option {option}")),
            group if groups::NAMES.contains(&group) || [simulate::NAME, PROXY].contains(&group) => {
                options.groups.push(argument);
            }
            group => {
                return Err(format!(
                    "unknown group `{group}` (there are: {})",
                    groups::NAMES.join(", ")
                ));
            }
        }
    }
    if options.groups.is_empty() {
        return Err(format!(
            "name a group (there are: {})",
            groups::NAMES.join(", ")
        ));
    }
    Ok(Some(options))
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some((first, rest)) = arguments.split_first()
        && first == proxies::SERVE
    {
        return match proxies::serve(rest) {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => {
                eprintln!("benches: {failure}");
                ExitCode::FAILURE
            }
        };
    }
    let options = match parse(arguments.into_iter()) {
        Ok(Some(options)) => options,
        Ok(None) => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(message) => {
            eprintln!("benches: {message}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    if cfg!(debug_assertions) && options.scale == Scale::Full && !options.list {
        eprintln!("benches: built without --release: these figures say nothing");
    }
    let watchdog = Watchdog::new(HANGS);
    for group in &options.groups {
        let outcome = if group == PROXY {
            run_proxies(&options)
        } else if group == simulate::NAME {
            simulated(&options)
        } else {
            run(group, &options, &watchdog)
        };
        if let Err(failure) = outcome {
            eprintln!("benches: {group}: {failure}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// Plays the simulation, prints it, and fails where the known order does not come out.
fn simulated(options: &Options) -> Result<(), Failure> {
    let origin = Origin::find();
    let mut suites = simulate::suites(options.scale);
    if let Some(text) = &options.filter {
        suites.retain(|suite| suite.name.contains(text.as_str()));
    }
    if options.list {
        for suite in &suites {
            let names: Vec<&str> = suite.contenders.iter().map(|one| one.name).collect();
            println!("{}: {}", suite.name, names.join(", "));
        }
        return Ok(());
    }
    let results = simulate::run(&suites)?;
    let bars = simulate::checks(&results);
    if options.json {
        simulate::lines(&results)
            .iter()
            .for_each(|line| println!("{line}"));
    } else {
        print!("{}", simulate::tables(&suites, &results));
        print!("{}", simulate::plot(&suites, &results));
        println!("{}", report::bars_table(&bars));
    }
    let complete = options.scale == Scale::Full && options.filter.is_none();
    let folder = match &options.out {
        Some(folder) => Some(folder.clone()),
        None if complete => Some(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("results")),
        None => None,
    };
    if let Some(folder) = folder {
        simulate::write(&folder, &origin, &suites, &results, &bars)
            .map_err(|error| Failure(format!("cannot write to {}: {error}", folder.display())))?;
    }
    let short: Vec<&str> = bars
        .iter()
        .filter(|bar| !bar.met)
        .map(|bar| bar.aim.as_str())
        .collect();
    if short.is_empty() {
        return Ok(());
    }
    Err(Failure(format!(
        "not as it should be: {}",
        short.join("; ")
    )))
}

/// The allocator's count.
fn meter() -> Meter {
    Meter {
        start: alloc::start,
        held: alloc::held,
        stop: alloc::stop,
    }
}

fn run_proxies(options: &Options) -> Result<(), Failure> {
    if options.list {
        println!("{PROXY}: sim-balancer, nginx, haproxy");
        return Ok(());
    }
    let (rounds, length) = match options.scale {
        Scale::Full => (9, Duration::from_secs(3)),
        Scale::Quick => (1, Duration::from_millis(300)),
    };
    let out = match (&options.out, options.scale) {
        (Some(folder), _) => Some(folder.clone()),
        (None, Scale::Full) => Some(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("results")),
        (None, Scale::Quick) => None,
    };
    proxies::run(&proxies::Plan {
        rounds: options.rounds.unwrap_or(rounds),
        length,
        json: options.json,
        out,
    })
}

fn run(group: &str, options: &Options, watchdog: &Watchdog) -> Result<(), Failure> {
    if group == "scaling" {
        let complete =
            options.scale == Scale::Full && options.filter.is_none() && options.traces.is_empty();
        let results = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("results");
        return scaling::run(&scaling::Options {
            scale: options.scale,
            filter: options.filter.as_deref(),
            traces: &options.traces,
            json: options.json,
            list: options.list,
            out: options.out.clone().or_else(|| complete.then_some(results)),
        });
    }
    let chosen = |name: &str| {
        options
            .filter
            .as_deref()
            .is_none_or(|text| name.contains(text))
    };
    let patterns: Vec<Pattern> = groups::patterns(group, options.scale)
        .unwrap_or_default()
        .into_iter()
        .filter(|pattern| chosen(&pattern.name))
        .collect();
    let with_memory = group == "queue" && chosen("memory");
    let with_pauses = group == "stream" && chosen("memory");
    if patterns.is_empty() && !with_memory && !with_pauses {
        return Err(Failure(
            "no pattern's name holds the filter's text".to_owned(),
        ));
    }
    if options.list {
        for pattern in &patterns {
            let peers: Vec<&str> = pattern
                .peers
                .iter()
                .map(|peer| peer.name.as_str())
                .collect();
            println!("{}: {}", pattern.name, peers.join(", "));
        }
        return Ok(());
    }
    let (default_rounds, warm, queued) = match options.scale {
        Scale::Full => (9, Warm::Up, QUEUED),
        Scale::Quick => (1, Warm::Not, QUEUED / 100),
    };
    let rounds = options.rounds.unwrap_or(default_rounds);

    let origin = Origin::find();
    let mut figures: Vec<Figure> = Vec::new();
    for (index, pattern) in patterns.iter().enumerate() {
        if options.json {
            eprintln!("{group} {}/{} {}", index + 1, patterns.len(), pattern.name);
        }
        let found = measure(pattern, rounds, warm, watchdog)?;
        if options.json {
            for figure in &found {
                println!("{}", report::line(group, figure));
            }
        } else {
            println!("{}", report::table(pattern, rounds, &found));
        }
        figures.extend(found);
    }
    let memory = if with_memory {
        memory::measure(queued, meter(), watchdog)?
    } else {
        Vec::new()
    };
    let mut bars = match group {
        "core" => bars::core(&figures),
        "filter" => bars::filter(&figures),
        "topic" => bars::topic(&figures),
        "stream" => bars::stream(&figures),
        "balancer" => bars::balancer(&figures),
        "tables" => bars::tables(&figures),
        _ => bars::queue(&figures, &memory),
    };
    if with_pauses {
        bars.extend(pauses::measure(queued as u64, meter(), watchdog)?);
    }
    if options.json {
        memory
            .iter()
            .flat_map(|one| report::memory_lines(group, one))
            .for_each(|l| println!("{l}"));
    } else {
        if !memory.is_empty() {
            println!("{}", report::memory_table(queued, &memory));
        }
        if !bars.is_empty() {
            println!("{}", report::bars_table(&bars));
        }
    }

    let complete = options.scale == Scale::Full && options.filter.is_none();
    let folder = match &options.out {
        Some(folder) => Some(folder.clone()),
        None if complete => Some(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("results")),
        None => None,
    };
    if let Some(folder) = folder {
        let results = Results {
            group,
            rounds,
            patterns: &patterns,
            figures: &figures,
            memory_count: queued,
            memory: &memory,
            bars: &bars,
        };
        results
            .write(&folder, &origin)
            .map_err(|error| Failure(format!("cannot write to {}: {error}", folder.display())))?;
        eprintln!(
            "benches: wrote {}",
            folder.join(format!("{group}.md")).display()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Result<Option<Options>, String> {
        parse(arguments.iter().map(|&argument| argument.to_owned()))
    }

    #[test]
    fn an_unknown_group_is_named_in_the_error() {
        let error = parsed(&["core", "nonesuch"]).err().expect("no such group");
        assert!(error.contains("`nonesuch`"), "{error}");
        assert!(parsed(&[]).is_err());
        assert!(parsed(&["--rounds", "0", "core"]).is_err());
        assert!(parsed(&["--rounds"]).is_err());
        assert!(parsed(&["--fast", "core"]).is_err());
    }

    #[test]
    fn options_are_read_in_any_order() {
        let options = parsed(&["queue", "--quick", "--rounds", "3", "core", "--json"])
            .expect("all are known")
            .expect("not a request for help");
        assert_eq!(options.groups, ["queue", "core"]);
        assert!(options.json);
        assert_eq!(options.scale, Scale::Quick);
        assert_eq!(options.rounds, Some(3));
    }
}
