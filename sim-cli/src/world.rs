//! The simulation: a year at the airports, in virtual time, on one thread.
//!
//! Every flight is a message, sent at its scheduled departure, and goes exactly one way:
//!
//! | flight | queue | who works there |
//! | --- | --- | --- |
//! | without a tail number (cancelled or not) | `unassigned`, standard | dispatchers |
//! | cancelled, with a tail number | `rebooking`, standard | rebooking desks |
//! | every other | `turn-round`, FIFO, a group per aircraft | gates, which may fail |
//!
//! The sender sometimes does not get its answer and sends a flight of the FIFO queue again: the queue recognises it by
//! its de-duplication id. A worker receives, holds its lease for as long as the work takes, and acknowledges. A gate that crashes drops
//! its delivery and lets the lease expire; one that stalls comes back after its lease has expired and finds its
//! acknowledgement refused. What has been received [`MAX_RECEIVES`] times in vain goes to `dead-letters`. When
//! the year is over, one move task brings the dead letters back to `turn-round`, once; what comes to
//! `dead-letters` again stays there (it is *parked*) and is handed to the inspector at the end.
//!
//! # The loop
//!
//! All actors live in one loop over the virtual clock. The next thing to happen is the earliest of the next
//! departure, the first entry of the agenda (a binary heap; ties in the order in which they were entered) and the
//! next deadline of a queue. Nothing depends on threads, real time or the order of a hash map, so the same rows and
//! the same seed give the same events.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use sim_core::clock::{Clock, VirtualClock};
use sim_core::random::Random;
use sim_core::time::{Instant, Timestamp};
use sim_queue::{
    DeadLetterPolicy, DeduplicationId, Delivery, GroupId, Kind, Message, MoveHandle, MoveTask,
    OnDrop, Queue, QueueConfig,
};

use crate::calendar::Date;
use crate::events::EventLog;
use crate::flights::{Flight, Input, Malformed};

/// How long a gate may hold a flight before it is taken for lost: somewhat more than the longest turn-round.
const LEASE: Duration = minutes(100);
/// Receives after which a flight that still was not acknowledged becomes a dead letter.
pub(crate) const MAX_RECEIVES: u32 = 3;
/// The share of turn-rounds during which something turns up, and the gate extends its lease.
const SNAGS: f64 = 0.02;
/// The lease from then on.
const EXTENDED_LEASE: Duration = minutes(75);
/// The share of flights that the sender sends twice, since it did not get its answer.
const REPEATS: f64 = 0.001;
/// The share of receives that end in a failure of the gate, for ordinary flights.
const FAILURES: f64 = 0.004;
/// The share of flights that are trouble: they are what comes to the dead letters.
const TROUBLED: f64 = 0.001;
/// The share of receives that end in a failure of the gate, for those flights.
const FAILURES_OF_TROUBLED: f64 = 0.75;
/// The share of failures that are crashes; the others are stalls.
const CRASHES: f64 = 0.7;
/// How long a gate stays closed after a crash.
const CLOSED: Duration = minutes(45);
/// The longest time that the move task may take: less than the first moved flight needs to come back as a dead
/// letter (a lease for each receive), so that the task moves no flight twice.
const MOVE_WITHIN: u32 = 3_600;
/// The time between two samples of the queues for the chart; longer for inputs of more than a year or so.
const SAMPLE_EVERY: Duration = minutes(15);
/// The most samples that are taken.
const MAX_SAMPLES: u32 = 50_000;

const fn minutes(count: u64) -> Duration {
    Duration::from_secs(60 * count)
}

/// The way that a flight takes through the airport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// It leaves: a gate turns the aircraft round.
    TurnRound,
    /// It was cancelled: a desk rebooks its passengers.
    Rebooking,
    /// It has no aircraft: a dispatcher looks for one.
    Unassigned,
}

impl Way {
    /// All ways, in the order of their indices.
    pub(crate) const ALL: [Self; 3] = [Self::TurnRound, Self::Rebooking, Self::Unassigned];

