//! The proxy on real sockets of the loopback.

mod forwarding;
mod passing;
mod reloading;
mod rig;
mod routing;
mod statuses;
mod streaming;
