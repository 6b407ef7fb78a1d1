//! What a source of the pure crate refers to, read from its tokens.
//!
//! A token stream holds no comments and keeps strings whole, so only code counts, code inside macro calls included. Paths
//! are put together from it (`use std::{fs, io}` gives `std::fs` and `std::io`) and checked against two rules:
//!
//! * the crate has no clock, file system, environment, network or processes ([`IMPURE`]);
//! * its modules know only those before them ([`ORDER`]), by their own names and not through the crate's root.
//!
//! Code under `cfg(test)` is free of both. A name that was given away under an alias (`use std as s`) is not followed:
//! this keeps honest code honest, it is no sandbox.

use std::fmt;
use std::path::Path;

use proc_macro2::{Delimiter, Ident, LexError, TokenStream, TokenTree};

/// The modules of the pure crate; each may use itself and those before it.
const ORDER: &[&str] = &[
    "facts", "fault", "wire", "passes", "registry", "plan", "run", "fuzzing",
];

/// What the pure crate must not name. A path is a breach if one of these occurs in it, segment by segment.
const IMPURE: &[&[&str]] = &[
    &["std", "env"],
    &["std", "fs"],
    &["std", "net"],
    &["std", "process"],
    &["std", "*"],
    &["SystemTime"],
    &["Instant", "now"],
];

/// A use that the rules do not allow.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Breach {
    /// The outside world is named.
    Impure { path: String },
    /// A module of [`ORDER`] uses an item by way of the crate's root, which hides where it is from.
    Root { module: String, path: String },
    /// A module uses a later one.
    Order { module: String, used: String },
    /// The module is not in [`ORDER`].
    NoPlace { module: String },
}

/// A path of two segments or more, as written.
#[derive(Debug)]
struct PathUse {
    segments: Vec<String>,
    line: usize,
    /// The module it is written in, from the crate's root.
    module: Vec<String>,
}

/// Collects the paths of a token stream.
struct Reader {
    module: Vec<String>,
    found: Vec<PathUse>,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let order = ORDER.join(" ← ");
        match self {
            Self::Impure { path } => write!(
                f,
                "`{path}` in a crate without clock, files, environment or network"
            ),
            Self::Root { module, path } => {
                write!(
                    f,
                    "`{module}` uses `{path}` by way of the crate root, name one of {order}"
                )
            }
            Self::Order { module, used } => {
                write!(f, "`{module}` uses `crate::{used}`, against {order}")
            }
            Self::NoPlace { module } => write!(f, "module `{module}` has no place in {order}"),
        }
    }
}

/// The module a file holds, given its path below `src`: `wire/sse.rs` is `wire::sse`, `lib.rs` the root.
pub(super) fn module_of(path: &Path) -> Vec<String> {
    let path = path.with_extension("");
    let mut module: Vec<String> = path
        .iter()
        .map(|part| part.to_string_lossy().into_owned())
        .collect();
    module.pop_if(|last| last == "mod" || last == "lib");
    module
}

/// The breaches of `source`, the text of `module`, each with its line.
///
/// # Errors
/// If the text is not made of Rust's tokens.
pub(super) fn breaches(source: &str, module: &[String]) -> Result<Vec<(usize, Breach)>, LexError> {
    let mut reader = Reader {
        module: module.to_vec(),
        found: Vec::new(),
    };
    reader.read(&Vec::from_iter(source.parse::<TokenStream>()?));
    let misplaced = module.first().filter(|first| rank(first).is_none());
    let no_place = misplaced.map(|first| {
        (
            1,
            Breach::NoPlace {
                module: first.clone(),
            },
        )
    });
    let found = reader.found.iter().flat_map(|path| {
        let breaches = [impurity(path), disorder(path)];
        breaches
            .into_iter()
            .flatten()
            .map(|breach| (path.line, breach))
    });
    Ok(no_place.into_iter().chain(found).collect())
}

