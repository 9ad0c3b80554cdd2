//! The values that crates share: ids, payloads, attributes, randomness, rates, counters, seams.
#![cfg(not(loom))]

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use sim_core::attributes::{
    Attribute, AttributeError, Attributes, LabelRule, MAX_NAME, NameRule, NumberRule, Value,
};
use sim_core::counter::{Counter, Counters};
use sim_core::id::{Id, ParseIdError};
use sim_core::payload::Payload;
use sim_core::random::Random;
use sim_core::rate::TokenBucket;
use sim_core::seam::{Depth, Gauge, Handler, Reason, Refused, Sink, Source, Timed};
use sim_core::sync::thread;
use sim_core::time::Instant;

mod ids {
    use super::*;

    proptest! {
        #[test]
        fn parts_below_their_widths_give_different_ids_in_order_of_number(
            a in (0..1_u64 << 60, 0..1_u64 << 62),
            b in (0..1_u64 << 60, 0..1_u64 << 62),
        ) {
            let (x, y) = (Id::from_parts(a.0, a.1), Id::from_parts(b.0, b.1));
            prop_assert_eq!(x.cmp(&y), a.cmp(&b));
        }

        #[test]
        fn the_text_form_is_a_uuid_and_reads_back(bits in any::<u128>()) {
            let id = Id::from_u128(bits);
            let text = id.to_string();
            prop_assert_eq!(text.len(), 36);
            prop_assert_eq!(text.parse(), Ok(id));
            prop_assert_eq!(text.to_uppercase().parse(), Ok(id));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,40}") {
            let _ = text.parse::<Id>();
        }
    }

    #[test]
    fn version_and_variant_are_marked() {
        let mut random = Random::new(3);
        for id in [Id::random(&mut random), Id::random(&mut random)] {
            let text = id.to_string();
            assert_eq!(&text[14..15], "4");
            assert!("89ab".contains(&text[19..20]));
        }
        let text = Id::from_parts(u64::MAX, u64::MAX).to_string();
        assert_eq!(text, "ffffffff-ffff-8fff-bfff-ffffffffffff");
    }

    #[test]
    fn a_bad_text_is_named_by_its_place() {
        assert_eq!("".parse::<Id>(), Err(ParseIdError::Length { found: 0 }));
        let text = "00000000-0000-8007-8000-00000000002g";
        assert_eq!(text.parse::<Id>(), Err(ParseIdError::Character { at: 35 }));
        let text = "00000000x0000-8007-8000-00000000002a";
        assert_eq!(text.parse::<Id>(), Err(ParseIdError::Character { at: 8 }));
    }
}

mod payloads {
    use super::*;

    #[test]
    fn text_and_bytes_go_in_alike() {
        let forms = [
            Payload::from("abc"),
            Payload::from(String::from("abc")),
            Payload::from(vec![b'a', b'b', b'c']),
            Payload::from(b"abc"),
            Payload::copy_from("abc".as_bytes()),
        ];
        for form in &forms {
            assert_eq!(form, &forms[0]);
            assert_eq!(form.as_str(), Ok("abc"));
            assert_eq!(*form, "abc");
            assert_eq!(form.len(), form.size());
        }
        assert!(Payload::from(vec![0xff]).as_str().is_err());
        assert!(Payload::new().is_empty());
    }

    #[test]
    fn a_clone_shares_the_bytes() {
        let one = Payload::from(vec![7; 1_000]);
        let two = one.clone();
        assert_eq!(one.as_ptr(), two.as_ptr());
    }
}

mod attribute_maps {
    use super::*;

    #[test]
    fn an_empty_map_is_one_word() {
        assert_eq!(size_of::<Attributes>(), size_of::<usize>());
    }

    #[test]
    fn names_keep_the_rules() {
        let long = "a".repeat(MAX_NAME);
        for name in ["a", "A-b_c.d9", "aws", "AWSx", "amazonic.x", long.as_str()] {
            assert!(Attribute::new(name, "v").is_ok(), "{name}");
        }
        let too_long = "a".repeat(MAX_NAME + 1);
        let broken = [
            ("", NameRule::Empty),
            (too_long.as_str(), NameRule::Length),
            ("a b", NameRule::Character),
            ("ä", NameRule::Character),
            ("AWS.x", NameRule::Reserved),
            ("aWs.x", NameRule::Reserved),
            ("Amazon.x", NameRule::Reserved),
            ("AMAZON.", NameRule::Reserved),
            (".a", NameRule::Dots),
            ("a.", NameRule::Dots),
            ("a..b", NameRule::Dots),
        ];
        for (name, rule) in broken {
            let error = Attribute::new(name, "v").unwrap_err();
            assert_eq!(
                error,
                AttributeError::Name {
                    name: name.into(),
                    rule
                }
            );
            assert!(error.to_string().contains("attribute name"));
        }
    }

