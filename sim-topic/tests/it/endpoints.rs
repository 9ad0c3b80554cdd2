//! Endpoints: they confirm before they get anything.

use std::sync::{Arc, Mutex};

use sim_topic::filter::{FilterPolicy, Scope};
use sim_topic::{
    ConfirmError, Delivery, DeliveryError, Filter, Notification, Subscriber, SubscriptionConfig,
    SubscriptionState, Token, TopicConfig,
};

use crate::rig::{Probe, pass, secs, topic};

type Seen = Arc<Mutex<Vec<Delivery<u64>>>>;

fn endpoint() -> (Subscriber<u64>, Seen) {
    let seen: Seen = Arc::default();
    let into = Arc::clone(&seen);
    let subscriber = Subscriber::endpoint(move |delivery: Delivery<u64>| {
        let into = Arc::clone(&into);
        async move {
            into.lock().unwrap().push(delivery);
            Ok::<(), DeliveryError>(())
        }
    });
    (subscriber, seen)
}

fn token(seen: &Seen) -> Token {
    match seen.lock().unwrap().last() {
        Some(Delivery::Confirmation(request) | Delivery::Unsubscribed(request)) => {
            request.token.clone()
        }
        other => panic!("no request but {other:?}"),
    }
}

#[test]
fn an_endpoint_gets_messages_once_it_has_confirmed() {
    let (topic, time) = topic(TopicConfig::default());
    let (subscriber, seen) = endpoint();
    let sub = topic
        .subscribe(subscriber, SubscriptionConfig::default())
        .unwrap();
    assert_eq!(sub.state(), SubscriptionState::Unconfirmed);
    assert_eq!(topic.stats().subscriptions_pending, 1);
    topic.try_publish(1).unwrap();
    topic.advance(time.now());
    assert_eq!(seen.lock().unwrap().len(), 1, "the request alone");
    let token = token(&seen);
    assert_eq!(topic.confirm(&token), Ok(sub.id()));
    assert_eq!(
        topic.confirm(&token),
        Ok(sub.id()),
        "twice is the same as once"
    );
    assert_eq!(sub.state(), SubscriptionState::Active);
    topic.try_publish(2).unwrap();
    topic.advance(time.now());
    assert!(matches!(
        seen.lock().unwrap().last(),
        Some(Delivery::Notification(notification)) if *notification.value() == 2
    ));
    let stats = sub.stats();
    assert_eq!((stats.accepted, stats.delivered), (1, 1));
    assert_eq!(topic.stats().subscriptions_pending, 0);
}

#[test]
fn a_token_is_valid_for_two_days() {
    let (topic, time) = topic(TopicConfig::default());
    let (subscriber, seen) = endpoint();
    let sub = topic
        .subscribe(subscriber, SubscriptionConfig::default())
        .unwrap();
    topic.advance(time.now());
    let token = token(&seen);
    pass(&topic, &time, secs(172_801));
    let expired = ConfirmError::Expired {
        ago: secs(1),
        validity: secs(172_800),
    };
    assert_eq!(topic.confirm(&token), Err(expired));
    let forged: Token = "0".repeat(64).parse().unwrap();
    assert_eq!(topic.confirm(&forged), Err(ConfirmError::Unknown));
    assert!("zz".parse::<Token>().is_err());
    // Nobody can confirm it any more: it goes.
    pass(&topic, &time, secs(172_800));
    assert_eq!(topic.confirm(&token), Err(ConfirmError::Unknown));
    assert_eq!(sub.state(), SubscriptionState::Over);
    assert_eq!(topic.stats().subscriptions_deleted, 1);
}

#[test]
fn a_cancelled_endpoint_is_told_and_may_come_back() {
    let (topic, time) = topic(TopicConfig::default());
    let (subscriber, seen) = endpoint();
    let sub = topic
        .subscribe(subscriber, SubscriptionConfig::default())
        .unwrap();
    topic.advance(time.now());
    topic.confirm(&token(&seen)).unwrap();
    topic.try_publish(1).unwrap();
    sub.unsubscribe();
    topic.try_publish(2).unwrap();
    topic.advance(time.now());
    assert!(matches!(
        seen.lock().unwrap().last(),
        Some(Delivery::Unsubscribed(_))
    ));
    assert_eq!(seen.lock().unwrap().len(), 2, "the pending message went");
    assert_eq!(sub.stats().dropped.unsubscribed, 1);
    assert_eq!(topic.stats().subscriptions_deleted, 1);
    assert_eq!(topic.confirm(&token(&seen)), Ok(sub.id()));
    topic.try_publish(3).unwrap();
    topic.advance(time.now());
    assert!(matches!(
        seen.lock().unwrap().last(),
        Some(Delivery::Notification(notification)) if *notification.value() == 3
    ));
}

#[test]
fn tokens_are_not_guessed_from_one_another_and_are_the_same_in_a_replay() {
    let token_of = |seed, secret: Option<[u8; 32]>| {
        let (clock, time) = crate::rig::clock();
        let config = TopicConfig {
            seed,
            ..TopicConfig::default()
        };
        let mut builder = sim_topic::Topic::builder(config).clock(clock);
        if let Some(secret) = secret {
            builder = builder.token_secret(secret);
        }
        let topic = builder.build().unwrap();
        let (subscriber, seen) = endpoint();
        topic
            .subscribe(subscriber, SubscriptionConfig::default())
            .unwrap();
        topic.advance(time.now());
        token(&seen)
    };
    assert_eq!(token_of(1, None), token_of(1, None));
    assert_ne!(token_of(1, None), token_of(2, None));
    assert_ne!(token_of(1, None), token_of(1, Some([7; 32])));
    assert_eq!(token_of(1, None).as_str().len(), 64);
    assert!(!format!("{:?}", token_of(1, None)).contains(token_of(1, None).as_str()));
}

#[test]
fn an_endpoint_counts_what_its_filter_keeps_away_only_while_it_is_confirmed() {
    let policy = |n: u64| {
        let json = format!(r#"{{"n": ["{n}"]}}"#);
        Filter::Policy(FilterPolicy::parse(&json, Scope::MessageAttributes).unwrap())
    };
    let (topic, time) = topic(TopicConfig::default());
    let (subscriber, seen) = endpoint();
    let sub = topic
        .subscribe(
            subscriber,
            SubscriptionConfig {
                filter: policy(0),
                ..SubscriptionConfig::default()
            },
        )
        .unwrap();
    topic.advance(time.now());
    // Enough of them for an index.
    let fill = |from: u64| {
        for n in from..from + 40 {
            let config = SubscriptionConfig {
                filter: policy(n),
                ..SubscriptionConfig::default()
            };
            let probe = Probe::<Notification<u64>>::new();
            topic.subscribe(Subscriber::sink(probe), config).unwrap();
        }
    };
    let filtered = || sub.stats().filtered.total();
    fill(1);
    topic.try_publish(1).unwrap();
    assert_eq!(filtered(), 0);
    topic.confirm(&token(&seen)).unwrap();
    topic.try_publish(2).unwrap();
    assert_eq!(filtered(), 1);
    fill(100);
    topic.try_publish(3).unwrap();
    assert_eq!(filtered(), 2);
    sub.unsubscribe();
    topic.try_publish(4).unwrap();
    assert_eq!(filtered(), 2);
    topic.advance(time.now());
    topic.confirm(&token(&seen)).unwrap();
    topic.try_publish(5).unwrap();
    assert_eq!(filtered(), 3);
}
