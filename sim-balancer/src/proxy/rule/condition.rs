//! Conditions, checked and compiled.

use http::{HeaderName, Method};
use ipnet::IpNet;

use super::View;
use super::pattern::{Case, Patterns, Wildcard, wildcards};
use crate::proxy::config::{
    At, ConditionConfig, HeaderMatch, MethodMatch, Problem, Profile, ProxyConfigError, QueryMatch,
    Quotas, SourceMatch, ValueMatch,
};

/// The longest name of a header or method that is matched: AWS's.
const NAME: usize = 40;

/// What a request has to fulfil, the cheapest first.
#[derive(Debug, Clone)]
pub(super) enum Condition {
    Method(Box<[Method]>),
    Host(Patterns),
    Path(Patterns),
    Source(Box<[IpNet]>),
    Header(HeaderName, Patterns),
    Query(Box<[Pair]>),
}

/// A parameter of the query: patterns of its name, if it matters, and of its value.
#[derive(Debug, Clone)]
pub(super) struct Pair {
    key: Option<Wildcard>,
    value: Wildcard,
}

impl Condition {
    /// Compiles the conditions of a rule.
    pub(super) fn compile(
        configs: &[ConditionConfig],
        at: At<'_>,
        quotas: &Quotas,
    ) -> Result<Box<[Self]>, ProxyConfigError> {
        if configs.is_empty() {
            return at
                .field("conditions")
                .fail(Problem::Missing("a rule needs at least one condition"));
        }
        let (mut values, mut stars) = (0, 0);
        let mut conditions = Vec::with_capacity(configs.len());
        for (index, config) in configs.iter().enumerate() {
            let part = at.part("conditions", index);
            let condition = match config {
                ConditionConfig::HostHeader(config) => host(config, part, quotas)?,
                ConditionConfig::PathPattern(config) => path(config, part, quotas)?,
                ConditionConfig::HttpHeader(config) => header(config, part, quotas)?,
                ConditionConfig::HttpRequestMethod(config) => method(config, part, quotas)?,
                ConditionConfig::QueryString(config) => query(config, part, quotas)?,
                ConditionConfig::SourceIp(config) => source(config, part, quotas)?,
            };
            let is_repeatable = matches!(condition, Self::Header(..) | Self::Query(_));
            let same =
                |other: &Self| std::mem::discriminant(other) == std::mem::discriminant(&condition);
            if !is_repeatable && conditions.iter().any(same) {
                return part.fail(Problem::Conflict(
                    "a rule has at most one condition each on host, path, method and source"
                        .to_owned(),
                ));
            }
            let (count, wild) = size(config);
            values += count;
            stars += wild;
            conditions.push(condition);
        }
        at.field("conditions")
            .at_most("values", values, quotas.rule_values())?;
        at.field("conditions")
            .at_most("wildcards", stars, quotas.rule_wildcards())?;
        conditions.sort_by_key(Self::cost);
        Ok(conditions.into())
    }

    const fn cost(&self) -> u8 {
        match self {
            Self::Method(_) => 0,
            Self::Host(_) => 1,
            Self::Path(_) => 2,
            Self::Source(_) => 3,
            Self::Header(..) => 4,
            Self::Query(_) => 5,
        }
    }

    #[inline]
    pub(super) fn holds(&self, view: &View<'_>) -> bool {
        match self {
            Self::Method(methods) => methods.contains(view.method),
            Self::Host(patterns) => patterns.matches(view.host_name().as_bytes()),
            Self::Path(patterns) => patterns.matches(view.path.as_bytes()),
            Self::Source(blocks) => {
                let source = view.source.to_canonical();
                blocks.iter().any(|block| block.contains(&source))
            }
            Self::Header(name, patterns) => {
                let mut values = view.headers.get_all(name).iter();
                values.any(|value| patterns.matches(value.as_bytes()))
            }
            Self::Query(pairs) => view.query.is_some_and(|query| {
                query
                    .as_bytes()
                    .split(|byte| *byte == b'&')
                    .any(|parameter| pairs.iter().any(|pair| pair.matches(parameter)))
            }),
        }
    }
}

