//! The JSON envelope of delivered messages, as SNS writes it.
//!
//! For topics of bytes whose messages leave the program: an endpoint that gets an envelope knows who sent what and
//! when, and can check the signature. What is absent is left out, never null. Source of names, order and
//! forms: SNS developer guide, "Parsing message formats" and "Verifying the signatures of Amazon SNS messages".

use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Value as Json};
use sim_core::attributes::{Attribute, AttributeError, Attributes, Data, Value};
use sim_core::payload::Payload;
use sim_core::time::Timestamp;

pub use self::structured::{Structured, StructuredError};
use crate::message::{ConfirmationRequest, Notification, SubscriptionId};

pub(crate) mod base64;
mod structured;

/// What a server at the other end is sent, as one JSON object.
///
/// ```
/// use sim_topic::{Envelope, EnvelopeKind};
///
/// let envelope = Envelope::parse(
///     br#"{"Type":"Notification","MessageId":"22b80b92","TopicArn":"arn:aws:sns:us-west-2:1:orders",
///         "Message":"order 7","Timestamp":"2026-01-01T12:00:00.000Z"}"#,
/// )?;
/// assert_eq!(envelope.message, "order 7");
/// assert_eq!(
///     envelope.string_to_sign(),
///     "Message\norder 7\nMessageId\n22b80b92\nTimestamp\n2026-01-01T12:00:00.000Z\n\
///      TopicArn\narn:aws:sns:us-west-2:1:orders\nType\nNotification\n",
/// );
/// assert!(matches!(envelope.kind, EnvelopeKind::Notification { subject: None, .. }));
/// # Ok::<(), sim_topic::EnvelopeError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// What it is, and what only this kind has.
    pub kind: EnvelopeKind,
    /// The message's id: that of the first try in every retry.
    pub message_id: String,
    /// The topic's name.
    pub topic_arn: String,
    /// What was published, or a sentence that says what to do with a confirmation.
    pub message: String,
    /// When it was published; written to the millisecond.
    pub timestamp: Timestamp,
    /// Who sent it, where it is signed.
    pub signature: Option<Signature>,
}

/// The kinds of envelopes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum EnvelopeKind {
    /// A published message.
    Notification {
        /// The subject, where the publisher set one.
        subject: Option<String>,
        /// The attributes; left out when there are none.
        attributes: Attributes,
        /// The place in the order of a FIFO topic.
        sequence_number: Option<String>,
        /// Where to unsubscribe.
        unsubscribe_url: Option<String>,
        /// Whether it comes from an archive.
        origin: Origin,
    },
    /// A question: does this endpoint want the subscription?
    SubscriptionConfirmation(Confirmation),
    /// A notice: this endpoint has lost its subscription.
    UnsubscribeConfirmation(Confirmation),
}

/// How an endpoint answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confirmation {
    /// What proves that the endpoint wants it.
    pub token: String,
    /// Where the token is sent, ready to be called.
    pub subscribe_url: String,
}

/// Whether a message comes from a publish just now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Origin {
    /// It does.
    #[default]
    Live,
    /// It comes from an archive: `Replayed`.
    Replayed,
}

/// A signature over [`Envelope::string_to_sign`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// The algorithm.
    pub version: SignatureVersion,
    /// The signature, in base64.
    pub value: String,
    /// Where the certificate of the signer's key is.
    pub cert_url: String,
}

/// The algorithms of signatures. Displayed and parsed as `1` and `2`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum SignatureVersion {
    /// RSA with SHA-1, SNS's default, for readers that know nothing better.
    V1,
    /// RSA with SHA-256. The default here.
    #[default]
    V2,
}

/// How the parts of a topic are named outside of the program.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct Naming {
    /// The topic. Default: none, which takes the topic's own name.
    pub topic_arn: Option<String>,
    /// Where confirmations and cancellations are called, without a slash at its end. Default: `http://localhost`.
    pub service_url: String,
}

impl Default for Naming {
    fn default() -> Self {
        Self {
            topic_arn: None,
            service_url: "http://localhost".to_owned(),
        }
    }
}

