//! Which crate may use which.
//!
//! [`ARROWS`] is the design's table. A member of the workspace without a row is a breach too: a new crate states its
//! place before it is used. Only what ends up in a build counts; development dependencies are free, so that a test may
//! stand up whatever it needs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use cargo_metadata::{DependencyKind, Metadata};

/// What a crate may use of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum May {
    UseAll,
    Use(&'static [&'static str]),
}

/// Rows for crates that are not here yet are part of the design and do no harm.
const ARROWS: &[(&str, May)] = &[
    ("farrier", May::UseAll),
    ("farrier-compat", May::Use(&[])),
    (
        "farrier-control",
        May::Use(&[
            "farrier-compat",
            "farrier-harness",
            "farrier-sandbox",
            "farrier-secrets",
        ]),
    ),
    ("farrier-dashboard", May::Use(&["farrier-serve"])),
    (
        "farrier-egress",
        May::Use(&["farrier-secrets", "farrier-serve"]),
    ),
    (
        "farrier-gateway",
        May::Use(&[
            "farrier-compat",
            "farrier-ledger",
            "farrier-secrets",
            "farrier-serve",
        ]),
    ),
    ("farrier-harness", May::Use(&["farrier-compat"])),
    ("farrier-ledger", May::Use(&[])),
    (
        "farrier-operator",
        May::Use(&["farrier-compat", "farrier-harness"]),
    ),
    ("farrier-pairing", May::Use(&[])),
    ("farrier-sandbox", May::Use(&[])),
    ("farrier-secrets", May::Use(&[])),
    ("farrier-serve", May::Use(&[])),
    ("farrier-sim", May::Use(&["farrier-serve"])),
    (TESTKIT, May::UseAll),
    // The bench drives persona and gateway; the schema of manifests comes from the engine.
    ("farrier-bench", May::UseAll),
    ("xtask", May::Use(&["farrier-compat"])),
];

/// For tests alone: nothing that ships may use it.
const TESTKIT: &str = "farrier-testkit";

/// Crates that bring a runtime, a socket, a file or a system call.
const IMPURE: &[&str] = &[
    "hyper", "mio", "nix", "rusqlite", "rustix", "socket2", "tokio",
];

/// A crate of the workspace and which others of the workspace it uses outside of tests.
#[derive(Debug)]
pub(super) struct Member {
    name: String,
    uses: Vec<String>,
}

/// For each crate by name, the crates it is built with.
pub(super) type Graph = BTreeMap<String, BTreeSet<String>>;

/// An edge that the design does not have.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Breach {
    /// The pure crate is built with an impure one; the path leads from the first to the second.
    Impure { path: Vec<String> },
    /// The crate has no row in [`ARROWS`].
    NoRow { name: String },
    /// The crate for tests is used by something that ships.
    Testkit { from: String },
    /// The row of `from` does not name `to`.
    Undeclared {
        from: String,
        to: String,
        allowed: &'static [&'static str],
    },
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Impure { path } => write!(
                f,
                "a pure crate is built with an impure one: {}",
                path.join(" → ")
            ),
            Self::NoRow { name } => write!(
                f,
                "{name} has no row in the table of arrows (xtask/src/arch/edges.rs)"
            ),
            Self::Testkit { from } => {
                write!(
                    f,
                    "{from} → {TESTKIT}: expected a dev-dependency, got one that is built in"
                )
            }
            Self::Undeclared {
                from,
                to,
                allowed: [],
            } => {
                write!(
                    f,
                    "{from} → {to}: {from} may use no other crate of the workspace"
                )
            }
            Self::Undeclared { from, to, allowed } => {
                write!(
                    f,
                    "{from} → {to}: {from} may use only {}",
                    allowed.join(", ")
                )
            }
        }
    }
}

/// The workspace as declared in its manifests.
pub(super) fn members(metadata: &Metadata) -> Vec<Member> {
    let packages = metadata.workspace_packages();
    let names: BTreeSet<&str> = packages
        .iter()
        .map(|package| package.name.as_str())
        .collect();
    let members = packages.iter().map(|package| {
        let built_in = package
            .dependencies
            .iter()
            .filter(|dependency| dependency.kind != DependencyKind::Development);
        let ours = built_in
            .map(|dependency| dependency.name.as_str())
            .filter(|name| names.contains(name));
        Member {
            name: package.name.to_string(),
            uses: ours.map(str::to_owned).collect(),
        }
    });
    members.collect()
}

/// Every edge and every crate that the table does not have.
pub(super) fn undeclared(members: &[Member]) -> Vec<Breach> {
    members.iter().flat_map(breaches_of).collect()
}

/// The resolved graph over normal dependencies. Versions of one crate are taken together.
pub(super) fn resolved(metadata: &Metadata) -> Graph {
    let names: BTreeMap<_, _> = metadata
        .packages
        .iter()
        .map(|package| (&package.id, package.name.as_str()))
        .collect();
    let mut graph = Graph::new();
    for node in metadata.resolve.iter().flat_map(|resolve| &resolve.nodes) {
        let normal = node.deps.iter().filter(|dependency| {
            dependency
                .dep_kinds
                .iter()
                .any(|info| info.kind == DependencyKind::Normal)
        });
        let used = normal
            .filter_map(|dependency| names.get(&dependency.pkg))
            .map(|name| (*name).to_owned());
        if let Some(name) = names.get(&node.id) {
            graph.entry((*name).to_owned()).or_default().extend(used);
        }
    }
    graph
}

