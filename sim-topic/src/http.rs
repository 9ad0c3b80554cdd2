//! HTTP(S) endpoints: subscribers at the other end of a socket. Needs the feature `http`.
//!
//! [`HttpEndpoint`] is a [`Handler`] of deliveries, so the topic knows nothing of HTTP: it is subscribed with
//! [`Subscriber::endpoint`](crate::Subscriber::endpoint), is sent a confirmation first, and gets messages once its
//! token came back.
//!
//! # Rules
//!
//! - One delivery is one `POST`, to be answered within 15 s (configurable; measured by the topic's [`Clock`]). The
//!   status is the answer: it stands, whether the body that follows comes in time or not.
//! - `2xx` is success. `5xx`, `429`, no answer in time and any failure of the connection are the server's errors, tried
//!   again by the subscription's retry policy, and not before a `Retry-After` in seconds. Everything else is the
//!   client's error and not tried again; a redirect is one of these, since it is not followed.
//! - The body is an [envelope](crate::Envelope), signed where there is a signer, or with raw delivery the message's
//!   bytes. Headers tell type, ids and names in both cases.
//! - At least once: a connection that the server closed while it was idle is replaced and the request sent again.
//!
//! Source: SNS developer guide, "Amazon SNS message delivery retries", "HTTP/HTTPS headers" and "Prerequisites for
//! delivering to HTTP/S endpoints".
//!
//! # How it works
//!
//! Nothing is spawned: the future of a delivery drives its own connection, and a dropped one closes it. Idle
//! connections are kept, a few, and are polled when they are taken again. One that was idle for too long is never used
//! again, but nobody wakes up to close it: that comes with the endpoint's next delivery, or with its end. HTTP/1.1 only. Names are
//! resolved by tokio, on its blocking threads.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use sim_core::clock::{Clock, Sleep};
use sim_core::payload::Payload;
use sim_core::seam::Handler;

use self::connection::{Answer, Connection, Pool};
pub use self::sign::{KeyError, Signer, Verifier, VerifyError};
use self::target::Target;
use self::tls::Trust;
use crate::envelope::{self, Envelope, Naming};
use crate::error::DeliveryError;
use crate::machine::retry::ContentType;
use crate::message::Delivery;

mod connection;
mod sign;
mod target;
mod tls;

/// How long SNS waits for an answer: 15 s.
pub const AWS_TIMEOUT: Duration = Duration::from_secs(15);
/// The longest timeout.
const MAX_TIMEOUT: Duration = Duration::from_secs(3_600);
/// The most headers of one's own, and the most bytes of them all.
const MAX_HEADERS: usize = 64;
const MAX_HEADER_BYTES: usize = 16 * 1024;
/// The longest time that an answer may ask to be left alone.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3_600);
/// How much of an answer's body an error tells.
const SHOWN_BYTES: usize = 200;

const MESSAGE_TYPE: HeaderName = HeaderName::from_static("x-amz-sns-message-type");
const MESSAGE_ID: HeaderName = HeaderName::from_static("x-amz-sns-message-id");
const TOPIC_ARN: HeaderName = HeaderName::from_static("x-amz-sns-topic-arn");
const SUBSCRIPTION_ARN: HeaderName = HeaderName::from_static("x-amz-sns-subscription-arn");
const RAW_DELIVERY: HeaderName = HeaderName::from_static("x-amz-sns-rawdelivery");

/// What an [`HttpEndpoint`] is told once. Plain fields; checked when the endpoint is made.
#[derive(Debug, Clone)]
pub struct HttpConfig {
    /// Where it posts to: `http://` or `https://`, with `user:password@` before the host for basic authentication.
    pub url: String,
    /// What it posts. Default: [`HttpBody::Envelope`].
    pub body: HttpBody,
    /// The content type of messages. Default: `text/plain; charset=UTF-8`, as SNS's.
    pub content_type: ContentType,
    /// Further headers, by name. Default: none; at most 64 with 16 KiB together, and none that a delivery sets itself.
    pub headers: Vec<(String, String)>,
    /// How long an answer may take, connecting included. Default: 15 s, as SNS; 1 ms to an hour.
    pub timeout: Duration,
    /// How much of an answer's body is read; a longer one counts by its status, and its connection is closed.
    /// Default: 64 KiB.
    pub max_answer_bytes: usize,
    /// How many idle connections are kept. Default: 8.
    pub idle_connections: usize,
    /// How long one may be idle and still be used. Default: 10 s. It is closed at the endpoint's next delivery after
    /// that, or with the endpoint, and counts as idle until then.
    pub idle_for: Duration,
    /// What topic and subscription are called outside. Default: by their own names.
    pub naming: Naming,
    /// Who signs envelopes. Default: nobody.
    pub signer: Option<Signer>,
    /// Whose certificates are trusted. Default: those that the system trusts.
    pub roots: Roots,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            url: String::new(),
            body: HttpBody::Envelope,
            content_type: ContentType::default(),
            headers: Vec::new(),
            timeout: AWS_TIMEOUT,
            max_answer_bytes: 64 * 1024,
            idle_connections: 8,
            idle_for: Duration::from_secs(10),
            naming: Naming::default(),
            signer: None,
            roots: Roots::System,
        }
    }
}

