//! The event log: everything that happens in a replay, a line each, and the digest of all lines.
//!
//! The digest is the SHA-256 of the log's bytes, so that `sha256sum` of a log written with `--log` gives the
//! number that the report prints.

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, BufWriter, Write};

use sha2::{Digest, Sha256};
use sim_core::clock::Clock;
use sim_core::time::Instant;

/// Where events go: always into the digest, and into a file if one is wanted.
pub(crate) struct EventLog {
    hash: Sha256,
    file: Option<BufWriter<File>>,
    /// Lines that are not hashed yet: hashing and writing go by larger pieces.
    pending: String,
    clock: Clock,
    /// The latest time that was written, and its text: many events share one.
    stamp: (Instant, String),
    lines: u64,
    failure: Option<io::Error>,
}

impl fmt::Debug for EventLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventLog")
            .field("lines", &self.lines)
            .finish_non_exhaustive()
    }
}

/// What a finished log amounts to.
#[derive(Debug)]
pub(crate) struct Digested {
    /// SHA-256 of all lines, in hexadecimal.
    pub(crate) digest: String,
    /// How many lines there were.
    pub(crate) lines: u64,
}

impl EventLog {
    /// Bytes that are gathered before they are hashed and written.
    const PIECE: usize = 64 * 1024;

    /// Makes an empty log of what happens by `clock`.
    pub(crate) fn new(clock: Clock, file: Option<File>) -> Self {
        Self {
            hash: Sha256::new(),
            file: file.map(BufWriter::new),
            pending: String::with_capacity(Self::PIECE + 1_024),
            stamp: (
                Instant::ORIGIN,
                clock.timestamp(Instant::ORIGIN).to_string(),
            ),
            clock,
            lines: 0,
            failure: None,
        }
    }

    /// Adds a line: the virtual time, then `event`.
    pub(crate) fn add(&mut self, at: Instant, event: fmt::Arguments<'_>) {
        if self.stamp.0 != at {
            self.stamp = (at, self.clock.timestamp(at).to_string());
        }
        self.pending.push_str(&self.stamp.1);
        self.pending.push(' ');
        // Writing into a string does not fail.
        let _ = self.pending.write_fmt(event);
        self.pending.push('\n');
        self.lines += 1;
        if self.pending.len() >= Self::PIECE {
            self.pass_on();
        }
    }

    /// Hashes and writes what is pending.
    fn pass_on(&mut self) {
        self.hash.update(self.pending.as_bytes());
        if let Some(file) = &mut self.file
            && let Err(failure) = file.write_all(self.pending.as_bytes())
        {
            // The replay goes on: the digest does not need the file.
            self.failure = Some(failure);
            self.file = None;
        }
        self.pending.clear();
    }

    /// Ends the log.
    ///
    /// # Errors
    ///
    /// When the file could not be written.
    pub(crate) fn finish(mut self) -> io::Result<Digested> {
        self.pass_on();
        if let Some(file) = &mut self.file {
            file.flush()?;
        }
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        let mut digest = String::with_capacity(64);
        for byte in self.hash.finalize() {
            let _ = write!(digest, "{byte:02x}");
        }
        Ok(Digested {
            digest,
            lines: self.lines,
        })
    }
}

#[cfg(test)]
mod tests {
    use sim_core::time::Timestamp;

    use super::*;

    #[test]
    fn the_digest_is_the_hash_of_the_lines() {
        let (clock, _) = Clock::virtual_at(Timestamp::UNIX_EPOCH);
        let mut log = EventLog::new(clock, None);
        log.add(
            Instant::from_nanos(61_000_000_000),
            format_args!("send row={}", 7),
        );
        let Digested { digest, lines } = log.finish().expect("no file");
        // printf '1970-01-01T00:01:01Z send row=7\n' | sha256sum
        let expected = "fc41a6051653196b9905b6b07587d6d8a1689041123c323487d7296e81d8cc2d";
        assert_eq!((digest.as_str(), lines), (expected, 1));
    }
}
