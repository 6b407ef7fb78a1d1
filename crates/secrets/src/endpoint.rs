//! Where a key may be sent.
//!
//! ```text
//! https://api.moonshot.ai/v1   scheme, host, port and everything at or below the path
//! https://*.slack.com          one label for the star
//! ```
//!
//! A path that a server could read in two ways is below nothing but `/`: dot segments, encoded dots and separators.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use http::Uri;

/// Whether what is sent can be read on the way. WebSockets are told by the scheme of the request that opens them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// In the clear.
    Http,
    /// Over TLS.
    Https,
}

/// Where somebody wants to send something.
#[derive(Clone, Copy, Debug)]
pub struct Destination<'a> {
    /// How.
    pub scheme: Scheme,
    /// A name or an address; brackets, capitals and a final dot do not matter.
    pub host: &'a str,
    /// The port.
    pub port: u16,
    /// The path as it is sent, without the query.
    pub path: &'a str,
}

/// A place that a key is bound to, with everything below it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    scheme: Scheme,
    /// Lower case, without brackets and final dot. May begin with `*.`.
    host: String,
    port: u16,
    /// Without a final slash; empty for everything.
    path: String,
}

/// Why a text is no endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// A user or a password is in it. They may be secret, so the text is not repeated.
    #[error(
        "expected an http or https URL without user and password, got one with them; give them as a credential"
    )]
    HoldsUser,
    /// It is not a URL.
    #[error(
        "expected an http or https URL with a host, such as https://api.example.com/v1, got {text:?}"
    )]
    NotAUrl {
        /// What it is.
        text: String,
    },
    /// Something comes after the path. It may be secret, so it is not repeated.
    #[error("expected a URL that ends with its path, got one with a query or a fragment")]
    Tail,
}

// === impl Scheme ===

impl Scheme {
    /// As URLs begin.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    const fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

// === impl Endpoint ===

impl Endpoint {
    /// Whether this is the way, the machine and the port.
    pub(crate) fn is_at(&self, scheme: Scheme, host: &str, port: u16) -> bool {
        self.scheme == scheme && self.is_host(host, port)
    }

    pub(crate) fn is_host(&self, host: &str, port: u16) -> bool {
        let host = bare(host);
        self.port == port
            && match self.host.strip_prefix("*.") {
                None => host.eq_ignore_ascii_case(&self.host),
                Some(parent) => host.split_once('.').is_some_and(|(label, rest)| {
                    !label.is_empty() && rest.eq_ignore_ascii_case(parent)
                }),
            }
    }

    /// Whether a key that is bound here may be sent there.
    pub(crate) fn takes(&self, to: &Destination<'_>) -> bool {
        self.is_at(to.scheme, to.host, to.port) && is_below(&self.path, to.path)
    }

    /// The same machine and port, with all its paths.
    #[must_use]
    pub fn origin(&self) -> Self {
        Self {
            path: String::new(),
            ..self.clone()
        }
    }

    /// How it is reached.
    #[must_use]
    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// A name in lower case, or an address without brackets; `*` may be its first label.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, also where it is the scheme's own.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The path without a final slash; empty for everything.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether what is sent there can be read on the way.
    #[must_use]
    pub fn is_in_the_clear(&self) -> bool {
        let here = self.host == "localhost"
            || self
                .host
                .parse::<IpAddr>()
                .is_ok_and(|address| address.is_loopback());
        self.scheme == Scheme::Http && !here
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let not_a_url = || EndpointError::NotAUrl {
            text: text.to_owned(),
        };
        // Before anything of the text is repeated.
        let authority = text.split_once("://").map_or(text, |(_, rest)| rest);
        let authority = authority.split(['/', '?', '#']).next().unwrap_or_default();
        if authority.contains('@') {
            return Err(EndpointError::HoldsUser);
        }
        if text.contains(['?', '#']) {
            return Err(EndpointError::Tail);
        }
        let url: Uri = text.parse().map_err(|_invalid| not_a_url())?;
        let scheme = match url.scheme_str() {
            Some("http") => Scheme::Http,
            Some("https") => Scheme::Https,
            _ => return Err(not_a_url()),
        };
        let host = bare(url.host().unwrap_or_default()).to_ascii_lowercase();
        let name = host.strip_prefix("*.").unwrap_or(&host);
        if name.is_empty() || name.contains('*') {
            return Err(not_a_url());
        }
        let path = url.path().trim_end_matches('/');
        if !path.is_empty() && !is_plain(path) {
            return Err(not_a_url());
        }
        Ok(Self {
            port: url.port_u16().unwrap_or_else(|| scheme.port()),
            scheme,
            host,
            path: path.to_owned(),
        })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        place(f, (self.scheme, &self.host, self.port))?;
        f.write_str(&self.path)
    }
}

/// Without the path: that may hold anything.
impl fmt::Display for Destination<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        place(f, (self.scheme, bare(self.host), self.port))
    }
}

fn place(f: &mut fmt::Formatter<'_>, (scheme, host, port): (Scheme, &str, u16)) -> fmt::Result {
    let (open, close) = if host.contains(':') {
        ("[", "]")
    } else {
        ("", "")
    };
    write!(f, "{}://{open}{host}{close}", scheme.as_str())?;
    if port == scheme.port() {
        return Ok(());
    }
    write!(f, ":{port}")
}

/// A host as it is compared.
fn bare(host: &str) -> &str {
    let unbracketed = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    unbracketed.strip_suffix('.').unwrap_or(unbracketed)
}

