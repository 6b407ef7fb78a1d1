use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::Write;

use super::*;

#[test]
fn paths_are_put_below_the_base_url() {
    let below = |base: &str, path: &str| under(&base.parse().unwrap(), path).unwrap().to_string();
    assert_eq!(
        below("https://a.b/v1", "/chat/completions"),
        "https://a.b/v1/chat/completions"
    );
    assert_eq!(
        below("https://a.b/api/v1/", "/x?y=1"),
        "https://a.b/api/v1/x?y=1"
    );
    assert_eq!(below("http://a.b:8000", "/x"), "http://a.b:8000/x");
    assert_eq!(under(&"https://a.b/v1".parse().unwrap(), "/ "), None);
}

#[test]
fn segments_know_their_length_and_come_out_in_order() {
    let mut segments = Segments::default();
    for piece in ["one", "", "two"] {
        segments.push(Bytes::from_static(piece.as_bytes()));
    }
    let mut cx = Context::from_waker(std::task::Waker::noop());
    let mut out = Vec::new();
    assert_eq!(segments.size_hint().exact(), Some(6));
    while let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut segments).poll_frame(&mut cx) {
        out.push(frame.into_data().unwrap());
    }
    assert_eq!(out, ["onetwo"]);
    assert!(segments.is_end_stream());
    assert_eq!(segments.size_hint().exact(), Some(0));
}

#[test]
fn what_few_bytes_blow_up_to_is_refused() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    let zeros = vec![0; 1 << 20];
    for _ in 0..128 {
        encoder.write_all(&zeros).unwrap();
    }
    let bomb = Bytes::from(encoder.finish().unwrap());
    assert!(bomb.len() < 1 << 20);
    assert_eq!(
        Coding::Gzip.decoder().push(bomb),
        Err(UpstreamFault::EncodingWrong)
    );
}

#[test]
fn a_compressed_reply_cut_anywhere_decodes_to_the_same() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder
        .write_all(b"data: {\"a\":1}\n\ndata: [DONE]\n\n")
        .unwrap();
    let coded = encoder.finish().unwrap();
    for cut in 0..=coded.len() {
        let mut decoder = Coding::Gzip.decoder();
        let mut plain = Vec::new();
        for part in [&coded[..cut], &coded[cut..]] {
            plain.extend(decoder.push(Bytes::copy_from_slice(part)).unwrap());
        }
        decoder.end().unwrap();
        assert_eq!(plain, b"data: {\"a\":1}\n\ndata: [DONE]\n\n");
    }
    let mut decoder = Coding::Gzip.decoder();
    decoder
        .push(Bytes::copy_from_slice(&coded[..coded.len() - 9]))
        .unwrap();
    assert_eq!(decoder.end(), Err(UpstreamFault::EncodingWrong));
}

#[test]
fn a_certificate_file_without_certificates_is_a_mistake() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut provider = Provider::new("p", "https://a.b/v1");
    provider.ca_file = Some(file.path().to_owned());
    let mistake = Upstream::build(&provider, &Deadlines::default(), Tracker::new()).unwrap_err();
    let expected = format!(
        "expected PEM certificates in {} for provider \"p\": got a file without any",
        file.path().display()
    );
    assert_eq!(mistake.to_string(), expected);
    provider.ca_file = Some("/absent".into());
    let mistake = Upstream::build(&provider, &Deadlines::default(), Tracker::new()).unwrap_err();
    assert!(mistake.to_string().contains("No such file"), "{mistake}");
}

#[test]
fn small_pieces_leave_together_and_large_ones_as_they_are() {
    let large = Bytes::from(vec![b'x'; FRAME_BYTES]);
    let mut segments = Segments::default();
    for piece in ["a", "b", "", "c"] {
        segments.push(Bytes::from_static(piece.as_bytes()));
    }
    segments.push(large.clone());
    segments.push(Bytes::from_static(b"d"));
    let mut frames = Vec::new();
    while let Poll::Ready(Some(Ok(frame))) =
        Pin::new(&mut segments).poll_frame(&mut Context::from_waker(std::task::Waker::noop()))
    {
        frames.push(frame.into_data().unwrap());
    }
    let lengths: Vec<usize> = frames.iter().map(Bytes::len).collect();
    assert_eq!(lengths, [3, FRAME_BYTES, 1]);
    assert_eq!(
        frames[1].as_ptr(),
        large.as_ptr(),
        "no copy of a large piece"
    );
    assert_eq!(segments.size_hint().exact(), Some(0));
}
