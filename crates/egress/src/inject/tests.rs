use farrier_secrets::{Credentials, Profile, ProviderSpec, Scheme, SecretRef};

use super::*;

const CANARY: &str = "sk-canary-7f3a";

/// The secret of each key is `value`; the host is the same for all.
fn attached(kind: &str, keys: &[&str], value: &'static str) -> Attached {
    let spec = ProviderSpec {
        name: kind.parse().unwrap(),
        profile: Profile::named(kind).unwrap(),
        base_url: (kind == "generic").then(|| "https://api.example.com".to_owned()),
        keys: keys
            .iter()
            .map(|key| {
                (
                    key.parse().unwrap(),
                    SecretRef::Env {
                        name: (*key).to_owned(),
                    },
                )
            })
            .collect(),
    };
    let names = [spec.name.clone()];
    Credentials::fetch([spec], |source| {
        source.resolve(&|_: &str| Some(value.to_owned()))
    })
    .attached(&names)
}

fn to<'a>(host: &'a str, path: &'a str) -> Destination<'a> {
    Destination {
        scheme: Scheme::Https,
        host,
        port: 443,
        path,
    }
}

fn header(value: &str) -> Result<Option<String>, InjectError> {
    let attached = attached("generic", &["KEY"], CANARY);
    let lender = Lender::new(&attached, to("api.example.com", "/"), Places::default());
    let resolved = lender.header(&HeaderValue::from_str(value).unwrap())?;
    assert!(resolved.as_ref().is_none_or(HeaderValue::is_sensitive));
    Ok(resolved.map(|value| value.to_str().unwrap().to_owned()))
}

#[test]
fn a_header_value_is_replaced_as_a_whole_or_after_its_scheme() {
    for (value, expected) in [
        ("openshell:resolve:env:KEY", "sk-canary-7f3a"),
        (
            "Bearer openshell:resolve:env:v3_KEY",
            "Bearer sk-canary-7f3a",
        ),
        ("token farrier:resolve:env:KEY", "token sk-canary-7f3a"),
        (
            "Bearer xoxb-OPENSHELL-RESOLVE-ENV-KEY",
            "Bearer sk-canary-7f3a",
        ),
    ] {
        assert_eq!(header(value).unwrap().as_deref(), Some(expected));
    }
    for value in [
        "Bearer sk-own",
        "Basic !!",
        "text/html",
        "Basic dXNlcjpwYXNz",
    ] {
        assert_eq!(header(value), Ok(None), "{value}");
    }
}

#[test]
fn a_marker_elsewhere_in_a_head_is_refused() {
    for value in [
        "a=openshell:resolve:env:KEY; b=c",
        "Bearer openshell:resolve:env:KEY trailing",
        "xopenshell:resolve:env:KEY",
        "openshell:resolve:env:",
        "openshell:resolve:env:KEY, openshell:resolve:env:KEY",
    ] {
        assert!(
            matches!(header(value), Err(InjectError::Misplaced { .. })),
            "{value}"
        );
    }
    let missing = header("Bearer openshell:resolve:env:OTHER");
    assert!(matches!(
        missing,
        Err(InjectError::Refused(Refusal::Unavailable(_)))
    ));
}

#[test]
fn basic_credentials_are_decoded_replaced_and_encoded() {
    let basic = |plain: &str| header(&format!("Basic {}", STANDARD.encode(plain)));
    let encoded = |plain: &str| Some(format!("Basic {}", STANDARD.encode(plain)));
    assert_eq!(
        basic("x-access-token:openshell:resolve:env:KEY"),
        Ok(encoded("x-access-token:sk-canary-7f3a"))
    );
    assert_eq!(
        basic("openshell:resolve:env:KEY:"),
        Ok(encoded("sk-canary-7f3a:"))
    );
    assert_eq!(
        basic("openshell:resolve:env:KEY:pw"),
        Ok(encoded("sk-canary-7f3a:pw"))
    );
    assert_eq!(
        basic("openshell:resolve:env:KEY"),
        Ok(encoded("sk-canary-7f3a"))
    );
    assert_eq!(
        basic("openshell:resolve:env:KEY:farrier:resolve:env:KEY"),
        Ok(encoded("sk-canary-7f3a:sk-canary-7f3a"))
    );
    for plain in [
        "u:xopenshell:resolve:env:KEY.",
        "u:a openshell:resolve:env:KEY",
    ] {
        assert!(
            matches!(basic(plain), Err(InjectError::Misplaced { .. })),
            "{plain}"
        );
    }
}

fn target(
    path: &str,
    query: Option<&str>,
    places: Places,
    value: &'static str,
) -> Result<String, InjectError> {
    let attached = attached("telegram", &["TELEGRAM_BOT_TOKEN"], value);
    let lender = Lender::new(&attached, to("api.telegram.org", path), places);
    lender.target(path, query).map(|target| target.to_string())
}

