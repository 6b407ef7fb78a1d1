//! Reading a body whole, within bounds.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::Body;

use crate::BoxError;

/// Why a body could not be read whole.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The peer closed or broke its side before the end that it had announced.
    #[error("expected the whole body, got {received} bytes and then its end")]
    CutOff {
        /// Bytes that had arrived.
        received: usize,
        /// What the transport said.
        source: BoxError,
    },
    /// The body is longer than allowed; what follows was not read.
    #[error("expected a body of at most {max_bytes} bytes, got a longer one")]
    TooLarge {
        /// The bound, in bytes.
        max_bytes: usize,
    },
    /// The body did not arrive in time.
    #[error("expected the whole body within {within:?}, got only a part")]
    TimedOut {
        /// The bound.
        within: Duration,
    },
}

/// Reads `body` to its end: at most `max_bytes`, at most for `within`.
///
/// A length announced beyond the bound is refused before a byte is read. A body that arrives in one piece is returned
/// as it is; any other is copied once, into a buffer reserved by the announced length.
///
/// # Errors
///
/// [`BodyError`], each the peer's fault. After `TooLarge` the rest of the body is still in `body` (see
/// [`Lingering`](crate::Lingering)).
///
/// # Cancellation
///
/// Dropping the future loses what was read so far.
pub async fn read_body<B>(
    body: &mut B,
    max_bytes: usize,
    within: Duration,
) -> Result<Bytes, BodyError>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    let announced = body.size_hint().lower();
    if usize::try_from(announced).map_or(true, |bytes| bytes > max_bytes) {
        return Err(BodyError::TooLarge { max_bytes });
    }
    match tokio::time::timeout(within, read_frames(body, max_bytes)).await {
        Ok(read) => read,
        Err(_) => Err(BodyError::TimedOut { within }),
    }
}

async fn read_frames<B>(body: &mut B, max_bytes: usize) -> Result<Bytes, BodyError>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    let mut first = Bytes::new();
    let mut joined = BytesMut::new();
    loop {
        let received = first.len() + joined.len();
        let data = match poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await {
            None => break,
            Some(Err(error)) => {
                return Err(BodyError::CutOff {
                    received,
                    source: error.into(),
                });
            }
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(), // trailers carry nothing that we read
        };
        if data.len() > max_bytes - received {
            return Err(BodyError::TooLarge { max_bytes });
        }
        if received == 0 {
            first = data;
            continue;
        }
        if !first.is_empty() {
            let ahead = usize::try_from(body.size_hint().lower())
                .unwrap_or(0)
                .min(max_bytes);
            joined.reserve(first.len() + data.len() + ahead);
            joined.extend_from_slice(&std::mem::take(&mut first));
        }
        joined.extend_from_slice(&data);
    }
    Ok(if joined.is_empty() {
        first
    } else {
        joined.freeze()
    })
}
