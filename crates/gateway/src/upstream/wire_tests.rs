use std::collections::VecDeque;
use std::task::Waker;

use super::*;

/// A socket that says these pieces, each to a read of its own, and then nothing, or its end.
#[derive(Debug, Default)]
struct Says {
    pieces: VecDeque<Vec<u8>>,
    ends: bool,
}

impl Says {
    fn pieces<'p>(pieces: impl IntoIterator<Item = &'p [u8]>) -> Self {
        Self {
            pieces: pieces.into_iter().map(<[u8]>::to_vec).collect(),
            ends: false,
        }
    }
}

impl Read for Says {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        match self.pieces.pop_front() {
            Some(piece) => buf.put_slice(&piece),
            None if self.ends => {}
            None => return Poll::Pending,
        }
        Poll::Ready(Ok(()))
    }
}

type SaysWire = Arc<Mutex<Wire<Says>>>;

fn cx() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

/// What hyper gets from one read.
fn hyper_reads(tap: &mut Tap<Says>) -> Poll<Vec<u8>> {
    let mut room = [MaybeUninit::uninit(); 8192];
    let mut read = ReadBuf::uninit(&mut room);
    ready!(Pin::new(tap).poll_read(&mut cx(), read.unfilled())).unwrap();
    Poll::Ready(read.filled().to_vec())
}

/// A wire whose chunked head hyper has read.
fn after_head(said: Says) -> (SaysWire, Tap<Says>) {
    let mut says = said;
    says.pieces.push_front(HEAD.to_vec());
    let (wire, mut tap) = Wire::over(says);
    lock(&wire).expect_head();
    assert_eq!(hyper_reads(&mut tap), Poll::Ready(HEAD.to_vec()));
    lock(&wire).expect_body(true);
    (wire, tap)
}

/// All data of a body, and how it ended.
fn chunks(wire: &SaysWire) -> (Vec<u8>, Poll<Chunked>) {
    let mut all = Vec::new();
    loop {
        match lock(wire).poll_chunks(&mut cx()) {
            Poll::Ready(Chunked::Data(data)) => all.extend_from_slice(&data),
            ended => return (all, ended),
        }
    }
}

const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
const PASSING: Poll<Chunked> = Poll::Ready(Chunked::Passing);
const BROKEN: Poll<Chunked> = Poll::Ready(Chunked::Broken);

#[test]
fn chunks_come_out_the_same_however_the_stream_is_cut() {
    let coded = b"5\r\nhello\r\nA\r\n, \r\nworld!\r\n01\r\n.\r\n0\r\nx: y\r\n\r\n";
    let last = b"0\r\nx: y\r\n\r\n";
    for one in 0..coded.len() {
        for other in one..coded.len() {
            let cuts = [&coded[..one], &coded[one..other], &coded[other..]];
            let pieces = cuts.into_iter().filter(|piece| !piece.is_empty());
            let (wire, mut tap) = after_head(Says::pieces(pieces));
            let (data, ended) = chunks(&wire);
            assert_eq!(data, b"hello, \r\nworld!.", "{one} {other}");
            assert_eq!(ended, PASSING, "{one} {other}");
            // The last chunk is hyper's, to the last byte.
            let mut rest = Vec::new();
            while let Poll::Ready(read) = hyper_reads(&mut tap) {
                rest.extend(read);
            }
            assert_eq!(rest, last, "{one} {other}");
        }
    }
}

#[test]
fn a_chunk_is_not_kept_waiting_for_the_next() {
    let says = Says::pieces([&b"3\r\none\r\n3"[..]]);
    let (wire, _tap) = after_head(says);
    let data = Chunked::Data(Bytes::from_static(b"one"));
    assert_eq!(lock(&wire).poll_chunks(&mut cx()), Poll::Ready(data));
    assert_eq!(lock(&wire).poll_chunks(&mut cx()), Poll::Pending);
    lock(&wire).stream.pieces.push_back(b"\r\ntwo".to_vec());
    let data = Chunked::Data(Bytes::from_static(b"two"));
    assert_eq!(lock(&wire).poll_chunks(&mut cx()), Poll::Ready(data));
}

