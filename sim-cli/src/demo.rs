//! `sim demo`: read, replay, report.
//!
//! Exit codes: 0 when everything adds up, 1 when it does not, 2 when the command line, the input or an output file
//! cannot be used.

use std::error::Error;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use clap::value_parser;
use indicatif::{ProgressBar, ProgressStyle};
use sim_core::clock::Clock;

use crate::chart;
use crate::events::EventLog;
use crate::flights::Source;
use crate::report::{self, Report};
use crate::world::{self, Settings};

/// Arguments of `sim demo`.
#[derive(Debug, Args)]
#[command(after_help = "\
The data must have the columns
  time_hour,minute,carrier,flight,tailnum,origin,dest,dep_delay,arr_delay,distance
time_hour is in UTC, as 2013-01-31T10:00:00Z; tailnum and the delays may be empty;
a flight without dep_delay was cancelled. Rows are replayed in order of departure,
whatever their order in the file. A malformed row is reported with its line and
column, and counted among the dead letters.

Exit codes: 0 everything adds up; 1 it does not; 2 arguments, input or output
cannot be used.")]
pub(crate) struct Arguments {
    /// Replay this file, .csv or .csv.gz, instead of the built-in year 2013.
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,

    /// Seed of everything that is left to chance; the same seed gives the same digest.
    #[arg(long, value_name = "N", default_value_t = 2013)]
    seed: u64,

    /// The most workers at each of the three queues; a group of them follows the queue.
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = value_parser!(u32).range(1..=100_000))]
    workers: u32,

    /// Where to write the chart of depth and age.
    #[arg(long, value_name = "FILE.svg", default_value = "sim-demo.svg")]
    out: PathBuf,

    /// Also write every event to this file, a line each; its SHA-256 is the digest.
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,

    /// Show no progress bar (there is none either when stderr is not a terminal).
    #[arg(long)]
    no_progress: bool,
}

/// Runs the demo.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    match try_run(arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            say(io::stderr(), &format!("error: {error}\n"));
            ExitCode::from(2)
        }
    }
}

/// Runs the demo, and says whether everything added up.
fn try_run(arguments: &Arguments) -> Result<bool, Box<dyn Error>> {
    let clock = Clock::system();
    check_output(arguments)?;
    let begun = clock.now();
    let source = arguments
        .data
        .clone()
        .map_or(Source::Embedded, Source::File);
    let input = source.read()?;
    let read = clock.now();
    let log_file = match &arguments.log {
        Some(path) => Some(File::create(path).map_err(|error| unusable("write", path, &error))?),
        None => None,
    };

    let mut complaints = String::new();
    for row in &input.malformed {
        complaints += &format!("malformed: {source} {row}\n");
    }
    say(io::stderr(), &complaints);

    let settings = Settings {
        seed: arguments.seed,
        workers: arguments.workers,
    };
    let bar = if arguments.no_progress {
        ProgressBar::hidden()
    } else {
        progress_bar(input.flights.len() as u64)
    };
    let (virtual_clock, time) = Clock::virtual_at(world::start(&input));
    let mut log = EventLog::new(virtual_clock.clone(), log_file);
    let starts = clock.now();
    let outcome = world::replay(
        input,
        &settings,
        (virtual_clock, time),
        &mut log,
        |progress| {
            bar.set_position(progress.sent);
            bar.set_message(chart::date_of(progress.now));
        },
    );
    bar.finish_and_clear();
    let digested = log.finish().map_err(|error| match &arguments.log {
        Some(path) => unusable("write", path, &error),
        None => error.to_string(),
    })?;
    let replaying = clock.now() - starts;

    let svg = chart::draw(&outcome, &settings, &digested);
    fs::write(&arguments.out, svg).map_err(|error| unusable("write", &arguments.out, &error))?;
    let report = Report {
        source: &source.to_string(),
        settings: &settings,
        outcome: &outcome,
        digested: &digested,
        reading: read - begun,
        replaying,
    };
    say(
        io::stdout(),
        &format!("{report}chart      {}\n", arguments.out.display()),
    );
    Ok(report::reconciles(&outcome))
}

/// Finds out before a replay, not after it, that the chart has no place to go, or that of another file.
fn check_output(arguments: &Arguments) -> Result<(), String> {
    let path = &arguments.out;
    let cannot = |why: &str| Err(format!("cannot write {}: {why}", path.display()));
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    if path.is_dir() {
        return cannot("it is a directory");
    }
    if let Some(parent) = parent.filter(|parent| !parent.is_dir()) {
        return cannot(&format!("there is no directory {}", parent.display()));
    }
    let files = [
        arguments.data.as_deref(),
        arguments.log.as_deref(),
        Some(path.as_path()),
    ];
    let used = files.map(|file| {
        file.filter(|file| file.is_file() || !file.exists())
            .map(place)
    });
    let [data, log, out] = &used;
    if data.is_some() && (data == log || data == out) {
        return Err("cannot write over the data".to_owned());
    }
    if log.is_some() && log == out {
        return cannot("it is the log, too");
    }
    Ok(())
}

/// A path by which the same file is known as the same, where the system can tell.
fn place(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_path_buf())
}

/// One line about a file that cannot be used.
fn unusable(verb: &str, path: &Path, error: &io::Error) -> String {
    format!("cannot {verb} {}: {error}", path.display())
}

/// Writes text, and lets a reader that went away be.
fn say(mut to: impl Write, text: &str) {
    // A closed pipe (`sim demo | head`) is no error of the demo, and no other failure has a place to be told.
    let _ = to.write_all(text.as_bytes()).and_then(|()| to.flush());
}

/// A bar over the flights, on stderr if that is a terminal.
fn progress_bar(flights: u64) -> ProgressBar {
    let bar = ProgressBar::new(flights);
    let style =
        ProgressStyle::with_template("{msg:10} [{wide_bar}] {human_pos}/{human_len} {elapsed}");
    if let Ok(style) = style {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}