impl Pair {
    fn matches(&self, parameter: &[u8]) -> bool {
        let middle = parameter.iter().position(|byte| *byte == b'=');
        match (&self.key, middle) {
            (Some(key), Some(middle)) => {
                key.matches(&parameter[..middle]) && self.value.matches(&parameter[middle + 1..])
            }
            (Some(key), None) => key.matches(parameter) && self.value.matches(b""),
            (None, Some(middle)) => self.value.matches(&parameter[middle + 1..]),
            (None, None) => self.value.matches(parameter),
        }
    }
}

/// How many values and wildcards a condition has.
fn size(config: &ConditionConfig) -> (usize, usize) {
    let stars = |values: &[String]| values.iter().map(|value| wildcards(value)).sum();
    match config {
        ConditionConfig::HostHeader(config) | ConditionConfig::PathPattern(config) => (
            config.values.len() + config.regex_values.len(),
            stars(&config.values),
        ),
        ConditionConfig::HttpHeader(config) => (
            config.values.len() + config.regex_values.len(),
            stars(&config.values),
        ),
        ConditionConfig::HttpRequestMethod(config) => (config.values.len(), 0),
        ConditionConfig::QueryString(config) => {
            let stars = config
                .values
                .iter()
                .map(|pair| wildcards(&pair.value) + pair.key.as_deref().map_or(0, wildcards));
            (config.values.len(), stars.sum())
        }
        ConditionConfig::SourceIp(config) => (config.values.len(), 0),
    }
}

/// Checks how many values there are, and how long each is.
fn check_values(
    values: &[String],
    expressions: &[String],
    at: At<'_>,
    quotas: &Quotas,
) -> Result<(), ProxyConfigError> {
    let count = values.len() + expressions.len();
    if count == 0 {
        return at
            .field("values")
            .fail(Problem::Missing("a condition needs at least one value"));
    }
    let field = if values.is_empty() {
        "regex_values"
    } else {
        "values"
    };
    at.field(field)
        .at_most("values", count, quotas.condition_values())?;
    if !values.is_empty() && !expressions.is_empty() {
        return at.field("regex_values").fail(Problem::Conflict(
            "a condition has either values or regex_values".to_owned(),
        ));
    }
    for (field, list) in [("values", values), ("regex_values", expressions)] {
        for (index, value) in list.iter().enumerate() {
            let at = at.part(field, index);
            at.at_most("characters", value.chars().count(), quotas.value_length())?;
            if value.is_empty() {
                return at.fail(Problem::Missing("a value"));
            }
        }
    }
    Ok(())
}

fn check_characters(
    values: &[String],
    at: At<'_>,
    what: &str,
    allowed: impl Fn(char) -> bool,
) -> Result<(), ProxyConfigError> {
    for (index, value) in values.iter().enumerate() {
        if let Some(odd) = value.chars().find(|c| !allowed(*c)) {
            return at
                .part("values", index)
                .invalid(value, format!("has {odd:?}, which no {what} has"));
        }
    }
    Ok(())
}

fn host(config: &ValueMatch, at: At<'_>, quotas: &Quotas) -> Result<Condition, ProxyConfigError> {
    check_values(&config.values, &config.regex_values, at, quotas)?;
    check_characters(&config.values, at, "host", |c| {
        c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '*' | '?' | ':' | '[' | ']')
    })?;
    if quotas.profile == Profile::Aws {
        for (index, value) in config.values.iter().enumerate() {
            let top = value.rsplit_once('.').map(|(_, top)| top);
            let is_name = |top: &str| {
                top.chars()
                    .all(|c| c.is_ascii_alphabetic() || "*?".contains(c))
            };
            if !top.is_some_and(is_name) {
                let why = "has no dot, or other than letters after the last one";
                return at.part("values", index).invalid(value, why);
            }
        }
    }
    Patterns::new(
        &config.values,
        &config.regex_values,
        Case::Insensitive,
        at,
        quotas,
    )
    .map(Condition::Host)
}

