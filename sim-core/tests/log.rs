//! The log: order, ends, trims, memory, drops; against a model; under many threads.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "a failed helper is a failed test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use proptest::prelude::*;
use sim_core::log::{AppendError, Batch, Cursor, Entry, Log, LogConfig, Pool, Read};

fn config(chunk_bytes: usize, first_chunk_bytes: usize) -> LogConfig {
    let mut config = LogConfig::default();
    config.chunk_bytes = chunk_bytes;
    config.first_chunk_bytes = first_chunk_bytes;
    config
}

/// Chunks of 1 KiB, so that a few records fill one.
fn small() -> Arc<Pool> {
    Pool::new(config(1024, 1024), 4096)
}

fn read_all<T: Clone + Send + Sync + 'static>(log: &Log<T>) -> Vec<(u64, T, Vec<u8>)> {
    let mut cursor = log.cursor(log.start());
    let mut read = Vec::new();
    while let Read::Record(entry) = cursor.next() {
        read.push((
            entry.position(),
            entry.value().clone(),
            entry.tail().to_vec(),
        ));
    }
    read
}

/// A value that counts itself.
#[derive(Debug)]
struct Counted(Arc<AtomicUsize>, u64);

impl Counted {
    fn new(alive: &Arc<AtomicUsize>, number: u64) -> Self {
        alive.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(alive), number)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[test]
fn records_come_back_in_the_order_of_their_positions() {
    let log = Log::new(small());
    for number in 0..1000u64 {
        let tail = number.to_le_bytes();
        assert_eq!(log.append(number, &[&tail[..3], &tail[3..]]), Ok(number));
    }
    assert!(log.chunks() > 10);
    let read = read_all(&log);
    assert_eq!(read.len(), 1000);
    for (expected, (position, value, tail)) in read.into_iter().enumerate() {
        assert_eq!(position, expected as u64);
        assert_eq!(value, expected as u64);
        assert_eq!(tail, (expected as u64).to_le_bytes());
    }
}

#[test]
fn an_empty_log_has_no_memory_and_nothing_to_read() {
    let pool = small();
    let log = Log::<String>::new(Arc::clone(&pool));
    assert_eq!(
        (log.start(), log.end(), log.bytes(), log.chunks()),
        (0, 0, 0, 0)
    );
    assert_eq!(pool.allocated_bytes(), 0);
    assert!(matches!(log.cursor(0).next(), Read::Pending));
    assert!(matches!(log.cursor(7).batch(1, 1), Read::Pending));
    assert!(log.get(0).is_none());
    assert_eq!(log.partition_point(|_, _| true), 0);
    assert_eq!(log.oldest_chunk_end(), None);
}

#[test]
fn an_empty_log_closes() {
    let log = Log::<u8>::new(small());
    let mut cursor = log.cursor(0);
    assert!(matches!(cursor.next(), Read::Pending));
    assert_eq!(log.close(), 0);
    assert!(matches!(cursor.next(), Read::End));
    assert_eq!(log.append(9, &[]), Err(AppendError::Closed(9)));
}

#[test]
fn a_closed_log_takes_nothing_and_ends_after_its_last_record() {
    let log = Log::new(small());
    log.append(String::from("a"), &[]).unwrap();
    assert!(!log.is_closed());
    assert_eq!(log.close(), 1);
    assert_eq!(log.close(), 1);
    assert!(log.is_closed());
    let refused = log.append(String::from("b"), &[b"tail"]).unwrap_err();
    assert_eq!(refused.to_string(), "the log is closed");
    assert_eq!(refused.into_value(), "b");
    let refused = log
        .append_batch(vec![(String::from("c"), [&b"x"[..]])])
        .unwrap_err();
    assert_eq!(refused.into_value()[0].0, "c");
    let refused = log.append_batch::<0>(Vec::new()).unwrap_err();
    assert_eq!(refused.into_value(), Vec::new());
    let mut cursor = log.cursor(0);
    assert_eq!(cursor.next().record().unwrap().value(), "a");
    assert!(matches!(cursor.next(), Read::End));
    assert!(matches!(cursor.batch(9, 9), Read::End));
    assert_eq!(log.end(), 1);
}

#[test]
fn a_batch_stands_together_and_in_order() {
    let log = Log::new(small());
    log.append(0u32, &[]).unwrap();
    let items = (1..=200u32)
        .map(|n| (n, [&b"key"[..], &b"-data"[..n as usize % 5]]))
        .collect();
    assert_eq!(log.append_batch(items), Ok(1..201));
    assert_eq!(log.append_batch::<1>(Vec::new()), Ok(201..201));
    assert_eq!(log.append(201, &[]), Ok(201));
    let read = read_all(&log);
    assert_eq!(read.len(), 202);
    assert_eq!(read[104], (104, 104, b"key-dat"[..7].to_vec()));
}

#[test]
fn a_tail_at_the_limit_is_taken_and_one_above_comes_back() {
    let pool = Pool::new(LogConfig::default(), 0);
    let log = Log::new(pool);
    let long = vec![7u8; Log::<u64>::TAIL_LIMIT];
    assert_eq!(log.append(1, &[b"small"]), Ok(0));
    assert_eq!(log.append(2, &[&long]), Ok(1));
    assert_eq!(log.append(3, &[b"small"]), Ok(2));
    let refused = log.append(4, &[&long, b"x"]).unwrap_err();
    assert_eq!(refused.to_string(), "16777216 bytes are more than 16777215");
    assert_eq!(refused.into_value(), 4);
    let refused = log.append_batch(vec![(5, [&long[..], b"x"])]).unwrap_err();
    assert!(matches!(
        refused,
        AppendError::TooLarge {
            bytes: 16_777_216,
            ..
        }
    ));
    let refused = log.append_batch(vec![(6, [&long[..]]); 5]).unwrap_err();
    assert!(matches!(
        refused,
        AppendError::TooLarge {
            limit: 67_108_864,
            ..
        }
    ));
    assert_eq!(log.append_batch(vec![(6, [&long[..]]); 3]), Ok(3..6));
    let read = read_all(&log);
    assert_eq!(
        read.iter().map(|r| r.2.len()).collect::<Vec<_>>(),
        [5, long.len(), 5, long.len(), long.len(), long.len()]
    );
    assert!(read[5].2 == long);
}

#[test]
fn a_batch_with_too_many_records_comes_back() {
    let log = Log::new(Pool::new(LogConfig::default(), 0));
    let refused = log.append_batch(vec![((), []); 1 << 22]).unwrap_err();
    assert_eq!(refused.to_string(), "4194304 records are more than 4194303");
    assert_eq!(refused.into_value().len(), 1 << 22);
    assert_eq!(
        log.append_batch(vec![((), []); (1 << 22) - 1]),
        Ok(0..(1 << 22) - 1)
    );
    assert_eq!(log.append((), &[]), Ok((1 << 22) - 1));
    assert_eq!(log.chunks(), 2);
}

#[test]
fn values_without_size_and_with_wide_alignment_are_kept() {
    #[derive(Clone, Debug, PartialEq)]
    #[repr(align(256))]
    struct Wide(u8);

    let log = Log::new(small());
    for number in 0..100 {
        log.append(Wide(number), &[&vec![number; usize::from(number)]])
            .unwrap();
    }
    let mut cursor = log.cursor(0);
    for number in 0..100 {
        let entry = cursor.next().record().unwrap();
        assert_eq!(std::ptr::from_ref(entry.value()).addr() % 256, 0);
        assert_eq!(entry.value(), &Wide(number));
        assert_eq!(entry.tail(), vec![number; usize::from(number)]);
    }

    let log = Log::new(small());
    for number in 0..1000u32 {
        assert_eq!(log.append((), &[]), Ok(u64::from(number)));
    }
    assert_eq!(read_all(&log).len(), 1000);
}

#[test]
fn a_batch_read_ends_at_its_limits_and_at_the_chunk() {
    let log = Log::new(Pool::new(config(4096, 4096), 0));
    for number in 0..200u64 {
        log.append(number, &[&[1; 92]]).unwrap(); // 100 bytes each
    }
    let mut cursor = log.cursor(0);
    assert_eq!(cursor.batch(7, usize::MAX).record().unwrap().len(), 7);
    assert_eq!(cursor.batch(0, usize::MAX).record().unwrap().len(), 1);
    assert_eq!(cursor.batch(100, 500).record().unwrap().len(), 5);
    assert_eq!(cursor.batch(100, 599).record().unwrap().len(), 5);
    assert_eq!(cursor.batch(100, 0).record().unwrap().len(), 1);
    assert_eq!(cursor.position(), 19);
    let mut read = 19;
    while let Read::Record(batch) = cursor.batch(usize::MAX, usize::MAX) {
        assert_eq!(batch.position(), read);
        for (position, value, tail) in &batch {
            assert_eq!((position, *value, tail.len()), (read, read, 92));
            read += 1;
        }
        assert_eq!(batch.end(), read);
    }
    assert_eq!(read, 200);
}

#[test]
fn the_parts_of_a_batch_are_the_records() {
    let log = Log::new(small());
    log.append_batch(
        (0..10u64)
            .map(|n| (n, [&b"abcdefghij"[..n as usize]]))
            .collect(),
    )
    .unwrap();
    let mut batch = log.cursor(2).batch(6, usize::MAX).record().unwrap();
    assert_eq!(batch.get(5), Some((&7, &b"abcdefg"[..])));
    assert_eq!(batch.get(6), None);
    assert_eq!(batch.entry(0).unwrap().position(), 2);
    assert!(batch.entry(6).is_none());
    let front = batch.split_to(2);
    assert_eq!((front.len(), batch.len(), batch.position()), (2, 4, 4));
    assert_eq!(
        batch.iter().rev().map(|(p, ..)| p).collect::<Vec<_>>(),
        [7, 6, 5, 4]
    );
    assert_eq!(batch.iter().len(), 4);
    assert_eq!(batch.split_to(9).len(), 4);
    assert!(batch.is_empty());
}

#[test]
fn a_reader_that_fell_behind_is_told_where_to_go_on() {
    let log = Log::new(small());
    for number in 0..100u64 {
        log.append(number, &[&[0; 56]]).unwrap();
    }
    let mut behind = log.cursor(0);
    assert_eq!(behind.next().record().unwrap().position(), 0);
    let mut new = log.cursor(50);
    log.trim_to(60);
    log.trim_to(30); // never back
    assert_eq!(log.start(), 60);
    assert!(matches!(behind.next(), Read::Trimmed { resume_at: 60 }));
    assert_eq!(behind.next().record().unwrap().value(), &60);
    assert!(matches!(new.batch(9, 999), Read::Trimmed { resume_at: 60 }));
    assert_eq!(new.batch(9, 999).record().unwrap().position(), 60);
    assert!(log.get(59).is_none());
    assert_eq!(log.get(60).unwrap().value(), &60);
    let mut far = log.cursor(0);
    assert!(matches!(far.next(), Read::Trimmed { resume_at: 60 }));
    assert_eq!(far.position(), 60);
}

#[test]
fn a_trim_never_goes_beyond_the_end() {
    let log = Log::new(small());
    log.append(1u8, &[]).unwrap();
    log.trim_to(u64::MAX);
    assert_eq!((log.start(), log.end()), (1, 1));
    assert_eq!(log.append(2, &[]), Ok(1));
    assert_eq!(read_all(&log), [(1, 2, vec![])]);
}

#[test]
fn what_a_reader_holds_stays_readable_after_the_trim_and_the_log() {
    let alive = Arc::new(AtomicUsize::new(0));
    let pool = small();
    let log = Log::new(Arc::clone(&pool));
    for number in 0..100 {
        log.append(Counted::new(&alive, number), &[b"0123456789"])
            .unwrap();
    }
    let batch = log.cursor(0).batch(3, usize::MAX).record().unwrap();
    let entry = log.get(50).unwrap();
    let bytes = entry.tail_bytes();
    drop(entry);
    log.trim_to(100);
    drop(log);
    assert!(alive.load(Ordering::SeqCst) < 100);
    // Others use the pool meanwhile.
    let other = Log::new(Arc::clone(&pool));
    for _ in 0..100 {
        other.append(0u64, &[&[9; 100]]).unwrap();
    }
    assert_eq!(batch.get(2).unwrap().0.1, 2);
    assert_eq!(batch.get(2).unwrap().1, b"0123456789");
    assert_eq!(&bytes[..], b"0123456789");
    drop((batch, bytes));
    assert_eq!(alive.load(Ordering::SeqCst), 0);
}

#[test]
fn a_cursor_beyond_the_end_waits_for_its_position() {
    let log = Log::new(small());
    let mut cursor = log.cursor(300);
    for number in 0..300u64 {
        assert!(matches!(cursor.next(), Read::Pending));
        log.append(number, &[]).unwrap();
    }
    assert!(matches!(cursor.next(), Read::Pending));
    log.append(300, &[]).unwrap();
    assert_eq!(cursor.next().record().unwrap().value(), &300);
    cursor.seek(5);
    assert_eq!(cursor.next().record().unwrap().value(), &5);
    cursor.seek(299);
    let copy = cursor.clone();
    assert_eq!(cursor.next().record().unwrap().value(), &299);
    assert_eq!(copy.position(), 299);
    log.close();
    cursor.seek(u64::MAX);
    assert!(matches!(cursor.next(), Read::End));
}

#[test]
fn memory_is_counted_bounded_and_given_back() {
    let pool = Pool::new(config(4096, 1024), 3 * 4096);
    let log = Log::new(Arc::clone(&pool));
    for _ in 0..1000 {
        log.append(0u64, &[&[1; 92]]).unwrap();
    }
    assert_eq!(pool.kept_bytes(), 0);
    let allocated = pool.allocated_bytes();
    assert!(log.bytes() > allocated && log.bytes() < allocated + log.chunks() * 400);
    assert!(log.bytes() < 1000 * (100 + 32), "{} bytes", log.bytes());
    log.trim_to(999);
    assert_eq!(log.chunks(), 1);
    assert_eq!(pool.kept_bytes(), 3 * 4096);
    assert_eq!(pool.allocated_bytes(), 4 * 4096);
    log.shrink();
    assert_eq!(log.chunks(), 1); // one record is left
    log.trim_to(1000);
    assert_eq!(log.chunks(), 1);
    log.shrink();
    assert_eq!((log.chunks(), log.bytes()), (0, 0));
    assert_eq!(pool.allocated_bytes(), 3 * 4096);
    assert_eq!(log.append(7, &[]), Ok(1000));
    assert_eq!(read_all(&log), [(1000, 7, vec![])]);
    drop(log);
    drop(pool);
}

#[test]
fn a_closed_log_that_is_trimmed_whole_has_no_memory() {
    let log = Log::new(small());
    let mut cursor = log.cursor(0);
    for number in 0..100u64 {
        log.append(number, &[]).unwrap();
    }
    assert_eq!(cursor.next().record().unwrap().value(), &0);
    log.close();
    log.trim_to(100);
    assert_eq!((log.chunks(), log.bytes()), (0, 0));
    assert!(log.is_closed());
    assert_eq!((log.start(), log.end(), log.close()), (100, 100, 100));
    assert_eq!(log.append(1, &[]), Err(AppendError::Closed(1)));
    assert!(matches!(cursor.next(), Read::Trimmed { resume_at: 100 }));
    assert!(matches!(cursor.next(), Read::End));
}

#[test]
fn a_reader_that_waits_at_the_end_goes_on_after_the_log_was_shrunk() {
    let log = Log::new(small());
    let mut cursor = log.cursor(0);
    for number in 0..50u64 {
        assert_eq!(log.append(number, &[]), Ok(number));
        assert_eq!(cursor.next().record().unwrap().value(), &number);
        assert!(matches!(cursor.next(), Read::Pending));
        log.trim_to(number + 1);
        log.shrink();
        if number % 3 == 0 {
            assert!(matches!(cursor.next(), Read::Pending));
        }
    }
}

#[test]
fn the_oldest_chunk_ends_where_a_trim_frees_it() {
    let log = Log::new(small());
    for number in 0..100u64 {
        log.append(number, &[&[0; 56]]).unwrap();
    }
    let mut chunks = log.chunks();
    while let Some(end) = log.oldest_chunk_end() {
        log.trim_to(end - 1);
        assert_eq!(log.chunks(), chunks);
        log.trim_to(end);
        chunks -= 1;
        assert_eq!(log.chunks(), chunks);
    }
    assert_eq!(chunks, 1);
}

#[test]
fn a_chunk_that_was_trimmed_whole_as_the_newest_goes_with_the_next_trim() {
    // Each record has a chunk of its own.
    let log = Log::new(small());
    log.append(0u64, &[&[0; 3000]]).unwrap();
    log.trim_to(1);
    assert_eq!(log.chunks(), 1, "the newest chunk stays");
    for number in 1..10u64 {
        log.append(number, &[&[0; 3000]]).unwrap();
    }
    let mut trims = 0;
    while let Some(end) = log.oldest_chunk_end() {
        let chunks = log.chunks();
        log.trim_to(end);
        assert_eq!(log.chunks(), chunks - 1, "each trim lets go of one");
        trims += 1;
    }
    assert_eq!((trims, log.start()), (9, 9));
}

#[test]
fn a_log_that_is_closed_after_it_was_trimmed_whole_is_let_go_by_a_shrink() {
    let alive = Arc::new(AtomicUsize::new(0));
    let log = Log::new(small());
    log.append(Counted::new(&alive, 0), &[]).unwrap();
    log.trim_to(1);
    log.close();
    assert_eq!(
        (alive.load(Ordering::SeqCst), log.chunks()),
        (1, 1),
        "a close drops nothing"
    );
    log.shrink();
    assert_eq!((alive.load(Ordering::SeqCst), log.chunks()), (0, 0));
}

#[test]
fn the_partition_point_is_the_first_record_that_fails() {
    let log = Log::new(small());
    for number in 0..500u64 {
        log.append(number * 2, &[&[0; 30]]).unwrap();
    }
    log.trim_to(100);
    for wanted in 0..1010 {
        let point = log.partition_point(|value, _| *value < wanted);
        assert_eq!(point, wanted.div_ceil(2).clamp(100, 500));
    }
}

#[test]
fn a_value_is_dropped_once_however_it_leaves() {
    let alive = Arc::new(AtomicUsize::new(0));
    let pool = small();
    let log = Log::new(Arc::clone(&pool));
    for number in 0..500 {
        log.append(Counted::new(&alive, number), &[&[1; 20]])
            .unwrap();
        let batch = (0..3)
            .map(|_| (Counted::new(&alive, number), [&b"tail"[..]]))
            .collect();
        log.append_batch(batch).unwrap();
    }
    assert_eq!(alive.load(Ordering::SeqCst), 2000);
    log.trim_to(1000);
    let kept = alive.load(Ordering::SeqCst);
    assert!((1000..1100).contains(&kept), "{kept} are kept");
    let entry = log.get(1500).unwrap();
    log.close();
    drop(log.append(Counted::new(&alive, 0), &[]));
    assert_eq!(alive.load(Ordering::SeqCst), kept);
    drop(log);
    let held = alive.load(Ordering::SeqCst);
    assert!(held > 0 && held < 50, "{held} are held");
    assert_eq!(entry.value().1, 375);
    drop(entry);
    assert_eq!(alive.load(Ordering::SeqCst), 0);
}

#[test]
fn recycled_chunks_show_nothing_of_their_former_lives() {
    // Tables that grow and shrink over what were records and entries before, through all epochs and once around.
    let pool = Pool::new(config(1024, 1024), 1024);
    for round in 0..66_000u32 {
        let log = Log::new(Arc::clone(&pool));
        let length = [0, 300, 7, 90][round as usize % 4];
        let fill = vec![(round % 251) as u8 | 1; length];
        log.append(round, &[&fill]).unwrap();
        let mut cursor = log.cursor(0);
        let entry = cursor.next().record().unwrap();
        assert_eq!((entry.value(), entry.tail()), (&round, &fill[..]));
        assert!(matches!(cursor.next(), Read::Pending));
        if round % 16 == 0 {
            while log.chunks() == 1 {
                log.append(round, &[&fill]).unwrap();
            }
        }
    }
    assert_eq!(pool.allocated_bytes(), 1024);
}

#[test]
fn the_pool_makes_chunks_ahead() {
    let pool = Pool::new(config(4096, 4096), 5 * 4096);
    pool.reserve(3 * 4096);
    assert_eq!(
        (pool.kept_bytes(), pool.allocated_bytes()),
        (3 * 4096, 3 * 4096)
    );
    pool.reserve(usize::MAX);
    assert_eq!(pool.kept_bytes(), 5 * 4096);
    let odd = Pool::new(config(5000, 0), 0);
    assert_eq!(
        (odd.config().chunk_bytes, odd.config().first_chunk_bytes),
        (8192, 1024)
    );
    let large = Pool::new(config(usize::MAX, usize::MAX), usize::MAX);
    assert_eq!(large.config().chunk_bytes, 64 << 20);
}

#[test]
fn handles_go_to_other_threads_and_errors_are_errors() {
    fn shared<S: Send + Sync + Unpin + 'static>() {}
    fn error<E: std::error::Error>() {}
    struct Plain;

    shared::<Log<Plain>>();
    shared::<Cursor<Plain>>();
    shared::<Batch<Plain>>();
    shared::<Entry<Plain>>();
    shared::<Pool>();
    error::<AppendError<Plain>>();
    let log = Log::new(small());
    log.close();
    assert_eq!(
        format!("{:?}", log.append(Plain, &[]).err().unwrap()),
        "AppendError(the log is closed)"
    );
    assert!(format!("{log:?}").contains("closed: true"));
}

#[derive(Debug, Clone)]
enum Step {
    Append(u16),
    Batch(Vec<u16>),
    Trim(prop::sample::Index),
    Shrink,
    Read {
        reader: usize,
        records: usize,
        bytes: usize,
    },
    Next {
        reader: usize,
    },
    Seek {
        reader: usize,
        to: prop::sample::Index,
    },
    Find(u32),
    Close,
}

fn step() -> impl Strategy<Value = Step> {
    let length = prop_oneof![9 => 0..60u16, 1 => 0..2000u16];
    prop_oneof![
        12 => length.clone().prop_map(Step::Append),
        4 => prop::collection::vec(length, 0..20).prop_map(Step::Batch),
        3 => any::<prop::sample::Index>().prop_map(Step::Trim),
        1 => Just(Step::Shrink),
        8 => (0..3usize, 0..40usize, 0..2000usize)
            .prop_map(|(reader, records, bytes)| Step::Read { reader, records, bytes }),
        8 => (0..3usize).prop_map(|reader| Step::Next { reader }),
        2 => (0..3usize, any::<prop::sample::Index>())
            .prop_map(|(reader, to)| Step::Seek { reader, to }),
        2 => (0..300u32).prop_map(Step::Find),
        1 => Just(Step::Close),
    ]
}

/// What a tail of this length, at this position, holds.
fn tail(position: u64, length: u16) -> Vec<u8> {
    (0..length)
        .map(|at| (position * 31) as u8 ^ at as u8)
        .collect()
}

proptest! {
    #[test]
    fn a_log_is_a_list_with_a_start(steps in prop::collection::vec(step(), 0..300)) {
        let alive = Arc::new(AtomicUsize::new(0));
        let pool = Pool::new(config(2048, 1024), 8192);
        let log = Log::new(Arc::clone(&pool));
        let mut list: Vec<u16> = Vec::new();
        let (mut start, mut closed) = (0u64, false);
        let mut readers: Vec<Cursor<Counted>> = (0..3).map(|_| log.cursor(0)).collect();
        let mut places = [0u64; 3];
        for step in steps {
            let end = list.len() as u64;
            match step {
                Step::Append(length) => {
                    let appended = log.append(Counted::new(&alive, end), &[&tail(end, length)]);
                    prop_assert_eq!(appended.is_err(), closed);
                    if let Ok(position) = appended {
                        prop_assert_eq!(position, end);
                        list.push(length);
                    }
                }
                Step::Batch(lengths) => {
                    let tails: Vec<_> =
                        (end..).zip(&lengths).map(|(at, length)| tail(at, *length)).collect();
                    let items = (end..)
                        .zip(&tails)
                        .map(|(at, tail)| {
                            let middle = tail.len() / 2;
                            (Counted::new(&alive, at), [&tail[..middle], &tail[middle..]])
                        })
                        .collect();
                    let appended = log.append_batch(items);
                    prop_assert_eq!(appended.is_err(), closed);
                    if let Ok(range) = appended {
                        prop_assert_eq!(range, end..end + lengths.len() as u64);
                        list.extend(lengths);
                    }
                }
                Step::Trim(to) => {
                    let to = to.index(list.len() + 2) as u64;
                    log.trim_to(to);
                    start = start.max(to.min(end));
                }
                Step::Shrink => {
                    log.shrink();
                    prop_assert!(start < end || log.bytes() == 0);
                }
                Step::Close => {
                    prop_assert_eq!(log.close(), end);
                    closed = true;
                }
                Step::Find(number) => {
                    let expected = u64::from(number).clamp(start, end);
                    prop_assert_eq!(log.partition_point(|v, _| v.1 < u64::from(number)), expected);
                    let entry = log.get(u64::from(number));
                    let there = (start..end).contains(&u64::from(number));
                    prop_assert_eq!(entry.is_some(), there);
                }
                Step::Seek { reader, to } => {
                    places[reader] = to.index(list.len() + 3) as u64;
                    readers[reader].seek(places[reader]);
                }
                Step::Next { reader } => {
                    let place = &mut places[reader];
                    match readers[reader].next() {
                        Read::Record(entry) => {
                            prop_assert!(*place >= start && *place < end);
                            prop_assert_eq!(entry.position(), *place);
                            prop_assert_eq!(entry.value().1, *place);
                            prop_assert_eq!(entry.tail(), tail(*place, list[*place as usize]));
                            *place += 1;
                        }
                        Read::Pending => prop_assert!(*place >= end && !closed),
                        Read::End => prop_assert!(*place >= end && closed),
                        Read::Trimmed { resume_at } => {
                            prop_assert!(*place < start && resume_at == start);
                            *place = start;
                        }
                    }
                }
                Step::Read { reader, records, bytes } => {
                    let place = &mut places[reader];
                    match readers[reader].batch(records, bytes) {
                        Read::Record(batch) => {
                            prop_assert!(*place >= start && batch.end() <= end);
                            prop_assert!(batch.len() <= records.max(1));
                            let mut size = 0;
                            for (position, value, tail_bytes) in &batch {
                                prop_assert_eq!((position, value.1), (*place, *place));
                                prop_assert_eq!(tail_bytes, tail(*place, list[*place as usize]));
                                size += size_of::<Counted>() + tail_bytes.len();
                                *place += 1;
                            }
                            prop_assert!(batch.len() == 1 || size <= bytes);
                        }
                        Read::Pending => prop_assert!(*place >= end && !closed),
                        Read::End => prop_assert!(*place >= end && closed),
                        Read::Trimmed { resume_at } => {
                            prop_assert!(*place < start && resume_at == start);
                            *place = start;
                        }
                    }
                }
            }
            prop_assert_eq!((log.start(), log.end()), (start, list.len() as u64));
            prop_assert_eq!(log.is_closed(), closed);
            prop_assert!(alive.load(Ordering::SeqCst) as u64 >= list.len() as u64 - start);
            prop_assert!(pool.kept_bytes() <= 8192);
        }
        drop((log, readers));
        prop_assert_eq!(alive.load(Ordering::SeqCst), 0);
        prop_assert_eq!(pool.allocated_bytes(), pool.kept_bytes());
    }
}

/// A tail that says from whom it is, and that shows when it is torn.
fn signed(writer: u64, number: u64, into: &mut Vec<u8>) {
    into.clear();
    into.extend(writer.to_le_bytes());
    into.extend(number.to_le_bytes());
    let length = (writer * 7 + number * 13) as usize % 150;
    into.resize(16 + length, (writer ^ number) as u8);
}

/// Whose record it is, and which of theirs; panics if it is torn.
fn verified(value: u64, tail: &[u8]) -> (u64, u64) {
    let word = |at: usize| u64::from_le_bytes(tail[at..at + 8].try_into().unwrap());
    let (writer, number) = (word(0), word(8));
    assert_eq!(value, writer << 32 | number);
    let mut expected = Vec::new();
    signed(writer, number, &mut expected);
    assert_eq!(tail, expected);
    (writer, number)
}

/// Reads to the end of the log; returns how many it read and how many it lost to trims.
fn follow(log: &Log<(u64, Counted)>, in_batches: bool, writers: usize) -> (u64, u64) {
    let mut cursor = log.cursor(0);
    let mut next = vec![0u64; writers];
    let (mut read, mut lost) = (0, 0);
    loop {
        let before = cursor.position();
        let mut see = |position: u64, value: &(u64, Counted), tail: &[u8]| {
            assert_eq!(position, before + read - (before - lost));
            let (writer, number) = verified(value.0, tail);
            let next = &mut next[writer as usize];
            // In the order in which its writer appended them, none twice, and none left out but by a trim.
            assert!(number >= *next && (number == *next || lost > 0));
            *next = number + 1;
            read += 1;
        };
        let found = if in_batches {
            match cursor.batch(50, 5000) {
                Read::Record(batch) => {
                    batch
                        .iter()
                        .for_each(|(position, value, tail)| see(position, value, tail));
                    Read::Record(())
                }
                Read::Pending => Read::Pending,
                Read::End => Read::End,
                Read::Trimmed { resume_at } => Read::Trimmed { resume_at },
            }
        } else {
            match cursor.next() {
                Read::Record(entry) => {
                    see(entry.position(), entry.value(), entry.tail());
                    Read::Record(())
                }
                Read::Pending => Read::Pending,
                Read::End => Read::End,
                Read::Trimmed { resume_at } => Read::Trimmed { resume_at },
            }
        };
        match found {
            Read::Record(()) => {}
            Read::Pending => thread::yield_now(),
            Read::End => return (read, lost),
            Read::Trimmed { resume_at } => {
                assert!(resume_at > before);
                lost += resume_at - before;
            }
        }
    }
}

#[test]
fn many_writers_readers_and_trims_lose_double_tear_and_reorder_nothing() {
    const WRITERS: u64 = 3;
    const RECORDS: u64 = 30_000;
    for trims in [false, true] {
        let alive = Arc::new(AtomicUsize::new(0));
        let pool = Pool::new(config(4096, 1024), 16 * 4096);
        let log: Log<(u64, Counted)> = Log::new(Arc::clone(&pool));
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let readers: Vec<_> = [true, false]
                .map(|in_batches| {
                    let log = log.clone();
                    scope.spawn(move || follow(&log, in_batches, WRITERS as usize))
                })
                .into_iter()
                .collect();
            let writers: Vec<_> = (0..WRITERS)
                .map(|writer| {
                    let (log, alive) = (log.clone(), &alive);
                    scope.spawn(move || write(&log, alive, writer, RECORDS))
                })
                .collect();
            if trims {
                scope.spawn(|| {
                    while !done.load(Ordering::SeqCst) {
                        log.trim_to(log.end().saturating_sub(500));
                        if log.end().is_multiple_of(7) {
                            log.trim_to(u64::MAX);
                            log.shrink();
                        }
                        thread::yield_now();
                    }
                });
            }
            for writer in writers {
                writer.join().unwrap();
            }
            assert_eq!(log.close(), WRITERS * RECORDS);
            for reader in readers {
                let (read, lost) = reader.join().unwrap();
                assert_eq!(read + lost, WRITERS * RECORDS);
                assert!(trims || lost == 0);
            }
            done.store(true, Ordering::SeqCst);
        });
        assert!(pool.kept_bytes() <= 16 * 4096);
        drop(log);
        assert_eq!(alive.load(Ordering::SeqCst), 0);
        assert_eq!(pool.allocated_bytes(), pool.kept_bytes());
    }
}

