use proptest::prelude::*;
use sim_core::clock::Clock;
use sim_core::id::Id;
use sim_core::sync::Arc;

use super::*;
use crate::group::SequenceNumber;
use crate::message::{Content, Headers, Message, Shared, Token, TopicInfo};

fn naming() -> Naming {
    Naming {
        topic_arn: Some("arn:aws:sns:us-west-2:123456789012:MyTopic".to_owned()),
        service_url: "https://sns.example".to_owned(),
    }
}

pub(crate) fn notification(
    value: &'static [u8],
    headers: Headers,
    replayed: bool,
) -> Notification<Payload> {
    let start: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
    let (clock, _) = Clock::virtual_at(start);
    let shared = Shared {
        content: Content {
            message: Message {
                value: Payload::from_static(value),
                headers: Some(Box::new(headers)),
            },
            number: 7,
            at: clock.now(),
        },
        info: Arc::new(TopicInfo {
            name: "MyTopic".into(),
            namespace: 1,
            clock,
        }),
    };
    Notification::shared(Arc::new(shared), SubscriptionId::new(3), replayed)
}

pub(crate) fn request() -> ConfirmationRequest {
    ConfirmationRequest {
        id: Id::from_parts(1, 9),
        topic: "MyTopic".to_owned(),
        subscription: SubscriptionId::new(3),
        token: "a".repeat(64).parse::<Token>().unwrap(),
        timestamp: "2026-01-01T12:00:00.25Z".parse().unwrap(),
    }
}

fn signed(mut envelope: Envelope) -> Envelope {
    envelope.signature = Some(Signature {
        version: SignatureVersion::V1,
        value: "c2ln".to_owned(),
        cert_url: "https://sns.example/cert.pem".to_owned(),
    });
    envelope
}

#[test]
fn a_notification_is_written_in_the_order_of_sns() {
    let mut attributes = Attributes::new();
    attributes.insert("carrier", "UA").unwrap();
    attributes
        .insert(
            "delay",
            Value::number("-3").unwrap().with_label("int").unwrap(),
        )
        .unwrap();
    attributes
        .insert("raw", Value::binary(Payload::from_static(b"\x00\xff")))
        .unwrap();
    let headers = Headers {
        subject: Some("A \"subject\"".into()),
        attributes,
        sequence: Some(SequenceNumber::new(42)),
        ..Headers::default()
    };
    let notification = notification("line 1\nline 2 \u{1}é".as_bytes(), headers, true);
    let envelope = signed(Envelope::notification(&notification, &naming()).unwrap());
    let id = notification.id();
    let expected = format!(
        concat!(
            r#"{{"Type":"Notification","MessageId":"{}","SequenceNumber":"00000000000000000042","#,
            r#""TopicArn":"arn:aws:sns:us-west-2:123456789012:MyTopic","Subject":"A \"subject\"","#,
            r#""Message":"line 1\nline 2 \u0001é","Timestamp":"2026-01-01T12:00:00.000Z","#,
            r#""SignatureVersion":"1","Signature":"c2ln","SigningCertURL":"https://sns.example/cert.pem","#,
            r#""UnsubscribeURL":"https://sns.example/?Action=Unsubscribe&SubscriptionArn="#,
            r#"arn:aws:sns:us-west-2:123456789012:MyTopic:sub-0000000000000003","Replayed":"true","#,
            r#""MessageAttributes":{{"carrier":{{"Type":"String","Value":"UA"}},"#,
            r#""delay":{{"Type":"Number.int","Value":"-3"}},"raw":{{"Type":"Binary","Value":"AP8="}}}}}}"#,
        ),
        id
    );
    assert_eq!(envelope.to_json(), expected);
    assert_eq!(Envelope::parse(expected.as_bytes()), Ok(envelope));
}

