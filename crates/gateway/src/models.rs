//! The routes, as OpenAI's model list.
//!
//! ```json
//! {"object":"list","data":[{"id":"moonshotai/kimi-k2.6","object":"model","created":0,"owned_by":"moonshot"}]}
//! ```

use http::Response;
use http::header::{CONTENT_TYPE, HeaderValue};
use serde::Serialize;

use crate::relay::Source;
use crate::select::Route;

#[derive(Serialize)]
struct List<'a> {
    object: &'static str,
    data: Vec<Model<'a>>,
}

#[derive(Serialize)]
struct Model<'a> {
    id: &'a str,
    object: &'static str,
    /// Required by the API; a route has no such time.
    created: u64,
    owned_by: &'a str,
}

/// `GET /v1/models`
pub(crate) fn all<'a>(routes: impl Iterator<Item = &'a Route>) -> Response<Source> {
    json(&List {
        object: "list",
        data: routes.map(Model::of).collect(),
    })
}

/// `GET /v1/models/NAME`
pub(crate) fn one(route: &Route) -> Response<Source> {
    json(&Model::of(route))
}

impl<'a> Model<'a> {
    fn of(route: &'a Route) -> Self {
        Self {
            id: &route.model,
            object: "model",
            created: 0,
            owned_by: &route.own().approach.upstream.name,
        }
    }
}

fn json(page: &impl Serialize) -> Response<Source> {
    let body = serde_json::to_vec(page).expect("strings and numbers are valid JSON");
    let mut response = Response::new(Source::Whole(body.into()));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
