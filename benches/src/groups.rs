//! The groups, named as the crates are: which patterns each has, and who takes part.

use bytes::Bytes;

use crate::pattern::{Bound, Pattern, Peer, Shape};
use crate::payload::Payload;
use crate::rivals::{self, TOKIO};
#[cfg(feature = "queue")]
use crate::sim_queue_peer as ours;
use crate::{fanout, filters, logs, picks};

/// The names of the groups, in the order of the tables.
pub const NAMES: &[&str] = &[
    "core", "queue", "topic", "filter", "stream", "balancer", "tables", "scaling",
];

/// How much is sent in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Enough for figures.
    Full,
    /// Enough to see that everything runs and loses nothing.
    Quick,
}

impl Scale {
    /// Messages of a run: whole batches for each of four senders, in the warm-up's tenth as well.
    fn of(self, full: u64) -> u64 {
        match self {
            Self::Full => full,
            Self::Quick => 2_000,
        }
    }
}

/// The patterns of a group, or nothing when there is no such group.
#[must_use]
pub fn patterns(group: &str, scale: Scale) -> Option<Vec<Pattern>> {
    match group {
        "core" => Some(core(scale)),
        "queue" => Some(queue(scale)),
        "topic" => Some(topic(scale)),
        "filter" => Some(filters::patterns(scale)),
        "stream" => Some(stream(scale)),
        "balancer" => Some(picks::patterns(scale)),
        "tables" => Some(crate::tables::patterns(scale)),
        // Has traces in place of patterns.
        "scaling" => Some(Vec::new()),
        _ => None,
    }
}

/// What the rivals of a group lack.
#[must_use]
pub fn notes(group: &str) -> &'static [(&'static str, &'static str)] {
    match group {
        "topic" => fanout::NOTES,
        "stream" => logs::NOTES,
        "balancer" => picks::NOTES,
        "tables" => crate::tables::NOTES,
        _ => rivals::NOTES,
    }
}

const BOUNDS: [Bound; 2] = [Bound::Bounded, Bound::Unbounded];

/// Raw rings between threads that try, spin and yield. Tokio's channel cannot take part, since its receiver is not
/// shared and a try on it is not what it is made for: ratios refer to crossbeam's queues.
fn core(scale: Scale) -> Vec<Pattern> {
    let mut patterns = Vec::new();
    for shape in Shape::ALL {
        for bound in BOUNDS {
            core_of::<usize>(&mut patterns, shape, bound, scale);
            core_of::<Bytes>(&mut patterns, shape, bound, scale);
        }
    }
    patterns
}

fn core_of<T: Payload>(patterns: &mut Vec<Pattern>, shape: Shape, bound: Bound, scale: Scale) {
    let count = scale.of(1_000_000);
    let name = format!("threads-{shape}-{bound}{}", T::SUFFIX);
    let (baseline, baseline_single) = match bound {
        Bound::Bounded => ("crossbeam-array-queue", "crossbeam-array-queue-single"),
        Bound::Unbounded => ("crossbeam-seg-queue", "crossbeam-seg-queue-single"),
    };

    let mut peers = rivals::rings::<T>(shape, bound);
    peers.extend(crate::sim_ring_peer::rings::<T>(shape, bound));
    patterns.push(Pattern {
        name: name.clone(),
        baseline,
        count,
        peers,
    });

    let mut peers: Vec<Peer> = rivals::rings::<T>(shape, bound)
        .into_iter()
        .map(Peer::single)
        .collect();
    peers.extend(rivals::ring_batches::<T>(shape, bound));
    peers.extend(crate::sim_ring_peer::ring_batches::<T>(shape, bound));
    patterns.push(Pattern {
        name: format!("{name}-batch10"),
        baseline: baseline_single,
        count,
        peers,
    });
}

/// Channels, awaited by tasks or blocking threads. What sim-queue sends it also receives and acknowledges, with its
/// lease tracked; a rival's message is gone when it is received.
fn queue(scale: Scale) -> Vec<Pattern> {
    let mut patterns = Vec::new();
    for shape in [Shape::Seq, Shape::Spsc, Shape::Mpsc, Shape::Mpmc] {
        for bound in BOUNDS {
            queue_of::<usize>(&mut patterns, shape, bound, scale);
            queue_of::<Bytes>(&mut patterns, shape, bound, scale);
        }
    }
    // The tasks' patterns first: they are the ones that the bars speak of.
    patterns.sort_by_key(|pattern| !pattern.name.starts_with("async"));
    patterns
}

