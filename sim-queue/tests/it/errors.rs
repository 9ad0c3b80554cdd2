//! Errors: one a operation, with the field and its limit in the message; values come back.

use std::error::Error;
use std::time::Duration;

use sim_core::attributes::Attributes;
use sim_queue::{
    ConfigError, Deduplication, FairConfig, FifoConfig, GroupId, IdError, InvalidReceive, Kind,
    Limits, Message, MoveTask, Queue, QueueConfig, Receive, ReceiveError, RedriveAllow, Refusal,
    SendError, Stale, TryReceiveError,
};

use crate::rig::{block_on, hidden_for, queue, queue_of, secs};

/// Asserts that a text names all of these, begins lower-case and has no full stop.
#[track_caller]
fn names(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{text:?} does not name {part:?}");
    }
    assert!(
        text.starts_with(|c: char| c.is_lowercase() || c.is_ascii_digit()),
        "{text:?}"
    );
    assert!(!text.ends_with('.'), "{text:?}");
}

#[track_caller]
fn refused(config: QueueConfig, parts: &[&str]) -> ConfigError {
    let error = Queue::<u32>::new(config).expect_err("the configuration is out of its range");
    names(&error.to_string(), parts);
    error
}

fn config() -> QueueConfig {
    QueueConfig::new("q")
}

#[test]
fn the_defaults_of_every_kind_are_in_range() {
    for config in [config(), QueueConfig::fair("q"), QueueConfig::fifo("q")] {
        assert_eq!(config.check(), Ok(()));
    }
    for kind in [Kind::Standard, Kind::fair(), Kind::fifo()] {
        assert_eq!(QueueConfig::aws("q", kind).check(), Ok(()));
    }
}

#[test]
fn a_field_of_the_configuration_that_is_out_of_range_is_named_with_its_limit() {
    let long = secs(101 * 365 * 86_400);
    refused(QueueConfig::new(""), &["name", "256"]);
    refused(QueueConfig::new("x".repeat(257)), &["name", "257", "256"]);
    refused(
        QueueConfig {
            visibility_timeout: long,
            ..config()
        },
        &["visibility_timeout", "3153600000s"],
    );
    refused(
        QueueConfig {
            delay: long,
            ..config()
        },
        &["delay", "3153600000s"],
    );
    refused(
        QueueConfig {
            retention: Some(long),
            ..config()
        },
        &["retention", "3153600000s"],
    );
    refused(
        QueueConfig {
            retention: Some(Duration::ZERO),
            ..config()
        },
        &["retention", "zero"],
    );
    refused(
        QueueConfig {
            capacity: Some(0),
            ..config()
        },
        &["capacity", "zero"],
    );
    refused(
        QueueConfig {
            capacity: Some(usize::MAX),
            ..config()
        },
        &["capacity", "2147483648"],
    );
    refused(
        QueueConfig {
            max_in_flight: 0,
            ..config()
        },
        &["max_in_flight", "zero"],
    );
    refused(
        QueueConfig {
            max_in_flight: usize::MAX,
            ..config()
        },
        &["max_in_flight", "2147483648"],
    );
    refused(
        QueueConfig {
            limits: Limits {
                batch: 0,
                ..Limits::default()
            },
            ..config()
        },
        &["limits.batch", "zero"],
    );
    let names = (0..11).map(|n| n.to_string()).collect();
    refused(
        QueueConfig {
            redrive_allow: RedriveAllow::Sources(names),
            ..config()
        },
        &["redrive_allow", "11", "10"],
    );
}

#[test]
fn the_limits_bound_the_configuration_too() {
    let aws = QueueConfig {
        limits: Limits {
            message_bytes: None,
            ..Limits::aws()
        },
        ..config()
    };
    refused(
        QueueConfig {
            visibility_timeout: secs(43_201),
            ..aws.clone()
        },
        &["visibility_timeout", "43201s", "43200s"],
    );
    refused(
        QueueConfig {
            delay: secs(901),
            ..aws
        },
        &["delay", "901s", "900s"],
    );
}

