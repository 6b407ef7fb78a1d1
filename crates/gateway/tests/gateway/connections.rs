//! Connections towards a provider: which are kept, and what travels on them when.

use farrier_testkit::{RawClient, ScriptedPeer, ScriptedUpstream};

use crate::support::{KIMI, PLAIN, Setup, ask, event, within_a_second};

const STREAM: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

fn word(number: usize) -> String {
    event(&format!("{{\"content\":\"word {number}\"}}"), None)
}

fn chunk(data: &str) -> String {
    format!("{:x}\r\n{data}\r\n", data.len())
}

/// A stream's events, as far as its end.
async fn rest_of(client: &mut RawClient) -> Option<String> {
    let mut got = Vec::new();
    loop {
        match client.chunk().await? {
            chunk if chunk.is_empty() => break,
            chunk => got.extend(chunk),
        }
        tokio::task::yield_now().await; // others have their turn, and may write more
    }
    Some(String::from_utf8(got).unwrap())
}

async fn asked(client: &mut RawClient, peer: &mut ScriptedPeer, model: &str) {
    client.post("/v1/chat/completions", ask(model)).await;
    peer.recv().await;
}

#[tokio::test]
async fn a_connection_is_kept_after_a_stream_however_that_was_framed() {
    let upstream = ScriptedUpstream::bind().await;
    let gateway = Setup::on(&upstream).run().await;
    let mut client = gateway.client().await;
    client.post("/v1/chat/completions", ask(PLAIN)).await;
    let (mut peer, _) = upstream.recv().await;
    let one = word(1);
    let plain = chunk(&one);
    let extended = format!("{:X};name=\"value\"\r\n{one}\r\n", one.len());
    for (chunks, end) in [
        (&plain, "0\r\n\r\n"),
        (&plain, "0\r\nx-trailer: said\r\n\r\n"),
        (&plain, "000;last\r\n\r\n"),
        (&extended, "0\r\n\r\n"),
        (&String::new(), "0\r\n\r\n"),
    ] {
        peer.send(format!("{STREAM}{chunks}{end}")).await;
        client.head().await;
        let expected = if chunks.is_empty() { "" } else { &*one };
        assert_eq!(
            rest_of(&mut client).await.unwrap(),
            expected,
            "{chunks}{end}"
        );
        asked(&mut client, &mut peer, PLAIN).await; // on the same connection
    }
}

#[tokio::test]
async fn a_stream_passes_whole_wherever_its_reads_are_cut() {
    let upstream = ScriptedUpstream::bind().await;
    let gateway = Setup::on(&upstream).run().await;
    let mut client = gateway.client().await;
    client.post("/v1/chat/completions", ask(PLAIN)).await;
    let (mut peer, _) = upstream.recv().await;
    let events = word(1) + &word(2);
    let coded = format!(
        "HTTP/1.1 100 Continue\r\n\r\n{STREAM}{}{}0\r\n\r\n",
        chunk(&word(1)),
        chunk(&word(2))
    );
    for cut in 1..coded.len() {
        peer.send(&coded[..cut]).await;
        tokio::task::yield_now().await;
        peer.send(&coded[cut..]).await;
        client.head().await;
        assert_eq!(rest_of(&mut client).await.unwrap(), events, "{cut}");
        asked(&mut client, &mut peer, PLAIN).await;
    }
}

#[tokio::test]
async fn an_event_is_given_to_the_client_before_the_next_one_is_there() {
    let upstream = ScriptedUpstream::bind().await;
    let gateway = Setup::on(&upstream).run().await;
    for model in [PLAIN, KIMI] {
        let mut client = gateway.client().await;
        client.post("/v1/chat/completions", ask(model)).await;
        let (mut peer, _) = upstream.recv().await;
        peer.start_stream().await;
        client.head().await;
        for number in 0..50 {
            let event = word(number);
            // What follows the event's data says nothing that it would have to wait for.
            peer.send(format!("{:x}\r\n{event}", event.len())).await;
            let got = within_a_second(client.chunk()).await.unwrap();
            assert_eq!(String::from_utf8(got).unwrap(), event, "{model}");
            peer.send("\r\n").await;
        }
    }
}

