//! The index with many policies: what it finds is what the policies say one by one.

use serde_json::{Value, json};
use sim_core::attributes::{self, Attributes};
use sim_core::random::Random;
use sim_topic::filter::{FilterIndex, FilterPolicy, FilterRule, Reason, Scope, Scratch};

fn compiled(policy: &Value) -> FilterPolicy {
    FilterPolicy::parse(&policy.to_string(), Scope::MessageBody)
        .unwrap_or_else(|error| panic!("{policy}: {error}"))
}

fn pick<'a>(random: &mut Random, from: &[&'a str]) -> &'a str {
    from[random.below(from.len() as u64) as usize]
}

const COLOURS: [&str; 3] = ["red", "green", "blue"];
const SIZES: [&str; 3] = ["s", "m", "l"];

/// Policies whose values are common, so that every way of entering them is used.
fn policy(random: &mut Random) -> Value {
    let colour = pick(random, &COLOURS);
    let size = pick(random, &SIZES);
    let shelf = random.below(4);
    let code = format!("code-{:02}", random.below(30));
    match random.below(13) {
        0..=3 => json!({"colour": [colour], "size": [size], "shelf": [shelf]}),
        4 => json!({"colour": [colour], "size": [size], "code": [{"prefix": code}]}),
        5 => json!({"colour": [colour, "white"], "shelf": [{"numeric": [">=", shelf]}]}),
        6 => json!({"code": [{"wildcard": format!("*{}*", &code[3..])}], "size": [size]}),
        11 => json!({"code": [{"wildcard": format!("*{code}-*")}]}),
        7 => json!({"colour": [{"anything-but": [colour, "white"]}]}),
        8 => json!({"shelf": [{"anything-but": [shelf]}], "size": [size]}),
        9 => json!({"colour": [colour], "gone": [{"exists": false}]}),
        10 => json!({"gone": [{"exists": false}], "code": [{"exists": true}]}),
        _ => {
            json!({"$or": [{"colour": [colour], "size": [size]}, {"size": [size], "shelf": [shelf]}]})
        }
    }
}

fn body(random: &mut Random) -> Value {
    let mut body = json!({
        "colour": pick(random, &COLOURS),
        "size": pick(random, &SIZES),
        "shelf": random.below(4),
        "code": format!("code-{:02}-x", random.below(30)),
    });
    match random.below(8) {
        0 => body["colour"] = json!(["red", "blue", "red"]),
        1 => body["gone"] = json!(null),
        2 => body["shelf"] = Value::Null,
        3 => body["size"] = json!([]),
        4 => {
            // More combinations than are looked up.
            body["colour"] = (0..10)
                .map(|number| json!(format!("c{number}")))
                .chain([json!("red")])
                .collect();
            body["size"] = (0..10)
                .map(|number| json!(format!("s{number}")))
                .chain([json!("m")])
                .collect();
        }
        _ => {}
    }
    body
}

fn agree(
    index: &FilterIndex,
    policies: &[Option<FilterPolicy>],
    random: &mut Random,
    scratch: &mut Scratch,
) -> usize {
    let mut total = 0;
    for _ in 0..60 {
        let body = body(random).to_string();
        let expected: Vec<_> = policies
            .iter()
            .enumerate()
            .filter(|(_, policy)| {
                policy
                    .as_ref()
                    .is_some_and(|policy| policy.matches_body(body.as_bytes()).is_match())
            })
            .map(|(id, _)| id as u32)
            .collect();
        let found = index.match_body(body.as_bytes(), scratch);
        assert_eq!(found.ids(), expected, "{body}");
        assert_eq!(found.otherwise(), Reason::MessageBody);
        total += expected.len();
    }
    total
}

