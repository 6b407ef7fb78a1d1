//! What an image needs of the registry: plugins, records and how to copy them.
//!
//! ```text
//! <out>/openclaw-plugins/<name>/…   the trees that manifests name, directories 0755, files 0644
//! <out>/registry/<agent>/<id>.json  those manifests
//! <out>/Dockerfile.farrier          a fragment that copies both to where the harness loads them from
//! ```
//!
//! Nothing here knows a plugin: a new one is a manifest and a directory. Those that are
//! part of this program are written out of it; the others are copied.
//!
//! # Guarantees
//! * All or nothing: the tree is put together beside its place and renamed; where
//!   that fails, nothing is left.
//! * No link is followed. One inside a tree is refused, and so is one on the way to it.
//! * Every source that the fragment copies is in the tree.

mod tree;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use farrier_compat::registry::{Manifest, Registry, Source, shipped_plugin};

use tree::Copying;

/// A tree that was staged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Staged {
    /// The manifests whose plugins it has, by id.
    pub manifests: Vec<String>,
    /// The plugins, by id.
    pub plugins: Vec<String>,
    /// How many files were copied.
    pub files: usize,
    /// How large they are together.
    pub bytes: u64,
    /// What whoever asked should know.
    pub notes: Vec<String>,
}

/// What is staged from where.
#[derive(Debug, Clone, Copy)]
pub struct Sources<'a> {
    /// Whose plugins.
    pub agent: &'a str,
    /// The manifests.
    pub registry: &'a Registry,
    /// Their texts.
    pub texts: &'a [Source],
    /// The directories above registries, where plugins are.
    pub roots: &'a [PathBuf],
}

/// Why nothing was staged.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// There is something already.
    #[error("expected {} not to exist or to be empty, got something in it", path.display())]
    Occupied {
        /// The place.
        path: PathBuf,
    },
    /// The operating system says no.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was attempted.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A link, a device, a pipe…
    #[error("expected files and directories, got {got} at {}", path.display())]
    NotPlain {
        /// Where.
        path: PathBuf,
        /// What it is.
        got: &'static str,
    },
    /// It is nowhere.
    #[error("expected the plugin of manifest '{manifest}' at {path} below one of {searched}")]
    NoPlugin {
        /// The manifest that names it.
        manifest: String,
        /// Its path.
        path: String,
        /// Where it was looked for.
        searched: String,
    },
    /// Its name cannot be one part of a path.
    #[error("expected a name that can be a file's, got {name:?}")]
    Name {
        /// The name.
        name: String,
    },
    /// Directories in directories without end, or so it seems.
    #[error("expected at most {limit} directories in each other, got more at {}", path.display())]
    TooDeep {
        /// How many are followed.
        limit: usize,
        /// Where.
        path: PathBuf,
    },
}

/// The name of the fragment.
pub const FRAGMENT: &str = "Dockerfile.farrier";
/// Where a fragment puts what manifests leave to it.
const DESTINATION: &str = "/usr/local/share/farrier";
/// What is large enough to be worth a word: every build copies it.
const LARGE_BYTES: u64 = 100 * 1024 * 1024;

/// Puts together at `out` what an image for the agent needs.
///
/// # Errors
/// Something is in the way, missing, or no plain file; then `out` is as it was.
pub fn stage(sources: &Sources<'_>, out: &Path) -> Result<Staged, StageError> {
    if fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(StageError::Occupied {
            path: out.to_owned(),
        });
    }
    let draft = Draft::beside(out)?;
    let staged = sources.fill(&draft.path)?;
    draft.place(out)?;
    Ok(staged)
}

