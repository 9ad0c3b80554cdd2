//! async-channel: concurrent-queue and event-listener.

use async_channel::{Receiver, Sender};

use crate::pattern::{Bound, CAPACITY, Peer, Shape, share};
use crate::payload::Payload;

awaited!(Sender<T>, send; Receiver<T>, recv);
blocking!(Sender<T>, send_blocking; Receiver<T>, recv_blocking);

fn open<T>(shape: Shape, bound: Bound) -> (Vec<Sender<T>>, Vec<Receiver<T>>) {
    let (sender, receiver) = match bound {
        Bound::Bounded => async_channel::bounded(CAPACITY),
        Bound::Unbounded => async_channel::unbounded(),
    };
    share(shape, sender, receiver)
}

pub(super) fn tasks<T: Payload>(shape: Shape, bound: Bound) -> Option<Peer> {
    super::task_peer!("async-channel", shape, open::<T>(shape, bound))
}

pub(super) fn threads<T: Payload>(shape: Shape, bound: Bound) -> Option<Peer> {
    super::thread_peer!("async-channel", shape, open::<T>(shape, bound))
}
