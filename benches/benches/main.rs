//! The questions that criterion answers, a file each, in one binary: linking it takes longer than asking.
//!
//! `cargo bench -p benches -- channels` asks for a part by its name.

#![deny(unsafe_code)]

use criterion::Criterion;

mod compare;

mod batches;
mod channels;
#[cfg(feature = "queue")]
mod groups;
mod rings;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    rings::ask(&mut criterion);
    channels::ask(&mut criterion);
    batches::ask(&mut criterion);
    #[cfg(feature = "queue")]
    groups::ask(&mut criterion);
    criterion.final_summary();
}
