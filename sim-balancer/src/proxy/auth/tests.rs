//! Log-ins and tokens, with a provider that is a function.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::FutureExt as _;
use http::header::{AUTHORIZATION, COOKIE, LOCATION, SET_COOKIE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde_json::{Value, json};
use sim_core::time::Timestamp;

use super::*;
use crate::proxy::action::{Decision, Forward, Respond};
use crate::proxy::config::*;
use crate::proxy::cookie::Keys;
use crate::proxy::rule::{Routes, View};

const START: Timestamp = Timestamp::from_unix_seconds(1_300_000_000);

/// Answers in the order in which they are given, and remembers what was asked.
#[derive(Clone, Default)]
struct Web(Arc<Mutex<(Answers, Vec<Request<Bytes>>)>>);

type Answers = VecDeque<Result<(u16, Value), FetchError>>;

impl Web {
    fn will(&self, status: u16, body: Value) {
        self.0.lock().0.push_back(Ok((status, body)));
    }

    fn will_fail(&self, error: FetchError) {
        self.0.lock().0.push_back(Err(error));
    }

    fn asked(&self) -> Vec<Request<Bytes>> {
        std::mem::take(&mut self.0.lock().1)
    }

    fn fetch(&self) -> Box<Fetch> {
        let web = self.clone();
        Box::new(move |request: Request<Bytes>| {
            let mut state = web.0.lock();
            state.1.push(request);
            let answer = state
                .0
                .pop_front()
                .unwrap_or(Err(FetchError::Failed("nobody there".to_owned())));
            let answer = answer.map(|(status, body)| {
                let mut response = Response::new(Bytes::from(body.to_string()));
                *response.status_mut() = StatusCode::from_u16(status).expect("a status");
                response
            });
            async move { answer }
        })
    }
}

/// A listener with one rule, its provider, and a clock.
struct World {
    routes: Routes,
    keeper: Keeper,
    web: Web,
    clock: Clock,
    time: sim_core::clock::VirtualClock,
    keys: Arc<Keys>,
}

impl World {
    fn new(action: ActionConfig) -> Self {
        let config = ProxyConfig {
            listeners: vec![ListenerConfig {
                port: 443,
                default_actions: vec![action, ActionConfig::Forward(ForwardConfig::to("a"))],
                ..Default::default()
            }],
            target_groups: vec![TargetGroupConfig {
                name: "a".to_owned(),
                ..Default::default()
            }],
            ..Default::default()
        };
        let keys = Arc::new(Keys::new(&SecretsConfig::default()).expect("drawn keys"));
        let (clock, time) = Clock::virtual_at(START);
        let web = Web::default();
        Self {
            routes: Routes::compile(&config, 0, &keys).expect("rules"),
            keeper: Keeper::new(clock.clone(), web.fetch()),
            web,
            clock,
            time,
            keys,
        }
    }

    fn ask(&self, target: &str, headers: &HeaderMap) -> Decision<'_> {
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        let now = self.clock.now();
        let view = View {
            method: &Method::GET,
            protocol: Protocol::Https,
            host: "app.example.com",
            port: 443,
            path,
            query,
            headers,
            source: IpAddr::V4(Ipv4Addr::LOCALHOST),
            now,
            time: self.clock.timestamp(now),
            draw: 0,
        };
        match self.routes.decide(&view) {
            Decision::Pending(pending) => {
                let resolved = self.routes.resolve(pending, &view, &self.keeper);
                resolved.now_or_never().expect("nothing waits")
            }
            decision => decision,
        }
    }

    fn answer(&self, target: &str, headers: &HeaderMap) -> Respond<'_> {
        match self.ask(target, headers) {
            Decision::Respond(respond) => respond,
            other => panic!("not answered: {other:?}"),
        }
    }

    fn forward(&self, headers: &HeaderMap) -> Forward<'_> {
        match self.ask("/", headers) {
            Decision::Forward(forward) => forward,
            other => panic!("not forwarded: {other:?}"),
        }
    }

    /// The reason why a token is refused, if it is.
    fn refuses(&self, token: &str) -> Option<&'static str> {
        match self.ask("/", &bearer(token)) {
            Decision::Respond(respond) => Some(respond.reason.expect("a reason").as_str()),
            Decision::Forward(_) => None,
            Decision::Pending(_) => panic!("nothing waits"),
        }
    }
}

