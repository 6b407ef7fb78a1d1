//! The proxies of sandboxes beside the gateway: started with it, drained with it, their rules replaced with its own.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use farrier_egress::audit::{Audit, Bounds};
use farrier_egress::{
    CERTIFICATE_FILE, CaError, CertificateAuthority, Config, Names, Proxy, Reloader, Rules, Shared,
    Trust,
};
use farrier_ledger::{Clock as _, SystemClock};
use farrier_secrets::{Credentials, ProviderName};
use farrier_serve::Tracker;

use crate::config::{Egress, Environment, Examined, NO_STATE};
use crate::failure::Failure;

/// Proxies that listen and do not answer yet.
#[derive(Debug)]
pub(crate) struct Proxies {
    proxies: Vec<(String, Proxy)>,
    /// What sandboxes are to trust, if there are any.
    certificate: Option<PathBuf>,
    reins: Reins,
}

/// What changes the rules of proxies while they answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reins {
    commons: Commons,
    /// Providers of sandboxes that run here, besides those that the configuration attaches.
    lent: Arc<ArcSwap<BTreeSet<ProviderName>>>,
    runs: Arc<Vec<(Egress, Reloader)>>,
}

/// Rules that are ready to be taken over.
#[derive(Debug)]
pub(crate) struct Prepared {
    credentials: Credentials,
    egress: Vec<Egress>,
}

/// Where decisions are kept.
pub(crate) fn audit_dir(env: &Environment) -> Option<PathBuf> {
    Some(env.egress_dir()?.join("audit"))
}

/// Where the certificate authority is, below the proxies' directory.
const AUTHORITY: &str = "ca";

// === impl Proxies ===

impl Proxies {
    /// Binds every proxy that is configured. Without any, nothing is touched.
    ///
    /// # Errors
    ///
    /// An address that cannot be listened on, or no place for the authority or for decisions.
    pub(crate) async fn bind(
        egress: &[Egress],
        credentials: Credentials,
        env: &Environment,
    ) -> Result<Self, Failure> {
        let commons = Commons::of(credentials, env);
        let mut proxies = Vec::with_capacity(egress.len());
        let mut runs = Vec::with_capacity(egress.len());
        let mut certificate = None;
        for one in egress {
            certificate = commons.certificate();
            let proxy = bound(one, commons.shared(one.trust.clone())?).await?;
            runs.push((one.clone(), proxy.reloader()));
            proxies.push((one.name.clone(), proxy));
        }
        let reins = Reins {
            commons,
            lent: Arc::default(),
            runs: Arc::new(runs),
        };
        Ok(Self {
            proxies,
            certificate,
            reins,
        })
    }

    pub(crate) fn reins(&self) -> Reins {
        self.reins.clone()
    }

    /// What people are told of them: a word, and what there is of it.
    pub(crate) fn told(&self) -> impl Iterator<Item = (&'static str, String)> + '_ {
        let proxies = self.proxies.iter().map(|(name, proxy)| {
            let addresses: Vec<String> = proxy
                .addrs()
                .map(|address| format!("http://{address}"))
                .collect();
            (
                "egress",
                format!("{name} through {}", addresses.join(" and ")),
            )
        });
        let certificate = self.certificate.iter();
        let certificate =
            certificate.map(|path| ("trust", format!("{} in sandboxes", path.display())));
        proxies.chain(certificate)
    }

    /// Answers until `life` drains, and then to the end of what is open.
    pub(crate) async fn run(self, life: &Tracker) {
        let tasks = Tracker::new();
        for (_, proxy) in self.proxies {
            let life = life.clone();
            drop(tasks.spawn(async move { proxy.run(async move { life.draining().await }).await }));
        }
        life.draining().await;
        // Each proxy bounds its own drain.
        tasks.idle(Duration::from_secs(3600)).await;
    }
}

/// What all proxies share, but for whom each believes; made when the first is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Commons {
    credentials: Arc<ArcSwap<Credentials>>,
    directory: Option<PathBuf>,
    made: Arc<Mutex<Option<Made>>>,
}

type Made = (Arc<CertificateAuthority>, Arc<Audit>);

