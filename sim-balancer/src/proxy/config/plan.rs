//! A configuration that was checked and compiled.

use super::{At, ProxyConfig, ProxyConfigError};

impl ProxyConfig {
    /// Checks everything without keeping what is compiled.
    ///
    /// # Errors
    ///
    /// [`ProxyConfigError`] with the path of the first field that cannot be used, and why.
    pub fn check(&self) -> Result<(), ProxyConfigError> {
        let _ = At::ROOT;
        self.check_fields()
    }
}
