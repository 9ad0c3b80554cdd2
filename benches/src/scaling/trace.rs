//! Loads a minute: recorded ones where they are there, and made-up ones.

mod made_up;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use flate2::read::MultiGzDecoder;
use sim_core::time::Timestamp;

/// The folder of recorded traces that are not part of the project, unless this variable names one.
const FOLDER: &str = "SIM_TRACES";

/// A load, a value a minute.
#[derive(Clone, Debug)]
pub struct Trace {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub about: String,
    /// When its first minute began.
    pub start: Timestamp,
    /// The load of each minute.
    pub loads: Vec<f64>,
    /// Where it comes from.
    pub kind: Kind,
}

/// Where a trace comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It happened.
    Recorded,
    /// It was made up.
    MadeUp,
}

/// A trace could not be read.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The file.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A line.
    #[error("{path}, line {line}: not a time and a number of at least 0: {text:?}")]
    Line {
        /// Which file.
        path: PathBuf,
        /// Which line.
        line: usize,
        /// What stands there.
        text: String,
    },
    /// There are too few lines, or their times are no steps of whole minutes.
    #[error("{path}: {problem}")]
    Times {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        problem: &'static str,
    },
}

/// All traces, and a line for each that is not there.
///
/// # Errors
/// When one is there and cannot be read.
pub(super) fn all(more: &[PathBuf]) -> Result<(Vec<Trace>, Vec<String>), TraceError> {
    let mut traces = vec![flights()?];
    let mut absent = Vec::new();
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let folder =
        std::env::var_os(FOLDER).map_or_else(|| project.join("../shared/data"), PathBuf::from);

    let name = "worldcup98-requests-per-minute.csv.gz";
    match read(&folder.join(name))? {
        Some(rows) => {
            let whole = minutes(&rows, &folder.join(name))?;
            let part = |from: &str, days: u64| {
                let from: Timestamp = from.parse().unwrap_or_default();
                let skip = from.saturating_duration_since(whole.0).as_secs() / 60;
                let loads = whole
                    .1
                    .iter()
                    .skip(skip as usize)
                    .take(days as usize * 1440);
                (from, loads.copied().collect::<Vec<_>>())
            };
            let (start, loads) = part("1998-06-10T00:00:00Z", 30);
            traces.push(Trace {
                name: "world-cup-98",
                about: "requests to the World Cup's site, 10 June to 9 July 1998: the tournament"
                    .to_owned(),
                start,
                loads,
                kind: Kind::Recorded,
            });
            let (start, loads) = part("1998-05-01T00:00:00Z", 30);
            traces.push(Trace {
                name: "world-cup-98-before",
                about: "the same site, 1 to 30 May 1998: the weeks before".to_owned(),
                start,
                loads,
                kind: Kind::Recorded,
            });
        }
        None => absent.push(missing("world-cup-98", &folder, name)),
    }
    let name = "nab-elb-requests-per-5min.csv.gz";
    match read(&folder.join(name))? {
        Some(rows) => {
            // The times have gaps; the rows are taken as they follow one another, each spread over its five minutes.
            let spread = rows.iter().flat_map(|&(_, value)| [value / 5.0; 5]);
            traces.push(Trace {
                name: "nab-elb",
                about: "requests at a load balancer, April 2014, five minutes each spread evenly"
                    .to_owned(),
                start: rows.first().map(|row| row.0).unwrap_or_default(),
                loads: spread.collect(),
                kind: Kind::Recorded,
            });
        }
        None => absent.push(missing("nab-elb", &folder, name)),
    }
    for path in more {
        let rows = read(path)?.ok_or_else(|| TraceError::Io {
            path: path.clone(),
            source: std::io::ErrorKind::NotFound.into(),
        })?;
        let (start, loads) = minutes(&rows, path)?;
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        traces.push(Trace {
            name: "given",
            about: name.unwrap_or_default(),
            start,
            loads,
            kind: Kind::Recorded,
        });
    }
    traces.extend(made_up::all());
    Ok((traces, absent))
}

fn missing(name: &str, folder: &Path, file: &str) -> String {
    format!(
        "{name} is left out: no {file} in {} (set {FOLDER} to its folder)",
        folder.display()
    )
}

/// The project's own trace: scheduled departures from New York's airports in each minute of 2013.
///
/// # Errors
/// When the file cannot be read.
pub(super) fn flights() -> Result<Trace, TraceError> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sim-cli/data/flights-2013.csv.gz");
    let lines = open(&path)?.ok_or_else(|| TraceError::Io {
        path: path.clone(),
        source: std::io::ErrorKind::NotFound.into(),
    })?;
    let mut counts: BTreeMap<Timestamp, f64> = BTreeMap::new();
    for (index, line) in lines.lines().enumerate().skip(1) {
        let line = line.map_err(|source| TraceError::Io {
            path: path.clone(),
            source,
        })?;
        // `time_hour`, the hour, and `minute`, the minute of it.
        let mut columns = line.split(',');
        let hour = columns.next().and_then(time);
        let minute = columns.next().and_then(|text| text.parse::<u64>().ok());
        let (Some(hour), Some(minute)) = (hour, minute) else {
            return Err(TraceError::Line {
                path,
                line: index + 1,
                text: line,
            });
        };
        *counts
            .entry(hour + Duration::from_secs(60 * minute))
            .or_default() += 1.0;
    }
    let rows: Vec<_> = counts.into_iter().collect();
    let (start, loads) = fill(&rows, Duration::from_secs(60));
    Ok(Trace {
        name: "flights",
        about: "scheduled departures from New York's three airports, the year 2013".to_owned(),
        start,
        loads,
        kind: Kind::Recorded,
    })
}

