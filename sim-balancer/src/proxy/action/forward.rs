//! Forwarding to one of weighted groups.

use super::Edits;
use crate::proxy::config::{At, ForwardConfig, Problem, ProxyConfigError};
use crate::proxy::cookie::GroupSticky;
use crate::proxy::rule::{Scope, View};

/// The largest weight of a group: AWS's.
const MAX_WEIGHT: u64 = 999;

#[derive(Debug)]
pub(crate) struct ForwardPlan {
    /// Places of groups, each with the sum of the weights up to and with it.
    groups: Box<[(usize, u64)]>,
    sticky: Option<(GroupSticky, Box<[Box<str>]>)>,
}

impl ForwardPlan {
    pub(super) fn compile(
        config: &ForwardConfig,
        scope: Scope<'_>,
        at: At<'_>,
    ) -> Result<Self, ProxyConfigError> {
        let field = at.field("target_groups");
        if config.target_groups.is_empty() {
            return field.fail(Problem::Missing("a target group"));
        }
        let quotas = &scope.config.quotas;
        field.at_most(
            "groups",
            config.target_groups.len(),
            quotas.forward_groups(),
        )?;
        let mut sum = 0;
        let mut groups: Vec<(usize, u64)> = Vec::with_capacity(config.target_groups.len());
        for (index, group) in config.target_groups.iter().enumerate() {
            let at = at.part("target_groups", index);
            let Some(place) = scope.config.group(&group.name) else {
                return at.field("name").fail(Problem::Unknown {
                    what: "target group",
                    name: group.name.clone(),
                });
            };
            if let Some(first) = groups.iter().position(|(other, _)| *other == place) {
                return at.field("name").fail(Problem::Duplicate {
                    value: group.name.clone(),
                    first: format!("target_groups[{first}]"),
                });
            }
            let targets = scope.config.target_groups[place].protocol;
            if targets.is_http() != scope.listener.protocol.is_http() {
                return at.field("name").fail(Problem::Conflict(format!(
                    "the targets of \"{}\" speak {targets}, and the listener {}",
                    group.name, scope.listener.protocol
                )));
            }
            at.field("weight")
                .within(u64::from(group.weight), (0, MAX_WEIGHT))?;
            sum += u64::from(group.weight);
            groups.push((place, sum));
        }
        let sticky = match &config.stickiness {
            Some(stickiness) => {
                let at = at.field("stickiness");
                at.field("duration")
                    .span(stickiness.duration, quotas.profile.span(1, 604_800))?;
                let names = config
                    .target_groups
                    .iter()
                    .map(|group| group.name.as_str().into());
                Some((
                    GroupSticky::new(scope.keys, stickiness.duration),
                    names.collect(),
                ))
            }
            None => None,
        };
        Ok(Self {
            groups: groups.into(),
            sticky,
        })
    }

    /// The group of a request: the one that its client belongs to, or else one drawn by weight.
    ///
    /// A client stays with its group while the action lists it, whatever its weight has become. One group alone gets
    /// everything; of several whose weights are all zero, none does.
    #[inline]
    pub(super) fn choose(&self, view: &View<'_>, draw: u64, edits: &mut Edits) -> Option<usize> {
        let Some((sticky, names)) = &self.sticky else {
            return self.draw(draw);
        };
        if let Some(name) = sticky.read(view.headers, view.time)
            && let Some(place) = names.iter().position(|known| **known == *name)
        {
            return Some(self.groups[place].0);
        }
        let group = self.draw(draw)?;
        let place = self.groups.iter().position(|(known, _)| *known == group)?;
        edits.set_cookies(sticky.lines(&names[place], view.time));
        Some(group)
    }

    /// A group, drawn by weight.
    #[inline]
    pub(crate) fn draw(&self, bits: u64) -> Option<usize> {
        if let [(group, _)] = *self.groups {
            return Some(group);
        }
        let sum = self.groups.last()?.1;
        let at = ((u128::from(bits) * u128::from(sum)) >> 64) as u64;
        self.groups
            .iter()
            .find(|(_, until)| at < *until)
            .map(|(group, _)| *group)
    }
}
