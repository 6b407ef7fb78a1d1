//! Wire transcripts for bug reports, in the format of the corpus.
//!
//! ```text
//! DIR/000042-9f3a61c2/case.toml               facts, plan, notes, ending
//!                     request.json            as the client sent it
//!                     upstream-request.json   as it was sent on
//!                     upstream.sse | .json    what the provider answered, decoded
//!                     client.sse   | .json    what the client was given
//! ```
//!
//! Header fields are never kept, so no key can be. What people and models wrote is masked unless asked for otherwise
//! (see [`mask`]). On the request path bodies are only shared, up to a bound; a transcript is then handed to one writer
//! over a bounded queue. If that is full, the transcript is dropped and counted: tracing never holds a request up.

mod mask;

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use farrier_compat::facts::Facts;
use farrier_compat::passes::Note;
use farrier_compat::plan::Plan;
use farrier_serve::Tracker;
use serde::Serialize;
use tokio::sync::mpsc;
use tracing::{debug, warn};

use crate::config::TraceConfig;
use crate::metrics::Metrics;
use crate::record::Ending;
use mask::Declared;

/// Hands out captures and takes them back.
#[derive(Clone, Debug)]
pub(crate) struct Traces {
    queue: mpsc::Sender<Box<Capture>>,
    config: TraceConfig,
}

/// One request's transcript while it grows.
#[derive(Debug)]
pub(crate) struct Capture {
    queue: mpsc::Sender<Box<Self>>,
    facts: Facts,
    passes: Vec<(String, &'static str)>,
    notes: Vec<Note>,
    status: u16,
    ending: Ending,
    request: Body,
    upstream_request: Body,
    upstream: Body,
    client: Body,
}

/// The beginning of a body, in shared pieces.
#[derive(Debug)]
struct Body {
    pieces: Vec<Bytes>,
    bytes: usize,
    max_bytes: usize,
    cut: bool,
}

/// `case.toml`.
#[derive(Serialize)]
struct Case<'a> {
    description: &'static str,
    status: u16,
    ending: &'static str,
    /// Names of the bodies that were longer than what is kept.
    cut: Vec<&'static str>,
    facts: CaseFacts<'a>,
    plan: Vec<CasePass<'a>>,
    notes: Vec<CaseNote<'a>>,
}

#[derive(Serialize)]
struct CaseFacts<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<&'a str>,
    client: CaseClient<'a>,
    upstream: CaseUpstream<'a>,
}

#[derive(Serialize)]
struct CaseClient<'a> {
    model: &'a str,
    provider_key: &'a str,
    inference_api: &'a str,
    base_url: &'a str,
}

#[derive(Serialize)]
struct CaseUpstream<'a> {
    provider: &'a str,
    model: &'a str,
    base_url: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<&'a str>,
}

#[derive(Serialize)]
struct CasePass<'a> {
    manifest: &'a str,
    pass: &'static str,
}

#[derive(Serialize)]
struct CaseNote<'a> {
    manifest: &'a str,
    pass: &'static str,
    what: &'static str,
    at: String,
}

/// Writes transcripts until nobody can send any more.
#[derive(Debug)]
struct Writer {
    config: TraceConfig,
    run: [u8; 4],
    written: usize,
    metrics: Arc<Metrics>,
}

// === impl Traces ===

impl Traces {
    /// Makes the folder and starts the writer.
    ///
    /// # Errors
    ///
    /// The folder cannot be made or read.
    pub(crate) fn start(
        config: &TraceConfig,
        run: [u8; 4],
        metrics: &Arc<Metrics>,
        tasks: &Tracker,
    ) -> io::Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&config.dir)?;
        let written = config.dir.read_dir()?.count();
        let (queue, captures) = mpsc::channel(QUEUE);
        let writer = Writer {
            config: config.clone(),
            run,
            written,
            metrics: Arc::clone(metrics),
        };
        drop(tasks.spawn(writer.write_all(captures)));
        Ok(Self {
            queue,
            config: config.clone(),
        })
    }

    /// What they were started with.
    pub(crate) fn config(&self) -> &TraceConfig {
        &self.config
    }

    /// A transcript for a request with this body.
    pub(crate) fn capture(&self, facts: Facts, plan: &Plan, request: &Bytes) -> Capture {
        let body = || Body {
            pieces: Vec::new(),
            bytes: 0,
            max_bytes: self.config.max_body_bytes,
            cut: false,
        };
        let mut capture = Capture {
            queue: self.queue.clone(),
            facts,
            passes: plan
                .passes()
                .map(|(manifest, pass)| (manifest.to_owned(), pass))
                .collect(),
            notes: Vec::new(),
            status: 0,
            ending: Ending::ClientGone,
            request: body(),
            upstream_request: body(),
            upstream: body(),
            client: body(),
        };
        capture.request.push(request);
        capture
    }
}

// === impl Capture ===

