//! `cargo xtask arch`: the arrows of the design, checked.
//!
//! Three questions, each answered from what the compiler itself goes by:
//!
//! * [`edges`]: does a crate of ours use another that it may not know? (declared dependencies)
//! * [`edges`]: does `farrier-compat` reach an impure crate, through whatever others? (resolved graph)
//! * [`source`]: does `farrier-compat` touch the outside world or import against its module order? (token scan)

mod edges;
mod source;

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use cargo_metadata::{Metadata, MetadataCommand};

use crate::failure::Failure;
use crate::steps::say;
use crate::workspace::Workspace;

/// The crate that must stay pure.
const PURE_CRATE: &str = "farrier-compat";
/// Where its sources lie, from the workspace root.
const PURE_SOURCES: &str = "crates/compat/src";

/// One breach of the design.
#[derive(Debug)]
pub(crate) enum Finding {
    Edge(edges::Breach),
    Source {
        path: PathBuf,
        line: usize,
        breach: source::Breach,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Edge(breach) => write!(f, "{breach}"),
            Self::Source { path, line, breach } => write!(f, "{}:{line}: {breach}", path.display()),
        }
    }
}

/// Fails with every finding there is.
pub(crate) fn check(workspace: &Workspace) -> Result<(), Failure> {
    let metadata = MetadataCommand::new()
        .current_dir(workspace.root())
        .exec()?;
    let members = edges::members(&metadata);
    let mut findings: Vec<Finding> = edge_breaches(&metadata, &members)
        .map(Finding::Edge)
        .collect();
    let files = rust_files(&workspace.root().join(PURE_SOURCES))?;
    for file in &files {
        findings.extend(source_findings(workspace.root(), file)?);
    }
    if !findings.is_empty() {
        return Err(Failure::Design(findings));
    }
    say(&format!(
        "{} crates and {} sources of {PURE_CRATE} are as designed",
        members.len(),
        files.len()
    ));
    Ok(())
}

fn edge_breaches(
    metadata: &Metadata,
    members: &[edges::Member],
) -> impl Iterator<Item = edges::Breach> {
    let impure = edges::impure_paths(&edges::resolved(metadata), PURE_CRATE);
    edges::undeclared(members).into_iter().chain(impure)
}

fn source_findings(root: &Path, file: &Path) -> Result<Vec<Finding>, Failure> {
    let text = fs::read_to_string(file).map_err(Failure::file(file))?;
    let path = file.strip_prefix(root).unwrap_or(file).to_owned();
    let module = source::module_of(path.strip_prefix(PURE_SOURCES).unwrap_or(&path));
    let breaches = source::breaches(&text, &module).map_err(|error| Failure::NotRust {
        path: path.clone(),
        line: error.span().start().line,
    })?;
    Ok(breaches
        .into_iter()
        .map(|(line, breach)| Finding::Source {
            path: path.clone(),
            line,
            breach,
        })
        .collect())
}

/// The `.rs` files under `directory`, test modules left out: tests may read the corpus from disk.
fn rust_files(directory: &Path) -> Result<Vec<PathBuf>, Failure> {
    let listed = fs::read_dir(directory).map_err(Failure::file(directory))?;
    let entries: Result<Vec<fs::DirEntry>, io::Error> = listed.collect();
    let mut files = Vec::new();
    for path in entries
        .map_err(Failure::file(directory))?
        .iter()
        .map(fs::DirEntry::path)
    {
        if is_of_tests(&path) {
            continue;
        }
        if path.is_dir() {
            files.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// `tests.rs`, `sse_tests.rs`, `tests/`.
fn is_of_tests(path: &Path) -> bool {
    path.file_stem()
        .and_then(OsStr::to_str)
        .is_some_and(|stem| stem == "tests" || stem.ends_with("_tests"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_walk_goes_into_folders_and_leaves_test_modules_out() {
        let tree = tempfile::tempdir().expect("a temporary directory");
        let root = tree.path();
        for directory in ["wire", "wire/tests"] {
            fs::create_dir(root.join(directory)).expect("the directory is writable");
        }
        for file in [
            "lib.rs",
            "notes.md",
            "wire/sse.rs",
            "wire/sse_tests.rs",
            "wire/tests.rs",
            "wire/tests/golden.rs",
        ] {
            fs::write(root.join(file), "").expect("the directory is writable");
        }
        assert_eq!(
            rust_files(root).expect("readable"),
            [root.join("lib.rs"), root.join("wire/sse.rs")]
        );
    }

    #[test]
    fn a_source_finding_says_where_and_what() {
        let tree = tempfile::tempdir().expect("a temporary directory");
        let file = tree.path().join(PURE_SOURCES).join("wire/sse.rs");
        fs::create_dir_all(file.parent().expect("a file lies in a directory")).expect("writable");
        fs::write(&file, "//! Framing.\n\nuse crate::run::drive;\n").expect("writable");
        let findings = source_findings(tree.path(), &file).expect("it is Rust");
        let lines: Vec<String> = findings.iter().map(Finding::to_string).collect();
        assert_eq!(
            lines,
            [
                "crates/compat/src/wire/sse.rs:3: `wire` uses `crate::run`, against facts ← fault ← wire ← passes ← registry ← plan ← run ← fuzzing"
            ]
        );
    }

    #[test]
    fn a_source_that_does_not_lex_is_named_with_its_line() {
        let tree = tempfile::tempdir().expect("a temporary directory");
        let file = tree.path().join("lib.rs");
        fs::write(&file, "fn sound() {}\nfn open() {\n").expect("writable");
        let failure = source_findings(tree.path(), &file).expect_err("a brace is never closed");
        assert!(failure.to_string().starts_with("lib.rs:"), "{failure}");
    }
}
