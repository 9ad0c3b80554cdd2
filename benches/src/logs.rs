//! Logs: writers append records of 100 bytes, and every reader reads every record.
//!
//! Threads start at a barrier and do not block: a reader that has caught up spins and yields, since the raw rivals
//! can do no more. A rival that drops or refuses what a reader is late for gets room for the whole run, so that
//! each reader's count and checksum must be those of all records.

use std::sync::{Arc, Barrier};

use crossbeam_queue::SegQueue;
use crossbeam_utils::Backoff;
use disruptor::{BusySpinWithSpinLoopHint, Polling, Producer};
use parking_lot::Mutex;
use tokio::sync::broadcast;

use crate::pattern::{Failure, Outcome, Peer};
use crate::payload::{Payload, Tally, part};
use crate::timing::Stopwatch;

/// The bytes of a record, as the reference's small ones.
pub const BYTES: usize = 100;

/// Records that a reader takes at once where it has to hold a lock meanwhile.
const UNDER_LOCK: usize = 64;

/// Slots of the disruptor's ring: it holds its writers back when its slowest reader is so far behind.
const RING: usize = 1 << 16;

/// The name of the peer that the patterns compare with.
pub const MUTEX: &str = "mutex-vec";

/// What each rival lacks, so that a gap in a table has its reason.
pub const NOTES: &[(&str, &str)] = &[
    (
        MUTEX,
        "a `Vec` behind parking_lot's mutex; readers copy 64 records under one lock",
    ),
    (
        "crossbeam-seg-queue",
        "no log: what one reader took no other sees, so that it has at most one",
    ),
    (
        "tokio-broadcast",
        "a ring as large as the run, since it drops what a receiver is late for",
    ),
    (
        "disruptor",
        "a ring of 65,536 slots that holds its writers back; not without a reader",
    ),
];

/// A record that carries its number.
#[derive(Debug, Clone, Copy)]
pub struct Record(pub [u8; BYTES]);

impl Record {
    /// The number that stands in the bytes of a record.
    #[inline]
    #[must_use]
    pub fn number_in(bytes: &[u8]) -> u64 {
        bytes
            .first_chunk()
            .map_or(u64::MAX, |number| u64::from_le_bytes(*number))
    }
}

impl Default for Record {
    fn default() -> Self {
        Self([0; BYTES])
    }
}

impl Payload for Record {
    const SUFFIX: &'static str = "-bytes100";

    #[inline]
    fn make(number: u64) -> Self {
        let mut bytes = [0; BYTES];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        Self(bytes)
    }

    #[inline]
    fn number(&self) -> u64 {
        Self::number_in(&self.0)
    }
}

/// The appending side.
pub trait Writer: Send {
    /// Appends one record.
    fn append(&mut self, record: Record);
}

/// The reading side.
pub trait Reader: Send {
    /// Counts what is there now, and says how many records it was.
    fn read(&mut self, tally: &mut Tally) -> u64;
}

/// Appends `count` records in all and has each reader read all of them.
///
/// # Errors
/// When a reader did not read each record once, or a thread panicked.
pub fn run<W: Writer, R: Reader>((writers, readers): (Vec<W>, Vec<R>), count: u64) -> Outcome {
    let width = writers.len();
    let barrier = Barrier::new(width + readers.len() + 1);
    let barrier = &barrier;
    let failed = |_| Failure("a thread of the run panicked".to_owned());
    std::thread::scope(|scope| {
        let readers: Vec<_> = readers
            .into_iter()
            .map(|mut reader| {
                scope.spawn(move || {
                    barrier.wait();
                    let mut tally = Tally::default();
                    let mut left = count;
                    let backoff = Backoff::new();
                    while left > 0 {
                        match reader.read(&mut tally) {
                            0 => backoff.snooze(),
                            read => {
                                left = left.saturating_sub(read);
                                backoff.reset();
                            }
                        }
                    }
                    tally
                })
            })
            .collect();
        let writers: Vec<_> = writers
            .into_iter()
            .enumerate()
            .map(|(index, mut writer)| {
                scope.spawn(move || {
                    barrier.wait();
                    for number in part(count, width, index) {
                        writer.append(Record::make(number));
                    }
                    writer
                })
            })
            .collect();
        let watch = Stopwatch::start();
        barrier.wait();
        // What a writer holds is dropped after the clock has stopped.
        let mut held = Vec::new();
        for writer in writers {
            held.push(writer.join().map_err(failed)?);
        }
        let mut tallies = Vec::new();
        for reader in readers {
            tallies.push(reader.join().map_err(failed)?);
        }
        let elapsed = watch.elapsed();
        for tally in tallies {
            tally.verify(count)?;
        }
        Ok(elapsed)
    })
}

impl Writer for Arc<Mutex<Vec<Record>>> {
    fn append(&mut self, record: Record) {
        self.lock().push(record);
    }
}

struct VecReader {
    log: Arc<Mutex<Vec<Record>>>,
    next: usize,
    taken: Vec<Record>,
}