impl Naming {
    /// What the topic of this name is called outside.
    #[must_use]
    pub fn topic<'a>(&'a self, topic: &'a str) -> &'a str {
        self.topic_arn.as_deref().unwrap_or(topic)
    }

    /// What a subscription of the topic of this name is called outside: the topic's name, a colon, its id.
    #[must_use]
    pub fn subscription(&self, topic: &str, subscription: SubscriptionId) -> String {
        format!("{}:{subscription}", self.topic(topic))
    }
}

impl Envelope {
    /// Puts a notification of bytes into an envelope, not signed yet.
    ///
    /// # Errors
    ///
    /// When the message is not UTF-8.
    pub fn notification(
        notification: &Notification<Payload>,
        naming: &Naming,
    ) -> Result<Self, EnvelopeError> {
        let message = text(notification.value())?;
        Ok(Self::with_message(notification, message, naming))
    }

    /// Puts a notification of any kind into an envelope, not signed yet, with this text for its value.
    #[must_use]
    pub fn with_message<T>(
        notification: &Notification<T>,
        message: impl Into<String>,
        naming: &Naming,
    ) -> Self {
        let topic = notification.topic();
        let arn = encoded(&naming.subscription(topic, notification.subscription()));
        Self {
            kind: EnvelopeKind::Notification {
                subject: notification.subject().map(str::to_owned),
                attributes: notification.attributes().clone(),
                sequence_number: notification.sequence().map(|number| number.to_string()),
                unsubscribe_url: Some(format!(
                    "{}/?Action=Unsubscribe&SubscriptionArn={arn}",
                    naming.service_url
                )),
                origin: if notification.is_replayed() {
                    Origin::Replayed
                } else {
                    Origin::Live
                },
            },
            message_id: notification.id().to_string(),
            topic_arn: naming.topic(topic).to_owned(),
            message: message.into(),
            timestamp: notification.timestamp(),
            signature: None,
        }
    }

    /// Asks an endpoint to confirm its subscription.
    #[must_use]
    pub fn subscribed(request: &ConfirmationRequest, naming: &Naming) -> Self {
        let message = format!(
            "You have chosen to subscribe to the topic {}.\n\
             To confirm the subscription, visit the SubscribeURL included in this message.",
            naming.topic(&request.topic)
        );
        let kind = EnvelopeKind::SubscriptionConfirmation(Confirmation::new(request, naming));
        Self::confirmation(request, naming, kind, message)
    }

    /// Tells an endpoint that its subscription is gone.
    #[must_use]
    pub fn unsubscribed(request: &ConfirmationRequest, naming: &Naming) -> Self {
        let message = format!(
            "You have chosen to deactivate subscription {}.\n\
             To cancel this operation and restore the subscription, visit the SubscribeURL included in this \
             message.",
            naming.subscription(&request.topic, request.subscription)
        );
        let kind = EnvelopeKind::UnsubscribeConfirmation(Confirmation::new(request, naming));
        Self::confirmation(request, naming, kind, message)
    }

    fn confirmation(
        request: &ConfirmationRequest,
        naming: &Naming,
        kind: EnvelopeKind,
        message: String,
    ) -> Self {
        Self {
            kind,
            message_id: request.id.to_string(),
            topic_arn: naming.topic(&request.topic).to_owned(),
            message,
            timestamp: request.timestamp,
            signature: None,
        }
    }

