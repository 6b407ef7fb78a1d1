//! The parameters of passes: one table validates them, describes them in the
//! schema, and names the nearest when one is misspelt.

use serde_json::{Map, Value};

/// One parameter a pass takes.
#[derive(Debug)]
pub struct Param {
    /// Its key in the manifest.
    pub name: &'static str,
    /// What its value must be.
    pub kind: ParamKind,
    /// Whether it must be given.
    pub required: bool,
    /// One sentence.
    pub doc: &'static str,
}

/// What a parameter's value must be.
#[derive(Debug)]
pub enum ParamKind {
    /// One of these strings.
    Choice(&'static [&'static str]),
    /// An object, passed on as it is.
    Object,
    /// A string that is not blank.
    Text,
    /// A list of strings that are not blank, at least one, none twice.
    Texts,
    /// Any JSON value.
    Value,
}

/// Parameters that fit their table.
#[derive(Debug, Clone, PartialEq)]
pub struct Params(Map<String, Value>);

impl Params {
    /// Checks `given` against `table`.
    ///
    /// # Errors
    /// All mistakes, each as "expected …, got …" with the parameter named.
    pub fn check(given: &Map<String, Value>, table: &[Param]) -> Result<Self, Vec<String>> {
        let mut wrong = Vec::new();
        check_all(given, table, &mut wrong);
        if wrong.is_empty() {
            Ok(Self(given.clone()))
        } else {
            Err(wrong)
        }
    }

    /// The text of `name`.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str()
    }

    /// The texts of `name`; empty when it is not given.
    pub fn texts(&self, name: &str) -> Vec<String> {
        self.0
            .get(name)
            .and_then(Value::as_array)
            .map(|items| {
                items
                    .iter()
                    .filter_map(Value::as_str)
                    .map(str::to_owned)
                    .collect()
            })
            .unwrap_or_default()
    }

    /// The value of `name`, whatever it is.
    pub fn value(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// All of them, as JSON.
    pub fn as_map(&self) -> &Map<String, Value> {
        &self.0
    }
}

/// The name in `known` nearest to `word`, if one is near.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|name| (strsim::jaro_winkler(word, name), name))
        .filter(|(score, _)| *score > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

fn check_all(given: &Map<String, Value>, table: &[Param], wrong: &mut Vec<String>) {
    for key in given.keys() {
        if !table.iter().any(|param| param.name == key) {
            let hint = match nearest(key, table.iter().map(|param| param.name)) {
                Some(near) => format!("; did you mean `{near}`?"),
                None => String::new(),
            };
            wrong.push(format!("unknown parameter `{key}`{hint}"));
        }
    }
    for param in table {
        match given.get(param.name) {
            Some(value) => check_value(value, param, wrong),
            None if param.required => {
                wrong.push(format!("expected parameter `{}`, got none", param.name));
            }
            None => {}
        }
    }
}

fn check_value(value: &Value, param: &Param, wrong: &mut Vec<String>) {
    let name = param.name;
    let fits = match &param.kind {
        ParamKind::Choice(choices) => value.as_str().is_some_and(|text| choices.contains(&text)),
        ParamKind::Object => value.is_object(),
        ParamKind::Text => is_text(value),
        ParamKind::Texts => value.as_array().is_some_and(|items| {
            !items.is_empty()
                && items.iter().all(is_text)
                && items
                    .iter()
                    .enumerate()
                    .all(|(i, item)| !items.iter().take(i).any(|e| e == item))
        }),
        ParamKind::Value => true,
    };
    if !fits {
        wrong.push(format!(
            "expected {} for parameter `{name}`, got {value}",
            param.kind.wanted()
        ));
    }
}

fn is_text(value: &Value) -> bool {
    value.as_str().is_some_and(|text| !text.trim().is_empty())
}

impl ParamKind {
    /// What is wanted, for messages.
    pub fn wanted(&self) -> String {
        match self {
            Self::Choice(choices) => format!("one of {}", choices.join(", ")),
            Self::Object => "an object".into(),
            Self::Text => "a string that is not blank".into(),
            Self::Texts => "a list of different strings, none blank".into(),
            Self::Value => "a value".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[Param] = &[
        Param {
            name: "tool",
            kind: ParamKind::Text,
            required: true,
            doc: "",
        },
        Param {
            name: "allow",
            kind: ParamKind::Texts,
            required: false,
            doc: "",
        },
        Param {
            name: "mode",
            kind: ParamKind::Choice(&["native", "minted"]),
            required: false,
            doc: "",
        },
    ];

    fn wrong(json: Value) -> Vec<String> {
        let map = json.as_object().expect("an object").clone();
        Params::check(&map, TABLE)
            .map(|_| ())
            .expect_err("does not fit")
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        let got = wrong(serde_json::json!({"tol": "x", "allow": ["a", "a"], "mode": "mint"}));
        assert_eq!(
            got,
            [
                "unknown parameter `tol`; did you mean `tool`?",
                "expected parameter `tool`, got none",
                "expected a list of different strings, none blank for parameter `allow`, got [\"a\",\"a\"]",
                "expected one of native, minted for parameter `mode`, got \"mint\"",
            ]
        );
    }

    #[test]
    fn fitting_parameters_are_read_by_name() {
        let json = serde_json::json!({"tool": "exec", "allow": ["a", "b"]});
        let params = Params::check(json.as_object().expect("an object"), TABLE).expect("fits");
        assert_eq!(params.text("tool"), Some("exec"));
        assert_eq!(params.texts("allow"), ["a", "b"]);
        assert_eq!(params.text("mode"), None);
    }
}
