//! The plaintext and the few things that may be done with it.

use std::fmt;
use std::io::{self, Read};

use http::HeaderValue;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// The longest text that is taken for a secret, in bytes, its trailing newline included.
pub const MAX_FILE_BYTES: usize = 64 * 1024;

/// One line of secret text, overwritten when dropped.
///
/// It has no `Display`, no `Clone` and no serialisation, so that a copy or a print is always a
/// visible decision.
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes over a plaintext.
    ///
    /// # Errors
    ///
    /// [`TextError`] if it is empty, padded with white space, or holds a control character; the
    /// plaintext is overwritten all the same.
    pub fn new(plaintext: String) -> Result<Self, TextError> {
        let plaintext = Zeroizing::new(plaintext);
        if plaintext.is_empty() {
            return Err(TextError::Empty);
        }
        if plaintext.contains(char::is_control) {
            return Err(TextError::ControlCharacter);
        }
        if plaintext.trim().len() != plaintext.len() {
            return Err(TextError::Padded);
        }
        Ok(Self(plaintext))
    }

    /// Takes a plaintext over from a file or a pipe, to its end. One trailing newline (`\n` or `\r\n`), which editors and
    /// `echo` add, is not part of it. Blocks for as long as the reader does.
    ///
    /// # Errors
    ///
    /// [`ReadError`]; what was read is overwritten all the same.
    pub fn read(from: impl Read) -> Result<Self, ReadError> {
        // Exact capacity: a growing buffer would leave copies behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_FILE_BYTES + 1));
        from.take(MAX_FILE_BYTES as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(ReadError::Io)?;
        if bytes.len() > MAX_FILE_BYTES {
            return Err(ReadError::TooLarge);
        }
        let text = std::str::from_utf8(&bytes).map_err(|_invalid| ReadError::NotText)?;
        Self::new(without_newline(text).to_owned()).map_err(ReadError::Text)
    }

    /// Reads the plaintext. The single place where it leaves the type: whoever calls this answers
    /// for the copy.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Compares with what somebody presented, in a time that depends on the lengths alone.
    #[must_use]
    pub fn matches(&self, presented: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(presented).into()
    }

    /// Makes the header value `<prefix><secret>`, such as `Bearer …`, marked sensitive so that the
    /// HTTP stack neither prints nor indexes it.
    ///
    /// # Errors
    ///
    /// [`HeaderError`] if the secret or the prefix holds anything but visible ASCII and spaces. The
    /// error does not show either.
    pub fn header_value(&self, prefix: &str) -> Result<HeaderValue, HeaderError> {
        // Exact capacity: a growing buffer would leave copies behind.
        let mut text = Zeroizing::new(String::with_capacity(prefix.len() + self.0.len()));
        text.push_str(prefix);
        text.push_str(&self.0);
        // `HeaderValue` itself also lets bytes above ASCII pass, whose meaning each server decides
        // for itself.
        if !text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            return Err(HeaderError);
        }
        let mut value = HeaderValue::from_str(&text).map_err(|_invalid| HeaderError)?;
        value.set_sensitive(true);
        Ok(value)
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.matches(other.0.as_bytes())
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

/// Takes away one trailing newline.
fn without_newline(text: &str) -> &str {
    let Some(line) = text.strip_suffix('\n') else {
        return text;
    };
    line.strip_suffix('\r').unwrap_or(line)
}

/// Why what was read cannot be a secret. Says nothing of what it was.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The operating system would not go on.
    #[error("cannot be read")]
    Io(#[source] io::Error),
    /// The bytes are not UTF-8.
    #[error("expected UTF-8 text, got other bytes")]
    NotText,
    /// The text cannot be a secret.
    #[error(transparent)]
    Text(TextError),
    /// More than [`MAX_FILE_BYTES`].
    #[error("expected at most {MAX_FILE_BYTES} bytes, got more")]
    TooLarge,
}

/// Why a text cannot be a secret. Says nothing of the text itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// A newline, tab or other control character is inside.
    #[error("expected one line of text, got a control character or a newline inside it")]
    ControlCharacter,
    /// There is nothing.
    #[error("expected a secret, got nothing")]
    Empty,
    /// White space before or after it: nearly always a slip of the paste, and a puzzling 401 later.
    #[error("expected no white space around the secret, got some")]
    Padded,
}

/// A secret that cannot be sent in a header. Says nothing of the secret itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected visible ASCII for a header value, got another character")]
pub struct HeaderError;

#[cfg(test)]
mod tests {
    use super::*;

    const CANARY: &str = "sk-canary-7f3a";

    #[test]
    fn debug_shows_three_stars_and_nothing_else() {
        let secret = Secret::new(CANARY.to_owned()).unwrap();
        assert_eq!(format!("{secret:?} {secret:#?}"), "Secret(***) Secret(***)");
    }

    #[test]
    fn header_value_carries_the_secret_and_hides_it_from_debug() {
        let value = Secret::new(CANARY.to_owned())
            .unwrap()
            .header_value("Bearer ")
            .unwrap();
        assert_eq!(value.as_bytes(), b"Bearer sk-canary-7f3a");
        assert!(value.is_sensitive());
        assert!(!format!("{value:?}").contains("canary"));
    }

    #[test]
    fn secrets_are_equal_only_when_every_byte_is() {
        let secret = Secret::new(CANARY.to_owned()).unwrap();
        assert_eq!(secret, Secret::new(CANARY.to_owned()).unwrap());
        assert_ne!(secret, Secret::new("sk-canary-7f3b".to_owned()).unwrap());
        assert!(secret.matches(CANARY.as_bytes()));
        assert!(!secret.matches(b"sk-canary-7f3"));
        assert!(!secret.matches(b"sk-canary-7f3a "));
        assert!(!secret.matches(b""));
    }

    #[test]
    fn a_text_that_is_not_one_clean_line_is_refused_without_being_shown() {
        let cases = [
            ("", TextError::Empty),
            ("sk-canary\nX-Evil: 1", TextError::ControlCharacter),
            ("sk-canary\r", TextError::ControlCharacter),
            ("sk-\tcanary", TextError::ControlCharacter),
            ("sk-canary\0", TextError::ControlCharacter),
            ("sk-canary\u{7f}", TextError::ControlCharacter),
            ("sk-canary\u{85}", TextError::ControlCharacter),
            ("sk-canary ", TextError::Padded),
            ("\u{a0}sk-canary", TextError::Padded),
        ];
        for (text, expected) in cases {
            let error = Secret::new(text.to_owned()).unwrap_err();
            assert_eq!(error, expected, "{text:?}");
            assert!(!format!("{error} {error:?}").contains("canary"));
        }
    }

    #[test]
    fn a_secret_or_prefix_that_no_header_can_carry_is_refused_without_being_shown() {
        let error = Secret::new("sk-canary-é".to_owned())
            .unwrap()
            .header_value("")
            .unwrap_err();
        assert!(!format!("{error} {error:?}").contains("canary"));
        let secret = Secret::new(CANARY.to_owned()).unwrap();
        assert_eq!(secret.header_value("Bearer\n").unwrap_err(), HeaderError);
    }

    proptest::proptest! {
        #[test]
        fn whatever_the_text_no_rendering_shows_it(text in "[a-z0-9\\n\\t é]{6,40}") {
            // Letters that occur in our own messages would match by chance: only whole texts are
            // looked for.
            let shown = match Secret::new(text.clone()) {
                Ok(secret) => format!("{secret:?} {:?}", secret.header_value("Bearer ")),
                Err(error) => format!("{error} {error:?}"),
            };
            proptest::prop_assert!(!shown.contains(&text));
        }
    }
}
