use super::*;

const CANARY: &str = "canary-8c1f";

fn found(files: &[(&str, &str)], variables: &[(&str, &str)]) -> Result<Origins, NoOrigin> {
    let home = tempfile::tempdir().expect("a directory");
    for (name, text) in files {
        let path = home.path().join(name);
        fs::create_dir_all(path.parent().expect("in the home")).expect("made");
        fs::write(path, text).expect("written");
    }
    let mut all = vec![("HOME", home.path().to_str().expect("a name"))];
    all.extend_from_slice(variables);
    Origins::find(Named::default(), &Environment::of(&all))
}

fn shown(origins: &Origins, to: &str) -> (Option<String>, Option<String>) {
    let to: Uri = to.parse().expect("a URL");
    let key = |origin: &Origin| {
        let key = origin.key_for(&to)?;
        Some(key.to_str().expect("text").to_owned())
    };
    (key(&origins.registry), key(&origins.index))
}

#[test]
fn nothing_configured_means_the_public_ones() {
    let without_files = [
        ("NPM_CONFIG_GLOBALCONFIG", "/dev/null"),
        ("PIP_CONFIG_FILE", "/dev/null"),
    ];
    let origins = found(&[], &without_files).expect("found");
    assert_eq!(origins.registry.base, REGISTRY);
    assert_eq!(origins.index.base, INDEX);
}

#[test]
fn files_are_read_and_variables_count_more_than_they() {
    let files = [
        (
            ".npmrc",
            "; mine\nregistry = http://npm.test/a/\ncafile=/ca.pem\n",
        ),
        (
            ".config/pip/pip.conf",
            "[global]\nindex-url = http://pip.test/all/\n[install]\nindex-url=http://pip.test/install\n",
        ),
    ];
    let origins = found(&files, &[]).expect("found");
    assert_eq!(origins.registry.base, "http://npm.test/a");
    assert_eq!(origins.index.base, "http://pip.test/install");
    assert!(origins.authorities.contains(&PathBuf::from("/ca.pem")));
    let variables = [
        ("NPM_CONFIG_REGISTRY", "http://npm.test/b"),
        ("UV_INDEX_URL", "http://uv.test"),
        ("PIP_INDEX_URL", "http://pip.test/b"),
    ];
    let origins = found(&files, &variables).expect("found");
    assert_eq!(origins.registry.base, "http://npm.test/b");
    assert_eq!(origins.index.base, "http://pip.test/b");
}

#[test]
fn a_password_is_sent_to_its_own_host_and_shown_nowhere() {
    let npmrc = "registry=https://npm.test/a\n//npm.test/a/:_authToken=${TOKEN}\n";
    let pip = format!("[global]\nindex-url = https://me:{CANARY}%21@pip.test/simple\n");
    let files = [(".npmrc", npmrc), (".pip/pip.conf", pip.as_str())];
    let origins = found(&files, &[("TOKEN", CANARY)]).expect("found");
    let basic = format!("Basic {}", STANDARD.encode(format!("me:{CANARY}!")));
    let bearer = format!("Bearer {CANARY}");
    assert_eq!(shown(&origins, "https://npm.test/x"), (Some(bearer), None));
    assert_eq!(shown(&origins, "https://pip.test/x"), (None, Some(basic)));
    for elsewhere in [
        "http://npm.test/x",
        "https://npm.test:444/x",
        "https://other/x",
    ] {
        assert_eq!(shown(&origins, elsewhere), (None, None), "{elsewhere}");
    }
    assert!(!format!("{origins:?}").contains(CANARY));
    assert_eq!(origins.index.base, "https://pip.test/simple");
}

#[test]
fn a_password_in_an_argument_is_refused_and_not_repeated() {
    let url = format!("https://me:{CANARY}@pip.test/simple");
    let named = Named {
        registry: None,
        index: Some(&url),
    };
    let error = Origins::find(named, &Environment::of(&[])).expect_err("refused");
    assert!(!error.to_string().contains(CANARY), "{error}");
    assert!(error.to_string().contains("--index"), "{error}");
}

#[test]
fn what_is_no_url_is_said_to_be_none() {
    for url in ["npm.test", "file:///x", "https://", "ftp://x/"] {
        let error = found(&[], &[("NPM_CONFIG_REGISTRY", url)]).expect_err(url);
        assert!(error.to_string().contains("npm's configuration"), "{error}");
    }
}
