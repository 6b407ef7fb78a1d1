//! What the fuzzers call. The same functions run over the corpus in the test suite,
//! so that they are known to hold before a fuzzer spends its time on them.
//!
//! Each takes any bytes and panics only when a promise of this crate is broken.

use bytes::Bytes;

use crate::wire::chat::{Ask, Chunk};
use crate::wire::json::Segment;
use crate::wire::refrain::Refrain;
use crate::wire::sse::{self, Frame, Framer};

/// A request that is read and not edited leaves as the bytes it came in, and is taken
/// exactly when an independent reader takes it.
///
/// # Panics
/// When that is not so.
pub fn request(bytes: &[u8]) {
    let Ok(ask) = Ask::parse(bytes) else {
        return;
    };
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    assert!(
        serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok(),
        "taken, but not JSON"
    );
    let pieces = ask.into_segments().into_pieces();
    assert_eq!(pieces, [Segment::Kept(text)]);
}

/// Frames are the stream, byte for byte, however it was cut: the first byte says where.
///
/// # Panics
/// When they are not.
pub fn stream(bytes: &[u8]) {
    let Some((size, bytes)) = bytes.split_first() else {
        return;
    };
    let whole = frames(bytes, bytes.len().max(1));
    assert_eq!(
        frames(bytes, usize::from(*size).max(1)),
        whole,
        "cutting makes a difference"
    );
    let mut joined = Vec::new();
    let mut refrain = Refrain::default();
    for frame in &whole {
        let (Frame::Event(raw) | Frame::Idle(raw)) = frame;
        joined.extend_from_slice(raw);
        let Some(data) = sse::data(raw) else {
            continue;
        };
        let repeats = refrain.repeats(raw).map(|words| words.length);
        match Chunk::parse(&data) {
            Some(mut chunk) => refrain.learn(raw, &mut chunk),
            None => assert_ne!(repeats, Some(raw.len()), "repeats, and is no chunk"),
        }
    }
    assert_eq!(joined, bytes, "bytes were lost or made");
}

fn frames(bytes: &[u8], size: usize) -> Vec<Frame> {
    let mut framer = Framer::default();
    let mut out = Vec::new();
    for read in bytes.chunks(size) {
        framer.push(Bytes::copy_from_slice(read));
        while let Ok(Some(frame)) = framer.next_frame() {
            out.push(frame);
        }
    }
    out.extend(framer.finish());
    out
}
