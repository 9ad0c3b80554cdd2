//! Actions: what follows once a rule is met.
//!
//! The actions of a rule run in their order and end with the one that answers or forwards. On their way they gather
//! [`Edits`]: what the target and the client see in place of what was sent.

mod cors;
mod edit;
mod fixed;
mod forward;
mod limit;
mod redirect;

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::header::SET_COOKIE;
use http::{Response, StatusCode};

use self::cors::Cors;
use self::fixed::Fixed;
use self::forward::ForwardPlan;
use self::limit::RateLimit;
use self::redirect::Redirect;
use super::auth::{Checked, JwtCheck, Keeper, Login};
use super::config::{ActionConfig, At, FaultConfig, Problem, ProxyConfigError};
use super::rule::{Rule, Scope, View};

pub use edit::{Edits, HeaderEdit};

/// What happens to a request.
#[derive(Debug)]
#[non_exhaustive]
pub enum Decision<'r> {
    /// It is forwarded.
    Forward(Forward<'r>),
    /// It is answered.
    Respond(Respond<'r>),
    /// Something has to be waited for: [`Routes::resolve`](super::rule::Routes::resolve).
    Pending(Pending<'r>),
}

/// A request is forwarded.
#[derive(Debug)]
#[non_exhaustive]
pub struct Forward<'r> {
    /// The rule that it met.
    pub rule: &'r Rule,
    /// The group, by its place in the configuration.
    pub group: usize,
    /// What the target and the client see instead.
    pub edits: Edits,
    /// Where copies go.
    pub mirrors: Vec<&'r Mirror>,
    /// How long it is held back on purpose.
    pub delay: Option<Duration>,
    /// The actions that were taken.
    pub taken: Taken,
}

/// A request is answered.
#[derive(Debug)]
#[non_exhaustive]
pub struct Respond<'r> {
    /// The rule that it met.
    pub rule: &'r Rule,
    /// The answer.
    pub response: Response<Bytes>,
    /// The actions that were taken.
    pub taken: Taken,
    /// Why, where it is an error.
    pub reason: Option<Reason>,
    /// Where the client is sent, for the log.
    pub is_redirect: bool,
    /// How long it is held back on purpose.
    pub delay: Option<Duration>,
}

/// Where a copy goes.
#[derive(Debug)]
#[non_exhaustive]
pub struct Mirror {
    /// The group, by its place in the configuration.
    pub group: usize,
    share: Share,
}

/// The actions that were taken, in the words of the access log: `authenticate,forward`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Taken(u16);

impl Taken {
    const NAMES: [&'static str; 9] = [
        "authenticate",
        "jwt-validation",
        "headers",
        "cors",
        "rate-limit",
        "fault",
        "redirect",
        "fixed-response",
        "forward",
    ];

    const fn add(&mut self, place: usize) {
        self.0 |= 1 << place;
    }

    /// Whether none was.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (place, name) in Self::NAMES.iter().enumerate() {
            if self.0 & 1 << place != 0 {
                write!(f, "{separator}{name}")?;
                separator = ",";
            }
        }
        Ok(())
    }
}

/// Why the proxy answered by itself, in the words of the access log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Reason(&'static str);

impl Reason {
    pub(crate) const fn new(text: &'static str) -> Self {
        Self(text)
    }

    /// The words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.0
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// A share of the requests, exact to one in 2^32.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Share(u64);

impl Share {
    fn of_percent(percent: f64) -> Self {
        Self((percent / 100.0 * 4_294_967_296.0) as u64)
    }

