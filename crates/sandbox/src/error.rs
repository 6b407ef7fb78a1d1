//! How a launch or a command fails: which layer, what the kernel said, and what to do.

use std::fmt;
use std::io;
use std::path::PathBuf;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::policy::PolicyError;

/// A part of the isolation. Each is always applied; none is ever left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layer {
    /// No capability, not even over the sandbox itself.
    Capabilities,
    /// The sandbox's root, what is mounted in it, and that nothing else can be reached.
    Filesystem,
    /// An unprivileged user on the host.
    Identity,
    /// Access rights on files beneath the mounts, signals and abstract sockets.
    Landlock,
    /// The launcher itself and what holds the sandbox to its supervisor.
    Launcher,
    /// Resource limits.
    Limits,
    /// Mounts, processes, System V objects, host name, network and control groups of its own.
    Namespaces,
    /// A loopback without a way out, and the sockets bound there.
    Network,
    /// No program gains privileges by being executed.
    NoNewPrivileges,
    /// A process file system that shows the sandbox's own processes.
    Proc,
    /// The system calls that there are.
    Seccomp,
    /// Users of its own.
    UserNamespace,
}

/// A sandbox that was not started. Nothing has run in it.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// A layer could not be applied.
    #[error("{layer} cannot be applied: {step}: {errno}; {}", remedy(*layer, *errno))]
    Layer {
        /// Which.
        layer: Layer,
        /// The step that failed, as a plan prints it.
        step: String,
        /// What the kernel said.
        errno: Errno,
    },
    /// The policy cannot be carried out.
    #[error("the sandbox's policy is not possible: {0}")]
    Policy(#[from] PolicyError),
    /// The launcher could not be started.
    #[error("starting the launcher {} failed", program.display())]
    Spawn {
        /// What was to be executed.
        program: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Something of the supervisor's own failed: a socket, a pipe.
    #[error("the supervisor could not {doing}")]
    Supervisor {
        /// What it was about to do.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The launcher ended without a word.
    #[error(
        "expected the launcher to report the sandbox ready, got its end (status {status}); is {} this program?",
        program.display()
    )]
    Died {
        /// What had been executed.
        program: PathBuf,
        /// As the system tells it.
        status: String,
    },
    /// The launcher took too long.
    #[error("expected the sandbox to be ready within {seconds} s, it was not, and was killed")]
    TimedOut {
        /// How long was waited.
        seconds: u64,
    },
}

/// A command that was not started.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The sandbox has ended.
    #[error(transparent)]
    Gone(#[from] SandboxGone),
    /// Something of the supervisor's own failed.
    #[error("the supervisor could not {doing}")]
    Supervisor {
        /// What it was about to do.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The command could not be started inside.
    #[error("{program}: {stage} failed inside the sandbox: {errno}")]
    Refused {
        /// The command's first word.
        program: String,
        /// What was about to be done.
        stage: String,
        /// What the kernel said.
        errno: Errno,
    },
    /// The sandbox did not answer; the command may have been started nonetheless.
    #[error(
        "expected the sandbox to start {program} within {seconds} s, it has not answered; is a file system stuck?"
    )]
    TimedOut {
        /// The command's first word.
        program: String,
        /// How long was waited.
        seconds: u64,
    },
    /// Arguments and environment are too long.
    #[error(
        "expected arguments and environment of at most {limit} bytes, got {bytes}; pass long input by stdin or a file"
    )]
    TooLong {
        /// How long they are, as a message.
        bytes: usize,
        /// The most that a message holds.
        limit: usize,
    },
    /// The command has no first word, or an argument holds a NUL.
    #[error(
        "expected a command and arguments without NUL, got {program:?} with {arguments} arguments"
    )]
    Argv {
        /// The first word, if there is one.
        program: String,
        /// How many follow.
        arguments: usize,
    },
    /// The environment cannot be given to a program.
    #[error(transparent)]
    Environment(PolicyError),
}

