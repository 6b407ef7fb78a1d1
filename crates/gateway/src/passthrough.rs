//! Whatever else is asked for below `/v1`: whether it may pass, and which model it names.
//!
//! Only the top-level `model` of a JSON object is looked at. Everything else of the body stays the bytes it was.

use bytes::Bytes;
use farrier_compat::fault::Fault;
use farrier_compat::wire::json::{self, Object, Segment, Shape, Value, quote};
use http::header::{CONTENT_TYPE, HeaderMap};
use http::{HeaderValue, Method};

use crate::config::{INFERENCE_PATHS, PassThrough};
use crate::select::shown;
use crate::upstream::{Segments, Upstream};

/// The provider's account is not the caller's to manage.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected GET, HEAD or POST on an inference endpoint, got {} on {}; set pass_through = \"all\" for provider \
     {provider:?} to let everything pass",
    shown(method),
    shown(path)
)]
pub(crate) struct NotAllowed {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) provider: String,
}

static TOP: Shape = Shape::Object(&[]);

/// Lets a request pass that the provider's configuration allows. `path` is below `v1/`, in its plain form.
pub(crate) fn check(upstream: &Upstream, method: &Method, path: &str) -> Result<(), NotAllowed> {
    let asks = matches!(*method, Method::GET | Method::HEAD | Method::POST);
    match upstream.pass_through {
        PassThrough::All => Ok(()),
        PassThrough::Inference if asks && INFERENCE_PATHS.contains(&path) => Ok(()),
        PassThrough::Inference => Err(NotAllowed {
            method: method.to_string(),
            path: format!("/v1/{path}"),
            provider: upstream.name.to_string(),
        }),
    }
}

/// The model, if the body is a JSON object that names one.
///
/// # Errors
///
/// The client's [`Fault`] if the body should be JSON and cannot be read, or names its model in a way that another
/// reader may take otherwise: it must not be given to the default provider as if it named none.
pub(crate) fn named_model(headers: &HeaderMap, body: &Bytes) -> Result<Option<String>, Fault> {
    let text = body.strip_prefix(BOM).unwrap_or(body).trim_ascii_start();
    let is_json = headers.get_all(CONTENT_TYPE).iter().any(says_json);
    if text.is_empty() || !(is_json || text.starts_with(b"{")) {
        return Ok(None);
    }
    let source = std::str::from_utf8(body).map_err(|error| {
        let at = error.valid_up_to();
        let message = format!("expected a request body in UTF-8, got an invalid byte (byte {at})");
        Fault::client("body_not_utf8", message)
    })?;
    let Value::Object(object) = json::parse(source, &TOP)? else {
        return Ok(None);
    };
    let Some(model) = object.get("model") else {
        return Ok(None);
    };
    match model.text() {
        Some(name) => Ok(Some(name.into_owned())),
        None => {
            let got = model.kind();
            let message = format!("expected the name of a model at `model`, got {got}");
            Err(Fault::client("model_missing", message).at("model"))
        }
    }
}

/// `application/json` and whatever ends in `+json`.
fn says_json(content_type: &HeaderValue) -> bool {
    let essence = content_type.as_bytes().split(|&byte| byte == b';').next();
    let essence = essence
        .unwrap_or_default()
        .trim_ascii()
        .to_ascii_lowercase();
    essence.ends_with(b"/json") || essence.ends_with(b"+json")
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
    object.write(&mut pieces);
    let mut segments = Segments::default();
    for piece in pieces.into_pieces() {
        segments.push(match piece {
            Segment::Kept(text) => body.slice_ref(text.as_bytes()),
            Segment::New(text) => text,
        });
    }
    Some(segments)
}

fn opened(body: &Bytes) -> Option<Object<'_>> {
    match json::parse(std::str::from_utf8(body).ok()?, &TOP) {
        Ok(Value::Object(object)) => Some(*object),
        _ => None,
    }
}

/// Some writers put it before JSON, and some readers skip it; we are none of these.
const BOM: &[u8] = "\u{feff}".as_bytes();