#[test]
fn what_is_absent_is_left_out_and_not_null() {
    let notification = notification(b"hello", Headers::default(), false);
    let envelope = Envelope::notification(&notification, &Naming::default()).unwrap();
    let json = envelope.to_json();
    for absent in [
        "null",
        "Subject",
        "Attributes",
        "Sequence",
        "Replayed",
        "Sign",
        "Token",
    ] {
        // The unsubscribe URL names the subscription.
        assert!(
            !json.replace("SubscriptionArn", "").contains(absent),
            "{absent}: {json}"
        );
    }
    assert_eq!(envelope.topic_arn, "MyTopic");
    assert_eq!(Envelope::parse(json.as_bytes()), Ok(envelope));
}

#[test]
fn a_message_that_is_no_text_does_not_fit() {
    let notification = notification(b"ab\xff", Headers::default(), false);
    assert_eq!(
        Envelope::notification(&notification, &naming()),
        Err(EnvelopeError::NotText { at: 2 })
    );
}

#[test]
fn a_confirmation_tells_where_the_token_goes() {
    let envelope = signed(Envelope::subscribed(&request(), &naming()));
    let token = "a".repeat(64);
    let url = format!(
        "https://sns.example/?Action=ConfirmSubscription\
         &TopicArn=arn:aws:sns:us-west-2:123456789012:MyTopic&Token={token}"
    );
    let EnvelopeKind::SubscriptionConfirmation(confirmation) = &envelope.kind else {
        panic!("{envelope:?}");
    };
    assert_eq!(
        (&confirmation.token, &confirmation.subscribe_url),
        (&token, &url)
    );
    let json = envelope.to_json();
    let order: Vec<_> = [
        "\"Type\"",
        "\"MessageId\"",
        "\"Token\"",
        "\"TopicArn\"",
        "\"Message\"",
        "\"SubscribeURL\"",
        "\"Timestamp\"",
        "\"SignatureVersion\"",
        "\"Signature\"",
        "\"SigningCertURL\"",
    ]
    .map(|name| json.find(name).unwrap())
    .to_vec();
    assert!(order.is_sorted(), "{json}");
    assert_eq!(Envelope::parse(json.as_bytes()), Ok(envelope.clone()));
    assert_eq!(
        envelope.string_to_sign(),
        format!(
            "Message\n{}\nMessageId\n{}\nSubscribeURL\n{url}\nTimestamp\n2026-01-01T12:00:00.250Z\n\
             Token\n{token}\nTopicArn\narn:aws:sns:us-west-2:123456789012:MyTopic\n\
             Type\nSubscriptionConfirmation\n",
            envelope.message, envelope.message_id
        )
    );
}

#[test]
fn an_unsubscribe_confirmation_names_the_subscription() {
    let envelope = Envelope::unsubscribed(&request(), &naming());
    assert!(envelope.message.contains("MyTopic:sub-0000000000000003."));
    assert!(
        envelope
            .string_to_sign()
            .ends_with("Type\nUnsubscribeConfirmation\n")
    );
    assert_eq!(Envelope::parse(envelope.to_json().as_bytes()), Ok(envelope));
}

#[test]
fn a_subject_is_signed_where_there_is_one() {
    let headers = Headers {
        subject: Some("S".into()),
        ..Headers::default()
    };
    let notification = notification(b"m", headers, false);
    let envelope = Envelope::notification(&notification, &naming()).unwrap();
    let expected = format!(
        "Message\nm\nMessageId\n{}\nSubject\nS\nTimestamp\n2026-01-01T12:00:00.000Z\n\
         TopicArn\narn:aws:sns:us-west-2:123456789012:MyTopic\nType\nNotification\n",
        envelope.message_id
    );
    assert_eq!(envelope.string_to_sign(), expected);
}

#[test]
fn names_are_encoded_in_urls() {
    assert_eq!(encoded("arn:aws:a-b_c.d~e"), "arn:aws:a-b_c.d~e");
    assert_eq!(encoded("a b&c=é/?#%"), "a%20b%26c%3D%C3%A9%2F%3F%23%25");
}

