// Replays the turns of the configured model as it wrote them: reasoning kept, tool-call ids unchanged.
//
// OpenClaw asks the plugin that owns a provider how history is replayed to it. For a provider that nobody owns it
// strips tool-call ids to letters and digits (2026.4.21: `functions.exec:0` becomes `functionsexec0`), and from
// 2026.5.12 drops all but the newest reasoning. Kimi answers such a history with 400, or stops calling tools.
//
//     what OpenClaw stored ──▶ replayPolicy ──▶ what OpenClaw sends
//
// The policy holds for one model: the one that the agents' default names, since the manifest that loads this plugin
// was matched against it. Other models of the provider are replayed as if nobody owned the provider.
//
// It changes no request, reads no message, and has no settings.

/** The key under which Farrier's configuration lists the provider. */
export const PROVIDER = "inference";

/** The only API for which ids or reasoning are lost. */
const CHAT_COMPLETIONS = "openai-completions";

/** What a chat endpoint is owed whatever becomes of ids and reasoning: the order and alternation of turns. */
const TURN_REPAIRS = Object.freeze({
  sanitizeMode: "images-only",
  applyAssistantFirstOrderingFix: true,
  validateGeminiTurns: true,
  validateAnthropicTurns: true,
});

/** Nothing of what the model wrote is changed. */
const NATIVE = Object.freeze({
  ...TURN_REPAIRS,
  sanitizeToolCallIds: false,
  dropReasoningFromHistory: false,
  dropThinkingBlocks: false,
});

/** What OpenClaw 2026.5.12 does for a provider that nobody owns; older versions do not know the last key. */
const UNOWNED = Object.freeze({
  ...TURN_REPAIRS,
  sanitizeToolCallIds: true,
  toolCallIdMode: "strict",
  dropReasoningFromHistory: true,
});

/**
 * How the history of a conversation is replayed to a model of the provider.
 *
 * @param {{config?: object, modelId?: string, modelApi?: string | null}} context from OpenClaw
 * @returns {object | undefined} a replay policy; none leaves OpenClaw's default
 */
export function replayPolicy(context) {
  if (context.modelApi !== CHAT_COMPLETIONS) {
    return undefined;
  }
  return isConfigured(context) ? { ...NATIVE } : { ...UNOWNED };
}

function isConfigured({ config, modelId }) {
  const model = config?.agents?.defaults?.model;
  const primary = typeof model === "string" ? model : model?.primary;
  return typeof modelId === "string" && modelId !== "" && primary === `${PROVIDER}/${modelId}`;
}

export default {
  id: "farrier-native-replay",
  name: "Farrier native replay",
  description: "Replays the turns of the configured model as it wrote them.",
  register(api) {
    api.registerProvider({
      id: PROVIDER,
      label: "Farrier's gateway",
      auth: [],
      buildReplayPolicy: replayPolicy,
    });
  },
};
