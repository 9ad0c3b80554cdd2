//! Rules: which of them a request meets, and what follows.
//!
//! [`Routes`] are a listener's rules, compiled. [`Routes::decide`] finds the first rule, by priority, whose conditions all
//! hold, and runs its actions as far as they need no waiting; [`Routes::resolve`] does the rest where a client has to be
//! authenticated. Neither reads a clock or draws a number: time and chance come with the [`View`].
//!
//! Reading order: `pattern` and `condition` (does a rule match), `index` (which rules are looked at), `rewrite`,
//! then [`super::action`].

mod condition;
mod index;
pub(crate) mod pattern;
mod priority;
pub(crate) mod rewrite;

use std::net::IpAddr;

use http::{HeaderMap, Method};
use sim_core::sync::Arc;
use sim_core::time::{Instant, Timestamp};

use self::condition::Condition;
use self::index::Index;
use self::rewrite::Rewrites;
use super::action::{Decision, Pending, Progress, Step};
use super::auth::{self, Keeper};
use super::config::{
    ActionConfig, At, ListenerConfig, Problem, Protocol, ProxyConfig, ProxyConfigError, RuleConfig,
};
use super::cookie::Keys;

pub use priority::SetPrioritiesError;

/// The largest priority of a rule: AWS's.
pub const MAX_PRIORITY: u32 = 50_000;

/// What rules look at in a request.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// The method.
    pub method: &'a Method,
    /// The listener's protocol: HTTP or HTTPS.
    pub protocol: Protocol,
    /// The host as the client gave it, with a port or without.
    pub host: &'a str,
    /// The listener's port.
    pub port: u16,
    /// The path.
    pub path: &'a str,
    /// The query, without its question mark.
    pub query: Option<&'a str>,
    /// The headers.
    pub headers: &'a HeaderMap,
    /// The client's address; behind trusted proxies, the one that they tell.
    pub source: IpAddr,
    /// When the request came, for rates.
    pub now: Instant,
    /// The same, for tokens and cookies.
    pub time: Timestamp,
    /// Random bits, for weights and faults.
    pub draw: u64,
}