impl HttpConfig {
    /// The defaults for a URL.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            ..Self::default()
        }
    }
}

/// What an endpoint gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum HttpBody {
    /// The [envelope](crate::Envelope).
    #[default]
    Envelope,
    /// The message's bytes alone: raw delivery. Attributes do not travel then, as in SNS; confirmations come in
    /// envelopes all the same.
    Raw,
}

/// Whose certificates an endpoint trusts over TLS.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Roots {
    /// Those that the operating system trusts.
    #[default]
    System,
    /// Those in this text of PEM sections, and no others.
    Pem(String),
}

/// Why an endpoint cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// The URL cannot be posted to.
    #[error("url is {url:?}: {reason}")]
    Url {
        /// The URL, without a password.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A header cannot be sent.
    #[error("header {name:?} {reason}")]
    Header {
        /// Its name.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// There are too many headers.
    #[error("headers are {found} {unit}, more than {limit}")]
    Headers {
        /// How many there are.
        found: usize,
        /// How many there may be.
        limit: usize,
        /// Of what.
        unit: &'static str,
    },
    /// The timeout is out of its range.
    #[error("timeout is {value:?}, not between {min:?} and {max:?}")]
    Timeout {
        /// What it was.
        value: Duration,
        /// The shortest.
        min: Duration,
        /// The longest.
        max: Duration,
    },
    /// There is no certificate to trust.
    #[error("roots: {reason}")]
    Roots {
        /// Why.
        reason: String,
    },
}

/// A subscriber that posts what it gets to a URL.
///
/// ```
/// use sim_core::clock::Clock;
/// use sim_topic::http::{HttpConfig, HttpEndpoint};
///
/// let endpoint = HttpEndpoint::new(HttpConfig::new("http://localhost:8080/hook"), Clock::system())?;
/// assert_eq!(endpoint.url(), "http://localhost:8080/hook");
///
/// let error = HttpEndpoint::new(HttpConfig::new("ftp://localhost/"), Clock::system()).unwrap_err();
/// assert_eq!(error.to_string(), r#"url is "ftp://localhost/": the scheme is not http or https"#);
/// # Ok::<(), sim_topic::http::HttpError>(())
/// ```
pub struct HttpEndpoint<T = Payload> {
    /// What a value is outside.
    bytes_of: Box<dyn Fn(&T) -> Payload + Send + Sync>,
    target: Target,
    trust: Option<Trust>,
    pool: Pool,
    /// Headers that every request has.
    headers: HeaderMap,
    content_type: HeaderValue,
    body: HttpBody,
    naming: Naming,
    signer: Option<Signer>,
    timeout: Duration,
    clock: Clock,
}

impl HttpEndpoint {
    /// Checks a configuration and makes an endpoint for a topic of bytes; connects to nothing yet.
    ///
    /// # Errors
    ///
    /// The first field that is out of its range, or [`HttpError::Roots`] when there is no certificate to trust.
    pub fn new(config: HttpConfig, clock: Clock) -> Result<Self, HttpError> {
        Self::with_body(config, clock, Payload::clone)
    }
}

impl<T> HttpEndpoint<T> {
    /// Checks a configuration and makes an endpoint for a topic of `T`, of whose values `bytes_of` makes what is sent: an
    /// encoding, or [the text for this protocol](crate::Structured::for_protocol).
    ///
    /// # Errors
    ///
    /// As [`new`](HttpEndpoint::new).
    pub fn with_body(
        config: HttpConfig,
        clock: Clock,
        bytes_of: impl Fn(&T) -> Payload + Send + Sync + 'static,
    ) -> Result<Self, HttpError> {
        let target = Target::parse(&config.url)?;
        let shortest = Duration::from_millis(1);
        if !(shortest..=MAX_TIMEOUT).contains(&config.timeout) {
            return Err(HttpError::Timeout {
                value: config.timeout,
                min: shortest,
                max: MAX_TIMEOUT,
            });
        }
        let mut headers = own_headers(&config.headers)?;
        headers.insert(header::HOST, target.host_header.clone());
        headers.insert(
            header::USER_AGENT,
            HeaderValue::from_static(concat!("sim-topic/", env!("CARGO_PKG_VERSION"))),
        );
        if let Some(authorization) = &target.authorization {
            if headers.contains_key(header::AUTHORIZATION) {
                return Err(HttpError::Header {
                    name: header::AUTHORIZATION.as_str().to_owned(),
                    reason: "is set by the user and password of the url",
                });
            }
            headers.insert(header::AUTHORIZATION, authorization.clone());
        }
        let content_type =
            HeaderValue::from_str(config.content_type.as_str()).map_err(|_| HttpError::Header {
                name: header::CONTENT_TYPE.as_str().to_owned(),
                reason: "has characters that no header may have",
            })?;
        let trust = match target.tls {
            None => None,
            Some(_) => Some(Trust::new(&config.roots, clock.clone())?),
        };
        Ok(Self {
            bytes_of: Box::new(bytes_of),
            pool: Pool::new(
                config.idle_connections,
                config.idle_for,
                config.max_answer_bytes,
            ),
            target,
            trust,
            headers,
            content_type,
            body: config.body,
            naming: config.naming,
            signer: config.signer,
            timeout: config.timeout,
            clock,
        })
    }

    /// Where it posts to, without user and password.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.target.url
    }

    /// How many idle connections it keeps at present.
    #[must_use]
    pub fn idle_connections(&self) -> usize {
        self.pool.len()
    }

    async fn deliver(&self, delivery: Delivery<T>) -> Result<(), DeliveryError> {
        let request = self.compose(&delivery)?;
        let mut timer = self.clock.sleep_until(self.clock.now() + self.timeout);
        let (mut connection, mut answer) = match before(&mut timer, self.exchange(request)).await {
            None => {
                let what = format_args!("no answer within {:?}", self.timeout);
                return Err(self.server_error(what, None));
            }
            Some(Err(failure)) => return Err(self.server_error(format_args!("{failure}"), None)),
            Some(Ok(begun)) => begun,
        };
        // The status has been said: the body decides nothing, nor does the time that it takes.
        let reading = connection.read(&mut answer, self.pool.limit());
        if before(&mut timer, reading).await.is_some() {
            self.pool.put(connection, &answer, self.clock.now());
        }
        self.judge(&answer)
    }

    /// Posts over a connection that is there, or over a new one, until the answer begins.
    async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<(Connection, Answer), String> {
        if let Some(mut connection) = self.pool.take(self.clock.now()) {
            match connection.send(request.clone(), self.pool.limit()).await {
                Ok(answer) => return Ok((connection, answer)),
                Err(failure) if failure.answered => return Err(failure.reason),
                // The server closed it while it was idle, which shows only now.
                Err(_) => {}
            }
        }
        let mut connection = connection::open(&self.target, self.trust.as_ref()).await?;
        match connection.send(request, self.pool.limit()).await {
            Ok(answer) => Ok((connection, answer)),
            Err(failure) => Err(failure.reason),
        }
    }

    fn compose(&self, delivery: &Delivery<T>) -> Result<Request<Full<Bytes>>, DeliveryError> {
        let naming = &self.naming;
        let (topic, subscription, id) = match delivery {
            Delivery::Notification(notification) => (
                notification.topic(),
                Some(notification.subscription()),
                notification.id(),
            ),
            // A subscription that is not confirmed has no name yet.
            Delivery::Confirmation(request) => (&*request.topic, None, request.id),
            Delivery::Unsubscribed(request) => {
                (&*request.topic, Some(request.subscription), request.id)
            }
        };
        let (kind, raw, body) = match delivery {
            Delivery::Notification(notification) => {
                let bytes = (self.bytes_of)(notification.value());
                match self.body {
                    HttpBody::Raw => ("Notification", true, bytes.into_bytes()),
                    HttpBody::Envelope => {
                        let message = envelope::text(&bytes)
                            .map_err(|error| self.client_error(format_args!("{error}")))?;
                        let envelope = Envelope::with_message(notification, message, naming);
                        (envelope.kind.as_str(), false, self.sealed(envelope)?)
                    }
                }
            }
            Delivery::Confirmation(request) => {
                let envelope = Envelope::subscribed(request, naming);
                (envelope.kind.as_str(), false, self.sealed(envelope)?)
            }
            Delivery::Unsubscribed(request) => {
                let envelope = Envelope::unsubscribed(request, naming);
                (envelope.kind.as_str(), false, self.sealed(envelope)?)
            }
        };
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.target.path.clone();
        let headers = request.headers_mut();
        headers.clone_from(&self.headers);
        headers.insert(header::CONTENT_TYPE, self.content_type.clone());
        headers.insert(MESSAGE_TYPE, HeaderValue::from_static(kind));
        let value = |text: &str| {
            HeaderValue::from_str(text).map_err(|_| {
                self.client_error(format_args!(
                    "{text:?} cannot stand in a header: see naming"
                ))
            })
        };
        headers.insert(MESSAGE_ID, value(&id.to_string())?);
        headers.insert(TOPIC_ARN, value(naming.topic(topic))?);
        if let Some(subscription) = subscription {
            headers.insert(
                SUBSCRIPTION_ARN,
                value(&naming.subscription(topic, subscription))?,
            );
        }
        if raw {
            headers.insert(RAW_DELIVERY, HeaderValue::from_static("true"));
        }
        Ok(request)
    }

    /// An envelope, signed where there is a signer.
    fn sealed(&self, mut envelope: Envelope) -> Result<Bytes, DeliveryError> {
        if let Some(signer) = &self.signer {
            signer
                .sign(&mut envelope)
                .map_err(|error| self.server_error(format_args!("{error}"), None))?;
        }
        Ok(envelope.to_json().into())
    }

    fn judge(&self, answer: &Answer) -> Result<(), DeliveryError> {
        let status = answer.status;
        if status.is_success() {
            return Ok(());
        }
        let body = shown(&answer.body);
        let said = if body.is_empty() {
            format!("answered {status}")
        } else {
            format!("answered {status}: {body}")
        };
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            Err(self.server_error(format_args!("{said}"), answer.retry_after))
        } else {
            Err(self.client_error(format_args!("{said}")))
        }
    }

    fn server_error(
        &self,
        what: fmt::Arguments<'_>,
        retry_after: Option<Duration>,
    ) -> DeliveryError {
        DeliveryError::Server {
            source: format!("{}: {what}", self.target.url).into(),
            retry_after: retry_after.map(|wait| wait.min(MAX_RETRY_AFTER)),
        }
    }

    fn client_error(&self, what: fmt::Arguments<'_>) -> DeliveryError {
        DeliveryError::Client {
            source: format!("{}: {what}", self.target.url).into(),
        }
    }
}