#[test]
fn an_index_of_common_values_finds_what_its_policies_say_through_changes() {
    let mut random = Random::new(3);
    let mut index = FilterIndex::new(Scope::MessageBody);
    let mut policies = Vec::new();
    let mut scratch = Scratch::new();
    for id in 0..800 {
        let policy = compiled(&policy(&mut random));
        assert!(
            index
                .insert(id, policy.clone())
                .expect("the scope is right")
                .is_none()
        );
        policies.push(Some(policy));
    }
    assert_eq!(index.len(), 800);
    assert!(agree(&index, &policies, &mut random, &mut scratch) > 1_000);
    for _ in 0..3 {
        for id in 0..800_u32 {
            if random.chance(0.5) {
                assert_eq!(
                    index.remove(id).is_some(),
                    policies[id as usize].take().is_some()
                );
            } else {
                let policy = compiled(&policy(&mut random));
                index
                    .insert(id, policy.clone())
                    .expect("the scope is right");
                policies[id as usize] = Some(policy);
            }
        }
        assert!(agree(&index, &policies, &mut random, &mut scratch) > 100);
    }
    for id in 0..800 {
        index.remove(id);
    }
    assert!(index.is_empty() && index.remove(5).is_none() && index.policy(5).is_none());
    assert!(
        format!("{index:?}").contains("alternatives: 0, keys: 0"),
        "{index:?}"
    );
    assert!(
        index
            .match_body(br#"{"colour":"red"}"#, &mut scratch)
            .ids()
            .is_empty()
    );
}

#[test]
fn inserting_again_replaces_and_gives_the_old_policy_back() {
    let mut index = FilterIndex::new(Scope::MessageBody);
    let mut scratch = Scratch::new();
    index
        .insert(7, compiled(&json!({"a": [1]})))
        .expect("the scope is right");
    let old = index
        .insert(7, compiled(&json!({"a": [2]})))
        .expect("the scope is right");
    assert_eq!(old.expect("it was there").as_str(), r#"{"a":[1]}"#);
    assert_eq!(
        index.policy(7).expect("it is there").as_str(),
        r#"{"a":[2]}"#
    );
    assert!(
        index
            .match_body(br#"{"a":1}"#, &mut scratch)
            .ids()
            .is_empty()
    );
    assert_eq!(index.match_body(br#"{"a":2}"#, &mut scratch).ids(), [7]);
}

#[test]
fn a_policy_of_the_other_scope_is_refused_and_changes_nothing() {
    let mut index = FilterIndex::new(Scope::MessageAttributes);
    let error = index
        .insert(1, compiled(&json!({"a": [1]})))
        .expect_err("the scope is wrong");
    assert_eq!(
        error.to_string(),
        "$: filters MessageBody, the index filters MessageAttributes"
    );
    assert!(matches!(error.rule, FilterRule::Scope { .. }));
    assert!(index.is_empty());
    let mut scratch = Scratch::new();
    let body = index.match_body(b"{}", &mut scratch);
    assert_eq!(
        (body.ids(), body.otherwise()),
        (&[][..], Reason::MessageAttributes)
    );
}

#[test]
fn an_index_says_why_the_others_do_not_match() {
    let mut scratch = Scratch::new();
    let mut bodies = FilterIndex::new(Scope::MessageBody);
    bodies
        .insert(1, compiled(&json!({})))
        .expect("the scope is right");
    bodies
        .insert(2, compiled(&json!({"a": [1]})))
        .expect("the scope is right");
    assert_eq!(bodies.match_body(b"{}", &mut scratch).ids(), [1]);
    let invalid = bodies.match_body(b"{\"a\":1", &mut scratch);
    assert_eq!(
        (invalid.ids(), invalid.otherwise()),
        (&[][..], Reason::InvalidMessageBody)
    );
    assert_eq!(bodies.match_body(b"{\"a\":1}", &mut scratch).ids(), [1, 2]);

    let mut attributes = FilterIndex::new(Scope::MessageAttributes);
    for (id, policy) in [(1, r#"{"a":["x"]}"#), (2, r#"{"a":[{"exists":false}]}"#)] {
        let policy = FilterPolicy::parse(policy, Scope::MessageAttributes).expect("a policy");
        attributes.insert(id, policy).expect("the scope is right");
    }
    let none = attributes.match_attributes(&Attributes::new(), &mut scratch);
    assert_eq!(
        (none.ids(), none.otherwise()),
        (&[2][..], Reason::NoMessageAttributes)
    );
    let mut message = Attributes::new();
    message.insert("a", "x").expect("an attribute");
    let found = attributes.match_attributes(&message, &mut scratch);
    assert_eq!(
        (found.ids(), found.otherwise()),
        (&[1][..], Reason::MessageAttributes)
    );
    let list = attributes::Value::string("[x")
        .with_label("Array")
        .expect("a label");
    message.insert("a", list).expect("an attribute");
    let invalid = attributes.match_attributes(&message, &mut scratch);
    assert_eq!(
        (invalid.ids(), invalid.otherwise()),
        (&[][..], Reason::InvalidAttributes)
    );
}

#[test]
fn one_scratch_serves_several_indices() {
    let mut scratch = Scratch::new();
    let indices: Vec<_> = (0..5_u32)
        .map(|number| {
            let mut index = FilterIndex::new(Scope::MessageBody);
            for id in 0..=number {
                let policy =
                    json!({"a": {"exists": [id]}, format!("b{number}"): [{"exists": false}]});
                index
                    .insert(id, compiled(&policy))
                    .expect("the scope is right");
            }
            index
        })
        .collect();
    for round in 0..20_u32 {
        for (number, index) in indices.iter().enumerate() {
            let body = format!(r#"{{"a.exists":{}}}"#, round % 5);
            let expected: &[u32] = if round % 5 <= number as u32 {
                &[round % 5]
            } else {
                &[]
            };
            assert_eq!(
                index.match_body(body.as_bytes(), &mut scratch).ids(),
                expected
            );
        }
    }
}

/// Each of these would take minutes or the stack if it multiplied or recursed.
#[test]
fn hostile_bodies_cost_no_more_than_their_size() {
    let mut index = FilterIndex::new(Scope::MessageBody);
    let mut scratch = Scratch::new();
    let policies = [
        json!({"a": {"b": [{"exists": false}]}, "c": ["x"]}),
        json!({"a": {"a": {"a": {"b": [{"exists": false}], "c": [1]}}}}),
        json!({"a": [{"wildcard": "*a*a*a*a*a*a*b*"}]}),
        json!({"a": [{"wildcard": "*aaaaaaaaaaaaaaaab*aaaaaaaaaaaaaaab*"}]}),
        json!({"a": ["x"], "b": ["x"], "c": ["x"]}),
    ];
    for (id, policy) in policies.iter().enumerate() {
        index
            .insert(id as u32, compiled(policy))
            .expect("the scope is right");
    }
    for id in 100..400 {
        let policy = json!({"a": ["x"], "b": ["x"], "c": ["x"]});
        index
            .insert(id, compiled(&policy))
            .expect("the scope is right");
    }
    let many = |value: &str, count: usize| format!("[{}]", vec![value; count].join(","));
    let nested = |open: &str, close: &str, depth: usize| {
        format!("{}{}", open.repeat(depth), close.repeat(depth))
    };
    // Lists of lists of objects: 20^3 flat forms and more.
    let mut forms = r#"{"b":1,"c":1}"#.to_owned();
    for _ in 0..3 {
        forms = format!(r#"{{"a":{}}}"#, many(&forms, 20));
    }
    let values = many(r#""y""#, 20_000);
    for (body, valid) in [
        (format!(r#"{{"a":{}}}"#, nested("[", "]", 100_000)), false),
        (format!(r#"{{"z":{}}}"#, nested("[", "]", 100_000)), false),
        (
            format!(
                r#"{{"a":{}1{}}}"#,
                r#"{"a":"#.repeat(100_000),
                "}".repeat(100_000)
            ),
            false,
        ),
        (format!(r#"{{"a":{}}}"#, nested("[", "]", 126)), true),
        (forms, true),
        (format!(r#"{{"a":"{}"}}"#, "a".repeat(500_000)), true),
        (
            format!(r#"{{"a":{values},"b":{values},"c":{values}}}"#),
            true,
        ),
        (format!(r#"{{"a":"{}"}}"#, r"\u0061\n".repeat(50_000)), true),
        (
            format!(r#"{{{}}}"#, vec![r#""a":1"#; 20_000].join(",")),
            true,
        ),
        ("{\"a\":\"".to_owned() + &"a".repeat(100_000), false),
    ] {
        let found = index.match_body(body.as_bytes(), &mut scratch);
        let reason = if valid {
            Reason::MessageBody
        } else {
            Reason::InvalidMessageBody
        };
        assert_eq!(found.otherwise(), reason, "{body:.80}");
        assert!(found.ids().is_empty(), "{body:.80}");
    }
}
