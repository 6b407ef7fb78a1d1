use super::*;

/// What is wrong with a policy that was changed in one place.
fn wrong(change: impl FnOnce(&mut Policy)) -> Option<String> {
    let mut policy = Policy::on_host("box");
    change(&mut policy);
    policy.check().err().map(|error| error.to_string())
}

fn listener(name: &str, address: &str) -> Listener {
    Listener {
        name: name.to_owned(),
        address: ListenAddress::Tcp(address.parse().expect("an address")),
    }
}

#[test]
fn the_usual_policy_is_right() {
    assert_eq!(wrong(|_| ()), None);
}

#[test]
fn a_name_is_one_that_a_host_can_have() {
    let long = "x".repeat(64);
    for name in ["", "-a", "a-", "A", "a.b", "a/b", "a b", long.as_str()] {
        let expected = format!(
            "name: expected 1 to 63 letters, digits and inner hyphens, in lower case, got {name:?}"
        );
        assert_eq!(
            wrong(|policy| policy.name = name.to_owned()),
            Some(expected)
        );
    }
    assert_eq!(wrong(|policy| policy.name = "a-1".to_owned()), None);
}

#[test]
fn a_path_leads_nowhere_but_where_it_says() {
    for path in ["relative", "/a/../b", "/a\0b", ""] {
        let source = wrong(|policy| {
            policy.binds.push(Bind {
                source: path.into(),
                target: "/there".into(),
                access: Access::ReadOnly,
            });
        });
        let expected =
            format!("binds.source: expected an absolute path without `.` and `..`, got {path}");
        assert_eq!(source, Some(expected));
    }
}

#[test]
fn nobody_is_root_inside_or_on_the_host() {
    let inside = wrong(|policy| policy.user.uid = 0);
    let outside = wrong(|policy| policy.host_user = Some(HostUser { uid: 7, gid: 0 }));
    let expected = |what| {
        Some(format!(
            "{what}: expected an unprivileged user, got number 0"
        ))
    };
    assert_eq!([inside, outside], [expected("user"), expected("host_user")]);
}

#[test]
fn two_listeners_share_neither_name_nor_address() {
    let twice =
        |one: Listener, other: Listener| wrong(|policy| policy.listeners = vec![one, other]);
    let same_name = twice(listener("a", "[::]:1"), listener("a", "[::]:2"));
    let same_address = twice(listener("a", "[::]:1"), listener("b", "[::]:1"));
    let expected = |name| {
        Some(format!(
            "listener {name:?}: another has the same name or address, each needs one of its own"
        ))
    };
    assert_eq!([same_name, same_address], [expected("a"), expected("b")]);
}

#[test]
fn an_entry_of_the_environment_that_is_wrong_is_named_without_its_value() {
    let message = wrong(|policy| {
        policy
            .environment
            .insert("A=B".to_owned(), "canary".to_owned());
    });
    let expected =
        "environment: expected a name without `=` and NUL and a value without NUL, got \"A=B\"";
    assert_eq!(message.as_deref(), Some(expected));
}

#[test]
fn a_policy_that_is_shown_in_a_log_names_its_variables_and_keeps_their_values() {
    let mut policy = Policy::on_host("box");
    policy
        .environment
        .insert("TOKEN".to_owned(), "canary".to_owned());
    policy.write("/etc/token", "canary");
    let shown = format!("{policy:?}");
    assert!(
        shown.contains("TOKEN") && shown.contains("/etc/token"),
        "{shown}"
    );
    assert!(!shown.contains("canary"), "{shown}");
}

#[test]
fn a_file_that_is_written_twice_is_there_once_as_it_was_written_last() {
    let mut policy = Policy::on_host("box");
    policy.write("/etc/hosts", "one");
    policy.write("/etc/hosts", "two");
    let hosts = policy
        .files
        .iter()
        .filter(|file| file.path == Path::new("/etc/hosts"));
    let contents: Vec<_> = hosts.map(|file| file.contents.as_str()).collect();
    assert_eq!(contents, ["two"]);
}

#[test]
fn a_file_that_is_shown_in_a_log_says_how_long_it_is_and_not_what_it_says() {
    let file = File {
        path: "/etc/secret".into(),
        mode: 0o600,
        contents: "canary".to_owned(),
    };
    assert_eq!(
        format!("{file:?}"),
        "File { path: \"/etc/secret\", mode: 0o600, bytes: 6 }"
    );
}

#[test]
fn a_policy_is_the_same_after_it_was_written_and_read() {
    let policy = Policy::on_host("box");
    let text = serde_json::to_string(&policy).expect("JSON");
    assert_eq!(
        serde_json::from_str::<Policy>(&text).expect("a policy"),
        policy
    );
}
