//! Which directory entries decide what a path leads to.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};

/// As many links as Linux follows: <https://man7.org/linux/man-pages/man7/path_resolution.7.html>.
const MAX_LINKS: usize = 40;

/// Each directory that is gone through on the way to `path`, with the name that is looked up in it; links and the ways
/// that they lead included. It ends with the first name that is not there.
///
/// ```text
/// /etc/farrier.toml, a link to map/..data/farrier.toml, where ..data is a link to ..v1:
/// / etc, /etc farrier.toml, /etc map, /etc/map ..data, /etc/map ..v1, /etc/map/..v1 farrier.toml
/// ```
pub(super) fn entries(path: &Path) -> Vec<(PathBuf, OsString)> {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let (mut at, mut ahead, mut links) = (PathBuf::from("/"), names(&path), 0);
    let mut passed = Vec::new();
    while let Some(name) = ahead.pop_front() {
        if name == OsStr::new("..") {
            at.pop();
            continue;
        }
        let next = at.join(&name);
        passed.push((at.clone(), name));
        match next.symlink_metadata() {
            Err(_) => break,
            Ok(metadata) if metadata.is_symlink() => {
                links += 1;
                let Some(target) = next.read_link().ok().filter(|_| links <= MAX_LINKS) else {
                    break;
                };
                if target.is_absolute() {
                    at = PathBuf::from("/");
                }
                let mut way = names(&target);
                way.append(&mut ahead);
                ahead = way;
            }
            Ok(_) => at = next,
        }
    }
    passed
}

fn names(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir))
        .map(|part| part.as_os_str().to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// The entries below a directory, each as `directory name`.
    fn below(place: &Path, path: &Path) -> Vec<String> {
        let shown = entries(path).into_iter().filter_map(|(directory, name)| {
            let directory = directory.strip_prefix(place).ok()?.display().to_string();
            Some(format!("{directory} {}", name.display()))
        });
        shown.collect()
    }

    #[test]
    fn links_and_the_ways_they_lead_are_entries_too() {
        let place = tempfile::tempdir().unwrap();
        let place = place.path();
        fs::create_dir_all(place.join("map/..v1")).unwrap();
        fs::write(place.join("map/..v1/key"), "").unwrap();
        symlink("..v1", place.join("map/..data")).unwrap();
        symlink("..data/key", place.join("map/key")).unwrap();
        symlink(place.join("map/../map/key"), place.join("key")).unwrap();
        assert_eq!(
            below(place, &place.join("key")),
            [
                " key",
                " map",
                " map",
                "map key",
                "map ..data",
                "map ..v1",
                "map/..v1 key"
            ]
        );
    }

    #[test]
    fn it_ends_with_the_first_name_that_is_not_there() {
        let place = tempfile::tempdir().unwrap();
        let place = place.path();
        assert_eq!(below(place, &place.join("later/still/key")), [" later"]);
    }

    #[test]
    fn links_in_a_circle_end() {
        let place = tempfile::tempdir().unwrap();
        let place = place.path();
        symlink("b", place.join("a")).unwrap();
        symlink("a", place.join("b")).unwrap();
        assert_eq!(below(place, &place.join("a")).len(), MAX_LINKS + 1);
    }
}
