//! Log-ins at an identity provider: `authenticate-oidc` and `authenticate-cognito`.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, LOCATION, SET_COOKIE};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sim_core::sync::Arc;

use super::jwt::{check_endpoint, check_listener, is_or_holds};
use super::session::{self, Session};
use super::{CALLBACK, Checked, FetchError, Keeper};
use crate::proxy::action::{Edits, HeaderEdit, Reason, plain};
use crate::proxy::config::{
    At, ClientAuthentication, CognitoConfig, OidcConfig, OnUnauthenticated, Problem,
    ProxyConfigError, is_token,
};
use crate::proxy::cookie::{Keys, find, line, unwrap, wrap};
use crate::proxy::rule::{Scope, View};

/// The cookie of a log-in under way, and how long it may take: ALB's.
const NONCE_COOKIE: &str = "AWSALBAuthNonce";
const LOGIN_TIME: Duration = Duration::from_secs(900);

/// The longest path and query that a client is sent back to, in bytes; with a longer one it comes back to `/`.
const LONGEST_BACK: usize = 2_048;

/// How long signed claims hold: ALB's.
const CLAIMS_TIME: i64 = 120;

/// The most parameters added to the log-in address: AWS's.
const EXTRA: usize = 10;

/// What stands in a query as it is (RFC 3986, unreserved).
const QUERY: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

const TOKEN: HeaderName = HeaderName::from_static("x-amzn-oidc-accesstoken");
const IDENTITY: HeaderName = HeaderName::from_static("x-amzn-oidc-identity");
const DATA: HeaderName = HeaderName::from_static("x-amzn-oidc-data");

/// Has clients log in.
pub(crate) struct Login {
    /// Seals apart what belongs to different providers and clients.
    context: String,
    oidc: OidcConfig,
    secret: String,
    /// Attributes of its cookies.
    attributes: &'static str,
    keys: Arc<Keys>,
}

/// A log-in under way.
#[derive(Serialize, Deserialize)]
struct Begun {
    #[serde(rename = "l")]
    context: String,
    #[serde(rename = "s")]
    state: String,
    #[serde(rename = "n")]
    nonce: String,
    #[serde(rename = "b")]
    back: String,
}

/// What a token endpoint answers.
#[derive(Deserialize)]
struct Tokens {
    access_token: String,
    #[serde(default)]
    id_token: Option<String>,
    #[serde(default)]
    refresh_token: Option<String>,
    #[serde(default)]
    expires_in: Option<f64>,
}

/// Why a log-in came to nothing.
struct Failed(StatusCode, Reason);

const fn failed<T>(status: StatusCode, reason: &'static str) -> Result<T, Failed> {
    Err(Failed(status, Reason::new(reason)))
}