#[tokio::test]
async fn events_that_are_there_together_travel_together() {
    let upstream = ScriptedUpstream::bind().await;
    let gateway = Setup::on(&upstream).run().await;
    let mut client = gateway.client().await;
    client.post("/v1/chat/completions", ask(PLAIN)).await;
    let (mut peer, _) = upstream.recv().await;
    let events: String = (0..50).map(word).collect();
    let chunks: String = (0..50).map(word).map(|event| chunk(&event)).collect();
    peer.send(STREAM).await;
    client.head().await;
    peer.send(chunks).await;
    let together = client.chunk().await.unwrap();
    assert_eq!(String::from_utf8(together).unwrap(), events);
}

#[tokio::test]
async fn a_chunk_that_breaks_its_frame_ends_the_stream_where_it_broke() {
    for wrong in [
        "4\r\nmore than four\r\n",
        "xyz\r\n",
        "fffffffffffffffff\r\n",
    ] {
        let upstream = ScriptedUpstream::bind().await;
        let gateway = Setup::on(&upstream).run().await;
        let mut client = gateway.client().await;
        client.post("/v1/chat/completions", ask(PLAIN)).await;
        let (mut peer, _) = upstream.recv().await;
        peer.send(STREAM).await;
        client.head().await;
        peer.send(chunk(&word(1))).await;
        client.chunk().await.unwrap();
        peer.send(wrong).await;
        assert_eq!(rest_of(&mut client).await, None, "{wrong:?}");
        within_a_second(peer.closed()).await;
    }
}

#[tokio::test]
async fn a_kept_connection_that_the_provider_closed_meanwhile_is_not_used() {
    let upstream = ScriptedUpstream::bind().await;
    let gateway = Setup::on(&upstream).run().await;
    let mut client = gateway.client().await;
    for round in 0..5 {
        client.post("/v1/chat/completions", ask(PLAIN)).await;
        let (mut peer, _) = upstream.recv().await;
        peer.reply("200 OK", format!("round {round}")).await;
        assert_eq!(client.response().await.text(), format!("round {round}"));
        drop(peer);
        // By the time another request is answered, the gateway has heard of it.
        gateway.metrics().await;
    }
}

#[tokio::test]
async fn a_reply_that_says_so_leaves_no_connection_behind() {
    let upstream = ScriptedUpstream::bind().await;
    let gateway = Setup::on(&upstream).run().await;
    let mut client = gateway.client().await;
    client.post("/v1/chat/completions", ask(PLAIN)).await;
    let (mut peer, _) = upstream.recv().await;
    peer.reply("200 OK\r\nconnection: close", "bye").await;
    assert_eq!(client.response().await.text(), "bye");
    assert_eq!(within_a_second(peer.closed()).await, b"");
}

#[tokio::test]
async fn bytes_that_nobody_asked_for_close_a_kept_connection() {
    let upstream = ScriptedUpstream::bind().await;
    let gateway = Setup::on(&upstream).run().await;
    let mut client = gateway.client().await;
    client.post("/v1/chat/completions", ask(PLAIN)).await;
    let (mut peer, _) = upstream.recv().await;
    peer.send(format!(
        "{STREAM}0\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\nnot his"
    ))
    .await;
    client.head().await;
    assert_eq!(rest_of(&mut client).await.unwrap(), "");
    client.post("/v1/chat/completions", ask(PLAIN)).await;
    let (mut peer, _) = upstream.recv().await; // on another connection
    peer.reply("200 OK", "his").await;
    assert_eq!(client.response().await.text(), "his");
}

#[tokio::test]
async fn a_stream_longer_than_all_buffers_is_given_whole() {
    let upstream = ScriptedUpstream::bind().await;
    let gateway = Setup::on(&upstream).run().await;
    for model in [PLAIN, KIMI] {
        let mut client = gateway.client().await;
        client.post("/v1/chat/completions", ask(model)).await;
        let (mut peer, _) = upstream.recv().await;
        let script = async {
            peer.start_stream().await;
            for number in 0..EVENTS {
                peer.send_chunk(word(number)).await;
            }
            peer.send_chunk(event("{}", Some("stop")) + "data: [DONE]\n\n")
                .await;
            peer.end_chunks().await;
        };
        let read = async {
            client.head().await;
            rest_of(&mut client).await.unwrap()
        };
        let (got, ()) = tokio::join!(read, script);
        assert_eq!(got.matches("\"word ").count(), EVENTS, "{model}");
        assert!(got.ends_with("data: [DONE]\n\n"), "{model}");
    }
}

/// More than sockets and buffers hold.
const EVENTS: usize = 60_000;
