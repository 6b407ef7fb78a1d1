//! What a request says of where it wants to go, in the one spelling that is judged, resolved and dialled.
//!
//! *In:* an authority or a path as it stands in a request. *Out:* an [`Authority`] or a [`Path`], or a refusal.
//!
//! A host that any resolver might read as a number is an address spelt as RFC 3986 does, or it is refused: `127.1`,
//! `0x7f.1`, `2130706433` and `0177.0.0.1` are four spellings of this machine. A path that servers may read in two ways
//! is refused too, so that what was judged is what is asked for.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// By its address.
    Address(IpAddr),
    /// By its name: lower case, without a final dot.
    Name(String),
}

/// A machine and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Authority {
    /// The machine.
    pub host: Host,
    /// The port.
    pub port: u16,
}

/// A path as policies are written for: decoded once, without empty segments and parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// As it is judged.
    pub plain: String,
    /// As it is sent: the way it was written, without its empty segments.
    pub written: String,
    /// A slash within a segment was written as `%2F`, and stands as that in both.
    pub has_encoded_slash: bool,
}

/// Why a text is not where anybody can go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Not the name or address of a machine.
    #[error(
        "expected a host name in ASCII, or an address as 192.0.2.1 or [2001:db8::1], got another spelling; write it out"
    )]
    Host,
    /// A path that servers read in different ways.
    #[error(
        "expected a path without dot segments, backslashes, control characters or escapes of escapes, got one with them"
    )]
    Path,
    /// A path beyond the bound.
    #[error("expected a path of at most {MAX_PATH_BYTES} bytes, got a longer one")]
    PathTooLong,
    /// No port, or none that can be connected to.
    #[error("expected a port from 1 to 65535 after the host, got none")]
    Port,
}

/// Bytes of a path, as OpenShell has it.
const MAX_PATH_BYTES: usize = 4096;
/// Bytes of a name, RFC 1035 §2.3.4.
const MAX_NAME_BYTES: usize = 253;
/// Bytes of one of its labels.
const MAX_LABEL_BYTES: usize = 63;

// === impl Host ===

impl Host {
    /// Reads a host as it stands in an authority: IPv6 in brackets.
    ///
    /// # Errors
    ///
    /// [`Malformed::Host`]
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        if let Some(six) = text.strip_prefix('[') {
            let six = six.strip_suffix(']').ok_or(Malformed::Host)?;
            let six: Ipv6Addr = six.parse().map_err(|_invalid| Malformed::Host)?;
            return Ok(Self::Address(six.into()));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        if ends_in_a_number(name) {
            let four: Ipv4Addr = name.parse().map_err(|_invalid| Malformed::Host)?;
            return Ok(Self::Address(four.into()));
        }
        let labels_fit = name.split('.').all(|label| {
            (1..=MAX_LABEL_BYTES).contains(&label.len())
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        });
        if name.len() > MAX_NAME_BYTES || !labels_fit {
            return Err(Malformed::Host);
        }
        Ok(Self::Name(name.to_ascii_lowercase()))
    }

    /// As secrets and certificates know it: without brackets.
    #[must_use]
    pub fn bare(&self) -> String {
        match self {
            Self::Address(address) => address.to_string(),
            Self::Name(name) => name.clone(),
        }
    }
}

/// Whether a resolver may take a host for a number, as the URL standard has it: its last label is made of digits, or is
/// a hexadecimal number.
fn ends_in_a_number(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or_default();
    let hex = last
        .strip_prefix("0x")
        .or_else(|| last.strip_prefix("0X"))
        .is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    hex || (!last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit()))
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(IpAddr::V6(six)) => write!(f, "[{six}]"),
            Self::Address(four) => four.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

// === impl Authority ===

