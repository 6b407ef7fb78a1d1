//! One sandbox: its rules of now, and what it shares with the others.

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use farrier_secrets::{Attached, Credentials, ProviderName, Scheme};
use farrier_serve::Tracker;
use tokio::sync::watch;

use crate::address;
use crate::ask::Ask;
use crate::audit::Audit;
use crate::ca::CertificateAuthority;
use crate::config::{Limits, Rules};
use crate::dns::StandIns;
use crate::local::LocalServices;
use crate::policy::{Inspect, Policy};
use crate::resolve::Names;
use crate::target::Authority;
use crate::upstream::{Means, Trust, Upstream};

/// What all sandboxes of an installation share.
#[derive(Clone, Debug)]
pub struct Shared {
    /// Where decisions are written.
    pub audit: Arc<Audit>,
    /// Ends TLS in the name of destinations.
    pub authority: Arc<CertificateAuthority>,
    /// The secrets of now; whoever owns them replaces them whole.
    pub credentials: Arc<ArcSwap<Credentials>>,
    /// How names become addresses.
    pub names: Names,
    /// Whom destinations are believed to be, until [`Reloader::replace_believing`](crate::Reloader::replace_believing).
    pub trust: Trust,
}

/// A sandbox, as its listener knows it.
#[derive(Debug)]
pub(crate) struct Sandbox {
    pub(crate) name: String,
    pub(crate) limits: Limits,
    pub(crate) shared: Shared,
    /// Names that are answered here.
    pub(crate) local: LocalServices,
    /// What stands for names where it has no other addresses.
    pub(crate) stand_ins: StandIns,
    /// Its connections, and what runs in them.
    pub(crate) tasks: Tracker,
    /// Connections to destinations, which never end by themselves.
    pub(crate) background: Tracker,
    trust: ArcSwap<Trust>,
    rules: ArcSwap<Ruled>,
    changed: watch::Sender<()>,
}

/// One set of rules, and connections that were judged by them.
#[derive(Debug)]
pub(crate) struct Ruled {
    pub(crate) policy: Arc<Policy>,
    pub(crate) providers: Vec<ProviderName>,
    pub(crate) upstream: Upstream,
}

/// Something that goes on, and was allowed when it began.
#[derive(Debug)]
pub(crate) struct Standing {
    sandbox: Arc<Sandbox>,
    changed: watch::Receiver<()>,
    what: What,
}

#[derive(Debug)]
enum What {
    Request(Ask),
    Tunnel { to: Authority, address: IpAddr },
}

// === impl Sandbox ===

impl Sandbox {
    pub(crate) fn new(
        name: String,
        (limits, rules): (Limits, Rules),
        shared: Shared,
        local: LocalServices,
    ) -> Self {
        let background = Tracker::new();
        let means = Means {
            names: shared.names.clone(),
            trust: shared.trust.clone(),
            tasks: background.clone(),
        };
        let ruled = Ruled::of(rules, &means, &limits);
        Self {
            name,
            trust: ArcSwap::from_pointee(shared.trust.clone()),
            limits,
            shared,
            local,
            stand_ins: StandIns::new(),
            tasks: Tracker::new(),
            background,
            rules: ArcSwap::from_pointee(ruled),
            changed: watch::Sender::new(()),
        }
    }

    /// The rules for what begins now.
    pub(crate) fn ruled(&self) -> Arc<Ruled> {
        self.rules.load_full()
    }

    /// Replaces the rules. What is open and no longer allowed ends.
    pub(crate) fn replace(&self, rules: Rules, trust: Option<Trust>) {
        if let Some(trust) = trust {
            self.trust.store(Arc::new(trust));
        }
        let means = Means {
            names: self.shared.names.clone(),
            trust: Trust::clone(&self.trust.load()),
            tasks: self.background.clone(),
        };
        let ruled = Ruled::of(rules, &means, &self.limits);
        self.rules.store(Arc::new(ruled));
        self.changed.send_replace(());
    }

    /// The keys of now, and those of them that may be used.
    pub(crate) fn attached(&self, ruled: &Ruled) -> (Arc<Credentials>, Attached) {
        let keys = self.shared.credentials.load_full();
        let attached = keys.attached(&ruled.providers);
        (keys, attached)
    }

    /// Whether a tunnel has to be looked into.
    pub(crate) fn inspects(&self, ruled: &Ruled, to: &Authority, inspect: Inspect) -> bool {
        match inspect {
            Inspect::Must => true,
            Inspect::Never => false,
            Inspect::IfNeeded => {
                let (attached, host) = (self.attached(ruled).1, to.host.bare());
                attached.serves(Scheme::Https, &host, to.port)
                    || attached.serves(Scheme::Http, &host, to.port)
            }
        }
    }
}

impl Ruled {
    fn of(rules: Rules, means: &Means, limits: &Limits) -> Self {
        Self {
            upstream: Upstream::new(&rules.policy, means, limits),
            policy: rules.policy,
            providers: rules.providers,
        }
    }
}

// === impl Standing ===

impl Standing {
    pub(crate) fn of_request(sandbox: &Arc<Sandbox>, ask: Ask) -> Self {
        Self::of(sandbox, What::Request(ask))
    }

    pub(crate) fn of_tunnel(sandbox: &Arc<Sandbox>, to: Authority, address: IpAddr) -> Self {
        Self::of(sandbox, What::Tunnel { to, address })
    }

    fn of(sandbox: &Arc<Sandbox>, what: What) -> Self {
        let changed = sandbox.changed.subscribe();
        Self {
            sandbox: Arc::clone(sandbox),
            changed,
            what,
        }
    }

    /// Resolves when the rules have changed to some that do not allow it.
    pub(crate) async fn lapsed(mut self) {
        loop {
            // The sender is the sandbox's, which we hold.
            let _never_closed = self.changed.changed().await;
            if !self.stands() {
                return;
            }
        }
    }

    fn stands(&self) -> bool {
        let ruled = self.sandbox.ruled();
        match &self.what {
            What::Request(ask) => {
                self.sandbox.local.at(&ask.to).is_some()
                    || ruled.policy.request(&ask.to, ask.asked()).is_ok()
            }
            What::Tunnel { to, address } => {
                let named = ruled.policy.named(to);
                ruled
                    .policy
                    .connect(to)
                    .is_ok_and(|reach| !self.sandbox.inspects(&ruled, to, reach.inspect))
                    && address::judge(*address, &named).is_ok()
            }
        }
    }
}
