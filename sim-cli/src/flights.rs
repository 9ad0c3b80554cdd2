//! The input: scheduled departures as CSV, plain or gzipped, one row a line.
//!
//! A row that cannot be read does not stop the reading: it becomes a [`Malformed`] with its line and column.
//! What makes the whole file useless (missing, not gzip, another header) is an [`InputError`].
//!
//! Rows may stand in any order: they are replayed by scheduled departure, rows of one minute in the order of
//! the file, and how many stood after a later one is counted. A file is therefore read whole before the
//! replay starts, about 80 bytes a row.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use csv_core::ReadRecordResult;
use flate2::bufread::MultiGzDecoder;

use sim_core::time::Timestamp;

/// The columns that a file must have, in this order.
pub(crate) const COLUMNS: [&str; 10] = [
    "time_hour",
    "minute",
    "carrier",
    "flight",
    "tailnum",
    "origin",
    "dest",
    "dep_delay",
    "arr_delay",
    "distance",
];

/// A year of departures from New York's three airports; see `data/README.md` for source and licence.
const EMBEDDED: &[u8] = include_bytes!("../data/flights-2013.csv.gz");

/// Longest line that is looked at; a longer one is malformed, so that no file can fill the memory with a line.
const MAX_LINE: usize = 64 * 1024;

/// Hours that are taken: the replay's clock, nanoseconds in 64 bits, spans them.
const EARLIEST: Timestamp = Timestamp::UNIX_EPOCH;
const LATEST: Timestamp = Timestamp::from_unix_seconds(7_258_114_800);

/// One scheduled departure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flight {
    /// Which row of the input this is: 1 for the first below the header, malformed ones included.
    pub(crate) row: u32,
    /// Scheduled departure.
    pub(crate) departure: Timestamp,
    /// The airline.
    pub(crate) carrier: Code,
    /// The flight's number.
    pub(crate) number: u32,
    /// The aircraft, where one was assigned.
    pub(crate) tail: Option<Code>,
    /// The airport of departure.
    pub(crate) origin: Code,
    /// The airport of arrival.
    pub(crate) destination: Code,
    /// Minutes by which it left late (early: below zero); none: it was cancelled.
    pub(crate) departure_delay: Option<i32>,
    /// Minutes by which it arrived late, where known.
    pub(crate) arrival_delay: Option<i32>,
    /// Distance in miles.
    pub(crate) distance: u32,
}

impl Flight {
    /// Whether it never left.
    pub(crate) const fn is_cancelled(&self) -> bool {
        self.departure_delay.is_none()
    }
}

/// A short code of an airline, an airport or an aircraft, held inline.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Code {
    /// Invariant: ASCII, so that every prefix is UTF-8.
    bytes: [u8; Self::MAX],
    length: u8,
}

impl Code {
    /// Longest code: room for every registration mark.
    const MAX: usize = 10;

    /// Reads a code: 1 to 10 letters, digits and hyphens of ASCII.
    fn new(text: &str) -> Option<Self> {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if text.is_empty() || text.len() > Self::MAX || !text.bytes().all(known) {
            return None;
        }
        let mut bytes = [0; Self::MAX];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Some(Self {
            bytes,
            length: text.len() as u8,
        })
    }

    /// The code as text.
    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..usize::from(self.length)]).unwrap_or_default()
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// A row that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Malformed {
    /// Which row of the input this is, counted as [`Flight::row`].
    pub(crate) row: u32,
    /// The line of the file, 1 for the header.
    pub(crate) line: u64,
    /// The first column at fault, from 0.
    column: usize,
    /// What is wrong with it.
    problem: String,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column + 1)?;
        if let Some(name) = COLUMNS.get(self.column) {
            write!(f, " ({name})")?;
        }
        write!(f, ": {}", self.problem)
    }
}

