//! Delivery policies: the JSON documents that say how HTTP endpoints are retried.
//!
//! A document of a subscription holds `healthyRetryPolicy`, `throttlePolicy` and `requestPolicy`; one of a topic
//! holds the same with `default` before each name, below `http`, and `disableSubscriptionOverrides`. Members that
//! are absent or null have their defaults, as in the documents that SNS shows back; other names are refused,
//! since a misspelt limit must not pass for no limit.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{Backoff, ContentType, HttpRetry, RetryError, RetryPolicy, Throttle};
use crate::machine::document::{DocumentError, Object};

/// How one HTTP endpoint is retried, throttled and spoken to; each part may be left to the topic.
///
/// ```
/// use sim_topic::DeliveryPolicy;
///
/// let policy = DeliveryPolicy::parse(
///     r#"{"healthyRetryPolicy":{"numRetries":5},"throttlePolicy":{"maxReceivesPerSecond":10}}"#,
/// )?;
/// assert_eq!(policy.retry.map(|retry| retry.num_retries), Some(5));
/// assert_eq!(policy.throttle.map(|throttle| throttle.rate()), Some(10));
/// assert_eq!(DeliveryPolicy::parse(&policy.to_json())?, policy);
/// # Ok::<(), sim_topic::RetryError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct DeliveryPolicy {
    /// The `healthyRetryPolicy`.
    pub retry: Option<HttpRetry>,
    /// The `throttlePolicy`; none means no bound.
    pub throttle: Option<Throttle>,
    /// The `headerContentType` of the `requestPolicy`.
    pub content_type: Option<ContentType>,
}

impl DeliveryPolicy {
    /// Reads a subscription's document and checks it.
    ///
    /// # Errors
    ///
    /// When the text is no such document, or a value is out of its range.
    pub fn parse(text: &str) -> Result<Self, RetryError> {
        let mut object = Object::parse(text)?;
        let policy = Self::take(&mut object, Names::SUBSCRIPTION)?;
        // SNS shows both in the documents that it gives back.
        object.refuse_unless("sicklyRetryPolicy", &Value::Null, "nothing")?;
        object.refuse_unless("guaranteed", &Value::Bool(false), "false")?;
        object.end()?;
        Ok(policy)
    }

    /// Writes the document; what is absent is left out.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut map = Map::new();
        self.put(&mut map, Names::SUBSCRIPTION);
        Value::Object(map).to_string()
    }

    /// The rules of the retries: these, or the default of HTTP endpoints.
    ///
    /// # Errors
    ///
    /// When a field is out of its range.
    pub fn retry_policy(&self) -> Result<RetryPolicy, RetryError> {
        RetryPolicy::http(self.retry.unwrap_or_default())
    }

    fn take(object: &mut Object, names: Names) -> Result<Self, RetryError> {
        let retry = match object.object(names.retry)? {
            None => None,
            Some(mut fields) => {
                let retry = take_retry(&mut fields)?;
                fields.end()?;
                RetryPolicy::http(retry)?;
                Some(retry)
            }
        };
        let mut throttle = None;
        if let Some(mut fields) = object.object(names.throttle)? {
            if let Some(rate) = fields.number("maxReceivesPerSecond")? {
                throttle = Some(Throttle::per_second(rate)?);
            }
            fields.end()?;
        }
        let mut content_type = None;
        if let Some(mut fields) = object.object(names.request)? {
            if let Some(text) = fields.text("headerContentType")? {
                content_type = Some(ContentType::new(text)?);
            }
            fields.end()?;
        }
        Ok(Self {
            retry,
            throttle,
            content_type,
        })
    }

    fn put(&self, map: &mut Map<String, Value>, names: Names) {
        if let Some(retry) = &self.retry {
            map.insert(names.retry.to_owned(), retry_to_json(retry));
        }
        if let Some(throttle) = self.throttle {
            let value = json!({ "maxReceivesPerSecond": throttle.rate() });
            map.insert(names.throttle.to_owned(), value);
        }
        if let Some(content_type) = &self.content_type {
            let value = json!({ "headerContentType": content_type.as_str() });
            map.insert(names.request.to_owned(), value);
        }
    }
}

