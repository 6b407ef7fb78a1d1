//! An approval that failed although it was allowed, made good in the harness's files.
//!
//! For a while `openclaw devices approve` could fail on its own device's request: to approve, it asked for more scopes,
//! which replaced the very request that it was to approve, by one for `operator.admin`. Nothing of the harness's could
//! approve either, so the grant is written down here as the harness would have.
//!
//! Which versions need it: of those that were run none. 2026.5.12 replaces the request by one with the scope to pair in
//! addition, which the next attempt approves; 2026.9.6 keeps no files. 2026.4.21 was read, and approves at the first
//! attempt. It is therefore used between the first two only ([`Recovery::needed_by`]).
//!
//! Guarantees:
//! * Granted are the scopes of the request that was decided about, and what the device had; never `operator.admin`,
//!   whatever replaced the request.
//! * Where anything is not as described, nothing is written.
//! * The grant is written before the request is removed, each file by replacing it as a whole: whoever is interrupted in
//!   between leaves a request that waits in vain, and no scope that was not granted.
//!
//! *Caveat*: the gateway writes the same files. It reads them anew for each request, so what may be lost is a request of
//! the same moment, which its device makes again.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write as _};

use rustix::fs::{AtFlags, Mode, OFlags};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::decide::SCOPES;
use crate::request::{Request, RequestId, Scopes};
use crate::state::StateDir;
use crate::version::Version;

/// How an approval that failed was made good.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Recovery {
    /// The harness did approve.
    #[serde(rename = "openclaw-approve-applied-after-nonzero")]
    Applied,
    /// The request waits on, since the command may not approve it.
    #[serde(rename = "openclaw-approve-recovered-original")]
    Original,
    /// Another took the request's place.
    #[serde(rename = "openclaw-approve-recovered-replacement")]
    Replacement,
}

/// What to write.
#[derive(Debug)]
struct Grant {
    how: Recovery,
    paired: Value,
    pending: Value,
}

/// A request that may be recovered.
#[derive(Debug)]
struct Asked<'a> {
    device: &'a Map<String, Value>,
    wanted: BTreeSet<String>,
    has: BTreeSet<String>,
}

const ADMIN: &str = "operator.admin";
const PAIRING: &str = "operator.pairing";
const OPERATOR: &str = "operator";

impl Recovery {
    /// Whether a version may need it: later than 2026.4.21 and before 2026.5.12.
    #[must_use]
    pub fn needed_by(version: Version) -> bool {
        (Version(2026, 4, 22)..Version(2026, 5, 12)).contains(&version)
    }
}

/// Makes good an approval that failed; `said` is all that the command said. None if nothing could be proven; then nothing
/// was written.
///
/// # Errors
/// A file could not be written. Then at worst the request waits on.
pub(crate) fn recover(
    state: &StateDir,
    request: &Request,
    said: &str,
) -> io::Result<Option<Recovery>> {
    let document = |name| match state.json("devices", name) {
        Ok(Some(value @ Value::Object(_))) => value,
        _ => Value::Object(Map::new()),
    };
    let (pending, paired) = (document("pending.json"), document("paired.json"));
    if granted_already(&pending, &paired, request) {
        return Ok(Some(Recovery::Applied));
    }
    let Some(grant) = granted(&pending, &paired, request, said) else {
        return Ok(None);
    };
    replace(state, "paired.json", &grant.paired)?;
    replace(state, "pending.json", &grant.pending)?;
    Ok(Some(grant.how))
}

/// What is asked for, and by whom; if it may be recovered at all.
fn asked<'a>(paired: &'a Value, request: &Request) -> Option<Asked<'a>> {
    let Scopes::Listed(scopes) = &request.scopes else {
        return None;
    };
    let wanted: BTreeSet<_> = scopes.iter().cloned().collect();
    let device = paired.get(request.device_id.as_ref()?)?.as_object()?;
    let has = granted_scopes(device)?;
    let fits = !wanted.is_empty()
        && wanted.iter().all(|scope| SCOPES.contains(&scope.as_str()))
        && has.contains(PAIRING);
    fits.then_some(Asked {
        device,
        wanted,
        has,
    })
}

fn granted_already(pending: &Value, paired: &Value, request: &Request) -> bool {
    let asked = asked(paired, request);
    asked.is_some_and(|asked| {
        pending.get(request.id.as_str()).is_none() && asked.wanted.is_subset(&asked.has)
    })
}