    /// The way that `flight` takes. A missing aircraft comes first: nobody can rebook onto what is not known.
    const fn of(flight: &Flight) -> Self {
        if flight.tail.is_none() {
            Self::Unassigned
        } else if flight.is_cancelled() {
            Self::Rebooking
        } else {
            Self::TurnRound
        }
    }

    /// The name of its queue.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::TurnRound => "turn-round",
            Self::Rebooking => "rebooking",
            Self::Unassigned => "unassigned",
        }
    }

    /// What its workers are called.
    const fn worker(self) -> &'static str {
        match self {
            Self::TurnRound => "gate",
            Self::Rebooking => "desk",
            Self::Unassigned => "dispatcher",
        }
    }
}

/// What can be set.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The seed of everything that is left to chance.
    pub(crate) seed: u64,
    /// How many gates there are.
    pub(crate) gates: u32,
    /// How many rebooking desks.
    pub(crate) desks: u32,
    /// How many dispatchers.
    pub(crate) dispatchers: u32,
}

/// Times in whole seconds, for percentiles.
#[derive(Debug, Default)]
pub(crate) struct Latencies(Vec<u32>);

impl Latencies {
    fn record(&mut self, time: Duration) {
        self.0
            .push(u32::try_from(time.as_secs()).unwrap_or(u32::MAX));
    }

    fn sort(&mut self) {
        self.0.sort_unstable();
    }

    /// The time that a share of `permille` thousandths does not exceed (nearest rank), once sorted.
    pub(crate) fn permille(&self, permille: usize) -> Option<Duration> {
        let rank = (self.0.len() * permille).div_ceil(1_000).max(1);
        self.0
            .get(rank - 1)
            .map(|seconds| Duration::from_secs(u64::from(*seconds)))
    }
}

/// What happened on one way.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Flights sent by the schedule.
    pub(crate) sent: u64,
    /// Those that were sent once more, and that the queue recognised.
    pub(crate) repeated: u64,
    /// Deliveries taken by workers.
    pub(crate) received: u64,
    /// Those among them that were not the message's first.
    pub(crate) redelivered: u64,
    /// Flights that were done.
    pub(crate) acknowledged: u64,
    /// Leases that a worker lengthened.
    pub(crate) extended: u64,
    /// Deliveries dropped by a worker that crashed.
    pub(crate) crashed: u64,
    /// Acknowledgements refused because the lease was over.
    pub(crate) refused: u64,
    /// From the sending to the first receive.
    pub(crate) waited: Latencies,
    /// From the receive to the acknowledgement.
    pub(crate) held: Latencies,
}

/// What a queue says of itself at the end.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counters {
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) deleted: u64,
    pub(crate) lapsed: u64,
    pub(crate) deduplicated: u64,
    pub(crate) redriven: u64,
    pub(crate) left: u64,
}

/// The queues at one time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sample {
    /// When.
    pub(crate) at: Timestamp,
    /// Messages that wait, by [`Way`].
    pub(crate) waiting: [u64; 3],
    /// Messages in the hands of workers, by [`Way`].
    pub(crate) in_flight: [u64; 3],
    /// The age of the oldest message, by [`Way`].
    pub(crate) age: [Duration; 3],
    /// Dead letters.
    pub(crate) dead: u64,
}

/// How a row ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Unknown,
    Ended,
    /// It ended more than once: an error of the queue or of the demo.
    Twice,
}

