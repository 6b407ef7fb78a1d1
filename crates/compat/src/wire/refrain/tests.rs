use proptest::prelude::*;

use super::*;
use crate::wire::sse;

/// A refrain learnt from the event with this data, if there is anything to learn.
fn learnt(data: &str) -> Refrain {
    learnt_from(event(data).as_bytes())
}

fn learnt_from(frame: &[u8]) -> Refrain {
    let data = sse::data(frame).expect("has data");
    let mut refrain = Refrain::default();
    refrain.learn(frame, &mut Chunk::parse(&data).expect("a chunk"));
    refrain
}

fn event(data: &str) -> String {
    format!("data: {data}\n\n")
}

/// What the event with `data` says, if all of it repeats `refrain`.
fn said(refrain: &mut Refrain, data: &str) -> Option<Vec<(Field, String)>> {
    let frame = event(data);
    let words = refrain.repeats(frame.as_bytes())?;
    let owned = words.iter().map(|(field, word)| (field, word.to_owned()));
    (words.length == frame.len()).then(|| owned.collect())
}

fn delta(delta: &str) -> String {
    format!(
        r#"{{"id":"c-7","choices":[{{"index":0,"delta":{delta},"finish_reason":null}}],"created":17}}"#
    )
}

fn going_on(arguments: &str) -> String {
    delta(&format!(
        r#"{{"tool_calls":[{{"index":0,"function":{{"arguments":"{arguments}"}}}}]}}"#
    ))
}

