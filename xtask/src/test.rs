//! `cargo xtask test`: everything that must pass, in one command, on a fresh machine.
//!
//! To add a step, add a row to [`STEPS`].

use std::slice;

use crate::steps::{Run, Step};
use crate::{arch, bench, clients, plugins, servers, tools};

/// How much of the suite to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// What needs no installation beyond the test runner: the loop while writing code.
    Fast,
    /// The suite that guards every change.
    Usual,
    /// The usual, and the tests marked `#[ignore]` because they are long.
    Slow,
}

/// A step, and the scopes it belongs to.
#[derive(Debug)]
struct Row {
    scopes: &'static [Scope],
    step: Step,
}

const ALWAYS: &[Scope] = &[Scope::Fast, Scope::Usual, Scope::Slow];
const NOT_FAST: &[Scope] = &[Scope::Usual, Scope::Slow];

/// No row but the last builds alone: the test runner builds the binary together with the tests, and a build with another
/// selection of packages would compile shared dependencies a second time with other features. Instructions are counted
/// in release builds, those that `cargo xtask bench` measures.
const STEPS: &[Row] = &[
    row(ALWAYS, "architecture", Run::Here(arch::check)),
    row(ALWAYS, "store to share", Run::Here(servers::store)),
    row(ALWAYS, "test runner", Run::Here(tools::nextest)),
    row(NOT_FAST, "real clients", Run::Here(clients::install)),
    row(NOT_FAST, "plugins", Run::Here(plugins::check)),
    row(
        &[Scope::Fast],
        "tests",
        Run::Cargo(&["nextest", "run", "--workspace"]),
    ),
    row(
        &[Scope::Usual],
        "tests",
        Run::Cargo(&["nextest", "run", "--workspace", "--profile", "full"]),
    ),
    row(
        &[Scope::Slow],
        "tests",
        Run::Cargo(&[
            "nextest",
            "run",
            "--workspace",
            "--profile",
            "full",
            "--run-ignored",
            "all",
        ]),
    ),
    row(
        NOT_FAST,
        "doctests",
        Run::Cargo(&["test", "--doc", "--workspace"]),
    ),
    row(NOT_FAST, "instruction counts", Run::Here(bench::guard)),
];

/// The steps of `scope`, in their order.
pub(crate) fn steps(scope: Scope) -> impl Iterator<Item = &'static Step> {
    let rows: slice::Iter<'static, Row> = STEPS.iter();
    rows.filter(move |row| row.scopes.contains(&scope))
        .map(|row| &row.step)
}

const fn row(scopes: &'static [Scope], name: &'static str, run: Run) -> Row {
    Row {
        scopes,
        step: Step { name, run },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(scope: Scope) -> Vec<&'static str> {
        steps(scope).map(|step| step.name).collect()
    }

    #[test]
    fn the_usual_scope_runs_each_step_once() {
        assert_eq!(
            names(Scope::Usual),
            [
                "architecture",
                "store to share",
                "test runner",
                "real clients",
                "plugins",
                "tests",
                "doctests",
                "instruction counts"
            ]
        );
        assert_eq!(names(Scope::Slow), names(Scope::Usual));
    }

    #[test]
    fn the_fast_scope_installs_no_clients() {
        assert_eq!(
            names(Scope::Fast),
            ["architecture", "store to share", "test runner", "tests"]
        );
    }
}