/// What was read.
#[derive(Debug, Default)]
pub(crate) struct Input {
    /// Rows below the header; blank lines are none.
    pub(crate) rows: u32,
    /// The rows that could be read, by scheduled departure.
    pub(crate) flights: Vec<Flight>,
    /// The rows that could not, in the order of the file.
    pub(crate) malformed: Vec<Malformed>,
    /// Rows that stood after one of a later departure.
    pub(crate) reordered: u32,
}

/// Why a file cannot be replayed at all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum InputError {
    /// The file is not there, or may not be read, or broke off.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// What the system says.
        source: io::Error,
    },
    /// The name says gzip, the first bytes do not.
    #[error("cannot read {path}: its name ends in .gz, but it is not gzip data")]
    NotGzip {
        /// The file.
        path: String,
    },
    /// The first line is not the expected one.
    #[error("{path} has the wrong header: {problem}; expected {}", COLUMNS.join(","))]
    Header {
        /// The file.
        path: String,
        /// The first difference.
        problem: String,
    },
    /// More rows than a row number holds.
    #[error("{path} has more than {} rows", u32::MAX)]
    TooManyRows {
        /// The file.
        path: String,
    },
}

/// Where the rows come from.
#[derive(Debug)]
pub(crate) enum Source {
    /// The year that is part of the program.
    Embedded,
    /// A file in the same columns.
    File(PathBuf),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded => f.write_str("flights-2013.csv.gz (built in)"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

impl Source {
    /// Reads all rows.
    ///
    /// # Errors
    ///
    /// When the file cannot be read to its end, or is not what it should be; see [`InputError`].
    pub(crate) fn read(&self) -> Result<Input, InputError> {
        let failed = |source| InputError::Io {
            path: self.to_string(),
            source,
        };
        match self {
            Self::Embedded => self.parse(BufReader::new(MultiGzDecoder::new(EMBEDDED))),
            Self::File(path) => {
                let mut file = BufReader::new(File::open(path).map_err(failed)?);
                // The content decides: a pipe or a renamed file may hold either form.
                if file.fill_buf().map_err(failed)?.starts_with(&[0x1f, 0x8b]) {
                    self.parse(BufReader::new(MultiGzDecoder::new(file)))
                } else if is_named_gzip(path) {
                    Err(InputError::NotGzip {
                        path: self.to_string(),
                    })
                } else {
                    self.parse(file)
                }
            }
        }
    }

    /// Reads header and rows from `lines`.
    fn parse(&self, lines: impl BufRead) -> Result<Input, InputError> {
        let failed = |source| InputError::Io {
            path: self.to_string(),
            source,
        };
        let wrong = |problem| InputError::Header {
            path: self.to_string(),
            problem,
        };
        let mut lines = Lines::new(lines);
        let mut splitter = Splitter::new();
        let mut input = Input::default();

        match lines.next().map_err(failed)? {
            None => return Err(wrong("the file is empty".to_owned())),
            Some(line) => check_header(splitter.split(line)).map_err(wrong)?,
        }
        let mut latest = Timestamp::MIN;
        while let Some(line) = lines.next().map_err(failed)? {
            if matches!(line, Line::Text(b"")) {
                continue;
            }
            let row = input.rows.checked_add(1);
            input.rows = row.ok_or_else(|| InputError::TooManyRows {
                path: self.to_string(),
            })?;
            match parse_row(input.rows, &splitter.split(line)) {
                Ok(flight) => {
                    input.reordered += u32::from(flight.departure < latest);
                    latest = latest.max(flight.departure);
                    input.flights.push(flight);
                }
                Err(Fault { column, problem }) => {
                    let (row, line) = (input.rows, lines.number);
                    input.malformed.push(Malformed {
                        row,
                        line,
                        column,
                        problem,
                    });
                }
            }
        }
        if input.reordered > 0 {
            input.flights.sort_by_key(|flight| flight.departure);
        }
        Ok(input)
    }
}

/// Whether the file's name promises gzip.
fn is_named_gzip(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("gz"))
}

/// One line of the input, without its end.
#[derive(Debug, Clone, Copy)]
enum Line<'a> {
    Text(&'a [u8]),
    TooLong,
}

/// Lines of bounded length with their numbers.
struct Lines<R> {
    reader: R,
    buffer: Vec<u8>,
    /// Number of the line given last, from 1.
    number: u64,
}

impl<R: BufRead> Lines<R> {
    const fn new(reader: R) -> Self {
        Self {
            reader,
            buffer: Vec::new(),
            number: 0,
        }
    }

