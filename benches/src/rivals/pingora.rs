//! pingora's load balancer: a selection of a backend.

use pingora_load_balancing::LoadBalancer;
use pingora_load_balancing::selection::{
    BackendIter, BackendSelection, Consistent, FNVHash, Random, RoundRobin,
};

use crate::pattern::{Failure, Peer};
use crate::picks::{KEYS, seen};
use crate::timing::Stopwatch;

/// The peers for so many targets.
#[must_use]
pub(crate) fn peers(targets: u32) -> Vec<Peer> {
    vec![
        peer::<RoundRobin>("pingora-round-robin", targets),
        peer::<Random>("pingora-random", targets),
        peer::<FNVHash>("pingora-fnv-hash", targets),
        peer::<Consistent>("pingora-consistent", targets),
    ]
}

fn peer<S>(name: &str, targets: u32) -> Peer
where
    S: BackendSelection + 'static,
    S::Iter: BackendIter,
{
    let open = move || {
        let addresses = (0..targets).map(|n| format!("10.{}.{}.1:80", n / 256, n % 256));
        LoadBalancer::<S>::try_from_iter(addresses)
    };
    let balancer = open().map_err(|error| error.to_string());
    Peer::new(name, move |count| {
        let balancer = balancer.as_ref().map_err(|error| Failure(error.clone()))?;
        let watch = Stopwatch::start();
        for pick in 0..count {
            let key = KEYS[pick as usize % KEYS.len()].to_le_bytes();
            let backend = balancer
                .select(&key, 256)
                .ok_or_else(|| Failure("no backend".to_owned()))?;
            seen(backend);
        }
        Ok(watch.elapsed())
    })
}
