//! Other gateways, installed beforehand, in one comparison with Farrier and nginx: everybody started here, pointed at the
//! same upstream, and put on the same core.
//!
//! Each is set up as its own documentation has it for one OpenAI-compatible provider, with one worker and without telemetry.
//! The files are in `bench/peers/`; how to run the same by hand is in `docs/benchmarks.md`.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use clap::Args;

use crate::Pace;
use crate::compare::{self, CompareError, Comparison, Gateway, Named, Report};
use crate::contest::WARM_UP;
use crate::exchange::{KIMI_MODEL, PLAIN_MODEL};
use crate::process::Cores;
use crate::report::Conditions;
use crate::target::{ANY_PORT, Launch, Listens, Log, Program, Target, TargetError};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The release binary of Farrier
    #[arg(long, value_name = "FILE")]
    farrier: PathBuf,
    /// The nginx to compare with
    #[arg(long, value_name = "FILE", default_value = "nginx")]
    nginx: PathBuf,
    /// A virtual environment with LiteLLM; left out without one
    #[arg(long, value_name = "DIR")]
    litellm: Option<PathBuf>,
    /// A virtual environment with TensorZero and the OpenAI client; left out without one
    #[arg(long, value_name = "DIR")]
    tensorzero: Option<PathBuf>,
    /// The files that set the peers up
    #[arg(long, value_name = "DIR")]
    files: PathBuf,
    /// Connections of closed loops
    #[arg(long, value_name = "COUNT", value_delimiter = ',', default_values_t = [1, 16])]
    connections: Vec<usize>,
    /// Measure this scenario alone, such as chat-1 or long-half; may be repeated
    #[arg(long, value_name = "ID")]
    only: Vec<String>,
    #[command(flatten)]
    pub(crate) pace: Pace,
}