    const fn draws(self, bits: u64) -> bool {
        bits >> 32 < self.0
    }
}

/// An action, compiled.
#[derive(Debug)]
pub(crate) enum Step {
    Forward(ForwardPlan),
    Redirect(Redirect),
    Fixed(Fixed),
    Login(Box<Login>),
    Jwt(Box<JwtCheck>),
    Headers(Edits),
    Cors(Box<Cors>),
    Limit(Box<RateLimit>),
    Fault {
        delay: (Share, Duration),
        abort: (Share, StatusCode),
    },
    Mirror(Mirror),
}

impl Step {
    pub(super) fn compile(
        config: &ActionConfig,
        scope: Scope<'_>,
        at: At<'_>,
    ) -> Result<Self, ProxyConfigError> {
        Ok(match config {
            ActionConfig::Forward(config) => {
                Self::Forward(ForwardPlan::compile(config, scope, at)?)
            }
            ActionConfig::Redirect(config) => Self::Redirect(Redirect::compile(config, scope, at)?),
            ActionConfig::FixedResponse(config) => {
                Self::Fixed(Fixed::compile(config, &scope.config.quotas, at)?)
            }
            ActionConfig::AuthenticateOidc(config) => {
                Self::Login(Box::new(Login::compile(config, scope, at)?))
            }
            ActionConfig::AuthenticateCognito(config) => {
                Self::Login(Box::new(Login::compile_cognito(config, scope, at)?))
            }
            ActionConfig::JwtValidation(config) => {
                Self::Jwt(Box::new(JwtCheck::compile(config, scope, at)?))
            }
            ActionConfig::Headers(config) => Self::Headers(Edits::compile(config, at)?),
            ActionConfig::Cors(config) => Self::Cors(Box::new(Cors::compile(config, at)?)),
            ActionConfig::RateLimit(config) => {
                Self::Limit(Box::new(RateLimit::compile(config, at)?))
            }
            ActionConfig::Fault(config) => fault(config, at)?,
            ActionConfig::Mirror(config) => {
                at.field("percent").percent(config.percent)?;
                let Some(group) = scope.config.group(&config.target_group) else {
                    return at.field("target_group").fail(Problem::Unknown {
                        what: "target group",
                        name: config.target_group.clone(),
                    });
                };
                Self::Mirror(Mirror {
                    group,
                    share: Share::of_percent(config.percent),
                })
            }
        })
    }
}

fn fault(config: &FaultConfig, at: At<'_>) -> Result<Step, ProxyConfigError> {
    at.field("delay_percent").percent(config.delay_percent)?;
    at.field("abort_percent").percent(config.abort_percent)?;
    let hour = Duration::from_secs(3_600);
    at.field("delay")
        .span(config.delay, (Duration::ZERO, hour))?;
    at.field("abort_status")
        .within(u64::from(config.abort_status), (400, 599))?;
    let status = StatusCode::from_u16(config.abort_status).or_else(|_| {
        at.field("abort_status")
            .invalid(&config.abort_status.to_string(), "is no status")
    })?;
    Ok(Step::Fault {
        delay: (Share::of_percent(config.delay_percent), config.delay),
        abort: (Share::of_percent(config.abort_percent), status),
    })
}

/// Where a request stands among the actions of its rule.
#[derive(Debug)]
pub(crate) struct Progress<'r> {
    rule: &'r Rule,
    next: usize,
    edits: Edits,
    mirrors: Vec<&'r Mirror>,
    delay: Option<Duration>,
    taken: Taken,
}

impl<'r> Progress<'r> {
    #[inline]
    pub(crate) fn new(rule: &'r Rule) -> Self {
        Self {
            rule,
            next: 0,
            edits: Edits::default(),
            mirrors: Vec::new(),
            delay: None,
            taken: Taken::default(),
        }
    }

    /// Runs actions up to one that answers, forwards or waits.
    #[inline]
    pub(crate) fn run(mut self, view: &View<'_>) -> Decision<'r> {
        let rule = self.rule;
        while let Some(step) = rule.steps.get(self.next) {
            let draw = self.next;
            match step {
                Step::Forward(forward) => return self.forward(forward, view),
                Step::Redirect(redirect) => {
                    self.taken.add(6);
                    let mut respond = match redirect.respond(view) {
                        Some(response) => self.respond(response, None),
                        None => {
                            let response = plain(StatusCode::BAD_REQUEST);
                            return self
                                .respond(response, Some(Reason::new("RedirectUnusable")))
                                .into();
                        }
                    };
                    respond.is_redirect = true;
                    return respond.into();
                }
                Step::Fixed(fixed) => {
                    self.taken.add(7);
                    return self.respond(fixed.response(), None).into();
                }
                Step::Login(_) | Step::Jwt(_) => {
                    return Decision::Pending(Pending {
                        progress: self,
                        is_callback: false,
                    });
                }
                Step::Headers(edits) => {
                    self.taken.add(2);
                    self.edits.extend(edits);
                }
                Step::Cors(cors) => {
                    self.taken.add(3);
                    if let Some(response) = cors.apply(view, &mut self.edits) {
                        return self.respond(response, None).into();
                    }
                }
                Step::Limit(limit) => {
                    self.taken.add(4);
                    if let Some(response) = limit.refuse(view) {
                        return self
                            .respond(response, Some(Reason::new("RateLimited")))
                            .into();
                    }
                }
                Step::Fault { delay, abort } => {
                    self.taken.add(5);
                    if delay.0.draws(view.draw_for(draw)) {
                        self.delay = Some(self.delay.unwrap_or_default().saturating_add(delay.1));
                    }
                    if abort.0.draws(view.draw_for(draw + 1_000)) {
                        return self
                            .respond(plain(abort.1), Some(Reason::new("FaultInjected")))
                            .into();
                    }
                }
                Step::Mirror(mirror) => {
                    if mirror.share.draws(view.draw_for(draw)) {
                        self.mirrors.push(mirror);
                    }
                }
            }
            self.next += 1;
        }
        // Rules are compiled with a routing action at their end.
        self.respond(
            plain(StatusCode::INTERNAL_SERVER_ERROR),
            Some(Reason::new("NoRoutingAction")),
        )
        .into()
    }

    #[inline]
    fn forward(mut self, forward: &'r ForwardPlan, view: &View<'_>) -> Decision<'r> {
        self.taken.add(8);
        let draw = view.draw_for(self.next);
        let Some(group) = forward.choose(view, draw, &mut self.edits) else {
            let reason = Some(Reason::new("NoTargetGroup"));
            return self
                .respond(plain(StatusCode::SERVICE_UNAVAILABLE), reason)
                .into();
        };
        if !self.rule.rewrites.is_empty() && self.rewrite(view).is_err() {
            let reason = Some(Reason::new("TransformUnusable"));
            return self
                .respond(plain(StatusCode::INTERNAL_SERVER_ERROR), reason)
                .into();
        }
        Decision::Forward(Forward {
            rule: self.rule,
            group,
            edits: self.edits,
            mirrors: self.mirrors,
            delay: self.delay,
            taken: self.taken,
        })
    }

