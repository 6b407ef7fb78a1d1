//! The sandboxes of this user: made, started, looked after and removed by the gateway that runs.
//!
//! ```text
//! farrier sandbox, run ──control socket──▶ Sandboxes ──▶ state store      what there is to be
//!                                              ├──────▶ ready ▸ furnish  whether it can be, and of what
//!                                              └──────▶ life             what there is
//! ```
//!
//! Invariants:
//! * One process looks after them: whoever holds the lock beside the state store. Another gateway of the same user says so.
//! * What is done about one sandbox is done in turn, and to its end, whatever becomes of whoever asked.
//! * A sandbox that cannot think is not started, and one that could not be started leaves nothing behind.
//! * Sandboxes end with this process. Those that are to run are started again with the next.

mod furnish;
mod life;
mod pairing;
mod place;
mod ready;
mod service;
mod session;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use farrier_control::store::{SandboxError, Store, StoreError, StoredSandbox};
use farrier_control::talk::ExecRequest;
use farrier_control::{
    Code, Conversation, NewSandbox, SandboxAct, SandboxChange, SandboxName, SandboxSpec,
    SandboxState, SandboxStatus, Sandboxes as AllStatus, Unable,
};
use farrier_egress::{Rules, Trust};
use farrier_gateway::Entrance;
use farrier_ledger::{Clock as _, SystemClock};
use farrier_sandbox::{Launcher, LauncherCommand};
use farrier_secrets::ProviderName;
use farrier_serve::Tracker;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use crate::config::{self, Environment, with_causes};
use crate::reloading::Origin;
pub(crate) use furnish::{HOME, WORKSPACE, mounted};
use place::{Ground, Place};

use life::{Running, Start};
use ready::Missing;

/// The sandboxes that this process looks after, if it does.
#[derive(Clone, Debug)]
pub(crate) struct Sandboxes(Result<Arc<Shop>, Arc<str>>);

#[derive(Debug)]
struct Shop {
    origin: Origin,
    ground: Ground,
    launcher: Launcher,
    entrance: Entrance,
    rooms: Mutex<BTreeMap<SandboxName, Arc<Room>>>,
    /// What is done about sandboxes.
    acts: Tracker,
    /// The lock of where sandboxes are, once what they believe is written there.
    trusted: Arc<Mutex<Option<File>>>,
    /// Held as long as this process looks after them.
    _lock: File,
}

/// One sandbox.
#[derive(Debug)]
struct Room {
    name: SandboxName,
    slot: u32,
    created_unix_ms: u64,
    /// Held while something is done about it.
    turn: tokio::sync::Mutex<()>,
    now: Mutex<Now>,
}

/// How it is.
#[derive(Debug)]
struct Now {
    spec: SandboxSpec,
    state: SandboxState,
    since_unix_ms: u64,
    reason: Option<String>,
    running: Option<Arc<Running>>,
    /// Whether it was destroyed.
    gone: bool,
}

/// Held by whoever does something about a sandbox, for as long as that takes.
type Turn<'r> = tokio::sync::MutexGuard<'r, ()>;
type Watching = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Between a sandbox's own end and its next start.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// A sandbox that ran for so long is started again at once.
const SETTLED: Duration = Duration::from_secs(60);
/// For everything that is done to end, at the end of this process.
const CLOSING: Duration = Duration::from_secs(15);

impl Sandboxes {
    /// Takes them over, if no other process looks after them. Nothing is started yet. Why it does not is told to whoever
    /// asks for a sandbox.
    pub(crate) fn open(origin: &Origin, entrance: Entrance) -> Self {
        let opened = Shop::open(origin, entrance);
        Self(opened.map(Arc::new).map_err(Arc::from))
    }

    /// Starts those that are to run, each by itself.
    pub(crate) fn restore(&self) {
        let Ok(shop) = &self.0 else {
            return;
        };
        let wanted: Vec<_> = shop.rooms().values().cloned().collect();
        for room in wanted {
            if room.now().state == SandboxState::Starting {
                let own = Arc::clone(shop);
                shop.act(async move { own.restore(&room).await });
            }
        }
    }

    /// Ends all that runs, and waits until nothing is left of it.
    pub(crate) async fn close(&self) {
        let Ok(shop) = &self.0 else {
            return;
        };
        shop.acts.drain();
        let running: Vec<_> = shop.rooms().values().cloned().collect();
        let ends = Tracker::new();
        for room in running {
            drop(ends.spawn(async move { room.end().await }));
        }
        if ends.idle(CLOSING).await + shop.acts.idle(CLOSING).await > 0 {
            warn!("a sandbox does not end in time; it ends with this process");
            ends.cut();
            shop.acts.cut();
        }
    }

