//! The slab: rules, properties, drop counts, stress.
#![cfg(not(loom))]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sim_core::slab::{Removed, Slab, Vacate};

/// A context that counts what it receives.
#[derive(Debug, Default)]
struct Counts {
    vacated: AtomicUsize,
    dropped: AtomicUsize,
    context_dropped: AtomicUsize,
}

struct Context(Arc<Counts>);

impl Vacate<Value> for Context {
    fn vacated(&self, value: Value) {
        self.0.vacated.fetch_add(1, Ordering::Relaxed);
        drop(value);
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        self.0.context_dropped.fetch_add(1, Ordering::Relaxed);
    }
}

/// A value that counts its drop.
struct Value {
    number: u64,
    counts: Arc<Counts>,
    /// On the heap, so that a second drop or a late read shows.
    echo: Box<u64>,
}

impl Drop for Value {
    fn drop(&mut self) {
        assert_eq!(self.number, *self.echo);
        self.counts.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

fn slab(limit: usize, kept: usize) -> (Slab<Context, Value>, Arc<Counts>) {
    let counts = Arc::new(Counts::default());
    (
        Slab::with_kept(Context(Arc::clone(&counts)), limit, kept),
        counts,
    )
}

fn value(counts: &Arc<Counts>, number: u64) -> Value {
    Value {
        number,
        counts: Arc::clone(counts),
        echo: Box::new(number),
    }
}

fn dropped(counts: &Counts) -> usize {
    counts.dropped.load(Ordering::Relaxed)
}

#[test]
fn a_lease_is_named_by_its_key_alone() {
    let (slab, counts) = slab(10, 0);
    let idle = slab.insert(value(&counts, 7)).ok().unwrap();
    assert!(slab.held(idle).is_none(), "not leased");
    let first = slab.lease(idle.index()).unwrap();
    assert!(slab.lease(idle.index()).is_none(), "leased already");
    let first_key = first.key();
    assert!(first.is_current());
    let index = first.release().unwrap();
    assert!(slab.held(first_key).is_none());
    let second = slab.lease(index).unwrap();
    assert_ne!(second.key(), first_key);
    assert!(slab.held(first_key).is_none());
    assert!(!slab.unlease(first_key));
    let second_key = second.detach();
    assert_eq!(slab.with(second_key, |value| value.number), Some(7));
    assert!(slab.unlease(second_key));
    assert!(slab.with(second_key, |_| ()).is_none());
    assert!(matches!(slab.remove_idle(index), Some(Removed::Value(_))));
    assert!(slab.remove_idle(index).is_none());
    assert!(slab.lease(index).is_none());
    assert_eq!(dropped(&counts), 1);
    assert_eq!(slab.occupied(), 0);
}
