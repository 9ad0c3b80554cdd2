//! Several threads at one instant, replayed into the machine message by message.
//!
//! While threads work the clock stands still, so that what may happen to a message is a chain: sent, received
//! for the first time, given back, received for the second time, ... Each thread writes down what it got; after
//! the phase the machine replays each message's chain, ordered by receive count, refuses what cannot
//! have happened, and must then agree with the queue on all counts. Messages do not influence one another
//! here: the order within groups is checked over the history itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sim_core::clock::{Clock, VirtualClock};
use sim_core::random::Random;
use sim_core::sync::atomic::{AtomicU64, Ordering};
use sim_core::sync::{Arc, Mutex, thread};
use sim_core::time::{Instant, Timestamp};
use sim_queue::machine::{
    Admission, Disposition, Effect, Leased, Machine, MessageKey, Rules, State,
};
use sim_queue::{DeadLetterPolicy, Delivery, Kind, Message, Queue, QueueConfig, Receive};

use crate::pair::{group, secs};
use crate::token::{Drops, Letter, Letters, Token};

const MAX_RECEIVES: u32 = 4;
const VISIBILITY: u64 = 10;
const THREADS: usize = 4;
const GROUPS: u8 = 3;

/// What a thread saw.
#[derive(Debug, Clone, Copy)]
enum Event {
    Sent {
        m: u32,
        delay: Option<u64>,
    },
    Received {
        m: u32,
        count: u32,
        visibility: Option<u64>,
    },
    Acknowledged {
        m: u32,
        count: u32,
        ok: bool,
    },
    Released {
        m: u32,
        count: u32,
        ok: bool,
    },
    Extended {
        m: u32,
        count: u32,
        after: u64,
        ok: bool,
    },
}

/// What a message's group is told by, in the order of one clock that all threads share.
#[derive(Debug, Clone, Copy)]
struct Tick {
    m: u32,
    /// The call that received it.
    call: u64,
    /// For a receive the end of the call, for the end of a message its start.
    at: u64,
}

struct Shared {
    queue: Queue<Token>,
    drops: Drops,
    ticks: AtomicU64,
    calls: AtomicU64,
    receives: Mutex<BTreeSet<(u32, u64)>>,
    firsts: Mutex<Vec<Tick>>,
    ends: Mutex<Vec<Tick>>,
    /// Sequence number and group of each message.
    sequences: Mutex<BTreeMap<u32, (u64, u8)>>,
}

impl Shared {
    fn tick(&self) -> u64 {
        self.ticks.fetch_add(1, Ordering::SeqCst)
    }
}

struct Worker {
    shared: Arc<Shared>,
    random: Random,
    events: Vec<Event>,
    hands: Vec<Delivery<Token>>,
    is_grouped: bool,
    may_delay: bool,
}

impl Worker {
    fn run(mut self, steps: usize) -> Self {
        for _ in 0..steps {
            match self.random.below(10) {
                0..=2 => self.send(),
                3..=5 => self.receive(),
                6 | 7 => self.acknowledge(),
                8 => self.release(),
                _ => self.extend(),
            }
        }
        self
    }

    fn send(&mut self) {
        let token = self.shared.drops.token();
        let m = token.id;
        let mut message = Message::new(token);
        let mut of = 0;
        if self.is_grouped {
            of = u8::try_from(self.random.below(u64::from(GROUPS))).unwrap();
            message = message.group(group(of));
        }
        let delay = (self.may_delay && self.random.chance(0.2)).then(|| self.random.below(12));
        if let Some(delay) = delay {
            message = message.delay(secs(delay));
        }
        let sent = self.shared.queue.try_send(message).unwrap();
        if let Some(sequence) = sent.sequence {
            self.shared.sequences.lock().insert(m, (sequence.get(), of));
        }
        self.events.push(Event::Sent { m, delay });
    }

