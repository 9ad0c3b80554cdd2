//! The rings under loom.
//!
//! The main thread only spawns and joins, and the storing thread is spawned first; every test asserts a floor on
//! the executions explored. Under `cfg(loom)` a segment has three cells, or one when `T` is larger than eight
//! bytes, so that few steps change segments.
//!
//! # Mutations
//! Each ordering was weakened to `Relaxed` (or the step removed) by hand, once, and the test seen to fail:
//!
//! | weakened | caught by |
//! | --- | --- |
//! | bounded push: `FULL` stored Release; stamp loaded Acquire | a_bounded_cell_is_written_before_.. |
//! | bounded pop: stamp loaded Acquire; free stored Release | a_bounded_cell_is_written_before_.. |
//! | bounded batches: `FULL` Release, stamps Acquire (first and further, push and pop) | bounded_batches_.. |
//! | key stored Release; key loaded Acquire; second look removed (bounded) | a_bounded_front_.. |
//! | bounded peek: stamp Acquire | a_bounded_front_.. |
//! | bounded claim by load and store | a_bounded_pop_is_never_empty_handed_.. |
//! | bounded "empty" answered from the stamp | bounded_batches_.. (by its floor only) |
//! | unbounded push: `FULL` Release; take and wait: stamp Acquire | an_unbounded_ring_links_.. |
//! | unbounded batch: `FULL` Release | unbounded_conditional_pops_.. |
//! | unbounded take: `TAKEN` Release; retire: stamps Acquire; retire without looking | .._is_used_again_.. |
//! | across: tail index (to Relaxed); batch push: tail index and segment Acquire | .._cross_segments_together |
//! | single push: tail index Acquire | .._enter_the_next_segment_.. (runs away) |
//! | single push: tail segment Acquire | an_unbounded_ring_links_.. |
//! | first link: exchange Release | .._cross_segments_together |
//! | first link and moving on: head segment Release | unbounded_conditional_pops_.. |
//! | moving on: head index (to Relaxed); pop: head index Acquire | .._is_freed_after_.. (runs away) |
//! | spare put Release, taken Acquire | unbounded_segments_are_linked_.. |
//! | retired list put Release | unbounded_conditional_pops_.. |
//! | retired list taken Acquire; readers: collector and exit; readers ignored | .._not_freed_while_somebody_peeks |
//! | unbounded peek: segment Acquire | unbounded_conditional_pops_.. |
//! | unbounded peek: stamp Acquire | an_unbounded_front_belongs_.. |
//! | unbounded "empty" answered from the copy | .._cross_segments_together |
//!
//! Not caught by any model:
//! - Claims at `SeqCst` made `Relaxed`: no data depends on them; they order a claim against a waiter's flag,
//!   which loom (where `SeqCst` is `AcqRel`) could not show.
//! - `HOLE` stored Release: nothing is read from a hole. It hands on to the next producer that the consumer before it
//!   moved its value out, which the producer that left the hole had acquired.
//! - Across: tail segment Release and `next` Release, `next` loaded Acquire, pop's segment loaded Acquire: who uses a new
//!   segment has acquired the tail index stored after it. Kept, since the pointer's own pair is what a reader expects.
//! - Readers: entry's Acquire, and peek's head index Acquire: under loom an index is loaded by a read-modify-write, which
//!   never yields an older value. Elsewhere the entry's Acquire keeps the load of the segment behind it.
//! - Unbounded peek: second look removed: no model uses a segment again at just that place; the bounded ring's does.
#![cfg(loom)]

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use loom::sync::Arc;
use loom::sync::atomic::AtomicBool;
use loom::thread;
use sim_core::ring::{Bounded, Unbounded};

/// A value that takes one cell of one-cell segments, and that loom tracks: it is freed exactly once.
type Large = (Box<u64>, u64);

fn large(value: u64) -> Large {
    (Box::new(value), value)
}

