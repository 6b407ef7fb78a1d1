//! Executable behaviour, one file per defect.
//!
//! A pass is configured by a manifest's parameters once, is immutable after, and
//! is shared between requests. It may edit the request on its way up
//! ([`Pass::ask`]) and the reply on its way down (the [`StreamPass`] it makes).
//! Passes are named for the defect, never for a vendor.
//!
//! [`PASSES`] is the one table of them: its order is the order they run in.
//! Every file begins with the same header: *defect, first seen, source, before,
//! after, remove when*; a test holds them to it.

use std::fmt;
use std::sync::Arc;

use crate::fault::Fault;
use crate::wire::chat::Ask;

pub mod combined_call;
pub mod empty_field;
pub mod event;
pub mod params;
pub mod reasoning_lost;
pub(crate) mod record;
pub mod result_name;
pub mod survey;
pub mod tool_call_id;
pub mod unsupported_parameter;

pub use event::{End, Event, Out, StreamPass};
pub use params::{Param, ParamKind, Params};
pub use survey::{Ids, Needs, Recollection, Survey};

/// A configured pass.
pub trait Pass: Send + Sync + fmt::Debug {
    /// What it wants from the ledger.
    fn needs(&self) -> Needs {
        Needs::default()
    }

    /// Edits the request.
    ///
    /// # Errors
    /// A [`Fault`] ends the exchange before anything is sent upstream.
    fn ask(&self, ask: &mut Ask<'_>, scene: &mut Scene<'_>) -> Result<(), Fault> {
        let _ = (ask, scene);
        Ok(())
    }

    /// The pass over the reply, when this defect shows there.
    fn reply(&self, scene: &Scene<'_>) -> Option<Box<dyn StreamPass>> {
        let _ = scene;
        None
    }
}

/// What a pass may know of the exchange besides the request itself.
#[derive(Debug)]
pub struct Scene<'s> {
    /// The history as the client sent it.
    pub survey: &'s Survey<'s>,
    /// What the ledger knows of it.
    pub recollection: &'s Recollection,
    /// `provider/model` this request goes to.
    pub origin: &'s str,
    /// Makes ids for this exchange.
    pub mint: Mint,
    /// What was done, for metrics, traces and people.
    pub notes: &'s mut Notes,
}

/// One row of [`PASSES`]: a defect we can repair.
#[derive(Debug)]
pub struct Kind {
    /// The name a manifest uses.
    pub name: &'static str,
    /// One sentence for `registry explain` and the schema.
    pub summary: &'static str,
    /// Its parameters.
    pub params: &'static [Param],
    /// The parameters that tell two uses in one plan apart, if there may be two:
    /// a split per `tool`. Without any, a plan holds this pass once.
    pub per: &'static [&'static str],
    /// Makes the pass from parameters that fit `params`; the error is a sentence
    /// about how they do not fit together.
    pub build: fn(&Params) -> Result<Arc<dyn Pass>, String>,
}

/// Every pass there is, in the order they run: on the request, what is restored
/// comes before what depends on it, and what removes comes last; on the reply,
/// calls are split before ids are given.
pub static PASSES: &[Kind] = &[
    reasoning_lost::KIND,
    combined_call::KIND,
    tool_call_id::KIND,
    result_name::KIND,
    empty_field::KIND,
    unsupported_parameter::KIND,
];

/// The row named `name`.
pub fn kind(name: &str) -> Option<&'static Kind> {
    PASSES.iter().find(|kind| kind.name == name)
}

/// Where in an exchange something was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct At {
    /// Index of the message of the request; the choice, in a reply.
    pub message: Option<usize>,
    /// Index of the tool call in it.
    pub call: Option<usize>,
}

/// What a pass did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum What {
    /// A parameter was brought into its range.
    Clamped,
    /// A field that the client had changed was put right.
    Corrected,
    /// A call the client has already was left out.
    Deduplicated,
    /// The client was given an id of ours.
    Minted,
    /// The ledger does not know the turn.
    Missed,
    /// A tool result was given its tool's name.
    Named,
    /// A placeholder stands where nothing could be restored.
    Placeholder,
    /// An id was made from the history, as the model would have.
    Rebuilt,
    /// A field was taken out.
    Removed,
    /// A field was given another name.
    Renamed,
    /// What the client had lost was put back.
    Restored,
    /// A parameter was set.
    Set,
    /// A combined call was taken apart.
    Split,
    /// Thinking was switched off for this request.
    ThinkingDisabled,
}

/// One thing that was done, by which pass of which manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Id of the manifest.
    pub manifest: Arc<str>,
    /// Name of the pass.
    pub pass: &'static str,
    /// What was done.
    pub what: What,
    /// Where.
    pub at: At,
}

/// The notes of one exchange, and on whose behalf the next one is written.
#[derive(Debug)]
pub struct Notes {
    manifest: Arc<str>,
    pass: &'static str,
    list: Vec<Note>,
}

