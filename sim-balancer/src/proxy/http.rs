//! The path of a request: from a client's connection through hyper to a target and back.
//!
//! A worker is one thread with one runtime; a client's connection lives on one worker, and so do the connections to targets
//! that its requests use. A request over HTTP/1.1 runs inside of the task of its client's connection, and polls its
//! connection to the target itself (`Link`): no other task is woken for it, no other thread touched. Headers are
//! moved, not copied; a body that has come whole leaves with its head in one write.
//!
//! | who ends it | status |
//! | --- | --- |
//! | the client sent what is not HTTP, no `Host`, or what the desync mitigation refuses | 400 |
//! | `TRACE` | 405 |
//! | the client's head or body did not come in time | 408 |
//! | the body is longer than allowed | 413 |
//! | the request's target is longer than 16 KiB | 414 |
//! | the fields are longer than allowed | 431 |
//! | the client left before the response (logged, not sent) | 460 |
//! | more than 30 addresses in `X-Forwarded-For` | 463 |
//! | the client's protocol cannot be said to the targets | 464 |
//! | the target refused the connection, closed it, or sent what is not HTTP | 502 |
//! | no target | 503 |
//! | the target did not take the connection or did not answer in time | 504 |
//! | an identity provider failed | 561 |

pub(crate) mod body;
pub(crate) mod desync;
pub(crate) mod exchange;
pub(crate) mod field;
pub(crate) mod forward;
pub(crate) mod group;
pub(crate) mod late;
pub(crate) mod link;
pub(crate) mod metric;
pub(crate) mod mirror;
pub(crate) mod passage;
pub(crate) mod retry;
pub(crate) mod serve;
pub(crate) mod settings;
pub(crate) mod site;
pub(crate) mod upgrade;
pub(crate) mod wire;

pub use body::{Body, BodyError};
pub use desync::{Class, Doubt, Finding};
pub use group::{Address, Endpoint, Function};
pub use metric::{HttpStats, TIMING_BUCKETS, Timing};
