//! What a harness's configuration is made from besides the route.
//!
//! A [`Setting`] is a row of a harness's table: its name on a command line, the
//! variable that images carry it in, and what it does. Values come as text
//! ([`Given`]), wherever they are from, and are read by the same functions; so a
//! flag and a variable cannot differ in what they accept. Reading goes on after a
//! mistake, and reports all of them.

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

/// Something about a configuration that can be chosen.
#[derive(Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its name, as in `--name`.
    pub name: &'static str,
    /// What is given with it.
    pub takes: Takes,
    /// The variable that images carry it in.
    pub variable: Option<Variable>,
    /// What it does, in one line.
    pub doc: &'static str,
}

/// What is given with a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// Nothing: it is on or off. A variable says this word for on.
    Switch(&'static str),
    /// A value, called this in help.
    Value(&'static str),
}

/// A variable that carries a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// Whether its value is base64 of the setting's.
    pub base64: bool,
}

/// A value as it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// Where it is from, for messages.
    pub from: String,
    /// The value.
    pub text: String,
    /// Whether it is base64 of what is meant.
    pub base64: bool,
}

/// Looks a setting up.
pub type Look<'a> = dyn Fn(&'static Setting) -> Option<Given> + 'a;

/// A value that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Where it is from.
    pub from: String,
    /// What is wrong with it.
    pub message: String,
}

/// Everything that is wrong with what was given; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistakes(pub Vec<Mistake>);

/// Values being read, with what was found on the way.
pub(crate) struct Reading<'a> {
    look: &'a Look<'a>,
    pub(crate) mistakes: Vec<Mistake>,
    pub(crate) notes: Vec<String>,
}

impl Setting {
    pub(crate) const fn new(name: &'static str, value: &'static str, doc: &'static str) -> Self {
        Self {
            name,
            takes: Takes::Value(value),
            variable: None,
            doc,
        }
    }

    pub(crate) const fn switch(name: &'static str, on: &'static str, doc: &'static str) -> Self {
        Self {
            name,
            takes: Takes::Switch(on),
            variable: None,
            doc,
        }
    }

    pub(crate) const fn variable(self, name: &'static str) -> Self {
        Self {
            variable: Some(Variable {
                name,
                base64: false,
            }),
            ..self
        }
    }

    pub(crate) const fn base64_variable(self, name: &'static str) -> Self {
        Self {
            variable: Some(Variable { name, base64: true }),
            ..self
        }
    }
}

impl Given {
    /// What the environment says of a setting. `lookup` gives the value of a variable.
    pub fn from_variable(
        setting: &Setting,
        lookup: impl FnOnce(&str) -> Option<String>,
    ) -> Option<Self> {
        let Variable { name, base64 } = setting.variable?;
        Some(Self {
            from: name.to_owned(),
            text: lookup(name)?,
            base64,
        })
    }
}

impl<'a> Reading<'a> {
    pub(crate) fn new(look: &'a Look<'a>) -> Self {
        Self {
            look,
            mistakes: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// What was given, decoded and without white space around it; blank is nothing.
    pub(crate) fn given(&mut self, setting: &'static Setting) -> Option<Given> {
        let mut given = (self.look)(setting)?;
        if given.base64 {
            let bytes = BASE64_STANDARD.decode(given.text.trim()).ok();
            let Some(text) = bytes.and_then(|bytes| String::from_utf8(bytes).ok()) else {
                self.wrong(
                    &given.from,
                    "expected base64 of UTF-8 text, got something else",
                );
                return None;
            };
            given.text = text;
        }
        let text = given.text.trim();
        (!text.is_empty()).then(|| Given {
            text: text.to_owned(),
            ..given
        })
    }

    /// Any text.
    pub(crate) fn text(&mut self, setting: &'static Setting) -> Option<String> {
        self.given(setting).map(|given| given.text)
    }

    /// A value that has to be right.
    pub(crate) fn parsed<T>(
        &mut self,
        setting: &'static Setting,
        wanted: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let given = self.given(setting)?;
        let value = parse(&given.text);
        if value.is_none() {
            self.unfit(&given, wanted);
        }
        value
    }

    /// A value that is left out, with a warning, when it is not right: it may come from
    /// outside, and what it would widen stays as it is.
    pub(crate) fn lenient<T>(
        &mut self,
        setting: &'static Setting,
        wanted: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let given = self.given(setting)?;
        let value = parse(&given.text);
        if value.is_none() {
            let Given { from, text, .. } = given;
            let text = brief(&text);
            self.notes.push(format!(
                "[SECURITY] {from}: expected {wanted}, got {text}; left out"
            ));
        }
        value
    }

    /// A switch: on for its word alone.
    pub(crate) fn is_on(&mut self, setting: &'static Setting) -> bool {
        let given = self.text(setting);
        matches!(setting.takes, Takes::Switch(on) if given.as_deref() == Some(on))
    }

    /// One of a closed set of words.
    pub(crate) fn choice<T: Copy>(
        &mut self,
        setting: &'static Setting,
        choices: &[(&str, T)],
    ) -> Option<T> {
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        self.parsed(setting, &names.join(" or "), |text| {
            let found = choices.iter().find(|(name, _)| *name == text);
            found.map(|(_, value)| *value)
        })
    }

    pub(crate) fn wrong(&mut self, from: &str, message: impl Into<String>) {
        self.mistakes.push(Mistake {
            from: from.to_owned(),
            message: message.into(),
        });
    }

    fn unfit(&mut self, given: &Given, wanted: &str) {
        let got = brief(&given.text);
        self.wrong(&given.from, format!("expected {wanted}, got {got}"));
    }

    /// What was read, if nothing is wrong.
    pub(crate) fn finish<T>(self, value: T) -> Result<(T, Vec<String>), Mistakes> {
        if self.mistakes.is_empty() {
            Ok((value, self.notes))
        } else {
            Err(Mistakes(self.mistakes))
        }
    }
}

/// A value in a message: quoted, and cut where it is long. What looks like a URL with
/// a user in it is not shown.
pub(crate) fn brief(text: &str) -> String {
    const LONGEST: usize = 60;
    if text.contains("://") && text.contains('@') {
        return "a URL with a user in it".to_owned();
    }
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{:?}…", text.get(..end).unwrap_or_default()),
        None => format!("{text:?}"),
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, message } = self;
        write!(f, "{from}: {message}")
    }
}

/// One line for each mistake.
impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for Mistake {}
impl std::error::Error for Mistakes {}
