//! Endpoints over HTTP, subscribed to a topic whose clock the test moves.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sim_core::clock::VirtualClock;
use sim_core::payload::Payload;
use sim_core::seam::Sink;
use sim_topic::http::{HttpBody, HttpConfig, HttpEndpoint, Signer};
use sim_topic::{
    DeadLetter, DeadLetterReason, DeliveryPolicy, Envelope, EnvelopeKind, GroupId, Message,
    RetryPolicy, SignatureVersion, Structured, Subscriber, Subscription, SubscriptionConfig,
    SubscriptionState, Topic, TopicConfig,
};

use crate::rig::{Probe, clock, secs};
use server::{Reply, Seen, Server};

#[expect(dead_code, reason = "the unit tests of the endpoint use the rest")]
#[path = "../../src/http/tests/server.rs"]
mod server;

/// A topic that a task drives, and an endpoint that has confirmed.
struct Rig {
    topic: Topic<Payload>,
    time: VirtualClock,
    server: Server,
    subscription: Subscription<Payload>,
    letters: Probe<DeadLetter<Payload>>,
}

impl Rig {
    /// The server answers the confirmation with 200, and then as it is told.
    async fn start(topic: TopicConfig, replies: Vec<Reply>) -> Self {
        Self::with(topic, replies, |_| {}, |_| {}).await
    }

    async fn with(
        config: TopicConfig,
        mut replies: Vec<Reply>,
        endpoint: impl FnOnce(&mut HttpConfig),
        subscription: impl FnOnce(&mut SubscriptionConfig<Payload>),
    ) -> Self {
        replies.insert(0, Reply::Status(200));
        let mut server = Server::start(replies).await;
        let (clock, time) = clock();
        let topic = Topic::bytes(config, clock.clone()).unwrap();
        let mut http = HttpConfig::new(server.url("/hook"));
        endpoint(&mut http);
        let letters = Probe::new();
        let sink: Arc<dyn Sink<DeadLetter<Payload>>> = Arc::new(letters.clone());
        let mut config = SubscriptionConfig {
            dead_letters: Some(sink),
            ..SubscriptionConfig::default()
        };
        subscription(&mut config);
        let subscriber = Subscriber::endpoint(HttpEndpoint::new(http, clock).unwrap());
        let subscription = topic.subscribe(subscriber, config).unwrap();
        let driver = topic.clone();
        tokio::spawn(async move { driver.run().await });
        assert_eq!(subscription.state(), SubscriptionState::Unconfirmed);
        let seen = server.seen.recv().await.unwrap();
        assert_eq!(
            topic.confirm(&token(&seen).parse().unwrap()),
            Ok(subscription.id())
        );
        assert_eq!(subscription.state(), SubscriptionState::Active);
        Self {
            topic,
            time,
            server,
            subscription,
            letters,
        }
    }

    fn publish(&self, message: impl Into<Message<Payload>>) {
        self.topic.try_publish(message).unwrap();
    }

    /// The next request, and then the end of its delivery: a verdict, or the wait for another try.
    async fn next(&mut self) -> Seen {
        let seen = self.server.seen.recv().await.unwrap();
        let topic = &self.topic;
        until(|| topic.stats().subscriptions.in_flight == 0).await;
        seen
    }

    /// Moves the clock to the next retry, once there is one, and gives how long that was.
    async fn skip(&self) -> Duration {
        let now = self.time.now();
        until(|| self.topic.next_deadline().is_some_and(|at| at > now)).await;
        let next = self.topic.next_deadline().expect("it was there");
        self.time.advance_to(next);
        next - now
    }
}

/// Lets the other tasks work until something is so.
async fn until(mut is_so: impl FnMut() -> bool) {
    while !is_so() {
        tokio::task::yield_now().await;
    }
}

fn envelope(seen: &Seen) -> Envelope {
    Envelope::parse(&seen.body).unwrap()
}

