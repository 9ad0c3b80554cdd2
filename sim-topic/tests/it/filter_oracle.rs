//! The compiled policy and the index against an oracle that builds documents and flat forms, as LocalStack's does.

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use sim_core::attributes::{self, Attributes};
use sim_topic::filter::{
    FilterError, FilterIndex, FilterPolicy, FilterRule, Reason, Scope, Scratch, Verdict,
};

/// A flat form: paths and their values.
type Flat = Vec<(String, Value)>;

/// What one alternative asks: a list of conditions for each path.
type Wanted = Vec<(String, Vec<Value>)>;

fn below(parent: Option<&str>, key: &str) -> String {
    parent.map_or_else(|| key.to_owned(), |parent| format!("{parent}.{key}"))
}

fn flatten_policy(
    policy: &Map<String, Value>,
    parent: Option<&str>,
    mut all: Vec<Wanted>,
) -> Vec<Wanted> {
    for (key, value) in policy {
        let path = below(parent, key);
        all = match value {
            Value::Array(branches) if key == "$or" => branches
                .iter()
                .flat_map(|branch| {
                    flatten_policy(branch.as_object().expect("an object"), parent, all.clone())
                })
                .collect(),
            Value::Object(inner) => flatten_policy(inner, Some(&path), all),
            Value::Array(conditions) => all
                .into_iter()
                .map(|mut one| {
                    one.push((path.clone(), conditions.clone()));
                    one
                })
                .collect(),
            other => panic!("{other} is neither"),
        };
    }
    all
}

fn flatten_body(value: &Value, parent: Option<&str>, all: Vec<Flat>) -> Vec<Flat> {
    match value {
        Value::Object(members) => members.iter().fold(all, |all, (key, value)| {
            flatten_body(value, Some(&below(parent, key)), all)
        }),
        Value::Array(elements) if elements.is_empty() => all,
        Value::Array(elements) => elements
            .iter()
            .flat_map(|element| flatten_body(element, parent, all.clone()))
            .collect(),
        scalar => all
            .into_iter()
            .map(|mut one| {
                one.push((parent.expect("inside an object").to_owned(), scalar.clone()));
                one
            })
            .collect(),
    }
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a string")
}

fn list(value: &Value) -> Vec<Value> {
    value
        .as_array()
        .cloned()
        .unwrap_or_else(|| vec![value.clone()])
}

fn equal(one: &Value, other: &Value) -> bool {
    match (one.as_f64(), other.as_f64()) {
        (Some(one), Some(other)) => one == other,
        _ => one == other,
    }
}

fn fold(text: &str) -> String {
    text.chars().flat_map(char::to_lowercase).collect()
}

/// Whether a pattern of literals and asterisks matches, by trying everything.
fn glob(pattern: &[char], text: &[char]) -> bool {
    match pattern {
        [] => text.is_empty(),
        ['*', rest @ ..] => (0..=text.len()).any(|skip| glob(rest, &text[skip..])),
        ['\\', literal, rest @ ..] | [literal, rest @ ..] => {
            text.first() == Some(literal) && glob(rest, &text[1..])
        }
    }
}

fn affix(operator: &str, wanted: &Value, value: &str) -> bool {
    match (operator, wanted) {
        ("prefix", Value::String(wanted)) => value.starts_with(wanted),
        ("suffix", Value::String(wanted)) => value.ends_with(wanted),
        ("prefix", folded) => fold(value).starts_with(&fold(text(&folded["equals-ignore-case"]))),
        ("suffix", folded) => fold(value).ends_with(&fold(text(&folded["equals-ignore-case"]))),
        ("equals-ignore-case", wanted) => fold(value) == fold(text(wanted)),
        ("wildcard", wanted) => {
            let pattern: Vec<_> = text(wanted).chars().collect();
            glob(&pattern, &value.chars().collect::<Vec<_>>())
        }
        _ => panic!("{operator}"),
    }
}

