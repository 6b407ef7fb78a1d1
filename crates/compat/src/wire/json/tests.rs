use super::*;
use proptest::prelude::*;

static OPEN: Shape = Shape::Object(&[
    ("a", Shape::Object(&[("b", Shape::Object(&[]))])),
    ("l", Shape::List(&Shape::Object(&[]))),
]);

fn written(value: &Value<'_>, source: &str) -> String {
    // Re-parse so that the lifetimes agree: kept slices must be of `source`.
    let mut out = String::new();
    value.emit(&mut out);
    assert!(out.len() <= source.len() + 1024);
    out
}

fn edited(source: &str, edit: impl FnOnce(&mut Object<'_>)) -> String {
    let mut value = parse(source, &OPEN).expect("valid");
    edit(value.object_mut().expect("an object"));
    let mut out = Segments::new(source);
    value.write(&mut out);
    out.to_text()
}

#[test]
fn untouched_document_is_one_kept_slice() {
    let source =
        " { \"a\" : {\"b\": {} } , \"n\":1.0, \"l\":[ {} , {\"x\":1e3}, 12345678901234567890 ] }";
    let value = parse(source, &OPEN).expect("valid");
    let mut out = Segments::new(source);
    value.write(&mut out);
    assert_eq!(out.into_pieces(), vec![Segment::Kept(source)]);
}

#[test]
fn set_keeps_every_other_byte() {
    let source = r#"{"a" : {"b":{}}, "n": 1.0,  "z":12345678901234567890}"#;
    let out = edited(source, |object| object.set("n", "2".into()));
    assert_eq!(
        out,
        r#"{"a" : {"b":{}}, "n": 2,  "z":12345678901234567890}"#
    );
}

#[test]
fn new_field_goes_last() {
    assert_eq!(
        edited(r#"{"n":1 }"#, |o| o.set("m", "2".into())),
        r#"{"n":1 ,"m":2}"#
    );
    assert_eq!(edited("{}", |o| o.set("m", "2".into())), r#"{"m":2}"#);
    assert_eq!(edited("{ }", |o| o.set("m", "2".into())), r#"{"m":2 }"#);
}

#[test]
fn removed_field_takes_its_comma_along() {
    let source = r#"{"x":1, "y":2, "z":3}"#;
    assert_eq!(
        edited(source, |o| assert!(o.remove("x"))),
        r#"{ "y":2, "z":3}"#
    );
    assert_eq!(
        edited(source, |o| assert!(o.remove("y"))),
        r#"{"x":1, "z":3}"#
    );
    assert_eq!(
        edited(source, |o| assert!(o.remove("z"))),
        r#"{"x":1, "y":2}"#
    );
    assert_eq!(edited(source, |o| assert!(!o.remove("w"))), source);
    let all = edited(source, |o| {
        for key in ["x", "y", "z"] {
            assert!(o.remove(key));
        }
    });
    assert_eq!(all, "{}");
}

#[test]
fn rename_stays_in_place() {
    let source = r#"{"x":1, "max_tokens" : 7,"z":3}"#;
    let out = edited(source, |o| {
        assert!(o.rename("max_tokens", "max_completion_tokens"));
    });
    assert_eq!(out, r#"{"x":1,"max_completion_tokens":7,"z":3}"#);
}

#[test]
fn replace_puts_several_items_in_place_of_one() {
    let source = r#"{"l":[{"i":0}, {"i":1} ,{"i":2}, {"i":3}]}"#;
    let out = edited(source, |o| {
        let list = o.get_mut("l").and_then(Value::list_mut).expect("a list");
        let mut n = 0;
        list.replace(|item| {
            n += 1;
            match n {
                2 => Replaced::By(vec!["10".into(), "11".into()]),
                3 => Replaced::By(vec![]),
                _ => Replaced::Kept(item),
            }
        });
    });
    assert_eq!(out, r#"{"l":[{"i":0},10,11, {"i":3}]}"#);
}

#[test]
fn errors_say_expected_got_and_where() {
    let cases = [
        ("", "expected a value, got the end of the text"),
        (
            "{",
            "expected a key in double quotes, got the end of the text",
        ),
        (
            r#"{"a":1"#,
            "expected `,` or `}` after a field, got the end of the text",
        ),
        (r#"{"a" 1}"#, "expected `:` after a key, got '1' (byte 5)"),
        (r#"{"a":tru}"#, "expected true, got '}' (byte 8)"),
        (
            r#"{"a":01}"#,
            "expected `,` or `}` after a field, got '1' (byte 6)",
        ),
        (
            r#"{"a":"x"#,
            "expected a closing quote, got the end of the text",
        ),
        (
            "{\"a\":\"x\ny\"}",
            "expected an escaped control character, got '\\n' (byte 7)",
        ),
        (
            r#"{"a":"\x"}"#,
            "expected an escape character, got 'x' (byte 7)",
        ),
        (
            r#"{"a":1,"a":2}"#,
            r#"expected each key once, got "a" twice (byte 11)"#,
        ),
        (
            r#"{"a":1,"\u0061":2}"#,
            r#"expected each key once, got "a" twice (byte 16)"#,
        ),
        ("{} x", "expected the end of the document, got 'x' (byte 3)"),
    ];
    for (source, message) in cases {
        let got = parse(source, &OPEN)
            .map(|_| ())
            .map_err(|error| error.to_string());
        assert_eq!(got, Err(message.to_owned()), "{source}");
    }
}

#[test]
fn many_fields_are_checked_for_duplicates_too() {
    let mut fields: Vec<String> = (0..100).map(|i| format!("\"k{i}\":{i}")).collect();
    parse(&format!("{{{}}}", fields.join(",")), &OPEN).expect("all different");
    fields.push("\"k3\":0".into());
    let error = parse(&format!("{{{}}}", fields.join(",")), &OPEN).expect_err("k3 twice");
    assert!(matches!(error, Malformed::DuplicateKey { key, .. } if key == "k3"));
}

#[test]
fn nesting_is_limited_and_never_recurses() {
    let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    parse(&deep(MAX_DEPTH), &OPEN).expect("as deep as allowed");
    assert_eq!(
        parse(&deep(10_000), &OPEN).map(|_| ()),
        Err(Malformed::TooDeep { at: MAX_DEPTH })
    );
}

#[test]
fn strings_decode_only_when_they_must() {
    assert!(matches!(
        unquote(r#""plain""#),
        Some(Cow::Borrowed("plain"))
    ));
    assert_eq!(unquote(r#""a\nb\u00e9""#).as_deref(), Some("a\nb\u{e9}"));
    assert_eq!(unquote(r#""\ud83d""#), None);
    assert_eq!(unquote("1"), None);
}

/// JSON text with odd white space and number spellings, never through a writer
/// that would normalise it.
fn json_text() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        Just("-0.0e+10".to_owned()),
        Just("12345678901234567890".to_owned()),
        Just("1.0".to_owned()),
        "\"[a-z \\\\n\u{e9}]{0,6}\"".prop_map(|s| s.replace('\\', "\\\\")),
    ];
    let space = prop_oneof![Just(""), Just(" "), Just("\n\t"), Just("\r\n")];
    leaf.prop_recursive(5, 40, 5, move |inner| {
        let list = (
            proptest::collection::vec(inner.clone(), 0..5),
            space.clone(),
        )
            .prop_map(|(items, ws)| format!("[{ws}{}{ws}]", items.join(&format!("{ws},{ws}"))));
        let object =
            (proptest::collection::vec(inner, 0..5), space.clone()).prop_map(|(items, ws)| {
                let names = ["a", "b", "l", "\u{e9}", "x\\ty"];
                let fields: Vec<String> = items
                    .into_iter()
                    .zip(names)
                    .map(|(item, name)| format!("{ws}\"{name}\"{ws}:{ws}{item}{ws}"))
                    .collect();
                format!("{{{ws}{}}}", fields.join(","))
            });
        prop_oneof![list, object]
    })
}

proptest! {
    #[test]
    fn i6_parse_then_write_is_the_identity(source in json_text()) {
        let value = parse(&source, &OPEN).expect("valid");
        let want = if value.object().is_some() { source.as_str() } else { source.trim() };
        prop_assert_eq!(written(&value, &source), want);
    }

    #[test]
    fn accepts_exactly_what_serde_json_accepts(source in "[\\[\\]{}\",:0-9eE.+\\-a-u\\\\ \n\u{1}\u{e9}]{0,24}") {
        let ours = parse(&source, &Shape::Object(&[])).map(|_| ());
        let theirs = serde_json::from_str::<serde::de::IgnoredAny>(&source).map(|_| ());
        // A duplicate key is the one thing refused here and not there.
        if !matches!(ours, Err(Malformed::DuplicateKey { .. })) {
            prop_assert_eq!(ours.is_ok(), theirs.is_ok(), "{:?} {:?}", ours, theirs);
        }
    }

    #[test]
    fn mutated_documents_are_judged_as_serde_json_does(source in json_text(), at in 0usize..200, byte in 0x20u8..0x7f) {
        let mut bytes = source.into_bytes();
        let len = bytes.len();
        bytes[at % len] = byte;
        if let Ok(text) = std::str::from_utf8(&bytes) {
            let ours = parse(text, &OPEN).map(|_| ());
            let theirs = serde_json::from_str::<serde::de::IgnoredAny>(text).map(|_| ());
            if !matches!(ours, Err(Malformed::DuplicateKey { .. })) {
                prop_assert_eq!(ours.is_ok(), theirs.is_ok(), "{} {:?} {:?}", text, ours, theirs);
            }
        }
    }

    #[test]
    fn set_and_remove_change_what_they_say_and_nothing_else(source in json_text(), value in "[a-z]{1,4}") {
        let mut parsed = parse(&source, &OPEN).expect("valid");
        if let Some(object) = parsed.object_mut() {
            let mut model: serde_json::Value = serde_json::from_str(&source).expect("valid");
            object.set("b", quote(&value));
            object.remove("l");
            model["b"] = value.into();
            model.as_object_mut().expect("object").remove("l");
            let text = written(&parsed, &source);
            prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&text).expect("still JSON"), model);
        }
    }
}

#[test]
fn opened_and_made_objects_are_edited_in_place() {
    let source = r#"{"k": {"x": 1.0 }, "n": 2}"#;
    let out = edited(source, |o| {
        o.get_mut("k")
            .and_then(Value::open)
            .expect("an object")
            .set("y", "true".into());
        assert!(o.get_mut("n").and_then(Value::open).is_none());
        o.set("m", "{}".into());
        o.get_mut("m")
            .and_then(Value::open)
            .expect("made")
            .set("z", "0".into());
    });
    assert_eq!(out, r#"{"k": {"x": 1.0 ,"y":true}, "n": 2,"m":{"z":0}}"#);
}

proptest! {
    #[test]
    fn strings_stop_where_a_plain_search_stops(text in "[ -~\u{7f}-\u{ff}\u{0}-\u{1f}\"\\\\]{0,40}", lead in 0usize..9) {
        let source = format!("\"{}{text}", "x".repeat(lead));
        let ours = parse(&source, &Shape::Object(&[])).map(|_| ());
        let theirs = serde_json::from_str::<serde::de::IgnoredAny>(&source).map(|_| ());
        prop_assert_eq!(ours.is_ok(), theirs.is_ok(), "{:?}", source);
    }
}

/// Each field of an opened object as its raw text says.
fn fields_as_read(object: &Object<'_>) -> serde_json::Map<String, serde_json::Value> {
    let fields = object.fields().map(|(key, value)| {
        let json = value.to_json();
        let value = serde_json::from_str(&json).expect("a field is a document");
        (key.to_owned(), value)
    });
    fields.collect()
}

proptest! {
    #[test]
    fn fields_are_those_an_independent_reader_finds(source in json_text(), lead in 0usize..200) {
        // Behind a string of any length, so that each border falls on each place of a block.
        let source = format!("{{\"x\":\"{}\",\"a\":{source},\"l\":[{source}]}}", "\\\"y".repeat(lead));
        let value = parse(&source, &OPEN).expect("valid");
        let object = value.object().expect("an object");
        let model: serde_json::Value = serde_json::from_str(&source).expect("valid");
        prop_assert_eq!(Some(&fields_as_read(object)), model.as_object());
        if let Some(inner) = object.get("a").and_then(Value::object) {
            prop_assert_eq!(Some(&fields_as_read(inner)), model["a"].as_object());
        }
        let items = object.get("l").and_then(Value::list).expect("a list").items();
        for item in items.filter_map(Value::object) {
            prop_assert_eq!(Some(&fields_as_read(item)), model["l"][0].as_object());
        }
    }

    #[test]
    fn long_documents_are_judged_as_serde_json_does(source in json_text(), lead in 0usize..1200, at in 0usize..2000, byte in any::<u8>()) {
        let mut bytes = format!("{{\"x\":\"{}\",\"a\":{source}}}", "\\\\z".repeat(lead)).into_bytes();
        let len = bytes.len();
        bytes[at % len] = byte;
        if let Ok(text) = std::str::from_utf8(&bytes) {
            let ours = parse(text, &OPEN).map(|_| ());
            let theirs = serde_json::from_str::<serde::de::IgnoredAny>(text).map(|_| ());
            if !matches!(ours, Err(Malformed::DuplicateKey { .. })) {
                prop_assert_eq!(ours.is_ok(), theirs.is_ok(), "{} {:?} {:?}", text, ours, theirs);
            }
        }
    }

    #[test]
    fn quoting_is_what_serde_json_does(text in any::<String>()) {
        prop_assert_eq!(quote(&text), serde_json::Value::from(text.as_str()).to_string());
        let quoted = quote(&text);
        prop_assert_eq!(unquote(&quoted), Some(Cow::Borrowed(text.as_str())));
    }
}

#[test]
fn large_shared_text_is_a_piece_of_its_own_and_small_text_is_gathered() {
    let source = r#"{"a":1,"b":2,"c":3}"#;
    let mut value = parse(source, &OPEN).expect("valid");
    let large = Bytes::from(format!("\"{}\"", "x".repeat(10_000)));
    let object = value.object_mut().expect("an object");
    object.set_shared("a", Bytes::from_static(b"\"s\""));
    object.set_shared("b", large.clone());
    object.set("d", "4".into());
    let mut out = Segments::new(source);
    value.write(&mut out);
    assert_eq!(
        out.to_text().len(),
        source.len() + 2 + large.len() - 1 + r#","d":4"#.len()
    );
    let pieces = out.into_pieces();
    let shared = pieces.iter().find_map(|piece| match piece {
        Segment::New(text) if text.len() == large.len() => Some(text.as_ptr()),
        Segment::Kept(_) | Segment::New(_) => None,
    });
    assert_eq!(shared, Some(large.as_ptr()), "not copied");
    let small: Vec<&[u8]> = pieces
        .iter()
        .map(Segment::as_bytes)
        .filter(|text| text.len() < 100)
        .collect();
    assert_eq!(
        small,
        [
            &br#"{"a":"#[..],
            br#""s""#,
            br#","b":"#,
            br#","c":3"#,
            br#","d":4"#,
            b"}"
        ]
    );
}

#[test]
fn shared_text_is_read_like_any_other() {
    let mut value = parse("{}", &OPEN).expect("valid");
    let object = value.object_mut().expect("an object");
    object.set_shared("a", Bytes::from_static(b"\"\\u00e9\""));
    assert_eq!(object.text("a").as_deref(), Some("\u{e9}"));
    assert_eq!(object.source_text("a"), None);
    assert_eq!(value.to_json(), r#"{"a":"\u00e9"}"#);
}