fn token(seen: &Seen) -> String {
    match envelope(seen).kind {
        EnvelopeKind::SubscriptionConfirmation(confirmation)
        | EnvelopeKind::UnsubscribeConfirmation(confirmation) => confirmation.token,
        other => panic!("{other:?}"),
    }
}

/// No real time limits a test: what hangs is ended here, and only then.
async fn within_a_minute<F: Future>(test: F) -> F::Output {
    tokio::time::timeout(secs(60), test)
        .await
        .expect("the test hangs")
}

#[tokio::test]
async fn an_endpoint_confirms_and_then_gets_messages() {
    within_a_minute(async {
        let mut rig = Rig::start(TopicConfig::new("orders"), vec![]).await;
        rig.publish(Message::new(Payload::from("order 7")).subject("new"));
        let seen = rig.next().await;
        let envelope = envelope(&seen);
        assert_eq!(
            (&*envelope.message, envelope.subject()),
            ("order 7", Some("new"))
        );
        assert_eq!(seen.header("x-amz-sns-topic-arn"), Some("orders"));
        let arn = format!("orders:{}", rig.subscription.id());
        assert_eq!(seen.header("x-amz-sns-subscription-arn"), Some(&*arn));
        assert_eq!(rig.subscription.stats().delivered, 1);
    })
    .await;
}

#[tokio::test]
async fn nothing_is_delivered_before_the_token_came_back() {
    within_a_minute(async {
        let mut server = Server::start([Reply::Status(200)]).await;
        let (clock, _time) = clock();
        let topic = Topic::bytes(TopicConfig::new("orders"), clock.clone()).unwrap();
        let endpoint = HttpEndpoint::new(HttpConfig::new(server.url("/")), clock).unwrap();
        let subscriber = Subscriber::endpoint(endpoint);
        let subscription = topic
            .subscribe(subscriber, SubscriptionConfig::default())
            .unwrap();
        let driver = topic.clone();
        tokio::spawn(async move { driver.run().await });
        let seen = server.seen.recv().await.unwrap();
        assert_eq!(
            seen.header("x-amz-sns-message-type"),
            Some("SubscriptionConfirmation")
        );
        topic.try_publish(Payload::from("too early")).unwrap();
        topic.confirm(&token(&seen).parse().unwrap()).unwrap();
        topic.try_publish(Payload::from("in time")).unwrap();
        let seen = server.seen.recv().await.unwrap();
        assert_eq!(envelope(&seen).message, "in time");
        assert_eq!(subscription.stats().accepted, 1);
    })
    .await;
}

#[tokio::test]
async fn a_servers_error_is_tried_again_as_the_policy_says() {
    within_a_minute(async {
        let replies = vec![Reply::Status(500), Reply::Status(429), Reply::Status(200)];
        let mut rig = Rig::start(TopicConfig::new("orders"), replies).await;
        rig.publish(Payload::from("order 7"));
        let first = rig.next().await;
        assert_eq!(rig.skip().await, secs(20));
        let second = rig.next().await;
        assert_eq!(rig.skip().await, secs(20));
        let third = rig.next().await;
        // The same message, word for word.
        assert_eq!((&second.body, &third.body), (&first.body, &first.body));
        let stats = rig.subscription.stats();
        assert_eq!((stats.delivered, stats.retried, stats.failed), (1, 2, 0));
    })
    .await;
}

#[tokio::test]
async fn a_delivery_policy_of_sns_is_followed() {
    within_a_minute(async {
        let policy = DeliveryPolicy::parse(
            r#"{"healthyRetryPolicy":{"numRetries":5,"numNoDelayRetries":1,"minDelayTarget":1,"maxDelayTarget":9,
                "numMinDelayRetries":1,"numMaxDelayRetries":1,"backoffFunction":"linear"}}"#,
        )
        .unwrap();
        let mut rig = Rig::with(
            TopicConfig::new("orders"),
            vec![Reply::Status(503)],
            |_| {},
            |config| config.retry = policy.retry_policy().unwrap(),
        )
        .await;
        rig.publish(Payload::from("order 7"));
        rig.server.seen.recv().await.unwrap();
        // The retry without a wait comes by itself.
        rig.server.seen.recv().await.unwrap();
        let mut waits = Vec::new();
        for _ in 0..4 {
            waits.push(rig.skip().await);
            rig.server.seen.recv().await.unwrap();
        }
        until(|| rig.letters.len() == 1).await;
        assert_eq!(waits, [secs(1), secs(1), secs(9), secs(9)]);
        let letters = rig.letters.take();
        assert_eq!(letters[0].reason, DeadLetterReason::Exhausted);
        assert_eq!(letters[0].attempts, 6);
        assert!(letters[0].error.as_ref().unwrap().contains("answered 503 Service Unavailable"));
    })
    .await;
}