/// Why there is nothing to share.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unshared {
    #[error("cannot record what proxies decide")]
    Audit(#[source] std::io::Error),
    #[error("cannot end TLS for sandboxes")]
    Authority(#[from] CaError),
    #[error("{NO_STATE}")]
    Nowhere,
}

impl From<Unshared> for Failure {
    fn from(unshared: Unshared) -> Self {
        match unshared {
            Unshared::Nowhere => Self::user(NO_STATE),
            other => Self::internal("cannot start the proxies of sandboxes", &other),
        }
    }
}

impl Commons {
    fn of(credentials: Credentials, env: &Environment) -> Self {
        Self {
            credentials: Arc::new(ArcSwap::from_pointee(credentials)),
            directory: env.egress_dir(),
            made: Arc::default(),
        }
    }

    /// Where what sandboxes are to trust is.
    pub(crate) fn certificate(&self) -> Option<PathBuf> {
        let directory = self.directory.as_ref()?;
        Some(directory.join(AUTHORITY).join(CERTIFICATE_FILE))
    }

    /// For one proxy.
    ///
    /// # Errors
    ///
    /// No place for the authority or for decisions.
    pub(crate) fn shared(&self, trust: Trust) -> Result<Shared, Unshared> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let (authority, audit) = match &*made {
            Some((authority, audit)) => (Arc::clone(authority), Arc::clone(audit)),
            None => {
                let directory = self.directory.as_ref();
                let directory = directory.ok_or(Unshared::Nowhere)?;
                let authority = CertificateAuthority::load_or_create(&directory.join(AUTHORITY))?;
                let audit = Audit::open(&directory.join("audit"), Bounds::default(), now);
                let audit = audit.map_err(Unshared::Audit)?;
                let both = (Arc::new(authority), Arc::new(audit));
                *made = Some((Arc::clone(&both.0), Arc::clone(&both.1)));
                both
            }
        };
        Ok(Shared {
            audit,
            authority,
            credentials: Arc::clone(&self.credentials),
            names: Names::system(),
            trust,
        })
    }
}

async fn bound(egress: &Egress, shared: Shared) -> Result<Proxy, Failure> {
    let config = Config {
        sandbox: egress.name.clone(),
        listen: egress.listen.clone(),
        limits: egress.limits.clone(),
        rules: egress.rules(),
    };
    let bound = Proxy::bind(config, shared).await;
    bound.map_err(|error| {
        Failure::internal(format!("cannot start the proxy of {}", egress.name), &error)
            .hint("choose another address in its [[egress]]")
    })
}

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(SystemClock.unix_millis())
}

// === impl Reins ===

impl Reins {
    pub(crate) fn commons(&self) -> &Commons {
        &self.commons
    }

    /// Says which providers sandboxes have that run here, before their credentials are fetched.
    pub(crate) fn lend(&self, providers: BTreeSet<ProviderName>) {
        self.lent.store(Arc::new(providers));
    }

    /// Fetches the credentials of now for everybody. Blocks for as long as secrets' sources do.
    pub(crate) fn refresh(&self, examined: &Examined, env: &Environment) {
        let credentials = self.credentials(examined, env);
        self.commons.credentials.store(Arc::new(credentials));
    }

    fn credentials(&self, examined: &Examined, env: &Environment) -> Credentials {
        examined.credentials(&self.lent.load(), env)
    }

    /// Fetches what a changed configuration needs. Blocks for as long as secrets' sources do.
    pub(crate) fn prepare(&self, examined: &Examined, env: &Environment) -> Prepared {
        Prepared {
            credentials: self.credentials(examined, env),
            egress: examined.egress().to_vec(),
        }
    }

    /// Has every proxy go by a changed configuration from now on. One that is no longer configured refuses everything.
    /// Returns whether something takes a restart: another address, another sandbox, other limits.
    pub(crate) fn take_over(&self, prepared: Prepared) -> bool {
        let Prepared {
            credentials,
            egress,
        } = prepared;
        self.commons.credentials.store(Arc::new(credentials));
        let mut restart = egress.len() != self.runs.len();
        for (runs, reloader) in self.runs.iter() {
            let now = egress.iter().find(|now| now.name == runs.name);
            restart |= now.is_none_or(|now| now.listen != runs.listen || now.limits != runs.limits);
            let _still_runs = match now {
                Some(now) => reloader.replace_believing(now.rules(), now.trust.clone()),
                None => reloader.replace(Rules::default()),
            };
        }
        restart
    }
}
