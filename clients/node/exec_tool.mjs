// The one tool both programs offer the model: run a short, harmless command line.
//
// Commands come from a model, so nothing reaches a shell: the line is cut at `;`, each part is split at blanks, and only
// `echo` and the bare programs of BARE are started. Bare, because `date` and `hostname` change the machine when given words.

import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

const BARE = new Set(['date', 'hostname', 'id', 'pwd', 'uname', 'uptime', 'whoami']);
const TIMEOUT_MS = 5_000;
const run = promisify(execFile);

export const execParameters = {
  type: 'object',
  properties: { command: { type: 'string', description: 'The command line to run.' } },
  required: ['command'],
};

export const execDescription = 'Run a command on this machine and return what it prints.';

/** Runs `a; b; c` part by part and returns everything printed. A refusal is text too: the model should read it. */
export async function runCommandLine(line) {
  let output = '';
  for (const part of line.split(';')) {
    const words = part.trim().split(/\s+/);
    if (words[0] !== '') output += await runOne(words);
  }
  return output;
}

async function runOne(words) {
  if (!isAllowed(words)) return `exec: ${words.join(' ')}: not allowed\n`;
  const [program, ...args] = words;
  try {
    const { stdout, stderr } = await run(program, args, { timeout: TIMEOUT_MS });
    return stdout + stderr;
  } catch (error) {
    if (error.code === 'ENOENT') return `exec: ${program}: not found\n`;
    if (error.killed) return `exec: ${program}: still running after ${TIMEOUT_MS / 1000} s\n`;
    return error.stdout + error.stderr;
  }
}

function isAllowed(words) {
  return words[0] === 'echo' || (words.length === 1 && BARE.has(words[0]));
}
