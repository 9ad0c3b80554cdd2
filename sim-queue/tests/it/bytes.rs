//! Queues of bytes: their size, and their content as a de-duplication id.

use sha2::{Digest, Sha256};
use sim_core::attributes::Attributes;
use sim_core::clock::Clock;
use sim_core::payload::Payload;
use sim_queue::{
    ConfigError, Deduplication, FifoConfig, Kind, Limits, Message, Queue, QueueConfig, Refusal,
};

use crate::rig::{START, dedup, group, reconcile};

fn limited(bytes: usize) -> Limits {
    Limits {
        message_bytes: Some(bytes),
        ..Limits::default()
    }
}

fn bytes(config: QueueConfig) -> Queue<Payload> {
    Queue::bytes(config, Clock::virtual_at(START).0).unwrap()
}

fn by_content() -> Queue<Payload> {
    let fifo = FifoConfig {
        deduplication: Deduplication::ByContent,
        ..FifoConfig::default()
    };
    bytes(QueueConfig {
        kind: Kind::Fifo(fifo),
        ..QueueConfig::new("q.fifo")
    })
}

fn body(text: &'static str) -> Message<Payload> {
    Message::new(Payload::from(text)).group(group("a"))
}

#[test]
fn bytes_arrive_as_they_were_sent() {
    let queue = bytes(QueueConfig::new("q"));
    queue.try_send(Payload::from("departed")).unwrap();
    queue
        .try_send(Payload::from(vec![0, 159, 146, 150]))
        .unwrap();
    let text = queue.try_receive().unwrap();
    assert_eq!(text.as_str(), Ok("departed"));
    assert_eq!(
        text.acknowledge().unwrap().unwrap(),
        Payload::from("departed")
    );
    let raw = queue.try_receive().unwrap();
    assert_eq!(&raw[..], [0, 159, 146, 150]);
}

#[test]
fn a_message_as_large_as_the_limit_is_taken_and_one_byte_more_is_not() {
    let queue = bytes(QueueConfig {
        limits: limited(8),
        ..QueueConfig::new("q")
    });
    queue.try_send(Payload::from("12345678")).unwrap();
    let error = queue.try_send(Payload::from("123456789")).unwrap_err();
    assert_eq!(error.reason, Refusal::TooLarge { bytes: 9, limit: 8 });
    assert_eq!(error.into_value(), Payload::from("123456789"));
    assert_eq!(queue.stats().sent, 1);
}

#[test]
fn the_limit_of_aws_is_a_mebibyte() {
    let queue = bytes(QueueConfig::aws("q", Kind::Standard));
    queue
        .try_send(Payload::from(vec![b'x'; 1_048_576]))
        .unwrap();
    let error = queue
        .try_send(Payload::from(vec![b'x'; 1_048_577]))
        .unwrap_err();
    assert_eq!(
        error.reason,
        Refusal::TooLarge {
            bytes: 1_048_577,
            limit: 1_048_576
        }
    );
}

#[test]
fn attributes_count_towards_the_size() {
    let queue = bytes(QueueConfig {
        limits: limited(30),
        ..QueueConfig::new("q")
    });
    let mut attributes = Attributes::new();
    attributes.insert("name", "value").unwrap();
    let size = attributes.size();
    assert!(size >= "name".len() + "value".len());
    let fits = Payload::from(vec![b'x'; 30 - size]);
    let more = Payload::from(vec![b'x'; 31 - size]);
    queue
        .try_send(Message::new(fits).attributes(attributes.clone()))
        .unwrap();
    let error = queue
        .try_send(Message::new(more).attributes(attributes))
        .unwrap_err();
    assert_eq!(
        error.reason,
        Refusal::TooLarge {
            bytes: 31,
            limit: 30
        }
    );
}

#[test]
fn a_batch_counts_all_its_bytes() {
    let queue = bytes(QueueConfig {
        limits: limited(8),
        ..QueueConfig::new("q")
    });
    let results = queue.try_send_batch([Payload::from("1234"), Payload::from("12345")]);
    for result in results {
        assert_eq!(
            result.unwrap_err().reason,
            Refusal::TooLarge { bytes: 9, limit: 8 }
        );
    }
    assert_eq!(queue.stats().sent, 0);
    assert!(
        queue
            .try_send_batch([Payload::from("1234"), Payload::from("1234")])
            .iter()
            .all(Result::is_ok)
    );
}

#[test]
fn values_in_bulk_are_measured_too() {
    let queue = bytes(QueueConfig {
        limits: limited(4),
        ..QueueConfig::new("q")
    });
    let mut values = vec![
        Payload::from("1234"),
        Payload::from("12345"),
        Payload::from("1"),
    ];
    assert_eq!(queue.try_send_values(&mut values), Ok(1));
    assert_eq!(values, [Payload::from("12345"), Payload::from("1")]);
    assert_eq!(
        queue.try_send_values(&mut values),
        Err(Refusal::TooLarge { bytes: 5, limit: 4 })
    );
    assert_eq!(values.len(), 2);
}

#[test]
fn the_same_bytes_are_the_same_message_within_the_window() {
    let queue = by_content();
    let first = queue.try_send(body("order 7")).unwrap();
    let again = queue.try_send(body("order 7")).unwrap();
    assert_eq!(
        (again.duplicate, again.id, again.sequence),
        (true, first.id, first.sequence)
    );
    assert!(!queue.try_send(body("order 8")).unwrap().duplicate);
    assert_eq!(queue.stats().deduplicated, 1);
    reconcile(&queue);
}

#[test]
fn the_content_is_the_body_without_the_attributes() {
    let queue = by_content();
    queue.try_send(body("order 7")).unwrap();
    let mut attributes = Attributes::new();
    attributes.insert("retry", 1).unwrap();
    assert!(
        queue
            .try_send(body("order 7").attributes(attributes))
            .unwrap()
            .duplicate
    );
}

#[test]
fn an_id_that_is_given_goes_before_the_content() {
    let queue = by_content();
    queue
        .try_send(body("order 7").deduplication_id(dedup("1")))
        .unwrap();
    assert!(
        !queue
            .try_send(body("order 7").deduplication_id(dedup("2")))
            .unwrap()
            .duplicate
    );
    assert!(
        queue
            .try_send(body("order 8").deduplication_id(dedup("1")))
            .unwrap()
            .duplicate
    );
}

#[test]
fn an_id_that_spells_a_hash_is_not_taken_for_the_content() {
    let queue = by_content();
    let hash: String = Sha256::digest(b"order 7")
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    queue.try_send(body("order 7")).unwrap();
    assert!(
        !queue
            .try_send(body("order 7").deduplication_id(dedup(&hash)))
            .unwrap()
            .duplicate
    );
}

#[test]
fn empty_bytes_are_a_message() {
    let queue = by_content();
    queue.try_send(body("")).unwrap();
    assert!(queue.try_send(body("")).unwrap().duplicate);
    assert_eq!(queue.try_receive().unwrap().size(), 0);
}

#[test]
fn a_limit_on_bytes_needs_to_know_the_size() {
    let config = QueueConfig {
        limits: limited(8),
        ..QueueConfig::new("q")
    };
    assert_eq!(
        Queue::<u32>::new(config.clone()).unwrap_err(),
        ConfigError::NoSize
    );
    let queue = Queue::<String>::builder(config)
        .size(String::len)
        .build()
        .unwrap();
    assert!(queue.try_send("12345678".to_owned()).is_ok());
    assert!(queue.try_send("123456789".to_owned()).is_err());
}