/// Explores `model` and asserts that at least `floor` executions were seen.
fn explore(preemptions: usize, floor: usize, model: impl Fn() + Send + Sync + 'static) {
    let count = std::sync::Arc::new(AtomicUsize::new(0));
    let seen = count.clone();
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 20_000;
    builder.check(move || {
        seen.fetch_add(1, Relaxed);
        model();
    });
    let count = count.load(Relaxed);
    eprintln!("executions: {count}");
    assert!(
        count >= floor,
        "only {count} executions explored, expected {floor}"
    );
}

#[test]
fn a_bounded_cell_is_written_before_it_is_read_and_read_before_it_is_written_again() {
    explore(3, 100, || {
        let ring = Arc::new(Bounded::<Box<u64>>::with_capacity(1));
        let producer = {
            let ring = ring.clone();
            thread::spawn(move || {
                assert_eq!(ring.push(Box::new(1)), Ok(0));
                ring.push(Box::new(2)).is_ok()
            })
        };
        let consumer = {
            let ring = ring.clone();
            thread::spawn(move || [ring.pop(), ring.pop()])
        };
        let second = producer.join().unwrap();
        let taken: Vec<_> = consumer
            .join()
            .unwrap()
            .into_iter()
            .flatten()
            .map(|v| *v)
            .collect();
        assert!([vec![], vec![1], vec![1, 2]].contains(&taken));
        assert!(second || taken.len() < 2);
    });
}

#[test]
fn bounded_producers_and_consumers_share_nothing_and_lose_nothing() {
    explore(2, 500, || {
        let ring = Arc::new(Bounded::<Box<u64>>::with_capacity(2));
        let producers: Vec<_> = (0..2)
            .map(|number| {
                let ring = ring.clone();
                thread::spawn(move || ring.push(Box::new(number)).unwrap())
            })
            .collect();
        let consumer = {
            let ring = ring.clone();
            thread::spawn(move || [ring.pop_entry(), ring.pop_entry()])
        };
        let positions: Vec<_> = producers.into_iter().map(|p| p.join().unwrap()).collect();
        assert_eq!(positions[0] + positions[1], 1);
        let taken = consumer.join().unwrap();
        for entry in taken.iter().flatten() {
            assert_eq!(positions[*entry.value as usize], entry.position);
        }
        assert_eq!(ring.len(), 2 - taken.iter().flatten().count());
    });
}

#[test]
fn two_bounded_consumers_never_take_the_same_value() {
    explore(1, 50, || {
        let ring = Arc::new(Bounded::<Box<u64>>::with_capacity(2));
        let producer = {
            let ring = ring.clone();
            thread::spawn(move || [1, 2].map(|number| ring.push(Box::new(number)).is_ok()))
        };
        let consumers: Vec<_> = (0..2)
            .map(|_| {
                let ring = ring.clone();
                thread::spawn(move || ring.pop())
            })
            .collect();
        let pushed = producer.join().unwrap();
        let taken: Vec<_> = consumers
            .into_iter()
            .filter_map(|c| c.join().unwrap())
            .collect();
        let pushed = pushed.into_iter().filter(|pushed| *pushed).count();
        assert_eq!(taken.len() + ring.len(), pushed);
        assert!(taken.len() < 2 || taken[0] != taken[1]);
    });
}

#[test]
fn bounded_batches_are_claimed_whole() {
    explore(2, 100, || {
        let ring = Arc::new(Bounded::<Box<u64>>::with_capacity(2));
        let producer = {
            let ring = ring.clone();
            thread::spawn(move || {
                let mut first = [1, 2].map(Box::new).into_iter();
                assert_eq!(ring.push_batch(&mut first), (0, 2));
                let mut second = [3, 4].map(Box::new).into_iter();
                ring.push_batch(&mut second).1
            })
        };
        let consumer = {
            let ring = ring.clone();
            thread::spawn(move || {
                let mut taken = Vec::new();
                for _ in 0..2 {
                    ring.pop_batch(2, |entry| {
                        assert_eq!(entry.position + 1, *entry.value);
                        taken.push(*entry.value);
                    });
                }
                taken
            })
        };
        let pushed = 2 + producer.join().unwrap();
        let taken = consumer.join().unwrap();
        assert!(taken.iter().copied().eq(1..=taken.len() as u64));
        assert_eq!(taken.len() + ring.len(), pushed);
    });
}

