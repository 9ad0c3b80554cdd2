//! What rules do, as the reference tells it.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use http::header::{HOST, LOCATION, RETRY_AFTER, SET_COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use proptest::prelude::*;
use sim_core::random::Random;

use super::*;
use crate::proxy::action::{Forward, Respond};
use crate::proxy::config::*;

fn keys() -> Arc<Keys> {
    Arc::new(Keys::new(&SecretsConfig::default()).expect("drawn keys"))
}

/// A proxy with one listener, whose groups are `a`, `b` and `c`.
fn proxy(toml: &str) -> ProxyConfig {
    let mut config = crate::proxy::file::parse(toml).expect("a configuration");
    for name in ["a", "b", "c"] {
        config.target_groups.push(TargetGroupConfig {
            name: name.to_owned(),
            ..Default::default()
        });
    }
    config
}

/// The listener with its default action, and the rules.
fn with_rules(rules: &str) -> ProxyConfig {
    proxy(&format!(
        "[[listeners]]\nport = 80\ndefault_actions = [{{ type = \"fixed-response\", status_code = 404 }}]\n{rules}"
    ))
}

fn routes(rules: &str) -> Routes {
    Routes::compile(&with_rules(rules), 0, &keys()).expect("rules")
}

/// One rule with these conditions, which forwards.
fn rule(conditions: &str) -> String {
    format!(
        "[[listeners.rules]]\npriority = 1\nconditions = [{conditions}]\n\
         actions = [{{ type = \"forward\", target_groups = [{{ name = \"a\" }}] }}]\n"
    )
}

fn actions(actions: &str) -> String {
    format!(
        "[[listeners.rules]]\npriority = 1\nconditions = [{{ field = \"path-pattern\", values = [\"*\"] }}]\n\
         actions = [{actions}]\n"
    )
}

fn problem(rules: &str) -> String {
    let config = with_rules(rules);
    Routes::compile(&config, 0, &keys())
        .expect_err("unusable")
        .to_string()
}

/// A request, for short: `GET http://host/path?query`, and headers.
struct Ask {
    method: Method,
    host: String,
    path: String,
    query: Option<String>,
    headers: HeaderMap,
    source: IpAddr,
    now: Instant,
    draw: u64,
}

impl Ask {
    fn new(method: &str, host: &str, target: &str) -> Self {
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (target, None),
        };
        Self {
            method: method.parse().expect("a method"),
            host: host.to_owned(),
            path: path.to_owned(),
            query,
            headers: HeaderMap::new(),
            source: IpAddr::V4(Ipv4Addr::new(10, 1, 2, 3)),
            now: Instant::ORIGIN,
            draw: 0,
        }
    }

    fn header(mut self, name: &str, value: &str) -> Self {
        let name: HeaderName = name.parse().expect("a name");
        self.headers
            .append(name, HeaderValue::from_str(value).expect("a value"));
        self
    }

    fn view(&self) -> View<'_> {
        View {
            method: &self.method,
            protocol: Protocol::Http,
            host: &self.host,
            port: 80,
            path: &self.path,
            query: self.query.as_deref(),
            headers: &self.headers,
            source: self.source,
            now: self.now,
            time: Timestamp::from_unix_seconds(1_700_000_000),
            draw: self.draw,
        }
    }

    fn meets(&self, routes: &Routes) -> Option<u32> {
        let found = routes.find(&self.view()).priority();
        assert_eq!(found, routes.scan(&self.view()).priority());
        found
    }

    fn forward<'r>(&self, routes: &'r Routes) -> Forward<'r> {
        match routes.decide(&self.view()) {
            Decision::Forward(forward) => forward,
            other => panic!("not forwarded: {other:?}"),
        }
    }

    fn answer<'r>(&self, routes: &'r Routes) -> Respond<'r> {
        match routes.decide(&self.view()) {
            Decision::Respond(respond) => respond,
            other => panic!("not answered: {other:?}"),
        }
    }
}

fn get(target: &str) -> Ask {
    Ask::new("GET", "www.example.com", target)
}

