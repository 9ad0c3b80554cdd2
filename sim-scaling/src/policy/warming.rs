//! Instances that a change added and that warm up still.

use sim_core::time::Instant;

/// Most changes that are told apart; the latest of more are counted together, until the latest end.
const LIMIT: usize = 20;

/// How many warm up, and until when.
#[derive(Debug, Clone, Default)]
pub(super) struct Warming(Vec<(Instant, u32)>);

impl Warming {
    pub(super) fn add(&mut self, until: Instant, added: u32) {
        let full = self.0.len() >= LIMIT;
        match self.0.last_mut() {
            Some(last) if full || last.0 == until => {
                *last = (until.max(last.0), last.1.saturating_add(added));
            }
            _ => self.0.push((until, added)),
        }
    }

    pub(super) fn expire(&mut self, now: Instant) {
        self.0.retain(|&(until, _)| now < until);
    }

    pub(super) fn count(&self) -> u32 {
        self.0.iter().fold(0, |sum, one| sum.saturating_add(one.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_changes_is_bounded_and_no_instance_is_forgotten() {
        let mut warming = Warming::default();
        for nanos in 1..=100 {
            warming.add(Instant::from_nanos(nanos), 2);
        }
        assert_eq!((warming.0.len(), warming.count()), (LIMIT, 200));
        warming.expire(Instant::from_nanos(10));
        assert_eq!(warming.count(), 180);
        warming.expire(Instant::from_nanos(100));
        assert_eq!(warming.count(), 0);
    }
}
