//! Which ring moves a word between threads fastest, alone and under contention?

use criterion::Criterion;

use crate::compare::compare;

pub(crate) fn ask(criterion: &mut Criterion) {
    let peers = [
        "sim-ring",
        "crossbeam-array-queue",
        "crossbeam-seg-queue",
        "concurrent-queue",
        "thingbuf",
        "nexus-queue",
        "rtrb",
        "mutex-vecdeque",
    ];
    for pattern in [
        "threads-seq-bounded",
        "threads-spsc-bounded",
        "threads-mpmc-4x4-bounded",
        "threads-mpmc-4x4-unbounded",
    ] {
        compare(criterion, "rings", "core", pattern, &peers);
    }
}
