//! The head of a request, held to what every server reads in the same way.
//!
//! *In:* the bytes of an HTTP/1.1 request head, up to and with its empty line. *Out:* how long its body is, and whether
//! the connection changes its use after it; or a [`Fault`].
//!
//! A head that two parsers take differently lets a client say one thing to us and another to the server behind
//! (request smuggling). So there is one spelling: lines end in CR LF, fields are not folded, a body has one length, and
//! the destination is named once, or the same each time (RFC 9112 §2.2, §3.2, §5.2, §6.3). What passes here is parsed
//! again by the HTTP library; nothing reaches that which did not pass here.

use httparse::Status;

use crate::target::Authority;

/// What follows a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// A body in chunks.
    Chunked,
    /// A body of so many bytes.
    Length(u64),
}

/// What there is to know of a head before it is parsed for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// What follows it.
    pub framing: Framing,
    /// It asks for a tunnel: what follows is not HTTP.
    pub connect: bool,
}

/// Bounds of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes, with the empty line.
    pub max_bytes: usize,
    /// Header fields, at most [`MAX_FIELDS`].
    pub max_fields: usize,
}

/// Why a head is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A line that does not end in CR LF, or holds one of the two elsewhere.
    #[error("expected lines that end in CR LF, got a bare CR or LF")]
    BareLineEnd,
    /// A body in chunks that are not.
    #[error("expected a body in well-formed chunks without extensions, got another")]
    Chunks,
    /// The connection options name a field that concerns the message.
    #[error("expected connection options about this connection, got one that names {0}")]
    ConnectionOption(&'static str),
    /// A body has two lengths, or one that is no number.
    #[error("expected one content-length in decimal digits, got another, or several")]
    ContentLength,
    /// An expectation nobody knows.
    #[error("expected expect: 100-continue, got another expectation")]
    Expect,
    /// A field goes on in the next line.
    #[error("expected each header field on one line, got a folded one")]
    Folded,
    /// No host, several, or none that could be one.
    #[error("expected one host field that names a machine, got none, several, or another text")]
    Host,
    /// Target and host field name different machines.
    #[error("expected the host field to name the machine of the request's target, got another one")]
    HostMismatch,
    /// A body has a length and chunks.
    #[error("expected content-length or transfer-encoding, got both")]
    LengthAndChunks,
    /// Not HTTP/1.
    #[error("expected an HTTP/1.1 request, got something else")]
    NotHttp,
    /// Something that is neither a way, nor a URL, nor a machine with its port.
    #[error(
        "expected a path, an absolute URL, or for CONNECT a host and a port, got another target"
    )]
    Target,
    /// Too long.
    #[error("expected a request head within the bounds on bytes and fields, got a larger one")]
    TooLarge,
    /// Not in time.
    #[error("expected a whole request head in time, got a part of one")]
    TooSlow,
    /// A body in a coding other than chunks, or in an old version's message.
    #[error("expected transfer-encoding: chunked, once, in HTTP/1.1, got another")]
    TransferEncoding,
    /// A change to a protocol that would not be judged.
    #[error("expected an upgrade to websocket, got one to another protocol")]
    Upgrade,
}

/// Fields of a head that can be looked at without an allocation.
pub const MAX_FIELDS: usize = 128;

/// The fields that decide.
#[derive(Default)]
struct Deciding<'h> {
    content_length: Option<u64>,
    transfer_encoding: bool,
    host: Option<&'h str>,
}

/// Looks at a whole head.
///
/// # Errors
///
/// [`Fault`]
pub fn check(bytes: &[u8], limits: HeadLimits) -> Result<Head, Fault> {
    if bytes.len() > limits.max_bytes {
        return Err(Fault::TooLarge);
    }
    line_ends(bytes)?;
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let most = limits.max_fields.min(MAX_FIELDS);
    let mut request = httparse::Request::new(&mut fields[..most]);
    match request.parse(bytes) {
        Ok(Status::Complete(length)) if length == bytes.len() => {}
        Err(httparse::Error::TooManyHeaders) => return Err(Fault::TooLarge),
        Ok(_) | Err(_) => return Err(Fault::NotHttp),
    }
    let (Some(method), Some(target), Some(version)) =
        (request.method, request.path, request.version)
    else {
        return Err(Fault::NotHttp);
    };
    let deciding = Deciding::of(request.headers)?;
    if deciding.transfer_encoding && (deciding.content_length.is_some() || version == 0) {
        return Err(match deciding.content_length {
            Some(_) => Fault::LengthAndChunks,
            None => Fault::TransferEncoding,
        });
    }
    let connect = method == "CONNECT";
    destination(connect, target, deciding.host, version)?;
    let framing = if deciding.transfer_encoding {
        Framing::Chunked
    } else {
        Framing::Length(deciding.content_length.unwrap_or(0))
    };
    if connect && framing != Framing::Length(0) {
        return Err(Fault::ContentLength);
    }
    Ok(Head { framing, connect })
}

