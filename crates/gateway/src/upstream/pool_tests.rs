use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::super::Segments;
use super::super::trunks::Found;
use super::*;

/// An idle connection, and the provider's end of it.
async fn idle() -> (Box<Link>, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (ours, theirs) = tokio::join!(TcpStream::connect(addr), listener.accept());
    let link = Link::over(TokioIo::new(ours.unwrap()).into()).await;
    (link.unwrap(), theirs.unwrap().0)
}

/// Whether our end is closed; awaited, if it is.
async fn is_closed(theirs: &mut TcpStream) -> bool {
    let mut room = [0];
    let read = timeout(Duration::from_millis(100), theirs.read(&mut room)).await;
    matches!(read, Ok(Ok(0)))
}

#[tokio::test]
async fn the_latest_connection_is_taken_first() {
    let pool = Pool::new(Tracker::new());
    let (one, mut one_peer) = idle().await;
    let (other, mut other_peer) = idle().await;
    pool.put(one);
    pool.put(other);
    drop(pool.take().unwrap());
    assert!(is_closed(&mut other_peer).await);
    assert!(!is_closed(&mut one_peer).await);
    assert!(pool.take().is_some());
    assert!(pool.take().is_none());
}

#[tokio::test]
async fn the_oldest_connection_goes_when_there_are_too_many() {
    let pool = Pool::new(Tracker::new());
    let (oldest, mut oldest_peer) = idle().await;
    let (second, mut second_peer) = idle().await;
    pool.put(oldest);
    pool.put(second);
    let mut peers = Vec::new();
    for _ in 2..=MAX_IDLE {
        let (link, peer) = idle().await;
        pool.put(link);
        peers.push(peer);
    }
    assert!(is_closed(&mut oldest_peer).await);
    assert!(!is_closed(&mut second_peer).await);
}

#[tokio::test]
async fn a_connection_that_is_idle_for_too_long_is_closed() {
    let pool = Pool::new(Tracker::new());
    let (link, mut peer) = idle().await;
    pool.put(link);
    for _ in 0..MAX_SWEEPS {
        assert!(pool.sweep());
    }
    assert!(!is_closed(&mut peer).await);
    assert!(!pool.sweep());
    assert!(is_closed(&mut peer).await);
}

#[tokio::test]
async fn a_connection_with_a_request_on_it_is_not_kept() {
    let pool = Pool::new(Tracker::new());
    let (mut link, mut peer) = idle().await;
    let request = http::Request::get("/").body(Segments::default()).unwrap();
    let asked = timeout(Duration::from_millis(50), link.ask(request)).await;
    assert!(asked.is_err(), "nobody answers");
    pool.put(link);
    assert!(pool.take().is_none());
    let mut said = Vec::new();
    let read = timeout(Duration::from_secs(1), peer.read_to_end(&mut said));
    read.await.expect("it is closed").unwrap();
    assert!(said.starts_with(b"GET / HTTP/1.1\r\n"));
}

#[tokio::test]
async fn the_task_that_sweeps_ends_with_the_pool() {
    let tasks = Tracker::new();
    let pool = Pool::new(tasks.clone());
    let (link, _peer) = idle().await;
    pool.put(link);
    assert_eq!(tasks.idle(Duration::ZERO).await, 1);
    drop(pool);
    assert_eq!(tasks.idle(Duration::from_secs(1)).await, 0);
}

/// A shared connection, made as requests make it, and the provider's end of it.
async fn shared(pool: &Arc<Pool>, tasks: &Tracker) -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (ours, theirs) = tokio::join!(TcpStream::connect(addr), listener.accept());
    let mut theirs = theirs.unwrap().0;
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    theirs.write_all(&settings).await.unwrap();
    let trunk = Trunk::over(TokioIo::new(ours.unwrap()).into(), tasks).await;
    let Found::Make(id, given) = pool.trunks.find() else {
        panic!("there was no connection yet");
    };
    pool.give(id, trunk.map(Some));
    drop(given.await.unwrap().unwrap().expect("it has a place"));
    theirs
}

/// Reads what there is, and whether that was all.
async fn is_ended(theirs: &mut TcpStream) -> bool {
    let mut said = Vec::new();
    let read = timeout(Duration::from_millis(100), theirs.read_to_end(&mut said));
    read.await.is_ok()
}

#[tokio::test]
async fn a_shared_connection_that_carries_nothing_for_too_long_is_closed() {
    let tasks = Tracker::new();
    let pool = Pool::new(tasks.clone());
    let mut peer = shared(&pool, &tasks).await;
    let berth = pool.trunks.berth().unwrap();
    for _ in 0..=2 * MAX_SWEEPS {
        assert!(pool.sweep(), "it carries something");
    }
    drop(berth);
    for _ in 0..MAX_SWEEPS {
        assert!(pool.sweep());
    }
    assert!(!is_ended(&mut peer).await);
    assert!(!pool.sweep());
    assert!(is_ended(&mut peer).await);
    assert!(pool.trunks.berth().is_none());
}
