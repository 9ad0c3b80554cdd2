//! What do batches of ten buy over one message at a time?

use criterion::Criterion;

use crate::compare::compare;

pub(crate) fn ask(criterion: &mut Criterion) {
    let channels = [
        "sim-queue",
        "tokio-mpsc-single",
        "tokio-mpsc",
        "kanal-single",
        "kanal",
        "fibre",
    ];
    compare(
        criterion,
        "batches",
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
        criterion,
        "batches",
        "core",
        "threads-mpmc-4x4-bounded-batch10",
        &rings,
    );
    compare(
        criterion,
        "batches",
        "core",
        "threads-spsc-bounded-batch10",
        &rings,
    );
}
