//! Where people meet the agent: port, origins, and what follows for device pairing.
//!
//! A URL without a scheme is an `http` one. What a browser would read as another
//! host than it looks like (a user before the host, digits in disguise, `\`) is
//! read as the browser does or refused, never guessed at.

use http::Uri;

/// The URL of the chat, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ChatUrl {
    scheme: &'static str,
    /// As in a URL: with brackets, in lower case.
    host: String,
    port: Option<u16>,
}

/// The port of the gateway where nothing says another.
pub(crate) const DEFAULT_PORT: u16 = 18789;

/// Ports that need no privilege.
const FIRST_PORT: u16 = 1024;

/// A port that the gateway can have.
pub(crate) fn port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port| *port >= FIRST_PORT)
}

impl ChatUrl {
    /// The stock URL, at `port`.
    pub(crate) fn on_loopback(port: u16) -> Self {
        Self {
            scheme: "http",
            host: "127.0.0.1".to_owned(),
            port: Some(port),
        }
    }

    /// Reads a URL.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let whole = if text.contains("://") {
            text.to_owned()
        } else {
            format!("http://{text}")
        };
        if !whole.is_ascii() || whole.contains('\\') {
            return None;
        }
        let uri: Uri = whole.parse().ok()?;
        let scheme = match uri.scheme_str()?.to_ascii_lowercase().as_str() {
            "http" => "http",
            "https" => "https",
            _ => return None,
        };
        let host = uri.host()?.to_ascii_lowercase();
        if host.is_empty() || looks_like_a_number(&host) {
            return None;
        }
        let authority = uri.authority()?.as_str();
        let behind_user = authority.rsplit('@').next().unwrap_or(authority);
        let behind_host = behind_user.get(host.len()..)?;
        let port = match behind_host.strip_prefix(':') {
            None if !behind_host.is_empty() => return None,
            None | Some("") => None,
            Some(port) => Some(port.parse::<u16>().ok()?),
        };
        let port = port.filter(|port| *port != default_port(scheme));
        Some(Self { scheme, host, port })
    }

    /// Whether this is the stock URL.
    pub(crate) fn is_stock(&self) -> bool {
        *self == Self::on_loopback(DEFAULT_PORT)
    }

    /// The port it names, if the gateway can have it.
    pub(crate) fn gateway_port(&self) -> Option<u16> {
        self.port.filter(|port| *port >= FIRST_PORT)
    }

    /// Whether only this machine can be meant.
    pub(crate) fn is_loopback(&self) -> bool {
        let bare = self.host.trim_start_matches('[').trim_end_matches(']');
        bare == "localhost"
            || bare
                .parse::<std::net::IpAddr>()
                .is_ok_and(|ip| ip.is_loopback())
    }

    /// Whether it is without encryption.
    pub(crate) fn is_plain(&self) -> bool {
        self.scheme == "http"
    }

    /// The origins that may speak to the gateway at `port`, each once.
    pub(crate) fn allowed_origins(&self, port: u16) -> Vec<String> {
        let mut origins = vec![Self::on_loopback(port).origin(), self.origin()];
        if !self.is_loopback() && self.port.is_some() {
            let portless = Self {
                port: None,
                ..self.clone()
            };
            origins.push(portless.origin());
        }
        let mut seen: Vec<String> = Vec::with_capacity(origins.len());
        for origin in origins {
            if !seen.contains(&origin) {
                seen.push(origin);
            }
        }
        seen
    }

    fn origin(&self) -> String {
        let Self { scheme, host, port } = self;
        match port {
            Some(port) => format!("{scheme}://{host}:{port}"),
            None => format!("{scheme}://{host}"),
        }
    }
}

fn default_port(scheme: &str) -> u16 {
    if scheme == "https" { 443 } else { 80 }
}

/// A browser reads a host whose last label is a number as an IPv4 address, whatever
/// its spelling; anything but the usual one is in disguise.
fn looks_like_a_number(host: &str) -> bool {
    let last = host
        .trim_end_matches('.')
        .rsplit('.')
        .next()
        .unwrap_or(host);
    let digits = !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit());
    let disguised = digits || last.starts_with("0x");
    disguised && host.parse::<std::net::Ipv4Addr>().is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> ChatUrl {
        ChatUrl::parse(text).expect("a URL")
    }

    #[test]
    fn loopback_is_what_a_browser_takes_for_it() {
        for text in [
            "http://localhost",
            "LOCALHOST:9000",
            "http://127.0.0.1:18789",
            "127.9.8.7",
            "https://[::1]:8443/chat",
        ] {
            assert!(url(text).is_loopback(), "{text}");
        }
        for text in [
            "http://localhost@evil.example",
            "http://127.0.0.1@evil.example:1",
            "http://localhost.example",
            "http://10.0.0.1",
            "https://x.example",
        ] {
            assert!(!url(text).is_loopback(), "{text}");
        }
    }

    #[test]
    fn a_host_in_disguise_or_another_scheme_is_no_url() {
        for text in [
            "http://2130706433/",
            "http://0x7f.1",
            "http://127.1",
            "http:\\\\evil.example",
            "ftp://x.example",
            "javascript:alert(1)",
            "http://",
            "http://x.example:99999",
            "http://localhost\u{3002}example",
            "",
        ] {
            assert_eq!(ChatUrl::parse(text), None, "{text}");
        }
    }

    #[test]
    fn origins_are_those_of_loopback_and_of_the_url_each_once() {
        assert_eq!(
            url("http://127.0.0.1:19999").allowed_origins(19999),
            ["http://127.0.0.1:19999"]
        );
        assert_eq!(
            url("https://x.example").allowed_origins(18789),
            ["http://127.0.0.1:18789", "https://x.example"]
        );
        assert_eq!(
            url("https://x.example:443/a").allowed_origins(18789),
            ["http://127.0.0.1:18789", "https://x.example"]
        );
    }
}
