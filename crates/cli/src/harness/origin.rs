//! Where packages come from: what the user's npm and pip are configured with, unless the command line says otherwise.
//!
//! | | npm | Python |
//! |---|---|---|
//! | argument | `--registry` | `--index` |
//! | environment | `NPM_CONFIG_REGISTRY` | `PIP_INDEX_URL`, `UV_DEFAULT_INDEX`, `UV_INDEX_URL` |
//! | user's file | `NPM_CONFIG_USERCONFIG` or `~/.npmrc` | `PIP_CONFIG_FILE`, `~/.config/pip/pip.conf`, `~/.pip/pip.conf` |
//! | system's file | `NPM_CONFIG_GLOBALCONFIG` or `/etc/npmrc` | `/etc/pip.conf` |
//! | else | the public registry | the public index |
//!
//! The first that is there counts. A user and a password in such a URL, and npm's `//host/:_authToken`, are taken out of it
//! at once: they are sent to that host, and shown nowhere.
//!
//! Sources: <https://docs.npmjs.com/cli/v11/configuring-npm/npmrc>, <https://pip.pypa.io/en/stable/topics/configuration/>.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, Uri};
use percent_encoding::percent_decode_str;

use crate::config::Environment;

/// A registry or an index.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    /// Without a slash at its end, a user or a password.
    pub(crate) base: String,
    /// Sensitive, so that it is not shown.
    key: Option<HeaderValue>,
}

/// All that packages come from.
#[derive(Debug)]
pub(crate) struct Origins {
    pub(crate) registry: Origin,
    pub(crate) index: Origin,
    /// Files with authorities that npm or pip trust besides the usual ones.
    pub(crate) authorities: Vec<PathBuf>,
}

/// What of the command line has a part in it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Named<'a> {
    pub(crate) registry: Option<&'a str>,
    pub(crate) index: Option<&'a str>,
}

/// Why there is nowhere to get packages.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoOrigin {
    #[error("expected the URL of a registry from {0}, got something else")]
    NoUrl(&'static str),
    #[error(
        "expected a URL without a password in {0}, got one with it, which others of this machine can read"
    )]
    Pasted(&'static str),
}

const REGISTRY: &str = "https://registry.npmjs.org";
const INDEX: &str = "https://pypi.org/simple";
const SYSTEM_NPMRC: &str = "/etc/npmrc";
const SYSTEM_PIP: &str = "/etc/pip.conf";

impl Origins {
    /// # Errors
    /// What is configured is no URL.
    pub(crate) fn find(named: Named<'_>, env: &Environment) -> Result<Self, NoOrigin> {
        let (npm, pip) = (npmrc(env), pip_conf(env));
        let npm_value = |name: &str| {
            let upper = env.filled(&format!("NPM_CONFIG_{}", name.to_uppercase()));
            let lower = || env.filled(&format!("npm_config_{name}"));
            upper.or_else(lower).or_else(|| npm.value(name))
        };
        let pip_value = |name: &str| pip.value(name);
        let registry = match named.registry {
            Some(url) => Origin::pasted(url, "--registry")?,
            None => match npm_value("registry") {
                Some(url) => Origin::read(&url, "npm's configuration")?,
                None => Origin::read(REGISTRY, "npm's configuration")?,
            },
        };
        let index_variable = ["PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL"]
            .iter()
            .find_map(|name| env.filled(name));
        let index = match named.index {
            Some(url) => Origin::pasted(url, "--index")?,
            None => match index_variable.or_else(|| pip_value("index-url")) {
                Some(url) => Origin::read(&url, "pip's configuration")?,
                None => Origin::read(INDEX, "pip's configuration")?,
            },
        };
        let authorities = [
            npm_value("cafile"),
            env.filled("NODE_EXTRA_CA_CERTS"),
            env.filled("PIP_CERT"),
            pip_value("cert"),
        ];
        let mut authorities: Vec<PathBuf> = authorities
            .into_iter()
            .flatten()
            .map(PathBuf::from)
            .collect();
        authorities.sort();
        authorities.dedup();
        let token = npm.token(&registry.base);
        Ok(Self {
            registry: registry.with_token(token),
            index,
            authorities,
        })
    }
}

