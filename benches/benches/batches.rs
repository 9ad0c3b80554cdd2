//! What do batches of ten buy over one message at a time?

mod compare;

use compare::compare;
use criterion::Criterion;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let channels = [
        "sim-queue",
        "tokio-mpsc-single",
        "tokio-mpsc",
        "kanal-single",
        "kanal",
        "fibre",
    ];
    compare(
        &mut criterion,
        "queue",
        "async-mpmc-4x4-bounded-batch10",
        &channels,
    );
    let rings = [
        "sim-ring",
        "crossbeam-array-queue-single",
        "rtrb",
        "mutex-vecdeque",
    ];
    compare(
        &mut criterion,
        "core",
        "threads-mpmc-4x4-bounded-batch10",
        &rings,
    );
    compare(
        &mut criterion,
        "core",
        "threads-spsc-bounded-batch10",
        &rings,
    );
    criterion.final_summary();
}
