//! What fails three times is put aside with its reason, looked at, and moved back when the fault is mended.
//!
//! Run with `cargo run -p sim-queue --example dead_letters`.

use sim_queue::{DeadLetterPolicy, MoveStatus, MoveTask, Queue, QueueConfig};

/// Does an invoice, unless it is of a kind that the bookkeeping does not know yet.
fn book(invoice: u32, knows_refunds: bool) -> Result<(), &'static str> {
    if invoice.is_multiple_of(7) && !knows_refunds {
        Err("refunds are unknown")
    } else {
        Ok(())
    }
}

fn work(queue: &Queue<u32>, knows_refunds: bool) -> u32 {
    let mut booked = 0;
    while let Ok(invoice) = queue.try_receive() {
        match book(*invoice, knows_refunds) {
            Ok(()) => booked += u32::from(invoice.acknowledge().is_ok()),
            // Back to the queue, or to the dead letters after the third time.
            Err(_) => drop(invoice.release()),
        }
    }
    booked
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let invoices = Queue::new(QueueConfig::new("invoices"))?;
    let failed = Queue::new(QueueConfig::new("invoices-failed"))?;
    invoices.set_dead_letters(DeadLetterPolicy::to_queue(&failed, 3))?;

    for invoice in 1..=100 {
        invoices.try_send(invoice)?;
    }
    let first = work(&invoices, false);
    println!("booked {first}, failed {}", failed.stats().visible);
    assert_eq!((first, failed.stats().visible), (86, 14));

    // A letter says where it comes from and why.
    let letter = failed.try_receive()?;
    if let Some(origin) = letter.dead_letter() {
        println!(
            "invoice {}: {:?} after {} deliveries by {:?}",
            *letter,
            origin.reason(),
            origin.receive_count(),
            origin.source(),
        );
        assert_eq!((origin.receive_count(), origin.source()), (3, "invoices"));
    }
    letter.release()?;

    // The bookkeeping has learnt refunds: all of them go back to where they came from.
    let moved = failed.start_move(MoveTask::default())?.run_blocking();
    assert_eq!((moved.status, moved.moved), (MoveStatus::Completed, 14));
    let second = work(&invoices, true);
    println!("moved {} back, booked {second} more", moved.moved);
    assert_eq!((first + second, failed.stats().visible), (100, 0));
    Ok(())
}