#[tokio::test]
async fn a_clients_error_is_not_tried_again() {
    within_a_minute(async {
        for status in [302, 400, 404, 410] {
            let mut rig = Rig::start(TopicConfig::new("orders"), vec![Reply::Status(status)]).await;
            rig.publish(Payload::from("order 7"));
            rig.next().await;
            until(|| rig.letters.len() == 1).await;
            let letters = rig.letters.take();
            assert_eq!(letters[0].reason, DeadLetterReason::ClientError);
            assert_eq!(
                (letters[0].attempts, letters[0].notification.value()),
                (1, &Payload::from("order 7"))
            );
            assert_eq!(rig.topic.next_deadline(), None);
        }
    })
    .await;
}

#[tokio::test]
async fn a_server_that_is_too_slow_is_asked_again() {
    within_a_minute(async {
        let replies = vec![Reply::Never, Reply::Status(200)];
        let mut rig = Rig::start(TopicConfig::new("orders"), replies).await;
        rig.publish(Payload::from("order 7"));
        rig.server.seen.recv().await.unwrap();
        // The endpoint gives it 15 s, and the policy waits for 20 s more.
        rig.time.advance(secs(15));
        assert_eq!(rig.skip().await, secs(20));
        rig.next().await;
        let stats = rig.subscription.stats();
        assert_eq!((stats.delivered, stats.retried), (1, 1));
    })
    .await;
}

#[tokio::test]
async fn an_answer_that_asks_for_more_time_than_the_policy_gets_it() {
    within_a_minute(async {
        let headers = vec![("retry-after", "90".to_owned())];
        let replies = vec![Reply::With(503, headers, Bytes::new()), Reply::Status(200)];
        let mut rig = Rig::start(TopicConfig::new("orders"), replies).await;
        rig.publish(Payload::from("order 7"));
        rig.next().await;
        assert_eq!(rig.skip().await, secs(90));
        rig.next().await;
        assert_eq!(rig.subscription.stats().delivered, 1);
    })
    .await;
}

