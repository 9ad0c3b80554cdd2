//! Events of many accounts: each account's in order, read by two services at their own pace, and replayed by a third that
//! comes late.
//!
//! Run with `cargo run -p sim-stream --example ordered_replay`.

use std::collections::BTreeMap;
use std::thread;

use sim_stream::{PartitionKey, Read, ReadError, Record, StartingPosition, Stream, StreamConfig};

#[derive(Clone, Copy)]
enum Event {
    Opened,
    Deposited { cents: i64 },
    Withdrew { cents: i64 },
    Closed,
}

/// The balances of all accounts: a view that is built from the events alone.
fn balances(stream: &Stream<Event>) -> Result<BTreeMap<String, i64>, ReadError> {
    let mut reader = stream.reader(StartingPosition::TrimHorizon)?;
    let mut balances = BTreeMap::new();
    loop {
        let records = match reader.read_blocking(Read::default()) {
            Ok(records) => records,
            Err(ReadError::Closed) => return Ok(balances),
            Err(error) => return Err(error),
        };
        for record in &records {
            let account = record.partition_key();
            match record.value() {
                Event::Opened => {
                    let former = balances.insert(account.to_owned(), 0);
                    assert_eq!(former, None, "an account is opened once");
                }
                Event::Deposited { cents } => {
                    *balances.get_mut(account).expect("it was opened before") += cents;
                }
                Event::Withdrew { cents } => {
                    let balance = balances.get_mut(account).expect("it was opened before");
                    assert!(*balance >= *cents, "the deposits came before");
                    *balance -= cents;
                }
                Event::Closed => {
                    balances.remove(account);
                }
            }
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let stream: Stream<Event> = Stream::new(StreamConfig::new("accounts").shards(4))?;

    let live = thread::scope(|scope| {
        let readers = [0, 1].map(|_| scope.spawn(|| balances(&stream)));
        // Each account has one writer, which waits for nobody.
        for account in 0..200 {
            let key = PartitionKey::new(format!("account-{account}"))?;
            let put = |event| stream.try_put(Record::new(key.clone(), event));
            let opened = put(Event::Opened)?;
            let mut last = opened.sequence_number;
            for round in 1..=10 {
                put(Event::Deposited { cents: 300 })?;
                last = put(Event::Withdrew {
                    cents: 100 * (round % 3),
                })?
                .sequence_number;
            }
            assert!(last > opened.sequence_number);
            if account % 4 == 0 {
                put(Event::Closed)?;
            }
        }
        stream.close();
        let [one, two] = readers.map(|reader| reader.join().expect("no panic"));
        let (one, two) = (one?, two?);
        assert_eq!(one, two, "both have seen the same");
        Ok::<_, Box<dyn std::error::Error>>(one)
    })?;

    // A service that starts now builds the same view from the same records.
    let replayed = balances(&stream)?;
    assert_eq!(replayed, live);
    let total: i64 = replayed.values().sum();
    println!(
        "{} events: {} open accounts hold {total} cents, live and replayed",
        stream.stats().incoming_records,
        replayed.len(),
    );
    Ok(())
}
