//! Where a request may go: [`Route`].

use std::fmt;

use sim_core::sync::{Arc, Mutex};

use crate::message::{Request, TargetId, Zone};

/// Tells a [`Balance`](super::Balance) where a request may go.
pub trait Route<Req> {
    /// What targets are called with: the request, without what was only said to the balancer.
    type Request;

    /// Calls `pick` with what it reads off the request.
    fn directed<T>(&self, request: &Req, pick: impl FnOnce(&Request<'_>) -> T) -> T;

    /// Hears which target the request goes to.
    fn sent(&self, request: &Req, target: &TargetId) {
        let _ = (request, target);
    }

    /// Takes the request apart.
    fn unwrap_request(&self, request: Req) -> Self::Request;
}

/// Any target will do.
#[derive(Debug, Clone, Copy, Default)]
pub struct Anywhere;

impl<Req> Route<Req> for Anywhere {
    type Request = Req;

    fn directed<T>(&self, _: &Req, pick: impl FnOnce(&Request<'_>) -> T) -> T {
        pick(&Request::default())
    }

    fn unwrap_request(&self, request: Req) -> Req {
        request
    }
}

/// By the key that a function reads off the request, for the algorithms by key.
#[derive(Clone, Copy)]
pub struct ByKey<F>(pub F);

impl<Req, F: Fn(&Req) -> Option<u64>> Route<Req> for ByKey<F> {
    type Request = Req;

    fn directed<T>(&self, request: &Req, pick: impl FnOnce(&Request<'_>) -> T) -> T {
        pick(&Request {
            key: (self.0)(request),
            ..Request::default()
        })
    }

    fn unwrap_request(&self, request: Req) -> Req {
        request
    }
}

impl<F> fmt::Debug for ByKey<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByKey").finish_non_exhaustive()
    }
}

/// What is said of a request beside it: its key, its zone, the target that it belongs to, and those that were tried.
///
/// It goes with a [`Directed`] request, or among the extensions of an HTTP request.
#[derive(Debug, Clone, Default)]
pub struct Directions {
    /// For the algorithms by key.
    pub key: Option<u64>,
    /// Where the request comes from.
    pub zone: Option<Zone>,
    /// The target that it should go to while that is there.
    pub sticky: Option<TargetId>,
    /// The targets that have had it. Clones share it: what one attempt tried, the next avoids.
    pub tried: Tried,
}

impl Directions {
    fn ask<T>(&self, pick: impl FnOnce(&Request<'_>) -> T) -> T {
        // A copy: a pick that serves what is due runs wakers and drops targets, and these are foreign.
        let tried = self.tried.targets();
        let sticky = self.sticky.as_ref().filter(|id| !tried.contains(*id));
        pick(&Request {
            key: self.key,
            zone: self.zone.as_ref(),
            sticky,
            avoid: &tried,
        })
    }
}

/// The targets that a request was given to, shared by its attempts.
#[derive(Clone, Default)]
pub struct Tried(Arc<Mutex<Vec<TargetId>>>);

impl Tried {
    /// The most targets that are remembered: later ones take the place of the first.
    pub const MOST: usize = 16;

    /// The targets, the earliest first.
    #[must_use]
    pub fn targets(&self) -> Vec<TargetId> {
        self.0.lock().clone()
    }

    fn note(&self, target: &TargetId) {
        let mut tried = self.0.lock();
        if !tried.contains(target) {
            if tried.len() == Self::MOST {
                tried.remove(0);
            }
            tried.push(target.clone());
        }
    }
}

impl fmt::Debug for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.targets()).finish()
    }
}

/// A request with its [`Directions`]; the targets get the request alone.
#[derive(Debug, Clone, Default)]
pub struct Directed<T> {
    /// Where it may go.
    pub directions: Directions,
    /// What the target gets.
    pub request: T,
}

impl<T> Directed<T> {
    /// A request that may go anywhere, and whose attempts go to different targets.
    #[must_use]
    pub fn new(request: T) -> Self {
        Self {
            directions: Directions::default(),
            request,
        }
    }
}

impl<T> From<T> for Directed<T> {
    fn from(request: T) -> Self {
        Self::new(request)
    }
}

/// By the [`Directions`] that come with the request, if any do: in a [`Directed`], or as an extension of an HTTP request.
#[derive(Debug, Clone, Copy, Default)]
pub struct ByDirections;

impl<Req> Route<Directed<Req>> for ByDirections {
    type Request = Req;

    fn directed<T>(&self, request: &Directed<Req>, pick: impl FnOnce(&Request<'_>) -> T) -> T {
        request.directions.ask(pick)
    }

    fn sent(&self, request: &Directed<Req>, target: &TargetId) {
        request.directions.tried.note(target);
    }

    fn unwrap_request(&self, request: Directed<Req>) -> Req {
        request.request
    }
}

impl<B> Route<http::Request<B>> for ByDirections {
    type Request = http::Request<B>;

    fn directed<T>(&self, request: &http::Request<B>, pick: impl FnOnce(&Request<'_>) -> T) -> T {
        match request.extensions().get::<Directions>() {
            Some(directions) => directions.ask(pick),
            None => pick(&Request::default()),
        }
    }

    fn sent(&self, request: &http::Request<B>, target: &TargetId) {
        if let Some(directions) = request.extensions().get::<Directions>() {
            directions.tried.note(target);
        }
    }

    fn unwrap_request(&self, request: http::Request<B>) -> http::Request<B> {
        request
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_picks_may_look_at_what_was_tried() {
        let directions = Directions::default();
        directions.tried.note(&"a".into());
        let seen = directions.ask(|request| {
            let free = directions.tried.0.try_lock().is_some();
            (free, request.avoid.to_vec())
        });
        assert_eq!(seen, (true, vec![TargetId::from("a")]));
    }
}
