//! `farrier completions`: from the same definitions as the help.

use std::process::ExitCode;

use clap::{Args, CommandFactory as _};
use clap_complete::{Shell, generate};

use super::{Cli, Context};
use crate::failure::Failure;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Which shell
    shell: Shell,
}

pub(crate) fn run(arguments: &Arguments, context: &Context<'_>) -> Result<ExitCode, Failure> {
    let mut script = Vec::new();
    generate(arguments.shell, &mut Cli::command(), "farrier", &mut script);
    context.output.text(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}