    fn shop(&self) -> Result<&Arc<Shop>, Unable> {
        let told = |reason: &Arc<str>| unable(Code::Failed, reason.to_string());
        self.0.as_ref().map_err(told)
    }

    /// Every sandbox, and how it is doing.
    pub(crate) fn status(&self) -> Result<AllStatus, Unable> {
        let shop = self.shop()?;
        let rooms = shop.rooms();
        let sandboxes = rooms.values().map(|room| shop.told(room));
        Ok(AllStatus {
            sandboxes: sandboxes.collect(),
        })
    }

    /// Does something about one of them, to its end, whatever becomes of whoever asked.
    pub(crate) async fn act(&self, act: SandboxAct) -> Result<SandboxStatus, Unable> {
        let shop = Arc::clone(self.shop()?);
        let acts = shop.acts.clone();
        if acts.is_draining() {
            return Err(Unable::Draining);
        }
        let done = acts.spawn(async move {
            match act {
                SandboxAct::Change(name, change) => shop.change(&name, change).await,
                SandboxAct::Create(new) => shop.create(*new).await,
                SandboxAct::Destroy(name) => shop.destroy(&name).await,
                SandboxAct::Look(name) => shop.room(&name).map(|room| shop.told(&room)),
                SandboxAct::Start(name) => shop.start_wanted(&name).await,
                SandboxAct::Stop(name) => shop.stop(&name).await,
            }
        });
        match done.await {
            Ok(Some(done)) => done,
            Ok(None) => Err(Unable::Draining),
            Err(died) => Err(unable(Code::Failed, died.to_string())),
        }
    }

    /// A command in one of them, or a session.
    pub(crate) async fn exec(
        &self,
        name: &SandboxName,
        request: ExecRequest,
    ) -> Result<Conversation, Unable> {
        let room = self.shop()?.room(name)?;
        let running = room.now().running.clone();
        let Some(running) = running else {
            let message = format!(
                "expected a sandbox that runs, got {name}, which does not; farrier sandbox start {name}"
            );
            return Err(unable(Code::NotRunning, message));
        };
        if request.keep && request.tty.is_none() {
            let message = "expected a terminal for a session that is kept, got none".to_owned();
            return Err(unable(Code::NotUnderstood, message));
        }
        if let Some(id) = request.attach {
            if !running.sessions.has(id) {
                let message = format!(
                    "expected a session of {name}, got {id}; farrier sandbox status {name} shows them"
                );
                return Err(unable(Code::Unknown, message));
            }
            return Ok(Conversation::new(async move |stream| {
                running.sessions.attach(stream, id, request.tty).await;
            }));
        }
        if !request.keep {
            return Ok(Conversation::new(async move |stream| {
                session::run(stream, &running.sandbox, &request).await;
            }));
        }
        let started = running.sessions.start(&running.sandbox, &request).await;
        let (id, carried) = started.map_err(|message| unable(Code::Failed, message))?;
        running.look_after(carried);
        Ok(Conversation::new(async move |stream| {
            running.sessions.attach(stream, id, request.tty).await;
        }))
    }
}

impl Shop {
    fn open(origin: &Origin, entrance: Entrance) -> Result<Self, String> {
        let env = &origin.env;
        let ground = Ground::of(env).ok_or(
            "expected a place for sandboxes, got none: neither XDG_DATA_HOME nor HOME is set",
        )?;
        let lock = locked(env)?;
        let launcher =
            Launcher::new(LauncherCommand::default()).map_err(|error| with_causes(&error))?;
        let stored = read(env).map_err(|error| with_causes(&error))?;
        let rooms = stored.into_iter().map(|stored| {
            let room = Room::of(stored);
            (room.name.clone(), Arc::new(room))
        });
        let shop = Self {
            origin: origin.clone(),
            launcher,
            entrance,
            rooms: Mutex::new(rooms.collect()),
            acts: Tracker::new(),
            trusted: Arc::default(),
            _lock: lock,
            ground,
        };
        shop.lend();
        Ok(shop)
    }

