//! Filter policies, operator by operator. Where AWS was asked (by LocalStack's validated tests), its answer stands here.

use sim_core::attributes::{Attributes, Value};
use sim_core::payload::Payload;
use sim_topic::filter::{FilterPolicy, Reason, Scope, Scratch, Verdict};

fn body_policy(policy: &str) -> FilterPolicy {
    FilterPolicy::parse(policy, Scope::MessageBody)
        .unwrap_or_else(|error| panic!("{policy}: {error}"))
}

fn attribute_policy(policy: &str) -> FilterPolicy {
    FilterPolicy::parse(policy, Scope::MessageAttributes)
        .unwrap_or_else(|error| panic!("{policy}: {error}"))
}

#[track_caller]
fn passes(policy: &str, bodies: &[&str]) {
    for body in bodies {
        assert_eq!(
            body_policy(policy).matches_body(body.as_bytes()),
            Verdict::Match,
            "{policy} {body}"
        );
    }
}

#[track_caller]
fn filters(policy: &str, bodies: &[&str]) {
    for body in bodies {
        assert_eq!(
            body_policy(policy).matches_body(body.as_bytes()),
            Verdict::Filtered(Reason::MessageBody),
            "{policy} {body}"
        );
    }
}

fn attributes(entries: &[(&str, Value)]) -> Attributes {
    let mut attributes = Attributes::new();
    for (name, value) in entries {
        attributes
            .insert(*name, value.clone())
            .expect("a good attribute");
    }
    attributes
}

fn number(text: &str) -> Value {
    Value::number(text).expect("a number")
}

fn array(text: &str) -> Value {
    Value::string(text).with_label("Array").expect("a label")
}

