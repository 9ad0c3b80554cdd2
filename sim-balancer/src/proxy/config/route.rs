//! Rules: conditions, transforms, actions.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::span;

/// What happens to requests that fulfil all of some conditions.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RuleConfig {
    /// Its name, as logs report it. Default: none.
    pub name: Option<String>,
    /// Lower ones are tried first: 1 to 50,000, each once in a listener.
    pub priority: u32,
    /// What a request has to fulfil: at least one condition, and at most one each of host, path, method and source.
    pub conditions: Vec<ConditionConfig>,
    /// What is rewritten before the request is forwarded; at most two, one of a kind.
    pub transforms: Vec<TransformConfig>,
    /// What happens, by ascending order; the last one, and only it, answers or forwards.
    pub actions: Vec<ActionConfig>,
}

/// What a request has to fulfil. Several values of one condition are alternatives.
///
/// In wildcard patterns `*` stands for any number of characters and `?` for one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "field", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ConditionConfig {
    /// The host, without port, whatever the case.
    HostHeader(ValueMatch),
    /// The path, without query, by case, and as the client sent it.
    ///
    /// Nothing is decoded or resolved before: `/%61dmin`, `//admin` and `/x/../admin` are not met by `/admin*`, though a
    /// target may take them for `/admin`. So a rule that protects paths is the wrong way round: protect all of a host by
    /// default, and let rules open the paths that are public.
    PathPattern(ValueMatch),
    /// The value of a header, whatever the case.
    HttpHeader(HeaderMatch),
    /// The method, by case and without wildcards.
    HttpRequestMethod(MethodMatch),
    /// A parameter of the query, whatever the case.
    QueryString(QueryMatch),
    /// The client's address.
    SourceIp(SourceMatch),
}

/// Patterns for a host or a path: either wildcards or regular expressions.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ValueMatch {
    /// Patterns with wildcards; each up to 128 characters.
    pub values: Vec<String>,
    /// Regular expressions (RE2's syntax), which match anywhere unless anchored; each up to 128 characters.
    pub regex_values: Vec<String>,
}

/// Patterns for a header.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HeaderMatch {
    /// The header's name: up to 40 characters, no wildcards.
    pub name: String,
    /// Patterns with wildcards; each up to 128 characters.
    pub values: Vec<String>,
    /// Regular expressions; each up to 128 characters.
    pub regex_values: Vec<String>,
}

/// Methods.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MethodMatch {
    /// Methods, standard ones or others: up to 40 characters of `A-Z`, `-` and `_`.
    pub values: Vec<String>,
}

/// Parameters of the query.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QueryMatch {
    /// Pairs; one of them has to be there.
    pub values: Vec<QueryPair>,
}

/// A parameter of the query.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QueryPair {
    /// The name's pattern; without it, any name.
    pub key: Option<String>,
    /// The value's pattern, up to 128 characters.
    pub value: String,
}

/// Blocks of addresses.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SourceMatch {
    /// Blocks, as `10.0.0.0/8` or `2001:db8::/32`.
    pub values: Vec<IpNet>,
}

/// What is rewritten before a request is forwarded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum TransformConfig {
    /// The host.
    HostHeaderRewrite(RewriteConfig),
    /// The path and the query.
    UrlRewrite(RewriteConfig),
}

/// The first match of a regular expression is replaced.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RewriteConfig {
    /// The regular expression; up to 1,024 characters.
    pub regex: String,
    /// What stands in its place; `$1` to `$9` and `${name}` are groups, `$$` is a dollar.
    pub replace: String,
}

