//! The proxies, started as their users start them.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;

use crate::ground::{Ground, RunError};
use crate::process::Pids;
use crate::target::{ANY_PORT, Listens, Program, Target, TargetError};
use crate::wire::{Identity, believing};

/// Farrier with three proxies, and a plain one.
#[derive(Debug)]
pub(super) struct Proxies {
    farrier: Target,
    /// Of each [`Place`].
    addresses: [SocketAddr; 3],
    tinyproxy: Option<Target>,
    /// The upstream's certificate, and the one that Farrier shows for it.
    upstream: Arc<ClientConfig>,
    shown: Arc<ClientConfig>,
}

/// One of Farrier's proxies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Passes on what it cannot read.
    Tunnel,
    /// Ends TLS, because requests are judged.
    Judging,
    /// Has a key besides.
    Keyed,
}

/// How a client gets to the upstream.
#[derive(Clone, Debug)]
pub(super) struct Passage {
    pub(super) proxy: Option<SocketAddr>,
    pub(super) pids: Pids,
    pub(super) tls: Arc<ClientConfig>,
}

/// Those that are sent no placeholder.
pub(super) const FARRIER: [(&str, Place); 2] = [
    ("farrier, tunnel", Place::Tunnel),
    ("farrier, intercepted", Place::Judging),
];
/// The one that is.
pub(super) const KEYED: (&str, Place) = ("farrier, placeholder", Place::Keyed);
pub(super) const PLACEHOLDER: &str = "farrier:resolve:env:BENCH_API_KEY";

const NAMES: [&str; 3] = ["tunnel", "judging", "keyed"];
/// Longer than a proxy takes to listen.
const READY: Duration = Duration::from_secs(10);
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);

// === impl Proxies ===

impl Proxies {
    pub(super) fn start(ground: &Ground<'_>, identity: &Identity) -> Result<Self, RunError> {
        let launch = ground.launch("egress", &ground.settings.farrier, 0)?;
        let directory = &launch.directory;
        let server = ground.upstream.address();
        let write = |name: &str, text: &str| fs::write(directory.join(name), text);
        write("upstream.pem", &identity.authority_pem)?;
        write("tunnel.yaml", &policy(server, ""))?;
        write(
            "judging.yaml",
            &policy(server, ", protocol: rest, access: full"),
        )?;
        write("farrier.toml", &farrier_config(server))?;
        let (farrier, addresses) = launch.egress(NAMES)?;
        let shown = directory.join("state/farrier/egress/ca/ca.pem");
        let shown = fs::read(shown)?;
        Ok(Self {
            farrier,
            addresses,
            tinyproxy: tinyproxy(ground)?,
            upstream: believing(&[identity.authority_pem.as_bytes()])?,
            shown: believing(&[&shown])?,
        })
    }

    pub(super) fn farrier(&self, place: Place) -> Passage {
        let [tunnel, judging, keyed] = self.addresses;
        let (proxy, tls) = match place {
            Place::Tunnel => (tunnel, &self.upstream),
            Place::Judging => (judging, &self.shown),
            Place::Keyed => (keyed, &self.shown),
        };
        Passage {
            proxy: Some(proxy),
            pids: self.farrier.pids().to_vec(),
            tls: Arc::clone(tls),
        }
    }

    pub(super) fn tinyproxy(&self) -> Option<Passage> {
        let tinyproxy = self.tinyproxy.as_ref()?;
        Some(Passage {
            proxy: Some(tinyproxy.address()),
            pids: tinyproxy.pids().to_vec(),
            tls: Arc::clone(&self.upstream),
        })
    }

    /// No proxy at all.
    pub(super) fn none(&self) -> Passage {
        Passage {
            proxy: None,
            pids: Vec::new(),
            tls: Arc::clone(&self.upstream),
        }
    }

    pub(super) fn stop(self) -> Result<(), TargetError> {
        self.farrier.stop()?;
        self.tinyproxy.map_or(Ok(()), Target::stop)
    }
}

/// `None` if plain proxies are left out.
fn tinyproxy(ground: &Ground<'_>) -> Result<Option<Target>, RunError> {
    let Some(program) = &ground.settings.tinyproxy else {
        return Ok(None);
    };
    let launch = ground.launch("tinyproxy", program, 0)?;
    // It cannot tell which port the system chose, so one is asked for and given back just before.
    let address = TcpListener::bind(ANY_PORT)?.local_addr()?;
    let config = launch.directory.join("tinyproxy.conf");
    fs::write(&config, tinyproxy_config(address))?;
    let target = launch.peer(&Program {
        name: "tinyproxy",
        arguments: &["-d", "-c", &config.display().to_string()],
        environment: &[],
        listens: Listens::At(address),
    })?;
    let deadline = ground.clock.now() + READY;
    while let Err(error) = TcpStream::connect(address) {
        if ground.clock.now() > deadline {
            return Err(error.into());
        }
        ground.clock.wait_until(ground.clock.now() + BETWEEN_LOOKS);
    }
    Ok(Some(target))
}

// === configurations ===

fn policy(server: SocketAddr, more: &str) -> String {
    let (host, port) = (server.ip(), server.port());
    format!(
        "version: 1\nnetwork_policies:\n  upstream:\n    endpoints:\n      \
         - {{ host: \"{host}\", port: {port}, allowed_ips: [127.0.0.0/8]{more} }}\n"
    )
}

/// The defaults, audit lines included.
fn farrier_config(server: SocketAddr) -> String {
    let egress = NAMES.map(|name| {
        let (policy, providers) = match name {
            "tunnel" => ("tunnel", ""),
            "judging" => ("judging", ""),
            _ => ("judging", "\"bench\""),
        };
        format!(
            "[[egress]]\nname = \"{name}\"\nlisten = \"127.0.0.1:0\"\npolicy = \"{policy}.yaml\"\n\
             providers = [{providers}]\nca_file = \"upstream.pem\"\n\n"
        )
    });
    format!(
        "[gateway]\nlisten = \"127.0.0.1:0\"\n\n[[provider]]\nname = \"bench\"\nbase_url = \"https://{server}/v1\"\n\
         credential = {{ env = \"BENCH_KEY\" }}\n\n[ledger]\npath = \"ledger.db\"\n\n{}",
        egress.concat()
    )
}

/// As Debian ships it, but for its bound on clients, and without a log.
fn tinyproxy_config(listen: SocketAddr) -> String {
    let (host, port) = (listen.ip(), listen.port());
    format!(
        "Port {port}\nListen {host}\nTimeout 600\nMaxClients 4096\nLogLevel Critical\nAllow 127.0.0.1\n\
         DisableViaHeader Yes\n"
    )
}
