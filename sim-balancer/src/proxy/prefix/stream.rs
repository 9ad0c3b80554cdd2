//! A connection whose first bytes were read already.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A connection that first gives the bytes that were read beyond its header. Without such bytes it is the connection.
#[derive(Debug)]
pub struct Prefixed<S> {
    left: Bytes,
    inner: S,
}

impl<S> Prefixed<S> {
    /// Makes a connection that gives `left` before what `inner` gives.
    #[must_use]
    pub fn new(left: Bytes, inner: S) -> Self {
        Self { left, inner }
    }

    /// The bytes that were read ahead and not given yet.
    #[must_use]
    pub fn left(&self) -> &[u8] {
        &self.left
    }

    /// The connection below.
    #[must_use]
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// Takes it apart: the bytes that were not given yet, and the connection.
    #[must_use]
    pub fn into_parts(self) -> (Bytes, S) {
        (self.left, self.inner)
    }
}

impl<S> From<S> for Prefixed<S> {
    fn from(inner: S) -> Self {
        Self::new(Bytes::new(), inner)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Prefixed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.left.is_empty() || buf.remaining() == 0 {
            return Pin::new(&mut self.inner).poll_read(cx, buf);
        }
        let given = self.left.len().min(buf.remaining());
        buf.put_slice(&self.left[..given]);
        self.left.advance(given);
        if self.left.is_empty() {
            // The memory of the header is not kept for the life of the connection.
            self.left = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Prefixed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
