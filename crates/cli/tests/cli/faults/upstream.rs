//! A provider whose every tenth connection is closed.

use std::net::SocketAddr;

use farrier_serve::Tracker;
use tokio::io::{AsyncReadExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::agent::{Agent, Turn};
use super::stage::{agents, configuration, ends_well, exacting_persona, expect_own_words, home};

/// When a tenth connection is closed.
#[derive(Clone, Copy, Debug)]
enum Closes {
    /// Before a byte of the request was read.
    AtOnce,
    /// When the request has come and before a byte of an answer.
    AfterTheRequest,
}

/// Passes connections on to `persona`, closing every tenth. Each carries one request.
async fn closing(persona: SocketAddr, closes: Closes, tasks: &Tracker) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let within = tasks.clone();
    drop(tasks.spawn(async move {
        let mut count = 0_u32;
        while let Ok((mut client, _)) = listener.accept().await {
            count += 1;
            let closed = count.is_multiple_of(10);
            drop(within.spawn(async move {
                match closed.then_some(closes) {
                    Some(Closes::AtOnce) => {}
                    Some(Closes::AfterTheRequest) => {
                        let read = client.read(&mut [0; 64]).await;
                        assert!(read.unwrap() > 0);
                    }
                    None => pass_on(client, persona).await,
                }
            }));
        }
    }));
    addr
}

async fn pass_on(mut client: TcpStream, persona: SocketAddr) {
    let mut persona = TcpStream::connect(persona).await.unwrap();
    // Whoever ends first, the other side learns of it by the copy's end.
    let _ended = copy_bidirectional(&mut client, &mut persona).await;
}

/// Every agent reaches so many turns; what is refused or cut off meanwhile it asks again. Gives how often that was.
async fn persevere(agents: Vec<Agent>, turns: usize, gateway: SocketAddr) -> usize {
    let mut going: JoinSet<usize> = JoinSet::new();
    for mut agent in agents {
        going.spawn(async move {
            let mut again = 0;
            while agent.turns() < turns {
                match agent.turn(gateway).await {
                    Turn::Ended => {}
                    Turn::Refused(response) => {
                        assert_eq!(response.status, 502, "{}", response.text());
                        assert_eq!(response.headers.first("x-farrier-fault"), Some("upstream"));
                        again += 1;
                    }
                    Turn::CutOff => again += 1,
                }
            }
            again
        });
    }
    going.join_all().await.into_iter().sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_turn_is_lost_to_connections_that_close_at_once_or_before_the_answer() {
    for closes in [Closes::AtOnce, Closes::AfterTheRequest] {
        let persona = exacting_persona().await;
        let tasks = Tracker::new();
        let provider = closing(persona.addr(), closes, &tasks).await;
        let home = home();
        home.write("farrier.toml", &configuration(provider, ""));
        let mut up = home.start(&["up"]);
        let again = persevere(agents(20, "flaky"), 10, up.listening()).await;
        expect_own_words(&persona);
        // A tenth of the connections, at most one for each request.
        assert!(again <= 40, "{closes:?}: {again} requests failed");
        let said = ends_well(up);
        assert!(!said.contains("panicked"), "{said}");
        tasks.cut();
        persona.stop().await;
    }
}
