//! Where a shared store is, as a URL.
//!
//! ```text
//! redis://host:6379/0                     one server, or a service that looks like one
//! redis+unix:///run/redis.sock?db=0       the same on this machine
//! redis+cluster://a:6379,b:6379           a cluster, by any of its nodes
//! redis+sentinel://a:26379,b:26379/name   the primary that sentinels watch under this name
//! ```
//!
//! `rediss` in place of `redis` is TLS, `valkey` and `valkeys` are the same. A URL holds no user name
//! and no password, so that it can be printed; one that does is refused and not repeated.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// Where a Redis or Valkey store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A cluster, by some of its nodes.
    Cluster {
        /// Nodes to ask for the others.
        nodes: Vec<Address>,
        /// Whether it is reached over TLS.
        tls: bool,
    },
    /// The primary that sentinels know under a name.
    Sentinel {
        /// Whom to ask.
        sentinels: Vec<Address>,
        /// What they call it.
        service: String,
        /// The number of its database.
        database: u32,
        /// Whether sentinels and primary are reached over TLS.
        tls: bool,
    },
    /// One server.
    Server {
        /// Where it listens.
        address: Address,
        /// The number of its database.
        database: u32,
        /// Whether it is reached over TLS.
        tls: bool,
    },
    /// One server on this machine.
    Socket {
        /// Its Unix socket.
        path: PathBuf,
        /// The number of its database.
        database: u32,
    },
}

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// A name or an IP address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// A text that is not the URL of a shared store. Does not show the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LocationError {
    /// It holds a user name or a password.
    #[error("expected a URL without a user name or password, got one with")]
    Credentials,
    /// A number of a database that is none.
    #[error("expected the number of a database, got something else")]
    Database,
    /// A host or port that is none, or none at all.
    #[error("expected a host, or several with a comma between them, got something else")]
    Host,
    /// A socket whose path does not start at the root.
    #[error("expected the whole path of a socket, as in redis+unix:///run/redis.sock")]
    Path,
    /// Another scheme than those that are known.
    #[error(
        "expected a URL that starts with redis://, rediss://, redis+unix://, redis+cluster:// or redis+sentinel://"
    )]
    Scheme,
    /// A sentinel's URL without the name of what it watches.
    #[error(
        "expected the name that sentinels know the primary by, as in redis+sentinel://host/name"
    )]
    Service,
}

impl Location {
    /// Whether it is reached over TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        match self {
            Self::Cluster { tls, .. } | Self::Sentinel { tls, .. } | Self::Server { tls, .. } => {
                *tls
            }
            Self::Socket { .. } => false,
        }
    }

    /// Whether a text means to be such a URL, if perhaps a wrong one: it starts with a scheme.
    #[must_use]
    pub fn is_meant_by(text: &str) -> bool {
        text.contains("://")
    }
}

impl FromStr for Location {
    type Err = LocationError;

    fn from_str(text: &str) -> Result<Self, LocationError> {
        if text.contains('@') {
            return Err(LocationError::Credentials);
        }
        let (scheme, rest) = text.split_once("://").ok_or(LocationError::Scheme)?;
        let (protocol, form) = scheme.split_once('+').unwrap_or((scheme, ""));
        let tls = match protocol {
            "redis" | "valkey" => false,
            "rediss" | "valkeys" => true,
            _ => return Err(LocationError::Scheme),
        };
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        match form {
            "" => Ok(Self::Server {
                address: Address::parse(hosts, PORT)?,
                database: database(path)?,
                tls,
            }),
            "cluster" if path.is_empty() => Ok(Self::Cluster {
                nodes: Address::parse_all(hosts, PORT)?,
                tls,
            }),
            "cluster" => Err(LocationError::Database),
            "sentinel" => {
                let (service, number) = path.split_once('/').unwrap_or((path, ""));
                if service.is_empty() {
                    return Err(LocationError::Service);
                }
                Ok(Self::Sentinel {
                    sentinels: Address::parse_all(hosts, SENTINEL_PORT)?,
                    service: service.to_owned(),
                    database: database(number)?,
                    tls,
                })
            }
            "unix" if !tls => {
                let (path, number) = rest.split_once("?db=").unwrap_or((rest, ""));
                if !path.starts_with('/') {
                    return Err(LocationError::Path);
                }
                Ok(Self::Socket {
                    path: path.into(),
                    database: database(number)?,
                })
            }
            _ => Err(LocationError::Scheme),
        }
    }
}

