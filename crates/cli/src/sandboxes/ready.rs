//! Whether a sandbox can think: what it needs is looked up before anything of it is made.
//!
//! In: what is wanted, and the gateway's configuration of now. Out: what it is furnished with, or the one thing that is
//! missing, with what to do about it. Blocks for as long as files and secrets' sources do.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use farrier_control::{MountSpec, SandboxSpec};
use farrier_egress::policy::Policy;
use farrier_secrets::ProviderName;

use super::furnish::{Furniture, HOME, WORKSPACE};
use super::place::Ground;
use crate::config::{self, Environment, Examined, Known};
use crate::harness::{NotInstalled, Store};
use crate::reloading::Origin;

/// All that is needed.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) furniture: Furniture,
    /// Where it may go.
    pub(crate) policy: Arc<Policy>,
}

/// What is missing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Missing {
    #[error("expected openclaw, hermes or generic, got {0:?}")]
    Agent(String),
    #[error("the gateway's configuration {} has mistakes (farrier check)", .0.display())]
    Configuration(PathBuf),
    #[error("{0}; farrier harness install {1} puts it there")]
    Harness(NotInstalled, String),
    #[error(
        "a generic sandbox keeps nothing running of its own; say what, after --, or leave out serving"
    )]
    NothingToServe,
    #[error("expected a policy: {0}")]
    Policy(String),
    #[error("expected a provider that is declared or stored, got {0}; farrier provider add {0}")]
    Provider(ProviderName),
    #[error(
        "the key {key} of provider {provider} is of no use: {reason}; farrier provider set {provider}"
    )]
    ProviderKey {
        provider: String,
        key: String,
        reason: String,
    },
    #[error("expected a route for {model:?} in the gateway's configuration, got none; routes are {}", .known.join(", "))]
    Route { model: String, known: Vec<String> },
    #[error("{0}")]
    Mount(String),
    #[error("{0}")]
    Store(#[from] crate::harness::store::NoStore),
}

/// What no mount may take the place of: what a sandbox itself is made of, and what is in its memory.
const RESERVED: &[&str] = &[
    "/run", "/tmp", "/var/tmp", "/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64",
    "/libx32", "/proc", "/sbin", "/sys", "/usr",
];

/// Another system than the host's must not be one that holds what Farrier keeps.
fn check_rootfs(spec: &SandboxSpec, env: &Environment) -> Result<(), Missing> {
    let Some(rootfs) = &spec.rootfs else {
        return Ok(());
    };
    let mount = MountSpec {
        host: rootfs.clone(),
        inside: PathBuf::from("/mnt"),
        writable: false,
    };
    mounts(&[mount], env).map(drop)
}

/// Looks everything up.
pub(crate) fn ready(spec: &SandboxSpec, origin: &Origin) -> Result<Ready, Missing> {
    // Again at each start: what a path leads to may have changed.
    mounts(&spec.mounts, &origin.env)?;
    check_rootfs(spec, &origin.env)?;
    let installed = match spec.agent.as_str() {
        "generic" if spec.serve && spec.command.is_empty() => return Err(Missing::NothingToServe),
        "generic" => None,
        name => {
            if farrier_harness::named(name).is_none_or(|harness| harness.agent().is_none()) {
                return Err(Missing::Agent(name.to_owned()));
            }
            let store = Store::of(None, &origin.env)?;
            let wanted = match &spec.version {
                None => name.to_owned(),
                Some(version) => format!("{name}@{version}"),
            };
            let found = store.find(name, spec.version.as_deref());
            Some(found.map_err(|none| Missing::Harness(none, wanted))?)
        }
    };
    let unreadable = || Missing::Configuration(origin.file.clone());
    let examined = config::examine(Some(&origin.file), &origin.env, &origin.overrides);
    let examined = examined.map_err(|_none| unreadable())?;
    if !examined.mistakes.is_empty() {
        return Err(unreadable());
    }
    let Some(route) = examined.route(&spec.route) else {
        return Err(Missing::Route {
            model: spec.route.clone(),
            known: examined.models().map(str::to_owned).collect(),
        });
    };
    let answering = examined.known().iter();
    let mut answering =
        answering.filter(|known| known.spec.name.as_str() == route.upstream.provider);
    answering.try_for_each(|known| usable(known, &origin.env))?;
    let attached = attached(spec, &examined, &origin.env)?;
    let keys = attached.into_iter().flat_map(|known| {
        let keys = known.spec.keys.keys();
        keys.map(|key| (known.spec.name.clone(), key.clone()))
    });
    Ok(Ready {
        furniture: Furniture {
            keys: keys.collect(),
            registry: examined.registry().clone(),
            route,
            installed,
        },
        policy: Arc::new(policy(spec.policy.as_deref())?),
    })
}

