//! Bytes both ways, untouched.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Bytes that went each way, told while they go.
#[derive(Debug, Default)]
pub(crate) struct Moved {
    pub(crate) up: AtomicU64,
    pub(crate) down: AtomicU64,
}

/// How a tunnel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Both sides said all they had to.
    Complete,
    /// One of them broke.
    Failed,
    /// Nobody said anything for too long.
    Idle,
}

/// Moves bytes until both sides have ended, one breaks, or nothing moves for `idle`. A side that ended may still be
/// spoken to.
pub(crate) async fn splice<C, U>(client: C, upstream: U, moved: &Moved, idle: Duration) -> End
where
    C: AsyncRead + AsyncWrite,
    U: AsyncRead + AsyncWrite,
{
    let (client_read, client_write) = tokio::io::split(client);
    let (upstream_read, upstream_write) = tokio::io::split(upstream);
    let both = async {
        tokio::try_join!(
            pump(client_read, upstream_write, &moved.up),
            pump(upstream_read, client_write, &moved.down),
        )
    };
    tokio::select! {
        ended = both => match ended {
            Ok(((), ())) => End::Complete,
            Err(_) => End::Failed,
        },
        () = silence(moved, idle) => End::Idle,
    }
}

/// One direction, until its source ends.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut into: impl AsyncWrite + Unpin,
    moved: &AtomicU64,
) -> io::Result<()> {
    let mut bytes = vec![0; PUMP_BYTES];
    loop {
        let length = from.read(&mut bytes).await?;
        if length == 0 {
            return into.shutdown().await;
        }
        into.write_all(&bytes[..length]).await?;
        into.flush().await?;
        moved.fetch_add(length as u64, Ordering::Relaxed);
    }
}

/// Resolves when nothing has moved for at least `idle`, and at most twice that.
pub(crate) async fn silence(moved: &Moved, idle: Duration) {
    let mut before = moved.total();
    loop {
        tokio::time::sleep(idle).await;
        let now = moved.total();
        if now == before {
            return;
        }
        before = now;
    }
}

impl Moved {
    fn total(&self) -> u64 {
        self.up
            .load(Ordering::Relaxed)
            .wrapping_add(self.down.load(Ordering::Relaxed))
    }
}

const PUMP_BYTES: usize = 16 * 1024;