/// What came of a replay.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Rows of the input.
    pub(crate) rows: u64,
    /// Rows read as flights.
    pub(crate) flights: u64,
    /// Rows that were put in order.
    pub(crate) reordered: u64,
    /// Flights that were cancelled, with or without a tail number.
    pub(crate) cancelled: u64,
    /// Flights without a tail number, cancelled or not.
    pub(crate) without_tail: u64,
    /// Flights that are both.
    pub(crate) both: u64,
    /// What the workers counted, by [`Way`].
    pub(crate) tallies: [Tally; 3],
    /// What the queues counted, by [`Way`].
    pub(crate) counters: [Counters; 3],
    /// What the queue of dead letters counted.
    pub(crate) dead_counters: Counters,
    /// Dead letters when the year was over.
    pub(crate) dead_first: u64,
    /// Of those, moved back by the task.
    pub(crate) moved: u64,
    /// Flights that the inspector found parked.
    pub(crate) parked: u64,
    /// Malformed rows that the inspector found.
    pub(crate) malformed: u64,
    /// Rows that ended exactly once.
    pub(crate) ended_once: u64,
    /// When the clock started.
    pub(crate) start: Timestamp,
    /// When the last thing happened.
    pub(crate) end: Timestamp,
    /// The queues over time.
    pub(crate) samples: Vec<Sample>,
}

/// How far a replay is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Progress {
    /// Flights sent.
    pub(crate) sent: u64,
    /// The virtual time.
    pub(crate) now: Timestamp,
}

/// When the clock starts: midnight before the first departure.
pub(crate) fn start(input: &Input) -> Timestamp {
    let first = input
        .flights
        .first()
        .map_or(Timestamp::UNIX_EPOCH, |flight| flight.departure);
    Date::of(first).midnight()
}

/// Replays `input` to the end, by a clock that stands at [`start`].
///
/// # Panics
///
/// When a queue refuses what its configuration allows: the demo's own queues have no limit that could be met.
pub(crate) fn replay(
    input: Input,
    settings: &Settings,
    (clock, time): (Clock, VirtualClock),
    log: &mut EventLog,
    mut progress: impl FnMut(Progress),
) -> Outcome {
    let mut world = World::new(&input, settings, (clock, time), log);
    world.refuse(input.malformed);
    world.run(input.flights, &mut progress);
    if world.start_move() {
        world.run(Vec::new(), &mut progress);
    }
    world.inspect();
    world.finish()
}

/// A worker: a gate, a desk or a dispatcher.
#[derive(Default)]
struct Worker {
    way: usize,
    /// Its number among its like, from 1.
    number: u32,
    /// What it works on.
    holds: Option<Delivery<Flight>>,
    /// Since when.
    since: Instant,
}

/// One way: its queue and who waits there for work.
struct Post {
    queue: Queue<Flight>,
    /// Workers without work, by the time since which they have none.
    idle: VecDeque<usize>,
    tally: Tally,
}

/// What a worker does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Task {
    /// The work is done: acknowledge.
    Finish(usize),
    /// Something turned up: extend the lease, and work on.
    Extend(usize),
    /// The gate crashes: the delivery is dropped.
    Crash(usize),
    /// The gate opens again.
    Open(usize),
    /// The move task takes its next step.
    Move,
}

struct World<'a> {
    log: &'a mut EventLog,
    clock: Clock,
    time: VirtualClock,
    posts: [Post; 3],
    dead_letters: Queue<Flight>,
    malformed: Queue<Malformed>,
    workers: Vec<Worker>,
    /// What is planned, the earliest first; the number breaks ties by the order of planning.
    agenda: BinaryHeap<Reverse<(Instant, u64, Task)>>,
    planned: u64,
    /// Decides what happens to a worker.
    chance: Random,
    /// Decides which answers do not reach the sender.
    sender: Random,
    /// Decides with a flight's row whether it is trouble.
    trouble: u64,
    moving: Option<MoveHandle<Flight>>,
    fates: Vec<Fate>,
    sample_at: Instant,
    sample_every: Duration,
    outcome: Outcome,
}

