//! `farrier sandbox create`: from what was typed to what is wanted.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bytesize::ByteSize;
use clap::Args;
use farrier_control::{LimitSpec, MountSpec, NewSandbox, SandboxSpec};

use super::{Create, ask, done, named, providers};
use crate::commands::Context;
use crate::config::absolute;
use crate::failure::Failure;

/// What a sandbox is made of.
#[derive(Debug, Args)]
pub(crate) struct What {
    /// The model that it may ask for: the name of a route
    #[arg(long, value_name = "MODEL")]
    pub(crate) route: Option<String>,
    /// The installed version of the harness [default: the newest that is installed]
    #[arg(long, value_name = "VERSION")]
    harness_version: Option<String>,
    /// A provider whose credentials may be used for it; may be repeated
    #[arg(long = "provider", value_name = "PROVIDER")]
    providers: Vec<String>,
    /// Show a file or directory of this machine: HOST, HOST:INSIDE, with :rw to be changed there; may be repeated
    #[arg(long = "mount", value_name = "HOST[:INSIDE][:rw]")]
    mounts: Vec<String>,
    /// Where it may go besides its model; nowhere, without
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Another system than this machine's, read-only: a directory with /usr, /etc and so on
    #[arg(long, value_name = "DIR")]
    rootfs: Option<PathBuf>,
    /// Memory of all its processes, such as 2GiB
    #[arg(long, value_name = "SIZE")]
    memory: Option<ByteSize>,
    /// Processes and threads at once
    #[arg(long, value_name = "N")]
    pids: Option<u32>,
    /// Processors' worth of time, such as 1.5
    #[arg(long, value_name = "N")]
    cpus: Option<f64>,
    /// Keep nothing running in it
    #[arg(long)]
    no_serve: bool,
}

impl What {
    /// Whether nothing is to be kept running.
    pub(crate) fn serves_nothing(&self) -> bool {
        self.no_serve
    }
}

pub(super) fn run(arguments: &Create, context: &Context<'_>) -> Result<ExitCode, Failure> {
    let name = named(&arguments.name)?;
    let what = &arguments.what;
    let missing = |what: &str| Failure::usage(format!("expected --{what}, got none"));
    let agent = arguments.agent.as_str();
    let route = what.route.as_deref().ok_or_else(|| missing("route"))?;
    let serves = !arguments.command.is_empty() || (agent != "generic" && !what.no_serve);
    let spec = wanted((agent, route), what, (&arguments.command, serves))?;
    if arguments.dry_run {
        return dry_run(name.as_str(), &spec, context);
    }
    let new = NewSandbox {
        name,
        spec,
        start: !arguments.no_start,
    };
    let how = &arguments.how;
    let status = ask(&how.which, context, async |client| {
        client.create_sandbox(&new).await
    })?;
    let word = if new.start { "runs" } else { "made" };
    done(&status, (how, word), context)
}

/// What is wanted, as it is asked for.
pub(crate) fn wanted(
    (agent, route): (&str, &str),
    what: &What,
    (command, serve): (&[String], bool),
) -> Result<SandboxSpec, Failure> {
    let mounts: Result<_, _> = what.mounts.iter().map(|mount| mount_of(mount)).collect();
    Ok(SandboxSpec {
        agent: agent.to_owned(),
        version: what.harness_version.clone(),
        route: route.to_owned(),
        providers: providers(&what.providers)?,
        mounts: mounts?,
        policy: what.policy.as_deref().map(policy).transpose()?,
        command: command.to_vec(),
        serve,
        rootfs: what.rootfs.as_deref().map(directory).transpose()?,
        limits: LimitSpec {
            memory_bytes: what.memory.map(|memory| memory.as_u64()),
            pids: what.pids,
            milli_cpus: what.cpus.map(milli_cpus).transpose()?,
        },
    })
}

/// A policy's text. What is wrong with it is told by whoever goes by it.
pub(super) fn policy(file: &Path) -> Result<String, Failure> {
    fs::read_to_string(file)
        .map_err(|error| Failure::user(format!("cannot read {}", file.display())).caused_by(&error))
}