    #[test]
    fn values_and_labels_keep_the_rules() {
        let error = Attribute::new("a", "").unwrap_err();
        assert_eq!(error, AttributeError::EmptyValue { name: "a".into() });
        let label = |label: &str| match Value::string("x").with_label(label) {
            Err(AttributeError::Label { rule, .. }) => Err(rule),
            other => Ok(other.unwrap().data_type().into_owned()),
        };
        assert_eq!(label("json"), Ok("String.json".into()));
        assert_eq!(label(""), Err(LabelRule::Empty));
        assert_eq!(label("a b"), Err(LabelRule::Character));
        assert!(label(&"a".repeat(249)).is_ok()); // 256 with "String."
        assert_eq!(label(&"a".repeat(250)), Err(LabelRule::Length));
    }

    #[test]
    fn numbers_are_kept_as_text_and_checked() {
        let digits = "9".repeat(38);
        for good in [
            "0",
            "-0",
            "+1",
            "007",
            "1.",
            ".5",
            "1e3",
            "1E-3",
            "1e126",
            "1e-128",
            "0e999",
            "0.00",
            &digits,
            &format!("{digits}000"),
            &format!("000{digits}"),
        ] {
            let value = Value::number(good).unwrap();
            assert_eq!(value.as_text(), Some(good));
        }
        let long = "9".repeat(39);
        let broken = [
            ("", NumberRule::Syntax),
            ("-", NumberRule::Syntax),
            (".", NumberRule::Syntax),
            ("1.2.3", NumberRule::Syntax),
            ("--1", NumberRule::Syntax),
            ("1e", NumberRule::Syntax),
            ("1e+", NumberRule::Syntax),
            ("0x1", NumberRule::Syntax),
            ("NaN", NumberRule::Syntax),
            (" 1", NumberRule::Syntax),
            ("١", NumberRule::Syntax),
            (long.as_str(), NumberRule::Digits),
            ("1e127", NumberRule::Range),
            ("10e126", NumberRule::Range),
            ("0.1e-128", NumberRule::Range),
            ("1e99999999999999999999", NumberRule::Range),
            ("1e9223372036854775807", NumberRule::Range),
            ("10e9223372036854775807", NumberRule::Range),
        ];
        for (text, rule) in broken {
            let error = Value::number(text).unwrap_err();
            assert_eq!(
                error,
                AttributeError::Number {
                    text: text.into(),
                    rule
                }
            );
        }
        assert_eq!(
            Value::from(i64::MIN).as_text(),
            Some("-9223372036854775808")
        );
        assert_eq!(Value::from(1_u8).data_type(), "Number");
    }

    #[test]
    fn sizes_count_names_types_and_values() {
        let mut attributes = Attributes::new();
        attributes.insert("ab", "xyz").unwrap(); // 2 + 6 + 3
        let number = Value::from(12_u8).with_label("int").unwrap(); // 10 + 2
        attributes.insert("n", number).unwrap();
        attributes.insert("b", Payload::from(b"1234")).unwrap(); // 1 + 6 + 4
        assert_eq!(attributes.size(), 11 + 13 + 11);
    }

    proptest! {
        #[test]
        fn the_map_goes_as_an_ordered_map(
            steps in prop::collection::vec(("[a-e]", prop::option::of("[x-z]{1,3}")), 0..50)
        ) {
            let mut attributes = Attributes::new();
            let mut oracle = BTreeMap::new();
            for (name, value) in steps {
                match value {
                    Some(value) => {
                        let old = attributes.insert(name.as_str(), value.as_str()).unwrap();
                        prop_assert_eq!(old, oracle.insert(name, Value::string(value)));
                    }
                    None => prop_assert_eq!(attributes.remove(&name), oracle.remove(&name)),
                }
                prop_assert!(attributes.iter().map(|entry| (entry.name(), entry.value()))
                    .eq(oracle.iter().map(|(name, value)| (name.as_str(), value))));
                prop_assert_eq!(attributes.is_empty(), oracle.is_empty());
            }
            let again: Attributes = attributes.clone().into_iter().collect();
            prop_assert_eq!(again, attributes);
        }

        #[test]
        fn no_text_makes_the_checks_panic(text in ".{0,60}", number in "[-+0-9.eE]{0,20}") {
            let _ = Attribute::new(text.as_str(), "v");
            let _ = Value::number(text.as_str());
            let _ = Value::number(number);
            let _ = Value::string("v").with_label(text);
        }
    }
}

mod randomness {
    use super::*;