impl Login {
    pub(crate) fn compile(
        config: &OidcConfig,
        scope: Scope<'_>,
        at: At<'_>,
    ) -> Result<Self, ProxyConfigError> {
        check_listener(scope, at)?;
        let profile = scope.config.quotas.profile;
        for (field, text) in [
            ("authorization_endpoint", &config.authorization_endpoint),
            ("token_endpoint", &config.token_endpoint),
            ("user_info_endpoint", &config.user_info_endpoint),
        ] {
            check_endpoint(text, profile, at.field(field))?;
        }
        if config.issuer.is_empty() {
            return at
                .field("issuer")
                .fail(Problem::Missing("the issuer that tokens name"));
        }
        if config.client_id.is_empty() {
            return at
                .field("client_id")
                .fail(Problem::Missing("this proxy's id at the provider"));
        }
        let secret = match (&config.client_secret_file, config.client_secret.as_str()) {
            (Some(path), "") => {
                let text = std::fs::read_to_string(path).or_else(|error| {
                    let at = at.field("client_secret_file");
                    at.invalid(
                        &path.display().to_string(),
                        format!("cannot be read: {error}"),
                    )
                });
                text?.trim().to_owned()
            }
            (None, "") => {
                return at
                    .field("client_secret")
                    .fail(Problem::Missing("the client's secret"));
            }
            (None, secret) => secret.to_owned(),
            (Some(_), _) => {
                return at
                    .field("client_secret_file")
                    .fail(Problem::Conflict("client_secret is given too".to_owned()));
            }
        };
        if !is_token(&config.session_cookie_name) {
            return at
                .field("session_cookie_name")
                .invalid(&config.session_cookie_name, "is not a cookie's name");
        }
        at.field("session_cookie_name").at_most(
            "characters",
            config.session_cookie_name.len(),
            200,
        )?;
        at.field("session_timeout")
            .span(config.session_timeout, profile.span(1, 604_800))?;
        if !config.scope.split(' ').any(|word| word == "openid") {
            return at
                .field("scope")
                .invalid(&config.scope, "does not hold openid");
        }
        at.field("extra_params")
            .at_most("parameters", config.extra_params.len(), EXTRA)?;
        let own = [
            "response_type",
            "client_id",
            "redirect_uri",
            "scope",
            "state",
            "nonce",
        ];
        if let Some(name) = config
            .extra_params
            .keys()
            .find(|name| own.contains(&name.as_str()))
        {
            return at
                .field("extra_params")
                .invalid(name, "is set by the flow itself");
        }
        let is_secure = scope.listener.protocol.is_secure();
        Ok(Self {
            context: format!("login {} {}", config.issuer, config.client_id),
            secret,
            oidc: config.clone(),
            attributes: if is_secure {
                "; Secure; HttpOnly; SameSite=Lax"
            } else {
                "; HttpOnly; SameSite=Lax"
            },
            keys: Arc::clone(scope.keys),
        })
    }

    /// A user pool is a provider whose addresses follow from its names.
    pub(crate) fn compile_cognito(
        config: &CognitoConfig,
        scope: Scope<'_>,
        at: At<'_>,
    ) -> Result<Self, ProxyConfigError> {
        let pool = config.user_pool_arn.strip_prefix("arn:").and_then(|rest| {
            let mut parts = rest.split(':');
            let (_, service) = (parts.next()?, parts.next()?);
            let (region, _) = (parts.next()?, parts.next()?);
            let id = parts.next()?.strip_prefix("userpool/")?;
            let is_name = |text: &str| {
                !text.is_empty()
                    && text
                        .chars()
                        .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
            };
            (service == "cognito-idp" && is_name(region) && is_name(id)).then_some((region, id))
        });
        let Some((region, id)) = pool else {
            return at.field("user_pool_arn").invalid(
                &config.user_pool_arn,
                "is not arn:aws:cognito-idp:REGION:ACCOUNT:userpool/ID",
            );
        };
        let domain = &config.user_pool_domain;
        let is_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
        if domain.is_empty() || !domain.chars().all(is_host) {
            return at
                .field("user_pool_domain")
                .invalid(domain, "is neither a prefix nor a host");
        }
        let host = match domain.contains('.') {
            true => domain.clone(),
            false => format!("{domain}.auth.{region}.amazoncognito.com"),
        };
        let oidc = OidcConfig {
            order: config.order,
            issuer: format!("https://cognito-idp.{region}.amazonaws.com/{id}"),
            authorization_endpoint: format!("https://{host}/oauth2/authorize"),
            token_endpoint: format!("https://{host}/oauth2/token"),
            user_info_endpoint: format!("https://{host}/oauth2/userInfo"),
            client_id: config.user_pool_client_id.clone(),
            client_secret: config.user_pool_client_secret.clone(),
            client_secret_file: None,
            client_authentication: ClientAuthentication::Basic,
            session_cookie_name: config.session_cookie_name.clone(),
            session_timeout: config.session_timeout,
            scope: config.scope.clone(),
            extra_params: config.extra_params.clone(),
            on_unauthenticated_request: config.on_unauthenticated_request,
        };
        Self::compile(&oidc, scope, at)
    }

