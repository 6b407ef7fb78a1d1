//! A stream of which the first bytes were read already.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

/// Gives `first` before anything that the stream has.
#[derive(Debug)]
pub(crate) struct Prefixed<S> {
    first: BytesMut,
    stream: S,
}

const READ_BYTES: usize = 2048;

impl<S> Prefixed<S> {
    pub(crate) fn new(first: Bytes, stream: S) -> Self {
        let first = first.into();
        Self { first, stream }
    }
}

impl<S: AsyncRead + Unpin> Prefixed<S> {
    /// Looks at the first bytes, waiting for one if there is none yet; empty at the stream's end.
    pub(crate) async fn peek(&mut self) -> io::Result<&[u8]> {
        if self.first.is_empty() {
            self.peek_more().await?;
        }
        Ok(&self.first)
    }

    /// Reads more of them; how many, which is none at the stream's end.
    pub(crate) async fn peek_more(&mut self) -> io::Result<usize> {
        self.first.reserve(READ_BYTES);
        self.stream.read_buf(&mut self.first).await
    }

    /// What was looked at so far.
    pub(crate) fn peeked(&self) -> &[u8] {
        &self.first
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Prefixed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let length = self.first.len().min(buf.remaining());
        buf.put_slice(&self.first[..length]);
        self.first.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Prefixed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
