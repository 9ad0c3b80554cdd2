//! The `sim` binary as a user runs it: exit codes, complaints, counts and digests.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};

const HEADER: &str =
    "time_hour,minute,carrier,flight,tailnum,origin,dest,dep_delay,arr_delay,distance";

/// A directory of one test's own files.
struct Bench {
    directory: PathBuf,
}

impl Bench {
    fn new(test: &str) -> Self {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test);
        // What an earlier run left is in the way.
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).expect("a directory for the test");
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).expect("a file for the test");
        path
    }

    /// Runs `sim demo` in the directory.
    fn demo(&self, arguments: &[&str]) -> Ran {
        let mut all = vec!["demo"];
        all.extend_from_slice(arguments);
        self.sim(&all)
    }

    fn sim(&self, arguments: &[&str]) -> Ran {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sim"));
        Ran::from(
            command
                .args(arguments)
                .current_dir(&self.directory)
                .output()
                .expect("sim runs"),
        )
    }
}

/// What a run gave.
#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).expect("text"),
            stderr: String::from_utf8(output.stderr).expect("text"),
        }
    }
}

impl Ran {
    /// The rest of the first line of the report that begins with `name`.
    fn line(&self, name: &str) -> &str {
        let found = self
            .stdout
            .lines()
            .find_map(|line| line.trim_start().strip_prefix(name));
        found
            .unwrap_or_else(|| panic!("no line {name:?} in {self:#?}"))
            .trim()
    }

    fn digest(&self) -> &str {
        self.line("digest").split(' ').next().expect("a digest")
    }

    /// One line of complaint, exit code 2, nothing else.
    fn assert_refused(&self, complaint: &str) {
        assert_eq!(self.code, Some(2), "{self:#?}");
        assert_eq!(self.stderr.lines().count(), 1, "{self:#?}");
        assert!(self.stderr.starts_with("error: "), "{self:#?}");
        assert!(self.stderr.contains(complaint), "{self:#?}");
        assert_eq!(self.stdout, "");
    }
}

/// A few days of flights: three aircraft, a departure every ten minutes, some cancelled, some without aircraft.
fn schedule(rows: u32) -> String {
    let mut text = format!("{HEADER}\n");
    for row in 0..rows {
        let (day, hour, minute) = (1 + row / 144, row / 6 % 24, row % 6 * 10);
        let tail = ["N1", "N2", "N3", ""][(row % 4) as usize];
        let delay = if row % 5 == 0 || tail.is_empty() {
            ""
        } else {
            "3"
        };
        text += &format!(
            "2013-06-{day:02}T{hour:02}:00:00Z,{minute},UA,{row},{tail},EWR,IAH,{delay},,1400\n"
        );
    }
    text
}

fn gzipped(content: &str) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(content.as_bytes()).expect("memory");
    gzip.finish().expect("memory")
}

