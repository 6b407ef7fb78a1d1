//! The sandbox's root and what is mounted in it.
//!
//! Everything is done by descriptor. What comes from the host is opened without following a symbolic link, made read-only
//! while nobody can see it, and only then shown. Where it is shown is looked up after the host's root is gone, and again
//! without following links: there is no path by which one could lead outside.

use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, openat2};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount,
    fsopen, mount_change, move_mount, open_tree, unmount,
};

use super::raw::{MountProperties, set_mount_properties};
use super::{Ground, errno};
use crate::policy::{Access, File, Tmpfs};
use crate::steps::{CHANGES, LOWER, Step};

pub(super) fn take(ground: &mut Ground, step: &Step) -> Result<(), Errno> {
    match step {
        Step::OpenTree {
            tree,
            source,
            access,
            device,
        } => {
            let opened = open_from_host(source, *access, *device)?;
            let missing = (*tree + 1).saturating_sub(ground.trees.len());
            ground
                .trees
                .extend(std::iter::repeat_with(|| None).take(missing));
            if let Some(slot) = ground.trees.get_mut(*tree) {
                *slot = Some(opened);
            }
            Ok(())
        }
        Step::PrivateMounts => mount_change(
            "/",
            MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
        ),
        Step::Proc => {
            ground.proc = Some(process_file_system()?);
            Ok(())
        }
        Step::EmptyRoot { size_bytes } => {
            ground.root = Some(lay_root(memory(*size_bytes, 0o755)?)?);
            Ok(())
        }
        Step::Overlay => {
            ground.root = Some(lay_root(overlay()?)?);
            Ok(())
        }
        Step::EnterRoot => enter(ground),
        Step::Attach { tree, target } => {
            let opened = ground.trees.get_mut(*tree).and_then(Option::take);
            attach(&opened.ok_or(Errno::BADF)?, target)
        }
        Step::AttachProc => attach(&ground.proc.take().ok_or(Errno::BADF)?, Path::new("/proc")),
        Step::HideProc { name, directory } => {
            hide(ground, &Path::new("/proc").join(name), *directory)
        }
        Step::SealProc { name } => seal(&Path::new("/proc").join(name)),
        Step::Memory(tmpfs) => mount_memory(tmpfs),
        Step::Terminals => attach(&terminals()?, Path::new("/dev/pts")),
        Step::Link { path, target } => link(path, target),
        Step::Directory(path) => directory(path).map(drop),
        Step::Write(file) => write(file),
        Step::SealRoot => {
            let root = ground.root.as_ref().ok_or(Errno::BADF)?;
            set_mount_properties(root.as_fd(), once(MountAttrFlags::MOUNT_ATTR_RDONLY))
        }
        _ => Err(Errno::NOSYS),
    }
}

/// Written through the process file system before it is shown, which is the last moment at which it can be.
pub(super) fn no_nested_namespaces(ground: &Ground) -> Result<(), Errno> {
    let proc = ground.proc.as_ref().ok_or(Errno::BADF)?;
    let sysctl = openat2(
        proc,
        "sys/user/max_user_namespaces",
        OFlags::WRONLY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH,
    )?;
    rustix::io::write(&sysctl, b"0").map(drop)
}

fn open_from_host(source: &Path, access: Access, device: bool) -> Result<OwnedFd, Errno> {
    let opened = openat2(
        CWD,
        source,
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::NO_SYMLINKS,
    )?;
    let kind = FileType::from_raw_mode(fstat(&opened)?.st_mode);
    // Only what is listed as a device is one; a bind of anything else that acts is a mistake.
    let acts = !matches!(kind, FileType::Directory | FileType::RegularFile);
    if acts != device {
        return Err(Errno::INVAL);
    }
    let tree = open_tree(
        &opened,
        "",
        OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH
            | OpenTreeFlags::AT_RECURSIVE,
    )?;
    let mut properties = MountAttrFlags::MOUNT_ATTR_NOSUID;
    properties |= if device {
        MountAttrFlags::MOUNT_ATTR_NOEXEC
    } else {
        MountAttrFlags::MOUNT_ATTR_NODEV
    };
    if access == Access::ReadOnly {
        properties |= MountAttrFlags::MOUNT_ATTR_RDONLY;
    }
    let properties = MountProperties {
        recursive: true,
        ..once(properties)
    };
    set_mount_properties(tree.as_fd(), properties)?;
    Ok(tree)
}

fn once(properties: MountAttrFlags) -> MountProperties {
    MountProperties {
        bits: u64::from(properties.bits()),
        recursive: false,
    }
}

fn process_file_system() -> Result<OwnedFd, Errno> {
    let context = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "hidepid", "invisible")?;
    fsconfig_create(&context)?;
    let safe = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, safe)
}

fn terminals() -> Result<OwnedFd, Errno> {
    let context = fsopen("devpts", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "ptmxmode", "0666")?;
    fsconfig_set_string(&context, "mode", "0620")?;
    fsconfig_create(&context)?;
    let safe = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, safe)
}

fn memory(size_bytes: u64, mode: u32) -> Result<OwnedFd, Errno> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "size", size_bytes.to_string())?;
    fsconfig_set_string(&context, "mode", format!("{mode:o}"))?;
    fsconfig_create(&context)?;
    let safe = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, safe)
}