#[test]
fn hosts_match_whatever_their_case_and_port() {
    let routes = routes(&rule(
        r#"{ field = "host-header", values = ["*.Example.com"] }"#,
    ));
    for host in ["www.example.com", "WWW.EXAMPLE.COM:8080", "a.b.example.com"] {
        assert_eq!(Ask::new("GET", host, "/").meets(&routes), Some(1), "{host}");
    }
    for host in ["example.com", "www.example.org", "", "www.example.com.evil"] {
        assert_eq!(Ask::new("GET", host, "/").meets(&routes), None, "{host}");
    }
}

#[test]
fn paths_match_by_case_and_without_the_query() {
    let routes = routes(&rule(
        r#"{ field = "path-pattern", values = ["/img/*.png"] }"#,
    ));
    assert_eq!(get("/img/a/b.png?x=1").meets(&routes), Some(1));
    assert_eq!(get("/IMG/a.png").meets(&routes), None);
    assert_eq!(get("/img/a?b=.png").meets(&routes), None);
}

#[test]
fn regular_expressions_match_hosts_paths_and_headers() {
    let routes = routes(&rule(
        r#"{ field = "host-header", regex_values = ["^(www|api)\\."] },
           { field = "path-pattern", regex_values = ["^/v[0-9]+/"] },
           { field = "http-header", name = "user-agent", regex_values = ["chrome"] }"#,
    ));
    let ask = |host, path| Ask::new("GET", host, path).header("user-agent", "X Chrome/1");
    assert_eq!(ask("API.example.com", "/v12/x").meets(&routes), Some(1));
    assert_eq!(ask("ftp.example.com", "/v12/x").meets(&routes), None);
    assert_eq!(ask("api.example.com", "/V1/x").meets(&routes), None);
    assert_eq!(Ask::new("GET", "api.x", "/v1/").meets(&routes), None);
}

#[test]
fn any_line_of_a_header_and_any_value_of_a_condition_will_do() {
    let routes = routes(&rule(
        r#"{ field = "http-header", name = "X-Kind", values = ["beta*", "gamma"] }"#,
    ));
    assert_eq!(
        get("/")
            .header("x-kind", "alpha")
            .header("x-kind", "BETA-2")
            .meets(&routes),
        Some(1)
    );
    assert_eq!(get("/").header("x-kind", "gamma2").meets(&routes), None);
    assert_eq!(get("/").meets(&routes), None);
}

#[test]
fn several_header_conditions_all_have_to_hold() {
    let routes = routes(&rule(
        r#"{ field = "http-header", name = "a", values = ["1"] }, { field = "http-header", name = "b", values = ["2"] }"#,
    ));
    assert_eq!(
        get("/").header("a", "1").header("b", "2").meets(&routes),
        Some(1)
    );
    assert_eq!(get("/").header("a", "1").meets(&routes), None);
}

#[test]
fn methods_match_exactly() {
    let routes = routes(&rule(
        r#"{ field = "http-request-method", values = ["POST", "PURGE"] }"#,
    ));
    assert_eq!(Ask::new("PURGE", "h", "/").meets(&routes), Some(1));
    assert_eq!(Ask::new("post", "h", "/").meets(&routes), None);
    assert_eq!(get("/").meets(&routes), None);
}

#[test]
fn parameters_of_the_query_match_whatever_their_case() {
    let routes = routes(&rule(
        r#"{ field = "query-string", values = [{ key = "version", value = "v1" }, { value = "*example*" }] }"#,
    ));
    for target in [
        "/?VERSION=V1",
        "/?a=b&version=v1",
        "/?q=an-example-1",
        "/?example",
    ] {
        assert_eq!(get(target).meets(&routes), Some(1), "{target}");
    }
    for target in [
        "/",
        "/?version=v2",
        "/?version",
        "/?example=1",
        "/?aversion=v1",
    ] {
        assert_eq!(get(target).meets(&routes), None, "{target}");
    }
}