#[test]
fn what_came_with_the_head_is_not_kept_waiting_for_a_read() {
    let mut whole = HEAD.to_vec();
    whole.extend_from_slice(b"1\r\n!\r\n0\r\n\r\n");
    let (wire, mut tap) = Wire::over(Says::pieces([&whole[..]]));
    lock(&wire).expect_head();
    assert_eq!(hyper_reads(&mut tap), Poll::Ready(HEAD.to_vec()));
    assert_eq!(hyper_reads(&mut tap), Poll::Pending, "the rest is held");
    lock(&wire).expect_body(true);
    assert_eq!(chunks(&wire), (b"!".to_vec(), PASSING));
    assert_eq!(hyper_reads(&mut tap), Poll::Ready(b"0\r\n\r\n".to_vec()));
}

#[test]
fn a_line_that_is_not_plain_is_left_to_hyper() {
    for line in [
        "3;name=value\r\n",
        " 3\r\n",
        "3 \r\n",
        "\r\n",
        "-3\r\n",
        "+3\r\n",
        "0x3\r\n",
        "g\r\n",
        "3\n",
        "3\rx",
        "0\r\n",
        "00000000000000003\r\n",
        "ffffffffffffffffff\r\n",
    ] {
        let (wire, mut tap) = after_head(Says::pieces([b"1\r\na\r\n", line.as_bytes()]));
        assert_eq!(chunks(&wire), (b"a".to_vec(), PASSING), "{line:?}");
        let left = Poll::Ready(line.as_bytes().to_vec());
        assert_eq!(hyper_reads(&mut tap), left, "{line:?}");
    }
}

#[test]
fn data_longer_than_its_chunk_breaks_the_body() {
    for coded in ["1\r\nab\r\n", "1\r\na\n\r\n", "1\r\na\rb"] {
        let (wire, _tap) = after_head(Says::pieces([coded.as_bytes()]));
        assert_eq!(chunks(&wire), (b"a".to_vec(), BROKEN), "{coded:?}");
        assert_eq!(chunks(&wire).1, BROKEN, "and it stays broken");
    }
}

#[test]
fn a_body_that_ends_before_its_last_chunk_is_broken() {
    for coded in ["2\r\na", "2\r\nab", "2\r\nab\r\n", "2\r\nab\r\n3"] {
        let mut says = Says::pieces([coded.as_bytes()]);
        says.ends = true;
        let (wire, _tap) = after_head(says);
        assert_eq!(chunks(&wire).1, BROKEN, "{coded:?}");
    }
}

#[test]
fn a_head_is_given_to_its_end_however_it_is_cut() {
    for cut in 1..HEAD.len() {
        let mut rest = HEAD[cut..].to_vec();
        rest.extend_from_slice(b"1\r\n!\r\n0\r\n\r\n");
        let (wire, mut tap) = Wire::over(Says::pieces([&HEAD[..cut], &rest]));
        lock(&wire).expect_head();
        let mut head = Vec::new();
        while let Poll::Ready(read) = hyper_reads(&mut tap) {
            head.extend(read);
        }
        assert_eq!(head, HEAD, "{cut}");
        assert!(lock(&wire).release(), "{cut}");
    }
}

#[test]
fn a_reply_that_is_not_chunked_is_hyper_s_from_its_first_byte() {
    let reply = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";
    let (head, body) = reply.split_at(reply.len() - 2);
    let (wire, mut tap) = Wire::over(Says::pieces([&reply[..]]));
    lock(&wire).expect_head();
    assert_eq!(hyper_reads(&mut tap), Poll::Ready(head.to_vec()));
    assert_eq!(hyper_reads(&mut tap), Poll::Ready(body.to_vec()));
    assert!(!lock(&wire).release());
    assert_eq!(chunks(&wire).1, PASSING);
}