fn open(path: &Path) -> Result<Option<Box<dyn BufRead>>, TraceError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(TraceError::Io {
                path: path.to_owned(),
                source,
            });
        }
    };
    let zipped = path.extension().is_some_and(|end| end == "gz");
    let reader: Box<dyn Read> = if zipped {
        Box::new(MultiGzDecoder::new(file))
    } else {
        Box::new(file)
    };
    Ok(Some(Box::new(BufReader::new(reader))))
}

/// Reads `time,value` rows below a header; nothing when there is no such file.
fn read(path: &Path) -> Result<Option<Vec<(Timestamp, f64)>>, TraceError> {
    let Some(lines) = open(path)? else {
        return Ok(None);
    };
    let mut rows = Vec::new();
    for (index, line) in lines.lines().enumerate().skip(1) {
        let line = line.map_err(|source| TraceError::Io {
            path: path.to_owned(),
            source,
        })?;
        if line.trim().is_empty() {
            continue;
        }
        let mut columns = line.split(',');
        let at = columns.next().and_then(time);
        let value = columns
            .next()
            .and_then(|text| text.trim().parse::<f64>().ok());
        match (at, value.filter(|value| value.is_finite() && *value >= 0.0)) {
            (Some(at), Some(value)) => rows.push((at, value)),
            _ => {
                return Err(TraceError::Line {
                    path: path.to_owned(),
                    line: index + 1,
                    text: line,
                });
            }
        }
    }
    Ok(Some(rows))
}

/// A time with or without a zone; UTC without.
fn time(text: &str) -> Option<Timestamp> {
    let text = text.trim().trim_matches('"');
    text.parse().or_else(|_| format!("{text}Z").parse()).ok()
}

/// A value a minute: rows further apart are spread evenly, minutes without a row are zero.
fn minutes(rows: &[(Timestamp, f64)], path: &Path) -> Result<(Timestamp, Vec<f64>), TraceError> {
    let fail = |problem| TraceError::Times {
        path: path.to_owned(),
        problem,
    };
    let mut steps: BTreeMap<Duration, usize> = BTreeMap::new();
    for pair in rows.windows(2) {
        if pair[1].0 < pair[0].0 {
            return Err(fail("the times go back"));
        }
        *steps.entry(pair[1].0 - pair[0].0).or_default() += 1;
    }
    let step = steps
        .into_iter()
        .max_by_key(|step| step.1)
        .map(|step| step.0);
    let step = step.ok_or_else(|| fail("there are fewer than two rows"))?;
    if step.is_zero() || !step.as_secs().is_multiple_of(60) {
        return Err(fail("the times are not whole minutes apart"));
    }
    let (start, loads) = fill(rows, step);
    let each = step.as_secs() / 60;
    let spread = loads
        .into_iter()
        .flat_map(|load| std::iter::repeat_n(load / each as f64, each as usize));
    Ok((start, spread.collect()))
}

/// A value a step; steps without a row are zero.
fn fill(rows: &[(Timestamp, f64)], step: Duration) -> (Timestamp, Vec<f64>) {
    let start = rows.first().map(|row| row.0).unwrap_or_default();
    let mut loads = Vec::new();
    for &(at, value) in rows {
        let index = ((at - start).as_secs() / step.as_secs().max(1)) as usize;
        if loads.len() <= index {
            loads.resize(index + 1, 0.0);
        }
        loads[index] += value;
    }
    (start, loads)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minute: u64) -> Timestamp {
        Timestamp::UNIX_EPOCH + Duration::from_secs(60 * minute)
    }

    #[test]
    fn the_flights_are_a_year_of_minutes() {
        let trace = flights().unwrap();
        assert_eq!(trace.loads.iter().sum::<f64>(), 336_776.0);
        assert!(
            (525_000..=525_960).contains(&trace.loads.len()),
            "{}",
            trace.loads.len()
        );
    }

    #[test]
    fn coarse_rows_are_spread_and_gaps_are_zero() {
        let path = Path::new("x");
        let rows = [(at(0), 10.0), (at(5), 20.0), (at(15), 5.0), (at(20), 5.0)];
        let (start, loads) = minutes(&rows, path).unwrap();
        assert_eq!((start, loads.len()), (at(0), 25));
        assert_eq!(
            [loads[0], loads[4], loads[5], loads[10], loads[15]],
            [2.0, 2.0, 4.0, 0.0, 1.0]
        );
        assert!(minutes(&rows[..1], path).is_err());
        assert!(minutes(&[(at(5), 1.0), (at(0), 1.0)], path).is_err());
    }

    #[test]
    fn times_are_read_with_and_without_a_zone() {
        assert_eq!(time("1970-01-01 00:01:00"), Some(at(1)));
        assert_eq!(time("1970-01-01T00:01:00Z"), Some(at(1)));
        assert_eq!(time("yesterday"), None);
    }
}