fn impurity(path: &PathUse) -> Option<Breach> {
    let names = |wanted: &&&[&str]| {
        path.segments
            .windows(wanted.len())
            .any(|segments| segments == **wanted)
    };
    IMPURE.iter().find(names).map(|_| Breach::Impure {
        path: path.segments.join("::"),
    })
}

fn disorder(path: &PathUse) -> Option<Breach> {
    let module = path.module.first()?;
    let own_rank = rank(module)?;
    let target = path.path_in_crate()?;
    let module = module.clone();
    match target.first() {
        None => None,
        Some(first) => match rank(first) {
            Some(used) if used > own_rank => Some(Breach::Order {
                module,
                used: first.clone(),
            }),
            Some(_) => None,
            None => Some(Breach::Root {
                module,
                path: format!("crate::{first}"),
            }),
        },
    }
}

fn rank(module: &str) -> Option<usize> {
    ORDER.iter().position(|name| *name == module)
}

impl PathUse {
    /// The path from the crate's root, if it leads into the crate.
    fn path_in_crate(&self) -> Option<Vec<String>> {
        let supers = self
            .segments
            .iter()
            .take_while(|segment| *segment == "super")
            .count();
        let (base, rest) = match self.segments.first()?.as_str() {
            "crate" => (&[][..], &self.segments[1..]),
            "self" => (&self.module[..], &self.segments[1..]),
            "super" => (
                &self.module[..self.module.len().saturating_sub(supers)],
                &self.segments[supers..],
            ),
            _ => return None,
        };
        Some([base, rest].concat())
    }
}

impl Reader {
    fn read(&mut self, tokens: &[TokenTree]) {
        let mut rest = tokens;
        while let Some((first, after)) = rest.split_first() {
            rest = match first {
                TokenTree::Punct(mark) if mark.as_char() == '#' => match attribute(after) {
                    Some((Attribute::TestFile, _)) => return,
                    Some((Attribute::TestItem, item)) => after_item(item),
                    None => after,
                },
                TokenTree::Ident(word) if word == "mod" => self.inline_module(after),
                TokenTree::Ident(word) => self.path(Vec::new(), word, after),
                TokenTree::Group(group) => {
                    self.read(&Vec::from_iter(group.stream()));
                    after
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => after,
            };
        }
    }

    /// After `mod`: the body of an inline module is read as that module. Gives what follows.
    fn inline_module<'a>(&mut self, after: &'a [TokenTree]) -> &'a [TokenTree] {
        let [TokenTree::Ident(name), TokenTree::Group(body), rest @ ..] = after else {
            return after;
        };
        self.module.push(name.to_string());
        self.read(&Vec::from_iter(body.stream()));
        self.module.pop();
        rest
    }

    /// Reads the path that goes on with `word` and gives what follows it.
    fn path<'a>(
        &mut self,
        mut segments: Vec<String>,
        word: &Ident,
        after: &'a [TokenTree],
    ) -> &'a [TokenTree] {
        segments.push(word.to_string());
        let line = word.span().start().line;
        let Some(after) = after_colons(after) else {
            self.found(segments, line);
            return after;
        };
        match after {
            [TokenTree::Ident(next), rest @ ..] => self.path(segments, next, rest),
            [TokenTree::Punct(star), rest @ ..] if star.as_char() == '*' => {
                segments.push("*".to_owned());
                self.found(segments, line);
                rest
            }
            [TokenTree::Group(group), rest @ ..] if group.delimiter() == Delimiter::Brace => {
                self.branches(&segments, &Vec::from_iter(group.stream()), line);
                rest
            }
            rest => {
                self.found(segments, line);
                rest
            }
        }
    }

    /// `a::{b, c::d}`: each branch is a path of its own.
    fn branches(&mut self, stem: &[String], tokens: &[TokenTree], line: usize) {
        let is_comma =
            |token: &TokenTree| matches!(token, TokenTree::Punct(mark) if mark.as_char() == ',');
        for branch in tokens.split(is_comma) {
            match branch {
                [TokenTree::Ident(word), rest @ ..] => {
                    self.path(stem.to_vec(), word, rest);
                }
                [TokenTree::Punct(_), ..] => self.found([stem, &["*".to_owned()]].concat(), line),
                _ => {}
            }
        }
    }

    fn found(&mut self, segments: Vec<String>, line: usize) {
        if segments.len() > 1 {
            self.found.push(PathUse {
                segments,
                line,
                module: self.module.clone(),
            });
        }
    }
}