/// Why nobody was compared.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PeersError {
    #[error(transparent)]
    Compare(#[from] CompareError),
    #[error("cannot start the peers: {0}")]
    System(#[from] io::Error),
    #[error(transparent)]
    Target(#[from] TargetError),
}

/// What the peers call the model.
const MODEL: &str = "bench";
const NGINX: &str = "nginx";

/// Starts everybody, compares, and stops everybody.
pub(crate) fn run(arguments: &Arguments, tell: &mut dyn FnMut(&str)) -> Result<Report, PeersError> {
    let cores = Cores::pick();
    let conditions = Conditions::new(
        cores.is_some(),
        arguments.pace.rounds(),
        arguments.pace.slice(),
    );
    // The comparison listens there; somebody else would have to be quick to come between.
    let upstream = TcpListener::bind(ANY_PORT).and_then(|listener| listener.local_addr())?;
    let directory = tempfile::tempdir()?;
    let start = Start {
        arguments,
        cores,
        directory: directory.path().to_owned(),
        upstream,
    };
    tell("starting everybody");
    let (targets, gateways) = start.everybody()?;
    let comparison = Comparison {
        gateways: gateways
            .iter()
            .map(|(gateway, _)| gateway.clone())
            .collect(),
        listen: upstream,
        models: gateways.into_iter().map(|(_, model)| model).collect(),
        keys: Vec::new(),
        headers: Vec::new(),
        connections: arguments.connections.clone(),
        per_second: Vec::new(),
        reference: Some(NGINX.to_owned()),
        core: start.cores.map(|cores| cores.rest),
        rounds: arguments.pace.rounds(),
        slice: arguments.pace.slice(),
        warm_up: WARM_UP,
        more_tries: arguments.pace.more_tries(),
        only: arguments.only.clone(),
    };
    let report = compare::run(&comparison, conditions, tell)?;
    targets.into_iter().try_for_each(Target::stop)?;
    Ok(report)
}

/// What everybody is started with.
struct Start<'a> {
    arguments: &'a Arguments,
    cores: Option<Cores>,
    directory: PathBuf,
    upstream: SocketAddr,
}

/// A gateway, and the model it is asked for.
type Asked = (Gateway, Named<String>);

impl Start<'_> {
    fn everybody(&self) -> Result<(Vec<Target>, Vec<Asked>), PeersError> {
        let nginx = self.launch(NGINX, self.arguments.nginx.clone())?.nginx()?;
        let farrier = self.launch("farrier", self.arguments.farrier.clone())?;
        let farrier = farrier.farrier(&farrier.directory.join("ledger.db"), Log::Warnings)?;
        let mut gateways = vec![
            asked(NGINX, &nginx, "/v1", MODEL),
            asked("farrier, no plan", &farrier, "/v1", PLAIN_MODEL),
            asked("farrier, Kimi plan", &farrier, "/v1", KIMI_MODEL),
        ];
        let mut targets = vec![nginx, farrier];
        if let Some(home) = &self.arguments.tensorzero {
            let target = self.tensorzero(home)?;
            let model = format!("tensorzero::model_name::{MODEL}");
            gateways.push(asked("TensorZero", &target, "/openai/v1", &model));
            targets.push(target);
        }
        if let Some(home) = &self.arguments.litellm {
            let target = self.litellm(home)?;
            gateways.push(asked("LiteLLM", &target, "/v1", MODEL));
            targets.push(target);
        }
        Ok((targets, gateways))
    }

    fn litellm(&self, home: &Path) -> Result<Target, PeersError> {
        let launch = self.launch("litellm", home.join("bin/litellm"))?;
        let port = TcpListener::bind(ANY_PORT).and_then(|listener| listener.local_addr())?;
        let config = self.file(&launch, "litellm.yaml")?;
        let number = port.port().to_string();
        let arguments = [
            "--host",
            "127.0.0.1",
            "--port",
            &number,
            "--num_workers",
            "1",
        ];
        let program = Program {
            name: "litellm",
            arguments: &[&["--config", &config], &arguments[..]].concat(),
            // Prices are otherwise fetched at the start.
            environment: &[
                ("LITELLM_LOCAL_MODEL_COST_MAP", "True"),
                ("LITELLM_LOG", "ERROR"),
            ],
            listens: Listens::At(port),
        };
        Ok(launch.peer(&program)?)
    }

    fn tensorzero(&self, home: &Path) -> Result<Target, PeersError> {
        let launch = self.launch("tensorzero", home.join("bin/python"))?;
        let config = self.file(&launch, "tensorzero.toml")?;
        let script = self.file(&launch, "tensorzero_gateway.py")?;
        let program = Program {
            name: "tensorzero",
            arguments: &[&script, &config],
            environment: &[("RUST_LOG", "error")],
            listens: Listens::Says(|line| {
                let (_, address) = line.split_once("listens on http://")?;
                address.split('/').next()?.parse().ok()
            }),
        };
        Ok(launch.peer(&program)?)
    }

    /// A file of the peer's set-up, which names the upstream.
    fn file(&self, launch: &Launch, name: &str) -> io::Result<String> {
        let template = self.arguments.files.join(name);
        let text = std::fs::read_to_string(&template).map_err(crate::naming(&template))?;
        let path = launch.directory.join(name);
        std::fs::write(&path, text.replace("UPSTREAM", &self.upstream.to_string()))?;
        Ok(path.display().to_string())
    }

    fn launch(&self, name: &str, program: PathBuf) -> io::Result<Launch> {
        let directory = self.directory.join(name);
        std::fs::create_dir_all(&directory)?;
        Ok(Launch {
            cores: self.cores,
            directory,
            upstream: self.upstream,
            program,
            before: Vec::new(),
            connections: 512,
        })
    }
}

fn asked(name: &str, target: &Target, path: &str, model: &str) -> Asked {
    let gateway = Gateway {
        name: name.to_owned(),
        host: target.address().to_string(),
        path: path.to_owned(),
        pid: Some(target.pid()),
        ..Gateway::direct(target.address())
    };
    let model = Named {
        name: Some(name.to_owned()),
        value: model.to_owned(),
    };
    (gateway, model)
}
