//! What is said over a connection that was a call: a process in a sandbox, and whoever sits at its terminal.
//!
//! ```text
//! POST /v1/sandboxes/work/exec   ──▶ 101 Switching Protocols, then frames both ways:
//!
//!   kind (1 byte) ‖ length of the payload (4 bytes, big-endian) ‖ payload
//!
//!   caller ──▶  0 input   1 end of input   2 rows, columns (2 bytes each)   3 signal (1 byte)
//!   caller ◀──  0 output  1 error output   2 how it ended, as JSON, the last frame
//! ```
//!
//! Guarantees: what the process wrote before it ended comes before the frame that says how. A side that does not read keeps
//! the other from writing; nothing is queued without a bound.

use std::io;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// The protocol that a call is to be switched to.
pub const PROTOCOL: &str = "farrier-exec/1";

/// Longest payload, in bytes.
pub const MAX_PAYLOAD: usize = 64 * 1024;

/// A process that is to be started in a sandbox, or a session that is to be gone on with: the body of
/// `POST /v1/sandboxes/{name}/exec`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecRequest {
    /// Program and arguments; the sandbox's shell, if there are none.
    #[serde(default)]
    pub command: Vec<String>,
    /// Variables besides those of the sandbox.
    #[serde(default)]
    pub env: Vec<(String, String)>,
    /// Where it is started, absolute; the workspace, if absent.
    #[serde(default)]
    pub cwd: Option<String>,
    /// The size of the terminal that it is to have; without, it has pipes.
    #[serde(default)]
    pub tty: Option<Size>,
    /// How long it may take, in milliseconds; then it and all that it started is killed.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
    /// Whether it goes on when the caller leaves, as a session that can be come back to. Only with a terminal.
    #[serde(default)]
    pub keep: bool,
    /// The session to go on with, by its number, instead of starting anything.
    #[serde(default)]
    pub attach: Option<u64>,
}

/// Of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub cols: u16,
}

/// How a process ended, or why nothing more comes from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// By itself, with this status.
    Exited(i32),
    /// By this signal.
    Killed(i32),
    /// It goes on, and somebody else is connected to it now, or the gateway ends.
    Left(String),
    /// It took longer than it may.
    TimedOut,
    /// It could not be started, and why.
    Unstarted(String),
}

/// From the caller to the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inward {
    /// What it reads.
    Input(Bytes),
    /// There is nothing more to read.
    InputEnd,
    /// The terminal has another size.
    Resize(Size),
    /// A signal for it, by number.
    Signal(u8),
}

/// From the process to the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outward {
    /// What it wrote, or what is on its terminal.
    Output(Bytes),
    /// What it wrote to its error output.
    Errors(Bytes),
    /// The last frame.
    Ended(Ended),
}

