// An agent on the `openai` package's `.stream()` helper with a loop of its own.
//
// It replays `finalMessage()` as the helper hands it out. The helper joins the deltas of the fields it knows and, of any
// other field, keeps the last delta alone: `reasoning_content` comes back cut to its end.

import OpenAI from 'openai';

import { execDescription, execParameters, runCommandLine } from './exec_tool.mjs';
import { MAX_ROUNDS, NoFinalAnswer, main } from './program.mjs';

const tools = [
  { type: 'function', function: { name: 'exec', description: execDescription, parameters: execParameters } },
];

async function converse(job) {
  if (!job.stream) throw new Error('the stream helper knows streams only');
  const client = new OpenAI({ maxRetries: 0, timeout: 30_000 });
  const messages = [];
  let finalText = '';
  for (const prompt of job.prompts) {
    messages.push({ role: 'user', content: prompt });
    finalText = await answerTo(messages, client, job);
  }
  return finalText;
}

async function answerTo(messages, client, job) {
  while (job.rounds < MAX_ROUNDS) {
    const message = await client.chat.completions.stream({ model: job.model, messages, tools }).finalMessage();
    job.rounds += 1;
    messages.push(message);
    if (!message.tool_calls?.length) return message.content ?? '';
    for (const call of message.tool_calls) {
      const { command } = JSON.parse(call.function.arguments);
      messages.push({ role: 'tool', tool_call_id: call.id, content: await runCommandLine(command) });
    }
  }
  throw new NoFinalAnswer();
}

await main(converse);