    /// Reads an envelope; members that no envelope has are passed over.
    ///
    /// # Errors
    ///
    /// When it is no JSON object, or a member is absent or not what it should be.
    pub fn parse(json: &[u8]) -> Result<Self, EnvelopeError> {
        let document: Json = serde_json::from_slice(json).map_err(|error| EnvelopeError::Json {
            reason: error.to_string(),
        })?;
        let Json::Object(members) = document else {
            return Err(EnvelopeError::Json {
                reason: "not an object".to_owned(),
            });
        };
        let members = Members(members);
        let confirmation = || {
            Ok::<_, EnvelopeError>(Confirmation {
                token: members.required("Token")?,
                subscribe_url: members.required("SubscribeURL")?,
            })
        };
        let kind = match members.required("Type")?.as_str() {
            NOTIFICATION => EnvelopeKind::Notification {
                subject: members.optional("Subject")?,
                attributes: members.attributes()?,
                sequence_number: members.optional("SequenceNumber")?,
                unsubscribe_url: members.optional("UnsubscribeURL")?,
                origin: members.origin()?,
            },
            SUBSCRIPTION => EnvelopeKind::SubscriptionConfirmation(confirmation()?),
            UNSUBSCRIBE => EnvelopeKind::UnsubscribeConfirmation(confirmation()?),
            _ => return Err(members.wrong("Type", "one of the three types")),
        };
        let timestamp = members.required("Timestamp")?;
        Ok(Self {
            kind,
            message_id: members.required("MessageId")?,
            topic_arn: members.required("TopicArn")?,
            message: members.required("Message")?,
            timestamp: timestamp
                .parse()
                .map_err(|_| members.wrong("Timestamp", "a timestamp of RFC 3339"))?,
            signature: members.signature()?,
        })
    }

    /// Writes the envelope, its members in SNS's order.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut out = Writer::new();
        out.member("Type", self.kind.as_str());
        out.member("MessageId", &self.message_id);
        if let EnvelopeKind::Notification {
            sequence_number: Some(number),
            ..
        } = &self.kind
        {
            out.member("SequenceNumber", number);
        }
        let confirmation = self.confirmation_parts();
        if let Some(confirmation) = confirmation {
            out.member("Token", &confirmation.token);
        }
        out.member("TopicArn", &self.topic_arn);
        if let Some(subject) = self.subject() {
            out.member("Subject", subject);
        }
        out.member("Message", &self.message);
        if let Some(confirmation) = confirmation {
            out.member("SubscribeURL", &confirmation.subscribe_url);
        }
        out.member("Timestamp", &to_the_millisecond(self.timestamp));
        if let Some(signature) = &self.signature {
            out.member("SignatureVersion", signature.version.as_str());
            out.member("Signature", &signature.value);
            out.member("SigningCertURL", &signature.cert_url);
        }
        if let EnvelopeKind::Notification {
            attributes,
            unsubscribe_url,
            origin,
            ..
        } = &self.kind
        {
            if let Some(url) = unsubscribe_url {
                out.member("UnsubscribeURL", url);
            }
            if *origin == Origin::Replayed {
                out.member("Replayed", "true");
            }
            if !attributes.is_empty() {
                out.attributes(attributes);
            }
        }
        out.end()
    }

    /// The text that a signature is over: the signed members of this kind in order of name, each name and each
    /// value on a line of its own.
    #[must_use]
    pub fn string_to_sign(&self) -> String {
        let timestamp = to_the_millisecond(self.timestamp);
        let mut lines = vec![("Message", &*self.message), ("MessageId", &self.message_id)];
        if let Some(confirmation) = self.confirmation_parts() {
            lines.push(("SubscribeURL", &confirmation.subscribe_url));
            lines.push(("Timestamp", &timestamp));
            lines.push(("Token", &confirmation.token));
        } else {
            if let Some(subject) = self.subject() {
                lines.push(("Subject", subject));
            }
            lines.push(("Timestamp", &timestamp));
        }
        lines.push(("TopicArn", &self.topic_arn));
        lines.push(("Type", self.kind.as_str()));
        lines
            .into_iter()
            .flat_map(|(name, value)| [name, "\n", value, "\n"])
            .collect()
    }

    /// The subject of a notification.
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        match &self.kind {
            EnvelopeKind::Notification { subject, .. } => subject.as_deref(),
            _ => None,
        }
    }

    fn confirmation_parts(&self) -> Option<&Confirmation> {
        match &self.kind {
            EnvelopeKind::Notification { .. } => None,
            EnvelopeKind::SubscriptionConfirmation(confirmation)
            | EnvelopeKind::UnsubscribeConfirmation(confirmation) => Some(confirmation),
        }
    }
}

const NOTIFICATION: &str = "Notification";
const SUBSCRIPTION: &str = "SubscriptionConfirmation";
const UNSUBSCRIBE: &str = "UnsubscribeConfirmation";