impl<'a> View<'a> {
    /// The host without its port.
    #[must_use]
    pub fn host_name(&self) -> &'a str {
        split_host(self.host).0
    }

    /// `http` or `https`.
    #[must_use]
    pub const fn scheme(&self) -> &'static str {
        if self.protocol.is_secure() {
            "https"
        } else {
            "http"
        }
    }

    /// The random bits of one use: different uses must not depend on each other.
    pub(crate) const fn draw_for(&self, step: usize) -> u64 {
        // SplitMix64's output function (G. Steele et al., 2014).
        let z = self
            .draw
            .wrapping_add((step as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// The host and the port of an authority; IPv6 addresses keep their brackets.
pub(crate) fn split_host(host: &str) -> (&str, Option<&str>) {
    match host.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') || name.ends_with(']') => (name, Some(port)),
        _ => (host, None),
    }
}

/// The rules of a listener, compiled.
#[derive(Debug)]
pub struct Routes {
    /// By ascending priority.
    rules: Box<[Rule]>,
    default: Rule,
    index: Option<Index>,
    /// Where log-ins come back to: the rules that authenticate, by place.
    callbacks: Box<[(usize, usize)]>,
}

/// A rule, compiled.
#[derive(Debug)]
pub struct Rule {
    priority: Option<u32>,
    name: Option<Box<str>>,
    conditions: Box<[Condition]>,
    pub(crate) rewrites: Rewrites,
    pub(crate) steps: Box<[Step]>,
}

impl Rule {
    /// Its priority; `None` for the default.
    #[must_use]
    pub const fn priority(&self) -> Option<u32> {
        self.priority
    }

    /// Its name, if it has one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    #[inline]
    fn holds(&self, view: &View<'_>) -> bool {
        self.conditions
            .iter()
            .all(|condition| condition.holds(view))
    }
}

impl Routes {
    /// Compiles the rules of a listener.
    ///
    /// # Errors
    ///
    /// [`ProxyConfigError`] with the path of the first field that cannot be used.
    pub fn compile(
        config: &ProxyConfig,
        listener: usize,
        keys: &Arc<Keys>,
    ) -> Result<Self, ProxyConfigError> {
        let Some(listener_config) = config.listeners.get(listener) else {
            return At::ROOT
                .part("listeners", listener)
                .fail(Problem::Missing("a listener"));
        };
        let at = At::ROOT.part("listeners", listener);
        let scope = Scope {
            config,
            listener: listener_config,
            keys,
        };
        let default = Rule {
            priority: None,
            name: None,
            conditions: Box::default(),
            rewrites: Rewrites::default(),
            steps: scope.steps(&listener_config.default_actions, "default_actions", at)?,
        };
        let mut rules = Vec::with_capacity(listener_config.rules.len());
        let mut places = std::collections::BTreeMap::new();
        for (index, rule) in listener_config.rules.iter().enumerate() {
            let at = at.part("rules", index);
            at.field("priority")
                .within(u64::from(rule.priority), (1, u64::from(MAX_PRIORITY)))?;
            if let Some(first) = places.insert(rule.priority, index) {
                return at.field("priority").fail(Problem::Duplicate {
                    value: rule.priority.to_string(),
                    first: format!("listeners[{listener}].rules[{first}]"),
                });
            }
            rules.push(scope.rule(rule, at)?);
        }
        rules.sort_by_key(Rule::priority);
        let callbacks = rules.iter().chain([&default]).enumerate();
        let callbacks = callbacks.flat_map(|(place, rule)| {
            let steps = rule.steps.iter().enumerate();
            let logins = steps.filter(|(_, step)| matches!(step, Step::Login(_)));
            logins.map(move |(step, _)| (place, step))
        });
        Ok(Self {
            callbacks: callbacks.collect(),
            index: Index::build(rules.iter().map(|rule| &*rule.conditions)),
            rules: rules.into(),
            default,
        })
    }

    /// The first rule that a request meets: by priority, or else the default. Allocates nothing.
    #[must_use]
    pub fn find(&self, view: &View<'_>) -> &Rule {
        let found = match &self.index {
            Some(index) => index
                .candidates(view.host_name(), view.path)
                .map(|place| &self.rules[place as usize])
                .find(|rule| rule.holds(view)),
            None => return self.scan(view),
        };
        found.unwrap_or(&self.default)
    }

    /// The same as [`find`](Self::find), by looking at one rule after the other: what the index is measured against.
    #[must_use]
    pub fn scan(&self, view: &View<'_>) -> &Rule {
        let found = self.rules.iter().find(|rule| rule.holds(view));
        found.unwrap_or(&self.default)
    }

    /// Decides what happens to a request, as far as nothing is waited for.
    ///
    /// A plain forward to one group allocates nothing.
    #[must_use]
    pub fn decide<'r>(&'r self, view: &View<'_>) -> Decision<'r> {
        if !self.callbacks.is_empty() && view.path == auth::CALLBACK {
            return Decision::Pending(Pending::callback(&self.default));
        }
        Progress::new(self.find(view)).run(view)
    }

    /// Goes on where [`decide`](Self::decide) met an action that waits: fetches keys and tokens, and runs what follows.
    /// Never comes to [`Decision::Pending`].
    ///
    /// # Cancel safety
    ///
    /// A log-in or a fetch that was under way is lost; the client's next request starts it again.
    pub async fn resolve<'r>(
        &'r self,
        pending: Pending<'r>,
        view: &View<'_>,
        keeper: &Keeper,
    ) -> Decision<'r> {
        let mut pending = pending;
        loop {
            let decision = match pending.is_callback() {
                true => {
                    let logins = self.callbacks.iter().filter_map(|(place, step)| {
                        let rule = self.rules.get(*place).unwrap_or(&self.default);
                        match &rule.steps[*step] {
                            Step::Login(login) => Some(login),
                            _ => None,
                        }
                    });
                    pending.call_back(logins, view, keeper).await
                }
                false => pending.resume(view, keeper).await,
            };
            match decision {
                Decision::Pending(next) => pending = next,
                decision => return decision,
            }
        }
    }

    /// The group that the default action forwards to, drawn by weight; for listeners that see no requests.
    #[must_use]
    pub fn default_group(&self, draw: u64) -> Option<usize> {
        self.default.steps.iter().find_map(|step| match step {
            Step::Forward(forward) => forward.draw(draw),
            _ => None,
        })
    }

    /// The rules by ascending priority, and the default.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter().chain([&self.default])
    }
}