fn bearer(token: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(
        AUTHORIZATION,
        HeaderValue::from_str(&format!("Bearer {token}")).expect("a value"),
    );
    headers
}

/// The key of RFC 7515, appendix A.2, and its token, which expires at 1,300,819,380.
const RFC_KEY: &str = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";
const RFC_TOKEN: &str = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";

fn rfc_keys() -> Value {
    json!({"keys": [{"kty": "RSA", "n": RFC_KEY, "e": "AQAB", "alg": "RS256", "use": "sig"}]})
}

fn jwt() -> JwtConfig {
    JwtConfig {
        jwks_endpoint: "https://issuer.example.com/keys".to_owned(),
        issuer: "joe".to_owned(),
        ..Default::default()
    }
}

/// Signs claims by ES256 with the keys' own key.
fn signed(keys: &Keys, header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(header), part(claims));
    let signature = keys.sign(message.as_bytes()).expect("signed");
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn own_keys(keys: &Keys, id: &str) -> Value {
    let point = &keys.public_key()[1..];
    let (x, y) = point.split_at(32);
    json!({"keys": [{
        "kty": "EC", "crv": "P-256", "kid": id,
        "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
    }]})
}

#[test]
fn a_token_of_the_standard_passes_until_it_expires() {
    let world = World::new(ActionConfig::JwtValidation(jwt()));
    world.web.will(200, rfc_keys());
    let forward = world.forward(&bearer(RFC_TOKEN));
    assert_eq!(forward.taken.to_string(), "jwt-validation,forward");
    assert_eq!(
        world.web.asked()[0].uri(),
        "https://issuer.example.com/keys"
    );
    let changed = RFC_TOKEN.replace(".cC4h", ".cC4i");
    assert_eq!(
        world.refuses(&changed),
        Some("JWTSignatureValidationFailed")
    );
    assert!(world.web.asked().is_empty(), "the keys are kept");
    world.time.advance(Duration::from_secs(819_379));
    world.web.will(200, rfc_keys());
    assert_eq!(world.refuses(RFC_TOKEN), None);
    world.time.advance(Duration::from_secs(1));
    assert_eq!(world.refuses(RFC_TOKEN), Some("JWTExpired"));
}

#[test]
fn tokens_that_are_none_are_refused() {
    let world = World::new(ActionConfig::JwtValidation(jwt()));
    let respond = world.answer("/", &HeaderMap::new());
    assert_eq!(respond.response.status(), 401);
    assert_eq!(respond.response.headers()[WWW_AUTHENTICATE], "Bearer");
    assert_eq!(
        respond.reason.expect("a reason").as_str(),
        "JWTHeaderNotPresent"
    );
    for token in ["", "x", "a.b.c", "e30.e30.", &"x".repeat(12_000)] {
        assert_eq!(
            world.refuses(token),
            Some("JWTRequestFormatInvalid"),
            "{token}"
        );
    }
    let mut twice = bearer(RFC_TOKEN);
    twice.append(AUTHORIZATION, HeaderValue::from_static("Bearer x"));
    let reason = world.answer("/", &twice).reason.expect("a reason");
    assert_eq!(reason.as_str(), "JWTRequestFormatInvalid");
    let mut basic = HeaderMap::new();
    basic.insert(AUTHORIZATION, HeaderValue::from_static("Basic eDp5"));
    assert_eq!(
        world.answer("/", &basic).reason.expect("a reason").as_str(),
        "JWTRequestFormatInvalid"
    );
    assert!(
        world.web.asked().is_empty(),
        "nobody asks for keys with such"
    );
}

#[test]
fn signatures_that_are_not_asked_for_are_refused() {
    let world = World::new(ActionConfig::JwtValidation(jwt()));
    let claims = json!({"iss": "joe", "exp": 1_300_000_100});
    let token = signed(&world.keys, &json!({"alg": "ES256"}), &claims);
    assert_eq!(world.refuses(&token), Some("JWTAlgorithmNotAllowed"));
    let shared = signed(&world.keys, &json!({"alg": "HS256"}), &claims);
    assert_eq!(world.refuses(&shared), Some("JWTAlgorithmNotAllowed"));
    let none = signed(&world.keys, &json!({"alg": "none"}), &claims);
    assert_eq!(world.refuses(&none), Some("JWTRequestFormatInvalid"));
}