impl<T: Send + Sync + 'static> Handler<Delivery<T>, Result<(), DeliveryError>> for HttpEndpoint<T> {
    /// Posts a delivery.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes its connection; the server may have got the message all the same.
    ///
    /// # Panics
    ///
    /// When it is polled outside of a tokio runtime with IO.
    fn handle(
        &self,
        input: Delivery<T>,
    ) -> Pin<Box<dyn Future<Output = Result<(), DeliveryError>> + Send + '_>> {
        Box::pin(self.deliver(input))
    }
}

impl<T> fmt::Debug for HttpEndpoint<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpEndpoint")
            .field("url", &self.target.url)
            .field("body", &self.body)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// Checks the user's headers.
fn own_headers(pairs: &[(String, String)]) -> Result<HeaderMap, HttpError> {
    let too_many = |found, limit, unit| Err(HttpError::Headers { found, limit, unit });
    if pairs.len() > MAX_HEADERS {
        return too_many(pairs.len(), MAX_HEADERS, "headers");
    }
    let bytes = pairs
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    if bytes > MAX_HEADER_BYTES {
        return too_many(bytes, MAX_HEADER_BYTES, "bytes");
    }
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        let wrong = |reason| HttpError::Header {
            name: name.clone(),
            reason,
        };
        let header =
            HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong("is no name of a header"))?;
        if is_set_by_delivery(&header) {
            return Err(wrong("is set by every delivery"));
        }
        let value = HeaderValue::from_str(value)
            .map_err(|_| wrong("has a value with characters that no header may have"))?;
        headers.append(header, value);
    }
    Ok(headers)
}

/// Waits for a future until the timer ends; none when it ends first.
async fn before<F: Future>(timer: &mut Sleep, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        Pin::new(&mut *timer).poll(cx).map(|()| None)
    })
    .await
}

fn is_set_by_delivery(name: &HeaderName) -> bool {
    const SET: [HeaderName; 10] = [
        header::HOST,
        header::CONTENT_TYPE,
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::CONNECTION,
        header::EXPECT,
        header::TE,
        header::TRAILER,
        header::UPGRADE,
        header::USER_AGENT,
    ];
    SET.contains(name) || name.as_str().starts_with("x-amz-sns-")
}

/// The beginning of an answer's body, for people: one line of visible characters.
fn shown(body: &[u8]) -> String {
    let cut = &body[..body.len().min(SHOWN_BYTES)];
    let text: String = String::from_utf8_lossy(cut)
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    text.trim().to_owned()
}

#[cfg(test)]
mod tests;
