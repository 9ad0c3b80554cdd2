//! An endpoint is down for three weeks, and a test of it takes a moment: 100,015 retries on a virtual clock, and then the
//! dead letter.
//!
//! `cargo run -p sim-topic --example retries_in_virtual_time`

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use sim_core::clock::Clock;
use sim_core::seam::{Refused, Sink};
use sim_topic::{
    DeadLetter, DeliveryError, Notification, RetryPolicy, Subscriber, SubscriptionConfig, Topic,
    TopicConfig,
};

#[derive(Default)]
struct Letters(Mutex<Vec<DeadLetter<&'static str>>>);

impl Sink<DeadLetter<&'static str>> for Letters {
    fn try_deliver(
        &self,
        letter: DeadLetter<&'static str>,
    ) -> Result<(), Refused<DeadLetter<&'static str>>> {
        match self.0.lock() {
            Ok(mut letters) => {
                letters.push(letter);
                Ok(())
            }
            Err(_) => Err(Refused::closed(letter)),
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (clock, time) = Clock::virtual_at("2026-01-01T00:00:00Z".parse()?);
    let topic = Topic::with_clock(TopicConfig::new("orders"), clock.clone())?;
    let letters = Arc::new(Letters::default());
    let tries = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&tries);
    let subscription = topic.subscribe(
        Subscriber::handler(move |_: Notification<&'static str>| {
            counted.fetch_add(1, Ordering::Relaxed);
            async { Err(DeliveryError::server("connection refused")) }
        }),
        SubscriptionConfig {
            retry: RetryPolicy::aws_managed(),
            dead_letters: Some(Arc::clone(&letters) as Arc<dyn Sink<_>>),
            ..SubscriptionConfig::default()
        },
    )?;

    topic.try_publish("two coffees")?;
    topic.advance(clock.now()); // the first try: nothing runs by itself
    while let Some(deadline) = topic.next_deadline() {
        time.advance_to(deadline);
        topic.advance(deadline);
    }

    let letters = letters.0.lock().map_err(|_| "poisoned")?;
    println!(
        "{} tries until {}",
        tries.load(Ordering::Relaxed),
        clock.timestamp(clock.now())
    );
    for letter in letters.iter() {
        println!(
            "given up: {:?} after {} tries: {}",
            letter.notification.value(),
            letter.attempts,
            letter.error.as_deref().unwrap_or_default()
        );
    }
    assert_eq!((letters.len(), letters[0].attempts), (1, 100_016));
    assert_eq!(subscription.stats().redriven, 1);
    Ok(())
}