/// What a topic says about its HTTP endpoints: defaults for their policies, and whether they may have their own.
///
/// ```
/// use sim_topic::{DeliveryPolicy, TopicDeliveryPolicy};
///
/// let topic = TopicDeliveryPolicy::parse(
///     r#"{"http":{"defaultHealthyRetryPolicy":{"numRetries":5},"defaultThrottlePolicy":{"maxReceivesPerSecond":9}}}"#,
/// )?;
/// let own = DeliveryPolicy::parse(r#"{"healthyRetryPolicy":{"numRetries":0}}"#)?;
/// let effective = topic.effective(&own);
/// assert_eq!(effective.retry.map(|retry| retry.num_retries), Some(0));
/// assert_eq!(effective.throttle.map(|throttle| throttle.rate()), Some(9));
/// # Ok::<(), sim_topic::RetryError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct TopicDeliveryPolicy {
    /// What holds where a subscription says nothing.
    pub default: DeliveryPolicy,
    /// Whether what subscriptions say counts. Default: it does.
    pub overrides: Overrides,
}

/// Whether a subscription's own delivery policy counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Overrides {
    /// It does.
    #[default]
    Allowed,
    /// It does not: `disableSubscriptionOverrides`.
    Disabled,
}

impl TopicDeliveryPolicy {
    /// Reads a topic's document and checks it.
    ///
    /// # Errors
    ///
    /// When the text is no such document, or a value is out of its range.
    pub fn parse(text: &str) -> Result<Self, RetryError> {
        let mut document = Object::parse(text)?;
        let mut policy = Self::default();
        if let Some(mut http) = document.object("http")? {
            policy.default = DeliveryPolicy::take(&mut http, Names::TOPIC)?;
            http.refuse_unless("defaultSicklyRetryPolicy", &Value::Null, "nothing")?;
            if http.flag("disableSubscriptionOverrides")? == Some(true) {
                policy.overrides = Overrides::Disabled;
            }
            http.end()?;
        }
        document.end()?;
        Ok(policy)
    }

    /// Writes the document; what is absent is left out.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut map = Map::new();
        self.default.put(&mut map, Names::TOPIC);
        let disabled = self.overrides == Overrides::Disabled;
        map.insert("disableSubscriptionOverrides".to_owned(), json!(disabled));
        json!({ "http": map }).to_string()
    }

    /// The policy that holds for a subscription with a policy of its own: part by part its own, else the topic's.
    #[must_use]
    pub fn effective(&self, own: &DeliveryPolicy) -> DeliveryPolicy {
        let default = &self.default;
        if self.overrides == Overrides::Disabled {
            return default.clone();
        }
        DeliveryPolicy {
            retry: own.retry.or(default.retry),
            throttle: own.throttle.or(default.throttle),
            content_type: own
                .content_type
                .clone()
                .or_else(|| default.content_type.clone()),
        }
    }
}

/// The names of the three parts.
#[derive(Clone, Copy)]
struct Names {
    retry: &'static str,
    throttle: &'static str,
    request: &'static str,
}

impl Names {
    const SUBSCRIPTION: Self = Self {
        retry: "healthyRetryPolicy",
        throttle: "throttlePolicy",
        request: "requestPolicy",
    };
    const TOPIC: Self = Self {
        retry: "defaultHealthyRetryPolicy",
        throttle: "defaultThrottlePolicy",
        request: "defaultRequestPolicy",
    };
}

fn take_retry(fields: &mut Object) -> Result<HttpRetry, RetryError> {
    let default = HttpRetry::default();
    let function = match fields.text("backoffFunction")? {
        None => default.function,
        Some(name) => Backoff::NAMES
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, function)| *function)
            .ok_or_else(|| DocumentError::Member {
                path: fields.path("backoffFunction"),
                found: format!("{name:?}"),
                expected: "linear, arithmetic, geometric or exponential",
            })?,
    };
    let mut number = |name, default| {
        let found = fields.number(name)?;
        Ok::<_, RetryError>(found.unwrap_or(default))
    };
    let seconds = |number| Duration::from_secs(u64::from(number));
    Ok(HttpRetry {
        num_retries: number("numRetries", default.num_retries)?,
        num_no_delay_retries: number("numNoDelayRetries", 0)?,
        num_min_delay_retries: number("numMinDelayRetries", 0)?,
        num_max_delay_retries: number("numMaxDelayRetries", 0)?,
        min_delay: seconds(number("minDelayTarget", 20)?),
        max_delay: seconds(number("maxDelayTarget", 20)?),
        function,
        jitter: default.jitter,
    })
}

fn retry_to_json(retry: &HttpRetry) -> Value {
    let function = Backoff::NAMES
        .iter()
        .find(|(_, function)| *function == retry.function)
        .map_or("linear", |(name, _)| name);
    json!({
        "minDelayTarget": retry.min_delay.as_secs(),
        "maxDelayTarget": retry.max_delay.as_secs(),
        "numRetries": retry.num_retries,
        "numNoDelayRetries": retry.num_no_delay_retries,
        "numMinDelayRetries": retry.num_min_delay_retries,
        "numMaxDelayRetries": retry.num_max_delay_retries,
        "backoffFunction": function,
    })
}
