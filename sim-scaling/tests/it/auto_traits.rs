//! What may be sent and shared.

use sim_scaling::provisioner::Recorder;
use sim_scaling::{Group, GroupConfig, GroupExplanation, Notification, machine::Machine};

#[test]
fn handles_and_values_cross_threads() {
    fn crosses<T: Send + Sync + 'static>() {}
    fn is_unpin<T: Unpin>() {}
    crosses::<Group<Recorder>>();
    crosses::<GroupConfig>();
    crosses::<GroupExplanation>();
    crosses::<Notification>();
    crosses::<Machine>();
    is_unpin::<Group<Recorder>>();
}

#[test]
fn the_run_of_a_group_can_be_spawned() {
    fn spawnable<F: Future<Output = ()> + Send>(_: F) {}
    let group = Group::new(GroupConfig::new("g", 0, 1), Recorder::new()).unwrap();
    spawnable(async move { group.run().await });
}
