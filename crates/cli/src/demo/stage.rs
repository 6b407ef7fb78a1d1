//! The persona and the gateway before it.

use std::future::Future;
use std::sync::Arc;

use farrier_compat::registry::Registry;
use farrier_gateway::config::{Provider, Route};
use farrier_sim::{Log, Options, Persona, Sim};

use crate::failure::Failure;
use crate::stage::{Front, Setup, Upkeep, base_url, play};

/// The name under which the client knows the model.
pub(crate) const CLIENT_MODEL: &str = "moonshotai/kimi-k2.6";

/// A persona that plays, and a gateway that is bound and does not answer yet.
#[derive(Debug)]
pub(crate) struct Stage {
    sim: Sim,
    upstream_model: String,
    front: Front,
}

impl Stage {
    pub(crate) async fn build(persona: Persona, rounds: Option<u32>) -> Result<Self, Failure> {
        let upstream_model = persona.models().first().cloned().unwrap_or_default();
        let options = Options {
            rounds,
            ..Options::default()
        };
        let sim = play(persona, options).await?;
        let registry = Registry::shipped()
            .map_err(|error| Failure::internal("cannot load the shipped manifests", &error))?;
        let front = Front::build(Setup {
            registry: Arc::new(registry),
            provider: Provider::new("persona", base_url(sim.addr())),
            route: Route {
                upstream_model: Some(upstream_model.clone()),
                ..Route::new(CLIENT_MODEL, "persona")
            },
            clients: Vec::new(),
        });
        Ok(Self {
            front: front.await?,
            sim,
            upstream_model,
        })
    }

    pub(crate) fn log(&self) -> Log {
        self.sim.log()
    }

    pub(crate) fn persona_url(&self) -> String {
        base_url(self.sim.addr())
    }

    pub(crate) fn gateway_url(&self) -> String {
        base_url(self.front.addr())
    }

    pub(crate) fn upstream_model(&self) -> &str {
        &self.upstream_model
    }

    /// Keeps the gateway answering while `work` runs, then ends everything.
    pub(crate) async fn during<T>(self, work: impl Future<Output = T>) -> (T, Upkeep) {
        let (done, upkeep) = self.front.during(work).await;
        self.sim.stop().await;
        (done, upkeep)
    }
}
