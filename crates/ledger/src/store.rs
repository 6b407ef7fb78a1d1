//! Which of the stores, and all that it takes to open it.

use std::fmt;
use std::sync::Arc;

use crate::{
    Embedded, EmbeddedConfig, Ledger, OpenError, Outbox, OutboxConfig, Shared, SharedConfig,
    SharedConfigError,
};

/// A store by its configuration.
#[derive(Clone, Debug)]
pub enum Store {
    /// A file that one gateway owns.
    Embedded(EmbeddedConfig),
    /// A Redis or Valkey that several gateways share.
    Shared(Box<SharedConfig>),
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file.
    #[error(transparent)]
    Embedded(#[from] OpenError),
    /// The shared store.
    #[error(transparent)]
    Shared(#[from] SharedConfigError),
}

impl Store {
    /// Opens it, behind an outbox.
    ///
    /// A file is opened or refused here. A shared store that cannot be reached is no error: it is
    /// looked for, and meanwhile turns are queued.
    ///
    /// # Errors
    ///
    /// [`StoreError`], whose message says what to do.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime.
    pub fn open(self, outbox: OutboxConfig) -> Result<Arc<dyn Ledger>, StoreError> {
        let store: Arc<dyn Ledger> = match self {
            Self::Embedded(config) => Arc::new(Embedded::open(config)?),
            Self::Shared(config) => Arc::new(Shared::open(&config)?),
        };
        Ok(Arc::new(Outbox::before(store, outbox)))
    }
}

impl fmt::Display for Store {
    /// Where it is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded(config) => config.path.display().fmt(f),
            Self::Shared(config) => config.location.fmt(f),
        }
    }
}
