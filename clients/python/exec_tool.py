"""The one tool both programs offer the model: run a short, harmless command line.

Commands come from a model, so nothing reaches a shell: the line is cut at `;`, each part is split into words, and only
`echo` and the bare programs of BARE are started. Bare, because `date` and `hostname` change the machine when given words.
"""

import shlex
import subprocess

BARE = {"date", "hostname", "id", "pwd", "uname", "uptime", "whoami"}
TIMEOUT_SECONDS = 5

EXEC_TOOL = {
    "type": "function",
    "function": {
        "name": "exec",
        "description": "Run a command on this machine and return what it prints.",
        "parameters": {
            "type": "object",
            "properties": {"command": {"type": "string", "description": "The command line to run."}},
            "required": ["command"],
        },
    },
}


def run_command_line(line: str) -> str:
    """Runs `a; b; c` part by part and returns everything printed. A refusal is text too: the model should read it."""
    return "".join(run_one(part) for part in line.split(";") if part.strip())


def run_one(command: str) -> str:
    try:
        words = shlex.split(command)
    except ValueError as error:
        return f"exec: {error}\n"
    if not is_allowed(words):
        return f"exec: {command.strip()}: not allowed\n"
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False)
    except FileNotFoundError:
        return f"exec: {words[0]}: not found\n"
    except subprocess.TimeoutExpired:
        return f"exec: {words[0]}: still running after {TIMEOUT_SECONDS} s\n"
    return done.stdout + done.stderr


def is_allowed(words: list[str]) -> bool:
    return words[:1] == ["echo"] or (len(words) == 1 and words[0] in BARE)
