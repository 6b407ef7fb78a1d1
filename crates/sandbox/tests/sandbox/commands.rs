//! Commands in a sandbox: streams, terminals, signals, limits, listeners; as root and as a plain user.

use farrier_sandbox::{Exec, ExecError, Exit, Io, WindowSize};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::support::{Bench, Who, whoever_this_is};

for_both! {
    a_command_runs_as_the_sandboxes_user_in_its_home_with_the_policys_environment
    what_a_command_reads_and_writes_and_how_it_ends_arrives
    a_command_that_is_not_there_is_refused_with_the_stage_and_the_reason
    a_terminal_has_the_size_that_was_asked_for_and_is_the_commands_own
    control_c_on_a_terminal_interrupts_the_command
    a_signal_reaches_the_whole_process_group
    every_address_arrives_at_the_listeners_with_the_one_that_was_asked_for
    a_private_home_outlives_its_sandbox
    a_directory_with_a_system_is_laid_under_the_sandboxes_changes
    a_read_only_bind_is_not_written_to
    programs_find_what_they_expect_of_a_system
}

fn a_command_runs_as_the_sandboxes_user_in_its_home_with_the_policys_environment(who: Who) {
    let Some(bench) = Bench::new(who) else { return };
    let mut policy = bench.policy();
    policy
        .environment
        .insert("GREETING".to_owned(), "good day".to_owned());
    let said = bench.output(&policy, &["sh", "-c", "id -u; pwd; hostname; env | sort"]);
    let expected = "\
1000
/home/agent
box
GREETING=good day
HOME=/home/agent
LANG=C.UTF-8
LOGNAME=agent
PATH=/usr/local/bin:/usr/bin:/bin
PWD=/home/agent
SHELL=/bin/sh
USER=agent
";
    assert_eq!(said, expected);
}

fn what_a_command_reads_and_writes_and_how_it_ends_arrives(who: Who) {
    let Some(bench) = Bench::new(who) else { return };
    let commands = [
        json!({ "argv": ["sh", "-c", "cat; echo oh >&2; exit 7"], "stdin": "words" }),
        json!({ "argv": ["sh", "-c", "kill -TERM $$"] }),
    ];
    let report = bench.run(&bench.policy(), &commands);
    assert!(report.landlock_abi >= Some(1));
    let [first, second] = report.outcomes.as_slice() else {
        panic!("expected two outcomes, got {report:?}");
    };
    assert_eq!(
        (first.stdout.as_str(), first.stderr.as_str()),
        ("words", "oh\n")
    );
    assert_eq!((first.exit, second.exit), (Some(7), Some(128 + 15)));
}

fn a_command_that_is_not_there_is_refused_with_the_stage_and_the_reason(who: Who) {
    let Some(bench) = Bench::new(who) else { return };
    let commands = [
        json!({ "argv": ["no-such-program"] }),
        json!({ "argv": ["/etc/passwd"] }),
        json!({ "argv": ["true"] }),
    ];
    let report = bench.run(&bench.policy(), &commands);
    let errors: Vec<_> = report
        .outcomes
        .iter()
        .map(|outcome| outcome.error.as_deref())
        .collect();
    let missing = "no-such-program: executing the program failed inside the sandbox: No such file or directory (os error 2)";
    let not_one = "/etc/passwd: executing the program failed inside the sandbox: Permission denied (os error 13)";
    assert_eq!(errors, [Some(missing), Some(not_one), None]);
}

fn a_terminal_has_the_size_that_was_asked_for_and_is_the_commands_own(who: Who) {
    let Some(bench) = Bench::new(who) else { return };
    let argv = [
        "sh",
        "-c",
        "tty; stty size; : </dev/tty && echo controlling",
    ];
    let commands = [json!({ "argv": argv, "terminal": [31, 97] })];
    let report = bench.run(&bench.policy(), &commands);
    let seen = report.outcomes[0].stdout.replace('\r', "");
    assert_eq!(seen, "/dev/pts/0\n31 97\ncontrolling\n");
}

fn control_c_on_a_terminal_interrupts_the_command(who: Who) {
    let Some(bench) = Bench::new(who) else { return };
    let commands = [json!({ "argv": ["sleep", "600"], "terminal": [24, 80], "stdin": "\u{3}" })];
    let report = bench.run(&bench.policy(), &commands);
    assert_eq!(report.outcomes[0].exit, Some(128 + 2), "{report:?}");
}

fn a_signal_reaches_the_whole_process_group(who: Who) {
    let Some(bench) = Bench::new(who) else { return };
    // The second sleep holds the pipe open: the command's end alone would leave the reader waiting.
    let commands = [json!({ "argv": ["sh", "-c", "sleep 600 & echo x; sleep 600"], "signal": 15 })];
    let report = bench.run(&bench.policy(), &commands);
    assert_eq!(report.outcomes[0].exit, Some(128 + 15), "{report:?}");
}