    fn rewrite(&mut self, view: &View<'_>) -> Result<(), super::rule::rewrite::Unusable> {
        self.edits.host = self.rule.rewrites.host(view)?;
        self.edits.path_and_query = self.rule.rewrites.url(view)?;
        Ok(())
    }

    /// Answers; what was to be done to a target's response is done to the answer.
    fn respond(self, mut response: Response<Bytes>, reason: Option<Reason>) -> Respond<'r> {
        self.edits.apply_response(response.headers_mut());
        Respond {
            rule: self.rule,
            response,
            taken: self.taken,
            reason,
            is_redirect: false,
            delay: self.delay,
        }
    }

    /// Goes on after an action that waited.
    fn go_on(mut self, checked: Checked, view: &View<'_>) -> Decision<'r> {
        match checked {
            Checked::Pass(edits) => {
                self.edits.extend(&edits);
                self.next += 1;
                self.run(view)
            }
            Checked::Answer(response, reason) => self.respond(response, reason).into(),
        }
    }
}

impl<'r> From<Respond<'r>> for Decision<'r> {
    fn from(respond: Respond<'r>) -> Self {
        Self::Respond(respond)
    }
}

/// A request whose next action waits for something.
#[derive(Debug)]
pub struct Pending<'r> {
    progress: Progress<'r>,
    is_callback: bool,
}

impl<'r> Pending<'r> {
    /// A client comes back from its log-in.
    pub(crate) fn callback(default: &'r Rule) -> Self {
        Self {
            progress: Progress::new(default),
            is_callback: true,
        }
    }

    pub(crate) const fn is_callback(&self) -> bool {
        self.is_callback
    }

    pub(crate) async fn call_back<'l>(
        mut self,
        logins: impl Iterator<Item = &'l Box<Login>>,
        view: &View<'_>,
        keeper: &Keeper,
    ) -> Decision<'r> {
        self.progress.taken.add(0);
        let checked = Login::call_back(logins.map(|login| &**login), view, keeper).await;
        self.progress.go_on(checked, view)
    }

    pub(crate) async fn resume(mut self, view: &View<'_>, keeper: &Keeper) -> Decision<'r> {
        let checked = match self.progress.rule.steps.get(self.progress.next) {
            Some(Step::Login(login)) => {
                self.progress.taken.add(0);
                login.check(view, keeper).await
            }
            Some(Step::Jwt(check)) => {
                self.progress.taken.add(1);
                check.check(view, keeper).await
            }
            _ => Checked::Pass(Edits::default()),
        };
        self.progress.go_on(checked, view)
    }
}

/// An answer of the proxy's own: the status, as a page.
pub(crate) fn plain(status: StatusCode) -> Response<Bytes> {
    let title = format!(
        "{} {}",
        status.as_str(),
        status.canonical_reason().unwrap_or_default()
    );
    let title = title.trim_end();
    let body = format!(
        "<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{title}</h1></center>\r\n</body>\r\n</html>\r\n"
    );
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(
        http::header::CONTENT_TYPE,
        http::HeaderValue::from_static("text/html"),
    );
    response
}

impl Edits {
    /// Adds cookies to the response.
    pub(crate) fn set_cookies(&mut self, lines: impl IntoIterator<Item = http::HeaderValue>) {
        let edits = lines
            .into_iter()
            .map(|line| HeaderEdit::Append(SET_COOKIE, line));
        self.response.extend(edits);
    }
}
