//! What tests of the engine share: a plan from a few effects, a ledger in memory, and
//! an exchange without a network.

use std::collections::HashMap;

use bytes::Bytes;
use farrier_compat::facts::{
    CHAT_COMPLETIONS, ClientFacts, Facts, MANAGED_BASE_URL, MANAGED_PROVIDER_KEY, UpstreamFacts,
};
use farrier_compat::fault::Fault;
use farrier_compat::plan::{Plan, Reply, Rewritten, With};
use farrier_compat::registry::{LoadOptions, Registry, Source};
use farrier_compat::run::{End, Outcome, Step, TurnRecord};
use farrier_compat::wire::chat::Ask;
use farrier_compat::wire::json::Segment;
use farrier_compat::wire::turn::TurnKey;
use serde_json::{Value, json};

/// The origin of replies, unless a test says otherwise.
pub(crate) const ORIGIN: &str = "p/m";

/// A plan of these gateway effects.
pub(crate) fn plan(gateway: Value) -> Plan {
    let manifest = json!({
        "id": "test", "agent": "any", "description": "for a test",
        "match": {"providerKey": MANAGED_PROVIDER_KEY}, "effects": {"gateway": gateway},
    });
    let source = Source {
        path: "any/test.json".into(),
        text: manifest.to_string(),
    };
    let facts = Facts {
        agent: None,
        client: ClientFacts {
            model: "m".into(),
            provider_key: MANAGED_PROVIDER_KEY.into(),
            inference_api: CHAT_COMPLETIONS.into(),
            base_url: MANAGED_BASE_URL.into(),
        },
        upstream: UpstreamFacts {
            provider: "p".into(),
            model: "m".into(),
            base_url: "http://127.0.0.1:1/v1".into(),
            server: None,
        },
    };
    Registry::load(&[source], &LoadOptions::default())
        .expect("a manifest")
        .plan_for(&facts)
}

/// A ledger in memory.
#[derive(Debug, Default)]
pub(crate) struct Store(HashMap<(String, TurnKey), Vec<Bytes>>);

impl Store {
    /// Stores what was committed.
    pub(crate) fn keep(&mut self, scope: &str, record: TurnRecord) {
        for key in record.keys {
            let values = self.0.entry((scope.to_owned(), key)).or_default();
            values.insert(0, record.value.clone());
        }
    }

    /// What is stored under each of `keys`.
    fn find(&self, scope: &str, keys: &[TurnKey]) -> Vec<Vec<Bytes>> {
        keys.iter()
            .map(|key| {
                self.0
                    .get(&(scope.to_owned(), *key))
                    .cloned()
                    .unwrap_or_default()
            })
            .collect()
    }
}

/// Sends `body` through `plan`.
pub(crate) fn rewrite<'a>(
    plan: &Plan,
    body: &'a [u8],
    with: With,
    scope: &str,
    store: &Store,
) -> Result<Rewritten<'a>, Fault> {
    let ask = Ask::parse(body)?;
    let lookup = plan.lookup(&ask);
    let stored = store.find(scope, lookup.keys());
    plan.rewrite(ask, lookup.answered(&stored), with)
}

/// What only the caller of a rewrite knows; ids come from `seed`.
pub(crate) fn with(seed: u64, origin: &str) -> With {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    With {
        upstream_model: None,
        seed: bytes,
        origin: origin.to_owned(),
    }
}

/// The pieces of a body as one text.
pub(crate) fn text(segments: &[Segment<'_>]) -> String {
    let bytes: Vec<u8> = segments
        .iter()
        .flat_map(Segment::as_bytes)
        .copied()
        .collect();
    String::from_utf8(bytes).expect("UTF-8")
}

/// How to read the reply to a request without a history.
pub(crate) fn reply(plan: &Plan) -> Reply {
    let body = json!({"model": "m", "messages": [{"role": "user", "content": "x"}]}).to_string();
    rewrite(
        plan,
        body.as_bytes(),
        with(1, ORIGIN),
        "s",
        &Store::default(),
    )
    .expect("no fault")
    .reply
}

/// What came of a stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Streamed {
    /// The client's bytes.
    pub(crate) client: String,
    /// What was stored.
    pub(crate) commits: Vec<TurnRecord>,
    /// How it ended.
    pub(crate) outcome: Outcome,
}

/// Reads a stream as `reads`.
pub(crate) fn stream<'r>(
    reply: Reply,
    reads: impl IntoIterator<Item = &'r [u8]>,
    end: End,
) -> Streamed {
    let mut run = reply.into_stream();
    let mut steps = Vec::new();
    for read in reads {
        if run.push(Bytes::copy_from_slice(read), &mut steps).is_err() {
            break;
        }
    }
    run.end(end, &mut steps);
    let (mut client, mut commits) = (Vec::new(), Vec::new());
    for step in steps {
        match step {
            Step::Forward(bytes) => client.extend_from_slice(&bytes),
            Step::Commit(record) => commits.push(record),
        }
    }
    Streamed {
        client: String::from_utf8(client).expect("UTF-8"),
        commits,
        outcome: run.outcome(),
    }
}
