//! What lets loom see memory come and go.

/// A field that is written when its owner's memory is made and when it is freed, and read at each access,
/// so that a model fails when an access is not ordered between the two. Nothing outside loom.
pub(super) struct Witness {
    #[cfg(loom)]
    alive: crate::sync::UnsafeCell<bool>,
}

#[cfg(not(loom))]
impl Witness {
    pub(super) const fn new() -> Self {
        Self {}
    }

    #[inline(always)]
    pub(super) const fn accessed(&self) {}

    #[inline(always)]
    pub(super) const fn freed(&self) {}
}

#[cfg(loom)]
impl Witness {
    pub(super) fn new() -> Self {
        Self {
            alive: crate::sync::UnsafeCell::new(true),
        }
    }

    pub(super) fn accessed(&self) {
        // SAFETY: loom checks that no write is concurrent; the memory itself is leaked under loom.
        let alive = self.alive.with(|alive| unsafe { *alive });
        assert!(alive, "accessed after it was freed");
    }

    pub(super) fn freed(&self) {
        self.accessed();
        // SAFETY: loom checks that no access is concurrent.
        self.alive.with_mut(|alive| unsafe { *alive = false });
    }
}
