//! What goes wrong around a gateway, each with real processes: the gateway's own binary, the store's own server, sockets
//! that close.
//!
//! In every test agents hold conversations through the gateway with a strict persona, each replaying its history without
//! the reasoning it was given. The persona's log then says of every turn whether it came back as the model wrote it.

mod agent;
mod clock;
mod disk;
mod draining;
mod killed;
mod leaving;
mod stage;
mod store;
mod upstream;