/// What happens to a request.
///
/// The first three routing actions of the list answer or forward, and end it; all others come before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ActionConfig {
    /// Forwards to one of weighted groups. A routing action.
    Forward(ForwardConfig),
    /// Sends the client elsewhere. A routing action.
    Redirect(RedirectConfig),
    /// Answers. A routing action.
    FixedResponse(FixedResponseConfig),
    /// Has the client log in at an identity provider by OpenID Connect.
    AuthenticateOidc(OidcConfig),
    /// The same at a Cognito user pool.
    AuthenticateCognito(CognitoConfig),
    /// Lets requests with a valid token pass.
    JwtValidation(JwtConfig),
    /// Adds and removes headers; beyond ALB.
    Headers(HeadersConfig),
    /// Answers preflights and marks responses for other origins; beyond ALB.
    Cors(CorsConfig),
    /// Answers 429 to what comes too fast; beyond ALB.
    RateLimit(RateLimitConfig),
    /// Delays or fails a share of the requests on purpose; beyond ALB.
    Fault(FaultConfig),
    /// Sends a copy to a group whose answer is not waited for; beyond ALB.
    Mirror(MirrorConfig),
}

impl ActionConfig {
    /// Whether it answers or forwards, and so ends the list.
    #[must_use]
    pub const fn is_routing(&self) -> bool {
        matches!(
            self,
            Self::Forward(_) | Self::Redirect(_) | Self::FixedResponse(_)
        )
    }

    /// Its place in the list, where one is given.
    #[must_use]
    pub const fn order(&self) -> Option<u32> {
        match self {
            Self::Forward(config) => config.order,
            Self::Redirect(config) => config.order,
            Self::FixedResponse(config) => config.order,
            Self::AuthenticateOidc(config) => config.order,
            Self::AuthenticateCognito(config) => config.order,
            Self::JwtValidation(config) => config.order,
            Self::Headers(config) => config.order,
            Self::Cors(config) => config.order,
            Self::RateLimit(config) => config.order,
            Self::Fault(config) => config.order,
            Self::Mirror(config) => config.order,
        }
    }

    /// Its name in the reference.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Forward(_) => "forward",
            Self::Redirect(_) => "redirect",
            Self::FixedResponse(_) => "fixed-response",
            Self::AuthenticateOidc(_) => "authenticate-oidc",
            Self::AuthenticateCognito(_) => "authenticate-cognito",
            Self::JwtValidation(_) => "jwt-validation",
            Self::Headers(_) => "headers",
            Self::Cors(_) => "cors",
            Self::RateLimit(_) => "rate-limit",
            Self::Fault(_) => "fault",
            Self::Mirror(_) => "mirror",
        }
    }
}

/// Forwards to one of weighted groups.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ForwardConfig {
    /// Its place among the rule's actions: 1 to 50,000. Default: as listed.
    pub order: Option<u32>,
    /// The groups; AWS: up to 5.
    pub target_groups: Vec<WeightedGroup>,
    /// Whether a client stays with its group. Default: no.
    pub stickiness: Option<GroupStickiness>,
}

impl ForwardConfig {
    /// Forwards everything to one group.
    #[must_use]
    pub fn to(group: impl Into<String>) -> Self {
        Self {
            target_groups: vec![WeightedGroup {
                name: group.into(),
                ..WeightedGroup::default()
            }],
            ..Self::default()
        }
    }
}

/// A group with its share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WeightedGroup {
    /// The group's name.
    pub name: String,
    /// Its share, in proportion to the others': 0 to 999. Default: 1.
    pub weight: u32,
}

impl Default for WeightedGroup {
    fn default() -> Self {
        Self {
            name: String::new(),
            weight: 1,
        }
    }
}

/// How long a client stays with its group, by the cookie `AWSALBTG`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GroupStickiness {
    /// Default: 1 hour; AWS: 1 s to 7 days.
    #[serde(with = "span")]
    pub duration: Duration,
}

impl Default for GroupStickiness {
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(3_600),
        }
    }
}

