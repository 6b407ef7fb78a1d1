//! Callers that are known by their connection: what runs in a sandbox.
//!
//! ```text
//! sandbox ──listener of its own──▶ whoever serves that listener ──stream──▶ Entrance ──▶ the gateway of now
//! ```
//!
//! Whoever serves a sandbox's listener says whose the connection is. Nothing that comes over it does: neither a key nor a
//! header makes a resident somebody else, and its one route is all that it is given.

use std::fmt;
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use farrier_ledger::Scope;
use farrier_serve::{Answering, Peer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::task::AbortOnDropHandle;

use crate::identify::Caller;
use crate::reload::Current;

/// A sandbox, as the gateway knows it.
#[derive(Debug)]
pub struct Resident {
    agent: Option<Arc<str>>,
    scope: Scope,
    model: ArcSwap<String>,
}

/// Where connections come in that others accepted. Does not keep the gateway alive.
#[derive(Clone)]
pub struct Entrance {
    current: Weak<Current>,
    limits: farrier_serve::Limits,
}

/// Who is at the other end of a connection, as far as the connection tells.
#[derive(Clone, Debug)]
pub(crate) enum Whose {
    /// Somebody who connected to a listener of the gateway's own.
    Peer(Peer),
    /// A sandbox.
    Resident(Arc<Resident>),
}

// === impl Resident ===

impl Resident {
    /// The sandbox of this name, in which `agent` runs, with the route for `model`. Turns are remembered by the name: a
    /// sandbox that is started again finds its own, and one that takes a name anew should have taken another.
    #[must_use]
    pub fn new(sandbox: &str, agent: Option<&str>, model: &str) -> Self {
        Self {
            agent: agent.map(Arc::from),
            scope: Scope::new(format!("sandbox\n{sandbox}")),
            model: ArcSwap::from_pointee(model.to_owned()),
        }
    }

    /// The model that it may ask for.
    #[must_use]
    pub fn model(&self) -> Arc<String> {
        self.model.load_full()
    }

    /// Gives it another route, from the next request on.
    pub fn switch(&self, model: &str) {
        self.model.store(Arc::new(model.to_owned()));
    }

    pub(crate) fn caller(&self) -> Caller {
        Caller {
            agent: self.agent.clone(),
            scope: self.scope.clone(),
            only: Some(self.model()),
        }
    }
}

// === impl Entrance ===

impl Entrance {
    pub(crate) fn to(current: &Arc<Current>, limits: farrier_serve::Limits) -> Self {
        Self {
            current: Arc::downgrade(current),
            limits,
        }
    }

    /// Answers on one connection, HTTP/1.1 or HTTP/2, from its first byte to its last. Of a gateway that has ended nothing is
    /// answered: the connection is closed.
    ///
    /// # Cancellation
    ///
    /// Dropping the future cuts the connection.
    pub async fn serve<I>(&self, stream: I, resident: Arc<Resident>)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Some(current) = self.current.upgrade() else {
            return;
        };
        let requests = current.lasting().requests.clone();
        let service = move |whose, request| current.gateway().answer(whose, request);
        let answering = Answering::new(service, &self.limits, &requests);
        // The gateway's own drain waits for it, and cuts it.
        let connection = requests.spawn(answering.drive(stream, Whose::Resident(resident)));
        drop(AbortOnDropHandle::new(connection).await);
    }
}

impl fmt::Debug for Entrance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entrance").finish_non_exhaustive()
    }
}