    fn receive(&mut self) {
        let visibility = self.random.chance(0.3).then(|| 1 + self.random.below(20));
        let max = usize::try_from(1 + self.random.below(4)).unwrap();
        let got = if visibility.is_none() && max == 1 {
            self.shared.queue.try_receive().map(|one| vec![one])
        } else {
            let visibility_timeout = visibility.map(secs);
            self.shared.queue.try_receive_with(&Receive {
                max,
                visibility_timeout,
                attempt: None,
            })
        };
        let Ok(got) = got else { return };
        let at = self.shared.tick();
        let call = self.shared.calls.fetch_add(1, Ordering::SeqCst);
        for delivery in got {
            let (m, count) = (delivery.id, delivery.receive_count());
            self.shared.receives.lock().insert((m, call));
            if count == 1 {
                self.shared.firsts.lock().push(Tick { m, call, at });
            }
            self.events.push(Event::Received {
                m,
                count,
                visibility,
            });
            self.hands.push(delivery);
        }
    }

    fn pick(&mut self) -> Option<usize> {
        let len = self.hands.len() as u64;
        (len > 0).then(|| usize::try_from(self.random.below(len)).unwrap())
    }

    fn acknowledge(&mut self) {
        let Some(at) = self.pick() else { return };
        let delivery = self.hands.swap_remove(at);
        let (m, count) = (delivery.id, delivery.receive_count());
        let tick = self.shared.tick();
        let ok = delivery.acknowledge().is_ok();
        if ok {
            self.shared.ends.lock().push(Tick {
                m,
                call: 0,
                at: tick,
            });
        }
        self.events.push(Event::Acknowledged { m, count, ok });
    }

    fn release(&mut self) {
        let Some(at) = self.pick() else { return };
        let delivery = self.hands.swap_remove(at);
        let (m, count) = (delivery.id, delivery.receive_count());
        let tick = self.shared.tick();
        let ok = delivery.release().is_ok();
        if ok && count >= MAX_RECEIVES {
            self.shared.ends.lock().push(Tick {
                m,
                call: 0,
                at: tick,
            });
        }
        self.events.push(Event::Released { m, count, ok });
    }

    fn extend(&mut self) {
        let Some(at) = self.pick() else { return };
        let after = 1 + self.random.below(20);
        let delivery = &mut self.hands[at];
        let (m, count) = (delivery.id, delivery.receive_count());
        let ok = delivery.extend(secs(after)).is_ok();
        self.events.push(Event::Extended {
            m,
            count,
            after,
            ok,
        });
    }
}

/// The oracle, to which messages are independent of one another.
struct Oracle {
    machine: Machine<u32>,
    keys: BTreeMap<u32, MessageKey>,
    leases: BTreeMap<(u32, u32), Leased<u32>>,
    died: Vec<Letter>,
    released: u64,
    /// Acknowledgements that were replayed before what was due.
    early: BTreeSet<(u32, u32)>,
    /// Leases that ended without anybody noticing before the message was acknowledged, at most.
    unnoticed: u64,
    /// FIFO queues take no acknowledgement after the end of a lease.
    is_late_taken: bool,
}

impl Oracle {
    fn new(is_late_taken: bool) -> Self {
        let rules = Rules {
            visibility_timeout: secs(VISIBILITY),
            max_receives: Some(MAX_RECEIVES),
            max_in_flight: usize::MAX,
            max_lease: Duration::from_secs(1_000_000),
            ..Rules::new(Kind::Standard)
        };
        Self {
            machine: Machine::new(rules).unwrap(),
            keys: BTreeMap::new(),
            leases: BTreeMap::new(),
            died: Vec::new(),
            released: 0,
            early: BTreeSet::new(),
            unnoticed: 0,
            is_late_taken,
        }
    }

    fn dies(&mut self, m: u32, receive_count: u32) {
        self.died.push(Letter {
            m,
            receive_count,
            rejected: false,
        });
    }

    fn advance(&mut self, now: Instant) {
        let mut effects = Vec::new();
        self.machine.advance(now, &mut effects);
        for effect in effects {
            if let Effect::DeadLetter(letter) = effect {
                self.dies(letter.m, letter.receive_count);
            }
        }
    }

