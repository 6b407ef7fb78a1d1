//! A registry: paths, and what it does when asked for them.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// What is done about a path.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// These bytes, of this type.
    Content(&'static str, Vec<u8>),
    /// So many times half of the bytes, and then all.
    CutOff(usize, Vec<u8>),
    /// Half of the bytes, and no end until the connection is closed.
    Halting(Vec<u8>),
    /// All of the bytes, once the gate is open.
    Gated(Vec<u8>),
    /// Somewhere else.
    MovedTo(String),
    /// A status.
    Status(u16),
}

/// A request, as far as it matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) path: String,
    pub(crate) authorization: Option<String>,
}

#[derive(Debug)]
pub(crate) struct Registry {
    addr: SocketAddr,
    shared: Arc<Shared>,
    seen: Receiver<Asked>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    answers: Mutex<HashMap<String, Answer>>,
    asked: Mutex<Vec<Asked>>,
    gate: Mutex<bool>,
    opened: std::sync::Condvar,
    ended: std::sync::atomic::AtomicBool,
}

/// How long anything may take here.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

impl Registry {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let (sender, seen) = channel();
        let own = Arc::clone(&shared);
        let accepting = std::thread::spawn(move || accept(&listener, &own, &sender));
        Self {
            addr,
            shared,
            seen,
            accepting: Some(accepting),
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    pub(crate) fn put(&self, path: &str, answer: Answer) {
        let mut answers = self.shared.answers.lock().unwrap();
        answers.insert(path.to_owned(), answer);
    }

    pub(crate) fn open_gate(&self) {
        *self.shared.gate.lock().unwrap() = true;
        self.shared.opened.notify_all();
    }

    /// Waits until this path is asked for.
    pub(crate) fn expect(&self, path: &str) {
        loop {
            let asked = self.seen.recv_timeout(PATIENCE);
            if asked
                .unwrap_or_else(|_| panic!("nobody asks for {path}"))
                .path
                == path
            {
                return;
            }
        }
    }

    /// Every request so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().unwrap().clone()
    }

    /// How often a path was asked for.
    pub(crate) fn count(&self, path: &str) -> usize {
        let asked = self.asked();
        asked.iter().filter(|asked| asked.path == path).count()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        use std::sync::atomic::Ordering::SeqCst;
        self.shared.ended.store(true, SeqCst);
        self.open_gate();
        // Wakes the loop that accepts.
        drop(TcpStream::connect(self.addr));
        if let Some(accepting) = self.accepting.take() {
            drop(accepting.join());
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>, seen: &Sender<Asked>) {
    let mut talking = Vec::new();
    for stream in listener.incoming() {
        if shared.ended.load(std::sync::atomic::Ordering::SeqCst) {
            break;
        }
        let Ok(stream) = stream else { continue };
        let (shared, seen) = (Arc::clone(shared), seen.clone());
        talking.push(std::thread::spawn(move || {
            // A client that leaves in the middle is what some tests are about.
            let _left = talk(stream, &shared, &seen);
        }));
    }
    for one in talking {
        drop(one.join());
    }
}

fn talk(mut stream: TcpStream, shared: &Shared, seen: &Sender<Asked>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut authorization = None;
    for line in lines {
        let line = line?;
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(": ")
            && name.eq_ignore_ascii_case("authorization")
        {
            authorization = Some(value.to_owned());
        }
    }
    let asked = Asked {
        path: path.clone(),
        authorization,
    };
    shared.asked.lock().unwrap().push(asked.clone());
    drop(seen.send(asked));
    let answer = decide(&mut shared.answers.lock().unwrap(), &path);
    match answer {
        Answer::Content(kind, bytes) => send(&mut stream, kind, &bytes, bytes.len()),
        Answer::CutOff(_, bytes) => send(&mut stream, "", &bytes, bytes.len() / 2),
        Answer::Gated(bytes) => {
            let gate = shared.gate.lock().unwrap();
            drop(shared.opened.wait_while(gate, |open| !*open).unwrap());
            send(&mut stream, "", &bytes, bytes.len())
        }
        Answer::Halting(bytes) => {
            send(&mut stream, "", &bytes, bytes.len() / 2)?;
            let gate = shared.gate.lock().unwrap();
            drop(shared.opened.wait_while(gate, |open| !*open).unwrap());
            Ok(())
        }
        Answer::MovedTo(url) => write!(
            stream,
            "HTTP/1.1 302 Found\r\nlocation: {url}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        ),
        Answer::Status(status) => write!(
            stream,
            "HTTP/1.1 {status} No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        ),
    }
}

/// What is done this time.
fn decide(answers: &mut HashMap<String, Answer>, path: &str) -> Answer {
    match answers.get_mut(path) {
        None => Answer::Status(404),
        Some(Answer::CutOff(0, bytes)) => Answer::Content("", bytes.clone()),
        Some(Answer::CutOff(times, bytes)) => {
            *times -= 1;
            Answer::CutOff(0, bytes.clone())
        }
        Some(answer) => answer.clone(),
    }
}

fn send(stream: &mut TcpStream, kind: &str, bytes: &[u8], sent: usize) -> std::io::Result<()> {
    let length = bytes.len();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
    )?;
    stream.write_all(&bytes[..sent])?;
    stream.flush()
}