    /// The next line, or none at the end.
    fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        self.buffer.clear();
        // Room for the line, and its end of one or two bytes.
        let limit = MAX_LINE as u64 + 2;
        if self
            .reader
            .by_ref()
            .take(limit)
            .read_until(b'\n', &mut self.buffer)?
            == 0
        {
            return Ok(None);
        }
        self.number += 1;
        let ended = self.buffer.last() == Some(&b'\n');
        if !ended && self.buffer.len() as u64 == limit {
            self.reader.skip_until(b'\n')?;
            return Ok(Some(Line::TooLong));
        }
        let mut text = self.buffer.as_slice();
        text = text.strip_suffix(b"\n").unwrap_or(text);
        text = text.strip_suffix(b"\r").unwrap_or(text);
        if self.number == 1 {
            // A byte order mark, as spreadsheets write it.
            text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        }
        Ok(Some(if text.len() > MAX_LINE {
            Line::TooLong
        } else {
            Line::Text(text)
        }))
    }
}

/// What is wrong with which column.
#[derive(Debug)]
struct Fault {
    column: usize,
    problem: String,
}

/// Splits lines into fields, each line on its own: a quote that is not closed spoils one row, not the rest.
struct Splitter {
    reader: csv_core::Reader,
    line: Vec<u8>,
    text: Vec<u8>,
    ends: Vec<usize>,
}

/// The fields of one line, and what stopped the splitting.
struct Fields<'a> {
    text: &'a [u8],
    ends: &'a [usize],
    fault: Option<Fault>,
}

impl Splitter {
    /// Fields looked at in a line; more are as wrong as one too many.
    const MAX_FIELDS: usize = 64;

    fn new() -> Self {
        Self {
            reader: csv_core::Reader::new(),
            line: Vec::new(),
            text: vec![0; MAX_LINE + 1],
            ends: vec![0; Self::MAX_FIELDS],
        }
    }

    fn split(&mut self, line: Line<'_>) -> Fields<'_> {
        let Line::Text(line) = line else {
            let problem = format!("the line is longer than {MAX_LINE} bytes");
            return Fields {
                text: &[],
                ends: &[],
                fault: Some(Fault { column: 0, problem }),
            };
        };
        self.line.clear();
        self.line.extend_from_slice(line);
        self.line.push(b'\n');
        self.reader.reset();
        let (result, _, _, count) =
            self.reader
                .read_record(&self.line, &mut self.text, &mut self.ends);
        let fault = match result {
            // More fields than there is room for are more than the columns.
            ReadRecordResult::Record | ReadRecordResult::OutputEndsFull => None,
            // The line's end was taken for a part of the field.
            ReadRecordResult::InputEmpty if self.line.contains(&b'"') => Some(Fault {
                column: count,
                problem: "a quote is not closed".to_owned(),
            }),
            _ => Some(Fault {
                column: 0,
                problem: "the line has no field".to_owned(),
            }),
        };
        Fields {
            text: &self.text,
            ends: &self.ends[..count],
            fault,
        }
    }
}

impl Fields<'_> {
    /// The bytes of a column, if the line has it.
    fn bytes(&self, column: usize) -> Option<&[u8]> {
        let end = *self.ends.get(column)?;
        let start = if column == 0 {
            0
        } else {
            self.ends[column - 1]
        };
        self.text.get(start..end)
    }

