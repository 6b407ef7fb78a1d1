//! How long a sandbox takes to start, what it takes of memory, and what its listeners add, beside bubblewrap, podman and
//! the host's own loopback.
//!
//! ```sh
//! cargo run --release -p farrier-sandbox --example start -- [ROUNDS]
//! ```
//!
//! Contestants take turns within a round, so that what else the machine does falls on all of them. Those that are not
//! installed are left out. Times are medians, the least in brackets. Figures of two runs are not comparable; ratios are,
//! roughly.

use std::env;
use std::error::Error;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use farrier_sandbox::{
    Access, Bind, Exec, HostUser, Io, Launcher, LauncherCommand, Limits, ListenAddress, Listener,
    Policy, Sandbox, launcher_main,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::Instant;

type Failure = Box<dyn Error>;

/// How many exchanges a client makes on one connection.
const EXCHANGES: usize = 20_000;
/// How long an answer is.
const ANSWER: usize = 1024;
/// Sandboxes that are there at once while memory is measured.
const AT_ONCE: usize = 50;

/// Times of one contestant.
#[derive(Debug, Default)]
struct Times {
    name: &'static str,
    taken: Vec<Duration>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["sandbox-launcher"] => return launcher_main(),
        ["client", address] => client(address),
        rounds => measure(
            rounds
                .first()
                .and_then(|rounds| rounds.parse().ok())
                .unwrap_or(40),
        ),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _gone = writeln!(io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(rounds: usize) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let launcher = Launcher::new(LauncherCommand::default())?;
        start(&launcher, rounds).await?;
        memory(&launcher).await?;
        latency(&launcher).await?;
        launcher.closed().await;
        Ok(())
    })
}

fn policy(name: &str) -> Policy {
    let mut policy = Policy::on_host(name);
    policy.limits.memory_bytes = Some(1 << 30);
    policy.limits.processes = Some(512);
    if rustix::process::geteuid().is_root() {
        policy.host_user = Some(HostUser {
            uid: 100_001,
            gid: 100_001,
        });
    }
    let wanted = [
        ("https", SocketAddr::from((Ipv6Addr::UNSPECIFIED, 443))),
        ("http", SocketAddr::from((Ipv6Addr::UNSPECIFIED, 80))),
        ("proxy", SocketAddr::from((Ipv4Addr::LOCALHOST, 3128))),
    ];
    let listener = |(name, address): (&str, SocketAddr)| Listener {
        name: name.to_owned(),
        address: ListenAddress::Tcp(address),
    };
    policy.listeners = wanted.into_iter().map(listener).collect();
    policy
}

async fn start(launcher: &Launcher, rounds: usize) -> Result<(), Failure> {
    let system = tempfile::tempdir()?;
    let mut bwrap = Some(bubblewrap()).filter(|_| installed("bwrap"));
    let mut podman = installed("podman")
        .then(|| podman(system.path()))
        .transpose()?;
    let mut ready = Times::new("farrier: listeners ready");
    let mut unlimited = Times::new("farrier: the same without limits");
    let mut first = Times::new("farrier: /bin/true has ended");
    let mut ended = Times::new("farrier: ended, nothing left");
    let mut wrapped = Times::new("bwrap: /bin/true has ended");
    let mut contained = Times::new("podman: /bin/true has ended");
    for round in 0..rounds {
        let begun = Instant::now();
        let sandbox = launcher.launch(&policy("start")).await?;
        ready.push(begun);
        run(&sandbox, &["/bin/true"], Io::Nothing).await?;
        first.push(begun);
        let begun = Instant::now();
        sandbox.kill().await;
        ended.push(begun);
        let begun = Instant::now();
        let mut policy = policy("start");
        policy.limits = Limits::default();
        let sandbox = launcher.launch(&policy).await?;
        unlimited.push(begun);
        sandbox.kill().await;
        if let Some(command) = &mut bwrap {
            wrapped.of(command).await?;
        }
        // One in four: it takes its time.
        if let Some(command) = podman.as_mut().filter(|_| round % 4 == 0) {
            contained.of(command).await?;
        }
    }
    for times in [ready, unlimited, first, ended, wrapped, contained] {
        say(&times.line())?;
    }
    Ok(())
}

async fn run(sandbox: &Sandbox, argv: &[&str], io: Io) -> Result<String, Failure> {
    let mut exec = Exec::new(argv.iter().copied());
    exec.directory = Some("/".to_owned());
    exec.io = io;
    let mut process = sandbox.exec(exec).await?;
    let mut said = String::new();
    if let Some(stdout) = &mut process.stdout {
        stdout.read_to_string(&mut said).await?;
    }
    match process.wait().await?.shell_status() {
        0 => Ok(said),
        status => Err(format!("{argv:?} ended with {status}").into()),
    }
}

fn bubblewrap() -> Command {
    let mut command = Command::new("bwrap");
    command.args([
        "--unshare-all",
        "--die-with-parent",
        "--clearenv",
        "--ro-bind",
        "/usr",
        "/usr",
        "--symlink",
        "usr/bin",
        "/bin",
        "--symlink",
        "usr/lib",
        "/lib",
        "--symlink",
        "usr/lib64",
        "/lib64",
        "--ro-bind",
        "/etc/ssl/certs",
        "/etc/ssl/certs",
        "--proc",
        "/proc",
        "--dev",
        "/dev",
        "--tmpfs",
        "/tmp",
        "--",
        "/bin/true",
    ]);
    command
}