    fn rooms(&self) -> MutexGuard<'_, BTreeMap<SandboxName, Arc<Room>>> {
        lock(&self.rooms)
    }

    fn room(&self, name: &SandboxName) -> Result<Arc<Room>, Unable> {
        let found = self.rooms().get(name).cloned();
        found.ok_or_else(|| refused(&SandboxError::Unknown { name: name.clone() }))
    }

    fn act(&self, act: impl Future<Output = ()> + Send + 'static) {
        drop(self.acts.spawn(act));
    }

    fn place(&self, room: &Room) -> Place {
        self.ground.place(&room.name, room.slot)
    }

    /// Says whose keys are needed.
    fn lend(&self) {
        let rooms: Vec<_> = self.rooms().values().cloned().collect();
        let attached = rooms
            .iter()
            .flat_map(|room| room.now().spec.providers.clone());
        self.origin
            .egress
            .lend(attached.collect::<BTreeSet<ProviderName>>());
    }

    /// Does something with the state store, on a thread that may block.
    async fn stored<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Store) -> Result<T, SandboxError> + Send + 'static,
    ) -> Result<T, Unable> {
        let env = self.origin.env.clone();
        let done = spawn_blocking(move || {
            let directory = env.store_dir();
            let directory =
                directory.ok_or_else(|| unable(Code::Store, config::NO_STATE.to_owned()))?;
            let store = Store::open(&directory);
            let mut store = store.map_err(|error| unable(Code::Store, with_causes(&error)))?;
            work(&mut store).map_err(|error| refused(&error))
        });
        done.await
            .unwrap_or_else(|died| Err(unable(Code::Store, died.to_string())))
    }

    // --- what is asked for ---

    async fn create(self: &Arc<Self>, new: NewSandbox) -> Result<SandboxStatus, Unable> {
        let NewSandbox {
            name,
            mut spec,
            start,
        } = new;
        if self.rooms().contains_key(&name) {
            return Err(refused(&SandboxError::Exists { name }));
        }
        let mounts = ready::mounts(&spec.mounts, &self.origin.env);
        spec.mounts = mounts.map_err(|missing| unready(&missing))?;
        let ready = self.ready(&spec).await?;
        // The version that was found is the one it stays with.
        let installed = ready.furniture.installed.as_ref();
        spec.version = installed.map(|installed| installed.version.clone());
        drop(ready);
        let now = SystemClock.unix_millis();
        let (own, wanted) = ((name.clone(), spec.clone()), start);
        let stored = self
            .stored(move |store| store.add_sandbox(&own.0, &own.1, (wanted, now)))
            .await?;
        let room = Arc::new(Room::of(stored));
        let place = self.place(&room);
        if place.is_taken() {
            self.forget(&room).await?;
            let message = format!(
                "expected nothing at {}, got files of a sandbox that is not known here; move them away, or choose another name",
                place.path().display()
            );
            return Err(unable(Code::Failed, message));
        }
        self.rooms().insert(name.clone(), Arc::clone(&room));
        self.lend();
        if start && let Err(error) = self.start(&room).await {
            // It was never there.
            if let Err(left) = self.destroy(&name).await {
                warn!(sandbox = %name, %left, "what was made of it is left");
            }
            return Err(error);
        }
        info!(sandbox = %name, agent = spec.agent, route = spec.route, "sandbox made");
        Ok(self.told(&room))
    }

    async fn change(
        self: &Arc<Self>,
        name: &SandboxName,
        change: SandboxChange,
    ) -> Result<SandboxStatus, Unable> {
        let room = self.room(name)?;
        let _turn = room.turn.lock().await;
        let mut spec = room.now().spec.clone();
        spec.providers
            .retain(|provider| !change.detach.contains(provider));
        for provider in change.attach {
            if !spec.providers.contains(&provider) {
                spec.providers.push(provider);
            }
        }
        spec.policy = change.policy.or(spec.policy);
        let ready = self.ready(&spec).await?;
        let own = (name.clone(), spec.clone());
        self.stored(move |store| store.change_sandbox(&own.0, &own.1))
            .await?;
        let running = {
            let mut now = room.now();
            now.spec = spec.clone();
            now.running.clone()
        };
        self.refresh().await;
        if let Some(running) = running {
            running.change(
                &spec,
                Rules {
                    policy: ready.policy,
                    providers: spec.providers.clone(),
                },
            );
        }
        Ok(self.told(&room))
    }

    async fn start_wanted(self: &Arc<Self>, name: &SandboxName) -> Result<SandboxStatus, Unable> {
        let room = self.room(name)?;
        let turn = room.turn.lock().await;
        let own = name.clone();
        self.stored(move |store| store.want_sandbox(&own, true))
            .await?;
        self.start_in_turn(&room, &turn).await?;
        Ok(self.told(&room))
    }

    async fn stop(&self, name: &SandboxName) -> Result<SandboxStatus, Unable> {
        let room = self.room(name)?;
        let turn = room.turn.lock().await;
        let own = name.clone();
        self.stored(move |store| store.want_sandbox(&own, false))
            .await?;
        room.end_in_turn(&turn).await;
        Ok(self.told(&room))
    }

    /// Removes everything of it. Where its files cannot be removed it stays, stopped, to be destroyed again.
    async fn destroy(&self, name: &SandboxName) -> Result<SandboxStatus, Unable> {
        let room = self.room(name)?;
        let told = self.told(&room);
        let turn = room.turn.lock().await;
        let own = name.clone();
        self.stored(move |store| store.want_sandbox(&own, false))
            .await?;
        room.end_in_turn(&turn).await;
        let place = self.place(&room);
        let removed = spawn_blocking(move || place.remove()).await;
        let failed = |error: String| {
            let message = format!("cannot remove the files of {name}: {error}");
            unable(Code::Failed, message)
        };
        match removed {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(failed(error.to_string())),
            Err(died) => return Err(failed(died.to_string())),
        }
        self.forget(&room).await?;
        info!(sandbox = %name, "sandbox destroyed");
        Ok(told)
    }

    /// Removes what is known of it, so that its name and its user are free. Whoever waits for its turn is told.
    async fn forget(&self, room: &Room) -> Result<(), Unable> {
        let own = room.name.clone();
        self.stored(move |store| store.remove_sandbox(&own)).await?;
        room.now().gone = true;
        self.rooms().remove(&room.name);
        self.lend();
        Ok(())
    }

    // --- how it is done ---

    async fn ready(&self, spec: &SandboxSpec) -> Result<ready::Ready, Unable> {
        let (spec, origin) = (spec.clone(), self.origin.clone());
        let looked = spawn_blocking(move || ready::ready(&spec, &origin)).await;
        match looked {
            Ok(ready) => ready.map_err(|missing| unready(&missing)),
            Err(died) => Err(unable(Code::Failed, died.to_string())),
        }
    }

    /// Fetches the keys of everybody's providers.
    async fn refresh(&self) {
        self.lend();
        let origin = self.origin.clone();
        let fetched = spawn_blocking(move || {
            let examined = config::examine(Some(&origin.file), &origin.env, &origin.overrides);
            match examined {
                Ok(examined) => origin.egress.refresh(&examined, &origin.env),
                Err(_none) => {
                    warn!("the configuration cannot be read; sandboxes have the keys of before");
                }
            }
        });
        if let Err(died) = fetched.await {
            warn!(%died, "the keys of sandboxes' providers are those of before");
        }
    }

    /// Starts a sandbox that does not run, and sees to it that it goes on running.
    async fn start(self: &Arc<Self>, room: &Arc<Room>) -> Result<(), Unable> {
        let turn = room.turn.lock().await;
        self.start_in_turn(room, &turn).await
    }

    async fn start_in_turn(
        self: &Arc<Self>,
        room: &Arc<Room>,
        _turn: &Turn<'_>,
    ) -> Result<(), Unable> {
        if room.now().gone {
            let name = room.name.clone();
            return Err(refused(&SandboxError::Unknown { name }));
        }
        if self.acts.is_draining() {
            return Err(Unable::Draining);
        }
        if room.now().running.is_some() {
            return Ok(());
        }
        room.becomes(SandboxState::Starting, None);
        match self.started(room).await {
            Ok(running) => {
                room.runs(Arc::clone(&running));
                self.act(Arc::clone(self).watch(Arc::clone(room), running));
                Ok(())
            }
            Err(error) => {
                let reason = Some(error.to_string());
                warn!(sandbox = %room.name, reason, "sandbox not started");
                room.becomes(SandboxState::Failed, reason);
                Err(error)
            }
        }
    }

    async fn started(&self, room: &Arc<Room>) -> Result<Arc<Running>, Unable> {
        let failed = |error: &dyn std::error::Error| unable(Code::Failed, with_causes(error));
        let spec = room.now().spec.clone();
        let ready = self.ready(&spec).await?;
        let trust = Trust::with(None).map_err(|error| failed(&error))?;
        let shared = self.origin.egress.commons().shared(trust);
        let shared = shared.map_err(|error| failed(&error))?;
        let place = self.place(room);
        let (ground, own) = (self.ground.clone(), place.clone());
        let authority = self.origin.egress.commons().certificate();
        let trusted = Arc::clone(&self.trusted);
        let prepared = spawn_blocking(move || {
            prepare(&ground, &own)?;
            entrust(&ground, authority.as_deref(), &trusted)?;
            let notes = furnish::configure(&ready.furniture, &own);
            notes
                .map(|notes| (ready, notes))
                .map_err(|error| with_causes(&error))
        });
        let (ready, notes) = match prepared.await {
            Ok(prepared) => prepared.map_err(|message| unable(Code::Failed, message))?,
            Err(died) => return Err(failed(&died)),
        };
        for note in notes {
            warn!(sandbox = %room.name, note, "the harness's configuration");
        }
        self.refresh().await;
        let start = Start {
            name: &room.name,
            spec: &spec,
            ready,
            ground: &self.ground,
            place: &place,
        };
        let running = Running::start(&start, (&self.launcher, &self.entrance), shared).await;
        let running = running.map_err(|error| failed(&error))?;
        running.serve(&start);
        pairing::watch_over(&running, &start);
        Ok(running)
    }

    async fn restore(self: &Arc<Self>, room: &Arc<Room>) {
        if self.start(room).await.is_err() {
            self.start_again(room, FIRST_WAIT).await;
        }
    }

    /// Starts a sandbox again that has ended by itself.
    fn watch(self: Arc<Self>, room: Arc<Room>, running: Arc<Running>) -> Watching {
        // Boxed, since starting leads back here.
        Box::pin(async move { self.watched(&room, &running).await })
    }

    async fn watched(self: &Arc<Self>, room: &Arc<Room>, running: &Arc<Running>) {
        let begun = Instant::now();
        tokio::select! {
            () = running.sandbox.wait() => {}
            () = self.acts.draining() => return,
        }
        if !room.ended_by_itself(running) {
            return;
        }
        running.end().await;
        let wait = match begun.elapsed() >= SETTLED {
            true => Duration::ZERO,
            false => FIRST_WAIT,
        };
        self.start_again(room, wait).await;
    }

    /// Starts a sandbox that should run, again and again, until it does or is not to any more.
    async fn start_again(self: &Arc<Self>, room: &Arc<Room>, mut wait: Duration) {
        loop {
            warn!(sandbox = %room.name, again_in = ?wait, "sandbox does not run");
            tokio::select! {
                () = sleep(wait) => {}
                () = self.acts.draining() => return,
            }
            let turn = room.turn.lock().await;
            // Somebody may have stopped, started or destroyed it meanwhile.
            let is_to_be_tried = room.now().state == SandboxState::Failed;
            if !is_to_be_tried || self.start_in_turn(room, &turn).await.is_ok() {
                return;
            }
            drop(turn);
            wait = (wait * 2).clamp(FIRST_WAIT, LONGEST_WAIT);
        }
    }

    fn told(&self, room: &Room) -> SandboxStatus {
        let now = room.now();
        let running = now.running.as_ref();
        SandboxStatus {
            name: room.name.clone(),
            spec: now.spec.clone(),
            state: now.state,
            since_unix_ms: now.since_unix_ms,
            reason: now.reason.clone(),
            service: running.and_then(|running| running.service.status()),
            pid: None,
            limits: running.map(|running| running.limits()).unwrap_or_default(),
            home: self.place(room).home(),
            created_unix_ms: room.created_unix_ms,
            sessions: running
                .map(|running| running.sessions.status())
                .unwrap_or_default(),
            pairing: running.and_then(|running| {
                let pairing = running.pairing.borrow();
                pairing.as_ref().map(pairing::told)
            }),
        }
    }
}

