//! What can be wrong with manifests, in words for whoever wrote them.
//!
//! Loading reports every mistake of every file at once. The essential words of
//! each message are a contract shared with the readers of the format that came
//! before this one; what was got, and the nearest known name, are added behind.

use std::fmt;

use serde_json::Value;

use crate::passes::params::nearest;

/// Everything that is wrong, in path order; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadErrors(Vec<LoadError>);

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadError {
    /// The manifest it is in; `None` for a mistake in what the loader was told.
    pub path: Option<String>,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong with a manifest, or with a set of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// Two manifests ask one pass for different things, and neither is more specific.
    Conflict {
        /// The pass.
        pass: &'static str,
        /// The id of the other manifest.
        other: String,
        /// The path of the other manifest.
        other_path: String,
        /// The parameters that differ.
        differing: Vec<String>,
    },
    /// The id is taken.
    DuplicateId {
        /// The id.
        id: String,
        /// The path of the manifest that has it.
        first: String,
    },
    /// Both of two keys are there, of which one may be.
    Exclusive {
        /// One key, with its place.
        one: String,
        /// The other.
        other: String,
    },
    /// The text is not JSON.
    Json {
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
        /// What was expected.
        message: String,
    },
    /// A value is not of the kind that is wanted.
    MustBe {
        /// Which value.
        at: String,
        /// What it must be.
        wanted: String,
        /// What it is; empty when that says nothing more.
        got: String,
    },
    /// An item of a list is not of the kind that is wanted.
    MustContain {
        /// Which list.
        at: String,
        /// What it must contain.
        wanted: String,
        /// The first item that is something else.
        got: String,
    },
    /// A file is named that does not exist.
    NotThere {
        /// Which value names it.
        at: String,
        /// The file.
        path: String,
    },
    /// The parameters of a pass do not fit.
    Params {
        /// Which entry.
        at: String,
        /// The pass.
        pass: &'static str,
        /// How they do not fit.
        sentence: String,
    },
    /// One pass is configured twice for the same thing in one manifest.
    Repeated {
        /// Which entry.
        at: String,
        /// The pass.
        pass: &'static str,
    },
    /// A field that has to be there is not.
    Required {
        /// The field.
        field: &'static str,
        /// What belongs there.
        wanted: String,
    },
    /// Keys that mean nothing here.
    UnknownKeys {
        /// What they are keys of, in the plural.
        what: String,
        /// The keys, sorted.
        keys: Vec<String>,
        /// The known names they are near to.
        near: Vec<String>,
    },
    /// A name that is in no table.
    UnknownName {
        /// Which value; empty for the manifest as a whole.
        at: String,
        /// What kind of name.
        what: &'static str,
        /// The name.
        name: String,
        /// The known name it is near to.
        near: Option<String>,
    },
}

impl LoadErrors {
    /// The mistakes as errors, if there are any.
    pub(super) fn unless_empty(mut errors: Vec<LoadError>) -> Result<(), Self> {
        if errors.is_empty() {
            return Ok(());
        }
        errors.sort_by(|a, b| a.path.cmp(&b.path));
        Err(Self(errors))
    }

    /// Each mistake.
    pub fn iter(&self) -> impl Iterator<Item = &LoadError> {
        self.0.iter()
    }
}

impl Problem {
    /// `at` must be `wanted` and is not.
    pub(super) fn must_be(
        at: impl Into<String>,
        wanted: impl Into<String>,
        got: Option<&Value>,
    ) -> Self {
        Self::MustBe {
            at: at.into(),
            wanted: wanted.into(),
            got: got.map(brief).unwrap_or_default(),
        }
    }

    /// `keys` are not among `known`.
    pub(super) fn unknown_keys<'a>(
        what: impl Into<String>,
        mut keys: Vec<String>,
        known: impl Iterator<Item = &'a str> + Clone,
    ) -> Self {
        keys.sort();
        let mut near: Vec<String> = keys
            .iter()
            .filter_map(|key| nearest(key, known.clone()))
            .map(str::to_owned)
            .collect();
        near.dedup();
        Self::UnknownKeys {
            what: what.into(),
            keys,
            near,
        }
    }

    /// `name` is not among `known`.
    pub(super) fn unknown_name<'a>(
        at: impl Into<String>,
        what: &'static str,
        name: &str,
        known: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        Self::UnknownName {
            at: at.into(),
            what,
            name: name.to_owned(),
            near: nearest(name, known).map(str::to_owned),
        }
    }
}

/// A value in few words: itself when it is short, else its kind.
fn brief(value: &Value) -> String {
    const LONGEST: usize = 60;
    let text = value.to_string();
    if text.len() <= LONGEST {
        return text;
    }
    match value {
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
        Value::String(_) => "a longer string",
        Value::Null | Value::Bool(_) | Value::Number(_) => "another value",
    }
    .to_owned()
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Conflict {
                pass,
                other,
                other_path,
                differing,
            } => write!(
                f,
                "pass '{pass}' conflicts with manifest '{other}' ({other_path}): both can apply \
                 to one request, neither is more specific, and they differ in {}; narrow the \
                 match of one or switch one off",
                differing.join(", ")
            ),
            Self::DuplicateId { id, first } => write!(
                f,
                "id '{id}' is taken by {first}; to replace a shipped manifest, switch it off by id"
            ),
            Self::Exclusive { one, other } => {
                write!(f, "{one} and {other} are mutually exclusive")
            }
            Self::Json { message, .. } => write!(f, "not JSON: {message}"),
            Self::MustBe { at, wanted, got } if got.is_empty() => {
                write!(f, "{at} must be {wanted}")
            }
            Self::MustBe { at, wanted, got } => write!(f, "{at} must be {wanted}, got {got}"),
            Self::MustContain { at, wanted, got } => {
                write!(f, "{at} must contain {wanted}, got {got:?}")
            }
            Self::NotThere { at, path } => write!(f, "{at} does not exist: {path}"),
            Self::Params { at, pass, sentence } => write!(f, "{at} ({pass}): {sentence}"),
            Self::Repeated { at, pass } => {
                write!(
                    f,
                    "{at} configures pass '{pass}' a second time for the same thing"
                )
            }
            Self::Required { field, wanted } => {
                write!(f, "field '{field}' is required, {wanted}")
            }
            Self::UnknownKeys { what, keys, near } => {
                write!(f, "unknown {what}: {}", keys.join(", "))?;
                did_you_mean(f, near)
            }
            Self::UnknownName {
                at,
                what,
                name,
                near,
            } => {
                if !at.is_empty() {
                    write!(f, "{at}: ")?;
                }
                write!(f, "unknown {what} '{name}'")?;
                did_you_mean(f, near)
            }
        }
    }
}

fn did_you_mean<'a>(
    f: &mut fmt::Formatter<'_>,
    near: impl IntoIterator<Item = &'a String>,
) -> fmt::Result {
    let names: Vec<String> = near.into_iter().map(|name| format!("`{name}`")).collect();
    if names.is_empty() {
        return Ok(());
    }
    write!(f, "; did you mean {}?", names.join(", "))
}

/// `path: problem`, and `path:line:column: problem` for bad JSON.
impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(path) = &self.path {
            f.write_str(path)?;
            if let Problem::Json { line, column, .. } = self.problem {
                write!(f, ":{line}:{column}")?;
            }
            f.write_str(": ")?;
        }
        self.problem.fmt(f)
    }
}

/// One line for each mistake.
impl fmt::Display for LoadErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for LoadError {}
impl std::error::Error for LoadErrors {}
