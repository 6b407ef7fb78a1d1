//! Reads a JSON text strictly, without making anything of it.

/// A place in a JSON text.
#[derive(Clone, Copy)]
pub(super) struct Scan<'a> {
    pub(super) text: &'a str,
    pub(super) at: usize,
}

/// The text is not JSON from here on.
#[derive(Debug)]
pub(super) struct NotJson;

impl<'a> Scan<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.at == self.text.len()
    }

    /// The white space here.
    pub(super) fn space(&mut self) -> &'a str {
        let rest = &self.text[self.at..];
        let length = rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n']).len();
        self.taken(length)
    }

    /// The inside of the string here; its quotes are taken too.
    pub(super) fn string(&mut self) -> Result<&'a str, NotJson> {
        let rest = &self.text.as_bytes()[self.at..];
        if rest.first() != Some(&b'"') {
            return Err(NotJson);
        }
        let mut end = 1;
        loop {
            match rest.get(end..).unwrap_or_default() {
                [b'"', ..] => break,
                [b'\\', b'u', code @ ..] => {
                    let code = code.get(..4).ok_or(NotJson)?;
                    if !code.iter().all(u8::is_ascii_hexdigit) {
                        return Err(NotJson);
                    }
                    end += 6;
                }
                [b'\\', escaped, ..] if b"\"\\/bfnrt".contains(escaped) => end += 2,
                [] | [b'\\' | 0..=0x1f, ..] => return Err(NotJson),
                _ => end += 1,
            }
        }
        let whole = self.taken(end + 1);
        Ok(&whole[1..end])
    }

    /// The number, `true`, `false` or `null` here.
    pub(super) fn literal(&mut self) -> Result<&'a str, NotJson> {
        let rest = &self.text[self.at..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && !"+-.".contains(c));
        let literal = &rest[..end.unwrap_or(rest.len())];
        if matches!(literal, "true" | "false" | "null") || is_number(literal) {
            Ok(self.taken(literal.len()))
        } else {
            Err(NotJson)
        }
    }

    /// What the object that starts here has as its own member of that name, if that is a number or a string.
    ///
    /// Looks ahead: members may stand in any order.
    pub(super) fn own(&self, name: &str) -> Option<&'a str> {
        let mut ahead = *self;
        let mut depth = 0;
        loop {
            ahead.space();
            match ahead.peek()? {
                b'"' => {
                    let string = ahead.string().ok()?;
                    ahead.space();
                    // At depth 1 a string before a colon is a name.
                    if depth == 1 && string == name && ahead.peek() == Some(b':') {
                        ahead.taken(1);
                        ahead.space();
                        return ahead.string().or_else(|_| ahead.literal()).ok();
                    }
                }
                open @ (b'{' | b'[' | b'}' | b']' | b',' | b':') => {
                    ahead.taken(1);
                    match open {
                        b'{' | b'[' => depth += 1,
                        b'}' | b']' if depth == 1 => return None,
                        b'}' | b']' => depth -= 1,
                        _ => {}
                    }
                }
                _ => drop(ahead.literal().ok()?),
            }
        }
    }

    fn taken(&mut self, length: usize) -> &'a str {
        let start = self.at;
        self.at += length;
        &self.text[start..self.at]
    }
}

/// Whether JSON spells a number so.
fn is_number(text: &str) -> bool {
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        None => (unsigned, "0"),
        Some((mantissa, exponent)) => {
            let unsigned = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            (mantissa, unsigned)
        }
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let leading_zero = whole.len() > 1 && whole.starts_with('0');
    [whole, fraction, exponent].into_iter().all(digits) && !leading_zero
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_json_spells_so_is_a_literal() {
        for text in [
            "0", "-0", "10", "1.50", "-1.0e+10", "2E9", "true", "false", "null",
        ] {
            assert_eq!(Scan::new(text).literal().unwrap(), text);
        }
        for text in [
            "01", "1.", ".5", "1e", "--1", "+1", "1e1.5", "tru", "nulls", "Infinity", "",
        ] {
            assert!(Scan::new(text).literal().is_err(), "{text}");
        }
    }

    #[test]
    fn a_string_ends_at_its_quote_and_holds_valid_escapes() {
        let text = r#""a\"\\\u4f60\/é" rest"#;
        assert_eq!(Scan::new(text).string().unwrap(), r#"a\"\\\u4f60\/é"#);
        for text in [
            r#""a"#,
            r#""a\"#,
            r#""\x""#,
            r#""\u12g4""#,
            r#""\u12"#,
            "\"\n\"",
            "a",
        ] {
            assert!(Scan::new(text).string().is_err(), "{text}");
        }
    }

    #[test]
    fn a_member_is_found_wherever_it_stands() {
        let own = |text| Scan::new(text).own("index");
        assert_eq!(own(r#"{"index": 3, "f":{}}"#), Some("3"));
        assert_eq!(
            own(r#"{"f":{"index":1,"x":["index",{"index":2}]},"y":"index","index":3}"#),
            Some("3")
        );
        assert_eq!(own(r#"{"f":{"index":1}}, "index":2"#), None);
        assert_eq!(own(r#"{"index":{}}"#), None);
        assert_eq!(own(r#"{"f":"#), None);
    }
}