fn queue_of<T: Payload>(patterns: &mut Vec<Pattern>, shape: Shape, bound: Bound, scale: Scale) {
    const SINGLE: &str = "tokio-mpsc-single";
    let traffic = format!("{shape}-{bound}{}", T::SUFFIX);
    // The traffic that the bars speak of runs longest: the fastest peers are through a message in 20 ns, and a run
    // should be long against a scheduler's slice.
    let full = if shape == Shape::Mpmc && bound == Bound::Bounded {
        1_000_000
    } else {
        400_000
    };
    let count = scale.of(full);

    let mut peers = rivals::tasks::<T>(shape, bound);
    peers.extend(ours::tasks::<T>(shape, bound));
    patterns.push(Pattern {
        name: format!("async-{traffic}"),
        baseline: TOKIO,
        count,
        peers,
    });

    let mut peers: Vec<Peer> = rivals::tasks::<T>(shape, bound)
        .into_iter()
        .map(Peer::single)
        .collect();
    peers.extend(rivals::task_batches::<T>(shape, bound));
    peers.extend(ours::task_batches::<T>(shape, bound));
    let name = format!("async-{traffic}-batch10");
    patterns.push(Pattern {
        name,
        baseline: SINGLE,
        count,
        peers,
    });

    let mut peers = rivals::threads::<T>(shape, bound);
    peers.extend(ours::threads::<T>(shape, bound));
    patterns.push(Pattern {
        name: format!("threads-{traffic}"),
        baseline: TOKIO,
        count,
        peers,
    });

    let mut peers: Vec<Peer> = rivals::threads::<T>(shape, bound)
        .into_iter()
        .map(Peer::single)
        .collect();
    peers.extend(rivals::thread_batches::<T>(shape, bound));
    peers.extend(ours::thread_batches::<T>(shape, bound));
    let name = format!("threads-{traffic}-batch10");
    patterns.push(Pattern {
        name,
        baseline: SINGLE,
        count,
        peers,
    });
}

/// Without the queue, the rivals run among themselves.
#[cfg(not(feature = "queue"))]
#[expect(
    clippy::extra_unused_type_parameters,
    reason = "called as sim-queue's peers are"
)]
mod ours {
    use crate::pattern::{Bound, Peer, Shape};

    macro_rules! none {
        ($($name:ident),*) => {$(
            pub(super) fn $name<T>(_: Shape, _: Bound) -> Vec<Peer> {
                Vec::new()
            }
        )*};
    }

    none!(tasks, task_batches, threads, thread_batches);
}

/// Fan-out to one, eight and 64 subscribers, each a task.
fn topic(scale: Scale) -> Vec<Pattern> {
    fn fan_out<T: Payload>(subscribers: usize, full: u64, scale: Scale) -> Pattern {
        let mut peers = fanout::rivals::<T>(subscribers);
        peers.extend(crate::sim_topic_peer::peers::<T>(subscribers));
        Pattern {
            name: format!("fan-out-1x{subscribers}{}", T::SUFFIX),
            baseline: fanout::TOKIO,
            count: scale.of(full),
            peers,
        }
    }
    let mut patterns = Vec::new();
    // Fewer messages for more subscribers: what counts is the number of deliveries.
    for (subscribers, full) in [(1, 400_000), (8, 200_000), (64, 40_000)] {
        patterns.push(fan_out::<usize>(subscribers, full, scale));
        patterns.push(fan_out::<Bytes>(subscribers, full, scale));
    }
    patterns
}

/// Appending to a log, without readers and with one or four that read everything.
fn stream(scale: Scale) -> Vec<Pattern> {
    let mut patterns = Vec::new();
    for (writers, readers) in [(1, 0), (4, 0), (1, 1), (4, 1), (1, 4), (4, 4)] {
        let mut peers = logs::rivals(writers, readers);
        peers.extend(crate::sim_stream_peer::peers(writers, readers));
        patterns.push(Pattern {
            name: format!("append-{writers}x{readers}-bytes100"),
            baseline: logs::MUTEX,
            count: scale.of(1_000_000),
            peers,
        });
    }
    patterns.push(crate::replay::pattern(match scale {
        Scale::Full => 1 << 20,
        Scale::Quick => 1 << 12,
    }));
    patterns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pattern_has_its_baseline_and_no_peer_twice() {
        for group in NAMES {
            for pattern in patterns(group, Scale::Quick).expect("a group of that name") {
                let mut names: Vec<_> = pattern
                    .peers
                    .iter()
                    .map(|peer| peer.name.as_str())
                    .collect();
                assert!(names.contains(&pattern.baseline), "{}", pattern.name);
                names.sort_unstable();
                names.dedup();
                assert_eq!(names.len(), pattern.peers.len(), "{}", pattern.name);
            }
        }
    }

    #[test]
    fn an_unknown_group_has_no_patterns() {
        assert!(patterns("nonesuch", Scale::Quick).is_none());
    }
}
