//! From what was typed to what a gateway is built from.
//!
//! Defaults are filled in, secrets fetched, manifests loaded, paths made whole. Whatever cannot be is noted, and what
//! depends on it left out, so that the rest is still looked at.

mod care;
mod ledger;

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use farrier_compat::registry::Registry;
use farrier_gateway::config::{
    CallerLimits, Client, Config, Credential, Deadlines, Limits, Mistake as Wrong, Mistakes,
    Provider, PublicRoute, Route, TraceConfig,
};
use farrier_ledger::{Ledger, OutboxConfig, Store};
use farrier_secrets::{Secret, SecretRef};
use http::header::AUTHORIZATION;

use super::Environment;
use super::egress::Egress;
use super::given::At;
use super::mistakes::{Mistake, sorted};
use super::providers::Known;
use super::raw::{
    RawClient, RawFile, RawGateway, RawProvider, RawRegistry, RawRoute, RawTrace, TraceText,
};
use super::registry::{self, Directory};
use super::sources::Sources;

/// What the command line says in place of the file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overrides {
    pub(crate) listen: Vec<SocketAddr>,
    pub(crate) trace_dir: Option<PathBuf>,
    pub(crate) trace_text: Option<TraceText>,
}

/// Everything but the ledger, which is opened by whoever wants to run.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) listen: Vec<SocketAddr>,
    pub(super) allowed_hosts: Vec<String>,
    pub(super) default_provider: Option<String>,
    pub(super) public: PublicRoute,
    pub(super) limits: Limits,
    pub(super) deadlines: Deadlines,
    pub(super) clients: Vec<Client>,
    pub(super) per_caller: CallerLimits,
    pub(super) providers: Vec<Provider>,
    /// Those of the gateway and all others.
    pub(super) known: Vec<Known>,
    pub(super) egress: Vec<Egress>,
    pub(super) routes: Vec<Route>,
    pub(super) registry: Arc<Registry>,
    pub(super) ledger: Store,
    pub(super) outbox: OutboxConfig,
    pub(super) trace: Option<TraceConfig>,
    /// Whether a change of what was read is taken over without being asked to.
    pub(super) watch: bool,
    pub(super) lines: Lines,
}

/// Where things are in the file, for mistakes that are found later.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    listen: Option<usize>,
    default_provider: Option<usize>,
    clients: Vec<At<String>>,
    providers: Vec<At<ProviderLines>>,
    routes: Vec<At<RouteLines>>,
    ledger: Option<usize>,
    /// A client is there that could not be used, so that having none says nothing.
    clients_left_out: bool,
    /// The same for providers.
    providers_left_out: bool,
    /// Stored providers that are named and could not be used.
    stored_left_out: Vec<String>,
    /// Some lines could not be read: nothing that is missing is a mistake of its own.
    unsure: bool,
}

#[derive(Debug, Default)]
struct ProviderLines {
    name: String,
    base_url: Option<usize>,
    ca_file: Option<usize>,
    credential: Option<usize>,
}

#[derive(Debug, Default)]
struct RouteLines {
    model: String,
    provider: Option<usize>,
    fallbacks: Vec<usize>,
}

/// What a resolution knows besides the file, and what it finds.
pub(super) struct Resolution<'a> {
    pub(super) env: &'a Environment,
    /// What relative paths are relative to.
    pub(super) base: &'a Path,
    /// Some lines could not be read.
    pub(super) unsure: bool,
    pub(super) mistakes: &'a mut Vec<Mistake>,
    pub(super) warnings: &'a mut Vec<Mistake>,
    /// Every file that is read.
    pub(super) sources: &'a mut Sources,
}

/// The address that the documentation speaks of.
const LISTEN: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8484);

// === impl Resolution ===

