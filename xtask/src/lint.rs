//! `cargo xtask lint`: format, clippy, documentation, dependencies.

use crate::failure::Failure;
use crate::steps::{Run, Step};
use crate::tools;
use crate::workspace::{self, Workspace};

/// The dependency check leaves out advisories: their database is cloned from its own repository, which a build without
/// open network access cannot do. `cargo deny check advisories` runs them where it can be reached.
pub(crate) const STEPS: &[Step] = &[
    Step {
        name: "format",
        run: Run::Cargo(&["fmt", "--all", "--check"]),
    },
    Step {
        name: "clippy",
        run: Run::Cargo(&[
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "--deny",
            "warnings",
        ]),
    },
    Step {
        name: "documentation",
        run: Run::Here(documentation),
    },
    Step {
        name: "dependency checker",
        run: Run::Here(tools::deny),
    },
    Step {
        name: "dependencies",
        run: Run::Cargo(&["deny", "check", "bans", "licenses", "sources"]),
    },
];

fn documentation(workspace: &Workspace) -> Result<(), Failure> {
    let mut doc = workspace.cargo(["doc", "--workspace", "--no-deps"]);
    workspace::run(doc.env("RUSTDOCFLAGS", "--deny warnings"))
}
