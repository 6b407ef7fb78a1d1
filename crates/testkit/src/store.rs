//! Real Redis or Valkey servers, in directories of their own.
//!
//! A server listens on a Unix socket, or on loopback where a test needs a port. It is started and stopped by the test
//! that made it, by its process id, and is gone with it.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::PATIENCE;

/// Either will do; the first that is there is taken.
const PROGRAMS: [&str; 2] = ["redis-server", "valkey-server"];
/// A free port may be taken by another between being found and being used.
const PORT_ATTEMPTS: usize = 8;
/// Each takes some milliseconds.
const CLUSTER_ATTEMPTS: usize = 2000;
/// A cluster's servers talk to each other this far above their port.
const CLUSTER_BUS: u16 = 10_000;

/// A server that can be killed, started again, and paused.
#[derive(Debug)]
pub struct StoreServer {
    dir: TempDir,
    arguments: Vec<String>,
    port: Option<u16>,
    running: Option<Child>,
}

impl StoreServer {
    /// On a Unix socket, without anything on disk.
    ///
    /// # Panics
    ///
    /// If there is no such server on this machine; the message says how to install one.
    #[must_use]
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// On a Unix socket, with further settings: `&["--maxmemory", "1mb"]`.
    ///
    /// # Panics
    ///
    /// As [`Self::start`].
    #[must_use]
    pub fn with(settings: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut arguments = owned(&["--port", "0"]);
        arguments.extend(owned(settings));
        let mut server = Self {
            dir,
            arguments,
            port: None,
            running: None,
        };
        assert!(server.run(), "the server ended at once");
        server
    }

    /// On a port of loopback beside the Unix socket. In the settings, `{port}` is the port; without it there, the port
    /// is for plain connections.
    ///
    /// # Panics
    ///
    /// As [`Self::start`].
    #[must_use]
    pub fn on_a_port(settings: &[&str]) -> Self {
        for _ in 0..PORT_ATTEMPTS {
            let port = free_port();
            let dir = tempfile::tempdir().expect("a temporary directory");
            let filled = settings
                .iter()
                .map(|word| word.replace("{port}", &port.to_string()));
            let mut arguments: Vec<String> = filled.collect();
            if !settings.iter().any(|word| word.contains("{port}")) {
                arguments.extend(["--port".to_owned(), port.to_string()]);
            }
            arguments.extend(owned(&["--bind", "127.0.0.1"]));
            let mut server = Self {
                dir,
                arguments,
                port: Some(port),
                running: None,
            };
            if server.run() {
                return server;
            }
        }
        panic!("expected a free port within {PORT_ATTEMPTS} attempts, got none");
    }

    /// A sentinel that watches `primary` under the name `main` and replaces it half a second after it is gone.
    ///
    /// # Panics
    ///
    /// As [`Self::start`].
    #[must_use]
    pub fn sentinel(primary: u16) -> Self {
        for _ in 0..PORT_ATTEMPTS {
            let port = free_port();
            let dir = tempfile::tempdir().expect("a temporary directory");
            let config = dir.path().join("sentinel.conf");
            let text = format!(
                "port {port}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {primary} 1\n\
                 sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 2000\n"
            );
            fs::write(&config, text).expect("the directory is ours");
            let mut server = Self {
                dir,
                arguments: vec![config.display().to_string(), "--sentinel".to_owned()],
                port: Some(port),
                running: None,
            };
            if server.run() {
                return server;
            }
        }
        panic!("expected a free port within {PORT_ATTEMPTS} attempts, got none");
    }