/// Where rules are compiled.
#[derive(Clone, Copy)]
pub(crate) struct Scope<'a> {
    pub(crate) config: &'a ProxyConfig,
    pub(crate) listener: &'a ListenerConfig,
    pub(crate) keys: &'a Arc<Keys>,
}

impl Scope<'_> {
    fn rule(&self, rule: &RuleConfig, at: At<'_>) -> Result<Rule, ProxyConfigError> {
        if let Some(name) = &rule.name {
            at.field("name").at_most("bytes", name.len(), 255)?;
        }
        let quotas = &self.config.quotas;
        Ok(Rule {
            priority: Some(rule.priority),
            name: rule.name.as_deref().map(Box::from),
            conditions: Condition::compile(&rule.conditions, at, quotas)?,
            rewrites: Rewrites::compile(&rule.transforms, at, quotas)?,
            steps: self.steps(&rule.actions, "actions", at)?,
        })
    }

    /// Compiles actions in their order: those with one by it, ties and the others as they are listed.
    fn steps(
        &self,
        actions: &[ActionConfig],
        field: &str,
        at: At<'_>,
    ) -> Result<Box<[Step]>, ProxyConfigError> {
        if actions.is_empty() {
            return at
                .field(field)
                .fail(Problem::Missing("an action that forwards or answers"));
        }
        at.field(field)
            .at_most("actions", actions.len(), self.config.quotas.actions())?;
        let mut ordered: Vec<_> = actions.iter().enumerate().collect();
        let given = actions
            .iter()
            .filter(|action| action.order().is_some())
            .count();
        if given > 0 && given < actions.len() {
            return at.field(field).fail(Problem::Conflict(
                "either all actions have an order or none".to_owned(),
            ));
        }
        for (index, action) in &ordered {
            if let Some(order) = action.order() {
                let at = at.part(field, *index);
                at.field("order")
                    .within(u64::from(order), (1, u64::from(MAX_PRIORITY)))?;
                let first = actions[..*index]
                    .iter()
                    .position(|other| other.order() == Some(order));
                if let Some(first) = first {
                    return at.field("order").fail(Problem::Duplicate {
                        value: order.to_string(),
                        first: format!("{field}[{first}]"),
                    });
                }
            }
        }
        ordered.sort_by_key(|(_, action)| action.order());
        let last = ordered.len() - 1;
        let steps = ordered.iter().enumerate().map(|(place, (index, action))| {
            let at = at.part(field, *index);
            if action.is_routing() != (place == last) {
                return at.fail(Problem::Conflict(format!(
                    "exactly one action forwards or answers, and it is the last; this is {} of {}, {}",
                    place + 1,
                    last + 1,
                    action.as_str()
                )));
            }
            if !self.listener.protocol.is_http() && !matches!(action, ActionConfig::Forward(_)) {
                return at.fail(Problem::Conflict(format!(
                    "{} only forwards",
                    self.listener.protocol
                )));
            }
            Step::compile(action, *self, at)
        });
        steps.collect()
    }
}

#[cfg(test)]
mod tests;
