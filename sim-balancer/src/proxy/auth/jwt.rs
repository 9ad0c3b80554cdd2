//! Tokens: `jwt-validation`.

use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, StatusCode, Uri};
use jsonwebtoken::{Algorithm, Validation};
use serde_json::{Map, Value};

use super::{Checked, Keeper};
use crate::proxy::action::{Edits, Reason, plain};
use crate::proxy::config::{
    At, ClaimConfig, ClaimFormat, JwtConfig, Problem, Profile, Protocol, ProxyConfigError,
};
use crate::proxy::rule::{Scope, View};

/// The longest token, in bytes: ALB's 11 K.
const LONGEST: usize = 11_264;

/// The signatures that can be asked for. Those with a shared secret are none: who can check them could make them.
const ALGORITHMS: [(&str, Algorithm); 9] = [
    ("RS256", Algorithm::RS256),
    ("RS384", Algorithm::RS384),
    ("RS512", Algorithm::RS512),
    ("PS256", Algorithm::PS256),
    ("PS384", Algorithm::PS384),
    ("PS512", Algorithm::PS512),
    ("ES256", Algorithm::ES256),
    ("ES384", Algorithm::ES384),
    ("EdDSA", Algorithm::EdDSA),
];

/// Claims that are checked anyway.
const OWN: [&str; 4] = ["exp", "nbf", "iat", "iss"];

/// Lets requests pass whose token is valid.
#[derive(Debug)]
pub(crate) struct JwtCheck {
    endpoint: String,
    issuer: String,
    audiences: Vec<String>,
    claims: Vec<ClaimConfig>,
    algorithms: Vec<Algorithm>,
    leeway: f64,
}

impl JwtCheck {
    pub(crate) fn compile(
        config: &JwtConfig,
        scope: Scope<'_>,
        at: At<'_>,
    ) -> Result<Self, ProxyConfigError> {
        let quotas = &scope.config.quotas;
        check_listener(scope, at)?;
        check_endpoint(
            &config.jwks_endpoint,
            quotas.profile,
            at.field("jwks_endpoint"),
        )?;
        if config.issuer.is_empty() {
            return at
                .field("issuer")
                .fail(Problem::Missing("the issuer that tokens name"));
        }
        at.field("issuer")
            .at_most("characters", config.issuer.len(), 256)?;
        at.field("audiences")
            .at_most("values", config.audiences.len(), quotas.claims())?;
        let field = at.field("additional_claims");
        field.at_most("claims", config.additional_claims.len(), quotas.claims())?;
        for (index, claim) in config.additional_claims.iter().enumerate() {
            let at = at.part("additional_claims", index);
            if claim.name.is_empty() || OWN.contains(&claim.name.as_str()) {
                return at
                    .field("name")
                    .invalid(&claim.name, "is empty, or a claim that is checked anyway");
            }
            if claim.values.is_empty() {
                return at.field("values").fail(Problem::Missing("a value"));
            }
            at.field("values")
                .at_most("values", claim.values.len(), quotas.claims())?;
        }
        if config.algorithms.is_empty() {
            return at
                .field("algorithms")
                .fail(Problem::Missing("a signature that is accepted"));
        }
        let algorithms =
            config.algorithms.iter().enumerate().map(|(index, name)| {
                match ALGORITHMS.iter().find(|(known, _)| known == name) {
                    Some((_, algorithm)) => Ok(*algorithm),
                    None => {
                        let known: Vec<_> = ALGORITHMS.iter().map(|(known, _)| *known).collect();
                        let at = at.part("algorithms", index);
                        at.invalid(name, format!("is not one of {}", known.join(", ")))
                    }
                }
            });
        at.field("leeway")
            .span(config.leeway, Profile::Open.span(0, 3_600))?;
        Ok(Self {
            endpoint: config.jwks_endpoint.clone(),
            issuer: config.issuer.clone(),
            audiences: config.audiences.clone(),
            claims: config.additional_claims.clone(),
            algorithms: algorithms.collect::<Result<_, _>>()?,
            leeway: config.leeway.as_secs_f64(),
        })
    }

    pub(crate) async fn check(&self, view: &View<'_>, keeper: &Keeper) -> Checked {
        let reason = match self.verify(view, keeper).await {
            Ok(()) => return Checked::Pass(Edits::default()),
            Err(reason) => reason,
        };
        if reason.as_str().starts_with("JWKS") {
            return Checked::Answer(plain(StatusCode::INTERNAL_SERVER_ERROR), Some(reason));
        }
        let mut response = plain(StatusCode::UNAUTHORIZED);
        let ask = match reason.as_str() {
            "JWTHeaderNotPresent" => "Bearer",
            _ => "Bearer error=\"invalid_token\"",
        };
        response
            .headers_mut()
            .insert(WWW_AUTHENTICATE, HeaderValue::from_static(ask));
        Checked::Answer(response, Some(reason))
    }

