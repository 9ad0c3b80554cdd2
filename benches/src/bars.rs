//! The bars: what the sim crates set out to reach, and what they reached in this run.

use std::fmt::Write as _;

use crate::measure::{Figure, median, pairs};
use crate::memory::Memory;
use crate::rivals::tower_balance;
use crate::sim_balancer_peer::{self, Cost};

/// One aim and its outcome.
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    /// What is to be reached.
    pub aim: String,
    /// What was measured.
    pub measured: String,
    /// Whether it was reached.
    pub met: bool,
}

/// The peers of the sim crates, whatever follows in their name.
fn is_ours(figure: &Figure) -> bool {
    figure.peer.starts_with("sim-")
}

/// How many times faster the first is than the second: the median over the rounds, pair by pair.
fn speed(first: &Figure, second: &Figure) -> f64 {
    median(&pairs(&second.rounds, &first.rounds))
}

/// Rings for fewer senders or receivers than the sim rings serve: they leave out what makes several of them safe.
const SPECIAL: [&str; 2] = ["rtrb", "nexus-queue"];

/// The aims of the group `core`: level with the fastest rival of each pattern, and faster than a mutex. Level is
/// within 5 %, which is what two runs of one peer differ by on a quiet machine.
#[must_use]
pub fn core(figures: &[Figure]) -> Vec<Bar> {
    let base = |figure: &Figure| figure.peer.trim_end_matches("-single").to_owned();
    let mut bars = Vec::new();
    for own in figures.iter().filter(|figure| is_ours(figure)) {
        let fastest = |wanted: &dyn Fn(&str) -> bool| {
            figures
                .iter()
                .filter(|figure| figure.pattern == own.pattern && !is_ours(figure))
                .filter(|figure| wanted(&base(figure)))
                .min_by(|one, other| one.ns.total_cmp(&other.ns))
        };
        let is_mutex = |peer: &str| peer == "mutex-vecdeque";
        if let Some(rival) = fastest(&|peer| !is_mutex(peer)) {
            let ratio = speed(own, rival);
            let mut measured = format!("{ratio:.2} times {}", rival.peer);
            if SPECIAL.contains(&base(rival).as_str()) {
                let general = fastest(&|peer| !is_mutex(peer) && !SPECIAL.contains(&peer));
                if let Some(general) = general {
                    let _ = write!(
                        measured,
                        ", which serves fewer sides; {:.2} times {}, which serves as many",
                        speed(own, general),
                        general.peer
                    );
                }
            }
            bars.push(Bar {
                aim: format!("{}: {} level with the fastest rival", own.pattern, own.peer),
                measured,
                met: ratio >= 0.95,
            });
        }
        if let Some(mutex) = fastest(&is_mutex) {
            let ratio = speed(own, mutex);
            bars.push(Bar {
                aim: format!(
                    "{}: {} faster than a deque behind a mutex",
                    own.pattern, own.peer
                ),
                measured: format!("{ratio:.2} times {}", mutex.peer),
                met: ratio >= 1.0,
            });
        }
    }
    bars
}

/// The aims of the group `filter`: level with the fastest rival in each pattern. Level is as in [`core()`].
#[must_use]
pub fn filter(figures: &[Figure]) -> Vec<Bar> {
    figures
        .iter()
        .filter(|figure| is_ours(figure))
        .filter_map(|own| {
            let rival = fastest_rival(figures, &own.pattern)?;
            let ratio = speed(own, rival);
            Some(Bar {
                aim: format!("{}: events a second level with quamina", own.pattern),
                measured: format!("{ratio:.2} times {}", rival.peer),
                met: ratio >= 0.95,
            })
        })
        .collect()
}