    /// The text of a column.
    fn text(&self, column: usize) -> Result<&str, Fault> {
        let count = self.ends.len();
        let bytes = self.bytes(column).ok_or_else(|| Fault {
            column,
            problem: format!(
                "is missing, the row has {count} columns of {}",
                COLUMNS.len()
            ),
        })?;
        std::str::from_utf8(bytes).map_err(|_| Fault {
            column,
            problem: format!("{} is not UTF-8", quoted(bytes)),
        })
    }

    /// The value of a column, read by `parse`; `expected` says what it should have been.
    fn value<T>(
        &self,
        column: usize,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, Fault> {
        let text = self.text(column)?;
        parse(text).ok_or_else(|| Fault {
            column,
            problem: if text.is_empty() {
                format!("is empty, not {expected}")
            } else {
                format!("{} is not {expected}", quoted(text.as_bytes()))
            },
        })
    }
}

/// A field's content for a message: printable, and cut when long.
fn quoted(bytes: &[u8]) -> String {
    const MOST: usize = 40;
    let cut = if bytes.len() > MOST { "..." } else { "" };
    format!("\"{}{cut}\"", bytes[..bytes.len().min(MOST)].escape_ascii())
}

/// Compares the first line with [`COLUMNS`].
fn check_header(fields: Fields<'_>) -> Result<(), String> {
    if let Some(Fault { problem, .. }) = fields.fault {
        return Err(problem);
    }
    for (index, name) in COLUMNS.iter().enumerate() {
        let place = index + 1;
        match fields.bytes(index) {
            None => return Err(format!("column {place} is missing, not {name:?}")),
            Some(found) if found != name.as_bytes() => {
                return Err(format!("column {place} is {}, not {name:?}", quoted(found)));
            }
            Some(_) => {}
        }
    }
    match fields.bytes(COLUMNS.len()) {
        Some(found) => Err(format!(
            "column {} is {}, one too many",
            COLUMNS.len() + 1,
            quoted(found)
        )),
        None => Ok(()),
    }
}

/// Reads one row.
fn parse_row(row: u32, fields: &Fields<'_>) -> Result<Flight, Fault> {
    if let Some(Fault { column, problem }) = &fields.fault {
        return Err(Fault {
            column: *column,
            problem: problem.clone(),
        });
    }
    let code = "a code of 1 to 10 letters, digits and hyphens";
    let hour = fields.value(
        0,
        "an hour as 2013-01-31T10:00:00Z, of 1970 to 2199",
        |text| {
            // The form of a timestamp is freer than the column's.
            let hour = text
                .ends_with(":00:00Z")
                .then(|| text.parse().ok())
                .flatten();
            hour.filter(|hour| text.len() == 20 && (EARLIEST..=LATEST).contains(hour))
        },
    )?;
    let minute = fields.value(1, "a minute of 0 to 59", |text| {
        number::<u64>(text).filter(|minute| *minute < 60)
    })?;
    let flight = Flight {
        row,
        departure: hour + Duration::from_secs(60 * minute),
        carrier: fields.value(2, code, Code::new)?,
        number: fields.value(3, "a flight number", number)?,
        tail: fields.value(4, code, optional(Code::new))?,
        origin: fields.value(5, code, Code::new)?,
        destination: fields.value(6, code, Code::new)?,
        departure_delay: fields.value(7, "a number of minutes", optional(number))?,
        arrival_delay: fields.value(8, "a number of minutes", optional(number))?,
        distance: fields.value(9, "a distance in miles", number)?,
    };
    match fields.bytes(COLUMNS.len()) {
        Some(_) => Err(Fault {
            column: COLUMNS.len(),
            problem: format!("is one too many, the row has more than {}", COLUMNS.len()),
        }),
        None => Ok(flight),
    }
}

/// Reads a whole number: digits, with at most a minus sign before them.
fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    if text.starts_with('+') {
        None
    } else {
        text.parse().ok()
    }
}

