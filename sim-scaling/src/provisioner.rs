//! What launches and ends instances.
