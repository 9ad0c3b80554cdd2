//! The policies of a group.

use sim_core::sync::Arc;
use sim_core::time::Instant;

use super::{
    Applied, By, Decision, Explanation, Policy, PolicyConfig, PolicyError, PolicyInput,
    PolicyState, Reason, Verdict, Vote, combine,
};

/// The policies of a group with what they remember; at most so many (50 by default, as EC2 allows a group).
#[derive(Debug, Clone)]
pub struct PolicySet {
    entries: Vec<Entry>,
    limit: usize,
}

#[derive(Debug, Clone)]
struct Entry {
    policy: Policy,
    state: PolicyState,
    enabled: Enabled,
}

/// Whether a policy is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Enabled {
    /// It is.
    #[default]
    Yes,
    /// It is not; what it remembers stays.
    No,
}

impl Default for PolicySet {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            limit: 50,
        }
    }
}

impl PolicySet {
    /// Makes an empty set of at most `limit` policies.
    #[must_use]
    pub const fn new(limit: usize) -> Self {
        Self {
            entries: Vec::new(),
            limit,
        }
    }

    /// Adds a policy; one of the same name is replaced and starts anew, in its place.
    ///
    /// # Errors
    ///
    /// [`PolicySetError`]: the policy's settings, or too many. Nothing is changed then.
    pub fn put(&mut self, name: &str, config: PolicyConfig) -> Result<(), PolicySetError> {
        let policy = Policy::new(name, config)?;
        let entry = Entry {
            state: policy.start(),
            policy,
            enabled: Enabled::Yes,
        };
        let at = self
            .entries
            .iter()
            .position(|one| one.policy.name() == name);
        match at {
            Some(at) => self.entries[at] = entry,
            None if self.entries.len() >= self.limit => {
                return Err(PolicySetError::Full { limit: self.limit });
            }
            None => self.entries.push(entry),
        }
        Ok(())
    }

    /// Removes a policy; whether there was one.
    pub fn remove(&mut self, name: &str) -> Option<Policy> {
        let at = self
            .entries
            .iter()
            .position(|one| one.policy.name() == name)?;
        Some(self.entries.remove(at).policy)
    }

    /// Switches a policy on or off.
    ///
    /// # Errors
    ///
    /// [`PolicySetError::Unknown`].
    pub fn set_enabled(&mut self, name: &str, enabled: Enabled) -> Result<(), PolicySetError> {
        let entry = self
            .entries
            .iter_mut()
            .find(|one| one.policy.name() == name);
        let entry = entry.ok_or_else(|| PolicySetError::Unknown {
            name: name.to_owned(),
        })?;
        entry.enabled = enabled;
        Ok(())
    }

    /// The policies, in the order in which they were added.
    pub fn policies(&self) -> impl Iterator<Item = &Policy> {
        self.entries.iter().map(|entry| &entry.policy)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Asks all policies and combines what they say (see [`combine`]). Nothing is carried out: that is told by
    /// [`applied`](Self::applied).
    pub fn decide(&mut self, input: &PolicyInput<'_>) -> Verdict {
        let decisions = self
            .entries
            .iter_mut()
            .map(|entry| match entry.enabled {
                Enabled::Yes => entry.policy.decide(&mut entry.state, input),
                Enabled::No => Decision {
                    policy: Arc::clone(&entry.policy.name),
                    kind: entry.policy.kind(),
                    vote: Vote::Abstain,
                    desired: input.capacity.desired,
                    bounds: None,
                    floor: None,
                    explanation: Explanation::of(Reason::Disabled),
                    next: None,
                },
            })
            .collect();
        let capacity = input.capacity;
        combine(capacity.desired, capacity.min, capacity.max, decisions)
    }

    /// Tells the policies that the desired capacity was changed: cooldowns and warm-ups begin. `policy` is the one that
    /// was followed, as the verdict names it.
    pub fn applied(&mut self, at: Instant, from: u32, to: u32, policy: Option<&str>) {
        if from == to {
            return;
        }
        for entry in &mut self.entries {
            let by = if policy == Some(entry.policy.name()) {
                By::This
            } else {
                By::Another
            };
            let applied = Applied { at, from, to, by };
            entry.policy.applied(&mut entry.state, &applied);
        }
    }
}

/// A policy could not be added or changed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicySetError {
    /// The policy's settings.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// There are as many as there may be.
    #[error("policies: there are {limit} already, the most allowed")]
    Full {
        /// How many there may be.
        limit: usize,
    },
    /// There is none of that name.
    #[error("policy: there is no `{name}`")]
    Unknown {
        /// The name.
        name: String,
    },
}
