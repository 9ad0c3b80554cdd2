//! What may stand behind a subscription: a sink, a handler, an endpoint. The topic knows none of them.

use std::fmt;

use sim_core::seam::{Handler, Refused, Sink};
use sim_core::sync::Arc;

use crate::error::DeliveryError;
use crate::message::{Delivery, Notification};
use crate::receiver::mailbox::Mailbox;

/// Who gets the messages of a subscription.
///
/// | made by | gets | when |
/// | --- | --- | --- |
/// | [`sink`](Self::sink) | notifications | in the publisher's call; it never waits |
/// | [`raw`](Self::raw), [`values`](Self::values) | what a closure makes of them | the same |
/// | [`handler`](Self::handler) | notifications, and works on them as a future | when somebody drives the topic: [`Topic::run`](crate::Topic::run) |
/// | [`endpoint`](Self::endpoint) | the same, after it has confirmed | the same |
///
/// A sink that refuses for want of room is tried again as the retry policy says, and one that is closed or
/// rejects the message is not; so it goes for the two kinds of [`DeliveryError`]. A sink or handler that
/// panics counts as a server error: the panic ends there.
pub struct Subscriber<T> {
    pub(crate) target: Target<T>,
}

/// A handler of notifications, as a trait object.
pub(crate) type Handle<I> = Arc<dyn Handler<I, Result<(), DeliveryError>>>;

pub(crate) enum Target<T> {
    Sink(Box<dyn Sink<Notification<T>>>),
    Raw(Box<dyn Raw<T>>),
    Handler(Handle<Notification<T>>),
    Endpoint(Handle<Delivery<T>>),
    /// A receiver with a filter.
    Mailbox(Arc<Mailbox<T>>),
}

/// A sink with a conversion in front of it, whatever the sink takes.
pub(crate) trait Raw<T>: Send + Sync {
    fn try_deliver(&self, notification: &Notification<T>) -> Result<(), Refused<()>>;
}

struct Converted<S, F> {
    sink: S,
    convert: F,
}

/// The sink takes `M`, which stands nowhere in the trait.
struct Typed<S, F, M> {
    inner: Converted<S, F>,
    item: std::marker::PhantomData<fn() -> M>,
}

impl<T, M, S, F> Raw<T> for Typed<S, F, M>
where
    S: Sink<M>,
    F: Fn(&Notification<T>) -> M + Send + Sync,
{
    fn try_deliver(&self, notification: &Notification<T>) -> Result<(), Refused<()>> {
        let item = (self.inner.convert)(notification);
        self.inner
            .sink
            .try_deliver(item)
            .map_err(|refused| refused.map(drop))
    }
}

impl<T: Send + Sync + 'static> Subscriber<T> {
    /// A sink that takes whole notifications: a queue, a stream, a channel's adaptor.
    #[must_use]
    pub fn sink(sink: impl Sink<Notification<T>> + 'static) -> Self {
        Self {
            target: Target::Sink(Box::new(sink)),
        }
    }

    /// A sink that takes something else, and what makes that out of a notification: raw delivery.
    #[must_use]
    pub fn raw<M: 'static>(
        sink: impl Sink<M> + 'static,
        convert: impl Fn(&Notification<T>) -> M + Send + Sync + 'static,
    ) -> Self {
        Self {
            target: Target::Raw(Box::new(Typed {
                inner: Converted { sink, convert },
                item: std::marker::PhantomData,
            })),
        }
    }

    /// A sink that takes clones of the values; cheap for [`Payload`](sim_core::payload::Payload) and for `Arc`s.
    #[must_use]
    pub fn values(sink: impl Sink<T> + 'static) -> Self
    where
        T: Clone,
    {
        Self::raw(sink, |notification| notification.value().clone())
    }

    /// A handler: any `Fn(Notification<T>) -> Future`, or what else implements the trait.
    #[must_use]
    pub fn handler(
        handler: impl Handler<Notification<T>, Result<(), DeliveryError>> + 'static,
    ) -> Self {
        Self {
            target: Target::Handler(Arc::new(handler)),
        }
    }

    /// A handler that must confirm: it is sent a [`Delivery::Confirmation`] first, and messages only after
    /// [`Topic::confirm`](crate::Topic::confirm) was called with the token in it.
    #[must_use]
    pub fn endpoint(
        handler: impl Handler<Delivery<T>, Result<(), DeliveryError>> + 'static,
    ) -> Self {
        Self {
            target: Target::Endpoint(Arc::new(handler)),
        }
    }
}

impl<T> fmt::Debug for Subscriber<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.target {
            Target::Sink(_) => "sink",
            Target::Raw(_) => "raw sink",
            Target::Handler(_) => "handler",
            Target::Endpoint(_) => "endpoint",
            Target::Mailbox(_) => "mailbox",
        };
        f.debug_tuple("Subscriber").field(&kind).finish()
    }
}
