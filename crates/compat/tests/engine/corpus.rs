//! Golden wire transcripts: `corpus/<manifest id>/<case>/`.
//!
//! The format is described in `farrier_testkit::corpus`. Exchanges of a case share a ledger. `FARRIER_BLESS=1` writes the goldens anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use farrier_compat::plan::{Plan, Reply, With};
use farrier_compat::registry::{LoadOptions, Manifest, Registry, shipped_sources};
use farrier_compat::run::{End, Outcome};
use farrier_testkit::corpus::{Case, exchanges, folders};

use crate::support::{Store, Streamed, rewrite, stream, text};

/// What came out of one exchange.
#[derive(Debug, PartialEq, Eq, Clone)]
struct Exchange {
    sent: String,
    client: Option<String>,
    outcome: Option<Outcome>,
}

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../corpus")
}

fn cases() -> Vec<(String, PathBuf)> {
    let mut cases = Vec::new();
    for manifest in folders(&corpus()) {
        for case in folders(&manifest) {
            cases.push((name(&manifest), case));
        }
    }
    assert!(!cases.is_empty(), "no corpus");
    cases
}

fn name(path: &Path) -> String {
    path.file_name()
        .expect("a name")
        .to_string_lossy()
        .into_owned()
}

fn shipped(without: Option<&str>) -> Registry {
    let switched_off: Vec<String> = without.map(str::to_owned).into_iter().collect();
    let options = LoadOptions {
        switched_off: &switched_off,
        ..LoadOptions::default()
    };
    let shipped = Registry::load(&shipped_sources(), &LoadOptions::default())
        .expect("the shipped registry loads");
    shipped
        .with(&[], &options)
        .expect("a shipped manifest can be switched off")
}

/// Sends a request through `plan`.
fn ask(
    plan: &Plan,
    case: &Case,
    seed: u8,
    body: &[u8],
    store: &Store,
) -> Result<(String, Reply), String> {
    let facts = case.facts();
    let with = With {
        upstream_model: (facts.client.model != facts.upstream.model)
            .then(|| facts.upstream.model.clone()),
        seed: [seed; 16],
        origin: format!("{}/{}", facts.upstream.provider, facts.upstream.model),
    };
    let rewritten = rewrite(plan, body, with, "s", store).map_err(|fault| fault.code.to_owned())?;
    Ok((text(&rewritten.segments), rewritten.reply))
}

/// Plays a case; a fault ends it.
fn play(registry: &Registry, case: &Case, folder: &Path) -> Result<Vec<Exchange>, String> {
    let plan = registry.plan_for(&case.facts());
    let mut store = Store::default();
    let mut out = Vec::new();
    for (seed, exchange) in (1u8..).zip(exchanges(folder)) {
        let body = fs::read(exchange.join("request.json")).expect("a request");
        let (sent, reply) = ask(&plan, case, seed, &body, &store)?;
        let (sse, json) = (
            exchange.join("upstream.sse"),
            exchange.join("upstream.json"),
        );
        let (client, records, outcome) = if sse.exists() {
            let upstream = fs::read(&sse).expect("readable");
            let done = stream(reply, [&*upstream], End::Clean);
            (Some(done.client), done.commits, Some(done.outcome))
        } else if json.exists() {
            let upstream = fs::read(&json).expect("readable");
            let done = reply.into_json().finish(upstream.into());
            (
                Some(String::from_utf8(done.body.to_vec()).expect("UTF-8")),
                done.commit,
                None,
            )
        } else {
            (None, Vec::new(), None)
        };
        for record in records {
            store.keep("s", record);
        }
        out.push(Exchange {
            sent,
            client,
            outcome,
        });
    }
    Ok(out)
}

fn golden(path: &Path, got: &str, wrong: &mut Vec<String>) {
    if std::env::var_os("FARRIER_BLESS").is_some() {
        fs::write(path, got).expect("writable");
        return;
    }
    let want = fs::read_to_string(path).unwrap_or_default();
    if want != got {
        wrong.push(format!("{}\n  want: {want}\n  got:  {got}", path.display()));
    }
}