fn database(text: &str) -> Result<u32, LocationError> {
    if text.is_empty() {
        return Ok(0);
    }
    text.parse()
        .map_err(|_not_a_number| LocationError::Database)
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = if self.is_tls() { "s" } else { "" };
        match self {
            Self::Cluster { nodes, .. } => write!(f, "redis{s}+cluster://{}", Joined(nodes)),
            Self::Sentinel {
                sentinels,
                service,
                database,
                ..
            } => write!(
                f,
                "redis{s}+sentinel://{}/{service}/{database}",
                Joined(sentinels)
            ),
            Self::Server {
                address, database, ..
            } => write!(f, "redis{s}://{address}/{database}"),
            Self::Socket { path, database } => {
                write!(f, "redis+unix://{}?db={database}", path.display())
            }
        }
    }
}

struct Joined<'a>(&'a [Address]);

impl fmt::Display for Joined<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, address) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{address}")?;
        }
        Ok(())
    }
}

impl Address {
    fn parse_all(text: &str, port: u16) -> Result<Vec<Self>, LocationError> {
        text.split(',')
            .map(|text| Self::parse(text, port))
            .collect()
    }

    /// `host`, `host:port`, or either with an IPv6 address in brackets.
    fn parse(text: &str, port: u16) -> Result<Self, LocationError> {
        let (host, after) = match text.strip_prefix('[') {
            Some(rest) => rest.split_once(']').ok_or(LocationError::Host)?,
            None => text.split_at(text.find(':').unwrap_or(text.len())),
        };
        let port = match after.strip_prefix(':') {
            Some(digits) => digits.parse().map_err(|_not_a_port| LocationError::Host)?,
            None if after.is_empty() => port,
            None => return Err(LocationError::Host),
        };
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:%".contains(&byte);
        if host.is_empty() || !host.bytes().all(plain) {
            return Err(LocationError::Host);
        }
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') {
            write!(f, "[{host}]:{port}")
        } else {
            write!(f, "{host}:{port}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_read_and_shown_whole() {
        let cases = [
            ("redis://store", "redis://store:6379/0"),
            ("rediss://store:7000/3", "rediss://store:7000/3"),
            ("valkeys://[::1]", "rediss://[::1]:6379/0"),
            ("redis://[::1]:1/", "redis://[::1]:1/0"),
            (
                "redis+unix:///run/redis.sock",
                "redis+unix:///run/redis.sock?db=0",
            ),
            ("valkey+unix:///s?db=2", "redis+unix:///s?db=2"),
            ("redis+cluster://a,b:1", "redis+cluster://a:6379,b:1"),
            ("rediss+cluster://a", "rediss+cluster://a:6379"),
            (
                "redis+sentinel://a,b:1/main",
                "redis+sentinel://a:26379,b:1/main/0",
            ),
            (
                "rediss+sentinel://a/main/4",
                "rediss+sentinel://a:26379/main/4",
            ),
        ];
        for (text, shown) in cases {
            let location: Location = text.parse().unwrap();
            assert_eq!(location.to_string(), shown);
            assert_eq!(shown.parse(), Ok(location), "{shown}");
        }
    }

    #[test]
    fn what_is_no_such_url_is_refused_without_showing_it() {
        use LocationError::{Credentials, Database, Host, Path, Scheme, Service};
        let cases = [
            ("", Scheme),
            ("store:6379", Scheme),
            ("http://store", Scheme),
            ("redis+tls://store", Scheme),
            ("rediss+unix:///s", Scheme),
            ("redis://user:canary@store", Credentials),
            ("redis://:canary@store", Credentials),
            ("redis://", Host),
            ("redis://store:", Host),
            ("redis://store:99999", Host),
            ("redis://a b", Host),
            ("redis://[::1", Host),
            ("redis://[::1]x", Host),
            ("redis+cluster://a,,b", Host),
            ("redis://store/canary", Database),
            ("redis://store/-1", Database),
            ("redis+cluster://a/1", Database),
            ("redis+unix://run/redis.sock", Path),
            ("redis+sentinel://a", Service),
            ("redis+sentinel://a/", Service),
        ];
        for (text, expected) in cases {
            let error = text.parse::<Location>().unwrap_err();
            assert_eq!(error, expected, "{text}");
            assert!(!error.to_string().contains("canary"));
        }
    }
}
