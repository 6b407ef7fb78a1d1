//! The certificate authority of an installation, and the leaves it signs.
//!
//! Sandboxes are told to trust its certificate; its key is readable by its owner alone and never leaves the host. It
//! signs for names that a sandbox asked to connect to, for this proxy's own listeners: nobody else has a reason to trust
//! it. A leaf is kept until others were needed more lately.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::num::NonZeroUsize;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use lru::LruCache;
use memchr::memmem;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use crate::target::Host;

/// Ends TLS in the name of others, for those who trust it.
#[derive(Debug)]
pub struct CertificateAuthority {
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
    /// Of all leaves: they live in one process, and a key of each own would guard nothing more.
    leaf_key: KeyPair,
    leaves: Mutex<LruCache<Host, Arc<ServerConfig>>>,
}

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A file cannot be read or written.
    #[error("cannot {what} {}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// What is in the files is no authority.
    #[error("expected a certificate authority in {}, got {reason}; remove both files to have a new one made", path.display())]
    Malformed {
        /// Where.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The key can be read by others.
    #[error("expected {} to be readable by its owner alone, got mode {mode:o}; chmod 600 it", path.display())]
    Exposed {
        /// Which.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Nothing can be signed.
    #[error("cannot sign a certificate: {0}")]
    Signing(String),
}

/// The certificate, for sandboxes to trust.
pub const CERTIFICATE_FILE: &str = "ca.pem";
/// Its key.
pub const KEY_FILE: &str = "ca.key";
/// Leaves kept at once.
const MAX_LEAVES: NonZeroUsize = NonZeroUsize::new(1024).unwrap();
/// Permission bits of everybody but the owner.
const OTHERS: u32 = 0o077;

// === impl CertificateAuthority ===

impl CertificateAuthority {
    /// The authority that is kept in a directory, made if there is none.
    ///
    /// # Errors
    ///
    /// [`CaError`]
    pub fn load_or_create(directory: &Path) -> Result<Self, CaError> {
        let (certificate, key) = (directory.join(CERTIFICATE_FILE), directory.join(KEY_FILE));
        if !key.exists() {
            create(directory, &certificate, &key)?;
        }
        let mode = fs::metadata(&key)
            .map_err(file("look at", &key))?
            .permissions()
            .mode();
        if mode & OTHERS != 0 {
            return Err(CaError::Exposed {
                path: key,
                mode: mode & 0o7777,
            });
        }
        let key_pem = Zeroizing::new(fs::read_to_string(&key).map_err(file("read", &key))?);
        let certificate_pem =
            fs::read_to_string(&certificate).map_err(file("read", &certificate))?;
        Self::of(certificate_pem, &key_pem).map_err(|reason| CaError::Malformed {
            path: directory.to_owned(),
            reason,
        })
    }

    fn of(certificate_pem: String, key_pem: &str) -> Result<Self, String> {
        let said = |error: rcgen::Error| error.to_string();
        let key = KeyPair::from_pem(key_pem).map_err(said)?;
        let certificate = CertificateDer::from_pem_slice(certificate_pem.as_bytes());
        let certificate = certificate.map_err(|error| error.to_string())?;
        // All that leaves are tied to is the name, which is ours, and the key.
        if memmem::find(&certificate, key.public_key_raw()).is_none() {
            return Err("a certificate of another key".to_owned());
        }
        Ok(Self {
            issuer: Issuer::new(own_params(), key),
            certificate_pem,
            leaf_key: KeyPair::generate().map_err(said)?,
            leaves: Mutex::new(LruCache::new(MAX_LEAVES)),
        })
    }

    /// What sandboxes are to trust.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// How TLS is ended in the name of `host`. Clients come back to a session they had.
    pub(crate) fn server_config(&self, host: &Host) -> Result<Arc<ServerConfig>, CaError> {
        let kept = |leaves: &mut LruCache<Host, Arc<ServerConfig>>| leaves.get(host).cloned();
        if let Some(config) = kept(&mut self.leaves.lock().unwrap_or_else(PoisonError::into_inner))
        {
            return Ok(config);
        }
        // Signed without the lock; of two at once the latter is kept.
        let config = Arc::new(self.signed(host)?);
        let mut leaves = self.leaves.lock().unwrap_or_else(PoisonError::into_inner);
        let _evicted = leaves.push(host.clone(), Arc::clone(&config));
        Ok(config)
    }

    fn signed(&self, host: &Host) -> Result<ServerConfig, CaError> {
        let signing = |error: rcgen::Error| CaError::Signing(error.to_string());
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![match host {
            Host::Address(address) => SanType::IpAddress(*address),
            Host::Name(name) => SanType::DnsName(name.as_str().try_into().map_err(signing)?),
        }];
        params
            .distinguished_name
            .push(DnType::CommonName, "Farrier egress");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let leaf = params
            .signed_by(&self.leaf_key, &self.issuer)
            .map_err(signing)?;
        let chain: Vec<CertificateDer<'static>> = vec![leaf.der().clone()];
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.leaf_key.serialize_der()));
        let crypto = Arc::new(rustls::crypto::ring::default_provider());
        let refused = |error: rustls::Error| CaError::Signing(error.to_string());
        let mut config = ServerConfig::builder_with_provider(crypto)
            .with_safe_default_protocol_versions()
            .map_err(refused)?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(refused)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

fn create(directory: &Path, certificate: &Path, key: &Path) -> Result<(), CaError> {
    let signing = |error: rcgen::Error| CaError::Signing(error.to_string());
    let pair = KeyPair::generate().map_err(signing)?;
    let signed = own_params().self_signed(&pair).map_err(signing)?;
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(file("make", directory))?;
    // The key last: where it is, the certificate is too.
    write(certificate, signed.pem().as_bytes(), 0o644)?;
    write(key, Zeroizing::new(pair.serialize_pem()).as_bytes(), 0o600)
}

fn own_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
        .distinguished_name
        .push(DnType::CommonName, "Farrier egress of this installation");
    params
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), CaError> {
    let fresh = path.with_extension("new");
    let written = || {
        let mut into = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(mode)
            .open(&fresh)?;
        into.write_all(bytes)?;
        into.sync_all()?;
        fs::rename(&fresh, path)
    };
    written().map_err(file("write", path))
}

