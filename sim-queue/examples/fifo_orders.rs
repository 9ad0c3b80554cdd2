//! Orders of many customers: each customer's in order, all customers in parallel, none twice.
//!
//! Run with `cargo run -p sim-queue --example fifo_orders`.

use std::collections::BTreeMap;
use std::sync::Mutex;

use sim_queue::{Close, DeduplicationId, GroupId, Message, Queue, QueueConfig};

#[derive(Clone, Copy)]
enum Step {
    Place { cents: i64 },
    Discount { cents: i64 },
    Cancel,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let queue: Queue<Step> = Queue::new(QueueConfig::fifo("orders.fifo"))?;

    let steps = [
        Step::Place { cents: 1000 },
        Step::Discount { cents: 200 },
        Step::Cancel,
    ];
    let mut duplicates = 0;
    for customer in 0..100 {
        for (n, step) in steps.into_iter().enumerate() {
            // Every tenth customer does not cancel.
            if matches!(step, Step::Cancel) && customer % 10 != 0 {
                continue;
            }
            let group = GroupId::new(format!("customer-{customer}"))?;
            let id = DeduplicationId::new(format!("{customer}/{n}"))?;
            // The network stammers: everything is sent twice, and taken once.
            for _ in 0..2 {
                let message = Message::new(step)
                    .group(group.clone())
                    .deduplication_id(id.clone());
                duplicates += u32::from(queue.try_send(message)?.duplicate);
            }
        }
    }
    queue.close(Close::Drain);

    let accounts: Mutex<BTreeMap<String, i64>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Ok(order) = queue.receive_blocking() {
                    let Some(customer) = order.group() else {
                        continue;
                    };
                    let mut accounts = accounts
                        .lock()
                        .unwrap_or_else(|poisoned| poisoned.into_inner());
                    let account = accounts.entry(customer.to_string()).or_default();
                    // No other worker has a step of this customer now, and none is out of order.
                    match *order {
                        Step::Place { cents } => *account = cents,
                        Step::Discount { cents } => *account -= cents,
                        Step::Cancel => *account = 0,
                    }
                    drop(accounts);
                    let _ = order.acknowledge();
                }
            });
        }
    });

    let accounts = accounts.into_inner()?;
    let total: i64 = accounts.values().sum();
    println!(
        "{} customers owe {total} cents; {duplicates} repeated sends were dropped",
        accounts.len()
    );
    assert_eq!((accounts.len(), total), (100, 90 * 800));
    assert_eq!(duplicates, 210);
    assert_eq!(queue.stats().deleted, 210);
    Ok(())
}
