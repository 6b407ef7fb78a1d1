//! What is counted of the engine, by its public interface alone.

use std::collections::HashMap;
use std::hint::black_box;

use bytes::Bytes;
use farrier_compat::facts::{
    CHAT_COMPLETIONS, ClientFacts, Facts, MANAGED_BASE_URL, MANAGED_PROVIDER_KEY, UpstreamFacts,
};
use farrier_compat::fault::Fault;
use farrier_compat::plan::{Plan, Reply, With};
use farrier_compat::registry::{LoadErrors, Registry};
use farrier_compat::run::{End, Step, TurnRecord};
use farrier_compat::wire::chat::Ask;
use farrier_compat::wire::sse::{Framer, Oversized};

use crate::exchange::{
    Answers, HISTORY, KIMI_MODEL, KIMI_UPSTREAM_MODEL, Replayed, Script, chat, history,
    native_turns, turn, unknown_turns,
};

/// The callgrind pattern for the function whose instructions count.
pub(super) const COUNTED: &str = "*only_this_is_counted*";

/// Of the exchange that is counted.
const SEED: u8 = 255;

/// A piece of the engine's work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// A stream of 100 chunks, cut into its events.
    Framer,
    /// A history of 200 messages, all its turns known to the ledger.
    RewriteKnown,
    /// All its turns as the model said them.
    RewriteNative,
    /// None of its turns known.
    RewriteUnknown,
    /// A stream of 100 chunks through the Kimi plan.
    Stream,
    /// The same, ending in a tool call.
    StreamTools,
}

/// Why a case could not be performed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EngineError {
    #[error("the engine refuses: {0}")]
    Fault(#[from] Fault),
    #[error("expected frames, got an oversized event")]
    Oversized,
    #[error("the shipped registry does not load: {0}")]
    Registry(#[from] LoadErrors),
    #[error("expected {expected}, got something else: the case does not do its work")]
    Result { expected: &'static str },
}

/// Turns under their keys, as a ledger gives them.
#[derive(Debug, Default)]
struct Stored(HashMap<[u8; 16], Vec<Bytes>>);

// === impl Work ===

impl Work {
    pub(super) const ALL: [Self; 6] = [
        Self::Framer,
        Self::Stream,
        Self::StreamTools,
        Self::RewriteUnknown,
        Self::RewriteKnown,
        Self::RewriteNative,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Framer => "framer",
            Self::RewriteKnown => "rewrite-known",
            Self::RewriteNative => "rewrite-native",
            Self::RewriteUnknown => "rewrite-unknown",
            Self::Stream => "stream",
            Self::StreamTools => "stream-tools",
        }
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|work| work.name() == name)
    }

    pub(super) fn perform(self) -> Result<(), EngineError> {
        let answers = Answers::new();
        let plan = kimi_plan()?;
        match self {
            Self::Framer => frame(&answers.stream),
            Self::Stream => stream(&plan, &answers.stream),
            Self::StreamTools => stream(&plan, &answers.tool_stream),
            Self::RewriteUnknown => rewrite(&plan, &unknown_turns(HISTORY), &Stored::default()),
            Self::RewriteNative => rewrite(&plan, &native_turns(HISTORY), &Stored::default()),
            Self::RewriteKnown => {
                let mut stored = Stored::default();
                let turns = stored.learn(&plan)?;
                rewrite(&plan, &turns, &stored)
            }
        }
    }
}

/// Never inlined, so that callgrind finds it.
#[inline(never)]
fn only_this_is_counted<T>(work: impl FnOnce() -> T) -> T {
    black_box(work())
}

/// Does the work twice: what is made once, tables and lazily bound symbols, is made by the first.
fn count<T>(work: impl Fn() -> Result<T, EngineError>) -> Result<T, EngineError> {
    drop(work()?);
    only_this_is_counted(&work)
}

fn frame(events: &[Vec<u8>]) -> Result<(), EngineError> {
    let reads: Vec<Bytes> = events
        .iter()
        .map(|event| Bytes::copy_from_slice(event))
        .collect();
    let frames = count(|| {
        let (mut framer, mut frames) = (Framer::default(), 0);
        for read in &reads {
            framer.push(read.clone());
            while let Some(frame) = framer.next_frame()? {
                black_box(frame);
                frames += 1;
            }
        }
        black_box(framer.finish());
        Ok(frames)
    })?;
    expect(frames == events.len(), "a frame for each event")
}