    fn replay(&mut self, now: Instant, events: &[Event]) {
        // An acknowledgement may come late and still before anybody has noticed the end of the lease.
        for event in events {
            let &Event::Acknowledged { m, count, ok: true } = event else {
                continue;
            };
            let Some(&Leased { key, lease, .. }) = self.leases.get(&(m, count)) else {
                continue;
            };
            let over = self.machine.contents().any(|content| {
                content.key == key
                    && content.state == State::InFlight
                    && content.deadline.is_some_and(|deadline| deadline <= now)
            });
            if over && self.is_late_taken && count >= MAX_RECEIVES {
                assert!(self.machine.acknowledge(now, key, lease).is_ok());
                self.early.insert((m, count));
            } else if over {
                self.unnoticed += 1;
            }
        }
        self.advance(now);
        let mut chains: BTreeMap<u32, Vec<Event>> = BTreeMap::new();
        for event in events {
            let m = match *event {
                Event::Sent { m, delay } => {
                    let delay = delay.map(secs);
                    let admission = Admission {
                        delay,
                        ..Admission::default()
                    };
                    self.keys
                        .insert(m, self.machine.send(now, m, &admission).unwrap().key);
                    continue;
                }
                Event::Received { m, .. }
                | Event::Acknowledged { m, .. }
                | Event::Released { m, .. }
                | Event::Extended { m, .. } => m,
            };
            chains.entry(m).or_default().push(*event);
        }
        for (m, mut chain) in chains {
            // By receive count; within one lease the receive is first, and what its holder did, which was
            // one thread, follows in its order.
            chain.sort_by_key(|event| match *event {
                Event::Received { count, .. } => (count, 0),
                Event::Extended { count, .. } => (count, 1),
                Event::Acknowledged { count, .. } | Event::Released { count, .. } => (count, 2),
                Event::Sent { .. } => (0, 0),
            });
            let mut refused = Vec::new();
            for event in chain {
                if !self.follow(now, m, event) {
                    refused.push(event);
                }
            }
            // What is stale stays stale.
            for event in refused {
                self.check_stale(now, m, event);
            }
        }
    }

    /// Repeats what a holder was told had worked; false for what had not.
    fn follow(&mut self, now: Instant, m: u32, event: Event) -> bool {
        match event {
            Event::Sent { .. } => {}
            Event::Received {
                count, visibility, ..
            } => {
                let visibility = visibility.map(secs);
                let leased = self.machine.receive_this(now, self.keys[&m], visibility);
                let Some(leased) = leased else {
                    panic!("message {m} was received ({count}), but is not visible")
                };
                assert_eq!(leased.receive_count, count, "receive count of message {m}");
                self.leases.insert((m, count), leased);
            }
            Event::Acknowledged { m, count, ok: true } if self.early.contains(&(m, count)) => {}
            Event::Acknowledged {
                count, ok: true, ..
            } => {
                let Leased { key, lease, .. } = self.leases[&(m, count)];
                if !self.is_late_taken {
                    assert!(
                        self.machine.is_running(now, key, lease),
                        "late: message {m}"
                    );
                }
                let taken = self.machine.acknowledge(now, key, lease);
                assert!(
                    taken.is_ok(),
                    "message {m} was acknowledged under a lost lease"
                );
            }
            Event::Released {
                count, ok: true, ..
            } => {
                let Leased { key, lease, .. } = self.leases[&(m, count)];
                let ended = self
                    .machine
                    .change_visibility(now, key, lease, Duration::ZERO);
                assert!(ended.is_ok(), "message {m} was released under a lost lease");
                self.released += 1;
                if let Ok(Disposition::DeadLetter(letter)) = ended {
                    self.dies(letter.m, letter.receive_count);
                }
            }
            Event::Extended {
                count,
                after,
                ok: true,
                ..
            } => {
                let Leased { key, lease, .. } = self.leases[&(m, count)];
                let changed = self.machine.change_visibility(now, key, lease, secs(after));
                assert!(
                    changed.is_ok(),
                    "message {m} was extended under a lost lease"
                );
            }
            Event::Acknowledged { .. } | Event::Released { .. } | Event::Extended { .. } => {
                return false;
            }
        }
        true
    }

