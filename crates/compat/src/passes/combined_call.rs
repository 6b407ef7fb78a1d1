//! Combined call.
//!
//! * **defect**: the model puts several commands into one call (`hostname; date; uptime`), and the
//!   harness records, replays and correlates results per call, so that the turn breaks.
//! * **first seen**: moonshotai/kimi-k2.6 behind OpenClaw, 5 May 2026.
//! * **source**: NVIDIA/NemoClaw#3046 (rule and refusals), #4040 (mixed turns, duplicates).
//! * **before**: `{"id":"functions.exec:0","function":{"name":"exec","arguments":"{\"command\":\"hostname; date\"}"}}`
//! * **after**: `{"id":"functions.exec:0_split_1_hostname",…"{\"command\":\"hostname\"}"}` `{"id":"functions.exec:0_split_2_date",…}`
//! * **remove when**: the model calls tools one command at a time, or the harness correlates per command.
//!
//! The rule is an allow-list and never a shell parser: one argument, its text cut at
//! the separator, every piece exactly an allowed command. Anything else passes
//! byte for byte.
//!
//! In a stream only the suspected call is held back, and only until it is decided; a
//! command that can no longer match is released at once. Calls that come after a
//! suspect wait for it, because their index depends on it, and because one real
//! client loses arguments that are interleaved (OpenClaw 2026.4.21). At most
//! [`MAX_HELD_BYTES`] are held per choice; beyond, everything is released as it came.
//!
//! A command that was told already is left out, as long as nothing but allowed
//! commands was said. A stream judges that by what was said so far: text that comes
//! later cannot take back what was left out.

use std::sync::Arc;

use serde_json::json;

use super::event::{Out, StreamPass};
use super::{At, Kind, Param, ParamKind, Params, Pass, Scene, What};
use crate::wire::chat::{self, Chunk};
use crate::wire::json::{Object, Replaced, Value, quote, unquote};

/// What may be held back for one choice.
pub const MAX_HELD_BYTES: usize = 64 * 1024;

mod stream;

use stream::Splitting;

/// The row of this pass.
pub(super) const KIND: Kind = Kind {
    name: "split-combined-call",
    summary: "takes a call that combines allow-listed commands apart into one call each",
    params: &[
        Param {
            name: "tool",
            kind: ParamKind::Text,
            required: true,
            doc: "the tool whose calls are split",
        },
        Param {
            name: "argument",
            kind: ParamKind::Text,
            required: true,
            doc: "its only argument",
        },
        Param {
            name: "separator",
            kind: ParamKind::Text,
            required: true,
            doc: "what stands between the commands",
        },
        Param {
            name: "allow",
            kind: ParamKind::Texts,
            required: true,
            doc: "the commands, exactly; anything else refuses the split",
        },
        Param {
            name: "idBase",
            kind: ParamKind::Text,
            required: false,
            doc: "the base of the new ids when the call has none; default: split_call",
        },
    ],
    per: &["tool"],
    build,
};

/// The split rule, pure.
#[derive(Debug)]
struct Rule {
    tool: String,
    argument: String,
    separator: String,
    allow: Vec<String>,
    id_base: String,
}

#[derive(Debug)]
struct CombinedCall(Arc<Rule>);

/// What the arguments so far say of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    /// A complete combined call: its pieces, at least two, all allowed.
    Combined(Vec<String>),
    /// Cannot become a combined call. The text may have just one allowed command,
    /// complete: then it is that.
    Other(Option<String>),
    /// May still become one.
    Undecided,
    /// One allowed command so far, and no separator can follow any more.
    Single,
}

/// How the arguments stand in the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Object,
    Text,
}

fn build(params: &Params) -> Result<Arc<dyn Pass>, String> {
    let text = |name: &str| params.text(name).unwrap_or_default().to_owned();
    let rule = Rule {
        tool: text("tool"),
        argument: text("argument"),
        separator: text("separator"),
        allow: params.texts("allow"),
        id_base: params.text("idBase").unwrap_or("split_call").to_owned(),
    };
    if let Some(command) = rule
        .allow
        .iter()
        .find(|command| command.contains(&rule.separator) || command.trim() != command.as_str())
    {
        return Err(format!(
            "expected commands without separator or outer white space in `allow`, got {command:?}"
        ));
    }
    Ok(Arc::new(CombinedCall(Arc::new(rule))))
}

impl Pass for CombinedCall {
    fn reply(&self, _: &Scene<'_>) -> Option<Box<dyn StreamPass>> {
        Some(Box::new(Splitting::new(Arc::clone(&self.0))))
    }
}

// === impl Rule ===

