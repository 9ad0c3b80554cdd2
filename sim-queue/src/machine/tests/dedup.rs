//! Repeated sends.

use super::*;
use crate::group::DeduplicationId;

fn id(text: &str) -> DedupKey {
    DedupKey::Id(DeduplicationId::new(text).unwrap())
}

fn send(rig: &mut Rig, m: u32, name: &str, key: &DedupKey) -> Result<Accepted, NotStored> {
    let group = group(name);
    let admission = Admission {
        group: Some(&group),
        dedup: Some(key),
        id: u128::from(m),
        ..Admission::default()
    };
    rig.try_send(m, &admission)
}

fn first(accepted: &Accepted, id: u128) -> Result<Accepted, NotStored> {
    Err(NotStored::Duplicate(First {
        id,
        sequence: accepted.sequence,
    }))
}

#[test]
fn a_repeated_send_stores_nothing_and_names_the_first() {
    let mut rig = Rig::fifo();
    let accepted = send(&mut rig, 7, "a", &id("x")).unwrap();
    assert_eq!(send(&mut rig, 8, "a", &id("x")), first(&accepted, 7));
    assert_eq!(send(&mut rig, 8, "b", &id("x")), first(&accepted, 7));
    assert!(send(&mut rig, 9, "a", &id("y")).is_ok());
    assert_eq!(rig.take(10), [7, 9]);
    assert_eq!(rig.machine.stats(rig.now).deduplicated, 2);
}

#[test]
fn the_window_outlives_the_message_and_is_not_lengthened_by_repetitions() {
    let mut rig = Rig::fifo();
    let accepted = send(&mut rig, 1, "a", &id("x")).unwrap();
    let leased = rig.receive(1)[0];
    rig.acknowledge(&leased).unwrap();
    rig.go(299);
    assert_eq!(send(&mut rig, 2, "a", &id("x")), first(&accepted, 1));
    rig.go(300);
    assert!(send(&mut rig, 3, "a", &id("x")).is_ok());
}

#[test]
fn a_purged_message_is_still_a_duplicate() {
    let mut rig = Rig::fifo();
    let accepted = send(&mut rig, 1, "a", &id("x")).unwrap();
    rig.machine.purge(rig.now, &mut Vec::new());
    assert_eq!(send(&mut rig, 2, "a", &id("x")), first(&accepted, 1));
}

#[test]
fn the_scope_of_an_id_may_be_its_group() {
    let fifo = FifoConfig {
        deduplication_scope: DeduplicationScope::Group,
        ..FifoConfig::default()
    };
    let mut rig = Rig::new(Kind::Fifo(fifo), |_| {});
    let accepted = send(&mut rig, 1, "a", &id("x")).unwrap();
    assert!(send(&mut rig, 2, "b", &id("x")).is_ok());
    assert_eq!(send(&mut rig, 3, "a", &id("x")), first(&accepted, 1));
}

#[test]
fn content_and_ids_never_match_each_other() {
    let mut rig = Rig::fifo();
    let content = DedupKey::Content([b'x'; 32]);
    let accepted = send(&mut rig, 1, "a", &content).unwrap();
    assert_eq!(send(&mut rig, 2, "a", &content), first(&accepted, 1));
    assert!(send(&mut rig, 3, "a", &id(&"x".repeat(32))).is_ok());
    assert!(send(&mut rig, 4, "a", &DedupKey::Content([b'y'; 32])).is_ok());
}

#[test]
fn a_full_table_refuses_new_ids_and_forgets_none() {
    let fifo = FifoConfig {
        deduplication_limit: 2,
        ..FifoConfig::default()
    };
    let mut rig = Rig::new(Kind::Fifo(fifo), |_| {});
    let accepted = send(&mut rig, 1, "a", &id("x")).unwrap();
    rig.go(100);
    send(&mut rig, 2, "a", &id("y")).unwrap();
    assert_eq!(
        send(&mut rig, 3, "a", &id("z")),
        Err(NotStored::DedupWindowFull)
    );
    assert_eq!(send(&mut rig, 3, "a", &id("x")), first(&accepted, 1));
    rig.send_to("a", 4);
    rig.go(300);
    assert!(send(&mut rig, 3, "a", &id("z")).is_ok());
}

#[test]
fn a_duplicate_is_recognised_by_a_full_queue() {
    let mut rig = Rig::new(Kind::fifo(), |rules| rules.capacity = Some(1));
    let accepted = send(&mut rig, 1, "a", &id("x")).unwrap();
    assert_eq!(send(&mut rig, 2, "a", &id("x")), first(&accepted, 1));
    assert_eq!(send(&mut rig, 2, "a", &id("y")), Err(NotStored::Full));
    rig.receive(1);
    assert!(
        send(&mut rig, 2, "a", &id("y")).is_ok(),
        "a refused send is not remembered"
    );
}

#[test]
fn a_queue_may_require_an_id() {
    let fifo = FifoConfig {
        deduplication: Deduplication::Required,
        ..FifoConfig::default()
    };
    let mut rig = Rig::new(Kind::Fifo(fifo), |_| {});
    let group = group("a");
    let admission = Admission {
        group: Some(&group),
        ..Admission::default()
    };
    assert_eq!(
        rig.try_send(1, &admission),
        Err(NotStored::MissingDeduplication)
    );
}
