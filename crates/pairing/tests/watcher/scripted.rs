//! A harness that does as it is told: a runner over scripted devices, and what was asked of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::OsString;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use farrier_pairing::{
    Ended, Happening, Harness, Invocation, Observer, Output, Pace, Pairing, Policy, RunError,
    Runner, StateDir, TIMED_OUT, Watcher,
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

/// How a call goes.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// Exits with a code and says something.
    Fails(i32, String),
    /// Never ends by itself.
    Hangs,
    /// Prints something.
    Prints(String),
    /// As the devices are.
    True,
}

/// Devices, and how the next calls go. Clones are of the same devices.
#[derive(Clone)]
pub(crate) struct Scripted(Arc<Mutex<Inner>>);

pub(crate) struct Inner {
    pub(crate) pending: BTreeMap<String, Value>,
    pub(crate) paired: Vec<Value>,
    /// How the next lists go; afterwards `list`.
    pub(crate) lists: VecDeque<Answer>,
    pub(crate) list: Answer,
    /// How the next approvals go; afterwards `approve`.
    pub(crate) approves: VecDeque<Answer>,
    pub(crate) approve: Answer,
    pub(crate) failing: BTreeSet<String>,
    pub(crate) approved: Vec<(Duration, String)>,
    pub(crate) calls: Vec<(Duration, Invocation)>,
    began: Option<Instant>,
}

impl Scripted {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Inner {
            pending: BTreeMap::new(),
            paired: Vec::new(),
            lists: VecDeque::new(),
            list: Answer::True,
            approves: VecDeque::new(),
            approve: Answer::True,
            failing: BTreeSet::new(),
            approved: Vec::new(),
            calls: Vec::new(),
            began: None,
        })))
    }

    pub(crate) fn now(&self) -> MutexGuard<'_, Inner> {
        let mut inner = self.0.lock().unwrap();
        inner.began.get_or_insert_with(Instant::now);
        inner
    }

    /// A device that asks for scopes.
    pub(crate) fn asks(&self, id: &str, client: &str, mode: &str, scopes: &[&str]) {
        let request = request(id, client, mode, scopes);
        self.now().pending.insert(id.to_owned(), request);
    }

    pub(crate) fn has_paired(&self, client: &str, mode: &str) {
        let device = json!({"deviceId": client, "clientId": client, "clientMode": mode});
        self.now().paired.push(device);
    }

    /// Times of the calls whose arguments begin with these.
    pub(crate) fn calls(&self, arguments: &[&str]) -> Vec<Duration> {
        let inner = self.now();
        let called = |invocation: &Invocation| {
            let given = invocation.argv[1..]
                .iter()
                .map(|argument| argument.to_str().unwrap());
            given.take(arguments.len()).eq(arguments.iter().copied())
        };
        let calls = inner
            .calls
            .iter()
            .filter(|(_, invocation)| called(invocation));
        calls.map(|(at, _)| *at).collect()
    }

    pub(crate) fn lists(&self) -> usize {
        self.calls(&["devices", "list"]).len()
    }

    pub(crate) fn approves(&self, id: &str) -> usize {
        self.calls(&["devices", "approve", id]).len()
    }

    pub(crate) fn approved(&self) -> Vec<String> {
        self.now()
            .approved
            .iter()
            .map(|(_, id)| id.clone())
            .collect()
    }

    /// What this call comes to, if it ends.
    fn answer(&self, invocation: &Invocation) -> Option<Output> {
        let mut inner = self.now();
        let at = inner.began.unwrap().elapsed();
        inner.calls.push((at, invocation.clone()));
        let arguments: Vec<_> = invocation.argv[1..]
            .iter()
            .map(|argument| argument.to_str().unwrap().to_owned())
            .collect();
        let (answer, truth) = match &arguments[..] {
            [devices, list, json] if devices == "devices" && list == "list" && json == "--json" => {
                let answer = inner
                    .lists
                    .pop_front()
                    .unwrap_or_else(|| inner.list.clone());
                (answer, printed(&inner.listing().to_string()))
            }
            [devices, approve, id, _] if devices == "devices" && approve == "approve" => {
                let failing = inner.failing.contains(id);
                let answer = inner
                    .approves
                    .pop_front()
                    .unwrap_or_else(|| inner.approve.clone());
                let answer = if failing {
                    Answer::Fails(1, "no".to_owned())
                } else {
                    answer
                };
                let truth = match answer {
                    Answer::True => inner.approves_now(at, id),
                    _ => Output::default(),
                };
                (answer, truth)
            }
            other => panic!("nobody should ask {other:?}"),
        };
        match answer {
            Answer::True => Some(truth),
            Answer::Prints(text) => Some(printed(&text)),
            Answer::Fails(code, said) => Some(Output {
                code,
                stdout: Vec::new(),
                stderr: said.into_bytes(),
            }),
            Answer::Hangs => None,
        }
    }
}

