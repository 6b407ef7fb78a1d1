use super::*;

#[test]
fn another_owners_file_is_refused_with_both_names() {
    let place = tempfile::tempdir().expect("a directory");
    std::fs::write(place.path().join("openclaw.json"), "{}").expect("written");
    let us = rustix::process::geteuid().as_raw();
    let stranger = Owner::user(us + 1, us + 1);
    let target = Target::open_as(place.path(), stranger)
        .expect("opens")
        .expect("is there");
    let refusal = target
        .read("openclaw.json", Edited::Accept)
        .expect_err("not theirs");
    let shown = refusal.to_string();
    assert!(
        shown.ends_with(&format!("to belong to user {}, got user {us}", us + 1)),
        "{shown}"
    );
}

#[test]
fn what_cannot_be_written_leaves_no_temporary_file() {
    let place = tempfile::tempdir().expect("a directory");
    let target = Target::look(place.path(), Owner::process())
        .expect("opens")
        .expect("is there");
    std::fs::create_dir(place.path().join("openclaw.json")).expect("made");
    let file = NewFile {
        name: "openclaw.json".to_owned(),
        text: "{}".to_owned(),
    };
    assert!(matches!(
        target.replace(&file),
        Err(Refusal::NotAFile { .. })
    ));
    let left = std::fs::read_dir(place.path()).expect("read").count();
    assert_eq!(left, 1);
}

#[test]
fn a_digest_is_what_sha256sum_says() {
    assert_eq!(
        digest("abc"),
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
}

/// Only root can write for somebody else.
#[test]
fn files_of_another_user_are_theirs_and_a_link_of_theirs_is_not_followed() {
    use std::os::unix::fs::{MetadataExt as _, chown, symlink};
    if !rustix::process::geteuid().is_root() {
        assert!(matches!(
            Target::make(
                &std::env::temp_dir().join("farrier-target-test"),
                Owner::user(1, 1)
            ),
            Err(Refusal::Io {
                what: "give away",
                ..
            })
        ));
        std::fs::remove_dir(std::env::temp_dir().join("farrier-target-test")).expect("removed");
        return;
    }
    let (uid, gid) = (700_123, 700_124);
    let place = tempfile::tempdir().expect("a directory");
    let (home, elsewhere) = (place.path().join("home"), place.path().join("elsewhere"));
    for (path, uid) in [(&home, uid), (&elsewhere, 0)] {
        std::fs::create_dir(path).expect("made");
        chown(path, Some(uid), Some(uid)).expect("given away");
    }
    let owner = Owner::user(uid, gid);
    let target = Target::make(&home.join(".openclaw"), owner).expect("made");
    let file = NewFile {
        name: "openclaw.json".to_owned(),
        text: "{}".to_owned(),
    };
    target.write(std::slice::from_ref(&file)).expect("written");
    for path in [home.join(".openclaw"), home.join(".openclaw/openclaw.json")] {
        let there = path.metadata().expect("is there");
        assert_eq!((there.uid(), there.gid()), (uid, gid), "{}", path.display());
    }
    symlink(&elsewhere, home.join(".hermes")).expect("linked");
    let refused = Target::look(&home.join(".hermes"), owner).expect_err("a link");
    assert!(matches!(refused, Refusal::NotAFile { .. }), "{refused}");
}
