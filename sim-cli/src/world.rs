//! The simulation: a year at the airports, in virtual time, on one thread.
//!
//! Every flight enters the [pipeline](crate::pipeline) at its scheduled departure, and comes out at the queues whose
//! filters it passes: none, one or several. Desks and crews, as many as each queue's [staff](crate::staff) has called, lease what
//! stands there, hold the lease for as long as the work takes, and acknowledge. One that crashes drops its delivery and lets
//! the lease expire, and another worker is called in its place; one that stalls comes back after its lease has expired and
//! finds its acknowledgement refused. What has been received [`MAX_RECEIVES`]
//! times in vain goes to `dead-letters`. When the year is over, one move task brings the dead letters back to where
//! they came from, once; what comes to `dead-letters` again stays there (it is *parked*) and is handed to the
//! inspector at the end.
//!
//! # The loop
//!
//! All actors live in one loop over the virtual clock. The next thing to happen is the earliest of the next
//! departure, the first entry of the agenda (a binary heap; ties in the order in which they were entered) and the
//! next deadline of the pipeline and of the staff. Nothing depends on threads, real time or the order of a hash map, so the same rows
//! and the same seed give the same events.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use sim_balancer::{Lease, Outcome as Ending};
use sim_core::clock::{Clock, VirtualClock};
use sim_core::random::Random;
use sim_core::time::{Instant, Timestamp};
use sim_queue::{DeadLetterPolicy, Delivery, MoveHandle, MoveTask, Queue, QueueConfig};
use sim_scaling::InstanceId;

use crate::calendar::Date;
use crate::events::EventLog;
use crate::flights::{Flight, Input, Malformed};
use crate::pipeline::{LEASE, Notice, Pipeline, VISIBILITY, Way};
use crate::staff::Staff;

/// Receives after which a flight that still was not acknowledged becomes a dead letter.
pub(crate) const MAX_RECEIVES: u32 = 3;
/// The share of batches after which a publisher crashes.
const PUBLISHER_CRASHES: f64 = 0.001;
/// The share of works during which something turns up, and the worker extends its lease.
const SNAGS: f64 = 0.02;
/// The lease from then on.
const EXTENDED_LEASE: Duration = minutes(75);
/// The share of receives that end in a failure of the worker, for ordinary flights.
const FAILURES: f64 = 0.01;
/// The share of flights that are trouble: they are what comes to the dead letters.
const TROUBLED: f64 = 0.003;
/// The share of receives that end in a failure of the worker, for those flights.
const FAILURES_OF_TROUBLED: f64 = 0.75;
/// The share of failures that are crashes; the others are stalls.
const CRASHES: f64 = 0.7;
/// The longest time that a move may take: less than the first moved flight needs to come back as a dead letter (a
/// lease for each receive), so that a task moves no flight twice.
const MOVE_WITHIN: u32 = 3_600;
/// The time between two samples of the queues for the chart; longer for inputs of more than a year or so.
const SAMPLE_EVERY: Duration = minutes(15);
/// The most samples that are taken.
const MAX_SAMPLES: u32 = 50_000;

const fn minutes(count: u64) -> Duration {
    Duration::from_secs(60 * count)
}

impl Way {
    /// What its workers are called.
    const fn worker(self) -> &'static str {
        match self {
            Self::Rebooking | Self::Late => "desk",
            Self::LongHaul => "crew",
        }
    }

    /// The least and the most time that its work takes.
    const fn work(self) -> (Duration, Duration) {
        match self {
            Self::Rebooking => (minutes(5), minutes(15)),
            Self::Late => (minutes(5), minutes(20)),
            Self::LongHaul => (minutes(2), minutes(5)),
        }
    }
}

