//! Whether a provider is still the one that connections were prepared for.

use super::Upstream;
use crate::config::{Deadlines, Provider};

impl Upstream {
    /// Whether building anew from these would give the same, but for the secret, so that a reload may keep the pooled
    /// connections and [exchange](Self::exchange) what the provider is shown.
    ///
    /// A certificate file may have been replaced under its name, so a provider that has one is never the same.
    pub(crate) fn is_built_from(&self, provider: &Provider, deadlines: &Deadlines) -> bool {
        let shown = self.transport.shown().map(|shown| &shown.name);
        let to_show = provider.credential.as_ref().map(|given| &given.header);
        shown == to_show
            && *self.name == *provider.name
            && self.api == provider.api
            && self.base_url == provider.base_url.trim_end_matches('/')
            && self.server == provider.server
            && self.pass_through == provider.pass_through
            && self.headers == provider.headers
            && self.first_byte == deadlines.first_byte
            && self.connect == deadlines.connect
            && self.http == provider.http
            && self.address == provider.address
            && self.ca_file.is_none()
            && provider.ca_file.is_none()
    }
}
