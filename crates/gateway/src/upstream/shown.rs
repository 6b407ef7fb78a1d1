//! What a provider is shown: the one value of a request that may change between two attempts.
//!
//! It is put in at the last moment, when there is a connection to write to, so that once a rotation is done no request
//! leaves with the secret of before, however long it has waited in a queue, between two attempts, or for a connection.
//! Whoever changes it waits for nobody, and no reply waits for him.

use std::sync::Arc;

use arc_swap::ArcSwap;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::config::{Mistake, Provider};

/// A header field whose value can be exchanged.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) name: HeaderName,
    value: ArcSwap<HeaderValue>,
}

/// A header field as a configuration has it.
pub(crate) type Field = (HeaderName, HeaderValue);

impl Shown {
    pub(super) fn new((name, value): Field) -> Self {
        Self {
            name,
            value: ArcSwap::from_pointee(value),
        }
    }

    pub(super) fn put_into(&self, headers: &mut HeaderMap) {
        headers.insert(self.name.clone(), HeaderValue::clone(&self.value.load()));
    }

    pub(super) fn exchange(&self, value: HeaderValue) {
        self.value.store(Arc::new(value));
    }
}

impl Provider {
    /// What it is to be shown.
    pub(crate) fn shown(&self) -> Result<Option<Field>, Mistake> {
        let Some(credential) = &self.credential else {
            return Ok(None);
        };
        match credential.secret.header_value(&credential.prefix) {
            Ok(value) => Ok(Some((credential.header.clone(), value))),
            Err(source) => Err(Mistake::Credential {
                provider: self.name.clone(),
                source,
            }),
        }
    }
}
