//! A server in virtual time: cores that its requests share, or one worker that takes them in order.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// The number of a request in flight.
pub(super) type Number = u32;

/// Nanoseconds of a second.
pub(super) const SECOND: u64 = 1_000_000_000;

/// How a server works on its requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discipline {
    /// All at once, each at most at the speed of one core (processor sharing).
    Shared,
    /// One after another, in the order of their arrival.
    InOrder,
}

/// Work in seconds of a core of speed one; ordered, since it is never not a number.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Work(f64);

impl Eq for Work {}

impl PartialOrd for Work {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Work {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// A server.
///
/// With sharing, every request in flight has got the same amount of work done since it came, apart from when it came: the server
/// keeps one sum of the work done for each, and a request is finished when the sum has grown by what it needs.
#[derive(Debug)]
pub(super) struct Server {
    discipline: Discipline,
    /// Cores that may be used now.
    cores: f64,
    /// Work that a core does in a second.
    speed: f64,
    /// The sum of work done for each request in flight, and the time up to which it was counted.
    done: f64,
    counted: u64,
    /// With sharing: at which sum each request is finished.
    shared: BinaryHeap<Reverse<(Work, Number)>>,
    /// In order: what each request needs; of the first one what is left.
    queue: VecDeque<(f64, Number)>,
    in_flight: u32,
    /// Cancelled requests that still stand in `shared`.
    cancelled: Vec<Number>,
    /// Counts changes: an announced completion counts if nothing has changed since.
    version: u32,
    /// Averages over about the last twenty finished requests: of their latencies in nanoseconds, and of how many were in
    /// flight when they came.
    latency: f64,
    company: f64,
}

impl Server {
    pub(super) fn new(discipline: Discipline, cores: f64, speed: f64) -> Self {
        Self {
            discipline,
            cores,
            speed,
            done: 0.0,
            counted: 0,
            shared: BinaryHeap::new(),
            queue: VecDeque::new(),
            in_flight: 0,
            cancelled: Vec::new(),
            version: 0,
            latency: 0.0,
            company: 1.0,
        }
    }

    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// The latency in nanoseconds that the server tells of: what a request would take that came now, as the average of
    /// finished ones by how many more or less are in flight now. Zero before the first answer.
    pub(super) fn latency(&self) -> f64 {
        self.latency * f64::from(self.in_flight + 1) / self.company
    }

    pub(super) fn version(&self) -> u32 {
        self.version
    }

    /// Changes how many cores may be used.
    pub(super) fn set_cores(&mut self, cores: f64, now: u64) {
        self.count(now);
        self.cores = cores;
    }

    /// Work done for one request in a second, as things stand.
    fn rate(&self) -> f64 {
        let share = match self.discipline {
            Discipline::Shared => (self.cores / f64::from(self.in_flight.max(1))).min(1.0),
            Discipline::InOrder => 1.0,
        };
        share * self.speed
    }

    /// Adds up the work done until now.
    fn count(&mut self, now: u64) {
        let passed = (now - self.counted) as f64 / SECOND as f64;
        let work = passed * self.rate();
        self.counted = now;
        self.version = self.version.wrapping_add(1);
        match self.discipline {
            Discipline::Shared => self.done += work,
            Discipline::InOrder => {
                if let Some((left, _)) = self.queue.front_mut() {
                    *left -= work;
                }
            }
        }
    }

    /// Takes a request that needs so much work.
    pub(super) fn arrive(&mut self, number: Number, work: f64, now: u64) {
        self.count(now);
        match self.discipline {
            Discipline::Shared => self.shared.push(Reverse((Work(self.done + work), number))),
            Discipline::InOrder => self.queue.push_back((work, number)),
        }
        self.in_flight += 1;
    }

    /// When the next request will be finished, as things stand.
    pub(super) fn next_completion(&mut self) -> Option<u64> {
        let left = match self.discipline {
            Discipline::Shared => {
                self.drop_cancelled();
                let Reverse((Work(at), _)) = self.shared.peek()?;
                at - self.done
            }
            Discipline::InOrder => self.queue.front()?.0,
        };
        let nanos = (left.max(0.0) / self.rate() * SECOND as f64).ceil();
        Some(self.counted + nanos as u64)
    }

    /// Finishes the next request.
    pub(super) fn complete(&mut self, now: u64) -> Option<Number> {
        self.count(now);
        let number = match self.discipline {
            Discipline::Shared => {
                self.drop_cancelled();
                self.shared.pop()?.0.1
            }
            Discipline::InOrder => self.queue.pop_front()?.1,
        };
        self.in_flight -= 1;
        Some(number)
    }

    /// Notes how long a finished request took, and how many were in flight when it had come.
    pub(super) fn took(&mut self, nanos: u64, company: u32) {
        let (sample, company) = (nanos as f64, f64::from(company));
        if self.latency == 0.0 {
            (self.latency, self.company) = (sample, company);
        }
        self.latency += (sample - self.latency) / 20.0;
        self.company += (company - self.company) / 20.0;
    }

    /// Ends a request that nobody waits for any more.
    pub(super) fn cancel(&mut self, number: Number, now: u64) {
        self.count(now);
        match self.discipline {
            Discipline::Shared => self.cancelled.push(number),
            Discipline::InOrder => self.queue.retain(|(_, other)| *other != number),
        }
        self.in_flight -= 1;
    }

    fn drop_cancelled(&mut self) {
        while let Some(Reverse((_, number))) = self.shared.peek() {
            let Some(at) = self.cancelled.iter().position(|one| one == number) else {
                return;
            };
            self.cancelled.swap_remove(at);
            self.shared.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_requests_share_a_core_and_one_has_it_alone() {
        let mut server = Server::new(Discipline::Shared, 1.0, 1.0);
        server.arrive(0, 1.0, 0);
        server.arrive(1, 2.0, 0);
        assert_eq!(server.next_completion(), Some(2 * SECOND));
        assert_eq!(server.complete(2 * SECOND), Some(0));
        assert_eq!(server.next_completion(), Some(3 * SECOND));
        assert_eq!(server.complete(3 * SECOND), Some(1));
        assert_eq!(server.next_completion(), None);
    }

    #[test]
    fn a_request_uses_one_core_at_most() {
        let mut server = Server::new(Discipline::Shared, 4.0, 2.0);
        server.arrive(0, 1.0, 0);
        assert_eq!(server.next_completion(), Some(SECOND / 2));
        server.set_cores(0.5, SECOND / 4);
        assert_eq!(server.next_completion(), Some(SECOND / 4 + SECOND / 2));
    }

    #[test]
    fn a_cancelled_request_leaves_its_share_to_the_others() {
        let mut server = Server::new(Discipline::Shared, 1.0, 1.0);
        server.arrive(0, 1.0, 0);
        server.arrive(1, 1.5, 0);
        server.cancel(0, SECOND);
        assert_eq!(server.in_flight(), 1);
        assert_eq!(server.next_completion(), Some(2 * SECOND));
        assert_eq!(server.complete(2 * SECOND), Some(1));
    }

    #[test]
    fn in_order_the_second_waits_for_the_first() {
        let mut server = Server::new(Discipline::InOrder, 1.0, 0.5);
        server.arrive(0, 1.0, 0);
        server.arrive(1, 0.1, SECOND);
        assert_eq!(server.next_completion(), Some(2 * SECOND));
        assert_eq!(server.complete(2 * SECOND), Some(0));
        assert_eq!(server.next_completion(), Some(2 * SECOND + SECOND / 5));
    }
}