/// Sends the client elsewhere.
///
/// `#{protocol}`, `#{host}`, `#{port}`, `#{path}` and `#{query}` stand for the request's own; what is not given is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RedirectConfig {
    /// Its place among the rule's actions. Default: as listed.
    pub order: Option<u32>,
    /// `HTTP`, `HTTPS` or `#{protocol}`, the default. Not from HTTPS to HTTP.
    pub protocol: String,
    /// The host, up to 128 characters. Default: `#{host}`.
    pub host: String,
    /// The port, 1 to 65535. Default: `#{port}`.
    pub port: String,
    /// The path, which begins with `/`, up to 128 characters. Default: `/#{path}`.
    pub path: String,
    /// The query without its question mark, up to 128 characters. Default: `#{query}`.
    pub query: String,
    /// `HTTP_301` (permanent) or `HTTP_302`, the default.
    pub status_code: String,
}

impl Default for RedirectConfig {
    fn default() -> Self {
        Self {
            order: None,
            protocol: "#{protocol}".to_owned(),
            host: "#{host}".to_owned(),
            port: "#{port}".to_owned(),
            path: "/#{path}".to_owned(),
            query: "#{query}".to_owned(),
            status_code: "HTTP_302".to_owned(),
        }
    }
}

/// Answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FixedResponseConfig {
    /// Its place among the rule's actions. Default: as listed.
    pub order: Option<u32>,
    /// 2xx, 4xx or 5xx. Default: 503.
    pub status_code: u16,
    /// `text/plain` (the default), `text/css`, `text/html`, `application/javascript` or `application/json`.
    pub content_type: String,
    /// Up to 1,024 bytes. Default: none.
    pub message_body: String,
}

impl Default for FixedResponseConfig {
    fn default() -> Self {
        Self {
            order: None,
            status_code: 503,
            content_type: "text/plain".to_owned(),
            message_body: String::new(),
        }
    }
}

/// What happens to a client that is not logged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum OnUnauthenticated {
    /// It gets 401.
    Deny,
    /// It passes, without claims.
    Allow,
    /// It is sent to log in.
    #[default]
    Authenticate,
}

/// How the proxy shows its secret to the token endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ClientAuthentication {
    /// In the form, as ALB does.
    #[default]
    Post,
    /// In the `Authorization` header.
    Basic,
}

/// Has the client log in at an identity provider, by the authorization code flow of OpenID Connect.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OidcConfig {
    /// Its place among the rule's actions. Default: as listed.
    pub order: Option<u32>,
    /// The provider's identifier, as tokens name it.
    pub issuer: String,
    /// Where clients log in.
    pub authorization_endpoint: String,
    /// Where codes become tokens.
    pub token_endpoint: String,
    /// Where tokens become claims.
    pub user_info_endpoint: String,
    /// This proxy's identifier at the provider.
    pub client_id: String,
    /// Its secret.
    pub client_secret: String,
    /// A file that holds the secret instead.
    pub client_secret_file: Option<PathBuf>,
    /// How it is shown. Default: in the form.
    pub client_authentication: ClientAuthentication,
    /// The cookie of sessions; `-0`, `-1` and so on are added. Default: `AWSELBAuthSessionCookie`.
    pub session_cookie_name: String,
    /// How long a session lasts. Default: 7 days; AWS: 1 s to 7 days.
    #[serde(with = "span")]
    pub session_timeout: Duration,
    /// What is asked for. Default: `openid`.
    pub scope: String,
    /// Parameters added to the log-in address; up to 10.
    pub extra_params: BTreeMap<String, String>,
    /// What happens to clients that are not logged in. Default: they are sent to log in.
    pub on_unauthenticated_request: OnUnauthenticated,
}

impl Default for OidcConfig {
    fn default() -> Self {
        Self {
            order: None,
            issuer: String::new(),
            authorization_endpoint: String::new(),
            token_endpoint: String::new(),
            user_info_endpoint: String::new(),
            client_id: String::new(),
            client_secret: String::new(),
            client_secret_file: None,
            client_authentication: ClientAuthentication::default(),
            session_cookie_name: "AWSELBAuthSessionCookie".to_owned(),
            session_timeout: Duration::from_secs(604_800),
            scope: "openid".to_owned(),
            extra_params: BTreeMap::new(),
            on_unauthenticated_request: OnUnauthenticated::default(),
        }
    }
}

