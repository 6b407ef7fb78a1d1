//! What a client asks for, and where.

use farrier_secrets::Scheme;
use http::header::HOST;
use http::request::Parts;
use http::{Method, Uri};

use crate::head::Fault;
use crate::policy;
use crate::rescue::Cause;
use crate::target::{Authority, Path};

/// How a request came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Via {
    /// To the proxy itself: it names its destination.
    Proxy,
    /// In the clear to an address that is not ours outside of the sandbox. It says itself whom it means; if it does not, it
    /// means whom the address stands for.
    Captured(Authority),
    /// Within a tunnel that was asked for by name: it has no other destination.
    Tunnel { scheme: Scheme, to: Authority },
}

/// A request's destination, and what it asks for there.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) scheme: Scheme,
    pub(crate) to: Authority,
    pub(crate) method: Method,
    pub(crate) path: Path,
    pub(crate) query: Option<String>,
}

// === impl Ask ===

impl Ask {
    /// Reads the head of a request that [`crate::head`] or the HTTP/2 library has let pass.
    pub(crate) fn of(via: &Via, head: &Parts) -> Result<Self, Cause> {
        if head.method == Method::TRACE || head.method == Method::CONNECT {
            return Err(Cause::Method); // the one shows a client its own secrets, the other is for the proxy
        }
        let (scheme, to) = match via {
            Via::Proxy => destination(&head.uri)?,
            Via::Captured(at) => (Scheme::Http, meant(at, head)?),
            Via::Tunnel { scheme, to } => {
                same(*scheme, to, head)?;
                (*scheme, to.clone())
            }
        };
        Ok(Self {
            scheme,
            to,
            method: head.method.clone(),
            path: Path::parse(head.uri.path())?,
            query: head.uri.query().map(str::to_owned),
        })
    }

    pub(crate) fn asked(&self) -> policy::Asked<'_> {
        policy::Asked {
            method: self.method.as_str(),
            path: &self.path,
            query: self.query.as_deref(),
        }
    }

    pub(crate) fn destination<'a>(
        &self,
        host: &'a str,
        path: &'a str,
    ) -> farrier_secrets::Destination<'a> {
        farrier_secrets::Destination {
            scheme: self.scheme,
            host,
            port: self.to.port,
            path,
        }
    }

    /// Scheme and authority, as URLs begin.
    pub(crate) fn origin(&self) -> String {
        let authority = self.to.written(implied(self.scheme));
        format!("{}://{authority}", self.scheme.as_str())
    }
}

pub(crate) const fn implied(scheme: Scheme) -> u16 {
    match scheme {
        Scheme::Http => 80,
        Scheme::Https => 443,
    }
}

fn destination(uri: &Uri) -> Result<(Scheme, Authority), Cause> {
    let scheme = match uri.scheme_str() {
        Some("http") => Scheme::Http,
        Some("https") => Scheme::Https,
        _ => return Err(Cause::NotProxied),
    };
    let authority = uri
        .authority()
        .map(http::uri::Authority::as_str)
        .unwrap_or_default();
    Ok((scheme, Authority::parse(authority, Some(implied(scheme)))?))
}

/// Whom a request means that came to an address: the machine that it names, at the port it came to.
fn meant(at: &Authority, head: &Parts) -> Result<Authority, Cause> {
    if head.uri.scheme_str().is_some_and(|scheme| scheme != "http") {
        return Err(Fault::HostMismatch.into());
    }
    let host = head.headers.get(HOST).map(|host| host.to_str());
    let named = match (head.uri.authority(), host) {
        (Some(authority), _) => authority.as_str(),
        (None, Some(host)) => host.map_err(|_invisible| Fault::Host)?,
        (None, None) => return Ok(at.clone()),
    };
    let to = Authority::parse(named, Some(at.port)).map_err(|_malformed| Fault::Host)?;
    if to.port != at.port {
        return Err(Fault::HostMismatch.into());
    }
    Ok(to)
}

/// What names a machine in a request within a tunnel names the tunnel's.
fn same(scheme: Scheme, to: &Authority, head: &Parts) -> Result<(), Cause> {
    let hosts = head
        .headers
        .get_all(HOST)
        .iter()
        .map(|host| host.to_str().unwrap_or_default());
    let authority = head.uri.authority().map(http::uri::Authority::as_str);
    for named in hosts.chain(authority) {
        let named =
            Authority::parse(named, Some(implied(scheme))).map_err(|_malformed| Fault::Host)?;
        // Within a tunnel to another port many clients leave the port out.
        let bare = named.host == to.host && named.port == implied(scheme);
        if named != *to && !bare {
            return Err(Fault::HostMismatch.into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn ask(via: &Via, method: &str, uri: &str, host: Option<&str>) -> Result<String, &'static str> {
        let mut request = Request::builder().method(method).uri(uri);
        if let Some(host) = host {
            request = request.header(HOST, host);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        let ask = Ask::of(via, &head).map_err(|cause| crate::rescue::rescue(&cause).code)?;
        Ok(format!("{}{}", ask.origin(), ask.path.plain))
    }

    #[test]
    fn a_request_to_the_proxy_names_its_destination() {
        let ask = |method, uri| ask(&Via::Proxy, method, uri, Some("x"));
        assert_eq!(
            ask("GET", "http://A.test/x"),
            Ok("http://a.test/x".to_owned())
        );
        assert_eq!(
            ask("GET", "https://a.test:444"),
            Ok("https://a.test:444/".to_owned())
        );
        assert_eq!(ask("GET", "/x"), Err("not_proxied"));
        assert_eq!(ask("GET", "http://0x7f.1/x"), Err("target_malformed"));
        assert_eq!(ask("GET", "http://a.test/../x"), Err("target_malformed"));
        assert_eq!(ask("TRACE", "http://a.test/x"), Err("method_not_allowed"));
    }

    #[test]
    fn a_request_that_was_captured_means_whom_it_names_at_the_port_it_came_to() {
        let via = Via::Captured(Authority::parse("198.51.100.7:8080", None).unwrap());
        let ask = |uri, host| ask(&via, "GET", uri, host);
        for (uri, host, expected) in [
            ("/x", Some("A.test:8080"), "http://a.test:8080/x"),
            ("/x", Some("a.test"), "http://a.test:8080/x"),
            ("/x", None, "http://198.51.100.7:8080/x"),
            ("http://a.test:8080/x", None, "http://a.test:8080/x"),
        ] {
            assert_eq!(ask(uri, host), Ok(expected.to_owned()));
        }
        for (uri, host) in [
            ("/x", Some("a.test:80")),
            ("https://a.test:8080/x", None),
            ("http://a.test:81/x", None),
        ] {
            assert_eq!(ask(uri, host), Err("request_authority_mismatch"), "{uri}");
        }
    }

    #[test]
    fn a_request_within_a_tunnel_has_no_other_destination() {
        let via = Via::Tunnel {
            scheme: Scheme::Https,
            to: Authority::parse("a.test:8443", None).unwrap(),
        };
        let ask = |uri, host| ask(&via, "GET", uri, host);
        for (uri, host) in [
            ("/x", Some("a.test:8443")),
            ("/x", Some("A.test")),
            ("https://a.test:8443/x", None),
        ] {
            assert_eq!(ask(uri, host), Ok("https://a.test:8443/x".to_owned()));
        }
        for (uri, host) in [
            ("/x", Some("b.test")),
            ("/x", Some("a.test:444")),
            ("https://b.test/x", Some("a.test:8443")),
        ] {
            assert_eq!(
                ask(uri, host),
                Err("request_authority_mismatch"),
                "{uri} {host:?}"
            );
        }
    }
}
