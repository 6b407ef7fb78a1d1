//! Clients that leave, and a gateway that has to.

use std::time::Duration;

use farrier_testkit::ScriptedUpstream;
use tracing_subscriber::filter::LevelFilter;

use crate::support::{KIMI, Log, PLAIN, Setup, ask, event, within_a_second};

#[tokio::test]
async fn a_client_that_leaves_while_waiting_cancels_the_provider() {
    let log = Log::default();
    let _guard = log.collect(LevelFilter::INFO);
    let upstream = ScriptedUpstream::bind().await;
    let gateway = Setup::on(&upstream).run().await;
    let mut client = gateway.client().await;
    client.post("/v1/chat/completions", ask(PLAIN)).await;
    let (mut peer, _) = upstream.recv().await;
    drop(client);
    assert_eq!(within_a_second(peer.closed()).await, b"");
    assert!(
        log.record().contains("ending=\"client_gone\""),
        "{}",
        log.record()
    );
}

#[tokio::test]
async fn a_client_that_leaves_in_mid_stream_cancels_the_provider() {
    for model in [PLAIN, KIMI] {
        let upstream = ScriptedUpstream::bind().await;
        let gateway = Setup::on(&upstream).run().await;
        let mut client = gateway.client().await;
        client.post("/v1/chat/completions", ask(model)).await;
        let (mut peer, _) = upstream.recv().await;
        peer.start_stream().await;
        peer.send_chunk(event("{\"content\":\"one\"}", None)).await;
        client.head().await;
        client.chunk().await.unwrap();
        drop(client);
        assert_eq!(within_a_second(peer.closed()).await, b"");
        let page = gateway.metrics().await;
        assert!(
            page.contains(&format!(
                "route=\"{model}\",status=\"200\",ending=\"client_gone\"}} 1"
            )),
            "{page}"
        );
    }
}

#[tokio::test]
async fn a_drain_lets_a_stream_finish() {
    let upstream = ScriptedUpstream::bind().await;
    let gateway = Setup::on(&upstream).run().await;
    let addr = gateway.addr;
    let mut client = gateway.client().await;
    client.post("/v1/chat/completions", ask(KIMI)).await;
    let (mut peer, _) = upstream.recv().await;
    peer.start_stream().await;
    client.head().await;
    let drained = gateway.drain();
    let rest = async {
        let last = event("{\"content\":\"last words\"}", Some("stop")) + "data: [DONE]\n\n";
        peer.send_chunk(&last).await;
        peer.end_chunks().await;
        let mut got = Vec::new();
        loop {
            match client.chunk().await.unwrap() {
                chunk if chunk.is_empty() => break,
                chunk => got.extend(chunk),
            }
        }
        assert_eq!(String::from_utf8(got).unwrap(), last);
        assert_eq!(client.closed().await, b"");
        assert!(
            tokio::net::TcpStream::connect(addr).await.is_err(),
            "nothing new is accepted"
        );
    };
    let (drained, ()) = tokio::join!(drained, rest);
    assert_eq!(drained.cut, 0);
}

#[tokio::test]
async fn a_stream_that_outlasts_the_drain_is_cut_and_the_record_says_so() {
    let log = Log::default();
    let _guard = log.collect(LevelFilter::INFO);
    let upstream = ScriptedUpstream::bind().await;
    let mut setup = Setup::on(&upstream);
    setup.config.limits.listener.drain = Duration::from_millis(50);
    let gateway = setup.run().await;
    let mut client = gateway.client().await;
    client.post("/v1/chat/completions", ask(PLAIN)).await;
    let (mut peer, _) = upstream.recv().await;
    peer.start_stream().await;
    client.head().await;
    assert_eq!(gateway.drain().await.cut, 1);
    assert_eq!(client.closed().await, b"");
    assert_eq!(peer.closed().await, b"");
    assert!(log.record().contains("ending=\"cut\""), "{}", log.record());
}

#[tokio::test]
async fn a_provider_is_not_read_faster_than_the_client_reads() {
    let upstream = ScriptedUpstream::bind().await;
    let gateway = Setup::on(&upstream).run().await;
    let mut client = gateway.client().await;
    client.post("/v1/chat/completions", ask(PLAIN)).await;
    let (mut peer, _) = upstream.recv().await;
    peer.start_stream().await;
    client.head().await;
    // More than every buffer in between holds.
    let flood = async {
        let piece = vec![b'x'; 1 << 20];
        for _ in 0..64 {
            peer.send_chunk(&piece).await;
        }
    };
    let stuck = tokio::time::timeout(Duration::from_millis(300), flood).await;
    assert!(
        stuck.is_err(),
        "64 MiB were taken from the provider while the client read nothing"
    );
}
