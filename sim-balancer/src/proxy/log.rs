//! Logs: a line a request and a line a connection, written by a thread of the proxy's own, never by a request.

use std::fmt::{self, Write as _};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use http::HeaderValue;
use sim_core::sync::{Arc, Mutex};
use sim_core::time::Timestamp;

use crate::machine::ProbeResult;

use super::http::desync::Finding;

/// A place for the lines of a log: a file, the standard output, or a function.
///
/// Cheap to clone. Lines wait in a queue that holds at most its capacity; more are dropped and counted, so that a slow disk
/// never holds up a request. Whoever runs the proxy writes them out.
#[derive(Clone)]
pub struct Log(Arc<Shared>);

struct Shared {
    capacity: usize,
    state: Mutex<State>,
    /// Held by the one who writes, so that lines keep their order.
    writer: Mutex<Writer>,
}

#[derive(Default)]
struct State {
    lines: String,
    count: usize,
    dropped: u64,
    written: u64,
    failed: u64,
}

enum Writer {
    File(std::fs::File),
    Output,
    Function(Box<dyn FnMut(&str) + Send>),
}

impl Log {
    /// A log whose lines are appended to a file, which is created when it is not there.
    ///
    /// # Errors
    /// That of opening the file.
    pub fn file(path: &Path, capacity: usize) -> io::Result<Self> {
        let file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)?;
        Ok(Self::new(Writer::File(file), capacity))
    }

    /// A log on the standard output.
    #[must_use]
    pub fn output(capacity: usize) -> Self {
        Self::new(Writer::Output, capacity)
    }

    /// A log whose lines are given to a function, without their ends.
    #[must_use]
    pub fn function(write: impl FnMut(&str) + Send + 'static, capacity: usize) -> Self {
        Self::new(Writer::Function(Box::new(write)), capacity)
    }

    fn new(writer: Writer, capacity: usize) -> Self {
        Self(Arc::new(Shared {
            capacity,
            state: Mutex::default(),
            writer: Mutex::new(writer),
        }))
    }

    /// Adds a line, or drops and counts it when the queue is full.
    pub(crate) fn write(&self, line: &impl fmt::Display) {
        let mut state = self.0.state.lock();
        if state.count >= self.0.capacity {
            state.dropped += 1;
            return;
        }
        let _ = writeln!(state.lines, "{line}");
        state.count += 1;
    }

    /// Writes out what waits; called by the proxy while it runs and at its end.
    pub fn flush(&self) {
        let mut writer = self.0.writer.lock();
        let (lines, count) = {
            let mut state = self.0.state.lock();
            (
                std::mem::take(&mut state.lines),
                std::mem::take(&mut state.count),
            )
        };
        if count == 0 {
            return;
        }
        let outcome = match &mut *writer {
            Writer::File(file) => io::Write::write_all(file, lines.as_bytes()),
            Writer::Output => io::Write::write_all(&mut io::stdout().lock(), lines.as_bytes()),
            Writer::Function(write) => {
                lines.lines().for_each(&mut *write);
                Ok(())
            }
        };
        let mut state = self.0.state.lock();
        match outcome {
            Ok(()) => state.written += count as u64,
            Err(_) => state.failed += count as u64,
        }
    }

    /// What became of its lines.
    #[must_use]
    pub fn stats(&self) -> LogStats {
        let state = self.0.state.lock();
        LogStats {
            waiting: state.count,
            written: state.written,
            dropped: state.dropped,
            failed: state.failed,
        }
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log")
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

/// What became of the lines of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct LogStats {
    /// Lines that wait to be written.
    pub waiting: usize,
    /// Lines that were written.
    pub written: u64,
    /// Lines that came when the queue was full.
    pub dropped: u64,
    /// Lines that could not be written.
    pub failed: u64,
}

