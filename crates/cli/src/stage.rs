//! A gateway of its own for one command: on a free loopback port, with a ledger that is gone afterwards.
//!
//! `farrier demo` and `farrier verify` play on it. It is the gateway of `farrier up`; only what it is configured with
//! does not come from a file.

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use farrier_compat::registry::Registry;
use farrier_gateway::config::{Client, Config, Provider, Route, TraceConfig};
use farrier_gateway::{Bound, Gateway};
use farrier_ledger::{Embedded, EmbeddedConfig};
use farrier_sim::{Options, Persona, Sim};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::failure::Failure;

/// What a gateway is to do.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) registry: Arc<Registry>,
    pub(crate) provider: Provider,
    pub(crate) route: Route,
    /// Everyone on this machine, if there are none.
    pub(crate) clients: Vec<Client>,
}

/// A gateway that is bound and does not answer yet.
#[derive(Debug)]
pub(crate) struct Front {
    bound: Bound,
    ledger: Arc<Embedded>,
    upkeep: Upkeep,
}

/// What is left when the gateway has ended; with it go ledger and transcripts.
#[derive(Debug)]
pub(crate) struct Upkeep {
    place: TempDir,
}

/// Has the persona play on a free loopback port.
pub(crate) async fn play(persona: Persona, options: Options) -> Result<Sim, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.map_err(|error| cannot(&error))?;
    Sim::start(listener, persona, options).map_err(|error| cannot(&error))
}

/// The base URL of the API at an address.
pub(crate) fn base_url(address: SocketAddr) -> String {
    format!("http://{address}/v1")
}

impl Front {
    pub(crate) async fn build(setup: Setup) -> Result<Self, Failure> {
        let upkeep = Upkeep {
            place: tempfile::tempdir().map_err(|error| cannot(&error))?,
        };
        let ledger = Embedded::open(EmbeddedConfig::new(
            upkeep.place.path().join("ledger/ledger.db"),
        ));
        let ledger = Arc::new(ledger.map_err(|error| cannot(&error))?);
        let mut config = Config::new(setup.registry, ledger.clone());
        config.providers = vec![setup.provider];
        config.routes = vec![setup.route];
        config.clients = setup.clients;
        config.trace = Some(TraceConfig::new(upkeep.transcripts()));
        let bound = Gateway::bind(config).await?;
        Ok(Self {
            bound,
            ledger,
            upkeep,
        })
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.bound.addr()
    }

    /// Keeps the gateway answering while `work` runs, then ends it.
    pub(crate) async fn during<T>(self, work: impl Future<Output = T>) -> (T, Upkeep) {
        let Self {
            bound,
            ledger,
            upkeep,
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

fn cannot(error: &dyn std::error::Error) -> Failure {
    Failure::internal("cannot set the stage", error)
}
