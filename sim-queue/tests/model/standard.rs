//! Standard queues: the lock-free engine. It may choose any visible message; all else is the machine's to say.

use proptest::prelude::*;
use sim_queue::Kind;

use crate::history::{setup, steps};
use crate::pair::Pair;

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_standard_queue_does_what_the_machine_does(setup in setup(), steps in steps()) {
        Pair::new(Kind::Standard, &setup).play(&steps);
    }
}