impl Origin {
    /// Of a URL that is configured somewhere.
    fn read(url: &str, from: &'static str) -> Result<Self, NoOrigin> {
        let (scheme, rest) = url.trim().split_once("://").ok_or(NoOrigin::NoUrl(from))?;
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority),
        };
        let base = format!("{scheme}://{host}{}", path.trim_end_matches('/'));
        let parsed: Uri = base.parse().map_err(|_| NoOrigin::NoUrl(from))?;
        if !matches!(scheme, "http" | "https") || parsed.host().is_none_or(str::is_empty) {
            return Err(NoOrigin::NoUrl(from));
        }
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let key = user.and_then(|user| {
            let (name, password) = user.split_once(':').unwrap_or((user, ""));
            let both = format!("{}:{}", decoded(name), decoded(password));
            sensitive(&format!("Basic {}", STANDARD.encode(both)))
        });
        Ok(Self { base, key })
    }

    /// Of an argument, in which a password would be seen.
    fn pasted(url: &str, from: &'static str) -> Result<Self, NoOrigin> {
        let origin = Self::read(url, from)?;
        match origin.key {
            Some(_) => Err(NoOrigin::Pasted(from)),
            None => Ok(origin),
        }
    }

    fn with_token(self, token: Option<String>) -> Self {
        let token = token.and_then(|token| sensitive(&format!("Bearer {token}")));
        Self {
            key: token.or(self.key),
            ..self
        }
    }

    /// What opens it, where `to` is the same server.
    pub(crate) fn key_for(&self, to: &Uri) -> Option<&HeaderValue> {
        let own: Uri = self.base.parse().ok()?;
        let same = own.scheme() == to.scheme() && own.authority() == to.authority();
        self.key.as_ref().filter(|_| same)
    }
}

fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Lines `name = value` of several files, those that count most first. Not shown: there may be passwords in them.
struct Lines(Vec<(String, String)>);

impl Lines {
    fn value(&self, name: &str) -> Option<String> {
        let mut found = self.0.iter().filter(|(own, _)| own == name);
        found.next().map(|(_, value)| value.clone())
    }

    /// npm's `//host/path/:_authToken`, for this registry.
    fn token(&self, base: &str) -> Option<String> {
        let (_, place) = base.split_once(':')?;
        self.value(&format!("{place}/:_authToken"))
    }
}

/// npm takes environment variables into its files as `${NAME}`.
fn npmrc(env: &Environment) -> Lines {
    let named = ["NPM_CONFIG_USERCONFIG", "npm_config_userconfig"];
    let named = named.iter().find_map(|name| env.filled(name));
    let own = named
        .map(PathBuf::from)
        .or_else(|| Some(home(env)?.join(".npmrc")));
    let system = env.filled("NPM_CONFIG_GLOBALCONFIG");
    let system = Some(PathBuf::from(system.as_deref().unwrap_or(SYSTEM_NPMRC)));
    let mut lines = Vec::new();
    for text in [own, system].iter().flatten().filter_map(|path| read(path)) {
        let own = ini(&text, &[";", "#"]).into_iter();
        lines.extend(own.map(|(_, name, value)| (name, expanded(&value, env))));
    }
    Lines(lines)
}

fn pip_conf(env: &Environment) -> Lines {
    let named = env.filled("PIP_CONFIG_FILE").map(PathBuf::from);
    if named.as_deref() == Some(Path::new("/dev/null")) {
        return Lines(Vec::new()); // pip's way to say that no file counts
    }
    let config = env
        .filled("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(home(env)?.join(".config")));
    let places = [
        named,
        config.map(|config| config.join("pip/pip.conf")),
        home(env).map(|home| home.join(".pip/pip.conf")),
        Some(PathBuf::from(SYSTEM_PIP)),
    ];
    let mut lines = Vec::new();
    for text in places.iter().flatten().filter_map(|path| read(path)) {
        let all = ini(&text, &["#", ";"]);
        // What is said for `pip install` counts more than what is said for all of pip.
        for section in ["install", "global"] {
            let own = all.iter().filter(|(at, ..)| at == section);
            lines.extend(own.map(|(_, name, value)| (name.replace('_', "-"), value.clone())));
        }
    }
    Lines(lines)
}

fn home(env: &Environment) -> Option<PathBuf> {
    env.filled("HOME").map(PathBuf::from)
}

/// A file that is not there says nothing.
fn read(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// Section, name and value of each line.
fn ini(text: &str, comments: &[&str]) -> Vec<(String, String, String)> {
    let mut section = String::new();
    let mut lines = Vec::new();
    for line in text.lines().map(str::trim) {
        if comments.iter().any(|sign| line.starts_with(sign)) {
            continue;
        }
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|line| line.strip_suffix(']'))
        {
            section = name.trim().to_owned();
        } else if let Some((name, value)) = line.split_once('=') {
            let value = value.trim().trim_matches(['"', '\'']);
            lines.push((section.clone(), name.trim().to_owned(), value.to_owned()));
        }
    }
    lines
}

/// With each `${NAME}` replaced by the variable, or left as it is where there is none.
fn expanded(value: &str, env: &Environment) -> String {
    let mut text = String::new();
    let mut rest = value;
    while let Some((before, after)) = rest.split_once("${") {
        text.push_str(before);
        match after
            .split_once('}')
            .map(|(name, left)| (env.variable(name), name, left))
        {
            Some((Some(value), _, left)) => {
                text.push_str(&value);
                rest = left;
            }
            Some((None, name, left)) => {
                text.push_str("${");
                text.push_str(name);
                text.push('}');
                rest = left;
            }
            None => {
                text.push_str("${");
                rest = after;
            }
        }
    }
    text.push_str(rest);
    text
}

#[cfg(test)]
#[path = "origin_tests.rs"]
mod tests;