// === impl Room ===

impl Room {
    fn of(stored: StoredSandbox) -> Self {
        let StoredSandbox {
            name,
            slot,
            is_wanted,
            spec,
            created_unix_ms,
        } = stored;
        Self {
            name,
            slot,
            created_unix_ms,
            turn: tokio::sync::Mutex::default(),
            now: Mutex::new(Now {
                spec,
                state: match is_wanted {
                    true => SandboxState::Starting,
                    false => SandboxState::Stopped,
                },
                since_unix_ms: SystemClock.unix_millis(),
                reason: None,
                running: None,
                gone: false,
            }),
        }
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        lock(&self.now)
    }

    fn becomes(&self, state: SandboxState, reason: Option<String>) {
        let mut now = self.now();
        now.state = state;
        now.reason = reason;
        now.since_unix_ms = SystemClock.unix_millis();
    }

    fn runs(&self, running: Arc<Running>) {
        self.becomes(SandboxState::Running, None);
        self.now().running = Some(running);
    }

    /// Ends it, in its turn.
    async fn end(&self) {
        let turn = self.turn.lock().await;
        self.end_in_turn(&turn).await;
    }

    async fn end_in_turn(&self, _turn: &Turn<'_>) {
        let running = self.now().running.take();
        if let Some(running) = running {
            running.end().await;
        }
        self.becomes(SandboxState::Stopped, None);
    }