impl Reader for VecReader {
    fn read(&mut self, tally: &mut Tally) -> u64 {
        {
            let log = self.log.lock();
            let end = log.len().min(self.next + UNDER_LOCK);
            self.taken.clear();
            self.taken.extend_from_slice(&log[self.next..end]);
        }
        self.next += self.taken.len();
        for record in &self.taken {
            tally.add(record);
        }
        self.taken.len() as u64
    }
}

impl Writer for Arc<SegQueue<Record>> {
    fn append(&mut self, record: Record) {
        self.push(record);
    }
}

impl Reader for Arc<SegQueue<Record>> {
    fn read(&mut self, tally: &mut Tally) -> u64 {
        let mut read = 0;
        while let Some(record) = self.pop() {
            tally.add(&record);
            read += 1;
        }
        read
    }
}

impl Writer for broadcast::Sender<Record> {
    fn append(&mut self, record: Record) {
        // Without a receiver a broadcast drops what it is sent, and says so.
        assert!(self.send(record).is_ok(), "nobody receives");
    }
}

impl Reader for broadcast::Receiver<Record> {
    fn read(&mut self, tally: &mut Tally) -> u64 {
        let mut read = 0;
        loop {
            match self.try_recv() {
                Ok(record) => {
                    tally.add(&record);
                    read += 1;
                }
                Err(broadcast::error::TryRecvError::Lagged(lost)) => {
                    panic!("the ring has room for the run, yet {lost} were dropped")
                }
                Err(_) => return read,
            }
        }
    }
}

/// The one receiver of a run without readers: it keeps the ring alive.
struct Silent;

impl Reader for Silent {
    fn read(&mut self, _: &mut Tally) -> u64 {
        0
    }
}

struct Publisher<P>(P);

impl<P: Producer<Record> + Send> Writer for Publisher<P> {
    fn append(&mut self, record: Record) {
        self.0.publish(|slot| *slot = record);
    }
}

/// A poller of the disruptor, whatever its type.
struct Poller<F>(F);

impl<F: FnMut(&mut Tally) -> u64 + Send> Reader for Poller<F> {
    fn read(&mut self, tally: &mut Tally) -> u64 {
        (self.0)(tally)
    }
}

/// Makes a reader of a poller: its type depends on how many there are.
macro_rules! poller {
    ($poller:ident) => {{
        let mut poller = $poller;
        Box::new(move |tally: &mut Tally| match poller.poll() {
            Ok(mut events) => {
                let mut read = 0_u64;
                for record in &mut events {
                    tally.add(record);
                    read += 1;
                }
                read
            }
            Err(Polling::NoEvents | Polling::Shutdown) => 0,
        }) as Box<dyn FnMut(&mut Tally) -> u64 + Send>
    }};
}

fn disruptor(writers: usize, readers: usize, count: u64) -> Outcome {
    let builder = disruptor::build_multi_producer(RING, Record::default, BusySpinWithSpinLoopHint);
    let (first, builder) = builder.new_event_poller();
    if readers == 1 {
        let producer = builder.build();
        let writers = (0..writers).map(|_| Publisher(producer.clone())).collect();
        return run((writers, vec![Poller(poller!(first))]), count);
    }
    let (second, builder) = builder.new_event_poller();
    let (third, builder) = builder.new_event_poller();
    let (fourth, builder) = builder.new_event_poller();
    let producer = builder.build();
    let mut pollers = vec![
        Poller(poller!(first)),
        Poller(poller!(second)),
        Poller(poller!(third)),
        Poller(poller!(fourth)),
    ];
    assert!(readers == pollers.len(), "one reader or four");
    pollers.truncate(readers);
    let writers = (0..writers).map(|_| Publisher(producer.clone())).collect();
    run((writers, pollers), count)
}

/// The rivals for so many writers and readers (none, one or four); the mutex comes first.
#[must_use]
pub fn rivals(writers: usize, readers: usize) -> Vec<Peer> {
    let mut peers = vec![Peer::new(MUTEX, move |count| {
        let log = Arc::new(Mutex::new(Vec::new()));
        let reader = || VecReader {
            log: Arc::clone(&log),
            next: 0,
            taken: Vec::with_capacity(UNDER_LOCK),
        };
        let readers = (0..readers).map(|_| reader()).collect();
        run((vec![Arc::clone(&log); writers], readers), count)
    })];
    if readers <= 1 {
        peers.push(Peer::new("crossbeam-seg-queue", move |count| {
            let queue = Arc::new(SegQueue::new());
            let side = |width| vec![Arc::clone(&queue); width];
            run((side(writers), side(readers)), count)
        }));
    }
    peers.push(Peer::new("tokio-broadcast", move |count| {
        let room = usize::try_from(count).unwrap_or(usize::MAX);
        let (sender, kept) = broadcast::channel(room);
        let writers = vec![sender.clone(); writers];
        if readers == 0 {
            let outcome = run((writers, Vec::<Silent>::new()), count);
            drop(kept);
            return outcome;
        }
        let mut receivers = vec![kept];
        receivers.resize_with(readers, || sender.subscribe());
        run((writers, receivers), count)
    }));
    if readers > 0 {
        peers.push(Peer::new("disruptor", move |count| {
            disruptor(writers, readers, count)
        }));
    }
    peers
}