impl Authority {
    /// Reads `host:port`; without a port, `implied` is it, if there is one.
    ///
    /// # Errors
    ///
    /// [`Malformed`]; user names are refused too.
    pub fn parse(text: &str, implied: Option<u16>) -> Result<Self, Malformed> {
        let after_brackets = text.rfind(']').map_or(0, |at| at + 1);
        let (host, port) = match text[after_brackets..].find(':') {
            Some(at) => {
                let (host, port) = text.split_at(after_brackets + at);
                (host, Some(&port[1..]))
            }
            None => (text, None),
        };
        let port = match port {
            Some(port) if (1..=5).contains(&port.len()) && !port.starts_with('0') => {
                let digits = port.bytes().all(|byte| byte.is_ascii_digit());
                let port = digits.then(|| port.parse().ok()).flatten();
                port.ok_or(Malformed::Port)?
            }
            Some(_) => return Err(Malformed::Port),
            None => implied.ok_or(Malformed::Port)?,
        };
        Ok(Self {
            host: Host::parse(host)?,
            port,
        })
    }

    /// As it stands in a `Host` field: without the port that the scheme implies.
    #[must_use]
    pub fn written(&self, implied: u16) -> String {
        if self.port == implied {
            self.host.to_string()
        } else {
            self.to_string()
        }
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

// === impl Path ===

impl Path {
    /// Reads the path of a request, without its query.
    ///
    /// # Errors
    ///
    /// [`Malformed::Path`], [`Malformed::PathTooLong`]
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        if text.len() > MAX_PATH_BYTES {
            return Err(Malformed::PathTooLong);
        }
        let rooted = text.strip_prefix('/').unwrap_or(text);
        let mut path = Self {
            plain: String::with_capacity(text.len()),
            written: String::with_capacity(text.len()),
            has_encoded_slash: false,
        };
        let (inner, last) = rooted.rsplit_once('/').unwrap_or(("", rooted));
        for segment in inner.split('/').filter(|segment| !segment.is_empty()) {
            path.push(segment)?;
        }
        path.push(last)?; // empty if the path ends with a slash, which is part of what it names
        Ok(path)
    }

    fn push(&mut self, segment: &str) -> Result<(), Malformed> {
        self.written.push('/');
        self.written.push_str(segment);
        let (decoded, has_encoded_slash) = decoded(segment)?;
        self.has_encoded_slash |= has_encoded_slash;
        let name = decoded.split(';').next().unwrap_or_default();
        let leads_elsewhere = decoded
            .split([';', '?', '#'])
            .flat_map(|part| part.split("%2F"))
            .any(|part| matches!(part.trim(), "." | ".."));
        if leads_elsewhere || decoded.contains(|c: char| c.is_control() || c == '\\') {
            return Err(Malformed::Path);
        }
        self.plain.push('/');
        self.plain.push_str(name);
        Ok(())
    }
}

/// A segment with its escapes undone, once. An encoded slash stays `%2F`; an escape within an escape has no meaning that
/// all servers share.
fn decoded(segment: &str) -> Result<(String, bool), Malformed> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut has_encoded_slash = false;
    let mut rest = segment.as_bytes();
    while let [first, tail @ ..] = rest {
        if *first != b'%' {
            bytes.push(*first);
            rest = tail;
            continue;
        }
        let [high, low, after @ ..] = tail else {
            return Err(Malformed::Path);
        };
        let digit = |digit: u8| {
            char::from(digit)
                .to_digit(16)
                .and_then(|d| u8::try_from(d).ok())
        };
        let (Some(high), Some(low)) = (digit(*high), digit(*low)) else {
            return Err(Malformed::Path);
        };
        match high << 4 | low {
            b'/' => {
                bytes.extend_from_slice(b"%2F");
                has_encoded_slash = true;
            }
            b'%' if is_escape(after) => return Err(Malformed::Path),
            byte => bytes.push(byte),
        }
        rest = after;
    }
    let text = String::from_utf8(bytes).map_err(|_invalid| Malformed::Path)?;
    Ok((text, has_encoded_slash))
}

