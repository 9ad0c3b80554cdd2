//! The tokens that confirm subscriptions.
//!
//! # Rules
//!
//! - A subscription has at most [`EACH`] tokens; a newer one takes the place of the oldest.
//! - An expired token is remembered as long again as it was valid, so that whoever comes late learns it.
//! - The tokens of a subscription go with it.
//!
//! # Algorithm
//!
//! A map by token, one by time, and one by subscription: every operation is O(log n) in all tokens.

use std::collections::BTreeMap;
use std::time::Duration;

use sim_core::time::Instant;

use crate::message::{SubscriptionId, Token};

/// How many tokens of one subscription are known: the one it confirmed by, and the one that restores it.
const EACH: usize = 2;

/// All tokens of a topic. Bound: [`EACH`] for each subscription.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    all: BTreeMap<Token, Issued>,
    /// By when they end, and their numbers.
    ends: BTreeMap<(Instant, u64), Token>,
    /// Those of each subscription, the oldest first; none is empty.
    of: BTreeMap<SubscriptionId, Vec<Token>>,
}

/// What is known of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Issued {
    pub(crate) subscription: SubscriptionId,
    /// Until when it is valid.
    pub(crate) ends: Instant,
    number: u64,
}

impl Tokens {
    /// Adds a token; `number` is greater than that of every token before it.
    pub(crate) fn issue(
        &mut self,
        token: Token,
        subscription: SubscriptionId,
        ends: Instant,
        number: u64,
    ) {
        let issued = Issued {
            subscription,
            ends,
            number,
        };
        self.all.insert(token.clone(), issued);
        self.ends.insert((ends, number), token.clone());
        let mine = self.of.entry(subscription).or_default();
        mine.push(token);
        let oldest = (mine.len() > EACH).then(|| mine.remove(0));
        if let Some(oldest) = oldest {
            self.forget(&oldest);
        }
    }

    pub(crate) fn get(&self, token: &Token) -> Option<Issued> {
        self.all.get(token).copied()
    }

    /// Forgets all tokens of a subscription that is over.
    pub(crate) fn end(&mut self, subscription: SubscriptionId) {
        for token in self.of.remove(&subscription).unwrap_or_default() {
            self.forget(&token);
        }
    }

    /// Forgets one token that ended `validity` ago or before; returns whose last one it was, within another option
    /// that is none when there is no such token.
    pub(crate) fn expire(
        &mut self,
        now: Instant,
        validity: Duration,
    ) -> Option<Option<SubscriptionId>> {
        let (&(ends, _), _) = self.ends.first_key_value()?;
        if ends + validity > now {
            return None;
        }
        let (_, token) = self.ends.pop_first()?;
        let subscription = self.all.remove(&token)?.subscription;
        let mine = self.of.get_mut(&subscription)?;
        mine.retain(|other| *other != token);
        if !mine.is_empty() {
            return Some(None);
        }
        self.of.remove(&subscription);
        Some(Some(subscription))
    }

    fn forget(&mut self, token: &Token) {
        if let Some(issued) = self.all.remove(token) {
            self.ends.remove(&(issued.ends, issued.number));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(n: u8) -> Token {
        Token::from_digest([n; 32])
    }

    fn at(n: u64) -> Instant {
        Instant::ORIGIN + Duration::from_secs(n)
    }

    const WEEK: Duration = Duration::from_secs(604_800);

    #[test]
    fn the_tokens_of_a_subscription_go_with_it() {
        let mut tokens = Tokens::default();
        for n in 0..100 {
            let id = SubscriptionId::new(u64::from(n));
            tokens.issue(token(n), id, at(10), u64::from(n));
            tokens.end(id);
        }
        let left = (tokens.all.len(), tokens.ends.len(), tokens.of.len());
        assert_eq!(left, (0, 0, 0));
    }

    #[test]
    fn a_subscription_has_at_most_two_tokens() {
        let mut tokens = Tokens::default();
        let id = SubscriptionId::new(1);
        for n in 0..100 {
            tokens.issue(token(n), id, at(u64::from(n)), u64::from(n));
        }
        let left = (tokens.all.len(), tokens.ends.len(), tokens.of[&id].len());
        assert_eq!(left, (2, 2, 2));
        assert_eq!(tokens.get(&token(97)), None);
        assert_eq!(
            tokens.get(&token(98)).map(|issued| issued.ends),
            Some(at(98))
        );
    }

    #[test]
    fn a_token_is_forgotten_when_it_has_been_expired_as_long_as_it_was_valid() {
        let mut tokens = Tokens::default();
        let id = SubscriptionId::new(1);
        tokens.issue(token(1), id, at(10), 1);
        tokens.issue(token(2), id, at(20), 2);
        let end = at(10) + WEEK;
        let before = at(9) + WEEK;
        assert_eq!(tokens.expire(before, WEEK), None);
        assert_eq!(tokens.expire(end, WEEK), Some(None), "it has another one");
        assert_eq!(tokens.expire(end, WEEK), None);
        assert_eq!(
            tokens.expire(at(20) + WEEK, WEEK),
            Some(Some(id)),
            "its last one"
        );
        assert_eq!(tokens.get(&token(2)), None);
    }
}