/// The policy that is meant; nothing is allowed without one.
pub(crate) fn policy(text: Option<&str>) -> Result<Policy, Missing> {
    match text {
        None => Ok(Policy::default()),
        Some(text) => {
            Policy::load(text).map_err(|error| Missing::Policy(config::with_causes(&error)))
        }
    }
}

fn attached<'e>(
    spec: &SandboxSpec,
    examined: &'e Examined,
    env: &Environment,
) -> Result<Vec<&'e Known>, Missing> {
    let find = |name: &ProviderName| {
        let mut known = examined.known().iter();
        let known = known.find(|known| known.spec.name == *name);
        let known = known.ok_or_else(|| Missing::Provider(name.clone()))?;
        usable(known, env).map(|()| known)
    };
    spec.providers.iter().map(find).collect()
}

fn usable(known: &Known, env: &Environment) -> Result<(), Missing> {
    match known.told(None, env).broken.into_iter().next() {
        None => Ok(()),
        Some((key, reason)) => Err(Missing::ProviderKey {
            provider: known.spec.name.to_string(),
            key,
            reason,
        }),
    }
}

/// What is to be shown of the host, by its real names; refused where it would take the place of what the sandbox is made of,
/// or would show what Farrier itself keeps.
pub(crate) fn mounts(mounts: &[MountSpec], env: &Environment) -> Result<Vec<MountSpec>, Missing> {
    let state = [env.store_dir(), env.egress_dir()].into_iter().flatten();
    let state = state.filter_map(|dir| Some(dir.parent()?.to_owned()));
    let others = Ground::of(env).map(|ground| ground.path().to_owned());
    let sockets = config::control_directories(env);
    let own: Vec<PathBuf> = state.chain(others).chain(sockets).collect();
    mounts.iter().map(|mount| resolved(mount, &own)).collect()
}

fn resolved(mount: &MountSpec, own: &[PathBuf]) -> Result<MountSpec, Missing> {
    let refused = |message: String| Err(Missing::Mount(message));
    let MountSpec { host, inside, .. } = mount;
    let real = match host.canonicalize() {
        Ok(real) => real,
        Err(error) => return refused(format!("cannot show {}: {error}", host.display())),
    };
    let keeps = own
        .iter()
        .find(|own| own.starts_with(&real) || real.starts_with(own));
    if let Some(keeps) = keeps {
        let (real, keeps) = (real.display(), keeps.display());
        return refused(format!(
            "expected something without Farrier's own state, got {real}, and {keeps} holds keys or other sandboxes; name something \
             narrower"
        ));
    }
    let plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
    let whole = [HOME, WORKSPACE, "/"];
    let taken = RESERVED.iter().any(|reserved| inside.starts_with(reserved))
        || whole.iter().any(|whole| inside == Path::new(whole));
    if !inside.is_absolute() || !inside.components().all(plain) || taken {
        return refused(format!(
            "expected a place of its own in the sandbox, got {}, where the sandbox's own system or memory is; say where, \
             such as {}:/mnt/data",
            inside.display(),
            host.display()
        ));
    }
    Ok(MountSpec {
        host: real,
        ..mount.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(host: &Path, inside: &str) -> MountSpec {
        MountSpec {
            host: host.to_owned(),
            inside: PathBuf::from(inside),
            writable: false,
        }
    }

    #[test]
    fn what_farrier_keeps_is_not_shown_and_what_a_sandbox_is_made_of_is_not_replaced() {
        let place = tempfile::tempdir().unwrap();
        let real = place.path().canonicalize().unwrap();
        let state = real.join("state");
        for dir in ["state/farrier/store", "data"] {
            std::fs::create_dir_all(real.join(dir)).unwrap();
        }
        std::os::unix::fs::symlink(&state, real.join("link")).unwrap();
        let env = Environment::of(&[("XDG_STATE_HOME", state.to_str().unwrap())]);
        let given = |host: &str, inside: &str| mounts(&[mount(&real.join(host), inside)], &env);

        assert_eq!(
            given("data", "/mnt/data").unwrap()[0].host,
            real.join("data")
        );
        for host in [
            "",
            "state",
            "state/farrier",
            "state/farrier/store",
            "link/farrier",
        ] {
            let told = given(host, "/mnt/data").unwrap_err().to_string();
            assert!(
                told.contains("holds keys or other sandboxes"),
                "{host}: {told}"
            );
        }
        let told = given("missing", "/mnt/data").unwrap_err().to_string();
        assert!(told.contains("cannot show"), "{told}");
        for inside in [
            "/",
            "/etc/ssl",
            "/usr",
            "/proc",
            "/tmp/data",
            HOME,
            WORKSPACE,
            "mnt",
            "/mnt/../etc",
        ] {
            let told = given("data", inside).unwrap_err().to_string();
            assert!(told.contains("a place of its own"), "{inside}: {told}");
        }
        assert!(given("data", "/workspace/data").is_ok());
    }
}