/// Whether a condition accepts a value that is there.
fn accepts(condition: &Value, value: &Value) -> bool {
    let Value::Object(operator) = condition else {
        return equal(condition, value);
    };
    let (operator, operand) = operator.iter().next().expect("one operator");
    match operator.as_str() {
        "exists" => operand == &Value::Bool(true),
        _ if value.is_null() => false,
        "anything-but" => match operand {
            Value::Object(inner) => {
                let (inner, wanted) = inner.iter().next().expect("one operator");
                !value.as_str().is_some_and(|value| {
                    list(wanted)
                        .iter()
                        .any(|wanted| affix(inner, wanted, value))
                })
            }
            plain => !list(plain).iter().any(|plain| equal(plain, value)),
        },
        "numeric" => value.as_f64().is_some_and(|value| {
            list(operand).chunks(2).all(|pair| {
                let bound = pair[1].as_f64().expect("a number");
                match text(&pair[0]) {
                    "=" => value == bound,
                    "<" => value < bound,
                    "<=" => value <= bound,
                    ">" => value > bound,
                    _ => value >= bound,
                }
            })
        }),
        "cidr" => value
            .as_str()
            .and_then(|value| value.parse().ok())
            .is_some_and(|address: std::net::IpAddr| {
                let (network, bits) = text(operand).split_once('/').expect("a mask");
                let bits: u32 = bits.parse().expect("a number");
                match (network.parse().expect("an address"), address) {
                    (std::net::IpAddr::V4(network), std::net::IpAddr::V4(address)) => {
                        let shift = 32 - bits;
                        u64::from(network.to_bits()) >> shift
                            == u64::from(address.to_bits()) >> shift
                    }
                    (std::net::IpAddr::V6(network), std::net::IpAddr::V6(address)) => {
                        bits == 0
                            || network.to_bits() >> (128 - bits)
                                == address.to_bits() >> (128 - bits)
                    }
                    _ => false,
                }
            }),
        operator => value
            .as_str()
            .is_some_and(|value| affix(operator, operand, value)),
    }
}

fn oracle(policy: &Value, forms: &[Flat]) -> bool {
    let policy = policy.as_object().expect("a policy");
    flatten_policy(policy, None, vec![Vec::new()])
        .iter()
        .any(|wanted| {
            wanted.iter().all(|(path, conditions)| {
                conditions.iter().any(|condition| {
                    forms.iter().any(|form| {
                        let mut values = form.iter().filter(|(other, _)| other == path).peekable();
                        if condition == &json!({"exists": false}) {
                            return values.peek().is_none();
                        }
                        values.any(|(_, value)| accepts(condition, value))
                    })
                })
            })
        })
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("a"),
        Just("b"),
        Just("c"),
        Just("a.b"),
        Just("b.c"),
        Just("\"é\\"),
        Just("")
    ]
    .prop_map(str::to_owned)
}

fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => "[xyX]{0,3}",
        1 => "[xy*\\\\é\"\u{1f600}]{0,4}",
        1 => "(xxxxyyyyX|yxxxxyyyy|x-0001-y-0002|x-0002-y-0001)",
        1 => "(10\\.0\\.[01]\\.[0-3]|::[12]|2001:db8::1|1\\.2\\.3)",
    ]
}

fn number() -> impl Strategy<Value = Value> {
    prop_oneof![
        (-3i64..6).prop_map(|number| json!(number)),
        (-3i64..6).prop_map(|number| json!(number as f64 / 2.0))
    ]
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        5 => word().prop_map(Value::from),
        3 => number(),
        1 => any::<bool>().prop_map(Value::from),
        1 => Just(Value::Null),
    ]
}

fn pattern() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => "\\*?[xyX]{0,3}\\*?[xyX]{1,3}\\*?",
        1 => "(x|\\\\\\*|\\\\\\\\|y\\*x){1,3}",
        1 => "(x-0001\\*|\\*y-0002|\\*-0001-\\*|\\*xxxxyyyy\\*|\\*xxyyyy\\*)",
    ]
    .prop_map(Value::from)
}

