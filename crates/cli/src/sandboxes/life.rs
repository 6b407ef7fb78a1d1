//! A sandbox that runs: its first process, what answers it, and what is kept running in it.
//!
//! ```text
//! launch ─▶ sockets from within ─▶ proxy ─▶ inference.local: the gateway
//!    │                               └────▶ elsewhere: by its policy
//!    └────▶ service, commands, sessions
//! ```

use std::net;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use farrier_control::{SandboxName, SandboxSpec};
use farrier_egress::{Config, Inside, Limits, LocalServices, Proxy, Reloader, Rules, Shared};
use farrier_gateway::{Entrance, Resident};
use farrier_harness::Task;
use farrier_sandbox::{Launcher, ListenAddress, Sandbox};
use farrier_serve::Tracker;
use tokio::time::timeout;
use tracing::debug;

use super::furnish::{self, Furniture, HOME, SERVICE_PORT};
use super::pairing::Stands;
use super::place::{Ground, Place};
use super::ready::Ready;
use super::service::Service;
use super::session::Sessions;

/// A sandbox that runs.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) sandbox: Sandbox,
    pub(crate) service: Service,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) pairing: Stands,
    /// Who it is to the gateway.
    resident: Arc<Resident>,
    rules: Reloader,
    /// Its proxy, its service and its sessions.
    tasks: Tracker,
}

/// What a sandbox is started with.
#[derive(Debug)]
pub(crate) struct Start<'a> {
    pub(crate) name: &'a SandboxName,
    pub(crate) spec: &'a SandboxSpec,
    pub(crate) ready: Ready,
    pub(crate) ground: &'a Ground,
    pub(crate) place: &'a Place,
}

