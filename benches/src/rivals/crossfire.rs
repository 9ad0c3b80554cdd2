//! crossfire: crossbeam's queues with wakers, a flavour for each number of senders and receivers.

use crossfire::flavor::Flavor;
use crossfire::{
    AsyncRx, AsyncTx, MAsyncRx, MAsyncTx, MRx, MTx, Rx, Tx, detect_backoff_cfg, mpmc, mpsc, spsc,
};

use crate::pattern::{Bound, CAPACITY, Peer, Shape, fan_in, pair, share};
use crate::payload::Payload;
use crate::tasks::{TaskReceiver, TaskSender};
use crate::threads::{ThreadReceiver, ThreadSender};

macro_rules! sides {
    ($($async_tx:ident $async_rx:ident $tx:ident $rx:ident),*) => {$(
        impl<T: Payload, F: Flavor<Item = T>> TaskSender<T> for $async_tx<F> {
            async fn send(&mut self, message: T) {
                assert!(AsyncTx::send(self, message).await.is_ok(), "closed under a sender");
            }
        }
        impl<T: Payload, F: Flavor<Item = T>> TaskReceiver<T> for $async_rx<F> {
            async fn receive(&mut self) -> Option<T> {
                AsyncRx::recv(self).await.ok()
            }
        }
        impl<T: Payload, F: Flavor<Item = T>> ThreadSender<T> for $tx<F> {
            fn send(&mut self, message: T) {
                assert!(Tx::send(self, message).is_ok(), "closed under a sender");
            }
        }
        impl<T: Payload, F: Flavor<Item = T>> ThreadReceiver<T> for $rx<F> {
            fn receive(&mut self) -> Option<T> {
                Rx::recv(self).ok()
            }
        }
    )*};
}

sides!(AsyncTx AsyncRx Tx Rx, MAsyncTx MAsyncRx MTx MRx);

/// The sender of an unbounded channel, which never waits and so has no awaited form.
#[derive(Clone)]
struct Unbounded<S>(S);

impl<T: Payload, F: Flavor<Item = T>> TaskSender<T> for Unbounded<Tx<F>> {
    async fn send(&mut self, message: T) {
        assert!(self.0.send(message).is_ok(), "closed under a sender");
    }
}

impl<T: Payload, F: Flavor<Item = T>> TaskSender<T> for Unbounded<MTx<F>> {
    async fn send(&mut self, message: T) {
        assert!(Tx::send(&self.0, message).is_ok(), "closed under a sender");
    }
}

const NAME: &str = "crossfire";

pub(super) fn tasks<T: Payload>(shape: Shape, bound: Bound) -> Option<Peer> {
    // Its documentation asks for this call at the start of a program.
    detect_backoff_cfg();
    match (shape, bound) {
        (Shape::Seq | Shape::Spsc, Bound::Bounded) => super::task_peer!(NAME, shape, {
            let (sender, receiver) = spsc::bounded_async::<T>(CAPACITY);
            pair(shape, sender, receiver)
        }),
        (Shape::Seq | Shape::Spsc, Bound::Unbounded) => super::task_peer!(NAME, shape, {
            let (sender, receiver) = spsc::unbounded_async::<T>();
            pair(shape, Unbounded(sender), receiver)
        }),
        (Shape::Mpsc, Bound::Bounded) => super::task_peer!(NAME, shape, {
            let (sender, receiver) = mpsc::bounded_async::<T>(CAPACITY);
            fan_in(shape, sender, receiver)
        }),
        (Shape::Mpsc, Bound::Unbounded) => super::task_peer!(NAME, shape, {
            let (sender, receiver) = mpsc::unbounded_async::<T>();
            fan_in(shape, Unbounded(sender), receiver)
        }),
        (Shape::Spmc | Shape::Mpmc, Bound::Bounded) => super::task_peer!(NAME, shape, {
            let (sender, receiver) = mpmc::bounded_async::<T>(CAPACITY);
            share(shape, sender, receiver)
        }),
        (Shape::Spmc | Shape::Mpmc, Bound::Unbounded) => super::task_peer!(NAME, shape, {
            let (sender, receiver) = mpmc::unbounded_async::<T>();
            share(shape, Unbounded(sender), receiver)
        }),
    }
}

pub(super) fn threads<T: Payload>(shape: Shape, bound: Bound) -> Option<Peer> {
    detect_backoff_cfg();
    match (shape, bound) {
        (Shape::Seq | Shape::Spsc, Bound::Bounded) => super::thread_peer!(NAME, shape, {
            let (sender, receiver) = spsc::bounded_blocking::<T>(CAPACITY);
            pair(shape, sender, receiver)
        }),
        (Shape::Seq | Shape::Spsc, Bound::Unbounded) => super::thread_peer!(NAME, shape, {
            let (sender, receiver) = spsc::unbounded_blocking::<T>();
            pair(shape, sender, receiver)
        }),
        (Shape::Mpsc, Bound::Bounded) => super::thread_peer!(NAME, shape, {
            let (sender, receiver) = mpsc::bounded_blocking::<T>(CAPACITY);
            fan_in(shape, sender, receiver)
        }),
        (Shape::Mpsc, Bound::Unbounded) => super::thread_peer!(NAME, shape, {
            let (sender, receiver) = mpsc::unbounded_blocking::<T>();
            fan_in(shape, sender, receiver)
        }),
        (Shape::Spmc | Shape::Mpmc, Bound::Bounded) => super::thread_peer!(NAME, shape, {
            let (sender, receiver) = mpmc::bounded_blocking::<T>(CAPACITY);
            share(shape, sender, receiver)
        }),
        (Shape::Spmc | Shape::Mpmc, Bound::Unbounded) => super::thread_peer!(NAME, shape, {
            let (sender, receiver) = mpmc::unbounded_blocking::<T>();
            share(shape, sender, receiver)
        }),
    }
}
