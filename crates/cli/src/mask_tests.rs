//! Nothing secret gets through, however it is cut; nothing else is touched.

use farrier_secrets::Secret;

use super::*;

fn masker(known: &[&str]) -> Masker {
    let secret = |text: &&str| Secret::new((*text).to_owned()).expect("a secret");
    Masker::new(known.iter().map(secret).collect())
}

/// One of each shape, and the part of it that must be gone.
fn of_every_shape() -> Vec<(String, String)> {
    let body = "Zq3".repeat(14);
    let token = |prefix: &str| (format!("{prefix}{body}"), body.clone());
    let mut all: Vec<(String, String)> = [
        "nvapi-",
        "nvcf-",
        "ghp_",
        "github_pat_",
        "sk-",
        "sk-proj-",
        "sk-ant-",
        "xoxb-",
        "xapp-",
        "hf_",
        "glpat-",
        "gsk_",
        "pypi-",
        "tvly-",
        "lsv2_",
        "123456789:",
        "Authorization: Bearer ",
        "BEARER ",
        "MY_SERVICE_KEY=",
        "export slack_token=",
    ]
    .map(token)
    .to_vec();
    let upper = "ABCD2345EFGH6789".to_owned();
    all.push((format!("AKIA{upper}"), upper.clone()));
    all.push((format!("ASIA{upper}"), upper));
    let (name, time, hash) = ("Zq3".repeat(8), "Zq3Zq3", "Zq3".repeat(9));
    all.push((format!("{name}.{time}.{hash}"), hash));
    let key = "-----BEGIN RSA PRIVATE KEY-----\nZq3Zq3Zq3\nZq3Zq3\n-----END RSA PRIVATE KEY-----";
    all.push((key.to_owned(), "Zq3".to_owned()));
    all
}

/// `text` in two writes.
fn cut(masker: &Masker, text: &str, at: usize) -> String {
    let mut masking = masker.masking();
    let mut shown = masking.take(&text.as_bytes()[..at]);
    shown.push_str(&masking.take(&text.as_bytes()[at..]));
    shown.push_str(&masking.finish());
    shown
}

#[test]
fn every_pattern_compiles() {
    assert_eq!(LIKELY_SECRETS.len(), PATTERNS.len());
}

#[test]
fn e2e_04_secrets_of_every_shape_are_gone_wherever_the_text_is_cut() {
    let masker = masker(&["plain value that no pattern knows"]);
    let mut all = of_every_shape();
    let known = "plain value that no pattern knows".to_owned();
    all.push((known.clone(), known));
    for (secret, gone) in all {
        let text = format!("before it\nsaid \"{secret}\" and went on\nafter it\n");
        let whole = masker.mask(&text);
        assert!(!whole.contains(&gone), "{whole}");
        assert!(
            whole.starts_with("before it\nsaid \"") && whole.ends_with("after it\n"),
            "{whole}"
        );
        for at in 0..=text.len() {
            assert_eq!(cut(&masker, &text, at), whole, "cut at {at}");
        }
    }
}

#[test]
fn e2e_05_a_secret_that_holds_another_is_replaced_as_a_whole() {
    let masker = masker(&["inner-1", "outer-inner-1-outer"]);
    let shown = masker.mask("a outer-inner-1-outer b inner-1 c");
    assert_eq!(shown, "a [REDACTED] b [REDACTED] c");
    assert_eq!(masker.met(), 2);
}

#[test]
fn what_is_no_secret_stays_byte_by_byte() {
    let masker = masker(&["s3cret-value"]);
    for text in [
        "",
        "\n\n",
        "no end of line",
        "FINAL answer of turn 1: hostname, date, and uptime\r\n",
        "sk-short token=abc KEY = value bearer\n",
        "-----begin certificate-----\n",
        "{\"id\":\"functions.exec:0\",\"arguments\":\"{\\\"command\\\":\\\"date\\\"}\"}\n",
    ] {
        assert_eq!(masker.mask(text), text);
        assert!(!masker.is_in(text.as_bytes()));
    }
    assert_eq!(masker.met(), 0);
    assert!(masker.is_in(b"xx s3cret-value"));
}

#[test]
fn a_private_key_without_an_end_takes_the_rest_with_it() {
    let shown = masker(&[]).mask("a\n-----BEGIN PRIVATE KEY-----\nabc\ndef\n");
    assert_eq!(shown, "a\n<REDACTED>");
}

#[test]
fn text_behind_a_private_key_on_the_same_line_is_shown() {
    let key = "x -----BEGIN KEY-----abc-----END KEY----- y\n";
    assert_eq!(masker(&[]).mask(key), "x <REDACTED> y\n");
}

#[test]
fn a_line_without_end_is_shown_in_parts_and_hides_what_lies_on_the_border() {
    let known = "value with blanks in it";
    let masker = masker(&[known]);
    for before in ((MAX_HELD - 60)..MAX_HELD).step_by(7) {
        let text = format!("{} {known} {}", "x".repeat(before), "y ".repeat(100));
        let mut masking = masker.masking();
        let shown: String = text
            .as_bytes()
            .chunks(1000)
            .map(|piece| masking.take(piece))
            .collect();
        let shown = shown + &masking.finish();
        assert!(!shown.contains("blanks"), "{before}");
        assert!(shown.ends_with(&"y ".repeat(100)), "{before}");
    }
    let endless = "z".repeat(3 * MAX_HELD);
    assert!(masker.mask(&endless).len() < endless.len());
}

proptest::proptest! {
    #[test]
    fn however_a_text_is_cut_the_same_is_shown(
        words in proptest::collection::vec("[a-z \n=_-]{0,12}", 0..12),
        shape in 0usize..24,
        cuts in proptest::collection::vec(0usize..400, 0..6),
    ) {
        let masker = masker(&["known-value-1"]);
        let shapes = of_every_shape();
        let secret = &shapes[shape % shapes.len()].0;
        let text = format!("{}{secret} known-value-1{}", words.join(" "), words.concat());
        let whole = masker.mask(&text);
        let mut cuts: Vec<usize> = cuts.iter().map(|at| at % (text.len() + 1)).collect();
        cuts.sort_unstable();
        let mut masking = masker.masking();
        let mut shown = String::new();
        let mut from = 0;
        for at in cuts.into_iter().chain([text.len()]) {
            shown.push_str(&masking.take(&text.as_bytes()[from..at]));
            from = at;
        }
        shown.push_str(&masking.finish());
        proptest::prop_assert_eq!(&shown, &whole);
        proptest::prop_assert!(!shown.contains("known-value-1"));
        proptest::prop_assert!(!shown.contains("Zq3Zq3"));
    }
}
