//! Random histories.

use proptest::prelude::*;
use proptest::sample::Index;

/// What a sender says of its message.
#[derive(Debug, Clone)]
pub(crate) struct Send {
    pub(crate) group: u8,
    pub(crate) dedup: Option<u8>,
    pub(crate) delay: Option<u64>,
}

/// How far time moves.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pass {
    Seconds(u64),
    /// Exactly to the next deadline.
    ToNext,
    /// A nanosecond before it.
    JustBefore,
}

#[derive(Debug, Clone)]
pub(crate) enum Step {
    Send(Send),
    SendBatch(Vec<Send>),
    SendValues(usize),
    ReceiveOne,
    Receive {
        max: usize,
        visibility: Option<u64>,
        attempt: Option<u8>,
    },
    Acknowledge(Index),
    /// By one of all receipts that there ever were.
    AcknowledgeReceipt(Index),
    ChangeReceipt(Index, u64),
    Release(Index),
    ReleaseAfter(Index, u64),
    Extend(Index, u64),
    Reject(Index),
    Drop(Index),
    IntoReceipt(Index),
    Purge,
    /// Time moves, and whether somebody looks at the queue before the next step.
    Pass(Pass, bool),
    VisibilityTimeout(u64),
    Delay(u64),
}

fn send() -> impl Strategy<Value = Send> {
    (
        0..4u8,
        prop::option::weighted(0.4, 0..5u8),
        prop::option::weighted(0.4, 0..7u64),
    )
        .prop_map(|(group, dedup, delay)| Send {
            group,
            dedup,
            delay,
        })
}

fn pass() -> impl Strategy<Value = Pass> {
    prop_oneof![
        4 => (0..9u64).prop_map(Pass::Seconds),
        5 => Just(Pass::ToNext),
        3 => Just(Pass::JustBefore),
        1 => (50..400u64).prop_map(Pass::Seconds),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<Index>;
    prop_oneof![
        10 => send().prop_map(Step::Send),
        3 => prop::collection::vec(send(), 0..5).prop_map(Step::SendBatch),
        2 => (0..6usize).prop_map(Step::SendValues),
        8 => Just(Step::ReceiveOne),
        6 => (1..6usize, prop::option::weighted(0.5, 0..12u64), prop::option::weighted(0.3, 0..3u8))
            .prop_map(|(max, visibility, attempt)| Step::Receive { max, visibility, attempt }),
        6 => index().prop_map(Step::Acknowledge),
        3 => index().prop_map(Step::AcknowledgeReceipt),
        2 => (index(), 0..12u64).prop_map(|(at, after)| Step::ChangeReceipt(at, after)),
        3 => index().prop_map(Step::Release),
        3 => (index(), prop_oneof![0..12u64, Just(200)])
            .prop_map(|(at, after)| Step::ReleaseAfter(at, after)),
        4 => (index(), prop_oneof![0..12u64, Just(200)])
            .prop_map(|(at, after)| Step::Extend(at, after)),
        1 => index().prop_map(Step::Reject),
        3 => index().prop_map(Step::Drop),
        1 => index().prop_map(Step::IntoReceipt),
        1 => Just(Step::Purge),
        10 => (pass(), any::<bool>()).prop_map(|(pass, looks)| Step::Pass(pass, looks)),
        1 => (0..12u64).prop_map(Step::VisibilityTimeout),
        1 => (0..5u64).prop_map(Step::Delay),
    ]
}

pub(crate) fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), 1..70)
}

/// The rules of one history; seconds.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) visibility: u64,
    pub(crate) delay: u64,
    pub(crate) retention: Option<u64>,
    pub(crate) capacity: Option<usize>,
    pub(crate) max_in_flight: usize,
    pub(crate) max_receives: Option<u32>,
    /// 0 returns, 1 lets expire, 2 acknowledges.
    pub(crate) on_drop: u8,
    pub(crate) options: u8,
}

pub(crate) fn setup() -> impl Strategy<Value = Setup> {
    (
        prop_oneof![1 => Just(0), 6 => 1..12u64],
        prop_oneof![3 => Just(0), 1 => 1..4u64],
        prop::option::weighted(0.3, 1..25u64),
        prop::option::weighted(0.4, 1..6usize),
        prop_oneof![1 => 1..5usize, 1 => Just(100), 1 => Just(100_000)],
        prop::option::weighted(0.5, 1..4u32),
        0..3u8,
        any::<u8>(),
    )
        .prop_map(
            |(
                visibility,
                delay,
                retention,
                capacity,
                max_in_flight,
                max_receives,
                on_drop,
                options,
            )| {
                Setup {
                    visibility,
                    delay,
                    retention,
                    capacity,
                    max_in_flight,
                    max_receives,
                    on_drop,
                    options,
                }
            },
        )
}