impl<'a> World<'a> {
    fn new(
        input: &Input,
        settings: &Settings,
        (clock, time): (Clock, VirtualClock),
        log: &'a mut EventLog,
    ) -> Self {
        let start = start(input);
        let queue = |name: &str, kind, lease| -> Queue<Flight> {
            let config = QueueConfig {
                kind,
                visibility_timeout: lease,
                on_drop: OnDrop::Expire,
                seed: settings.seed,
                ..QueueConfig::new(name)
            };
            Queue::with_clock(config, clock.clone()).expect("the demo's own configuration")
        };
        let dead_letters = queue("dead-letters", Kind::fifo(), LEASE);
        let queues = [
            queue(Way::TurnRound.name(), Kind::fifo(), LEASE),
            queue(Way::Rebooking.name(), Kind::Standard, minutes(30)),
            queue(Way::Unassigned.name(), Kind::Standard, minutes(60)),
        ];
        queues[0]
            .set_dead_letters(DeadLetterPolicy::to_queue(&dead_letters, MAX_RECEIVES))
            .expect("the demo's own policy");
        let malformed = Queue::with_clock(QueueConfig::new("malformed"), clock.clone())
            .expect("the demo's own configuration");

        let staff = [settings.gates, settings.desks, settings.dispatchers];
        let mut workers = Vec::new();
        let mut way = 0;
        let posts = queues.map(|queue| {
            let first = workers.len();
            workers.extend((1..=staff[way]).map(|number| Worker {
                way,
                number,
                ..Worker::default()
            }));
            way += 1;
            Post {
                queue,
                idle: (first..workers.len()).collect(),
                tally: Tally::default(),
            }
        });

        let last = input
            .flights
            .last()
            .map_or(start, |flight| flight.departure);
        let span = last - start;
        let random = Random::new(settings.seed);
        let count = |wanted: fn(&Flight) -> bool| {
            input.flights.iter().filter(|flight| wanted(flight)).count() as u64
        };
        log.add(
            Instant::ORIGIN,
            format_args!(
                "start seed={} gates={} desks={} dispatchers={} rows={}",
                settings.seed, settings.gates, settings.desks, settings.dispatchers, input.rows
            ),
        );
        Self {
            log,
            clock,
            time,
            posts,
            dead_letters,
            malformed,
            workers,
            agenda: BinaryHeap::new(),
            planned: 0,
            chance: random.fork("workers"),
            sender: random.fork("sender"),
            trouble: random.fork("trouble").next_u64(),
            moving: None,
            fates: vec![Fate::Unknown; input.rows as usize],
            sample_at: Instant::ORIGIN,
            sample_every: SAMPLE_EVERY.max(span / MAX_SAMPLES),
            outcome: Outcome {
                rows: u64::from(input.rows),
                flights: input.flights.len() as u64,
                reordered: u64::from(input.reordered),
                cancelled: count(Flight::is_cancelled),
                without_tail: count(|flight| flight.tail.is_none()),
                both: count(|flight| flight.tail.is_none() && flight.is_cancelled()),
                tallies: Default::default(),
                counters: Default::default(),
                dead_counters: Counters::default(),
                dead_first: 0,
                moved: 0,
                parked: 0,
                malformed: 0,
                ended_once: 0,
                start,
                end: start,
                samples: Vec::new(),
            },
        }
    }

    /// Puts what could not be read among the dead letters.
    fn refuse(&mut self, malformed: Vec<Malformed>) {
        for row in malformed {
            self.log.add(
                Instant::ORIGIN,
                format_args!("malformed row={} {row}", row.row),
            );
            self.malformed
                .try_send(row)
                .expect("the queue is unbounded and open");
        }
    }

