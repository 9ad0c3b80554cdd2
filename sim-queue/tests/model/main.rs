//! The concurrent queue against the pure machine: the same history for both, compared step by step.
//!
//! `pair` drives both · `history` makes random histories · `standard`, `scheduled` one thread and a virtual
//! clock · `threads` several threads at one instant, replayed into the machine message by message · `found` what they
//! found, case by case.
#![expect(clippy::unwrap_used, reason = "a test fails by its panic")]

mod found;
mod history;
mod pair;
mod scheduled;
mod standard;
mod threads;
mod token;