/// Every line ends in CR LF, has neither of the two within it, and does not begin with white space; the first is not empty.
fn line_ends(bytes: &[u8]) -> Result<(), Fault> {
    let mut previous = 0;
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'\n' if previous != b'\r' => return Err(Fault::BareLineEnd),
            b' ' | b'\t' if previous == b'\n' => return Err(Fault::Folded),
            b'\r' if at == 0 || bytes.get(at + 1) != Some(&b'\n') => {
                return Err(Fault::BareLineEnd);
            }
            0 => return Err(Fault::NotHttp),
            _ => {}
        }
        previous = *byte;
    }
    Ok(())
}

impl<'h> Deciding<'h> {
    fn of(fields: &'h [httparse::Header<'h>]) -> Result<Self, Fault> {
        let mut deciding = Self::default();
        for field in fields {
            let value = std::str::from_utf8(field.value).map_err(|_invalid| Fault::NotHttp)?;
            let name = field.name;
            if name.eq_ignore_ascii_case("content-length") {
                let length = length(value).ok_or(Fault::ContentLength)?;
                if deciding.content_length.replace(length).is_some() {
                    return Err(Fault::ContentLength);
                }
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                if deciding.transfer_encoding || !value.eq_ignore_ascii_case("chunked") {
                    return Err(Fault::TransferEncoding);
                }
                deciding.transfer_encoding = true;
            } else if name.eq_ignore_ascii_case("host") {
                if deciding.host.replace(value).is_some() {
                    return Err(Fault::Host);
                }
            } else if name.eq_ignore_ascii_case("connection")
                || name.eq_ignore_ascii_case("proxy-connection")
            {
                connection_options(value)?;
            } else if name.eq_ignore_ascii_case("upgrade")
                && !value.trim().eq_ignore_ascii_case("websocket")
            {
                return Err(Fault::Upgrade);
            } else if name.eq_ignore_ascii_case("expect")
                && !value.eq_ignore_ascii_case("100-continue")
            {
                return Err(Fault::Expect);
            }
        }
        Ok(deciding)
    }
}

/// Digits alone: no sign, no list, no white space within.
fn length(value: &str) -> Option<u64> {
    let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| value.parse().ok()).flatten()
}

/// A field that is named as an option is taken away by the next proxy; these decide what the message is.
fn connection_options(value: &str) -> Result<(), Fault> {
    const NEVER: [&str; 6] = [
        "host",
        "content-length",
        "transfer-encoding",
        "authorization",
        "cookie",
        "expect",
    ];
    for option in value.split(',') {
        let named = NEVER
            .iter()
            .find(|never| never.eq_ignore_ascii_case(option.trim()));
        if let Some(named) = named {
            return Err(Fault::ConnectionOption(named));
        }
    }
    Ok(())
}

/// Target and host field name one machine.
fn destination(connect: bool, target: &str, host: Option<&str>, version: u8) -> Result<(), Fault> {
    if host.is_none() && version > 0 {
        return Err(Fault::Host);
    }
    let named = |text: &str, port| Authority::parse(text, port).map_err(|_malformed| Fault::Host);
    if connect {
        let asked = Authority::parse(target, None).map_err(|_malformed| Fault::Target)?;
        return match host.map(|host| named(host, Some(asked.port))).transpose()? {
            Some(host) if host != asked => Err(Fault::HostMismatch),
            Some(_) | None => Ok(()),
        };
    }
    if target.starts_with('/') || target == "*" {
        return match host {
            // The port that is implied does not matter here.
            Some(host) => named(host, Some(80)).map(drop),
            None => Ok(()),
        };
    }
    let (implied, rest) = match target.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (80, rest),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (443, rest),
        _ => return Err(Fault::Target),
    };
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let asked = Authority::parse(authority, Some(implied)).map_err(|_malformed| Fault::Target)?;
    match host.map(|host| named(host, Some(implied))).transpose()? {
        Some(host) if host != asked => Err(Fault::HostMismatch),
        Some(_) | None => Ok(()),
    }
}

