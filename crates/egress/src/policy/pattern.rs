//! The wildcards of a policy.
//!
//! | | `*` | `**` |
//! |---|---|---|
//! | host | within one label | one label or more |
//! | path | within one segment | any number of segments |
//! | query value | anything | anything |
//!
//! Further, as in any glob: `?`, `[a-z]`, `{a,b}`.

use std::fmt;

use globset::{GlobBuilder, GlobMatcher};

use crate::target::Host;

/// The machines that an endpoint stands for.
#[derive(Clone, Debug)]
pub(super) enum HostPattern {
    /// Whichever; the addresses are what is judged.
    Any,
    Exact(Host),
    /// Matched against labels with slashes between them, the separator that the matcher knows.
    Glob {
        written: String,
        labels: GlobMatcher,
    },
}

/// The paths that a rule stands for.
#[derive(Clone, Debug)]
pub(super) enum PathPattern {
    All,
    Glob(GlobMatcher),
}

/// The values of a query's key that a rule stands for.
#[derive(Clone, Debug)]
pub(super) struct ValuePattern(GlobMatcher);

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PatternError {
    #[error("expected a host such as api.example.com, *.example.com or 192.0.2.1, got {0:?}")]
    Host(String),
    #[error("expected a wildcard below a domain of its owner's, such as *.example.com, got {0:?}")]
    TooWide(String),
    #[error("expected a pattern such as /v1/**, got {pattern:?}: {reason}")]
    Glob { pattern: String, reason: String },
}

// === impl HostPattern ===

impl HostPattern {
    pub(super) fn parse(text: &str) -> Result<Self, PatternError> {
        if !text.contains(['*', '?', '{', '[']) || text.starts_with('[') {
            let host = if text.contains(':') && !text.starts_with('[') {
                Host::parse(&format!("[{text}]")) // addresses stand without brackets in files
            } else {
                Host::parse(text)
            };
            return host
                .map(Self::Exact)
                .map_err(|_malformed| PatternError::Host(text.to_owned()));
        }
        let lower = text.trim_end_matches('.').to_ascii_lowercase();
        let labels: Vec<&str> = lower.split('.').collect();
        let wild = |label: &str| label.contains(['*', '?', '{', '[']);
        // A wildcard over a whole registry, such as `*.com`, names nobody.
        let owned =
            labels.len() >= 3 && labels[labels.len() - 2..].iter().all(|label| !wild(label));
        if !owned {
            return Err(PatternError::TooWide(text.to_owned()));
        }
        if labels
            .iter()
            .any(|label| label.is_empty() || label.contains('/'))
        {
            return Err(PatternError::Host(text.to_owned()));
        }
        let globs: Vec<&str> = labels
            .iter()
            .map(|label| if *label == "**" { "*/**" } else { label })
            .collect();
        Ok(Self::Glob {
            labels: glob(&globs.join("/"), Separator::Slash)?,
            written: lower,
        })
    }

    pub(super) fn matches(&self, host: &Host) -> bool {
        match (self, host) {
            (Self::Any, _) => true,
            (Self::Exact(exact), _) => exact == host,
            (Self::Glob { labels, .. }, Host::Name(name)) => {
                labels.is_match(name.replace('.', "/"))
            }
            (Self::Glob { .. }, Host::Address(_)) => false,
        }
    }

    pub(super) const fn is_exact(&self) -> bool {
        matches!(self, Self::Exact(_))
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Exact(host) => host.fmt(f),
            Self::Glob { written, .. } => f.write_str(written),
        }
    }
}

// === impl PathPattern ===

impl PathPattern {
    pub(super) fn parse(text: &str) -> Result<Self, PatternError> {
        if matches!(text, "**" | "/**") {
            return Ok(Self::All);
        }
        glob(text, Separator::Slash).map(Self::Glob)
    }

    pub(super) fn matches(&self, path: &str) -> bool {
        match self {
            Self::All => true,
            Self::Glob(glob) => glob.is_match(path),
        }
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::All => "**",
            Self::Glob(glob) => glob.glob().glob(),
        })
    }
}

// === impl ValuePattern ===

impl ValuePattern {
    pub(super) fn parse(text: &str) -> Result<Self, PatternError> {
        glob(text, Separator::None).map(Self)
    }

    pub(super) fn matches(&self, value: &str) -> bool {
        self.0.is_match(value)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Separator {
    None,
    Slash,
}

fn glob(pattern: &str, separator: Separator) -> Result<GlobMatcher, PatternError> {
    let built = GlobBuilder::new(pattern)
        .literal_separator(separator == Separator::Slash)
        .backslash_escape(true)
        .build();
    built
        .map(|glob| glob.compile_matcher())
        .map_err(|error| PatternError::Glob {
            pattern: pattern.to_owned(),
            reason: error.kind().to_string(),
        })
}
