//! The thread that writes decisions, and nothing but it.
//!
//! In: lines, in the order in which they were made. Out: files of bounded size and number.
//!
//! A line that cannot be written is tried again until it can: who makes decisions notices by how many wait. Only when there
//! is nobody left who makes any, one that fails is given up, and said to be in the log.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::{Duration, SystemTime};

use tracing::warn;

use super::{Backlog, Bounds, Message, older, spelt};

/// What writes, and where.
struct Writer {
    directory: PathBuf,
    bounds: Bounds,
    open: Option<Open>,
    backlog: Arc<Backlog>,
    now: fn() -> SystemTime,
}

struct Open {
    file: File,
    bytes: u64,
}

/// Between two tries to write the same line.
const AGAIN: Duration = Duration::from_millis(500);

/// Starts it in a directory, which is made if there is none.
///
/// # Errors
///
/// The directory cannot be written to, or there are no threads left.
pub(super) fn start(
    directory: &Path,
    bounds: Bounds,
    lines: mpsc::Receiver<Message>,
    (backlog, now): (Arc<Backlog>, fn() -> SystemTime),
) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let mut writer = Writer {
        directory: directory.to_owned(),
        bounds,
        open: None,
        backlog,
        now,
    };
    writer.open = Some(writer.begin()?);
    let thread = std::thread::Builder::new().name("farrier-audit".to_owned());
    let _detached = thread.spawn(move || writer.run(&lines))?;
    Ok(())
}

// === impl Writer ===

impl Writer {
    fn run(mut self, lines: &mpsc::Receiver<Message>) {
        let mut flushed = Vec::new();
        while let Ok(message) = lines.recv() {
            match message {
                Message::Line(bytes) => {
                    self.write(&bytes);
                    self.backlog.waiting.fetch_sub(1, Ordering::AcqRel);
                }
                Message::Flush(written) => flushed.push(written),
            }
            // What was turned away is told once there is room again, or to whoever waits for the end.
            let is_idle = self.backlog.waiting.load(Ordering::Acquire) == 0;
            if is_idle && let Some(line) = self.backlog.told() {
                let spelt = spelt(line, self.now).unwrap_or_default();
                self.write(&spelt);
            }
            for written in flushed.drain(..) {
                written.send(()).ok(); // who has left does not need to know
            }
        }
    }

    /// Writes a line, however long that takes.
    fn write(&mut self, bytes: &[u8]) {
        let mut told = false;
        while let Err(error) = self.append(bytes) {
            self.open = None; // opened anew at the next try
            if !told {
                told = true;
                let directory = self.directory.display();
                warn!(%error, %directory, "a decision cannot be written; it is tried again");
            }
            if Arc::strong_count(&self.backlog) == 1 {
                warn!(%error, "a decision is not recorded, since there is no time to try again");
                return;
            }
            std::thread::park_timeout(AGAIN);
        }
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let length = bytes.len() as u64;
        let max = self.bounds.max_file_bytes;
        let is_full = |open: &Open| open.bytes > 0 && open.bytes + length > max;
        if self.open.as_ref().is_some_and(is_full) {
            self.open = None;
            self.rotate()?;
        }
        let fresh = match self.open.take() {
            Some(open) => open,
            None => self.begin()?,
        };
        let open = self.open.insert(fresh);
        if let Err(error) = open.file.write_all(bytes) {
            // Whatever part of it is there ends where it is.
            let _ended = open.file.write_all(b"\n");
            return Err(error);
        }
        open.bytes += length;
        Ok(())
    }

    fn begin(&self) -> io::Result<Open> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(older(&self.directory, 0))?;
        let bytes = file.metadata()?.len();
        Ok(Open { file, bytes })
    }

    /// Each file takes the place of the next older one; the oldest goes.
    fn rotate(&self) -> io::Result<()> {
        for age in (1..self.bounds.max_files.max(2)).rev() {
            match fs::rename(older(&self.directory, age - 1), older(&self.directory, age)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }
}
