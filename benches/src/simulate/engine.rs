//! The engine: requests come, real balancers choose, servers work, all in virtual time and from one seed.
//!
//! Every balancer is a [`Balancer`] on one virtual clock, which stands at the time of the event that is handled. What is
//! random about the load (when requests come, what they need, through which balancer, which servers are slow)
//! depends on the seed alone and not on what is chosen, so that all algorithms face the same load.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use sim_balancer::{Algorithm, Balancer, BalancerConfig, Feedback, Lease, Outcome, Target};
use sim_core::clock::{Clock, VirtualClock};
use sim_core::random::Random;
use sim_core::time::{Instant, Timestamp};

use super::server::{Discipline, Number, SECOND, Server};
use crate::pattern::Failure;

/// Servers, balancers and their load.
#[derive(Clone, Debug)]
pub struct Scene {
    /// From what all chances follow.
    pub seed: u64,
    /// The servers.
    pub servers: Vec<Machine>,
    /// How the servers work.
    pub discipline: Discipline,
    /// When and how much other programs on the servers' machines take.
    pub antagonists: Option<Antagonists>,
    /// Requests a second, over all balancers, as a Poisson process.
    pub rate: f64,
    /// What a request needs, in seconds of a core of speed one.
    pub work: Demand,
    /// After how long a request is given up; it counts as an error, and as that long.
    pub timeout: Option<Duration>,
    /// Balancers that know nothing of each other.
    pub balancers: u32,
    /// How long requests come, and for how long of it they are not counted.
    pub lasts: Duration,
    /// The time until things have settled.
    pub settles: Duration,
}

/// A server's machine.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// Cores, without antagonists.
    pub cores: f64,
    /// Work that a core does in a second.
    pub speed: f64,
}

/// Other programs on the same machines: they leave a server at least its allocation, and sometimes no more.
///
/// Each server's share is drawn anew once a period; servers change at evenly spread times.
#[derive(Clone, Copy, Debug)]
pub struct Antagonists {
    /// How long a draw lasts.
    pub period: Duration,
    /// The probability that a server has its allocation and no more.
    pub hobbled: f64,
    /// Otherwise it may use so many times its allocation, drawn evenly from this stretch.
    pub spare: (f64, f64),
}

/// How much work a request needs.
#[derive(Clone, Copy, Debug)]
pub enum Demand {
    /// Exponentially distributed with this mean.
    Exponential(f64),
    /// Normally distributed with a deviation as large as this mean, and drawn again when negative.
    Normal(f64),
}

/// The mean of a standard normal of mean 1 and deviation 1 that is drawn again when negative: 1 + phi(1) / Phi(1).
const NORMAL_MEAN: f64 = 1.287_599_970_939_178;

impl Demand {
    /// The mean of what is drawn.
    #[must_use]
    pub fn mean(self) -> f64 {
        match self {
            Self::Exponential(mean) => mean,
            Self::Normal(mean) => mean * NORMAL_MEAN,
        }
    }

    fn draw(self, random: &mut Random) -> f64 {
        match self {
            Self::Exponential(mean) => exponential(random) * mean,
            Self::Normal(mean) => loop {
                // Box and Muller, 1958.
                let radius = (2.0 * exponential(random)).sqrt();
                let normal = radius * (std::f64::consts::TAU * random.unit()).cos();
                if normal > -1.0 {
                    return mean * (1.0 + normal);
                }
            },
        }
    }
}

/// Exponentially distributed with mean 1.
fn exponential(random: &mut Random) -> f64 {
    -(1.0 - random.unit()).ln()
}

/// Who balances.
#[derive(Clone, Debug)]
pub struct Contender {
    /// The name in tables.
    pub name: &'static str,
    /// The algorithm of each balancer.
    pub algorithm: Algorithm,
    /// Whether servers tell of their load with each response.
    pub feedback: bool,
    /// Servers that are asked of their load for each request.
    pub probes: u32,
}

/// What came out.
#[derive(Clone, Debug, Default)]
pub struct Outturn {
    /// Requests counted.
    pub count: usize,
    /// Of these, those given up.
    pub errors: usize,
    /// The mean latency in seconds.
    pub mean: f64,
    /// Latencies in milliseconds at 50, 90, 99 and 99.9 %.
    pub percentiles: [f64; 4],
}

impl Outturn {
    /// The latency at 99 %, in milliseconds.
    #[must_use]
    pub fn p99(&self) -> f64 {
        self.percentiles[2]
    }

    /// Requests given up, in percent.
    #[must_use]
    pub fn error_percent(&self) -> f64 {
        100.0 * self.errors as f64 / self.count.max(1) as f64
    }

