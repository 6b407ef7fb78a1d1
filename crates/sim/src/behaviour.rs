//! How an answer travels: cut, framed, delayed, broken off. Orthogonal to what it says.
//!
//! A behaviour is JSON, in the operator's options or in a request's `x-sim-behaviour` header, so that one server serves a
//! whole matrix of tests:
//!
//! ```json
//! {"chunk_bytes": 1, "line_ending": "crlf", "keep_alive": true, "fault": {"close_mid_event": 3}}
//! ```
//!
//! Where real servers differ so: quirks section 3 (missing `[DONE]`, error object inside a 200 stream, comments) and
//! harnesses 2.13 (keep-alive comments).

use std::fmt;
use std::num::NonZeroUsize;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Short enough that every answer comes in many deltas.
const FRAGMENT_CHARS: NonZeroUsize = NonZeroUsize::new(16).expect("sixteen is not zero");
/// Largest event that can be asked for, in bytes.
const MOST_EVENT_BYTES: usize = 16 << 20;
/// Longest pause before an event that can be asked for.
const MOST_DELAY_MS: u64 = 60_000;

/// How answers travel. The default: events of sixteen characters, each written at once, ending well.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Behaviour {
    /// Writes of so many bytes, whatever the event borders; one write for each event when absent.
    pub chunk_bytes: Option<NonZeroUsize>,
    /// Characters of reasoning, text and arguments in one delta.
    pub fragment_chars: NonZeroUsize,
    /// Whether a `: keep-alive` comment precedes each event.
    pub keep_alive: bool,
    /// What ends a line of the event stream.
    pub line_ending: LineEnding,
    /// Whether `data: [DONE]` is left out.
    pub omit_done: bool,
    /// Whether the body is compressed, asked for or not.
    pub gzip: bool,
    /// Pause before each event but the first, in milliseconds.
    pub delay_ms: u64,
    /// Pads the first event (or the JSON body) with an unknown field to at least so many bytes.
    pub first_event_bytes: usize,
    /// The order of parallel calls' argument fragments.
    pub call_order: CallOrder,
    /// What goes wrong.
    pub fault: Option<Fault>,
}

/// What ends a line of an event stream; all three are legal.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LineEnding {
    /// A carriage return.
    Cr,
    /// Carriage return and line feed.
    Crlf,
    /// A line feed.
    #[default]
    Lf,
}

/// The order of parallel calls' argument fragments.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CallOrder {
    /// Round robin over the calls. One real harness loses every argument then (openclaw 6).
    Interleaved,
    /// One call after the other.
    #[default]
    Sequential,
}

/// What goes wrong. Event counts leave comments out; `[DONE]` counts; a JSON body counts as one event.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The connection breaks after so many events.
    CloseAfter(u32),
    /// The connection breaks in the middle of the event after so many.
    CloseMidEvent(u32),
    /// An error event takes the place of the rest after so many events.
    ErrorAfter(u32),
    /// Status 200, and a JSON body that is an error.
    ErrorBody,
    /// Status 200, and a body that is neither JSON nor events nor UTF-8.
    Garbage,
    /// No answer, not even a status, until the client leaves.
    Never,
    /// Silence after so many events, until the client leaves or the stall is released.
    StallAfter(u32),
    /// An error status of 400 to 599. 429 and 503 come with `retry-after`.
    Status(u16),
}

/// A behaviour that cannot be played.
#[derive(Debug)]
#[non_exhaustive]
pub enum BadBehaviour {
    /// Not JSON, or not the fields of a behaviour.
    Json(serde_json::Error),
    /// A number out of bounds.
    Bounds {
        /// The field.
        field: &'static str,
        /// Its bounds.
        expected: &'static str,
    },
}

impl Behaviour {
    /// The bytes that end a line.
    pub(crate) fn line_end(&self) -> &'static [u8] {
        match self.line_ending {
            LineEnding::Cr => b"\r",
            LineEnding::Crlf => b"\r\n",
            LineEnding::Lf => b"\n",
        }
    }
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            chunk_bytes: None,
            fragment_chars: FRAGMENT_CHARS,
            keep_alive: false,
            line_ending: LineEnding::default(),
            omit_done: false,
            gzip: false,
            delay_ms: 0,
            first_event_bytes: 0,
            call_order: CallOrder::default(),
            fault: None,
        }
    }
}

impl FromStr for Behaviour {
    type Err = BadBehaviour;

    fn from_str(json: &str) -> Result<Self, BadBehaviour> {
        let behaviour: Self = serde_json::from_str(json).map_err(BadBehaviour::Json)?;
        let status = match behaviour.fault {
            Some(Fault::Status(status)) => status,
            _ => 400,
        };
        let table = [
            (
                "first_event_bytes",
                behaviour.first_event_bytes <= MOST_EVENT_BYTES,
                "at most 16777216",
            ),
            (
                "delay_ms",
                behaviour.delay_ms <= MOST_DELAY_MS,
                "at most 60000",
            ),
            ("fault.status", (400..=599).contains(&status), "400 to 599"),
        ];
        match table.into_iter().find(|(_, holds, _)| !holds) {
            Some((field, _, expected)) => Err(BadBehaviour::Bounds { field, expected }),
            None => Ok(behaviour),
        }
    }
}

impl fmt::Display for BadBehaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json(_) => f.write_str("expected a behaviour as JSON"),
            Self::Bounds { field, expected } => write!(f, "expected {expected} for {field}"),
        }
    }
}

impl std::error::Error for BadBehaviour {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Json(error) => Some(error),
            Self::Bounds { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn a_behaviour_reads_its_own_json() {
        let text = r#"{"chunk_bytes":1,"line_ending":"crlf","fault":{"close_mid_event":3}}"#;
        let behaviour: Behaviour = text.parse().unwrap();
        assert_eq!(behaviour.chunk_bytes, NonZeroUsize::new(1));
        assert_eq!(behaviour.fault, Some(Fault::CloseMidEvent(3)));
        let again = serde_json::to_string(&behaviour).unwrap();
        assert_eq!(again.parse::<Behaviour>().unwrap(), behaviour);
        assert_eq!("{}".parse::<Behaviour>().unwrap(), Behaviour::default());
    }

    #[test]
    fn what_cannot_be_played_is_refused() {
        let bounds = r#"{"delay_ms":60001}"#.parse::<Behaviour>().unwrap_err();
        assert_eq!(bounds.to_string(), "expected at most 60000 for delay_ms");
        let status = r#"{"fault":{"status":200}}"#.parse::<Behaviour>().unwrap_err();
        assert_eq!(status.to_string(), "expected 400 to 599 for fault.status");
        let unknown = r#"{"chunk_byte":1}"#.parse::<Behaviour>().unwrap_err();
        assert!(
            unknown
                .source()
                .unwrap()
                .to_string()
                .contains("unknown field `chunk_byte`")
        );
        assert!(r#"{"fragment_chars":0}"#.parse::<Behaviour>().is_err());
    }
}