#[test]
fn a_bad_envelope_is_refused_with_the_member() {
    let good = r#"{"Type":"Notification","MessageId":"1","TopicArn":"t","Message":"m","Timestamp":"2026-01-01T12:00:00.000Z"}"#;
    assert!(Envelope::parse(good.as_bytes()).is_ok());
    let with = |more: &str| format!("{},{more}}}", &good[..good.len() - 1]);
    let cases = [
        (
            good.replace("Notification", "Other"),
            "Type of the envelope is \"Other\", not one of the three types",
        ),
        (
            good.replace("\"m\"", "7"),
            "Message of the envelope is 7, not a string",
        ),
        (
            good.replace("MessageId", "Id"),
            "MessageId of the envelope is absent, not a string",
        ),
        (
            good.replace("2026", "two"),
            "Timestamp of the envelope is \"two-01-01T12:00:00.000Z\", not a timestamp of RFC 3339",
        ),
        (
            with(r#""Subject":null"#),
            "Subject of the envelope is null, not a string",
        ),
        (
            with(r#""Signature":"s","SignatureVersion":"1""#),
            "SigningCertURL of the envelope is absent, not a string",
        ),
        (
            with(r#""Signature":"s","SigningCertURL":"u","SignatureVersion":"3""#),
            "SignatureVersion of the envelope is \"3\", not \"1\" or \"2\"",
        ),
        (
            with(r#""MessageAttributes":{"a":{"Type":"Binary","Value":"?"}}"#),
            "MessageAttributes of the envelope is {\"a\":{\"Type\":\"Binary\",\"Value\":\"?\"}}, not base64 where Type is Binary",
        ),
        (
            with(r#""MessageAttributes":{"a":{"Type":"Number","Value":"x"}}"#),
            "MessageAttributes of the envelope: attribute value \"x\" is not a decimal number",
        ),
        (
            with(r#""MessageAttributes":{"a":7}"#),
            "MessageAttributes of the envelope is {\"a\":7}, not an object of objects with Type and Value",
        ),
        (
            good.replace("Notification", "SubscriptionConfirmation"),
            "Token of the envelope is absent, not a string",
        ),
        (
            "[]".to_owned(),
            "the envelope is not a JSON object: not an object",
        ),
    ];
    for (json, says) in cases {
        assert_eq!(
            Envelope::parse(json.as_bytes()).unwrap_err().to_string(),
            says
        );
    }
    let unknown = Envelope::parse(with(r#""NextYears":[1]"#).as_bytes());
    assert_eq!(unknown, Envelope::parse(good.as_bytes()));
}

proptest! {
    #[test]
    fn any_text_goes_there_and_back(message in any::<String>(), subject in prop::option::of(any::<String>()), millis in 0i64..4_000_000_000_000) {
        let envelope = Envelope {
            kind: EnvelopeKind::Notification {
                subject,
                attributes: Attributes::new(),
                sequence_number: None,
                unsubscribe_url: None,
                origin: Origin::Live,
            },
            message_id: "1".to_owned(),
            topic_arn: "t".to_owned(),
            message,
            timestamp: Timestamp::from_unix_millis(millis),
            signature: None,
        };
        let json = envelope.to_json();
        // A second reader agrees about the text.
        let tree: Json = serde_json::from_str(&json).unwrap();
        prop_assert_eq!(tree["Message"].as_str(), Some(&*envelope.message));
        prop_assert_eq!(Envelope::parse(json.as_bytes()), Ok(envelope));
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes: Vec<u8>, name in "[A-Z][a-zA-Z]{3,15}", value in "[0-9a-z\"{}\\[\\]:,.-]{0,12}") {
        let _ = Envelope::parse(&bytes);
        let _ = Envelope::parse(format!("{{\"Type\":\"Notification\",\"{name}\":{value}}}").as_bytes());
    }
}