/// The aims of the group `topic`: fan-out to eight at twice the speed of the best rival, or more.
#[must_use]
pub fn topic(figures: &[Figure]) -> Vec<Bar> {
    figures
        .iter()
        .filter(|figure| is_ours(figure) && figure.pattern.starts_with("fan-out-1x8"))
        .filter_map(|own| {
            let rival = fastest_rival(figures, &own.pattern)?;
            let speed = speed(own, rival);
            Some(Bar {
                aim: format!("{}: {} at least twice the best", own.pattern, own.peer),
                measured: format!("{speed:.2} times {}", rival.peer),
                met: speed >= 2.0,
            })
        })
        .collect()
}

/// The aims of the group `stream` that its patterns show.
#[must_use]
pub fn stream(figures: &[Figure]) -> Vec<Bar> {
    let mut bars = Vec::new();
    let ours = figures.iter().filter(|figure| is_ours(figure));
    for own in ours {
        if own.pattern.starts_with("replay") {
            bars.push(Bar {
                aim: format!(
                    "{}: half of memcpy's bandwidth, without a copy",
                    own.pattern
                ),
                measured: format!("{:.2} of memcpy's", own.ratio),
                met: own.ratio >= 0.5,
            });
        } else if own.pattern.starts_with("append-1x0") && own.peer.ends_with("-warm") {
            bars.push(Bar {
                aim: format!("{}: {} at least 10 M/s", own.pattern, own.peer),
                measured: format!("{:.1} M/s", 1e3 / own.ns),
                met: own.ns <= 100.0,
            });
        } else if let Some(rival) = fastest_rival(figures, &own.pattern) {
            let speed = speed(own, rival);
            bars.push(Bar {
                aim: format!("{}: {} level with the fastest rival", own.pattern, own.peer),
                measured: format!("{speed:.2} times {}", rival.peer),
                met: speed >= 0.95,
            });
        }
    }
    bars
}

/// What a pick may take among a thousand targets, in nanoseconds, with its lease taken and given back.
const PICK: f64 = 20.0;
/// The same with a choice by latency and its two readings of the clock.
const TIMED_PICK: f64 = 45.0;

/// The aims of the group `balancer`: five times as fast as each rival, and a bound of its own among a thousand targets.
/// Algorithms that look at every target are measured and have no aim.
#[must_use]
pub fn balancer(figures: &[Figure]) -> Vec<Bar> {
    let mut bars = Vec::new();
    for (name, _, cost) in sim_balancer_peer::algorithms() {
        let limit = match cost {
            Cost::Constant => PICK,
            Cost::Timed => TIMED_PICK,
            Cost::Scan => continue,
        };
        for own in figures.iter().filter(|figure| figure.peer == name) {
            if let Some(rival) = fastest_rival(figures, &own.pattern) {
                let ratio = speed(own, rival);
                bars.push(Bar {
                    aim: format!("{}: {name} five times as fast as each rival", own.pattern),
                    measured: format!("{ratio:.2} times {}", rival.peer),
                    met: ratio >= 5.0,
                });
            }
            // Like for like: the other that chooses by latency.
            let latency = |figure: &&Figure| {
                figure.pattern == own.pattern && figure.peer == tower_balance::PEAK_EWMA
            };
            if matches!(cost, Cost::Timed)
                && let Some(rival) = figures.iter().find(latency)
            {
                let ratio = speed(own, rival);
                bars.push(Bar {
                    aim: format!(
                        "{}: {name} five times as fast as {}",
                        own.pattern, rival.peer
                    ),
                    measured: format!("{ratio:.2} times"),
                    met: ratio >= 5.0,
                });
            }
            if own.pattern == "pick-1000" {
                bars.push(Bar {
                    aim: format!("{}: {name} in at most {limit} ns", own.pattern),
                    measured: format!("{:.1} ns", own.ns),
                    met: own.ns <= limit,
                });
            }
        }
    }
    bars
}

