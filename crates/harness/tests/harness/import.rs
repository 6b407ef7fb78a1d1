//! What records of another tree would do here.

use std::fs;
use std::path::{Path, PathBuf};

use farrier_compat::registry::Registry;
use farrier_harness::import::{Record, report};
use tempfile::TempDir;

use crate::support::{KIMI, kimi, manifest};

struct Tree(TempDir);

impl Tree {
    fn new() -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        fs::create_dir_all(tree.0.path().join("openclaw-plugins/kimi-inference-compat")).unwrap();
        tree
    }

    fn dir(&self) -> PathBuf {
        self.0.path().join("model-specific-setup")
    }

    fn with(self, path: &str, text: &str) -> Self {
        let path = self.dir().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    fn report(&self) -> Vec<Record> {
        report(&self.dir(), &Registry::shipped().unwrap()).unwrap()
    }
}

#[test]
fn the_record_for_kimi_loads_unchanged_and_what_is_here_already_is_told() {
    let tree = Tree::new()
        .with("openclaw/kimi.json", &kimi().text)
        .with("schema.json", "{}");
    let [record] = &tree.report()[..] else {
        panic!("one record")
    };
    assert_eq!(record.id.as_deref(), Some("kimi-k2.6-managed-inference"));
    assert_eq!(record.agent.as_deref(), Some("openclaw"));
    assert_eq!(
        (&record.mistakes[..], &record.conflicts[..]),
        (&[][..], &[][..])
    );
    assert_eq!(
        record.effects,
        [
            r#"compat maxTokensField = "max_tokens""#,
            "compat requiresStringContent = true",
            "compat requiresToolResultName = true",
            "compat supportsStore = false",
            "tool search off",
            "plugin nemoclaw-kimi-inference-compat",
        ]
    );
    let split = record
        .beside
        .iter()
        .find(|there| there.starts_with("kimi-k2.6-managed-inference-exec-split"));
    assert!(
        split.unwrap().ends_with("pass split-combined-call"),
        "{:?}",
        record.beside
    );
}

#[test]
fn what_contradicts_what_is_here_is_told_with_the_key() {
    let effects = r#"{"openclawCompat":{"supportsStore":true}}"#;
    let tree = Tree::new().with(
        "openclaw/x.json",
        &manifest("x", "openclaw", KIMI, effects).text,
    );
    let conflicts = &tree.report()[0].conflicts;
    assert_eq!(conflicts.len(), 1, "{conflicts:?}");
    assert!(
        conflicts[0].contains("conflicts with inference compat key 'supportsStore'"),
        "{conflicts:?}"
    );
}

#[test]
fn what_is_wrong_with_a_record_keeps_no_other_from_being_told() {
    let missing = kimi().text.replace("kimi-inference-compat\"", "gone\"");
    let tree = Tree::new()
        .with("hermes/broken.json", "{")
        .with("openclaw/gone.json", &missing)
        .with("openclaw/kimi.json", &kimi().text);
    let records = tree.report();
    let mistakes: Vec<usize> = records.iter().map(|record| record.mistakes.len()).collect();
    assert_eq!(mistakes, [1, 1, 0], "{records:#?}");
    assert!(
        records[0].mistakes[0].starts_with("not JSON: "),
        "{records:#?}"
    );
    assert!(
        records[1].mistakes[0].contains("does not exist: openclaw-plugins/gone"),
        "{records:#?}"
    );
}

#[test]
fn two_records_that_cannot_be_together_are_told_of_the_later() {
    let tree = Tree::new()
        .with("openclaw/a.json", &kimi().text)
        .with("openclaw/b.json", &kimi().text);
    let records = tree.report();
    assert_eq!(records[0].conflicts, [] as [&str; 0]);
    assert!(
        records[1]
            .conflicts
            .iter()
            .any(|conflict| conflict.contains("is taken by")),
        "{records:#?}"
    );
}

#[test]
fn a_link_is_not_followed_and_a_tree_that_is_not_there_is_told() {
    let tree = Tree::new().with("openclaw/kimi.json", &kimi().text);
    std::os::unix::fs::symlink("/etc", tree.dir().join("etc")).unwrap();
    assert_eq!(tree.report().len(), 1);
    let error = report(Path::new("/nowhere/at/all"), &Registry::shipped().unwrap()).unwrap_err();
    assert_eq!(error.to_string(), "cannot read /nowhere/at/all");
}