fn file<'p>(what: &'static str, path: &'p Path) -> impl FnOnce(io::Error) -> CaError + 'p {
    move |source| CaError::File {
        what,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_made_once_and_its_key_is_its_owners_alone() {
        let directory = tempfile::tempdir().unwrap();
        let inside = directory.path().join("egress");
        let made = CertificateAuthority::load_or_create(&inside).unwrap();
        let loaded = CertificateAuthority::load_or_create(&inside).unwrap();
        assert_eq!(made.certificate_pem(), loaded.certificate_pem());
        let mode = fs::metadata(inside.join(KEY_FILE))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!format!("{made:?}").contains("PRIVATE"));
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        CertificateAuthority::load_or_create(directory.path()).unwrap();
        let key = directory.path().join(KEY_FILE);
        fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
        let refused = CertificateAuthority::load_or_create(directory.path()).unwrap_err();
        assert!(
            matches!(refused, CaError::Exposed { mode: 0o640, .. }),
            "{refused}"
        );
    }

    #[test]
    fn a_leaf_is_signed_once_for_each_host() {
        let directory = tempfile::tempdir().unwrap();
        let authority = CertificateAuthority::load_or_create(directory.path()).unwrap();
        let host = Host::parse("api.example.com").unwrap();
        let first = authority.server_config(&host).unwrap();
        assert!(Arc::ptr_eq(
            &first,
            &authority.server_config(&host).unwrap()
        ));
        let other = authority
            .server_config(&Host::parse("[::1]").unwrap())
            .unwrap();
        assert!(!Arc::ptr_eq(&first, &other));
    }
}
