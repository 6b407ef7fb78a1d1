//! Many sandboxes at once.

use serde_json::json;

use super::{CANARY, KIMI, Stage, completion, make, processes};

const MANY: usize = 50;

#[tokio::test(flavor = "multi_thread")]
async fn many_sandboxes_have_a_stream_each_at_the_same_time() {
    let stage = Stage::set().await;
    let names: Vec<_> = (0..MANY).map(|number| format!("box-{number}")).collect();
    // Made at once, as are their requests.
    let home = &stage.home;
    std::thread::scope(|scope| {
        for name in &names {
            scope.spawn(|| make(home, name, &[]));
        }
    });
    let listed = stage.json(&["sandbox", "list", "--json"]);
    assert_eq!(listed["sandboxes"].as_array().unwrap().len(), MANY);

    let asking = completion(KIMI, true);
    let ask = |name: &String| {
        stage
            .home
            .start(&["sandbox", "exec", name, "--", "sh", "-c", &asking])
    };
    let running: Vec<_> = names.iter().map(ask).collect();
    let mut peers = Vec::new();
    for _ in &names {
        let (mut peer, request) = stage.provider.recv().await;
        assert_eq!(
            request.headers.first("authorization").unwrap(),
            format!("Bearer {CANARY}")
        );
        peer.start_stream().await;
        peers.push(peer);
    }
    // Each has begun before any ends.
    for (number, peer) in peers.iter_mut().enumerate() {
        let delta = json!({"choices": [{"index": 0, "delta": {"content": format!("part-{number}.")}, "finish_reason": null}]});
        peer.send_chunk(format!("data: {delta}\n\n")).await;
    }
    for peer in &mut peers {
        let end = json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]});
        peer.send_chunk(format!("data: {end}\n\ndata: [DONE]\n\n"))
            .await;
        peer.end_chunks().await;
    }
    let mut parts: Vec<usize> = Vec::new();
    for one in running {
        let said = one.ended();
        assert_eq!(said.code, Some(0), "{}", said.shown());
        assert!(said.stdout.ends_with("data: [DONE]\n\n"), "{}", said.stdout);
        let part = said
            .stdout
            .split("part-")
            .nth(1)
            .unwrap()
            .split('.')
            .next()
            .unwrap();
        parts.push(part.parse().unwrap());
    }
    parts.sort_unstable();
    assert_eq!(parts, (0..MANY).collect::<Vec<_>>());
    assert!(processes(stage.home.path()).len() >= MANY);
    stage.ends_well();
}
