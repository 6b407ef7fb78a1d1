//! Files into a sandbox and out of it, and copies of all it has.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use super::{Stage, ground, remains};

#[tokio::test(flavor = "multi_thread")]
async fn files_and_directories_go_in_and_come_out_and_are_whose_they_are_there() {
    let stage = Stage::set().await;
    stage.make("work", &[]);
    stage.home.write("file", "from here");
    stage.home.write("tree/below/leaf", "leaf");
    stage.done(&["sandbox", "cp", "file", "work:/workspace/file"]);
    stage.done(&["sandbox", "cp", "file", "work:/home/agent/renamed"]);
    stage.done(&["sandbox", "cp", "tree", "work:"]);
    let within = "cat /workspace/file ~/renamed tree/below/leaf; echo more >> /workspace/tree/below/leaf; stat -c %U /workspace/file tree/below";
    assert_eq!(
        stage.said("work", within),
        "from herefrom hereleafagent\nagent\n"
    );
    stage.done(&["sandbox", "cp", "work:tree", "back"]);
    assert_eq!(
        fs::read_to_string(stage.home.path().join("back/below/leaf")).unwrap(),
        "leafmore\n"
    );
    stage.done(&["sandbox", "cp", "work:/workspace/file", "tree"]);
    let out = stage.home.path().join("tree/file");
    assert_eq!(fs::read_to_string(&out).unwrap(), "from here");
    assert_eq!(
        fs::metadata(&out).unwrap().uid(),
        fs::metadata(stage.home.path()).unwrap().uid()
    );
    for (from, to, words) in [
        ("file", "work:/etc/passwd", "expected a path below"),
        (
            "work:/workspace/../../../etc/passwd",
            "out",
            "expected a path without ..",
        ),
        ("work:a", "work:b", "expected one of the two"),
        ("work:missing", "out", "cannot copy"),
        ("file", "nobody:/workspace/file", "farrier sandbox list"),
    ] {
        let said = stage.home.run(&["sandbox", "cp", from, to]);
        assert!(
            matches!(said.code, Some(1 | 2)) && said.stderr.contains(words),
            "{from} {to}: {}",
            said.stderr
        );
    }
    stage.ends_well();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_a_sandbox_made_leads_nobody_to_files_of_the_host() {
    let stage = Stage::set().await;
    stage.make("work", &[]);
    let secret = stage.home.write("private/secret", "the host's");
    stage.home.write("new", "new");
    let (file, dir) = (secret.display(), secret.parent().unwrap().display());
    stage.said("work", &format!("ln -s {file} link; ln -s {file} target; ln -s {dir} dir; ln -s / root; ln -s {dir} ~/dir"));

    stage.done(&["sandbox", "cp", "work:link", "out"]);
    let out = stage.home.path().join("out");
    assert_eq!(fs::read_link(&out).unwrap(), secret);
    for path in [
        "dir/secret",
        "/home/agent/dir/secret",
        &format!("root{file}"),
    ] {
        let said = stage
            .home
            .run(&["sandbox", "cp", &format!("work:{path}"), "taken"]);
        assert_eq!(said.code, Some(1), "{path}: {}", said.shown());
        assert!(!stage.home.path().join("taken").exists(), "{path}");
    }
    for path in ["dir/secret", "dir/more", "/home/agent/dir/secret"] {
        let said = stage
            .home
            .run(&["sandbox", "cp", "new", &format!("work:{path}")]);
        assert_eq!(said.code, Some(1), "{path}: {}", said.shown());
    }
    stage.done(&["sandbox", "cp", "new", "work:target"]);
    assert_eq!(stage.said("work", "cat target"), "new");
    assert_eq!(fs::read_to_string(&secret).unwrap(), "the host's");
    assert_eq!(fs::read_dir(secret.parent().unwrap()).unwrap().count(), 1);
    // Nor is what it leads to removed with the sandbox.
    stage.done(&["sandbox", "destroy", "work", "--yes"]);
    assert_eq!(fs::read_to_string(&secret).unwrap(), "the host's");
    stage.ends_well();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_brings_back_what_was_there() {
    let stage = Stage::set().await;
    stage.make("work", &[]);
    stage.said("work", "echo then > ~/file; mkdir -p /workspace/dir; echo then > /workspace/dir/file; ln -s /etc/hostname link");
    let create = ["sandbox", "snapshot", "create", "work", "--json"];
    let said = stage.home.run(&create);
    assert_eq!(said.code, Some(1));
    assert!(
        said.stderr.contains("farrier sandbox stop work"),
        "{}",
        said.stderr
    );
    stage.done(&["sandbox", "stop", "work"]);
    let kept = stage.json(&create);
    let name = kept["name"].as_str().unwrap();
    assert!(kept["files"].as_u64().unwrap() >= 2, "{kept}");
    let list = ["sandbox", "snapshot", "list", "work", "--json"];
    assert_eq!(stage.json(&list), serde_json::json!([name]));

    stage.done(&["sandbox", "start", "work"]);
    stage.said(
        "work",
        "echo now > ~/file; rm -r /workspace/dir link; echo new > /workspace/new",
    );
    let restore = ["sandbox", "snapshot", "restore", "work", name, "--yes"];
    assert_eq!(stage.home.run(&restore).code, Some(1));
    assert_eq!(stage.said("work", "cat ~/file"), "now\n");
    stage.done(&["sandbox", "stop", "work"]);
    assert_eq!(
        stage.home.run(&restore[..5]).code,
        Some(2),
        "somebody is to be asked"
    );
    for wrong in ["nope", "../../work", ".."] {
        let said = stage
            .home
            .run(&["sandbox", "snapshot", "restore", "work", wrong, "--yes"]);
        assert!(
            matches!(said.code, Some(1 | 2)),
            "{wrong}: {}",
            said.shown()
        );
    }
    stage.done(&restore);
    stage.done(&["sandbox", "start", "work"]);
    let within = "cat ~/file dir/file; readlink link; ls; echo more >> dir/file; stat -c %U dir";
    assert_eq!(
        stage.said("work", within),
        "then\nthen\n/etc/hostname\ndir\nlink\nagent\n"
    );
    stage.done(&["sandbox", "snapshot", "remove", "work", name, "--yes"]);
    assert_eq!(stage.json(&list), serde_json::json!([]));
    let left = fs::read_dir(ground(&stage.home).join("work/snapshots"));
    assert_eq!(left.map_or(0, Iterator::count), 0);
    stage.done(&["sandbox", "destroy", "work", "--yes"]);
    assert_eq!(remains(&stage.home), [""; 0]);
    stage.ends_well();
}
