//! [`Tunnel`]: a connection that left HTTP, as WebSocket does: bytes both ways until both sides are done.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::link::Link;
use super::passage::Passage;

/// The two ends of a connection that leaves HTTP.
pub(crate) struct Tunnel {
    pub(crate) client: OnUpgrade,
    pub(crate) target: OnUpgrade,
    pub(crate) link: Box<Link>,
    pub(crate) passage: Passage,
}

impl Tunnel {
    /// Carries bytes until both sides have closed or one broke. The task of the client's connection runs it, and ends it
    /// when nothing moves.
    pub(crate) async fn run(self) {
        let Self {
            client,
            target,
            mut link,
            mut passage,
        } = self;
        let mut target = target;
        let target = poll_fn(|cx| link.poll_with(cx, |cx| Pin::new(&mut target).poll(cx))).await;
        let (Ok(client), Ok(target)) = (client.await, target) else {
            passage.failed();
            return;
        };
        let (mut client, mut target) = (TokioIo::new(client), TokioIo::new(target));
        let mut copy = pin!(tokio::io::copy_bidirectional(&mut client, &mut target));
        match poll_fn(|cx| -> Poll<_> { copy.as_mut().poll(cx) }).await {
            Ok(_) => passage.target_done(),
            Err(_) => passage.failed(),
        }
    }
}
