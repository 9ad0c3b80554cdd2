use proptest::prelude::*;
use sim_core::time::Instant;

use super::*;

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn waits(policy: &RetryPolicy) -> Vec<Duration> {
    let mut random = Random::new(1);
    (1..)
        .map_while(|failed| policy.delay(failed, &mut random))
        .collect()
}

fn spread(function: Backoff, n: u32, min: u64, max: u64) -> Vec<u64> {
    (0..n)
        .map(|i| function.wait(i, n, secs(min), secs(max)).as_millis() as u64)
        .collect()
}

#[test]
fn endpoints_that_aws_manages_are_tried_100_015_times_over_23_days() {
    let policy = RetryPolicy::aws_managed();
    assert_eq!(policy.check(), Ok(()));
    let waits = waits(&policy);
    assert_eq!(waits.len(), 100_015);
    assert_eq!(waits[..5], [secs(0), secs(0), secs(0), secs(1), secs(1)]);
    assert_eq!((waits[5], waits[14]), (secs(1), secs(20)));
    assert!(waits[5..15].is_sorted());
    assert!(waits[15..].iter().all(|wait| *wait == secs(20)));
    assert_eq!(policy.total(), waits.iter().sum());
    let days = policy.total().as_secs_f64() / 86_400.0;
    assert!((23.0..24.0).contains(&days), "{days} days");
}

#[test]
fn endpoints_that_customers_manage_are_tried_50_times_over_6_hours() {
    let policy = RetryPolicy::customer_managed();
    assert_eq!(policy.check(), Ok(()));
    let waits = waits(&policy);
    assert_eq!(waits.len(), 50);
    assert_eq!(waits[..3], [secs(10), secs(10), secs(10)]);
    assert!(waits[11..].iter().all(|wait| *wait == secs(600)));
    let hours = policy.total().as_secs_f64() / 3_600.0;
    assert!((6.0..7.0).contains(&hours), "{hours} hours");
}

#[test]
fn an_http_endpoint_is_tried_three_times_20_seconds_apart_unless_told_otherwise() {
    let policy = RetryPolicy::http(HttpRetry::default()).unwrap();
    assert_eq!(policy, RetryPolicy::default());
    assert_eq!(waits(&policy), [secs(20); 3]);
}

#[test]
fn without_retries_the_first_failure_is_the_last() {
    assert_eq!(RetryPolicy::NONE.check(), Ok(()));
    assert_eq!(waits(&RetryPolicy::NONE), []);
    let mut random = Random::new(1);
    assert_eq!(
        RetryPolicy::NONE.delay(0, &mut random),
        Some(Duration::ZERO)
    );
}

#[test]
fn the_four_functions_spread_waits_as_their_table_says() {
    // The guide's picture has ten retries from 5 to 260 s.
    assert_eq!(
        spread(Backoff::Linear, 10, 5, 260)[..4],
        [5_000, 33_333, 61_666, 90_000]
    );
    assert_eq!(
        spread(Backoff::Arithmetic, 10, 5, 260)[..4],
        [5_000, 10_666, 22_000, 39_000]
    );
    assert_eq!(
        spread(Backoff::Exponential, 10, 5, 260)[..4],
        [5_000, 5_499, 6_497, 8_493]
    );
    assert_eq!(
        spread(Backoff::Geometric, 4, 1, 8),
        [1_000, 2_000, 4_000, 8_000]
    );
    // Steps that double: 1, 2, 4.
    assert_eq!(
        spread(Backoff::Exponential, 4, 1, 8),
        [1_000, 2_000, 4_000, 8_000]
    );
    assert_eq!(
        spread(Backoff::Arithmetic, 4, 0, 6),
        [0, 1_000, 3_000, 6_000]
    );
}

#[test]
fn linear_waits_longest_and_exponential_shortest_as_in_the_guides_picture() {
    let all = [
        Backoff::Linear,
        Backoff::Arithmetic,
        Backoff::Geometric,
        Backoff::Exponential,
    ]
    .map(|function| spread(function, 10, 5, 260));
    for i in 1..9 {
        assert!(all.windows(2).all(|pair| pair[0][i] > pair[1][i]), "{i}");
    }
}

