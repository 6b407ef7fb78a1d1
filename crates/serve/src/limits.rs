//! What a listener grants to a peer.

use std::time::Duration;

/// Bounds of a listener. Every field has a default that suits a gateway for a few hundred agents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections open at once; one more is not accepted until one of these closes.
    pub max_connections: usize,
    /// Bytes of a request head, and of the read buffer that holds it; at least [`Limits::MIN_HEADER_BYTES`].
    pub max_header_bytes: usize,
    /// Header fields of a request.
    pub max_headers: usize,
    /// Streams open at once on one HTTP/2 connection.
    pub max_streams: u32,
    /// From accept to the first request, and for each request head (which includes idling between two requests).
    pub header_read: Duration,
    /// How long a peer may leave written bytes untaken.
    pub write_stall: Duration,
    /// From the shutdown signal until connections still busy are cut.
    pub drain: Duration,
}

impl Limits {
    /// The smallest read buffer that the HTTP/1.1 parser works with.
    pub const MIN_HEADER_BYTES: usize = 8 * 1024;

    /// Header fields up to which the HTTP/1.1 parser keeps its table on the stack.
    pub(crate) const STACK_HEADERS: usize = 100;
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 4096,
            max_header_bytes: 64 * 1024,
            max_headers: Self::STACK_HEADERS,
            max_streams: 256,
            header_read: Duration::from_secs(60),
            write_stall: Duration::from_secs(120),
            drain: Duration::from_secs(30),
        }
    }
}