impl Capture {
    pub(crate) fn sent_on<'a>(&mut self, pieces: impl Iterator<Item = &'a Bytes>) {
        pieces.for_each(|piece| self.upstream_request.push(piece));
    }

    pub(crate) fn upstream_sent(&mut self, data: &Bytes) {
        self.upstream.push(data);
    }

    pub(crate) fn client_given(&mut self, data: &Bytes) {
        self.client.push(data);
    }

    pub(crate) fn noted(&mut self, notes: Vec<Note>) {
        let room = MAX_NOTES.saturating_sub(self.notes.len());
        self.notes.extend(notes.into_iter().take(room));
    }

    /// Hands the transcript to the writer, or counts it as lost.
    pub(crate) fn finish(mut self: Box<Self>, status: u16, ending: Ending, metrics: &Metrics) {
        (self.status, self.ending) = (status, ending);
        let queue = self.queue.clone();
        if queue.try_send(self).is_err() {
            metrics.traces_dropped.inc();
        }
    }

    fn write(&self, folder: &Path, keep_text: bool) -> io::Result<()> {
        DirBuilder::new().mode(0o700).create(folder)?;
        let case = toml::to_string(&self.case()).map_err(io::Error::other)?;
        file(folder, "case.toml", case.as_bytes())?;
        let declared = Declared::of(&self.request.pieces.concat());
        let bodies = [
            ("request", &self.request),
            ("upstream-request", &self.upstream_request),
            ("upstream", &self.upstream),
            ("client", &self.client),
        ];
        for (name, body) in bodies {
            if body.pieces.is_empty() {
                continue;
            }
            let whole = body.pieces.concat();
            let stream = mask::is_event_stream(&whole);
            let shown = if keep_text {
                whole
            } else {
                mask::masked(&whole, stream, &declared)
            };
            file(
                folder,
                &format!("{name}.{}", if stream { "sse" } else { "json" }),
                &shown,
            )?;
        }
        Ok(())
    }

    fn case(&self) -> Case<'_> {
        let Facts {
            agent,
            client,
            upstream,
        } = &self.facts;
        let bodies = [
            ("request", &self.request),
            ("upstream-request", &self.upstream_request),
            ("upstream", &self.upstream),
            ("client", &self.client),
        ];
        Case {
            description: "captured from the wire",
            status: self.status,
            ending: self.ending.as_str(),
            cut: bodies
                .iter()
                .filter(|(_, body)| body.cut)
                .map(|(name, _)| *name)
                .collect(),
            facts: CaseFacts {
                agent: agent.as_deref(),
                client: CaseClient {
                    model: &client.model,
                    provider_key: &client.provider_key,
                    inference_api: &client.inference_api,
                    base_url: &client.base_url,
                },
                upstream: CaseUpstream {
                    provider: &upstream.provider,
                    model: &upstream.model,
                    base_url: &upstream.base_url,
                    server: upstream.server.as_deref(),
                },
            },
            plan: self
                .passes
                .iter()
                .map(|(manifest, pass)| CasePass { manifest, pass })
                .collect(),
            notes: self
                .notes
                .iter()
                .map(|note| CaseNote {
                    manifest: &note.manifest,
                    pass: note.pass,
                    what: note.what.as_str(),
                    at: note.at.to_string(),
                })
                .collect(),
        }
    }
}

fn file(folder: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    let path = folder.join(name);
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?
        .write_all(content)
}

// === impl Body ===

impl Body {
    fn push(&mut self, piece: &Bytes) {
        let room = self.max_bytes - self.bytes;
        let kept = piece.len().min(room);
        self.cut |= kept < piece.len();
        if kept > 0 {
            self.bytes += kept;
            self.pieces.push(piece.slice(..kept));
        }
    }
}

// === impl Writer ===

impl Writer {
    async fn write_all(mut self, mut captures: mpsc::Receiver<Box<Capture>>) {
        while let Some(capture) = captures.recv().await {
            if self.written >= self.config.max_cases {
                self.metrics.traces_dropped.inc();
                continue;
            }
            let folder = self.folder();
            self.written += 1;
            let keep_text = self.config.keep_text;
            let shown = folder.clone();
            // The file system blocks, and must not block the runtime.
            let written =
                tokio::task::spawn_blocking(move || capture.write(&folder, keep_text)).await;
            match written.unwrap_or_else(|ended| Err(io::Error::other(ended))) {
                Ok(()) => debug!(folder = %shown.display(), "transcript written"),
                Err(error) => {
                    warn!(folder = %shown.display(), %error, "transcript not written");
                    self.metrics.traces_dropped.inc();
                }
            }
        }
    }

    /// A name that no other writer has used.
    fn folder(&self) -> PathBuf {
        let [a, b, c, d] = self.run;
        self.config
            .dir
            .join(format!("{:06}-{a:02x}{b:02x}{c:02x}{d:02x}", self.written))
    }
}

/// Transcripts that may wait for the writer.
const QUEUE: usize = 64;

/// Notes kept of one request.
const MAX_NOTES: usize = 1000;