#[test]
fn a_phase_of_one_waits_the_shortest_and_one_of_thousands_still_ends_at_the_longest() {
    for (_, function) in Backoff::NAMES {
        assert_eq!(spread(function, 1, 5, 260), [5_000]);
        let long = spread(function, 5_000, 5, 260);
        assert!(long.is_sorted());
        assert_eq!((long[0], long[4_999]), (5_000, 260_000));
    }
    // Below the last sixty-four steps an exponential has not left the ground.
    assert_eq!(spread(Backoff::Exponential, 5_000, 5, 260)[4_000], 5_000);
    assert_eq!(
        spread(Backoff::Exponential, 65, 0, 8)[62..],
        [2_000, 4_000, 8_000]
    );
}

#[test]
fn jitter_shortens_waits_and_covers_its_whole_range() {
    let policy = |jitter| RetryPolicy {
        backoff: 1,
        jitter,
        ..RetryPolicy::default()
    };
    for (jitter, least) in [(Jitter::Full, secs(0)), (Jitter::Equal, secs(10))] {
        let mut random = Random::new(3);
        let drawn: Vec<_> = (0..2_000)
            .map(|_| policy(jitter).delay(1, &mut random).unwrap())
            .collect();
        let (min, max) = (drawn.iter().min().unwrap(), drawn.iter().max().unwrap());
        assert!(*min >= least && *max <= secs(20), "{min:?} {max:?}");
        assert!(*min < least + Duration::from_millis(200) && *max > Duration::from_millis(19_800));
    }
    let (mut random, mut untouched) = (Random::new(3), Random::new(3));
    assert_eq!(policy(Jitter::None).delay(1, &mut random), Some(secs(20)));
    assert_eq!(random.next_u64(), untouched.next_u64());
}

#[test]
fn every_limit_of_http_policies_names_its_field() {
    let cases: [(HttpRetry, &str); 9] = [
        (
            HttpRetry {
                num_retries: 101,
                ..Default::default()
            },
            "numRetries is 101, not between 0 and 100",
        ),
        (
            HttpRetry {
                min_delay: secs(0),
                ..Default::default()
            },
            "minDelayTarget is 0, not between 1 and 20",
        ),
        (
            HttpRetry {
                min_delay: secs(21),
                ..Default::default()
            },
            "minDelayTarget is 21, not between 1 and 20",
        ),
        (
            HttpRetry {
                max_delay: secs(3_601),
                ..Default::default()
            },
            "maxDelayTarget is 3601, not between 1 and 3600",
        ),
        (
            HttpRetry {
                max_delay: Duration::from_millis(20_500),
                ..Default::default()
            },
            "maxDelayTarget is 20.5s, not whole seconds",
        ),
        (
            HttpRetry {
                num_no_delay_retries: 4,
                ..Default::default()
            },
            "numNoDelayRetries is 4, not between 0 and 3",
        ),
        (
            HttpRetry {
                num_no_delay_retries: 2,
                num_min_delay_retries: 2,
                ..Default::default()
            },
            "numMinDelayRetries is 2, not between 0 and 1",
        ),
        (
            HttpRetry {
                num_no_delay_retries: 3,
                num_max_delay_retries: 1,
                ..Default::default()
            },
            "numMaxDelayRetries is 1, not between 0 and 0",
        ),
        (
            HttpRetry {
                num_retries: 4,
                min_delay: secs(901),
                max_delay: secs(901),
                ..Default::default()
            },
            "the total retry time is 3604s, more than 3600s",
        ),
    ];
    for (retry, says) in cases {
        assert_eq!(RetryPolicy::http(retry).unwrap_err().to_string(), says);
    }
    let longest = HttpRetry {
        num_retries: 1,
        max_delay: secs(3_600),
        min_delay: secs(3_600),
        ..Default::default()
    };
    assert_eq!(RetryPolicy::http(longest).unwrap().total(), secs(3_600));
}

