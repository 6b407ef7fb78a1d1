//! `farrier sandbox list`, `status` and `logs`.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

use farrier_control::{SandboxState, SandboxStatus, ServiceStatus};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;

use super::{List, Logs, One, ask, named};
use crate::commands::Context;
use crate::failure::Failure;
use crate::output::Style;
use crate::runtime::{self, Signals};

pub(super) fn list(arguments: &List, context: &Context<'_>) -> Result<ExitCode, Failure> {
    let how = &arguments.how;
    let all = ask(&how.which, context, async |client| client.sandboxes().await)?;
    if how.json {
        context.output.json(&all)?;
        return Ok(ExitCode::SUCCESS);
    }
    if all.sandboxes.is_empty() {
        context
            .notices
            .say("there is no sandbox; farrier sandbox create makes one");
    }
    let width = all
        .sandboxes
        .iter()
        .map(|one| one.name.as_str().len())
        .max();
    for status in &all.sandboxes {
        let name = format!(
            "{:width$}",
            status.name.as_str(),
            width = width.unwrap_or_default()
        );
        let line = format!(
            "{name}  {}  {}  {}",
            state(status.state, context),
            harness(status),
            status.spec.route
        );
        context.output.line(&line)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn harness(status: &SandboxStatus) -> String {
    match &status.spec.version {
        Some(version) => format!("{} {version}", status.spec.agent),
        None => status.spec.agent.clone(),
    }
}

fn state(state: SandboxState, context: &Context<'_>) -> String {
    let (word, style) = match state {
        SandboxState::Failed => ("failed  ", Style::Wrong),
        SandboxState::Running => ("running ", Style::Good),
        SandboxState::Starting => ("starting", Style::Plain),
        SandboxState::Stopped => ("stopped ", Style::Dim),
    };
    context.output.painted(word, style)
}

pub(super) fn status(arguments: &One, context: &Context<'_>) -> Result<ExitCode, Failure> {
    let name = named(&arguments.name)?;
    let how = &arguments.how;
    let status = ask(&how.which, context, async |client| {
        client.sandbox(&name).await
    })?;
    if how.json {
        context.output.json(&status)?;
        return Ok(ExitCode::SUCCESS);
    }
    let lines: Vec<String> = head(&status, context)
        .into_iter()
        .chain(bounds(&status))
        .chain(devices(&status))
        .chain(terminals(&status))
        .collect();
    context.output.text(&(lines.join("\n") + "\n"))?;
    Ok(ExitCode::SUCCESS)
}

fn row(word: &str, fact: impl AsRef<str>) -> String {
    format!("  {word:10}{}", fact.as_ref())
}

/// What it is, and how it is doing.
fn head(status: &SandboxStatus, context: &Context<'_>) -> Vec<String> {
    let word = state(status.state, context);
    let since = moment(status.since_unix_ms);
    let mut lines = vec![format!(
        "{} {}, since {since}",
        status.name,
        word.trim_end()
    )];
    lines.extend(status.reason.iter().map(|reason| row("reason", reason)));
    lines.push(row("harness", harness(status)));
    lines.push(row("route", &status.spec.route));
    let providers: Vec<_> = status
        .spec
        .providers
        .iter()
        .map(ToString::to_string)
        .collect();
    lines.push(row("providers", or_none(providers.join(", "))));
    lines.push(row("home", status.home.display().to_string()));
    lines.extend(status.spec.mounts.iter().map(|mount| {
        let access = if mount.writable {
            "read and write"
        } else {
            "read"
        };
        let (host, inside) = (mount.host.display(), mount.inside.display());
        row("shows", format!("{host} at {inside} ({access})"))
    }));
    lines.extend(
        status
            .service
            .iter()
            .map(|service| row("keeps", kept(service))),
    );
    lines
}

fn bounds(status: &SandboxStatus) -> Vec<String> {
    if status.state == SandboxState::Running && status.limits.is_empty() {
        return vec![row("limit", "none is wanted")];
    }
    status
        .limits
        .iter()
        .map(|limit| row("limit", limit))
        .collect()
}

fn devices(status: &SandboxStatus) -> Vec<String> {
    let Some(pairing) = &status.pairing else {
        return Vec::new();
    };
    let (paired, approved) = (pairing.paired, pairing.approvals);
    let since = moment(pairing.since_unix_ms);
    let reason = pairing.reason.as_deref().unwrap_or_default();
    let fact = format!(
        "{}, since {since}, {paired} paired, {approved} approved {reason}",
        pairing.state
    );
    let waiting = pairing
        .waiting
        .iter()
        .map(|one| row("", format!("waits: {one}")));
    let refused = pairing
        .refused
        .iter()
        .map(|one| row("", format!("for a person: {one}")));
    std::iter::once(row("devices", fact.trim_end()))
        .chain(waiting)
        .chain(refused)
        .collect()
}

fn terminals(status: &SandboxStatus) -> Vec<String> {
    let told = status.sessions.iter().map(|session| {
        let word = if session.attached {
            "somebody is connected"
        } else {
            "left"
        };
        let since = moment(session.since_unix_ms);
        row(
            "terminal",
            format!("{}, since {since} ({word})", session.id),
        )
    });
    told.collect()
}

fn or_none(text: String) -> String {
    if text.is_empty() {
        "none".to_owned()
    } else {
        text
    }
}

fn kept(service: &ServiceStatus) -> String {
    let mut told = vec![match service.running {
        true => "running".to_owned(),
        false => "not running, is started again".to_owned(),
    }];
    if service.restarts > 0 {
        told.push(format!("started again {} times", service.restarts));
    }
    let exit = service.last_exit.as_ref();
    told.extend(exit.map(|exit| format!("the last {exit}")));
    let last = service.last_output.as_ref();
    let last = last.and_then(|output| output.lines().next_back());
    told.extend(last.map(|last| format!("it said: {}", plain(last))));
    told.join("; ")
}

fn moment(unix_ms: u64) -> String {
    let moment = UNIX_EPOCH + Duration::from_millis(unix_ms);
    humantime::format_rfc3339_seconds(moment).to_string()
}

// === logs ===

pub(super) fn logs(arguments: &Logs, context: &Context<'_>) -> Result<ExitCode, Failure> {
    let name = named(&arguments.name)?;
    let status = ask(&arguments.which, context, async |client| {
        client.sandbox(&name).await
    })?;
    let log = log_of(&status)?;
    let failed =
        |error: io::Error| Failure::internal(format!("cannot read {}", log.display()), &error);
    let mut reader = match File::open(&log) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            context.notices.say("nothing was kept running in it yet");
            if !arguments.follow {
                return Ok(ExitCode::SUCCESS);
            }
            match runtime::run(appears(&log))? {
                Some(file) => file,
                None => return Ok(ExitCode::SUCCESS),
            }
        }
        Err(error) => return Err(failed(error)),
    };
    let mut text = Vec::new();
    reader.read_to_end(&mut text).map_err(failed)?;
    context
        .output
        .text(&printable(newest(&text, arguments.last), context))?;
    if !arguments.follow {
        return Ok(ExitCode::SUCCESS);
    }
    runtime::run(follow(&log, reader, context))?;
    Ok(ExitCode::SUCCESS)
}

