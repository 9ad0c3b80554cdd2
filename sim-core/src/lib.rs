//! The ground that the sim crates stand on.
//!
//! Reading order: [`sync`] (std or loom), [`ring`], [`slab`], [`deadline`], [`wheel`], [`event`], [`wait`],
//! [`clock`], and the values that crates share.

pub mod sync;

pub mod ring;
pub mod slab;

pub mod deadline;
pub mod wheel;

pub mod event;
pub mod wait;

pub mod clock;
pub mod time;

pub mod attributes;
pub mod counter;
pub mod id;
pub mod payload;
pub mod random;
pub mod rate;
pub mod seam;
