//! A pool of workers on a queue: leases, a worker that dies, back-pressure, an orderly end.
//!
//! Run with `cargo run -p sim-queue --example worker_pool`.

use std::time::Duration;

use sim_queue::{Close, Queue, QueueConfig};

/// A thumbnail to make; neither cloned nor serialized on its way.
struct Job {
    picture: u32,
    pixels: Vec<u8>,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let queue: Queue<Job> = Queue::new(QueueConfig {
        // Whoever takes longer has died, and another worker gets the job.
        visibility_timeout: Duration::from_millis(50),
        // The producer waits while 64 jobs do.
        capacity: Some(64),
        ..QueueConfig::new("thumbnails")
    })?;

    let workers: Vec<_> = (0..4)
        .map(|worker| {
            let queue = queue.clone();
            tokio::spawn(async move {
                let (mut done, mut sum) = (0_u32, 0_u64);
                // Ends when the queue is closed and nothing is left in it.
                while let Ok(job) = queue.receive().await {
                    if worker == 0 && job.picture % 100 == 7 && job.receive_count() == 1 {
                        // This worker hangs: its lease runs out, and the job is delivered again.
                        let _receipt = job.into_receipt();
                        continue;
                    }
                    let brightness: u64 = job.pixels.iter().copied().map(u64::from).sum();
                    if job.acknowledge().is_ok() {
                        done += 1;
                        sum += brightness;
                    }
                }
                (done, sum)
            })
        })
        .collect();

    for picture in 0..1000 {
        queue
            .send(Job {
                picture,
                pixels: vec![1; 100],
            })
            .await?;
    }
    queue.close(Close::Drain);
    queue.drained().await;

    let (mut done, mut sum) = (0, 0);
    for worker in workers {
        let (jobs, brightness) = worker.await?;
        done += jobs;
        sum += brightness;
    }
    let stats = queue.stats();
    println!(
        "{done} pictures by four workers, {} delivered again",
        stats.lapsed
    );
    assert_eq!((done, sum), (1000, 100_000));
    assert_eq!((stats.deleted, stats.in_flight), (1000, 0));
    assert!(stats.received > 1000, "what hung was delivered again");
    Ok(())
}