impl Resolution<'_> {
    pub(super) fn resolve(&mut self, raw: RawFile, overrides: &Overrides) -> Draft {
        let mut lines = Lines {
            unsure: self.unsure,
            ..Lines::default()
        };
        let RawFile {
            gateway,
            clients,
            providers,
            routes,
            egress,
            ledger,
            registry,
            trace,
        } = raw;
        let clients = self.clients(clients, &mut lines);
        let (mut providers, mut known) = self.providers(providers, &mut lines);
        let routes = routed(routes, &public(&gateway), &mut lines);
        let default = gateway.default_provider.as_ref();
        lines.stored_left_out = self.stored(&mut known, &mut providers, (&routes, default));
        let egress = self.egress(egress, &known);
        let listen_line = gateway.listen.first().map(|listen| listen.line);
        lines.listen = listen_line.filter(|_| overrides.listen.is_empty());
        lines.default_provider = gateway.default_provider.as_ref().map(|name| name.line);
        let url = ledger.url.as_ref().map(|url| url.line);
        lines.ledger = url.or_else(|| Some(ledger.path.as_ref()?.line));
        let deadlines = deadlines(&gateway);
        // What the gateway waits is the longest wait, so that a store that is late is told from one that fails, and a turn
        // that is late is queued.
        let in_time = deadlines.ledger_record;
        let listen = match (&overrides.listen, values(&gateway.listen)) {
            (given, _) if !given.is_empty() => given.clone(),
            (_, typed) if !typed.is_empty() => typed,
            _ => vec![LISTEN],
        };
        Draft {
            listen,
            limits: limits(&gateway),
            deadlines,
            public: public(&gateway),
            per_caller: care::caller_limits(
                gateway.per_caller.max_concurrent.as_ref(),
                gateway.per_caller.requests_per_minute.as_ref(),
            ),
            watch: gateway.watch.as_ref().is_none_or(|watch| watch.value),
            allowed_hosts: values(&gateway.allowed_hosts),
            default_provider: gateway.default_provider.map(|name| name.value),
            clients,
            providers,
            known,
            egress,
            routes,
            registry: self.registry(&registry),
            ledger: self.ledger(ledger, in_time * 8 / 10),
            outbox: OutboxConfig {
                deadline: in_time * 9 / 10,
                ..OutboxConfig::default()
            },
            trace: self.trace(trace, overrides),
            lines,
        }
    }

    fn clients(&mut self, raw: Vec<At<RawClient>>, lines: &mut Lines) -> Vec<Client> {
        let mut clients = Vec::new();
        for At { value, line } in raw {
            let RawClient {
                name,
                agent,
                key,
                max_concurrent,
                requests_per_minute,
            } = value;
            let key = key.and_then(|key| self.secret(&key));
            let (Some(name), Some(key)) = (name, key) else {
                lines.clients_left_out = true;
                continue;
            };
            lines.clients.push(At {
                value: name.value.clone(),
                line,
            });
            let agent = agent.map(|agent| agent.value);
            clients.push(Client {
                agent,
                limits: care::caller_limits(max_concurrent.as_ref(), requests_per_minute.as_ref()),
                ..Client::new(name.value, key)
            });
        }
        clients
    }

    fn providers(
        &mut self,
        raw: Vec<At<RawProvider>>,
        lines: &mut Lines,
    ) -> (Vec<Provider>, Vec<Known>) {
        let (mut providers, mut known) = (Vec::new(), Vec::new());
        for At { value, line } in raw {
            lines
                .providers
                .extend(provider_lines(&value).map(|value| At { value, line }));
            let credential = self.credential(&value);
            let source = value.credential.as_ref();
            let source = source.map(|source| self.whole_reference(&source.value));
            let ca_file = value.ca_file.as_ref();
            let ca_file = ca_file.and_then(|path| self.readable(path));
            let declared = Known::declared(&value, source, line);
            known.extend(declared.map(|known| known.believing(ca_file.clone())));
            let care = care::of_provider(&value, self.mistakes);
            let (Some(name), Some(base_url)) = (value.name, value.base_url) else {
                lines.providers_left_out = true;
                continue;
            };
            providers.push(Provider {
                api: value.api.map_or_else(Default::default, |api| api.value),
                care,
                credential,
                server: value.server.map(|server| server.value),
                http: value
                    .http_version
                    .map_or_else(Default::default, |version| version.value),
                ca_file,
                pass_through: value
                    .pass_through
                    .map_or_else(Default::default, |open| open.value),
                ..Provider::new(name.value, base_url.value)
            });
        }
        (providers, known)
    }

    fn credential(&mut self, raw: &RawProvider) -> Option<Credential> {
        let reference = raw.credential.as_ref()?;
        let secret = self.secret(reference)?;
        let header = raw
            .header
            .as_ref()
            .map_or(AUTHORIZATION, |header| header.value.clone());
        let credential = match raw.header {
            None => Credential::bearer(secret),
            Some(_) => Credential {
                header,
                prefix: String::new(),
                secret,
            },
        };
        if let Err(error) = credential.secret.header_value(&credential.prefix) {
            let message = format!("the secret in {} cannot be sent: {error}", reference.value);
            self.mistakes.push(Mistake::at(reference.line, message));
            return None;
        }
        Some(credential)
    }

    /// Fetches a secret; a file is looked for from the configuration file's directory.
    fn secret(&mut self, reference: &At<SecretRef>) -> Option<Secret> {
        let found = self.whole_reference(&reference.value);
        if let SecretRef::File { path } = &found {
            self.sources.note_file(path);
        }
        let resolved = found.resolve_noting(&|name| self.env.variable(name));
        match resolved {
            Ok(resolved) => {
                let warning = resolved
                    .warning
                    .map(|mode| Mistake::at(reference.line, mode.to_string()));
                self.warnings.extend(warning);
                Some(resolved.secret)
            }
            Err(error) => {
                self.mistakes
                    .push(Mistake::at(reference.line, with_causes(&error)));
                None
            }
        }
    }

    fn registry(&mut self, raw: &RawRegistry) -> Arc<Registry> {
        let directories: Vec<Directory> = raw
            .directories
            .iter()
            .map(|path| Directory {
                path: self.whole(&path.value),
                line: Some(path.line),
            })
            .collect();
        directories
            .iter()
            .for_each(|directory| self.sources.note_manifests(&directory.path));
        let disable: Vec<String> = values(&raw.disable);
        let disable_line = raw.disable.first().map(|id| id.line);
        registry::load(&directories, &disable, disable_line).unwrap_or_else(|(found, shipped)| {
            self.mistakes.extend(found);
            shipped
        })
    }

    fn trace(&mut self, raw: Option<At<RawTrace>>, overrides: &Overrides) -> Option<TraceConfig> {
        let raw = raw.unwrap_or_default().value;
        let typed = raw.dir.map(|dir| self.whole(&dir.value));
        let mut trace = TraceConfig::new(overrides.trace_dir.clone().or(typed)?);
        let text = overrides.trace_text.or_else(|| Some(raw.text?.value));
        trace.keep_text = text == Some(TraceText::Keep);
        set_size(&mut trace.max_cases, raw.max_cases);
        set_size(&mut trace.max_body_bytes, raw.max_body);
        Some(trace)
    }

    /// A file that is there to be read.
    pub(super) fn readable(&mut self, path: &At<PathBuf>) -> Option<PathBuf> {
        let whole = self.whole(&path.value);
        self.sources.note_file(&whole);
        match File::open(&whole) {
            Ok(_) => Some(whole),
            Err(error) => {
                let message = format!("cannot read {}: {error}", whole.display());
                self.mistakes.push(Mistake::at(path.line, message));
                None
            }
        }
    }

    fn whole_reference(&self, reference: &SecretRef) -> SecretRef {
        match reference {
            SecretRef::File { path } => SecretRef::File {
                path: self.whole(path),
            },
            elsewhere => elsewhere.clone(),
        }
    }

    fn whole(&self, path: &Path) -> PathBuf {
        match (path.strip_prefix("~"), self.env.home()) {
            (Ok(below), Some(home)) => home.join(below),
            _ => self.base.join(path),
        }
    }
}

