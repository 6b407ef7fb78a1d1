//! What is not made, why, and what to do about it. Nothing of it stays.

use serde_json::json;

use super::{KIMI, Stage, fed, home, make, remains, serving};

/// Refused with all of these words; nothing is there of it afterwards.
fn refused(stage: &Stage, name: &str, more: &[&str], words: &[&str]) {
    let made = [&["sandbox", "create", name, "--agent", "generic"], more].concat();
    let said = stage.home.run(&made);
    assert!(
        matches!(said.code, Some(1 | 2)),
        "{made:?}: {}",
        said.shown()
    );
    for word in words {
        assert!(
            said.stderr.contains(word),
            "{made:?}, {word}: {}",
            said.stderr
        );
    }
    assert_eq!(said.stdout, "");
    assert_eq!(
        stage.json(&["sandbox", "list", "--json"])["sandboxes"],
        json!([]),
        "{made:?}"
    );
    assert_eq!(remains(&stage.home), [""; 0], "{made:?}");
    assert_eq!(
        super::processes(stage.home.path()),
        super::NOBODY,
        "{made:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_none_is_refused() {
    let stage = Stage::set().await;
    let route = ["--route", KIMI];
    for name in [
        "Work",
        "a/b",
        "../work",
        "",
        "work-",
        "2",
        "a.b",
        "work\n",
        &"a".repeat(41),
    ] {
        refused(
            &stage,
            name,
            &route,
            &["lower-case letters, digits and hyphens"],
        );
    }
    stage.ends_well();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_think_is_not_made() {
    let stage = Stage::set().await;
    let kimi = ["--route", KIMI];
    refused(&stage, "work", &[], &["expected --route"]);
    refused(
        &stage,
        "work",
        &["--route", "no/model"],
        &["\"no/model\"", "routes are", KIMI],
    );
    let provider = [&kimi[..], &["--provider", "nobody"]].concat();
    refused(
        &stage,
        "work",
        &provider,
        &["got nobody", "farrier provider add nobody"],
    );

    let key = [
        "provider",
        "add",
        "keyless",
        "--type",
        "generic",
        "--base-url",
        "http://127.0.0.1:9/v1",
        "--credential",
        "ABSENT_KEY=env:ABSENT_KEY",
    ];
    stage.done(&key);
    let keyless = [&kimi[..], &["--provider", "keyless"]].concat();
    refused(
        &stage,
        "work",
        &keyless,
        &["ABSENT_KEY", "keyless", "farrier provider set keyless"],
    );

    stage.home.write(
        "bad.yaml",
        "version: 1\nnetwork_policies: {a: {endpoints: [{host: \"*.com\", port: 443}]}}\n",
    );
    let policy = [&kimi[..], &["--policy", "bad.yaml"]].concat();
    refused(&stage, "work", &policy, &["expected a policy", "*.com"]);
    let policy = [&kimi[..], &["--policy", "nowhere.yaml"]].concat();
    refused(&stage, "work", &policy, &["cannot read nowhere.yaml"]);

    let said = stage.home.run(&[
        "sandbox", "create", "work", "--agent", "openclaw", "--route", KIMI,
    ]);
    assert_eq!(said.code, Some(1));
    assert!(
        said.stderr.contains("farrier harness install"),
        "{}",
        said.stderr
    );
    let said = stage.home.run(&[
        "sandbox", "create", "work", "--agent", "nobody", "--route", KIMI,
    ]);
    assert_eq!(said.code, Some(2));
    let said = stage.home.run(&["run", "generic", "--route", KIMI]);
    assert_eq!(
        (
            said.code,
            said.stderr.contains("expected a program after --")
        ),
        (Some(2), true),
        "{}",
        said.stderr
    );
    stage.ends_well();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_mount_shows_what_farrier_keeps_or_takes_the_place_of_the_system() {
    let stage = Stage::set().await;
    stage.home.write("shown/file", "text");
    let state = stage.home.path().join(".local/state/farrier");
    let (whole, shown) = (stage.home.path().display(), "shown");
    for host in [
        state.display().to_string(),
        format!("{}/store", state.display()),
        whole.to_string(),
    ] {
        let mount = format!("{host}:/mnt/data");
        refused(
            &stage,
            "work",
            &["--route", KIMI, "--mount", &mount],
            &["holds keys"],
        );
    }
    for inside in [
        "/etc",
        "/usr/bin",
        "/",
        "/proc",
        "/home/agent",
        "/mnt/../etc",
    ] {
        let mount = format!("{shown}:{inside}");
        refused(
            &stage,
            "work",
            &["--route", KIMI, "--mount", &mount],
            &["a place of its own"],
        );
    }
    refused(
        &stage,
        "work",
        &["--route", KIMI, "--mount", "missing:/mnt/data"],
        &["cannot show"],
    );
    refused(
        &stage,
        "work",
        &["--route", KIMI, "--mount", "shown:mnt"],
        &["expected HOST"],
    );
    // The same, where it may be.
    stage.make("work", &["--mount", "shown:/mnt/data"]);
    assert_eq!(
        stage.said(
            "work",
            "cat /mnt/data/file; echo no > /mnt/data/file || true"
        ),
        "text"
    );
    stage.ends_well();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_given_once_and_a_stopped_sandbox_runs_nothing() {
    let stage = Stage::set().await;
    stage.make("work", &[]);
    stage.said("work", "echo first > ~/first");
    let said = stage.home.run(&[
        "sandbox", "create", "work", "--agent", "generic", "--route", KIMI,
    ]);
    assert_eq!(said.code, Some(1));
    assert!(
        said.stderr.contains("got work, which is a sandbox already"),
        "{}",
        said.stderr
    );
    assert_eq!(stage.said("work", "cat ~/first"), "first\n");
    stage.done(&["sandbox", "stop", "work"]);
    let said = stage.sh("work", "true");
    assert_eq!(said.code, Some(1));
    assert!(
        said.stderr.contains("farrier sandbox start work"),
        "{}",
        said.stderr
    );
    for asked in [
        &["status", "nobody"][..],
        &["start", "nobody"],
        &["stop", "nobody"],
        &["exec", "nobody", "--", "true"],
    ] {
        let said = stage.home.run(&[&["sandbox"], asked].concat());
        assert_eq!(said.code, Some(1), "{asked:?}");
        assert!(
            said.stderr.contains("farrier sandbox list"),
            "{asked:?}: {}",
            said.stderr
        );
    }
    stage.ends_well();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_gateway_a_command_says_which_to_start() {
    let (home, _provider) = home().await;
    let create = [
        "sandbox", "create", "work", "--agent", "generic", "--route", KIMI,
    ];
    for asked in [
        &create[..],
        &["sandbox", "list"],
        &["sandbox", "exec", "work", "--", "true"],
        &["sandbox", "destroy", "work", "--yes"],
    ] {
        let said = home.run(asked);
        assert_eq!(said.code, Some(1), "{asked:?}");
        assert!(
            said.stderr.contains("farrier up looks after sandboxes"),
            "{asked:?}: {}",
            said.stderr
        );
    }
    assert_eq!(remains(&home), [""; 0]);
    let said = fed(home.command(&["sandbox", "connect", "work"]), b"");
    assert_eq!(
        (said.code, said.stderr.contains("expected a terminal")),
        (Some(2), true),
        "{}",
        said.stderr
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_gateway_of_the_same_user_leaves_the_sandboxes_to_the_first() {
    let (home, provider) = home().await;
    let other = crate::up::configuration(&provider.base_url());
    home.write(
        "other.toml",
        &format!("{other}\n[ledger]\npath = \"other.db\"\n"),
    );
    let first = serving(&home, &["up"]);
    make(&home, "work", &[]);
    let second = serving(&home, &["up", "--config", "other.toml"]);
    for asked in [
        &["list"][..],
        &["create", "more", "--agent", "generic", "--route", KIMI],
        &["exec", "work", "--", "true"],
    ] {
        // What comes after -- is the program's.
        let asked = [
            &["sandbox", asked[0], "--config", "other.toml"],
            &asked[1..],
        ]
        .concat();
        let said = home.run(&asked);
        assert_eq!(said.code, Some(1), "{asked:?}: {}", said.shown());
        assert!(
            said.stderr
                .contains("another gateway of this user looks after the sandboxes"),
            "{}",
            said.stderr
        );
    }
    second.signal(rustix::process::Signal::TERM);
    assert_eq!(second.ended().code, Some(0));
    // That one's end is not the sandboxes'.
    assert_eq!(super::sh(&home, "work", "echo still").stdout, "still\n");
    drop(first);
}