fn directory(dir: &Path) -> Result<PathBuf, Failure> {
    dir.canonicalize()
        .map_err(|error| Failure::user(format!("cannot use {}", dir.display())).caused_by(&error))
}

fn milli_cpus(cpus: f64) -> Result<u32, Failure> {
    let milli = (cpus * 1000.0).round();
    if !(10.0..=1_000_000.0).contains(&milli) {
        return Err(Failure::usage(
            "expected 0.01 to 1000 with --cpus, got another number",
        ));
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 10 and a million"
    )]
    Ok(milli as u32)
}

/// `HOST`, `HOST:INSIDE`, `HOST:INSIDE:rw`, `HOST:rw`. A path with a colon in it cannot be named.
fn mount_of(text: &str) -> Result<MountSpec, Failure> {
    let mut parts: Vec<&str> = text.split(':').collect();
    let writable = match parts.last() {
        Some(&"rw") => true,
        Some(&"ro") => false,
        _ => {
            parts.push("ro");
            false
        }
    };
    parts.pop();
    let (host, inside) = match parts.as_slice() {
        [host] if !host.is_empty() => (*host, None),
        [host, inside] if !host.is_empty() && inside.starts_with('/') => (*host, Some(*inside)),
        _ => {
            return Err(Failure::usage(format!(
                "expected HOST, HOST:INSIDE or either with :rw, got {text:?}"
            )));
        }
    };
    let host = absolute(Path::new(host));
    let inside = inside.map_or_else(|| host.clone(), PathBuf::from);
    Ok(MountSpec {
        host,
        inside,
        writable,
    })
}

/// What the kernel would be asked for, one step a line.
fn dry_run(name: &str, spec: &SandboxSpec, context: &Context<'_>) -> Result<ExitCode, Failure> {
    let mut policy = farrier_sandbox::Policy::on_host(name);
    if rustix::process::geteuid().is_root() {
        policy.host_user = Some(farrier_sandbox::HostUser {
            uid: u32::from(u16::MAX),
            gid: u32::from(u16::MAX),
        });
    }
    policy.binds = spec.mounts.iter().map(crate::sandboxes::mounted).collect();
    let offers = farrier_sandbox::Offers::probe();
    let plan = farrier_sandbox::plan(&policy, &offers);
    let plan = plan.map_err(|error| {
        Failure::user("such a sandbox cannot be had on this machine").caused_by(&error)
    })?;
    context.output.text(&plan.to_string())?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(text: &str) -> Option<(String, String, bool)> {
        let mount = mount_of(text).ok()?;
        Some((
            mount.host.display().to_string(),
            mount.inside.display().to_string(),
            mount.writable,
        ))
    }

    #[test]
    fn a_mount_is_read_only_unless_it_is_said_otherwise() {
        let expected = |host: &str, inside: &str, writable| {
            Some((host.to_owned(), inside.to_owned(), writable))
        };
        assert_eq!(mount("/a"), expected("/a", "/a", false));
        assert_eq!(mount("/a:rw"), expected("/a", "/a", true));
        assert_eq!(mount("/a:/b"), expected("/a", "/b", false));
        assert_eq!(mount("/a:/b:rw"), expected("/a", "/b", true));
        assert_eq!(mount("/a:/b:ro"), expected("/a", "/b", false));
        for wrong in ["", ":", ":/b", "/a:b", "/a:/b:/c", "/a:/b:wr", "rw"] {
            assert_eq!(mount(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_share_of_a_processor_is_told_in_thousandths() {
        assert_eq!(milli_cpus(1.5).unwrap(), 1500);
        assert_eq!(milli_cpus(0.01).unwrap(), 10);
        for wrong in [0.0, -1.0, f64::NAN, f64::INFINITY, 0.001, 1e9] {
            assert!(milli_cpus(wrong).is_err(), "{wrong}");
        }
    }
}