#[test]
fn a_rule_of_a_kind_that_is_out_of_range_is_named() {
    let fair = |fair| QueueConfig {
        kind: Kind::Fair(fair),
        ..config()
    };
    let fifo = |fifo| QueueConfig {
        kind: Kind::Fifo(fifo),
        ..config()
    };
    refused(
        fair(FairConfig {
            in_flight_share: 0,
            ..FairConfig::default()
        }),
        &["in_flight_share"],
    );
    refused(
        fair(FairConfig {
            processing_share: 101,
            ..FairConfig::default()
        }),
        &["processing_share", "101"],
    );
    refused(
        fair(FairConfig {
            window: Duration::ZERO,
            ..FairConfig::default()
        }),
        &["window"],
    );
    refused(
        fifo(FifoConfig {
            deduplication_window: Duration::ZERO,
            ..FifoConfig::default()
        }),
        &["deduplication_window"],
    );
    refused(
        fifo(FifoConfig {
            deduplication_limit: 0,
            ..FifoConfig::default()
        }),
        &["deduplication_limit"],
    );
    refused(
        fifo(FifoConfig {
            attempt_limit: 0,
            ..FifoConfig::default()
        }),
        &["attempt_limit"],
    );
    let by_content = fifo(FifoConfig {
        deduplication: Deduplication::ByContent,
        ..FifoConfig::default()
    });
    assert_eq!(refused(by_content, &["content"]), ConfigError::NoContentKey);
    let limits = Limits {
        message_bytes: Some(8),
        ..Limits::default()
    };
    assert_eq!(
        refused(QueueConfig { limits, ..config() }, &["message_bytes"]),
        ConfigError::NoSize
    );
}

#[test]
fn a_refused_message_comes_back_with_all_that_it_carried() {
    let limits = Limits {
        attributes: 1,
        ..Limits::default()
    };
    let (queue, _) = queue_of::<String>(QueueConfig { limits, ..config() });
    let mut attributes = Attributes::new();
    attributes.insert("a", 1).unwrap();
    attributes.insert("b", 2).unwrap();
    let error = queue
        .try_send(Message::new("order".to_owned()).attributes(attributes))
        .unwrap_err();
    assert_eq!(error.reason, Refusal::Attributes { count: 2, limit: 1 });
    names(&error.to_string(), &["attributes", "2", "1"]);
    assert_eq!(error.message.value, "order");
    let message = *error.message;
    assert!(format!("{message:?}").contains("attributes"));
    assert_eq!(queue.try_send(message).unwrap_err().into_value(), "order");
}

#[test]
fn a_refusal_names_the_field_and_its_limit() {
    let limits = Limits {
        message_bytes: None,
        ..Limits::aws()
    };
    let (standard, _) = queue(QueueConfig {
        limits: limits.clone(),
        ..config()
    });
    let (fifo, _) = queue(QueueConfig {
        limits,
        ..QueueConfig::fifo("q")
    });
    let text = |outcome: Result<_, sim_queue::TrySendError<u32>>| {
        outcome
            .map(|_: sim_queue::Sent| ())
            .unwrap_err()
            .to_string()
    };
    names(
        &text(standard.try_send(Message::new(1).delay(secs(901)))),
        &["delay", "901s", "900s"],
    );
    names(
        &text(standard.try_send(crate::rig::of("g", 1))),
        &["group", "standard"],
    );
    let with_id = Message::new(1).deduplication_id(crate::rig::dedup("x"));
    names(&text(standard.try_send(with_id)), &["deduplication_id"]);
    names(&text(fifo.try_send(1)), &["group"]);
    names(
        &text(fifo.try_send(crate::rig::of("g", 1).delay(secs(1)))),
        &["delay", "FIFO"],
    );
    let batch = standard.try_send_batch(0..11).remove(0).unwrap_err();
    names(&batch.to_string(), &["batch", "11", "10"]);
    names(&Refusal::Full.to_string(), &["full"]);
    names(&Refusal::Closed.to_string(), &["closed"]);
}