impl Fault {
    /// As answers and audit lines have it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BareLineEnd => "bare_line_end",
            Self::Chunks => "chunks_malformed",
            Self::ConnectionOption(_) => "connection_option",
            Self::ContentLength => "content_length",
            Self::Expect => "expectation",
            Self::Folded => "folded_field",
            Self::Host => "host_field",
            Self::HostMismatch => "request_authority_mismatch",
            Self::LengthAndChunks => "length_and_chunks",
            Self::NotHttp => "not_http",
            Self::Target => "target_malformed",
            Self::TooLarge => "head_too_large",
            Self::TooSlow => "head_too_slow",
            Self::TransferEncoding => "transfer_encoding",
            Self::Upgrade => "upgrade_not_allowed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits {
        max_bytes: 1024,
        max_fields: 8,
    };

    fn fault(head: &str) -> Result<Head, Fault> {
        check(head.as_bytes(), LIMITS)
    }

    #[test]
    fn a_head_of_one_meaning_passes() {
        let none = Head {
            framing: Framing::Length(0),
            connect: false,
        };
        for (head, expected) in [
            ("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n", none),
            (
                "GET http://a.test/x?y HTTP/1.1\r\nHost: A.test:80\r\n\r\n",
                none,
            ),
            ("GET https://a.test HTTP/1.1\r\nhost: a.test\r\n\r\n", none),
            ("OPTIONS * HTTP/1.1\r\nhost: a.test\r\n\r\n", none),
            ("GET / HTTP/1.0\r\n\r\n", none),
            (
                "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 12\r\n\r\n",
                Head {
                    framing: Framing::Length(12),
                    connect: false,
                },
            ),
            (
                "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: Chunked\r\n\r\n",
                Head {
                    framing: Framing::Chunked,
                    connect: false,
                },
            ),
            (
                "CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n",
                Head {
                    framing: Framing::Length(0),
                    connect: true,
                },
            ),
            (
                "CONNECT a.test:443 HTTP/1.1\r\nHost: a.test\r\n\r\n",
                Head {
                    framing: Framing::Length(0),
                    connect: true,
                },
            ),
            (
                "CONNECT a.test:443 HTTP/1.0\r\n\r\n",
                Head {
                    framing: Framing::Length(0),
                    connect: true,
                },
            ),
            (
                "GET / HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: WebSocket\r\n\r\n",
                none,
            ),
        ] {
            assert_eq!(fault(head), Ok(expected), "{head:?}");
        }
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table")]
    fn a_head_that_could_be_read_in_two_ways_is_refused() {
        for (head, expected) in [
            ("GET / HTTP/1.1\nHost: a\n\n", Fault::BareLineEnd),
            ("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Fault::BareLineEnd),
            (
                "GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n",
                Fault::BareLineEnd,
            ),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
                Fault::BareLineEnd,
            ),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n",
                Fault::Folded,
            ),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
                Fault::NotHttp,
            ),
            ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", Fault::NotHttp),
            ("GET / HTTP/1.1\r\nHo st: a\r\n\r\n", Fault::NotHttp),
            ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", Fault::NotHttp),
            ("PRI * HTTP/2.0\r\n\r\n", Fault::NotHttp),
            ("GET / HTTP/1.1\r\n\r\n", Fault::Host),
            ("GET / HTTP/1.1\r\nHost:\r\n\r\n", Fault::Host),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", Fault::Host),
            ("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", Fault::Host),
            ("GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", Fault::Host),
            (
                "GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n",
                Fault::HostMismatch,
            ),
            (
                "GET http://a/ HTTP/1.1\r\nHost: a:81\r\n\r\n",
                Fault::HostMismatch,
            ),
            (
                "CONNECT a:443 HTTP/1.1\r\nHost: b:443\r\n\r\n",
                Fault::HostMismatch,
            ),
            (
                "CONNECT a:443 HTTP/1.1\r\nHost: a:80\r\n\r\n",
                Fault::HostMismatch,
            ),
            ("CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n", Fault::Target),
            ("CONNECT a:0 HTTP/1.1\r\nHost: a\r\n\r\n", Fault::Target),
            (
                "CONNECT http://a:443 HTTP/1.1\r\nHost: a\r\n\r\n",
                Fault::Target,
            ),
            (
                "CONNECT 0x7f.1:443 HTTP/1.1\r\nHost: a\r\n\r\n",
                Fault::Target,
            ),
            ("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", Fault::Target),
            ("GET a/b HTTP/1.1\r\nHost: a\r\n\r\n", Fault::Target),
            ("GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", Fault::Target),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
                Fault::ContentLength,
            ),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\n",
                Fault::ContentLength,
            ),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n",
                Fault::ContentLength,
            ),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\n",
                Fault::ContentLength,
            ),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n",
                Fault::ContentLength,
            ),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
                Fault::ContentLength,
            ),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
                Fault::LengthAndChunks,
            ),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
                Fault::TransferEncoding,
            ),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
                Fault::TransferEncoding,
            ),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
                Fault::TransferEncoding,
            ),
            (
                "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
                Fault::TransferEncoding,
            ),
            (
                "CONNECT a:1 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n",
                Fault::ContentLength,
            ),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, Content-Length\r\n\r\n",
                Fault::ConnectionOption("content-length"),
            ),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\n\r\n",
                Fault::Upgrade,
            ),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket, h2c\r\n\r\n",
                Fault::Upgrade,
            ),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\n\r\n",
                Fault::Expect,
            ),
        ] {
            assert_eq!(fault(head), Err(expected), "{head:?}");
        }
    }

    #[test]
    fn a_head_beyond_its_bounds_is_refused() {
        let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(1024));
        assert_eq!(fault(&long), Err(Fault::TooLarge));
        let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(8));
        assert_eq!(fault(&many), Err(Fault::TooLarge));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _judged = check(&bytes, LIMITS);
        }
    }
}