impl Sources<'_> {
    fn fill(&self, into: &Path) -> Result<Staged, StageError> {
        let mut staged = Staged {
            manifests: Vec::new(),
            plugins: Vec::new(),
            files: 0,
            bytes: 0,
            notes: Vec::new(),
        };
        let mut copies: Vec<(String, String)> = Vec::new();
        for manifest in self
            .registry
            .manifests()
            .filter(|manifest| self.has(manifest))
        {
            self.record(manifest, into)?;
            staged.manifests.push(manifest.id.to_string());
            for plugin in &manifest.effects.openclaw_plugins {
                staged.plugins.push(plugin.id.clone());
                let path = plugin.path.trim_end_matches('/').to_owned();
                if copies.iter().any(|(known, _)| *known == path) {
                    continue;
                }
                self.plugin(manifest, &path, into, &mut staged)?;
                let to = plugin.load_path.clone();
                let to = to.unwrap_or_else(|| format!("{DESTINATION}/{path}"));
                copies.push((path, to));
            }
        }
        if !staged.manifests.is_empty() {
            copies.push(("registry".to_owned(), format!("{DESTINATION}/registry")));
        }
        if staged.bytes > LARGE_BYTES {
            let megabytes = staged.bytes / (1024 * 1024);
            staged.notes.push(format!(
                "the plugins are {megabytes} MiB, which every build copies"
            ));
        }
        tree::write(
            &into.join(FRAGMENT),
            fragment(self.agent, &copies).as_bytes(),
        )?;
        Ok(staged)
    }

    fn has(&self, manifest: &Manifest) -> bool {
        manifest.audience.name == self.agent
    }

    /// The manifest itself, as it was written.
    fn record(&self, manifest: &Manifest, into: &Path) -> Result<(), StageError> {
        let Some(source) = self
            .texts
            .iter()
            .find(|source| source.path == manifest.path)
        else {
            return Ok(());
        };
        let directory = into.join("registry").join(manifest.audience.name);
        tree::make_all(into, &directory)?;
        // An id has no separator: the loader has seen to it.
        let file = directory.join(format!("{}.json", manifest.id));
        tree::write(&file, source.text.as_bytes())
    }

    fn plugin(
        &self,
        manifest: &Manifest,
        path: &str,
        into: &Path,
        staged: &mut Staged,
    ) -> Result<(), StageError> {
        let mut copying = Copying::default();
        if copying.shipped(shipped_plugin(path), &into.join(path), into)? {
            staged.add(copying);
            return Ok(());
        }
        for root in self.roots {
            if copying.copy(root, path, into)? {
                staged.add(copying);
                return Ok(());
            }
        }
        let searched: Vec<String> = self
            .roots
            .iter()
            .map(|root| root.display().to_string())
            .collect();
        Err(StageError::NoPlugin {
            manifest: manifest.id.to_string(),
            path: path.to_owned(),
            searched: if searched.is_empty() {
                "no directory".to_owned()
            } else {
                searched.join(", ")
            },
        })
    }
}

impl Staged {
    fn add(&mut self, copied: Copying) {
        self.files += copied.files;
        self.bytes += copied.bytes;
        self.notes.extend(copied.notes);
    }
}

/// The fragment: one line for each copy, quoted so that no name can be more than a name.
fn fragment(agent: &str, copies: &[(String, String)]) -> String {
    let mut text = format!("# What the manifests for {agent} need. Written by farrier stage.\n");
    let plugins = format!("{DESTINATION}/openclaw-plugins/");
    if copies.iter().any(|(_, to)| to.starts_with(&plugins)) {
        text.push_str("# Load the plugins with: farrier config openclaw --plugins ");
        text.push_str(DESTINATION);
        text.push('\n');
    }
    for (from, to) in copies {
        let pair = serde_json::Value::from(vec![format!("{from}/"), format!("{to}/")]);
        text.push_str("COPY --chown=0:0 ");
        text.push_str(&pair.to_string());
        text.push('\n');
    }
    text
}

/// A directory beside the place it is for. Gone again unless it is placed.
#[derive(Debug)]
struct Draft {
    path: PathBuf,
    is_placed: bool,
}

impl Draft {
    fn beside(out: &Path) -> Result<Self, StageError> {
        let failed = |source| StageError::Io {
            what: "make a directory beside",
            path: out.to_owned(),
            source,
        };
        let name = out
            .file_name()
            .ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
        let random = getrandom::u64().map_err(|error| failed(io::Error::other(error)))?;
        let name = format!(".{}.{random:016x}", name.to_string_lossy());
        let path = out.with_file_name(name);
        fs::create_dir(&path).map_err(failed)?;
        let draft = Self {
            path,
            is_placed: false,
        };
        tree::set_mode(&draft.path, 0o755)?;
        Ok(draft)
    }

    fn place(mut self, out: &Path) -> Result<(), StageError> {
        fs::rename(&self.path, out).map_err(|source| StageError::Io {
            what: "place",
            path: out.to_owned(),
            source,
        })?;
        self.is_placed = true;
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.is_placed {
            // What failed is reported already.
            let _left_behind = fs::remove_dir_all(&self.path);
        }
    }
}
