//! What a configuration says of its routes, for whoever configures a harness by it.

use farrier_compat::facts::{ClientFacts, Facts, UpstreamFacts};
use farrier_compat::registry::Registry;

use super::Examined;

impl Examined {
    /// The models that clients may ask for.
    pub(crate) fn models(&self) -> impl Iterator<Item = &str> {
        self.draft.routes.iter().map(|route| route.model.as_str())
    }

    /// The route for a model as clients are told of it, and who answers.
    pub(crate) fn route(&self, model: &str) -> Option<Facts> {
        let route = self
            .draft
            .routes
            .iter()
            .find(|route| route.model == model)?;
        let mut providers = self.draft.providers.iter();
        let provider = providers.find(|provider| provider.name == route.provider)?;
        let public = route.public.as_ref().unwrap_or(&self.draft.public);
        Some(Facts {
            agent: None,
            client: ClientFacts {
                model: route.model.clone(),
                provider_key: public.provider_key.clone(),
                inference_api: provider.api.as_str().to_owned(),
                base_url: public.base_url.clone(),
            },
            upstream: UpstreamFacts {
                provider: provider.name.clone(),
                model: route
                    .upstream_model
                    .as_ref()
                    .unwrap_or(&route.model)
                    .clone(),
                base_url: provider.base_url.clone(),
                server: provider.server.clone(),
            },
        })
    }

    /// What applies to which model.
    pub(crate) fn registry(&self) -> &Registry {
        &self.draft.registry
    }
}