/// For each impure crate that `root` reaches, a shortest path to it.
pub(super) fn impure_paths(graph: &Graph, root: &str) -> Vec<Breach> {
    let mut breaches = Vec::new();
    let mut seen = BTreeSet::from([root]);
    let mut queue = VecDeque::from([vec![root]]);
    while let Some(path) = queue.pop_front() {
        let used = path.last().and_then(|name| graph.get(*name));
        for next in used
            .into_iter()
            .flatten()
            .map(String::as_str)
            .filter(|next| seen.insert(next))
        {
            let longer: Vec<&str> = path.iter().copied().chain([next]).collect();
            if IMPURE.contains(&next) {
                breaches.push(Breach::Impure {
                    path: longer.into_iter().map(str::to_owned).collect(),
                });
            } else {
                queue.push_back(longer);
            }
        }
    }
    breaches
}

fn breaches_of(member: &Member) -> Vec<Breach> {
    let Some((_, may)) = ARROWS.iter().find(|(name, _)| *name == member.name) else {
        return vec![Breach::NoRow {
            name: member.name.clone(),
        }];
    };
    member
        .uses
        .iter()
        .filter_map(|to| breach(&member.name, to, *may))
        .collect()
}

fn breach(from: &str, to: &str, may: May) -> Option<Breach> {
    match may {
        _ if to == TESTKIT => Some(Breach::Testkit {
            from: from.to_owned(),
        }),
        May::Use(allowed) if !allowed.contains(&to) => Some(Breach::Undeclared {
            from: from.to_owned(),
            to: to.to_owned(),
            allowed,
        }),
        May::Use(_) | May::UseAll => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, uses: &[&str]) -> Member {
        Member {
            name: name.to_owned(),
            uses: owned(uses),
        }
    }

    fn owned(names: &[&str]) -> Vec<String> {
        names.iter().copied().map(str::to_owned).collect()
    }

    fn graph(edges: &[(&str, &[&str])]) -> Graph {
        edges
            .iter()
            .map(|(from, to)| {
                (
                    (*from).to_owned(),
                    to.iter().copied().map(str::to_owned).collect(),
                )
            })
            .collect()
    }

    #[test]
    fn the_edges_of_the_design_are_no_breach() {
        let members = [
            member(
                "farrier",
                &["farrier-gateway", "farrier-sim", "farrier-ledger"],
            ),
            member("farrier-compat", &[]),
            member(
                "farrier-gateway",
                &[
                    "farrier-compat",
                    "farrier-ledger",
                    "farrier-secrets",
                    "farrier-serve",
                ],
            ),
            member("farrier-testkit", &["farrier-compat", "farrier-gateway"]),
        ];
        assert_eq!(undeclared(&members), []);
    }

    #[test]
    fn an_edge_between_siblings_is_a_breach_that_names_what_is_allowed() {
        let breaches = undeclared(&[member(
            "farrier-egress",
            &["farrier-serve", "farrier-compat"],
        )]);
        let allowed = "farrier-egress → farrier-compat: farrier-egress may use only farrier-secrets, farrier-serve";
        assert_eq!(
            breaches.iter().map(Breach::to_string).collect::<Vec<_>>(),
            [allowed]
        );
    }

    #[test]
    fn an_edge_from_a_crate_that_stands_alone_is_a_breach() {
        let breaches = undeclared(&[member("farrier-ledger", &["farrier-compat"])]);
        let alone = "farrier-ledger → farrier-compat: farrier-ledger may use no other crate of the workspace";
        assert_eq!(
            breaches.iter().map(Breach::to_string).collect::<Vec<_>>(),
            [alone]
        );
    }

    #[test]
    fn the_testkit_is_never_built_in_not_even_into_the_binary() {
        for from in ["farrier", "farrier-gateway"] {
            assert_eq!(
                undeclared(&[member(from, &[TESTKIT])]),
                [Breach::Testkit {
                    from: from.to_owned()
                }]
            );
        }
    }

    #[test]
    fn a_crate_without_a_row_is_a_breach() {
        let breaches = undeclared(&[member("farrier-common", &["farrier-compat"])]);
        assert_eq!(
            breaches,
            [Breach::NoRow {
                name: "farrier-common".to_owned()
            }]
        );
    }

    #[test]
    fn an_impure_crate_is_found_through_others_and_reported_once_by_its_shortest_path() {
        let graph = graph(&[
            ("farrier-compat", &["bytes", "warm", "client"]),
            ("warm", &["client"]),
            ("client", &["tokio", "warm"]),
            ("tokio", &["mio", "socket2"]),
        ]);
        let breaches = impure_paths(&graph, "farrier-compat");
        assert_eq!(
            breaches,
            [Breach::Impure {
                path: owned(&["farrier-compat", "client", "tokio"])
            }]
        );
    }

    #[test]
    fn an_impure_crate_that_only_others_use_is_no_breach() {
        let graph = graph(&[
            ("farrier-compat", &["memchr"]),
            ("farrier-gateway", &["farrier-compat", "tokio"]),
        ]);
        assert_eq!(impure_paths(&graph, "farrier-compat"), []);
    }

    #[test]
    fn every_arrow_leads_to_a_crate_that_has_a_row() {
        let rows: BTreeSet<&str> = ARROWS.iter().map(|(name, _)| *name).collect();
        assert_eq!(rows.len(), ARROWS.len(), "a crate has two rows");
        for (name, may) in ARROWS {
            if let May::Use(allowed) = may {
                assert!(
                    allowed.iter().all(|to| rows.contains(to)),
                    "{name} may use a crate without a row"
                );
            }
        }
    }
}
