//! tower.
