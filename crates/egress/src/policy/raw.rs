//! A policy file as it is written. Every field of the language is here, so that an unknown one is a slip of the pen.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_saphyr::Spanned;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPolicy {
    pub(super) version: u32,
    /// Of no concern to a proxy, like the two after it.
    #[serde(default, rename = "filesystem_policy")]
    _filesystem: Option<IgnoredAny>,
    #[serde(default, rename = "landlock")]
    _landlock: Option<IgnoredAny>,
    #[serde(default, rename = "process")]
    _process: Option<IgnoredAny>,
    #[serde(default)]
    pub(super) network_policies: Option<BTreeMap<String, RawRule>>,
    #[serde(default)]
    pub(super) network_middlewares: Option<BTreeMap<String, IgnoredAny>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRule {
    #[serde(default, rename = "name")]
    _name: Option<String>,
    #[serde(default)]
    pub(super) endpoints: Vec<Spanned<RawEndpoint>>,
    #[serde(default)]
    pub(super) binaries: Vec<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "the language has them")]
pub(super) struct RawEndpoint {
    #[serde(default)]
    pub(super) host: String,
    #[serde(default)]
    pub(super) port: Option<u16>,
    #[serde(default)]
    pub(super) ports: Vec<u16>,
    #[serde(default)]
    pub(super) path: Option<String>,
    #[serde(default)]
    pub(super) protocol: Option<String>,
    #[serde(default)]
    pub(super) tls: Option<String>,
    #[serde(default)]
    pub(super) enforcement: Option<String>,
    #[serde(default)]
    pub(super) access: Option<String>,
    #[serde(default)]
    pub(super) rules: Vec<RawAllow>,
    #[serde(default)]
    pub(super) deny_rules: Vec<RawMatch>,
    #[serde(default)]
    pub(super) allowed_ips: Vec<String>,
    #[serde(default)]
    pub(super) allow_encoded_slash: bool,
    #[serde(default)]
    pub(super) websocket_credential_rewrite: bool,
    #[serde(default)]
    pub(super) request_body_credential_rewrite: bool,
    #[serde(default)]
    pub(super) credential_signing: Option<String>,
    #[serde(default)]
    pub(super) credential_binding: Option<IgnoredAny>,
    #[serde(default, rename = "signing_service")]
    _signing_service: Option<String>,
    #[serde(default, rename = "signing_region")]
    _signing_region: Option<String>,
    #[serde(default, rename = "allow_uninspected_credentials")]
    _allow_uninspected_credentials: bool,
    #[serde(default, rename = "advisor_proposed")]
    _advisor_proposed: bool,
    #[serde(default, rename = "provider_credentialed")]
    _provider_credentialed: bool,
    #[serde(default, rename = "persisted_queries")]
    _persisted_queries: Option<IgnoredAny>,
    #[serde(default, rename = "graphql_persisted_queries")]
    _graphql_persisted_queries: Option<IgnoredAny>,
    #[serde(default, rename = "graphql_max_body_bytes")]
    _graphql_max_body_bytes: Option<u64>,
    #[serde(default, rename = "json_rpc_max_body_bytes")]
    _json_rpc_max_body_bytes: Option<u64>,
    #[serde(default, rename = "json_rpc")]
    _json_rpc: Option<IgnoredAny>,
    #[serde(default, rename = "mcp")]
    _mcp: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAllow {
    pub(super) allow: RawMatch,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawMatch {
    #[serde(default)]
    pub(super) method: Option<String>,
    #[serde(default)]
    pub(super) path: Option<String>,
    #[serde(default)]
    pub(super) query: BTreeMap<String, RawValue>,
    #[serde(default, rename = "command")]
    _command: Option<String>,
    #[serde(default, rename = "operation_type")]
    _operation_type: Option<String>,
    #[serde(default, rename = "operation_name")]
    _operation_name: Option<String>,
    #[serde(default, rename = "fields")]
    _fields: Option<IgnoredAny>,
    #[serde(default, rename = "params")]
    _params: Option<IgnoredAny>,
    #[serde(default, rename = "tool")]
    _tool: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum RawValue {
    One(String),
    Of(RawValues),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawValues {
    #[serde(default)]
    pub(super) glob: Option<String>,
    #[serde(default)]
    pub(super) any: Vec<String>,
}

impl RawValue {
    /// The patterns, one of which is to match.
    pub(super) fn patterns(&self) -> Vec<&str> {
        match self {
            Self::One(pattern) => vec![pattern],
            Self::Of(RawValues { glob, any }) => {
                glob.iter().chain(any).map(String::as_str).collect()
            }
        }
    }
}