#[test]
fn every_limit_of_policies_in_process_names_its_field() {
    let check = |policy: RetryPolicy| policy.check().map_err(|error| error.to_string());
    let policy = RetryPolicy::default();
    assert_eq!(
        check(RetryPolicy {
            backoff: 100_001,
            ..policy
        }),
        Err("backoff is 100001, not between 0 and 100000".to_owned())
    );
    assert_eq!(
        check(RetryPolicy {
            immediate: u32::MAX,
            ..policy
        }),
        Err("the sum of retries is 4294967298, not between 0 and 4294967295".to_owned())
    );
    assert_eq!(
        check(RetryPolicy {
            min_delay: secs(21),
            ..policy
        }),
        Err("min_delay is 21s, more than 20s".to_owned())
    );
    assert_eq!(
        check(RetryPolicy {
            max_delay: Duration::MAX,
            ..policy
        })
        .unwrap_err(),
        format!("max_delay is {:?}, more than 3153600000s", Duration::MAX)
    );
    let from_zero = RetryPolicy {
        min_delay: Duration::ZERO,
        function: Backoff::Geometric,
        ..policy
    };
    assert_eq!(from_zero.check(), Err(RetryError::NoRatio));
    // Nothing panics on what was never checked.
    let wild = RetryPolicy {
        immediate: u32::MAX,
        pre_backoff: u32::MAX,
        backoff: 70,
        post_backoff: u32::MAX,
        max_delay: Duration::MAX,
        jitter: Jitter::Full,
        ..from_zero
    };
    assert_eq!((wild.total(), wild.retries()), (Duration::MAX, u32::MAX));
    assert!(wild.delay(u32::MAX, &mut Random::new(1)).is_some());
}

#[test]
fn a_throttle_lets_no_second_have_more_than_its_rate() {
    let throttle = Throttle::per_second(3).unwrap();
    let mut bucket = throttle.bucket();
    let mut now = Instant::ORIGIN;
    let mut delivered = Vec::new();
    while delivered.len() < 30 {
        match bucket.take(now, 1) {
            Ok(()) => delivered.push(now),
            Err(next) => now = next,
        }
    }
    for pair in delivered.windows(4) {
        assert!(pair[3] - pair[0] >= secs(1));
    }
    assert_eq!(
        Throttle::per_second(0).unwrap_err().to_string(),
        "maxReceivesPerSecond is 0, not between 1 and 4294967295"
    );
}

#[test]
fn a_document_of_the_guide_is_read_whole() {
    let text = r#"{
        "healthyRetryPolicy": {
            "minDelayTarget": 1, "maxDelayTarget": 60, "numRetries": 50,
            "numNoDelayRetries": 3, "numMinDelayRetries": 2, "numMaxDelayRetries": 35,
            "backoffFunction": "exponential"
        },
        "throttlePolicy": { "maxReceivesPerSecond": 10 },
        "requestPolicy": { "headerContentType": "application/json" }
    }"#;
    let policy = DeliveryPolicy::parse(text).unwrap();
    let retry = policy.retry_policy().unwrap();
    assert_eq!(
        (
            retry.immediate,
            retry.pre_backoff,
            retry.backoff,
            retry.post_backoff
        ),
        (3, 2, 10, 35)
    );
    assert_eq!((retry.min_delay, retry.max_delay), (secs(1), secs(60)));
    assert_eq!(retry.function, Backoff::Exponential);
    assert_eq!(policy.throttle, Some(Throttle::per_second(10).unwrap()));
    assert_eq!(policy.content_type.unwrap().as_str(), "application/json");
}

#[test]
fn a_document_as_sns_shows_it_back_is_read() {
    let text = r#"{"healthyRetryPolicy":{"minDelayTarget":20,"maxDelayTarget":20,"numRetries":3,
        "numMaxDelayRetries":0,"numNoDelayRetries":0,"numMinDelayRetries":0,"backoffFunction":"linear"},
        "sicklyRetryPolicy":null,"throttlePolicy":null,"guaranteed":false}"#;
    let policy = DeliveryPolicy::parse(text).unwrap();
    assert_eq!(policy.retry, Some(HttpRetry::default()));
    assert_eq!(policy.throttle, None);
    assert_eq!(
        DeliveryPolicy::parse("{}").unwrap(),
        DeliveryPolicy::default()
    );
    assert_eq!(DeliveryPolicy::default().to_json(), "{}");
}