/// Makes tool-call ids for one exchange: nine letters and digits, which every
/// sanitiser we know leaves alone. Pure: the randomness is in the seed.
#[derive(Debug, Clone, Copy)]
pub struct Mint {
    seed: [u8; 16],
}

// === impl What ===

impl What {
    /// One word for metrics and people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Clamped => "clamped",
            Self::Corrected => "corrected",
            Self::Deduplicated => "deduplicated",
            Self::Minted => "minted",
            Self::Missed => "missed",
            Self::Named => "named",
            Self::Placeholder => "placeholder",
            Self::Rebuilt => "rebuilt",
            Self::Removed => "removed",
            Self::Renamed => "renamed",
            Self::Restored => "restored",
            Self::Set => "set",
            Self::Split => "split",
            Self::ThinkingDisabled => "thinking_disabled",
        }
    }
}

// === impl At ===

impl At {
    /// A message of the request, or a choice of the reply.
    pub fn message(index: usize) -> Self {
        Self {
            message: Some(index),
            call: None,
        }
    }

    /// A tool call of a message.
    pub fn call(message: usize, call: usize) -> Self {
        Self {
            message: Some(message),
            call: Some(call),
        }
    }

    /// The request as a whole.
    pub fn root() -> Self {
        Self::default()
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.message, self.call) {
            (Some(message), Some(call)) => write!(f, "[{message}].tool_calls[{call}]"),
            (Some(message), None) => write!(f, "[{message}]"),
            (None, _) => f.write_str("request"),
        }
    }
}

// === impl Notes ===

impl Default for Notes {
    fn default() -> Self {
        Self {
            manifest: Arc::from(""),
            pass: "",
            list: Vec::new(),
        }
    }
}

impl Notes {
    /// From here on, notes are of this pass of this manifest.
    pub fn of(&mut self, manifest: &Arc<str>, pass: &'static str) {
        self.manifest = Arc::clone(manifest);
        self.pass = pass;
    }

    /// Writes a note.
    pub fn add(&mut self, what: What, at: At) {
        self.list.push(Note {
            manifest: Arc::clone(&self.manifest),
            pass: self.pass,
            what,
            at,
        });
    }

    /// The notes so far, taken out.
    pub fn take(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.list)
    }
}

// === impl Mint ===

impl Mint {
    /// Ids from this seed; a seed is used for one exchange only.
    pub fn new(seed: [u8; 16]) -> Self {
        Self { seed }
    }

    /// The `n`th id of the exchange.
    pub fn id(&self, n: u64) -> String {
        const ALPHABET: &[u8; 62] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
        let digest = crate::wire::canonical::parts("id", &[&self.seed, &n.to_le_bytes()]);
        let mut number = u128::from_le_bytes(digest);
        (0..9)
            .map(|_| {
                let letter = usize::try_from(number % 62).unwrap_or(0);
                number /= 62;
                char::from(ALPHABET.get(letter).copied().unwrap_or(b'0'))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pass_has_its_header() {
        let sources = [
            include_str!("combined_call.rs"),
            include_str!("empty_field.rs"),
            include_str!("reasoning_lost.rs"),
            include_str!("result_name.rs"),
            include_str!("tool_call_id.rs"),
            include_str!("unsupported_parameter.rs"),
        ];
        assert_eq!(
            sources.len(),
            PASSES.len(),
            "a pass without its file in this list"
        );
        for (source, word) in sources.iter().flat_map(|source| {
            [
                "defect",
                "first seen",
                "source",
                "before",
                "after",
                "remove when",
            ]
            .map(|word| (source, word))
        }) {
            let line = format!("//! * **{word}**:");
            assert!(
                source.lines().any(|l| l.starts_with(&line)),
                "{line} is missing in {}",
                &source[..60]
            );
        }
    }

    #[test]
    fn names_of_passes_are_unique_and_plain() {
        for (index, kind) in PASSES.iter().enumerate() {
            assert!(
                kind.name
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b == b'-'),
                "{}",
                kind.name
            );
            assert!(
                PASSES
                    .iter()
                    .skip(index + 1)
                    .all(|other| other.name != kind.name)
            );
            assert!(
                kind.per
                    .iter()
                    .all(|per| kind.params.iter().any(|param| param.name == *per))
            );
        }
    }

    #[test]
    fn minted_ids_are_nine_alphanumerics_and_differ() {
        let mint = Mint::new([7; 16]);
        let ids: std::collections::HashSet<String> = (0..10_000).map(|n| mint.id(n)).collect();
        assert_eq!(ids.len(), 10_000);
        assert!(ids.iter().all(|id| survey::looks_minted(id)));
        assert_ne!(mint.id(0), Mint::new([8; 16]).id(0));
    }
}
