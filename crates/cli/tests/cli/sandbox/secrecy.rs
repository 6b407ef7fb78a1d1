//! The provider's key, looked for wherever programs in a sandbox can look, and in their memory from outside.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::{CANARY, KIMI, Stage, completion, ground, processes, reply};

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|window| window == text.as_bytes())
}

/// What can be read of a process's memory.
fn memory(pid: u32) -> Vec<u8> {
    let mut all = Vec::new();
    let (Ok(maps), Ok(file)) = (
        fs::read_to_string(format!("/proc/{pid}/maps")),
        File::open(format!("/proc/{pid}/mem")),
    ) else {
        return all;
    };
    for line in maps.lines() {
        let (range, rest) = line.split_once(' ').unwrap();
        // What is mapped from files is looked at as files are.
        if !rest.starts_with("rw") || rest.ends_with("[vvar]") {
            continue;
        }
        let (from, to) = range.split_once('-').unwrap();
        let address = |text| u64::from_str_radix(text, 16).unwrap();
        let (mut at, to) = (address(from), address(to));
        let mut page = [0; 4096];
        while at < to {
            // A page that was never there holds nothing.
            let read = file.read_at(&mut page, at).unwrap_or(0);
            all.extend(&page[..read]);
            at += 4096;
        }
    }
    all
}

fn files(below: &Path, found: &mut Vec<Vec<u8>>) {
    for entry in fs::read_dir(below).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            files(&entry.path(), found);
        } else if kind.is_file() {
            found.push(fs::read(entry.path()).unwrap());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_of_the_gateway_is_nowhere_in_a_sandbox() {
    const MARK: &str = "planted-to-be-found";
    let stage = Stage::set().await;
    stage.make("work", &[]);
    // One that is there meanwhile, and what shows that looking finds.
    let sleeper = "echo $MARK > ~/mark; echo ready >&2; read -r line; echo $MARK";
    let mark = format!("MARK={MARK}");
    let mut running = stage.home.start(&[
        "sandbox",
        "exec",
        "work",
        "--env",
        &mark,
        "--",
        "sh",
        "-c",
        &format!(": {MARK}; sleep 3600 & {sleeper}; wait"),
    ]);
    running.line("ready");
    // The key has been used by then.
    let asking = completion(KIMI, false);
    let curl = stage
        .home
        .start(&["sandbox", "exec", "work", "--", "sh", "-c", &asking]);
    let (mut peer, request) = stage.provider.recv().await;
    assert!(holds(
        request.headers.first("authorization").unwrap().as_bytes(),
        CANARY
    ));
    peer.reply("200 OK\r\ncontent-type: application/json", reply("well"))
        .await;
    assert_eq!(curl.ended().code, Some(0));

    let look = "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n'; cat ~/* /tmp/* /etc/farrier/* /dev/shm/* 2>/dev/null; env";
    let within = stage.said("work", &format!("{look}; true"));
    assert!(
        within.contains(&mark) && !within.contains(CANARY),
        "{within}"
    );

    let mut written = Vec::new();
    files(&ground(&stage.home), &mut written);
    assert!(written.iter().any(|file| holds(file, MARK)));
    assert!(!written.iter().any(|file| holds(file, CANARY)));

    let pids = processes(stage.home.path());
    assert!(pids.len() >= 2, "{pids:?}");
    let mut marked = 0;
    for pid in pids {
        for part in ["environ", "cmdline"] {
            let bytes = fs::read(format!("/proc/{pid}/{part}")).unwrap_or_default();
            assert!(!holds(&bytes, CANARY), "{part} of {pid}");
        }
        let memory = memory(pid);
        marked += usize::from(holds(&memory, MARK));
        assert!(!holds(&memory, CANARY), "memory of {pid}");
    }
    assert!(marked > 0, "no memory could be looked at");
    drop(running);
    let said = stage.ends_well();
    assert!(!said.contains(CANARY));
}
