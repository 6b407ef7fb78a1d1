//! References to secrets, and their resolution.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::keyring::{self, Account, KeyringError};
use crate::secret::{MAX_FILE_BYTES, ReadError};
use crate::{Secret, TextError};

/// Where a secret comes from. Holds no plaintext, so it may be printed and stored.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SecretRef {
    /// An environment variable.
    Env {
        /// Its name.
        name: String,
    },
    /// A file that holds the secret and nothing else.
    File {
        /// Its path.
        path: PathBuf,
    },
    /// The keyring of the user's session, under the service `farrier`.
    Keyring {
        /// The account.
        account: Account,
    },
    /// A key of a Kubernetes Secret. Nothing in this crate can ask a cluster for it: that is the operator's, which
    /// resolves it before anything else sees it. Everywhere else it is refused.
    Kubernetes {
        /// Where the Secret is.
        namespace: String,
        /// Its name.
        name: String,
        /// Which of its keys.
        key: String,
    },
}

/// Why a text is no reference. The text is not repeated: people paste keys where references are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected env:VARIABLE, file:PATH, keyring:ACCOUNT or kubernetes:NAMESPACE/NAME/KEY, got something else, \
     which is not repeated"
)]
pub struct RefError;

/// A secret, and what the caller should tell its user about where it was found.
#[derive(Debug)]
pub struct Resolved {
    /// The secret.
    pub secret: Secret,
    /// Set if the file is open to its group.
    pub warning: Option<SecretFileMode>,
}

/// A secret file that more than its owner can read. A warning for the group, an error for the
/// world.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a file that only its owner can read, got mode {mode:04o} (chmod 600 {})", path.display())]
pub struct SecretFileMode {
    /// The file.
    pub path: PathBuf,
    /// Its permission bits.
    pub mode: u32,
}

/// Why a reference could not be resolved. Holds the reference, never a plaintext.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// Anyone on the machine can read the file.
    #[error(transparent)]
    Exposed(SecretFileMode),
    /// The keyring has none, or would not give it.
    #[error("cannot take keyring:{account}")]
    Keyring {
        /// The account.
        account: Account,
        /// Why.
        source: KeyringError,
    },
    /// A directory, pipe or device.
    #[error("expected a regular file, got something else at {}", path.display())]
    NotAFile {
        /// What the reference names.
        path: PathBuf,
    },
    /// Nobody here can ask a cluster.
    #[error(
        "expected a cluster whose operator fetches {origin}, got a process outside of one; \
         mount the Secret and name its file, file:PATH"
    )]
    NoCluster {
        /// The reference.
        origin: SecretRef,
    },
    /// The bytes are not UTF-8.
    #[error("expected UTF-8 text in {origin}, got other bytes")]
    NotText {
        /// The reference.
        origin: SecretRef,
    },
    /// The text cannot be a secret.
    #[error("{origin} cannot be used as a secret")]
    Text {
        /// The reference.
        origin: SecretRef,
        /// What is wrong with it.
        source: TextError,
    },
    /// More than [`MAX_FILE_BYTES`].
    #[error("expected at most {MAX_FILE_BYTES} bytes, got more in {}", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The operating system would not give the file.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// The environment variable does not exist.
    #[error("expected the environment variable {name}, which is not set")]
    Unset {
        /// Its name.
        name: String,
    },
}

impl SecretRef {
    /// Fetches the secret, without the warning that [`resolve_noting`](Self::resolve_noting) gives.
    ///
    /// # Errors
    ///
    /// As [`resolve_noting`](Self::resolve_noting).
    pub fn resolve(&self, env: &dyn Fn(&str) -> Option<String>) -> Result<Secret, SecretError> {
        Ok(self.resolve_noting(env)?.secret)
    }