fn every_address_arrives_at_the_listeners_with_the_one_that_was_asked_for(who: Who) {
    let Some(bench) = Bench::new(who) else { return };
    let mut policy = bench.policy();
    policy.listeners = serde_json::from_value(json!([
        { "name": "https", "address": { "tcp": "[::]:443" } },
        { "name": "proxy", "address": { "tcp": "127.0.0.1:3128" } },
        { "name": "dns", "address": { "udp": "127.0.0.1:53" } },
    ]))
    .expect("listeners");
    let script = r#"
import socket
def ask(address, port):
    with socket.create_connection((address, port), 5) as connection:
        return connection.makefile().readline().strip()
print(ask("93.184.216.34", 443))
print(ask("2606:2800:220:1::1", 443))
print(ask("127.0.0.1", 3128))
name = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
name.settimeout(5)
name.sendto(b"who", ("127.0.0.1", 53))
print(name.recv(99).decode())
try:
    socket.create_connection(("93.184.216.34", 25), 5)
except OSError as error:
    print(error.strerror)
"#;
    let said = bench.output(&policy, &["/usr/bin/python3", "-c", script]);
    let expected = "[::ffff:93.184.216.34]:443\n[2606:2800:220:1::1]:443\n127.0.0.1:3128\nwho\nConnection refused\n";
    assert_eq!(said, expected);
}

fn a_private_home_outlives_its_sandbox(who: Who) {
    let Some(bench) = Bench::new(who) else { return };
    let policy = bench.policy();
    bench.output(&policy, &["sh", "-c", "echo kept > ~/note"]);
    assert_eq!(
        bench.output(&policy, &["cat", "/home/agent/note"]),
        "kept\n"
    );
}

fn a_directory_with_a_system_is_laid_under_the_sandboxes_changes(who: Who) {
    let Some(bench) = Bench::new(who) else { return };
    let system = bench.owned_directory("system");
    let changes = bench.owned_directory("changes");
    std::fs::create_dir(system.join("etc")).expect("made");
    bench.give_away(&system.join("etc"));
    std::fs::write(system.join("etc/motd"), "welcome\n").expect("written");
    let mut policy = bench.policy();
    policy.root = farrier_sandbox::Root::Directory {
        system: system.clone(),
        changes,
    };
    // A system of shared libraries and nothing else would be long; the host's serves.
    for part in ["/usr", "/lib", "/lib64", "/bin"] {
        if let Ok(source) = std::fs::canonicalize(part) {
            policy.binds.push(farrier_sandbox::Bind {
                source,
                target: part.into(),
                access: farrier_sandbox::Access::ReadOnly,
            });
        }
    }
    let script =
        "cat /etc/motd; echo changed > /etc/new; mkdir /opt; touch /opt/there; ls /etc/new /opt";
    let said = bench.output(&policy, &["/bin/sh", "-c", script]);
    assert_eq!(said, "welcome\n/etc/new\n\n/opt:\nthere\n");
    let said = bench.output(&policy, &["/bin/sh", "-c", "cat /etc/new; ls /opt"]);
    assert_eq!(said, "changed\nthere\n");
    assert!(!system.join("etc/new").exists() && !system.join("opt").exists());
}

fn a_read_only_bind_is_not_written_to(who: Who) {
    let Some(bench) = Bench::new(who) else { return };
    let source = bench.owned_directory("shown");
    std::fs::write(source.join("text"), "as it was").expect("written");
    let mut policy = bench.policy();
    policy.binds.push(farrier_sandbox::Bind {
        source: source.clone(),
        target: "/home/agent/shown".into(),
        access: farrier_sandbox::Access::ReadOnly,
    });
    let script = "cat ~/shown/text; echo x > ~/shown/text || echo refused; touch ~/shown/new || echo refused";
    let said = bench.output(&policy, &["sh", "-c", script]);
    assert_eq!(said, "as it wasrefused\nrefused\n");
    assert_eq!(
        std::fs::read_to_string(source.join("text")).expect("read"),
        "as it was"
    );
}