impl std::fmt::Debug for OidcConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OidcConfig")
            .field("issuer", &self.issuer)
            .field("client_id", &self.client_id)
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}

/// Has the client log in at a Cognito user pool: the same flow, with the pool's addresses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CognitoConfig {
    /// Its place among the rule's actions. Default: as listed.
    pub order: Option<u32>,
    /// The pool's ARN, `arn:aws:cognito-idp:REGION:ACCOUNT:userpool/ID`, of which region and id are used.
    pub user_pool_arn: String,
    /// The client's id.
    pub user_pool_client_id: String,
    /// The client's secret, which in the cloud the load balancer looks up by itself.
    pub user_pool_client_secret: String,
    /// The pool's domain: a prefix of `.auth.REGION.amazoncognito.com`, or a whole host.
    pub user_pool_domain: String,
    /// The cookie of sessions. Default: `AWSELBAuthSessionCookie`.
    pub session_cookie_name: String,
    /// How long a session lasts. Default: 7 days.
    #[serde(with = "span")]
    pub session_timeout: Duration,
    /// What is asked for. Default: `openid`.
    pub scope: String,
    /// Parameters added to the log-in address; up to 10.
    pub extra_params: BTreeMap<String, String>,
    /// What happens to clients that are not logged in. Default: they are sent to log in.
    pub on_unauthenticated_request: OnUnauthenticated,
}

impl Default for CognitoConfig {
    fn default() -> Self {
        let oidc = OidcConfig::default();
        Self {
            order: None,
            user_pool_arn: String::new(),
            user_pool_client_id: String::new(),
            user_pool_client_secret: String::new(),
            user_pool_domain: String::new(),
            session_cookie_name: oidc.session_cookie_name,
            session_timeout: oidc.session_timeout,
            scope: oidc.scope,
            extra_params: BTreeMap::new(),
            on_unauthenticated_request: OnUnauthenticated::default(),
        }
    }
}

/// Lets requests pass whose `Authorization: Bearer` token is valid; others get 401.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JwtConfig {
    /// Its place among the rule's actions. Default: as listed.
    pub order: Option<u32>,
    /// Where the issuer's keys are.
    pub jwks_endpoint: String,
    /// The issuer that tokens have to name.
    pub issuer: String,
    /// An audience that tokens have to name, one of these; beyond ALB, which has it among the additional claims. Default: any.
    pub audiences: Vec<String>,
    /// Further claims that tokens have to have; AWS: up to 10.
    pub additional_claims: Vec<ClaimConfig>,
    /// The signatures that are accepted: `RS256` (ALB's), `ES256`, and other asymmetric ones. Default: `RS256`.
    pub algorithms: Vec<String>,
    /// How far clocks may differ. Default: 0.
    #[serde(with = "span")]
    pub leeway: Duration,
}

impl Default for JwtConfig {
    fn default() -> Self {
        Self {
            order: None,
            jwks_endpoint: String::new(),
            issuer: String::new(),
            audiences: Vec::new(),
            additional_claims: Vec::new(),
            algorithms: vec!["RS256".to_owned()],
            leeway: Duration::ZERO,
        }
    }
}

/// A claim that a token has to have.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClaimConfig {
    /// Its name; `exp`, `nbf`, `iat` and `iss` are checked anyway and not named here.
    pub name: String,
    /// How it is written. Default: one string.
    pub format: ClaimFormat,
    /// Values, one of which it has to be or hold; AWS: up to 10.
    pub values: Vec<String>,
}

/// How a claim is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ClaimFormat {
    /// One string.
    #[default]
    SingleString,
    /// A list of strings.
    StringArray,
    /// Words in one string, as `scope` has them.
    SpaceSeparatedValues,
}

