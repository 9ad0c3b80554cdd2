//! What the types promise: `Send`, `Sync`, `Unpin`, values that are not `Clone`, futures that move.

use sim_stream::{
    Builder, Cursor, CursorStream, IteratorToken, PartitionKey, Placed, PutError, Read, Reader,
    ReaderStream, Record, RecordRef, Records, RecordsPage, StartingPosition, Stats, Stream,
    StreamConfig, StreamRecord,
};

use crate::rig::{FIRST, block_on, key, oldest, secs, small, stream_of};

/// A value that can be neither cloned nor printed nor defaulted.
struct Bare(u32);

fn is_send<T: Send>() {}
fn is_sync<T: Sync>() {}
fn is_unpin<T: Unpin>() {}
fn is_static<T: 'static>() {}
fn sends<T: Send>(value: T) -> T {
    value
}

fn bare(value: u32) -> Record<Bare> {
    Record::new(key("k"), Bare(value))
}

#[test]
fn handles_cursors_and_records_go_between_threads() {
    is_send::<Stream<Bare>>();
    is_sync::<Stream<Bare>>();
    is_send::<Builder<Bare>>();
    is_send::<Cursor<Bare>>();
    is_sync::<Cursor<Bare>>();
    is_send::<CursorStream<Bare>>();
    is_send::<Reader<Bare>>();
    is_sync::<Reader<Bare>>();
    is_send::<ReaderStream<Bare>>();
    is_send::<Records<Bare>>();
    is_sync::<Records<Bare>>();
    is_send::<RecordsPage<Bare>>();
    is_send::<RecordRef<'_, Bare>>();
    is_send::<StreamRecord<Bare>>();
    is_sync::<StreamRecord<Bare>>();
    is_static::<StreamRecord<Bare>>();
    is_send::<Record<Bare>>();
    is_send::<PutError<Bare>>();
    is_send::<IteratorToken>();
    is_send::<Stats>();
    let (stream, _) = stream_of::<Bare>(small(1));
    stream.try_put(bare(7)).unwrap();
    let records = oldest(&stream, FIRST).try_read(Read::default()).unwrap();
    drop(stream);
    let value = std::thread::scope(|scope| {
        let thread = scope.spawn(move || records.get(0).unwrap().value().0);
        thread.join().expect("no panic")
    });
    assert_eq!(value, 7);
}

#[test]
fn nothing_that_is_held_needs_pinning() {
    is_unpin::<Stream<Bare>>();
    is_unpin::<Cursor<Bare>>();
    is_unpin::<CursorStream<Bare>>();
    is_unpin::<Reader<Bare>>();
    is_unpin::<ReaderStream<Bare>>();
    is_unpin::<Records<Bare>>();
    is_unpin::<StreamRecord<Bare>>();
}

#[test]
fn every_future_goes_between_threads() {
    let (stream, hand) = stream_of::<Bare>(small(1));
    let soon = hand.now() + secs(1);
    assert!(block_on(sends(stream.put(bare(1)))).is_ok());
    assert!(block_on(sends(stream.put_until(bare(2), soon))).is_ok());
    assert!(block_on(sends(stream.put_batch([bare(3)]))).is_ok());
    let mut cursor = oldest(&stream, FIRST);
    assert!(block_on(sends(cursor.read(Read::at_most(1)))).is_ok());
    assert!(block_on(sends(cursor.read_until(Read::at_most(1), soon))).is_ok());
    let mut reader = stream.reader(StartingPosition::TrimHorizon).unwrap();
    assert!(block_on(sends(reader.read(Read::at_most(1)))).is_ok());
    assert!(block_on(sends(reader.read_until(Read::at_most(1), soon))).is_ok());
}

#[test]
fn a_value_comes_back_as_it_was() {
    let (stream, _) = stream_of::<Box<Bare>>(small(1));
    stream.close();
    let value = Box::new(Bare(7));
    let address: *const Bare = &*value;
    let error = stream.try_put(Record::new(key("k"), value)).unwrap_err();
    assert!(std::ptr::eq(address, &*error.into_value()));
}

#[test]
fn handles_are_the_same_stream_and_cheap() {
    let (stream, _) = stream_of::<Bare>(small(1));
    let other = stream.clone();
    other.try_put(bare(7)).unwrap();
    assert_eq!(stream.stats().records, 1);
    assert_eq!(size_of::<Stream<[u8; 4096]>>(), size_of::<usize>());
    assert!(size_of::<StreamRecord<[u8; 4096]>>() <= 32);
    assert!(size_of::<Records<[u8; 4096]>>() <= 128);
    assert!(size_of::<Placed>() <= 32);
    assert!(size_of::<PartitionKey>() <= 24);
}

#[test]
fn the_debug_forms_say_what_they_are() {
    let (stream, _) = stream_of::<u32>(StreamConfig::new("orders"));
    stream
        .try_put(Record::new(key("k"), 7).data("body"))
        .unwrap();
    assert!(format!("{stream:?}").contains("orders"));
    let mut cursor = oldest(&stream, FIRST);
    assert!(format!("{cursor:?}").contains("Cursor"));
    let records = cursor.try_read(Read::default()).unwrap();
    assert!(format!("{records:?}").contains("len: 1"));
    assert!(format!("{:?}", records.get(0).unwrap()).contains('7'));
    assert!(format!("{:?}", records.to_owned_at(0).unwrap()).contains('7'));
    assert!(format!("{:?}", stream.reader(StartingPosition::Latest)).contains("Reader"));
}
