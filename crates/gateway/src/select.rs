//! Model name in, route out.
//!
//! A route holds all that was decided when the gateway was built: the provider's connections, the upstream model name,
//! the facts that manifests match on, the plans computed from them. Matching is exact. An unknown name is answered with
//! the nearest one there is.

use std::collections::HashMap;
use std::sync::Arc;

use farrier_compat::facts::{ClientFacts, UpstreamFacts};

use crate::config::{self, PublicRoute};
use crate::metrics::{Metrics, RouteMetrics};
use crate::plans::Plans;
use crate::upstream::{Upstream, Upstreams};

/// Where requests for one model name go.
#[derive(Debug)]
pub(crate) struct Route {
    /// The name clients ask for.
    pub(crate) model: Arc<str>,
    /// What replaces it towards the provider, if that calls it otherwise.
    pub(crate) upstream_model: Option<Arc<str>>,
    /// `provider/model`, as the turn ledger remembers where a turn came from.
    pub(crate) origin: String,
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) plans: Plans,
    pub(crate) metrics: RouteMetrics,
}

/// All routes, and who answers what names no model.
#[derive(Debug)]
pub(crate) struct Routes {
    by_model: HashMap<Arc<str>, Arc<Route>>,
    /// In the order of the configuration.
    in_order: Vec<Arc<Route>>,
    default: Option<Arc<Upstream>>,
}

/// Why no route was found.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoRoute {
    #[error(
        "expected a model that a route names, got {}{}; add a route for it to the gateway's configuration",
        shown(model),
        did_you_mean(nearest)
    )]
    Model {
        model: String,
        nearest: Option<String>,
    },
    #[error(
        "expected `model` in the request body, got none, and there is no default_provider to send this request to; \
         name a model or configure one"
    )]
    NoDefault,
}

// === impl Routes ===

impl Routes {
    /// Builds the routes of a checked configuration.
    pub(crate) fn build(config: &config::Config, upstreams: &Upstreams, metrics: &Metrics) -> Self {
        let mut routes = Self {
            by_model: HashMap::new(),
            in_order: Vec::new(),
            default: None,
        };
        for route in &config.routes {
            let Some(upstream) = upstreams.get(&route.provider) else {
                continue; // refused by Config::check
            };
            let route = Arc::new(Route::build(config, route, Arc::clone(upstream), metrics));
            routes.in_order.push(Arc::clone(&route));
            routes.by_model.insert(Arc::clone(&route.model), route);
        }
        let default = match &config.default_provider {
            Some(name) => upstreams.get(name),
            None if upstreams.len() == 1 => upstreams.values().next(),
            None => None,
        };
        routes.default = default.cloned();
        routes
    }

    /// The route for exactly this model name.
    pub(crate) fn select(&self, model: &str) -> Result<&Arc<Route>, NoRoute> {
        self.by_model.get(model).ok_or_else(|| NoRoute::Model {
            model: model.to_owned(),
            nearest: nearest(model, self.iter().map(|route| &*route.model)),
        })
    }

    /// Who answers what names no model.
    pub(crate) fn default_upstream(&self) -> Result<&Arc<Upstream>, NoRoute> {
        self.default.as_ref().ok_or(NoRoute::NoDefault)
    }

    /// All routes, in the order of the configuration.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Route> {
        self.in_order.iter().map(|route| &**route)
    }
}

// === impl Route ===

impl Route {
    fn build(
        config: &config::Config,
        route: &config::Route,
        upstream: Arc<Upstream>,
        metrics: &Metrics,
    ) -> Self {
        let config::Route {
            model,
            upstream_model,
            ..
        } = route;
        let upstream_name = upstream_model.as_ref().unwrap_or(model);
        let PublicRoute {
            provider_key,
            base_url,
        } = &config.public;
        let client = ClientFacts {
            model: model.clone(),
            provider_key: provider_key.clone(),
            inference_api: upstream.api.as_str().to_owned(),
            base_url: base_url.clone(),
        };
        let upstream_facts = UpstreamFacts {
            provider: upstream.name.to_string(),
            model: upstream_name.clone(),
            base_url: upstream.base_url.clone(),
            server: upstream.server.clone(),
        };
        let plans = Plans::new(Arc::clone(&config.registry), client, upstream_facts);
        let model: Arc<str> = model.as_str().into();
        Self {
            upstream_model: upstream_model
                .as_deref()
                .filter(|name| **name != *model)
                .map(Arc::from),
            origin: format!("{}/{upstream_name}", upstream.name),
            metrics: metrics.of_route(&model),
            model,
            upstream,
            plans,
        }
    }
}

/// The candidate most like `name`, if any is like it at all.
pub(crate) fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<String> {
    let name = &name[..name.floor_char_boundary(MAX_COMPARED_BYTES)];
    let scored = candidates.map(|candidate| (strsim::jaro_winkler(name, candidate), candidate));
    let best = scored
        .filter(|(score, _)| *score > ALIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    best.map(|(_, candidate)| candidate.to_owned())
}

/// A name from a request, quoted, escaped and of bounded length.
pub(crate) fn shown(name: &str) -> String {
    let end = name.floor_char_boundary(MAX_SHOWN_BYTES);
    let more = if end < name.len() { "…" } else { "" };
    format!("{:?}{more}", &name[..end])
}

fn did_you_mean(nearest: &Option<String>) -> String {
    nearest
        .as_ref()
        .map(|name| format!(" (nearest: {name:?})"))
        .unwrap_or_default()
}

/// Names longer than this are compared by their beginning: the comparison is quadratic.
const MAX_COMPARED_BYTES: usize = 256;

const MAX_SHOWN_BYTES: usize = 100;

/// Jaro-Winkler similarity from which a name is worth suggesting.
const ALIKE: f64 = 0.7;