/// What an attribute says about testing.
enum Attribute {
    TestFile,
    TestItem,
}

/// After `#`: whether this is `[cfg(test)]` or the like, and what follows it.
fn attribute(after: &[TokenTree]) -> Option<(Attribute, &[TokenTree])> {
    let (kind, after) = match after {
        [TokenTree::Punct(bang), rest @ ..] if bang.as_char() == '!' => (Attribute::TestFile, rest),
        rest => (Attribute::TestItem, rest),
    };
    let [TokenTree::Group(group), rest @ ..] = after else {
        return None;
    };
    let words: Vec<String> = words(group.stream());
    let has = |word: &str| words.iter().any(|found| found == word);
    (words.first().is_some_and(|word| word == "cfg") && has("test") && !has("not"))
        .then_some((kind, rest))
}

fn words(stream: TokenStream) -> Vec<String> {
    let words = stream.into_iter().flat_map(|token| match token {
        TokenTree::Ident(word) => vec![word.to_string()],
        TokenTree::Group(group) => words(group.stream()),
        TokenTree::Punct(_) | TokenTree::Literal(_) => Vec::new(),
    });
    words.collect()
}

/// Skips an item: up to its body in braces, or to its semicolon.
fn after_item(tokens: &[TokenTree]) -> &[TokenTree] {
    let ends = |token: &TokenTree| match token {
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        TokenTree::Punct(mark) => mark.as_char() == ';',
        TokenTree::Ident(_) | TokenTree::Literal(_) => false,
    };
    tokens
        .iter()
        .position(ends)
        .map_or(&[], |end| &tokens[end + 1..])
}

