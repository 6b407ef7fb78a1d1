//! The gateway's part of an exchange: `farrier up` under callgrind, asked over a socket, one request after the other.
//!
//! The gateway is run twice, and asked [`FEW`] times and [`MANY`] times. What both have in common, the start and the end,
//! falls out of the difference. Clients and upstream are in another process and are not counted.
//!
//! Each answer is one write, so that it does not depend on anybody's pace how many reads it takes.

use std::path::Path;

use super::GuardError;
use super::callgrind::{Counts, VALGRIND, options};
use crate::clock::Clock;
use crate::exchange::{KIMI_MODEL, Script, chat, plain_request};
use crate::ground::RunError;
use crate::http::Connection;
use crate::process::Cores;
use crate::target::{ANY_PORT, Launch, Log, Target};
use crate::upstream::Upstream;

/// What is asked of the gateway, each 1 KB long and through the Kimi plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Chat,
    /// 100 chunks, in one piece.
    Stream,
    /// 100 chunks that end in a tool call, which is committed to the ledger.
    Tools,
}

/// After so many, every lazily made thing is made.
const FEW: u32 = 40;
const MANY: u32 = 240;

// === impl Asked ===

impl Asked {
    pub(super) const ALL: [Self; 3] = [Self::Chat, Self::Stream, Self::Tools];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Chat => "exchange-chat",
            Self::Stream => "exchange-stream",
            Self::Tools => "exchange-tools",
        }
    }

    const fn script(self) -> Script {
        match self {
            Self::Chat => Script::Json,
            Self::Stream => Script::StreamAtOnce,
            Self::Tools => Script::ToolStreamAtOnce,
        }
    }
}

/// Instructions of the gateway for one such exchange.
pub(super) fn count(asked: Asked, farrier: &Path, directory: &Path) -> Result<Counts, GuardError> {
    let upstream = Upstream::start(ANY_PORT, Clock::start())?;
    let few = run(asked, FEW, farrier, directory, &upstream)?;
    let many = run(asked, MANY, farrier, directory, &upstream)?;
    upstream.stop();
    Ok(many.per_one(&few, u64::from(MANY - FEW)))
}

fn run(
    asked: Asked,
    times: u32,
    farrier: &Path,
    directory: &Path,
    upstream: &Upstream,
) -> Result<Counts, GuardError> {
    let home = directory.join(format!("{}-{times}", asked.name()));
    std::fs::create_dir_all(&home)?;
    let out = home.join("callgrind.out");
    let ledger = home.join("ledger.db");
    // A ledger of an earlier run would be a longer one.
    drop(std::fs::remove_file(&ledger));
    let mut before = options(&out, &[]);
    before.push(farrier.into());
    let launch = Launch {
        // One core is one worker thread, whatever the machine has.
        cores: Cores::pick(),
        directory: home,
        upstream: upstream.address(),
        program: VALGRIND.into(),
        before,
        connections: 64,
    };
    let target = launch
        .farrier(&ledger, Log::Warnings)
        .map_err(RunError::from)?;
    ask(&target, asked, times)?;
    target.stop().map_err(RunError::from)?;
    Ok(Counts::read(&out)?)
}

fn ask(target: &Target, asked: Asked, times: u32) -> Result<(), RunError> {
    let request = plain_request(asked.script(), &chat(KIMI_MODEL, asked.script()));
    let failed = RunError::exchange(asked.name());
    let mut client = Connection::open(&target.way()).map_err(&failed)?;
    for _ in 0..times {
        let head = client.ask(&request).map_err(&failed)?;
        client.reply_body(head, &mut |_| {}).map_err(&failed)?;
    }
    Ok(())
}
