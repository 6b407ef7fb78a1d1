//! A terminal in a sandbox, from a terminal here.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::{Child, Command};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcgetattr, tcsetwinsize};
use serde_json::json;

use super::{PATIENCE, Stage};
use crate::home::Home;

/// Somebody at a terminal, whose command has it for its own.
struct Seat {
    child: Child,
    terminal: File,
    seen: String,
}

impl Seat {
    fn take(home: &Home, arguments: &[&str], (rows, cols): (u16, u16)) -> Self {
        let terminal =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&terminal).unwrap();
        unlockpt(&terminal).unwrap();
        resize(&terminal, (rows, cols));
        let name = ptsname(&terminal, Vec::new()).unwrap();
        let theirs = File::options()
            .read(true)
            .write(true)
            .open(name.to_str().unwrap())
            .unwrap();
        // It is told of another size by the system only if the terminal is its own.
        let mut command = Command::new("setsid");
        command
            .arg("--ctty")
            .arg(env!("CARGO_BIN_EXE_farrier"))
            .args(arguments)
            .env_clear();
        home.at_home(&mut command);
        command
            .env("TERM", "xterm")
            .stdin(theirs.try_clone().unwrap())
            .stdout(theirs.try_clone().unwrap())
            .stderr(theirs);
        Self {
            child: command.spawn().unwrap(),
            terminal: File::from(terminal),
            seen: String::new(),
        }
    }

    fn type_in(&mut self, text: &str) {
        self.terminal.write_all(text.as_bytes()).unwrap();
    }

    /// Looks until this is there, which was not before.
    fn until(&mut self, shown: &str) {
        loop {
            if let Some(at) = self.seen.find(shown) {
                self.seen.drain(..at + shown.len());
                return;
            }
            let mut readable = [PollFd::new(&self.terminal, PollFlags::IN)];
            let within = Timespec {
                tv_sec: PATIENCE,
                tv_nsec: 0,
            };
            assert_eq!(
                poll(&mut readable, Some(&within)).unwrap(),
                1,
                "no {shown:?} in {:?}",
                self.seen
            );
            let mut bytes = [0; 4096];
            let read = self.terminal.read(&mut bytes);
            let read =
                read.unwrap_or_else(|error| panic!("no {shown:?} in {:?}: {error}", self.seen));
            self.seen.push_str(&String::from_utf8_lossy(&bytes[..read]));
        }
    }

    /// Waits for the command's end; the terminal is as it was then.
    fn ended(mut self) -> Option<i32> {
        let code = self.child.wait().unwrap().code();
        let modes = tcgetattr(&self.terminal).unwrap().local_modes;
        assert!(
            modes.contains(rustix::termios::LocalModes::ICANON),
            "still raw"
        );
        code
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn resize(terminal: &impl std::os::fd::AsFd, (rows, cols): (u16, u16)) {
    let size = Winsize {
        ws_row: rows,
        ws_col: cols,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(terminal, size).unwrap();
}

const CONNECT: [&str; 3] = ["sandbox", "connect", "work"];

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_has_the_size_of_ours_and_follows_it() {
    let stage = Stage::set().await;
    stage.make("work", &[]);
    let mut seat = Seat::take(&stage.home, &CONNECT, (31, 99));
    seat.until("Ctrl-] leaves it");
    seat.type_in("stty size; echo $TERM\r");
    seat.until("31 99");
    seat.until("xterm");
    // Quoted within, so that what is typed is not what is awaited.
    seat.type_in("sh -c 'trap \"stty size; exit 0\" WINCH; echo rea\"\"dy; while :; do sleep 1 & wait $!; done'\r");
    seat.until("ready");
    resize(&seat.terminal, (40, 120));
    seat.until("40 120");
    seat.type_in("exit 5\r");
    assert_eq!(seat.ended(), Some(5));
    assert_eq!(stage.status("work")["sessions"], json!([]));
    stage.ends_well();
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_is_for_what_runs_inside() {
    let stage = Stage::set().await;
    stage.make("work", &[]);
    let mut seat = Seat::take(&stage.home, &CONNECT, (24, 80));
    seat.type_in("sh -c 'echo slee\"\"ping; exec sleep 3600'\r");
    seat.until("sleeping");
    seat.type_in("\x03");
    seat.type_in("echo \"it was $?\"\r");
    seat.until("it was 130");
    seat.type_in("kill -9 $$\r");
    assert_eq!(seat.ended(), Some(137));

    let tty = [
        "sandbox",
        "exec",
        "work",
        "--tty",
        "--",
        "sh",
        "-c",
        "test -t 0 && echo a terminal; exec sleep 3600",
    ];
    let mut seat = Seat::take(&stage.home, &tty, (24, 80));
    seat.until("a terminal");
    seat.type_in("\x03");
    assert_eq!(seat.ended(), Some(130));
    stage.ends_well();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_that_was_left_goes_on_and_is_come_back_to() {
    let stage = Stage::set().await;
    stage.make("work", &[]);
    let mut seat = Seat::take(&stage.home, &CONNECT, (24, 80));
    seat.type_in("WORD=kept; echo ear''lier\r");
    seat.until("earlier");
    // What was typed before it, at once, goes in.
    seat.type_in("echo ty''ped\r\x1d");
    seat.until("farrier sandbox connect work comes back to it");
    assert_eq!(seat.ended(), Some(0));
    let sessions = stage.status("work")["sessions"].clone();
    assert_eq!(
        (sessions.as_array().unwrap().len(), &sessions[0]["attached"]),
        (1, &json!(false))
    );

    let mut seat = Seat::take(&stage.home, &CONNECT, (24, 80));
    seat.until("the terminal that was left");
    seat.until("earlier");
    seat.until("typed");
    seat.type_in("echo $WORD$((6*7))\r");
    seat.until("kept42");
    assert_eq!(stage.status("work")["sessions"][0]["attached"], true);
    // It is taken, so a third is another one.
    let mut other = Seat::take(&stage.home, &CONNECT, (24, 80));
    other.until("a terminal in work");
    other.type_in("echo [$WORD]$((6*7))\r");
    other.until("[]42");
    other.type_in("exit\r");
    assert_eq!(other.ended(), Some(0));
    seat.type_in("exit 4\r");
    assert_eq!(seat.ended(), Some(4));
    stage.ends_well();
}
