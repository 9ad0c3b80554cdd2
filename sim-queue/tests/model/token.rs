//! What the histories send: values whose drops are counted, and a sink that writes down what arrives.

use sim_core::seam::{Refused, Sink};
use sim_core::sync::atomic::{AtomicU32, Ordering};
use sim_core::sync::{Arc, Mutex};
use sim_queue::{DeadLetter, DeadLetterReason};

/// Counts the drops of each token.
#[derive(Default)]
pub(crate) struct Drops(Mutex<Vec<Arc<AtomicU32>>>);

impl Drops {
    /// Makes the next token; tokens are numbered from 0.
    pub(crate) fn token(&self) -> Token {
        let mut counts = self.0.lock();
        let drops = Arc::new(AtomicU32::new(0));
        let id = u32::try_from(counts.len()).unwrap();
        counts.push(Arc::clone(&drops));
        Token { id, drops }
    }

    /// Asserts that each token was dropped exactly once.
    pub(crate) fn check(&self) {
        for (id, drops) in self.0.lock().iter().enumerate() {
            assert_eq!(drops.load(Ordering::SeqCst), 1, "drops of token {id}");
        }
    }
}

/// A value that is neither `Clone` nor dropped unseen.
#[derive(Debug)]
pub(crate) struct Token {
    pub(crate) id: u32,
    drops: Arc<AtomicU32>,
}

impl Drop for Token {
    fn drop(&mut self) {
        self.drops.fetch_add(1, Ordering::SeqCst);
    }
}

/// A dead letter, in short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Letter {
    pub(crate) m: u32,
    pub(crate) receive_count: u32,
    pub(crate) rejected: bool,
}

/// Takes every dead letter.
#[derive(Default)]
pub(crate) struct Letters(Mutex<Vec<Letter>>);

impl Letters {
    pub(crate) fn sorted(&self) -> Vec<Letter> {
        let mut letters = self.0.lock().clone();
        letters.sort_unstable();
        letters
    }
}

impl Sink<DeadLetter<Token>> for Letters {
    fn try_deliver(&self, letter: DeadLetter<Token>) -> Result<(), Refused<DeadLetter<Token>>> {
        self.0.lock().push(Letter {
            m: letter.message.value.id,
            receive_count: letter.receive_count,
            rejected: letter.reason == DeadLetterReason::Rejected,
        });
        Ok(())
    }
}
