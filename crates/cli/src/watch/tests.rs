use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::Path;

use tempfile::TempDir;
use tokio::time::timeout;

use super::*;

/// How long any single change may take to be noticed.
const PATIENCE: Duration = Duration::from_secs(20);

fn place() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// A watch over a file, past the look that it begins with. The next look comes too late for the test.
fn watch(file: &Path) -> Watch {
    assert!(SELDOM > PATIENCE);
    let sources = Sources::of_file(file);
    Watch::On {
        wakes: Some(Wakes::on(&sources).unwrap()),
        sources,
        unsure: false,
    }
}

async fn noticed(mut watch: Watch) {
    let changed = timeout(PATIENCE, watch.changed()).await;
    assert!(changed.is_ok(), "a change was not noticed");
}

#[tokio::test]
async fn a_file_that_is_written_to_is_noticed() {
    let place = place();
    let file = place.path().join("farrier.toml");
    fs::write(&file, "one").unwrap();
    let watch = watch(&file);
    fs::write(&file, "two").unwrap();
    noticed(watch).await;
}

/// As editors save.
#[tokio::test]
async fn a_file_that_is_replaced_by_another_is_noticed() {
    let place = place();
    let file = place.path().join("farrier.toml");
    fs::write(&file, "one").unwrap();
    let watch = watch(&file);
    let draft = place.path().join(".farrier.toml.swp");
    fs::write(&draft, "one").unwrap();
    fs::rename(&draft, &file).unwrap();
    noticed(watch).await;
}

/// As the kubelet updates a mounted map: <https://github.com/kubernetes/kubernetes/blob/master/pkg/volume/util/atomic_writer.go>.
#[tokio::test]
async fn a_link_on_the_way_that_leads_elsewhere_is_noticed() {
    let place = place();
    let map = place.path();
    for version in ["..v1", "..v2"] {
        fs::create_dir(map.join(version)).unwrap();
        fs::write(map.join(version).join("farrier.toml"), version).unwrap();
    }
    symlink("..v1", map.join("..data")).unwrap();
    symlink("..data/farrier.toml", map.join("farrier.toml")).unwrap();
    let watch = watch(&map.join("farrier.toml"));
    symlink("..v2", map.join("..data_tmp")).unwrap();
    fs::rename(map.join("..data_tmp"), map.join("..data")).unwrap();
    noticed(watch).await;
}

#[tokio::test]
async fn a_file_that_appears_with_its_directory_is_noticed() {
    let place = place();
    let file = place.path().join("secrets/rack.key");
    let watch = watch(&file);
    fs::create_dir(file.parent().unwrap()).unwrap();
    fs::write(&file, "key").unwrap();
    noticed(watch).await;
}

#[tokio::test]
async fn a_directory_that_is_exchanged_for_another_is_noticed() {
    let place = place();
    let [old, new, file] = ["etc", "etc.new", "etc/key"].map(|name| place.path().join(name));
    fs::create_dir(&old).unwrap();
    fs::create_dir(&new).unwrap();
    fs::write(&file, "one").unwrap();
    fs::write(new.join("key"), "two").unwrap();
    let watch = watch(&file);
    fs::rename(&old, place.path().join("etc.old")).unwrap();
    fs::rename(&new, &old).unwrap();
    noticed(watch).await;
}

/// What is touched before the watch is set up, but after the reading.
#[tokio::test]
async fn a_change_between_the_reading_and_the_watch_is_noticed() {
    let place = place();
    let file = place.path().join("key");
    fs::write(&file, "one").unwrap();
    let read = Sources::of_file(&file);
    fs::write(&file, "other").unwrap();
    noticed(Watch::on(read)).await;
}

#[tokio::test]
async fn without_the_systems_help_a_change_is_found_by_looking() {
    let place = place();
    let file = place.path().join("key");
    fs::write(&file, "one").unwrap();
    let watch = Watch::On {
        sources: Sources::of_file(&file),
        wakes: None,
        unsure: false,
    };
    fs::write(&file, "other").unwrap();
    noticed(watch).await;
}

/// A ledger beside the configuration is written to at each turn, and stays open.
#[tokio::test]
async fn other_files_beside_it_wake_nobody() {
    let place = place();
    let file = place.path().join("farrier.toml");
    fs::write(&file, "one").unwrap();
    let mut wakes = Wakes::on(&Sources::of_file(&file)).unwrap();
    let mut ledger = fs::File::create(place.path().join("ledger.db-wal")).unwrap();
    for _ in 0..100 {
        ledger.write_all(b"turn").unwrap();
    }
    fs::write(place.path().join("notes"), "").unwrap();
    drop(ledger);
    assert!(timeout(QUIET, wakes.touched()).await.is_err());
    fs::write(&file, "two").unwrap();
    timeout(PATIENCE, wakes.touched()).await.unwrap().unwrap();
}