/// Beside its home, where only Farrier writes.
fn log_of(status: &SandboxStatus) -> Result<PathBuf, Failure> {
    let dir = status.home.parent();
    let dir =
        dir.ok_or_else(|| Failure::user("expected a sandbox with a home, got one without"))?;
    Ok(dir.join("log").join("service.log"))
}

/// What a program in a sandbox wrote, as text: on a terminal without what could do something to that.
fn printable(text: &[u8], context: &Context<'_>) -> String {
    let text = String::from_utf8_lossy(text);
    match context.output.is_terminal() {
        true => plain(&text),
        false => text.into_owned(),
    }
}

/// Without control characters but the ends of lines and tabs.
fn plain(text: &str) -> String {
    let harmless = |c: &char| !c.is_control() || matches!(c, '\n' | '\t');
    text.chars().filter(harmless).collect()
}

/// The last so many lines.
fn newest(text: &[u8], lines: usize) -> &[u8] {
    let ends = text
        .iter()
        .enumerate()
        .rev()
        .filter(|(_, byte)| **byte == b'\n');
    let unfinished = usize::from(text.last().is_some_and(|last| *last != b'\n'));
    let from = ends
        .map(|(at, _)| at + 1)
        .nth(lines.saturating_sub(unfinished));
    match lines {
        0 => &[],
        _ => &text[from.unwrap_or_default()..],
    }
}

