//! The persona and the gateway before it, on free loopback ports.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;

use farrier_compat::registry::Registry;
use farrier_gateway::config::{Config, Provider, Route, TraceConfig};
use farrier_gateway::{Bound, Gateway};
use farrier_ledger::{Embedded, EmbeddedConfig};
use farrier_sim::{Log, Options, Persona, Sim};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::failure::Failure;

/// The name under which the client knows the model.
pub(crate) const CLIENT_MODEL: &str = "moonshotai/kimi-k2.6";

/// A persona that plays, and a gateway that is bound and does not answer yet.
#[derive(Debug)]
pub(crate) struct Stage {
    sim: Sim,
    upstream_model: String,
    bound: Bound,
    ledger: Arc<Embedded>,
    upkeep: Upkeep,
}

/// What is left when the gateway has ended; with it go ledger and transcripts.
#[derive(Debug)]
pub(crate) struct Upkeep {
    place: TempDir,
}

impl Stage {
    pub(crate) async fn build(persona: Persona, rounds: Option<u32>) -> Result<Self, Failure> {
        let cannot = |error: &dyn std::error::Error| {
            Failure::internal("cannot set the demonstration up", error)
        };
        let upstream_model = persona.models().first().cloned().unwrap_or_default();
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .map_err(|error| cannot(&error))?;
        let options = Options {
            rounds,
            ..Options::default()
        };
        let sim = Sim::start(listener, persona, options).map_err(|error| cannot(&error))?;

        let upkeep = Upkeep {
            place: tempfile::tempdir().map_err(|error| cannot(&error))?,
        };
        let ledger = Embedded::open(EmbeddedConfig::new(
            upkeep.place.path().join("ledger/ledger.db"),
        ));
        let ledger = Arc::new(ledger.map_err(|error| cannot(&error))?);
        let registry = Registry::shipped().map_err(|error| cannot(&error))?;
        let mut config = Config::new(Arc::new(registry), ledger.clone());
        config.providers = vec![Provider::new(
            "persona",
            format!("http://{}/v1", sim.addr()),
        )];
        config.routes = vec![Route {
            upstream_model: Some(upstream_model.clone()),
            ..Route::new(CLIENT_MODEL, "persona")
        }];
        config.trace = Some(TraceConfig::new(upkeep.transcripts()));
        let bound = Gateway::bind(config).await?;
        Ok(Self {
            sim,
            upstream_model,
            bound,
            ledger,
            upkeep,
        })
    }

    pub(crate) fn log(&self) -> Log {
        self.sim.log()
    }

    pub(crate) fn persona_url(&self) -> String {
        format!("http://{}/v1", self.sim.addr())
    }

    pub(crate) fn gateway_url(&self) -> String {
        format!("http://{}/v1", self.bound.addr())
    }

    pub(crate) fn upstream_model(&self) -> &str {
        &self.upstream_model
    }

    /// Keeps the gateway answering while `work` runs, then ends everything.
    pub(crate) async fn during<T>(self, work: impl Future<Output = T>) -> (T, Upkeep) {
        let Self {
            sim,
            bound,
            ledger,
            upkeep,
            ..
        } = self;
        let (end, ended) = oneshot::channel::<()>();
        let answering = bound.run(async {
            let _told_or_gone = ended.await;
        });
        let working = async {
            let done = work.await;
            drop(end);
            done
        };
        let (_drained, done) = tokio::join!(answering, working);
        sim.stop().await;
        // It is deleted next; what could not be written is not needed.
        let _closed = ledger.close().await;
        (done, upkeep)
    }
}

impl Upkeep {
    /// One directory for each request.
    pub(crate) fn transcripts(&self) -> PathBuf {
        self.place.path().join("transcripts")
    }
}
