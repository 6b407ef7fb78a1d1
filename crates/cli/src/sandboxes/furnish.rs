//! What a sandbox is made of: from what is wanted of it to a policy for the kernel, variables, and the harness's files.
//!
//! No secret is among it. A key of an attached provider is there as a placeholder; the gateway asks for none.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use farrier_compat::facts::Facts;
use farrier_compat::registry::Registry;
use farrier_control::{MountSpec, SandboxName, SandboxSpec};
use farrier_harness::settings::{Given, Setting};
use farrier_harness::{Configuration, Edited, Harness, Owner, Request, Task, named};
use farrier_sandbox::{Access, Bind, Limits, ListenAddress, Listener, Policy, Root};
use farrier_secrets::{KeyName, ProviderName};

use super::place::{Ground, Place};
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
    #[error("cannot write the harness's configuration")]
    Write(#[from] farrier_harness::Refusal),
}

/// Who commands run as, seen from inside, and where they are.
pub(crate) const HOME: &str = "/home/agent";
pub(crate) const WORKSPACE: &str = "/workspace";
/// Where a sandbox's trust is, inside.
const AUTHORITY: &str = "/etc/farrier/authority.pem";
const BUNDLE: &str = "/etc/farrier/bundle.pem";
/// The proxy, inside.
const PROXY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 3128);
/// Where a harness's own gateway listens, inside; each sandbox has a loopback of its own.
pub(crate) const SERVICE_PORT: u16 = 18789;
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
    fs::create_dir_all(&dir)?;
    public(&dir, 0o755)?;
    for (name, text) in [("authority.pem", &own), ("bundle.pem", &bundle)] {
        // Written beside and renamed: a sandbox that starts meanwhile has the old one or the new one.
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
    policy.listeners = listeners();
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
    let below = path.strip_prefix(&installed.path).unwrap_or(Path::new(""));
    Path::new("/opt/farrier")
        .join(installed.harness.name())
        .join(below)
}

/// Listeners by what comes to them, in the words of [`super::wire`].
fn listeners() -> Vec<Listener> {
    let everywhere = |port| SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let here = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    [
        ("captured-https", ListenAddress::Tcp(everywhere(443))),
        ("captured-http", ListenAddress::Tcp(everywhere(80))),
        ("explicit", ListenAddress::Tcp(PROXY)),
        ("dns", ListenAddress::Udp(here(53))),
        ("dns-tcp", ListenAddress::Tcp(here(53))),
    ]
    .map(|(name, address)| Listener {
        name: name.to_owned(),
        address,
    })
    .into()
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
    let configuration = configuration(installed.harness, &installed.version, furniture)?;
    let owner = place
        .user()
        .map_or_else(Owner::process, |user| Owner::user(user.uid, user.gid));
    let dir = place.home().join(below_home);
    // Who lives there may edit it: a harness writes into its own configuration whenever it starts.
    let plan = configuration.plan_for(owner, &dir, Edited::Accept)?;
    plan.apply()?;
    Ok(plan.notes)
}

fn configuration(
    harness: &'static dyn Harness,
    version: &str,
    furniture: &Furniture,
) -> Result<Configuration, FurnishError> {
    let look = |setting: &'static Setting| {
        let given = [
            ("home", HOME.to_owned()),
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