/// A line of the access log: the fields of the reference's format in its order, those of its transforms at the end.
///
/// `type time elb client:port target:port request_processing_time target_processing_time response_processing_time
/// elb_status_code target_status_code received_bytes sent_bytes "request" "user_agent" ssl_cipher ssl_protocol
/// target_group_arn "trace_id" "domain_name" "chosen_cert_arn" matched_rule_priority request_creation_time
/// "actions_executed" "redirect_url" "error_reason" "target:port_list" "target_status_code_list" "classification"
/// "classification_reason" conn_trace_id "transformed_host" "transformed_uri" "request_transform_status"`
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) kind: &'static str,
    pub(crate) time: Timestamp,
    pub(crate) balancer: Arc<str>,
    pub(crate) client: SocketAddr,
    pub(crate) request_time: Option<Duration>,
    pub(crate) target_time: Option<Duration>,
    pub(crate) response_time: Option<Duration>,
    pub(crate) status: u16,
    pub(crate) target_status: Option<u16>,
    pub(crate) received_bytes: u64,
    pub(crate) sent_bytes: u64,
    /// `GET http://host:80/path HTTP/1.1`.
    pub(crate) request: String,
    pub(crate) user_agent: Option<HeaderValue>,
    pub(crate) cipher: Option<&'static str>,
    pub(crate) protocol: Option<&'static str>,
    pub(crate) target_group: Option<Arc<str>>,
    pub(crate) trace_id: Option<HeaderValue>,
    pub(crate) domain: Option<String>,
    pub(crate) rule: Option<u32>,
    /// Whether a rule, or the default, was found; otherwise the priority is -1.
    pub(crate) matched: bool,
    pub(crate) created: Timestamp,
    pub(crate) actions: String,
    pub(crate) redirect: Option<HeaderValue>,
    pub(crate) error: Option<&'static str>,
    pub(crate) targets: Vec<String>,
    pub(crate) target_statuses: Vec<Option<u16>>,
    pub(crate) finding: Finding,
    pub(crate) connection: String,
    pub(crate) transformed_host: Option<HeaderValue>,
    pub(crate) transformed_uri: Option<String>,
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} {} {} ",
            self.kind, self.time, self.balancer, self.client
        )?;
        match self.targets.last() {
            Some(target) => write!(f, "{} ", Plain(target))?,
            None => f.write_str("- ")?,
        }
        for time in [self.request_time, self.target_time, self.response_time] {
            match time {
                Some(time) => write!(f, "{:.6} ", time.as_secs_f64())?,
                None => f.write_str("-1 ")?,
            }
        }
        write!(f, "{} ", self.status)?;
        match self.target_status {
            Some(status) => write!(f, "{status} ")?,
            None => f.write_str("- ")?,
        }
        write!(
            f,
            "{} {} {} ",
            self.received_bytes,
            self.sent_bytes,
            Quoted(Some(self.request.as_bytes()))
        )?;
        write!(
            f,
            "{} ",
            Quoted(self.user_agent.as_ref().map(HeaderValue::as_bytes))
        )?;
        write!(
            f,
            "{} {} ",
            self.cipher.unwrap_or("-"),
            self.protocol.unwrap_or("-")
        )?;
        match &self.target_group {
            Some(group) => write!(f, "{} ", Plain(group))?,
            None => f.write_str("- ")?,
        }
        write!(
            f,
            "{} ",
            Quoted(self.trace_id.as_ref().map(HeaderValue::as_bytes))
        )?;
        write!(
            f,
            "{} \"-\" ",
            Quoted(self.domain.as_ref().map(String::as_bytes))
        )?;
        match (self.matched, self.rule) {
            (true, Some(priority)) => write!(f, "{priority} ")?,
            (true, None) => f.write_str("0 ")?,
            (false, _) => f.write_str("-1 ")?,
        }
        write!(f, "{} ", self.created)?;
        let actions = (!self.actions.is_empty()).then_some(self.actions.as_bytes());
        write!(f, "{} ", Quoted(actions))?;
        write!(
            f,
            "{} ",
            Quoted(self.redirect.as_ref().map(HeaderValue::as_bytes))
        )?;
        write!(f, "{} ", Quoted(self.error.map(str::as_bytes)))?;
        let targets = self.targets.join(" ");
        write!(
            f,
            "{} ",
            Quoted((!targets.is_empty()).then_some(targets.as_bytes()))
        )?;
        f.write_char('"')?;
        if self.target_statuses.is_empty() {
            f.write_char('-')?;
        }
        for (index, status) in self.target_statuses.iter().enumerate() {
            let space = if index > 0 { " " } else { "" };
            match status {
                Some(status) => write!(f, "{space}{status}")?,
                None => write!(f, "{space}-")?,
            }
        }
        write!(f, "\" \"{}\" ", self.finding.class)?;
        match self.finding.doubt {
            Some(doubt) => write!(f, "\"{doubt}\" ")?,
            None => f.write_str("\"-\" ")?,
        }
        write!(f, "{} ", self.connection)?;
        write!(
            f,
            "{} ",
            Quoted(self.transformed_host.as_ref().map(HeaderValue::as_bytes))
        )?;
        write!(
            f,
            "{} ",
            Quoted(self.transformed_uri.as_ref().map(String::as_bytes))
        )?;
        let transformed = self.transformed_host.is_some() || self.transformed_uri.is_some();
        f.write_str(if transformed {
            "\"TransformSuccess\""
        } else {
            "\"-\""
        })
    }
}