fn affix_condition() -> impl Strategy<Value = Value> {
    prop_oneof![
        word().prop_map(|word| json!({"prefix": word})),
        word().prop_map(|word| json!({"suffix": word})),
        word().prop_map(|word| json!({"prefix": {"equals-ignore-case": word}})),
        word().prop_map(|word| json!({"suffix": {"equals-ignore-case": word}})),
        word().prop_map(|word| json!({"equals-ignore-case": word})),
        pattern().prop_map(|pattern| json!({"wildcard": pattern})),
        proptest::collection::vec(word(), 1..3).prop_map(|words| json!({"prefix": words})),
        proptest::collection::vec(word(), 1..3).prop_map(|words| json!({"suffix": words})),
        proptest::collection::vec(word(), 1..3)
            .prop_map(|words| json!({"equals-ignore-case": words})),
        proptest::collection::vec(pattern(), 1..3)
            .prop_map(|patterns| json!({"wildcard": patterns})),
    ]
}

fn condition() -> impl Strategy<Value = Value> {
    let comparison = prop_oneof![Just("="), Just("<"), Just("<="), Just(">"), Just(">=")];
    let lower = prop_oneof![Just(">"), Just(">=")];
    let upper = prop_oneof![Just("<"), Just("<=")];
    prop_oneof![
        8 => scalar(),
        2 => any::<bool>().prop_map(|exists| json!({"exists": exists})),
        2 => (comparison, number()).prop_map(|(comparison, number)| json!({"numeric": [comparison, number]})),
        2 => (lower, -3i64..3, upper, 1i64..3)
            .prop_map(|(lower, low, upper, width)| json!({"numeric": [lower, low, upper, low + width]})),
        3 => affix_condition().prop_filter("lists are for anything-but", |condition| {
            !condition.as_object().is_some_and(|operator| operator.values().any(Value::is_array))
        }),
        2 => affix_condition().prop_map(|inner| json!({"anything-but": inner})),
        2 => scalar().prop_map(|value| json!({"anything-but": value})),
        2 => proptest::collection::vec(scalar(), 1..4).prop_map(|values| json!({"anything-but": values})),
        1 => prop_oneof![Just("10.0.0.0/23"), Just("10.0.1.0/31"), Just("0.0.0.0/0"), Just("::/127"), Just("2001:db8::/32"), Just("::/0")]
            .prop_map(|net| json!({"cidr": net})),
    ]
}

fn policy() -> impl Strategy<Value = Value> {
    let leaf = proptest::collection::vec(condition(), 1..4).prop_map(Value::Array);
    let object = leaf.prop_recursive(3, 24, 3, |inner| {
        let members = proptest::collection::btree_map(key(), inner.clone(), 1..4);
        let branch =
            proptest::collection::btree_map(key(), inner, 1..3).prop_map(|members| json!(members));
        let or = proptest::collection::vec(branch, 2..4);
        (members, proptest::option::weighted(0.3, or)).prop_map(|(members, or)| {
            let mut object = json!(members);
            if let Some(or) = or {
                object["$or"] = Value::Array(or);
            }
            object
        })
    });
    object.prop_map(|node| {
        if node.is_object() {
            node
        } else {
            json!({"a": node})
        }
    })
}

fn body() -> impl Strategy<Value = Value> {
    let node = scalar().prop_recursive(4, 24, 3, |inner| {
        prop_oneof![
            2 => proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::Array),
            3 => proptest::collection::btree_map(key(), inner, 0..4).prop_map(|members| json!(members)),
        ]
    });
    proptest::collection::btree_map(key(), node, 0..5).prop_map(|members| json!(members))
}

/// Compiles a policy; nothing when two of its keys happen to have one path, or a pattern is none.
fn compile(policy: &Value, scope: Scope) -> Option<FilterPolicy> {
    match FilterPolicy::parse(&policy.to_string(), scope) {
        Ok(policy) => Some(policy),
        Err(FilterError {
            rule:
                FilterRule::Duplicate
                | FilterRule::WildcardRow { .. }
                | FilterRule::WildcardEscape { .. },
            ..
        }) => None,
        Err(error) => panic!("{policy}: {error}"),
    }
}

fn forms(body: &Value) -> Option<Vec<Flat>> {
    let forms = flatten_body(body, None, vec![Vec::new()]);
    (forms.len() < 5_000).then_some(forms)
}