    /// Lets time pass until nothing is left to happen.
    fn run(&mut self, flights: Vec<Flight>, progress: &mut impl FnMut(Progress)) {
        let mut flights = flights.into_iter().peekable();
        let mut sent = 0;
        loop {
            let departure = flights
                .peek()
                .map(|flight| self.clock.instant_of(flight.departure));
            let planned = self.agenda.peek().map(|Reverse((at, ..))| *at);
            let now = self.clock.now();
            // What is due was served when this instant began: a deadline that still stands is no news.
            let deadlines = self
                .posts
                .iter()
                .filter_map(|post| post.queue.next_deadline());
            let deadline = deadlines.filter(|at| *at > now).min();
            let Some(next) = [departure, planned, deadline].into_iter().flatten().min() else {
                break;
            };
            while self.sample_at <= next {
                self.time.advance_to(self.sample_at);
                self.sample();
            }
            self.time.advance_to(next);
            for post in &self.posts {
                post.queue.advance();
            }
            while let Some(Reverse((at, _, task))) = self.agenda.peek().copied()
                && at <= next
            {
                self.agenda.pop();
                self.perform(next, task);
            }
            while let Some(flight) = flights.next_if(|f| self.clock.instant_of(f.departure) <= next)
            {
                self.send(next, flight);
                sent += 1;
                if sent % 1_024 == 0 {
                    progress(Progress {
                        sent,
                        now: flight.departure,
                    });
                }
            }
            self.hand_out(next);
        }
    }

    /// Sends a flight on its way.
    fn send(&mut self, now: Instant, flight: Flight) {
        let way = Way::of(&flight);
        self.log.add(
            now,
            format_args!(
                "send {} row={} {}{} {} {}-{}",
                way.name(),
                flight.row,
                flight.carrier,
                flight.number,
                flight.tail.as_ref().map_or("-", |tail| tail.as_str()),
                flight.origin,
                flight.destination,
            ),
        );
        let post = &mut self.posts[way as usize];
        // The queue is unbounded and open, and takes the demo's groups and ids.
        post.queue
            .try_send(message(way, &flight))
            .expect("a message within the queue's rules");
        post.tally.sent += 1;
        if way == Way::TurnRound && self.sender.chance(REPEATS) {
            // The sender has not got its answer, and sends again: the id tells the queue.
            let again = post.queue.try_send(message(way, &flight));
            let dropped = again.expect("a message within the queue's rules").duplicate;
            post.tally.repeated += u64::from(dropped);
            self.log.add(
                now,
                format_args!("repeat row={} dropped={dropped}", flight.row),
            );
        }
    }

    /// Gives waiting messages to idle workers.
    fn hand_out(&mut self, now: Instant) {
        for way in Way::ALL {
            while let Some(worker) = self.posts[way as usize].idle.front().copied()
                && let Ok(delivery) = self.posts[way as usize].queue.try_receive()
            {
                self.posts[way as usize].idle.pop_front();
                self.start(now, way, worker, delivery);
            }
        }
    }

    /// A worker takes a delivery, and what will happen to it is decided.
    fn start(&mut self, now: Instant, way: Way, worker: usize, delivery: Delivery<Flight>) {
        let count = delivery.receive_count();
        let number = self.workers[worker].number;
        let row = delivery.row;
        self.log.add(
            now,
            format_args!(
                "receive {} {}={number} row={row} count={count}",
                way.name(),
                way.worker()
            ),
        );
        let tally = &mut self.posts[way as usize].tally;
        tally.received += 1;
        if count == 1 {
            // A dead letter that was moved back is a new message: its first receive counts again.
            tally.waited.record(now - delivery.sent_instant());
        } else {
            tally.redelivered += 1;
        }

        let (after, task) = match way {
            Way::TurnRound => self.turn_round(worker, &delivery),
            Way::Rebooking => (self.between(minutes(5), minutes(15)), Task::Finish(worker)),
            Way::Unassigned => (self.between(minutes(10), minutes(30)), Task::Finish(worker)),
        };
        self.workers[worker].holds = Some(delivery);
        self.workers[worker].since = now;
        self.plan(now + after, task);
    }

