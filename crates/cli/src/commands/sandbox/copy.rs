//! `farrier sandbox cp`: files into a sandbox's home or workspace, or out of it.
//!
//! What is in a sandbox was put there by whatever runs in it: a name may be a link to anywhere by the time it is opened. So
//! every name is looked up below the home or the workspace by the kernel (`openat2`, which follows nothing out of there),
//! links are copied as links, and what is neither file, directory nor link is left out with a word about it.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;

use farrier_control::SandboxStatus;
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid,
    fchown, fstat, futimens, mkdirat, openat, openat2, readlinkat, statat, symlinkat, unlinkat,
};
use rustix::io::Errno;

use super::{Copy, ask, named};
use crate::commands::Context;
use crate::failure::Failure;
use crate::sandboxes::{HOME, WORKSPACE};

/// A place that is copied from or to: a directory, and a way below it.
struct End {
    /// As it was named.
    shown: String,
    root: OwnedFd,
    way: PathBuf,
    /// What is written there is this user's.
    owner: Option<(Uid, Gid)>,
    resolve: ResolveFlags,
}

/// What was copied.
#[derive(Debug, Default)]
struct Copied {
    files: u64,
    bytes: u64,
    left_out: Vec<PathBuf>,
}

pub(super) fn run(arguments: &Copy, context: &Context<'_>) -> Result<ExitCode, Failure> {
    let (source, destination) = (remote(&arguments.source), remote(&arguments.destination));
    let status = |name: &str| {
        let name = named(name)?;
        ask(&arguments.which, context, async |client| {
            client.sandbox(&name).await
        })
    };
    let (from, to) = match (source, destination) {
        (Some((name, path)), None) => (
            End::inside(&status(name)?, path)?,
            End::here(&arguments.destination)?,
        ),
        (None, Some((name, path))) => (
            End::here(&arguments.source)?,
            End::inside(&status(name)?, path)?,
        ),
        _ => {
            return Err(Failure::usage(
                "expected one of the two in a sandbox, as NAME:PATH, got none or both",
            ));
        }
    };
    let mut copied = Copied::default();
    let done = copy(&from, &to, &mut copied);
    for path in &copied.left_out {
        context.notices.warn(&format!(
            "{} is neither file, directory nor link, and is left out",
            path.display()
        ));
    }
    done.map_err(|(path, errno)| {
        Failure::user(format!(
            "cannot copy {} to {}: at {}",
            from.shown,
            to.shown,
            path.display()
        ))
        .caused_by(&io::Error::from(errno))
    })?;
    let Copied { files, bytes, .. } = copied;
    context
        .notices
        .say(&format!("{files} files, {}", bytesize::ByteSize(bytes)));
    Ok(ExitCode::SUCCESS)
}

/// `NAME:PATH`. What begins with `/` or `.` is a path here, whatever colons it has.
fn remote(text: &str) -> Option<(&str, &str)> {
    if text.starts_with(['/', '.']) {
        return None;
    }
    text.split_once(':').filter(|(name, _)| !name.contains('/'))
}

impl End {
    /// Of this machine.
    fn here(path: &str) -> Result<Self, Failure> {
        let root = openat(
            CWD,
            ".",
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        );
        Ok(Self {
            shown: path.to_owned(),
            root: root.map_err(|errno| {
                Failure::internal("cannot use this directory", &io::Error::from(errno))
            })?,
            way: PathBuf::from(path),
            owner: None,
            resolve: ResolveFlags::empty(),
        })
    }

    /// Of a sandbox.
    fn inside(status: &SandboxStatus, path: &str) -> Result<Self, Failure> {
        let shown = format!("{}:{path}", status.name);
        let path = Path::new(path);
        let workspace = status.home.with_file_name("workspace");
        let below = |root: &str| path.strip_prefix(root).ok().map(Path::to_owned);
        let (dir, way) = match (below(HOME), below(WORKSPACE)) {
            (Some(way), _) => (&status.home, way),
            (_, Some(way)) => (&workspace, way),
            _ if path.is_relative() => (&workspace, path.to_owned()),
            _ => {
                return Err(Failure::usage(format!(
                    "expected a path below {HOME} or {WORKSPACE}, got {shown}"
                )));
            }
        };
        if way.components().any(|part| part == Component::ParentDir) {
            return Err(Failure::usage(format!(
                "expected a path without .., got {shown}"
            )));
        }
        let failed = |errno: Errno| {
            Failure::user(format!("cannot use {}", dir.display()))
                .caused_by(&io::Error::from(errno))
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = openat(CWD, dir, flags, Mode::empty()).map_err(failed)?;
        let stat = fstat(&root).map_err(failed)?;
        Ok(Self {
            shown,
            root,
            way,
            owner: Some((Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid))),
            resolve: ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS,
        })
    }

