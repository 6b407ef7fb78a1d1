//! What is known of a kind of provider: where its keys may go, how they are sent, how it is asked whether they work.
//!
//! In: the files of `profiles/`, which are part of the program. Out: [`Profile`]s. A profile is data; nothing here
//! knows a vendor. Each file names the pages its facts come from.
//!
//! **The bound endpoint follows the base URL.** A profile's endpoints hold for the vendor's own base URL alone. Where
//! another one is configured, keys go there, and no longer to the vendor: whoever runs a compatible server must not find
//! his key with somebody else, nor the vendor's key with him.

use std::sync::LazyLock;

use serde::Deserialize;

use crate::endpoint::{Endpoint, EndpointError};

/// A kind of provider.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// How it is asked for.
    #[serde(rename = "type")]
    pub kind: String,
    /// What people call it.
    pub title: String,
    /// Other words for it.
    #[serde(default)]
    pub also: Vec<String>,
    /// The pages that the facts come from.
    pub sources: Vec<String>,
    /// What it speaks, if it is a model's provider and the gateway can speak with it.
    pub api: Option<Api>,
    /// The vendor's own; without one it must be given.
    pub base_url: Option<String>,
    /// How much of a base URL's origin its keys are bound to.
    #[serde(default)]
    pub binds: Binds,
    /// Its keys.
    #[serde(default)]
    pub keys: Vec<Key>,
    /// Whether keys of any other name may be given too.
    #[serde(default)]
    pub any_key: bool,
    /// How keys of other names are sent.
    #[serde(default)]
    pub sent: Sent,
    /// Where else placeholders are replaced, at its base URL.
    #[serde(default)]
    pub places: Places,
    /// Places beside the base URL that keys may be sent to.
    #[serde(default)]
    pub endpoints: Vec<Bound>,
    /// The cheapest request that tells whether the key is good.
    pub probe: Option<Probe>,
}

/// What a model's provider speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Api {
    /// `POST /v1/messages`.
    #[serde(rename = "anthropic-messages")]
    AnthropicMessages,
    /// `POST /v1/chat/completions`.
    #[serde(rename = "openai-completions")]
    OpenAiCompletions,
}

/// How much of a base URL's origin keys are bound to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Binds {
    /// All of it: the service has paths outside of its base URL.
    Origin,
    /// Its path and what is below.
    #[default]
    Path,
}

/// A key that a provider has.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// What placeholders call it.
    pub name: String,
    /// Other names that harnesses know it by; each is a placeholder of it too.
    #[serde(default)]
    pub also: Vec<String>,
    /// Whether the provider is of no use without it.
    #[serde(default)]
    pub required: bool,
    /// How the real ones begin, to tell a mix-up early.
    #[serde(default)]
    pub begins: Vec<String>,
    /// How it is sent.
    #[serde(default)]
    pub sent: Sent,
}

/// How a key is sent.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Sent {
    /// In a header field.
    Header {
        /// In lower case.
        name: String,
        /// What stands before the key, space included.
        #[serde(default)]
        prefix: String,
    },
    /// As the end of the first path segment, after this.
    PathSegment {
        /// What the segment begins with.
        prefix: String,
    },
}

/// Where, besides header fields and path segments, placeholders are replaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Places {
    /// In JSON and form bodies.
    pub body: bool,
    /// In values of the query.
    pub query: bool,
    /// In text messages of a WebSocket.
    pub websocket: bool,
}

/// A place that keys may be sent to.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bound {
    /// The place.
    pub url: String,
    /// The keys; all, if none is named.
    #[serde(default)]
    pub keys: Vec<String>,
    /// Where else placeholders are replaced there.
    #[serde(default)]
    pub places: Places,
}

/// A request that tells whether a key is good, and costs next to nothing.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// The method.
    #[serde(default)]
    pub method: Method,
    /// Below the base URL; the path segment of the key, if it is sent in one, comes first.
    pub path: String,
    /// Fields of the head that it needs besides the key.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// The service says 200 whatever happens; this field of its JSON tells whether it means it.
    pub ok: Option<String>,
}

/// The method of a [`Probe`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    /// `GET`.
    #[default]
    Get,
    /// `POST`, with nothing in it.
    Post,
}