#[test]
fn sources_match_by_block_in_either_family() {
    let routes = routes(&rule(
        r#"{ field = "source-ip", values = ["10.0.0.0/8", "2001:db8::/32"] }"#,
    ));
    for (source, want) in [
        ("10.255.0.1", Some(1)),
        ("11.0.0.1", None),
        ("::ffff:10.0.0.1", Some(1)),
        ("2001:db8::7", Some(1)),
        ("2001:db9::7", None),
    ] {
        let mut ask = get("/");
        ask.source = source.parse().expect("an address");
        assert_eq!(ask.meets(&routes), want, "{source}");
    }
}

#[test]
fn rules_are_tried_by_priority_and_not_by_place() {
    let rules = [(30, "/a*", "c"), (10, "/ab*", "a"), (20, "/a*", "b")].map(|(priority, path, group)| {
        format!(
            "[[listeners.rules]]\npriority = {priority}\nconditions = [{{ field = \"path-pattern\", values = [\"{path}\"] }}]\n\
             actions = [{{ type = \"forward\", target_groups = [{{ name = \"{group}\" }}] }}]\n"
        )
    });
    let routes = routes(&rules.concat());
    assert_eq!(get("/abc").forward(&routes).group, 0);
    assert_eq!(get("/ac").forward(&routes).group, 1);
    assert_eq!(get("/x").answer(&routes).response.status(), 404);
}

#[test]
fn weights_are_kept_to() {
    let routes = routes(&actions(
        r#"{ type = "forward", target_groups = [{ name = "a", weight = 7 }, { name = "b", weight = 0 }, { name = "c", weight = 3 }] }"#,
    ));
    let mut random = Random::new(1);
    let mut counts = [0_u32; 3];
    for _ in 0..10_000 {
        let mut ask = get("/");
        ask.draw = random.next_u64();
        counts[ask.forward(&routes).group] += 1;
    }
    assert_eq!(counts[1], 0);
    assert!((6_800..7_200).contains(&counts[0]), "{counts:?}");
}

#[test]
fn groups_without_any_weight_get_nothing_and_one_alone_everything() {
    let none = routes(&actions(
        r#"{ type = "forward", target_groups = [{ name = "a", weight = 0 }, { name = "b", weight = 0 }] }"#,
    ));
    assert_eq!(
        get("/").answer(&none).response.status(),
        StatusCode::SERVICE_UNAVAILABLE
    );
    let one = routes(&actions(
        r#"{ type = "forward", target_groups = [{ name = "b", weight = 0 }] }"#,
    ));
    assert_eq!(get("/").forward(&one).group, 1);
}

#[test]
fn a_client_stays_with_its_group() {
    let routes = routes(&actions(
        r#"{ type = "forward", stickiness = { duration = 60 }, target_groups = [{ name = "a", weight = 1 }, { name = "b", weight = 1 }] }"#,
    ));
    let mut random = Random::new(2);
    for _ in 0..20 {
        let mut first = get("/");
        first.draw = random.next_u64();
        let forward = first.forward(&routes);
        let mut response = HeaderMap::new();
        forward.edits.apply_response(&mut response);
        assert_eq!(response.get_all(SET_COOKIE).iter().count(), 2);
        let cookie = response[SET_COOKIE].to_str().expect("text");
        for _ in 0..5 {
            let mut next = get("/").header("cookie", cookie.split(';').next().expect("a pair"));
            next.draw = random.next_u64();
            let again = next.forward(&routes);
            assert_eq!(again.group, forward.group);
            assert!(again.edits.is_empty(), "the cookie is not renewed");
        }
    }
}

#[test]
fn redirects_fill_in_what_the_request_has() {
    for (config, target, want) in [
        (
            r#"protocol = "HTTPS", port = "443""#,
            "/a/b?c=d",
            "https://www.example.com:443/a/b?c=d",
        ),
        (
            r#"host = "new.#{host}", path = "/x/#{path}", query = "p=#{port}&#{query}""#,
            "/a",
            "http://new.www.example.com:80/x/a?p=80&",
        ),
        (
            r##"path = "/fixed", query = """##,
            "/a?b",
            "http://www.example.com:80/fixed",
        ),
    ] {
        let routes = routes(&actions(&format!(
            r#"{{ type = "redirect", status_code = "HTTP_301", {config} }}"#
        )));
        let respond = get(target).answer(&routes);
        assert_eq!(respond.response.status(), 301);
        assert!(respond.is_redirect);
        assert_eq!(respond.response.headers()[LOCATION], want);
    }
}