impl EnvelopeKind {
    /// The name of the kind, as the member `Type` and the header `x-amz-sns-message-type` give it.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Notification { .. } => NOTIFICATION,
            Self::SubscriptionConfirmation(_) => SUBSCRIPTION,
            Self::UnsubscribeConfirmation(_) => UNSUBSCRIBE,
        }
    }
}

impl Confirmation {
    fn new(request: &ConfirmationRequest, naming: &Naming) -> Self {
        let arn = encoded(naming.topic(&request.topic));
        Self {
            token: request.token.to_string(),
            subscribe_url: format!(
                "{}/?Action=ConfirmSubscription&TopicArn={arn}&Token={}",
                naming.service_url, request.token
            ),
        }
    }
}

impl SignatureVersion {
    /// The version's number, as the member `SignatureVersion` gives it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "1",
            Self::V2 => "2",
        }
    }
}

impl fmt::Display for SignatureVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for SignatureVersion {
    type Err = EnvelopeError;

    fn from_str(text: &str) -> Result<Self, EnvelopeError> {
        match text {
            "1" => Ok(Self::V1),
            "2" => Ok(Self::V2),
            other => Err(EnvelopeError::Member {
                name: "SignatureVersion",
                found: shortened(&format!("{other:?}")),
                expected: "\"1\" or \"2\"",
            }),
        }
    }
}

/// Why bytes are no envelope, or a message cannot be put into one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// The message is not UTF-8: an envelope holds text.
    #[error("the message is not UTF-8 from byte {at} on, and an envelope holds text")]
    NotText {
        /// The first byte that is not.
        at: usize,
    },
    /// It is not a JSON object.
    #[error("the envelope is not a JSON object: {reason}")]
    Json {
        /// What the parser says.
        reason: String,
    },
    /// A member is absent or not what it should be.
    #[error("{name} of the envelope is {found}, not {expected}")]
    Member {
        /// Its name.
        name: &'static str,
        /// What there is.
        found: String,
        /// What there should be.
        expected: &'static str,
    },
    /// A message attribute breaks a rule.
    #[error("MessageAttributes of the envelope: {0}")]
    Attribute(#[from] AttributeError),
}

/// The text of a message.
pub(crate) fn text(payload: &Payload) -> Result<&str, EnvelopeError> {
    payload.as_str().map_err(|error| EnvelopeError::NotText {
        at: error.valid_up_to(),
    })
}

/// RFC 3339 in UTC with milliseconds, whatever they are.
fn to_the_millisecond(timestamp: Timestamp) -> String {
    let mut text = Timestamp::from_unix_millis(timestamp.as_unix_millis()).to_string();
    if !text.contains('.') {
        text.truncate(text.len() - 1);
        text.push_str(".000Z");
    }
    text
}