#[test]
fn a_key_does_for_its_own_kind_of_signature_only() {
    let world = World::new(ActionConfig::JwtValidation(JwtConfig {
        algorithms: vec!["ES256".to_owned(), "RS256".to_owned()],
        ..jwt()
    }));
    world.web.will(200, own_keys(&world.keys, "k"));
    let confused = RFC_TOKEN.to_owned();
    assert_eq!(
        world.refuses(&confused),
        Some("JWTSignatureValidationFailed")
    );
}

#[test]
fn claims_have_to_be_as_they_are_asked_for() {
    let claim = |name: &str, format, values: &[&str]| ClaimConfig {
        name: name.to_owned(),
        format,
        values: values.iter().map(|value| (*value).to_owned()).collect(),
    };
    let world = World::new(ActionConfig::JwtValidation(JwtConfig {
        algorithms: vec!["ES256".to_owned()],
        audiences: vec!["api".to_owned()],
        additional_claims: vec![
            claim("team", ClaimFormat::SingleString, &["red", "blue"]),
            claim("roles", ClaimFormat::StringArray, &["admin"]),
            claim("scope", ClaimFormat::SpaceSeparatedValues, &["write"]),
        ],
        leeway: Duration::from_secs(5),
        ..jwt()
    }));
    world.web.will(200, own_keys(&world.keys, "k"));
    let good = json!({
        "iss": "joe", "exp": 1_300_000_010, "nbf": 1_300_000_004, "aud": ["x", "api"],
        "team": "blue", "roles": ["user", "admin"], "scope": "read write",
    });
    let token = |changes: Value| {
        let mut claims = good.clone();
        for (name, value) in changes.as_object().expect("an object") {
            match value {
                Value::Null => _ = claims.as_object_mut().expect("an object").remove(name),
                value => claims[name] = value.clone(),
            }
        }
        signed(&world.keys, &json!({"alg": "ES256", "kid": "k"}), &claims)
    };
    assert_eq!(world.refuses(&token(json!({}))), None);
    for (changes, want) in [
        (json!({"iss": "jim"}), "JWTClaimValueInvalid"),
        (json!({"iss": null}), "JWTClaimNotPresent"),
        (json!({"exp": null}), "JWTClaimNotPresent"),
        (json!({"exp": "soon"}), "JWTClaimFormatInvalid"),
        (json!({"exp": 1_299_999_995}), "JWTExpired"),
        (json!({"nbf": 1_300_000_006}), "JWTNotYetValid"),
        (json!({"iat": 1_300_000_006}), "JWTNotYetValid"),
        (json!({"aud": "x"}), "JWTClaimValueInvalid"),
        (json!({"team": "green"}), "JWTClaimValueInvalid"),
        (json!({"team": ["blue"]}), "JWTClaimFormatInvalid"),
        (json!({"roles": ["user"]}), "JWTClaimValueInvalid"),
        (json!({"roles": "admin"}), "JWTClaimFormatInvalid"),
        (json!({"scope": "read writer"}), "JWTClaimValueInvalid"),
        (json!({"scope": null}), "JWTClaimNotPresent"),
    ] {
        assert_eq!(
            world.refuses(&token(changes.clone())),
            Some(want),
            "{changes}"
        );
    }
}

#[test]
fn an_unknown_key_has_the_set_fetched_but_not_each_time() {
    let world = World::new(ActionConfig::JwtValidation(JwtConfig {
        algorithms: vec!["ES256".to_owned()],
        ..jwt()
    }));
    let claims = json!({"iss": "joe", "exp": 1_400_000_000});
    let token = signed(&world.keys, &json!({"alg": "ES256", "kid": "new"}), &claims);
    world.web.will(200, own_keys(&world.keys, "old"));
    for _ in 0..3 {
        assert_eq!(world.refuses(&token), Some("JWTSignatureValidationFailed"));
    }
    assert_eq!(world.web.asked().len(), 1);
    world.time.advance(Duration::from_secs(30));
    world.web.will(200, own_keys(&world.keys, "new"));
    assert_eq!(world.refuses(&token), None);
    assert_eq!(world.web.asked().len(), 1);
}

