//! When a manifest applies: predicates over [`Facts`], their specificity, and
//! whether two sets of them can hold at once.
//!
//! A manifest applies when its audience is the caller and every predicate holds;
//! a predicate that is absent holds always. Comparison is by lists, bare-name
//! prefixes and host names, never by pattern: what a manifest applies to can be
//! read off it.
//!
//! [`CLIENT`] and [`UPSTREAM`] are the tables of what may be asked. They drive
//! reading, comparing, explaining, the overlap check and the schema.

use std::borrow::Cow;

use crate::facts::Facts;

/// A key of `match`.
#[derive(Debug)]
pub(super) struct Key {
    /// Its name in the object it is in.
    pub(super) name: &'static str,
    /// Its place in the manifest.
    pub(super) at: &'static str,
    /// What it is compared with.
    pub(super) subject: Subject,
    /// How.
    pub(super) test: Test,
    /// One sentence for the schema.
    pub(super) doc: &'static str,
}

/// What a predicate is about. Predicates about different subjects never exclude
/// each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject {
    /// The base URL in the client's configuration.
    ClientBaseUrl,
    /// The API the client speaks.
    ClientInferenceApi,
    /// The model name the client asks for.
    ClientModel,
    /// The provider key in the client's configuration.
    ClientProviderKey,
    /// The host name in the provider's base URL.
    UpstreamHost,
    /// What the provider calls the model.
    UpstreamModel,
    /// The name the provider has in the configuration of this gateway.
    UpstreamProvider,
    /// The serving software.
    UpstreamServer,
}

/// How a fact is compared with what is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Test {
    /// One of these host names; `.example.com` is every name under `example.com`.
    Hosts,
    /// One of these, white space around and letter case aside.
    Ids,
    /// Begins with one of these names, followed by nothing or by one of the
    /// separators; namespaces before the last `/` and letter case aside.
    Prefixes(&'static [char]),
    /// This very text.
    Text,
    /// This text, trailing slashes aside.
    Url,
}

/// What follows a family's name in the name of its member: `gpt-5` is the family
/// of `gpt-5.1` and `gpt-5-mini`, not of `gpt-50`.
const MEMBER: &[char] = &['.', '-'];

/// Upstream names also carry tags: OpenRouter's and Ollama's variants follow a
/// `:` (`kimi-k2.6:free`, `kimi-k2.5:cloud`), Vertex's versions an `@`. What the
/// model demands does not depend on them. The client side keeps to the narrower
/// rule, which manifests written for other readers of the format rely on.
const MEMBER_OR_TAG: &[char] = &['.', '-', ':', '@'];

/// The route as the client sees it: the keys of `match`.
pub(super) static CLIENT: &[Key] = &[
    Key {
        name: "modelIds",
        at: "match.modelIds",
        subject: Subject::ClientModel,
        test: Test::Ids,
        doc: "Model names the client may ask for, whole; no provider prefix is stripped.",
    },
    Key {
        name: "modelIdPrefixes",
        at: "match.modelIdPrefixes",
        subject: Subject::ClientModel,
        test: Test::Prefixes(MEMBER),
        doc: "Families of models the client may ask for: the bare name, alone or before `.` or `-`.",
    },
    Key {
        name: "providerKey",
        at: "match.providerKey",
        subject: Subject::ClientProviderKey,
        test: Test::Text,
        doc: "The key under which the client's configuration lists the provider.",
    },
    Key {
        name: "inferenceApi",
        at: "match.inferenceApi",
        subject: Subject::ClientInferenceApi,
        test: Test::Text,
        doc: "The API the client speaks, such as `openai-completions`.",
    },
    Key {
        name: "baseUrl",
        at: "match.baseUrl",
        subject: Subject::ClientBaseUrl,
        test: Test::Url,
        doc: "The base URL in the client's configuration.",
    },
];

/// Who answers: the keys of `match.upstream`.
pub(super) static UPSTREAM: &[Key] = &[
    Key {
        name: "modelIds",
        at: "match.upstream.modelIds",
        subject: Subject::UpstreamModel,
        test: Test::Ids,
        doc: "What the provider calls the model, whole.",
    },
    Key {
        name: "modelIdPrefixes",
        at: "match.upstream.modelIdPrefixes",
        subject: Subject::UpstreamModel,
        test: Test::Prefixes(MEMBER_OR_TAG),
        doc: "Families of upstream models: the bare name, alone or before `.`, `-`, `:` or `@`.",
    },
    Key {
        name: "hosts",
        at: "match.upstream.hosts",
        subject: Subject::UpstreamHost,
        test: Test::Hosts,
        doc: "Host names of the provider's base URL; `.example.com` is every name under it.",
    },
    Key {
        name: "provider",
        at: "match.upstream.provider",
        subject: Subject::UpstreamProvider,
        test: Test::Text,
        doc: "The name of the provider in the gateway's configuration.",
    },
    Key {
        name: "server",
        at: "match.upstream.server",
        subject: Subject::UpstreamServer,
        test: Test::Text,
        doc: "The serving software, when the gateway's configuration says it.",
    },
];

/// One key with what it wants.
#[derive(Debug, Clone)]
pub struct Predicate {
    pub(super) key: &'static Key,
    /// The values, one of which must fit, in the form they are compared in.
    wanted: Vec<String>,
}