    #[test]
    fn the_sequence_of_a_seed_is_the_published_one() {
        // SplitMix64 from zero fills the state; the outputs are those of the authors' C code.
        let mut random = Random::new(0);
        let first: Vec<u64> = (0..3).map(|_| random.next_u64()).collect();
        assert_eq!(
            first,
            [
                0x99ec_5f36_cb75_f2b4,
                0xbf6e_1f78_4956_452a,
                0x1a5f_849d_4933_e6e0
            ]
        );
    }

    #[test]
    fn a_fork_depends_on_the_state_and_the_label_alone() {
        let random = Random::new(1);
        let mut a = random.fork("a");
        let mut b = random.fork("b");
        let mut again = random.clone().fork("a");
        assert_ne!(a.next_u64(), b.next_u64());
        let _ = again.next_u64();
        assert_eq!(a.next_u64(), again.next_u64());
        assert_ne!(
            Random::new(2).fork("a").next_u64(),
            random.fork("a").next_u64()
        );
    }

    #[test]
    fn bounded_numbers_are_even() {
        let mut random = Random::new(4);
        let mut counts = [0_u32; 6];
        for _ in 0..60_000 {
            counts[random.below(6) as usize] += 1;
        }
        // Five standard deviations of a binomial with n = 60,000 and p = 1/6 are 456.
        assert!(
            counts.iter().all(|count| count.abs_diff(10_000) < 456),
            "{counts:?}"
        );
        assert_eq!(random.below(1), 0);
        assert!(random.below(u64::MAX) < u64::MAX);
    }

    #[test]
    fn chances_keep_their_ends() {
        let mut random = Random::new(5);
        for _ in 0..1_000 {
            assert!(!random.chance(0.0) && !random.chance(-1.0) && !random.chance(f64::NAN));
            assert!(random.chance(1.0) && random.chance(2.0));
            assert!((0.0..1.0).contains(&random.unit()));
        }
        let hits = (0..10_000).filter(|_| random.chance(0.3)).count();
        assert!(hits.abs_diff(3_000) < 250, "{hits}");
    }

    #[test]
    #[should_panic(expected = "no number below zero")]
    fn there_is_no_number_below_zero() {
        let _ = Random::new(0).below(0);
    }
}

mod rates {
    use super::*;

    proptest! {
        #[test]
        fn the_named_instant_is_the_first_that_succeeds(
            rate in 1..5_000_000_000_u64,
            burst in 1..1_000_u64,
            takes in prop::collection::vec((0..3_000_000_000_u64, 1..1_000_u64), 1..50),
        ) {
            let mut bucket = TokenBucket::new(rate, burst);
            let mut now = 0;
            for (pause, n) in takes {
                now += pause;
                let before = bucket.clone();
                match bucket.take(Instant::from_nanos(now), n) {
                    Ok(()) => {}
                    Err(when) if n > burst => prop_assert_eq!(when, Instant::NEVER),
                    Err(when) => {
                        prop_assert!(when > Instant::from_nanos(now));
                        let early = Instant::from_nanos(when.as_nanos() - 1);
                        prop_assert!(before.clone().take(early, n).is_err());
                        prop_assert!(before.clone().take(when, n).is_ok());
                    }
                }
            }
        }

        #[test]
        fn no_window_lets_more_pass_than_rate_and_burst(
            rate in 1..1_000_000_u64,
            burst in 1..100_u64,
            pauses in prop::collection::vec(0..50_000_000_u64, 1..200),
        ) {
            let mut bucket = TokenBucket::new(rate, burst);
            let (mut now, mut passed) = (0_u64, 0_u64);
            for pause in pauses {
                now += pause;
                while bucket.take(Instant::from_nanos(now), 1).is_ok() {
                    passed += 1;
                }
                let most = u128::from(burst) + u128::from(now) * u128::from(rate) / 1_000_000_000;
                prop_assert!(u128::from(passed) <= most);
            }
        }
    }

    #[test]
    fn the_corners_never_overflow() {
        let mut bucket = TokenBucket::new(u64::MAX, u64::MAX);
        assert_eq!(bucket.take(Instant::NEVER, u64::MAX), Ok(()));
        assert_eq!(bucket.take(Instant::NEVER, 1), Err(Instant::NEVER));
        let mut never = TokenBucket::new(0, 1);
        assert_eq!(never.take(Instant::ORIGIN, 1), Ok(()));
        assert_eq!(never.take(Instant::from_nanos(1), 1), Err(Instant::NEVER));
        assert_eq!(never.available(Instant::NEVER), 0);
        let mut shut = TokenBucket::new(1, 0);
        assert_eq!(shut.take(Instant::NEVER, 1), Err(Instant::NEVER));
        assert_eq!(shut.take(Instant::NEVER, 0), Ok(()));
    }

    #[test]
    fn going_back_in_time_gives_nothing() {
        let mut bucket = TokenBucket::new(1, 1);
        let late = Instant::from_nanos(5_000_000_000);
        assert_eq!(bucket.take(late, 1), Ok(()));
        let when = Instant::from_nanos(6_000_000_000);
        assert_eq!(bucket.take(Instant::ORIGIN, 1), Err(when));
    }
}

