//! FIFO and fair queues: the same messages in the same order as the machine.

use proptest::prelude::*;
use sim_queue::{Deduplication, DeduplicationScope, FairConfig, FifoConfig, Kind, MessageDelay};

use crate::history::{Setup, setup, steps};
use crate::pair::{Pair, secs};

fn fifo(setup: &Setup) -> Kind {
    let option = |bit: u8| setup.options & (1 << bit) != 0;
    Kind::Fifo(FifoConfig {
        deduplication_scope: if option(0) {
            DeduplicationScope::Group
        } else {
            DeduplicationScope::Queue
        },
        deduplication: if option(1) && option(2) {
            Deduplication::Required
        } else {
            Deduplication::Optional
        },
        deduplication_window: secs(if option(3) { 20 } else { 300 }),
        attempt_window: secs(if option(4) { 5 } else { 300 }),
        message_delay: if option(5) {
            MessageDelay::PerMessage
        } else {
            MessageDelay::PerQueue
        },
        ..FifoConfig::default()
    })
}

fn fair(setup: &Setup) -> Kind {
    if setup.options & 1 == 0 {
        return Kind::fair();
    }
    Kind::Fair(FairConfig {
        in_flight_share: 30,
        min_in_flight: 2,
        ..FairConfig::default()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_fifo_queue_does_what_the_machine_does(setup in setup(), steps in steps()) {
        Pair::new(fifo(&setup), &setup).play(&steps);
    }

    #[test]
    fn a_fair_queue_does_what_the_machine_does(setup in setup(), steps in steps()) {
        Pair::new(fair(&setup), &setup).play(&steps);
    }
}
