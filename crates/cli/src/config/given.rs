//! A value as the file gives it, and the readers that turn it into what is meant.
//!
//! A reader either gives the value with its line, or notes a mistake and gives nothing; it never stops the reading of
//! what follows. A text is repeated in a mistake only where no secret belongs.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use farrier_compat::passes::params::nearest;
use farrier_secrets::SecretRef;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::mistakes::Mistake;

/// A value and the line it is on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) line: usize,
}

/// One key of a table: its name, what the documentation says of it, and what reading it does.
pub(super) struct Key<T> {
    pub(super) name: &'static str,
    /// What people write instead, beyond slips of the finger.
    pub(super) also: &'static [&'static str],
    /// What it takes, in a word or two.
    pub(super) takes: &'static str,
    pub(super) absent: Absent,
    /// One sentence.
    pub(super) doc: &'static str,
    pub(super) read: fn(&mut T, &mut Given<'_>),
}

/// What holds when a key is absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Absent {
    /// It has to be there.
    Required,
    /// This, as it would be written, or in words.
    Means(&'static str),
}

/// What was found wrong so far, and where the lines are.
#[derive(Debug)]
pub(super) struct Reading {
    /// Where each line begins, in bytes.
    lines: Vec<usize>,
    /// Lines that are not TOML: what is read on them is a guess, and so is what is missing anywhere.
    broken: Vec<usize>,
    pub(super) mistakes: Vec<Mistake>,
}

/// A value under a key, while it is read.
pub(super) struct Given<'a> {
    name: &'static str,
    /// The table it is in, as messages call it.
    within: &'a str,
    value: &'a Spanned<DeValue<'a>>,
    reading: &'a mut Reading,
}

/// What messages call the table that holds all others.
const TOP: &str = "the file";

// === impl Reading ===

impl Reading {
    /// Reads `text` as the top table.
    pub(super) fn read<T: Default>(text: &str, keys: &'static [Key<T>]) -> (T, Self) {
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let mut reading = Self {
            lines: std::iter::once(0)
                .chain(breaks.map(|(at, _)| at + 1))
                .collect(),
            broken: Vec::new(),
            mistakes: Vec::new(),
        };
        let (top, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            let line = error.span().map_or(1, |span| reading.line(span.start));
            // One slip makes the parser complain several times; the first complaint is the useful one.
            if !reading.broken.contains(&line) {
                let message = format!("not TOML: {}", error.message());
                reading.mistakes.push(Mistake::at(line, message));
                reading.broken.push(line);
            }
        }
        let read = reading.table(top.get_ref(), TOP, 1, keys);
        (read, reading)
    }

    /// Whether absence says nothing, because some lines could not be read.
    pub(super) fn is_broken(&self) -> bool {
        !self.broken.is_empty()
    }

    fn line(&self, offset: usize) -> usize {
        self.lines.partition_point(|start| *start <= offset)
    }

    fn wrong(&mut self, line: usize, message: String) {
        if !self.broken.contains(&line) {
            self.mistakes.push(Mistake::at(line, message));
        }
    }

    fn table<T: Default>(
        &mut self,
        table: &DeTable<'_>,
        place: &str,
        line: usize,
        keys: &'static [Key<T>],
    ) -> T {
        let mut read = T::default();
        for (name, value) in table {
            match keys.iter().find(|key| key.name == name.get_ref()) {
                Some(key) => {
                    let reading = &mut *self;
                    (key.read)(
                        &mut read,
                        &mut Given {
                            name: key.name,
                            within: place,
                            value,
                            reading,
                        },
                    );
                }
                None => {
                    let line = self.line(name.span().start);
                    self.wrong(line, unknown(name.get_ref(), place, keys));
                }
            }
        }
        let missing = keys
            .iter()
            .filter(|key| key.absent == Absent::Required && !table.contains_key(key.name));
        for key in missing {
            if !self.is_broken() {
                self.wrong(line, format!("expected {} in {place}, got none", key.name));
            }
        }
        read
    }
}

fn unknown<T>(name: &str, place: &str, keys: &[Key<T>]) -> String {
    let meant = keys
        .iter()
        .find(|key| key.also.contains(&name))
        .map(|key| key.name);
    let near = meant.or_else(|| nearest(name, keys.iter().map(|key| key.name)));
    let hint = match near {
        Some(near) => format!("did you mean {near:?}"),
        None => {
            let known: Vec<&str> = keys.iter().map(|key| key.name).collect();
            format!("known are {}", known.join(", "))
        }
    };
    format!("expected a key of {place}, got {name:?}; {hint}")
}

// === impl Given ===