#[test]
fn a_bad_document_is_refused_with_the_place() {
    let cases = [
        ("[]", "delivery policy: the whole is [], not an object"),
        (
            r#"{"healthyRetryPolicy":{"numRetries":"5"}}"#,
            "delivery policy: healthyRetryPolicy.numRetries is \"5\", not a whole number from 0 to 4294967295",
        ),
        (
            r#"{"healthyRetryPolicy":{"numRetries":-1}}"#,
            "delivery policy: healthyRetryPolicy.numRetries is -1, not a whole number from 0 to 4294967295",
        ),
        (
            r#"{"healthyRetryPolicy":{"backoffFunction":"cubic"}}"#,
            "delivery policy: healthyRetryPolicy.backoffFunction is \"cubic\", not linear, arithmetic, geometric or exponential",
        ),
        (
            r#"{"healthyRetryPolicy":{"numRetrys":5}}"#,
            "delivery policy: healthyRetryPolicy.numRetrys is no member of such a policy",
        ),
        (
            r#"{"healthyPolicy":{}}"#,
            "delivery policy: healthyPolicy is no member of such a policy",
        ),
        (
            r#"{"throttlePolicy":{"maxReceivesPerSecond":0}}"#,
            "maxReceivesPerSecond is 0, not between 1 and 4294967295",
        ),
        (
            r#"{"requestPolicy":{"headerContentType":"json"}}"#,
            "headerContentType is \"json\": not a media type",
        ),
        (
            r#"{"guaranteed":true}"#,
            "delivery policy: guaranteed is true, not false",
        ),
        (
            r#"{"healthyRetryPolicy":{"numRetries":200}}"#,
            "numRetries is 200, not between 0 and 100",
        ),
    ];
    for (text, says) in cases {
        assert_eq!(DeliveryPolicy::parse(text).unwrap_err().to_string(), says);
    }
    assert!(matches!(
        DeliveryPolicy::parse("{").unwrap_err(),
        RetryError::Document(DocumentError::Json { .. })
    ));
    let long = format!("{{{}}}", " ".repeat(40_000));
    assert!(matches!(
        DeliveryPolicy::parse(&long),
        Err(RetryError::Document(DocumentError::Size {
            bytes: 40_002,
            limit: 30_720
        }))
    ));
}