#[test]
fn a_fixed_response_is_what_it_is_told() {
    let routes = routes(&actions(
        r#"{ type = "fixed-response", status_code = 503, content_type = "application/json", message_body = "{}" }"#,
    ));
    let respond = get("/").answer(&routes);
    assert_eq!(respond.response.status(), 503);
    assert_eq!(
        respond.response.headers()["content-type"],
        "application/json"
    );
    assert_eq!(&respond.response.body()[..], b"{}");
    assert_eq!(respond.taken.to_string(), "fixed-response");
}

#[test]
fn hosts_and_urls_are_rewritten() {
    let routes = routes(
        r#"[[listeners.rules]]
priority = 1
conditions = [{ field = "path-pattern", values = ["*"] }]
transforms = [
  { type = "host-header-rewrite", regex = "^(.*)\\.example\\.com$", replace = "$1.internal" },
  { type = "url-rewrite", regex = "^/api/([^?]*)", replace = "/v2/$1" },
]
actions = [{ type = "forward", target_groups = [{ name = "a" }] }]
"#,
    );
    let edits = get("/api/x?y=1").forward(&routes).edits;
    assert_eq!(edits.host.expect("a host"), "www.internal");
    assert_eq!(edits.path_and_query.expect("a path"), "/v2/x?y=1");
    let edits = Ask::new("GET", "other.org", "/x").forward(&routes).edits;
    assert!(edits.is_empty());
}

#[test]
fn a_rewrite_that_comes_to_no_url_is_an_error() {
    let routes = routes(
        r#"[[listeners.rules]]
priority = 1
conditions = [{ field = "path-pattern", values = ["*"] }]
transforms = [{ type = "url-rewrite", regex = "^/x", replace = "" }]
actions = [{ type = "forward", target_groups = [{ name = "a" }] }]
"#,
    );
    let respond = get("/xyz").answer(&routes);
    assert_eq!(respond.response.status(), 500);
    assert_eq!(
        respond.reason.expect("a reason").as_str(),
        "TransformUnusable"
    );
}

#[test]
fn actions_run_in_their_order() {
    let routes = routes(&actions(
        r#"{ type = "forward", order = 3, target_groups = [{ name = "a" }] },
           { type = "headers", order = 2, request_remove = ["x-secret"], request_set = [{ name = "x-a", value = "2" }], response_set = [{ name = "x-b", value = "3", append = true }] },
           { type = "headers", order = 1, request_set = [{ name = "x-a", value = "1" }] }"#,
    ));
    let forward = get("/").forward(&routes);
    let mut headers = get("/").header("x-secret", "s").header("x-a", "0").headers;
    forward.edits.apply_request(&mut headers);
    assert_eq!(headers["x-a"], "2");
    assert!(!headers.contains_key("x-secret"));
    let mut response = get("/").header("x-b", "0").headers;
    forward.edits.apply_response(&mut response);
    assert_eq!(response.get_all("x-b").iter().count(), 2);
    assert_eq!(forward.taken.to_string(), "headers,forward");
}

#[test]
fn what_comes_too_fast_is_told_when_to_come_again() {
    let routes = routes(&actions(
        r#"{ type = "rate-limit", rate = 1, burst = 2, key = "source-ip" }, { type = "forward", target_groups = [{ name = "a" }] }"#,
    ));
    let mut ask = get("/");
    let at = |ask: &mut Ask, seconds| ask.now = Instant::ORIGIN + Duration::from_secs(seconds);
    at(&mut ask, 10);
    ask.forward(&routes);
    ask.forward(&routes);
    let refused = ask.answer(&routes);
    assert_eq!(refused.response.status(), 429);
    assert_eq!(refused.response.headers()[RETRY_AFTER], "1");
    let mut other = get("/");
    at(&mut other, 10);
    other.source = IpAddr::V4(Ipv4Addr::new(10, 9, 9, 9));
    other.forward(&routes);
    at(&mut ask, 11);
    ask.forward(&routes);
}

