//! A roster, a gauge and a sink that tests hold in their hands.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use sim_core::clock::{Clock, VirtualClock};
use sim_core::id::Id;
use sim_core::seam::{Depth, Gauge, Refused, Roster, Sink, Standing, Timed};
use sim_core::time::Timestamp;
use sim_scaling::provisioner::Provisioner;
use sim_scaling::{Group, InstanceId, Notification};

pub(crate) fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub(crate) fn virtual_clock() -> (Clock, VirtualClock) {
    Clock::virtual_at(Timestamp::UNIX_EPOCH)
}

/// Moves the time on, from deadline to deadline of the group.
pub(crate) fn pass<P: Provisioner>(group: &Group<P>, time: &VirtualClock, duration: Duration) {
    let end = time.now() + duration;
    let mut steps = 0;
    while let Some(next) = group.next_deadline()
        && next <= end
    {
        time.advance_to(next.max(time.now()));
        group.advance(time.now());
        steps += 1;
        assert!(steps < 100_000, "time does not pass at {next:?}");
    }
    time.advance_to(end);
    group.advance(end);
}

/// A roster that does as it is told.
#[derive(Default)]
pub(crate) struct Register {
    members: Mutex<BTreeMap<Id, (InstanceId, Standing)>>,
    /// Refuses the next so many.
    pub(crate) refuse: Mutex<u32>,
    /// Whether members that leave keep their work until they are told that it is finished.
    pub(crate) slow: Mutex<bool>,
}

impl Register {
    pub(crate) fn members(&self) -> Vec<(InstanceId, Standing)> {
        self.members.lock().unwrap().values().copied().collect()
    }

    pub(crate) fn set(&self, id: InstanceId, standing: Standing) {
        for (member, now) in self.members.lock().unwrap().values_mut() {
            if *member == id {
                *now = standing;
            }
        }
    }

    /// What leaves has finished its work.
    pub(crate) fn finish(&self) {
        let mut members = self.members.lock().unwrap();
        members.retain(|_, (_, standing)| *standing != Standing::Leaving);
    }
}

impl Roster<InstanceId> for Register {
    fn try_join(&self, id: Id, member: InstanceId) -> Result<(), Refused<InstanceId>> {
        let mut refuse = self.refuse.lock().unwrap();
        if *refuse > 0 {
            *refuse -= 1;
            return Err(Refused::full(member, None));
        }
        let mut members = self.members.lock().unwrap();
        members.insert(id, (member, Standing::Serving));
        Ok(())
    }

    fn leave(&self, id: Id) {
        let mut members = self.members.lock().unwrap();
        if *self.slow.lock().unwrap() {
            if let Some((_, standing)) = members.get_mut(&id) {
                *standing = Standing::Leaving;
            }
        } else {
            members.remove(&id);
        }
    }

    fn standing(&self, id: Id) -> Standing {
        let members = self.members.lock().unwrap();
        members.get(&id).map_or(Standing::Absent, |(_, s)| *s)
    }
}

/// A gauge that shows what it is set to.
#[derive(Default)]
pub(crate) struct Dial(pub(crate) Mutex<Depth>);

impl Dial {
    pub(crate) fn set(&self, waiting: u64) {
        self.0.lock().unwrap().waiting = waiting;
    }
}

impl Gauge for Dial {
    fn depth(&self) -> Depth {
        *self.0.lock().unwrap()
    }
}

/// A sink that takes `room` and is full then.
pub(crate) struct Inbox {
    pub(crate) taken: Mutex<Vec<Notification>>,
    pub(crate) room: Mutex<usize>,
}

impl Inbox {
    pub(crate) fn new(room: usize) -> Arc<Self> {
        Arc::new(Self {
            taken: Mutex::new(Vec::new()),
            room: Mutex::new(room),
        })
    }

    pub(crate) fn kinds(&self) -> Vec<sim_scaling::NotificationKind> {
        self.taken
            .lock()
            .unwrap()
            .iter()
            .map(Notification::kind)
            .collect()
    }
}

impl Sink<Notification> for Inbox {
    fn try_deliver(&self, item: Notification) -> Result<(), Refused<Notification>> {
        let mut room = self.room.lock().unwrap();
        if *room == 0 {
            return Err(Refused::full(item, None));
        }
        *room -= 1;
        self.taken.lock().unwrap().push(item);
        Ok(())
    }
}