    /// Whether this is what ran until now, and nobody has ended it.
    fn ended_by_itself(&self, running: &Arc<Running>) -> bool {
        let mut now = self.now();
        let own = now.running.take_if(|now| Arc::ptr_eq(now, running));
        if own.is_none() {
            return false;
        }
        now.state = SandboxState::Failed;
        now.reason = Some("it ended by itself, and is started again".to_owned());
        now.since_unix_ms = SystemClock.unix_millis();
        true
    }
}

// === what is beside ===

/// The lock of whoever looks after this user's sandboxes; the system releases it with the process.
fn locked(env: &Environment) -> Result<File, String> {
    let directory = env.store_dir().ok_or(config::NO_STATE)?;
    let opened = Store::open(&directory).map(drop);
    opened.map_err(|error| with_causes(&error))?;
    let file = lock_of(&directory.join("sandboxes.lock"))?;
    file.ok_or_else(|| {
        "another gateway of this user looks after the sandboxes; ask that one, by its --config or --socket".to_owned()
    })
}

/// A lock that the system releases with the process; none if another one holds it.
fn lock_of(path: &std::path::Path) -> Result<Option<File>, String> {
    let opened = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path);
    let file = opened.map_err(|error| format!("cannot open {}: {error}", path.display()))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(errno) => Err(format!("cannot lock {}: {errno}", path.display())),
    }
}

