//! Both directions of a connection.

use std::future::{Future, poll_fn};
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use sim_core::clock::Clock;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The most that is read at once, and that is held for a slow receiver.
const CHUNK: usize = 16 * 1_024;

/// How the copying ended.
#[derive(Debug)]
pub(super) enum Copied {
    /// Both sides ended it.
    Finished,
    /// Neither sent anything for too long.
    Idle,
    /// The client's connection broke.
    ClientBroke,
    /// The target's connection broke.
    TargetBroke,
}

/// Copies both directions until both ended, one broke, or neither moved for `idle`. `meter` is told how many bytes passed
/// inward, from the client to the target, and outward.
pub(super) async fn copy<C, T>(
    client: &mut C,
    target: &mut T,
    clock: &Clock,
    idle: Duration,
    mut meter: impl FnMut(u64, u64),
) -> Copied
where
    C: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    let (mut inward, mut outward) = (Direction::default(), Direction::default());
    let mut last = clock.now();
    let mut timer = clock.sleep_until(last + idle);
    poll_fn(|cx| {
        let one = inward.poll(cx, client, target);
        let two = outward.poll(cx, target, client);
        let moved = (inward.take_moved(), outward.take_moved());
        if moved != (0, 0) {
            meter(moved.0, moved.1);
            last = clock.now();
        }
        match (one, two) {
            (Poll::Ready(Err(Broken::Source)), _) | (_, Poll::Ready(Err(Broken::Sink))) => {
                return Poll::Ready(Copied::ClientBroke);
            }
            (Poll::Ready(Err(Broken::Sink)), _) | (_, Poll::Ready(Err(Broken::Source))) => {
                return Poll::Ready(Copied::TargetBroke);
            }
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(Copied::Finished),
            (Poll::Pending, _) | (_, Poll::Pending) => {}
        }
        // The timer is not moved for every byte: when it fires, it is set to what is due by then.
        loop {
            ready!(Pin::new(&mut timer).poll(cx));
            if timer.deadline() >= last + idle {
                return Poll::Ready(Copied::Idle);
            }
            timer.reset(last + idle);
        }
    })
    .await
}

/// Which end of a direction broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    Source,
    Sink,
}

/// One direction.
#[derive(Debug, Default)]
struct Direction {
    /// Read and not yet written; empty most of the time.
    held: Vec<u8>,
    /// Of these, how many were written.
    written: usize,
    state: State,
    /// The sink may hold what was written back.
    is_unflushed: bool,
    moved: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    /// The source ended; the sink is not told yet.
    Ending,
    Ended,
}

impl Direction {
    fn take_moved(&mut self) -> u64 {
        std::mem::take(&mut self.moved)
    }

    fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut R,
        sink: &mut W,
    ) -> Poll<Result<(), Broken>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            while self.written < self.held.len() {
                let rest = &self.held[self.written..];
                let count = ready!(write(cx, sink, rest))?;
                self.written += count;
                self.moved += count as u64;
                self.is_unflushed = true;
            }
            if self.written > 0 {
                (self.held, self.written) = (Vec::new(), 0);
            }
            match self.state {
                State::Ended => return Poll::Ready(Ok(())),
                State::Ending => {
                    let shut = ready!(Pin::new(&mut *sink).poll_shutdown(cx));
                    // Who took everything and is gone already has not broken anything.
                    match shut {
                        Ok(()) => {}
                        Err(error) if error.kind() == io::ErrorKind::NotConnected => {}
                        Err(_) => return Poll::Ready(Err(Broken::Sink)),
                    }
                    self.state = State::Ended;
                }
                State::Open => ready!(self.pass(cx, source, sink))?,
            }
        }
    }

    /// Reads once and writes what was read, or as much of it as the sink takes.
    fn pass<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut R,
        sink: &mut W,
    ) -> Poll<Result<(), Broken>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut chunk = [MaybeUninit::uninit(); CHUNK];
        let mut chunk = ReadBuf::uninit(&mut chunk);
        match Pin::new(source).poll_read(cx, &mut chunk) {
            Poll::Pending => {
                if self.is_unflushed {
                    ready!(Pin::new(sink).poll_flush(cx)).map_err(|_| Broken::Sink)?;
                    self.is_unflushed = false;
                }
                return Poll::Pending;
            }
            Poll::Ready(Err(_)) => return Poll::Ready(Err(Broken::Source)),
            Poll::Ready(Ok(())) => {}
        }
        let mut bytes = chunk.filled();
        if bytes.is_empty() {
            self.state = State::Ending;
        }
        while !bytes.is_empty() {
            match write(cx, sink, bytes)? {
                Poll::Ready(count) => {
                    bytes = &bytes[count..];
                    self.moved += count as u64;
                    self.is_unflushed = true;
                }
                Poll::Pending => {
                    self.held = bytes.to_vec();
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

fn write<W: AsyncWrite + Unpin>(
    cx: &mut Context<'_>,
    sink: &mut W,
    bytes: &[u8],
) -> Poll<Result<usize, Broken>> {
    match ready!(Pin::new(sink).poll_write(cx, bytes)) {
        Ok(count) if count > 0 => Poll::Ready(Ok(count)),
        Ok(_) | Err(_) => Poll::Ready(Err(Broken::Sink)),
    }
}
