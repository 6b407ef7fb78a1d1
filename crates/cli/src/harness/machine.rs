//! What this machine is, in the words of packages.

use std::path::Path;

/// A platform, as npm's `os`, `cpu` and `libc` name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Machine {
    pub(crate) os: &'static str,
    pub(crate) cpu: &'static str,
    pub(crate) libc: &'static str,
}

/// Rust's name of an architecture, and npm's.
const ARCHITECTURES: &[(&str, &str)] = &[("aarch64", "arm64"), ("x86_64", "x64")];

impl Machine {
    /// The one we run on. Which C library it has is read off its loader, as we may be linked with none.
    pub(crate) fn this() -> Self {
        let row = ARCHITECTURES
            .iter()
            .find(|(rust, _)| *rust == std::env::consts::ARCH);
        let musl = |cpu: &str| Path::new(&format!("/lib/ld-musl-{cpu}.so.1")).exists();
        let glibc = [
            "/lib64/ld-linux-x86-64.so.2",
            "/lib/ld-linux-aarch64.so.1",
            "/lib/ld-linux-riscv64-lp64d.so.1",
        ];
        let has_glibc = glibc.iter().any(|loader| Path::new(loader).exists());
        Self {
            os: std::env::consts::OS,
            cpu: row.map_or(std::env::consts::ARCH, |(_, npm)| npm),
            libc: match has_glibc || !musl(std::env::consts::ARCH) {
                true => "glibc",
                false => "musl",
            },
        }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} ({})", self.os, self.cpu, self.libc)
    }
}