/// The files, by the word that a provider's type is given with.
const FILES: [(&str, &str); 12] = [
    ("anthropic", include_str!("../profiles/anthropic.toml")),
    ("deepseek", include_str!("../profiles/deepseek.toml")),
    ("gemini", include_str!("../profiles/gemini.toml")),
    ("generic", include_str!("../profiles/generic.toml")),
    ("github", include_str!("../profiles/github.toml")),
    ("moonshot", include_str!("../profiles/moonshot.toml")),
    ("nvidia", include_str!("../profiles/nvidia.toml")),
    ("ollama", include_str!("../profiles/ollama.toml")),
    ("openai", include_str!("../profiles/openai.toml")),
    ("openrouter", include_str!("../profiles/openrouter.toml")),
    ("slack", include_str!("../profiles/slack.toml")),
    ("telegram", include_str!("../profiles/telegram.toml")),
];

static SHIPPED: LazyLock<Vec<Profile>> = LazyLock::new(|| {
    let read = |(kind, text): (&str, &str)| match toml::from_str(text) {
        Ok(profile) => profile,
        Err(error) => unreachable!("a test reads the profile {kind}: {error}"),
    };
    FILES.map(read).into()
});

// === impl Profile ===

impl Profile {
    /// Every one, in the order of their names.
    #[must_use]
    pub fn all() -> &'static [Self] {
        &SHIPPED
    }

    /// The one of that name, or of one of its other names.
    #[must_use]
    pub fn named(kind: &str) -> Option<&'static Self> {
        let all = Self::all().iter();
        all.into_iter()
            .find(|profile| profile.kind == kind || profile.also.iter().any(|also| also == kind))
    }

    /// The key that is called so, by its own name or another.
    #[must_use]
    pub fn key(&self, name: &str) -> Option<&Key> {
        self.keys
            .iter()
            .find(|key| key.name == name || key.also.iter().any(|also| also == name))
    }

    /// How the key of this name is sent.
    #[must_use]
    pub fn sent(&self, key: &str) -> &Sent {
        self.key(key).map_or(&self.sent, |key| &key.sent)
    }

    /// Every place the key of this name may go to, and what is replaced there, with this base URL; the profile's own, if
    /// there is none.
    ///
    /// # Errors
    ///
    /// [`EndpointError`], of the base URL; also if there is none at all.
    pub(crate) fn bound(
        &self,
        base_url: Option<&str>,
        key: &str,
    ) -> Result<Vec<(Endpoint, Places)>, EndpointError> {
        let own = self.base_url.as_deref();
        let base: Endpoint = base_url.or(own).unwrap_or_default().parse()?;
        let is_vendors = own.is_some_and(|own| own.parse() == Ok(base.clone()));
        let mut bound = Vec::new();
        // A vendor's own endpoints say more exactly what the base URL says roughly.
        if is_vendors {
            for place in self.endpoints.iter().filter(|place| place.takes(key)) {
                bound.push((place.url.parse()?, place.places));
            }
        }
        if !is_vendors || self.endpoints.iter().all(|place| place.keys.is_empty()) {
            let base = match self.binds {
                Binds::Origin => base.origin(),
                Binds::Path => base,
            };
            bound.push((base, self.places));
        }
        Ok(bound)
    }
}

impl Bound {
    fn takes(&self, key: &str) -> bool {
        self.keys.is_empty() || self.keys.iter().any(|name| name == key)
    }
}

impl Default for Sent {
    fn default() -> Self {
        Self::Header {
            name: "authorization".to_owned(),
            prefix: "Bearer ".to_owned(),
        }
    }
}

impl Places {
    /// What either has.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self {
            body: self.body || other.body,
            query: self.query || other.query,
            websocket: self.websocket || other.websocket,
        }
    }
}

impl Api {
    /// As it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AnthropicMessages => "anthropic-messages",
            Self::OpenAiCompletions => "openai-completions",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::name::KeyName;

    fn places(kind: &str, base_url: Option<&str>, key: &str) -> Vec<String> {
        let bound = Profile::named(kind).unwrap().bound(base_url, key).unwrap();
        bound
            .into_iter()
            .map(|(place, _)| place.to_string())
            .collect()
    }

