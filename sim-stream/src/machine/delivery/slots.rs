//! The table of records under way: a vector with a list of free places.

use std::ops::{Index, IndexMut};

use sim_core::time::Instant;
use sim_core::wheel::TimerKey;

use crate::message::ShardId;

/// One record under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slot {
    pub(super) shard: ShardId,
    pub(super) position: u64,
    pub(super) receives: u32,
    /// The number of its present or last lease.
    pub(super) lease: u64,
    pub(super) first_received_at: Instant,
    pub(super) state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Free,
    Leased { timer: TimerKey },
    Delayed { timer: TimerKey },
    Returned,
    Dead,
    DeadLeased { timer: TimerKey },
}

impl State {
    pub(super) const fn timer(self) -> Option<TimerKey> {
        match self {
            Self::Leased { timer } | Self::Delayed { timer } | Self::DeadLeased { timer } => {
                Some(timer)
            }
            Self::Free | Self::Returned | Self::Dead => None,
        }
    }
}

/// So many free slots are no memory worth giving back.
const KEPT: usize = 1024;

/// Slots by index. Gives its memory back when all are free.
#[derive(Debug, Default)]
pub(super) struct Slots {
    all: Vec<Slot>,
    free: Vec<u32>,
}

impl Slots {
    /// A slot for a record that is received for the first time.
    pub(super) fn take(&mut self, shard: ShardId, position: u64, now: Instant) -> u32 {
        let slot = Slot {
            shard,
            position,
            receives: 0,
            lease: 0,
            first_received_at: now,
            state: State::Returned,
        };
        if let Some(index) = self.free.pop() {
            self.all[index as usize] = slot;
            return index;
        }
        let index = u32::try_from(self.all.len()).expect("the limits are below 2^31 each");
        self.all.push(slot);
        index
    }

    pub(super) fn free(&mut self, index: u32) {
        let slot = &mut self.all[index as usize];
        slot.state = State::Free;
        // No lease has this number.
        slot.lease = 0;
        self.free.push(index);
        if self.free.len() == self.all.len() && self.all.len() > KEPT {
            *self = Self::default();
        }
    }

    /// How many are taken.
    #[cfg(test)]
    pub(super) fn live(&self) -> usize {
        self.all.len() - self.free.len()
    }

    /// The state of the record at a place, if it is under way.
    #[cfg(test)]
    pub(super) fn state_at(&self, shard: ShardId, position: u64) -> Option<State> {
        self.all
            .iter()
            .find(|slot| {
                (slot.shard, slot.position) == (shard, position) && slot.state != State::Free
            })
            .map(|slot| slot.state)
    }

    pub(super) fn get(&self, index: u32) -> Option<&Slot> {
        self.all.get(index as usize)
    }
}

impl Index<u32> for Slots {
    type Output = Slot;

    fn index(&self, index: u32) -> &Slot {
        &self.all[index as usize]
    }
}

impl IndexMut<u32> for Slots {
    fn index_mut(&mut self, index: u32) -> &mut Slot {
        &mut self.all[index as usize]
    }
}
