//! A generated configuration, put over what is in a directory.
//!
//! ```text
//! Configuration ──plan(dir)──▶ Plan: what would change, secrets hidden ──apply──▶ files
//! ```
//!
//! Planning reads and refuses; applying writes what was planned and nothing else.
//! A plan holds the directory locked.

use std::path::{Path, PathBuf};

use crate::document::{Document, Unreadable};
use crate::env_lines::{self, Lines};
use crate::merge;
use crate::placeholder::masked;
use crate::target::{Edited, Existing, NewFile, Owner, Refusal, Target};

/// What a harness is to be configured with.
#[derive(Debug, Clone, PartialEq)]
pub struct Configuration {
    /// The files, by name.
    pub files: Vec<ConfigFile>,
    /// What whoever asked should know.
    pub notes: Vec<String>,
}

/// One file of a configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct ConfigFile {
    /// Its name in the harness's directory.
    pub name: &'static str,
    /// What is in it.
    pub content: Content,
    /// Dotted paths whose value, if there is one already, stays.
    pub(crate) seeds: &'static [&'static str],
    /// Dotted paths that the harness refuses to start with.
    pub(crate) refused: Vec<String>,
}

/// What is in a configuration file.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// Lines of `NAME=value`.
    Env(Vec<(String, String)>),
    /// JSON.
    Json(Document),
    /// YAML, below lines of comment.
    Yaml {
        /// The comment, without its marks.
        header: Vec<String>,
        /// The rest.
        document: Document,
    },
}

/// What would be written, and over what.
#[derive(Debug)]
pub struct Plan {
    dir: PathBuf,
    owner: Owner,
    target: Option<Target>,
    files: Vec<NewFile>,
    /// What would change, file by file.
    pub changes: Vec<Change>,
    /// What whoever asked should know.
    pub notes: Vec<String>,
    is_current: bool,
}

/// What becomes of one file. Whatever may be a secret is hidden in both texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The file.
    pub path: PathBuf,
    /// What is there, if anything is.
    pub before: Option<String>,
    /// What will be there.
    pub after: String,
}

/// Where it is kept what was generated last.
pub(crate) const RECORD: &str = ".farrier-applied.json";

impl Configuration {
    /// What writing this to `dir` would change.
    ///
    /// # Errors
    /// Something is there that must not be written over, and why.
    pub fn plan(self, dir: &Path, edited: Edited) -> Result<Plan, Refusal> {
        self.plan_for(Owner::process(), dir, edited)
    }

    /// The same, for files that are or will be somebody else's.
    ///
    /// # Errors
    /// As [`plan`](Self::plan).
    pub fn plan_for(self, owner: Owner, dir: &Path, edited: Edited) -> Result<Plan, Refusal> {
        let target = Target::look(dir, owner)?;
        let read = |name: &str, edited| match &target {
            Some(target) => target.read(name, edited),
            None => Ok(None),
        };
        let record = read(RECORD, edited)?;
        let last = match &record {
            Some(record) => document_at(dir, RECORD, Document::from_json(&record.text))?,
            None => Document::Object(Vec::new()),
        };
        let mut plan = Plan {
            dir: dir.to_owned(),
            owner,
            files: Vec::new(),
            changes: Vec::new(),
            notes: self.notes,
            is_current: true,
            target: None,
        };
        let mut generated = Vec::new();
        for file in &self.files {
            let existing = read(file.name, edited)?;
            plan.add(file, existing.as_ref(), last.field(file.name))?;
            generated.push((file.name, file.content.document()));
        }
        let generated = Document::object(generated).to_json();
        plan.is_current &= record.is_some_and(|record| record.text == generated)
            && target.as_ref().is_some_and(Target::has_digests);
        plan.files.push(NewFile {
            name: RECORD.to_owned(),
            text: generated,
        });
        plan.target = target;
        Ok(plan)
    }

    /// Fills in the token of the harness's own gateway, where its configuration leaves that to whoever starts it. A token
    /// that is there already stays. Says whether there is such a place.
    ///
    /// ```text
    /// "gateway":{"auth":{"token":""}}   before
    /// "gateway":{"auth":{"token":"…"}}  after
    /// ```
    pub fn fill_gateway_token(&mut self, token: &str) -> bool {
        let mut filled = false;
        for file in &mut self.files {
            if let Content::Json(document) = &mut file.content {
                filled |= document.fill("gateway.auth.token", token);
            }
        }
        filled
    }

