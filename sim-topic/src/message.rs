//! What is published and what arrives.
