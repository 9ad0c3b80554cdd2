//! The proxy on real sockets of the loopback.

mod forwarding;
mod rig;
mod reloading;
mod statuses;
mod streaming;