#[test]
fn a_topic_that_disables_overrides_has_the_last_word() {
    let text = r#"{"http":{"defaultHealthyRetryPolicy":{"numRetries":9},"disableSubscriptionOverrides":true}}"#;
    let topic = TopicDeliveryPolicy::parse(text).unwrap();
    let own = DeliveryPolicy::parse(r#"{"healthyRetryPolicy":{"numRetries":1}}"#).unwrap();
    assert_eq!(topic.overrides, Overrides::Disabled);
    assert_eq!(topic.effective(&own), topic.default);
    let open = TopicDeliveryPolicy {
        overrides: Overrides::Allowed,
        ..topic.clone()
    };
    assert_eq!(open.effective(&own), own);
    for policy in [topic, open] {
        assert_eq!(
            TopicDeliveryPolicy::parse(&policy.to_json()).unwrap(),
            policy
        );
    }
    assert_eq!(
        TopicDeliveryPolicy::parse(r#"{"https":{}}"#)
            .unwrap_err()
            .to_string(),
        "delivery policy: https is no member of such a policy"
    );
}

#[test]
fn content_types_are_media_types() {
    for good in [
        "text/plain",
        "text/plain; charset=UTF-8",
        "a/b+c;x=\"y z\";q=1",
    ] {
        assert_eq!(ContentType::new(good).unwrap().as_str(), good);
    }
    for bad in [
        "",
        "text",
        "text/",
        "/plain",
        "te xt/plain",
        "text/plain;",
        "text/plain; charset",
        "text/plain\r\nx: y",
        "text/pläin",
        "text/plain; x=\"",
        "text/plain; x=\"a\"b\"",
    ] {
        assert!(ContentType::new(bad).is_err(), "{bad:?}");
    }
    assert!(ContentType::new(format!("text/{}", "x".repeat(252))).is_err());
    let csv = ContentType::new("text/csv; charset=utf-8").unwrap();
    assert!(csv.is_sent_raw_by_aws() && !csv.is_sent_enveloped_by_aws());
    assert!(ContentType::default().is_sent_enveloped_by_aws());
}

fn any_function() -> impl Strategy<Value = Backoff> {
    prop::sample::select(Backoff::NAMES.map(|(_, function)| function).to_vec())
}

prop_compose! {
    fn any_http_retry()(
        counts in prop::array::uniform4(0u32..26), min in 1u64..40, longer in 0u64..40, function in any_function()
    ) -> HttpRetry {
        HttpRetry {
            num_retries: counts.iter().sum(),
            num_no_delay_retries: counts[0],
            num_min_delay_retries: counts[1],
            num_max_delay_retries: counts[2],
            min_delay: secs(min),
            max_delay: secs(min + longer),
            function,
            jitter: Jitter::None,
        }
    }
}

proptest! {
    #[test]
    fn waits_grow_between_their_bounds_and_add_up(retry in any_http_retry()) {
        let Ok(policy) = RetryPolicy::http(retry) else {
            // All else is in range: only the total can be too long.
            let total = RetryPolicy {
                immediate: retry.num_no_delay_retries,
                pre_backoff: retry.num_min_delay_retries,
                backoff: retry.num_retries - retry.num_no_delay_retries - retry.num_min_delay_retries - retry.num_max_delay_retries,
                post_backoff: retry.num_max_delay_retries,
                min_delay: retry.min_delay,
                max_delay: retry.max_delay,
                function: retry.function,
                jitter: Jitter::None,
            }.total();
            prop_assert!(total > secs(3_600) || retry.num_retries > 100);
            return Ok(());
        };
        let waits = waits(&policy);
        prop_assert_eq!(waits.len(), retry.num_retries as usize);
        prop_assert!(waits.is_sorted());
        prop_assert!(waits.iter().all(|wait| wait.is_zero() || (retry.min_delay..=retry.max_delay).contains(wait)));
        let sum: Duration = waits.iter().sum();
        prop_assert_eq!(policy.total(), sum);
        prop_assert!(sum <= secs(3_600));
    }

    #[test]
    fn functions_follow_their_formulas(function in any_function(), n in 2u32..200, i in 0u32..200, min in 1u64..3_600, span in 0u64..3_600) {
        let i = i % n;
        let (low, high, x, last) = (min as f64, (min + span) as f64, f64::from(i), f64::from(n - 1));
        let expected = match function {
            Backoff::Linear => low + (high - low) * x / last,
            Backoff::Arithmetic => low + (high - low) * x * (x + 1.0) / (last * (last + 1.0)),
            Backoff::Geometric => low * (high / low).powf(x / last),
            Backoff::Exponential => low + (high - low) * (x.exp2() - 1.0) / (last.exp2() - 1.0),
        };
        let wait = function.wait(i, n, secs(min), secs(min + span)).as_secs_f64();
        prop_assert!((wait - expected).abs() < 1e-6, "{wait} {expected}");
    }

    #[test]
    fn documents_go_there_and_back(retry in any_http_retry(), rate in 1u32.., kind in "[a-z]{1,8}/[a-z]{1,8}") {
        prop_assume!(RetryPolicy::http(retry).is_ok());
        let policy = DeliveryPolicy {
            retry: Some(retry),
            throttle: Some(Throttle::per_second(rate).unwrap()),
            content_type: Some(ContentType::new(kind).unwrap()),
        };
        prop_assert_eq!(DeliveryPolicy::parse(&policy.to_json()), Ok(policy));
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC{0,60}", member in "[a-zA-Z]{0,20}", value in "[0-9a-z\"{}\\[\\]:,.-]{0,12}") {
        let _ = DeliveryPolicy::parse(&text);
        let _ = TopicDeliveryPolicy::parse(&format!("{{\"http\":{{\"{member}\":{value}}}}}"));
    }
}