    /// Fetches the secret. `env` looks a variable up; this crate never touches the environment
    /// itself.
    ///
    /// Of a file, one trailing newline (`\n` or `\r\n`) is not part of the secret. A file that its
    /// group can read is taken with a warning, because that is how secrets are mounted for a pod's
    /// group; one that anyone can read is refused. Blocks for the time of one small file read.
    ///
    /// # Errors
    ///
    /// [`SecretError`]; all but [`SecretError::Unreadable`] need the user to change something.
    pub fn resolve_noting(
        &self,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Resolved, SecretError> {
        match self {
            Self::Env { name } => {
                let text = env(name).ok_or_else(|| SecretError::Unset { name: name.clone() })?;
                Ok(Resolved {
                    secret: self.secret(text)?,
                    warning: None,
                })
            }
            Self::File { path } => self.resolve_file(path),
            Self::Keyring { account } => Ok(Resolved {
                secret: keyring::take(account).map_err(|source| SecretError::Keyring {
                    account: account.clone(),
                    source,
                })?,
                warning: None,
            }),
            Self::Kubernetes { .. } => Err(SecretError::NoCluster {
                origin: self.clone(),
            }),
        }
    }

    fn resolve_file(&self, path: &Path) -> Result<Resolved, SecretError> {
        let unreadable = |source| SecretError::Unreadable {
            path: path.to_owned(),
            source,
        };
        // Before opening, because opening a pipe would wait for its writer.
        if !path.metadata().map_err(unreadable)?.is_file() {
            return Err(SecretError::NotAFile {
                path: path.to_owned(),
            });
        }
        let file = File::open(path).map_err(unreadable)?;
        let warning = exposure(path, &file.metadata().map_err(unreadable)?)?;

        let secret = Secret::read(file).map_err(|error| match error {
            ReadError::Io(source) => unreadable(source),
            ReadError::NotText => SecretError::NotText {
                origin: self.clone(),
            },
            ReadError::Text(source) => SecretError::Text {
                origin: self.clone(),
                source,
            },
            ReadError::TooLarge => SecretError::TooLarge {
                path: path.to_owned(),
            },
        })?;
        Ok(Resolved { secret, warning })
    }

    fn secret(&self, text: String) -> Result<Secret, SecretError> {
        Secret::new(text).map_err(|source| SecretError::Text {
            origin: self.clone(),
            source,
        })
    }
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env { name } => write!(f, "env:{name}"),
            Self::File { path } => write!(f, "file:{}", path.display()),
            Self::Keyring { account } => write!(f, "keyring:{account}"),
            Self::Kubernetes {
                namespace,
                name,
                key,
            } => write!(f, "kubernetes:{namespace}/{name}/{key}"),
        }
    }
}

/// The inverse of `Display`.
impl FromStr for SecretRef {
    type Err = RefError;

    fn from_str(text: &str) -> Result<Self, RefError> {
        let (kind, rest) = text.split_once(':').ok_or(RefError)?;
        match kind {
            "env" if is_variable(rest) => Ok(Self::Env {
                name: rest.to_owned(),
            }),
            "file" if !rest.is_empty() && !rest.contains('\0') => {
                Ok(Self::File { path: rest.into() })
            }
            "keyring" => Ok(Self::Keyring {
                account: rest.parse().map_err(|_invalid| RefError)?,
            }),
            "kubernetes" => {
                let mut parts = rest.split('/');
                let mut part = || {
                    let part = parts.next().filter(|part| is_object_name(part));
                    part.map(str::to_owned).ok_or(RefError)
                };
                let (namespace, name, key) = (part()?, part()?, part()?);
                match parts.next() {
                    None => Ok(Self::Kubernetes {
                        namespace,
                        name,
                        key,
                    }),
                    Some(_) => Err(RefError),
                }
            }
            _ => Err(RefError),
        }
    }
}

/// Capitals, digits and underscores: what names of variables look like, and keys do not.
fn is_variable(text: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    text.starts_with(|first: char| first.is_ascii_uppercase() || first == '_')
        && text.bytes().all(known)
}

/// What names of Kubernetes' objects and of keys in them are made of.
fn is_object_name(text: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    (1..=253).contains(&text.len()) && text.bytes().all(known)
}

