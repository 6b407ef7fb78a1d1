//! The JSON Schema of manifests, for editors and reviewers.
//!
//! It is made from the tables that the loader reads by, so it cannot say anything
//! else: audiences, keys of `match`, effects, passes and their parameters. It is
//! stricter in one point, as [`super::lint`] is: keys of `openclawCompat` have to
//! be known. What needs more than one document to see (unique ids, rivals, files
//! that exist) it leaves to the loader.

use serde_json::{Map, Value, json};

use super::compat_keys::COMPAT_KEYS;
use super::effects::{EFFECTS, Shape};
use super::manifest::{AUDIENCES, EVIDENCE_KEYS, KEYS};
use super::matching::{CLIENT, Key, Test, UPSTREAM};
use super::plugin::{LOAD_ROOT, PLUGIN_KEYS, PLUGIN_ROOT, REQUIRED_KEYS};
use crate::passes::{Kind, PASSES, Param, ParamKind};

/// The schema as it stands in `registry/schema.json`: indented by two, keys
/// sorted, one line feed at the end.
pub fn schema() -> String {
    let mut value = of_manifests(PASSES);
    // Key order must not depend on how serde_json was built.
    value.sort_all_objects();
    format!("{value:#}\n")
}

/// The schema of manifests that may use `passes`.
pub fn of_manifests(passes: &[Kind]) -> Value {
    let names: Vec<&str> = AUDIENCES.iter().map(|audience| audience.name).collect();
    let per_audience: Vec<Value> = AUDIENCES
        .iter()
        .map(|audience| {
            let mine = EFFECTS.iter().filter(|key| key.is_for(audience));
            let mine: Vec<&str> = mine.map(|key| key.name).collect();
            json!({
                "if": {"properties": {"agent": {"const": audience.name}}, "required": ["agent"]},
                "then": {"properties": {"effects": {"propertyNames": {"enum": mine}}}},
            })
        })
        .collect();
    let properties = closed(KEYS, |key| match key {
        "$schema" => json!({"type": "string", "description": "A hint for editors."}),
        "agent" => json!({"enum": names, "description": "For whom: one harness, or any client."}),
        "description" => described(
            text(),
            "One sentence: which model, what it does, why the harness cannot take it.",
        ),
        "effects" => effects(passes),
        "evidence" => evidence(),
        "id" => json!({
            "type": "string",
            "pattern": "^[a-z0-9][a-z0-9_.-]*$",
            "description": "Unique in the registry.",
        }),
        _ => matches(),
    });
    let mut schema = object(
        properties,
        &["id", "agent", "description", "match", "effects"],
    );
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    schema["title"] = "Farrier manifest".into();
    schema["allOf"] = per_audience.into();
    schema
}

fn matches() -> Value {
    let mut properties = keys(CLIENT);
    let mut upstream = object(keys(UPSTREAM), &[]);
    upstream["minProperties"] = 1.into();
    upstream["not"] = exclusive();
    upstream["description"] = "Who answers.".into();
    properties.insert("upstream".into(), upstream);
    let mut schema = object(properties, &[]);
    schema["minProperties"] = 1.into();
    schema["not"] = exclusive();
    schema["description"] = "When it applies: all of this must hold.".into();
    schema
}

fn exclusive() -> Value {
    json!({"required": ["modelIds", "modelIdPrefixes"]})
}

fn keys(keys: &[Key]) -> Map<String, Value> {
    keys.iter()
        .map(|key| {
            let value = match key.test {
                Test::Hosts => texts(&json!({
                    "type": "string",
                    "pattern": r"^\.?[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*$",
                })),
                Test::Ids => texts(&text()),
                Test::Prefixes(_) => {
                    texts(&json!({"type": "string", "pattern": r"^[^/]*[^/\s][^/]*$"}))
                }
                Test::Text | Test::Url => text(),
            };
            (key.name.to_owned(), described(value, key.doc))
        })
        .collect()
}

fn effects(passes: &[Kind]) -> Value {
    let properties = EFFECTS
        .iter()
        .map(|key| {
            let value = match key.shape {
                Shape::Object => json!({"type": "object"}),
                Shape::OpenclawCompat => compat(),
                Shape::Passes => json!({"type": "array", "items": pass_items(passes)}),
                Shape::Plugins => json!({"type": "array", "items": plugin()}),
                Shape::Tools => object(one("toolSearch", json!({"type": "boolean"})), &[]),
                Shape::True => json!({"const": true}),
            };
            (key.name.to_owned(), described(value, key.doc))
        })
        .collect();
    let mut schema = object(properties, &[]);
    schema["minProperties"] = 1.into();
    schema["description"] = "What follows.".into();
    schema
}