fn read(env: &Environment) -> Result<Vec<StoredSandbox>, StoreError> {
    let Some(directory) = env.store_dir() else {
        return Ok(Vec::new());
    };
    let store = Store::open_existing(&directory)?;
    store.map_or_else(|| Ok(Vec::new()), |store| store.sandboxes())
}

/// Makes what is to be there before a sandbox is.
fn prepare(ground: &Ground, place: &Place) -> Result<(), String> {
    let failed = |error: std::io::Error| {
        format!(
            "cannot make a place for the sandbox in {}: {error}",
            ground.path().display()
        )
    };
    ground.prepare().map_err(failed)?;
    if let Some(shut) = ground.shut_off() {
        return Err(format!(
            "expected a place for sandboxes that their users may enter, got {}, of which {} is closed to them; name another with \
             XDG_DATA_HOME, or chmod o+x it",
            ground.path().display(),
            shut.display()
        ));
    }
    place.prepare().map_err(failed)
}

/// Writes what sandboxes believe, once.
///
/// The place is locked with it: whoever looks after sandboxes there under another home would give them the same users.
fn entrust(
    ground: &Ground,
    authority: Option<&std::path::Path>,
    held: &Mutex<Option<File>>,
) -> Result<(), String> {
    let mut held = lock(held);
    if held.is_some() {
        return Ok(());
    }
    let beside = ground.trust();
    let made = std::fs::create_dir_all(&beside);
    made.map_err(|error| format!("cannot make {}: {error}", beside.display()))?;
    let file = lock_of(&beside.join("lock"))?;
    let file = file.ok_or_else(|| {
        let place = ground.path().display();
        format!("another gateway keeps sandboxes in {place}; name another place with XDG_DATA_HOME")
    })?;
    let authority = authority.ok_or(config::NO_STATE)?;
    furnish::write_trust(ground, authority)
        .map_err(|error| format!("cannot write what sandboxes believe: {error}"))?;
    *held = Some(file);
    Ok(())
}

fn unable(code: Code, message: String) -> Unable {
    Unable::Change { code, message }
}

fn unready(missing: &Missing) -> Unable {
    unable(Code::Unready, missing.to_string())
}

fn refused(error: &SandboxError) -> Unable {
    let code = match error {
        SandboxError::Exists { .. } => Code::Exists,
        SandboxError::Full { .. } => Code::Busy,
        SandboxError::Store(_) => Code::Store,
        SandboxError::Unknown { .. } => Code::Unknown,
    };
    unable(code, with_causes(error))
}

/// Whoever panicked while holding it left whole values behind.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
