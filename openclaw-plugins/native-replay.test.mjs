// What the plugin tells OpenClaw, and that what OpenClaw reads of it fits.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";

import plugin, { PROVIDER, replayPolicy } from "./native-replay/index.js";

const read = (name) => JSON.parse(readFileSync(new URL(`native-replay/${name}`, import.meta.url), "utf8"));

const context = (change = {}) => ({
  config: { agents: { defaults: { model: { primary: "inference/moonshotai/kimi-k2.6" } } } },
  provider: "inference",
  modelId: "moonshotai/kimi-k2.6",
  modelApi: "openai-completions",
  ...change,
});

test("the configured model gets ids and reasoning back as it wrote them", () => {
  assert.deepEqual(replayPolicy(context()), {
    sanitizeMode: "images-only",
    applyAssistantFirstOrderingFix: true,
    validateGeminiTurns: true,
    validateAnthropicTurns: true,
    sanitizeToolCallIds: false,
    dropReasoningFromHistory: false,
    dropThinkingBlocks: false,
  });
});

test("a model that is configured by its reference alone is the configured one", () => {
  const config = { agents: { defaults: { model: "inference/moonshotai/kimi-k2.6" } } };
  assert.equal(replayPolicy(context({ config })).sanitizeToolCallIds, false);
});

test("every other model is replayed as if nobody owned its provider", () => {
  const others = [
    { modelId: "moonshotai/kimi-k2.5" },
    { modelId: "" },
    { modelId: undefined },
    { config: undefined },
    { config: { agents: { defaults: { model: { primary: "openai/moonshotai/kimi-k2.6" } } } } },
  ];
  for (const other of others) {
    const policy = replayPolicy(context(other));
    assert.equal(policy.sanitizeToolCallIds, true, JSON.stringify(other));
    assert.equal(policy.toolCallIdMode, "strict");
    assert.equal(policy.dropReasoningFromHistory, true);
    assert.equal(policy.validateAnthropicTurns, true);
  }
});

test("other APIs are left to OpenClaw", () => {
  for (const modelApi of ["openai-responses", "anthropic-messages", "", null, undefined]) {
    assert.equal(replayPolicy(context({ modelApi })), undefined);
  }
});

test("a policy is the caller's to change", () => {
  replayPolicy(context()).sanitizeToolCallIds = true;
  assert.equal(replayPolicy(context()).sanitizeToolCallIds, false);
});

test("it registers the one provider, without a way to sign in and without another hook", () => {
  const providers = [];
  plugin.register({ registerProvider: (provider) => providers.push(provider) });
  assert.equal(providers.length, 1);
  assert.deepEqual(Object.keys(providers[0]).sort(), ["auth", "buildReplayPolicy", "id", "label"]);
  assert.equal(providers[0].id, PROVIDER);
  assert.deepEqual(providers[0].auth, []);
});

test("manifest, package and entry are of one plugin", () => {
  const manifest = read("openclaw.plugin.json");
  const packaged = read("package.json");
  assert.equal(manifest.id, plugin.id);
  assert.equal(manifest.name, plugin.name);
  assert.deepEqual(manifest.providers, [PROVIDER]);
  assert.equal(manifest.version, packaged.version);
  assert.equal(packaged.dependencies, undefined);
});
