//! The configuration file: TOML with the fields of [`ProxyConfig`].
//!
//! ```
//! use sim_balancer::proxy::file;
//!
//! let config = file::parse(
//!     r#"
//! [[listeners]]
//! port = 8080
//! default_actions = [{ type = "forward", target_groups = [{ name = "web" }] }]
//!
//! [[listeners.rules]]
//! priority = 10
//! conditions = [{ field = "path-pattern", values = ["/old/*"] }]
//! actions = [{ type = "redirect", path = "/new", status_code = "HTTP_301" }]
//!
//! [[target_groups]]
//! name = "web"
//! targets = [{ address = "127.0.0.1:9001" }, { address = "127.0.0.1:9002", weight = 2 }]
//! health_check = { path = "/health", interval = "5s" }
//! "#,
//! )?;
//! assert_eq!(config.listeners[0].rules[0].priority, 10);
//!
//! let error = file::parse("[[listeners]]\nprot = 80\n").unwrap_err();
//! assert!(error.to_string().starts_with("line 2, column 1: unknown field `prot`"));
//! # Ok::<(), file::FileError>(())
//! ```

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::config::ProxyConfig;

/// The largest file that is read, in bytes: 4 MiB.
pub const MAX_BYTES: u64 = 4 * 1_024 * 1_024;

/// Reads a configuration from TOML. Its fields are checked by [`ProxyConfig::plan`] only.
///
/// # Errors
///
/// [`FileError::Syntax`] for what is no TOML, and for fields that there are not or whose types do not fit.
pub fn parse(text: &str) -> Result<ProxyConfig, FileError> {
    if text.len() as u64 > MAX_BYTES {
        return Err(FileError::TooLarge { most: MAX_BYTES });
    }
    toml::from_str(text).map_err(|error| {
        let (line, column) = place(text, error.span().map_or(0, |span| span.start));
        FileError::Syntax {
            line,
            column,
            message: error.message().trim_end().replace('\n', ": "),
        }
    })
}

/// Reads a configuration from a file.
///
/// # Errors
///
/// [`FileError`]: the file cannot be read, is too large, or is no configuration.
pub fn load(path: &Path) -> Result<ProxyConfig, FileError> {
    let mut text = String::new();
    let file = fs::File::open(path)?;
    file.take(MAX_BYTES + 1).read_to_string(&mut text)?;
    parse(&text)
}

/// Line and column of a byte, both from 1; columns are characters.
fn place(text: &str, at: usize) -> (usize, usize) {
    let at = (0..=at.min(text.len()))
        .rev()
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(0);
    let before = &text[..at];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = before.matches('\n').count() + 1;
    (line, text[line_start..at].chars().count() + 1)
}

/// A configuration file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// It cannot be read.
    #[error("{0}")]
    Read(#[from] io::Error),
    /// It is too large.
    #[error("more than {most} bytes")]
    TooLarge {
        /// The largest that is read, in bytes.
        most: u64,
    },
    /// It is no configuration.
    #[error("line {line}, column {column}: {message}")]
    Syntax {
        /// The line, from 1.
        line: usize,
        /// The column, from 1, in characters.
        column: usize,
        /// What is wrong there.
        message: String,
    },
}

/// Tells when a file has changed, by its time and length.
#[derive(Debug)]
pub struct Watch {
    path: PathBuf,
    seen: Option<(SystemTime, u64)>,
}

impl Watch {
    /// Watches a file, from now on.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            seen: stamp(path),
        }
    }

    /// Whether it has changed since the last call. One that is gone has not: it may be in the midst of being replaced.
    pub fn has_changed(&mut self) -> bool {
        let now = stamp(&self.path);
        if now.is_none() || now == self.seen {
            return false;
        }
        self.seen = now;
        true
    }
}

fn stamp(path: &Path) -> Option<(SystemTime, u64)> {
    let file = fs::metadata(path).ok()?;
    Some((file.modified().ok()?, file.len()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn error(text: &str) -> String {
        parse(text).expect_err("unusable").to_string()
    }

    #[test]
    fn the_place_of_an_error_is_told() {
        assert!(
            error("name = ").starts_with("line 1, column "),
            "{}",
            error("name = ")
        );
        let unknown = error("name = \"ä\"\n[attributes]\nidle_timeout = 5\nfoo = 1\n");
        assert!(
            unknown.starts_with("line 4, column 1: unknown field `foo`"),
            "{unknown}"
        );
        let duration = error("[attributes]\nidle_timeout = \"5 weeks\"\n");
        assert!(
            duration.starts_with("line 2, column 16: invalid value"),
            "{duration}"
        );
        assert!(
            error("[[listeners]]\nprotocol = \"SCTP\"\n")
                .starts_with("line 2, column 12: unknown variant")
        );
    }

    #[test]
    fn columns_are_characters() {
        assert_eq!(place("äö\nüx", 0), (1, 1));
        assert_eq!(place("äö\nüx", 7), (2, 2));
        assert_eq!(place("", 9), (1, 1));
    }

    #[test]
    fn a_file_that_is_too_large_is_refused() {
        let text = "#".repeat(MAX_BYTES as usize + 1);
        assert!(matches!(parse(&text), Err(FileError::TooLarge { .. })));
    }

    #[test]
    fn the_example_is_a_configuration() {
        let text = include_str!("../../examples/balance.toml");
        let config = parse(text).expect("the example");
        config.check().expect("the example");
        assert_eq!(config.listeners.len(), 1);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[\\[\\]a-z_=\"{},.0-9 \\n]{0,120}") {
            let _ = parse(&text);
        }
    }
}
