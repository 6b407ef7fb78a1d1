//! The egress proxy: where a sandbox may go, and the credentials it never holds.
//!
//! ```text
//! sandbox ─▶ accept ▸ authorize ▸ inject ▸ resolve ▸ upstream ─▶ destination
//!              │          └─ nothing to read: resolve ▸ tunnel
//!              └─ rescue (any failure becomes an answer)     record (one audit line)
//! ```
//!
//! In: connections to one listener for each sandbox, HTTP with absolute URLs or `CONNECT`. Out: what a destination says.
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
mod ca;
mod config;
mod exchange;
pub mod head;
mod inject;
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
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use farrier_serve::Listener;

pub use ca::{CERTIFICATE_FILE, CaError, CertificateAuthority, KEY_FILE};
pub use config::{Config, Limits, Rules};
pub use farrier_serve::{BindError, Drained};
pub use resolve::{DialError, Names};
pub use sandbox::Shared;
pub use upstream::{Trust, TrustError};

use sandbox::Sandbox;

/// One sandbox's proxy, which listens and does not answer yet.
#[derive(Debug)]
pub struct Proxy {
    listener: Listener,
    sandbox: Arc<Sandbox>,
}

/// What changes a proxy's rules while it answers. Does not keep it alive.
#[derive(Clone, Debug)]
pub struct Reloader {
    sandbox: Weak<Sandbox>,
}

/// For connections to destinations to close.
const FLUSH: Duration = Duration::from_millis(500);

// === impl Proxy ===

impl Proxy {
    /// Binds a sandbox's addresses. Nothing is contacted.
    ///
    /// # Errors
    ///
    /// The first address that cannot be listened on.
    pub async fn bind(config: Config, shared: Shared) -> Result<Self, BindError> {
        let Config {
            sandbox,
            listen,
            limits,
            rules,
        } = config;
        Ok(Self {
            listener: Listener::bind(&listen).await?,
            sandbox: Arc::new(Sandbox::new(sandbox, limits, rules, shared)),
        })
    }

    /// The addresses, as bound: port 0 has become a real one.
    pub fn addrs(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.listener.addrs()
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
        let Self { listener, sandbox } = self;
        let connection = {
            let sandbox = Arc::clone(&sandbox);
            move |_peer, stream| Arc::clone(&sandbox).connection(stream)
        };
        let limits = &sandbox.limits.listener;
        let drained = listener
            .serve_streams(connection, limits, &sandbox.tasks, shutdown)
            .await;
        sandbox.background.cut(); // kept connections never end by themselves
        sandbox.background.idle(FLUSH).await;
        drained
    }
}

// === impl Reloader ===

impl Reloader {
    /// Replaces the rules: one swap for all that begins from now on. What is open and no longer allowed ends. Returns
    /// whether there still was a proxy.
    pub fn replace(&self, rules: Rules) -> bool {
        let sandbox = self.sandbox.upgrade();
        if let Some(sandbox) = &sandbox {
            sandbox.replace(rules);
        }
        sandbox.is_some()
    }
}
