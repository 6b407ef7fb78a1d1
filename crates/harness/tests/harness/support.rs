//! Routes, manifests and settings for the tests, and golden files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use farrier_compat::facts::{
    CHAT_COMPLETIONS, ClientFacts, Facts, MANAGED_BASE_URL, MANAGED_PROVIDER_KEY, UpstreamFacts,
};
use farrier_compat::registry::{LoadOptions, Registry, Source};
use farrier_harness::settings::{Given, Mistakes, Setting};
use farrier_harness::{Configuration, Content, Document, Harness, Request, named};

/// A configuration to ask for.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) harness: &'static dyn Harness,
    pub(crate) route: Facts,
    pub(crate) registry: Registry,
    pub(crate) version: Option<&'static str>,
    /// By name or by variable.
    pub(crate) settings: BTreeMap<String, String>,
}

/// The newest version of OpenClaw that takes most of what there is to write.
pub(crate) const OPENCLAW: &str = "2026.5.12";
/// Every version of it that was measured.
pub(crate) const OPENCLAWS: &[&str] = &["2026.4.21", OPENCLAW, "2026.9.6"];

impl Ask {
    pub(crate) fn openclaw() -> Self {
        Self {
            version: Some(OPENCLAW),
            ..Self::of("openclaw")
        }
    }

    pub(crate) fn of(harness: &str) -> Self {
        Self {
            harness: named(harness).unwrap(),
            route: route("nvidia/nemotron-3-super-120b-a12b"),
            registry: registry(&[]),
            version: None,
            settings: BTreeMap::new(),
        }
    }

    pub(crate) fn version(self, version: &'static str) -> Self {
        Self {
            version: Some(version),
            ..self
        }
    }

    pub(crate) fn route(self, route: Facts) -> Self {
        Self { route, ..self }
    }

    pub(crate) fn registry(self, registry: Registry) -> Self {
        Self { registry, ..self }
    }

    /// With a setting, by name or by variable; what a variable has in base64 is given as it is meant.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.settings.insert(name.to_owned(), value.to_owned());
        self
    }

    pub(crate) fn configuration(&self) -> Result<Configuration, Mistakes> {
        let look = |setting: &'static Setting| {
            let variable = setting.variable.map(|variable| variable.name);
            let names = [Some(setting.name), variable];
            names.into_iter().flatten().find_map(|name| {
                Some(Given {
                    from: name.to_owned(),
                    text: self.settings.get(name)?.clone(),
                    base64: false,
                })
            })
        };
        let known = self.harness.settings();
        for name in self.settings.keys() {
            let is_known = known.iter().any(|setting| {
                setting.name == name || setting.variable.is_some_and(|known| known.name == name)
            });
            assert!(is_known, "{name} is no setting of {:?}", self.harness);
        }
        self.harness.config(&Request {
            route: &self.route,
            registry: &self.registry,
            look: &look,
            version: self.version,
        })
    }

    /// The configuration, which there has to be.
    pub(crate) fn good(&self) -> Configuration {
        self.configuration()
            .unwrap_or_else(|mistakes| panic!("{mistakes}"))
    }

    /// The document in its first file.
    pub(crate) fn document(&self) -> Document {
        match self.good().files.into_iter().next().unwrap().content {
            Content::Json(document) | Content::Yaml { document, .. } => document,
            Content::Env(lines) => {
                Document::object(lines.into_iter().map(|(name, value)| (name, value.into())))
            }
        }
    }

    /// What is wrong, one line for each mistake.
    pub(crate) fn wrong(&self) -> String {
        match self.configuration() {
            Err(mistakes) => mistakes.to_string(),
            Ok(configuration) => panic!("expected mistakes, got {configuration:?}"),
        }
    }
}

/// The managed route to a model.
pub(crate) fn route(model: &str) -> Facts {
    Facts {
        agent: None,
        client: ClientFacts {
            model: model.to_owned(),
            provider_key: MANAGED_PROVIDER_KEY.to_owned(),
            inference_api: CHAT_COMPLETIONS.to_owned(),
            base_url: MANAGED_BASE_URL.to_owned(),
        },
        upstream: UpstreamFacts {
            provider: "nvidia-prod".to_owned(),
            model: model.to_owned(),
            base_url: "https://integrate.api.nvidia.com/v1".to_owned(),
            server: None,
        },
    }
}

pub(crate) const KIMI: &str = "moonshotai/kimi-k2.6";

/// A manifest as NemoClaw has it, less what it leaves unsaid here.
pub(crate) fn manifest(id: &str, agent: &str, model: &str, effects: &str) -> Source {
    Source {
        path: format!("{agent}/{id}.json"),
        text: format!(
            r#"{{"id":"{id}","agent":"{agent}","description":"for a test",
                "match":{{"modelIds":["{model}"],"providerKey":"inference",
                          "inferenceApi":"openai-completions","baseUrl":"https://inference.local/v1"}},
                "effects":{effects}}}"#
        ),
    }
}

/// The record that upstream ships for Kimi K2.6.
pub(crate) fn kimi() -> Source {
    manifest(
        "kimi-k2.6-managed-inference",
        "openclaw",
        KIMI,
        r#"{"openclawCompat":{"supportsStore":false,"requiresStringContent":true,
             "maxTokensField":"max_tokens","requiresToolResultName":true},
            "openclawTools":{"toolSearch":false},
            "openclawPlugins":[{"id":"nemoclaw-kimi-inference-compat",
              "path":"openclaw-plugins/kimi-inference-compat",
              "loadPath":"/usr/local/share/nemoclaw/openclaw-plugins/kimi-inference-compat"}]}"#,
    )
}

/// These manifests alone; every plugin exists.
pub(crate) fn registry(sources: &[Source]) -> Registry {
    let options = LoadOptions {
        exists: &|_| true,
        ..LoadOptions::default()
    };
    Registry::load(sources, &options).unwrap_or_else(|errors| panic!("{errors}"))
}

/// The value at a dotted path, as JSON text on one line; `-` if there is none.
pub(crate) fn at(document: &Document, path: &str) -> String {
    let keys: Vec<&str> = path.split('/').collect();
    document.get(&keys).map_or_else(|| "-".to_owned(), flat)
}

/// A document as JSON on one line.
pub(crate) fn flat(document: &Document) -> String {
    serde_json::to_string(document).unwrap()
}

/// Holds a text against `tests/golden/<name>`. What is new or differs is put beside the build, to be looked
/// at and copied over.
pub(crate) fn golden(name: &str, text: &str) {
    let expected = tests().join("golden").join(name);
    let there = std::fs::read_to_string(&expected).unwrap_or_default();
    if there != text {
        let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("golden");
        std::fs::create_dir_all(&place).unwrap();
        let new = place.join(name);
        std::fs::write(&new, text).unwrap();
        panic!(
            "{} differs; if what is new is right:\n  cp {} {}",
            expected.display(),
            new.display(),
            expected.display()
        );
    }
}

/// Where the files of the tests are.
pub(crate) fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}