#[test]
fn an_exact_string_number_boolean_or_null_matches_itself() {
    passes(
        r#"{"a":["x"]}"#,
        &[
            r#"{"a":"x"}"#,
            r#"{"b":1,"a":"x","c":{}}"#,
            r#"{"a":"\u0078"}"#,
        ],
    );
    filters(
        r#"{"a":["x"]}"#,
        &[
            r#"{"a":"X"}"#,
            r#"{"a":"xx"}"#,
            r#"{"a":1}"#,
            r#"{"a":null}"#,
            "{}",
        ],
    );
    passes(
        r#"{"a":[100]}"#,
        &[r#"{"a":100}"#, r#"{"a":100.0}"#, r#"{"a":1e2}"#],
    );
    filters(
        r#"{"a":[100]}"#,
        &[r#"{"a":"100"}"#, r#"{"a":100.5}"#, r#"{"a":true}"#],
    );
    passes(
        r#"{"a":[true,false]}"#,
        &[r#"{"a":true}"#, r#"{"a":false}"#],
    );
    filters(
        r#"{"a":[true]}"#,
        &[r#"{"a":false}"#, r#"{"a":"true"}"#, r#"{"a":1}"#],
    );
    passes(r#"{"a":[null]}"#, &[r#"{"a":null}"#]);
    filters(r#"{"a":[null]}"#, &["{}", r#"{"a":"null"}"#, r#"{"a":{}}"#]);
    passes(r#"{"a":[""]}"#, &[r#"{"a":""}"#]);
}

#[test]
fn integers_beyond_doubles_are_told_apart() {
    passes(
        r#"{"id":[9007199254740993]}"#,
        &[r#"{"id":9007199254740993}"#],
    );
    filters(
        r#"{"id":[9007199254740993]}"#,
        &[r#"{"id":9007199254740992}"#],
    );
    passes(
        r#"{"id":[{"numeric":[">",18446744073709551613,"<",18446744073709551615]}]}"#,
        &[r#"{"id":18446744073709551614}"#],
    );
}

#[test]
fn keys_are_joined_by_and_values_by_or() {
    let policy = r#"{"a":["x",{"prefix":"y"},5],"b":[1]}"#;
    passes(
        policy,
        &[
            r#"{"a":"x","b":1}"#,
            r#"{"a":"yes","b":1}"#,
            r#"{"b":1,"a":5}"#,
        ],
    );
    filters(
        policy,
        &[
            r#"{"a":"x"}"#,
            r#"{"b":1}"#,
            r#"{"a":"x","b":2}"#,
            r#"{"a":"z","b":1}"#,
        ],
    );
}

#[test]
fn an_empty_policy_passes_every_object() {
    passes("{}", &["{}", r#"{"a":[1,{"b":2}]}"#, " { } "]);
    assert!(
        attribute_policy("{}")
            .matches_attributes(&Attributes::new())
            .is_match()
    );
}

#[test]
fn prefix_and_suffix_compare_ends_of_strings() {
    passes(
        r#"{"a":[{"prefix":"au"}]}"#,
        &[r#"{"a":"au"}"#, r#"{"a":"auto"}"#],
    );
    filters(
        r#"{"a":[{"prefix":"au"}]}"#,
        &[r#"{"a":"a"}"#, r#"{"a":"Auto"}"#, r#"{"a":7}"#, "{}"],
    );
    passes(
        r#"{"a":[{"suffix":".png"}]}"#,
        &[r#"{"a":".png"}"#, r#"{"a":"x.png"}"#],
    );
    filters(
        r#"{"a":[{"suffix":".png"}]}"#,
        &[r#"{"a":"png"}"#, r#"{"a":"x.png "}"#, r#"{"a":null}"#],
    );
    passes(
        r#"{"a":[{"prefix":{"equals-ignore-case":"Au"}}]}"#,
        &[r#"{"a":"AUTO"}"#, r#"{"a":"au"}"#],
    );
    filters(
        r#"{"a":[{"prefix":{"equals-ignore-case":"Au"}}]}"#,
        &[r#"{"a":"A"}"#],
    );
    passes(
        r#"{"a":[{"suffix":{"equals-ignore-case":".PNG"}}]}"#,
        &[r#"{"a":"x.png"}"#],
    );
    filters(
        r#"{"a":[{"suffix":{"equals-ignore-case":".PNG"}}]}"#,
        &[r#"{"a":"x.jpg"}"#],
    );
}

#[test]
fn equals_ignore_case_folds_both_sides() {
    passes(
        r#"{"a":[{"equals-ignore-case":"ÄpFel"}]}"#,
        &[r#"{"a":"äPFEL"}"#, r#"{"a":"ÄpFel"}"#],
    );
    filters(
        r#"{"a":[{"equals-ignore-case":"ÄpFel"}]}"#,
        &[r#"{"a":"äpfe"}"#, r#"{"a":"äpfels"}"#],
    );
}

#[test]
fn a_wildcard_stands_for_any_characters() {
    let policy = r#"{"a":[{"wildcard":"user-*-prod*"}]}"#;
    passes(
        policy,
        &[r#"{"a":"user-7-prod"}"#, r#"{"a":"user--prod-eu"}"#],
    );
    filters(
        policy,
        &[
            r#"{"a":"user-prod"}"#,
            r#"{"a":"a user-7-prod"}"#,
            r#"{"a":4}"#,
        ],
    );
    passes(r#"{"a":[{"wildcard":"a\\*\\\\*"}]}"#, &[r#"{"a":"a*\\z"}"#]);
    filters(r#"{"a":[{"wildcard":"a\\*\\\\*"}]}"#, &[r#"{"a":"ab\\z"}"#]);
}

#[test]
fn cidr_holds_addresses_of_its_family() {
    passes(
        r#"{"a":[{"cidr":"10.0.0.0/24"}]}"#,
        &[r#"{"a":"10.0.0.0"}"#, r#"{"a":"10.0.0.255"}"#],
    );
    filters(
        r#"{"a":[{"cidr":"10.0.0.0/24"}]}"#,
        &[
            r#"{"a":"10.0.1.0"}"#,
            r#"{"a":"::a00:1"}"#,
            r#"{"a":"10.0.0.256"}"#,
            r#"{"a":"x"}"#,
            r#"{"a":167772160}"#,
        ],
    );
    passes(
        r#"{"a":[{"cidr":"2001:db8::/32"}]}"#,
        &[r#"{"a":"2001:db8:1::5"}"#],
    );
    filters(
        r#"{"a":[{"cidr":"2001:db8::/32"}]}"#,
        &[r#"{"a":"2001:db9::"}"#, r#"{"a":"32.1.13.184"}"#],
    );
    passes(r#"{"a":[{"cidr":"0.0.0.0/0"}]}"#, &[r#"{"a":"255.1.2.3"}"#]);
}

#[test]
fn numeric_compares_and_takes_ranges() {
    for (comparison, inside, outside) in [
        (r#""=",300"#, &["300", "3e2"][..], &["299", "300.1"][..]),
        (r#""<",300"#, &["299.99", "-5"], &["300", "301"]),
        (r#""<=",300"#, &["300", "0"], &["300.001"]),
        (r#"">",300"#, &["300.001"], &["300", "-300"]),
        (r#"">=",300"#, &["300"], &["299"]),
        (
            r#"">",0,"<=",150"#,
            &["122", "150", "0.5"],
            &["0", "-1", "200"],
        ),
        (
            r#"">=",-1.5,"<",0"#,
            &["-1.5", "-0.0001"],
            &["0", "-0", "-1.6"],
        ),
    ] {
        let policy = format!(r#"{{"a":[{{"numeric":[{comparison}]}}]}}"#);
        for value in inside {
            passes(&policy, &[&format!(r#"{{"a":{value}}}"#)]);
        }
        for value in outside {
            filters(
                &policy,
                &[
                    &format!(r#"{{"a":{value}}}"#),
                    &format!(r#"{{"a":"{value}"}}"#),
                ],
            );
        }
    }
}

#[test]
fn exists_asks_for_leaves() {
    passes(
        r#"{"a":[{"exists":true}]}"#,
        &[r#"{"a":0}"#, r#"{"a":null}"#, r#"{"a":[""]}"#],
    );
    filters(
        r#"{"a":[{"exists":true}]}"#,
        &["{}", r#"{"a":{"b":1}}"#, r#"{"a":[]}"#, r#"{"b":{"a":1}}"#],
    );
    passes(
        r#"{"a":[{"exists":false}]}"#,
        &["{}", r#"{"a":{"b":1}}"#, r#"{"a":[]}"#],
    );
    filters(
        r#"{"a":[{"exists":false}]}"#,
        &[r#"{"a":0}"#, r#"{"a":null}"#, r#"{"a":[1]}"#],
    );
    passes(r#"{"a":["x",{"exists":false}]}"#, &["{}", r#"{"a":"x"}"#]);
    filters(r#"{"a":["x",{"exists":false}]}"#, &[r#"{"a":"y"}"#]);
}

#[test]
fn anything_but_wants_a_value_that_is_none_of_them() {
    passes(
        r#"{"a":[{"anything-but":"x"}]}"#,
        &[r#"{"a":"y"}"#, r#"{"a":5}"#, r#"{"a":true}"#],
    );
    filters(
        r#"{"a":[{"anything-but":"x"}]}"#,
        &[r#"{"a":"x"}"#, "{}", r#"{"a":null}"#],
    );
    passes(
        r#"{"a":[{"anything-but":["x",5,true]}]}"#,
        &[r#"{"a":"5"}"#, r#"{"a":6}"#, r#"{"a":false}"#],
    );
    filters(
        r#"{"a":[{"anything-but":["x",5,true]}]}"#,
        &[r#"{"a":"x"}"#, r#"{"a":5.0}"#, r#"{"a":true}"#],
    );
    passes(
        r#"{"a":[{"anything-but":[100,500]}]}"#,
        &[r#"{"a":101}"#, r#"{"a":"100"}"#],
    );
    passes(
        r#"{"a":[{"anything-but":{"prefix":"x"}}]}"#,
        &[r#"{"a":"yx"}"#, r#"{"a":1}"#],
    );
    filters(
        r#"{"a":[{"anything-but":{"prefix":"x"}}]}"#,
        &[r#"{"a":"xy"}"#, "{}"],
    );
    filters(
        r#"{"a":[{"anything-but":{"prefix":["x","y"]}}]}"#,
        &[r#"{"a":"xy"}"#, r#"{"a":"yy"}"#],
    );
    filters(
        r#"{"a":[{"anything-but":{"suffix":"x"}}]}"#,
        &[r#"{"a":"yx"}"#],
    );
    passes(
        r#"{"a":[{"anything-but":{"suffix":"x"}}]}"#,
        &[r#"{"a":"xy"}"#],
    );
    filters(
        r#"{"a":[{"anything-but":{"wildcard":"*x*"}}]}"#,
        &[r#"{"a":"axa"}"#],
    );
    passes(
        r#"{"a":[{"anything-but":{"wildcard":["*x*","b*"]}}]}"#,
        &[r#"{"a":"ab"}"#],
    );
    filters(
        r#"{"a":[{"anything-but":{"equals-ignore-case":["x","Y"]}}]}"#,
        &[r#"{"a":"X"}"#, r#"{"a":"y"}"#],
    );
    passes(
        r#"{"a":[{"anything-but":{"equals-ignore-case":"x"}}]}"#,
        &[r#"{"a":"xx"}"#],
    );
    passes(
        r#"{"a":[{"anything-but":"x"},{"anything-but":"y"}]}"#,
        &[r#"{"a":"x"}"#, r#"{"a":"y"}"#],
    );
}

#[test]
fn nested_and_dotted_keys_are_the_same_path() {
    let bodies = [
        r#"{"object":{"nested":{"test":"v"}}}"#,
        r#"{"object.nested.test":"v"}"#,
        r#"{"object.nested":{"test":"v"}}"#,
        r#"{"object":{"nested.test":"v"}}"#,
    ];
    passes(r#"{"object.nested.test":["v"]}"#, &bodies);
    passes(r#"{"object":{"nested":{"test":["v"]}}}"#, &bodies);
    passes(r#"{"object":{"nested.test":["v"]}}"#, &bodies);
    filters(
        r#"{"object.nested.test":["v"]}"#,
        &[r#"{"object":{"nested":{"test":"w"}}}"#, r#"{"test":"v"}"#],
    );
    passes(
        r#"{"a.":["v"]}"#,
        &[r#"{"a":{"":"v"}}"#, r#"{"a\u002e":"v"}"#],
    );
}

#[test]
fn awss_nested_example_holds() {
    let policy = r#"{"object":{"key":[{"prefix":"auto-"},"hardcodedvalue"],"nested_key":[{"exists":false}]},
                     "test":[{"exists":false}]}"#;
    passes(
        policy,
        &[
            r#"{"object":{"key":"auto-test"}}"#,
            r#"{"object":{"key":"hardcodedvalue"}}"#,
        ],
    );
    filters(
        policy,
        &[
            r#"{"object":{"key":"test-auto"}}"#,
            r#"{"object":{"key":"auto-test"},"test":"just-exists"}"#,
            r#"{"object":{"key":"auto-test","nested_key":"just-exists"}}"#,
            r#"{"object":{"test":"auto-test"}}"#,
            r#"{"test":"auto-test"}"#,
        ],
    );
}

#[test]
fn any_element_of_a_list_matches() {
    passes(
        r#"{"headers":{"route-to":["queue1"]}}"#,
        &[
            r#"{"headers":{"route-to":["queue1"]}}"#,
            r#"{"headers":{"route-to":["queue2","queue1"]}}"#,
        ],
    );
    filters(
        r#"{"headers":{"route-to":["queue1"]}}"#,
        &[r#"{"headers":{"route-to":["queue3"]}}"#],
    );
}

#[test]
fn each_key_may_match_in_another_element() {
    let policy = r#"{"Records":{"s3":{"object":{"key":[{"prefix":"auto-"}]}},"eventName":[{"prefix":"ObjectCreated:"}]}}"#;
    passes(
        policy,
        &[
            r#"{"Records":[{"eventName":"ObjectCreated:Put","s3":{"object":{"key":"auto-1.xml","size":17}}}]}"#,
            r#"{"Records":[{"eventName":"ObjectCreated:Put","s3":{"object":[[{"key":"auto-1.xml"}]]}},
                           {"eventName":"ObjectRemoved:Delete","s3":{"object":{"key":"home-1.xml"}}}]}"#,
            r#"{"Records":[{"eventName":"ObjectCreated:Put","s3":{"object":{"key":"home"}}},
                           {"eventName":"x","s3":{"object":{"key":"auto-"}}}]}"#,
        ],
    );
    filters(
        policy,
        &[
            r#"{"Records":[{"eventName":"ObjectRemoved:Delete","s3":{"object":{"key":"auto-1.xml"}}}]}"#,
            r#"{"Records":[{"eventName":"ObjectCreated:Put","s3":{"object":{"key":"home-1.xml"}}}]}"#,
        ],
    );
}

#[test]
fn a_key_is_absent_when_some_flat_form_lacks_it() {
    let policy = r#"{"a":{"x":[{"exists":false}]}}"#;
    passes(
        policy,
        &[
            r#"{"a":[{"x":1},{"y":2}]}"#,
            r#"{"a":[{"y":1},{"x":2}]}"#,
            r#"{"a":[{"x":[]},{"x":2}]}"#,
            r#"{"a":[[{"x":1},{}],{"x":2}]}"#,
            r#"{"a":[1,{"x":2}]}"#,
            r#"{"a":[{"x":1},{"x":[1,{"y":2}]}]}"#,
        ],
    );
    filters(
        policy,
        &[
            r#"{"a":[{"x":1},{"x":2}]}"#,
            r#"{"a":[{"x":[1,2]},{"x":2}]}"#,
            r#"{"a":[[{"x":1},{"x":3}],{"x":2}]}"#,
            r#"{"a":[{"y":1},{"y":2}],"a.x":3}"#,
        ],
    );
}

#[test]
fn or_takes_one_of_its_branches() {
    let policy = r#"{"$or":[{"metricName":["CPUUtilization","ReadLatency"]},{"namespace":["AWS/EC2","AWS/ES"]}],
        "detail":{"scope":["Service"],
                  "$or":[{"source":["aws.cloudwatch"]},{"type":["CloudWatch Alarm State Change"]}]}}"#;
    passes(
        policy,
        &[
            r#"{"metricName":"CPUUtilization","detail":{"scope":"Service","source":"aws.cloudwatch"}}"#,
            r#"{"namespace":"AWS/ES","detail":{"scope":"Service","source":"aws.cloudwatch"}}"#,
            r#"{"metricName":"ReadLatency","detail":{"scope":"Service","type":"CloudWatch Alarm State Change"}}"#,
        ],
    );
    filters(
        policy,
        &[
            r#"{"metricName":"CPUUtilization","detail":{"scope":"aws.cloudwatch","type":"CloudWatch Alarm State Change"}}"#,
            r#"{"metricName":"CPUUtilization","detail":{"scope":"Service","type":"CPUUtilization"}}"#,
            r#"{"metricName":"CPUUtilization","detail":{"type":"CloudWatch Alarm State Change"}}"#,
            r#"{"metricName":"CPUUtilization","detail":{"scope":"Service"}}"#,
            r#"{"metricName":"CPUUtilization","scope":"Service"}"#,
            r#"{"metricName":"AWS/EC2","detail":{"scope":"Service","source":"aws.cloudwatch"}}"#,
        ],
    );
    let both = r#"{"a":[1,2],"$or":[{"a":[2]},{"b":[1]}]}"#;
    passes(both, &[r#"{"a":2}"#, r#"{"a":1,"b":1}"#]);
    filters(both, &[r#"{"a":1}"#, r#"{"a":3,"b":1}"#]);
    let inner = r#"{"$or":[{"$or":[{"a":[1]},{"b":[1]}],"c":[1]},{"d":[1]}]}"#;
    passes(
        inner,
        &[r#"{"d":1}"#, r#"{"b":1,"c":1}"#, r#"{"a":1,"c":1}"#],
    );
    filters(inner, &[r#"{"c":1}"#, r#"{"a":1}"#]);
}

#[test]
fn a_body_that_is_no_object_is_invalid() {
    for body in [
        &b"Regular string message"[..],
        b"\"Regular string message\"",
        b"[{\"a\":1}]",
        b"",
        b"null",
        b"{\"a\":1",
        b"{\"a\":1} x",
        b"{\"a\":1,}",
        b"{'a':1}",
        b"{\"a\":01}",
        b"{\"a\":1e999}",
        b"{\"a\":\"\xff\"}",
        b"{\"a\":\"\\ud800\"}",
        b"{\"b\":[1,2,}",
        b"{\"b\":\"\n\"}",
    ] {
        for policy in ["{}", r#"{"a":[1]}"#, r#"{"a":[{"exists":false}]}"#] {
            assert_eq!(
                body_policy(policy).matches_body(body),
                Verdict::Filtered(Reason::InvalidMessageBody),
                "{policy} {}",
                String::from_utf8_lossy(body)
            );
        }
    }
}

#[test]
fn attributes_match_by_their_type() {
    let policy = attribute_policy(r#"{"a":["x",100,{"numeric":[">",1000]},{"prefix":"p"}]}"#);
    for value in [
        Value::string("x"),
        number("100"),
        number("1e2"),
        number("1000.5"),
        Value::string("pq"),
    ] {
        let attributes = attributes(&[("a", value), ("other", "o".into())]);
        assert!(
            policy.matches_attributes(&attributes).is_match(),
            "{attributes:?}"
        );
    }
    for value in [
        Value::string("100"),
        Value::string("2000"),
        number("99"),
        number("1000"),
    ] {
        let attributes = attributes(&[("a", value)]);
        assert_eq!(
            policy.matches_attributes(&attributes),
            Verdict::Filtered(Reason::MessageAttributes),
            "{attributes:?}"
        );
    }
}

#[test]
fn labels_other_than_array_are_the_applications_own() {
    let policy = attribute_policy(r#"{"a":["[1]"],"n":[7]}"#);
    let a = Value::string("[1]").with_label("Json").expect("a label");
    let n = number("7").with_label("int").expect("a label");
    assert!(
        policy
            .matches_attributes(&attributes(&[("a", a), ("n", n)]))
            .is_match()
    );
}

#[test]
fn any_element_of_a_string_array_matches() {
    let policy = attribute_policy(r#"{"store":["value1",5,true,null]}"#);
    for list in [
        r#"["value1","value2"]"#,
        r#"["v", 5.0]"#,
        "[false,true]",
        " [ null ] ",
        r#"["\u0076alue1"]"#,
    ] {
        assert!(
            policy
                .matches_attributes(&attributes(&[("store", array(list))]))
                .is_match(),
            "{list}"
        );
    }
    for list in [r#"["value2","value3"]"#, r#"["5"]"#, "[]"] {
        assert_eq!(
            policy.matches_attributes(&attributes(&[("store", array(list))])),
            Verdict::Filtered(Reason::MessageAttributes),
            "{list}"
        );
    }
}

#[test]
fn an_attribute_exists_also_without_elements() {
    let exists = attribute_policy(r#"{"store":[{"exists":true}]}"#);
    let absent = attribute_policy(r#"{"store":[{"exists":false}]}"#);
    for value in ["[]", "[1]"] {
        let there = attributes(&[("store", array(value))]);
        assert!(exists.matches_attributes(&there).is_match());
        assert!(!absent.matches_attributes(&there).is_match());
    }
    let elsewhere = attributes(&[("def", number("99"))]);
    assert!(absent.matches_attributes(&elsewhere).is_match());
    assert!(!exists.matches_attributes(&elsewhere).is_match());
}

#[test]
fn binary_attributes_are_ignored() {
    let binary = attributes(&[("a", Value::binary(Payload::from(b"x".to_vec())))]);
    assert!(
        !attribute_policy(r#"{"a":["x"]}"#)
            .matches_attributes(&binary)
            .is_match()
    );
    assert!(
        !attribute_policy(r#"{"a":[{"exists":true}]}"#)
            .matches_attributes(&binary)
            .is_match()
    );
    assert!(
        attribute_policy(r#"{"a":[{"exists":false}]}"#)
            .matches_attributes(&binary)
            .is_match()
    );
}

#[test]
fn the_verdict_says_why_attributes_were_filtered() {
    let policy = attribute_policy(r#"{"a":["x"],"b.c":[1]}"#);
    let verdict =
        |entries: &[(&str, Value)]| policy.matches_attributes(&attributes(entries)).reason();
    assert_eq!(verdict(&[]), Some(Reason::NoMessageAttributes));
    assert_eq!(
        verdict(&[("a", "y".into())]),
        Some(Reason::MessageAttributes)
    );
    for list in [
        r#"["x""#,
        r#""x""#,
        "[[1]]",
        r#"[{"x":1}]"#,
        "[x]",
        r#"["x",1] 2"#,
        r#"["x",]"#,
    ] {
        assert_eq!(
            verdict(&[("a", array(list)), ("b.c", number("1"))]),
            Some(Reason::InvalidAttributes),
            "{list}"
        );
        assert_eq!(
            verdict(&[("a", "x".into()), ("z", array(list)), ("b.c", number("1"))]),
            None,
            "not looked at"
        );
    }
    assert_eq!(verdict(&[("a", "x".into()), ("b.c", number("1"))]), None);
}

#[test]
fn a_null_does_not_stand_for_an_absent_attribute() {
    let policy = attribute_policy(r#"{"attr1":[null,{"anything-but":"whatever"}]}"#);
    assert_eq!(
        policy.matches_attributes(&Attributes::new()),
        Verdict::Filtered(Reason::NoMessageAttributes)
    );
}

#[test]
fn a_scratch_remembers_nothing_of_the_message_before() {
    let policy = body_policy(r#"{"a":["x"],"b":[{"exists":false}]}"#);
    let mut scratch = Scratch::new();
    for _ in 0..3 {
        for (body, matches) in [
            (r#"{"a":"x"}"#, true),
            (r#"{"c":"x"}"#, false),
            (r#"{"a":"x","b":1}"#, false),
            (r#"{"a":"x","#, false),
            (r#"{"a":["y","\u0078"]}"#, true),
            ("{}", false),
        ] {
            assert_eq!(
                policy
                    .matches_body_in(body.as_bytes(), &mut scratch)
                    .is_match(),
                matches,
                "{body}"
            );
        }
    }
}

#[test]
fn a_policy_of_the_other_scope_matches_nothing() {
    let body = body_policy("{}");
    let attribute = attribute_policy("{}");
    assert_eq!(
        body.matches_attributes(&Attributes::new()),
        Verdict::Filtered(Reason::MessageBody)
    );
    assert_eq!(
        attribute.matches_body(b"{}"),
        Verdict::Filtered(Reason::MessageAttributes)
    );
    assert_eq!((body.scope(), body.as_str()), (Scope::MessageBody, "{}"));
}