/// A line of the connection log: `time client_ip client_port listener_port tls_protocol tls_cipher tls_handshake_latency
/// leaf_client_cert_subject leaf_client_cert_validity leaf_client_cert_serial_number tls_verify_status conn_trace_id`.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionRecord {
    pub(crate) time: Timestamp,
    pub(crate) client: SocketAddr,
    pub(crate) port: u16,
    pub(crate) protocol: Option<&'static str>,
    pub(crate) cipher: Option<&'static str>,
    pub(crate) handshake: Option<Duration>,
    pub(crate) subject: Option<String>,
    pub(crate) validity: Option<String>,
    pub(crate) serial: Option<String>,
    /// `Success` or `Failed:` and the reason.
    pub(crate) verified: Option<String>,
    pub(crate) connection: String,
}

impl fmt::Display for ConnectionRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} {} {} {} {} ",
            self.time,
            self.client.ip(),
            self.client.port(),
            self.port,
            self.protocol.unwrap_or("-"),
            self.cipher.unwrap_or("-"),
        )?;
        match self.handshake {
            Some(time) => write!(f, "{:.3} ", time.as_secs_f64())?,
            None => f.write_str("- ")?,
        }
        write!(
            f,
            "{} ",
            Quoted(self.subject.as_ref().map(String::as_bytes))
        )?;
        for text in [&self.validity, &self.serial, &self.verified] {
            match text {
                Some(text) => write!(f, "{} ", Plain(text))?,
                None => f.write_str("- ")?,
            }
        }
        f.write_str(&self.connection)
    }
}

/// A line of the log of health checks.
pub(crate) struct CheckRecord<'a> {
    pub(crate) time: Timestamp,
    pub(crate) group: &'a str,
    pub(crate) target: &'a str,
    pub(crate) result: ProbeResult,
    pub(crate) took: Duration,
}

impl fmt::Display for CheckRecord<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.result {
            ProbeResult::Good => "PASS",
            // It says nothing about the target.
            ProbeResult::Internal => "ERROR",
            _ => "FAIL",
        };
        write!(
            f,
            "{} {} {} {word} ",
            self.time,
            Plain(self.group),
            Plain(self.target),
        )?;
        match self.result.reason() {
            Some(reason) => write!(f, "{reason}")?,
            None => f.write_str("-")?,
        }
        write!(f, " {:.3}", self.took.as_secs_f64())
    }
}

/// The id of a connection in both logs.
pub(crate) fn connection_id(random: [u64; 2]) -> String {
    format!("TID_{:016x}{:016x}", random[0], random[1])
}

/// A text between quotation marks, in which nothing ends the field or the line early; `"-"` for none.
struct Quoted<'a>(Option<&'a [u8]>);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(bytes) = self.0 else {
            return f.write_str("\"-\"");
        };
        f.write_char('"')?;
        for byte in bytes {
            match byte {
                b'"' => f.write_str("\\x22")?,
                b'\\' => f.write_str("\\\\")?,
                b' '..=b'~' => f.write_char(char::from(*byte))?,
                _ => write!(f, "\\x{byte:02x}")?,
            }
        }
        f.write_char('"')
    }
}

/// A text without quotation marks: what would end the field is replaced.
struct Plain<'a>(&'a str);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for letter in self.0.chars() {
            f.write_char(if letter.is_whitespace() || letter.is_control() {
                '_'
            } else {
                letter
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_drops_and_counts() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = {
            let seen = Arc::clone(&seen);
            Log::function(move |line| seen.lock().push(line.to_owned()), 2)
        };
        for line in ["a", "b", "c"] {
            log.write(&line);
        }
        assert_eq!(log.stats().dropped, 1);
        log.flush();
        log.write(&"d");
        log.flush();
        assert_eq!(*seen.lock(), ["a", "b", "d"]);
        let stats = log.stats();
        assert_eq!((stats.written, stats.waiting), (3, 0));
    }

    #[test]
    fn a_field_cannot_end_the_line() {
        let text = Quoted(Some(b"a\"b\\c\r\nd\xff")).to_string();
        assert_eq!(text, "\"a\\x22b\\\\c\\x0d\\x0ad\\xff\"");
        assert_eq!(Quoted(None).to_string(), "\"-\"");
        assert_eq!(Plain("a b\n").to_string(), "a_b_");
    }
}
