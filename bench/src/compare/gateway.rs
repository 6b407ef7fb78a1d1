//! A gateway as it is named on the command line.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;

use http::Uri;

use crate::contest::DIRECT;

/// `NAME=URL` or `NAME=URL@PID`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Gateway {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    /// As the URL has it, with its port.
    pub(crate) host: String,
    /// Of the base URL, without a slash at its end.
    pub(crate) path: String,
    /// The process that started all others of it.
    pub(crate) pid: Option<u32>,
}

/// `VALUE` for all gateways, or `NAME=VALUE` for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named<T> {
    pub(crate) name: Option<String>,
    pub(crate) value: T,
}

/// What is wrong with the word for a gateway.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum GatewayError {
    #[error("expected NAME=URL or NAME=URL@PID, such as nginx=http://127.0.0.1:8080/v1@4711")]
    Form,
    #[error("expected an address for {0}, found none")]
    NoAddress(String),
    #[error("expected a process id after the last @, got \"{0}\"")]
    Pid(String),
    #[error(
        "expected an http:// base URL of a gateway on this machine or a near one, got \"{0}\"; for TLS, measure the listener behind it"
    )]
    Url(String),
}

// === impl Gateway ===

impl Gateway {
    /// The upstream itself.
    pub(crate) fn direct(address: SocketAddr) -> Self {
        Self {
            name: DIRECT.to_owned(),
            address,
            host: address.to_string(),
            path: "/v1".to_owned(),
            pid: None,
        }
    }
}

impl FromStr for Gateway {
    type Err = GatewayError;

    fn from_str(text: &str) -> Result<Self, GatewayError> {
        let (name, rest) = text.split_once('=').ok_or(GatewayError::Form)?;
        if name.is_empty() {
            return Err(GatewayError::Form);
        }
        let (url, pid) = match rest.rsplit_once('@') {
            None => (rest, None),
            Some((url, pid)) => {
                let number = pid.parse().map_err(|_| GatewayError::Pid(pid.to_owned()))?;
                (url, Some(number))
            }
        };
        let strange = || GatewayError::Url(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| strange())?;
        if uri.scheme_str() != Some("http") || uri.query().is_some() {
            return Err(strange());
        }
        let host = uri.host().ok_or_else(strange)?;
        let host = format!("{host}:{}", uri.port_u16().unwrap_or(80));
        let address = host.to_socket_addrs().ok().and_then(|mut all| all.next());
        Ok(Self {
            name: name.to_owned(),
            address: address.ok_or_else(|| GatewayError::NoAddress(host.clone()))?,
            host,
            path: uri.path().trim_end_matches('/').to_owned(),
            pid,
        })
    }
}

impl fmt::Display for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name, host, path, ..
        } = self;
        write!(f, "{name}: http://{host}{path}")?;
        if self.pid.is_none() {
            write!(f, ", its process unknown")?;
        }
        Ok(())
    }
}

// === impl Named ===

impl<T> Named<T> {
    /// What is said for this gateway, or for all.
    pub(crate) fn of<'n>(all: &'n [Self], name: &str) -> Option<&'n T> {
        let own = all
            .iter()
            .rfind(|named| named.name.as_deref() == Some(name));
        let common = || all.iter().rfind(|named| named.name.is_none());
        own.or_else(common).map(|named| &named.value)
    }
}

impl FromStr for Named<String> {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text.split_once('=') {
            Some((name, value)) => Self {
                name: Some(name.to_owned()),
                value: value.to_owned(),
            },
            None => Self {
                name: None,
                value: text.to_owned(),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_is_a_name_a_base_url_and_perhaps_a_process() {
        let gateway: Gateway = "peer=http://127.0.0.1:4000/openai/v1/@4711"
            .parse()
            .expect("it is one");
        assert_eq!(
            gateway,
            Gateway {
                name: "peer".into(),
                address: SocketAddr::from(([127, 0, 0, 1], 4000)),
                host: "127.0.0.1:4000".into(),
                path: "/openai/v1".into(),
                pid: Some(4711),
            }
        );
        let bare: Gateway = "peer=http://127.0.0.1".parse().expect("it is one");
        assert_eq!(
            (bare.address.port(), bare.path.as_str(), bare.pid),
            (80, "", None)
        );
    }

    #[test]
    fn a_word_that_is_no_gateway_is_refused_with_what_was_expected() {
        let refused = |word: &str| word.parse::<Gateway>().expect_err("it is none");
        assert_eq!(refused("http://127.0.0.1:1/v1"), GatewayError::Form);
        assert_eq!(refused("=http://127.0.0.1:1"), GatewayError::Form);
        assert_eq!(
            refused("a=http://127.0.0.1:1@b"),
            GatewayError::Pid("b".into())
        );
        for url in [
            "https://127.0.0.1:1/v1",
            "127.0.0.1:1",
            "http://127.0.0.1:1/?a",
        ] {
            assert_eq!(refused(&format!("a={url}")), GatewayError::Url(url.into()));
        }
    }

    #[test]
    fn what_is_said_for_one_gateway_goes_before_what_is_said_for_all() {
        let words = ["all", "b=only-b"].map(|word| word.parse().expect("it never fails"));
        assert_eq!(Named::of(&words, "a"), Some(&"all".to_owned()));
        assert_eq!(Named::of(&words, "b"), Some(&"only-b".to_owned()));
        assert_eq!(Named::<String>::of(&[], "a"), None);
    }
}
