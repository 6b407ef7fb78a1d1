//! What a sandbox is made of: from what is wanted of it to a policy for the kernel, variables, and the harness's files.
//!
//! No secret is among it. A key of an attached provider is there as a placeholder; the gateway asks for none.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::lchown;
use std::path::{Path, PathBuf};

use farrier_compat::facts::Facts;
use farrier_compat::registry::{Registry, shipped_sources};
use farrier_control::{MountSpec, SandboxName, SandboxSpec};
use farrier_harness::settings::{Given, Setting};
use farrier_harness::stage::{self, Sources};
use farrier_harness::{Configuration, Edited, Harness, Owner, Request, Task, named};
use farrier_sandbox::{Access, Bind, HostUser, Limits, ListenAddress, Listener, Policy, Root};
use farrier_secrets::{KeyName, ProviderName};

use super::place::{Ground, Place};
use crate::config::with_causes;
use crate::harness::Installed;

/// What a sandbox is furnished with, besides what is stored of it.
#[derive(Debug)]
pub(crate) struct Furniture {
    /// Its route, as it is told of it.
    pub(crate) route: Facts,
    pub(crate) registry: Registry,
    /// The harness; none for `generic`.
    pub(crate) installed: Option<Installed>,
    /// Keys of attached providers.
    pub(crate) keys: Vec<(ProviderName, KeyName)>,
}

/// Why a sandbox cannot be furnished.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FurnishError {
    #[error("the harness {harness} cannot be configured for {route}: {mistakes}")]
    Configuration {
        harness: &'static str,
        route: String,
        mistakes: String,
    },
    #[error("expected random bytes from the operating system, got none: {0}")]
    Random(String),
    #[error("cannot put the harness's plugins together: {0}")]
    Plugins(String),
    #[error("cannot write the harness's configuration")]
    Write(#[from] farrier_harness::Refusal),
}

/// Who commands run as, seen from inside, and where they are.
pub(crate) const HOME: &str = "/home/agent";
pub(crate) const WORKSPACE: &str = "/workspace";
/// Where a sandbox's trust is, inside.
const AUTHORITY: &str = "/etc/farrier/authority.pem";
/// What manifests put into the harness, inside.
const PLUGINS: &str = "/opt/farrier/plugins";
const BUNDLE: &str = "/etc/farrier/bundle.pem";
/// The proxy, inside.
const PROXY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 3128);
/// Where a harness's own gateway listens, inside; each sandbox has a loopback of its own.
pub(crate) const SERVICE_PORT: u16 = 18789;
/// Ports that are captured anyway, or are the sandbox's own.
const OWN_PORTS: [u16; 6] = [0, 53, 80, 443, 3128, SERVICE_PORT];
/// Ports of a policy that are captured at most; the proxy, which programs are told of, takes all.
const MAX_PORTS: usize = 64;
/// What goes past the proxy: the sandbox itself, and what is reached without one.
const NO_PROXY: &str = "127.0.0.1,localhost,::1,inference.local";

/// Variables by which programs are told whom to believe: facts of each are in `docs/sandbox.md`. The first kind is read
/// instead of the system's list and needs all of it, the second beside it.
const WHOLE_TRUST: &[&str] = &[
    "AWS_CA_BUNDLE",
    "CARGO_HTTP_CAINFO",
    "CODEX_CA_CERTIFICATE",
    "CURL_CA_BUNDLE",
    "DENO_CERT",
    "GIT_SSL_CAINFO",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "HTTPLIB2_CA_CERTS",
    "PIP_CERT",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_FILE",
];
const MORE_TRUST: &[&str] = &["NODE_EXTRA_CA_CERTS"];

/// Where systems keep the list of authorities that everybody believes.
const SYSTEM_TRUST: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

// === trust ===