#[test]
fn keys_are_used_while_their_endpoint_is_down_but_not_for_ever() {
    let world = World::new(ActionConfig::JwtValidation(JwtConfig {
        algorithms: vec!["ES256".to_owned()],
        ..jwt()
    }));
    let claims = json!({"iss": "joe", "exp": 1_400_000_000});
    let token = signed(&world.keys, &json!({"alg": "ES256", "kid": "k"}), &claims);
    world.web.will_fail(FetchError::Timeout);
    assert_eq!(world.answer("/", &bearer(&token)).response.status(), 500);
    assert_eq!(
        world.refuses(&token),
        Some("JWKSRequestTimeout"),
        "without asking again at once"
    );
    assert_eq!(world.web.asked().len(), 1);
    world.time.advance(Duration::from_secs(1));
    world.web.will(200, own_keys(&world.keys, "k"));
    assert_eq!(world.refuses(&token), None);
    world.time.advance(Duration::from_secs(3_599));
    assert_eq!(
        world.refuses(&token),
        None,
        "the endpoint is down, the keys are still good"
    );
    assert_eq!(world.web.asked().len(), 2);
    world.time.advance(Duration::from_secs(1));
    assert_eq!(world.refuses(&token), Some("JWKSRequestFailed"));
}

#[test]
fn failures_are_tried_again_less_and_less_often() {
    let world = World::new(ActionConfig::JwtValidation(jwt()));
    let mut asked_at = Vec::new();
    for second in 0..200 {
        assert_eq!(world.refuses(RFC_TOKEN), Some("JWKSRequestFailed"));
        if !world.web.asked().is_empty() {
            asked_at.push(second);
        }
        world.time.advance(Duration::from_secs(1));
    }
    assert_eq!(asked_at, [0, 1, 3, 7, 15, 31, 63, 123, 183]);
}

#[test]
fn one_request_fetches_for_all_and_another_takes_over_when_it_goes() {
    let (clock, time) = Clock::virtual_at(START);
    let keys = Keys::new(&SecretsConfig::default()).expect("drawn keys");
    let (count, gate) = (
        Arc::new(Mutex::new(0)),
        Arc::new(sim_core::event::Event::new()),
    );
    let open = Arc::new(Mutex::new(false));
    let fetch = {
        let (count, open, clock) = (Arc::clone(&count), Arc::clone(&open), clock.clone());
        let (body, gate) = (own_keys(&keys, "k").to_string(), Arc::clone(&gate));
        move |_: Request<Bytes>| {
            *count.lock() += 1;
            let (open, gate, clock, body) = (
                Arc::clone(&open),
                Arc::clone(&gate),
                clock.clone(),
                body.clone(),
            );
            async move {
                let attempt = || {
                    let is_open = *open.lock();
                    match is_open {
                        true => sim_core::wait::Attempt::Done {
                            value: (),
                            more: true,
                        },
                        false => sim_core::wait::Attempt::Pending {
                            wake_at: sim_core::time::Instant::NEVER,
                        },
                    }
                };
                let never = sim_core::time::Instant::NEVER;
                let _ = sim_core::wait::until(&gate, &clock, never, attempt).await;
                Ok(Response::new(Bytes::from(body)))
            }
        }
    };
    let fetch: Box<Fetch> = Box::new(fetch);
    let source = super::jwks::Source::new("https://issuer.example.com/keys");
    let mut first = Box::pin(source.keys(None, &clock, &*fetch));
    let mut second = Box::pin(source.keys(None, &clock, &*fetch));
    let mut third = Box::pin(source.keys(None, &clock, &*fetch));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(first.as_mut().poll(&mut context).is_pending());
    assert!(second.as_mut().poll(&mut context).is_pending());
    assert!(third.as_mut().poll(&mut context).is_pending());
    assert_eq!(*count.lock(), 1);
    drop(first);
    assert!(second.as_mut().poll(&mut context).is_pending());
    assert!(third.as_mut().poll(&mut context).is_pending());
    assert_eq!(*count.lock(), 2);
    *open.lock() = true;
    gate.notify_all();
    assert!(second.as_mut().poll(&mut context).is_ready());
    assert!(third.as_mut().poll(&mut context).is_ready());
    assert_eq!(*count.lock(), 2);
    drop(time);
}

fn oidc() -> OidcConfig {
    OidcConfig {
        issuer: "https://id.example.com".to_owned(),
        authorization_endpoint: "https://id.example.com/authorize?tenant=1".to_owned(),
        token_endpoint: "https://id.example.com/token".to_owned(),
        user_info_endpoint: "https://id.example.com/userinfo".to_owned(),
        client_id: "me&you".to_owned(),
        client_secret: "s3cret".to_owned(),
        session_timeout: Duration::from_secs(3_600),
        ..Default::default()
    }
}

