//! Bodies: of requests on their way to a target, of responses on their way to a client, and [`Body`], for functions.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use sim_core::sync::{Arc, Mutex};

use super::group::Held;
use super::link::Link;
use super::passage::Passage;

/// An error of a body, from wherever it came.
pub type BodyError = Box<dyn Error + Send + Sync>;

/// The body of a request that a function gets, and of the response that it gives.
pub struct Body(Inner);

enum Inner {
    Full(Option<Bytes>),
    Request(Outgoing),
    Boxed(Pin<Box<dyn HttpBody<Data = Bytes, Error = BodyError> + Send>>),
}

impl Body {
    /// A body without a byte.
    #[must_use]
    pub const fn empty() -> Self {
        Self(Inner::Full(None))
    }

    /// A body that is known whole.
    #[must_use]
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self(Inner::Full((!bytes.is_empty()).then_some(bytes)))
    }

    /// Any other body.
    #[must_use]
    pub fn boxed<B>(body: B) -> Self
    where
        B: HttpBody<Data = Bytes, Error = BodyError> + Send + 'static,
    {
        Self(Inner::Boxed(Box::pin(body)))
    }

    pub(crate) fn request(body: Outgoing) -> Self {
        Self(Inner::Request(body))
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body")
            .field("size", &self.size_hint())
            .finish()
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.0 {
            Inner::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Inner::Request(body) => Pin::new(body).poll_frame(cx),
            Inner::Boxed(body) => body.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Inner::Full(bytes) => bytes.is_none(),
            Inner::Request(body) => body.is_end_stream(),
            Inner::Boxed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Inner::Full(bytes) => SizeHint::with_exact(length(bytes.as_ref())),
            Inner::Request(body) => body.size_hint(),
            Inner::Boxed(body) => body.size_hint(),
        }
    }
}

fn length(bytes: Option<&Bytes>) -> u64 {
    bytes.map_or(0, |bytes| bytes.len() as u64)
}

/// What became of the body of a request, seen from outside of the connection that sends it.
#[derive(Debug, Default)]
pub(crate) struct Upload {
    /// Bytes that were read from the client.
    pub(crate) read: u64,
    /// Whether all of it was.
    pub(crate) complete: bool,
    /// Whether the client broke off or sent what is not a body.
    pub(crate) broken: bool,
    /// Whether it was longer than allowed.
    pub(crate) too_large: bool,
}

/// The body of a request on its way to a target.
pub(crate) enum Outgoing {
    Empty,
    Client(ClientBody),
}

/// The body of a client's request.
pub(crate) struct ClientBody {
    incoming: Incoming,
    most: u64,
    upload: Arc<Mutex<Upload>>,
}

impl Outgoing {
    /// The body of a client's request, of at most `most` bytes.
    pub(crate) fn client(incoming: Incoming, most: u64) -> (Self, Option<Arc<Mutex<Upload>>>) {
        if incoming.is_end_stream() {
            return (Self::Empty, None);
        }
        let upload = Arc::new(Mutex::new(Upload::default()));
        let body = ClientBody {
            incoming,
            most,
            upload: Arc::clone(&upload),
        };
        (Self::Client(body), Some(upload))
    }
}

impl HttpBody for Outgoing {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Client(body) => {
                let frame = ready!(Pin::new(&mut body.incoming).poll_frame(cx));
                let mut upload = body.upload.lock();
                Poll::Ready(match frame {
                    None => {
                        upload.complete = true;
                        None
                    }
                    Some(Ok(frame)) => {
                        upload.read += frame.data_ref().map_or(0, |data| data.len() as u64);
                        upload.complete = body.incoming.is_end_stream();
                        if upload.read > body.most {
                            upload.too_large = true;
                            Some(Err(TooLarge(body.most).into()))
                        } else {
                            Some(Ok(frame))
                        }
                    }
                    Some(Err(error)) => {
                        upload.broken = true;
                        Some(Err(error.into()))
                    }
                })
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Client(body) => body.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Client(body) => body.incoming.size_hint(),
        }
    }
}

/// A request's body was longer than allowed.
#[derive(Debug, thiserror::Error)]
#[error("the body is longer than {0} bytes")]
struct TooLarge(u64);

/// Neither side of a stream moved for the idle timeout.
#[derive(Debug, thiserror::Error)]
#[error("nothing moved for the idle timeout")]
struct Silent;

/// The body of a response on its way to the client, with what must happen at its end.
pub(crate) struct Reply {
    source: Source,
    /// Data that came with the head, and goes first.
    first: Option<Bytes>,
    /// What broke the body before it was asked for.
    broken: Option<BodyError>,
    /// `None` when its end is somebody else's to note.
    passage: Option<Passage>,
}

enum Source {
    Full(Option<Bytes>),
    /// Streams from a target over HTTP/1.1; the link goes back to its shelf at the end.
    Link {
        incoming: Incoming,
        held: Option<Held>,
    },
    /// Streams from a target over HTTP/2, whose connection has a task of its own.
    Stream {
        incoming: Incoming,
        /// Counts the stream among those of its connection.
        _user: Arc<()>,
    },
    Function(Body),
}