#[test]
fn a_bounded_hole_hands_its_cell_on_like_an_element() {
    explore(3, 50, || {
        let ring = Arc::new(Bounded::<Box<u64>>::with_capacity(1));
        let producer = {
            let ring = ring.clone();
            thread::spawn(move || {
                let pushed = ring.push(Box::new(0)).is_ok();
                // One that announces an element and yields none.
                ring.push_batch(&mut Liar);
                pushed
            })
        };
        let consumer = {
            let ring = ring.clone();
            thread::spawn(move || {
                let taken = [ring.pop(), ring.pop()];
                (
                    taken.iter().flatten().count(),
                    ring.push(Box::new(2)).is_ok(),
                )
            })
        };
        let first = producer.join().unwrap();
        let (taken, pushed) = consumer.join().unwrap();
        let left = std::iter::from_fn(|| ring.pop()).count();
        assert_eq!(taken + left, usize::from(first) + usize::from(pushed));
    });
}

/// Announces one element and yields none.
struct Liar;

impl Iterator for Liar {
    type Item = Box<u64>;

    fn next(&mut self) -> Option<Self::Item> {
        None
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (1, Some(1))
    }
}

impl ExactSizeIterator for Liar {}

#[test]
fn a_bounded_front_belongs_to_its_position() {
    explore(4, 100, || {
        let ring = Arc::new(Bounded::<u64, u64>::with_capacity(1));
        let owner = {
            let ring = ring.clone();
            thread::spawn(move || {
                for position in 0..2 {
                    assert_eq!(ring.push_keyed(10 + position, position), Ok(position));
                    let taken = ring.pop_if(|key| key == 10 + position);
                    assert_eq!(taken.unwrap().value, position);
                }
            })
        };
        let peeker = {
            let ring = ring.clone();
            thread::spawn(move || {
                if let Some((position, key)) = ring.front() {
                    assert_eq!(key, position + 10);
                }
            })
        };
        owner.join().unwrap();
        peeker.join().unwrap();
    });
}

