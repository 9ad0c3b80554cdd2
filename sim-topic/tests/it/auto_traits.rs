//! What can be sent, shared and moved.

use sim_topic::{
    DeadLetter, Delivery, Message, Notification, Notifications, PublishError, Receiver, Subscriber,
    Subscription, SubscriptionConfig, Topic,
};

fn is_send_and_sync<T: Send + Sync>() {}
fn is_unpin<T: Unpin>() {}

#[test]
fn handles_and_messages_cross_threads() {
    is_send_and_sync::<Topic<String>>();
    is_send_and_sync::<Subscription<String>>();
    is_send_and_sync::<Receiver<String>>();
    is_send_and_sync::<Message<String>>();
    is_send_and_sync::<Notification<String>>();
    is_send_and_sync::<Notifications<String>>();
    is_send_and_sync::<DeadLetter<String>>();
    is_send_and_sync::<Delivery<String>>();
    is_send_and_sync::<Subscriber<String>>();
    is_send_and_sync::<SubscriptionConfig<String>>();
    is_send_and_sync::<PublishError<String>>();
    is_unpin::<Receiver<String>>();
    is_unpin::<Topic<String>>();
}

#[test]
fn the_futures_can_be_spawned() {
    fn is_send<T: Send>(_: T) {}
    let topic = Topic::<u64>::new(sim_topic::TopicConfig::default()).unwrap();
    let mut receiver = topic
        .receiver(sim_topic::ReceiverConfig::default())
        .unwrap();
    is_send(topic.run());
    is_send(topic.publish(1));
    is_send(receiver.receive());
    is_send(receiver.receive_batch(1));
    is_send(receiver.receive_ref());
}