impl Reply {
    fn new(source: Source, passage: Passage) -> Self {
        Self {
            source,
            first: None,
            broken: None,
            passage: Some(passage),
        }
    }

    /// No body; the request goes on without HTTP.
    pub(crate) fn nothing() -> Self {
        Self {
            source: Source::Full(None),
            first: None,
            broken: None,
            passage: None,
        }
    }

    /// A body that is known whole.
    pub(crate) fn full(bytes: Bytes, passage: Passage) -> Self {
        let bytes = (!bytes.is_empty()).then_some(bytes);
        Self::new(Source::Full(bytes), passage)
    }

    /// The body that a function gave.
    pub(crate) fn function(body: Body, passage: Passage) -> Self {
        Self::new(Source::Function(body), passage)
    }

    /// The body of a response over HTTP/2.
    pub(crate) fn stream(incoming: Incoming, user: Arc<()>, mut passage: Passage) -> Self {
        if incoming.is_end_stream() {
            passage.target_done();
        }
        Self::new(
            Source::Stream {
                incoming,
                _user: user,
            },
            passage,
        )
    }

    /// The body of a response that came on a link. What has come already is taken at once, and a body that has
    /// come whole lets the link go before the client gets a byte.
    pub(crate) fn link(
        mut incoming: Incoming,
        held: Held,
        mut passage: Passage,
        cx: &mut Context<'_>,
    ) -> Self {
        if incoming.is_end_stream() {
            held.release();
            passage.target_done();
            return Self::full(Bytes::new(), passage);
        }
        let (mut first, mut broken) = (None, None);
        if incoming.size_hint().exact().is_some() {
            // The link has just been polled: what there is of the body waits already.
            match Pin::new(&mut incoming).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => first = frame.into_data().ok(),
                Poll::Ready(Some(Err(error))) => broken = Some(error.into()),
                Poll::Ready(None) | Poll::Pending => {}
            }
            if first.is_some() && incoming.is_end_stream() {
                held.release();
                passage.target_done();
                return Self::new(Source::Full(first), passage);
            }
        }
        let held = Some(held);
        Self {
            first,
            broken,
            ..Self::new(Source::Link { incoming, held }, passage)
        }
    }
}

impl Reply {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self;
        let Some(passage) = &mut this.passage else {
            return Poll::Ready(None);
        };
        if let Some(error) = this.broken.take() {
            passage.failed();
            return Poll::Ready(Some(Err(error)));
        }
        if let Some(first) = this.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        if passage.poll_late(cx).is_ready() {
            passage.failed();
            return Poll::Ready(Some(Err(Silent.into())));
        }
        let frame = match &mut this.source {
            Source::Full(bytes) => Ok(bytes.take().map(Frame::data)),
            Source::Link { incoming, held } => {
                let frame = match held {
                    Some(Held { link, .. }) => ready!(poll_link(link, incoming, cx)),
                    None => None,
                };
                if (frame.is_none() || incoming.is_end_stream())
                    && let Some(held) = held.take()
                {
                    held.release();
                    passage.target_done();
                }
                frame.transpose().map_err(BodyError::from)
            }
            Source::Stream { incoming, .. } => {
                let frame = ready!(Pin::new(&mut *incoming).poll_frame(cx));
                if frame.is_none() || incoming.is_end_stream() {
                    passage.target_done();
                }
                frame.transpose().map_err(BodyError::from)
            }
            Source::Function(body) => {
                let frame = ready!(Pin::new(&mut *body).poll_frame(cx));
                if frame.is_none() || body.is_end_stream() {
                    passage.target_done();
                }
                frame.transpose()
            }
        };
        match frame {
            Ok(frame) => Poll::Ready(frame.map(Ok)),
            Err(error) => {
                // What came before it is sent first: the server drops what it has not sent when a body breaks.
                passage.failed();
                this.broken = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }
}

impl HttpBody for Reply {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = self.poll_next(cx);
        if let Some(passage) = &mut self.passage {
            match &polled {
                Poll::Ready(_) => passage.offered(),
                Poll::Pending => passage.taken(),
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        if self.first.is_some() || self.broken.is_some() {
            return false;
        }
        match &self.source {
            Source::Full(bytes) => bytes.is_none(),
            Source::Link { incoming, .. } | Source::Stream { incoming, .. } => {
                incoming.is_end_stream()
            }
            Source::Function(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let rest = match &self.source {
            Source::Full(bytes) => SizeHint::with_exact(length(bytes.as_ref())),
            Source::Link { incoming, .. } | Source::Stream { incoming, .. } => incoming.size_hint(),
            Source::Function(body) => body.size_hint(),
        };
        match (&self.first, rest.exact()) {
            (Some(first), Some(rest)) => SizeHint::with_exact(rest + first.len() as u64),
            (Some(_), None) => SizeHint::new(),
            (None, _) => rest,
        }
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply").finish_non_exhaustive()
    }
}

fn poll_link(
    link: &mut Link,
    incoming: &mut Incoming,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
    link.poll_with(cx, |cx| Pin::new(&mut *incoming).poll_frame(cx))
}