fn path(config: &ValueMatch, at: At<'_>, quotas: &Quotas) -> Result<Condition, ProxyConfigError> {
    check_values(&config.values, &config.regex_values, at, quotas)?;
    check_characters(&config.values, at, "path", |c| {
        c.is_ascii_graphic() && !matches!(c, '#' | '<' | '>' | '`' | '{' | '}' | '|' | '^')
    })?;
    Patterns::new(
        &config.values,
        &config.regex_values,
        Case::Sensitive,
        at,
        quotas,
    )
    .map(Condition::Path)
}

fn header(
    config: &HeaderMatch,
    at: At<'_>,
    quotas: &Quotas,
) -> Result<Condition, ProxyConfigError> {
    let field = at.field("name");
    field.at_most("characters", config.name.len(), NAME)?;
    let Ok(name) = HeaderName::from_bytes(config.name.as_bytes()) else {
        return field.invalid(&config.name, "is not a header's name");
    };
    if config.name.contains(['*', '?']) {
        return field.invalid(&config.name, "has a wildcard, which names do not take");
    }
    if name == http::header::HOST {
        return field.invalid(&config.name, "is matched by host-header");
    }
    check_values(&config.values, &config.regex_values, at, quotas)?;
    let patterns = Patterns::new(
        &config.values,
        &config.regex_values,
        Case::Insensitive,
        at,
        quotas,
    )?;
    Ok(Condition::Header(name, patterns))
}

fn method(
    config: &MethodMatch,
    at: At<'_>,
    quotas: &Quotas,
) -> Result<Condition, ProxyConfigError> {
    check_values(&config.values, &[], at, quotas)?;
    check_characters(&config.values, at, "method", |c| {
        c.is_ascii_uppercase() || matches!(c, '-' | '_')
    })?;
    let methods = config.values.iter().enumerate().map(|(index, value)| {
        let at = at.part("values", index);
        at.at_most("characters", value.len(), NAME)?;
        Method::from_bytes(value.as_bytes()).or_else(|_| at.invalid(value, "is not a method"))
    });
    methods.collect::<Result<_, _>>().map(Condition::Method)
}

fn query(config: &QueryMatch, at: At<'_>, quotas: &Quotas) -> Result<Condition, ProxyConfigError> {
    if config.values.is_empty() {
        return at
            .field("values")
            .fail(Problem::Missing("a condition needs at least one value"));
    }
    at.field("values")
        .at_most("values", config.values.len(), quotas.condition_values())?;
    let pairs = config.values.iter().enumerate().map(|(index, pair)| {
        let at = at.part("values", index);
        let most = quotas.value_length();
        at.field("value")
            .at_most("characters", pair.value.chars().count(), most)?;
        if pair.value.is_empty() && pair.key.is_none() {
            return at.fail(Problem::Missing("a key or a value"));
        }
        if let Some(key) = &pair.key {
            at.field("key")
                .at_most("characters", key.chars().count(), most)?;
        }
        Ok(Pair {
            key: pair
                .key
                .as_deref()
                .map(|key| Wildcard::new(key, Case::Insensitive)),
            value: Wildcard::new(&pair.value, Case::Insensitive),
        })
    });
    pairs.collect::<Result<_, _>>().map(Condition::Query)
}

fn source(
    config: &SourceMatch,
    at: At<'_>,
    quotas: &Quotas,
) -> Result<Condition, ProxyConfigError> {
    if config.values.is_empty() {
        return at
            .field("values")
            .fail(Problem::Missing("a condition needs at least one block"));
    }
    at.field("values")
        .at_most("values", config.values.len(), quotas.condition_values())?;
    Ok(Condition::Source(
        config.values.iter().map(IpNet::trunc).collect(),
    ))
}