impl Inner {
    pub(crate) fn listing(&self) -> Value {
        json!({"pending": self.pending.values().collect::<Vec<_>>(), "paired": self.paired})
    }

    fn approves_now(&mut self, at: Duration, id: &str) -> Output {
        let Some(request) = self.pending.remove(id) else {
            return Output {
                code: 1,
                stdout: Vec::new(),
                stderr: b"unknown requestId".to_vec(),
            };
        };
        self.approved.push((at, id.to_owned()));
        if !self
            .paired
            .iter()
            .any(|device| device["deviceId"] == request["deviceId"])
        {
            self.paired.push(request.clone());
        }
        printed(&json!({"requestId": id, "device": request}).to_string())
    }
}

impl Runner for Scripted {
    async fn run(&self, invocation: Invocation) -> Result<Output, RunError> {
        if let Some(output) = self.answer(&invocation) {
            return Ok(output);
        }
        sleep(invocation.timeout).await;
        Ok(Output {
            code: TIMED_OUT,
            ..Output::default()
        })
    }
}

fn printed(text: &str) -> Output {
    Output {
        code: 0,
        stdout: text.as_bytes().to_vec(),
        stderr: Vec::new(),
    }
}

pub(crate) fn request(id: &str, client: &str, mode: &str, scopes: &[&str]) -> Value {
    json!({
        "requestId": id,
        "deviceId": format!("device-{client}"),
        "clientId": client,
        "clientMode": mode,
        "role": "operator",
        "roles": ["operator"],
        "scopes": scopes,
        "silent": false,
    })
}

/// What a watcher said, each line with its time, and how pairing stood last.
#[derive(Clone, Default)]
pub(crate) struct Heard(Arc<Mutex<(Vec<String>, Option<Pairing>)>>);

impl Heard {
    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().0.clone()
    }

    pub(crate) fn count(&self, part: &str) -> usize {
        self.lines()
            .iter()
            .filter(|line| line.contains(part))
            .count()
    }

    pub(crate) fn pairing(&self) -> Pairing {
        self.0.lock().unwrap().1.clone().unwrap()
    }
}

impl Observer for Heard {
    fn happened(&mut self, happening: &Happening) {
        self.0.lock().unwrap().0.push(happening.to_string());
    }

    fn stands(&mut self, pairing: &Pairing) {
        self.0.lock().unwrap().1 = Some(pairing.clone());
    }
}

/// A watcher over scripted devices, that can be left alone for a while.
pub(crate) struct Scene {
    pub(crate) devices: Scripted,
    pub(crate) heard: Heard,
    pub(crate) running: tokio::task::JoinHandle<Ended>,
    began: Instant,
}

impl Scene {
    pub(crate) fn begin(devices: &Scripted, pace: Pace) -> Self {
        Self::over(devices, pace, harness(None))
    }

    pub(crate) fn over(devices: &Scripted, pace: Pace, harness: Harness) -> Self {
        let heard = Heard::default();
        let watcher = Watcher {
            harness,
            runner: devices.clone(),
            pace,
            policy: Policy::default(),
            now_ms: || 0,
        };
        let observer = heard.clone();
        drop(devices.now());
        #[expect(
            clippy::disallowed_methods,
            reason = "the test awaits it or drops its runtime"
        )]
        let running =
            tokio::spawn(async move { watcher.run(observer, std::future::pending()).await });
        Self {
            devices: devices.clone(),
            heard,
            running,
            began: Instant::now(),
        }
    }

    /// Lets time pass until then, since the beginning; a moment more, so that what is due then is done.
    pub(crate) async fn until(&self, seconds: f64) {
        let at = self.began + Duration::from_secs_f64(seconds) + Duration::from_millis(1);
        tokio::time::sleep_until(at).await;
    }

    pub(crate) async fn ended(self) -> (Ended, Duration) {
        let ended = self.running.await.unwrap();
        (ended, self.began.elapsed())
    }
}

pub(crate) fn harness(state: Option<StateDir>) -> Harness {
    Harness {
        command: vec!["openclaw".into()],
        env: [
            ("HOME", "/home/agent"),
            ("OPENCLAW_GATEWAY_URL", "ws://127.0.0.1:1"),
            ("OPENCLAW_GATEWAY_PORT", "1"),
            ("OPENCLAW_GATEWAY_TOKEN", "canary-token"),
        ]
        .map(|(name, value)| (OsString::from(name), OsString::from(value)))
        .into(),
        state,
        version: None,
    }
}

pub(crate) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