fn provider_lines(raw: &RawProvider) -> Option<ProviderLines> {
    Some(ProviderLines {
        name: raw.name.as_ref()?.value.clone(),
        base_url: raw.base_url.as_ref().map(|url| url.line),
        ca_file: raw.ca_file.as_ref().map(|path| path.line),
        credential: raw.credential.as_ref().map(|secret| secret.line),
    })
}

fn routed(raw: Vec<At<RawRoute>>, public: &PublicRoute, lines: &mut Lines) -> Vec<Route> {
    let mut routes = Vec::new();
    for At { value, line } in raw {
        let (Some(model), Some(provider)) = (value.model, value.provider) else {
            continue;
        };
        let fallbacks = care::fallbacks(value.fallbacks);
        let known = RouteLines {
            model: model.value.clone(),
            provider: Some(provider.line),
            fallbacks: fallbacks.iter().map(|fallback| fallback.line).collect(),
        };
        lines.routes.push(At { value: known, line });
        let mut route = Route::new(model.value, provider.value);
        route.upstream_model = value.upstream_model.map(|model| model.value);
        route.fallbacks = fallbacks
            .into_iter()
            .map(|fallback| fallback.value)
            .collect();
        if let Some(needs) = value.fall_back_on {
            route.fall_back_on = values(&needs);
        }
        let facts = (value.public_provider_key, value.public_base_url);
        route.public = care::public_of_route(public, facts);
        routes.push(route);
    }
    routes
}