/// What can be set.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The seed of everything that is left to chance.
    pub(crate) seed: u64,
    /// How many workers there may be at each queue.
    pub(crate) workers: u32,
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
    /// Flights of the input that the filter ought to take.
    pub(crate) expected: u64,
    /// Flights that ended here, each once.
    pub(crate) ended_once: u64,
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
    /// Acknowledgements refused because the lease was over and the message went on.
    pub(crate) refused: u64,
    /// Acknowledgements granted though the lease was over, since a standard queue had not given the message to another.
    pub(crate) granted_late: u64,
    /// Dead letters moved back, once.
    pub(crate) moved: u64,
    /// Dead letters that the inspector found.
    pub(crate) parked: u64,
    /// From the departure to the first receive.
    pub(crate) waited: Latencies,
    /// From the receive to the acknowledgement.
    pub(crate) held: Latencies,
}

/// What the staff of a queue says of itself at the end.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hired {
    /// Workers called.
    pub(crate) called: u64,
    /// Workers gone: sent home, or replaced after a crash.
    pub(crate) gone: u64,
    /// Workers there at the end, or on their way.
    pub(crate) left: u64,
    /// Workers found unfit.
    pub(crate) unfit: u64,
    /// Works that the balancer gave out and got back.
    pub(crate) works: u64,
    /// Works that it did not get back.
    pub(crate) outstanding: u64,
    /// The most workers in service in any sample.
    pub(crate) most: u64,
    /// Time in service, all workers together, in samples.
    pub(crate) sampled: u64,
}

/// What a queue and its subscription say of themselves at the end.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counters {
    pub(crate) delivered: u64,
    pub(crate) filtered: u64,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) deleted: u64,
    pub(crate) lapsed: u64,
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
    /// Workers in service, by [`Way`].
    pub(crate) workers: [u64; 3],
    /// Dead letters.
    pub(crate) dead: u64,
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
    /// Records that the stream took.
    pub(crate) put: u64,
    /// Records that publishers read.
    pub(crate) read: u64,
    /// Publishers that crashed.
    pub(crate) publishers_crashed: u64,
    /// Messages that the topic took.
    pub(crate) published: u64,
    /// Messages that it recognised.
    pub(crate) recognised: u64,
    /// Flights that the topic took out of their carrier's order.
    pub(crate) disordered: u64,
    /// What the workers counted, by [`Way`].
    pub(crate) tallies: [Tally; 3],
    /// What the queues and subscriptions counted, by [`Way`].
    pub(crate) counters: [Counters; 3],
    /// Who was called to work, by [`Way`].
    pub(crate) hired: [Hired; 3],
    /// What is left in the queue of dead letters.
    pub(crate) dead_left: u64,
    /// Malformed rows that the inspector found.
    pub(crate) malformed: u64,
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
    /// Flights put.
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
/// When a part refuses what its configuration allows: the demo's own have no limit that could be met.
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

/// A worker at work.
struct Work {
    way: Way,
    /// Who; given back, they are free for the next.
    worker: Lease<InstanceId>,
    /// What it works on.
    holds: Delivery<Notice>,
    /// Since when.
    since: Instant,
    /// Until when its lease on the message stands.
    until: Instant,
}

/// One queue's place of work.
struct Post {
    staff: Staff,
    tally: Tally,
    /// How often each row ended here.
    ended: Vec<u8>,
}

/// What happens next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Task {
    /// The work is done: acknowledge.
    Finish(usize),
    /// Something turned up: extend the lease, and work on.
    Extend(usize),
    /// The worker crashes: the delivery is dropped.
    Crash(usize),
    /// The lease of a publisher that crashed may be over: others look whether they can take it.
    Recover,
    /// The stream is split, or merged again.
    Reshard,
    /// The move task of a queue takes its next step.
    Move(usize),
}