    /// Three servers that are a cluster.
    ///
    /// # Panics
    ///
    /// As [`Self::start`]; or if they do not become one.
    #[must_use]
    pub fn cluster() -> [Self; 3] {
        let settings = [
            "--cluster-enabled",
            "yes",
            "--cluster-config-file",
            "nodes.conf",
        ];
        let nodes = [(); 3].map(|()| Self::on_a_port(&settings));
        let mut create = vec!["--cluster".to_owned(), "create".to_owned()];
        create.extend(
            nodes
                .iter()
                .map(|node| format!("127.0.0.1:{}", node.port())),
        );
        create.extend(owned(&["--cluster-replicas", "0", "--cluster-yes"]));
        let said = cli(&create);
        assert!(
            said.contains("[OK] All 16384 slots covered"),
            "no cluster: {said}"
        );
        // Each has yet to hear that the others are there.
        for node in &nodes {
            let ask = ["-p", &node.port().to_string(), "cluster", "info"].map(str::to_owned);
            let heard = |_| cli(&ask).contains("cluster_state:ok");
            assert!(
                (0..CLUSTER_ATTEMPTS).any(heard),
                "a server stays alone: {}",
                cli(&ask)
            );
        }
        nodes
    }

    /// Where it listens, as a ledger is told.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis+unix://{}", self.socket().display())
    }

    /// Its port on loopback.
    ///
    /// # Panics
    ///
    /// If it was started without.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.expect("a server that was started on a port")
    }

    /// Its Unix socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("store.sock")
    }

    /// What it was given to keep its files in.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Kills it, as a power cut would, and waits for its end. Nothing happens to one that does not run.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.running.take() {
            // One that ended by itself cannot be killed, only waited for.
            let _ended_already = child.kill();
            let _status = child.wait();
        }
    }

    /// Starts it again, with what it has on disk.
    ///
    /// # Panics
    ///
    /// If it does not start.
    pub fn start_again(&mut self) {
        self.kill();
        assert!(self.run(), "the server ended at once");
    }

    /// Keeps it from doing anything, as a machine that hangs does.
    ///
    /// # Panics
    ///
    /// If it does not run.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    ///
    /// # Panics
    ///
    /// If it does not run.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let child = self.running.as_ref().expect("a server that runs");
        kill_process(Pid::from_child(child), signal).expect("it is ours");
    }

    /// Starts the program and waits until it accepts connections; `false` if it ends instead.
    fn run(&mut self) -> bool {
        let mut command = Command::new(program());
        command.args(&self.arguments);
        if !self
            .arguments
            .iter()
            .any(|argument| argument == "--sentinel")
        {
            command
                .args(["--save", "", "--unixsocket"])
                .arg(self.socket());
        }
        command.arg("--dir").arg(self.dir.path());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = command.spawn().expect("the program was found");
        let output = child.stdout.take().expect("it is piped");
        let (tell, told) = mpsc::channel();
        // Reads on to the end, so that the server never waits for a reader.
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if line.contains("eady to accept connections") || line.contains("+monitor") {
                    let _nobody_waits = tell.send(());
                }
            }
        });
        let ready = told.recv_timeout(PATIENCE).is_ok();
        self.running = Some(child);
        if !ready {
            self.kill();
        }
        ready
    }
}

impl Drop for StoreServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port of loopback that nobody listens on, and whose bus for clusters is a port too.
fn free_port() -> u16 {
    loop {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
        let port = listener.local_addr().expect("it is bound").port();
        if port < u16::MAX - CLUSTER_BUS {
            return port;
        }
    }
}

/// What the server's own client says.
fn cli(words: &[String]) -> String {
    let mut cli = Command::new(program().with_file_name("redis-cli"));
    let said = cli.args(words).stdin(Stdio::null()).output();
    let said = said.expect("redis-cli comes with the server: apt-get install -y redis-server");
    String::from_utf8_lossy(&said.stdout).into_owned()
}

fn program() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = || std::env::split_paths(&path);
    let found = PROGRAMS.iter().find_map(|name| {
        places()
            .map(|place| place.join(name))
            .find(|file| file.is_file())
    });
    found.unwrap_or_else(|| {
        panic!(
            "expected redis-server or valkey-server, got neither; apt-get install -y redis-server"
        )
    })
}

fn owned<T: AsRef<OsStr>>(words: &[T]) -> Vec<String> {
    words
        .iter()
        .map(|word| word.as_ref().to_string_lossy().into_owned())
        .collect()
}