#[test]
fn a_bounded_pop_is_never_empty_handed_while_something_stands() {
    explore(3, 20, || {
        let ring = Arc::new(Bounded::<u64>::with_capacity(2));
        let threads: Vec<_> = (0..2)
            .map(|number| {
                let ring = ring.clone();
                thread::spawn(move || {
                    ring.push(number).unwrap();
                    // Two were pushed at most, and this thread's own is not taken by more pops than pushes.
                    assert!(!ring.is_empty() || number > 1);
                    if number == 1 {
                        assert!(ring.pop().is_some());
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

#[test]
fn an_unbounded_ring_links_its_first_segment_once() {
    explore(2, 100, || {
        let ring = Arc::new(Unbounded::<Box<u64>>::new());
        let producers: Vec<_> = (0..2)
            .map(|number| {
                let ring = ring.clone();
                thread::spawn(move || ring.push(Box::new(number)).unwrap())
            })
            .collect();
        let consumer = {
            let ring = ring.clone();
            thread::spawn(move || ring.pop_entry())
        };
        let positions: Vec<_> = producers.into_iter().map(|p| p.join().unwrap()).collect();
        assert_eq!(positions[0] + positions[1], 1);
        if let Some(entry) = consumer.join().unwrap() {
            assert_eq!((entry.position, positions[*entry.value as usize]), (0, 0));
        }
    });
}

#[test]
fn unbounded_segments_are_linked_before_they_are_entered() {
    explore(3, 100, || {
        let ring = Arc::new(Unbounded::<Large>::new());
        let producer = {
            let ring = ring.clone();
            thread::spawn(move || {
                for number in 0..3 {
                    assert_eq!(ring.push(large(number)).ok(), Some(number));
                }
            })
        };
        let consumer = {
            let ring = ring.clone();
            thread::spawn(move || {
                let taken: Vec<_> = (0..3).filter_map(|_| ring.pop_entry()).collect();
                for (position, entry) in (0..).zip(&taken) {
                    assert_eq!((entry.position, *entry.value.0), (position, position));
                }
                taken.len()
            })
        };
        producer.join().unwrap();
        let taken = consumer.join().unwrap();
        assert_eq!(ring.len(), 3 - taken);
    });
}

#[test]
fn unbounded_producers_cross_segments_together() {
    explore(3, 100, || {
        let ring = Arc::new(Unbounded::<Large>::new());
        let producers: Vec<_> = (0..2)
            .map(|number| {
                let ring = ring.clone();
                thread::spawn(move || {
                    let batch = [large(number * 2), large(number * 2 + 1)];
                    let (first, count) = ring.push_batch(&mut batch.into_iter());
                    assert_eq!(count, 2);
                    first
                })
            })
            .collect();
        let first: Vec<_> = producers.into_iter().map(|p| p.join().unwrap()).collect();
        assert_eq!(first[0] + first[1], 2);
        let mut seen = 0;
        ring.pop_batch(10, |entry| {
            let number = *entry.value.0;
            assert_eq!(entry.position, first[(number / 2) as usize] + number % 2);
            seen += 1;
        });
        assert_eq!(seen, 4);
    });
}

/// Fills a ring in a thread of its own, so that the consumers' models stay small.
fn filled(count: u64) -> Arc<Unbounded<Box<u64>>> {
    let ring = Arc::new(Unbounded::new());
    let producer = {
        let ring = ring.clone();
        thread::spawn(move || {
            (0..count).for_each(|number| _ = ring.push(Box::new(number)).unwrap())
        })
    };
    producer.join().unwrap();
    ring
}

#[test]
fn unbounded_producers_enter_the_next_segment_after_it_was_linked() {
    explore(3, 100, || {
        let ring = filled(2);
        let producers: Vec<_> = (2..4)
            .map(|number| {
                let ring = ring.clone();
                thread::spawn(move || {
                    ring.push(Box::new(number)).unwrap();
                    ring.push(Box::new(number + 2)).unwrap()
                })
            })
            .collect();
        let last: Vec<_> = producers.into_iter().map(|p| p.join().unwrap()).collect();
        assert!(last.iter().all(|last| (3..6).contains(last)));
        let mut sum = 0;
        assert_eq!(ring.pop_batch(10, |entry| sum += *entry.value), 6);
        assert_eq!(sum, (0..6).sum());
    });
}

#[test]
fn an_unbounded_segment_is_freed_after_its_last_value_was_moved_out() {
    explore(3, 500, || {
        let ring = filled(7);
        let consumers: Vec<_> = [3, 4]
            .into_iter()
            .map(|count| {
                let ring = ring.clone();
                thread::spawn(move || {
                    let taken = (0..count).map(|_| ring.pop().expect("there is one for each"));
                    taken.fold(0, |sum, value| sum + *value)
                })
            })
            .collect();
        let sum: u64 = consumers.into_iter().map(|c| c.join().unwrap()).sum();
        assert_eq!(sum, (0..7).sum());
        assert!(ring.is_empty());
    });
}

#[test]
fn an_unbounded_segment_is_used_again_after_its_last_value_was_moved_out() {
    explore(2, 500, || {
        let ring = filled(3);
        let producer = {
            let ring = ring.clone();
            thread::spawn(move || {
                (3..8).for_each(|number| _ = ring.push(Box::new(number)).unwrap())
            })
        };
        let consumers: Vec<_> = [2, 1]
            .into_iter()
            .map(|count| {
                let ring = ring.clone();
                thread::spawn(move || {
                    (0..count).for_each(|_| drop(ring.pop().expect("there is one for each")));
                })
            })
            .collect();
        producer.join().unwrap();
        consumers.into_iter().for_each(|c| c.join().unwrap());
        assert_eq!(ring.len(), 5);
    });
}

#[test]
fn an_unbounded_segment_is_not_freed_while_somebody_peeks() {
    explore(3, 100, || {
        let ring = Arc::new(Unbounded::<[u64; 2], u64>::new());
        let filler = {
            let ring = ring.clone();
            thread::spawn(move || {
                for position in 0..3 {
                    ring.push_keyed(position + 10, [position; 2]).unwrap();
                }
            })
        };
        filler.join().unwrap();
        let consumer = {
            let ring = ring.clone();
            thread::spawn(move || {
                for position in 0..3 {
                    assert_eq!(ring.pop(), Some([position; 2]));
                }
            })
        };
        let peeker = {
            let ring = ring.clone();
            thread::spawn(move || {
                if let Some((position, key)) = ring.front() {
                    assert_eq!(key, position + 10);
                }
            })
        };
        consumer.join().unwrap();
        peeker.join().unwrap();
    });
}

#[test]
fn an_unbounded_front_belongs_to_its_position_when_segments_are_used_again() {
    explore(3, 100, || {
        let ring = Arc::new(Unbounded::<[u64; 2], u64>::new());
        let owner = {
            let ring = ring.clone();
            thread::spawn(move || {
                for position in 0..4 {
                    assert_eq!(ring.push_keyed(position + 10, [position; 2]), Ok(position));
                    assert_eq!(ring.pop(), Some([position; 2]));
                }
            })
        };
        let peeker = {
            let ring = ring.clone();
            thread::spawn(move || {
                if let Some((position, key)) = ring.front() {
                    assert_eq!(key, position + 10);
                }
            })
        };
        owner.join().unwrap();
        peeker.join().unwrap();
    });
}

#[test]
fn unbounded_conditional_pops_take_each_element_once() {
    explore(1, 500, || {
        let ring = Arc::new(Unbounded::<[u64; 2], u64>::new());
        let producer = {
            let ring = ring.clone();
            thread::spawn(move || {
                for position in 0..2 {
                    ring.push_keyed(position, [position; 2]).unwrap();
                }
            })
        };
        let consumers: Vec<_> = (0..2)
            .map(|_| {
                let ring = ring.clone();
                thread::spawn(move || ring.pop_if(|key| key < 10))
            })
            .collect();
        producer.join().unwrap();
        let taken: Vec<_> = consumers
            .into_iter()
            .filter_map(|c| c.join().unwrap())
            .collect();
        assert_eq!(taken.len() + ring.len(), 2);
        assert!(taken.iter().all(|entry| entry.value == [entry.position; 2]));
        assert!(taken.len() < 2 || taken[0].position != taken[1].position);
    });
}

/// Both rings behind one face, for the models of closing.
trait Closing<T>: Send + Sync {
    fn push(&self, value: T) -> Result<u64, T>;
    fn push_two(&self, values: [T; 2]) -> usize;
    fn pop(&self) -> Option<T>;
    fn pushed(&self) -> u64;
    fn is_empty(&self) -> bool;
    fn close(&self);
    fn is_closed(&self) -> bool;
}

macro_rules! closing {
    ($($ring:ident),*) => {$(
        impl<T: Send> Closing<T> for $ring<T> {
            fn push(&self, value: T) -> Result<u64, T> {
                $ring::push(self, value)
            }
            fn push_two(&self, values: [T; 2]) -> usize {
                let mut values = values.into_iter();
                let (_, count) = $ring::push_batch(self, &mut values);
                assert_eq!(values.len() + count, 2);
                count
            }
            fn pop(&self) -> Option<T> {
                $ring::pop(self)
            }
            fn pushed(&self) -> u64 {
                $ring::pushed(self)
            }
            fn is_empty(&self) -> bool {
                $ring::is_empty(self)
            }
            fn close(&self) {
                $ring::close(self);
            }
            fn is_closed(&self) -> bool {
                $ring::is_closed(self)
            }
        }
    )*};
}

closing!(Bounded, Unbounded);

/// A push of one or two and a close: what was counted when the close had returned is what was taken in. Who was
/// refused sees what was done before the close.
fn close_against_push<R: Closing<Large> + 'static>(ring: impl Fn() -> R, batch: bool) {
    let ring = Arc::new(ring());
    let before = Arc::new(AtomicBool::new(false));
    let producer = {
        let (ring, before) = (ring.clone(), before.clone());
        thread::spawn(move || {
            let taken_in = if batch {
                ring.push_two([large(1), large(2)])
            } else {
                usize::from(ring.push(large(1)).is_ok())
            };
            assert!(taken_in > 0 || before.load(Relaxed), "refused too early");
            taken_in
        })
    };
    let closer = {
        let (ring, before) = (ring.clone(), before.clone());
        thread::spawn(move || {
            before.store(true, Relaxed);
            ring.close();
            let pushed = ring.pushed();
            let mut given_out = 0;
            while ring.pop().is_some() {
                given_out += 1;
            }
            assert!(ring.push(large(9)).is_err());
            (pushed, given_out)
        })
    };
    let taken_in = producer.join().unwrap();
    let (pushed, given_out) = closer.join().unwrap();
    assert_eq!((pushed, given_out), (taken_in as u64, taken_in));
    assert!(ring.pop().is_none());
    assert_eq!(ring.pushed(), pushed);
}

#[test]
fn a_push_and_a_close_of_a_bounded_ring_taken_or_refused_never_lost() {
    explore(3, 20, || {
        close_against_push(|| Bounded::with_capacity(3), false)
    });
    explore(3, 10, || {
        close_against_push(|| Bounded::with_capacity(2), false)
    });
    explore(3, 20, || {
        close_against_push(|| Bounded::with_capacity(3), true)
    });
    explore(3, 20, || {
        close_against_push(|| Bounded::with_capacity(2), true)
    });
}

#[test]
fn a_push_and_a_close_of_an_unbounded_ring_taken_or_refused_never_lost() {
    // Segments of one cell: each push links the next one, a batch two.
    explore(3, 20, || close_against_push(Unbounded::new, false));
    explore(3, 20, || close_against_push(Unbounded::new, true));
}

#[test]
fn a_push_and_a_close_within_a_segment_taken_or_refused_never_lost() {
    explore(3, 20, || {
        let ring = filled(1);
        let before = Arc::new(AtomicBool::new(false));
        let producer = {
            let (ring, before) = (ring.clone(), before.clone());
            thread::spawn(move || {
                let taken_in = ring.push(Box::new(1)).is_ok();
                assert!(taken_in || before.load(Relaxed), "refused too early");
                taken_in
            })
        };
        let closer = {
            let (ring, before) = (ring.clone(), before.clone());
            thread::spawn(move || {
                before.store(true, Relaxed);
                ring.close();
                ring.len()
            })
        };
        let len = 1 + usize::from(producer.join().unwrap());
        assert_eq!(closer.join().unwrap(), len);
        assert_eq!(ring.pop_batch(9, |_| ()), len);
    });
}

/// Somebody else looks: nothing comes after a ring was seen closed and empty.
fn closed_and_empty<R: Closing<Large> + 'static>(ring: impl Fn() -> R) {
    let ring = Arc::new(ring());
    let producer = {
        let ring = ring.clone();
        thread::spawn(move || ring.push_two([large(1), large(2)]))
    };
    let closer = {
        let ring = ring.clone();
        thread::spawn(move || ring.close())
    };
    let consumer = {
        let ring = ring.clone();
        thread::spawn(move || {
            let first = usize::from(ring.pop().is_some());
            (first, ring.is_closed() && ring.is_empty())
        })
    };
    let taken_in = producer.join().unwrap();
    closer.join().unwrap();
    let (given_out, ended) = consumer.join().unwrap();
    assert!(!ended || taken_in == given_out, "came after the end");
}

#[test]
fn nothing_comes_after_a_bounded_ring_was_seen_closed_and_empty() {
    explore(2, 100, || closed_and_empty(|| Bounded::with_capacity(3)));
}

#[test]
fn nothing_comes_after_an_unbounded_ring_was_seen_closed_and_empty() {
    explore(1, 50, || closed_and_empty(Unbounded::new));
}

#[test]
fn two_closes_and_a_push_agree() {
    explore(1, 50, || {
        let ring = Arc::new(Unbounded::<Large>::new());
        let producer = {
            let ring = ring.clone();
            thread::spawn(move || ring.push(large(1)).is_ok())
        };
        let closers: Vec<_> = (0..2)
            .map(|_| {
                let ring = ring.clone();
                thread::spawn(move || {
                    ring.close();
                    ring.pushed()
                })
            })
            .collect();
        let pushed = u64::from(producer.join().unwrap());
        for closer in closers {
            assert_eq!(closer.join().unwrap(), pushed);
        }
    });
}