mod counters {
    use super::*;

    #[test]
    fn a_sum_after_the_join_is_exact() {
        let counters = Counters::<2>::new();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        counters.add(0, 1);
                        counters.add(1, 2);
                    }
                });
            }
        });
        assert_eq!(counters.sums(), [40_000, 80_000]);
        assert_eq!(format!("{counters:?}"), "[40000, 80000]");
    }

    #[test]
    fn one_counter_counts() {
        let counter = Counter::new();
        counter.add(1);
        counter.add(u64::MAX);
        assert_eq!(counter.sum(), 0); // it wraps
    }
}

mod seams {
    use super::*;

    struct Shut;

    impl Sink<String> for Shut {
        fn try_deliver(&self, item: String) -> Result<(), Refused<String>> {
            Err(Refused::closed(item))
        }
    }

    impl Source<String> for Shut {
        fn try_take(&self) -> Option<String> {
            None
        }
    }

    impl Gauge for Shut {
        fn depth(&self) -> Depth {
            Depth {
                waiting: 1,
                in_flight: 2,
                delayed: 3,
                oldest_age: None,
            }
        }
    }

    impl Timed for Shut {
        fn next_deadline(&self) -> Option<Instant> {
            Some(Instant::ORIGIN)
        }

        fn advance(&self, _: Instant) {}
    }

    #[test]
    fn a_shared_part_stands_for_each_seam() {
        let shut = Arc::new(Shut);
        let sink: Box<dyn Sink<String>> = Box::new(Arc::clone(&shut));
        let source: Box<dyn Source<String>> = Box::new(Arc::clone(&shut));
        let gauge: Box<dyn Gauge> = Box::new(Arc::clone(&shut));
        let timed: Arc<dyn Timed> = shut;
        let refused = sink.try_deliver("back".into()).unwrap_err();
        assert_eq!(refused.item, "back");
        assert_eq!(refused.to_string(), "the sink is closed");
        assert_eq!(source.try_take(), None);
        assert_eq!(gauge.depth().total(), 6);
        assert_eq!(timed.next_deadline(), Some(Instant::ORIGIN));
        timed.advance(Instant::ORIGIN);
    }

    #[test]
    fn a_refusal_keeps_its_reason_when_the_item_is_converted() {
        let refused = Refused::rejected(7, "too odd").map(|n: i32| n.to_string());
        assert_eq!(refused.item, "7");
        assert!(matches!(refused.reason, Reason::Rejected(_)));
        assert_eq!(refused.to_string(), "the sink rejected the item: too odd");
        let full = Refused::full((), Some(Instant::NEVER));
        assert!(matches!(full.reason, Reason::Full { retry_at: Some(_) }));
    }

    #[tokio::test]
    async fn a_closure_is_a_handler() {
        let handler: Box<dyn Handler<u32, u32>> = Box::new(|n| async move { n * 2 });
        assert_eq!(handler.handle(21).await, 42);
    }

    #[test]
    fn the_values_cross_threads() {
        fn crosses<T: Send + Sync + Unpin>() {}
        crosses::<Attributes>();
        crosses::<Payload>();
        crosses::<Id>();
        crosses::<Random>();
        crosses::<TokenBucket>();
        crosses::<Counter>();
        crosses::<Refused<u32>>();
    }
}

#[cfg(feature = "serde")]
mod serialized {
    use super::*;

    #[test]
    fn the_values_read_back() {
        let mut attributes = Attributes::new();
        attributes.insert("a", "x").unwrap();
        attributes
            .insert("n", Value::from(5).with_label("int").unwrap())
            .unwrap();
        attributes.insert("b", Payload::from(b"\xff")).unwrap();
        let text = serde_json::to_string(&attributes).unwrap();
        assert_eq!(
            serde_json::from_str::<Attributes>(&text).unwrap(),
            attributes
        );
        let id = Id::from_parts(1, 2);
        let text = serde_json::to_string(&id).unwrap();
        assert_eq!(text, format!("\"{id}\""));
        assert_eq!(serde_json::from_str::<Id>(&text).unwrap(), id);
    }

    #[test]
    fn what_breaks_a_rule_is_not_read() {
        for text in [
            r#"{"AWS.a":{"string":["x",null]}}"#,
            r#"{"a":{"string":["",null]}}"#,
            r#"{"a":{"number":["x",null]}}"#,
            r#"{"a":{"string":["x",""]}}"#,
            r#"{"a":{"string":["x",null]},"a":{"string":["y",null]}}"#,
        ] {
            assert!(serde_json::from_str::<Attributes>(text).is_err(), "{text}");
        }
    }
}
