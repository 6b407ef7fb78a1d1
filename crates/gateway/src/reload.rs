//! Another configuration, without letting go of a single request.
//!
//! ```text
//!  Config ──check, build──▶ Gateway ──swap──▶ Current ◀──load── each request, once, at its head
//!             │                                  │
//!             └── refused: the old one serves    └── the old one lives as long as its longest reply
//! ```
//!
//! Guarantees:
//! * **All or nothing.** A configuration that cannot work changes nothing. One that can takes effect at once, whole: no
//!   request sees half of it.
//! * **No reply waits.** A request holds its gateway by reference count, never by a lock; a swap waits for nobody.
//! * **A rotated secret is the next one to be written:** also requests that began before go on with it, and the
//!   connections stay.
//! * **What is not about configuration stays:** counters, the ledger, what is still being written, and pooled
//!   connections to providers that are configured as before.
//!
//! What listens cannot be changed by a reload, nor where the ledger is; [`Reloaded::needs_restart`] names what was meant
//! to change and did not.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use farrier_ledger::Ledger;
use farrier_serve::Tracker;
use tracing::debug;

use crate::Gateway;
use crate::accept::StartError;
use crate::care::Known;
use crate::config::{Config, TraceConfig};
use crate::metrics::Metrics;
use crate::seed::Seeds;
use crate::trace::Traces;
use crate::upstream::Field;

/// Changes the configuration of a gateway that runs. Cheap to clone; does not keep the gateway alive.
#[derive(Clone, Debug)]
pub struct Reloader {
    current: Weak<Current>,
}

/// What a reload came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reloaded {
    /// What differs from what runs and takes a restart to change: keys as the configuration file has them.
    pub needs_restart: Vec<&'static str>,
    /// Providers whose connections are made anew, because something about them is another.
    pub reconnected: Vec<String>,
}

/// Why a configuration was not taken over. The one before it still serves.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// There is nothing to reload any more.
    #[error("expected a gateway that runs, got one that has ended")]
    Ended,
    /// It cannot work.
    #[error(transparent)]
    Refused(#[from] StartError),
}

/// The gateway that requests come to now.
#[derive(Debug)]
pub(crate) struct Current {
    gateway: ArcSwap<Gateway>,
    lasting: Lasting,
    fixed: Fixed,
}

/// What outlasts every reload.
#[derive(Clone, Debug)]
pub(crate) struct Lasting {
    /// What is known of providers and callers.
    pub(crate) known: Arc<Known>,
    pub(crate) metrics: Arc<Metrics>,
    /// The connections of clients, and what runs in them.
    pub(crate) requests: Tracker,
    pub(crate) seeds: Arc<Seeds>,
    /// What is still to be remembered of replies whose clients left.
    pub(crate) writes: Tracker,
    /// Connections towards providers, and the writers of transcripts.
    pub(crate) background: Tracker,
}

/// What only a restart changes.
#[derive(Debug)]
pub(crate) struct Fixed {
    pub(crate) listen: Vec<SocketAddr>,
    pub(crate) listener: farrier_serve::Limits,
}

// === impl Reloader ===

impl Reloader {
    pub(crate) fn of(current: &Arc<Current>) -> Self {
        Self {
            current: Arc::downgrade(current),
        }
    }

    /// The ledger in use: what a new configuration is to be built over.
    #[must_use]
    pub fn ledger(&self) -> Option<Arc<dyn Ledger>> {
        let current = self.current.upgrade()?;
        Some(Arc::clone(&current.gateway().ledger))
    }

    /// Checks `config` whole, and has it answer every request from now on. Nothing is contacted, and nothing is awaited:
    /// requests that are under way end as they began.
    ///
    /// The configuration is held to the addresses that are listened on, whatever it says itself: a gateway that others
    /// can reach is not opened to them by a file that speaks of loopback.
    ///
    /// # Errors
    ///
    /// [`ReloadError`]; then nothing has changed.
    pub fn reload(&self, config: Config) -> Result<Reloaded, ReloadError> {
        let current = self.current.upgrade().ok_or(ReloadError::Ended)?;
        current.replace(config)
    }

    /// Shows on the page of metrics which configuration serves, counted by whoever reads them, and since when (since
    /// 1970).
    pub fn show_serving(&self, generation: u64, since: Duration) {
        if let Some(current) = self.current.upgrade() {
            current.lasting.metrics.reloads.serving(generation, since);
        }
    }

    /// Counts an attempt at another configuration, also one that never came as far as [`reload`](Self::reload).
    pub fn count_attempt(&self, taken: bool) {
        if let Some(current) = self.current.upgrade() {
            current.lasting.metrics.reloads.attempt(taken);
        }
    }
}