/// What a browser holds.
#[derive(Default)]
struct Browser(std::collections::BTreeMap<String, String>);

impl Browser {
    fn take(&mut self, response: &HeaderMap) {
        for line in response.get_all(SET_COOKIE) {
            let pair = line
                .to_str()
                .expect("text")
                .split(';')
                .next()
                .expect("a pair");
            let (name, value) = pair.split_once('=').expect("a pair");
            self.0.insert(name.to_owned(), value.to_owned());
        }
    }

    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.0 {
            headers.append(
                COOKIE,
                HeaderValue::from_str(&format!("{name}={value}")).expect("a value"),
            );
        }
        headers
    }
}

fn parameter(url: &str, name: &str) -> String {
    let query = url.split_once('?').expect("a query").1;
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let value = pairs
        .into_iter()
        .find(|(key, _)| *key == name)
        .expect(name)
        .1;
    percent_encoding::percent_decode_str(value)
        .decode_utf8()
        .expect("text")
        .into_owned()
}

/// Tokens and claims that a provider gives.
fn provide(world: &World, nonce: &str, expires_in: u64) {
    let id = signed(
        &world.keys,
        &json!({"alg": "none"}),
        &json!({
            "iss": "https://id.example.com", "aud": "me&you", "exp": 1_300_000_300, "sub": "ada", "nonce": nonce,
        }),
    );
    world.web.will(
        200,
        json!({"access_token": "at1", "token_type": "Bearer", "expires_in": expires_in, "refresh_token": "rt1", "id_token": id}),
    );
    world
        .web
        .will(200, json!({"sub": "ada", "email": "ada@example.com"}));
}

/// Goes through a log-in.
fn log_in(world: &World, browser: &mut Browser) -> Response<Bytes> {
    let sent = world.answer("/page?x=1", &browser.headers());
    assert_eq!(sent.response.status(), 302);
    let location = sent.response.headers()[LOCATION]
        .to_str()
        .expect("text")
        .to_owned();
    browser.take(sent.response.headers());
    assert!(location.starts_with(
        "https://id.example.com/authorize?tenant=1&response_type=code&client_id=me%26you&"
    ));
    assert_eq!(
        parameter(&location, "redirect_uri"),
        "https://app.example.com/oauth2/idpresponse"
    );
    provide(world, &parameter(&location, "nonce"), 60);
    let state = parameter(&location, "state");
    let back = world.answer(
        &format!("/oauth2/idpresponse?code=c0de&state={state}"),
        &browser.headers(),
    );
    browser.take(back.response.headers());
    back.response
}

#[test]
fn a_client_logs_in_and_the_target_is_told_who_it_is() {
    let world = World::new(ActionConfig::AuthenticateOidc(oidc()));
    let mut browser = Browser::default();
    let back = log_in(&world, &mut browser);
    assert_eq!(back.status(), 302);
    assert_eq!(back.headers()[LOCATION], "https://app.example.com/page?x=1");
    let asked = world.web.asked();
    assert_eq!(asked[0].uri(), "https://id.example.com/token");
    let form = std::str::from_utf8(asked[0].body()).expect("text");
    assert_eq!(
        form,
        "grant_type=authorization_code&code=c0de&redirect_uri=https%3A%2F%2Fapp.example.com%2Foauth2%2Fidpresponse\
         &client_id=me%26you&client_secret=s3cret"
    );
    assert_eq!(asked[1].headers()[AUTHORIZATION], "Bearer at1");

    let mut headers = browser.headers();
    headers.insert("x-amzn-oidc-identity", HeaderValue::from_static("eve"));
    let forward = world.forward(&headers);
    assert_eq!(forward.taken.to_string(), "authenticate,forward");
    forward.edits.apply_request(&mut headers);
    assert_eq!(headers["x-amzn-oidc-identity"], "ada");
    assert_eq!(headers["x-amzn-oidc-accesstoken"], "at1");
    let data = headers["x-amzn-oidc-data"].to_str().expect("text");
    let (message, signature) = data.rsplit_once('.').expect("a token");
    let signature = URL_SAFE_NO_PAD.decode(signature).expect("base64");
    let public = ring::signature::UnparsedPublicKey::new(
        &ring::signature::ECDSA_P256_SHA256_FIXED,
        world.keys.public_key(),
    );
    assert!(public.verify(message.as_bytes(), &signature).is_ok());
    let claims = URL_SAFE_NO_PAD
        .decode(message.split_once('.').expect("claims").1)
        .expect("base64");
    let claims: Value = serde_json::from_slice(&claims).expect("claims");
    assert_eq!(claims["email"], "ada@example.com");
    assert_eq!(claims["exp"], 1_300_000_120);
    assert!(world.web.asked().is_empty(), "a session needs no provider");
}