impl Rule {
    /// Judges an argument text, complete or not.
    fn judge(&self, text: &str) -> Verdict {
        let Some(rest) = self.after_key(text) else {
            return Verdict::Other(None);
        };
        let Some(rest) = rest else {
            return Verdict::Undecided;
        };
        let (body, after) = match split_string(rest) {
            StringPart::Closed(body, after) => (body, after),
            StringPart::Open(body) => {
                return if self.may_match(&body) {
                    Verdict::Undecided
                } else {
                    Verdict::Other(None)
                };
            }
            StringPart::Broken => return Verdict::Other(None),
        };
        let pieces: Vec<String> = body
            .split(&self.separator)
            .map(|piece| piece.trim().to_owned())
            .collect();
        if !pieces.iter().all(|piece| self.allow.contains(piece)) {
            return Verdict::Other(None);
        }
        let after = after.trim_ascii_start();
        let closed = match after.strip_prefix('}') {
            Some(rest) => rest.trim_ascii().is_empty(),
            None if after.is_empty() => {
                return if pieces.len() > 1 {
                    Verdict::Undecided
                } else {
                    Verdict::Single
                };
            }
            None => false,
        };
        match (closed, pieces.len()) {
            (false, _) => Verdict::Other(None),
            (true, 1) => Verdict::Other(pieces.into_iter().next()),
            (true, _) => Verdict::Combined(pieces),
        }
    }

    /// What follows the opening quote of the argument's value: `None` when the text
    /// cannot have that form, `Some(None)` when it is not there yet.
    fn after_key<'t>(&self, text: &'t str) -> Option<Option<&'t str>> {
        let key = quote(&self.argument);
        let mut rest = text;
        for token in ["{", key.as_str(), ":", "\""] {
            rest = rest.trim_ascii_start();
            if rest.is_empty() || (rest.len() < token.len() && token.starts_with(rest)) {
                return Some(None);
            }
            rest = rest.strip_prefix(token)?;
        }
        Some(Some(rest))
    }

    /// Whether a command text that begins like this can still be all allowed.
    fn may_match(&self, body: &str) -> bool {
        let mut pieces: Vec<&str> = body.split(&self.separator).collect();
        let last = pieces.pop().unwrap_or_default();
        let whole = pieces
            .iter()
            .all(|piece| self.allow.iter().any(|command| command == piece.trim()));
        // The text may end within a separator of several characters.
        let ends = self
            .separator
            .char_indices()
            .map(|(at, _)| self.separator.get(..at).unwrap_or_default());
        let mut begun = ends
            .filter_map(|end| last.strip_suffix(end))
            .map(str::trim_start);
        whole
            && begun.any(|begun| {
                self.allow.iter().any(|command| {
                    command.starts_with(begun)
                        || (begun.starts_with(command.as_str()) && begun.trim_end() == command)
                })
            })
    }

    /// The base of the ids of a split: the call's own, without an earlier split.
    fn base<'c>(&'c self, call: &'c Object<'_>) -> String {
        let id = call.text("id").unwrap_or_default();
        let id = id.trim();
        if id.is_empty() {
            return self.id_base.clone();
        }
        let earlier = id.rsplit_once("_split_").filter(|(base, tail)| {
            let (n, command) = tail.split_once('_').unwrap_or_default();
            let numbered = !n.is_empty() && n.bytes().all(|byte| byte.is_ascii_digit());
            !base.is_empty() && numbered && self.allow.iter().any(|allowed| allowed == command)
        });
        earlier.map_or(id, |(base, _)| base).to_owned()
    }

    /// The call for the piece at `position` (from 0).
    fn call(
        &self,
        base: &str,
        position: usize,
        command: &str,
        shape: (Encoding, Option<usize>),
    ) -> String {
        let arguments = json!({ &self.argument: command });
        let arguments = match shape.0 {
            Encoding::Object => arguments,
            Encoding::Text => json!(arguments.to_string()),
        };
        let index = shape
            .1
            .map(|index| format!("\"index\":{index},"))
            .unwrap_or_default();
        let id = quote(&format!("{base}_split_{}_{command}", position + 1));
        format!(
            "{{{index}\"id\":{id},\"type\":\"function\",\"function\":{{\"name\":{},\"arguments\":{arguments}}}}}",
            quote(&self.tool)
        )
    }
}

enum StringPart<'t> {
    /// The decoded text, and what follows the closing quote.
    Closed(String, &'t str),
    /// The decoded text so far.
    Open(String),
    /// An escape that is no character.
    Broken,
}

/// Reads a JSON string behind its opening quote, as far as it goes.
fn split_string(rest: &str) -> StringPart<'_> {
    let bytes = rest.as_bytes();
    let mut at = 0;
    // The end of the last whole character or escape.
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => {
                let (body, after) = rest.split_at(at);
                return match unquote(&format!("\"{body}\"")) {
                    Some(text) => {
                        StringPart::Closed(text.into_owned(), after.get(1..).unwrap_or_default())
                    }
                    None => StringPart::Broken,
                };
            }
            // A control character must be escaped: this is not JSON.
            0..0x20 => return StringPart::Broken,
            b'\\' => {
                let width = if bytes.get(at + 1) == Some(&b'u') {
                    6
                } else {
                    2
                };
                if at + width > bytes.len() {
                    break;
                }
                at += width;
            }
            _ => at += 1,
        }
    }
    let whole = rest.get(..at).unwrap_or(rest);
    match unquote(&format!("\"{whole}\"")) {
        Some(text) => StringPart::Open(text.into_owned()),
        None => StringPart::Broken,
    }
}