    /// Lets a client with a session pass; treats others as it is asked to.
    pub(crate) async fn check(&self, view: &View<'_>, keeper: &Keeper) -> Checked {
        let name = &self.oidc.session_cookie_name;
        let session = session::read(&self.keys, &self.context, name, view.headers, view.time);
        if let Some(session) = session {
            let is_over = view.time.as_unix_millis() >= session.access_until;
            if !is_over || session.refresh_token.is_none() {
                return self.pass(&session, Vec::new(), view);
            }
            if let Ok((session, lines)) = self.refresh(&session, view, keeper).await {
                return self.pass(&session, lines, view);
            }
        }
        match self.oidc.on_unauthenticated_request {
            OnUnauthenticated::Allow => Checked::Pass(strip()),
            OnUnauthenticated::Deny => Checked::Answer(plain(StatusCode::UNAUTHORIZED), None),
            OnUnauthenticated::Authenticate => match self.begin(view) {
                Ok(response) => Checked::Answer(response, None),
                Err(Failed(status, reason)) => Checked::Answer(plain(status), Some(reason)),
            },
        }
    }

    /// Ends a log-in: the client comes back with a code.
    pub(crate) async fn call_back<'l>(
        logins: impl Iterator<Item = &'l Self>,
        view: &View<'_>,
        keeper: &Keeper,
    ) -> Checked {
        match Self::try_call_back(logins, view, keeper).await {
            Ok(response) => Checked::Answer(response, None),
            Err(Failed(status, reason)) => Checked::Answer(plain(status), Some(reason)),
        }
    }

    async fn try_call_back<'l>(
        logins: impl Iterator<Item = &'l Self>,
        view: &View<'_>,
        keeper: &Keeper,
    ) -> Result<Response<Bytes>, Failed> {
        let unauthorized = StatusCode::UNAUTHORIZED;
        let query = parse_form(view.query.unwrap_or_default());
        let Some(state) = query.get("state") else {
            return failed(unauthorized, "AuthMissingStateParam");
        };
        let Some(cookie) = find(view.headers, NONCE_COOKIE) else {
            return failed(unauthorized, "AuthInvalidCookie");
        };
        let mut logins = logins;
        let begun = logins.find_map(|login| {
            let begun = unwrap(&login.keys, "nonce", cookie, view.time)?;
            let begun: Begun = serde_json::from_slice(&begun).ok()?;
            (begun.context == login.context).then_some((login, begun))
        });
        let Some((login, begun)) = begun else {
            return failed(unauthorized, "AuthInvalidCookie");
        };
        // Digests, so that how long it takes tells nothing of how much is right.
        let digest = |text: &str| ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
        if digest(&begun.state).as_ref() != digest(state).as_ref() {
            return failed(unauthorized, "AuthInvalidStateParam");
        }
        if query.contains_key("error") {
            // 561 is ALB's: the provider answered with an error.
            let status = StatusCode::from_u16(561).unwrap_or(StatusCode::BAD_GATEWAY);
            return failed(status, "AuthInvalidGrantError");
        }
        let Some(code) = query.get("code") else {
            return failed(unauthorized, "AuthMissingCodeParam");
        };
        let redirect = login.callback(view)?;
        let form = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", &redirect),
        ];
        let tokens = login.exchange(&form, keeper).await?;
        let subject = login.check_identity(&tokens, &begun.nonce, view)?;
        let claims = login.user_info(&tokens.access_token, keeper).await?;
        if claims.get("sub").and_then(Value::as_str) != Some(&subject) {
            return failed(
                StatusCode::INTERNAL_SERVER_ERROR,
                "AuthInvalidUserinfoResponse",
            );
        }
        let now = view.time.as_unix_millis();
        let timeout = i64::try_from(login.oidc.session_timeout.as_millis()).unwrap_or(i64::MAX);
        let session = Session {
            subject,
            claims,
            access_until: login.expiry(&tokens, view),
            access_token: tokens.access_token,
            refresh_token: tokens.refresh_token,
            until: now.saturating_add(timeout),
        };
        let lines = login.lines(&session, view)?;
        let base = redirect.strip_suffix(CALLBACK).unwrap_or_default();
        let mut response = redirect_to(&format!("{base}{}", begun.back))?;
        let gone = line(
            NONCE_COOKIE,
            "",
            view.time,
            Duration::ZERO,
            login.attributes,
        );
        for line in lines.into_iter().chain(gone) {
            response.headers_mut().append(SET_COOKIE, line);
        }
        Ok(response)
    }

    /// Sends a client to log in.
    fn begin(&self, view: &View<'_>) -> Result<Response<Bytes>, Failed> {
        let server = StatusCode::INTERNAL_SERVER_ERROR;
        let (Some(state), Some(nonce)) = (self.keys.draw(), self.keys.draw()) else {
            return failed(server, "AuthUnhandledException");
        };
        let back = match view.query {
            Some(query) => format!("{}?{query}", view.path),
            None => view.path.to_owned(),
        };
        let back = if back.len() <= LONGEST_BACK && back.starts_with('/') {
            back
        } else {
            "/".to_owned()
        };
        let redirect = self.callback(view)?;
        let mut parameters = vec![
            ("response_type", "code"),
            ("client_id", &self.oidc.client_id),
            ("redirect_uri", &redirect),
            ("scope", &self.oidc.scope),
            ("state", &state),
            ("nonce", &nonce),
        ];
        let extra = self.oidc.extra_params.iter();
        parameters.extend(extra.map(|(name, value)| (name.as_str(), value.as_str())));
        let endpoint = &self.oidc.authorization_endpoint;
        let separator = if endpoint.contains('?') { '&' } else { '?' };
        let mut response =
            redirect_to(&format!("{endpoint}{separator}{}", write_form(&parameters)))?;
        let begun = Begun {
            context: self.context.clone(),
            state,
            nonce,
            back,
        };
        let begun = serde_json::to_vec(&begun).ok();
        let token =
            begun.and_then(|begun| wrap(&self.keys, "nonce", &begun, view.time, LOGIN_TIME));
        let cookie = token
            .and_then(|token| line(NONCE_COOKIE, &token, view.time, LOGIN_TIME, self.attributes));
        match cookie {
            Some(cookie) => _ = response.headers_mut().append(SET_COOKIE, cookie),
            None => return failed(server, "AuthUnhandledException"),
        }
        Ok(response)
    }

    /// Where this client comes back to.
    fn callback(&self, view: &View<'_>) -> Result<String, Failed> {
        if view.host.is_empty() {
            return failed(StatusCode::BAD_REQUEST, "AuthMissingHostHeader");
        }
        Ok(format!("{}://{}{CALLBACK}", view.scheme(), view.host))
    }

    async fn refresh(
        &self,
        session: &Session,
        view: &View<'_>,
        keeper: &Keeper,
    ) -> Result<(Session, Vec<HeaderValue>), Failed> {
        let token = session.refresh_token.as_deref().unwrap_or_default();
        let tokens = self
            .exchange(
                &[("grant_type", "refresh_token"), ("refresh_token", token)],
                keeper,
            )
            .await?;
        let claims = self.user_info(&tokens.access_token, keeper).await?;
        if claims.get("sub").and_then(Value::as_str) != Some(&session.subject) {
            return failed(
                StatusCode::INTERNAL_SERVER_ERROR,
                "AuthInvalidUserinfoResponse",
            );
        }
        let session = Session {
            subject: session.subject.clone(),
            claims,
            access_until: self.expiry(&tokens, view),
            access_token: tokens.access_token,
            refresh_token: tokens
                .refresh_token
                .or_else(|| session.refresh_token.clone()),
            until: session.until,
        };
        let lines = self.lines(&session, view)?;
        Ok((session, lines))
    }

    fn lines(&self, session: &Session, view: &View<'_>) -> Result<Vec<HeaderValue>, Failed> {
        let name = &self.oidc.session_cookie_name;
        session::lines(
            &self.keys,
            &self.context,
            name,
            session,
            view.time,
            self.attributes,
        )
        .or_else(|_| {
            failed(
                StatusCode::INTERNAL_SERVER_ERROR,
                "AuthUserinfoResponseSizeExceeded",
            )
        })
    }

    fn expiry(&self, tokens: &Tokens, view: &View<'_>) -> i64 {
        match tokens.expires_in {
            Some(seconds) => view
                .time
                .as_unix_millis()
                .saturating_add((seconds * 1_000.0) as i64),
            None => i64::MAX,
        }
    }

    async fn exchange(&self, form: &[(&str, &str)], keeper: &Keeper) -> Result<Tokens, Failed> {
        let mut form = form.to_vec();
        let mut request = Request::new(Bytes::new());
        let (id, secret) = (self.oidc.client_id.as_str(), self.secret.as_str());
        match self.oidc.client_authentication {
            ClientAuthentication::Post => {
                form.extend([("client_id", id), ("client_secret", secret)])
            }
            ClientAuthentication::Basic => {
                // Both are written as in forms first (RFC 6749, section 2.3.1).
                let pair = format!(
                    "{}:{}",
                    utf8_percent_encode(id, QUERY),
                    utf8_percent_encode(secret, QUERY)
                );
                let value = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(pair)));
                let value = value.or_else(|_| {
                    failed(StatusCode::INTERNAL_SERVER_ERROR, "AuthUnhandledException")
                })?;
                request.headers_mut().insert(AUTHORIZATION, value);
            }
        }
        *request.method_mut() = Method::POST;
        let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
        request.headers_mut().insert(CONTENT_TYPE, kind);
        *request.body_mut() = Bytes::from(write_form(&form));
        let response = self.ask(&self.oidc.token_endpoint, request, keeper).await;
        let response = response.or_else(|error| match error {
            FetchError::Timeout => failed(StatusCode::GATEWAY_TIMEOUT, "AuthTokenEpRequestTimeout"),
            _ => failed(
                StatusCode::INTERNAL_SERVER_ERROR,
                "AuthTokenEpRequestFailed",
            ),
        })?;
        if response.status() != StatusCode::OK {
            let status = StatusCode::from_u16(561).unwrap_or(StatusCode::BAD_GATEWAY);
            return failed(status, "AuthInvalidGrantError");
        }
        serde_json::from_slice(response.body()).or_else(|_| {
            failed(
                StatusCode::INTERNAL_SERVER_ERROR,
                "AuthInvalidTokenResponse",
            )
        })
    }

    async fn user_info(&self, token: &str, keeper: &Keeper) -> Result<Map<String, Value>, Failed> {
        let server = StatusCode::INTERNAL_SERVER_ERROR;
        let Ok(value) = HeaderValue::from_str(&format!("Bearer {token}")) else {
            return failed(server, "AuthInvalidTokenResponse");
        };
        let mut request = Request::new(Bytes::new());
        request.headers_mut().insert(AUTHORIZATION, value);
        let response = self
            .ask(&self.oidc.user_info_endpoint, request, keeper)
            .await;
        let response = response.or_else(|error| match error {
            FetchError::Timeout => {
                failed(StatusCode::GATEWAY_TIMEOUT, "AuthUserinfoEpRequestTimeout")
            }
            FetchError::TooLarge { .. } => failed(server, "AuthUserinfoResponseSizeExceeded"),
            FetchError::Failed(_) => failed(server, "AuthUserinfoEpRequestFailed"),
        })?;
        if response.status() != StatusCode::OK {
            return failed(server, "AuthUserinfoEpRequestFailed");
        }
        serde_json::from_slice(response.body())
            .or_else(|_| failed(server, "AuthInvalidUserinfoResponse"))
    }

    async fn ask(
        &self,
        endpoint: &str,
        mut request: Request<Bytes>,
        keeper: &Keeper,
    ) -> Result<Response<Bytes>, FetchError> {
        *request.uri_mut() = endpoint
            .parse()
            .map_err(|_| FetchError::Failed(format!("{endpoint} is not an address")))?;
        request
            .headers_mut()
            .insert(ACCEPT, HeaderValue::from_static("application/json"));
        keeper.fetch.handle(request).await
    }

    /// The subject of an identity token that is this log-in's.
    fn check_identity(
        &self,
        tokens: &Tokens,
        nonce: &str,
        view: &View<'_>,
    ) -> Result<String, Failed> {
        let claims = tokens.id_token.as_deref().and_then(|token| {
            let mut parts = token.split('.');
            let (_, payload, _) = (parts.next()?, parts.next()?, parts.next()?);
            let payload = URL_SAFE_NO_PAD.decode(payload).ok()?;
            serde_json::from_slice::<Map<String, Value>>(&payload).ok()
        });
        let unfit = || failed(StatusCode::INTERNAL_SERVER_ERROR, "AuthInvalidIdToken");
        let Some(claims) = claims else {
            return unfit();
        };
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        let audience = claims.get("aud");
        let expires = claims
            .get("exp")
            .and_then(Value::as_f64)
            .unwrap_or_default();
        let fits = text("iss") == Some(&self.oidc.issuer)
            && audience.is_some_and(|audience| is_or_holds(audience, &[&self.oidc.client_id]))
            && expires > view.time.as_unix_millis() as f64 / 1_000.0
            && text("nonce") == Some(nonce);
        match text("sub") {
            Some(subject) if fits => Ok(subject.to_owned()),
            _ => unfit(),
        }
    }

    /// Tells the target who the client is.
    fn pass(&self, session: &Session, lines: Vec<HeaderValue>, view: &View<'_>) -> Checked {
        let mut edits = strip();
        let told = [
            (TOKEN, Some(session.access_token.clone())),
            (IDENTITY, Some(session.subject.clone())),
            (DATA, self.signed(session, view)),
        ];
        for (name, value) in told {
            match value.and_then(|value| HeaderValue::from_str(&value).ok()) {
                Some(value) => edits.request.push(HeaderEdit::Set(name, value)),
                None => {
                    let reason = Reason::new("AuthUnhandledException");
                    return Checked::Answer(plain(StatusCode::INTERNAL_SERVER_ERROR), Some(reason));
                }
            }
        }
        edits.set_cookies(lines);
        Checked::Pass(edits)
    }

    /// The claims as a signed token.
    fn signed(&self, session: &Session, view: &View<'_>) -> Option<String> {
        let expires = view.time.as_unix_seconds().saturating_add(CLAIMS_TIME);
        let header = json!({
            "typ": "JWT",
            "alg": "ES256",
            "kid": self.keys.signer_id(),
            "signer": self.keys.signer_id(),
            "iss": self.oidc.issuer,
            "client": self.oidc.client_id,
            "exp": expires,
        });
        let mut claims = session.claims.clone();
        claims.insert("exp".to_owned(), Value::from(expires));
        claims.insert("iss".to_owned(), Value::from(self.oidc.issuer.as_str()));
        let part = |value: &[u8]| URL_SAFE_NO_PAD.encode(value);
        let header = serde_json::to_vec(&header).ok()?;
        let claims = serde_json::to_vec(&claims).ok()?;
        let message = format!("{}.{}", part(&header), part(&claims));
        let signature = self.keys.sign(message.as_bytes())?;
        Some(format!("{message}.{}", part(&signature)))
    }
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login")
            .field("oidc", &self.oidc)
            .finish_non_exhaustive()
    }
}

