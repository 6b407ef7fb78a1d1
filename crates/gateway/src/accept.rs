//! From a configuration to a listening gateway, and from its shutdown signal to its end.

use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use farrier_serve::{BindError, Drained, Listener, Tracker};
use tracing::{info, warn};

use crate::Gateway;
use crate::config::{Config, Mistake, Mistakes};
use crate::identify::Callers;
use crate::metrics::Metrics;
use crate::seed::Seeds;
use crate::select::Routes;
use crate::trace::Traces;
use crate::upstream::Upstream;

/// A gateway that listens and does not answer yet.
#[derive(Debug)]
pub struct Bound {
    listener: Listener,
    limits: farrier_serve::Limits,
    gateway: Gateway,
    /// Connections towards providers, and the writer of transcripts.
    background: Tracker,
}

/// Why a gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address that cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A configuration that cannot work.
    #[error("the configuration cannot work:\n{0}")]
    Config(#[from] Mistakes),
    /// The operating system gives no random bytes.
    #[error("expected random bytes from the operating system, got none")]
    Random(#[source] getrandom::Error),
    /// The trace folder cannot be used.
    #[error("cannot use the trace folder {}", path.display())]
    Trace {
        /// The folder.
        path: std::path::PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
}

// === impl Gateway ===

impl Gateway {
    /// Checks a configuration, binds its addresses and prepares everything else. No provider is contacted.
    ///
    /// # Errors
    ///
    /// [`StartError`], before anything is served.
    pub async fn bind(config: Config) -> Result<Bound, StartError> {
        config.check()?;
        warn_of_plain_credentials(&config);
        let background = Tracker::new();
        let requests = Tracker::new();
        let metrics = Arc::new(Metrics::new());
        let upstreams = upstreams(&config, &background)?;
        let routes = Routes::build(&config, &upstreams, &metrics);
        let seeds = Seeds::new().map_err(StartError::Random)?;
        let traces = match &config.trace {
            None => None,
            Some(trace) => Some(
                Traces::start(trace, seeds.run(), &metrics, &background).map_err(|source| {
                    StartError::Trace {
                        path: trace.dir.clone(),
                        source,
                    }
                })?,
            ),
        };
        let listener = Listener::bind(&config.listen).await?;
        let gateway = Self {
            callers: Callers::build(&config, seeds.digest_key()),
            deadlines: config.deadlines,
            ledger: config.ledger,
            max_body_bytes: config.limits.max_body_bytes,
            max_reply_bytes: config.limits.max_reply_bytes,
            metrics,
            requests,
            routes,
            seeds,
            traces,
            writes: Tracker::new(),
        };
        Ok(Bound {
            listener,
            limits: config.limits.listener,
            gateway,
            background,
        })
    }
}

// === impl Bound ===

impl Bound {
    /// The first address, as bound: port 0 has become a real one.
    ///
    /// # Panics
    ///
    /// Never: a configuration without a listener is refused.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addrs()
            .next()
            .expect("a checked configuration has a listener")
    }

    /// All addresses, as bound.
    pub fn addrs(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.listener.addrs()
    }

    /// Answers until `shutdown` resolves; then finishes what is in flight, cuts what is not finished by the drain
    /// deadline, and says how many connections that were.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Drained {
        let Self {
            listener,
            limits,
            gateway,
            background,
        } = self;
        let requests = gateway.requests.clone();
        let gateway = Arc::new(gateway);
        let service = {
            let gateway = Arc::clone(&gateway);
            move |peer, request| Arc::clone(&gateway).answer(peer, request)
        };
        let drained = listener.serve(service, limits, &requests, shutdown).await;
        info!(cut = drained.cut, "drained");
        // What a cut reply gave its client may be replayed to the next run.
        if gateway.writes.idle(gateway.deadlines.ledger_record).await > 0 {
            gateway.writes.cut();
        }
        // With the gateway goes the last sender of transcripts; its writer then finishes what is queued.
        drop(gateway);
        if background.idle(FLUSH).await > 0 {
            background.cut(); // idle connections to providers never end by themselves
            background.idle(FLUSH).await;
        }
        drained
    }
}

fn upstreams(config: &Config, tasks: &Tracker) -> Result<HashMap<String, Arc<Upstream>>, Mistakes> {
    let mut upstreams = HashMap::new();
    let mut mistakes = Vec::<Mistake>::new();
    for provider in &config.providers {
        match Upstream::build(provider, &config.deadlines, tasks.clone()) {
            Ok(upstream) => drop(upstreams.insert(provider.name.clone(), Arc::new(upstream))),
            Err(mistake) => mistakes.push(mistake),
        }
    }
    if mistakes.is_empty() {
        Ok(upstreams)
    } else {
        Err(Mistakes(mistakes))
    }
}

fn warn_of_plain_credentials(config: &Config) {
    for provider in config
        .providers
        .iter()
        .filter(|provider| provider.credential.is_some())
    {
        if provider.is_in_the_clear() {
            warn!(
                provider = provider.name,
                base_url = provider.base_url,
                "the credential is sent unencrypted to another machine; use https"
            );
        }
    }
}

/// For the last transcripts to be written, and for cut connections to close.
const FLUSH: Duration = Duration::from_millis(500);
