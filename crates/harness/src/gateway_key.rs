//! What a harness shows the gateway: a reference to a key, or a word that says there is none.
//!
//! A key itself is refused, and not repeated: what is given here is written into files and shown in messages.

use crate::placeholder;
use crate::settings::{Reading, Setting};

/// What stands for the gateway's key.
pub(crate) static API_KEY: Setting = Setting::new(
    "api-key",
    "PLACEHOLDER",
    "What stands for the gateway's key, such as farrier:resolve:env:NAME [default: unused]",
);

/// The reference that was given, else [`placeholder::UNUSED`].
pub(crate) fn read(reading: &mut Reading<'_>) -> String {
    let Some(given) = reading.given(&API_KEY) else {
        return placeholder::UNUSED.to_owned();
    };
    if !placeholder::is_reference(&given.text) {
        let wanted = "expected a placeholder such as farrier:resolve:env:NAME, got something else; \
                      a key does not belong into a file";
        reading.wrong(&given.from, wanted);
    }
    given.text
}