fn is_escape(after_percent: &[u8]) -> bool {
    after_percent
        .first()
        .is_some_and(|byte| byte.is_ascii_hexdigit() || *byte == b'%')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_have_one_spelling() {
        for (text, expected) in [
            ("API.Example.com:443", "api.example.com:443"),
            ("api.example.com.:443", "api.example.com:443"),
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("[0:0::1]:8080", "[::1]:8080"),
            ("[::ffff:7f00:1]:80", "[::ffff:127.0.0.1]:80"),
            ("xn--bcher-kva.example:1", "xn--bcher-kva.example:1"),
            ("a_b.example:65535", "a_b.example:65535"),
        ] {
            let read = Authority::parse(text, None).unwrap();
            assert_eq!(read.to_string(), expected, "{text}");
        }
    }

    #[test]
    fn a_number_in_any_other_spelling_is_refused() {
        for host in [
            "2130706433",
            "0x7f000001",
            "0x7f.0.0.1",
            "0177.0.0.1",
            "127.1",
            "127.0.0.01",
            "127.0.0.1.",
            "1.2.3.4.5",
            "example.0x7f",
            "example.1",
            "0x",
            "256.0.0.1",
            "::1",
            "[::1%25lo]",
            "[::1",
            "[127.0.0.1]",
            "①②⑦.0.0.1",
            "127。0。0。1",
        ] {
            let read = Host::parse(host);
            if host == "127.0.0.1." {
                assert_eq!(read, Ok(Host::Address(Ipv4Addr::LOCALHOST.into())));
            } else {
                assert_eq!(read, Err(Malformed::Host), "{host}");
            }
        }
    }

    #[test]
    fn a_host_that_hides_another_is_refused() {
        for text in [
            "",
            ":443",
            "user@example.com:443",
            "example.com:443@evil.test:443",
            "a..b:443",
            ".a:443",
            "exa mple.com:443",
            "example.com%2eevil.test:443",
            "example.com\\.evil.test:443",
            "bücher.example:443",
            "example.com/:443",
            "*.example.com:443",
        ] {
            assert!(Authority::parse(text, Some(443)).is_err(), "{text}");
        }
        let long = format!("{}:443", "a.".repeat(128));
        assert!(Authority::parse(&long, None).is_err());
    }

    #[test]
    fn a_port_is_written_in_decimal_and_not_zero() {
        for text in [
            "a",
            "a:",
            "a:0",
            "a:65536",
            "a:080",
            "a:+80",
            "a:8o",
            "a:443:443",
            "[::1]",
            "[::1]443",
        ] {
            assert!(Authority::parse(text, None).is_err(), "{text}");
        }
        assert_eq!(Authority::parse("a", Some(80)).unwrap().port, 80);
    }

    #[test]
    fn a_path_is_judged_in_its_plainest_form_and_sent_as_it_was_written() {
        for (text, plain, written) in [
            ("/v1/models", "/v1/models", "/v1/models"),
            ("//v1///models//", "/v1/models/", "/v1/models/"),
            ("/v1/m%6Fdels;a=1", "/v1/models", "/v1/m%6Fdels;a=1"),
            ("/a%20b/...", "/a b/...", "/a%20b/..."),
            ("/", "/", "/"),
            ("", "/", "/"),
            ("/x%2fy", "/x%2Fy", "/x%2fy"),
            ("/100%25", "/100%", "/100%25"),
            (
                "/botopenshell%3Aresolve%3Aenv%3AT/getMe",
                "/botopenshell:resolve:env:T/getMe",
                "/botopenshell%3Aresolve%3Aenv%3AT/getMe",
            ),
        ] {
            let path = Path::parse(text).unwrap();
            assert_eq!(
                (path.plain.as_str(), path.written.as_str()),
                (plain, written),
                "{text}"
            );
        }
        assert!(Path::parse("/x%2fy").unwrap().has_encoded_slash);
        assert!(!Path::parse("/x/y").unwrap().has_encoded_slash);
    }

    #[test]
    fn a_path_that_can_be_read_in_two_ways_is_refused() {
        for text in [
            "/a/../b",
            "/a/./b",
            "/a/%2e%2e/b",
            "/a/.%2E/b",
            "/a/..;x/b",
            "/a/..%3bx/b",
            "/a/..%20/b",
            "/a/..%2fb",
            "/a/%2f..",
            "/a\\b",
            "/a/..%5cb",
            "/a%00",
            "/a%0d%0ab",
            "/a/%252e%252e/b",
            "/a%252fb",
            "/a%2",
            "/a%zz",
            "/a%c0%ae",
            "/..",
            "/a/..?",
        ] {
            assert_eq!(Path::parse(text), Err(Malformed::Path), "{text}");
        }
        let long = format!("/{}", "a".repeat(MAX_PATH_BYTES));
        assert_eq!(Path::parse(&long), Err(Malformed::PathTooLong));
    }
}