fn after_colons(tokens: &[TokenTree]) -> Option<&[TokenTree]> {
    match tokens {
        [TokenTree::Punct(first), TokenTree::Punct(second), rest @ ..]
            if first.as_char() == ':' && second.as_char() == ':' =>
        {
            Some(rest)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found_in(module: &str, source: &str) -> Vec<String> {
        let module = module_of(Path::new(module));
        let breaches = breaches(source, &module).expect("the sample is Rust");
        breaches
            .iter()
            .map(|(line, breach)| format!("{line}: {breach}"))
            .collect()
    }

    fn impure(line: usize, path: &str) -> String {
        format!("{line}: `{path}` in a crate without clock, files, environment or network")
    }

    fn against_order(line: usize, module: &str, used: &str) -> String {
        format!(
            "{line}: `{module}` uses `crate::{used}`, against facts ← fault ← wire ← passes ← registry ← plan ← run ← fuzzing"
        )
    }

    #[test]
    fn a_file_is_the_module_its_path_says() {
        for (path, module) in [
            ("lib.rs", &[][..]),
            ("run.rs", &["run"]),
            ("wire/mod.rs", &["wire"]),
            ("wire/sse.rs", &["wire", "sse"]),
        ] {
            assert_eq!(module_of(Path::new(path)), module, "{path}");
        }
    }

    #[test]
    fn the_outside_world_is_seen_in_imports_and_in_paths() {
        let source = "use std::fs;\nuse std::{collections::BTreeMap, net::{IpAddr, self}};\nfn now() { let _ = ::std::env::var(\"X\"); }\n";
        assert_eq!(
            found_in("lib.rs", source),
            [
                impure(1, "std::fs"),
                impure(2, "std::net::IpAddr"),
                impure(2, "std::net::self"),
                impure(3, "std::env::var"),
            ]
        );
    }

    #[test]
    fn a_clock_is_seen_however_it_is_reached() {
        let source = "use std::time;\nfn f() { time::SystemTime::now(); }\nfn g() { Instant::now(); }\nfn h(i: time::Instant) {}\n";
        assert_eq!(
            found_in("lib.rs", source),
            [
                impure(2, "time::SystemTime::now"),
                impure(3, "Instant::now")
            ]
        );
    }

    #[test]
    fn code_inside_a_macro_call_counts() {
        let source = "fn f() { assert!(std::process::id() > 0, \"{}\", 1); }";
        assert_eq!(found_in("lib.rs", source), [impure(1, "std::process::id")]);
    }

    #[test]
    fn a_glob_import_of_the_standard_library_hides_its_modules() {
        assert_eq!(found_in("lib.rs", "use std::*;"), [impure(1, "std::*")]);
        assert_eq!(found_in("lib.rs", "use std::{*};"), [impure(1, "std::*")]);
        assert_eq!(found_in("lib.rs", "use std::fmt::*;"), [""; 0]);
    }

    #[test]
    fn comments_strings_and_test_code_are_free() {
        let source = "//! Never `std::fs`.\n/* std::net */\nconst A: &str = \"std::env::var\";\n\
                      #[cfg(test)]\nmod tests { use std::fs; use crate::run::drive; }\n\
                      #[cfg(test)]\nuse std::fs::File;\n#[cfg(all(test, unix))]\n#[derive(Debug)]\nstruct S { f: std::fs::File }\n";
        assert_eq!(found_in("wire/sse.rs", source), [""; 0]);
        assert_eq!(
            found_in("wire/sse.rs", "#![cfg(test)]\nuse std::fs;"),
            [""; 0]
        );
    }

    #[test]
    fn code_that_is_left_out_of_tests_is_not_test_code() {
        assert_eq!(
            found_in("lib.rs", "#[cfg(not(test))]\nuse std::fs;"),
            [impure(2, "std::fs")]
        );
    }

    #[test]
    fn a_module_may_use_itself_and_those_before_it() {
        assert_eq!(
            found_in(
                "wire/sse.rs",
                "use crate::wire::json::Object;\nuse super::json;"
            ),
            [""; 0]
        );
        assert_eq!(
            found_in(
                "plan.rs",
                "use crate::{passes::Pass, registry::Registry, wire};"
            ),
            [""; 0]
        );
        assert_eq!(found_in("run.rs", "use crate::plan::Plan;"), [""; 0]);
        assert_eq!(found_in("lib.rs", "pub use crate::run::drive;"), [""; 0]);
    }

    #[test]
    fn a_module_may_not_use_a_later_one() {
        assert_eq!(
            found_in("passes/mod.rs", "use crate::plan::Plan;"),
            [against_order(1, "passes", "plan")]
        );
        assert_eq!(
            found_in(
                "wire/mod.rs",
                "use crate::{\n    registry::Manifest,\n    wire::json,\n};"
            ),
            [against_order(2, "wire", "registry")]
        );
        assert_eq!(
            found_in("registry/lint.rs", "fn f() { crate::run::drive() }"),
            [against_order(1, "registry", "run")]
        );
    }

    #[test]
    fn a_later_module_is_found_by_way_of_super_too() {
        assert_eq!(
            found_in("wire/sse.rs", "use super::super::run::drive;"),
            [against_order(1, "wire", "run")]
        );
        assert_eq!(
            found_in(
                "wire/sse.rs",
                "mod inner { use super::super::super::plan; use super::frame; }"
            ),
            [against_order(1, "wire", "plan")]
        );
    }

    #[test]
    fn an_item_of_the_crate_root_is_asked_for_by_its_module() {
        assert_eq!(
            found_in("passes/replay.rs", "use crate::Plan;"),
            [
                "1: `passes` uses `crate::Plan` by way of the crate root, name one of facts ← fault ← wire ← passes ← registry ← plan ← run ← fuzzing"
            ]
        );
    }

    #[test]
    fn a_module_outside_of_the_order_is_a_breach_of_its_own() {
        assert_eq!(
            found_in("helpers.rs", "use crate::run::drive;"),
            [
                "1: module `helpers` has no place in facts ← fault ← wire ← passes ← registry ← plan ← run ← fuzzing"
            ]
        );
    }
}