/// Writes what all sandboxes believe: the installation's own authority, alone and beside everybody's.
pub(crate) fn write_trust(ground: &Ground, authority: &Path) -> io::Result<()> {
    let own = fs::read_to_string(authority)?;
    let system = SYSTEM_TRUST
        .iter()
        .find_map(|path| fs::read_to_string(path).ok());
    let mut bundle = system.unwrap_or_default();
    if !bundle.ends_with('\n') {
        bundle.push('\n');
    }
    bundle.push_str(&own);
    let dir = ground.trust();
    let _sharing = ground.sharing();
    fs::create_dir_all(&dir)?;
    public(&dir, 0o755)?;
    for (name, text) in [("authority.pem", &own), ("bundle.pem", &bundle)] {
        // One that is replaced cannot be shown any more, to a sandbox that is just being started with it.
        if fs::read_to_string(dir.join(name)).is_ok_and(|there| there == *text) {
            continue;
        }
        // Written beside and renamed, so that nobody has half of it.
        let (next, path) = (dir.join(format!("{name}.next")), dir.join(name));
        fs::write(&next, text)?;
        public(&next, 0o644)?;
        fs::rename(&next, &path)?;
    }
    Ok(())
}

fn public(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode))
}

// === for the kernel ===

/// What the kernel is to be asked for.
pub(crate) fn policy(
    (name, spec): (&SandboxName, &SandboxSpec),
    furniture: &Furniture,
    (ground, place): (&Ground, &Place),
    ports: &BTreeSet<u16>,
) -> Policy {
    let mut policy = Policy::on_host(name.as_str());
    policy.host_user = place.user();
    policy.user.home = PathBuf::from(HOME);
    if let Some(system) = &spec.rootfs {
        policy.root = Root::Directory {
            system: system.clone(),
            changes: place.changes(),
        };
    }
    let bind = |source: PathBuf, target: &str, access| Bind {
        source,
        target: PathBuf::from(target),
        access,
    };
    policy.binds = vec![
        bind(place.home(), HOME, Access::ReadWrite),
        bind(place.workspace(), WORKSPACE, Access::ReadWrite),
        bind(
            ground.trust().join("authority.pem"),
            AUTHORITY,
            Access::ReadOnly,
        ),
        bind(ground.trust().join("bundle.pem"), BUNDLE, Access::ReadOnly),
    ];
    if place.plugins().is_dir() {
        let plugins = bind(place.plugins(), PLUGINS, Access::ReadOnly);
        policy.binds.push(plugins);
    }
    if let Some(installed) = &furniture.installed {
        let programs = (installed.path.clone(), inside(installed, &installed.path));
        let needs = installed.record.iter().flat_map(|record| &record.needs);
        let needs = needs.map(|path| (path.clone(), path.clone()));
        let shown = std::iter::once(programs).chain(needs);
        policy.binds.extend(shown.map(|(source, target)| Bind {
            source,
            target,
            access: Access::ReadOnly,
        }));
    }
    policy.binds.extend(spec.mounts.iter().map(mounted));
    policy.environment = environment(name, furniture);
    policy.listeners = listeners(ports);
    policy.limits = Limits {
        memory_bytes: spec.limits.memory_bytes,
        processes: spec.limits.pids.map(u64::from),
        cpu_percent: spec.limits.milli_cpus.map(|milli| (milli / 10).max(1)),
        ..Limits::default()
    };
    policy
}

pub(crate) fn mounted(mount: &MountSpec) -> Bind {
    Bind {
        source: mount.host.clone(),
        target: mount.inside.clone(),
        access: match mount.writable {
            true => Access::ReadWrite,
            false => Access::ReadOnly,
        },
    }
}

/// Where something of an installed harness is in a sandbox. Not where it is on the host: a sandbox has directories of its own,
/// which could lie in the way.
pub(crate) fn inside(installed: &Installed, path: &Path) -> PathBuf {
    let below = path
        .strip_prefix(&installed.path)
        .unwrap_or_else(|_| Path::new(""));
    Path::new("/opt/farrier")
        .join(installed.harness.name())
        .join(below)
}

