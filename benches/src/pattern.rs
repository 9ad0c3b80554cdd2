//! What is measured: shapes of traffic, bounds, and the peers that take part.

use std::fmt;
use std::time::Duration;

/// Messages that a bounded peer holds.
pub const CAPACITY: usize = 1024;

/// Messages in a batch.
pub const BATCH: usize = 10;

/// Messages that the `seq` shape sends before it receives them: whole batches, and within every bound.
pub const STRETCH: u64 = 1000;

/// Who sends and who receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One task or thread sends a stretch, then receives it, in turns: no contention, no waiting.
    Seq,
    /// One sender, one receiver.
    Spsc,
    /// Four senders, one receiver.
    Mpsc,
    /// One sender, four receivers.
    Spmc,
    /// Four senders, four receivers.
    Mpmc,
}

impl Shape {
    /// Every shape, in the order of the tables.
    pub const ALL: [Self; 5] = [Self::Seq, Self::Spsc, Self::Mpsc, Self::Spmc, Self::Mpmc];

    /// How many senders the shape has.
    #[must_use]
    pub fn senders(self) -> usize {
        match self {
            Self::Seq | Self::Spsc | Self::Spmc => 1,
            Self::Mpsc | Self::Mpmc => 4,
        }
    }

    /// How many receivers the shape has.
    #[must_use]
    pub fn receivers(self) -> usize {
        match self {
            Self::Seq | Self::Spsc | Self::Mpsc => 1,
            Self::Spmc | Self::Mpmc => 4,
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Seq => "seq",
            Self::Spsc => "spsc",
            Self::Mpsc => "mpsc-4x1",
            Self::Spmc => "spmc-1x4",
            Self::Mpmc => "mpmc-4x4",
        })
    }
}

/// Whether a peer holds at most [`CAPACITY`] messages or as many as there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// At most [`CAPACITY`] messages.
    Bounded,
    /// As many as there are.
    Unbounded,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bounded => "bounded",
            Self::Unbounded => "unbounded",
        })
    }
}

/// Why a run does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure(pub String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

/// The time that one verified run of so many messages took.
pub type Outcome = Result<Duration, Failure>;

/// One competitor in one pattern.
pub struct Peer {
    /// The name in the tables; `-single` at its end marks a peer that sends one at a time in a pattern of batches.
    pub name: String,
    run: Box<dyn Fn(u64) -> Outcome>,
}

impl Peer {
    /// Makes a peer from what opens it, drives it and verifies it for a number of messages.
    pub fn new(name: &str, run: impl Fn(u64) -> Outcome + 'static) -> Self {
        Self {
            name: name.to_owned(),
            run: Box::new(run),
        }
    }

    /// Opens the peer afresh and sends so many messages through it.
    ///
    /// # Errors
    /// When what was received is not what was sent, or a task or thread of the run panicked.
    pub fn run(&self, count: u64) -> Outcome {
        (self.run)(count).map_err(|failure| Failure(format!("{}: {failure}", self.name)))
    }

    /// The same peer under the name that it has among batches.
    #[must_use]
    pub fn single(mut self) -> Self {
        self.name.push_str("-single");
        self
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// One line of a table: the traffic, and who carries it.
#[derive(Debug)]
pub struct Pattern {
    /// The name, as in `async-mpmc-4x4-bounded`.
    pub name: String,
    /// Whose time the others' are compared with; one of the peers.
    pub baseline: &'static str,
    /// Messages a run.
    pub count: u64,
    /// Who takes part.
    pub peers: Vec<Peer>,
}

/// Gives each sender and each receiver of the shape a handle of its own.
pub fn share<S: Clone, R: Clone>(shape: Shape, sender: S, receiver: R) -> (Vec<S>, Vec<R>) {
    (
        vec![sender; shape.senders()],
        vec![receiver; shape.receivers()],
    )
}

/// Gives each sender of the shape a handle of its own, and the one receiver its own.
///
/// # Panics
/// When the shape has several receivers: such a peer has no such pattern.
pub fn fan_in<S: Clone, R>(shape: Shape, sender: S, receiver: R) -> (Vec<S>, Vec<R>) {
    assert_eq!(
        shape.receivers(),
        1,
        "the receiver of this peer cannot be shared"
    );
    (vec![sender; shape.senders()], vec![receiver])
}

/// One handle on either side.
///
/// # Panics
/// When the shape has several senders or receivers: such a peer has no such pattern.
pub fn pair<S, R>(shape: Shape, sender: S, receiver: R) -> (Vec<S>, Vec<R>) {
    assert_eq!(
        shape.senders() + shape.receivers(),
        2,
        "neither side of this peer can be shared"
    );
    (vec![sender], vec![receiver])
}