impl Given<'_> {
    fn line(&self) -> usize {
        self.reading.line(self.value.span().start)
    }

    fn at<T>(&self, value: T) -> At<T> {
        At {
            value,
            line: self.line(),
        }
    }

    /// Notes that the value is not what was expected.
    pub(super) fn wrong(&mut self, expected: &str, got: &str) {
        let (line, name) = (self.line(), self.name);
        self.reading
            .wrong(line, format!("expected {expected} for {name}, got {got}"));
    }

    /// Whether it is a text that holds `sign`.
    pub(super) fn is_text_with(&self, sign: char) -> bool {
        matches!(self.value.get_ref(), DeValue::String(text) if text.contains(sign))
    }

    /// Whether it is a text.
    pub(super) fn is_text(&self) -> bool {
        matches!(self.value.get_ref(), DeValue::String(_))
    }

    /// A text that is not empty.
    pub(super) fn text(&mut self) -> Option<At<String>> {
        self.parsed("a text", |text| Some(text.to_owned()))
    }

    /// A text that `parse` understands.
    pub(super) fn parsed<T>(
        &mut self,
        expected: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<At<T>> {
        match self.value.get_ref() {
            DeValue::String(text) if text.is_empty() => self.wrong(expected, "an empty text"),
            DeValue::String(text) => match parse(text) {
                Some(value) => return Some(self.at(value)),
                None => self.wrong(expected, &format!("{text:?}")),
            },
            other => self.wrong(expected, kind(other)),
        }
        None
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&mut self, choices: &[(&str, T)]) -> Option<At<T>> {
        let names: Vec<String> = choices
            .iter()
            .map(|(name, _)| format!("{name:?}"))
            .collect();
        let expected = match names.as_slice() {
            [only] => only.clone(),
            many => format!("one of {}", many.join(", ")),
        };
        self.parsed(&expected, |text| {
            choices
                .iter()
                .find(|(name, _)| *name == text)
                .map(|(_, value)| *value)
        })
    }

    pub(super) fn path(&mut self) -> Option<At<PathBuf>> {
        self.parsed("a path", |text| Some(PathBuf::from(text)))
    }

    /// A time between these, with its unit.
    pub(super) fn duration(&mut self, within: RangeInclusive<Duration>) -> Option<At<Duration>> {
        let (least, most) = (within.start(), within.end());
        let [least, most] = [least, most].map(|bound| humantime::format_duration(*bound));
        let expected = format!("a time with its unit, from \"{least}\" to \"{most}\",");
        self.parsed(&expected, |text| {
            humantime::parse_duration(text)
                .ok()
                .filter(|time| within.contains(time))
        })
    }

    /// A number of bytes, with its unit.
    pub(super) fn bytes(&mut self) -> Option<At<u64>> {
        self.parsed("a size with its unit, such as \"32MiB\",", |text| {
            let bytes = text.parse::<ByteSize>().ok()?.as_u64();
            let unit = text.ends_with(|last: char| last.is_ascii_alphabetic());
            (bytes > 0 && unit).then_some(bytes)
        })
    }

    /// `true` or `false`.
    pub(super) fn truth(&mut self) -> Option<At<bool>> {
        match self.value.get_ref() {
            DeValue::Boolean(value) => Some(self.at(*value)),
            other => {
                self.wrong("true or false", kind(other));
                None
            }
        }
    }

    /// A whole number of at least one.
    pub(super) fn count(&mut self) -> Option<At<u64>> {
        let expected = "a whole number of at least 1";
        match self.value.get_ref() {
            DeValue::Integer(number) => {
                let parsed = u64::from_str_radix(number.as_str(), number.radix());
                match parsed {
                    Ok(count) if count > 0 => return Some(self.at(count)),
                    _ => self.wrong(expected, &number.to_string()),
                }
            }
            other => self.wrong(expected, kind(other)),
        }
        None
    }

    /// A whole number between these.
    pub(super) fn number(&mut self, within: RangeInclusive<u64>) -> Option<At<u64>> {
        let expected = format!("a whole number from {} to {}", within.start(), within.end());
        let number = match self.value.get_ref() {
            DeValue::Integer(number) => number,
            other => {
                self.wrong(&expected, kind(other));
                return None;
            }
        };
        let parsed = u64::from_str_radix(number.as_str(), number.radix());
        match parsed.ok().filter(|parsed| within.contains(parsed)) {
            Some(parsed) => Some(self.at(parsed)),
            None => {
                self.wrong(&expected, &number.to_string());
                None
            }
        }
    }

    /// Whole numbers between these: a list of them, or one alone.
    pub(super) fn numbers(&mut self, within: RangeInclusive<u64>) -> Vec<At<u64>> {
        let DeValue::Array(items) = self.value.get_ref() else {
            return self.number(within).into_iter().collect();
        };
        let mut read = Vec::new();
        for value in items.iter() {
            let mut item = Given {
                name: self.name,
                within: self.within,
                value,
                reading: self.reading,
            };
            read.extend(item.number(within.clone()));
        }
        read
    }

    /// Texts that `parse` understands: a list of them, or one alone.
    pub(super) fn list<T>(
        &mut self,
        expected: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Vec<At<T>> {
        let DeValue::Array(items) = self.value.get_ref() else {
            return self.parsed(expected, parse).into_iter().collect();
        };
        let name = self.name;
        let mut read = Vec::new();
        for value in items.iter() {
            let mut item = Given {
                name,
                within: self.within,
                value,
                reading: self.reading,
            };
            read.extend(item.parsed(expected, &parse));
        }
        read
    }

    pub(super) fn addresses(&mut self) -> Vec<At<SocketAddr>> {
        self.list(
            "an address with a port, such as \"127.0.0.1:8484\",",
            |text| text.parse().ok(),
        )
    }

    /// Where a secret is to be found. A secret itself is refused, and not repeated.
    pub(super) fn secret(&mut self) -> Option<At<SecretRef>> {
        const REFERENCE: &str = "a reference, { env = \"NAME\" } or { file = \"PATH\" },";
        let DeValue::Table(_) = self.value.get_ref() else {
            let got = match self.value.get_ref() {
                DeValue::String(_) => "a literal text; keep secrets out of this file",
                other => kind(other),
            };
            self.wrong(REFERENCE, got);
            return None;
        };
        let RawSecret { env, file, refused } = self.table(SECRET)?.value;
        match (env, file) {
            (Some(name), None) => Some(self.at(SecretRef::Env { name })),
            (None, Some(path)) => Some(self.at(SecretRef::File { path })),
            (None, None) if refused => None,
            (None, None) => {
                self.wrong(REFERENCE, "neither");
                None
            }
            (Some(_), Some(_)) => {
                self.wrong(REFERENCE, "both");
                None
            }
        }
    }

    /// A table that is there once.
    pub(super) fn table<T: Default>(&mut self, keys: &'static [Key<T>]) -> Option<At<T>> {
        let place = match self.within.trim_matches(['[', ']']) {
            TOP => format!("[{}]", self.name),
            within => format!("[{within}.{}]", self.name),
        };
        match self.value.get_ref() {
            DeValue::Table(table) => {
                let line = self.line();
                let value = self.reading.table(table, &place, line, keys);
                Some(At { value, line })
            }
            DeValue::Array(_) => {
                self.wrong(&format!("one table, {place},"), "a list");
                None
            }
            other => {
                self.wrong(&format!("a table, {place},"), kind(other));
                None
            }
        }
    }

    /// A table that may be there several times.
    pub(super) fn tables<T: Default>(&mut self, keys: &'static [Key<T>]) -> Vec<At<T>> {
        let name = self.name;
        let place = match self.within.trim_matches(['[', ']']) {
            TOP => format!("[[{name}]]"),
            within => format!("[[{within}.{name}]]"),
        };
        let expected = format!("tables, each as {place},");
        let items = match self.value.get_ref() {
            DeValue::Array(items) => items,
            DeValue::Table(_) => {
                self.wrong(&expected, &format!("[{name}]"));
                return self.table(keys).into_iter().collect();
            }
            other => {
                self.wrong(&expected, kind(other));
                return Vec::new();
            }
        };
        let mut read = Vec::new();
        for value in items.iter() {
            let mut item = Given {
                name,
                within: self.within,
                value,
                reading: self.reading,
            };
            match value.get_ref() {
                DeValue::Table(table) => {
                    let line = item.line();
                    let value = item.reading.table(table, &place, line, keys);
                    read.push(At { value, line });
                }
                other => item.wrong(&expected, kind(other)),
            }
        }
        read
    }
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

// === secrets ===

#[derive(Default)]
struct RawSecret {
    env: Option<String>,
    file: Option<PathBuf>,
    /// There was something, and the mistake is noted.
    refused: bool,
}

const SECRET: &[Key<RawSecret>] = &[
    Key {
        name: "env",
        also: &[],
        takes: "name of an environment variable",
        absent: Absent::Means("the secret is in a file"),
        doc: "The variable that holds the secret.",
        read: |raw, given| raw.read_env(given),
    },
    Key {
        name: "file",
        also: &["path"],
        takes: "path",
        absent: Absent::Means("the secret is in the environment"),
        doc: "The file that holds the secret and nothing else.",
        read: |raw, given| {
            raw.file = given.path().map(|path| path.value);
            raw.refused |= raw.file.is_none();
        },
    },
];

impl RawSecret {
    /// A secret pasted in place of the variable's name is not repeated.
    fn read_env(&mut self, given: &mut Given<'_>) {
        const NAME: &str = "the name of an environment variable, such as MOONSHOT_API_KEY,";
        match given.value.get_ref() {
            DeValue::String(text) if is_variable(text) => self.env = Some(text.to_string()),
            DeValue::String(_) => given.wrong(NAME, "another text; keep secrets out of this file"),
            other => given.wrong(NAME, kind(other)),
        }
        self.refused |= self.env.is_none();
    }
}

/// Capitals, digits and underscores: what names of variables look like, and keys do not.
fn is_variable(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    text.starts_with(|first: char| first.is_ascii_uppercase() || first == '_')
        && text.bytes().all(plain)
}