/// The aims of the group `tables`: faster than the rivals, and Maglev's table for a thousand targets in 1.7 ms.
#[must_use]
pub fn tables(figures: &[Figure]) -> Vec<Bar> {
    let mut bars = Vec::new();
    for own in figures.iter().filter(|figure| is_ours(figure)) {
        if let Some(rival) = fastest_rival(figures, &own.pattern) {
            let speed = speed(own, rival);
            bars.push(Bar {
                aim: format!("{}: {} level with the rival", own.pattern, own.peer),
                measured: format!("{speed:.2} times {}", rival.peer),
                met: speed >= 0.95,
            });
        }
        if own.pattern == crate::tables::AIMED {
            bars.push(Bar {
                aim: format!("{}: {} in at most 1.7 ms", own.pattern, own.peer),
                measured: format!("{:.2} ms", own.ns / 1e6),
                met: own.ns <= 1.7e6,
            });
        }
    }
    bars
}

/// The fastest of a pattern that is not ours.
fn fastest_rival<'a>(figures: &'a [Figure], pattern: &str) -> Option<&'a Figure> {
    figures
        .iter()
        .filter(|figure| figure.pattern == pattern && !is_ours(figure))
        .min_by(|one, other| one.ns.total_cmp(&other.ns))
}

/// The aims of the group `queue`.
#[must_use]
pub fn queue(figures: &[Figure], memory: &[Memory]) -> Vec<Bar> {
    const SINGLE: &str = "async-mpmc-4x4-bounded";
    const BATCH: &str = "async-mpmc-4x4-bounded-batch10";
    let find = |pattern: &str, peer: &str| {
        figures
            .iter()
            .find(|figure| figure.pattern == pattern && figure.peer == peer)
    };
    let mut bars = Vec::new();
    if let Some(own) = find(SINGLE, "sim-queue") {
        for (rival, aim) in [
            ("flume", "at least level with"),
            ("kanal", "(aim) level with"),
        ] {
            if let Some(rival) = find(SINGLE, rival) {
                let speed = speed(own, rival);
                bars.push(Bar {
                    aim: format!(
                        "{SINGLE}: send + receive + acknowledge {aim} {}",
                        rival.peer
                    ),
                    measured: format!("{speed:.2} times {}", rival.peer),
                    met: speed >= 0.95,
                });
            }
        }
        for fifo in figures
            .iter()
            .filter(|figure| figure.pattern == SINGLE && figure.peer.starts_with("sim-queue-fifo"))
        {
            let speed = speed(fifo, own);
            bars.push(Bar {
                aim: format!("{SINGLE}: FIFO with 1,000 groups at least half of the standard rate"),
                measured: format!("{speed:.2} times sim-queue"),
                met: speed >= 0.5,
            });
        }
    }
    if let Some(own) = find(BATCH, "sim-queue") {
        let fastest = figures
            .iter()
            .filter(|figure| figure.pattern == BATCH && figure.peer.ends_with("-single"))
            .filter(|figure| !is_ours(figure))
            .min_by(|one, other| one.ns.total_cmp(&other.ns));
        if let Some(fastest) = fastest {
            let speed = speed(own, fastest);
            bars.push(Bar {
                aim: format!("{BATCH}: at least twice the fastest rival one at a time"),
                measured: format!("{speed:.2} times {}", fastest.peer),
                met: speed >= 2.0,
            });
        }
    }
    if let Some(own) = memory.iter().find(|memory| memory.peer == "sim-queue") {
        bars.push(Bar {
            aim: "memory: at most 64 bytes a message beyond the payload".to_owned(),
            measured: format!("{:.1} bytes", own.queued),
            met: own.queued <= 64.0,
        });
        bars.push(Bar {
            aim: "memory: given back after draining (within 64 KiB of the empty queue)".to_owned(),
            measured: format!("{} bytes held", own.drained),
            met: own.drained <= own.empty + 64 * 1024,
        });
        bars.push(Bar {
            aim: "memory: an empty queue costs a few KiB (at most 8)".to_owned(),
            measured: format!("{} bytes", own.empty),
            met: own.empty <= 8 * 1024,
        });
        bars.push(Bar {
            aim: "no thread is spawned".to_owned(),
            measured: format!("{} threads", own.threads),
            met: own.threads == 0,
        });
    }
    bars
}
