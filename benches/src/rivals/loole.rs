//! loole: a mutex around two queues of messages and waiters.

use loole::{Receiver, Sender};

use crate::pattern::{Bound, CAPACITY, Peer, Shape, share};
use crate::payload::Payload;

awaited!(Sender<T>, send_async; Receiver<T>, recv_async);
blocking!(Sender<T>, send; Receiver<T>, recv);

fn open<T>(shape: Shape, bound: Bound) -> (Vec<Sender<T>>, Vec<Receiver<T>>) {
    let (sender, receiver) = match bound {
        Bound::Bounded => loole::bounded(CAPACITY),
        Bound::Unbounded => loole::unbounded(),
    };
    share(shape, sender, receiver)
}

pub(super) fn tasks<T: Payload>(shape: Shape, bound: Bound) -> Option<Peer> {
    super::task_peer!("loole", shape, open::<T>(shape, bound))
}

pub(super) fn threads<T: Payload>(shape: Shape, bound: Bound) -> Option<Peer> {
    super::thread_peer!("loole", shape, open::<T>(shape, bound))
}
