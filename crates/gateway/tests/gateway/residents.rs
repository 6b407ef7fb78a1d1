//! Callers that are known by the listener that they came by.

use std::net::SocketAddr;
use std::sync::Arc;

use farrier_gateway::config::Client;
use farrier_gateway::{Entrance, Resident};
use farrier_secrets::Secret;
use farrier_serve::Tracker;
use farrier_testkit::{RawClient, ScriptedUpstream};
use tokio::net::TcpListener;

use crate::remembering::{first_ask, given_id, second_ask, stream_turn};
use crate::support::{KIMI, PLAIN, Setup, ask, error, within_a_second};

/// A sandbox's own listener, served as whoever accepts for sandboxes serves it.
struct Door {
    addr: SocketAddr,
    _tasks: Tracker,
}

impl Door {
    async fn open(entrance: Entrance, resident: Arc<Resident>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let tasks = Tracker::new();
        let connections = tasks.clone();
        drop(tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (entrance, resident) = (entrance.clone(), Arc::clone(&resident));
                drop(connections.spawn(async move { entrance.serve(stream, resident).await }));
            }
        }));
        Self {
            addr,
            _tasks: tasks,
        }
    }

    async fn client(&self) -> RawClient {
        RawClient::connect(self.addr).await
    }
}

async fn status(door: &Door, line: &str, headers: &[(&str, &str)], body: &str) -> (u16, String) {
    let mut client = door.client().await;
    client.request(line, headers, body).await;
    let response = within_a_second(client.response()).await;
    (response.status, response.text())
}

/// Asks for a completion through the door, and gives what the provider is asked.
async fn completion(door: &Door, upstream: &ScriptedUpstream, model: &str) -> String {
    let mut client = door.client().await;
    client.post("/v1/chat/completions", ask(model)).await;
    let (mut peer, request) = within_a_second(upstream.recv()).await;
    peer.reply("200 OK", "{\"choices\":[]}").await;
    assert_eq!(within_a_second(client.response()).await.status, 200);
    request.text()
}

#[tokio::test]
async fn a_resident_has_its_route_and_no_other_whatever_it_says() {
    let upstream = ScriptedUpstream::bind().await;
    let mut setup = Setup::on(&upstream);
    let key = Secret::new("key-of-another".to_owned()).unwrap();
    setup.config.clients = vec![Client::new("another", key)];
    let gateway = setup.run().await;
    let resident = Arc::new(Resident::new("work", Some("openclaw"), PLAIN));
    let door = Door::open(gateway.entrance.clone(), Arc::clone(&resident)).await;

    let (code, models) = status(&door, "GET /v1/models", &[], "").await;
    assert_eq!(code, 200);
    assert!(models.contains(PLAIN) && !models.contains(KIMI), "{models}");
    // Neither another's key nor a header makes it somebody else.
    let disguise = [
        ("authorization", "Bearer key-of-another"),
        ("x-farrier-agent", "hermes"),
        ("host", "elsewhere.example"),
    ];
    let (code, text) = status(&door, "POST /v1/chat/completions", &disguise, &ask(KIMI)).await;
    assert_eq!((code, error(&text).1.as_str()), (404, "model_not_found"));
    assert!(text.contains("the model of this sandbox's route"), "{text}");
    let (code, _) = status(&door, &format!("GET /v1/models/{KIMI}"), &disguise, "").await;
    assert_eq!(code, 404);
    let (code, _) = status(&door, "GET /metrics", &[], "").await;
    assert_eq!(code, 404, "the page of metrics is about everybody");
    assert!(completion(&door, &upstream, PLAIN).await.contains(PLAIN));
}

#[tokio::test]
async fn a_resident_that_is_switched_has_the_other_route_from_the_next_request_on() {
    let upstream = ScriptedUpstream::bind().await;
    let gateway = Setup::on(&upstream).run().await;
    let resident = Arc::new(Resident::new("work", None, PLAIN));
    let door = Door::open(gateway.entrance.clone(), Arc::clone(&resident)).await;
    assert!(completion(&door, &upstream, PLAIN).await.contains(PLAIN));
    resident.switch(KIMI);
    let (code, _) = status(&door, "POST /v1/chat/completions", &[], &ask(PLAIN)).await;
    assert_eq!(code, 404);
    assert!(
        completion(&door, &upstream, KIMI)
            .await
            .contains("kimi-k2.6")
    );
}

#[tokio::test]
async fn a_resident_is_served_by_the_configuration_of_now_and_ends_with_the_gateway() {
    let upstream = ScriptedUpstream::bind().await;
    let gateway = Setup::on(&upstream).run().await;
    let entrance = gateway.entrance.clone();
    let resident = Arc::new(Resident::new("work", None, PLAIN));
    let door = Door::open(entrance, resident).await;
    let mut idle = door.client().await;
    idle.get("/v1/models").await;
    assert_eq!(within_a_second(idle.response()).await.status, 200);

    let other = ScriptedUpstream::bind().await;
    let Setup { config, dir } = Setup::on(&other);
    gateway.reloader.reload(config).unwrap();
    drop(dir);
    assert!(completion(&door, &other, PLAIN).await.contains(PLAIN));

    assert_eq!(gateway.drain().await.cut, 0);
    assert_eq!(within_a_second(idle.closed()).await, b"");
    let mut late = door.client().await;
    assert_eq!(
        within_a_second(late.closed()).await,
        b"",
        "nobody answers any more"
    );
}

#[tokio::test]
async fn a_turn_of_one_resident_is_a_miss_for_another() {
    let upstream = ScriptedUpstream::bind().await;
    let gateway = Setup::on(&upstream).run().await;
    let mut doors = Vec::new();
    for name in ["one", "two"] {
        let resident = Arc::new(Resident::new(name, None, KIMI));
        doors.push(Door::open(gateway.entrance.clone(), resident).await);
    }
    let mut client = doors[0].client().await;
    client.post("/v1/chat/completions", first_ask()).await;
    let (mut peer, _) = within_a_second(upstream.recv()).await;
    stream_turn(&mut peer).await;
    let id = given_id(&within_a_second(client.response()).await.text());
    for (door, expected) in doors
        .iter()
        .zip(["a thought of its own", "(reasoning not retained)"])
    {
        let mut client = door.client().await;
        client.post("/v1/chat/completions", second_ask(&id)).await;
        let request = within_a_second(peer.recv()).await;
        let body: serde_json::Value = serde_json::from_str(&request.text()).unwrap();
        assert_eq!(body["messages"][1]["reasoning_content"], expected);
        peer.reply("200 OK", "{\"choices\":[]}").await;
        assert_eq!(within_a_second(client.response()).await.status, 200);
    }
}
