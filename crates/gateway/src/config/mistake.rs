//! What can be wrong with a configuration, in words.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Something in a [`Config`](super::Config) that cannot work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Mistake {
    /// The base URL is not one.
    #[error(
        "expected an http or https URL without user or query as base_url of provider {provider:?}, got another"
    )]
    BaseUrl {
        /// The provider.
        provider: String,
    },
    /// A certificate file that cannot be used.
    #[error("expected PEM certificates in {} for provider {provider:?}: {reason}", path.display())]
    CaFile {
        /// The provider.
        provider: String,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Two clients with one name, hence one scope.
    #[error("expected distinct client names, got {name:?} twice")]
    ClientNameRepeated {
        /// The name.
        name: String,
    },
    /// Two clients that cannot be told apart.
    #[error("expected distinct client keys, got the same for {first:?} and {second:?}")]
    ClientKeyRepeated {
        /// One of them.
        first: String,
        /// The other.
        second: String,
    },
    /// A credential that no header can carry.
    #[error("the credential of provider {provider:?} cannot be sent: {source}")]
    Credential {
        /// The provider.
        provider: String,
        /// Why not.
        source: farrier_secrets::HeaderError,
    },
    /// The default provider does not exist.
    #[error(
        "expected the name of a provider as default_provider, got {name:?}{}",
        hint(nearest)
    )]
    DefaultProviderUnknown {
        /// What was given.
        name: String,
        /// The most similar name there is.
        nearest: Option<String>,
    },
    /// A fallback to nowhere.
    #[error(
        "expected the name of a provider for a fallback of model {model:?}, got {provider:?}{}",
        hint(nearest)
    )]
    FallbackProviderUnknown {
        /// The route's model.
        model: String,
        /// Which of its fallbacks, from 0.
        index: usize,
        /// What was given.
        provider: String,
        /// The most similar name there is.
        nearest: Option<String>,
    },
    /// A fallback to where the request was refused already.
    #[error(
        "expected another provider or model for a fallback of model {model:?}, got {target:?} twice"
    )]
    FallbackRepeated {
        /// The route's model.
        model: String,
        /// Which of its fallbacks, from 0.
        index: usize,
        /// Provider and model.
        target: String,
    },
    /// Nowhere to listen.
    #[error("expected at least one address to listen on, got none")]
    NoListener,
    /// Nobody to answer.
    #[error("expected at least one provider, got none")]
    NoProvider,
    /// Anyone who reaches this address could spend the provider's credential.
    #[error(
        "expected clients with keys for the listener {addr}, which others than this machine can reach; \
         add a client or listen on 127.0.0.1"
    )]
    OpenListener {
        /// The address.
        addr: SocketAddr,
    },
    /// Two providers with one name.
    #[error("expected distinct provider names, got {name:?} twice")]
    ProviderRepeated {
        /// The name.
        name: String,
    },
    /// More retries than requests.
    #[error(
        "expected at most 100 retries for a hundred requests to provider {provider:?}, got {percent}"
    )]
    RetryPercent {
        /// The provider.
        provider: String,
        /// What was given.
        percent: u32,
    },
    /// A status that says that something was done.
    #[error(
        "expected only statuses from 400 to 599 to retry provider {provider:?} on, got {status}"
    )]
    RetryStatus {
        /// The provider.
        provider: String,
        /// What was given.
        status: u16,
    },
    /// A route to nowhere.
    #[error(
        "expected the name of a provider for model {model:?}, got {provider:?}{}",
        hint(nearest)
    )]
    RouteProviderUnknown {
        /// The route's model.
        model: String,
        /// What was given.
        provider: String,
        /// The most similar name there is.
        nearest: Option<String>,
    },
    /// Two routes for one model name.
    #[error("expected one route for each model, got two for {model:?}")]
    RouteRepeated {
        /// The model.
        model: String,
    },
}

/// Every mistake of a [`Config`](super::Config), in the order of its fields.
#[derive(Debug)]
pub struct Mistakes(pub Vec<Mistake>);

// === impl Mistakes ===

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = self.0.iter();
        if let Some(first) = lines.next() {
            write!(f, "{first}")?;
        }
        lines.try_for_each(|mistake| write!(f, "\n{mistake}"))
    }
}

impl std::error::Error for Mistakes {}

fn hint(nearest: &Option<String>) -> String {
    nearest
        .as_ref()
        .map(|name| format!("; did you mean {name:?}"))
        .unwrap_or_default()
}
