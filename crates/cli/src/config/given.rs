//! A value as the file gives it, and the readers that turn it into what is meant.
//!
//! A reader either gives the value with its line, or notes a mistake and gives nothing. It never stops the reading of
//! what follows. A text is repeated in a mistake only where no secret belongs.

use std::net::SocketAddr;
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
    /// What holds when it is absent.
    pub(super) default: Absent,
    /// One line, without a period.
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

/// The text of the file and what was found wrong with it so far.
#[derive(Debug)]
pub(super) struct Reading<'t> {
    text: &'t str,
    pub(super) mistakes: Vec<Mistake>,
    /// Lines that are not TOML. What is read on them is a guess, and so is what is missing anywhere.
    broken: Vec<usize>,
}

/// A value under a key, while it is read.
pub(super) struct Given<'a> {
    name: &'a str,
    value: &'a Spanned<DeValue<'a>>,
    reading: &'a mut Reading<'a>,
}
