//! The stream at the seams of the family.