fn limits(raw: &RawGateway) -> Limits {
    let mut limits = Limits::default();
    set_size(&mut limits.max_body_bytes, raw.max_body.clone());
    set_size(&mut limits.max_reply_bytes, raw.max_reply.clone());
    let listener = &mut limits.listener;
    set_size(&mut listener.max_header_bytes, raw.max_header.clone());
    set_size(&mut listener.max_connections, raw.max_connections.clone());
    let streams = raw.max_streams.as_ref();
    set(
        &mut listener.max_streams,
        streams.map(|at| At {
            value: u32::try_from(at.value).unwrap_or(u32::MAX),
            line: at.line,
        }),
    );
    set(&mut listener.header_read, raw.deadlines.header.clone());
    set(&mut listener.write_stall, raw.deadlines.write.clone());
    set(&mut listener.drain, raw.deadlines.drain.clone());
    limits
}

fn deadlines(raw: &RawGateway) -> Deadlines {
    let mut deadlines = Deadlines::default();
    let raw = &raw.deadlines;
    set(&mut deadlines.connect, raw.connect.clone());
    set(&mut deadlines.first_byte, raw.first_byte.clone());
    set(&mut deadlines.silence, raw.silence.clone());
    set(&mut deadlines.reply, raw.reply.clone());
    set(&mut deadlines.request_body, raw.request.clone());
    set(&mut deadlines.ledger_recall, raw.ledger.clone());
    set(&mut deadlines.ledger_record, raw.ledger.clone());
    deadlines
}

fn public(raw: &RawGateway) -> PublicRoute {
    let mut public = PublicRoute::default();
    set(&mut public.provider_key, raw.public_provider_key.clone());
    set(&mut public.base_url, raw.public_base_url.clone());
    public
}

fn set<T>(field: &mut T, typed: Option<At<T>>) {
    if let Some(typed) = typed {
        *field = typed.value;
    }
}

fn set_size(field: &mut usize, typed: Option<At<u64>>) {
    if let Some(typed) = typed {
        *field = usize::try_from(typed.value).unwrap_or(usize::MAX);
    }
}

fn values<T: Clone>(list: &[At<T>]) -> Vec<T> {
    list.iter().map(|item| item.value.clone()).collect()
}

/// An error and what caused it, on one line.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut shown = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        shown = format!("{shown}: {error}");
        cause = error.source();
    }
    shown
}

// === impl Draft ===

