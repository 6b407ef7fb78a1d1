//! The egress proxy: where a sandbox may go, and the credentials it never holds.
//!
//! ```text
//! sandbox ─▶ accept ▸ authorize ▸ inject ▸ resolve ▸ upstream ─▶ destination
//!              │          └─ nothing to read: resolve ▸ tunnel
//!              └─ rescue (any failure becomes an answer)     record (one audit line)
//! ```
//!
//! In: connections to one sandbox's listeners: HTTP with absolute URLs or `CONNECT`, and, from within the sandbox's own
//! network, whatever programs there connect to, and their questions for names. Out: what a destination says.
//!
//! Invariants:
//! * Who connects is told by the listener, never by what a client says.
//! * What no rule of the policy allows is refused, and nothing of it is forwarded.
//! * A placeholder is replaced towards the endpoints of its key and nowhere else; a secret leaves only in the request it
//!   was lent for. TLS is ended here only where there is something to replace or to judge.
//! * A name is resolved once for a connection, and the address that was judged is the address that is dialled.
//! * What two servers could read in two ways is not forwarded.
//! * Every wait is bounded, every queue too; a change of rules is one swap, and what it no longer allows ends.
//!
//! Not here: where secrets come from and where they may go (`farrier-secrets`), dialects, what a sandbox is.

#![forbid(unsafe_code)]

mod accept;
pub mod address;
mod ask;
pub mod audit;
mod body;
mod ca;
mod config;
mod dns;
mod exchange;
#[doc(hidden)]
pub mod fuzzing;
pub mod head;
mod inject;
mod local;
mod mask;
pub mod placeholder;
pub mod policy;
mod prefixed;
mod record;
mod rescue;
mod resolve;
mod sandbox;
mod screen;
mod talk;
pub mod target;
mod tunnel;
mod upstream;
mod websocket;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use farrier_serve::{Listener, Peer, Tracker};
use tokio::net::UdpSocket;
use tracing::warn;

pub use ca::{CERTIFICATE_FILE, CaError, CertificateAuthority, KEY_FILE};
pub use config::{Config, Limits, Rules};
pub use farrier_serve::{BindError, Drained};
pub use local::{LocalServices, LocalStream};
pub use resolve::{DialError, Names};
pub use sandbox::Shared;
pub use upstream::{Trust, TrustError};

use sandbox::Sandbox;

/// One sandbox's proxy, which listens and does not answer yet.
#[derive(Debug)]
pub struct Proxy {
    /// Those whose clients know of it come first.
    listener: Listener,
    explicit: usize,
    dns: Vec<UdpSocket>,
    dns_tcp: Listener,
    sandbox: Arc<Sandbox>,
}

/// The way in from within a sandbox: sockets that were bound in its network, and names that are answered here.
#[derive(Debug, Default)]
pub struct Inside {
    /// Listeners for clients that know of the proxy.
    pub explicit: Vec<std::net::TcpListener>,
    /// Listeners that all connections of the sandbox to their ports come to, whatever the address: the local address of
    /// what they accept is where the client meant to go.
    pub captured: Vec<std::net::TcpListener>,
    /// Sockets for questions for names.
    pub dns: Vec<std::net::UdpSocket>,
    /// Listeners for the same.
    pub dns_tcp: Vec<std::net::TcpListener>,
    /// Names that are answered here, at ports 80 and 443.
    pub local: LocalServices,
}

/// Why there is no proxy.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address that cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A socket that was handed over and cannot be used.
    #[error("cannot use a socket from within the sandbox {sandbox}")]
    Socket {
        /// Whose it is.
        sandbox: String,
        /// What the operating system said.
        source: io::Error,
    },
}

/// What changes a proxy's rules while it answers. Does not keep it alive.
#[derive(Clone, Debug)]
pub struct Reloader {
    sandbox: Weak<Sandbox>,
}

/// Connections that ask for names at once.
const MAX_QUESTIONERS: usize = 64;
/// For decisions to be written, at the end.
const WRITTEN: Duration = Duration::from_secs(3);
/// For connections to destinations to close.
const FLUSH: Duration = Duration::from_millis(500);

// === impl Proxy ===

impl Proxy {
    /// Binds a sandbox's addresses. Nothing is contacted.
    ///
    /// # Errors
    ///
    /// [`StartError::Bind`]: the first address that cannot be listened on.
    pub async fn bind(config: Config, shared: Shared) -> Result<Self, StartError> {
        Self::over(Inside::default(), config, shared).await
    }