#[test]
fn a_session_is_refreshed_and_ends() {
    let world = World::new(ActionConfig::AuthenticateOidc(oidc()));
    let mut browser = Browser::default();
    log_in(&world, &mut browser);
    world.web.asked();
    world.time.advance(Duration::from_secs(60));
    world
        .web
        .will(200, json!({"access_token": "at2", "expires_in": 10_000}));
    world
        .web
        .will(200, json!({"sub": "ada", "email": "new@example.com"}));
    let forward = world.forward(&browser.headers());
    let asked = world.web.asked();
    let form = std::str::from_utf8(asked[0].body()).expect("text");
    assert!(form.starts_with("grant_type=refresh_token&refresh_token=rt1&"));
    let mut response = HeaderMap::new();
    forward.edits.apply_response(&mut response);
    browser.take(&response);
    let mut headers = HeaderMap::new();
    world
        .forward(&browser.headers())
        .edits
        .apply_request(&mut headers);
    assert_eq!(headers["x-amzn-oidc-accesstoken"], "at2");
    world.time.advance(Duration::from_secs(3_540));
    assert_eq!(
        world.answer("/", &browser.headers()).response.status(),
        302,
        "the session is over"
    );
}

#[test]
fn a_refresh_that_fails_ends_the_session() {
    let world = World::new(ActionConfig::AuthenticateOidc(oidc()));
    let mut browser = Browser::default();
    log_in(&world, &mut browser);
    world.time.advance(Duration::from_secs(60));
    world.web.will(400, json!({"error": "invalid_grant"}));
    assert_eq!(world.answer("/", &browser.headers()).response.status(), 302);
}

#[test]
fn clients_without_a_session_are_denied_or_let_through_as_asked() {
    let deny = World::new(ActionConfig::AuthenticateOidc(OidcConfig {
        on_unauthenticated_request: OnUnauthenticated::Deny,
        ..oidc()
    }));
    assert_eq!(deny.answer("/", &HeaderMap::new()).response.status(), 401);
    let allow = World::new(ActionConfig::AuthenticateOidc(OidcConfig {
        on_unauthenticated_request: OnUnauthenticated::Allow,
        ..oidc()
    }));
    let mut headers = HeaderMap::new();
    headers.insert("x-amzn-oidc-identity", HeaderValue::from_static("eve"));
    allow
        .forward(&headers.clone())
        .edits
        .apply_request(&mut headers);
    assert!(headers.is_empty(), "nobody says by itself who it is");
}

#[test]
fn a_log_in_that_was_not_begun_here_is_refused() {
    let world = World::new(ActionConfig::AuthenticateOidc(oidc()));
    let reason = |target: &str, browser: &Browser| {
        let respond = world.answer(target, &browser.headers());
        (
            respond.response.status().as_u16(),
            respond.reason.expect("a reason").as_str(),
        )
    };
    let mut browser = Browser::default();
    assert_eq!(
        reason("/oauth2/idpresponse", &browser),
        (401, "AuthMissingStateParam")
    );
    assert_eq!(
        reason("/oauth2/idpresponse?state=x&code=y", &browser),
        (401, "AuthInvalidCookie")
    );
    let sent = world.answer("/", &browser.headers());
    let location = sent.response.headers()[LOCATION]
        .to_str()
        .expect("text")
        .to_owned();
    browser.take(sent.response.headers());
    assert_eq!(
        reason("/oauth2/idpresponse?state=x&code=y", &browser),
        (401, "AuthInvalidStateParam")
    );
    let state = parameter(&location, "state");
    assert_eq!(
        reason(&format!("/oauth2/idpresponse?state={state}"), &browser),
        (401, "AuthMissingCodeParam")
    );
    let denied = format!("/oauth2/idpresponse?state={state}&error=access_denied");
    assert_eq!(reason(&denied, &browser), (561, "AuthInvalidGrantError"));
    assert!(world.web.asked().is_empty());
    let target = format!("/oauth2/idpresponse?state={state}&code=y");
    provide(&world, "another nonce", 60);
    assert_eq!(reason(&target, &browser), (500, "AuthInvalidIdToken"));
    world.web.will_fail(FetchError::Timeout);
    world.web.0.lock().0.rotate_right(1);
    assert_eq!(
        reason(&target, &browser),
        (504, "AuthTokenEpRequestTimeout")
    );
    world.time.advance(Duration::from_secs(900));
    assert_eq!(
        reason(&target, &browser),
        (401, "AuthInvalidCookie"),
        "it took too long"
    );
}

