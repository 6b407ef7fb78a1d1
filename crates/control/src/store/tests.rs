use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::thread;

use super::*;

fn provider(name: &str, source: &str) -> StoredProvider {
    StoredProvider {
        name: name.parse().unwrap(),
        kind: "openai".to_owned(),
        base_url: Some("https://llm.corp.test/v1".to_owned()),
        keys: [("OPENAI_API_KEY".parse().unwrap(), source.parse().unwrap())].into(),
        added_unix_ms: 1_000,
        changed_unix_ms: 1_000,
    }
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o7777
}

#[test]
fn what_is_added_is_there_after_the_file_was_closed() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state/farrier");
    assert!(Store::open_existing(&state).unwrap().is_none());
    let first = provider("openai", "env:OPENAI_API_KEY");
    Store::open(&state).unwrap().add(&first).unwrap();

    let store = Store::open_existing(&state).unwrap().unwrap();
    assert_eq!(store.providers().unwrap(), std::slice::from_ref(&first));
    assert_eq!(store.provider(&first.name).unwrap(), Some(first));
    assert_eq!(store.provider(&"other".parse().unwrap()).unwrap(), None);
}

#[test]
fn a_name_is_added_once_and_changed_and_removed_only_if_it_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(&dir.path().join("state")).unwrap();
    let first = provider("openai", "env:A");
    assert!(matches!(
        store.replace(&first),
        Err(ChangeError::Unknown { .. })
    ));
    assert!(matches!(
        store.remove(&first.name),
        Err(ChangeError::Unknown { .. })
    ));
    store.add(&first).unwrap();
    let again = StoredProvider {
        kind: "generic".to_owned(),
        ..provider("openai", "env:B")
    };
    assert!(matches!(store.add(&again), Err(ChangeError::Exists { .. })));
    assert_eq!(store.providers().unwrap(), std::slice::from_ref(&first));

    let later = StoredProvider {
        base_url: None,
        changed_unix_ms: 2_000,
        added_unix_ms: 9,
        ..provider("openai", "file:/k")
    };
    store.replace(&later).unwrap();
    let expected = StoredProvider {
        added_unix_ms: 1_000,
        ..later
    };
    assert_eq!(store.providers().unwrap(), [expected]);

    store.remove(&first.name).unwrap();
    assert_eq!(store.providers().unwrap(), []);
    let left: i64 = store
        .connection
        .query_row("SELECT count(*) FROM provider_keys", [], |row| row.get(0))
        .unwrap();
    assert_eq!(left, 0);
}

#[test]
fn the_file_and_all_that_is_beside_it_are_for_their_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let mut store = Store::open(&state).unwrap();
    store.add(&provider("openai", "env:A")).unwrap();
    assert_eq!(mode(&state), 0o700);
    // While something is being written there is a journal.
    store
        .connection
        .execute_batch("BEGIN IMMEDIATE; DELETE FROM providers")
        .unwrap();
    let files: Vec<PathBuf> = fs::read_dir(&state)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert!(
        files.contains(&state.join("state.db")) && files.len() >= 2,
        "{files:?}"
    );
    for file in files {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
    drop(store);
    fs::set_permissions(state.join("state.db"), Permissions::from_mode(0o644)).unwrap();
    drop(Store::open(&state).unwrap());
    assert_eq!(mode(&state.join("state.db")), 0o600);
}

#[test]
fn a_directory_or_file_that_is_a_link_or_open_to_others_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (real, link) = (dir.path().join("real"), dir.path().join("link"));
    drop(Store::open(&real).unwrap());
    symlink(&real, &link).unwrap();
    assert!(matches!(
        Store::open(&link),
        Err(StoreError::Unexpected { .. })
    ));

    let linked = dir.path().join("linked");
    drop(place::prepare(&linked).unwrap());
    symlink(real.join("state.db"), linked.join("state.db")).unwrap();
    assert!(matches!(
        Store::open(&linked),
        Err(StoreError::Unexpected { .. })
    ));
    assert!(matches!(
        Store::open_existing(&linked),
        Err(StoreError::Unexpected { .. })
    ));

    fs::set_permissions(&real, Permissions::from_mode(0o750)).unwrap();
    let refused = Store::open(&real).unwrap_err();
    assert!(
        refused
            .to_string()
            .ends_with(&format!("got mode 0750 (chmod 700 {})", real.display())),
        "{refused}"
    );
}

#[test]
fn another_users_directory_is_refused() {
    if !rustix::process::geteuid().is_root() {
        // Only root can make a directory that is another's; for anyone else that of root does.
        assert!(matches!(
            Store::open(Path::new("/")),
            Err(StoreError::ForeignOwner { .. })
        ));
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    drop(place::prepare(&state).unwrap());
    std::os::unix::fs::chown(&state, Some(65_534), None).unwrap();
    assert!(matches!(
        Store::open(&state),
        Err(StoreError::ForeignOwner { owner: 65_534, .. })
    ));
}

#[test]
fn another_database_and_a_newer_version_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let store = Store::open(&state).unwrap();
    store
        .connection
        .pragma_update(None, "user_version", 999)
        .unwrap();
    drop(store);
    assert!(matches!(
        Store::open(&state),
        Err(StoreError::Newer { found: 999, .. })
    ));

    let others = place::prepare(&dir.path().join("others")).unwrap();
    let other = Connection::open(others.join("state.db")).unwrap();
    other.execute_batch("CREATE TABLE theirs (x)").unwrap();
    drop(other);
    assert!(matches!(
        Store::open(&others),
        Err(StoreError::NotState { .. })
    ));
}

