//! What a shared ledger is opened with: where, as whom, and within which bounds.

use std::fmt;
use std::time::Duration;

use tokio::time::timeout;
use zeroize::Zeroizing;

use super::fault::Fault;
use super::link::Greeting;
use super::location::Location;
use super::origin::Origin;
use crate::seal::{EncryptionKey, Seal};
use crate::{Bounds, LedgerError, MAX_RECALL_BYTES, Operation};

/// A greeting may take this long, however short the deadline of an operation is.
const LEAST_GREETING: Duration = Duration::from_secs(1);
/// Beyond this, two candidates would not fit into one recall.
const LARGEST_VALUE_BYTES: usize = MAX_RECALL_BYTES / 2;

/// What a [`Shared`](super::Shared) ledger is opened with.
#[derive(Clone, Debug)]
pub struct SharedConfig {
    /// Where the store is.
    pub location: Location,
    /// As whom; none is the store's default user.
    pub username: Option<String>,
    /// What proves it.
    pub password: Option<Password>,
    /// What sentinels ask for, if they ask for anything.
    pub sentinel_password: Option<Password>,
    /// PEM certificates of the authorities that the server's certificate may be from; none is those
    /// that the system trusts.
    pub authorities: Option<Vec<u8>>,
    /// What this side shows over TLS, if the server asks.
    pub identity: Option<Identity>,
    /// What all names in the store begin with. Gateways with the same prefix share their turns.
    pub prefix: String,
    /// Encrypts what is stored. A prefix is either encrypted with one key from its beginning, or not
    /// at all.
    pub encryption: Option<EncryptionKey>,
    /// How long one operation may take.
    pub deadline: Duration,
    /// Entries expire after this.
    pub ttl: Duration,
    /// How many entries one scope may have. Its oldest go first.
    pub max_entries_per_scope: u64,
    /// How large one value may be, in bytes; at most 32 MiB.
    pub max_value_bytes: usize,
}

impl SharedConfig {
    /// The defaults at this place: no credentials, the bounds of an embedded ledger, two seconds.
    #[must_use]
    pub fn new(location: Location) -> Self {
        let bounds = Bounds::default();
        Self {
            location,
            username: None,
            password: None,
            sentinel_password: None,
            authorities: None,
            identity: None,
            prefix: "farrier".to_owned(),
            encryption: None,
            deadline: Duration::from_secs(2),
            ttl: bounds.ttl,
            max_entries_per_scope: bounds.max_entries_per_scope,
            max_value_bytes: bounds.max_value_bytes,
        }
    }

    /// Finds what [`Shared::open`](super::Shared::open) would refuse, without opening anything.
    ///
    /// # Errors
    ///
    /// [`SharedConfigError`], whose message says what to change.
    pub fn check(&self) -> Result<(), SharedConfigError> {
        self.check_bounds()?;
        self.origin().map(drop)
    }

    /// Whether the store can be reached now, and was begun with this configuration's key, if it was
    /// begun at all. Nothing is written.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Unavailable`], [`LedgerError::Encryption`]; or [`LedgerError::Backend`] with what
    /// [`check`](Self::check) finds.
    pub async fn reach(&self) -> Result<(), LedgerError> {
        let probe = Operation::Probe;
        let origin = self.origin();
        let mut origin = origin.map_err(|error| LedgerError::backend(probe, error))?;
        let greeting = Greeting::new(&self.prefix, &Seal::new(self.encryption.as_ref()));
        let within = self.greeting_within();
        let greeted = async { greeting.compare(origin.connect(within).await?).await };
        let greeted = timeout(within, greeted).await;
        let greeted = greeted.unwrap_or(Err(Fault::Silence)).map(drop);
        greeted.map_err(|fault| fault.unavailable(probe))
    }

    pub(super) fn origin(&self) -> Result<Origin, SharedConfigError> {
        Origin::new(self).map_err(|error| SharedConfigError::Client {
            location: self.location.clone(),
            source: Box::new(Fault::from(error)),
        })
    }

    pub(super) fn greeting_within(&self) -> Duration {
        self.deadline.max(LEAST_GREETING)
    }

    pub(super) fn check_bounds(&self) -> Result<(), SharedConfigError> {
        let refuse = |what| Err(SharedConfigError::Bounds { what });
        if self.ttl < Duration::from_millis(1) || self.deadline.is_zero() {
            return refuse("a ttl of at least a millisecond and a deadline above zero");
        }
        if self.max_entries_per_scope == 0 {
            return refuse("max_entries_per_scope of at least 1");
        }
        if self.max_value_bytes > LARGEST_VALUE_BYTES {
            return refuse("max_value_bytes of at most 32 MiB");
        }
        if self.prefix.contains(['{', '}']) {
            return refuse("a prefix without braces");
        }
        let proves = self.identity.is_some() || self.authorities.is_some();
        if proves && !self.location.is_tls() {
            return refuse("certificates only for a store that is reached over TLS");
        }
        Ok(())
    }
}

/// A password. Overwritten when dropped, except for the copy that the connection keeps.
#[derive(Clone)]
pub struct Password(pub(super) Zeroizing<String>);

impl Password {
    /// Takes over a password.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(***)")
    }
}

/// What one shows of oneself over TLS.
#[derive(Clone)]
pub struct Identity {
    /// PEM certificates, one's own first.
    pub certificates: Vec<u8>,
    /// The private key, in PEM.
    pub key: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity(***)")
    }
}

/// Why a shared ledger cannot be opened at all. That the store cannot be reached is no reason.
#[derive(Debug, thiserror::Error)]
pub enum SharedConfigError {
    /// Bounds or settings that contradict themselves.
    #[error("expected {what} for the ledger's store")]
    Bounds {
        /// What they lack.
        what: &'static str,
    },
    /// What is needed to connect is no good.
    #[error("cannot make a connection of what is configured for the ledger's store {location}")]
    Client {
        /// Where the store is.
        location: Location,
        /// Why; says nothing of a certificate or a password.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