#[cfg(unix)]
fn exposure(
    path: &Path,
    metadata: &std::fs::Metadata,
) -> Result<Option<SecretFileMode>, SecretError> {
    use std::os::unix::fs::PermissionsExt as _;

    const GROUP_READ: u32 = 0o040;
    const WORLD_READ: u32 = 0o004;

    let mode = metadata.permissions().mode() & 0o7777;
    let found = SecretFileMode {
        path: path.to_owned(),
        mode,
    };
    if mode & WORLD_READ != 0 {
        return Err(SecretError::Exposed(found));
    }
    Ok((mode & GROUP_READ != 0).then_some(found))
}

/// Permission bits are a Unix notion; elsewhere access lists decide, and they are the
/// administrator's.
#[cfg(not(unix))]
fn exposure(
    _path: &Path,
    _metadata: &std::fs::Metadata,
) -> Result<Option<SecretFileMode>, SecretError> {
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;

    const CANARY: &str = "sk-canary-7f3a";

    fn no_env(_name: &str) -> Option<String> {
        None
    }

    /// Everything a careless caller could print of an error.
    fn everything_shown(error: &SecretError) -> String {
        let causes = std::iter::successors(Some(error as &dyn Error), |error| (*error).source());
        causes.map(|cause| format!("{cause} {cause:?} ")).collect()
    }

    #[cfg(unix)]
    fn file_with(dir: &tempfile::TempDir, content: &[u8], mode: u32) -> SecretRef {
        use std::os::unix::fs::PermissionsExt as _;

        let path = dir.path().join("secret");
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        SecretRef::File { path }
    }

    #[test]
    fn display_shows_the_reference() {
        let env = SecretRef::Env {
            name: "MOONSHOT_API_KEY".to_owned(),
        };
        let file = SecretRef::File {
            path: "/run/secrets/key".into(),
        };
        assert_eq!(
            format!("{env} {file}"),
            "env:MOONSHOT_API_KEY file:/run/secrets/key"
        );
    }

    #[test]
    fn a_reference_is_read_as_it_is_shown() {
        for text in [
            "env:MOONSHOT_API_KEY",
            "file:/run/secrets/a key",
            "file:../key",
            "keyring:openai.OPENAI_API_KEY",
            "kubernetes:team-a/model-keys/OPENAI_API_KEY",
        ] {
            assert_eq!(text.parse::<SecretRef>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_reference_is_not_repeated() {
        for text in [
            "sk-canary-7f3a",
            "env:sk-canary-7f3a",
            "env:",
            "file:",
            "keyring:",
            "keyring:a b",
            "kubernetes:canary/b",
            "kubernetes:canary/b/c/d",
            "kubernetes://canary",
            "vault:canary",
            "",
        ] {
            let error = text.parse::<SecretRef>().unwrap_err();
            assert!(!format!("{error} {error:?}").contains("canary"));
        }
    }

    #[test]
    fn a_kubernetes_secret_is_refused_outside_of_a_cluster_with_what_to_do() {
        let reference: SecretRef = "kubernetes:ns/keys/KEY".parse().unwrap();
        let error = reference.resolve(&no_env).unwrap_err();
        assert_eq!(
            error.to_string(),
            "expected a cluster whose operator fetches kubernetes:ns/keys/KEY, got a process outside of one; \
             mount the Secret and name its file, file:PATH"
        );
    }

    #[test]
    fn a_variable_is_looked_up_by_its_name_alone() {
        let env = |name: &str| (name == "KEY").then(|| CANARY.to_owned());
        let found = SecretRef::Env {
            name: "KEY".to_owned(),
        }
        .resolve(&env)
        .unwrap();
        assert_eq!(found.expose(), CANARY);

        let error = SecretRef::Env {
            name: "OTHER".to_owned(),
        }
        .resolve(&env)
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            "expected the environment variable OTHER, which is not set"
        );
    }

    #[test]
    fn a_variable_with_a_line_break_is_refused_without_being_shown() {
        let env = |_: &str| Some(format!("{CANARY}\nX-Evil: 1"));
        let error = SecretRef::Env {
            name: "KEY".to_owned(),
        }
        .resolve(&env)
        .unwrap_err();
        assert_eq!(error.to_string(), "env:KEY cannot be used as a secret");
        assert!(
            error
                .source()
                .unwrap()
                .to_string()
                .starts_with("expected one line of text")
        );
        assert!(!everything_shown(&error).contains("canary"));
    }

    #[cfg(unix)]
    #[test]
    fn a_file_loses_one_trailing_newline_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        for content in ["sk-canary-7f3a", "sk-canary-7f3a\n", "sk-canary-7f3a\r\n"] {
            let found = file_with(&dir, content.as_bytes(), 0o600)
                .resolve_noting(&no_env)
                .unwrap();
            assert_eq!(found.secret.expose(), CANARY);
            assert_eq!(found.warning, None);
        }
        for content in [
            "sk-canary-7f3a\n\n",
            "sk-canary\n7f3a\n",
            "sk-canary-7f3a\r",
        ] {
            let error = file_with(&dir, content.as_bytes(), 0o600)
                .resolve(&no_env)
                .unwrap_err();
            assert!(
                matches!(
                    error,
                    SecretError::Text {
                        source: TextError::ControlCharacter,
                        ..
                    }
                ),
                "{content:?}"
            );
            assert!(!everything_shown(&error).contains("canary"));
        }
    }

    #[cfg(unix)]
    #[test]
    fn an_empty_or_binary_or_huge_file_is_refused_without_being_shown() {
        let dir = tempfile::tempdir().unwrap();
        for content in [&b""[..], b"\n", b"\r\n"] {
            let error = file_with(&dir, content, 0o600)
                .resolve(&no_env)
                .unwrap_err();
            assert!(
                matches!(
                    error,
                    SecretError::Text {
                        source: TextError::Empty,
                        ..
                    }
                ),
                "{content:?}"
            );
        }
        let error = file_with(&dir, b"sk-canary\xff", 0o600)
            .resolve(&no_env)
            .unwrap_err();
        assert!(matches!(error, SecretError::NotText { .. }));
        assert!(!everything_shown(&error).contains("canary"));

        let largest = vec![b'k'; MAX_FILE_BYTES];
        assert_eq!(
            file_with(&dir, &largest, 0o600)
                .resolve(&no_env)
                .unwrap()
                .expose()
                .len(),
            MAX_FILE_BYTES
        );
        let error = file_with(&dir, &vec![b'k'; MAX_FILE_BYTES + 1], 0o600)
            .resolve(&no_env)
            .unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("expected at most 65536 bytes, got more in ")
        );
    }

    #[cfg(unix)]
    #[test]
    fn a_file_open_to_its_group_is_taken_with_a_warning_and_to_the_world_refused() {
        let dir = tempfile::tempdir().unwrap();
        let found = file_with(&dir, CANARY.as_bytes(), 0o640)
            .resolve_noting(&no_env)
            .unwrap();
        let warning = found.warning.unwrap();
        assert_eq!(warning.mode, 0o640);

        let error = file_with(&dir, CANARY.as_bytes(), 0o644)
            .resolve(&no_env)
            .unwrap_err();
        let path = dir.path().join("secret");
        let expected = format!(
            "expected a file that only its owner can read, got mode 0644 (chmod 600 {})",
            path.display()
        );
        assert_eq!(error.to_string(), expected);
        assert!(!everything_shown(&error).contains("canary"));
    }

    #[cfg(unix)]
    #[test]
    fn a_missing_file_and_a_directory_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let error = SecretRef::File {
            path: dir.path().join("absent"),
        }
        .resolve(&no_env)
        .unwrap_err();
        assert!(
            matches!(&error, SecretError::Unreadable { source, .. } if source.kind() == io::ErrorKind::NotFound)
        );
        let error = SecretRef::File {
            path: dir.path().to_owned(),
        }
        .resolve(&no_env)
        .unwrap_err();
        assert!(matches!(error, SecretError::NotAFile { .. }));
    }
}