    /// Opens what is there.
    fn open(&self, way: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let way = if way.as_os_str().is_empty() {
            Path::new(".")
        } else {
            way
        };
        openat2(
            &self.root,
            way,
            flags | OFlags::CLOEXEC,
            Mode::empty(),
            self.resolve,
        )
    }
}

type Failed = (PathBuf, Errno);

/// Copies a directory to where nothing is, with whose everything is; gives the number of files and of bytes in them. What
/// is neither file, directory nor link is left out.
pub(super) fn copy_tree(from: &Path, to: &Path) -> io::Result<(u64, u64)> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let source = openat(CWD, from, flags, Mode::empty())?;
    let stat = fstat(&source)?;
    let walk = Walk {
        owner: Some((Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid))),
    };
    let made = walk.directory((CWD, to), &stat)?;
    let mut copied = Copied::default();
    let done = walk.all((&source, &made), &mut copied);
    done.map_err(|(path, errno)| {
        let error = io::Error::from(errno);
        io::Error::new(
            error.kind(),
            format!("at {}: {error}", from.join(path).display()),
        )
    })?;
    Ok((copied.files, copied.bytes))
}

/// Copies the one into or over the other.
fn copy(from: &End, to: &End, copied: &mut Copied) -> Result<(), Failed> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |errno| (path, errno)
    };
    let name = from.way.file_name().unwrap_or_default().to_owned();
    let into = to.open(&to.way, OFlags::PATH | OFlags::DIRECTORY);
    let (above, name) = match into {
        // A directory that is there takes it in.
        Ok(dir) => (dir, name),
        Err(_) => {
            let above = to.way.parent().unwrap_or_else(|| Path::new(""));
            let dir = to
                .open(above, OFlags::PATH | OFlags::DIRECTORY)
                .map_err(at(above))?;
            (dir, to.way.file_name().unwrap_or_default().to_owned())
        }
    };
    let source_above = from.way.parent().unwrap_or_else(|| Path::new(""));
    let (source, source_name) = match from.way.file_name() {
        Some(name) => (
            from.open(source_above, OFlags::PATH | OFlags::DIRECTORY)
                .map_err(at(source_above))?,
            PathBuf::from(name),
        ),
        None => (
            from.open(&from.way, OFlags::PATH | OFlags::DIRECTORY)
                .map_err(at(&from.way))?,
            PathBuf::from("."),
        ),
    };
    let walk = Walk { owner: to.owner };
    let name = if name.is_empty() {
        PathBuf::from(".")
    } else {
        PathBuf::from(name)
    };
    walk.entry(
        (source.as_fd(), &source_name),
        (above.as_fd(), &name),
        copied,
    )
}

/// How what is written is made.
struct Walk {
    owner: Option<(Uid, Gid)>,
}

