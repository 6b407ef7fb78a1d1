// An agent on the `openai` package's own tool runner: `chat.completions.runTools`.
//
// The runner keeps the conversation itself and replays a fixed set of fields; `reasoning_content` is not among them.

import OpenAI from 'openai';

import { execDescription, execParameters, runCommandLine } from './exec_tool.mjs';
import { MAX_ROUNDS, NoFinalAnswer, main } from './program.mjs';

const exec = {
  type: 'function',
  function: {
    name: 'exec',
    description: execDescription,
    parameters: execParameters,
    parse: JSON.parse,
    function: ({ command }) => runCommandLine(command),
  },
};

async function converse(job) {
  const client = new OpenAI({ maxRetries: 0, timeout: 30_000 });
  let messages = [];
  let finalText = '';
  for (const prompt of job.prompts) {
    messages.push({ role: 'user', content: prompt });
    const runner = client.chat.completions.runTools(
      { model: job.model, messages, stream: job.stream, tools: [exec] },
      { maxChatCompletions: MAX_ROUNDS - job.rounds },
    );
    runner.on('chatCompletion', () => (job.rounds += 1));
    const message = await runner.finalMessage();
    if (message.tool_calls?.length) throw new NoFinalAnswer();
    finalText = message.content ?? '';
    messages = runner.messages;
  }
  return finalText;
}

await main(converse);
