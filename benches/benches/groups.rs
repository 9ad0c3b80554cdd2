//! What does order within a thousand groups cost a queue?

mod compare;

use compare::compare;
use criterion::Criterion;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let peers = ["sim-queue", "sim-queue-fifo-1000", "tokio-mpsc"];
    for pattern in ["async-mpmc-4x4-bounded", "async-mpmc-4x4-unbounded"] {
        compare(&mut criterion, "queue", pattern, &peers);
    }
    criterion.final_summary();
}