#[test]
fn chunk_with_other_words_repeats_and_tells_them_as_written() {
    let cases = [
        (
            delta(r#"{"content":"The"}"#),
            delta(r#"{"content":" cl\u00f6ck\n"}"#),
            Field::Content,
            r" cl\u00f6ck\n",
        ),
        (
            delta(r#"{"content":"The"}"#),
            delta(r#"{"content":""}"#),
            Field::Content,
            "",
        ),
        (
            delta(r#"{"content":null,"reasoning_content":"a"}"#),
            delta(r#"{"content":null,"reasoning_content":"😀"}"#),
            Field::ReasoningContent,
            "😀",
        ),
        (
            delta(r#"{"reasoning":"a"}"#),
            delta(r#"{"reasoning":"b"}"#),
            Field::Reasoning,
            "b",
        ),
        (
            going_on(""),
            going_on(r#"{\"a"#),
            Field::Arguments,
            r#"{\"a"#,
        ),
    ];
    for (first, second, field, word) in cases {
        let said = said(&mut learnt(&first), &second);
        assert_eq!(said, Some(vec![(field, word.to_owned())]), "{second}");
    }
}

#[test]
fn what_nobody_reads_may_differ() {
    let first = r#"{"id":"c-7","choices":[{"index":0,"delta":{"reasoning":"a","details":[{"text":"a"}],"seed":1},"logprob":-0.5}],"usage":{"n":1},"at":17}"#;
    let second = r#"{"id":"c-8","choices":[{"index":0,"delta":{"reasoning":"b","details":[{"text":"\"b"}],"seed":20},"logprob":1e-7}],"usage":{"n":0},"at":18.5}"#;
    let mut refrain = learnt(first);
    let word = |word: &str| Some(vec![(Field::Reasoning, word.to_owned())]);
    assert_eq!(said(&mut refrain, second), word("b"));
    assert_eq!(said(&mut refrain, second), word("b"), "to the letter");
    assert_eq!(said(&mut refrain, first), word("a"), "and back");
}

#[test]
fn one_event_repeats_at_a_time() {
    let first = event(&delta(r#"{"content":"The"}"#));
    let other = event(&delta(r#"{"content":"other"}"#));
    let mut refrain = learnt_from(first.as_bytes());
    let read = [&*other, &*first, "\n"].concat();
    let words = refrain.repeats(read.as_bytes()).expect("repeats");
    assert_eq!(words.length, other.len());
    for cut in 0..other.len() {
        assert!(
            refrain.repeats(&read.as_bytes()[..cut]).is_none(),
            "cut at {cut}"
        );
    }
}

#[test]
fn frame_whose_lines_end_in_bare_cr_is_not_learnt() {
    let chunk = delta(r#"{"content":"The"}"#);
    for (end, learns) in [("\n", true), ("\r\n", true), ("\r", false)] {
        let frame = format!("data: {chunk}{end}{end}");
        let repeats = learnt_from(frame.as_bytes())
            .repeats(frame.as_bytes())
            .is_some();
        assert_eq!(repeats, learns, "{end:?}");
    }
}

#[test]
fn what_is_not_the_same_but_for_its_words_does_not_repeat() {
    let first = delta(r#"{"content":"The"}"#);
    let others = [
        delta(r#"{"content":"The" }"#),
        delta(r#"{"content":"a\x"}"#),
        delta(r#"{"content":"a\u00g0"}"#),
        delta("{\"content\":\"a\tb\"}"),
        delta(r#"{"content":"a","role":"assistant"}"#),
        delta(r#"{"content":null}"#),
        delta(r#"{"content":["a"]}"#),
        delta(r#"{"reasoning":"a"}"#),
        first.replace("null", "\"stop\""),
        first.replace("\"index\":0", "\"index\":1"),
        first.replace(":17", ":017"),
        first.replace(":17", ":-"),
        first.replace(":17", ":1."),
        first.replace(":17", ":\"17\""),
        first.replace("c-7", "c\\-7"),
        format!("{first} "),
        format!("{first}\n"),
        first.replace("}]", "},{}]"),
        String::new(),
    ];
    for other in others {
        assert_eq!(said(&mut learnt(&first), &other), None, "{other}");
    }
    let mut refrain = learnt(&first);
    let mut bytes = event(&first).into_bytes();
    let at = first.find("The").expect("a word") + "data: ".len();
    bytes[at] = 0xff;
    assert!(refrain.repeats(&bytes).is_none(), "not UTF-8");
}

#[test]
fn chunk_that_says_more_than_words_is_not_learnt() {
    let chunks = [
        delta("{}").replace("null", "\"stop\""),
        delta("{}").replace("\"delta\"", "\"message\""),
        delta("{}").replace("\"created\"", "\"error\""),
        delta(r#"{"content":[{"type":"text","text":"a"}]}"#),
        going_on("").replace("\"index\":0,\"function\"", "\"function\""),
        going_on("").replace("\"index\":0,\"function\"", "\"index\":0,\"id\":\"a\",\"function\""),
        going_on("").replace("\"arguments\"", "\"name\":\"f\",\"arguments\""),
        going_on("").replace("\"arguments\":\"\"", "\"arguments\":{}"),
        delta(r#"{"tool_calls":[{"index":0,"function":{"arguments":""}},{"index":1,"function":{"arguments":""}}]}"#),
        delta(r#"{"tool_calls":[]}"#),
        r#"{"choices":[]}"#.to_owned(),
        r#"{"choices":[{"delta":{"content":"a"}},{"delta":{"content":"a"}}]}"#.to_owned(),
        r#"{"choices":[{"delta":{"content":"a"}}],"many":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]}"#.to_owned(),
    ];
    for chunk in chunks {
        assert_eq!(said(&mut learnt(&chunk), &chunk), None, "{chunk}");
    }
}

#[test]
fn chunk_in_two_lines_of_data_is_not_learnt() {
    let frame = b"data: {\"choices\":[{\"delta\":\ndata: {\"content\":\"a\"}}]}\n\n";
    assert!(learnt_from(frame).repeats(frame).is_none());
}

#[test]
fn nothing_repeats_what_was_forgotten() {
    let chunk = delta(r#"{"content":"The"}"#);
    let mut refrain = learnt(&chunk);
    refrain.forget();
    assert_eq!(said(&mut refrain, &chunk), None);
    assert_eq!(said(&mut refrain, ""), None);
}

proptest! {
    /// A word is taken exactly when an independent reader takes it.
    #[test]
    fn word_is_what_a_json_string_may_hold(word in "([a-c\"\\\\/bfnrtux0-9d\u{1}\u{1f}\u{7f}é😀]|\\\\u[0-9a-fA-F]{4}|\\\\[\"\\\\/bfnrt]){0,24}") {
        let chunk = delta(&format!("{{\"content\":\"{word}\"}}"));
        let valid = serde_json::from_str::<serde::de::IgnoredAny>(&format!("\"{word}\"")).is_ok();
        let repeats = said(&mut learnt(&delta(r#"{"content":"The"}"#)), &chunk);
        prop_assert_eq!(repeats, valid.then(|| vec![(Field::Content, word)]));
    }

    /// So is a number.
    #[test]
    fn number_is_what_json_calls_one(number in "-?[0-9]{0,3}(\\.[0-9]{0,3})?([eE][+-]?[0-9]{0,2})?") {
        let chunk = delta(r#"{"content":"a"}"#);
        let other = chunk.replace(":17", &format!(":{number}"));
        let valid = serde_json::from_str::<serde::de::IgnoredAny>(&number).is_ok() || number.len() > 300;
        prop_assert_eq!(said(&mut learnt(&chunk), &other).is_some(), valid, "{}", number);
    }

    /// Whatever repeats would have been read, and says the same.
    #[test]
    fn mangled_chunk_that_repeats_says_what_a_reader_reads(
        at in 0usize..200, cut in 0usize..4, put in "[\"\\\\{}:,0-9a-z ]{0,3}",
    ) {
        let first = r#"{"id":"c-7","choices":[{"index":0,"delta":{"content":"The","reasoning":"b"},"finish_reason":null}],"created":17}"#;
        let mut other = first.to_owned();
        let at = at % first.len();
        other.replace_range(at..(at + cut).min(first.len()), &put);
        if let Some(said) = said(&mut learnt(first), &other) {
            let mut chunk = Chunk::parse(other.as_bytes()).expect("repeats, and is no chunk");
            prop_assert!(!chunk.has_error());
            prop_assert_eq!(chunk.choices().count(), 1);
            for choice in chunk.choices() {
                prop_assert_eq!((choice.index(), choice.finish()), (0, None));
                let delta = choice.part().expect("a delta");
                prop_assert_eq!(delta.fields().count(), 2);
                for (field, word) in &said {
                    let read = delta.get(field.key()).and_then(Value::raw);
                    let written = format!("\"{word}\"");
                    prop_assert_eq!(read, Some(written.as_str()));
                }
            }
        }
    }
}