/// The sandbox has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the sandbox has ended; start it again")]
pub struct SandboxGone;

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Capabilities => "the capabilities layer",
            Self::Filesystem => "the file system layer",
            Self::Identity => "the identity layer",
            Self::Landlock => "the Landlock layer",
            Self::Launcher => "the launcher",
            Self::Limits => "the resource limits layer",
            Self::Namespaces => "the namespaces layer",
            Self::Network => "the network layer",
            Self::NoNewPrivileges => "the no-new-privileges layer",
            Self::Proc => "the /proc layer",
            Self::Seccomp => "the seccomp layer",
            Self::UserNamespace => "the user namespace layer",
        })
    }
}

/// What to do about a layer that failed in this way.
fn remedy(layer: Layer, errno: Errno) -> &'static str {
    match (layer, errno) {
        (Layer::UserNamespace, Errno::NOSPC) => {
            "no user namespace may be made here: raise the sysctl user.max_user_namespaces, and note that a sandbox \
             cannot be started inside a sandbox"
        }
        (Layer::UserNamespace, _) => {
            "user namespaces are refused here: set the sysctl kernel.unprivileged_userns_clone=1 or \
             kernel.apparmor_restrict_unprivileged_userns=0 (or load an AppArmor profile with `userns,`), and in a \
             container allow unshare and mount (docs/sandbox-isolation.md#requirements)"
        }
        (Layer::Namespaces, Errno::NOSPC) => {
            "no more namespaces may be made here: raise the sysctls user.max_*_namespaces"
        }
        (Layer::Landlock, _) => {
            "Landlock needs Linux 5.13 with `landlock` among the kernel's lsm= modules \
             (docs/sandbox-isolation.md#requirements)"
        }
        (Layer::Seccomp, _) => {
            "the kernel needs CONFIG_SECCOMP_FILTER, and a container around Farrier must allow its use \
             (docs/sandbox-isolation.md#requirements)"
        }
        (Layer::Filesystem | Layer::Proc, Errno::PERM | Errno::ACCESS) => {
            "either the sandbox's user may not pass through or write to a directory of this path, or mounting is refused, \
             which AppArmor does to user namespaces without a profile and a container to all \
             (docs/sandbox-isolation.md#requirements)"
        }
        (Layer::Filesystem, Errno::LOOP) => {
            "there is a symbolic link in the path, which whoever may write there could redirect: give the path that it \
             leads to"
        }
        (Layer::Filesystem, Errno::NOENT | Errno::NOTDIR) => {
            "check that the path is there and that the sandbox's user may pass through every directory above it"
        }
        (Layer::Filesystem | Layer::Proc | Layer::Namespaces, Errno::NOSYS | Errno::INVAL) => {
            "Farrier needs Linux 5.13 or newer, and no filter around it that hides mount_setattr, open_tree or clone3"
        }
        (Layer::Network, Errno::ADDRINUSE) => {
            "two listeners of the policy want one address: give each its own"
        }
        _ => "see docs/sandbox-isolation.md#requirements",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_by_which_error_decides_what_is_advised() {
        let advice = |layer, errno| remedy(layer, errno);
        assert!(advice(Layer::UserNamespace, Errno::NOSPC).contains("max_user_namespaces"));
        assert!(advice(Layer::UserNamespace, Errno::PERM).contains("apparmor_restrict"));
        assert!(advice(Layer::Filesystem, Errno::LOOP).contains("symbolic link"));
        assert!(advice(Layer::Filesystem, Errno::NOENT).contains("the path is there"));
        assert!(advice(Layer::Proc, Errno::PERM).contains("mounting is refused"));
        assert!(advice(Layer::Network, Errno::ADDRINUSE).contains("one address"));
        assert!(advice(Layer::Limits, Errno::PERM).contains("docs/sandbox-isolation.md"));
    }

    #[test]
    fn a_message_says_layer_step_error_and_remedy_in_this_order() {
        let error = LaunchError::Layer {
            layer: Layer::Seccomp,
            step: "seccomp: listed system calls only".to_owned(),
            errno: Errno::PERM,
        };
        assert_eq!(
            error.to_string(),
            "the seccomp layer cannot be applied: seccomp: listed system calls only: Operation not permitted (os error \
             1); the kernel needs CONFIG_SECCOMP_FILTER, and a container around Farrier must allow its use \
             (docs/sandbox-isolation.md#requirements)"
        );
    }
}