    fn check_stale(&self, now: Instant, m: u32, event: Event) {
        let (Event::Acknowledged { count, .. }
        | Event::Released { count, .. }
        | Event::Extended { count, .. }) = event
        else {
            return;
        };
        let Leased { key, lease, .. } = self.leases[&(m, count)];
        assert!(
            !self.machine.is_running(now, key, lease),
            "message {m}: {event:?} was refused"
        );
        if self.is_late_taken && matches!(event, Event::Acknowledged { .. }) {
            // Late, so somebody else must have received it, or it is gone.
            let latest = self.machine.contents().find(|content| content.key == key);
            assert!(
                latest.is_none_or(|latest| u64::from(latest.receive_count) > lease),
                "message {m}: {event:?} was refused"
            );
        }
    }
}

fn queue(kind: Kind) -> (Queue<Token>, VirtualClock, Arc<Letters>) {
    let (clock, hand) = Clock::virtual_at(Timestamp::from_unix_millis(1_700_000_000_000));
    let config = QueueConfig {
        kind,
        visibility_timeout: secs(VISIBILITY),
        ..QueueConfig::new("threads")
    };
    let queue = Queue::with_clock(config, clock).unwrap();
    let letters = Arc::new(Letters::default());
    let sink: Arc<Letters> = Arc::clone(&letters);
    queue
        .set_dead_letters(DeadLetterPolicy::to_sink(sink, MAX_RECEIVES))
        .unwrap();
    (queue, hand, letters)
}

fn shared(queue: &Queue<Token>) -> Arc<Shared> {
    Arc::new(Shared {
        queue: queue.clone(),
        drops: Drops::default(),
        ticks: AtomicU64::new(0),
        calls: AtomicU64::new(1),
        receives: Mutex::default(),
        firsts: Mutex::new(Vec::new()),
        ends: Mutex::new(Vec::new()),
        sequences: Mutex::new(BTreeMap::new()),
    })
}

fn compare(queue: &Queue<Token>, oracle: &Oracle, letters: &Letters, now: Instant) {
    let stats = queue.stats();
    let expected = oracle.machine.stats(now);
    let state = |state: State| {
        oracle
            .machine
            .contents()
            .filter(|content| content.state == state)
            .count() as u64
    };
    // A dead letter that an older delivery still looks at is on its way.
    let died = oracle.died.len() as u64;
    let doomed = died - stats.redriven;
    assert_eq!(stats.visible, state(State::Visible), "visible");
    assert_eq!(stats.delayed, state(State::Delayed), "delayed");
    assert_eq!(
        stats.in_flight,
        state(State::InFlight) + doomed,
        "in flight"
    );
    assert_eq!(
        (stats.sent, stats.received, stats.deleted, stats.released),
        (
            expected.sent,
            expected.received,
            expected.deleted,
            oracle.released
        ),
        "sent, received, deleted, released"
    );
    let lapsed = expected.timed_out - oracle.unnoticed..=expected.timed_out;
    assert!(
        lapsed.contains(&stats.lapsed),
        "lapsed: {} not in {lapsed:?}",
        stats.lapsed
    );
    let letters = letters.sorted();
    assert_eq!(letters.len() as u64, stats.redriven);
    assert!(
        letters.iter().all(|letter| oracle.died.contains(letter)),
        "dead letters"
    );
}