/// Attributes and the one flat form in which the oracle sees each of their values.
fn attributes() -> impl Strategy<Value = (Attributes, Vec<Flat>)> {
    let value = prop_oneof![
        2 => word().prop_filter("not empty", |word| !word.is_empty()).prop_map(Value::from),
        2 => number(),
        2 => proptest::collection::vec(scalar(), 1..3).prop_map(Value::Array),
    ];
    proptest::collection::btree_map("(a|b|c|a\\.b)", value, 0..4).prop_map(|entries| {
        let mut attributes = Attributes::new();
        for (name, value) in &entries {
            let value = match value {
                Value::Array(_) => attributes::Value::string(value.to_string())
                    .with_label("Array")
                    .expect("a label"),
                Value::String(text) => attributes::Value::string(text.clone()),
                number => attributes::Value::number(number.to_string()).expect("a number"),
            };
            attributes
                .insert(name.clone(), value)
                .expect("an attribute");
        }
        // A list is one attribute that is there: forms would have one element each, and none lacks it.
        let forms = flatten_body(&json!(entries), None, vec![Vec::new()]);
        (attributes, forms)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_policy_decides_as_the_oracle(policy in policy(), bodies in proptest::collection::vec(body(), 1..12)) {
        let Some(compiled) = compile(&policy, Scope::MessageBody) else { return Ok(()) };
        let mut scratch = Scratch::new();
        for body in &bodies {
            let Some(forms) = forms(body) else { continue };
            let verdict = compiled.matches_body_in(body.to_string().as_bytes(), &mut scratch);
            let expected = if oracle(&policy, &forms) {
                Verdict::Match
            } else {
                Verdict::Filtered(Reason::MessageBody)
            };
            prop_assert_eq!(verdict, expected, "{} {}", policy, body);
            let pretty = serde_json::to_vec_pretty(body).expect("it is JSON");
            prop_assert_eq!(compiled.matches_body(&pretty), expected);
        }
    }

    #[test]
    fn an_index_finds_what_the_oracle_finds(
        policies in proptest::collection::vec(policy(), 1..40),
        replacements in proptest::collection::vec((0..40_usize, proptest::option::of(policy())), 0..20),
        bodies in proptest::collection::vec(body(), 1..8),
    ) {
        let mut policies: Vec<_> = policies.into_iter().map(Some).collect();
        let mut index = FilterIndex::new(Scope::MessageBody);
        for (id, policy) in policies.iter_mut().enumerate() {
            match policy.as_ref().and_then(|policy| compile(policy, Scope::MessageBody)) {
                Some(compiled) => prop_assert!(index.insert(id as u32, compiled)?.is_none()),
                None => *policy = None,
            }
        }
        let mut scratch = Scratch::new();
        check(&index, &policies, &bodies, &mut scratch)?;
        for (id, replacement) in replacements {
            let Some(place) = policies.get_mut(id) else { continue };
            let compiled = replacement.as_ref().and_then(|policy| compile(policy, Scope::MessageBody));
            let before = match compiled {
                Some(compiled) => {
                    let before = index.insert(id as u32, compiled)?;
                    (before, std::mem::replace(place, replacement))
                }
                None => (index.remove(id as u32), place.take()),
            };
            prop_assert_eq!(before.0.map(|policy| policy.as_str().to_owned()), before.1.map(|policy| policy.to_string()));
        }
        check(&index, &policies, &bodies, &mut scratch)?;
        for id in 0..policies.len() {
            index.remove(id as u32);
        }
        prop_assert!(index.is_empty());
        prop_assert_eq!(
            format!("{index:?}"),
            r#"FilterIndex { scope: MessageBody, policies: 0, alternatives: 0, keys: 0, .. }"#
        );
    }

    #[test]
    fn attributes_are_decided_as_the_oracle_does(
        policies in proptest::collection::vec(
            proptest::collection::btree_map("(a|b|c|a\\.b)", proptest::collection::vec(condition(), 1..4), 1..4),
            1..20,
        ),
        messages in proptest::collection::vec(attributes(), 1..8),
    ) {
        let mut index = FilterIndex::new(Scope::MessageAttributes);
        let mut scratch = Scratch::new();
        let policies: Vec<_> = policies.into_iter().map(|policy| json!(policy)).collect();
        for (attributes, forms) in &messages {
            let mut expected = Vec::new();
            for (id, policy) in policies.iter().enumerate() {
                let Some(compiled) = compile(policy, Scope::MessageAttributes) else { continue };
                let matches = oracle(policy, forms);
                prop_assert_eq!(
                    compiled.matches_attributes(attributes).is_match(), matches, "{} {:?}", policy, attributes
                );
                if matches {
                    expected.push(id as u32);
                }
                index.insert(id as u32, compiled)?;
            }
            let found = index.match_attributes(attributes, &mut scratch);
            prop_assert_eq!(found.ids(), expected);
        }
    }

    /// `{}` passes every body that is a JSON object, and reads the rest of it without looking at anything.
    #[test]
    fn a_body_is_invalid_exactly_when_serde_json_says_so(
        body in body(),
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), change()), 0..4),
    ) {
        let mut text = body.to_string().into_bytes();
        for (at, change) in changes {
            if text.is_empty() {
                break;
            }
            let at = at.index(text.len());
            match change {
                Change::Delete => { text.remove(at); }
                Change::Insert(bytes) => { text.splice(at..at, bytes); }
                Change::Replace(byte) => text[at] = byte,
                Change::Cut => text.truncate(at),
            }
        }
        valid_as_serde_json(&text)?;
    }

    #[test]
    fn any_bytes_are_judged_without_panic(text in proptest::collection::vec(any::<u8>(), 0..200), json in "[\\[\\]{}\",:0-9eE+.\\\\utrfalsn -]{0,40}") {
        valid_as_serde_json(&text)?;
        valid_as_serde_json(json.as_bytes())?;
        valid_as_serde_json(format!(r#"{{"a":{json}}}"#).as_bytes())?;
        let _ = FilterPolicy::parse(&json, Scope::MessageBody);
        let _ = FilterPolicy::parse(&format!(r#"{{"a":[{json}]}}"#), Scope::MessageAttributes);
    }
}

#[derive(Debug, Clone)]
enum Change {
    Delete,
    Insert(Vec<u8>),
    Replace(u8),
    Cut,
}

fn change() -> impl Strategy<Value = Change> {
    let token = prop_oneof![
        "[\\[\\]{}\",:0-9eE+.-]",
        "(true|null|\\\\u00e9|\\\\ud83d\\\\ude00|\\\\ud83d|\\\\udc00|\\\\u12|\\\\x|\n|\t|\u{1}|1e400|-0.0e-2|01|1.|é)"
    ];
    prop_oneof![
        Just(Change::Delete),
        token.prop_map(|token| Change::Insert(token.into_bytes())),
        any::<u8>().prop_map(Change::Replace),
        Just(Change::Cut),
    ]
}

fn valid_as_serde_json(text: &[u8]) -> Result<(), TestCaseError> {
    let expected = serde_json::from_slice::<Value>(text).is_ok_and(|value| value.is_object());
    for policy in ["{}", r#"{"a":[1],"b":{"c":[{"exists":false}]}}"#] {
        let policy = FilterPolicy::parse(policy, Scope::MessageBody)?;
        let verdict = policy.matches_body(text);
        prop_assert_eq!(
            verdict != Verdict::Filtered(Reason::InvalidMessageBody),
            expected,
            "{}",
            String::from_utf8_lossy(text)
        );
    }
    Ok(())
}

fn check(
    index: &FilterIndex,
    policies: &[Option<Value>],
    bodies: &[Value],
    scratch: &mut Scratch,
) -> Result<(), TestCaseError> {
    for body in bodies {
        let Some(forms) = forms(body) else { continue };
        let expected: Vec<_> = policies
            .iter()
            .enumerate()
            .filter(|(_, policy)| policy.as_ref().is_some_and(|policy| oracle(policy, &forms)))
            .map(|(id, _)| id as u32)
            .collect();
        let found = index.match_body(body.to_string().as_bytes(), scratch);
        prop_assert_eq!(found.ids(), expected, "{}", body);
    }
    Ok(())
}
