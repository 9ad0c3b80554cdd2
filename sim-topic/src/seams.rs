//! The topic at the seams of the family.
