//! Policies that are not taken: where they break a rule, and which.

use sim_topic::filter::{FilterLimits, FilterPolicy, FilterRule, Scope};

#[track_caller]
fn refused(policy: &str, message: &str) {
    refused_within(policy, &FilterLimits::default(), message);
}

#[track_caller]
fn refused_within(policy: &str, limits: &FilterLimits, message: &str) {
    let error = FilterPolicy::parse_within(policy, Scope::MessageBody, limits)
        .map(|_| "it was taken")
        .expect_err(message);
    assert_eq!(error.to_string(), message, "{policy:.200}");
}

#[track_caller]
fn taken_within(policy: &str, limits: &FilterLimits) {
    if let Err(error) = FilterPolicy::parse_within(policy, Scope::MessageBody, limits) {
        panic!("{:.200}: {error}", policy);
    }
}

#[test]
fn what_is_not_json_is_located() {
    refused("", "$: is not JSON at line 1, column 1");
    refused("{\n \"a\": [1,}", "$: is not JSON at line 2, column 10");
    refused("{} {}", "$: is not JSON at line 1, column 4");
    refused(r#"{"a":["\ud800"]}"#, "$: is not JSON at line 1, column 8");
    refused(
        &format!("{}1{}", r#"{"a":"#.repeat(128), "}".repeat(128)),
        "$: is not JSON at line 1, column 636",
    );
}

#[test]
fn a_policy_is_an_object_of_objects_and_lists() {
    refused("[]", "$: must be an object, is an array");
    refused("\"x\"", "$: must be an object, is a string");
    refused(
        r#"{"key_a":"value_one"}"#,
        "$.key_a: must be an object or an array, is a string",
    );
    refused(
        r#"{"a":{"b":null}}"#,
        "$.a.b: must be an object or an array, is null",
    );
    refused(r#"{"a":[]}"#, "$.a: is an empty array");
    refused(r#"{"a":{"b":{}}}"#, "$.a.b: is an empty object");
    refused(
        r#"{"key":[["value"]]}"#,
        "$.key[0]: must be a string, number, true, false, null or an object with one operator, is an array",
    );
}

#[test]
fn a_key_stands_once() {
    refused(r#"{"a":[1],"a":[2]}"#, "$.a: stands there twice");
    refused(
        r#"{"a":{"b":[1]},"a":{"c":[1]}}"#,
        "$.a: stands there twice",
    );
    refused(r#"{"a.b":[1],"a":{"b":[1]}}"#, "$.a.b: stands there twice");
    refused(
        r#"{"$or":[{"a":[1],"a":[2]},{"b":[1]}]}"#,
        "$.$or[0].a: stands there twice",
    );
    refused(
        r#"{"a":{"$or":[{"x":[1]},{"y":[1]}],"$or":[{"x":[1]},{"y":[1]}]}}"#,
        "$.a.$or: stands there twice",
    );
}

#[test]
fn paths_name_strange_keys_in_quotes() {
    refused(
        r#"{"a b":{"c.d":[1,{"nope":1}]}}"#,
        r#"$["a b"]["c.d"][1].nope: is no operator"#,
    );
    refused(r#"{"":[{"nope":1}]}"#, r#"$[""][0].nope: is no operator"#);
}

#[test]
fn or_needs_two_objects() {
    for or in [r#"[{"a":[1]}]"#, "[]", r#"{"a":[1]}"#, "5"] {
        refused(
            &format!(r#"{{"x":{{"$or":{or}}}}}"#),
            "$.x.$or: must be an array of two or more objects",
        );
    }
    refused(
        r#"{"$or":[{"a":[1]},5]}"#,
        "$.$or[1]: must be an array of two or more objects",
    );
    refused(r#"{"$or":[{"a":[1]},{}]}"#, "$.$or[1]: is an empty object");
}

#[test]
fn an_element_has_one_operator_that_exists() {
    refused(
        r#"{"a":[1,{"prefix":"a","suffix":"b"}]}"#,
        "$.a[1]: must have one operator, has 2",
    );
    refused(r#"{"a":[{}]}"#, "$.a[0]: must have one operator, has 0");
    refused(r#"{"a":[{"perfix":"x"}]}"#, "$.a[0].perfix: is no operator");
    refused(
        r#"{"a":[{"anything-but":{"numeric":[">",1]}}]}"#,
        "$.a[0].anything-but.numeric: is no operator of anything-but",
    );
    refused(
        r#"{"a":[{"prefix":{"wildcard":"x"}}]}"#,
        "$.a[0].prefix.wildcard: is no operator",
    );
}

#[test]
fn an_operand_has_its_operators_type() {
    refused(
        r#"{"a":[{"prefix":5}]}"#,
        "$.a[0].prefix: must be a string, is a number",
    );
    refused(
        r#"{"a":[{"suffix":null}]}"#,
        "$.a[0].suffix: must be a string, is null",
    );
    refused(
        r#"{"a":[{"wildcard":true}]}"#,
        "$.a[0].wildcard: must be a string, is a boolean",
    );
    refused(
        r#"{"a":[{"equals-ignore-case":["x"]}]}"#,
        "$.a[0].equals-ignore-case: must be a string, is an array",
    );
    refused(
        r#"{"a":[{"prefix":{"equals-ignore-case":1}}]}"#,
        "$.a[0].prefix.equals-ignore-case: must be a string, is a number",
    );
    refused(
        r#"{"a":[{"exists":"true"}]}"#,
        "$.a[0].exists: must be true or false, is a string",
    );
    refused(
        r#"{"a":[{"cidr":10}]}"#,
        "$.a[0].cidr: must be a string, is a number",
    );
    refused(
        r#"{"a":[{"numeric":5}]}"#,
        "$.a[0].numeric: must be an array, is a number",
    );
    refused(
        r#"{"a":[{"anything-but":[]}]}"#,
        "$.a[0].anything-but: is an empty array",
    );
    refused(
        r#"{"a":[{"anything-but":{"prefix":[]}}]}"#,
        "$.a[0].anything-but.prefix: is an empty array",
    );
    refused(
        r#"{"a":[{"anything-but":{"prefix":["x",1]}}]}"#,
        "$.a[0].anything-but.prefix[1]: must be a string, is a number",
    );
    refused(
        r#"{"a":[{"anything-but":[{"prefix":"x"}]}]}"#,
        "$.a[0].anything-but[0]: must be a string, number, true, false or null, is an object",
    );
    refused(
        r#"{"a":[{"anything-but":{}}]}"#,
        "$.a[0].anything-but: must have one operator, has 0",
    );
}

#[test]
fn numeric_is_one_comparison_or_a_range() {
    for (operand, length) in [
        ("[]", 0),
        (r#"["="]"#, 1),
        (r#"[">",1,"<"]"#, 3),
        (r#"[">",1,"<",2,"<",3]"#, 6),
    ] {
        refused(
            &format!(r#"{{"a":[{{"numeric":{operand}}}]}}"#),
            &format!(
                "$.a[0].numeric: must be a comparison and a number, or two of both, has {length} elements"
            ),
        );
    }
    refused(
        r#"{"store":{"price":[1,{"numeric":["==",1]}]}}"#,
        r#"$.store.price[1].numeric[0]: "==" is none of = < <= > >="#,
    );
    refused(
        r#"{"a":[{"numeric":[1,1]}]}"#,
        "$.a[0].numeric[0]: must be a string, is a number",
    );
    refused(
        r#"{"a":[{"numeric":["<","1"]}]}"#,
        "$.a[0].numeric[1]: must be a number, is a string",
    );
    refused(
        r#"{"a":[{"numeric":[">",1,"<",null]}]}"#,
        "$.a[0].numeric[3]: must be a number, is null",
    );
    for operand in [
        r#"["<",1,">",0]"#,
        r#"["=",1,"<",2]"#,
        r#"[">",1,">",2]"#,
        r#"[">",1,"=",2]"#,
    ] {
        refused(
            &format!(r#"{{"a":[{{"numeric":{operand}}}]}}"#),
            "$.a[0].numeric: must be a lower bound and then an upper bound",
        );
    }
    for operand in [
        r#"[">",1,"<",1]"#,
        r#"[">=",1,"<=",1]"#,
        r#"[">",5,"<=",4.5]"#,
    ] {
        refused(
            &format!(r#"{{"a":[{{"numeric":{operand}}}]}}"#),
            "$.a[0].numeric: is an empty range: its lower bound must be less than its upper bound",
        );
    }
}

#[test]
fn cidr_is_a_block_without_bits_behind_its_mask() {
    for text in [
        "10.0.0.0",
        "10.0.0.0/33",
        "10.0.0/8",
        "x/8",
        "10.0.0.0/8/8",
        "10.0.0.0/x",
        "::/129",
        "",
    ] {
        refused(
            &format!(r#"{{"a":[{{"cidr":"{text}"}}]}}"#),
            &format!(
                "$.a[0].cidr: {text:?} is no block of addresses such as 10.0.0.0/24 or 2001:db8::/32"
            ),
        );
    }
    refused(
        r#"{"a":[{"cidr":"10.0.0.1/24"}]}"#,
        r#"$.a[0].cidr: "10.0.0.1/24" has bits behind its mask, the block is "10.0.0.0/24""#,
    );
}

#[test]
fn wildcards_have_no_two_asterisks_in_a_row_and_no_odd_escapes() {
    refused(
        r#"{"a":[{"wildcard":"a**b"}]}"#,
        r#"$.a[0].wildcard: "a**b" has two asterisks in a row"#,
    );
    refused(
        r#"{"a":[{"anything-but":{"wildcard":["x","a\\b"]}}]}"#,
        r#"$.a[0].anything-but.wildcard[1]: "a\\b" has a backslash that is not before an asterisk or a backslash"#,
    );
}

#[test]
fn attributes_are_not_nested() {
    let error = FilterPolicy::parse(
        r#"{"object":{"key":[{"prefix":"auto-"}]}}"#,
        Scope::MessageAttributes,
    )
    .expect_err("nested");
    assert_eq!(
        error.to_string(),
        "$.object: is nested, which MessageAttributes does not allow"
    );
    assert_eq!(error.rule, FilterRule::Nested);
    assert!(
        FilterPolicy::parse(
            r#"{"$or":[{"a":["x"]},{"b":["y"]}]}"#,
            Scope::MessageAttributes
        )
        .is_ok()
    );
}

#[test]
fn the_aws_profile_allows_five_keys() {
    let aws = FilterLimits::aws();
    taken_within(
        r#"{"a":[1],"b":[1],"c":[1],"d":[1],"e":{"f":[1],"g":[1]}}"#,
        &aws,
    );
    refused_within(
        r#"{"a":[1],"b":[1],"c":[1],"d":[1],"e":[1],"f":[1]}"#,
        &aws,
        "$: has 6 keys, may have 5",
    );
}

#[test]
fn the_aws_profile_allows_150_combinations_times_nesting() {
    let aws = FilterLimits::aws();
    refused_within(
        r#"{"key_a":{"key_b":{"key_c":[1,2,3,4]}},"key_d":{"key_e":[1,2,3]},"key_f":[1,2,3]}"#,
        &aws,
        "$: is too complex: has 216 combinations, may have 150",
    );
    taken_within(
        r#"{"key_a":{"key_b":{"key_c":[1,2,3,4]}},"key_d":{"key_e":[1,2,3]},"key_f":[1,2]}"#,
        &aws,
    );
    let list = |length: usize| {
        let values: Vec<_> = (0..length).map(|value| value.to_string()).collect();
        format!(r#"{{"a.b.c":[{}]}}"#, values.join(","))
    };
    taken_within(&list(150), &aws);
    refused_within(
        &list(151),
        &aws,
        "$: is too complex: has 151 combinations, may have 150",
    );
    // Branches of an $or are added: 2 * (50 + 26) = 152.
    let branch = |length: usize| list(length).replace("a.b.c", "k");
    let policy = format!(r#"{{"x":[1,2],"$or":[{},{}]}}"#, branch(50), branch(26));
    refused_within(
        &policy,
        &aws,
        "$: is too complex: has 152 combinations, may have 150",
    );
    let huge = format!(
        r#"{{{}}}"#,
        (0..20)
            .map(|key| format!(r#""k{key}":[{}]"#, "1,".repeat(40) + "1"))
            .collect::<Vec<_>>()
            .join(",")
    );
    taken_within(&huge, &FilterLimits::default());
    let bounded = FilterLimits {
        combinations: Some(10),
        ..FilterLimits::default()
    };
    refused_within(
        &huge,
        &bounded,
        &format!(
            "$: is too complex: has {} combinations, may have 10",
            u64::MAX
        ),
    );
}

#[test]
fn the_aws_profile_bounds_numbers() {
    let aws = FilterLimits::aws();
    taken_within(r#"{"a":[1000000000,-1e9,1.23456,100000e-10]}"#, &aws);
    refused_within(
        r#"{"a":[1000000001]}"#,
        &aws,
        "$.a[0]: 1000000001 is not between -1000000000 and 1000000000",
    );
    refused_within(
        r#"{"a":[{"numeric":["<",-1e10]}]}"#,
        &aws,
        "$.a[0].numeric[1]: -1e10 is not between -1000000000 and 1000000000",
    );
    refused_within(
        r#"{"a":[{"anything-but":[1,0.000001]}]}"#,
        &aws,
        "$.a[0].anything-but[1]: 0.000001 has more than 5 decimals",
    );
    taken_within(r#"{"a":[1e300,0.00000001]}"#, &FilterLimits::default());
}

#[test]
fn the_size_of_a_policy_is_bounded() {
    let policy = |bytes: usize| format!(r#"{{"a":["{}"]}}"#, "x".repeat(bytes - 10));
    taken_within(&policy(262_144), &FilterLimits::aws());
    refused_within(
        &policy(262_145),
        &FilterLimits::aws(),
        "$: has 262145 bytes, may have 262144",
    );
    refused(&policy(1_048_577), "$: has 1048577 bytes, may have 1048576");
}

#[test]
fn rules_depth_and_alternatives_are_bounded() {
    let limits = FilterLimits {
        rules: 3,
        depth: 3,
        alternatives: 4,
        ..FilterLimits::default()
    };
    taken_within(r#"{"a":{"b":{"c":[1]}},"d":[1],"e":[1]}"#, &limits);
    refused_within(
        r#"{"a":[1],"b":[1],"c":[1],"d":[1]}"#,
        &limits,
        "$.d: has more than 3 rules",
    );
    refused_within(
        r#"{"a":{"b":{"c":{"d":[1]}}}}"#,
        &limits,
        "$.a.b.c.d: is 4 names deep, may be 3",
    );
    refused_within(
        r#"{"a":{"b.c.d":[1]}}"#,
        &limits,
        r#"$.a["b.c.d"]: is 4 names deep, may be 3"#,
    );
    let limits = FilterLimits {
        rules: 100,
        ..limits
    };
    let or = |key: &str| format!(r#""$or":[{{"{key}1":[1]}},{{"{key}2":[1]}}]"#);
    taken_within(&format!(r#"{{{},"x":{{{}}}}}"#, or("a"), or("b")), &limits);
    refused_within(
        &format!(r#"{{{},"x":{{{}}},"y":{{{}}}}}"#, or("a"), or("b"), or("c")),
        &limits,
        "$.y.$or: multiplies out to more than 4 alternatives",
    );
}

#[test]
fn many_ors_neither_explode_nor_overflow() {
    // 2^40 alternatives, beside each other and inside each other.
    let beside: Vec<_> = (0..40)
        .map(|key| format!(r#""k{key}":{{"$or":[{{"a":[1]}},{{"b":[1]}}]}}"#))
        .collect();
    refused(
        &format!("{{{}}}", beside.join(",")),
        "$.k10.$or: multiplies out to more than 1024 alternatives",
    );
    let mut inside = r#"{"a":[1]}"#.to_owned();
    for _ in 0..60 {
        inside = format!(r#"{{"$or":[{inside},{{"b":[1]}}]}}"#);
    }
    taken_within(&inside, &FilterLimits::default());
    let deep = format!("{}{}", r#"{"a":["#.repeat(100_000), "]}".repeat(100_000));
    assert!(FilterPolicy::parse(&deep, Scope::MessageBody).is_err());
}