/// Adds and removes headers. Removals come first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HeadersConfig {
    /// Its place among the rule's actions. Default: as listed.
    pub order: Option<u32>,
    /// Headers that the target does not see.
    pub request_remove: Vec<String>,
    /// Headers that the target sees.
    pub request_set: Vec<HeaderEditConfig>,
    /// Headers that the client does not see.
    pub response_remove: Vec<String>,
    /// Headers that the client sees.
    pub response_set: Vec<HeaderEditConfig>,
}

/// A header that is set, or added to those of the name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HeaderEditConfig {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
    /// Whether those of the name stay. Default: no.
    pub append: bool,
}

/// Answers preflights and marks responses for other origins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CorsConfig {
    /// Its place among the rule's actions. Default: as listed.
    pub order: Option<u32>,
    /// Origins, by wildcard pattern; `*` alone is all.
    pub allow_origins: Vec<String>,
    /// Methods. Default: GET, HEAD, POST.
    pub allow_methods: Vec<String>,
    /// Request headers. Default: none.
    pub allow_headers: Vec<String>,
    /// Response headers that scripts may read. Default: none.
    pub expose_headers: Vec<String>,
    /// Whether cookies are sent; not with the origin `*`. Default: no.
    pub allow_credentials: bool,
    /// How long a preflight's answer holds. Default: 5 s (browsers').
    #[serde(with = "span")]
    pub max_age: Duration,
}

impl Default for CorsConfig {
    fn default() -> Self {
        Self {
            order: None,
            allow_origins: Vec::new(),
            allow_methods: ["GET", "HEAD", "POST"].map(str::to_owned).to_vec(),
            allow_headers: Vec::new(),
            expose_headers: Vec::new(),
            allow_credentials: false,
            max_age: Duration::from_secs(5),
        }
    }
}

/// Answers 429 to what comes too fast.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RateLimitConfig {
    /// Its place among the rule's actions. Default: as listed.
    pub order: Option<u32>,
    /// Requests a second. Default: 100.
    pub rate: u64,
    /// Requests that may come at once. Default: 100.
    pub burst: u64,
    /// What is counted apart. Default: nothing, all requests of the rule are counted together.
    pub key: RateKey,
    /// The most keys that are counted apart at a time; when it is reached, those that are full again make room, and
    /// keys beyond are counted together. Default: 65,536.
    pub max_keys: usize,
}

impl Default for RateLimitConfig {
    fn default() -> Self {
        Self {
            order: None,
            rate: 100,
            burst: 100,
            key: RateKey::default(),
            max_keys: 65_536,
        }
    }
}

/// What a rate limit counts apart.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum RateKey {
    /// Nothing.
    #[default]
    All,
    /// Client addresses.
    SourceIp,
    /// Values of a header; requests without it are counted together.
    Header(String),
}

/// Delays or fails a share of the requests on purpose.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FaultConfig {
    /// Its place among the rule's actions. Default: as listed.
    pub order: Option<u32>,
    /// The share that is delayed, in percent. Default: 0.
    pub delay_percent: f64,
    /// For how long. Default: 0.
    #[serde(with = "span")]
    pub delay: Duration,
    /// The share that is answered at once, in percent. Default: 0.
    pub abort_percent: f64,
    /// The answer's status, 400 to 599. Default: 503.
    pub abort_status: u16,
}

impl Default for FaultConfig {
    fn default() -> Self {
        Self {
            order: None,
            delay_percent: 0.0,
            delay: Duration::ZERO,
            abort_percent: 0.0,
            abort_status: 503,
        }
    }
}

/// Sends a copy to a group whose answer is not waited for. Requests with a body are not copied: it streams through once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MirrorConfig {
    /// Its place among the rule's actions. Default: as listed.
    pub order: Option<u32>,
    /// The group's name.
    pub target_group: String,
    /// The share that is copied, in percent. Default: 100.
    pub percent: f64,
}

impl Default for MirrorConfig {
    fn default() -> Self {
        Self {
            order: None,
            target_group: String::new(),
            percent: 100.0,
        }
    }
}
