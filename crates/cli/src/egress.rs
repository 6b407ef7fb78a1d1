//! The proxies of sandboxes beside the gateway: started with it, drained with it, their rules replaced with its own.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use farrier_egress::audit::{Audit, Bounds};
use farrier_egress::{
    CERTIFICATE_FILE, CertificateAuthority, Config, Limits, Names, Proxy, Reloader, Rules, Shared,
    Trust,
};
use farrier_ledger::{Clock as _, SystemClock};
use farrier_secrets::Credentials;
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
    credentials: Arc<ArcSwap<Credentials>>,
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
        let credentials = Arc::new(ArcSwap::from_pointee(credentials));
        let mut proxies = Vec::with_capacity(egress.len());
        let mut runs = Vec::with_capacity(egress.len());
        let mut certificate = None;
        if !egress.is_empty() {
            let directory = env.egress_dir().ok_or_else(|| Failure::user(NO_STATE))?;
            let shared = shared(&credentials, &directory)?;
            certificate = Some(directory.join(AUTHORITY).join(CERTIFICATE_FILE));
            for one in egress {
                let proxy = bound(one, shared(one.trust.clone())).await?;
                runs.push((one.clone(), proxy.reloader()));
                proxies.push((one.name.clone(), proxy));
            }
        }
        let reins = Reins {
            credentials,
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

/// What all proxies share, but for whom each believes.
fn shared(
    credentials: &Arc<ArcSwap<Credentials>>,
    directory: &Path,
) -> Result<impl Fn(Trust) -> Shared + use<>, Failure> {
    let authority = CertificateAuthority::load_or_create(&directory.join(AUTHORITY))
        .map_err(|error| Failure::internal("cannot end TLS for sandboxes", &error))?;
    let audit = Audit::open(&directory.join("audit"), Bounds::default(), now)
        .map_err(|error| Failure::internal("cannot record what proxies decide", &error))?;
    let (authority, audit) = (Arc::new(authority), Arc::new(audit));
    let (credentials, names) = (Arc::clone(credentials), Names::system());
    Ok(move |trust| Shared {
        audit: Arc::clone(&audit),
        authority: Arc::clone(&authority),
        credentials: Arc::clone(&credentials),
        names: names.clone(),
        trust,
    })
}

async fn bound(egress: &Egress, shared: Shared) -> Result<Proxy, Failure> {
    let config = Config {
        sandbox: egress.name.clone(),
        listen: egress.listen.clone(),
        limits: Limits::default(),
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
    /// Fetches what a changed configuration needs. Blocks for as long as secrets' sources do.
    pub(crate) fn prepare(&self, examined: &Examined, env: &Environment) -> Prepared {
        Prepared {
            credentials: examined.credentials(env),
            egress: examined.egress().to_vec(),
        }
    }

    /// Has every proxy go by a changed configuration from now on. One that is no longer configured refuses everything.
    /// Returns whether something takes a restart: another address, another sandbox, other certificates to believe.
    pub(crate) fn take_over(&self, prepared: Prepared) -> bool {
        let Prepared {
            credentials,
            egress,
        } = prepared;
        self.credentials.store(Arc::new(credentials));
        let mut restart = egress.len() != self.runs.len();
        for (runs, reloader) in self.runs.iter() {
            let now = egress.iter().find(|now| now.name == runs.name);
            restart |= now.is_none_or(|now| now.listen != runs.listen);
            let _still_runs = reloader.replace(now.map_or_else(Rules::default, Egress::rules));
        }
        restart
    }
}
