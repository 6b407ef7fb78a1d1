//! Accept loops, limits, drain and task tracking for Farrier's listeners.
//!
//! In: bound sockets, [`Limits`], a service `Fn(Peer, Request<Incoming>) -> Future<Response>` and a shutdown signal.
//! Out: answered connections, and after the signal a [`Drained`] that says how many had to be cut.
//!
//! Invariants:
//! * every task is spawned through a [`Tracker`], so that shutdown can wait for it and end it;
//! * every wait on a peer is bounded: the first request, a request head, a body ([`read_body`]), a write or a frame that
//!   the peer does not take, a connection without a request, the drain;
//! * a full connection table is answered by not accepting, never by queueing;
//! * when the client closes its connection the service's future, or the body it returned, is dropped.
//!
//! HTTP/1.1 and HTTP/2 with prior knowledge (h2c) share a listener; a listener for streams speaks neither. TLS is not
//! spoken here, and no dialect is known.

#![forbid(unsafe_code)]

mod accept;
mod body;
mod limits;
mod linger;
mod quiet;
mod stall;
mod streams;
mod tracker;
mod untaken;

pub use accept::{Answering, BindError, Drained, Listener, Peer};
pub use body::{BodyError, read_body};
pub use limits::Limits;
pub use linger::Lingering;
pub use stall::Stalling;
pub use tracker::Tracker;

/// Any error, as bodies carry it.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
