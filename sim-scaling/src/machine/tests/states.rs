//! The table of states and moves.

use std::collections::BTreeSet;

use super::*;
use crate::machine::TRANSITIONS;

#[test]
fn the_table_has_each_state_once_with_the_name_that_the_service_gives_it() {
    let names: Vec<_> = TRANSITIONS.iter().map(|(state, _)| state.name()).collect();
    assert_eq!(names.len(), 30);
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), 30);
    for name in [
        "Pending",
        "Pending:Wait",
        "Terminating:Retained",
        "Quarantined",
        "ReplacingRootVolume:Proceed",
        "RootVolumeReplaced",
        "Warmed:Hibernated",
        "Warmed:Pending:Retained",
        "Warmed:Terminated",
    ] {
        assert!(names.contains(&name), "{name}");
    }
}

#[test]
fn what_is_not_in_the_table_is_a_typed_error() {
    let mut legal = 0;
    for (from, to) in TRANSITIONS {
        for (other, _) in TRANSITIONS {
            match from.to(other) {
                Ok(state) => {
                    legal += 1;
                    assert_eq!(state, other);
                    assert!(to.contains(&other));
                }
                Err(illegal) => {
                    assert_eq!((illegal.from, illegal.to), (from, other));
                    assert!(!to.contains(&other));
                }
            }
        }
    }
    assert_eq!(
        legal,
        TRANSITIONS.iter().map(|(_, to)| to.len()).sum::<usize>()
    );
    assert_eq!(
        State::Standby.to(State::InService).unwrap_err().to_string(),
        "an instance that is Standby does not become InService"
    );
}

#[test]
fn every_state_is_reached_from_a_launch_and_every_path_can_end() {
    let mut reached: BTreeSet<State> = [State::Pending, State::WarmedPending].into();
    loop {
        let next: BTreeSet<State> = reached
            .iter()
            .flat_map(|state| state.successors().iter().copied())
            .chain(reached.iter().copied())
            .collect();
        if next.len() == reached.len() {
            break;
        }
        reached = next;
    }
    assert_eq!(reached.len(), 30);
    for (state, to) in TRANSITIONS {
        assert_eq!(state.is_final(), to.is_empty(), "{state}");
    }
}

#[test]
fn each_state_counts_for_one_thing_at_most() {
    for (state, _) in TRANSITIONS {
        let kinds = [
            state.counts(),
            state.is_terminating(),
            state.is_warm(),
            matches!(
                state,
                State::Standby | State::EnteringStandby | State::Detaching
            ),
            matches!(state, State::Terminated | State::Detached),
        ];
        assert_eq!(kinds.iter().filter(|kind| **kind).count(), 1, "{state}");
    }
}
