//! What is staged for images.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use farrier_compat::registry::{Registry, Source, shipped_sources};
use farrier_harness::stage::{FRAGMENT, Sources, StageError, Staged, stage};
use tempfile::TempDir;

use crate::support::{kimi, manifest, registry};

/// A directory above a registry, with the plugin that the Kimi record names.
struct Tree {
    place: TempDir,
    texts: Vec<Source>,
    registry: Registry,
}

const PLUGIN: &str = "openclaw-plugins/kimi-inference-compat";

impl Tree {
    fn new() -> Self {
        let tree = Self {
            place: tempfile::tempdir().unwrap(),
            texts: vec![kimi()],
            registry: registry(&[kimi()]),
        };
        tree.write(&format!("{PLUGIN}/openclaw.plugin.json"), "{}", 0o600);
        tree.write(&format!("{PLUGIN}/index.js"), "export default {}", 0o600);
        tree.write(&format!("{PLUGIN}/lib/deep/rule.js"), "1", 0o600);
        tree
    }

    fn root(&self) -> PathBuf {
        self.place.path().join("blueprint")
    }

    fn out(&self) -> PathBuf {
        self.place.path().join("out")
    }

    fn write(&self, path: &str, text: &str, mode: u32) {
        let path = self.root().join(path);
        let above = path.parent().unwrap();
        fs::create_dir_all(above).unwrap();
        fs::set_permissions(above, fs::Permissions::from_mode(0o700)).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn stage(&self) -> Result<Staged, StageError> {
        let roots = [self.root()];
        let sources = Sources {
            agent: "openclaw",
            registry: &self.registry,
            texts: &self.texts,
            roots: &roots,
        };
        stage(&sources, &self.out())
    }

    /// What was staged, with modes.
    fn staged(&self) -> Vec<String> {
        self.stage().unwrap();
        listed(&self.out())
    }

    /// Why nothing was, and that nothing was.
    fn refused(&self) -> String {
        let refused = self.stage().unwrap_err().to_string();
        let left: Vec<_> = fs::read_dir(self.place.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "something is left behind: {left:?}");
        refused
    }
}

/// Every path below a directory with its mode, sorted.
fn listed(dir: &Path) -> Vec<String> {
    let mut below = vec![dir.to_owned()];
    let mut found = Vec::new();
    while let Some(at) = below.pop() {
        for entry in fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            let mode = fs::symlink_metadata(&path).unwrap().permissions().mode() & 0o7777;
            found.push(format!(
                "{mode:o} {}",
                path.strip_prefix(dir).unwrap().display()
            ));
            if path.is_dir() {
                below.push(path);
            }
        }
    }
    found.sort_by(|a, b| a[4..].cmp(&b[4..]));
    found
}

#[test]
fn ctx_01_ctx_03_reg_20_plugin_and_record_are_there_with_modes_that_do_not_depend_on_the_source() {
    let tree = Tree::new();
    assert_eq!(
        tree.staged(),
        [
            "644 Dockerfile.farrier",
            "755 openclaw-plugins",
            "755 openclaw-plugins/kimi-inference-compat",
            "644 openclaw-plugins/kimi-inference-compat/index.js",
            "755 openclaw-plugins/kimi-inference-compat/lib",
            "755 openclaw-plugins/kimi-inference-compat/lib/deep",
            "644 openclaw-plugins/kimi-inference-compat/lib/deep/rule.js",
            "644 openclaw-plugins/kimi-inference-compat/openclaw.plugin.json",
            "755 registry",
            "755 registry/openclaw",
            "644 registry/openclaw/kimi-k2.6-managed-inference.json",
        ]
    );
    let record = tree
        .out()
        .join("registry/openclaw/kimi-k2.6-managed-inference.json");
    assert_eq!(fs::read_to_string(record).unwrap(), kimi().text);
    let mode = fs::metadata(tree.out()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o755);
}