    /// What a gate will do with a flight, and when.
    fn turn_round(&mut self, worker: usize, flight: &Flight) -> (Duration, Task) {
        // 25 minutes, up to 40 more for fuel and baggage of a long flight, and up to 25 of chance.
        let by_distance =
            Duration::from_secs(u64::from(flight.distance.min(2_600)) * 2_400 / 2_600);
        let work = self.between(minutes(25), minutes(50)) + by_distance;
        let row = u64::from(flight.row);
        let failures = if Random::new(self.trouble ^ row).chance(TROUBLED) {
            FAILURES_OF_TROUBLED
        } else {
            FAILURES
        };
        if self.chance.chance(failures) {
            if self.chance.chance(CRASHES) {
                (self.between(minutes(1), work), Task::Crash(worker))
            } else {
                // It stalls: when it is done, its lease has been over for a while.
                (
                    LEASE + self.between(minutes(1), minutes(30)),
                    Task::Finish(worker),
                )
            }
        } else if self.chance.chance(SNAGS) {
            (work, Task::Extend(worker))
        } else {
            (work, Task::Finish(worker))
        }
    }

    /// A time of whole seconds from `least` up to and without `most`.
    fn between(&mut self, least: Duration, most: Duration) -> Duration {
        least + Duration::from_secs(self.chance.below((most - least).as_secs().max(1)))
    }

    fn plan(&mut self, at: Instant, task: Task) {
        self.planned += 1;
        self.agenda.push(Reverse((at, self.planned, task)));
    }

    /// Does what was planned.
    fn perform(&mut self, now: Instant, task: Task) {
        match task {
            Task::Finish(worker) => self.finish_work(now, worker),
            Task::Extend(worker) => {
                let more = self.between(minutes(20), minutes(60));
                let Worker {
                    way, number, holds, ..
                } = &mut self.workers[worker];
                let post = &mut self.posts[*way];
                let held = holds.as_mut().expect("a worker extends what it holds");
                let extended = held.extend(EXTENDED_LEASE).is_ok();
                post.tally.extended += u64::from(extended);
                let (worker_name, row) = (Way::ALL[*way].worker(), held.row);
                self.log.add(
                    now,
                    format_args!("extend {worker_name}={number} row={row} granted={extended}"),
                );
                self.plan(now + more, Task::Finish(worker));
            }
            Task::Crash(worker) => {
                let held = self.workers[worker].holds.take();
                let row = held.as_ref().map_or(0, |held| held.row);
                let Worker { way, number, .. } = self.workers[worker];
                self.log.add(
                    now,
                    format_args!("crash {}={number} row={row}", Way::ALL[way].worker()),
                );
                self.posts[way].tally.crashed += 1;
                // Dropped, the delivery's lease runs on to its end: the queue was made with `OnDrop::Expire`.
                drop(held);
                self.plan(now + CLOSED, Task::Open(worker));
            }
            Task::Open(worker) => self.posts[self.workers[worker].way].idle.push_back(worker),
            Task::Move => self.step_move(now),
        }
    }

    /// A worker acknowledges what it holds, and is idle.
    fn finish_work(&mut self, now: Instant, worker: usize) {
        let Worker {
            way, number, since, ..
        } = self.workers[worker];
        let held = self.workers[worker]
            .holds
            .take()
            .expect("a worker finishes what it holds");
        let row = held.row;
        let post = &mut self.posts[way];
        let done = held.acknowledge().is_ok();
        if done {
            post.tally.acknowledged += 1;
            post.tally.held.record(now - since);
        } else {
            post.tally.refused += 1;
        }
        post.idle.push_back(worker);
        let event = if done { "acknowledge" } else { "refused" };
        let name = Way::ALL[way].worker();
        self.log
            .add(now, format_args!("{event} {name}={number} row={row}"));
        if done {
            self.end(row);
        }
    }

    /// A row has come to its end.
    fn end(&mut self, row: u32) {
        let fate = &mut self.fates[row as usize - 1];
        *fate = if *fate == Fate::Unknown {
            Fate::Ended
        } else {
            Fate::Twice
        };
    }