#[test]
fn keys_of_a_rate_limit_are_bounded() {
    let routes = routes(&actions(
        r#"{ type = "rate-limit", rate = 1, burst = 1, key = { header = "x-user" }, max_keys = 2 }, { type = "forward", target_groups = [{ name = "a" }] }"#,
    ));
    let ask = |user: &str, seconds| {
        let mut ask = get("/").header("x-user", user);
        ask.now = Instant::ORIGIN + Duration::from_secs(seconds);
        matches!(routes.decide(&ask.view()), Decision::Forward(_))
    };
    assert!(ask("a", 10) && ask("b", 10));
    assert!(ask("c", 10), "the common bucket");
    assert!(!ask("d", 10), "is empty now");
    assert!(ask("e", 20), "those that are full have made room");
    assert!(!ask("e", 20));
}

#[test]
fn faults_strike_their_share() {
    let routes = routes(&actions(
        r#"{ type = "fault", delay_percent = 50.0, delay = "2s", abort_percent = 25.0, abort_status = 418 }, { type = "forward", target_groups = [{ name = "a" }] }"#,
    ));
    let mut random = Random::new(3);
    let (mut delayed, mut aborted) = (0, 0);
    for _ in 0..4_000 {
        let mut ask = get("/");
        ask.draw = random.next_u64();
        let delay = match routes.decide(&ask.view()) {
            Decision::Forward(forward) => forward.delay,
            Decision::Respond(respond) => {
                assert_eq!(respond.response.status(), 418);
                aborted += 1;
                respond.delay
            }
            Decision::Pending(_) => panic!("nothing waits"),
        };
        delayed += u32::from(delay == Some(Duration::from_secs(2)));
    }
    assert!((1_850..2_150).contains(&delayed), "{delayed}");
    assert!((880..1_120).contains(&aborted), "{aborted}");
}

#[test]
fn other_origins_are_let_in_by_name() {
    let routes = routes(&actions(
        r#"{ type = "cors", allow_origins = ["https://*.example.com"], allow_methods = ["PUT"], allow_headers = ["x-a"], expose_headers = ["x-b"], allow_credentials = true, max_age = 60 },
           { type = "forward", target_groups = [{ name = "a" }] }"#,
    ));
    let forward = get("/")
        .header("origin", "https://app.example.com")
        .forward(&routes);
    let mut response = HeaderMap::new();
    forward.edits.apply_response(&mut response);
    assert_eq!(
        response["access-control-allow-origin"],
        "https://app.example.com"
    );
    assert_eq!(response["access-control-expose-headers"], "x-b");
    assert_eq!(response["vary"], "Origin");
    let preflight = |origin| {
        Ask::new("OPTIONS", "h", "/")
            .header("origin", origin)
            .header("access-control-request-method", "PUT")
    };
    let good = preflight("https://app.example.com")
        .answer(&routes)
        .response;
    assert_eq!(good.status(), 204);
    assert_eq!(good.headers()["access-control-allow-methods"], "PUT");
    assert_eq!(good.headers()["access-control-max-age"], "60");
    let bad = preflight("https://example.com.evil")
        .answer(&routes)
        .response;
    assert!(!bad.headers().contains_key("access-control-allow-origin"));
}

#[test]
fn copies_go_to_the_mirror() {
    let routes = routes(&actions(
        r#"{ type = "mirror", target_group = "b" }, { type = "mirror", target_group = "c", percent = 0.0 }, { type = "forward", target_groups = [{ name = "a" }] }"#,
    ));
    let forward = get("/").forward(&routes);
    assert_eq!(
        forward
            .mirrors
            .iter()
            .map(|mirror| mirror.group)
            .collect::<Vec<_>>(),
        [1]
    );
}