#[tokio::test]
async fn a_group_keeps_its_order_through_failures() {
    within_a_minute(async {
        let replies = vec![Reply::Status(500), Reply::Status(200)];
        let mut rig = Rig::with(
            TopicConfig::fifo("orders.fifo"),
            replies,
            |_| {},
            |config| config.max_in_flight = 1,
        )
        .await;
        for (n, (group, text)) in [("a", "a1"), ("a", "a2"), ("b", "b1")]
            .into_iter()
            .enumerate()
        {
            let message = Message::new(Payload::from(text))
                .group(GroupId::new(group).unwrap())
                .deduplication_id(n.to_string().parse().unwrap());
            rig.publish(message);
        }
        let mut arrived = Vec::new();
        for _ in 0..2 {
            arrived.push(envelope(&rig.next().await));
        }
        rig.skip().await;
        for _ in 0..2 {
            arrived.push(envelope(&rig.next().await));
        }
        let messages: Vec<_> = arrived.iter().map(|envelope| &*envelope.message).collect();
        assert_eq!(messages, ["a1", "b1", "a1", "a2"]);
        let numbers: Vec<_> = arrived
            .iter()
            .map(|envelope| match &envelope.kind {
                EnvelopeKind::Notification {
                    sequence_number, ..
                } => sequence_number.clone().unwrap(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(numbers[0], numbers[2]);
        assert!(
            numbers[0] < numbers[3] && numbers[3] < numbers[1],
            "{numbers:?}"
        );
    })
    .await;
}

#[tokio::test]
async fn raw_delivery_and_signatures_work_through_a_topic() {
    within_a_minute(async {
        let mut rig = Rig::with(
            TopicConfig::new("orders"),
            vec![],
            |http| http.body = HttpBody::Raw,
            |_| {},
        )
        .await;
        rig.publish(Payload::from(vec![0, 255]));
        let seen = rig.next().await;
        assert_eq!(
            (&*seen.body, seen.header("x-amz-sns-rawdelivery")),
            (&[0, 255][..], Some("true"))
        );

        let signer =
            Signer::insecure_from_seed(1, SignatureVersion::V2, "http://localhost/cert").unwrap();
        let verifier = signer.verifier();
        let mut rig = Rig::with(
            TopicConfig::new("orders"),
            vec![],
            |http| http.signer = Some(signer),
            |config| config.retry = RetryPolicy::NONE,
        )
        .await;
        rig.publish(Payload::from("order 7"));
        assert_eq!(verifier.verify(&envelope(&rig.next().await)), Ok(()));
    })
    .await;
}

#[tokio::test]
async fn a_topic_of_any_values_says_what_is_sent() {
    within_a_minute(async {
        let mut server = Server::start([Reply::Status(200)]).await;
        let (clock, _time) = clock();
        let topic: Topic<Structured> =
            Topic::with_clock(TopicConfig::new("orders"), clock.clone()).unwrap();
        let endpoint = HttpEndpoint::with_body(
            HttpConfig::new(server.url("/")),
            clock,
            |message: &Structured| Payload::from(message.for_protocol("http").to_owned()),
        )
        .unwrap();
        let subscription = topic
            .subscribe(
                Subscriber::endpoint(endpoint),
                SubscriptionConfig::default(),
            )
            .unwrap();
        let driver = topic.clone();
        tokio::spawn(async move { driver.run().await });
        let seen = server.seen.recv().await.unwrap();
        topic.confirm(&token(&seen).parse().unwrap()).unwrap();
        let message = r#"{"default":"a parcel is on its way","http":"parcel"}"#;
        topic
            .try_publish(Structured::parse(message).unwrap())
            .unwrap();
        let seen = server.seen.recv().await.unwrap();
        assert_eq!(envelope(&seen).message, "parcel");
        until(|| subscription.stats().delivered == 1).await;
    })
    .await;
}

#[tokio::test]
async fn an_endpoint_that_lost_its_subscription_is_told_and_may_restore_it() {
    within_a_minute(async {
        let mut rig = Rig::start(TopicConfig::new("orders"), vec![]).await;
        rig.subscription.unsubscribe();
        let seen = rig.server.seen.recv().await.unwrap();
        assert_eq!(
            seen.header("x-amz-sns-message-type"),
            Some("UnsubscribeConfirmation")
        );
        rig.publish(Payload::from("missed"));
        rig.topic.confirm(&token(&seen).parse().unwrap()).unwrap();
        rig.publish(Payload::from("order 7"));
        assert_eq!(envelope(&rig.next().await).message, "order 7");
    })
    .await;
}

#[tokio::test]
async fn a_status_stands_though_the_body_after_it_does_not_come() {
    within_a_minute(async {
        let replies = vec![Reply::HeadOnly(200)];
        let mut rig = Rig::start(TopicConfig::new("orders"), replies).await;
        rig.publish(Payload::from("order 7"));
        rig.server.seen.recv().await.unwrap();
        rig.time.advance(secs(15));
        let now = rig.time.now();
        until(|| {
            let is_held = rig.topic.next_deadline().is_some_and(|at| at > now);
            is_held || rig.subscription.stats().pending == 0
        })
        .await;
        let stats = rig.subscription.stats();
        assert_eq!((stats.delivered, stats.retried, stats.pending), (1, 0, 0));
    })
    .await;
}
