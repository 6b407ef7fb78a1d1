use super::*;
use proptest::prelude::*;

fn push(framer: &mut Framer, read: Bytes, out: &mut Vec<Frame>) -> Result<(), Oversized> {
    framer.push(read);
    while let Some(frame) = framer.next_frame()? {
        out.push(frame);
    }
    Ok(())
}

fn frames(reads: &[&[u8]]) -> Vec<Frame> {
    let mut framer = Framer::default();
    let mut out = Vec::new();
    for read in reads {
        push(&mut framer, Bytes::copy_from_slice(read), &mut out).expect("small");
    }
    out.extend(framer.finish());
    out
}

fn event_frame(text: &str) -> Frame {
    Frame::Event(Bytes::copy_from_slice(text.as_bytes()))
}

fn idle(text: &str) -> Frame {
    Frame::Idle(Bytes::copy_from_slice(text.as_bytes()))
}

fn joined(frames: &[Frame]) -> Vec<u8> {
    frames
        .iter()
        .flat_map(|frame| match frame {
            Frame::Event(raw) | Frame::Idle(raw) => raw.to_vec(),
        })
        .collect()
}

#[test]
fn each_line_ending_frames_alike() {
    for end in ["\n", "\r", "\r\n"] {
        let text = "data: 1~~: ping~~event: x~data: 2~data: 3~~".replace('~', end);
        let got = frames(&[text.as_bytes()]);
        let want = [
            event_frame(&format!("data: 1{end}{end}")),
            idle(&format!(": ping{end}")),
            idle(end),
            event_frame(&format!("event: x{end}data: 2{end}data: 3{end}{end}")),
        ];
        assert_eq!(got, want, "{end:?}");
    }
}

#[test]
fn comment_is_forwarded_before_its_blank_line_comes() {
    let mut framer = Framer::default();
    let mut out = Vec::new();
    push(&mut framer, Bytes::from_static(b": keep-alive\n"), &mut out).expect("small");
    assert_eq!(out, [idle(": keep-alive\n")]);
    assert_eq!(framer.finish(), None);
}

#[test]
fn bare_cr_event_is_complete_without_a_further_byte() {
    let mut framer = Framer::default();
    let mut out = Vec::new();
    push(&mut framer, Bytes::from_static(b"data: 1\r"), &mut out).expect("small");
    push(&mut framer, Bytes::from_static(b"\r"), &mut out).expect("small");
    assert_eq!(out, [event_frame("data: 1\r\r")]);
}

#[test]
fn last_event_counts_without_its_blank_line() {
    assert_eq!(
        frames(&[b"data: 1\n\ndata: 2"]),
        [event_frame("data: 1\n\n"), event_frame("data: 2")]
    );
    assert_eq!(frames(&[b"data: 2\n"]), [event_frame("data: 2\n")]);
    assert_eq!(frames(&[b"data: 2\r\n\r"]), [event_frame("data: 2\r\n\r")]);
    assert_eq!(frames(&[b": bye"]), [idle(": bye")]);
    assert_eq!(frames(&[b""]), []);
}

#[test]
fn bom_is_kept_and_not_read() {
    let got = frames(&[b"\xef\xbb", b"\xbfdata: 1\n\n\xef\xbb\xbfdata: 2\n\n"]);
    let [Frame::Event(first), Frame::Event(second)] = got.as_slice() else {
        panic!("two events, got {got:?}");
    };
    assert_eq!(data(first).as_deref(), Some(&b"1"[..]));
    assert!(second.starts_with(b"\xef\xbb\xbf"));
}

#[test]
fn data_follows_the_specification() {
    let cases: [(&str, Option<&str>); 8] = [
        ("data: a\n\n", Some("a")),
        ("data:a\n\n", Some("a")),
        ("data:  a\n\n", Some(" a")),
        ("data: a\ndata: b\n\n", Some("a\nb")),
        ("data\n\n", Some("")),
        ("event: x\nid: 1\n\n", None),
        ("database: x\n\n", None),
        ("id: 1\r\ndata: a\r\nretry: 5\r\n\r\n", Some("a")),
    ];
    for (raw, want) in cases {
        assert_eq!(
            data(raw.as_bytes()).as_deref(),
            want.map(str::as_bytes),
            "{raw:?}"
        );
    }
}

