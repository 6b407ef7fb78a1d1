//! A session bus of its own, and a real Secret Service on it: GNOME's keyring, open.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use crate::process::{Process, Said};

/// What keeps secrets for a session. Ended with its bus when dropped.
#[derive(Debug)]
pub(crate) struct Keyring {
    _daemon: Process,
    _bus: Process,
    address: String,
}

/// The name under which a Secret Service is on the bus.
const SERVICE: &str = "org.freedesktop.secrets";
/// Of the keyring's own file.
const PASSWORD: &[u8] = b"the owner's password\n";

// === impl Keyring ===

impl Keyring {
    /// Starts both, what they keep being in `home`, and waits until secrets can be kept.
    pub(crate) fn open(home: &Path) -> Self {
        expect_installed();
        let command = |program: &str| {
            let mut command = Command::new(program);
            command
                .env_clear()
                .env("PATH", std::env::var_os("PATH").unwrap_or_default())
                .env("HOME", home)
                .env("XDG_RUNTIME_DIR", home.join("run"))
                .current_dir(home);
            command
        };
        fs::create_dir_all(home.join("run")).unwrap();
        fs::set_permissions(home.join("run"), fs::Permissions::from_mode(0o700)).unwrap();
        let mut bus = command("dbus-daemon");
        bus.args(["--session", "--nofork", "--nosyslog", "--print-address"]);
        let mut bus = Process::start("dbus-daemon", &mut bus);
        let address = bus.until(|said| first_line(&said.stdout));
        // Whoever watches before the keyring comes is told that it came.
        let mut watch = command("dbus-monitor");
        watch
            .arg("--session")
            .env("DBUS_SESSION_BUS_ADDRESS", &address);
        let mut watch = Process::start("dbus-monitor", &mut watch);
        watch.until(|said| first_line(&said.stdout));
        let mut daemon = command("gnome-keyring-daemon");
        daemon
            .args(["--foreground", "--unlock", "--components=secrets"])
            .env("DBUS_SESSION_BUS_ADDRESS", &address);
        let mut daemon = Process::start("gnome-keyring-daemon", &mut daemon);
        daemon.feed(PASSWORD);
        watch.until(owned);
        Self {
            _daemon: daemon,
            _bus: bus,
            address,
        }
    }

    /// What a command is told to find it.
    pub(crate) fn variables(&self) -> Vec<(&'static str, OsString)> {
        vec![("DBUS_SESSION_BUS_ADDRESS", self.address.clone().into())]
    }
}

fn first_line(text: &str) -> Option<String> {
    let (line, _) = text.split_once('\n')?;
    Some(line.to_owned())
}

fn owned(said: &Said) -> Option<()> {
    let mut lines = said.stdout.lines();
    lines.find(|line| line.contains("NameOwnerChanged"))?;
    let name = format!("string \"{SERVICE}\"");
    lines.find(|line| line.trim() == name).map(|_| ())
}

fn expect_installed() {
    for program in ["dbus-daemon", "dbus-monitor", "gnome-keyring-daemon"] {
        let found = Command::new(program).arg("--version").output();
        assert!(
            found.is_ok(),
            "expected {program}, which keys in a keyring are tested with, got none; \
             install it with: apt-get install -y dbus gnome-keyring"
        );
    }
}
