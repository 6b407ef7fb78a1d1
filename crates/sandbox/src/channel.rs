//! Messages with descriptors over a Unix socket that keeps them apart (`SOCK_SEQPACKET`).
//!
//! A message is at most [`MAX_BYTES`] long and has at most [`MAX_DESCRIPTORS`] descriptors; a longer one is an error on the
//! side that sends it, and one that arrives cut off is an error on the other. Descriptors arrive closed-on-exec.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The longest message. The kernel's default buffer of a socket holds one of these and some.
pub(crate) const MAX_BYTES: usize = 128 << 10;

/// The most descriptors beside one message.
pub(crate) const MAX_DESCRIPTORS: usize = 64;

/// Two ends of a channel.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (one, other) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
    Ok((one, other))
}

/// Puts a message into bytes.
pub(crate) fn encode(message: &impl Serialize) -> io::Result<Vec<u8>> {
    Ok(serde_json::to_vec(message)?)
}

/// Sends bytes of [`encode`] and descriptors.
pub(crate) fn send_bytes(
    socket: impl AsFd,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    if bytes.len() > MAX_BYTES || descriptors.len() > MAX_DESCRIPTORS {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    rustix::net::sendmsg(
        socket,
        &[IoSlice::new(bytes)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

/// Sends a message and descriptors.
pub(crate) fn send(
    socket: impl AsFd,
    message: &impl Serialize,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    send_bytes(socket, &encode(message)?, descriptors)
}

/// Receives a message and what is beside it; `None` when the other side is gone.
pub(crate) fn receive<Message: DeserializeOwned>(
    socket: impl AsFd,
) -> io::Result<Option<(Message, Vec<OwnedFd>)>> {
    let mut bytes = vec![0; MAX_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut read = || {
        let mut into = [IoSliceMut::new(&mut bytes)];
        rustix::net::recvmsg(&socket, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC)
    };
    // The other side has gone without reading all that it was sent. That is told first and once; what it had said itself is
    // still to be read.
    let received = match read() {
        Err(Errno::CONNRESET) => read(),
        received => received,
    }?;
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    if received.bytes == 0 {
        return Ok(None);
    }
    let cut = ReturnFlags::TRUNC | ReturnFlags::CTRUNC;
    if received.flags.intersects(cut) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let message = serde_json::from_slice(bytes.get(..received.bytes).unwrap_or_default())?;
    Ok(Some((message, descriptors)))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn a_message_arrives_whole_with_its_descriptors() {
        let (here, there) = pair().expect("two ends");
        let (mut reader, writer) = io::pipe().expect("a pipe");
        send(&here, &"over there", &[writer.as_fd()]).expect("sent");
        drop(writer);
        let (text, descriptors) = receive::<String>(&there).expect("received").expect("open");
        assert_eq!((text.as_str(), descriptors.len()), ("over there", 1));
        for descriptor in descriptors {
            io::PipeWriter::from(descriptor)
                .write_all(b"through")
                .expect("written");
        }
        let mut read = String::new();
        reader.read_to_string(&mut read).expect("read");
        assert_eq!(read, "through");
    }

    #[test]
    fn messages_are_kept_apart_and_the_end_is_none() {
        let (here, there) = pair().expect("two ends");
        send(&here, &1, &[]).expect("sent");
        send(&here, &2, &[]).expect("sent");
        drop(here);
        let next = || {
            receive::<u8>(&there)
                .expect("received")
                .map(|(number, _)| number)
        };
        assert_eq!([next(), next(), next()], [Some(1), Some(2), None]);
    }

    #[test]
    fn last_words_are_heard_though_their_sender_had_not_read_everything() {
        let (here, there) = pair().expect("two ends");
        send(&there, &"last words", &[]).expect("sent");
        send(&here, &"unread", &[]).expect("sent");
        drop(there);
        let next = || {
            let received = receive::<String>(&here).expect("received");
            received.map(|(text, _)| text)
        };
        assert_eq!([next(), next()], [Some("last words".to_owned()), None]);
    }

    #[test]
    fn a_message_that_is_too_long_is_refused_where_it_is_sent() {
        let (here, _there) = pair().expect("two ends");
        let error = send(&here, &"x".repeat(MAX_BYTES), &[]).expect_err("too long");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