fn stream(plan: &Plan, events: &[Vec<u8>]) -> Result<(), EngineError> {
    let reads: Vec<Bytes> = events
        .iter()
        .map(|event| Bytes::copy_from_slice(event))
        .collect();
    let body = chat(KIMI_MODEL, Script::Stream);
    let steps = count(|| {
        let mut run = reply(plan, body.as_bytes(), &Stored::default(), SEED)?.into_stream();
        let mut steps = Vec::new();
        for read in &reads {
            run.push(read.clone(), &mut steps)?;
        }
        run.end(End::Clean, &mut steps);
        Ok(steps)
    })?;
    let forwarded = steps.iter().filter(|step| matches!(step, Step::Forward(_)));
    expect(forwarded.count() > 0, "bytes for the client")
}

fn rewrite(plan: &Plan, turns: &[Replayed], stored: &Stored) -> Result<(), EngineError> {
    let body = history(KIMI_MODEL, Script::Json, HISTORY, turns);
    count(|| reply(plan, body.as_bytes(), stored, SEED).map(drop))
}

/// The journey of a request as far as the engine goes.
///
/// The seed is what tells the ids of one exchange from those of another.
fn reply(plan: &Plan, body: &[u8], stored: &Stored, seed: u8) -> Result<Reply, EngineError> {
    let ask = Ask::parse(body)?;
    let lookup = plan.lookup(&ask);
    let found: Vec<Vec<Bytes>> = lookup.keys().iter().map(|key| stored.of(key.0)).collect();
    let with = With {
        upstream_model: Some(KIMI_UPSTREAM_MODEL.to_owned()),
        seed: [seed; 16],
        origin: format!("upstream/{KIMI_UPSTREAM_MODEL}"),
    };
    let rewritten = plan.rewrite(ask, lookup.answered(&found), with)?;
    black_box(&rewritten.segments);
    Ok(rewritten.reply)
}

fn expect(holds: bool, expected: &'static str) -> Result<(), EngineError> {
    if holds {
        Ok(())
    } else {
        Err(EngineError::Result { expected })
    }
}

impl From<Oversized> for EngineError {
    fn from(_: Oversized) -> Self {
        Self::Oversized
    }
}

/// What the shipped manifests say of Kimi K2.6 behind OpenClaw.
fn kimi_plan() -> Result<Plan, EngineError> {
    Ok(Registry::shipped()?.plan_for(&Facts {
        agent: Some("openclaw".to_owned()),
        client: ClientFacts {
            model: KIMI_MODEL.to_owned(),
            provider_key: MANAGED_PROVIDER_KEY.to_owned(),
            inference_api: CHAT_COMPLETIONS.to_owned(),
            base_url: MANAGED_BASE_URL.to_owned(),
        },
        upstream: UpstreamFacts {
            provider: "upstream".to_owned(),
            model: KIMI_UPSTREAM_MODEL.to_owned(),
            base_url: "http://127.0.0.1/v1".to_owned(),
            server: None,
        },
    }))
}

// === impl Stored ===

impl Stored {
    fn of(&self, key: [u8; 16]) -> Vec<Bytes> {
        self.0.get(&key).cloned().unwrap_or_default()
    }

    /// Has the engine read the replies of a long conversation, and keeps what it says to keep; the turns as a client sends
    /// them back.
    fn learn(&mut self, plan: &Plan) -> Result<Vec<Replayed>, EngineError> {
        let body = chat(KIMI_MODEL, Script::Json);
        let mut turns = Vec::new();
        for (number, seed) in (0..HISTORY.turns()).zip(0..) {
            let reply = reply(plan, body.as_bytes(), &Self::default(), seed)?;
            let finished = reply.into_json().finish(turn(number).into());
            finished.commit.into_iter().for_each(|turn| self.keep(turn));
            let told: serde_json::Value =
                serde_json::from_slice(&finished.body).unwrap_or_default();
            let id = told.pointer("/choices/0/message/tool_calls/0/id");
            let id = id.and_then(|id| id.as_str());
            let id = id.ok_or(EngineError::Result {
                expected: "a tool call in the reply",
            })?;
            turns.push(Replayed {
                id: id.to_owned(),
                whole: false,
            });
        }
        Ok(turns)
    }

    fn keep(&mut self, turn: TurnRecord) {
        for key in turn.keys {
            self.0.entry(key.0).or_default().push(turn.value.clone());
        }
    }
}
