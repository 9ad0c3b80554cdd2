//! What the tests share: streams on a virtual clock, and tasks that are polled by hand.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use sim_core::clock::{Clock, VirtualClock};
use sim_core::time::Timestamp;
use sim_stream::{
    Cursor, PartitionKey, Placed, Read, Record, Records, ShardId, StartingPosition, Stream,
    StreamConfig,
};

pub(crate) fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub(crate) fn hours(n: u64) -> Duration {
    secs(3_600 * n)
}

/// When the virtual clocks of the tests begin.
pub(crate) const START: Timestamp = Timestamp::from_unix_millis(1_700_000_000_000);

/// The first shard of a stream.
pub(crate) const FIRST: ShardId = ShardId::new(0);

/// A configuration whose chunks are as small as they can be, so that a few records fill several.
pub(crate) fn small(shards: u32) -> StreamConfig {
    let mut config = StreamConfig::new("s").shards(shards);
    config.memory.chunk_bytes = 4 << 10;
    config.memory.first_chunk_bytes = 4 << 10;
    config
}

pub(crate) fn stream(config: StreamConfig) -> (Stream<u32>, VirtualClock) {
    stream_of(config)
}

pub(crate) fn stream_of<T: Send + Sync + 'static>(
    config: StreamConfig,
) -> (Stream<T>, VirtualClock) {
    let (clock, hand) = Clock::virtual_at(START);
    (Stream::with_clock(config, clock).unwrap(), hand)
}

pub(crate) fn key(text: impl AsRef<str>) -> PartitionKey {
    PartitionKey::new(text).unwrap()
}

/// A record under a key.
pub(crate) fn of(text: impl AsRef<str>, value: u32) -> Record<u32> {
    Record::new(key(text), value)
}

/// Puts one value under a key that does not matter.
#[track_caller]
pub(crate) fn put(stream: &Stream<u32>, value: u32) -> Placed {
    stream.try_put(of("k", value)).unwrap()
}

/// A cursor from the oldest record of a shard on.
#[track_caller]
pub(crate) fn oldest<T: Send + Sync + 'static>(stream: &Stream<T>, shard: ShardId) -> Cursor<T> {
    stream.cursor(shard, StartingPosition::TrimHorizon).unwrap()
}

pub(crate) fn values<T: Copy + Send + Sync + 'static>(records: &Records<T>) -> Vec<T> {
    records.iter().map(|record| *record.value()).collect()
}

/// Reads all that is there.
#[track_caller]
pub(crate) fn drain<T: Copy + Send + Sync + 'static>(cursor: &mut Cursor<T>) -> Vec<T> {
    let mut out = Vec::new();
    loop {
        let records = cursor.try_read(Read::default()).unwrap();
        if records.is_empty() {
            return out;
        }
        out.extend(values(&records));
    }
}

/// All values of a shard that are there.
#[track_caller]
pub(crate) fn all_of(stream: &Stream<u32>, shard: ShardId) -> Vec<u32> {
    drain(&mut oldest(stream, shard))
}

/// Whether the task was woken since it was last asked.
struct Flag {
    woken: AtomicBool,
    thread: Option<Thread>,
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Ordering::SeqCst);
        if let Some(thread) = &self.thread {
            thread.unpark();
        }
    }
}

/// A future that is polled by hand, without an executor.
pub(crate) struct Task<'a, R> {
    /// `None` when it has completed.
    future: Option<Pin<Box<dyn Future<Output = R> + 'a>>>,
    flag: Arc<Flag>,
    waker: Waker,
}

impl<'a, R> Task<'a, R> {
    /// A task that was polled once and waits.
    #[track_caller]
    pub(crate) fn waiting(future: impl Future<Output = R> + 'a) -> Self {
        let mut task = Self::new(future);
        assert!(task.poll().is_none(), "the task should wait");
        task
    }

    pub(crate) fn new(future: impl Future<Output = R> + 'a) -> Self {
        let flag = Arc::new(Flag {
            woken: AtomicBool::new(false),
            thread: None,
        });
        Self {
            future: Some(Box::pin(future)),
            waker: Waker::from(Arc::clone(&flag)),
            flag,
        }
    }

    pub(crate) fn poll(&mut self) -> Option<R> {
        match self
            .future
            .as_mut()?
            .as_mut()
            .poll(&mut Context::from_waker(&self.waker))
        {
            Poll::Ready(value) => {
                self.future = None;
                Some(value)
            }
            Poll::Pending => None,
        }
    }

    /// Polls as an executor does: only when the task was woken.
    pub(crate) fn run(&mut self) -> Option<R> {
        let mut polls = 0;
        while self.flag.woken.swap(false, Ordering::SeqCst) {
            polls += 1;
            assert!(polls < 1000, "the task wakes itself without an end");
            if let Some(value) = self.poll() {
                return Some(value);
            }
        }
        None
    }

    pub(crate) fn is_woken(&self) -> bool {
        self.flag.woken.load(Ordering::SeqCst)
    }
}

/// Runs a future on this thread, with no runtime around it.
pub(crate) fn block_on<R>(future: impl Future<Output = R>) -> R {
    let thread = Some(std::thread::current());
    let flag = Arc::new(Flag {
        woken: AtomicBool::new(true),
        thread,
    });
    let waker = Waker::from(Arc::clone(&flag));
    let mut future = std::pin::pin!(future);
    loop {
        if flag.woken.swap(false, Ordering::SeqCst)
            && let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker))
        {
            return value;
        }
        if !flag.woken.load(Ordering::SeqCst) {
            std::thread::park();
        }
    }
}

/// Waits until another thread sleeps on the clock.
pub(crate) fn until_asleep(hand: &VirtualClock, sleepers: usize) {
    while hand.sleeping() < sleepers {
        std::thread::yield_now();
    }
}
