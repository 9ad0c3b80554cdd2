//! The queue as a `futures` stream of deliveries and as a sink of messages.

use futures_util::{SinkExt, StreamExt};
use sim_queue::{Close, Message, QueueConfig, ReceiveError, Refusal};

use crate::rig::{Task, abandon, block_on, drain, of, queue, reconcile, secs};

#[test]
fn a_stream_yields_every_message_and_ends_with_the_queue() {
    for config in [
        QueueConfig::new("q"),
        QueueConfig::fair("q"),
        QueueConfig::fifo("q"),
    ] {
        let is_standard = config.kind == sim_queue::Kind::Standard;
        let (queue, _) = queue(config);
        for n in 0..10 {
            queue
                .try_send(if is_standard {
                    Message::new(n)
                } else {
                    of("g", n)
                })
                .unwrap();
        }
        queue.close(Close::Drain);
        let got: Vec<_> = block_on(
            queue
                .stream()
                .map(|delivery| delivery.unwrap().acknowledge().unwrap().unwrap())
                .collect(),
        );
        assert_eq!(got, (0..10).collect::<Vec<_>>());
    }
}

#[test]
fn a_stream_that_ended_stays_ended() {
    let (queue, _) = queue(QueueConfig::new("q"));
    let mut stream = queue.stream();
    queue.close(Close::Drain);
    assert!(block_on(stream.next()).is_none());
    assert!(block_on(stream.next()).is_none());
}

#[test]
fn a_stream_waits_for_messages_and_redeliveries() {
    let (queue, hand) = queue(QueueConfig::new("q"));
    let mut stream = queue.stream();
    let mut next = Task::waiting(stream.next());
    queue.try_send(7).unwrap();
    abandon(next.run().unwrap().unwrap().unwrap());
    drop(next);
    let mut next = Task::waiting(stream.next());
    hand.advance(secs(30));
    assert_eq!(next.run().unwrap().unwrap().unwrap().receive_count(), 2);
}

#[test]
fn a_stream_yields_the_cap_as_an_error_and_goes_on() {
    let (queue, _) = queue(QueueConfig {
        max_in_flight: 1,
        ..QueueConfig::new("q")
    });
    queue.try_send(1).unwrap();
    queue.try_send(2).unwrap();
    let mut stream = queue.stream();
    let first = block_on(stream.next()).unwrap().unwrap();
    let over = block_on(stream.next()).unwrap().unwrap_err();
    assert_eq!(over, ReceiveError::OverLimit { limit: 1 });
    first.acknowledge().unwrap();
    assert_eq!(*block_on(stream.next()).unwrap().unwrap(), 2);
}

#[test]
fn a_dropped_stream_passes_its_message_on() {
    let (queue, _) = queue(QueueConfig::new("q"));
    let mut stream = queue.stream();
    let next = Task::waiting(stream.next());
    let mut other = Task::waiting(queue.receive());
    queue.try_send(7).unwrap();
    assert!(next.is_woken());
    drop(next);
    drop(stream);
    assert_eq!(*other.run().unwrap().unwrap(), 7);
}

#[test]
fn streams_share_the_messages() {
    let (queue, _) = queue(QueueConfig::new("q"));
    for n in 0..10 {
        queue.try_send(n).unwrap();
    }
    let (mut one, mut two) = (queue.stream(), queue.stream());
    let mut got = Vec::new();
    for _ in 0..5 {
        for stream in [&mut one, &mut two] {
            got.extend(
                block_on(stream.next())
                    .unwrap()
                    .unwrap()
                    .acknowledge()
                    .unwrap(),
            );
        }
    }
    assert_eq!(got, (0..10).collect::<Vec<_>>());
}

#[test]
fn a_sink_sends_in_order_and_waits_for_room() {
    let (queue, _) = queue(QueueConfig {
        capacity: Some(2),
        ..QueueConfig::new("q")
    });
    let mut sink = queue.sink();
    let mut messages = futures_util::stream::iter((0..6).map(Message::new).map(Ok));
    let mut sending = Task::waiting(sink.send_all(&mut messages));
    let mut got = Vec::new();
    loop {
        got.extend(drain(&queue));
        if let Some(outcome) = sending.run() {
            outcome.unwrap();
            break;
        }
    }
    got.extend(drain(&queue));
    assert_eq!(got, [0, 1, 2, 3, 4, 5]);
    reconcile(&queue);
}

#[test]
fn a_sink_is_flushed_when_its_message_is_in_the_queue() {
    let (queue, _) = queue(QueueConfig {
        capacity: Some(1),
        ..QueueConfig::new("q")
    });
    let mut sink = queue.sink();
    block_on(sink.send(Message::new(1))).unwrap();
    block_on(sink.feed(Message::new(2))).unwrap();
    assert_eq!(queue.stats().sent, 1);
    let mut flush = Task::waiting(sink.flush());
    assert_eq!(drain(&queue), [1]);
    flush.run().unwrap().unwrap();
    assert_eq!(drain(&queue), [2]);
}

#[test]
fn closing_a_sink_flushes_it_and_leaves_the_queue_open() {
    let (queue, _) = queue(QueueConfig::new("q"));
    let mut sink = queue.sink();
    block_on(sink.feed(Message::new(1))).unwrap();
    block_on(sink.close()).unwrap();
    assert!(!queue.is_closed());
    assert_eq!(drain(&queue), [1]);
}

#[test]
fn a_sink_reports_what_waiting_does_not_cure() {
    let (queue, _) = queue(QueueConfig::new("q"));
    let mut sink = queue.sink();
    let error = block_on(sink.send(of("g", 1))).unwrap_err();
    assert_eq!(error.refusal(), Some(&Refusal::UnexpectedGroup));
    assert_eq!(error.into_message().value, 1);
    block_on(sink.send(Message::new(2))).unwrap();
    assert_eq!(drain(&queue), [2]);
}

#[test]
fn a_sink_gives_its_message_back_when_the_queue_is_closed_meanwhile() {
    let (queue, _) = queue(QueueConfig {
        capacity: Some(1),
        ..QueueConfig::new("q")
    });
    queue.try_send(1).unwrap();
    let mut sink = queue.sink();
    let mut sending = Task::waiting(sink.send(Message::new(2)));
    queue.close(Close::Drain);
    let error = sending.run().unwrap().unwrap_err();
    assert_eq!(error.refusal(), Some(&Refusal::Closed));
    assert_eq!(error.into_message().value, 2);
}

#[test]
fn a_stream_pours_into_a_sink() {
    let (from, _) = queue(QueueConfig::new("from"));
    let (to, _) = queue(QueueConfig::new("to"));
    for n in 0..100 {
        from.try_send(n).unwrap();
    }
    from.close(Close::Drain);
    let doubled = from.stream().map(|delivery| {
        let value = delivery.unwrap().acknowledge().unwrap().unwrap();
        Ok(Message::new(value * 2))
    });
    block_on(doubled.forward(to.sink())).unwrap();
    assert_eq!(drain(&to), (0..100).map(|n| n * 2).collect::<Vec<_>>());
}
