use super::*;

#[test]
fn keys_keep_their_order_and_integers_stay_integers() {
    let text = "{\n  \"z\": 131072,\n  \"a\": [],\n  \"m\": {\n    \"b\": 0.25\n  }\n}\n";
    assert_eq!(Document::from_json(text).expect("JSON").to_json(), text);
}

#[test]
fn a_key_that_stands_twice_is_refused_in_either_format() {
    let json = Document::from_json(r#"{"a":1,"a":2}"#)
        .expect_err("twice")
        .to_string();
    assert!(json.contains("the key \"a\" twice"), "{json}");
    assert!(Document::from_yaml("a: 1\na: 2\n").is_err());
}

#[test]
fn yaml_that_is_nothing_is_an_empty_object_and_two_documents_are_refused() {
    assert_eq!(
        Document::from_yaml("# nothing\n"),
        Ok(Document::Object(Vec::new()))
    );
    assert!(Document::from_yaml("a: 1\n---\nb: 2\n").is_err());
}

#[test]
fn what_is_wrong_with_yaml_is_told_without_the_text() {
    let error = Document::from_yaml("api_key: top-secret\n  bad: [\n")
        .expect_err("bad")
        .to_string();
    assert!(!error.contains("top-secret"), "{error}");
}

#[test]
fn a_path_is_taken_out_with_what_it_leaves_empty() {
    let take = |path: &str| {
        let text = r#"{"a":{"b":{"c":1},"d":2},"l":[{"x":1,"y":2},{"x":3}]}"#;
        let mut document = Document::from_json(text).expect("JSON");
        let found = document.take_out(path);
        (found, serde_json::to_string(&document).expect("serialises"))
    };
    assert_eq!(
        take("a.b.c"),
        (
            true,
            r#"{"a":{"d":2},"l":[{"x":1,"y":2},{"x":3}]}"#.to_owned()
        )
    );
    assert_eq!(
        take("l.[].y"),
        (
            true,
            r#"{"a":{"b":{"c":1},"d":2},"l":[{"x":1},{"x":3}]}"#.to_owned()
        )
    );
    assert_eq!(take("a.*.c").1, take("a.b.c").1);
    assert!(!take("a.b.x").0 && !take("x.y").0);
}