#[test]
fn without_arguments_the_usage_is_shown_and_refused() {
    let bench = Bench::new("usage");
    let ran = bench.sim(&[]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("Usage: sim"), "{ran:#?}");
    for arguments in [
        &["fly"][..],
        &["demo", "--workers", "0"],
        &["demo", "--workers", "many"],
        &["demo", "--seed", "-1"],
        &["demo", "--seed"],
        &["demo", "--nothing"],
        &["demo", "extra"],
    ] {
        let ran = bench.sim(arguments);
        assert_eq!(
            (ran.code, ran.stdout.as_str()),
            (Some(2), ""),
            "{arguments:?}"
        );
        assert!(ran.stderr.starts_with("error: "), "{arguments:?}: {ran:#?}");
    }
    let ran = bench.sim(&["--help"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    assert!(ran.stdout.contains("demo"), "{ran:#?}");
    let ran = bench.sim(&["demo", "--help"]);
    assert_eq!(ran.code, Some(0));
    assert!(
        ran.stdout.contains("--data") && ran.stdout.contains("Exit codes"),
        "{ran:#?}"
    );
    assert_eq!(
        fs::read_dir(&bench.directory)
            .expect("the directory")
            .count(),
        0,
        "nothing was written"
    );
}

#[test]
fn an_input_that_cannot_be_used_is_one_line_and_exit_code_two() {
    let bench = Bench::new("input");
    bench
        .demo(&["--data", "nowhere.csv"])
        .assert_refused("cannot read nowhere.csv: No such file");
    bench
        .demo(&["--data", "."])
        .assert_refused("cannot read .: Is a directory");

    bench.write("empty.csv", "");
    bench
        .demo(&["--data", "empty.csv"])
        .assert_refused("the file is empty");
    bench.write("other.csv", "a,b\n1,2\n");
    bench
        .demo(&["--data", "other.csv"])
        .assert_refused("column 1 is \"a\", not \"time_hour\"");
    bench.write(
        "headless.csv",
        schedule(5).replace(&format!("{HEADER}\n"), ""),
    );
    bench
        .demo(&["--data", "headless.csv"])
        .assert_refused("wrong header");
    bench.write("noise.csv", [0_u8, 159, 146, 150, 255, 254].repeat(50_000));
    bench
        .demo(&["--data", "noise.csv"])
        .assert_refused("wrong header");

    bench.write("plain.csv.gz", schedule(5));
    bench
        .demo(&["--data", "plain.csv.gz"])
        .assert_refused("not gzip data");
    bench.write("empty.csv.gz", "");
    bench
        .demo(&["--data", "empty.csv.gz"])
        .assert_refused("not gzip data");
    let whole = gzipped(&schedule(2_000));
    bench.write("torn.csv.gz", &whole[..whole.len() / 2]);
    bench
        .demo(&["--data", "torn.csv.gz"])
        .assert_refused("cannot read torn.csv.gz: ");
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 0xff;
    bench.write("damaged.csv.gz", damaged);
    bench
        .demo(&["--data", "damaged.csv.gz"])
        .assert_refused("cannot read damaged.csv.gz: ");
    assert!(!bench.path("sim-demo.svg").exists(), "no chart was written");
}

#[test]
fn an_output_that_cannot_be_written_is_one_line_and_exit_code_two() {
    let bench = Bench::new("output");
    bench.write("some.csv", schedule(5));
    bench
        .demo(&["--data", "some.csv", "--out", "."])
        .assert_refused("it is a directory");
    bench
        .demo(&["--data", "some.csv", "--out", "no/chart.svg"])
        .assert_refused("no directory no");
    bench
        .demo(&["--data", "some.csv", "--log", "no/log"])
        .assert_refused("cannot write no/log");
    for arguments in [["--out", "some.csv"], ["--log", "./some.csv"]] {
        let ran = bench.demo(&["--data", "some.csv", arguments[0], arguments[1]]);
        ran.assert_refused("cannot write over the data");
    }
    let ran = bench.demo(&["--data", "some.csv", "--out", "both", "--log", "both"]);
    ran.assert_refused("cannot write both: it is the log, too");
    assert_eq!(
        fs::read_to_string(bench.path("some.csv")).expect("the data"),
        schedule(5)
    );
}

#[test]
fn every_malformed_row_is_reported_with_line_and_column_and_counted() {
    let bench = Bench::new("malformed");
    let mut rows = schedule(40).into_bytes();
    for row in [
        &b"2013-06-01 10:00,15,UA,1,N1,EWR,IAH,2,11,1400"[..],
        b"2013-06-01T10:00:00Z,61,UA,1,N1,EWR,IAH,2,11,1400",
        b"2013-06-01T10:00:00Z,15,UA,1,N1,EWR,IAH,late,11,1400",
        b"2013-06-01T10:00:00Z,15,UA,1,N1,EWR,IAH,2,11,far",
        b"2013-06-01T10:00:00Z,15,UA,1,N1,EWR",
        b"2013-06-01T10:00:00Z,15,UA,1,N\xc3\x28,EWR,IAH,2,11,1400",
        b"2013-06-01T10:00:00Z,15,UA,1,N1,EWR,IAH,2,11,1400,more",
        b"2013-06-01T10:00:00Z,15,\"UA,1,N1,EWR,IAH,2,11,1400",
    ] {
        rows.extend_from_slice(row);
        rows.push(b'\n');
    }
    rows.extend_from_slice(b"2013-06-09T10:00:00Z,15,UA,1,N1,EWR,IAH,2,11,1400");
    bench.write("some.csv", rows);
    let ran = bench.demo(&["--data", "some.csv"]);
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    let complaints: Vec<_> = ran.stderr.lines().collect();
    let expected = [
        "malformed: some.csv line 42, column 1 (time_hour): ",
        "malformed: some.csv line 43, column 2 (minute): ",
        "malformed: some.csv line 44, column 8 (dep_delay): ",
        "malformed: some.csv line 45, column 10 (distance): ",
        "malformed: some.csv line 46, column 7 (dest): is missing",
        "malformed: some.csv line 47, column 5 (tailnum): ",
        "malformed: some.csv line 48, column 11: is one too many",
        "malformed: some.csv line 49, column 3 (carrier): a quote is not closed",
    ];
    assert_eq!(complaints.len(), expected.len(), "{complaints:#?}");
    for (complaint, expected) in complaints.iter().zip(expected) {
        assert!(complaint.starts_with(expected), "{complaint}");
    }
    assert_eq!(
        ran.line("input"),
        "some.csv: 49 rows, 8 malformed, 0 put in order"
    );
    assert_eq!(
        ran.line("49 rows ="),
        "41 put into the stream + 8 malformed"
    );
    assert_eq!(ran.line("reconciles:"), "yes");
}

#[test]
fn a_file_of_nothing_but_malformed_rows_and_one_of_none_add_up() {
    let bench = Bench::new("nothing");
    bench.write("none.csv", HEADER);
    let ran = bench.demo(&["--data", "none.csv"]);
    assert_eq!(
        (ran.code, ran.line("reconciles:")),
        (Some(0), "yes"),
        "{ran:#?}"
    );
    bench.write("bad.csv", format!("{HEADER}\n1\n2\n"));
    let ran = bench.demo(&["--data", "bad.csv"]);
    assert_eq!(
        (ran.code, ran.line("reconciles:")),
        (Some(0), "yes"),
        "{ran:#?}"
    );
    assert_eq!(ran.stderr.lines().count(), 2);
    let svg = fs::read_to_string(bench.path("sim-demo.svg")).expect("a chart");
    assert!(!svg.contains("NaN") && !svg.contains("inf"));
}

#[test]
fn the_same_seed_gives_the_same_digest_and_another_seed_another() {
    let bench = Bench::new("digest");
    bench.write("some.csv", schedule(600));
    let run = |seed: &str, log: &str| {
        let ran = bench.demo(&[
            "--data",
            "some.csv",
            "--seed",
            seed,
            "--log",
            log,
            "--no-progress",
        ]);
        assert_eq!(
            (ran.code, ran.line("reconciles:")),
            (Some(0), "yes"),
            "{ran:#?}"
        );
        (
            ran.digest().to_owned(),
            fs::read_to_string(bench.path(log)).expect("a log"),
        )
    };
    let (first, first_log) = run("1", "first.log");
    let (again, again_log) = run("1", "again.log");
    let (other, other_log) = run("2", "other.log");
    assert_eq!((&first, &first_log), (&again, &again_log));
    assert_ne!(first, other);
    // Not the seed's name alone makes the difference.
    assert!(first_log.lines().skip(1).ne(other_log.lines().skip(1)));
    // The digest is that of the log, as `sha256sum` gives it.
    let hash = Sha256::digest(first_log.as_bytes());
    assert_eq!(
        first,
        hash.iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    );
}

#[test]
fn plain_gzipped_renamed_and_shuffled_rows_are_the_same_flights() {
    let bench = Bench::new("forms");
    let text = schedule(300);
    bench.write("plain.csv", &text);
    bench.write("packed.csv.gz", gzipped(&text));
    bench.write("renamed.csv", gzipped(&text));
    bench.write(
        "windows.csv",
        format!("\u{feff}{}", text.replace('\n', "\r\n")),
    );
    let plain = bench.demo(&["--data", "plain.csv"]);
    assert_eq!(plain.code, Some(0), "{plain:#?}");
    for name in ["packed.csv.gz", "renamed.csv", "windows.csv"] {
        let ran = bench.demo(&["--data", name]);
        assert_eq!(
            (ran.code, ran.digest()),
            (Some(0), plain.digest()),
            "{name}"
        );
    }
    // Row numbers differ, the counts do not.
    let mut lines: Vec<_> = text.lines().skip(1).collect();
    lines.reverse();
    bench.write("shuffled.csv", format!("{HEADER}\n{}\n", lines.join("\n")));
    let ran = bench.demo(&["--data", "shuffled.csv"]);
    assert_eq!(
        (ran.code, ran.line("reconciles:")),
        (Some(0), "yes"),
        "{ran:#?}"
    );
    assert_eq!(
        ran.line("input"),
        "shuffled.csv: 300 rows, 0 malformed, 299 put in order"
    );
    assert_eq!(
        ran.line("delivered by the filter"),
        plain.line("delivered by the filter")
    );
}

#[test]
fn rows_a_century_apart_are_replayed_at_once() {
    let bench = Bench::new("century");
    let rows = format!(
        "{HEADER}\n1970-01-01T00:00:00Z,0,UA,1,N1,EWR,IAH,1,1,100\n2199-12-31T23:00:00Z,59,UA,2,N1,EWR,IAH,1,1,100\n"
    );
    bench.write("far.csv", rows);
    let ran = bench.demo(&["--data", "far.csv"]);
    assert_eq!(
        (ran.code, ran.line("reconciles:")),
        (Some(0), "yes"),
        "{ran:#?}"
    );
}

#[test]
fn one_worker_does_the_work_of_all_in_the_end() {
    let bench = Bench::new("one-worker");
    bench.write("some.csv", schedule(400));
    let ran = bench.demo(&["--data", "some.csv", "--workers", "1", "--seed", "3"]);
    assert_eq!(
        (ran.code, ran.line("reconciles:")),
        (Some(0), "yes"),
        "{ran:#?}"
    );
}

#[test]
fn the_built_in_year_adds_up_and_is_drawn() {
    let bench = Bench::new("year");
    let ran = bench.demo(&["--out", "year.svg"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{ran:#?}");
    assert_eq!(ran.line("reconciles:"), "yes");
    assert_eq!(
        ran.line("delivered by the filter")
            .split_whitespace()
            .collect::<Vec<_>>(),
        ["8,255", "26,581", "51,695", "86,531"]
    );
    assert_eq!(
        ran.line("336,776 late, published ="),
        "26,581 delivered + 310,195 filtered out"
    );
    // The seeded failures are many enough that every path is taken.
    for name in [
        "publishers crashed",
        "read again, recognised",
        "moved back, once",
        "of those redelivered",
        "leases extended",
        "too late, refused",
        "parked for inspection",
    ] {
        assert!(!ran.line(name).starts_with('-'), "{ran:#?}");
    }
    let svg = fs::read_to_string(bench.path("year.svg")).expect("a chart");
    assert!(svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>"));
    for text in [
        "Depth: messages",
        "Age of the oldest waiting message",
        "dead letters",
        ">Jan 2013<",
        ">Jul<",
    ] {
        assert!(svg.contains(text), "{text}");
    }
}
