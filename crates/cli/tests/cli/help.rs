use insta::assert_snapshot;

use crate::home::{Home, Said};

#[test]
fn help_says_what_there_is() {
    let said = Home::new().run(&["--help"]);
    assert_snapshot!(said.shown(), @r#"
    --- stdout
    Runs agent harnesses on models that do not fit them

    Usage: farrier <COMMAND>

    Commands:
      demo         Show the main job: a client that fails on a strict model finishes through Farrier
      up           Run the gateway
      reload       Have the gateway that runs read its configuration again
      status       Say how the gateway that runs is doing
      run          Run a harness in a sandbox of its own, which reaches nothing but the gateway
      sandbox      Look after sandboxes: make, start, stop, enter, copy
      provider     Say which services there are and where their keys come from; no key is ever an
                   argument
      check        Look for mistakes in a configuration, and report all of them
      config       Write a harness's configuration for a route
      harness      Install harnesses with what they run on, pinned and proven, for sandboxes to share
      pair         Approve the devices of a harness's own in time, and nobody else's
      stage        Put together what an image needs of the manifests: plugins, records, how to copy them
      registry     Look at the manifests: what there is, what is wrong, what applies to a request
      policy       Look at policies: mistakes in them, what they make of a request, what would allow it
      logs         Show what proxies of sandboxes decided
      verify       Run the case of every intervention, with and without it
      sim          Play a strict thinking model over HTTP
      completions  Print completions for a shell
      help         Print this message or the help of the given subcommand(s)

    Options:
      -h, --help     Print help
      -V, --version  Print version

    Start with `farrier demo`: two seconds, no key, no network.
    --- exit 0
    "#);
}

#[test]
fn an_unknown_word_gets_the_nearest() {
    let said = Home::new().run(&["chekc"]);
    assert_snapshot!(said.shown(), @r#"
    --- stderr
    error: unrecognized subcommand 'chekc'

      tip: a similar subcommand exists: 'check'

    Usage: farrier <COMMAND>

    For more information, try '--help'.
    --- exit 2
    "#);
}

#[test]
fn no_word_at_all_is_a_usage_error_with_the_help() {
    let said = Home::new().run(&[]);
    assert_eq!((said.code, said.stdout.as_str()), (Some(2), ""));
    assert!(said.stderr.contains("Usage: farrier <COMMAND>"));
}

#[test]
fn completions_know_every_subcommand() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let said = Home::new().run(&["completions", shell]);
        assert_eq!(said.code, Some(0));
        for word in [
            "check",
            "completions",
            "config",
            "demo",
            "harness",
            "pair",
            "registry",
            "reload",
            "run",
            "sandbox",
            "sim",
            "stage",
            "status",
            "up",
        ] {
            assert!(said.stdout.contains(word), "{shell} lacks {word}");
        }
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let home = Home::new();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let said = home
        .command(&["check", "--keys"])
        .stdout(writer)
        .output()
        .unwrap();
    assert_eq!(Said::of(said).shown(), "--- exit 0");
}