/// Whether `path` is `prefix` or something below it, however a server reads it.
fn is_below(prefix: &str, path: &str) -> bool {
    if prefix.is_empty() {
        return true;
    }
    let rest = path.strip_prefix(prefix);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) && is_plain(path)
}

/// Whether a path has no segment that leads elsewhere, and none that may be several.
fn is_plain(path: &str) -> bool {
    let mut segments = path.split('/');
    let rooted = segments.next() == Some("");
    rooted
        && segments.all(|segment| {
            // Of matrix parameters some servers take away what others keep.
            let name = segment.split(';').next().unwrap_or_default();
            let lower = name.to_ascii_lowercase();
            let dots = lower.replace("%2e", ".");
            !matches!(dots.as_str(), "." | "..")
                && !["%2f", "%5c", "\\", "%00", "%25"]
                    .iter()
                    .any(|sign| lower.contains(sign))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(text: &str) -> Endpoint {
        text.parse().unwrap()
    }

    fn to<'a>(host: &'a str, port: u16, path: &'a str) -> Destination<'a> {
        Destination {
            scheme: Scheme::Https,
            host,
            port,
            path,
        }
    }

    #[test]
    fn a_key_goes_to_the_path_it_is_bound_to_and_below_and_nowhere_else() {
        let bound = endpoint("https://api.example.com/team-a/v1/");
        for path in [
            "/team-a/v1",
            "/team-a/v1/",
            "/team-a/v1/chat/completions",
            "/team-a/v1/a..b",
        ] {
            assert!(bound.takes(&to("api.example.com", 443, path)), "{path}");
        }
        let elsewhere = [
            "/",
            "",
            "/team-a",
            "/team-a/v10",
            "/team-b/v1",
            "/team-a/v1/../../team-b/v1",
            "/team-a/v1/%2e%2e/x",
            "/team-a/v1/.%2E/x",
            "/team-a/v1/..;a=b/x",
            "/team-a/v1/%2fx",
            "/team-a/v1/..%5cx",
            "/team-a/v1/\\..\\x",
            "/team-a/v1/%252e%252e/x",
            "/TEAM-A/v1",
        ];
        for path in elsewhere {
            assert!(!bound.takes(&to("api.example.com", 443, path)), "{path}");
        }
    }

    #[test]
    fn a_whole_origin_takes_every_path_of_it() {
        let bound = endpoint("https://api.telegram.org");
        for path in ["/", "", "/bot%2F/../x"] {
            assert!(bound.takes(&to("api.telegram.org", 443, path)));
        }
    }

    #[test]
    fn hosts_are_the_same_whatever_their_spelling() {
        let bound = endpoint("https://API.Example.com./v1");
        for host in ["api.example.com", "API.EXAMPLE.COM", "api.example.com."] {
            assert!(bound.takes(&to(host, 443, "/v1")), "{host}");
        }
        for host in [
            "example.com",
            "api.example.com.evil.test",
            "xapi.example.com",
            "api.example.com..",
            "",
        ] {
            assert!(!bound.takes(&to(host, 443, "/v1")), "{host}");
        }
        let six = endpoint("http://[::1]:8080");
        assert!(six.is_at(Scheme::Http, "::1", 8080) && six.is_at(Scheme::Http, "[::1]", 8080));
    }

    #[test]
    fn port_and_scheme_are_part_of_the_place() {
        let bound = endpoint("https://api.example.com:8443/v1");
        assert!(bound.takes(&to("api.example.com", 8443, "/v1")));
        assert!(!bound.takes(&to("api.example.com", 443, "/v1")));
        let clear = Destination {
            scheme: Scheme::Http,
            ..to("api.example.com", 8443, "/v1")
        };
        assert!(!bound.takes(&clear));
    }

    #[test]
    fn a_star_is_one_label() {
        let bound = endpoint("https://*.slack.com");
        assert!(bound.is_host("wss-primary.slack.com", 443));
        for host in ["slack.com", "a.b.slack.com", ".slack.com", "evilslack.com"] {
            assert!(!bound.is_host(host, 443), "{host}");
        }
    }

    #[test]
    fn what_is_no_endpoint_is_refused_without_repeating_what_may_be_secret() {
        for text in [
            "",
            "api.example.com",
            "ftp://a.b",
            "https://",
            "https:///v1",
            "https://*",
            "https://a.*.b",
            "https://a/../b",
        ] {
            assert!(
                matches!(text.parse::<Endpoint>(), Err(EndpointError::NotAUrl { .. })),
                "{text:?}"
            );
        }
        let error = "https://canary:canary@a.b/v1"
            .parse::<Endpoint>()
            .unwrap_err();
        assert_eq!(error, EndpointError::HoldsUser);
        let error = "https://a.b/v1?key=canary".parse::<Endpoint>().unwrap_err();
        assert_eq!(error, EndpointError::Tail);
    }

    #[test]
    fn an_endpoint_is_shown_as_it_is_written() {
        for text in [
            "https://api.example.com/v1",
            "http://[::1]:8080",
            "https://*.slack.com",
        ] {
            assert_eq!(endpoint(text).to_string(), text);
        }
        assert_eq!(endpoint("https://a.b:443/").to_string(), "https://a.b");
    }

    #[test]
    fn only_this_machine_is_spoken_to_in_the_clear_without_a_word() {
        assert!(endpoint("http://ollama.lan:11434").is_in_the_clear());
        for text in [
            "http://localhost:11434",
            "http://127.0.0.1",
            "http://[::1]",
            "https://a.b",
        ] {
            assert!(!endpoint(text).is_in_the_clear(), "{text}");
        }
    }
}