#[test]
fn a_segment_is_replaced_within_and_encoded_for_where_it_stands() {
    let token = "12345:AA-canary_x";
    for path in [
        "/botopenshell:resolve:env:TELEGRAM_BOT_TOKEN/getMe",
        "/botopenshell%3Aresolve%3aenv%3ATELEGRAM_BOT_TOKEN/getMe",
    ] {
        assert_eq!(
            target(path, None, Places::default(), token).unwrap(),
            "/bot12345:AA-canary_x/getMe"
        );
    }
    assert_eq!(
        target("/a%20b//c", Some("q=%20"), Places::default(), token).unwrap(),
        "/a%20b//c?q=%20"
    );
    for secret in ["a/../b", "a?b", "a#b", "a..b", "a%2fb", "a\\b"] {
        let refused = target(
            "/botopenshell:resolve:env:TELEGRAM_BOT_TOKEN/x",
            None,
            Places::default(),
            secret,
        );
        assert!(
            matches!(refused, Err(InjectError::Characters { .. })),
            "{secret}"
        );
        assert!(!refused.unwrap_err().to_string().contains(secret));
    }
}

#[test]
fn a_query_value_is_replaced_where_that_is_opted_in_and_refused_elsewhere() {
    let query = Some("a=1&key=openshell%3Aresolve%3Aenv%3ATELEGRAM_BOT_TOKEN&b");
    let open = Places {
        query: true,
        ..Places::default()
    };
    assert_eq!(
        target("/x", query, open, "a&b=c d").unwrap(),
        "/x?a=1&key=a%26b%3Dc%20d&b"
    );
    assert!(matches!(
        target("/x", query, Places::default(), "a"),
        Err(InjectError::Misplaced { .. })
    ));
    for query in [
        "openshell:resolve:env:TELEGRAM_BOT_TOKEN=1",
        "a=xopenshell:resolve:env:TELEGRAM_BOT_TOKEN",
    ] {
        assert!(target("/x", Some(query), open, "a").is_err(), "{query}");
    }
}

fn slack(text: &str, value: &'static str) -> Option<String> {
    let attached = attached("slack", &["SLACK_BOT_TOKEN"], value);
    let lender = Lender::new(
        &attached,
        to("slack.com", "/api/chat.postMessage"),
        Places::default(),
    );
    let resolved = if text.starts_with('{') {
        lender.json(text, Place::Body)
    } else {
        lender.form(text)
    };
    resolved.unwrap().map(|text| text.to_string())
}

#[test]
fn a_body_is_replaced_only_under_a_name_for_secrets_and_is_else_untouched() {
    let ph = "xoxb-OPENSHELL-RESOLVE-ENV-SLACK_BOT_TOKEN";
    assert_eq!(
        slack(
            &format!(r#"{{ "token" : "{ph}", "text":"{ph} is {ph}","n":1.0}}"#),
            "a\"b"
        )
        .unwrap(),
        format!(r#"{{ "token" : "a\"b", "text":"{ph} is {ph}","n":1.0}}"#)
    );
    assert_eq!(
        slack(&format!("text={ph}&token={ph}&x=%20"), "a&b=c").unwrap(),
        format!("text={ph}&token=a%26b%3Dc&x=%20")
    );
    for text in [
        format!(r#"{{"text":"{ph}"}}"#),
        format!(r#"{{"text":"\"token\":\"{ph}\""}}"#),
        format!(r#"{{"token":["{ph}"]}}"#),
        format!(r#"{{"token":"x {ph}"}}"#),
        format!(r#"{{"{ph}":"token"}}"#),
        "{\"token\":\"".to_owned(),
        format!("text={ph}"),
        "token=own".to_owned(),
    ] {
        assert_eq!(slack(&text, "a"), None, "{text}");
    }
}

#[test]
fn what_was_lent_is_told_by_name_alone() {
    let attached = attached("generic", &["KEY"], CANARY);
    let lender = Lender::new(&attached, to("api.example.com", "/"), Places::default());
    let mut headers = HeaderMap::new();
    for name in ["authorization", "x-api-key"] {
        headers.insert(name, HeaderValue::from_static("openshell:resolve:env:KEY"));
    }
    lender.headers(&mut headers).unwrap();
    assert_eq!(lender.into_lent().0, ["generic/KEY"]);
    assert!(!format!("{headers:?}").contains("canary"));
}

proptest::proptest! {
    #[test]
    fn strings_of_json_are_found_in_any_text(text in "(\"|token|:|\\\\|openshell:resolve:env:K|\\{|,| |é){0,20}") {
        for ((start, end), key) in fields_of_json(&text) {
            proptest::prop_assert_eq!(placeholder::whole(&text[start..end]), Some(key));
        }
    }
}
