use hickory_proto::op::{Message, Query};
use proptest::prelude::*;

use super::*;

fn question(name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message.to_vec().unwrap()
}

fn told(names: &StandIns, name: &str, kind: RecordType) -> (ResponseCode, Vec<RData>) {
    let answer = names.answer(&question(name, kind)).unwrap();
    let answer = Message::from_vec(&answer).unwrap();
    assert_eq!(answer.metadata.id, 7);
    assert_eq!(answer.metadata.message_type, MessageType::Response);
    let data = answer.answers.into_iter().map(|record| record.data);
    (answer.metadata.response_code, data.collect())
}

fn address(names: &StandIns, name: &str) -> Ipv4Addr {
    match told(names, name, RecordType::A) {
        (ResponseCode::NoError, data) => match data[..] {
            [RData::A(A(address))] => address,
            ref other => unreachable!("expected one address, got {other:?}"),
        },
        other => unreachable!("expected an answer, got {other:?}"),
    }
}

#[test]
fn a_name_has_one_address_however_it_is_spelt_and_the_same_after_a_restart() {
    let names = StandIns::new();
    let first = address(&names, "api.example.com.");
    assert!(POOL.contains(&first), "{first}");
    assert_eq!(address(&names, "API.Example.COM."), first);
    assert_ne!(address(&names, "other.example.com."), first);
    assert_eq!(address(&StandIns::new(), "api.example.com."), first);
    let meant = names.meant(SocketAddr::new(first.into(), 8443));
    assert_eq!(meant.to_string(), "api.example.com:8443");
    let mapped = SocketAddr::new(first.to_ipv6_mapped().into(), 22);
    assert_eq!(names.meant(mapped).to_string(), "api.example.com:22");
    let unknown = SocketAddr::from(([198, 18, 0, 1], 22));
    assert_eq!(StandIns::new().meant(unknown).to_string(), "198.18.0.1:22");
}

#[test]
fn a_name_exists_whatever_is_asked_of_it_and_what_is_no_name_does_not() {
    let names = StandIns::new();
    for kind in [RecordType::AAAA, RecordType::HTTPS, RecordType::MX] {
        assert_eq!(
            told(&names, "a.test.", kind),
            (ResponseCode::NoError, vec![])
        );
    }
    for name in ["1.0.18.198.in-addr.arpa.", "127.0.0.1.", "0x7f.1.", "."] {
        assert_eq!(
            told(&names, name, RecordType::A),
            (ResponseCode::NXDomain, vec![]),
            "{name}"
        );
    }
    assert_eq!(
        told(&names, "a.test.", RecordType::AXFR).0,
        ResponseCode::Refused
    );
    let own = told(&names, "localhost.", RecordType::A).1;
    assert_eq!(own, [RData::A(A(Ipv4Addr::LOCALHOST))]);
}

#[test]
fn names_beyond_the_bound_make_the_least_needed_one_go_and_no_address_means_two() {
    let names = StandIns::new();
    let kept = names.address_of("kept.test");
    let lost = names.address_of("lost.test");
    for number in 0..MAX_NAMES.get() - 2 {
        names.address_of(&format!("n{number}.test"));
    }
    let meant = |address: Ipv4Addr| names.meant(SocketAddr::new(address.into(), 1)).host;
    assert_eq!(meant(kept), Host::Name("kept.test".to_owned())); // and is needed by that
    names.address_of("more.test");
    assert_eq!(meant(lost), Host::Address(lost.into()));
    assert_eq!(meant(kept), Host::Name("kept.test".to_owned()));
    let table = names.0.lock().unwrap();
    assert_eq!(table.by_name.len(), MAX_NAMES.get());
    assert_eq!(table.by_address.len(), MAX_NAMES.get());
}

#[test]
fn what_is_no_question_gets_no_answer_and_what_is_malformed_is_said_to_be() {
    let names = StandIns::new();
    let mut answer = question("a.test.", RecordType::A);
    answer[2] |= 0x80; // says that it is an answer itself
    assert_eq!(names.answer(&answer), None);
    assert_eq!(names.answer(&answer[..13]), None);
    assert_eq!(names.answer(b"\0\x07\x01"), None);
    let cut = &question("a.test.", RecordType::A)[..15];
    let told = Message::from_vec(&names.answer(cut).unwrap()).unwrap();
    assert_eq!(told.metadata.response_code, ResponseCode::FormErr);
    // A name that points at itself.
    let endless = b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\xc0\x0c\0\x01\0\x01";
    let told = Message::from_vec(&names.answer(endless).unwrap()).unwrap();
    assert_eq!(told.metadata.response_code, ResponseCode::FormErr);
    let mut update = question("a.test.", RecordType::A);
    update[2] |= 5 << 3;
    let told = Message::from_vec(&names.answer(&update).unwrap()).unwrap();
    assert_ne!(told.metadata.response_code, ResponseCode::NoError);
}

#[tokio::test]
async fn questions_are_answered_over_udp_and_over_tcp() {
    let names = std::sync::Arc::new(StandIns::new());
    let tasks = farrier_serve::Tracker::new();
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let at = socket.local_addr().unwrap();
    let answering = std::sync::Arc::clone(&names);
    drop(tasks.spawn(async move { answering.serve_udp(&socket).await }));
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.send_to(b"garbage", at).await.unwrap();
    client
        .send_to(&question("a.test.", RecordType::A), at)
        .await
        .unwrap();
    let mut over_udp = vec![0; 512];
    let length = client.recv(&mut over_udp).await.unwrap();
    over_udp.truncate(length);

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    drop(tasks.spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        names.serve_tcp(stream).await;
    }));
    let mut client = TcpStream::connect(at).await.unwrap();
    let question = question("a.test.", RecordType::A);
    let length = u16::try_from(question.len()).unwrap().to_be_bytes();
    for _ in 0..2 {
        // Cut where it may be.
        client.write_all(&length[..1]).await.unwrap();
        client
            .write_all(&[&length[1..], &question].concat())
            .await
            .unwrap();
        assert_eq!(framed(&mut client).await.unwrap().unwrap(), over_udp);
    }
    client.write_all(&u16::MAX.to_be_bytes()).await.unwrap();
    assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
    tasks.cut();
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(message in proptest::collection::vec(any::<u8>(), 0..600)) {
        let names = StandIns::new();
        let _answered = names.answer(&message);
    }

    #[test]
    fn a_question_that_was_tampered_with_is_answered_or_dropped(
        at in 0_usize..40, byte in any::<u8>()
    ) {
        let mut message = question("api.example.com.", RecordType::A);
        if let Some(tampered) = message.get_mut(at) {
            *tampered = byte;
        }
        let names = StandIns::new();
        if let Some(answer) = names.answer(&message) {
            prop_assert!(Message::from_vec(&answer).is_ok());
            prop_assert!(answer.len() <= 600);
        }
    }
}
