//! New priorities for rules, all at once.

use std::collections::BTreeMap;

use super::MAX_PRIORITY;
use crate::proxy::config::ListenerConfig;

impl ListenerConfig {
    /// Gives rules other priorities, all at once: each pair is a present priority and the new one.
    ///
    /// Rules may so change places, which one change after the other could not do.
    ///
    /// ```
    /// use sim_balancer::proxy::config::{ListenerConfig, RuleConfig};
    ///
    /// let rule = |priority| RuleConfig { priority, ..Default::default() };
    /// let mut listener = ListenerConfig { rules: vec![rule(1), rule(2)], ..Default::default() };
    /// listener.set_priorities(&[(1, 2), (2, 1)])?;
    /// assert_eq!(listener.rules[0].priority, 2);
    /// # Ok::<(), sim_balancer::proxy::rule::SetPrioritiesError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`SetPrioritiesError`], and then nothing has changed.
    pub fn set_priorities(&mut self, changes: &[(u32, u32)]) -> Result<(), SetPrioritiesError> {
        let mut wanted = BTreeMap::new();
        for (from, to) in changes {
            if *to == 0 || *to > MAX_PRIORITY {
                return Err(SetPrioritiesError::OutOfRange { priority: *to });
            }
            if !self.rules.iter().any(|rule| rule.priority == *from) {
                return Err(SetPrioritiesError::NoSuchRule { priority: *from });
            }
            if wanted.insert(*from, *to).is_some() {
                return Err(SetPrioritiesError::Twice { priority: *from });
            }
        }
        let of = |priority: u32| wanted.get(&priority).copied().unwrap_or(priority);
        let mut taken = BTreeMap::new();
        for rule in &self.rules {
            if taken.insert(of(rule.priority), ()).is_some() {
                return Err(SetPrioritiesError::InUse {
                    priority: of(rule.priority),
                });
            }
        }
        for rule in &mut self.rules {
            rule.priority = of(rule.priority);
        }
        Ok(())
    }
}

/// Priorities cannot be set as asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SetPrioritiesError {
    /// The new one is not 1 to 50,000.
    #[error("the priority {priority} is not 1 to {MAX_PRIORITY}")]
    OutOfRange {
        /// The new one.
        priority: u32,
    },
    /// No rule has the present one.
    #[error("no rule has the priority {priority}")]
    NoSuchRule {
        /// The present one.
        priority: u32,
    },
    /// One rule is given two.
    #[error("the rule with the priority {priority} is given two")]
    Twice {
        /// The present one.
        priority: u32,
    },
    /// Two rules would have the same.
    #[error("two rules would have the priority {priority}")]
    InUse {
        /// The one that both would have.
        priority: u32,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::config::RuleConfig;

    fn listener() -> ListenerConfig {
        let rules = [10, 20, 30].map(|priority| RuleConfig {
            priority,
            ..Default::default()
        });
        ListenerConfig {
            rules: rules.to_vec(),
            ..Default::default()
        }
    }

    fn after(changes: &[(u32, u32)]) -> Result<Vec<u32>, SetPrioritiesError> {
        let mut listener = listener();
        let result = listener.set_priorities(changes);
        let priorities: Vec<_> = listener.rules.iter().map(|rule| rule.priority).collect();
        if result.is_err() {
            assert_eq!(priorities, [10, 20, 30], "nothing has changed");
        }
        result.map(|()| priorities)
    }

    #[test]
    fn rules_change_places() {
        assert_eq!(after(&[(10, 20), (20, 10)]), Ok(vec![20, 10, 30]));
        assert_eq!(after(&[(30, 1)]), Ok(vec![10, 20, 1]));
    }

    #[test]
    fn changes_that_cannot_be_made_change_nothing() {
        use SetPrioritiesError::{InUse, NoSuchRule, OutOfRange, Twice};
        assert_eq!(after(&[(20, 5), (10, 30)]), Err(InUse { priority: 30 }));
        assert_eq!(after(&[(20, 5), (11, 3)]), Err(NoSuchRule { priority: 11 }));
        assert_eq!(after(&[(20, 5), (20, 6)]), Err(Twice { priority: 20 }));
        assert_eq!(after(&[(20, 5), (10, 0)]), Err(OutOfRange { priority: 0 }));
        assert_eq!(after(&[(10, 50_001)]), Err(OutOfRange { priority: 50_001 }));
    }
}
