//! From a configuration to a listening gateway, and from its shutdown signal to its end.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use farrier_serve::{BindError, Drained, Listener, Tracker};
use tracing::{info, warn};

use crate::Gateway;
use crate::care::{Allowances, Ways};
use crate::config::{Config, Mistake, Mistakes};
use crate::identify::Callers;
use crate::reload::{Current, Fixed, Lasting, Reloader};
use crate::resident::{Entrance, Whose};
use crate::select::Routes;
use crate::upstream::{Upstream, Upstreams};

/// A gateway that listens and does not answer yet.
#[derive(Debug)]
pub struct Bound {
    listener: Listener,
    limits: farrier_serve::Limits,
    current: Arc<Current>,
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
        let fixed = Fixed {
            listen: config.listen.clone(),
            listener: config.limits.listener.clone(),
        };
        let lasting = Lasting::new()?;
        let first = Self::build(config, &lasting, None)?;
        let listener = Listener::bind(&fixed.listen).await?;
        Ok(Bound {
            listener,
            limits: fixed.listener.clone(),
            current: Arc::new(Current::new(first, lasting, fixed)),
        })
    }

    /// Makes of a checked configuration what answers requests. Of the one that `runs`, what still fits is kept.
    pub(crate) fn build(
        config: Config,
        lasting: &Lasting,
        runs: Option<&Self>,
    ) -> Result<Self, StartError> {
        warn_of_plain_credentials(&config);
        let upstreams = upstreams(&config, &lasting.background, runs)?;
        let traces = config
            .trace
            .as_ref()
            .map(|trace| lasting.trace(trace, runs.and_then(|runs| runs.traces.as_ref())))
            .transpose()?;
        // From here on nothing can fail: what is shared with requests under way is changed.
        let ways = Ways {
            config: &config,
            known: &lasting.known,
            metrics: &lasting.metrics,
            seeds: &lasting.seeds,
        };
        let routes = Routes::build(ways, &upstreams);
        Ok(Self {
            allowances: Allowances::build(&config, &lasting.known.used, &lasting.metrics),
            callers: Callers::build(&config, lasting.seeds.digest_key()),
            deadlines: config.deadlines,
            known: Arc::clone(&lasting.known),
            ledger: config.ledger,
            max_body_bytes: config.limits.max_body_bytes,
            max_reply_bytes: config.limits.max_reply_bytes,
            metrics: Arc::clone(&lasting.metrics),
            requests: lasting.requests.clone(),
            routes,
            upstreams,
            seeds: Arc::clone(&lasting.seeds),
            traces,
            writes: lasting.writes.clone(),
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

    /// Where connections come in that others accepted.
    #[must_use]
    pub fn entrance(&self) -> Entrance {
        Entrance::to(&self.current, self.limits.clone())
    }

    /// What changes this gateway's configuration while it answers.
    #[must_use]
    pub fn reloader(&self) -> Reloader {
        Reloader::of(&self.current)
    }

    /// Answers until `shutdown` resolves; then finishes what is in flight, cuts what is not finished by the drain
    /// deadline, and says how many connections that were.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Drained {
        let Self {
            listener,
            limits,
            current,
        } = self;
        let Lasting {
            background,
            requests,
            writes,
            ..
        } = current.lasting().clone();
        let service = {
            let current = Arc::clone(&current);
            move |peer, request| current.gateway().answer(Whose::Peer(peer), request)
        };
        let drained = listener.serve(service, limits, &requests, shutdown).await;
        info!(cut = drained.cut, "drained");
        // What a cut reply gave its client may be replayed to the next run.
        let ledger_record = current.gateway().deadlines.ledger_record;
        if writes.idle(ledger_record).await > 0 {
            writes.cut();
        }
        // With the gateway goes the last sender of transcripts; its writer then finishes what is queued.
        drop(current);
        if background.idle(FLUSH).await > 0 {
            background.cut(); // idle connections to providers never end by themselves
            background.idle(FLUSH).await;
        }
        drained
    }
}

/// Connections to each provider: those there are, if they still fit, else new ones.
fn upstreams(
    config: &Config,
    tasks: &Tracker,
    runs: Option<&Gateway>,
) -> Result<Upstreams, Mistakes> {
    let mut upstreams = Upstreams::new();
    let mut mistakes = Vec::<Mistake>::new();
    for provider in &config.providers {
        let kept = runs
            .and_then(|runs| runs.upstreams.get(&provider.name))
            .filter(|upstream| upstream.is_built_from(provider, &config.deadlines));
        let upstream = match kept {
            // What it is shown is exchanged when nothing can go wrong any more.
            Some(upstream) => provider.shown().map(|_| Arc::clone(upstream)),
            None => Upstream::build(provider, &config.deadlines, tasks.clone()).map(Arc::new),
        };
        match upstream {
            Ok(upstream) => drop(upstreams.insert(provider.name.clone(), upstream)),
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
