//! Configurations on disk.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use farrier_harness::{Document, Edited, HASH_FILE, Plan, Refusal};
use tempfile::TempDir;

use crate::support::{Ask, KIMI, at, kimi, registry, route};

fn plan(ask: &Ask, dir: &Path) -> Result<Plan, Refusal> {
    ask.good().plan(dir, Edited::Refuse)
}

fn write(ask: &Ask, dir: &Path) {
    plan(ask, dir).unwrap().apply().unwrap();
}

fn place() -> (TempDir, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join(".openclaw");
    (home, dir)
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

fn document(path: &Path) -> Document {
    Document::from_json(&fs::read_to_string(path).unwrap()).unwrap()
}

/// What is in a directory, byte for byte.
fn snapshot(dir: &Path) -> Vec<(PathBuf, Vec<u8>, u32)> {
    let entries = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries
        .map(|path| {
            (
                path.clone(),
                fs::read(&path).unwrap_or_default(),
                mode(&path),
            )
        })
        .collect();
    files.sort();
    files
}

/// What `sha256sum -c` says of the digests.
fn digests_hold(dir: &Path) -> bool {
    let checked = std::process::Command::new("sha256sum")
        .args(["--check", "--strict", "--quiet", HASH_FILE])
        .current_dir(dir)
        .output()
        .unwrap();
    checked.status.success()
}

#[test]
fn cfg_14_files_are_their_owners_alone_and_their_digests_verify() {
    let (_home, dir) = place();
    write(&Ask::openclaw(), &dir);
    assert_eq!(mode(&dir), 0o700);
    for name in ["openclaw.json", HASH_FILE, ".farrier-applied.json"] {
        assert_eq!(mode(&dir.join(name)), 0o600, "{name}");
    }
    assert!(digests_hold(&dir));
    fs::write(dir.join("openclaw.json"), "{}").unwrap();
    assert!(!digests_hold(&dir));
}

#[test]
fn the_mode_and_group_of_a_file_that_is_there_stay_less_what_others_have() {
    let (_home, dir) = place();
    write(&Ask::openclaw(), &dir);
    for (before, after) in [
        (0o660, 0o660),
        (0o640, 0o640),
        (0o666, 0o660),
        (0o600, 0o600),
    ] {
        let path = dir.join("openclaw.json");
        fs::set_permissions(&path, fs::Permissions::from_mode(before)).unwrap();
        let model = format!("model-{before:o}");
        write(&Ask::openclaw().route(route(&model)), &dir);
        assert_eq!(mode(&path), after);
        assert!(digests_hold(&dir));
    }
}

#[test]
fn cfg_15_an_edited_file_is_refused_and_nothing_is_written() {
    let (_home, dir) = place();
    write(&Ask::openclaw(), &dir);
    let path = dir.join("openclaw.json");
    let edited = fs::read_to_string(&path).unwrap().replace("18789", "19000");
    fs::write(&path, edited).unwrap();
    let before = snapshot(&dir);
    let refusal = plan(&Ask::openclaw(), &dir).unwrap_err();
    let Refusal::Edited {
        path: named,
        expected,
        got,
    } = &refusal
    else {
        panic!("{refusal}");
    };
    assert_eq!((named, expected.len(), got.len()), (&path, 64, 64));
    assert!(
        refusal
            .to_string()
            .contains("was edited since it was written")
    );
    assert_eq!(snapshot(&dir), before);
    // Whoever looked at the edit may go on from it.
    Ask::openclaw()
        .good()
        .plan(&dir, Edited::Accept)
        .unwrap()
        .apply()
        .unwrap();
    assert!(digests_hold(&dir));
}

#[test]
fn cfg_15_a_link_in_place_of_the_file_or_its_digests_is_refused() {
    for name in ["openclaw.json", HASH_FILE, ".farrier-applied.json"] {
        let (home, dir) = place();
        write(&Ask::openclaw(), &dir);
        let elsewhere = home.path().join("elsewhere");
        fs::rename(dir.join(name), &elsewhere).unwrap();
        symlink(&elsewhere, dir.join(name)).unwrap();
        let (before, kept) = (snapshot(&dir), fs::read(&elsewhere).unwrap());
        let refusal = plan(&Ask::openclaw(), &dir).unwrap_err().to_string();
        assert!(
            refusal.ends_with(&format!("{name}, got a link")),
            "{refusal}"
        );
        assert_eq!(
            (snapshot(&dir), fs::read(&elsewhere).unwrap()),
            (before, kept)
        );
    }
}

#[test]
fn a_link_or_file_in_place_of_the_directory_is_refused() {
    let (home, dir) = place();
    let elsewhere = home.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    symlink(&elsewhere, &dir).unwrap();
    let refusal = plan(&Ask::openclaw(), &dir).unwrap_err().to_string();
    assert!(refusal.contains("got a link, or no directory"), "{refusal}");
    fs::remove_file(&dir).unwrap();
    fs::write(&dir, "").unwrap();
    assert!(matches!(
        plan(&Ask::openclaw(), &dir),
        Err(Refusal::NotAFile { .. })
    ));
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
}

#[test]
fn a_directory_or_pipe_in_place_of_the_file_is_refused() {
    let (_home, dir) = place();
    fs::create_dir_all(dir.join("openclaw.json")).unwrap();
    let refusal = plan(&Ask::openclaw(), &dir).unwrap_err().to_string();
    assert!(refusal.ends_with("got a directory"), "{refusal}");
}

#[test]
fn cfg_12_what_others_put_in_stays() {
    let (_home, dir) = place();
    fs::create_dir(&dir).unwrap();
    let path = dir.join("openclaw.json");
    let there = r#"{"meta":{"lastTouchedVersion":"2026.4.21"},
        "plugins":{"installs":{"x":{"source":"npm"}},"load":{"paths":["/mine"]},"allow":["x"]},
        "gateway":{"auth":{"token":"kept-as-it-is"},"port":1},
        "models":{"providers":{"mine":{"baseUrl":"http://127.0.0.1:1/v1","models":[]}}}}"#;
    fs::write(&path, there).unwrap();
    let ask = Ask::openclaw()
        .version("2026.4.21")
        .route(route(KIMI))
        .registry(registry(&[kimi()]));
    write(&ask, &dir);
    let now = document(&path);
    assert_eq!(at(&now, "plugins/installs"), r#"{"x":{"source":"npm"}}"#);
    assert_eq!(at(&now, "plugins/allow"), r#"["x"]"#);
    assert_eq!(
        at(&now, "plugins/load/paths"),
        r#"["/usr/local/share/nemoclaw/openclaw-plugins/kimi-inference-compat","/mine"]"#
    );
    assert_eq!(at(&now, "gateway/auth/token"), r#""kept-as-it-is""#);
    assert_eq!(at(&now, "gateway/port"), "18789");
    assert!(at(&now, "models/providers/mine").contains("127.0.0.1:1"));
    assert_eq!(
        now.fields()[0].0,
        "meta",
        "the order of what was there stays"
    );
}

#[test]
fn a_key_that_the_version_refuses_is_kept_and_told() {
    let (_home, dir) = place();
    fs::create_dir(&dir).unwrap();
    fs::write(
        dir.join("openclaw.json"),
        r#"{"plugins":{"installs":{"x":{}}}}"#,
    )
    .unwrap();
    let plan = plan(&Ask::openclaw().version("2026.9.6"), &dir).unwrap();
    let notes = plan.notes.join("\n");
    assert!(
        notes.contains("keeps plugins.installs, which was there"),
        "{notes}"
    );
}

#[test]
fn cfg_24_a_switch_changes_what_the_registry_says_and_nothing_else() {
    let (_home, dir) = place();
    let path = dir.join("openclaw.json");
    let plain = Ask::openclaw().registry(registry(&[kimi()]));
    let kimi = plain.clone().route(route(KIMI));
    write(&plain, &dir);
    let first = fs::read_to_string(&path).unwrap();
    let plan = plan(&kimi, &dir).unwrap();
    let changed = changed_lines(&plan);
    plan.apply().unwrap();
    drop(plan);
    assert_eq!(
        changed,
        [
            r#"-        "primary": "inference/nvidia/nemotron-3-super-120b-a12b""#,
            r#"-            "id": "nvidia/nemotron-3-super-120b-a12b","#,
            r#"-            "name": "inference/nvidia/nemotron-3-super-120b-a12b","#,
            r#"-    "toolSearch": {"#,
            r#"-      "mode": "tools","#,
            r#"-      "searchDefaultLimit": 8,"#,
            r#"-      "maxSearchLimit": 20"#,
            r#"+        "primary": "inference/moonshotai/kimi-k2.6""#,
            r#"+            "compat": {"#,
            r#"+              "maxTokensField": "max_tokens","#,
            r#"+              "requiresStringContent": true,"#,
            r#"+              "requiresToolResultName": true,"#,
            r#"+              "supportsStore": false"#,
            r#"+            "id": "moonshotai/kimi-k2.6","#,
            r#"+            "name": "inference/moonshotai/kimi-k2.6","#,
            r#"+    "toolSearch": false,"#,
            r#"+      "nemoclaw-kimi-inference-compat": {"#,
            r#"+        "enabled": true"#,
            r#"+    "load": {"#,
            r#"+      "paths": ["#,
            r#"+        "/usr/local/share/nemoclaw/openclaw-plugins/kimi-inference-compat""#,
        ]
    );
    write(&plain, &dir);
    assert_eq!(
        fs::read_to_string(&path).unwrap(),
        first,
        "there and back is where it was"
    );
    assert!(digests_hold(&dir));
}

#[test]
fn cfg_24_another_provider_leaves_no_stale_one_behind() {
    let (_home, dir) = place();
    let mut openai = route("gpt-5");
    openai.client.provider_key = "openai".to_owned();
    write(&Ask::openclaw(), &dir);
    write(&Ask::openclaw().route(openai), &dir);
    let providers = document(&dir.join("openclaw.json"));
    let providers = providers.get(&["models", "providers"]).unwrap();
    let keys: Vec<&str> = providers
        .fields()
        .iter()
        .map(|(key, _)| key.as_str())
        .collect();
    assert_eq!(keys, ["openai"]);
}

/// The lines that only one side has, sides apart; lines that are only brackets do not count.
fn changed_lines(plan: &Plan) -> Vec<String> {
    let change = &plan.changes[0];
    let (before, after) = (change.before.as_deref().unwrap(), change.after.as_str());
    let only = |mine: &str, other: &str, sign: char| -> Vec<String> {
        let mut other: Vec<&str> = other.lines().collect();
        let mut only = Vec::new();
        for line in mine.lines() {
            match other.iter().position(|there| *there == line) {
                Some(at) => drop(other.remove(at)),
                None if line.chars().all(|c| "{}[], ".contains(c)) => {}
                None => only.push(format!("{sign}{line}")),
            }
        }
        only
    };
    [only(before, after, '-'), only(after, before, '+')].concat()
}

#[test]
fn cfg_18_writing_the_same_again_touches_nothing() {
    let (_home, dir) = place();
    write(&Ask::openclaw(), &dir);
    let before = snapshot(&dir);
    let inode = |dir: &Path| fs::metadata(dir.join("openclaw.json")).unwrap().ino();
    let there = inode(&dir);
    let again = plan(&Ask::openclaw(), &dir).unwrap();
    assert!(again.is_current());
    again.apply().unwrap();
    assert_eq!((snapshot(&dir), inode(&dir)), (before, there));
}

#[test]
fn planning_makes_and_writes_nothing() {
    let (home, dir) = place();
    let planned = plan(&Ask::openclaw(), &dir).unwrap();
    assert_eq!(planned.changes[0].before, None);
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
}

#[test]
fn a_plan_shows_no_secret_that_was_there() {
    let (_home, dir) = place();
    fs::create_dir(&dir).unwrap();
    let there = r#"{"gateway":{"auth":{"token":"top-secret-1"}},"channels":{"slack":{"botToken":"top-secret-2"}},
                    "env":{"OPENAI_API_KEY":"top-secret-3"},"proxy":{"proxyUrl":"http://u:top-secret-4@h:1"}}"#;
    fs::write(dir.join("openclaw.json"), there).unwrap();
    let planned = plan(&Ask::openclaw(), &dir).unwrap();
    let shown = format!("{:?}", planned.changes);
    assert!(!shown.contains("top-secret"), "{shown}");
    planned.apply().unwrap();
    let kept = fs::read_to_string(dir.join("openclaw.json")).unwrap();
    assert!(kept.contains("top-secret-1") && kept.contains("top-secret-3"));
}

#[test]
fn a_file_that_is_more_than_json_is_refused_without_showing_it() {
    let (_home, dir) = place();
    fs::create_dir(&dir).unwrap();
    for text in [
        "{\n  // mine\n  \"a\": \"top-secret\"\n}",
        "{\"a\": 1, \"a\": 2}",
        "[",
        "",
    ] {
        fs::write(dir.join("openclaw.json"), text).unwrap();
        let refusal = plan(&Ask::openclaw(), &dir).unwrap_err();
        assert!(
            matches!(refusal, Refusal::Unreadable { .. }),
            "{text}: {refusal}"
        );
        let cause = std::error::Error::source(&refusal).unwrap().to_string();
        assert!(
            cause.starts_with("expected JSON") && !cause.contains("top-secret"),
            "{cause}"
        );
        assert_eq!(fs::read_to_string(dir.join("openclaw.json")).unwrap(), text);
    }
}

#[test]
fn two_at_once_are_not_let_at_it() {
    let (_home, dir) = place();
    write(&Ask::openclaw(), &dir);
    let held = plan(&Ask::openclaw(), &dir).unwrap();
    assert!(matches!(
        plan(&Ask::openclaw(), &dir),
        Err(Refusal::Busy { .. })
    ));
    drop(held);
    assert!(plan(&Ask::openclaw(), &dir).is_ok());
}

#[test]
fn cli_06_whoever_was_killed_in_between_left_nothing_that_is_refused() {
    let (_home, dir) = place();
    let other = Ask::openclaw().route(route(KIMI));
    write(&Ask::openclaw(), &dir);
    let (old, old_hash) = (
        fs::read(dir.join("openclaw.json")).unwrap(),
        fs::read(dir.join(HASH_FILE)).unwrap(),
    );
    write(&other, &dir);
    let new_hash = fs::read(dir.join(HASH_FILE)).unwrap();
    // Killed after the new digests were written, and again after the first file was placed.
    fs::write(dir.join(HASH_FILE), &old_hash).unwrap();
    fs::write(dir.join(".config-hash.next"), &new_hash).unwrap();
    assert!(plan(&other, &dir).is_ok_and(|plan| !plan.is_current()));
    fs::write(dir.join("openclaw.json"), &old).unwrap();
    write(&other, &dir);
    assert!(digests_hold(&dir) && !dir.join(".config-hash.next").exists());
}

#[test]
fn hermes_settings_of_ones_own_stay_and_its_files_are_private() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join(".hermes");
    let ask = Ask::of("hermes");
    write(&ask, &dir);
    for name in ["config.yaml", ".env"] {
        assert_eq!(mode(&dir.join(name)), 0o600);
    }
    assert!(digests_hold(&dir));
    let own = fs::read_to_string(dir.join("config.yaml")).unwrap() + "timezone: Asia/Taipei\n";
    fs::write(dir.join("config.yaml"), own).unwrap();
    let env = fs::read_to_string(dir.join(".env")).unwrap() + "# mine\nMINE=1\n";
    fs::write(dir.join(".env"), env).unwrap();
    let switched = Ask::of("hermes").route(route(KIMI)).with("web-search", "1");
    switched
        .good()
        .plan(&dir, Edited::Accept)
        .unwrap()
        .apply()
        .unwrap();
    let config = fs::read_to_string(dir.join("config.yaml")).unwrap();
    assert!(
        config.contains("timezone: Asia/Taipei") && config.contains(KIMI),
        "{config}"
    );
    let env = fs::read_to_string(dir.join(".env")).unwrap();
    assert!(
        env.contains("# mine\nMINE=1\n") && env.contains("TAVILY_API_KEY="),
        "{env}"
    );
    write(&Ask::of("hermes"), &dir);
    let env = fs::read_to_string(dir.join(".env")).unwrap();
    assert!(
        env.contains("MINE=1") && !env.contains("TAVILY_API_KEY"),
        "{env}"
    );
}

#[test]
fn a_gateway_s_token_is_filled_in_once_and_stays_as_it_is_there() {
    let (_home, dir) = place();
    for token in ["first", "second"] {
        let mut configuration = Ask::openclaw().good();
        assert!(configuration.fill_gateway_token(token));
        configuration
            .plan(&dir, Edited::Accept)
            .unwrap()
            .apply()
            .unwrap();
        let there = document(&dir.join("openclaw.json"));
        let there = there
            .get(&["gateway", "auth", "token"])
            .and_then(Document::text);
        assert_eq!(there, Some("first"));
    }
}
