//! A topic from the outside, a file for each of its sides.

mod rig;

mod standard;