    /// Starts to move the dead letters back; false when there is none.
    fn start_move(&mut self) -> bool {
        let now = self.clock.now();
        let dead = self.dead_letters.stats().visible;
        self.outcome.dead_first = dead;
        if dead == 0 {
            return false;
        }
        let rate = u32::try_from(dead)
            .unwrap_or(u32::MAX)
            .div_ceil(MOVE_WITHIN);
        let task = MoveTask {
            max_per_second: Some(rate),
            ..MoveTask::default()
        };
        let moving = self
            .dead_letters
            .start_move(task)
            .expect("the first task of the queue");
        self.log
            .add(now, format_args!("move dead-letters={dead} rate={rate}"));
        self.moving = Some(moving);
        self.plan(now, Task::Move);
        true
    }

    /// Moves what the rate allows, and plans the step after this one.
    fn step_move(&mut self, now: Instant) {
        let Some(moving) = &self.moving else { return };
        let progress = moving.step();
        self.outcome.moved = progress.moved;
        self.log.add(
            now,
            format_args!("moved {} {:?}", progress.moved, progress.status),
        );
        match moving.next_step() {
            // A step that could go on at once has its turn after what else is due.
            Some(next) => self.plan(next.max(now), Task::Move),
            None => self.moving = None,
        }
    }

    /// The inspector takes out what was parked: the flights that failed again, and the malformed rows.
    fn inspect(&mut self) {
        let now = self.clock.now();
        while let Ok(letter) = self.dead_letters.try_receive() {
            let row = letter.row;
            let (from, receives) = letter
                .dead_letter()
                .map_or(("-", 0), |origin| (origin.source(), origin.receive_count()));
            let event = format_args!("parked row={row} from={from} receives={receives}");
            self.log.add(now, event);
            if letter.acknowledge().is_ok() {
                self.outcome.parked += 1;
                self.end(row);
            }
        }
        while let Ok(letter) = self.malformed.try_receive() {
            let row = letter.row;
            if letter.acknowledge().is_ok() {
                self.outcome.malformed += 1;
                self.end(row);
            }
        }
    }

    /// Looks at the queues for the chart.
    fn sample(&mut self) {
        let mut sample = Sample {
            at: self.clock.timestamp(self.sample_at),
            ..Sample::default()
        };
        for (way, post) in self.posts.iter().enumerate() {
            let stats = post.queue.stats();
            sample.waiting[way] = stats.visible;
            sample.in_flight[way] = stats.in_flight;
            sample.age[way] = stats.oldest_age.unwrap_or_default();
        }
        sample.dead = self.dead_letters.stats().visible;
        self.outcome.samples.push(sample);
        self.sample_at = self.sample_at + self.sample_every;
    }

    /// Reads what the queues counted, and adds up.
    fn finish(self) -> Outcome {
        let mut outcome = self.outcome;
        for (way, post) in self.posts.into_iter().enumerate() {
            outcome.counters[way] = counters(&post.queue);
            outcome.tallies[way] = post.tally;
            outcome.tallies[way].waited.sort();
            outcome.tallies[way].held.sort();
        }
        outcome.dead_counters = counters(&self.dead_letters);
        outcome.ended_once = self
            .fates
            .iter()
            .filter(|fate| **fate == Fate::Ended)
            .count() as u64;
        outcome.end = self.clock.timestamp(self.clock.now());
        outcome
    }
}

/// The message of a flight: on a FIFO queue in the group of its aircraft, and known by its row.
fn message(way: Way, flight: &Flight) -> Message<Flight> {
    let message = Message::new(*flight);
    match (way, &flight.tail) {
        (Way::TurnRound, Some(tail)) => message
            .group(GroupId::new(tail.as_str()).expect("a code is a valid group"))
            .deduplication_id(
                DeduplicationId::new(flight.row.to_string()).expect("a number is a valid id"),
            ),
        _ => message,
    }
}

/// What a queue counted.
fn counters(queue: &Queue<Flight>) -> Counters {
    let stats = queue.stats();
    Counters {
        sent: stats.sent,
        received: stats.received,
        deleted: stats.deleted,
        lapsed: stats.lapsed,
        deduplicated: stats.deduplicated,
        redriven: stats.redriven,
        left: stats.visible + stats.in_flight,
    }
}
