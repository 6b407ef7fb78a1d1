//! What a client says over a WebSocket, with placeholders of its text messages replaced.
//!
//! ```text
//! client ─▶ Frames ─▶ destination        text: held until it is whole, looked at, sent as one frame
//! client ◀──────────── destination       anything else, and all that comes back: as it is
//! ```
//!
//! Extensions are not negotiated where this is done, so a frame says what it says (RFC 6455 §5.2). The framing is
//! changed only for messages that a secret is put into; a message goes out with the mask its client chose.

use zeroize::Zeroizing;

/// The frames of one client.
#[derive(Debug)]
pub(crate) struct Frames {
    /// Bytes that are not a whole frame yet; of frames that pass, only their heads are held.
    held: Vec<u8>,
    /// Bytes of a frame that passes and that are still to come.
    passing: u64,
    /// The text message that is being put together, as it was framed.
    message: Option<Message>,
    max_message_bytes: usize,
}

#[derive(Debug, Default)]
struct Message {
    text: Zeroizing<Vec<u8>>,
    framed: Vec<u8>,
    mask: [u8; 4],
}

/// Why a WebSocket is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Violation {
    #[error("expected masked frames without extensions, got another")]
    Frame,
    #[error("expected a text message of at most {max_bytes} bytes, got a longer one")]
    TooLong { max_bytes: usize },
}

struct FrameHead {
    length: usize,
    fin: bool,
    opcode: u8,
    mask: [u8; 4],
    payload: u64,
}

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const CLOSE: u8 = 8;

// === impl Frames ===

impl Frames {
    pub(crate) const fn new(max_message_bytes: usize) -> Self {
        Self {
            held: Vec::new(),
            passing: 0,
            message: None,
            max_message_bytes,
        }
    }

    /// Takes what was read, and gives what is to be sent. `resolve` is shown each text message; it gives another text, or
    /// none if it goes out as it is.
    pub(crate) fn feed<E: From<Violation>>(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        mut resolve: impl FnMut(&str) -> Result<Option<Zeroizing<String>>, E>,
    ) -> Result<(), E> {
        self.held.extend_from_slice(bytes);
        let mut at = 0;
        loop {
            let left = &self.held[at..];
            if self.passing > 0 {
                let taken =
                    usize::try_from(self.passing).map_or(left.len(), |most| most.min(left.len()));
                out.extend_from_slice(&left[..taken]);
                self.passing -= taken as u64;
                at += taken;
                if self.passing > 0 {
                    break;
                }
                continue;
            }
            let Some(head) = FrameHead::parse(left)? else {
                break;
            };
            if !self.is_text(&head)? {
                out.extend_from_slice(&left[..head.length]);
                self.passing = head.payload;
                at += head.length;
                continue;
            }
            let Some(end) = self.whole(&head, left.len())? else {
                break;
            };
            let frame = self.held[at..at + end].to_vec();
            at += end;
            if let Some(message) = self.add(&head, &frame) {
                message.send(out, &mut resolve)?;
            }
        }
        self.held.drain(..at);
        Ok(())
    }

    /// Whether a frame is a part of a text message.
    fn is_text(&self, head: &FrameHead) -> Result<bool, Violation> {
        match (head.opcode, &self.message) {
            (TEXT, Some(_)) => Err(Violation::Frame),
            (TEXT, None) | (CONTINUATION, Some(_)) => Ok(true),
            _ => Ok(false),
        }
    }

    /// Where a frame of text ends, if all of it is there.
    fn whole(&self, head: &FrameHead, there: usize) -> Result<Option<usize>, Violation> {
        let so_far = self
            .message
            .as_ref()
            .map_or(0, |message| message.text.len());
        let payload = usize::try_from(head.payload).unwrap_or(usize::MAX);
        if payload > self.max_message_bytes - so_far.min(self.max_message_bytes) {
            return Err(Violation::TooLong {
                max_bytes: self.max_message_bytes,
            });
        }
        let end = head.length + payload;
        Ok((there >= end).then_some(end))
    }

    /// Adds a frame to the message; gives that once it is whole.
    fn add(&mut self, head: &FrameHead, frame: &[u8]) -> Option<Message> {
        let message = self.message.get_or_insert_with(|| Message {
            mask: head.mask,
            ..Message::default()
        });
        let payload = &frame[head.length..];
        message.text.extend(
            payload
                .iter()
                .zip(head.mask.iter().cycle())
                .map(|(byte, mask)| byte ^ mask),
        );
        message.framed.extend_from_slice(frame);
        if head.fin { self.message.take() } else { None }
    }
}

impl Message {
    fn send<E>(
        self,
        out: &mut Vec<u8>,
        resolve: &mut impl FnMut(&str) -> Result<Option<Zeroizing<String>>, E>,
    ) -> Result<(), E> {
        // What is no text goes on as it is; its receiver will say so.
        let resolved = match std::str::from_utf8(&self.text) {
            Ok(text) => resolve(text)?,
            Err(_) => None,
        };
        match resolved {
            None => out.extend_from_slice(&self.framed),
            Some(text) => frame(TEXT, text.as_bytes(), self.mask, out),
        }
        Ok(())
    }
}