fn podman(system: &Path) -> io::Result<Command> {
    for (link, target) in [
        ("bin", "usr/bin"),
        ("lib", "usr/lib"),
        ("lib64", "usr/lib64"),
    ] {
        std::os::unix::fs::symlink(target, system.join(link))?;
    }
    for directory in ["usr", "proc", "dev", "sys", "etc", "tmp", "run"] {
        fs::create_dir(system.join(directory))?;
    }
    let mut command = Command::new("podman");
    // Its own idea of limits is more than some machines allow.
    let limits = [
        "--ulimit",
        "nofile=1024:1024",
        "--ulimit",
        "nproc=1024:1024",
    ];
    let options = [
        "--runtime",
        "runc",
        "run",
        "--rm",
        "--network",
        "none",
        "-v",
        "/usr:/usr:ro",
    ];
    command
        .args(options)
        .args(limits)
        .arg("--rootfs")
        .arg(system)
        .arg("/bin/true");
    Ok(command)
}

fn installed(program: &str) -> bool {
    env::var_os("PATH").is_some_and(|path| {
        env::split_paths(&path).any(|directory| directory.join(program).exists())
    })
}

async fn memory(launcher: &Launcher) -> Result<(), Failure> {
    let before = own_kibibytes()?;
    let mut sandboxes = Vec::new();
    for number in 0..AT_ONCE {
        sandboxes.push(launcher.launch(&policy(&format!("box-{number}"))).await?);
    }
    let first_processes: Vec<u64> = children()?
        .into_iter()
        .filter_map(|pid| pss_kibibytes(&pid).ok())
        .collect();
    let all: u64 = first_processes.iter().sum();
    let count = u64::try_from(first_processes.len().max(1))?;
    let supervisor = own_kibibytes()?.saturating_sub(before) / u64::try_from(AT_ONCE)?;
    say(&format!(
        "{count} sandboxes at once: {} KiB each of the first process (PSS), {supervisor} KiB each of the supervisor",
        all / count
    ))?;
    for sandbox in &sandboxes {
        sandbox.kill().await;
    }
    Ok(())
}

/// The proportional share of memory of a process, tables of pages not included.
fn pss_kibibytes(pid: &str) -> Result<u64, Failure> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    Ok(line
        .unwrap_or_default()
        .trim()
        .trim_end_matches(" kB")
        .parse()?)
}

fn own_kibibytes() -> Result<u64, Failure> {
    pss_kibibytes("self")
}

fn children() -> io::Result<Vec<String>> {
    let mut children = Vec::new();
    for task in fs::read_dir("/proc/self/task")? {
        let text = fs::read_to_string(task?.path().join("children"))?;
        children.extend(text.split_whitespace().map(str::to_owned));
    }
    Ok(children)
}

async fn latency(launcher: &Launcher) -> Result<(), Failure> {
    let mut policy = policy("client");
    // Somewhere that the sandbox's user may pass through.
    let directory = tempfile::Builder::new()
        .prefix("farrier-")
        .tempdir_in("/tmp")?;
    let program = directory.path().join("client");
    fs::copy(env::current_exe()?, &program)?;
    fs::set_permissions(
        directory.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )?;
    policy.binds.push(Bind {
        source: program.clone(),
        target: "/client".into(),
        access: Access::ReadOnly,
    });
    let sandbox = launcher.launch(&policy).await?;
    let mut served = JoinSet::new();
    for (_, _, socket) in sandbox.take_listeners() {
        let listener = tokio::net::TcpListener::from_std(std::net::TcpListener::from(socket))?;
        served.spawn(answer(listener));
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let here = listener.local_addr()?.to_string();
    served.spawn(answer(listener));
    for _ in 0..3 {
        let inside = run(
            &sandbox,
            &["/client", "client", "127.0.0.1:3128"],
            Io::Pipes,
        )
        .await?;
        let outside = Command::new(&program)
            .args(["client", &here])
            .output()
            .await?;
        let outside = String::from_utf8_lossy(&outside.stdout).into_owned();
        say(&format!(
            "an exchange of 1 KiB: {} inside, {} on the host",
            inside.trim(),
            outside.trim()
        ))?;
    }
    sandbox.kill().await;
    served.shutdown().await;
    Ok(())
}

async fn answer(listener: tokio::net::TcpListener) -> io::Result<()> {
    let answer = [b'x'; ANSWER];
    loop {
        let (mut stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let mut asked = [0];
        while stream.read(&mut asked).await? > 0 {
            stream.write_all(&answer).await?;
        }
    }
}

fn client(address: &str) -> Result<(), Failure> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let mut times = Times::new("");
    let mut answer = [0; ANSWER];
    for _ in 0..EXCHANGES {
        let begun = Instant::now();
        stream.write_all(b"?")?;
        stream.read_exact(&mut answer)?;
        times.push(begun);
    }
    say(&times.figures())?;
    Ok(())
}

impl Times {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            taken: Vec::new(),
        }
    }

    fn push(&mut self, begun: Instant) {
        self.taken.push(begun.elapsed());
    }

    async fn of(&mut self, command: &mut Command) -> Result<(), Failure> {
        let begun = Instant::now();
        let status = command.stdin(Stdio::null()).status().await?;
        self.push(begun);
        if status.success() {
            Ok(())
        } else {
            Err(format!("{}: {status}", self.name).into())
        }
    }

    fn figures(&self) -> String {
        let mut sorted = self.taken.clone();
        sorted.sort_unstable();
        let at = |index: usize| {
            sorted
                .get(index)
                .map_or(0.0, |time| time.as_secs_f64() * 1e3)
        };
        format!("{:.3} ms ({:.3})", at(sorted.len() / 2), at(0))
    }

    fn line(&self) -> String {
        format!("{:32} {}", self.name, self.figures())
    }
}

fn say(line: &str) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{line}")
}
