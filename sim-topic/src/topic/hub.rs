//! What the handles of one topic share.

use std::collections::BTreeMap;

use sim_core::clock::Clock;
use sim_core::counter::Counters;
use sim_core::random::Random;
use sim_core::snapshot::Snapshot;
use sim_core::sync::atomic::{AtomicBool, AtomicU64};
use sim_core::sync::{Arc, CachePadded, Mutex, Weak};

use crate::config::TopicConfig;
use crate::machine::archive::Archive;
use crate::machine::dedup::Dedup;
use crate::machine::tokens::Tokens;
use crate::message::{Published, Shared, SubscriptionId, TopicInfo};
use crate::receiver::log::LogSide;
use crate::topic::driver::Driver;
use crate::topic::lane::{Departed, Sub};
use crate::topic::publishing::Publishing;
use crate::topic::table::{Evaluations, Scratches, Table};

/// What the topic counts, as indices.
pub(crate) mod counts {
    pub(crate) const REFUSED: usize = 0;
    pub(crate) const DEDUPLICATED: usize = 1;
    pub(crate) const BYTES: usize = 2;
    pub(crate) const KINDS: usize = 3;
}

/// A topic.
pub(crate) struct Hub<T> {
    pub(crate) config: TopicConfig,
    pub(crate) clock: Clock,
    pub(crate) info: Arc<TopicInfo>,
    pub(crate) body: Option<fn(&T) -> &[u8]>,
    pub(crate) size: Option<fn(&T) -> usize>,
    pub(crate) content_key: Option<fn(&T) -> [u8; 32]>,
    pub(crate) secret: [u8; 32],
    /// The number of the next message.
    pub(crate) numbers: CachePadded<AtomicU64>,
    pub(crate) closed: AtomicBool,
    /// Who publishes to subscriptions right now.
    pub(crate) publishing: Publishing,
    pub(crate) counters: Counters<{ counts::KINDS }>,
    /// What publishers go through.
    pub(crate) table: Snapshot<Table<T>>,
    /// Whether anybody stands in it: publishers look here first.
    pub(crate) has_subs: AtomicBool,
    pub(crate) evaluations: Arc<Evaluations>,
    pub(crate) scratches: Scratches,
    /// What changes the table.
    pub(crate) registry: Mutex<Registry<T>>,
    pub(crate) fifo: Option<Mutex<Fifo<T>>>,
    pub(crate) driver: Arc<Driver<T>>,
    /// The unfiltered receivers.
    pub(crate) log: LogSide<T>,
    pub(crate) departed: Arc<Departed>,
    pub(crate) random: Random,
}

/// What a FIFO topic decides under one lock, which makes its order.
pub(crate) struct Fifo<T> {
    pub(crate) dedup: Dedup<Published>,
    pub(crate) archive: Option<Archive<Arc<Shared<T>>>>,
    pub(crate) sequence: u64,
}

/// How many subscriptions that are over are looked through at the soonest for those that nobody holds.
const SWEEP: usize = 32;

/// All subscriptions, whether they get messages or not.
pub(crate) struct Registry<T> {
    pub(crate) next_id: u64,
    /// Bound: `limits.subscriptions`.
    pub(crate) subs: BTreeMap<SubscriptionId, Arc<Sub<T>>>,
    /// Receivers on the log, by their subscription.
    pub(crate) receivers: usize,
    /// How many subscriptions have a filter policy.
    pub(crate) policies: usize,
    pub(crate) tokens: Tokens,
    pub(crate) token_serial: u64,
    pub(crate) deleted: u64,
    /// Subscriptions that are over and whose last holders have not let go yet.
    pub(crate) leaving: Vec<Weak<Sub<T>>>,
    /// How many of these may stand here before those that let go are taken out.
    sweep_at: usize,
}

impl<T> Registry<T> {
    pub(crate) fn new() -> Self {
        Self {
            next_id: 1,
            subs: BTreeMap::new(),
            receivers: 0,
            policies: 0,
            tokens: Tokens::default(),
            token_serial: 0,
            deleted: 0,
            leaving: Vec::new(),
            sweep_at: SWEEP,
        }
    }

    /// Goes on counting a subscription that is over until its last holder lets go. O(1), amortised.
    pub(crate) fn leave(&mut self, sub: &Arc<Sub<T>>) {
        if self.leaving.len() >= self.sweep_at {
            self.leaving.retain(|weak| weak.strong_count() > 0);
            self.sweep_at = SWEEP.max(2 * self.leaving.len());
        }
        self.leaving.push(Arc::downgrade(sub));
    }
}

impl<T> Hub<T> {
    pub(crate) const fn is_fifo(&self) -> bool {
        self.fifo.is_some()
    }
}

impl<T> Drop for Hub<T> {
    fn drop(&mut self) {
        self.driver.clear();
    }
}
