// What both programs share around their agent loop: arguments in, one JSON line out.

import { parseArgs } from 'node:util';

export const MAX_ROUNDS = 20;

const USAGE = `usage: node <program>.mjs --model MODEL [--json] [--turns N] PROMPT
The endpoint and the key are read from OPENAI_BASE_URL and OPENAI_API_KEY.`;

/** The model still called tools after MAX_ROUNDS answers. */
export class NoFinalAnswer extends Error {
  constructor() {
    super(`still calling tools after ${MAX_ROUNDS} answers`);
  }
}

/** Runs `converse(job)`, prints `{ok, final_text, rounds, error?}` and sets the exit code. */
export async function main(converse) {
  const job = jobFromArguments();
  if (!job) {
    console.error(USAGE);
    process.exitCode = 2;
    return;
  }
  let outcome;
  try {
    const finalText = await converse(job);
    outcome = { ok: true, final_text: finalText, rounds: job.rounds };
  } catch (error) {
    // Whatever ends the run belongs in the report.
    outcome = { ok: false, final_text: '', rounds: job.rounds, error: `${error.constructor.name}: ${error.message}` };
  }
  console.log(JSON.stringify(outcome));
  process.exitCode = outcome.ok ? 0 : 1;
}

function jobFromArguments() {
  try {
    const { values, positionals } = parseArgs({
      options: {
        model: { type: 'string' },
        json: { type: 'boolean', default: false },
        turns: { type: 'string', default: '1' },
      },
      allowPositionals: true,
    });
    const turns = Number.parseInt(values.turns, 10);
    if (values.model === undefined || positionals.length !== 1 || !(turns >= 1)) return undefined;
    // What the user says, turn by turn, in one conversation.
    const prompts = Array(turns).fill(positionals[0]);
    return { model: values.model, prompts, stream: !values.json, rounds: 0 };
  } catch {
    return undefined;
  }
}
