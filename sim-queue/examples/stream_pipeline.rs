//! Two queues as streams and sinks: readings are received, averaged in windows, and sent on.
//!
//! Run with `cargo run -p sim-queue --example stream_pipeline`.

use futures_util::{SinkExt, StreamExt};
use sim_queue::{Close, Delivery, Message, Queue, QueueConfig};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let readings = Queue::new(QueueConfig {
        capacity: Some(32),
        ..QueueConfig::new("readings")
    })?;
    let averages = Queue::new(QueueConfig {
        capacity: Some(4),
        ..QueueConfig::new("averages")
    })?;

    let from = readings.clone();
    let to = averages.clone();
    let stage = tokio::spawn(async move {
        let mut windows = from.stream().ready_chunks(10);
        let mut sink = to.sink();
        while let Some(window) = windows.next().await {
            let window: Vec<Delivery<f64>> = window.into_iter().filter_map(Result::ok).collect();
            let sum: f64 = window.iter().map(|reading| **reading).sum();
            sink.send(Message::new((window.len(), sum))).await?;
            // Only now: had this stage failed, its readings would be delivered again.
            Queue::acknowledge_batch(window);
        }
        to.close(Close::Drain);
        Ok::<(), sim_queue::SendError<(usize, f64)>>(())
    });

    let producer = readings.clone();
    let source = tokio::spawn(async move {
        let numbers = futures_util::stream::iter(1..=1000).map(|n| Ok(Message::new(f64::from(n))));
        let outcome = numbers.forward(producer.sink()).await;
        producer.close(Close::Drain);
        outcome
    });

    let (mut count, mut total, mut windows) = (0, 0.0, 0);
    let mut results = averages.stream();
    while let Some(result) = results.next().await {
        let result = result?;
        count += result.0;
        total += result.1;
        windows += 1;
        result.acknowledge()?;
    }
    source.await??;
    stage.await??;

    println!(
        "{count} readings in {windows} windows, {} on average",
        total / 1000.0
    );
    assert_eq!((count, total), (1000, 500_500.0));
    assert!(windows >= 100);
    assert_eq!(
        (readings.stats().deleted, averages.stats().in_flight),
        (1000, 0)
    );
    Ok(())
}