struct World<'a> {
    log: &'a mut EventLog,
    clock: Clock,
    time: VirtualClock,
    pipeline: Pipeline,
    posts: [Post; 3],
    /// The dead letters of each queue.
    dead_letters: [Queue<Notice>; 3],
    malformed: Queue<Malformed>,
    /// Works under way, and places for more.
    works: Vec<Option<Work>>,
    free: Vec<usize>,
    /// What is planned, the earliest first; the number breaks ties by the order of planning.
    agenda: BinaryHeap<Reverse<(Instant, u64, Task)>>,
    planned: u64,
    /// Decides what happens to a worker.
    chance: Random,
    /// Decides which publishers crash.
    crashes: Random,
    /// Decides with a flight's row whether it is trouble.
    trouble: u64,
    /// What brings the dead letters of each queue back.
    moving: [Option<MoveHandle<Notice>>; 3],
    /// The latest departure that the topic took, by carrier.
    latest: Vec<(crate::flights::Code, Timestamp)>,
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
        let pipeline = Pipeline::new(settings.seed, &clock).expect("the demo's own settings");
        let dead_letters = pipeline.queues.each_ref().map(|queue| {
            let config = QueueConfig {
                kind: queue.config().kind.clone(),
                ..QueueConfig::new("dead-letters")
            };
            let dead = Queue::with_clock(config, clock.clone()).expect("the demo's own settings");
            queue
                .set_dead_letters(DeadLetterPolicy::to_queue(&dead, MAX_RECEIVES))
                .expect("the demo's own policy");
            dead
        });
        let malformed = Queue::with_clock(QueueConfig::new("malformed"), clock.clone())
            .expect("the demo's own settings");

        let last = input
            .flights
            .last()
            .map_or(start, |flight| flight.departure);
        let span = last - start;
        let posts = Way::ALL.map(|way| {
            let queue = &pipeline.queues[way as usize];
            let Settings { seed, workers } = *settings;
            let staff = Staff::new(way.name(), queue, workers, seed, span, &clock);
            let expected = input.flights.iter().filter(|flight| way.takes(flight));
            Post {
                staff: staff.expect("the demo's own settings"),
                tally: Tally {
                    expected: expected.count() as u64,
                    ..Tally::default()
                },
                ended: vec![0; input.rows as usize],
            }
        });

        let random = Random::new(settings.seed);
        log.add(
            Instant::ORIGIN,
            format_args!(
                "start seed={} workers={} rows={}",
                settings.seed, settings.workers, input.rows
            ),
        );
        let mut world = Self {
            log,
            clock,
            time,
            pipeline,
            posts,
            dead_letters,
            malformed,
            works: Vec::new(),
            free: Vec::new(),
            agenda: BinaryHeap::new(),
            planned: 0,
            chance: random.fork("workers"),
            crashes: random.fork("publishers"),
            trouble: random.fork("trouble").next_u64(),
            moving: [const { None }; 3],
            latest: Vec::new(),
            sample_at: Instant::ORIGIN,
            sample_every: SAMPLE_EVERY.max(span / MAX_SAMPLES),
            outcome: Outcome {
                rows: u64::from(input.rows),
                flights: input.flights.len() as u64,
                reordered: u64::from(input.reordered),
                put: 0,
                read: 0,
                publishers_crashed: 0,
                published: 0,
                recognised: 0,
                disordered: 0,
                tallies: Default::default(),
                counters: Default::default(),
                hired: Default::default(),
                dead_left: 0,
                malformed: 0,
                start,
                end: start,
                samples: Vec::new(),
            },
        };
        // The stream is resharded twice while it is written and read.
        world.plan(Instant::ORIGIN + span / 3, Task::Reshard);
        world.plan(Instant::ORIGIN + span / 3 * 2, Task::Reshard);
        world
    }

    /// Puts what could not be read where the inspector finds it.
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
            let deadline = self.pipeline.next_deadline(now);
            // The staff looks at its queue for ever; while nothing else will happen and nothing waits, the year is over.
            let is_over = departure.is_none() && planned.is_none() && deadline.is_none();
            if is_over && self.is_idle() {
                break;
            }
            let posts = self.posts.iter();
            let staff = posts.filter_map(|post| post.staff.next_deadline()).min();
            let all = [departure, planned, deadline, staff.map(|at| at.max(now))];
            let Some(next) = all.into_iter().flatten().min() else {
                break;
            };
            while self.sample_at <= next {
                self.time.advance_to(self.sample_at);
                self.sample();
            }
            self.time.advance_to(next);
            self.pipeline.advance(next);
            self.call_workers(next);
            while let Some(Reverse((at, _, task))) = self.agenda.peek().copied()
                && at <= next
            {
                self.agenda.pop();
                self.perform(next, task);
            }
            while let Some(flight) = flights.next_if(|f| self.clock.instant_of(f.departure) <= next)
            {
                self.put(next, flight);
                sent += 1;
                if sent % 1_024 == 0 {
                    progress(Progress {
                        sent,
                        now: flight.departure,
                    });
                }
            }
            self.publish(next);
            self.hand_out(next);
        }
    }

    /// A flight enters the stream.
    fn put(&mut self, now: Instant, flight: Flight) {
        let shard = self.pipeline.put(flight);
        self.log.add(
            now,
            format_args!(
                "put {shard} row={} {}{} {} {}-{}",
                flight.row,
                flight.carrier,
                flight.number,
                flight.tail.as_ref().map_or("-", |tail| tail.as_str()),
                flight.origin,
                flight.destination,
            ),
        );
    }

    /// Publishers read what has come, and publish it.
    fn publish(&mut self, now: Instant) {
        let Self {
            log,
            pipeline,
            crashes,
            latest,
            outcome,
            ..
        } = self;
        let mut crash = |publisher: u64| {
            let crashes = crashes.chance(PUBLISHER_CRASHES);
            if crashes {
                log.add(now, format_args!("crash publisher={publisher}"));
            }
            crashes
        };
        let mut again = Vec::new();
        let crashed = pipeline.crashed;
        pipeline.pump(&mut crash, |flight, publisher, recognised| {
            if recognised {
                again.push((flight.row, publisher));
                return;
            }
            match latest
                .iter_mut()
                .find(|(carrier, _)| *carrier == flight.carrier)
            {
                Some((_, latest)) => {
                    outcome.disordered += u64::from(flight.departure < *latest);
                    *latest = flight.departure;
                }
                None => latest.push((flight.carrier, flight.departure)),
            }
        });
        if self.pipeline.crashed > crashed {
            // The lease ends, and one that was asked for on the way is given after as long again.
            for times in 1..=4 {
                self.plan(now + LEASE * times, Task::Recover);
            }
        }
        for (row, publisher) in again {
            self.log.add(
                now,
                format_args!("recognised row={row} publisher={publisher}"),
            );
        }
    }

    /// Whether no message is in any queue that workers see.
    fn is_idle(&self) -> bool {
        let queues = self.pipeline.queues.iter().map(Queue::stats);
        queues
            .map(|stats| stats.visible + stats.in_flight + stats.delayed)
            .sum::<u64>()
            == 0
    }

    /// Groups call workers and send them home.
    fn call_workers(&mut self, now: Instant) {
        for way in Way::ALL {
            let staff = &mut self.posts[way as usize].staff;
            if staff.next_deadline().is_none_or(|at| at > now) {
                continue;
            }
            let before = staff.stats();
            staff.advance(now);
            let after = staff.stats();
            if (before.desired, before.in_service) != (after.desired, after.in_service) {
                self.log.add(
                    now,
                    format_args!(
                        "staff {} desired={} in-service={}",
                        way.name(),
                        after.desired,
                        after.in_service
                    ),
                );
            }
        }
    }

    /// Gives waiting messages to workers without work.
    fn hand_out(&mut self, now: Instant) {
        for way in Way::ALL {
            // A lease on a worker for whom there is nothing goes back with the end of the loop.
            while let Some(worker) = self.posts[way as usize].staff.try_pick()
                && let Ok(delivery) = self.pipeline.queues[way as usize].try_receive()
            {
                self.start(now, way, worker, delivery);
            }
        }
    }

    /// A worker takes a delivery, and what will happen to it is decided.
    fn start(
        &mut self,
        now: Instant,
        way: Way,
        worker: Lease<InstanceId>,
        delivery: Delivery<Notice>,
    ) {
        let count = delivery.receive_count();
        let number = worker.number();
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
        let place = self.free.pop().unwrap_or(self.works.len());
        if place == self.works.len() {
            self.works.push(None);
        }
        self.works[place] = Some(Work {
            way,
            worker,
            holds: delivery,
            since: now,
            until: now + VISIBILITY,
        });
        let (after, task) = self.decide(way, place, row);
        self.plan(now + after, task);
    }

    /// What a worker will do with a flight, and when.
    fn decide(&mut self, way: Way, work_at: usize, row: u32) -> (Duration, Task) {
        let (least, most) = way.work();
        let work = self.between(least, most);
        let failures = if Random::new(self.trouble ^ u64::from(row)).chance(TROUBLED) {
            FAILURES_OF_TROUBLED
        } else {
            FAILURES
        };
        if self.chance.chance(failures) {
            if self.chance.chance(CRASHES) {
                (self.between(minutes(1), work), Task::Crash(work_at))
            } else {
                // It stalls: when it is done, its lease has been over for a while.
                let late = self.between(minutes(1), minutes(30));
                (VISIBILITY + late, Task::Finish(work_at))
            }
        } else if self.chance.chance(SNAGS) {
            (work, Task::Extend(work_at))
        } else {
            (work, Task::Finish(work_at))
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
            Task::Finish(place) => self.finish_work(now, place),
            Task::Extend(place) => {
                let more = self.between(minutes(20), minutes(60));
                let work = self.works[place].as_mut();
                let work = work.expect("a worker extends what it holds");
                let extended = work.holds.extend(EXTENDED_LEASE).is_ok();
                if extended {
                    work.until = now + EXTENDED_LEASE;
                }
                let (name, number, row) = (work.way.worker(), work.worker.number(), work.holds.row);
                self.posts[work.way as usize].tally.extended += u64::from(extended);
                self.log.add(
                    now,
                    format_args!("extend {name}={number} row={row} granted={extended}"),
                );
                self.plan(now + more, Task::Finish(place));
            }
            Task::Crash(place) => {
                let work = self.leave_work(place);
                let (name, number, row) = (work.way.worker(), work.worker.number(), work.holds.row);
                self.log
                    .add(now, format_args!("crash {name}={number} row={row}"));
                let post = &mut self.posts[work.way as usize];
                post.tally.crashed += 1;
                // Dropped, the delivery's lease runs on to its end: the queues were made with `OnDrop::Expire`.
                drop(work.holds);
                let worker = *work.worker;
                work.worker.complete(Ending::Failure);
                post.staff.crashed(worker);
            }
            Task::Reshard => {
                let shards = self.pipeline.reshard();
                self.log.add(now, format_args!("reshard to {shards}"));
            }
            // Publishers look for leases whenever something happens.
            Task::Recover => {}
            Task::Move(way) => self.step_move(now, way),
        }
    }

    /// The work at a place is over.
    fn leave_work(&mut self, place: usize) -> Work {
        self.free.push(place);
        let work = self.works[place].take();
        work.expect("a work is over once")
    }

    /// A worker acknowledges what it holds, and is free again.
    fn finish_work(&mut self, now: Instant, place: usize) {
        let Work {
            way,
            worker,
            holds,
            since,
            until,
        } = self.leave_work(place);
        let row = holds.row;
        let is_late = until <= now;
        let done = holds.acknowledge().is_ok();
        let number = worker.number();
        worker.complete(if done {
            Ending::Success
        } else {
            Ending::Failure
        });
        let post = &mut self.posts[way as usize];
        if done {
            post.tally.acknowledged += 1;
            post.tally.granted_late += u64::from(is_late);
            post.tally.held.record(now - since);
            post.end(row);
        } else {
            post.tally.refused += 1;
        }
        let event = if done { "acknowledge" } else { "refused" };
        let name = way.worker();
        self.log.add(
            now,
            format_args!("{event} {} {name}={number} row={row}", way.name()),
        );
    }

    /// Starts to move the dead letters back; false when there is none.
    fn start_move(&mut self) -> bool {
        let now = self.clock.now();
        let mut any = false;
        for way in 0..self.dead_letters.len() {
            let dead = self.dead_letters[way].stats().visible;
            if dead == 0 {
                continue;
            }
            let rate = u32::try_from(dead)
                .unwrap_or(u32::MAX)
                .div_ceil(MOVE_WITHIN);
            let task = MoveTask {
                max_per_second: Some(rate),
                ..MoveTask::default()
            };
            let moving = self.dead_letters[way].start_move(task);
            self.moving[way] = Some(moving.expect("the first task of the queue"));
            let name = Way::ALL[way].name();
            self.log.add(
                now,
                format_args!("move {name} dead-letters={dead} rate={rate}"),
            );
            self.plan(now, Task::Move(way));
            any = true;
        }
        any
    }

    /// Moves what the rate allows, and plans the step after this one.
    fn step_move(&mut self, now: Instant, way: usize) {
        let Some(moving) = &self.moving[way] else {
            return;
        };
        let progress = moving.step();
        let name = Way::ALL[way].name();
        self.log.add(
            now,
            format_args!("moved {name} {} {:?}", progress.moved, progress.status),
        );
        match moving.next_step() {
            // A step that could go on at once has its turn after what else is due.
            Some(next) => self.plan(next.max(now), Task::Move(way)),
            None => self.moving[way] = None,
        }
    }

    /// The inspector takes out what was parked: the flights that failed again, and the malformed rows.
    fn inspect(&mut self) {
        let now = self.clock.now();
        for way in Way::ALL {
            while let Ok(letter) = self.dead_letters[way as usize].try_receive() {
                let row = letter.row;
                let receives = letter.dead_letter().map_or(0, |o| o.receive_count());
                let event =
                    format_args!("parked row={row} from={} receives={receives}", way.name());
                self.log.add(now, event);
                if letter.acknowledge().is_ok() {
                    let post = &mut self.posts[way as usize];
                    post.tally.parked += 1;
                    post.end(row);
                }
            }
        }
        while let Ok(letter) = self.malformed.try_receive() {
            if letter.acknowledge().is_ok() {
                self.outcome.malformed += 1;
            }
        }
    }

    /// Looks at the queues for the chart.
    fn sample(&mut self) {
        let mut sample = Sample {
            at: self.clock.timestamp(self.sample_at),
            ..Sample::default()
        };
        for (way, queue) in self.pipeline.queues.iter().enumerate() {
            let stats = queue.stats();
            sample.waiting[way] = stats.visible;
            sample.in_flight[way] = stats.in_flight;
            sample.age[way] = stats.oldest_age.unwrap_or_default();
            let workers = u64::from(self.posts[way].staff.stats().in_service);
            sample.workers[way] = workers;
            let hired = &mut self.outcome.hired[way];
            hired.most = hired.most.max(workers);
            hired.sampled += workers;
        }
        let dead = self.dead_letters.iter().map(|dead| dead.stats().visible);
        sample.dead = dead.sum();
        self.outcome.samples.push(sample);
        self.sample_at = self.sample_at + self.sample_every;
    }

    /// Reads what each part counted, and adds up.
    fn finish(self) -> Outcome {
        let mut outcome = self.outcome;
        self.pipeline.count(&mut outcome);
        let left = self.dead_letters.iter().map(|dead| {
            let stats = dead.stats();
            stats.visible + stats.in_flight
        });
        outcome.dead_left = left.sum();
        for (way, post) in self.posts.into_iter().enumerate() {
            let tally = &mut outcome.tallies[way];
            *tally = post.tally;
            tally.ended_once = post.ended.iter().filter(|times| **times == 1).count() as u64;
            // What a queue took beside what its subscription delivered came back from the dead letters.
            let counters = &outcome.counters[way];
            tally.moved = counters.sent.saturating_sub(counters.delivered);
            tally.waited.sort();
            tally.held.sort();
            let staff = post.staff.stats();
            let hired = &mut outcome.hired[way];
            hired.called = staff.launches;
            hired.gone = staff.terminated;
            hired.left = u64::from(staff.total);
            hired.unfit = staff.unhealthy;
            hired.works = post.staff.finished();
            hired.outstanding = post.staff.outstanding();
        }
        outcome.end = self.clock.timestamp(self.clock.now());
        outcome
    }
}

impl Post {
    /// A row has come to its end here; twice would be an error of a queue or of the demo.
    fn end(&mut self, row: u32) {
        let times = &mut self.ended[row as usize - 1];
        *times = times.saturating_add(1);
    }
}
