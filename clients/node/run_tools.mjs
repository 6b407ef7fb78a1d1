// An agent on the `openai` package's own tool runner: `chat.completions.runTools`.
//
// The runner keeps the conversation itself and replays a fixed set of fields; `reasoning_content` is not among them.

import OpenAI from 'openai';

import { execDescription, execParameters, runCommandLine } from './exec_tool.mjs';
import { MAX_ROUNDS, NoFinalAnswer, main } from './program.mjs';

async function converse(job) {
  const client = new OpenAI({ maxRetries: 0, timeout: 30_000 });
  const runner = client.chat.completions.runTools(
    {
      model: job.model,
      messages: [{ role: 'user', content: job.prompt }],
      stream: job.stream,
      tools: [
        {
          type: 'function',
          function: {
            name: 'exec',
            description: execDescription,
            parameters: execParameters,
            parse: JSON.parse,
            function: ({ command }) => runCommandLine(command),
          },
        },
      ],
    },
    { maxChatCompletions: MAX_ROUNDS },
  );
  runner.on('chatCompletion', () => (job.rounds += 1));
  const message = await runner.finalMessage();
  if (message.tool_calls?.length) throw new NoFinalAnswer();
  return message.content ?? '';
}

await main(converse);