/// A value of a query: all but unreserved characters and the colons of names are percent-encoded.
fn encoded(text: &str) -> String {
    use fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// A value for an error's text, cut to what can be read.
fn shortened(text: &str) -> String {
    const LONGEST: usize = 60;
    match text.char_indices().nth(LONGEST) {
        None => text.to_owned(),
        Some((at, _)) => format!("{}...", &text[..at]),
    }
}

/// An object on its way out, member by member.
struct Writer {
    out: String,
}

impl Writer {
    fn new() -> Self {
        Self {
            out: String::from("{"),
        }
    }

    fn name(&mut self, name: &str) {
        if !self.out.ends_with('{') {
            self.out.push(',');
        }
        self.string(name);
        self.out.push(':');
    }

    fn member(&mut self, name: &str, value: &str) {
        self.name(name);
        self.string(value);
    }

    fn attributes(&mut self, attributes: &Attributes) {
        self.name("MessageAttributes");
        self.out.push('{');
        for attribute in attributes {
            self.name(attribute.name());
            self.out.push('{');
            self.member("Type", &attribute.value().data_type());
            match attribute.value().data() {
                Data::Binary(bytes) => self.member("Value", &base64::encode(bytes)),
                _ => self.member("Value", attribute.value().as_text().unwrap_or_default()),
            }
            self.out.push('}');
        }
        self.out.push('}');
    }

    fn string(&mut self, text: &str) {
        use fmt::Write as _;
        self.out.push('"');
        let mut plain = 0;
        for (at, byte) in text.bytes().enumerate() {
            let escape = match byte {
                b'"' => "\\\"",
                b'\\' => "\\\\",
                b'\n' => "\\n",
                b'\r' => "\\r",
                b'\t' => "\\t",
                0..=0x1f => "",
                _ => continue,
            };
            self.out.push_str(&text[plain..at]);
            if escape.is_empty() {
                // Writing to a string does not fail.
                let _ = write!(self.out, "\\u{byte:04x}");
            } else {
                self.out.push_str(escape);
            }
            plain = at + 1;
        }
        self.out.push_str(&text[plain..]);
        self.out.push('"');
    }

    fn end(mut self) -> String {
        self.out.push('}');
        self.out
    }
}

/// The members of an object on its way in.
struct Members(Map<String, Json>);

impl Members {
    fn wrong(&self, name: &'static str, expected: &'static str) -> EnvelopeError {
        EnvelopeError::Member {
            name,
            found: self.0.get(name).map_or_else(
                || "absent".to_owned(),
                |found| shortened(&found.to_string()),
            ),
            expected,
        }
    }

    fn optional(&self, name: &'static str) -> Result<Option<String>, EnvelopeError> {
        match self.0.get(name) {
            None => Ok(None),
            Some(Json::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(self.wrong(name, "a string")),
        }
    }

    fn required(&self, name: &'static str) -> Result<String, EnvelopeError> {
        self.optional(name)?
            .ok_or_else(|| self.wrong(name, "a string"))
    }

    fn origin(&self) -> Result<Origin, EnvelopeError> {
        match self.0.get("Replayed") {
            None | Some(Json::Bool(false)) => Ok(Origin::Live),
            Some(Json::Bool(true)) => Ok(Origin::Replayed),
            Some(Json::String(text)) if text == "true" => Ok(Origin::Replayed),
            Some(Json::String(text)) if text == "false" => Ok(Origin::Live),
            Some(_) => Err(self.wrong("Replayed", "true or false")),
        }
    }

    fn signature(&self) -> Result<Option<Signature>, EnvelopeError> {
        let Some(value) = self.optional("Signature")? else {
            return Ok(None);
        };
        // The older of the two spellings is that of the first envelopes.
        let cert_url = match self.optional("SigningCertURL")? {
            Some(url) => url,
            None => self
                .required("SigningCertUrl")
                .map_err(|_| self.wrong("SigningCertURL", "a string"))?,
        };
        Ok(Some(Signature {
            version: self.required("SignatureVersion")?.parse()?,
            value,
            cert_url,
        }))
    }

    fn attributes(&self) -> Result<Attributes, EnvelopeError> {
        const NAME: &str = "MessageAttributes";
        let mut attributes = Attributes::new();
        let members = match self.0.get(NAME) {
            None => return Ok(attributes),
            Some(Json::Object(members)) => members,
            Some(_) => return Err(self.wrong(NAME, "an object")),
        };
        for (name, value) in members {
            let part = |part| value.get(part).and_then(Json::as_str);
            let (Some(data_type), Some(text)) = (part("Type"), part("Value")) else {
                return Err(self.wrong(NAME, "an object of objects with Type and Value"));
            };
            let (base, label) = match data_type.split_once('.') {
                None => (data_type, None),
                Some((base, label)) => (base, Some(label)),
            };
            let value = match base {
                "String" => Value::string(text),
                "Number" => Value::number(text)?,
                "Binary" => Value::binary(Payload::from(
                    base64::decode(text)
                        .ok_or_else(|| self.wrong(NAME, "base64 where Type is Binary"))?,
                )),
                _ => return Err(self.wrong(NAME, "of Type String, Number or Binary")),
            };
            let value = match label {
                None => value,
                Some(label) => value.with_label(label)?,
            };
            attributes.put(Attribute::new(name.as_str(), value)?);
        }
        Ok(attributes)
    }
}

#[cfg(test)]
pub(crate) mod tests;
