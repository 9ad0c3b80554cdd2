//! What does a message cost from sender to receiver, among four of each on two workers?

use criterion::Criterion;

use crate::compare::compare;

pub(crate) fn ask(criterion: &mut Criterion) {
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
        compare(criterion, "channels", "queue", pattern, &peers);
    }
}
