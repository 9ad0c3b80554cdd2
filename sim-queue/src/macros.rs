//! Tracing where the feature is on, nothing where it is not.

/// Emits an event of the rare paths: `trace!("what", field = value, ...)`.
macro_rules! trace {
    ($what:literal $(, $field:ident = $value:expr)* $(,)?) => {{
        #[cfg(feature = "tracing")]
        tracing::debug!(target: "sim_queue", $($field = $value,)* $what);
        #[cfg(not(feature = "tracing"))]
        {
            $(let _ = &$value;)*
        }
    }};
}

pub(crate) use trace;
