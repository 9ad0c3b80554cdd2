//! Rivals side by side: rings and channels driven through the same patterns, round by round.
//!
//! A *rival* is a crate; a *peer* is one rival (or one of the sim crates) opened for one pattern; a *pattern* is a
//! traffic shape with a payload and a bound, such as `async-mpmc-4x4-bounded`. Each run checks the count and the
//! checksum of what was received, so that a peer that loses or doubles a message fails instead of looking fast.
//!
//! Reading order: [`pattern`], [`payload`], the three drivers ([`tasks`], [`threads`], [`rings`]), [`rivals`],
//! [`groups`], [`measure`], [`memory`], [`bars`], [`report`]. [`scaling`] and [`simulate`] stand apart: they race no
//! rivals, their time is virtual.

#![deny(unsafe_code)]

pub mod pattern;
pub mod payload;
pub mod timing;

pub mod rings;
pub mod tasks;
pub mod threads;

pub mod rivals;
pub mod sim_balancer_peer;
#[cfg(feature = "queue")]
pub mod sim_queue_peer;
pub mod sim_ring_peer;
pub mod sim_stream_peer;
pub mod sim_topic_peer;

pub mod bars;
pub mod fanout;
pub mod filters;
pub mod groups;
pub mod logs;
pub mod measure;
pub mod memory;
pub mod pauses;
pub mod picks;
pub mod proxies;
pub mod replay;
pub mod report;
pub mod scaling;
pub mod simulate;
pub mod tables;