#[test]
fn ctx_02_every_source_that_the_fragment_copies_is_there() {
    let tree = Tree::new();
    tree.stage().unwrap();
    let fragment = fs::read_to_string(tree.out().join(FRAGMENT)).unwrap();
    assert_eq!(
        fragment,
        "# What the manifests for openclaw need. Written by farrier stage.\n\
         COPY --chown=0:0 [\"openclaw-plugins/kimi-inference-compat/\",\"/usr/local/share/nemoclaw/openclaw-plugins/kimi-inference-compat/\"]\n\
         COPY --chown=0:0 [\"registry/\",\"/usr/local/share/farrier/registry/\"]\n"
    );
    let copies = fragment
        .lines()
        .filter_map(|line| line.strip_prefix("COPY --chown=0:0 "));
    for pair in copies {
        let pair: [String; 2] = serde_json::from_str(pair).unwrap();
        assert!(tree.out().join(&pair[0]).is_dir(), "{}", pair[0]);
    }
}

#[test]
fn ctx_01_ctx_02_a_plugin_that_is_part_of_the_program_is_staged_without_a_directory_of_ours() {
    let place = tempfile::tempdir().unwrap();
    let registry = Registry::shipped().unwrap();
    let sources = Sources {
        agent: "openclaw",
        registry: &registry,
        texts: &shipped_sources(),
        roots: &[],
    };
    let out = place.path().join("out");
    let staged = stage(&sources, &out).unwrap();
    assert_eq!(staged.plugins, ["farrier-native-replay"]);
    let plugin = "openclaw-plugins/native-replay";
    let mut found = listed(&out);
    found.retain(|line| line.contains(plugin));
    assert_eq!(
        found,
        [
            "755 openclaw-plugins/native-replay",
            "644 openclaw-plugins/native-replay/index.js",
            "644 openclaw-plugins/native-replay/openclaw.plugin.json",
            "644 openclaw-plugins/native-replay/package.json",
        ]
    );
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for name in ["index.js", "openclaw.plugin.json", "package.json"] {
        let file = Path::new(plugin).join(name);
        assert_eq!(
            fs::read(out.join(&file)).unwrap(),
            fs::read(source.join(&file)).unwrap()
        );
    }
    let fragment = fs::read_to_string(out.join(FRAGMENT)).unwrap();
    let copy = r#"["openclaw-plugins/native-replay/","/usr/local/share/farrier/openclaw-plugins/native-replay/"]"#;
    assert!(fragment.contains(copy), "{fragment}");
    assert!(
        fragment.contains(
            "# Load the plugins with: farrier config openclaw --plugins /usr/local/share/farrier\n"
        ),
        "{fragment}"
    );
}

#[test]
fn ctx_04_a_script_of_a_plugin_is_read_and_not_run() {
    let tree = Tree::new();
    tree.write(&format!("{PLUGIN}/build.sh"), "#!/bin/sh\n", 0o700);
    let staged = tree.staged();
    assert!(
        staged.contains(&"644 openclaw-plugins/kimi-inference-compat/build.sh".to_owned()),
        "{staged:#?}"
    );
}