/// Appends the writer's records, one by one and in batches.
fn write(log: &Log<(u64, Counted)>, alive: &Arc<AtomicUsize>, writer: u64, records: u64) {
    let value = |number: u64| (writer << 32 | number, Counted::new(alive, number));
    let mut tail = Vec::new();
    let mut number = 0;
    while number < records {
        if number % 10 == 0 && number + 5 <= records {
            let tails: Vec<_> = (number..number + 5)
                .map(|number| {
                    signed(writer, number, &mut tail);
                    tail.clone()
                })
                .collect();
            let items = (number..)
                .zip(&tails)
                .map(|(n, tail)| (value(n), [&tail[..3], &tail[3..]]));
            let range = log.append_batch(items.collect()).unwrap();
            assert_eq!(range.end - range.start, 5);
            number += 5;
        } else {
            signed(writer, number, &mut tail);
            log.append(value(number), &[&tail]).unwrap();
            number += 1;
        }
    }
}

#[test]
fn closes_that_race_with_appends_are_exact() {
    for round in 0..100 {
        let log = Log::new(Pool::new(config(1024, 1024), 0));
        thread::scope(|scope| {
            let writers: Vec<_> = (0..2u64)
                .map(|writer| {
                    let log = &log;
                    scope.spawn(move || {
                        (0..2000)
                            .take_while(|_| log.append(writer, &[]).is_ok())
                            .count()
                    })
                })
                .collect();
            while log.end() < round {
                thread::yield_now();
            }
            let end = log.close();
            assert_eq!((log.end(), log.close()), (end, end));
            let appended: usize = writers
                .into_iter()
                .map(|writer| writer.join().unwrap())
                .sum();
            assert_eq!(appended as u64, end);
        });
        assert_eq!(read_all(&log).len() as u64, log.end());
    }
}