/// A call's argument text and how it is encoded.
fn arguments_of(call: &Object<'_>) -> Option<(String, Encoding)> {
    let raw = chat::call_arguments(call)?;
    match unquote(raw) {
        Some(text) => Some((text.into_owned(), Encoding::Text)),
        None if raw.starts_with('{') => Some((raw.to_owned(), Encoding::Object)),
        None => None,
    }
}

/// Drops repeated commands, keeping first positions: (position, command).
fn distinct(pieces: &[String]) -> Vec<(usize, &String)> {
    let mut seen: Vec<&String> = Vec::new();
    pieces
        .iter()
        .enumerate()
        .filter(|(_, piece)| {
            let fresh = !seen.contains(piece);
            if fresh {
                seen.push(piece);
            }
            fresh
        })
        .collect()
}

// === A whole message ===

/// What becomes of one call of a whole message.
enum Fate {
    /// Not ours: any other call.
    Keep,
    /// One allowed command.
    Single(String),
    /// Several, with the encoding of the arguments.
    Combined(Vec<String>, Encoding),
}

/// Splits the calls of each choice of a whole reply; whether anything changed.
fn split_whole(rule: &Rule, chunk: &mut Chunk<'_>, out: &mut Out<'_>) -> bool {
    let mut edited = false;
    for mut choice in chunk.choices() {
        let index = usize::try_from(choice.index()).unwrap_or(usize::MAX);
        let Some(message) = choice.part_mut() else {
            continue;
        };
        if !split_message(rule, index, message, out) {
            continue;
        }
        edited = true;
        if choice.finish().as_deref() == Some("stop") {
            choice.set_finish("tool_calls");
        }
    }
    edited
}

fn split_message(rule: &Rule, choice: usize, message: &mut Object<'_>, out: &mut Out<'_>) -> bool {
    let says_text = !chat::content_text(message).is_empty();
    let Some(calls) = chat::calls_mut(message) else {
        return false;
    };
    let fates: Vec<Fate> = calls.items().map(|call| rule.fate(call)).collect();
    if !fates.iter().any(|fate| matches!(fate, Fate::Combined(..))) {
        return false;
    }
    let mixed = says_text || fates.iter().any(|fate| matches!(fate, Fate::Keep));
    let mut told: Vec<String> = Vec::new();
    let mut position = 0;
    let mut fates = fates.into_iter().enumerate();
    calls.replace(|mut call| {
        let Some(((number, fate), object)) = fates.next().zip(call.object_mut()) else {
            position += 1;
            return Replaced::Kept(call);
        };
        let indexed = chat::index_of(object).is_some();
        let pieces = match fate {
            Fate::Combined(pieces, encoding) => Some((pieces, encoding)),
            Fate::Single(command) if !mixed && told.contains(&command) => {
                Some((Vec::new(), Encoding::Text))
            }
            Fate::Single(command) => {
                told.push(command);
                None
            }
            Fate::Keep => None,
        };
        let Some((pieces, encoding)) = pieces else {
            if indexed {
                move_to(object, position);
            }
            position += 1;
            return Replaced::Kept(call);
        };
        let base = rule.base(object);
        let mut made = Vec::new();
        for (n, piece) in distinct(&pieces) {
            if mixed || !told.contains(piece) {
                let index = indexed.then_some(position);
                made.push(rule.call(&base, n, piece, (encoding, index)));
                position += 1;
            }
        }
        told.extend(pieces);
        let what = if made.is_empty() {
            What::Deduplicated
        } else {
            What::Split
        };
        out.note(what, At::call(choice, number));
        Replaced::By(made)
    });
    true
}

/// Calls behind a split stand at other places.
fn move_to(call: &mut Object<'_>, index: usize) {
    if chat::index_of(call) != u64::try_from(index).ok() {
        call.set("index", index.to_string());
    }
}

impl Rule {
    fn fate(&self, call: &Value<'_>) -> Fate {
        let Some(call) = call
            .object()
            .filter(|call| chat::call_name(call).as_deref() == Some(self.tool.as_str()))
        else {
            return Fate::Keep;
        };
        let Some((text, encoding)) = arguments_of(call) else {
            return Fate::Keep;
        };
        match self.judge(&text) {
            Verdict::Combined(pieces) => Fate::Combined(pieces, encoding),
            Verdict::Other(Some(command)) => Fate::Single(command),
            Verdict::Other(None) | Verdict::Single | Verdict::Undecided => Fate::Keep,
        }
    }
}

#[cfg(test)]
#[path = "combined_call/tests.rs"]
mod tests;