/// Phases of concurrent work, each at its own instant, and then everything is received and acknowledged.
fn play(kind: Kind, seed: u64) {
    let is_fifo = matches!(kind, Kind::Fifo(_));
    let is_grouped = kind != Kind::Standard;
    let (queue, hand, letters) = queue(kind);
    let shared = shared(&queue);
    let mut oracle = Oracle::new(!is_fifo);
    let mut random = Random::new(seed);
    let mut hands: Vec<Vec<Delivery<Token>>> = (0..THREADS).map(|_| Vec::new()).collect();
    for phase in 0..8_u64 {
        let workers = usize::try_from(2 + random.below(THREADS as u64 - 1)).unwrap();
        let mut running = Vec::new();
        for (number, hands) in hands.iter_mut().enumerate().take(workers) {
            let worker = Worker {
                shared: Arc::clone(&shared),
                random: Random::new(seed).fork(&format!("{phase}-{number}")),
                events: Vec::new(),
                hands: std::mem::take(hands),
                is_grouped,
                may_delay: !is_fifo,
            };
            running.push(thread::spawn(move || worker.run(40)));
        }
        let mut events = Vec::new();
        for (thread, hands) in running.into_iter().zip(&mut hands) {
            let worker = thread.join().unwrap();
            events.extend(worker.events);
            *hands = worker.hands;
        }
        oracle.replay(hand.now(), &events);
        compare(&queue, &oracle, &letters, hand.now());
        match random.below(3) {
            0 => hand.advance(secs(random.below(9))),
            1 => hand.advance(secs(VISIBILITY)),
            _ => drop(
                oracle
                    .machine
                    .next_deadline()
                    .map(|next| hand.advance_to(next)),
            ),
        }
    }
    drop(hands);
    finish(&queue, &hand);
    drop(queue);
    if is_fifo {
        check_groups(&shared);
    }
    let shared = Arc::into_inner(shared).unwrap();
    drop(shared.queue);
    shared.drops.check();
}

/// Receives and acknowledges all that is left.
fn finish(queue: &Queue<Token>, hand: &VirtualClock) {
    for _ in 0..10_000 {
        while let Ok(delivery) = queue.try_receive() {
            delivery.acknowledge().unwrap();
        }
        let stats = queue.stats();
        if stats.visible + stats.in_flight + stats.delayed == 0 {
            let ended = stats.deleted + stats.redriven;
            assert_eq!(stats.sent, ended, "nothing lost, nothing doubled");
            return;
        }
        hand.advance_to(queue.next_deadline().unwrap());
    }
    panic!("the queue does not empty");
}

/// No message is received before the one in front of it in its group has ended, but by the same call.
fn check_groups(shared: &Shared) {
    let sequences = shared.sequences.lock();
    let firsts: BTreeMap<u32, Tick> = shared
        .firsts
        .lock()
        .iter()
        .map(|tick| (tick.m, *tick))
        .collect();
    let ends: BTreeMap<u32, Tick> = shared
        .ends
        .lock()
        .iter()
        .map(|tick| (tick.m, *tick))
        .collect();
    let mut groups: BTreeMap<u8, Vec<(u64, u32)>> = BTreeMap::new();
    for (m, (sequence, group)) in sequences.iter() {
        groups.entry(*group).or_default().push((*sequence, *m));
    }
    let mut checked = 0;
    for messages in groups.values_mut() {
        messages.sort_unstable();
        for pair in messages.windows(2) {
            let (before, after) = (pair[0].1, pair[1].1);
            let Some(received) = firsts.get(&after) else {
                continue;
            };
            // Received at the end of the history, by one thread.
            assert!(
                firsts.contains_key(&before),
                "received in order within the group"
            );
            checked += 1;
            if shared.receives.lock().contains(&(before, received.call)) {
                continue;
            }
            // Dead letters whose lease ran out end without a call.
            if let Some(end) = ends.get(&before) {
                assert!(end.at < received.at, "message {after} overtook {before}");
            }
        }
    }
    assert!(checked > 0, "the history has groups of several messages");
}

#[test]
fn threads_at_one_instant_do_what_the_machine_could_have_done() {
    for seed in 0..60 {
        play(Kind::Standard, seed);
    }
}

#[test]
fn threads_on_a_fair_queue_do_what_the_machine_could_have_done() {
    for seed in 0..30 {
        play(Kind::fair(), seed);
    }
}

#[test]
fn threads_on_a_fifo_queue_keep_the_order_within_each_group() {
    for seed in 0..30 {
        play(Kind::fifo(), seed);
    }
}