    fn of(mut latencies: Vec<u64>, errors: usize) -> Self {
        let count = latencies.len();
        if count == 0 {
            return Self::default();
        }
        latencies.sort_unstable();
        let sum: u128 = latencies.iter().map(|&nanos| u128::from(nanos)).sum();
        let at = |share: f64| {
            let rank = (count as f64 * share).ceil() as usize;
            latencies[rank.clamp(1, count) - 1] as f64 / 1e6
        };
        Self {
            count,
            errors,
            mean: sum as f64 / count as f64 / SECOND as f64,
            percentiles: [at(0.5), at(0.9), at(0.99), at(0.999)],
        }
    }
}

/// A request in flight.
struct Flight {
    came: u64,
    server: u32,
    /// Requests in flight there when it came, itself included.
    company: u32,
    /// Gone once it is finished.
    lease: Option<Lease<usize>>,
}

struct World<'a> {
    scene: &'a Scene,
    contender: &'a Contender,
    time: VirtualClock,
    balancers: Vec<Balancer<usize>>,
    servers: Vec<Server>,
    /// Announced completions: when, the server and its version then.
    completions: BinaryHeap<Reverse<(u64, u32, u32)>>,
    /// Requests from the oldest that is in flight on; with its number.
    flights: VecDeque<Flight>,
    first: Number,
    latencies: Vec<u64>,
    errors: usize,
}

/// Has the contender balance the scene.
///
/// # Errors
/// When a balancer refuses its configuration, a target or a pick.
pub fn play(scene: &Scene, contender: &Contender) -> Result<Outturn, Failure> {
    let mut world = World::new(scene, contender)?;
    let random = Random::new(scene.seed);
    let mut arrivals = random.fork("arrivals");
    let mut demands = random.fork("demands");
    let mut ways = random.fork("ways");
    let mut antagonists = random.fork("antagonists");

    let end = nanos(scene.lasts);
    let gap = |random: &mut Random| (exponential(random) / scene.rate * SECOND as f64) as u64;
    let mut next_arrival = gap(&mut arrivals);
    let mut next_draw = 0;
    let mut drawn = 0_usize;
    let every = scene.antagonists.map(|all| {
        let servers = scene.servers.len().max(1) as u64;
        (nanos(all.period) / servers).max(1)
    });
    if let Some(all) = scene.antagonists {
        for server in 0..scene.servers.len() {
            world.squeeze(server, all, &mut antagonists, 0);
        }
    }
    loop {
        let completion = world.next_completion();
        let timeout = world.next_timeout();
        let draw = every.map_or(u64::MAX, |_| next_draw);
        let now = next_arrival.min(completion).min(timeout).min(draw);
        // What came before the end is played to its own end, so that no long latency is missing.
        if now == u64::MAX || (next_arrival == u64::MAX && world.flights.is_empty()) {
            break;
        }
        world.time.advance_to(Instant::from_nanos(now));
        if now == completion {
            world.complete(now);
        } else if now == timeout {
            world.give_up(now);
        } else if now == next_arrival {
            let way = ways.below(u64::from(scene.balancers)) as usize;
            world.arrive(way, scene.work.draw(&mut demands), now)?;
            next_arrival = now + gap(&mut arrivals).max(1);
            if next_arrival >= end {
                next_arrival = u64::MAX;
            }
        } else if let (Some(all), Some(every)) = (scene.antagonists, every) {
            world.squeeze(drawn % scene.servers.len(), all, &mut antagonists, now);
            drawn += 1;
            next_draw = now + every;
        }
    }
    Ok(Outturn::of(world.latencies, world.errors))
}

impl<'a> World<'a> {
    fn new(scene: &'a Scene, contender: &'a Contender) -> Result<Self, Failure> {
        let (clock, time) = Clock::virtual_at(Timestamp::from_unix_seconds(1_356_998_400));
        let balancers = (0..scene.balancers).map(|number| {
            let seed = scene.seed ^ ((u64::from(number) + 1) << 32);
            open(scene.servers.len(), contender, seed, &clock)
        });
        let server = |one: &Machine| Server::new(scene.discipline, one.cores, one.speed);
        Ok(Self {
            scene,
            contender,
            time,
            balancers: balancers.collect::<Result<_, Failure>>()?,
            servers: scene.servers.iter().map(server).collect(),
            completions: BinaryHeap::new(),
            flights: VecDeque::new(),
            first: 0,
            latencies: Vec::new(),
            errors: 0,
        })
    }

    /// When the next request is finished.
    fn next_completion(&mut self) -> u64 {
        while let Some(&Reverse((at, server, version))) = self.completions.peek() {
            if self.servers[server as usize].version() == version {
                return at;
            }
            self.completions.pop();
        }
        u64::MAX
    }