fn granted(pending: &Value, paired: &Value, request: &Request, said: &str) -> Option<Grant> {
    let Asked {
        device,
        wanted,
        has: mut grant,
    } = asked(paired, request)?;
    let waits = pending.get(request.id.as_str()).is_some();
    let replacements = replacements(pending, request, &wanted);
    let (how, gone) = match &replacements[..] {
        [] if waits
            && said.contains("scope upgrade pending approval")
            && said.contains("gateway") =>
        {
            (Recovery::Original, None)
        }
        [] => return None,
        candidates => (
            Recovery::Replacement,
            Some(meant(candidates, pending, said)?),
        ),
    };
    grant.extend(wanted);
    if grant.contains("operator.write") {
        grant.insert("operator.read".to_owned());
    }
    grant.insert(PAIRING.to_owned());
    let grant: Vec<Value> = SCOPES
        .iter()
        .filter(|scope| grant.remove(**scope))
        .map(|scope| Value::from(*scope))
        .collect();
    let device = with_scopes(device, grant)?;
    let (mut paired, mut pending) = (paired.clone(), pending.clone());
    *paired.get_mut(request.device_id.as_ref()?)? = device;
    let pending_by_id = pending.as_object_mut()?;
    pending_by_id.remove(request.id.as_str());
    if let Some(gone) = gone {
        pending_by_id.remove(gone.as_str());
    }
    Some(Grant {
        how,
        paired,
        pending,
    })
}

/// Requests that could have taken the place of this one.
fn replacements(pending: &Value, request: &Request, wanted: &BTreeSet<String>) -> Vec<RequestId> {
    let Some(by_id) = pending.as_object() else {
        return Vec::new();
    };
    let others = by_id.values().filter_map(Request::of);
    let others =
        others.filter(|other| other.id != request.id && other.device_id == request.device_id);
    let replaces = |other: &Request| {
        let Scopes::Listed(scopes) = &other.scopes else {
            return false;
        };
        let scopes: BTreeSet<_> = scopes.iter().cloned().collect();
        let known = |scope: &String| scope == ADMIN || SCOPES.contains(&scope.as_str());
        scopes.contains(ADMIN) && wanted.is_subset(&scopes) && scopes.iter().all(known)
    };
    others.filter(replaces).map(|other| other.id).collect()
}

/// The one that the command named; or the only one, if it named none at all.
fn meant(candidates: &[RequestId], pending: &Value, said: &str) -> Option<RequestId> {
    let mut named = candidates.iter().filter(|id| mentions(said, id.as_str()));
    if let Some(one) = named.next() {
        return named.next().is_none().then(|| one.clone());
    }
    let ids = pending.as_object().into_iter().flat_map(Map::keys);
    let names_none =
        !said.to_lowercase().contains("requestid") && !ids.into_iter().any(|id| mentions(said, id));
    match candidates {
        [only] if names_none => Some(only.clone()),
        _ => None,
    }
}

/// Whether an id occurs as a whole: `req-1` does not in `req-10`, and does at the end of a sentence.
fn mentions(said: &str, id: &str) -> bool {
    let words = said.split(|char| !RequestId::allows(char));
    words
        .map(|word| word.trim_end_matches(['.', ':']))
        .any(|word| word == id)
}

/// What a device may do; none if it may more than is ever granted here, or that is not to be read.
fn granted_scopes(device: &Map<String, Value>) -> Option<BTreeSet<String>> {
    let lists = [
        device.get("scopes"),
        device.get("approvedScopes"),
        token(device).and_then(|token| token.get("scopes")),
    ];
    let mut scopes = BTreeSet::new();
    for list in lists.into_iter().flatten() {
        match Scopes::of_value(list) {
            Scopes::Listed(listed) => scopes.extend(listed),
            Scopes::Malformed => return None,
        }
    }
    let known = scopes.iter().all(|scope| SCOPES.contains(&scope.as_str()));
    known.then_some(scopes)
}

fn token(device: &Map<String, Value>) -> Option<&Value> {
    device.get("tokens")?.get(OPERATOR)
}

fn with_scopes(device: &Map<String, Value>, scopes: Vec<Value>) -> Option<Value> {
    let mut device = device.clone();
    let token = device
        .get_mut("tokens")?
        .get_mut(OPERATOR)?
        .as_object_mut()?;
    token.insert("scopes".to_owned(), scopes.clone().into());
    device.insert("scopes".to_owned(), scopes.clone().into());
    device.insert("approvedScopes".to_owned(), scopes.into());
    Some(device.into())
}

/// Replaces a file as a whole: whoever reads it meanwhile, or after an interruption, reads the one or the other.
fn replace(state: &StateDir, name: &str, value: &Value) -> io::Result<()> {
    let directory = state.directory("devices")?.ok_or(io::ErrorKind::NotFound)?;
    let draft = format!(".{name}.farrier-{}.tmp", std::process::id());
    // One that an interrupted process left; nobody else has its name.
    let _none_left = rustix::fs::unlinkat(&directory, &draft, AtFlags::empty());
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&directory, &draft, flags, Mode::from_raw_mode(0o600))?;
    let mut file = File::from(file);
    file.write_all(serde_json::to_string_pretty(value)?.as_bytes())?;
    file.sync_all()?;
    rustix::fs::renameat(&directory, &draft, &directory, name)?;
    rustix::fs::fsync(&directory)?;
    Ok(())
}

#[cfg(test)]
mod tests;
