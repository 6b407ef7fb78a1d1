//! A running gateway, and what its peers say.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use farrier_compat::registry::Registry;
use farrier_gateway::config::{Config, Provider, Route};
use farrier_gateway::{Drained, Entrance, Gateway, Reloader};
use farrier_ledger::{Embedded, EmbeddedConfig};
use farrier_serve::Tracker;
use farrier_testkit::{RawClient, ScriptedUpstream};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// A gateway that answers until it is drained or dropped.
pub(crate) struct Running {
    pub(crate) addr: SocketAddr,
    pub(crate) reloader: Reloader,
    pub(crate) entrance: Entrance,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<Option<Drained>>,
    _tasks: Tracker,
    /// The ledger's folder, if nobody else keeps it.
    _dir: Option<TempDir>,
}

/// A configuration and the folder its ledger lives in.
pub(crate) struct Setup {
    pub(crate) config: Config,
    pub(crate) dir: TempDir,
}

/// Everything that was logged.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

/// A model that no manifest matches, so that its plan is empty.
pub(crate) const PLAIN: &str = "plain";
/// A model whose plan reads and records every reply.
pub(crate) const KIMI: &str = "moonshotai/kimi-k2.6";

impl Setup {
    /// Both models on one provider.
    pub(crate) fn with(provider: Provider) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ledger =
            Embedded::open(EmbeddedConfig::new(dir.path().join("ledger/turns.db"))).unwrap();
        let mut config = Config::new(Arc::new(Registry::shipped().unwrap()), Arc::new(ledger));
        let route = |model: &str, upstream_model: Option<&str>| Route {
            upstream_model: upstream_model.map(str::to_owned),
            ..Route::new(model, &provider.name)
        };
        config.routes = vec![route(PLAIN, None), route(KIMI, Some("kimi-k2.6"))];
        config.providers.push(provider);
        Self { config, dir }
    }

    /// Both models on a scripted provider.
    pub(crate) fn on(upstream: &ScriptedUpstream) -> Self {
        Self::with(Provider::new("scripted", upstream.base_url()))
    }

    pub(crate) async fn run(self) -> Running {
        let mut running = Running::start(self.config).await;
        running._dir = Some(self.dir);
        running
    }
}

impl Running {
    pub(crate) async fn start(config: Config) -> Self {
        let bound = Gateway::bind(config).await.unwrap();
        let (addr, reloader, entrance) = (bound.addr(), bound.reloader(), bound.entrance());
        let (stop, stopped) = oneshot::channel();
        let tasks = Tracker::new();
        let ended = tasks.spawn(bound.run(async { drop(stopped.await) }));
        Self {
            addr,
            reloader,
            entrance,
            stop,
            ended,
            _tasks: tasks,
            _dir: None,
        }
    }

    pub(crate) async fn client(&self) -> RawClient {
        RawClient::connect(self.addr).await
    }

    /// Tells it to stop, and waits until it has.
    pub(crate) async fn drain(self) -> Drained {
        drop(self.stop);
        timeout(Duration::from_secs(10), self.ended)
            .await
            .expect("the drain ends")
            .unwrap()
            .unwrap()
    }

    /// The metrics page.
    pub(crate) async fn metrics(&self) -> String {
        let mut client = self.client().await;
        client.get("/metrics").await;
        client.response().await.text()
    }
}

impl Log {
    /// Collects what this thread logs until the guard is dropped.
    pub(crate) fn collect(
        &self,
        level: tracing_subscriber::filter::LevelFilter,
    ) -> tracing::subscriber::DefaultGuard {
        let log = self.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_max_level(level)
            .with_writer(move || log.clone())
            .finish();
        tracing::subscriber::set_default(subscriber)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }

    /// The one line that records a request.
    pub(crate) fn record(&self) -> String {
        let text = self.text();
        let lines: Vec<&str> = text
            .lines()
            .filter(|line| line.contains("farrier::request"))
            .collect();
        assert_eq!(lines.len(), 1, "{text}");
        lines[0].to_owned()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A chat completion request for `model`.
pub(crate) fn ask(model: &str) -> String {
    format!(r#"{{"model":"{model}","messages":[{{"role":"user","content":"hi"}}]}}"#)
}

/// One event of a stream.
pub(crate) fn event(delta: &str, finish: Option<&str>) -> String {
    let finish = finish.map_or_else(|| "null".to_owned(), |reason| format!("\"{reason}\""));
    format!(
        "data: {{\"choices\":[{{\"index\":0,\"delta\":{delta},\"finish_reason\":{finish}}}]}}\n\n"
    )
}

/// A call of `exec`, as it stands in a delta.
pub(crate) fn call(id: &str) -> String {
    format!(
        r#"{{"tool_calls":[{{"index":0,"id":"{id}","type":"function","function":{{"name":"exec","arguments":"{{}}"}}}}]}}"#
    )
}

/// The whole of `what` happens within a second.
pub(crate) async fn within_a_second<T>(what: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(1), what)
        .await
        .expect("happens within a second")
}

/// Our error body, with the given type, param and code; message apart.
pub(crate) fn error(text: &str) -> (String, String, String) {
    let body: serde_json::Value =
        serde_json::from_str(text).unwrap_or_else(|_| panic!("not JSON: {text}"));
    let field = |name: &str| {
        body["error"][name]
            .as_str()
            .unwrap_or_else(|| panic!("no {name} in {text}"))
            .to_owned()
    };
    (field("type"), field("code"), field("message"))
}