    /// When the oldest request in flight is given up.
    fn next_timeout(&mut self) -> u64 {
        while self
            .flights
            .front()
            .is_some_and(|flight| flight.lease.is_none())
        {
            self.flights.pop_front();
            self.first += 1;
        }
        match (self.flights.front(), self.scene.timeout) {
            (Some(flight), Some(timeout)) => flight.came + nanos(timeout),
            _ => u64::MAX,
        }
    }

    /// Announces the next completion of a server that has changed.
    fn announce(&mut self, server: usize) {
        let changed = &mut self.servers[server];
        if let Some(at) = changed.next_completion() {
            let entry = (at, server as u32, changed.version());
            self.completions.push(Reverse(entry));
        }
    }

    fn arrive(&mut self, way: usize, work: f64, now: u64) -> Result<(), Failure> {
        let balancer = &self.balancers[way];
        let lease = balancer
            .try_pick()
            .map_err(|error| Failure(format!("{}: {error}", self.contender.name)))?;
        let server = *lease;
        let number = self.first + self.flights.len() as Number;
        self.servers[server].arrive(number, work, now);
        self.flights.push_back(Flight {
            came: now,
            server: server as u32,
            company: self.servers[server].in_flight(),
            lease: Some(lease),
        });
        if self.contender.probes > 0 {
            for target in self.balancers[way].sample(self.contender.probes as usize) {
                target.observe(feedback(&self.servers[*target]));
            }
        }
        self.announce(server);
        Ok(())
    }

    fn complete(&mut self, now: u64) {
        let Some(Reverse((_, server, _))) = self.completions.pop() else {
            return;
        };
        let server = server as usize;
        let Some(number) = self.servers[server].complete(now) else {
            return;
        };
        let flight = &mut self.flights[(number - self.first) as usize];
        let (came, company, lease) = (flight.came, flight.company, flight.lease.take());
        self.servers[server].took(now - came, company);
        if let Some(lease) = lease {
            if self.contender.feedback {
                lease.observe(feedback(&self.servers[server]));
            }
            lease.complete(Outcome::Success);
        }
        self.note(came, now);
        self.announce(server);
    }

    fn give_up(&mut self, now: u64) {
        let number = self.first;
        let Some(flight) = self.flights.front_mut() else {
            return;
        };
        let (came, server) = (flight.came, flight.server as usize);
        if let Some(lease) = flight.lease.take() {
            lease.complete(Outcome::Failure);
        }
        self.servers[server].cancel(number, now);
        if self.note(came, now) {
            self.errors += 1;
        }
        self.announce(server);
    }

    /// Notes how long a request took, if it counts.
    fn note(&mut self, came: u64, now: u64) -> bool {
        let counts = came >= nanos(self.scene.settles);
        if counts {
            self.latencies.push(now - came);
        }
        counts
    }

    /// Draws anew what antagonists leave a server.
    fn squeeze(&mut self, server: usize, all: Antagonists, random: &mut Random, now: u64) {
        let hobbled = random.chance(all.hobbled);
        let spare = all.spare.0 + random.unit() * (all.spare.1 - all.spare.0);
        let times = if hobbled { 1.0 } else { spare };
        let cores = self.scene.servers[server].cores * times;
        self.servers[server].set_cores(cores, now);
        self.announce(server);
    }
}

/// What a server tells of its load.
fn feedback(server: &Server) -> Feedback {
    Feedback {
        in_flight: server.in_flight(),
        latency: Some(Duration::from_nanos(server.latency() as u64)),
        ..Feedback::default()
    }
}

/// A balancer over so many servers, each known by its number.
fn open(
    servers: usize,
    contender: &Contender,
    seed: u64,
    clock: &Clock,
) -> Result<Balancer<usize>, Failure> {
    let config = BalancerConfig {
        algorithm: contender.algorithm.clone(),
        seed,
        ..BalancerConfig::default()
    };
    let failed = |error: &dyn std::fmt::Display| Failure(format!("{}: {error}", contender.name));
    let balancer = Balancer::with_clock(config, clock.clone()).map_err(|error| failed(&error))?;
    let targets = (0..servers).map(|number| Target::new(format!("server-{number}"), number));
    match balancer.register_all(targets).first() {
        Some(error) => Err(failed(error)),
        None => Ok(balancer),
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_has_the_mean_that_it_claims() {
        let mut random = Random::new(1);
        for demand in [Demand::Normal(0.01), Demand::Exponential(0.01)] {
            let sum: f64 = (0..100_000).map(|_| demand.draw(&mut random)).sum();
            let mean = sum / 100_000.0;
            assert!((mean / demand.mean() - 1.0).abs() < 0.01, "{mean}");
        }
    }
}