    /// The same, with what leads here from within the sandbox beside the addresses of its configuration, if it has any.
    ///
    /// # Errors
    ///
    /// [`StartError`]
    pub async fn over(inside: Inside, config: Config, shared: Shared) -> Result<Self, StartError> {
        let Config {
            sandbox,
            listen,
            limits,
            rules,
        } = config;
        let Inside {
            explicit,
            captured,
            dns,
            dns_tcp,
            local,
        } = inside;
        let unusable = |source| StartError::Socket {
            sandbox: sandbox.clone(),
            source,
        };
        let bound = Listener::bind(&listen).await?;
        let known = bound.with(Listener::over(explicit).map_err(unusable)?);
        let explicit = known.addrs().count();
        let listener = known.with(Listener::over(captured).map_err(unusable)?);
        let dns = dns.into_iter().map(|socket| {
            socket.set_nonblocking(true)?;
            UdpSocket::from_std(socket)
        });
        Ok(Self {
            listener,
            explicit,
            dns: dns.collect::<io::Result<_>>().map_err(unusable)?,
            dns_tcp: Listener::over(dns_tcp).map_err(unusable)?,
            sandbox: Arc::new(Sandbox::new(sandbox, (limits, rules), shared, local)),
        })
    }

    /// The addresses for clients that know of it, as bound: port 0 has become a real one.
    pub fn addrs(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.listener.addrs().take(self.explicit)
    }

    /// What changes its rules.
    #[must_use]
    pub fn reloader(&self) -> Reloader {
        Reloader {
            sandbox: Arc::downgrade(&self.sandbox),
        }
    }

    /// Answers until `shutdown` resolves, then finishes what is open, and cuts what is not finished by the drain deadline.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Drained {
        let Self {
            listener,
            explicit,
            dns,
            dns_tcp,
            sandbox,
        } = self;
        for socket in dns {
            let sandbox = Arc::clone(&sandbox);
            let tasks = sandbox.background.clone();
            drop(tasks.spawn(async move { sandbox.stand_ins.serve_udp(&socket).await }));
        }
        let connection = {
            let sandbox = Arc::clone(&sandbox);
            move |peer: Peer, stream| {
                let sandbox = Arc::clone(&sandbox);
                sandbox.accepted(stream, peer.socket >= explicit)
            }
        };
        let limits = &sandbox.limits.listener;
        let (drained, ()) = tokio::join!(
            listener.serve_streams(connection, limits, &sandbox.tasks, shutdown),
            questions(dns_tcp, &sandbox),
        );
        sandbox.background.cut(); // kept connections never end by themselves
        sandbox.background.idle(FLUSH).await;
        if let Err(error) = sandbox.shared.audit.flush(WRITTEN).await {
            warn!(%error, sandbox = sandbox.name, "not all decisions are recorded");
        }
        drained
    }
}

/// Answers questions for names over TCP until the sandbox's proxy drains.
async fn questions(listener: Listener, sandbox: &Arc<Sandbox>) {
    let answered = Arc::clone(sandbox);
    let connection = move |_peer: Peer, stream| {
        let sandbox = Arc::clone(&answered);
        async move { sandbox.stand_ins.serve_tcp(stream).await }
    };
    let limits = farrier_serve::Limits {
        max_connections: MAX_QUESTIONERS,
        drain: FLUSH,
        ..sandbox.limits.listener.clone()
    };
    let shutdown = sandbox.tasks.draining();
    let tasks = Tracker::new();
    listener
        .serve_streams(connection, &limits, &tasks, shutdown)
        .await;
}

// === impl Reloader ===

impl Reloader {
    /// Replaces the rules: one swap for all that begins from now on. What is open and no longer allowed ends. Returns
    /// whether there still was a proxy.
    pub fn replace(&self, rules: Rules) -> bool {
        let sandbox = self.sandbox.upgrade();
        if let Some(sandbox) = &sandbox {
            sandbox.replace(rules, None);
        }
        sandbox.is_some()
    }

    /// The same, and whom destinations are believed to be. Connections that were made before are not used any more.
    pub fn replace_believing(&self, rules: Rules, trust: Trust) -> bool {
        let sandbox = self.sandbox.upgrade();
        if let Some(sandbox) = &sandbox {
            sandbox.replace(rules, Some(trust));
        }
        sandbox.is_some()
    }
}