/// Why a sandbox does not run. Nothing of it runs then.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("the sandbox cannot be started")]
    Launch(#[from] farrier_sandbox::LaunchError),
    #[error("the sandbox cannot be answered")]
    Proxy(#[from] farrier_egress::StartError),
    #[error("the sandbox cannot be answered: inference.local is no name")]
    Name,
}

/// For what runs in a sandbox to end by itself.
const GRACE: Duration = Duration::from_secs(5);
/// For the last bytes of its connections.
const FLUSH: Duration = Duration::from_secs(2);
const SIGTERM: i32 = 15;
/// Where a sandbox's harness finds its model.
const MODELS: &str = "inference.local";

impl Running {
    /// Starts a sandbox; its service is started by [`serve`](Self::serve).
    pub(crate) async fn start(
        start: &Start<'_>,
        (launcher, entrance): (&Launcher, &Entrance),
        shared: Shared,
    ) -> Result<Arc<Self>, StartError> {
        let Start {
            name,
            spec,
            ready,
            ground,
            place,
        } = start;
        let whose = (*name, *spec);
        let ports = ready.policy.ports();
        let policy = furnish::policy(whose, &ready.furniture, (ground, place), &ports);
        let sandbox = launcher.launch(&policy).await?;
        let agent = ready.furniture.installed.as_ref();
        let agent = agent.and_then(|installed| installed.harness.agent());
        let resident = Arc::new(Resident::new(name.as_str(), agent, &spec.route));
        let local = {
            let (entrance, resident) = (entrance.clone(), Arc::clone(&resident));
            LocalServices::new().with(MODELS, move |stream| {
                let (entrance, resident) = (entrance.clone(), Arc::clone(&resident));
                async move { entrance.serve(stream, resident).await }
            })
        };
        let inside = wired(
            sandbox.take_listeners(),
            local.map_err(|_never| StartError::Name)?,
        );
        let config = Config {
            sandbox: name.to_string(),
            listen: Vec::new(),
            limits: Limits::default(),
            rules: Rules {
                policy: Arc::clone(&ready.policy),
                providers: spec.providers.clone(),
            },
        };
        let proxy = Proxy::over(inside, config, shared).await?;
        let (rules, tasks) = (proxy.reloader(), Tracker::new());
        let ends = tasks.clone();
        drop(tasks.spawn(async move { proxy.run(async move { ends.draining().await }).await }));
        Ok(Arc::new(Self {
            sandbox,
            service: Service::default(),
            sessions: Arc::default(),
            pairing: Stands::default(),
            resident,
            rules,
            tasks,
        }))
    }

    /// Keeps running what is to be kept running, if anything is.
    pub(crate) fn serve(self: &Arc<Self>, start: &Start<'_>) {
        let Some(argv) = service(start.spec, &start.ready.furniture) else {
            return;
        };
        let (running, name) = (Arc::clone(self), start.name.to_string());
        let log = start.place.log();
        drop(self.tasks.spawn(async move {
            let Self {
                service,
                sandbox,
                tasks,
                ..
            } = &*running;
            service.keep((&name, sandbox), &argv, (log, tasks)).await;
        }));
    }

    /// Runs something as long as the sandbox does.
    pub(crate) fn look_after(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(self.tasks.spawn(task));
    }

    /// Resolves when it is to end, or has.
    pub(crate) async fn ends(&self) {
        tokio::select! {
            () = self.tasks.draining() => {}
            () = self.sandbox.wait() => {}
        }
    }

    /// Has it go by other rules, and another route, from now on.
    pub(crate) fn change(&self, spec: &SandboxSpec, rules: Rules) {
        self.resident.switch(&spec.route);
        let _still_runs = self.rules.replace(rules);
    }

    /// Ends it: what runs in it may end by itself first.
    pub(crate) async fn end(&self) {
        self.tasks.drain();
        let own = async {
            if self.sandbox.signal_all(SIGTERM).await.is_ok() {
                self.service.stopped().await;
            }
        };
        if timeout(GRACE, own).await.is_err() {
            debug!("what ran in the sandbox did not end by itself");
        }
        self.sandbox.kill().await;
        if self.tasks.idle(FLUSH).await > 0 {
            self.tasks.cut();
        }
    }

    /// What is told of the first process.
    pub(crate) fn limits(&self) -> Vec<String> {
        let limits = self.sandbox.limits_in_force();
        let told = [
            ("memory", &limits.memory),
            ("processes", &limits.processes),
            ("processor", &limits.cpu),
        ];
        told.into_iter()
            .filter_map(|(what, limit)| match limit {
                farrier_sandbox::Limit::InForce { by, most } => {
                    Some(format!("{what}: at most {most} (by {by})"))
                }
                farrier_sandbox::Limit::NotInForce { reason } => {
                    Some(format!("{what}: not bounded: {reason}"))
                }
                farrier_sandbox::Limit::None => None,
            })
            .collect()
    }
}

/// The sockets that were bound inside, by what comes to them.
fn wired(listeners: Vec<(String, ListenAddress, OwnedFd)>, local: LocalServices) -> Inside {
    let mut inside = Inside {
        local,
        ..Inside::default()
    };
    for (name, _, socket) in listeners {
        match name.as_str() {
            "dns" => inside.dns.push(net::UdpSocket::from(socket)),
            "dns-tcp" => inside.dns_tcp.push(net::TcpListener::from(socket)),
            "explicit" => inside.explicit.push(net::TcpListener::from(socket)),
            _ => inside.captured.push(net::TcpListener::from(socket)),
        }
    }
    inside
}

/// What is kept running: what was asked for, else the harness's own gateway.
fn service(spec: &SandboxSpec, furniture: &Furniture) -> Option<Vec<String>> {
    if !spec.serve {
        return None;
    }
    if !spec.command.is_empty() {
        return Some(spec.command.clone());
    }
    let place = farrier_harness::Place {
        home: std::path::Path::new(HOME),
        ca_file: None,
        proxy: None,
    };
    let task = Task::Serve { port: SERVICE_PORT };
    let installed = furniture.installed.as_ref()?;
    let start = installed.launch(&task, &place)?;
    let program = furnish::inside(installed, &start.program);
    let program = program.to_string_lossy().into_owned();
    Some(std::iter::once(program).chain(start.arguments).collect())
}
