//! What a queue costs in bytes and threads: empty, with millions of small messages in it, and drained again.

use std::fs;

use crate::pattern::Failure;
use crate::timing::Watchdog;

/// Counts the bytes that the process asked its allocator for and did not give back; the runner brings one.
#[derive(Clone, Copy, Debug)]
pub struct Meter {
    /// Starts to count, from zero.
    pub start: fn(),
    /// The bytes held since the start.
    pub held: fn() -> i64,
    /// Ends counting.
    pub stop: fn(),
}

/// What one queue costs.
#[derive(Clone, Debug, PartialEq)]
pub struct Memory {
    /// Whose queue.
    pub peer: String,
    /// Bytes of the open, empty queue.
    pub empty: i64,
    /// Bytes for each queued message, beyond its payload of eight.
    pub queued: f64,
    /// Bytes of the queue after all has been received.
    pub drained: i64,
    /// Threads of the process afterwards, beyond those before.
    pub threads: i64,
}

/// A queue whose memory is measured: opened, filled and drained by one thread, without waiting.
pub(crate) trait Store {
    /// Puts one message in.
    fn put(&mut self, message: usize) -> bool;
    /// Takes one message out for good.
    fn take(&mut self) -> Option<usize>;
}

/// A sender and a receiver with the calls that do not wait.
struct Ends<S, R, P, G> {
    sender: S,
    receiver: R,
    put: P,
    take: G,
}

impl<S, R, P, G> Store for Ends<S, R, P, G>
where
    P: FnMut(&mut S, usize) -> bool,
    G: FnMut(&mut R) -> Option<usize>,
{
    fn put(&mut self, message: usize) -> bool {
        (self.put)(&mut self.sender, message)
    }

    fn take(&mut self) -> Option<usize> {
        (self.take)(&mut self.receiver)
    }
}

/// The threads of this process, where the system tells.
fn threads() -> i64 {
    fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix("Threads:"))?;
            line.trim().parse().ok()
        })
        .unwrap_or(0)
}

fn measure_one<Q: Store>(
    peer: &str,
    count: usize,
    meter: Meter,
    open: impl FnOnce() -> Q,
) -> Result<Memory, Failure> {
    let before = threads();
    (meter.start)();
    let mut store = open();
    let empty = (meter.held)();
    let full = (0..count).all(|message| store.put(message));
    let queued = (meter.held)() - empty;
    let during = threads();
    let mut sum = 0_usize;
    let mut taken = 0_usize;
    while let Some(message) = store.take() {
        sum = sum.wrapping_add(message);
        taken += 1;
    }
    let drained = (meter.held)();
    let after = threads();
    (meter.stop)();
    drop(store);
    let expected = (0..count).fold(0_usize, usize::wrapping_add);
    if !full || taken != count || sum != expected {
        return Err(Failure(format!(
            "memory: {peer}: {taken} of {count} messages came back"
        )));
    }
    Ok(Memory {
        peer: peer.to_owned(),
        empty,
        queued: queued as f64 / count as f64 - size_of::<usize>() as f64,
        drained,
        threads: during.max(after) - before,
    })
}

/// Measures every unbounded queue with so many messages.
///
/// # Errors
/// When a queue does not give back what was put in.
pub fn measure(count: usize, meter: Meter, watchdog: &Watchdog) -> Result<Vec<Memory>, Failure> {
    let mut table = Vec::new();
    macro_rules! of {
        ($name:expr, $open:expr, $put:expr, $take:expr) => {
            table.push(watchdog.watch(format!("memory of {}", $name), || {
                measure_one($name, count, meter, || {
                    let (sender, receiver) = $open;
                    Ends {
                        sender,
                        receiver,
                        put: $put,
                        take: $take,
                    }
                })
            })?);
        };
    }
    of!(
        "tokio-mpsc",
        tokio::sync::mpsc::unbounded_channel(),
        |sender: &mut tokio::sync::mpsc::UnboundedSender<_>, message| sender.send(message).is_ok(),
        |receiver: &mut tokio::sync::mpsc::UnboundedReceiver<_>| receiver.try_recv().ok()
    );
    of!(
        "async-channel",
        async_channel::unbounded(),
        |sender: &mut async_channel::Sender<_>, message| sender.try_send(message).is_ok(),
        |receiver: &mut async_channel::Receiver<_>| receiver.try_recv().ok()
    );
    of!(
        "flume",
        flume::unbounded(),
        |sender: &mut flume::Sender<_>, message| sender.try_send(message).is_ok(),
        |receiver: &mut flume::Receiver<_>| receiver.try_recv().ok()
    );
    of!(
        "kanal",
        kanal::unbounded(),
        |sender: &mut kanal::Sender<_>, message| sender.try_send(message).unwrap_or(false),
        |receiver: &mut kanal::Receiver<_>| receiver.try_recv().ok().flatten()
    );
    of!(
        "crossfire",
        crossfire::mpmc::unbounded_blocking(),
        |sender: &mut crossfire::MTx<_>, message| sender.try_send(message).is_ok(),
        |receiver: &mut crossfire::MRx<_>| receiver.try_recv().ok()
    );
    of!(
        "crossbeam-channel",
        crossbeam_channel::unbounded(),
        |sender: &mut crossbeam_channel::Sender<_>, message| sender.try_send(message).is_ok(),
        |receiver: &mut crossbeam_channel::Receiver<_>| receiver.try_recv().ok()
    );
    of!(
        "rapidfire",
        rapidfire::unbounded(),
        |sender: &mut rapidfire::Sender<_>, message| sender.try_send(message).is_ok(),
        |receiver: &mut rapidfire::Receiver<_>| receiver.try_recv().ok()
    );
    of!(
        "fibre",
        fibre::mpmc::unbounded(),
        |sender: &mut fibre::mpmc::UnboundedSyncSender<_>, message| sender
            .try_send(message)
            .is_ok(),
        |receiver: &mut fibre::mpmc::UnboundedSyncReceiver<_>| receiver.try_recv().ok()
    );
    of!(
        "loole",
        loole::unbounded(),
        |sender: &mut loole::Sender<_>, message| sender.try_send(message).is_ok(),
        |receiver: &mut loole::Receiver<_>| receiver.try_recv().ok()
    );
    #[cfg(feature = "queue")]
    table.push(watchdog.watch("memory of sim-queue", || {
        measure_one("sim-queue", count, meter, crate::sim_queue_peer::store)
    })?);
    Ok(table)
}