/// Listeners by what comes to them, by the names that the running sandbox knows them by.
///
/// Besides the ports of the web those that its policy names when it starts: what connects to another is refused by the
/// sandbox's own kernel, at once.
fn listeners(ports: &BTreeSet<u16>) -> Vec<Listener> {
    let everywhere = |port| SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let here = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let own = [
        ("explicit".to_owned(), ListenAddress::Tcp(PROXY)),
        ("dns".to_owned(), ListenAddress::Udp(here(53))),
        ("dns-tcp".to_owned(), ListenAddress::Tcp(here(53))),
    ];
    let named = ports
        .iter()
        .copied()
        .filter(|port| !OWN_PORTS.contains(port));
    let captured = [443, 80].into_iter().chain(named.take(MAX_PORTS));
    let captured = captured.map(|port| {
        (
            format!("captured-{port}"),
            ListenAddress::Tcp(everywhere(port)),
        )
    });
    own.into_iter()
        .chain(captured)
        .map(|(name, address)| Listener { name, address })
        .collect()
}

// === variables ===

/// What every command in it is given.
fn environment(name: &SandboxName, furniture: &Furniture) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut set = |name: &str, value: &str| drop(all.insert(name.to_owned(), value.to_owned()));
    let own = furniture.installed.iter().flat_map(|installed| {
        let programs = installed.programs.iter();
        programs.map(|dir| inside(installed, dir).display().to_string())
    });
    let system = ["/usr/local/bin", "/usr/bin", "/bin"].map(str::to_owned);
    let path: Vec<String> = own.chain(system).collect();
    set("PATH", &path.join(":"));
    for (variable, value) in [
        ("HOME", HOME),
        ("USER", "agent"),
        ("LOGNAME", "agent"),
        ("SHELL", "/bin/sh"),
        ("LANG", "C.UTF-8"),
        ("FARRIER_SANDBOX", name.as_str()),
        ("NO_PROXY", NO_PROXY),
        ("no_proxy", NO_PROXY),
    ] {
        set(variable, value);
    }
    // Not HTTP_PROXY: there are harnesses that send what is meant for their own loopback through that one too.
    let proxy = format!("http://{PROXY}");
    set("HTTPS_PROXY", &proxy);
    set("https_proxy", &proxy);
    WHOLE_TRUST.iter().for_each(|name| set(name, BUNDLE));
    MORE_TRUST.iter().for_each(|name| set(name, AUTHORITY));
    for (_, key) in &furniture.keys {
        set(key.as_str(), &placeholder(key));
    }
    for (variable, value) in own_variables(furniture) {
        set(&variable, &value);
    }
    all
}

/// What stands for a key. Libraries that look at a token's beginning are given one.
fn placeholder(key: &KeyName) -> String {
    match key.as_str() {
        "SLACK_BOT_TOKEN" => format!("xoxb-OPENSHELL-RESOLVE-ENV-{key}"),
        "SLACK_APP_TOKEN" => format!("xapp-OPENSHELL-RESOLVE-ENV-{key}"),
        _ => format!("farrier:resolve:env:{key}"),
    }
}

/// What the harness itself wants; of a client that is none, how it finds its model.
fn own_variables(furniture: &Furniture) -> Vec<(String, String)> {
    match &furniture.installed {
        Some(installed) => {
            let place = farrier_harness::Place {
                home: Path::new(HOME),
                ca_file: None,
                proxy: None,
            };
            let task = Task::Serve { port: SERVICE_PORT };
            let launch = installed.harness.launch(&task, &place);
            let variables = launch.map(|launch| launch.variables).unwrap_or_default();
            variables
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect()
        }
        None => generic(furniture).unwrap_or_default(),
    }
}

fn generic(furniture: &Furniture) -> Option<Vec<(String, String)>> {
    let harness = named("env")?;
    let configured = harness.config(&Request {
        route: &furniture.route,
        registry: &furniture.registry,
        look: &|_| None,
        version: None,
    });
    let configuration = configured.ok()?;
    let lines = configuration
        .files
        .into_iter()
        .flat_map(|file| match file.content {
            farrier_harness::Content::Env(lines) => lines,
            _ => Vec::new(),
        });
    Some(lines.collect())
}

// === the harness's files ===

