use super::*;

#[test]
fn another_owners_file_is_refused_with_both_names() {
    let place = tempfile::tempdir().expect("a directory");
    std::fs::write(place.path().join("openclaw.json"), "{}").expect("written");
    let us = rustix::process::geteuid().as_raw();
    let stranger = Uid::from_raw(us + 1);
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
    let target = Target::look(place.path())
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