impl FrameHead {
    /// The head of the next frame, if it is there.
    fn parse(bytes: &[u8]) -> Result<Option<Self>, Violation> {
        let [first, second, rest @ ..] = bytes else {
            return Ok(None);
        };
        if first & 0x70 != 0 || second & 0x80 == 0 {
            return Err(Violation::Frame);
        }
        let (extra, payload) = match (second & 0x7f, rest) {
            (126, [a, b, ..]) => (2, u64::from(u16::from_be_bytes([*a, *b]))),
            (127, [a, b, c, d, e, f, g, h, ..]) => {
                (8, u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]))
            }
            (126 | 127, _) => return Ok(None),
            (short, _) => (0, u64::from(short)),
        };
        let Some(&[a, b, c, d]) = rest.get(extra..extra + 4) else {
            return Ok(None);
        };
        let opcode = first & 0x0f;
        let fin = first & 0x80 != 0;
        let is_control = opcode >= CLOSE;
        if is_control && (!fin || payload > 125) || payload > i64::MAX.unsigned_abs() {
            return Err(Violation::Frame);
        }
        Ok(Some(Self {
            length: 2 + extra + 4,
            fin,
            opcode,
            mask: [a, b, c, d],
            payload,
        }))
    }
}

/// Writes a whole message as one masked frame.
fn frame(opcode: u8, payload: &[u8], mask: [u8; 4], out: &mut Vec<u8>) {
    out.push(0x80 | opcode);
    match payload.len() {
        short @ 0..=125 => out.push(0x80 | u8::try_from(short).unwrap_or_default()),
        length => match u16::try_from(length) {
            Ok(length) => {
                out.push(0x80 | 126);
                out.extend_from_slice(&length.to_be_bytes());
            }
            Err(_) => {
                out.push(0x80 | 127);
                out.extend_from_slice(&(length as u64).to_be_bytes());
            }
        },
    }
    out.extend_from_slice(&mask);
    out.extend(
        payload
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
}

/// The frame by which we end a WebSocket: `1008`, a message against the rules (RFC 6455 §7.4.1).
pub(crate) const CLOSED_BY_POLICY: [u8; 4] = [0x88, 2, 0x03, 0xf0];

#[cfg(test)]
mod tests {
    use super::*;

    const MASK: [u8; 4] = [1, 2, 3, 4];

    fn framed(fin: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        frame(opcode, payload, MASK, &mut out);
        if !fin {
            out[0] &= 0x7f;
        }
        out
    }

    /// What goes out of `bytes` cut into reads of `step`, with `a` made `bb` in text.
    fn sent(bytes: &[u8], step: usize) -> Result<Vec<u8>, Violation> {
        let mut frames = Frames::new(100_000);
        let mut out = Vec::new();
        for read in bytes.chunks(step) {
            frames.feed(read, &mut out, |text| {
                Ok::<_, Violation>(
                    text.contains('a')
                        .then(|| Zeroizing::new(text.replace('a', "bb"))),
                )
            })?;
        }
        Ok(out)
    }

    #[test]
    fn text_is_replaced_and_everything_else_passes_however_it_is_cut() {
        let long = vec![b'a'; 40_000];
        let given = [
            framed(true, TEXT, b"xay"),
            framed(true, 2, b"binary a"),
            framed(true, TEXT, b"other"),
            framed(false, TEXT, b"ca"),
            framed(true, 9, b"ping a"),
            framed(false, CONTINUATION, b"t"),
            framed(true, CONTINUATION, b"s"),
            framed(true, TEXT, &long),
            framed(true, CLOSE, b"\x03\xe8"),
        ]
        .concat();
        let expected = [
            framed(true, TEXT, b"xbby"),
            framed(true, 2, b"binary a"),
            framed(true, TEXT, b"other"),
            framed(true, 9, b"ping a"),
            framed(true, TEXT, b"cbbts"),
            framed(true, TEXT, &vec![b'b'; 80_000]),
            framed(true, CLOSE, b"\x03\xe8"),
        ]
        .concat();
        for step in [1, 2, 3, 5, 7, 100, given.len()] {
            assert!(sent(&given, step).unwrap() == expected, "{step}");
        }
    }

    #[test]
    fn a_message_that_is_not_changed_keeps_its_frames() {
        let given = [framed(false, TEXT, b"x"), framed(true, CONTINUATION, b"y")].concat();
        assert_eq!(sent(&given, 1).unwrap(), given);
    }

    #[test]
    fn what_is_no_frame_of_a_client_ends_it() {
        let mut unmasked = framed(true, TEXT, b"x");
        unmasked[1] &= 0x7f;
        let mut compressed = framed(true, TEXT, b"x");
        compressed[0] |= 0x40;
        let interleaved = [framed(false, TEXT, b"x"), framed(true, TEXT, b"y")].concat();
        let long_ping = framed(true, 9, &[0; 126]);
        for bytes in [unmasked, compressed, interleaved, long_ping] {
            assert_eq!(sent(&bytes, 1), Err(Violation::Frame));
        }
        let long = framed(true, TEXT, &vec![0; 100_001]);
        assert_eq!(
            sent(&long, 50),
            Err(Violation::TooLong { max_bytes: 100_000 })
        );
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300), step in 1..40_usize) {
            let _sent = sent(&bytes, step);
        }
    }
}
