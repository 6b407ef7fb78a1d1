//! The model that a request names, whatever else it is: embeddings, speech, what is to come.
//!
//! Only the top-level `model` of a JSON object is looked at. Everything else of the body stays the bytes it was.

use bytes::Bytes;
use farrier_compat::wire::json::{self, Object, Segment, Shape, Value, quote};

use crate::upstream::Segments;

static TOP: Shape = Shape::Object(&[]);

/// The model, if the body is a JSON object that names one.
pub(crate) fn named_model(body: &Bytes) -> Option<String> {
    opened(body)?.text("model").map(|model| model.into_owned())
}

/// The body with another model name, or as it is.
pub(crate) fn with_model(body: Bytes, name: Option<&str>) -> Segments {
    match name.and_then(|name| renamed(&body, name)) {
        Some(segments) => segments,
        None => body.into(),
    }
}

fn renamed(body: &Bytes, name: &str) -> Option<Segments> {
    let source = std::str::from_utf8(body).ok()?;
    let mut object = opened(body)?;
    object.set("model", quote(name));
    let mut pieces = json::Segments::new(source);
    Value::Object(object).write(&mut pieces);
    let mut segments = Segments::default();
    for piece in pieces.into_pieces() {
        segments.push(match piece {
            Segment::Kept(text) => body.slice_ref(text.as_bytes()),
            Segment::New(text) => text.into(),
        });
    }
    Some(segments)
}

fn opened(body: &Bytes) -> Option<Object<'_>> {
    match json::parse(std::str::from_utf8(body).ok()?, &TOP) {
        Ok(Value::Object(object)) => Some(object),
        _ => None,
    }
}
