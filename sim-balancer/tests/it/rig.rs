//! A balancer on a virtual clock.

use std::time::Duration;

use sim_balancer::{Algorithm, Balancer, BalancerConfig, PickError, Target, TargetId};
use sim_core::clock::{Clock, VirtualClock};
use sim_core::time::Timestamp;

/// A balancer, and its time.
pub(crate) struct Rig {
    pub(crate) balancer: Balancer<u32>,
    pub(crate) time: VirtualClock,
}

impl Rig {
    /// A balancer of targets `t0`, `t1` and so on, with values 0, 1, ...
    pub(crate) fn new(config: BalancerConfig, targets: u32) -> Self {
        let (clock, time) = Clock::virtual_at(Timestamp::UNIX_EPOCH);
        let balancer = Balancer::with_clock(config, clock).expect("a good configuration");
        let refused = balancer.register_all((0..targets).map(|n| Target::new(id(n), n)));
        assert!(refused.is_empty());
        Self { balancer, time }
    }

    pub(crate) fn of(algorithm: Algorithm, targets: u32) -> Self {
        let config = BalancerConfig {
            algorithm,
            ..Default::default()
        };
        Self::new(config, targets)
    }

    /// Picks and gives back at once; which target it was.
    pub(crate) fn pick(&self) -> u32 {
        *self.balancer.try_pick().expect("a target")
    }

    pub(crate) fn picks(&self, count: usize) -> Vec<u32> {
        (0..count).map(|_| self.pick()).collect()
    }

    pub(crate) fn refusal(&self) -> PickError {
        self.balancer.try_pick().expect_err("nobody to pick")
    }

    pub(crate) fn sleep(&self, seconds: u64) {
        self.time.advance(Duration::from_secs(seconds));
    }
}

pub(crate) fn id(n: u32) -> TargetId {
    TargetId::from(format!("t{n}"))
}
