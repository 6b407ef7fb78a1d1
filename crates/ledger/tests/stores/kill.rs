//! What was acknowledged survives SIGKILL.
//!
//! The test starts this test binary again as the writer, which prints the number of each record
//! once it is acknowledged, and is killed in the middle of it. Nobody has told the writer that it
//! would end.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::suite::{entry, held, key, together};
use farrier_ledger::{Embedded, EmbeddedConfig, Ledger as _, Scope};

/// Names the ledger to the writer.
const LEDGER: &str = "FARRIER_TEST_LEDGER";
/// Names the first number that the writer uses.
const FIRST: &str = "FARRIER_TEST_FIRST";
const ACKNOWLEDGED: &str = "acknowledged ";
const ROUNDS: u64 = 4;
/// Far more than a writer gets to, so that it is killed at work; and an end, should its parent die
/// first.
const NUMBERS_PER_ROUND: u64 = 200_000;
const AT_ONCE: u64 = 8;

fn scope() -> Scope {
    Scope::new("killed")
}

fn turn(number: u64) -> String {
    format!("turn {number} {}", "reasoning ".repeat(200))
}

#[test]
#[ignore = "the writer's half, which the test below starts in a process of its own"]
#[expect(
    clippy::disallowed_methods,
    reason = "how a test binary is told that it is the writer"
)]
fn writer() {
    let (Ok(path), Ok(first)) = (std::env::var(LEDGER), std::env::var(FIRST)) else {
        return;
    };
    let first: u64 = first.parse().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let ledger = &Embedded::open(EmbeddedConfig::new(path)).unwrap();
        let write = async |number: u64| {
            ledger
                .record(&scope(), entry(&[number], turn(number)))
                .await
                .unwrap();
            // Straight to the pipe: what waits in a buffer when the process is killed was never
            // acknowledged.
            std::io::stdout()
                .write_all(format!("\n{ACKNOWLEDGED}{number}\n").as_bytes())
                .unwrap();
            std::io::stdout().flush().unwrap();
        };
        for group in (first..first + NUMBERS_PER_ROUND).step_by(AT_ONCE.try_into().unwrap()) {
            together((group..group + AT_ONCE).map(write)).await;
        }
    });
}

fn start_writer(ledger: &Path, first: u64) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([
        "--exact",
        "kill::writer",
        "--ignored",
        "--nocapture",
        "--test-threads=1",
    ]);
    command.env(LEDGER, ledger).env(FIRST, first.to_string());
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Reads acknowledgements, kills the writer after so many, and returns all that it got to print.
fn kill_after(acknowledgements: usize, mut writer: Child) -> Vec<u64> {
    let lines = BufReader::new(writer.stdout.take().unwrap()).lines();
    let mut acknowledged = Vec::new();
    for line in lines {
        let line = line.unwrap();
        acknowledged.extend(
            line.strip_prefix(ACKNOWLEDGED)
                .and_then(|number| number.parse::<u64>().ok()),
        );
        if acknowledged.len() == acknowledgements {
            writer.kill().unwrap();
        }
    }
    let status = writer.wait().unwrap();
    assert!(
        !status.success(),
        "the writer was killed, it did not finish"
    );
    assert!(
        acknowledged.len() >= acknowledgements,
        "the writer ended by itself: {status}"
    );
    acknowledged
}

#[test]
fn every_acknowledged_record_survives_sigkill() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.db");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut acknowledged = Vec::new();
    for round in 0..ROUNDS {
        // Early, in mid-stream, and after the log has been folded into the file a few times.
        let wanted = [1, 37, 500, 3000][usize::try_from(round).unwrap()];
        acknowledged.extend(kill_after(
            wanted,
            start_writer(&path, round * NUMBERS_PER_ROUND),
        ));

        runtime.block_on(async {
            let ledger = Embedded::open(EmbeddedConfig::new(&path)).unwrap();
            let keys: Vec<_> = acknowledged.iter().copied().map(key).collect();
            for (numbers, keys) in acknowledged.chunks(1000).zip(keys.chunks(1000)) {
                let found = ledger.recall(&scope(), keys).await.unwrap().values;
                let expected: Vec<Vec<String>> =
                    numbers.iter().map(|number| vec![turn(*number)]).collect();
                assert!(
                    found == expected,
                    "a record that was acknowledged is missing or changed"
                );
            }
            assert!(held(ledger.stats()).0 >= acknowledged.len() as u64);
            ledger.ready().await.unwrap();
            ledger.close().await.unwrap();
        });
    }
}