fn overlay() -> Result<OwnedFd, Errno> {
    let changes = Path::new(CHANGES);
    let (upper, work) = (changes.join("upper"), changes.join("work"));
    directory(&upper)?;
    directory(&work)?;
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "lowerdir", LOWER)?;
    fsconfig_set_string(&context, "upperdir", upper)?;
    fsconfig_set_string(&context, "workdir", work)?;
    fsconfig_set_flag(&context, "userxattr")?;
    fsconfig_create(&context)?;
    let safe = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, safe)
}

/// Mounts a root over the present one, which whoever looks up a path does not see yet.
fn lay_root(root: OwnedFd) -> Result<OwnedFd, Errno> {
    show(root.as_fd(), CWD, "/")?;
    Ok(root)
}

fn enter(ground: &mut Ground) -> Result<(), Errno> {
    let root = ground.root.as_ref().ok_or(Errno::BADF)?;
    rustix::process::fchdir(root)?;
    // The old root comes to lie over the new one, where it is let go of: no directory is needed for it.
    rustix::process::pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")
}

fn attach(mount: &OwnedFd, target: &Path) -> Result<(), Errno> {
    let place = match FileType::from_raw_mode(fstat(mount)?.st_mode) {
        FileType::Directory => directory(target)?,
        _ => file(target, 0o644, OFlags::PATH)?,
    };
    show(mount.as_fd(), place.as_fd(), "")
}

fn show(mount: BorrowedFd<'_>, at: BorrowedFd<'_>, path: &str) -> Result<(), Errno> {
    let mut flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    if path.is_empty() {
        flags |= MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    }
    move_mount(mount, "", at, path, flags)
}

fn mount_memory(tmpfs: &Tmpfs) -> Result<(), Errno> {
    let mount = memory(tmpfs.size_bytes, tmpfs.mode)?;
    attach(&mount, &tmpfs.path)
}

fn hide(ground: &mut Ground, path: &Path, is_directory: bool) -> Result<(), Errno> {
    let place = match existing(path) {
        // It was there when the host's was looked at and is gone, or is not shown to this namespace.
        Err(Errno::NOENT) => return Ok(()),
        place => place?,
    };
    if !is_directory {
        let nothing = clone_mount(existing(Path::new("/dev/null"))?.as_fd())?;
        return show(nothing.as_fd(), place.as_fd(), "");
    }
    if let Some(nothing) = &ground.nothing {
        return show(clone_mount(nothing.as_fd())?.as_fd(), place.as_fd(), "");
    }
    let nothing = memory(4096, 0o555)?;
    set_mount_properties(nothing.as_fd(), once(MountAttrFlags::MOUNT_ATTR_RDONLY))?;
    show(nothing.as_fd(), place.as_fd(), "")?;
    // One empty directory serves for all, once it is mounted: what is not cannot be copied on older kernels.
    ground.nothing = Some(existing(path)?);
    Ok(())
}

fn seal(path: &Path) -> Result<(), Errno> {
    let place = match existing(path) {
        Err(Errno::NOENT) => return Ok(()),
        place => place?,
    };
    let sealed = clone_mount(place.as_fd())?;
    set_mount_properties(sealed.as_fd(), once(MountAttrFlags::MOUNT_ATTR_RDONLY))?;
    show(sealed.as_fd(), place.as_fd(), "")
}

fn clone_mount(place: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    open_tree(
        place,
        "",
        OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH,
    )
}

fn existing(path: &Path) -> Result<OwnedFd, Errno> {
    openat2(
        CWD,
        path,
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::NO_SYMLINKS,
    )
}

/// The directory at `path`, made with all above it as far as it is not there.
fn directory(path: &Path) -> Result<OwnedFd, Errno> {
    let mut here = existing(Path::new("/"))?;
    for component in path.components() {
        let Component::Normal(name) = component else {
            continue;
        };
        let open = || {
            openat2(
                &here,
                name,
                OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
                ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
            )
        };
        let next = match open() {
            Err(Errno::NOENT) => {
                mkdirat(&here, name, Mode::from_raw_mode(0o755))?;
                open()?
            }
            next => next?,
        };
        here = next;
    }
    Ok(here)
}

/// The file at `path`, made empty with all above it if it is not there.
fn file(path: &Path, mode: u32, how: OFlags) -> Result<OwnedFd, Errno> {
    let name = path.file_name().ok_or(Errno::INVAL)?;
    let parent = directory(path.parent().ok_or(Errno::INVAL)?)?;
    let open = |how, mode| {
        openat2(
            &parent,
            name,
            how | OFlags::CLOEXEC | OFlags::NOFOLLOW,
            mode,
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
        )
    };
    let made = open(
        OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY,
        Mode::from_raw_mode(mode),
    );
    match made {
        Err(Errno::EXIST) => open(how, Mode::empty()),
        Ok(made) if how == OFlags::PATH => {
            drop(made);
            open(how, Mode::empty())
        }
        made => made,
    }
}

fn write(file: &File) -> Result<(), Errno> {
    let opened = self::file(&file.path, file.mode, OFlags::WRONLY | OFlags::TRUNC)?;
    std::fs::File::from(opened)
        .write_all(file.contents.as_bytes())
        .map_err(|error| errno(&error))
}

fn link(path: &Path, target: &Path) -> Result<(), Errno> {
    let name = path.file_name().ok_or(Errno::INVAL)?;
    let parent = directory(path.parent().ok_or(Errno::INVAL)?)?;
    match rustix::fs::symlinkat(target, &parent, name) {
        // A system of one's own has it, or a sandbox that keeps its changes made it the last time.
        Err(Errno::EXIST) => Ok(()),
        made => made,
    }
}