/// Removes what a client may have sent under the names that only the proxy tells.
fn strip() -> Edits {
    Edits {
        request: [TOKEN, IDENTITY, DATA].map(HeaderEdit::Remove).into(),
        ..Edits::default()
    }
}

fn redirect_to(location: &str) -> Result<Response<Bytes>, Failed> {
    let Ok(location) = HeaderValue::from_str(location) else {
        return failed(StatusCode::BAD_REQUEST, "AuthUnhandledException");
    };
    let mut response = plain(StatusCode::FOUND);
    response.headers_mut().insert(LOCATION, location);
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

fn write_form(pairs: &[(&str, &str)]) -> String {
    let pairs = pairs.iter().map(|(name, value)| {
        format!(
            "{}={}",
            utf8_percent_encode(name, QUERY),
            utf8_percent_encode(value, QUERY)
        )
    });
    pairs.collect::<Vec<_>>().join("&")
}

/// The parameters of a query; the first of each name, and what is not text with replacement characters.
fn parse_form(query: &str) -> BTreeMap<String, String> {
    let mut form = BTreeMap::new();
    for pair in query.split('&').take(100) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let decode = |text: &str| {
            let text = text.replace('+', " ");
            percent_decode_str(&text).decode_utf8_lossy().into_owned()
        };
        form.entry(decode(name)).or_insert_with(|| decode(value));
    }
    form
}