#[test]
fn every_case_is_as_recorded() {
    let mut wrong = Vec::new();
    let registry = shipped(None);
    for (_, folder) in cases() {
        let case = Case::load(&folder);
        let played = match (play(&registry, &case, &folder), &case.fault) {
            (Ok(played), None) => played,
            (Err(code), Some(want)) if code == *want => continue,
            (got, want) => {
                wrong.push(format!(
                    "{}: want fault {want:?}, got {got:?}",
                    folder.display()
                ));
                continue;
            }
        };
        for (exchange, at) in played.iter().zip(exchanges(&folder)) {
            golden(
                &at.join("upstream-request.json"),
                &exchange.sent,
                &mut wrong,
            );
            if let Some(client) = &exchange.client {
                let file = if at.join("upstream.sse").exists() {
                    "client.sse"
                } else {
                    "client.json"
                };
                golden(&at.join(file), client, &mut wrong);
            }
        }
        let ending = played
            .last()
            .and_then(|exchange| exchange.outcome)
            .map(|outcome| format!("{outcome:?}").to_lowercase());
        let want = &case.ending;
        if ending.is_some_and(|ending| ending != *want) {
            wrong.push(format!("{}: want ending {want}", folder.display()));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} differences:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn cases_that_must_be_untouched_are() {
    let mut seen = 0;
    for (manifest, folder) in cases() {
        let case = Case::load(&folder);
        if !case.untouched {
            continue;
        }
        seen += 1;
        let with = play(&shipped(None), &case, &folder);
        let without = play(&shipped(Some(&manifest)), &case, &folder);
        assert_eq!(
            with,
            without,
            "{}: {manifest} changed what it must not",
            folder.display()
        );
    }
    assert!(seen > 0, "no refusal in the corpus");
}

#[test]
fn every_manifest_has_a_case_that_fails_without_it() {
    let mut proven: BTreeSet<String> = BTreeSet::new();
    let mut by_manifest: BTreeMap<String, usize> = BTreeMap::new();
    for (manifest, folder) in cases() {
        let case = Case::load(&folder);
        *by_manifest.entry(manifest.clone()).or_default() += 1;
        if play(&shipped(None), &case, &folder) != play(&shipped(Some(&manifest)), &case, &folder) {
            proven.insert(manifest);
        } else {
            assert!(
                case.untouched,
                "{}: makes no difference and does not say `untouched`",
                folder.display()
            );
        }
    }
    let shipped = shipped(None);
    // What has no pass does nothing on the wire: it is proven by running the harness.
    let on_the_wire = |manifest: &&Manifest| !manifest.effects.gateway.is_empty();
    for manifest in shipped.manifests().filter(on_the_wire) {
        assert!(
            proven.contains(&*manifest.id),
            "no case under corpus/{} fails when the manifest is removed",
            manifest.id
        );
    }
    for folder in by_manifest.keys() {
        assert!(
            shipped.manifests().any(|manifest| *manifest.id == **folder),
            "corpus/{folder}: no such manifest"
        );
    }
}

#[test]
fn e2e_01_every_manifest_has_a_case_that_runs_what_it_is_for() {
    let interventions = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../e2e/interventions");
    let shipped = shipped(None);
    for manifest in shipped.manifests() {
        let case = interventions.join(&*manifest.id).join("case.toml");
        assert!(
            case.is_file(),
            "{}: no e2e/interventions/{0}/case.toml; docs/verify.md says how one is written",
            manifest.id
        );
    }
    for folder in folders(&interventions).iter().map(|folder| name(folder)) {
        assert!(
            shipped.manifests().any(|manifest| *manifest.id == *folder),
            "e2e/interventions/{folder}: no such manifest"
        );
    }
}

#[test]
fn i5_every_split_point_of_every_stream_gives_the_same_bytes() {
    let registry = shipped(None);
    for (_, folder) in cases() {
        let case = Case::load(&folder);
        if case.fault.is_some() {
            continue;
        }
        let plan = registry.plan_for(&case.facts());
        let mut store = Store::default();
        for (seed, at) in (1u8..).zip(exchanges(&folder)) {
            let Ok(upstream) = fs::read(at.join("upstream.sse")) else {
                continue;
            };
            let body = fs::read(at.join("request.json")).expect("a request");
            let reply = || ask(&plan, &case, seed, &body, &store).expect("no fault").1;
            let whole = stream(reply(), [&*upstream], End::Clean);
            for cut in 0..=upstream.len() {
                let (left, right) = upstream.split_at(cut);
                assert_eq!(
                    stream(reply(), [left, right], End::Clean),
                    whole,
                    "{} cut at {cut}",
                    at.display()
                );
            }
            assert_eq!(
                stream(reply(), upstream.chunks(1), End::Clean),
                whole,
                "{} byte by byte",
                at.display()
            );
            for record in whole.commits {
                store.keep("s", record);
            }
        }
    }
}

#[test]
fn i7_a_stream_cut_anywhere_ends_well_formed_in_each_way() {
    let registry = shipped(None);
    for (_, folder) in cases() {
        let case = Case::load(&folder);
        let at = exchanges(&folder).remove(0);
        let (Ok(upstream), None) = (fs::read(at.join("upstream.sse")), &case.fault) else {
            continue;
        };
        let plan = registry.plan_for(&case.facts());
        let body = fs::read(at.join("request.json")).expect("a request");
        for cut in (0..=upstream.len()).step_by(3) {
            for end in [End::Clean, End::Truncated, End::Failed, End::ClientGone] {
                let reply = ask(&plan, &case, 1, &body, &Store::default())
                    .expect("no fault")
                    .1;
                let Streamed {
                    client, outcome, ..
                } = stream(reply, [&upstream[..cut]], end);
                assert_eq!(
                    check_ending(&client, outcome, end),
                    Ok(()),
                    "{} cut at {cut}, {end:?}:
{client}",
                    at.display()
                );
            }
        }
    }
}

/// A well-formed stream tells an error exactly when it is not complete.
fn check_ending(client: &str, outcome: Outcome, end: End) -> Result<(), String> {
    if outcome == Outcome::ClientGone {
        return if end == End::ClientGone {
            Ok(())
        } else {
            Err("nobody left".into())
        };
    }
    // A clean end may leave the very last event without its blank line; a comment needs none.
    let last = client.lines().last().unwrap_or_default();
    if !last.is_empty() && !last.starts_with(':') && end != End::Clean {
        return Err("does not end with a whole event".into());
    }
    let mut errors = 0;
    let mut told = false;
    for line in client
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
    {
        if line == "[DONE]" {
            told = true;
            continue;
        }
        // Half a surrogate pair is legal on the wire; it is the decoder that cannot hold it.
        let line = line.replace("\\ud83d", "").replace("\\ude00", "");
        let event: serde_json::Value =
            serde_json::from_str(&line).map_err(|error| format!("{error}: {line}"))?;
        errors += usize::from(event.get("error").is_some());
        told |= event
            .pointer("/choices/0/finish_reason")
            .is_some_and(|reason| reason.is_string());
    }
    match (outcome, errors, told) {
        (Outcome::Complete, 0, true) => Ok(()),
        (Outcome::Truncated | Outcome::Failed, 1, _) => Ok(()),
        _ => Err(format!(
            "{outcome:?} with {errors} error events, told: {told}"
        )),
    }
}

#[test]
fn fuzz_targets_hold_on_every_file_of_the_corpus() {
    let mut seen = 0;
    for (_, folder) in cases() {
        for at in exchanges(&folder) {
            let request = fs::read(at.join("request.json")).expect("a request");
            farrier_compat::fuzzing::request(&request);
            for cut in (0..request.len()).step_by(7) {
                farrier_compat::fuzzing::request(&request[..cut]);
            }
            let Ok(upstream) = fs::read(at.join("upstream.sse")) else {
                continue;
            };
            for size in [1, 7, 255] {
                let seeded: Vec<u8> = std::iter::once(size)
                    .chain(upstream.iter().copied())
                    .collect();
                farrier_compat::fuzzing::stream(&seeded);
            }
            seen += 1;
        }
    }
    assert!(seen > 0);
}
