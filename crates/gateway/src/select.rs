//! Model name in, route out.
//!
//! A route holds all that was decided when the gateway was built: the provider's connections, the upstream model name,
//! the facts that manifests match on, the plans computed from them. Matching is exact. An unknown name is answered with
//! the nearest one there is.

use std::collections::HashMap;
use std::sync::Arc;

use farrier_compat::facts::{ClientFacts, UpstreamFacts};
use http::{HeaderValue, StatusCode};
use prometheus_client::metrics::counter::Counter;

use crate::care::{Approach, Ways, need_after};
use crate::config::{self, Need, PublicRoute};
use crate::identify::Caller;
use crate::metrics::RouteMetrics;
use crate::plans::Plans;
use crate::rescue::Cause;
use crate::upstream::Upstreams;

/// Where requests for one model name go.
#[derive(Debug)]
pub(crate) struct Route {
    /// The name clients ask for.
    pub(crate) model: Arc<str>,
    /// Who may answer, in order: the route's own target, then its fallbacks.
    targets: Vec<Target>,
    fall_back_on: Vec<Need>,
    pub(crate) metrics: RouteMetrics,
}

/// One of those who may answer.
#[derive(Debug)]
pub(crate) struct Target {
    /// What replaces the model's name towards the provider, if that calls it otherwise.
    pub(crate) upstream_model: Option<Arc<str>>,
    /// `provider/model`, as the turn ledger remembers where a turn came from.
    pub(crate) origin: String,
    pub(crate) approach: Approach,
    pub(crate) plans: Plans,
    /// Replies given.
    pub(crate) answers: Counter,
    /// Says to the client that not the route's own target answered.
    pub(crate) stand_in: Option<HeaderValue>,
}

/// All routes, and who answers what names no model.
#[derive(Debug)]
pub(crate) struct Routes {
    by_model: HashMap<Arc<str>, Arc<Route>>,
    /// In the order of the configuration.
    in_order: Vec<Arc<Route>>,
    default: Option<Arc<Approach>>,
}

/// Why no route was found.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoRoute {
    #[error(
        "expected {}, the model of this sandbox's route, got {}; its owner can give it another route",
        shown(only),
        shown(model)
    )]
    Another { model: String, only: String },
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
    pub(crate) fn build(ways: Ways<'_>, upstreams: &Upstreams) -> Self {
        let mut routes = Self {
            by_model: HashMap::new(),
            in_order: Vec::new(),
            default: None,
        };
        let config = ways.config;
        for route in &config.routes {
            let route = Arc::new(Route::build(route, ways, upstreams));
            if route.targets.is_empty() {
                continue; // refused by Config::check
            }
            routes.in_order.push(Arc::clone(&route));
            routes.by_model.insert(Arc::clone(&route.model), route);
        }
        let default = match (&config.default_provider, config.providers.as_slice()) {
            (Some(name), _) => Some(name),
            (None, [only]) => Some(&only.name),
            (None, _) => None,
        };
        let to_default = default.and_then(|name| approach(name, "", ways, upstreams));
        routes.default = to_default.map(Arc::new);
        routes
    }

    /// The route for exactly this model name.
    fn select(&self, model: &str) -> Result<&Arc<Route>, NoRoute> {
        self.by_model.get(model).ok_or_else(|| NoRoute::Model {
            model: model.to_owned(),
            nearest: nearest(model, self.iter().map(|route| &*route.model)),
        })
    }

    /// The route for exactly this model name, if that caller may ask for it.
    pub(crate) fn for_caller(&self, caller: &Caller, model: &str) -> Result<&Arc<Route>, NoRoute> {
        match &caller.only {
            Some(only) if only.as_str() != model => Err(NoRoute::Another {
                model: model.to_owned(),
                only: only.to_string(),
            }),
            _ => self.select(model),
        }
    }

    /// Who answers that caller what names no model.
    pub(crate) fn default_for(&self, caller: &Caller) -> Result<&Approach, NoRoute> {
        match &caller.only {
            Some(only) => Ok(&self.select(only)?.own().approach),
            None => self.default.as_deref().ok_or(NoRoute::NoDefault),
        }
    }

    /// The routes that a caller may ask for, in the order of the configuration.
    pub(crate) fn open_to(&self, caller: &Caller) -> impl Iterator<Item = &Route> {
        let only = caller.only.clone();
        self.iter().filter(move |route| {
            only.as_ref()
                .is_none_or(|only| only.as_str() == &*route.model)
        })
    }

    /// All routes, in the order of the configuration.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Route> {
        self.in_order.iter().map(|route| &**route)
    }
}

// === impl Route ===

impl Route {
    fn build(route: &config::Route, ways: Ways<'_>, upstreams: &Upstreams) -> Self {
        let model: Arc<str> = route.model.as_str().into();
        let targets = route.targets().enumerate();
        let targets = targets.filter_map(|(nth, (provider, upstream_model))| {
            let approach = approach(provider, upstream_model, ways, upstreams)?;
            Some(Target::build(route, (nth, upstream_model), approach, ways))
        });
        Self {
            targets: targets.collect(),
            fall_back_on: route.fall_back_on.clone(),
            metrics: ways.metrics.of_route(&model),
            model,
        }
    }

    /// The route's own target.
    ///
    /// # Panics
    ///
    /// Never: a route without one is not kept.
    pub(crate) fn own(&self) -> &Target {
        self.targets.first().expect("a route has a target")
    }

    /// Who answers in its place, in order.
    pub(crate) fn fallbacks(&self) -> &[Target] {
        self.targets.get(1..).unwrap_or_default()
    }

    /// The need that sends a request on to the next target, after this outcome.
    pub(crate) fn need_after(&self, outcome: Result<StatusCode, &Cause>) -> Option<Need> {
        need_after(outcome).filter(|need| self.fall_back_on.contains(need))
    }
}

/// The way to a model of a provider that the configuration has.
fn approach(
    provider: &str,
    model: &str,
    ways: Ways<'_>,
    upstreams: &Upstreams,
) -> Option<Approach> {
    let upstream = upstreams.get(provider)?;
    let mut configured = ways.config.providers.iter();
    let provider = configured.find(|known| known.name == provider)?;
    Some(ways.to(provider, upstream, model))
}

// === impl Target ===

impl Target {
    fn build(
        route: &config::Route,
        (nth, upstream_model): (usize, &str),
        approach: Approach,
        ways: Ways<'_>,
    ) -> Self {
        let (config, upstream) = (ways.config, &approach.upstream);
        let PublicRoute {
            provider_key,
            base_url,
        } = route.public.as_ref().unwrap_or(&config.public);
        let client = ClientFacts {
            model: route.model.clone(),
            provider_key: provider_key.clone(),
            inference_api: upstream.api.as_str().to_owned(),
            base_url: base_url.clone(),
        };
        let upstream_facts = UpstreamFacts {
            provider: upstream.name.to_string(),
            model: upstream_model.to_owned(),
            base_url: upstream.base_url.clone(),
            server: upstream.server.clone(),
        };
        let origin = format!("{}/{upstream_model}", upstream.name);
        let (model, name) = (route.model.as_str().into(), upstream_model.into());
        Self {
            upstream_model: (upstream_model != route.model).then(|| upstream_model.into()),
            answers: ways.metrics.care.answers(&model, &upstream.name, &name),
            stand_in: (nth > 0)
                .then(|| HeaderValue::try_from(&origin).ok())
                .flatten(),
            origin,
            plans: Plans::new(Arc::clone(&config.registry), client, upstream_facts),
            approach,
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