    /// The files as they are where nothing is there before.
    pub fn texts(&self) -> impl Iterator<Item = (&'static str, String)> {
        self.files
            .iter()
            .map(|file| (file.name, file.content.text(None)))
    }
}

impl Plan {
    /// Whether there is nothing to write.
    pub fn is_current(&self) -> bool {
        self.is_current
    }

    /// Writes what was planned.
    ///
    /// # Errors
    /// It cannot be written; then each file is as it was before or as it was planned.
    pub fn apply(&self) -> Result<(), Refusal> {
        match &self.target {
            _ if self.is_current => Ok(()),
            Some(target) => target.write(&self.files),
            None => Target::make(&self.dir, self.owner)?.write(&self.files),
        }
    }

    fn add(
        &mut self,
        file: &ConfigFile,
        existing: Option<&Existing>,
        last: Option<&Document>,
    ) -> Result<(), Refusal> {
        let path = self.dir.join(file.name);
        let (before, after) = match existing {
            None => (None, file.content.merged(None, last, file.seeds)),
            Some(existing) => {
                let there = file.content.read(&existing.text);
                let there = document_at(&self.dir, file.name, there)?;
                let after = file.content.merged(Some(&there), last, file.seeds);
                (Some(there), after)
            }
        };
        if let Body::Document(document) = &after {
            let refused = file
                .refused
                .iter()
                .filter(|path| document.clone().take_out(path));
            self.notes.extend(refused.map(|key| {
                let path = path.display();
                format!("{path} keeps {key}, which was there and which this version refuses")
            }));
        }
        let text = file.content.written(&after);
        self.is_current &= existing.is_some_and(|existing| existing.text == text);
        self.changes.push(Change {
            before: before.map(|before| file.content.shown(&before)),
            after: file.content.shown(&after),
            path,
        });
        self.files.push(NewFile {
            name: file.name.to_owned(),
            text,
        });
        Ok(())
    }
}

/// A file's text, read.
#[derive(Debug, Clone)]
enum Body {
    Document(Document),
    Lines(Lines),
}

impl Content {
    fn read(&self, text: &str) -> Result<Body, Unreadable> {
        Ok(match self {
            Self::Env(_) => Body::Lines(Lines::parse(text)),
            Self::Json(_) => Body::Document(Document::from_json(text)?),
            Self::Yaml { .. } => Body::Document(Document::from_yaml(text)?),
        })
    }

    fn merged(&self, there: Option<&Body>, last: Option<&Document>, seeds: &[&str]) -> Body {
        match (self, there) {
            (Self::Env(new), Some(Body::Lines(there))) => Body::Lines(there.with(new, last)),
            (Self::Env(new), _) => Body::Lines(Lines::default().with(new, None)),
            (Self::Json(new) | Self::Yaml { document: new, .. }, Some(Body::Document(there))) => {
                Body::Document(merge::merged(last, there, new, seeds))
            }
            (Self::Json(new) | Self::Yaml { document: new, .. }, _) => Body::Document(new.clone()),
        }
    }

    fn written(&self, body: &Body) -> String {
        match (self, body) {
            (_, Body::Lines(lines)) => lines.to_text(),
            (Self::Yaml { header, .. }, Body::Document(document)) => {
                let comment: String = header.iter().map(|line| format!("# {line}\n")).collect();
                comment + &document.to_yaml()
            }
            (_, Body::Document(document)) => document.to_json(),
        }
    }

    fn shown(&self, body: &Body) -> String {
        let hidden = match body {
            Body::Document(document) => Body::Document(masked(document)),
            Body::Lines(lines) => Body::Lines(lines.masked()),
        };
        self.written(&hidden)
    }

    fn text(&self, there: Option<&Body>) -> String {
        self.written(&self.merged(there, None, &[]))
    }

    /// What was generated, for the record.
    fn document(&self) -> Document {
        match self {
            Self::Env(lines) => env_lines::document(lines),
            Self::Json(document) | Self::Yaml { document, .. } => document.clone(),
        }
    }
}

fn document_at<T>(dir: &Path, name: &str, read: Result<T, Unreadable>) -> Result<T, Refusal> {
    read.map_err(|source| Refusal::Unreadable {
        path: dir.join(name),
        source,
    })
}