/// What runtimes and tools of agents ask a system for, each of which fails in its own way without.
fn programs_find_what_they_expect_of_a_system(who: Who) {
    let Some(bench) = Bench::new(who) else { return };
    let policy = bench.policy();
    let node = r#"
const { Worker } = require("worker_threads"), fs = require("fs"), os = require("os");
console.log(os.cpus().length > 0, os.freemem() > 0, os.uptime() > 0, os.userInfo().username);
const server = require("http").createServer((_, answer) => answer.end("served"));
server.listen(8080, async () => {
  console.log(await (await fetch("http://localhost:8080")).text());
  server.close();
  new Worker("console.log('worker')", { eval: true }).on("exit", () => {
    fs.watch("/tmp", () => { console.log("watched"); process.exit(); });
    setTimeout(() => fs.writeFileSync("/tmp/file", ""), 20);
  });
});
"#;
    let said = bench.output(&policy, &["node", "-e", node]);
    assert_eq!(said, "true true true agent\nserved\nworker\nwatched\n");
    let python = r#"
import asyncio, multiprocessing, ssl, sqlite3, tempfile
async def child():
    process = await asyncio.create_subprocess_exec("id", "-un", stdout=-1)
    return (await process.communicate())[0].decode().strip()
if __name__ == "__main__":
    print(multiprocessing.Pool(2).map(abs, [-1, -2]), asyncio.run(child()))
    print(len(ssl.create_default_context().get_ca_certs()) > 0, tempfile.gettempdir())
"#;
    let said = bench.output(&policy, &["/usr/bin/python3", "-c", python]);
    assert_eq!(said, "[1, 2] agent\nTrue /tmp\n");
    let shell = "head -c 3 /proc/stat; cat <(echo substituted); script -qc 'echo scripted' /dev/null; getent hosts localhost | wc -l";
    let said = bench
        .output(&policy, &["bash", "-c", shell])
        .replace('\r', "");
    assert_eq!(said, "cpusubstituted\nscripted\n1\n");
}

#[tokio::test]
async fn a_hundred_commands_at_once_are_not_mistaken_for_one_another() {
    let bench = Bench::new(whoever_this_is()).unwrap();
    let launcher = bench.launcher();
    let sandbox = std::sync::Arc::new(launcher.launch(&bench.policy()).await.unwrap());
    let mut running = JoinSet::new();
    for number in 0..100 {
        let sandbox = std::sync::Arc::clone(&sandbox);
        running.spawn(async move {
            let script = format!("echo {number}; exit {number}");
            let mut process = sandbox
                .exec(Exec::new(["sh", "-c", &script]))
                .await
                .unwrap();
            let mut said = String::new();
            process
                .stdout
                .take()
                .unwrap()
                .read_to_string(&mut said)
                .await
                .unwrap();
            assert_eq!(
                (said, process.wait().await),
                (format!("{number}\n"), Ok(Exit::Code(number)))
            );
        });
    }
    running.join_all().await;
    sandbox.kill().await;
    let error = sandbox.exec(Exec::new(["true"])).await.unwrap_err();
    assert!(matches!(error, ExecError::Gone(_)), "{error}");
    launcher.closed().await;
}

#[tokio::test]
async fn a_terminal_that_is_resized_tells_its_program() {
    let bench = Bench::new(whoever_this_is()).unwrap();
    let launcher = bench.launcher();
    let sandbox = launcher.launch(&bench.policy()).await.unwrap();
    let script = "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.01; done";
    let mut exec = Exec::new(["sh", "-c", script]);
    exec.io = Io::Terminal(WindowSize {
        rows: 10,
        columns: 20,
    });
    let mut process = sandbox.exec(exec).await.unwrap();
    let mut terminal = process.terminal.take().unwrap();
    let mut said = [0; 7];
    terminal.read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"ready\r\n");
    let size = WindowSize {
        rows: 30,
        columns: 40,
    };
    terminal.resize(size).unwrap();
    let mut rest = String::new();
    terminal.read_to_string(&mut rest).await.unwrap();
    assert_eq!(
        (rest.as_str(), process.wait().await),
        ("30 40\r\n", Ok(Exit::Code(0)))
    );
    drop(sandbox);
    launcher.closed().await;
}

#[tokio::test]
async fn a_command_that_is_too_long_is_refused_before_it_is_sent() {
    let bench = Bench::new(whoever_this_is()).unwrap();
    let launcher = bench.launcher();
    let sandbox = launcher.launch(&bench.policy()).await.unwrap();
    let long = "x".repeat(200 << 10);
    let error = sandbox.exec(Exec::new(["echo", &long])).await.unwrap_err();
    assert!(
        matches!(error, ExecError::TooLong { limit: 131_072, .. }),
        "{error}"
    );
    let error = sandbox
        .exec(Exec::new(["secret\0word", "and another"]))
        .await
        .unwrap_err();
    let expected =
        "expected a command and arguments without NUL, got \"secret\\0word\" with 1 arguments";
    assert_eq!(error.to_string(), expected);
    // What is long goes through a pipe.
    let mut process = sandbox.exec(Exec::new(["wc", "-c"])).await.unwrap();
    process
        .stdin
        .take()
        .unwrap()
        .write_all(long.as_bytes())
        .await
        .unwrap();
    let mut said = String::new();
    process
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .await
        .unwrap();
    assert_eq!(said, "204800\n");
    drop(sandbox);
    launcher.closed().await;
}