#[test]
fn errors_name_the_field_the_value_and_the_limit() {
    let path = r#"{ field = "path-pattern", values = ["/a"] }"#;
    let forward = r#"{ type = "forward", target_groups = [{ name = "a" }] }"#;
    let cases = [
        (rule(""), "listeners[0].rules[0].conditions: missing"),
        (
            rule(&format!("{path}, {path}")),
            "listeners[0].rules[0].conditions[1]: a rule has at most one condition",
        ),
        (
            rule(r#"{ field = "path-pattern" }"#),
            "listeners[0].rules[0].conditions[0].values: missing",
        ),
        (
            rule(&format!(
                r#"{{ field = "path-pattern", values = ["{}"] }}"#,
                "a".repeat(1_025)
            )),
            "listeners[0].rules[0].conditions[0].values[0]: 1025 characters, at most 1024",
        ),
        (
            rule(r#"{ field = "path-pattern", regex_values = ["("] }"#),
            "conditions[0].regex_values[0]: \"(\" is not a regular",
        ),
        (
            rule(r#"{ field = "http-header", name = "a b", values = ["x"] }"#),
            "conditions[0].name: \"a b\" is not a header's name",
        ),
        (
            rule(r#"{ field = "http-header", name = "Host", values = ["x"] }"#),
            "is matched by host-header",
        ),
        (
            rule(r#"{ field = "http-request-method", values = ["GE*"] }"#),
            "conditions[0].values[0]: \"GE*\" has '*'",
        ),
        (
            rule(r#"{ field = "host-header", values = ["a/b"] }"#),
            "\"a/b\" has '/'",
        ),
        (
            rule(path).replace("priority = 1", "priority = 0"),
            "listeners[0].rules[0].priority: 0, but 1 to 50000",
        ),
        (
            format!("{}{}", rule(path), rule(path)),
            "listeners[0].rules[1].priority: \"1\" is also that of listeners[0].rules[0]",
        ),
        (actions(""), "listeners[0].rules[0].actions: missing"),
        (
            actions(&format!("{forward}, {forward}")),
            "listeners[0].rules[0].actions[0]: exactly one action forwards or answers",
        ),
        (
            actions(r#"{ type = "headers" }"#),
            "listeners[0].rules[0].actions[0]: exactly one action",
        ),
        (
            actions(r#"{ type = "forward", target_groups = [{ name = "x" }] }"#),
            "actions[0].target_groups[0].name: there is no target group \"x\"",
        ),
        (
            actions(r#"{ type = "forward", target_groups = [{ name = "a", weight = 1000 }] }"#),
            "target_groups[0].weight: 1000, but 0 to 999",
        ),
        (
            actions(r#"{ type = "forward", target_groups = [{ name = "a" }, { name = "a" }] }"#),
            "is also that of target_groups[0]",
        ),
        (
            actions(r#"{ type = "redirect" }"#),
            "actions[0]: protocol, host, port and path stay the same",
        ),
        (
            actions(r#"{ type = "redirect", port = "80" }"#),
            "stay the same",
        ),
        (
            actions(r#"{ type = "redirect", port = "0" }"#),
            "actions[0].port: \"0\" is neither",
        ),
        (
            actions(r#"{ type = "redirect", path = "x" }"#),
            "does not begin with a slash",
        ),
        (
            actions(r##"{ type = "redirect", path = "/#{nope}" }"##),
            "has #{nope}, but only #{host}, #{path}, #{port} stand there",
        ),
        (
            actions(r##"{ type = "redirect", host = "#{host" }"##),
            "not closed",
        ),
        (
            actions(r#"{ type = "redirect", host = "x", status_code = "HTTP_307" }"#),
            "neither HTTP_301 nor HTTP_302",
        ),
        (
            actions(r#"{ type = "fixed-response", status_code = 301 }"#),
            "\"301\" is not 2xx, 4xx or 5xx",
        ),
        (
            actions(r#"{ type = "fixed-response", content_type = "image/png" }"#),
            "actions[0].content_type: \"image/png\"",
        ),
        (
            actions(&format!(r#"{{ type = "headers", order = 1 }}, {forward}"#)),
            "either all actions have an order or none",
        ),
        (
            actions(&format!(
                r#"{{ type = "headers", request_remove = ["Host"] }}, {forward}"#
            )),
            "request_remove[0]: \"Host\" frames messages",
        ),
        (
            actions(&format!(
                r#"{{ type = "cors", allow_origins = ["*"], allow_credentials = true }}, {forward}"#
            )),
            "name the origins",
        ),
        (
            actions(&format!(
                r#"{{ type = "fault", abort_percent = 101.0 }}, {forward}"#
            )),
            "abort_percent: 101, but 0 to 100",
        ),
    ];
    for (rules, want) in cases {
        let told = problem(&rules);
        assert!(told.contains(want), "{told}\n  instead of\n{want}");
    }
}

#[test]
fn the_services_quotas_hold_in_its_profile() {
    let aws = |rules: &str| {
        let mut config = with_rules(rules);
        config.quotas = Quotas::aws();
        Routes::compile(&config, 0, &keys())
            .expect_err("too much")
            .to_string()
    };
    let cases = [
        (
            rule(r#"{ field = "path-pattern", values = ["/a", "/b", "/c", "/d"] }"#),
            "conditions[0].values: 4 values, at most 3",
        ),
        (
            rule(
                r#"{ field = "path-pattern", values = ["/a", "/b", "/c"] }, { field = "host-header", values = ["a.b", "b.c", "c.d"] }"#,
            ),
            "conditions: 6 values, at most 5",
        ),
        (
            rule(r#"{ field = "path-pattern", values = ["/*?*?*?*"] }"#),
            "conditions: 7 wildcards, at most 6",
        ),
        (
            rule(r#"{ field = "host-header", values = ["localhost"] }"#),
            "has no dot",
        ),
        (
            actions(&format!(
                r#"{{ type = "fixed-response", message_body = "{}" }}"#,
                "x".repeat(1_025)
            )),
            "message_body: 1025 bytes, at most 1024",
        ),
        (
            actions(
                r#"{ type = "forward", target_groups = [{ name = "a" }], stickiness = { duration = "8d" } }"#,
            ),
            "stickiness.duration: 8d, but 1s to 7d",
        ),
    ];
    for (rules, want) in cases {
        let told = aws(&rules);
        assert!(told.contains(want), "{told}\n  instead of\n{want}");
    }
    let mut config = with_rules(&rule(
        r#"{ field = "path-pattern", values = ["/a", "/b", "/c", "/d"] }"#,
    ));
    config.quotas = Quotas::aws();
    config.quotas.condition_values = Some(4);
    assert!(
        Routes::compile(&config, 0, &keys()).is_ok(),
        "quotas can be raised"
    );
}

#[test]
fn listeners_without_requests_only_forward() {
    let mut config = proxy(
        "[[listeners]]\nport = 80\nprotocol = \"TCP\"\n\
         default_actions = [{ type = \"forward\", target_groups = [{ name = \"a\", weight = 1 }, { name = \"b\", weight = 1 }] }]\n",
    );
    let error = config
        .check()
        .expect_err("targets that speak HTTP")
        .to_string();
    assert!(
        error.contains("default_actions[0].target_groups[0].name: the targets of \"a\" speak HTTP"),
        "{error}"
    );
    for group in &mut config.target_groups {
        group.protocol = Protocol::Tcp;
    }
    let plan = config.plan(&keys()).expect("a plan");
    let routes = &plan.listeners[0].routes;
    assert_eq!(plan.listeners[0].name, "TCP:80");
    assert_eq!(routes.default_group(0), Some(0));
    assert_eq!(routes.default_group(u64::MAX), Some(1));
    config.listeners[0].default_actions =
        vec![ActionConfig::FixedResponse(FixedResponseConfig::default())];
    assert!(
        config
            .check()
            .expect_err("answers")
            .to_string()
            .contains("TCP only forwards")
    );
}

#[test]
fn what_cannot_be_carried_is_refused_by_name() {
    for protocol in [Protocol::Quic, Protocol::TcpQuic, Protocol::Geneve] {
        let mut config = with_rules("");
        config.listeners[0].protocol = protocol;
        let error = config.check().expect_err("unsupported").to_string();
        assert!(
            error.starts_with(&format!(
                "listeners[0].protocol: {protocol} is not supported: "
            )),
            "{error}"
        );
    }
}

#[test]
fn a_configuration_comes_back_from_its_serialized_form() {
    let text = include_str!("../../../examples/balance.toml");
    let config = crate::proxy::file::parse(text).expect("the example");
    let json = serde_json::to_string(&config).expect("serialized");
    assert_eq!(
        serde_json::from_str::<ProxyConfig>(&json).expect("read back"),
        config
    );
}

/// Rules of few letters, so that many of them match.
fn some_rules() -> impl Strategy<Value = Vec<RuleConfig>> {
    let host = prop_oneof![
        Just("a.x"),
        Just("b.x"),
        Just("*.x"),
        Just("a.?"),
        Just("A.X")
    ];
    let path = prop_oneof![
        Just("/"),
        Just("/s"),
        Just("/s/*"),
        Just("/s*"),
        Just("/t/u"),
        Just("/t/*"),
        Just("*u"),
        Just("/?/*"),
        Just("//*"),
    ];
    let pick = |one: BoxedStrategy<&'static str>| {
        proptest::option::of(proptest::collection::vec(one.prop_map(str::to_owned), 1..3))
    };
    let rule = (pick(host.boxed()), pick(path.boxed()), any::<bool>());
    proptest::collection::vec(rule, 0..40).prop_map(|rules| {
        let rules = rules
            .into_iter()
            .enumerate()
            .map(|(index, (hosts, paths, post))| {
                let mut conditions = Vec::new();
                let matching = |values| ValueMatch {
                    values,
                    ..Default::default()
                };
                conditions.extend(hosts.map(|hosts| ConditionConfig::HostHeader(matching(hosts))));
                conditions.extend(paths.map(|paths| ConditionConfig::PathPattern(matching(paths))));
                if post || conditions.is_empty() {
                    let values = vec!["POST".to_owned()];
                    conditions.push(ConditionConfig::HttpRequestMethod(MethodMatch { values }));
                }
                RuleConfig {
                    // Neither sorted nor dense.
                    priority: (index as u32 * 7_919) % 50_000 + 1,
                    conditions,
                    actions: vec![ActionConfig::Forward(ForwardConfig::to("a"))],
                    ..Default::default()
                }
            });
        rules.collect()
    })
}

proptest! {
    #[test]
    fn the_index_finds_what_a_scan_finds(
        rules in some_rules(),
        asks in proptest::collection::vec(("[abAB]\\.[xXy](:80)?", "(/[stu]?){0,3}", any::<bool>()), 1..20),
    ) {
        let mut config = with_rules("");
        config.listeners[0].rules = rules;
        let routes = Routes::compile(&config, 0, &keys()).expect("rules");
        for (host, path, post) in asks {
            let ask = Ask::new(if post { "POST" } else { "GET" }, &host, &path);
            let view = ask.view();
            prop_assert_eq!(routes.find(&view).priority(), routes.scan(&view).priority());
        }
    }

    #[test]
    fn no_request_makes_it_panic(host in ".{0,20}", path in ".{0,40}", query in ".{0,40}", draw in any::<u64>()) {
        let config = crate::proxy::file::parse(include_str!("../../../examples/balance.toml")).expect("the example");
        let routes = Routes::compile(&config, 0, &keys()).expect("rules");
        for path in [path.clone(), format!("/api/{path}"), format!("/report/{path}")] {
            let mut ask = Ask::new("GET", &host, "/");
            ask.path = path;
            ask.query = Some(query.clone());
            ask.draw = draw;
            ask.headers.insert(HOST, HeaderValue::from_static("x"));
            let _ = routes.decide(&ask.view());
        }
    }
}
