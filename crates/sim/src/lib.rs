//! Model personas: scripted, strict thinking models over HTTP.
//!
//! A persona answers `POST /v1/chat/completions` the way a demanding provider and its model do: it thinks, calls tools for
//! some rounds, then gives a final text; it refuses a history that lost its reasoning, and it loses the thread when the
//! ids it gave come back mangled. What it demands and says is data (`personas/*.json`); adding a persona needs no Rust.
//!
//! ```text
//! request bytes ──▶ mind::answer (pure) ──▶ Verdict ──▶ speak::say (pure) ──▶ Spoken ──▶ Sim (HTTP) ──▶ client
//!                        ▲                                   ▲                  │
//!                     Persona                            Behaviour            Log
//! ```
//!
//! Invariants: the server keeps no conversation, the state of one comes from its request alone; the same request, persona
//! and options give the same bytes; what a request did to the model is in the [`Log`], its words and its key are not.
//!
//! ```
//! use farrier_sim::{Options, Persona, Sim};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! let sim = Sim::start(listener, Persona::named("kimi-k2.6")?, Options::default())?;
//! assert_eq!(sim.log().requests(), 0);
//! sim.stop().await;
//! # Ok(())
//! # }
//! ```
//!
//! It does not generate language, count real tokens, or judge anything that the persona's data does not name.

#![forbid(unsafe_code)]

mod behaviour;
mod log;
pub mod mind;
mod options;
mod persona;
mod server;
pub mod speak;
mod template;

pub use behaviour::{BadBehaviour, Behaviour, CallOrder, Fault, LineEnding};
pub use log::{Entry, Log, Outcome};
pub use options::{Bearer, Limits, Options};
pub use persona::{BadPersona, Persona, UnknownPersona};
pub use server::Sim;