impl Walk {
    /// One name in a directory to another in another.
    fn entry(
        &self,
        (source, from): (BorrowedFd<'_>, &Path),
        (target, to): (BorrowedFd<'_>, &Path),
        copied: &mut Copied,
    ) -> Result<(), Failed> {
        let failed = |errno| (from.to_owned(), errno);
        let stat = statat(source, from, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => self
                .file((source, from), (target, to), copied)
                .map_err(failed),
            FileType::Symlink => self.link((source, from), (target, to)).map_err(failed),
            FileType::Directory => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let opened = openat(source, from, flags, Mode::empty()).map_err(failed)?;
                let made = self.directory((target, to), &stat).map_err(failed)?;
                self.all((&opened, &made), copied)
                    .map_err(|(path, errno)| (from.join(path), errno))
            }
            _ => {
                copied.left_out.push(from.to_owned());
                Ok(())
            }
        }
    }

    fn all(&self, (from, to): (&OwnedFd, &OwnedFd), copied: &mut Copied) -> Result<(), Failed> {
        let dir = Dir::read_from(from).map_err(|errno| (PathBuf::new(), errno))?;
        for entry in dir {
            let entry = entry.map_err(|errno| (PathBuf::new(), errno))?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let name = Path::new(OsStr::from_bytes(name));
            self.entry((from.as_fd(), name), (to.as_fd(), name), copied)?;
        }
        Ok(())
    }

    /// Written beside its name and renamed: whoever reads it has the one or the other.
    fn file(
        &self,
        (source, from): (BorrowedFd<'_>, &Path),
        (target, to): (BorrowedFd<'_>, &Path),
        copied: &mut Copied,
    ) -> Result<(), Errno> {
        // Not blocking: should it be a pipe by now, opening it must not wait for a writer.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = openat(source, from, flags, Mode::empty())?;
        let stat = fstat(&opened)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Errno::INVAL);
        }
        let mut beside = to.file_name().unwrap_or_default().to_owned();
        beside.push(".farrier-cp");
        let beside = to.with_file_name(beside);
        // One that was left by a copy that was cut off.
        match unlinkat(target, &beside, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(stat.st_mode) & Mode::from_raw_mode(0o777);
        let made = openat(target, &beside, flags, mode)?;
        self.take(&made)?;
        let written = made.try_clone().map_err(|_none| Errno::MFILE)?;
        let bytes = io::copy(&mut File::from(opened), &mut File::from(made));
        let bytes = bytes.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        futimens(&written, &times(&stat))?;
        rustix::fs::renameat(target, &beside, target, to)?;
        copied.files += 1;
        copied.bytes += bytes;
        Ok(())
    }

    fn link(
        &self,
        (source, from): (BorrowedFd<'_>, &Path),
        (target, to): (BorrowedFd<'_>, &Path),
    ) -> Result<(), Errno> {
        let leads_to = readlinkat(source, from, Vec::new())?;
        match unlinkat(target, to, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
        symlinkat(&leads_to, target, to)
    }

    fn directory(
        &self,
        (target, to): (BorrowedFd<'_>, &Path),
        stat: &Stat,
    ) -> Result<OwnedFd, Errno> {
        let mode = Mode::from_raw_mode(stat.st_mode) & Mode::from_raw_mode(0o777);
        let is_new = match mkdirat(target, to, mode) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(errno) => return Err(errno),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = openat(target, to, flags, Mode::empty())?;
        if is_new {
            self.take(&made)?;
        }
        Ok(made)
    }

    /// Makes something new the sandbox's user's; here it stays whoever runs this.
    fn take(&self, what: &OwnedFd) -> Result<(), Errno> {
        match self.owner {
            Some((uid, gid)) if rustix::process::geteuid().is_root() => {
                fchown(what, Some(uid), Some(gid))
            }
            _ => Ok(()),
        }
    }
}

/// When a file was last read and changed.
fn times(stat: &Stat) -> Timestamps {
    let time = |seconds, nanoseconds: u64| Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanoseconds).unwrap_or_default(),
    };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn end(dir: &Path, way: &str) -> End {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        End {
            shown: way.to_owned(),
            root: openat(CWD, dir, flags, Mode::empty()).unwrap(),
            way: PathBuf::from(way),
            owner: None,
            resolve: ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS,
        }
    }

    #[test]
    fn a_tree_is_copied_with_its_links_and_without_what_is_no_file() {
        let place = tempfile::tempdir().unwrap();
        let (a, b) = (place.path().join("a"), place.path().join("b"));
        fs::create_dir_all(a.join("tree/below")).unwrap();
        fs::create_dir(&b).unwrap();
        fs::write(a.join("tree/below/file"), "text").unwrap();
        symlink("/etc/passwd", a.join("tree/link")).unwrap();
        rustix::fs::mknodat(CWD, a.join("tree/pipe"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        let mut copied = Copied::default();
        copy(&end(&a, "tree"), &end(&b, ""), &mut copied).unwrap();
        assert_eq!(
            fs::read_to_string(b.join("tree/below/file")).unwrap(),
            "text"
        );
        assert_eq!(
            fs::read_link(b.join("tree/link")).unwrap(),
            Path::new("/etc/passwd")
        );
        assert!(!b.join("tree/pipe").exists());
        assert_eq!(
            (copied.files, copied.bytes, copied.left_out.len()),
            (1, 4, 1)
        );
    }

    #[test]
    fn no_link_leads_out_of_a_sandbox() {
        let place = tempfile::tempdir().unwrap();
        let (inside, outside) = (place.path().join("inside"), place.path().join("outside"));
        for dir in [&inside, &outside] {
            fs::create_dir(dir).unwrap();
        }
        fs::write(outside.join("secret"), "canary").unwrap();
        fs::write(inside.join("file"), "text").unwrap();
        symlink(&outside, inside.join("dir")).unwrap();
        symlink(outside.join("secret"), inside.join("name")).unwrap();
        let mut copied = Copied::default();
        // Reading and writing through a directory that is a link.
        let read = copy(
            &end(&inside, "dir/secret"),
            &end(&inside, "got"),
            &mut copied,
        );
        assert_eq!(read.unwrap_err().1, Errno::XDEV);
        let written = copy(
            &end(&inside, "file"),
            &end(&inside, "dir/file"),
            &mut copied,
        );
        assert_eq!(written.unwrap_err().1, Errno::XDEV);
        // A name that is a link is replaced, not followed.
        copy(&end(&inside, "file"), &end(&inside, "name"), &mut copied).unwrap();
        assert_eq!(
            fs::read_to_string(outside.join("secret")).unwrap(),
            "canary"
        );
        assert_eq!(fs::read_to_string(inside.join("name")).unwrap(), "text");
        assert!(!outside.join("file").exists());
    }

    #[test]
    fn a_name_with_a_colon_is_in_a_sandbox_unless_it_is_a_path() {
        assert_eq!(remote("work:notes.txt"), Some(("work", "notes.txt")));
        assert_eq!(remote("work:/home/agent"), Some(("work", "/home/agent")));
        for here in ["notes.txt", "./a:b", "/a:b", "dir/a:b"] {
            assert_eq!(remote(here), None, "{here}");
        }
    }
}
