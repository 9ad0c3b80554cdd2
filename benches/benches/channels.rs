//! What does a message cost from sender to receiver, among four of each on two workers?

mod compare;

use compare::compare;
use criterion::Criterion;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let peers = [
        "sim-queue",
        "tokio-mpsc",
        "async-channel",
        "flume",
        "kanal",
        "crossfire",
    ];
    for pattern in [
        "async-mpmc-4x4-bounded",
        "async-mpmc-4x4-unbounded",
        "async-mpsc-4x1-bounded",
        "async-mpmc-4x4-bounded-bytes64",
    ] {
        compare(&mut criterion, "queue", pattern, &peers);
    }
    criterion.final_summary();
}