/// Lets an empty field stand for what is not known.
fn optional<T>(parse: impl FnOnce(&str) -> Option<T>) -> impl FnOnce(&str) -> Option<Option<T>> {
    |text| {
        if text.is_empty() {
            Some(None)
        } else {
            parse(text).map(Some)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: &str = "2013-01-01T10:00:00Z,15,UA,1545,N14228,EWR,IAH,2,11,1400";

    fn read(rows: impl AsRef<[u8]>) -> Result<Input, InputError> {
        let mut text = COLUMNS.join(",").into_bytes();
        text.push(b'\n');
        text.extend_from_slice(rows.as_ref());
        Source::File("test.csv".into()).parse(text.as_slice())
    }

    fn only_fault(rows: impl AsRef<[u8]>) -> String {
        let input = read(rows).expect("a header");
        assert_eq!(
            (input.flights.len(), input.malformed.len()),
            (0, 1),
            "{input:?}"
        );
        input.malformed[0].to_string()
    }

    #[test]
    fn a_row_is_read_field_by_field() {
        let input = read(ROW).expect("a header");
        let flight = input.flights[0];
        assert_eq!(flight.departure.to_string(), "2013-01-01T10:15:00Z");
        assert_eq!(
            flight.tail.map(|tail| tail.to_string()).as_deref(),
            Some("N14228")
        );
        assert_eq!(
            (flight.number, flight.distance, flight.row),
            (1545, 1400, 1)
        );
        assert!(!flight.is_cancelled());
    }

    #[test]
    fn quotes_line_ends_of_both_kinds_and_blank_lines_are_taken() {
        let quoted = ROW.replace("UA", "\"UA\"");
        let input = read(format!("{quoted}\r\n\r\n\n{ROW}\n{ROW}")).expect("a header");
        assert_eq!(
            (input.rows, input.flights.len(), input.malformed.len()),
            (3, 3, 0)
        );
    }

    #[test]
    fn a_bad_value_is_named_with_its_line_and_column() {
        for (from, to, expected) in [
            (
                "2013-01-01T10",
                "2013-02-30T10",
                "line 2, column 1 (time_hour): \"2013-02-30T10:00:00Z\" is not an hour",
            ),
            ("T10:00:00Z", "T10:30:00Z", "line 2, column 1 (time_hour): "),
            (
                ",15,",
                ",60,",
                "line 2, column 2 (minute): \"60\" is not a minute of 0 to 59",
            ),
            (",15,", ",-1,", "line 2, column 2 (minute): \"-1\""),
            (
                ",15,",
                ",,",
                "line 2, column 2 (minute): is empty, not a minute",
            ),
            (",UA,", ",U A,", "line 2, column 3 (carrier): "),
            (",1545,", ",1545x,", "line 2, column 4 (flight): "),
            (",N14228,", ",N14228N14228,", "line 2, column 5 (tailnum): "),
            (",2,11,", ",soon,11,", "line 2, column 8 (dep_delay): "),
            (",2,11,", ",2,1e9,", "line 2, column 9 (arr_delay): "),
            (",1400", ",-1", "line 2, column 10 (distance): "),
            (
                ",1400",
                "",
                "line 2, column 10 (distance): is missing, the row has 9 columns of 10",
            ),
            (",1400", ",1400,", "line 2, column 11: is one too many"),
            (
                ",UA,",
                ",\"UA,",
                "line 2, column 3 (carrier): a quote is not closed",
            ),
        ] {
            let fault = only_fault(ROW.replace(from, to));
            assert!(fault.starts_with(expected), "{fault}");
        }
        let fault = only_fault(b"2013-01-01T10:00:00Z,15,UA,1545,N\xff,EWR,IAH,2,11,1400");
        assert_eq!(fault, "line 2, column 5 (tailnum): \"N\\xff\" is not UTF-8");
        let fault = only_fault("x".repeat(3 * MAX_LINE));
        assert!(
            fault.starts_with("line 2, column 1 (time_hour): the line is longer"),
            "{fault}"
        );
        only_fault(",".repeat(500));
    }

    #[test]
    fn an_hour_is_taken_in_one_form_only() {
        for hour in [
            "1970-01-01T00:00:00Z",
            "2012-02-29T23:00:00Z",
            "2199-12-31T23:00:00Z",
        ] {
            let input = read(ROW.replace("2013-01-01T10:00:00Z", hour)).expect("a header");
            assert_eq!(input.flights.len(), 1, "{hour}");
        }
        for hour in [
            "",
            "2013-01-01",
            "2013-01-01T10:00:00",
            "2013-01-01T10:00:00.0Z",
            "2013-01-01T10:00:00+00:00",
            "2013-1-1T10:00:00Z",
            "2013-02-29T10:00:00Z",
            "2013-13-01T10:00:00Z",
            "2013-01-00T10:00:00Z",
            "2013-01-01T24:00:00Z",
            "2013-01-01T10:30:00Z",
            "1969-12-31T23:00:00Z",
            "2200-01-01T00:00:00Z",
            "99999999999T10:00:00Z",
        ] {
            let fault = only_fault(ROW.replace("2013-01-01T10:00:00Z", hour));
            assert!(
                fault.starts_with("line 2, column 1 (time_hour): "),
                "{fault}"
            );
        }
    }

    #[test]
    fn a_bad_row_does_not_spoil_the_next() {
        let long = "x".repeat(3 * MAX_LINE);
        let input = read(format!("\"{ROW}\n{ROW}\n{long}\n{ROW}\n")).expect("a header");
        let lines: Vec<_> = input
            .malformed
            .iter()
            .map(|row| (row.row, row.line))
            .collect();
        assert_eq!(lines, [(1, 2), (3, 4)]);
        assert_eq!(
            input
                .flights
                .iter()
                .map(|flight| flight.row)
                .collect::<Vec<_>>(),
            [2, 4]
        );
    }

    #[test]
    fn rows_are_put_in_order_of_departure_and_ties_stay() {
        let at = |minute: &str, number: &str| ROW.replace(",15,", minute).replace("1545", number);
        let rows = [
            at(",30,", "1"),
            at(",10,", "2"),
            at(",30,", "3"),
            at(",10,", "4"),
        ]
        .join("\n");
        let input = read(rows).expect("a header");
        let numbers: Vec<_> = input.flights.iter().map(|flight| flight.number).collect();
        assert_eq!((numbers, input.reordered), (vec![2, 4, 1, 3], 2));
    }

    #[test]
    fn another_header_is_refused_with_the_first_difference() {
        let source = Source::File("test.csv".into());
        let header = COLUMNS.join(",");
        for (text, expected) in [
            (String::new(), "the file is empty"),
            ("\n".to_owned(), "the line has no field"),
            (
                header.replace("minute", "second"),
                "column 2 is \"second\", not \"minute\"",
            ),
            (
                header.replace(",distance", ""),
                "column 10 is missing, not \"distance\"",
            ),
            (
                format!("{header},more"),
                "column 11 is \"more\", one too many",
            ),
            ("x".repeat(2 * MAX_LINE), "the line is longer"),
        ] {
            let error = source
                .parse(text.as_bytes())
                .expect_err("a wrong header")
                .to_string();
            assert!(error.contains(expected) && !error.contains('\n'), "{error}");
        }
        let marked = format!("\u{feff}{header}\r\n{ROW}\r\n");
        assert_eq!(
            source
                .parse(marked.as_bytes())
                .expect("a byte order mark")
                .rows,
            1
        );
    }

    #[test]
    fn the_built_in_year_has_the_rows_that_its_description_says() {
        let input = Source::Embedded.read().expect("the built-in year");
        assert_eq!(
            (input.rows, input.malformed.len(), input.reordered),
            (336_776, 0, 0)
        );
        let count =
            |wanted: fn(&Flight) -> bool| input.flights.iter().filter(|f| wanted(f)).count();
        assert_eq!(count(Flight::is_cancelled), 8_255);
        assert_eq!(count(|flight| flight.tail.is_none()), 2_512);
        assert_eq!(
            count(|flight| flight.tail.is_none() && flight.is_cancelled()),
            2_512
        );
    }
}
