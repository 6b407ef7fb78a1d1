//! A supervisor for tests: reads what to do as JSON from standard input, tells what came of it on standard output.
//!
//! It runs as whichever user it is started as. Listeners answer every connection with the address that was asked for, and
//! every datagram with itself. With `hold` it keeps its sandboxes until standard input ends.

use std::io::{self, Read, Write};
use std::process::ExitCode;
use std::time::Duration;

use farrier_sandbox::{
    Exec, Io, Launcher, LauncherCommand, ListenAddress, Policy, Process, Sandbox, WindowSize,
    launcher_main,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

/// What to do.
#[derive(Debug, Deserialize)]
struct Script {
    policy: Policy,
    /// How many sandboxes to have, one after the other; the last one runs the commands.
    #[serde(default = "once")]
    times: u32,
    commands: Vec<Line>,
    #[serde(default)]
    hold: bool,
}

#[derive(Debug, Deserialize)]
struct Line {
    argv: Vec<String>,
    #[serde(default)]
    stdin: String,
    /// Rows and columns of a terminal, if it is to have one.
    terminal: Option<(u16, u16)>,
    /// A signal that it is sent once it has written something.
    signal: Option<i32>,
    /// Not waited for.
    #[serde(default)]
    leave: bool,
}

#[derive(Debug, Default, Serialize)]
struct Outcome {
    error: Option<String>,
    exit: Option<u8>,
    stdout: String,
    stderr: String,
}

/// No command of a test takes longer.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("sandbox-launcher") {
        return launcher_main();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    match runtime.and_then(|runtime| runtime.block_on(supervise())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(io::stderr(), "supervisor: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn once() -> u32 {
    1
}

async fn supervise() -> io::Result<()> {
    let mut line = String::new();
    io::BufRead::read_line(&mut io::stdin().lock(), &mut line)?;
    let script: Script = serde_json::from_str(&line)?;
    let launcher = Launcher::new(LauncherCommand::default()).map_err(io::Error::other)?;
    for _ in 1..script.times {
        let sandbox = launcher
            .launch(&script.policy)
            .await
            .map_err(io::Error::other)?;
        sandbox.kill().await;
    }
    let sandbox = match launcher.launch(&script.policy).await {
        Ok(sandbox) => sandbox,
        Err(error) => {
            launcher.closed().await;
            return tell(&json!({ "error": whole(&error) }));
        }
    };
    let mut served = JoinSet::new();
    serve(&sandbox, &mut served)?;
    let mut outcomes = Vec::new();
    let mut left = Vec::new();
    for line in script.commands {
        outcomes.push(run(&sandbox, line, &mut left).await);
    }
    tell(&json!({
        "outcomes": outcomes,
        "limits": sandbox.limits_in_force(),
        "memory_bytes": sandbox.memory_bytes(),
        "landlock_abi": sandbox.landlock_abi(),
    }))?;
    if script.hold {
        // Blocks this thread; the runtime has another.
        drop(io::stdin().lock().read_to_end(&mut Vec::new()));
    }
    sandbox.kill().await;
    launcher.closed().await;
    served.shutdown().await;
    Ok(())
}

fn tell(value: &serde_json::Value) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{value}")?;
    stdout.flush()
}

/// An error and its causes.
fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

fn serve(sandbox: &Sandbox, served: &mut JoinSet<io::Result<()>>) -> io::Result<()> {
    for (_, address, socket) in sandbox.take_listeners() {
        match address {
            ListenAddress::Tcp(_) => {
                let listener = std::net::TcpListener::from(socket);
                served.spawn(answer(tokio::net::TcpListener::from_std(listener)?));
            }
            ListenAddress::Udp(_) => {
                let socket = std::net::UdpSocket::from(socket);
                served.spawn(echo(tokio::net::UdpSocket::from_std(socket)?));
            }
        }
    }
    Ok(())
}

async fn answer(listener: tokio::net::TcpListener) -> io::Result<()> {
    loop {
        let (mut stream, _) = listener.accept().await?;
        let asked_for = stream.local_addr()?;
        stream
            .write_all(format!("{asked_for}\n").as_bytes())
            .await?;
    }
}

async fn echo(socket: tokio::net::UdpSocket) -> io::Result<()> {
    let mut datagram = [0; 512];
    loop {
        let (length, from) = socket.recv_from(&mut datagram).await?;
        let answer = datagram.get(..length).unwrap_or_default();
        socket.send_to(answer, from).await?;
    }
}

async fn run(sandbox: &Sandbox, line: Line, left: &mut Vec<Process>) -> Outcome {
    let mut exec = Exec::new(line.argv.clone());
    if let Some((rows, columns)) = line.terminal {
        exec.io = Io::Terminal(WindowSize { rows, columns });
    }
    if line.leave {
        exec.io = Io::Nothing;
    }
    let mut process = match sandbox.exec(exec).await {
        Ok(process) => process,
        Err(error) => {
            return Outcome {
                error: Some(whole(&error)),
                ..Outcome::default()
            };
        }
    };
    if line.leave {
        left.push(process);
        return Outcome::default();
    }
    let talked = tokio::time::timeout(PATIENCE, talk(&mut process, &line)).await;
    talked.unwrap_or_else(|_| Outcome {
        error: Some("the command took too long".to_owned()),
        ..Outcome::default()
    })
}

async fn talk(process: &mut Process, line: &Line) -> Outcome {
    let mut outcome = Outcome::default();
    if let Some(mut terminal) = process.terminal.take() {
        let mut seen = Vec::new();
        drop(terminal.write_all(line.stdin.as_bytes()).await);
        drop(terminal.read_to_end(&mut seen).await);
        outcome.stdout = String::from_utf8_lossy(&seen).into_owned();
    }
    let (stdin, stdout, stderr) = (
        process.stdin.take(),
        process.stdout.take(),
        process.stderr.take(),
    );
    let say = async {
        if let Some(mut stdin) = stdin {
            drop(stdin.write_all(line.stdin.as_bytes()).await);
        }
    };
    let signalled = async {
        let Some(mut stdout) = stdout else {
            return Vec::new();
        };
        let mut heard = Vec::new();
        if let Some(signal) = line.signal {
            heard.resize(1, 0);
            drop(stdout.read_exact(&mut heard).await);
            let _gone_already = process.signal(signal).await;
        }
        drop(stdout.read_to_end(&mut heard).await);
        heard
    };
    let ((), heard, complaints) = tokio::join!(say, signalled, hear(stderr));
    if line.terminal.is_none() {
        outcome.stdout = String::from_utf8_lossy(&heard).into_owned();
        outcome.stderr = complaints;
    }
    match process.wait().await {
        Ok(exit) => outcome.exit = Some(exit.shell_status()),
        Err(error) => outcome.error = Some(error.to_string()),
    }
    outcome
}

async fn hear(from: Option<tokio::net::unix::pipe::Receiver>) -> String {
    let mut heard = Vec::new();
    if let Some(mut from) = from {
        drop(from.read_to_end(&mut heard).await);
    }
    String::from_utf8_lossy(&heard).into_owned()
}