// === impl Current ===

impl Current {
    pub(crate) fn new(first: Gateway, lasting: Lasting, fixed: Fixed) -> Self {
        Self {
            gateway: ArcSwap::from_pointee(first),
            lasting,
            fixed,
        }
    }

    /// The gateway for a request that begins now.
    pub(crate) fn gateway(&self) -> Arc<Gateway> {
        self.gateway.load_full()
    }

    pub(crate) fn lasting(&self) -> &Lasting {
        &self.lasting
    }

    fn replace(&self, mut config: Config) -> Result<Reloaded, ReloadError> {
        let old = self.gateway();
        let needs_restart = self.fixed.differing(&config, &old);
        config.listen.clone_from(&self.fixed.listen);
        config.ledger = Arc::clone(&old.ledger);
        config.check().map_err(StartError::from)?;
        let rotated = Rotated::of(&config);
        let new = Gateway::build(config, &self.lasting, Some(&old))?;
        let reconnected = new.reconnected(&old);
        // Of connections that are made anew, the old ones too: requests that began before may be written after.
        rotated.show(&old);
        rotated.show(&new);
        self.gateway.store(Arc::new(new));
        let reloaded = Reloaded {
            needs_restart,
            reconnected,
        };
        debug!(%reloaded, "configuration replaced");
        Ok(reloaded)
    }
}

/// What each provider is to be shown from now on, and where it is.
struct Rotated(Vec<(String, String, Field)>);

impl Rotated {
    fn of(config: &Config) -> Self {
        let shown = config.providers.iter().filter_map(|provider| {
            // One that cannot be sent is refused when the gateway is built.
            let field = provider.shown().ok()??;
            Some((provider.name.clone(), provider.base_url.clone(), field))
        });
        Self(shown.collect())
    }

    fn show(&self, gateway: &Gateway) {
        for (provider, base_url, field) in &self.0 {
            if let Some(upstream) = gateway.upstreams.get(provider) {
                upstream.exchange(base_url, field.clone());
            }
        }
    }
}

impl Gateway {
    /// The providers that both know and that are not connected to as before.
    fn reconnected(&self, before: &Self) -> Vec<String> {
        let mut names: Vec<String> = self
            .upstreams
            .iter()
            .filter(|(name, upstream)| {
                let old = before.upstreams.get(*name);
                old.is_some_and(|old| !Arc::ptr_eq(old, upstream))
            })
            .map(|(name, _)| name.clone())
            .collect();
        names.sort_unstable();
        names
    }
}

// === impl Lasting ===

impl Lasting {
    pub(crate) fn new() -> Result<Self, StartError> {
        Ok(Self {
            known: Arc::new(Known::new()),
            metrics: Arc::new(Metrics::new()),
            requests: Tracker::new(),
            seeds: Arc::new(Seeds::new().map_err(StartError::Random)?),
            writes: Tracker::new(),
            background: Tracker::new(),
        })
    }

    /// The writer of transcripts there is, if it does as configured, else a new one. A writer ends with the last request
    /// that was captured for it.
    pub(crate) fn trace(
        &self,
        config: &TraceConfig,
        running: Option<&Traces>,
    ) -> Result<Traces, StartError> {
        if let Some(running) = running.filter(|running| running.config() == config) {
            return Ok(running.clone());
        }
        let started = Traces::start(config, self.seeds.writer(), &self.metrics, &self.background);
        started.map_err(|source| StartError::Trace {
            path: config.dir.clone(),
            source,
        })
    }
}

// === impl Fixed ===

impl Fixed {
    /// What `config` would have otherwise.
    fn differing(&self, config: &Config, running: &Gateway) -> Vec<&'static str> {
        let differs = [
            ("listen", self.listen != config.listen),
            ("limits", self.listener != config.limits.listener),
            ("ledger", !Arc::ptr_eq(&running.ledger, &config.ledger)),
        ];
        differs
            .into_iter()
            .filter_map(|(what, differs)| differs.then_some(what))
            .collect()
    }
}

// === impl Reloaded ===

impl fmt::Display for Reloaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = |names: &[&str]| match names {
            [] => "none".to_owned(),
            names => names.join(", "),
        };
        let reconnected: Vec<&str> = self.reconnected.iter().map(String::as_str).collect();
        write!(
            f,
            "providers connected to anew: {}; unchanged until a restart: {}",
            named(&reconnected),
            named(&self.needs_restart)
        )
    }
}
