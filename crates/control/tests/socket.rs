//! A socket in a temporary directory, served and called for real.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "what does not hold fails its test")]

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use farrier_control::store::{Change, StoredProvider};
use farrier_control::talk::{
    Ended, ExecRequest, Inward, Outward, read_inward, read_outward, write_inward, write_outward,
};
use farrier_control::{
    BindError, CallError, Cause, Client, Code, Conversation, LimitSpec, Mistake, MountSpec,
    NewSandbox, OPENAPI, Operations, Origin, Outcome, PairingStatus, Provider, Providers, Reload,
    SandboxAct, SandboxChange, SandboxName, SandboxSpec, SandboxState, SandboxStatus, Sandboxes,
    ServiceStatus, SessionStatus, Socket, Status, Unable,
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

/// A gateway that counts what it is asked.
#[derive(Clone, Debug, Default)]
struct Gateway {
    reloads: Arc<AtomicU64>,
    changes: Arc<Mutex<Vec<Change>>>,
    acts: Arc<Mutex<Vec<SandboxAct>>>,
    draining: bool,
    broken: bool,
}

impl Operations for Gateway {
    fn status(&self) -> Status {
        Status {
            version: "1.2.3".to_owned(),
            pid: 42,
            uptime_seconds: 7,
            config: "/etc/farrier/farrier.toml".to_owned(),
            generation: 1 + self.reloads.load(Ordering::SeqCst),
            serving_since_unix_ms: 1,
            listen: vec!["127.0.0.1:8484".to_owned()],
            watching: true,
            draining: self.draining,
            last_reload: None,
        }
    }

    async fn reload(&self) -> Result<Reload, Unable> {
        if self.draining {
            return Err(Unable::Draining);
        }
        let mistake = Mistake {
            file: None,
            line: Some(3),
            message: "expected a provider, got none".to_owned(),
        };
        let taken = u64::from(!self.broken);
        Ok(Reload {
            result: if self.broken {
                Outcome::Refused
            } else {
                Outcome::Taken
            },
            cause: Cause::Request,
            at_unix_ms: 2,
            config: "/etc/farrier/farrier.toml".to_owned(),
            generation: 1 + self.reloads.fetch_add(taken, Ordering::SeqCst) + taken,
            mistakes: self.broken.then_some(mistake).into_iter().collect(),
            warnings: Vec::new(),
            needs_restart: Vec::new(),
            reconnected: Vec::new(),
        })
    }

    async fn providers(&self) -> Result<Providers, Unable> {
        let provider = Provider {
            name: "openai".to_owned(),
            kind: "openai".to_owned(),
            base_url: None,
            keys: BTreeMap::new(),
            broken: BTreeMap::new(),
            origin: Origin::Stored,
            file: None,
            line: None,
        };
        let providers = vec![provider];
        Ok(Providers { providers })
    }

    async fn change(&self, change: Change) -> Result<Reload, Unable> {
        if change.name().as_str() == "declared" {
            let message = "declared at farrier.toml:3".to_owned();
            let code = Code::Declared;
            return Err(Unable::Change { code, message });
        }
        self.changes.lock().unwrap().push(change);
        self.reload().await
    }

    async fn sandboxes(&self) -> Result<Sandboxes, Unable> {
        let sandboxes = vec![doing("work", SandboxState::Running)];
        Ok(Sandboxes { sandboxes })
    }

    async fn sandbox(&self, act: SandboxAct) -> Result<SandboxStatus, Unable> {
        let (name, state) = match &act {
            SandboxAct::Create(new) => (&new.name, SandboxState::Running),
            SandboxAct::Start(name)
            | SandboxAct::Look(name)
            | SandboxAct::Change(name, _)
            | SandboxAct::Destroy(name) => (name, SandboxState::Running),
            SandboxAct::Stop(name) => (name, SandboxState::Stopped),
        };
        if name.as_str() == "missing" {
            let message = "expected the name of a sandbox, got missing".to_owned();
            let code = Code::Unknown;
            return Err(Unable::Change { code, message });
        }
        let status = doing(name.as_str(), state);
        self.acts.lock().unwrap().push(act);
        Ok(status)
    }

    /// Says back whatever it is told, until there is nothing more.
    async fn exec(&self, name: SandboxName, exec: ExecRequest) -> Result<Conversation, Unable> {
        if name.as_str() == "missing" {
            let message = "expected a sandbox that runs, got missing".to_owned();
            let code = Code::NotRunning;
            return Err(Unable::Change { code, message });
        }
        Ok(Conversation::new(async move |mut stream| {
            let said = Bytes::from(exec.command.join(" "));
            write_outward(&mut stream, &Outward::Output(said))
                .await
                .unwrap();
            while let Some(frame) = read_inward(&mut stream).await.unwrap() {
                let Inward::Input(bytes) = frame else {
                    break;
                };
                write_outward(&mut stream, &Outward::Errors(bytes))
                    .await
                    .unwrap();
            }
            let ended = Outward::Ended(Ended::Exited(7));
            write_outward(&mut stream, &ended).await.unwrap();
        }))
    }
}

fn spec() -> SandboxSpec {
    SandboxSpec {
        agent: "openclaw".to_owned(),
        version: Some("2026.5.12".to_owned()),
        route: "moonshotai/kimi-k2.6".to_owned(),
        providers: vec!["slack".parse().unwrap()],
        mounts: vec![MountSpec {
            host: "/srv/data".into(),
            inside: "/data".into(),
            writable: true,
        }],
        policy: Some("version: 1\n".to_owned()),
        command: Vec::new(),
        serve: true,
        rootfs: None,
        limits: LimitSpec {
            memory_bytes: Some(1 << 30),
            pids: Some(200),
            milli_cpus: None,
        },
    }
}

fn doing(name: &str, state: SandboxState) -> SandboxStatus {
    SandboxStatus {
        name: name.parse().unwrap(),
        spec: spec(),
        state,
        since_unix_ms: 3,
        reason: Some("memory is not bounded".to_owned()),
        service: Some(ServiceStatus {
            running: true,
            restarts: 1,
            last_exit: Some("status 1".to_owned()),
            last_output: Some("no".to_owned()),
        }),
        pid: Some(42),
        limits: vec!["memory 1 GiB".to_owned()],
        home: "/var/lib/farrier/sandboxes/work/home".into(),
        created_unix_ms: 2,
        sessions: vec![SessionStatus {
            id: 1,
            command: vec!["bash".to_owned()],
            attached: false,
            since_unix_ms: 4,
        }],
        pairing: Some(PairingStatus {
            state: "unanswered".to_owned(),
            reason: Some("gateway closed".to_owned()),
            since_unix_ms: 1,
            paired: 1,
            approvals: 2,
            waiting: vec!["a1 of cli for operator.read".to_owned()],
            refused: vec!["b2 of other for operator.admin".to_owned()],
        }),
    }
}

fn place() -> (TempDir, PathBuf) {
    let place = tempfile::tempdir().unwrap();
    let socket = place.path().join("run/gateway.sock");
    (place, socket)
}

/// Does something while the gateway answers at the socket.
async fn during<T>(socket: &Socket, gateway: Gateway, work: impl Future<Output = T>) -> T {
    tokio::select! {
        never = socket.serve(gateway) => match never {},
        done = work => done,
    }
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o7777
}

/// One call in our own bytes: the status line's code, and the body.
async fn raw(path: &Path, head: &str) -> (String, Value) {
    let mut stream = UnixStream::connect(path).await.unwrap();
    stream
        .write_all(format!("{head} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().to_owned();
    (status, serde_json::from_str(body).unwrap())
}

#[tokio::test]
async fn status_and_reload_are_answered() {
    let (_place, path) = place();
    let socket = Socket::bind(&path).unwrap();
    let gateway = Gateway::default();
    let client = Client::at(&path);
    during(&socket, gateway.clone(), async {
        assert_eq!(client.status().await.unwrap(), gateway.status());
        let reload = client.reload().await.unwrap();
        assert_eq!((reload.result, reload.generation), (Outcome::Taken, 2));
        assert_eq!(client.status().await.unwrap().generation, 2);
    })
    .await;
}

fn provider(name: &str) -> StoredProvider {
    let key = ("KEY".parse().unwrap(), "file:/run/key".parse().unwrap());
    StoredProvider {
        name: name.parse().unwrap(),
        kind: "generic".to_owned(),
        base_url: Some("https://llm.test/v1".to_owned()),
        keys: BTreeMap::from([key]),
        added_unix_ms: 0,
        changed_unix_ms: 0,
    }
}

#[tokio::test]
async fn changes_of_providers_arrive_as_they_were_asked_for() {
    let (_place, path) = place();
    let socket = Socket::bind(&path).unwrap();
    let gateway = Gateway::default();
    let client = Client::at(&path);
    let changes = [
        Change::Add(provider("mine")),
        Change::Replace(provider("mine")),
        Change::Remove("mine".parse().unwrap()),
    ];
    during(&socket, gateway.clone(), async {
        for change in &changes {
            let reload = client.change(change).await.unwrap();
            assert_eq!(reload.result, Outcome::Taken);
        }
        assert_eq!(*gateway.changes.lock().unwrap(), changes);
        assert_eq!(
            client.providers().await.unwrap().providers[0].name,
            "openai"
        );
        match client
            .change(&Change::Remove("declared".parse().unwrap()))
            .await
        {
            Err(CallError::Refused { code, message }) => {
                assert_eq!(code, Code::Declared);
                assert!(message.contains("farrier.toml:3"), "{message}");
            }
            other => panic!("expected a refusal, got {other:?}"),
        }
        let (status, refusal) = raw(&path, "PUT /v1/providers/mine").await;
        assert_eq!(status, "400", "{refusal}");
        assert_eq!(raw(&path, "DELETE /v1/providers/No").await.0, "400");
    })
    .await;
}

#[tokio::test]
async fn a_refused_configuration_is_an_answer_with_its_mistakes() {
    let (_place, path) = place();
    let socket = Socket::bind(&path).unwrap();
    let gateway = Gateway {
        broken: true,
        ..Gateway::default()
    };
    during(&socket, gateway, async {
        let reload = Client::at(&path).reload().await.unwrap();
        assert_eq!((reload.result, reload.generation), (Outcome::Refused, 1));
        assert_eq!(reload.mistakes[0].line, Some(3));
        assert_eq!(raw(&path, "POST /v1/reload").await.0, "422");
    })
    .await;
}

#[tokio::test]
async fn a_draining_gateway_says_that_it_will_not() {
    let (_place, path) = place();
    let socket = Socket::bind(&path).unwrap();
    let gateway = Gateway {
        draining: true,
        ..Gateway::default()
    };
    during(&socket, gateway, async {
        match Client::at(&path).reload().await {
            Err(CallError::Refused { code, message }) => {
                assert_eq!(code, Code::Draining);
                assert!(message.contains("draining"), "{message}");
            }
            other => panic!("expected a refusal, got {other:?}"),
        }
        assert_eq!(raw(&path, "POST /v1/reload").await.0, "409");
    })
    .await;
}

#[tokio::test]
async fn the_document_is_served_and_other_paths_and_methods_say_what_there_is() {
    let (_place, path) = place();
    let socket = Socket::bind(&path).unwrap();
    during(&socket, Gateway::default(), async {
        let (status, document) = raw(&path, "GET /openapi.json").await;
        assert_eq!(status, "200");
        assert_eq!(document, serde_json::from_str::<Value>(OPENAPI).unwrap());

        let (status, refusal) = raw(&path, "GET /v1/secrets").await;
        assert_eq!(
            (status.as_str(), &refusal["error"]["code"]),
            ("404", &"not_found".into())
        );
        let message = refusal["error"]["message"].as_str().unwrap();
        assert!(message.contains("/v1/status"), "{message}");

        let (status, refusal) = raw(&path, "GET /v1/reload").await;
        assert_eq!(status, "405");
        assert_eq!(
            refusal["error"]["message"],
            "expected POST /v1/reload, got GET"
        );
    })
    .await;
}

#[tokio::test]
async fn callers_beyond_the_most_wait_for_their_turn() {
    let (_place, path) = place();
    let socket = Socket::bind(&path).unwrap();
    during(&socket, Gateway::default(), async {
        let mut silent = Vec::new();
        for _ in 0..16 {
            silent.push(UnixStream::connect(&path).await.unwrap());
        }
        // Connected by the system, not accepted by us, until one of those gives up its place.
        let client = Client::at(&path);
        let mut waiting = std::pin::pin!(client.status());
        let mut stream = silent.pop().unwrap();
        stream
            .write_all(b"GET /v1/status HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        let mut first = [0; 12];
        tokio::select! {
            biased;
            _early = &mut waiting => panic!("a caller did not wait"),
            read = stream.read_exact(&mut first) => drop(read.unwrap()),
        }
        assert_eq!(&first, b"HTTP/1.1 200");
        drop((stream, silent));
        assert_eq!(waiting.await.unwrap().pid, 42);
    })
    .await;
}

#[tokio::test]
async fn directory_and_socket_are_its_owners_alone() {
    let (_place, path) = place();
    let socket = Socket::bind(&path).unwrap();
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    assert_eq!(mode(socket.path()), 0o600);
}

#[tokio::test]
async fn a_directory_that_others_write_to_is_refused() {
    let (place, _) = place();
    let open = place.path().join("open");
    std::fs::create_dir(&open).unwrap();
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).unwrap();
    let refused = Socket::bind(&open.join("gateway.sock")).unwrap_err();
    assert_eq!(
        refused.to_string(),
        format!(
            "expected a directory that only its owner can write to, got mode 0777 (chmod 700 {})",
            open.display()
        )
    );
}

#[tokio::test]
async fn the_socket_of_a_live_process_is_left_to_it() {
    let (_place, path) = place();
    let live = Socket::bind(&path).unwrap();
    let refused = Socket::bind(&path).unwrap_err();
    assert_eq!(
        refused.to_string(),
        format!(
            "a running gateway has the control socket {}",
            path.display()
        )
    );
    during(&live, Gateway::default(), async {
        assert_eq!(Client::at(&path).status().await.unwrap().pid, 42);
    })
    .await;
}

/// What is left when a process is killed: the file, and no lock.
#[tokio::test]
async fn the_socket_of_a_dead_process_is_replaced() {
    let (_place, path) = place();
    drop(Socket::bind(&path).unwrap());
    assert!(path.exists());
    match Client::at(&path).status().await {
        Err(CallError::NoGateway { .. }) => {}
        other => panic!("expected no gateway, got {other:?}"),
    }
    let socket = Socket::bind(&path).unwrap();
    during(&socket, Gateway::default(), async {
        assert_eq!(Client::at(&path).status().await.unwrap().pid, 42);
    })
    .await;
}

#[tokio::test]
async fn a_file_that_is_no_socket_is_not_taken_away() {
    let (_place, path) = place();
    std::fs::create_dir(path.parent().unwrap()).unwrap();
    std::fs::write(&path, "precious").unwrap();
    assert!(matches!(
        Socket::bind(&path),
        Err(BindError::NotASocket { .. })
    ));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

#[tokio::test]
async fn a_path_that_no_socket_can_have_says_how_long_it_may_be() {
    let (place, _) = place();
    let path = place.path().join("x".repeat(120));
    let refused = Socket::bind(&path).unwrap_err().to_string();
    assert!(
        refused.starts_with("expected a path of at most 107 bytes for a socket, got "),
        "{refused}"
    );
}

#[tokio::test]
async fn nothing_is_left_of_a_socket_that_was_closed() {
    let (_place, path) = place();
    Socket::bind(&path).unwrap().close().unwrap();
    assert!(!path.exists());
    match Client::at(&path).reload().await {
        Err(error @ CallError::NoGateway { .. }) => assert_eq!(
            error.to_string(),
            format!("expected a running gateway at {}, got none", path.display())
        ),
        other => panic!("expected no gateway, got {other:?}"),
    }
}

#[tokio::test]
async fn an_answer_of_something_else_is_told_apart() {
    let (_place, path) = place();
    std::fs::create_dir(path.parent().unwrap()).unwrap();
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let client = Client::at(&path);
    let other = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut seen = [0; 1024];
        assert!(stream.read(&mut seen).await.unwrap() > 0);
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
            .await
            .unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        drop(stream);
    };
    let ours = async {
        assert!(matches!(
            client.status().await,
            Err(CallError::NotUnderstood { .. })
        ));
        assert!(matches!(
            client.status().await,
            Err(CallError::Broken { .. })
        ));
    };
    tokio::join!(other, ours);
}

#[tokio::test]
async fn sandboxes_are_made_changed_started_stopped_and_destroyed() {
    let (_place, path) = place();
    let socket = Socket::bind(&path).unwrap();
    let gateway = Gateway::default();
    let client = Client::at(&path);
    let name: SandboxName = "work".parse().unwrap();
    let new = NewSandbox {
        name: name.clone(),
        spec: spec(),
        start: true,
    };
    let change = SandboxChange {
        attach: vec!["slack".parse().unwrap()],
        ..SandboxChange::default()
    };
    during(&socket, gateway.clone(), async {
        let running = doing("work", SandboxState::Running);
        assert_eq!(
            client.sandboxes().await.unwrap().sandboxes,
            std::slice::from_ref(&running)
        );
        assert_eq!(client.create_sandbox(&new).await.unwrap(), running);
        assert_eq!(
            client.change_sandbox(&name, &change).await.unwrap(),
            running
        );
        assert_eq!(client.start_sandbox(&name).await.unwrap(), running);
        let stopped = client.stop_sandbox(&name).await.unwrap();
        assert_eq!(stopped.state, SandboxState::Stopped);
        assert_eq!(client.sandbox(&name).await.unwrap(), running);
        assert_eq!(client.destroy_sandbox(&name).await.unwrap(), running);
        let missing = client.sandbox(&"missing".parse().unwrap()).await;
        assert!(
            matches!(
                missing,
                Err(CallError::Refused {
                    code: Code::Unknown,
                    ..
                })
            ),
            "{missing:?}"
        );
    })
    .await;
    let expected = [
        SandboxAct::Create(Box::new(new)),
        SandboxAct::Change(name.clone(), change),
        SandboxAct::Start(name.clone()),
        SandboxAct::Stop(name.clone()),
        SandboxAct::Look(name.clone()),
        SandboxAct::Destroy(name),
    ];
    assert_eq!(*gateway.acts.lock().unwrap(), expected);
}

#[tokio::test]
async fn a_call_becomes_a_conversation_that_outlives_the_calls_after_it() {
    let (_place, path) = place();
    let socket = Socket::bind(&path).unwrap();
    let client = Client::at(&path);
    let name: SandboxName = "work".parse().unwrap();
    let exec = ExecRequest {
        command: vec!["cat".to_owned(), "-".to_owned()],
        ..ExecRequest::default()
    };
    during(&socket, Gateway::default(), async {
        let mut talk = client.exec(&name, &exec).await.unwrap();
        let first = read_outward(&mut talk).await.unwrap();
        assert_eq!(first, Some(Outward::Output(Bytes::from_static(b"cat -"))));
        // More calls than are answered at once: a conversation takes none of their places.
        let mut others = Vec::new();
        for _ in 0..20 {
            others.push(client.exec(&name, &exec).await.unwrap());
        }
        assert!(client.status().await.is_ok());
        let long = Bytes::from(vec![b'x'; 200_000]);
        let said = Inward::Input(long.clone());
        let (mut reading, mut writing) = tokio::io::split(talk);
        let say = async {
            write_inward(&mut writing, &said).await.unwrap();
            write_inward(&mut writing, &Inward::InputEnd).await.unwrap();
        };
        let hear = async {
            let mut heard = Vec::new();
            loop {
                match read_outward(&mut reading).await.unwrap().unwrap() {
                    Outward::Errors(bytes) => heard.extend(bytes),
                    other => break (heard, other),
                }
            }
        };
        let ((), (heard, end)) = tokio::join!(say, hear);
        assert_eq!(
            (heard, end),
            (long.to_vec(), Outward::Ended(Ended::Exited(7)))
        );
        assert_eq!(read_outward(&mut reading).await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn a_conversation_that_cannot_be_had_is_refused_as_a_call() {
    let (_place, path) = place();
    let socket = Socket::bind(&path).unwrap();
    let client = Client::at(&path);
    during(&socket, Gateway::default(), async {
        let refused = client
            .exec(&"missing".parse().unwrap(), &ExecRequest::default())
            .await
            .map(drop);
        assert!(
            matches!(
                refused,
                Err(CallError::Refused {
                    code: Code::NotRunning,
                    ..
                })
            ),
            "{refused:?}"
        );
        let (status, body) = raw(&path, "POST /v1/sandboxes/work/exec").await;
        assert_eq!(status, "400");
        assert_eq!(body["error"]["code"], "not_understood");
        let (status, _) = raw(&path, "GET /v1/sandboxes/..%2f..").await;
        assert_eq!(status, "400");
        let (status, _) = raw(&path, "GET /v1/sandboxes/a/b").await;
        assert_eq!(status, "404");
    })
    .await;
}
