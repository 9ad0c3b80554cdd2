//! What does order within a thousand groups cost a queue?

use criterion::Criterion;

use crate::compare::compare;

pub(crate) fn ask(criterion: &mut Criterion) {
    let peers = ["sim-queue", "sim-queue-fifo-1000", "tokio-mpsc"];
    for pattern in ["async-mpmc-4x4-bounded", "async-mpmc-4x4-unbounded"] {
        compare(criterion, "groups", "queue", pattern, &peers);
    }
}
