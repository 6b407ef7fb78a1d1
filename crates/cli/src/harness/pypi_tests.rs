use super::*;

const A: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
const B: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn debian() -> Tags {
    Tags {
        minor: 11,
        arch: "x86_64".to_owned(),
        glibc: Some(36),
    }
}

fn page(kind: &str, text: &str) -> Page {
    Page {
        kind: kind.to_owned(),
        text: text.to_owned(),
        url: "https://index.test/simple/a-b/".parse().expect("a URL"),
    }
}

#[test]
fn lines_that_go_on_and_remarks_are_read_as_pip_reads_them() {
    let text = format!(
        "# made by hand\nA_b==1.0 \\\n    --hash={A} \\\n    --hash={B}\n    # via c\nc[x]==2!1.0+local --hash={A} # why\n"
    );
    let pins = read(&text).expect("sound");
    assert_eq!(pins.len(), 2);
    assert_eq!((&*pins[0].name, &*pins[0].version), ("a-b", "1.0"));
    assert_eq!(pins[0].digests.len(), 2);
    assert_eq!((&*pins[1].name, &*pins[1].version), ("c", "2!1.0+local"));
}

#[test]
fn what_is_pinned_by_less_than_a_digest_is_refused() {
    for (text, said) in [
        ("a==1", "--hash=sha256:… of a, got none"),
        ("a>=1", "name==version, got \"a>=1\" (line 1)"),
        ("-r other.txt", "(line 1)"),
        ("\n--index-url https://x", "(line 2)"),
        ("../a==1", "(line 1)"),
        ("a==1 --hash=md5:00", "(line 1)"),
    ] {
        let error = read(text).expect_err(text).to_string();
        assert!(error.contains(said), "{text}: {error}");
    }
}

#[test]
fn the_wheel_for_this_very_python_comes_before_all_others() {
    let rank = |file: &str| debian().rank(file);
    let order = [
        "a-1-py3-none-any.whl",
        "a-1-py2.py3-none-any.whl",
        "a-1-py3-none-manylinux1_x86_64.whl",
        "a-1-cp37-abi3-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        "a-1-cp311-abi3-manylinux_2_28_x86_64.whl",
        "a-1-cp311-cp311-linux_x86_64.whl",
        "a-1-cp311-cp311-manylinux_2_17_x86_64.whl",
        "a-1-1build-cp311-cp311-manylinux_2_36_x86_64.whl",
    ];
    for pair in order.windows(2) {
        assert!(rank(pair[0]) <= rank(pair[1]), "{pair:?}");
        assert!(rank(pair[0]).is_some(), "{pair:?}");
    }
    for other in [
        "a-1-cp312-cp312-manylinux_2_17_x86_64.whl",
        "a-1-cp312-abi3-manylinux_2_17_x86_64.whl",
        "a-1-cp311-cp311t-manylinux_2_17_x86_64.whl",
        "a-1-cp311-cp311-manylinux_2_37_x86_64.whl",
        "a-1-cp311-cp311-musllinux_1_2_x86_64.whl",
        "a-1-cp311-cp311-manylinux_2_17_aarch64.whl",
        "a-1-cp311-cp311-win_amd64.whl",
        "a-1.tar.gz",
    ] {
        assert_eq!(rank(other), None, "{other}");
    }
    let alpine = Tags {
        glibc: None,
        ..debian()
    };
    let musl = "a-1-cp311-cp311-musllinux_1_2_x86_64.whl";
    assert!(alpine.rank(musl).is_some());
}

#[test]
fn both_kinds_of_page_lead_to_the_same_wheel() {
    let hex = |digest: &str| digest.replace("sha256:", "");
    let pin = &read(&format!("a-b==1 --hash={A}")).expect("sound")[0];
    let file = "a_b-1-py3-none-any.whl";
    let json = format!(
        r#"{{"files":[{{"filename":"a_b-1.tar.gz","url":"x","hashes":{{"sha256":"{}"}}}},{{"filename":"{file}","url":"../../f/{file}","hashes":{{"sha256":"{}"}}}}]}}"#,
        hex(B),
        hex(A)
    );
    let html = format!(
        "<!DOCTYPE html><a href=\"x#sha256={}\">a</a><br/><a data-x='' href='../../f/{file}?a=1&amp;b=2#sha256={}'>{file}</a>",
        hex(B),
        hex(A)
    );
    let of_json = page("application/vnd.pypi.simple.v1+json", &json);
    let wheel = pin.choose(&of_json, &debian()).expect("a wheel");
    assert_eq!(wheel.file, file);
    assert_eq!(wheel.url, format!("https://index.test/f/{file}"));
    let wheel = pin
        .choose(&page("text/html", &html), &debian())
        .expect("a wheel");
    assert_eq!(wheel.file, file);
    assert_eq!(wheel.url, format!("https://index.test/f/{file}?a=1&b=2"));
}

#[test]
fn a_wheel_that_the_lock_file_does_not_know_is_none() {
    let pin = &read(&format!("a-b==1 --hash={A}")).expect("sound")[0];
    let html =
        "<a href='a_b-1-py3-none-any.whl#sha256=00'>x</a><a href='a_b-2-py3-none-any.whl'>x</a>";
    let error = pin
        .choose(&page("text/html", html), &debian())
        .expect_err("none");
    assert_eq!(
        error.to_string(),
        "expected a wheel of a-b 1 for Python 3.11 on Linux x86_64 (glibc 2.36) that the lock file knows, got none"
    );
    let error = pin.choose(&page("application/json", "{"), &debian());
    assert!(matches!(error, Err(NoWheel::NoPage(_))));
}