/// A delivery in short. The clock moves during the call that brings it: it read one time at its start, and
/// another one after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Received {
    m: u32,
    count: u32,
    started: Instant,
    ended: Instant,
    released: bool,
}

/// While the clock moves nobody knows when exactly a call took place; what must hold all the same is that a
/// lease excludes others until its end, that counts have no gap, and that nothing is lost or doubled.
fn play_moving(kind: Kind, seed: u64) {
    const MESSAGES: u32 = 120;
    let is_grouped = kind != Kind::Standard;
    let (queue, hand, letters) = queue(kind);
    let drops = Arc::new(Drops::default());
    for n in 0..MESSAGES {
        let mut message = Message::new(drops.token());
        if is_grouped {
            message = message.group(group(u8::try_from(n % 40).unwrap()));
        }
        queue.try_send(message).unwrap();
    }
    let receives: Arc<Mutex<Vec<Received>>> = Arc::default();
    let taken: Arc<Mutex<Vec<u32>>> = Arc::default();
    let mut threads = Vec::new();
    for number in 0..3 {
        let (queue, receives, taken) = (queue.clone(), Arc::clone(&receives), Arc::clone(&taken));
        let mut random = Random::new(seed).fork(&number.to_string());
        threads.push(thread::spawn(move || {
            let mut hands: Vec<(Delivery<Token>, Received)> = Vec::new();
            for _ in 0..150 {
                if let Ok(delivery) = queue.try_receive() {
                    let seen = Received {
                        m: delivery.id,
                        count: delivery.receive_count(),
                        started: delivery.received_at(),
                        ended: queue.clock().now(),
                        released: false,
                    };
                    hands.push((delivery, seen));
                }
                if hands.len() < 4 {
                    continue;
                }
                let at = usize::try_from(random.below(hands.len() as u64)).unwrap();
                let (delivery, seen) = hands.swap_remove(at);
                if random.chance(0.5) {
                    receives.lock().push(seen);
                    if delivery.acknowledge().is_ok() {
                        taken.lock().push(seen.m);
                    }
                } else if random.chance(0.5) {
                    let released = delivery.release().is_ok();
                    receives.lock().push(Received { released, ..seen });
                } else {
                    receives.lock().push(seen);
                    let _ = delivery.into_receipt();
                }
            }
            for (delivery, seen) in hands {
                receives.lock().push(seen);
                let _ = delivery.into_receipt();
            }
        }));
    }
    let mover = {
        let hand = hand.clone();
        thread::spawn(move || {
            for _ in 0..300 {
                hand.advance(Duration::from_millis(300));
                thread::yield_now();
            }
        })
    };
    for thread in threads {
        thread.join().unwrap();
    }
    mover.join().unwrap();
    let mut chains: BTreeMap<u32, Vec<Received>> = BTreeMap::new();
    for seen in receives.lock().iter() {
        chains.entry(seen.m).or_default().push(*seen);
    }
    for (m, chain) in &mut chains {
        chain.sort_unstable();
        for (seen, count) in chain.iter().zip(1..) {
            assert_eq!(seen.count, count, "receive counts of message {m}");
        }
        for pair in chain.windows(2) {
            let (before, after) = (pair[0], pair[1]);
            let is_over = before.released || after.ended >= before.started + secs(VISIBILITY);
            assert!(is_over, "message {m} was received during a lease");
        }
    }
    finish(&queue, &hand);
    let mut taken = taken.lock().clone();
    let acknowledged = taken.len();
    taken.sort_unstable();
    taken.dedup();
    assert_eq!(taken.len(), acknowledged, "nobody acknowledges twice");
    assert!(
        letters
            .sorted()
            .iter()
            .all(|letter| taken.binary_search(&letter.m).is_err())
    );
    drop(queue);
    drops.check();
}

#[test]
fn a_moving_clock_ends_no_lease_early_and_loses_nothing() {
    for seed in 0..30 {
        play_moving(Kind::Standard, seed);
        play_moving(Kind::fair(), seed);
        play_moving(Kind::fifo(), seed);
    }
}
