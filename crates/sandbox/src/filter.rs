//! The system calls that there are in a sandbox, compiled from `seccomp.json`.
//!
//! Two programs are installed and the stricter answer counts. `allow` is the list of what there is: a call that is not on
//! it is answered `ENOSYS`, as an older kernel would, so that C libraries fall back. `refuse` is what exists and is not
//! for a sandbox: it is answered `EPERM`, which programs report sensibly. It could be left out without letting anything
//! through. A call by another architecture's table kills the process.
//!
//! Each rule says why it is there. Rules with `args` hold when every condition does; several rules of one call are
//! alternatives. `ioctl` commands are compared in 32 bits, as the kernel does, so that high bits do not hide one.

use seccompiler::{BpfProgram, TargetArch, sock_filter};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What is installed, in this order: of two programs' equally strict answers the later one's counts.
const PROGRAMS: [&str; 2] = ["allow", "refuse"];

const RULES: &str = include_str!("seccomp.json");

/// A compiled program, as it travels to the launcher: one word per instruction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Program(Vec<u64>);

/// The table does not compile. Tests hold it for both architectures.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FilterError {
    #[error("the table of system calls is not what a filter is made from")]
    Table(#[from] serde_json::Error),
    #[error("the table of system calls does not compile")]
    Compile(#[from] seccompiler::Error),
    #[error("there is no table of system calls for the architecture {0}")]
    Architecture(&'static str),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    allow: Vec<Rule>,
    refuse: Vec<Rule>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    syscall: String,
    /// The only architecture that has the call.
    only: Option<String>,
    args: Option<Value>,
    reason: String,
}

/// The programs for this machine.
pub(crate) fn programs() -> Result<Vec<Program>, FilterError> {
    compile(std::env::consts::ARCH)
}

fn compile(arch: &'static str) -> Result<Vec<Program>, FilterError> {
    let target = TargetArch::try_from(arch).map_err(|_| FilterError::Architecture(arch))?;
    let Table { allow, refuse } = serde_json::from_str(RULES)?;
    let rules = |rules: Vec<Rule>| -> Vec<Value> {
        let here = |rule: &Rule| rule.only.as_deref().is_none_or(|only| only == arch);
        rules.into_iter().filter(here).map(rule_of).collect()
    };
    let filters = json!({
        "allow": {
            "mismatch_action": { "errno": libc::ENOSYS },
            "match_action": "allow",
            "filter": rules(allow),
        },
        "refuse": {
            "mismatch_action": "allow",
            "match_action": { "errno": libc::EPERM },
            "filter": rules(refuse),
        },
    });
    let text = serde_json::to_vec(&filters)?;
    let mut compiled = seccompiler::compile_from_json(text.as_slice(), target)?;
    let program = |name| compiled.remove(name).map(|program| Program::pack(&program));
    Ok(PROGRAMS.into_iter().filter_map(program).collect())
}

fn rule_of(rule: Rule) -> Value {
    let Rule {
        syscall,
        args,
        reason,
        ..
    } = rule;
    match args {
        Some(args) => json!({ "syscall": syscall, "args": args, "comment": reason }),
        None => json!({ "syscall": syscall, "comment": reason }),
    }
}

impl Program {
    fn pack(program: &BpfProgram) -> Self {
        let pack = |one: &sock_filter| {
            let [low, high] = one.code.to_le_bytes();
            let [a, b, c, d] = one.k.to_le_bytes();
            u64::from_le_bytes([low, high, one.jt, one.jf, a, b, c, d])
        };
        Self(program.iter().map(pack).collect())
    }

    /// As the kernel takes it.
    pub(crate) fn unpack(&self) -> BpfProgram {
        let unpack = |word: &u64| {
            let [low, high, jt, jf, a, b, c, d] = word.to_le_bytes();
            sock_filter {
                code: u16::from_le_bytes([low, high]),
                jt,
                jf,
                k: u32::from_le_bytes([a, b, c, d]),
            }
        };
        self.0.iter().map(unpack).collect()
    }
}

#[cfg(test)]
mod tests;