/// Shows what is written until a signal; a log that was turned over is gone on with.
async fn follow(path: &Path, mut file: File, context: &Context<'_>) -> Result<(), Failure> {
    let failed =
        |error: io::Error| Failure::internal(format!("cannot read {}", path.display()), &error);
    let mut signals = Signals::watch()?;
    let mut changes = Written::below(path.parent().unwrap_or(path)).map_err(failed)?;
    loop {
        // Also before the first change that is told: there may have been one since it was read.
        loop {
            let mut text = Vec::new();
            file.read_to_end(&mut text).map_err(failed)?;
            context.output.text(&printable(&text, context))?;
            let here = file.metadata().map_err(failed)?.ino();
            match File::open(path) {
                Ok(next) if next.metadata().map_err(failed)?.ino() != here => {
                    file = next;
                    file.seek(SeekFrom::Start(0)).map_err(failed)?;
                }
                _ => break,
            }
        }
        tokio::select! {
            () = signals.next() => return Ok(()),
            changed = changes.next() => changed.map_err(failed)?,
        }
    }
}

/// Waits until there is a log, or for a signal.
async fn appears(path: &Path) -> Result<Option<File>, Failure> {
    let failed =
        |error: io::Error| Failure::internal(format!("cannot read {}", path.display()), &error);
    let mut signals = Signals::watch()?;
    let mut changes = Written::below(path.parent().unwrap_or(path)).map_err(failed)?;
    loop {
        match File::open(path) {
            Ok(file) => return Ok(Some(file)),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            Err(_) => {}
        }
        tokio::select! {
            () = signals.next() => return Ok(None),
            changed = changes.next() => changed.map_err(failed)?,
        }
    }
}

/// Tells when something in a directory is written to, or another takes its name.
struct Written(AsyncFd<OwnedFd>);

impl Written {
    fn below(dir: &Path) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let told_of = WatchFlags::CREATE | WatchFlags::MODIFY | WatchFlags::MOVED_TO;
        inotify::add_watch(&inotify, dir, told_of)?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe and asks that nobody closes the descriptor: it is owned, and given to none"
        )]
        Ok(Self(AsyncFd::new(inotify)?))
    }

    /// Safe to drop.
    async fn next(&mut self) -> io::Result<()> {
        let mut ready = self.0.readable().await?;
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(ready.get_inner(), &mut buffer);
        loop {
            match events.next() {
                Ok(_event) => {}
                Err(Errno::WOULDBLOCK) => break,
                Err(error) => return Err(error.into()),
            }
        }
        ready.clear_ready();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{newest, plain};

    #[test]
    fn what_a_sandbox_wrote_does_nothing_to_a_terminal() {
        assert_eq!(
            plain("a\u{1b}]52;c;x\u{7}\tb\r\n\u{9b}2J"),
            "a]52;c;x\tb\n2J"
        );
    }

    #[test]
    fn the_newest_lines_are_shown_whole() {
        let text = b"a\nb\nc\n";
        assert_eq!(newest(text, 2), b"b\nc\n");
        assert_eq!(newest(text, 9), text);
        assert_eq!(newest(text, 0), b"");
        assert_eq!(newest(b"a\nb\nc", 2), b"b\nc");
        assert_eq!(newest(b"", 2), b"");
    }
}