#[test]
fn a_user_pool_is_a_provider() {
    let world = World::new(ActionConfig::AuthenticateCognito(CognitoConfig {
        user_pool_arn: "arn:aws:cognito-idp:eu-west-1:123456789012:userpool/eu-west-1_Ab"
            .to_owned(),
        user_pool_client_id: "c".to_owned(),
        user_pool_client_secret: "s".to_owned(),
        user_pool_domain: "mine".to_owned(),
        ..Default::default()
    }));
    let sent = world.answer("/", &HeaderMap::new());
    let location = sent.response.headers()[LOCATION].to_str().expect("text");
    assert!(location.starts_with(
        "https://mine.auth.eu-west-1.amazoncognito.com/oauth2/authorize?response_type=code"
    ));
}

#[test]
fn settings_that_cannot_be_used_are_named() {
    let compile = |action: ActionConfig, quotas: Quotas| {
        let config = ProxyConfig {
            listeners: vec![ListenerConfig {
                port: 80,
                default_actions: vec![action, ActionConfig::Forward(ForwardConfig::to("a"))],
                ..Default::default()
            }],
            target_groups: vec![TargetGroupConfig {
                name: "a".to_owned(),
                ..Default::default()
            }],
            quotas,
            ..Default::default()
        };
        let keys = Arc::new(Keys::new(&SecretsConfig::default()).expect("drawn keys"));
        Routes::compile(&config, 0, &keys)
            .expect_err("unusable")
            .to_string()
    };
    let open = |action| compile(action, Quotas::default());
    let at = "listeners[0].default_actions[0]";
    for (config, want) in [
        (
            JwtConfig {
                issuer: String::new(),
                ..jwt()
            },
            format!("{at}.issuer: missing"),
        ),
        (
            JwtConfig {
                jwks_endpoint: "ftp://x/".to_owned(),
                ..jwt()
            },
            format!("{at}.jwks_endpoint: \"ftp://x/\""),
        ),
        (
            JwtConfig {
                algorithms: vec!["HS256".to_owned()],
                ..jwt()
            },
            format!("{at}.algorithms[0]: \"HS256\" is not one of"),
        ),
        (
            JwtConfig {
                additional_claims: vec![ClaimConfig {
                    name: "exp".to_owned(),
                    ..Default::default()
                }],
                ..jwt()
            },
            format!("{at}.additional_claims[0].name: \"exp\""),
        ),
    ] {
        let told = open(ActionConfig::JwtValidation(config));
        assert!(told.starts_with(&want), "{told}");
    }
    for (config, want) in [
        (
            OidcConfig {
                client_secret: String::new(),
                ..oidc()
            },
            format!("{at}.client_secret: missing"),
        ),
        (
            OidcConfig {
                scope: "email".to_owned(),
                ..oidc()
            },
            format!("{at}.scope: \"email\" does not hold openid"),
        ),
        (
            OidcConfig {
                session_cookie_name: "a b".to_owned(),
                ..oidc()
            },
            format!("{at}.session_cookie_name: \"a b\""),
        ),
    ] {
        let told = open(ActionConfig::AuthenticateOidc(config));
        assert!(told.starts_with(&want), "{told}");
    }
    let told = open(ActionConfig::AuthenticateCognito(CognitoConfig::default()));
    assert!(
        told.starts_with(&format!("{at}.user_pool_arn: \"\" is not arn:")),
        "{told}"
    );
    let told = compile(ActionConfig::JwtValidation(jwt()), Quotas::aws());
    assert!(
        told.contains("clients are authenticated on HTTPS, and this is HTTP"),
        "{told}"
    );
}
