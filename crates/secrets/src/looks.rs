//! Tells a pasted key from what should have been there.
//!
//! A guess, for the sake of an early and clear refusal. It errs towards words: what it takes for a secret, no person would
//! type by hand.

use crate::profile::Profile;

/// After the beginning that a vendor gives its keys.
const MIN_TAIL: usize = 12;
/// Of a text without such a beginning.
const MIN_LENGTH: usize = 32;

/// Whether this, or what follows a `=` in it, is probably a key. Of names, paths, URLs and references it says no.
#[must_use]
pub fn looks_like_a_secret(text: &str) -> bool {
    let text = text.trim();
    let tails = text.match_indices('=').map(|(at, _)| &text[at + 1..]);
    std::iter::once(text).chain(tails).any(|text| {
        let bare = ["env:", "file:", "keyring:"]
            .iter()
            .find_map(|kind| text.strip_prefix(kind));
        begins_like_one(bare.unwrap_or(text)) || is_bot_token(text) || is_random(text)
    })
}

fn begins_like_one(text: &str) -> bool {
    let beginnings = Profile::all()
        .iter()
        .flat_map(|profile| &profile.keys)
        .flat_map(|key| &key.begins);
    beginnings.into_iter().any(|beginning| {
        text.strip_prefix(beginning.as_str())
            .is_some_and(|tail| tail.len() >= MIN_TAIL && tail.bytes().all(is_of_a_key))
    })
}

/// Telegram's: the bot's number, a colon, 35 letters and digits. <https://core.telegram.org/bots/api#authorizing-your-bot>
fn is_bot_token(text: &str) -> bool {
    text.split_once(':').is_some_and(|(number, rest)| {
        number.len() >= 6
            && number.bytes().all(|byte| byte.is_ascii_digit())
            && rest.len() >= 30
            && rest.bytes().all(is_of_a_key)
    })
}

/// Long, without a break, and mixed as no word is.
fn is_random(text: &str) -> bool {
    let has = |kind: fn(&u8) -> bool| text.as_bytes().iter().filter(|byte| kind(byte)).count();
    text.len() >= MIN_LENGTH
        && text.bytes().all(is_of_a_key)
        && has(u8::is_ascii_digit) >= 4
        && has(u8::is_ascii_lowercase) >= 4
        && !text.contains('-')
}

fn is_of_a_key(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_+".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::looks_like_a_secret;

    #[test]
    fn keys_as_vendors_make_them_are_told() {
        let keys = [
            "sk-proj-AbCdEf0123456789",
            "sk-ant-api03-AbCdEf0123456789",
            "sk-canary-7f3a91c2d4",
            "nvapi-AbCdEf0123456789",
            "xoxb-1234567890-AbCdEf",
            "xapp-1-A0123-456-abcdef",
            "ghp_AbCdEf0123456789AbCdEf",
            "github_pat_11ABC_defghijklmnop",
            "AIzaSyA-0123456789abcdef",
            "1234567890:AAEhBOweik6ad9r_QXMENQjcrGbqCr4K-bc",
            "0f8fad5bd9cb469fa165708867f9d3b1",
        ];
        for key in keys {
            assert!(looks_like_a_secret(key), "{key}");
            assert!(
                looks_like_a_secret(&format!("OPENAI_API_KEY={key}")),
                "{key}"
            );
            assert!(
                looks_like_a_secret(&format!("--credential=OPENAI_API_KEY={key}")),
                "{key}"
            );
        }
        assert!(looks_like_a_secret(
            "OPENAI_API_KEY=env:sk-proj-AbCdEf0123456789"
        ));
    }

    #[test]
    fn words_are_not() {
        let words = [
            "openai",
            "provider",
            "OPENAI_API_KEY=env:OPENAI_API_KEY",
            "OPENAI_API_KEY=file:/run/secrets/team-a/openai/key-2026-11-01",
            "OPENAI_API_KEY=keyring:openai.OPENAI_API_KEY",
            "OPENAI_API_KEY=-",
            "https://generativelanguage.googleapis.com/v1beta/openai",
            "https://127.0.0.1:8443/v1",
            "--non-interactive",
            "team-a-nemotron-3-super-120b-a12b",
            "kagent-default-model-config-inference-openai",
            "sk-",
            "",
        ];
        for word in words {
            assert!(!looks_like_a_secret(word), "{word}");
        }
    }
}