#[test]
fn waiting_helps_against_a_full_queue_and_window_alone() {
    let helps = [Refusal::Full, Refusal::DeduplicationWindowFull { limit: 1 }];
    let not = [
        Refusal::Closed,
        Refusal::MissingGroup,
        Refusal::UnexpectedGroup,
        Refusal::DelayOnFifo,
        Refusal::TooLarge { bytes: 2, limit: 1 },
    ];
    assert!(helps.iter().all(Refusal::is_temporary));
    assert!(!not.iter().any(Refusal::is_temporary));
}

#[test]
fn a_receive_out_of_the_limits_names_the_field() {
    let limits = Limits {
        message_bytes: None,
        ..Limits::aws()
    };
    let (queue, _) = queue(QueueConfig { limits, ..config() });
    let error = queue
        .try_receive_with(&Receive {
            max: 11,
            ..Receive::default()
        })
        .unwrap_err();
    names(&error.to_string(), &["max", "11", "10"]);
    let error = queue
        .try_receive_with(&hidden_for(secs(43_201)))
        .unwrap_err();
    names(
        &error.to_string(),
        &["visibility_timeout", "43201s", "43200s"],
    );
    let value = secs(43_201);
    let limit = secs(43_200);
    assert_eq!(
        error,
        TryReceiveError::Invalid(InvalidReceive::Visibility { value, limit })
    );
    let waiting = block_on(queue.receive_with(&hidden_for(value))).unwrap_err();
    assert_eq!(
        waiting,
        ReceiveError::Invalid(InvalidReceive::Visibility { value, limit })
    );
}

#[test]
fn an_extension_that_is_too_long_names_its_limit() {
    let limits = Limits {
        message_bytes: None,
        ..Limits::aws()
    };
    let (queue, _) = queue(QueueConfig { limits, ..config() });
    queue.try_send(7).unwrap();
    let error = queue
        .try_receive()
        .unwrap()
        .extend(secs(43_201))
        .unwrap_err();
    names(
        &error.to_string(),
        &["visibility_timeout", "43201s", "43200s"],
    );
    names(&Stale.to_string(), &["stale"]);
}

#[test]
fn a_rate_out_of_the_limits_names_its_limit() {
    let limits = Limits {
        message_bytes: None,
        ..Limits::aws()
    };
    let (queue, _) = queue(QueueConfig { limits, ..config() });
    let task = MoveTask {
        max_per_second: Some(501),
        ..MoveTask::default()
    };
    names(
        &queue.start_move(task).unwrap_err().to_string(),
        &["max_per_second", "501", "500"],
    );
}

#[test]
fn an_id_that_breaks_a_rule_says_which() {
    names(
        &GroupId::new("").unwrap_err().to_string(),
        &["group id", "empty"],
    );
    names(
        &GroupId::new("a b").unwrap_err().to_string(),
        &["' '", "byte 1"],
    );
    let long = GroupId::new("x".repeat(129)).unwrap_err();
    assert!(matches!(long, IdError::TooLong { chars: 129, .. }));
    names(&long.to_string(), &["129", "128"]);
}

#[test]
fn every_error_is_an_error_that_crosses_threads() {
    fn is_error<E: Error + Send + Sync + 'static>() {}
    is_error::<ConfigError>();
    is_error::<Refusal>();
    is_error::<sim_queue::TrySendError<u32>>();
    is_error::<SendError<u32>>();
    is_error::<TryReceiveError>();
    is_error::<ReceiveError>();
    is_error::<Stale>();
    is_error::<sim_queue::ExtendError>();
    is_error::<sim_queue::PolicyError>();
    is_error::<sim_queue::MoveError>();
    is_error::<sim_queue::ParseReceiptError>();
    /// Of this not even the debug form is known.
    struct Bare;
    let (queue, _) = queue_of::<Bare>(QueueConfig {
        capacity: Some(1),
        ..config()
    });
    queue.try_send(Bare).unwrap();
    let error: Box<dyn Error> = Box::new(queue.try_send(Bare).unwrap_err());
    assert_eq!(error.to_string(), "the queue is full");
    assert!(format!("{error:?}").contains("Full"));
}
