//! Which of the plugins that manifests name are loaded, and from where.
//!
//! A plugin is for some releases, and is loaded from the directory that it was staged
//! to. `OpenClaw` refuses its whole configuration over a directory that is not there,
//! so where nobody said that a plugin was staged, it is left out and told of.

use farrier_compat::registry::OpenclawPlugin;

use super::versions::Version;

/// A plugin to load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Loaded {
    pub(crate) id: String,
    pub(crate) directory: String,
}

/// The plugins to load, in order, and what is to be told of the others.
pub(crate) fn loaded(
    named: &[OpenclawPlugin],
    staged: Option<&str>,
    version: &Version,
) -> (Vec<Loaded>, Vec<String>) {
    let (mut loaded, mut notes) = (Vec::new(), Vec::new());
    let needed = named
        .iter()
        .filter(|plugin| plugin.releases.include(version.release));
    for plugin in needed {
        let below_staged = || Some(format!("{}/{}", staged?, plugin.path.trim_end_matches('/')));
        match below_staged().or_else(|| plugin.load_path.clone()) {
            Some(directory) => loaded.push(Loaded {
                id: plugin.id.clone(),
                directory,
            }),
            None => notes.push(format!(
                "left out, though OpenClaw {} needs it: the plugin {}; put it somewhere with \
                 `farrier stage` and say where with --plugins",
                version.name, plugin.id
            )),
        }
    }
    (loaded, notes)
}
