//! The one place that reads the machine's clock: a bench measures real time.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

/// Real time since it was started.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts to measure.
    #[expect(
        clippy::disallowed_methods,
        reason = "a bench measures real time, not a clock's"
    )]
    #[must_use]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// The time since the start.
    #[must_use]
    pub fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

/// Ends the process when one run hangs: a peer that lost a wake-up must not hang a gate.
#[derive(Debug)]
pub struct Watchdog(Sender<Option<String>>);

impl Watchdog {
    /// Starts the thread that watches.
    #[must_use]
    pub fn new(limit: Duration) -> Self {
        let (sender, receiver) = mpsc::channel::<Option<String>>();
        std::thread::spawn(move || {
            while let Ok(armed) = receiver.recv() {
                let Some(label) = armed else { continue };
                match receiver.recv_timeout(limit) {
                    Ok(_) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                    Err(RecvTimeoutError::Timeout) => {
                        eprintln!("benches: {label} hangs: not done after {limit:?}");
                        std::process::exit(1);
                    }
                }
            }
        });
        Self(sender)
    }

    /// Runs something that must come to its end.
    pub fn watch<R>(&self, label: impl Into<String>, run: impl FnOnce() -> R) -> R {
        // The thread only goes with the process: a send cannot fail in a way that matters here.
        let _ = self.0.send(Some(label.into()));
        let result = run();
        let _ = self.0.send(None);
        result
    }
}