#[test]
fn a_row_that_somebody_has_spoilt_is_an_error_and_not_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(&dir.path().join("state")).unwrap();
    store.add(&provider("openai", "env:A")).unwrap();
    store
        .connection
        .execute("UPDATE provider_keys SET source = 'sk-canary-7f3a'", [])
        .unwrap();
    let error = store.providers().unwrap_err();
    assert!(matches!(error, StoreError::Unreadable { .. }));
    assert!(!format!("{error} {error:?}").contains("canary"));
}

#[test]
fn processes_that_open_and_change_it_at_once_wait_for_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    thread::scope(|scope| {
        for writer in 0..8 {
            let state = &state;
            scope.spawn(move || {
                let mut store = Store::open(state).unwrap();
                for turn in 0..5 {
                    store
                        .add(&provider(&format!("p{writer}-{turn}"), "env:A"))
                        .unwrap();
                }
            });
        }
    });
    assert_eq!(Store::open(&state).unwrap().providers().unwrap().len(), 40);
}

#[test]
fn every_change_can_be_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(&dir.path().join("state")).unwrap();
    store.add(&provider("other", "env:O")).unwrap();
    let before = store.providers().unwrap();
    let undo = store
        .make(&Change::Add(provider("openai", "env:A")))
        .unwrap();
    let added = store.providers().unwrap();
    assert_ne!(added, before);
    for change in [
        Change::Replace(provider("openai", "env:B")).at(7),
        Change::Remove("openai".parse().unwrap()),
    ] {
        let undo = store.make(&change).unwrap();
        assert_ne!(store.providers().unwrap(), added);
        store.make(&undo).unwrap();
        assert_eq!(store.providers().unwrap(), added);
    }
    store.make(&undo).unwrap();
    assert_eq!(store.providers().unwrap(), before);
}

fn spec(route: &str) -> crate::sandbox::SandboxSpec {
    serde_json::from_value(
        serde_json::json!({"agent": "openclaw", "route": route, "providers": ["slack"]}),
    )
    .unwrap()
}

#[test]
fn a_sandbox_is_kept_with_a_slot_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let (work, play) = ("work".parse().unwrap(), "play".parse().unwrap());
    let mut store = Store::open(&state).unwrap();
    let first = store.add_sandbox(&work, &spec("a"), (true, 5)).unwrap();
    let second = store.add_sandbox(&play, &spec("b"), (false, 6)).unwrap();
    assert_eq!((first.slot, second.slot), (0, 1));
    let again = store.add_sandbox(&work, &spec("c"), (true, 7));
    assert!(
        matches!(again, Err(SandboxError::Exists { .. })),
        "{again:?}"
    );

    let store = Store::open_existing(&state).unwrap().unwrap();
    assert_eq!(store.sandbox(&work).unwrap(), Some(first.clone()));
    assert_eq!(store.sandboxes().unwrap(), [second, first]);
}

#[test]
fn a_sandbox_is_changed_and_removed_only_if_it_is_there_and_its_slot_is_free_then() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(&dir.path().join("state")).unwrap();
    let (work, play) = ("work".parse().unwrap(), "play".parse().unwrap());
    for refused in [
        store.change_sandbox(&work, &spec("a")),
        store.want_sandbox(&work, true),
        store.remove_sandbox(&work),
    ] {
        assert!(
            matches!(refused, Err(SandboxError::Unknown { .. })),
            "{refused:?}"
        );
    }
    store.add_sandbox(&work, &spec("a"), (true, 5)).unwrap();
    store.change_sandbox(&work, &spec("b")).unwrap();
    store.want_sandbox(&work, false).unwrap();
    let stored = store.sandbox(&work).unwrap().unwrap();
    assert_eq!((stored.spec, stored.is_wanted), (spec("b"), false));
    store.remove_sandbox(&work).unwrap();
    assert_eq!(store.sandbox(&work).unwrap(), None);
    assert_eq!(
        store
            .add_sandbox(&play, &spec("a"), (true, 5))
            .unwrap()
            .slot,
        0
    );
}

#[test]
fn a_store_of_the_first_version_is_brought_to_this_one() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let mut store = Store::open(&state).unwrap();
    store.add(&provider("openai", "env:A")).unwrap();
    // What the first version did not have.
    store
        .connection
        .execute_batch("DROP TABLE sandboxes; PRAGMA user_version = 1")
        .unwrap();
    drop(store);
    let store = Store::open(&state).unwrap();
    assert_eq!(store.sandboxes().unwrap(), []);
    assert_eq!(store.providers().unwrap().len(), 1);
}