/// How narrowly a manifest is meant. The greater one wins: the model first, then
/// who answers, then who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Specificity {
    model: ModelRank,
    upstream: UpstreamRank,
    one_harness: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum ModelRank {
    Any,
    Family,
    Exact,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum UpstreamRank {
    Any,
    Server,
    Provider,
    Host,
}

impl Predicate {
    pub(super) fn new(key: &'static Key, wanted: Vec<String>) -> Self {
        Self {
            key,
            wanted: wanted
                .iter()
                .map(|text| key.test.comparable(text).into_owned())
                .collect(),
        }
    }

    /// Whether it holds for `facts`.
    pub fn holds(&self, facts: &Facts) -> bool {
        self.key.subject.of(facts).is_some_and(|got| {
            let got = self.key.test.comparable(got);
            self.wanted
                .iter()
                .any(|wanted| self.key.test.fits(wanted, &got))
        })
    }

    /// Its place in the manifest, such as `match.upstream.hosts`.
    pub fn at(&self) -> &'static str {
        self.key.at
    }

    /// The values of which one must fit, in the form they are compared in.
    pub fn wanted(&self) -> &[String] {
        &self.wanted
    }

    /// Whether no fact can satisfy both.
    fn excludes(&self, other: &Self) -> bool {
        self.key.subject == other.key.subject
            && !self.wanted.iter().any(|mine| {
                other
                    .wanted
                    .iter()
                    .any(|theirs| meet((self.key.test, mine), (other.key.test, theirs)))
            })
    }
}

/// Whether a request could satisfy all of `a` and all of `b`.
pub(super) fn overlap(a: &[Predicate], b: &[Predicate]) -> bool {
    !a.iter()
        .any(|one| b.iter().any(|other| one.excludes(other)))
}

/// Whether some value fits both. What one side wants is put to the other as if it
/// were the fact: of two families, or two domains, that share a member, one is
/// within the other.
fn meet(a: (Test, &str), b: (Test, &str)) -> bool {
    a.0.fits(a.1, &a.0.comparable(b.1)) || b.0.fits(b.1, &b.0.comparable(a.1))
}

impl Specificity {
    pub(super) fn of(predicates: &[Predicate], one_harness: bool) -> Self {
        let mut found = Self {
            model: ModelRank::Any,
            upstream: UpstreamRank::Any,
            one_harness,
        };
        for predicate in predicates {
            match predicate.key.subject {
                Subject::ClientModel | Subject::UpstreamModel => {
                    let rank = match predicate.key.test {
                        Test::Prefixes(_) => ModelRank::Family,
                        Test::Hosts | Test::Ids | Test::Text | Test::Url => ModelRank::Exact,
                    };
                    found.model = found.model.max(rank);
                }
                Subject::UpstreamHost => found.upstream = UpstreamRank::Host,
                Subject::UpstreamProvider => {
                    found.upstream = found.upstream.max(UpstreamRank::Provider);
                }
                Subject::UpstreamServer => {
                    found.upstream = found.upstream.max(UpstreamRank::Server);
                }
                Subject::ClientBaseUrl
                | Subject::ClientInferenceApi
                | Subject::ClientProviderKey => {}
            }
        }
        found
    }
}

impl Subject {
    /// The fact, when it is known.
    pub(super) fn of(self, facts: &Facts) -> Option<&str> {
        let Facts {
            client, upstream, ..
        } = facts;
        match self {
            Self::ClientBaseUrl => Some(&client.base_url),
            Self::ClientInferenceApi => Some(&client.inference_api),
            Self::ClientModel => Some(&client.model),
            Self::ClientProviderKey => Some(&client.provider_key),
            Self::UpstreamHost => host(&upstream.base_url),
            Self::UpstreamModel => Some(&upstream.model),
            Self::UpstreamProvider => Some(&upstream.provider),
            Self::UpstreamServer => upstream.server.as_deref(),
        }
    }
}

impl Test {
    /// `text` in the form in which it is compared.
    fn comparable(self, text: &str) -> Cow<'_, str> {
        match self {
            Self::Hosts => text.trim_end_matches('.').to_lowercase().into(),
            Self::Ids => text.trim().to_lowercase().into(),
            Self::Prefixes(_) => bare(text.trim()).to_lowercase().into(),
            Self::Text => text.into(),
            Self::Url => text.trim_end_matches('/').into(),
        }
    }

    /// Whether `got` is what is wanted, both comparable.
    fn fits(self, wanted: &str, got: &str) -> bool {
        match self {
            Self::Hosts if wanted.starts_with('.') => got.ends_with(wanted),
            Self::Prefixes(separators) => got
                .strip_prefix(wanted)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(separators)),
            Self::Hosts | Self::Ids | Self::Text | Self::Url => wanted == got,
        }
    }
}

/// The name behind the last `/`.
fn bare(model: &str) -> &str {
    model.rsplit('/').next().unwrap_or(model)
}

/// The host of a URL: what follows `//` and any user information, up to a port,
/// path, query or fragment (RFC 3986 §3.2).
fn host(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("//")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit('@').next()?;
    let name = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next()?,
        None => host.split(':').next()?,
    };
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
#[path = "matching_tests.rs"]
mod tests;