fn compat() -> Value {
    let properties = COMPAT_KEYS
        .iter()
        .map(|key| {
            let value = match key.choices {
                [] => json!(true),
                choices => json!({"enum": choices}),
            };
            (key.name.to_owned(), value)
        })
        .collect();
    object(properties, &[])
}

fn plugin() -> Value {
    let release = |doc| {
        described(
            json!({"type": "string", "pattern": r"^\d+\.\d+\.\d+$"}),
            doc,
        )
    };
    let properties = closed(PLUGIN_KEYS, |key| match key {
        "before" => release("The first release of OpenClaw that does not need it."),
        "from" => release("The first release of OpenClaw that needs it."),
        "loadPath" => json!({"type": "string", "pattern": format!("^{LOAD_ROOT}{PLUGIN_ROOT}.")}),
        "path" => json!({
            "type": "string",
            "pattern": format!("^{PLUGIN_ROOT}."),
            "not": {"pattern": r"(^|[/\\])\.\.([/\\]|$)"},
        }),
        _ => text(),
    });
    object(properties, REQUIRED_KEYS)
}

fn pass_items(passes: &[Kind]) -> Value {
    let known: Vec<&str> = passes.iter().map(|kind| kind.name).collect();
    let each: Vec<Value> = passes
        .iter()
        .map(|kind| {
            let mut properties = params(kind.params);
            properties.insert(
                "pass".into(),
                described(json!({"const": kind.name}), kind.summary),
            );
            json!({
                "if": {"properties": {"pass": {"const": kind.name}}, "required": ["pass"]},
                "then": object(properties, &required(kind.params)),
            })
        })
        .collect();
    json!({
        "type": "object",
        "required": ["pass"],
        "properties": {"pass": {"enum": known}},
        "allOf": each,
    })
}

fn params(table: &[Param]) -> Map<String, Value> {
    table
        .iter()
        .map(|param| {
            let value = match &param.kind {
                ParamKind::Choice(choices) => json!({"enum": choices}),
                ParamKind::Object => json!({"type": "object"}),
                ParamKind::Text => text(),
                ParamKind::Texts => texts(&text()),
                ParamKind::Value => json!({}),
            };
            (param.name.to_owned(), described(value, param.doc))
        })
        .collect()
}

fn required(table: &[Param]) -> Vec<&'static str> {
    table
        .iter()
        .filter(|param| param.required)
        .map(|param| param.name)
        .collect()
}

fn evidence() -> Value {
    let properties = closed(EVIDENCE_KEYS, |key| match key {
        "firstSeen" => json!({
            "type": "string",
            "pattern": "^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$",
            "description": "The day of the first report.",
        }),
        "sources" => described(
            texts(&text()),
            "Reports (owner/repository#number) and documents.",
        ),
        _ => described(text(), "What must have changed for this manifest to go."),
    });
    let mut schema = object(properties, &[]);
    schema["description"] = "Why it is there; shipped manifests have all of it.".into();
    schema
}

/// A string that is not blank.
fn text() -> Value {
    json!({"type": "string", "pattern": r"\S"})
}

fn texts(item: &Value) -> Value {
    json!({"type": "array", "minItems": 1, "uniqueItems": true, "items": item})
}

fn object(properties: Map<String, Value>, required: &[&str]) -> Value {
    let mut schema = json!({
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
    });
    if !required.is_empty() {
        schema["required"] = required.into();
    }
    schema
}

fn closed(keys: &[&'static str], value: impl Fn(&'static str) -> Value) -> Map<String, Value> {
    keys.iter()
        .map(|key| ((*key).to_owned(), value(key)))
        .collect()
}

fn one(key: &str, value: Value) -> Map<String, Value> {
    Map::from_iter([(key.to_owned(), value)])
}

fn described(mut value: Value, doc: &str) -> Value {
    if let Some(fields) = value.as_object_mut() {
        fields.insert("description".into(), doc.into());
    }
    value
}
