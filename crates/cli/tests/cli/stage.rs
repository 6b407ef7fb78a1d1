//! `farrier stage` and `farrier registry import`.

use crate::home::Home;

const RECORD: &str = r#"{"id": "mine", "agent": "openclaw", "description": "a record of my own",
    "match": {"modelIds": ["moonshotai/kimi-k2.6"], "providerKey": "inference"},
    "effects": {"openclawCompat": {"supportsStore": true},
                "openclawPlugins": [{"id": "mine", "path": "openclaw-plugins/mine",
                                     "loadPath": "/usr/local/share/nemoclaw/openclaw-plugins/mine"}]}}"#;

/// A blueprint with one record and its plugin.
fn home() -> Home {
    let home = Home::new();
    home.write("blueprint/model-specific-setup/openclaw/mine.json", RECORD);
    home.write(
        "blueprint/openclaw-plugins/mine/index.js",
        "export default {}",
    );
    home
}

#[test]
fn plugins_of_a_directory_are_staged_with_the_fragment_that_copies_them() {
    let home = home();
    let ask = [
        "stage",
        "--agent",
        "openclaw",
        "--dir",
        "blueprint/model-specific-setup",
        "--out",
        "image",
    ];
    let said = home.run(&ask);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    assert_eq!(
        said.stdout,
        "3 manifests and 2 plugins staged, see image/Dockerfile.farrier\n"
    );
    let fragment = std::fs::read_to_string(home.path().join("image/Dockerfile.farrier")).unwrap();
    let copies = fragment
        .lines()
        .filter_map(|line| line.strip_prefix("COPY --chown=0:0 "));
    let sources: Vec<String> = copies
        .map(|pair| serde_json::from_str::<[String; 2]>(pair).unwrap()[0].clone())
        .collect();
    assert_eq!(
        sources,
        [
            "openclaw-plugins/mine/",
            "openclaw-plugins/native-replay/",
            "registry/"
        ]
    );
    assert!(
        sources
            .iter()
            .all(|source| home.path().join("image").join(source).is_dir())
    );
    assert!(
        home.path()
            .join("image/registry/openclaw/mine.json")
            .is_file()
    );
    let again = home.run(&ask);
    assert_eq!(again.code, Some(1));
    assert!(
        again
            .stderr
            .contains("hint: remove it, or name another with --out"),
        "{}",
        again.stderr
    );
}

#[test]
fn what_was_staged_is_data_when_asked_for() {
    let home = home();
    let said = home.run(&["stage", "--agent", "hermes", "--out", "image", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(
        (&report["files"], &report["directory"]),
        (&0.into(), &"image".into())
    );
}

#[test]
fn a_harness_that_is_not_known_is_a_usage_error() {
    let said = home().run(&["stage", "--agent", "opneclaw", "--out", "image"]);
    assert_eq!(said.code, Some(2));
    assert!(
        said.stderr.contains("a similar value exists: 'openclaw'"),
        "{}",
        said.stderr
    );
}

#[test]
fn an_import_tells_what_a_record_does_and_contradicts() {
    let said = home().run(&["registry", "import", "blueprint/model-specific-setup"]);
    assert_eq!(said.code, Some(1));
    for part in [
        "mine (openclaw) blueprint/model-specific-setup/openclaw/mine.json\n",
        "  does: compat supportsStore = true\n",
        "  does: plugin mine\n",
        "conflicts with inference compat key 'supportsStore'",
        "  beside: kimi-k2.6-managed-inference-exec-split (openclaw): ",
    ] {
        assert!(said.stdout.contains(part), "{part}\n{}", said.stdout);
    }
    assert!(
        said.stderr.contains("1 record would not do here"),
        "{}",
        said.stderr
    );
}

#[test]
fn an_import_is_data_when_asked_for_and_says_what_cannot_be_read() {
    let home = home();
    let said = home.run(&[
        "registry",
        "import",
        "blueprint/model-specific-setup",
        "--json",
    ]);
    let records: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(records[0]["id"], "mine");
    let said = home.run(&["registry", "import", "nowhere"]);
    assert_eq!(said.code, Some(1));
    assert!(
        said.stderr.contains("cannot read nowhere"),
        "{}",
        said.stderr
    );
}