#[test]
fn new_data_leaves_other_lines_alone() {
    let raw = b"id: 7\r\ndata: {\r\ndata: }\r\n: note\r\n\r\n";
    assert_eq!(
        with_data(raw, "{\"a\":\n1}"),
        &b"id: 7\r\ndata: {\"a\":\r\ndata: 1}\r\n: note\r\n\r\n"[..]
    );
    assert_eq!(with_data(b"data: 1", "2"), &b"data: 2\n"[..]);
}

#[test]
fn oversized_event_is_refused() {
    let mut framer = Framer::default();
    let mut out = Vec::new();
    let chunk = Bytes::from(vec![b'x'; MAX_EVENT_BYTES]);
    assert_eq!(push(&mut framer, chunk, &mut out), Ok(()));
    assert_eq!(
        push(&mut framer, Bytes::from_static(b"x"), &mut out),
        Err(Oversized)
    );
    assert_eq!(out, []);
    // However it was cut.
    let mut framer = Framer::default();
    let whole = Bytes::from([vec![b'x'; MAX_EVENT_BYTES], b"\n\n".to_vec()].concat());
    assert_eq!(push(&mut framer, whole, &mut out), Err(Oversized));
}

#[test]
fn frames_within_a_read_are_slices_of_it() {
    let mut framer = Framer::default();
    let mut out = Vec::new();
    push(&mut framer, Bytes::from_static(b"data: 1"), &mut out).expect("small");
    let read = Bytes::from_static(b"\n\ndata: 2\n\ndata: 3\n\ndata");
    push(&mut framer, read.clone(), &mut out).expect("small");
    let within = out.iter().map(|frame| match frame {
        Frame::Event(raw) | Frame::Idle(raw) => read.as_ptr_range().contains(&raw.as_ptr()),
    });
    assert_eq!(within.collect::<Vec<_>>(), [false, true, true]);
}

#[test]
fn rest_is_told_only_where_a_frame_begins_and_a_line_ends_in_lf() {
    let mut framer = Framer::default();
    let mut out = Vec::new();
    for (read, rest) in [
        (
            &b"data: 1\n\ndata: 2\n\n"[..],
            &b"data: 1\n\ndata: 2\n\n"[..],
        ),
        (b"data: 3", b"data: 3"),
        (b"\r\r", b""),
        (b"data: 4\n\n", b""),
        (b"data: 5\n\n", b"data: 5\n\n"),
    ] {
        framer.push(Bytes::copy_from_slice(read));
        assert_eq!(framer.rest(), rest);
        while let Some(frame) = framer.next_frame().expect("small") {
            out.push(frame);
        }
    }
    framer.push(Bytes::from_static(b"data: 6\n\ndata: 7\n\n"));
    framer.skip("data: 6\n\n".len());
    assert_eq!(framer.next_frame(), Ok(Some(event_frame("data: 7\n\n"))));
}

#[test]
fn two_megabyte_event_is_one_frame() {
    let text = format!("data: {}\n\n", "x".repeat(2_000_000));
    let reads: Vec<&[u8]> = text.as_bytes().chunks(16_384).collect();
    assert_eq!(frames(&reads), [event_frame(&text)]);
}

proptest! {
    #[test]
    fn i5_reads_make_no_difference(
        text in "(data: ?[a-c]{0,3}|: ?k|event: e|data|\u{feff}|x)?(\n|\r|\r\n)((data: ?[a-c]{0,3}|: ?k|id: 1)?(\n|\r|\r\n)){0,12}(data: z)?",
        cuts in proptest::collection::vec(0usize..120, 0..8),
    ) {
        let bytes = text.as_bytes();
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut % (bytes.len() + 1)).collect();
        cuts.sort_unstable();
        let mut reads = Vec::new();
        let mut from = 0;
        for cut in cuts {
            reads.push(&bytes[from..cut]);
            from = cut;
        }
        reads.push(&bytes[from..]);
        let whole = frames(&[bytes]);
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        prop_assert_eq!(&joined(&whole), &bytes.to_vec());
        prop_assert_eq!(&frames(&reads), &whole);
        prop_assert_eq!(&frames(&single), &whole);
    }
}
