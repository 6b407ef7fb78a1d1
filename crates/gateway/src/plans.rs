//! The plans of one route, computed once for each harness.
//!
//! On a route only the caller's harness varies, so that is the key. The number of plans kept is bounded, because the
//! name of a harness may come from a request header.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use farrier_compat::facts::{ClientFacts, Facts, UpstreamFacts};
use farrier_compat::plan::Plan;
use farrier_compat::registry::Registry;

/// Computes plans and keeps them.
#[derive(Debug)]
pub(crate) struct Plans {
    registry: Arc<Registry>,
    client: ClientFacts,
    upstream: UpstreamFacts,
    by_agent: RwLock<HashMap<String, Plan>>,
}

impl Plans {
    pub(crate) fn new(
        registry: Arc<Registry>,
        client: ClientFacts,
        upstream: UpstreamFacts,
    ) -> Self {
        Self {
            registry,
            client,
            upstream,
            by_agent: RwLock::default(),
        }
    }

    /// The plan for a caller running `agent`. A caller that names none is not one whose name is empty: names are never
    /// empty.
    pub(crate) fn plan_for(&self, agent: Option<&str>) -> Plan {
        let key = agent.unwrap_or_default();
        let kept = self
            .by_agent
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(key)
            .cloned();
        if let Some(plan) = kept {
            return plan;
        }
        let plan = self.registry.plan_for(&self.facts(agent));
        let mut kept = self
            .by_agent
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if kept.len() < MAX_PLANS {
            kept.insert(key.to_owned(), plan.clone());
        }
        plan
    }

    /// What manifests are matched on.
    pub(crate) fn facts(&self, agent: Option<&str>) -> Facts {
        Facts {
            agent: agent.map(str::to_owned),
            client: self.client.clone(),
            upstream: self.upstream.clone(),
        }
    }
}

/// More harnesses than exist; what comes after is computed each time.
const MAX_PLANS: usize = 64;
