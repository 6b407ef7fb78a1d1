//! Replies that come compressed although a plain one was asked for.

use std::io::Write;

use bytes::Bytes;
use flate2::write::{MultiGzDecoder, ZlibDecoder};
use http::HeaderMap;
use http::header::CONTENT_ENCODING;

use super::UpstreamFault;

/// A content coding that a reply came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    Deflate,
    Gzip,
    Identity,
}

/// Undoes a content coding, piece by piece.
pub(crate) enum Decoder {
    Deflate(ZlibDecoder<Vec<u8>>),
    Gzip(MultiGzDecoder<Vec<u8>>),
    Identity,
}

impl Coding {
    /// The coding that a reply announces.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, UpstreamFault> {
        let mut codings = headers.get_all(CONTENT_ENCODING).iter();
        let (first, more) = (codings.next(), codings.next());
        let Some(value) = first else {
            return Ok(Self::Identity);
        };
        let value = String::from_utf8_lossy(value.as_bytes())
            .trim()
            .to_ascii_lowercase();
        match (value.as_str(), more) {
            ("" | "identity", None) => Ok(Self::Identity),
            ("gzip" | "x-gzip", None) => Ok(Self::Gzip),
            ("deflate", None) => Ok(Self::Deflate),
            _ => Err(UpstreamFault::EncodingUnknown(
                value.chars().take(MAX_SHOWN_CHARS).collect(),
            )),
        }
    }

    /// What undoes it.
    pub(crate) fn decoder(self) -> Decoder {
        match self {
            Self::Deflate => Decoder::Deflate(ZlibDecoder::new(Vec::new())),
            Self::Gzip => Decoder::Gzip(MultiGzDecoder::new(Vec::new())),
            Self::Identity => Decoder::Identity,
        }
    }
}

impl Decoder {
    /// Coded bytes in, all that can be decoded so far out. Plain bytes pass as they are.
    pub(crate) fn push(&mut self, coded: Bytes) -> Result<Bytes, UpstreamFault> {
        match self {
            Self::Identity => Ok(coded),
            Self::Deflate(decoder) => inflate(decoder, &coded, ZlibDecoder::get_mut),
            Self::Gzip(decoder) => inflate(decoder, &coded, MultiGzDecoder::get_mut),
        }
    }

    /// Whether the coding, too, is at its end.
    pub(crate) fn end(&mut self) -> Result<(), UpstreamFault> {
        let ended = match self {
            Self::Identity => Ok(()),
            Self::Deflate(decoder) => decoder.try_finish(),
            Self::Gzip(decoder) => decoder.try_finish(),
        };
        ended.map_err(|_| UpstreamFault::EncodingWrong)
    }
}

impl std::fmt::Debug for Decoder {
    /// Shows no state: it holds what a model wrote.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Deflate(_) => "Decoder::Deflate",
            Self::Gzip(_) => "Decoder::Gzip",
            Self::Identity => "Decoder::Identity",
        })
    }
}

/// Writes slice by slice, so that what few bytes blow up to is noticed before it is large.
fn inflate<D: Write>(
    decoder: &mut D,
    coded: &[u8],
    decoded: fn(&mut D) -> &mut Vec<u8>,
) -> Result<Bytes, UpstreamFault> {
    for slice in coded.chunks(SLICE_BYTES) {
        decoder
            .write_all(slice)
            .and_then(|()| decoder.flush())
            .map_err(|_| UpstreamFault::EncodingWrong)?;
        if decoded(decoder).len() > MAX_DECODED_BYTES {
            return Err(UpstreamFault::EncodingWrong);
        }
    }
    Ok(std::mem::take(decoded(decoder)).into())
}

/// Deflate expands at most about a thousandfold, so one slice makes at most 16 MiB.
const SLICE_BYTES: usize = 16 * 1024;

/// More than any one read of a real reply decodes to.
const MAX_DECODED_BYTES: usize = 64 << 20;

const MAX_SHOWN_CHARS: usize = 40;
