//! The configuration of a balancer.