    async fn verify(&self, view: &View<'_>, keeper: &Keeper) -> Result<(), Reason> {
        let token = bearer(view.headers)?;
        let malformed = Reason::new("JWTRequestFormatInvalid");
        let header = jsonwebtoken::decode_header(token).map_err(|_| malformed)?;
        if !self.algorithms.contains(&header.alg) {
            return Err(Reason::new("JWTAlgorithmNotAllowed"));
        }
        let id = header.kid.as_deref();
        let source = keeper.source(&self.endpoint);
        let keys = source.keys(id, &keeper.clock, &*keeper.fetch).await?;
        let mut validation = Validation::new(header.alg);
        // Times are checked below, by the proxy's clock; audiences too.
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        let mut fitting = keys.fitting(id, header.alg);
        let verified = fitting.find_map(|key| {
            jsonwebtoken::decode::<Map<String, Value>>(token, key, &validation).ok()
        });
        let claims = verified
            .ok_or(Reason::new("JWTSignatureValidationFailed"))?
            .claims;
        self.check_claims(&claims, view.time.as_unix_millis() as f64 / 1_000.0)
    }

    fn check_claims(&self, claims: &Map<String, Value>, now: f64) -> Result<(), Reason> {
        let invalid = Reason::new("JWTClaimValueInvalid");
        let missing = Reason::new("JWTClaimNotPresent");
        let format = Reason::new("JWTClaimFormatInvalid");
        let time = |name: &str| match claims.get(name) {
            Some(value) => value.as_f64().map(Some).ok_or(format),
            None => Ok(None),
        };
        if now >= time("exp")?.ok_or(missing)? + self.leeway {
            return Err(Reason::new("JWTExpired"));
        }
        for name in ["nbf", "iat"] {
            if time(name)?.is_some_and(|time| now < time - self.leeway) {
                return Err(Reason::new("JWTNotYetValid"));
            }
        }
        let issuer = claims.get("iss").ok_or(missing)?;
        if issuer.as_str().ok_or(format)? != self.issuer {
            return Err(invalid);
        }
        if !self.audiences.is_empty() {
            let audience = claims.get("aud").ok_or(missing)?;
            if !is_or_holds(audience, &self.audiences) {
                return Err(invalid);
            }
        }
        for claim in &self.claims {
            let value = claims.get(&claim.name).ok_or(missing)?;
            let mut wanted = claim.values.iter();
            let holds = match claim.format {
                ClaimFormat::SingleString => {
                    let text = value.as_str().ok_or(format)?;
                    wanted.any(|want| want == text)
                }
                ClaimFormat::StringArray => {
                    value.as_array().ok_or(format)?;
                    is_or_holds(value, &claim.values)
                }
                ClaimFormat::SpaceSeparatedValues => {
                    let text = value.as_str().ok_or(format)?;
                    wanted.any(|want| text.split(' ').any(|word| word == want))
                }
            };
            if !holds {
                return Err(invalid);
            }
        }
        Ok(())
    }
}

/// Whether a claim is one of the values, or a list that holds one.
pub(super) fn is_or_holds<S: AsRef<str>>(claim: &Value, values: &[S]) -> bool {
    let is_one = |text: &Value| {
        text.as_str()
            .is_some_and(|text| values.iter().any(|value| value.as_ref() == text))
    };
    match claim {
        Value::Array(list) => list.iter().any(is_one),
        other => is_one(other),
    }
}

fn bearer(headers: &HeaderMap) -> Result<&str, Reason> {
    let mut lines = headers.get_all(AUTHORIZATION).iter();
    let line = lines.next().ok_or(Reason::new("JWTHeaderNotPresent"))?;
    let malformed = Reason::new("JWTRequestFormatInvalid");
    if lines.next().is_some() {
        return Err(malformed);
    }
    let (scheme, token) = line
        .to_str()
        .ok()
        .and_then(|line| line.split_once(' '))
        .ok_or(malformed)?;
    let token = token.trim();
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() || token.len() > LONGEST {
        return Err(malformed);
    }
    Ok(token)
}

/// ALB authenticates on HTTPS only; the open profile also without TLS, for tests and behind others.
pub(super) fn check_listener(scope: Scope<'_>, at: At<'_>) -> Result<(), ProxyConfigError> {
    if scope.config.quotas.profile == Profile::Aws && scope.listener.protocol != Protocol::Https {
        return at.fail(Problem::Conflict(format!(
            "clients are authenticated on HTTPS, and this is {}",
            scope.listener.protocol
        )));
    }
    Ok(())
}

pub(super) fn check_endpoint(
    text: &str,
    profile: Profile,
    at: At<'_>,
) -> Result<(), ProxyConfigError> {
    at.at_most("characters", text.len(), 2_048)?;
    let uri: Option<Uri> = text.parse().ok();
    let is_fit = uri.is_some_and(|uri| {
        let scheme = uri.scheme_str();
        uri.host().is_some_and(|host| !host.is_empty())
            && (scheme == Some("https") || scheme == Some("http") && profile == Profile::Open)
    });
    if !is_fit {
        return at.invalid(text, "is not an address that begins with https://");
    }
    Ok(())
}
