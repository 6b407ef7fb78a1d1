//! The commands that the demonstration's client runs: answered by this program, from an allow-list, without a shell.

use std::time::{Duration, UNIX_EPOCH};

use farrier_ledger::{Clock as _, SystemClock};

/// What the command prints, or why it is not run.
pub(super) fn run(command: &str) -> String {
    match command {
        "hostname" => rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned(),
        "date" => {
            let now = UNIX_EPOCH + Duration::from_millis(SystemClock.unix_millis());
            humantime::format_rfc3339_seconds(now).to_string()
        }
        "uptime" => uptime(),
        _ => match command.strip_prefix("echo ") {
            Some(words) => words.to_owned(),
            None => "refused: expected hostname, date, uptime or echo".to_owned(),
        },
    }
}

fn uptime() -> String {
    let text = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    let seconds = text
        .split(['.', ' '])
        .next()
        .and_then(|seconds| seconds.parse().ok());
    match seconds {
        Some(seconds) => format!(
            "up {}",
            humantime::format_duration(Duration::from_secs(seconds))
        ),
        None => "up for an unknown time".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_commands_of_the_list_are_run() {
        assert_eq!(run("echo round-1"), "round-1");
        assert!(!run("hostname").is_empty());
        assert!(run("date").ends_with('Z'));
        assert!(run("uptime").starts_with("up "));
        for other in ["hostname; date; uptime", "rm -rf /", "", "echo"] {
            assert!(run(other).starts_with("refused"), "{other}");
        }
    }
}