    #[test]
    fn every_file_of_the_folder_is_a_profile_of_its_own_name() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/profiles");
        let files: BTreeSet<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        let known = FILES.map(|(kind, _)| format!("{kind}.toml"));
        assert_eq!(files, BTreeSet::from(known));
        for (kind, text) in FILES {
            let profile: Profile =
                toml::from_str(text).unwrap_or_else(|error| panic!("{kind}: {error}"));
            assert_eq!(profile.kind, kind);
        }
    }

    #[test]
    fn no_two_profiles_answer_to_the_same_word() {
        let words = Profile::all()
            .iter()
            .flat_map(|profile| profile.also.iter().chain([&profile.kind]));
        let words: Vec<&String> = words.collect();
        assert_eq!(words.len(), words.iter().collect::<BTreeSet<_>>().len());
    }

    #[test]
    fn every_profile_says_where_its_facts_come_from_and_names_what_can_be_named() {
        for profile in Profile::all() {
            let kind = &profile.kind;
            assert!(
                !profile.sources.is_empty()
                    && profile
                        .sources
                        .iter()
                        .all(|url| url.starts_with("https://")),
                "{kind}"
            );
            let mut names = BTreeSet::new();
            for key in &profile.keys {
                for name in key.also.iter().chain([&key.name]) {
                    name.parse::<KeyName>().unwrap();
                    assert!(names.insert(name), "{kind}: {name}");
                }
            }
            for place in &profile.endpoints {
                let bound: Endpoint = place
                    .url
                    .parse()
                    .unwrap_or_else(|error| panic!("{kind}: {error}"));
                assert_eq!(bound.scheme(), crate::Scheme::Https, "{kind}");
                assert!(
                    place.keys.iter().all(|key| profile.key(key).is_some()),
                    "{kind}"
                );
            }
            assert_eq!(
                profile.any_key,
                profile.base_url.is_none() || profile.any_key,
                "{kind}"
            );
        }
    }

    #[test]
    fn every_key_of_a_profile_with_a_base_url_is_bound_to_something() {
        for profile in Profile::all()
            .iter()
            .filter(|profile| profile.base_url.is_some())
        {
            for key in &profile.keys {
                let bound = profile.bound(None, &key.name).unwrap();
                assert!(!bound.is_empty(), "{}: {}", profile.kind, key.name);
            }
        }
    }

    #[test]
    fn what_a_key_is_sent_in_is_a_header_or_a_path_segment() {
        for profile in Profile::all() {
            for sent in profile
                .keys
                .iter()
                .map(|key| &key.sent)
                .chain([&profile.sent])
            {
                match sent {
                    Sent::Header { name, .. } => {
                        assert!(http::HeaderName::from_lowercase(name.as_bytes()).is_ok());
                    }
                    Sent::PathSegment { prefix } => assert!(!prefix.contains('/')),
                }
            }
        }
    }

    #[test]
    fn the_bound_endpoint_follows_the_base_url() {
        let key = "OPENAI_API_KEY";
        assert_eq!(places("openai", None, key), ["https://api.openai.com/v1"]);
        let own = Some("https://llm.corp.example/team-a/v1");
        assert_eq!(
            places("openai", own, key),
            ["https://llm.corp.example/team-a/v1"]
        );
        for profile in Profile::all()
            .iter()
            .filter(|profile| profile.base_url.is_some())
        {
            for key in &profile.keys {
                for place in places(&profile.kind, own, &key.name) {
                    assert!(
                        place.starts_with("https://llm.corp.example"),
                        "{}: {place}",
                        profile.kind
                    );
                }
            }
        }
    }

    #[test]
    fn the_vendors_url_spelled_out_is_still_the_vendors() {
        let spelled = places(
            "github",
            Some("https://API.github.com:443/"),
            "GITHUB_TOKEN",
        );
        assert_eq!(spelled, places("github", None, "GITHUB_TOKEN"));
    }

    #[test]
    fn a_key_for_one_call_is_bound_to_that_call() {
        let app = places("slack", None, "SLACK_APP_TOKEN");
        assert_eq!(app, ["https://slack.com/api/apps.connections.open"]);
        assert!(
            places("slack", None, "SLACK_BOT_TOKEN").contains(&"https://slack.com/api".to_owned())
        );
    }

    #[test]
    fn a_generic_provider_needs_a_base_url() {
        let generic = Profile::named("generic").unwrap();
        assert!(generic.bound(None, "KEY").is_err());
        assert_eq!(
            places("generic", Some("http://127.0.0.1:9/x"), "KEY"),
            ["http://127.0.0.1:9/x"]
        );
    }
}
