// Reduces what `openclaw config schema` prints to the parts that a generated configuration can touch, so that a test
// can hold one against it. What is cut off is closed: a key that is not of the schema stays refused.
//
//   openclaw config schema | node prune.mjs > openclaw-<version>.json
import { readFileSync } from "node:fs";

// Paths whose inside is kept; `*` is any key, `<any>` the schema of keys that have none of their own. Elsewhere a value is only said to be allowed.
const KEPT = [
  "agents.defaults.model", "agents.defaults.heartbeat", "agents.defaults.subagents", "agents.defaults.compaction",
  "agents.list.tools", "agents.list.subagents", "agents.entries.*.tools", "agents.entries.*.subagents",
  "models.providers.*.request", "models.providers.*.models.input", "models.providers.*.models.cost",
  "models.providers.*.models.compat", "channels.defaults", "tools.toolSearch", "tools.web.fetch", "tools.web.search",
  "update", "plugins.entries.<any>", "plugins.entries.bonjour", "plugins.entries.brave.config",
  "plugins.entries.diagnostics-otel", "plugins.entries.tavily.config", "plugins.load.paths", "gateway.controlUi.allowedOrigins", "gateway.auth",
  "gateway.reload", "gateway.trustedProxies", "proxy", "diagnostics.otel",
];

const wanted = (path) =>
  KEPT.some((kept) => {
    const [want, have] = [kept.split("."), path];
    return have.every((key, at) => at >= want.length || want[at] === key || want[at] === "*");
  });
// Leaves below a kept path are kept whole; one level below the last named key is deep enough.
const inside = (path) => KEPT.some((kept) => path.length <= kept.split(".").length + 1) && wanted(path);

function pruned(schema, path) {
  if (typeof schema !== "object" || schema === null) return schema;
  const out = {};
  for (const [key, value] of Object.entries(schema)) {
    if (["title", "description", "default", "$schema", "examples", "$comment"].includes(key)) continue;
    if (key === "properties") {
      out.properties = Object.fromEntries(
        Object.entries(value).map(([name, below]) => {
          const at = [...path, name];
          return [name, inside(at) ? pruned(below, at) : true];
        }),
      );
    } else if (key === "additionalProperties" && typeof value === "object") {
      const at = [...path, "<any>"];
      out.additionalProperties = inside(at) ? pruned(value, at) : true;
    } else if (key === "items") {
      out.items = Array.isArray(value) ? value.map((item) => pruned(item, path)) : pruned(value, path);
    } else if (["anyOf", "oneOf", "allOf"].includes(key)) {
      out[key] = value.map((each) => pruned(each, path));
    } else out[key] = value;
  }
  return out;
}

const schema = JSON.parse(readFileSync(0, "utf8"));
// What it wants at the top are defaults that it fills in itself.
delete schema.required;
process.stdout.write(`${JSON.stringify({ $schema: schema.$schema, ...pruned(schema, []) }, null, 1)}\n`);