/// Writes the harness's configuration into the sandbox's home. What the harness, or whoever uses it, has put there stays.
pub(crate) fn configure(furniture: &Furniture, place: &Place) -> Result<Vec<String>, FurnishError> {
    let Some(installed) = &furniture.installed else {
        return Ok(Vec::new());
    };
    let Some(below_home) = installed.harness.config_dir() else {
        return Ok(Vec::new());
    };
    put_together(installed.harness, place)?;
    let mut configuration = configuration(installed.harness, &installed.version, furniture)?;
    // It guards the sandbox's own loopback, from nobody outside: whoever runs inside is to have it.
    configuration.fill_gateway_token(&token()?);
    let owner = place
        .user()
        .map_or_else(Owner::process, |user| Owner::user(user.uid, user.gid));
    let dir = place.home().join(below_home);
    // Who lives there may edit it: a harness writes into its own configuration whenever it starts.
    let plan = configuration.plan_for(owner, &dir, Edited::Accept)?;
    plan.apply()?;
    Ok(plan.notes)
}

/// A word that nobody can guess.
fn token() -> Result<String, FurnishError> {
    let mut bytes = [0; 32];
    let filled = getrandom::fill(&mut bytes);
    filled.map_err(|error| FurnishError::Random(error.to_string()))?;
    let mut text = String::with_capacity(64);
    for byte in bytes {
        // Writing to a String cannot fail.
        let _written = write!(text, "{byte:02x}");
    }
    Ok(text)
}

/// Writes what this program's manifests put into the harness, as it is with this program.
///
/// Root's files are nobody's inside, and `OpenClaw` takes no plugins of nobody's: these are the sandbox's user's, shown
/// read-only.
fn put_together(harness: &dyn Harness, place: &Place) -> Result<(), FurnishError> {
    let out = &place.plugins();
    let Some(agent) = harness.agent() else {
        return Ok(());
    };
    match fs::remove_dir_all(out) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(FurnishError::Plugins(error.to_string()));
        }
        _ => {}
    }
    let registry = Registry::shipped();
    let registry = registry.map_err(|errors| FurnishError::Plugins(errors.to_string()))?;
    let sources = Sources {
        agent,
        registry: &registry,
        texts: &shipped_sources(),
        roots: &[],
    };
    let staged = stage::stage(&sources, out);
    staged.map_err(|error| FurnishError::Plugins(with_causes(&error)))?;
    match place.user() {
        None => Ok(()),
        Some(user) => given(out, user).map_err(|error| FurnishError::Plugins(error.to_string())),
    }
}

/// Makes a tree of ours somebody's. Nobody else can have written to it.
fn given(path: &Path, user: HostUser) -> io::Result<()> {
    lchown(path, Some(user.uid), Some(user.gid))?;
    if fs::symlink_metadata(path)?.is_dir() {
        for entry in fs::read_dir(path)? {
            given(&entry?.path(), user)?;
        }
    }
    Ok(())
}

fn configuration(
    harness: &'static dyn Harness,
    version: &str,
    furniture: &Furniture,
) -> Result<Configuration, FurnishError> {
    let look = |setting: &'static Setting| {
        let given = [
            ("home", HOME.to_owned()),
            ("plugins", PLUGINS.to_owned()),
            ("port", SERVICE_PORT.to_string()),
            ("proxy-host", PROXY.ip().to_string()),
            ("proxy-port", PROXY.port().to_string()),
        ];
        let mut given = given.into_iter();
        let (name, text) = given.find(|(name, _)| *name == setting.name)?;
        Some(Given {
            from: format!("the sandbox's {name}"),
            text,
            base64: false,
        })
    };
    let configured = harness.config(&Request {
        route: &furniture.route,
        registry: &furniture.registry,
        look: &look,
        version: Some(version),
    });
    configured.map_err(|mistakes| {
        let mut told = String::new();
        for mistake in &mistakes.0 {
            let separator = if told.is_empty() { "" } else { "; " };
            // Writing to a String cannot fail.
            let _written = write!(told, "{separator}{mistake}");
        }
        FurnishError::Configuration {
            harness: harness.name(),
            route: furniture.route.client.model.clone(),
            mistakes: told,
        }
    })
}