/// Reads the caller's next frame; `None` if it left between two.
///
/// # Errors
///
/// It left within a frame, or what came is none.
///
/// # Cancellation
///
/// Not safe: what was read of a frame is lost.
pub async fn read_inward(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Inward>> {
    let Some((kind, payload)) = read(from).await? else {
        return Ok(None);
    };
    let frame = match (kind, &payload[..]) {
        (0, _) => Inward::Input(payload),
        (1, []) => Inward::InputEnd,
        (2, &[a, b, c, d]) => Inward::Resize(Size {
            rows: u16::from_be_bytes([a, b]),
            cols: u16::from_be_bytes([c, d]),
        }),
        (3, &[signal]) => Inward::Signal(signal),
        _ => return Err(unknown(kind, payload.len())),
    };
    Ok(Some(frame))
}

/// Reads the next frame that comes of the process; `None` if the gateway left between two.
///
/// # Errors
///
/// As [`read_inward`].
///
/// # Cancellation
///
/// Not safe: what was read of a frame is lost.
pub async fn read_outward(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Outward>> {
    let Some((kind, payload)) = read(from).await? else {
        return Ok(None);
    };
    let frame = match kind {
        0 => Outward::Output(payload),
        1 => Outward::Errors(payload),
        2 => Outward::Ended(serde_json::from_slice(&payload)?),
        _ => return Err(unknown(kind, payload.len())),
    };
    Ok(Some(frame))
}

/// Sends a frame to the process.
///
/// # Errors
///
/// The connection's.
pub async fn write_inward(to: &mut (impl AsyncWrite + Unpin), frame: &Inward) -> io::Result<()> {
    match frame {
        Inward::Input(bytes) => write_all(to, 0, bytes).await,
        Inward::InputEnd => write(to, 1, &[]).await,
        Inward::Resize(Size { rows, cols }) => {
            let ([a, b], [c, d]) = (rows.to_be_bytes(), cols.to_be_bytes());
            write(to, 2, &[a, b, c, d]).await
        }
        Inward::Signal(signal) => write(to, 3, &[*signal]).await,
    }
}

/// Sends a frame to the caller.
///
/// # Errors
///
/// The connection's.
pub async fn write_outward(to: &mut (impl AsyncWrite + Unpin), frame: &Outward) -> io::Result<()> {
    match frame {
        Outward::Output(bytes) => write_all(to, 0, bytes).await,
        Outward::Errors(bytes) => write_all(to, 1, bytes).await,
        Outward::Ended(ended) => write(to, 2, &serde_json::to_vec(ended)?).await,
    }
}

async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<(u8, Bytes)>> {
    let mut head = [0; 5];
    if from.read(&mut head[..1]).await? == 0 {
        return Ok(None);
    }
    from.read_exact(&mut head[1..]).await?;
    let [kind, length @ ..] = head;
    let length = u32::from_be_bytes(length) as usize;
    if length > MAX_PAYLOAD {
        return Err(unknown(kind, length));
    }
    let mut payload = vec![0; length];
    from.read_exact(&mut payload).await?;
    Ok(Some((kind, payload.into())))
}

/// In as many frames as it takes; none for nothing.
async fn write_all(to: &mut (impl AsyncWrite + Unpin), kind: u8, bytes: &[u8]) -> io::Result<()> {
    for piece in bytes.chunks(MAX_PAYLOAD) {
        write(to, kind, piece).await?;
    }
    Ok(())
}

async fn write(to: &mut (impl AsyncWrite + Unpin), kind: u8, payload: &[u8]) -> io::Result<()> {
    let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
    let mut frame = Vec::with_capacity(5 + payload.len());
    frame.push(kind);
    frame.extend(length.to_be_bytes());
    frame.extend(payload);
    to.write_all(&frame).await?;
    to.flush().await
}

fn unknown(kind: u8, length: usize) -> io::Error {
    let got = format!("expected a frame of a known kind, got kind {kind} of {length} bytes");
    io::Error::new(io::ErrorKind::InvalidData, got)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_arrive_as_they_were_sent_however_they_are_cut() {
        let inward = [
            Inward::Input(Bytes::from_static(b"ls\n")),
            Inward::Resize(Size {
                rows: 24,
                cols: 300,
            }),
            Inward::Signal(15),
            Inward::InputEnd,
        ];
        let mut sent = Vec::new();
        for frame in &inward {
            write_inward(&mut sent, frame).await.unwrap();
        }
        // One byte at a time.
        let (near, mut far) = tokio::io::duplex(1);
        let writing = async move {
            let mut near = near;
            near.write_all(&sent).await.unwrap();
        };
        let reading = async {
            let mut got = Vec::new();
            while let Some(frame) = read_inward(&mut far).await.unwrap() {
                got.push(frame);
            }
            got
        };
        let ((), got) = tokio::join!(writing, reading);
        assert_eq!(got, inward);
    }

    #[tokio::test]
    async fn long_output_is_cut_into_frames_and_the_end_comes_last() {
        let output = Bytes::from(vec![7; MAX_PAYLOAD + 1]);
        let mut sent = Vec::new();
        for frame in [
            Outward::Output(output.clone()),
            Outward::Errors(Bytes::new()),
            Outward::Ended(Ended::Exited(3)),
        ] {
            write_outward(&mut sent, &frame).await.unwrap();
        }
        let mut from = &sent[..];
        let mut got = Vec::new();
        while let Some(frame) = read_outward(&mut from).await.unwrap() {
            got.push(frame);
        }
        let expected = [
            Outward::Output(output.slice(..MAX_PAYLOAD)),
            Outward::Output(output.slice(MAX_PAYLOAD..)),
            Outward::Ended(Ended::Exited(3)),
        ];
        assert_eq!(got, expected);
    }

    #[tokio::test]
    async fn a_frame_that_is_none_and_half_a_frame_are_errors() {
        let too_long = [0, 0xff, 0xff, 0xff, 0xff];
        for wrong in [
            &too_long[..],
            &[9, 0, 0, 0, 0],
            &[2, 0, 0, 0, 1, 0],
            &[0, 0, 0],
        ] {
            let mut from = wrong;
            assert!(read_inward(&mut from).await.is_err(), "{wrong:?}");
        }
    }
}