impl Draft {
    /// The gateway's configuration, over this ledger.
    pub(super) fn over(self, ledger: Arc<dyn Ledger>) -> Config {
        let mut config = Config::new(self.registry, ledger);
        config.listen = self.listen;
        config.allowed_hosts = self.allowed_hosts;
        config.limits = self.limits;
        config.deadlines = self.deadlines;
        config.clients = self.clients;
        config.per_caller = self.per_caller;
        config.providers = self.providers;
        config.routes = self.routes;
        config.default_provider = self.default_provider;
        config.public = self.public;
        config.trace = self.trace;
        config
    }
}

// === impl Lines ===

impl Lines {
    /// The mistakes that the gateway found, with their places, in the order of the file.
    pub(crate) fn placed(&self, wrong: &Mistakes) -> Vec<Mistake> {
        sorted(
            wrong
                .0
                .iter()
                .filter_map(|wrong| self.place(wrong))
                .collect(),
        )
    }

    /// The place of a mistake that the gateway found; none for one that follows from another already noted.
    fn place(&self, wrong: &Wrong) -> Option<Mistake> {
        let line = match wrong {
            Wrong::NoProvider
                if self.unsure || self.providers_left_out || !self.stored_left_out.is_empty() =>
            {
                return None;
            }
            Wrong::OpenListener { .. } if self.unsure || self.clients_left_out => return None,
            Wrong::FallbackProviderUnknown { provider, .. }
            | Wrong::RouteProviderUnknown { provider, .. }
                if self.knows_of(provider) =>
            {
                return None;
            }
            Wrong::DefaultProviderUnknown { name, .. } if self.knows_of(name) => return None,
            Wrong::BaseUrl { provider, .. } => self.provider(provider).and_then(|at| at.base_url),
            Wrong::CaFile { provider, .. } => self.provider(provider).and_then(|at| at.ca_file),
            Wrong::ClientKeyRepeated { second: name, .. } | Wrong::ClientNameRepeated { name } => {
                last(&self.clients, |client| client == name)
            }
            Wrong::Credential { provider, .. } => {
                self.provider(provider).and_then(|at| at.credential)
            }
            Wrong::DefaultProviderUnknown { .. } => self.default_provider,
            Wrong::FallbackProviderUnknown { model, index, .. }
            | Wrong::FallbackRepeated { model, index, .. } => {
                let route = self.routes.iter().find(|route| route.value.model == *model);
                route.and_then(|route| route.value.fallbacks.get(*index).copied())
            }
            Wrong::NoListener | Wrong::OpenListener { .. } => self.listen,
            Wrong::ProviderRepeated { name } => {
                last(&self.providers, |provider| provider.name == *name)
            }
            Wrong::RouteProviderUnknown { model, .. } => {
                let route = self.routes.iter().find(|route| route.value.model == *model);
                route.and_then(|route| route.value.provider)
            }
            Wrong::RouteRepeated { model } => last(&self.routes, |route| route.model == *model),
            _ => None,
        };
        let message = wrong.to_string();
        Some(match line {
            Some(line) => Mistake::at(line, message),
            None => Mistake::somewhere(message),
        })
    }

    /// A mistake of the ledger's section.
    pub(super) fn at_ledger(&self, message: String) -> Mistake {
        match self.ledger {
            Some(line) => Mistake::at(line, message),
            None => Mistake::somewhere(message),
        }
    }

    pub(super) fn ledger_mistake(&self, error: &dyn std::error::Error) -> Mistake {
        self.at_ledger(with_causes(error))
    }

    fn provider(&self, name: &str) -> Option<&ProviderLines> {
        self.providers
            .iter()
            .map(|provider| &provider.value)
            .find(|known| known.name == name)
    }

    /// Whether the file has a provider of that name, though it cannot be used; or might have, though it cannot be read.
    fn knows_of(&self, name: &str) -> bool {
        let stored = self.stored_left_out.iter().any(|left_out| left_out == name);
        self.unsure || stored || self.provider(name).is_some()
    }
}

fn last<T>(list: &[At<T>], is: impl Fn(&T) -> bool) -> Option<usize> {
    list.iter()
        .rev()
        .find(|item| is(&item.value))
        .map(|item| item.line)
}