#[test]
fn ctx_05_a_link_is_refused_and_what_it_leads_to_is_as_it_was() {
    let tree = Tree::new();
    let target = tree.place.path().join("blueprint/shadow");
    fs::write(&target, "secret").unwrap();
    fs::set_permissions(&target, fs::Permissions::from_mode(0o600)).unwrap();
    symlink(&target, tree.root().join(PLUGIN).join("link.js")).unwrap();
    let refused = tree.refused();
    assert!(
        refused.starts_with("expected files and directories, got a link at "),
        "{refused}"
    );
    assert_eq!(
        fs::metadata(&target).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert_eq!(fs::read_to_string(&target).unwrap(), "secret");
}

#[test]
fn a_link_on_the_way_to_a_plugin_is_refused() {
    for link in ["openclaw-plugins", PLUGIN] {
        let tree = Tree::new();
        let real = tree.root().join("elsewhere");
        fs::rename(tree.root().join(link), &real).unwrap();
        symlink(&real, tree.root().join(link)).unwrap();
        let refused = tree.refused();
        assert!(
            refused.contains("got a link, or no directory at"),
            "{refused}"
        );
    }
}

#[test]
fn a_pipe_is_refused_and_not_waited_for() {
    let tree = Tree::new();
    let pipe = tree.root().join(PLUGIN).join("pipe");
    let made = std::process::Command::new("mkfifo")
        .arg(&pipe)
        .status()
        .unwrap();
    assert!(made.success());
    assert!(tree.refused().contains("got something else at"));
}

#[test]
fn ctx_06_secrets_histories_and_caches_are_left_out() {
    let tree = Tree::new();
    let before = tree.staged();
    fs::remove_dir_all(tree.out()).unwrap();
    for left_out in [".env", ".env.local", ".npmrc", "._index.js", ".DS_Store"] {
        tree.write(&format!("{PLUGIN}/{left_out}"), "KEY=secret", 0o600);
        tree.write(&format!("{PLUGIN}/lib/{left_out}"), "KEY=secret", 0o600);
    }
    for left_out in [
        ".git/config",
        ".venv/x",
        "node_modules/x/index.js",
        "__pycache__/x",
        ".cache/x",
    ] {
        tree.write(&format!("{PLUGIN}/lib/{left_out}"), "x", 0o600);
    }
    assert_eq!(tree.staged(), before);
}

#[test]
fn ctx_07_what_fails_leaves_nothing_behind() {
    let tree = Tree::new();
    fs::remove_dir_all(tree.root().join(PLUGIN)).unwrap();
    let refused = tree.refused();
    assert!(
        refused.starts_with("expected the plugin of manifest 'kimi-k2.6-managed-inference' at openclaw-plugins/kimi-inference-compat below one of "),
        "{refused}"
    );
}

#[test]
fn ctx_08_a_new_plugin_is_a_manifest_and_a_directory() {
    let mut tree = Tree::new();
    let another = manifest(
        "another",
        "openclaw",
        "another",
        r#"{"openclawPlugins":[{"id":"another","path":"openclaw-plugins/another","loadPath":"/usr/local/share/nemoclaw/openclaw-plugins/another"}]}"#,
    );
    tree.texts.push(another);
    tree.registry = registry(&tree.texts);
    tree.write("openclaw-plugins/another/index.js", "1", 0o600);
    tree.write("openclaw-plugins/unnamed/index.js", "1", 0o600);
    let staged = tree.stage().unwrap();
    assert_eq!(
        staged.plugins,
        ["another", "nemoclaw-kimi-inference-compat"]
    );
    assert!(
        tree.out()
            .join("openclaw-plugins/another/index.js")
            .is_file()
    );
    assert!(
        !tree.out().join("openclaw-plugins/unnamed").exists(),
        "no manifest names it"
    );
}

#[test]
fn ctx_09_a_large_plugin_is_staged_with_a_word() {
    let tree = Tree::new();
    let large = fs::File::create(tree.root().join(PLUGIN).join("model.bin")).unwrap();
    large.set_len(150 * 1024 * 1024).unwrap();
    let staged = tree.stage().unwrap();
    assert_eq!(
        staged.notes,
        ["the plugins are 150 MiB, which every build copies"]
    );
}

#[test]
fn ctx_10_what_everyone_can_write_is_told_and_staged_for_its_owner_to_write() {
    let tree = Tree::new();
    tree.write(&format!("{PLUGIN}/open.js"), "1", 0o666);
    let staged = tree.stage().unwrap();
    assert_eq!(staged.notes.len(), 1);
    assert!(
        staged.notes[0].contains("open.js can be written by everyone"),
        "{:?}",
        staged.notes
    );
    assert!(
        listed(&tree.out())
            .contains(&"644 openclaw-plugins/kimi-inference-compat/open.js".to_owned())
    );
}

#[test]
fn a_place_with_something_in_it_is_left_alone() {
    let tree = Tree::new();
    fs::create_dir(tree.out()).unwrap();
    assert!(
        tree.stage().is_ok(),
        "an empty directory is in nobody's way"
    );
    let before = listed(&tree.out());
    let refused = tree.stage().unwrap_err();
    assert!(matches!(refused, StageError::Occupied { .. }));
    assert_eq!(listed(&tree.out()), before);
}

#[test]
fn an_agent_without_plugins_gets_a_fragment_that_copies_nothing() {
    let tree = Tree::new();
    let sources = Sources {
        agent: "hermes",
        registry: &tree.registry,
        texts: &tree.texts,
        roots: &[],
    };
    let staged = stage(&sources, &tree.out()).unwrap();
    assert_eq!((staged.files, staged.plugins.len()), (0, 0));
    assert_eq!(listed(&tree.out()), ["644 Dockerfile.farrier"]);
}
