use super::*;

fn json(text: &str) -> Document {
    Document::from_json(text).expect("JSON")
}

fn over(last: Option<&str>, there: &str, new: &str) -> String {
    let last = last.map(json);
    let merged = merged(last.as_ref(), &json(there), &json(new), &["a.token"]);
    serde_json::to_string(&merged).expect("serialises")
}

#[test]
fn what_is_new_gets_its_value_and_what_is_foreign_its_place() {
    assert_eq!(
        over(
            None,
            r#"{"z":1,"a":{"b":1,"c":2}}"#,
            r#"{"a":{"b":9,"d":3},"e":4}"#
        ),
        r#"{"z":1,"a":{"b":9,"c":2,"d":3},"e":4}"#
    );
}

#[test]
fn what_was_ours_goes_and_what_others_put_into_it_stays() {
    let last = r#"{"a":{"b":1,"c":{"d":1}},"x":[1]}"#;
    assert_eq!(over(Some(last), last, "{}"), "{}");
    assert_eq!(
        over(
            Some(last),
            r#"{"a":{"b":1,"c":{"d":1,"theirs":2}},"x":[1,2]}"#,
            "{}"
        ),
        r#"{"a":{"c":{"theirs":2}},"x":[2]}"#
    );
}

#[test]
fn a_seed_is_set_once_and_then_left_alone() {
    assert_eq!(
        over(None, r#"{"a":{}}"#, r#"{"a":{"token":""}}"#),
        r#"{"a":{"token":""}}"#
    );
    assert_eq!(
        over(
            Some(r#"{"a":{"token":""}}"#),
            r#"{"a":{"token":"t"}}"#,
            r#"{"a":{"token":""}}"#
        ),
        r#"{"a":{"token":"t"}}"#
    );
}

#[test]
fn items_are_known_by_id_or_by_value() {
    assert_eq!(
        over(
            Some(r#"{"l":[{"id":"old"},{"id":"same","x":1}],"p":["/old","/same"]}"#),
            r#"{"l":[{"id":"theirs"},{"id":"old"},{"id":"same","x":1,"y":2}],"p":["/theirs","/old","/same"]}"#,
            r#"{"l":[{"id":"new"},{"id":"same","x":3}],"p":["/new","/same"]}"#
        ),
        r#"{"l":[{"id":"new"},{"id":"same","x":3,"y":2},{"id":"theirs"}],"p":["/new","/same","/theirs"]}"#
    );
}

#[test]
fn a_value_of_another_kind_gives_way() {
    assert_eq!(
        over(
            None,
            r#"{"a":{"b":1},"c":[1],"d":1}"#,
            r#"{"a":1,"c":{},"d":[2]}"#
        ),
        r#"{"a":1,"c":{},"d":[2]}"#
    );
}
