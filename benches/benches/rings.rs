//! Which ring moves a word between threads fastest, alone and under contention?

mod compare;

use compare::compare;
use criterion::Criterion;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
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
        compare(&mut criterion, "core", pattern, &peers);
    }
    criterion.final_summary();
}
